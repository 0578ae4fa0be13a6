"""Every figure of the tables against loops in float64, and the known truth of the portraits against itself."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from divcolor_lib import metrics
from divcolor_lib.colorize import Colorizer
from divcolor_lib.cvae import CVAE, ColorRegressor, CVAEConfig
from divcolor_lib.data import TensorFields
from divcolor_lib.errors import CheckpointError, DataError, ShapeError
from divcolor_lib.mdn import MDN, MDNConfig
from divcolor_lib.portraits import CUES, WALL_ODDS, Portraits, Posterior
from divcolor_lib.runtime import generator


def random_outputs(images: int = 3, k: int = 4, size: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    noise = generator(seed)
    return torch.randn(images, k, 2, size, size, generator=noise) * 0.3, torch.randn(images, 2, size, size, generator=noise) * 0.3


def numbers(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.double().numpy()


# --- definitions, by loops ---


def looped_errors(outputs: Tensor, truth: Tensor) -> NDArray[np.float64]:
    found, wanted = numbers(outputs), numbers(truth)
    result = np.zeros(found.shape[:2])
    for i, k in np.ndindex(*found.shape[:2]):
        total = 0.0
        for c, y, x in np.ndindex(*found.shape[2:]):
            total += (found[i, k, c, y, x] - wanted[i, c, y, x]) ** 2
        result[i, k] = math.sqrt(total / (found.shape[2] * found.shape[3] * found.shape[4]))
    return result


def test_the_error_is_the_root_of_the_mean_square_over_pixels_and_channels() -> None:
    outputs, truth = random_outputs()
    np.testing.assert_allclose(numbers(metrics.errors(outputs, truth)), looped_errors(outputs, truth), rtol=1e-5)


def test_the_error_of_the_best_looks_at_the_first_k_only() -> None:
    found = torch.tensor([[0.5, 0.2, 0.9, 0.1], [0.3, 0.4, 0.2, 0.6]])
    for k in (1, 2, 3, 4, 8):
        expected = [min(row[:k]) for row in found.tolist()]
        assert metrics.error_of_best(found, k).tolist() == pytest.approx(expected)


def test_more_outputs_never_make_the_best_worse() -> None:
    outputs, truth = random_outputs(images=6, k=8)
    found = metrics.errors(outputs, truth)
    for fewer, more in itertools.pairwise((1, 5, 8)):
        assert (metrics.error_of_best(found, fewer) >= metrics.error_of_best(found, more)).all()
    assert (metrics.error_of_best(found, 1) > metrics.error_of_best(found, 8)).any()


def test_the_pooled_error_takes_the_root_once_and_is_the_larger_one() -> None:
    outputs, truth = random_outputs(images=5)
    truth[0] *= 4
    best = looped_errors(outputs, truth)[:, :3].min(1)
    pooled = metrics.pooled_error_of_best(metrics.errors(outputs, truth), 3)
    assert pooled == pytest.approx(math.sqrt(sum(value**2 for value in best) / 5), rel=1e-5)
    assert pooled > best.mean() + 1e-3


def test_the_variance_divides_by_k() -> None:
    outputs, _ = random_outputs()
    found = numbers(outputs)
    for i in range(3):
        total = 0.0
        for c, y, x in np.ndindex(*found.shape[2:]):
            values = [found[i, k, c, y, x] for k in range(4)]
            middle = sum(values) / 4
            total += sum((value - middle) ** 2 for value in values) / 4
        assert float(metrics.variance(outputs)[i]) == pytest.approx(total / 50, rel=1e-5)
    assert metrics.variance(outputs[:, :1]).tolist() == [0, 0, 0]


@pytest.mark.parametrize("k", [1, 2, 5])
def test_delta_e_is_the_mean_over_pairs_and_pixels_in_lab_units(k: int) -> None:
    outputs, _ = random_outputs(k=k)
    found = numbers(outputs) * 128
    for i in range(3):
        pairs = []
        for first, second in itertools.combinations(range(k), 2):
            for y, x in np.ndindex(5, 5):
                pairs.append(math.dist(found[i, first, :, y, x], found[i, second, :, y, x]))
        expected = sum(pairs) / len(pairs) if pairs else 0.0
        assert float(metrics.delta_e(outputs)[i]) == pytest.approx(expected, rel=1e-5)


def test_delta_e_of_two_flat_colors_is_their_distance() -> None:
    outputs = torch.zeros(1, 2, 2, 4, 4)
    outputs[0, 1, 0], outputs[0, 1, 1] = 3 / 128, 4 / 128
    assert float(metrics.delta_e(outputs)) == pytest.approx(5)


def test_outputs_and_truth_must_fit_together() -> None:
    outputs, truth = random_outputs()
    for wrong in (truth[:2], truth[:, :, :4], truth[:, :1]):
        with pytest.raises(ShapeError):
            metrics.errors(outputs, wrong)


# --- anchor rows ---


def training_fields(count: int = 60, seed: int = 0, size: int = 6) -> TensorFields:
    noise = generator(seed)
    basis = torch.randn(30, 2 * size * size, generator=noise) * torch.linspace(1, 0.05, 30)[:, None]
    ab = (torch.randn(count, 30, generator=noise) @ basis * 0.05 + 0.1).reshape(count, 2, size, size)
    return TensorFields(torch.zeros(count, 1, size, size), ab)


@pytest.fixture(scope="module")
def anchors() -> metrics.Anchors:
    return metrics.fit_anchors(training_fields())


def anchor_row(anchors: metrics.Anchors, row: str, truth: Tensor) -> NDArray[np.float64]:
    return numbers(anchors.outputs(row, torch.zeros(len(truth), 1, *truth.shape[2:]), truth))


def test_gray_and_mean_field_ignore_the_photograph(anchors: metrics.Anchors) -> None:
    source = training_fields()
    truth = training_fields(4, seed=1).ab
    gray = anchor_row(anchors, "gray", truth)
    assert gray.shape == (4, 1, 2, 6, 6) and (gray == 0).all()
    np.testing.assert_allclose(
        looped_errors(torch.from_numpy(gray), truth)[:, 0], np.sqrt((numbers(truth) ** 2).mean((1, 2, 3))), rtol=1e-6
    )
    mean = anchor_row(anchors, "mean field", truth)
    assert mean.shape == (4, 1, 2, 6, 6)
    np.testing.assert_allclose(mean[:, 0], np.broadcast_to(numbers(source.ab).mean(0), truth.shape), atol=1e-6)


@pytest.mark.parametrize("components", [5, 20])
def test_pca_oracles_project_the_truth_as_numpy_does(anchors: metrics.Anchors, components: int) -> None:
    rows = numbers(training_fields().ab).reshape(60, -1)
    truth = training_fields(7, seed=1).ab
    directions = np.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][:components]
    centered = numbers(truth).reshape(7, -1) - rows.mean(0)
    expected = rows.mean(0) + centered @ directions.T @ directions
    found = anchor_row(anchors, f"PCA {components} oracle", truth)
    assert found.shape == (7, 1, 2, 6, 6)
    np.testing.assert_allclose(found.reshape(7, -1), expected, atol=2e-4)


def test_k_means_centers_are_means_of_their_clusters_by_descending_size(anchors: metrics.Anchors) -> None:
    rows = numbers(training_fields().ab).reshape(60, -1)
    truth = training_fields(3, seed=1).ab
    found = anchor_row(anchors, "k-means 8", truth)
    assert found.shape == (3, 8, 2, 6, 6)
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    centers = found[0].reshape(8, -1)
    label = ((rows[:, None] - centers) ** 2).sum(2).argmin(1)
    counts = np.bincount(label, minlength=8)
    assert counts.tolist() == sorted(counts.tolist(), reverse=True) and counts.min() > 0
    for cluster in range(8):
        np.testing.assert_allclose(rows[label == cluster].mean(0), centers[cluster], atol=1e-5)


def test_k_means_finds_clusters_that_lie_far_apart() -> None:
    noise = generator(2)
    wanted = torch.randn(8, 2, 4, 4, generator=noise)
    sizes = [9, 2, 7, 4, 8, 3, 6, 5]
    ab = torch.cat([wanted[c].expand(n, -1, -1, -1) + 1e-3 * torch.randn(n, 2, 4, 4, generator=noise) for c, n in enumerate(sizes)])
    mixed = torch.randperm(len(ab), generator=noise)
    found = metrics.fit_anchors(TensorFields(torch.zeros(44, 1, 4, 4), ab[mixed])).clusters
    order = np.argsort(sizes)[::-1].copy()
    torch.testing.assert_close(found, wanted[order], atol=3e-3, rtol=0)


def test_the_regression_row_is_the_regression_networks_answer_in_eval_mode() -> None:
    torch.manual_seed(0)
    regressor = ColorRegressor(0.1).train()
    with_network = metrics.Anchors(metrics.fit_anchors(training_fields()).pca, torch.zeros(8, 2, 64, 64), regressor)
    gray = torch.rand(3, 1, 64, 64, generator=generator(0)) * 2 - 1
    found = with_network.outputs("regression", gray, torch.zeros(3, 2, 64, 64))
    assert regressor.training and not found.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(found[:, 0], regressor.eval()(gray))
    with pytest.raises(CheckpointError, match="no regression network"):
        metrics.Anchors(with_network.pca, with_network.clusters).outputs("regression", gray, torch.zeros(3, 2, 64, 64))


def test_anchors_come_back_from_their_tensors_even_in_half_precision(anchors: metrics.Anchors) -> None:
    truth = training_fields(5, seed=3).ab
    halved = {name: value.half().float() for name, value in anchors.tensors().items()}
    again = metrics.Anchors.from_tensors(halved)
    for row in ("mean field", "k-means 8", "PCA 5 oracle", "PCA 20 oracle"):
        np.testing.assert_allclose(anchor_row(again, row, truth), anchor_row(anchors, row, truth), atol=1e-2)
    gram = numbers(again.pca.components @ again.pca.components.T)
    np.testing.assert_allclose(gram, np.eye(20), atol=1e-5)
    with pytest.raises(CheckpointError, match="lack clusters, mean"):
        metrics.Anchors.from_tensors({name: halved[name] for name in ("components", "variances", "total_variance")})


def test_large_training_sets_are_thinned_evenly() -> None:
    asked: list[Tensor] = []

    class Watched(TensorFields):
        def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
            asked.append(indices)
            return super().batch(indices)

    source = training_fields(90)
    metrics.fit_anchors(Watched(source.gray, source.ab), largest=31)
    used = torch.cat(asked).unique()
    assert len(used) == 31 and used[0] == 0 and used[-1] == 89
    assert set(used.diff().tolist()) <= {2, 3, 4}


def test_too_few_images_for_twenty_components_are_refused() -> None:
    metrics.fit_anchors(training_fields(21))
    with pytest.raises(DataError, match="20 training images"):
        metrics.fit_anchors(training_fields(20))


# --- the table ---


class Fixed(Colorizer):
    """Says what it is told, for 64x64 pictures that carry their own number in the first pixel."""

    def __init__(self, outputs: Tensor, **extra: Any) -> None:
        torch.manual_seed(0)
        cvae = CVAE.build(CVAEConfig(latent=2, width=0.1))
        super().__init__(cvae, MDN.build(MDNConfig(inputs=cvae.feature_shape, latent=2, width=0.1)), **extra)
        self.outputs_, self.drawn = outputs, 0

    def predict(self, gray: Tensor, n: int | None = None) -> tuple[Tensor, Tensor]:
        fields = self.outputs_[gray[:, 0, 0, 0].long()]
        return fields[:, :n], torch.full(fields.shape[:2], 1 / fields.shape[1])[:, :n]

    def sample(self, gray: Tensor, n: int, noise: torch.Generator | None = None) -> Tensor:
        self.drawn += n
        return torch.rand(len(gray), n, 2, 64, 64, generator=noise)


def numbered(truth: Tensor) -> TensorFields:
    return TensorFields(torch.arange(len(truth)).float()[:, None, None, None].expand(-1, 1, 64, 64), truth)


@pytest.fixture(scope="module")
def table() -> tuple[list[metrics.Row], Tensor, Tensor, list[str], metrics.Anchors]:
    noise = generator(7)
    training = TensorFields(torch.zeros(24, 1, 64, 64), nn.functional.interpolate(torch.rand(24, 2, 5, 5, generator=noise), size=64) - 0.35)
    truth = nn.functional.interpolate(torch.rand(7, 2, 5, 5, generator=noise), size=64) - 0.35
    outputs = truth[:, None] + 0.1 * torch.randn(7, 10, 2, 64, 64, generator=noise) * torch.linspace(3, 1, 10).view(1, 10, 1, 1, 1)
    torch.manual_seed(0)
    anchors = metrics.fit_anchors(training, ColorRegressor(0.1))
    model = Fixed(outputs, regressor=anchors.regressor, anchors=anchors.tensors())
    groups = ["a", "a", "b", "c", "c", "c", "d"]
    return metrics.evaluate(model, numbered(truth), groups, batch=3), outputs, truth, groups, anchors


def test_the_table_has_the_rows_and_columns_of_the_design(table: Any) -> None:
    rows = table[0]
    assert [row["name"] for row in rows] == ["model", "gray", "mean field", "regression", "k-means 8", "PCA 5 oracle", "PCA 20 oracle"]
    for row in rows:
        assert {"eob@1", "eob@5", "eob@8", "eob_pooled@8", "variance@8", "deltaE@8", "chroma", "interval"} <= set(row)
        assert set(row["interval"]) == {"eob@1", "eob@8", "deltaE@8"}


def test_the_models_row_is_measured_on_its_first_eight_outputs(table: Any) -> None:
    rows, outputs, truth, _, _ = table
    found = np.sqrt(((numbers(outputs) - numbers(truth)[:, None]) ** 2).mean((2, 3, 4)))
    for k in (1, 5, 8):
        assert rows[0][f"eob@{k}"] == pytest.approx(found[:, :k].min(1).mean(), rel=1e-5)
    assert found.min(1).mean() < rows[0]["eob@8"] - 1e-3  # the ninth and tenth are better and do not count
    assert rows[0]["eob_pooled@8"] == pytest.approx(np.sqrt((found[:, :8].min(1) ** 2).mean()), rel=1e-5)
    assert rows[0]["variance@8"] == pytest.approx(numbers(outputs)[:, :8].var(1).mean(), rel=1e-5)
    lab = numbers(outputs)[:, :8] * 128
    pairs = [np.linalg.norm(lab[:, a] - lab[:, b], axis=1).mean() for a, b in itertools.combinations(range(8), 2)]
    assert rows[0]["deltaE@8"] == pytest.approx(np.mean(pairs), rel=1e-5)


def test_rows_without_variety_repeat_their_first_error(table: Any) -> None:
    for row in table[0][1:]:
        flat = row["name"] != "k-means 8"
        assert (row["eob@1"] == row["eob@5"] == row["eob@8"]) == flat
        assert (row["variance@8"] == 0 and row["deltaE@8"] == 0) == flat
        assert row["eob_pooled@8"] >= row["eob@8"]


def test_the_anchor_rows_of_the_table_are_the_anchors(table: Any) -> None:
    rows, _, truth, _, anchors = table
    by_name = {row["name"]: row for row in rows}
    gray = numbered(truth).gray.float()
    for name, row in by_name.items():
        if name != "model":
            expected = metrics.errors(anchors.outputs(name, gray, truth), truth)[:, :8].min(1).values.mean()
            assert row["eob@8"] == pytest.approx(float(expected), rel=2e-2)
    assert by_name["PCA 20 oracle"]["eob@1"] < by_name["PCA 5 oracle"]["eob@1"] < by_name["mean field"]["eob@1"] < by_name["gray"]["eob@1"]


def test_comparisons_with_the_anchors_are_paired(table: Any) -> None:
    rows, outputs, truth, groups, anchors = table
    own = metrics.errors(outputs, truth)
    regression = metrics.errors(anchors.outputs("regression", numbered(truth).gray.float(), truth), truth)[:, 0]
    clusters = metrics.errors(anchors.outputs("k-means 8", truth, truth), truth)
    assert rows[0]["ratio to regression"] == pytest.approx(metrics.bootstrap_ratio(own[:, 0], regression, groups), rel=1e-3)
    expected = metrics.bootstrap(own[:, :8].min(1).values - clusters.min(1).values, groups)
    assert rows[0]["below k-means 8"] == pytest.approx(expected, rel=1e-2, abs=1e-3)


def test_a_model_without_anchors_has_one_row() -> None:
    outputs, truth = random_outputs(size=64)
    rows = metrics.evaluate(Fixed(outputs), numbered(truth), ["a", "b", "c"])
    assert [row["name"] for row in rows] == ["model"]


@pytest.mark.parametrize("samples", [1, 4, 10, 15, 30])
def test_the_best_of_n_samples_looks_at_exactly_n(samples: int) -> None:
    outputs, truth = random_outputs(images=2, size=64)
    model = Fixed(outputs)
    rows = metrics.evaluate(model, numbered(truth), ["a", "b"], samples=samples, seed=4)
    assert model.drawn == samples
    assert 0 < rows[0][f"eob@{samples} (samples)"] < 2


def test_more_samples_come_closer() -> None:
    outputs, truth = random_outputs(images=2, size=64)
    few, many = (metrics.evaluate(Fixed(outputs), numbered(truth), ["a", "b"], samples=n, seed=4)[0][f"eob@{n} (samples)"] for n in (1, 40))
    assert many < few


# --- intervals ---


def test_with_one_image_a_person_the_bootstrap_has_the_textbook_width() -> None:
    values = torch.randn(400, generator=generator(0)).double() * 2 + 5
    low, high = metrics.bootstrap(values, [str(i) for i in range(400)], rounds=20000)
    error = float(values.std(correction=0)) / 20
    assert low == pytest.approx(float(values.mean()) - 1.96 * error, abs=0.06 * error)
    assert high == pytest.approx(float(values.mean()) + 1.96 * error, abs=0.06 * error)


def test_the_bootstrap_draws_persons_not_images() -> None:
    """Ten equal images of each of forty persons say no more than one of each."""
    means = torch.randn(40, generator=generator(1)).double()
    one = metrics.bootstrap(means, [str(i) for i in range(40)])
    ten = metrics.bootstrap(means.repeat_interleave(10), [str(i // 10) for i in range(400)])
    assert ten == pytest.approx(one, abs=1e-9)
    independent = metrics.bootstrap(means.repeat_interleave(10), [str(i) for i in range(400)])
    assert (independent[1] - independent[0]) < 0.4 * (ten[1] - ten[0])


def test_persons_with_many_images_weigh_more_as_in_a_mean_over_images() -> None:
    """Against drawing the images of persons drawn, by loops."""
    values, groups = [1.0, 2.0, 3.0, 10.0, 4.0], ["a", "a", "a", "b", "c"]
    rng = np.random.default_rng(5)
    means = []
    for _ in range(20000):
        drawn = [v for person in rng.choice(["a", "b", "c"], 3) for v, g in zip(values, groups) if g == person]
        means.append(sum(drawn) / len(drawn))
    found = metrics.bootstrap(torch.tensor(values), groups, rounds=20000)
    assert found == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    noise = generator(3)
    hits = 0
    for trial in range(200):
        person = torch.randn(60, generator=noise)
        values = (person[:, None] + 0.5 * torch.randn(60, 3, generator=noise)).flatten()
        low, high = metrics.bootstrap(values, [str(i // 3) for i in range(180)], rounds=300, seed=trial)
        hits += low <= 0 <= high
    assert 178 <= hits <= 200


def test_the_ratio_is_paired_so_that_what_both_share_cancels() -> None:
    groups = [str(i // 2) for i in range(100)]
    below = torch.rand(100, generator=generator(0)).double() + 0.1
    assert metrics.bootstrap_ratio(0.9 * below, below, groups) == pytest.approx((0.9, 0.9))
    low, high = metrics.bootstrap_ratio(0.9 * below + 0.01, below, groups)
    ratio = float((0.9 * below + 0.01).mean() / below.mean())
    assert low < ratio < high and high - low < 0.01


def test_the_bootstrap_is_repeatable_and_checks_its_groups() -> None:
    values = torch.rand(20, generator=generator(0))
    groups = [str(i) for i in range(20)]
    assert metrics.bootstrap(values, groups) == metrics.bootstrap(values, groups)
    assert metrics.bootstrap(values, groups, seed=1) != metrics.bootstrap(values, groups)
    with pytest.raises(DataError, match="20 values came with 19"):
        metrics.bootstrap(values, groups[:-1])


# --- portraits: the exact posterior is known ---

COUNT = 20


class Remembered(Portraits):
    """Draws each portrait once."""

    def posterior(self, index: int) -> Posterior:
        return _posterior(self.seed, int(index))

    def basis(self, index: int) -> Tensor:
        return _basis(self.seed, int(index))


@functools.cache
def _posterior(seed: int, index: int) -> Posterior:
    return Portraits(COUNT, seed).posterior(index)


@functools.cache
def _basis(seed: int, index: int) -> Tensor:
    return Portraits(COUNT, seed).basis(index)


@pytest.fixture(scope="module")
def portraits() -> Portraits:
    return Remembered(COUNT, seed=3)


Predictor = Callable[[Portraits, int], tuple[Tensor, Tensor]]


def scores(portraits: Portraits, predictor: Predictor) -> dict[str, float]:
    """Score what `predictor` shows of each portrait; shorter answers are filled up with weight 0 far from any mode."""
    outputs, weights = torch.full((COUNT, 7, 2, 64, 64), 0.9), torch.zeros(COUNT, 7)
    for i in range(COUNT):
        fields, share = predictor(portraits, i)
        outputs[i, : len(fields)], weights[i, : len(fields)] = fields, share.float()
    return metrics.portrait_scores(portraits, range(COUNT), outputs, weights)


def exact(portraits: Portraits, i: int) -> tuple[Tensor, Tensor]:
    posterior = portraits.posterior(i)
    return posterior.ab, posterior.probabilities


def heaviest(portraits: Portraits, i: int) -> tuple[Tensor, Tensor]:
    posterior = portraits.posterior(i)
    return posterior.ab[posterior.probabilities.argmax()][None], torch.ones(1)


def cue_blind(portraits: Portraits, i: int) -> tuple[Tensor, Tensor]:
    """Right colors, weights that know nothing of this portrait; what it gives to other portraits' modes hits nothing here."""
    posterior = portraits.posterior(i)
    wasted = 1 - posterior.blind.sum()
    return torch.cat([posterior.ab, torch.full((1, 2, 64, 64), 0.9)]), torch.cat([posterior.blind, wasted[None]])


