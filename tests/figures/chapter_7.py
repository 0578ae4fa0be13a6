"""Each figure of chapter 7, twice, from different data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from divcolor_lib.plots import chapter_7 as figures


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(seed: int, count: int) -> list[NDArray[np.uint8]]:
    return [np.random.default_rng(seed + number).integers(0, 256, (8, 8, 3), dtype=np.uint8) for number in range(count)]


def coupling(seed: int, link: float) -> Figure:
    z1 = noise(seed, 80)
    z2 = link * z1 + 0.3 * noise(seed + 1, 80)
    return figures.coupling(torch.stack([z1, z2], 1), torch.stack([noise(seed + 2, 80), z2], 1), slope=0.8)


def colors(seed: int) -> Figure:
    return figures.colors({"true": 20 * noise(seed, 60, 2), "one": 20 * noise(seed + 1, 60, 2), "two": 15 * noise(seed + 2, 60, 2)})


def listening(steepness: float) -> Figure:
    z2, steps = torch.linspace(-2, 2, 41), torch.arange(60.0)
    return figures.listening(
        {"one": 0.01 * steps, "other": steepness * 0.02 * steps}, z2, {"one": 0.1 * z2, "other": torch.tanh(steepness * z2)}
    )


FIGURES: dict[str, tuple[Callable[[], Figure], Callable[[], Figure]]] = {
    "chain": (lambda: figures.chain(3), lambda: figures.chain(2)),
    "coupling": (lambda: coupling(0, 0.7), lambda: coupling(5, 0.4)),
    "colors": (lambda: colors(0), lambda: colors(10)),
    "rows": (
        lambda: figures.rows({"one": pictures(0, 3), "two": pictures(5, 3)}),
        lambda: figures.rows({"one": pictures(9, 4)}, note="A note on it."),
    ),
    "share_map": (lambda: figures.share_map(noise(0, 16, 16).sigmoid()), lambda: figures.share_map(noise(1, 16, 16).sigmoid())),
    "listening": (lambda: listening(1.0), lambda: listening(3.0)),
    "noising": (
        lambda: figures.noising(pictures(0, 3), [1.0, 0.7, 0.2], [0, 2, 5]),
        lambda: figures.noising(pictures(0, 3), [1.0, 0.9, 0.1], [0, 1, 9]),
    ),
}
