"""The figures of chapter 7: hierarchical VAEs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch
from numpy.typing import NDArray
from torch import Tensor

from . import PALETTE, described, styled

Picture = NDArray[np.uint8]
PALE, NEAR = 15.0, 4.0  # Lab units: what counts as near gray, and as close to a true color.


def chain(levels: int) -> Figure:
    """Draw a Markovian hierarchy of T levels: x and z_1 ... z_T in a row, the decoder's arrows below, the encoder's above."""
    names = ["x", *(f"z_{{{level}}}" for level in range(1, levels + 1))]
    with styled():
        width = levels + 1.5
        figure, axes = plt.subplots(figsize=(9, 9 * 1.9 / width), layout="constrained")
        axes.set(xlim=(-0.5, levels + 1.0), ylim=(-0.95, 0.95), aspect="equal")
        axes.axis("off")
        for place, name in enumerate(names):
            axes.add_patch(Circle((place, 0), 0.2, fc="#d9d9d9" if place == 0 else "white", ec="#333333", lw=1.5))
            axes.text(place, 0, f"${name}$", ha="center", va="center", fontsize=16)
        for place, (below, above) in enumerate(pairwise(names)):
            _bent(axes, (place + 0.14, 0.18), (place + 0.86, 0.18), PALETTE[0], "-")
            _bent(axes, (place + 0.86, -0.18), (place + 0.14, -0.18), PALETTE[1], "--")
            axes.text(place + 0.5, 0.52, f"$q({above}|{below})$", ha="center", fontsize=15, color=PALETTE[0])
            axes.text(place + 0.5, -0.64, f"$p({below}|{above})$", ha="center", fontsize=15, color=PALETTE[1])
        axes.text(levels + 0.26, -0.2, f"prior $p({names[-1]})$", ha="left", va="top", fontsize=15, color=PALETTE[1])
        axes.text(-0.2, 0.84, "encoder: from the data up (solid)", ha="left", va="center", fontsize=13, color=PALETTE[0])
        axes.text(levels + 0.2, -0.84, "decoder: from the top down (dashed)", ha="right", va="center", fontsize=13, color=PALETTE[1])
    return described(
        figure,
        f"A chain of {levels + 1} circles, the data point x on the left and the codes z 1 to z {levels} to its right. "
        f"{levels} solid arrows above go up, from x to z {levels}: the encoder. {levels} dashed arrows below go down, "
        f"from z {levels} to x: the decoder, which starts from the prior of z {levels}.",
    )


def coupling(together: Tensor, apart: Tensor, slope: float) -> Figure:
    """Draw two clouds of pairs (z_1, z_2), `(S, 2)` each, and the line z_1 = slope z_2 where the decoder expects them."""
    spans = [pairs[:, 0] - slope * pairs[:, 1] for pairs in (together, apart)]
    squares = [float(span.square().mean()) for span in spans]
    links = [float(torch.corrcoef(pairs.T)[0, 1]) for pairs in (together, apart)]
    both = torch.cat([together, apart])
    (low_1, low_2), (high_1, high_2) = (both.amin(0) - 0.3).tolist(), (both.amax(0) + 0.3).tolist()
    titles = ("$z_2$ drawn from this $z_1$", "$z_2$ drawn from another $z_1$")
    with styled():
        figure, places = plt.subplots(1, 2, figsize=(9, 4.3), sharex=True, sharey=True, layout="constrained")
        for axes, pairs, title, square, color in zip(places, (together, apart), titles, squares, PALETTE):
            axes.scatter(pairs[:, 1], pairs[:, 0], s=9, alpha=0.4, color=color, edgecolors="none")
            axes.plot(*_ellipse(pairs.flip(1)), color=color, lw=2.2)
            axes.plot([low_2, high_2], [slope * low_2, slope * high_2], color="black", lw=1.5)
            axes.set(title=f"{title}\nmean squared distance {square:.2f}", xlabel="$z_2$", xlim=(low_2, high_2), ylim=(low_1, high_1))
        places[0].set_ylabel("$z_1$")
        places[0].text(high_2 - 0.1, low_1 + 0.1, "line: mean of $p(z_1|z_2)$", ha="right", va="bottom")
    return described(
        figure,
        f"Two clouds of {len(together)} pairs of codes, and the line where the decoder expects z 1, given z 2. Left, each z 2 was drawn "
        f"from its own z 1: correlation {links[0]:.2f}, mean squared distance from the line {squares[0]:.2f}. Right, z 2 was drawn from "
        f"another z 1: correlation {links[1]:.2f}, mean squared distance {squares[1]:.2f}.",
    )


def colors(groups: Mapping[str, Tensor]) -> Figure:
    """Draw colors (a, b) in Lab units, `(N, 2)` for each group, side by side on the same axes; the first group is the truth."""
    names = list(groups)
    truth = groups[names[0]]
    edge = 1.03 * float(max(points.abs().quantile(0.995) for points in groups.values()))
    told = []
    with styled():
        figure, places = plt.subplots(1, len(groups), figsize=(9, 3.7), sharex=True, sharey=True, squeeze=False, layout="constrained")
        for axes, (name, points), color in zip(places.flat, groups.items(), ("#333333", *PALETTE[1::-1])):
            axes.axhline(0, color="#bbbbbb", lw=0.8)
            axes.axvline(0, color="#bbbbbb", lw=0.8)
            axes.scatter(points[:, 0], points[:, 1], s=9, color=color, alpha=0.55, edgecolors="none")
            axes.set(title=name, xlabel="a", xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal")
            close = torch.cdist(points, truth).min(1).values < NEAR
            pale = points.norm(dim=1) < PALE
            among = "" if points is truth else f", {float(close.float().mean()):.0%} close to a true color"
            told.append(f"{name}: {float(pale.float().mean()):.0%} near gray{among}")
        places[0, 0].set_ylabel("b")
    return described(
        figure,
        f"{len(groups)} clouds of colors in the a-b plane, the true ones first. "
        f"Within {PALE:g} Lab units of gray and within {NEAR:g} of a true color: {'; '.join(told)}.",
    )


def rows(pictures: Mapping[str, Sequence[Picture]], note: str = "") -> Figure:
    """Draw rows of small pictures, each row under its name; `note` goes to the alt text."""
    columns = max(len(row) for row in pictures.values())
    side = 9 / columns
    with styled():
        figure, places = plt.subplots(len(pictures), columns, figsize=(9, len(pictures) * (side + 0.3)), squeeze=False)
        figure.subplots_adjust(left=0, right=1, bottom=0, top=1 - 0.3 / (len(pictures) * (side + 0.3)), wspace=0.05, hspace=0.3 / side)
        for line, (name, row) in zip(places, pictures.items()):
            for axes, picture in zip(line, row):
                axes.imshow(picture, interpolation="nearest")
            for axes in line:
                axes.axis("off")
            line[0].set_title(name, loc="left", fontsize=13, pad=5)
    told = "; ".join(
        f"{name.replace('$', '')}: {len(row)} pictures, neighbors differ by {_spread(row):.0f} gray levels on average"
        for name, row in pictures.items()
    )
    return described(figure, f"{len(pictures)} rows of color fields. {told}.{' ' + note if note else ''}")


def share_map(share: Tensor) -> Figure:
    """Draw for each pixel `(S, S)` the share of the variance of generated colors that the upper level decides."""
    size = share.shape[0]
    with styled():
        figure, axes = plt.subplots(figsize=(5.4, 4.4), layout="constrained")
        image = axes.imshow(share.clamp(0, 1).numpy(), cmap="cividis", vmin=0, vmax=1)
        for place, (y, x) in {"wall": (1, 1), "face": (size // 2, size // 2), "shirt": (size - 2, size // 2)}.items():
            value = float(share[y, x])
            axes.text(x, y, f"{place}\n{value:.2f}", ha="center", va="center", fontsize=11, color="black" if value > 0.5 else "white")
        axes.set(xticks=[], yticks=[])
        figure.colorbar(image, label="share decided by $z_2$")
    corner, face, shirt = float(share[1, 1]), float(share[size // 2, size // 2]), float(share[size - 2, size // 2])
    return described(
        figure,
        f"A map of {size} by {size} pixels: the share of the variance of generated colors that z 2 decides. Wall: {corner:.2f}; "
        f"shirt, bottom: {shirt:.2f}; face, middle: {face:.2f}. Mean over pixels {float(share.mean()):.2f}.",
    )


def listening(nats: Mapping[str, Tensor], z2: Tensor, said: Mapping[str, Tensor]) -> Figure:
    """Draw what the upper level spends during training, `(steps,)` for each model, and what it says: decoded means `(P,)` over z_2."""
    styles, told = ("--", "-", ":", "-."), []
    with styled():
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.9), layout="constrained")
        for (name, curve), style, color in zip(nats.items(), styles, PALETTE[1:]):
            smooth = curve.unfold(0, window := min(20, len(curve)), 1).mean(1)
            left.plot(np.arange(len(smooth)) + window / 2, smooth.numpy(), style, color=color, lw=2.2, label=name)
            right.plot(z2.numpy(), said[name].numpy(), style, color=color, lw=2.2)
            span = float(said[name].max() - said[name].min())
            told.append(f"{name}: {float(smooth[-1]):.2f} nats at the end, decoded means span {span:.2f}")
        left.set(xlabel="step", ylabel="nats", title="spent by level 2 during training")
        right.set(xlabel="$z_2$", ylabel="decoded mean", title="what $z_2$ says about $x$")
        right.axhline(-1, color="#999999", lw=0.8)
        right.axhline(1, color="#999999", lw=0.8)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(nats), frameon=False)
    return described(
        figure,
        "Left, the nats that level 2 spends during training; right, the decoded mean of z 1 given z 2, against z 2. The two groups of data "
        f"lie at -1 and +1. {'; '.join(told)}.",
    )


def noising(pictures: Sequence[Picture], kept: Sequence[float], levels: Sequence[int]) -> Figure:
    """Draw one color field at several levels of a diffusion chain; `kept` is the factor before x at each level."""
    with styled():
        figure, places = plt.subplots(1, len(pictures), figsize=(9, 9 / len(pictures) + 0.75), squeeze=False, layout="constrained")
        for axes, picture, factor, level in zip(places.flat, pictures, kept, levels):
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(f"$t = {level}$" if level else "$x$", fontsize=13)
            axes.set_xlabel(f"{factor:.2f}", fontsize=12)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        figure.supxlabel("factor before $x$", fontsize=12)
    told = ", ".join(f"{factor:.2f} at t = {level}" for factor, level in zip(kept, levels))
    return described(
        figure, f"One color field, {len(pictures)} times, with more and more noise from left to right. The factor before x: {told}."
    )


def _ellipse(pairs: Tensor) -> NDArray[np.float64]:
    """The outline, `(2, 200)`, two standard deviations around the mean of pairs `(S, 2)`."""
    center, spread = pairs.double().mean(0).numpy(), np.linalg.cholesky(torch.cov(pairs.double().T).numpy())
    turn = np.linspace(0, 2 * np.pi, 200)
    outline: NDArray[np.float64] = center[:, None] + 2 * spread @ np.stack([np.cos(turn), np.sin(turn)])
    return outline


def _bent(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, style: str) -> None:
    arrow = FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=16, connectionstyle="arc3,rad=-0.35", color=color, lw=1.8, linestyle=style
    )
    axes.add_patch(arrow)


def _spread(row: Sequence[Picture]) -> float:
    """Mean absolute difference of neighboring pictures, in gray levels of 0 to 255."""
    pairs = [np.abs(one.astype(float) - other.astype(float)).mean() for one, other in pairwise(row)]
    return float(np.mean(pairs)) if pairs else 0.0
