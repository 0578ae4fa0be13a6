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
from benchmarks import plain, rows, timing, training
from benchmarks.rows import ROWS, SMALL_SIZES, TARGETS, Row, Sizes
from divcolor_lib import cost, runtime
from divcolor_lib.bins import WeightTable, gamut_bins, inverse_weights
from divcolor_lib.cvae import CVAE, CVAEConfig, ReferenceCVAE
from divcolor_lib.data import PhotoFields, TensorFields
from divcolor_lib.lab import reference_to_ab, split
from divcolor_lib.losses import reference_cvae_loss
from divcolor_lib.mdn import REFERENCE_INPUTS
from divcolor_lib.train import Recipe

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


def test_json_goes_to_a_file_while_the_text_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "run", lambda name, sizes: a_row(name=name))
    path = tmp_path / "new" / "rows.json"
    assert command.main(["--only", "lab", "--json", str(path)]) == 0
    written = json.loads(path.read_text(encoding="utf-8"))
    assert [row["name"] for row in written["rows"]] == ["lab"] and written["machine"] == runtime.machine()
    assert "lab: 2x" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "run", lambda name, sizes: a_row(name=name))
    (tmp_path / "file").touch()
    assert command.main(["--only", "lab", "--json", str(tmp_path / "file" / "rows.json")]) == 1
    assert "cannot write the file" in capsys.readouterr().err


# --- training on one device ---

CPU = torch.device("cpu")
SMALL_PLAN = training.Plan(CPU).small()


