"""Make what an assignment consists of from its source: `make assignments SEED=...`.

    book/assignments/NAME.ipynb                 what students get; committed, a page of the book
    assignments/teacher/NAME/autograder.ipynb   nbgrader's source version, with the hidden tests and the seed
    assignments/teacher/NAME/solution.ipynb     our solution, with the visible tests only; to show when all have handed in
    assignments/teacher/NAME/rubric.md          what every part is worth, and what typical mistakes cost

The student notebook does not depend on the seed. Everything is a function of the source, the seed and nothing else.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assignments._tools import leaks
from assignments._tools.exam import Part, rehearse, solution_of
from assignments._tools.mistakes import Mistake, mistakes_of
from assignments._tools.source import (
    ANSWER,
    BEGIN_HIDDEN,
    BEGIN_SOLUTION,
    END_HIDDEN,
    END_SOLUTION,
    ROOT,
    TEST,
    Assignment,
    grade_id,
    is_answer,
    is_solution,
    is_test,
    visible_part,
)
from book._tools.notebooks import KERNEL, LANGUAGE, Notebook, as_text, text_of
from divcolor_lib.errors import DataError, whole_file

STUDENT, TEACHER = "book/assignments", "assignments/teacher"
YOUR_CODE, YOUR_WORDS = "# YOUR CODE HERE", "*Your answer here.*"
STUB = "# stub: "
KEPT_METADATA = ("nbgrader", "tags", "cellView")

_SOLUTION = re.compile(rf"^([ \t]*){BEGIN_SOLUTION}\n(.*?)^[ \t]*{END_SOLUTION}[ \t]*$", re.MULTILINE | re.DOTALL)


def build(assignment: Assignment, seed: str) -> dict[str, str]:
    """Return the text of every file that is made from an assignment, by its path in the repository.

    Raises:
        DataError: our solution does not pass our own tests with this seed, or the student's file would show a secret.
    """
    solution = solution_of(assignment)
    plans = {task.name: rehearse(assignment, task, seed, solution) for task in assignment.tasks if not task.by_hand}
    student = student_notebook(assignment)
    if found := leaks.in_notebook(student, assignment, seed):
        raise DataError(
            found[0], f"{assignment.name}, the student's notebook", "Move it into the marks of the solution or the hidden test."
        )
    teacher = f"{TEACHER}/{assignment.name}"
    return {
        f"{STUDENT}/{assignment.name}.ipynb": as_text(student),
        f"{teacher}/autograder.ipynb": as_text(autograder_notebook(assignment, seed)),
        f"{teacher}/solution.ipynb": as_text(solution_notebook(assignment)),
        f"{teacher}/rubric.md": rubric(assignment, plans, mistakes_of(assignment.name)),
    }


def write(files: dict[str, str], folder: Path = ROOT) -> list[str]:
    """Write files below `folder`; return the paths of those that are new or changed."""
    changed = []
    for name, text in files.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            with whole_file(path) as part:
                part.write_text(text, encoding="utf-8")
            changed.append(name)
    return changed


# --- notebooks ------------------------------------------------------------------------------------------------------------


def student_notebook(assignment: Assignment) -> Notebook:
    """Return the notebook for students: stubs in place of solutions, no hidden test, no output."""

    def change(cell: dict[str, Any], text: str) -> str:
        return YOUR_WORDS if is_answer(cell) else with_stubs(text) if is_solution(cell) else visible_part(text)

    return _made(assignment, change)


def solution_notebook(assignment: Assignment) -> Notebook:
    """Return the notebook with our solution and the visible tests, to be shown after the deadline."""

    def change(cell: dict[str, Any], text: str) -> str:
        return without_marks(text) if is_solution(cell) else visible_part(text)

    return _made(assignment, change)


def autograder_notebook(assignment: Assignment, seed: str) -> Notebook:
    """Return nbgrader's source version: as the source, and every hidden test ends by running itself with the seed.

    nbgrader takes the number that a test cell ends with as its points, and an error as none.
    """

    def change(cell: dict[str, Any], text: str) -> str:
        if not is_test(cell):
            return text
        task = cell["metadata"]["nbgrader"]["grade_id"]
        run = f"from assignments import live\n\nlive.points(globals(), {assignment.name!r}, {task!r}, {seed!r})\n"
        head, tail = text.split(END_HIDDEN, 1)
        return f"{head}{run}{END_HIDDEN}{tail}"

    return _made(assignment, change)


def _made(assignment: Assignment, change: Any) -> Notebook:
    cells = []
    for index, cell in enumerate(assignment.notebook["cells"]):
        metadata = copy.deepcopy({key: value for key, value in cell["metadata"].items() if key in KEPT_METADATA})
        text = change(cell, text_of(cell["source"]))
        made = {"cell_type": cell["cell_type"], "id": cell.get("id") or f"cell-{index:02d}", "metadata": metadata, "source": text}
        if cell["cell_type"] == "code":
            made |= {"execution_count": None, "outputs": []}
        if "nbgrader" in metadata:
            metadata["nbgrader"]["checksum"] = checksum(made)
        cells.append(made)
    return {"cells": cells, "metadata": {"kernelspec": KERNEL, "language_info": LANGUAGE}, "nbformat": 4, "nbformat_minor": 5}


def answered(assignment: Assignment, answers: Mapping[str, str], words: str = "") -> Notebook:
    """Return a student's notebook with answers to some tasks, by name: code, in their first solution cell, or words.

    Args:
        words: for every answer in words that `answers` does not hold.
    """
    notebook = student_notebook(assignment)
    waiting: list[dict[str, Any]] = []
    for cell in notebook["cells"]:
        if is_solution(cell):
            waiting.append(cell)
        elif is_answer(cell):
            cell["source"] = answers.get(grade_id(cell).removeprefix(ANSWER)) or words or cell["source"]
        elif is_test(cell):
            if code := answers.get(grade_id(cell).removeprefix(TEST)):
                for number, own in enumerate(waiting):
                    own["source"] = "" if number else code
            waiting = []
    return notebook


def checksum(cell: dict[str, Any]) -> str:
    """Return the checksum by which nbgrader knows whether a cell was changed: md5 of its text and its nbgrader metadata."""
    facts = cell["metadata"]["nbgrader"]
    grade, solution = facts.get("grade", False), facts.get("solution", False)
    locked = not solution and (grade or facts.get("locked", False))
    words = [text_of(cell["source"]), cell["cell_type"], str(grade), str(solution), str(locked), facts["grade_id"]]
    words += [str(float(facts["points"]))] if grade else []
    return hashlib.md5("".join(words).encode(), usedforsecurity=False).hexdigest()


def with_stubs(text: str) -> str:
    r"""Return a solution cell with a stub in place of every solution.

    A line `# stub: ...` in the solution says what stands there instead; else it is `return ...` in a function, `...` outside.

    >>> print(with_stubs("def f(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"))
    def f(x):
        # YOUR CODE HERE
        return ...
    """

    def stub(found: re.Match[str]) -> str:
        indent = found[1]
        own = [line.strip().removeprefix(STUB) for line in found[2].splitlines() if line.strip().startswith(STUB)]
        lines = [YOUR_CODE, *(own or ["return ..." if indent else "..."])]
        return "\n".join(indent + line for line in lines)

    return _SOLUTION.sub(stub, text)


def without_marks(text: str) -> str:
    """Return a solution cell with our solution and without the marks around it."""
    marks = (BEGIN_SOLUTION, END_SOLUTION, BEGIN_HIDDEN, END_HIDDEN, STUB.strip())
    return "\n".join(line for line in text.splitlines() if not line.strip().startswith(marks))


# --- the rubric -----------------------------------------------------------------------------------------------------------


def rubric(assignment: Assignment, plans: dict[str, tuple[Part, ...]], mistakes: Sequence[Mistake]) -> str:
    """Return what every part of every task is worth, what typical mistakes cost, and the model answers, as Markdown."""
    lines = [f"# Rubric: {assignment.title}", "", f"{assignment.points} points. For teachers; it holds model answers.", ""]
    for task in assignment.tasks:
        lines += [f"## {task.title} ({task.points} points): `{task.name}`", ""]
        if task.by_hand:
            lines += [
                "Marked by a person. The model answer and how it is marked:",
                "",
                *(f"> {line}".rstrip() for line in task.solution.splitlines()),
                "",
            ]
            continue
        lines += ["| points | for |", "| ---: | --- |"]
        lines += [f"| {part.points:g} | {part.name} |" for part in plans[task.name]]
        known = [mistake for mistake in mistakes if mistake.task == task.name]
        if known:
            lines += ["", "| a typical mistake | points left |", "| --- | ---: |"]
            lines += [f"| {mistake.what} | {mistake.points:g} |" for mistake in known]
        lines.append("")
    return "\n".join(lines)
