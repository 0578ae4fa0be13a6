"""Portraits: the posterior against brute force, the drawing against its promises, and networks against Bayes."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
import torch
from skimage.color import lab2xyz
from torch import Tensor, nn
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal
from torch.nn import functional

from divcolor_lib import portraits as module
from divcolor_lib.errors import ConfigError, ShapeError
from divcolor_lib.portraits import (
    COLORS,
    CUE_NAMES,
    CUE_VALUES,
    CUES,
    HAIR_ODDS,
    NOISE_SD,
    OUTFIT_ODDS,
    OUTFITS,
    REGIONS,
    WALL_ODDS,
    WITHIN_MODE_SD,
    Portraits,
    color_strength,
)

SRGB_FROM_XYZ = np.array([[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]])
PORTRAITS = Portraits(10_000)


@pytest.fixture(autouse=True)
def _one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def found(portraits: Portraits, **wanted: str) -> int:
    """Return the first index whose cues have the wanted values."""
    cues = portraits.cues(range(2000))
    fits = torch.ones(2000, dtype=torch.bool)
    for name, value in wanted.items():
        fits &= cues[name] == CUE_VALUES[name].index(value)
    return int(fits.nonzero()[0, 0])


def palettes(table: dict[tuple[str, ...], dict[str, float]]) -> list[str]:
    """Return the names of all palettes of a table, each once."""
    return list(dict.fromkeys(name for odds in table.values() for name in odds))


def chi_square_p(observed: Tensor, expected: Tensor) -> float:
    """Return the p-value of Pearson's test, for expected counts that sum to the same total within each row."""
    statistic = ((observed - expected).square() / expected.clamp(min=1e-12)).sum()
    freedom = (expected > 0).sum() - expected.shape[0]
    return float(torch.special.gammaincc(freedom.double() / 2, statistic.double() / 2))


# --- The tables ---------------------------------------------------------------------------------------------------


def test_every_row_of_the_tables_is_a_distribution_and_every_combination_of_cues_has_one() -> None:
    assert set(OUTFIT_ODDS) == set(itertools.product(CUES["pattern"], CUES["hat"]))
    assert set(WALL_ODDS) == set(itertools.product(CUES["wall"], CUES["glasses"]))
    assert set(HAIR_ODDS) == set(CUES["hair"])
    for odds in (*CUES.values(), *OUTFIT_ODDS.values(), *WALL_ODDS.values(), *HAIR_ODDS.values()):
        assert math.isclose(sum(odds.values()), 1.0) and min(odds.values()) > 0


def test_each_portrait_has_two_to_six_modes_of_at_least_three_percent() -> None:
    posteriors = PORTRAITS.posteriors(range(200))
    p = posteriors.probabilities
    assert torch.allclose(p.sum(1), torch.ones(200, dtype=torch.float64))
    assert p[p > 0].min() >= 0.03
    counts = (p > 0).sum(1)
    assert counts.min() == 2 and counts.max() == 6
    assert not posteriors.region_colors[p == 0].any()


@pytest.mark.parametrize("index", [found(PORTRAITS, pattern="plain", hat="hat", hair="long"), found(PORTRAITS, hat="hat", hair="short"), 0])
def test_the_posterior_is_what_a_reader_of_the_tables_computes(index: int) -> None:
    cue = {name: CUE_VALUES[name][int(value)] for name, value in PORTRAITS.cues([index]).items()}
    exact = PORTRAITS.posterior(index)
    modes = []
    for outfit, p_outfit in OUTFIT_ODDS[cue["pattern"], cue["hat"]].items():
        for wall, p_wall in WALL_ODDS[cue["wall"], cue["glasses"]].items():
            for hair, p_hair in HAIR_ODDS[cue["hair"]].items():
                colors = {"wall": wall, "skin": "skin", "hair": hair, **OUTFITS[outfit]}
                modes.append((p_outfit * p_wall * p_hair, [COLORS[colors[region]] for region in exact.regions]))
    assert torch.allclose(exact.probabilities, torch.tensor([p for p, _ in modes], dtype=torch.float64))
    assert torch.allclose(exact.region_colors, torch.tensor([colors for _, colors in modes]))
    assert ("hat" in exact.regions) == (cue["hat"] == "hat")
    assert ("hair" in exact.regions) == (cue["hat"] != "hat" or cue["hair"] != "short")
    assert len(exact.names) == len(modes) == len(set(exact.names))