def test_the_exact_posterior_gets_full_marks(portraits: Portraits) -> None:
    found = scores(portraits, exact)
    assert found["recall"] == pytest.approx(1, abs=1e-6) and found["precision"] == pytest.approx(1, abs=1e-6)
    assert abs(found["calibration"]) < 1e-6
    assert found["cue-blind calibration"] > 0.05


def test_the_order_of_the_outputs_does_not_matter_to_the_scores(portraits: Portraits) -> None:
    found = scores(portraits, lambda p, i: tuple(part.flip(0) for part in exact(p, i)))  # type: ignore[arg-type, return-value]
    assert found == pytest.approx(scores(portraits, exact), abs=1e-7)


def test_showing_only_the_heaviest_mode_recalls_its_probability(portraits: Portraits) -> None:
    found = scores(portraits, heaviest)
    largest = np.mean([float(portraits.posterior(i).probabilities.max()) for i in range(COUNT)])
    assert largest < 0.9
    assert found["recall"] == pytest.approx(largest, abs=1e-9)
    assert found["precision"] == pytest.approx(1)
    assert found["calibration"] == pytest.approx(1 - largest, abs=1e-6)


def test_a_predictor_that_ignores_the_cues_gets_the_value_written_beside_it(portraits: Portraits) -> None:
    found = scores(portraits, cue_blind)
    assert found["calibration"] == pytest.approx(found["cue-blind calibration"], abs=1e-6)
    expected = []
    for i in range(COUNT):
        posterior = portraits.posterior(i)
        p, q = posterior.probabilities.numpy(), posterior.blind.numpy()
        expected.append(0.5 * (np.abs(p - q).sum() + 1 - q.sum()))
    assert found["cue-blind calibration"] == pytest.approx(np.mean(expected), abs=1e-9)


