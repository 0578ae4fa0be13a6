"""The figures of chapter 2, each made twice from different data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from divcolor_lib.plots import chapter_2 as figures


def _picture(seed: int, size: int = 16) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def _colors(seed: int) -> torch.Tensor:
    return 20 * torch.randn(3, 2, generator=torch.Generator().manual_seed(seed))


def _distances(seed: int) -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {M: torch.pdist(torch.rand(30, M, generator=generator)) for M in (2, 20 + seed)}


ODDS, OTHER_ODDS = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.6, 0.3, 0.1])
WORDS = {"clothes": ["gold", "purple", "red"], "wall": ["sand", "sky", "rose"]}
PICTURES = [_picture(n) for n in range(4)]

FIGURES: dict[str, tuple[Callable[[], Figure], Callable[[], Figure]]] = {
    "expected_losses": (
        lambda: figures.expected_losses((-30.0, 26.0), (27.0, 15.0), 0.6),
        lambda: figures.expected_losses((6.0, -31.0), (27.0, 15.0), 0.3),
    ),
    "colorings": (
        lambda: figures.colorings(PICTURES[0], PICTURES[1:3], [0.7, 0.3], ["red shirt", "blue shirt"], "portrait 1"),
        lambda: figures.colorings(PICTURES[0], PICTURES[1:3], [0.6, 0.4], ["red shirt", "green shirt"], "portrait 2"),
    ),
    "averaged": (
        lambda: figures.averaged({"clothes": _colors(0), "wall": _colors(1)}, WORDS, ODDS),
        lambda: figures.averaged({"clothes": _colors(2), "wall": _colors(3)}, WORDS, OTHER_ODDS),
    ),
    "regression": (
        lambda: figures.regression([1, 5, 10], [3.0, 2.0, 1.2], 1.0, {"step 5": PICTURES[0], "exact mean": PICTURES[1]}),
        lambda: figures.regression([1, 5, 20], [2.5, 1.7, 1.1], 1.0, {"step 5": PICTURES[0], "exact mean": PICTURES[1]}),
    ),
    "answers": (
        lambda: figures.answers({"gray": PICTURES[0], "mean": PICTURES[1]}, [None, -80.0]),
        lambda: figures.answers({"gray": PICTURES[0], "mode": PICTURES[2]}, [None, 0.0]),
    ),
    "two_ways": (
        lambda: figures.two_ways(PICTURES[0], PICTURES[1], PICTURES[2:], [0.7, 0.3], 0.42),
        lambda: figures.two_ways(PICTURES[0], PICTURES[1], PICTURES[2:], [0.5, 0.5], 0.5),
    ),
    "high_dimension": (
        lambda: figures.high_dimension({1: 1.0, 2: 0.6, 3: 0.01}, _distances(0), [1, 10, 100], 0.01, 0.01),
        lambda: figures.high_dimension({1: 1.0, 2: 0.5, 3: 0.02}, _distances(1), [1, 10, 1000], 0.05, 0.02),
    ),
    "few_numbers": (
        lambda: figures.few_numbers([0.3, 0.5, 0.6], 100, {"truth": PICTURES[0], "1 number": PICTURES[1]}, (1, 3)),
        lambda: figures.few_numbers([0.4, 0.6, 0.9], 200, {"truth": PICTURES[0], "1 number": PICTURES[1]}, (1, 2)),
    ),
}
