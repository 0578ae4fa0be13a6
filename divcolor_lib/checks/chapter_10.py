"""The checks of chapter 10, mixture density networks."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from . import Trial, exercise

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def _example(trial: Trial, rows: int, components: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, means, scale and points of random mixtures whose components overlap."""
    logits, means = trial.numbers(rows, components) + 1.5, trial.numbers(rows, components, size)
    return logits, means, trial.uniform(rows, components, size, low=0.4, high=1.6), trial.numbers(rows, size)


def _torch(logits: Tensor, means: Tensor, scale: Tensor) -> MixtureSameFamily:
    return MixtureSameFamily(Categorical(logits=logits), Independent(Normal(means, scale), 1))


def _named(found: Tensor, slips: dict[str, Tensor]) -> str | None:
    """The first slip that gives the numbers found."""
    return next((what for what, value in slips.items() if torch.allclose(found.float(), value.float(), rtol=1e-3, atol=1e-4)), None)


@exercise
def mixture_log_prob(trial: Trial, answer: Any) -> None:
    """The log-density of a mixture: `answer(logits, means, scale, z)`, `(B, K), (B, K, D), (B, K, D), (B, D)` to `(B,)`."""
    logits, means, scale, z = _example(trial, 6, 4, 3)
    found = trial.call(answer, logits, means, scale, z)
    trial.shape("the log-density", found, (6,))
    right = _torch(logits, means, scale).log_prob(z)
    normal = Normal(means, scale).log_prob(z[:, None])
    part, log_pi = normal.sum(2), logits.log_softmax(1)
    kernel = (-0.5 * ((z[:, None] - means) / scale) ** 2).sum(2)
    slips = {
        "it looks as if the logarithm stands inside the sum: this is a mixture of logarithms, not the logarithm of a mixture": (
            logits.softmax(1) * part
        ).sum(1),
        "it looks as if the logits were taken for log weights; their exponentials do not sum to 1": (logits + part).logsumexp(1),
        "it looks as if the weights were left out": part.logsumexp(1),
        "it looks as if the logarithm of the scale were missing: a narrow Gaussian is a high one": (
            log_pi + kernel - 3 * HALF_LOG_2PI
        ).logsumexp(1),
        "it looks as if the constant with 2 pi were missing": (log_pi + part + 3 * HALF_LOG_2PI).logsumexp(1),
        "it looks as if the numbers of a code were averaged; the log-densities of independent numbers add": (
            log_pi + normal.mean(2)
        ).logsumexp(1),
        "it looks as if the scale stood where its square belongs": (
            log_pi - (0.5 * (z[:, None] - means) ** 2 / scale + scale.log() + HALF_LOG_2PI).sum(2)
        ).logsumexp(1),
        "this is the largest term, not the sum": (log_pi + part).max(1).values,
        "the sign is turned around: this is the negative log-likelihood": -right,
    }
    trial.close(
        found,
        right,
        right="it agrees with torch.distributions",
        wrong=_named(found, slips) or "it differs from torch.distributions by up to {difference:.3g}",
    )
    far = trial.call(answer, logits, means, scale, z + 300)
    exact = _torch(logits, means, scale).log_prob(z + 300)
    if not isinstance(far, Tensor) or not bool(torch.isfinite(far).all()):
        trial.stop("for a point that is hundreds of scales away the result is not finite: an exponential underflows before the logarithm")
    trial.close(far, exact, right="it survives a point that is hundreds of scales away", wrong="far away it is off by {difference:.3g}")


