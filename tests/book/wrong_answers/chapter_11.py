"""Typical wrong answers to the exercises of chapter 11: what is wrong, the answer, and what the check must say."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal

from divcolor_lib import runtime


def _each(z: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
    return Normal(mu, scale).log_prob(z[:, None]).sum(2)


def _mean_of_logs(z: Tensor, mu: Tensor, logvar: Tensor, shares: Tensor) -> Tensor:
    return _each(z, mu, (0.5 * logvar).exp()) @ shares


def _even_shares(z: Tensor, mu: Tensor, logvar: Tensor, shares: Tensor) -> Tensor:
    return _each(z, mu, (0.5 * logvar).exp()).logsumexp(1) - math.log(len(mu))


def _variance_as_scale(z: Tensor, mu: Tensor, logvar: Tensor, shares: Tensor) -> Tensor:
    return (_each(z, mu, logvar.exp()) + shares.log()).logsumexp(1)


def _underflow(z: Tensor, mu: Tensor, logvar: Tensor, shares: Tensor) -> Tensor:
    return ((_each(z, mu, (0.5 * logvar).exp()).exp()) @ shares).log()


def _density(z: Tensor, mu: Tensor, logvar: Tensor, shares: Tensor) -> Tensor:
    return _each(z, mu, (0.5 * logvar).exp()).exp() @ shares


def _within(mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    return mu.mean(0), logvar.exp().mean(0)


def _between(mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    return mu.mean(0), mu.var(0, correction=0)


def _deviation(mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    return mu.mean(0), (logvar.exp().mean(0) + mu.var(0, correction=0)).sqrt()


def _mean_of_logvar(mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    return mu.mean(0), logvar.mean(0).exp() + mu.var(0, correction=0)


def _large(gray: Tensor) -> Tensor:
    return F.interpolate(gray, size=(224, 224), mode="bilinear", align_corners=False)


def _mean_of_batches(mdn: nn.Module, features: Tensor, z: Tensor, batch: int) -> float:
    with runtime.evaluating(mdn):
        parts = [-mdn(f).log_prob(c).mean() for f, c in zip(features.split(batch), z.split(batch))]
    return float(torch.stack(parts).mean())


def _drops_the_last(mdn: nn.Module, features: Tensor, z: Tensor, batch: int) -> float:
    whole = len(z) // batch * batch
    with runtime.evaluating(mdn):
        return float(-mdn(features[:whole]).log_prob(z[:whole]).mean())


def _in_training_mode(mdn: nn.Module, features: Tensor, z: Tensor, batch: int) -> float:
    with torch.no_grad():
        return float(-mdn(features).log_prob(z).mean())


def _leaks(mdn: nn.Module, features: Tensor, z: Tensor, batch: int) -> float:
    mdn.eval()
    with torch.no_grad():
        score = float(-mdn(features).log_prob(z).mean())
    mdn.train()
    return score


def _positive(mdn: nn.Module, features: Tensor, z: Tensor, batch: int) -> float:
    with runtime.evaluating(mdn):
        return float(mdn(features).log_prob(z).mean())


def _without_clone(module: nn.Module) -> Callable[[], list[str]]:
    before = dict(module.state_dict())
    return lambda: sorted(name for name, value in module.state_dict().items() if not torch.equal(value, before[name]))


def _parameters_only(module: nn.Module) -> Callable[[], list[str]]:
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    return lambda: sorted(name for name, value in module.named_parameters() if not torch.equal(value, before[name]))


def _no_function(module: nn.Module) -> list[str]:
    return []


def _unchanged_names(module: nn.Module) -> Callable[[], list[str]]:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    return lambda: sorted(name for name, value in module.state_dict().items() if torch.equal(value, before[name]))


WRONG: dict[str, list[tuple[str, Any, str]]] = {
    "aggregate_log_density": [
        ("the mean of logarithms", _mean_of_logs, "mean of the logarithms"),
        ("equal shares", _even_shares, "same share"),
        ("a variance as a standard deviation", _variance_as_scale, "used as a standard deviation"),
        ("densities that underflow", _underflow, "underflow"),
        ("the density itself", _density, "its logarithm is asked for"),
    ],
    "best_gaussian": [
        ("only the variance within", _within, "different places"),
        ("only the variance between", _between, "a width of its own"),
        ("a standard deviation", _deviation, "the variance is asked for"),
        ("the mean of log variances", _mean_of_logvar, "log variances are averaged"),
    ],
    "zhang_input": [
        ("the scale of Caffe", lambda gray: 50 * _large(gray), "Caffe"),
        ("gray as it is", _large, "twice too strong"),
        ("gray taken for L", lambda gray: (_large(gray) - 50) / 100, "taken for L"),
        ("nearest pixels", lambda gray: F.interpolate(gray, size=(224, 224)) / 2, "nearest pixels"),
        ("not enlarged", lambda gray: gray / 2, "has shape"),
    ],
    "exact_nll": [
        ("the mean of batch means", _mean_of_batches, "means of batches are averaged"),
        ("the last batch left out", _drops_the_last, "left out"),
        ("training mode", _in_training_mode, "dropout is at work"),
        ("a mode that leaks", _leaks, "the mode leaks"),
        ("the likelihood", _positive, "the sign is wrong"),
    ],
    "watch": [
        ("no copies", _without_clone, "without a copy"),
        ("parameters only", _parameters_only, "more than the parameters"),
        ("no function", _no_function, "should return a function"),
        ("the names that stayed", _unchanged_names, "nothing has changed, and yet"),
    ],
}
