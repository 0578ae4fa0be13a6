"""The figures of chapter 13: metrics that can be cheated, the known truth of portraits, intervals, proxies and ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from . import PALETTE, described, grid, styled

Picture = NDArray[np.uint8]
MARKS = ("o", "s", "D", "^", "v", "P")
LINES = ("-", "--", ":", "-.")


def assembled(pictures: Sequence[Picture], labels: Sequence[str], per_image: Sequence[float]) -> Figure:
    """Draw one portrait: the truth, answers of a colorizer, and the picture that per-pixel scoring puts together from them.

    Args:
        pictures: uint8 `(H, W, 3)` each.
        labels: what each picture is.
        per_image: error of each picture as a whole, ab/128; that of the truth is 0.
    """
    told = [f"{label}\nerror {error:.3f}" for label, error in zip(labels, per_image)]
    figure = grid(pictures, told, columns=len(pictures))
    figure.shows_photographs = True  # type: ignore[attr-defined]  # noise takes much room as PNG
    named = "; ".join(f"{label.replace(chr(10), ' ')}, error {error:.3f}" for label, error in zip(labels, per_image))
    return described(figure, f"One drawn portrait {len(pictures)} times, each with its error as a whole picture: {named}.")


def never_looks(pictures: Sequence[Picture], labels: Sequence[str], best: int) -> Figure:
    """Draw one portrait in its true colors, under fields that are the same for every portrait, and by the model.

    Args:
        pictures: uint8 `(H, W, 3)` each.
        labels: what each picture is.
        best: which of the pictures is the field with the smallest error.
    """
    marked = [f"{label}\n(best of the eight)" if index == best else label for index, label in enumerate(labels)]
    figure = grid(pictures, marked, columns=5)
    figure.shows_photographs = True  # type: ignore[attr-defined]  # soft colors take much room as PNG
    told = ", ".join(label.replace("\n", " ") for label in labels)
    return described(
        figure,
        f"One drawn portrait {len(pictures)} times: {told}. The fixed fields lie like a mist of other portraits' shapes over the drawing "
        f"and do not follow its edges; the closest of them is {labels[best]}.",
    )


def more_answers(counts: Sequence[int], curves: Mapping[str, Sequence[float]], level: tuple[str, float]) -> Figure:
    """Draw error against the number of answers, both on logarithmic axes.

    Args:
        counts: K, rising.
        curves: name to the error at each K.
        level: name and height of a line for comparison.
    """
    with styled():
        figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
        for number, (name, values) in enumerate(curves.items()):
            axes.loglog(counts, values, marker=MARKS[number], ls=LINES[number], label=name)
            axes.annotate(f"{values[-1]:.3f}", (counts[-1], values[-1]), (8, 0), textcoords="offset points", va="center")
        axes.axhline(level[1], color="#444444", ls=(0, (1, 1)), lw=1.4)
        axes.text(counts[0], level[1] * 1.04, f"{level[0]}: {level[1]:.3f}", va="bottom")
        axes.set(xlabel="number of answers K", ylabel="error (ab/128)", xticks=list(counts), xticklabels=[str(k) for k in counts])
        axes.minorticks_off()
        axes.set_yticks([y for y in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if _inside(y, curves, level)])
        axes.set_yticklabels([f"{y:g}" for y in axes.get_yticks()])
        axes.legend(loc="lower left", frameon=False)
    told = "; ".join(f"{name}: {values[0]:.3f} with {counts[0]}, {values[-1]:.3f} with {counts[-1]}" for name, values in curves.items())
    below = [name for name, values in curves.items() if values[-1] < level[1]]
    ends = f"{' and '.join(below)} ends below it" if below else "no curve gets below it"
    return described(figure, f"Error against the number of answers. {told}. A line marks {level[0]} at {level[1]:.3f}; {ends}.")


def _inside(y: float, curves: Mapping[str, Sequence[float]], level: tuple[str, float]) -> bool:
    every = [*(value for values in curves.values() for value in values), level[1]]
    return min(every) * 0.9 <= y <= max(every) * 1.1


def anchor_rows(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the error of the first and of the best of eight for every row of a table, with the intervals of the latter.

    Args:
        rows: each with `name`, `eob@1`, `eob@8` and `interval`, as `metrics.evaluate` returns them.
    """
    with styled():
        figure, axes = plt.subplots(figsize=(8, 0.5 * len(rows) + 1.2), layout="constrained")
        places = np.arange(len(rows))[::-1]
        first, best = ([float(row[key]) for row in rows] for key in ("eob@1", "eob@8"))
        for place, a, b in zip(places, first, best):
            axes.plot([a, b], [place, place], color="#bbbbbb", lw=1.2, zorder=1)
        axes.plot(first, places, "o", mfc="white", mec=PALETTE[1], mew=1.6, ms=8, label="the heaviest answer")
        bounds = np.array([row["interval"]["eob@8"] for row in rows])
        spread = np.abs(bounds.T - np.array(best))
        axes.errorbar(best, places, xerr=spread, fmt="D", color=PALETTE[0], ms=6, capsize=3, label="best of eight, with 95 % interval")
        for place, value in zip(places, best):
            axes.annotate(f"{value:.3f}", (value, place), (0, 7), textcoords="offset points", ha="center", fontsize=9)
        axes.set(yticks=places, yticklabels=[str(row["name"]) for row in rows], xlabel="error (ab/128), smaller is closer")
        axes.set_xlim(left=0)
        axes.set_ylim(-0.6, len(rows) - 0.3)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)
    order = sorted(rows, key=lambda row: float(row["eob@8"]))
    told = "; ".join(f"{row['name']} {row['eob@8']:.3f} (heaviest alone {row['eob@1']:.3f})" for row in order)
    return described(figure, f"Error of the best of eight answers, in rising order: {told}.")