def test_wrong_colors_have_no_precision_and_are_all_off(portraits: Portraits) -> None:
    """a and b change places with a sign: no region keeps a color that any mode allows."""

    def turned(p: Portraits, i: int) -> tuple[Tensor, Tensor]:
        fields, share = exact(p, i)
        return -fields, share

    found = scores(portraits, turned)
    assert (found["recall"], found["precision"], found["calibration"]) == pytest.approx((0, 0, 1))


def test_one_region_off_by_more_than_ten_lab_units_is_a_miss(portraits: Portraits) -> None:
    posterior, basis = portraits.posterior(0), portraits.basis(0)
    for distance, hit in ((9.9, True), (10.1, False)):
        for region in range(len(basis)):
            moved = posterior.ab.clone()
            moved += torch.einsum("hw,c->chw", basis[region], torch.tensor([0.6, -0.8]) * distance / 128)
            hits = metrics.mode_hits(basis, posterior.region_colors, moved)
            assert bool(hits.diag().all()) == hit and (hit or not hits.diag().any())


def test_no_field_hits_two_modes(portraits: Portraits) -> None:
    for i in range(COUNT):
        hits = metrics.mode_hits(portraits.basis(i), portraits.posterior(i).region_colors, portraits.posterior(i).ab)
        assert torch.equal(hits, torch.eye(len(hits), dtype=torch.bool))


