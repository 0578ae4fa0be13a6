"""Training: one loop, `fit`, for every network of the book, and the stages that make a colorizer.

A colorizer is made in stages, each with checkpoints of its own so that it can be killed and resumed at any step:

1. `regression`: one answer for each photograph; our CVAE starts from it, and it is an anchor row of both designs,
2. `cvae`: codes of color fields, and the decoder that paints them,
3. `mdn`: the mixture p(z|G) over those codes, given the frozen CVAE's gray features.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from . import parallel
from .autoencoder import PCA, fit_pca, kmeans, reparameterize
from .bins import WeightTable, gamut_bins, inverse_weights, prior, soft_encode, zhang_weights
from .cvae import CVAE, ColorClassifier, ColorRegressor, CVAEConfig, UNetCVAE, load_exactly
from .data import Batches, FieldSource, shifted
from .errors import CheckpointError, ConfigError, TrainingError, TrainingPaused, whole_file
from .features import code_table, input_shape, on_disk
from .losses import (
    classification_error,
    gaussian_reconstruction,
    gradient_error,
    kl_to_standard_normal,
    mahalanobis,
    mixture_nll,
    nearest_component_bound,
    reference_cvae_loss,
    reference_mixture_loss,
    representative_loss,
    squared_error,
)
from .mdn import MDN, HeadsMDN, MDNConfig
from .runtime import Runtime, autocast, evaluating, generator

FORMAT = 1
WEIGHTINGS = ("none", "zhang", "inverse")
STAGES = ("regression", "cvae", "classes", "mdn")
VALIDATION_SEED = 20170721
PROCESS_SEED = 1_000_003
IN_MEMORY = 4_000_000_000  # bytes of features; more of them go to a file

View = tuple[bool, tuple[int, int]]
WHOLE: Sequence[View] = [(False, (0, 0))]


# --- the loop ---


class Task(Protocol):
    """What `fit` trains: a module, its loss on a batch, and its score on validation data."""

    @property
    def module(self) -> nn.Module:
        """The network, whose weights `fit` changes."""
        ...

    def losses(self, first: Tensor, second: Tensor, noise: torch.Generator, progress: float) -> dict[str, Tensor]:
        """Return scalar terms of one batch, among them `loss`, which is minimized; `progress` runs from 0 to 1."""
        ...

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Return scores of `module` on validation data, among them `loss`; smaller is better. It draws no training noise."""
        ...


