"""The mixture density network: the published network written down a second time, and mixtures by brute force."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, MultivariateNormal

from divcolor_lib import losses
from divcolor_lib.errors import CheckpointError, ConfigError, ShapeError
from divcolor_lib.mdn import MDN, SCALE_FLOOR, HeadsMDN, MDNConfig, ReferenceMDN

SIZES = {"inputs": (6, 4, 4), "latent": 3, "components": 5, "representatives": 4, "width": 1 / 8}
CONFIGS = {
    "heads": MDNConfig("heads", **SIZES),
    "heads, fixed scale": MDNConfig("heads", **SIZES, scale=0.3),
    "reference": MDNConfig("reference", **SIZES),
    "reference, fixed scale": MDNConfig("reference", **SIZES, scale=0.1),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(name: str, seed: int = 0) -> MDN:
    torch.manual_seed(seed)
    return MDN.build(CONFIGS[name])


def alive(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight and running statistic a random value, so that no part of the function hides."""
    generator = torch.Generator().manual_seed(seed)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2, generator=generator)
            part.running_var.uniform_(0.3, 2, generator=generator)
            nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(part.bias, 0, 0.2, generator=generator)
        elif isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.normal_(part.weight, 0, (2 / part.weight[0].numel()) ** 0.5, generator=generator)
            nn.init.normal_(part.bias, 0, 0.2, generator=generator)
    return network.eval()


# --- the published network, once more, from its layer table ---