def test_modes_of_a_portrait_never_lie_within_one_hit_radius_of_each_other() -> None:
    table = module._joint_table()
    for probabilities, colors in zip(table.probabilities, table.colors):
        for one, other in itertools.combinations(colors[probabilities > 0], 2):
            assert np.linalg.norm(one - other, axis=-1).max() > 25


def test_two_modes_differ_by_twenty_lab_units_in_eight_percent_of_the_pixels() -> None:
    posteriors = PORTRAITS.posteriors(range(150))
    fields = posteriors.fields() * 128
    for field, p in zip(fields, posteriors.probabilities):
        for one, other in itertools.combinations(field[p > 0], 2):
            assert ((one - other).norm(dim=0) >= 20).float().mean() >= 0.08


def test_the_blind_posterior_is_the_frequency_of_each_mode_over_all_portraits() -> None:
    count = 20_000
    many = Portraits(count, seed=3)
    (outfits, walls), _ = outfits_and_walls(many, count)
    hair = [next(iter(HAIR_ODDS[CUE_VALUES["hair"][int(style)]])) for style in many.cues(range(count))["hair"]]
    seen = list(zip(outfits.tolist(), walls.tolist(), hair))
    outfit_names, wall_names = palettes(OUTFIT_ODDS), palettes(WALL_ODDS)
    index = found(PORTRAITS, pattern="plain", hat="bareheaded", hair="curly", wall="plain")
    exact = PORTRAITS.posterior(index)
    for name, blind in zip(exact.names, exact.blind.tolist()):
        wall, clothes, hair_color = (part.split()[0] for part in name.split(", "))
        frequency = seen.count((outfit_names.index(clothes), wall_names.index(wall), hair_color)) / count
        assert abs(frequency - blind) < 4 * math.sqrt(blind / count)
    assert torch.equal(PORTRAITS.blind_posterior(index), exact.blind)
    assert 0 < exact.blind.sum() < 0.5


def test_hair_that_a_hat_hides_costs_the_blind_predictor_nothing() -> None:
    hidden = found(PORTRAITS, pattern="plain", hat="hat", hair="short", wall="plain")
    shown = found(PORTRAITS, pattern="plain", hat="hat", hair="long", wall="plain")
    assert torch.allclose(PORTRAITS.blind_posterior(shown), PORTRAITS.blind_posterior(hidden) * CUES["hair"]["long"])


# --- The drawing --------------------------------------------------------------------------------------------------


def test_shapes_types_and_ranges_follow_the_contract() -> None:
    gray, ab = PORTRAITS.batch([3, 1, 4])
    assert gray.shape == (3, 1, 64, 64) and ab.shape == (3, 2, 64, 64)
    assert gray.dtype == ab.dtype == torch.float32
    assert gray.abs().max() <= 1 and len(PORTRAITS) == 10_000
    picture = Portraits.picture(gray, ab)
    assert picture.shape == (3, 64, 64, 3) and picture.dtype == torch.uint8
    empty_gray, empty_ab = PORTRAITS.batch([])
    assert empty_gray.shape == (0, 1, 64, 64) and empty_ab.shape == (0, 2, 64, 64)


@pytest.mark.parametrize("size", [32, 64, 50, 128])
def test_a_portrait_alone_equals_itself_in_a_batch_bit_for_bit(size: int) -> None:
    gray, ab = Portraits(200, seed=5, size=size).batch(torch.arange(70))
    alone_gray, alone_ab = Portraits(8, seed=5, size=size).batch([7])
    assert torch.equal(gray[7:8], alone_gray) and torch.equal(ab[7:8], alone_ab)
    mixed_gray, mixed_ab = Portraits(200, seed=5, size=size).batch([69, 7, 0, 7])
    assert torch.equal(mixed_gray, gray[[69, 7, 0, 7]]) and torch.equal(mixed_ab, ab[[69, 7, 0, 7]])
    assert torch.equal(Portraits(200, seed=5, size=size).gray([7]), alone_gray)


def test_threads_change_no_bit() -> None:
    one = PORTRAITS.batch(range(40))
    torch.set_num_threads(2)
    two = PORTRAITS.batch(range(40))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])