@dataclass(frozen=True)
class FitConfig:
    """How `fit` trains. Budgets are steps.

    Attributes:
        learning_rate: the peak; it rises linearly over `warmup` steps, then falls along a half cosine to 2 % of itself.
        clip: the largest norm of the gradient; longer ones are scaled down to it.
        average: decay of the running average of the weights, which is what is validated and kept; 0 keeps the weights themselves.
        patience: stop after so many validations without improvement; 0 never stops early.
        flip: mirror each image left to right with probability 1/2.
        shift: move each image by up to so many pixels (`data.Batches`).
        save_every: steps between checkpoints; a killed run loses at most so many.
    """

    steps: int
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warmup: int = 100
    clip: float = 100.0
    average: float = 0.998
    validate_every: int = 200
    save_every: int = 200
    patience: int = 0
    seed: int = 0
    flip: bool = True
    shift: int = 0
    precision: str = "fp32"

    def __post_init__(self) -> None:
        counts = (self.steps, self.batch, self.validate_every, self.save_every)
        if (
            min(counts) < 1
            or not self.learning_rate > 0
            or not self.clip > 0
            or not 0 <= self.average < 1
            or min(self.patience, self.shift) < 0
        ):
            raise ConfigError(
                f"training cannot run with {self}", "FitConfig", "Steps, batch and intervals start at 1; the average is below 1."
            )

    def rate(self, step: int) -> float:
        """Return the learning rate of `step`, counted from 0."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * rise * (0.02 + 0.98 * fall)


@dataclass
class History:
    """What a run leaves behind: curves, the best validation, and the seconds that it took, those before interruptions too."""

    train: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    best_step: int = 0
    best_loss: float = math.inf
    without_improvement: int = 0
    stopped_early: bool = False
    seconds: float = field(default=0.0, compare=False)

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return int(self.validation[-1]["step"]) if self.validation else 0


def fit(
    task: Task,
    source: FieldSource,
    config: FitConfig,
    *,
    folder: Path | None = None,
    name: str = "model",
    about: Mapping[str, Any] | None = None,
    on_step: Callable[[int, nn.Module], None] | None = None,
    progress: bool = True,
    pause: Callable[[], bool] | None = None,
) -> History:
    """Train `task.module` in place and leave it with the weights of the best validation.

    With a `folder`, `NAME.last.safetensors` holds everything that an exact resume needs and `NAME.best.safetensors` the
    best weights; a second call with the same arguments goes on where the first one stopped. On a CPU with the same
    number of threads the result is the same, bit for bit, as without the interruption.

    Under `torchrun` all processes train one network; `config.batch` is what they take together (`parallel`).

    Args:
        about: plain facts that decide the result beside `config`, such as the objective; a run resumes only under the same ones.
        on_step: called after each step with its number and the averaged module; for pictures and live curves.
        pause: asked after each step; once it says yes, the run is saved in `folder` and stops, to go on with the next call.

    Raises:
        TrainingPaused: `pause` said yes.
        ConfigError: `pause` came without a folder.
        TrainingError: a loss is NaN or infinite; the message names the step and the term, and the last checkpoint stays.
        CheckpointError: the folder holds a run with another configuration.
        StorageError: a checkpoint cannot be written; the one before it stays.
    """
    if pause is not None and folder is None:
        raise ConfigError("a run can pause only where it can be saved", "fit", "Give a folder.")
    run = _Run(task, source, config, folder, name, about or {})
    run.resume()
    bar = tqdm(total=config.steps, initial=run.step, desc=name, disable=not progress or parallel.rank() > 0, mininterval=1.0)
    with bar:
        while run.step < config.steps and not run.history.stopped_early:
            terms = run.advance()
            bar.update()
            if on_step is not None:
                on_step(run.step, run.averaged)
            if run.step % 20 == 0 or run.step == config.steps:
                bar.set_postfix(loss=f"{terms['loss']:.3f}", refresh=False)
                run.history.train.append({"step": run.step, **terms})
            if run.step % config.validate_every == 0 or run.step == config.steps:
                run.validate()
            finished = run.step == config.steps or run.history.stopped_early
            paused = not finished and pause is not None and parallel.first({"pause": float(pause())}, run.device)["pause"] > 0
            if run.step % config.save_every == 0 or finished or paused:
                run.save()
            if paused:
                raise TrainingPaused(f"stopped at step {run.step} of {config.steps}, as asked", name, "The same call goes on from there.")
    run.finish()
    return run.history


class _Run:
    """The complete state of one training run."""

    def __init__(
        self, task: Task, source: FieldSource, config: FitConfig, folder: Path | None, name: str, about: Mapping[str, Any]
    ) -> None:
        self.task, self.config, self.folder, self.name = task, config, folder, name
        self.settings: dict[str, Any] = json.loads(json.dumps({**asdict(config), **about}))
        self.module = parallel.share_batch_norm(task.module.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        self.losses = parallel.averaging(_Losses(task)) if parallel.processes() > 1 else task.losses
        self.averaged = copy.deepcopy(self.module).requires_grad_(False)
        self.device = next(self.module.parameters()).device
        self.batches = Batches(source, config.batch, seed=config.seed, flip=config.flip, shift=config.shift)
        self.stream = iter(self.batches)
        self.noise = generator(config.seed + 1 + parallel.rank() * PROCESS_SEED)
        self.optimizer = torch.optim.AdamW(
            self.module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98), fused=True
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.step = 0
        self.history = History()
        self.best = _copied(self.module.state_dict())
        torch.manual_seed(config.seed + parallel.rank() * PROCESS_SEED)
        self.clock = time.monotonic()

    def advance(self) -> dict[str, float]:
        """Take one step and return its terms."""
        _, first, second = next(self.stream)
        first, second = parallel.part(first), parallel.part(second)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(self.step)
        self.module.train()
        with autocast(self.device, self.config.precision):
            terms = self.losses(first, second, self.noise, self.step / self.config.steps)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(terms["loss"]).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip)
        # read together: each reading makes a card wait
        read = torch.stack([value.detach().float() for value in (*terms.values(), norm)]).tolist()
        values = parallel.mean(dict(zip((*terms, "gradient norm"), read)), self.device)
        length = values.pop("gradient norm")
        self._require_finite(values, self.step + 1)
        if not self.scaler.is_enabled():  # under loss scaling an infinite gradient is met by skipping the step
            self._require_finite({"gradient norm": length}, self.step + 1)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._average()
        self.step += 1
        return values

    def validate(self) -> dict[str, float]:
        """Score the averaged weights, keep them if they are the best so far, and count towards early stopping."""
        scores = {"step": float(self.step), **parallel.first(self.task.validate(self.averaged), self.device)}
        self._require_finite({f"validation {term}": value for term, value in scores.items()}, self.step)
        history = self.history
        history.validation.append(scores)
        if scores["loss"] < history.best_loss:
            history.best_loss, history.best_step, history.without_improvement = scores["loss"], self.step, 0
            self.best = _copied(self.averaged.state_dict())
        else:
            history.without_improvement += 1
            history.stopped_early = 0 < self.config.patience <= history.without_improvement
        return scores

    def save(self) -> None:
        """Write the last checkpoint, and the best one beside it."""
        self._take_time()
        if self.folder is None:
            return
        noises, dropouts = (parallel.gathered(state, self.device) for state in (self.noise.get_state(), torch.get_rng_state()))
        if parallel.rank() == 0:
            self._write(noises, dropouts)
        parallel.wait()

    def _write(self, noises: list[Tensor], dropouts: list[Tensor]) -> None:
        tensors = {f"model.{key}": value for key, value in self.module.state_dict().items()}
        tensors |= {f"average.{key}": value for key, value in self.averaged.state_dict().items()}
        tensors |= {f"best.{key}": value for key, value in self.best.items()}
        for index, parameter in enumerate(self.module.parameters()):
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{index}.{key}"] = value
        for number, (noise, dropout) in enumerate(zip(noises, dropouts)):
            tensors |= {_of_process("random.noise", number): noise, _of_process("random.cpu", number): dropout}
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        plain: dict[str, Any] = {}
        for key, value in self.batches.state_dict().items():
            if isinstance(value, Tensor):
                tensors[f"batches.{key}"] = value
            else:
                plain[key] = value
        write_tensors(
            self._path("last"),
            tensors,
            {
                "step": self.step,
                "config": self.settings,
                "history": asdict(self.history),
                "batches": plain,
                "scaler": self.scaler.state_dict(),
                "threads": torch.get_num_threads(),
                "device": self.device.type,
                "processes": parallel.processes(),
            },
        )
        write_tensors(self._path("best"), self.best, {"step": self.history.best_step, "loss": self.history.best_loss})

    def resume(self) -> None:
        """Take over the last checkpoint if there is one."""
        if self.folder is None or not self._path("last").exists():
            return
        path = self._path("last")
        tensors, facts = read_tensors(path)
        known = facts.get("config") or {}
        if known != self.settings:
            changed = sorted(key for key in {*known, *self.settings} if known.get(key) != self.settings.get(key))
            raise CheckpointError(
                f"the run in this folder was started with another configuration ({', '.join(changed)})",
                path,
                "Use its configuration, or another folder.",
            )
        now = {"device": self.device.type, "threads": torch.get_num_threads(), "processes": parallel.processes()}
        before = {key: facts.get(key, now[key]) for key in now}
        if before != now:
            warnings.warn(
                f"resuming on {_listed(now)} a run of {_listed(before)}: the result will not be bit-identical to an uninterrupted run",
                stacklevel=3,
            )
        load_exactly(self.module, _part(tensors, "model"), str(path))
        load_exactly(self.averaged, _part(tensors, "average"), str(path))
        self.best = _part(tensors, "best")
        for index, parameter in enumerate(self.module.parameters()):
            state = _part(tensors, f"optimizer.{index}")
            # the moments must have the parameter's own memory layout: the fused kernel reads both as flat arrays
            self.optimizer.state[parameter] = {
                key: value if value.ndim == 0 else torch.empty_like(parameter).copy_(value) for key, value in state.items()
            }
        noise, dropout = (tensors.get(_of_process(key, parallel.rank())) for key in ("random.noise", "random.cpu"))
        if noise is not None and dropout is not None:  # a run of fewer processes knows no state of this one
            self.noise.set_state(noise)
            torch.set_rng_state(dropout)
        if "random.cuda" in tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        self.batches.load_state_dict({**facts["batches"], **_part(tensors, "batches")})
        self.stream = iter(self.batches)
        self.scaler.load_state_dict(facts["scaler"])
        self.history = History(**facts["history"])
        self.step = facts["step"]
        self.clock = time.monotonic()

    def finish(self) -> None:
        """Leave the module with the best weights, in eval mode."""
        if self.folder is None:  # else the last checkpoint holds the time
            self._take_time()
        load_exactly(self.module, self.best, self.name).eval()

    def _take_time(self) -> None:
        now = time.monotonic()
        self.history.seconds += now - self.clock
        self.clock = now

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.average, (1 + self.step) / (10 + self.step)) if self.config.average else 0.0
        for kept, current in zip(self.averaged.parameters(), self.module.parameters()):
            kept.lerp_(current, 1 - decay)
        for statistic, current_statistic in zip(self.averaged.buffers(), self.module.buffers()):
            statistic.copy_(current_statistic)

    def _require_finite(self, values: Mapping[str, float], step: int) -> None:
        bad = [term for term, value in values.items() if not math.isfinite(value)]
        if bad:
            saved = self.folder is not None and self._path("last").exists()
            kept = f"The last checkpoint, {self._path('last')}, is untouched." if saved else "No checkpoint was written yet."
            raise TrainingError(
                f"{', '.join(bad)} became {values[bad[0]]} at step {step}",
                self.name,
                f"Lower the learning rate ({self.config.learning_rate:g}) or look for NaN in the data. {kept}",
            )

    def _path(self, kind: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.name}.{kind}.safetensors"


class _Losses(nn.Module):
    """A task as a module, so that every forward pass goes through `DistributedDataParallel`, whichever method the task calls."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task, self.module = task, task.module

    def forward(self, *arguments: Any) -> dict[str, Tensor]:
        return self.task.losses(*arguments)


