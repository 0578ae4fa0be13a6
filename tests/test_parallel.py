"""Several processes take the step that one would take."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from divcolor_lib import parallel
from divcolor_lib.errors import ConfigError
from divcolor_lib.portraits import Portraits
from divcolor_lib.train import RECIPES, Recipe, Trained, read_tensors, train_colorizer

ROOT = Path(__file__).resolve().parents[1]
STEPS = 4


def recipe() -> Recipe:
    """Three short stages with everything that batch norm, dropout and clipping do."""
    base = RECIPES["portraits"]
    assert base.regression_fit is not None
    shared = {"steps": STEPS, "batch": 16, "warmup": 1, "validate_every": 2, "save_every": 2}
    return replace(
        base,
        mdn=replace(base.mdn, dropout=0.0, components=3, representatives=3),
        regression_fit=replace(base.regression_fit, **shared),
        cvae_fit=replace(base.cvae_fit, **shared),
        mdn_fit=replace(base.mdn_fit, **shared),
    )


def trained(folder: Path) -> Trained:
    """Train with codes at their means: noise differs between processes, as it should, and would hide what is compared."""
    torch.set_num_threads(1)
    patched = pytest.MonkeyPatch()
    for module in ("divcolor_lib.cvae", "divcolor_lib.train"):
        patched.setattr(f"{module}.reparameterize", lambda mu, logvar, noise=None: mu)
    try:
        return train_colorizer(recipe(), Portraits(48, seed=1), Portraits(16, seed=2), folder=folder, progress=False)
    finally:
        patched.undo()


def worker(folder: str) -> None:
    """What each process of the team runs."""
    with parallel.joined(torch.device("cpu")):
        result = trained(Path(folder))
        facts = {"processes": parallel.processes(), "rank": parallel.rank()}
        weights = torch.cat([value.double().flatten() for value in result.cvae.state_dict().values()])
        gathered = parallel.gathered(weights, torch.device("cpu"))
        facts["alike"] = all(torch.equal(gathered[0], other) for other in gathered)
        (Path(folder) / f"facts-{parallel.rank()}.json").write_text(json.dumps(facts), encoding="utf-8")


def start(count: int, body: str, *arguments: str) -> None:
    """Run `body` in `count` processes, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for number in range(count):
        environment = {
            **os.environ,
            "WORLD_SIZE": str(count),
            "RANK": str(number),
            "LOCAL_RANK": str(number),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, 'tests'); {body}", *arguments]
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True))
    for process in started:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    before, folder = torch.get_num_threads(), tmp_path_factory.mktemp("alone")
    try:
        trained(folder)
    finally:
        torch.set_num_threads(before)
    return folder


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    start(2, "import test_parallel; test_parallel.worker(sys.argv[1])", str(folder))
    return folder


@pytest.mark.parametrize("stage", ["regression", "cvae", "mdn"])
def test_two_processes_have_the_losses_of_one(stage: str, alone: Path, together: Path) -> None:
    one, two = (read_tensors(folder / f"{stage}.last.safetensors")[1]["history"] for folder in (alone, together))
    assert len(one["validation"]) == len(two["validation"]) == STEPS // 2
    for kind in ("train", "validation"):
        for ours, theirs in zip(one[kind], two[kind]):
            assert ours == pytest.approx(theirs, rel=2e-3)


