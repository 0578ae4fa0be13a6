"""The figures of chapter 14: where operations go, the roof, sixteen bits, a resumed run, training as it goes, and recorded runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from ..lab import AB_SCALE, join, resize_area
from . import PALETTE, described, styled

Picture = NDArray[np.uint8]
LINES = ("-", "--", ":", "-.")
MARKS = ("o", "s", "D", "^")
PARTS = ("color encoder", "gray encoder", "decoder")
#: log2 of the smallest number that float16 does not round to zero, and of the largest that it holds.
FLOAT16 = (-25, 16)
SCORE = "eob@8"
#: Curves and photographs need no more dots an inch, and take much room.
CURVE_DPI, PHOTO_DPI = 88, 72


# --- the bill ---


def part_of(layer: str) -> str:
    """Return the part of a CVAE, of either design, that a layer belongs to, by the layer's dotted name: one of `PARTS`."""
    if layer.startswith(("painter", "dec")):
        return PARTS[2]
    return PARTS[1] if layer.startswith(("gray_encoder", "cond")) else PARTS[0]


def operations(networks: Mapping[str, Mapping[tuple[str, int], float]]) -> Figure:
    """Draw the operations of one forward pass by part and resolution, a panel for each network; what takes next to nothing is left out.

    Args:
        networks: name to operations by (part, pixels on a side); 0 pixels are layers without a map.
    """
    with styled():
        seen = {key for work in networks.values() for key, value in work.items() if value > 0.002 * sum(work.values())}
        rows = sorted(seen, key=lambda key: (PARTS.index(key[0]), -key[1]))
        figure, panels = plt.subplots(
            1, len(networks), figsize=(8.6, 0.27 * len(rows) + 1.2), dpi=CURVE_DPI, sharey=True, layout="constrained", squeeze=False
        )
        places = np.arange(len(rows))[::-1]
        for axes, (name, work) in zip(panels[0], networks.items()):
            values = np.array([work.get(key, 0.0) for key in rows])
            shares = values / sum(work.values())
            for number, part in enumerate(PARTS):
                mine = [key[0] == part for key in rows]
                bars = axes.barh(places[mine], shares[mine], color=PALETTE[number], hatch=("", "//", "..")[number], edgecolor="white")
                axes.bar_label(bars, [f"{share:.0%}" if share >= 0.005 else "" for share in shares[mine]], padding=3, fontsize=9)
            axes.set(
                title=f"{name}: {sum(work.values()) / 1e9:.2f} GFLOP forward",
                xlabel="share of the operations",
                xlim=(0, 1.18 * shares.max()),
            )
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        panels[0][0].set_yticks(places, [f"{part}, {side} × {side}" if side else f"{part}, no map" for part, side in rows])
    told = []
    for name, work in networks.items():
        total = sum(work.values())
        by_part = [f"{part} {sum(value for key, value in work.items() if key[0] == part) / total:.0%}" for part in PARTS]
        (part, side), most = max(work.items(), key=lambda item: item[1])
        told.append(
            f"{name}, {total / 1e9:.2f} GFLOP: {', '.join(by_part)}; most in the {part} at {side} by {side} pixels, {most / total:.0%}"
        )
    return described(figure, f"Operations of one forward pass by part and resolution. {'. '.join(told)}.")


def roofline(roofs: Mapping[str, tuple[float, float]], points: Mapping[str, tuple[float, float]]) -> Figure:
    """Draw the bound min(peak, intensity x bandwidth) of machines, and measured layers below it, on logarithmic axes.

    Args:
        roofs: name to operations a second and bytes a second.
        points: name to operations a byte and measured operations a second.
    """
    reach = [*(intensity for intensity, _ in points.values()), *(peak / moved for peak, moved in roofs.values())]
    line = np.geomspace(min(reach) / 3, max(reach) * 8, 200)
    with styled():
        figure, axes = plt.subplots(figsize=(7.8, 4.4), dpi=CURVE_DPI, layout="constrained")
        for number, (name, (peak, moved)) in enumerate(roofs.items()):
            axes.loglog(line, np.minimum(peak, line * moved), LINES[number], color=PALETTE[number], linewidth=2.4)
            corner = peak / moved
            axes.plot(corner, peak, "|", color=PALETTE[number], markersize=16, markeredgewidth=2)
            axes.annotate(f"{name}\ncorner at {corner:.0f}", (corner, peak), (-10, 8), textcoords="offset points", ha="right")
        for number, (name, (intensity, rate)) in enumerate(points.items()):
            axes.plot(intensity, rate, MARKS[number % 4], color=PALETTE[6], markersize=9)
            axes.annotate(name, (intensity, rate), (9, -5), textcoords="offset points", va="top")
        axes.set(xlabel="intensity: operations a byte", ylabel="operations a second")
        axes.margins(y=0.12)
    roof_told = "; ".join(f"{name}: {peak:.2g} operations a second, corner at {peak / moved:.0f}" for name, (peak, moved) in roofs.items())
    told = "; ".join(f"{name} at {intensity:.2g} operations a byte reaches {rate:.2g}" for name, (intensity, rate) in points.items())
    return described(
        figure,
        f"Roofs, operations a second against operations a byte: a slope where memory decides, then flat. {roof_told}. Points: {told}.",
    )


