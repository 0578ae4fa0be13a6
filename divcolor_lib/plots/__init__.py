"""Every figure of the book. Each function returns a matplotlib figure whose alt text it composed from the data drawn.

`alt_text(figure)` reads it; `show(figure)` displays the figure in a notebook with it. Figures stand on a white card, so
that colors look the same on a light and on a dark page; no figure tells things apart by color alone.

The figures of a chapter are in the module of its number, `plots.chapter_1` and so on; here is what they share.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from numpy.typing import NDArray

#: Okabe and Ito's colors, which readers with any form of color vision can tell apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE: Any = {
    "figure.facecolor": "white",
    "figure.dpi": 110,
    "savefig.facecolor": "white",
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=PALETTE),
}
HUES = ("red", "orange", "yellow", "yellow-green", "green", "blue-green", "blue", "violet", "purple", "pink")
HUE_EDGES = (45, 80, 105, 130, 165, 215, 300, 315, 340, 360)
GRAYISH = 4.0
#: Pictures of at most so many pixels a side are drawn with visible pixels and are not taken for photographs.
DRAWN = 128


def alt_text(figure: Figure) -> str:
    """Return the alt text that the figure's function composed."""
    return str(figure.alt_text)  # type: ignore[attr-defined]


def show(figure: Figure) -> None:
    """Display a figure in a notebook with its alt text, and close it; as JPEG if it shows photographs, else as PNG.

    A photograph as JPEG takes a tenth of the room; without subsampling, its colors stay where they are.
    """
    from IPython.display import display

    buffer = io.BytesIO()
    if getattr(figure, "shows_photographs", False):
        kind = "image/jpeg"
        figure.savefig(buffer, format="jpeg", bbox_inches="tight", pil_kwargs={"quality": 85, "subsampling": 0})
    else:
        kind = "image/png"
        figure.savefig(buffer, format="png", bbox_inches="tight", metadata={"Software": None})
    close(figure)
    display({kind: buffer.getvalue(), "text/plain": alt_text(figure)}, metadata={kind: {"alt": alt_text(figure)}}, raw=True)


def close(figure: Figure) -> None:
    """Free a figure's memory."""
    plt.close(figure)


def color_name(a: float, b: float) -> str:
    """Return a plain word for a color's hue, from its a and b in Lab units: `gray` below a chroma of 4."""
    if math.hypot(a, b) < GRAYISH:
        return "gray"
    hue = math.degrees(math.atan2(b, a)) % 360
    return next(name for name, edge in zip(HUES, HUE_EDGES) if hue <= edge)


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of the book inside the block; the reader's own style is back afterwards."""
    with plt.rc_context(STYLE):
        yield


def grid(pictures: Sequence[NDArray[np.uint8]], labels: Sequence[str], columns: int, title: str = "") -> Figure:
    """Draw uint8 pictures `(H, W, 3)` row by row, each under its label. The caller adds the text by `described`."""
    rows = -(-len(pictures) // columns)
    height, width = pictures[0].shape[:2]
    aspect = min(2.0, max(0.5, height / width))
    side = 9.0 / columns
    with styled():
        figure, places = plt.subplots(
            rows, columns, figsize=(9, rows * (side * aspect + 0.3) + (0.4 if title else 0)), squeeze=False, layout="constrained"
        )
    for axes in places.flat:
        axes.axis("off")
    for axes, picture, label in zip(places.flat, pictures, labels):
        axes.imshow(picture, interpolation="nearest" if max(picture.shape) <= DRAWN else "antialiased")
        axes.set_title(label, fontsize=15 if columns <= 3 else 11)
    if title:
        figure.suptitle(title)
    figure.shows_photographs = max(max(picture.shape) for picture in pictures) > DRAWN  # type: ignore[attr-defined]
    return figure


def described(figure: Figure, text: str) -> Figure:
    """Give a figure its alt text, composed from the data that it draws; return it."""
    figure.alt_text = text  # type: ignore[attr-defined]
    return figure
