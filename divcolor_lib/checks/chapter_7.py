"""The checks of chapter 7: hierarchical VAEs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from ..autoencoder import HierarchicalVAE
from ..runtime import generator
from . import Trial, exercise


@exercise
def kl_diagonal(trial: Trial, answer: Any) -> None:
    """KL(N(mu, diag sigma^2) || N(m, diag s^2)) of each row, from log variances."""
    mu, logvar, m, log_s = (trial.numbers(6, 3) for _ in range(4))
    found = trial.call(answer, mu, logvar, m, log_s)
    wanted = _kl(mu, logvar, m, log_s)
    if isinstance(found, Tensor) and found.shape == mu.shape:
        trial.stop("you return one number for each dimension; the dimensions of a row add up to one KL, shape (6,)")
    trial.same_shape("the result", found, wanted)
    sigma_read_as_variance = _kl(mu, 0.5 * logvar, m, 0.5 * log_s)
    mistakes = [
        (_kl(m, log_s, mu, logvar), "it looks as if the two Gaussians changed places: the mean is over draws from the first"),
        (2 * wanted, "your values are exactly twice the KL: a factor 1/2 is missing"),
        (sigma_read_as_variance, "it looks as if you used a standard deviation where a variance belongs; `logvar` is log sigma^2"),
        (wanted + 0.5 * mu.shape[1], "it is too large by 1/2 for each dimension: one of the terms is a plain number"),
        (
            wanted + 0.5 * ((mu - m) ** 2 * (1 - (-log_s).exp())).sum(1),
            "the distance of the means must be measured in units of the second Gaussian",
        ),
        (wanted / mu.shape[1], "it looks as if you averaged over the dimensions; the KLs of independent dimensions add"),
    ]
    _name(
        trial,
        found,
        wanted,
        mistakes,
        right="it agrees with torch.distributions",
        wrong="it differs from torch.distributions by {difference:.3g} nats",
    )
    zero = trial.call(answer, mu, logvar, mu, logvar)
    trial.close(zero, torch.zeros(6), "equal Gaussians have no divergence", "two equal Gaussians should give 0; yours give {found:.3g}")
    trial.that(bool((found > 0).all()), "it is never negative", "a KL is never negative; yours is, for some inputs")


@exercise
def ancestral(trial: Trial, answer: Any) -> None:
    """Pictures f(z_1), drawn from the top down."""
    slopes, variances, count = (0.9, -0.6), (0.5, 0.4), 20_000
    model = _linear_chain(slopes, variances)
    rows = trial.call(answer, model, count, generator(1))
    trial.same_shape("the result", rows, torch.zeros(count, 1))
    rows = rows.detach()
    second = slopes[1] ** 2 + variances[1]  # Var(z_2), with z_3 ~ N(0, 1)
    first = slopes[0] ** 2 * second + variances[0]  # Var(z_1)
    # The decoder is f(z) = 2 z + 1, so the variance of f(z_1) is 4 Var(z_1).
    spread = float(rows.var())
    mistakes = {
        4 * 1.0: "these pictures have the spread of decoded draws from N(0, 1): decode z_1, not z_T",
        4 * slopes[0] ** 2 * slopes[1] ** 2: "the pictures vary too little: below the top you pass on the means; every level is a draw",
        4 * second: "one level is missing: the loop ends before level 1",
        4 * (slopes[0] ** 2 * (slopes[1] ** 2 + variances[1] ** 2) + variances[0] ** 2): (
            "it looks as if you multiplied the noise by a variance; it takes a standard deviation"
        ),
        4 * (slopes[0] ** 2 * (slopes[1] ** 2 + math.log(variances[1]) ** 2) + math.log(variances[0]) ** 2): (
            "it looks as if you multiplied the noise by the log variance itself"
        ),
    }
    if abs(spread - 4 * first) > 0.12 * first:
        near = min(mistakes, key=lambda value: abs(spread - value))
        told = mistakes[near] if abs(spread - near) < 0.04 * near else f"their variance is {spread:.2f} where {4 * first:.2f} is due"
        trial.that(False, "", told)
    else:
        trial.that(True, "the pictures of a linear chain of three levels have the right variance", "")
    trial.that(
        abs(float(rows.mean()) - 1) < 0.08,
        "and the right mean",
        f"their mean is {float(rows.mean()):.2f} where 1 is due: is it `decode` that you return?",
    )
    again, other = answer(model, 50, generator(2)), answer(model, 50, generator(3))
    repeated = torch.equal(again, answer(model, 50, generator(2))) and not torch.equal(again, other)
    trial.that(
        repeated,
        "all noise comes from the generator",
        "the same generator should give the same pictures, another one others: pass it to every draw",
    )


@exercise
def exact_levels(trial: Trial, answer: Any) -> None:
    """The exact KLs of both levels of the scalar toy, from the top down."""
    mu1, c, b = trial.numbers(5).double(), trial.numbers(5).double(), trial.numbers(5).double()
    s1, s2, v = (trial.uniform(5, low=0.2, high=1.5).double() for _ in range(3))
    found = trial.call(answer, mu1, s1, c, s2, b, v)
    if not isinstance(found, tuple) or len(found) != 2:
        trial.stop("return two tensors: level 1, level 2")
    first, second = found
    trial.same_shape("level 1", first, mu1)
    trial.same_shape("level 2", second, mu1)
    top_var = c**2 * s1 + s2
    top_kl = _scalar_kl(c * mu1, top_var, torch.zeros(()), torch.ones(()))
    upward_kl = 0.5 * (c**2 * (mu1**2 + s1) + s2 - 1 - s2.log())
    _name(
        trial,
        second,
        top_kl,
        [
            (upward_kl, "level 2 is the mean of KL(q(z_2|z_1) || p(z_2)); the boxed formula has q(z_2|x), with z_1 integrated out"),
            (_scalar_kl(c * mu1, s2, torch.zeros(()), torch.ones(())), "q(z_2|x) is too narrow: the noise of z_1 travels up to z_2, too"),
            (_scalar_kl(torch.zeros(()), torch.ones(()), c * mu1, top_var), "in level 2 prior and posterior have changed places"),
        ],
        right="level 2 is KL(q(z_2|x) || p(z_2))",
        wrong="level 2 differs by {difference:.3g} nats from KL(q(z_2|x) || p(z_2))",
    )
    # By quadrature over z_2, from the joint Gaussian of (z_1, z_2): no formula for the mean of the KL is used.
    nodes, weights = _normal_quadrature()
    z2 = c[:, None] * mu1[:, None] + top_var.sqrt()[:, None] * nodes
    precision = 1 / s1 + c**2 / s2
    back_mean = (mu1 / s1)[:, None] / precision[:, None] + (c / s2)[:, None] * z2 / precision[:, None]
    inner = _scalar_kl(back_mean, (1 / precision)[:, None], b[:, None] * z2, v[:, None])
    wanted = (inner * weights).sum(1)
    trapped = (_scalar_kl(mu1[:, None], s1[:, None], b[:, None] * z2, v[:, None]) * weights).sum(1)
    at_the_mean = _scalar_kl(mu1, 1 / precision, b * c * mu1, v)
    mutual = 0.5 * (top_var / s2).log()
    _name(
        trial,
        first,
        wanted,
        [
            (
                trapped,
                "level 1 averages KL(q(z_1|x) || p(z_1|z_2)) with z_2 held fixed: the trap. Given z_2, z_1 follows the reverse conditional",
            ),
            (at_the_mean, "level 1 is taken at the mean of z_2 only; it needs the average over z_2, whose variance counts"),
            (wanted - mutual, "level 1 is the upward term E[log q(z_1|x) - log p(z_1|z_2)], which is no KL"),
        ],
        right="level 1 is the mean of KL(q(z_1|z_2,x) || p(z_1|z_2))",
        wrong="level 1 differs by {difference:.3g} nats from the mean of KL(q(z_1|z_2,x) || p(z_1|z_2)), by numeric integration",
    )


@exercise
def compose(trial: Trial, answer: Any) -> None:
    """The factor before x and the variance of z_t, for every step of a linear-Gaussian chain."""
    a, v = trial.uniform(6, low=0.4, high=1.3), trial.uniform(6, low=0.1, high=1.0)
    found = trial.call(answer, a, v)
    if not isinstance(found, tuple) or len(found) != 2:
        trial.stop("return two tensors: the factors and the variances")
    factors, variances = found
    trial.same_shape("the factors", factors, a)
    trial.same_shape("the variances", variances, a)
    _name(
        trial,
        factors,
        a.cumprod(0),
        [
            (a, "the factor of one step is not that of all steps so far"),
            (a.cumsum(0), "factors of steps multiply; you add them"),
            (a.square().cumprod(0), "the factors are squared: that is what happens to a variance, not to a mean"),
        ],
        right="the factors of the steps multiply",
        wrong="a factor is {found:.4g} where {wanted:.4g} is due",
    )
    # Independent of any recursion: z_T is linear in x and in every noise, so autograd finds each noise's weight.
    noise = torch.zeros(len(a), requires_grad=True)
    z, wanted = torch.zeros(()), []
    for step in range(len(a)):
        z = a[step] * z + v[step].sqrt() * noise[step]
        (gradient,) = torch.autograd.grad(z, noise, retain_graph=True)
        wanted.append(gradient.square().sum())
    unsquared = torch.zeros(())
    linear = []
    for factor, added in zip(a, v):
        unsquared = factor * unsquared + added
        linear.append(unsquared)
    _name(
        trial,
        variances,
        torch.stack(wanted),
        [
            (v.cumsum(0), "you add up the variances of all steps, but later steps also shrink or stretch the noise of earlier ones"),
            (torch.stack(linear), "a factor a turns a variance into a^2 times that variance; you multiply by a"),
            (v, "this is the noise of the last step alone; that of earlier steps is still there"),
        ],
        right="every step rescales the noise of the steps before it",
        wrong="a variance is {found:.4g} where {wanted:.4g} is due",
    )
    alphas = trial.uniform(5, low=0.3, high=0.95)
    _, diffusion = trial.call(answer, alphas.sqrt(), 1 - alphas)
    trial.close(
        diffusion,
        1 - alphas.cumprod(0),
        "a diffusion chain comes out as it should",
        "for a diffusion chain a variance is {found:.4g}, not {wanted:.4g}",
    )


@exercise
def two_level_weight(trial: Trial, answer: Any) -> None:
    """log p(x, z_1, z_2) - log q(z_1, z_2 | x) at given draws, for each row."""
    model = _small_model()
    x, z1, z2 = trial.numbers(4, 3), trial.numbers(4, 2), trial.numbers(4, 2)
    with torch.no_grad():
        found = trial.call(answer, model, x, z1, z2)
        decoded = _log(x, model.decode(z1), torch.full_like(x, 2 * math.log(model.noise)))
        up_1, up_2 = _log(z1, *model.posterior(1, x)), _log(z2, *model.posterior(2, z1))
        down_1, down_2 = _log(z1, *model.prior(1, z2)), _log(z2, *model.prior(2, None, len(x)))
        trap = _kl(*model.posterior(1, x), *model.prior(1, z2))
        top_kl = _kl(*model.posterior(2, z1), *model.prior(2, None, len(x)))
    trial.same_shape("the result", found, decoded)
    wanted = decoded + down_1 + down_2 - up_1 - up_2
    _name(
        trial,
        found,
        wanted,
        [
            (
                decoded - down_1 - down_2 + up_1 + up_2,
                "prior and posterior are still swapped: a level costs log q - log p, and a cost is subtracted",
            ),
            (decoded - down_1 + up_1 + down_2 - up_2, "level 2 is right, but in level 1 prior and posterior are swapped"),
            (decoded + down_1 - up_1 - down_2 + up_2, "level 1 is right, but in level 2 prior and posterior are swapped"),
            (decoded - trap - top_kl, "you put closed-form KLs where the draws belong; in level 1 that is the trap of this chapter"),
            (decoded - trap - up_2 + down_2, "you put a closed-form KL into level 1, with z_2 held fixed: the trap of this chapter"),
            (-wanted, "the sign of the whole is turned around"),
            (down_1 + down_2 - up_1 - up_2, "the likelihood log p(x|z_1) is missing"),
        ],
        right="it agrees with log p(x, z_1, z_2) - log q(z_1, z_2|x), factor by factor",
        wrong="it differs by {difference:.3g} nats from log p(x, z_1, z_2) - log q(z_1, z_2|x)",
    )
    exact = _linear_chain((0.8,), (0.36,), decoder=(1.0, 0.0), noise=0.5, up=((0.8, 0.2), (0.8, 0.36)))
    rows = trial.numbers(2000, 1)
    with torch.no_grad():
        draws, _ = exact.infer(rows, trial.random)
        evidence = Normal(0.0, 1.25**0.5).log_prob(rows)[:, 0]
        trial.close(
            trial.call(answer, exact, rows, *draws),
            evidence,
            "with the exact encoder every draw gives log p(x)",
            "with the exact encoder every draw should give log p(x); yours is off by {difference:.3g}",
            tolerance=1e-3,
        )


def _name(trial: Trial, found: Tensor, wanted: Tensor, mistakes: list[tuple[Tensor, str]], right: str, wrong: str) -> None:
    """Record whether two tensors agree; where they do not, name the first mistake that gives what was found."""
    found, wanted = found.detach().double(), wanted.detach().double()
    if torch.allclose(found, wanted, rtol=1e-4, atol=1e-4):
        trial.that(True, right, "")
        return
    for would_give, name in mistakes:
        if torch.allclose(found, would_give.detach().double().expand_as(found), rtol=1e-4, atol=1e-4):
            trial.stop(name)
    trial.close(found, wanted, right, wrong)


def _kl(mu: Tensor, logvar: Tensor, prior_mu: Tensor, prior_logvar: Tensor) -> Tensor:
    first = Independent(Normal(mu, (0.5 * logvar).exp()), 1)
    second = Independent(Normal(prior_mu, (0.5 * prior_logvar).exp()), 1)
    return kl_divergence(first, second)


def _log(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    return Normal(mu, (0.5 * logvar).exp()).log_prob(z).sum(1)


def _scalar_kl(mean: Tensor, var: Tensor, prior_mean: Tensor, prior_var: Tensor) -> Tensor:
    return kl_divergence(Normal(mean, var.sqrt()), Normal(prior_mean, prior_var.sqrt()))


def _normal_quadrature() -> tuple[Tensor, Tensor]:
    """Points and weights for means over N(0, 1): a fine grid, whose error is far below the tolerance."""
    nodes = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    weights = Normal(0.0, 1.0).log_prob(nodes).exp()
    return nodes, weights / weights.sum()


def _line(slope: float, offset: float = 0.0, variance: float | None = None) -> nn.Linear:
    """A layer that gives slope * input + offset, and beside it log `variance` if there is one."""
    layer = nn.Linear(1, 1 if variance is None else 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[slope], [0.0]])[: layer.out_features])
        layer.bias.copy_(torch.tensor([offset, math.log(variance or 1.0)])[: layer.out_features])
    return layer


def _linear_chain(
    slopes: tuple[float, ...],
    variances: tuple[float, ...],
    decoder: tuple[float, float] = (2.0, 1.0),
    noise: float = 0.1,
    up: tuple[tuple[float, float], ...] = (),
) -> HierarchicalVAE:
    """A hierarchy of scalar codes: z_t ~ N(slope_t z_{t+1}, variance_t), f(z_1) = decoder[0] z_1 + decoder[1]."""
    model = HierarchicalVAE(1, [1] * (len(slopes) + 1), hidden=1, noise=noise)
    model.down = nn.ModuleList(_line(slope, variance=variance) for slope, variance in zip(slopes, variances))
    model.decoder = nn.Sequential(_line(*decoder))
    if up:
        model.up = nn.ModuleList(_line(slope, variance=variance) for slope, variance in up)
    return model


def _small_model() -> HierarchicalVAE:
    """A two-level model with random weights that do not depend on the global random state."""
    model = HierarchicalVAE(3, [2, 2], hidden=4, noise=0.7)
    random = generator(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=random))
    return model