def against_truth(
    pictures: Sequence[Picture], weights: Sequence[float], hit: Sequence[int | None], names: Sequence[str], p: Tensor, q: Tensor
) -> Figure:
    """Draw the colorizations of one portrait with the mode that each hits, and below the true probabilities beside the model's.

    Args:
        pictures: uint8 `(H, W, 3)`, K of them.
        weights: of each.
        hit: the mode that each hits, counted from 0, or None.
        names: what each mode looks like, M of them.
        p: true probabilities `(M,)`.
        q: weight of the colorizations that hit each mode `(M,)`.
    """
    letters = [chr(ord("A") + mode) for mode in range(len(names))]
    with styled():
        figure = plt.figure(figsize=(8.6, 4.9), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1.9])
        top, bottom = parts
        places: Any = top.subplots(1, len(pictures))
        for axes, picture, weight, mode in zip(places, pictures, weights, hit):
            axes.imshow(picture, interpolation="nearest")
            axes.axis("off")
            axes.set_title(f"{weight:.2f}\n{'no hit' if mode is None else 'hits ' + letters[mode]}", fontsize=10)
        axes = bottom.subplots()
        middle = np.arange(len(names))
        for shift, values, label, hatch, color in ((-0.2, p, "true p", "", PALETTE[0]), (0.2, q, "model q", "//", PALETTE[4])):
            bars = axes.bar(middle + shift, values.tolist(), 0.38, label=label, color=color, hatch=hatch, edgecolor="white")
            axes.bar_label(bars, fmt="%.2f", fontsize=10)
        lines = [f"{letter}: " + name.replace(", ", "\n") for letter, name in zip(letters, names)]
        axes.set(xticks=middle, xticklabels=lines, ylabel="probability")
        axes.margins(y=0.15)
        axes.legend(frameon=False, loc="upper right")
    figure.shows_photographs = True  # type: ignore[attr-defined]  # grainy pictures take much room as PNG
    told = "; ".join(f"{letter}, {name}: true {a:.2f}, model {b:.2f}" for letter, name, a, b in zip(letters, names, p.tolist(), q.tolist()))
    which = ", ".join(f"{weight:.2f} {'no hit' if mode is None else 'hits ' + letters[mode]}" for weight, mode in zip(weights, hit))
    return described(figure, f"{len(pictures)} colorizations of one portrait by weight: {which}. Below, the modes: {told}.")