@exercise
def nll_gradients(trial: Trial, answer: Any) -> None:
    """The gradients of sum over the batch of -log p: `answer(logits, means, scale, z)` to three tensors of the shapes of the parameters."""
    logits, means, scale, z = _example(trial, 5, 3, 2)
    result = trial.call(answer, logits, means, scale, z)
    if not isinstance(result, tuple) or len(result) != 3:
        trial.stop("return three tensors: the gradients with respect to logits, means and scale")
    leaves = tuple(part.clone().requires_grad_() for part in (logits, means, scale))
    wanted = torch.autograd.grad(-_torch(*leaves).log_prob(z).sum(), leaves)
    away, pi = z[:, None] - means, logits.softmax(1)
    gamma = (pi.log() + Normal(means, scale).log_prob(z[:, None]).sum(2)).softmax(1)
    r, flat = gamma[..., None], torch.full_like(gamma, 1 / 3)[..., None]
    widen = 1 / scale - away**2 / scale**3
    slips: tuple[dict[str, Tensor], ...] = (
        {
            "the weight itself is missing: moving one logit changes all weights": -gamma,
            "this is the gradient of the weights' own sum; the responsibilities are missing": pi,
        },
        {
            "the responsibilities are missing: every component is pulled as if it were alone": -away / scale**2,
            "the weights stand where the responsibilities belong: they do not know the point": -pi[..., None] * away / scale**2,
            "the distance is divided by the scale, not by its square": -r * away / scale,
            "the distance is not divided by the square of the scale": -r * away,
            "the responsibilities are all equal; they depend on the point": -flat * away / scale**2,
        },
        {
            "the responsibilities are missing from the gradient of the scale": widen,
            "the term 1/s is missing: a Gaussian gets lower as it gets wider": -r * away**2 / scale**3,
            "this is the gradient with respect to the logarithm of the scale": r * widen * scale,
            "the powers of the scale are off by one: differentiate 1/s^2": r * (1 / scale - away**2 / scale**2),
        },
    )
    for name, found, right, wrongs in zip(("logits", "means", "scale"), result, wanted, slips):
        trial.same_shape(f"the gradient with respect to {name}", found, right)
        always = {
            f"the sign of the gradient with respect to {name} is turned around": -right,
            f"the gradient with respect to {name} is the batch mean's; the sum over the batch was asked for": right / 5,
        }
        trial.close(
            found,
            right,
            right=f"the gradient with respect to {name} agrees with autograd",
            wrong=_named(found, always | wrongs)
            or "the gradient with respect to " + name + " differs from autograd by up to {difference:.3g}",
        )


@exercise
def tightest_bound(trial: Trial, answer: Any) -> None:
    """The component with the tightest bound and its gap: `answer(logits, means, scale, z)` to `(B,)` integers and `(B,)`."""
    logits, means, _, z = _example(trial, 200, 5, 2)
    scale = trial.uniform(200, 5, 2, low=0.1, high=2.5)
    result = trial.call(answer, logits, means, scale, z)
    if not isinstance(result, tuple) or len(result) != 2:
        trial.stop("return two tensors, the component and the gap")
    m, gap = result
    trial.shape("the component", m, (200,))
    trial.shape("the gap", gap, (200,))
    mixture = _torch(logits, means, scale)
    density = mixture.component_distribution.log_prob(z[:, None])
    a = logits.log_softmax(1) + density
    gaps = mixture.log_prob(z)[:, None] - a  # (200, K)
    found = m.long()
    if bool(((found < 0) | (found > 4)).any()):
        trial.stop("there are components 0 to 4; your m leaves that range")
    others = {
        "this is the component whose mean is nearest; the bound also knows weights and scales": (
            (z[:, None] - means).square().sum(2).argmin(1)
        ),
        "this is the component with the highest density; its weight counts too": density.argmax(1),
        "this is the component with the largest weight; it does not know the point": logits.argmax(1),
        "this is the loosest bound, not the tightest: look at the sign": a.argmin(1),
    }
    named = next((what for what, value in others.items() if torch.equal(found, value)), None)
    trial.that(
        torch.equal(found, a.argmax(1)),
        "no other component has a tighter bound",
        named or f"for {int((found != a.argmax(1)).sum())} of 200 points another component has a tighter bound",
    )
    own = gaps.gather(1, found[:, None])[:, 0]
    slips = {
        "the gap has the wrong sign: the bound lies above the NLL": -own,
        "this is the bound itself; take the NLL off": -a.gather(1, found[:, None])[:, 0],
        "this is the responsibility; the gap is in nats": (-own).exp(),
        "this is 1 minus the responsibility, which is close for small gaps only": 1 - (-own).exp(),
    }
    trial.close(
        gap,
        own,
        right="the gap is that of your component, by torch.distributions",
        wrong=_named(gap, slips) or "the gap of your component differs by up to {difference:.3g} from bound minus NLL",
    )
    trial.that(
        bool((gap <= math.log(5) + 1e-4).all()),
        "no gap is larger than log K",
        f"a gap of {float(gap.max()):.2f} nats is larger than log K = {math.log(5):.2f}; the tightest one never is",
    )


