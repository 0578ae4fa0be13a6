"""Each figure of chapter 14 from two sets of data, small and quick."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from divcolor_lib.plots import chapter_14 as figures
from divcolor_lib.runtime import generator


def strip(seed: int, count: int) -> NDArray[np.uint8]:
    noise = torch.randn(count, 16, 12, 3, generator=generator(seed))
    return figures.strip([np.asarray(photo) for photo in (128 + 40 * noise).clamp(0, 255).to(torch.uint8).numpy()], side=8)


def counted(more: float) -> Figure:
    parts = {(part, side): more + side for part in figures.PARTS for side in (4, 8)}
    return figures.operations({"ours": parts, "theirs": {("decoder", 8): 1e9, ("decoder", 0): more}})


def roof(peak: float) -> Figure:
    return figures.roofline({"here": (peak, 1e10), "a card": (1e13, 3e11)}, {"conv": (144.0, peak / 2), "norm": (0.7, 5e9)})


def bits(seed: int) -> Figure:
    sizes = {name: 4 * torch.randn(50, generator=generator(seed)) - shift for name, shift in (("sum", 5), ("mean", 22))}
    return figures.sixteen_bits(sizes, {"sum": 0.0, "mean": 0.1 * (seed + 1)}, {"float32": [0.1, 0.01], "float16": [0.1, 0.05]})


def cut(jump: float) -> Figure:
    whole = [1 / (step + 1) for step in range(12)]
    return figures.resumed(whole, {"everything": whole[6:], "less": [jump + value for value in whole[6:]]}, cut=6)


def training(seed: int) -> Figure:
    noise = torch.randn(3, 2, 2, 8, 8, generator=generator(seed)) / 10
    return figures.live(torch.zeros(2, 1, 8, 8), {10: noise[0], 20: noise[1]}, noise[2], {"cvae": [(10, 5.0), (20, 3.0 - seed)]})


def eight(seed: int) -> Figure:
    noise = torch.randn(9, 2, 8, 8, generator=generator(seed)) / 10
    return figures.eight(torch.zeros(1, 1, 8, 8), {"one model": noise[:8]}, noise[8])


def curves(end: float) -> Figure:
    return figures.recorded_curves(
        {"error": {"ours": ([1, 2], [3.0, end]), "theirs": ([1, 2], [4.0, 3.5])}, "KL": {"ours": ([1, 2], [9, 8])}}
    )


def ablated(shift: float) -> Figure:
    rows = [{"group": "base", "name": "base", "eob@8": 0.05 + 0.001 * seed} for seed in range(3)]
    rows += [{"group": "code", "name": name, "eob@8": value + shift} for name, value in (("D = 4", 0.05), ("D = 64", 0.06))]
    return figures.what_mattered([*rows, {"group": "rivals", "name": "k-means 8", "eob@8": 0.09}])


FIGURES: dict[str, tuple[Callable[[], Figure], Callable[[], Figure]]] = {
    "operations": (lambda: counted(10.0), lambda: counted(1.0)),
    "roofline": (lambda: roof(1e11), lambda: roof(4e11)),
    "sixteen_bits": (lambda: bits(0), lambda: bits(1)),
    "resumed": (lambda: cut(0.1), lambda: cut(0.5)),
    "live": (lambda: training(0), lambda: training(1)),
    "eight": (lambda: eight(0), lambda: eight(1)),
    "strips": (lambda: figures.strips({"eight": strip(0, 9)}), lambda: figures.strips({"three": strip(1, 3)})),
    "recorded_curves": (lambda: curves(2.0), lambda: curves(1.0)),
    "what_mattered": (lambda: ablated(0.0), lambda: ablated(-0.004)),
}
