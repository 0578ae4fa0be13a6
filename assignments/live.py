"""Hidden tests inside a notebook, for teachers who grade with nbgrader: each test cell in `autograder.ipynb` ends by calling `points`.

Unlike `python -m assignments grade`, this runs in the same process as the submission, confined by nothing. Words that a test reads come
from the notebook `ASSIGNMENT.ipynb` in the working folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assignments._tools.exam import Call, Outcome, performed, run, solution_of, written
from assignments._tools.grade import answer_to, read_submission
from assignments._tools.source import TEST, load


def points(namespace: dict[str, Any], assignment: str, test: str, seed: str) -> float:
    """Judge what a notebook defines; print what was found, and return the points.

    Args:
        namespace: the notebook's `globals()`.
        assignment: its name.
        test: the `grade_id` of the test cell.
        seed: the teacher's.

    Raises:
        AssertionError: there is not one point; nbgrader takes every other number for full marks.
    """
    found = load(assignment)
    task = found.task(test.removeprefix(TEST))

    notebook = read_submission("", Path(f"{found.name}.ipynb")).notebook
    words = {task.name: answer_to(task, notebook) for task in found.tasks if task.by_hand}

    def ask(part: str, number: int, call: Call) -> Outcome:
        return written(words, call.name) if call.kind == "words" else performed(call, namespace)

    parts = run(found, task, seed, solution_of(found), ask, strict=False)
    for part in parts:
        print(f"{part.earned:g} of {part.points:g}: {part.name}")
        print("".join(f"    {text}\n" for right, text in part.lines if not right), end="")
    total = sum(part.earned for part in parts)
    if not total:
        raise AssertionError("no points")
    return total