def a_training_row(**changes: object) -> training.TrainingRow:
    row = training.TrainingRow("cvae", "float32", "fp32", "fp32", 8, 0.5, 16.0, 1e9, 0.25, 6.4e10, 750.0, 2**30)
    return replace(row, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained() -> list[training.TrainingRow]:
    return list(training.measure(SMALL_PLAN))


def test_every_network_is_measured_in_every_variant_and_the_published_loop_once(trained: list[training.TrainingRow]) -> None:
    own = training.NETWORKS[:-1]
    assert [(row.network, row.variant) for row in trained[:-1]] == [(name, variant.name) for name in own for variant in training.VARIANTS]
    assert (trained[-1].network, trained[-1].variant) == ("reference cvae", "published loader and step")
    assert set(training.networks(1.0)) == set(own)


def test_the_numbers_of_a_row_follow_from_each_other(trained: list[training.TrainingRow]) -> None:
    measured = [row for row in trained if not row.skipped]
    assert {row.network for row in measured} == set(training.NETWORKS[:-1])
    for row in measured:
        assert row.seconds and row.images_per_second and row.operations and row.matmul_rate and row.share and row.epoch_seconds
        assert row.batch == 8 and row.arithmetic == row.precision
        assert row.images_per_second == pytest.approx(row.batch / row.seconds)
        assert row.epoch_seconds == pytest.approx(SMALL_PLAN.images / row.images_per_second)
        assert row.peak_memory is None or row.peak_memory > 2**20


def test_a_row_that_is_skipped_has_a_reason_and_no_numbers(trained: list[training.TrainingRow]) -> None:
    skipped = [row for row in trained if row.skipped]
    assert {row.variant for row in skipped} >= {"the same, photographs on the host", "the same, compiled"}
    for row in skipped:
        assert row.seconds is row.images_per_second is row.operations is row.share is row.epoch_seconds is row.peak_memory is None


def test_all_variants_of_a_network_do_the_same_operations(trained: list[training.TrainingRow]) -> None:
    for network in ("cvae", "mdn", "reference mdn"):
        assert len({row.operations for row in trained if row.network == network and not row.skipped}) == 1
    # The published loop trains the same network on the same shapes, with a loss without products.
    assert len({row.operations for row in trained if row.network == "reference cvae" and not row.skipped}) == 1


def test_the_share_is_the_operations_of_a_step_over_those_of_a_product_in_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def turns(ours: Callable[[], None], baseline: Callable[[], None], rounds: int) -> timing.Timing:
        taken.extend([cost.operations(ours), cost.operations(baseline)])
        return timing.Timing(ratio=0.5, low=0.5, high=0.5, ours=4.0, baseline=2.0)

    monkeypatch.setattr(training, "take_turns", turns)
    row = next(training.measure(SMALL_PLAN, ["cvae"]))
    step, product = taken
    assert product == 2 * 64**3 and row.operations == step / 8
    assert row.matmul_rate == product / 2.0
    assert row.share == pytest.approx((step / 4.0) / (product / 2.0))
    assert (row.seconds, row.epoch_seconds) == (4.0, 64 / 8 * 4.0)


def test_the_steps_are_those_of_the_recipes_at_full_width() -> None:
    plan = training.Plan(CPU)
    for network, design, inputs in (("mdn", "heads", (176, 4, 4)), ("reference mdn", "reference", REFERENCE_INPUTS)):
        recipe, stage = training.networks(plan.width)[network]
        config = cost.mdn_config(recipe)
        assert stage == "mdn" and (config.design, config.inputs, config.width) == (design, inputs, 1)
    ours, published = (training.networks(plan.width)[name][0].cvae for name in ("cvae", "reference cvae"))
    assert ours == CVAEConfig() and published == CVAEConfig(design="reference", latent=64)
    assert training.networks(plan.width)["reference cvae"][0].objective.reference


def made_steps(monkeypatch: pytest.MonkeyPatch, plan: training.Plan, network: str) -> list[tuple[object, ...]]:
    """Return what each variant's step is made of, without taking one."""
    made: list[tuple[object, ...]] = []

    def no_step(recipe: Recipe, stage: str, source: object, device: torch.device, channels_last: bool, fused: bool) -> cost.Step:
        fit = recipe.cvae_fit if stage == "cvae" else recipe.mdn_fit
        made.append((fit.precision, fit.batch, channels_last, fused, type(source)))
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(cost, "training_step", no_step)
    rows_made = [row for row in training.measure(plan, [network]) if row.skipped.startswith("out of memory")]
    assert len(rows_made) == len(made)
    return made


@pytest.fixture
def a_card(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A device that answers as a T4 would, until something is computed on it."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device=None: None)
    monkeypatch.setattr(PhotoFields, "__init__", lambda self, images, device=None: setattr(self, "images", images))
    return torch.device("cuda")


def test_each_variant_adds_one_thing(monkeypatch: pytest.MonkeyPatch, a_card: torch.device) -> None:
    made = made_steps(monkeypatch, replace(SMALL_PLAN, device=a_card, compile=True), "cvae")
    assert made == [
        ("fp32", 8, False, False, PhotoFields),
        ("fp16", 8, False, False, PhotoFields),
        ("fp16", 8, True, False, PhotoFields),
        ("fp16", 8, True, True, PhotoFields),
        ("fp16", 8, True, True, training.HostFields),
        ("fp16", 8, True, True, PhotoFields),
    ]


def test_on_a_card_the_published_mdn_is_mixed_too(monkeypatch: pytest.MonkeyPatch, a_card: torch.device) -> None:
    made = made_steps(monkeypatch, replace(SMALL_PLAN, device=a_card), "reference mdn")
    assert [step[0] for step in made] == ["fp32", "fp16", "fp16", "fp16"]


def test_on_a_processor_without_bfloat16_nothing_is_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "best_precision", lambda device: "fp32")
    made = made_steps(monkeypatch, SMALL_PLAN, "cvae")
    assert [step[0] for step in made] == ["fp32"] * 3 and {step[4] for step in made} == {TensorFields}


def test_without_a_batch_each_recipe_keeps_its_own() -> None:
    ours, _ = training.networks(1.0)["cvae"]
    kept, changed = (training._prepared(ours, replace(SMALL_PLAN, batch=batch), "fp32") for batch in (None, 8))
    assert (kept.cvae_fit.batch, kept.mdn_fit.batch) == (ours.cvae_fit.batch, ours.mdn_fit.batch) == (64, 128)
    assert (changed.cvae_fit.batch, changed.mdn_fit.batch) == (8, 8)


def compiled_row(network: str) -> training.TrainingRow:
    plan = replace(SMALL_PLAN, compile=True)
    return training._row(plan, network, *training.networks(plan.width)[network], training.VARIANTS[-1])


def test_a_compiler_that_does_not_work_is_a_line_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(module: torch.nn.Module) -> None:
        raise RuntimeError("no C++ compiler\nand many more lines")

    monkeypatch.setattr(torch.nn.Module, "compile", no_compiler)
    row = compiled_row("cvae")
    assert row.variant == "the same, compiled" and row.skipped == "torch.compile does not work here: RuntimeError: no C++ compiler"
    assert row.skipped in training.as_text(row)


def test_a_compiled_step_is_measured_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    row = compiled_row("reference cvae")
    assert [type(module) for module in compiled] == [ReferenceCVAE] and not row.skipped and row.images_per_second
    assert compiled_row("mdn").skipped == "only the CVAEs are compiled"


def test_photographs_on_the_host_give_the_same_batches() -> None:
    images = torch.from_numpy(rows.pictures(4, 64))
    order = torch.tensor([3, 1])
    host, there = training.HostFields(images, CPU), PhotoFields(images)
    assert len(host) == 4
    assert all(torch.equal(one, other) for one, other in zip(host.batch(order), there.batch(order)))


def test_the_published_loop_loads_in_processes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[float] = []
    step = training.published_step
    monkeypatch.setattr(training, "published_step", lambda *given: losses.append(step(*given)) or losses[-1])  # type: ignore[func-returns-value]
    row = next(training.measure(replace(SMALL_PLAN, workers=1, sample=3), ["published"]))
    assert len(losses) == 1 + 2 + 3 and all(math.isfinite(loss) for loss in losses)
    assert "mean of 3 batches" in row.note and "1 loader processes" in row.note and "extrapolated" in row.note


def test_the_published_step_is_float32_on_the_published_objective(tmp_path: Path) -> None:
    bins, weights = rows.rarity(SMALL_SIZES)
    item = plain.read_batch(rows.write_jpegs(tmp_path, rows.pictures(2, 250)), plain.NearestLevels(bins, weights))
    torch.manual_seed(1)
    cvae = CVAE.build(CVAEConfig(design="reference", latent=4, width=1 / 16, dropout=0.0)).train()
    optimizer = torch.optim.Adam(cvae.parameters(), lr=1e-3)
    before = [parameter.detach().clone() for parameter in cvae.parameters()]
    gray, ab, rarity = (torch.as_tensor(part) for part in item[:3])
    torch.manual_seed(2)
    painted, mu, logvar = cvae(ab, gray)
    expected = reference_cvae_loss(painted, ab, mu, logvar, rarity[:, :1])
    torch.manual_seed(2)
    assert plain.published_step(cvae, optimizer, item, CPU) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert all(parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in cvae.parameters())
    assert not any(torch.equal(old, new) for old, new in zip(before, cvae.parameters()))


@pytest.mark.parametrize("changes", [{"images": 0}, {"batch": 0}, {"width": 5.0}, {"rounds": 0}, {"workers": -1}, {"sample": 0}])
def test_a_plan_that_measures_nothing_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="counts start at 1"):
        replace(SMALL_PLAN, **changes)  # type: ignore[arg-type]


