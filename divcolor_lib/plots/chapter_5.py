"""The figures of chapter 5, the reparameterization trick."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.ticker import NullFormatter, NullLocator
from numpy.typing import NDArray
from torch import Tensor

from . import PALETTE, described, styled

BLUE, ORANGE, GREEN, PINK = PALETTE[:4]
FORWARD, BACKWARD = "#444444", ORANGE
MARKERS = ("o", "s", "^", "D", "v")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def graphs(blocked: Mapping[str, float | None], through: Mapping[str, float | None], z: float) -> Figure:
    """Draw the way of a gradient with a sampling node in it, and after the trick.

    Args:
        blocked: the gradient of h(z) by `mu` and `logvar` that autograd found through the sampling node; None if it found none.
        through: the same after the trick.
        z: the code that was drawn.
    """
    with styled():
        figure, (before, after) = plt.subplots(2, 1, figsize=(7, 6), height_ratios=(3.9, 4.6), layout="constrained")
    for axes in (before, after):
        axes.set(xlim=(0, 10), ylim=(0, 4.6 if axes is after else 3.9))
        axes.axis("off")
    before.set_title("before: the parameters go into the draw", loc="left", fontsize=13)
    after.set_title("after: the parameters go into a formula, the noise stands aside", loc="left", fontsize=13)
    _node(before, 1.2, 3.1, r"$\mu$")
    _node(before, 1.2, 1.1, r"$\log\,\sigma^2$")
    _node(before, 4.9, 2.1, "draw\n" + r"$z\sim\mathcal{N}(\mu,\sigma^2)$", width=2.3, random=True)
    _node(before, 8.6, 2.1, r"$h(z)$")
    for start in ((2.1, 3.1), (2.1, 1.1)):
        _arrow(before, start, (3.65, 2.1 + 0.25 * np.sign(start[1] - 2.1)), FORWARD)
    _arrow(before, (6.15, 2.25), (7.65, 2.25), FORWARD)
    _arrow(before, (7.65, 1.95), (6.15, 1.95), BACKWARD, dashed=True)
    before.text(4.9, 0.55, "the gradient stops here", ha="center", color=BACKWARD, fontsize=12)
    before.plot([4.9], [1.12], marker="x", markersize=13, markeredgewidth=3, color=BACKWARD)
    for name, height in (("mu", 3.1), ("logvar", 1.1)):
        _told(before, 1.2, height - 0.78, blocked[name])
    _node(after, 1.2, 3.1, r"$\mu$")
    _node(after, 1.2, 1.1, r"$\log\,\sigma^2$")
    _node(after, 4.9, 2.1, r"$z=\mu+\sigma\,\varepsilon$", width=2.3)
    _node(after, 8.6, 2.1, r"$h(z)$")
    after.text(4.9, 1.3, f"here z = {z:.2f}", ha="center", fontsize=12, color=FORWARD)
    _node(after, 4.9, 3.85, r"$\varepsilon\sim\mathcal{N}(0,1)$", width=2.3, random=True)
    _arrow(after, (4.9, 3.37), (4.9, 2.62), FORWARD)
    _arrow(after, (6.15, 2.25), (7.65, 2.25), FORWARD)
    _arrow(after, (7.65, 1.95), (6.15, 1.95), BACKWARD, dashed=True)
    for height in (3.1, 1.1):
        side = 0.3 * np.sign(height - 2.1)
        _arrow(after, (2.1, height + 0.13), (3.65, 2.13 + side), FORWARD)
        _arrow(after, (3.65, 1.87 + side), (2.1, height - 0.13), BACKWARD, dashed=True)
    for name, height in (("mu", 3.1), ("logvar", 1.1)):
        _told(after, 1.2, height - 0.78, through[name])
    after.text(8.6, 0.62, "solid: forward\ndashed: gradient", ha="center", fontsize=11, color=FORWARD)
    found = {name: [_gradient(part[name]) for part in (blocked, through)] for name in ("mu", "logvar")}
    return described(
        figure,
        "Two computation graphs. Above, mu and log sigma squared lead into a node that draws z, which leads into h(z); the gradient "
        f"comes back from h(z) and stops at the draw: autograd gives mu {found['mu'][0]} and log sigma squared {found['logvar'][0]}. "
        "Below, noise epsilon without parameters is drawn beside, z = mu + sigma epsilon is a formula, and the gradient goes "
        f"through it: at the draw z = {z:.2f} autograd gives mu {found['mu'][1]} and log sigma squared {found['logvar'][1]}.",
    )


def weigh_or_move(mu: float, z: Tensor) -> Figure:
    """Draw what the two estimators do with the same draws `z` (S,) from N(mu, 1) and h(z) = z^2: weigh them anew, or move them."""
    points = z.detach().double().numpy()
    score, path = points**2 * (points - mu), 2 * points
    shift = 0.3
    weights = np.exp(2 * shift * (points - mu) - 2 * shift**2)  # twice the shift, to be seen
    grid = np.linspace(points.min() - 0.6, points.max() + 0.9, 200)
    with styled():
        figure, places = plt.subplots(2, 2, figsize=(8, 6), sharex="row", sharey="row", height_ratios=(1, 1.1), layout="constrained")
    for axes in places[0]:
        axes.plot(grid, grid**2, color="#888888", lw=1.5)
        axes.set(xlabel="z")
    places[0, 0].set_ylabel("h(z) = z²")
    for axes in places[0]:
        axes.scatter(points, points**2, s=60, facecolor="white", edgecolor="#888888", zorder=3)
    places[0, 0].vlines(points, points**2, points**2 + 3 * (weights - 1), color=BLUE, lw=2.5, zorder=2)
    places[0, 0].scatter(points, points**2 + 3 * (weights - 1), marker="_", s=70, color=BLUE, zorder=4)
    places[0, 0].set_title("score function: weigh the draws anew")
    for point in points:
        places[0, 1].annotate(
            "",
            (point + shift, (point + shift) ** 2),
            (point, point**2),
            arrowprops={"arrowstyle": "-|>", "color": ORANGE, "lw": 1.8, "shrinkA": 3, "shrinkB": 0},
            zorder=4,
        )
    places[0, 1].set_title("pathwise: move the draws")
    order = np.argsort(points)
    low, high = min(score.min(), path.min()), max(score.max(), path.max())
    room = 0.15 * (high - low)
    for axes, values, color, hatch in ((places[1, 0], score, BLUE, ""), (places[1, 1], path, ORANGE, "//")):
        axes.bar(range(len(points)), values[order], color=color, hatch=hatch, edgecolor="white", width=0.8)
        axes.axhline(2 * mu, color="black", ls="--", lw=1.5)
        axes.axhline(values.mean(), color="black", ls="-", lw=2)
        axes.set(ylim=(low - room, high + room), xticks=[], xlabel="draws, from smallest to largest z")
        axes.text(
            0.02, 0.97, f"mean {values.mean():.1f} (solid)\nexact {2 * mu:.1f} (dashed)", transform=axes.transAxes, va="top", fontsize=11
        )
    places[1, 0].set_ylabel("what one draw says\nabout the gradient")
    return described(
        figure,
        f"The same {len(points)} draws from N({mu:g}, 1) on the curve h(z) = z squared, used in two ways. Score function: the draws "
        f"stay where they are, those above {mu:g} get more weight and those below get less; what a single draw says about the gradient "
        f"lies between {score.min():.1f} and {score.max():.1f}, with mean {score.mean():.1f}. Pathwise: every draw slides to the right "
        f"by the same amount, and its slope counts; the single answers lie between {path.min():.1f} and {path.max():.1f}, "
        f"with mean {path.mean():.1f}. The exact gradient is {2 * mu:.1f}.",
    )


def variances(
    dimensions: Sequence[int],
    measured: Mapping[str, Sequence[float]],
    exact: Mapping[str, Sequence[float]],
    draws: Sequence[int],
    errors: Mapping[str, Sequence[float]],
    latent: int,
) -> Figure:
    """Draw the variance of one draw's gradient over the dimension, and the error over the number of draws, both on logarithmic axes.

    Args:
        dimensions: D; `measured` and `exact` hold the variance for each, under the name of the estimator.
        draws: S; `errors` holds the root mean square error for each, at `latent` dimensions.
    """
    with styled():
        figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 4.6), layout="constrained")
    for index, name in enumerate(measured):
        color, marker = PALETTE[index], MARKERS[index]
        left.loglog(dimensions, exact[name], color=color, lw=1.5, ls=LINES[index])
        left.loglog(dimensions, measured[name], color=color, marker=marker, ls="", ms=7)
        right.loglog(draws, errors[name], color=color, marker=marker, ls=LINES[index], ms=6, lw=1.5)
        left.annotate(name, (dimensions[-1], exact[name][-1]), xytext=(-6, 9), textcoords="offset points", ha="right", color=color)
        right.annotate(name, (draws[0], errors[name][0]), xytext=(9, 4), textcoords="offset points", color=color)
    left.set(xlabel="dimension D", ylabel="variance of one draw's gradient", title="over the dimension")
    left.set_xticks(list(dimensions), [str(d) for d in dimensions])
    left.set_ylim(top=2.2 * max(max(values) for values in exact.values()))
    right.set_xticks(list(draws), [str(s) for s in draws])
    for axes in (left, right):
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
    right.set(xlabel="number of draws S", ylabel="root mean square error", title=f"over the draws, D = {latent}")
    first, last = dimensions[0], dimensions[-1]
    told = "; ".join(
        f"{name}: from {measured[name][0]:.3g} at D = {first} to {measured[name][-1]:.3g} at D = {last}, "
        f"error from {errors[name][0]:.2g} with {draws[0]} draw to {errors[name][-1]:.2g} with {draws[-1]}"
        for name in measured
    )
    worst = max(measured, key=lambda name: measured[name][-1])
    best = min(measured, key=lambda name: measured[name][-1])
    return described(
        figure,
        "Two panels with logarithmic axes. Left, the variance of one draw's gradient over the dimension, measured (markers) on the lines "
        f"of the closed forms. Right, the error over the number of draws, parallel falling lines. {told}. "
        f"At D = {last} the largest variance is that of {worst}, the smallest that of {best}.",
    )


def histograms(draws: Mapping[str, Tensor], mu: float, sigma: float) -> Figure:
    """Draw the histogram of each variant's draws with the density of N(mu, sigma^2) that they should have."""
    columns = 2
    rows = -(-len(draws) // columns)
    grid = np.linspace(mu - 4.5 * sigma, mu + 4.5 * sigma, 300)
    density = np.exp(-((grid - mu) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    with styled():
        figure, places = plt.subplots(
            rows, columns, figsize=(7.4, 2.3 * rows), sharex=True, sharey=True, squeeze=False, layout="constrained"
        )
    for axes in places.flat[len(draws) :]:
        axes.axis("off")
    told = []
    for axes, (name, values) in zip(places.flat, draws.items()):
        numbers = values.detach().double().numpy()
        axes.hist(numbers, bins=np.linspace(grid[0], grid[-1], 46).tolist(), density=True, color=PALETTE[5], edgecolor="white", lw=0.3)
        axes.plot(grid, density, color="black", lw=1.8)
        axes.set(title=name, yticks=[], ylim=(0, 2.6 * density.max()), xlim=(grid[0], grid[-1]))
        axes.spines["left"].set_visible(False)
        axes.text(0.98, 0.92, f"mean {numbers.mean():.2f}\nspread {numbers.std():.2f}", transform=axes.transAxes, ha="right", va="top")
        told.append(f"{name}: mean {numbers.mean():.2f}, standard deviation {numbers.std():.2f}")
    for axes in places[-1]:
        axes.set_xlabel("z")
    return described(
        figure,
        f"Histograms of draws that should follow the bell curve with mean {mu:g} and standard deviation {sigma:g}, drawn over each. "
        f"{'; '.join(told)}.",
    )


def frozen_noise(grid: Tensor, exact: Tensor, fresh: Tensor, frozen: Tensor) -> Figure:
    """Draw Monte Carlo estimates of a mean over its parameter: fresh noise at every point, and the same noise at all of them.

    Args:
        grid, exact: `(P,)`, the parameter and the exact mean.
        fresh: `(P,)`, estimates with new noise at each point.
        frozen: `(R, P)`, R curves of estimates, each with one noise.
    """
    x, truth = grid.double().numpy(), exact.double().numpy()
    with styled():
        figure, places = plt.subplots(1, 2, figsize=(8.4, 4.0), sharex=True, sharey=True, layout="constrained")
    places[0].plot(x, fresh.double().numpy(), color=BLUE, marker=".", lw=1, ms=4)
    for index, curve in enumerate(frozen.double().numpy()):
        places[1].plot(x, curve, color=PALETTE[index + 1], ls=LINES[index + 1], lw=2)
    for axes, title in zip(places, ("fresh noise at every point", f"{len(frozen)} curves, one noise each")):
        axes.plot(x, truth, color="black", lw=2.2)
        axes.set(xlabel="μ", title=title)
    places[0].set_ylabel("estimate of J(μ); black: exact")
    jumps = float(fresh.diff().abs().max())
    smooth = float(frozen.diff(dim=1).abs().max())
    return described(
        figure,
        "Two panels, each with the smooth curve of an exact mean over mu in black. Left, an estimate with fresh noise at every point jumps "
        f"up and down, by up to {jumps:.2f} between neighbors. Right, {len(frozen)} estimates that each keep one noise for all points are "
        f"smooth curves beside the exact one; their largest step between neighbors is {smooth:.2f}.",
    )


def bound_ascents(
    center: tuple[float, float], curvature: float, paths: Mapping[str, Tensor], evidence: float, spread: tuple[float, float] = (2.1, 3.0)
) -> Figure:
    """Draw the ELBO of a linear decoder over (mu, log sigma^2) as contours, and the ways that encoders took on it.

    Args:
        center: mu and log sigma^2 of the true posterior, the highest point.
        curvature: one over the variance of the true posterior.
        paths: `(steps, 2)` for each estimator, mu and log sigma^2 after each step.
        evidence: log p(x), the height of the highest point.
        spread: half the width of the picture in mu and in log sigma^2.
    """
    mu = np.linspace(center[0] - spread[0], center[0] + spread[0], 150)
    logvar = np.linspace(center[1] - 0.55 * spread[1], center[1] + 1.45 * spread[1], 150)
    x, y = np.meshgrid(mu, logvar)
    ratio = y + math.log(curvature)
    height = evidence - 0.5 * (curvature * (x - center[0]) ** 2 + np.exp(ratio) - ratio - 1)  # log p(x) - KL(q || posterior)
    with styled():
        figure, axes = plt.subplots(figsize=(7, 5.4), layout="constrained")
    levels = evidence - np.array([16.0, 8, 4, 2, 1, 0.5, 0.1])
    shades = [str(0.8 + 0.2 * step / len(levels)) for step in range(len(levels) + 1)]
    axes.contourf(x, y, height, levels=[-1e9, *levels, evidence + 1], colors=shades)
    axes.contour(x, y, height, levels=levels, colors="#999999", linewidths=0.7, linestyles="-")
    told = []
    for index, (name, path) in enumerate(paths.items()):
        way = path.detach().double().numpy()
        axes.plot(way[:, 0], way[:, 1], color=PALETTE[index], lw=1.6 if index else 1.1, ls="-", label=name, zorder=3 + index)
        axes.plot(*way[-1], marker=MARKERS[index], color=PALETTE[index], ms=11, mec="white", zorder=8)
        told.append(f"{name} ends at mu = {way[-1, 0]:.2f}, log sigma squared = {way[-1, 1]:.2f}")
    start = (float(next(iter(paths.values()))[0, 0]), float(next(iter(paths.values()))[0, 1]))
    axes.plot(*start, marker="P", color="black", ms=11, mec="white", zorder=9)
    axes.annotate("start", start, xytext=(6, 9), textcoords="offset points", fontsize=12)
    axes.plot(*center, marker="*", color="black", ms=17, mec="white", zorder=9)
    axes.annotate(
        "true posterior",
        center,
        xytext=(95, -50),
        textcoords="offset points",
        ha="center",
        fontsize=12,
        arrowprops={"arrowstyle": "-"},
    )
    handles = [Line2D([], [], color=PALETTE[index], marker=MARKERS[index], ms=9, label=name) for index, name in enumerate(paths)]
    axes.legend(handles=handles, frameon=True, loc="upper right", fontsize=11)
    axes.set(xlabel="μ", ylabel="log σ²", xlim=(mu[0], mu[-1]), ylim=(logvar[0], logvar[-1]))
    return described(
        figure,
        f"Contours of the ELBO over mu and log sigma squared, highest ({evidence:.2f} nats) at the true posterior, mu = {center[0]:.2f}, "
        f"log sigma squared = {center[1]:.2f}. All ways start at mu = {start[0]:.2f}, log sigma squared = {start[1]:.2f}. "
        f"{'; '.join(told)}.",
    )


def choices(logits: Tensor, chosen: Tensor, share: Tensor, exact: Tensor) -> Figure:
    """Draw whether a category wins, over its logit: for single frozen noises, and on average.

    Args:
        logits: `(P,)`, the first logit.
        chosen: `(R, P)`, 1 where the first category wins with noise r.
        share: `(P,)`, the mean of many such rows.
        exact: `(P,)`, the softmax probability.
    """
    x = logits.double().numpy()
    with styled():
        figure, (above, below) = plt.subplots(2, 1, figsize=(7, 5.6), sharex=True, layout="constrained")
    where = []
    for index, row in enumerate(chosen.double().numpy()):
        above.plot(x, row + 0.035 * (index - (len(chosen) - 1) / 2), color=PALETTE[index], ls=LINES[index], lw=2.2)
        jumps = np.flatnonzero(np.diff(row))
        where.append(f"{round(float(x[jumps[0]]), 1) + 0.0:.1f}" if len(jumps) else "nowhere in view")
    above.set(yticks=[0, 1], yticklabels=["no", "yes"], ylabel="category 1 wins", title=f"{len(chosen)} frozen noises: each a jump")
    below.plot(x, exact.double().numpy(), color="black", lw=2.2, label="softmax, exact")
    below.plot(x[::4], share.double().numpy()[::4], color=ORANGE, ls="", marker="o", ms=6, label="mean over many noises")
    below.set(xlabel="logit of category 1", ylabel="share of wins", ylim=(-0.03, 1.03), title="the mean: smooth")
    below.legend(frameon=False, loc="upper left")
    gap = float((share - exact).abs().max())
    return described(
        figure,
        f"Above, whether category 1 wins, over its logit, for {len(chosen)} frozen noises: each line is flat, jumps once from no to "
        f"yes and is flat again; the jumps are at {', '.join(where)}. Below, the mean over many noises rises smoothly from "
        f"{float(share[0]):.2f} to {float(share[-1]):.2f} and lies on the softmax probability, within {gap:.3f}.",
    )


def quiz_histograms(mu: float, spreads: Mapping[str, tuple[float, float]], draws: int = 4000) -> dict[str, NDArray[np.uint8]]:
    """Return pictures of histograms for a quiz, uint8 `(H, W, 3)`, all on the same axes.

    Args:
        spreads: for each picture the mean and the standard deviation of its draws.
    """
    noise = torch.randn(draws, generator=torch.Generator().manual_seed(7)).double().numpy()
    pictures = {}
    for name, (mean, spread) in spreads.items():
        with styled():
            figure, axes = plt.subplots(figsize=(2.7, 1.9), dpi=100, layout="constrained")
            axes.hist(mean + spread * noise, bins=np.linspace(mu - 2, mu + 2, 61).tolist(), color=PALETTE[5], edgecolor=BLUE, lw=0.3)
            axes.set(yticks=[], xlim=(mu - 2, mu + 2), xlabel="z")
            axes.spines["left"].set_visible(False)
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            pictures[name] = np.asarray(canvas.buffer_rgba())[..., :3].copy()
        plt.close(figure)
    return pictures


def _node(axes: Axes, x: float, y: float, text: str, width: float = 1.6, random: bool = False) -> None:
    """A value is a box; what is random is a box with round ends and a double rim."""
    height = 0.95
    style = f"round,pad=0,rounding_size={0.45 if random else 0.08}"
    if random:
        axes.add_patch(
            FancyBboxPatch((x - width / 2 - 0.09, y - height / 2 - 0.09), width + 0.18, height + 0.18, boxstyle=style, fc="white", ec=BLUE)
        )
    fill, edge = ("#e8f1f8", BLUE) if random else ("#f6f1e7", FORWARD)
    axes.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle=style, fc=fill, ec=edge))
    axes.text(x, y, text, ha="center", va="center", fontsize=13)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, dashed: bool = False) -> None:
    style = (0, (4, 2)) if dashed else "-"
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=15, color=color, lw=2 if dashed else 1.6, linestyle=style))


def _told(axes: Axes, x: float, y: float, gradient: float | None) -> None:
    axes.text(x, y, f"gradient: {_gradient(gradient)}", ha="center", va="center", color=BACKWARD, fontsize=12)


def _gradient(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
