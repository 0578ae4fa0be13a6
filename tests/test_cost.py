"""What a step costs: counted against closed forms, and measured by clocks and counters that the tests hold in their hands."""

from __future__ import annotations

import gc
import math
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from divcolor_lib import cost
from divcolor_lib.cvae import CVAE, CVAEConfig, ReferenceCVAE
from divcolor_lib.data import PhotoFields
from divcolor_lib.errors import ConfigError
from divcolor_lib.mdn import REFERENCE_INPUTS, MDNConfig
from divcolor_lib.runtime import generator
from divcolor_lib.train import FitConfig, Objective, Recipe, train_colorizer

FLOAT = 4


@pytest.fixture(autouse=True)
def one_thread_and_own_random_numbers() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(before)


def photographs(count: int = 4) -> PhotoFields:
    return PhotoFields(torch.randint(0, 256, (count, 64, 64, 3), generator=generator(0), dtype=torch.uint8))


def recipe(design: str = "unet", **changes: Any) -> Recipe:
    fit = FitConfig(steps=3, batch=2)
    small = Recipe(
        f"small {design}",
        CVAEConfig(design=design, latent=4, width=0.125),
        MDNConfig(width=0.25),
        Objective(reference=design == "reference"),
        fit,
        fit,
        regression_fit=fit,
    )
    return replace(small, **changes)


def backward(output: Tensor) -> None:
    output.sum().backward()


# --- operations ---


@pytest.mark.parametrize(
    ("layer", "shape", "forward"),
    [
        (nn.Conv2d(3, 5, 3, padding=1), (2, 3, 8, 6), 2 * 2 * (8 * 6) * 9 * 3 * 5),
        (nn.Conv2d(3, 5, 5, stride=2, padding=2), (2, 3, 8, 6), 2 * 2 * (4 * 3) * 25 * 3 * 5),
        # A transposed convolution spreads each input pixel: its count goes by the input's size.
        (nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1), (2, 3, 8, 6), 2 * 2 * (8 * 6) * 16 * 3 * 5),
        (nn.Linear(7, 11), (2, 7), 2 * 2 * 7 * 11),
        (nn.BatchNorm2d(3), (2, 3, 8, 6), 0),
    ],
    ids=["convolution", "strided", "transposed", "linear", "batch norm"],
)
def test_operations_are_those_of_the_closed_form(layer: nn.Module, shape: tuple[int, ...], forward: int) -> None:
    x = torch.randn(shape)
    assert cost.operations(lambda: layer(x)) == forward
    # Backward: the weights' gradient costs as much as the forward pass, and the input's gradient, where one is asked for, too.
    assert cost.operations(lambda: backward(layer(x))) == 2 * forward
    assert cost.operations(lambda: backward(layer(x.clone().requires_grad_()))) == 3 * forward


