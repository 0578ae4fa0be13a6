"""Where the code runs: the switches, the precision, seeds, and networks that keep their mode."""

from __future__ import annotations

import ast
import random
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from divcolor_lib import runtime as module
from divcolor_lib.errors import ConfigError
from divcolor_lib.runtime import (
    Runtime,
    autocast,
    bar_options,
    best_precision,
    contract,
    cpu_has_fast_bf16,
    evaluating,
    generator,
    machine,
    seed_everything,
    setup,
)


def with_card(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None) -> None:
    """Let torch report a card of this compute capability, or none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Tesla T4")


# --- setup ---


def test_a_machine_without_a_card_gets_the_cpu_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    with_card(monkeypatch, None)
    found = setup(seed=3)
    assert (found.profile, found.device, found.precision, found.dataset, found.data, found.seed) == (
        *("cpu", torch.device("cpu"), "fp32", "portraits", None, 3),
    )
    assert found.threads == torch.get_num_threads()
    assert str(found) == f"profile cpu · {torch.get_num_threads()} CPU threads · fp32 · data: portraits · seed 3"


def test_a_machine_with_a_card_gets_the_gpu_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    with_card(monkeypatch, (7, 5))
    found = setup()
    assert (found.profile, found.device.type, found.precision, found.dataset) == ("gpu", "cuda", "fp16", "lfw")
    assert str(found) == "profile gpu · Tesla T4 · fp16 · data: lfw · seed 0"


def test_the_profile_switch_overrides_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with_card(monkeypatch, (8, 0))
    monkeypatch.setenv("DIVCOLOR_PROFILE", "cpu")
    found = setup()
    assert (found.profile, found.device.type, found.precision, found.dataset) == ("cpu", "cpu", "fp32", "portraits")


def test_the_cpu_profile_is_float32_even_where_bfloat16_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    with_card(monkeypatch, None)
    monkeypatch.setattr(module, "cpu_has_fast_bf16", lambda: True)
    assert setup().precision == "fp32"


def test_asking_for_a_card_that_is_not_there_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with_card(monkeypatch, None)
    monkeypatch.setenv("DIVCOLOR_PROFILE", "gpu")
    with pytest.raises(ConfigError, match=r"torch sees no GPU \(DIVCOLOR_PROFILE\)\. On Colab"):
        setup()


@pytest.mark.parametrize(("switch", "value"), [("DIVCOLOR_PROFILE", "tpu"), ("DIVCOLOR_PROFILE", "CPU"), ("DIVCOLOR_DATASET", "imagenet")])
def test_a_switch_with_an_unknown_value_is_refused_with_the_values_it_takes(
    monkeypatch: pytest.MonkeyPatch, switch: str, value: str
) -> None:
    with_card(monkeypatch, None)
    monkeypatch.setenv(switch, value)
    allowed = {"DIVCOLOR_PROFILE": "cpu, gpu", "DIVCOLOR_DATASET": "portraits, lfw"}[switch]
    with pytest.raises(ConfigError) as caught:
        setup()
    assert f"`{value}`" in str(caught.value)
    assert allowed in str(caught.value)


@pytest.mark.parametrize(("capability", "other"), [(None, "lfw"), ((8, 0), "portraits")])
def test_the_data_switch_chooses_the_data_in_both_profiles(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None, other: str
) -> None:
    with_card(monkeypatch, capability)
    assert setup().dataset != other
    monkeypatch.setenv("DIVCOLOR_DATASET", other)
    assert setup().dataset == other


def test_the_folder_of_data_sets_comes_from_its_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    with_card(monkeypatch, None)
    monkeypatch.setenv("DIVCOLOR_DATA", "faces")
    assert setup().data == Path("faces")
    monkeypatch.setenv("DIVCOLOR_DATA", "")
    assert setup().data is None


def test_a_runtime_cannot_be_changed_after_setup() -> None:
    with pytest.raises(FrozenInstanceError):
        setup().profile = "gpu"  # type: ignore[misc]


def test_the_runtime_contract_states_one_fact_a_line() -> None:
    found = Runtime("cpu", torch.device("cpu"), "fp32", "portraits", None, 0, 2)
    text = contract(found, minutes=0.5, memory_gb=2.0, artifacts={"cvae": "shipped", "mdn": "made"})
    assert text.splitlines() == [
        "profile cpu · 2 CPU threads · fp32 · data: portraits · seed 0",
        "expected: 0.5 min, 2 GB of memory",
        "cvae: shipped",
        "mdn: made",
    ]
    assert len(contract(found, 1, 1).splitlines()) == 2


# --- seeds ---


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("seed", [0, 7, 2**40, -1])
def test_a_seed_repeats_pythons_numpys_and_torchs_numbers(seed: int) -> None:
    seed_everything(seed)
    first = draws()
    later = draws()
    seed_everything(seed)
    assert draws() == first
    assert all(a != b for a, b in zip(first, later))


def test_setup_seeds_every_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    with_card(monkeypatch, None)
    setup(seed=5)
    first = draws()
    setup(seed=6)
    other = draws()
    setup(seed=5)
    assert draws() == first
    assert all(a != b for a, b in zip(first, other))


def test_a_generator_is_fresh_seeded_and_apart_from_the_global_one() -> None:
    state = torch.get_rng_state()
    first = torch.rand(5, generator=generator(11))
    assert torch.equal(torch.rand(5, generator=generator(11)), first)
    assert not torch.equal(torch.rand(5, generator=generator(12)), first)
    assert torch.equal(torch.get_rng_state(), state)


# --- precision ---


@pytest.mark.parametrize(
    ("capability", "precision"), [((6, 1), "fp32"), ((7, 0), "fp16"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_a_card_gets_the_mixed_precision_that_it_can_do(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    with_card(monkeypatch, capability)
    assert best_precision("cuda") == precision
    assert best_precision(torch.device("cuda", 0)) == precision


@pytest.mark.parametrize(("flags", "fast"), [("fpu avx2 avx512f", False), ("fpu avx512_bf16", True), ("fpu amx_bf16 amx_tile", True)])
def test_a_processor_uses_bfloat16_only_if_it_multiplies_in_it(monkeypatch: pytest.MonkeyPatch, flags: str, fast: bool) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"model name : some\nflags : {flags}\n")
    assert cpu_has_fast_bf16() is fast
    assert best_precision("cpu") == ("bf16" if fast else "fp32")


def test_a_machine_that_does_not_tell_its_processor_is_taken_as_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert cpu_has_fast_bf16() is False
    assert best_precision("mps") == "fp32"
    assert isinstance(machine()["processor"], str)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_autocast_multiplies_matrices_in_the_chosen_precision(precision: str, dtype: torch.dtype) -> None:
    matrix = torch.ones(2, 2)
    with autocast("cpu", precision):
        assert (matrix @ matrix).dtype == dtype
    with autocast(torch.device("cpu"), precision):
        assert (matrix @ matrix).dtype == dtype
    assert (matrix @ matrix).dtype == torch.float32


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown precision `int8`.*fp32, bf16, fp16"):
        autocast("cpu", "int8")


# --- evaluating ---


def network() -> nn.Sequential:
    """A network in train mode with one part that someone froze on purpose."""
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)))
    net.train()
    net[2][0].eval()
    return net


def modes(net: nn.Module) -> list[bool]:
    return [part.training for part in net.modules()]


def test_inside_evaluating_every_part_is_in_eval_mode_and_no_gradient_is_kept() -> None:
    first, second = network(), network()
    with evaluating(first, second):
        assert not any(modes(first)) and not any(modes(second))
        assert not first(torch.randn(4, 3)).requires_grad
    assert first(torch.randn(4, 3)).requires_grad


def test_after_evaluating_every_part_has_its_own_mode_back() -> None:
    first, second = network(), network().eval()
    before = modes(first), modes(second)
    assert len(set(before[0])) == 2, "the example needs parts in different modes"
    with evaluating(first, second):
        pass
    assert (modes(first), modes(second)) == before


def test_after_an_exception_the_modes_and_gradients_are_back_too() -> None:
    net = network()
    before = modes(net)
    with pytest.raises(RuntimeError, match="boom"), evaluating(net):
        raise RuntimeError("boom")
    assert modes(net) == before
    assert torch.is_grad_enabled()


def test_evaluating_nests_and_takes_one_network_twice() -> None:
    net = network()
    before = modes(net)
    with evaluating(net, net):
        with evaluating(net):
            pass
        assert not any(modes(net)) and not torch.is_grad_enabled()
    assert modes(net) == before and torch.is_grad_enabled()


def test_evaluating_a_batch_leaves_running_statistics_and_random_numbers_alone() -> None:
    net = network()
    net.train()
    statistics, state = net[2][0].running_mean.clone(), torch.get_rng_state()
    batch = torch.randn(4, 3, generator=generator(0)) + 5
    with evaluating(net):
        net(batch)
    assert torch.equal(net[2][0].running_mean, statistics)
    assert torch.equal(torch.get_rng_state(), state)
    net(batch)
    assert not torch.equal(net[2][0].running_mean, statistics), "the same batch in train mode must move them"


# --- progress bars ---


def test_a_bar_is_hidden_on_request_and_else_left_to_the_environment() -> None:
    assert bar_options(False) == {"disable": True}
    assert bar_options(True) == {}


def test_no_bar_of_the_library_overrides_the_environment() -> None:
    """`disable` written at a bar, as `disable=not progress`, would win over TQDM_DISABLE."""
    calls = [
        node
        for path in Path(module.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tqdm"
    ]
    assert len(calls) >= 8
    assert not [ast.unparse(call) for call in calls for keyword in call.keywords if keyword.arg == "disable"]


# --- machine ---


def test_a_recorded_result_names_versions_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with_card(monkeypatch, None)
    found = machine()
    assert found["torch"] == torch.__version__ and found["numpy"] == np.__version__
    assert found["gpu"] == "none"
    with_card(monkeypatch, (7, 5))
    assert machine()["gpu"] == "Tesla T4"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "processor : 0\nmodel name\t: Imaginary 9000: fast\n")
    assert machine()["processor"] == "Imaginary 9000: fast"
