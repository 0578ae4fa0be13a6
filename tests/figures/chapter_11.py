"""The figures of chapter 11, each made twice, from different small data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from divcolor_lib.features import ZhangNet
from divcolor_lib.mdn import MDN, MDNConfig
from divcolor_lib.plots import chapter_11 as figures
from divcolor_lib.runtime import generator


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def code_map(seed: int) -> Figure:
    clothes = ["red", "blue"] * 10
    return figures.code_map(numbers(20, 2, seed=seed), {"clothes": clothes, "wall": ["sand"] * 10 + ["nowhere"] * 10})


def islands(seed: int) -> Figure:
    modes = torch.arange(12) % 3
    points = 0.1 * numbers(12, 2, seed=seed) + modes[:, None]
    panel = figures.Islands(
        gray=np.full((8, 8, 3), 100 + seed, np.uint8),
        points=points,
        modes=modes,
        probabilities=torch.tensor([0.5, 0.25, 0.25]),
        mean=points[0],
        covariance=torch.diag(torch.tensor([0.04, 0.01])),
    )
    return figures.islands(numbers(30, 2, seed=1), [panel, panel])


def fitted(seed: int) -> Figure:
    ticks = torch.linspace(-2, 2, 50)
    densities = {"one": (-((ticks - 1) ** 2)).exp(), "many": (-((ticks + 0.1 * seed) ** 2)).exp()}
    weights = torch.tensor([0.6, 0.39, 0.01])
    return figures.fitted(numbers(20, 2, seed=seed), weights, numbers(3, 2, seed=2), 0.1 * torch.eye(2).expand(3, 2, 2), ticks, densities)


def mdn_network(seed: int) -> Figure:
    config = MDNConfig(inputs=(8, 4, 4), latent=3 + seed, components=2, representatives=3, width=0.1, scale=0.1 if seed else None)
    return figures.mdn_network(MDN.build(config), torch.zeros(1, 8, 4, 4))


class SmallZhang(ZhangNet):
    """Zhang's network with its photograph at 16 pixels, to be drawn quickly."""

    def forward(self, gray: Tensor) -> Tensor:
        x = gray[..., :16, :16]
        for number in range(1, 7):
            x = self.get_submodule(f"model{number}")(x)
        *layers, _ = self.get_submodule("model7").children()
        for layer in layers:
            x = layer(x)
        return x


def zhang_network(seed: int) -> Figure:
    return figures.zhang_network(SmallZhang().eval(), torch.zeros(1, 1, 64, 64 + seed))


def curves(seed: int) -> Figure:
    fall = [3.0, 2.0 + 0.1 * seed, 1.5]
    panels = {"left": {"training": ([1, 2, 3], fall), "validation": ([1, 3], [3.0, 2.0])}, "right": {"training": ([1, 2, 3], fall[::-1])}}
    return figures.curves(panels, {"floor": 1.6}, mark=(2, "first test") if seed else None)


def weights(seed: int) -> Figure:
    return figures.weights({name: numbers(6, 4, seed=seed + k).softmax(1) for k, name in enumerate(("ours", "reference"))})


def _pair(make: Callable[[int], Figure]) -> tuple[Callable[[], Figure], Callable[[], Figure]]:
    return lambda: make(0), lambda: make(3)


FIGURES = {make.__name__: _pair(make) for make in (code_map, islands, fitted, mdn_network, zhang_network, curves, weights)}
