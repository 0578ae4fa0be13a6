"""The checks of chapter 1: the sRGB curve, lightness, bytes, bins and rarity weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import Trial, exercise

_EDGE = 0.04045
_Y_ROW = torch.tensor([0.212671, 0.715160, 0.072169], dtype=torch.float64)
_LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)


@exercise
def to_light(trial: Trial, answer: Any) -> None:
    """Coded values in [0, 1] to amounts of light, any shape."""
    bright = trial.uniform(3, 4, low=0.06, high=1.0)
    dark = trial.uniform(3, 4, low=0.001, high=0.038)
    found = trial.call(answer, bright)
    trial.same_shape("the result", found, bright)
    wanted = _light(bright)
    mistakes = {
        "your curve is a plain power; the one of sRGB also shifts and scales before it raises": bright**2.2,
        "your curve goes the other way: it makes values from light, not light from values": 1.055 * bright ** (1 / 2.4) - 0.055,
        "your values look as if they were divided by 255; here they already lie between 0 and 1": _light(bright / 255),
    }
    _named(trial, found, wanted, mistakes)
    trial.close(found, wanted, "bright values follow the curve", "at a bright value you give {found:.4f}; {wanted:.4f} is due", 1e-5)
    low = trial.call(answer, dark)
    straight = _light(dark)
    if _near(low, _power_part(dark), 1e-6) and not _near(low, straight, 1e-6):
        trial.stop("bright values are right, dark ones are not: near black the curve has a straight part")
    trial.close(low, straight, "dark values follow the straight part", "at a dark value you give {found:.6f}; {wanted:.6f} is due", 1e-6)
    mixed = trial.call(answer, torch.stack([bright, dark]))
    trial.close(
        mixed, _light(torch.stack([bright, dark])), "both parts work in one tensor", "dark and bright values mixed: {found:.4f}", 1e-5
    )


@exercise
def joint(trial: Trial, answer: Any) -> None:
    """From scale and offset of L = scale * f - offset to (t0, slope) of the straight part of f."""
    settings = [
        (116.0, 16.0),
        *((float(s), float(o)) for s, o in zip(trial.uniform(3, low=80, high=140), trial.uniform(3, low=6, high=30))),
    ]
    for number, (scale, offset) in enumerate(settings):
        found = trial.call(answer, scale, offset)
        if not isinstance(found, tuple) or len(found) != 2:
            trial.stop("return two numbers: where the parts meet, and the slope of the straight part")
        if not all(isinstance(value, (float, int, Tensor, np.floating)) for value in found):
            trial.stop("both should be numbers")
        t0, slope = (float(value) for value in found)
        told, delta = f"scale {scale:.0f}, offset {offset:.0f}: ", 1.5 * offset / scale
        if not (0 < t0 < 1 and slope > 0):
            trial.stop(told + "the parts should meet between 0 and 1, with a rising line")
        if abs(t0 - delta) < 1e-9:
            trial.stop("your first number looks like the value of f where the parts meet; asked is the light t where they meet")
        if abs(t0 - (0.75 * offset / scale) ** 3) < 1e-9:
            trial.stop("your line has the right slope but starts at minus offset over scale: a sign is lost")
        if abs(t0 - delta**3) < 1e-9 and abs(slope - 1 / delta**2) < 1e-6 * slope:
            trial.stop("your slope is too steep by a factor: differentiate the cube root once more, with its exponent in front")
        if abs(t0 - delta**3) < 1e-9 and abs(slope - 1 / (3 * delta)) < 1e-6 * slope:
            trial.stop("your slope has the wrong power: lower the exponent of the cube root by one")
        height = slope * t0 + offset / scale
        meets = abs(height - t0 ** (1 / 3)) < 1e-6
        touches = abs(slope - ((t0 + 1e-6) ** (1 / 3) - (t0 - 1e-6) ** (1 / 3)) / 2e-6) < 1e-3 * slope
        trial.need(meets, told + "both parts meet", told + f"at t0 the line has {height:.4f} and the cube root {t0 ** (1 / 3):.4f}")
        trial.need(touches, told + "with one slope", told + "the slopes of the two parts differ where they meet")
        if number == 0:
            trial.that(abs(t0 - 0.008856) < 1e-5, "t0 is the one of CIE Lab", f"t0 is {t0:.6f}; CIE Lab has 0.008856")


@exercise
def lightness(trial: Trial, answer: Any) -> None:
    """One pixel, uint8 `(3,)`, to its L, a number from 0 to 100."""
    pixels = torch.randint(40, 250, (6, 3), generator=trial.random).to(torch.uint8)
    found = _numbers(trial, answer, pixels)
    wanted = torch.stack([_lightness(pixel.double() / 255) for pixel in pixels])
    coded = pixels.double() / 255
    mistakes = {
        "that is luma, a weighted sum of the coded values; L starts from light": 100 * coded @ _LUMA,
        "it looks as if the weights were applied to the coded values; turn them into light first": torch.stack(
            [_from_y(pixel @ _Y_ROW) for pixel in coded]
        ),
        "that is the luminance Y times 100; L is a curved function of it": 100 * _light(coded) @ _Y_ROW,
        "your L runs from 0 to 255, as in 8-bit Lab; here it runs from 0 to 100": wanted * 2.55,
        "it looks as if blue came first; the order is red, green, blue": torch.stack(
            [_lightness(pixel.double().flip(0) / 255) for pixel in pixels]
        ),
    }
    _named(trial, found, wanted, mistakes, 1e-3)
    trial.close(found, wanted, "six colors have their L", "one color has L = {wanted:.2f}; you give {found:.2f}", 1e-4)
    dark = torch.tensor([[0, 0, 0], [5, 3, 9], [12, 10, 2]], dtype=torch.uint8)
    low = _numbers(trial, answer, dark)
    due = torch.stack([_lightness(pixel.double() / 255) for pixel in dark])
    if float(low[0]) < -1:
        trial.stop(f"black has L = 0; you give {float(low[0]):.1f}: near black a straight line takes the place of the cube root")
    trial.close(low, due, "dark colors too, and black is 0", "a dark color has L = {wanted:.3f}; you give {found:.3f}", 1e-4)
    white = _numbers(trial, answer, torch.full((1, 3), 255, dtype=torch.uint8))
    trial.close(white, torch.tensor([100.0]), "white is 100", "white has L = 100; you give {found:.2f}", 1e-5)


@exercise
def to_bytes(trial: Trial, answer: Any) -> None:
    """A color field, ab/128, of any shape, to the bytes of 8-bit Lab, uint8."""
    byte = torch.arange(256)
    exact = ((byte - 128) / 128).view(2, 2, 8, 8)
    noisy = exact + trial.uniform(2, 2, 8, 8, low=-0.4, high=0.4) / 128
    found = trial.call(answer, exact)
    trial.shape("the result", found, (2, 2, 8, 8))
    trial.need(found.dtype == torch.uint8, "the result is uint8", f"the result is {found.dtype}; bytes are torch.uint8")
    other = (exact + 1) * (255 / 2)
    if any(_near(found, form, 0.5) for form in (other.floor(), other.round())) and not _near(found, byte.view_as(exact), 0.5):
        trial.stop("that undoes the other form, whose middle is 127.5: it stretches the range, and gray does not sit on a byte")
    zero = int(trial.call(answer, torch.zeros(1))[0])
    trial.need(zero == 128, "gray, 0, becomes the byte 128", f"gray, 0, becomes the byte {zero}; it is 128")
    trial.close(found, byte.view_as(exact), "all 256 bytes come back", "the byte {wanted:.0f} came back as {found:.0f}", 0)
    near = trial.call(answer, noisy.clamp(-1, 127 / 128))
    low = int((near.flatten().int() < byte).sum())
    high = int((near.flatten().int() > byte).sum())
    if low > 60 and not high:
        trial.stop(f"a little noise makes {low} of 256 bytes one too small and none too large: the conversion cuts off, it does not round")
    trial.that(low + high == 0, "a little noise changes no byte", f"noise of less than half a step changed {low + high} bytes")
    ends = trial.call(answer, torch.tensor([-1.5, -1.1, 1.0, 1.5])).int().tolist()
    trial.that(
        ends == [0, 0, 255, 255],
        "numbers beyond the range stop at 0 and 255",
        f"-1.5, -1.1, 1 and 1.5 became {ends}: bytes wrap around unless you stop at both ends",
    )


@exercise
def snap(trial: Trial, answer: Any) -> None:
    """Bytes of 8-bit Lab, uint8 `(..., 2)`, to the nearest grid point, multiples of 10 in Lab units; ties go down."""
    inner = torch.randint(6, 250, (5, 7, 2), generator=trial.random).to(torch.uint8)
    inner = torch.where((inner.int() - 128) % 10 == 5, inner + 1, inner)
    found = trial.call(answer, inner)
    trial.same_shape("the result", found, inner)
    values = inner.double() - 128
    found = found.double()
    below = torch.where(inner < 128, inner.double() + 128, values)
    mistakes = {
        "colors below neutral come out large and positive: uint8 cannot hold a negative number, so 100 - 128 became 228": _nearest(below),
        "it looks as if 128 was not taken away: neutral gray is the byte 128": _nearest(inner.double()),
        "your numbers are always moved toward gray: the division cuts off, it does not round": (values / 10).trunc() * 10,
        "your numbers are always moved down: that is the corner of the square, not the nearest grid point": (values / 10).floor() * 10,
        "these are numbers of grid steps; asked are Lab units": _nearest(values) / 10,
    }
    _named(trial, found, _nearest(values), mistakes)
    trial.close(
        found, _nearest(values), "35 colors go to their nearest grid points", "one went to {found:.0f} instead of {wanted:.0f}", 1e-6
    )
    trial.that((found % 10 == 0).all(), "all are multiples of 10", "some are not multiples of 10")
    middle = (torch.arange(-115, 116, 10) + 128).to(torch.uint8).view(-1, 2)
    tied = trial.call(answer, middle).double()
    due = middle.double() - 128 - 5
    if _near(tied, torch.round((middle.double() - 128) / 10) * 10, 1e-6):
        trial.stop("a tie such as 5 or 15 goes up half of the time: `round` takes the even neighbor, and here ties go down")
    trial.close(tied, due, "ties go down", "a tie went to {found:.0f}; the lower neighbor is {wanted:.0f}", 1e-6)


@exercise
def rarity(trial: Trial, answer: Any) -> None:
    """A prior `(Q,)` and the share `mix` of the uniform distribution to weights `(Q,)` with a mean of one over the pixels."""
    prior = trial.uniform(12, low=0.02).pow(3)
    prior = prior / prior.sum()
    mix = 0.3
    found = trial.call(answer, prior, mix)
    trial.same_shape("the result", found, prior)
    raw = 1 / ((1 - mix) * prior + mix / 12)
    swapped = 1 / (mix * prior + (1 - mix) / 12)
    wanted = raw / (prior * raw).sum()
    mistakes = {
        "the mixture is right, but the scale is not: the mean over the pixels, each bin counted as often as it occurs, should be one": raw,
        "the weights have a mean of one over the bins; asked is a mean of one over the pixels": raw / raw.mean(),
        "the weights sum to one; asked is a mean of one over the pixels": raw / raw.sum(),
        "it looks as if `mix` went to the prior; it is the share of the uniform distribution": swapped / (prior * swapped).sum(),
        "these are the plain inverses, 1/p; the uniform share is missing": 1 / prior,
        "these are the plain inverses, scaled; the uniform share is missing": 1 / prior / 12,
    }
    _named(trial, found, wanted, mistakes)
    trial.close((prior * found).sum(), 1.0, "the mean over the pixels is one", "the mean over the pixels is {found:.4f}", 1e-4)
    trial.close(found, wanted, "the weights of 12 bins are right", "a weight is {found:.4f}; {wanted:.4f} is due", 1e-4)
    trial.close(trial.call(answer, prior, 1.0), torch.ones(12), "mix = 1 gives equal weights", "with mix = 1 a weight is {found:.3f}", 1e-4)
    empty = torch.tensor([0.7, 0.3, 0.0])
    bound = trial.call(answer, empty, 0.5)
    trial.that(torch.isfinite(bound).all(), "an empty bin has a finite weight", "an empty bin has an infinite weight")


def _light(x: Tensor) -> Tensor:
    return torch.where(x <= _EDGE, x / 12.92, _power_part(x))


def _power_part(x: Tensor) -> Tensor:
    return ((x + 0.055) / 1.055) ** 2.4


def _from_y(y: Tensor) -> Tensor:
    value = float(y)
    return torch.tensor(116 * np.cbrt(value) - 16 if value > (6 / 29) ** 3 else value * (29 / 3) ** 3, dtype=torch.float64)


def _lightness(coded: Tensor) -> Tensor:
    return _from_y(_light(coded) @ _Y_ROW)


def _nearest(values: Tensor) -> Tensor:
    return ((values - 5) / 10).ceil() * 10


def _numbers(trial: Trial, answer: Any, pixels: Tensor) -> Tensor:
    """Return the answer for each pixel, `(N,)`, after a look at the first one."""
    found = [trial.call(answer, pixel) for pixel in pixels]
    for value in found:
        if (isinstance(value, Tensor) and value.numel() != 1) or not isinstance(value, (Tensor, float, int, np.floating)):
            trial.stop("the lightness of one pixel is one number")
    return torch.tensor([float(value) for value in found], dtype=torch.float64)


def _near(found: Any, wanted: Tensor, tolerance: float) -> bool:
    found = torch.as_tensor(found)
    return found.shape == wanted.shape and bool((found.double() - wanted.double()).abs().max() < tolerance)


def _named(trial: Trial, found: Any, wanted: Tensor, mistakes: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """End the check with the name of a mistake if the answer is what that mistake gives, and not what is right."""
    if _near(found, wanted, tolerance):
        return
    for message, result in mistakes.items():
        if _near(found, result, tolerance * (1 + float(result.abs().max()))):
            trial.stop(message)
