"""The checks of chapter 9: FiLM, a root that survives zero, Mahalanobis, the noise that a loss claims, and the swap test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import MultivariateNormal

from . import Trial, exercise


@exercise
def film(trial: Trial, answer: Any) -> None:
    """Try the modulation against a grouped convolution, with a silent layer, and on another size."""
    x, z = trial.numbers(3, 4, 5, 6), trial.numbers(3, 2)
    weight, bias = trial.numbers(8, 2), trial.numbers(8)
    got = trial.call(answer, x, z, weight, bias)
    trial.same_shape("the map", got, x)
    wanted = _modulated(x, z, weight, bias)
    raw = F.linear(z, weight, bias)
    a, b = raw[:, :4, None, None], raw[:, 4:, None, None]
    mistakes = {
        "the 1 before the scale is missing: with weights of zero this silences the map": a * x + b,
        "it looks as if the halves are exchanged: the scales come first, then the shifts": (1 + b) * x + a,
        "it looks as if scale and shift alternate in the layer's output; all scales come first": (1 + raw[:, 0::2, None, None]) * x
        + raw[:, 1::2, None, None],
        "it looks as if the bias is left out": _modulated(x, z, weight, torch.zeros(8)),
        "it looks as if the shift is scaled as well": (1 + a) * (x + b),
        "it looks as if the shift is left out": (1 + a) * x,
    }
    _compare(trial, got, wanted, "each channel is scaled and shifted by the code", mistakes)
    silent = trial.call(answer, x, z, torch.zeros(8, 2), torch.zeros(8))
    trial.close(silent, x, "with weights of zero the map comes back unchanged", "with weights of zero the map changes by {difference:.3g}")
    x, z, weight, bias = trial.numbers(2, 3, 4, 4), trial.numbers(2, 7), trial.numbers(6, 7), trial.numbers(6)
    again = trial.call(answer, x, z, weight, bias)
    trial.close(again, _modulated(x, z, weight, bias), "it is right for other sizes", "for other sizes it is off by {difference:.3g}")


@exercise
def safe_norm(trial: Trial, answer: Any) -> None:
    """Try value and gradient with errors, and at an image without one."""
    f, C = trial.numbers(4, 2, 5, 5), trial.numbers(4, 2, 5, 5)
    w = trial.uniform(4, 1, 5, 5, low=0.5, high=3.0)
    got = trial.call(answer, f, C, w)
    trial.shape("the loss", got, ())
    each = torch.stack([torch.linalg.vector_norm(w[n].sqrt() * (C[n] - f[n])) for n in range(4)])
    mistakes = {
        "it looks as if one root is taken of the whole batch; each image has its own": (each.square().sum()).sqrt(),
        "it looks as if the root is taken of the mean over the batch; it comes before the mean": each.square().mean().sqrt(),
        "it looks as if the weights are left out": torch.stack([torch.linalg.vector_norm(C[n] - f[n]) for n in range(4)]).mean(),
        "it looks as if the weights are squared; they multiply the squares": torch.stack(
            [torch.linalg.vector_norm(w[n] * (C[n] - f[n])) for n in range(4)]
        ).mean(),
        "it looks as if the root is gone; the value must stay the norm": each.square().mean(),
        "it looks as if the images are added up; the loss is their mean": each.sum(),
    }
    _compare(trial, got, each.mean(), "the value is the mean of the images' weighted norms", mistakes)
    near = C + 1e-5 * trial.numbers(4, 2, 5, 5)
    tiny = torch.stack([torch.linalg.vector_norm(w[n].double().sqrt() * (C[n].double() - near[n].double())) for n in range(4)]).mean()
    value = trial.call(answer, near, C, w)
    trial.that(
        abs(float(value) - float(tiny)) < 0.02 * float(tiny),
        "a tiny error keeps its value",
        f"at a tiny error the value is {float(value):.3g} where {float(tiny):.3g} is due: something was added under the root",
    )
    right = f.clone()
    right[1] = C[1]
    right.requires_grad_()
    loss = trial.call(answer, right, C, w)
    trial.need(
        isinstance(loss, Tensor) and loss.requires_grad,
        "the loss has a gradient",
        "the loss has no gradient: it looks as if you used `detach`, `no_grad` or `item`",
    )
    slope = torch.autograd.grad(loss, right)[0]
    trial.need(
        not bool(slope[1].isnan().any()),
        "no NaN at an image without error",
        "the gradient at an image without error is NaN: the root still sees a 0, and 0 times infinity is NaN",
    )
    trial.close(slope[1], torch.zeros(2, 5, 5), "there the gradient is 0", "there the gradient is {found:.3g}, not 0")
    others = [0, 2, 3]
    wanted = (w * (right - C)).detach() / each[:, None, None, None] / 4
    trial.close(slope[others], wanted[others], "elsewhere it is that of the norm", "elsewhere the gradient is off by {difference:.3g}")


@exercise
def mahalanobis(trial: Trial, answer: Any) -> None:
    """Try it against the density with the completed covariance, along one direction, and in the residual alone."""
    u = torch.linalg.qr(trial.numbers(9, 9)).Q.T[:3]
    variances = torch.tensor([5.0, 2.0, 0.5])
    e = trial.numbers(6, 9)
    got = trial.call(answer, e, u, variances)
    trial.shape("the loss", got, ())
    covariance = u.T @ variances.diag() @ u + variances[-1] * (torch.eye(9) - u.T @ u)
    normal = MultivariateNormal(torch.zeros(9), covariance)
    wanted = -2 * (normal.log_prob(e) - normal.log_prob(torch.zeros(1, 9))).mean()
    scores = e @ u.T
    inside, rest = (scores.square() / variances).sum(1), e.square().sum(1) - scores.square().sum(1)
    mistakes = {
        "the residual is missing: errors outside of the P directions would be free": inside.mean(),
        "it looks as if the residual is divided by the largest variance; the smallest is due": (inside + rest / variances[0]).mean(),
        "it looks as if the residual is not divided by any variance": (inside + rest).mean(),
        "it looks as if the whole error is charged as residual; take off what the directions explain": (
            inside + e.square().sum(1) / variances[-1]
        ).mean(),
        "it looks as if you divided by the standard deviation; a square is divided by a variance": (
            (scores.square() / variances.sqrt()).sum(1) + rest / variances[-1].sqrt()
        ).mean(),
        "it looks as if you multiplied by the variances: then usual errors would be the dear ones": (
            (scores.square() * variances).sum(1) + rest * variances[-1]
        ).mean(),
        "it looks as if the batch is summed; the loss is its mean": 6 * wanted,
        "it looks as if the scores are not squared": ((scores / variances).sum(1) + rest / variances[-1]).mean(),
    }
    _compare(trial, got, wanted, "it is the squared distance under the completed covariance", mistakes)
    outside = (e - scores @ u)[:1]
    alone = trial.call(answer, outside, u, variances)
    trial.close(alone, outside.square().sum() / 0.5, "an error outside of all directions is charged at the last rate", "outside it is off")
    along = trial.call(answer, 3 * u[:1], u, variances)
    trial.close(
        along, 9 / 5, "an error along the first direction costs its square over the variance", "along the first direction it is off"
    )


@exercise
def implied_variance(trial: Trial, answer: Any) -> None:
    """Try the balance of the two gradients, by autograd, and how it changes with error, batch and factor."""
    batch, factor = 6, 0.01
    e, mu = trial.numbers(batch, 5), trial.numbers(batch, 2)
    sizes = e.norm(dim=1)
    got = trial.call(answer, sizes, batch, factor)
    trial.shape("the variance", got, (batch,))
    trial.need(bool((got > 0).all()), "it is positive", "a variance is positive; yours is not")
    published = _balance(e, mu, lambda e, mu: e.norm(dim=1).mean() + factor * 0.5 * mu.square().sum())
    honest = _balance(e, mu, lambda e, mu: (e.square().sum(1) / (2 * got.detach()) + 0.5 * mu.square().sum(1)).mean())
    mistakes = {
        "it looks as if the batch size is missing: the KL is a sum over the batch, the norm a mean": factor * sizes,
        "it looks as if the error is squared: the root has taken one factor of it away": factor * batch * sizes.square(),
        "it looks as if a factor 1/2 or 2 slipped in: the 2 of the Gaussian cancels in its gradient": factor * batch * sizes / 2,
        "it looks as if you divided by the error; a larger error means more noise": factor * batch / sizes,
        "it looks as if you divided by the batch size": factor * sizes / batch,
        "it looks as if the factor is missing": batch * sizes,
        "this is the inverse: a precision": 1 / (factor * batch * sizes),
        "this is a standard deviation; the variance is its square": (factor * batch * sizes).sqrt(),
    }
    told = next((told for told, value in mistakes.items() if torch.allclose(got.double(), value.double(), rtol=1e-3)), None)
    if told is None and torch.allclose(got, 2 * factor * batch * sizes, rtol=1e-3):
        told = "it looks as if a factor 1/2 or 2 slipped in: the 2 of the Gaussian cancels in its gradient"
    trial.close(
        honest,
        published,
        "both objectives pull error and code in the same ratio",
        told or "the ratios of the pulls differ by {difference:.3g}",
    )
    twice = trial.call(answer, sizes, 2 * batch, factor)
    trial.close(twice, 2 * got, "twice the batch is twice the noise", "twice the batch does not give twice the variance")
    other = trial.call(answer, torch.tensor(2.0), 32, 0.5)
    trial.close(other, 32.0, "it is right for another factor, and for a single number", "at error 2, batch 32 and factor 0.5 it is off")


@exercise
def swap_test(trial: Trial, answer: Any) -> None:
    """Try the test on a painter whose code and drawing can be told apart, and on one that ignores its code."""
    ab, gray = trial.numbers(5, 2, 4, 4), trial.numbers(5, 1, 4, 4)

    def encode(ab: Tensor, gray: Tensor) -> tuple[Tensor, Tensor]:
        return 0.8 * ab.mean((2, 3)) + gray.mean((2, 3)), torch.full((len(ab), 2), -1.0)

    def decode(z: Tensor, gray: Tensor) -> Tensor:
        return z[:, :, None, None] * (1 + gray.tanh())

    got = trial.call(answer, encode, decode, ab, gray)
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        trial.stop("the result is not a pair: own error, swapped error")
    own, other = got
    trial.shape("the own error", own, ())
    trial.shape("the swapped error", other, ())
    mu, logvar = encode(ab, gray)
    wanted = F.mse_loss(decode(mu, gray), ab)
    _compare(
        trial,
        own,
        wanted,
        "the own error is that of each image with its own code",
        {
            "it looks as if the squares are summed; the mean over everything is asked": wanted * ab.numel(),
            "it looks as if a root is taken; the mean squared error is asked": wanted.sqrt(),
            "it looks as if you decode the log variances; the code is the mean": F.mse_loss(decode(logvar, gray), ab),
            "it looks as if the two errors are exchanged: own first, then swapped": F.mse_loss(decode(mu.roll(1, 0), gray), ab),
        },
    )
    moved = torch.cat([mu[-1:], mu[:-1]])
    _compare(
        trial,
        other,
        F.mse_loss(decode(moved, gray), ab),
        "the swapped error is that with the neighbor's code",
        {
            "it looks as if the drawing moves along with the code; it stays": F.mse_loss(decode(moved, gray.roll(1, 0)), ab),
            "it looks as if the truth moves along with the code; it stays": F.mse_loss(decode(moved, gray), ab.roll(1, 0)),
            "it looks as if everything moves together; then nothing is swapped": F.mse_loss(decode(moved, gray.roll(1, 0)), ab.roll(1, 0)),
            "it looks as if the code moves in the other direction": F.mse_loss(decode(mu.roll(-1, 0), gray), ab),
            "it looks as if the dimensions of the code move, not the images": F.mse_loss(decode(mu.roll(1, 1), gray), ab),
            "it looks as if nothing is swapped": wanted,
        },
    )

    def deaf(z: Tensor, gray: Tensor) -> Tensor:
        return torch.cat([gray, -gray], dim=1)

    own, other = trial.call(answer, encode, deaf, ab, gray)
    trial.close(other, own, "for a painter that ignores its code both are equal", "for a painter that ignores its code the errors differ")


def _modulated(x: Tensor, z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same by a 1x1 convolution with a group for each channel of each image."""
    batch, channels, height, width = x.shape
    raw = F.linear(z, weight, bias)
    kernel = (1 + raw[:, :channels]).reshape(-1, 1, 1, 1)
    shift = raw[:, channels:].reshape(-1)
    flat = F.conv2d(x.reshape(1, batch * channels, height, width), kernel, shift, groups=batch * channels)
    return flat.reshape(x.shape)


def _balance(e: Tensor, mu: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The length of the gradient in each image's error over that in its code."""
    e, mu = e.clone().requires_grad_(), mu.clone().requires_grad_()
    in_e, in_mu = torch.autograd.grad(loss(e, mu), (e, mu))
    return in_e.norm(dim=1) / in_mu.norm(dim=1)


def _compare(trial: Trial, got: Any, wanted: Tensor, right: str, mistakes: Mapping[str, Tensor]) -> None:
    """Record whether `got` is `wanted`; end the check with the name of the mistake that it looks like."""
    found = torch.as_tensor(got).detach().double()

    def near(value: Tensor) -> bool:
        return bool(torch.allclose(found, torch.as_tensor(value).detach().double(), rtol=1e-4, atol=1e-4))

    if not near(wanted):
        away = float((found - wanted.detach().double()).abs().max())
        trial.stop(next((told for told, value in mistakes.items() if near(value)), f"it is off by {away:.3g}"))
    trial.that(True, right, "")
