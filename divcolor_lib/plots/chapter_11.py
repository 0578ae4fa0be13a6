"""The figures of chapter 11: codes of a trained CVAE, and the mixture p(z|G) that is fitted to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from torch import Tensor, nn

from ..features import ZHANG_SIZE, ZhangNet
from ..lab import AB_SCALE, L_SCALE, join
from ..mdn import MDN, HeadsMDN
from ..portraits import COLORS
from . import PALETTE, described, styled
from .network import Arrow, Box, diagram, kind_of, shape_text, trace

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")
PAINT_LIGHTNESS = 58.0
BACKDROP = "#c8c8c8"


@dataclass(frozen=True)
class Islands:
    """The codes of many colorings of one gray image, in the plane of the figure.

    Attributes:
        gray: uint8 `(H, W, 3)`, the image.
        points: `(M, 2)`, one code for each coloring.
        modes: `(M,)`, which mode a coloring has.
        probabilities: the probability of each mode.
        mean, covariance: `(2,)` and `(2, 2)`, the posterior of a single coloring.
    """

    gray: NDArray[np.uint8]
    points: Tensor
    modes: Tensor
    probabilities: Tensor
    mean: Tensor
    covariance: Tensor


def code_map(points: Tensor, groups: Mapping[str, Sequence[str]]) -> Figure:
    """Draw codes `(N, 2)` once for each grouping, with a marker and a color for each of its names.

    Args:
        groups: the name of every point's group; names of `portraits.COLORS` are drawn in that color.
    """
    told = []
    with styled():
        figure, places = plt.subplots(1, len(groups), figsize=(4.5 * len(groups), 4.6), squeeze=False, layout="constrained", sharey=True)
        for axes, (title, names) in zip(places[0], groups.items()):
            found = []
            for marker, name in zip(MARKERS, sorted(set(names))):
                chosen = points[torch.tensor([each == name for each in names])]
                axes.scatter(
                    chosen[:, 0], chosen[:, 1], marker=marker, s=26, color=_paint(name), edgecolors="#333333", linewidths=0.4, label=name
                )
                found.append(f"{name} around ({float(chosen[:, 0].mean()):.1f}, {float(chosen[:, 1].mean()):.1f})")
            axes.set(title=title, xlabel="first principal direction")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False, handletextpad=0.1, columnspacing=1.0)
            told.append(f"By {title}: {', '.join(found)}.")
        places[0][0].set_ylabel("second principal direction")
    return described(figure, f"The codes of {len(points)} portraits in a plane, drawn {len(groups)} times. {' '.join(told)}")


def islands(backdrop: Tensor, panels: Sequence[Islands]) -> Figure:
    """Draw for each gray image the codes of many of its colorings, the probability of each mode, and one single posterior.

    Args:
        backdrop: `(N, 2)`, codes of other portraits.
    """
    told = []
    low, high = backdrop.amin(0), backdrop.amax(0)
    with styled():
        rows = -(-len(panels) // 2)
        figure, places = plt.subplots(rows, 2, figsize=(7.5, 4.6 * rows), squeeze=False, layout="constrained")
        for axes in places.flat[len(panels) :]:
            axes.axis("off")
        for axes, panel in zip(places.flat, panels):
            axes.scatter(backdrop[:, 0], backdrop[:, 1], s=6, color=BACKDROP)
            words = []
            for mode, (marker, probability) in enumerate(zip(MARKERS, panel.probabilities.tolist())):
                own = panel.points[panel.modes == mode]
                if not len(own):
                    continue
                color = PALETTE[mode % len(PALETTE)]
                axes.scatter(own[:, 0], own[:, 1], marker=marker, s=16, color=color)
                x, y = own.mean(0).tolist()
                up = y < float(low[1] + high[1]) / 2
                edge = float(own[:, 1].amax() if up else own[:, 1].amin())
                lift = {"textcoords": "offset points", "xytext": (0, 10 if up else -10), "ha": "center", "va": "center"}
                axes.annotate(f"{100 * probability:.0f} %", (x, edge), **lift)
                words.append(f"{100 * probability:.0f} % around ({x:.1f}, {y:.1f})")
            _ellipse(axes, panel.mean, panel.covariance, edgecolor="black", linewidth=1.6)
            inset = axes.inset_axes((0.35, 1.02, 0.3, 0.3))
            inset.imshow(panel.gray, interpolation="nearest")
            inset.axis("off")
            margin = 0.6
            axes.set(xlim=(float(low[0]) - margin, float(high[0]) + margin), ylim=(float(low[1]) - margin, float(high[1]) + margin))
            axes.set(xticks=[], yticks=[])
            spread = panel.covariance.diagonal().sqrt().tolist()
            told.append(f"{', '.join(words)}; one posterior alone has standard deviations {spread[0]:.2f} and {spread[1]:.2f}")
    told_all = " ".join(f"Portrait {number}: {words}." for number, words in enumerate(told, start=1))
    return described(
        figure, f"{len(panels)} gray portraits, and for each the codes of many of its colorings, which lie in separate islands. {told_all}"
    )


def fitted(
    points: Tensor,
    weights: Tensor,
    means: Tensor,
    covariances: Tensor,
    ticks: Tensor,
    densities: Mapping[str, Tensor],
) -> Figure:
    """Draw codes of one gray image with the components of the fitted mixture, and densities along the first direction.

    Args:
        points: `(M, 2)`, codes of its colorings.
        weights, means, covariances: `(K,)`, `(K, 2)`, `(K, 2, 2)`, the mixture p(z|G) in the plane.
        ticks: `(S,)`, places along the first direction.
        densities: `(S,)` each.
    """
    with styled():
        figure, (plane, line) = plt.subplots(1, 2, figsize=(9, 3.9), layout="constrained")
        plane.scatter(points[:, 0], points[:, 1], s=8, color="#777777", label="draws of codes, given G")
        words: list[str] = []
        labels: list[tuple[Tensor, list[float]]] = []  # components at about one place share a label
        for weight, mean, covariance in zip(weights.tolist(), means, covariances):
            if weight < 0.02:
                continue
            _ellipse(plane, mean, covariance, edgecolor=PALETTE[1], linewidth=1 + 5 * weight)
            plane.plot(*mean.tolist(), "+", color=PALETTE[1], markersize=9, markeredgewidth=2)
            near = next((shared for place, shared in labels if float((place - mean).norm()) < 0.3), None)
            if near is None:
                labels.append((mean, [weight]))
            else:
                near.append(weight)
            words.append(f"weight {weight:.2f} at ({float(mean[0]):.1f}, {float(mean[1]):.1f})")
        for mean, shared in labels:
            text = plane.annotate(
                " + ".join(f"{weight:.2f}" for weight in shared), mean.tolist(), textcoords="offset points", xytext=(6, 5), color="#8a3b00"
            )
            text.set_path_effects([withStroke(linewidth=3, foreground="white")])
        plane.set(xlabel="first principal direction", ylabel="second principal direction", title="components of $p(z|G)$")
        plane.legend(frameon=False, loc="upper right", fontsize=9)
        plane.margins(0.12)
        told = []
        for (name, values), style, color, width in zip(densities.items(), LINES, ("#000000", PALETTE[0], PALETTE[1]), (1.6, 3.2, 2.0)):
            line.plot(ticks, values, style, color=color, linewidth=width, label=name)
            peak = int(values.argmax())
            told.append(f"{name} peaks at {float(ticks[peak]):.1f} with {float(values[peak]):.2f}")
        line.set(xlabel="first principal direction", ylabel="density", title="along the first direction")
        line.set_ylim(0, 1.25 * max(float(values.max()) for values in densities.values()))
        line.legend(frameon=False, loc="upper left", fontsize=9)
    return described(
        figure,
        f"Left, {len(points)} codes of colorings of one gray portrait, with the mixture's components: {'; '.join(words)}. "
        f"Right, densities along the first direction: {'; '.join(told)}.",
    )


def mdn_network(mdn: MDN, features: Tensor) -> Figure:
    """Draw our mixture density network from the network itself: trunk, two heads, and what each number of a head means.

    Raises:
        TypeError: the network is of another design.
    """
    if not isinstance(mdn, HeadsMDN):
        raise TypeError("only the heads design is drawn")
    kept = (nn.Conv2d, nn.GroupNorm, nn.Linear, nn.LayerNorm, nn.SiLU, nn.Flatten, nn.Dropout)
    steps = [step for step in trace(mdn.trunk, lambda: mdn.trunk(features)) if isinstance(mdn.trunk.get_submodule(step.name), kept)]
    rows: list[tuple[str, str]] = []
    for step in steps:  # a norm, an activation or dropout shares the box of the layer before it
        layer = mdn.trunk.get_submodule(step.name)
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            rows.append((kind_of(layer), shape_text(step.shape)))
        elif isinstance(layer, nn.Flatten):
            rows.append(("flatten", shape_text(step.shape)))
        elif isinstance(layer, nn.SiLU):
            rows[-1] = (f"{rows[-1][0]},\nnorm, SiLU", shape_text(step.shape))
    boxes = {"features": Box("gray features", 0, 0, "data")}
    arrows = []
    before, flowing = "features", shape_text(features.shape)
    for number, (words, shape) in enumerate(rows):
        boxes[f"trunk {number}"] = Box(words, 0, number + 1)
        arrows.append(Arrow(before, f"trunk {number}", flowing))
        before, flowing = f"trunk {number}", shape
    config = mdn.config
    k, r, d = config.components, config.representatives, config.latent
    bottom = len(rows)
    heads = {
        "mixture": (
            "mixture head,\nlinear",
            mdn.mixture_head.out_features,
            bottom - 2,
            [("weights $\\pi_k$", f"{k}"), ("means $\\mu_k$", f"{k}×{d}")],
        ),
        "shown": (
            "representatives,\nlinear",
            mdn.representatives_head.out_features,
            bottom,
            [("weights $\\rho_k$", f"{r}"), ("codes $r_k$", f"{r}×{d}")],
        ),
    }
    if config.scale is None:
        heads["mixture"][3].append(("scales $s_k$", f"{k}×{d}"))
    for name, (words, count, row, outputs) in heads.items():
        boxes[name] = Box(words, 1, row)
        arrows.append(Arrow(before, name, flowing))
        for number, (meaning, size) in enumerate(outputs):
            place = row + (number - (len(outputs) - 1) / 2) * 0.75
            boxes[f"{name} {number}"] = Box(meaning, 2, place, "code")
            arrows.append(Arrow(name, f"{name} {number}", size))
        del count
    total = sum(parameter.numel() for parameter in mdn.parameters())
    return diagram(boxes, arrows, {0: "trunk", 1: "two heads", 2: "what comes out"}, f"Our mixture density network, {total:,} parameters")


def zhang_network(network: ZhangNet, gray: Tensor) -> Figure:
    """Draw Zhang's network block by block, with the shape at every arrow and the place from which features are taken."""
    names = [f"model{number}" for number in range(1, 8)]
    steps = {
        step.name: step
        for step in trace(network, lambda: network.colors(gray), [*names[:-1], "model7.5", "model7.6", "model8", "model_out"])
    }
    enlarged = (1, 1, ZHANG_SIZE, ZHANG_SIZE)
    boxes = {"gray": Box("gray image", 0, 0, "data"), "large": Box("enlarge,\nscale", 0, 1)}
    arrows = [Arrow("gray", "large", shape_text(gray.shape))]
    before, shape = "large", shape_text(enlarged)
    for number, name in enumerate(names[:-1], start=1):
        layer = network.get_submodule(name)
        dilated = max(int(each.dilation[0]) for each in layer.modules() if isinstance(each, nn.Conv2d))
        words = f"{number}: {kind_of(layer)}".replace(", ", ",\n") + (f",\ndilation {dilated}" if dilated > 1 else "")
        column, row = divmod(number + 1, 5)
        boxes[name] = Box(words, column, row if column == 0 else 4 - row)
        arrows.append(Arrow(before, name, shape))
        before, shape = name, shape_text(steps[name].shape)
    boxes["seven"] = Box("7: 3 conv 3×3", 1, 1)
    boxes["features"] = Box('features\n"conv7_3"', 1, 0, "code")
    arrows += [Arrow(before, "seven", shape), Arrow("seven", "features", shape_text(steps["model7.5"].shape))]
    boxes["norm"] = Box("batch norm", 2, 0)
    boxes["eight"] = Box("8: ↑2,\nclasses", 2, 1)
    boxes["mean"] = Box("softmax,\nmean color", 2, 2)
    boxes["ab"] = Box("one coloring", 2, 3, "data")
    arrows += [
        Arrow("features", "norm", shape_text(steps["model7.5"].shape)),
        Arrow("norm", "eight", shape_text(steps["model7.6"].shape)),
        Arrow("eight", "mean", shape_text(steps["model8"].shape)),
        Arrow("mean", "ab", shape_text(steps["model_out"].shape)),
    ]
    total = sum(parameter.numel() for parameter in network.parameters())
    headings: dict[float, str] = {0: "gray in", 1: "features", 2: "its own answer"}
    return diagram(boxes, arrows, headings, f"Zhang's colorization network, {total / 1e6:.1f} million parameters")


