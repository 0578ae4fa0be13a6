"""The checks of chapter 11: what p(z|G) is fitted to, what it sees, and how to test it without changing it."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from . import Trial, exercise


@exercise
def aggregate_log_density(trial: Trial, answer: Any) -> None:
    """Try the density against torch.distributions, on uneven shares, and far away."""
    z, mu, logvar = trial.numbers(7, 3), trial.numbers(4, 3), trial.numbers(4, 3)
    shares = torch.tensor([0.5, 0.3, 0.15, 0.05])
    got = trial.call(answer, z, mu, logvar, shares)
    trial.shape("the result", got, (7,))
    each = Normal(mu, (0.5 * logvar).exp()).log_prob(z[:, None])  # (7, 4, 3)
    wanted = MixtureSameFamily(Categorical(shares), Independent(Normal(mu, (0.5 * logvar).exp()), 1)).log_prob(z)
    mistakes = {
        "it looks as if you took the mean of the logarithms; the densities are averaged, and the logarithm comes last": each.sum(2)
        @ shares,
        "it looks as if the shares are missing: this is a sum in which each posterior counts once": each.sum(2).logsumexp(1),
        "it looks as if every posterior has the same share; use `shares`": each.sum(2).logsumexp(1) - math.log(4),
        "it looks as if `shares` itself is added to a logarithm; a factor becomes its logarithm": (each.sum(2) + shares).logsumexp(1),
        "it looks as if exp(logvar), a variance, is used as a standard deviation": _mixed(
            Normal(mu, logvar.exp()).log_prob(z[:, None]), shares
        ),
        "it looks as if logvar itself is used as a variance or scale": _mixed(Normal(mu, logvar.abs()).log_prob(z[:, None]), shares),
        "this is the density; its logarithm is asked for": wanted.exp(),
        "it looks as if dimensions are averaged; log densities of independent numbers add up": (each.mean(2) + shares.log()).logsumexp(1),
        "the sign is wrong: this is the negative logarithm": -wanted,
    }
    _compare(trial, got, wanted, "it is the log density of torch.distributions' mixture", mistakes)
    far = trial.call(answer, z + 60, mu, logvar, shares)
    trial.need(
        isinstance(far, Tensor) and bool(torch.isfinite(far).all()),
        "it is finite far away from all posteriors",
        "far away it is infinite: the densities underflow to 0 before the logarithm",
    )
    twice = trial.call(answer, z, torch.cat([mu, mu]), torch.cat([logvar, logvar]), torch.cat([shares, shares]) / 2)
    trial.close(
        twice, got, "a coloring listed twice with half its share changes nothing", "a list in which all stand twice gives another density"
    )


@exercise
def best_gaussian(trial: Trial, answer: Any) -> None:
    """Try the moments against draws' exact moments, and against every Gaussian nearby."""
    mu, logvar = trial.numbers(9, 4) * torch.tensor([2.0, 1.0, 0.3, 0.0]), 0.7 * trial.numbers(9, 4) - 1
    got = trial.call(answer, mu, logvar)
    if not isinstance(got, tuple) or len(got) != 2:
        trial.stop(f"the result is a {type(got).__name__}; it should be a tuple: mean and variance")
    mean, variance = got
    trial.shape("the mean", mean, (4,))
    trial.shape("the variance", variance, (4,))
    trial.close(mean, mu.mean(0), "the mean is that of the aggregate", "the mean is off by {difference:.3g}")
    within, between = logvar.exp().mean(0), mu.var(0, correction=0)
    mistakes = {
        "it looks as if only the posteriors' own variances count; the posteriors also lie in different places": within,
        "it looks as if only the spread of the means counts; each posterior also has a width of its own": between,
        "it looks as if this is the standard deviation; the variance is asked for": (within + between).sqrt(),
        "it looks as if log variances are averaged; the mean is taken over variances": logvar.mean(0).exp() + between,
        "it looks as if the spread of the means is divided by N - 1; these are all colorings, not a sample of them": within + mu.var(0),
        "it looks as if the second moment is used; subtract the square of the mean": within + mu.square().mean(0),
        "it looks as if standard deviations are averaged and squared": (0.5 * logvar).exp().mean(0).square() + between,
    }
    _compare(trial, variance, within + between, "the variance is that of the aggregate", mistakes)

    def mean_kl(m: Tensor, v: Tensor) -> float:
        return float((0.5 * (v.log() - logvar + (logvar.exp() + (mu - m).square()) / v - 1)).sum(1).mean())

    best = mean_kl(mean, variance)
    others = [mean_kl(mean + 0.1 * trial.numbers(4), variance * (0.2 * trial.numbers(4)).exp()) for _ in range(20)]
    trial.that(best < min(others), "no Gaussian nearby has a smaller mean KL", "a Gaussian nearby has a smaller mean KL")


