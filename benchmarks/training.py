"""Training on one device, in absolute numbers: `python -m benchmarks --training`.

Each row takes the library's own training step (`divcolor_lib.cost.training_step`) in one of the `VARIANTS` and says how many
images a second it trains on, which share that is of the rate at which the same device multiplies large matrices, how long
an epoch takes, and the peak memory. Step and matrix product take turns, so that the share depends little on what else the
machine is doing; the other numbers do. The last row is the published loader and step, on the same device.

The photographs are made up, and no network is trained: times depend on shapes only.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from divcolor_lib import cost
from divcolor_lib.cvae import CVAE, CVAEConfig
from divcolor_lib.data import FieldSource, PhotoFields, converted
from divcolor_lib.lab import SIZE, split
from divcolor_lib.mdn import MDNConfig
from divcolor_lib.runtime import best_precision
from divcolor_lib.train import RECIPES, FitConfig, Recipe

from .plain import Files, Item, NearestLevels, published_step
from .rows import PICTURE_SIDE, SMALL_SIZES, pictures, rarity, write_jpegs
from .timing import take_turns

PUBLISHED = "published"
PUBLISHED_BATCH = 32
NETWORKS = ("cvae", "reference cvae", "mdn", "reference mdn", PUBLISHED)


@dataclass(frozen=True)
class Variant:
    """How a step is run. The first four add one thing each and end where training is; the others change one thing of that."""

    name: str
    mixed: bool = True
    channels_last: bool = True
    fused: bool = True
    compiled: bool = False
    on_host: bool = False


VARIANTS = (
    Variant("float32", mixed=False, channels_last=False, fused=False),
    Variant("mixed precision", channels_last=False, fused=False),
    Variant("+ channels last", fused=False),
    Variant("+ fused AdamW"),
    Variant("the same, photographs on the host", on_host=True),
    Variant("the same, compiled", compiled=True),
)


@dataclass(frozen=True)
class Plan:
    """What is measured, and how thoroughly.

    Attributes:
        device: `cpu` or `cuda`.
        images: photographs in an epoch.
        batch: of every row; `None` takes each recipe's own, and the published code's for its row.
        width: of every network; 1 is full width.
        rounds: steps that are timed, in turns with matrix products; medians count.
        workers: processes of the published loader, which has two.
        sample: batches of the published loader and step that are timed.
        matrix: rows of the matrices whose product gives the device's rate; `None` takes what fills it.
        compile: whether to try `torch.compile`.
    """

    device: torch.device
    images: int = 12_000
    batch: int | None = None
    width: float = 1.0
    rounds: int = 20
    workers: int = 2
    sample: int = 20
    matrix: int | None = None
    compile: bool = True

    def __post_init__(self) -> None:
        counts = (self.images, 1 if self.batch is None else self.batch, self.rounds, self.sample)
        if min(counts) < 1 or self.workers < 0 or not 0 < self.width <= 4:
            raise ValueError(f"{self}: counts start at 1, workers at 0, and the width lies in (0, 4]")

    def small(self) -> Plan:
        """Return the plan at sizes that show no more than that everything runs."""
        return replace(self, images=64, batch=8, width=1 / 16, rounds=1, workers=0, sample=1, matrix=64, compile=False)


@dataclass(frozen=True)
class TrainingRow:
    """One row of the table; a row that could not be measured has a reason in `skipped` and no numbers.

    Attributes:
        network, variant: what was trained, and how.
        precision: `fp32`, `bf16` or `fp16`.
        arithmetic: what its convolutions multiply in (`cost.arithmetic`).
        batch: images in a step.
        seconds: of one step.
        images_per_second: `batch / seconds`.
        operations: of one image, forward and backward.
        share: operations per second, as a share of this device's rate for matrix products in `arithmetic`, measured in turns.
        matmul_rate: that rate.
        epoch_seconds: for the images of the plan, at this rate.
        peak_memory: bytes of tensors on a card during this row; on a processor, of the whole process up to now.
        note: how it was measured, where it was not by the median of steps.
    """

    network: str
    variant: str
    precision: str = ""
    arithmetic: str = ""
    batch: int = 0
    seconds: float | None = None
    images_per_second: float | None = None
    operations: float | None = None
    share: float | None = None
    matmul_rate: float | None = None
    epoch_seconds: float | None = None
    peak_memory: int | None = None
    note: str = ""
    skipped: str = ""


class HostFields:
    """Photographs whose bytes stay in the host's memory; each batch of bytes is sent to the device and converted there."""

    def __init__(self, images: Tensor, device: torch.device) -> None:
        self.images, self.device = images, device

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return `gray` and `ab` on the device."""
        return split(self.images[indices].to(self.device))


def networks(width: float) -> dict[str, tuple[Recipe, str]]:
    """Return the recipe and stage of each network that is measured. The published MDN reads 512x28x28 features."""
    ours, published = RECIPES["faces"], RECIPES["faces-reference"]
    cvae = CVAEConfig(design="reference", latent=64, width=width)
    mdn = MDNConfig(design="reference", latent=64, width=width, scale=0.1, dropout=0.7, features="zhang-map")
    ours = replace(ours, cvae=replace(ours.cvae, width=width), mdn=replace(ours.mdn, width=width))
    published = replace(published, cvae=cvae, mdn=mdn)
    return {"cvae": (ours, "cvae"), "reference cvae": (published, "cvae"), "mdn": (ours, "mdn"), "reference mdn": (published, "mdn")}


def measure(plan: Plan, only: Sequence[str] = ()) -> Iterator[TrainingRow]:
    """Yield the rows as they are measured.

    Args:
        only: which of `NETWORKS`; none means all. `published` is the published loader and step.
    """
    known = networks(plan.width)
    for network in only or NETWORKS:
        for variant in VARIANTS if network in known else [None]:
            with torch.random.fork_rng():
                if variant is None:
                    row = _guarded(
                        plan, "reference cvae", "published loader and step", "fp32", lambda arithmetic: _published(plan, arithmetic)
                    )
                else:
                    row = _row(plan, network, *known[network], variant)
            yield row


def _row(plan: Plan, network: str, recipe: Recipe, stage: str, variant: Variant) -> TrainingRow:
    wanted = best_precision(plan.device) if variant.mixed else "fp32"
    recipe = _prepared(recipe, plan, wanted)
    fit = recipe.cvae_fit if stage == "cvae" else recipe.mdn_fit
    reason = _reason_to_skip(plan, stage, variant, wanted, fit)
    if reason:
        return TrainingRow(network, variant.name, skipped=reason)
    return _guarded(
        plan, network, variant.name, fit.precision, lambda arithmetic: _step(plan, recipe, stage, fit.batch, variant, arithmetic)
    )


def _prepared(recipe: Recipe, plan: Plan, precision: str) -> Recipe:
    """Return the recipe as it is trained on this device: on a processor some networks stay in float32."""
    changes = {"precision": precision} if plan.batch is None else {"precision": precision, "batch": plan.batch}
    recipe = recipe.with_(**changes)
    return replace(recipe, mdn_fit=replace(recipe.mdn_fit, precision=precision)) if plan.device.type == "cuda" else recipe


def _reason_to_skip(plan: Plan, stage: str, variant: Variant, wanted: str, fit: FitConfig) -> str:
    if variant.name == "mixed precision" and wanted == "fp32":
        return "this device gains nothing from mixed precision"
    if variant.name == "mixed precision" and fit.precision == "fp32":
        return "this network trains in float32 on a processor"
    if variant.on_host and (plan.device.type == "cpu" or stage == "mdn"):
        return "the host is the device" if plan.device.type == "cpu" else "it trains on a table of features, not on photographs"
    if variant.compiled and not plan.compile:
        return "not asked for"
    if variant.compiled and stage == "mdn":
        return "only the CVAEs are compiled"
    return ""


@dataclass(frozen=True)
class _Measured:
    """What one step does and takes, what the device does at its best, and how both were found."""

    images: int
    seconds: float
    operations: int
    share: float
    matmul_rate: float
    peak_memory: int | None
    note: str = ""


class _CompilerError(Exception):
    """`torch.compile` failed; says why."""


def _guarded(plan: Plan, network: str, variant: str, precision: str, measurement: Callable[[str], _Measured]) -> TrainingRow:
    """Measure, and turn what a device may lack, memory or a compiler, into a row that says so."""
    if plan.device.type == "cuda":  # what the row before left there would count
        gc.collect()
    cost.forget_peak_memory(plan.device)
    arithmetic = cost.arithmetic(plan.device, precision)
    try:
        found = measurement(arithmetic)
    except torch.cuda.OutOfMemoryError:
        return TrainingRow(network, variant, precision, skipped="out of memory; try a smaller --batch")
    except _CompilerError as error:
        return TrainingRow(network, variant, precision, skipped=str(error))
    return TrainingRow(
        network,
        variant,
        precision,
        arithmetic,
        batch=found.images,
        seconds=found.seconds,
        images_per_second=found.images / found.seconds,
        operations=found.operations / found.images,
        share=found.share,
        matmul_rate=found.matmul_rate,
        epoch_seconds=plan.images * found.seconds / found.images,
        peak_memory=found.peak_memory,
        note=found.note,
    )


def _step(plan: Plan, recipe: Recipe, stage: str, batch: int, variant: Variant, arithmetic: str) -> _Measured:
    photographs = _photographs(plan, 4 * batch, variant.on_host)
    step = cost.training_step(recipe, stage, photographs, plan.device, variant.channels_last, variant.fused)
    operations = cost.operations(step)
    if variant.compiled:
        _compile(step)
    for _ in range(3):
        step()
    peak = cost.peak_memory(plan.device)  # before the matrices come, which are no part of the step
    product = cost.matrix_product(plan.device, arithmetic, plan.matrix)

    def to_the_end(call: Callable[[], object]) -> None:
        call()
        cost.synchronize(plan.device)

    timing = take_turns(lambda: to_the_end(step), lambda: to_the_end(product), plan.rounds)
    most = cost.operations(product)
    return _Measured(step.images, timing.ours, operations, operations / most * timing.ratio, most / timing.baseline, peak)


def _compile(step: cost.Step) -> None:
    """Compile the network and run it once.

    Raises:
        _CompilerError: no compiler works here, for whatever reason.
    """
    try:
        step.module.compile()
        step()
    except Exception as error:  # a missing compiler, driver or header: each backend raises its own kind
        first_line = (str(error).strip() or "no message").splitlines()[0]
        raise _CompilerError(f"torch.compile does not work here: {type(error).__name__}: {first_line}") from error


def _photographs(plan: Plan, count: int, on_host: bool) -> FieldSource:
    """Return photographs as training on this device has them: bytes on a card; on a processor, color fields."""
    images = torch.from_numpy(pictures(count, SIZE))
    if on_host:
        return HostFields(images, plan.device)
    fields = PhotoFields(images, plan.device)
    return converted(fields) if plan.device.type == "cpu" else fields


def _published(plan: Plan, arithmetic: str, warmup: int = 2) -> _Measured:
    """Time the published loop: its loader in processes of its own, its step in float32, and each waiting for the other."""
    torch.manual_seed(0)
    batch = plan.batch or PUBLISHED_BATCH
    cvae = CVAE.build(CVAEConfig(design="reference", latent=64, width=plan.width)).to(plan.device).train()
    optimizer = torch.optim.Adam(cvae.parameters(), lr=5e-5)
    search = NearestLevels(*rarity(SMALL_SIZES))
    with TemporaryDirectory() as folder:
        paths = write_jpegs(Path(folder), pictures(2 * batch, PICTURE_SIDE))
        # More batches than are timed: at its end a loader has nothing left to prepare, and its processes would rest.
        batches = 1 + warmup + plan.sample + 2 * plan.workers
        files = Files([paths[number % len(paths)] for number in range(batch * batches)], search)
        stream = iter(DataLoader(files, batch_size=batch, num_workers=plan.workers))
        first = Item(*next(stream))
        operations = cost.operations(lambda: published_step(cvae, optimizer, first, plan.device))
        waits, times = [], []
        for _ in range(warmup + plan.sample):
            start = perf_counter()
            item = Item(*next(stream))
            waits.append(perf_counter() - start)
            published_step(cvae, optimizer, item, plan.device)
            times.append(perf_counter() - start)
        del stream  # ends its processes before their files go
    peak = cost.peak_memory(plan.device)
    rate = cost.matmul_rate(plan.device, arithmetic, plan.matrix)
    seconds, waited = (statistics.fmean(values[warmup:]) for values in (times, waits))
    note = (
        f"mean of {plan.sample} batches, {waited / seconds:.0%} of it waiting for {plan.workers} loader processes; the epoch is "
        f"extrapolated from them, and without the feature file of each photograph that the published loader reads too"
    )
    return _Measured(batch, seconds, operations, operations / seconds / rate, rate, peak, note)


def as_text(row: TrainingRow) -> str:
    """Return one row for the eye, in one line, or two with a note."""
    label = f"{row.network:<15} {row.variant:<36}"
    if row.images_per_second is None:
        return f"{label} skipped: {row.skipped}"
    assert row.operations is not None and row.share is not None and row.epoch_seconds is not None
    reached = row.images_per_second * row.operations / 1e12
    memory = "unknown" if row.peak_memory is None else f"{row.peak_memory / 2**20:,.0f} MiB"
    numbers = (
        f"{row.arithmetic:<4} batch {row.batch:<3} {row.images_per_second:>10,.1f} images/s {reached:>8.3f} TFLOP/s "
        f"= {row.share:>5.1%} of matmul   epoch {row.epoch_seconds:>9,.1f} s   peak {memory}"
    )
    return f"{label} {numbers}" + (f"\n{'':16}{row.note}" if row.note else "")


def facts(plan: Plan, rows: Sequence[TrainingRow]) -> dict[str, Any]:
    """Return what the rows are to be read against: the device, and what it does in a second by measurement and by its datasheet.

    `matmul` (the best of all rows) and `datasheet` are operations per second in each arithmetic, `copy` is bytes per second,
    read plus written.
    """
    matmul: dict[str, float] = {}
    for row in rows:
        if row.matmul_rate is not None:
            matmul[row.arithmetic] = max(row.matmul_rate, matmul.get(row.arithmetic, 0.0))
    card = cost.known_card(plan.device)
    return {
        "name": torch.cuda.get_device_name(plan.device) if plan.device.type == "cuda" else "processor",
        "matmul": matmul,
        "copy": cost.copy_rate(plan.device),
        "datasheet": {name: getattr(card, name) * 1e12 for name in card.precisions} if card else None,
        "images in an epoch": plan.images,
        "width": plan.width,
    }


def facts_as_text(found: Mapping[str, Any]) -> str:
    """Return `facts` for the eye, in one line."""

    def listed(rates: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in rates.items())

    sheet = f" · TFLOP/s of its datasheet: {listed(found['datasheet'])}" if found["datasheet"] else ""
    measured = f"TFLOP/s of matrix products: {listed(found['matmul'])} · copies: {found['copy'] / 1e9:.3g} GB/s"
    return f"{found['name']} · {measured}{sheet} · width {found['width']:g} · {found['images in an epoch']:,} images in an epoch"
