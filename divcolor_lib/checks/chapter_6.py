"""The checks of chapter 6: the loss of a VAE, and what keeps its code alive."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from . import Trial, exercise


@exercise
def vae_loss(trial: Trial, answer: Any) -> None:
    """Try the loss against torch.distributions, at another beta, and on a batch written twice."""
    x, f, noise, beta = trial.numbers(6, 5), trial.numbers(6, 5), 0.7, 2.5
    mu, logvar = trial.numbers(6, 3), 0.5 * trial.numbers(6, 3)
    got = trial.call(answer, x, f, mu, logvar, noise, beta)
    trial.shape("the loss", got, ())
    wanted, parts = _loss(x, f, mu, logvar, noise, beta)
    square, constant, kl = parts
    mistakes = {
        "it looks as if the KL is summed over the batch; then beta grows with the batch size": square + constant + beta * 6 * kl,
        "it looks as if the squares are averaged over the M numbers of a row; the likelihood is a product over them, so they add up": square
        / 5
        + constant
        + beta * kl,
        "it looks as if the KL is averaged over the dimensions; a KL of independent dimensions is a sum": square + constant + beta * kl / 3,
        "it looks as if you divided by sigma_x where its square belongs": square * noise + constant + beta * kl,
        "the factor 1/2 before the squares is missing": 2 * square + constant + beta * kl,
        "the constant of the Gaussian is missing; with it the value is a log-density in nats": square + beta * kl,
        "the constant counts only one number; a row has M of them": square + constant / 5 + beta * kl,
        "it looks as if beta stands before the likelihood": beta * (square + constant) + kl,
        "the KL has the wrong sign: this loss rewards codes far from the prior": square + constant - beta * kl,
        "this is the ELBO itself; a loss is to be made small, so it is the negative": -wanted,
        "it looks as if sigma stands where sigma squared belongs in the KL": square
        + constant
        + beta * 0.5 * (mu.square() + (0.5 * logvar).exp() - 0.5 * logvar - 1).sum(1).mean(),
    }
    _compare(trial, got, wanted, "it is the negative ELBO of torch.distributions", mistakes)
    other = trial.call(answer, x, f, mu, logvar, 0.3, 0.0)
    trial.close(
        other, _loss(x, f, mu, logvar, 0.3, 0.0)[0], "it is right for another noise, and for beta 0", "at noise 0.3 and beta 0 it is off"
    )
    twice = trial.call(answer, *(torch.cat([each, each]) for each in (x, f, mu, logvar)), noise, beta)
    trial.close(
        twice, got, "a batch written twice has the same loss", "a batch written twice has another loss: a sum over the batch is left"
    )


@exercise
def active(trial: Trial, answer: Any) -> None:
    """Try the count on dimensions that vary, that stand still away from zero, and near the threshold."""
    spread = torch.tensor([1.0, 0.5, 0.3, 0.05, 0.05, 0.05, 0.0, 0.0])
    offset = torch.tensor([0.0, 0.0, -2.0, 0.0, 0.0, 0.0, 3.0, 0.0])
    wave = trial.numbers(400, 8)
    wave = (wave - wave.mean(0)) / wave.std(0)
    mu = offset + spread * wave
    got = trial.call(answer, mu, 0.01)
    if isinstance(got, Tensor) and got.numel() != 1:
        trial.stop(f"the result has shape {tuple(got.shape)}; it should be one integer")
    if not isinstance(got, (int, Tensor)) or isinstance(got, bool):
        trial.stop(f"the result is a {type(got).__name__}; it should be an integer")
    found = int(got)
    mistakes = {
        "it looks as if a dimension counts that stands still away from 0; what counts is that it moves with the data": int(
            (mu.square().mean(0) > 0.01).sum()
        ),
        "it looks as if you compared the standard deviation with the threshold; the threshold is a variance": int((mu.std(0) > 0.01).sum()),
        "it looks as if you counted data points; take the variance over the data, one for each dimension": int((mu.var(1) > 0.01).sum()),
        "it looks as if you counted the dimensions that are not active": int((mu.var(0) <= 0.01).sum()),
    }
    if found != 3:
        trial.stop(
            next((told for told, value in mistakes.items() if value == found), f"three dimensions move clearly here; you count {found}")
        )
    trial.that(True, "it counts the dimensions that move with the data", "")
    levels = [int(trial.call(answer, mu, threshold)) for threshold in (0.001, 0.1, 0.2, 2.0)]
    trial.that(levels == [6, 2, 2, 0], "it obeys the threshold", f"at other thresholds it counts {levels}")
    moved = int(trial.call(answer, mu + 5, 0.01))
    trial.that(moved == 3, "a constant added to every code changes nothing", "a constant added to every code changes the count")


@exercise
def free_bits(trial: Trial, answer: Any) -> None:
    """Try the term on values, on its gradient, and at a floor of zero."""
    kl = torch.tensor([[0.0, 1.6, 0.9], [0.2, 0.0, 2.1], [0.4, 0.2, 1.5]])  # means 0.2, 0.6, 1.5
    got = trial.call(answer, kl, 0.5)
    trial.shape("the term", got, ())
    mistakes = {
        "it looks as if the maximum is taken for every single data point; take the mean over the batch first": kl.clamp(min=0.5)
        .sum(1)
        .mean(),
        "it looks as if the floor holds for the sum of all dimensions; each dimension has its own": kl.sum(1).mean().clamp(min=0.5),
        "it looks as if you took the minimum with the floor: that charges for the first nats and gives the rest away": kl.mean(0)
        .clamp(max=0.5)
        .sum(),
        "it looks as if the floor is subtracted; the gradient is the same, but the formula keeps max(floor, KL)": (kl.mean(0) - 0.5)
        .clamp(min=0)
        .sum(),
        "it looks as if the dimensions are averaged; their terms add up": kl.mean(0).clamp(min=0.5).mean(),
        "it looks as if the batch is summed; then the floor means another thing for every batch size": kl.sum(0).clamp(min=0.5).sum(),
        "this is the plain KL: no dimension has anything free": kl.mean(0).sum(),
    }
    _compare(trial, got, torch.tensor(2.6), "each dimension is charged its batch mean, or the floor if that is more", mistakes)
    leaf = kl.clone().requires_grad_()
    value = trial.call(answer, leaf, 0.5)
    if not isinstance(value, Tensor) or not value.requires_grad:
        trial.stop("the result has no gradient; use torch operations on `kl` itself")
    (gradient,) = torch.autograd.grad(value, leaf)
    trial.close(
        gradient[:, 0], torch.zeros(3), "below the floor the gradient is 0", "below the floor the gradient should be 0, not {found:.3g}"
    )
    trial.close(
        gradient[:, 1:],
        torch.full((3, 2), 1 / 3),
        "above it the gradient is the usual one",
        "above the floor the gradient is off by {difference:.3g}",
    )
    random = trial.uniform(7, 4, high=2.0)
    trial.close(
        trial.call(answer, random, 0.0), random.sum(1).mean(), "without a floor it is the mean KL", "with floor 0 it is not the mean KL"
    )


@exercise
def warm_up(trial: Trial, answer: Any) -> None:
    """Try the schedule before, at, between and after its two steps."""
    start, end = 100, 300
    steps = [0, 99, 100, 150, 200, 299, 300, 301, 1000]
    got = [trial.call(answer, step, start, end) for step in steps]
    odd = [each for each in got if not isinstance(each, (int, float)) and getattr(each, "shape", None) != ()]
    trial.shape("the factor", odd[0] if odd else got[0], ())
    values = dict(zip(steps, (float(each) for each in got)))
    trial.need(values[1000] <= 1 + 1e-6, "it never exceeds 1", "it grows beyond 1 after the end: it is not kept at 1")
    trial.need(min(values.values()) >= -1e-6, "it is never negative", "it is negative before the start: it is not kept at 0")
    if abs(values[0] - 1) < 1e-6 and values[1000] < 0.5:
        trial.stop("it falls from 1 to 0; the price should rise")
    if abs(values[150] - 0.5) < 1e-6:
        trial.stop("it looks as if you ignored `start`: the line should begin there, not at step 0")
    if values[200] in (0.0, 1.0):
        trial.stop("halfway it is 0 or 1; it looks like a jump or an integer division, not a straight line")
    trial.need(
        abs(values[300] - 1) < 1e-6,
        "it is 1 at the end",
        f"at step `end` it is {values[300]:.3f} and not 1: it never charges the whole price",
    )
    trial.need(abs(values[100]) < 1e-6, "it is 0 at the start", f"at step `start` it is {values[100]:.3f} and not 0")
    line = all(abs(values[step] - (step - start) / (end - start)) < 1e-5 for step in (150, 200, 299))
    trial.that(line, "between the two it is a straight line", f"a quarter of the way it is {values[150]:.3f}, so it is no straight line")
    other = [float(trial.call(answer, step, 0, 7)) for step in (0, 1, 7)]
    trial.that(all(abs(a - b / 7) < 1e-5 for a, b in zip(other, (0, 1, 7))), "it obeys both steps", "from 0 to 7 it is off")


@exercise
def path(trial: Trial, answer: Any) -> None:
    """Try the path on its ends, its steps, and its count."""
    start, end = trial.numbers(4), trial.numbers(4)
    got = trial.call(answer, start, end, 6)
    trial.shape("the path", got, (6, 4))
    if torch.allclose(got[0], end, atol=1e-5) and torch.allclose(got[-1], start, atol=1e-5):
        trial.stop("it runs backward: the first code should be `start`")
    if torch.allclose(got[0], start, atol=1e-5) and torch.allclose(got[-1], start + 5 / 6 * (end - start), atol=1e-4):
        trial.stop("the last code is one step short of `end`: with both ends there is one step fewer than there are codes")
    trial.close(got[0], start, "it begins at `start`", "the first code is off by {difference:.3g} from `start`")
    trial.close(got[-1], end, "it ends at `end`", "the last code is off by {difference:.3g} from `end`")
    moves = got.diff(dim=0)
    trial.close(
        moves, moves.mean(0).expand_as(moves), "all steps are equal", "the steps are not equal: it is no straight walk at an even pace"
    )
    trial.close(
        trial.call(answer, start, end, 2), torch.stack([start, end]), "two codes are the two ends", "for `count` 2 it is not the two ends"
    )


@exercise
def validate(trial: Trial, answer: Any) -> None:
    """Try the validation on models in every mixture of modes."""
    x = trial.numbers(40, 3)
    modes, drifted, values, plain = [], [], [], []
    for outer, inner in ((True, True), (False, False), (True, False)):
        model, normalization = _model(trial)
        model.train(outer)
        normalization.train(inner)
        wanted_modes = [part.training for part in model.modules()]
        statistics = _running_mean(normalization).clone()
        values.append(trial.call(answer, model, x))
        modes.append([part.training for part in model.modules()] == wanted_modes)
        drifted.append(not torch.equal(statistics, _running_mean(normalization)))
        model.eval()
        with torch.no_grad():
            plain.append(float((model(x) - x).square().sum(1).mean()))
    trial.shape("the error", values[0], ())
    if any(drifted):
        trial.stop("the running averages of the batch normalization moved: the model was run in training mode")
    trial.need(
        all(abs(float(value) - wanted) < 1e-4 * (1 + wanted) for value, wanted in zip(values, plain)),
        "the error is that of evaluation mode",
        "the error is not that of evaluation mode, a sum over M and a mean over N: is dropout on, or the reduction another one?",
    )
    if modes == [True, False, False]:
        trial.stop("it ends by putting everything into training mode: a frozen model, or a frozen layer, thaws")
    if modes == [False, True, False]:
        trial.stop("it leaves everything in evaluation mode: the training that follows runs without dropout")
    if modes == [True, True, False]:
        trial.stop("it restores one mode for the whole model; a model with one frozen layer needs a mode for each layer")
    trial.need(all(modes), "every layer has its own mode back", "the modes afterwards are not those from before")
    broken = nn.Sequential(nn.Linear(3, 3), _Raises()).train()
    with contextlib.suppress(ValueError):
        answer(broken, x)
    trial.that(
        all(part.training for part in broken.modules()),
        "the modes are restored even if the model raises",
        "when the model raises, the modes stay changed: restore them in a `finally`",
    )


class _Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("this layer always raises")


def _model(trial: Trial) -> tuple[nn.Sequential, nn.BatchNorm1d]:
    """Return a model with dropout and batch normalization, and the latter alone."""
    normalization = nn.BatchNorm1d(8)
    model = nn.Sequential(nn.Linear(3, 8), normalization, nn.Dropout(0.5), nn.Linear(8, 3))
    with torch.no_grad():
        for each in (*model.parameters(), _running_mean(normalization)):
            each.copy_(trial.numbers(*each.shape))
    return model, normalization


def _running_mean(normalization: nn.BatchNorm1d) -> Tensor:
    found = normalization.running_mean
    assert found is not None
    return found


def _loss(x: Tensor, f: Tensor, mu: Tensor, logvar: Tensor, noise: float, beta: float) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return the loss by torch.distributions, and its parts: scaled squares, constant and KL, each a mean over the batch."""
    likelihood = Normal(f, noise).log_prob(x).sum(1).mean()
    kl = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(1).mean()
    constant = torch.tensor(0.5 * x.shape[1] * math.log(2 * math.pi * noise**2))
    return beta * kl - likelihood, (-likelihood - constant, constant, kl)


def _compare(trial: Trial, got: Any, wanted: Tensor, right: str, mistakes: dict[str, Tensor]) -> None:
    """Need the number, or name the mistake whose value it has."""
    value, scale = float(got), 1e-4 * (1 + abs(float(wanted)))
    if abs(value - float(wanted)) > scale:
        for told, mistaken in mistakes.items():
            if abs(value - float(mistaken)) <= scale:
                trial.stop(told)
    trial.need(abs(value - float(wanted)) <= scale, right, f"the value is {value:.4f}; an independent computation gives another one")