def test_other_seeds_and_other_indices_give_other_portraits() -> None:
    gray, ab = PORTRAITS.batch(range(50))
    other_gray, other_ab = Portraits(50, seed=1).batch(range(50))
    for one, other in ((gray, other_gray), (ab, other_ab)):
        assert (one.flatten(1) != other.flatten(1)).any(1).all()
        assert len({bytes(image.numpy().data) for image in one}) == 50


def test_gray_is_bit_identical_in_all_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    index = found(PORTRAITS, pattern="plain", wall="plain")
    exact = PORTRAITS.posterior(index)
    grays = []
    for mode in range(6):
        monkeypatch.setattr(module, "_draw_modes", lambda streams, cues, mode=mode: np.array([mode]))
        gray, ab = PORTRAITS.batch([index])
        grays.append(gray)
        assert int((exact.ab - ab).square().sum((1, 2, 3)).argmin()) == mode
    assert all(torch.equal(gray, grays[0]) for gray in grays)


def test_shares_are_a_soft_partition_and_absent_regions_have_none() -> None:
    posteriors = PORTRAITS.posteriors(range(120))
    light = (PORTRAITS.gray(range(120)) + 1) * 50
    shares = posteriors.basis / color_strength(light)
    assert shares.min() >= 0 and shares.sum(1).max() <= 1 + 1e-5
    assert not shares[~posteriors.present].any()
    assert shares[posteriors.present].mean((1, 2)).min() > 0.05
    assert (shares.sum(1) < 0.05).flatten(1).any(1).all(), "every portrait has neutral eyes"


@pytest.mark.parametrize("size", [32, 128])
def test_a_portrait_is_the_same_picture_at_every_size(size: int) -> None:
    middle = functional.avg_pool2d(PORTRAITS.gray(range(40)), 2 if size == 32 else 1)
    other = Portraits(40, size=size).gray(range(40))
    other = functional.avg_pool2d(other, 1 if size == 32 else 2)
    assert 50 * (middle - other).abs().mean() < 1.5
    assert torch.equal(Portraits(40, size=size).modes(range(40)), PORTRAITS.modes(range(40)))


def is_in_gamut(lab: np.ndarray) -> np.ndarray:
    """Return whether Lab colors (..., 3) are sRGB colors, by scikit-image's Lab and the published matrix."""
    linear = lab2xyz(lab.astype(np.float64)) @ SRGB_FROM_XYZ.T
    return ((linear > -1e-4) & (linear < 1 + 1e-4)).all(-1)


def test_every_mode_is_inside_the_gamut_by_three_sigma() -> None:
    count = 60
    posteriors = PORTRAITS.posteriors(range(count))
    light = (PORTRAITS.gray(range(count)).double() + 1) * 50
    spread = torch.sqrt(WITHIN_MODE_SD**2 * posteriors.basis.square().sum(1) + NOISE_SD**2)
    fields = posteriors.fields() * 128
    for turn in range(8):
        direction = torch.tensor([math.cos(turn * math.pi / 4), math.sin(turn * math.pi / 4)])
        moved = fields + 3 * (spread[:, None] * direction[:, None, None])[:, None]
        lab = torch.cat([light[:, None].expand(-1, 6, -1, -1, -1), moved], 2)[posteriors.probabilities > 0]
        assert is_in_gamut(lab[:, :, ::2, turn % 2 :: 2].movedim(1, -1).numpy()).all()


def test_true_colors_need_no_clipping() -> None:
    gray, ab = PORTRAITS.batch(range(200))
    lab = torch.cat([(gray.double() + 1) * 50, ab * 128], 1).movedim(1, -1)
    assert is_in_gamut(lab.numpy()).mean() > 1 - 1e-5


def test_the_gamut_check_can_fail() -> None:
    assert not is_in_gamut(np.array([[90.0, 40.0, 0.0]])).any() and is_in_gamut(np.array([[50.0, 20.0, 20.0]])).all()


def test_drawing_is_fast_enough_to_make_a_data_set_when_needed() -> None:
    PORTRAITS.batch([0])
    start = time.process_time()
    PORTRAITS.batch(range(200))
    assert time.process_time() - start < 4