def _of_process(key: str, number: int) -> str:
    return f"{key}.{number}" if number else key


def _listed(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items())


# --- files ---


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and plain facts to one safetensors file, whole or not at all, with a checksum of both.

    Raises:
        StorageError: the file cannot be written.
    """
    plain = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    note = json.dumps({"format": FORMAT, **facts})
    with whole_file(path) as temporary:
        temporary.write_bytes(save(plain, metadata={"divcolor": json.dumps([note, _checksum(plain, note)])}))


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote: `(tensors, facts)`, on the CPU.

    Raises:
        CheckpointError: the file is absent, truncated, altered, or not one of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError("there is no such checkpoint", path, "Check the path, or train one: python -m divcolor_lib train --help.")
    try:
        with safe_open(path, framework="pt") as opened:
            note, checksum = json.loads((opened.metadata() or {}).get("divcolor", "[null, null]"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        facts = json.loads(note) if note is not None else None
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"the checkpoint is damaged or no safetensors file: {error}", path, "Copy it again, or resume from an older one."
        ) from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise CheckpointError("the file is a safetensors file, but not one of this library's", path, "Use a file that `train` wrote.")
    if checksum != _checksum(tensors, note):
        raise CheckpointError(
            "the checkpoint does not match its checksum: some bits changed", path, "Copy it again, or resume from an older one."
        )
    return tensors, facts


def _checksum(tensors: Mapping[str, Tensor], note: str) -> str:
    digest = hashlib.sha256(note.encode())
    for name in sorted(tensors):
        flat = tensors[name].contiguous().reshape(-1).view(torch.uint8)
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(flat.numpy().tobytes())
    return digest.hexdigest()


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in tensors.items()}


# --- the three stages ---


@dataclass(frozen=True)
class Objective:
    """What the CVAE is trained for: weighted reconstruction + mahalanobis L_mah + gradient L_grad + kl KL.

    Attributes:
        noise_variance: sigma^2 of the Gaussian likelihood, in units of (ab/128)^2 over a whole field.
        weighting: rarity weights of the pixels' colors: `none`, `zhang` (mean 1) or `inverse` (raw 1/p).
        mahalanobis, gradient: weights of the paper's terms L_mah and L_grad, which are added to the reconstruction term.
        kl: weight of the KL; 1 is the ELBO.
        kl_warmup: share of the steps over which the KL's weight rises from a tenth to its value.
        reference: use the published objective instead, defects and all: a root, raw 1/p weights, a KL summed over the batch.
    """

    noise_variance: float = 0.3
    weighting: str = "none"
    mahalanobis: float = 0.0
    gradient: float = 0.0
    kl: float = 1.0
    kl_warmup: float = 0.2
    reference: bool = False

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS:
            raise ConfigError(f"unknown weighting `{self.weighting}`", "Objective.weighting", f"Use one of {', '.join(WEIGHTINGS)}.")
        if self.noise_variance <= 0 or min(self.mahalanobis, self.gradient, self.kl, self.kl_warmup) < 0:
            raise ConfigError(f"the objective {self} has a negative weight, or no noise", "Objective")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run makes, apart from the data.

    Attributes:
        regression_fit: how the regression network is trained: ours starts from it, and it is an anchor row of both designs.
            None leaves it out.
        regressor_width: its width; None takes the CVAE's, which ours must have.
        mdn_loss: `exact`, `bound` (nearest component) or `reference` (the published loss).
        classes_fit: how the color classifier is trained whose features the MDN reads, if its `features` are `classes`.
    """

    name: str
    cvae: CVAEConfig
    mdn: MDNConfig
    objective: Objective
    cvae_fit: FitConfig
    mdn_fit: FitConfig
    regression_fit: FitConfig | None = None
    regressor_width: float | None = None
    mdn_loss: str = "exact"
    classes_fit: FitConfig | None = None

    def __post_init__(self) -> None:
        if self.mdn.features == "classes" and self.classes_fit is None:
            raise ConfigError("the MDN shall read a color classifier that nothing trains", "Recipe.classes_fit", "Say how to train it.")
        if self.mdn_loss not in ("exact", "bound", "reference"):
            raise ConfigError(f"unknown MDN loss `{self.mdn_loss}`", "Recipe.mdn_loss", "Use exact, bound or reference.")

    def scaled(self, share: float) -> Recipe:
        """Return the same recipe with every stage's steps times `share`."""

        return self._changed(lambda fit: {"steps": max(1, round(fit.steps * share))})

    def with_(self, **changes: Any) -> Recipe:
        """Return the same recipe with these fields of every stage's `FitConfig` changed, such as `precision` or `seed`.

        The reference MDN keeps its precision: on processors with AMX, torch 2.13 at times returns infinite gradients for its
        5x5 convolutions over a few pixels in bfloat16.
        """
        kept = {key: value for key, value in changes.items() if key != "precision" or self.mdn.design != "reference"}
        return replace(self._changed(lambda _: changes), mdn_fit=replace(self.mdn_fit, **kept))

    def fits(self) -> dict[str, FitConfig]:
        """Return how each stage that the recipe has is trained, in their order."""
        return {stage: fit for stage in STAGES if (fit := getattr(self, f"{stage}_fit")) is not None}

    def _changed(self, changes: Callable[[FitConfig], dict[str, Any]]) -> Recipe:
        changed: dict[str, Any] = {f"{stage}_fit": replace(fit, **changes(fit)) for stage, fit in self.fits().items()}
        return replace(self, **changed)


