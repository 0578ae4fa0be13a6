"""Each figure of chapter 8 from two sets of data, small and quick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from divcolor_lib import data
from divcolor_lib.bins import Bins
from divcolor_lib.plots import chapter_8 as figures
from divcolor_lib.runtime import generator

BINS = Bins(np.array([[a, b] for a in range(-20, 30, 10) for b in range(-20, 30, 10)], dtype=np.float32))


def photos(seed: int, count: int, side: int = 16) -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(count)]


def said(seed: int) -> dict[str, Any]:
    images = torch.randint(60, 200, (9, 16, 16, 3), generator=generator(seed)).to(torch.uint8)
    return data.statement(data.Photos(images, [str(n) for n in range(9)], list("aabbbcdef")))


def leaking(rise: float) -> dict[str, list[float]]:
    return {
        "by image": [0.10, 0.11],
        "own person hidden": [0.10 + rise, 0.11 + rise],
        "copied": [0.05, 0.06],
        "copied, own person hidden": [0.09, 0.10],
        "copied from the own person": [0.05, 0.07],
    }


FIGURES: dict[str, tuple[Callable[[], Figure], Callable[[], Figure]]] = {
    "data_statement": (
        lambda: figures.data_statement({"one": said(0), "two": said(1)}),
        lambda: figures.data_statement({"one": said(0), "two": said(2)}),
    ),
    "boxes": (
        lambda: figures.boxes(photos(0, 4), list("abcd"), [60, 50, 40, 30], [20, 10, 0, -40]),
        lambda: figures.boxes(photos(0, 4), list("abcd"), [60, 50, 40, 30], [20, 10, 0, -50]),
    ),
    "exposures": (
        lambda: figures.exposures(photos(0, 2), ["dark", "light"], [-1, 0, 1], {"as it is": [-10, 5, 20], "warm": [-15, 1, 12]}, 9.0),
        lambda: figures.exposures(photos(0, 2), ["dark", "light"], [-1, 0, 1], {"as it is": [-10, 5, 30], "warm": [-15, 1, 12]}, 9.0),
    ),
    "stages": (
        lambda: figures.stages({"slow": {"read": 1.0, "bins": 9.0}, "fast": {"read": 1.0}}),
        lambda: figures.stages({"slow": {"read": 1.0, "bins": 5.0}, "fast": {"read": 1.0}}),
    ),
    "cells": (
        lambda: figures.cells(BINS, [4.7, 5.2], [0, 10], [0, 0], [0, 10]),
        lambda: figures.cells(BINS, [4.7, 5.7], [0, 10], [0, 10], [0, 10]),
    ),
    "copies": (
        lambda: figures.copies(photos(0, 8), [(0.02, 0.1), (0.03, 0.2)]),
        lambda: figures.copies(photos(0, 8), [(0.02, 0.1), (0.03, 0.3)]),
    ),
    "leak": (lambda: figures.leak(leaking(0.01)), lambda: figures.leak(leaking(0.02))),
    "storage": (
        lambda: figures.storage({"bytes": 12_288, "features": 1.6e6}, 12_000, 12e9),
        lambda: figures.storage({"bytes": 12_288, "features": 0.8e6}, 12_000, 12e9),
    ),
}
