"""The benchmarks: that both sides do the same work, that the promises stand as made, and the form of what is printed.

No test here reads a clock: whether a target is met is for `python -m benchmarks --check` to say.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import plain, rows, timing
from benchmarks.rows import ROWS, SMALL_SIZES, TARGETS, Row, Sizes
from divcolor_lib import runtime
from divcolor_lib.bins import WeightTable, gamut_bins, inverse_weights
from divcolor_lib.lab import reference_to_ab, split

FACTS = {"name", "what", "ratio", "low", "high", "ours", "baseline", "target", "why_no_target", "equal", "equal_of", "tolerance"}


@pytest.fixture(scope="module")
def measured() -> dict[str, Row]:
    return {name: rows.run(name, SMALL_SIZES) for name in ROWS}


def a_row(**changes: object) -> Row:
    row = Row("a", "what", 2.0, 2.0, 2.0, 0.001, 0.002, 1.5, "", 0.0, "numbers", 0.0)
    return replace(row, **changes)  # type: ignore[arg-type]


# --- the promises ---


def test_the_targets_are_the_promised_ones() -> None:
    assert TARGETS == {"batch": 250, "colorize": 8, "cvae step": 1.7}
    assert set(TARGETS) <= set(ROWS)
    default = Sizes()
    assert (default.images, default.width, rows.CODES, default.full, SMALL_SIZES.full) == (32, 1.0, 8, True, False)


def test_the_tolerances_are_the_promised_ones() -> None:
    exact = {name: allowed for name, allowed in rows.TOLERANCES.items() if allowed == 0}
    assert set(exact) == {name for name in ROWS if name.startswith(("batch", "weights"))}
    assert rows.TOLERANCES["colorize"] == 1e-5


def test_a_row_of_full_size_carries_its_target() -> None:
    measured = timing.Timing(ratio=1000.0, low=1000.0, high=1000.0, ours=0.001, baseline=1.0)
    full = {name: rows._row(name, Sizes(), measured, "", equal=0.0, equal_of="") for name in ROWS}
    assert {name: row.target for name, row in full.items()} == {name: TARGETS.get(name) for name in ROWS}
    assert all(bool(row.why_no_target) is (row.target is None) for row in full.values())


def test_a_small_row_carries_no_target_and_says_why(measured: dict[str, Row]) -> None:
    assert all(row.target is None and row.why_no_target for row in measured.values())


def test_without_bfloat16_instructions_the_training_step_promises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "best_precision", lambda device: "fp32")
    row = rows.run("cvae step", SMALL_SIZES)
    assert row.target is None and "bfloat16" in row.why_no_target and "fp32" in row.what
    # Float32 on both sides: only the order of sums differs.
    assert row.equal is not None and row.equal < 1e-4


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, True),
        ({"ratio": 1.5}, True),
        ({"ratio": 1.49}, False),
        ({"ratio": math.nan}, False),
        ({"ratio": 0.1, "target": None}, True),
        ({"equal": 1e-9}, False),
        ({"equal": math.nan}, False),
        ({"equal": None}, False),
        ({"equal": 5.0, "tolerance": None}, True),
    ],
)
def test_a_row_holds_if_it_is_fast_enough_and_equal_enough(changes: dict[str, float | None], holds: bool) -> None:
    assert a_row(**changes).holds is holds


# --- both sides do the same work ---


def test_rarity_weights_are_equal_to_the_last_bit(measured: dict[str, Row]) -> None:
    assert {name: row.equal for name, row in measured.items() if name.startswith(("batch", "weights"))} == dict.fromkeys(
        ["batch", "batch from bytes", "weights", "weights, all pixels at once"], 0.0
    )


def test_a_weight_that_is_wrong_in_one_pixel_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    class OneWrong(WeightTable):
        def __call__(self, ab: torch.Tensor) -> torch.Tensor:
            found = super().__call__(ab).clone()
            found[-1, 0, -1, -1] *= 1.0001
            return found

    monkeypatch.setattr(rows, "WeightTable", OneWrong)
    for name in ("batch", "weights", "weights, all pixels at once"):
        row = rows.run(name, SMALL_SIZES)
        assert row.equal is not None and row.equal > 0 and not row.holds


def test_colorizations_are_equal_within_the_promise(measured: dict[str, Row]) -> None:
    row = measured["colorize"]
    assert row.equal is not None and row.equal <= 1e-5 and row.holds


def test_the_colorizations_that_are_compared_are_no_zeros() -> None:
    cvae = rows.calibrated(SMALL_SIZES)
    gray, ab = (field[:1] for field in rows.fields_of(SMALL_SIZES))
    codes = torch.randn(8, 64, generator=runtime.generator(0))
    painted = plain.colorize_in_a_batch(cvae, codes, gray, ab, batch=16)
    assert painted.shape == (8, 2, 64, 64) and not painted.requires_grad
    assert 0.05 < float(painted.std()) < 1
    assert float(painted.var(dim=0).mean()) > 1e-4


def test_a_decoder_that_is_off_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    right = plain.colorize_in_a_batch
    monkeypatch.setattr(rows, "colorize_in_a_batch", lambda *given: right(*given) + 2e-5)
    row = rows.run("colorize", SMALL_SIZES)
    assert row.equal is not None and row.equal > 1e-5 and not row.holds


def test_the_first_losses_of_both_training_steps_agree(measured: dict[str, Row]) -> None:
    equal = measured["cvae step"].equal
    assert equal is not None and equal < 0.05


def test_the_training_step_of_the_baseline_is_float32_adam_in_plain_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.optim.Optimizer] = []
    Adam, AdamW = torch.optim.Adam, torch.optim.AdamW

    def recorded(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
        return lambda *given, **named: made.append(kind(*given, **named)) or made[-1]  # type: ignore[func-returns-value]

    monkeypatch.setattr(torch.optim, "Adam", recorded(Adam))
    monkeypatch.setattr(torch.optim, "AdamW", recorded(AdamW))
    rows.run("cvae step", SMALL_SIZES)
    assert [type(optimizer) for optimizer in made] == [Adam, AdamW]
    assert [bool(optimizer.defaults["fused"]) for optimizer in made] == [False, True]
    kernels = [optimizer.param_groups[0]["params"][0] for optimizer in made]
    assert [kernel.is_contiguous() for kernel in kernels] == [True, False]
    assert kernels[1].is_contiguous(memory_format=torch.channels_last)


def test_lab_agrees_with_opencv_to_what_opencv_interpolates(measured: dict[str, Row]) -> None:
    equal = measured["lab"].equal
    assert equal is not None and equal < 1


# --- the plain side ---


def test_the_plain_search_finds_the_weight_of_the_nearest_bin() -> None:
    bins = gamut_bins()
    weights = torch.arange(1.0, bins.count + 1)
    search = plain.NearestLevels(bins, weights)
    random = np.random.default_rng(1)
    ab = (random.uniform(-30, 40, (2, 16, 16)) / 128).astype(np.float32)
    distances = np.linalg.norm(ab.reshape(2, -1).T[:, None] * 128.0 - bins.centers.numpy(), axis=2)
    expected = weights.numpy()[distances.argmin(axis=1)].reshape(16, 16)
    assert (search(ab) == expected).all() and search(ab).shape == (2, 16, 16)
    at_once = plain.nearest_bin_weights(ab[None], bins.centers.numpy(), weights.numpy())
    assert (at_once == expected[None]).all()


def test_the_plain_loader_reads_what_our_library_reads_but_for_bytes(tmp_path: Path) -> None:
    paths = rows.write_jpegs(tmp_path, rows.pictures(2, 250))
    bins = gamut_bins()
    batch = plain.read_batch(paths, plain.NearestLevels(bins, inverse_weights(torch.full((bins.count,), 1 / bins.count))))
    assert [tuple(torch.as_tensor(part).shape) for part in batch] == [(2, 1, 64, 64), (2, 2, 64, 64), (2, 2, 64, 64), (2, 1, 256, 256)]
    photos = np.stack([plain.resized(plain.read_pixels(path), 64)[..., ::-1] for path in paths])
    gray, ab = split(torch.from_numpy(photos))
    # 8-bit Lab is off by up to half a byte, and OpenCV's whole numbers by some more; a byte of L is 100/255.
    assert (torch.as_tensor(batch.gray) - gray).abs().mean() * 50 < 0.3
    assert (reference_to_ab(torch.as_tensor(batch.ab)) - ab).abs().mean() * 128 < 0.6


def test_a_picture_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.jpg"):
        plain.read_pixels(tmp_path / "nothing.jpg")


# --- timing ---


def test_both_sides_take_turns_after_one_call_each_that_does_not_count() -> None:
    calls: list[str] = []
    timing.take_turns(lambda: calls.append("A"), lambda: calls.append("B"), rounds=3)
    assert "".join(calls) == "AB" + "ABABAB"
    calls.clear()
    timing.take_turns(lambda: calls.append("A"), lambda: calls.append("B"), rounds=2, repeats=3)
    assert "".join(calls) == "AB" + "AAABAAAB"


def test_the_ratio_is_the_median_over_pairs_and_not_the_ratio_of_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(timing, "perf_counter", lambda: clock[0])
    # The first call of each is not measured. A busy machine doubles both halves of the last pair.
    durations = {"ours": iter([9.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]), "baseline": iter([9.0, 10.0, 30.0, 60.0])}

    def spend(side: str) -> Callable[[], None]:
        return lambda: clock.__setitem__(0, clock[0] + next(durations[side]))

    found = timing.take_turns(spend("ours"), spend("baseline"), rounds=3, repeats=2)
    assert found == timing.Timing(ratio=15.0, low=10.0, high=20.0, ours=2.0, baseline=30.0)


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="rounds = 0"):
        timing.take_turns(lambda: None, lambda: None, rounds=0)


@pytest.mark.parametrize("sizes", [{"images": 12}, {"images": 0}, {"width": 0.0}, {"rounds": 0}])
def test_sizes_that_cannot_be_measured_are_refused(sizes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        Sizes(**sizes)  # type: ignore[arg-type]


def test_measuring_leaves_the_random_numbers_of_others_alone() -> None:
    before = torch.get_rng_state()
    rows.run("codes", SMALL_SIZES)
    assert torch.equal(before, torch.get_rng_state())


# --- the command line ---


def test_json_has_exactly_the_promised_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--json", "--small", "--rounds", "1", "--only", "lab", "--only", "batch"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"rows", "machine"}
    assert [row["name"] for row in printed["rows"]] == ["lab", "batch"]
    assert printed["machine"] == runtime.machine()
    for row in printed["rows"]:
        assert set(row) == FACTS
        assert row["low"] <= row["ratio"] <= row["high"] and row["ours"] > 0 and row["baseline"] > 0
        assert all(isinstance(row[key], float) for key in ("ratio", "ours", "baseline", "equal"))


def test_every_row_is_measured_when_none_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "run", lambda name, sizes: a_row(name=name))
    assert command.main(["--json"]) == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)["rows"]]
    assert names == list(ROWS) and names[0] == "batch" and {"colorize", "cvae step", "weights", "lab"} <= set(names)


def test_text_names_ratio_target_and_machine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "run", lambda name, sizes: a_row(name=name, ratio=1.2))
    assert command.main(["--only", "batch"]) == 0
    printed = capsys.readouterr().out
    assert "batch: 1.2x" in printed and "target 1.5x MISSED" in printed and torch.__version__ in printed


@pytest.mark.parametrize(("ratio", "code"), [(1.5, 0), (1.4, 1)])
def test_check_fails_when_a_row_misses(
    ratio: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "run", lambda name, sizes: a_row(name=name, ratio=ratio))
    assert command.main(["--check", "--json", "--only", "lab"]) == code
    captured = capsys.readouterr()
    assert json.loads(captured.out)["rows"][0]["ratio"] == ratio
    assert ("missed: lab" in captured.err) is bool(code)


@pytest.mark.parametrize("arguments", [["--only", "nothing"], ["--rounds", "0"], ["--rounds", "many"]])
def test_wrong_arguments_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2 and capsys.readouterr().err


def test_options_reach_the_rows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Sizes] = []
    monkeypatch.setattr(command, "run", lambda name, sizes: seen.append(sizes) or a_row())  # type: ignore[func-returns-value]
    command.main(["--only", "lab"])
    command.main(["--only", "lab", "--small", "--rounds", "3"])
    assert seen == [Sizes(), replace(SMALL_SIZES, rounds=3)]