@dataclass
class Trained:
    """What the stages leave: the networks in eval mode, and the history of each stage."""

    recipe: Recipe
    cvae: CVAE
    mdn: MDN | None = None
    regressor: ColorRegressor | None = None
    classifier: ColorClassifier | None = None
    histories: dict[str, History] = field(default_factory=dict)


class RegressionTask:
    """Squared error of one answer for each photograph."""

    def __init__(self, regressor: ColorRegressor, validation: FieldSource, batch: int) -> None:
        self.module, self.validation, self.batch = regressor, validation, batch

    def losses(self, first: Tensor, second: Tensor, noise: torch.Generator, progress: float) -> dict[str, Tensor]:
        """Return the loss of a batch `(gray, ab)`."""
        return {"loss": squared_error(self.module(first), second)}

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Return the mean squared error of validation images, summed over pixels."""
        total = _Mean()
        with evaluating(module):
            for gray, ab in _chunks(self.validation, self.batch):
                total.add(len(gray), loss=squared_error(module(gray), ab))
        return total.values()


class ClassesTask:
    """Zhang's classification of colors: cross-entropy against soft targets at 16x16, rare colors weighted."""

    def __init__(self, classifier: ColorClassifier, validation: FieldSource, batch: int, weights: Tensor | None = None) -> None:
        self.module, self.validation, self.batch, self.weights, self.bins = classifier, validation, batch, weights, gamut_bins()

    def losses(self, first: Tensor, second: Tensor, noise: torch.Generator, progress: float) -> dict[str, Tensor]:
        """Return the loss of a batch `(gray, ab)`."""
        return {"loss": self._error(self.module, first, second)}

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Return the mean loss of validation images."""
        total = _Mean()
        with evaluating(module):
            for gray, ab in _chunks(self.validation, self.batch):
                total.add(len(gray), loss=self._error(module, gray, ab))
        return total.values()

    def _error(self, module: nn.Module, gray: Tensor, ab: Tensor) -> Tensor:
        logits: Tensor = module.logits(gray)  # type: ignore[operator]
        index, shares = soft_encode(F.avg_pool2d(ab, ab.shape[-1] // logits.shape[-1]), self.bins)
        return classification_error(logits, index, shares, self.weights)


class CVAETask:
    """Reconstruction and KL, as the `Objective` says."""

    def __init__(
        self,
        cvae: CVAE,
        objective: Objective,
        validation: FieldSource,
        batch: int,
        weights: WeightTable | None = None,
        pca: PCA | None = None,
    ) -> None:
        self.module, self.objective, self.validation, self.batch, self.weights, self.pca = cvae, objective, validation, batch, weights, pca

    def losses(self, first: Tensor, second: Tensor, noise: torch.Generator, progress: float) -> dict[str, Tensor]:
        """Return the terms of a batch `(gray, ab)`."""
        return self._terms(self.module, first, second, noise, progress)

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Return the terms over validation images, at full KL weight, with noise of its own."""
        total, noise = _Mean(), generator(VALIDATION_SEED)
        with evaluating(module):
            for gray, ab in _chunks(self.validation, self.batch):
                total.add(len(gray), **self._terms(module, gray, ab, noise, 1.0))
        return total.values()

    def _terms(self, module: nn.Module, gray: Tensor, ab: Tensor, noise: torch.Generator, progress: float) -> dict[str, Tensor]:
        reconstruction, mu, logvar = module(ab, gray, noise)
        weights = self.weights(ab) if self.weights is not None else None
        kl = kl_to_standard_normal(mu, logvar)
        if self.objective.reference:
            assert weights is not None
            loss = reference_cvae_loss(reconstruction, ab, mu, logvar, weights)
            return {"loss": loss, "kl": kl, "squared": squared_error(reconstruction, ab)}
        objective = self.objective
        fit_term = gaussian_reconstruction(reconstruction, ab, objective.noise_variance, weights)
        if objective.mahalanobis and self.pca is not None:
            fit_term = fit_term + objective.mahalanobis * mahalanobis(reconstruction, ab, self.pca.components, self.pca.variances)
        if objective.gradient:
            fit_term = fit_term + objective.gradient * gradient_error(reconstruction, ab)
        warm = min(1.0, 0.1 + 0.9 * progress / objective.kl_warmup) if objective.kl_warmup else 1.0
        return {"loss": fit_term + warm * objective.kl * kl, "reconstruction": fit_term, "kl": kl}