class Published(nn.Module):
    """The table of the published network; `narrow` divides every channel count."""

    def __init__(self, narrow: int = 1) -> None:
        super().__init__()
        n = narrow
        self.model = nn.Sequential(
            *(nn.Conv2d(512 // n, 384 // n, 5, padding=2), nn.BatchNorm2d(384 // n), nn.ReLU()),
            *(nn.Conv2d(384 // n, 320 // n, 5, padding=2), nn.BatchNorm2d(320 // n), nn.ReLU()),
            *(nn.Conv2d(320 // n, 288 // n, 5, padding=2), nn.BatchNorm2d(288 // n), nn.ReLU()),
            *(nn.Conv2d(288 // n, 256 // n, 5, stride=2, padding=2), nn.BatchNorm2d(256 // n), nn.ReLU()),
            *(nn.Conv2d(256 // n, 128 // n, 5, padding=2), nn.BatchNorm2d(128 // n), nn.ReLU()),
            *(nn.Conv2d(128 // n, 96 // n, 5, stride=2, padding=2), nn.BatchNorm2d(96 // n), nn.ReLU()),
            *(nn.Conv2d(96 // n, 64 // n, 5, stride=2, padding=2), nn.BatchNorm2d(64 // n), nn.ReLU()),
            *(nn.Dropout(0.7), nn.Dropout(0.7)),
        )
        self.fc = nn.Linear(64 // n * 4 * 4, 8 * 64 + 8)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Means (B, 8, 64) and weights (B, 8)."""
        out = self.fc(F.relu(self.model(features)).reshape(len(features), -1))
        return out[:, : 8 * 64].reshape(-1, 8, 64), F.softmax(out[:, 8 * 64 :], dim=1)


@pytest.fixture(scope="module")
def published() -> Published:
    network = alive(Published(narrow=16), seed=3)
    assert isinstance(network, Published)
    return network


@pytest.mark.parametrize("counters", ["with", "without"])
def test_a_published_checkpoint_computes_the_published_mixture(published: Published, counters: str) -> None:
    state = {k: v for k, v in published.state_dict().items() if counters == "with" or not k.endswith("num_batches_tracked")}
    ours = MDN.from_reference(state)
    assert not any(part.training for part in ours.modules())
    features = random(1, 2, 32, 28, 28)
    with torch.no_grad():
        means, weights = published(features)
        mixture = ours(features)
        shown_weights, shown_codes = ours.representatives(features)
    assert float(means.std(dim=1).mean()) > 0.1 and float(weights.std()) > 0.01, "the example must not be flat"
    for found in (mixture.component_distribution.mean, shown_codes):
        torch.testing.assert_close(found, means, rtol=0, atol=1e-4)
    for found in (mixture.mixture_distribution.probs, shown_weights):
        torch.testing.assert_close(found, weights, rtol=0, atol=1e-5)
    assert torch.equal(mixture.component_distribution.stddev, torch.full((2, 8, 64), 0.1))


def test_the_sizes_of_a_published_checkpoint_are_read_from_it(published: Published) -> None:
    ours = MDN.from_reference(published.state_dict())
    assert isinstance(ours, ReferenceMDN)
    assert ours.config == MDNConfig("reference", inputs=(32, 28, 28), latent=64, components=8, width=1 / 16, scale=0.1, dropout=0.7)


def test_the_published_width_has_the_published_number_of_parameters_and_names() -> None:
    with torch.device("meta"):
        ours = MDN.build(MDNConfig("reference", inputs=(512, 28, 28), latent=64, components=8, scale=0.1))
        table = Published()
    assert sum(parameter.numel() for parameter in ours.parameters()) == 13_952_008
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in table.state_dict().items()}


@pytest.mark.parametrize("name", ["model.0.weight", "model.4.running_var", "model.19.bias", "fc.weight", "fc.bias"])
def test_a_missing_tensor_is_named(published: Published, name: str) -> None:
    state = {key: value for key, value in published.state_dict().items() if key != name}
    with pytest.raises(CheckpointError) as caught:
        MDN.from_reference(state)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["model.3.weight", "model.18.weight", "model.1.running_mean", "fc.bias"])
def test_a_tensor_of_another_shape_is_named(published: Published, name: str) -> None:
    state = published.state_dict()
    with pytest.raises(CheckpointError, match=rf"another shape of {name}"):
        MDN.from_reference({**state, name: torch.cat([state[name]] * 2)})


def test_a_head_that_holds_no_whole_number_of_components_is_named(published: Published) -> None:
    state = published.state_dict()
    with pytest.raises(CheckpointError, match=r"fc\.weight"):
        MDN.from_reference({**state, "fc.weight": state["fc.weight"][:-1]})


def test_an_extra_tensor_is_named(published: Published) -> None:
    with pytest.raises(CheckpointError, match=r"unknown model\.21\.weight"):
        MDN.from_reference({**published.state_dict(), "model.21.weight": torch.ones(2)})


@pytest.mark.parametrize("channels", [0, 2000])
def test_a_file_with_impossible_sizes_is_a_bad_checkpoint_and_no_bad_setting(published: Published, channels: int) -> None:
    with pytest.raises(CheckpointError):
        MDN.from_reference({**published.state_dict(), "model.0.weight": torch.zeros(channels, 32, 5, 5)})


@pytest.mark.parametrize("state", [{}, {"enc_conv1.weight": torch.zeros(128, 2, 5, 5)}, {"model.0.weight": torch.zeros(3)}])
def test_a_file_of_another_kind_is_refused_with_the_names_it_should_have(state: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"not a state_dict of the reference MDN.*named model\.0 to model\.19 and fc"):
        MDN.from_reference(state)


# --- the mixture ---


@pytest.mark.parametrize("name", CONFIGS)
def test_the_log_density_is_that_of_a_mixture_of_normals_by_hand(name: str) -> None:
    network = alive(build(name))
    features, z = random(1, 4, 6, 4, 4), random(2, 4, 3)
    with torch.no_grad():
        mixture = network(features)
        found = mixture.log_prob(z)
    assert mixture.event_shape == (3,) and mixture.batch_shape == (4,) and found.shape == (4,)
    weights, means = mixture.mixture_distribution.probs.double(), mixture.component_distribution.mean.double()
    scales = mixture.component_distribution.stddev.double()
    for b in range(4):
        densities = [
            float(weights[b, k] * MultivariateNormal(means[b, k], torch.diag(scales[b, k] ** 2)).log_prob(z[b].double()).exp())
            for k in range(5)
        ]
        assert float(found[b]) == pytest.approx(math.log(sum(densities)), rel=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_weights_are_probabilities_and_every_photograph_has_its_own_mixture(name: str) -> None:
    network = alive(build(name))
    with torch.no_grad():
        mixture = network(random(1, 4, 6, 4, 4))
    weights, means = mixture.mixture_distribution.probs, mixture.component_distribution.mean
    assert weights.shape == (4, 5) and means.shape == mixture.component_distribution.stddev.shape == (4, 5, 3)
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    assert float(means.std(dim=0).mean()) > 1e-3 and float(weights.std(dim=0).mean()) > 1e-4


@pytest.mark.parametrize("name", ["heads", "reference"])
def test_a_learned_scale_differs_by_component_and_dimension_and_never_passes_its_floor(name: str) -> None:
    network = alive(build(name))
    features = random(1, 4, 6, 4, 4)
    head = network.get_submodule("mixture_head" if name == "heads" else "fc")
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        scales = network(features).component_distribution.stddev
        assert len(scales.unique()) == 4 * 5 * 3 and float(scales.min()) > SCALE_FLOOR
        raw = F.linear(torch.zeros(1, head.in_features), head.weight, head.bias)[:, 5 * (1 + 3) :]
        head.weight.zero_()
        expected = SCALE_FLOOR + np.log1p(np.exp(raw.double().numpy()))
        np.testing.assert_allclose(network(features).component_distribution.stddev[0].flatten(), expected[0], rtol=1e-5)
        head.bias.fill_(-1e4)
        assert torch.equal(network(features).component_distribution.stddev, torch.full((4, 5, 3), 0.05))
        assert bool(network(features).log_prob(torch.zeros(4, 3)).isfinite().all())


@pytest.mark.parametrize(("name", "scale"), [("heads, fixed scale", 0.3), ("reference, fixed scale", 0.1)])
def test_a_fixed_scale_is_the_same_everywhere(name: str, scale: float) -> None:
    with torch.no_grad():
        mixture = alive(build(name))(random(1, 4, 6, 4, 4))
    assert torch.equal(mixture.component_distribution.stddev, torch.full((4, 5, 3), scale))


@pytest.mark.parametrize("name", CONFIGS)
def test_samples_come_from_the_mixture(name: str) -> None:
    network = alive(build(name))
    with torch.no_grad():
        mixture = network(random(1, 1, 6, 4, 4))
    torch.manual_seed(0)
    draws = mixture.sample((50_000,))[:, 0].double()
    weights, means = mixture.mixture_distribution.probs[0].double(), mixture.component_distribution.mean[0].double()
    second = means.square() + mixture.component_distribution.variance[0].double()
    mean = weights @ means
    variance = weights @ second - mean.square()
    assert bool(((draws.mean(0) - mean).abs() < 5 * (variance / 50_000).sqrt()).all())
    torch.testing.assert_close(draws.var(0), variance, rtol=0.05, atol=0)


def test_the_mixture_is_float32_under_autocast() -> None:
    for name in CONFIGS:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            mixture = build(name).eval()(random(1, 2, 6, 4, 4))
            weights, codes = build(name).eval().representatives(random(1, 2, 6, 4, 4))
        parts = (
            mixture.mixture_distribution.logits,
            mixture.component_distribution.mean,
            mixture.component_distribution.stddev,
            codes,
            weights,
        )
        assert {part.dtype for part in parts} == {torch.float32}, name


# --- representatives ---


@pytest.mark.parametrize(("name", "count"), [("heads", 4), ("reference", 5)])
def test_representatives_have_weights_that_sum_to_one(name: str, count: int) -> None:
    network = alive(build(name))
    with torch.no_grad():
        weights, codes = network.representatives(random(1, 2, 6, 4, 4))
    assert weights.shape == (2, count) and codes.shape == (2, count, 3)
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    assert float(weights.min()) > 0


def test_the_reference_shows_the_means_of_its_mixture() -> None:
    network = alive(build("reference"))
    features = random(1, 2, 6, 4, 4)
    with torch.no_grad():
        weights, codes = network.representatives(features)
        mixture = network(features)
    assert torch.equal(weights, mixture.mixture_distribution.probs) and torch.equal(codes, mixture.component_distribution.mean)


def test_one_pass_for_both_heads_gives_what_two_passes_give() -> None:
    network = alive(build("heads"))
    assert isinstance(network, HeadsMDN)
    features = random(1, 2, 6, 4, 4)
    with torch.no_grad():
        mixture, logits, codes = network.both(features)
        weights, alone = network.representatives(features)
        again = network(features)
    assert torch.equal(logits.softmax(1), weights) and torch.equal(codes, alone)
    z = random(2, 2, 3)
    assert torch.equal(mixture.log_prob(z), again.log_prob(z))
    assert not torch.allclose(codes, mixture.component_distribution.mean[:, :4]), "the heads have their own weights"


# --- where the means start ---


def silence(network: MDN) -> None:
    for name in ("mixture_head", "representatives_head", "fc"):
        if hasattr(network, name):
            nn.init.zeros_(network.get_submodule(name).weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CONFIGS)
def test_means_and_representatives_start_at_the_centers(name: str) -> None:
    network = build(name).eval()
    centers = 4 * random(7, 5, 3)
    features = random(1, 3, 6, 4, 4)
    network.initialize(centers)
    with torch.no_grad():
        means = network(features).component_distribution.mean
        shown = network.representatives(features)[1]
        for codes in (means, shown):
            nearest = torch.cdist(codes, centers.expand(3, 5, 3)).argmin(2)
            assert torch.equal(nearest, torch.arange(codes.shape[1]).expand(3, -1)), "each starts nearest to its own center"
        silence(network)
        torch.testing.assert_close(network(features).component_distribution.mean, centers.expand(3, 5, 3))
        shown = network.representatives(features)[1]
        torch.testing.assert_close(shown, centers[: shown.shape[1]].expand_as(shown))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_start_moves_neither_weights_nor_scales(name: str) -> None:
    network = build(name).eval()
    features = random(1, 3, 6, 4, 4)
    with torch.no_grad():
        before = network(features)
        network.initialize(random(7, 5, 3))
        after = network(features)
    assert torch.equal(before.mixture_distribution.logits, after.mixture_distribution.logits)
    assert torch.equal(before.component_distribution.stddev, after.component_distribution.stddev)
    assert not torch.allclose(before.component_distribution.mean, after.component_distribution.mean)


def test_our_mixture_starts_with_nearly_equal_weights() -> None:
    network = build("heads").eval()
    with torch.no_grad():
        features = random(1, 3, 6, 4, 4)
        for weights in (network(features).mixture_distribution.probs, network.representatives(features)[0]):
            torch.testing.assert_close(weights, torch.full_like(weights, 1 / weights.shape[1]), rtol=0.6, atol=0)


def test_more_representatives_than_components_take_all_the_centers() -> None:
    network = MDN.build(MDNConfig("heads", inputs=(6, 4, 4), latent=3, components=2, representatives=5, width=1 / 8)).eval()
    centers = random(7, 5, 3)
    network.initialize(centers)
    silence(network)
    with torch.no_grad():
        torch.testing.assert_close(network.representatives(random(1, 1, 6, 4, 4))[1][0], centers)
        torch.testing.assert_close(network(random(1, 1, 6, 4, 4)).component_distribution.mean[0], centers[:2])


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("shape", [(4, 3), (5, 2), (5,), (1, 5, 3)])
def test_centers_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"`centers` has shape"):
        build(name).initialize(torch.zeros(shape))


# --- training, modes, misuse ---


def test_gradients_reach_every_parameter_of_ours() -> None:
    network = build("heads").train()
    assert isinstance(network, HeadsMDN)
    mixture, logits, codes = network.both(random(1, 8, 6, 4, 4))
    z = random(2, 8, 3)
    (losses.mixture_nll(mixture, z) + losses.representative_loss(logits, codes, z, torch.ones(3))).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().sum()) > 0, name


def test_gradients_reach_every_parameter_of_the_reference() -> None:
    network = build("reference").train()
    losses.mixture_nll(network(random(1, 8, 6, 4, 4)), random(2, 8, 3)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        before_norm = name.startswith("model.") and name.endswith("bias") and int(name.split(".")[1]) % 3 == 0
        assert before_norm or float(parameter.grad.abs().sum()) > 0, name  # batch norm takes a bias before it away


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_no_call_changes_the_mode(name: str, training: bool) -> None:
    network = build(name).train(training)
    features = random(1, 4, 6, 4, 4)
    network(features)
    network.representatives(features)
    network.initialize(torch.zeros(5, 3))
    assert all(part.training is training for part in network.modules())


@pytest.mark.parametrize("name", CONFIGS)
def test_eval_mode_repeats_itself_and_training_drops_features(name: str) -> None:
    network = alive(build(name))
    features = random(1, 4, 6, 4, 4)
    with torch.no_grad():
        first, second = network(features).component_distribution.mean, network(features).component_distribution.mean
        assert torch.equal(first, second)
        network.train()
        torch.manual_seed(0)
        first, second = network(features).component_distribution.mean, network(features).component_distribution.mean
        assert not torch.equal(first, second)


def test_the_reference_drops_features_twice_so_that_few_survive() -> None:
    network = ReferenceMDN(MDNConfig("reference", inputs=(6, 4, 4), latent=3, components=2, scale=0.1, width=1 / 8, dropout=0.7)).train()
    dropouts = nn.Sequential(*(part for part in network.model if isinstance(part, nn.Dropout)))
    torch.manual_seed(0)
    survivors = float((dropouts(torch.ones(100_000)) > 0).float().mean())
    assert survivors == pytest.approx(0.09, abs=5 * math.sqrt(0.09 * 0.91 / 100_000))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("shape", [(2, 7, 4, 4), (2, 6, 8, 8), (6, 4, 4), (0, 6, 4, 4), (2, 96)])
def test_features_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...]) -> None:
    network = build(name)
    calls = [network, network.representatives] + ([network.both] if isinstance(network, HeadsMDN) else [])
    for call in calls:
        with pytest.raises(ShapeError, match="`features` has shape"):
            call(torch.zeros(shape))


@pytest.mark.parametrize(
    "setting",
    [
        *({"design": "forest"}, {"latent": 0}, {"components": 0}, {"representatives": 0}, {"inputs": (6, 4)}, {"inputs": (6, 0, 4)}),
        *({"width": 0.0}, {"width": 4.5}, {"dropout": 1.0}, {"dropout": -0.1}, {"scale": 0.0}, {"scale": -1.0}),
    ],
)
def test_a_setting_without_a_network_is_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        MDNConfig(**setting)  # type: ignore[arg-type]
    assert str(next(iter(setting.values()))) in str(caught.value)


def test_inputs_read_from_a_file_as_a_list_become_a_tuple() -> None:
    assert MDNConfig(inputs=[6, 4, 4]) == MDNConfig(inputs=(6, 4, 4))  # type: ignore[arg-type]
    assert hash(MDNConfig(inputs=[6, 4, 4])) == hash(MDNConfig(inputs=(6, 4, 4)))  # type: ignore[arg-type]


def test_the_configuration_chooses_the_design_and_odd_sizes_fit() -> None:
    assert isinstance(build("heads"), HeadsMDN) and isinstance(build("reference"), ReferenceMDN)
    for design in ("heads", "reference"):
        network = MDN.build(MDNConfig(design, inputs=(3, 5, 7), latent=2, components=1, representatives=1, width=1 / 8)).eval()
        assert isinstance(network(torch.zeros(2, 3, 5, 7)).mixture_distribution, Categorical)
