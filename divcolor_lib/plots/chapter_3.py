"""The figures of chapter 3: coordinates, principal directions, curved codes, bottlenecks, repair, and holes between codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from ..lab import L_SCALE, join
from . import PALETTE, described, grid, styled

DARK, LIGHT = "#333333", "#bbbbbb"
#: Color fields without a gray image are painted on this even lightness, where sRGB has the most room for colors.
EVEN_LIGHTNESS = 62.0
BODY = (  # center, half axes: x to the person's left and right, y to the front, z up; meters
    ((0.00, 0.00, 1.62), (0.10, 0.11, 0.14), 260),
    ((0.00, 0.00, 1.18), (0.19, 0.11, 0.33), 420),
)
LIMBS = (  # from, to, radius: an arm and a leg; mirrored for the other side
    ((0.19, 0.00, 1.42), (0.72, 0.06, 1.28), 0.05, 150),
    ((0.09, 0.00, 0.90), (0.13, 0.00, 0.06), 0.07, 190),
    ((0.13, 0.00, 0.04), (0.14, 0.17, 0.04), 0.04, 50),
)
EYES_NOSE_MOUTH = ((0.04, 0.105, 1.66), (0.0, 0.13, 1.61), (0.02, 0.115, 1.56))


def person() -> tuple[Tensor, Tensor]:
    """Return the points `(N, 3)` of a standing person with raised arms, in meters, and which of them are the face, `(N,)` bool.

    The first axis runs along the arms, the second to the front, the third up. Left and right are mirror images.
    """
    random = np.random.default_rng(0)
    parts = []
    for center, axes, count in BODY:
        ball = random.normal(size=(count, 3))
        parts.append(np.array(center) + np.array(axes) * ball / np.linalg.norm(ball, axis=1, keepdims=True))
    for start, end, radius, count in LIMBS:
        along = random.uniform(size=(count, 1))
        ring = random.normal(size=(count, 3))
        parts.append(
            np.array(start) + along * (np.array(end) - np.array(start)) + radius * ring / np.linalg.norm(ring, axis=1, keepdims=True)
        )
    half = np.concatenate([*parts, np.array(EYES_NOSE_MOUTH)])
    points = np.concatenate([half, half * [-1, 1, 1]])
    face = np.zeros(len(half), bool)
    face[-len(EYES_NOSE_MOUTH) :] = True
    return torch.tensor(points, dtype=torch.float32), torch.tensor(np.tile(face, 2))


def even(rows: Tensor) -> NDArray[np.uint8]:
    """Return pictures `(N, S, S, 3)` of color fields given as rows `(N, 2 S S)`, painted on one even lightness."""
    side = math.isqrt(rows.shape[1] // 2)
    ab = rows.reshape(-1, 2, side, side).float()
    gray = torch.full((len(ab), 1, side, side), EVEN_LIGHTNESS / L_SCALE - 1)
    return np.asarray(join(gray, ab).numpy())


def cameras(points: Tensor, face: Tensor, views: Sequence[tuple[str, Tensor, Tensor]]) -> Figure:
    """Draw what each camera sees of a cloud of points, and the share of the total variance that its flat picture keeps.

    Args:
        points: `(N, 3)`; face: `(N,)` bool, drawn in black.
        views: a name, and the directions `(3,)` that run to the right and up in the picture, both of length 1.
    """
    centered = points - points.mean(0)
    total = float(centered.square().sum(1).mean())
    columns = 3
    told = []
    with styled():
        figure, places = plt.subplots(-(-len(views) // columns), columns, figsize=(7.2, 6.3), layout="constrained", squeeze=False)
        for axes in places.flat:
            axes.axis("off")
        for axes, (name, right, up) in zip(places.flat, views):
            x, y, depth = centered @ right, centered @ up, centered @ torch.linalg.cross(right, up)
            kept = float((x.square() + y.square()).mean()) / total
            order = depth.argsort()
            near = (depth - depth.min()) / (depth.max() - depth.min())
            shade = np.where(face[order], 0.0, 0.72 - 0.32 * near[order])
            axes.scatter(x[order], y[order], c=shade, cmap="gray", vmin=0, vmax=1, s=np.where(face[order], 16, 34), lw=0)
            axes.set(xlim=(-0.95, 0.95), ylim=(-1.15, 0.95), aspect="equal")
            axes.set_title(f"{name}\nkeeps {kept:.0%}", fontsize=13)
            told.append(f"{name} keeps {kept:.0%}")
    return described(
        figure,
        f"A person with raised arms, drawn as a cloud of points, seen from {len(views)} directions. Share of the total variance that "
        f"each flat picture keeps: {'; '.join(told)}.",
    )


def five_points(points: Tensor, directions: Tensor, variances: Tensor) -> Figure:
    """Draw points in the plane, their principal directions, and their projections on the first.

    Args:
        points: `(N, 2)`; directions: `(2, 2)`, a row each, by falling variance; variances: `(2,)`.
    """
    mean = points.mean(0)
    scores = (points - mean) @ directions[0]
    feet = mean + scores[:, None] * directions[0]
    with styled():
        figure, axes = plt.subplots(figsize=(7.5, 5.5), layout="constrained")
        reach = 1.25 * float(scores.abs().max())
        line = torch.stack([mean - reach * directions[0], mean + reach * directions[0]])
        axes.plot(line[:, 0], line[:, 1], color=LIGHT, lw=2, zorder=1)
        for point, foot in zip(points, feet):
            axes.plot([point[0], foot[0]], [point[1], foot[1]], ":", color=PALETTE[1], lw=2, zorder=2)
        axes.plot(points[:, 0], points[:, 1], "o", color=PALETTE[0], ms=10, zorder=4, label="data $x$")
        axes.plot(feet[:, 0], feet[:, 1], "s", color=PALETTE[1], ms=8, mfc="white", mew=2, zorder=3, label=r"projection $\hat x$")
        axes.plot(*mean, "P", color=PALETTE[6], ms=11, zorder=5, label=r"mean $\bar x$")
        for number, (direction, variance) in enumerate(zip(directions, variances), start=1):
            tip = mean + math.sqrt(float(variance)) * direction
            axes.annotate(
                "",
                xy=tip.tolist(),
                xytext=(float(mean[0]), float(mean[1])),
                arrowprops={"arrowstyle": "-|>", "lw": 2.5, "color": DARK},
                zorder=6,
            )
            length = math.sqrt(float(variance))
            label = mean + (length + 0.55) * direction if number > 1 else mean + 0.25 * length * direction - 0.95 * directions[1]
            axes.text(float(label[0]), float(label[1]), f"$u_{number}$, variance {float(variance):.3g}", ha="center", fontsize=12)
        axes.set(xlabel="first number", ylabel="second number", aspect="equal")
        axes.margins(0.12)
        axes.legend(loc="upper left", frameon=False)
    error = float((points - feet).square().sum(1).mean())
    return described(
        figure,
        f"{len(points)} points in the plane and two arrows at right angles from their mean ({float(mean[0]):.3g}, {float(mean[1]):.3g}): "
        f"u1 along ({float(directions[0, 0]):.2f}, {float(directions[0, 1]):.2f}) with variance {float(variances[0]):.3g}, "
        f"u2 along ({float(directions[1, 0]):.2f}, {float(directions[1, 1]):.2f}) with variance {float(variances[1]):.3g}. "
        f"Dotted lines join each point to its projection on the line along u1; their mean squared length is {error:.3g}.",
    )


def axes_differ(principal: Tensor, decoder: Tensor, cosines: Tensor, angles: Tensor) -> Figure:
    """Draw principal directions and the decoder's columns as color fields, and how well each pair agrees.

    Args:
        principal: `(D, M)`, rows of length 1; decoder: `(D, M)`, the decoder's columns scaled to length 1.
        cosines: `(D, D)`, absolute cosines: row = principal direction, column = decoder's column.
        angles: `(D,)`, principal angles of the two subspaces, in degrees.
    """
    count = len(principal)
    mosaic: Any = [[f"u{n}" for n in range(count)], [f"w{n}" for n in range(count)]]
    with styled():
        figure = plt.figure(figsize=(8, 8.4), layout="constrained")
        above, below = np.asarray(figure.subfigures(2, 1, height_ratios=[1.15, 1]))
        places = above.subplot_mosaic(mosaic)
        for letter, rows, name in (("u", principal, "PCA: $u_{}$"), ("w", decoder, "decoder: $w_{}$")):
            pictures = even(rows * 0.35 / rows.abs().amax(1, keepdim=True))
            for number, picture in enumerate(pictures):
                place = places[f"{letter}{number}"]
                place.imshow(picture)
                place.axis("off")
                place.set_title(name.format(number + 1), fontsize=13)
        heat = below.subplots()
        heat.imshow(cosines.numpy(), cmap="Greys", vmin=0, vmax=1.3)
        for row in range(count):
            for column in range(count):
                value = float(cosines[row, column])
                heat.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.75 else "black", fontsize=12)
        heat.set_xticks(range(count), [f"$w_{n + 1}$" for n in range(count)])
        heat.set_yticks(range(count), [f"$u_{n + 1}$" for n in range(count)])
        heat.spines[:].set_visible(False)
        heat.tick_params(length=0, labelsize=12)
        heat.set_title(r"$|\cos|$ between each pair; largest principal angle " + f"{float(angles.max()):.1f}°", fontsize=12)
    best = ", ".join(f"{float(value):.2f}" for value in cosines.amax(0))
    return described(
        figure,
        f"{count} principal directions in one row and {count} decoder columns in the next, drawn as color fields of a portrait. Below, the "
        f"absolute cosines of all pairs: the best match of each decoder column has {best}, where 1 would be the same axis. "
        f"The largest principal angle between the two subspaces is {float(angles.max()):.1f} degrees.",
    )


def arc(points: Tensor, line: Tensor, curve: Tensor) -> Figure:
    """Draw points near an arc, what one linear number makes of them, and what one nonlinear number does.

    Args:
        points: `(N, 2)`; line, curve: their reconstructions, `(N, 2)`.
    """
    names = ("one linear number (PCA)", "one nonlinear number (autoencoder)")
    told = []
    with styled():
        figure, places = plt.subplots(2, 1, figsize=(7, 7.6), sharex=True, layout="constrained")
        for axes, name, found, color in zip(places, names, (line, curve), (PALETTE[1], PALETTE[0])):
            error = float((points - found).square().sum(1).mean().sqrt())
            axes.plot(points[:, 0], points[:, 1], "o", color=LIGHT, ms=5)
            for point, image in zip(points, found):
                axes.plot([point[0], image[0]], [point[1], image[1]], color=color, lw=0.7, alpha=0.6)
            axes.plot(found[:, 0], found[:, 1], "s", color=color, ms=4)
            axes.set(aspect="equal", ylim=(-0.35, 1.35))
            axes.set_title(f"{name}: RMS distance {error:.2f}", fontsize=13)
            told.append(f"{name}, {error:.2f}")
    return described(
        figure,
        f"{len(points)} points near a half circle, each joined to its reconstruction. Above, the reconstructions lie on a straight line "
        f"across the arc; below, on a curve along it. RMS distance from point to reconstruction: {'; '.join(told)}.",
    )


def bottleneck(sizes: Sequence[int], linear: Sequence[float], network: Sequence[float], pictures: dict[str, NDArray[np.uint8]]) -> Figure:
    """Draw error against the length of the code for PCA and an autoencoder, and one portrait from a few numbers by both.

    Args:
        sizes: lengths of the code; linear, network: RMS errors on test portraits, in Lab units.
        pictures: under `gray`, `truth`, and under `PCA D`, `network D` for three lengths D, uint8 `(H, W, 3)`.
    """
    shown = [name.removeprefix("PCA ") for name in pictures if name.startswith("PCA ")]
    mosaic: Any = [["curve"] * 4, ["truth", *(f"PCA {size}" for size in shown)], ["gray", *(f"network {size}" for size in shown)]]
    with styled():
        figure = plt.figure(figsize=(8, 9), layout="constrained")
        places = figure.subplot_mosaic(mosaic, height_ratios=[1.6, 1, 1])
        axes = places.pop("curve")
        for values, style, marker, color, name in (
            (linear, "--", "s", PALETTE[1], "PCA"),
            (network, "-", "o", PALETTE[0], "autoencoder"),
        ):
            axes.plot(sizes, values, style, marker=marker, color=color, lw=2, ms=7)
            axes.annotate(
                name, (sizes[0], values[0]), xytext=(10, 6), textcoords="offset points", color=color, fontsize=13, ha="left", va="bottom"
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_yscale("log")
        axes.set_yticks([2, 3, 5, 8, 12], ["2", "3", "5", "8", "12"])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.set(xlabel="numbers in the code, $D$", ylabel="RMS error, Lab units")
        for name, place in places.items():
            place.imshow(pictures[name])
            place.axis("off")
            kind, _, size = name.partition(" ")
            count = f": {size} number{'s' if size != '1' else ''}" if size else ""
            place.set_title(f"{'autoenc.' if kind == 'network' else kind}{count}", fontsize=12)
    told = "; ".join(f"{size}: {a:.2f} and {b:.2f}" for size, a, b in zip(sizes, linear, network))
    better = [size for size, a, b in zip(sizes, linear, network) if b < a]
    return described(
        figure,
        f"RMS error in Lab units against the numbers in the code, PCA and autoencoder: {told}. "
        f"The autoencoder is better for {', '.join(map(str, better)) if better else 'no length'}. "
        f"Below, one portrait in gray and in its true colors, and reconstructed from {', '.join(shown)} numbers by both.",
    )


def repaired(pictures: Sequence[NDArray[np.uint8]], errors: Sequence[float]) -> Figure:
    """Draw damaged color fields and their repairs, a portrait in each row of four: damaged, plain, denoising, truth.

    Args:
        pictures: four for each portrait; errors: RMS error of damaged, plain and denoising on all test portraits, in Lab units.
    """
    names = [f"{name}: {error:.1f}" for name, error in zip(("damaged", "plain", "denoising"), errors)] + ["truth"]
    labels = names + [name.split(":")[0] for name in names] * (len(pictures) // 4 - 1)
    figure = grid(pictures, labels, columns=4, title="RMS error on all test portraits, Lab units")
    told = ", ".join(names[:3])
    return described(
        figure,
        f"{len(pictures) // 4} portraits, a row each. First only scattered pixels have a color; then what a plain and a denoising "
        f"autoencoder make of that; last the truth. RMS error in Lab units: {told}.",
    )


def latent_map(
    codes: Tensor,
    distance: Tensor,
    extent: tuple[float, float, float, float],
    limit: float,
    chosen: Tensor,
    pictures: Sequence[NDArray[np.uint8]],
    gaps: Sequence[float],
) -> Figure:
    """Draw the plane of two-number codes: the codes of portraits, how far each place decodes from any portrait, and chosen places decoded.

    Args:
        codes: `(N, 2)`, of portraits; distance: `(rows, columns)`, Lab units, of the places of a grid over `extent`, from below.
        extent: left, right, bottom, top.
        limit: the distance up to which a decoded field counts as possible, Lab units.
        chosen: `(K, 2)` places, with their `pictures` and their distances `gaps`.
    """
    count = len(chosen)
    mosaic: Any = [["map"] * (-(-count // 2)), [f"{n}" for n in range(0, -(-count // 2))], [f"{n}" for n in range(-(-count // 2), count)]]
    possible = float((distance <= limit).float().mean())
    with styled():
        figure = plt.figure(figsize=(7.2, 9.4), layout="constrained")
        places = figure.subplot_mosaic(mosaic, height_ratios=[2.3, 1, 1])
        axes = places.pop("map")
        image = axes.imshow(distance.numpy(), origin="lower", extent=extent, cmap="Greys", vmin=0, vmax=4 * limit, aspect="auto")
        xs = np.linspace(extent[0], extent[1], distance.shape[1])
        ys = np.linspace(extent[2], extent[3], distance.shape[0])
        axes.contour(xs, ys, distance.numpy(), levels=[limit], colors=DARK, linewidths=1.5)
        axes.plot(codes[:, 0], codes[:, 1], ".", color=PALETTE[0], ms=4)
        for number, (x, y) in enumerate(chosen.tolist(), start=1):
            axes.text(
                x,
                y,
                f"{number}",
                ha="center",
                va="center",
                fontsize=12,
                bbox={"boxstyle": "circle", "fc": "white", "ec": PALETTE[1], "lw": 2},
            )
        axes.set(xlim=extent[:2], ylim=extent[2:], xlabel="$z_1$", ylabel="$z_2$")
        figure.colorbar(image, ax=axes, label="Lab units to the nearest portrait", extend="max")
        for number, (picture, gap) in enumerate(zip(pictures, gaps)):
            place = places[f"{number}"]
            place.imshow(picture)
            place.axis("off")
            place.set_title(f"{number + 1}: {gap:.0f} Lab units", fontsize=13)
    told = ", ".join(f"{number}: {gap:.0f}" for number, gap in enumerate(gaps, start=1))
    return described(
        figure,
        f"The plane of two-number codes, with {len(codes)} dots, the codes of portraits. A line surrounds the {possible:.0%} that "
        f"decode to something within {limit:.1f} Lab units of a real color field; elsewhere it is darker the farther the decoded field is "
        f"from any. {count} numbered places are decoded below; their distances: {told}.",
    )


def walk(pictures: Sequence[NDArray[np.uint8]], shown: Sequence[float], steps: Tensor, gaps: Tensor, limit: float) -> Figure:
    """Draw decoded pictures along a straight walk between two codes, and how far each step is from any possible coloring.

    Args:
        pictures: those at the steps `shown`; steps: `(n,)`, from 0 to 1; gaps: `(n,)`, Lab units.
        limit: the distance up to which a coloring counts as possible.
    """
    with styled():
        figure = plt.figure(figsize=(8.5, 5.4), layout="constrained")
        above, below = np.asarray(figure.subfigures(2, 1, height_ratios=[1, 1.9]))
        for place, picture, step in zip(above.subplots(1, len(pictures)), pictures, shown):
            place.imshow(picture)
            place.axis("off")
            place.set_title(f"{step:.2g}", fontsize=13)
        axes: Axes = below.subplots()
        axes.plot(steps, gaps, color=PALETTE[0], lw=2.5)
        axes.axhspan(0, limit, color="#e8e8e8", zorder=0)
        axes.text(0.5, limit / 2, "possible", ha="center", va="center", fontsize=13)
        axes.set(xlim=(0, 1), ylim=(0, 1.1 * max(float(gaps.max()), limit)))
        axes.set(xlabel="how far along the walk", ylabel="Lab units to the nearest\npossible coloring")
    middle = gaps[len(gaps) // 2]
    outside = float((gaps > limit).float().mean())
    return described(
        figure,
        f"A straight walk between the codes of two colorings of one portrait: {len(pictures)} pictures, and a curve of the distance to the "
        f"nearest possible coloring. It is {float(gaps[0]):.0f} Lab units at the start, {float(middle):.0f} in the middle and "
        f"{float(gaps[-1]):.0f} at the end. {outside:.0%} of the walk lies above {limit:.0f}, outside what is possible.",
    )
