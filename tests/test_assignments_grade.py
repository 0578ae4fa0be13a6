"""The graders are graded: right answers, typical mistakes, and submissions that would do harm, each confined and judged as in class."""

from __future__ import annotations

import csv
import functools
import html.parser
import io
import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from assignments import __main__ as command
from assignments._tools import build, confine, exam, grade, perform, report, source
from assignments._tools.confine import Box, BoxError, Limits
from assignments._tools.grade import Result, Submission
from assignments._tools.inside import plain
from assignments._tools.mistakes import Mistake, different_solutions, mistakes_of
from book._tools.notebooks import Notebook, as_text
from divcolor_lib.errors import ConfigError, DataError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="submissions run on Linux")

SEED = "secret-of-the-tests"
NAME = "1_lab"  # on which all is tried that does not depend on the assignment
ASSIGNMENT = source.load(NAME)
DIFFERENT = different_solutions(NAME)
MISTAKES = [(name, mistake) for name in source.names() for mistake in mistakes_of(name)]
LIMITS = Limits(seconds=120, part_seconds=8, memory_bytes=512 * 2**20)
# Short, so that what hangs costs little; right answers need a fraction.
SHORT = Limits(seconds=90, part_seconds=1.5, memory_bytes=512 * 2**20)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def way() -> str:
    try:
        return confine.choose()
    except ConfigError as error:
        pytest.skip(str(error))


def handed_in(answers: Mapping[str, str], cells: Sequence[str] = (), words: str = "") -> Notebook:
    """The student's notebook with answers to some tasks, further cells at the top, and words."""
    notebook = build.answered(ASSIGNMENT, answers, words)
    for code in reversed(cells):
        notebook["cells"].insert(
            1, {"cell_type": "code", "id": "own", "metadata": {}, "source": code, "outputs": [], "execution_count": None}
        )
    return notebook


def lines_of(result: Result, task: str) -> str:
    return "\n".join(text for part in result["tasks"][task]["parts"] for right, text in part["lines"] if not right)


# --- right answers and typical mistakes -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graded")


Graded = Callable[[str], dict[str, Result]]


@pytest.fixture(scope="module")
def graded(way: str, out: Path) -> Graded:
    """Grade, once for each assignment, the different right answers, the first mistake of every task, the second, and so on."""

    @functools.lru_cache
    def of(name: str) -> dict[str, Result]:
        assignment, different = source.load(name), different_solutions(name)
        submissions = [Submission("different", build.answered(assignment, different, "Dust."))]
        for number in range(max(places(name).values()) + 1):
            chosen: dict[str, str] = {}
            for mistake in mistakes_of(name):
                if places(name)[mistake.task, mistake.what] == number:
                    chosen |= {mistake.task: mistake.code, **mistake.words}
            submissions.append(Submission(f"wrong {number}", build.answered(assignment, different | chosen)))
        results = grade.grade(assignment, submissions, SEED, out / name, LIMITS, jobs=2)
        return {result["student"]: result for result in results}

    return of


@functools.lru_cache
def places(name: str) -> dict[tuple[str, str], int]:
    """The number of each mistake among those of its task."""
    seen: dict[str, int] = {}
    found = {}
    for mistake in mistakes_of(name):
        found[mistake.task, mistake.what] = seen.setdefault(mistake.task, 0)
        seen[mistake.task] += 1
    return found


@pytest.fixture
def results(graded: Graded) -> dict[str, Result]:
    return graded(NAME)


@pytest.mark.parametrize("name", source.names())
def test_right_answers_in_other_words_get_all_points(name: str, graded: Graded) -> None:
    result = graded(name)["different"]
    lost = {
        task: lines_of(result, task)
        for task, facts in result["tasks"].items()
        if not facts["by_hand"] and facts["earned"] < facts["points"]
    }
    assert not lost and not result["flags"] and not result["notes"]


@pytest.mark.parametrize(("name", "mistake"), MISTAKES, ids=[f"{name}-{mistake.task}-{mistake.what}" for name, mistake in MISTAKES])
def test_a_typical_mistake_gets_its_marks_and_is_named(name: str, mistake: Mistake, graded: Graded) -> None:
    result = graded(name)[f"wrong {places(name)[mistake.task, mistake.what]}"]
    told = lines_of(result, mistake.task)
    assert result["tasks"][mistake.task]["earned"] == mistake.points, told
    assert re.search(mistake.told, told), told
    assert not result["flags"]