@exercise
def excess_nll(trial: Trial, answer: Any) -> None:
    """What N(c, s^2) pays above the truth N(m, v), in nats: `answer(m, v, c, s)`, tensors of one shape."""
    m, c = trial.numbers(12), trial.numbers(12)
    v, s = trial.uniform(12, low=0.2, high=3.0), trial.uniform(12, low=0.1, high=1.5)
    found = trial.call(answer, m, v, c, s)
    trial.same_shape("the excess", found, m)
    right = kl_divergence(Normal(m, v.sqrt()), Normal(c, s))
    square = (m - c) ** 2
    slips = {
        "it looks as if s stood where its square belongs": 0.5 * ((v + square) / s - 1 - (v / s).log()),
        "it looks as if v were taken for a standard deviation; it is a variance": kl_divergence(Normal(m, v), Normal(c, s)),
        "this is the whole NLL; take off what the true density itself pays": (v + square) / (2 * s**2) + s.log() + HALF_LOG_2PI,
        "the distance of the means is missing": 0.5 * (v / s**2 - 1 - (v / s**2).log()),
        "the logarithms are missing: a narrow Gaussian also gains height": 0.5 * ((v + square) / s**2 - 1),
        "this is the KL divergence the other way round": kl_divergence(Normal(c, s), Normal(m, v.sqrt())),
        "it is twice as large as it should be: where is the one half?": 2 * right,
        "the sign is turned around": -right,
    }
    trial.close(
        found,
        right,
        right="it agrees with the KL divergence of torch.distributions",
        wrong=_named(found, slips) or "it differs from the KL divergence of torch.distributions by up to {difference:.3g}",
    )
    exact = trial.call(answer, m, v, m, v.sqrt())
    trial.close(
        exact, torch.zeros(12), right="nothing is paid if the component is right", wrong="a component that is right should pay nothing"
    )


@exercise
def mixture_parameters(trial: Trial, answer: Any) -> None:
    """The outputs of a network as parameters: `answer(out, K, D)` to weights `(B, K)`, means and scale `(B, K, D)`."""
    rows, components, size = 4, 3, 2
    out = 3 * trial.numbers(rows, components * (1 + 2 * size))  # scales on both sides of the floor
    result = trial.call(answer, out, components, size)
    if not isinstance(result, tuple) or len(result) != 3:
        trial.stop("return three tensors: weights, means and scale")
    weights, means, scale = result
    trial.shape("weights", weights, (rows, components))
    trial.shape("means", means, (rows, components, size))
    trial.shape("scale", scale, (rows, components, size))
    logits, flat, raw = out[:, :3], out[:, 3:9], out[:, 9:]
    slips = {
        "the weights sum to 1 over the batch; they should do so over the components of one mixture": logits.softmax(0),
        "these are the logits themselves; weights are positive and sum to 1": logits,
        "these are logarithms of weights": logits.log_softmax(1),
        "a softplus makes them positive, but they do not sum to 1": F.softplus(logits),
        "an exponential makes them positive, but they do not sum to 1": logits.exp(),
    }
    trial.close(
        weights,
        logits.softmax(1),
        right="the weights of each mixture are positive and sum to 1",
        wrong=_named(weights, slips) or "the weights are off by up to {difference:.3g}",
    )
    mixed = flat.reshape(rows, size, components).transpose(1, 2)
    trial.close(
        means,
        torch.stack([flat[:, :2], flat[:, 2:4], flat[:, 4:]], 1),
        right="each mean has the numbers that belong to it",
        wrong="the numbers of different means are mixed up: those of one mean lie side by side"
        if torch.allclose(means, mixed)
        else "the means are off by up to {difference:.3g}",
    )
    wide = torch.stack([raw[:, :2], raw[:, 2:4], raw[:, 4:]], 1)
    slips = {
        "the floor stands inside the softplus, where it is none: the scale can still come near zero": F.softplus(wide + 0.05),
        "the floor is missing": F.softplus(wide),
        "an exponential, not a softplus, makes this scale positive": 0.05 + wide.exp(),
        "the scale is cut off at the floor; there its gradient is zero, and the component can never widen again": (
            F.softplus(wide).clamp(min=0.05)
        ),
    }
    trial.close(
        scale,
        0.05 + F.softplus(wide),
        right="the scale is a softplus with a floor",
        wrong=_named(scale, slips) or "the scale is off by up to {difference:.3g}",
    )
    low = trial.call(answer, torch.full_like(out, -200.0), components, size)[2]
    trial.close(
        low,
        torch.full_like(low, 0.05),
        right="very negative outputs give the floor",
        wrong="for very negative outputs the scale is {found:.3g}; it should stay at the floor of {wanted:.3g}",
    )


