"""The checks of chapter 5, the reparameterization trick."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal

from ..runtime import generator
from . import Trial, exercise

#: Standard errors that an average may lie from what it should be; a right answer leaves them less than once in a million.
ERRORS = 5.0


@exercise
def draw_code(trial: Trial, answer: Any) -> None:
    """A draw of z ~ N(mu, diag sigma^2) with gradients to `mu` and `logvar`: `answer(mu, logvar, generator)`, all `(N, D)`."""
    mu = trial.numbers(4, 3).requires_grad_()
    logvar = trial.uniform(4, 3, low=-2.0, high=-0.8).requires_grad_()
    z = trial.call(answer, mu, logvar, generator(1))
    trial.same_shape("z", z, mu)
    again, other = trial.call(answer, mu, logvar, generator(1)), trial.call(answer, mu, logvar, generator(2))
    trial.need(
        not torch.equal(z, other),
        "another seed gives another draw",
        "two seeds give the same z: there is no noise in it, or it does not come from the generator",
    )
    trial.that(
        torch.equal(z, again),
        "the same seed gives the same draw",
        "the same seed gives two different draws: take the noise from the generator that you are given, not from torch's own",
    )
    if trial.that(
        z.requires_grad, "z keeps its tie to mu and logvar", "z has lost its tie to mu and logvar: no gradient will pass through it"
    ):
        down, up = torch.autograd.grad(z.sum(), (mu, logvar), allow_unused=True)
        trial.close(
            torch.zeros_like(mu) if down is None else down,
            torch.ones_like(mu),
            right="the gradient with respect to mu is right",
            wrong="if mu moves by a little, z should move just as far; with yours the gradient is {found:.3g}",
        )
        trial.close(
            torch.zeros_like(mu) if up is None else up,
            0.5 * (z - mu),
            right="the gradient with respect to logvar fits the noise that was drawn",
            wrong="the gradient with respect to logvar is off by up to {difference:.3g}: differentiate your z by hand and compare",
        )
    _moments(trial, answer)


def _moments(trial: Trial, answer: Any) -> None:
    """Record whether mean, spread and shape of many draws are those of a Gaussian, naming what they are instead."""
    count, mu, sigma = 40_000, torch.tensor([1.0, -2.0]), torch.tensor([0.4, 2.0])
    logvar = 2 * sigma.log()
    with torch.no_grad():
        z = trial.call(answer, mu.expand(count, 2), logvar.expand(count, 2), generator(3))
    noise = (z - mu) / sigma
    mean, spread = noise.mean(0), noise.std(0)
    trial.need(
        bool((spread > 1e-3).all()),
        "every row of the batch has noise of its own",
        "all rows of the batch get the same noise: draw as many numbers as z has, not one row for all",
    )
    trial.that(
        bool((mean.abs() < ERRORS * spread / math.sqrt(count)).all()),
        "the mean of many draws is mu",
        f"the mean of many draws lies {_most(mean):.2g} sigma from mu: is the noise of mean zero? (`torch.rand` is not)",
    )
    right = bool(((spread - 1).abs() < ERRORS / math.sqrt(2 * count)).all())
    told = "the standard deviation of many draws is {} times sigma where sigma is {}".format(*_pairs(spread, sigma))
    if _near(spread, sigma):
        told = "the draws spread by sigma squared, the variance: it looks as if a standard deviation is missing its square root"
    elif _near(spread, sigma.rsqrt()):
        told = (
            "the draws spread by the square root of sigma: one square root too many, a common slip when a formula calls the variance sigma"
        )
    trial.that(right, "the standard deviation of many draws is sigma", told)
    if right:
        fourth = noise.pow(4).mean(0)
        trial.that(
            bool(((fourth - 3).abs() < ERRORS * math.sqrt(96 / count)).all()),
            "the draws have the shape of a Gaussian",
            f"mean and spread are right, but the fourth moment is {float(fourth.mean()):.2f} where a Gaussian has 3: another kind of noise",
        )


def _near(found: Tensor, wanted: Tensor) -> bool:
    return bool(((found - wanted).abs() < 0.05 * wanted).all())


def _most(values: Tensor) -> float:
    return float(values[values.abs().argmax()])


def _pairs(spread: Tensor, sigma: Tensor) -> tuple[str, str]:
    return " and ".join(f"{s:.3g}" for s in spread.tolist()), " and ".join(f"{s:.3g}" for s in sigma.tolist())


@exercise
def score_function(trial: Trial, answer: Any) -> None:
    """The score-function estimate of the gradients, `answer(z, values, mu, logvar)`: z `(S, D)`, values `(S,)` to two `(D,)`."""
    draws, size = 50, 3
    mu, logvar = trial.numbers(size).requires_grad_(), trial.uniform(size, low=-1.5, high=1.0).requires_grad_()
    z, values = mu.detach() + 1.5 * trial.numbers(draws, size), trial.numbers(draws) + 2
    result = trial.call(answer, z, values, mu.detach(), logvar.detach())
    if not isinstance(result, tuple) or len(result) != 2:
        trial.stop("return two tensors, the gradient with respect to mu and that with respect to logvar")
    for name, part in zip(("the gradient with respect to mu", "the gradient with respect to logvar"), result):
        trial.shape(name, part, (size,))
    log_density = Normal(mu, (0.5 * logvar).exp()).log_prob(z).sum(1)
    wanted = torch.autograd.grad((values * log_density).mean(), (mu, logvar))
    sigma = (0.5 * logvar).exp().detach()
    away, weight = z - mu.detach(), values[:, None]
    unbiased = (away.square() / sigma**2 - 1) * weight
    for name, found, right, slips in (
        (
            "mu",
            result[0],
            wanted[0],
            {
                "the distance z - mu is not divided by the variance": (away * weight).mean(0),
                "the distance z - mu is divided by sigma, not by the variance": (away / sigma * weight).mean(0),
            },
        ),
        (
            "logvar",
            result[1],
            wanted[1],
            {
                "the constant of the score is missing: the density gets lower as it gets wider": (
                    0.5 * (away.square() / sigma**2) * weight
                ).mean(0),
                "this is the gradient with respect to sigma; one more factor of the chain rule leads to log sigma squared": (
                    unbiased / sigma
                ).mean(0),
                "this is twice the gradient: with respect to log sigma, not to log sigma squared": unbiased.mean(0),
            },
        ),
    ):
        slips = {"this is the sum over the draws; the estimate is their mean": right * draws, "the sign is turned around": -right, **slips}
        named = next((what for what, value in slips.items() if torch.allclose(found, value, rtol=1e-3, atol=1e-5)), None)
        trial.close(
            found,
            right,
            right=f"the gradient with respect to {name} agrees with autograd through the log density",
            wrong=named or "the gradient with respect to " + name + " differs from autograd through the log density by {difference:.3g}",
            tolerance=1e-3,
        )
    if all(right for right, _ in trial.lines):
        many = mu.detach() + sigma * trial.numbers(20_000, size)
        flat = trial.call(answer, many, torch.ones(20_000), mu.detach(), logvar.detach())
        trial.that(
            bool(torch.cat(flat).abs().max() < 0.1),
            "for a constant h the estimate is zero up to chance",
            "for a constant h nothing can be gained by moving mu or sigma; yours gives a gradient",
        )


@exercise
def best_baseline(trial: Trial, answer: Any) -> None:
    """The constant c that makes the mean of ((values - c) scores)^2 smallest, `answer(values, scores)`, both `(S,)`, to a number."""
    scores = 2 * trial.numbers(200)
    values = 4 + trial.numbers(200) + scores.square()
    found = trial.call(answer, values, scores)
    trial.shape("the baseline", found, ())
    found = float(found)

    def spread(c: float) -> float:
        return float(((values - c) * scores).double().square().mean())

    low, middle, high = spread(-1.0), spread(0.0), spread(1.0)  # a parabola in c, known from three of its points
    wanted = (low - high) / (2 * (low - 2 * middle + high))
    weight = scores.square()
    slips = {
        "this is the plain mean of the values, a good baseline but not the best: large scores should count more": values.mean(),
        "this is the slope of the values against the scores; ask instead which constant leaves the smallest products": (
            (values * scores).mean() / weight.mean()
        ),
        "the weights do not sum to one: for values that are all 1 your baseline is not 1": (values * weight).mean(),
        "the scores weigh with their size, not with its square": (values * scores.abs()).sum() / scores.abs().sum(),
        "your baseline has the wrong sign": torch.tensor(-wanted),
    }
    named = next((what for what, value in slips.items() if abs(float(value) - found) < 1e-3 * (1 + abs(found))), None)
    trial.close(
        torch.tensor(found),
        torch.tensor(wanted),
        right="no other constant makes the products smaller",
        wrong=named or f"with your c the mean square is {spread(found):.4g}; it can be {spread(wanted):.4g}",
        tolerance=1e-3,
    )
    moved = trial.call(answer, values + 10, scores)
    trial.close(
        float(moved) - found, 10.0, right="10 more on every value is 10 more on c", wrong="10 more on every value should be 10 more on c"
    )
    scaled = trial.call(answer, values, 3 * scores)
    trial.close(
        float(scaled), found, right="c does not change when all scores are tripled", wrong="c should not change when all scores are tripled"
    )


@exercise
def triangular(trial: Trial, answer: Any) -> None:
    """A pathwise draw of the density 2 z / width^2 on [0, width], `answer(width, u)`: u `(S,)`, uniform on [0, 1], to z `(S,)`."""
    count = 20_000
    u = (torch.arange(count) + 0.5) / count
    width = torch.tensor(1.7, requires_grad=True)
    z = trial.call(answer, width, u)
    trial.same_shape("z", z, u)
    values = z.detach().double()
    low, high = float(values.min()), float(values.max())
    trial.that(
        low >= -1e-6 and high <= 1.7 + 1e-5,
        "every draw lies between 0 and the width",
        f"draws should lie between 0 and the width 1.7; yours reach from {low:.3g} to {high:.3g}",
    )
    mean, square = float(values.mean()) / 1.7, float(values.square().mean()) / 1.7**2
    slips = {
        "all values from 0 to the width are equally likely: that is the uniform density, not the one that rises": (1 / 2, 1 / 3),
        "your density falls from 0 on; the one that is asked for rises": (1 / 3, 1 / 6),
        "it looks as if you used the distribution function itself; its inverse is needed": (1 / 3, 1 / 5),
    }
    named = next((what for what, (m, s) in slips.items() if abs(mean - m) < 2e-3 and abs(square - s) < 2e-3), None)
    told = f"the mean of your draws is {mean:.3f} widths, their mean square {square:.3f}"
    trial.that(
        abs(mean - 2 / 3) < 1e-3 and abs(square - 1 / 2) < 1e-3,
        "mean and mean square of the draws are those of the density",
        named or f"{told}: integrate z and z^2 against the density and compare",
    )
    if trial.that(z.requires_grad, "z keeps its tie to the width", "z has lost its tie to the width: no gradient will pass through it"):
        (slope,) = torch.autograd.grad(z.sum(), width)
        step = 1e-2
        with torch.no_grad():
            ahead, behind = trial.call(answer, width + step, u), trial.call(answer, width - step, u)
        trial.close(
            slope / count,
            (ahead - behind).double().mean() / (2 * step),
            right="the gradient of the mean agrees with finite differences that keep u",
            wrong="autograd and finite differences with the same u disagree by {difference:.3g}",
            tolerance=2e-3,
        )


@exercise
def negative_elbo(trial: Trial, answer: Any) -> None:
    """The negative ELBO of a linear decoder, `answer(x, mu, logvar, W, noise, generator)`, a mean over the batch, to a number."""
    count, noise = 20_000, 0.8
    x, W = torch.tensor([1.5, -0.5, 0.3]), torch.tensor([[1.0, 0.2], [0.5, -1.0], [0.0, 0.7]])
    mu = torch.tensor([0.9, 0.6], requires_grad=True)
    logvar = torch.tensor([-1.6, 0.7], requires_grad=True)

    def ask(seed: int) -> Any:
        return trial.call(answer, x.expand(count, 3), mu.expand(count, 2), logvar.expand(count, 2), W, noise, generator(seed))

    found = ask(1)
    trial.shape("the negative ELBO", found, ())
    trial.that(
        float(found.detach()) == float(ask(1).detach()),
        "the same seed gives the same number",
        "the same seed gives two different numbers: take the noise from the generator",
    )
    sigma2 = logvar.exp()

    def mean_misfit(variance: Tensor) -> Tensor:
        squares = (x - W @ mu).square().sum() + (W.square() @ variance).sum()
        return squares / (2 * noise**2) + 1.5 * math.log(2 * math.pi * noise**2)

    kl = 0.5 * (mu.square() + sigma2 - logvar - 1).sum()
    misfit, wide = mean_misfit(sigma2), mean_misfit(sigma2.square())
    value = float(found.detach())

    def same(wanted: Tensor) -> bool:
        return abs(value - float(wanted.detach())) < 0.12

    told = f"the number is {value:.3f}; over many draws it should come to {float((misfit + kl).detach()):.3f}"
    if same(wide + kl):
        told = "the codes are spread by the variance: a standard deviation belongs where sigma squared stands"
    elif same(-(misfit + kl)):
        told = "this is the ELBO itself; training makes its negative small"
    elif same(misfit):
        told = "the KL is missing"
    trial.that(same(misfit + kl), "the number is the negative ELBO up to chance", told)
    if not trial.that(
        found.requires_grad, "it can be differentiated", "nothing in it can be differentiated: the draw, or `.data`, cut every tie"
    ):
        return
    gradients = torch.autograd.grad(found, (mu, logvar), allow_unused=True)
    right = torch.autograd.grad(misfit + kl, (mu, logvar), retain_graph=True)
    alone = torch.autograd.grad(kl, (mu, logvar), retain_graph=True)
    data = torch.autograd.grad(misfit, (mu, logvar))
    for name, gradient, wanted, pull, push in zip(("mu", "logvar"), gradients, right, alone, data):
        gradient = torch.zeros_like(wanted) if gradient is None else gradient
        told = f"the gradient with respect to {name} is off by up to {float((gradient - wanted).abs().max()):.3g}"
        if torch.allclose(gradient, pull, atol=1e-3):
            told = (
                f"only the KL moves {name}: the way from the likelihood through the draw is cut, and the encoder would learn nothing of x"
            )
        elif bool(((gradient - push).abs() < 0.12).all()):
            told = f"only the likelihood moves {name}: the KL is cut off from it"
        trial.that(
            bool(((gradient - wanted).abs() < 0.12).all()),
            f"the gradient with respect to {name} agrees with the closed form up to chance",
            told,
        )
