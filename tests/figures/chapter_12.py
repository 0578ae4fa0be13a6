"""The figures of chapter 12, each made twice, from different small data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from divcolor_lib.colorize import Colorizations, Colorizer
from divcolor_lib.cvae import CVAE, CVAEConfig
from divcolor_lib.mdn import MDN, MDNConfig
from divcolor_lib.plots import chapter_12 as figures
from divcolor_lib.runtime import generator


def picture(seed: int, height: int = 12, width: int = 10) -> NDArray[np.uint8]:
    """Noise with a tint."""
    noise = np.random.default_rng(seed).integers(60, 120, (height, width, 3))
    noise[..., seed % 3] += 100
    return noise.astype(np.uint8)


def inference(seed: int) -> Figure:
    torch.manual_seed(seed)
    cvae = CVAE.build(CVAEConfig(latent=2, width=0.1))
    mdn = MDN.build(MDNConfig(inputs=cvae.feature_shape, latent=2, width=0.1, components=3, representatives=4))
    return figures.inference(Colorizer(cvae, mdn), picture(seed, 70 + seed, 90))


def rows(seed: int) -> Figure:
    pictures = [picture(seed + number) for number in range(3)]
    return figures.rows({"some": pictures, "others": pictures[:2]}, {"some": [f"p = 0.{seed + 1}", "b", "c"]})


def results(seed: int) -> Figure:
    pictures = [picture(seed + number) for number in range(3)]
    found = Colorizations(np.stack(pictures[:2]), (0.6, 0.4 - 0.1 * seed), torch.zeros(2, 2, 4, 4), pictures[0])
    return figures.results(pictures[0], pictures[1], pictures[1:], (0.3, 0.7), found, "portrait")


def distinct(seed: int) -> Figure:
    curve = [1.0, 1.5 + 0.2 * seed, 2.0]
    return figures.distinct([1, 2, 4], {"exact": curve, "model": [1.0, 1.4, 1.9]}, [1.0, 1.6, 1.9], 3)


def edge(seed: int) -> Figure:
    step = torch.tensor([10.0 + seed, 10.0 + seed, -10.0, -10.0])
    line = torch.nn.functional.interpolate(step[None, None], size=20, mode="linear")[0, 0]
    return figures.edge(step, line, 1.1 * line)


def gamut(seed: int) -> Figure:
    names = ("clip", "keep")
    off = {name: torch.randn(12, 10, generator=generator(seed)) * number for number, name in enumerate(names)}
    return figures.gamut({name: picture(seed) for name in names}, off, {"clip": 3.0 + seed, "keep": 0.0})


def hinted(seed: int) -> Figure:
    before, after = torch.tensor([0.5, 0.5]), torch.tensor([0.7 + 0.1 * seed, 0.3 - 0.1 * seed])
    return figures.hinted(("red shirt, sky", "blue shirt, sky"), {"before": before, "after": after}, (1, 10), {"exact": (1.0, 0.5)})


def _pair(make: Callable[[int], Figure]) -> tuple[Callable[[], Figure], Callable[[], Figure]]:
    return (lambda: make(0)), (lambda: make(1))


FIGURES = {make.__name__: _pair(make) for make in (inference, rows, results, distinct, edge, gamut, hinted)}