def test_words_describe_the_portrait() -> None:
    index = found(PORTRAITS, pattern="striped", hat="bareheaded", hair="short", glasses="glasses", wall="plain")
    assert PORTRAITS.describe(index) == f"portrait {index}: striped shirt, short hair, glasses, plain wall"
    hidden = found(PORTRAITS, pattern="dotted", hat="hat", hair="short", glasses="no glasses", wall="disk")
    assert PORTRAITS.describe(hidden) == f"portrait {hidden}: dotted shirt, hat, wall with a disk"


# --- Random numbers -----------------------------------------------------------------------------------------------


def test_hashed_numbers_are_normal_and_independent_of_name_index_and_seed() -> None:
    indices = np.arange(50, dtype=np.uint64)
    streams, other_seed = module._Streams(0, indices), module._Streams(1, indices)
    numbers = streams.normal("a", 4000)
    z = torch.from_numpy(numbers).double()
    ordered = z.flatten().sort().values
    steps = torch.arange(1, len(ordered) + 1) / len(ordered)
    distance = (torch.special.ndtr(ordered) - steps).abs().max() * math.sqrt(len(ordered))
    assert distance < 1.95, "Kolmogorov-Smirnov at 0.1 %"
    for other in (streams.normal("b", 4000), other_seed.normal("a", 4000), np.roll(numbers, 1, 0)):
        assert abs((z * torch.from_numpy(other)).mean()) * math.sqrt(z.numel()) < 4
    assert abs((z[:, 1:] * z[:, :-1]).mean()) * math.sqrt(z.numel()) < 4


def test_words_are_those_of_splitmix64() -> None:
    # The first outputs of the reference implementation for state 1234567.
    start = np.array([1234567], np.uint64)
    with np.errstate(over="ignore"):
        words = module._mixed(start[:, None] + np.arange(1, 4, dtype=np.uint64) * module._GOLDEN)
    assert words.tolist() == [[6457827717110365317, 3203168211198807973, 9817491932198370423]]


def test_true_modes_occur_as_often_as_their_posteriors_say() -> None:
    many = Portraits(60_000, seed=11)
    cues = {name: value.numpy() for name, value in many.cues(range(60_000)).items()}
    rows, modes = torch.from_numpy(module._combination(cues)), many.modes(range(60_000))
    table = torch.from_numpy(module._joint_table().probabilities)
    observed = torch.zeros_like(table).index_put_((rows, modes), torch.ones(60_000, dtype=torch.float64), accumulate=True)
    assert not observed[table == 0].any()
    assert 1e-3 < chi_square_p(observed, table * observed.sum(1, keepdim=True)) < 1 - 1e-3
    # The same test notices odds that are off by a few percent.
    wrong = 0.9 * table + 0.1 * (table > 0) / (table > 0).sum(1, keepdim=True)
    assert chi_square_p(observed, wrong * observed.sum(1, keepdim=True)) < 1e-3


def test_cues_occur_as_often_as_the_table_says() -> None:
    for name, value in Portraits(20_000, seed=2).cues(range(20_000)).items():
        expected = 20_000 * torch.tensor(list(CUES[name].values()), dtype=torch.float64)[None]
        assert chi_square_p(torch.bincount(value).double()[None], expected) > 1e-3


# --- The density --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [{"hat": "hat", "hair": "long"}, {"hat": "bareheaded"}, {"hat": "hat", "hair": "short"}])
def test_log_prob_equals_brute_force(wanted: dict[str, str]) -> None:
    small = Portraits(3000, size=16)
    index = found(small, pattern="plain", wall="plain", **wanted)
    exact, basis = small.posterior(index), small.basis(index).double().flatten(1)
    ab = torch.cat([small.sample(index, 6, torch.Generator().manual_seed(0)), 0.3 * torch.randn(2, 2, 16, 16)])
    factor, diagonal = (basis.T * WITHIN_MODE_SD / 128).contiguous(), torch.full((256,), (NOISE_SD / 128) ** 2, dtype=torch.float64)
    low_rank, dense = [], []
    for p, center in zip(exact.probabilities, exact.region_colors.double()):
        means = (basis.T @ center / 128).T
        parts = [LowRankMultivariateNormal(mean, factor, diagonal).log_prob(ab[:, c].double().flatten(1)) for c, mean in enumerate(means)]
        low_rank.append(p.log() + sum(parts))
        covariance = factor @ factor.T + diagonal.diag()
        parts = [MultivariateNormal(mean, covariance).log_prob(ab[:, c].double().flatten(1)) for c, mean in enumerate(means)]
        dense.append(p.log() + sum(parts))
    got = small.log_prob(index, ab)
    assert got.dtype == torch.float64
    assert torch.allclose(got, torch.stack(low_rank).logsumexp(0), rtol=1e-6)
    assert torch.allclose(got, torch.stack(dense).logsumexp(0), rtol=1e-6)


