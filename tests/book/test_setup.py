"""What sets up `.venv`: versions, the key of the stamp, and the fallback to OpenCV without windows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from book._tools import setup_venv

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("version", [(3, 10), (3, 11, 7), (3, 13, 0)])
def test_a_python_in_the_range_is_accepted(version: tuple[int, ...]) -> None:
    assert setup_venv.version_problem(version) == ""


@pytest.mark.parametrize("version", [(2, 7), (3, 9, 18), (3, 14), (4, 0)])
def test_another_python_is_named_in_the_message(version: tuple[int, ...]) -> None:
    problem = setup_venv.version_problem(version)
    assert "3.10 to 3.13" in problem and ".".join(map(str, version[:2])) in problem


def test_an_old_python_can_read_the_script() -> None:
    source = Path(setup_venv.__file__).read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))
    assert 'f"' not in source and ":=" not in source


def test_the_headless_requirements_hold_one_opencv_only() -> None:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    headless = setup_venv.without_a_display(text)
    assert [line for line in headless.splitlines() if line.startswith("opencv")] == ["opencv-python-headless>=4.8.0.76"]
    assert [line for line in text.splitlines() if line.startswith("opencv")] == ["opencv-python>=4.8.0.76"]
    assert setup_venv.without_a_display(headless) == headless


def test_the_key_changes_with_the_requirements(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("requirements.txt", "pyproject.toml", "book/_tools/setup_venv.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(setup_venv, "ROOT", tmp_path)
    first = setup_venv.key()
    assert setup_venv.key() == first
    (tmp_path / "requirements.txt").write_text("torch\n")
    assert setup_venv.key() != first


def test_ci_runs_the_command_that_the_readme_names() -> None:
    script = ROOT / ".ci" / "run"
    assert script.read_text(encoding="utf-8").splitlines()[-1] == "make test"
    assert "\nmake test " in (ROOT / "README.md").read_text(encoding="utf-8")
    assert sys.platform == "win32" or script.stat().st_mode & 0o111


def test_all_lower_bounds_of_the_package_stand_in_the_requirements_too() -> None:
    requirements = {line.split(",")[0] for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("dependencies = [")[1].split("]")[0]
    wanted = yaml.safe_load("[" + project + "]")
    assert wanted and set(wanted) <= requirements
    assert not [bound for bound in wanted if "<" in bound or "==" in bound]


def test_every_package_of_the_library_is_installed() -> None:
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "divcolor_lib").rglob("__init__.py")}
    named = re.search(r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert named and {Path(*name.strip(' "').split(".")) for name in named[1].split(",")} == folders


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_in_the_place_of_the_environment_is_replaced_and_what_it_names_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("kept")
    (tmp_path / ".venv").symlink_to(tmp_path / "theirs")
    monkeypatch.setattr(setup_venv, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(setup_venv, "ROOT", tmp_path)

    def pretend(*command: object) -> subprocess.CompletedProcess[str]:
        assert not (tmp_path / ".venv").is_symlink()  # `venv --clear` would empty what it names
        (tmp_path / ".venv").mkdir(exist_ok=True)
        return subprocess.CompletedProcess([str(part) for part in command], 0, "", "")

    monkeypatch.setattr(setup_venv, "run", pretend)
    setup_venv.make_venv(tmp_path / ".venv" / "bin" / "python")
    assert (tmp_path / ".venv" / "folder.txt").read_text() == str(tmp_path)
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["file"]
