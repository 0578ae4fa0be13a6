"""Typical wrong answers to the exercises of chapter 14, with the mistake that the check must name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Loss = Callable[..., Tensor]
State = dict[str, Any]


def _conv(n: int, read: int, made: int, k: int, size: int, stride: int, padding: int) -> int:
    side = (size + 2 * padding - k) // stride + 1
    return 2 * n * read * made * k**2 * side**2


def _half_first(w: Tensor, gradient: Tensor, scale: float, rate: float) -> tuple[Tensor, float]:
    if not torch.isfinite(gradient).all():
        return w, scale / 2
    return w - rate * (gradient / scale), scale


def _only_good(w: Tensor, gradient: Tensor, scale: float, rate: float) -> tuple[Tensor, float]:
    good = torch.isfinite(gradient)
    step = torch.where(good, gradient.float() / scale, 0.0)
    return w - rate * step, scale if good.all() else scale / 2


def _in_place(w: Tensor, gradient: Tensor, scale: float, rate: float) -> tuple[Tensor, float]:
    w -= rate * gradient.float() / scale
    return w, scale


def _kept_scale(w: Tensor, gradient: Tensor, scale: float, rate: float) -> tuple[Tensor, float]:
    return (w - rate * gradient.float() / scale if torch.isfinite(gradient).all() else w), scale


def _as_printed(saved: State, loss_of: Loss, steps: int, rate: float) -> State:
    w, m = saved["w"], torch.zeros_like(saved["m"])
    for t in range(steps):
        w.requires_grad_()
        (g,) = torch.autograd.grad(loss_of(w), w)
        m = 0.9 * m + g
        w = w.detach()
        w -= rate / (1 + t) * m
    return {"w": w, "m": m, "step": saved["step"] + steps}


def _resume(
    saved: State,
    loss_of: Loss,
    steps: int,
    rate: float,
    momentum: bool = True,
    schedule: bool = True,
    copy: bool = True,
    count: bool = True,
) -> State:
    w = saved["w"].clone() if copy else saved["w"]
    m = saved["m"].clone() if momentum else torch.zeros_like(saved["m"])
    start = saved["step"] if schedule else 0
    for t in range(start, start + steps):
        (g,) = torch.autograd.grad(loss_of(v := w.detach().requires_grad_()), v)
        m = 0.9 * m + g
        if copy:
            w = w - rate / (1 + t) * m
        else:
            w -= rate / (1 + t) * m
    return {"w": w, "m": m, "step": saved["step"] + steps if count else steps}


def _combine(n: Tensor, m: Tensor, v: Tensor, weigh: bool = True, between: bool = True, squares: bool = False) -> tuple[Tensor, Tensor]:
    share = (n / n.sum() if weigh else torch.full_like(n, 1 / len(n)))[:, None]
    mean = (share * m).sum(0)
    if squares:
        return mean, (share * (v + m**2)).sum(0) - mean**2
    return mean, (share * (v + ((m - mean) ** 2 if between else 0))).sum(0)


def _accumulated(loss_of: Loss, w: Tensor, batch: Tensor, size: int, weigh: Callable[[list[Tensor], int, int], list[float]]) -> Tensor:
    pieces = list(batch.split(size))
    gradients = [torch.autograd.grad(loss_of(v := w.detach().requires_grad_(), piece), v)[0] for piece in pieces]
    return sum((f * g for f, g in zip(weigh(pieces, len(batch), size), gradients)), torch.zeros_like(w))


def _into_grad(loss_of: Loss, w: Tensor, batch: Tensor, size: int) -> Tensor:
    w.requires_grad_()
    for piece in batch.split(size):
        (loss_of(w, piece) * len(piece) / len(batch)).backward()
    assert w.grad is not None
    return w.grad


WRONG: dict[str, list[tuple[str, Any, str]]] = {
    "conv_operations": [
        ("products alone", lambda *a: _conv(*a) // 2, "products alone"),
        ("pixels read", lambda n, i, o, k, s, t, p: 2 * n * i * o * k**2 * s**2, "picture that is read"),
        ("no stride", lambda n, i, o, k, s, t, p: _conv(n, i, o, k, s, 1, p), "stride is forgotten"),
        ("no batch", lambda n, *a: _conv(1, *a), "batch is forgotten"),
        ("no channels read", lambda n, i, *a: _conv(n, 1, *a), "reads all channels"),
        ("no channels made", lambda n, i, o, *a: _conv(n, i, 1, *a), "channels of the answer"),
        ("flat filter", lambda n, i, o, k, s, t, p: _conv(n, i, o, k, s, t, p) // k, "filter is square"),
        ("whole step", lambda *a: 3 * _conv(*a), "whole training step"),
    ],
    "scaled_step": [
        ("division in float16", _half_first, "convert to float32 first"),
        ("not divided", lambda w, g, s, r: (w - r * g.float(), s), "not divided by the scale"),
        ("no check", lambda w, g, s, r: (w - r * g.float() / s, s), "become infinite or NaN"),
        ("good numbers alone", _only_good, "other weights still move"),
        ("scale kept", _kept_scale, "half of what it was"),
        ("in place", _in_place, "changes `w` in place"),
        ("uphill", lambda w, g, s, r: (w + r * g.float() / s, s), "uphill"),
        ("weights alone", lambda w, g, s, r: w - r * g.float() / s, "return two things"),
    ],
    "resume": [
        ("as printed", _as_printed, "two things start from zero"),
        ("no momentum", lambda *a: _resume(*a, momentum=False), "momentum that was saved is not used"),
        ("schedule again", lambda *a: _resume(*a, schedule=False), "step size starts again"),
        ("in place", lambda *a: _resume(*a, copy=False), "saved state has changed"),
        ("step number", lambda *a: _resume(*a, count=False), "step number is 4"),
        ("weights alone", lambda *a: _resume(*a)["w"], "return a dict"),
    ],
    "combine": [
        ("no spread between", lambda *a: _combine(*a, between=False), "between the parts is missing"),
        ("unweighed", lambda *a: _combine(*a, weigh=False), "count alike in the mean"),
        ("subtraction", lambda *a: _combine(*a, squares=True), "no digits left"),
        ("standard deviation", lambda *a: (_combine(*a)[0], _combine(*a)[1].sqrt()), "standard deviation"),
        ("count minus one", lambda n, m, v: (_combine(n, m, v)[0], _combine(n, m, v)[1] * n.sum() / (n.sum() - 1)), "count minus one"),
    ],
    "accumulated": [
        ("pieces alike", lambda *a: _accumulated(*a, lambda p, n, s: [1 / len(p)] * len(p)), "counts alike"),
        ("sum", lambda *a: _accumulated(*a, lambda p, n, s: [1.0] * len(p)), "the loss is a mean"),
        ("last piece", lambda *a: _accumulated(*a, lambda p, n, s: [0.0] * (len(p) - 1) + [1.0]), "last piece alone"),
        ("nominal size", lambda *a: _accumulated(*a, lambda p, n, s: [s / n] * len(p)), "fewer than `size` rows"),
        ("divided twice", lambda *a: _accumulated(*a, lambda p, n, s: [1 / n] * len(p)), "divided by all rows again"),
        ("all at once", lambda loss, w, b, s: torch.autograd.grad(loss(v := w.detach().requires_grad_(), b), v)[0], "10 rows at once"),
        ("into grad", _into_grad, "have changed"),
    ],
}
