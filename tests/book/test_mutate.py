"""`make mutate` counts a fault as noticed only when the right chapter says so for the right reason."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from book._tools import mutate
from book._tools.mutate import (
    BREACHES,
    MUTATIONS,
    Breach,
    Mutation,
    apply,
    copy_of_the_tree,
    failures,
    judge,
    judge_breach,
    notices,
    proves,
)

ROOT = Path(__file__).resolve().parents[2]
SIGN = Mutation("the sign", "01_toy", "toy", "return x", "return -x")


def cell(source: str, text: str = "", tags: tuple[str, ...] = ()) -> dict[str, Any]:
    outputs = [{"name": "stdout", "output_type": "stream", "text": text}] if text else []
    return {
        "cell_type": "code",
        "execution_count": 1,
        "id": f"c{abs(hash(source))}",
        "metadata": {"tags": list(tags)},
        "outputs": outputs,
        "source": source,
    }


def tree(root: Path, *cells: dict[str, Any]) -> Path:
    """A repository with one module, one chapter and one checkpoint."""
    notebook = {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    files = {
        "divcolor_lib/__init__.py": "",
        "divcolor_lib/toy.py": "def same(x):\n    return x\n",
        "divcolor_lib/artifacts/a.safetensors": "a",
        "book/01_toy.ipynb": json.dumps(notebook),
        "pyproject.toml": '[tool.pytest.ini_options]\naddopts = ["--nbval-lax", "--nbval-current-env"]\n',
        ".gitignore": "ignored\n",
        "ignored": "x",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return root


LOAD = cell("from divcolor_lib.toy import same")
ASSERTS = cell("assert same(2) == 2, 'the sign'")
PRINTS = cell("print(same(2))", "2\n", ("nbval-check-output",))
BREAKS = cell("[0, 1, 2][same(2)] / (same(2) + 2)\n{2: 1}[same(2)]")
CHECKS_NOTHING = cell("same(2)")


@pytest.mark.parametrize(
    ("cells", "noticed"),
    [
        ([LOAD, ASSERTS], True),
        ([LOAD, PRINTS], True),
        ([LOAD, BREAKS], False),
        ([LOAD, CHECKS_NOTHING], False),
        ([LOAD, BREAKS, ASSERTS], False),
    ],
    ids=["an assertion", "an output", "another error", "nothing", "another error first"],
)
def test_only_an_assertion_or_an_output_counts(tmp_path: Path, cells: list[dict[str, Any]], noticed: bool) -> None:
    root = tree(tmp_path, *cells)
    assert failures("01_toy", root) == []
    found, how = judge(SIGN, root)
    assert found is noticed
    assert how


def test_the_copy_lacks_checkpoints_and_ignored_files_and_the_original_stays(tmp_path: Path) -> None:
    root = tree(tmp_path, LOAD)
    with copy_of_the_tree(root) as copy:
        apply(SIGN, copy)
        assert "return -x" in (copy / "divcolor_lib" / "toy.py").read_text()
        assert not list(copy.glob(mutate.CHECKPOINTS)) and not (copy / "ignored").exists()
    assert not copy.exists()
    assert "return -x" not in (root / "divcolor_lib" / "toy.py").read_text()
    assert list(root.glob(mutate.CHECKPOINTS))


def test_a_chapter_that_is_not_run_is_a_failure_and_is_not_noticed(tmp_path: Path) -> None:
    root = tree(tmp_path, LOAD)
    assert failures("02_absent", root) == ["nothing was run"]
    assert not notices(["nothing was run"]) and not notices([])


def test_a_fault_that_fits_nowhere_is_an_error(tmp_path: Path) -> None:
    root = tree(tmp_path, LOAD)
    with pytest.raises(ValueError, match="0 times"):
        apply(Mutation("", "01_toy", "toy", "return y", ""), root)


# --- promises ---

PROMISE = "from divcolor_lib.toy import same\n\ndef test_it():\n    {}\n\ndef test_other():\n    assert same(2) == 2\n"


@pytest.mark.parametrize(
    ("body", "new", "noticed"),
    [
        ("assert same(2) == 2", "return -x", True),
        ("'abc'[same(2)]\n    'abcdef'[same(2) + 2]\n    {2: 1}[same(2)]", "return -x", True),
        ("assert same(0) == 0", "return -x", False),
        ("assert same(2) == 2", "return y", False),
        ("import divcolor_lib.toy\n    assert same(2) == 2", "import absent", False),
        ("assert same(2) == 2", "return (", False),
    ],
    ids=["an assertion", "another error", "another test alone", "an unknown name", "an unknown module", "no Python"],
)
def test_only_the_named_test_counts_and_the_broken_file_must_be_python(tmp_path: Path, body: str, new: str, noticed: bool) -> None:
    root = tree(tmp_path)
    (root / "test_promise.py").write_text(PROMISE.format(body))
    breach = Breach("the sign", "test_promise.py::test_it", "divcolor_lib/toy.py", "return x", new)
    assert judge_breach(breach, root)[0] is noticed
    assert "return x" in (root / "divcolor_lib" / "toy.py").read_text()


def test_a_test_that_is_not_there_or_is_skipped_proves_nothing(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "test_promise.py").write_text("import pytest\n\ndef test_it():\n    pytest.skip('not here')\n")
    for name in ("test_it", "test_absent"):
        assert not judge_breach(Breach("", f"test_promise.py::{name}", "divcolor_lib/toy.py", "return x", "return -x"), root)[0]
    assert not proves([]) and not proves([("error", "E  AssertionError")]) and proves([("failure", "E  AssertionError")])


@pytest.mark.parametrize("breach", BREACHES, ids=lambda breach: breach.what)
def test_every_breach_fits_the_repository_as_it_is(breach: Breach) -> None:
    assert (ROOT / breach.file).read_text(encoding="utf-8").count(breach.old) == 1
    assert breach.new != breach.old


def test_at_least_ten_promises_are_broken_and_no_fault_twice() -> None:
    assert len({(breach.file, breach.old) for breach in BREACHES}) == len(BREACHES) >= 10
    assert len({breach.what for breach in BREACHES}) == len(BREACHES)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_every_mutation_fits_the_library_as_it_is(mutation: Mutation) -> None:
    text = (ROOT / "divcolor_lib" / f"{mutation.module}.py").read_text(encoding="utf-8")
    assert text.count(mutation.old) == 1
    assert mutation.new != mutation.old
    assert (ROOT / "book" / f"{mutation.chapter}.ipynb").is_file()