def test_a_mistake_is_not_punished_twice(results: dict[str, Result]) -> None:
    used = [name for name, task in results["wrong 0"]["tasks"].items() if task.get("ours_before")]
    assert used == [task.name for task in ASSIGNMENT.tasks if ASSIGNMENT.needs(task)]
    assert not any(task.get("ours_before") for task in results["different"]["tasks"].values())


def test_the_table_has_a_line_for_each_student(results: dict[str, Result], out: Path) -> None:
    rows = list(csv.DictReader((out / NAME / "grades.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["student"] for row in rows] == list(results)
    first = rows[0]
    assert (first["total"], first["out of"], first["lab"], first["words"], first["complete"]) == ("90", "100", "15", "", "no")
    assert rows[1]["words"] == "0" and rows[1]["complete"] == "yes"


# --- feedback -------------------------------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_feedback_is_one_accessible_page_without_scripts(results: dict[str, Result], out: Path) -> None:
    pages = sorted((out / NAME / "feedback").glob("*.html"))
    assert len(pages) == len(results)
    for path in [*pages, out / NAME / "by_hand.html"]:
        page = Page(path.read_text(encoding="utf-8"))
        names = [tag for tag, _ in page.tags]
        assert names.count("h1") == names.count("title") == names.count("main") == 1 and ("html", {"lang": "en"}) in page.tags
        assert not {"script", "img", "link", "iframe", "object", "form"} & set(names)
        assert not [attrs for _, attrs in page.tags if any(name in ("src", "srcset") or name.startswith("on") for name in attrs)]
        places = {f"#{attrs['id']}" for _, attrs in page.tags if "id" in attrs}
        assert {attrs["href"] for _, attrs in page.tags if "href" in attrs} == places
        assert all("scope" in attrs for tag, attrs in page.tags if tag == "th") and ("caption" in names) == ("table" in names)
        levels = [int(name[1]) for name in names if re.fullmatch(r"h[1-6]", name)]
        assert all(after <= before + 1 for before, after in pairwise(levels))
        assert path not in pages or "Right, " in page.words or "Wrong, " in page.words
        assert "url(" not in path.read_text(encoding="utf-8")


def luminance(color: str) -> float:
    """The relative luminance of WCAG 2."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    light = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]


@pytest.mark.parametrize("colors", [report.LIGHT, report.DARK], ids=["light", "dark"])
def test_all_words_of_a_page_can_be_read_on_its_ground(colors: dict[str, str]) -> None:
    for name in set(colors) - {"ground", "line"}:
        low, high = sorted([luminance(colors[name]), luminance(colors["ground"])])
        assert (high + 0.05) / (low + 0.05) >= 4.5, name
    page = report.feedback(ASSIGNMENT, {"student": "a", "tasks": {}, "notes": []})
    assert all(f"--{name}: {color};" in page for name, color in colors.items())


def test_feedback_is_kind_to_what_is_not_done_and_says_once_what_is_the_same_everywhere() -> None:
    def section(*lines: list[list[Any]]) -> str:
        parts = [{"name": f"part {number}", "points": 1, "earned": 0, "lines": found} for number, found in enumerate(lines)]
        task = {"title": "A", "points": 2, "earned": 0, "by_hand": False, "parts": parts, "ours_before": False}
        return Page(report.feedback(ASSIGNMENT, {"student": "a", "tasks": {"a": task}, "notes": []})).words

    undone = section([[False, report.NOT_DONE]], [[False, report.NOT_DONE]])
    assert "Nothing is written here yet" in undone and "Not done yet, 0 of 1" in undone and "Wrong" not in undone
    same = section([[False, "your code raises `X`"]], [[False, "your code raises `X`"]])
    assert same.count("your code raises X") == 1 and "In every part" in same and same.count("Wrong, 0 of 1") == 2
    other = section([[False, "one"]], [[False, f"{exam.LOST}: two"]])
    assert "Wrong, 0 of 1" in other and "Not graded, 0 of 1" in other and "In every part" not in other


def test_the_page_to_mark_from_has_every_answer_beside_ours(results: dict[str, Result], out: Path) -> None:
    page = Page((out / NAME / "by_hand.html").read_text(encoding="utf-8"))
    assert page.words.count("Dust.") == 1 and "different: not yet marked" in page.words and "wrong 0: 0 points" in page.words
    assert "Marking." in page.words and ASSIGNMENT.task("words").solution.splitlines()[0] in page.words


def test_feedback_shows_what_a_student_wrote_as_text() -> None:
    evil = "<script>alert(1)</script>"
    parts = [{"name": "a", "points": 1, "earned": 0, "lines": [[False, f"your code raises {evil}"]]}]
    tasks = {
        "a": {"title": "A", "points": 1, "earned": 0, "by_hand": False, "parts": parts, "ours_before": False},
        "b": {"title": "B", "points": 1, "earned": 1, "by_hand": True, "comment": evil, "answer": evil},
    }
    text = report.feedback(ASSIGNMENT, {"student": evil, "tasks": tasks, "notes": [evil]})
    assert "<script" not in text and Page(text).words.count(evil) == 6


def test_feedback_tells_the_hidden_test_s_findings_and_no_test(results: dict[str, Result], out: Path) -> None:
    text = (out / NAME / "feedback" / f"{grade.file_name('wrong 0')}.html").read_text(encoding="utf-8")
    assert "0.5 is a code, not half of the light" in text and report.ONCE in text
    assert "exam." not in text and SEED not in text


# --- again, and by hand ---------------------------------------------------------------------------------------------------


def test_one_task_is_graded_again_and_all_others_stay(results: dict[str, Result], out: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(out / NAME, again)
    submission = Submission("wrong 0", handed_in({"smooth": DIFFERENT["smooth"]}, words="New words."))
    (graded,) = grade.grade(ASSIGNMENT, [submission], SEED, again, LIMITS, only="smooth")
    assert graded["tasks"]["smooth"]["earned"] == 7
    before = results["wrong 0"]["tasks"]
    assert {name: task for name, task in graded["tasks"].items() if name != "smooth"} == {
        name: task for name, task in before.items() if name != "smooth"
    }
    with pytest.raises(ConfigError, match="no task nothing"):
        grade.grade(ASSIGNMENT, [submission], SEED, again, only="nothing")
    with pytest.raises(ConfigError, match="was not graded before"):
        grade.grade(ASSIGNMENT, [Submission("new", None)], SEED, again, only="smooth")


def test_one_who_hands_in_late_joins_the_class(results: dict[str, Result], out: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(out / NAME, again)
    sheet = again / "by_hand.csv"
    sheet.write_text(sheet.read_text(encoding="utf-8").replace("different,words,,10,", "different,words,6,10,Late."), encoding="utf-8")
    before = (again / "grades.csv").read_text(encoding="utf-8").splitlines()
    (late,) = grade.grade(ASSIGNMENT, [Submission("late", None, "it came as a picture")], SEED, again, LIMITS)
    rows = {row["student"]: row for row in csv.DictReader((again / "grades.csv").read_text(encoding="utf-8").splitlines())}
    assert set(rows) == {*results, "late"} and rows["late"]["total"] == "0" and rows["different"]["total"] == "96"
    assert set(before[2:]) < set((again / "grades.csv").read_text(encoding="utf-8").splitlines())
    assert "different,words,6,10,Late." in sheet.read_text(encoding="utf-8")
    assert "96 of 100" in (again / "feedback" / "different.html").read_text(encoding="utf-8")
    saved = again / "results" / "late.json"
    saved.write_text(json.dumps(late | {"assignment": "2_other"}))
    with pytest.raises(ConfigError, match="results of 2_other"):
        grade.grade(ASSIGNMENT, [Submission("late", None)], SEED, again, LIMITS)
    saved.write_text("[]")
    with pytest.raises(DataError, match="no result"):
        grade.grade(ASSIGNMENT, [Submission("late", None)], SEED, again, LIMITS)


def test_marks_given_by_hand_enter_and_are_never_lost(results: dict[str, Result], out: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(out / NAME, again)
    sheet = again / "by_hand.csv"
    assert "different,words,,10," in sheet.read_text(encoding="utf-8")
    sheet.write_text(
        sheet.read_text(encoding="utf-8").replace("different,words,,10,", "different,words,7.5,10,Well said."), encoding="utf-8"
    )
    submissions = [Submission("different", handed_in(DIFFERENT, words="Dust."))]
    for _ in range(2):
        (graded,) = grade.grade(ASSIGNMENT, submissions, SEED, again, only="words")
        assert report.total(graded) == 97.5
        assert "different,words,7.5,10,Well said." in sheet.read_text(encoding="utf-8")
        page = (again / "feedback" / "different.html").read_text(encoding="utf-8")
        assert "97.5 of 100" in page and "Well said." in page and "Still to be marked" not in page


@pytest.mark.parametrize("row", ["a,lab,5,15,", "a,words,11,10,", "a,words,-1,10,", "a,words,many,10,", "a,nothing,1,10,"])
def test_a_mark_that_cannot_be_is_refused(row: str, tmp_path: Path) -> None:
    path = tmp_path / "marks.csv"
    path.write_text(f"student,task,points,out of,comment\nb,words,,10,\n{row}\n")
    with pytest.raises(DataError, match="line 3"):
        grade.read_marks(path, ASSIGNMENT)


def test_points_for_somebody_who_handed_in_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "by_hand.csv").write_text("student,task,points,out of,comment\nadda,words,5,10,\n")
    with pytest.raises(DataError, match="points for adda"):
        grade.grade(ASSIGNMENT, [Submission("ada", None)], SEED, tmp_path, LIMITS)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffstudent,task,points,out of,comment\r\na,words,7.5,10,Good\r\n",
        'student;task;points;out of;comment\na;words;"7,5";10;Good\n',
        "student\ttask\tpoints\tout of\tcomment\na\twords\t7.5\t10\tGood\n",
    ],
    ids=["commas", "semicolons", "tabs"],
)
def test_marks_are_read_as_spreadsheets_save_them(text: str, tmp_path: Path) -> None:
    path = tmp_path / "marks.csv"
    path.write_text(text, encoding="utf-8")
    assert grade.read_marks(path, ASSIGNMENT) == {("a", "words"): (7.5, "Good")}


@pytest.mark.parametrize("text", [b"", b"name,points\na,1\n", b"student,task,points\n\xe9,words,1\n"], ids=["empty", "columns", "bytes"])
def test_what_is_no_table_of_marks_is_refused(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "marks.csv"
    path.write_bytes(text)
    with pytest.raises(DataError, match=r"column|UTF-8"):
        grade.read_marks(path, ASSIGNMENT)


def test_names_and_words_do_no_harm_in_a_spreadsheet_or_as_a_file_name() -> None:
    tasks = {task.name: {"earned": 0.0, "comment": ""} for task in ASSIGNMENT.tasks}
    text = grade.table(ASSIGNMENT, [{"student": '=HYPERLINK("http://a")', "tasks": tasks, "flags": [], "notes": ["@x"]}])
    row = list(csv.reader(io.StringIO(text)))[1]
    assert row[0].startswith("'=") and row[-1] == "'@x"
    names = {grade.file_name(name) for name in ("../../x", "a/b", "..", "a" * 300, "é", "e", "CON.txt", "")}
    assert len(names) == 8 and not [name for name in names if "/" in name or name.startswith(".") or len(name) > 100]


# --- submissions that are broken ------------------------------------------------------------------------------------------


def broken(folder: Path) -> Path:
    """A folder of submissions none of which can be read."""
    files: dict[str, str] = {
        **{"empty": "", "text": "hello", "list": "[]", "number": "3", "deep": "[" * 100_000, "old": '{"nbformat": 3, "worksheets": []}'},
        **{
            "cells": '{"nbformat": 4, "cells": 5}',
            "cell": '{"nbformat": 4, "cells": [3]}',
            "source": '{"nbformat": 4, "cells": [{"cell_type": "code"}]}',
        },
    }
    for name, text in files.items():
        (folder / f"{name}.ipynb").write_text(text)
    (folder / "bytes.ipynb").write_bytes(b"\xff\xfe\x00")
    (folder / "link.ipynb").symlink_to(source.ROOT / "book" / "assignments" / f"{NAME}.ipynb")
    (folder / "nothing").mkdir()
    (folder / "two").mkdir()
    for name in ("a", "b"):
        (folder / "two" / f"{name}.ipynb").write_text("{}")
    return folder


def test_what_is_no_notebook_gets_nothing_and_a_reason(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    submissions = grade.find(broken(tmp_path / "in"), NAME)
    assert len(submissions) == 13 and not [one.student for one in submissions if one.notebook is not None or not one.problem]
    monkeypatch.setattr(grade, "Box", None)  # none of them needs one
    for result in grade.grade(ASSIGNMENT, submissions, SEED, tmp_path / "out", LIMITS):
        assert report.total(result) == 0 and result["notes"] and not result["flags"]


def test_the_class_is_graded_even_where_the_grader_fails_on_one(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(assignment: source.Assignment, cells: Mapping[str, str]) -> list[str]:
        if any("odd = 1" in code for code in cells.values()):
            raise SystemError("depth mismatch")
        return []

    monkeypatch.setattr(grade, "forbidden_imports", failing)
    submissions = [Submission("odd", handed_in({}, ["odd = 1"])), Submission("fine", handed_in({"smooth": DIFFERENT["smooth"]}))]
    odd, fine = grade.grade(ASSIGNMENT, submissions, SEED, tmp_path, SHORT)
    assert odd["flags"] == ["the grader failed on this one, which got nothing: SystemError: depth mismatch"] and report.total(odd) == 0
    assert fine["tasks"]["smooth"]["earned"] == 7 and not fine["flags"]
    assert "the grader failed on this one" in (tmp_path / "grades.csv").read_text(encoding="utf-8")


def test_submissions_are_found_in_folders_as_nbgrader_collects_them(tmp_path: Path) -> None:
    for path in ("ada/1_lab/1_lab.ipynb", "ada/2_elbo/2_elbo.ipynb", "bob/1_lab.ipynb", "bob/notes.ipynb", "eve/mine.ipynb", "fay.ipynb"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(as_text(handed_in({}, words=path)))
    (tmp_path / ".git").mkdir()
    found = grade.find(tmp_path, NAME)
    words = {one.student: grade.answer_to(ASSIGNMENT.task("words"), one.notebook) for one in found}
    assert words == {"ada": "ada/1_lab/1_lab.ipynb", "bob": "bob/1_lab.ipynb", "eve": "eve/mine.ipynb", "fay": "fay.ipynb"}
    (tmp_path / "ada.ipynb").write_text(as_text(handed_in({})))
    with pytest.raises(ConfigError, match="two submissions of ada"):
        grade.find(tmp_path, NAME)


def test_given_cells_are_ours_tests_are_not_run_and_lost_names_do_not_matter() -> None:
    notebook = handed_in({"lab": "def rgb_to_lab(rgb):\n    return 1"})
    for cell in notebook["cells"]:
        if source.grade_id(cell) == "given":
            cell["source"] = "M = 0"
    code = "\n".join(perform.cells_to_run(ASSIGNMENT, notebook).values())
    assert "M = 0" not in code and "0.412453" in code and "examples_for" not in code and "Portraits" not in code
    for cell in notebook["cells"]:
        cell["metadata"] = {}
    code = "\n".join(perform.cells_to_run(ASSIGNMENT, notebook).values())
    assert "0.412453" in code and "return 1" in code


def test_cells_that_ask_for_it_are_not_run() -> None:
    notebook = handed_in({}, ["\n# not graded: trains for an hour\n1 / 0", "ready = True"])
    code = list(perform.cells_to_run(ASSIGNMENT, notebook).values())
    assert "ready = True" in code and not [text for text in code if "1 / 0" in text]


def test_forbidden_modules_are_found_in_the_text() -> None:
    cells = {
        "1": "from divcolor_lib import lab",
        "2": "import cv2, math",
        "3": "def f():\n    from skimage.color import rgb2lab",
        "4": "import (",
        "5": "import cv22",
    }
    assert perform.forbidden_imports(ASSIGNMENT, cells) == ["cv2", "divcolor_lib.lab", "skimage"]


def test_a_part_of_a_package_is_found_without_an_import_of_its_own() -> None:
    assignment = replace(ASSIGNMENT, forbidden=("torch.distributions", "colour"))
    assert perform.forbidden_imports(assignment, {"1": "import torch\ndef f():\n    return torch.distributions.Normal(0, 1)"}) == [
        "torch.distributions"
    ]
    assert perform.forbidden_imports(assignment, {"1": "torch.distributions_of = 1\ncolour = torch.ones(3)\ncolour.shape"}) == []


# --- submissions that would do harm ---------------------------------------------------------------------------------------

DELETE = """
import os, shutil
def smooth(p, centers, sigma):
    for top in ("/inside", "/course", "/etc", {folder!r}):
        shutil.rmtree(top, ignore_errors=True)
    for path in ("own", {folder!r} + "/precious", "/course/divcolor_lib/new.py", "/new"):
        try:
            open(path, "w").write("gone")
        except OSError:
            pass
    return p
"""
FLOOD = """
import os, sys
def prior(batches, centers, uniform):
    for _ in range(50):
        print("x" * 10**6)
        sys.stderr.write("y" * 10**6)
        os.write(1, b"z" * 10**6)
    return centers.new_zeros(1)
"""
FORK = """
import os, subprocess
def bin_centers(ab, grid):
    while True:
        os.fork()
def bin_index(ab, centers):
    subprocess.Popen(["sh", "-c", "while true; do sh -c 'sleep 1000' & done"])
    return ab
"""
HOSTILE = {
    "lab": "def rgb_to_lab(rgb):\n    while True:\n        pass",
    "back": "import os\ndef lab_to_rgb(lab):\n    os._exit(0)",
    "gamut": "def most_chroma(L, hue):\n    hoard = []\n    while True:\n        hoard.append(bytearray(10**7))",
    "bins": FORK,
    "prior": FLOOD,
    "rarity": "import sys\ndef rarity(p, centers, mix, sigma):\n    sys.exit()",
    "loss": DIFFERENT["loss"],
}
BEFORE_ALL = [
    "while True:\n    pass",
    "import os\nos._exit(0)",
    "import sys\nsys.exit(0)",
    "raise ValueError('a crash')",
    "def unfinished(:",
    "import ctypes\nctypes.string_at(0)",
    "import os\nfor number in range(3, 30):\n    try:\n        os.write(number, b'garbage' * 1000)\n    except OSError:\n        pass",
    "import numpy as np\nnp.ones(10**12)",
    "class Lie:\n    def __reduce__(self):\n        return print, ('unpickled',)",
]
PATCH = """
import builtins, json, numpy, torch
torch.allclose = torch.equal = numpy.allclose = lambda *_, **__: True
torch.Tensor.__eq__ = torch.Tensor.__le__ = torch.Tensor.__ge__ = lambda *_: torch.ones(1, dtype=torch.bool)
torch.Tensor.isfinite = lambda self: torch.ones(1, dtype=torch.bool)
"""
PATCHED = {
    "lab": "def rgb_to_lab(rgb):\n    return rgb",
    "back": "class Fits(torch.Tensor):\n    __eq__ = __le__ = lambda *_: True\ndef lab_to_rgb(lab):\n    return lab.as_subclass(Fits)",
    "gamut": "import builtins\ndef most_chroma(L, hue):\n    builtins.all = builtins.any = lambda *_: True\n    return L",
    "smooth": DIFFERENT["smooth"],
}
SPY = """
import gc, os, torch
tops = [top for top in os.listdir("/") if top not in ("usr", "packages", "proc", "root", "bin", "lib", "lib64", "sbin")]
seen = [name for top in tops for _, _, names in os.walk("/" + top) for name in names if name in ("source.ipynb", "mistakes.py", "precious")]
seen += [path for path in {folders!r} if os.path.exists(path)]
told = [number for number in os.listdir("/proc") if number.isdigit() and b"{seed}" in open(f"/proc/{{number}}/cmdline", "rb").read()]
kept = [name for name, value in os.environ.items() if "{seed}" in value]
tensors = [item for item in gc.get_objects() if isinstance(item, torch.Tensor)]
inputs = [tuple(item.shape) for item in tensors if item.dim() == 2 and item.shape != (3, 3)]
processes = sum(name.isdigit() for name in os.listdir("/proc"))
raise ValueError(f"seen {{seen}}, told {{told}}, kept {{kept}}, inputs {{inputs}}, processes {{processes}}")
"""


@pytest.fixture(scope="module")
def harm(way: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Grade what would do harm, beside something precious and a server that listens; return the results and what became of those."""
    folder = tmp_path_factory.mktemp("precious")
    (folder / "precious").write_text("still there")
    before = {path: path.read_bytes() for path in source.FOLDER.rglob("*.py")}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        call = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)"
        submissions = [
            Submission("functions", handed_in(HOSTILE | {"smooth": DELETE.format(folder=str(folder))})),
            Submission("cells", handed_in({"lab": DIFFERENT["lab"]}, BEFORE_ALL)),
            Submission("patches", handed_in(PATCHED, [PATCH, call, SPY.format(seed=SEED, folders=[str(source.FOLDER), str(folder)])])),
        ]
        graded = grade.grade(ASSIGNMENT, submissions, SEED, tmp_path_factory.mktemp("out"), SHORT, jobs=2)
        server.settimeout(0.05)
        try:
            server.accept()
            called = True
        except TimeoutError:
            called = False
    changed = [path.name for path, text in before.items() if not path.is_file() or path.read_bytes() != text]
    return {result["student"]: result for result in graded} | {"called": called, "changed": changed, "folder": folder}


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("lab", "did not end within 1.5 seconds"),
        ("back", r"ended the process, as `os\._exit`"),
        ("gamut", "more memory than is allowed"),
        ("bins", "PermissionError"),
        ("prior", r"shape \(1,\)"),
        ("rarity", "SystemExit"),
    ],
)
def test_harm_in_a_function_costs_its_task(task: str, told: str, harm: dict[str, Any]) -> None:
    assert harm["functions"]["tasks"][task]["earned"] == 0
    assert re.search(told, lines_of(harm["functions"], task))


