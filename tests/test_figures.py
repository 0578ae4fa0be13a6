"""Every figure of a chapter says in words what it draws, and other data give other words.

`figures/chapter_N.py` makes each figure twice, from different data.
"""

from __future__ import annotations

import importlib
import inspect
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from divcolor_lib import plots

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[1]
NUMBERS = sorted(int(path.stem.split("_")[1]) for path in (ROOT / "tests" / "figures").glob("chapter_*.py"))
Pair = tuple[Callable[[], Figure], Callable[[], Figure]]


def figures_of(number: int) -> dict[str, Pair]:
    found: dict[str, Pair] = importlib.import_module(f"tests.figures.chapter_{number}").FIGURES
    return found


EVERY = [(number, name) for number in NUMBERS for name in figures_of(number)]


@pytest.fixture(autouse=True)
def no_figure_stays_open() -> Iterator[None]:
    plt.close("all")
    yield
    plt.close("all")


@pytest.mark.parametrize(("number", "name"), EVERY)
def test_the_words_come_from_the_data(number: int, name: str) -> None:
    first, second = (plots.alt_text(make()) for make in figures_of(number)[name])
    for words in (first, second):
        assert len(words) > 60 and words.endswith(".") and words == words.strip()
        assert "nan" not in words and "tensor(" not in words and "  " not in words
    assert first != second


@pytest.mark.parametrize(("number", "name"), EVERY)
def test_the_figure_is_a_white_card_of_moderate_size_and_leaves_the_reader_s_style_alone(number: int, name: str) -> None:
    before = dict(matplotlib.rcParams)
    figure = figures_of(number)[name][0]()
    assert dict(matplotlib.rcParams) == before
    assert figure.get_size_inches()[0] <= 10
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    drawn = np.asarray(Image.open(buffer).convert("RGB"))
    assert tuple(drawn[0, 0]) == (255, 255, 255)
    assert drawn.std() > 5


@pytest.mark.parametrize("number", NUMBERS)
def test_every_figure_function_is_tried(number: int) -> None:
    module = importlib.import_module(f"divcolor_lib.plots.chapter_{number}")
    made = [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and value.__annotations__.get("return") == "Figure"
    ]
    assert sorted(figures_of(number)) == sorted(name for name in made if not name.startswith("_"))


def test_every_chapter_with_figures_has_its_tests() -> None:
    modules = {int(path.stem.split("_")[1]) for path in (ROOT / "divcolor_lib" / "plots").glob("chapter_*.py")}
    assert modules - {0} == set(NUMBERS)  # those of chapter 0 are in test_plots