def test_measuring_training_leaves_the_random_numbers_of_others_alone() -> None:
    before = torch.get_rng_state()
    for _ in training.measure(SMALL_PLAN, ["mdn", "published"]):
        assert torch.equal(before, torch.get_rng_state())


def test_the_device_is_described_by_its_best_rates_and_its_datasheet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "copy_rate", lambda device: 3e11)
    monkeypatch.setattr(cost, "known_card", lambda device: cost.CARDS[0])
    measured = [
        a_training_row(),
        a_training_row(matmul_rate=7e12),
        a_training_row(arithmetic="fp16", matmul_rate=2e13),
        a_training_row(matmul_rate=None),
    ]
    found = training.facts(SMALL_PLAN, measured)
    assert found["matmul"] == {"fp32": 7e12, "fp16": 2e13} and found["copy"] == 3e11
    assert found["datasheet"] == {"fp32": pytest.approx(8.1e12), "fp16": pytest.approx(65e12)}
    text = training.facts_as_text(found)
    assert "fp32 7, fp16 20" in text and "300 GB/s" in text and "fp32 8.1, fp16 65" in text and "64 images" in text


def test_a_row_is_one_line_for_the_eye() -> None:
    text = training.as_text(a_training_row())
    assert "\n" not in text
    for part in ("cvae", "float32", "batch 8", "16.0 images/s", "0.016 TFLOP/s", "25.0% of matmul", "750.0 s", "1,024 MiB"):
        assert part in text
    assert "unknown" in training.as_text(a_training_row(peak_memory=None))
    assert training.as_text(a_training_row(note="as told")).splitlines()[1].strip() == "as told"


