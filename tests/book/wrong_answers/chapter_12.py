"""Typical wrong answers to the exercises of chapter 12: what is wrong, the answer, and what the check must say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]
Map = Callable[[Tensor], Tensor]


def _ascending(weights: Tensor, codes: Tensor) -> Pair:
    order = weights.argsort(dim=1)
    return weights.gather(1, order), codes.gather(1, order[..., None].expand_as(codes))


def _order_of_the_first(weights: Tensor, codes: Tensor) -> Pair:
    order = weights[0].argsort(descending=True)
    return weights[:, order], codes[:, order]


def _codes_forgotten(weights: Tensor, codes: Tensor) -> Pair:
    return weights.sort(dim=1, descending=True)[0], codes


def _codes_of_the_first(weights: Tensor, codes: Tensor) -> Pair:
    return weights.sort(dim=1, descending=True)[0], codes[:, weights[0].argsort(descending=True)]


def _count(p: Tensor, enough: Callable[[Tensor], Any]) -> int:
    S = 1
    while not bool(enough(torch.tensor(float(S)))) and S < 1000:
        S += 1
    return S


def _all_at_once(p: Tensor, share: float) -> int:
    return _count(p, lambda S: torch.prod(1 - (1 - p) ** S) >= share)


def _without_the_number(p: Tensor, share: float) -> int:
    return _count(p, lambda S: (1 - (1 - p) ** S).sum() >= share)


def _repeated(p: Tensor, share: float) -> int:
    return _count(p, lambda S: (S * p).sum() >= share * len(p))


def _same_each_time(p: Tensor, share: float) -> int:
    return _count(p, lambda S: (p**S).sum() >= share * len(p))


def _impossible_counted(p: Tensor, share: float) -> int:
    return _count(p, lambda S: (1 - (1 - p) ** S).sum() >= share * len(p))


def _sign(target: Tensor, up: Map, down: Map, rounds: int) -> Tensor:
    result = up(target)
    for _ in range(rounds):
        result = result + up(down(result) - target)
    return result


def _same_rest(target: Tensor, up: Map, down: Map, rounds: int) -> Tensor:
    result = up(target)
    missing = target - down(result)
    for _ in range(rounds):
        result = result + up(missing)
    return result


def _one_less(target: Tensor, up: Map, down: Map, rounds: int) -> Tensor:
    result = up(target)
    for _ in range(rounds - 1):
        result = result + up(target - down(result))
    return result


def _small(target: Tensor, up: Map, down: Map, rounds: int) -> Tensor:
    result = up(target)
    for _ in range(rounds):
        target = target + (target - down(result))
        result = target
    return result


def _bisect(ab: Tensor, fits: Callable[[Tensor], bool], rounds: int, end: int) -> float:
    ends = [0.0, 1.0]
    for _ in range(rounds):
        middle = sum(ends) / 2
        ends[0 if fits(middle * ab) else 1] = middle
    return ends[end]


def _outside(ab: Tensor, fits: Callable[[Tensor], bool], rounds: int = 30) -> float:
    return 1.0 if fits(ab) else _bisect(ab, fits, rounds, 1)


def _never_one(ab: Tensor, fits: Callable[[Tensor], bool], rounds: int = 30) -> float:
    return _bisect(ab, fits, rounds, 0)


def _one_halving(ab: Tensor, fits: Callable[[Tensor], bool], rounds: int = 30) -> float:
    factor = 1.0
    if not fits(ab):
        factor = 0.5
    return factor


def _taken_away(ab: Tensor, fits: Callable[[Tensor], bool], rounds: int = 30) -> float:
    return 1 - _bisect(ab, fits, rounds, 0)


def _square(colors: Tensor, hint: Tensor) -> Tensor:
    return (colors - hint).square().sum(1)


def _unnormalized(weights: Tensor, colors: Tensor, hint: Tensor, tau: float) -> Tensor:
    return weights * (-_square(colors, hint) / (2 * tau**2)).exp()


def _underflow(weights: Tensor, colors: Tensor, hint: Tensor, tau: float) -> Tensor:
    values = _unnormalized(weights, colors, hint, tau)
    return values / values.sum()


def _tau(weights: Tensor, colors: Tensor, hint: Tensor, tau: float) -> Tensor:
    return (weights.log() - _square(colors, hint) / (2 * tau)).softmax(0)


def _no_half(weights: Tensor, colors: Tensor, hint: Tensor, tau: float) -> Tensor:
    return (weights.log() - _square(colors, hint) / tau**2).softmax(0)


def _no_prior(weights: Tensor, colors: Tensor, hint: Tensor, tau: float) -> Tensor:
    return (-_square(colors, hint) / (2 * tau**2)).softmax(0)


def _farthest(weights: Tensor, colors: Tensor, hint: Tensor, tau: float) -> Tensor:
    return (weights.log() + _square(colors, hint) / (2 * tau**2)).softmax(0)


WRONG: dict[str, list[tuple[str, Any, str]]] = {
    "heaviest_first": [
        ("ascending", _ascending, "ascend unless they are told otherwise"),
        ("one order for all", _order_of_the_first, "sorted by the weights of the first one"),
        ("codes forgotten", _codes_forgotten, "still in the old order"),
        ("codes in one order for all", _codes_of_the_first, "another order than the weights"),
        ("weights alone", lambda weights, codes: weights.sort(dim=1, descending=True)[0], "return two things"),
    ],
    "draws_needed": [
        ("all at once", _all_at_once, "all modes be there with that probability"),
        ("without the number of modes", _without_the_number, "without comparing with the number of modes"),
        ("repeated modes", _repeated, "counts the same mode again"),
        ("the same each time", _same_each_time, "every draw shows the same mode"),
        ("impossible modes counted", _impossible_counted, "no one waits for it"),
    ],
    "back_project": [
        ("wrong sign", _sign, "wrong sign"),
        ("the same rest each time", _same_rest, "every round adds the same difference"),
        ("one round less", _one_less, "one round is missing"),
        ("small and large added", _small, "raises|shape"),
    ],
    "largest_factor": [
        ("the end outside", _outside, "a hair outside"),
        ("never one", _never_one, "should give 1"),
        ("one halving", _one_halving, "keep halving"),
        ("what is taken away", _taken_away, "the factor is what remains"),
    ],
    "given_hint": [
        ("not normalized", _unnormalized, "divide by their sum"),
        ("densities", _underflow, "underflow to 0"),
        ("tau for its square", _tau, "tau stands where tau squared belongs"),
        ("no half", _no_half, "factor 1/2"),
        ("no prior", _no_prior, "old weights are missing"),
        ("wrong sign", _farthest, "sign is wrong"),
    ],
}
