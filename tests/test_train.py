"""The training loop: it learns, and nothing that happens to the machine changes what it learns."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from divcolor_lib import losses, train
from divcolor_lib.autoencoder import fit_pca
from divcolor_lib.bins import WeightTable, gamut_bins
from divcolor_lib.cvae import CVAE, ColorRegressor, CVAEConfig
from divcolor_lib.data import TensorFields, shifted
from divcolor_lib.errors import CheckpointError, ConfigError, StorageError, TrainingError, TrainingPaused
from divcolor_lib.mdn import MDN, MDNConfig
from divcolor_lib.runtime import Runtime, evaluating, generator
from divcolor_lib.train import FitConfig, Objective, Recipe, fit, read_tensors, train_colorizer, write_tensors

ROOT = Path(__file__).resolve().parents[1]


class Killed(BaseException):
    """Stands for the machine that goes down: nothing in the library catches it."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Bit-identity is promised for the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- a toy: fields of 4x4 pixels whose color follows from their lightness ---


class Net(nn.Module):
    """A small network with everything that a resume can lose: batch statistics and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.Dropout(0.3), nn.Conv2d(8, 2, 3, padding=1)
        )

    def forward(self, gray: Tensor) -> Tensor:
        return self.layers(gray)


class Toy:
    """Squared error with noise on the input; at `kill` (counted over this object's life) the machine goes down."""

    def __init__(self, kill: int | None = None, spoil: int | None = None) -> None:
        torch.manual_seed(11)
        self.module = Net()
        self.kill, self.spoil, self.calls = kill, spoil, 0
        self.gray, self.ab = toy_fields(8, seed=5)

    def losses(self, first: Tensor, second: Tensor, noise: torch.Generator, progress: float) -> dict[str, Tensor]:
        self.calls += 1
        if self.calls == self.kill:
            raise Killed
        loss = losses.squared_error(self.module(first + 0.05 * torch.randn(first.shape, generator=noise)), second)
        extra = loss * (math.nan if self.calls == self.spoil else 1.0)
        return {"loss": loss, "extra": extra}

    def validate(self, module: nn.Module) -> dict[str, float]:
        with evaluating(module):
            return {"loss": float(losses.squared_error(module(self.gray), self.ab))}


def toy_fields(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    gray = torch.rand(count, 1, 4, 4, generator=generator(seed)) * 2 - 1
    return gray, torch.cat([0.6 * gray, -0.4 * gray.abs()], dim=1)


def toy_source(count: int = 10) -> TensorFields:
    return TensorFields(*toy_fields(count))


TOY = FitConfig(steps=23, batch=4, warmup=5, validate_every=4, save_every=3, average=0.9, seed=3)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different, f"other bits in {different}"


def assert_same_run(left: Path, right: Path, stages: tuple[str, ...] = ("model",)) -> None:
    """Weights, averages, moments, generators, batches, curves and counters: everything that a run leaves on disk."""
    for stage in stages:
        for kind in ("last", "best"):
            (tensors, facts), (others, other_facts) = (read_tensors(folder / f"{stage}.{kind}.safetensors") for folder in (left, right))
            assert_same(tensors, others)
            for told in (facts, other_facts):
                told.get("history", {}).pop("seconds", None)  # time does not repeat itself
            assert facts == other_facts


# --- it learns ---


def test_fit_lowers_the_loss_and_leaves_the_best_weights_in_eval_mode() -> None:
    toy = Toy()
    before = toy.validate(toy.module)["loss"]
    history = fit(toy, toy_source(32), replace(TOY, steps=200, learning_rate=1e-2, validate_every=20), progress=False)
    after = toy.validate(toy.module)["loss"]
    assert after < 0.25 * before
    assert after == history.best_loss == min(scores["loss"] for scores in history.validation)
    assert history.best_step in [scores["step"] for scores in history.validation]
    assert not any(part.training for part in toy.module.modules())


def test_curves_hold_every_twentieth_step_and_every_validation() -> None:
    history = fit(Toy(), toy_source(), replace(TOY, steps=45, validate_every=10), progress=False)
    assert [terms["step"] for terms in history.train] == [20, 40, 45]
    assert [scores["step"] for scores in history.validation] == [10, 20, 30, 40, 45]
    assert all(set(terms) == {"step", "loss", "extra"} for terms in history.train)


class Slope:
    """One number whose gradient is what `slopes` says: then AdamW's steps are known in closed form."""

    def __init__(self, slopes: tuple[float, ...] = (1.0,), target: float | None = None) -> None:
        self.module = nn.Module()
        self.module.p = nn.Parameter(torch.ones(1))
        self.slopes, self.target, self.calls, self.seen = slopes, target, 0, []  # type: ignore[var-annotated]

    def losses(self, first: Tensor, second: Tensor, noise: torch.Generator, progress: float) -> dict[str, Tensor]:
        self.seen.append((float(self.module.p.detach()), progress))
        slope = self.slopes[self.calls % len(self.slopes)]
        self.calls += 1
        return {"loss": slope * self.module.p.sum()}

    def validate(self, module: nn.Module) -> dict[str, float]:
        value = float(module.p)
        return {"loss": value if self.target is None else abs(value - self.target), "value": value}


def test_the_learning_rate_rises_linearly_and_falls_along_half_a_cosine_to_two_percent() -> None:
    config = FitConfig(steps=1000, learning_rate=0.4, warmup=100)
    for step in (0, 1, 50, 99, 100, 500, 999):
        cosine = 0.02 + 0.98 * (1 + math.cos(math.pi * step / 1000)) / 2
        assert config.rate(step) == pytest.approx(0.4 * min(1, (step + 1) / 100) * cosine, rel=1e-12)
    assert config.rate(0) == pytest.approx(0.4 / 100)
    assert config.rate(500) == pytest.approx(0.4 * 0.51)
    assert config.rate(1000) == pytest.approx(0.4 * 0.02)
    rates = [config.rate(step) for step in range(1001)]
    peak = max(range(1001), key=rates.__getitem__)
    assert 90 <= peak <= 110
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)


def test_each_step_moves_by_the_scheduled_rate_and_decays_the_weight() -> None:
    """Under a constant gradient both bias-corrected moments are constant, so AdamW moves by exactly the learning rate."""
    config = FitConfig(steps=12, batch=2, learning_rate=0.01, weight_decay=0.5, warmup=4, validate_every=1, average=0.0)
    task = Slope()
    fit(task, toy_source(), config, progress=False)
    expected = 1.0
    for step, (value, progress) in enumerate(task.seen):
        assert value == pytest.approx(expected, abs=2e-6)
        assert progress == pytest.approx(step / 12)
        expected = expected * (1 - config.rate(step) * 0.5) - config.rate(step)


def test_gradients_longer_than_the_clip_are_shortened_to_it() -> None:
    """With both gradients clipped to 1 Adam moves by its rate twice; with 1000 as it is, it would move by 0.74 of it."""
    config = FitConfig(steps=2, batch=2, learning_rate=0.01, weight_decay=0.0, warmup=1, clip=1.0, average=0.0)
    task = Slope(slopes=(1.0, 1000.0))
    history = fit(task, toy_source(), config, progress=False)
    assert history.validation[-1]["value"] == pytest.approx(1 - config.rate(0) - config.rate(1), abs=1e-5)


def test_the_running_average_is_what_is_validated_and_kept() -> None:
    config = FitConfig(steps=15, batch=2, learning_rate=0.01, weight_decay=0.0, warmup=1, validate_every=1, average=0.5)
    task = Slope()
    history = fit(task, toy_source(), config, progress=False)
    value = average = 1.0
    for step, scores in enumerate(history.validation):
        value -= config.rate(step)
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
        assert scores["value"] == pytest.approx(average, abs=3e-6)
    assert float(task.module.p.detach()) == pytest.approx(average, abs=3e-6)  # falling all the way: the last is the best


def test_training_stops_early_and_returns_to_the_best_step(tmp_path: Path) -> None:
    config = FitConfig(
        steps=40, batch=2, learning_rate=0.01, weight_decay=0.0, warmup=1, validate_every=2, average=0.0, patience=3, save_every=50
    )
    history = fit(task := Slope(target=0.9), toy_source(), config, folder=tmp_path, progress=False)
    scores = [scores["loss"] for scores in history.validation]
    best = scores.index(min(scores))
    assert history.stopped_early and len(scores) == best + 1 + 3
    assert history.best_step == 2 * (best + 1)
    assert abs(float(task.module.p.detach()) - 0.9) == pytest.approx(min(scores), abs=1e-6)
    again = fit(task := Slope(target=0.9), toy_source(), config, folder=tmp_path, progress=False)
    assert task.calls == 0 and again == history
    assert abs(float(task.module.p.detach()) - 0.9) == pytest.approx(min(scores), abs=1e-6)


def test_patience_zero_never_stops_early() -> None:
    config = FitConfig(steps=40, batch=2, learning_rate=0.01, warmup=1, validate_every=2, average=0.0)
    history = fit(Slope(target=0.9), toy_source(), config, progress=False)
    assert not history.stopped_early and len(history.validation) == 20


@pytest.mark.parametrize(
    "setting",
    [{"steps": 0}, {"batch": 0}, {"learning_rate": 0.0}, {"average": 1.0}, {"average": -0.1}, {"save_every": 0}, {"validate_every": 0}],
    ids=str,
)
def test_settings_that_cannot_train_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        FitConfig(**{"steps": 5, **setting})


# --- killed and resumed ---


@pytest.fixture(scope="module")
def whole_toy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Toy]]:
    done = {}
    for precision in ("fp32", "bf16", "fp16"):
        torch.set_num_threads(1)
        folder, toy = tmp_path_factory.mktemp(precision), Toy()
        fit(toy, toy_source(), replace(TOY, precision=precision), folder=folder, progress=False)
        done[precision] = folder, toy
    return done


