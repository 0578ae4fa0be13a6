"""What a training step costs, and what a device can do: operations, bytes, seconds, and the share of the peak that is reached.

Costs are counted, not guessed: `operations` and `saved_bytes` run a call and watch it. Devices are measured: `matmul_rate`
and `copy_rate` time the two things that bound every network. Only `CARDS` holds numbers that nobody measured here; they are
the makers' datasheets, and say what a card could do at most.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .cvae import CVAE, ColorRegressor
from .data import FEATURE_SHAPE, FieldSource
from .errors import ConfigError
from .features import POOLED, input_shape
from .mdn import MDN, MDNConfig
from .runtime import autocast, generator
from .train import CodeSource, CVAETask, MDNTask, Recipe, RegressionTask, Task, _Run, _statistics

STAGES = ("regression", "cvae", "mdn")
ARITHMETICS = ("fp32", "tf32", "bf16", "fp16")
_TYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


# --- what a call costs ---


def operations(call: Callable[[], Any]) -> int:
    """Return the floating-point operations that `call` runs, backward passes included; a multiplication with its addition is two.

    Counted from the shapes of what runs: matrix products, linear layers, convolutions (also transposed) and the gradients of
    all of them. Not counted: additions of biases, activations, normalization, interpolation, losses and the optimizer, which
    together are few operations but move many bytes; and whatever `torch.compile` compiled, so count before compiling.
    A convolution counts its zero padding too.

    >>> operations(lambda: torch.ones(2, 3) @ torch.ones(3, 4))
    48
    """
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def parameter_bytes(module: nn.Module) -> int:
    """Return the bytes of a module's parameters. Their gradients take as many again."""
    return sum(parameter.nbytes for parameter in module.parameters())


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of what an optimizer remembers. Before its first step that is nothing; AdamW then keeps two moments."""
    return sum(value.nbytes for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor))


def saved_bytes(call: Callable[[], Any], besides: Iterable[Tensor] = ()) -> int:
    """Return the bytes that `call` keeps for its backward pass: the activations.

    Each block of memory counts once and whole, however many tensors share it: that is what stays allocated.

    Args:
        call: a forward pass, or a whole training step.
        besides: tensors that are in memory anyway and do not count, such as `module.parameters()`.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in besides}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would hold the graph that holds it

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = call()  # held until the end: freed memory would be used again, and two blocks would count as one
    del result
    return sum(saved.values())


# --- what a device does ---


def seconds(call: Callable[[], Any], device: torch.device | str = "cpu", repeats: int = 5, warmup: int = 2) -> float:
    """Return the median seconds of one call over `repeats` calls, after `warmup` calls that do not count.

    A card works while Python goes on, so the clock is read only once the card has finished.

    Raises:
        ConfigError: `repeats` is below one or `warmup` below zero.
    """
    if repeats < 1 or warmup < 0:
        raise ConfigError(f"repeats = {repeats} and warmup = {warmup}", "seconds", "Repeats start at 1, warm-up calls at 0.")
    for _ in range(warmup):
        call()
    times = []
    for _ in range(repeats):
        synchronize(device)
        start = perf_counter()
        call()
        synchronize(device)
        times.append(perf_counter() - start)
    return statistics.median(times)


