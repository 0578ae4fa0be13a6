"""The machinery of the exercises: what a stub, a right and a wrong answer lead to, and that no wrong answer passes unseen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from divcolor_lib.checks import Trial, Verdict, exercise
from divcolor_lib.errors import DivcolorError, ExerciseError


@exercise
def double_it(trial: Trial, answer: Any) -> None:
    """Twice a vector."""
    x = trial.numbers(5)
    y = trial.call(answer, x)
    trial.same_shape("the result", y, x)
    trial.close(y, x + x, right="it doubles", wrong="off by {difference:.3g}: {found:.3g}, not {wanted:.3g}")


def told(verdict: Verdict) -> str:
    return "\n".join(text for right, text in verdict.lines if not right)


def checked(check: Callable[[Trial, Any], None], answer: Any = None) -> Verdict:
    return exercise(check)(answer, quiet=True)


# What a reader sees


def test_a_right_answer_passes_and_says_what_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    verdict = double_it(lambda x: 2 * x)
    assert verdict and verdict.done
    assert capsys.readouterr().out == "double it\n  right: the result has shape (5,)\n  right: it doubles\nAll 2 checks passed.\n"
    assert repr(verdict) == "Verdict(double_it: right)"


def test_a_wrong_answer_fails_and_the_message_has_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    verdict = double_it(lambda x: 2 * x + torch.tensor([0, 0, 0.25, 0, 0]))
    wanted = 2 * Trial().numbers(5)[2]
    assert verdict.done and not verdict
    assert told(verdict) == f"off by 0.25: {wanted + 0.25:.3g}, not {wanted:.3g}"
    assert capsys.readouterr().out.endswith("1 of 2 checks passed.\n")
    assert repr(verdict) == "Verdict(double_it: wrong)"


def test_the_verdict_prints_nothing_more_as_the_last_value_of_a_cell(capsys: pytest.CaptureFixture[str]) -> None:
    assert double_it(lambda x: 2 * x, quiet=True)._ipython_display_() is None
    assert capsys.readouterr().out == ""


def not_implemented(x: Tensor) -> Tensor:
    raise NotImplementedError


def nothing_yet(x: Tensor) -> Any: ...


@pytest.mark.parametrize("stub", [..., None, lambda x: ..., lambda x: (..., ...), lambda x: (x, ...), not_implemented])
def test_a_stub_is_not_done_yet(stub: Any, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = double_it(stub)
    assert not verdict and not verdict.done
    assert capsys.readouterr().out == "double it\n  not done yet\n"
    assert repr(verdict) == "Verdict(double_it: not done yet)"


def test_with_strict_everything_but_a_right_answer_raises() -> None:
    assert double_it(lambda x: 2 * x, strict=True, quiet=True)
    with pytest.raises(ExerciseError, match="`double_it` did not pass: not done yet"):
        double_it(lambda x: ..., strict=True, quiet=True)
    with pytest.raises(AssertionError, match="`double_it` did not pass: off by") as caught:
        double_it(lambda x: x, strict=True, quiet=True)
    assert isinstance(caught.value, DivcolorError)


def test_a_check_keeps_its_name_and_its_docstring_but_not_its_signature() -> None:
    assert double_it.__name__ == "double_it" and double_it.__doc__ == "Twice a vector."
    assert set(double_it.__annotations__) == {"answer", "strict", "quiet", "return"}
    assert not hasattr(double_it, "__wrapped__")


# Answers that a reader may give


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (3.5, "your answer is a float; pass the function itself"),
        (torch.ones(5), "your answer is a Tensor; pass the function itself"),
        (lambda x: 1 / 0, "your code raises ZeroDivisionError: division by zero"),
        (lambda: 1, "your code raises TypeError"),
        (nothing_yet, "your function returns None; a `return` is missing"),
        (lambda x: x.tolist(), "the result is a list, not a torch tensor"),
        (lambda x: x[:4], r"the result has shape \(4,\); it should be \(5,\)"),
        (lambda x: x.sum(), r"the result has shape \(\); it should be \(5,\)"),
        (lambda x: x.log(), "the result holds NaN or infinity"),
    ],
)
def test_a_mistake_in_form_is_named_and_ends_the_check(answer: Any, message: str) -> None:
    verdict = double_it(answer, quiet=True)
    assert verdict.done and not verdict
    assert not verdict.lines[-1][0]
    with pytest.raises(ExerciseError, match=message):
        double_it(answer, strict=True, quiet=True)


def test_what_is_missing_after_a_right_part_is_no_pass() -> None:
    """An answer that gives `...` only for some inputs, and a second answer that is still a stub, must not pass."""

    def twice(trial: Trial, answer: Any) -> None:
        for x in (torch.ones(2), -torch.ones(2)):
            trial.close(trial.call(answer, x), x.abs(), "right here", "wrong here")

    verdict = checked(twice, lambda x: x if x[0] > 0 else ...)
    assert verdict.done and not verdict and "not all is done yet" in told(verdict)

    def functions(trial: Trial, answer: Any) -> None:
        for function in answer:
            trial.that(trial.call(function) == 1, "one", "not one")

    assert checked(functions, (lambda: 1, lambda: 1))
    for late in (None, ..., not_implemented):
        assert not checked(functions, (lambda: 1, late))


def test_a_result_may_be_zero_or_false_and_is_no_stub() -> None:
    def value(trial: Trial, answer: Any) -> None:
        trial.that(trial.call(answer) == 0, "zero", "not zero")

    assert checked(value, lambda: 0) and checked(value, lambda: False)
    assert not checked(value, ...).done


# What a check can ask


@pytest.mark.parametrize("found", [0.0, 3, torch.tensor(2.0)])
def test_a_number_counts_as_a_tensor_without_dimensions(found: Any) -> None:
    trial = Trial()
    trial.shape("the loss", found, ())
    assert trial.lines == [(True, "the loss has shape ()")]


def test_need_ends_the_check_and_that_goes_on() -> None:
    def needs(trial: Trial, answer: Any) -> None:
        trial.that(torch.tensor(False), "a", "not a")
        trial.need(True, "b", "not b")
        trial.need(False, "c", "not c")
        trial.that(True, "never reached", "")

    assert checked(needs).lines == ((False, "not a"), (True, "b"), (False, "not c"))


@pytest.mark.parametrize(
    ("found", "wanted", "holds"),
    [
        (1.00009, 1.0, True),
        (1.0003, 1.0, False),
        (1000.05, 1000.0, True),
        (0.00009, 0.0, True),
        (torch.nan, 1.0, False),
        (torch.tensor([1.0, torch.nan]), torch.ones(2), False),
        (torch.inf, 1.0, False),
        (torch.ones(3, dtype=torch.float64), torch.ones(3), True),
        (torch.ones(3, dtype=torch.int64), torch.ones(3), True),
        (torch.ones(1, 1), torch.ones(3), True),
        (torch.ones(3, 1), torch.ones(3), False),
        ([1.0, 1.0], torch.ones(2), True),
        (torch.ones(2, requires_grad=True), torch.ones(2), True),
    ],
)
def test_close_compares_within_a_tolerance(found: Any, wanted: Any, holds: bool) -> None:
    trial = Trial()
    assert trial.close(found, wanted, "yes", "no, by {difference}") == holds
    assert trial.lines[0][0] == holds


def test_close_says_when_the_shape_is_wrong_or_nothing_can_be_compared() -> None:
    trial = Trial()
    trial.close(torch.ones(3, 1), torch.ones(3), "", "")
    trial.close("two", torch.ones(3), "", "")
    trial.close(None, 1.0, "", "")
    assert [text for _, text in trial.lines] == [
        "shape (3, 1) where (3,) is due",
        "the result is a str that cannot be read as numbers",
        "the result is a NoneType that cannot be read as numbers",
    ]


def test_close_reports_the_place_of_the_largest_difference() -> None:
    trial = Trial()
    trial.close(torch.tensor([1.0, 5.0, 3.0]), torch.tensor([1.1, 2.0, 3.0]), "", "{difference:.1f} {found:.1f} {wanted:.1f}")
    trial.close(torch.tensor([9.0, torch.nan]), torch.tensor([1.0, 2.0]), "", "{found} {wanted:.1f}")
    assert [text for _, text in trial.lines] == ["3.0 5.0 2.0", "nan 2.0"]


def test_inputs_are_the_same_in_every_run_and_differ_within_one() -> None:
    assert torch.equal(Trial().numbers(3, 2), Trial().numbers(3, 2))
    assert not torch.equal(Trial(1).numbers(4), Trial(2).numbers(4))
    trial = Trial()
    assert not torch.equal(trial.numbers(4), trial.numbers(4))
    spread = trial.uniform(1000, low=-2, high=3)
    assert spread.dtype == torch.float32 and -2 <= spread.min() < -1.9 and 2.9 < spread.max() <= 3


def test_a_check_leaves_the_global_random_numbers_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    double_it(lambda x: 2 * x, quiet=True)
    assert torch.equal(torch.rand(3), wanted)