@pytest.mark.parametrize("kill", [1, 2, 3, 4, 5, 9, 12, 13, 20, 23])
def test_killed_and_resumed_is_the_same_run_bit_for_bit(kill: int, whole_toy: dict[str, tuple[Path, Toy]], tmp_path: Path) -> None:
    folder, whole = whole_toy["fp32"]
    with pytest.raises(Killed):
        fit(Toy(kill), toy_source(), TOY, folder=tmp_path, progress=False)
    torch.rand(7)  # another process has another state of the global generator
    resumed = Toy()
    fit(resumed, toy_source(), TOY, folder=tmp_path, progress=False)
    assert resumed.calls == 23 - (kill - 1) // 3 * 3
    assert_same(weights(resumed.module), weights(whole.module))
    assert_same_run(folder, tmp_path)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_resumes_exactly_too(precision: str, whole_toy: dict[str, tuple[Path, Toy]], tmp_path: Path) -> None:
    config = replace(TOY, precision=precision)
    with pytest.raises(Killed):
        fit(Toy(kill=14), toy_source(), config, folder=tmp_path, progress=False)
    fit(Toy(), toy_source(), config, folder=tmp_path, progress=False)
    assert_same_run(whole_toy[precision][0], tmp_path)
    tensors, _ = read_tensors(tmp_path / "model.last.safetensors")
    plain, _ = read_tensors(whole_toy["fp32"][0] / "model.last.safetensors")
    assert any(not torch.equal(tensors[name], plain[name]) for name in plain if name.startswith("model."))