def convolution_operations(module: nn.Module, call: Callable[[], object]) -> tuple[int, int]:
    """Return the operations of all convolutions and linear layers that `call` runs forward, and those of the first ones.

    The first ones read the batch, of which nobody wants a gradient. Counted from layers and their outputs, by hooks.
    """
    total = first = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total, first
        weight = layer.weight
        assert isinstance(weight, Tensor)
        one = 2 * output.numel() * weight[0].numel()
        total += one
        first += one if not inputs[0].requires_grad else 0

    layers = [part for part in module.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    call()
    for hook in hooks:
        hook.remove()
    return total, first


@pytest.mark.parametrize("stage", cost.STAGES)
def test_the_operations_of_a_step_are_three_forward_passes_but_for_the_gradient_of_the_batch(stage: str) -> None:
    step = cost.training_step(recipe(), stage, photographs())
    forward, first = convolution_operations(step.module, step.forward)
    assert 0 < first < forward
    assert cost.operations(step.forward) == forward
    assert cost.operations(step) == 3 * forward - first


def test_the_published_networks_cost_what_is_known() -> None:
    """10^9 operations for each image at full width, forward: counted independently when the published code was studied."""
    cvae = CVAE.build(CVAEConfig(design="reference", latent=64))
    gray, ab = photographs(2).batch(torch.arange(2))
    parts = {"encoder": lambda: cvae.encode(ab), "gray encoder": lambda: cvae.gray_features(gray), "all": lambda: cvae(ab, gray)}
    with torch.no_grad():
        counted = {name: cost.operations(part) / 2e9 for name, part in parts.items()}
    assert counted == {
        "encoder": pytest.approx(1.007, abs=5e-4),
        "gray encoder": pytest.approx(0.996, abs=5e-4),
        "all": pytest.approx(4.707, abs=5e-4),
    }
    assert cost.parameter_bytes(cvae) == FLOAT * 33_368_770


def test_mixed_precision_and_layout_change_no_operation() -> None:
    counts = {
        (precision, layout): cost.operations(
            cost.training_step(recipe().with_(precision=precision), "cvae", photographs(), channels_last=layout)
        )
        for precision in ("fp32", "bf16")
        for layout in (True, False)
    }
    assert len(set(counts.values())) == 1


# --- bytes ---


def test_saved_bytes_are_what_the_chain_rule_needs() -> None:
    x, y = torch.randn(100, requires_grad=True), torch.randn(100, requires_grad=True)
    assert cost.saved_bytes(lambda: x + y) == 0
    assert cost.saved_bytes(lambda: x * y) == 2 * 100 * FLOAT
    assert cost.saved_bytes(lambda: x.exp().sum()) == 100 * FLOAT
    assert cost.saved_bytes(lambda: x.detach().exp()) == 0


def test_saved_memory_counts_once_and_whole() -> None:
    x = torch.randn(100, requires_grad=True)
    assert cost.saved_bytes(lambda: x * x) == 100 * FLOAT
    assert cost.saved_bytes(lambda: x[:10] * x[90:]) == 100 * FLOAT
    assert cost.saved_bytes(lambda: x * x, besides=[x]) == 0


def test_temporary_results_that_are_freed_do_not_hide_each_other() -> None:
    x = torch.randn(100_000, requires_grad=True)
    assert cost.saved_bytes(lambda: [x.exp(), x.exp()]) == 2 * 100_000 * FLOAT


def test_counting_saved_bytes_keeps_nothing() -> None:
    x = torch.randn(100, requires_grad=True)
    results: list[weakref.ref[Tensor]] = []

    def call() -> Tensor:
        out = x.exp()
        results.append(weakref.ref(out))
        return out

    gc.disable()  # a graph that holds itself would live until the collector comes
    try:
        cost.saved_bytes(call)
        assert results[0]() is None
    finally:
        gc.enable()


def test_a_step_saves_what_its_forward_pass_saves() -> None:
    step = cost.training_step(recipe("reference"), "cvae", photographs())
    weights = list(step.module.parameters())
    forward = cost.saved_bytes(step.forward, weights)
    assert cost.saved_bytes(step, weights) == forward > 0
    twice = cost.training_step(recipe("reference").with_(batch=4), "cvae", photographs())
    # Nearly all of it grows with the batch; batch norm keeps a mean and a variance for each channel whatever the batch.
    assert 1.9 * forward < cost.saved_bytes(twice.forward, twice.module.parameters()) < 2 * forward


def test_optimizer_bytes_are_two_moments_after_the_first_step() -> None:
    step = cost.training_step(recipe(), "cvae", photographs())
    assert cost.optimizer_bytes(step.optimizer) == 0
    step()
    counters = FLOAT * len(list(step.module.parameters()))
    assert cost.optimizer_bytes(step.optimizer) == 2 * cost.parameter_bytes(step.module) + counters


# --- clocks ---


class Clock:
    """A clock that moves only when a call spends time, and a log of who did what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, durations: list[float]) -> None:
        self.now, self.log, self.durations = 0.0, [], iter(durations)  # type: float, list[str], Iterator[float]
        monkeypatch.setattr(cost, "perf_counter", self.read)
        monkeypatch.setattr(cost, "synchronize", lambda device: self.log.append("finish"))

    def read(self) -> float:
        self.log.append("read")
        return self.now

    def spend(self) -> None:
        self.log.append("call")
        self.now += next(self.durations)


def test_seconds_are_the_median_of_the_calls_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, [50.0, 60.0, 3.0, 9.0, 1.0])
    assert cost.seconds(clock.spend, "cpu", repeats=3, warmup=2) == 3.0
    # The card is waited for before the clock is read, both times.
    assert clock.log == ["call", "call"] + ["finish", "read", "call", "finish", "read"] * 3


@pytest.mark.parametrize("counts", [{"repeats": 0}, {"warmup": -1}])
def test_nothing_to_measure_is_refused(counts: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="Repeats start at 1"):
        cost.seconds(lambda: None, **counts)


def timed_as(monkeypatch: pytest.MonkeyPatch, duration: float) -> None:
    monkeypatch.setattr(cost, "seconds", lambda call, *rest: duration)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_rate_of_a_product_is_its_operations_over_its_seconds(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    timed_as(monkeypatch, 0.5)
    assert cost.matmul_rate("cpu", precision, size=32) == 2 * 32**3 / 0.5


def test_the_product_is_one_of_the_precision_that_was_asked_for() -> None:
    for precision, kind in {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.items():
        assert cost.matrix_product("cpu", precision, size=8)().dtype == kind
    assert cost.matrix_product("cpu", "fp32")().shape == (2048, 2048)


def test_tf32_is_on_in_its_own_product_only(monkeypatch: pytest.MonkeyPatch) -> None:
    noted, before, multiply = [], torch.get_float32_matmul_precision(), torch.mm
    monkeypatch.setattr(cost, "_has_tf32", lambda device: True)
    monkeypatch.setattr(
        torch, "mm", lambda *given, **named: noted.append(torch.get_float32_matmul_precision()) or multiply(*given, **named)
    )
    for precision in ("tf32", "fp32"):
        cost.matrix_product("cpu", precision, size=8)()
    assert noted == ["high", "highest"] and torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("precision", ["tf32", "fp64", "none"])
def test_a_rate_that_the_device_does_not_have_is_refused(precision: str) -> None:
    with pytest.raises(ConfigError, match=precision):
        cost.matmul_rate("cpu", precision, size=8)


def test_the_rate_of_a_copy_is_bytes_read_and_written(monkeypatch: pytest.MonkeyPatch) -> None:
    timed_as(monkeypatch, 0.25)
    assert cost.copy_rate("cpu", megabytes=1) == 2 * 2**20 / 0.25


def test_measured_rates_are_positive_numbers() -> None:
    rates = [cost.matmul_rate("cpu", "fp32", size=64, repeats=1), cost.copy_rate("cpu", megabytes=1, repeats=1)]
    assert all(math.isfinite(rate) and rate > 0 for rate in rates)


def test_float32_convolutions_run_in_tf32_on_newer_cards_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_has_tf32", lambda device: device.type == "cuda")
    assert [cost.arithmetic("cuda", name) for name in ("fp32", "bf16", "fp16")] == ["tf32", "bf16", "fp16"]
    assert cost.arithmetic("cpu", "fp32") == "fp32"
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert cost.arithmetic("cuda", "fp32") == "fp32"


@pytest.mark.parametrize(("capability", "has"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_tf32_came_with_ampere(capability: tuple[int, int], has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert cost._has_tf32(torch.device("cuda")) is has


# --- memory ---


def test_the_peak_of_a_process_is_at_least_what_it_just_used() -> None:
    before = cost.peak_memory("cpu")
    block = torch.ones(64 * 2**20)  # 256 MiB, written to
    after = cost.peak_memory("cpu")
    assert before is not None and after is not None
    assert block.nbytes < after and before <= after < 64 * 2**40
    cost.forget_peak_memory("cpu")
    assert cost.peak_memory("cpu") >= after  # type: ignore[operator]


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_the_peak_is_in_bytes_whatever_the_system_counts_in(system: str, unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda who: type("Usage", (), {"ru_maxrss": 1000}))
    assert cost.peak_memory("cpu") == 1000 * unit


def test_a_system_that_does_not_tell_its_peak_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert cost.peak_memory("cpu") is None


def test_a_card_is_asked_for_its_own_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = {"bytes": 7}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak["bytes"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peak.update(bytes=0))
    assert cost.peak_memory("cuda") == 7
    cost.forget_peak_memory("cuda")
    assert cost.peak_memory("cuda") == 0


# --- datasheets ---


def test_a_card_takes_operations_over_its_peak() -> None:
    t4 = next(card for card in cost.CARDS if card.name == "T4")
    assert t4.seconds(65e12, "fp16") == pytest.approx(1)
    assert t4.seconds(8.1e12, "fp32", share=0.25) == pytest.approx(4)


@pytest.mark.parametrize(("precision", "share"), [("bf16", 1.0), ("tf32", 1.0), ("name", 1.0), ("fp16", 0.0), ("fp16", 1.1)])
def test_a_peak_that_the_card_does_not_have_is_refused(precision: str, share: float) -> None:
    with pytest.raises(ConfigError):
        cost.CARDS[0].seconds(1, precision, share)


def test_the_datasheets_hold_together() -> None:
    assert len({card.device_name for card in cost.CARDS}) == len(cost.CARDS)
    for card in cost.CARDS:
        assert card.fp32 < card.fp16 and card.bandwidth >= 300
        newer = card.name != "T4"
        assert card.precisions == (("fp32", "tf32", "bf16", "fp16") if newer else ("fp32", "fp16"))
        if newer:  # dense rates: tensor cores take tf32 at half the rate of 16 bits
            assert card.bf16 == card.fp16 and card.tf32 == pytest.approx(card.fp16 / 2, rel=0.01)


@pytest.mark.parametrize(
    ("device_name", "known"), [("Tesla T4", "T4"), ("NVIDIA H200", "H200"), ("NVIDIA L40S", None), ("NVIDIA H100 PCIe", None)]
)
def test_a_card_is_known_by_its_full_name_only(device_name: str, known: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: device_name)
    card = cost.known_card("cuda")
    assert (card.name if card else None) == known
    assert cost.known_card("cpu") is None


# --- the step ---


@pytest.mark.parametrize("design", ["unet", "reference"])
def test_the_step_is_the_one_that_training_takes(design: str) -> None:
    alone = recipe(design, regression_fit=None)
    trained = train_colorizer(alone, photographs(), photographs(), stage="cvae", progress=False)
    step = cost.training_step(alone, "cvae", photographs())
    terms = [step() for _ in range(3)]
    assert {"step": 3, **terms[-1]} == trained.histories["cvae"].train[-1]
    assert step.images == 2


@pytest.mark.parametrize("features", ["encoder", "pixels", "none"])
def test_the_mdn_of_the_step_has_the_shape_that_training_gives_it(features: str) -> None:
    chosen = recipe(regression_fit=None, mdn=MDNConfig(width=0.25, features=features, components=2, representatives=2))
    trained = train_colorizer(chosen, photographs(), photographs(), progress=False)
    assert trained.mdn is not None
    step = cost.training_step(chosen, "mdn", photographs())
    assert cost.mdn_config(chosen) == trained.mdn.config
    assert math.isfinite(step()["loss"])


def test_the_published_mdn_reads_all_of_zhangs_features() -> None:
    config = cost.mdn_config(recipe("reference", mdn=MDNConfig(design="reference", scale=0.1, features="zhang-map")))
    assert config.inputs == REFERENCE_INPUTS
    assert cost.mdn_config(recipe(mdn=MDNConfig(features="zhang"))).inputs == (512, 4, 4)


def test_a_forward_pass_changes_no_weight_and_a_step_does() -> None:
    step = cost.training_step(recipe(), "regression", photographs())
    before = [parameter.detach().clone() for parameter in step.module.parameters()]
    assert step.forward().requires_grad
    assert all(torch.equal(old, new) for old, new in zip(before, step.module.parameters()))
    step()
    assert not all(torch.equal(old, new) for old, new in zip(before, step.module.parameters()))


def test_the_variants_are_what_they_are_called_and_compute_the_same() -> None:
    tuned = cost.training_step(recipe("reference"), "cvae", photographs())
    plain = cost.training_step(recipe("reference"), "cvae", photographs(), channels_last=False, fused=False)
    kernels = []
    for step in (tuned, plain):
        assert isinstance(step.module, ReferenceCVAE)
        kernels.append(step.module.get_parameter("dec_conv2.weight"))
    assert [kernel.is_contiguous() for kernel in kernels] == [False, True]
    assert kernels[0].is_contiguous(memory_format=torch.channels_last)
    assert [bool(step.optimizer.defaults["fused"]) for step in (tuned, plain)] == [True, False]
    groups = [{name: step.optimizer.param_groups[0][name] for name in ("lr", "betas", "eps", "weight_decay")} for step in (tuned, plain)]
    assert groups[0] == groups[1]
    for step in (tuned, plain):
        torch.manual_seed(5)  # dropout draws from the global state
        step()
    torch.manual_seed(6)
    first = tuned.forward().detach()
    torch.manual_seed(6)
    assert torch.allclose(first, plain.forward().detach(), rtol=1e-3)


@pytest.mark.parametrize("stage", ["regression", "all"])
def test_a_stage_that_the_recipe_does_not_have_is_refused(stage: str) -> None:
    with pytest.raises(ConfigError, match=stage):
        cost.training_step(recipe(regression_fit=None), stage, photographs())
