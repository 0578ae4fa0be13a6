"""The figures of chapter 1: what L, a and b look like, what bytes lose, where the gamut ends, and which colors are rare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from ..bins import Bins
from ..lab import AB_SCALE, L_SCALE, in_gamut, join, lab_to_rgb, to_uint8
from . import PALETTE, STYLE, color_name, described, styled

#: A slice of the gamut shows a and b from -REACH to REACH, in squares of CELL Lab units.
REACH, CELL = 120, 3
#: The lightness at which a color is drawn that has no lightness of its own.
MIDDLE = 65.0
OUTSIDE = 238


def directions(center: tuple[float, float, float], steps: Sequence[float]) -> Figure:
    """Draw patches around one Lab color: in each row one of the three numbers changes by `steps` (Lab units), the others stay."""
    told = []
    with styled():
        figure, axes = plt.subplots(3, 1, figsize=(7.2, 5.0), layout="constrained")
        for row, (place, name) in enumerate(zip(axes, "Lab")):
            changed = [tuple(value + step * (index == row) for index, value in enumerate(center)) for step in steps]
            _patches(place, changed, [f"{name} = {color[row]:g}" for color in changed])
            held = ", ".join(f"{other} = {value:g}" for other, value in zip("Lab", center) if other != name)
            place.set_title(f"only {name} changes ({held})", loc="left")
            ends = [_named(changed[0]), _named(changed[-1])]
            told.append(f"{name} from {changed[0][row]:g}, {ends[0]}, to {changed[-1][row]:g}, {ends[1]}")
    return described(figure, f"Three rows of {len(steps)} patches, in each row one number changes: {'; '.join(told)}.")


def luma_and_lightness(photo: NDArray[np.uint8], lightness: Tensor, luma: Tensor, title: str) -> Figure:
    """Draw a photograph, the gray picture of its L, the gray picture of its luma, and the difference of their lightness.

    Args:
        photo: uint8 `(H, W, 3)`.
        lightness: L of the photograph, `(H, W)`.
        luma: L of the gray picture that its luma gives, `(H, W)`.
    """
    difference = (lightness - luma).numpy()
    top = float(np.abs(difference).max())
    row, column = np.unravel_index(int(np.abs(difference).argmax()), difference.shape)
    with styled():
        figure, axes = plt.subplots(2, 2, figsize=(6.0, 5.6), layout="constrained")
        upper_left, upper_right, lower_left, lower_right = axes.flat
        for place, picture, name in (
            (upper_left, photo, title),
            (upper_right, _gray(lightness), "lightness L"),
            (lower_right, _gray(luma), "luma"),
        ):
            place.imshow(picture)
            place.set_title(name)
        shown = lower_left.imshow(difference, cmap="PuOr", vmin=-top, vmax=top)
        lower_left.set_title("L minus L of luma")
        figure.colorbar(shown, ax=lower_left, shrink=0.8, location="left")
        for place in axes.flat:
            place.axis("off")
    figure.shows_photographs = True  # type: ignore[attr-defined]
    text = (
        f"A photograph ({title}), its lightness and its luma as gray pictures, and the difference. Lightness exceeds that of luma by up to "
        f"{difference.max():.1f} and falls short by up to {-difference.min():.1f}; the largest difference is {row} rows down and "
        f"{column} columns right, of {difference.shape[0]} by {difference.shape[1]}; the mean absolute difference is "
        f"{np.abs(difference).mean():.1f}."
    )
    return described(figure, text)


def ramps(rows: Mapping[str, Sequence[float]]) -> Figure:
    """Draw rows of gray patches, each row from a list of L; the key says how the row was made."""
    told = []
    with styled():
        figure, axes = plt.subplots(len(rows), 1, figsize=(7.2, 1.6 * len(rows)), layout="constrained", squeeze=False)
        for place, (name, values) in zip(axes[:, 0], rows.items()):
            _patches(place, [(value, 0.0, 0.0) for value in values], [f"{value:.0f}" for value in values])
            place.set_title(f"{name}; below each patch its L", loc="left")
            jumps = np.diff(values)
            told.append(f"{name}: steps of L from {jumps.min():.1f} to {jumps.max():.1f}, the first {jumps[0]:.1f}")
    return described(figure, f"{len(rows)} rows of gray patches from black to white. {'; '.join(told)}.")


def round_trip(before: NDArray[np.uint8], after: NDArray[np.uint8], errors: NDArray[np.int64]) -> Figure:
    """Draw colors before and after a trip through 8-bit Lab, and how many colors lose how many levels.

    Args:
        before, after: uint8 `(N, 3)`, sRGB.
        errors: for each color tried, the largest change of its three bytes.
    """
    counts = np.bincount(errors)
    with styled():
        figure, (left, right) = plt.subplots(2, 1, figsize=(7.2, 6.4), layout="constrained")
        left.imshow(np.stack([before, after]), aspect="auto")
        left.set_yticks([0, 1], ["before", "after"])
        for column, (old, new) in enumerate(zip(before.tolist(), after.tolist())):
            for line, color in enumerate((old, new)):
                written = "\n".join(str(byte) for byte in color)
                ink = "white" if np.dot(color, (0.2, 0.7, 0.1)) < 100 else "black"
                left.text(column, line, written, ha="center", va="center", color=ink)
        left.set_xticks([])
        left.set_title("R, G, B of the colors that change most")
        right.bar(np.arange(len(counts)), counts / len(errors), color=PALETTE[0])
        right.set(yscale="log", xlabel="levels lost", ylabel="share of the colors", title="how often")
    worst = ", ".join(str(int(np.abs(old.astype(int) - new).max())) for old, new in zip(before, after))
    text = (
        f"{len(before)} colors before and after 8-bit Lab change by {worst} levels. Of all colors tried, {counts[0] / len(errors):.0%} "
        f"come back unchanged, {(errors <= 1).mean():.0%} change by at most one level, {(errors >= 5).mean():.1%} by five or more; "
        f"the most is {errors.max()}."
    )
    return described(figure, text)


def mapped(pictures: Mapping[str, NDArray[np.uint8]], changes: Mapping[str, Tensor], outside: Tensor) -> Figure:
    """Draw pictures uint8 `(H, W, 3)` in one row, and below them how far L moved, `(H, W)`, where `changes` says it.

    Below the first one: which colors were outside the gamut, bool `(H, W)`.
    """
    top = max(float(change.abs().max()) for change in changes.values())
    with styled():
        figure, axes = plt.subplots(2, len(pictures), figsize=(7.0, 4.9), layout="constrained", squeeze=False)
        for column, (name, picture) in enumerate(pictures.items()):
            axes[0, column].imshow(picture)
            axes[0, column].set_title(name)
            if name in changes:
                shown = axes[1, column].imshow(changes[name].abs().numpy(), cmap="magma", vmin=0, vmax=top)
                axes[1, column].set_title(f"L moves by up to {float(changes[name].abs().max()):.1f}")
        for place in axes.flat:
            place.axis("off")
        axes[1, 0].imshow(outside.numpy(), cmap="gray_r", vmin=0, vmax=1.5)
        axes[1, 0].set_title(f"dark: outside ({outside.float().mean():.0%})")
        figure.colorbar(shown, ax=axes[1, :].tolist(), location="right", shrink=0.8, label="change of L")
    figure.shows_photographs = True  # type: ignore[attr-defined]
    told = "; ".join(f"{name} changes L by up to {float(each.abs().max()):.1f}" for name, each in changes.items())
    text = f"One photograph in {len(pictures)} versions: {', '.join(pictures)}. {outside.float().mean():.0%} of the colors are outside."
    return described(figure, f"{text} {told}.")


def bins_map(rules: Mapping[str, NDArray[Any]]) -> Figure:
    """Draw sets of bin centers `(Q, 2)` in the ab plane, each with its own mark; the first one as squares in its colors."""
    (first, base), *others = rules.items()
    with styled():
        figure, axes = plt.subplots(figsize=(7.2, 7.2), layout="constrained")
        for center in base:
            axes.add_patch(Rectangle((center[0] - 5, center[1] - 5), 10, 10, facecolor=_color(*center), edgecolor="white", linewidth=0.6))
        drawn = {tuple(center) for center in base.tolist()}
        handles: list[Any] = [Rectangle((0, 0), 1, 1, facecolor="0.6", edgecolor="white")]
        names = [f"{first}: {len(base)}"]
        for (name, centers), marker in zip(others, "ox+s^"):
            new = np.array([center for center in centers.tolist() if tuple(center) not in drawn]).reshape(-1, 2)
            drawn |= {tuple(center) for center in centers.tolist()}
            face: dict[str, Any] = {"facecolor": "none", "edgecolor": "black"} if marker in "os^" else {"color": "black"}
            handles.append(axes.scatter(new[:, 0], new[:, 1], marker=marker, s=46, linewidth=1.3, **face))
            names.append(f"{name}: {len(centers)} (marked: the {len(new)} not above)")
        axes.legend(handles, names, loc="upper center", bbox_to_anchor=(0.5, -0.09), frameon=False)
        _ab_axes(axes, REACH)
    told = "; ".join(f"{name}, {len(centers)} bins" for name, centers in rules.items())
    text = f"The ab plane with the bins of each rule: {told}. The first fill a four-cornered region, the others lie along its edge."
    return described(figure, text)


def priors(bins: Bins, shares: Mapping[str, Tensor]) -> Figure:
    """Draw, for each set of pictures, every bin as a square in its color whose area is the share of the pixels `(Q,)` in it."""
    told = []
    with styled():
        figure, axes = plt.subplots(1, len(shares), figsize=(8, 4.7), layout="constrained", squeeze=False)
        for place, (name, share) in zip(axes[0], shares.items()):
            largest = float(share.max())
            for index in share.argsort(descending=True).tolist():
                (a, b), p = bins.centers[index].tolist(), float(share[index])
                side = 14 * (p / largest) ** 0.5
                if p > 0:
                    place.add_patch(
                        Rectangle((a - side / 2, b - side / 2), side, side, facecolor=_color(a, b), edgecolor="black", linewidth=0.5)
                    )
            _ab_axes(place, 80)
            place.set(xticks=range(-80, 81, 40), yticks=range(-80, 81, 40))
            place.set_title(f"{name}:\nlargest share {largest:.0%}")
            first = share.argsort(descending=True)[:3].tolist()
            tops = ", ".join(f"({bins.centers[i, 0]:.0f}, {bins.centers[i, 1]:.0f}) with {float(share[i]):.0%}" for i in first)
            told.append(f"{name} use {int((share > 0).sum())} of {bins.count} bins, most often {tops}")
    return described(figure, f"Shares of the color bins as squares in the ab plane. {'; '.join(told)}.")


def weights(prior: Tensor, choices: Mapping[str, Tensor]) -> Figure:
    """Draw weights over the share of the bin, both `(Q,)`, each scaled to a mean of one over the pixels; both axes logarithmic."""
    order = prior.argsort()
    told = []
    with styled():
        figure, axes = plt.subplots(figsize=(7.2, 4.6), layout="constrained")
        for (name, weight), marker, color, up in zip(choices.items(), "o^s", PALETTE, (8, -48, 8)):
            scaled = (weight / (prior * weight).sum())[order]
            axes.plot(prior[order], scaled, marker, color=color, markersize=5, label=name, alpha=0.8)
            end = float(scaled.max())
            axes.annotate(f"{name}, up to {end:.3g}", (float(prior.min()), end), (14, up), textcoords="offset points", color=color)
            told.append(f"{name} from {float(scaled.min()):.2g} to {end:.3g}, a ratio of {end / float(scaled.min()):.3g}")
        axes.axhline(1, color="0.6", linewidth=1, linestyle="--")
        axes.set(xscale="log", yscale="log", xlabel="share of the pixels p in the bin", ylabel="weight, mean 1 over pixels")
        axes.margins(y=0.14)
    return described(figure, f"Weight over the share of a color bin, both scales logarithmic: {'; '.join(told)}.")


def gamut_slice(lightness: float, size: int = 300) -> NDArray[np.uint8]:
    """Return a picture uint8 `(size, size, 3)` of the ab plane at one lightness: the colors that a screen can show, and gray outside."""
    colors, shown = _slice(lightness)
    colors[~shown] = OUTSIDE
    with plt.rc_context(STYLE | {"font.size": 9, "axes.titlesize": 9}):
        figure = Figure(figsize=(size / 100, size / 100), dpi=100)
        canvas = FigureCanvasAgg(figure)
        # Every square of the slice is a whole number of pixels.
        side = (size - 56) // len(colors) * len(colors)
        axes = figure.add_axes((50 / size, 38 / size, side / size, side / size))
        axes.imshow(colors[::-1], extent=(-REACH, REACH, -REACH, REACH), interpolation="nearest")
        axes.set_xticks([-100, -50, 0, 50, 100])
        axes.set_yticks([-100, -50, 0, 50, 100])
        axes.set_xlabel("a", labelpad=0)
        axes.set_ylabel("b", labelpad=-4, rotation=0)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.axvline(0, color="black", linewidth=0.6)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def slice_text(lightness: float) -> str:
    """Return in words what `gamut_slice` shows: how far a and b reach, and how large the slice is."""
    _, shown = _slice(lightness)
    if shown.sum() <= 4:
        return "Nothing but a point: " + ("black." if lightness < 50 else "white.")
    axis = np.arange(-REACH + CELL / 2, REACH, CELL)
    a, b = axis[shown.any(axis=0)], axis[shown.any(axis=1)]
    rows, columns = np.nonzero(shown)
    far = int(np.hypot(axis[rows], axis[columns]).argmax())
    corner = color_name(axis[columns[far]], axis[rows[far]])
    return (
        f"a from {a[0]:.0f} to {a[-1]:.0f}, b from {b[0]:.0f} to {b[-1]:.0f}, "
        f"area {int(shown.sum()) * CELL**2} square units; it reaches furthest in {corner}."
    )


def _slice(lightness: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return sRGB `(N, N, 3)` of the squares of the ab plane, b upward by rows, and which of them a screen can show."""
    axis = torch.arange(-REACH + CELL / 2, REACH, CELL)
    b, a = torch.meshgrid(axis, axis, indexing="ij")
    lab = torch.stack([torch.full_like(a, lightness), a, b])
    return to_uint8(lab_to_rgb(lab)).movedim(0, -1).numpy(), in_gamut(lab, tolerance=1 / 510).numpy()


