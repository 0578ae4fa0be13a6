"""The figures of chapter 10, mixture density networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy.typing import NDArray
from torch import Tensor

from . import PALETTE, described, styled

BLUE, ORANGE, GREEN, PINK, YELLOW, SKY = PALETTE[:6]
COLORS = (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, "#000000", "#888888")
#: Nine figures: a little below the resolution of the style, so that the notebook stays small.
DPI = 90
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def exchanged(g: Tensor, z: Tensor, curves: Mapping[str, tuple[Tensor, Tensor]], asked: float, answer: float) -> Figure:
    """Draw the data both ways round, each with the curve that least squares fits.

    Args:
        g, z: `(N,)`, the given number and what we want to know.
        curves: `forward` (z, answers) and `inverse` (g, answers).
        asked, answer: one question in the inverse panel, and the network's answer.
    """
    x, y = _array(g), _array(z)
    with styled():
        figure, (left, right) = plt.subplots(1, 2, figsize=(8.8, 4.3), layout="constrained", dpi=DPI)
    left.plot(y, x, ls="", marker=".", ms=3, color=SKY, alpha=0.5)
    right.plot(x, y, ls="", marker=".", ms=3, color=SKY, alpha=0.5)
    for axes, name in ((left, "forward"), (right, "inverse")):
        at, answers = curves[name]
        axes.plot(_array(at), _array(answers), color=ORANGE, lw=3)
    left.set(xlabel="z", ylabel="g", title="forward: one g for each z")
    right.set(xlabel="g, given", ylabel="z, wanted", title="inverse: up to three z for each g", ylim=(-0.05, 1.05))
    right.axvline(asked, color="black", ls=":", lw=1.5)
    right.plot([asked], [answer], marker="X", ms=13, color="black", mec="white")
    right.annotate("no data here", (asked, answer), xytext=(-92, 44), textcoords="offset points", arrowprops={"arrowstyle": "-"})
    window = np.abs(x - asked) < 0.02
    near = float((np.abs(y[window] - answer) < 0.05).mean())
    return described(
        figure,
        f"The same {len(x)} points twice. Left, g over z: a band in the form of a wave, and the least-squares curve runs along its "
        "middle. Right, z over g: the band is folded, with three branches above each other in the middle, and the least-squares curve "
        f"cuts across between them. At g = {asked:.2f} it answers z = {answer:.2f}; of the points with about that g, {100 * near:.0f} "
        "percent lie within 0.05 of the answer.",
    )


def three_logarithms(z: Tensor, logs: Mapping[str, Tensor], at: float) -> Figure:
    """Draw the logarithm of a mixture over z (P,), with bounds from below; and what each of them lacks.

    Args:
        logs: the first is the logarithm of the mixture, the others `(P,)` lie at or below it.
        at: a place to mark.
    """
    x = _array(z)
    names = list(logs)
    top = _array(logs[names[0]])
    with styled():
        figure, (above, below) = plt.subplots(2, 1, figsize=(7, 5.4), sharex=True, layout="constrained", dpi=DPI)
    told = []
    place = int(np.abs(x - at).argmin())
    for index, name in enumerate(names):
        values = _array(logs[name])
        above.plot(x, values, color=COLORS[index], ls=LINES[index], lw=3 if index == 0 else 2.2, label=name)
        if index:
            below.plot(x, top - values, color=COLORS[index], ls=LINES[index], lw=2.2, label=name)
            told.append(
                f"{name}: at most {(top - values).max():.2f} nats below, {(top - values)[place]:.2f} at z = {at:g}, "
                f"never less than {(top - values).min():.3f}"
            )
    above.axvline(at, color="#888888", lw=1, ls=":")
    below.axvline(at, color="#888888", lw=1, ls=":")
    above.set(ylabel="nats", ylim=(top.min() - 4, top.max() + 0.5))
    above.legend(frameon=False, loc="lower center")
    below.set(xlabel="z", ylabel="how far below, in nats", ylim=(0, 4))
    return described(
        figure,
        f"Above, the logarithm of a mixture over z and, below it everywhere, {len(names) - 1} lower bounds; below, how far each "
        f"of them lies under it. {'; '.join(told)}.",
    )


def pulls(z: Tensor, parts: Tensor, shares: Tensor, points: Tensor, slopes: Tensor) -> Figure:
    """Draw the components of a mixture, their responsibilities over z, and the forces that a few points put on the means.

    Args:
        z: `(P,)`; parts, shares: `(P, K)`, weight times density, and responsibility.
        points: `(S,)`; slopes: `(S, K)`, minus the gradient of the NLL of each point with respect to each mean.
    """
    x, densities, r = _array(z), _array(parts), _array(shares)
    count = densities.shape[1]
    with styled():
        figure, (above, below) = plt.subplots(2, 1, figsize=(7, 5.4), sharex=True, layout="constrained", dpi=DPI)
    above.plot(x, densities.sum(1), color="black", lw=2.5, label="mixture")
    for k in range(count):
        above.plot(x, densities[:, k], color=COLORS[k], ls=LINES[k + 1], lw=2, label=f"component {k + 1}")
    below.stackplot(
        x, r.T, colors=COLORS[:count], alpha=0.75, labels=[f"component {k + 1}" for k in range(count)], hatch=None, edgecolor="white"
    )
    for k in range(count):
        middle = r[:, :k].sum(1) + r[:, k] / 2
        best = int(r[:, k].argmax()) if 0 < r[:, k].argmax() < len(x) - 1 else (len(x) // 8 if r[0, k] > 0.5 else 7 * len(x) // 8)
        below.text(x[best], middle[best], f"{k + 1}", color="white", fontsize=17, ha="center", va="center", weight="bold")
    for point in _array(points):
        for axes in (above, below):
            axes.axvline(point, color="#444444", lw=1.2, ls=":")
        above.plot([point], [0], marker="o", ms=9, color="black", clip_on=False, zorder=5)
    above.set(ylabel="density", ylim=(0, 1.12 * densities.sum(1).max()))
    above.legend(frameon=False, loc="upper right")
    below.set(xlabel="z", ylabel="responsibility", ylim=(0, 1), xlim=(x[0], x[-1]))
    told = [
        f"the point at {float(p):.1f} pulls the means by " + ", ".join(f"{v:+.2f}" for v in row.tolist())
        for p, row in zip(points, slopes.double())
    ]
    return described(
        figure,
        f"Above, a mixture of {count} components over z, with {len(points)} data points; below, the responsibilities as bands that add "
        f"up to 1: component 1 holds {100 * r[0, 0]:.0f} percent at the left end and {100 * r[-1, 0]:.0f} percent at the right end. "
        f"{'; '.join(told).capitalize()}.",
    )


def conditionals(g: Tensor, z: Tensor, densities: Mapping[str, Tensor], weights: Tensor, means: Tensor, asked: float) -> Figure:
    """Draw p(z | g) as a gray map, the truth beside models, the means of the last model's components, and one slice.

    Args:
        g: `(P,)`; z: `(Q,)`; densities: for each name `(P, Q)`, the truth first.
        weights, means: `(P, K)`, of the model that is drawn last.
        asked: the g at which all are cut.
    """
    x, y = _array(g), _array(z)
    place = int(np.abs(x - asked).argmin())
    names = list(densities)
    with styled():
        figure, places = plt.subplots(2, 2, figsize=(8, 6.6), layout="constrained", dpi=DPI)
    maps, slices = places.flat[: len(names)], places.flat[3]
    told = []
    for index, (axes, name) in enumerate(zip(maps, names)):
        values = _array(densities[name])
        axes.pcolormesh(x, y, np.sqrt(values.T), cmap="Greys", shading="auto", rasterized=True)
        axes.axvline(asked, color=COLORS[index], lw=1.5, ls=LINES[index])
        axes.set(title=name, xlabel="g, given", ylabel="z", ylim=(y[0], y[-1]))
        slices.plot(y, values[place], color=COLORS[index], ls=LINES[index], lw=2.5, label=name)
        peaks = [
            i for i in range(1, len(y) - 1) if values[place, i - 1] < values[place, i] >= values[place, i + 1] and values[place, i] > 0.2
        ]
        told.append(f"{name}: peaks at z = {', '.join(f'{y[i]:.2f}' for i in peaks)}")
    w, m = _array(weights), _array(means)
    step = max(1, len(x) // 22)
    for k in range(w.shape[1]):
        maps[-1].scatter(
            x[::step], m[::step, k], s=4 + 110 * w[::step, k], marker=MARKERS[k], facecolor=COLORS[k], edgecolor="white", lw=0.6, zorder=3
        )
    slices.set(title=f"cut at g = {asked:g}", xlabel="z", ylabel="density", xlim=(y[0], y[-1]), xticks=np.linspace(y[0], y[-1], 5).round(1))
    slices.legend(frameon=False)
    return described(
        figure,
        f"Conditional densities of z for every g as gray maps, and a cut through each at g = {asked:g}. {'; '.join(told)}. On the map of "
        f"{names[-1]} markers show the means of its {w.shape[1]} components, larger where the weight is larger; at the cut the weights "
        f"are {', '.join(f'{v:.2f}' for v in w[place])}.",
    )


def gaps(dimensions: Sequence[int], apart: Mapping[str, Sequence[float]], flat: Sequence[float], limit: float) -> Figure:
    """Draw the mean gap between the nearest-component loss and the NLL over the dimension of the code.

    Args:
        apart: for each way to choose the component, the mean gap for each dimension, all dimensions being in use.
        flat: the gap by distance if only the first two dimensions are in use.
        limit: log K.
    """
    with styled():
        figure, axes = plt.subplots(figsize=(7.4, 4.6), layout="constrained", dpi=DPI)
    floor = 1e-6
    for index, (name, values) in enumerate(apart.items()):
        axes.plot(
            dimensions, np.maximum(values, floor), color=COLORS[index], marker=MARKERS[index], ls=LINES[index], lw=2, ms=7, label=name
        )
    axes.plot(dimensions, flat, color=COLORS[2], marker=MARKERS[2], ls=LINES[2], lw=2, ms=7, label="nearest, only two dimensions in use")
    axes.axhline(limit, color="#888888", lw=1.2, ls=":")
    axes.annotate("log K", (dimensions[-1], limit), xytext=(-4, 4), textcoords="offset points", ha="right")
    axes.set(xscale="log", yscale="log", xlabel="dimension D of the code", ylabel="mean gap, nats", ylim=(floor / 2, 6 * limit))
    axes.set_xticks(list(dimensions), [str(d) for d in dimensions])
    axes.minorticks_off()
    axes.legend(frameon=False, loc="lower left")
    told = "; ".join(
        f"{name}: {_power(values[0])} at D = {dimensions[0]}, {_power(values[-1])} at D = {dimensions[-1]}"
        for name, values in apart.items()
    )
    return described(
        figure,
        "The mean gap in nats over the dimension of the code, on logarithmic axes. Where all dimensions are in use it falls steeply: "
        f"{told}. With only two dimensions in use it stays level: {flat[0]:.2f} at D = {dimensions[0]} and {flat[-1]:.2f} at the end. "
        f"A dotted line marks log K = {limit:.2f}.",
    )


def fits(z: Tensor, truth: Tensor, found: Mapping[str, Tensor], facts: Mapping[str, str]) -> Figure:
    """Draw a true density and what trainings made of it, each with its parts.

    Args:
        z: `(P,)`; truth: `(P,)`, a density.
        found: for each training `(P, K)`, weight times density of its components.
        facts: for each training what to write under its name, such as weights and scales.
    """
    x, exact = _array(z), _array(truth)
    with styled():
        figure, places = plt.subplots(1, len(found), figsize=(8.8, 4.2), sharey=True, squeeze=False, layout="constrained", dpi=DPI)
    told = []
    for axes, (name, parts) in zip(places.flat, found.items()):
        values = _array(parts)
        axes.fill_between(x, exact, color="#dddddd", label="truth")
        axes.plot(x, values.sum(1), color="black", lw=2.2, label="fit")
        for k in range(values.shape[1]):
            axes.plot(x, values[:, k], color=COLORS[k], ls=LINES[k + 1], lw=2)
        axes.set_title(f"{name}\n{facts[name]}", fontsize=11)
        axes.set(xlabel="z", xlim=(x[0], x[-1]))
        off = float(np.abs(values.sum(1) - exact).max())
        told.append(f"{name}: {facts[name]}, and its density leaves the truth by at most {off:.3f}".replace("\n", ", "))
    places[0, 0].set_ylabel("density")
    places[0, 0].legend(frameon=False, loc="upper right")
    return described(figure, f"A true density, filled in gray, and fits with their components. {'; '.join(told)}.")


def starts(
    data: Tensor, runs: Mapping[str, tuple[Tensor, Tensor, Tensor]], shares: Mapping[str, Tensor], nll: Mapping[str, float]
) -> Figure:
    """Draw where components end after different starts, over the data, and the share of points that each is most responsible for.

    Args:
        data: `(N, 2)`.
        runs: for each start the first means, the last means and the last scales, each `(K, 2)`.
        shares: for each start `(K,)`.
        nll: for each start the loss at the end, nats.
    """
    points = _array(data)
    with styled():
        figure, places = plt.subplots(
            2, len(runs), figsize=(8.8, 5), height_ratios=(1, 0.55), sharey="row", squeeze=False, layout="constrained", dpi=DPI
        )
    told = []
    for column, (name, (first, last, scale)) in enumerate(runs.items()):
        above, below = places[0, column], places[1, column]
        above.plot(points[:, 0], points[:, 1], ls="", marker=".", ms=2.5, color="#bbbbbb")
        for k, (start, end, s) in enumerate(zip(_array(first), _array(last), _array(scale))):
            alive = float(shares[name][k]) >= 0.01
            color = BLUE if alive else ORANGE
            above.plot([start[0], end[0]], [start[1], end[1]], color=color, lw=0.8)
            above.add_patch(Ellipse((end[0], end[1]), 4 * s[0], 4 * s[1], fill=False, ec=color, lw=1.8, ls="-" if alive else ":"))
            above.plot([end[0]], [end[1]], marker="o" if alive else "X", ms=7, color=color, mec="white")
        above.set(title=f"{name}\nNLL {nll[name]:.2f}", xlim=(-4.3, 4.3), ylim=(-4.3, 4.3), aspect="equal", xticks=[], yticks=[])
        ranked = np.sort(_array(shares[name]))[::-1]
        bars = below.bar(range(1, len(ranked) + 1), ranked, color=[BLUE if v >= 0.01 else ORANGE for v in ranked], edgecolor="white")
        for bar, value in zip(bars, ranked):
            if value < 0.01:
                below.text(bar.get_x() + bar.get_width() / 2, 0.01, "dead", rotation=90, ha="center", va="bottom", color=ORANGE, fontsize=9)
        below.set(xlabel="component, ranked", xticks=[])
        dead = int((ranked < 0.01).sum())
        told.append(f"{name}: {dead} dead, largest share {ranked[0]:.2f}, NLL {nll[name]:.2f}")
    places[1, 0].set_ylabel("share of points")
    return described(
        figure,
        f"Eight clusters on a ring and where {len(ranked)} components end, for {len(runs)} starts; below, the share of points for which "
        f"each component is the most responsible. {'; '.join(told)}.",
    )


def inactive(g: Tensor, truth: Tensor, runs: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Draw weights over g, and means in the active dimension over g, for each way to treat the scale.

    Args:
        g: `(P,)`; truth: `(P,)`, the true probability of the upper cluster.
        runs: for each way the weights and the active means, `(P, K)`.
    """
    x = _array(g)
    with styled():
        figure, places = plt.subplots(
            2, len(runs), figsize=(8.6, 6.2), sharex=True, sharey="row", squeeze=False, layout="constrained", dpi=DPI
        )
    told = []
    step = max(1, len(x) // 24)
    for column, (name, (weights, means)) in enumerate(runs.items()):
        w, m = _array(weights), _array(means)
        above, below = places[0, column], places[1, column]
        for k in range(w.shape[1]):
            above.plot(x, w[:, k], color=COLORS[k], ls=LINES[k], lw=2)
            below.scatter(x[::step], m[::step, k], s=5 + 90 * w[::step, k], color=COLORS[k], marker=MARKERS[k], edgecolor="white", lw=0.5)
        for center in (-0.5, 0.5):
            below.axhline(center, color="#888888", lw=1, ls=":")
        above.set(title=name, ylim=(0, 1))
        below.set(xlabel="g, given", ylim=(-0.9, 0.9), xticks=[-1, -0.5, 0, 0.5, 1])
        middle = len(x) // 2
        told.append(
            f"{name}: the weights move by up to {(w.max(0) - w.min(0)).max():.2f} over g, and at g = 0 the means lie at "
            f"{', '.join(f'{v:.2f}' for v in sorted(m[middle]))}"
        )
    places[0, 0].set_ylabel("weights of the components")
    places[1, 0].set_ylabel("their means, active dimension")
    exact = _array(truth)
    return described(
        figure,
        f"Weights and means of a mixture over g; the truth has two clusters, at -0.5 and 0.5, and the upper one's probability climbs from "
        f"{exact[0]:.2f} to {exact[-1]:.2f}. {'; '.join(told)}.",
    )


def two_heads(data: Tensor, means: Tensor, scale: Tensor, rho: Tensor, representatives: Tensor) -> Figure:
    """Draw the components of a mixture and the representatives over the same data, a long cluster above a round one.

    Args:
        data: `(N, 2)`; means, scale: `(K, 2)`, of the mixture.
        rho: `(R,)`; representatives: `(R, 2)`.
    """
    points = _array(data)
    with styled():
        figure, (above, below) = plt.subplots(2, 1, figsize=(7.4, 6.6), sharex=True, sharey=True, layout="constrained", dpi=DPI)
    for axes in (above, below):
        axes.plot(points[:, 0], points[:, 1], ls="", marker=".", ms=3, color="#bbbbbb")
        axes.set(aspect="equal", ylabel="second number")
    m, s = _array(means), _array(scale)
    for k in range(len(m)):
        above.add_patch(Ellipse((m[k, 0], m[k, 1]), 4 * s[k, 0], 4 * s[k, 1], fill=False, ec=COLORS[k], lw=2, ls=LINES[k]))
        above.plot([m[k, 0]], [m[k, 1]], marker=MARKERS[k], ms=9, color=COLORS[k], mec="white")
    r, p = _array(representatives), _array(rho)
    for k in range(len(r)):
        below.plot([r[k, 0]], [r[k, 1]], marker="o", ms=8 + 26 * p[k], color=ORANGE, mec="white")
        below.annotate(f"{p[k]:.2f}", (r[k, 0], r[k, 1]), xytext=(13, 9), textcoords="offset points", fontsize=13)
    above.set(title="mixture: means, and ellipses at two scales")
    below.set(title="representatives and their weights", xlabel="z, first number")
    nearest = [float(np.linalg.norm(points[:, None] - centers, axis=2).min(1).mean()) for centers in (m, r)]
    spread = [float(np.ptp(centers[centers[:, 1] > 0][:, 0])) if (centers[:, 1] > 0).any() else 0.0 for centers in (m, r)]
    return described(
        figure,
        f"The same codes twice: a long cluster above a round one. First panel, {len(m)} components of a mixture as ellipses; their means "
        f"in the long cluster spread over {spread[0]:.1f}. Then {len(r)} representatives, weights "
        f"{', '.join(f'{v:.2f}' for v in p)}; those in the long cluster spread over {spread[1]:.1f}. A code lies {nearest[0]:.2f} from "
        f"the nearest mean and {nearest[1]:.2f} from the nearest representative, on average.",
    )


def quiz_fits(z: Tensor, truth: Tensor, found: Mapping[str, Tensor]) -> dict[str, NDArray[np.uint8]]:
    """Return pictures for a quiz, uint8 `(H, W, 3)`: a true density in gray and a fitted one `(P,)` as a line, on the same axes."""
    x, exact = _array(z), _array(truth)
    pictures = {}
    for name, values in found.items():
        with styled():
            figure, axes = plt.subplots(figsize=(2.7, 1.9), dpi=100, layout="constrained")
            axes.fill_between(x, exact, color="#cccccc")
            axes.plot(x, _array(values), color=BLUE, lw=2.2)
            axes.set(yticks=[], xlabel="z", xlim=(x[0], x[-1]), ylim=(0, 0.42))
            axes.spines["left"].set_visible(False)
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            pictures[name] = np.asarray(canvas.buffer_rgba())[..., :3].copy()
        plt.close(figure)
    return pictures


def _array(values: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = torch.as_tensor(values).detach().double().cpu().numpy()
    return found


def _power(value: float) -> str:
    return f"{value:.2f}" if value >= 0.005 else "less than one in a million" if value < 1e-6 else f"{value:.1g}"