def test_harm_costs_no_other_task(harm: dict[str, Any]) -> None:
    assert harm["functions"]["tasks"]["loss"]["earned"] == 10
    assert harm["functions"]["tasks"]["smooth"]["earned"] == 2  # it returned p, which is right for sigma = 0
    assert harm["cells"]["tasks"]["lab"]["earned"] == 15
    assert report.total(harm["cells"]) == 15


def test_cells_that_do_not_end_are_left_out_and_named(harm: dict[str, Any]) -> None:
    notes = "\n".join(harm["cells"]["notes"])
    for told in (
        "did not end within",
        "os._exit` or a crash",
        "SystemExit: 0",
        "ValueError: a crash",
        "SyntaxError",
        "SIGSEGV",
        "garbage|channel",
        "memory",
    ):
        assert re.search(told, notes), told
    assert "(`while True:`)" in notes


def test_monkey_patching_helps_nothing(harm: dict[str, Any]) -> None:
    marks = {name: task["earned"] for name, task in harm["patches"]["tasks"].items()}
    assert marks == dict.fromkeys(marks, 0) | {"smooth": 7}


def test_a_submission_sees_no_test_no_seed_no_input_and_no_network(harm: dict[str, Any]) -> None:
    notes = "\n".join(harm["patches"]["notes"])
    assert "seen [], told [], kept [], inputs [], processes 2" in notes
    assert not harm["called"] and "Operation not permitted" in notes


