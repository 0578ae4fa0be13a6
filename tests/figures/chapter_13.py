"""Each figure of chapter 13 from two sets of data, small and quick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from divcolor_lib.metrics import by_label, reliability
from divcolor_lib.plots import chapter_13 as figures
from divcolor_lib.runtime import generator


def photos(seed: int, count: int) -> list[NDArray[np.uint8]]:
    noise = torch.randn(count, 8, 8, 3, generator=generator(seed))
    return [np.asarray(photo) for photo in (128 + 40 * noise).clamp(0, 255).to(torch.uint8).numpy()]


def rows(shift: float) -> list[dict[str, Any]]:
    return [
        {"name": name, "eob@1": 0.1 + shift, "eob@8": value + shift, "interval": {"eob@8": (value, value + 2 * shift)}}
        for name, value in (("model", 0.02), ("regression", 0.08))
    ]


def truth(seed: int) -> Figure:
    p = torch.rand(3, generator=generator(seed))
    return figures.against_truth(photos(0, 4), [0.4, 0.3, 0.2, 0.1], [0, 1, None, 2], ["red, a", "blue, b", "green, c"], p, p.flip(0))


def score(seed: int) -> Figure:
    said = torch.rand(2, 50, generator=generator(seed))
    curves = {name: reliability(weights, weights > 0.5) for name, weights in zip(("one", "two words"), said)}
    return figures.fooled(curves, {"one": (0.1, 0.2), "two words": (0.3, 0.1 * (seed + 1))})


def covered(width: float) -> Figure:
    bounds = [(0.05, 0.05 + width), (0.061, 0.07), (0.04, 0.055)]
    return figures.coverage({"by image": bounds, "by person": bounds[:2]}, 0.06, {"by image": 0.5, "by person": 0.9})


def proxies(seed: int) -> Figure:
    errors = torch.rand(90, generator=generator(seed))
    facts = {"bands": by_label({"model": errors, "mean field": 2 * errors}, ["012"[i % 3] for i in range(90)], [str(i) for i in range(90)])}
    names = {"lightness": ["dark", "middle", "light"], "angle": ["low", "middle", "high"]}
    return figures.by_proxy({"lightness": facts, "angle": facts}, names, {"model": "the model", "mean field": "the mean field"})


def ablated(shift: float) -> Figure:
    names = [("base", "base", seed) for seed in range(3)] + [("code", "D = 2", 0), ("code", "D = 4", 0), ("rivals", "regression", 0)]
    table: list[dict[str, Any]] = []
    for number, (group, name, seed) in enumerate(names):
        found: dict[str, Any] = {key: 0.1 * number + shift for key in figures.COLUMNS}
        table.append({"group": group, "name": name, "seed": seed, **found})
    table[-1]["recall"] = None
    return figures.ablations(table)


FIGURES: dict[str, tuple[Callable[[], Figure], Callable[[], Figure]]] = {
    "assembled": (
        lambda: figures.assembled(photos(0, 3), ["truth", "noise", "patch\nwork"], [0, 0.1, 0.02]),
        lambda: figures.assembled(photos(0, 3), ["truth", "noise", "patch\nwork"], [0, 0.2, 0.02]),
    ),
    "never_looks": (
        lambda: figures.never_looks(photos(0, 4), ["truth", "fixed 1", "fixed 2", "model"], 1),
        lambda: figures.never_looks(photos(0, 4), ["truth", "fixed 1", "fixed 2", "model"], 2),
    ),
    "more_answers": (
        lambda: figures.more_answers([1, 2, 4], {"flat": [0.2, 0.2, 0.19], "down": [0.2, 0.1, 0.02]}, ("model", 0.03)),
        lambda: figures.more_answers([1, 2, 4], {"flat": [0.2, 0.2, 0.19], "down": [0.2, 0.1, 0.05]}, ("model", 0.03)),
    ),
    "anchor_rows": (lambda: figures.anchor_rows(rows(0.01)), lambda: figures.anchor_rows(rows(0.02))),
    "against_truth": (lambda: truth(0), lambda: truth(1)),
    "fooled": (lambda: score(0), lambda: score(3)),
    "coverage": (lambda: covered(0.02), lambda: covered(0.004)),
    "by_proxy": (lambda: proxies(0), lambda: proxies(1)),
    "ablations": (lambda: ablated(0.1), lambda: ablated(0.2)),
}
