"""Run a submission's cells and call its functions on the inputs that arrive; send back what they return, as plain data.

The first process (`serve`) imports the heavy packages once and holds no input and no result. For every attempt it forks a
child (`attempt`), which limits itself, runs the cells, and makes the calls of one part of a task after the other: the inputs of
a part arrive when everything before it is over. A child that hangs, ends or dies is replaced by a new one.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import importlib
import importlib.abc
import os
import platform
import random
import resource
import select
import signal
import socket
import sys
import time
import traceback
import types
from collections.abc import Sequence
from typing import Any, NoReturn

if __package__:
    from . import plain
else:
    import plain  # type: ignore[import-not-found,no-redef]  # on the path of the confinement

Namespace = dict[str, Any]

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
CLONE_THREAD = 0x10000
ALLOW, REFUSE, UNKNOWN, KILL = 0x7FFF0000, 0x50001, 0x50026, 0x80000000  # REFUSE is EPERM, UNKNOWN is ENOSYS
LARGEST_FILE, MOST_FILES, MOST_PROCESSES = 16 * 2**20, 128, 64
ASSUMED_SIZE = 8 * 2**30
FAREWELL_SECONDS = 0.3

# Numbers of system calls, by machine: of what architecture the filter is; clone; clone3; those that are refused, which are
# fork, vfork, execve, execveat, ptrace, process_vm_readv and _writev, unshare, setns, mount, umount2, bpf, io_uring_setup,
# userfaultfd, perf_event_open, add_key, keyctl, memfd_create, shmget, socket, kill, tkill.
CALLS = {
    "x86_64": (
        *(0xC000003E, 56, 435),
        (57, 58, 59, 322, 101, 310, 311, 272, 308, 165, 166, 321, 425, 323, 298, 248, 250, 319, 29, 41, 62, 200),
    ),
    "aarch64": (0xC00000B7, 220, 435, (221, 281, 117, 270, 271, 97, 268, 40, 39, 280, 425, 282, 241, 217, 219, 279, 194, 198, 129, 130)),
}


# --- the first process ----------------------------------------------------------------------------------------------------


def serve(plan: dict[str, Any]) -> NoReturn:
    """Fork an attempt for each channel that arrives, and end it when told; end when the other side is gone."""
    control = socket.socket(fileno=plan["control"])
    for name in plan["warm"]:
        importlib.import_module(name)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    plain.send(control, {"ready": True})
    while True:
        try:
            limits, _ = plain.receive(control)
            _, channels, _, _ = socket.recv_fds(control, 1, 1)
        except (EOFError, OSError):
            os._exit(0)
        child = os.fork()
        if child == 0:
            control.close()
            attempt(socket.socket(fileno=channels[0]), limits)
        os.close(channels[0])
        status = _watch(child, control)
        _end_all(child)
        with contextlib.suppress(OSError):
            plain.send(control, {"ended": status})


def _watch(child: int, control: socket.socket) -> int:
    """Wait until the child is over or the other side says stop; return the child's status, or -1 where it was stopped."""
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found == child:
            select.select([control], [], [])
            with contextlib.suppress(EOFError, OSError):
                plain.receive(control)
            return status
        if select.select([control], [], [], 0.02)[0]:
            with contextlib.suppress(EOFError, OSError):
                plain.receive(control)
            return _farewell(child)


def _farewell(child: int) -> int:
    """Give a child whose channel is closed a moment to end by itself, so that its status tells how it ended."""
    end = time.monotonic() + FAREWELL_SECONDS
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found == child:
            return status
        time.sleep(0.005)
    return -1


def _end_all(child: int) -> None:
    """End the child and everything that it may have started."""
    if os.getpid() == 1:  # the first process of a process namespace: everything else in it belongs to the submission
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while os.getpid() == 1 or os.waitpid(child, os.WNOHANG) == (0, 0):
            if os.getpid() == 1:
                os.waitpid(-1, 0)
            else:
                time.sleep(0.01)


# --- limits ---------------------------------------------------------------------------------------------------------------


def limit(limits: dict[str, Any]) -> None:
    """Limit memory, time, files and processes of this process, and what it may ask of the kernel.

    Raises:
        OSError: a limit cannot be set, and `limits["strict"]` asks for all of them.
    """
    memory = _size_now() + int(limits["memory_bytes"])
    wanted = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: int(limits["cpu_seconds"]),
        resource.RLIMIT_FSIZE: LARGEST_FILE,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: MOST_FILES,
        resource.RLIMIT_NPROC: MOST_PROCESSES,
    }
    try:
        for kind, value in wanted.items():
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))
        refuse_calls()
    except (OSError, ValueError, KeyError, AttributeError) as error:
        if limits["strict"]:
            raise OSError(f"a limit cannot be set: {error}") from error


def _size_now() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return ASSUMED_SIZE


def refuse_calls() -> None:
    """Let the kernel refuse to start processes and programs, to open sockets, to send signals, and what else no exercise needs.

    Raises:
        KeyError: the machine is of a kind whose numbers of system calls are not known here.
        OSError: the kernel does not filter.
    """
    architecture, clone, clone3, refused = CALLS[platform.machine()]
    load, jump_if, jump_if_not_below, jump_if_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    program = [(load, 0, 0, 4), (jump_if, 1, 0, architecture), (answer, 0, 0, KILL), (load, 0, 0, 0)]
    program += [(jump_if_not_below, 0, 1, 0x40000000), (answer, 0, 0, REFUSE)]
    for number in refused:
        program += [(jump_if, 0, 1, number), (answer, 0, 0, REFUSE)]
    # The flags of clone3 lie behind a pointer; the C library falls back on clone, where a thread can be told from a process.
    program += [(jump_if, 0, 1, clone3), (answer, 0, 0, UNKNOWN)]
    program += [(jump_if, 0, 3, clone), (load, 0, 0, 16), (jump_if_bit, 1, 0, CLONE_THREAD), (answer, 0, 0, REFUSE)]
    program += [(answer, 0, 0, ALLOW)]

    class Instruction(ctypes.Structure):
        _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_uint16), ("start", ctypes.POINTER(Instruction)))

    code = (Instruction * len(program))(*(Instruction(*step) for step in program))
    libc = ctypes.CDLL(None, use_errno=True)
    whole = Program(len(program), code)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(whole), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel does not filter system calls")


