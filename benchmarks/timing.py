"""Two functions taking turns on the clock."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter


@dataclass(frozen=True)
class Timing:
    """What `take_turns` measured.

    Attributes:
        ratio: median over the pairs of (baseline's seconds / ours).
        low, high: smallest and largest ratio of a pair; far apart, they say that the machine was busy.
        ours, baseline: median seconds of one call.
    """

    ratio: float
    low: float
    high: float
    ours: float
    baseline: float


def take_turns(ours: Callable[[], object], baseline: Callable[[], object], rounds: int, repeats: int = 1) -> Timing:
    """Run both once unmeasured, then ours, baseline, ours, baseline, ... `rounds` times each.

    Args:
        rounds: the number of pairs, at least one.
        repeats: calls of `ours` in one turn. A call of a millisecond is too short to be measured alone.

    Raises:
        ValueError: `rounds` or `repeats` is below one.
    """
    if min(rounds, repeats) < 1:
        raise ValueError(f"rounds = {rounds} and repeats = {repeats}; both start at 1")
    ours(), baseline()
    pairs = [(_seconds(ours, repeats), _seconds(baseline, 1)) for _ in range(rounds)]
    # One ratio for each pair: what slows the machine for a while slows both halves of a pair.
    ratios = [slow / fast for fast, slow in pairs]
    fast, slow = (statistics.median(times) for times in zip(*pairs))
    return Timing(statistics.median(ratios), min(ratios), max(ratios), fast, slow)


def _seconds(call: Callable[[], object], repeats: int) -> float:
    start = perf_counter()
    for _ in range(repeats):
        call()
    return (perf_counter() - start) / repeats