def test_two_processes_end_with_one_network_close_to_that_of_one(alone: Path, together: Path) -> None:
    facts = [json.loads((together / f"facts-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    assert facts == [{"processes": 2, "rank": rank, "alike": True} for rank in (0, 1)]
    one, two = (read_tensors(folder / "regression.best.safetensors")[0] for folder in (alone, together))
    weights = torch.cat([value.float().flatten() for value in one.values()])
    difference = torch.cat([(one[name] - two[name]).float().flatten() for name in one])
    assert difference.norm() < 0.01 * weights.norm()


def test_a_run_of_two_goes_on_alone_with_a_warning(together: Path) -> None:
    _, facts = read_tensors(together / "cvae.last.safetensors")
    assert facts["processes"] == 2
    tensors, _ = read_tensors(together / "cvae.last.safetensors")
    assert {"random.noise", "random.noise.1", "random.cpu.1"} <= set(tensors)
    assert not torch.equal(tensors["random.noise"], tensors["random.noise.1"])
    with pytest.warns(UserWarning, match="processes 1 a run of .*processes 2"):
        trained(together)


# --- batch norm over processes ---


def norm_worker(folder: str) -> None:
    """Save what this process's half of a batch becomes, and the gradients."""
    with parallel.joined(torch.device("cpu")):
        x, layer = norm_case()
        own = parallel.part(x).clone().requires_grad_()
        shared = parallel.share_batch_norm(nn.Sequential(layer))
        out = shared(own)
        weigh(out, parallel.part(norm_target())).backward()
        found = {"out": out, "x gradient": own.grad, "weight gradient": layer_of(shared).weight.grad, **layer_of(shared).state_dict()}
        torch.save({name: value.detach() for name, value in found.items() if value is not None}, f"{folder}/{parallel.rank()}.pt")


def norm_case() -> tuple[torch.Tensor, nn.BatchNorm2d]:
    noise = torch.Generator().manual_seed(3)
    x = torch.randn(6, 4, 5, 3, generator=noise) * 3 + 50  # far from zero: a mean of squares would lose digits
    layer = nn.BatchNorm2d(4, momentum=0.3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 0.5, 2.0, -1.0]))
        layer.bias.copy_(torch.arange(4.0))
    return x, layer


def norm_target() -> torch.Tensor:
    return torch.randn(6, 4, 5, 3, generator=torch.Generator().manual_seed(4))


def weigh(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (out * target).tanh().sum()


def layer_of(module: Any) -> Any:
    return next(module.children())


def test_shared_batch_norm_is_batch_norm_of_the_whole(tmp_path: Path) -> None:
    start(2, "import test_parallel; test_parallel.norm_worker(sys.argv[1])", str(tmp_path))
    halves = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    x, layer = norm_case()
    x.requires_grad_()
    out = layer(x)
    weigh(out, norm_target()).backward()
    assert x.grad is not None and layer.weight.grad is not None
    torch.testing.assert_close(torch.cat([half["out"] for half in halves]), out, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cat([half["x gradient"] for half in halves]), x.grad, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(halves[0]["weight gradient"] + halves[1]["weight gradient"], layer.weight.grad, rtol=1e-3, atol=1e-4)
    for half in halves:
        torch.testing.assert_close(half["running_mean"], layer.running_mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(half["running_var"], layer.running_var, rtol=1e-4, atol=1e-5)
        assert int(half["num_batches_tracked"]) == 1
    alone = nn.BatchNorm2d(4)(norm_case()[0][:3])  # a half by itself is something else
    assert float((alone - nn.BatchNorm2d(4)(norm_case()[0])[:3]).abs().max().detach()) > 0.05


# --- a team of one ---


def test_alone_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    module, batch, cpu = nn.Sequential(nn.BatchNorm2d(2)), torch.arange(6.0), torch.device("cpu")
    assert (parallel.processes(), parallel.rank()) == (1, 0)
    assert parallel.part(batch) is not None and torch.equal(parallel.part(batch), batch)
    assert parallel.mean({"a": 1.5}, cpu) == parallel.first({"a": 1.5}, cpu) == {"a": 1.5}
    assert parallel.averaging(module) is module
    assert type(layer_of(parallel.share_batch_norm(module))) is nn.BatchNorm2d
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with parallel.joined(cpu) as device:
        assert device == cpu and parallel.processes() == 1
    parallel.wait()


def test_a_batch_is_cut_into_equal_parts_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "processes", lambda: 3)
    found = []
    for number in range(3):
        monkeypatch.setattr(parallel, "rank", lambda number=number: number)
        found.append(parallel.part(torch.arange(6)))
    assert [part.tolist() for part in found] == [[0, 1], [2, 3], [4, 5]]
    for size in (7, 0):
        with pytest.raises(ConfigError, match=f"a batch of {size} cannot be shared by 3"):
            parallel.part(torch.arange(size))


def test_torchrun_trains_one_colorizer_with_two_processes(tmp_path: Path) -> None:
    noise = np.random.default_rng(5)
    for number in range(90):
        person = tmp_path / "faces" / f"Person_{number:03}"
        person.mkdir(parents=True)
        coarse = Image.fromarray(noise.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize((80, 80)).save(person / f"Person_{number:03}_0001.jpg")
    command = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "divcolor_lib", "train"]
    arguments = ["--data", str(tmp_path / "faces"), "--out", "two.safetensors"]
    options = ["--scale", "0.0004", "--precision", "fp32", "--profile", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", *command, *arguments, *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("wrote ") == 1  # one of them writes and speaks
    _, facts = read_tensors(tmp_path / "two.safetensors")
    assert facts["manifest"]["processes"] == 2
    assert {stage: fit["steps"] for stage, fit in facts["manifest"]["training"].items()} == {"regression": 1, "cvae": 2, "mdn": 1}