def curves(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    levels: Mapping[str, float] | None = None,
    labels: Sequence[str] = ("step", "nats"),
    mark: tuple[float, str] | None = None,
) -> Figure:
    """Draw curves, one panel beside the other.

    Args:
        panels: for each title its curves, each with steps and values.
        levels: horizontal lines, drawn in the panels in whose range they lie.
        labels: of both axes.
        mark: a step and what happened there.
    """
    told = []
    with styled():
        figure, places = plt.subplots(1, len(panels), figsize=(9, 3.7), squeeze=False, layout="constrained")
        for axes, (title, lines) in zip(places[0], panels.items()):
            for (name, (steps, values)), style, color, marker in zip(lines.items(), LINES, PALETTE, MARKERS):
                every = max(1, len(steps) // 8)
                axes.plot(steps, values, style, color=color, marker=marker, markevery=every, markersize=5, label=name)
                best = int(np.argmin(values))
                told.append(
                    f"{title}, {name}: from {values[0]:.2f} to {values[-1]:.2f}, lowest {values[best]:.2f} at {labels[0]} {steps[best]:g}"
                )
            low, high = axes.get_ylim()
            for name, level in (levels or {}).items():
                if low - 0.5 * (high - low) < level < high:
                    axes.axhline(level, color="#555555", linewidth=1, linestyle=(0, (1, 2)))
                    white = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
                    place = {"transform": axes.get_yaxis_transform(), "ha": "left", "va": "top"}
                    axes.text(0.02, level, name, fontsize=9, color="#333333", bbox=white, **place)
            if mark is not None:
                axes.axvline(mark[0], color="#555555", linewidth=1)
                axes.annotate(
                    mark[1], (mark[0], 0.04), xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points", fontsize=9
                )
            axes.set(title=title, xlabel=labels[0])
            axes.margins(y=0.12)
            axes.legend(frameon=False, fontsize=9)
        places[0][0].set_ylabel(labels[1])
    at = "; ".join(f"{name} at {level:.2f}" for name, level in (levels or {}).items())
    marked = f" At {labels[0]} {mark[0]:g}: {mark[1]}." if mark else ""
    return described(figure, f"{'. '.join(told)}.{' Levels: ' + at + '.' if at else ''}{marked}")


def weights(tables: Mapping[str, Tensor]) -> Figure:
    """Draw the mixture weights of several networks, a row for each portrait and a column for each component.

    Args:
        tables: `(N, K)` each.
    """
    told = []
    with styled():
        figure, places = plt.subplots(1, len(tables), figsize=(9, 3.6), squeeze=False, layout="constrained", sharey=True)
        largest = max(float(table.max()) for table in tables.values())
        for axes, (name, table) in zip(places[0], tables.items()):
            shown = axes.imshow(table.numpy(), cmap="gray_r", vmin=0, vmax=largest, aspect="auto")
            axes.set(title=name, xlabel="component", xticks=range(table.shape[1]), yticks=[])
            axes.set_xticklabels([str(k + 1) for k in range(table.shape[1])])
            spread = float(table.std(0).mean())
            told.append(f"{name}: weights from {float(table.min()):.2f} to {float(table.max()):.2f}, spread between portraits {spread:.3f}")
        places[0][0].set_ylabel("portraits")
        figure.colorbar(shown, ax=list(places[0]), label="weight", shrink=0.9)
    rows = len(next(iter(tables.values())))
    return described(figure, f"Mixture weights for {rows} portraits, dark where large. {'; '.join(told)}.")


def _ellipse(axes: Axes, mean: Tensor, covariance: Tensor, edgecolor: str, linewidth: float) -> None:
    """Draw where a Gaussian lies two standard deviations from its mean."""
    values, vectors = torch.linalg.eigh(covariance.double())
    angle = float(torch.rad2deg(torch.atan2(vectors[1, 1], vectors[0, 1])))
    width, height = 4 * values[1].clamp(min=0).sqrt(), 4 * values[0].clamp(min=0).sqrt()
    center = (float(mean[0]), float(mean[1]))
    axes.add_patch(
        Ellipse(center, float(width), float(height), angle=angle, fill=False, edgecolor=edgecolor, linewidth=linewidth, zorder=5)
    )


def _paint(name: str) -> tuple[float, ...] | str:
    """Return the color that a name of the portraits stands for."""
    if name not in COLORS:
        return PALETTE[0]
    gray = torch.full((1, 1, 1, 1), PAINT_LIGHTNESS / L_SCALE - 1)
    ab = torch.tensor(COLORS[name]).reshape(1, 2, 1, 1) / AB_SCALE
    return tuple(np.asarray(join(gray, ab))[0, 0, 0] / 255)
