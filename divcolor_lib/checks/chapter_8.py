"""The exercises of chapter 8: the typology angle, shares of time, a table for bytes, a split that does not leak, copying, collating."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import Trial, exercise

#: Seconds that the stages of the second exercise take; the first call of one of them takes FIRST_CALL more.
STAGES = {"read": 0.002, "convert": 0.012, "stack": 0.001}
FIRST_CALL = 0.15


@exercise
def typology_angle(trial: Trial, answer: Any) -> None:
    """`L` and `b`, tensors of one shape, to the individual typology angle in degrees."""
    light, yellow = trial.uniform(4, 6, low=20, high=95), trial.uniform(4, 6, low=2, high=35)
    found = trial.call(answer, light, yellow)
    trial.same_shape("the result", found, light)
    wanted = torch.rad2deg(torch.atan2(light - 50, yellow))
    mistakes = {
        "your angles look like radians; degrees are asked": torch.deg2rad(wanted),
        "the 50 must be taken from L before dividing: mind the brackets": torch.rad2deg(torch.atan(light - 50 / yellow)),
        "it looks as if nothing was taken from L: the angle is seen from the point where L is 50": torch.rad2deg(
            torch.atan2(light, yellow)
        ),
        "that is the angle from the vertical: height and width are exchanged": torch.rad2deg(torch.atan2(yellow, light - 50)),
        "that is the slope, not yet its angle": (light - 50) / yellow,
    }
    _named(trial, found, wanted, mistakes)
    trial.close(found, wanted, "24 colors have their angle", "one color has {wanted:.2f} degrees; you give {found:.2f}")
    ends = trial.call(answer, torch.tensor([80.0, 20.0]), torch.tensor([0.0, 0.0]))
    trial.close(
        ends,
        torch.tensor([90.0, -90.0]),
        "b = 0 gives a right angle, up or down",
        "for b = 0 you give {found:.1f} in place of {wanted:.0f}",
    )


@exercise
def time_shares(trial: Trial, answer: Any) -> None:
    """Stages by name and items to the share of the time of each stage, after one warm-up."""
    seen: dict[str, list[int]] = {name: [] for name in STAGES}

    def stage(name: str, pause: float) -> Callable[[int], int]:
        def run(value: int) -> int:
            time.sleep(pause + (FIRST_CALL if name == "read" and not seen[name] else 0.0))
            seen[name].append(value)
            return value * 10

        return run

    found = trial.call(answer, {name: stage(name, pause) for name, pause in STAGES.items()}, [1, 2, 3, 4, 5])
    trial.need(
        isinstance(found, dict) and set(found) == set(STAGES), "every stage has its number", "return a dict with one number for each stage"
    )
    if set(seen["convert"]) & {1, 2, 3, 4, 5}:
        trial.stop("every stage got the item itself; a stage gets what the stage before returned")
    trial.need(
        {1, 2, 3, 4, 5} <= set(seen["read"]) and {10, 20, 30, 40, 50} <= set(seen["convert"]),
        "all items go through all stages",
        "not every item went through every stage",
    )
    total = sum(found.values())
    if abs(total - 100) < 1:
        trial.stop("the numbers sum to 100; shares sum to 1")
    trial.need(abs(total - 1) < 1e-6, "the shares sum to one", f"the numbers sum to {total:.3f}: these are no shares; divide by the total")
    if found["read"] > found["convert"]:
        trial.stop("your largest stage is the one whose first call is slow: run one item through everything before you measure")
    trial.that(
        max(found, key=lambda name: found[name]) == "convert",
        "the slowest stage is found",
        f"the slowest stage has {found['convert']:.0%} in your measurement; it should have most",
    )


@exercise
def byte_table(trial: Trial, answer: Any) -> None:
    """Bin centers `(Q, 2)` to the nearest bin of every pair of bytes, int64 `(256, 256)`."""
    centers = torch.tensor([[a, b] for a in range(-30, 60, 10) for b in range(-50, 30, 10)], dtype=torch.float32)
    found = trial.call(answer, centers)
    trial.shape("the result", found, (256, 256))
    trial.need(found.dtype == torch.int64, "the result is int64", f"the result is {found.dtype}; numbers of bins are torch.int64")
    byte = torch.arange(256.0) - 128
    a, b = torch.meshgrid(byte, byte, indexing="ij")
    wanted = _nearest(a, b, centers)
    last = len(centers) - 1 - _nearest(a, b, centers.flip(0))
    mistakes = {
        "rows and columns are exchanged: a8 is the first index": wanted.T,
        "it looks as if 128 was not taken away: the byte 128 stands for 0": _nearest(a + 128, b + 128, centers),
        "of two equally near bins you take the last; argmin takes the first (127.5 in place of 128 has the same effect)": last,
        "you compare sums of absolute differences: on ties across a corner that is another bin": _cornered(a, b, centers),
    }
    for text, table in mistakes.items():
        if torch.equal(found, table) and not torch.equal(found, wanted):
            trial.stop(text)
    wrong = int((found != wanted).sum())
    trial.need(wrong == 0, "all 65,536 pairs have their nearest bin, ties included", f"{wrong} of 65,536 pairs have another bin")
    other = torch.tensor([[-100.0, 20.0], [0.0, 0.0], [0.0, 30.0]])
    trial.that(
        torch.equal(trial.call(answer, other), _nearest(a, b, other)),
        "other centers give another table",
        "for three other centers the table is not right: use the centers that are passed",
    )


@exercise
def in_test(trial: Trial, answer: Any) -> None:
    """Names, one for each photograph, and a share, to one bool for each photograph; a person is on one side."""
    names = [f"Person {number}" for number in range(400)]
    groups = [name for number, name in enumerate(names) for _ in range(1 + number % 3)]
    found = trial.call(answer, groups, 0.3)
    told = _bools(trial, found, len(groups))
    home: dict[str, set[bool]] = {}
    for group, side in zip(groups, told):
        home.setdefault(group, set()).add(side)
    torn = sum(len(sides) > 1 for sides in home.values())
    trial.need(torn == 0, "no person is on both sides", f"{torn} people are on both sides: the number depends on more than the person")
    share = sum(sides == {True} for sides in home.values()) / len(home)
    if abs(share - 0.7) < 0.08:
        trial.stop(f"{share:.0%} of the people are in the test part; it looks as if the two sides are exchanged")
    trial.need(
        abs(share - 0.3) < 0.08, "about the right share of the people", f"{share:.0%} of 400 people are in the test part; 30 % were asked"
    )
    again = _bools(trial, trial.call(answer, groups[::-1], 0.3), len(groups))[::-1]
    trial.need(
        again == told, "the order of the list does not matter", "the same list backwards gives another split: the order must not count"
    )
    fewer = groups[: len(groups) // 2]
    alone = _bools(trial, trial.call(answer, fewer, 0.3), len(fewer))
    trial.need(
        alone == told[: len(fewer)],
        "whoever joins, nobody moves",
        "with fewer people in the list the others moved: a person's place must not depend on company",
    )
    wider = _bools(trial, trial.call(answer, groups, 0.6), len(groups))
    trial.that(
        all(new or not old for new, old in zip(wider, told)),
        "a larger share only adds people",
        "with a larger share people left the test part: compare one number of each person with the share",
    )


@exercise
def copy_colors(trial: Trial, answer: Any) -> None:
    """The color field of the training picture whose gray correlates most, for each gray picture."""
    train_gray, train_ab = trial.numbers(12, 1, 8, 8) * 0.2, trial.numbers(12, 2, 8, 8)
    train_gray[4] *= 8.0  # of high contrast: without lengths made one it always wins
    train_gray += torch.linspace(0.1, 2.5, 12).view(-1, 1, 1, 1)
    order = torch.randperm(12, generator=trial.random)
    lamp = trial.uniform(2, 12, 1, 1, 1, low=0.5, high=2.0)
    gray = lamp[0] * train_gray[order] + lamp[1] + 0.02 * trial.numbers(12, 1, 8, 8)
    found = trial.call(answer, train_gray, train_ab, gray)
    trial.same_shape("the result", found, train_ab)
    wanted = train_ab[order]
    rows, base = gray.flatten(1), train_gray.flatten(1)
    centered, middle = rows - rows.mean(1, keepdim=True), base - base.mean(1, keepdim=True)
    unit = torch.nn.functional.normalize
    mistakes = {
        "that is the largest product, not correlation: take away the means and divide by the lengths": train_ab[(rows @ base.T).argmax(1)],
        "the lengths are made one, but each picture's own mean was not taken away first": train_ab[(unit(rows) @ unit(base).T).argmax(1)],
        "the means are gone, but the lengths are not made one: high contrast always wins": train_ab[(centered @ middle.T).argmax(1)],
        "you take the least similar picture": train_ab[(unit(centered) @ unit(middle).T).argmin(1)],
        "that is the smallest distance: a brighter lamp changes it, correlation it does not": train_ab[torch.cdist(rows, base).argmin(1)],
    }
    _named(trial, found, wanted, mistakes)
    trial.need(
        _same(found, wanted),
        "under any lamp each picture finds its own",
        "some pictures copy from another picture than the most correlated one",
    )
    one = trial.call(answer, train_gray, train_ab, gray[:1])
    trial.that(_same(one, wanted[:1]), "one picture is a batch too", "a batch of one gives another answer")


@exercise
def collate(trial: Trial, answer: Any) -> None:
    """A list of items, dicts, to one dict of batches; entries of several sizes stay lists."""
    sizes = ((5, 7), (9, 4), (6, 6))
    items: list[dict[str, Any]] = [
        {"gray": trial.numbers(1, 4, 4), "ab": trial.numbers(2, 4, 4), "L_full": trial.numbers(1, *size), "name": f"picture {number}"}
        for number, size in enumerate(sizes)
    ]
    found = trial.call(answer, items)
    trial.need(isinstance(found, dict), "one dict comes back", f"a {type(found).__name__} came back; one dict is asked")
    missing = sorted(set(items[0]) - set(found))
    trial.need(not missing, "no entry is lost", f"{', '.join(missing)} is missing in the result")
    for key, channels in (("gray", 1), ("ab", 2)):
        if isinstance(found[key], list):
            trial.stop(f"`{key}` is a list; all of its pictures have one size, so make it one tensor")
        if isinstance(found[key], Tensor) and found[key].shape == (3 * channels, 4, 4):
            trial.stop(f"`{key}` has no batch axis: torch.cat joined the channels; a new axis is asked")
        trial.shape(f"`{key}`", found[key], (3, channels, 4, 4))
        trial.close(found[key], torch.stack([item[key] for item in items]), f"`{key}` is right", f"`{key}` differs by {{difference:.2g}}")
    listed = isinstance(found["L_full"], (list, tuple)) and len(found["L_full"]) == 3
    trial.need(listed, "`L_full` is a list of three", "`L_full` should be a list with one tensor for each item: the sizes differ")
    kept = all(one.shape == item["L_full"].shape and torch.equal(one, item["L_full"]) for one, item in zip(found["L_full"], items))
    trial.that(kept, "each keeps its size", "an entry of `L_full` was changed: resizing throws away what output needs")
    trial.that(
        list(found["name"]) == [item["name"] for item in items],
        "the names are in order",
        "the names are not those of the items, in their order",
    )


def _named(trial: Trial, found: Any, wanted: Tensor, mistakes: dict[str, Tensor]) -> None:
    """End the check with the text of the mistake that `found` shows, unless it is right."""
    if _same(found, wanted):
        return
    for text, value in mistakes.items():
        if _same(found, value):
            trial.stop(text)


def _same(found: Any, wanted: Tensor) -> bool:
    return (
        isinstance(found, Tensor)
        and found.shape == wanted.shape
        and bool(torch.allclose(found.float(), wanted.float(), rtol=1e-4, atol=1e-4))
    )


def _nearest(a: Tensor, b: Tensor, centers: Tensor) -> Tensor:
    return ((a[..., None] - centers[:, 0]) ** 2 + (b[..., None] - centers[:, 1]) ** 2).argmin(-1)


def _cornered(a: Tensor, b: Tensor, centers: Tensor) -> Tensor:
    return ((a[..., None] - centers[:, 0]).abs() + (b[..., None] - centers[:, 1]).abs()).argmin(-1)


def _bools(trial: Trial, found: Any, count: int) -> list[bool]:
    """Return the answer as bools; end the check if there is not one for each photograph."""
    values = found.tolist() if hasattr(found, "tolist") else found
    if not isinstance(values, (list, tuple)):
        trial.stop(f"the result is a {type(found).__name__}; a list with one bool for each photograph is asked")
    if len(values) != count:
        trial.stop(f"there are {len(values)} answers for {count} photographs: one for each photograph, not for each person")
    return [bool(value) for value in values]