def test_nothing_is_deleted_or_changed_and_no_process_is_left(harm: dict[str, Any]) -> None:
    assert (harm["folder"] / "precious").read_text() == "still there"
    assert not harm["changed"]
    mine = [stat for stat in Path("/proc").glob("[0-9]*/stat") if f" {os.getpid()} " in _text(stat).rpartition(")")[2][:20]]
    assert not [stat for stat in mine if "jail.py" in _text(stat.with_name("cmdline"))]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


# --- the box --------------------------------------------------------------------------------------------------------------


def conversation(box: Box, code: str, limits: Limits, name: str = "found") -> Any:
    """Run a cell in a new attempt; return the value of a name."""
    channel = box.begin(limits)
    plain.send(channel, {"cells": {"1": code}})
    while "done" not in (answer := plain.receive(channel, time.monotonic() + 30)[0]):
        assert not answer.get("error"), answer
    plain.send(channel, {"given": "", "names": [], "calls": [{"kind": "value", "name": name}]})
    message, parts = plain.receive(channel, time.monotonic() + 30)
    channel.close()
    box.stop()
    return plain.decode(message["returned"], parts)


TRY = """
import os, resource, socket, threading
def refused(action):
    try:
        action()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return ""
found = {
    "fork": refused(os.fork),
    "program": refused(lambda: os.execv("/usr/bin/env", ["env"])),
    "socket": refused(socket.socket),
    "signal": refused(lambda: os.kill(1, 9)),
    "system": refused(lambda: open("/usr/new", "w")),
    "course": refused(lambda: open("/course/divcolor_lib/new.py", "w")),
    "packages": refused(lambda: open("/packages/0/new.py", "w")),
    "root": refused(lambda: open("/new", "w")),
    "outside": refused(lambda: os.listdir(REPOSITORY)),
    "file": refused(lambda: open("large", "wb").write(bytes(17 * 2**20))),
    "memory": refused(lambda: bytearray(600 * 2**20)),
}
with open("own", "w") as file:
    found["own"] = file.write("mine")
thread = threading.Thread(target=lambda: found.update(thread=True))
thread.start()
thread.join()
found["top"] = sorted(os.listdir("/course"))
found["capabilities"] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")]
found["scratch"] = os.statvfs("/tmp").f_blocks * os.statvfs("/tmp").f_frsize
"""