class MDNTask:
    """The mixture on codes drawn from the posterior, and (ours) the representatives on their means.

    Batches are rows of a code table: gray features, and mu and logvar side by side.
    """

    def __init__(self, mdn: MDN, loss: str, validation: FieldSource, batch: int) -> None:
        self.module, self.loss, self.validation, self.batch = mdn, loss, validation, batch

    def losses(self, first: Tensor, second: Tensor, noise: torch.Generator, progress: float) -> dict[str, Tensor]:
        """Return the terms of a batch `(features, mu and logvar)`."""
        return self._terms(self.module, first, second, noise)

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Return the terms over validation images, with noise of its own, and the exact NLL whatever the loss."""
        total, noise = _Mean(), generator(VALIDATION_SEED)
        with evaluating(module):
            for features, codes in _chunks(self.validation, self.batch):
                total.add(len(features), **self._terms(module, features, codes, noise))
        return total.values()

    def _terms(self, module: nn.Module, features: Tensor, codes: Tensor, noise: torch.Generator) -> dict[str, Tensor]:
        mu, logvar = codes.chunk(2, dim=1)
        z = reparameterize(mu, logvar, noise)
        if isinstance(module, HeadsMDN):
            mixture, logits, representatives = module.both(features)
            shown = representative_loss(logits, representatives, mu, (-logvar).exp())
            nll = mixture_nll(mixture, z)
            density = nearest_component_bound(mixture, z) if self.loss == "bound" else nll
            return {"loss": density + shown, "nll": nll, "representatives": shown}
        mixture = module(features)
        losses = {"exact": mixture_nll, "bound": nearest_component_bound, "reference": reference_mixture_loss}
        return {"loss": losses[self.loss](mixture, z), "nll": mixture_nll(mixture, z)}


class CodeSource:
    """Rows of a code table, as `Batches` reads them: features (float16 at rest), and `mu` and `logvar` side by side."""

    def __init__(self, features: Tensor, codes: Tensor) -> None:
        self.features, self.codes = features, codes

    def __len__(self) -> int:
        return len(self.codes)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 features `(B, C, H, W)` and codes `(B, 2D)`."""
        indices = indices.to(self.codes.device)
        return self.features[indices].float(), self.codes[indices]


