"""The checks of chapter 2: one gray, many colors."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from . import Trial, exercise

_TOLERANCE = 1e-4


@exercise
def posterior_mean(trial: Trial, answer: Any) -> None:
    """Check the mean of M color fields with probabilities."""
    probabilities = _odds(trial, 4)
    fields = trial.numbers(4, 2, 5, 6)
    found = trial.call(answer, probabilities, fields)
    trial.shape("the mean field", found, (2, 5, 6))
    if _agrees(found, fields.mean(0)):
        trial.stop("this is the plain mean; it counts an unlikely coloring as much as a likely one")
    if _agrees(found, fields[int(probabilities.argmax())]):
        trial.stop("this is the most probable coloring, the mode, not the mean")
    wanted = torch.tensordot(probabilities, fields, dims=1)
    if _agrees(found, wanted / len(fields)):
        trial.stop("a division too many: probabilities sum to one already, so nothing is left to divide by")
    trial.close(found, wanted, "it agrees with an independent computation", "it differs from the exact mean by up to {difference:.3g}")
    even = torch.full((3,), 1 / 3)
    trial.close(
        trial.call(answer, even, fields[:3]),
        fields[:3].mean(0),
        "with even odds it is the plain mean",
        "even odds: off by {difference:.3g}",
    )
    sure = torch.tensor([0.0, 1.0, 0.0, 0.0])
    trial.close(
        trial.call(answer, sure, fields),
        fields[1],
        "with one certain coloring it is that coloring",
        "one is certain: off by {difference:.3g}",
    )


@exercise
def error_parts(trial: Trial, answer: Any) -> None:
    """Check the split of the expected squared error into variance and squared distance to the mean."""
    probabilities, fields, guess = _odds(trial, 4), trial.numbers(4, 2, 3, 5), trial.numbers(2, 3, 5)
    found = trial.call(answer, probabilities, fields, guess)
    if not isinstance(found, tuple) or len(found) != 2:
        trial.stop("return two numbers, `variance, distance`")
    variance, distance = found
    trial.shape("the variance", variance, ())
    trial.shape("the distance", distance, ())
    variance, distance = float(variance), float(distance)
    mean = torch.tensordot(probabilities, fields, dims=1)
    each = (fields - mean).square().flatten(1).sum(1)
    total = float(probabilities @ (fields - guess).square().flatten(1).sum(1))
    if _near(variance, total):
        trial.stop("your variance is the whole expected error: it measures from the answer; measure it from the mean")
    if _near(variance, float(probabilities @ each) / mean.numel()):
        trial.stop("you averaged over the numbers of a field; the squared length of a vector is their sum")
    if _near(variance, float(each.mean())):
        trial.stop("every coloring got the same weight in the variance; weigh each by its probability")
    if _near(distance, float((guess - mean).norm())):
        trial.stop("the distance is not squared")
    trial.close(
        variance + distance,
        total,
        "the two parts add up to the expected squared error",
        "the parts add up to {found:.4g}, not to {wanted:.4g}",
    )
    other = trial.call(answer, probabilities, fields, guess + 1)
    trial.close(
        float(other[0]), variance, "the variance does not depend on the answer", "the variance changed by {difference:.3g} with the answer"
    )
    best = trial.call(answer, probabilities, fields, mean)
    trial.close(float(best[1]), 0.0, "at the mean only the variance is left", "at the mean a distance of {found:.3g} is left")


@exercise
def weighted_median(trial: Trial, answer: Any) -> None:
    """Check a minimizer of the expected absolute error of weighted values."""
    values = torch.tensor([27.0, -30.0, 6.0, 40.0, -3.0])
    weights = torch.tensor([0.10, 0.15, 0.15, 0.05, 0.55])
    found = trial.call(answer, values, weights)
    trial.shape("the median", found, ())
    found = float(found)
    if _near(found, float((weights * values).sum())):
        trial.stop("this is the mean: it minimizes the squared error")
    if _near(found, float(values.median())):
        trial.stop("this is the median of the values without their weights")
    unsorted = float(values.sort().values[int((weights.cumsum(0) >= 0.5).nonzero()[0])])
    if _near(found, unsorted):
        trial.stop("the values are sorted, but the weights stayed in the old order")
    trial.close(
        found,
        -3.0,
        "a value with more than half of the weight is the answer",
        "more than half of the weight lies on {wanted:g}; you return {found:g}",
    )
    worst = 0.0
    for count in (2, 3, 4, 7):
        values, weights = 20 * trial.numbers(count), _odds(trial, count)
        found = float(trial.call(answer, values, weights))
        worst = max(worst, _absolute(found, values, weights) - min(_absolute(float(v), values, weights) for v in values))
    trial.that(
        worst < 1e-3,
        "no other value has a smaller expected absolute error",
        f"some value has an expected absolute error that is smaller by {worst:.3g}",
    )
    even = float(trial.call(answer, torch.tensor([2.0, -4.0]), torch.tensor([0.5, 0.5])))
    trial.that(-4 <= even <= 2, "an even split: it lies between the two", f"for -4 and 2 with even odds you return {even:g}")


@exercise
def coherent_probability(trial: Trial, answer: Any) -> None:
    """Check the probability that regions which draw their colors alone all draw the same coloring."""
    probabilities = torch.tensor([0.5, 0.3, 0.2])
    found = trial.call(answer, probabilities, 3)
    trial.shape("the probability", found, ())
    found = float(found)
    squares = float(probabilities.square().sum())
    if _near(found, squares**3):
        trial.stop("you took the chance that two agree to a power; three that agree are not three pairs that agree independently")
    if _near(found, float(probabilities.max() ** 3)):
        trial.stop("you counted only the most probable coloring; all regions may also agree on another one")
    if _near(found, squares):
        if _near(float(trial.call(answer, probabilities, 5)), squares):
            trial.stop("this is right for two regions only; the number of regions plays no part in it")
        trial.stop("it looks as if you left out one region; the first one has to draw the coloring, too")
    if _near(found, 3 * float(probabilities.prod())):
        trial.stop("you multiplied the probabilities of different colorings; agreement is the same coloring again and again")
    for count, regions in ((2, 1), (2, 2), (3, 3), (4, 5)):
        odds = _odds(trial, count)
        wanted = sum(float(odds[list(drawn)].prod()) for drawn in itertools.product(range(count), repeat=regions) if len(set(drawn)) == 1)
        found = float(trial.call(answer, odds, regions))
        trial.close(
            found,
            wanted,
            f"{count} colorings, {regions} regions: it agrees with counting all cases",
            "counting all cases gives {wanted:.4f}, yours {found:.4f}",
        )


@exercise
def components_needed(trial: Trial, answer: Any) -> None:
    """Check how many principal components hold a share of the variance."""
    variances, total = torch.tensor([9.0, 1.0, 1.0, 1.0]), 16.0
    found = trial.call(answer, variances, total, 0.6)
    whole = isinstance(found, (int, float)) or (isinstance(found, Tensor) and found.numel() == 1)
    whole = whole and float(found).is_integer()
    trial.need(whole, "the result is a whole number", f"the result is {found!r}, not a whole number")
    pair = (int(trial.call(answer, variances, total, 0.55)), int(found))
    if pair == (0, 1):
        trial.stop("one too few: you count the components that are not yet enough; the one that reaches the share belongs to them")
    if pair == (1, 1):
        trial.stop("you compare with the sum of the variances given; the data have more, `total`, in directions that are not listed")
    if pair == (2, 2):
        trial.stop("it looks as if you added standard deviations; only variances add up")
    trial.that(
        pair == (1, 2), "it follows the running sum", f"of a total of 16, 9 is more than 55 % and 9 + 1 more than 60 %; you say {pair}"
    )
    exact = int(trial.call(answer, torch.tensor([5.0, 2.0, 1.0]), 10.0, 0.5))
    trial.that(exact == 1, "a share that is reached exactly counts as reached", f"one component holds exactly half; you return {exact}")
    wrong = 0
    for _ in range(5):
        drawn = trial.uniform(12).sort(descending=True).values
        total, share = float(drawn.sum()) + 1.0, float(trial.uniform(1, low=0.2, high=0.7))
        wanted = next(d for d in range(1, 13) if float(drawn[:d].sum()) >= share * total)
        wrong += int(trial.call(answer, drawn, total, share)) != wanted
    trial.that(
        wrong == 0, "five random cases agree with adding up one by one", f"{wrong} of five random cases differ from adding up one by one"
    )


def _odds(trial: Trial, count: int) -> Tensor:
    """Return uneven probabilities that sum to one."""
    raw = trial.uniform(count, low=0.1) + torch.arange(count)
    return raw / raw.sum()


def _absolute(answer: float, values: Tensor, weights: Tensor) -> float:
    return float((weights * (values - answer).abs()).sum())


def _near(found: float, wanted: float) -> bool:
    return abs(found - wanted) <= _TOLERANCE * (1 + abs(wanted))


def _agrees(found: Tensor, wanted: Tensor) -> bool:
    return bool((found.double() - wanted.double()).abs().max() < _TOLERANCE)
