"""Gray-level features and the table of codes: the CVAE's own numbers, in order, with nothing else changed."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from divcolor_lib import features as features_module
from divcolor_lib import train
from divcolor_lib.bins import gamut_bins
from divcolor_lib.colorize import Colorizer
from divcolor_lib.cvae import CVAE, ColorClassifier, CVAEConfig
from divcolor_lib.data import TensorFields
from divcolor_lib.errors import CheckpointError, ConfigError, DataError, DivcolorError, ShapeError, StorageError
from divcolor_lib.features import KINDS, ZhangNet, code_table, gray_features, input_shape, mdn_inputs, on_disk, stored_features
from divcolor_lib.mdn import MDN, MDNConfig
from divcolor_lib.train import CodeSource, FitConfig, MDNTask, Objective, Recipe, fit, train_colorizer

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


def test_progress_is_shown_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen in what the bar is called with: while tests run, TQDM_DISABLE hides every bar."""
    shown: list[bool] = []

    def bar(pairs: Any, **options: Any) -> Any:
        shown.append("disable" not in options)
        return pairs

    monkeypatch.setattr("divcolor_lib.features.tqdm", bar)
    code_table(build("unet"), batches(1))
    code_table(build("unet"), batches(1), progress=True)
    assert shown == [False, True]


# --- kinds of features ---


