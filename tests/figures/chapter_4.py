"""Every figure of chapter 4, from two sets of data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from matplotlib.figure import Figure

from divcolor_lib.plots import chapter_4 as figures


def _coin(joint: tuple[float, float]) -> Figure:
    log_joint = torch.tensor(joint).log()
    q = torch.linspace(0.01, 0.99, 99)
    both = torch.stack([1 - q, q], 1)
    elbo = (both * (log_joint - both.log())).sum(1)
    return figures.coin(q, elbo, float(log_joint.logsumexp(0)), joint[1] / sum(joint))


def _naive(step: float) -> Figure:
    return figures.naive_estimates({1: torch.linspace(-0.1, 0.1, 5), 8: torch.linspace(-step, 0, 5)}, draws=10)


def _posterior(correlation: float) -> Figure:
    covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]])
    variances = 1 / torch.linalg.inv(covariance).diag()
    return figures.posterior_and_diagonal(
        {"one": (torch.zeros(2), covariance, variances), "two": (torch.ones(2), torch.eye(2), torch.ones(2))}
    )


def _bound(start: float) -> Figure:
    bounds = {
        "narrow": (torch.tensor([start, -1.0]), torch.tensor([0.1, 0.05])),
        "wide": (torch.tensor([-4.0, -0.8]), torch.tensor([0.1, 0.05])),
    }
    return figures.importance_bound([1, 10], bounds, evidence=-0.5)


def _noise(mse: float) -> Figure:
    noise = torch.logspace(-1.5, 0, 60)
    return figures.noise_curve(noise, mse / (2 * noise**2), 0.5 * (2 * torch.pi * noise**2).log())


def _bernoulli(target: float) -> Figure:
    f = torch.linspace(0.02, 0.98, 97)
    cross = -(target * f.log() + (1 - target) * (1 - f).log())
    logit = f.logit()
    mass = torch.where(logit.abs() < 1e-4, torch.tensor(0.5), (2 * f - 1) / logit)
    return figures.bernoulli(f, mass, target, (f - target).square(), cross)


FIGURES: dict[str, tuple[Callable[[], Figure], Callable[[], Figure]]] = {
    "coin": (lambda: _coin((0.075, 0.225)), lambda: _coin((0.3, 0.2))),
    "naive_estimates": (lambda: _naive(5.0), lambda: _naive(9.0)),
    "jensen": (lambda: figures.jensen(1.0, 4.0), lambda: figures.jensen(0.5, 3.0)),
    "posterior_and_diagonal": (lambda: _posterior(0.8), lambda: _posterior(-0.5)),
    "importance_bound": (lambda: _bound(-2.0), lambda: _bound(-5.0)),
    "noise_curve": (lambda: _noise(0.02), lambda: _noise(0.05)),
    "bernoulli": (lambda: _bernoulli(0.1), lambda: _bernoulli(0.7)),
    "water_levels": (
        lambda: figures.water_levels(torch.tensor([2.0, 1.0, 0.1]), {"beta 1": 0.5, "beta 0.1": 0.05}),
        lambda: figures.water_levels(torch.tensor([2.0, 0.3, 0.1]), {"beta 1": 0.5}),
    ),
}
