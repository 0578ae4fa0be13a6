"""The whole repository: style, types, examples in docstrings, the order of the modules, and no trace of one machine."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from book._tools.fingerprint import imported_modules, module_files, package_of

ROOT = Path(__file__).resolve().parents[1]
# A module imports only modules that stand before it.
ORDER = (
    *("errors", "runtime", "parallel", "lab", "bins", "portraits", "download", "data", "losses", "autoencoder", "cvae", "features", "mdn"),
    *("train", "cost", "colorize", "metrics", "ablation", "plots", "checks", "__main__"),
)
FILES = module_files(ROOT / "divcolor_lib")
MODULES = sorted(set(FILES) - {"__init__"})
TEXT_FILES = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".cfg", ".cff", ".css", ".json", ".ipynb", ".svg", ""}
MACHINE = re.compile(r"(?<![\w.])/(?:root|work|home/[a-z]|Users/[A-Za-z]|tmp/[a-z])[\w/]*")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)


def test_ruff_finds_nothing_in_code_and_chapters() -> None:
    done = run("ruff", "check", ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_finds_nothing() -> None:
    done = run("mypy")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_are_true(name: str) -> None:
    if name == "__main__":
        pytest.skip("importing it would run it")
    assert doctest.testmod(importlib.import_module(f"divcolor_lib.{name}")).failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_those_before_it(name: str) -> None:
    idea = name.split(".")[0]
    assert idea in ORDER, f"{name} has no place in the order of modules"
    named = imported_modules([ast.parse(FILES[name].read_text(encoding="utf-8"))], package_of(name, FILES))
    itself = {idea} if "." in name else set()
    assert not {module for module in named if "." not in module} & (set(ORDER[ORDER.index(idea) :]) - itself)


def tracked_text_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name and not name.startswith("book/_extra/")]
    return [path for path in paths if path.suffix in TEXT_FILES and path.is_file()]


def test_no_file_names_a_path_of_one_machine() -> None:
    here = Path(__file__).resolve()
    guards = {here, ROOT / "book" / "_tools" / "notebooks.py", ROOT / "tests" / "book" / "test_notebooks.py"}
    found = {}
    for path in tracked_text_files():
        if path not in guards and (match := MACHINE.search(re.sub(r'"image/\w+": "[^"]*"', "", path.read_text(encoding="utf-8")))):
            found[str(path.relative_to(ROOT))] = match[0]
    assert not found


def test_the_guard_against_machine_paths_can_fail() -> None:
    assert MACHINE.search("see /root/x") and MACHINE.search("'/home/me/a'") and not MACHINE.search("https://a.org/home/me and ./tmp/x")
