"""Let a submission make the calls of the hidden tests, in a box, and save what it returns."""

from __future__ import annotations

import ast
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from assignments._tools import exam
from assignments._tools.confine import PATIENCE, Box, Limits
from assignments._tools.exam import Outcome, Part
from assignments._tools.inside import plain
from assignments._tools.source import NOT_GRADED, Assignment, grade_id, is_demo, is_test, runnable, tree_of
from book._tools.notebooks import Notebook, text_of

MOST_DEATHS = 2
Cells = Mapping[str, str]


def cells_to_run(assignment: Assignment, submission: Notebook) -> dict[str, str]:
    """Return the code of a submission that is run, by cell number; what was given comes from our source, tests are left out."""
    source = [cell for cell in assignment.notebook["cells"] if cell["cell_type"] == "code"]
    left_out = {grade_id(cell) for cell in source if is_test(cell) or is_demo(cell)} - {""}
    given = assignment.given()
    found: dict[str, str] = {}
    used: set[str] = set()
    for number, cell in enumerate(submission["cells"], start=1):
        name = grade_id(cell)
        if cell["cell_type"] != "code" or name in left_out or text_of(cell["source"]).lstrip().startswith(NOT_GRADED):
            continue
        used.add(name)
        found[str(number)] = given.get(name, runnable(text_of(cell["source"])))
    lost = {f"given: {name}": code for name, code in given.items() if name not in used}
    return lost | found


def forbidden_imports(assignment: Assignment, cells: Cells) -> list[str]:
    """Return the forbidden modules that a submission's own cells import or name, as far as its text shows."""
    found = set()
    given = set(assignment.given().values())
    for code in cells.values():
        if code in given:
            continue
        try:
            tree = tree_of(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found |= {banned for banned in assignment.forbidden for name in names if name == banned or name.startswith(banned + ".")}
            # A part of a package, such as torch.distributions, is there without an import of its own.
            found |= {banned for banned in assignment.forbidden if "." in banned and _dotted(node) == banned}
    return sorted(found)


def _dotted(node: ast.AST) -> str:
    """Return the name that a node spells, such as `torch.distributions`; an empty text if it is none."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def uses_earlier(assignment: Assignment, task: str, cells: Cells) -> bool:
    """Whether a submission's functions for a task, or helpers of its own, name functions of earlier tasks."""
    before = set(assignment.names_before(task))
    others = {name for other in assignment.tasks if other.name != task for name in other.names}
    for code in cells.values():
        try:
            tree = tree_of(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in tree.body:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign)):
                continue
            if not isinstance(node, ast.Assign) and node.name in others:
                continue
            if any(isinstance(inner, ast.Name) and inner.id in before for inner in ast.walk(node)):
                return True
    return False


