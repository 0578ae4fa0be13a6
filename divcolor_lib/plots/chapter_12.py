"""The figures of chapter 12: the whole way from a photograph to its colorizations, rows of pictures, and what a hint does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from numpy.typing import NDArray
from torch import Tensor

from ..colorize import Box, Colorizations, Colorizer, enlarge, paint, squared
from ..features import mdn_inputs
from ..lab import AB_SCALE, L_SCALE, in_gamut, join, resize_area, rgb_to_lab
from ..runtime import evaluating
from . import DRAWN, PALETTE, color_name, described, styled

Picture = NDArray[np.uint8]

WIDTH = 9.0
PHOTO_DPI = 72  #: photographs need no more, and take much room.
LIGHT = 60.0  #: the lightness at which a color field without a photograph is shown


# --- the whole way ---


def inference(colorizer: Colorizer, photo: Picture) -> Figure:
    """Draw every step from a photograph (H, W, 3) to its three heaviest colorizations, with the shapes that the networks gave."""
    lightness = rgb_to_lab(torch.from_numpy(np.array(photo)).movedim(-1, 0).to(colorizer.device))[:1]
    square, inner = squared(lightness[None] / L_SCALE - 1)
    with evaluating(colorizer.cvae, colorizer.mdn):
        maps = colorizer.cvae.gray_features(square)
        weights, codes = colorizer.mdn.representatives(mdn_inputs(colorizer.mdn.config.features, square, maps, colorizer.zhang))
        order = weights[0].argsort(descending=True, stable=True)
        weights, codes = weights[0, order], codes[0, order]
        fields = colorizer.cvae.decode_features(codes[None], maps)[0]
    small = fields[inner]
    size = (lightness.shape[1], lightness.shape[2])
    large = enlarge(small[:1], size)[0]
    outside = ~in_gamut(torch.cat([lightness, large * AB_SCALE]))
    pictures = [paint(lightness, field) for field in small[:3]]
    shapes = {
        "G, full size": f"1×{size[0]}×{size[1]}",
        "G, mirrored square": _shape(square[0]),
        "gray encoder: maps": ", ".join(_shape(each[0]) for each in maps),
        "MDN: weights, sorted": str(len(weights)),
        "MDN: codes, sorted": _shape(codes),
        "decoder: color fields": _shape(fields),
        "cut out": _shape(small),
        "enlarged": f"{len(small)}×2×{size[0]}×{size[1]}",
        "join L, fit gamut": f"{len(small)}×3×{size[0]}×{size[1]}",
    }
    shapes |= {f"sRGB, p = {weight:.2f}": f"{size[0]}×{size[1]}×3" for weight in weights[:3].tolist()}
    if len(shapes) < 12:  # equal weights would share a name
        shapes |= {f"sRGB, number {number}": f"{size[0]}×{size[1]}×3" for number in range(1, 13 - len(shapes))}
    with styled():
        figure = plt.figure(figsize=(WIDTH, 12.6), dpi=PHOTO_DPI)
        places = [figure.add_axes((0.02 + 0.335 * column, 0.768 - 0.25 * row, 0.27, 0.178)) for row in range(4) for column in range(3)]
        for number, (axes, (name, shape)) in enumerate(zip(places, shapes.items()), start=1):
            axes.set_title(f"{number}. {name}", fontsize=13, loc="left", fontweight="bold")
            axes.set_xlabel(shape if "," not in shape else "", fontsize=13, labelpad=6)
            axes.set(xticks=[], yticks=[])
        _show(places[0], _gray(lightness[0]))
        _show(places[1], _gray(L_SCALE * (square[0, 0] + 1)))
        _draw_maps(places[2], maps)
        _draw_bars(places[3], weights)
        limit = float(codes.abs().amax()) or 1.0
        places[4].imshow(codes.cpu().numpy(), cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
        for axes, field in zip(places[5:8], (fields[0], small[0], large)):
            _show(axes, _field(field))
        _show(places[8], np.repeat(np.where(outside.cpu().numpy()[..., None], 40, 225).astype(np.uint8), 3, axis=2))
        for axes, picture in zip(places[9:], pictures):
            _show(axes, picture)
        for index in range(8):
            _arrow(figure, places[index], places[index + 1])
    figure.shows_photographs = max(size) > DRAWN  # type: ignore[attr-defined]
    share = float(outside.float().mean())
    steps = "; ".join(f"{number}. {name}, {shape}" for number, (name, shape) in enumerate(shapes.items(), start=1))
    told = ", ".join(f"{weight:.2f}" for weight in weights.tolist())
    return described(
        figure,
        f"Twelve steps from a gray photograph of {size[0]} by {size[1]} pixels to three colorizations, in reading order, with shapes: "
        f"{steps}. All weights: {told}. In step 9, {share:.0%} of the pixels of the first coloring are too strong for a screen.",
    )


def _shape(tensor: Tensor) -> str:
    return "×".join(str(side) for side in tensor.shape)


def _gray(light: Tensor) -> Picture:
    return join((light / L_SCALE - 1)[None, None], torch.zeros(1, 2, *light.shape, device=light.device))[0].cpu().numpy()


def _field(ab: Tensor) -> Picture:
    light = torch.full((1, 1, *ab.shape[1:]), LIGHT / L_SCALE - 1, device=ab.device)
    return join(light, ab[None])[0].cpu().numpy()


def _show(axes: Axes, picture: Picture) -> None:
    axes.imshow(picture, interpolation="nearest" if max(picture.shape) <= DRAWN else "antialiased")
    for side in axes.spines.values():
        side.set_visible(False)


def _draw_maps(axes: Axes, maps: Sequence[Tensor]) -> None:
    """The mean over the channels of each map, side by side, the coarsest last."""
    axes.set(xlim=(0, 2), ylim=(0, 2), aspect="equal")
    axes.axis("on")
    left, bottom, side = 0.0, 0.7, 1.2
    for each in maps:
        shown = each[0].mean(0).cpu().numpy()
        axes.imshow(shown, cmap="gray", extent=(left, left + side, bottom, bottom + side), aspect="auto")
        left, side = left + side + 0.06, side / 2
        if left + side > 2:
            left, bottom = 0.0, 0.0
    shapes = "\n".join(_shape(each[0]) for each in maps)
    axes.text(0.72, 0.6, shapes, va="top", fontsize=12, linespacing=1.1)
    axes.set(xlim=(0, 2), ylim=(0, 2))
    for edge in axes.spines.values():
        edge.set_visible(False)


def _draw_bars(axes: Axes, weights: Tensor) -> None:
    values = weights.tolist()
    axes.barh(range(len(values)), values, color=PALETTE[0])
    axes.set(ylim=(len(values) - 0.4, -0.6), xlim=(0, 1.35 * max(values)))
    for row, value in enumerate(values):
        axes.text(value, row, f" {value:.2f}", va="center", fontsize=11)


def _arrow(figure: Figure, start: Axes, end: Axes) -> None:
    first, second = start.get_position(), end.get_position()
    if abs(first.y0 - second.y0) < 0.01:
        points = (first.x1 + 0.008, first.y0 + 0.5 * first.height), (second.x0 - 0.008, second.y0 + 0.5 * second.height)
        figure.add_artist(FancyArrowPatch(*points, transform=figure.transFigure, arrowstyle="-|>", mutation_scale=18, color="#333333"))


# --- rows of pictures ---


def rows(
    pictures: Mapping[str, Sequence[Picture]],
    captions: Mapping[str, Sequence[str]] | None = None,
    what: str = "Rows of pictures",
    width: float = WIDTH,
) -> Figure:
    """Draw rows of pictures, the row's name above it and a caption under each picture.

    Args:
        pictures: uint8 `(H, W, 3)`; rows may differ in length, pictures in shape.
        captions: for each row, one for each picture.
        what: how the alt text begins; it goes on with each row, its captions, and the mean color of each picture.
        width: in inches.
    """
    captions = captions or {}
    columns = max(len(row) for row in pictures.values())
    side = (width - 0.1 * (columns - 1)) / columns
    names_high, words_high = 0.32, 0.24
    small = 13 if columns <= 5 else 12 if columns == 6 else 11
    heights = [max(side * min(1.5, each.shape[0] / each.shape[1]) for each in row) for row in pictures.values()]
    lines = [max((text.count("\n") + 1 for text in captions.get(name, ())), default=0) for name in pictures]
    total = sum(heights) + sum(names_high + words_high * count for count in lines) + 0.08 * len(heights)
    with styled():
        figure = plt.figure(figsize=(width, total), dpi=PHOTO_DPI)
        top = total
        for (name, row), height, count in zip(pictures.items(), heights, lines):
            figure.text(0.0, (top - 0.06) / total, name, ha="left", va="top", fontsize=13, fontweight="bold")
            top -= names_high + height
            words = captions.get(name, [""] * len(row))
            for column, (picture, text) in enumerate(zip(row, words)):
                axes = figure.add_axes((column * (side + 0.1) / width, top / total, side / width, height / total))
                axes.axis("off")
                _show(axes, picture)
                axes.set_anchor("N")
                figure.text((column * (side + 0.1) + side / 2) / width, (top - 0.03) / total, text, ha="center", va="top", fontsize=small)
            top -= words_high * count + 0.08
    figure.shows_photographs = True  # type: ignore[attr-defined]
    told = " ".join(f"{name}: {'; '.join(_told(row, captions.get(name)))}." for name, row in pictures.items())
    return described(figure, f"{what}. {told}".replace("\n", ", "))


def _told(row: Sequence[Picture], captions: Sequence[str] | None) -> list[str]:
    words = captions or [f"picture {number}" for number in range(1, len(row) + 1)]
    return [f"{text + ', ' if text else ''}{_tint(picture)} on average" for text, picture in zip(words, row)]


def _tint(picture: Picture) -> str:
    lab = rgb_to_lab(torch.from_numpy(np.array(picture)).movedim(-1, 0)).mean((1, 2))
    return color_name(float(lab[1]), float(lab[2]))


def marked(picture: Picture, place: Box, color: Sequence[int]) -> Picture:
    """Return a copy of a picture with a box `(left, top, right, bottom)` of one color and a white edge: what a hint looks like."""
    left, top, right, bottom = place
    edge = max(2, max(picture.shape) // 100)
    copy = picture.copy()
    copy[max(0, top - edge) : bottom + edge, max(0, left - edge) : right + edge] = 255
    copy[top:bottom, left:right] = np.asarray(color, np.uint8)
    return copy


def results(gray: Picture, truth: Picture, modes: Sequence[Picture], odds: Sequence[float], found: Colorizations, name: str) -> Figure:
    """Draw a portrait, its truth and every true mode with its probability, and below them what a colorizer found, with its own
    probabilities, as far as they do not round to zero."""
    order = sorted(range(len(odds)), key=lambda index: -odds[index])
    first = [gray, truth, *(modes[index] for index in order)]
    said = [f"p = {p:.2f}" for p in found.probabilities if p is not None and p >= 0.005]
    return rows(
        {"gray, true colors, and every mode that is possible": first, "found by the model": list(found.images[: len(said)])},
        {
            "gray, true colors, and every mode that is possible": ["gray", "truth", *(f"p = {odds[index]:.2f}" for index in order)],
            "found by the model": said,
        },
        f"A drawn {name}",
    )


# --- how many one finds by drawing ---


def distinct(draws: Sequence[int], curves: Mapping[str, Sequence[float]], counted: Sequence[float], modes: int) -> Figure:
    """Draw the expected number of different colorings against the number of draws: formulas as lines, counts as markers."""
    with styled():
        figure, axes = plt.subplots(figsize=(8, 4), layout="constrained", dpi=90)
        for (name, values), line in zip(curves.items(), ("-", "--")):
            axes.plot(draws, values, line, label=name, linewidth=2)
        axes.plot(draws, counted, "o", color=PALETTE[2], markersize=8, label="counted in draws of the model")
        axes.axhline(modes, color="#555555", linestyle=":")
        axes.text(draws[0], modes - 0.08, f"all {modes}: what sorting by weight shows without any draw", va="top", fontsize=12)
        axes.set_xscale("log", base=2)
        axes.set_xticks(draws, [str(each) for each in draws])
        axes.set(ylim=(0, modes + 0.4))
        axes.set_xlabel("number of draws $S$", fontsize=13)
        axes.set_ylabel("different colorings", fontsize=13)
        axes.tick_params(labelsize=12)
        axes.legend(frameon=False, fontsize=12, loc="lower right")
    lines = "; ".join(
        f"{name}: " + ", ".join(f"{s} draws {v:.1f}" for s, v in zip(draws, values))
        for name, values in {**curves, "counted in draws of the model": counted}.items()
    )
    return described(figure, f"The expected number of different colorings of {modes} grows slowly with the number of draws. {lines}.")


# --- enlarging ---


def edge(step: Tensor, plain: Tensor, exact: Tensor) -> Figure:
    """Draw a step of color (few,), enlarged in two ways to (many,) pixels, and what each gives when averaged back."""
    few, many = len(step), len(plain)
    fine, coarse = (np.arange(many) + 0.5) * few / many, np.arange(few) + 0.5
    missed = {}
    with styled():
        figure, places = plt.subplots(2, 1, figsize=(8, 5.4), sharex=True, sharey=True, layout="constrained", dpi=90)
        for axes, (name, curve) in zip(places, {"bilinear": plain, "with back-projection": exact}.items()):
            back = resize_area(curve[None].double(), (1, few))[0]
            missed[name] = float((back - step).abs().max())
            axes.stairs(step.numpy(), np.arange(few + 1), color="#555555", linewidth=1.5, label="prediction")
            axes.plot(fine, curve.numpy(), color=PALETTE[0], linewidth=2, label="enlarged")
            axes.plot(coarse, back.numpy(), "o", color=PALETTE[1], markersize=7, label="averaged back")
            axes.set_title(f"{name}: averaged back, it misses by up to {missed[name]:.1f}", fontsize=13)
            axes.set_ylabel("a, Lab units", fontsize=12)
            axes.tick_params(labelsize=12)
        places[0].legend(frameon=False, fontsize=12)
        places[1].set_xlabel("place, in pixels of the prediction", fontsize=12)
    first, second = missed.items()
    high, low = float(exact.max()), float(exact.min())
    return described(
        figure,
        f"A step of color from {float(step[0]):.0f} to {float(step[-1]):.0f} over {few} pixels, enlarged to {many}. "
        f"{first[0].capitalize()}: averaged back it misses by up to {first[1]:.1f} Lab units. "
        f"{second[0].capitalize()}: by {second[1]:.1f}; the curve is steeper and swings beyond the step, to {high:.0f} and {low:.0f}.",
    )


# --- the edge of what a screen can show ---


def gamut(pictures: Mapping[str, Picture], off: Mapping[str, Tensor], turned: Mapping[str, float]) -> Figure:
    """Draw a picture with strong colors brought to the screen in several ways, and below each how much its lightness changed.

    Args:
        pictures: uint8 `(H, W, 3)`, under the name of the way.
        off: change of lightness, `(H, W)`, Lab units.
        turned: mean turn of the hue, in degrees.
    """
    limit = max(1.0, max(float(each.abs().quantile(0.99)) for each in off.values()))
    with styled():
        figure, places = plt.subplots(2, len(pictures), figsize=(WIDTH, 6.9), layout="constrained", dpi=PHOTO_DPI)
        for column, (name, picture) in enumerate(pictures.items()):
            upper, lower = places[:, column]
            upper.set_title(name, fontsize=14, fontweight="bold")
            _show(upper, picture)
            image = lower.imshow(off[name].numpy(), cmap="PuOr", vmin=-limit, vmax=limit)
            lower.set_title(f"L off by {float(off[name].abs().mean()):.1f} on average\nhue turned by {turned[name]:.0f}°", fontsize=13)
            for axes in (upper, lower):
                axes.set(xticks=[], yticks=[])
        bar = figure.colorbar(image, ax=places[1], orientation="horizontal", fraction=0.06, aspect=40)
        bar.set_label("change of lightness, Lab units", fontsize=12)
    figure.shows_photographs = max(max(picture.shape) for picture in pictures.values()) > DRAWN  # type: ignore[attr-defined]
    told = "; ".join(
        f"{name}: lightness off by {float(off[name].abs().mean()):.1f} on average and at most {float(off[name].abs().max()):.0f} "
        f"Lab units, "
        f"hue turned by {turned[name]:.0f} degrees"
        for name in pictures
    )
    return described(figure, f"Too strong colors, brought to the screen in {len(pictures)} ways. {told}.")


# --- hints ---


def hinted(names: Sequence[str], bars: Mapping[str, Tensor], taus: Sequence[float], curves: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the probabilities of the modes before and after a hint, and how that of the hinted colors depends on its spread.

    Args:
        names: of the modes, in words.
        bars: probabilities `(M,)` under their names; at most four.
        taus: spreads of the hint.
        curves: probability of the hinted color for each tau.
    """
    with styled():
        figure, (left, right) = plt.subplots(2, 1, figsize=(8, 8.6), layout="constrained", dpi=90, gridspec_kw={"height_ratios": (3, 2)})
        high = 0.8 / len(bars)
        hatches, places = ("", "///", "", "///"), np.arange(len(names))
        colors = ("#bbbbbb", "#dddddd", PALETTE[0], PALETTE[5])
        for row, ((name, values), hatch, color) in enumerate(zip(bars.items(), hatches, colors)):
            spots = places + (row - (len(bars) - 1) / 2) * high
            left.barh(spots, values.numpy(), high * 0.92, color=color, hatch=hatch, edgecolor="#444444", linewidth=0.6, label=name)
        left.set_yticks(places, [name.replace(", ", ",\n", 1) for name in names], fontsize=12)
        left.invert_yaxis()
        left.set_xlabel("probability", fontsize=12)
        left.legend(frameon=False, fontsize=12, loc="lower right")
        for (name, found), style in zip(curves.items(), ("-", "o", "--")):
            right.plot(taus, found, style, label=name, linewidth=2, markersize=7)
        right.set_xscale("log")
        right.set(ylim=(-0.03, 1.05))
        right.set_xlabel("spread τ of the hint, Lab units", fontsize=12)
        right.set_ylabel("probability of the\nhinted clothes", fontsize=12)
        right.legend(frameon=False, fontsize=12)
        for axes in (left, right):
            axes.tick_params(labelsize=12)
    told = "; ".join(f"{name}: " + ", ".join(f"{value:.2f}" for value in values.tolist()) for name, values in bars.items())
    ends = "; ".join(f"{name}: {values[0]:.2f} at tau {taus[0]:g}, {values[-1]:.2f} at tau {taus[-1]:g}" for name, values in curves.items())
    return described(
        figure, f"Probabilities of {len(names)} modes ({' | '.join(names)}). {told}. Below, against the spread of the hint, {ends}."
    )