def train_colorizer(
    recipe: Recipe,
    training: FieldSource,
    validation: FieldSource,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    stage: str = "all",
    on_step: Callable[[str, int, Trained], None] | None = None,
    progress: bool = True,
    zhang: nn.Module | None = None,
    pause: Callable[[], bool] | None = None,
) -> Trained:
    """Run the recipe's stages, or go on where they stopped, and return the networks.

    Args:
        stage: `cvae` stops after the CVAE; `mdn` wants a finished CVAE in `folder`; `all` does both.
        on_step: called after each step with the stage, its step, and the networks as they stand (averaged weights).
        zhang: Zhang's network, if the recipe's MDN reads its features.
        pause: asked after each step; once it says yes, the run stops, to go on with the next call.

    Raises:
        TrainingPaused: `pause` said yes.
        ConfigError: an unknown stage.
        CheckpointError: `stage` is `mdn` and the folder holds no finished CVAE, or the folder holds another recipe's run.
    """
    if stage not in ("all", "cvae", "mdn"):
        raise ConfigError(f"unknown stage `{stage}`", "stage", "Use cvae, mdn or all.")
    if stage == "mdn" and not _is_finished(folder, "cvae"):
        raise CheckpointError("there is no trained CVAE to train an MDN for", folder or "", "Run --stage cvae first, or --stage all.")
    torch.manual_seed(recipe.cvae_fit.seed)
    cvae = CVAE.build(recipe.cvae).to(device)
    trained = Trained(recipe, cvae)

    def report(name: str) -> Callable[[int, nn.Module], None]:
        def call(step: int, module: nn.Module) -> None:
            if on_step is not None:
                as_cvae = module if isinstance(module, CVAE) else cvae
                on_step(name, step, replace(trained, cvae=as_cvae, mdn=module if isinstance(module, MDN) else None))

        return call

    def run(name: str, task: Task, source: FieldSource, config: FitConfig) -> None:
        decisive = {"cvae": ("cvae", "objective"), "mdn": ("cvae", "objective", "mdn", "mdn_loss")}
        about = {key: value for key, value in asdict(recipe).items() if key in decisive.get(name, ())}
        if name == "mdn":
            about["views"] = _views(recipe.mdn_fit)
        trained.histories[name] = fit(
            task, source, config, folder=folder, name=name, about=about, on_step=report(name), progress=progress, pause=pause
        )

    if recipe.regression_fit is not None:
        trained.regressor = ColorRegressor(recipe.regressor_width or recipe.cvae.width).to(device)
        batch = recipe.regression_fit.batch
        run("regression", RegressionTask(trained.regressor, validation, batch), training, recipe.regression_fit)
        if isinstance(cvae, UNetCVAE):
            cvae.warm_start(trained.regressor)
    weights, pca = _statistics(recipe, training, device)
    run("cvae", CVAETask(cvae, recipe.objective, validation, recipe.cvae_fit.batch, weights, pca), training, recipe.cvae_fit)
    if stage == "cvae":
        return trained
    if recipe.mdn.features == "classes":
        zhang = trained.classifier = _classes_stage(recipe, training, validation, device, run)
    trained.mdn = _mdn_stage(recipe, cvae, training, validation, run, progress, zhang, folder)
    return trained


