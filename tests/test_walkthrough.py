"""A teacher's walk from the clone to a graded class: every command of the guide and of the assignments' page, in order.

Four students hand in: one excellent, one middling, one who wrote nothing, and one whose code would do harm. What other tests do is
replaced: the clone is a copy of this tree, `.venv` is the one that runs this test, the pages of the book are not built again, and
the chapter is found but not run.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from assignments._tools import confine, source
from assignments._tools.invent import Invented, invent
from book._tools import notebooks
from divcolor_lib.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "assignments" / "guide" / "README.md", ROOT / "assignments" / "README.md")
NAME = "1_lab"
PART_SECONDS = 2  # instead of 15, so that what hangs costs little
LEFT_OUT = ("_build", ".*", "__pycache__", "teacher", "graded", "submissions", "runs", "data", "*.egg-info")
MARKS = {"excellent": ("8", "Say why, too."), "middling": ("4,5", "")}
# Commands that are replaced. The book is built, and looked over for leaks, by tests/book/test_site.py.
GIT = """#!/bin/sh
[ "$1" = clone ] && exec mv "$ORIGIN" "$(basename "$2")"
exit 1
"""
MAKE = """#!/bin/sh
if [ "$1" = book ]; then mkdir -p _build/html/_sources && exec cp book/assignments/*.ipynb book/assignments.md _build/html/_sources; fi
exec "$MAKE_ITSELF" "$@"
"""


@dataclass
class Walk:
    """What a walk left behind.

    Attributes:
        place: the folder of the clone.
        told: what each block of commands printed, by block.
        tables: `grades.csv` after each block that wrote it.
        before: the hash of every file of the clone, as it came.
    """

    place: Path
    told: dict[str, str] = field(default_factory=dict)
    tables: list[dict[str, dict[str, str]]] = field(default_factory=list)
    before: dict[str, str] = field(default_factory=dict)

    @property
    def graded(self) -> Path:
        return self.place / "graded" / NAME

    def feedback(self, student: str) -> str:
        page = (self.graded / "feedback" / f"{student}.html").read_text(encoding="utf-8")
        return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page.split("<main>")[1]))


pytestmark = pytest.mark.timeout(1200)  # of a machine with other work to do; alone it needs a minute


def blocks() -> list[str]:
    return [block.strip() for page in PAGES for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)]


def hashes(folder: Path) -> dict[str, str]:
    files = (path for top in ("assignments", "divcolor_lib", "book") for path in (folder / top).rglob("*"))
    kept = (path for path in files if path.is_file() and path.suffix != ".pyc" and "teacher" not in path.parts)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def origin(folder: Path) -> Path:
    """A copy of this tree with one assignment in it, which hangs for a short time only."""
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (folder / ".venv").symlink_to(sys.prefix)
    for path in (folder / "assignments" / "sources").iterdir():
        if path.name != NAME:
            shutil.rmtree(path)
    path = folder / "assignments" / "sources" / NAME / "source.ipynb"
    notebook = notebooks.read(path)
    notebook["metadata"]["divcolor"]["limits"]["part_seconds"] = PART_SECONDS
    path.write_text(notebooks.as_text(notebook), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def invented() -> dict[str, Invented]:
    return {one.student: one for one in invent(source.load(NAME), 4)}


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    if sys.platform == "win32":
        pytest.skip("the commands are for Linux and macOS")
    try:
        confine.choose()
    except ConfigError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("teacher")
    (folder / "bin").mkdir()
    for name, text in {"git": GIT, "make": MAKE}.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    replaced = {"ORIGIN": str(origin(folder / "origin")), "MAKE_ITSELF": str(shutil.which("make"))}
    replaced |= {"PYTHON": "true", "PYTEST_ADDOPTS": "--collect-only"}
    environment = {**os.environ, **replaced, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "AT": str(folder / "at")}
    found = Walk(folder)
    for block in dict.fromkeys(blocks()):
        if "grade submissions" in block and not (found.place / "submissions").exists():
            shutil.copytree(found.place / "graded" / "rehearsal" / NAME / "submissions", found.place / "submissions")
        if "--task words" in block:
            mark(found.graded / "by_hand.csv")
        command = f'{block}\npwd > "$AT"\n'
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], cwd=found.place, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        found.told[block] = done.stdout
        found.place = Path((folder / "at").read_text().strip())
        found.before = found.before or hashes(found.place)
        if "grade submissions" in block:
            rows = csv.DictReader((found.graded / "grades.csv").read_text(encoding="utf-8").splitlines())
            found.tables.append({row["student"]: row for row in rows})
    return found


def mark(sheet: Path) -> None:
    """Fill in points and comments, and save as a spreadsheet of another country does."""
    with open(sheet, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with open(sheet, "w", newline="", encoding="utf-8-sig") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter=";")
        table.writeheader()
        for row in rows:
            points, comment = MARKS.get(row["student"], (row["points"], ""))
            table.writerow(row | {"points": points, "comment": comment})


def test_the_walk_leads_from_the_clone_to_the_grades(walk: Walk) -> None:
    steps = [
        "git clone",
        "make book",
        "pytest",
        "make assignments",
        "leaks",
        "rehearse",
        "grade submissions",
        "--task words",
        "--task prior",
    ]
    places = [next(number for number, block in enumerate(walk.told) if step in block) for step in steps]
    assert places == sorted(places)
    assert "nothing secret found" in "".join(walk.told.values())
    assert len(walk.tables) == 3


def test_every_task_has_the_marks_that_are_due(walk: Walk, invented: dict[str, Invented]) -> None:
    for table in walk.tables:
        assert set(table) == set(invented)
        for student, one in invented.items():
            assert {task: float(table[student][task]) for task in one.due} == one.due, student
    totals = {student: row["total"] for student, row in walk.tables[0].items()}
    assert totals["excellent"] == "90" and totals["empty"] == totals["hostile"] == "0" and 20 < float(totals["middling"]) < 80
    assert {student: row["complete"] for student, row in walk.tables[0].items()} == {
        **{"excellent": "no", "middling": "no"},
        **{"empty": "yes", "hostile": "yes"},
    }


def test_marks_given_by_hand_enter_and_stay(walk: Walk) -> None:
    first, *later = walk.tables
    for table in later:
        assert all(row["complete"] == "yes" for row in table.values())
        assert (table["excellent"]["words"], table["excellent"]["total"]) == ("8", "98")
        assert float(table["middling"]["total"]) == float(first["middling"]["total"]) + 4.5
    sheet = (walk.graded / "by_hand.csv").read_text(encoding="utf-8")
    assert 'excellent,words,8,10,"Say why, too."' in sheet and "middling,words,4.5,10," in sheet


def test_everyone_gets_a_page_that_helps(walk: Walk) -> None:
    assert {path.stem for path in (walk.graded / "feedback").glob("*.html")} == set(walk.tables[0])
    assert "98 of 100 points" in walk.feedback("excellent") and "Say why, too." in walk.feedback("excellent")
    assert "Wrong" not in walk.feedback("excellent")
    assert "near black f is a straight line" in walk.feedback("middling") and "4.5 of 10 points" in walk.feedback("middling")
    assert walk.feedback("empty").count("Nothing is written here yet") == 8 and "Wrong" not in walk.feedback("empty")


def test_harm_is_named_and_changes_nothing(walk: Walk) -> None:
    told = walk.feedback("hostile")
    for found in (
        "did not end within 2 seconds",
        "ended the process",
        "SystemExit",
        "more memory than is allowed",
        "not permitted",
        "Read-only",
    ):
        assert found in told, found
    assert hashes(walk.place) == walk.before


def test_the_teacher_s_files_are_made_and_stay_out_of_what_students_get(walk: Walk) -> None:
    made = {path.name for path in (walk.place / "assignments" / "teacher" / NAME).iterdir()}
    assert made == {"autograder.ipynb", "solution.ipynb", "rubric.md"}
    assert "Marking." in (walk.graded / "by_hand.html").read_text(encoding="utf-8")
    assert not [path for path in (walk.graded / "feedback").glob("*.html") if "Marking." in path.read_text(encoding="utf-8")]