@exercise
def best_representatives(trial: Trial, answer: Any) -> None:
    """Representatives and weights that are best for the nearest assignment: `answer(r, mu, precision)` to `(R, D)` and `(R,)`."""
    count, size = 60, 2
    mu = trial.numbers(count, size)
    precision = torch.stack([trial.uniform(count, low=0.5, high=30.0), trial.uniform(count, low=0.5, high=2.0)], 1)
    r = torch.tensor([[-1.0, 0.5], [0.8, -0.7], [0.1, 0.9], [40.0, 40.0]])
    result = trial.call(answer, r.clone(), mu, precision)
    if not isinstance(result, tuple) or len(result) != 2:
        trial.stop("return two tensors, the representatives and their weights")
    new, rho = result
    if isinstance(new, Tensor) and bool(new.isnan().any()):
        trial.stop("there is NaN: a representative without any row has no mean; it should stay where it is")
    trial.shape("the representatives", new, (4, size))
    trial.shape("the weights", rho, (4,))
    by_unit = ((mu[:, None] - r).square() * precision[:, None]).sum(2)

    def centers(own: Tensor, weight: Tensor) -> Tensor:
        total = own.T @ weight
        return (own.T @ (weight * mu) / total.clamp(min=1e-12)).where(total > 0, r)

    own = F.one_hot(by_unit.argmin(1), 4).float()
    by_length = F.one_hot(torch.cdist(mu, r).argmin(1), 4).float()
    even = torch.ones_like(precision)
    slips = {
        "this is the plain mean; a row with a high precision should count more": centers(own, even),
        "rows are assigned by plain distance, not in the posterior's units": centers(by_length, precision),
        "rows are assigned by plain distance and averaged without precisions: this is k-means": centers(by_length, even),
        "a row counts with the square root of its precision; derive the weights of the mean again": centers(own, precision.sqrt()),
        "a variance stands where a precision belongs: uncertain rows count more than certain ones": centers(own, 1 / precision),
        "the representatives have not moved": r,
        "a representative without any row should stay where it is, not move to zero": centers(own, precision).where(
            own.sum(0)[:, None] > 0, 0.0
        ),
    }
    trial.close(
        new,
        centers(own, precision),
        right="no other representatives have a smaller loss for this assignment",
        wrong=_named(new, slips) or "other representatives have a smaller loss; yours are off by up to {difference:.3g}",
    )
    weights = {
        "these are numbers of rows; weights sum to 1": own.sum(0),
        "the weights are all equal; they should say how often a representative is the nearest": torch.full((4,), 0.25),
        "these weights add up precisions, not rows": (own.T @ precision.sum(1)) / precision.sum(),
        "these are the shares of an assignment by plain distance": by_length.mean(0),
        "a softmax of the shares is not the shares": own.mean(0).softmax(0),
    }
    trial.close(
        rho,
        own.mean(0),
        right="no other weights have a smaller cross-entropy",
        wrong=_named(rho, weights) or "other weights have a smaller cross-entropy; yours are off by up to {difference:.3g}",
    )
