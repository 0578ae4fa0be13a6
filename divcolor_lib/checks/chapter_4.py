"""The checks of the exercises of chapter 4: posterior of a coin, Gaussian KL, ELBO, importance weights, reductions, noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from . import Trial, exercise

REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda each: each.sum(1).mean(),
    "mean": lambda each: each.mean(),
    "total": lambda each: each.sum(),
}


@exercise
def exact_posterior(trial: Trial, answer: Any) -> None:
    """From a prior (K,) and log likelihoods (K,) to the posterior (K,) and the log evidence."""
    prior = trial.uniform(4, low=0.1).double()
    prior = prior / prior.sum()
    likelihood = trial.uniform(4, low=0.05, high=0.9).double()
    posterior, log_evidence = _pair(trial, trial.call(answer, prior, likelihood.log()), "the posterior", "log p(x)")
    joint = prior * likelihood
    trial.same_shape("the posterior", posterior, prior)
    trial.shape("log p(x)", log_evidence, ())
    evidence, told = joint.sum(), "log p(x) misses by {difference:.3g}"
    for mistake, name in (
        (joint.sum().item(), "it looks as if you return p(x) itself where its logarithm is asked"),
        (likelihood.log().logsumexp(0).item(), "it looks as if the prior were left out of p(x): each likelihood counts by p(z)"),
        ((prior * likelihood.log()).sum().item(), "it looks as if you took the mean of the log; asked is the log of the mean"),
    ):
        told = name if _near(log_evidence, mistake) else told
    trial.close(log_evidence, evidence.log(), right="log p(x) is the log of the summed joint", wrong=told)
    wrong = "the posterior misses by {difference:.3g}"
    if _near(posterior, likelihood / likelihood.sum()):
        wrong = "it looks as if the prior were left out of the posterior: you only scaled the likelihood"
    elif _near(posterior, joint):
        wrong = "it looks as if you return the joint p(x, z); it does not add up to 1"
    trial.close(posterior, joint / evidence, right="the posterior agrees with Bayes' rule", wrong=wrong)
    tiny = torch.tensor([-2000.0, -2001.0, -2003.0, -2000.5], dtype=torch.float64)
    posterior, log_evidence = _pair(trial, trial.call(answer, prior, tiny), "the posterior", "log p(x)")
    safe = bool(torch.isfinite(torch.as_tensor(posterior)).all()) and math.isfinite(float(log_evidence))
    trial.need(
        safe,
        "a log-likelihood of -2000 gives finite numbers",
        "a log-likelihood of -2000 gives NaN or infinity: exp(-2000) is 0 in float64; stay in logarithms to the end",
    )
    relative = torch.exp(tiny - tiny.max()) * prior
    trial.close(
        posterior, relative / relative.sum(), right="and the right posterior", wrong="at -2000 the posterior misses by {difference:.3g}"
    )


@exercise
def gaussian_kl(trial: Trial, answer: Any) -> None:
    """From mu and logvar, both (N, D), to the KL from N(0, I) of each row, (N,), in nats."""
    mu, logvar = trial.numbers(5, 3), trial.numbers(5, 3)
    found = trial.call(answer, mu, logvar)
    if isinstance(found, Tensor) and found.shape == ():
        trial.stop("the result is one number; give one for each row, and leave sums and means over the batch to the caller")
    if isinstance(found, Tensor) and found.shape == mu.shape:
        trial.stop("the result has one number for each dimension; the KL of a row is a sum over its dimensions")
    trial.shape("the result", found, (5,))
    sigma = (0.5 * logvar).exp()
    wanted = _torch_kl(mu, logvar)
    inner = 1 + logvar - mu.square() - logvar.exp()
    told = "against torch.distributions it misses by {difference:.3g}"
    for mistake, name in (
        (0.5 * (mu.square() + sigma - sigma.log() - 1).sum(1), "it looks as if sigma stands where sigma squared belongs"),
        (0.5 * (mu.square() + logvar - logvar.log().nan_to_num() - 1).sum(1), "it looks as if logvar stands where its exp belongs"),
        (0.5 * inner.sum(1), "it is the right number with the wrong sign: a KL is never negative"),
        (-inner.sum(1), "it is twice too large: the factor one half is missing"),
        (-0.5 * inner.mean(1), "it looks as if you took the mean over dimensions; the KL of a product is the sum"),
        (0.5 * (mu.square() + logvar.exp() - 1).sum(1), "it looks as if log sigma squared were left out"),
    ):
        told = name if _near(found, mistake) else told
    trial.close(found, wanted, right="it agrees with torch.distributions on random rows", wrong=told)
    trial.close(
        trial.call(answer, torch.zeros(2, 4), torch.zeros(2, 4)),
        torch.zeros(2),
        right="it is 0 where q is the prior",
        wrong="where q is the prior (mu 0, logvar 0) it gives {found:.3g} and should give 0",
    )
    mu, logvar = mu.requires_grad_(), logvar.requires_grad_()
    result = trial.call(answer, mu, logvar)
    if not result.requires_grad:
        trial.stop("no gradient flows to mu and logvar; do not leave torch, and do not detach")
    slopes = torch.autograd.grad(result.sum(), (mu, logvar), allow_unused=True)
    wanted_slopes = torch.autograd.grad(_torch_kl(mu, logvar).sum(), (mu, logvar))
    trial.that(
        all(slope is not None and _near(slope, other) for slope, other in zip(slopes, wanted_slopes)),
        "its gradients are right",
        "its gradients with respect to mu and logvar differ from those of torch.distributions",
    )


@exercise
def ppca_elbo(trial: Trial, answer: Any) -> None:
    """From rows x, the model (mean, W, noise) and a diagonal guess (mu, logvar) to the ELBO of each row, (N,), in nats."""
    rows, length, latent, noise = 6, 4, 2, 0.4
    W, mean = trial.numbers(length, latent).double(), trial.numbers(length).double()
    x, mu = trial.numbers(rows, length).double(), trial.numbers(rows, latent).double()
    logvar = 0.5 * trial.numbers(rows, latent).double() - 1
    found = trial.call(answer, x, mean, W, noise, mu, logvar)
    if isinstance(found, Tensor) and found.shape == ():
        trial.stop("the result is one number; give one for each row")
    trial.shape("the result", found, (rows,))
    marginal = MultivariateNormal(mean, W @ W.T + noise**2 * torch.eye(length, dtype=torch.float64))
    covariance = torch.linalg.inv(torch.eye(latent, dtype=torch.float64) + W.T @ W / noise**2)
    centers = (x - mean) @ W @ covariance / noise**2
    posterior = MultivariateNormal(centers, covariance)
    gap = kl_divergence(MultivariateNormal(mu, torch.diag_embed(logvar.exp())), posterior)
    wanted = marginal.log_prob(x) - gap
    spread = (logvar.exp() * W.square().sum(0)).sum(1) / (2 * noise**2)
    constant = 0.5 * length * math.log(2 * math.pi * noise**2)
    kl = _torch_kl(mu, logvar)
    sigma_spread = ((0.5 * logvar).exp() * W.square().sum(0)).sum(1) / (2 * noise**2)
    told = "log p(x) minus the KL to the true posterior differs from it by {difference:.3g}"
    for mistake, name in (
        (wanted + spread, "it looks as if you decoded only the mean mu: the spread of q costs squared error too"),
        (wanted + constant, "it looks as if the constant of the Gaussian, with log(2 pi sigma_x^2), were left out"),
        (wanted + 2 * kl, "it looks as if the KL were added: it has to be subtracted"),
        (wanted + kl, "it looks as if the KL were left out: you return the reconstruction term only"),
        (wanted + spread - sigma_spread, "it looks as if sigma stands where sigma squared belongs, in the spread of q"),
        (-wanted, "it is the negative of the ELBO; a bound from below is asked"),
    ):
        told = name if _near(found, mistake) else told
    trial.close(found, wanted, right="ELBO + KL(q || p(z|x)) is log p(x), on random rows", wrong=told, tolerance=1e-5)
    best = trial.call(answer, x, mean, W, noise, centers, -torch.linalg.inv(covariance).diagonal().log().expand(rows, latent))
    trial.that(
        bool((torch.as_tensor(best) >= found - 1e-9).all()) and bool((torch.as_tensor(best) <= marginal.log_prob(x) + 1e-9).all()),
        "at the best diagonal q it is higher, and still below log p(x)",
        "at the best diagonal q it should be higher than elsewhere and below log p(x)",
    )


@exercise
def importance_bound(trial: Trial, answer: Any) -> None:
    """From log weights (S, N) to the importance-weighted bound of each row, (N,)."""
    log_w = 2 * trial.numbers(7, 4).double() - 3
    found = trial.call(answer, log_w)
    if isinstance(found, Tensor) and tuple(found.shape) == (7,):
        trial.stop("the result has one number for each draw: the draws lie along dimension 0, the rows along dimension 1")
    trial.shape("the result", found, (4,))
    wanted = log_w.exp().mean(0).log()
    told = "it misses by {difference:.3g}"
    for mistake, name in (
        (log_w.mean(0), "it looks as if you took the mean of the logs: that is the plain ELBO, and more draws do not raise it"),
        (wanted + math.log(7), "it looks as if the weights were summed and not averaged: log S is missing"),
        (wanted.exp(), "it looks as if the outer logarithm were missing"),
        (wanted - math.log(7), "it looks as if log S were subtracted twice"),
    ):
        told = name if _near(found, mistake) else told
    trial.close(found, wanted, right="it is the log of the mean weight", wrong=told)
    low = trial.call(answer, log_w - 5000)
    trial.need(
        bool(torch.isfinite(torch.as_tensor(low)).all()),
        "log weights of -5000 give finite numbers",
        "log weights of -5000 give {}: exp underflows to 0; subtract the largest first, or use a function that does".format(
            "minus infinity" if bool(torch.isneginf(torch.as_tensor(low)).any()) else "no finite number"
        ),
    )
    trial.close(low, wanted - 5000, right="and the right ones", wrong="at -5000 it is off by {difference:.3g}", tolerance=1e-8)
    one = trial.call(answer, log_w[:1])
    trial.close(one, log_w[0], right="with one draw it is that draw's log weight", wrong="with one draw it differs by {difference:.3g}")


@exercise
def implied_beta(trial: Trial, answer: Any) -> None:
    """From how reconstruction and KL are reduced, and M, D and B, to the beta that the loss implies."""
    B, M, D = 4, 10, 3
    first = trial.call(answer, "sum", "sum", M, D, B)
    trial.shape("the result", first, ())
    found = {(r, k): float(trial.call(answer, r, k, M, D, B)) for r, k in product(REDUCTIONS, REDUCTIONS)}
    wanted = {pair: _measured_beta(trial, *pair, M, D, B) for pair in found}
    trial.close(
        found["sum", "sum"], 1.0, right="both summed for each image: beta 1", wrong="both summed for each image give {found:.4g}, not 1"
    )
    ratio = {pair: found[pair] / wanted[pair] for pair in found}
    told = "mean, sum: you say {found:.4g}, the gradients say {wanted:.4g}"
    if abs(found["mean", "sum"] * M - 1) < 1e-6:
        told = "mean, sum: yours is upside down; dividing the reconstruction by M makes the KL weigh more, not less"
    elif abs(found["mean", "sum"] - 1) < 1e-6:
        told = "mean, sum: you say 1, as if averaging the reconstruction over its M numbers changed nothing"
    trial.close(found["mean", "sum"], wanted["mean", "sum"], right="reconstruction averaged over M: right", wrong=told)
    told = "sum, mean: you say {found:.4g}, the gradients say {wanted:.4g}"
    if abs(found["sum", "mean"] - 1) < 1e-6:
        told = "sum, mean: you say 1, as if averaging the KL over its D numbers changed nothing"
    trial.close(found["sum", "mean"], wanted["sum", "mean"], right="KL averaged over D: right", wrong=told)
    told = "sum, total: you say {found:.4g}, the gradients say {wanted:.4g}"
    if abs(found["sum", "total"] - 1) < 1e-6:
        told = "sum, total: you say 1; a KL that is summed over the batch beside a reconstruction that is averaged grows with the batch"
    trial.close(found["sum", "total"], wanted["sum", "total"], right="KL summed over the batch: right", wrong=told)
    worst = max(ratio, key=lambda pair: abs(ratio[pair] - 1))
    trial.that(
        abs(ratio[worst] - 1) < 1e-4,
        "all nine pairs agree with the gradients",
        f"for the pair {worst} you say {found[worst]:.4g}, the gradients say {wanted[worst]:.4g}",
    )


@exercise
def gaussian_nll(trial: Trial, answer: Any) -> None:
    """From rows (N, M), their means and sigma_x to the negative log-likelihood of a row, constant included, as a mean over the rows."""
    x, mean, noise = trial.numbers(5, 6), trial.numbers(5, 6), torch.tensor(0.3)
    found = trial.call(answer, x, mean, noise)
    trial.shape("the result", found, ())
    each = -Normal(mean, noise).log_prob(x)
    wanted = each.sum(1).mean()
    squares = (x - mean).square().sum(1).mean()
    constant = 3 * math.log(2 * math.pi)
    told = "against torch.distributions it misses by {difference:.3g}"
    for mistake, name in (
        (squares / (2 * noise**2), "it looks as if both the constant and log sigma_x were left out: sigma_x could then grow for free"),
        (wanted - constant, "it looks as if 2 pi were left out of the logarithm"),
        (
            squares / (2 * noise) + wanted - squares / (2 * noise**2),
            "it looks as if sigma_x stands where its square belongs, under the error",
        ),
        (each.mean(), "it looks as if you took the mean over the M numbers of a row; their log-likelihoods add up"),
        (each.sum(), "it looks as if you summed over the batch; a mean over the rows is asked"),
        (-wanted, "it is the log-likelihood; a loss is its negative"),
        (squares / noise**2 + wanted - squares / (2 * noise**2), "the factor one half before the squared error is missing"),
    ):
        told = name if _near(found, mistake) else told
    trial.close(found, wanted, right="it agrees with torch.distributions", wrong=told)
    rms = (x - mean).square().mean().sqrt().requires_grad_()
    result = torch.as_tensor(trial.call(answer, x, mean, rms))
    if not result.requires_grad:
        trial.stop("no gradient flows to the noise; take its logarithm with torch, not with math, and do not turn it into a float")
    (slope,) = torch.autograd.grad(result, rms)
    trial.that(
        abs(float(slope)) < 1e-3,
        "its slope with respect to sigma_x is 0 at the RMS error",
        f"its slope with respect to sigma_x at the RMS error is {float(slope):.3g}, not 0",
    )


def _torch_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    return kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(1)


def _measured_beta(trial: Trial, reconstruction: str, kl: str, M: int, D: int, B: int) -> float:
    """Read beta off the gradients of a loss with these reductions, relative to those of the plain sums."""
    prediction, truth = trial.numbers(B, M).requires_grad_(), trial.numbers(B, M)
    mu = trial.numbers(B, D).requires_grad_()
    squares, divergences = (prediction - truth).square(), 0.5 * mu.square()

    def factor(term: Tensor, how: str, at: Tensor) -> float:
        reduced, plain = REDUCTIONS[how](term), term.sum()
        slope, unit = (torch.autograd.grad(each, at, retain_graph=True)[0] for each in (reduced, plain))
        return float((slope / unit).median())

    return factor(divergences, kl, mu) / factor(squares, reconstruction, prediction)


def _near(found: Any, mistake: Any) -> bool:
    """Whether an answer shows the signature of a mistake."""
    found, mistake = torch.as_tensor(found).detach().double(), torch.as_tensor(mistake).detach().double()
    return found.shape == mistake.shape and bool(torch.allclose(found, mistake, rtol=1e-4, atol=1e-5))


def _pair(trial: Trial, found: Any, *names: str) -> tuple[Any, Any]:
    if not isinstance(found, tuple) or len(found) != 2:
        trial.stop(f"return two things, {' and '.join(names)}")
    return found