def _patches(axes: Axes, colors: Sequence[Sequence[float]], labels: Sequence[str]) -> None:
    """Draw Lab colors side by side, each under its label."""
    lab = torch.tensor([list(color) for color in colors]).T[None, :, None]
    axes.imshow(join(lab[:, :1] / L_SCALE - 1, lab[:, 1:] / AB_SCALE)[0].numpy(), aspect="auto")
    axes.set_xticks(range(len(colors)), labels)
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.spines[:].set(visible=True, color="0.75")  # white patches need an edge


def _gray(lightness: Tensor) -> NDArray[np.uint8]:
    gray = lightness[None, None] / L_SCALE - 1
    return join(gray, torch.zeros(1, 2, *lightness.shape))[0].numpy()


def _color(a: float, b: float) -> tuple[float, ...]:
    """Return the sRGB color, 0 to 1, of a point of the ab plane at a lightness of `MIDDLE`, or as near as a screen can come."""
    pixel = join(torch.full((1, 1, 1, 1), MIDDLE / L_SCALE - 1), torch.tensor([a, b]).view(1, 2, 1, 1) / AB_SCALE)
    return tuple((pixel.flatten() / 255).tolist())


def _named(color: Sequence[float]) -> str:
    shade = "dark " if color[0] < 35 else "light " if color[0] > 85 else ""
    return shade + color_name(color[1], color[2])


def _ab_axes(axes: Axes, reach: int) -> None:
    axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    axes.axvline(0, color="0.7", linewidth=0.8, zorder=0)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="a  (green - to red +)", ylabel="b  (blue - to yellow +)")