# --- sixteen bits and resuming ---


def sixteen_bits(sizes: Mapping[str, Tensor], lost: Mapping[str, float], paths: Mapping[str, Sequence[float]]) -> Figure:
    """Draw how large gradients are against the range of float16, and beside it a small training in each arithmetic.

    Args:
        sizes: name to log2 of the gradients' absolute values.
        lost: name to the share that float16 rounds to zero.
        paths: name to the distance from the solution at each step.
    """
    with styled():
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.6), dpi=CURVE_DPI, width_ratios=[1.35, 1], layout="constrained")
        edges = np.arange(-50, 21)
        left.axvspan(edges[0], FLOAT16[0], color="#dddddd", zorder=0)
        left.axvline(FLOAT16[1], color="#888888", lw=1)
        for number, (name, each) in enumerate(sizes.items()):
            heights, _ = np.histogram(each.numpy(), edges)
            label = f"{name}:\n{lost[name]:.1%} lost"
            left.step(edges[:-1], heights / max(1, len(each)), LINES[number], where="post", color=PALETTE[number], lw=2, label=label)
        left.text(FLOAT16[0] - 0.7, left.get_ylim()[1] * 0.98, "zero in float16", ha="right", va="top")
        left.text(FLOAT16[1] + 0.4, left.get_ylim()[1] * 0.98, "infinite", ha="left", va="top", rotation=90)
        left.set(xlabel="log2 of a gradient's size", ylabel="share of the gradients", xlim=(edges[0], edges[-1]))
        left.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=9, ncols=2)
        for number, (name, path) in enumerate(paths.items()):
            right.semilogy(range(1, len(path) + 1), np.maximum(path, 1e-9), LINES[number], color=PALETTE[number], lw=2.4, label=name)
        right.set(xlabel="step", title="the toy: distance from the solution")
        right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=9)
    told = "; ".join(f"{name}: median 2 to the {float(each.median()):.0f}, {lost[name]:.1%} lost" for name, each in sizes.items())
    ends = "; ".join(f"{name}: {path[-1]:.1e}" for name, path in paths.items())
    return described(
        figure,
        f"Left, sizes of gradients, with the range that float16 rounds to zero in gray. {told}. Right, distances at the end: {ends}.",
    )


def resumed(whole: Sequence[float], parts: Mapping[str, Sequence[float]], cut: int) -> Figure:
    """Draw the loss of an uninterrupted run, and of runs that stopped at step `cut` and went on with more or less of their state.

    Args:
        whole: the loss at each step.
        parts: name to the losses after the cut.
        cut: the number of steps before it.
    """
    shown = range(max(0, cut - 60), len(whole))
    with styled():
        figure, panels = plt.subplots(1, len(parts), figsize=(9, 3.6), dpi=CURVE_DPI, sharey=True, layout="constrained", squeeze=False)
        for number, (axes, (name, losses)) in enumerate(zip(panels[0], parts.items())):
            axes.plot(shown, whole[shown.start :], color="#999999", lw=4, label="uninterrupted")
            axes.plot(range(cut, cut + len(losses)), losses, color=PALETTE[number], lw=1.6, label="resumed")
            axes.axvline(cut, color="#444444", ls=":", lw=1)
            axes.set(title=name, xlabel="step")
        panels[0][0].set_ylabel("loss on all data")
        panels[0][-1].legend(frameon=False, loc="upper right")
    told = []
    for name, losses in parts.items():
        apart = max(abs(a / b - 1) for a, b in zip(losses, whole[cut:]))
        told.append(f"{name}: " + ("no difference at any step" if apart == 0 else f"up to {apart:.0%} off, largest loss {max(losses):.3g}"))
    return described(figure, f"The loss of a run that stopped at step {cut} and went on, over the uninterrupted one. {'; '.join(told)}.")


# --- training and what came of it ---


