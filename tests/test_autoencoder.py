"""Principal components against NumPy's full decomposition, and k-means against what defines it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from divcolor_lib.autoencoder import PCA, fit_pca, kmeans
from divcolor_lib.errors import ShapeError

EXAMPLES = settings(max_examples=30, deadline=None, derandomize=True)


def rows_of(seed: int = 0, count: int = 120, length: int = 40, offset: float = 2.0) -> Tensor:
    """Correlated rows with clearly different variances along rotated axes, away from the origin."""
    generator = torch.Generator().manual_seed(seed)
    scales = 3.0 * 0.75 ** torch.arange(length)
    rotation = torch.linalg.qr(torch.randn(length, length, generator=generator)).Q
    return torch.randn(count, length, generator=generator) * scales @ rotation + offset * torch.randn(length, generator=generator)


def full_svd(rows: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, directions and variances by NumPy in float64."""
    values = rows.double().numpy()
    mean = values.mean(0)
    _, singular, directions = np.linalg.svd(values - mean, full_matrices=False)
    return mean, directions, singular**2 / (len(values) - 1)


# --- principal components ---


@pytest.mark.parametrize(("count", "length", "components"), [(120, 40, 5), (120, 40, 40), (30, 100, 12), (6, 50, 5), (50, 1, 1)])
def test_the_components_are_those_of_the_full_decomposition(count: int, length: int, components: int) -> None:
    rows = rows_of(count=count, length=length)
    mean, directions, variances = full_svd(rows)
    pca = fit_pca(rows, components)
    assert pca.components.shape == (components, length) and pca.variances.shape == (components,)
    np.testing.assert_allclose(pca.mean, mean, atol=1e-5)
    np.testing.assert_allclose(pca.variances, variances[:components], rtol=1e-3, atol=1e-7)
    cosines = np.abs((pca.components.double().numpy() * directions[:components]).sum(1))
    assert cosines[variances[:components] > 1e-6 * variances[0]].min() > 0.999
    assert pca.total_variance == pytest.approx(rows.double().var(0).sum().item(), rel=1e-5)


def test_the_components_are_right_where_the_variances_descend_slowly() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(300, 150, generator=generator) / (1 + torch.arange(150)).sqrt()
    _, directions, variances = full_svd(rows)
    pca = fit_pca(rows, 5)
    np.testing.assert_allclose(pca.variances, variances[:5], rtol=1e-3)
    assert np.abs((pca.components.double().numpy() * directions[:5]).sum(1)).min() > 0.99


def test_the_subspace_is_right_even_where_two_variances_are_equal() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.linalg.qr(torch.randn(80, 4, generator=generator)).Q  # equal variances: the axes are free, their span is not
    rows = scores @ torch.linalg.qr(torch.randn(30, 4, generator=generator)).Q.T
    pca = fit_pca(rows, 4)
    _, directions, _ = full_svd(rows)
    ours, theirs = pca.components.double().numpy(), directions[:4]
    np.testing.assert_allclose(ours.T @ ours, theirs.T @ theirs, atol=1e-4)


def test_the_components_are_orthonormal_and_their_variances_descend() -> None:
    pca = fit_pca(rows_of(), 12)
    torch.testing.assert_close(pca.components @ pca.components.T, torch.eye(12), rtol=0, atol=1e-5)
    assert bool((pca.variances.diff() <= 0).all())


def test_the_largest_entry_of_every_component_is_positive() -> None:
    for seed in range(3):
        components = fit_pca(rows_of(seed), 12).components
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        assert bool((largest > 0).all())


def test_the_mirror_image_of_the_data_has_the_same_components() -> None:
    rows = rows_of()
    torch.testing.assert_close(fit_pca(-rows, 6).components, fit_pca(rows, 6).components, rtol=0, atol=1e-3)


def test_scores_are_centered_uncorrelated_and_have_the_variances() -> None:
    rows = rows_of()
    pca = fit_pca(rows, 6)
    scores = pca.scores(rows).double()
    torch.testing.assert_close(scores.mean(0), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.cov(scores.T), torch.diag(pca.variances.double()), rtol=1e-3, atol=1e-3)


