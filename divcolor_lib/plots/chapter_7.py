"""The figures of chapter 7: hierarchical VAEs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch
from numpy.typing import NDArray
from torch import Tensor

from . import PALETTE, described, styled

Picture = NDArray[np.uint8]


def chain(levels: int) -> Figure:
    """Draw a Markovian hierarchy of T levels: x and z_1 ... z_T in a row, the decoder's arrows below, the encoder's above."""
    names = ["x", *(f"z_{{{level}}}" for level in range(1, levels + 1))]
    with styled():
        figure, axes = plt.subplots(figsize=(9, 2.6), layout="constrained")
        axes.set(xlim=(-0.6, levels + 0.6), ylim=(-1.05, 1.05))
        axes.axis("off")
        for place, name in enumerate(names):
            axes.add_patch(Circle((place, 0), 0.2, fc="#d9d9d9" if place == 0 else "white", ec="#333333", lw=1.5))
            axes.text(place, 0, f"${name}$", ha="center", va="center", fontsize=16)
        for place, (below, above) in enumerate(zip(names, names[1:])):
            _bent(axes, (place + 0.14, 0.18), (place + 0.86, 0.18), PALETTE[0], "-")
            _bent(axes, (place + 0.86, -0.18), (place + 0.14, -0.18), PALETTE[1], "--")
            axes.text(place + 0.5, 0.52, f"$q({above}|{below})$", ha="center", fontsize=13, color=PALETTE[0])
            axes.text(place + 0.5, -0.64, f"$p({below}|{above})$", ha="center", fontsize=13, color=PALETTE[1])
        axes.text(levels + 0.27, -0.3, f"$p({names[-1]})$", ha="left", va="top", fontsize=13, color=PALETTE[1])
        axes.text(-0.5, 0.9, "encoder, upward, solid", ha="left", va="center", color=PALETTE[0])
        axes.text(levels + 0.5, -0.95, "decoder, downward, dashed", ha="right", va="center", color=PALETTE[1])
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
    edge = float(max(together.abs().max(), apart.abs().max())) * 1.05
    titles = ("$z_2$ drawn from this $z_1$", "$z_2$ drawn from another $z_1$")
    with styled():
        figure, places = plt.subplots(1, 2, figsize=(9, 4.3), sharex=True, sharey=True, layout="constrained")
        for axes, pairs, title, square, color in zip(places, (together, apart), titles, squares, PALETTE):
            axes.scatter(pairs[:, 1], pairs[:, 0], s=9, alpha=0.5, color=color, edgecolors="none")
            axes.plot([-edge, edge], [-slope * edge, slope * edge], color="black", lw=1.5)
            axes.set(title=f"{title}\nmean squared distance {square:.2f}", xlabel="$z_2$", xlim=(-edge, edge), ylim=(-edge, edge))
        places[0].set_ylabel("$z_1$")
        places[0].annotate(
            "mean of $p(z_1|z_2)$", (-0.7 * edge, -0.7 * slope * edge), (-0.95 * edge, 0.6 * edge), arrowprops={"arrowstyle": "->"}
        )
    return described(
        figure,
        f"Two clouds of {len(together)} pairs of codes around the line where the decoder expects z 1, given z 2. Left, each z 2 was drawn "
        f"from its own z 1: the cloud leans along with the line, mean squared distance {squares[0]:.2f}. Right, z 2 comes from another "
        f"z 1: the cloud is {'upright' if squares[1] > squares[0] else 'not further away'}, mean squared distance {squares[1]:.2f}.",
    )


def codes(found: Mapping[str, Tensor], drawn: Mapping[str, Tensor]) -> Figure:
    """Draw for each model two numbers of its z_1: for data (`found`) and drawn from its prior (`drawn`), `(N, 2)` each."""
    with styled():
        figure, places = plt.subplots(1, len(found), figsize=(9, 4.6), squeeze=False, layout="constrained")
        told = []
        for axes, (name, real) in zip(places.flat, found.items()):
            prior = drawn[name]
            axes.scatter(prior[:, 0], prior[:, 1], s=26, marker="+", lw=0.8, color=PALETTE[1], alpha=0.75, label="drawn from the prior")
            axes.scatter(real[:, 0], real[:, 1], s=11, color=PALETTE[0], alpha=0.8, edgecolors="none", label="codes of color fields")
            edge = 1.05 * float(max(real.abs().max(), prior.abs().max()))
            axes.set(title=name, xlim=(-edge, edge), ylim=(-edge, edge), xlabel="one number of $z_1$", aspect="equal")
            far = float((prior[:, None] - real[None]).norm(dim=2).min(1).values.mean() / real.std(0).mean())
            told.append(f"{name}: a draw lies {far:.2f} standard deviations from the nearest code on average")
        places[0, 0].set_ylabel("another number of $z_1$")
        figure.legend(*places[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, markerscale=1.6)
    return described(
        figure,
        f"Two numbers of z 1 for {len(next(iter(found.values())))} color fields, as dots that gather in clusters, and crosses drawn from each "
        f"model's prior. {'; '.join(told)}.",
    )


def rows(pictures: Mapping[str, Sequence[Picture]], note: str = "") -> Figure:
    """Draw rows of small pictures, each row under its name; `note` goes to the alt text."""
    columns = max(len(row) for row in pictures.values())
    with styled():
        figure, places = plt.subplots(
            len(pictures), columns, figsize=(9, len(pictures) * (9 / columns + 0.32)), squeeze=False, layout="constrained"
        )
        for line, (name, row) in zip(places, pictures.items()):
            for axes, picture in zip(line, row):
                axes.imshow(picture, interpolation="nearest")
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
            line[0].set_title(name, loc="left", fontsize=13)
    spread = {name: _spread(row) for name, row in pictures.items()}
    told = "; ".join(
        f"{name}: {len(row)} pictures that differ by {spread[name]:.0f} gray levels on average" for name, row in pictures.items()
    )
    return described(figure, f"{len(pictures)} rows of color fields. {told}.{' ' + note if note else ''}")


def share_map(share: Tensor) -> Figure:
    """Draw for each pixel `(S, S)` the share of the variance of generated colors that the upper level decides."""
    size = share.shape[0]
    with styled():
        figure, axes = plt.subplots(figsize=(5.4, 4.4), layout="constrained")
        image = axes.imshow(share.clamp(0, 1), cmap="cividis", vmin=0, vmax=1)
        for place, (y, x) in {"wall": (1, 1), "face": (size // 2, size // 2), "shirt": (size - 2, size // 2)}.items():
            value = float(share[y, x])
            axes.text(x, y, f"{place}\n{value:.2f}", ha="center", va="center", fontsize=11, color="black" if value > 0.5 else "white")
        axes.set(xticks=[], yticks=[])
        figure.colorbar(image, label="share decided by $z_2$")
    corner, face, shirt = float(share[1, 1]), float(share[size // 2, size // 2]), float(share[size - 2, size // 2])
    return described(
        figure,
        f"A map of {size} by {size} pixels: the share of the variance of generated colors that z 2 decides. Wall, upper left: {corner:.2f}; "
        f"shirt, bottom: {shirt:.2f}; face, middle: {face:.2f}. Mean over pixels {float(share.mean()):.2f}.",
    )


def humps(grid: Tensor, densities: Mapping[str, Tensor], data: Tensor) -> Figure:
    """Draw a histogram of one-dimensional data `(N,)` and densities on a grid `(P,)`, each in its own line style."""
    styles = ("--", "-", ":", "-.")
    with styled():
        figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
        axes.hist(data.numpy(), bins=60, range=(float(grid.min()), float(grid.max())), density=True, color="#cfcfcf", label="data")
        told = []
        for (name, density), style, color in zip(densities.items(), styles, PALETTE[1:]):
            axes.plot(grid, density, style, color=color, lw=2.4, label=name)
            inner = density[1:-1]
            count = int(((inner > density[:-2]) & (inner > density[2:]) & (inner > 0.05 * density.max())).sum())
            told.append(f"{name}: {count} {'hump' if count == 1 else 'humps'}, height {float(density.max()):.2f}")
        axes.set(xlabel="$x$", ylabel="density")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return described(figure, f"A histogram of {len(data)} numbers and the densities of {len(densities)} models. {'; '.join(told)}.")


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


def _bent(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, style: str) -> None:
    arrow = FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=16, connectionstyle="arc3,rad=-0.35", color=color, lw=1.8, linestyle=style
    )
    axes.add_patch(arrow)


def _spread(row: Sequence[Picture]) -> float:
    """Mean absolute difference of neighboring pictures, in gray levels of 0 to 255."""
    pairs = [np.abs(one.astype(float) - other.astype(float)).mean() for one, other in zip(row, row[1:])]
    return float(np.mean(pairs)) if pairs else 0.0