class SmallNet(nn.Module):
    """Stands for Zhang's network: the same output shape from one convolution, in the blink of an eye."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.drop = nn.Conv2d(1, 512, 3, stride=2, padding=1), nn.Dropout(0.5)

    def forward(self, gray: Tensor) -> Tensor:
        x: Tensor = self.drop(F.interpolate(self.conv(gray), size=(28, 28)).relu())
        return x


@pytest.fixture(scope="module")
def small() -> SmallNet:
    torch.manual_seed(3)
    return SmallNet().train()


def found_inputs(kind: str, gray: Tensor, network: CVAE, zhang: nn.Module | None) -> Tensor:
    with torch.no_grad():
        return mdn_inputs(kind, gray, network.eval().gray_features(gray), zhang)


def test_every_kind_gives_what_it_says(small: SmallNet) -> None:
    network, [(gray, _)] = build("unet"), batches(3)
    found = {kind: found_inputs(kind, gray, network, small) for kind in KINDS}
    shapes = {kind: tuple(value.shape[1:]) for kind, value in found.items()}
    assert shapes == {
        "encoder": network.feature_shape,
        "pixels": (1, 16, 16),
        "none": (1, 1, 1),
        "classes": (512, 28, 28),  # whatever the network gives
        "zhang": (512, 4, 4),
        "zhang-map": (512, 28, 28),
    }
    torch.testing.assert_close(found["encoder"], gray_features(network, gray), rtol=0, atol=0)
    torch.testing.assert_close(found["pixels"], gray.unflatten(2, (16, 4)).unflatten(4, (16, 4)).mean((3, 5)), rtol=0, atol=1e-6)
    assert not found["none"].any()
    with torch.no_grad():
        map_ = F.interpolate(small.conv(gray), size=(28, 28)).relu()
    torch.testing.assert_close(found["zhang-map"], map_, rtol=0, atol=1e-6)
    torch.testing.assert_close(found["zhang"], map_.unflatten(2, (4, 7)).unflatten(4, (4, 7)).mean((3, 5)), rtol=0, atol=1e-5)
    assert small.training and small.drop.training, "the network's mode must come back"
    assert not found["zhang"].requires_grad
    for kind in ("encoder", "pixels", "zhang", "zhang-map"):
        assert float((found[kind][0] - found[kind][1]).abs().max()) > 1e-3, "photographs must differ"


@pytest.mark.parametrize("kind", KINDS)
def test_the_shape_of_each_kind_is_known_before_the_features_are(kind: str, small: SmallNet) -> None:
    network, [(gray, _)] = build("unet"), batches(2)
    assert input_shape(kind, network, small) == tuple(found_inputs(kind, gray, network, small).shape[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_holds_the_kind_that_was_asked_for(kind: str, small: SmallNet) -> None:
    network, parts = build("unet"), batches(2, 1)
    features, mu, _ = code_table(network, parts, kind=kind, zhang=small)
    gray = torch.cat([gray for gray, _ in parts])
    assert features.dtype == torch.float16
    torch.testing.assert_close(features.float(), found_inputs(kind, gray, network, small), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(mu, code_table(network.train(), parts)[1], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["classes", "zhang", "zhang-map"])
def test_features_of_zhangs_network_need_the_network(kind: str) -> None:
    network, [(gray, ab)] = build("unet"), batches(1)
    for call in (
        lambda: mdn_inputs(kind, gray, []),
        lambda: input_shape(kind, network),
        lambda: code_table(network, [(gray, ab)], kind=kind),
    ):
        with pytest.raises(ConfigError, match="no such network"):
            call()


def test_an_unknown_kind_is_refused_with_the_list_of_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"unknown features `vgg`.*encoder, pixels, none, classes, zhang, zhang-map"):
        mdn_inputs("vgg", torch.zeros(1, 1, 64, 64), [])
    with pytest.raises(ConfigError, match="unknown features `vgg`"):
        MDNConfig(features="vgg")


@pytest.mark.parametrize(("kind", "design"), [*((kind, "heads") for kind in KINDS if kind != "zhang-map"), ("zhang-map", "reference")])
def test_a_colorizer_whose_mdn_reads_other_features_trains_colors_and_comes_back(
    kind: str, design: str, small: nn.Module, tmp_path: Path
) -> None:
    gray, ab = batches(8)[0]
    source = TensorFields(gray, ab)
    recipe = Recipe(
        "tiny",
        CVAEConfig(latent=2, width=0.1),
        MDNConfig(design, latent=2, components=2, representatives=2, width=0.05, features=kind),
        Objective(),
        cvae_fit=FitConfig(2, batch=4),
        mdn_fit=FitConfig(2, batch=4),
        classes_fit=FitConfig(2, batch=4) if kind == "classes" else None,
    )
    trained = train_colorizer(recipe, source, source, progress=False, zhang=small)
    assert list(trained.histories) == (["cvae", "classes", "mdn"] if kind == "classes" else ["cvae", "mdn"])
    small = small if trained.classifier is None else trained.classifier
    assert trained.mdn is not None
    assert trained.mdn.config.features == kind and trained.mdn.config.inputs == input_shape(kind, trained.cvae, small)
    colorizer = Colorizer(trained.cvae, trained.mdn, zhang=small)
    fields, weights = colorizer.predict(gray)
    assert fields.shape == (8, 2, 2, 64, 64)
    features = found_inputs(kind, gray, trained.cvae, small)
    with torch.no_grad():
        wanted = trained.mdn.representatives(features)[0].sort(dim=1, descending=True).values
    torch.testing.assert_close(weights, wanted, rtol=0, atol=1e-6)
    colorizer.save(tmp_path / "c.safetensors")
    loaded = Colorizer.from_checkpoint(tmp_path / "c.safetensors", zhang=None if kind == "classes" else small)
    assert loaded.mdn.config == trained.mdn.config
    torch.testing.assert_close(loaded.predict(gray)[0], fields, rtol=0, atol=5e-3)
    assert loaded.sample(gray[:1], 3).shape == (1, 3, 2, 64, 64)
    if kind == "none":
        torch.testing.assert_close(weights, weights[:1].expand_as(weights), rtol=0, atol=1e-6)
    if kind.startswith("zhang"):
        with pytest.raises(ConfigError, match="no such network"):
            Colorizer.from_checkpoint(tmp_path / "c.safetensors").predict(gray)


# --- features on disk ---


@pytest.mark.parametrize("sizes", [(3, 2), (5,)])
def test_features_on_disk_are_those_in_memory(sizes: tuple[int, ...], tmp_path: Path) -> None:
    network, parts = build("unet"), batches(*sizes)
    expected, mu, _ = code_table(network, parts)
    room = on_disk(tmp_path / "new" / "f.features", (5, *network.feature_shape))
    found, same_mu, _ = code_table(network, parts, into=room)
    assert found is room and found.dtype == torch.float16
    assert torch.equal(found, expected) and torch.equal(mu, same_mu)
    if sys.platform == "linux":  # it lives in a file, which has no name any more
        assert "f.features (deleted)" in Path("/proc/self/maps").read_text(encoding="utf-8")
        assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize("rows", [4, 6])
def test_room_for_another_number_of_photographs_is_refused(rows: int) -> None:
    network = build("unet")
    with pytest.raises(ShapeError, match=r"`into`"):
        code_table(network, batches(3, 2), into=torch.zeros(rows, *network.feature_shape, dtype=torch.float16))


def test_a_disk_without_room_for_features_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(StorageError, match=r"no file for features.*No space left"):
        on_disk(tmp_path / "f", (2, 3))
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="no file for features"):
        on_disk(tmp_path / "file" / "f", (2, 3))


def test_training_keeps_many_features_in_a_file_and_learns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = TensorFields(*batches(8)[0])
    recipe = Recipe(
        "tiny",
        CVAEConfig(latent=2, width=0.1),
        MDNConfig(latent=2, components=2, representatives=2, width=0.05),
        Objective(),
        cvae_fit=FitConfig(2, batch=4),
        mdn_fit=FitConfig(3, batch=4, shift=2),
    )
    expected = train_colorizer(recipe, source, source, folder=tmp_path / "memory", progress=False)
    made: list[Path] = []
    monkeypatch.setattr(train, "on_disk", lambda path, shape: (made.append(path), on_disk(path, shape))[1])
    monkeypatch.setattr(train, "IN_MEMORY", 0)
    found = train_colorizer(recipe, source, source, folder=tmp_path / "file", progress=False)
    assert made == [tmp_path / "file" / "training-0.features", tmp_path / "file" / "validation-0.features"]
    assert os.name == "nt" or not list(tmp_path.rglob("*.features"))
    assert expected.mdn is not None and found.mdn is not None
    for one, two in zip(expected.mdn.parameters(), found.mdn.parameters()):
        assert torch.equal(one, two)


# --- a classifier of our own ---


def test_the_classifier_learns_zhangs_task() -> None:
    torch.manual_seed(0)
    light = torch.rand(32, 1, 1, 1) * 2 - 1
    gray = light.expand(-1, 1, 64, 64).contiguous()
    ab = torch.cat([light * 0.3, -light * 0.3], 1).expand(-1, 2, 64, 64).contiguous()  # color follows from lightness
    source = TensorFields(gray, ab)
    bins = gamut_bins()
    classifier = ColorClassifier(bins.count, width=0.1)
    assert classifier(gray).shape == (32, 16, 4, 4) and classifier.logits(gray).shape == (32, bins.count, 16, 16)
    task = train.ClassesTask(classifier, source, 16)
    before = task.validate(classifier.eval())["loss"]
    train.fit(task, source, FitConfig(150, batch=16, learning_rate=1e-2, average=0.9, flip=False), progress=False)
    assert task.validate(classifier)["loss"] < 0.5 * before
    said = bins.centers[classifier.logits(gray).argmax(1)[:, 8, 8]]
    assert float((said - ab[:, :, 0, 0] * 128).abs().median()) < 10


def test_a_recipe_that_reads_a_classifier_says_how_it_is_trained() -> None:
    base = train.RECIPES["portraits"]
    with pytest.raises(ConfigError, match="a color classifier that nothing trains"):
        replace(base, mdn=replace(base.mdn, features="classes"))


# --- Zhang's network ---

PUBLISHED_CONVOLUTIONS = {  # name: (shape of the weight, stride, dilation)
    "model1.0": ((64, 1, 3, 3), 1, 1),
    "model1.2": ((64, 64, 3, 3), 2, 1),
    "model2.0": ((128, 64, 3, 3), 1, 1),
    "model2.2": ((128, 128, 3, 3), 2, 1),
    "model3.0": ((256, 128, 3, 3), 1, 1),
    "model3.2": ((256, 256, 3, 3), 1, 1),
    "model3.4": ((256, 256, 3, 3), 2, 1),
    "model4.0": ((512, 256, 3, 3), 1, 1),
    "model4.2": ((512, 512, 3, 3), 1, 1),
    "model4.4": ((512, 512, 3, 3), 1, 1),
    **{f"model{block}.{place}": ((512, 512, 3, 3), 1, 2) for block in (5, 6) for place in (0, 2, 4)},
    **{f"model7.{place}": ((512, 512, 3, 3), 1, 1) for place in (0, 2, 4)},
    "model8.0": ((512, 256, 4, 4), 2, 1),
    "model8.2": ((256, 256, 3, 3), 1, 1),
    "model8.4": ((256, 256, 3, 3), 1, 1),
    "model8.6": ((313, 256, 1, 1), 1, 1),
}
PUBLISHED_NORMS = {"model1.4": 64, "model2.4": 128, "model3.6": 256, "model4.6": 512, "model5.6": 512, "model6.6": 512, "model7.6": 512}


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the published file, by name."""
    shapes: dict[str, tuple[int, ...]] = {"model_out.weight": (2, 313, 1, 1)}
    for name, (weight, _, _) in PUBLISHED_CONVOLUTIONS.items():
        outputs = weight[1] if name == "model8.0" else weight[0]
        shapes |= {f"{name}.weight": weight, f"{name}.bias": (outputs,)}
    for name, channels in PUBLISHED_NORMS.items():
        shapes |= {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{name}.num_batches_tracked"] = ()
    return shapes


@pytest.fixture(scope="module")
def made_up() -> dict[str, Tensor]:
    """Weights of the published names and shapes, with activations of ordinary size."""
    random = torch.Generator().manual_seed(5)
    state = {}
    for name, shape in published_shapes().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
        elif name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            state[name] = 0.5 + torch.rand(shape, generator=random)
        elif len(shape) == 4:
            inputs = shape[1] * 9 if not name.startswith("model8.0") else shape[0] * 4
            state[name] = torch.randn(shape, generator=random) * (2 / inputs) ** 0.5
        else:
            state[name] = 0.2 * torch.randn(shape, generator=random)
    return state


@pytest.fixture(scope="module")
def weights_file(made_up: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("zhang") / "weights.pth"
    torch.save(made_up, path)
    yield path
    path.unlink()  # 129 MB


@pytest.fixture(scope="module")
def zhang(weights_file: Path) -> ZhangNet:
    return ZhangNet.from_published(weights_file)


def by_hand(state: dict[str, Tensor], gray: Tensor, last: int) -> list[Tensor]:
    """Apply blocks 1 to `last` from the tensors alone; return the tensor after each ReLU."""
    x = (50 * F.interpolate(gray, size=(224, 224), mode="bilinear", align_corners=False)) / 100  # (L - 50) / 100, as L = 50 gray + 50
    after_relu = []
    for block in range(1, last + 1):
        for name, (_, stride, dilation) in PUBLISHED_CONVOLUTIONS.items():
            if name.startswith(f"model{block}."):
                weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
                x = F.conv2d(x, weight, bias, stride=stride, padding=dilation, dilation=dilation).clamp(min=0)
                after_relu.append(x)
        norm = next(name for name in PUBLISHED_NORMS if name.startswith(f"model{block}."))
        mean, variance, scale, shift = (
            state[f"{norm}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        x = (x - mean) / (variance + 1e-5).sqrt() * scale + shift
    return [*after_relu, x]


def test_names_and_shapes_are_those_of_the_published_weights() -> None:
    own = {name: tuple(value.shape) for name, value in ZhangNet().state_dict().items()}
    assert own == published_shapes()
    assert sum(value.numel() for value in ZhangNet().parameters()) == 32_236_011


def test_the_features_are_the_last_of_block_7_after_relu_and_before_the_batch_norm(zhang: ZhangNet, made_up: dict[str, Tensor]) -> None:
    gray = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    assert not any(part.training for part in zhang.modules())
    with torch.no_grad():
        found = zhang(gray)
        *maps, normalized = by_hand(made_up, gray, 7)
    assert found.shape == (1, 512, 28, 28) and float(found.min()) == 0 and 0.05 < float(found.std()) < 100
    torch.testing.assert_close(found, maps[-1], rtol=1e-3, atol=1e-3 * float(found.std()))
    sizes = [tuple(each.shape[1:]) for each in maps]
    assert sizes[:4] == [(64, 224, 224), (64, 112, 112), (128, 112, 112), (128, 56, 56)]
    assert sizes[6:] == [(256, 28, 28), *[(512, 28, 28)] * 12]
    with torch.no_grad():
        hidden = normalized
        for name in ("model8.0", "model8.2", "model8.4", "model8.6"):
            weight, bias = made_up[f"{name}.weight"], made_up[f"{name}.bias"]
            if name == "model8.0":
                hidden = F.conv_transpose2d(hidden, weight, bias, stride=2, padding=1).relu()
            elif name == "model8.6":
                hidden = F.conv2d(hidden, weight, bias)
            else:
                hidden = F.conv2d(hidden, weight, bias, padding=1).relu()
        classes = hidden.exp() / hidden.exp().sum(1, keepdim=True)
        wanted = 110 * torch.einsum("oc,bchw->bohw", made_up["model_out.weight"][:, :, 0, 0], classes)
        torch.testing.assert_close(zhang.colors(gray) * 128, wanted, rtol=1e-3, atol=1e-3 * float(wanted.std()) + 1e-4)
    assert wanted.shape == (1, 2, 56, 56)


def test_features_follow_the_photograph_and_refuse_another_shape(zhang: ZhangNet) -> None:
    with pytest.raises(ShapeError, match="`gray` has shape"):
        zhang(torch.zeros(1, 3, 64, 64))
    table = code_table(build("unet"), batches(1), kind="zhang", zhang=zhang)[0]
    assert table.shape == (1, 512, 4, 4) and table.dtype == torch.float16 and bool(table.isfinite().all())


def test_a_name_with_a_hash_must_match_the_content(weights_file: Path, tmp_path: Path) -> None:
    start = hashlib.sha256(weights_file.read_bytes()).hexdigest()[:8]
    right, wrong = tmp_path / f"colors-{start}.pth", tmp_path / features_module.ZHANG_FILE
    right.symlink_to(weights_file)
    wrong.symlink_to(weights_file)
    assert isinstance(ZhangNet.from_published(right), ZhangNet)
    with pytest.raises(CheckpointError, match=f"starts with {start}, its name says 9b330a0b"):
        ZhangNet.from_published(wrong)


# --- stored features ---


def stored(tmp_path: Path, count: int, scale: float = 1.0) -> tuple[list[Path], np.ndarray]:
    arrays = scale * np.random.default_rng(0).random((count, 512, 28, 28)).astype(np.float32)
    paths = [tmp_path / f"{number}.npz" for number in range(count)]
    for path, array in zip(paths, arrays):
        np.savez(path, array)
    return paths, arrays


def test_stored_features_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    paths, arrays = stored(tmp_path, 3)
    order = [2, 0, 1]
    pooled = stored_features([paths[i] for i in order])
    assert pooled.shape == (3, 512, 4, 4) and pooled.dtype == torch.float16
    np.testing.assert_allclose(pooled.float(), arrays[order].reshape(3, 512, 4, 7, 4, 7).mean((3, 5)), rtol=1e-3)
    whole = stored_features([str(path) for path in paths], "zhang-map")
    assert whole.shape == (3, 512, 28, 28)
    np.testing.assert_allclose(whole.float(), arrays, rtol=1e-3, atol=1e-7)


def test_stored_features_equal_those_of_the_network_that_made_them(tmp_path: Path, small: SmallNet) -> None:
    network, [(gray, ab)] = build("unet"), batches(2)
    for number, feature in enumerate(found_inputs("zhang-map", gray, network, small)):
        np.savez(tmp_path / f"{number}.npz", feature.numpy())
    for kind in ("zhang", "zhang-map"):
        table = code_table(network, [(gray, ab)], kind=kind, zhang=small)[0]
        torch.testing.assert_close(stored_features([tmp_path / "0.npz", tmp_path / "1.npz"], kind), table, rtol=1e-3, atol=1e-3)


def test_an_mdn_learns_from_stored_features(tmp_path: Path) -> None:
    """Two kinds of photographs, two codes: with features that tell them apart the NLL falls far below that of one cloud."""
    paths = []
    for number in range(16):
        array = np.zeros((512, 28, 28), np.float32)
        array[: 256 if number % 2 else 128] = 1
        paths.append(tmp_path / f"{number}.npz")
        np.savez(paths[-1], array)
    features = stored_features(paths)
    mu = torch.where(torch.arange(16) % 2 == 1, 2.0, -2.0)[:, None].repeat(1, 2)
    source = CodeSource(features, torch.cat([mu, torch.full_like(mu, -4.0)], 1))
    torch.manual_seed(0)
    mdn = MDN.build(MDNConfig(inputs=(512, 4, 4), latent=2, components=1, representatives=2, width=0.1, dropout=0.0, features="zhang"))
    history = fit(MDNTask(mdn, "exact", source, 16), source, FitConfig(150, 16, 1e-2, warmup=5, average=0.0, flip=False), progress=False)
    assert history.validation[-1]["nll"] < 1.5  # one Gaussian around both codes has 4.2


def test_stored_features_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    paths, _ = stored(tmp_path, 1)
    with pytest.raises(ConfigError, match="`encoder` are not stored"):
        stored_features(paths, "encoder")
    with pytest.raises(DataError, match="no feature file was named"):
        stored_features([])
    with pytest.raises(DataError, match=r"no such feature file.*absent\.npz"):
        stored_features([*paths, tmp_path / "absent.npz"])
    np.savez(tmp_path / "small.npz", np.zeros((512, 4, 4)))
    with pytest.raises(DataError, match=r"shape \(512, 4, 4\).*small\.npz"):
        stored_features([tmp_path / "small.npz"])
    huge, _ = stored(tmp_path, 1, scale=1e6)
    with pytest.raises(ShapeError, match=r"0\.npz.*half precision"):
        stored_features(huge)