def live(gray: Tensor, snapshots: Mapping[int, Tensor], truth: Tensor, curves: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Draw pictures of held-out images as training went on, the truth beside them, and the loss of every stage below.

    Args:
        gray: `(K, 1, S, S)`.
        snapshots: step to color fields `(K, 2, S, S)`, decoded from the images' own codes.
        truth: `(K, 2, S, S)`.
        curves: stage to (step, loss) pairs.
    """
    columns = {"gray": 0 * truth, **{f"step {step}": field for step, field in snapshots.items()}, "truth": truth}
    with styled():
        height = 8.0 / (len(columns) + 0.2) * len(gray)
        figure = plt.figure(figsize=(8, height + 2.6), dpi=PHOTO_DPI, layout="constrained")
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[height, 2.6])[:, 0]
        places = upper.subplots(len(gray), len(columns), squeeze=False)
        for column, (name, fields) in zip(places.T, columns.items()):
            column[0].set_title(name, fontsize=14)
            for axes, picture in zip(column, join(gray, fields).numpy()):
                axes.imshow(picture, interpolation="nearest")
                axes.axis("off")
        for number, (axes, (name, pairs)) in enumerate(zip(lower.subplots(1, len(curves), squeeze=False)[0], curves.items())):
            axes.plot(*zip(*pairs), marker="." if len(pairs) < 30 else None, color=PALETTE[number])
            axes.set(title=name, xlabel="step")
            axes.title.set_fontsize(13)
        lower.supylabel("loss")
    figure.shows_photographs = True  # type: ignore[attr-defined]  # as JPEG: many small pictures
    chroma = "; ".join(f"{name}: {_chroma(fields):.1f}" for name, fields in columns.items())
    told = "; ".join(f"{name}, from {pairs[0][1]:.1f} to {pairs[-1][1]:.1f}" for name, pairs in curves.items())
    return described(figure, f"{len(gray)} held-out images in training. Mean chroma in Lab units: {chroma}. Loss of each stage: {told}.")


def eight(gray: Tensor, rows: Mapping[str, Tensor], truth: Tensor) -> Figure:
    """Draw the colorizations of one image, heaviest first, after its gray picture and the truth; a line for each model.

    Args:
        gray: `(1, 1, S, S)`.
        rows: name to color fields `(n, 2, S, S)`.
        truth: `(2, S, S)`.
    """
    count = 2 + max(len(fields) for fields in rows.values())
    with styled():
        figure, places = plt.subplots(
            2 * len(rows), count // 2, figsize=(8.6, 3.9 * len(rows)), dpi=PHOTO_DPI, layout="constrained", squeeze=False
        )
        for line, (name, fields) in enumerate(rows.items()):
            every = [0 * truth, truth, *fields]
            titles = ["gray", "truth", *(str(number) for number in range(1, len(fields) + 1))]
            for axes, field, title in zip(places[2 * line : 2 * line + 2].flat, every, titles):
                axes.imshow(join(gray, field[None])[0].numpy(), interpolation="nearest")
                axes.set_title(title, fontsize=13)
            places[2 * line, 0].set_ylabel(name)
        for axes in places.flat:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    figure.shows_photographs = True  # type: ignore[attr-defined]  # as JPEG: many small pictures
    told = "; ".join(f"{name}: mean chroma {_chroma(fields):.1f}, they differ by {_apart(fields):.1f}" for name, fields in rows.items())
    return described(figure, f"One image in gray, in its true colors, and in {count - 2} colorizations by weight, in Lab units. {told}.")


def strip(pictures: Sequence[Picture], side: int) -> Picture:
    """Return pictures side by side, each reduced to a height of `side` pixels, as one uint8 array `(side, W, 3)`."""
    return np.concatenate([resize_area(each, (side, round(side * each.shape[1] / each.shape[0]))) for each in pictures], axis=1)


def strips(rows: Mapping[str, Picture]) -> Figure:
    """Draw strips of pictures below each other, each under its name, in two lines if it is long.

    Args:
        rows: name to uint8 `(H, W, 3)`, pictures side by side, each about as wide as high.
    """
    folded = {name: _folded(row) for name, row in rows.items()}
    with styled():
        heights = [8.8 * row.shape[0] / row.shape[1] + 0.35 for row in folded.values()]
        figure, places = plt.subplots(
            len(folded), 1, figsize=(8.8, sum(heights)), dpi=PHOTO_DPI, height_ratios=heights, layout="constrained", squeeze=False
        )
        for axes, (name, row) in zip(places[:, 0], folded.items()):
            axes.imshow(row)
            axes.set_title(name, fontsize=14, loc="left")
            axes.axis("off")
    figure.shows_photographs = True  # type: ignore[attr-defined]
    told = "; ".join(f"{name}, {round(row.shape[1] / row.shape[0])} pictures, {_tint(row)}" for name, row in rows.items())
    return described(figure, f"Strips of pictures side by side: {told}.")


def recorded_curves(panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]) -> Figure:
    """Draw scores on validation images against the step, a panel for each score, a line for each run.

    Args:
        panels: score to run to (steps, values).
    """
    with styled():
        figure, places = plt.subplots(1, len(panels), figsize=(9, 3.8), dpi=CURVE_DPI, layout="constrained", squeeze=False)
        for axes, (score, runs) in zip(places[0], panels.items()):
            for number, (name, (steps, values)) in enumerate(runs.items()):
                axes.plot(steps, values, LINES[number], marker=MARKS[number], markersize=4, color=PALETTE[number], lw=2, label=name)
                axes.annotate(f"{values[-1]:.1f}", (steps[-1], values[-1]), (6, 0), textcoords="offset points", va="center")
            axes.set(title=score, xlabel="step of the CVAE", ylim=(0, None))
            axes.margins(x=0.12)
        figure.legend(*places[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    told = "; ".join(
        f"{score}, {name}: from {values[0]:.1f} to {values[-1]:.1f} at step {steps[-1]:.0f}"
        for score, runs in panels.items()
        for name, (steps, values) in runs.items()
    )
    return described(figure, f"Recorded validation curves. {told}.")


def what_mattered(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw how much error of best-of-8 each change of an ablation adds or saves, with the range of the base rows as a band.

    Args:
        rows: each with `group`, `name` and `eob@8`; those of the group `base` differ in their seed alone. Rows of the group `rivals`
            are other methods and are left out.
    """
    base = np.array([row[SCORE] for row in rows if row["group"] == "base"])
    changed = sorted((row for row in rows if row["group"] not in ("base", "rivals")), key=lambda row: float(row[SCORE]))
    values = np.array([row[SCORE] for row in changed]) / base.mean() - 1
    band = base / base.mean() - 1
    with styled():
        figure, axes = plt.subplots(figsize=(8.2, 0.3 * len(changed) + 1.3), dpi=CURVE_DPI, layout="constrained")
        axes.axvspan(band.min(), band.max(), color="#dddddd", zorder=0)
        axes.axvline(0, color="#888888", lw=1)
        places = np.arange(len(changed))[::-1]
        worse, better = values > band.max(), values < band.min()
        axes.hlines(places, 0, values, color="#bbbbbb", lw=1.2)
        axes.plot(values[worse], places[worse], "^", color=PALETTE[1], ms=8)
        axes.plot(values[better], places[better], "v", color=PALETTE[2], ms=8)
        alike = ~(worse | better)
        axes.plot(values[alike], places[alike], "o", color=PALETTE[0], ms=7)
        for place, value in zip(places, values):
            axes.annotate(f"{value:+.1%}", (value, place), (9 if value >= 0 else -9, 0), textcoords="offset points", va="center",
                          ha="left" if value >= 0 else "right", fontsize=9)  # fmt: skip
        axes.set_yticks(places, [str(row["name"]) for row in changed])
        axes.set(xlabel="change of the error of best of eight (band: base rows, other seeds)")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
        axes.margins(x=0.14)
    told = "; ".join(f"{row['name']} {value:+.1%}" for row, value in zip(changed, values))
    return described(
        figure, f"Change of the error of best of eight against the base, which moves by {np.ptp(band):.1%} with the seed: {told}."
    )


def _chroma(fields: Tensor) -> float:
    return float(fields.norm(dim=-3).mean() * AB_SCALE)


def _apart(fields: Tensor) -> float:
    """Mean distance of the fields from their mean, Lab units."""
    return float((fields - fields.mean(0)).norm(dim=1).mean() * AB_SCALE)


def _folded(row: Picture, longest: int = 6) -> Picture:
    """Break a strip of more than `longest` pictures into two lines of equal length."""
    height, width = row.shape[:2]
    count = round(width / height)
    if count <= longest:
        return row
    half = -(-count // 2) * (width // count)
    second = np.full((height, half, 3), 255, dtype=np.uint8)
    rest = row[:, half : 2 * half]
    second[:, : rest.shape[1]] = rest
    return np.concatenate([row[:, :half], second])


def _tint(row: Picture) -> str:
    red, green, blue = (float(channel) for channel in row.reshape(-1, 3).mean(0))
    return f"mean color {red:.0f}, {green:.0f}, {blue:.0f}"
