"""The figures of chapter 0, and the pictures that training and the command line show."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from numpy.typing import NDArray
from torch import Tensor

from ..colorize import Colorizations, paint
from ..cvae import CVAE
from ..lab import AB_SCALE, join
from ..runtime import evaluating
from . import DRAWN, PALETTE, color_name, described, grid, styled


def colorizations(result: Colorizations, title: str = "") -> Figure:
    """Draw the gray photograph and its colorizations with their probabilities."""
    labels = ["gray", *(_label(number, p) for number, p in enumerate(result.probabilities, start=1))]
    pictures = [result.gray, *result.images]
    figure = grid(pictures, labels, columns=3 if len(pictures) == 9 else min(5, len(pictures)), title=title)
    tints = [color_name(*(field.mean((1, 2)) * AB_SCALE).tolist()) for field in result.fields]
    corners = [color_name(*(field[:, :12, :12].mean((1, 2)) * AB_SCALE).tolist()) for field in result.fields]
    told = "; ".join(
        f"{label}, {tint} on average, {corner} in the upper left corner" for label, tint, corner in zip(labels[1:], tints, corners)
    )
    return described(figure, f"{title + ': ' if title else ''}one gray photograph and {len(result)} colorizations of it. {told}.")


def snapshot(cvae: CVAE, gray: Tensor, ab: Tensor, step: int) -> Figure:
    """Draw, for each photograph, gray, truth, reconstruction, and two colorings with the code of another photograph."""
    with evaluating(cvae):
        mu, _ = cvae.encode(ab, gray)
        columns = [join(gray, torch.zeros_like(ab)), join(gray, ab), join(gray, cvae.decode(mu, gray))]
        columns += [join(gray, cvae.decode(mu.roll(shift, 0), gray)) for shift in (1, 2)]
        error = float((cvae.decode(mu, gray) - ab).square().mean((1, 2, 3)).sqrt().mean())
    labels = ["gray", "truth", "reconstruction", "other code", "another code"]
    pictures = [column[row].cpu().numpy() for row in range(len(gray)) for column in columns]
    figure = grid(pictures, labels * len(gray), columns=len(labels), title=f"step {step}: reconstruction error {error:.3f}")
    return described(
        figure, f"{len(gray)} photographs at step {step}, a row each: {', '.join(labels)}. Mean reconstruction error {error:.3f}."
    )


def posterior(pictures: Sequence[NDArray[np.uint8]], gray: NDArray[np.uint8], probabilities: Sequence[float], description: str) -> Figure:
    """Draw a portrait in gray and every coloring that its exact posterior allows."""
    labels = ["gray", *(f"probability {p:.2f}" for p in probabilities)]
    figure = grid([gray, *pictures], labels, columns=len(labels))
    told = ", ".join(f"{p:.2f}" for p in probabilities)
    return described(figure, f"A drawn {description}, in gray, and its {len(pictures)} possible colorings with probabilities {told}.")


def guesses(pictures: Sequence[NDArray[np.uint8]], weights: Sequence[float], description: str) -> Figure:
    """Draw what a model makes of a portrait: its colorizations with their weights."""
    figure = grid(pictures, [_label(number, p) for number, p in enumerate(weights, start=1)], columns=4)
    told = ", ".join(f"{p:.2f}" for p in weights)
    return described(figure, f"{len(pictures)} colorizations of a drawn {description}, by a trained model, with weights {told}.")


def single_answer(lightness: Tensor, field: Tensor, several: Colorizations) -> Figure:
    """Draw the one answer of a regression network beside the first, the middle and the last of several, with mean chromas."""
    shown = _spread(len(several))
    pictures = [paint(lightness[None], field), *(several.images[index] for index in shown)]
    chromas = [float(each.norm(dim=0).mean() * AB_SCALE) for each in several.fields]
    alone = float(field.norm(dim=0).mean() * AB_SCALE)
    names = [f"one answer: {alone:.1f}", *(f"number {index + 1} of {len(several)}: {chromas[index]:.1f}" for index in shown)]
    mean = f"{sum(chromas) / len(chromas):.1f}"
    figure = grid(pictures, names, columns=len(pictures), title=f"mean chroma in Lab units (all {len(several)}: {mean})")
    told = "; ".join(names)
    text = "One photograph, colored by a network that gives one answer and by one that gives several. Mean chroma in Lab units: "
    return described(figure, f"{text}{told}; mean of all {len(several)}: {mean}.")


def pipeline(gray: NDArray[np.uint8], images: Sequence[NDArray[np.uint8]], probabilities: Sequence[float | None]) -> Figure:
    """Draw the way from a gray photograph over p(z|G) to several colorizations, with this photograph's own pictures."""
    with styled():
        figure, axes = plt.subplots(figsize=(9, 3.9))
    axes.set(xlim=(0, 9), ylim=(0, 3.9))
    axes.axis("off")
    _place(axes, gray, 0.1, 1.25, 1.5)
    axes.text(0.85, 1.1, "gray photograph G", ha="center", va="top")
    _box(axes, 2.1, 1.5, 1.65, 1.0, "mixture density\nnetwork\np(z | G)")
    _box(axes, 6.0, 1.5, 1.3, 1.0, "decoder\np(C | z, G)")
    shown = [(index + 1, images[index], probabilities[index]) for index in _spread(len(images))]
    heights = np.linspace(3.2, 1.0, len(shown))
    for (number, image, probability), height in zip(shown, heights):
        axes.text(
            4.75,
            height,
            f"code z$_{number}$\n{_weight(probability)}",
            ha="center",
            va="center",
            bbox={"boxstyle": "round", "fc": "#eef3f8", "ec": PALETTE[0]},
        )
        _arrow(axes, (3.8, 1.95), (4.2, height))
        _arrow(axes, (5.3, height), (5.95, 1.95))
        _place(axes, image, 7.85, height - 0.52, 1.04)
        _arrow(axes, (7.35, 1.95), (7.8, height))
    _arrow(axes, (1.65, 1.95), (2.1, 1.95))
    axes.annotate(
        "",
        xy=(6.65, 1.45),
        xytext=(0.85, 0.42),
        arrowprops={"arrowstyle": "->", "connectionstyle": "angle,angleA=0,angleB=90,rad=8", "color": "#444444"},
    )
    axes.text(3.75, 0.34, "G also goes to the decoder, which knows where the edges are", ha="center", va="top", fontsize=10)
    weights = ", ".join(_weight(p) for _, _, p in shown)
    figure.shows_photographs = max(gray.shape) > DRAWN  # type: ignore[attr-defined]
    return described(
        figure,
        "A gray photograph G enters a mixture density network, which gives several codes z with probabilities "
        f"({weights}). A decoder takes each code together with G and paints one picture. "
        f"{len(shown)} pictures come out, in different colors.",
    )


def _spread(count: int) -> list[int]:
    """The first, the middle and the last of `count`."""
    return sorted({0, count // 2, count - 1})


def _label(number: int, probability: float | None) -> str:
    return f"{number}: {_weight(probability)}"


def _weight(probability: float | None) -> str:
    return "sample" if probability is None else f"p = {probability:.2f}"


def _place(axes: Axes, picture: NDArray[np.uint8], left: float, bottom: float, side: float) -> None:
    height, width = picture.shape[:2]
    half = side / 2
    w, h = (half, half * height / width) if width >= height else (half * width / height, half)
    axes.imshow(picture, extent=(left + half - w, left + half + w, bottom + half - h, bottom + half + h), aspect="auto", zorder=2)
    axes.set(xlim=(0, 9), ylim=(0, 3.9))


def _box(axes: Axes, left: float, bottom: float, width: float, height: float, text: str) -> None:
    axes.add_patch(Rectangle((left, bottom), width, height, fc="#f6f1e7", ec="#444444", zorder=2))
    axes.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", zorder=3)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="->", mutation_scale=12, color="#444444"))
