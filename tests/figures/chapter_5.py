"""Each figure of chapter 5, made from two different data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from torch import Tensor

from divcolor_lib.plots import chapter_5 as figures
from divcolor_lib.runtime import generator


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def _variances(top: float) -> Figure:
    measured = {"one": [top, 2 * top, 4 * top], "two": [1.0, 1.1, 0.9]}
    return figures.variances([1, 2, 4], measured, measured, [1, 4], {"one": [top, top / 2], "two": [1.0, 0.5]}, latent=4)


def _ascents(seed: int) -> Figure:
    paths = {name: numbers(9, 2, seed=seed + index).cumsum(0) / 9 for index, name in enumerate(("first", "second"))}
    return figures.bound_ascents((0.5, -1.0), 3.0, paths, evidence=-2.0)


def _choices(shift: float) -> Figure:
    logits = torch.linspace(-2, 2, 41)
    exact = torch.sigmoid(logits + shift)
    return figures.choices(logits, (logits > torch.tensor([[shift], [3.0]])).float(), exact + 0.01, exact)


def _frozen(seed: int) -> Figure:
    grid = torch.linspace(-1, 1, 9)
    return figures.frozen_noise(grid, grid**2, grid**2 + numbers(9, seed=seed), grid**2 + numbers(2, 1, seed=seed))


FIGURES: dict[str, tuple[Callable[[], Figure], Callable[[], Figure]]] = {
    "graphs": (
        lambda: figures.graphs({"mu": None, "logvar": None}, {"mu": 2.0, "logvar": -1.5}, 1.0),
        lambda: figures.graphs({"mu": 0.0, "logvar": None}, {"mu": 3.0, "logvar": 0.5}, 1.5),
    ),
    "weigh_or_move": (lambda: figures.weigh_or_move(1.0, 1 + numbers(8)), lambda: figures.weigh_or_move(0.5, numbers(8, seed=1))),
    "variances": (lambda: _variances(10.0), lambda: _variances(20.0)),
    "histograms": (
        lambda: figures.histograms({"right": numbers(500), "wide": 2 * numbers(500)}, 0.0, 1.0),
        lambda: figures.histograms({"right": numbers(500, seed=1), "narrow": 0.5 * numbers(500), "third": numbers(500)}, 0.0, 1.0),
    ),
    "frozen_noise": (lambda: _frozen(0), lambda: _frozen(1)),
    "bound_ascents": (lambda: _ascents(0), lambda: _ascents(5)),
    "choices": (lambda: _choices(0.0), lambda: _choices(1.0)),
}