def test_hits_follow_the_least_squares_projection_of_numpy(portraits: Portraits) -> None:
    basis, posterior = portraits.basis(1), portraits.posterior(1)
    fields = portraits.sample(1, 6, generator(0)) + 0.06 * torch.randn(6, 2, 64, 64, generator=generator(1)) * torch.arange(6).view(
        6, 1, 1, 1
    )
    fields[4:] += 0.05
    rows = numbers(basis).reshape(len(basis), -1).T
    hits = metrics.mode_hits(basis, posterior.region_colors, fields)
    for k, field in enumerate(numbers(fields) * 128):
        colors = np.linalg.lstsq(rows, field.reshape(2, -1).T, rcond=None)[0]
        for m, wanted in enumerate(numbers(posterior.region_colors)):
            assert bool(hits[k, m]) == bool((np.linalg.norm(colors - wanted, axis=1) <= 10).all())
    assert hits.any() and not hits.any(1).all()


def test_two_outputs_on_one_mode_add_their_weights_and_count_once_for_recall(portraits: Portraits) -> None:
    i = next(i for i in range(COUNT) if len(portraits.posterior(i).probabilities) >= 2)
    posterior = portraits.posterior(i)
    p = posterior.probabilities
    outputs = torch.stack([posterior.ab[0], posterior.ab[0], torch.full((2, 64, 64), 0.9)])[None]
    found = metrics.portrait_scores(portraits, [i], outputs, torch.tensor([[0.4, 0.2, 0.2]]))
    assert found["recall"] == pytest.approx(float(p[0]))
    assert found["precision"] == pytest.approx(0.75)
    expected = 0.5 * (abs(float(p[0]) - 0.75) + float(p[1:].sum()) + 0.25)
    assert found["calibration"] == pytest.approx(expected, abs=1e-6)


