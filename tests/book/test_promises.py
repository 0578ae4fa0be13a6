"""The page of promises: each names one test that is there and runs, and those said to be broken on purpose are."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from book._tools.mutate import BREACHES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book" / "promises.md").read_text(encoding="utf-8")
TEST = re.compile(r"`(tests/(?:\w+/)*test_\w+\.py)::(test_\w+)(?:\[([^\]]+)\])?`")
#: What the page must speak of, by the headings of its tables.
SUBJECTS = ["Downloads", "Bad input", "Interruption", "Numbers that blow up", "Other machines", "Determinism", "Security", "Privacy"]


@dataclass(frozen=True)
class Row:
    """One promise of the page."""

    promise: str
    proof: str
    broken: str

    @property
    def test(self) -> str:
        return self.proof.strip("`")


def rows(page: str) -> list[Row]:
    """Return the rows of all tables of a page, without their heads."""
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    return [Row(*line) for line in cells if line[0] != "promise" and not set("".join(line)) <= set("-: ")]


def faults(row: Row, root: Path = ROOT) -> list[str]:
    """Return what is wrong with a row: its words, its test, or the file of its test."""
    found = TEST.fullmatch(row.proof)
    if not found:
        return [f"names no test: {row.proof}"]
    if not (root / found[1]).is_file():
        return [f"there is no {found[1]}"]
    tests = marks_by_test((root / found[1]).read_text(encoding="utf-8"))
    if found[2] not in tests:
        return [f"there is no {found[2]} in {found[1]}"]
    wrong = [f"{found[2]} never runs"] if tests[found[2]] & {"skip", "soak", "xfail"} else []
    wrong += [f"{found[2]} takes no parameters"] if found[3] and "parametrize" not in tests[found[2]] else []
    wrong += ["the promise is no sentence"] if not re.match(r"(?:[A-Z]|`).*\.$", row.promise) else []
    return wrong + (["a mark that means nothing"] if row.broken not in ("", "yes") else [])


def marks_by_test(text: str) -> dict[str, set[str]]:
    """Return the tests in a file, each with the marks on it and on the whole file."""
    tree = ast.parse(text)
    everywhere = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_mark(node.value)} & {"soak"}
    return {
        node.name: everywhere
        | {part.attr for mark in node.decorator_list for part in ast.walk(mark) if isinstance(part, ast.Attribute) and _is_mark(part.value)}
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def _is_mark(node: ast.AST) -> bool:
    return ast.unparse(node) == "pytest.mark"


ROWS = rows(PAGE)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.test.rpartition("::")[2])
def test_a_promise_names_a_test_that_is_there_and_runs(row: Row) -> None:
    assert not faults(row)


def test_no_promise_and_no_test_stands_twice() -> None:
    assert len({row.promise for row in ROWS}) == len({row.test for row in ROWS}) == len(ROWS) >= 40


def test_the_page_speaks_of_everything_that_can_go_wrong() -> None:
    tables = {part.partition("\n")[0]: rows(part) for part in PAGE.split("\n## ")[1:]}
    assert all(tables.values()), "a heading without a promise"
    assert set(SUBJECTS) <= set(tables)


def test_the_promises_said_to_be_broken_on_purpose_are() -> None:
    assert {row.test for row in ROWS if row.broken == "yes"} == {breach.test for breach in BREACHES}


def test_the_example_of_the_page_is_one_of_its_tests() -> None:
    (example,) = re.findall(r"-m pytest (\S+)", PAGE)
    assert example in {row.test for row in ROWS}


FILE = """import pytest
def helper(): ...
def test_plain(): ...
@pytest.mark.parametrize("n", [1])
def test_many(n): ...
@pytest.mark.skip
def test_asleep(): ...
"""


@pytest.mark.parametrize(
    ("promise", "proof", "broken", "wrong"),
    [
        ("It works.", "`tests/test_x.py::test_plain`", "", ""),
        ("It works.", "`tests/test_x.py::test_many[1]`", "yes", ""),
        ("It works.", "`tests/test_x.py::test_gone`", "", "there is no test_gone"),
        ("It works.", "`tests/test_x.py::helper`", "", "names no test"),
        ("It works.", "`tests/test_y.py::test_plain`", "", "there is no tests/test_y.py"),
        ("It works.", "`tests/test_x.py::test_plain`, `tests/test_x.py::test_many`", "", "names no test"),
        ("It works.", "`tests/test_x.py::test_plain[1]`", "", "takes no parameters"),
        ("It works.", "`tests/test_x.py::test_asleep`", "", "never runs"),
        ("works", "`tests/test_x.py::test_plain`", "", "no sentence"),
        ("It works.", "", "", "names no test"),
        ("It works.", "`tests/test_x.py::test_plain`", "perhaps", "means nothing"),
    ],
)
def test_a_row_that_proves_nothing_is_found(promise: str, proof: str, broken: str, wrong: str, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text(FILE)
    (row,) = rows(f"| promise | proof | broken on purpose |\n|---|---|---|\n| {promise} | {proof} | {broken} |")
    found = faults(row, tmp_path)
    assert any(wrong in fault for fault in found) if wrong else not found
