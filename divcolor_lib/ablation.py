"""What each choice is worth: a recipe with one thing changed at a time, all rows trained alike and measured alike.

`variants` changes the portraits recipe, `face_variants` the faces recipe at half its width.

Rows that differ only in the mixture density network share one CVAE, and rows with the same seed and width share one regression network,
by copying the finished stages' checkpoints. A run that was stopped goes on where it was.

The rows have few steps, so that all of them take about an hour: compare them with each other, not with the shipped networks. The base
row comes with three seeds; a difference within their spread means nothing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from .colorize import Colorizer
from .data import FieldSource
from .errors import whole_file
from .features import code_table, mdn_inputs
from .losses import kl_per_dimension
from .metrics import Anchors, Row, chroma, error_of_best, errors, fit_anchors, oracle_gap, portrait_scores, variance
from .portraits import Portraits, Posterior
from .runtime import evaluating
from .train import RECIPES, Recipe, Trained, train_colorizer

STEPS = {"regression": 300, "cvae": 600, "mdn": 1000}
FACE_STEPS = {"regression": 200, "cvae": 300, "classes": 300, "mdn": 300}
FACE_WIDTH = 0.5
SEEDS = (0, 1, 2)
ACTIVE_NATS = 0.05


@dataclass(frozen=True)
class Variant:
    """One row: the base recipe with one thing changed.

    Attributes:
        group: what kind of choice it is.
        name: short, unique together with `seed`.
        change: what differs from the base, in words.
    """

    group: str
    name: str
    change: str
    recipe: Recipe

    @property
    def seed(self) -> int:
        """Seed of every stage."""
        return self.recipe.cvae_fit.seed


def variants(precision: str = "fp32", scale: float = 1.0) -> list[Variant]:
    """Return every row, the base rows first.

    Args:
        precision: of training, as `FitConfig` names it.
        scale: multiplies the steps of every stage.
    """

    base, reference = (_budgeted(RECIPES[name], STEPS, precision, scale) for name in ("portraits", "portraits-reference"))
    rows = [Variant("base", "base", "nothing", base.with_(seed=seed)) for seed in SEEDS]

    def add(group: str, name: str, change: str, **changes: Any) -> None:
        rows.append(Variant(group, name, change, replace(base, **changes)))

    def objective(**changes: Any) -> dict[str, Any]:
        return {"objective": replace(base.objective, **changes)}

    def cvae(**changes: Any) -> dict[str, Any]:
        return {"cvae": replace(base.cvae, **changes)}

    def mdn(**changes: Any) -> dict[str, Any]:
        return {"mdn": replace(base.mdn, **changes)}

    add("mixture", "bound", "trained on the nearest-component bound, not on the exact NLL", mdn_loss="bound")
    add("mixture", "fixed scale", "the scale of every component fixed at 0.1", **mdn(scale=0.1))
    for count in (1, 2, 4, 16):
        add("components", f"K = {count}", f"{count} components and representatives", **mdn(components=count, representatives=count))
    add("features", "pixels", "the MDN reads the gray picture at 16x16", **mdn(features="pixels"))
    add("features", "none", "the MDN does not see the gray picture", **mdn(features="none"))
    add("mixture", "heavy dropout", "70 % of the MDN's features dropped", **mdn(dropout=0.7))
    add("loss terms", "no KL", "the KL left out", **objective(kl=0.0))
    add("loss terms", "KL x 10", "ten times the KL", **objective(kl=10.0))
    add("loss terms", "Mahalanobis", "Mahalanobis term added, weight 0.1", **objective(mahalanobis=0.1))
    add("loss terms", "gradient", "gradient term added, weight 1", **objective(gradient=1.0))
    add("loss terms", "Zhang's weights", "pixels weighted by rarity, as Zhang et al.", **objective(weighting="zhang"))
    add("loss terms", "1/p weights", "pixels weighted by rarity, raw 1/p", **objective(weighting="inverse"))
    add("loss terms", "published objective", "the reference's root, 1/p weights and summed KL on our networks", **objective(reference=True))
    add("skips", "1 of 4 maps", "the decoder sees only the coarsest gray map", **cvae(skips=1))
    for size in (4, 64):
        add("code", f"D = {size}", f"codes of {size} numbers", **cvae(latent=size), **mdn(latent=size))
    add("code", "D = 64, fixed scale", "codes of 64 numbers, scale fixed at 0.1", **cvae(latent=64), **mdn(latent=64, scale=0.1))
    rows.append(Variant("rivals", "reference", "the reference's networks and objectives", reference))
    return rows


def face_variants(precision: str = "fp32", scale: float = 1.0) -> list[Variant]:
    """Return the rows for photographs, the base rows first: what helps real faces, and what an MDN should read.

    Args:
        precision, scale: as in `variants`.
    """
    faces = RECIPES["faces"]
    narrow = replace(faces, cvae=replace(faces.cvae, width=FACE_WIDTH), mdn_fit=replace(faces.mdn_fit, shift=0))  # a small code table
    base = _budgeted(narrow, FACE_STEPS, precision, scale)
    reference = replace(RECIPES["faces-reference"], regressor_width=FACE_WIDTH)
    rows = [Variant("base", "base", "nothing", base.with_(seed=seed)) for seed in SEEDS]

    def add(group: str, name: str, change: str, recipe: Recipe) -> None:
        rows.append(Variant(group, name, change, recipe))

    def of_features(kind: str) -> Recipe:
        fit = replace(base.cvae_fit, steps=max(1, round(FACE_STEPS["classes"] * scale))) if kind == "classes" else None
        return replace(base, mdn=replace(base.mdn, features=kind), classes_fit=fit)

    def of_objective(**changes: Any) -> Recipe:
        return replace(base, objective=replace(base.objective, **changes))

    def of_code(size: int) -> Recipe:
        return replace(base, cvae=replace(base.cvae, latent=size), mdn=replace(base.mdn, latent=size))

    add("features", "classes", "the MDN reads a color classifier trained on the same photographs", of_features("classes"))
    add("features", "pixels", "the MDN reads the gray picture at 16x16", of_features("pixels"))
    add("features", "none", "the MDN does not see the gray picture", of_features("none"))
    add("mixture", "bound", "trained on the nearest-component bound, not on the exact NLL", replace(base, mdn_loss="bound"))
    add("augmentation", "no shifts", "photographs are mirrored but not moved", base.with_(shift=0))
    add("rivals", "reference", "the reference's networks and objectives", _budgeted(reference, FACE_STEPS, precision, scale))
    add("loss terms", "published objective", "the reference's objective on our networks", of_objective(reference=True))
    add("loss terms", "Zhang's weights", "pixels weighted by rarity, as Zhang et al.", of_objective(weighting="zhang"))
    add("noise", "half the noise", "half the variance of the likelihood: finer codes", of_objective(noise_variance=0.15))
    add("noise", "twice the noise", "twice the variance of the likelihood: coarser codes", of_objective(noise_variance=0.6))
    for size in (8, 32):
        add("code", f"D = {size}", f"codes of {size} numbers", of_code(size))
    return rows


def _budgeted(recipe: Recipe, steps: Mapping[str, int], precision: str, scale: float) -> Recipe:
    """Return the recipe with so many steps of each of its stages, times `scale`."""
    fits: dict[str, Any] = {f"{stage}_fit": replace(fit, steps=max(1, round(steps[stage] * scale))) for stage, fit in recipe.fits().items()}
    return replace(recipe, **fits).with_(precision=precision)


def ablate(
    rows: Sequence[Variant],
    training: FieldSource,
    validation: FieldSource,
    portraits: Portraits | None,
    folder: Path,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> list[Row]:
    """Train and measure every row, and the anchor rows beside them; finished rows are read from `folder`.

    A row has what the variant is, `eob@1`, `eob@8`, `variance@8` and `chroma` (over the truth's) of what it shows, `means eob@8` (of
    the mixture's component means, in place of the representatives), on portraits also the figures of `portrait_scores`, the
    `oracle gap` and `means recall`, and of the codes `kl` (to the standard normal), `active units`, `nll` and `rate`: the mean of
    log q(z|C, G) - log p(z|G), which, other than the NLL, can be compared between codes of different lengths. Figures are `None`
    where they do not exist.

    Args:
        portraits: those behind `validation`, in the same order; `None` for photographs, whose posterior nobody knows.
        folder: for checkpoints and finished rows.
    """
    table: list[Row] = []
    portraits = None if portraits is None else _Remembering(portraits)
    for variant in tqdm(rows, desc="rows", disable=not progress):
        path = folder / _slug(variant) / "row.json"
        described = _described(variant)
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if known.get("settings") != described:
            began = time.monotonic()
            trained = _train(variant, training, validation, folder, device, progress)
            measured = _measure(trained, validation, portraits)
            known = {"settings": described, "row": {**_named(variant), **measured, "seconds": round(time.monotonic() - began, 1)}}
            with whole_file(path) as temporary:
                temporary.write_text(json.dumps(known), encoding="utf-8")
        table.append(known["row"])
    return [*table, *_anchor_rows(_regressor(rows[0], training, validation, folder, device), training, validation, portraits)]


class _Remembering(Portraits):
    """The same portraits; what is known of each is worked out once for all rows."""

    def __init__(self, portraits: Portraits) -> None:
        super().__init__(len(portraits), portraits.seed, portraits.size)
        self._posteriors: dict[int, Posterior] = {}
        self._bases: dict[int, Tensor] = {}

    def posterior(self, index: int) -> Posterior:
        """Return what `Portraits.posterior` returns, worked out the first time only."""
        if index not in self._posteriors:
            self._posteriors[index] = super().posterior(index)
        return self._posteriors[index]

    def basis(self, index: int) -> Tensor:
        """Return what `Portraits.basis` returns, worked out the first time only."""
        if index not in self._bases:
            self._bases[index] = super().basis(index)
        return self._bases[index]


def _named(variant: Variant) -> Row:
    return {"group": variant.group, "name": variant.name, "change": variant.change, "seed": variant.seed}


def _slug(variant: Variant) -> str:
    words = "".join(letter if letter.isalnum() else "-" for letter in f"{variant.group} {variant.name}".lower())
    return f"{words}-{variant.seed}"


def _described(variant: Variant) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(json.dumps(asdict(variant.recipe)))
    return described


# --- training, with stages shared ---


def _train(
    variant: Variant, training: FieldSource, validation: FieldSource, folder: Path, device: torch.device | str, progress: bool
) -> Trained:
    """Train the variant in a folder of its own, after copying there the finished stages that another variant shares with it."""
    own = folder / _slug(variant)
    own.mkdir(parents=True, exist_ok=True)
    shared = folder / "shared"
    keys = _keys(variant)
    for stage, key in keys.items():
        _copy(shared / key, own, stage)
    trained = train_colorizer(variant.recipe, training, validation, device, own, progress=progress)
    for stage, key in keys.items():
        _copy(own, shared / key, stage)
    return trained


def _keys(variant: Variant) -> dict[str, str]:
    """Return a name for all that decides the regression stage, and all that decides the CVAE stage."""
    recipe = _described(variant)
    regression = {"fit": recipe["regression_fit"], "width": recipe["regressor_width"] or recipe["cvae"]["width"]}
    cvae = {**regression, "cvae": recipe["cvae"], "objective": recipe["objective"], "cvae_fit": recipe["cvae_fit"]}
    named = {"regression": regression, "cvae": cvae}
    return {
        stage: f"{stage}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]}" for stage, facts in named.items()
    }


def _copy(source: Path, target: Path, stage: str) -> None:
    """Copy the checkpoints of a stage, unless they are there already or there are none."""
    for kind in ("best", "last"):  # the last one counts as finished, so it comes last
        name = f"{stage}.{kind}.safetensors"
        if (source / name).is_file() and not (target / name).is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)


def _regressor(variant: Variant, training: FieldSource, validation: FieldSource, folder: Path, device: torch.device | str) -> Trained:
    return train_colorizer(variant.recipe, training, validation, device, folder / _slug(variant), "cvae", progress=False)


# --- measuring ---


@torch.no_grad()
def _measure(trained: Trained, validation: FieldSource, portraits: Portraits | None) -> Row:
    assert trained.mdn is not None
    colorizer = Colorizer(trained.cvae, trained.mdn, zhang=trained.classifier)
    shown, means, truths = [], [], []
    for part in torch.arange(len(validation)).split(128):
        gray, truth = validation.batch(part)
        shown.append(tuple(tensor.cpu() for tensor in colorizer.predict(gray)))
        means.append(tuple(tensor.cpu() for tensor in _mean_colorings(colorizer, gray)))
        truths.append(truth.cpu())
    truth = torch.cat(truths)
    fields, weights = (torch.cat(part) for part in zip(*shown))
    regression = _regression_error(trained, validation)
    row = _scores(fields, weights, truth, portraits, regression)
    fields, weights = (torch.cat(part) for part in zip(*means))
    of_means = _scores(fields, weights, truth, portraits, regression)
    row |= {f"means {figure}": of_means[figure] for figure in ("eob@8", "recall") if figure in of_means}
    return row | _code_figures(trained, validation)


def _mean_colorings(colorizer: Colorizer, gray: Tensor) -> tuple[Tensor, Tensor]:
    """Decode the mixture's component means, by descending weight."""
    with evaluating(colorizer.cvae, colorizer.mdn):
        maps = colorizer.cvae.gray_features(gray)
        mixture = colorizer.mdn(mdn_inputs(colorizer.mdn.config.features, gray, maps, colorizer.zhang))
        weights, order = mixture.mixture_distribution.probs.sort(dim=1, descending=True, stable=True)
        means = mixture.component_distribution.mean
        codes = means.gather(1, order[..., None].expand_as(means))
        return colorizer.cvae.decode_features(codes, maps), weights


def _scores(fields: Tensor, weights: Tensor, truth: Tensor, portraits: Portraits | None, regression: float) -> Row:
    found = errors(fields, truth)
    row: Row = {
        "eob@1": float(error_of_best(found, 1).mean()),
        "eob@8": float(error_of_best(found, 8).mean()),
        "variance@8": float(variance(fields[:, :8]).mean()),
        "chroma": float(chroma(fields[:, :8]).mean() / chroma(truth[:, None]).mean()),
    }
    if portraits is None:
        return row
    indices = list(range(len(truth)))
    scores = portrait_scores(portraits, indices, fields, weights)
    gap = oracle_gap(portraits, indices, found[:, :8], truth, regression)
    return row | {
        "recall": scores["recall"],
        "precision": scores["precision"],
        "calibration": scores["calibration"],
        "oracle gap": gap["oracle gap"],
    }


def _regression_error(trained: Trained, validation: FieldSource) -> float:
    assert trained.regressor is not None
    found = []
    with evaluating(trained.regressor):
        for part in torch.arange(len(validation)).split(128):
            gray, truth = validation.batch(part)
            found.append(errors(trained.regressor(gray)[:, None], truth)[:, 0])
    return float(torch.cat(found).mean())


def _code_figures(trained: Trained, validation: FieldSource) -> Row:
    assert trained.mdn is not None
    batches = [validation.batch(part) for part in torch.arange(len(validation)).split(256)]
    _, mu, logvar = code_table(trained.cvae, batches)
    per_dimension = kl_per_dimension(mu, logvar).mean(0)
    best = min(trained.histories["mdn"].validation, key=lambda scores: scores["loss"])
    entropy = float((0.5 * (logvar + torch.log(torch.tensor(2 * torch.pi * torch.e)))).sum(1).mean())
    return {
        "kl": float(per_dimension.sum()),
        "active units": int((per_dimension > ACTIVE_NATS).sum()),
        "nll": best["nll"],
        "rate": best["nll"] - entropy,
    }


def _anchor_rows(trained: Trained, training: FieldSource, validation: FieldSource, portraits: Portraits | None) -> list[Row]:
    """Measure the rows that no code decides: one answer, and eight that never look at the photograph."""
    anchors: Anchors = fit_anchors(training, trained.regressor)
    regression = _regression_error(trained, validation)
    rows: list[Row] = []
    changes = {
        "regression": "one answer for each picture, the network that ours starts from",
        "k-means 8": "the same eight fields for every picture",
    }
    for name, change in changes.items():
        outputs, truths = [], []
        for part in torch.arange(len(validation)).split(128):
            gray, truth = validation.batch(part)
            outputs.append(anchors.outputs(name, gray, truth).cpu())
            truths.append(truth.cpu())
        fields = torch.cat(outputs)
        weights = torch.full(fields.shape[:2], 1 / fields.shape[1])
        unknown = ("means eob@8", *(["means recall"] if portraits else []), "kl", "active units", "nll", "rate", "seconds")
        absent = dict.fromkeys(unknown)
        scores = _scores(fields, weights, torch.cat(truths), portraits, regression)
        rows.append({"group": "rivals", "name": name, "change": change, "seed": trained.recipe.cvae_fit.seed, **scores, **absent})
    return rows