class Forbidden(importlib.abc.MetaPathFinder):
    """Refuses to import modules that an assignment asks to do without."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Raise `ImportError` for a forbidden module or a part of one."""
        if any(name == forbidden or name.startswith(forbidden + ".") for forbidden in self.names):
            raise ImportError(f"this assignment is to be done without {name}; it is not there while grading")


# --- one attempt ----------------------------------------------------------------------------------------------------------


def attempt(channel: socket.socket, limits: dict[str, Any]) -> NoReturn:
    """Limit this process, then do what arrives on the channel until it closes. Never returns."""
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            if number != channel.fileno():
                os.dup2(nowhere, number)
        sys.meta_path.insert(0, Forbidden(limits["forbidden"]))
        limit(limits)
        plain.send(channel, {"ready": True})
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        namespace = vars(module)
        namespace.update(display=lambda *_, **__: None, __builtins__=builtins)
        while True:
            message, parts = plain.receive(channel)
            # The signal of this timer, which counts processor time, ends the process unless it is caught or put off; then the
            # other side's clock does.
            signal.setitimer(signal.ITIMER_PROF, limits["part_seconds"])
            if "cells" in message:
                for number in message["cells"]:
                    plain.send(channel, {"at": number})
                    signal.setitimer(signal.ITIMER_PROF, limits["part_seconds"])
                    plain.send(channel, {"at": number, "error": run_cell(message["cells"][number], f"<cell {number}>", namespace)})
            else:
                with given(message["given"], message["names"], namespace):
                    for call in message["calls"]:
                        plain.send(channel, *made(call, parts, namespace))
            plain.send(channel, {"done": True})
    except EOFError:
        os._exit(0)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            plain.send(channel, {"failed": f"{type(error).__name__}: {error}"[:500]})
        os._exit(70)


def run_cell(code: str, name: str, namespace: Namespace) -> str | None:
    """Run one cell; return what it raised, or None."""
    try:
        exec(compile(code, name, "exec"), namespace)
    except BaseException as error:
        return told(error)
    return None


@contextlib.contextmanager
def given(source: str, names: Sequence[str], namespace: Namespace) -> Any:
    """Put the names that `source` defines in place of the submission's own, for a while."""
    if not source:
        yield
        return
    ours: Namespace = {"__name__": "given"}
    exec(compile(source, "<given>", "exec"), ours)
    before = {name: namespace[name] for name in names if name in namespace}
    namespace.update({name: ours[name] for name in names})
    yield
    for name in names:
        namespace.pop(name, None)
    namespace.update(before)


def made(call: dict[str, Any], parts: Sequence[bytes], namespace: Namespace) -> tuple[dict[str, Any], list[bytes]]:
    """Make one call; return the message about it: what was returned, raised or missing.

    A call is of the kind `call` (a function by name), `value` (a name) or `drive` (a function given as source, which gets
    everything that the submission defines, and the arguments).
    """
    if call["kind"] != "drive" and call["name"] not in namespace:
        return {"missing": call["name"]}, []
    try:
        if call["kind"] == "value":
            result, changed = namespace[call["name"]], False
        else:
            function, first = _function_of(call, namespace)
            arguments = plain.decode(call["arguments"], list(parts))
            before = _written(arguments)
            _seed(call["seed"])
            result = function(*first, *arguments)
            changed = _written(arguments) != before
    except BaseException as error:
        return {"raised": told(error)}, []
    coder = plain.Coder()
    try:
        return {"returned": coder.encode(result), "changed": changed}, coder.parts
    except (ValueError, RuntimeError, TypeError, MemoryError) as error:
        return {"raised": f"what it returns cannot be read: {error}"}, []


def _function_of(call: dict[str, Any], namespace: Namespace) -> tuple[Any, tuple[Any, ...]]:
    if call["kind"] == "call":
        return namespace[call["name"]], ()
    beside: Namespace = {"__name__": "beside"}
    exec(compile(call["source"], "<beside>", "exec"), beside)
    return beside[call["name"]], (types.SimpleNamespace(**{name: value for name, value in namespace.items() if name.isidentifier()}),)


def _written(arguments: Any) -> tuple[Any, list[bytes]]:
    coder = plain.Coder()
    return coder.encode(arguments), coder.parts


def _seed(seed: int) -> None:
    """Seed every source of random numbers, so that grading twice gives the same marks."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def told(error: BaseException) -> str:
    """Return an error as one line, with the cell and the line where it was raised."""
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error)[:1000]:
        return "MemoryError: it needs more memory than is allowed"
    text = f"{type(error).__name__}: {error}".strip().rstrip(":")[:400]
    if isinstance(error, SyntaxError) and str(error.filename).startswith("<cell"):
        return f"SyntaxError: {error.msg} ({str(error.filename).strip('<>')}, line {error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith("<cell ")]
    return f"{text} ({frames[-1].filename.strip('<>')}, line {frames[-1].lineno})" if frames else text
