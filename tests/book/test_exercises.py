"""Every exercise: the stub is not done yet, the solution passes, typical wrong answers are rejected with a message that names the mistake.

Stubs and solutions are read from the chapters; the wrong answers are in `wrong_answers/chapter_N.py`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from book._tools import notebooks
from book._tools.fingerprint import code_sources, parsed
from divcolor_lib.checks import Verdict

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = sorted(int(path.stem.split("_")[1]) for path in (ROOT / "divcolor_lib" / "checks").glob("chapter_*.py"))
LEAST_WRONG = 3


def checks_of(number: int) -> ModuleType:
    return importlib.import_module(f"divcolor_lib.checks.chapter_{number}")


def names_of(number: int) -> list[str]:
    """The checks of a chapter, by name."""
    module = checks_of(number)
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and "strict" in value.__annotations__
    ]


def wrong_answers(number: int) -> dict[str, list[tuple[str, Any, str]]]:
    found: dict[str, list[tuple[str, Any, str]]] = importlib.import_module(f"tests.book.wrong_answers.chapter_{number}").WRONG
    return found


def chapter(number: int) -> notebooks.Notebook:
    (path,) = (ROOT / "book").glob(f"{number:02d}_*.ipynb")
    return notebooks.read(path)


def run_cell(number: int, cell_id: str) -> list[Verdict]:
    """Run one cell after the imports of its chapter, and nothing else; return the verdicts of the checks that it calls."""
    notebook, verdicts = chapter(number), []
    imports = [node for text in code_sources(notebook) for node in parsed(text).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    space: dict[str, Any] = {}
    exec(compile(ast.Module(imports, []), "imports", "exec"), space)
    check = space["check"]

    class Recording:
        def __getattr__(self, name: str) -> Any:
            def recorded(*arguments: Any, **options: Any) -> Verdict:
                verdicts.append(getattr(check, name)(*arguments, **options))
                return verdicts[-1]

            return recorded

    space["check"] = Recording()
    (cell,) = [cell for cell in notebook["cells"] if cell["id"] == cell_id]
    exec(notebooks.text_of(cell["source"]), space)
    return verdicts


EXERCISES = [(number, name) for number in NUMBERS for name in names_of(number)]


def test_there_are_exercises() -> None:
    assert EXERCISES


@pytest.mark.parametrize("number", NUMBERS)
def test_a_chapter_has_three_to_six_exercises_and_each_has_its_check(number: int) -> None:
    ids = [str(cell["id"]) for cell in chapter(number)["cells"]]
    posed = [name.removeprefix("exercise-") for name in ids if name.startswith("exercise-")]
    assert 3 <= len(posed) <= 6
    assert sorted(posed) == sorted(names_of(number)) == sorted(wrong_answers(number))


@pytest.mark.parametrize(("number", "name"), EXERCISES)
def test_the_stub_is_not_done_yet(number: int, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (verdict,) = run_cell(number, f"exercise-{name}")
    assert not verdict and not verdict.done
    assert capsys.readouterr().out == f"{name.replace('_', ' ')}\n  not done yet\n"


@pytest.mark.parametrize(("number", "name"), EXERCISES)
def test_the_solution_passes(number: int, name: str) -> None:
    (verdict,) = run_cell(number, f"solution-{name}")
    assert verdict and len(verdict.lines) >= 2


WRONG = [(number, name, *wrong) for number in NUMBERS for name, wrongs in wrong_answers(number).items() for wrong in wrongs]


@pytest.mark.parametrize(("number", "name", "what", "answer", "message"), WRONG, ids=[f"{n}-{name}-{what}" for n, name, what, *_ in WRONG])
def test_a_wrong_answer_is_rejected_and_its_mistake_named(number: int, name: str, what: str, answer: Any, message: str) -> None:
    check = getattr(checks_of(number), name)
    verdict = check(answer, quiet=True)
    told = "\n".join(text for right, text in verdict.lines if not right)
    assert verdict.done and not verdict
    assert re.search(message, told), told
    with pytest.raises(AssertionError, match=re.escape(name)):
        check(answer, strict=True, quiet=True)


@pytest.mark.parametrize(("number", "name"), EXERCISES)
def test_there_are_at_least_three_wrong_answers_and_their_messages_differ(number: int, name: str) -> None:
    wrongs = wrong_answers(number)[name]
    check = getattr(checks_of(number), name)
    told = {"\n".join(text for right, text in check(answer, quiet=True).lines if not right) for _, answer, _ in wrongs}
    assert len(wrongs) >= LEAST_WRONG
    assert len(told) >= LEAST_WRONG
