"""Read an assignment's source: one notebook in nbgrader's source format, with solutions and hidden tests.

What a cell is, its `nbgrader` metadata say:

    locked, neither graded nor solution     given: every submission gets it as it stands here
    solution, not graded                    the student's work; what is between BEGIN SOLUTION and END SOLUTION is ours
    graded, not solution                    the test of a task: a visible part, and one between BEGIN HIDDEN TESTS and END HIDDEN TESTS
    graded and solution                     an answer in words, marked by a person

A task is named after its test: the cell `test-lab` ends the task `lab`, which owns the solution cells since the test before it.
A cell with the tag `demo` shows something and is not run while grading, nor is a cell of a submission that begins with `# not graded`.
"""

from __future__ import annotations

import ast
import re
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from book._tools.notebooks import Notebook, code_cells, read, tags, text_of
from divcolor_lib.errors import ConfigError, DataError

FOLDER = Path(__file__).resolve().parents[1]
ROOT, SOURCES = FOLDER.parent, FOLDER / "sources"
BEGIN_SOLUTION, END_SOLUTION = "### BEGIN SOLUTION", "### END SOLUTION"
BEGIN_HIDDEN, END_HIDDEN = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"
TEST, ANSWER, DEMO = "test-", "answer-", "demo"
MARKING = "**Marking.**"
NOT_GRADED = "# not graded"

