"""The figures of chapter 8: what a data set holds, what a proxy measures, where a loader spends its time, and what a split leaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ..bins import Bins
from ..data import FACE_BOX
from . import PALETTE, described, grid, styled

DARK, LIGHT = "#333333", "#cccccc"
LINES = ("-", "--", ":")
MARKERS = ("o", "s", "^")
HATCHES = ("", "///", "...", "xx", "\\\\", "--", "oo")
#: Units of a data set's size: name, bytes.
UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("bytes", 1.0))


def data_statement(statements: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw what `data.statement` says of one or more sets: photographs for each person, and the spread of L and of ITA.

    Args:
        statements: by the name of the set.
    """
    told = []
    with styled():
        figure, (people, light, angle) = plt.subplots(3, 1, figsize=(7.2, 8.4), layout="constrained")
        for number, (name, facts) in enumerate(statements.items()):
            style = {"color": PALETTE[number], "marker": MARKERS[number], "ls": "none", "ms": 7, "mfc": "white" if number else PALETTE[0]}
            counts = {int(count): many for count, many in facts["images of a person"].items()}
            people.plot(list(counts), list(counts.values()), label=name, **style)
            for axes, key in ((light, "L"), (angle, "ITA")):
                shares = np.array(facts[key]["counts"]) / facts["images"]
                axes.stairs(
                    shares,
                    facts[key]["edges"],
                    color=PALETTE[number],
                    lw=2.5,
                    ls=LINES[number],
                    fill=number == 0,
                    alpha=1 if number else 0.35,
                )
                middle = facts[key]["quantiles"][2]
                axes.axvline(middle, color=PALETTE[number], lw=2, ls=LINES[number])
            most, quantiles = max(counts), facts["ITA"]["quantiles"]
            told.append(
                f"{name}: {counts.get(1, 0)} of {facts['people']} people have one photograph, the most that one has is {most}; "
                f"median L {facts['L']['quantiles'][2]:.0f}, median ITA {quantiles[2]:.0f} degrees, half of all between {quantiles[1]:.0f} "
                f"and {quantiles[3]:.0f}"
            )
        people.set(xscale="log", yscale="log", xlabel="photographs of a person", ylabel="people")
        people.legend(frameon=False, fontsize=12)
        light.set(xlabel="median L of the middle of a photograph", ylabel="share", xlim=(10, 95))
        angle.set(xlabel="individual typology angle (ITA), degrees", ylabel="share", xlim=(-90, 90))
        angle.set_xticks(range(-90, 91, 30))
    return described(
        figure,
        "Three charts, one below the other: how many people have how many photographs, on logarithmic axes; histograms of the median L and "
        f"of the ITA of the middle of the photographs, with a line at the median. {'. '.join(told)}.",
    )


def boxes(pictures: Sequence[NDArray[np.uint8]], names: Sequence[str], light: Sequence[float], angle: Sequence[float]) -> Figure:
    """Draw pictures with `FACE_BOX`, and the L and ITA that the box gives.

    Args:
        pictures: uint8 `(S, S, 3)`.
        names: one for each.
        light, angle: median L, and ITA in degrees, one for each.
    """
    top, bottom, left, right = (edge / 64 * pictures[0].shape[0] for edge in FACE_BOX)
    told = []
    columns = 3
    with styled():
        figure, places = plt.subplots(
            -(-len(pictures) // columns), columns, figsize=(6.2, 2.45 * -(-len(pictures) // columns)), layout="constrained", squeeze=False
        )
        for axes in places.flat:
            axes.axis("off")
        for axes, picture, name, lightness, degrees in zip(places.flat, pictures, names, light, angle):
            axes.imshow(picture, interpolation="nearest")
            for color, width in (("black", 4), ("white", 2)):
                axes.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, ec=color, lw=width))
            axes.set_title(f"{name}\nL {lightness:.0f}, ITA {degrees:.0f}°", fontsize=13)
            told.append(f"{name} has L {lightness:.0f} and ITA {degrees:.0f} degrees")
    return described(figure, f"{len(pictures)} pictures with the box in the middle that is measured: {'; '.join(told)}.")