def test_a_run_killed_again_and_again_still_arrives(whole_toy: dict[str, tuple[Path, Toy]], tmp_path: Path) -> None:
    for _ in range(5):
        with pytest.raises(Killed):
            fit(Toy(kill=5), toy_source(), TOY, folder=tmp_path, progress=False)
    fit(Toy(), toy_source(), TOY, folder=tmp_path, progress=False)
    assert_same_run(whole_toy["fp32"][0], tmp_path)


@pytest.mark.parametrize("write", range(1, 9))
def test_killed_while_a_checkpoint_moves_into_place(
    write: int, whole_toy: dict[str, tuple[Path, Toy]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each save moves two files, the last one and the best one; a kill may fall before, between or after."""
    moves = 0
    move = os.replace

    def counted(source: Any, target: Any) -> None:
        nonlocal moves
        moves += 1
        if moves == write:
            raise Killed
        move(source, target)

    monkeypatch.setattr(os, "replace", counted)
    with pytest.raises(Killed):
        fit(Toy(), toy_source(), TOY, folder=tmp_path, progress=False)
    fit(Toy(), toy_source(), TOY, folder=tmp_path, progress=False)
    assert_same_run(whole_toy["fp32"][0], tmp_path)


def test_the_checkpoint_keeps_moments_average_best_weights_and_every_generator(whole_toy: dict[str, tuple[Path, Toy]]) -> None:
    tensors, facts = read_tensors(whole_toy["fp32"][0] / "model.last.safetensors")
    parameters = len(list(Net().parameters()))
    for index in range(parameters):
        assert {f"optimizer.{index}.{part}" for part in ("step", "exp_avg", "exp_avg_sq")} <= set(tensors)
        assert float(tensors[f"optimizer.{index}.step"]) == 23
        assert tensors[f"optimizer.{index}.exp_avg_sq"].abs().max() > 0
    for name in Net().state_dict():
        assert {f"model.{name}", f"average.{name}", f"best.{name}"} <= set(tensors)
    assert {"random.noise", "random.cpu", "batches.generator"} <= set(tensors)
    assert facts["step"] == 23 and facts["config"] == asdict(TOY) and facts["device"] == "cpu" and facts["threads"] == 1
    assert any(not torch.equal(tensors[f"model.{name}"], tensors[f"average.{name}"]) for name in Net().state_dict())


def test_a_run_that_pauses_again_and_again_is_the_same_run(whole_toy: dict[str, tuple[Path, Toy]], tmp_path: Path) -> None:
    calls = 0
    for _ in range(TOY.steps):
        steps = iter([False, False, True])
        calls += 1
        try:
            history = fit(Toy(), toy_source(), TOY, folder=tmp_path, progress=False, pause=lambda steps=steps: next(steps))
        except TrainingPaused as pause:
            assert re.search(rf"stopped at step {3 * calls} of {TOY.steps}", str(pause))
            continue
        break
    assert calls == -(-TOY.steps // 3)
    assert_same_run(whole_toy["fp32"][0], tmp_path)
    assert history.seconds > 0
    with pytest.raises(ConfigError, match="only where it can be saved"):
        fit(Toy(), toy_source(), TOY, progress=False, pause=lambda: True)


def test_seconds_add_up_over_interruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def tick() -> float:
        nonlocal now
        now += 1.0
        return now

    monkeypatch.setattr(train.time, "monotonic", tick)
    whole = fit(Toy(), toy_source(), TOY, folder=tmp_path / "whole", progress=False).seconds
    with contextlib.suppress(TrainingPaused):
        fit(Toy(), toy_source(), TOY, folder=tmp_path / "cut", progress=False, pause=lambda: True)
    _, facts = read_tensors(tmp_path / "cut" / "model.last.safetensors")
    first = facts["history"]["seconds"]
    assert first > 0
    now += 1000.0  # the machine was off
    again = fit(Toy(), toy_source(), TOY, folder=tmp_path / "cut", progress=False).seconds
    assert first < again < 1000 and whole < 1000


def test_counters_of_early_stopping_survive_a_kill(tmp_path: Path) -> None:
    config = FitConfig(steps=40, batch=2, learning_rate=0.01, weight_decay=0.0, warmup=1, validate_every=2, average=0.0, patience=3)
    whole = fit(Slope(target=0.9), toy_source(), replace(config, save_every=1), progress=False)
    last = int(whole.validation[-1]["step"])
    for stop in (last - 3, last - 1):
        folder = tmp_path / str(stop)
        task = Slope(target=0.9)
        task.slopes = (*([1.0] * stop), math.nan)
        with pytest.raises(TrainingError):
            fit(task, toy_source(), replace(config, save_every=1), folder=folder, progress=False)
        _, facts = read_tensors(folder / "model.last.safetensors")
        assert facts["history"]["without_improvement"] > 0
        resumed = fit(Slope(target=0.9), toy_source(), replace(config, save_every=1), folder=folder, progress=False)
        assert resumed == whole


@pytest.mark.parametrize("every", [1, 5, 100])
def test_how_often_we_validate_does_not_change_the_training(every: int, whole_toy: dict[str, tuple[Path, Toy]], tmp_path: Path) -> None:
    toy = Toy()
    fit(toy, toy_source(), replace(TOY, validate_every=every), folder=tmp_path, progress=False)
    here, there = (read_tensors(folder / "model.last.safetensors")[0] for folder in (tmp_path, whole_toy["fp32"][0]))
    kinds = ("model.", "average.", "optimizer.", "random.", "batches.")
    assert_same(*({name: value for name, value in tensors.items() if name.startswith(kinds)} for tensors in (here, there)))


def test_a_folder_changes_nothing_of_the_training(whole_toy: dict[str, tuple[Path, Toy]]) -> None:
    toy = Toy()
    fit(toy, toy_source(), TOY, progress=False)
    assert_same(weights(toy.module), weights(whole_toy["fp32"][1].module))


def test_another_seed_trains_another_network(whole_toy: dict[str, tuple[Path, Toy]]) -> None:
    toy = Toy()
    fit(toy, toy_source(), replace(TOY, seed=4), progress=False)
    assert any(not torch.equal(value, whole_toy["fp32"][1].module.state_dict()[name]) for name, value in toy.module.state_dict().items())


@pytest.mark.parametrize("change", [{"learning_rate": 2e-3}, {"batch": 5}, {"seed": 9}, {"steps": 30}, {"flip": False}], ids=str)
def test_a_run_does_not_go_on_in_another_configuration(
    change: dict[str, Any], whole_toy: dict[str, tuple[Path, Toy]], tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        fit(Toy(kill=8), toy_source(), TOY, folder=tmp_path, progress=False)
    before = (tmp_path / "model.last.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=rf"\({next(iter(change))}\)"):
        fit(Toy(), toy_source(), replace(TOY, **change), folder=tmp_path, progress=False)
    assert (tmp_path / "model.last.safetensors").read_bytes() == before


def test_a_run_does_not_go_on_with_other_data_or_another_network(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(Toy(kill=8), toy_source(), TOY, folder=tmp_path, progress=False)
    with pytest.raises(CheckpointError, match="count = 10, this stream has 11"):
        fit(Toy(), toy_source(11), TOY, folder=tmp_path, progress=False)
    other = Toy()
    other.module.layers[0] = nn.Conv2d(1, 8, 1)
    with pytest.raises(CheckpointError, match=r"layers\.0\.weight"):
        fit(other, toy_source(), TOY, folder=tmp_path, progress=False)


def test_another_number_of_threads_gives_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Killed):
        fit(Toy(kill=8), toy_source(), TOY, folder=tmp_path, progress=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    with pytest.warns(UserWarning, match=r"threads 7.*a run of .*threads 1.*not be bit-identical"):
        fit(Toy(), toy_source(), TOY, folder=tmp_path, progress=False)


# --- numbers that are not numbers ---


def test_a_term_that_becomes_nan_is_named_with_its_step_and_the_checkpoint_stays(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"^extra became nan at step 8\b.*model\.last\.safetensors, is untouched"):
        fit(Toy(spoil=8), toy_source(), TOY, folder=tmp_path, progress=False)
    _, facts = read_tensors(tmp_path / "model.last.safetensors")
    assert facts["step"] == 6
    fit(Toy(), toy_source(), TOY, folder=tmp_path, progress=False)


def test_a_spoiled_step_leaves_the_weights_alone() -> None:
    toy = Toy(spoil=1)
    before = [parameter.clone() for parameter in toy.module.parameters()]
    with pytest.raises(TrainingError):
        fit(toy, toy_source(), TOY, progress=False)
    assert all(torch.equal(*pair) for pair in zip(before, toy.module.parameters()))


def test_nan_in_the_data_is_reported_as_a_training_error() -> None:
    gray, ab = toy_fields(10)
    ab[3, 0, 0, 0] = math.nan
    with pytest.raises(TrainingError, match=r"loss, extra became nan at step [123] "):
        fit(Toy(), TensorFields(gray, ab), TOY, progress=False)


def test_a_gradient_that_is_nan_while_the_loss_is_finite_is_caught() -> None:
    class Root(Slope):
        def losses(self, first: Tensor, second: Tensor, noise: torch.Generator, progress: float) -> dict[str, Tensor]:
            return {"loss": (self.module.p * 0).sqrt().sum()}

    task = Root()
    with pytest.raises(TrainingError, match="gradient norm became nan at step 1 "):
        fit(task, toy_source(), FitConfig(steps=3, batch=2), progress=False)
    assert float(task.module.p.detach()) == 1


def test_a_validation_that_becomes_nan_names_the_step_it_was_made_at(tmp_path: Path) -> None:
    class Blind(Toy):
        def validate(self, module: nn.Module) -> dict[str, float]:
            return {"loss": math.nan if self.calls >= 8 else 1.0}

    with pytest.raises(TrainingError, match="loss became nan at step 8 "):
        fit(Blind(), toy_source(), TOY, folder=tmp_path, progress=False)
    assert read_tensors(tmp_path / "model.last.safetensors")[1]["step"] == 6


# --- a full disk ---


@pytest.mark.parametrize("write", [3, 4, 7])
def test_a_full_disk_is_one_clear_error_and_the_checkpoint_before_it_stays(
    write: int, whole_toy: dict[str, tuple[Path, Toy]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = 0
    kept: dict[str, bytes] = {}

    def full(path: Path, content: bytes) -> int:
        nonlocal writes
        writes += 1
        with open(path, "wb") as stream:
            if writes == write:
                kept.update({file.name: file.read_bytes() for file in tmp_path.glob("*.safetensors")})
                stream.write(content[: len(content) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return stream.write(content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(StorageError, match="No space left on device"):
            fit(Toy(), toy_source(), TOY, folder=tmp_path, progress=False)
    assert {file.name for file in tmp_path.iterdir()} == set(kept) == {"model.last.safetensors", "model.best.safetensors"}
    assert all((tmp_path / name).read_bytes() == content for name, content in kept.items())
    fit(Toy(), toy_source(), TOY, folder=tmp_path, progress=False)
    assert_same_run(whole_toy["fp32"][0], tmp_path)


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError):
        fit(Toy(), toy_source(), TOY, folder=tmp_path / "file" / "run", progress=False)


# --- files ---

TENSORS = {
    "float": torch.linspace(-1, 1, 7),
    "half": torch.randn(3, 2, generator=generator(0)).half(),
    "count": torch.tensor(5),
    "bytes": torch.arange(9, dtype=torch.uint8),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    "flag": torch.tensor([True, False]),
}
FACTS = {"step": 3, "history": {"loss": [0.5, 0.25]}, "name": "ä"}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "x.safetensors", TENSORS, FACTS)
    return tmp_path / "x.safetensors"


def test_what_is_written_comes_back(stored: Path) -> None:
    tensors, facts = read_tensors(stored)
    assert_same(tensors, TENSORS)
    assert all(tensors[name].dtype == TENSORS[name].dtype for name in TENSORS)
    assert {name: facts[name] for name in FACTS} == FACTS
    assert read_tensors(str(stored))[1] == facts


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, -200, -20, -1])
def test_a_truncated_file_is_refused(stored: Path, length: int) -> None:
    content = stored.read_bytes()
    stored.write_bytes(content[: length if length >= 0 else len(content) + length])
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        read_tensors(stored)


def test_a_file_with_something_behind_its_end_is_refused(stored: Path) -> None:
    stored.write_bytes(stored.read_bytes() + b"more")
    with pytest.raises(CheckpointError):
        read_tensors(stored)


@pytest.mark.parametrize("bit", [0, 5])
def test_no_flipped_bit_passes_unnoticed(stored: Path, bit: int) -> None:
    """In tensors, in names, in facts: either the file is refused, or what it says is unchanged (as in its padding)."""
    content = stored.read_bytes()
    facts = read_tensors(stored)[1]
    passed = []
    for position in range(len(content)):
        stored.write_bytes(content[:position] + bytes([content[position] ^ 1 << bit]) + content[position + 1 :])
        try:
            tensors, found = read_tensors(stored)
        except CheckpointError:
            continue
        if found != facts or tensors.keys() != TENSORS.keys() or any(not torch.equal(tensors[name], TENSORS[name]) for name in TENSORS):
            passed.append((position, content[max(0, position - 15) : position + 5]))
    assert not passed


# --- the stages of a colorizer ---


def tiny(design: str = "unet", **changes: Any) -> Recipe:
    shared = {"batch": 4, "warmup": 2, "validate_every": 3, "save_every": 2, "average": 0.9, **changes}
    reference = design == "reference"
    return Recipe(
        "tiny",
        CVAEConfig(design=design, latent=2, width=0.0625 if reference else 0.1),
        MDNConfig(
            design="reference" if reference else "heads",
            latent=2,
            width=0.0625,
            components=3,
            representatives=3,
            scale=0.1 if reference else None,
            dropout=0.5,
        ),
        Objective(reference=reference),
        regression_fit=None if reference else FitConfig(steps=4, **shared),
        cvae_fit=FitConfig(steps=5, **shared),
        mdn_fit=FitConfig(steps=5, **shared),
        mdn_loss="reference" if reference else "exact",
    )


def stages(design: str) -> tuple[str, ...]:
    return ("cvae", "mdn") if design == "reference" else ("regression", "cvae", "mdn")


def fields(count: int, seed: int) -> TensorFields:
    coarse = torch.rand(count, 3, 4, 4, generator=generator(seed)) * 2 - 1
    fine = nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear")
    return TensorFields(fine[:, :1], 0.4 * fine[:, 1:])


TRAINING, VALIDATION = fields(10, 0), fields(5, 1)


def run(recipe: Recipe, folder: Path | None, stage: str = "all") -> train.Trained:
    return train_colorizer(recipe, TRAINING, VALIDATION, folder=folder, stage=stage, progress=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    folders = {design: tmp_path_factory.mktemp(design) for design in ("unet", "reference")}
    for design, folder in folders.items():
        run(tiny(design), folder)
    return folders


@pytest.mark.parametrize(("design", "kill"), [*(("unet", k) for k in (2, 5, 8, 12)), *(("reference", k) for k in (1, 4, 9))])
def test_every_stage_can_be_killed_and_resumed_bit_for_bit(
    design: str, kill: int, whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference design drops features, so the global generator's state must come back as well."""
    advance, steps = train._Run.advance, 0

    def counted(self: train._Run) -> dict[str, float]:
        nonlocal steps
        steps += 1
        if steps == kill:
            raise Killed
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(train._Run, "advance", counted)
        with pytest.raises(Killed):
            run(tiny(design), tmp_path)
    run(tiny(design), tmp_path)
    assert_same_run(whole[design], tmp_path, stages(design))


def test_the_cvae_then_the_mdn_is_the_same_as_both_at_once(whole: dict[str, Path], tmp_path: Path) -> None:
    half = run(tiny(), tmp_path, "cvae")
    assert half.mdn is None and set(half.histories) == {"regression", "cvae"}
    assert not (tmp_path / "mdn.last.safetensors").exists()
    both = run(tiny(), tmp_path, "mdn")
    assert both.mdn is not None and both.regressor is not None
    assert_same_run(whole["unet"], tmp_path, stages("unet"))
    assert not any(module.training for module in (both.cvae, both.mdn, both.regressor))


def test_the_mdn_alone_wants_a_finished_cvae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (None, tmp_path / "empty"):
        with pytest.raises(CheckpointError, match="no trained CVAE"):
            run(tiny(), folder, "mdn")
    advance = train._Run.advance

    def stops_at_four(self: train._Run) -> dict[str, float]:
        if self.name == "cvae" and self.step == 4:
            raise Killed
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(train._Run, "advance", stops_at_four)
        with pytest.raises(Killed):
            run(tiny(), tmp_path, "cvae")
    with pytest.raises(CheckpointError, match="CVAE"):
        run(tiny(), tmp_path, "mdn")


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown stage `vae`"):
        run(tiny(), None, "vae")


@pytest.mark.parametrize(
    "other",
    [
        lambda recipe: replace(recipe, objective=Objective(kl=0.5)),
        lambda recipe: replace(recipe, mdn_loss="bound"),
        lambda recipe: replace(recipe, cvae=replace(recipe.cvae, latent=3)),
        lambda recipe: recipe.with_(seed=1),
    ],
    ids=["objective", "MDN loss", "architecture", "seed"],
)
def test_a_folder_of_another_recipe_is_refused(other: Any, whole: dict[str, Path]) -> None:
    files = {path: path.read_bytes() for path in whole["unet"].iterdir()}
    try:
        with pytest.raises(CheckpointError):
            run(other(tiny()), whole["unet"])
    finally:
        for path, content in files.items():
            path.write_bytes(content)


def test_on_step_sees_every_step_of_every_stage_and_changes_nothing(whole: dict[str, Path], tmp_path: Path) -> None:
    calls: list[tuple[str, int, bool]] = []

    def look(stage: str, step: int, trained: train.Trained) -> None:
        calls.append((stage, step, trained.mdn is not None))
        module = trained.mdn or trained.cvae
        assert all(torch.isfinite(value).all() for value in module.state_dict().values())

    train_colorizer(tiny(), TRAINING, VALIDATION, folder=tmp_path, on_step=look, progress=False)
    assert calls == [(stage, step, stage == "mdn") for stage, last in zip(stages("unet"), (4, 5, 5)) for step in range(1, last + 1)]
    assert_same_run(whole["unet"], tmp_path, stages("unet"))


def test_on_step_gets_the_running_average() -> None:
    seen: list[float] = []
    config = FitConfig(steps=3, batch=2, learning_rate=0.01, weight_decay=0.0, warmup=1, average=0.5)
    fit(Slope(), toy_source(), config, on_step=lambda step, module: seen.append(float(module.p)), progress=False)
    value = average = 1.0
    for step, found in enumerate(seen):
        value -= config.rate(step)
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
        assert found == pytest.approx(average, abs=3e-6)
    assert len(seen) == 3


def test_the_cvae_starts_from_the_regression_network(whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    def stop(self: train._Run) -> dict[str, float]:
        if self.name == "cvae":
            best, _ = read_tensors(whole["unet"] / "regression.best.safetensors")
            trunk = {name: value for name, value in self.module.state_dict().items() if name.startswith("gray_encoder.")}
            assert_same(trunk, {name: best[name] for name in trunk})
            raise Stop
        return advance(self)

    advance = train._Run.advance
    monkeypatch.setattr(train._Run, "advance", stop)
    with pytest.raises(Stop):
        run(tiny(), None)


#: Imports once, then runs the command in one child after another; says each child's number, and how it ended.
DRIVER = """
import os, sys
sys.path.insert(0, sys.argv.pop(1))
import divcolor_lib.__main__ as cli
from test_train import tiny
cli.PORTRAIT_COUNTS = {"train": 24, "val": 4, "test": 4}
cli.RECIPES["portraits"] = tiny(save_every=1).scaled(3)
for attempt in range(4):
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)  # standard output is for the two numbers below
        os._exit(cli.main(sys.argv[1:]))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.timeout(900)  # four runs, while a busy machine may give them a tenth of a processor
def test_the_command_survives_kill_9_at_random_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import divcolor_lib.__main__ as cli

    monkeypatch.setattr(cli, "PORTRAIT_COUNTS", {"train": 24, "val": 4, "test": 4})
    monkeypatch.setitem(cli.RECIPES, "portraits", tiny(save_every=1).scaled(3))
    common = ["train", "--recipe", "portraits", "--profile", "cpu", "--precision", "fp32"]
    assert cli.main([*common, "--out", str(tmp_path / "whole.safetensors"), "--run", str(tmp_path / "whole")]) == 0

    command = [sys.executable, "-c", DRIVER, str(ROOT / "tests"), *common, "--out", str(tmp_path / "killed.safetensors")]
    command += ["--run", str(tmp_path / "killed")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(ROOT)}
    chance = random.Random(time.time_ns())
    hits = 0
    with (
        open(tmp_path / "errors.txt", "w", encoding="utf-8") as errors,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as driver,
    ):
        assert driver.stdout is not None
        for stage in stages("unet"):
            child = int(driver.stdout.readline())
            with contextlib.suppress(ProcessLookupError):
                while not (tmp_path / "killed" / f"{stage}.last.safetensors").exists():
                    os.kill(child, 0)
                    time.sleep(0.01)
                time.sleep(chance.uniform(0, 0.1))
                os.kill(child, signal.SIGKILL)
            hits += int(driver.stdout.readline()) == -signal.SIGKILL
        assert int(driver.stdout.readline()) > 0
        assert int(driver.stdout.readline()) == 0, (tmp_path / "errors.txt").read_text()
    assert hits >= 2
    assert_same_run(tmp_path / "whole", tmp_path / "killed", stages("unet"))
    assert_same(*(read_tensors(tmp_path / f"{name}.safetensors")[0] for name in ("whole", "killed")))


# --- what the stages minimize ---


@pytest.fixture(scope="module")
def cvae() -> CVAE:
    """With a posterior that says something: untrained, its KL is nearly 0."""
    torch.manual_seed(0)
    network = CVAE.build(tiny().cvae).eval()
    nn.init.normal_(network.posterior.bias, std=0.7)  # type: ignore[union-attr, arg-type]
    return network


def terms(cvae: CVAE, objective: Objective, progress: float = 1.0, **extra: Any) -> dict[str, float]:
    task = train.CVAETask(cvae, objective, VALIDATION, 5, **extra)
    gray, ab = VALIDATION.batch(torch.arange(5))
    return {name: float(value.detach()) for name, value in task.losses(gray, ab, generator(6), progress).items()}


def parts(cvae: CVAE) -> tuple[np.ndarray, np.ndarray, float]:
    """Difference field and squared errors in float64, and the KL, of the same noise."""
    gray, ab = VALIDATION.batch(torch.arange(5))
    with torch.no_grad():
        painted, mu, logvar = cvae(ab, gray, generator(6))
    difference = (painted - ab).double().numpy()
    mu, logvar = mu.double(), logvar.double()
    return difference, ab.numpy(), float((0.5 * (mu**2 + logvar.exp() - logvar - 1)).sum(1).mean())


def test_the_default_objective_is_the_elbo(cvae: CVAE) -> None:
    difference, _, kl = parts(cvae)
    found = terms(cvae, Objective(noise_variance=0.2))
    reconstruction = (difference**2).sum((1, 2, 3)).mean() / (2 * 0.2)
    assert found["kl"] == pytest.approx(kl, rel=1e-5)
    assert found["reconstruction"] == pytest.approx(reconstruction, rel=1e-5)
    assert found["loss"] == pytest.approx(reconstruction + kl, rel=1e-5)


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0.1), (0.1, 0.55), (0.2, 1.0), (0.9, 1.0)])
def test_the_weight_of_the_kl_rises_from_a_tenth(cvae: CVAE, progress: float, weight: float) -> None:
    _, _, kl = parts(cvae)
    full = terms(cvae, Objective(kl=100.0))
    found = terms(cvae, Objective(kl=100.0), progress)
    assert full["loss"] - found["loss"] == pytest.approx((1 - weight) * 100 * kl, rel=1e-3, abs=1e-3)
    assert terms(cvae, Objective(kl=100.0, kl_warmup=0.0), progress)["loss"] == pytest.approx(full["loss"])


def test_the_gradient_term_reaches_the_loss(cvae: CVAE) -> None:
    difference, _, _ = parts(cvae)
    across, down = np.diff(difference, axis=3), np.diff(difference, axis=2)
    expected = (across**2).sum((1, 2, 3)).mean() + (down**2).sum((1, 2, 3)).mean()
    assert terms(cvae, Objective(gradient=7.0))["loss"] - terms(cvae, Objective())["loss"] == pytest.approx(7 * expected, rel=1e-3)


def test_the_mahalanobis_term_reaches_the_loss(cvae: CVAE) -> None:
    rows = TRAINING.batch(torch.arange(10))[1].flatten(1)
    pca = fit_pca(rows, 3)
    difference = parts(cvae)[0].reshape(5, -1)
    components, variances = pca.components.double().numpy(), pca.variances.double().numpy()
    scores = difference @ components.T
    residual = difference - scores @ components
    expected = ((scores**2 / variances).sum(1) + (residual**2).sum(1) / variances[-1]).mean()
    found = terms(cvae, Objective(mahalanobis=0.3), pca=pca)["loss"] - terms(cvae, Objective())["loss"]
    assert found == pytest.approx(0.3 * expected, rel=1e-3)


def test_rarity_weights_reach_the_loss(cvae: CVAE) -> None:
    bins = gamut_bins()
    table = torch.linspace(0.5, 4, bins.count)
    difference, ab, kl = parts(cvae)
    centers = bins.centers.numpy()
    pixels = ab.transpose(0, 2, 3, 1)[..., None, :] * 128
    nearest = ((pixels - centers) ** 2).sum(-1).argmin(-1)
    expected = (difference**2 * table.numpy()[nearest][:, None]).sum((1, 2, 3)).mean() / 0.6 + kl
    assert terms(cvae, Objective(), weights=WeightTable(bins, table))["loss"] == pytest.approx(expected, rel=1e-4)


def test_the_published_objective_is_root_plus_a_sum_of_kl(cvae: CVAE) -> None:
    bins = gamut_bins()
    difference, _, kl = parts(cvae)
    expected = np.sqrt(2 * (difference**2).sum((1, 2, 3))).mean() + 0.01 * 5 * kl
    found = terms(cvae, Objective(reference=True), weights=WeightTable(bins, torch.full((bins.count,), 2.0)))
    assert found["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("weighting", "mean_one"), [("zhang", True), ("inverse", False)])
def test_the_statistics_that_the_objective_needs_are_fitted_on_training_colors(weighting: str, mean_one: bool) -> None:
    many = fields(25, 3)
    table, pca = train._statistics(replace(tiny(), objective=Objective(weighting=weighting, mahalanobis=0.1)), many, "cpu")
    assert table is not None and pca is not None and pca.components.shape == (20, 2 * 64 * 64)
    average = float(table(many.batch(torch.arange(25))[1]).mean())
    assert (0.5 < average < 2) == mean_one
    assert train._statistics(tiny(), many, "cpu") == (None, None)


@pytest.mark.parametrize("loss", ["exact", "bound", "reference"])
def test_the_mdn_minimizes_the_loss_that_the_recipe_names(loss: str) -> None:
    design = "reference" if loss == "reference" else "heads"
    torch.manual_seed(0)
    mdn = MDN.build(replace(tiny(design if loss == "reference" else "unet").mdn, inputs=(8, 4, 4))).eval()
    features, codes = torch.randn(6, 8, 4, 4), torch.randn(6, 4) * 0.3
    task = train.MDNTask(mdn, loss, train.CodeSource(features, codes), 6)
    found = {name: float(value.detach()) for name, value in task.losses(features, codes, generator(1), 0.0).items()}
    z = codes[:, :2] + (0.5 * codes[:, 2:]).exp() * torch.randn(6, 2, generator=generator(1))
    with torch.no_grad():
        mixture = mdn(features)
    nll = -float(mixture.log_prob(z).mean())
    assert found["nll"] == pytest.approx(nll, rel=1e-5)
    density = {"exact": losses.mixture_nll, "bound": losses.nearest_component_bound, "reference": losses.reference_mixture_loss}[loss]
    expected = float(density(mixture, z))
    if design == "heads":
        shares, shown = mdn.representatives(features)
        mu, precision = codes[:, :2], (-codes[:, 2:]).exp()
        distance = 0.5 * ((mu[:, None] - shown) ** 2 * precision[:, None]).sum(2)
        nearest, m = distance.min(1)
        extra = float((nearest - shares.gather(1, m[:, None])[:, 0].log()).mean().detach())
        assert found["representatives"] == pytest.approx(extra, rel=1e-4)
        expected += extra
    assert found["loss"] == pytest.approx(expected, rel=1e-4)


def test_code_tables_hold_every_view_of_each_photograph(cvae: CVAE) -> None:
    gray, ab = TRAINING.batch(torch.arange(10))
    moved = [shifted(field.flip(-1), torch.tensor([[2, -1]] * 10)) for field in (gray, ab)]
    source = train._codes(cvae, TRAINING, tiny().mdn_fit, [(False, (0, 0)), (True, (0, 0)), (True, (2, -1))], progress=False)
    assert len(source) == 30 and source.features.dtype == torch.float16
    with evaluating(cvae):
        for start, g, c in ((0, gray, ab), (10, gray.flip(-1), ab.flip(-1)), (20, *moved)):
            mu, logvar = cvae.encode(c, g)
            features, codes = source.batch(torch.arange(start, start + 10))
            torch.testing.assert_close(codes, torch.cat([mu, logvar], 1), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(features, cvae.gray_features(g)[-1], atol=2e-3, rtol=2e-3)


# --- recipes ---


@pytest.mark.parametrize("name", sorted(train.RECIPES))
def test_every_recipe_builds_networks_that_fit_together(name: str) -> None:
    recipe = train.RECIPES[name]
    assert recipe.name == name
    cvae = CVAE.build(recipe.cvae)
    mdn = MDN.build(replace(recipe.mdn, inputs=cvae.feature_shape, latent=recipe.cvae.latent))
    with evaluating(cvae, mdn):
        shares, codes = mdn.representatives(torch.zeros(1, *cvae.feature_shape))
        assert codes.shape == (1, 8, recipe.cvae.latent) and shares.shape == (1, 8)
        assert cvae.decode_many(codes, torch.zeros(1, 1, 64, 64)).shape == (1, 8, 2, 64, 64)
    assert recipe.regression_fit is not None  # the anchor rows of every table need it
    assert json.dumps(asdict(recipe))


def test_a_scaled_recipe_takes_a_share_of_the_steps_and_never_none() -> None:
    recipe = train.RECIPES["faces"]
    half = recipe.scaled(0.5)
    assert (half.cvae_fit.steps, half.mdn_fit.steps) == (recipe.cvae_fit.steps // 2, recipe.mdn_fit.steps // 2)
    assert half.regression_fit is not None and recipe.regression_fit is not None
    assert half.regression_fit.steps == recipe.regression_fit.steps // 2
    assert recipe.scaled(1e-9).cvae_fit.steps == 1
    changed = recipe.with_(seed=4, precision="bf16")
    assert {(f.seed, f.precision) for f in (changed.cvae_fit, changed.mdn_fit, changed.regression_fit) if f} == {(4, "bf16")}
    assert tiny("reference").scaled(2).regression_fit is None and tiny("reference").with_(seed=1).regression_fit is None


@pytest.mark.parametrize("bad", [{"weighting": "rare"}, {"noise_variance": 0.0}, {"kl": -1.0}, {"gradient": -0.1}], ids=str)
def test_objectives_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Objective(**bad)


def test_an_unknown_mdn_loss_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown MDN loss `nearest`"):
        replace(tiny(), mdn_loss="nearest")


@pytest.mark.parametrize(
    ("profile", "dataset", "name"), [("gpu", "lfw", "faces-full"), ("gpu", "portraits", "portraits"), ("cpu", "portraits", "tiny")]
)
def test_a_machine_trains_what_it_can(profile: str, dataset: str, name: str) -> None:
    here = Runtime(profile, torch.device("cpu"), "fp16" if profile == "gpu" else "fp32", dataset, None, 5, 2)
    recipe = train.recipe_for(here)
    fits = recipe.fits().values()
    assert recipe.name == name and {fit.seed for fit in fits} == {5} and {fit.precision for fit in fits} == {here.precision}
    if profile == "cpu":
        assert sum(fit.steps * fit.batch for fit in fits) < 10_000, "a tiny one takes seconds"
    else:
        assert [fit.steps for fit in fits] == [fit.steps for fit in train.RECIPES[name].fits().values()]


def test_the_full_model_fits_into_one_file_that_rented_machines_hand_back() -> None:
    recipe = train.RECIPES["faces-full"]
    cvae = CVAE.build(recipe.cvae)
    parts = (cvae, MDN.build(replace(recipe.mdn, inputs=cvae.feature_shape, latent=recipe.cvae.latent)), ColorRegressor(recipe.cvae.width))
    numbers = sum(value.numel() for part in parts for value in part.state_dict().values())
    fields = (21 + 8) * 2 * 64 * 64  # of the anchor rows: mean, 20 components, 8 cluster centers
    assert 2 * (numbers + fields) < 0.97 * 16 * 2**20  # in half precision, with room for names and the manifest