def fooled(curves: Mapping[str, tuple[Tensor, Tensor, Tensor]], scores: Mapping[str, tuple[float, float]]) -> Figure:
    """Draw, for several predictors, what was said against what happened, and beside it calibration error against total variation.

    Args:
        curves: name to what `metrics.reliability` returns.
        scores: name to (expected calibration error, total variation).
    """
    with styled():
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
        left.plot([0, 1], [0, 1], color="#999999", lw=1, zorder=1)
        for number, (name, (said, happened, count)) in enumerate(curves.items()):
            full = count > 0
            sizes = 25 + 175 * (count[full] / count.sum()).sqrt()
            left.plot(said[full], happened[full], ls=LINES[number % 4], lw=1, color=PALETTE[number])
            left.scatter(said[full], happened[full], s=sizes.tolist(), marker=MARKS[number], color=PALETTE[number], label=name, alpha=0.8)
        left.set(xlabel="weight that was said", ylabel="share that came true", title="each answer alone (ECE)", aspect="equal")
        left.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05))
        left.legend(frameon=False, fontsize=9, markerscale=0.7, loc="upper left")
        places = np.arange(len(scores))[::-1]
        for shift, which, label, hatch, color in ((0.2, 0, "ECE", "", PALETTE[5]), (-0.2, 1, "TV", "//", PALETTE[1])):
            values = [pair[which] for pair in scores.values()]
            bars = right.barh(places + shift, values, 0.38, label=label, color=color, hatch=hatch, edgecolor="white")
            right.bar_label(bars, fmt="%.2f", padding=3, fontsize=10)
        right.set(yticks=places, yticklabels=[name.replace(" ", "\n", 1) for name in scores], xlim=(0, 1.15), title="two scores for each")
        right.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.02))
    told = "; ".join(f"{name}: ECE {ece:.3f}, total variation {tv:.3f}" for name, (ece, tv) in scores.items())
    least, most = (pick(scores, key=lambda name: scores[name][1]) for pick in (min, max))
    return described(figure, f"Two scores of calibration for {len(scores)} predictors. {told}. By TV {least} is best and {most} worst.")


def coverage(intervals: Mapping[str, Sequence[tuple[float, float]]], truth: float, shares: Mapping[str, float]) -> Figure:
    """Draw the intervals of many repeated test sets, by two ways to make them, and mark those that miss the truth.

    Args:
        intervals: name of the way to (low, high) for each test set; the same test sets in each.
        truth: what the intervals should cover.
        shares: name to the share of all test sets, also those not drawn, whose interval covers the truth.
    """
    with styled():
        figure, panels = plt.subplots(1, len(intervals), figsize=(9, 4.4), sharex=True, sharey=True, layout="constrained")
        for axes, (name, bounds) in zip(panels, intervals.items()):
            for row, (low, high) in enumerate(bounds):
                missed = not low <= truth <= high
                axes.plot([low, high], [row, row], color=PALETTE[1] if missed else PALETTE[0], lw=3 if missed else 1.3)
                if missed:
                    axes.plot(high if high < truth else low, row, "x", color=PALETTE[1], ms=9, mew=2)
            axes.axvline(truth, color="#444444", ls="--", lw=1)
            axes.set(title=f"{name}: {shares[name]:.0%} cover the truth", xlabel="mean error of a test set (ab/128)")
        panels[0].set(ylabel="repeated test sets", yticks=[])
        panels[0].xaxis.set_major_locator(MaxNLocator(5))
    told = "; ".join(
        f"{name}: mean width {np.mean([high - low for low, high in bounds]):.4f}, {shares[name]:.0%} of all cover the truth"
        for name, bounds in intervals.items()
    )
    return described(
        figure, f"95 % intervals of {len(next(iter(intervals.values())))} repeated test sets, as lines around {truth}. {told}."
    )


