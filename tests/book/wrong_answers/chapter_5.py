"""Typical wrong answers to the exercises of chapter 5: (what, answer, what the message must say)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal

from divcolor_lib.autoencoder import gaussian_log_likelihood, reparameterize
from divcolor_lib.losses import kl_per_dimension

Generator = torch.Generator


def noise(mu: Tensor, generator: Generator) -> Tensor:
    return torch.randn(mu.shape, generator=generator)


def flat(mu: Tensor, generator: Generator) -> Tensor:
    return torch.rand(mu.shape, generator=generator)


def scores(z: Tensor, mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    return (z - mu) / logvar.exp(), ((z - mu) ** 2 / logvar.exp() - 1) / 2


def weighed(values: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
    return tuple((values[:, None] * part).mean(0) for part in parts)


def elbo_with(z: Tensor, x: Tensor, mu: Tensor, logvar: Tensor, W: Tensor, sd: float) -> Tensor:
    return (kl_per_dimension(mu, logvar).sum(1) - gaussian_log_likelihood(x, z @ W.T, sd)).mean()


def without_kl(x: Tensor, mu: Tensor, logvar: Tensor, W: Tensor, sd: float, g: Generator) -> Tensor:
    return -gaussian_log_likelihood(x, reparameterize(mu, logvar, g) @ W.T, sd).mean()


def kl_of_data(x: Tensor, mu: Tensor, logvar: Tensor, W: Tensor, sd: float, g: Generator) -> Tensor:
    return elbo_with(reparameterize(mu, logvar, g), x, mu.data, logvar, W, sd)


WRONG: dict[str, list[tuple[str, Any, str]]] = {
    "draw_code": [
        ("variance", lambda mu, logvar, g: mu + logvar.exp() * noise(mu, g), "sigma squared, the variance"),
        ("root-of-sigma", lambda mu, logvar, g: mu + (0.25 * logvar).exp() * noise(mu, g), "one square root too many"),
        ("one-noise-for-all", lambda mu, logvar, g: mu + (0.5 * logvar).exp() * noise(mu[:1], g), "the same noise"),
        ("detached", lambda mu, logvar, g: (mu + (0.5 * logvar).exp() * noise(mu, g)).detach(), "lost its tie"),
        ("data", lambda mu, logvar, g: mu + (0.5 * logvar.data).exp() * noise(mu, g), "with respect to logvar is off"),
        ("rand", lambda mu, logvar, g: mu + (0.5 * logvar).exp() * flat(mu, g), "`torch.rand` is not"),
        ("scaled-rand", lambda mu, logvar, g: mu + (0.5 * logvar).exp() * (flat(mu, g) - 0.5) * math.sqrt(12), "fourth moment is 1.8"),
        ("no-noise", lambda mu, logvar, g: mu + (0.5 * logvar).exp(), "no noise"),
        ("no-generator", lambda mu, logvar, g: mu + (0.5 * logvar).exp() * torch.randn_like(mu), "not from torch's own"),
        ("one-row", lambda mu, logvar, g: (mu + (0.5 * logvar).exp() * noise(mu, g))[0], "has shape"),
    ],
    "score_function": [
        ("not-divided", lambda z, h, mu, lv: weighed(h, z - mu, scores(z, mu, lv)[1]), "not divided by the variance"),
        (
            "divided-by-sigma",
            lambda z, h, mu, lv: weighed(h, (z - mu) / (lv / 2).exp(), scores(z, mu, lv)[1]),
            "by sigma, not by the variance",
        ),
        (
            "no-constant",
            lambda z, h, mu, lv: weighed(h, scores(z, mu, lv)[0], scores(z, mu, lv)[1] + 0.5),
            "constant of the score is missing",
        ),
        (
            "by-sigma",
            lambda z, h, mu, lv: weighed(h, scores(z, mu, lv)[0], 2 * scores(z, mu, lv)[1] / (lv / 2).exp()),
            "with respect to sigma; one more factor",
        ),
        ("by-log-sigma", lambda z, h, mu, lv: weighed(h, scores(z, mu, lv)[0], 2 * scores(z, mu, lv)[1]), "twice the gradient"),
        ("sum", lambda z, h, mu, lv: tuple(len(z) * part for part in weighed(h, *scores(z, mu, lv))), "sum over the draws"),
        ("sign", lambda z, h, mu, lv: tuple(-part for part in weighed(h, *scores(z, mu, lv))), "sign"),
        ("one-tensor", lambda z, h, mu, lv: weighed(h, *scores(z, mu, lv))[0], "two tensors"),
    ],
    "best_baseline": [
        ("mean", lambda values, s: values.mean(), "plain mean"),
        ("slope", lambda values, s: (values * s).mean() / (s**2).mean(), "slope of the values"),
        ("not-normalized", lambda values, s: (values * s**2).mean(), "weights do not sum to one"),
        ("size", lambda values, s: (values * s.abs()).sum() / s.abs().sum(), "not with its square"),
        ("each-draw", lambda values, s: values * s**2, "has shape"),
    ],
    "triangular": [
        ("uniform", lambda width, u: width * u, "equally likely"),
        ("falling", lambda width, u: width * (1 - (1 - u).sqrt()), "falls from 0"),
        ("not-inverted", lambda width, u: width * u**2, "its inverse"),
        ("detached", lambda width, u: float(width.detach()) * u.sqrt(), "lost its tie"),
        ("no-width", lambda width, u: u.sqrt() + 0 * width, "mean of your draws"),
        ("square-root-of-both", lambda width, u: (width * u).sqrt(), "mean of your draws"),
    ],
    "negative_elbo": [
        (
            "sample",
            lambda x, mu, lv, W, sd, g: elbo_with(reparameterize(mu, lv, g).detach(), x, mu, lv, W, sd),
            "only the KL moves mu",
        ),
        (
            "variance-as-scale",
            lambda x, mu, lv, W, sd, g: elbo_with(mu + lv.exp() * noise(mu, g), x, mu, lv, W, sd),
            "spread by the variance",
        ),
        ("data", kl_of_data, "only the likelihood moves mu"),
        ("no-kl", without_kl, "KL is missing"),
        ("sign", lambda x, mu, lv, W, sd, g: -elbo_with(reparameterize(mu, lv, g), x, mu, lv, W, sd), "this is the ELBO itself"),
        (
            "no-generator",
            lambda x, mu, lv, W, sd, g: elbo_with(Normal(mu, (lv / 2).exp()).rsample(), x, mu, lv, W, sd),
            "take the noise from the generator",
        ),
        (
            "each-row",
            lambda x, mu, lv, W, sd, g: kl_per_dimension(mu, lv).sum(1) - gaussian_log_likelihood(x, reparameterize(mu, lv, g) @ W.T, sd),
            "has shape",
        ),
    ],
}
