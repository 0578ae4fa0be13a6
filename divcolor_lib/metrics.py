"""How good is a set of K colorizations? Error of the best, variety, anchor rows, and the known truth of the portraits.

All figures are taken on raw 64x64 float output, before enlarging and gamut mapping. Colorizations come as
`outputs` (N, K, 2, H, W), ordered by descending weight; the truth as `truth` (N, 2, H, W); both in units of ab/128.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .autoencoder import PCA, fit_pca, kmeans
from .colorize import Colorizer
from .cvae import ColorRegressor
from .data import FieldSource
from .errors import CheckpointError, DataError, ShapeError, check_shape
from .lab import AB_SCALE
from .portraits import Portraits
from .runtime import evaluating, generator

KS = (1, 5, 8)
ANCHOR_ROWS = ("gray", "mean field", "regression", "k-means 8", "PCA 5 oracle", "PCA 20 oracle")
HIT_RADIUS = 10.0
CLUSTERS = 8
COMPONENTS = 20
FEWEST_PEOPLE = 10


# --- errors and variety ---


def errors(outputs: Tensor, truth: Tensor) -> Tensor:
    """Return e_i(k) = sqrt(mean over pixels and both channels of (C_i(k) - C_i)^2), `(N, K)`, in units of ab/128."""
    check_shape("truth", truth, (None, 2, None, None))
    check_shape("outputs", outputs, (truth.shape[0], None, *truth.shape[1:]))
    return (outputs - truth[:, None]).square().mean((2, 3, 4)).sqrt()


def error_of_best(errors_: Tensor, k: int) -> Tensor:
    """Return min over the first k of e_i(k), one for each image, `(N,)`; its mean is `eob@k`."""
    return errors_[:, :k].min(1).values


def pooled_error_of_best(errors_: Tensor, k: int) -> float:
    """Return sqrt(mean_i min_k e_i(k)^2), the root taken once, over all images."""
    return float(error_of_best(errors_, k).square().mean().sqrt())


def variance(outputs: Tensor) -> Tensor:
    """Return the variance over the K outputs (divided by K), averaged over pixels and channels, `(N,)`, in (ab/128)^2."""
    return outputs.var(dim=1, correction=0).mean((1, 2, 3))


def delta_e(outputs: Tensor) -> Tensor:
    """Return the mean CIE76 difference over all pairs of the K outputs and all pixels, `(N,)`, in Lab units; 0 for K = 1."""
    count = outputs.shape[1]
    if count == 1:
        return torch.zeros(outputs.shape[0], device=outputs.device)
    first, second = torch.triu_indices(count, count, offset=1).unbind()
    return torch.stack(
        [(outputs[:, i] - outputs[:, j]).mul(AB_SCALE).square().sum(1).sqrt().mean((1, 2)) for i, j in zip(first.tolist(), second.tolist())]
    ).mean(0)


def chroma(outputs: Tensor) -> Tensor:
    """Return the mean chroma, sqrt(a^2 + b^2), over the K outputs and all pixels, `(N,)`, in Lab units: how colorful they are."""
    return outputs.mul(AB_SCALE).square().sum(2).sqrt().mean((1, 2, 3))


# --- anchor rows ---


@dataclass(frozen=True)
class Anchors:
    """What the anchor rows need of the training data.

    Attributes:
        pca: mean field and 20 principal components of training color fields.
        clusters: `(8, 2, H, W)`, k-means centers of training color fields, by descending size.
        regressor: the regression network, trained on the same data.
    """

    pca: PCA
    clusters: Tensor
    regressor: ColorRegressor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint keeps: components as bytes, since only their direction matters, and centers as
        bytes in steps of their largest value over 127, which is finer than an eye sees."""
        components = self.pca.components
        step = (self.clusters.abs().amax() / 127).clamp(min=1e-6)
        return {
            "mean": self.pca.mean,
            "components": (components * (127 / components.abs().amax(1, keepdim=True))).round().to(torch.int8),
            "variances": self.pca.variances,
            "total_variance": torch.tensor(self.pca.total_variance),
            "clusters": (self.clusters / step).round().to(torch.int8),
            "cluster_step": step,
        }

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor], regressor: ColorRegressor | None = None) -> Anchors:
        """Build the anchors from what `tensors` returned.

        Raises:
            CheckpointError: a tensor is missing.
        """
        missing = {"mean", "components", "variances", "total_variance", "clusters"} - set(tensors)
        if missing:
            raise CheckpointError(f"the anchor rows lack {', '.join(sorted(missing))}", todo="Train again; `train` stores them.")
        rows, upper = torch.linalg.qr(tensors["components"].float().T)
        components = (rows * upper.diagonal().sign()).T
        pca = PCA(tensors["mean"], components, tensors["variances"], float(tensors["total_variance"]))
        clusters = tensors["clusters"].float() * tensors.get("cluster_step", torch.ones(()))  # older files keep floats, without a step
        return Anchors(pca, clusters, regressor)

    def outputs(self, row: str, gray: Tensor, truth: Tensor) -> Tensor:
        """Return the colorizations `(N, K, 2, H, W)` of an anchor row; the oracles look at the truth."""
        if row == "gray":
            return torch.zeros_like(truth)[:, None]
        if row == "mean field":
            return self.pca.mean.reshape(1, 1, *truth.shape[1:]).expand(len(truth), -1, -1, -1, -1)
        if row == "k-means 8":
            return self.clusters[None].expand(len(truth), -1, -1, -1, -1)
        if row == "regression":
            if self.regressor is None:
                raise CheckpointError("the checkpoint holds no regression network", todo="Train again with a recipe that has one.")
            with evaluating(self.regressor):
                return self.regressor(gray)[:, None]
        components = {"PCA 5 oracle": 5, "PCA 20 oracle": 20}[row]
        return self.pca.project(truth.flatten(1), components).reshape(len(truth), 1, *truth.shape[1:])


