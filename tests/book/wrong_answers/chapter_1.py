"""Typical wrong answers to the exercises of chapter 1, and what the check should say about each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Y_ROW = torch.tensor([0.212671, 0.715160, 0.072169])


def light(x: Tensor) -> Tensor:
    return torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def lightness(pixel: Tensor) -> Tensor:
    y = light(pixel.float() / 255) @ Y_ROW
    return 116 * y.pow(1 / 3) - 16 if y > 0.008856 else 903.3 * y


def nearest(ab: Tensor) -> Tensor:
    return ((ab.float() - 5) / 10).ceil() * 10


def scaled(raw: Tensor, prior: Tensor) -> Tensor:
    return raw / (prior * raw).sum()


def raw(prior: Tensor, mix: float) -> Tensor:
    return 1 / ((1 - mix) * prior + mix / len(prior))


WRONG: dict[str, list[tuple[str, Any, str]]] = {
    "to_light": [
        ("gamma", lambda x: x**2.2, "plain power"),
        ("backward", lambda x: 1.055 * x ** (1 / 2.4) - 0.055, "other way"),
        ("bytes", lambda x: light(x / 255), "divided by 255"),
        ("curved-black", lambda x: ((x + 0.055) / 1.055) ** 2.4, "straight part"),
        ("only-dark", lambda x: x / 12.92, "at a bright value"),
        ("flat", lambda x: light(x).flatten(), "shape"),
        ("by-one", lambda x: light(x) if (x > 0.04045).all() or (x <= 0.04045).all() else x / 12.92, "mixed"),
    ],
    "joint": [
        ("height", lambda scale, offset: (1.5 * offset / scale, (1.5 * offset / scale) ** -2 / 3), "asked is the light t"),
        ("no-third", lambda scale, offset: ((1.5 * offset / scale) ** 3, (1.5 * offset / scale) ** -2), "too steep"),
        ("power", lambda scale, offset: ((1.5 * offset / scale) ** 3, (1.5 * offset / scale) ** -1 / 3), "wrong power"),
        ("sign", lambda scale, offset: ((0.75 * offset / scale) ** 3, (0.75 * offset / scale) ** -2 / 3), "sign is lost"),
        (
            "touches-not",
            lambda scale, offset: ((2 * offset / scale) ** 3, (2 * offset / scale) ** -2 / 2),
            "slopes of the two parts differ",
        ),
        ("constant", lambda scale, offset: ((6 / 29) ** 3, (29 / 6) ** 2 / 3), "the line has"),
        ("one-number", lambda scale, offset: (1.5 * offset / scale) ** 3, "two numbers"),
    ],
    "lightness": [
        ("luma", lambda p: 100 * (p.float() / 255) @ torch.tensor([0.299, 0.587, 0.114]), "that is luma"),
        ("coded", lambda p: 116 * ((p.float() / 255) @ Y_ROW).pow(1 / 3) - 16, "applied to the coded values"),
        ("luminance", lambda p: 100 * light(p.float() / 255) @ Y_ROW, "luminance Y"),
        ("byte", lambda p: lightness(p) * 2.55, "0 to 255"),
        ("bgr", lambda p: lightness(p.flip(0)), "blue came first"),
        ("black", lambda p: 116 * (light(p.float() / 255) @ Y_ROW).pow(1 / 3) - 16, "black has L = 0"),
        ("three", lambda p: p.float(), "one number"),
    ],
    "to_bytes": [
        ("stretched", lambda x: ((x + 1) * 255 / 2).clamp(0, 255).to(torch.uint8), "other form"),
        ("stretched-rounded", lambda x: ((x + 1) * 255 / 2).round().clamp(0, 255).to(torch.uint8), "other form"),
        ("cut-off", lambda x: (x * 128 + 128).clamp(0, 255).to(torch.uint8), "cuts off"),
        ("wrap", lambda x: (x * 128 + 128).round().int().remainder(256).to(torch.uint8), "wrap around"),
        ("float", lambda x: (x * 128 + 128).round().clamp(0, 255), "uint8"),
        ("127", lambda x: (x * 127 + 128).round().clamp(0, 255).to(torch.uint8), "came back"),
    ],
    "snap": [
        ("uint8", lambda ab: nearest(ab - 128), "cannot hold a negative"),
        ("no-128", nearest, "128 was not taken away"),
        ("cut-off", lambda ab: ((ab.float() - 128) / 10).trunc() * 10, "toward gray"),
        ("floor", lambda ab: ((ab.float() - 128) / 10).floor() * 10, "always moved down"),
        ("steps", lambda ab: nearest(ab.float() - 128) / 10, "grid steps"),
        ("even", lambda ab: ((ab.float() - 128) / 10).round() * 10, "even neighbor"),
        ("up", lambda ab: ((ab.float() - 128 + 5) / 10).floor() * 10, "the lower neighbor"),
    ],
    "rarity": [
        ("unscaled", raw, "the scale is not"),
        ("over-bins", lambda prior, mix: raw(prior, mix) / raw(prior, mix).mean(), "mean of one over the bins"),
        ("sum-one", lambda prior, mix: raw(prior, mix) / raw(prior, mix).sum(), "sum to one"),
        ("swapped", lambda prior, mix: scaled(raw(prior, 1 - mix), prior), "share of the uniform"),
        ("inverse", lambda prior, mix: 1 / prior, "plain inverses, 1/p"),
        ("inverse-scaled", lambda prior, mix: scaled(1 / prior, prior), "plain inverses, scaled"),
    ],
}
