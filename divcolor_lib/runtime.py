"""Where the code runs: device, profile, precision, seeds, and the runtime contract that opens a chapter.

One switch rules everything: the *profile*. `cpu` means embedded portraits, narrow networks and float32;
`gpu` means LFW, full width and the mixed precision that the card can do.
"""

from __future__ import annotations

import contextlib
import os
import platform
import random
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn

from .errors import ConfigError

PROFILES = ("cpu", "gpu")
DATASETS = ("portraits", "lfw")
PRECISIONS = ("fp32", "bf16", "fp16")
DRIVE = Path("/content/drive/MyDrive")  # where Colab shows the Google Drive of who has mounted it


@dataclass(frozen=True)
class Runtime:
    """What `setup` found. `data` is the folder of data sets, or `None` when no one named it."""

    profile: str
    device: torch.device
    precision: str
    dataset: str
    data: Path | None
    seed: int
    threads: int

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else f"{self.threads} CPU threads"
        return f"profile {self.profile} · {name} · {self.precision} · data: {self.dataset} · seed {self.seed}"


def setup(seed: int = 0) -> Runtime:
    """Read the machine and the three switches, seed every generator, and return the `Runtime`.

    Switches (environment variables): `DIVCOLOR_PROFILE` is `cpu` or `gpu`, `DIVCOLOR_DATASET` is `portraits`
    or `lfw`, `DIVCOLOR_DATA` names the folder that holds data sets.

    Raises:
        ConfigError: a switch has a value that is not listed, or asks for a GPU that is not there.
    """
    has_gpu = torch.cuda.is_available()
    profile = _switch("DIVCOLOR_PROFILE", PROFILES, "gpu" if has_gpu else "cpu")
    if profile == "gpu" and not has_gpu:
        raise ConfigError(
            "the profile is `gpu`, but torch sees no GPU",
            "DIVCOLOR_PROFILE",
            "On Colab choose Runtime > Change runtime type > T4 GPU; elsewhere unset the variable.",
        )
    device = torch.device("cuda" if profile == "gpu" else "cpu")
    folder = os.environ.get("DIVCOLOR_DATA")
    seed_everything(seed)
    return Runtime(
        profile=profile,
        device=device,
        precision=best_precision(device) if profile == "gpu" else "fp32",
        dataset=_switch("DIVCOLOR_DATASET", DATASETS, "lfw" if profile == "gpu" else "portraits"),
        data=Path(folder) if folder else None,
        seed=seed,
        threads=torch.get_num_threads(),
    )


def contract(runtime: Runtime, minutes: float, memory_gb: float, artifacts: dict[str, str] | None = None) -> str:
    """Return the runtime contract of a chapter as text, one fact a line.

    Args:
        minutes: how long the chapter takes in this profile, as measured.
        memory_gb: the peak memory that was measured.
        artifacts: each artefact that the chapter needs, and whether it was shipped, loaded or made.
    """
    lines = [str(runtime), f"expected: {minutes:g} min, {memory_gb:g} GB of memory"]
    lines += [f"{name}: {origin}" for name, origin in (artifacts or {}).items()]
    return "\n".join(lines)


def runs_folder(drive: Path = DRIVE) -> Path | None:
    """Return the folder in which checkpoints of runs outlive this machine, or `None` if nobody named one and there is no Drive.

    `DIVCOLOR_RUNS` names it. If it is not set and a Google Drive is mounted, as on Colab, it is `divcolor/runs` there: Colab takes
    the machine and its disk away when it likes.

    Args:
        drive: where the Drive would be.
    """
    if chosen := os.environ.get("DIVCOLOR_RUNS"):
        return Path(chosen).expanduser()
    return drive / "divcolor" / "runs" if os.path.isdir(drive) else None  # other than `Path.is_dir`, it takes a broken mount


def on_drive(folder: Path, drive: Path = DRIVE) -> bool:
    """Whether a folder lies on the mounted Google Drive, which is slow, small, and keeps what was replaced in its bin."""
    return Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(drive))


@contextlib.contextmanager
def holding_stops() -> Iterator[Callable[[], bool]]:
    """Hold back a wish to stop, and yield a function that says whether one came: Ctrl-C, a notebook's stop button, SIGTERM.

    The block can then finish what must not be torn apart. At its end the wish goes its usual way: `KeyboardInterrupt`, or the end
    of the process. A second wish does so at once. Outside the main thread, where Python sees no signals, nothing is held back.
    """
    came: list[int] = []
    usual: dict[int, Any] = {}

    def give_back() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    def hold(number: int, frame: FrameType | None) -> None:
        if not came:
            came.append(number)
            return
        came.clear()
        give_back()
        signal.raise_signal(number)

    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        usual = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in usual:
            signal.signal(number, hold)
        yield lambda: bool(came)
    finally:
        give_back()
        if came:
            signal.raise_signal(came[0])


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (every device). Operations that can take a generator take one instead."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator on `device`, seeded with `seed`."""
    return torch.Generator(device=device).manual_seed(seed)


def cpu_has_fast_bf16() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware (AVX512_BF16 or AMX)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def best_precision(device: torch.device | str) -> str:
    """Return the mixed precision that pays on `device`: `bf16`, `fp16` or `fp32`.

    Graphics cards from Ampere on (compute capability 8) have a useful bfloat16; a T4 (7.5) has only float16,
    which needs loss scaling; processors gain from bfloat16 only with AVX512_BF16 or AMX.
    """
    device = torch.device(device)
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return "bf16" if major >= 8 else "fp16" if major == 7 else "fp32"
    return "bf16" if device.type == "cpu" and cpu_has_fast_bf16() else "fp32"


def autocast(device: torch.device | str, precision: str) -> contextlib.AbstractContextManager[object]:
    """Return the autocast context for `precision` on `device`; `fp32` is a context that does nothing.

    Raises:
        ConfigError: `precision` is none of `fp32`, `bf16`, `fp16`.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision `{precision}`", "precision", f"Use one of {', '.join(PRECISIONS)}.")
    if precision == "fp32":
        return contextlib.nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(torch.device(device).type, dtype=dtype)


@contextlib.contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules in eval mode without gradients, and give every submodule its own mode back afterwards."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for module in modules:
            module.eval()
        with torch.no_grad():
            yield
    finally:
        for part, training in before:
            part.training = training


def bar_options(shown: bool) -> dict[str, Any]:
    """Return what `tqdm` is to be called with: nothing if the bar is `shown`, so that the variable TQDM_DISABLE can still hide it."""
    return {} if shown else {"disable": True}


def machine() -> dict[str, str | int]:
    """Return what a recorded result must say of the machine: versions, processor, threads, card."""
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": platform.system(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": card,
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _switch(name: str, allowed: tuple[str, ...], default: str) -> str:
    value = os.environ.get(name) or default
    if value not in allowed:
        raise ConfigError(f"`{value}` is not a value that {name} can take", name, f"Use one of {', '.join(allowed)}, or unset it.")
    return value
