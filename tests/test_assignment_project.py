"""The example project of assignment 4 runs from album to failure gallery, and its table says what the album holds."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from assignments._tools import build, exam, source
from book._tools.notebooks import text_of
from divcolor_lib import plots

ASSIGNMENT = source.load(4)
FEW = {"PEOPLE, DARKNESS, SEED = 240": "PEOPLE, DARKNESS, SEED = 20", "80,": "2,", "160,": "2,", "400}": "4}"}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(cells: Sequence[str], changes: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[SimpleNamespace, list[str]]:
    """Run our toolkit and cells of the project, with changed settings; return what they define, and what their figures say."""
    told: list[str] = []

    def show(figure: Any) -> None:
        told.append(plots.alt_text(figure))
        plots.close(figure)

    monkeypatch.setattr(plots, "show", show)
    texts = {cell["id"]: text_of(cell["source"]) for cell in build.solution_notebook(ASSIGNMENT)["cells"]}
    space = dict(vars(exam.solution_of(ASSIGNMENT)))
    settings = texts["project-settings"]
    for old, new in {"RUN = False": "RUN = True", **changes}.items():
        assert settings.count(old) == 1, old
        settings = settings.replace(old, new)
    for code in (settings, *(texts[name] for name in cells)):
        assert code.startswith(source.NOT_GRADED)
        exec(compile(code, "<project>", "exec"), space)
    return SimpleNamespace(**space), told


def test_the_table_of_the_example_tells_what_the_album_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    found, told = run(["project-data"], {}, monkeypatch)
    table = found.RESULTS
    assert {name: round(value, 4) for name, value in found.facts.items()} == table["data"]
    assert found.counts == table["parts"]
    assert len(found.pairs) == 31 and len(found.across) == 12
    names = sorted({group for group in found.drawn_album(240, 0.0, 404)[1] if group.startswith("unknown")})
    assert len(names) == 12 and not [group for group in found.groups if group in names]  # each was merged into its person
    assert len(told) == 1 and "person 003 and unknown 009" in told[0]


def test_the_example_project_runs_from_album_to_failures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found, told = run(["project-data", "project-train", "project-measure", "project-look"], FEW, monkeypatch)
    names = {part: {group for group, own in zip(found.groups, mask.tolist()) if own} for part, mask in found.parts.items()}
    assert not names["test"] & (names["training"] | names["validation"]) and not names["training"] & names["validation"]
    space: dict[str, Any] = {}
    exec(ASSIGNMENT.task("report").hidden, space)
    printed = capsys.readouterr().out.split("under Freeze:\n\n")[1]
    table: dict[str, Any] = {}
    exec(printed, table)
    assert space["holes"](table["RESULTS"]) == [] and space["contradictions"](table["RESULTS"]) == []
    assert len([text for text in told if "truth" in text]) == 3


def test_without_being_asked_the_project_waits(capsys: pytest.CaptureFixture[str]) -> None:
    cells = [text_of(cell["source"]) for cell in ASSIGNMENT.notebook["cells"] if cell["cell_type"] == "code"]
    space: dict[str, Any] = {"torch": torch, "RESULTS": ...}
    exec(next(text for text in cells if "def numbers_in" in text), space)
    for text in (text for text in cells if text.startswith(source.NOT_GRADED)):
        exec(compile("import numpy as np\n" + text, "<project>", "exec"), space)
    assert "set RUN = True" in capsys.readouterr().out and "trained" not in space
