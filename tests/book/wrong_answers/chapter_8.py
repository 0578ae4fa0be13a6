"""Typical wrong answers to the exercises of chapter 8, each with the words that name its mistake."""

from __future__ import annotations

import hashlib
import random
import time
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize


def _table(centers: Tensor, shift: float = 128.0, last: bool = False, absolute: bool = False) -> Tensor:
    byte = torch.arange(256.0) - shift
    a, b = torch.meshgrid(byte, byte, indexing="ij")
    centers = centers.flip(0) if last else centers
    to_a, to_b = a[..., None] - centers[:, 0], b[..., None] - centers[:, 1]
    found = (to_a.abs() + to_b.abs() if absolute else to_a**2 + to_b**2).argmin(-1)
    return len(centers) - 1 - found if last else found


def _shares(stages: Any, items: Any, warm: bool = True, chain: bool = True, divide: bool = True, factor: float = 1.0) -> dict[str, float]:
    if warm:
        value = items[0]
        for stage in stages.values():
            value = stage(value) if chain else stage(items[0])
    spent = dict.fromkeys(stages, 0.0)
    for item in items:
        value = item
        for name, stage in stages.items():
            began = time.perf_counter()
            result = stage(value)
            spent[name] += time.perf_counter() - began
            value = result if chain else item
    total = sum(spent.values())
    return {name: factor * seconds / total if divide else seconds for name, seconds in spent.items()}


def _number(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def _shuffled(groups: list[str], share: float) -> list[bool]:
    people = list(dict.fromkeys(groups))
    random.Random(0).shuffle(people)
    chosen = set(people[: int(share * len(people))])
    return [group in chosen for group in groups]


def _ranked(groups: list[str], share: float) -> list[bool]:
    people = sorted(set(groups), key=_number)
    chosen = set(people[: int(share * len(people))])
    return [group in chosen for group in groups]


def _copy(train_gray: Tensor, train_ab: Tensor, gray: Tensor, center: bool = True, unit: bool = True, least: bool = False) -> Tensor:
    def key(g: Tensor) -> Tensor:
        rows = g.flatten(1)
        rows = rows - rows.mean(1, keepdim=True) if center else rows
        return normalize(rows, dim=1) if unit else rows

    likeness = key(gray) @ key(train_gray).T
    return train_ab[likeness.argmin(1) if least else likeness.argmax(1)]


def _collated(items: list[dict[str, Any]], join: Any = torch.stack, full: Any = list, names: Any = list) -> dict[str, Any]:
    batch: dict[str, Any] = {key: join([item[key] for item in items]) for key in ("gray", "ab")}
    return batch | {"L_full": full([item["L_full"] for item in items]), "name": names([item["name"] for item in items])}


WRONG: dict[str, list[tuple[str, Any, str]]] = {
    "typology_angle": [
        ("radians", lambda L, b: torch.atan2(L - 50, b), "radians"),
        ("brackets", lambda L, b: torch.rad2deg(torch.atan(L - 50 / b)), "brackets"),
        ("no 50", lambda L, b: torch.rad2deg(torch.atan2(L, b)), "nothing was taken"),
        ("exchanged", lambda L, b: torch.rad2deg(torch.atan2(b, L - 50)), "exchanged"),
        ("slope", lambda L, b: (L - 50) / b, "slope"),
    ],
    "time_shares": [
        ("no warm-up", lambda s, i: _shares(s, i, warm=False), "first call is slow"),
        ("not chained", lambda s, i: _shares(s, i, chain=False), "the stage before returned"),
        ("seconds", lambda s, i: _shares(s, i, divide=False), "no shares"),
        ("percent", lambda s, i: _shares(s, i, factor=100.0), "sum to 100"),
        ("one item", lambda s, i: _shares(s, i[:1]), "not every item"),
        ("a number", lambda s, i: 0.5, "return a dict"),
    ],
    "byte_table": [
        ("no 128", lambda c: _table(c, shift=0.0), "128 was not taken away"),
        ("exchanged", lambda c: _table(c).T, "exchanged"),
        ("last of equals", lambda c: _table(c, last=True), "take the last"),
        ("wrong type", lambda c: _table(c).float(), "int64"),
        ("127.5", lambda c: _table(c, shift=127.5), "127.5 in place of 128"),
        (
            "its own centers",
            lambda c: _table(torch.tensor([[a, b] for a in range(-30, 60, 10) for b in range(-50, 30, 10)])),
            "centers that are passed",
        ),
    ],
    "in_test": [
        ("by image", lambda g, s: [_number(f"{name}{i}") < s for i, name in enumerate(g)], "both sides"),
        ("shuffled people", _shuffled, "order must not count"),
        ("ranked people", _ranked, "depend on company"),
        ("people, not photographs", lambda g, s: [_number(name) < s for name in dict.fromkeys(g)], "not for each person"),
        ("other side", lambda g, s: [_number(name) >= s for name in g], "sides are exchanged"),
        ("everybody", lambda g, s: [True for _ in g], "30 % were asked"),
    ],
    "copy_colors": [
        ("product", lambda t, c, g: _copy(t, c, g, center=False, unit=False), "largest product"),
        ("no mean", lambda t, c, g: _copy(t, c, g, center=False), "mean was not taken away"),
        ("no length", lambda t, c, g: _copy(t, c, g, unit=False), "lengths are not made one"),
        ("least", lambda t, c, g: _copy(t, c, g, least=True), "least similar"),
        ("distance", lambda t, c, g: c[torch.cdist(g.flatten(1), t.flatten(1)).argmin(1)], "smallest distance"),
    ],
    "collate": [
        ("cat", lambda items: _collated(items, join=torch.cat), "no batch axis"),
        ("lists", lambda items: _collated(items, join=list), "make it one tensor"),
        ("stacked", lambda items: _collated(items, full=torch.stack), "raises RuntimeError"),
        ("resized", lambda items: _collated(items, full=lambda all: [interpolate(one[None], (4, 4))[0] for one in all]), "was changed"),
        ("lost", lambda items: {key: value for key, value in _collated(items).items() if key != "name"}, "name is missing"),
        ("backwards", lambda items: _collated(items, names=lambda all: all[::-1]), "in their order"),
    ],
}
