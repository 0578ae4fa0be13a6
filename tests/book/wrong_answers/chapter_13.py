"""Typical wrong answers to the exercises of chapter 13, with the mistake that the check must name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

Bounds = tuple[float, float]


def _whole(outputs: Tensor, truth: Tensor) -> Tensor:
    return (outputs - truth[:, None]).square().mean((2, 3, 4)).sqrt()


def _noise(guess: Tensor, K: int, rng: torch.Generator, size: float, same: bool = False) -> Tensor:
    count = 1 if same else K
    noise = torch.randn((len(guess), count, *guess.shape[1:]), generator=rng).expand(len(guess), K, *guess.shape[1:])
    return guess[:, None] + size * noise


def _in_place(guess: Tensor, K: int, rng: torch.Generator) -> Tensor:
    guess += 0.1 * torch.randn(guess.shape, generator=rng)
    return _noise(guess, K, rng, 0.1)


def _own_seed(guess: Tensor, K: int, rng: torch.Generator) -> Tensor:
    return _noise(guess, K, torch.Generator().manual_seed(0), 0.1)


def _tv(p: Tensor, hits: Tensor, weights: Tensor, share: bool = True, nothing: bool = True, add: bool = True, half: float = 0.5) -> Tensor:
    weights = weights / weights.sum() if share else weights
    on = weights[:, None] * hits
    q = on.sum(0) if add else on.amax(0)
    return half * ((p - q).abs().sum() + ((1 - q.sum()) if nothing else 0))


def _largest(p: Tensor, hits: Tensor, weights: Tensor) -> Tensor:
    share = weights / weights.sum()
    return (p - (share[:, None] * hits).sum(0)).abs().max()


def _interval(values: Tensor, groups: Tensor, rounds: int, seed: int, equal: bool = False) -> Bounds:
    _, member = np.unique(groups.numpy(), return_inverse=True)
    sums, counts = np.bincount(member, weights=values.double().numpy()), np.bincount(member).astype(float)
    if equal:
        sums, counts = sums / counts, np.ones_like(counts)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (rounds, len(sums)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def _unpaired(first: Tensor, second: Tensor, person: Tensor, rounds: int, seed: int) -> Bounds:
    _, member = np.unique(person.numpy(), return_inverse=True)
    rng, means = np.random.default_rng(seed), []
    for values in (first, second):
        sums, counts = np.bincount(member, weights=values.double().numpy()), np.bincount(member)
        drawn = rng.integers(0, len(sums), (rounds, len(sums)))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return float(low), float(high)


def _bins(
    weights: Tensor, hits: Tensor, bins: int, join: Callable[[list[tuple[float, float, float, float]]], float], open_: bool = False
) -> float:
    found = []
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = (weights >= low) & (weights < high) if open_ else (weights > low) & (weights <= high)
        if inside.any():
            held = float(inside.float().mean())
            found.append((held, float(weights[inside].mean()), float(hits[inside].float().mean()), (low + high) / 2))
    return join(found)


WRONG: dict[str, list[tuple[str, Any, str]]] = {
    "error_of_best_k": [
        ("mean over answers", lambda o, t, K: _whole(o, t)[:, :K].mean(1), "mean over the answers"),
        ("per pixel", lambda o, t, K: (o[:, :K] - t[:, None]).square().amin(1).mean((1, 2, 3)).sqrt(), "patchwork"),
        ("all answers", lambda o, t, K: _whole(o, t).min(1).values, "more than the first K"),
        ("no root", lambda o, t, K: _whole(o, t)[:, :K].square().min(1).values, "the root is missing"),
        ("sum", lambda o, t, K: (o[:, :K] - t[:, None]).square().sum((2, 3, 4)).sqrt().min(1).values, "adds up"),
        ("one number", lambda o, t, K: _whole(o, t)[:, :K].min(1).values.mean(), r"should be \(4,\)"),
    ],
    "cheat": [
        ("the same eight times", lambda g, K, r: g[:, None].expand(-1, K, -1, -1, -1), "variance is zero"),
        ("one noise for all", lambda g, K, r: _noise(g, K, r, 0.1, same=True), "variance is zero"),
        ("too little", lambda g, K, r: _noise(g, K, r, 0.02), "should exceed 0.005"),
        ("too much", lambda g, K, r: _noise(g, K, r, 1.0), "stray much farther"),
        ("in place", _in_place, "changes the guess"),
        ("own seed", _own_seed, "draw from `rng`"),
    ],
    "distance_to_truth": [
        ("no half", lambda p, h, w: _tv(p, h, w, half=1.0), "one half is missing"),
        ("nothing forgotten", lambda p, h, w: _tv(p, h, w, nothing=False), "hit nothing is missing"),
        ("not normalized", lambda p, h, w: _tv(p, h, w, share=False), "must sum to one first"),
        ("copies not added", lambda p, h, w: _tv(p, h, w, add=False), "their weights add up"),
        ("largest", _largest, "largest difference"),
    ],
    "paired_interval": [
        ("images", lambda a, b, s, n, seed: _interval(a - b, torch.arange(len(s)), n, seed), "images are drawn"),
        ("persons equal", lambda a, b, s, n, seed: _interval(a - b, s, n, seed, equal=True), "counts once"),
        ("unpaired", _unpaired, "drawn separately"),
        ("sign", lambda a, b, s, n, seed: _interval(b - a, s, n, seed), "wrong sign"),
        ("order", lambda a, b, s, n, seed: _interval(a - b, s, n, seed)[::-1], "lower one comes first"),
        ("one number", lambda a, b, s, n, seed: float((a - b).mean()), "return two numbers"),
    ],
    "calibration_error": [
        ("bins alike", lambda w, h, n: _bins(w, h, n, lambda f: sum(abs(s - a) for _, s, a, _ in f) / len(f)), "all bins count alike"),
        ("no absolute value", lambda w, h, n: _bins(w, h, n, lambda f: abs(sum(c * (s - a) for c, s, a, _ in f))), "cancel between bins"),
        ("middle of the bin", lambda w, h, n: _bins(w, h, n, lambda f: sum(c * abs(m - a) for c, _, a, m in f)), "middle of the bin"),
        ("squares", lambda w, h, n: _bins(w, h, n, lambda f: sum(c * (s - a) ** 2 for c, s, a, _ in f)), "squared"),
        ("each answer", lambda w, h, n: float((w - h.float()).abs().mean()), "for each answer"),
        ("1 in no bin", lambda w, h, n: _bins(w, h, n, lambda f: sum(c * abs(s - a) for c, s, a, _ in f), open_=True), "is 1 in a bin"),
    ],
}
