"""Every figure says in words what it draws: the alt text is composed from the same numbers."""

from __future__ import annotations

import io
import math
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from divcolor_lib import plots
from divcolor_lib.colorize import Colorizations
from divcolor_lib.cvae import CVAE, CVAEConfig
from divcolor_lib.plots import chapter_0
from divcolor_lib.portraits import COLORS
from divcolor_lib.runtime import generator

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def no_figure_stays_open() -> Iterator[None]:
    plt.close("all")
    yield
    plt.close("all")


def picture(color: tuple[int, int, int], height: int = 32, width: int = 40) -> NDArray[np.uint8]:
    return np.broadcast_to(np.array(color, np.uint8), (height, width, 3)).copy()


def texts(figure: Figure) -> str:
    """Everything written in the figure."""
    found = [text.get_text() for axes in figure.axes for text in axes.texts] + [axes.get_title() for axes in figure.axes]
    return "\n".join([*found, figure.get_suptitle()])


def images(figure: Figure) -> list[NDArray[Any]]:
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.get_images()]


RED, BLUE, GRAY = picture((200, 60, 50)), picture((40, 60, 200)), picture((120, 120, 120))


def result(height: int = 32, width: int = 40) -> Colorizations:
    """A red one, a blue one whose upper left corner is yellow, and a gray sample."""
    fields = torch.zeros(3, 2, 64, 64)
    fields[0, 0], fields[1, 1], fields[1, 1, :12, :12] = 0.3, -0.3, 0.3
    shown = np.stack([picture(c, height, width) for c in ((200, 60, 50), (40, 60, 200), (120, 120, 120))])
    return Colorizations(shown, (0.613, 0.214, None), fields, picture((120, 120, 120), height, width))


def tiny_cvae() -> CVAE:
    torch.manual_seed(0)
    return CVAE.build(CVAEConfig(latent=2, width=0.1)).train()


def photos(count: int) -> tuple[Tensor, Tensor]:
    noise = generator(count)
    return torch.rand(count, 1, 64, 64, generator=noise) - 0.5, 0.2 * torch.rand(count, 2, 64, 64, generator=noise)


EVERY: dict[str, Callable[[], Figure]] = {
    "colorizations": lambda: chapter_0.colorizations(result()),
    "snapshot": lambda: chapter_0.snapshot(tiny_cvae(), *photos(2), 400),
    "posterior": lambda: chapter_0.posterior([RED, BLUE], GRAY, [0.7, 0.3], "boy"),
    "guesses": lambda: chapter_0.guesses([RED, BLUE], [0.7, 0.3], "boy"),
    "single_answer": lambda: chapter_0.single_answer(torch.full((32, 40), 50.0), torch.full((2, 64, 64), 0.1), result()),
    "pipeline": lambda: chapter_0.pipeline(GRAY, [RED, BLUE], [0.7, 0.3]),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_figure_has_words_and_can_be_saved(name: str) -> None:
    figure = EVERY[name]()
    assert isinstance(figure, Figure)
    words = plots.alt_text(figure)
    assert len(words) > 40 and words.endswith(".") and words == words.strip() and "nan" not in words
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    drawn = np.asarray(Image.open(buffer).convert("RGB"))
    assert tuple(drawn[0, 0]) == (255, 255, 255)  # a white card
    assert drawn.std() > 5
    assert plt.get_fignums()
    plots.close(figure)
    assert not plt.get_fignums()


def test_the_style_of_the_reader_is_left_alone() -> None:
    before = dict(matplotlib.rcParams)
    for make in EVERY.values():
        make()
    assert dict(matplotlib.rcParams) == before


def test_colorizations_name_probabilities_and_colors() -> None:
    figure = chapter_0.colorizations(result(), title="Ann")
    words = plots.alt_text(figure)
    assert words.startswith("Ann: one gray photograph and 3 colorizations of it.")
    assert "1: p = 0.61, red on average, red in the upper left corner" in words
    assert "2: p = 0.21, blue on average, yellow in the upper left corner" in words
    assert "3: sample, gray on average" in words
    for written in ("gray", "1: p = 0.61", "2: p = 0.21", "3: sample", "Ann"):
        assert written in texts(figure)
    drawn = images(figure)
    assert len(drawn) == 4 and np.array_equal(drawn[0], result().gray)
    assert all(np.array_equal(*pair) for pair in zip(drawn[1:], result().images))


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (300, 20), (500, 400)])
def test_pictures_of_any_shape_can_be_shown(shape: tuple[int, int]) -> None:
    figure = chapter_0.colorizations(result(*shape))
    figure.savefig(io.BytesIO(), format="png")
    width, height = figure.get_size_inches()
    assert width == 9 and 0.5 < height < 20