def exposures(
    pictures: Sequence[NDArray[np.uint8]],
    names: Sequence[str],
    stops: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    spread: float,
) -> Figure:
    """Draw one photograph in several lights, and its ITA over the exposure for several colors of the lamp.

    Args:
        pictures, names: uint8 `(S, S, 3)` and what was done to each.
        stops: exposures, in stops (factors of two of the light).
        curves: ITA in degrees at each exposure, by the color of the lamp; the first is the photograph as it is.
        spread: standard deviation of ITA between photographs of one person, in degrees, drawn as a band around the photograph as it is.
    """
    first = next(iter(curves.values()))
    middle = float(np.interp(0.0, stops, first))
    told = []
    with styled():
        figure = plt.figure(figsize=(6.4, 5.6), layout="constrained")
        above, below = np.asarray(figure.subfigures(2, 1, height_ratios=[1, 1.9]))
        for axes, picture, name in zip(above.subplots(1, len(pictures)), pictures, names):
            axes.imshow(picture, interpolation="nearest")
            axes.axis("off")
            axes.set_title(name, fontsize=12)
        chart = below.subplots()
        chart.axhspan(middle - spread, middle + spread, color=LIGHT, alpha=0.5, lw=0)
        chart.text(min(stops), middle + spread, " spread between photographs of one person in LFW", va="bottom", fontsize=11, color=DARK)
        for number, (name, values) in enumerate(curves.items()):
            chart.plot(stops, values, LINES[number % 3], marker=MARKERS[number % 3], ms=6, lw=2, color=PALETTE[number], label=name)
            told.append(f"{name}: from {values[0]:.0f} to {values[-1]:.0f} degrees")
        chart.set(xlabel="exposure, in stops (1 stop = twice the light)", ylabel="ITA, degrees")
        chart.margins(y=0.12)
        chart.legend(frameon=False, loc="lower right")
    return described(
        figure,
        f"One photograph in {len(pictures)} lights ({', '.join(names)}) and its individual typology angle over the exposure from "
        f"{min(stops):g} to {max(stops):g} stops. {'; '.join(told)}. A band of plus and minus {spread:.0f} degrees around {middle:.0f} "
        "shows how far photographs of one person spread in LFW.",
    )


