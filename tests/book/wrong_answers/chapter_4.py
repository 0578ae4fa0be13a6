"""Typical wrong answers to the exercises of chapter 4, each with the words that name its mistake."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor


def _posterior_without_prior(prior: Tensor, log_likelihood: Tensor) -> Any:
    return log_likelihood.softmax(0), (prior.log() + log_likelihood).logsumexp(0)


def _evidence_without_prior(prior: Tensor, log_likelihood: Tensor) -> Any:
    return (prior.log() + log_likelihood).softmax(0), log_likelihood.logsumexp(0)


def _underflow(prior: Tensor, log_likelihood: Tensor) -> Any:
    joint = prior * log_likelihood.exp()
    return joint / joint.sum(), joint.sum().log()


def _joint(prior: Tensor, log_likelihood: Tensor) -> Any:
    joint = prior * log_likelihood.exp()
    return joint, joint.sum().log()


def _mean_of_log(prior: Tensor, log_likelihood: Tensor) -> Any:
    return (prior.log() + log_likelihood).softmax(0), (prior * log_likelihood).sum()


def _evidence_itself(prior: Tensor, log_likelihood: Tensor) -> Any:
    joint = prior.log() + log_likelihood
    return joint.softmax(0), joint.logsumexp(0).exp()


def _elbo(
    x: Tensor, mean: Tensor, W: Tensor, noise: float, mu: Tensor, logvar: Tensor, spread: float = 1, constant: float = 1, kl: float = 1
) -> Tensor:
    error = (x - mean - mu @ W.T).square().sum(1) + spread * (logvar.exp() * W.square().sum(0)).sum(1)
    divergence = 0.5 * (mu.square() + logvar.exp() - logvar - 1).sum(1)
    return -error / (2 * noise**2) - constant * 0.5 * x.shape[1] * math.log(2 * math.pi * noise**2) - kl * divergence


def _sigma_spread(x: Tensor, mean: Tensor, W: Tensor, noise: float, mu: Tensor, logvar: Tensor) -> Tensor:
    spread = ((0.5 * logvar).exp() * W.square().sum(0)).sum(1)
    return _elbo(x, mean, W, noise, mu, logvar, spread=0) - spread / (2 * noise**2)


def _nll(x: Tensor, mean: Tensor, noise: Tensor) -> Tensor:
    return ((x - mean).square() / (2 * noise**2) + 0.5 * (2 * math.pi * noise**2).log()).sum(1).mean()


def _nll_float(x: Tensor, mean: Tensor, noise: Tensor) -> Tensor:
    return _nll(x, mean, noise.detach())


SCALE = {"sum": lambda n, B: 1 / B, "mean": lambda n, B: 1 / (B * n), "total": lambda n, B: 1.0}


def _beta(reconstruction: str, kl: str, M: int, D: int, B: int) -> float:
    return SCALE[kl](D, B) / SCALE[reconstruction](M, B)


WRONG: dict[str, list[tuple[str, Any, str]]] = {
    "exact_posterior": [
        ("no prior in the posterior", _posterior_without_prior, "left out of the posterior"),
        ("no prior in the evidence", _evidence_without_prior, r"left out of p\(x\)"),
        ("underflow", _underflow, "exp\\(-2000\\) is 0"),
        ("joint", _joint, "does not add up to 1"),
        ("mean of the log", _mean_of_log, "log of the mean"),
        ("evidence itself", _evidence_itself, "its logarithm is asked"),
        ("one result", lambda prior, log_likelihood: prior, "return two things"),
    ],
    "gaussian_kl": [
        (
            "sigma for its square",
            lambda mu, logvar: 0.5 * (mu.square() + (0.5 * logvar).exp() - 0.5 * logvar - 1).sum(1),
            "sigma stands where sigma squared",
        ),
        ("sign", lambda mu, logvar: 0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1), "wrong sign"),
        ("no half", lambda mu, logvar: -(1 + logvar - mu.square() - logvar.exp()).sum(1), "one half is missing"),
        ("mean over dimensions", lambda mu, logvar: -0.5 * (1 + logvar - mu.square() - logvar.exp()).mean(1), "mean over dimensions"),
        ("sum over the batch", lambda mu, logvar: -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(), "one for each row"),
        ("one per dimension", lambda mu, logvar: -0.5 * (1 + logvar - mu.square() - logvar.exp()), "for each dimension"),
        ("no log", lambda mu, logvar: 0.5 * (mu.square() + logvar.exp() - 1).sum(1), "left out"),
        ("detached", lambda mu, logvar: -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1).detach(), "no gradient"),
    ],
    "ppca_elbo": [
        ("mean decoded only", lambda *a: _elbo(*a, spread=0), "decoded only the mean"),
        ("no constant", lambda *a: _elbo(*a, constant=0), "the constant of the Gaussian"),
        ("KL added", lambda *a: _elbo(*a, kl=-1), "has to be subtracted"),
        ("no KL", lambda *a: _elbo(*a, kl=0), "KL were left out"),
        ("sigma in the spread", _sigma_spread, "sigma stands where"),
        ("negative", lambda *a: -_elbo(*a), "negative of the ELBO"),
        ("one number", lambda *a: _elbo(*a).mean(), "one for each row"),
    ],
    "importance_bound": [
        ("mean of the logs", lambda log_w: log_w.mean(0), "mean of the logs"),
        ("sum", lambda log_w: log_w.logsumexp(0), "log S is missing"),
        ("underflow", lambda log_w: log_w.exp().mean(0).log(), "underflows"),
        ("along the rows", lambda log_w: log_w.logsumexp(1) - math.log(log_w.shape[1]), "one number for each draw"),
        ("no log", lambda log_w: log_w.exp().mean(0), "outer logarithm"),
    ],
    "implied_beta": [
        ("upside down", lambda *a: 1 / _beta(*a), "upside down"),
        ("reductions ignored", lambda *a: 1.0, "changed nothing"),
        ("batch ignored", lambda r, k, M, D, B: _beta(r, k, M, D, B) if "total" not in (r, k) else 1.0, "grows with the batch"),
        ("length of the code ignored", lambda r, k, M, D, B: _beta(r, "sum" if k == "mean" else k, M, D, B), "averaging the KL over its D"),
        (
            "reconstruction summed over the batch forgotten",
            lambda r, k, M, D, B: _beta("sum" if r == "total" else r, k, M, D, B),
            "for the pair \\('total'",
        ),
    ],
    "gaussian_nll": [
        ("squared error only", lambda x, m, s: ((x - m).square() / (2 * s**2)).sum(1).mean(), "grow for free"),
        ("no 2 pi", lambda x, m, s: ((x - m).square() / (2 * s**2) + s.log()).sum(1).mean(), "2 pi"),
        ("mean over the row", lambda x, m, s: _nll(x, m, s) / x.shape[1], "add up"),
        ("sum over the batch", lambda x, m, s: _nll(x, m, s) * len(x), "mean over the rows"),
        (
            "sigma for its square",
            lambda x, m, s: ((x - m).square() / (2 * s) + 0.5 * (2 * math.pi * s**2).log()).sum(1).mean(),
            "its square belongs",
        ),
        ("sign", lambda x, m, s: -_nll(x, m, s), "a loss is its negative"),
        ("noise as a float", _nll_float, "no gradient flows to the noise"),
    ],
}