def test_one_colorization_is_enough() -> None:
    three = result()
    one = Colorizations(three.images[:1], (0.5,), three.fields[:1], three.gray)
    figure = chapter_0.colorizations(one)
    assert len(images(figure)) == 2 and "p = 0.50" in plots.alt_text(figure)


@pytest.mark.parametrize("count", [1, 3])
def test_a_snapshot_tells_its_step_and_its_error_and_keeps_the_mode(count: int) -> None:
    cvae, (gray, ab) = tiny_cvae(), photos(count)
    figure = chapter_0.snapshot(cvae, gray, ab, 1200)
    assert cvae.training
    cvae.eval()
    with torch.no_grad():
        painted = cvae.decode(cvae.encode(ab, gray)[0], gray)
    error = np.sqrt(((painted - ab).double().numpy() ** 2).mean((1, 2, 3))).mean()
    for words in (plots.alt_text(figure), texts(figure)):
        assert f"{error:.3f}" in words and "step 1200" in words
    assert plots.alt_text(figure).startswith(f"{count} photographs")
    assert len(images(figure)) == 5 * count
    assert all(label in plots.alt_text(figure) for label in ("gray", "truth", "reconstruction", "other code", "another code"))


def test_a_snapshot_shows_the_truth_and_other_peoples_codes() -> None:
    gray, ab = photos(3)
    gray[:] = 0.1

    class Painter(CVAE):
        """The code is the mean color, and the painting is flat."""

        def encode(self, ab: Tensor, gray: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return ab.mean((2, 3)), torch.zeros(len(ab), 2)

        def gray_features(self, gray: Tensor) -> list[Tensor]:
            return [gray]

        def decode_features(self, z: Tensor, features: list[Tensor]) -> Tensor:
            return z[..., None, None].expand(-1, -1, -1, 64, 64)

    ab = torch.stack([torch.tensor(c)[:, None, None].expand(2, 64, 64) for c in ((0.2, 0.0), (0.0, 0.2), (-0.2, 0.0))])
    painter = Painter(CVAEConfig(latent=2))
    painter.layer = nn.Linear(1, 1)
    drawn = images(chapter_0.snapshot(painter, gray, ab, 1))
    row = [drawn[5 * i : 5 * i + 5] for i in range(3)]
    for i in range(3):
        assert (row[i][0] == row[i][0][..., :1]).all()
        assert np.array_equal(row[i][1], row[i][2])  # perfect reconstruction
        assert np.array_equal(row[i][3], row[(i - 1) % 3][1]) and np.array_equal(row[i][4], row[(i - 2) % 3][1])
    assert "0.000" in plots.alt_text(chapter_0.snapshot(painter, gray, ab, 1))


def test_the_posterior_names_the_portrait_and_every_probability() -> None:
    figure = chapter_0.posterior([RED, BLUE], GRAY, [0.72, 0.28], "boy with a hat")
    words = plots.alt_text(figure)
    assert "boy with a hat" in words and "2 possible colorings" in words and "0.72, 0.28" in words
    assert "probability 0.72" in texts(figure) and "probability 0.28" in texts(figure)
    assert len(images(figure)) == 3 and np.array_equal(images(figure)[0], GRAY)


def test_the_pipeline_shows_the_first_the_middle_and_the_last_code_with_their_weights() -> None:
    figure = chapter_0.pipeline(GRAY, [RED, BLUE, RED, BLUE], [0.5, 0.25, 0.05, None])
    words = plots.alt_text(figure)
    assert "p = 0.50, p = 0.05, sample" in words and "0.25" not in words and "3 pictures come out" in words
    assert "p = 0.50" in texts(figure) and "0.25" not in texts(figure)
    assert len(images(figure)) == 4


def test_guesses_name_their_weights() -> None:
    figure = chapter_0.guesses([RED, BLUE], [0.64, 0.36], "girl with glasses")
    words = plots.alt_text(figure)
    assert "girl with glasses" in words and "0.64, 0.36" in words and words.startswith("2 colorizations")
    assert "1: p = 0.64" in texts(figure) and "2: p = 0.36" in texts(figure)
    assert len(images(figure)) == 2


def test_one_answer_stands_beside_some_of_several_with_its_mean_chroma() -> None:
    field = torch.zeros(2, 64, 64)
    field[0], field[1, :, :32] = 3 / 128, 4 / 128  # a chroma of 5 on the left and 3 on the right
    several = result()
    figure = chapter_0.single_answer(torch.full((32, 40), 50.0), field, several)
    chromas = [float(each.norm(dim=0).mean() * 128) for each in several.fields]
    shown = sorted({0, len(several) // 2, len(several) - 1})
    for words in (plots.alt_text(figure), texts(figure)):
        assert "one answer: 4.0" in words and f"{sum(chromas) / len(chromas):.1f}" in words
        assert all(f"number {index + 1} of {len(several)}: {chromas[index]:.1f}" in words for index in shown)
    drawn = images(figure)
    assert len(drawn) == 1 + len(shown) and drawn[0].shape == (32, 40, 3)
    assert all(np.array_equal(picture, several.images[index]) for picture, index in zip(drawn[1:], shown))


def test_show_displays_a_png_with_its_alt_text_and_closes_the_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[dict[str, Any], dict[str, Any]]] = []
    fake = types.ModuleType("IPython.display")
    fake.display = lambda data, **settings: calls.append((data, settings))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    figure = chapter_0.posterior([RED, BLUE], GRAY, [0.72, 0.28], "boy")
    plots.show(figure)
    (data, settings), *more = calls
    assert not more and settings["raw"] is True
    assert settings["metadata"]["image/png"]["alt"] == plots.alt_text(figure) == data["text/plain"]
    shown = Image.open(io.BytesIO(data["image/png"]))
    assert shown.format == "PNG" and shown.width > 500
    assert "Software" not in shown.info  # the same bytes from every version of matplotlib
    assert not plt.get_fignums()


def test_photographs_are_shown_as_jpeg_and_drawings_as_png() -> None:
    photograph = np.zeros((200, 150, 3), np.uint8)
    assert chapter_0.posterior([photograph], photograph, [1.0], "boy").shows_photographs  # type: ignore[attr-defined]
    assert not chapter_0.posterior([RED], GRAY, [1.0], "boy").shows_photographs  # type: ignore[attr-defined]


# --- names of colors ---


def lab_of(rgb: tuple[int, int, int]) -> tuple[float, float]:
    """OpenCV's float Lab."""
    _, a, b = cv2.cvtColor(np.array([[rgb]], np.float32) / 255, cv2.COLOR_RGB2LAB)[0, 0]
    return float(a), float(b)


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((128, 128, 128), "gray"),
        ((255, 255, 255), "gray"),
        ((220, 20, 60), "red"),
        ((255, 140, 0), "orange"),
        ((255, 230, 0), "yellow"),
        ((170, 220, 40), "yellow-green"),
        ((0, 128, 0), "green"),
        ((0, 128, 128), "blue-green"),
        ((70, 130, 180), "blue"),
        ((0, 0, 255), "violet"),
        ((128, 0, 128), "purple"),
        ((255, 105, 180), "pink"),
    ],
)
def test_well_known_colors_have_their_names(rgb: tuple[int, int, int], name: str) -> None:
    assert plots.color_name(*lab_of(rgb)) == name


@pytest.mark.parametrize("name", ["red", "green", "blue", "purple"])
def test_the_colors_of_the_portraits_are_called_by_their_own_names(name: str) -> None:
    assert plots.color_name(*COLORS[name]) == name


def test_every_hue_has_a_name_and_the_names_go_round_once() -> None:
    named = [plots.color_name(30 * math.cos(math.radians(h)), 30 * math.sin(math.radians(h))) for h in np.arange(0, 360, 0.5)]
    changes = [name for name, before in zip(named, [named[-1], *named]) if name != before]
    assert changes == list(plots.HUES)
    assert named[0] == "red" and named[-1] == "pink"
    assert plots.color_name(20, -1e-9) in ("red", "pink") and plots.color_name(20, -0.0) == "red"


def test_weak_colors_are_gray() -> None:
    assert plots.color_name(2.8, 2.8) == "gray" and plots.color_name(2.9, 2.9) != "gray" and plots.color_name(0, 0) == "gray"
