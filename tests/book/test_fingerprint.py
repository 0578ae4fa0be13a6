"""The fingerprint changes with all that decides a chapter's outputs, and with nothing else."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from book._tools import fingerprint as fp

CELLS = ["from divcolor_lib import lab\n", "%matplotlib inline\nprint(lab.f(1), 'results_a.json')"]


def notebook(*sources: str, **metadata: Any) -> dict[str, Any]:
    cells = [{"cell_type": "code", "source": source} for source in sources or CELLS]
    return {"cells": cells, "metadata": {"divcolor": metadata} if metadata else {}}


EVERY = ["__init__", "errors", "figures", "figures.one", "figures.three", "figures.two", "lab", "train"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {
        "divcolor_lib/__init__.py": '"""The package."""\n',
        "divcolor_lib/errors.py": "class E(Exception):\n    'An error.'\n",
        "divcolor_lib/lab.py": '"""Colors."""\nfrom .errors import E\n\n\ndef f(x):\n    """Return x."""\n    return x\n',
        "divcolor_lib/train.py": "from . import lab\nFOLDER = 'artifacts'\n",
        "divcolor_lib/figures/__init__.py": "from ..lab import f\n",
        "divcolor_lib/figures/one.py": "from . import two\nfrom .three import g\n",
        "divcolor_lib/figures/two.py": "",
        "divcolor_lib/figures/three.py": "g = 1\n",
        "divcolor_lib/artifacts/a.bin": "a",
        "divcolor_lib/artifacts/b.bin": "b",
        "book/results/results_a.json": "{}",
        "book/results/results_b.json": "{}",
        "book/quizzes/01.json": "{}",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))

    return change


MATTERS = [
    replace("divcolor_lib/lab.py", "return x", "return x + 1"),
    replace("divcolor_lib/errors.py", "class E(Exception)", "class E(ValueError)"),
    replace("divcolor_lib/__init__.py", '"""The package."""', "import os"),
    replace("book/results/results_a.json", "{}", "[]"),
]
MATTERS_NOT = [
    replace("divcolor_lib/lab.py", "Return x.", "Return what came in."),
    replace("divcolor_lib/lab.py", '"""Colors."""', "# a comment"),
    replace("divcolor_lib/errors.py", "'An error.'", "'''Another.'''"),
    replace("divcolor_lib/train.py", "from . import lab", "from . import errors"),
    replace("book/results/results_b.json", "{}", "[]"),
    replace("divcolor_lib/artifacts/a.bin", "a", "c"),
]


@pytest.mark.parametrize("change", MATTERS)
def test_code_that_a_chapter_reaches_matters(root: Path, change: Callable[[Path], None]) -> None:
    before = fp.fingerprint(notebook(), root)
    change(root)
    assert fp.fingerprint(notebook(), root) != before


@pytest.mark.parametrize("change", MATTERS_NOT)
def test_words_and_other_files_do_not_matter(root: Path, change: Callable[[Path], None]) -> None:
    before = fp.fingerprint(notebook(), root)
    change(root)
    assert fp.fingerprint(notebook(), root) == before


def test_the_cells_code_matters_and_their_comments_and_the_prose_do_not(root: Path) -> None:
    before = fp.fingerprint(notebook(), root)
    assert fp.fingerprint(notebook(CELLS[0], CELLS[1].replace("1", "2")), root) != before
    assert fp.fingerprint(notebook(CELLS[0], CELLS[1].replace("inline", "agg")), root) != before
    assert fp.fingerprint(notebook(CELLS[0] + "  # why\n", CELLS[1]), root) == before
    prose = notebook()
    prose["cells"].append({"cell_type": "markdown", "source": "# A title"})
    assert fp.fingerprint(prose, root) == before


def test_a_quiz_matters_to_the_chapter_that_shows_it(root: Path) -> None:
    shown, other = notebook("quiz.show('quizzes/01.json')"), notebook("1")
    before = fp.fingerprint(shown, root), fp.fingerprint(other, root)
    (root / "book/quizzes/01.json").write_text("[]")
    assert fp.fingerprint(shown, root) != before[0] and fp.fingerprint(other, root) == before[1]


def test_artifacts_matter_to_a_chapter_whose_modules_speak_of_them(root: Path) -> None:
    chapter = notebook("from divcolor_lib import train")
    before = fp.fingerprint(chapter, root)
    (root / "divcolor_lib/artifacts/b.bin").write_text("c")
    assert fp.fingerprint(chapter, root) != before


def test_a_list_of_artifacts_names_those_that_matter(root: Path) -> None:
    chapter = notebook("from divcolor_lib import train", artifacts=["a.bin"])
    before = fp.fingerprint(chapter, root)
    (root / "divcolor_lib/artifacts/b.bin").write_text("c")
    assert fp.fingerprint(chapter, root) == before
    (root / "divcolor_lib/artifacts/a.bin").write_text("c")
    assert fp.fingerprint(chapter, root) != before


def test_a_listed_artifact_that_is_absent_is_an_error(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"c\.bin"):
        fp.fingerprint(notebook(artifacts=["c.bin"]), root)


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import numpy", []),
        ("import divcolor_lib", ["__init__"]),
        ("import divcolor_lib\ndivcolor_lib.errors", ["__init__", "errors"]),
        ("import divcolor_lib.lab as l", ["__init__", "errors", "lab"]),
        ("from divcolor_lib import train, f", ["__init__", "errors", "lab", "train"]),
        ("from divcolor_lib.lab import f", ["__init__", "errors", "lab"]),
        ("def g():\n    from divcolor_lib import errors", ["__init__", "errors"]),
        ("from divcolor_lib import *", EVERY),
        ("!python -m divcolor_lib train", EVERY),
        ("from divcolor_lib import figures", ["errors", "figures", "lab"]),
        ("from divcolor_lib.figures import two, show", ["errors", "figures", "figures.two", "lab"]),
        ("import divcolor_lib.figures.two as t", ["errors", "figures", "figures.two", "lab"]),
        ("from divcolor_lib.figures.one import f", ["errors", "figures", "figures.one", "figures.three", "figures.two", "lab"]),
    ],
)
def test_imports_are_followed(root: Path, code: str, modules: list[str]) -> None:
    found = fp.needed_modules([fp.parsed(code)], root / "divcolor_lib")
    assert [name for name in found if name != "__init__"] == [name for name in modules if name != "__init__"]
    assert ("__init__" in found) == bool(modules)


def test_a_module_that_only_names_the_command_does_not_reach_every_module(root: Path) -> None:
    path = root / "divcolor_lib" / "errors.py"
    path.write_text(path.read_text(encoding="utf-8") + '\nTODO = "Run python -m divcolor_lib train."\n', encoding="utf-8")
    assert fp.needed_modules([fp.parsed("from divcolor_lib import errors")], root / "divcolor_lib") == ["__init__", "errors"]


def test_the_written_tree_names_no_field_that_only_some_python_versions_know() -> None:
    tree = ast.parse("def f(a, *, b=1):\n    return f'{a!r:>{b}} {b}'\nclass C: pass\nx: int = (1, 'a')")
    text = fp.written(tree)
    assert not {"type_params", "ctx", "kind", "type_ignores"} & set(text.replace("(", ",").replace("=", ",").split(","))
    expected = "Module(body=[Assign(targets=[Name(id='x')],value=BinOp(left=Constant(value=1),op=Add(),right=Name(id='y')))])"
    assert fp.written(ast.parse("x = 1 + y")) == expected
