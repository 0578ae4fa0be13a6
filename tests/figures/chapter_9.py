"""The figures of chapter 9, each made twice, from different small data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from torch import Tensor

from divcolor_lib.plots import chapter_9 as figures
from divcolor_lib.runtime import generator


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def rarity(seed: int) -> Figure:
    picture = figures.on_gray(0.1 * numbers(1, 2, 12, 12, seed=seed))[0]
    weights = numbers(12, 12, seed=seed).exp()
    return figures.rarity(picture, {"1/p": weights.square(), "Zhang": weights}, {"1/p": 0.5 + 0.1 * seed, "Zhang": 0.1})


def verdicts(seed: int) -> Figure:
    pictures = figures.on_gray(0.1 * numbers(3, 2, 8, 8, seed=seed))
    answers = dict(zip(("tinted", "soft\nedge", "speckled"), pictures))
    return figures.verdicts(answers, {"squared error": [2.0, 2.0, 2.0], "gradient": [1e-9, 1.5 + seed, 30.0]}, log=bool(seed))


def root(seed: int) -> Figure:
    sizes = torch.linspace(0.1, 2 + seed, 20)
    return figures.root(sizes, {"root": sizes, "Gaussian": sizes.square() / 2}, {"root": torch.ones(20), "Gaussian": sizes})


def prices(seed: int) -> Figure:
    mu = numbers(4, 1, seed=seed)
    posteriors = {"far": (5 * mu, -6 + 0 * mu), "silent": (0 * mu, 0 * mu)}
    return figures.prices(posteriors, {"far": 12.5 + seed, "silent": 0.0})


def progress(seed: int) -> Figure:
    gray, truth = 0.3 * numbers(3, 1, 12, 12, seed=seed), 0.1 * numbers(3, 2, 12, 12, seed=seed)
    rows = {"ours,\nstep 10": 0.1 * truth, "ours,\nstep 50": 0.9 * truth}
    curves = {"error": {"ours": [9.0, 4.0 + seed], "published": [9.0, 7.0]}, "KL": {"ours": [1.0, 3.0], "published": [0.0, 2.0]}}
    return figures.progress(gray, truth, rows, [10, 50], curves)


def edges(seed: int) -> Figure:
    rows = {"truth": 0.1 * numbers(2, 2, 24, 24, seed=seed), "$g_4$\nalone": 0.05 * numbers(2, 2, 24, 24, seed=seed + 1)}
    return figures.edges(torch.zeros(2, 1, 24, 24), rows, [(2, 3, 8), (5, 0, 8)], {"g_4 alone": (7.0 + seed, 4.0)})


def swapped(seed: int) -> Figure:
    tables = {"ours": 0.1 * numbers(2, 2, 2, 12, 12, seed=seed), "drowned": torch.full((2, 2, 2, 12, 12), 0.05 * seed)}
    return figures.swapped(0.3 * numbers(2, 1, 12, 12), tables, 0.1 * numbers(2, 2, 12, 12, seed=seed))


def _pair(make: Callable[[int], Figure]) -> tuple[Callable[[], Figure], Callable[[], Figure]]:
    return lambda: make(0), lambda: make(1)


FIGURES = {make.__name__: _pair(make) for make in (rarity, verdicts, root, prices, progress, edges, swapped)}