def test_a_projection_keeps_the_first_scores_and_leaves_out_the_rest() -> None:
    rows = rows_of()
    pca = fit_pca(rows, 6)
    for kept in (0, 1, 4, 6):
        expected = pca.scores(rows)
        expected[:, kept:] = 0
        projected = pca.project(rows, kept)
        torch.testing.assert_close(pca.scores(projected), expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(pca.project(projected, kept), projected, rtol=0, atol=1e-4)
    torch.testing.assert_close(pca.project(rows), pca.project(rows, 6))
    torch.testing.assert_close(pca.project(rows, 0), pca.mean.expand_as(rows))


def test_what_a_projection_leaves_out_is_the_variance_that_is_missing() -> None:
    rows = rows_of()
    pca = fit_pca(rows, 6)
    left = (rows - pca.project(rows)).double().square().sum().item() / (len(rows) - 1)
    assert left == pytest.approx(pca.total_variance - pca.variances.sum().item(), rel=1e-3)
    everything = fit_pca(rows, 40)
    torch.testing.assert_close(everything.project(rows), rows, rtol=0, atol=1e-4)


def test_a_projection_works_on_rows_that_were_not_fitted() -> None:
    pca = PCA(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([1.0]), 2.0)
    torch.testing.assert_close(pca.project(torch.tensor([[5.0, 6.0, 7.0]])), torch.tensor([[1.0, 6.0, 1.0]]))
    torch.testing.assert_close(pca.scores(torch.tensor([[5.0, 6.0, 7.0]])), torch.tensor([[5.0]]))


def test_a_fit_repeats_itself_takes_whole_numbers_and_leaves_the_random_state_alone() -> None:
    rows = rows_of()
    state = torch.get_rng_state()
    first, second, other = fit_pca(rows, 3), fit_pca(rows, 3), fit_pca(rows, 3, seed=9)
    assert torch.equal(first.components, second.components) and torch.equal(first.variances, second.variances)
    torch.testing.assert_close(other.components, first.components, rtol=0, atol=1e-3)
    assert torch.equal(torch.get_rng_state(), state)
    whole = (10 * rows).round().to(torch.int64)
    torch.testing.assert_close(fit_pca(whole, 3).variances, fit_pca(whole.float(), 3).variances)


def test_rows_that_are_all_the_same_have_no_variance() -> None:
    pca = fit_pca(torch.ones(10, 6), 2)
    assert float(pca.variances.abs().max()) < 1e-8 and pca.total_variance < 1e-8
    assert bool(pca.components.isfinite().all())
    torch.testing.assert_close(pca.project(torch.ones(10, 6)), torch.ones(10, 6))


@pytest.mark.parametrize(("count", "length", "components"), [(5, 10, 5), (10, 4, 5), (10, 4, 0), (10, 4, -1)])
def test_components_that_the_rows_cannot_give_are_refused(count: int, length: int, components: int) -> None:
    with pytest.raises(ShapeError, match=rf"{components} components cannot be fitted to {count} rows of length {length}"):
        fit_pca(torch.zeros(count, length), components)


def test_fields_that_were_not_flattened_are_refused() -> None:
    with pytest.raises(ShapeError, match="`rows` has shape"):
        fit_pca(torch.zeros(10, 2, 4, 4), 2)
    with pytest.raises(ShapeError, match="`rows` has shape"):
        kmeans(torch.zeros(10, 2, 4, 4), 2)


# --- k-means ---


def distances(rows: Tensor, centers: Tensor) -> np.ndarray:
    """Squared distances `(N, K)` by NumPy in float64."""
    return ((rows.double().numpy()[:, None] - centers.double().numpy()[None]) ** 2).sum(2)


def inertia(rows: Tensor, centers: Tensor) -> float:
    return float(distances(rows, centers).min(1).sum())


def lloyd(rows: Tensor, clusters: int, seed: int) -> float:
    """The inertia of plain k-means from random rows, by NumPy."""
    values = rows.double().numpy()
    centers = values[np.random.default_rng(seed).choice(len(values), clusters, replace=False)]
    for _ in range(50):
        label = ((values[:, None] - centers[None]) ** 2).sum(2).argmin(1)
        centers = np.stack([values[label == k].mean(0) if (label == k).any() else centers[k] for k in range(clusters)])
    return float(((values[:, None] - centers[None]) ** 2).sum(2).min(1).sum())


def blobs(seed: int = 0, clusters: int = 4, each: int = 30, length: int = 3, spread: float = 0.3) -> tuple[Tensor, Tensor]:
    """Rows around well separated centers, and the true mean of each blob."""
    generator = torch.Generator().manual_seed(seed)
    corners = 5.0 * torch.eye(length + 1)[:clusters, :length] + torch.arange(clusters)[:, None]
    rows = corners.repeat_interleave(each, 0) + spread * torch.randn(clusters * each, length, generator=generator)
    means = rows.unflatten(0, (clusters, each)).mean(1)
    return rows[torch.randperm(len(rows), generator=generator)], means


def in_order(centers: Tensor) -> Tensor:
    return torch.tensor(sorted(centers.tolist()))


@pytest.mark.parametrize("seed", range(5))
def test_separated_blobs_are_found_exactly(seed: int) -> None:
    rows, means = blobs(seed)
    torch.testing.assert_close(in_order(kmeans(rows, 4, seed=seed)), in_order(means), rtol=0, atol=1e-5)


@EXAMPLES
@given(seed=st.integers(0, 10_000), clusters=st.integers(1, 8))
def test_every_center_is_the_mean_of_the_rows_nearest_to_it(seed: int, clusters: int) -> None:
    rows = torch.randn(60, 2, generator=torch.Generator().manual_seed(seed))
    centers = kmeans(rows, clusters, seed=seed, rounds=500)
    assert centers.shape == (clusters, 2)
    label = distances(rows, centers).argmin(1)
    for k in range(clusters):
        np.testing.assert_allclose(rows[label == k].double().mean(0), centers[k], atol=1e-5)


def test_the_clusters_are_tighter_than_those_of_random_starts() -> None:
    rows, means = blobs(clusters=8, length=7)
    ours = [inertia(rows, kmeans(rows, 8, seed=seed)) for seed in range(20)]
    random_starts = [lloyd(rows, 8, seed) for seed in range(20)]
    assert np.mean(ours) < 0.7 * np.mean(random_starts)
    assert min(ours) == pytest.approx(inertia(rows, means), rel=1e-4)
    assert min(ours) <= min(random_starts) * (1 + 1e-4)


def test_more_rounds_never_make_the_clusters_looser() -> None:
    rows = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    found = [inertia(rows, kmeans(rows, 6, seed=1, rounds=rounds)) for rounds in range(12)]
    assert all(later <= earlier + 1e-4 for earlier, later in pairwise(found))
    assert found[-1] < found[0]


def test_one_cluster_is_the_mean_and_as_many_clusters_as_rows_are_the_rows() -> None:
    rows = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(kmeans(rows, 1), rows.mean(0, keepdim=True))
    torch.testing.assert_close(in_order(kmeans(rows, 9)), in_order(rows))


def test_without_a_round_the_start_is_made_of_different_rows() -> None:
    rows = torch.cat([torch.zeros(500, 2), torch.tensor([[3.0, 0.0], [0.0, 3.0]])])
    start = kmeans(rows, 3, rounds=0)
    torch.testing.assert_close(in_order(start), torch.tensor([[0.0, 0.0], [0.0, 3.0], [3.0, 0.0]]))


def test_an_empty_cluster_takes_over_the_row_farthest_from_its_center() -> None:
    rows = torch.cat([torch.zeros(20, 1), torch.ones(20, 1)])  # two different rows for four clusters: two must be empty
    centers = kmeans(rows, 4)
    assert centers.shape == (4, 1) and bool(centers.isfinite().all())
    assert inertia(rows, centers) == pytest.approx(0, abs=1e-9)
    assert set(centers.flatten().tolist()) == {0.0, 1.0}


def test_a_cluster_that_loses_its_rows_on_the_way_is_put_to_use_again() -> None:
    hits = 0
    for seed in range(60):
        rows = torch.randn(12, 2, generator=torch.Generator().manual_seed(seed)).mul(2).round()
        centers = kmeans(rows, 7, seed=seed, rounds=200)
        distinct = len(rows.unique(dim=0))
        label = distances(rows, centers).argmin(1)
        hits += distinct < 12
        assert bool(centers.isfinite().all())
        assert len(set(label.tolist())) == min(7, distinct), f"seed {seed}"
    assert hits > 10, "the example needs repeated rows"


def test_clusters_do_not_depend_on_where_the_origin_lies() -> None:
    rows, means = blobs(spread=0.02)
    rows, means = 0.05 * rows, 0.05 * means
    for offset in (0.0, 10.0, 1000.0):
        torch.testing.assert_close(in_order(kmeans(rows + offset, 4)) - offset, in_order(means), rtol=0, atol=2e-6 * max(1.0, offset))


def test_clusters_repeat_themselves_and_leave_the_random_state_and_the_rows_alone() -> None:
    rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    state, before = torch.get_rng_state(), rows.clone()
    first = kmeans(rows, 5, seed=3)
    assert torch.equal(first, kmeans(rows, 5, seed=3))
    assert any(not torch.equal(kmeans(rows, 5, seed=seed, rounds=0), kmeans(rows, 5, seed=3, rounds=0)) for seed in range(4, 8))
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(rows, before)
    assert kmeans(torch.arange(10)[:, None], 2).dtype == torch.float32


@pytest.mark.parametrize("clusters", [0, -1, 6])
def test_clusters_that_the_rows_cannot_give_are_refused(clusters: int) -> None:
    with pytest.raises(ShapeError, match=rf"{clusters} clusters cannot be found in 5 rows"):
        kmeans(torch.zeros(5, 2), clusters)


@pytest.mark.parametrize("fit", [lambda rows: fit_pca(rows, 2), lambda rows: kmeans(rows, 2)])
def test_a_row_that_is_not_a_number_is_named_before_it_spreads(fit: object) -> None:
    rows = rows_of(count=20, length=5)
    rows[3, 2] = float("nan")
    with pytest.raises(ShapeError, match="`rows` holds 1 of 100 values"):
        fit(rows)  # type: ignore[operator]
