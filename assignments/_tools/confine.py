"""Run a submission where it can do no harm and see nothing: `Box`.

Two ways are known, and the first that works here is taken: bubblewrap, and else the namespaces of `unshare`. Both show
the submission Python, the installed packages and the course's library, read-only, one small writable folder in memory, no network,
no other process, and neither this repository's assignments nor the submissions nor the results. Where neither works,
a box is refused unless `unsafe` is asked for: then only limits hold it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from assignments._tools.inside import jail, plain, runner
from divcolor_lib.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
INSIDE = Path(__file__).resolve().parent / "inside"
START_SECONDS = 120
STOP_SECONDS = 20
PATIENCE = 4
SCRATCH_BYTES = 64 * 2**20
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/nix/store")
SETTINGS = ("/etc/ld.so.cache", "/etc/localtime")
ENVIRONMENT = {
    **{"PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8", "MPLBACKEND": "Agg", "MPLCONFIGDIR": "/tmp"},
    **{"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
    # Large arrays go back to the system at once; else holes between them would count as memory in use.
    **{"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"},
    **{"DIVCOLOR_PROFILE": "cpu", "TQDM_DISABLE": "1", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
}
PROGRAMS = {"bubblewrap": "bwrap", "unshare": "unshare"}


@dataclass(frozen=True)
class Limits:
    """What a submission may use.

    Attributes:
        seconds: for everything together, on the clock.
        part_seconds: of the processor, for one cell, and for the calls of one part of a task. On the clock `PATIENCE` times as many,
            so that a busy machine fails nobody.
        memory_bytes: above what Python and torch take by themselves.
    """

    seconds: float = 180
    part_seconds: float = 15
    memory_bytes: int = 2**30


class BoxError(Exception):
    """The box itself failed, not the submission."""


def choose(unsafe: bool = False, hidden: Sequence[Path] = ()) -> str:
    """Return the way in which submissions are confined here: `bubblewrap`, `unshare`, or, if `unsafe` asks for it, `unsafe`.

    Args:
        unsafe: run submissions without confinement.
        hidden: folders that a submission must not see.

    Raises:
        ConfigError: no way works here, or a folder that must be hidden lies inside one that Python needs.
    """
    if unsafe:
        return "unsafe"
    seen = [Path(source) for source, _ in _binds() if Path(source) != INSIDE]
    for folder in hidden:
        if inside := next((source for source in seen if folder.resolve().is_relative_to(source)), None):
            raise ConfigError(f"a submission would see {folder}", inside, "Move it to a folder that holds no programs and no packages.")
    reasons = {}
    for way in PROGRAMS:
        reasons[way] = trouble(way)
        if not reasons[way]:
            return way
    found = "; ".join(f"{way}: {reason}" for way, reason in reasons.items())
    raise ConfigError(
        f"submissions cannot be confined on this machine: {found}",
        "grade",
        "Install bubblewrap, or allow user namespaces. If you trust every submission as you trust your own code, add --unsafe.",
    )


@functools.lru_cache
def trouble(way: str) -> str:
    """Return why a way of confinement does not work here; an empty text if it does."""
    if sys.platform != "linux":
        return "only Linux has it"
    if platform.machine() not in runner.CALLS:
        return f"no filter of system calls is written for {platform.machine()}"
    if shutil.which(PROGRAMS[way]) is None:
        return f"there is no program {PROGRAMS[way]}"
    with tempfile.TemporaryDirectory(prefix="box") as folder:
        command, environment, cwd = _command(way, folder, {"only_try": True, "path": []})
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, cwd=cwd, check=False)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else lines[-1] if lines else f"it ended with {done.returncode}"


class Box:
    """A place to run a submission in, for use in a `with` statement. Many attempts can be made in it, one after the other.

    Args:
        way: as `choose` returned it.
        warm: modules to be imported once, before the attempts.
    """

    def __init__(self, way: str, warm: Sequence[str] = ("numpy", "torch")) -> None:
        self.way, self.warm = way, tuple(warm)
        self._begun = False

    def __enter__(self) -> Box:
        self._folder = tempfile.TemporaryDirectory(prefix="box")
        self._control, theirs = socket.socketpair()
        self._complaints = tempfile.TemporaryFile()
        plan = {"control": 0, "warm": self.warm, "path": ["/inside", "/course", *_packages().values()]}
        command, environment, cwd = _command(self.way, self._folder.name, plan)
        self._process = subprocess.Popen(
            command,
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=self._complaints,
            env=environment,
            cwd=cwd,
            start_new_session=True,
        )
        theirs.close()
        try:
            self._expect("ready", START_SECONDS)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._control.close()
        # Without the control channel the first process ends by itself; with it, all others of its namespace.
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._complaints.close()
        self._folder.cleanup()

    def begin(self, limits: Limits, forbidden: Sequence[str] = ()) -> socket.socket:
        """Start an attempt; return the channel to it.

        Raises:
            BoxError: the box does not answer, or a limit cannot be set.
        """
        ours, theirs = socket.socketpair()
        message = {
            "memory_bytes": limits.memory_bytes,
            "cpu_seconds": max(1, int(limits.seconds)),
            "part_seconds": limits.part_seconds,
            "forbidden": list(forbidden),
            "strict": self.way != "unsafe",
        }
        try:
            plain.send(self._control, message)
            socket.send_fds(self._control, [b"."], [theirs.fileno()])
            theirs.close()
            self._begun = True
            answer, _ = plain.receive(ours, time.monotonic() + START_SECONDS)
        except (OSError, EOFError, plain.NotPlain) as error:
            ours.close()
            raise BoxError(self._why(error)) from error
        if "ready" not in answer:
            raise BoxError(str(answer.get("failed", answer)))
        return ours

    def stop(self) -> int:
        """End the attempt and everything that it started; return its status as `waitpid` gives it, -1 if it was still running."""
        if not self._begun:
            return 0
        self._begun = False
        try:
            plain.send(self._control, {"stop": True})
        except OSError as error:
            raise BoxError(self._why(error)) from error
        return int(self._expect("ended", STOP_SECONDS))

    def _expect(self, name: str, seconds: float) -> Any:
        try:
            message, _ = plain.receive(self._control, time.monotonic() + seconds)
            return message[name]
        except (OSError, EOFError, KeyError, plain.NotPlain) as error:
            raise BoxError(self._why(error)) from error

    def _why(self, error: BaseException) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self._complaints.seek(0)
        lines = [line for line in self._complaints.read(20_000).decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else f"{type(error).__name__}: {error}"


def _command(way: str, folder: str, plan: dict[str, Any]) -> tuple[list[str], dict[str, str], str]:
    """Return the command that opens a box, its environment, and the folder in which it starts; `folder` is empty and the box's own."""
    python = [os.path.realpath(sys.executable), "-I", "-S", "-B"]
    if way == "unsafe":
        plan = plan | {"path": [str(INSIDE), str(ROOT), *_packages()]}
        scratch = {name: folder for name in ("HOME", "TMPDIR", "MPLCONFIGDIR")}
        return [*python, str(INSIDE / "jail.py"), json.dumps(plan)], ENVIRONMENT | scratch, folder
    program = str(shutil.which(PROGRAMS[way]))
    binds, links = _binds(), _links()
    if way == "unshare":
        plan = plan | {"root": folder, "binds": binds, "links": links, "scratch_bytes": SCRATCH_BYTES}
        spaces = ["--user", "--map-root-user", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child"]
        return [program, *spaces, *python, str(INSIDE / "jail.py"), json.dumps(plan)], ENVIRONMENT, "/"
    options = ["--unshare-all", "--die-with-parent", "--as-pid-1", "--new-session", "--cap-drop", "ALL"]
    for source, target in binds:
        options += ["--ro-bind", source, target]
    for path, target in links:
        options += ["--symlink", target, path]
    for name in jail.DEVICES:
        options += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    options += ["--proc", "/proc", "--size", str(SCRATCH_BYTES), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"]
    return [program, *options, *python, "/inside/jail.py", json.dumps(plan)], ENVIRONMENT, "/"


def _packages() -> dict[str, str]:
    """Return the folders of installed packages, and where each lies in a box."""
    folders = [os.path.realpath(folder) for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")]
    return {folder: f"/packages/{number}" for number, folder in enumerate(dict.fromkeys(folders)) if os.path.isdir(folder)}


def _binds() -> list[tuple[str, str]]:
    """Return (outside, inside) of everything that a submission sees."""
    system = [path for path in SYSTEM if os.path.isdir(path) and not os.path.islink(path)]
    python = os.path.realpath(sys.base_prefix)
    if not any(Path(python).is_relative_to(path) for path in system):
        system.append(python)
    system += [path for path in SETTINGS if os.path.isfile(path)]
    course = [(str(INSIDE), "/inside"), (str(ROOT / "divcolor_lib"), "/course/divcolor_lib")]
    return [(path, path) for path in system] + list(_packages().items()) + course


def _links() -> list[tuple[str, str]]:
    """Return (inside, target) of the symbolic links among the system's folders, such as /bin to usr/bin."""
    return [(path, os.readlink(path)) for path in SYSTEM if os.path.islink(path)]