def synchronize(device: torch.device | str) -> None:
    """Wait until a card has finished what it was told to do. A processor has, whenever Python asks."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def matrix_product(device: torch.device | str, precision: str, size: int | None = None) -> Callable[[], Tensor]:
    """Return a call that multiplies two square matrices on `device`: the work that devices do fastest, to compare others with.

    Args:
        precision: `fp32`, `bf16`, `fp16`, or `tf32` (float32 numbers multiplied with 10 bits of mantissa by Ampere cards
            and later; `arithmetic` says when that happens).
        size: rows of the matrices; by default 8192 on a card and 2048 on a processor. Small ones do not fill a device.

    Raises:
        ConfigError: an unknown precision, or `tf32` on a device that has none.
    """
    device = torch.device(device)
    if precision not in ARITHMETICS:
        raise ConfigError(f"unknown precision `{precision}`", "matrix_product", f"Use one of {', '.join(ARITHMETICS)}.")
    if precision == "tf32" and not _has_tf32(device):
        raise ConfigError(f"{device.type} has no tf32", "matrix_product", "It comes with cards of the Ampere generation and later.")
    size = size or (8192 if device.type == "cuda" else 2048)
    first, second = (torch.randn(size, size, device=device, generator=generator(seed, device)).to(_TYPES[precision]) for seed in (0, 1))
    out = torch.empty_like(first)

    def multiply() -> Tensor:
        with _float32_products("high" if precision == "tf32" else "highest"):
            return torch.mm(first, second, out=out)

    return multiply


def matmul_rate(device: torch.device | str, precision: str, size: int | None = None, repeats: int = 5) -> float:
    """Return the operations per second of a `matrix_product`, measured: the rate that a network can hope for at most."""
    product = matrix_product(device, precision, size)
    return operations(product) / seconds(product, device, repeats)


def copy_rate(device: torch.device | str, megabytes: int = 256, repeats: int = 5) -> float:
    """Return the bytes per second that `device` moves within its own memory, measured: read plus written, by a large copy."""
    source = torch.ones(megabytes * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), device, repeats)


def arithmetic(device: torch.device | str, precision: str) -> str:
    """Return what a convolution multiplies in under `precision`; it names the `matmul_rate` to compare a network with.

    It is `precision` itself, except that cards from Ampere on run float32 convolutions in `tf32` unless told otherwise
    (`torch.backends.cudnn.allow_tf32`).
    """
    in_tf32 = precision == "fp32" and _has_tf32(torch.device(device)) and torch.backends.cudnn.allow_tf32
    return "tf32" if in_tf32 else precision


def peak_memory(device: torch.device | str) -> int | None:
    """Return the largest number of bytes in use so far: of tensors on a card, or of this whole process on a processor.

    A card's count starts again with `forget_peak_memory`; a process's never does. `None` where the system does not tell (Windows).
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak_memory(device: torch.device | str) -> None:
    """Let `peak_memory` of a card count from now on. On a processor nothing happens."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8


@contextlib.contextmanager
def _float32_products(kind: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(kind)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


# --- what a card could do ---


@dataclass(frozen=True)
class Card:
    """A graphics card as its maker's datasheet describes it. Nothing here was measured.

    Attributes:
        name: as people say it.
        device_name: as `torch.cuda.get_device_name` says it.
        fp32, tf32, bf16, fp16: 10^12 operations per second of dense matrix products; `None` where the card has no such units.
        bandwidth: 10^9 bytes per second, to and from its memory.
    """

    name: str
    device_name: str
    fp32: float
    tf32: float | None
    bf16: float | None
    fp16: float
    bandwidth: float

    def seconds(self, count: float, precision: str, share: float = 1.0) -> float:
        """Return the seconds that `count` operations take at `share` of the datasheet's peak.

        Raises:
            ConfigError: the card has no such arithmetic, or the share is not in (0, 1].
        """
        peak = getattr(self, precision) if precision in ARITHMETICS else None
        if peak is None:
            raise ConfigError(f"the {self.name} has no peak for `{precision}`", "Card.seconds", f"Use one of {', '.join(self.precisions)}.")
        if not 0 < share <= 1:
            raise ConfigError(f"the share of the peak is {share}", "Card.seconds", "Use a number above 0 and at most 1.")
        return count / (share * peak * 1e12)

    @property
    def precisions(self) -> tuple[str, ...]:
        """The arithmetics of which the datasheet gives a peak."""
        return tuple(name for name in ARITHMETICS if getattr(self, name) is not None)


# Datasheets: nvidia.com/en-us/data-center/tesla-t4, /l4, /a100 (SXM, 40 GB), /h100 (SXM), /h200 (SXM). Tensor rates that they print
# "with sparsity", for networks in which half of the weights are zero, are halved here: ours have none. The T4's page says "320+ GB/s",
# its printed sheet 300.
CARDS = (
    Card("T4", "Tesla T4", fp32=8.1, tf32=None, bf16=None, fp16=65, bandwidth=320),
    Card("L4", "NVIDIA L4", fp32=30.3, tf32=60, bf16=121, fp16=121, bandwidth=300),
    Card("A100", "NVIDIA A100-SXM4-40GB", fp32=19.5, tf32=156, bf16=312, fp16=312, bandwidth=1555),
    Card("H100", "NVIDIA H100 80GB HBM3", fp32=67, tf32=494.5, bf16=989.5, fp16=989.5, bandwidth=3350),
    Card("H200", "NVIDIA H200", fp32=67, tf32=494.5, bf16=989.5, fp16=989.5, bandwidth=4800),
)


def known_card(device: torch.device | str) -> Card | None:
    """Return the datasheet of this device, or `None` if it is none of `CARDS`."""
    if torch.device(device).type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((card for card in CARDS if card.device_name == name), None)


# --- a training step ---


class Step:
    """One training step as a call: everything that `train.fit` does in one, from gathering the batch to the averaged weights.

    Attributes:
        images: rows of a batch.
    """

    def __init__(self, run: _Run) -> None:
        self._run = run
        self.images = run.config.batch

    def __call__(self) -> dict[str, float]:
        """Take the step and return its terms."""
        return self._run.advance()

    @property
    def module(self) -> nn.Module:
        """The network in training."""
        return self._run.module

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Its optimizer."""
        return self._run.optimizer

    def forward(self) -> Tensor:
        """Return the loss of the next batch, with its graph, and change no weight: the first half of a step."""
        run = self._run
        _, first, second = next(run.stream)
        run.module.train()
        with autocast(run.device, run.config.precision):
            return run.task.losses(first, second, run.noise, 1.0)["loss"]


