"""The figures of chapter 9: what each loss rewards, a conditional VAE in training, its skips, and whether it uses its code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from ..lab import AB_SCALE, join
from . import PALETTE, color_name, described, styled

LINES = ("-", "--", ":", "-.")
HATCHES = ("", "//", "xx", "..")
#: Error fields are shown at this lightness, L/50 - 1.
FLAT = 0.24


def on_gray(fields: Tensor, gray: Tensor | None = None) -> NDArray[np.uint8]:
    """Return pictures, uint8 `(K, S, S, 3)`, of color fields `(K, 2, S, S)` on gray images, or on one lightness."""
    canvas = torch.full_like(fields[:, :1], FLAT) if gray is None else gray.expand(len(fields), -1, -1, -1)
    return np.asarray(join(canvas.cpu(), fields.detach().cpu().float()))


def rarity(picture: NDArray[np.uint8], maps: Mapping[str, Tensor], heaviest: Mapping[str, float]) -> Figure:
    """Draw a picture and, for each way of weighting, the weight of each of its pixels.

    Args:
        picture: `(S, S, 3)`.
        maps: `(S, S)` each, weights divided by their mean over the picture.
        heaviest: the share of the loss that the heaviest hundredth of the pixels has, for each way.
    """
    with styled():
        figure, places = plt.subplots(1, 1 + len(maps), figsize=(8.4, 3.3), layout="constrained")
        _picture(places[0], picture, "true colors")
        shown = None
        for axes, (name, weights) in zip(places[1:], maps.items()):
            shown = axes.imshow(weights.clamp(min=1e-3).log10(), cmap="cividis", vmin=-1, vmax=1.5, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_title(f"{name}\nheaviest 1 %: {heaviest[name]:.0%} of the loss")
        assert shown is not None
        bar = figure.colorbar(shown, ax=list(places[1:]), location="bottom", shrink=0.7, ticks=[-1, 0, 1])
        bar.ax.set_xticklabels(["0.1", "1", "10"])
        bar.set_label("weight of a pixel, divided by the picture's mean")
    told = "; ".join(
        f"{name}: weights from {float(weights.min()):.2g} to {float(weights.max()):.2g} times their mean, and the heaviest hundredth of "
        f"the pixels has {heaviest[name]:.0%} of the loss"
        for name, weights in maps.items()
    )
    return described(figure, f"A picture and the weight of each of its pixels. {told}.")


def verdicts(answers: Mapping[str, NDArray[np.uint8]], costs: Mapping[str, Sequence[float]], log: bool = False) -> Figure:
    """Draw pictures of several answers and what each loss charges for them.

    Args:
        answers: uint8 `(S, S, 3)` by name.
        costs: for each loss one number for each answer.
        log: whether the costs stand on a logarithmic axis.
    """
    count, most = len(answers), max(max(values) for values in costs.values())
    with styled():
        figure = plt.figure(figsize=(7.6, 2.5 + 0.45 * len(costs) * count + 0.8), layout="constrained")
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[2.3, 0.42 * len(costs) * count + 0.9])[:, 0]
        for axes, (name, picture) in zip(upper.subplots(1, count), answers.items()):
            _picture(axes, picture, name)
        axes = lower.subplots()
        for index, (loss, values) in enumerate(costs.items()):
            rows = [answer * (len(costs) + 0.6) + index for answer in range(count)]
            axes.barh(rows, values, height=0.85, color=PALETTE[index], hatch=HATCHES[index], edgecolor="white", label=loss)
            for row, value in zip(rows, values):
                axes.text(value + (0 if log else 0.01 * most), row, f" {_short(value)}", va="center")
        middle = [answer * (len(costs) + 0.6) + (len(costs) - 1) / 2 for answer in range(count)]
        axes.set_yticks(middle, [name.replace("\n", " ") for name in answers])
        axes.invert_yaxis()
        if log:
            axes.set_xscale("log")
            axes.set_xlim(right=4 * most)
        else:
            axes.set_xlim(0, 1.18 * most)
        axes.set_xlabel("cost" + (", logarithmic" if log else ""))
        lower.legend(loc="outside lower center", ncols=len(costs), frameon=False)
    told = "; ".join(
        f"{name.replace(chr(10), ' ')}: " + ", ".join(f"{loss} {_short(values[place])}" for loss, values in costs.items())
        for place, name in enumerate(answers)
    )
    return described(figure, f"{count} answers and what {len(costs)} losses charge for each. {told}.")


def root(sizes: Tensor, losses: Mapping[str, Tensor], slopes: Mapping[str, Tensor]) -> Figure:
    """Draw losses over the size of the error, and beside them the length of their gradients.

    Args:
        sizes: `(S,)`, the length of the error.
        losses, slopes: `(S,)` each, by name.
    """
    with styled():
        figure, places = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
        for axes, curves, title in zip(places, (losses, slopes), ("loss", "length of its gradient")):
            for index, (name, values) in enumerate(curves.items()):
                axes.plot(sizes, values, LINES[index], color=PALETTE[index], linewidth=2.5, label=name)
            axes.set(title=title, xlabel="length of the error, $\\Vert e \\Vert$", ylim=(0, None))
        figure.legend(*places[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(losses), frameon=False)
    told = "; ".join(
        f"{name}: gradient of length {float(values[0]):.2f} at an error of {float(sizes[0]):.2f} and {float(values[-1]):.2f} at "
        f"{float(sizes[-1]):.2f}"
        for name, values in slopes.items()
    )
    return described(figure, f"{len(losses)} losses over the length of the error, and the length of their gradients. {told}.")


def prices(posteriors: Mapping[str, tuple[Tensor, Tensor]], kl: Mapping[str, float]) -> Figure:
    """Draw the posteriors of several pictures, each a bell over a code of one number, under the prior, and what the KL charges.

    Args:
        posteriors: mu and logvar, each `(N, 1)`, by name.
        kl: the mean KL of each, in nats.
    """
    far = max(float(mu.abs().max()) for mu, _ in posteriors.values())
    line = torch.linspace(-1.15 * far - 1, 1.15 * far + 1, 1201)
    with styled():
        figure, places = plt.subplots(1, len(posteriors), figsize=(8.4, 3.2), sharex=True, layout="constrained", squeeze=False)
        for axes, (name, (mu, logvar)) in zip(places[0], posteriors.items()):
            axes.plot(line, _bell(line, 0.0, 1.0), "--", color=PALETTE[6], linewidth=2, label="prior")
            for index, (center, spread) in enumerate(zip(mu[:, 0].tolist(), (0.5 * logvar[:, 0]).exp().tolist())):
                axes.plot(line, _bell(line, center, spread), color=PALETTE[0], linewidth=2, label=None if index else "one picture's code")
            axes.set(title=f"{name}\nKL {kl[name]:.1f} nats", xlabel="code z", yticks=[], ylim=(0, None))
        figure.legend(*places[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    told = "; ".join(
        f"{name}: centers {', '.join(f'{center:.1f}' for center in mu[:, 0].tolist())}, standard deviation "
        f"{float((0.5 * logvar[0, 0]).exp()):.2f}, KL {kl[name]:.1f} nats"
        for name, (mu, logvar) in posteriors.items()
    )
    return described(figure, f"The codes of {len(next(iter(posteriors.values()))[0])} pictures as bells, with the prior dashed. {told}.")


def _bell(line: Tensor, center: float, spread: float) -> Tensor:
    """The density of a Gaussian, divided by its height: bells of all widths fit one picture."""
    return torch.exp(-0.5 * ((line - center) / spread).square())


def progress(
    gray: Tensor, truth: Tensor, rows: Mapping[str, Tensor], steps: Sequence[int], curves: Mapping[str, Mapping[str, Sequence[float]]]
) -> Figure:
    """Draw reconstructions as training goes on, the truth below them, and the curves of every run.

    Args:
        gray, truth: `(K, 1, S, S)`, `(K, 2, S, S)`.
        rows: `(K, 2, S, S)` each, what stood there at which step.
        steps: where the curves were taken.
        curves: a panel for each score, in it a curve for each run.
    """
    lines = {"gray": torch.zeros_like(truth), **rows, "truth": truth}
    with styled():
        count = len(truth)
        figure = plt.figure(figsize=(7.4, 7.4 / (count + 1.4) * len(lines) + 3.2), layout="constrained")
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[7.4 / (count + 1.4) * len(lines), 3.2])[:, 0]
        places = upper.subplots(len(lines), count, squeeze=False)
        for line, (name, fields) in zip(places, lines.items()):
            for axes, picture in zip(line, on_gray(fields, gray)):
                _picture(axes, picture, "")
            line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=12)
        panels = lower.subplots(1, len(curves), squeeze=False)[0]
        for axes, (score, runs) in zip(panels, curves.items()):
            for index, (name, values) in enumerate(runs.items()):
                axes.plot(steps, values, LINES[index], color=PALETTE[index], linewidth=2.5, label=name)
            axes.set(title=score, xlabel="step", ylim=(0, None))
        lower.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(runs), frameon=False)
    pictures = "; ".join(f"{name.replace(chr(10), ' ')}: mean chroma {_chroma(fields):.1f} Lab units" for name, fields in lines.items())
    told = "; ".join(
        f"{score}, {name}: from {values[0]:.1f} to {values[-1]:.1f}" for score, runs in curves.items() for name, values in runs.items()
    )
    figure.shows_photographs = True  # type: ignore[attr-defined]  # as JPEG: many small pictures
    return described(
        figure,
        f"{len(lines)} rows of {count} portraits as training goes on. {pictures}. Curves over {steps[-1]} steps: {told}.".replace(
            "\n", " "
        ),
    )


def edges(
    gray: Tensor, rows: Mapping[str, Tensor], windows: Sequence[tuple[int, int, int]], errors: Mapping[str, tuple[float, float]]
) -> Figure:
    """Draw color fields on their gray images, a window of each enlarged beside it, there on one lightness, so that only color is seen.

    Args:
        gray: `(K, 1, S, S)`.
        rows: `(K, 2, S, S)` each, by name.
        windows: for each of the K images, top, left and side of the window.
        errors: for each row, the RMS error near edges and elsewhere, Lab units.
    """
    count = len(gray)
    with styled():
        figure, places = plt.subplots(len(rows), 2 * count, figsize=(8, 8 / (2 * count + 1.3) * len(rows) + 0.2), layout="constrained")
        for line, (name, fields) in zip(places, rows.items()):
            for index, picture in enumerate(on_gray(fields, gray)):
                top, left, side = windows[index]
                _picture(line[2 * index], picture, "")
                corners = [left, left + side, left + side, left, left], [top, top, top + side, top + side, top]
                line[2 * index].plot(*[np.array(each) - 0.5 for each in corners], color="white", linewidth=1.5)
                line[2 * index].plot(*[np.array(each) - 0.5 for each in corners], "--", color="black", linewidth=1)
                (colors,) = on_gray(fields[index : index + 1])
                _picture(line[2 * index + 1], colors[top : top + side, left : left + side], "")
            line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=12)
    told = "; ".join(
        f"{name.replace(chr(10), ' ')}: error {near:.1f} near edges and {away:.1f} elsewhere" for name, (near, away) in errors.items()
    )
    figure.shows_photographs = True  # type: ignore[attr-defined]  # as JPEG: many small pictures
    return described(
        figure,
        f"{len(rows)} rows of {count} pictures, each with an enlarged window at an edge, colors only. RMS error in Lab units: {told}.",
    )


def swapped(gray: Tensor, cases: Mapping[str, Tensor], origins: Tensor) -> Figure:
    """Draw a table of pictures for each case: one code a row, one gray image a column.

    Args:
        gray: `(K, 1, S, S)`.
        cases: `(K, K, 2, S, S)` each; `[i, j]` is code i painted on gray image j.
        origins: `(K, 2, S, S)`, the colors that the codes were made from.
    """
    count = len(gray)
    with styled():
        wide = (count + 1) * len(cases) + 0.3
        figure = plt.figure(figsize=(9, 9 / wide * (count + 1) + 0.75), layout="constrained")
        parts = figure.subfigures(1, len(cases), squeeze=False)[0]
        for part, (name, table) in zip(parts, cases.items()):
            part.suptitle(name)
            places = part.subplots(count + 1, count + 1)
            places[0, 0].axis("off")
            places[0, 0].text(0.5, 0.5, "code ↓\ngray →", ha="center", va="center", transform=places[0, 0].transAxes, fontsize=9)
            for place, picture in enumerate(on_gray(torch.zeros_like(origins), gray)):
                _picture(places[0, place + 1], picture, "")
            for place, picture in enumerate(on_gray(origins, gray)):
                _picture(places[place + 1, 0], picture, "")
                for column, painted in enumerate(on_gray(table[place], gray)):
                    _picture(places[place + 1, column + 1], painted, "")
    told = "; ".join(
        f"{name.replace(chr(10), ' ')}: with another code the same gray image changes by {_spread(table):.1f} Lab units on average, "
        f"upper left corners {', '.join(_corner(field) for field in table[:, 0])}"
        for name, table in cases.items()
    )
    figure.shows_photographs = True  # type: ignore[attr-defined]  # as JPEG: many small pictures
    return described(figure, f"Tables of {count} codes by {count} gray images, beside the pictures that the codes come from. {told}.")


def _picture(axes: Axes, picture: NDArray[np.uint8], title: str) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(title)


def _short(value: float) -> str:
    if abs(value) < 1e-6:
        return "0"
    return f"{value:.2g}" if abs(value) < 10 else f"{value:,.0f}"


def _chroma(fields: Tensor) -> float:
    return float(fields.norm(dim=1).mean() * AB_SCALE)


def _corner(field: Tensor) -> str:
    a, b = (field[:, :4, :4].mean((1, 2)) * AB_SCALE).tolist()
    return color_name(a, b)


def _spread(table: Tensor) -> float:
    """The RMS difference of two codes' paintings of one gray image, over all pairs, Lab units."""
    pairs = torch.combinations(torch.arange(len(table)))
    return float((table[pairs[:, 0]] - table[pairs[:, 1]]).square().mean((2, 3, 4)).sqrt().mean() * AB_SCALE)