def test_the_oracle_gap_is_zero_for_the_oracle_and_one_for_the_regression_network(portraits: Portraits) -> None:
    indices = list(range(10))
    _, truth = portraits.batch(indices)
    outputs = torch.full((10, 6, 2, 64, 64), 5.0)
    for i in indices:
        modes = portraits.posterior(i).ab
        outputs[i, : len(modes)] = modes
    found = metrics.oracle_gap(portraits, indices, metrics.errors(outputs, truth), truth, regression_eob=0.2)
    nearest = [min(math.sqrt(float(((mode - truth[i]) ** 2).mean())) for mode in portraits.posterior(i).ab) for i in indices]
    assert found["oracle eob"] == pytest.approx(np.mean(nearest), rel=1e-5)
    assert abs(found["oracle gap"]) < 1e-6
    assert found["oracle eob"] < 0.02
    as_regression = metrics.oracle_gap(portraits, indices, torch.full((10, 1), 0.2), truth, regression_eob=0.2)
    assert as_regression["oracle gap"] == pytest.approx(1)
    half = torch.full((10, 3), (0.2 + found["oracle eob"]) / 2)
    assert metrics.oracle_gap(portraits, indices, half, truth, 0.2)["oracle gap"] == pytest.approx(0.5, abs=1e-5)


