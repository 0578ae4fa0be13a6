"""The slider is one piece of HTML that stands alone: pictures inside, every one described, and useful without JavaScript."""

from __future__ import annotations

import base64
import html.parser
import io
import re
import sys
import types
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from divcolor_lib.errors import ConfigError, ShapeError
from divcolor_lib.plots import slider


def flat(level: int, size: int = 8) -> NDArray[np.uint8]:
    return np.full((size, size + 2, 3), level, np.uint8)


FRAMES = [flat(level) for level in range(0, 256, 36)]
LABELS = [f"L = {number}" for number in range(len(FRAMES))]
TEXTS = [f'gray number {number}, "flat" & <plain>' for number in range(len(FRAMES))]


def made(**changes: Any) -> str:
    return slider.as_html(**({"frames": FRAMES, "labels": LABELS, "texts": TEXTS, "title": "Lightness L"} | changes))


class Parsed(html.parser.HTMLParser):
    """Every element with its attributes, and the text inside each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and data.strip():
            self.texts.append((self.elements[-1][0], data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.elements if found == tag]


def picture(url: str | None) -> NDArray[np.uint8]:
    assert url is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))


def test_every_frame_is_there_to_the_last_bit_with_its_text_and_its_label() -> None:
    page = Parsed(made())
    images = page.all("img")
    assert [image["alt"] for image in images] == TEXTS
    assert [text for tag, text in page.texts if tag == "figcaption"] == LABELS
    assert all(np.array_equal(picture(image["src"]), frame) for image, frame in zip(images, FRAMES, strict=True))
    assert (images[0]["width"], images[0]["height"]) == ("10", "8")


def test_the_control_is_a_range_with_a_name_and_a_spoken_value() -> None:
    page = Parsed(made(start=3))
    (control,), (label,), (output,) = page.all("input"), page.all("label"), page.all("output")
    assert control["type"] == "range" and (control["min"], control["max"], control["step"]) == ("0", str(len(FRAMES) - 1), "1")
    assert control["value"] == "3" and control["aria-valuetext"] == "L = 3"
    assert label["for"] == output["for"] == control["id"] == "slider-lightness-l"
    assert ("label", "Lightness L") in page.texts
    assert page.all("div")[0]["aria-label"] == "Lightness L" and page.all("div")[0]["role"] == "group"


def test_it_starts_in_the_middle_unless_told() -> None:
    assert Parsed(made()).all("input")[0]["value"] == str(len(FRAMES) // 2)
    assert Parsed(made(start=0)).all("input")[0]["value"] == "0"


def test_without_a_script_a_few_frames_stand_side_by_side_and_no_dead_control() -> None:
    page = Parsed(made())
    shown = [index for index, figure in enumerate(page.all("figure")) if "hidden" not in figure]
    assert len(shown) == slider.STILLS and shown[0] == 0 and shown[-1] == len(FRAMES) - 1
    assert [figure["data-still"] == "1" for figure in page.all("figure")] == [index in shown for index in range(len(FRAMES))]
    (control,) = [attributes for attributes in page.all("p") if attributes.get("class") == "control"]
    assert "hidden" in control


def test_the_script_uses_only_what_is_there_and_the_style_leaves_the_theme_alone() -> None:
    text = made()
    assert text.count("<script>") == text.count("</script>") == 1 and text.count("<style>") == 1
    for used in ("aria-valuetext", '.control")', '"figcaption"', '"output"', "figure.hidden"):
        assert used in slider._SCRIPT
    assert "prefers-color-scheme" not in text and "font-family" not in text
    assert not re.search(r"[^-]color:", slider._STYLE.replace("accent-color:", "").replace("{color:inherit", ""))


def test_nothing_is_loaded_and_every_id_is_there_once() -> None:
    text = made()
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"data:image/\w+;base64,[\w+/=]+", "", text))
    page = Parsed(text)
    assert all(str(image["src"]).startswith("data:image/") for image in page.all("img"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) == 1
    assert made() == text
    assert Parsed(made(title="a; b > C")).all("input")[0]["id"] == "slider-a-b-c"


def test_texts_cannot_break_out() -> None:
    page = Parsed(made(labels=['<b>"&'] * len(FRAMES), title='<i>"x"&'))
    assert not page.all("b") and not page.all("i")
    assert page.all("div")[0]["aria-label"] == '<i>"x"&' and page.all("input")[0]["aria-valuetext"] == '<b>"&'


def test_small_frames_show_their_pixels_and_large_ones_do_not() -> None:
    assert "pixels" in str(Parsed(made()).all("div")[0]["class"])
    large = [flat(level, 200) for level in (10, 20)]
    assert "pixels" not in str(Parsed(made(frames=large, labels=LABELS[:2], texts=TEXTS[:2])).all("div")[0]["class"])


def test_large_frames_become_jpeg_with_their_colors_and_stay_small() -> None:
    ramp = np.linspace(0, 255, 200)
    noise = np.random.default_rng(0).normal(0, 2, (10, 200, 200, 3))
    plane = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 128.0), axis=-1)
    frames = np.clip(plane[None] + noise, 0, 255).astype(np.uint8)
    text = slider.as_html(frames, LABELS[:2] * 5, TEXTS[:2] * 5, "Noise")
    assert "data:image/jpeg" in text and "data:image/png" not in text and len(text) < slider.LARGEST
    shown = picture(Parsed(text).all("img")[0]["src"])
    assert np.abs(shown.astype(float) - frames[0]).mean() < 4


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"labels": LABELS[1:]}, ConfigError, "8 frames, 7 labels and 8 texts"),
        ({"frames": FRAMES[:1], "labels": LABELS[:1], "texts": TEXTS[:1]}, ConfigError, "at least two"),
        ({"texts": ["", *TEXTS[1:]]}, ConfigError, "is empty"),
        ({"title": " "}, ConfigError, "is empty"),
        ({"start": 8}, ConfigError, "from 0 to 7"),
        ({"start": -1}, ConfigError, "from 0 to 7"),
        ({"frames": [flat(0, 9), *FRAMES[1:]]}, ShapeError, "all of one shape"),
        ({"frames": [frame / 255 for frame in FRAMES]}, ShapeError, "float64"),
        ({"frames": [frame[..., 0] for frame in FRAMES]}, ShapeError, "uint8"),
        ({"frames": list(np.random.default_rng(0).integers(0, 256, (8, 300, 300, 3)).astype(np.uint8))}, ConfigError, "fewer or smaller"),
    ],
)
def test_what_cannot_be_shown_is_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        made(**changes)


def test_show_displays_html_and_words(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[dict[str, Any], dict[str, Any]]] = []
    fake = types.ModuleType("IPython.display")
    fake.display = lambda data, **settings: calls.append((data, settings))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    slider.show(FRAMES, LABELS, TEXTS, "Lightness L", start=2)
    ((data, settings),) = calls
    assert settings == {"raw": True} and data["text/html"] == made(start=2)
    lines = data["text/plain"].splitlines()
    assert lines[0] == "Lightness L" and lines[3] == f"  L = 2: {TEXTS[2]}" and len(lines) == 1 + len(FRAMES)
