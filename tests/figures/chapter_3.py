"""Each figure of chapter 3 from two sets of data, small and quick."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from divcolor_lib.plots import chapter_3 as figures
from divcolor_lib.runtime import generator

POINTS, FACE = figures.person()
UP, RIGHT, FRONT = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def photos(seed: int, count: int) -> list[NDArray[np.uint8]]:
    return [np.asarray(photo) for photo in (128 + 40 * numbers(seed, count, 8, 8, 3)).clamp(0, 255).to(torch.uint8).numpy()]


def plane(seed: int) -> Figure:
    points = numbers(seed, 5, 2)
    values, vectors = torch.linalg.eigh(torch.cov(points.T))
    return figures.five_points(points, vectors.T.flip(0), values.flip(0))


def directions(seed: int) -> Figure:
    rows = torch.nn.functional.normalize(numbers(seed, 4, 32), dim=1)
    return figures.axes_differ(rows[:2], rows[2:], (rows[:2] @ rows[2:].T).abs(), torch.tensor([1.0, float(seed)]))


def bent(seed: int) -> Figure:
    points = numbers(seed, 20, 2)
    return figures.arc(points, points * torch.tensor([1.0, 0.0]), 0.9 * points)


def sizes(factor: float) -> Figure:
    names = ["gray", "truth", "PCA 1", "PCA 2", "PCA 8", "network 1", "network 2", "network 8"]
    return figures.bottleneck([1, 2, 8], [9.0, 5.0, 2.0], [8 * factor, 4.0, 2.5], dict(zip(names, photos(0, 8))))


def plan(seed: int) -> Figure:
    distance = numbers(seed, 6, 5).abs() * 10
    return figures.latent_map(numbers(1, 30, 2), distance, (-2, 2, -3, 3), 5.0, numbers(seed, 4, 2), photos(2, 4), [1.0, 3.0, 20.0, seed])


def tour(seed: int) -> Figure:
    steps = torch.linspace(0, 1, 11)
    return figures.walk(photos(seed, 3), [0, 0.5, 1], steps, 30 * (steps * (1 - steps)) + seed, 10.0)


FIGURES: dict[str, tuple[Callable[[], Figure], Callable[[], Figure]]] = {
    "cameras": (
        lambda: figures.cameras(POINTS, FACE, [("front", RIGHT, UP), ("side", FRONT, UP)]),
        lambda: figures.cameras(POINTS * torch.tensor([0.5, 1.0, 1.0]), FACE, [("front", RIGHT, UP), ("side", FRONT, UP)]),
    ),
    "five_points": (lambda: plane(0), lambda: plane(1)),
    "axes_differ": (lambda: directions(0), lambda: directions(1)),
    "arc": (lambda: bent(0), lambda: bent(1)),
    "bottleneck": (lambda: sizes(1.0), lambda: sizes(1.2)),
    "repaired": (lambda: figures.repaired(photos(0, 8), [10, 9, 3]), lambda: figures.repaired(photos(0, 8), [10, 9, 4])),
    "latent_map": (lambda: plan(0), lambda: plan(7)),
    "walk": (lambda: tour(0), lambda: tour(1)),
}
