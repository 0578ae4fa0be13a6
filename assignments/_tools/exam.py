"""Hidden tests: written like the checks of the book, run twice, in another process than the submission.

A hidden test is a function `hidden(exam)`. It is made of parts; each is worth points, all or none, and what fails in one
does not end the next:

    def hidden(exam):
        with exam.part("the numbers are doubled", 3):
            x = exam.numbers(5)
            y = exam.call("double", x)
            exam.same_shape("the result", y, x)
            exam.close(y, 2 * x, right="they are", wrong="one is {found:.3g} instead of {wanted:.3g}")

First it runs on our solution (`rehearse`), and the inputs of every call are kept. Then the submission makes these calls, confined,
and its returns are saved as plain data. At last the test runs again (`judge`): each `exam.call` now gives what was saved.
Inputs come from the teacher's seed, and so must not depend on what a call returned.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType, SimpleNamespace
from typing import Any, NoReturn

import torch
from torch import Tensor

from assignments._tools.inside import plain, runner
from assignments._tools.source import Assignment, Task, tree_of
from divcolor_lib.checks import Trial, _Over
from divcolor_lib.errors import DataError
from divcolor_lib.runtime import generator

LOST = "it could not be graded"


@dataclass(frozen=True)
class Call:
    """One thing that a hidden test asks of a submission.

    Attributes:
        kind: `call` a function, read a `value`, `drive` a function of ours that uses the submission's, or read the `words` of an answer.
        name: of the function, the value, or the task that the words answer.
        arguments: plain values.
        source: of our function, for `drive`.
        seed: of every random number that is drawn during the call.
    """

    kind: str
    name: str
    arguments: tuple[Any, ...] = ()
    source: str = ""
    seed: int = 0

    def message(self, coder: plain.Coder) -> dict[str, Any]:
        """Return the call as plain data."""
        return {
            "kind": self.kind,
            "name": self.name,
            "arguments": coder.encode(self.arguments),
            "source": self.source,
            "seed": self.seed,
        }

    def same_as(self, other: Call) -> bool:
        """Whether both ask the same, to the last bit."""
        one, two = plain.Coder(), plain.Coder()
        return self.message(one) == other.message(two) and one.parts == two.parts


@dataclass(frozen=True)
class Outcome:
    """What became of a call.

    Attributes:
        value: what was returned.
        problem: why nothing was returned, as a sentence to the student; empty if something was.
        changed: whether the call changed its arguments.
    """

    value: Any = None
    problem: str = ""
    changed: bool = False


@dataclass(frozen=True)
class Part:
    """A part of a task and what was found in it."""

    name: str
    points: float
    earned: float
    lines: tuple[tuple[bool, str], ...]
    calls: tuple[Call, ...] = field(default=(), repr=False)
    odd: str = ""


Ask = Callable[[str, int, Call], Outcome]


class Exam(Trial):
    """What a hidden test is given: random inputs, calls of the submission, a record of what is right and wrong.

    Everything that `divcolor_lib.checks.Trial` offers is here too, and records lines in the current part.

    Args:
        seed: the teacher's seed, of any kind, and the names of assignment and task.
        solution: what our solution defines, as attributes: `exam.solution.double(x)`.
        ask: what carries out a call: (part, number within the part, call) to outcome.
        sources: the source of every function that may be driven, by name.
        strict: whether an error of the test itself is raised. Otherwise it costs the part, and the part is marked as odd.
    """

    def __init__(self, seed: str, solution: Any, ask: Ask, sources: Mapping[str, str], strict: bool) -> None:
        super().__init__()
        self.solution = solution
        self.parts: list[Part] = []
        self._seed, self._ask, self._sources, self._strict = seed, ask, sources, strict
        self._part, self._calls, self._changed = "", list[Call](), False

    @contextlib.contextmanager
    def part(self, name: str, points: float) -> Iterator[None]:
        """Look at one thing that is worth `points`, all or none. The name says to the student what it is.

        Raises:
            DataError: a part of this name was there before, or this one is inside another.
        """
        if self._part or name in {part.name for part in self.parts}:
            raise DataError(
                f"the part `{name}` is inside another one or has the name of an earlier one", "hidden", "Give each part its own."
            )
        self._part, self._calls, start, odd = name, [], len(self.lines), ""
        self.random = generator(number_from(self._seed, name))
        try:
            yield
        except _Over:
            pass
        except Exception as error:
            if self._strict or isinstance(error, DataError):
                raise
            odd = f"{type(error).__name__}: {error}"[:300]
            self.lines.append((False, f"{LOST}: what your code returned is of a kind that the test did not expect"))
        lines = tuple(self.lines[start:])
        right = bool(lines) and all(holds for holds, _ in lines)
        self.parts.append(Part(name, points, points if right else 0, lines, tuple(self._calls), odd))
        self._part = ""

    def call(self, answer: Any, *arguments: Any) -> Any:
        """Return what the submission's function of the name `answer` gives; end the part if it gives nothing."""
        return self._asked(Call("call", answer, arguments, seed=self._next_seed()))

    def value(self, answer: Any) -> Any:
        """Return the submission's value of the name `answer`; end the part if there is none."""
        return self._asked(Call("value", answer))

    def words(self, task: str) -> str:
        """Return what the submission wrote as its answer to a task that a person marks; end the part if it wrote nothing."""
        return str(self._asked(Call("words", task)))

    def drive(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function of ours gives that runs beside the submission: `function(theirs, *arguments)`.

        It stands at the top level of the hidden test, imports what it needs in its body, and holds no expected value. `theirs`
        has everything that the submission defines as attributes. For classes, gradients, and functions as arguments.
        """
        source = self._sources.get(function.__name__)
        if source is None:
            raise DataError(f"`{function.__name__}` is not defined at the top level of the hidden test", "hidden", "Move it there.")
        return self._asked(Call("drive", function.__name__, arguments, source, self._next_seed()))

    def kept_its_arguments(self) -> None:
        """Record whether the last call left its arguments as they were."""
        self.that(
            not self._changed,
            "the arguments stay as they were",
            "your function changes its arguments in place; the caller still needs them",
        )

    def named(self, found: Any, wanted: Any, mistakes: Mapping[str, Any], tolerance: float = 1e-5) -> None:
        """End the part with the name of a mistake if `found` is what that mistake gives, and not what is wanted."""
        if _near(found, wanted, tolerance):
            return
        for message, result in mistakes.items():
            if _near(found, result, tolerance):
                self.stop(message)

    def whole(self, low: int, high: int, *shape: int) -> Tensor:
        """Return whole numbers from `low` to `high` - 1, int64."""
        return torch.randint(low, high, shape, generator=self.random)

    def _next_seed(self) -> int:
        return number_from(self._seed, self._part, str(len(self._calls)))

    def _asked(self, call: Call) -> Any:
        if not self._part:
            raise DataError("a call stands outside of every part", "hidden", "Write `with exam.part(name, points):` around it.")
        outcome = self._ask(self._part, len(self._calls), call)
        self._calls.append(call)
        if outcome.problem:
            self.stop(outcome.problem)
        self._changed = outcome.changed
        if outcome.value is ... or (isinstance(outcome.value, tuple) and any(item is ... for item in outcome.value)):
            self._stub("")
        if outcome.value is None:
            self.stop("your function returns None; a `return` is missing")
        return outcome.value

    def _stub(self, what: str) -> NoReturn:
        self.stop("not done yet")
        raise AssertionError  # `stop` raises


def number_from(*words: str) -> int:
    """Return a seed for random numbers, from 0 to 2^63 - 1, that depends on every word.

    >>> number_from("a", "b") == number_from("a", "b") != number_from("ab")
    True
    """
    return int.from_bytes(hashlib.sha256("\0".join(words).encode()).digest()[:8], "big") >> 1


def outcome_of(message: Mapping[str, Any], parts: Sequence[bytes]) -> Outcome:
    """Return what a message of the runner says."""
    if "missing" in message:
        return Outcome(problem=f"there is no `{str(message['missing'])[:100]}`; is it defined under this name, in a cell that runs?")
    if "raised" in message:
        return Outcome(problem=f"your code raises {str(message['raised'])[:500]}")
    try:
        return Outcome(plain.decode(message["returned"], list(parts)), changed=message.get("changed") is True)
    except (plain.NotPlain, KeyError):
        return Outcome(problem="what your function returns cannot be read as plain numbers")


def solution_of(assignment: Assignment) -> SimpleNamespace:
    """Return what our solution of all tasks defines, as attributes."""
    space: dict[str, Any] = {"__name__": "solution"}
    exec(compile(assignment.reference(), f"<solution of {assignment.name}>", "exec"), space)
    return SimpleNamespace(**space)


def written(words: Mapping[str, str], task: str) -> Outcome:
    """Return what became of asking for the words that answer a task, given those of all tasks."""
    return Outcome(words[task]) if words.get(task) else Outcome(problem=f"nothing is written yet in the answer `{task}`")


def rehearse(assignment: Assignment, task: Task, seed: str, solution: SimpleNamespace) -> tuple[Part, ...]:
    """Run a hidden test on our solution; return its parts, each with the calls that it makes.

    Raises:
        DataError: our solution does not get all points, or they are not as many as the task announces.
    """

    words = assignment.model_answers()

    def ask(part: str, number: int, call: Call) -> Outcome:
        return written(words, call.name) if call.kind == "words" else performed(call, vars(solution))

    parts = run(assignment, task, seed, solution, ask, strict=True)
    where = f"{assignment.name}, task {task.name}"
    if failed := [(part.name, line) for part in parts for right, line in part.lines if not right]:
        raise DataError(f"our own solution fails in the part `{failed[0][0]}`: {failed[0][1]}", where, "Mend the solution or the test.")
    if empty := [part.name for part in parts if not part.lines or not part.calls]:
        raise DataError(f"the part `{empty[0]}` looks at nothing", where, "Make a call in it, and record what is right.")
    if sum(part.points for part in parts) != task.points:
        raise DataError(f"its parts have {sum(part.points for part in parts)} points, not {task.points}", where, "Make them agree.")
    return parts


def judge(
    assignment: Assignment,
    task: Task,
    seed: str,
    solution: SimpleNamespace,
    plan: Sequence[Part],
    outcomes: Mapping[str, Sequence[Outcome]],
    words: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Part, ...]:
    """Run a hidden test on saved returns.

    Args:
        plan: what `rehearse` returned for the same seed.
        outcomes: for each part, what became of its calls.
        words: what the submission answers to the tasks that a person marks; it never enters the box.
    """
    calls = {part.name: part.calls for part in plan}

    def ask(part: str, number: int, call: Call) -> Outcome:
        if number >= len(calls[part]) or not call.same_as(calls[part][number]):
            raise DataError(f"the part `{part}` makes calls that depend on what was returned", task.name, "Draw all inputs from the seed.")
        if call.kind == "words":
            return written(words, call.name)
        saved = outcomes.get(part, ())
        return saved[number] if number < len(saved) else Outcome(problem=f"{LOST}: the call was not made")

    return run(assignment, task, seed, solution, ask, strict=False)


def run(assignment: Assignment, task: Task, seed: str, solution: SimpleNamespace, ask: Ask, strict: bool) -> tuple[Part, ...]:
    """Run the hidden test of a task once; return its parts."""
    tree = tree_of(task.hidden)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    sources = {node.name: ast.get_source_segment(task.hidden, node) or "" for node in functions}
    if "hidden" not in sources:
        raise DataError("its hidden test has no function `hidden(exam)`", f"{assignment.name}, task {task.name}", "Write one.")
    space: dict[str, Any] = {"__name__": "hidden"}
    exec(compile(task.hidden, f"<hidden test of {task.name}>", "exec"), space)
    exam = Exam(f"{seed}\0{assignment.name}\0{task.name}", solution, ask, sources, strict)
    with torch.random.fork_rng(devices=[]):
        space["hidden"](exam)
    return tuple(exam.parts)


def performed(call: Call, namespace: dict[str, Any]) -> Outcome:
    """Make a call here, in this process, on what a namespace defines; values pass through plain data as they do elsewhere."""
    coder = plain.Coder()
    message, parts = runner.made(call.message(coder), coder.parts, namespace)
    return outcome_of(message, parts)


def _near(found: Any, wanted: Any, tolerance: float) -> bool:
    try:
        found, wanted = torch.as_tensor(found).detach().double(), torch.as_tensor(wanted).detach().double()
    except (TypeError, ValueError, RuntimeError):
        return False
    return found.shape == wanted.shape and bool(((found - wanted).abs() <= tolerance * (1 + wanted.abs())).all())
