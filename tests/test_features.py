"""Gray-level features and the table of codes: the CVAE's own numbers, in order, with nothing else changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from divcolor_lib.cvae import CVAE, CVAEConfig
from divcolor_lib.errors import ConfigError, DivcolorError, ShapeError
from divcolor_lib.features import code_table, gray_features

DESIGNS = ("unet", "reference")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(design: str) -> CVAE:
    """A network in train mode whose running statistics differ from any batch's."""
    torch.manual_seed(0)
    network = CVAE.build(CVAEConfig(design, latent=5, width=1 / 16))
    for name, weight in network.named_parameters():
        if "conv" in name and name.endswith("weight"):
            nn.init.normal_(weight, std=(2 / weight[0].numel()) ** 0.5)  # features of ordinary size
    for name, statistic in network.named_buffers():
        if name.endswith("running_mean"):
            statistic.normal_(0, 0.1)
        if name.endswith("running_var"):
            statistic.uniform_(0.3, 2)
    return network.train()


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 1, 64, 64, generator=generator).tanh(), 0.5 * torch.randn(size, 2, 64, 64, generator=generator).tanh())
        for size in sizes
    ]


@pytest.mark.parametrize("design", DESIGNS)
def test_the_features_are_the_coarsest_map_in_eval_mode(design: str) -> None:
    network = build(design)
    [(gray, _)] = batches(3)
    found = gray_features(network, gray)
    assert found.shape == (3, *network.feature_shape) and found.dtype == torch.float32
    assert not found.requires_grad
    assert all(part.training for part in network.modules()), "the mode must come back"
    torch.testing.assert_close(found[1:2], gray_features(network, gray[1:2]), rtol=0, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(found, network.eval().gray_features(gray)[-1], rtol=0, atol=0)


def test_the_features_are_float32_under_autocast_too() -> None:
    [(gray, _)] = batches(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert gray_features(build("unet"), gray).dtype == torch.float32


def test_a_photograph_that_does_not_fit_is_refused_and_the_mode_comes_back() -> None:
    network = build("unet")
    with pytest.raises(ShapeError, match="`gray` has shape"):
        gray_features(network, torch.zeros(1, 2, 64, 64))
    assert all(part.training for part in network.modules())


@pytest.mark.parametrize("design", DESIGNS)
def test_the_table_holds_one_row_for_each_photograph_in_their_order(design: str) -> None:
    network = build(design)
    parts = batches(3, 2, 1)
    features, mu, logvar = code_table(network, iter(parts))
    assert features.shape == (6, *network.feature_shape) and features.dtype == torch.float16
    assert mu.shape == logvar.shape == (6, 5) and mu.dtype == logvar.dtype == torch.float32
    assert not (features.requires_grad or mu.requires_grad or logvar.requires_grad)
    gray, ab = (torch.cat(part) for part in zip(*parts))
    for i in range(6):
        one = slice(i, i + 1)
        torch.testing.assert_close(features[one].float(), gray_features(network, gray[one]), rtol=1e-3, atol=1e-3)
        with torch.no_grad():
            network.eval()
            torch.testing.assert_close((mu[one], logvar[one]), network.encode(ab[one], gray[one]), rtol=0, atol=1e-5)
            network.train()
    distances = torch.cdist(features.float().flatten(1), features.float().flatten(1)) + 1e9 * torch.eye(6)
    assert float(distances.min()) > 0.05, "rows must differ for the order to be tested"


@pytest.mark.parametrize("design", DESIGNS)
def test_making_the_table_changes_neither_mode_statistics_nor_random_numbers(design: str) -> None:
    network = build(design)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    first = code_table(network, batches(2, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(part.training for part in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(first, code_table(network, batches(2, 2))))


def test_mixed_precision_gives_nearly_the_same_table_in_the_same_types() -> None:
    network = build("unet")
    exact, mixed = code_table(network, batches(2)), code_table(network, batches(2), precision="bf16")
    for a, b in zip(exact, mixed):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a.float(), b.float(), rtol=0.1, atol=0.05)
    assert not torch.equal(exact[1], mixed[1]), "the precision must have an effect"


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown precision `fp8`"):
        code_table(build("unet"), batches(1), precision="fp8")


def test_a_data_set_without_photographs_is_one_clear_error() -> None:
    with pytest.raises(DivcolorError):
        code_table(build("unet"), [])


def test_progress_is_shown_only_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    network = build("unet")
    code_table(network, batches(1))
    assert capsys.readouterr().err == ""
    code_table(network, batches(1), progress=True)
    assert "codes" in capsys.readouterr().err
