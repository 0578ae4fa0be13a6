"""Habits that Windows and macOS need, as far as Linux can check them: imports, names of files, worker processes, open files."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import types
import warnings
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data._utils import worker

from divcolor_lib import data, errors, train
from divcolor_lib.bins import WeightTable, gamut_bins
from divcolor_lib.colorize import Colorizer
from divcolor_lib.errors import StorageError, whole_file

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for folder in ("divcolor_lib", "benchmarks", "book/_tools") for path in (ROOT / folder).rglob("*.py"))
POSIX_ONLY = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "crypt", "spwd", "readline"}
FORKING = {"fork", "forkpty", "forkserver", "register_at_fork", "posix_spawn"}
POSIX_FUNCTIONS = {"getuid", "geteuid", "getgid", "uname", "statvfs", "fchmod", "chown", "mkfifo", "killpg", "setsid", "sched_getaffinity"}
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


def guarded(tree: ast.Module) -> set[ast.AST]:
    """What stands where another system is provided for: in a `try`, or under a condition that names the system or asks for the function."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        asks = isinstance(node, ast.If) and re.search(r"sys\.platform|os\.name|hasattr\((os|signal),", ast.unparse(node.test))
        if asks or isinstance(node, ast.Try):
            found |= set(ast.walk(node))
    return found


def habits_of_one_system(source: str) -> list[str]:
    """Return what in the source text runs on POSIX systems alone and is not guarded."""
    tree = ast.parse(source)
    safe, found = guarded(tree), []
    for node in ast.walk(tree):
        named = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        found += [f"import {name}" for name in named if name in POSIX_ONLY and node not in safe]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            whole = f"{node.value.id}.{node.attr}"
            posix = whole.startswith("os.") and node.attr in POSIX_FUNCTIONS | FORKING
            unknown_signal = whole.startswith("signal.SIG") and node.attr not in {"SIGINT", "SIGTERM", "SIG_DFL", "SIG_IGN"}
            found += [whole] if (posix or unknown_signal) and node not in safe else []
        if isinstance(node, ast.Constant) and node.value in {"fork", "forkserver"}:
            found.append(f"start method {node.value}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=[path.relative_to(ROOT).as_posix() for path in SOURCES])
def test_no_module_needs_a_posix_system(path: Path) -> None:
    assert habits_of_one_system(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import fcntl", ["import fcntl"]),
        ("from resource import getrusage", ["import resource"]),
        ("import os\nos.fork()", ["os.fork"]),
        ("import signal\nsignal.SIGKILL", ["signal.SIGKILL"]),
        ("DataLoader(x, multiprocessing_context='fork')", ["start method fork"]),
        ("try:\n    import resource\nexcept ImportError:\n    resource = None", []),
        ("if sys.platform != 'win32':\n    import fcntl", []),
        ("if hasattr(signal, 'SIGUSR1'):\n    signal.SIGUSR1", []),
    ],
)
def test_the_search_for_posix_habits_finds_them(source: str, found: list[str]) -> None:
    assert habits_of_one_system(source) == found


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.split("\0") if name]


def test_every_file_can_be_checked_out_on_windows_and_macos() -> None:
    names = tracked()
    every = {parent.as_posix() for name in names for parent in PurePosixPath(name).parents} | set(names)
    assert len({name.casefold() for name in every}) == len(every), "two names differ by case alone"
    parts = {part for name in names for part in PurePosixPath(name).parts}
    assert not {part for part in parts if not part.isascii() or re.search(r'[<>:"|?*\\]|[. ]$', part) or RESERVED.match(part)}
    assert max(map(len, names)) < 150, "Windows counts 260 characters with the folders above"


# --- processes that start anew instead of by fork, as they do on Windows and macOS ---


def test_the_data_loader_works_with_processes_that_start_anew(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for person in ("Ann_Lee", "Bob_Ray"):
        (tmp_path / person).mkdir()
        for number in (1, 2):
            picture = Image.fromarray(noise.integers(0, 256, (40, 40, 3), dtype=np.uint8))
            picture.save(tmp_path / person / f"{person}_{number:04}.jpg")
    photos = data.load_folder(tmp_path, size=16, cache=False)
    bins = gamut_bins()
    dataset = data.ColorDataset(photos, WeightTable(bins, torch.ones(bins.count)))
    settings = {"batch_size": 2, "collate_fn": data.ColorDataset.collate}
    here = list(DataLoader(dataset, **settings))
    there = list(DataLoader(dataset, num_workers=1, multiprocessing_context="spawn", **settings))
    assert worker.get_worker_info() is None and len(here) == len(there) == 2
    for one, other in zip(here, there):
        assert one["name"] == other["name"]
        assert all(torch.equal(one[key], other[key]) for key in ("gray", "ab", "weights"))
        assert all(torch.equal(a, b) for a, b in zip(one["L_full"], other["L_full"]))


# --- Windows moves no file that is open, and replaces none ---


@pytest.fixture
def as_windows(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let `whole_file` meet an `os` that calls itself Windows and moves no file that this process has open, or in its memory.

    Returns the names of the files that were moved.
    """
    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not list open files")
    moved: list[str] = []

    def replace(source: str | Path, target: str | Path) -> None:
        ours = {os.path.realpath(source), os.path.realpath(target)}
        opened = {os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}
        mapped = {line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()}
        if ours & (opened | mapped):
            raise PermissionError(13, "The process cannot access the file because it is being used by another process")
        os.replace(source, target)
        moved.append(Path(target).name)

    monkeypatch.setattr(errors, "os", types.SimpleNamespace(**{**vars(os), "name": "nt", "replace": replace}))
    return moved


def test_an_open_file_is_refused_as_on_windows(as_windows: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")
    with path.open("rb"), pytest.raises(StorageError, match="used by another process"), whole_file(path) as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "old" and as_windows == []
    array = np.memmap(path, mode="r")
    with pytest.raises(StorageError, match="used by another process"), whole_file(path) as temporary:
        temporary.write_text("new", encoding="utf-8")
    del array


def test_a_checkpoint_is_replaced_while_its_tensors_are_in_use(as_windows: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    train.write_tensors(path, {"x": torch.arange(5000.0)}, {"format": train.FORMAT})
    tensors, _ = train.read_tensors(path)
    train.write_tensors(path, {"x": tensors["x"] + 1}, {"format": train.FORMAT})
    assert torch.equal(train.read_tensors(path)[0]["x"], tensors["x"] + 1) and as_windows == [path.name] * 2


def test_a_colorizer_is_saved_over_the_file_that_it_came_from(as_windows: list[str], tmp_path: Path) -> None:
    path = tmp_path / "portraits.safetensors"
    Colorizer.from_pretrained("portraits").save(path)
    again = Colorizer.from_checkpoint(path)
    again.save(path)
    assert path.name in as_windows and Colorizer.from_checkpoint(path).manifest == again.manifest


def test_the_cache_of_photographs_is_replaced_while_it_is_in_use(as_windows: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        Image.new("RGB", (20, 20), (90 * number, 40, 200)).save(folder / f"{number}.png")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            photos = data.load_folder(folder, size=8, cache=tmp_path / "cache")
        assert len(photos) == number + 1
    assert len(as_windows) == 4
