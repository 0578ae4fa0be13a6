"""The losses against closed forms, loops in float64, torch.distributions, and the published formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from divcolor_lib import losses
from divcolor_lib.errors import ShapeError

EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**31 - 1)


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fields(seed: int = 0, batch: int = 3, height: int = 5, width: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """A prediction, a truth and positive weights."""
    return (
        random(seed, batch, 2, height, width),
        random(seed + 1, batch, 2, height, width),
        random(seed + 2, batch, 1, height, width).exp(),
    )


def weighted_sums(prediction: Tensor, truth: Tensor, weights: Tensor | None) -> list[float]:
    """sum_p w_p (C_p - f_p)^2 of each image, by loops in float64."""
    batch, channels, height, width = truth.shape
    totals = [0.0] * batch
    for b in range(batch):
        for c in range(channels):
            for y in range(height):
                for x in range(width):
                    weight = 1.0 if weights is None else float(weights[b, 0, y, x])
                    totals[b] += weight * (float(truth[b, c, y, x]) - float(prediction[b, c, y, x])) ** 2
    return totals


def random_mixture(seed: int, batch: int = 4, components: int = 3, latent: int = 2, spread: float = 1.5) -> MixtureSameFamily:
    means = spread * random(seed, batch, components, latent)
    scales = 0.1 + random(seed + 1, batch, components, latent).abs()
    return MixtureSameFamily(Categorical(logits=random(seed + 2, batch, components)), Independent(Normal(means, scales), 1))


def log_joint(mixture: MixtureSameFamily, z: Tensor) -> np.ndarray:
    """log pi_k + log N(z; mu_k, diag s_k^2) as `(B, K)`, by loops in float64."""
    normals = mixture.component_distribution.base_dist
    weights = mixture.mixture_distribution.logits.double().softmax(1)
    means, scales, codes = normals.loc.double().numpy(), normals.scale.double().numpy(), z.double().numpy()
    batch, components, latent = means.shape
    result = np.zeros((batch, components))
    for b in range(batch):
        for k in range(components):
            result[b, k] = math.log(weights[b, k])
            for d in range(latent):
                s = scales[b, k, d]
                result[b, k] += -0.5 * ((codes[b, d] - means[b, k, d]) / s) ** 2 - math.log(s) - 0.5 * math.log(2 * math.pi)
    return result


# --- reconstruction ---


@pytest.mark.parametrize("weighted", [False, True])
def test_squared_error_is_the_mean_over_images_of_the_weighted_sum(weighted: bool) -> None:
    prediction, truth, weights = fields()
    expected = np.mean(weighted_sums(prediction, truth, weights if weighted else None))
    assert float(losses.squared_error(prediction, truth, weights if weighted else None)) == pytest.approx(expected, rel=1e-5)


def test_squared_error_does_not_change_if_every_image_comes_twice() -> None:
    prediction, truth, weights = fields()
    twice = losses.squared_error(prediction.repeat(2, 1, 1, 1), truth.repeat(2, 1, 1, 1), weights.repeat(2, 1, 1, 1))
    torch.testing.assert_close(twice, losses.squared_error(prediction, truth, weights))


@pytest.mark.parametrize("variance", [0.01, 0.5, 3.0])
def test_gaussian_reconstruction_is_the_normal_log_density_without_its_constant(variance: float) -> None:
    prediction, truth, _ = fields()
    log_density = Normal(prediction.double(), math.sqrt(variance)).log_prob(truth.double()).flatten(1).sum(1)
    constant = truth[0].numel() * 0.5 * math.log(2 * math.pi * variance)
    assert float(losses.gaussian_reconstruction(prediction, truth, variance)) == pytest.approx(
        float(-log_density.mean()) - constant, rel=1e-4
    )


def test_gaussian_reconstruction_weighs_pixels_as_squared_error_does() -> None:
    prediction, truth, weights = fields()
    expected = np.mean(weighted_sums(prediction, truth, weights)) / (2 * 0.05)
    assert float(losses.gaussian_reconstruction(prediction, truth, 0.05, weights)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_weighted_norm_takes_the_root_of_each_image_before_the_mean(weighted: bool) -> None:
    prediction, truth, weights = fields()
    expected = np.mean(np.sqrt(weighted_sums(prediction, truth, weights if weighted else None)))
    assert float(losses.weighted_norm(prediction, truth, weights if weighted else None)) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_the_weighted_norm_is_the_weighted_direction() -> None:
    prediction, truth, weights = fields()
    prediction.requires_grad_()
    losses.weighted_norm(prediction, truth, weights).backward()
    difference = (prediction - truth).detach().double()
    norms = (difference.square() * weights).flatten(1).sum(1).sqrt()[:, None, None, None]
    torch.testing.assert_close(prediction.grad, (weights * difference / norms / len(truth)).float())


def test_the_weighted_norm_has_the_gradient_zero_at_an_exact_zero_and_spoils_no_other_image() -> None:
    prediction, truth, weights = fields()
    prediction[1] = truth[1]
    prediction.requires_grad_()
    loss = losses.weighted_norm(prediction, truth, weights)
    loss.backward()
    gradient = prediction.grad
    assert gradient is not None and bool(gradient.isfinite().all())
    assert bool((gradient[1] == 0).all())
    assert bool((gradient[[0, 2]].flatten(1).abs().sum(1) > 0).all())
    sums = weighted_sums(prediction.detach(), truth, weights)
    assert sums[1] == 0 and loss.item() == pytest.approx(np.mean(np.sqrt(sums)), rel=1e-5)


def test_gradient_error_is_the_squared_difference_of_numpys_forward_differences() -> None:
    prediction, truth, _ = fields()
    a, b = prediction.double().numpy(), truth.double().numpy()
    expected = sum(((np.diff(b, axis=axis) - np.diff(a, axis=axis)) ** 2).sum() for axis in (2, 3)) / len(a)
    assert float(losses.gradient_error(prediction, truth)) == pytest.approx(expected, rel=1e-5)


def test_gradient_error_does_not_see_a_constant_shift() -> None:
    prediction, truth, _ = fields()
    shifted = losses.gradient_error(prediction + torch.tensor([0.5, -2.0])[:, None, None], truth)
    torch.testing.assert_close(shifted, losses.gradient_error(prediction, truth))
    assert float(losses.gradient_error(truth + 1, truth)) == pytest.approx(0, abs=1e-8)


# --- the Mahalanobis term ---


def components_of(seed: int, count: int, length: int) -> tuple[Tensor, Tensor]:
    rows = torch.linalg.qr(random(seed, length, count)).Q.T
    return rows, torch.linspace(3.0, 0.2, count)


@pytest.mark.parametrize("count", [1, 4, 24])
def test_mahalanobis_is_the_distance_under_the_explicit_inverse_covariance(count: int) -> None:
    prediction, truth, _ = fields(height=3, width=4)
    rows, variances = components_of(5, count, 24)
    covariance = rows.T.double() @ torch.diag(variances.double()) @ rows.double()
    covariance += variances[-1].double() * (torch.eye(24, dtype=torch.float64) - rows.T.double() @ rows.double())
    difference = (truth - prediction).flatten(1).double()
    expected = torch.einsum("bi,ij,bj->b", difference, torch.linalg.inv(covariance), difference).mean()
    assert float(losses.mahalanobis(prediction, truth, rows, variances)) == pytest.approx(float(expected), rel=1e-4)


def test_mahalanobis_of_a_difference_along_one_component_is_its_square_over_the_variance() -> None:
    rows, variances = components_of(5, 4, 24)
    truth = torch.zeros(1, 2, 3, 4)
    for k in range(4):
        prediction = 30 * rows[k].reshape(1, 2, 3, 4)
        assert float(losses.mahalanobis(prediction, truth, rows, variances)) == pytest.approx(900 / float(variances[k]), rel=1e-3)


def test_mahalanobis_refuses_components_of_another_length_or_without_variance() -> None:
    prediction, truth, _ = fields(height=3, width=4)
    rows, variances = components_of(5, 4, 24)
    with pytest.raises(ShapeError, match=r"`components` has shape \(4, 23\)"):
        losses.mahalanobis(prediction, truth, rows[:, :23], variances)
    with pytest.raises(ShapeError, match=r"`variances` has shape \(3,\)"):
        losses.mahalanobis(prediction, truth, rows, variances[:3])
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ShapeError, match="a principal component has no variance"):
            losses.mahalanobis(prediction, truth, rows, torch.tensor([3.0, 2.0, 1.0, bad]))


# --- KL ---


def test_kl_is_that_of_torch_distributions_for_each_image_and_dimension() -> None:
    mu, logvar = random(0, 6, 5), 2 * random(1, 6, 5)
    expected = kl_divergence(Normal(mu.double(), (logvar.double() / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(losses.kl_per_dimension(mu, logvar), expected.float(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses.kl_to_standard_normal(mu, logvar), expected.sum(1).mean().float(), rtol=1e-5, atol=0)


def test_kl_is_the_mean_log_ratio_of_many_draws() -> None:
    mu, logvar = torch.tensor([[0.7, -0.2]]), torch.tensor([[-1.0, 0.4]])
    posterior, prior = Normal(mu, (logvar / 2).exp()), Normal(torch.zeros(2), torch.ones(2))
    torch.manual_seed(0)
    z = posterior.sample((200_000,))
    ratios = (posterior.log_prob(z) - prior.log_prob(z)).sum((1, 2))
    error = float(ratios.std()) / math.sqrt(len(ratios))
    assert float(losses.kl_to_standard_normal(mu, logvar)) == pytest.approx(float(ratios.mean()), abs=4 * error)
    assert 4 * error < 0.01


@EXAMPLES
@given(
    mu=st.one_of(st.just(0.0), st.floats(-20, 20, width=32)),
    logvar=st.one_of(st.floats(-12, 6, width=32), st.floats(-(2**-10), 2**-10, width=32)),
)
def test_kl_is_never_negative_also_next_to_the_prior(mu: float, logvar: float) -> None:
    assert float(losses.kl_per_dimension(torch.tensor([[mu]]), torch.tensor([[logvar]]))) >= 0


def test_kl_is_never_negative_on_a_fine_grid_around_the_prior() -> None:
    logvar = torch.linspace(-1e-3, 1e-3, 2001)[:, None]
    kl = losses.kl_per_dimension(torch.zeros_like(logvar), logvar)
    assert float(kl.min()) >= 0
    torch.testing.assert_close(kl[:, 0], (logvar[:, 0].double().square() / 4).float(), rtol=2e-3, atol=1e-10)


def test_kl_is_zero_only_at_the_prior() -> None:
    assert float(losses.kl_to_standard_normal(torch.zeros(2, 3), torch.zeros(2, 3))) == 0
    assert float(losses.kl_to_standard_normal(torch.full((2, 3), 0.1), torch.zeros(2, 3))) == pytest.approx(0.015)


# --- mixtures ---


def test_the_mixture_loss_is_the_brute_force_log_likelihood() -> None:
    mixture, z = random_mixture(0), random(9, 4, 2)
    expected = -np.mean(np.log(np.exp(log_joint(mixture, z)).sum(1)))
    assert float(losses.mixture_nll(mixture, z)) == pytest.approx(expected, rel=1e-5)


def test_the_mixture_loss_stays_finite_where_every_density_underflows() -> None:
    mixture, z = random_mixture(0), random(9, 4, 2) + 500
    terms = log_joint(mixture, z)
    assert np.exp(terms).max() == 0, "the example must underflow even in float64"
    top = terms.max(1)
    expected = -np.mean(top + np.log(np.exp(terms - top[:, None]).sum(1)))
    assert float(losses.mixture_nll(mixture, z)) == pytest.approx(expected, rel=1e-5)


def test_the_nearest_component_bound_is_the_joint_of_the_component_with_the_nearest_mean() -> None:
    mixture, z = random_mixture(3, batch=20), random(9, 20, 2)
    means = mixture.component_distribution.mean
    terms = log_joint(mixture, z)
    nearest = [min(range(3), key=lambda k, b=b: float((z[b] - means[b, k]).norm())) for b in range(20)]
    assert any(k != int(terms[b].argmax()) for b, k in enumerate(nearest)), "nearest and most likely must differ somewhere"
    expected = -np.mean([terms[b, k] for b, k in enumerate(nearest)])
    assert float(losses.nearest_component_bound(mixture, z)) == pytest.approx(expected, rel=1e-5)


@EXAMPLES
@given(seed=SEEDS, components=st.integers(1, 9), latent=st.integers(1, 6), spread=st.floats(0, 20), far=st.floats(0, 100))
def test_the_bound_is_never_below_the_exact_loss(seed: int, components: int, latent: int, spread: float, far: float) -> None:
    mixture = random_mixture(seed, 5, components, latent, spread)
    z = far * random(seed + 3, 5, latent)
    for b in range(5):  # image by image, so that no mean hides a violation
        alone = MixtureSameFamily(
            Categorical(logits=mixture.mixture_distribution.logits[b : b + 1]),
            Independent(
                Normal(*(part[b : b + 1] for part in (mixture.component_distribution.mean, mixture.component_distribution.stddev))), 1
            ),
        )
        exact, bound = float(losses.mixture_nll(alone, z[b : b + 1])), float(losses.nearest_component_bound(alone, z[b : b + 1]))
        assert bound >= exact - 1e-5 * (1 + abs(exact))
        if components == 1:
            assert bound == pytest.approx(exact, rel=1e-5, abs=1e-5)


def test_the_bound_lies_well_above_the_exact_loss_where_components_overlap() -> None:
    same = MixtureSameFamily(Categorical(logits=torch.zeros(1, 4)), Independent(Normal(torch.zeros(1, 4, 2), torch.ones(1, 4, 2)), 1))
    gap = losses.nearest_component_bound(same, torch.ones(1, 2)) - losses.mixture_nll(same, torch.ones(1, 2))
    assert float(gap) == pytest.approx(math.log(4), rel=1e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_the_representative_loss_is_the_nearest_distance_minus_the_log_weight(shared: bool) -> None:
    logits, codes, mu = random(0, 6, 4), random(1, 6, 4, 3), random(2, 6, 3)
    precision = random(3, 3).exp() if shared else random(3, 6, 3).exp()
    total = 0.0
    for b in range(6):
        rates = precision if shared else precision[b]
        distances = [0.5 * sum(float(rates[d]) * (float(mu[b, d]) - float(codes[b, k, d])) ** 2 for d in range(3)) for k in range(4)]
        m = int(np.argmin(distances))
        weights = np.exp(logits[b].double().numpy())
        total += distances[m] - math.log(weights[m] / weights.sum())
    assert float(losses.representative_loss(logits, codes, mu, precision)) == pytest.approx(total / 6, rel=1e-5)


def test_the_representative_loss_moves_only_the_nearest_representative() -> None:
    logits, codes, mu = torch.zeros(1, 3), torch.tensor([[[0.0], [1.0], [5.0]]]).requires_grad_(), torch.tensor([[1.2]])
    losses.representative_loss(logits, codes, mu, torch.full((1,), 10.0)).backward()
    assert codes.grad is not None
    torch.testing.assert_close(codes.grad.flatten(), torch.tensor([0.0, -2.0, 0.0]))


# --- the published objectives ---


def test_the_reference_objective_is_the_published_formula() -> None:
    prediction, truth, weights = fields()
    mu, logvar = random(5, 3, 4), random(6, 3, 4)
    reconstruction = np.mean(np.sqrt(weighted_sums(prediction, truth, weights)))
    m, v = mu.double().numpy(), logvar.double().numpy()
    kl = -0.5 * np.sum(1 + v - m**2 - np.exp(v))  # summed over the batch too
    assert float(losses.reference_cvae_loss(prediction, truth, mu, logvar, weights)) == pytest.approx(reconstruction + 1e-2 * kl, rel=1e-5)


def test_the_reference_objective_weighs_the_code_more_in_a_larger_batch() -> None:
    prediction, truth, weights = fields()
    mu, logvar = random(5, 3, 4), random(6, 3, 4)

    def kl_share(copies: int) -> float:
        batch = [part.repeat(copies, *[1] * (part.ndim - 1)) for part in (prediction, truth, mu, logvar, weights)]
        reconstruction = losses.weighted_norm(batch[0], batch[1], batch[4])
        return float(losses.reference_cvae_loss(*batch) - reconstruction)

    one_image = float(losses.kl_to_standard_normal(mu, logvar))
    for copies in (1, 4):
        assert kl_share(copies) == pytest.approx(1e-2 * 3 * copies * one_image, rel=1e-3)


def test_the_reference_mixture_objective_is_the_published_formula() -> None:
    mixture, z = random_mixture(0, batch=6), random(9, 6, 2)
    means = mixture.component_distribution.mean.double().numpy()
    weights = mixture.mixture_distribution.probs.double().numpy()
    total = 0.0
    for b, code in enumerate(z.double().numpy()):
        distances = [math.sqrt(sum(50 * (code - mean) ** 2)) for mean in means[b]]
        m = int(np.argmin(distances))
        total += distances[m] - math.log(weights[b, m] + 1e-30)
    assert float(losses.reference_mixture_loss(mixture, z)) == pytest.approx(total / 6, rel=1e-5)


def test_the_reference_mixture_objective_has_a_finite_gradient_at_a_mean_and_at_weight_zero() -> None:
    means = torch.zeros(1, 2, 3).index_fill(1, torch.tensor([1]), 4.0).requires_grad_()
    logits = torch.tensor([[-200.0, 0.0]]).requires_grad_()
    mixture = MixtureSameFamily(Categorical(logits=logits), Independent(Normal(means, 0.1), 1))
    loss = losses.reference_mixture_loss(mixture, torch.zeros(1, 3))
    loss.backward()
    assert loss.item() == pytest.approx(30 * math.log(10), rel=1e-4)
    for leaf in (means, logits):
        assert leaf.grad is not None and bool(leaf.grad.isfinite().all())


def test_the_reference_mixture_objective_is_no_gaussian_likelihood() -> None:
    def loss(distance: float) -> float:
        single = MixtureSameFamily(Categorical(logits=torch.zeros(1, 1)), Independent(Normal(torch.zeros(1, 1, 2), 0.1), 1))
        return float(losses.reference_mixture_loss(single, torch.tensor([[distance, 0.0]])))

    assert loss(2.0) - loss(1.0) == pytest.approx(loss(3.0) - loss(2.0), rel=1e-4), "it grows as the distance, not as its square"
    assert loss(1.0) == pytest.approx(math.sqrt(50), rel=1e-4)


# --- float32 everywhere ---


def calls(dtype: torch.dtype) -> dict[str, Callable[[], Tensor]]:
    """Every loss on tensors of one type; the values themselves are exact in bfloat16."""

    def exact(tensor: Tensor) -> Tensor:
        return tensor.bfloat16().to(dtype)

    prediction, truth, weights = (exact(part) for part in fields(height=6, width=6))
    mu, logvar, codes, logits = exact(random(5, 3, 4)), exact(random(6, 3, 4)), exact(random(7, 3, 5, 4)), exact(random(8, 3, 5))
    precision = exact(random(9, 3, 4).exp())
    rows, variances = components_of(5, 4, 72)
    mixture = random_mixture(0, batch=3, latent=4)
    return {
        "squared_error": lambda: losses.squared_error(prediction, truth, weights),
        "gaussian_reconstruction": lambda: losses.gaussian_reconstruction(prediction, truth, 0.1, weights),
        "weighted_norm": lambda: losses.weighted_norm(prediction, truth, weights),
        "mahalanobis": lambda: losses.mahalanobis(prediction, truth, rows, variances),
        "gradient_error": lambda: losses.gradient_error(prediction, truth),
        "kl_to_standard_normal": lambda: losses.kl_to_standard_normal(mu, logvar),
        "kl_per_dimension": lambda: losses.kl_per_dimension(mu, logvar),
        "kl_between_normals": lambda: losses.kl_between_normals(mu, logvar, logvar, mu),
        "mixture_nll": lambda: losses.mixture_nll(mixture, mu),
        "nearest_component_bound": lambda: losses.nearest_component_bound(mixture, mu),
        "representative_loss": lambda: losses.representative_loss(logits, codes, mu, precision),
        "reference_cvae_loss": lambda: losses.reference_cvae_loss(prediction, truth, mu, logvar, weights),
        "reference_mixture_loss": lambda: losses.reference_mixture_loss(mixture, mu),
        "classification_error": lambda: losses.classification_error(prediction, torch.ones(3, 1, 6, 6).long(), weights.abs()),
    }


@pytest.mark.parametrize("name", sorted(calls(torch.float32)))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loss_under_autocast_has_the_value_of_float32(name: str, dtype: torch.dtype) -> None:
    expected = calls(torch.float32)[name]()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = calls(dtype)[name]()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_every_public_loss_is_in_the_test_above() -> None:
    public = {name for name, thing in vars(losses).items() if getattr(thing, "__module__", "") == losses.__name__ and name[0] != "_"}
    assert public == set(calls(torch.float32))


def test_the_classification_error_is_a_cross_entropy_against_soft_targets() -> None:
    logits, noise = random(1, 2, 6, 3, 4), torch.Generator().manual_seed(2)
    index = torch.rand(2, 6, 3, 4, generator=noise).argsort(1)[:, :3]
    shares = torch.rand(2, 3, 3, 4, generator=noise).softmax(1)
    target = torch.zeros(2, 6, 3, 4).scatter(1, index, shares)
    expected = F.cross_entropy(logits, target)
    assert float(losses.classification_error(logits, index, shares)) == pytest.approx(float(expected), rel=1e-5)
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0, 0.0, 1.5])
    each = F.cross_entropy(logits, target, reduction="none") * weights[index[:, 0]]
    assert float(losses.classification_error(logits, index, shares, weights)) == pytest.approx(float(each.mean()), rel=1e-5)


# --- shapes ---


@pytest.mark.parametrize("loss", [losses.squared_error, losses.weighted_norm, losses.gradient_error])
def test_fields_that_do_not_fit_together_are_refused_instead_of_broadcast(loss: Callable[..., Tensor]) -> None:
    prediction, truth, _ = fields()
    with pytest.raises(ShapeError, match="`prediction` has shape"):
        loss(prediction[:1], truth)
    with pytest.raises(ShapeError, match="`prediction` has shape"):
        loss(prediction[:, :1], truth)
    with pytest.raises(ShapeError, match="`truth` has shape"):
        loss(prediction[0], truth[0])


def test_weights_for_another_batch_or_for_each_channel_are_refused() -> None:
    prediction, truth, weights = fields()
    for bad in (weights[:1], weights.expand(-1, 2, -1, -1), weights[:, 0]):
        with pytest.raises(ShapeError, match="`weights` has shape"):
            losses.squared_error(prediction, truth, bad)


def test_codes_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ShapeError, match="`logvar` has shape"):
        losses.kl_to_standard_normal(torch.zeros(2, 3), torch.zeros(1, 3))
    with pytest.raises(ShapeError, match="`mu` has shape"):
        losses.kl_to_standard_normal(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ShapeError, match="`codes` has shape"):
        losses.representative_loss(torch.zeros(2, 5), torch.zeros(2, 4, 3), torch.zeros(2, 3), torch.ones(3))