def _is_finished(folder: Path | None, name: str) -> bool:
    path = None if folder is None else folder / f"{name}.last.safetensors"
    if path is None or not path.exists():
        return False
    _, facts = read_tensors(path)
    return bool(facts["step"] >= facts["config"]["steps"] or facts["history"]["stopped_early"])


def _classes_stage(
    recipe: Recipe,
    training: FieldSource,
    validation: FieldSource,
    device: torch.device | str,
    run: Callable[[str, Task, FieldSource, FitConfig], None],
) -> ColorClassifier:
    assert recipe.classes_fit is not None
    bins = gamut_bins()
    weights = zhang_weights(prior((ab for _, ab in _chunks(training, 256)), bins), bins).to(device)
    torch.manual_seed(recipe.classes_fit.seed)
    classifier = ColorClassifier(bins.count, recipe.cvae.width).to(device)
    run("classes", ClassesTask(classifier, validation, recipe.classes_fit.batch, weights), training, recipe.classes_fit)
    return classifier


def _mdn_stage(
    recipe: Recipe,
    cvae: CVAE,
    training: FieldSource,
    validation: FieldSource,
    run: Callable[[str, Task, FieldSource, FitConfig], None],
    progress: bool,
    zhang: nn.Module | None,
    folder: Path | None,
) -> MDN:
    """Make the code tables once, start the means at their cluster centers, and train the MDN."""
    config, kind = recipe.mdn_fit, recipe.mdn.features
    inputs = input_shape(kind, cvae, zhang)

    def table(part: FieldSource, name: str, views: Sequence[View]) -> CodeSource:
        shape = (len(part) * len(views), *inputs)
        into = on_disk(folder / f"{name}-{parallel.rank()}.features", shape) if folder and 2 * math.prod(shape) > IN_MEMORY else None
        return _codes(cvae, part, config, views, progress, kind, zhang, into)

    source, known = table(training, "training", _views(config)), table(validation, "validation", WHOLE)
    torch.manual_seed(config.seed)
    mdn = MDN.build(replace(recipe.mdn, inputs=inputs, latent=recipe.cvae.latent)).to(source.codes.device)
    if recipe.mdn_loss != "reference":
        mu = source.codes[:, : recipe.cvae.latent]
        mdn.initialize(kmeans(mu, max(mdn.config.components, mdn.config.representatives), seed=config.seed))
    run("mdn", MDNTask(mdn, recipe.mdn_loss, known, config.batch), source, replace(config, flip=False, shift=0))
    return mdn


def _views(config: FitConfig) -> Sequence[View]:
    """Return how the code table shows each photograph: as it is, moved to and fro if the stage shifts, and all that mirrored."""
    half = config.shift // 2
    moves = [(0, 0), *((down, right) for down in (-half, half) for right in (-half, half) if half)]
    return [(mirrored, move) for mirrored in ((False, True) if config.flip else (False,)) for move in moves]


def _codes(
    cvae: CVAE,
    source: FieldSource,
    config: FitConfig,
    views: Sequence[View],
    progress: bool,
    kind: str = "encoder",
    zhang: nn.Module | None = None,
    into: Tensor | None = None,
) -> CodeSource:
    """Tabulate every view of every photograph, view after view."""

    def viewed() -> Iterator[tuple[Tensor, Tensor]]:
        with tqdm(total=len(source) * len(views), desc="codes", unit="image", disable=not progress or parallel.rank() > 0) as bar:
            for mirrored, move in views:
                for gray, ab in _chunks(source, 256):
                    yield _seen(gray, mirrored, move), _seen(ab, mirrored, move)
                    bar.update(len(gray))

    features, mu, logvar = code_table(cvae, viewed(), config.precision, kind=kind, zhang=zhang, into=into)
    return CodeSource(features, torch.cat([mu, logvar], dim=1))


