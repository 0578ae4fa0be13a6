"""The figures of chapter 2: one gray, many colors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from numpy.typing import NDArray
from torch import Tensor

from ..lab import AB_SCALE, L_SCALE, join
from . import GRAYISH, PALETTE, color_name, described, grid, styled

Picture = NDArray[np.uint8]
_STRIP_LIGHT = 55.0  # The lightness at which a strip shows colors of which only a and b are given.


def expected_losses(first: Sequence[float], second: Sequence[float], probability: float) -> Figure:
    """Draw the expected squared, absolute and 0-1 loss of every answer on the line through two colors.

    Args:
        first, second: (a, b) in Lab units; position 0 and position 1 on the line.
        probability: that of the second color.
    """
    start, end = torch.tensor(first), torch.tensor(second)
    place = torch.linspace(-0.25, 1.25, 301)
    answers = start + place[:, None] * (end - start)
    to_first, to_second = (answers - start), (answers - end)

    def expected(p: float) -> tuple[Tensor, Tensor]:
        squared = (1 - p) * to_first.square().sum(1) + p * to_second.square().sum(1)
        absolute = (1 - p) * to_first.abs().sum(1) + p * to_second.abs().sum(1)
        return squared, absolute

    squared, absolute = expected(probability)
    _, even = expected(0.5)
    likely = float(probability > 0.5)
    with styled():
        figure, places = plt.subplots(1, 3, figsize=(7.8, 3.1), layout="constrained")
        for axes, name in zip(places, ("squared loss", "absolute loss", "0-1 loss")):
            axes.set(title=name, xlabel="answer", xlim=(-0.25, 1.25), xticks=[0, probability, 1])
            axes.set_xticklabels([color_name(*first), "mean", color_name(*second)])
        places[0].set_ylabel("expected loss, one pixel")
        places[0].plot(place, squared)
        _mark(places[0], probability, float(squared.min()))
        places[1].plot(place, absolute, label=f"odds {1 - probability:.1f} : {probability:.1f}")
        places[1].plot(place, even, "--", color=PALETTE[1], label="even odds: flat")
        places[1].legend(loc="upper center", frameon=False, fontsize=9)
        _mark(places[1], likely, float(absolute.min()))
        places[2].plot([-0.25, 1.25], [1, 1], color=PALETTE[0])
        places[2].plot([0, 1], [1, 1], "o", mfc="white", mec=PALETTE[0])
        places[2].plot([0, 1], [probability, 1 - probability], "o", color=PALETTE[0])
        _mark(places[2], likely, 1 - max(probability, 1 - probability))
        for axes in places:
            top = 1.25 * max(line.get_ydata().max() for line in axes.lines)
            axes.set_ylim(-0.12 * top, top)
            strip = _painted(answers).transpose(1, 0, 2)
            axes.imshow(strip, extent=(-0.25, 1.25, -0.12 * top, -0.02 * top), aspect="auto")
    best = color_name(*(start + probability * (end - start)).tolist())
    winner = color_name(*(second if likely else first))
    return described(
        figure,
        f"Three curves, expected losses of one pixel, over all answers from {color_name(*first)}, probability {1 - probability:.2f}, "
        f"to {color_name(*second)}, probability {probability:.2f}. The squared loss is a parabola "
        f"whose lowest point, {float(squared.min()):.0f}, is at the mean, "
        f"a dull {best} with a chroma of {float((start + probability * (end - start)).norm()):.0f}. "
        f"The absolute loss is lowest, {float(absolute.min()):.0f}, at {winner}; with even odds it is flat between the two. "
        f"The 0-1 loss is 1 everywhere except at the two colors, and lowest, {1 - max(probability, 1 - probability):.2f}, at {winner}.",
    )


def colorings(gray: Picture, pictures: Sequence[Picture], probabilities: Sequence[float], names: Sequence[str], description: str) -> Figure:
    """Draw a gray portrait and every plausible coloring of it with its probability."""
    labels = ["gray", *(f"p = {p:.3f}" for p in probabilities)]
    figure = grid([gray, *pictures], labels, columns=min(5, len(labels)))
    told = "; ".join(f"{name}, probability {p:.3f}" for name, p in zip(names, probabilities))
    return described(figure, f"A drawn {description}: in gray, and in its {len(pictures)} plausible colorings. {told}.")


def averaged(colors: Mapping[str, Tensor], words: Mapping[str, Sequence[str]], probabilities: Tensor) -> Figure:
    """Draw, for each region, the color of every coloring in the plane of a and b, and their mean.

    Args:
        colors: for each region (M, 2) in Lab units, one color for each coloring.
        words: for each region the names of these colors.
        probabilities: (M,).
    """
    told = []
    with styled():
        figure, places = plt.subplots(1, len(colors), figsize=(7.8, 4.0), squeeze=False, layout="constrained")
        for axes, (region, points) in zip(places[0], colors.items()):
            mean = (probabilities.to(points)[:, None] * points).sum(0)
            axes.axhline(0, color="#bbbbbb", lw=0.8)
            axes.axvline(0, color="#bbbbbb", lw=0.8)
            axes.add_patch(Circle((0, 0), GRAYISH, fc="none", ec="#777777", ls=":"))
            axes.text(-GRAYISH - 1, 1, "gray", ha="right", va="bottom", color="#555555")
            found = []
            for color in points.unique(dim=0):
                p = float(probabilities[(points == color).all(1)].sum())
                name, chroma = words[region][int((points == color).all(1).nonzero()[0])], float(color.norm())
                above = float(color[1]) > 0
                axes.plot([color[0], mean[0]], [color[1], mean[1]], ":", color="#777777", lw=1)
                axes.scatter(*color.tolist(), s=60 + 700 * p, color=_painted(color[None])[0, 0] / 255, ec="black", zorder=3)
                axes.annotate(
                    f"{name}, p = {p:.2f}",
                    color.tolist(),
                    xytext=(0, 16 if above else -16),
                    textcoords="offset points",
                    ha="center",
                    va="bottom" if above else "top",
                )
                found.append(f"{name} with probability {p:.2f} and chroma {chroma:.0f}")
            axes.scatter(*mean.tolist(), marker="X", s=150, color=_painted(mean[None])[0, 0] / 255, ec="black", zorder=4)
            axes.annotate(
                f"mean, chroma {float(mean.norm()):.0f}",
                mean.tolist(),
                xytext=(10, 0),
                textcoords="offset points",
                va="center",
                fontsize=10,
            )
            axes.set(title=region, xlabel="a: green to red", ylabel="b: blue to yellow", xlim=(-48, 58), ylim=(-50, 62), aspect="equal")
            told.append(
                f"{region}: {', '.join(found)}; mean at a = {float(mean[0]):.0f}, b = {float(mean[1]):.0f}, chroma {float(mean.norm()):.0f}"
            )
    return described(
        figure,
        "The colors of the regions in the plane of a and b, a larger disk for a larger probability, and their mean as a cross "
        f"nearer to gray than the disks. {'. '.join(told)}.",
    )


def regression(steps: Sequence[int], errors: Sequence[float], floor: float, answers: Mapping[str, Picture]) -> Figure:
    """Draw the error of a regression network on new portraits against the least possible one, and its answers.

    Args:
        steps, errors: the mean squared error after so many training steps.
        floor: the error of the exact posterior mean.
        answers: pictures of one portrait, under their labels.
    """
    with styled():
        figure, places = plt.subplots(
            1, 1 + len(answers), figsize=(9, 3.0), layout="constrained", gridspec_kw={"width_ratios": [2.4, *[1.0] * len(answers)]}
        )
        curve = places[0]
        scaled = np.array(errors) / floor
        curve.plot(steps, scaled, "o-", ms=3)
        curve.axhline(1, color=PALETTE[1], ls="--")
        curve.axhline(2, color=PALETTE[2], ls=":")
        curve.text(steps[-1], 0.97, "the exact posterior mean", ha="right", va="top", color=PALETTE[1])
        curve.text(steps[-1], 2.02, "a coloring drawn at random", ha="right", va="bottom", color=PALETTE[2])
        curve.text(steps[len(steps) // 3], scaled[len(steps) // 3] + 0.06, "network", color=PALETTE[0], va="bottom")
        curve.set(xlabel="training step", ylabel="squared error / floor", ylim=(0, max(2.4, 1.1 * float(scaled.max()))))
        for axes, (label, picture) in zip(places[1:], answers.items()):
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(label)
            axes.axis("off")
    return described(
        figure,
        f"Squared error on new portraits, as a multiple of the error of the exact posterior mean, over {steps[-1]} training steps: "
        f"it falls from {scaled[0]:.2f} to {scaled[-1]:.2f} and does not go below 1. "
        "A coloring drawn at random from the true distribution has twice the floor. "
        f"Beside it one portrait: {', '.join(answers)}.",
    )


def answers(pictures: Mapping[str, Picture], log_odds: Sequence[float | None]) -> Figure:
    """Draw what each rule answers, with the log density relative to the best mode where there is one, in nats."""
    labels = [label if odds is None else f"{label}\n{odds:,.0f} nats" for label, odds in zip(pictures, log_odds)]
    figure = grid(list(pictures.values()), labels, columns=len(labels))
    told = "; ".join(label if odds is None else f"{label}: {odds:,.0f} nats" for label, odds in zip(pictures, log_odds))
    return described(figure, f"One portrait as each rule answers it, with its log density relative to the most probable coloring. {told}.")


def two_ways(gray: Picture, apart: Picture, together: Sequence[Picture], probabilities: Sequence[float], disagreeing: float) -> Figure:
    """Draw the two ways to be random: one draw for every pixel, or one draw of a code for the whole picture.

    Args:
        disagreeing: the probability that two pixels of one region disagree when each draws alone.
    """
    shown = list(zip(together, probabilities))[:4]
    with styled():
        figure, axes = plt.subplots(figsize=(7.8, 4.8), layout="constrained")
        axes.axis("off")
        axes.text(0.1, 5.05, "each pixel draws alone", va="top", fontsize=13)
        axes.text(0.1, 2.65, "one code for the whole picture", va="top", fontsize=13)
        _place(axes, gray, 0.1, 3.25, 1.2)
        _place(axes, gray, 0.1, 0.8, 1.2)
        for row in range(3):
            height = 4.4 - 0.58 * row
            _box(axes, 2.2, height - 0.2, 2.1, 0.4, f"draw for pixel {row + 1}" if row < 2 else "... and so on")
            _arrow(axes, (1.35, 3.85), (2.15, height))
            _arrow(axes, (4.35, height), (5.1, 3.85))
        _place(axes, apart, 5.2, 3.25, 1.2)
        axes.text(6.5, 3.85, f"two pixels of\nthe shirt disagree\nwith p = {disagreeing:.2f}", va="center")
        _box(axes, 1.95, 1.1, 1.6, 0.6, "z ~ p(z | G)")
        _arrow(axes, (1.35, 1.4), (1.9, 1.4))
        _box(axes, 4.15, 1.1, 1.85, 0.6, "C ~ p(C | z, G)")
        _arrow(axes, (3.6, 1.4), (4.1, 1.4))
        for column, (picture, p) in enumerate(shown):
            left, bottom = 6.7 + 1.2 * (column % 2), 1.5 - 1.35 * (column // 2)
            _place(axes, picture, left, bottom, 0.95)
            axes.text(left + 0.47, bottom + 0.98, f"p = {p:.3f}", ha="center", va="bottom", fontsize=10)
        _arrow(axes, (6.05, 1.4), (6.6, 1.4))
        bent = {"arrowstyle": "->", "connectionstyle": "angle,angleA=0,angleB=90,rad=8", "color": "#444444"}
        axes.annotate("", xy=(5.05, 1.06), xytext=(0.7, 0.75), arrowprops=bent)
        axes.text(2.9, 0.62, "G goes to the decoder, too", ha="center", va="top")
        axes.set(xlim=(0, 9), ylim=(0, 5.1))
    told = ", ".join(f"{p:.3f}" for _, p in shown)
    return described(
        figure,
        "Two ways from one gray portrait G to random colors. Above, each pixel draws its color alone: the picture is speckled, "
        f"and two pixels of the shirt disagree with probability {disagreeing:.2f}. Below, one code z is drawn from p(z given G), "
        "and a decoder that also sees G paints the whole picture from it: "
        f"{len(shown)} pictures, each of one piece, with probabilities {told}.",
    )


def high_dimension(
    cells: Mapping[int, float], distances: Mapping[int, Tensor], lengths: Sequence[int], share: float, shell: float
) -> Figure:
    """Draw three things that happen to random points as dimensions are added.

    Args:
        cells: for each dimension the share of the cells, ten along each axis, that hold a point.
        distances: for each dimension the distances of pairs of points.
        lengths: the dimensions of the two curves.
        share: how much of a cube's volume the inner cube holds, whose edge is drawn.
        shell: how thick the shell of a ball is, of radius 1, whose volume is drawn.
    """
    edge = [share ** (1 / M) for M in lengths]
    outer = [1 - (1 - shell) ** M for M in lengths]
    spread = {M: float(d.std() / d.mean()) for M, d in distances.items()}
    with styled():
        figure, places = plt.subplots(1, 3, figsize=(8.2, 3.5), layout="constrained")
        bars = places[0].bar([str(M) for M in cells], list(cells.values()), color=PALETTE[0], edgecolor="black")
        places[0].bar_label(bars, [f"{v:.0%}" if v > 0.02 else f"{v:.1%}" for v in cells.values()], fontsize=9)
        places[0].set(title="cells that hold a point", xlabel="dimensions", ylim=(0, 1.15), yticks=[0, 0.5, 1])
        for (M, d), style, color in zip(distances.items(), ("-", "--", ":"), PALETTE):
            density, edges = np.histogram((d / d.mean()).numpy(), bins=44, range=(0, 2.2), density=True)
            places[1].plot((edges[1:] + edges[:-1]) / 2, density / density.max(), style, color=color, label=f"M = {M}")
        places[1].set(title="distances of random pairs", xlabel="distance / mean distance", yticks=[], ylim=(0, 1.6), xlim=(0, 2.2))
        places[1].legend(frameon=False, fontsize=9, loc="upper right")
        places[2].semilogx(lengths, edge, "-", color=PALETTE[0], label=f"edge of a cube\nwith {share:.0%} of the volume")
        places[2].semilogx(lengths, outer, "--", color=PALETTE[1], label=f"outer {shell:.0%} of a ball:\nshare of its volume")
        places[2].set(title="edges and shells", xlabel="dimensions M", ylim=(0, 1.75), yticks=[0, 0.5, 1])
        places[2].legend(frameon=False, fontsize=9, loc="upper left")
    first, last = lengths[0], lengths[-1]
    return described(
        figure,
        f"Three panels. Cells that hold a point, by dimension: {', '.join(f'{M}: {v:.1%}' for M, v in cells.items())}. "
        f"Distances of random pairs gather at their mean: relative spread {', '.join(f'{v:.3f} for M = {M}' for M, v in spread.items())}. "
        f"The edge of a cube that holds {share:.0%} of the volume grows from {edge[0]:.2f} at M = {first} to {edge[-1]:.3f} at M = {last}; "
        f"the outer {shell:.0%} of a ball holds {outer[0]:.2f} of the volume at M = {first} and {outer[-1]:.2f} at M = {last}.",
    )


def few_numbers(held: Sequence[float], length: int, pictures: Mapping[str, Picture], marked: Sequence[int]) -> Figure:
    """Draw the share of the variance that the first d components hold, and one picture painted with few numbers.

    Args:
        held: the share for d = 1, 2, ...
        length: M, the numbers of a field; noise would need a share of them all.
        pictures: reconstructions under their labels.
        marked: the d to mark on the curve.
    """
    count = np.arange(1, len(held) + 1)
    with styled():
        figure = plt.figure(figsize=(8.2, 5.4), layout="constrained")
        frame = figure.add_gridspec(2, len(pictures), height_ratios=[1.5, 1])
        axes = figure.add_subplot(frame[0, :])
        axes.semilogx(count, held, color=PALETTE[0])
        axes.semilogx(count, count / length, "--", color=PALETTE[1])
        axes.text(count[-1], held[-1] - 0.04, "color fields of portraits", ha="right", va="top", color=PALETTE[0])
        axes.text(
            count[-1], len(held) / length + 0.03, f"noise of the same length, d / {length}", ha="right", va="bottom", color=PALETTE[1]
        )
        for d in marked:
            axes.plot(d, held[d - 1], "o", color=PALETTE[0])
            axes.annotate(f"{held[d - 1]:.0%}", (d, held[d - 1]), xytext=(0, 7), textcoords="offset points", ha="right")
        axes.set(
            xlabel="number of components d",
            ylabel="share of the variance",
            ylim=(-0.03, 1.12),
            xlim=(0.7, 1.2 * len(held)),
            xticks=list(marked),
        )
        axes.set_xticklabels([str(d) for d in marked])
        axes.minorticks_off()
        for column, (label, picture) in enumerate(pictures.items()):
            place = figure.add_subplot(frame[1, column])
            place.imshow(picture, interpolation="nearest")
            place.set_title(label)
            place.axis("off")
    told = ", ".join(f"{d}: {held[d - 1]:.0%}" for d in marked)
    return described(
        figure,
        f"The share of the variance of color fields of length {length} that the first d principal components hold: {told}. "
        f"For noise of that length it is d / {length}, {len(held) / length:.1%} at d = {len(held)}. "
        f"Below, one portrait: {', '.join(pictures)}.",
    )


def _painted(colors: Tensor) -> Picture:
    """Return (N, 1, 3) uint8 sRGB of colors (N, 2) in Lab units at a middle lightness."""
    count = len(colors)
    gray = torch.full((1, 1, count, 1), _STRIP_LIGHT / L_SCALE - 1)
    return np.asarray(join(gray, (colors / AB_SCALE).T[None, :, :, None].float())[0].numpy())


def _mark(axes: Axes, x: float, y: float) -> None:
    axes.plot(x, y, "v", color="black", ms=9, zorder=5)


def _place(axes: Axes, picture: Picture, left: float, bottom: float, side: float) -> None:
    axes.imshow(picture, extent=(left, left + side, bottom, bottom + side), aspect="auto", interpolation="nearest", zorder=2)


def _box(axes: Axes, left: float, bottom: float, width: float, height: float, text: str) -> None:
    axes.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle="round,pad=0.03", fc="#f6f1e7", ec="#444444", zorder=2))
    axes.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", zorder=3)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="->", mutation_scale=12, color="#444444"))
