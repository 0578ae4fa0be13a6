"""Same seed, same machine, same numbers; other threads and other instructions change only digits that nobody prints.

Run as a script, `python tests/test_determinism.py FILE`, it computes the numbers that are compared and writes them to FILE.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from divcolor_lib.colorize import Colorizer
from divcolor_lib.data import course
from divcolor_lib.metrics import evaluate
from divcolor_lib.runtime import generator, setup
from divcolor_lib.train import recipe_for, train_colorizer

ROOT = Path(__file__).resolve().parents[1]
Numbers = dict[str, NDArray[Any]]

#: What a user's machine may change: the number of threads, and the instructions that torch's own loops and oneDNN's use.
MACHINES = {
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "4 threads": {"OMP_NUM_THREADS": "4"},
    "AVX2": {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "SSE4.1": {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}


def compute() -> Numbers:
    """Return numbers of everything that the book computes with networks.

    Each name starts with its row of the page's table; `exact` numbers, trained weights, are compared on one machine only.
    """
    runtime = setup(0)
    data = course(runtime, 32, 12)
    gray, ab = data.val.batch(torch.arange(4))
    found: Numbers = {}
    for name in ("faces", "portraits"):
        colorizer = Colorizer.from_pretrained(name)
        with torch.no_grad():
            codes = colorizer.cvae.encode(ab, gray)
        fields, weights = colorizer.predict(gray)
        tensors = {
            "mu": codes[0],
            "logvar": codes[1],
            "fields": fields,
            "weights": weights,
            "samples": colorizer.sample(gray, 2, generator(1)),
        }
        found |= {f"networks: {name} {part}": tensor.numpy() for part, tensor in tensors.items()}
        coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
        shown = colorizer.colorize(np.asarray(coarse.resize((84, 108), Image.Resampling.BICUBIC)), n=5)
        found[f"networks: {name} probabilities"] = np.array([given for given in shown.probabilities if given is not None])
        found[f"pixels: {name}"] = shown.images.astype(np.int64)
    found["figures: portraits"] = np.array(list(_numbers(evaluate(colorizer, data.val, data.groups, samples=10))))
    recipe = recipe_for(runtime).with_(steps=10, batch=8, validate_every=10)
    trained = train_colorizer(recipe, data.train, data.val, progress=False)
    for stage, history in trained.histories.items():
        kind = "mixture losses" if stage == "mdn" else "losses"
        found[f"{kind}: {stage}"] = np.array([scores["loss"] for scores in (*history.train, *history.validation)])
    for network in (trained.regressor, trained.cvae, trained.mdn):
        assert network is not None
        found[f"exact: {type(network).__name__}"] = torch.cat([part.flatten() for part in network.state_dict().values()]).numpy()
    return found


def _numbers(value: object) -> Iterator[float]:
    """Every number in nested lists and dictionaries, in their order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, (int, float)):
        yield float(value)


def on(folder: Path, **switches: str) -> Numbers:
    """Compute the numbers in a process of its own, under these environment variables."""
    target = folder / "numbers.npz"
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_", "ATEN_", "ONEDNN_", "DNNL_", "DIVCOLOR_"))
    }
    environment = {**kept, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE", "DIVCOLOR_PROFILE": "cpu", **switches}
    command = [sys.executable, __file__, str(target)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(target, allow_pickle=False) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Numbers:
    return on(tmp_path_factory.mktemp("here"), OMP_NUM_THREADS="1")


def tolerances() -> dict[str, tuple[float, float]]:
    """Read from the page: for each row of its table the largest difference promised and the largest one seen."""
    page = (ROOT / "book" / "machines.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z ]+): [^|]*\| ([\d.]+)[^|]*\| ([\d.]+)[^|]*\|$", page, re.MULTILINE)
    return {name: (float(promised), float(seen)) for name, promised, seen in rows}


def difference(kind: str, one: NDArray[Any], other: NDArray[Any]) -> float:
    """The largest difference; of figures and losses, relative to the number."""
    assert one.shape == other.shape
    apart = np.abs(one.astype(np.float64) - other)
    relative = kind in ("figures", "losses", "mixture losses")
    return float(np.max(apart / np.maximum(np.abs(one), 1e-3) if relative else apart, initial=0))


def test_the_same_seed_on_the_same_machine_gives_the_same_bits(here: Numbers, tmp_path: Path) -> None:
    again = on(tmp_path, OMP_NUM_THREADS="1")
    assert {name: values.tobytes() for name, values in again.items()} == {name: values.tobytes() for name, values in here.items()}


@pytest.mark.parametrize("machine", MACHINES)
def test_another_machine_stays_within_what_the_page_promises(machine: str, here: Numbers, tmp_path: Path) -> None:
    there, promised = on(tmp_path, **MACHINES[machine]), tolerances()
    kinds = {name.split(":")[0] for name in here} - {"exact"}
    assert there.keys() == here.keys() and kinds == set(promised)
    worst = {kind: max(difference(kind, here[name], there[name]) for name in here if name.startswith(f"{kind}:")) for kind in kinds}
    assert {kind: value for kind, value in worst.items() if value > promised[kind][0]} == {}


def test_the_page_promises_more_than_was_seen_and_less_than_is_printed() -> None:
    promised = tolerances()
    assert all(seen <= bound for bound, seen in promised.values())
    assert promised["networks"][0] < 0.0005 and promised["figures"][0] < 0.0005, "three digits behind the point are printed"


if __name__ == "__main__":
    with open(sys.argv[1], "wb") as stream:
        np.savez(stream, **compute())
