"""Typical wrong answers to the exercises of chapter 2: (what is wrong, the answer, what the check says about it)."""

from __future__ import annotations

from typing import Any

import torch


def _mean(probabilities: Any, fields: Any) -> Any:
    return torch.einsum("k,kchw->chw", probabilities, fields)


def _squares(fields: Any) -> Any:
    return fields.square().sum((-1, -2, -3))


def _median_with_old_weights(values: Any, weights: Any) -> Any:
    return values.sort().values[(weights.cumsum(0) >= 0.5).nonzero()[0, 0]]


def _heaviest(values: Any, weights: Any) -> Any:
    return values[weights.argmax()]


WRONG: dict[str, list[tuple[str, Any, str]]] = {
    "posterior_mean": [
        ("plain mean", lambda p, f: f.mean(0), "plain mean"),
        ("the mode", lambda p, f: f[p.argmax()], "the mode, not the mean"),
        ("divides by K", lambda p, f: (p[:, None, None, None] * f).mean(0), "a division too many"),
        ("no sum", lambda p, f: p[:, None, None, None] * f, r"shape \(4, 2, 5, 6\); it should be"),
        ("squared weights", lambda p, f: _mean(p.square() / p.square().sum(), f), "differs from the exact mean"),
    ],
    "error_parts": [
        ("variance from the answer", lambda p, f, a: (p @ _squares(f - a), _squares(_mean(p, f) - a)), "measures from the answer"),
        (
            "mean over the numbers",
            lambda p, f, a: (p @ (f - _mean(p, f)).square().mean((1, 2, 3)), (_mean(p, f) - a).square().mean()),
            "averaged over the numbers",
        ),
        ("no weights", lambda p, f, a: (_squares(f - _mean(p, f)).mean(), _squares(_mean(p, f) - a)), "same weight"),
        ("not squared", lambda p, f, a: (p @ _squares(f - _mean(p, f)), (_mean(p, f) - a).norm()), "not squared"),
        ("one number", lambda p, f, a: p @ _squares(f - a), "two numbers"),
    ],
    "weighted_median": [
        ("mean", lambda v, w: (v * w).sum(), "minimizes the squared error"),
        ("no weights", lambda v, w: v.median(), "without their weights"),
        ("weights not sorted", _median_with_old_weights, "stayed in the old order"),
        ("the heaviest value", _heaviest, "some value has an expected absolute error"),
    ],
    "coherent_probability": [
        ("pairs to a power", lambda p, n: p.square().sum() ** n, "two agree to a power"),
        ("only the mode", lambda p, n: p.max() ** n, "most probable coloring"),
        ("two regions only", lambda p, n: p.square().sum(), "two regions only"),
        ("one region too many", lambda p, n: (p ** (n + 1)).sum(), "counting all cases gives"),
        ("one region too few", lambda p, n: (p ** (n - 1)).sum(), "left out one region"),
    ],
    "components_needed": [
        ("one too few", lambda v, total, share: int((v.cumsum(0) < share * total).sum()), "one too few"),
        ("sum of the listed", lambda v, total, share: int((v.cumsum(0) < share * v.sum()).sum()) + 1, "not listed"),
        (
            "standard deviations",
            lambda v, total, share: int((v.sqrt().cumsum(0) < share * v.sqrt().sum()).sum()) + 1,
            "standard deviations",
        ),
        ("exactly reached", lambda v, total, share: int((v.cumsum(0) <= share * total).sum()) + 1, "holds exactly half"),
    ],
}