def by_proxy(proxies: Mapping[str, Mapping[str, Any]], names: Mapping[str, Sequence[str]], lines: Mapping[str, str]) -> Figure:
    """Draw the error in each band of each proxy, with intervals over persons.

    Args:
        proxies: as `evaluate --record` writes them: for each proxy `bands`, in rising order.
        names: what to call each band of each proxy.
        lines: the figures to draw, such as `model eob@8`, and what to call each.
    """
    with styled():
        figure, panels = plt.subplots(1, len(proxies), figsize=(9, 4.2), sharey=True, layout="constrained")
        for axes, (proxy, facts) in zip(panels, proxies.items()):
            bands = facts["bands"]
            middle = np.arange(len(bands))
            for number, (key, label) in enumerate(lines.items()):
                values = np.array([band[key] for band in bands])
                bounds = np.array([band["interval"][key] or (band[key], band[key]) for band in bands])
                shift = 0.14 * (number - (len(lines) - 1) / 2)
                spread = np.abs(bounds.T - values)
                axes.errorbar(
                    middle + shift, values, yerr=spread, fmt=MARKS[number], ls=LINES[number], capsize=3, color=PALETTE[number], label=label
                )
            told = [f"{name}\n{band['images']} images\n{band['people']} people" for name, band in zip(names[proxy], bands)]
            axes.set(xticks=middle, xticklabels=told, title=proxy, xlim=(-0.5, len(bands) - 0.5))
            axes.tick_params(axis="x", labelsize=9)
        panels[0].set(ylabel="error (ab/128)")
        panels[0].set_ylim(bottom=0)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(lines), frameon=False)
    words = []
    for proxy, facts in proxies.items():
        parts = []
        for name, band in zip(names[proxy], facts["bands"]):
            errors = ", ".join(f"{label} {band[key]:.3f}" for key, label in lines.items())
            parts.append(f"{name} ({band['images']} images of {band['people']} people) {errors}")
        words.append(f"{proxy}: {'; '.join(parts)}")
    return described(figure, f"Error in three bands of each proxy. {'. '.join(words)}.")


COLUMNS = {"eob@8": "error, best of 8", "recall": "recall", "precision": "precision", "calibration": "calibration (TV)"}
UPWARD = ("recall", "precision")


def ablations(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw each figure of each row of the ablation table; a band marks the range of the base row's seeds.

    A row that lies outside this band on the worse side, by more than the width of the band, is a triangle.

    Args:
        rows: each with `group`, `name`, `seed` and the figures in `COLUMNS`, some of which may be None.
    """
    base = [row for row in rows if row["group"] == "base"]
    others = [row for row in rows if row["group"] != "base"]
    labels = ["base, seed " + ", ".join(str(row["seed"]) for row in base), *(f"{row['group']}: {row['name']}" for row in others)]
    lines = [base, *([row] for row in others)]
    with styled():
        figure, panels = plt.subplots(1, len(COLUMNS), figsize=(9, 0.26 * len(lines) + 1.1), sharey=True, layout="constrained")
        places = np.arange(len(lines))[::-1]
        for axes, (key, title) in zip(panels, COLUMNS.items()):
            known = [float(row[key]) for row in base if row.get(key) is not None]
            if known:
                axes.axvspan(min(known), max(known), color="#d7e6f2", zorder=0)
            for place, members in zip(places, lines):
                values = [float(row[key]) for row in members if row.get(key) is not None]
                if not values:
                    axes.text(0.5, place, "n/a", transform=axes.get_yaxis_transform(), ha="center", va="center", fontsize=8)
                worse = bool(known) and bool(values) and _worse(key, values, known)
                axes.plot(values, [place] * len(values), "v" if worse else "o", color=PALETTE[1] if worse else PALETTE[0], ms=5)
            axes.set_title(title + ("\n(more is better)" if key in UPWARD else "\n(less is better)"), fontsize=10)
            axes.set_xlim(left=-0.04 * axes.get_xlim()[1])
            axes.tick_params(axis="x", labelsize=9)
            axes.grid(axis="y", color="#eeeeee", zorder=0)
        for before, place, row in zip([None, *others], places[1:], others):
            if before is None or before["group"] != row["group"]:
                for axes in panels:
                    axes.axhline(place + 0.5, color="#999999", lw=0.7)
        panels[0].set(yticks=places, yticklabels=labels, ylim=(-0.7, len(lines) - 0.3))
        panels[0].tick_params(axis="y", labelsize=9)
    told = "; ".join(
        f"{label}: "
        + ", ".join(
            f"{key} {'to '.join(sorted({f'{float(row[key]):.3f} ' for row in members if row.get(key) is not None})).strip() or 'none'}"
            for key in COLUMNS
        )
        for label, members in zip(labels, lines)
    )
    return described(figure, f"The ablation table as a figure, one row each; the base row has {len(base)} seeds. {told}.")


def _worse(key: str, values: Sequence[float], known: Sequence[float]) -> bool:
    low, high = min(known), max(known)
    return max(values) < low - (high - low) if key in UPWARD else min(values) > high + (high - low)