def fit_anchors(training: FieldSource, regressor: ColorRegressor | None = None, seed: int = 0, largest: int = 20000) -> Anchors:
    """Fit mean field, principal components and k-means centers on training color fields (at most `largest` of them, evenly spaced).

    Raises:
        DataError: there are too few images for 20 components.
    """
    if len(training) <= COMPONENTS:
        raise DataError(f"{len(training)} training images are too few for {COMPONENTS} principal components", todo="Use at least 21.")
    chosen = torch.linspace(0, len(training) - 1, min(largest, len(training))).round().long()
    rows = torch.cat([training.batch(indices)[1].flatten(1) for indices in chosen.split(256)])
    size = training.batch(chosen[:1])[1].shape[1:]
    centers = kmeans(rows, CLUSTERS, seed)
    counts = torch.bincount(torch.cdist(rows, centers).argmin(1), minlength=CLUSTERS)
    ordered = centers[counts.argsort(descending=True, stable=True)]
    return Anchors(fit_pca(rows, COMPONENTS, seed), ordered.reshape(CLUSTERS, *size), regressor)


# --- tables ---

Row = dict[str, Any]


def evaluate(
    colorizer: Colorizer,
    source: FieldSource,
    groups: Sequence[str],
    batch: int = 128,
    samples: int = 0,
    seed: int = 0,
    progress: bool = False,
    each: bool = False,
) -> list[Row]:
    """Return the table of the model and its anchor rows, each a dictionary with `name` and the figures of the design.

    Every figure is a mean over images, but `chroma` is the mean chroma of the outputs over that of the truth. `interval` holds
    95 % bounds of eob@1, eob@8 and deltaE@8, from a bootstrap over persons. The model's row also has `ratio to regression` and
    `below k-means 8`: paired intervals of its eob@1 over the regression row's, and of its eob@8 minus the k-means row's. With
    `samples`, it has `eob@samples`.

    Args:
        groups: the person of each image of `source`; the bootstrap draws persons, since images of one are alike.
        each: also give every row `each`, the errors eob@1 and eob@8 of every image, rounded to six digits.
    """
    anchors = Anchors.from_tensors(colorizer.anchors, colorizer.regressor) if colorizer.anchors else None
    names = ["model", *(row for row in ANCHOR_ROWS if anchors and (row != "regression" or anchors.regressor is not None))]
    collected: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in names}
    colorful = dict.fromkeys((*names, "truth"), 0.0)
    sampled: list[Tensor] = []
    noise = generator(seed)
    for start in tqdm(range(0, len(source), batch), desc="evaluate", disable=not progress):
        gray, truth = source.batch(torch.arange(start, min(start + batch, len(source))))
        for name in names:
            outputs = colorizer.predict(gray)[0] if name == "model" else anchors.outputs(name, gray, truth)  # type: ignore[union-attr]
            kept = outputs[:, : max(KS)]
            collected[name].append((errors(outputs, truth).cpu(), variance(kept).cpu(), delta_e(kept).cpu()))
            colorful[name] += float(chroma(kept).sum())
        colorful["truth"] += float(chroma(truth[:, None]).sum())
        if samples:
            sampled.append(_best_sample(colorizer, gray, truth, samples, noise))
    tables = {name: [torch.cat(part) for part in zip(*parts)] for name, parts in collected.items()}
    rows = [_row(name, found, spread, apart, groups) for name, (found, spread, apart) in tables.items()]
    for row in rows:
        row["chroma"] = colorful[row["name"]] / max(colorful["truth"], 1e-9)
    model = tables["model"][0]
    if "regression" in tables:
        rows[0]["ratio to regression"] = bootstrap_ratio(model[:, 0], tables["regression"][0][:, 0], groups)
    if "k-means 8" in tables:
        rows[0]["below k-means 8"] = bootstrap(error_of_best(model, 8) - error_of_best(tables["k-means 8"][0], 8), groups)
    if samples:
        rows[0][f"eob@{samples} (samples)"] = float(torch.cat(sampled).mean())
    if each:
        for row in rows:
            found = tables[row["name"]][0]
            row["each"] = {f"eob@{k}": [round(value, 6) for value in error_of_best(found, k).tolist()] for k in (1, 8)}
    return rows


