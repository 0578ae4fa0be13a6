"""What `make versions` installs and runs; the installing itself takes gigabytes and is not done here."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from book._tools import setup_venv, versions

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
REQUIREMENTS = (ROOT / "requirements.txt").read_text(encoding="utf-8")
SMALL = '[project]\ndependencies = ["torch>=2.4", "gdown>=5.2"]\n'


def test_the_oldest_is_every_lower_bound_and_the_newest_is_free() -> None:
    assert versions.library("oldest", SMALL) == ["torch==2.4", "gdown==5.2"]
    assert versions.library("newest", SMALL) == ["torch>=2.4", "gdown>=5.2"]


def test_the_bounds_are_read_from_the_project_itself() -> None:
    lines = versions.library("oldest", PYPROJECT)
    assert {line.split("==")[0] for line in lines} >= {"torch", "numpy", "opencv-python", "pillow", "gdown"}
    assert all(line.replace("==", ">=") in PYPROJECT for line in lines) and "==" not in PYPROJECT.split("dependencies = [")[1].split("]")[0]


@pytest.mark.parametrize("requirement", ["torch", "torch>=2.4,<3", "torch~=2.4", "torch>=2.4; python_version<'3.11'", "torch==2.4"])
def test_a_dependency_has_one_lower_bound(requirement: str) -> None:
    with pytest.raises(SystemExit, match=re.escape(requirement)):
        versions.pinned(requirement)


def test_the_tools_are_what_tests_need_beside_the_library() -> None:
    names = [re.split("[<>=]", line)[0] for line in versions.tools(REQUIREMENTS, PYPROJECT)]
    assert {"pytest", "pytest-timeout", "hypothesis", "scikit-image", "nbval", "setuptools"} <= set(names)
    assert not {"torch", "numpy", "opencv-python", "jupyter-book", "mypy", "ruff", "types-tqdm", ""} & set(names)


def test_the_pythons_are_the_ends_of_the_range_that_the_book_names() -> None:
    assert versions.PYTHONS == {"oldest": setup_venv.OLDEST, "newest": setup_venv.NEWEST}
    assert f'requires-python = ">={".".join(map(str, setup_venv.OLDEST))}"' in PYPROJECT


def test_the_command_runs_every_test_of_the_library_but_style_and_types() -> None:
    command = versions.command(Path("python"))
    assert command[:5] == ["python", "-X", "warn_default_encoding", "-m", "pytest"]
    assert {f"tests/{path.name}" for path in (ROOT / "tests").glob("test_*.py")} <= set(command)
    left_out = [part.removeprefix("--deselect=").split("::") for part in command if part.startswith("--deselect=")]
    assert len(left_out) == 2
    for file, test in left_out:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), "what is left out must still have this name"
    assert versions.command(Path("python"), ["tests/test_lab.py"])[-1] == "tests/test_lab.py"


def test_another_python_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    name = next(name for name, version in versions.PYTHONS.items() if version != sys.version_info[:2])
    wanted = ".".join(map(str, versions.PYTHONS[name]))
    for wrong in (sys.executable, str(tmp_path / "absent")):
        with pytest.raises(SystemExit, match=rf"Python {wanted} is needed(.|\n)*{name.upper()}="):
            versions.main([name, f"--{name}-python", wrong, "--under", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("failed", "code"), [((), 0), (("newest",), 1)])
def test_both_environments_are_tested_and_told_in_one_table(
    failed: Sequence[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[tuple[str, str]] = []

    def run_tests(python: Path, arguments: Sequence[str]) -> tuple[int, str]:
        assert list(arguments) == ["-k", "lab"]
        name = python.relative_to(tmp_path).parts[0].removeprefix(".venv-")
        return (1, "1 failed, 2 passed in 3.21s") if name in failed else (0, "3 passed in 3.21s (0:00:03)")

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        printed = "torch==2.4.0\nopencv-python-headless==4.8.0.76\nPillow==10.0.0\n" if "pip" in command else "3.10.13\n"
        return subprocess.CompletedProcess([], 0, printed)

    monkeypatch.setattr(versions, "problem", lambda name, executable: "")
    monkeypatch.setattr(versions, "build", lambda name, executable, folder: made.append((executable, folder.name)))
    monkeypatch.setattr(versions, "run_tests", run_tests)
    monkeypatch.setattr(setup_venv, "run", run)
    given = ["oldest", "newest", "--under", str(tmp_path), "--newest-python", "mine", "--pytest", "-k", "lab"]
    assert versions.main(given) == code
    assert made == [("python3.10", ".venv-oldest"), ("mine", ".venv-newest")]
    oldest, newest = capsys.readouterr().out.strip().splitlines()
    assert oldest.startswith("| oldest | Python 3.10.13, torch 2.4.0, numpy absent, opencv-python 4.8.0.76, pillow 10.0.0, ")
    assert oldest.endswith("| 3 passed |") and newest.endswith("| 1 failed, 2 passed |" if failed else "| 3 passed |")


def test_what_pytest_prints_passes_through(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    program = "print('one'); print('2 passed in 1.0s'); print(); raise SystemExit(5)"
    monkeypatch.setattr(versions, "command", lambda python, arguments: [str(python), "-c", program])
    assert versions.run_tests(Path(sys.executable), []) == (5, "2 passed in 1.0s")
    assert capsys.readouterr().out.splitlines() == ["one", "2 passed in 1.0s", ""]


def test_make_names_both_environments() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "-m book._tools.versions oldest newest" in makefile
    assert ".venv-*/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_the_page_of_machines_tells_the_versions_that_the_project_admits_today() -> None:
    page = (ROOT / "book" / "machines.md").read_text(encoding="utf-8")
    told = {name.lower(): oldest for name, oldest in re.findall(r"^\| (\w+) \| ([\d.]+) \|", page, re.MULTILINE)}
    bounds = dict(line.split("==") for line in versions.library("oldest", PYPROJECT))
    bounds["opencv"] = ".".join(bounds.pop("opencv-python").split(".")[:3])
    assert told.keys() == {"python", *bounds} and told.pop("python").startswith(".".join(map(str, setup_venv.OLDEST)) + ".")
    assert {name: told[name] for name in bounds if not f"{told[name]}.".startswith(f"{bounds[name]}.")} == {}
