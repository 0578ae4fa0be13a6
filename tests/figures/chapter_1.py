"""Each figure of chapter 1 from two sets of data, small and quick."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from divcolor_lib.bins import Bins
from divcolor_lib.plots import chapter_1 as figures
from divcolor_lib.runtime import generator

TOY = Bins(np.array([[0, 0], [0, 10], [10, 0], [10, 10]]))
CENTERS = TOY.centers.numpy()
P, Q = torch.tensor([0.7, 0.2, 0.06, 0.04]), torch.tensor([0.1, 0.2, 0.3, 0.4])


def photo(seed: int) -> NDArray[np.uint8]:
    return torch.randint(0, 256, (12, 12, 3), generator=generator(seed)).to(torch.uint8).numpy()


def field(seed: int) -> torch.Tensor:
    return 100 * torch.rand(12, 12, generator=generator(seed))


def trip(shift: int) -> Figure:
    before = np.array([[0, 200, 100], [255, 3, 90]], np.uint8)
    after = before.copy()
    after[:, 1] += shift
    return figures.round_trip(before, after, np.array([0, 0, 0, 1, 2, shift]))


FIGURES: dict[str, tuple[Callable[[], Figure], Callable[[], Figure]]] = {
    "directions": (lambda: figures.directions((70, 0, 0), [-40, 0, 40]), lambda: figures.directions((50, 10, 0), [-20, 0, 20])),
    "luma_and_lightness": (
        lambda: figures.luma_and_lightness(photo(0), field(1), field(2), "noise"),
        lambda: figures.luma_and_lightness(photo(0), field(3), field(2), "noise"),
    ),
    "ramps": (
        lambda: figures.ramps({"even": [0, 50, 100], "uneven": [0, 70, 100]}),
        lambda: figures.ramps({"even": [0, 50, 100], "uneven": [0, 80, 100]}),
    ),
    "round_trip": (lambda: trip(9), lambda: trip(20)),
    "mapped": (
        lambda: figures.mapped({"one": photo(0), "two": photo(1)}, {"two": field(0)}, field(0) > 50),
        lambda: figures.mapped({"one": photo(0), "two": photo(1)}, {"two": field(1)}, field(1) > 40),
    ),
    "bins_map": (
        lambda: figures.bins_map({"few": CENTERS[:2], "more": CENTERS}),
        lambda: figures.bins_map({"few": CENTERS[:1], "more": CENTERS[:3]}),
    ),
    "priors": (lambda: figures.priors(TOY, {"A": P, "B": Q}), lambda: figures.priors(TOY, {"A": Q, "B": P})),
    "weights": (
        lambda: figures.weights(P, {"1/p": 1 / P, "even": torch.ones(4)}),
        lambda: figures.weights(Q, {"1/p": 1 / Q, "even": torch.ones(4)}),
    ),
}
