"""The checks of the exercises of chapter 13: error-of-best, a cheat, total variation, paired intervals and calibration error."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..runtime import generator
from . import Trial, exercise


@exercise
def error_of_best_k(trial: Trial, answer: Any) -> None:
    """From outputs (N, K', 2, H, W), truth (N, 2, H, W) and K to the smallest error of the first K answers, (N,)."""
    truth = 0.3 * trial.numbers(4, 2, 3, 5)
    spread = torch.tensor([0.6, 0.3, 0.4, 0.2, 0.1])
    outputs = truth[:, None] + spread.view(1, 5, 1, 1, 1) * trial.numbers(4, 5, 2, 3, 5)
    found = trial.call(answer, outputs, truth, 3)
    trial.shape("the result", found, (4,))
    wanted = torch.tensor([[float((o - t).pow(2).mean() ** 0.5) for o in some] for some, t in zip(outputs, truth)])
    square = (outputs - truth[:, None]).square()
    told = "it misses by {difference:.3g}; compute one error by hand, for one image and one answer"
    for mistake, name in (
        (wanted[:, :3].mean(1), "it is the mean over the answers; error-of-best takes the smallest"),
        (wanted[:, :3].max(1).values, "it is the largest error; the best answer has the smallest"),
        (wanted.min(1).values, "it looks at more than the first K answers"),
        (square[:, :3].amin(1).mean((1, 2, 3)).sqrt(), "the minimum is taken at each pixel: that scores a patchwork which nobody showed"),
        (square[:, :3].mean((2, 3, 4)).min(1).values, "it is a mean square; the root is missing"),
        (square[:, :3].sum((2, 3, 4)).sqrt().min(1).values, "it adds up over pixels and channels; the error takes their mean"),
        (
            square[:, :3].sum(2).sqrt().mean((2, 3)).min(1).values,
            "it takes a root at each pixel; the root comes after the mean over pixels",
        ),
        (wanted[:, :1].min(1).values, "it is the error of the first answer alone"),
    ):
        told = name if _near(found, mistake) else told
    trial.close(found, wanted[:, :3].min(1).values, right="the best of the first three whole answers", wrong=told)
    first = trial.call(answer, outputs, truth, 1)
    trial.close(
        first, wanted[:, 0], right="with K = 1 it is the error of the first answer", wrong="with K = 1 it misses by {difference:.3g}"
    )
    every = trial.call(answer, outputs, truth, 5)
    trial.that(
        torch.as_tensor(every <= found + 1e-6).all(),
        right="more answers never make it worse",
        wrong="with more answers an error went up; a minimum cannot do that",
    )


@exercise
def cheat(trial: Trial, answer: Any) -> None:
    """From a guess (N, 2, H, W), K and a generator to answers (N, K, 2, H, W) that fool per-pixel best-of-K and variance."""
    truth = 0.2 * trial.numbers(6, 2, 1, 1).expand(6, 2, 24, 24)
    guess = truth + 0.1 * trial.numbers(6, 2, 24, 24)
    given = guess.clone()
    outputs = trial.call(answer, guess, 8, generator(1))
    trial.shape("the result", outputs, (6, 8, 2, 24, 24))
    trial.need(bool((guess == given).all()), right="the guess is left as it was", wrong="your function changes the guess in place")
    own = float((guess - truth).square().mean((1, 2, 3)).sqrt().mean())
    spread = float(outputs.var(1, correction=0).mean())
    deviation = outputs - guess[:, None]
    told = f"variance@8 is {spread:.4f}; it should exceed 0.005"
    if spread < 1e-8:
        told = "all answers are the same: their variance is zero"
    trial.that(spread > 0.005, right="the variance is large", wrong=told)
    square = (outputs - truth[:, None]).square()
    pixel = float(square.amin(1).mean((1, 2, 3)).sqrt().mean())
    told = f"per-pixel best-of-8 is {pixel / own:.2f} of the guess's error; it should be below 0.67"
    if float(deviation.square().mean().sqrt()) > 2 * own:
        told += ". Your answers stray much farther than the guess misses, so few of them come near the truth"
    trial.that(pixel < 0.67 * own, right="per-pixel best-of-8 is fooled", wrong=told)
    whole = float(square.mean((2, 3, 4)).sqrt().min(1).values.mean())
    trial.that(
        whole > 0.9 * own,
        right="and no whole answer became better: it is a cheat",
        wrong="a whole answer came closer to the truth, so you know something of it; the cheat should not",
    )
    again = trial.call(answer, guess, 8, generator(2))
    trial.that(
        not torch.equal(torch.as_tensor(again), outputs),
        right="the draws come from `rng`",
        wrong="another generator gives the same answers: draw from `rng`",
    )


@exercise
def distance_to_truth(trial: Trial, answer: Any) -> None:
    """From p (M,), hits (K, M) and weights (K,) to the total variation over the M modes and `nothing`."""
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    hits = torch.zeros(5, 3, dtype=torch.bool)
    hits[[0, 1, 2], [0, 0, 1]] = True
    weights = torch.tensor([0.25, 0.1, 0.2, 0.15, 0.1], dtype=torch.float64)
    found = trial.call(answer, p, hits, weights)
    trial.shape("the result", found, ())
    told = "it misses by {difference:.3g}; write down q and what is left for `nothing`"
    share = weights / weights.sum()
    for mistake, name in (
        (_tv(p, hits, share) * 2, "the factor one half is missing: TV lies between 0 and 1"),
        (_tv(p, hits, share, nothing=False), "the weight on answers that hit nothing is missing from the sum"),
        (_tv(p, hits, weights), "the weights are used as they are; they must sum to one first"),
        (_tv(p, hits, share, add=False), "two answers hit the same mode, and only one of them counts; their weights add up"),
        (_tv(p, hits, share, again=True), "the weight on the modes was made to sum to one, so what hits nothing costs nothing"),
        ((p - (share[:, None] * hits).sum(0)).abs().max(), "it is the largest difference of one mode; TV adds all of them"),
    ):
        told = name if _near(found, mistake, 1e-6) else told
    trial.close(found, _tv(p, hits, share), right="three modes, five answers: right", wrong=told, tolerance=1e-6)
    exact = trial.call(answer, p, torch.eye(3, dtype=torch.bool), 7 * p)
    trial.close(
        exact, 0.0, right="the truth itself has distance 0, whatever its weights sum to", wrong="the exact weights give {found:.3g}, not 0"
    )
    off = trial.call(answer, p, torch.zeros(4, 3, dtype=torch.bool), torch.ones(4, dtype=torch.float64))
    trial.close(
        off, 1.0, right="answers that hit nothing have distance 1", wrong="answers that hit nothing give {found:.3g}; it should be 1"
    )


@exercise
def paired_interval(trial: Trial, answer: Any) -> None:
    """From the errors of two methods (N,), the person of each image (N,), rounds and a seed to (low, high) of the mean difference."""
    person = torch.cat([torch.zeros(30), torch.arange(1, 21).repeat_interleave(2), torch.arange(21, 41)]).long()
    tendency = trial.numbers(41)[person]
    shared = 3 * trial.numbers(90)
    first = shared + 0.5 * tendency + 0.1 * trial.numbers(90)
    second = shared
    found = trial.call(answer, first, second, person, 3000, 0)
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        trial.stop("return two numbers: low and high")
    low, high = (float(bound) for bound in found)
    trial.need(
        low < high, right="two bounds, the lower one first", wrong=f"the bounds are {low:.3g} and {high:.3g}; the lower one comes first"
    )
    wanted = _drawn(first - second, person)
    scale = wanted[1] - wanted[0]
    told = f"the bounds are {low:.3f} and {high:.3f}; they should be near {wanted[0]:.3f} and {wanted[1]:.3f}"
    difference = first - second
    alone = torch.arange(90)
    for mistake, name in (
        (_drawn(difference, alone), "these are the bounds when images are drawn; draw persons, with all their images"),
        (_drawn(difference, person, equal=True), "each person counts once, however many images; the mean is over images"),
        (_unpaired(first, second, person), "the two methods were drawn separately; take the difference on the same draw"),
        (_drawn(-difference, person), "the difference has the wrong sign: first minus second"),
        (_drawn(difference, person, levels=(0.05, 0.95)), "these are the 5 and 95 percent quantiles: that holds 90 percent"),
    ):
        if abs(low - mistake[0]) + abs(high - mistake[1]) < 0.12 * scale:
            told = name
    near = abs(low - wanted[0]) < 0.12 * scale and abs(high - wanted[1]) < 0.12 * scale
    trial.that(near, right="persons are drawn, with all their images, and the difference is paired", wrong=told)
    same = trial.call(answer, second + 0.25, second, person, 200, 1)
    trial.close(
        torch.tensor([float(bound) for bound in same]),
        torch.tensor([0.25, 0.25]),
        right="a constant difference has an interval of width 0",
        wrong="the first is 0.25 worse on every image, so both bounds should be 0.25; yours differ by {difference:.3g}",
    )


@exercise
def calibration_error(trial: Trial, answer: Any) -> None:
    """From weights (N,), hits (N,) and a number of bins to the expected calibration error."""
    weights = torch.cat([trial.uniform(60, low=0.01, high=0.3), trial.uniform(12, low=0.55, high=0.99), torch.tensor([0.25, 0.5, 1.0])])
    hits = trial.uniform(75) < 0.35
    found = trial.call(answer, weights, hits, 4)
    trial.shape("the result", found, ())
    bins = [(weights > b / 4) & (weights <= (b + 1) / 4) for b in range(4)]
    full = [inside for inside in bins if bool(inside.any())]
    gaps = [float(weights[inside].mean() - hits[inside].float().mean()) for inside in full]
    held = [float(inside.float().mean()) for inside in full]
    centers = [float(hits[inside].float().mean()) - (b + 0.5) / 4 for b, inside in enumerate(bins) if bool(inside.any())]
    wanted = sum(h * abs(gap) for h, gap in zip(held, gaps))
    told = "it misses by {difference:.3g}; take one bin and do it by hand"
    for mistake, name in (
        (sum(map(abs, gaps)) / len(gaps), "all bins count alike; a bin should count as much as it holds"),
        (
            abs(sum(h * gap for h, gap in zip(held, gaps))),
            "errors of opposite sign cancel between bins: the absolute value comes before the sum",
        ),
        (sum(h * gap**2 for h, gap in zip(held, gaps)), "the differences are squared; ECE takes their size"),
        (
            sum(h * abs(gap) for h, gap in zip(held, centers)),
            "the middle of the bin stands for its weights; use the mean of the weights in it",
        ),
        (float((weights - hits.float()).abs().mean()), "the difference is taken for each answer; ECE compares means over a bin"),
        (max(map(abs, gaps)), "it is the largest difference of one bin; ECE is their weighted mean"),
    ):
        told = name if _near(found, torch.tensor(mistake)) else told
    trial.close(found, wanted, right="75 answers in four bins: right", wrong=told)
    sure = trial.call(answer, torch.ones(40), torch.arange(40) % 4 == 0, 10)
    trial.close(
        sure,
        0.75,
        right="certain, and right once in four: 0.75",
        wrong="certain and right once in four gives {found:.3g}, not 0.75; is 1 in a bin?",
    )
    blind = trial.call(answer, torch.full((40,), 0.25), torch.arange(40) % 4 == 0, 10)
    trial.close(
        blind,
        0.0,
        right="a constant that is right on average passes, whatever it knows",
        wrong="a constant right on average gives {found:.3g}, not 0",
    )


def _near(found: Any, mistake: Tensor, tolerance: float = 1e-4) -> bool:
    found = torch.as_tensor(found).detach().double()
    return found.shape == mistake.shape and bool(((found - mistake).abs() < tolerance * (1 + mistake.abs())).all())


def _tv(p: Tensor, hits: Tensor, share: Tensor, nothing: bool = True, add: bool = True, again: bool = False) -> Tensor:
    on = share[:, None] * hits
    q = on.sum(0) if add else on.amax(0)
    if again:
        q = q / q.sum()
    left = 1 - q.sum()
    return 0.5 * ((p - q).abs().sum() + (left if nothing else 0.0))


def _sums(values: Tensor, person: Tensor) -> tuple[np.ndarray, np.ndarray]:
    _, member = np.unique(person.numpy(), return_inverse=True)
    return np.bincount(member, weights=values.double().numpy()), np.bincount(member).astype(float)


def _drawn(values: Tensor, person: Tensor, equal: bool = False, levels: tuple[float, float] = (0.025, 0.975)) -> tuple[float, float]:
    sums, counts = _sums(values, person)
    if equal:
        sums, counts = sums / counts, np.ones_like(counts)
    people = len(sums)
    drawn = np.random.default_rng(5).multinomial(people, np.full(people, 1 / people), size=20000)
    low, high = np.quantile((drawn @ sums) / (drawn @ counts), levels)
    return float(low), float(high)


def _unpaired(first: Tensor, second: Tensor, person: Tensor) -> tuple[float, float]:
    rng = np.random.default_rng(5)
    means = []
    for values in (first, second):
        sums, counts = _sums(values, person)
        drawn = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=20000)
        means.append((drawn @ sums) / (drawn @ counts))
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return float(low), float(high)
