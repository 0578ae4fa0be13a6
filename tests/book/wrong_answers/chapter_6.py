"""Typical wrong answers to the exercises of chapter 6: what is wrong, the answer, and what the check must say."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def _terms(x: Tensor, f: Tensor, mu: Tensor, logvar: Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """Squares and KL of each row, and the constant."""
    squares = (x - f).square().sum(1) / (2 * noise**2)
    kl = 0.5 * (mu.square() + logvar.exp() - logvar - 1).sum(1)
    return squares, kl, torch.tensor(0.5 * x.shape[1] * math.log(2 * math.pi * noise**2))


def _kl_summed_over_batch(x: Tensor, f: Tensor, mu: Tensor, logvar: Tensor, noise: float, beta: float) -> Tensor:
    squares, kl, constant = _terms(x, f, mu, logvar, noise)
    return squares.mean() + constant + beta * kl.sum()


def _mean_squares(x: Tensor, f: Tensor, mu: Tensor, logvar: Tensor, noise: float, beta: float) -> Tensor:
    squares, kl, constant = _terms(x, f, mu, logvar, noise)
    return squares.mean() / x.shape[1] + constant + beta * kl.mean()


def _sigma_in_kl(x: Tensor, f: Tensor, mu: Tensor, logvar: Tensor, noise: float, beta: float) -> Tensor:
    squares, _, constant = _terms(x, f, mu, logvar, noise)
    kl = 0.5 * (mu.square() + (0.5 * logvar).exp() - 0.5 * logvar - 1).sum(1)
    return squares.mean() + constant + beta * kl.mean()


def _wrong_sign(x: Tensor, f: Tensor, mu: Tensor, logvar: Tensor, noise: float, beta: float) -> Tensor:
    squares, kl, constant = _terms(x, f, mu, logvar, noise)
    return squares.mean() + constant - beta * kl.mean()


def _without_constant(x: Tensor, f: Tensor, mu: Tensor, logvar: Tensor, noise: float, beta: float) -> Tensor:
    squares, kl, _ = _terms(x, f, mu, logvar, noise)
    return squares.mean() + beta * kl.mean()


def _validate_leaky(model: nn.Module, x: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        error = (model(x) - x).square().sum(1).mean()
    model.train()
    return float(error)


def _validate_stays_in_eval(model: nn.Module, x: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        return float((model(x) - x).square().sum(1).mean())


def _validate_outer_mode_only(model: nn.Module, x: Tensor) -> float:
    before = model.training
    model.eval()
    with torch.no_grad():
        error = (model(x) - x).square().sum(1).mean()
    model.train(before)
    return float(error)


def _validate_in_training_mode(model: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((model(x) - x).square().sum(1).mean())


def _validate_without_finally(model: nn.Module, x: Tensor) -> float:
    before = [(part, part.training) for part in model.modules()]
    model.eval()
    with torch.no_grad():
        error = (model(x) - x).square().sum(1).mean()
    for part, training in before:
        part.training = training
    return float(error)


WRONG: dict[str, list[tuple[str, Any, str]]] = {
    "vae_loss": [
        ("KL summed over the batch", _kl_summed_over_batch, "KL is summed over the batch"),
        ("mean squared error", _mean_squares, "averaged over the M numbers"),
        ("sigma in the KL", _sigma_in_kl, "sigma stands where sigma squared belongs"),
        ("the sign of the KL", _wrong_sign, "wrong sign"),
        ("no constant", _without_constant, "constant of the Gaussian is missing"),
        ("the ELBO", lambda *a: -_right_loss(*a), "ELBO itself"),
        ("one value for each row", lambda x, f, mu, logvar, noise, beta: _terms(x, f, mu, logvar, noise)[0], r"has shape \(6,\)"),
    ],
    "active": [
        ("mean square", lambda mu, threshold: int((mu.square().mean(0) > threshold).sum()), "stands still away from 0"),
        ("standard deviation", lambda mu, threshold: int((mu.std(0) > threshold).sum()), "standard deviation"),
        ("over the dimensions", lambda mu, threshold: int((mu.var(1) > threshold).sum()), "counted data points"),
        ("which instead of how many", lambda mu, threshold: mu.var(0) > threshold, "should be one integer"),
        ("the inactive ones", lambda mu, threshold: int((mu.var(0) < 0.009).sum()), "three dimensions move|not active"),
    ],
    "free_bits": [
        ("maximum before the mean", lambda kl, floor: kl.clamp(min=floor).sum(1).mean(), "mean over the batch first"),
        ("one floor for all", lambda kl, floor: kl.sum(1).mean().clamp(min=floor), "sum of all dimensions|each dimension has its own"),
        ("minimum", lambda kl, floor: kl.mean(0).clamp(max=floor).sum(), "minimum"),
        ("subtracted", lambda kl, floor: (kl.mean(0) - floor).clamp(min=0).sum(), "floor is subtracted"),
        ("averaged", lambda kl, floor: kl.mean(0).clamp(min=floor).mean(), "dimensions are averaged"),
        ("no gradient", lambda kl, floor: torch.tensor(kl.detach().mean(0).clamp(min=floor).sum().item()), "no gradient"),
    ],
    "warm_up": [
        ("not kept at 1", lambda step, start, end: max(0.0, (step - start) / (end - start)), "beyond 1"),
        ("not kept at 0", lambda step, start, end: min(1.0, (step - start) / (end - start)), "negative before the start"),
        ("start ignored", lambda step, start, end: min(1.0, step / end), "ignored `start`"),
        ("downward", lambda step, start, end: 1 - min(1.0, max(0.0, (step - start) / (end - start))), "falls from 1 to 0"),
        (
            "never the whole price",
            lambda step, start, end: 0.9 * min(1.0, max(0.0, (step - start) / (end - start))),
            "never charges the whole",
        ),
        ("integer division", lambda step, start, end: min(1, max(0, (step - start) // (end - start))), "integer division"),
    ],
    "path": [
        ("no end", lambda start, end, count: start + torch.arange(count)[:, None] / count * (end - start), "one step short"),
        ("backward", lambda start, end, count: end + torch.linspace(0, 1, count)[:, None] * (start - end), "runs backward"),
        (
            "transposed",
            lambda start, end, count: start[:, None] + torch.linspace(0, 1, count) * (end - start)[:, None],
            r"has shape \(4, 6\)",
        ),
        ("uneven", lambda start, end, count: start + torch.linspace(0, 1, count)[:, None].square() * (end - start), "steps are not equal"),
    ],
    "validate": [
        ("ends in training mode", _validate_leaky, "frozen model, or a frozen layer, thaws"),
        ("ends in evaluation mode", _validate_stays_in_eval, "leaves everything in evaluation mode"),
        ("the outermost mode only", _validate_outer_mode_only, "a mode for each layer"),
        ("no evaluation mode", _validate_in_training_mode, "run in training mode"),
        ("no finally", _validate_without_finally, "finally"),
    ],
}


def _right_loss(x: Tensor, f: Tensor, mu: Tensor, logvar: Tensor, noise: float, beta: float) -> Tensor:
    squares, kl, constant = _terms(x, f, mu, logvar, noise)
    return squares.mean() + constant + beta * kl.mean()