@pytest.mark.parametrize("name", list(confine.PROGRAMS))
def test_a_box_refuses_what_could_do_harm(name: str) -> None:
    if reason := confine.trouble(name):
        pytest.skip(reason)
    with Box(name, warm=()) as box:
        found = conversation(box, f"REPOSITORY = {str(source.FOLDER)!r}\n{TRY}", LIMITS)
        again = conversation(box, "import os\nfound = os.getpid()", LIMITS)
    refused = {key for key, value in found.items() if isinstance(value, str) and value}
    assert refused == {"fork", "program", "socket", "signal", "system", "course", "packages", "root", "outside", "file", "memory"}
    assert found["own"] == 4 and found["thread"] and found["top"] == ["divcolor_lib"]
    assert found["capabilities"] == ["0000000000000000"] and found["scratch"] == confine.SCRATCH_BYTES
    assert again > 1


def test_a_box_whose_other_side_dies_ends_by_itself(way: str) -> None:
    box = Box(way, warm=())
    box.__enter__()
    channel = box.begin(LIMITS)
    plain.send(channel, {"cells": {"1": "while True: pass"}})
    plain.receive(channel, time.monotonic() + 20)
    os.killpg(box._process.pid, signal.SIGKILL)
    with pytest.raises((EOFError, ConnectionError)):
        plain.receive(channel, time.monotonic() + 20)
    with pytest.raises(BoxError):
        box.stop()
    channel.close()
    box.__exit__(None, None, None)


