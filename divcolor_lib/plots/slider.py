"""A slider that needs no kernel: the reader moves through pictures on any page, by mouse, touch or keyboard.

`show(frames, labels, texts, title)` displays it in a notebook. The HTML stands alone: the pictures are in it, and nothing is loaded.
Without JavaScript, and in print, some of the pictures stand side by side, each with its label.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ConfigError, ShapeError
from . import DRAWN

#: Pictures of one shape `(H, W, 3)`, in a list or as one array `(N, H, W, 3)`.
Frames = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
#: The largest HTML that `as_html` makes.
LARGEST = 200_000
#: Pictures that take more bytes than this as PNG are written as JPEG, if that is smaller.
LOSSLESS = 100_000
#: So many pictures stand side by side without JavaScript.
STILLS = 5


def show(frames: Frames, labels: Sequence[str], texts: Sequence[str], title: str, start: int | None = None) -> None:
    """Display the slider in a notebook; the arguments are those of `as_html`."""
    from IPython.display import display

    display({"text/html": as_html(frames, labels, texts, title, start), "text/plain": as_text(labels, texts, title)}, raw=True)


def as_text(labels: Sequence[str], texts: Sequence[str], title: str) -> str:
    """Return the slider as plain text: its title, and a line for each frame."""
    return "\n".join([title, *(f"  {label}: {text}" for label, text in zip(labels, texts))])


def as_html(
    frames: Frames,
    labels: Sequence[str],
    texts: Sequence[str],
    title: str,
    start: int | None = None,
) -> str:
    """Return the slider as HTML that stands alone. The same arguments give the same text.

    Args:
        frames: pictures, uint8 `(H, W, 3)`, all of one shape. Ones of at most `DRAWN` pixels a side are shown with visible pixels.
        labels: a short name of each frame, such as `L = 50`; screen readers say it when the slider moves.
        texts: what one sees in each frame, a sentence; it is the picture's alternative text.
        title: what the slider changes, such as `Lightness L`; it names the slider. Two sliders on a page have different titles.
        start: the first frame shown; without it the one in the middle.

    Raises:
        ShapeError: a frame has another shape or type.
        ConfigError: labels, texts and frames differ in number, a text is empty, `start` is no frame, or the HTML has more than
            `LARGEST` bytes.
    """
    _check(frames, labels, texts, title)
    start = len(frames) // 2 if start is None else start
    if not 0 <= start < len(frames):
        raise ConfigError(f"`start` is {start}", "slider", f"It is a frame, from 0 to {len(frames) - 1}.")
    name = "slider-" + re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    stills = set(np.linspace(0, len(frames) - 1, min(STILLS, len(frames))).round().astype(int).tolist())
    small = " pixels" if max(frames[0].shape) <= DRAWN else ""
    pictures = "\n".join(
        f'<figure data-still="{int(index in stills)}"{"" if index in stills else " hidden"}>'
        f'<img src="{url}" width="{frames[0].shape[1]}" height="{frames[0].shape[0]}" alt="{_quoted(text)}">'
        f"<figcaption>{html.escape(label, quote=False)}</figcaption></figure>"
        for index, (url, label, text) in enumerate(zip(_data_urls(frames), labels, texts))
    )
    made = (
        f'<div class="divcolor-slider{small}" role="group" aria-label="{_quoted(title)}">\n<style>{_STYLE}</style>\n'
        f'<div class="frames">\n{pictures}\n</div>\n'
        f'<p class="control" hidden><label for="{name}">{html.escape(title, quote=False)}</label>\n'
        f'<input type="range" id="{name}" min="0" max="{len(frames) - 1}" step="1" value="{start}" '
        f'aria-valuetext="{_quoted(labels[start])}" autocomplete="off">\n'
        f'<output for="{name}"></output></p>\n<script>{_SCRIPT}</script>\n</div>'
    )
    if len(made.encode()) > LARGEST:
        raise ConfigError(f"the slider has {len(made.encode())} bytes", "slider", "Pass fewer or smaller frames.")
    return made


def _check(frames: Frames, labels: Sequence[str], texts: Sequence[str], title: str) -> None:
    if not len(frames) == len(labels) == len(texts) or len(frames) < 2:
        found = f"{len(frames)} frames, {len(labels)} labels and {len(texts)} texts"
        raise ConfigError(found, "slider", "Pass a label and a text for each of at least two frames.")
    if not all(text.strip() for text in [title, *labels, *texts]):
        raise ConfigError("the title, a label or a text is empty", "slider", "Say what one sees in every frame.")
    for frame in frames:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != frames[0].shape or frame.size == 0:
            raise ShapeError(f"a frame has shape {frame.shape} and type {frame.dtype}", todo="Pass uint8 (H, W, 3), all of one shape.")


def _data_urls(frames: Frames) -> list[str]:
    """Return the frames as PNG, or as JPEG if that is large; without subsampling, so that colors stay where they are."""
    kind, coded = "png", [_coded(frame, "png", optimize=True) for frame in frames]
    if (size := sum(len(each) for each in coded)) > LOSSLESS:
        lossy = [_coded(frame, "jpeg", quality=90, subsampling=0) for frame in frames]
        if sum(len(each) for each in lossy) < size:
            kind, coded = "jpeg", lossy
    return [f"data:image/{kind};base64,{base64.b64encode(each).decode()}" for each in coded]


def _coded(frame: NDArray[np.uint8], kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(buffer, format=kind, **options)
    return buffer.getvalue()


def _quoted(text: str) -> str:
    return html.escape(text, quote=True)


_STYLE = """
.divcolor-slider{max-width:100%;margin:.5rem 0}
.divcolor-slider .frames{display:flex;flex-wrap:wrap;gap:.75rem}
.divcolor-slider figure{margin:0;flex:0 1 8rem;text-align:center}
.divcolor-slider figure[hidden]{display:none}
.divcolor-slider.live figure{flex:0 1 24rem}
.divcolor-slider .frames figcaption{color:inherit}
.divcolor-slider.live figcaption{font-weight:600}
.divcolor-slider img{display:block;width:100%;height:auto;background:#fff;border-radius:.25rem}
.divcolor-slider.pixels img{image-rendering:pixelated}
.divcolor-slider .control{display:flex;flex-direction:column;gap:.25rem;max-width:24rem;margin:.5rem 0}
.divcolor-slider .control[hidden]{display:none}
.divcolor-slider label{font-weight:600}
.divcolor-slider input{width:100%;min-height:1.75rem;margin:0;cursor:pointer;accent-color:var(--pst-color-primary,#0072b2)}
.divcolor-slider output{min-height:3em}
@media print{
.divcolor-slider .control{display:none!important}
.divcolor-slider figure[data-still="0"]{display:none!important}
.divcolor-slider figure[data-still="1"]{display:block!important;flex:0 1 8rem!important}
}
"""
# The label is the spoken value of the slider and stands under the picture; the text goes to the output, which is read out after it.
_SCRIPT = """
(function(){
  var root=document.currentScript.parentElement;
  var input=root.querySelector("input"),output=root.querySelector("output"),figures=root.querySelectorAll("figure");
  function turn(){
    figures.forEach(function(figure,index){figure.hidden=index!==Number(input.value);});
    var shown=figures[Number(input.value)];
    input.setAttribute("aria-valuetext",shown.querySelector("figcaption").textContent);
    output.textContent=shown.querySelector("img").alt;
  }
  root.querySelector(".control").hidden=false;
  root.classList.add("live");
  input.addEventListener("input",turn);
  turn();
})();
"""