# --- what is kept of every image, and errors by label ---


def test_each_keeps_the_errors_of_every_image(table: Any) -> None:
    rows, outputs, truth, groups, anchors = table
    model = Fixed(outputs, regressor=anchors.regressor, anchors=anchors.tensors())
    again = metrics.evaluate(model, numbered(truth), groups, batch=3, each=True)
    found = np.sqrt(((numbers(outputs) - numbers(truth)[:, None]) ** 2).mean((2, 3, 4)))
    for k in (1, 8):
        np.testing.assert_allclose(again[0]["each"][f"eob@{k}"], found[:, :k].min(1), atol=1e-5)
    for with_each, row in zip(again, rows):
        kept = with_each.pop("each")
        assert with_each == row and np.mean(kept["eob@8"]) == pytest.approx(row["eob@8"], abs=1e-5)


def test_errors_by_label_are_means_with_their_images_and_people() -> None:
    values = torch.rand(60, generator=generator(0))
    groups = [str(i // 2) for i in range(60)]
    labels = ["dark" if i < 10 else "light" if i < 35 else "middle" for i in range(60)]
    rows = metrics.by_label({"error": values}, labels, groups)
    assert [row["label"] for row in rows] == ["dark", "light", "middle"]
    assert [(row["images"], row["people"]) for row in rows] == [(10, 5), (25, 13), (25, 13)]
    assert [row["error"] for row in rows] == pytest.approx(
        [float(values[:10].mean()), float(values[10:35].mean()), float(values[35:].mean())]
    )
    assert rows[0]["interval"]["error"] is None  # five people: nothing to draw from
    assert rows[1]["interval"]["error"] == metrics.bootstrap(values[10:35], groups[10:35])
    for wrong in (labels[:-1], [*labels, "dark"]):
        with pytest.raises(DataError, match="labels came with 60 group names"):
            metrics.by_label({"error": values}, wrong, groups)
    with pytest.raises(DataError, match="59 values of `error`"):
        metrics.by_label({"error": values[1:]}, labels, groups)


def test_the_difference_of_two_parts_is_taken_on_the_same_draw_of_persons() -> None:
    """Against drawing persons and then their images, by loops; persons 0 to 4 have images in both parts."""
    noise = generator(6)
    groups = [str(i % 20) for i in range(60)]
    values = torch.rand(60, generator=noise)
    first, second = torch.arange(60) < 25, torch.arange(60) >= 40
    rng = np.random.default_rng(1)
    found = []
    for _ in range(4000):
        drawn = [i for person in rng.integers(0, 20, 20) for i in range(60) if i % 20 == person]
        parts = [[float(values[i]) for i in drawn if part[i]] for part in (first, second)]
        found.append(np.mean(parts[0]) - np.mean(parts[1]))
    bounds = metrics.bootstrap_difference(values, first, second, groups, rounds=20000)
    assert bounds == pytest.approx(np.quantile(found, [0.025, 0.975]), abs=0.01)


def test_a_shift_shared_by_both_parts_cancels() -> None:
    groups = [str(i % 30) for i in range(60)]
    person = torch.randn(30, generator=generator(0)).double()
    values = torch.cat([person, person + 0.25])
    low, high = metrics.bootstrap_difference(values, torch.arange(60) >= 30, torch.arange(60) < 30, groups)
    assert (low, high) == pytest.approx((0.25, 0.25))


def test_a_part_that_some_draws_lack_is_refused() -> None:
    values, groups = torch.rand(12), [str(i) for i in range(12)]
    for count in (0, 1, 2):
        with pytest.raises(DataError, match="no image of a part"):
            metrics.bootstrap_difference(values, torch.arange(12) < count, torch.arange(12) >= count, groups)


# --- expected calibration error ---


def test_calibration_error_of_four_predictions_by_hand() -> None:
    """Two bins: 0.2 and 0.4 hit once, 0.6 and 1.0 hit twice. 1/2 |0.3 - 0.5| + 1/2 |0.8 - 1| = 0.2."""
    weights, hits = torch.tensor([0.2, 0.4, 0.6, 1.0]), torch.tensor([False, True, True, True])
    assert metrics.expected_calibration_error(weights, hits, bins=2) == pytest.approx(0.2)
    mean, share, count = metrics.reliability(weights, hits, bins=2)
    assert (mean.tolist(), share.tolist(), count.tolist()) == (pytest.approx([0.3, 0.8]), [0.5, 1.0], [2, 2])


def test_bins_are_closed_above_and_the_first_holds_zero() -> None:
    weights = torch.tensor([0.0, 0.1, 0.100001, 0.5, 0.9, 0.95, 1.0], dtype=torch.float64)
    _, _, count = metrics.reliability(weights, torch.zeros(7))
    assert count.tolist() == [2, 1, 0, 0, 1, 0, 0, 0, 1, 2]


@pytest.mark.parametrize("bins", [1, 2, 7, 10, 100])
def test_calibration_error_by_loops(bins: int) -> None:
    noise = generator(bins)
    weights, hits = torch.rand(40, 8, generator=noise), torch.rand(40, 8, generator=noise) < 0.3
    total = 0.0
    for bin_ in range(bins):
        inside = [
            (float(w), float(h))
            for w, h in zip(weights.double().flatten(), hits.flatten())
            if bin_ / bins < w <= (bin_ + 1) / bins or (bin_ == 0 and w == 0)
        ]
        if inside:
            said, happened = zip(*inside)
            total += len(inside) / 320 * abs(np.mean(said) - np.mean(happened))
    assert metrics.expected_calibration_error(weights, hits, bins) == pytest.approx(total, abs=1e-9)


def test_a_right_probability_has_no_calibration_error_and_a_boast_has_all_of_it() -> None:
    hits = torch.arange(1000) % 4 == 0
    assert metrics.expected_calibration_error(torch.full((1000,), 0.25), hits) == pytest.approx(0)
    assert metrics.expected_calibration_error(torch.ones(1000), hits) == pytest.approx(0.75)
    assert metrics.expected_calibration_error(torch.zeros(1000), hits) == pytest.approx(0.25)


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"`hits` has shape \(3,\)"):
        metrics.expected_calibration_error(torch.rand(4), torch.zeros(3))
    for wrong in (torch.tensor([0.5, 1.2]), torch.tensor([-0.1, 0.3]), torch.tensor([float("nan"), 0.3]), torch.zeros(0)):
        with pytest.raises(DataError, match="0 to 1"):
            metrics.expected_calibration_error(wrong, torch.zeros(len(wrong)))


def test_a_cue_blind_predictor_has_hardly_any_calibration_error_and_a_large_tv(portraits: Portraits) -> None:
    """It lists every wall color with its share among all portraits: right on average, wrong for the portrait at hand."""
    shares: dict[str, float] = {}
    for cues, colors in WALL_ODDS.items():
        for color, p in colors.items():
            shares[color] = shares.get(color, 0.0) + p * CUES["wall"][cues[0]] * CUES["glasses"][cues[1]]
    many = Portraits(400, seed=5)
    drawn = [
        next(name for name in shares if f"{name} wall" in many.posterior(i).names[mode]) for i, mode in enumerate(many.modes(range(400)))
    ]
    hits = torch.tensor([[color == name for color in shares] for name in drawn])
    weights = torch.tensor([list(shares.values())]).expand(400, -1)
    assert weights[0].sum().item() == pytest.approx(1)
    assert metrics.expected_calibration_error(weights, hits) < 0.02
    assert scores(portraits, cue_blind)["calibration"] > 0.8


def test_chroma_is_the_mean_distance_from_gray() -> None:
    outputs = torch.zeros(2, 3, 2, 4, 4)
    outputs[0, :, 0], outputs[0, :, 1] = 3 / 128, 4 / 128
    outputs[1, 0] = torch.tensor([6.0, 8.0])[:, None, None] / 128
    torch.testing.assert_close(metrics.chroma(outputs), torch.tensor([5.0, 10 / 3]))