def test_without_confinement_grading_is_refused_and_unsafe_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(confine, "trouble", lambda way: f"no {way} on this machine")
    (tmp_path / "a.ipynb").write_text(as_text(handed_in({})))
    code = command.main(["grade", str(tmp_path), "--assignment", "1", "--seed", "x", "--out", str(tmp_path / "out")])
    told = capsys.readouterr().err
    assert code == 2 and "no bubblewrap on this machine" in told and "no unshare on this machine" in told and "--unsafe" in told
    assert not (tmp_path / "out").exists()


def test_a_folder_that_a_submission_would_see_is_refused(way: str) -> None:
    with pytest.raises(ConfigError, match="would see"):
        confine.choose(hidden=[Path("/usr/share/submissions")])


def test_unsafe_grades_too_and_the_command_writes_all_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in" / "ada").mkdir(parents=True)
    (tmp_path / "in" / "ada" / "1_lab.ipynb").write_text(
        as_text(handed_in({"lab": DIFFERENT["lab"], "smooth": HOSTILE["back"].replace("lab_to_rgb(lab)", "smooth(p, centers, sigma)")}))
    )
    options = [
        "--assignment",
        "1",
        "--seed",
        SEED,
        "--out",
        str(tmp_path / "out"),
        "--unsafe",
        "--memory-mb",
        "400",
        "--part-seconds",
        "10",
    ]
    assert command.main(["grade", str(tmp_path / "in"), *options]) == 0
    assert "ada: 15 of 100" in capsys.readouterr().out
    made = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert made == {"grades.csv", "by_hand.csv", "by_hand.html", "feedback/ada.html", "results/ada.json"}
    saved = json.loads((tmp_path / "out" / "results" / "ada.json").read_text())
    assert saved["tasks"]["smooth"]["earned"] == 0 and "ended the process" in lines_of(saved, "smooth")


