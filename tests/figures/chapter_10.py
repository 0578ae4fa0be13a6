"""Each figure of chapter 10, made from two different data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Normal

from divcolor_lib.plots import chapter_10 as figures
from divcolor_lib.runtime import generator


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def _bells(z: Tensor, *centers: float) -> Tensor:
    """Equally weighted Gaussians, `(P, K)`."""
    return torch.stack([Normal(c, 0.7).log_prob(z).exp() for c in centers], 1) / len(centers)


def _exchanged(answer: float) -> Figure:
    z = torch.linspace(0, 1, 50)
    return figures.exchanged(z**2, z, {"forward": (z, z**2), "inverse": (z, 0.9 * z)}, 0.25, answer)


def _logarithms(drop: float) -> Figure:
    z = torch.linspace(-3, 3, 61)
    top = -(z**2) / 2
    return figures.three_logarithms(z, {"top": top, "one": top - drop, "other": top - drop * z**2 / 9}, at=0.0)


def _pulls(shift: float) -> Figure:
    z = torch.linspace(-4, 4, 41)
    parts = _bells(z, -1.0, 0.5, 1 + shift)
    return figures.pulls(z, parts, parts / parts.sum(1, keepdim=True), torch.tensor([-1.0, 2.0]), numbers(2, 3, seed=int(shift)))


def _conditionals(center: float) -> Figure:
    g, z = torch.linspace(0, 1, 9), torch.linspace(-2, 2, 41)
    maps = {name: _bells(z, center, -center).sum(1).expand(9, -1) for name in ("truth", "one", "several")}
    return figures.conditionals(g, z, maps, torch.full((9, 2), 0.5), torch.tensor([center, -center]).expand(9, 2), 0.5)


def _fits(center: float) -> Figure:
    z = torch.linspace(-4, 4, 41)
    parts = _bells(z, -1.0, center)
    return figures.fits(z, _bells(z, -1.0, 1.0).sum(1), {"one": parts, "two": parts}, {"one": "weights a", "two": "weights b"})


def _starts(seed: int) -> Figure:
    run = (numbers(4, 2, seed=seed), numbers(4, 2, seed=seed + 1), torch.full((4, 2), 0.3))
    shares = numbers(4, seed=seed).abs() / numbers(4, seed=seed).abs().sum()
    shares[0] = 0
    return figures.starts(numbers(60, 2), {"a": run, "b": run}, {"a": shares, "b": shares}, {"a": 1.0 + seed, "b": 2.0})


def _inactive(slope: float) -> Figure:
    g = torch.linspace(-1, 1, 25)
    weights = torch.stack([torch.sigmoid(slope * g), torch.sigmoid(-slope * g)], 1)
    means = torch.tensor([0.5, -0.5]).expand(25, 2)
    return figures.inactive(g, torch.sigmoid(slope * g), {"fixed": (torch.full((25, 2), 0.5), 0.1 * means), "learned": (weights, means)})


def _heads(seed: int) -> Figure:
    return figures.two_heads(
        numbers(80, 2, seed=seed), numbers(3, 2, seed=seed), torch.full((3, 2), 0.4), torch.tensor([0.5, 0.3, 0.2]), 1 + numbers(3, 2)
    )


FIGURES: dict[str, tuple[Callable[[], Figure], Callable[[], Figure]]] = {
    "exchanged": (lambda: _exchanged(0.3), lambda: _exchanged(0.6)),
    "three_logarithms": (lambda: _logarithms(0.5), lambda: _logarithms(1.0)),
    "pulls": (lambda: _pulls(0.0), lambda: _pulls(1.0)),
    "conditionals": (lambda: _conditionals(0.5), lambda: _conditionals(1.2)),
    "gaps": (
        lambda: figures.gaps([2, 8], {"nearest": [0.9, 0.1], "most": [0.5, 1e-8]}, [0.9, 0.8], 2.08),
        lambda: figures.gaps([2, 8], {"nearest": [0.7, 0.2], "most": [0.4, 1e-3]}, [0.7, 0.7], 1.1),
    ),
    "fits": (lambda: _fits(1.0), lambda: _fits(1.5)),
    "starts": (lambda: _starts(0), lambda: _starts(3)),
    "inactive": (lambda: _inactive(3.0), lambda: _inactive(1.0)),
    "two_heads": (lambda: _heads(0), lambda: _heads(1)),
}
