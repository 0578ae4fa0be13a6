"""`HierarchicalVAE` against linear-Gaussian hierarchies, where evidence, posterior and ELBO are known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

from divcolor_lib.autoencoder import VAE, HierarchicalVAE, fit_rows
from divcolor_lib.errors import ConfigError
from divcolor_lib.losses import kl_between_normals

DRAWS = 60_000
Steps = tuple[tuple[float, float], ...]  # (slope, variance) of each conditional, from the bottom up

DOWN: dict[int, Steps] = {1: (), 2: ((0.8, 0.36),), 3: ((0.8, 0.36), (-0.6, 0.64))}
WRONG_UP: dict[int, Steps] = {1: ((0.6, 0.3),), 2: ((0.7, 0.3), (0.5, 0.5)), 3: ((0.7, 0.3), (0.5, 0.5), (0.3, 0.9))}
#: For those DOWN every z_t has variance 1, so the exact encoder has the decoder's slopes and variances.
EXACT_UP: dict[int, Steps] = {1: ((0.8, 0.2),), 2: ((0.8, 0.2), (0.8, 0.36)), 3: ((0.8, 0.2), (0.8, 0.36), (-0.6, 0.64))}
NOISE = 0.5


def line(slope: float, variance: float | None = None) -> nn.Linear:
    layer = nn.Linear(1, 1 if variance is None else 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[slope], [0.0]])[: layer.out_features])
        layer.bias.copy_(torch.tensor([0.0, math.log(variance or 1.0)])[: layer.out_features])
    return layer


def hierarchy(down: Steps, up: Steps) -> HierarchicalVAE:
    """x ~ N(z_1, NOISE^2), z_t ~ N(slope z_{t+1}, variance), and an encoder of the same kind."""
    model = HierarchicalVAE(1, [1] * len(up), hidden=1, noise=NOISE)
    model.up = nn.ModuleList(line(*step) for step in up)
    model.down = nn.ModuleList(line(*step) for step in down)
    model.decoder = nn.Sequential(line(1.0))
    return model.requires_grad_(False)


def evidence(down: Steps) -> Normal:
    variance = 1.0
    for slope, added in reversed(down):
        variance = slope**2 * variance + added
    return Normal(0.0, math.sqrt(variance + NOISE**2))


def encoder_moments(up: Steps, x: float) -> tuple[Tensor, Tensor]:
    """Mean `(T,)` and covariance `(T, T)` of all codes under the encoder."""
    mean, covariance = torch.zeros(len(up), dtype=torch.float64), torch.zeros(len(up), len(up), dtype=torch.float64)
    before = x
    for t, (slope, variance) in enumerate(up):
        mean[t] = slope * before
        before = float(mean[t])
        covariance[t, :t] = covariance[:t, t] = slope * covariance[t - 1, :t] if t else 0.0
        covariance[t, t] = variance + (slope**2 * covariance[t - 1, t - 1] if t else 0.0)
    return mean, covariance


def exact_elbo(down: Steps, up: Steps, x: float) -> float:
    """log p(x) - KL(q(z|x) || p(z|x)), with both posteriors as joint Gaussians over all codes."""
    size = len(up)
    walk = torch.eye(size, dtype=torch.float64)  # the precision of p(z) is that of independent steps
    widths = torch.ones(size, dtype=torch.float64)
    for t, (slope, variance) in enumerate(down):
        walk[t, t + 1], widths[t] = -slope, variance
    precision = walk.T @ torch.diag(1 / widths) @ walk
    precision[0, 0] += 1 / NOISE**2
    pull = torch.zeros(size, dtype=torch.float64)
    pull[0] = x / NOISE**2
    true = MultivariateNormal(torch.linalg.solve(precision, pull), precision_matrix=precision)
    encoder = MultivariateNormal(*encoder_moments(up, x))
    gap = torch.distributions.kl_divergence(encoder, true)
    return float(evidence(down).log_prob(torch.tensor(x)) - gap)


def estimates(model: HierarchicalVAE, x: float, seed: int = 0) -> Tensor:
    likelihood, levels = model.elbo(torch.full((DRAWS, 1), x), torch.Generator().manual_seed(seed))
    return likelihood - torch.stack([level.sum(1) for level in levels]).sum(0)


def standard_error(values: Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values))


# --- the ELBO ---


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("x", [1.5, -0.4])
def test_the_mean_over_draws_is_the_exact_elbo(levels: int, x: float) -> None:
    values = estimates(hierarchy(DOWN[levels], WRONG_UP[levels]), x)
    wanted = exact_elbo(DOWN[levels], WRONG_UP[levels], x)
    assert standard_error(values) < 0.01
    assert float(values.mean()) == pytest.approx(wanted, abs=5 * standard_error(values))


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_with_the_exact_encoder_the_elbo_is_the_evidence(levels: int) -> None:
    values = estimates(hierarchy(DOWN[levels], EXACT_UP[levels]), 1.5)
    assert exact_elbo(DOWN[levels], EXACT_UP[levels], 1.5) == pytest.approx(
        float(evidence(DOWN[levels]).log_prob(torch.tensor(1.5))), abs=1e-9
    )
    assert float(values.mean()) == pytest.approx(float(evidence(DOWN[levels]).log_prob(torch.tensor(1.5))), abs=5 * standard_error(values))


def test_a_closed_form_kl_in_a_lower_level_would_give_another_number() -> None:
    model, x = hierarchy(DOWN[2], WRONG_UP[2]), torch.full((DRAWS, 1), 1.5)
    codes, posteriors = model.infer(x, torch.Generator().manual_seed(0))
    (b, v), (c, _), (_, s1) = DOWN[2][0], WRONG_UP[2][1], WRONG_UP[2][0]
    closed = kl_between_normals(*posteriors[0], *model.prior(1, codes[1])).mean()
    _, levels = model.elbo(x, torch.Generator().manual_seed(0))
    assert float(closed - levels[0].mean()) == pytest.approx(b * c * s1 / v, abs=0.02)


def test_every_level_has_the_mean_that_the_moments_give() -> None:
    x, (mean, covariance) = 1.5, encoder_moments(WRONG_UP[3], 1.5)
    _, levels = hierarchy(DOWN[3], WRONG_UP[3]).elbo(torch.full((DRAWS, 1), x), torch.Generator().manual_seed(1))
    for t, (slope, variance) in enumerate(DOWN[3]):
        square = (mean[t] - slope * mean[t + 1]) ** 2 + covariance[t, t] + slope**2 * covariance[t + 1, t + 1]
        square = square - 2 * slope * covariance[t, t + 1]
        wanted = 0.5 * math.log(variance / WRONG_UP[3][t][1]) - 0.5 + float(square) / (2 * variance)
        assert float(levels[t].mean()) == pytest.approx(wanted, abs=5 * standard_error(levels[t][:, 0]))
    top = float(covariance[2, 2] + mean[2] ** 2)
    top_variance = WRONG_UP[3][2][1]
    wanted = 0.5 * (top - 1 - math.log(top_variance))
    assert float(levels[2].mean()) == pytest.approx(wanted, abs=5 * standard_error(levels[2][:, 0]) + 1e-6)


def test_the_top_level_is_a_closed_form_and_never_negative() -> None:
    torch.manual_seed(0)
    model, x = HierarchicalVAE(6, [4, 3, 2], hidden=8), torch.randn(50, 6)
    with torch.no_grad():
        codes, posteriors = model.infer(x, torch.Generator().manual_seed(2))
        _, levels = model.elbo(x, torch.Generator().manual_seed(2))
    assert [tuple(level.shape) for level in levels] == [(50, 4), (50, 3), (50, 2)]
    torch.testing.assert_close(levels[2], kl_between_normals(*posteriors[2], torch.zeros(50, 2), torch.zeros(50, 2)))
    assert bool((levels[2] >= 0).all())
    assert [code.shape[1] for code in codes] == [4, 3, 2]


def test_a_lower_level_is_the_log_ratio_at_the_drawn_code() -> None:
    torch.manual_seed(1)
    model, x = HierarchicalVAE(6, [4, 3], hidden=8), torch.randn(50, 6)
    with torch.no_grad():
        (z1, z2), ((mu, logvar), _) = model.infer(x, torch.Generator().manual_seed(3))
        m, log_s = model.prior(1, z2)
        likelihood, (first, _) = model.elbo(x, torch.Generator().manual_seed(3))
        wanted = Normal(mu, (0.5 * logvar).exp()).log_prob(z1) - Normal(m, (0.5 * log_s).exp()).log_prob(z1)
        torch.testing.assert_close(first, wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(likelihood, Normal(model.decode(z1), 0.1).log_prob(x).sum(1), rtol=1e-5, atol=1e-3)


def test_one_level_is_the_vae() -> None:
    torch.manual_seed(0)
    one, vae, x = HierarchicalVAE(6, [3], hidden=8, noise=0.2), VAE(6, 3, hidden=[8], noise=0.2), torch.randn(5, 6)
    vae.encoder.load_state_dict(one.up[0].state_dict())
    vae.decoder.load_state_dict(one.decoder.state_dict())
    likelihood, (kl,) = one.elbo(x, torch.Generator().manual_seed(4))
    vae_likelihood, vae_kl = vae.elbo(x, torch.Generator().manual_seed(4))
    torch.testing.assert_close(likelihood, vae_likelihood)
    torch.testing.assert_close(kl, vae_kl)


def test_gradients_reach_every_network() -> None:
    torch.manual_seed(0)
    model = HierarchicalVAE(6, [4, 3, 2], hidden=8)
    likelihood, levels = model.elbo(torch.randn(20, 6), torch.Generator().manual_seed(5))
    (torch.stack([level.sum() for level in levels]).sum() - likelihood.sum()).backward()
    assert all(parameter.grad is not None and bool(parameter.grad.abs().sum() > 0) for parameter in model.parameters())


def test_the_gradient_with_respect_to_the_encoder_is_that_of_the_exact_elbo() -> None:
    """By finite differences of the closed form: the slope of q(z_1|x), and the link q(z_2|z_1)."""
    up, x, step = WRONG_UP[2], 1.5, 1e-4
    for level in (0, 1):
        changed = [[list(pair) for pair in up] for _ in range(2)]
        changed[0][level][0] += step
        changed[1][level][0] -= step
        more, less = (exact_elbo(DOWN[2], tuple((a, b) for a, b in pairs), x) for pairs in changed)
        model = hierarchy(DOWN[2], up).requires_grad_(True)
        estimates(model, x).mean().backward()
        layer = model.up[level]
        assert isinstance(layer, nn.Linear) and layer.weight.grad is not None
        assert float(layer.weight.grad[0, 0]) == pytest.approx((more - less) / (2 * step), abs=0.05)


# --- the weights ---


def test_with_the_exact_encoder_every_weight_is_the_evidence() -> None:
    for levels in (1, 2, 3):
        x = torch.linspace(-3, 3, 50)[:, None]
        weights = hierarchy(DOWN[levels], EXACT_UP[levels]).log_weight(x, torch.Generator().manual_seed(6))
        torch.testing.assert_close(weights, evidence(DOWN[levels]).log_prob(x)[:, 0], rtol=1e-4, atol=1e-4)


def test_the_mean_of_the_weights_is_the_elbo_and_of_their_exponentials_the_evidence() -> None:
    model = hierarchy(DOWN[2], WRONG_UP[2])
    weights = model.log_weight(torch.full((DRAWS, 1), 0.5), torch.Generator().manual_seed(7))
    assert float(weights.mean()) == pytest.approx(exact_elbo(DOWN[2], WRONG_UP[2], 0.5), abs=5 * standard_error(weights))
    log_p = float(evidence(DOWN[2]).log_prob(torch.tensor(0.5)))
    assert float(weights.logsumexp(0)) - math.log(DRAWS) == pytest.approx(log_p, abs=0.02)


# --- sampling ---


def test_samples_of_a_linear_chain_have_the_right_spread() -> None:
    model = hierarchy(DOWN[3], WRONG_UP[3])
    rows = model.sample(DRAWS, torch.Generator().manual_seed(8))
    assert rows.shape == (DRAWS, 1)
    assert float(rows.mean()) == pytest.approx(0, abs=0.02) and float(rows.var()) == pytest.approx(1, abs=0.02)


def test_a_fixed_top_leaves_only_the_variance_below() -> None:
    model, (slope, variance) = hierarchy(DOWN[2], WRONG_UP[2]), DOWN[2][0]
    rows = model.sample(DRAWS, torch.Generator().manual_seed(9), top=torch.full((DRAWS, 1), 1.7))
    assert float(rows.mean()) == pytest.approx(1.7 * slope, abs=0.02) and float(rows.var()) == pytest.approx(variance, abs=0.02)


def test_draws_repeat_with_the_generator_and_leave_the_global_state_alone() -> None:
    torch.manual_seed(0)
    model, x = HierarchicalVAE(6, [4, 3], hidden=8).requires_grad_(False), torch.randn(9, 6)
    state = torch.get_rng_state()
    for draw in (lambda g: model.sample(5, g), lambda g: model.log_weight(x, g), lambda g: model.elbo(x, g)[1][0]):
        first, again, other = (draw(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


# --- training and bad arguments ---


def test_training_closes_the_gap_on_linear_data() -> None:
    """Rows of a Gaussian with two strong directions: the fitted ELBO comes close to what no model can beat."""
    generator = torch.Generator().manual_seed(0)
    mixing, noise = torch.randn(2, 8, generator=generator), 0.3
    rows = torch.randn(3000, 2, generator=generator) @ mixing + noise * torch.randn(3000, 8, generator=generator)
    covariance = mixing.T @ mixing + noise**2 * torch.eye(8)
    best = float(MultivariateNormal(torch.zeros(8), covariance).log_prob(rows).mean())
    torch.manual_seed(0)
    model, draws = HierarchicalVAE(8, [2, 2], hidden=16, noise=noise), torch.Generator().manual_seed(1)

    def loss(batch: Tensor, step: int) -> Tensor:
        likelihood, levels = model.elbo(batch, draws)
        return (torch.stack([level.sum(1) for level in levels]).sum(0) - likelihood).mean()

    fit_rows(model, loss, rows, steps=300, rate=2e-2, progress=False)
    with torch.no_grad():
        reached = float(model.log_weight(rows, torch.Generator().manual_seed(2)).mean())
    assert best - 1.0 < reached < best + 0.05, (reached, best)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 6, "latents": []}, "one level at least"),
        ({"length": 6, "latents": [4, 0]}, "0 is no width"),
        ({"length": 0, "latents": [4]}, "0 is no width"),
        ({"length": 6, "latents": [4], "hidden": -1}, "-1 is no width"),
        ({"length": 6, "latents": [4], "noise": 0.0}, "the noise is 0.0"),
        ({"length": 6, "latents": [4], "noise": float("nan")}, "the noise is nan"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HierarchicalVAE(**arguments)  # type: ignore[arg-type]
