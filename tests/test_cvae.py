"""The conditional VAE: the published network written down a second time, its checkpoints, and what both designs promise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from divcolor_lib.autoencoder import LOGVAR_RANGE, reparameterize
from divcolor_lib.cvae import CVAE, ColorRegressor, CVAEConfig, ReferenceCVAE, UNetCVAE, load_exactly
from divcolor_lib.errors import CheckpointError, ConfigError, ShapeError

SMALL = 1 / 16
CONFIGS = {"unet": CVAEConfig("unet", latent=6, width=SMALL), "reference": CVAEConfig("reference", latent=5, width=SMALL)}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def photographs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random `(gray, ab)` in their ranges."""
    return random(seed, count, 1, 64, 64).tanh(), 0.5 * random(seed + 1, count, 2, 64, 64).tanh()


def build(name: str, seed: int = 0) -> CVAE:
    torch.manual_seed(seed)
    return CVAE.build(CONFIGS[name])


def alive(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight and running statistic a random value, as training would, so that no part of the function hides."""
    generator = torch.Generator().manual_seed(seed)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2, generator=generator)
            part.running_var.uniform_(0.3, 2, generator=generator)
            nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(part.bias, 0, 0.2, generator=generator)
            part.num_batches_tracked.fill_(7)
        elif isinstance(part, nn.Conv2d | nn.Linear):
            gain = 2 if isinstance(part, nn.Conv2d) else 0.1  # the code must be heard, and not drown the picture
            nn.init.normal_(part.weight, 0, (gain / part.weight[0].numel()) ** 0.5, generator=generator)
            if part.bias is not None:
                nn.init.normal_(part.bias, 0, 0.2, generator=generator)
    return network.eval()


# --- the published network, once more, from its layer table ---


class Published(nn.Module):
    """The table of the published network; `narrow` divides every channel count."""

    def __init__(self, narrow: int = 1, latent: int = 64) -> None:
        super().__init__()
        n, self.latent = narrow, latent
        self.enc_conv1, self.enc_bn1 = nn.Conv2d(2, 128 // n, 5, 2, 2), nn.BatchNorm2d(128 // n)
        self.enc_conv2, self.enc_bn2 = nn.Conv2d(128 // n, 256 // n, 5, 2, 2), nn.BatchNorm2d(256 // n)
        self.enc_conv3, self.enc_bn3 = nn.Conv2d(256 // n, 512 // n, 5, 2, 2), nn.BatchNorm2d(512 // n)
        self.enc_conv4, self.enc_bn4 = nn.Conv2d(512 // n, 1024 // n, 3, 2, 1), nn.BatchNorm2d(1024 // n)
        self.enc_fc1 = nn.Linear(1024 // n * 4 * 4, 2 * latent)
        self.cond_enc_conv1, self.cond_enc_bn1 = nn.Conv2d(1, 128 // n, 5, 2, 2), nn.BatchNorm2d(128 // n)
        self.cond_enc_conv2, self.cond_enc_bn2 = nn.Conv2d(128 // n, 256 // n, 5, 2, 2), nn.BatchNorm2d(256 // n)
        self.cond_enc_conv3, self.cond_enc_bn3 = nn.Conv2d(256 // n, 512 // n, 5, 2, 2), nn.BatchNorm2d(512 // n)
        self.cond_enc_conv4, self.cond_enc_bn4 = nn.Conv2d(512 // n, 1024 // n, 3, 2, 1), nn.BatchNorm2d(1024 // n)
        self.dec_conv1, self.dec_bn1 = nn.Conv2d(latent + 1024 // n, 512 // n, 3, 1, 1), nn.BatchNorm2d(512 // n)
        self.dec_conv2, self.dec_bn2 = nn.Conv2d(2 * 512 // n, 256 // n, 5, 1, 2), nn.BatchNorm2d(256 // n)
        self.dec_conv3, self.dec_bn3 = nn.Conv2d(2 * 256 // n, 128 // n, 5, 1, 2), nn.BatchNorm2d(128 // n)
        self.dec_conv4, self.dec_bn4 = nn.Conv2d(2 * 128 // n, 64 // n, 5, 1, 2), nn.BatchNorm2d(64 // n)
        self.dec_conv5 = nn.Conv2d(64 // n, 2, 5, 1, 2)
        self.up4 = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False)
        self.up2 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)

    def encode(self, ab: Tensor) -> tuple[Tensor, Tensor]:
        x = self.enc_bn1(F.relu(self.enc_conv1(ab)))
        x = self.enc_bn2(F.relu(self.enc_conv2(x)))
        x = self.enc_bn3(F.relu(self.enc_conv3(x)))
        x = self.enc_bn4(F.relu(self.enc_conv4(x)))
        out = self.enc_fc1(x.reshape(len(x), -1))
        return out[:, : self.latent], out[:, self.latent :]

    def skips(self, gray: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        skip32 = self.cond_enc_bn1(F.relu(self.cond_enc_conv1(gray)))
        skip16 = self.cond_enc_bn2(F.relu(self.cond_enc_conv2(skip32)))
        skip8 = self.cond_enc_bn3(F.relu(self.cond_enc_conv3(skip16)))
        return skip32, skip16, skip8, self.cond_enc_bn4(F.relu(self.cond_enc_conv4(skip8)))

    def decode(self, z: Tensor, gray: Tensor) -> Tensor:
        skip32, skip16, skip8, skip4 = self.skips(gray)
        x = self.up4(z[:, :, None, None])
        x = self.dec_bn1(F.relu(self.dec_conv1(torch.cat([x, skip4], 1))))
        x = self.dec_bn2(F.relu(self.dec_conv2(torch.cat([self.up2(x), skip8], 1))))
        x = self.dec_bn3(F.relu(self.dec_conv3(torch.cat([self.up2(x), skip16], 1))))
        x = self.dec_bn4(F.relu(self.dec_conv4(torch.cat([self.up2(x), skip32], 1))))
        return torch.tanh(self.dec_conv5(self.up2(x)))


@pytest.fixture(scope="module")
def published() -> Published:
    network = alive(Published(narrow=16), seed=3)
    assert isinstance(network, Published)
    return network


@pytest.mark.parametrize("counters", ["with", "without"])
def test_a_published_checkpoint_computes_the_published_function(published: Published, counters: str) -> None:
    state = {k: v for k, v in published.state_dict().items() if counters == "with" or not k.endswith("num_batches_tracked")}
    ours = CVAE.from_reference(state)
    gray, ab = photographs(2)
    z = random(5, 2, 64)
    with torch.no_grad():
        mu, logvar = published.encode(ab)
        painted = published.decode(z, gray)
        assert min(float(mu.std()), float(logvar.std())) > 0.1 and float(painted.std()) > 0.1, "the example must not be flat"
        assert float((painted.abs() > 0.99).float().mean()) < 0.5, "nor saturated"
        torch.testing.assert_close(ours.encode(ab), (mu, logvar), rtol=0, atol=1e-4)
        torch.testing.assert_close(ours.encode(ab, gray), (mu, logvar), rtol=0, atol=1e-4)
        torch.testing.assert_close(ours.decode(z, gray), painted, rtol=0, atol=1e-4)
        torch.testing.assert_close(ours.gray_features(gray), list(published.skips(gray)), rtol=0, atol=1e-4)


def test_a_published_checkpoint_decodes_many_codes_as_the_published_function_does(published: Published) -> None:
    ours = CVAE.from_reference(published.state_dict())
    gray, _ = photographs(2)
    z = random(5, 2, 3, 64)
    with torch.no_grad():
        expected = torch.stack([published.decode(z[:, k], gray) for k in range(3)], dim=1)
        torch.testing.assert_close(ours.decode_many(z, gray), expected, rtol=0, atol=1e-4)


def test_a_network_from_a_checkpoint_comes_in_eval_mode_with_its_sizes_read_from_it(published: Published) -> None:
    ours = CVAE.from_reference(published.state_dict())
    assert isinstance(ours, ReferenceCVAE)
    assert not any(part.training for part in ours.modules())
    assert ours.config == CVAEConfig("reference", latent=64, width=1 / 16)
    other = CVAE.from_reference(Published(narrow=32, latent=9).state_dict())
    assert (other.config.latent, other.config.width) == (9, 1 / 32)


def test_a_checkpoint_is_copied_and_not_shared(published: Published) -> None:
    state = {name: value.clone() for name, value in published.state_dict().items()}
    ours = CVAE.from_reference(state)
    with torch.no_grad():
        ours.dec_conv5.bias.add_(1)  # type: ignore[union-attr, operator]
    assert torch.equal(state["dec_conv5.bias"], published.dec_conv5.bias)


def test_the_published_width_has_the_published_number_of_parameters_and_names() -> None:
    with torch.device("meta"):
        ours = CVAE.build(CVAEConfig("reference", latent=64, width=1.0))
        table = Published()
    assert sum(parameter.numel() for parameter in ours.parameters()) == 33_368_770
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in table.state_dict().items()}


@pytest.mark.parametrize("name", ["enc_conv1.weight", "enc_fc1.weight", "cond_enc_bn3.running_var", "dec_bn2.bias", "dec_conv5.weight"])
def test_a_missing_tensor_is_named(published: Published, name: str) -> None:
    state = {key: value for key, value in published.state_dict().items() if key != name}
    with pytest.raises(CheckpointError) as caught:
        CVAE.from_reference(state)
    assert name in str(caught.value)


def test_an_extra_tensor_is_named(published: Published) -> None:
    with pytest.raises(CheckpointError, match=r"unknown dec_bn5\.weight"):
        CVAE.from_reference({**published.state_dict(), "dec_bn5.weight": torch.ones(2)})


@pytest.mark.parametrize(
    "name", ["enc_conv3.weight", "enc_bn1.running_mean", "cond_enc_conv4.bias", "dec_conv1.weight", "enc_bn1.num_batches_tracked"]
)
def test_a_tensor_of_another_shape_is_named(published: Published, name: str) -> None:
    state = published.state_dict()
    with pytest.raises(CheckpointError, match=rf"another shape of {name}"):
        CVAE.from_reference({**state, name: state[name][None]})


def test_a_code_layer_with_an_odd_number_of_rows_is_named(published: Published) -> None:
    state = published.state_dict()
    with pytest.raises(CheckpointError, match=r"enc_fc1\.weight"):
        CVAE.from_reference({**state, "enc_fc1.weight": state["enc_fc1.weight"][:-1]})


@pytest.mark.parametrize(
    ("name", "shape"), [("enc_conv1.weight", (1024, 2, 5, 5)), ("enc_conv1.weight", (0, 2, 5, 5)), ("enc_fc1.weight", (1, 1024))]
)
def test_a_file_with_impossible_sizes_is_a_bad_checkpoint_and_no_bad_setting(
    published: Published, name: str, shape: tuple[int, ...]
) -> None:
    with pytest.raises(CheckpointError):
        CVAE.from_reference({**published.state_dict(), name: torch.zeros(shape)})


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"model.0.weight": torch.zeros(384, 512, 5, 5), "fc.weight": torch.zeros(520, 1024)},
        {"enc_conv1.weight": torch.zeros(3), "enc_fc1.weight": torch.zeros(3)},
    ],
)
def test_a_file_of_another_kind_is_refused_with_the_names_it_should_have(state: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"enc_conv1\.weight.*Load the file whose tensors are named enc_conv1 to dec_conv5"):
        CVAE.from_reference(state)


def test_a_long_list_of_bad_names_is_cut_short() -> None:
    with pytest.raises(CheckpointError, match=r"lacks 0\.bias, 0\.weight, 1\.bias and 3 more \(toy\)"):
        load_exactly(nn.Sequential(*(nn.Linear(1, 1) for _ in range(3))), {}, "toy")


def test_a_checkpoint_that_does_not_fit_leaves_the_network_as_it_was() -> None:
    network = nn.Linear(2, 2)
    before = network.weight.detach().clone()
    with pytest.raises(CheckpointError):
        load_exactly(network, {"weight": torch.zeros(2, 2), "bias": torch.zeros(3)}, "toy")
    assert torch.equal(network.weight, before)


# --- both designs ---


@pytest.mark.parametrize("name", CONFIGS)
def test_many_codes_decode_as_each_code_alone(name: str) -> None:
    network = alive(build(name))
    assert isinstance(network, CVAE)
    gray, _ = photographs(3)
    z = random(4, 3, 4, network.config.latent)
    with torch.no_grad():
        together = network.decode_many(z, gray)
        assert together.shape == (3, 4, 2, 64, 64)
        assert float(together.std(dim=1).mean()) > 1e-3, "the codes must make a difference"
        for b in range(3):
            for k in range(4):
                alone = network.decode(z[b : b + 1, k], gray[b : b + 1])[0]
                torch.testing.assert_close(together[b, k], alone, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(network.decode_many(z[:, :1], gray)[:, 0], network.decode(z[:, 0], gray), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_photograph_is_encoded_once_for_all_codes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(name).eval()
    sizes: list[int] = []
    features = network.gray_features
    monkeypatch.setattr(network, "gray_features", lambda gray: (sizes.append(len(gray)), features(gray))[1])
    with torch.no_grad():
        network.decode_many(torch.zeros(2, 5, network.config.latent), photographs(2)[0])
    assert sizes == [2]


@pytest.mark.parametrize("name", CONFIGS)
def test_encoding_and_decoding_have_the_promised_shapes(name: str) -> None:
    network = build(name)
    gray, ab = photographs(2)
    mu, logvar = network.encode(ab, gray)
    assert mu.shape == logvar.shape == (2, network.config.latent)
    painted, forward_mu, forward_logvar = network(ab, gray)
    assert painted.shape == (2, 2, 64, 64) and forward_mu.shape == forward_logvar.shape == mu.shape
    maps = network.gray_features(gray)
    assert [m.shape[2:] for m in maps] == [(32, 32), (16, 16), (8, 8), (4, 4)]
    assert tuple(maps[-1].shape[1:]) == network.feature_shape


@pytest.mark.parametrize(
    ("config", "channels"), [(CVAEConfig("unet"), [40, 72, 112, 176]), (CVAEConfig("reference", latent=64), [128, 256, 512, 1024])]
)
def test_full_width_has_the_documented_maps(config: CVAEConfig, channels: list[int]) -> None:
    with torch.device("meta"):
        network = CVAE.build(config)
    network.to_empty(device="cpu")  # only shapes matter, so nothing is initialized
    with torch.no_grad():
        maps = network.gray_features(torch.zeros(1, 1, 64, 64))
        assert network.decode_many(torch.zeros(1, 2, config.latent), torch.zeros(1, 1, 64, 64)).shape == (1, 2, 2, 64, 64)
    assert [tuple(m.shape[1:]) for m in maps] == [(c, s, s) for c, s in zip(channels, (32, 16, 8, 4))]
    assert network.feature_shape == (channels[-1], 4, 4)


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_reach_every_parameter(name: str) -> None:
    network = build(name).train()
    gray, ab = photographs(4)
    painted, mu, logvar = network(ab, gray, torch.Generator().manual_seed(0))
    ((painted - ab).square().sum() + mu.square().sum() + logvar.exp().sum()).backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert bool(parameter.grad.isfinite().all()) and float(parameter.grad.abs().sum()) > 0, parameter_name


@pytest.mark.parametrize("name", CONFIGS)
def test_the_reconstruction_alone_trains_the_encoder_through_the_code(name: str) -> None:
    network = build(name).train()
    gray, ab = photographs(2)
    network(ab, gray)[0].square().sum().backward()
    first = network.get_parameter("enc_conv1.weight" if name == "reference" else "color_encoder.levels.0.first.conv.weight")
    assert first.grad is not None and float(first.grad.abs().sum()) > 0


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_no_call_changes_the_mode(name: str, training: bool) -> None:
    network = build(name).train(training)
    gray, ab = photographs(2)
    z = torch.zeros(2, network.config.latent)
    network.encode(ab, gray)
    network.decode(z, gray)
    network.decode_many(z[:, None], gray)
    network.gray_features(gray)
    network(ab, gray)
    assert all(part.training is training for part in network.modules())


@pytest.mark.parametrize("name", CONFIGS)
def test_eval_mode_repeats_itself_and_keeps_its_statistics(name: str) -> None:
    network = alive(build(name))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    gray, ab = photographs(2)
    with torch.no_grad():
        first, second = (network(ab, gray, torch.Generator().manual_seed(4)) for _ in range(2))
        alone = network.encode(ab[:1], gray[:1])
    for a, b in zip(first, second):
        assert torch.equal(a, b)
    torch.testing.assert_close(alone[0], first[1][:1], rtol=0, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", CONFIGS)
def test_forward_draws_one_code_from_the_posterior_and_decodes_it(name: str) -> None:
    network = alive(build(name))
    gray, ab = photographs(2)
    with torch.no_grad():
        painted, mu, logvar = network(ab, gray, torch.Generator().manual_seed(4))
        eps = torch.randn(mu.shape, generator=torch.Generator().manual_seed(4))
        torch.testing.assert_close(painted, network.decode(mu + logvar.exp().sqrt() * eps, gray), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_under_autocast_the_posterior_is_float32(name: str) -> None:
    network = alive(build(name))
    gray, ab = photographs(2)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        mu, logvar = network.encode(ab, gray)
        many = network.decode_many(torch.zeros(2, 3, network.config.latent), gray)
    assert mu.dtype == logvar.dtype == torch.float32
    assert bool(many.isfinite().all())


Misuse = Callable[[CVAE, Tensor, Tensor], object]
MISUSES: dict[str, tuple[Misuse, str]] = {
    "a photograph of another size": (lambda net, gray, ab: net.decode(torch.zeros(2, net.config.latent), gray[..., :32]), "gray"),
    "a photograph in color": (lambda net, gray, ab: net.gray_features(ab), "gray"),
    "a photograph without a batch": (lambda net, gray, ab: net.decode_many(torch.zeros(2, 3, net.config.latent), gray[0]), "gray"),
    "colors with one channel": (lambda net, gray, ab: net.encode(ab[:, :1], gray), "ab"),
    "colors of another size": (lambda net, gray, ab: net.encode(ab[..., :32, :32], gray), "ab"),
    "a code of another length": (lambda net, gray, ab: net.decode(torch.zeros(2, net.config.latent + 1), gray), "z"),
    "one code for two photographs": (lambda net, gray, ab: net.decode(torch.zeros(1, net.config.latent), gray), "z"),
    "many codes where one belongs": (lambda net, gray, ab: net.decode(torch.zeros(2, 3, net.config.latent), gray), "z"),
    "one code where many belong": (lambda net, gray, ab: net.decode_many(torch.zeros(2, net.config.latent), gray), "z"),
    "no code at all": (lambda net, gray, ab: net.decode_many(torch.zeros(2, 0, net.config.latent), gray), "z"),
}


@pytest.mark.parametrize("misuse", MISUSES)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_tensor_that_does_not_fit_is_named(name: str, misuse: str) -> None:
    act, argument = MISUSES[misuse]
    with pytest.raises(ShapeError, match=rf"`{argument}` has shape"):
        act(build(name), *photographs(2))


@pytest.mark.parametrize(
    "setting",
    [{"design": "gan"}, {"latent": 0}, {"width": 0.0}, {"width": -1.0}, {"width": 5.0}, {"dropout": 1.0}, {"dropout": -0.1}],
)
def test_a_setting_without_a_network_is_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        CVAEConfig(**setting)  # type: ignore[arg-type]
    assert str(next(iter(setting.values()))) in str(caught.value)


def test_the_configuration_chooses_the_design() -> None:
    assert isinstance(build("unet"), UNetCVAE) and isinstance(build("reference"), ReferenceCVAE)
    assert build("unet").config is CONFIGS["unet"]


# --- what is special to each design ---


def test_the_reference_posterior_ignores_the_photograph_and_ours_reads_it() -> None:
    gray, ab = photographs(2)
    other, _ = photographs(2, seed=50)
    for name, reads in (("reference", False), ("unet", True)):
        network = alive(build(name))
        assert isinstance(network, CVAE)
        with torch.no_grad():
            change = network.encode(ab, gray)[0] - network.encode(ab, other)[0]
        assert bool(change.abs().max() > 1e-3) is reads


def test_our_posterior_without_a_photograph_says_how_to_call_it() -> None:
    with pytest.raises(ShapeError, match=r"no gray photograph came \(encode\)\. Call encode\(ab, gray\)"):
        build("unet").encode(photographs(2)[1])


def test_our_posterior_refuses_a_photograph_for_another_batch() -> None:
    gray, ab = photographs(2)
    with pytest.raises(ShapeError, match="`gray` has shape"):
        build("unet").encode(ab, gray[:1])


def test_our_log_variance_stays_in_its_range() -> None:
    network = build("unet").eval()
    assert isinstance(network, UNetCVAE)
    gray, ab = photographs(2)
    latent = network.config.latent
    for value, limit in ((1e6, LOGVAR_RANGE[1]), (-1e6, LOGVAR_RANGE[0])):
        nn.init.constant_(network.posterior.bias, value)
        with torch.no_grad():
            mu, logvar = network.encode(ab, gray)
        assert torch.equal(logvar, torch.full((2, latent), limit))
        assert float(mu.abs().min()) > 1e5, "means are free"


@pytest.mark.parametrize("rate", [0.0, 0.7])
def test_the_reference_encoder_drops_its_share_of_features_in_training_only(rate: float) -> None:
    network = CVAE.build(CVAEConfig("reference", latent=512, width=SMALL, dropout=rate))
    assert isinstance(network, ReferenceCVAE)
    _, ab = photographs(4)
    with torch.no_grad():
        nn.init.eye_(network.enc_fc1.weight)  # type: ignore[arg-type]
        nn.init.zeros_(network.enc_fc1.bias)  # type: ignore[arg-type]
        torch.manual_seed(0)
        dropped = torch.cat(network.train().encode(ab), dim=1)
        kept = torch.cat(network.eval().encode(ab), dim=1)
    share = float((dropped == 0).float().mean())
    assert share == pytest.approx(rate, abs=5 * math.sqrt(0.25 / dropped.numel()))
    assert float((kept == 0).float().mean()) < 0.01


def test_a_decoder_block_scales_and_shifts_each_normalized_channel_by_the_code() -> None:
    network = alive(build("unet"))
    assert isinstance(network, UNetCVAE)
    block = network.painter.levels[0].first
    x, z = random(1, 2, block.conv.in_channels, 8, 8), random(2, 2, network.config.latent)
    with torch.no_grad():
        found = block(x, z)
        normalized = F.conv2d(x, block.conv.weight, padding=1)
        mean, variance = (statistic[:, None, None] for statistic in (block.norm.running_mean, block.norm.running_var))
        normalized = (normalized - mean) / (variance + 1e-5).sqrt() * block.norm.weight[:, None, None] + block.norm.bias[:, None, None]
        scale, shift = (z @ block.film.weight.T + block.film.bias).split(normalized.shape[1], dim=1)
        steered = (1 + scale[:, :, None, None]) * normalized + shift[:, :, None, None]
        torch.testing.assert_close(found, steered * torch.sigmoid(steered), rtol=1e-5, atol=1e-5)
    assert min(float(scale.std()), float(shift.std())) > 0.1


def test_a_warm_start_with_a_silent_code_is_the_regression_network() -> None:
    torch.manual_seed(1)
    regressor = alive(ColorRegressor(width=SMALL), seed=8)
    network = alive(build("unet"), seed=9)
    assert isinstance(regressor, ColorRegressor) and isinstance(network, UNetCVAE)
    gray, _ = photographs(2)
    z = random(3, 2, network.config.latent)
    with torch.no_grad():
        target = regressor(gray)
        network.warm_start(regressor)
        assert float((network.decode(z, gray) - target).abs().max()) > 1e-2, "the code must speak before it is silenced"
        assert network.painter.to_map is not None
        for part in (network.painter.to_map, *(m for n, m in network.painter.named_modules() if n.endswith("film"))):
            nn.init.zeros_(part.weight)  # type: ignore[arg-type]
            nn.init.zeros_(part.bias)  # type: ignore[arg-type]
        torch.testing.assert_close(network.decode(z, gray), target, rtol=0, atol=1e-5)
        torch.testing.assert_close(network.gray_features(gray), regressor.gray_encoder(F.pixel_unshuffle(gray, 2)), rtol=0, atol=0)


def test_a_warm_start_keeps_the_weights_of_the_code_and_of_the_color_encoder() -> None:
    network = build("unet", seed=2)
    assert isinstance(network, UNetCVAE)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.warm_start(ColorRegressor(width=SMALL))
    own = [key for key in before if "film" in key or "to_map" in key or key.startswith(("color_encoder", "posterior"))]
    assert len(own) > 20
    for key in own:
        assert torch.equal(network.state_dict()[key], before[key]), key
    coarsest = network.feature_shape[0]
    first = "painter.levels.0.first.conv.weight"
    code_map = slice(coarsest, coarsest + 32)
    assert torch.equal(network.state_dict()[first][:, code_map], before[first][:, code_map])
    assert not torch.equal(network.state_dict()[first], before[first])


def test_a_warm_start_leaves_the_regression_network_untouched() -> None:
    regressor, network = ColorRegressor(width=SMALL), build("unet")
    assert isinstance(network, UNetCVAE)
    before = {key: value.clone() for key, value in regressor.state_dict().items()}
    network.warm_start(regressor)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[key]) for key, value in regressor.state_dict().items())


def test_a_warm_start_from_another_width_is_refused() -> None:
    network = build("unet")
    assert isinstance(network, UNetCVAE)
    with pytest.raises(CheckpointError, match="another width"):
        network.warm_start(ColorRegressor(width=0.5))


def test_the_regression_network_answers_each_photograph_once() -> None:
    regressor = alive(ColorRegressor(width=SMALL))
    gray, ab = photographs(2)
    with torch.no_grad():
        both = regressor(gray)
        torch.testing.assert_close(both[1:], regressor(gray[1:]), rtol=0, atol=1e-5)
    assert both.shape == (2, 2, 64, 64)
    with pytest.raises(ShapeError, match="`gray` has shape"):
        regressor(ab)


# --- reparameterize ---


def test_drawn_codes_have_the_mean_and_variance_of_the_posterior() -> None:
    mu, logvar = torch.tensor([1.5, -3.0, 0.0]), torch.tensor([0.0, 2.0, -4.0])
    count = 200_000
    z = reparameterize(mu.expand(count, 3), logvar.expand(count, 3), torch.Generator().manual_seed(0)).double()
    variance = logvar.double().exp()
    assert bool(((z.mean(0) - mu).abs() < 5 * (variance / count).sqrt()).all())
    assert bool(((z.var(0) / variance - 1).abs() < 5 * math.sqrt(2 / count)).all())
    covariance = torch.corrcoef(z.T) - torch.eye(3)
    assert float(covariance.abs().max()) < 5 / math.sqrt(count)


def test_the_gradient_flows_to_mean_and_log_variance_as_the_formula_says() -> None:
    mu, logvar = random(0, 4, 3).requires_grad_(), random(1, 4, 3).requires_grad_()
    z = reparameterize(mu, logvar, torch.Generator().manual_seed(2))
    slope = random(3, 4, 3)
    (slope * z).sum().backward()
    eps = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(mu.grad, slope)
    torch.testing.assert_close(logvar.grad, slope * 0.5 * (logvar.detach() / 2).exp() * eps)


def test_a_cpu_generator_repeats_the_codes_and_leaves_the_global_state_alone() -> None:
    mu, logvar = random(0, 4, 3), random(1, 4, 3)
    state = torch.get_rng_state()
    first = reparameterize(mu, logvar, torch.Generator().manual_seed(2))
    assert torch.equal(first, reparameterize(mu, logvar, torch.Generator().manual_seed(2)))
    assert not torch.equal(first, reparameterize(mu, logvar, torch.Generator().manual_seed(3)))
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_generator_the_global_seed_decides() -> None:
    mu, logvar = random(0, 4, 3), random(1, 4, 3)
    torch.manual_seed(5)
    first = reparameterize(mu, logvar)
    second = reparameterize(mu, logvar)
    torch.manual_seed(5)
    assert torch.equal(reparameterize(mu, logvar), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_decoder_with_fewer_skips_does_not_see_the_finer_maps(name: str) -> None:
    gray, _ = photographs(2)
    z = random(3, 2, 3, CONFIGS[name].latent)
    for skips in (1, 2, 4):
        network = alive(CVAE.build(replace(CONFIGS[name], skips=skips))).eval()
        with torch.no_grad():
            maps = network.gray_features(gray)
            first = network.decode_features(z, maps)
            for level in range(4):
                other = [feature + 1 if index == level else feature for index, feature in enumerate(maps)]
                seen = not torch.equal(network.decode_features(z, other), first)
                assert seen == (level >= 4 - skips), f"map {level} with {skips} skips"


@pytest.mark.parametrize("skips", [0, 5])
def test_a_number_of_skips_that_does_not_exist_is_refused(skips: int) -> None:
    with pytest.raises(ConfigError, match="skips"):
        CVAEConfig(skips=skips)