# --- training: the command line ---


def test_training_is_one_command_that_writes_a_table_and_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "training.json"
    arguments = ["--training", "--small", "--device", "cpu", "--only", "mdn", "--only", "published", "--images", "100", "--json", str(path)]
    assert command.main(arguments) == 0
    written = json.loads(path.read_text(encoding="utf-8"))
    assert set(written) == {"training", "device", "machine"} and written["device"]["images in an epoch"] == 100
    assert written["machine"] == runtime.machine()
    made = written["training"]
    assert {row["network"] for row in made} == {"mdn", "reference cvae"}
    assert made[0]["epoch_seconds"] == pytest.approx(100 / made[0]["images_per_second"])
    printed = capsys.readouterr().out
    assert "published loader and step" in printed and "of matmul" in printed and torch.__version__ in printed


def test_training_prints_nothing_but_json_when_json_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "measure", lambda plan, only: iter([a_training_row()]))
    assert command.main(["--training", "--small", "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["training"][0]["network"] == "cvae"


def test_options_reach_the_plan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[training.Plan, object]] = []
    monkeypatch.setattr(training, "measure", lambda plan, only: seen.append((plan, only)) or iter(()))  # type: ignore[func-returns-value]
    command.main(["--training", "--device", "cpu"])
    given = "--images 5 --batch 6 --width 0.5 --rounds 7 --workers 0 --no-compile --only mdn"
    command.main(["--training", "--device", "cpu", *given.split()])
    command.main(["--training", "--device", "cpu", "--small", "--rounds", "3"])
    full = training.Plan(CPU)
    assert seen == [
        (full, ()),
        (replace(full, images=5, batch=6, width=0.5, rounds=7, workers=0, compile=False), ["mdn"]),
        (replace(full.small(), rounds=3), ()),
    ]
    assert (full.images, full.batch, full.width, full.workers, full.compile) == (12_000, None, 1.0, 2, True)


@pytest.mark.parametrize(
    "arguments",
    [
        "--training --check",
        "--training --only lab",
        "--only cvae",
        "--device cpu",
        "--batch 8",
        "--workers 0",
        "--no-compile",
        "--training --width 0",
        "--training --workers -1",
        "--training --images 0",
        "--training --device tpu",
    ],
)
def test_options_that_do_not_belong_together_end_with_2(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments.split())
    assert ended.value.code == 2 and "error:" in capsys.readouterr().err


def test_a_card_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        command.main(["--training", "--device", "cuda"])
    assert "torch sees no card" in capsys.readouterr().err
