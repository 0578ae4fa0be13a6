"""Bins and weights against a search that compares each color with each bin, and against NumPy and SciPy written out."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.color import rgb2lab
from torch import Tensor

from divcolor_lib import bins as module
from divcolor_lib.bins import (
    Bins,
    WeightTable,
    gamut_bins,
    inverse_weights,
    prior,
    published_bins,
    published_prior,
    smooth,
    soft_encode,
    zhang_weights,
)
from divcolor_lib.errors import ConfigError, DataError, ShapeError
from divcolor_lib.lab import split

CROSS = [(-10, 0), (0, -10), (0, 0), (0, 10), (10, 0)]
HOLES = [(-60, 20), (-10, -30), (-10, 40), (0, 0), (30, -50), (30, 10), (80, 70)]


def plain_search(ab: Tensor, centers: Tensor) -> NDArray[np.int64]:
    """The definition in NumPy: float32 squared distances to all bins, the first of the smallest."""
    points = np.moveaxis(ab.numpy(), 1, -1).reshape(-1, 2).astype(np.float32)
    chunks = np.array_split(points, 1 + len(points) // 4096)
    found = [((chunk[:, None] - centers.numpy()) ** 2).sum(axis=-1).argmin(axis=-1) for chunk in chunks]
    return np.concatenate(found).reshape(ab.shape[0], *ab.shape[2:])


def photographs(count: int = 4, size: int = 32, seed: int = 0) -> Tensor:
    """uint8 sRGB that is anywhere in the color cube."""
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def awkward_values(grid: int) -> Tensor:
    """Values on every edge between bins and cells, and the floats just below and above."""
    edges = np.arange(-135, 135, 0.5, dtype=np.float32)
    edges = edges[edges % (grid / 2) == 0]
    return torch.from_numpy(np.concatenate([np.nextafter(edges, np.float32(side)) for side in (-np.inf, np.inf)] + [edges]))


@pytest.fixture(scope="module")
def bins() -> Bins:
    return gamut_bins()


@pytest.fixture(scope="module", params=["gamut", "gamut of 7", "gamut of 16", "cross", "holes", "one"])
def any_bins(request: pytest.FixtureRequest) -> Bins:
    made = {"cross": CROSS, "holes": HOLES, "one": [(20, -30)]}
    if request.param in made:
        return Bins(np.array(made[request.param]))
    return gamut_bins(int(request.param.removeprefix("gamut of ")) if " " in request.param else 10)


# ---- the bins of the gamut


def test_the_bins_are_those_that_some_srgb_color_is_nearest_to(bins: Bins) -> None:
    # Every fourth color, from an independent conversion, snapped by rounding: a subset that misses hardly any bin.
    level = np.append(np.arange(0, 255, 4), 255)
    cube = np.stack(np.meshgrid(level, level, level, indexing="ij"), axis=-1).reshape(1, -1, 3) / 255
    seen = {tuple(point) for point in np.unique(np.round(rgb2lab(cube)[0, :, 1:] / 10), axis=0) * 10}
    mine = {tuple(point) for point in bins.centers.tolist()}
    assert seen <= mine and len(mine - seen) <= 3


def test_every_color_of_a_photograph_is_within_half_a_bin_of_its_bin(bins: Bins) -> None:
    _, ab = split(photographs(16, 64))
    distance = (ab * 128).movedim(1, -1) - bins.centers[bins.index(ab * 128)]
    assert distance.abs().max() <= 5


def test_the_extreme_colors_of_the_cube_have_their_own_bin(bins: Bins) -> None:
    corners = torch.tensor([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255], [128, 128, 128]]])
    _, ab = split(corners.to(torch.uint8)[None])
    found = bins.centers[bins.index(ab * 128)][0, 0].tolist()
    assert found == [[80, 70], [-90, 80], [80, -110], [-20, 90], [100, -60], [-50, -10], [0, 0]]


def test_a_coarser_grid_has_fewer_bins_by_about_the_area_of_one() -> None:
    assert 0.85 * 1.6**2 < gamut_bins(10).count / gamut_bins(16).count < 1.6**2


def test_the_bins_are_computed_once() -> None:
    assert gamut_bins() is gamut_bins()


def test_bins_are_sorted_by_a_and_then_by_b(any_bins: Bins) -> None:
    pairs = any_bins.centers.tolist()
    assert pairs == sorted(pairs) and len({tuple(pair) for pair in pairs}) == any_bins.count == len(any_bins.centers)
    assert str(any_bins.count) in repr(any_bins)


@pytest.mark.parametrize("grid", [0, -10, 65, 2.5, "10"])
def test_a_grid_that_cannot_be_used_is_refused(grid: Any) -> None:
    with pytest.raises(ConfigError, match="grid"):
        gamut_bins(grid)


@pytest.mark.parametrize(
    "centers, found",
    [
        (np.zeros((0, 2)), "shape"),
        (np.zeros((2, 313)), "shape"),
        (np.zeros(4), "shape"),
        (np.array([[0.0, 5.0]]), "multiples"),
        (np.array([[0.0, np.nan]]), "multiples"),
        (np.array([[0.0, 200.0]]), "multiples"),
        (np.array([[10.0, 0.0], [0.0, 0.0]]), "sorted"),
        (np.array([[0.0, 10.0], [0.0, 0.0]]), "sorted"),
        (np.array([[0.0, 0.0], [0.0, 0.0]]), "sorted"),
    ],
)
def test_centers_that_are_no_grid_are_refused(centers: NDArray[Any], found: str) -> None:
    with pytest.raises(DataError, match=found):
        Bins(centers)


# ---- the table is exact


def test_the_table_equals_the_plain_search_on_random_colors(any_bins: Bins) -> None:
    ab = torch.rand(2, 2, 64, 64, generator=torch.Generator().manual_seed(1)) * 300 - 150
    assert np.array_equal(any_bins.index(ab).numpy(), plain_search(ab, any_bins.centers))


def test_the_table_equals_the_plain_search_on_photographs(any_bins: Bins) -> None:
    _, ab = split(photographs(2))
    assert np.array_equal(any_bins.index(ab * 128).numpy(), plain_search(ab * 128, any_bins.centers))


def test_the_table_equals_the_plain_search_on_every_edge_and_beside_it(any_bins: Bins) -> None:
    values = awkward_values(any_bins.grid)
    values = torch.cat([values, torch.tensor([0.0, -0.0, 1e-30, -1e-30])])
    ab = torch.stack(torch.meshgrid(values, values, indexing="ij"))[None]
    assert np.array_equal(any_bins.index(ab).numpy(), plain_search(ab, any_bins.centers))


@pytest.mark.parametrize("swap", [False, True])
def test_the_table_equals_the_plain_search_beside_an_edge_for_any_other_coordinate(swap: bool, any_bins: Bins) -> None:
    # One float beside an edge two distances differ so little that adding the other coordinate can make them equal.
    values = awkward_values(any_bins.grid)
    others = torch.rand(len(values), 200, generator=torch.Generator().manual_seed(3)) * 200 - 100
    pair = [values[:, None].expand_as(others), others]
    ab = torch.stack(pair[::-1] if swap else pair)[None]
    assert np.array_equal(any_bins.index(ab).numpy(), plain_search(ab, any_bins.centers))


def test_the_table_equals_the_plain_search_on_whole_numbers(any_bins: Bins) -> None:
    values = torch.arange(-130.0, 131.0)
    ab = torch.stack(torch.meshgrid(values, values, indexing="ij"))[None]
    assert np.array_equal(any_bins.index(ab).numpy(), plain_search(ab, any_bins.centers))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-12, 12), st.integers(-12, 12)), min_size=1, max_size=30, unique=True), st.integers(0, 2**32 - 1))
def test_the_table_equals_the_plain_search_for_any_set_of_bins(steps: list[tuple[int, int]], seed: int) -> None:
    any_set = Bins(np.array(sorted(steps)) * 10)
    ab = torch.rand(1, 2, 24, 24, generator=torch.Generator().manual_seed(seed)) * 280 - 140
    # Half of the colors lie on a half or whole unit, where ties are.
    ab[..., ::2] = (ab[..., ::2] * 2).round() / 2
    assert np.array_equal(any_set.index(ab).numpy(), plain_search(ab, any_set.centers))


def test_colors_far_outside_are_found_too(bins: Bins) -> None:
    ab = torch.tensor([[1e4, -1e4, 128.0, -128.0, 129.0, 1e15], [0.0, 1e4, 128.0, -129.0, 5.0, -1e15]]).view(1, 2, 1, 6)
    assert np.array_equal(bins.index(ab).numpy(), plain_search(ab, bins.centers))


def test_ties_go_to_the_lower_bin_in_both_directions() -> None:
    cross = Bins(np.array(CROSS))
    ab = torch.tensor([[5.0, -5.0, 0.0, 0.0, 10.0], [0.0, 0.0, 5.0, -5.0, 10.0]]).view(1, 2, 1, 5)
    assert [CROSS[index] for index in cross.index(ab).flatten().tolist()] == [(0, 0), (-10, 0), (0, 0), (0, -10), (0, 10)]


def test_the_slow_search_of_the_library_is_the_plain_search(any_bins: Bins) -> None:
    ab = torch.rand(1, 2, 20, 30, generator=torch.Generator().manual_seed(2)) * 300 - 150
    found = any_bins.search(ab)
    assert found.dtype == torch.int64 and np.array_equal(found.numpy(), plain_search(ab, any_bins.centers))


def test_photographs_are_never_searched(bins: Bins, monkeypatch: pytest.MonkeyPatch) -> None:
    _, ab = split(photographs(8, 64))

    def refuse(points: Tensor) -> Tensor:
        raise AssertionError(f"{len(points)} colors were searched")

    monkeypatch.setattr(bins, "_nearest", refuse)
    assert bins.index(ab * 128).shape == (8, 64, 64)
    with pytest.raises(AssertionError, match="were searched"):
        bins.index(torch.rand(1, 2, 64, 64, generator=torch.Generator().manual_seed(0)) * 250 - 125)


@pytest.mark.parametrize("layout", ["transposed", "channels last", "strided", "float64", "float16", "with gradient"])
def test_any_memory_layout_gives_the_same_bins_and_weights(layout: str, bins: Bins) -> None:
    ab = torch.rand(2, 2, 8, 12, generator=torch.Generator().manual_seed(3)).half().float() - 0.5
    changed = {
        "transposed": lambda: ab.transpose(2, 3).contiguous().transpose(2, 3),
        "channels last": lambda: ab.to(memory_format=torch.channels_last),
        "strided": lambda: ab.repeat_interleave(2, dim=3)[..., ::2],
        "float64": ab.double,
        "float16": ab.half,
        "with gradient": lambda: ab.clone().requires_grad_(),
    }[layout]()
    table = WeightTable(bins, torch.rand(bins.count, generator=torch.Generator().manual_seed(4)))
    ab = changed.detach().float()
    assert np.array_equal(bins.index(changed * 128).numpy(), plain_search(ab * 128, bins.centers))
    assert torch.equal(table(changed), table(ab.clone(memory_format=torch.contiguous_format))) and not table(changed).requires_grad


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_color_that_is_no_number_is_refused(bad: float, bins: Bins) -> None:
    ab = torch.zeros(1, 2, 3, 3)
    ab[0, 1, 2, 2] = bad
    for look_up in (bins.index, WeightTable(bins, torch.ones(bins.count))):
        with pytest.raises(ShapeError, match="NaN or infinite"):
            look_up(ab)


@pytest.mark.parametrize("shape", [(2, 4, 4), (1, 3, 4, 4), (0, 2, 4, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...], bins: Bins) -> None:
    for look_up in (bins.index, bins.search, WeightTable(bins, torch.ones(bins.count))):
        with pytest.raises(ShapeError, match="`ab`"):
            look_up(torch.zeros(shape))


# ---- weight tables


def test_weights_equal_those_of_the_plain_search_to_the_last_bit(any_bins: Bins) -> None:
    weights = torch.rand(any_bins.count, generator=torch.Generator().manual_seed(5)) * 100
    for ab in (split(photographs(2))[1], torch.rand(2, 2, 32, 32, generator=torch.Generator().manual_seed(6)) * 2.2 - 1.1):
        found = WeightTable(any_bins, weights)(ab)
        assert found.shape == (2, 1, 32, 32) and found.dtype == torch.float32
        assert torch.equal(found[:, 0], weights[torch.from_numpy(plain_search(ab * 128, any_bins.centers))])


def test_weights_of_bytes_equal_those_of_the_plain_search_for_all_pairs(any_bins: Bins) -> None:
    weights = torch.rand(any_bins.count, generator=torch.Generator().manual_seed(7))
    byte = torch.arange(256, dtype=torch.uint8)
    pairs = torch.stack(torch.meshgrid(byte, byte, indexing="ij"))[None]
    found = WeightTable(any_bins, weights).from_bytes(pairs)
    assert torch.equal(found[:, 0], weights[torch.from_numpy(plain_search(pairs.float() - 128, any_bins.centers))])


def test_only_bytes_are_taken_as_bytes(bins: Bins) -> None:
    with pytest.raises(ShapeError, match="float32"):
        WeightTable(bins, torch.ones(bins.count)).from_bytes(torch.zeros(1, 2, 4, 4))


@pytest.mark.parametrize("change", [lambda w: w[:-1], lambda w: w[None], lambda w: w * torch.nan, lambda w: w / 0])
def test_weights_that_do_not_fit_the_bins_are_refused(change: Any, bins: Bins) -> None:
    with pytest.raises(ShapeError, match="`weights`"):
        WeightTable(bins, change(torch.ones(bins.count)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_bins_and_weights_to_the_last_bit(bins: Bins) -> None:
    table = WeightTable(bins, torch.rand(bins.count))
    values = awkward_values(10)
    ab = torch.stack(torch.meshgrid(values, values, indexing="ij"))[None]
    assert torch.equal(bins.index(ab.cuda()).cpu(), bins.index(ab))
    assert torch.equal(table(ab.cuda() / 128).cpu(), table(ab / 128))


# ---- priors and weights


def test_the_prior_counts_the_bins_of_all_batches(bins: Bins) -> None:
    _, ab = split(photographs(4))
    known = np.bincount(plain_search(ab * 128, bins.centers).ravel(), minlength=bins.count) / (4 * 32 * 32)
    counted = prior(ab, bins, uniform=0)
    np.testing.assert_allclose(counted, known, atol=1e-7)
    assert torch.equal(counted, prior((ab[i : i + 1] for i in range(4)), bins, uniform=0))


def test_the_uniform_share_leaves_no_bin_at_zero(bins: Bins) -> None:
    gray_only = prior(torch.zeros(1, 2, 4, 4), bins, uniform=0.01)
    neutral = bins.centers.tolist().index([0.0, 0.0])
    assert gray_only[neutral].item() == pytest.approx(0.99 + 0.01 / bins.count)
    assert gray_only.min().item() == pytest.approx(0.01 / bins.count) and gray_only.sum().item() == pytest.approx(1, abs=1e-6)


def test_a_prior_needs_color_fields_and_shares(bins: Bins) -> None:
    with pytest.raises(DataError, match="no color fields"):
        prior(iter(()), bins)
    for bad in ({"uniform": 1.5}, {"uniform": -0.1}, {"smoothing": -1.0}, {"smoothing": math.nan}):
        with pytest.raises(ConfigError):
            prior(torch.zeros(1, 2, 2, 2), bins, **bad)


def test_smoothing_is_a_gaussian_over_the_grid() -> None:
    cross = Bins(np.array(CROSS))
    near, far = math.exp(-100 / (2 * 7**2)), 0.0
    blurred = np.array([near, near, 1 + far, near, near])
    np.testing.assert_allclose(smooth(torch.tensor([0.0, 0, 1, 0, 0]), cross, 7.0), blurred / blurred.sum(), rtol=1e-6)


def test_smoothing_agrees_with_an_image_filter(bins: Bins) -> None:
    # A wide square of bins, with mass in the middle alone: the filter of SciPy never meets a border.
    from scipy.ndimage import gaussian_filter

    side = np.arange(-100, 101, 10)
    square = Bins(np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2))
    image = np.zeros((21, 21))
    image[9:12, 9:12] = np.random.default_rng(0).random((3, 3))
    image /= image.sum()
    known = gaussian_filter(image, 0.8, truncate=12, mode="constant")
    np.testing.assert_allclose(smooth(torch.from_numpy(image.ravel()), square, 8.0).numpy(), known.ravel() / known.sum(), atol=1e-7)


def test_smoothing_by_nothing_changes_nothing(bins: Bins) -> None:
    p = torch.rand(bins.count)
    assert torch.equal(smooth(p / p.sum(), bins, 0.0), p / p.sum())
    torch.testing.assert_close(smooth(p / p.sum(), bins, 1e-300), p / p.sum())


def test_the_weights_of_zhang_are_their_equation(bins: Bins) -> None:
    p = torch.rand(bins.count, generator=torch.Generator().manual_seed(8)) ** 8
    p = (p / p.sum()).double()
    centers = bins.centers.numpy().astype(np.float64)
    kernel = np.exp(-((centers[:, None] - centers) ** 2).sum(axis=-1) / (2 * 5.0**2))
    smoothed = kernel @ p.numpy()
    smoothed /= smoothed.sum()
    known = 1 / (0.5 * smoothed + 0.5 / bins.count)
    known /= (smoothed * known).sum()
    np.testing.assert_allclose(zhang_weights(p, bins), known, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1), st.floats(0, 30))
def test_the_weights_of_zhang_have_mean_one_and_a_bounded_ratio(seed: int, mix: float, sigma: float) -> None:
    bins = gamut_bins()
    p = torch.rand(bins.count, generator=torch.Generator().manual_seed(seed)) ** 12
    p = p / p.sum()
    weights = zhang_weights(p, bins, mix, sigma)
    assert (smooth(p, bins, sigma) * weights).sum().item() == pytest.approx(1, abs=1e-4)
    assert (weights.max() / weights.min()).item() <= (1 - mix) * bins.count / mix + 1.01


def test_rare_colors_weigh_more(bins: Bins) -> None:
    p = torch.rand(bins.count, generator=torch.Generator().manual_seed(9)) + 0.01
    p = p / p.sum()
    for weights in (zhang_weights(p, bins, sigma=0), inverse_weights(p)):
        assert torch.equal(weights.argsort(descending=True), p.argsort())


def test_all_weights_are_one_if_the_mix_is_uniform(bins: Bins) -> None:
    p = torch.rand(bins.count)
    torch.testing.assert_close(zhang_weights(p / p.sum(), bins, mix=1.0), torch.ones(bins.count))


def test_the_inverse_weights_are_one_over_p() -> None:
    assert inverse_weights(torch.tensor([0.5, 0.25, 0.25])).tolist() == [2, 4, 4]
    with pytest.raises(ShapeError, match="not positive"):
        inverse_weights(torch.tensor([1.0, 0.0]))


def test_priors_and_settings_that_do_not_fit_are_refused(bins: Bins) -> None:
    flat = torch.full((bins.count,), 1 / bins.count)
    for mix in (0.0, -0.5, 1.5, math.nan):
        with pytest.raises(ConfigError, match="`mix`"):
            zhang_weights(flat, bins, mix=mix)
    with pytest.raises(ConfigError, match="smoothing"):
        zhang_weights(flat, bins, sigma=-1.0)
    for wrong in (flat[:-1], flat * 2, flat * torch.nan):
        with pytest.raises(ShapeError, match="`prior`"):
            zhang_weights(wrong, bins)


# ---- published files


@pytest.fixture
def published(tmp_path: Path) -> Iterator[tuple[Path, NDArray[np.int64]]]:
    """A folder like the published one, but of a set of bins that no reshape leaves as it is."""
    points = np.array(sorted((a, b) for a in range(-30, 40, 10) for b in range(-50, 60, 10) if a * b < 1000))
    np.save(tmp_path / "ab_quantize.npy", points.T.reshape(2, -1, 1, 1).astype(np.float32))
    np.save(tmp_path / "pts_in_hull.npy", points)
    p = np.random.default_rng(0).random(len(points))
    np.save(tmp_path / "prior_probs.npy", p / p.sum())
    yield tmp_path, points


@pytest.mark.parametrize("name", ["", "ab_quantize.npy", "pts_in_hull.npy"])
def test_both_published_layouts_give_the_same_bins(name: str, published: tuple[Path, NDArray[np.int64]]) -> None:
    folder, points = published
    assert np.array_equal(published_bins(folder / name).centers.numpy(), points)
    assert np.array_equal(published_bins(str(folder / name)).centers.numpy(), points)


def test_a_folder_with_only_the_second_file_is_enough(published: tuple[Path, NDArray[np.int64]]) -> None:
    folder, points = published
    (folder / "ab_quantize.npy").unlink()
    assert np.array_equal(published_bins(folder).centers.numpy(), points)


def test_the_published_prior_is_loaded(published: tuple[Path, NDArray[np.int64]]) -> None:
    folder, _ = published
    known = np.load(folder / "prior_probs.npy")
    for path in (folder, folder / "prior_probs.npy"):
        found = published_prior(path)
        assert found.dtype == torch.float32 and found.shape == known.shape
        np.testing.assert_allclose(found, known, rtol=1e-6)


def saved(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


BROKEN = {
    "empty": b"",
    "text": b"<html>404</html>",
    "cut off": saved(np.zeros((313, 2)))[:300],
    "object array": saved(np.array([{"a": 1}], dtype=object), allow_pickle=True),
    "pickle": pickle.dumps([1, 2]),
    "archive": zipped(),
    "strings": saved(np.array(["a", "b"])),
    "wrong shape": saved(np.zeros((3, 313, 5))),
    "scalar": saved(np.float64(3)),
    "unsorted": saved(np.array([[10, 0], [0, 0], [0, 10]])),
    "scrambled": saved(np.array(CROSS).T.reshape(-1, 2)),
    "not a number": saved(np.full(313, np.nan)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_wrong_file_is_one_data_error_that_names_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / "some name.npy"
    path.write_bytes(BROKEN[name])
    for load in (published_bins, published_prior):
        with pytest.raises(DataError, match=r"some name\.npy") as caught:
            load(path)
        assert caught.value.todo


def test_an_absent_file_and_a_folder_without_one_are_named(tmp_path: Path) -> None:
    for load in (published_bins, published_prior):
        with pytest.raises(DataError, match=r"no such file \(.*absent.npy\)"):
            load(tmp_path / "absent.npy")
        with pytest.raises(DataError, match="the folder holds no"):
            load(tmp_path)


@pytest.mark.parametrize("values", [[0.5, 0.6], [1.0, 0.0], [1.5, -0.5]])
def test_a_prior_that_is_none_is_refused(values: list[float], tmp_path: Path) -> None:
    np.save(tmp_path / "prior_probs.npy", values)
    with pytest.raises(DataError, match="not positive probabilities"):
        published_prior(tmp_path)


def test_the_number_of_bins_stands_nowhere_in_the_code() -> None:
    code = Path(module.__file__).read_text(encoding="utf-8")
    assert str(gamut_bins().count) not in code


# --- soft targets ---


def test_soft_targets_are_gaussian_shares_of_the_nearest_bins() -> None:
    bins = gamut_bins()
    ab = split(photographs(2, 8))[1]
    index, shares = soft_encode(ab, bins)
    assert index.shape == shares.shape == (2, 5, 8, 8) and index.dtype == torch.int64
    colors = (ab * 128).movedim(1, -1).reshape(-1, 2).double().numpy()
    distance = ((colors[:, None] - bins.centers.numpy()) ** 2).sum(-1)
    near = np.sort(distance, axis=1)[:, :5]
    wanted = np.exp(-near / 50) / np.exp(-near / 50).sum(1, keepdims=True)
    np.testing.assert_allclose(shares.movedim(1, -1).reshape(-1, 5), wanted, atol=1e-4)
    found = np.take_along_axis(distance, index.movedim(1, -1).reshape(-1, 5).numpy(), axis=1)
    np.testing.assert_allclose(found, near, atol=1e-2)
    assert torch.allclose(shares.sum(1), torch.ones(2, 8, 8))


def test_one_neighbor_is_the_nearest_bin() -> None:
    bins = gamut_bins()
    ab = split(photographs(2, 8, seed=1))[1]
    index, shares = soft_encode(ab, bins, neighbors=1)
    assert torch.equal(shares, torch.ones(2, 1, 8, 8))
    distance = ((ab * 128)[:, None] - bins.centers[:, :, None, None]).square().sum(2).sqrt()
    torch.testing.assert_close(distance.gather(1, index), distance.min(1, keepdim=True).values, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("neighbors", "sigma"), [(0, 5.0), (10_000, 5.0), (5, 0.0), (5, -1.0)])
def test_soft_targets_need_neighbors_and_a_width(neighbors: int, sigma: float) -> None:
    with pytest.raises(ConfigError, match="cannot be shared"):
        soft_encode(torch.zeros(1, 2, 2, 2), gamut_bins(), neighbors, sigma)