def _best_sample(colorizer: Colorizer, gray: Tensor, truth: Tensor, samples: int, noise: torch.Generator) -> Tensor:
    best = torch.full((len(gray),), torch.inf)
    for start in range(0, samples, 10):
        drawn = colorizer.sample(gray, min(10, samples - start), noise)
        best = torch.minimum(best, errors(drawn, truth).min(1).values.cpu())
    return best


def _row(name: str, errors_: Tensor, variances: Tensor, differences: Tensor, groups: Sequence[str]) -> Row:
    row: Row = {"name": name}
    row |= {f"eob@{k}": float(error_of_best(errors_, k).mean()) for k in KS}
    row |= {"eob_pooled@8": pooled_error_of_best(errors_, 8), "variance@8": float(variances.mean()), "deltaE@8": float(differences.mean())}
    row["interval"] = {
        "eob@1": bootstrap(error_of_best(errors_, 1), groups),
        "eob@8": bootstrap(error_of_best(errors_, 8), groups),
        "deltaE@8": bootstrap(differences, groups),
    }
    return row


def bootstrap(values: Tensor, groups: Sequence[str], rounds: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Return 95 % bounds of the mean of `values` (N,) when persons, not images, are drawn again with replacement."""
    sums, counts = _by_group(values, groups)
    return _bounds([sums], [counts], lambda s, c: s[0] / c[0], rounds, seed)


def bootstrap_ratio(above: Tensor, below: Tensor, groups: Sequence[str], rounds: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Return 95 % bounds of mean(above) / mean(below), both taken on the same drawn persons."""
    first, counts = _by_group(above, groups)
    second, _ = _by_group(below, groups)
    return _bounds([first, second], [counts], lambda s, c: s[0] / s[1], rounds, seed)


def bootstrap_difference(
    values: Tensor, first: Tensor, second: Tensor, groups: Sequence[str], rounds: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return 95 % bounds of mean(values[first]) - mean(values[second]), on the same drawn persons, who may have images in both parts.

    Args:
        values: `(N,)`.
        first: which images are in the first part, `(N,)` bool.
        second: the same for the second part.

    Raises:
        DataError: a part is empty, or too few people have images in it: some draw would have none.
    """
    sums, counts = zip(*(_by_group(torch.where(part, values, 0.0), groups, part) for part in (first, second)))
    return _bounds(list(sums), list(counts), lambda s, c: s[0] / c[0] - s[1] / c[1], rounds, seed)


def by_label(values: Mapping[str, Tensor], labels: Sequence[str], groups: Sequence[str]) -> list[Row]:
    """Return one row for each label, in sorted order: how many images and people it has, and the mean of each of `values` among them.

    A row has `label`, `images`, `people`, the means under the names of `values`, and `interval` with 95 % bounds of each from a
    bootstrap over persons; `None` in place of bounds where fewer than ten people leave nothing to draw from.

    Args:
        values: figures for each image under their names, `(N,)` each.
        labels: of each image, such as the band of a proxy.
        groups: the person of each image.

    Raises:
        DataError: the lengths differ.
    """
    if len(labels) != len(groups):
        raise DataError(f"{len(labels)} labels came with {len(groups)} group names", "by_label")
    for name, value in values.items():
        if len(value) != len(groups):
            raise DataError(f"{len(value)} values of `{name}` came with {len(groups)} group names", "by_label")
    rows: list[Row] = []
    for label in sorted(set(labels)):
        chosen = [index for index, own in enumerate(labels) if own == label]
        persons = [groups[index] for index in chosen]
        row: Row = {"label": label, "images": len(chosen), "people": len(set(persons))}
        row |= {name: float(value[chosen].mean()) for name, value in values.items()}
        enough = row["people"] >= FEWEST_PEOPLE
        row["interval"] = {name: bootstrap(value[chosen], persons) if enough else None for name, value in values.items()}
        rows.append(row)
    return rows


def _by_group(values: Tensor, groups: Sequence[str], counted: Tensor | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return for each person the sum of the values, and the number of images (those `counted`, if given)."""
    if len(values) != len(groups):
        raise DataError(f"{len(values)} values came with {len(groups)} group names", "bootstrap")
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    ones = None if counted is None else counted.double().numpy()
    return np.bincount(member, weights=values.double().numpy()), np.bincount(member, weights=ones).astype(float)


def _bounds(
    sums: list[np.ndarray], counts: list[np.ndarray], statistic: Callable[[list[Any], list[Any]], Any], rounds: int, seed: int
) -> tuple[float, float]:
    people = len(sums[0])
    drawn = np.random.default_rng(seed).multinomial(people, np.full(people, 1 / people), size=rounds).astype(float)
    if any(((drawn @ part) == 0).any() for part in counts):
        raise DataError("some draws of persons hold no image of a part", "bootstrap", "Compare parts with more people.")
    values = statistic([drawn @ part for part in sums], [drawn @ part for part in counts])
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


# --- calibration of probabilities in general ---


def reliability(weights: Tensor, hits: Tensor, bins: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """Sort predictions by their weight into bins of equal width from 0 to 1, and compare what they say with what happens.

    Bin b of B holds the weights in (b/B, (b+1)/B], the first also 0. Predictions are all equal: an image with eight counts eight times.

    Args:
        weights: what the predictor says, any shape, each in [0, 1].
        hits: whether it happened, of the same shape. For colorizations: whether colorization k shows the coloring that was drawn.

    Returns:
        (B,) each, float64: the mean weight, the share of hits, and the number of predictions; the first two are 0 in an empty bin.

    Raises:
        ShapeError: the shapes differ.
        DataError: there are no predictions, or a weight lies outside [0, 1].
    """
    if weights.shape != hits.shape:
        raise ShapeError(f"`hits` has shape {tuple(hits.shape)}, `weights` {tuple(weights.shape)}", "reliability")
    said, happened = weights.detach().double().flatten().cpu(), hits.double().flatten().cpu()
    if len(said) == 0 or not bool(((said >= 0) & (said <= 1 + 1e-6)).all()):
        raise DataError("weights are missing or lie outside 0 to 1", "reliability", "Give each prediction's own probability.")
    place = ((said * bins).ceil().long() - 1).clamp(0, bins - 1)
    count = torch.bincount(place, minlength=bins).double()
    mean, share = (torch.bincount(place, weights=values, minlength=bins) / count.clamp(min=1) for values in (said, happened))
    return mean, share, count


def expected_calibration_error(weights: Tensor, hits: Tensor, bins: int = 10) -> float:
    """Return ECE = sum over bins of (its share of the predictions) * |its mean weight - its share of hits|.

    The figure that papers on calibration report ([Guo et al., 2017](https://arxiv.org/abs/1706.04599)). It is passed by a
    predictor that always says the same right marginal probabilities, so it never stands alone: see `portrait_scores`.

    Args:
        weights: what the predictor says, as in `reliability`.
        hits: whether it happened.
        bins: how many bins of equal width.
    """
    mean, share, count = reliability(weights, hits, bins)
    return float((count * (mean - share).abs()).sum() / count.sum())


# --- portraits: the posterior is known ---


def portrait_scores(portraits: Portraits, indices: Sequence[int], outputs: Tensor, weights: Tensor) -> dict[str, float]:
    """Return recall, precision, calibration and the cue-blind predictor's calibration on portraits, each a mean over images.

    c(k) is the least-squares projection of colorization k on the portrait's regions A(G). It hits mode m if every
    region's color lies within 10 Lab units of c_m. Then

    * recall = sum_m p_m [some k hits m], precision = sum_k weight_k [k hits some m],
    * calibration = TV = 1/2 (sum_m |p_m - q_m| + 1 - sum_m q_m), q_m being the weight of the k that hit m.

    Args:
        outputs: `(N, K, 2, S, S)`, for the portraits at `indices`.
        weights: `(N, K)`; they are renormalized to sum to one over the K.
    """
    sums = {"recall": 0.0, "precision": 0.0, "calibration": 0.0, "cue-blind calibration": 0.0}
    for row, index in enumerate(indices):
        posterior = portraits.posterior(index)
        hits = mode_hits(portraits.basis(index), posterior.region_colors, outputs[row].cpu())
        p, share = posterior.probabilities.double(), (weights[row] / weights[row].sum()).double().cpu()
        q = (hits.double() * share[:, None]).sum(0)
        sums["recall"] += float((p * hits.any(0)).sum())
        sums["precision"] += float((share * hits.any(1)).sum())
        sums["calibration"] += _total_variation(p, q)
        sums["cue-blind calibration"] += _total_variation(p, posterior.blind)
    return {name: total / len(indices) for name, total in sums.items()}


def _total_variation(p: Tensor, q: Tensor) -> float:
    """TV of p, which sums to one, and q; what q lacks of one lies on modes that p does not have."""
    return float(0.5 * ((p - q).abs().sum() + 1 - q.sum()))


def mode_hits(basis: Tensor, region_colors: Tensor, outputs: Tensor) -> Tensor:
    """Return `(K, M)` booleans: does colorization k hit mode m? Modes lie over 20 Lab units apart, so none hits two.

    Args:
        basis: A, `(R, S, S)`.
        region_colors: `(M, R, 2)` in Lab units.
        outputs: `(K, 2, S, S)`, ab/128.
    """
    rows = basis.flatten(1).double()
    colors = torch.linalg.lstsq(rows.T, outputs.flatten(2).double().flatten(0, 1).T * AB_SCALE).solution
    colors = colors.T.reshape(*outputs.shape[:2], -1).movedim(1, 2)
    distance = (colors[:, None] - region_colors[None].double()).square().sum(-1).sqrt().amax(-1)
    return distance <= HIT_RADIUS


def oracle_gap(portraits: Portraits, indices: Sequence[int], errors_: Tensor, truth: Tensor, regression_eob: float) -> dict[str, float]:
    """Return the oracle's eob and the gap (eob - oracle) / (regression - oracle).

    The oracle shows the true mode means; it cannot know the jitter within a mode, nor the noise.

    Args:
        errors_: e_i(k) of the model, `(N, K)`.
        truth: `(N, 2, S, S)`.
        regression_eob: mean error of the regression network on the same images.
    """
    best = torch.stack([errors(portraits.posterior(i).ab[None], field[None].cpu())[0].min() for i, field in zip(indices, truth)])
    oracle, eob = float(best.mean()), float(errors_.min(1).values.mean())
    return {"oracle eob": oracle, "oracle gap": (eob - oracle) / (regression_eob - oracle)}
