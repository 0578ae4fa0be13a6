"""The figures of chapter 6: a VAE on color fields, its codes, and the ways in which it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from torch import Tensor

from ..lab import AB_SCALE, join
from . import PALETTE, color_name, described, styled

MARKERS = ("o", "s", "^", "D", "v", "P")
#: Color fields without a gray image of their own are shown at this lightness, L/50 - 1.
FLAT = 0.24


def toy_curve(
    points: Tensor, names: Mapping[str, tuple[float, float]], curve: Tensor, marks: Mapping[float, tuple[float, float]]
) -> Figure:
    """Draw colors in the plane of a and b, and the curve f(z) that a decoder with one code number draws through them.

    Args:
        points: `(N, 2)`, the data, Lab units.
        names: the name and the place of each cluster.
        curve: `(S, 2)`, f(z) for rising z, Lab units.
        marks: f(z) at a few z, to label.
    """
    with styled():
        figure, axes = plt.subplots(figsize=(5.8, 5.0), layout="constrained")
        axes.scatter(points[:, 0], points[:, 1], s=9, color="#999999", label="data")
        axes.plot(curve[:, 0], curve[:, 1], color=PALETTE[0], linewidth=2.5, label="decoder $f(z)$")
        for value, (a, b) in marks.items():
            axes.plot(a, b, "s", color=PALETTE[1], markersize=8)
            label = axes.annotate(f"z = {value:g}", (a, b), textcoords="offset points", xytext=(8, 6), color=PALETTE[1], fontweight="bold")
            label.set_path_effects([withStroke(linewidth=3, foreground="white")])
        for name, (a, b) in names.items():
            axes.text(1.42 * a, 1.32 * b, name, ha="center", va="center", style="italic")
        axes.axhline(0, color="#cccccc", linewidth=0.8, zorder=0)
        axes.axvline(0, color="#cccccc", linewidth=0.8, zorder=0)
        axes.set(xlabel="a (green to red)", ylabel="b (blue to yellow)", aspect="equal", xlim=(-40, 44), ylim=(-36, 38))
        axes.legend(loc="upper left", frameon=False)
    gaps = (points[:, None] - curve[None]).norm(dim=2).min(1).values
    told = ", ".join(f"{color_name(a, b)} at z = {value:g}" for value, (a, b) in marks.items())
    return described(
        figure,
        f"{len(points)} wall colors in {len(names)} clusters ({', '.join(names)}) around gray in the plane of a and b, and the decoder's "
        f"curve, which visits them one after the other: {told}. On average a point lies {float(gaps.mean()):.1f} Lab units from the curve.",
    )


def training(steps: Sequence[int], likelihood: Mapping[str, Tensor], kl: Mapping[str, Tensor]) -> Figure:
    """Draw both terms of the ELBO over the steps of training, each on training and on held-out rows; terms in nats."""
    with styled():
        figure, places = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
        for axes, terms, title in zip(places, (likelihood, kl), ("log-likelihood $\\log p(x|z)$", "KL")):
            for (name, values), line, width in zip(terms.items(), ("-", "--"), (3.5, 1.5)):
                axes.plot(steps, values, line, linewidth=width, label=name, color=PALETTE[0] if line == "-" else PALETTE[1])
            axes.set(title=title, xlabel="step", ylabel="nats a color field")
            axes.legend(frameon=False)
        shown = torch.stack(list(likelihood.values()))
        low, high = float(shown.quantile(0.1)), float(shown.max())
        places[0].set_ylim(low, high + 0.1 * (high - low) + 1e-6)
    told = [
        f"the log-likelihood of {name} rows goes from {float(values[0]):.0f} to {float(values[-1]):.0f}"
        for name, values in likelihood.items()
    ]
    for name, values in kl.items():
        peak = int(values.argmax())
        ends = f"from {float(values[0]):.1f} to {float(values[-1]):.1f}"
        told.append(f"the KL of {name} rows goes {ends}, with its peak of {float(values[peak]):.1f} at step {steps[peak]}")
    return described(figure, f"Both terms of the ELBO over {steps[-1]} steps of training, in nats: {'; '.join(told)}.")


def gallery(rows: Mapping[str, Tensor], gray: Tensor | None = None, labels: Sequence[str] = (), title: str = "") -> Figure:
    """Draw rows of color fields `(K, 2, S, S)`, a name before each row.

    Args:
        rows: ab/128; the rows have the same K.
        gray: `(K, 1, S, S)` or `(1, 1, S, S)`, on which they are painted; without it at one lightness, so that only color is seen.
        labels: K labels above the columns.
    """
    count = len(next(iter(rows.values())))
    with styled():
        figure, places = plt.subplots(
            len(rows), count, figsize=(9, len(rows) * 9 / (count + 1.6) + 0.5), squeeze=False, layout="constrained"
        )
    told = []
    for line, (name, fields) in zip(places, rows.items()):
        for axes, picture in zip(line, painted(fields, gray)):
            axes.imshow(picture, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=12)
        told.append(f"{name}: walls {', '.join(wall_names(fields))}, mean chroma {_chroma(fields):.1f} Lab units")
    for axes, label in zip(places[0], labels):
        axes.set_title(label)
    if title:
        figure.suptitle(title)
    return described(figure, f"{len(rows)} rows of {count} color fields. {'; '.join(told)}.".replace("\n", " "))


def wall_names(fields: Tensor) -> list[str]:
    """Return a plain word for the color in the upper left corner of each color field `(K, 2, S, S)`."""
    return [color_name(*(field[:, :3, :3].mean((1, 2)) * AB_SCALE).tolist()) for field in fields]


def painted(fields: Tensor, gray: Tensor | None = None) -> NDArray[np.uint8]:
    """Return pictures, uint8 `(K, S, S, 3)`, of color fields on a gray image, or on one lightness."""
    canvas = torch.full_like(fields[:, :1], FLAT) if gray is None else gray.expand(len(fields), -1, -1, -1)
    return np.asarray(join(canvas, fields))


def mosaic(fields: Tensor, columns: int = 3, zoom: int = 6) -> NDArray[np.uint8]:
    """Return one picture, uint8 `(H, W, 3)`, of color fields side by side with white gaps, each pixel `zoom` pixels wide."""
    pictures = painted(fields).repeat(zoom, 1).repeat(zoom, 2)
    side = pictures.shape[1] + zoom
    rows = -(-len(pictures) // columns)
    canvas = np.full((rows * side, columns * side, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = (index // columns) * side, (index % columns) * side
        canvas[top : top + side - zoom, left : left + side - zoom] = picture
    return canvas


def rate_distortion(betas: Sequence[float], rates: Sequence[float], distortions: Sequence[float], active: Sequence[int]) -> Figure:
    """Draw the distortion (RMS error of the reconstruction, Lab units) over the rate (mean KL, nats), a point for each beta."""
    with styled():
        figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
        axes.plot(rates, distortions, "-o", color=PALETTE[0], markersize=9, linewidth=1.5)
        for beta, rate, distortion, units in zip(betas, rates, distortions, active):
            label = f"$\\beta$ = {beta:g}: {units} active"
            axes.annotate(label, (rate, distortion), textcoords="offset points", xytext=(10, 9))
        axes.set(xlabel="rate: mean KL, nats a color field", ylabel="distortion:\nRMS error, Lab units", ylim=(0, 1.15 * max(distortions)))
        axes.set_xlim(-0.03 * max(rates), 1.32 * max(rates))
    told = "; ".join(
        f"beta {beta:g}: rate {rate:.1f}, distortion {distortion:.1f}, {units} active units"
        for beta, rate, distortion, units in zip(betas, rates, distortions, active)
    )
    return described(figure, f"Distortion against rate for {len(betas)} values of beta. {told}. The less rate, the more distortion.")


def kl_bars(cases: Mapping[str, Tensor], active: Mapping[str, int], floor: float) -> Figure:
    """Draw the mean KL of each dimension, sorted, a panel for each case.

    Args:
        cases: `(D,)` each, in nats.
        active: how many units of each case are active.
        floor: the level of the free bits, drawn as a dashed line.
    """
    with styled():
        figure, places = plt.subplots(2, -(-len(cases) // 2), figsize=(7.4, 4.6), sharey=True, squeeze=False, layout="constrained")
        for axes, (name, values) in zip(places.flat, cases.items()):
            ranked = values.sort(descending=True).values.tolist()
            axes.bar(range(1, len(ranked) + 1), ranked, color=PALETTE[0])
            axes.axhline(floor, color=PALETTE[1], linestyle="--", linewidth=1.2)
            axes.set_title(f"{name}\n{active[name]} active, KL {float(values.sum()):.2f} nats")
            axes.set_xlabel("dimension, sorted")
        for axes in places[:, 0]:
            axes.set_ylabel("mean KL, nats")
    told = "; ".join(
        f"{name}: {active[name]} active units, KL {float(values.sum()):.2f} nats in all, from {float(values.max()):.2f} to "
        f"{float(values.min()):.2f} a dimension"
        for name, values in cases.items()
    )
    return described(figure, f"Mean KL of each dimension of the code, for {len(cases)} trainings. {told}. Dashed line at {floor:g}.")


def aggregate(codes: Tensor, groups: Tensor, names: Sequence[str], draws: Tensor, hole: Tensor) -> Figure:
    """Draw codes of data beside draws from the prior, in two dimensions.

    Args:
        codes: `(N, 2)`, one draw from q(z|x) for each data point.
        groups: `(N,)`, which of `names` a data point belongs to.
        draws: `(S, 2)`, draws from the prior.
        hole: `(2,)`, the draw where the aggregate posterior is thinnest against the prior.
    """
    with styled():
        figure, places = plt.subplots(1, 2, figsize=(7.6, 4.3), sharex=True, sharey=True, layout="constrained")
        for index, name in enumerate(names):
            there = codes[groups == index]
            places[0].scatter(there[:, 0], there[:, 1], s=12, marker=MARKERS[index % len(MARKERS)], color=PALETTE[index % 5], label=name)
        places[1].scatter(draws[:, 0], draws[:, 1], s=12, color="#777777")
        for axes, title in zip(places, ("aggregate posterior:\ncodes of data", "prior:\nwhat we draw from")):
            _circles(axes)
            axes.plot(*hole.tolist(), "X", color=PALETTE[6], markersize=13, markeredgecolor="white")
            axes.set(title=title, xlabel="$z_1$", aspect="equal", xlim=(-4, 4), ylim=(-4, 4))
        places[0].set_ylabel("$z_2$")
        figure.legend(loc="outside lower center", ncols=5, frameon=False, title="wall", markerscale=1.6)
    near = (codes - hole).norm(dim=1).lt(0.25).float().mean(), (draws - hole).norm(dim=1).lt(0.25).float().mean()
    told = "; ".join(
        f"{name} around ({float(codes[groups == k, 0].mean()):.1f}, {float(codes[groups == k, 1].mean()):.1f})"
        for k, name in enumerate(names)
        if bool((groups == k).any())
    )
    return described(
        figure,
        f"Left, {len(codes)} codes of color fields, which lie in patches by the color of the wall ({told}). Right, {len(draws)} draws from "
        f"the prior, one round cloud. A cross at ({float(hole[0]):.1f}, {float(hole[1]):.1f}) marks a hole: {float(near[0]):.1%} of the "
        f"codes and {float(near[1]):.1%} of the draws lie within a quarter of it.",
    )


def mode_codes(scores: Tensor, modes: Tensor, names: Sequence[str], mean: Tensor, covariance: Tensor, centers: Tensor) -> Figure:
    """Draw the codes of one gray image's colorings along two principal directions, by mode, with one Gaussian and the mixture's centers.

    Args:
        scores: `(N, 2)`.
        modes: `(N,)`, which of `names` each coloring belongs to.
        mean, covariance: `(2,)`, `(2, 2)`, the one Gaussian; its ellipses at one and two standard deviations are drawn.
        centers: `(K, 2)`, the means of the mixture.
    """
    with styled():
        figure, axes = plt.subplots(figsize=(7.6, 5.8), layout="constrained")
        for index, name in enumerate(names):
            there = scores[modes == index]
            marker, color = MARKERS[index % len(MARKERS)], PALETTE[index % 5]
            axes.scatter(there[:, 0], there[:, 1], s=22, marker=marker, color=color, label=name)
        values, vectors = torch.linalg.eigh(covariance)
        angle = float(torch.rad2deg(torch.atan2(vectors[1, 1], vectors[0, 1])))
        for scale in (1, 2):
            low, high = (2 * scale * values.clamp(min=0).sqrt()).tolist()
            axes.add_patch(Ellipse((float(mean[0]), float(mean[1])), high, low, angle=angle, fill=False, linestyle="--", color="#444444"))
        axes.plot(*mean.tolist(), "X", color="#000000", markersize=14, markeredgecolor="white", label="mean of one Gaussian")
        axes.plot(
            centers[:, 0], centers[:, 1], "*", color="#ffffff", markeredgecolor="#000000", markersize=16, label="means of the mixture"
        )
        axes.set(xlabel="first principal direction of these codes", ylabel="second principal direction", aspect="equal")
        axes.margins(0.12)
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    nearest = float((scores - mean).norm(dim=1).min())
    near_centers = float(torch.cdist(centers, scores).min(1).values.max())
    counts = ", ".join(f"{int((modes == k).sum())} of {name}" for k, name in enumerate(names))
    return described(
        figure,
        f"{len(scores)} codes of colorings of one gray portrait in {len(names)} separate clusters: {counts}. The mean of one Gaussian lies "
        f"between the clusters, {nearest:.2f} from the nearest code; every mean of the mixture lies within {near_centers:.2f} of one.",
    )


def _circles(axes: Axes) -> None:
    """One, two and three standard deviations of the prior."""
    angle = np.linspace(0, 2 * np.pi, 200)
    for radius in (1, 2, 3):
        axes.plot(radius * np.cos(angle), radius * np.sin(angle), color="#444444", linewidth=0.8, linestyle=":")


def _chroma(fields: Tensor) -> float:
    return float(fields.norm(dim=1).mean() * AB_SCALE)
