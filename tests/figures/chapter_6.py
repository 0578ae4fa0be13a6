"""The figures of chapter 6, each made twice, from different small data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from torch import Tensor

from divcolor_lib.plots import chapter_6 as figures
from divcolor_lib.runtime import generator

WALLS = {"rose": (24.0, 2.0), "teal": (-20.0, 2.0)}


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def toy_curve(seed: int) -> Figure:
    points = 10 * numbers(30, 2, seed=seed)
    marks = {-1.0: (-15.0, 1.0 + seed), 1.0: (15.0, -1.0)}
    return figures.toy_curve(points, WALLS, torch.linspace(-20, 20, 50)[:, None].expand(-1, 2), marks)


def training(seed: int) -> Figure:
    climb = torch.linspace(-100, 500 + 10 * seed, 5)
    fall = torch.tensor([0.0, 20.0 + seed, 18.0, 17.0, 16.0])
    names = ("training", "held-out")
    return figures.training([0, 25, 50, 75, 100], {name: climb for name in names}, {name: fall for name in names})


def gallery(seed: int) -> Figure:
    rows = {"real": 0.1 * numbers(3, 2, 16, 16, seed=seed), "made": torch.full((3, 2, 16, 16), 0.1 * (seed + 1))}
    return figures.gallery(rows, gray=torch.zeros(1, 1, 16, 16) if seed else None, labels=["a", "b", "c"], title="fields")


def rate_distortion(seed: int) -> Figure:
    return figures.rate_distortion((0, 1, 10), (70.0, 16.0 + seed, 3.0), (2.0, 4.0, 9.0), (16, 9, 3))


def kl_bars(seed: int) -> Figure:
    cases = {"plain": torch.zeros(4), "warm-up": numbers(4, seed=seed).square()}
    return figures.kl_bars(cases, {"plain": 0, "warm-up": 2}, floor=0.5)


def aggregate(seed: int) -> Figure:
    groups = torch.arange(40) % 2
    return figures.aggregate(numbers(40, 2, seed=seed), groups, list(WALLS), numbers(40, 2, seed=9), torch.tensor([0.3, -0.2]))


def mode_codes(seed: int) -> Figure:
    modes = torch.arange(30) % 2
    scores = 0.2 * numbers(30, 2, seed=seed) + 2 * modes[:, None]
    centers = torch.stack([scores[modes == k].mean(0) for k in range(2)])
    return figures.mode_codes(scores, modes, ["red clothes", "blue clothes"], scores.mean(0), torch.cov(scores.T), centers)


def _pair(make: Callable[[int], Figure]) -> tuple[Callable[[], Figure], Callable[[], Figure]]:
    return lambda: make(0), lambda: make(1)


FIGURES = {make.__name__: _pair(make) for make in (toy_curve, training, gallery, rate_distortion, kl_bars, aggregate, mode_codes)}
