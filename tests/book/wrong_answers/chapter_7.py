"""Typical wrong answers to the exercises of chapter 7."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

Pair = tuple[Tensor, Tensor]


# --- kl_diagonal ---


def kl(mu: Tensor, logvar: Tensor, m: Tensor, log_s: Tensor) -> Tensor:
    return 0.5 * (log_s - logvar + (logvar.exp() + (mu - m) ** 2) / log_s.exp() - 1)


def kl_swapped(mu: Tensor, logvar: Tensor, m: Tensor, log_s: Tensor) -> Tensor:
    return kl(m, log_s, mu, logvar).sum(1)


def kl_without_half(mu: Tensor, logvar: Tensor, m: Tensor, log_s: Tensor) -> Tensor:
    return 2 * kl(mu, logvar, m, log_s).sum(1)


def kl_sigma(mu: Tensor, logvar: Tensor, m: Tensor, log_s: Tensor) -> Tensor:
    return kl(mu, 0.5 * logvar, m, 0.5 * log_s).sum(1)


def kl_without_one(mu: Tensor, logvar: Tensor, m: Tensor, log_s: Tensor) -> Tensor:
    return (kl(mu, logvar, m, log_s) + 0.5).sum(1)


def kl_bare_distance(mu: Tensor, logvar: Tensor, m: Tensor, log_s: Tensor) -> Tensor:
    return 0.5 * (log_s - logvar + (logvar - log_s).exp() + (mu - m) ** 2 - 1).sum(1)


def kl_not_summed(mu: Tensor, logvar: Tensor, m: Tensor, log_s: Tensor) -> Tensor:
    return kl(mu, logvar, m, log_s)


def kl_averaged(mu: Tensor, logvar: Tensor, m: Tensor, log_s: Tensor) -> Tensor:
    return kl(mu, logvar, m, log_s).mean(1)


# --- ancestral ---


def decode_the_top(model: Any, count: int, generator: torch.Generator) -> Tensor:
    return model.decode(torch.randn(count, model.latents[-1], generator=generator))


def only_means(model: Any, count: int, generator: torch.Generator) -> Tensor:
    z = torch.randn(count, model.latents[-1], generator=generator)
    for level in range(len(model.latents) - 1, 0, -1):
        z, _ = model.prior(level, z)
    return model.decode(z)


def variance_as_sigma(model: Any, count: int, generator: torch.Generator) -> Tensor:
    z = torch.randn(count, model.latents[-1], generator=generator)
    for level in range(len(model.latents) - 1, 0, -1):
        mu, logvar = model.prior(level, z)
        z = mu + logvar.exp() * torch.randn(mu.shape, generator=generator)
    return model.decode(z)


def log_variance_as_sigma(model: Any, count: int, generator: torch.Generator) -> Tensor:
    z = torch.randn(count, model.latents[-1], generator=generator)
    for level in range(len(model.latents) - 1, 0, -1):
        mu, logvar = model.prior(level, z)
        z = mu + logvar * torch.randn(mu.shape, generator=generator)
    return model.decode(z)


def one_level_short(model: Any, count: int, generator: torch.Generator) -> Tensor:
    z = torch.randn(count, model.latents[-1], generator=generator)
    for level in range(len(model.latents) - 1, 1, -1):
        mu, logvar = model.prior(level, z)
        z = mu + (0.5 * logvar).exp() * torch.randn(mu.shape, generator=generator)
    return model.decode(z)


def own_noise(model: Any, count: int, generator: torch.Generator) -> Tensor:
    z = torch.randn(count, model.latents[-1])
    for level in range(len(model.latents) - 1, 0, -1):
        mu, logvar = model.prior(level, z)
        z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
    return model.decode(z)


# --- exact_levels ---


def top(mu1: Tensor, s1: Tensor, c: Tensor, s2: Tensor) -> Tensor:
    var = c**2 * s1 + s2
    return 0.5 * ((c * mu1) ** 2 + var - 1 - var.log())


def exact(mu1: Tensor, s1: Tensor, c: Tensor, s2: Tensor, b: Tensor, v: Tensor) -> Tensor:
    var = c**2 * s1 + s2
    gain = c * s1 / var
    back = s1 - gain * c * s1
    gap = (mu1 - b * c * mu1) ** 2 + (gain - b) ** 2 * var
    return 0.5 * ((v / back).log() + (back + gap) / v - 1)


def the_trap(mu1: Tensor, s1: Tensor, c: Tensor, s2: Tensor, b: Tensor, v: Tensor) -> Pair:
    gap = (mu1 - b * c * mu1) ** 2 + b**2 * (c**2 * s1 + s2)
    return 0.5 * ((v / s1).log() + (s1 + gap) / v - 1), top(mu1, s1, c, s2)


def upward_top(mu1: Tensor, s1: Tensor, c: Tensor, s2: Tensor, b: Tensor, v: Tensor) -> Pair:
    return exact(mu1, s1, c, s2, b, v), 0.5 * (c**2 * (mu1**2 + s1) + s2 - 1 - s2.log())


def narrow_top(mu1: Tensor, s1: Tensor, c: Tensor, s2: Tensor, b: Tensor, v: Tensor) -> Pair:
    return exact(mu1, s1, c, s2, b, v), 0.5 * ((c * mu1) ** 2 + s2 - 1 - s2.log())


def swapped_top(mu1: Tensor, s1: Tensor, c: Tensor, s2: Tensor, b: Tensor, v: Tensor) -> Pair:
    posterior = Normal(c * mu1, (c**2 * s1 + s2).sqrt())
    return exact(mu1, s1, c, s2, b, v), kl_divergence(Normal(torch.zeros(()), torch.ones(())), posterior)


def at_the_mean(mu1: Tensor, s1: Tensor, c: Tensor, s2: Tensor, b: Tensor, v: Tensor) -> Pair:
    back = 1 / (1 / s1 + c**2 / s2)
    return 0.5 * ((v / back).log() + (back + (mu1 - b * c * mu1) ** 2) / v - 1), top(mu1, s1, c, s2)


def upward_level_1(mu1: Tensor, s1: Tensor, c: Tensor, s2: Tensor, b: Tensor, v: Tensor) -> Pair:
    return exact(mu1, s1, c, s2, b, v) - 0.5 * ((c**2 * s1 + s2) / s2).log(), top(mu1, s1, c, s2)


# --- compose ---


def right_variances(a: Tensor, v: Tensor) -> Tensor:
    variances, variance = [], torch.zeros(())
    for factor, added in zip(a, v):
        variance = factor**2 * variance + added
        variances.append(variance)
    return torch.stack(variances)


def variances_added(a: Tensor, v: Tensor) -> Pair:
    return a.cumprod(0), v.cumsum(0)


def variances_unsquared(a: Tensor, v: Tensor) -> Pair:
    variances, variance = [], torch.zeros(())
    for factor, added in zip(a, v):
        variance = factor * variance + added
        variances.append(variance)
    return a.cumprod(0), torch.stack(variances)


def last_noise_only(a: Tensor, v: Tensor) -> Pair:
    return a.cumprod(0), v


def factor_of_one_step(a: Tensor, v: Tensor) -> Pair:
    return a, right_variances(a, v)


def factors_squared(a: Tensor, v: Tensor) -> Pair:
    return a.square().cumprod(0), right_variances(a, v)


# --- two_level_weight ---


def log_normal(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    return Normal(mu, (0.5 * logvar).exp()).log_prob(z).sum(1)


def parts(model: Any, x: Tensor, z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    likelihood = Normal(model.decode(z1), model.noise).log_prob(x).sum(1)
    level_1 = log_normal(z1, *model.posterior(1, x)) - log_normal(z1, *model.prior(1, z2))
    level_2 = log_normal(z2, *model.posterior(2, z1)) - log_normal(z2, *model.prior(2, None, len(x)))
    return likelihood, level_1, level_2


def both_swapped(model: Any, x: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    likelihood, level_1, level_2 = parts(model, x, z1, z2)
    return likelihood + level_1 + level_2


def first_swapped(model: Any, x: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    likelihood, level_1, level_2 = parts(model, x, z1, z2)
    return likelihood + level_1 - level_2


def second_swapped(model: Any, x: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    likelihood, level_1, level_2 = parts(model, x, z1, z2)
    return likelihood - level_1 + level_2


def closed_forms(model: Any, x: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    likelihood, _, _ = parts(model, x, z1, z2)
    level_1 = kl(*model.posterior(1, x), *model.prior(1, z2)).sum(1)
    return likelihood - level_1 - kl(*model.posterior(2, z1), *model.prior(2, None, len(x))).sum(1)


def no_likelihood(model: Any, x: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    _, level_1, level_2 = parts(model, x, z1, z2)
    return -level_1 - level_2


WRONG: dict[str, list[tuple[str, Any, str]]] = {
    "kl_diagonal": [
        ("swapped", kl_swapped, "changed places"),
        ("without half", kl_without_half, "factor 1/2"),
        ("sigma for variance", kl_sigma, "standard deviation where a variance"),
        ("without the one", kl_without_one, "too large by 1/2"),
        ("bare distance", kl_bare_distance, "units of the second"),
        ("not summed", kl_not_summed, "one number for each dimension"),
        ("averaged", kl_averaged, "averaged over the dimensions"),
    ],
    "ancestral": [
        ("decodes the top", decode_the_top, "not z_T"),
        ("only means", only_means, "every level is a draw"),
        ("variance as sigma", variance_as_sigma, "by a variance"),
        ("log variance as sigma", log_variance_as_sigma, "log variance itself"),
        ("one level short", one_level_short, "ends before level 1"),
        ("own noise", own_noise, "pass it to every draw"),
    ],
    "exact_levels": [
        ("the trap", the_trap, "the trap"),
        ("upward top", upward_top, "z_1 integrated out"),
        ("narrow top", narrow_top, "too narrow"),
        ("swapped top", swapped_top, "changed places"),
        ("at the mean", at_the_mean, "average over z_2"),
        ("upward level 1", upward_level_1, "which is no KL"),
    ],
    "compose": [
        ("variances added", variances_added, "shrink or stretch"),
        ("variances unsquared", variances_unsquared, "you multiply by a"),
        ("last noise only", last_noise_only, "last step alone"),
        ("factor of one step", factor_of_one_step, "not that of all steps"),
        ("factors squared", factors_squared, "not to a mean"),
    ],
    "two_level_weight": [
        ("both swapped", both_swapped, "still swapped"),
        ("first swapped", first_swapped, "in level 1 prior and posterior are swapped"),
        ("second swapped", second_swapped, "in level 2 prior and posterior are swapped"),
        ("closed forms", closed_forms, "where the draws belong"),
        ("no likelihood", no_likelihood, "is missing"),
    ],
}
