"""Typical wrong answers to the exercises of chapter 9: what is wrong, the answer, and what the check must say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Encode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Decode = Callable[[Tensor, Tensor], Tensor]


def _film_parts(z: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    return (z @ weight.T + bias)[..., None, None].chunk(2, dim=1)


def _film_without_one(x: Tensor, z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    a, b = _film_parts(z, weight, bias)
    return a * x + b


def _film_exchanged(x: Tensor, z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    b, a = _film_parts(z, weight, bias)
    return (1 + a) * x + b


def _film_interleaved(x: Tensor, z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    raw = (z @ weight.T + bias)[..., None, None]
    return (1 + raw[:, 0::2]) * x + raw[:, 1::2]


def _film_no_bias(x: Tensor, z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    a, b = _film_parts(z, weight, 0 * bias)
    return (1 + a) * x + b


def _norms(f: Tensor, C: Tensor, w: Tensor) -> Tensor:
    return (w * (C - f) ** 2).flatten(1).sum(1)


def _clamped(f: Tensor, C: Tensor, w: Tensor) -> Tensor:
    return _norms(f, C, w).clamp(min=1e-6).sqrt().mean()


def _outer_where_only(f: Tensor, C: Tensor, w: Tensor) -> Tensor:
    sums = _norms(f, C, w)
    return torch.where(sums > 0, sums.sqrt(), torch.zeros_like(sums)).mean()


def _detached(f: Tensor, C: Tensor, w: Tensor) -> Tensor:
    return _norms(f, C, w).sqrt().mean().detach()


def _mahalanobis(e: Tensor, u: Tensor, variances: Tensor, residual: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    scores = e @ u.T
    return ((scores.square() / variances).sum(1) + residual(e, scores @ u)).mean()


def _swap(what: str) -> Callable[[Encode, Decode, Tensor, Tensor], tuple[Tensor, Tensor]]:
    def answer(encode: Encode, decode: Decode, ab: Tensor, gray: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = encode(ab, gray)
        own = (decode(mu, gray) - ab).square().mean()
        moved = mu.roll(1, 0)
        other = {
            "gray": lambda: (decode(moved, gray.roll(1, 0)) - ab).square().mean(),
            "truth": lambda: (decode(moved, gray) - ab.roll(1, 0)).square().mean(),
            "all": lambda: (decode(moved, gray.roll(1, 0)) - ab.roll(1, 0)).square().mean(),
            "backward": lambda: (decode(mu.roll(-1, 0), gray) - ab).square().mean(),
            "nothing": lambda: own,
        }.get(what, lambda: (decode(moved, gray) - ab).square().mean())()
        if what == "logvar":
            own = (decode(logvar, gray) - ab).square().mean()
        return (other, own) if what == "exchanged" else (own, other)

    return answer


WRONG: dict[str, list[tuple[str, Any, str]]] = {
    "film": [
        ("no 1 before the scale", _film_without_one, "the 1 before the scale is missing"),
        ("halves exchanged", _film_exchanged, "the halves are exchanged"),
        ("scales and shifts alternate", _film_interleaved, "alternate"),
        ("no bias", _film_no_bias, "the bias is left out"),
        ("broadcast over the wrong axes", lambda x, z, weight, bias: x + (z @ weight.T + bias).mean(), "it is off by"),
    ],
    "safe_norm": [
        ("a small number under the root", lambda f, C, w: (_norms(f, C, w) + 1e-6).sqrt().mean(), "something was added under the root"),
        ("clamped under the root", _clamped, "something was added under the root"),
        ("as published", lambda f, C, w: _norms(f, C, w).sqrt().mean(), "the root still sees a 0"),
        ("where after the root only", _outer_where_only, "0 times infinity is NaN"),
        ("one root for the batch", lambda f, C, w: _norms(f, C, w).sum().sqrt(), "one root is taken of the whole batch"),
        ("root of the mean", lambda f, C, w: _norms(f, C, w).mean().sqrt(), "it comes before the mean"),
        ("no weights", lambda f, C, w: _norms(f, C, torch.ones_like(w)).sqrt().mean(), "the weights are left out"),
        ("weights squared", lambda f, C, w: _norms(f, C, w**2).sqrt().mean(), "the weights are squared"),
        ("no root", lambda f, C, w: _norms(f, C, w).mean(), "the root is gone"),
        ("detached", _detached, "`detach`"),
    ],
    "mahalanobis": [
        ("no residual", lambda e, u, v: _mahalanobis(e, u, v, lambda e, p: torch.zeros(len(e))), "the residual is missing"),
        ("residual over the largest", lambda e, u, v: _mahalanobis(e, u, v, lambda e, p: (e - p).square().sum(1) / v[0]), "the largest"),
        (
            "residual not divided",
            lambda e, u, v: _mahalanobis(e, u, v, lambda e, p: (e - p).square().sum(1)),
            "not divided by any variance",
        ),
        ("whole error as residual", lambda e, u, v: _mahalanobis(e, u, v, lambda e, p: e.square().sum(1) / v[-1]), "take off what"),
        (
            "divided by the standard deviation",
            lambda e, u, v: _mahalanobis(e, u, v.sqrt(), lambda e, p: (e - p).square().sum(1) / v[-1].sqrt()),
            "divided by the standard deviation",
        ),
        (
            "batch summed",
            lambda e, u, v: len(e) * _mahalanobis(e, u, v, lambda e, p: (e - p).square().sum(1) / v[-1]),
            "the batch is summed",
        ),
    ],
    "implied_variance": [
        ("no batch size", lambda error, batch, factor: factor * error, "the batch size is missing"),
        ("error squared", lambda error, batch, factor: factor * batch * error**2, "the error is squared"),
        ("a factor 1/2", lambda error, batch, factor: 0.5 * factor * batch * error, "a factor 1/2 or 2"),
        ("a factor 2", lambda error, batch, factor: 2 * factor * batch * error, "a factor 1/2 or 2"),
        ("divided by the error", lambda error, batch, factor: factor * batch / error, "a larger error means more noise"),
        ("divided by the batch", lambda error, batch, factor: factor * error / batch, "divided by the batch size"),
        ("a precision", lambda error, batch, factor: 1 / (factor * batch * error), "a precision"),
        ("a standard deviation", lambda error, batch, factor: (factor * batch * error).sqrt(), "the variance is its square"),
    ],
    "swap_test": [
        ("the drawing moves along", _swap("gray"), "the drawing moves along"),
        ("the truth moves along", _swap("truth"), "the truth moves along"),
        ("everything moves", _swap("all"), "everything moves together"),
        ("the other direction", _swap("backward"), "in the other direction"),
        ("nothing is swapped", _swap("nothing"), "nothing is swapped"),
        ("exchanged", _swap("exchanged"), "the two errors are exchanged"),
        ("log variances", _swap("logvar"), "you decode the log variances"),
    ],
}