def stages(loaders: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw how long loaders take for one photograph, and which share of it each stage has.

    Args:
        loaders: milliseconds for one photograph by stage, by the name of the loader. The first loader has every stage.
    """
    every = list(next(iter(loaders.values())))
    top = max(sum(parts.values()) for parts in loaders.values())
    told = []
    with styled():
        figure, (whole, shared) = plt.subplots(2, 1, figsize=(7.2, 1.5 + 1.1 * len(loaders)), height_ratios=[1, 1.3], layout="constrained")
        for row, (name, parts) in enumerate(loaders.items()):
            total = sum(parts.values())
            whole.barh(-row, total, color=DARK, height=0.6)
            whole.text(total + 0.01 * top, -row, f"{_short(total)} ms", va="center", fontsize=12)
            start = 0.0
            for number, stage in enumerate(every):
                share = parts.get(stage, 0.0) / total
                shared.barh(
                    -row, share, left=start, color=PALETTE[number % 6], ec="white", hatch=HATCHES[number], label=stage if row == 0 else None
                )
                start += share
            largest = max(parts, key=lambda stage: parts[stage])
            told.append(f"{name} {_short(total)} ms, of which {largest} takes {parts[largest] / total:.0%}")
        for axes in (whole, shared):
            axes.set_yticks(range(0, -len(loaders), -1), list(loaders), fontsize=12)
        whole.set(xlabel="milliseconds for one photograph", xlim=(0, 1.18 * top))
        shared.set(xlabel="share of that time", xlim=(0, 1))
        shared.legend(frameon=False, ncols=len(every), loc="lower center", bbox_to_anchor=(0.42, 0.98), fontsize=11)
    return described(
        figure, f"Bars of the time that loaders take for one photograph, and below them the share of each stage: {'; '.join(told)}."
    )


def cells(bins: Bins, values: Sequence[float], by_ceil: Sequence[int], by_round: Sequence[int], truth: Sequence[int]) -> Figure:
    """Draw how a table finds the bin of a color: the cells of one axis around an edge, and the cells of the plane.

    Args:
        bins: the bins, on a grid of 10.
        values: some values of one coordinate near the edge at 5.
        by_ceil, by_round, truth: for each value the bin (0 or 10) that two tables give, and the nearest one.
    """
    reach = 128
    cell = np.arange(-reach, reach + 1)
    index = bins._table_on(torch.device("cpu")).numpy().reshape(2 * reach + 3, -1)[1:-1, 1:-1]
    unsure = index < 0
    steps = np.round(bins.centers.numpy() / bins.grid).astype(int)
    shade = np.where((steps.sum(1) % 2 == 0)[index.clip(0)], 0.92, 0.78)
    shade[unsure] = 0.0
    wrong = [value for value, found, right in zip(values, by_round, truth) if found != right]
    assert list(by_ceil) == list(truth)
    with styled():
        figure, (line, plane) = plt.subplots(2, 1, figsize=(7.2, 8.2), height_ratios=[1, 2.5], layout="constrained")
        low, high = 2, 8
        for number in range(low, high):
            line.add_patch(Rectangle((number, -0.5), 1, 1, fc="#eeeeee" if number < 5 else "#bbbbbb", ec="white", lw=2))
        line.text(3.5, 0.72, "bin 0", ha="center", fontsize=13)
        line.text(6.5, 0.72, "bin 10", ha="center", fontsize=13)
        line.axvline(5, color="black", lw=2)
        for value, rounded, right in zip(values, by_round, truth):
            good = rounded == right
            line.plot(value, 0, "o" if good else "X", color=PALETTE[0] if good else PALETTE[1], ms=12, mec="white")
            line.annotate("", (np.round(value), -0.85), (value, -0.12), arrowprops={"arrowstyle": "->", "color": DARK, "lw": 1.2})
        line.set(xlim=(low, high), ylim=(-1.05, 1.1), xlabel="value of a, Lab units (arrows: rounded to the nearest whole number)")
        line.set_yticks([])
        line.spines["left"].set_visible(False)
        line.set_title("cells (k - 1, k]; a cross is a value that rounding sends to the wrong bin", loc="left")
        plane.imshow(
            shade.T,
            cmap="gray",
            vmin=0,
            vmax=1,
            origin="lower",
            extent=(cell[0] - 1, cell[-1], cell[0] - 1, cell[-1]),
            interpolation="nearest",
        )
        plane.plot(*bins.centers.numpy().T, ".", color=PALETTE[0], ms=3)
        plane.set(xlabel="a, green to red", ylabel="b, blue to yellow")
        plane.set_title(f"{unsure.sum()} of {unsure.size} cells (black) hold no single bin", loc="left")
    return described(
        figure,
        f"Above, the cells of one axis from 2 to 8 with the edge between bin 0 and bin 10 at 5, and {len(values)} values: a table that "
        f"rounds sends {len(wrong)} of them ({', '.join(f'{value:g}' for value in wrong) or 'none'}) to the wrong bin, one with cells "
        "(k - 1, k] none. Below, the plane of a and b cut into cells one unit wide, shaded by the square of their bin, with "
        f"{bins.count} bin centers; {unsure.sum()} of {unsure.size} cells, outside the gamut, are black: colors in them are searched.",
    )


def copies(pictures: Sequence[NDArray[np.uint8]], errors: Sequence[tuple[float, float]]) -> Figure:
    """Draw test pictures, one a row: the gray, the truth, and the colors copied under a split by image and under one by person.

    Args:
        pictures: uint8 `(S, S, 3)`, four for each row.
        errors: for each row the RMS error of both copies, ab/128.
    """
    labels = []
    for number, (image, person) in enumerate(errors):
        heads = ("gray", "truth", "split by image", "split by person") if number == 0 else ("", "", "", "")
        notes = ("", "", f"error {image:.3f}", f"error {person:.3f}")
        labels += [f"{head}\n{note}".strip() for head, note in zip(heads, notes)]
    figure = grid(pictures, labels, columns=4)
    figure.set_size_inches(6.4, 1.9 * len(errors) + 0.3)
    told = "; ".join(f"row {row} {image:.3f} and {person:.3f}" for row, (image, person) in enumerate(errors, start=1))
    return described(
        figure,
        f"{len(errors)} rows of four pictures: a gray picture, its true colors, the colors of the most similar training picture when "
        f"photographs were split one by one, and the same when people were kept apart. Errors: {told}.",
    )


def leak(record: Mapping[str, Sequence[Any]]) -> Figure:
    """Draw what `data.leakage` found: errors with and without the leak, a pair for each split.

    Args:
        record: the result of `data.leakage`.
    """
    panels = (
        ("all test photographs", "by image", "own person hidden"),
        ("only those that copied their own person", "copied", "copied, own person hidden"),
    )
    told = []
    with styled():
        figure, places = plt.subplots(1, 2, figsize=(7.6, 4.4), sharey=True, layout="constrained")
        for axes, (title, leaky, clean) in zip(places, panels):
            pairs = [(low, high) for low, high in zip(record[leaky], record[clean]) if low is not None]
            for low, high in pairs:
                axes.plot([0, 1], [low, high], "-", color=LIGHT, lw=1.5, zorder=1)
            axes.plot([0] * len(pairs), [low for low, _ in pairs], "X", color=PALETTE[1], ms=9, mec="white", zorder=2)
            axes.plot([1] * len(pairs), [high for _, high in pairs], "o", color=PALETTE[0], ms=8, mec="white", zorder=2)
            low, high = (float(np.mean([pair[k] for pair in pairs])) for k in (0, 1))
            axes.set_title(f"{title}\n{low:.3f} and {high:.3f}", fontsize=11)
            axes.set(xlim=(-0.4, 1.4))
            axes.set_xticks([0, 1], ["split\nby image", "own person\nhidden"], fontsize=11)
            higher = sum(high > low for low, high in pairs)
            told.append(f"{title}: {low:.3f} with the leak and {high:.3f} without, higher in {higher} of {len(pairs)} splits")
        _first_axis(places).set(ylabel="mean RMS error, ab/128", ylim=(0, None))
    share = float(np.mean(record["copied from the own person"]))
    return described(
        figure,
        "Errors of a colorizer that copies the most similar training picture, a pair of points joined by a line for each split. "
        f"{'; '.join(told)}. {share:.1%} of the test photographs copied from another photograph of their own person.",
    )


def storage(rows: Mapping[str, float], count: int, limit: float) -> Figure:
    """Draw how much room a whole data set takes in several forms, on a logarithmic axis.

    Args:
        rows: bytes for one photograph, by form.
        count: photographs.
        limit: a line to compare with, bytes.
    """
    told = []
    with styled():
        figure, axes = plt.subplots(figsize=(7.6, 0.9 + 0.55 * len(rows)), layout="constrained")
        for row, (name, size) in enumerate(rows.items()):
            total = size * count
            over = total > limit
            axes.barh(-row, total, color=PALETTE[1] if over else PALETTE[0], hatch="//" if over else "", ec="white")
            axes.text(total * 1.15, -row, _size(total), va="center", fontsize=12, bbox={"fc": "white", "ec": "none", "pad": 1.5})
            told.append(f"{name} {_size(total)}")
        axes.axvline(limit, color="black", lw=2, ls="--")
        axes.text(limit * 1.1, 0.62, _size(limit), fontsize=11)
        axes.set_yticks(range(0, -len(rows), -1), list(rows), fontsize=12)
        axes.set(xscale="log", xlim=(2e7, 3e11), ylim=(-len(rows) + 0.4, 1.0), xlabel=f"bytes for {count:,} photographs")
    return described(
        figure, f"Bars on a logarithmic axis: room for {count:,} photographs as {'; '.join(told)}. A dashed line stands at {_size(limit)}."
    )


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _size(value: float) -> str:
    name, unit = next((pair for pair in UNITS if value >= pair[1]), UNITS[-1])
    return f"{value / unit:.3g} {name}"


def _first_axis(places: Any) -> Axes:
    axes: Axes = np.asarray(places).flat[0]
    return axes