class Performance:
    """One submission in a box: runs its cells, then calls, and starts again without what ended it.

    Args:
        box: where it runs.
        assignment: what it answers.
        cells: its code.
        limits: what it may use.

    Attributes:
        notes: what went wrong in its cells, as sentences to the student.
    """

    def __init__(self, box: Box, assignment: Assignment, cells: Cells, limits: Limits) -> None:
        self._box, self._assignment, self._limits = box, assignment, limits
        self._cells = dict(cells)
        self._channel: socket.socket | None = None
        self._end = time.monotonic() + limits.seconds
        self.notes: dict[str, str] = {}

    @property
    def over(self) -> bool:
        """Whether the time of the whole submission is used up."""
        return time.monotonic() >= self._end

    def outcomes(self, task: str, plan: Sequence[Part], ours_before: bool) -> dict[str, list[Outcome]]:
        """Make the calls of a task; return what became of them, for each part.

        A part whose call hangs, ends or kills the process is over; the next one starts afresh. After `MOST_DEATHS` of these
        the rest of the task is left.

        Args:
            task: its name.
            plan: its parts, with their calls.
            ours_before: whether our solutions of earlier tasks take the place of the submission's.
        """
        found: dict[str, list[Outcome]] = {}
        deaths = 0
        given = self._assignment.reference(before=task) if ours_before else ""
        names = self._assignment.names_before(task) if ours_before else ()
        for part in plan:
            if deaths >= MOST_DEATHS:
                found[part.name] = [Outcome(problem=f"{exam.LOST}: your code ended or hung {deaths} times before")]
                continue
            found[part.name], died = self._part(part, given, names)
            deaths += died
        return found

    def _part(self, part: Part, given: str, names: Sequence[str]) -> tuple[list[Outcome], bool]:
        if not self._ready():
            return [Outcome(problem=f"{exam.LOST}: the time for the whole submission was used up before")], False
        coder = plain.Coder()
        message = {"given": given, "names": list(names), "calls": [call.message(coder) for call in part.calls]}
        found: list[Outcome] = []

        def take(answer: dict[str, Any], parts: list[bytes]) -> None:
            if len(found) < len(part.calls):
                found.append(exam.outcome_of(answer, parts))

        problem = self._converse(message, coder.parts, take)
        if problem:
            found.append(Outcome(problem=problem))
        return found, bool(problem)

    def _ready(self) -> bool:
        """Make sure that an attempt is running whose cells have been run; return whether there is time left for that."""
        while self._channel is None:
            if self.over:
                return False
            self._channel = self._box.begin(self._limits, self._assignment.forbidden)
            self._run_cells()
        return not self.over

    def _run_cells(self) -> None:
        at = next(iter(self._cells), "")

        def take(answer: dict[str, Any], parts: list[bytes]) -> None:
            nonlocal at
            if answer.get("at") in self._cells:
                at = answer["at"]
            if answer.get("error"):
                self.notes[at] = f"{self._named(at)} raises {str(answer['error'])[:500]}"

        problem = self._converse({"cells": self._cells}, [], take, each=True)
        if problem:
            self.notes[at] = f"{self._named(at)} was left out: {problem}"
            self._cells.pop(at, None)

    def _named(self, number: str) -> str:
        """Return a cell's number, counted from the top, and how it begins."""
        lines = [line.strip() for line in self._cells.get(number, "").splitlines() if line.strip()]
        return f"cell {number} (`{lines[0][:50]}`)" if lines else f"cell {number}"

    def _converse(
        self, message: dict[str, Any], parts: list[bytes], take: Callable[[dict[str, Any], list[bytes]], None], each: bool = False
    ) -> str:
        """Send a message and take the answers until the last; return what ended the attempt, an empty text if nothing did.

        Args:
            each: whether the time for a part holds for each answer, and not for all.
        """
        assert self._channel is not None
        try:
            deadline = self._deadline()
            self._channel.settimeout(PATIENCE * self._limits.part_seconds)
            plain.send(self._channel, message, parts)
            while True:
                answer, more = plain.receive(self._channel, deadline)
                if "done" in answer:
                    return ""
                if "failed" in answer:
                    return self._died(f"it broke the process that runs it ({str(answer['failed'])[:200]})")
                take(answer, more)
                deadline = self._deadline() if each else deadline
        except TimeoutError:
            return self._died(self._too_long() if not self.over else "the time was used up")
        except (EOFError, ConnectionError):
            return self._died("")
        except plain.NotPlain as error:
            return self._died(f"it wrote into the channel of its results ({error})")

    def _deadline(self) -> float:
        return min(self._end, time.monotonic() + PATIENCE * self._limits.part_seconds)

    def _too_long(self) -> str:
        return f"it did not end within {self._limits.part_seconds:g} seconds"

    def _died(self, reason: str) -> str:
        assert self._channel is not None
        self._channel.close()
        self._channel = None
        status = self._box.stop()
        if reason:
            return reason
        if os.WIFSIGNALED(status) and status >= 0:
            number = os.WTERMSIG(status)
            if number in (signal.SIGPROF, signal.SIGXCPU):
                return self._too_long()
            return (
                f"it was ended by the signal {signal.Signals(number).name}"
                if number != signal.SIGKILL
                else "it was killed; did it take too much memory?"
            )
        return "it ended the process, as `os._exit` or a crash does"

    def close(self) -> None:
        """End the attempt that is still running."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            self._box.stop()


def perform(
    box: Box,
    assignment: Assignment,
    cells: Cells,
    limits: Limits,
    plans: Mapping[str, Sequence[Part]],
    judge: Callable[[str, Any], Sequence[Part]],
) -> tuple[dict[str, tuple[Sequence[Part], bool]], list[str]]:
    """Let a submission make the calls of several tasks, and judge each.

    A task is judged on the submission's own earlier functions. Where one of these lost points, ours take their place first, so
    that a mistake is punished once; the better of both counts.

    Args:
        box: where it runs.
        assignment: what it answers.
        cells: its code.
        limits: what it may use.
        plans: for each task to be done, its parts and calls.
        judge: (task, outcomes) to parts.

    Returns:
        For each task its parts and whether ours took the place of earlier ones; and notes about its cells.
    """
    stage = Performance(box, assignment, cells, limits)
    found: dict[str, tuple[Sequence[Part], bool]] = {}
    all_right = set(plans) >= {task.name for task in assignment.tasks if not task.by_hand}
    try:
        for name, plan in plans.items():
            ways = [False] if all_right or not uses_earlier(assignment, name, cells) else [True, False]
            best: Sequence[Part] = ()
            for ours in ways:
                parts = judge(name, stage.outcomes(name, plan, ours))
                if not best or earned(parts) > earned(best):
                    best, found[name] = parts, (parts, ours)
                if earned(parts) == sum(part.points for part in plan):
                    break
            all_right = all_right and earned(best) == sum(part.points for part in plan)
    finally:
        stage.close()
    return found, list(stage.notes.values())


def earned(parts: Sequence[Part]) -> float:
    """Return the points of parts together."""
    return sum(part.earned for part in parts)
