"""Self-checking exercises: what is right, what is wrong and why, without giving the answer away.

A check tries an answer on random inputs and on properties that every right answer has. It prints one line for each, returns a
`Verdict`, and raises only with `strict=True`. The checks of a chapter are in the module of its number, `checks.chapter_1`
and so on; here is what they share. A check is written as a function of a `Trial` and the answer:

>>> @exercise
... def double(trial, answer):
...     x = trial.numbers(5)
...     y = trial.call(answer, x)
...     trial.same_shape("the result", y, x)
...     trial.close(y, x + x, right="it doubles", wrong="twice 3 is 6; yours differs by {difference:.3g}")
>>> verdict = double(lambda x: 2 * x)
double
  right: the result has shape (5,)
  right: it doubles
All 2 checks passed.
>>> verdict = double(lambda x: x**2)
double
  right: the result has shape (5,)
  wrong: twice 3 is 6; yours differs by 9.1
1 of 2 checks passed.
>>> verdict = double(lambda x: ...)
double
  not done yet
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ExerciseError
from ..runtime import generator


@dataclass(frozen=True)
class Verdict:
    """What a check found. It is true when everything is right.

    Attributes:
        name: the exercise.
        lines: (whether it is right, what was found) for each thing looked at; empty for an untouched stub.
    """

    name: str
    lines: tuple[tuple[bool, str], ...]

    @property
    def done(self) -> bool:
        """Whether there is an answer at all."""
        return bool(self.lines)

    def __bool__(self) -> bool:
        return self.done and all(right for right, _ in self.lines)

    def __str__(self) -> str:
        told = [f"  {'right' if right else 'wrong'}: {text}" for right, text in self.lines] or ["  not done yet"]
        passed, count = sum(right for right, _ in self.lines), len(self.lines)
        if count:
            told.append(f"All {count} checks passed." if passed == count else f"{passed} of {count} checks passed.")
        return "\n".join([self.name.replace("_", " "), *told])

    def _ipython_display_(self) -> None:
        """Show nothing more as the last value of a cell: the check has printed it."""

    def __repr__(self) -> str:
        return f"Verdict({self.name}: {'right' if self else 'wrong' if self.done else 'not done yet'})"


class _Over(Exception):
    """Nothing further can be looked at."""


class Trial:
    """One run of a check: random inputs, and a record of what was right and wrong.

    `call` runs the answer; every other method records one line and returns whether it is right. Texts may hold
    `{difference}`, the largest absolute difference, and `{found}` and `{wanted}` where that difference is.
    """

    def __init__(self, seed: int = 0) -> None:
        self.random = generator(seed)
        self.lines: list[tuple[bool, str]] = []
        self.untouched = False

    def numbers(self, *shape: int) -> Tensor:
        """Return standard normal numbers, float32."""
        return torch.randn(*shape, generator=self.random)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return numbers spread evenly from `low` to `high`, float32."""
        return low + (high - low) * torch.rand(*shape, generator=self.random)

    def call(self, answer: Any, *arguments: Any) -> Any:
        """Return what the answer gives; end the check if it is a stub, raises, or gives nothing."""
        if answer is ... or answer is None:
            self._stub("the answer")
        if not callable(answer):
            self.stop(f"your answer is a {type(answer).__name__}; pass the function itself, without calling it")
        try:
            result = answer(*arguments)
        except NotImplementedError:
            result = ...
        except Exception as error:
            self.stop(f"your code raises {type(error).__name__}: {error}")
        if result is ... or (isinstance(result, tuple) and any(part is ... for part in result)):
            self._stub("what your function returns")
        if result is None:
            self.stop("your function returns None; a `return` is missing")
        return result

    def _stub(self, what: str) -> None:
        """End the check: nothing was written yet, or, after other lines, a part of the answer is missing."""
        self.untouched = not self.lines
        if self.lines:
            self.stop(f"not all is done yet: {what} is still `...` in one place")
        raise _Over

    def stop(self, wrong: str) -> None:
        """Record a mistake and end the check."""
        self.lines.append((False, wrong))
        raise _Over

    def that(self, condition: bool | Tensor, right: str, wrong: str) -> bool:
        """Record `right` if the condition holds, else `wrong`."""
        holds = bool(condition)
        self.lines.append((holds, right if holds else wrong))
        return holds

    def need(self, condition: bool | Tensor, right: str, wrong: str) -> None:
        """As `that`, and end the check if the condition does not hold: what follows would make no sense."""
        if not self.that(condition, right, wrong):
            raise _Over

    def same_shape(self, what: str, found: Any, wanted: Any) -> None:
        """Need `found` to be a tensor of the shape of the tensor `wanted`, all finite."""
        self.shape(what, found, tuple(torch.as_tensor(wanted).shape))

    def shape(self, what: str, found: Any, shape: tuple[int, ...]) -> None:
        """Need `found` to be a tensor (or, for `()`, a number) of this shape, all finite."""
        if shape == () and isinstance(found, (int, float)):
            found = torch.tensor(float(found))
        if not isinstance(found, Tensor):
            self.stop(f"{what} is a {type(found).__name__}, not a torch tensor")
        self.need(
            tuple(found.shape) == shape,
            f"{what} has shape {_written(shape)}",
            f"{what} has shape {_written(tuple(found.shape))}; it should be {_written(shape)}",
        )
        if not bool(torch.isfinite(found).all()):
            self.stop(f"{what} holds NaN or infinity")

    def close(self, found: Any, wanted: Any, right: str, wrong: str, tolerance: float = 1e-4) -> bool:
        """Record whether all numbers agree within `tolerance` times one plus their size."""
        wanted = torch.as_tensor(wanted).detach().double()
        try:
            found = torch.as_tensor(found).detach().double()
        except (TypeError, ValueError, RuntimeError):
            return self.that(False, right, f"the result is a {type(found).__name__} that cannot be read as numbers")
        if found.shape != wanted.shape:
            found = found.reshape(()).expand(wanted.shape) if found.numel() == 1 else found
        if found.shape != wanted.shape:
            return self.that(False, right, f"shape {_written(tuple(found.shape))} where {_written(tuple(wanted.shape))} is due")
        difference = (found - wanted).abs()
        holds = bool((difference <= tolerance * (1 + wanted.abs())).all())
        if holds:
            return self.that(True, right, "")
        at = int(difference.nan_to_num(nan=torch.inf).argmax())
        facts = {"difference": float(difference.flatten()[at]), "found": float(found.flatten()[at]), "wanted": float(wanted.flatten()[at])}
        return self.that(False, "", wrong.format(**facts))


def exercise(check: Callable[[Trial, Any], None]) -> Callable[..., Verdict]:
    """Make a check of a function `(trial, answer)`: it takes the answer, prints and returns the `Verdict`.

    With `strict=True` the check raises `ExerciseError` unless everything is right; with `quiet=True` it prints nothing.
    """

    @functools.wraps(check)
    def checked(answer: Any, *, strict: bool = False, quiet: bool = False) -> Verdict:
        trial = Trial()
        with contextlib.suppress(_Over):
            check(trial, answer)
        verdict = Verdict(check.__name__, () if trial.untouched else tuple(trial.lines))
        if not quiet:
            print(verdict)
        if strict and not verdict:
            first = next((text for right, text in verdict.lines if not right), "not done yet")
            raise ExerciseError(f"the check `{check.__name__}` did not pass: {first}", todo="Mend the answer and run the cell again.")
        return verdict

    checked.__annotations__ = {"answer": Any, "strict": bool, "quiet": bool, "return": Verdict}
    del checked.__wrapped__
    return checked


def _written(shape: tuple[int, ...]) -> str:
    return str(tuple(shape))