_ONE_TREE = threading.Lock()
_HEADING = re.compile(r"^#{2,3} +(?:Task \d+\. +)?(.*?)(?: +\((\d+) points?\))?\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Task:
    """One task of an assignment.

    Attributes:
        name: short, as in `--task lab`.
        title: its heading.
        points: how many it is worth.
        by_hand: whether a person marks it; then `solution` is the model answer and there is no test.
        solution: the code of its solution cells.
        hidden: the code of its hidden test.
    """

    name: str
    title: str
    points: int
    by_hand: bool
    solution: str
    hidden: str = ""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What the solution defines at the top level."""
        return () if self.by_hand else defined(self.solution)


@dataclass(frozen=True)
class Assignment:
    """One assignment as its source describes it.

    Attributes:
        name: the name of its folder, such as `1_lab`.
        notebook: the source.
        tasks: in order.
        forbidden: modules that a submission may not import.
        limits: `seconds`, `part_seconds` and `memory_mb`, where the source names others than usual.
    """

    name: str
    notebook: Notebook
    tasks: tuple[Task, ...]
    forbidden: tuple[str, ...]
    limits: dict[str, float]

    @property
    def number(self) -> int:
        """Its place in the course."""
        return int(self.name.split("_")[0])

    @property
    def title(self) -> str:
        """The title of the notebook."""
        return text_of(self.notebook["cells"][0]["source"]).splitlines()[0].lstrip("# ")

    @property
    def points(self) -> int:
        """The points of all tasks together."""
        return sum(task.points for task in self.tasks)

    def task(self, name: str) -> Task:
        """Return the task of that name.

        Raises:
            ConfigError: there is none.
        """
        for task in self.tasks:
            if task.name == name:
                return task
        raise ConfigError(f"there is no task {name}", self.name, f"The tasks are: {', '.join(task.name for task in self.tasks)}.")

    def model_answers(self) -> dict[str, str]:
        """Return our words to every task that a person marks, without how they are marked."""
        return {task.name: task.solution.split(MARKING)[0].strip() for task in self.tasks if task.by_hand}

    def given(self) -> dict[str, str]:
        """Return the code of every locked cell that is run while grading, by `grade_id`."""
        return {
            grade_id(cell): runnable(text_of(cell["source"]))
            for _, cell in code_cells(self.notebook)
            if is_given(cell) and not is_demo(cell)
        }

    def reference(self, before: str = "") -> str:
        """Return our code: what is given, and the solutions of all tasks, or of those before the task `before`."""
        texts = list(self.given().values())
        for task in self.tasks:
            if task.name == before:
                break
            texts += [] if task.by_hand else [task.solution]
        return "\n\n".join(texts)

    def names_before(self, name: str) -> tuple[str, ...]:
        """Return what the solutions of the tasks before the task `name` define."""
        found: list[str] = []
        for task in self.tasks:
            if task.name == name:
                break
            found += task.names
        return tuple(dict.fromkeys(found))

    def needs(self, task: Task) -> tuple[str, ...]:
        """Return which names of earlier tasks our solution of a task uses."""
        if task.by_hand:
            return ()
        used = {node.id for node in ast.walk(tree_of(task.solution)) if isinstance(node, ast.Name)}
        return tuple(name for name in self.names_before(task.name) if name in used)


def load(number_or_name: int | str, folder: Path = SOURCES) -> Assignment:
    """Read the source of an assignment, named by its number or its folder.

    Raises:
        ConfigError: there is no such assignment.
        DataError: its source does not follow the rules.
    """
    for path in sorted(folder.glob("*/source.ipynb")):
        if str(number_or_name) in (path.parent.name, path.parent.name.split("_")[0]):
            return parse(path.parent.name, read(path))
    raise ConfigError(f"there is no assignment {number_or_name}", folder, f"There are: {', '.join(names(folder)) or 'none'}.")


def names(folder: Path = SOURCES) -> list[str]:
    """Return the names of all assignments, in order."""
    return [path.parent.name for path in sorted(folder.glob("*/source.ipynb"))]


def parse(name: str, notebook: Notebook) -> Assignment:
    """Return the assignment that a source notebook describes.

    Raises:
        DataError: the source does not follow the rules; the message names the cell.
    """
    tasks: list[Task] = []
    title, announced, solutions = "", None, list[str]()
    seen: set[str] = set()
    for index, cell in enumerate(notebook["cells"]):
        text, facts = text_of(cell["source"]), cell["metadata"].get("nbgrader")
        if cell["cell_type"] == "markdown" and (found := list(_HEADING.finditer(text))) and not is_answer(cell):
            title, announced = found[-1][1], found[-1][2]
        if facts is None:
            _need(
                BEGIN_SOLUTION not in text and BEGIN_HIDDEN not in text,
                name,
                index,
                "it holds a solution or a test, but no nbgrader metadata",
            )
            continue
        _need(grade_id(cell) not in seen and bool(grade_id(cell)), name, index, "its grade_id is missing or was used before")
        seen.add(grade_id(cell))
        if is_solution(cell):
            _need(BEGIN_SOLUTION in text and text.count(BEGIN_SOLUTION) == text.count(END_SOLUTION), name, index, "its solution has no end")
            solutions.append(runnable(text))
        elif is_test(cell) or is_answer(cell):
            by_hand, prefix = is_answer(cell), ANSWER if is_answer(cell) else TEST
            _need(grade_id(cell).startswith(prefix), name, index, f"its grade_id does not begin with {prefix}")
            _need(announced is not None and int(announced) == facts["points"], name, index, "its heading announces other points")
            hidden = "" if by_hand else hidden_part(text)
            _need(by_hand or (bool(hidden) and bool(solutions)), name, index, "there is no hidden test, or no solution before it")
            solution = text if by_hand else "\n\n".join(solutions)
            tasks.append(Task(grade_id(cell).removeprefix(prefix), title, int(facts["points"]), by_hand, solution, hidden))
            solutions = [] if not by_hand else solutions
        else:
            _need(is_given(cell), name, index, "it is neither given, solution, test nor answer")
    _need(not solutions and bool(tasks), name, len(notebook["cells"]) - 1, "the last solution has no test")
    settings = notebook["metadata"].get("divcolor", {})
    return Assignment(name, notebook, tuple(tasks), tuple(settings.get("forbidden", ())), dict(settings.get("limits", {})))


def _need(holds: bool, name: str, index: int, problem: str) -> None:
    if not holds:
        raise DataError(f"cell {index}: {problem}", f"{name}/source.ipynb", "assignments/AUTHORING.md says how a source is written.")


# --- cells ----------------------------------------------------------------------------------------------------------------


def _flags(cell: dict[str, Any]) -> tuple[bool, bool, bool]:
    facts = cell["metadata"].get("nbgrader") or {}
    return bool(facts.get("grade")), bool(facts.get("solution")), bool(facts.get("locked"))


def grade_id(cell: dict[str, Any]) -> str:
    """Return nbgrader's name of a cell; an empty text where it has none."""
    facts = cell["metadata"].get("nbgrader")
    return str(facts.get("grade_id", "")) if isinstance(facts, dict) else ""


def is_given(cell: dict[str, Any]) -> bool:
    """Whether every submission gets this cell as the source has it."""
    return _flags(cell) == (False, False, True)


def is_solution(cell: dict[str, Any]) -> bool:
    """Whether the student's code belongs here."""
    return _flags(cell)[:2] == (False, True)


def is_test(cell: dict[str, Any]) -> bool:
    """Whether this cell tests a task."""
    return _flags(cell)[:2] == (True, False)


def is_answer(cell: dict[str, Any]) -> bool:
    """Whether the student's words belong here, and a person marks them."""
    return _flags(cell)[:2] == (True, True)


def is_demo(cell: dict[str, Any]) -> bool:
    """Whether this cell is left out while grading."""
    return DEMO in tags(cell)


# --- code -----------------------------------------------------------------------------------------------------------------


def hidden_part(text: str) -> str:
    """Return what is between the marks of the hidden test; an empty text if there are none."""
    if BEGIN_HIDDEN not in text or END_HIDDEN not in text:
        return ""
    return text.split(BEGIN_HIDDEN, 1)[1].split(END_HIDDEN, 1)[0].strip("\n") + "\n"


def visible_part(text: str) -> str:
    """Return a test without its hidden part."""
    if BEGIN_HIDDEN not in text:
        return text
    before, rest = text.split(BEGIN_HIDDEN, 1)
    after = rest.split(END_HIDDEN, 1)[1] if END_HIDDEN in rest else ""
    return (before.rstrip() + "\n" + after.lstrip("\n")).rstrip("\n")


def tree_of(code: str) -> ast.Module:
    """Return the syntax tree of code, for one thread at a time: Python 3.11 counts the depth of a tree for all threads together."""
    with _ONE_TREE:
        return ast.parse(code)


def runnable(code: str) -> str:
    """Return a cell's code with what only a notebook understands taken out: magics and commands of the shell.

    >>> print(runnable("x = 1\\nif x:\\n    !ls\\n%matplotlib inline"))
    x = 1
    if x:
        pass
    pass
    >>> runnable("%%time\\nx = 1"), runnable("%%bash\\nls")
    ('\\nx = 1', 'pass')
    """
    first = code.lstrip().split("\n", 1)[0]
    if first.startswith("%%"):
        return "\n" + code.lstrip().split("\n", 1)[-1] if re.match(r"%%(time|timeit|capture)\b", first) and "\n" in code.strip() else "pass"
    try:
        tree_of(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return re.sub(r"^([ \t]*)[%!].*$", r"\1pass", code, flags=re.MULTILINE)
    return code


def defined(code: str) -> tuple[str, ...]:
    """Return the names that code defines at the top level: functions, classes, and variables."""
    found: list[str] = []
    for node in tree_of(code).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.append(node.name)
        elif isinstance(node, ast.Assign):
            found += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return tuple(dict.fromkeys(found))
