"""Every chapter passes every check, and every check fails on a notebook that is broken on purpose."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from assignments._tools import build, source
from assignments._tools.grade import LARGEST_SUBMISSION
from book._tools import notebooks
from book._tools.execute import is_fresh
from book._tools.notebooks import CHECKS, Check, Notebook

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
NAMES = [f"book/{path.stem}" for path in CHAPTERS]
# No chapters: `make assignments` makes them, without outputs, and tests/test_assignments.py looks over them.
ASSIGNMENTS = [f"book/assignments/{path.stem}" for path in sorted((ROOT / "book" / "assignments").glob("*.ipynb"))]
Break = Callable[[Notebook], Any]


def sound() -> Notebook:
    """A small notebook to which no check objects."""
    stream = {"name": "stdout", "output_type": "stream", "text": "3\n"}
    alt = "Two squares, one red and one blue."
    picture = {
        "data": {"image/png": "iVBORw0KGgo=", "text/plain": alt},
        "metadata": {"image/png": {"alt": alt}},
        "output_type": "display_data",
    }
    prose = "## Two\n\nSee `{this}` and $\\{x\\}$.\n\n"
    prose += "<details>\n<summary>Hint</summary>\n\nA **hint**.\n\n</details>\n\n```python\n# not a heading\n```\n\n### Three"
    box = '<div class="admonition note">\n<p class="admonition-title">Note</p>\n\nText.\n\n</div>'
    cells = [
        {"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# One\n\nText."},
        {
            "cell_type": "code",
            "execution_count": 1,
            "id": "sum",
            "metadata": {},
            "outputs": [stream],
            "source": "# NBVAL_CHECK_OUTPUT\nprint(1 + 2)",
        },
        {"cell_type": "markdown", "id": "prose", "metadata": {}, "source": prose},
        {
            "cell_type": "code",
            "execution_count": 2,
            "id": "figure",
            "metadata": {"mystnb": {"image": {"alt": alt}}},
            "outputs": [picture],
            "source": "plots.show(figure)",
        },
        {"cell_type": "markdown", "id": "box", "metadata": {}, "source": box},
        {
            "cell_type": "code",
            "execution_count": 3,
            "id": "exercise-half",
            "metadata": {"tags": ["exercise", "nbval-check-output"]},
            "outputs": [{"name": "stdout", "output_type": "stream", "text": "half\n  not done yet\n"}],
            "source": "def half(x):\n    return ...\n\n\ncheck.half(half)",
        },
        {
            "cell_type": "code",
            "execution_count": 4,
            "id": "solution-half",
            "metadata": {"cellView": "form", "tags": ["hide-cell", "solution"]},
            "outputs": [],
            "source": "# @title Solution\ncheck.half(lambda x: x / 2, strict=True)",
        },
        {
            "cell_type": "markdown",
            "id": "result",
            "metadata": {},
            "source": "It is 3.0, or 50 %. <!-- asserted: sum --> So $x = 0.5$, `0.7` and [1612.01958](https://arxiv.org).\n\n$$\n0.25\n$$",
        },
    ]
    metadata = {"kernelspec": notebooks.KERNEL, "language_info": notebooks.LANGUAGE, "divcolor": {"seconds": 3, "fingerprint": "0"}}
    return copy.deepcopy({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def output(nb: Notebook, cell: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = nb["cells"][cell]["outputs"][0]
    return found


def prose(text: str) -> Break:
    return lambda nb: nb["cells"][2].update(source=text)


def set_metadata(cell: int, metadata: dict[str, Any]) -> Break:
    return lambda nb: nb["cells"][cell].update(metadata=metadata)


FILLING = [{"cell_type": "markdown", "id": f"filling-{number}", "metadata": {}, "source": "Text."} for number in range(9)]
BROKEN: list[tuple[Check, str, Break]] = [
    (notebooks.marked_cell_without_output, "no output", lambda nb: nb["cells"][1].update(outputs=[])),
    (notebooks.marked_cell_without_output, "an empty stream", lambda nb: output(nb).update(text="")),
    (notebooks.marked_cell_without_output, "marked by a tag", lambda nb: nb["cells"][3].update(metadata={"tags": ["nbval-check-output"]})),
    (notebooks.cell_not_executed, "never", lambda nb: nb["cells"][1].update(execution_count=None)),
    (notebooks.cell_not_executed, "out of order", lambda nb: nb["cells"][1].update(execution_count=7)),
    (notebooks.cell_never_checked, "skipped", set_metadata(1, {"tags": ["nbval-skip"]})),
    (notebooks.cell_never_checked, "allowed to fail", set_metadata(1, {"tags": ["raises-exception"]})),
    (
        notebooks.stored_error,
        "a traceback",
        lambda nb: nb["cells"][1]["outputs"].append({"output_type": "error", "ename": "E", "evalue": "", "traceback": []}),
    ),
    (notebooks.stored_stderr, "a warning", lambda nb: output(nb).update(name="stderr")),
    (notebooks.widget, "state", lambda nb: nb["metadata"].update(widgets={})),
    (notebooks.widget, "a view", lambda nb: output(nb, 3)["data"].update({"application/vnd.jupyter.widget-view+json": {}})),
    (notebooks.picture_without_alt, "no text", set_metadata(3, {})),
    (notebooks.picture_without_alt, "blank text", set_metadata(3, {"mystnb": {"image": {"alt": " "}}})),
    (notebooks.alt_out_of_date, "another text", set_metadata(3, {"mystnb": {"image": {"alt": "One square."}}})),
    (notebooks.several_pictures, "two", lambda nb: nb["cells"][3]["outputs"].append(output(nb, 3))),
    (notebooks.picture_of_another_kind, "svg", lambda nb: output(nb, 3)["data"].update({"image/svg+xml": "<svg/>"})),
    (notebooks.absolute_path, "in the text", prose("## Two\n\nOpen /home/me/file.")),
    (notebooks.absolute_path, "in the source", lambda nb: nb["cells"][1].update(source="open('/tmp/x')")),
    (notebooks.absolute_path, "in an output", lambda nb: output(nb).update(text="C:\\Users")),
    (notebooks.absolute_path, "in an output's data", lambda nb: output(nb, 3)["data"].update({"text/plain": "/Users/me"})),
    (notebooks.absolute_path, "in the metadata", lambda nb: nb["metadata"].update(where="/root/x")),
    (notebooks.headings, "no title", lambda nb: nb["cells"][0].update(source="Text.")),
    (notebooks.headings, "a level left out", prose("### Three")),
    (notebooks.headings, "two titles", prose("# Two")),
    (notebooks.directive_or_role, "a fence", prose("```{note}\nText.\n```")),
    (notebooks.directive_or_role, "a fence of colons", prose(":::{note}\nText.\n:::")),
    (notebooks.directive_or_role, "a role", prose("See {doc}`other`.")),
    (notebooks.html_block_without_blank_lines, "after the summary", prose("<details>\n<summary>Hint</summary>\nText.\n\n</details>")),
    (notebooks.html_block_without_blank_lines, "before the end", prose("<details>\n<summary>Hint</summary>\n\nText.\n</details>")),
    (
        notebooks.html_block_without_blank_lines,
        "after the title",
        prose('<div class="admonition">\n<p class="admonition-title">T</p>\nText.\n\n</div>'),
    ),
    (notebooks.exercise_incomplete, "no solution", lambda nb: nb["cells"].pop(6)),
    (notebooks.exercise_incomplete, "no exercise", lambda nb: nb["cells"].pop(5)),
    (notebooks.exercise_incomplete, "the wrong order", lambda nb: nb["cells"].insert(5, nb["cells"].pop(6))),
    (notebooks.exercise_incomplete, "no title", lambda nb: nb["cells"][6].update(source="check.half(f, strict=True)")),
    (notebooks.exercise_incomplete, "a lenient check", lambda nb: nb["cells"][6].update(source="# @title Solution\ncheck.half(f)")),
    (notebooks.exercise_incomplete, "in the open", set_metadata(6, {"cellView": "form"})),
    (notebooks.exercise_incomplete, "in the open on Colab", set_metadata(6, {"tags": ["hide-cell"]})),
    (notebooks.exercise_incomplete, "done already", lambda nb: output(nb, 5).update(text="All 2 checks passed.")),
    (notebooks.exercise_incomplete, "not compared", set_metadata(5, {"tags": ["exercise"]})),
    (notebooks.number_in_prose, "a decimal", prose("## Two\n\nIt is 0.31 now.")),
    (notebooks.number_in_prose, "percent", prose("## Two\n\nA rise of 5 %.")),
    (notebooks.number_in_prose, "percent in words", prose("## Two\n\nA rise of 5 percent.")),
    (notebooks.number_in_prose, "a number as a formula", prose("## Two\n\nIt is $0.31$ now.")),
    (notebooks.number_in_prose, "percent as a formula", prose("## Two\n\nIt is $31\\%$ now.")),
    (notebooks.number_in_prose, "an absent cell", prose("## Two\n\nIt is 0.31. <!-- asserted: none -->")),
    (notebooks.number_in_prose, "a cell that asserts nothing", prose("## Two\n\nIt is 0.31. <!-- asserted: figure -->")),
    (notebooks.number_in_prose, "a cell far away", lambda nb: nb["cells"].__setitem__(slice(2, 2), FILLING)),
    (notebooks.cell_ids, "none", lambda nb: nb["cells"][1].pop("id")),
    (notebooks.cell_ids, "twice", lambda nb: nb["cells"][1].update(id="title")),
    (notebooks.not_normal, "an editor's metadata", lambda nb: nb["metadata"].update(vscode={})),
    (notebooks.not_normal, "times", set_metadata(1, {"execution": {"iopub.execute_input": "now"}})),
    (notebooks.not_normal, "a stream in pieces", lambda nb: nb["cells"][1]["outputs"].append(output(nb))),
    (notebooks.too_large, "a large picture", lambda nb: output(nb, 3)["data"].update({"image/png": "A" * 2_000_000})),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_sound_notebook_passes(check: Check) -> None:
    assert check(sound()) == []


@pytest.mark.parametrize(("check", "what", "damage"), BROKEN, ids=[f"{check.__name__}: {what}" for check, what, _ in BROKEN])
def test_a_broken_notebook_is_found(check: Check, what: str, damage: Break) -> None:
    notebook = sound()
    damage(notebook)
    assert check(notebook) != []


def test_every_check_has_a_broken_notebook() -> None:
    assert {check for check, _, _ in BROKEN} == set(CHECKS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_chapter_is_sound(path: Path, check: Check) -> None:
    assert check(notebooks.read(path)) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_stored_outputs_belong_to_the_code(path: Path) -> None:
    assert is_fresh(notebooks.read(path)), f"{path.name} is out of date; run make execute"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_file_is_valid_and_written_as_make_execute_writes_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    nbformat.validate(nbformat.from_dict(json.loads(text)))
    assert notebooks.as_text(notebooks.read(path)) == text


# --- the book as a whole ------------------------------------------------------------------------------------------------


def table_of_contents() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return notebooks.toc_files(toc)


def test_the_table_of_contents_lists_every_chapter_and_every_assignment_in_reading_order() -> None:
    listed = [name for name in table_of_contents() if not (ROOT / f"{name}.md").is_file()]
    assert NAMES and ASSIGNMENTS
    assert notebooks.chapters_differ(NAMES + ASSIGNMENTS, listed, "_toc.yml") == []
    assert listed == NAMES + ASSIGNMENTS


def test_the_page_for_students_names_every_assignment_with_its_points_and_says_what_the_notebooks_say() -> None:
    page = (ROOT / "book" / "assignments.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\d+)\]\(assignments/(\w+)\.ipynb\) \|", page, re.MULTILINE)
    assignments = [source.load(name) for name in source.names()]
    assert rows == [(str(one.number), one.name) for one in assignments]
    assert "assignments of 100 points each" in page and {one.points for one in assignments} == {100}
    assert f"up to {LARGEST_SUBMISSION >> 20} MB" in page
    for text in (build.YOUR_CODE, build.YOUR_WORDS.strip("*."), "not done yet", "right"):
        assert f"`{text}`" in page or f"*{text}*" in page, text


def test_nbval_collects_every_chapter(request: pytest.FixtureRequest) -> None:
    others = [place for place in request.config.getini("testpaths") if place != "tests"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *others], cwd=ROOT, capture_output=True, text=True, check=False
    )
    collected = {line.split(".ipynb::")[0] for line in done.stdout.splitlines() if ".ipynb::" in line}
    assert notebooks.chapters_differ(NAMES, collected, "what nbval collects") == []


def test_all_chapters_together_are_quick_and_small() -> None:
    seconds = {name: notebooks.read(path)["metadata"].get("divcolor", {}).get("seconds", 0) for name, path in zip(NAMES, CHAPTERS)}
    assert notebooks.too_slow(seconds) == []
    assert notebooks.too_large_together({name: path.stat().st_size for name, path in zip(NAMES, CHAPTERS)}) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_promises_about_the_time_that_was_measured(path: Path) -> None:
    notebook = notebooks.read(path)
    sources = "\n".join(notebooks.text_of(cell["source"]) for _, cell in notebooks.code_cells(notebook))
    (minutes,) = re.findall(r"runtime\.contract\(\w+, minutes=([\d.]+)", sources)
    assert 0.5 < 60 * float(minutes) / notebook["metadata"]["divcolor"]["seconds"] < 3


def test_there_is_a_chapter() -> None:
    assert CHAPTERS


@pytest.mark.parametrize(
    ("there", "listed"), [(["book/a"], []), ([], ["book/a"]), (["book/a"], ["book/b"])], ids=["not listed", "not there", "another"]
)
def test_a_difference_between_chapters_and_a_list_is_found(there: list[str], listed: list[str]) -> None:
    assert notebooks.chapters_differ(there, there, "the list") == []
    assert notebooks.chapters_differ(there, listed, "the list") != []


def test_files_are_found_anywhere_in_a_table_of_contents() -> None:
    toc = {
        "format": "jb-book",
        "root": "r",
        "parts": [{"caption": "P", "chapters": [{"file": "a", "sections": [{"file": "b"}]}, {"url": "u"}]}],
    }
    assert notebooks.toc_files(toc) == ["r", "a", "b"]


def test_slow_unmeasured_and_large_books_are_found() -> None:
    assert notebooks.too_slow({"a": 300, "b": 299}) == []
    assert notebooks.too_slow({"a": 400, "b": 400}) and notebooks.too_slow({"a": 0})
    assert notebooks.too_large_together({"a": 9_000_000}) == []
    assert notebooks.too_large_together({"a": 9_000_000, "b": 9_000_000})


def test_normal_form_is_reached_in_one_step_and_keeps_the_reader_s_text() -> None:
    notebook = sound()
    notebook["metadata"]["vscode"] = {}
    notebook["cells"][1]["outputs"] *= 2
    normal = notebooks.normal(notebook)
    assert normal == notebooks.normal(normal)
    assert output(normal)["text"] == "3\n3\n"
    assert [cell["source"] for cell in normal["cells"]] == [cell["source"] for cell in sound()["cells"]]
    assert json.loads(notebooks.as_text(normal))["cells"][1]["source"] == ["# NBVAL_CHECK_OUTPUT\n", "print(1 + 2)"]