def training_step(
    recipe: Recipe, stage: str, source: FieldSource, device: torch.device | str = "cpu", channels_last: bool = True, fused: bool = True
) -> Step:
    """Return one step of a recipe's stage, untrained, on `device`: the very step that `train_colorizer` takes.

    Precision and batch are the recipe's: `recipe.with_(batch=32, precision="bf16")`. The MDN's code table is made of random
    numbers, one row for each photograph of `source`, since only its shape costs anything. The global random state is
    seeded, as training does.

    Args:
        stage: `regression`, `cvae` or `mdn`.
        source: photographs, at least one batch of them.
        channels_last, fused: training has both; without them one sees what they bring.

    Raises:
        ConfigError: an unknown stage, or one that the recipe leaves out.
    """
    fits = {"regression": recipe.regression_fit, "cvae": recipe.cvae_fit, "mdn": recipe.mdn_fit}
    fit = fits.get(stage)
    if fit is None:
        raise ConfigError(f"the recipe `{recipe.name}` has no stage `{stage}`", "training_step", f"Use one of {', '.join(STAGES)}.")
    torch.manual_seed(fit.seed)
    task: Task
    if stage == "regression":
        task = RegressionTask(ColorRegressor(recipe.regressor_width or recipe.cvae.width).to(device), source, fit.batch)
    elif stage == "cvae":
        weights, pca = _statistics(recipe, source, device)
        task = CVAETask(CVAE.build(recipe.cvae).to(device), recipe.objective, source, fit.batch, weights, pca)
    else:
        config, fit = mdn_config(recipe), replace(fit, flip=False, shift=0)
        source = _random_codes(config, len(source), device)
        task = MDNTask(MDN.build(config).to(device), recipe.mdn_loss, source, fit.batch)
    run = _Run(task, source, fit, None, f"{stage} step", {})
    if not channels_last:
        for module in (run.module, run.averaged):
            module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    if not fused:
        group = run.optimizer.param_groups[0]
        same = {name: group[name] for name in ("lr", "betas", "eps", "weight_decay")}
        run.optimizer = torch.optim.AdamW(run.module.parameters(), **same, fused=False)
    return Step(run)


def mdn_config(recipe: Recipe) -> MDNConfig:
    """Return a recipe's MDN as training builds it: with the inputs that its features have, and the CVAE's size of the code."""
    kind = recipe.mdn.features
    shapes = {"zhang": (FEATURE_SHAPE[0], POOLED, POOLED), "zhang-map": FEATURE_SHAPE}
    inputs = shapes[kind] if kind in shapes else input_shape("encoder" if kind == "classes" else kind, CVAE.build(recipe.cvae))
    return replace(recipe.mdn, inputs=inputs, latent=recipe.cvae.latent)


def _random_codes(config: MDNConfig, rows: int, device: torch.device | str) -> CodeSource:
    random = generator(0, device)
    features = torch.randn(rows, *config.inputs, generator=random, device=device).half()
    return CodeSource(features, torch.randn(rows, 2 * config.latent, generator=random, device=device))