def test_log_prob_of_a_batch_takes_each_field_under_its_own_portrait() -> None:
    indices = [5, 2, 9]
    _, ab = PORTRAITS.batch(indices)
    got = PORTRAITS.log_prob_batch(indices, ab)
    assert torch.allclose(got, torch.cat([PORTRAITS.log_prob(i, ab[k : k + 1]) for k, i in enumerate(indices)]), rtol=1e-9)
    assert (PORTRAITS.log_prob_batch(indices, ab.roll(1, 0)) < got - 1000).all()


def test_log_prob_has_a_gradient_that_finite_differences_confirm() -> None:
    small = Portraits(10, size=16)
    ab = small.batch([1])[1].double().requires_grad_()
    small.log_prob(1, ab).sum().backward()
    step = torch.randn(ab.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 1e-5
    with torch.no_grad():
        change = small.log_prob(1, ab + step) - small.log_prob(1, ab - step)
    assert ab.grad is not None and math.isclose(float(change), float(2 * (ab.grad * step).sum()), rel_tol=1e-4)


def test_true_fields_are_draws_from_the_posterior() -> None:
    # E log p(C|G) = sum_m p_m log p_m - (log|2 pi V| + P) over both channels, because modes do not overlap.
    many = Portraits(400, seed=4, size=16)
    posteriors = many.posteriors(range(400))
    basis = posteriors.basis.double().flatten(2)
    covariance = (WITHIN_MODE_SD**2 * basis.mT @ basis + NOISE_SD**2 * torch.eye(256, dtype=torch.float64)) / 128**2
    entropy = torch.special.entr(posteriors.probabilities).sum(1) + torch.linalg.slogdet(covariance)[1] + 256 * (1 + math.log(2 * math.pi))
    excess = many.log_prob_batch(range(400), many.batch(range(400))[1]) + entropy
    assert abs(excess.mean()) < 4 * excess.std() / math.sqrt(400)
    assert math.isclose(float(excess.std()), math.sqrt(256), rel_tol=0.15)


def test_samples_have_the_frequencies_means_and_spread_of_the_posterior() -> None:
    small = Portraits(3000, size=16)
    index, count = found(small, pattern="plain", wall="plain", hat="bareheaded", hair="long"), 3000
    exact = small.posterior(index)
    samples = small.sample(index, count, torch.Generator().manual_seed(7))
    assert samples.shape == (count, 2, 16, 16) and samples.dtype == torch.float32
    nearest = (samples[:, None] - exact.ab).square().sum((2, 3, 4)).argmin(1)
    observed = torch.bincount(nearest, minlength=6).double()
    assert chi_square_p(observed[None], count * exact.probabilities[None]) > 1e-3
    basis = small.basis(index)
    stray = 128 * (samples - exact.ab[nearest])
    variance = WITHIN_MODE_SD**2 * basis.square().sum(0) + NOISE_SD**2
    assert abs(stray.mean(0)).max() < 5 * math.sqrt(float(variance.max()) / count)
    assert torch.allclose(stray.var(0), variance.expand(2, -1, -1), rtol=0.2)
    again = small.sample(index, count, torch.Generator().manual_seed(7))
    assert torch.equal(samples, again)


def test_projecting_the_true_field_on_the_regions_recovers_the_mode() -> None:
    indices = torch.arange(200)
    colors = PORTRAITS.project(indices, PORTRAITS.batch(indices)[1][:, None])
    posteriors = PORTRAITS.posteriors(indices)
    away = (colors - posteriors.region_colors).norm(dim=-1).amax(-1)
    hits = (away <= 10) & (posteriors.probabilities > 0)
    assert torch.equal(hits.sum(1), torch.ones(200, dtype=torch.long))
    assert torch.equal(hits.long().argmax(1), PORTRAITS.modes(indices))
    assert not colors[:, 0][~posteriors.present].any()
    _, ab = PORTRAITS.batch([4])
    basis = PORTRAITS.basis(4).double().flatten(1)
    solved = torch.linalg.lstsq(basis.T, 128 * ab[0].double().flatten(1).T).solution
    assert torch.allclose(colors[4, 0][posteriors.present[4]], solved, atol=1e-6)


# --- Errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"count": 0}, {"count": 5, "seed": -1}, {"count": 5, "size": 8}, {"count": 2.5}, {"count": True}])
def test_settings_that_cannot_be_used_raise_one_clear_error(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="Pass an integer"):
        Portraits(**settings)


@pytest.mark.parametrize("indices", [[10], [-1], torch.tensor([0.5]), torch.tensor(3), torch.tensor([True])])
def test_indices_outside_the_set_raise_one_clear_error(indices: list[int] | Tensor) -> None:
    with pytest.raises(ShapeError):
        Portraits(10).batch(indices)


def test_fields_of_another_shape_raise_one_clear_error() -> None:
    portraits = Portraits(10)
    with pytest.raises(ShapeError, match="ab"):
        portraits.log_prob(0, torch.zeros(1, 2, 32, 32))
    with pytest.raises(ShapeError, match="ab"):
        portraits.log_prob_batch([0, 1], torch.zeros(1, 2, 64, 64))
    with pytest.raises(ShapeError, match="ab"):
        portraits.project([0], torch.zeros(1, 2, 64, 64))
    with pytest.raises(ConfigError, match="sample"):
        portraits.sample(0, 0, torch.Generator())


# --- Networks -----------------------------------------------------------------------------------------------------

TRAIN, TEST = 3000, 1500


def outfits_and_walls(portraits: Portraits, count: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return the true outfit and color of the wall of each portrait, and their probabilities given the cues."""
    cues = {name: value.tolist() for name, value in portraits.cues(range(count)).items()}
    names = {"o": palettes(OUTFIT_ODDS), "w": palettes(WALL_ODDS)}
    truth, exact = torch.zeros(2, count, dtype=torch.long), torch.zeros(2, count, 5, dtype=torch.float64)
    for i, mode in enumerate(portraits.modes(range(count)).tolist()):
        value = {name: CUE_VALUES[name][cues[name][i]] for name in CUE_NAMES}
        outfit, wall = OUTFIT_ODDS[value["pattern"], value["hat"]], WALL_ODDS[value["wall"], value["glasses"]]
        chosen = list(itertools.product(outfit, wall))[mode]
        for which, (odds, name) in enumerate(((outfit, "o"), (wall, "w"))):
            truth[which, i] = names[name].index(chosen[which])
            for key, p in odds.items():
                exact[which, i, names[name].index(key)] = p
    return list(truth), list(exact)


def trained(net: nn.Module, inputs: Tensor, targets: list[Tensor], sizes: list[int], epochs: int, rate: float) -> nn.Module:
    """Train `net` to predict every target from `inputs`; returns it in eval mode."""
    order = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * -(-len(inputs) // 100))
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), generator=order).split(100):
            scores = net(inputs[rows]).split(sizes, 1)
            loss = torch.stack([functional.cross_entropy(score, target[rows]) for score, target in zip(scores, targets)]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def advantage(log_q: Tensor, truth: Tensor, exact: Tensor) -> tuple[float, float]:
    """Return by how many standard errors a prediction beats the posterior on held-out portraits, in log score and in accuracy."""
    rows = torch.arange(len(truth))
    score = log_q.double()[rows, truth] - exact[rows, truth].log()
    correct = (log_q.argmax(1) == truth).double() - (exact.argmax(1) == truth).double()
    root = math.sqrt(len(truth))
    return float(score.mean() / score.std() * root), float(correct.mean() / (correct.std() + 1e-9) * root)


@pytest.fixture(scope="module")
def gray_at_32() -> tuple[Portraits, Tensor, Portraits, Tensor]:
    train, test = Portraits(TRAIN, size=32), Portraits(TEST, seed=1, size=32)
    return train, train.gray(range(TRAIN)), test, test.gray(range(TEST))


def test_a_network_recovers_every_cue_from_gray(gray_at_32: tuple[Portraits, Tensor, Portraits, Tensor]) -> None:
    train, gray, test, held_out = gray_at_32
    torch.manual_seed(0)
    sizes = [len(CUES[name]) for name in CUE_NAMES]
    net = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(512, sum(sizes))),
    )
    trained(net, gray, list(train.cues(range(TRAIN)).values()), sizes, epochs=9, rate=6e-3)
    with torch.no_grad():
        scores = net(held_out).split(sizes, 1)
    for (name, truth), score in zip(test.cues(range(TEST)).items(), scores):
        assert (score.argmax(1) == truth).float().mean() >= 0.99, name


@pytest.mark.parametrize("leak", [0.0, 0.1])
def test_a_network_guesses_the_mode_from_gray_no_better_than_the_posterior(
    gray_at_32: tuple[Portraits, Tensor, Portraits, Tensor], leak: float
) -> None:
    # The network sees gray at 8 x 8 and is even told the cues and the odds. With a planted leak (one of the 64 cells is lighter
    # by 5 units of L when the outfit is blue) the same network beats the posterior, so the test can fail.
    train, gray, test, held_out = gray_at_32
    inputs, truths, exacts = [], [], []
    for portraits, image in ((train, gray), (test, held_out)):
        truth, exact = outfits_and_walls(portraits, len(portraits))
        told = [functional.one_hot(value, len(CUES[name])) for name, value in portraits.cues(range(len(portraits))).items()]
        pooled = functional.avg_pool2d(image, 4).flatten(1)
        pooled[:, 0] += leak * (truth[0] == palettes(OUTFIT_ODDS).index("blue"))
        inputs.append(torch.cat([3 * (pooled - pooled.mean(0)), *exact, *told], 1).float())
        truths.append(truth)
        exacts.append(exact)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(inputs[0].shape[1], 32), nn.ReLU(), nn.Linear(32, 10))
    trained(net, inputs[0], truths[0], [5, 5], epochs=12, rate=1e-2)
    with torch.no_grad():
        predicted = [score.log_softmax(1) for score in net(inputs[1]).split([5, 5], 1)]
    gains = [advantage(log_q, truth, exact) for log_q, truth, exact in zip(predicted, truths[1], exacts[1])]
    assert (max(gains[0]) > 3) == (leak > 0)
    assert max(gains[1]) < 3
    accuracy = (predicted[0].argmax(1) == truths[1][0]).float().mean()
    assert accuracy > 0.55, "the network learned the odds"


def test_a_convolutional_network_finds_no_leak_in_texture_either(gray_at_32: tuple[Portraits, Tensor, Portraits, Tensor]) -> None:
    train, gray, test, held_out = gray_at_32
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(24 * 16, 10)),
    )
    trained(net, gray, outfits_and_walls(train, TRAIN)[0], [5, 5], epochs=5, rate=4e-3)
    truth, exact = outfits_and_walls(test, TEST)
    with torch.no_grad():
        predicted = [score.log_softmax(1) for score in net(held_out).split([5, 5], 1)]
    for log_q, right, odds in zip(predicted, truth, exact):
        assert max(advantage(log_q, right, odds)) < 3
        assert (log_q.argmax(1) == right).float().mean() > (odds.argmax(1) == right).float().mean() - 0.15


def test_the_regions_cover_the_names() -> None:
    assert REGIONS == ("wall", "clothes", "skin", "hair", "hat")
    assert set(PORTRAITS.region_names(0)) <= set(REGIONS) and PORTRAITS.basis(0).shape == (len(PORTRAITS.region_names(0)), 64, 64)


# --- hints ---


@pytest.mark.parametrize(
    ("region", "tau", "toward"), [("clothes", 10.0, 0.45), ("wall", 5.0, 0.45), ("clothes", 1.0, 0.05), ("hat", 25.0, 0.45)]
)
def test_the_modes_given_a_hint_are_what_sampling_finds(region: str, tau: float, toward: float) -> None:
    """Draw portraits' region colors with their jitter, weigh each draw by N(h | c, tau^2 I), and count the modes."""
    exact = PORTRAITS.posterior(found(PORTRAITS, pattern="plain", hat="hat", wall="disk", hair="long"))
    row = exact.regions.index(region)
    random = torch.Generator().manual_seed(0)
    modes = torch.multinomial(exact.probabilities, 400_000, replacement=True, generator=random)
    drawn = exact.region_colors[modes, row].double()
    drawn = drawn + WITHIN_MODE_SD * torch.randn(drawn.shape, generator=random, dtype=torch.float64)
    hint = exact.region_colors[0, row].double().lerp(exact.region_colors[-1, row].double(), toward)
    weights = torch.distributions.Normal(drawn, tau).log_prob(hint).sum(1).softmax(0)
    effective = 1 / float(weights.square().sum())
    counted = torch.zeros_like(exact.probabilities).index_add_(0, modes, weights)
    assert effective > 300
    torch.testing.assert_close(exact.given_hint(region, hint, tau), counted, atol=4 / math.sqrt(effective), rtol=0)


@pytest.mark.parametrize("tau", [0.0, 2.0, 8.0])
def test_the_modes_given_a_hint_are_bayes_rule_with_the_jitter_in_the_variance(tau: float) -> None:
    exact = PORTRAITS.posterior(found(PORTRAITS, pattern="striped", wall="plain"))
    hint = (12.0, 3.0)
    spread = math.sqrt(WITHIN_MODE_SD**2 + tau**2)
    row = exact.regions.index("wall")
    terms = [
        float(p) * math.exp(-(math.dist(hint, color) ** 2) / (2 * spread**2))
        for p, color in zip(exact.probabilities, exact.region_colors[:, row].tolist())
    ]
    got = exact.given_hint("wall", hint, tau)
    assert got.dtype == torch.float64 and got.tolist() == pytest.approx([term / sum(terms) for term in terms], rel=1e-6)


def test_a_hint_that_knows_nothing_leaves_the_modes_as_they_are_and_a_far_one_does_not_underflow() -> None:
    exact = PORTRAITS.posterior(3)
    torch.testing.assert_close(exact.given_hint("skin", (90.0, -90.0), 5.0), exact.probabilities)  # all modes have the same skin
    torch.testing.assert_close(exact.given_hint("clothes", (5.0, 5.0), 1e6), exact.probabilities)
    far = exact.given_hint("clothes", (1e4, 0.0), 0.0)
    assert far.isfinite().all() and float(far.sum()) == pytest.approx(1)


def test_true_modes_occur_as_often_as_they_do_given_a_hint() -> None:
    """Hints about the drawn color of the clothes, from the portraits' own true fields: the probabilities of the true modes add up."""
    indices = range(400)
    _, ab = PORTRAITS.batch(indices)
    colors = PORTRAITS.project(indices, ab[:, None])[:, 0, REGIONS.index("clothes")]
    hints = colors + 15 * torch.randn(colors.shape, generator=torch.Generator().manual_seed(1))
    modes = PORTRAITS.modes(indices)
    given = [PORTRAITS.posterior(i).given_hint("clothes", hint, 15.0) for i, hint in enumerate(hints)]
    right = torch.stack([p[mode] for p, mode in zip(given, modes)])
    promised = torch.stack([p.square().sum() for p in given])
    without = torch.stack([PORTRAITS.posterior(i).probabilities[mode] for i, mode in enumerate(modes)])
    assert abs(float(right.mean() - promised.mean())) < 3 * float((right - promised).std()) / math.sqrt(400)
    assert right.mean() > without.mean() + 0.1


@pytest.mark.parametrize("settings", [{"region": "shoes"}, {"region": "hat"}, {"tau": -1.0}, {"tau": math.nan}, {"tau": math.inf}])
def test_a_hint_about_nothing_that_is_there_raises_one_clear_error(settings: dict[str, object]) -> None:
    exact = PORTRAITS.posterior(found(PORTRAITS, hat="bareheaded"))
    with pytest.raises(ConfigError):
        exact.given_hint(**({"region": "wall", "hint": (1.0, 2.0), "tau": 5.0} | settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("hint", [(1.0,), (1.0, 2.0, 3.0), (math.nan, 0.0)])
def test_a_hint_that_is_no_color_raises_one_clear_error(hint: tuple[float, ...]) -> None:
    with pytest.raises(ShapeError):
        PORTRAITS.posterior(0).given_hint("wall", hint, 5.0)
