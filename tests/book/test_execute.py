"""`make execute`: outputs, texts, time and fingerprint are stored; a second run changes nothing; a failure writes nothing."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from book._tools import execute, notebooks
from book._tools.environment import chapter_environment
from book._tools.execute import execute_file, main, recorded_seconds, with_alt_texts, write

SHOW = """import os
from IPython.display import display

alt = "A red square."
display({"image/png": b"\\x89PNG", "text/plain": alt}, raw=True, metadata={"image/png": {"alt": alt}})"""
ASK = """import os

print(os.environ["DIVCOLOR_PROFILE"], "DIVCOLOR_DATA" in os.environ, flush=True)
print(os.environ["OMP_NUM_THREADS"])"""


def written(path: Path, *sources: str) -> Path:
    cells = [{"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# Title"}]
    for index, source in enumerate(sources):
        cells.append({"cell_type": "code", "id": f"c{index}", "metadata": {}, "source": source, "execution_count": None, "outputs": []})
    path.write_text(json.dumps({"cells": cells, "metadata": {"vscode": {}}, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")
    return path


def clock(seconds: float) -> SimpleNamespace:
    """Return a stand-in for `time`: each reading is `seconds` later, so that a slow machine changes no recorded time."""
    return SimpleNamespace(perf_counter=count(0, seconds).__next__)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = written(tmp_path_factory.mktemp("book") / "01_toy.ipynb", ASK, SHOW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIVCOLOR_PROFILE", "gpu")
        patch.setenv("DIVCOLOR_DATA", "somewhere")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(execute, "time", clock(seconds=30))
        assert "written" in execute_file(path)
    return path


def test_a_chapter_runs_in_the_environment_of_the_book(executed: Path) -> None:
    assert notebooks.read(executed)["cells"][1]["outputs"] == [{"name": "stdout", "output_type": "stream", "text": "cpu False\n2\n"}]


def test_the_figure_s_text_moves_to_the_cell(executed: Path) -> None:
    assert notebooks.read(executed)["cells"][2]["metadata"] == {"mystnb": {"image": {"alt": "A red square."}}}


def test_an_executed_chapter_passes_every_check(executed: Path) -> None:
    notebook = notebooks.read(executed)
    assert [problem for check in notebooks.CHECKS for problem in check(notebook)] == []
    assert notebooks.as_text(notebook) == executed.read_text(encoding="utf-8")
    assert notebook["metadata"]["divcolor"]["seconds"] == 30


def test_a_second_run_leaves_no_difference(executed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = executed.read_bytes()
    monkeypatch.setattr(execute, "time", clock(seconds=29))
    assert "fresh" in execute_file(executed)
    assert "nothing changed" in execute_file(executed, force=True)
    assert executed.read_bytes() == before


def test_changed_code_is_run_again(executed: Path, tmp_path: Path) -> None:
    notebook = notebooks.read(executed)
    notebook["cells"][1]["source"] = "print(4)"
    path = tmp_path / "changed.ipynb"
    write(path, notebook)
    assert "written" in execute_file(path)
    assert notebooks.read(path)["cells"][1]["outputs"][0]["text"] == "4\n"


def test_a_chapter_that_raises_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "bad.ipynb", "1 / 0")
    before = path.read_bytes()
    assert main([str(path)]) == 1
    assert path.read_bytes() == before
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_a_cell_s_own_text_stays_when_its_figure_brings_none() -> None:
    cell: dict[str, Any] = {
        "cell_type": "code",
        "metadata": {"mystnb": {"image": {"alt": "By hand."}}},
        "outputs": [{"data": {"image/png": ""}}],
    }
    assert with_alt_texts({"cells": [cell]})["cells"][0]["metadata"]["mystnb"]["image"]["alt"] == "By hand."


@pytest.mark.parametrize(
    ("before", "measured", "recorded"), [(None, 0.2, 1), (None, 7.6, 8), (10, 12.4, 10), (10, 20.2, 20), (60, 50.0, 60), (60, 20.0, 20)]
)
def test_a_recorded_time_changes_only_when_it_clearly_differs(before: int | None, measured: float, recorded: int) -> None:
    assert recorded_seconds(before, measured) == recorded


def test_the_chapter_s_environment_has_no_switch_of_the_user() -> None:
    user = {"DIVCOLOR_DATASET": "lfw", "DIVCOLOR_PROFILE": "gpu", "MPLBACKEND": "Agg", "HOME": "h", "OMP_NUM_THREADS": "1"}
    found = chapter_environment(user)
    assert {name: value for name, value in found.items() if name.startswith("DIVCOLOR_")} == {"DIVCOLOR_PROFILE": "cpu"}
    assert "MPLBACKEND" not in found
    assert found["HOME"] == "h" and found["OMP_NUM_THREADS"] == "1"
    assert chapter_environment({})["OMP_NUM_THREADS"] == "2"
