"""The plain autoencoder and the training of rows: shapes, errors, what is linear, and that training is repeatable and works."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from divcolor_lib.autoencoder import Autoencoder, fit_pca, fit_rows, multilayer
from divcolor_lib.errors import ConfigError, ShapeError, TrainingError

EXAMPLES = settings(max_examples=20, deadline=None, derandomize=True)


def seeded(length: int = 6, latent: int = 2, hidden: tuple[int, ...] = (), seed: int = 0) -> Autoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Autoencoder(length, latent, hidden)


def rows_of(count: int = 200, length: int = 6, seed: int = 0) -> Tensor:
    """Rows with clearly different variances along rotated axes, away from the origin."""
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(length, length, generator=generator)).Q
    return torch.randn(count, length, generator=generator) * 2 * 0.5 ** torch.arange(length) @ rotation + 1.0


def fit(model: Autoencoder, rows: Tensor, steps: int = 50, seed: int = 0, **options: float) -> Tensor:
    def loss(batch: Tensor, step: int) -> Tensor:
        error: Tensor = batch - model(batch)
        return error.square().sum(1).mean()

    return fit_rows(model, loss, rows, steps, seed=seed, progress=False, **options)  # type: ignore[arg-type]


# --- the autoencoder ---


@EXAMPLES
@given(st.integers(1, 7), st.integers(1, 7), st.lists(st.integers(1, 5), max_size=3), st.integers(0, 4))
def test_shapes(length: int, latent: int, hidden: list[int], count: int) -> None:
    model = Autoencoder(length, latent, hidden)
    x = torch.zeros(count, length)
    assert model.encode(x).shape == (count, latent)
    assert model.decode(model.encode(x)).shape == model(x).shape == (count, length)
    assert torch.equal(model(x), model.decode(model.encode(x)))


def test_the_decoder_has_the_hidden_layers_in_reverse_order() -> None:
    model = seeded(10, 2, (7, 4))
    widths = [
        [(layer.in_features, layer.out_features) for layer in part if isinstance(layer, nn.Linear)]
        for part in (model.encoder, model.decoder)
    ]
    assert widths == [[(10, 7), (7, 4), (4, 2)], [(2, 4), (4, 7), (7, 10)]]


def test_there_is_a_bend_between_layers_and_none_at_the_ends() -> None:
    kinds = [type(layer) for layer in multilayer([3, 5, 4, 2])]
    assert kinds == [nn.Linear, nn.SiLU, nn.Linear, nn.SiLU, nn.Linear]
    assert [type(layer) for layer in multilayer([3, 2])] == [nn.Linear]


@EXAMPLES
@given(st.integers(0, 1000), st.floats(-3, 3), st.floats(-3, 3))
def test_without_hidden_layers_it_is_affine(seed: int, a: float, b: float) -> None:
    model = seeded(seed=seed).double().requires_grad_(False)
    x, y, zero = torch.randn(2, 6, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64), torch.zeros(2, 6, dtype=torch.float64)
    at_zero = model(zero)
    mixed = model(a * x + b * y) - at_zero
    assert torch.allclose(mixed, a * (model(x) - at_zero) + b * (model(y) - at_zero), atol=1e-10)
    weights = model.state_dict()
    matrix = weights["decoder.0.weight"] @ weights["encoder.0.weight"]
    assert torch.linalg.matrix_rank(matrix) == 2  # the bottleneck
    assert torch.allclose(model(x) - at_zero, x @ matrix.T, atol=1e-10)


def test_with_a_hidden_layer_it_is_not() -> None:
    model = seeded(hidden=(5,)).requires_grad_(False)
    x = 3 * torch.ones(1, 6)
    zero = model(torch.zeros(1, 6))
    assert not torch.allclose(model(2 * x) - zero, 2 * (model(x) - zero), atol=1e-3)


@pytest.mark.parametrize("width", [0, -1, 2.0, True, "3"])
@pytest.mark.parametrize("place", ["length", "latent", "hidden"])
def test_a_width_that_is_none_is_refused(place: str, width: object) -> None:
    arguments: dict[str, object] = {"length": 4, "latent": 2, "hidden": (3,)}
    arguments[place] = (width,) if place == "hidden" else width
    with pytest.raises(ConfigError, match="no width of a layer"):
        Autoencoder(**arguments)  # type: ignore[arg-type]


# --- training ---


def test_the_losses_are_those_of_the_steps_and_fall() -> None:
    losses = fit(seeded(), rows_of(), steps=300, rate=0.02)
    assert losses.shape == (300,) and not losses.requires_grad and bool(losses.isfinite().all())
    assert losses[-50:].mean() < 0.3 * losses[:20].mean()


def test_the_linear_one_comes_to_the_error_and_the_subspace_of_principal_components() -> None:
    rows, model = rows_of(), seeded()
    fit(model, rows, steps=1500, rate=0.02)
    model.requires_grad_(False)
    pca = fit_pca(rows, 2)
    best = (rows - pca.project(rows)).square().sum(1).mean()
    found = (rows - model(rows)).square().sum(1).mean()
    assert best * (1 - 1e-5) <= found < 1.02 * best
    basis = torch.linalg.qr(model.decoder[0].weight).Q
    assert torch.linalg.svdvals(pca.components @ basis).min() > 0.999


@EXAMPLES
@given(st.integers(0, 100))
def test_no_linear_one_beats_principal_components(seed: int) -> None:
    rows, model = rows_of(seed=seed), seeded(seed=seed)
    fit(model, rows, steps=20, seed=seed, rate=0.05)
    left = (rows - fit_pca(rows, 2).project(rows)).square().sum(1).mean()
    assert float((rows - model(rows)).square().sum(1).mean().detach()) >= float(left) * (1 - 1e-5)


def test_a_seed_repeats_a_training_and_another_does_not() -> None:
    rows = rows_of()
    runs = [fit(seeded(), rows, seed=seed) for seed in (3, 3, 4)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_training_leaves_the_random_state_and_the_rows_alone() -> None:
    rows = rows_of()
    before, state = rows.clone(), torch.random.get_rng_state()
    fit(seeded(), rows)
    assert torch.equal(torch.random.get_rng_state(), state) and torch.equal(rows, before)


def test_batches_have_their_size_and_steps_are_counted_from_zero() -> None:
    rows, model, seen = rows_of(), seeded(), []

    def loss(batch: Tensor, step: int) -> Tensor:
        seen.append((tuple(batch.shape), step))
        assert bool((batch[:, None] == rows[None]).all(2).any(1).all())  # every row of a batch is one of the rows
        error: Tensor = batch - model(batch)
        return error.square().mean()

    fit_rows(model, loss, rows, 4, batch=16, progress=False)
    assert seen == [((16, 6), step) for step in range(4)]


def test_the_rate_falls_to_zero_along_half_a_cosine() -> None:
    """With a constant gradient, Adam moves by the rate: the moves are the rates."""
    weight = nn.Parameter(torch.zeros(()))
    module = nn.Module()
    module.register_parameter("weight", weight)
    places: list[float] = []

    def loss(batch: Tensor, step: int) -> Tensor:
        places.append(float(weight.detach()))
        return -weight

    fit_rows(module, loss, torch.zeros(3, 2), 10, rate=0.1, progress=False)
    moves = [after - before for before, after in pairwise([*places, float(weight.detach())])]
    wanted = [0.1 * (1 + math.cos(math.pi * step / 10)) / 2 for step in range(10)]
    assert moves == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_training_and_names_the_step(bad: float) -> None:
    model = seeded()
    before = [parameter.detach().clone() for parameter in model.parameters()]

    def loss(batch: Tensor, step: int) -> Tensor:
        error: Tensor = batch - model(batch)
        return error.square().mean() * (bad if step == 3 else 0.0)

    with pytest.raises(TrainingError, match="step 3"):
        fit_rows(model, loss, rows_of(), 10, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))  # the bad step changed nothing


def test_fields_that_were_not_flattened_are_refused() -> None:
    with pytest.raises(ShapeError):
        fit(seeded(), torch.zeros(5, 2, 3))


def test_a_bar_is_shown_on_request_only_and_can_be_disabled_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[dict[str, object]] = []

    def bar(steps: range, **options: object) -> range:
        bars.append(options)
        return steps

    monkeypatch.setattr("divcolor_lib.autoencoder.tqdm", bar)
    for progress in (False, True):
        model = seeded()
        losses = fit_rows(model, lambda batch, step, model=model: model(batch).square().mean(), rows_of(), 2, progress=progress)  # type: ignore[misc]
        assert len(losses) == 2
    (options,) = bars
    assert "disable" not in options  # which would override TQDM_DISABLE