def test_limits_come_from_the_command_then_the_source() -> None:
    arguments = ["grade", ".", "--assignment", "1", "--seed", "x", "--out", "y"]
    read: Callable[[list[str]], Limits] = lambda more: command._limits(ASSIGNMENT, command._parser().parse_args([*arguments, *more]))  # noqa: E731
    assert read([]) == Limits(180, 15, 512 * 2**20)
    assert read(["--seconds", "7", "--memory-mb", "100"]) == Limits(7, 15, 100 * 2**20)
    with pytest.raises(SystemExit):
        read(["--seconds", "0"])


def test_a_submission_that_used_up_its_time_gets_what_it_earned_before(way: str, tmp_path: Path) -> None:
    answers = {"lab": DIFFERENT["lab"], "back": HOSTILE["lab"].replace("rgb_to_lab(rgb)", "lab_to_rgb(lab)"), "loss": DIFFERENT["loss"]}
    began = time.monotonic()
    (result,) = grade.grade(ASSIGNMENT, [Submission("slow", handed_in(answers))], SEED, tmp_path, Limits(5, 30, 512 * 2**20))
    assert time.monotonic() - began < 60
    assert result["tasks"]["lab"]["earned"] == 15 and report.total(result) == 15
    assert "the time was used up" in lines_of(result, "back") and "used up before" in lines_of(result, "loss")
