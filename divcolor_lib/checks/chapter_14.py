"""The checks of the exercises of chapter 14: counting operations, loss scaling, resuming, shared batch norm and accumulated gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from . import Trial, exercise

Loss = Callable[..., Tensor]


@exercise
def conv_operations(trial: Trial, answer: Any) -> None:
    """From batch, channels in and out, kernel, size, stride and padding to the operations of one forward pass."""
    cases = [(1, 1, 1, 3, 4, 1, 0), (2, 3, 5, 3, 16, 1, 1), (4, 6, 10, 5, 15, 2, 2)]
    for case, what in zip(cases, ("the toy of the chapter", "more channels, a batch and padding", "a stride of 2")):
        batch, read, made, kernel, size, stride, padding = case
        found = trial.call(answer, *case)
        trial.shape(f"the result for {what}", found, ())
        side = (size + 2 * padding - kernel) // stride + 1
        wanted = _counted(*case)
        told = "it should be {wanted:,.0f}; yours is {found:,.0f}"
        for mistake, name in (
            (wanted / 2, "these are the products alone; each is added up as well, which makes two operations"),
            (wanted / side**2 * size**2, "it counts the pixels of the picture that is read; the answer's pixels decide"),
            (
                wanted / side**2 * (size + 2 * padding - kernel + 1) ** 2,
                "the stride is forgotten: only every so many-th place gets an answer",
            ),
            (wanted / batch, "the batch is forgotten"),
            (wanted / read, "each number of the answer reads all channels of the picture; they are missing"),
            (wanted / made, "the channels of the answer are missing"),
            (wanted / kernel, "the filter is square: kernel times kernel numbers for each channel"),
            (3 * wanted, "this is a whole training step; asked for is the forward pass"),
        ):
            told = name if _near(found, mistake) and not _near(wanted, mistake) else told
        trial.close(found, wanted, right=f"{what}: as PyTorch counts", wrong=f"{what}: {told}", tolerance=1e-9)


@exercise
def scaled_step(trial: Trial, answer: Any) -> None:
    """From weights, a float16 gradient of the scaled loss, the scale and a rate to (weights, scale) after one careful step."""
    w, scale, rate = 1e-6 * trial.numbers(6), 2.0**16, 0.5
    gradient = (2e-3 * trial.numbers(6)).half()  # as small as float16 can just hold; divided by the scale it cannot
    kept = w.clone()
    found, after = _pair(trial, trial.call(answer, w, gradient, scale, rate))
    trial.same_shape("the new weights", found, w)
    trial.need(torch.equal(w, kept), right="the old weights are left as they were", wrong="your function changes `w` in place")
    step, wanted = found - kept, -rate * gradient.double() / scale
    told = "the step differs from the right one by {difference:.3g}, in steps of the right size"
    for mistake, name in (
        (torch.zeros(6), "nothing moves. Float16 cannot hold so small a gradient: convert to float32 first, then divide"),
        (wanted * scale, "the step is not divided by the scale"),
        (-wanted, "the weights go uphill"),
        (wanted / rate, "the step size is missing"),
    ):
        told = name if bool((step.double() - mistake).abs().max() < 0.05 * mistake.abs().max() + 1e-9) else told
    size = float(wanted.abs().max())
    trial.close(step.double() / size, wanted / size, right="a finite gradient: one step, unscaled", wrong=told, tolerance=0.05)
    trial.close(
        after,
        scale,
        right="and the scale stays",
        wrong="after a good step the scale is {found:g}; it should stay {wanted:g}",
        tolerance=1e-9,
    )
    for bad, what in ((torch.inf, "an infinite"), (torch.nan, "a NaN")):
        broken = gradient.clone()
        broken[2] = bad
        found, after = _pair(trial, trial.call(answer, w.clone(), broken, scale, rate))
        told = f"with {what} number in the gradient the weights move by " + "{difference:.3g}; the whole step should be skipped"
        if not bool(torch.isfinite(torch.as_tensor(found)).all()):
            told = f"with {what} number in the gradient the weights become infinite or NaN: skip such a step"
        elif not torch.equal(found, kept) and torch.equal(found[2], kept[2]):
            told = f"with {what} number in the gradient the other weights still move; skip the whole step"
        trial.close(found, kept, right=f"{what} gradient: no step", wrong=told, tolerance=0)
        told = "after a skipped step the scale is {found:g}; it should be half of what it was, {wanted:g}"
        trial.close(after, scale / 2, right="and half the scale", wrong=told, tolerance=1e-9)


@exercise
def resume(trial: Trial, answer: Any) -> None:
    """From a saved state of momentum training, a loss, a number of steps and a rate to the state after so many more steps."""
    target, curvature = trial.numbers(4), trial.uniform(4, low=0.2, high=1.0)

    def loss_of(w: Tensor) -> Tensor:
        return (curvature * (w - target).square()).sum()

    saved: dict[str, Any] = {"w": trial.numbers(4), "m": trial.numbers(4), "step": 3}
    before = {"w": saved["w"].clone(), "m": saved["m"].clone()}
    found = trial.call(answer, saved, loss_of, 4, 0.1)
    if not isinstance(found, dict) or set(found) != {"w", "m", "step"}:
        trial.stop("return a dict with `w`, `m` and `step`")
    trial.same_shape("the new `w`", found["w"], before["w"])
    wanted = _momentum(saved_w=before["w"], saved_m=before["m"], start=3, loss_of=loss_of)
    told = "the weights after four more steps are off by {difference:.3g}"
    zero = torch.zeros(4)
    for mistake, name in (
        (_momentum(before["w"], zero, 3, loss_of), "the momentum that was saved is not used: the state is more than the weights"),
        (
            _momentum(before["w"], before["m"], 0, loss_of),
            "the step size starts again at its first value; the step number is part of the state",
        ),
        (_momentum(before["w"], zero, 0, loss_of), "two things start from zero that were saved: look at `m` and at the step size"),
        (_momentum(before["w"], before["m"], 3, loss_of, 3), "one step is missing"),
        (_momentum(before["w"], before["m"], 4, loss_of), "the step number is one ahead"),
    ):
        told = name if _near(found["w"], mistake, 1e-5) else told
    trial.close(found["w"], wanted, right="the weights go on where they were", wrong=told, tolerance=1e-5)
    trial.close(
        found["step"], 7, right="so does the step number", wrong="the step number is {found:g}; three and four more make {wanted:g}"
    )
    untouched = torch.equal(saved["w"].detach(), before["w"]) and torch.equal(saved["m"].detach(), before["m"])
    trial.that(
        untouched and not saved["w"].requires_grad,
        right="the saved state is left as it was",
        wrong="the saved state has changed: who resumes from it a second time gets another run. Work on copies",
    )
    start = {"w": before["w"].clone(), "m": zero, "step": 0}
    halfway = trial.call(answer, start, loss_of, 5, 0.1)
    parts = trial.call(answer, halfway, loss_of, 6, 0.1)
    whole = trial.call(answer, {"w": before["w"].clone(), "m": zero, "step": 0}, loss_of, 11, 0.1)
    trial.close(
        parts["w"],
        whole["w"],
        right="two parts end where one run ends, bit for bit",
        wrong="a run in two parts ends {difference:.3g} away from a run in one",
        tolerance=0,
    )


@exercise
def combine(trial: Trial, answer: Any) -> None:
    """From counts (J,), means (J, C) and variances (J, C) of parts to mean and variance (C,) of everything."""
    sizes = [40, 10, 30]
    for center, what in ((0.0, "three parts of unequal size"), (1000.0, "a mean a thousand times the standard deviation")):
        everything = trial.numbers(80, 5) + torch.arange(80)[:, None] / 40
        everything = everything + center
        parts = everything.double().split(sizes)
        counts = torch.tensor(sizes, dtype=torch.float32)
        means = torch.stack([part.mean(0) for part in parts]).float()
        variances = torch.stack([part.var(0, correction=0) for part in parts]).float()
        mean, variance = _pair(trial, trial.call(answer, counts, means, variances))
        trial.shape("the mean", mean, (5,))
        trial.shape("the variance", variance, (5,))
        share = (counts / counts.sum()).double()[:, None]
        wide, center_of = means.double(), (share * means).sum(0)
        told = "the mean is off by {difference:.3g}"
        if _near(mean, wide.mean(0)):
            told = "all parts count alike in the mean; weigh them by how many numbers they hold"
        trial.close(mean, everything.double().mean(0), right=f"{what}: the mean", wrong=f"{what}: {told}", tolerance=1e-5)
        wanted = everything.double().var(0, correction=0)
        told = "the variance is off by {difference:.3g}"
        if center:
            told += ". Two large numbers are subtracted, and float32 has no digits left for the difference"
        for mistake, name in (
            ((share * variances).sum(0), "it averages the variances; the spread between the parts is missing"),
            (variances.double().mean(0), "it averages the variances; the spread between the parts is missing, and so are the sizes"),
            (
                (variances + (wide - center_of).square()).mean(0),
                "all parts count alike in the variance; weigh them by how many numbers they hold",
            ),
            (everything.double().var(0), "it divides by the count minus one; batch norm divides by the count"),
            (wanted.sqrt(), "it is the standard deviation"),
        ):
            told = name if _near(variance, mistake, 2e-4) else told
        trial.close(variance, wanted, right=f"{what}: the variance", wrong=f"{what}: {told}", tolerance=1e-3 if center else 1e-5)


@exercise
def accumulated(trial: Trial, answer: Any) -> None:
    """From a mean loss, weights, a batch (N, ...) and a size to the gradient of the whole batch, made of pieces."""
    rows, target = trial.numbers(10, 3), trial.numbers(3)
    seen: list[int] = []

    def loss_of(w: Tensor, batch: Tensor) -> Tensor:
        seen.append(len(batch))
        return ((batch @ w - batch @ target) ** 2 + batch[:, 0] ** 3 * w[1]).mean()

    w = trial.numbers(3)
    kept = w.clone()
    found = trial.call(answer, loss_of, w, rows, 4)
    trial.same_shape("the result", found, w)
    trial.need(max(seen) <= 4, right="no more than 4 rows at a time", wrong=f"the loss was called with {max(seen)} rows at once; 4 fit")
    pieces = [_gradient(loss_of, kept, piece) for piece in rows.split(4)]
    whole = _gradient(loss_of, kept, rows)
    told = "it differs from the gradient of the whole batch by {difference:.3g}"
    for mistake, name in (
        (sum(pieces) / 3, "each piece counts alike; the last one has only two rows and should count half as much as the others"),
        (sum(pieces), "the gradients are added up, but the loss is a mean"),
        (pieces[-1], "it is the gradient of the last piece alone"),
        (sum(pieces[:2]) / 2, "the last, smaller piece is left out"),
        (sum(pieces) / 10, "each piece's gradient is already a mean over its rows; it was divided by all rows again"),
        (sum(pieces) * 4 / 10, "the last piece has fewer than `size` rows; weigh it by the rows that it has"),
    ):
        told = name if _near(found, torch.as_tensor(mistake), 1e-5) else told
    trial.close(found, whole, right="4 + 4 + 2 rows: the gradient of all ten", wrong=told, tolerance=1e-5)
    one = trial.call(answer, loss_of, kept.clone(), rows, 10)
    trial.close(one, whole, right="one piece of ten: the same", wrong="with a single piece it is off by {difference:.3g}", tolerance=1e-5)
    trial.that(
        torch.equal(w.detach(), kept) and w.grad is None,
        right="the weights and their `.grad` are left alone",
        wrong="the weights or their `.grad` have changed; asked for is the gradient alone",
    )


def _counted(batch: int, read: int, made: int, kernel: int, size: int, stride: int, padding: int) -> int:
    picture = torch.empty(batch, read, size, size, device="meta")
    weight = torch.empty(made, read, kernel, kernel, device="meta")
    with FlopCounterMode(display=False) as counter:
        F.conv2d(picture, weight, stride=stride, padding=padding)
    return counter.get_total_flops()


def _momentum(saved_w: Tensor, saved_m: Tensor, start: int, loss_of: Loss, steps: int = 4) -> Tensor:
    w, m = saved_w.clone(), saved_m.clone()
    for t in range(start, start + steps):
        m = 0.9 * m + _gradient(loss_of, w)
        w = w - 0.1 / (1 + t) * m
    return w


def _gradient(loss_of: Loss, w: Tensor, *batch: Tensor) -> Tensor:
    w = w.detach().clone().requires_grad_()
    loss_of(w, *batch).backward()
    assert w.grad is not None
    return w.grad


def _pair(trial: Trial, found: Any) -> tuple[Any, Any]:
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        trial.stop("return two things, in the order that the exercise says")
    return found[0], found[1]


def _near(found: Any, mistake: Tensor | float, tolerance: float = 1e-6) -> bool:
    found, mistake = torch.as_tensor(found).detach().double(), torch.as_tensor(mistake).double()
    return found.shape == mistake.shape and bool(((found - mistake).abs() <= tolerance * (1 + mistake.abs())).all())
