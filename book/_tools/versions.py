"""Run the library's tests with the oldest and with the newest versions that the package admits: `make versions`.

Each gets a fresh environment, `.venv-oldest` and `.venv-newest`: the oldest Python with every dependency of pyproject.toml
at its lower bound, the newest Python with the newest of each; test tools are the newest that fit. At the end stands one line
for each environment, as the table in `book/machines.md` wants it.

Left out are the checks of style and types, which judge the source and not the versions, and the book itself: jupyter-book
makes pages and is no dependency of the library. Chapters run when they are named:

    python -m book._tools.versions newest --keep --pytest book/04_elbo.ipynb
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import setup_venv

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it along
    import tomli as tomllib

ROOT = setup_venv.ROOT
PYTHONS = {"oldest": setup_venv.OLDEST, "newest": setup_venv.NEWEST}
NOT_FOR_TESTS = ("jupyter-book", "ruff", "mypy", "types-")
NOT_RUN = ("tests/test_style.py::test_ruff_finds_nothing_in_code_and_chapters", "tests/test_style.py::test_mypy_finds_nothing")


def dependencies(pyproject: str) -> list[str]:
    """Return what the package needs, as the text of pyproject.toml says it."""
    return list(tomllib.loads(pyproject)["project"]["dependencies"])


def pinned(requirement: str) -> str:
    """Return the requirement that admits the lower bound alone: `torch==2.4` for `torch>=2.4`.

    Raises:
        SystemExit: the requirement is more, or less, than one lower bound.
    """
    found = re.fullmatch(r"([\w.-]+)>=([\d.]+)", requirement)
    if not found:
        raise SystemExit(f"pyproject.toml asks for `{requirement}`; a dependency has one lower bound and nothing else.")
    return f"{found[1]}=={found[2]}"


def library(name: str, pyproject: str) -> list[str]:
    """Return what the library needs in the environment `oldest` or `newest`, as lines for pip."""
    return [pinned(line) if name == "oldest" else line for line in dependencies(pyproject)]


def tools(requirements: str, pyproject: str) -> list[str]:
    """Return the lines of requirements.txt that the tests need beside the library's own."""
    own = {_package(line) for line in dependencies(pyproject)}
    lines = [line.partition("#")[0].strip() for line in requirements.splitlines()]
    return [line for line in lines if line and _package(line) not in own and not line.startswith(NOT_FOR_TESTS)]


def problem(name: str, executable: str) -> str:
    """Return why `executable` cannot be the Python of this environment, or an empty string."""
    wanted = ".".join(map(str, PYTHONS[name]))
    try:
        spoken = setup_venv.run(executable, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").stdout.strip()
    except OSError:
        spoken = "nothing"
    if spoken == wanted:
        return ""
    return f"Python {wanted} is needed and `{executable}` is not it.\nName one: make versions {name.upper()}=/path/to/python{wanted}"


def build(name: str, executable: str, folder: Path) -> None:
    """Make the environment afresh in `folder`, with the library and what its tests need."""
    pyproject, requirements = ((ROOT / file).read_text(encoding="utf-8") for file in ("pyproject.toml", "requirements.txt"))
    print(f"Making {folder.name} with {executable}; pip may fetch some gigabytes for torch ...", flush=True)
    setup_venv.check(setup_venv.run(executable, "-m", "venv", "--clear", folder))
    setup_venv.install_all(python_of(folder), "\n".join(library(name, pyproject) + tools(requirements, pyproject)) + "\n")


def python_of(folder: Path) -> Path:
    """Return the Python of the virtual environment in `folder`."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def command(python: Path, arguments: Sequence[str] = ()) -> list[str]:
    """Return the command that runs the tests; opening a text file without naming its encoding is an error in our own code."""
    tests = list(arguments) or [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "tests").glob("test_*.py"))]
    left_out = [f"--deselect={test}" for test in NOT_RUN]
    return [str(python), "-X", "warn_default_encoding", "-m", "pytest", "-q", "-p", "no:cacheprovider", *left_out, *tests]


def row(name: str, freeze: str, packages: Sequence[str], python: str, last_line: str) -> str:
    """Return one line of the table: the environment, the versions in it, and pytest's own count.

    Args:
        freeze: what `pip list --format=freeze` prints.
        packages: whose versions to tell.
        last_line: the last line that pytest printed.
    """
    found = dict(line.strip().lower().split("==", 1) for line in freeze.splitlines() if "==" in line)
    found.setdefault("opencv-python", found.get("opencv-python-headless", "absent"))
    told = [f"Python {python}", *(f"{package} {found.get(package, 'absent')}" for package in packages)]
    return f"| {name} | {', '.join(told)} | {re.sub(r' in [0-9.]+s.*', '', last_line.strip('= '))} |"


def run_tests(python: Path, arguments: Sequence[str]) -> tuple[int, str]:
    """Run the tests, show what they print as they print it, and return pytest's exit code and its last line."""
    last = ""
    given = command(python, arguments)
    with subprocess.Popen(given, cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace") as tests:
        assert tests.stdout is not None
        for line in tests.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    return tests.returncode, last


def main(given: Sequence[str] | None = None) -> int:
    """Build the environments, run the tests in each, print the table; return 1 if a test failed anywhere."""
    parser = argparse.ArgumentParser(prog="python -m book._tools.versions", description="Test with the oldest and the newest versions.")
    parser.add_argument("names", nargs="+", choices=list(PYTHONS), metavar="oldest|newest")
    for name, version in PYTHONS.items():
        default = "python" + ".".join(map(str, version))
        parser.add_argument(f"--{name}-python", default=default, metavar="PYTHON", help=f"the Python of `{name}` (default: {default})")
    parser.add_argument("--under", type=Path, default=ROOT, help="the folder for .venv-oldest and .venv-newest (default: the repository)")
    parser.add_argument("--keep", action="store_true", help="take an environment as it stands, if it is there")
    parser.add_argument("--pytest", nargs=argparse.REMAINDER, default=[], help="the last option: what pytest gets in place of all tests")
    options = parser.parse_args(given)
    folders = {name: options.under.resolve() / f".venv-{name}" for name in options.names}
    executables = {name: getattr(options, f"{name}_python") for name in options.names}
    missing = {name: folder for name, folder in folders.items() if not (options.keep and python_of(folder).exists())}
    if problems := [found for name in missing if (found := problem(name, executables[name]))]:
        raise SystemExit("\n".join(problems))
    for name, folder in missing.items():
        build(name, executables[name], folder)
    packages = [_package(line) for line in dependencies((ROOT / "pyproject.toml").read_text(encoding="utf-8"))]
    codes, rows = [], []
    for name, folder in folders.items():
        python = python_of(folder)
        code, last = run_tests(python, options.pytest)
        freeze = setup_venv.run(python, "-m", "pip", "--disable-pip-version-check", "list", "--format=freeze").stdout
        spoken = setup_venv.run(python, "-c", "import platform; print(platform.python_version())").stdout.strip()
        codes.append(code)
        rows.append(row(name, freeze, packages, spoken, last))
    print("", *rows, sep="\n")
    return int(any(codes))


def _package(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()


if __name__ == "__main__":
    sys.exit(main())
