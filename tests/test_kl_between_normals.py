"""`losses.kl_between_normals` against torch.distributions, numeric integration and what defines a KL."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from divcolor_lib.errors import ShapeError
from divcolor_lib.losses import kl_between_normals, kl_per_dimension

EXAMPLES = settings(max_examples=50, deadline=None, derandomize=True)


def gaussians(seed: int = 0, shape: tuple[int, int] = (7, 5), spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(spread * torch.randn(*shape, generator=generator) for _ in range(4))  # type: ignore[return-value]


def by_torch(mu: Tensor, logvar: Tensor, prior_mu: Tensor, prior_logvar: Tensor) -> Tensor:
    first = Normal(mu.double(), (0.5 * logvar.double()).exp())
    return kl_divergence(first, Normal(prior_mu.double(), (0.5 * prior_logvar.double()).exp()))


@EXAMPLES
@given(seed=st.integers(0, 10_000), spread=st.floats(0.01, 3.0))
def test_it_agrees_with_torch_distributions(seed: int, spread: float) -> None:
    numbers = gaussians(seed, spread=spread)
    found = kl_between_normals(*numbers)
    assert found.shape == (7, 5) and found.dtype == torch.float32
    torch.testing.assert_close(found.double(), by_torch(*numbers), rtol=1e-4, atol=1e-6)


def test_it_is_the_integral_that_defines_it() -> None:
    mu, logvar, prior_mu, prior_logvar = (float(number) for number in (0.3, -0.8, -0.5, 0.4))
    z = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    first, second = (Normal(center, torch.tensor(0.5 * log).exp()) for center, log in ((mu, logvar), (prior_mu, prior_logvar)))
    integral = torch.trapezoid(first.log_prob(z).exp() * (first.log_prob(z) - second.log_prob(z)), z)
    found = kl_between_normals(*(torch.tensor([[number]]) for number in (mu, logvar, prior_mu, prior_logvar)))
    assert float(found) == pytest.approx(float(integral), rel=1e-5)


def test_equal_gaussians_have_none_and_others_have_some() -> None:
    mu, logvar, prior_mu, prior_logvar = gaussians(1)
    assert torch.equal(kl_between_normals(mu, logvar, mu, logvar), torch.zeros(7, 5))
    assert bool((kl_between_normals(mu, logvar, prior_mu, prior_logvar) > 0).all())


@pytest.mark.parametrize("step", [1e-2, 1e-3, 1e-4])
def test_it_is_not_negative_for_gaussians_that_hardly_differ(step: float) -> None:
    mu, logvar, shift, stretch = gaussians(2)
    found = kl_between_normals(mu + step * shift, logvar + step * stretch, mu, logvar)
    assert bool((found >= 0).all())
    if step > 1e-3:
        torch.testing.assert_close(found.double(), by_torch(mu + step * shift, logvar + step * stretch, mu, logvar), rtol=2e-2, atol=1e-7)


def test_it_is_not_symmetric() -> None:
    mu, logvar, prior_mu, prior_logvar = gaussians(3)
    there, back = kl_between_normals(mu, logvar, prior_mu, prior_logvar), kl_between_normals(prior_mu, prior_logvar, mu, logvar)
    assert float((there - back).abs().max()) > 0.1


def test_against_the_standard_normal_it_is_the_usual_term() -> None:
    mu, logvar, _, _ = gaussians(4)
    zeros = torch.zeros_like(mu)
    torch.testing.assert_close(kl_between_normals(mu, logvar, zeros, zeros), kl_per_dimension(mu, logvar))


def test_it_does_not_change_when_both_gaussians_move_and_stretch_alike() -> None:
    mu, logvar, prior_mu, prior_logvar = gaussians(5)
    moved = (3 * mu - 2, logvar + 2 * torch.tensor(3.0).log(), 3 * prior_mu - 2, prior_logvar + 2 * torch.tensor(3.0).log())
    torch.testing.assert_close(kl_between_normals(*moved), kl_between_normals(mu, logvar, prior_mu, prior_logvar), rtol=1e-4, atol=1e-5)


def test_gradients_reach_all_four_and_are_those_of_torch() -> None:
    ours = [number.requires_grad_() for number in gaussians(6)]
    theirs = [number.detach().double().requires_grad_() for number in ours]
    kl_between_normals(*ours).sum().backward()
    by_torch(*theirs).sum().backward()
    for found, wanted in zip(ours, theirs):
        assert found.grad is not None and wanted.grad is not None
        torch.testing.assert_close(found.grad.double(), wanted.grad, rtol=1e-4, atol=1e-5)


def test_half_precision_is_computed_in_single() -> None:
    numbers = [number.half() for number in gaussians(7)]
    found = kl_between_normals(*numbers)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), by_torch(*numbers), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("odd", [1, 2, 3])
def test_shapes_that_differ_are_refused_by_name(odd: int) -> None:
    numbers = list(gaussians())
    numbers[odd] = numbers[odd][:, :1]  # would broadcast silently
    name = ("mu", "logvar", "prior_mu", "prior_logvar")[odd]
    with pytest.raises(ShapeError, match=f"`{name}` has shape"):
        kl_between_normals(*numbers)