@exercise
def zhang_input(trial: Trial, answer: Any) -> None:
    """Try the scale on black, gray and white, and the enlargement on noise."""
    gray = trial.uniform(2, 1, 64, 64, low=-1.0)
    got = trial.call(answer, gray)
    trial.shape("the result", got, (2, 1, 224, 224))
    large = F.interpolate(gray, size=(224, 224), mode="bilinear", align_corners=False)
    mistakes = {
        "it looks as if the scale is that of the older Caffe weights, L - 50; divide by 100": 50 * large,
        "it looks as if gray went in as it is, (L - 50)/50: twice too strong": large,
        "it looks as if L went in without its center: black should be -0.5 and white 0.5": (large + 1) / 2,
        "it looks as if gray was taken for L: it runs from -1 to 1, not from 0 to 100": (large - 50) / 100,
        "it looks as if the photograph is enlarged with nearest pixels": F.interpolate(gray, size=(224, 224)) / 2,
        "it looks as if the corners are aligned; use align_corners=False": F.interpolate(
            gray, size=(224, 224), mode="bilinear", align_corners=True
        )
        / 2,
    }
    _compare(trial, got, large / 2, "it is (L - 50)/100 of the enlarged photograph", mistakes)
    for name, value, wanted in (("black", -1.0, -0.5), ("white", 1.0, 0.5)):
        flat = trial.call(answer, torch.full((1, 1, 64, 64), value))
        trial.close(flat, torch.full((1, 1, 224, 224), wanted), f"{name} becomes {wanted}", f"{name} becomes {{found:.3g}}")


@exercise
def exact_nll(trial: Trial, answer: Any) -> None:
    """Try the validation on a network with dropout, in batches that do not divide the count, in mixed modes."""
    features, z = trial.numbers(11, 3), trial.numbers(11, 2)
    z[8:] += 3  # the short last batch differs, so that its weight is seen
    modes, values, wanted = [], [], 0.0
    for outer, inner in ((True, True), (False, False), (True, False)):
        torch.manual_seed(0)
        network = _Mixture()
        network.train(outer)
        network.drop.train(inner)
        before = [part.training for part in network.modules()]
        values.append(trial.call(answer, network, features, z, 4))
        modes.append([part.training for part in network.modules()] == before)
        network.eval()
        with torch.no_grad():
            parts = [-network(rows).log_prob(codes) for rows, codes in zip(features.split(4), z.split(4))]
            wanted = float(torch.cat(parts).mean())
    trial.shape("the NLL", values[0], ())
    found = float(values[0])
    mistakes = {
        "it looks as if the means of batches are averaged: the short last batch then counts too much": float(
            torch.stack([p.mean() for p in parts]).mean()
        ),
        "it looks as if the last, short batch is left out": float(torch.cat(parts[:-1]).mean()),
        "it looks as if this is a sum; divide by the number of photographs": float(torch.cat(parts).sum()),
        "the sign is wrong: this is the mean log-likelihood": -wanted,
        "it looks as if it is divided by the number of batches": float(torch.cat(parts).sum()) / len(parts),
    }
    told = next((told for told, value in mistakes.items() if abs(found - value) < 1e-4 * (1 + abs(value))), None)
    if told and abs(found - wanted) > 1e-4 * (1 + abs(wanted)):
        trial.stop(told)
    trial.need(
        all(abs(float(value) - wanted) < 1e-4 * (1 + abs(wanted)) for value in values),
        "it is the mean over all photographs, whatever mode the network was in",
        "the value changes with the mode in which the network was found: dropout is at work in the test",
    )
    trial.that(
        not any(isinstance(value, Tensor) and value.requires_grad for value in values),
        "it carries no gradient",
        "the result carries a gradient: a test needs none",
    )
    trial.that(all(modes), "every layer has its own mode back", "a layer is left in another mode than it was found in: the mode leaks")