def _seen(fields: Tensor, mirrored: bool, move: tuple[int, int]) -> Tensor:
    fields = fields.flip(-1) if mirrored else fields
    return shifted(fields, torch.tensor([move]).expand(len(fields), 2)) if any(move) else fields


def _statistics(recipe: Recipe, training: FieldSource, device: torch.device | str) -> tuple[WeightTable | None, PCA | None]:
    """Fit what the objective needs of the training colors: rarity weights, principal components."""
    objective = recipe.objective
    weighting = "inverse" if objective.reference else objective.weighting
    weights = None
    if weighting != "none":
        bins = gamut_bins()
        frequency = prior((ab for _, ab in _chunks(training, 256)), bins)
        table = inverse_weights(frequency) if weighting == "inverse" else zhang_weights(frequency, bins)
        weights = WeightTable(bins, table.to(device))
    pca = None
    if objective.mahalanobis:
        rows = torch.cat([ab.flatten(1).half() for _, ab in _chunks(training, 256)])
        pca = fit_pca(rows.float(), 20)
    return weights, pca


class _Mean:
    """Weighted means of named scalars."""

    def __init__(self) -> None:
        self.count, self.sums = 0, {}  # type: int, dict[str, float]

    def add(self, count: int, **terms: Tensor) -> None:
        self.count += count
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + count * float(value)

    def values(self) -> dict[str, float]:
        return {name: total / self.count for name, total in self.sums.items()}


def _chunks(source: FieldSource, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(source), size):
        yield source.batch(torch.arange(start, min(start + size, len(source))))


# --- recipes: every hyperparameter of the book's runs, written once ---


def _fits(regression: int, cvae: int, mdn: int, **shared: Any) -> dict[str, Any]:
    return {
        "regression_fit": FitConfig(steps=regression, learning_rate=1.5e-3, **shared),
        "cvae_fit": FitConfig(steps=cvae, **shared),
        "mdn_fit": FitConfig(steps=mdn, learning_rate=2e-3, weight_decay=0.05, clip=10.0, validate_every=100, **{**shared, "batch": 128}),
    }


def _reference(name: str, width: float, mdn_width: float, regressor_width: float, fits: dict[str, Any]) -> Recipe:
    """The published design and objective, trained as long as ours."""
    return Recipe(
        name,
        CVAEConfig(design="reference", latent=64, width=width),
        MDNConfig(design="reference", latent=64, width=mdn_width, scale=0.1, dropout=0.7),
        Objective(reference=True),
        regressor_width=regressor_width,
        mdn_loss="reference",
        **fits,
    )


_FACES = _fits(1500, 5000, 2000, shift=4)
_FACES_SHORT = _fits(1000, 2600, 1600)
_FACES_FULL = _fits(3000, 16000, 5000, shift=4, batch=128)
_PORTRAITS = _fits(1200, 5000, 4000, flip=False)

#: `faces` makes a file under 8 MB and trains on two processor cores; `faces-full` is for a graphics card, and its file stays under 16 MiB.
#: `faces-reference` is the published design, narrow enough for two cores, and `faces-short` is ours, trained just as long.
RECIPES = {
    "faces": Recipe("faces", CVAEConfig(), MDNConfig(), Objective(), **_FACES),
    "faces-short": Recipe("faces-short", CVAEConfig(), MDNConfig(), Objective(), **_FACES_SHORT),
    "faces-reference": _reference("faces-reference", 0.25, 0.25, 1.0, _FACES_SHORT),
    "faces-full": Recipe("faces-full", CVAEConfig(width=1.4), MDNConfig(width=1.4), Objective(), **_FACES_FULL),
    "faces-full-reference": _reference("faces-full-reference", 1.0, 1.0, 1.4, _FACES_FULL),
    "portraits": Recipe(
        "portraits",
        CVAEConfig(latent=8, width=0.25),
        MDNConfig(latent=8, width=0.5, dropout=0.1),
        Objective(),
        **_PORTRAITS,
    ),
    "portraits-reference": _reference("portraits-reference", 0.125, 0.25, 0.25, _PORTRAITS),
}


def recipe_for(runtime: Runtime) -> Recipe:
    """Return what the book trains on this machine: the full recipe of its data set, or, in the `cpu` profile, a tiny one.

    The tiny one takes seconds on either data set: the narrow networks of `portraits`, few steps, small batches, a higher rate.
    """
    if runtime.profile == "cpu":
        tiny = RECIPES["portraits"].with_(seed=runtime.seed, batch=16, learning_rate=4e-3, warmup=20, validate_every=50)
        steps = {"regression_fit": 60, "cvae_fit": 150, "mdn_fit": 300}
        fits: dict[str, Any] = {stage: replace(getattr(tiny, stage), steps=count) for stage, count in steps.items()}
        return replace(tiny, name="tiny", **fits)
    name = "portraits" if runtime.dataset == "portraits" else "faces-full"
    return RECIPES[name].with_(seed=runtime.seed, precision=runtime.precision)
