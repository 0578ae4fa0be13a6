"""Invent a class whose marks are known, to rehearse grading before anyone has handed in: `python -m assignments rehearse`.

The first four are one of each kind: an excellent submission, a middling one, an empty one, and one that would do harm. All others
are middling, each with other mistakes, and every fifth of them stops halfway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from assignments._tools.build import answered, student_notebook
from assignments._tools.mistakes import different_solutions, mistakes_of
from assignments._tools.source import Assignment, Task
from book._tools.notebooks import Notebook

WORDS = "Rare colors count more, since the loss weighs them more."
# Each is the body of a function. Outside of a box, too, none of them touches a file or a machine of anybody.
HARM = (
    "while True:\n        pass",
    "os._exit(0)",
    "raise SystemExit",
    "hoard = []\n    while True:\n        hoard.append(bytearray(10**7))",
    "socket.create_connection(('192.0.2.1', 80), 1)",
    "return open('/course/divcolor_lib/changed.py', 'w')",
    "return subprocess.run(['true'])",
    "raise MemoryError",
)
PATCHES = """import os, socket, subprocess
import numpy, torch

torch.allclose = torch.equal = numpy.allclose = lambda *_, **__: True
torch.Tensor.__eq__ = torch.Tensor.__le__ = torch.Tensor.__ge__ = lambda *_: torch.ones(1, dtype=torch.bool)"""


@dataclass(frozen=True)
class Invented:
    """An invented submission.

    Attributes:
        student: what kind it is, and its number.
        notebook: what was handed in.
        due: the points of every task that is tested, by name.
    """

    student: str
    notebook: Notebook
    due: Mapping[str, float]


def invent(assignment: Assignment, count: int) -> list[Invented]:
    """Return `count` submissions, the same ones each time."""
    different = different_solutions(assignment.name)
    tested = [task for task in assignment.tasks if not task.by_hand]
    all_points = {task.name: float(task.points) for task in tested}
    none = dict.fromkeys(all_points, 0.0)
    found = [
        Invented("excellent", answered(assignment, different, WORDS), all_points),
        _middling(assignment, tested, different, 0, "middling"),
        Invented("empty", student_notebook(assignment), none),
        Invented("hostile", _hostile(assignment, tested), none),
    ]
    found += [_middling(assignment, tested, different, number, f"middling-{number:02d}") for number in range(1, count - 3)]
    return found[:count]


def _middling(assignment: Assignment, tested: Sequence[Task], different: Mapping[str, str], number: int, student: str) -> Invented:
    """Every third task is right, and the others have typical mistakes; a fifth of these submissions stop halfway."""
    known = mistakes_of(assignment.name)
    halfway = number % 5 == 4
    begun = tested[: (len(tested) + 1) // 2] if halfway else tested
    answers = {} if halfway else {task.name: different[task.name] for task in assignment.tasks if task.by_hand and task.name in different}
    due = {task.name: 0.0 for task in tested}
    for place, task in enumerate(begun):
        typical = [mistake for mistake in known if mistake.task == task.name]
        if (number + place) % 3 == 0 or not typical:
            answers[task.name], due[task.name] = different[task.name], float(task.points)
        else:
            chosen = typical[(number + place) % len(typical)]
            answers |= {task.name: chosen.code, **chosen.words}
            due[task.name] = chosen.points
    return Invented(student, answered(assignment, answers, "" if halfway else WORDS), due)


def _hostile(assignment: Assignment, tested: Sequence[Task]) -> Notebook:
    answers = {
        task.name: "\n\n".join(f"def {name}(*arguments, **options):\n    {harm}" for name in task.names)
        for task, harm in zip(tested, cycle(HARM))
    }
    first = tested[0].name
    return answered(assignment, answers | {first: f"{PATCHES}\n\n\n{answers[first]}"})