@exercise
def watch(trial: Trial, answer: Any) -> None:
    """Try the seal on parameters, on running averages, and on a network that did not change."""
    torch.manual_seed(0)
    first = nn.Linear(3, 4)
    network = nn.Sequential(first, nn.BatchNorm1d(4), nn.Dropout(0.5)).eval()
    changed = trial.call(answer, network)
    if not callable(changed):
        trial.stop(f"it returns a {type(changed).__name__}; it should return a function without arguments")
    found = trial.call(changed)
    if not isinstance(found, (list, tuple)):
        trial.stop(f"the function returns a {type(found).__name__}; it should be a list of names")
    trial.need(list(found) == [], "a network that rests has not changed", f"nothing has changed, and yet it reports {list(found)}")
    with torch.no_grad():
        network(trial.numbers(8, 3))
    trial.need(list(trial.call(changed)) == [], "evaluation changes nothing", "a pass in evaluation mode should be no change")
    with torch.no_grad():
        first.bias.add_(1)
    found = list(trial.call(changed))
    if not found:
        trial.stop("a parameter was changed in place and it is not noticed: it looks as if the tensors are remembered without a copy")
    trial.need(found == ["0.bias"], "a parameter that changed is named", f"only `0.bias` has changed; it reports {found}")
    network.train()
    with torch.no_grad():
        network(trial.numbers(8, 3) + 2)
    network.eval()
    found = list(trial.call(changed))
    wanted = ["0.bias", "1.num_batches_tracked", "1.running_mean", "1.running_var"]
    if found == ["0.bias"]:
        trial.stop("the running averages of the batch normalization moved and it is not noticed: look at more than the parameters")
    trial.that(found == wanted, "so are running averages, sorted by name", f"it reports {found}; it should be {wanted}")
    again = trial.call(trial.call(answer, network))
    trial.that(list(again) == [], "a new seal starts from now", "a new seal should compare with the network as it is now")


class _Mixture(nn.Module):
    """A small network whose output is a mixture, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.linear = nn.Dropout(0.5), nn.Linear(3, 2 + 4)

    def forward(self, features: Tensor) -> MixtureSameFamily:
        logits, means = self.linear(self.drop(features)).split([2, 4], dim=1)
        means = means.unflatten(1, (2, 2))
        return MixtureSameFamily(Categorical(logits=logits), Independent(Normal(means, torch.ones_like(means)), 1))


def _mixed(each: Tensor, shares: Tensor) -> Tensor:
    return (each.sum(2) + shares.log()).logsumexp(1)


def _compare(trial: Trial, got: Tensor, wanted: Tensor, right: str, mistakes: dict[str, Tensor]) -> None:
    """Record whether `got` is `wanted`; if it is what a known mistake gives, end the check and name the mistake."""
    got, wanted = got.detach(), wanted.detach()
    if not torch.allclose(got, wanted, rtol=1e-4, atol=1e-4):
        for told, value in mistakes.items():
            if torch.allclose(got, value.detach(), rtol=1e-4, atol=1e-4):
                trial.stop(told)
    if not trial.close(got, wanted, right, "it differs by {difference:.3g} from what it should be"):
        trial.stop("look at the formula again, term by term")
