"""From a gray photograph to several colorizations: what the design promises of the pictures, and of their order."""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.color import rgb2lab
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from divcolor_lib.colorize import HINT_TAU, PRETRAINED, Colorizer, Hint, enlarge, hint_weights, paint, squared
from divcolor_lib.cvae import CVAE, ColorRegressor, CVAEConfig
from divcolor_lib.errors import CheckpointError, ConfigError, ImageError, ShapeError, StorageError
from divcolor_lib.mdn import MDN, MDNConfig
from divcolor_lib.runtime import generator
from divcolor_lib.train import read_tensors

SIZES = [(1, 1), (1, 200), (200, 1), (37, 91), (64, 64), (65, 100), (480, 640)]


def photograph(height: int, width: int, seed: int = 0, gray: bool = False) -> NDArray[np.uint8]:
    """Random bytes on top of large patches: every lightness, sharp edges, any color."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST).astype(int)
    picture = np.clip(picture + rng.integers(-60, 61, picture.shape), 0, 255).astype(np.uint8)
    return picture[..., 0] if gray else picture


def hard_edges(seed: int, scale: float = 0.8) -> Tensor:
    """A color field of 8x8 patches without any transition, `(1, 2, 64, 64)`, ab/128."""
    patches = torch.rand(1, 2, 8, 8, generator=generator(seed)) * 2 * scale - scale
    return patches.repeat_interleave(8, 2).repeat_interleave(8, 3)


def area(field: Tensor, height: int, width: int) -> NDArray[np.float64]:
    """OpenCV's area average, in float64."""
    return np.stack([cv2.resize(channel, (width, height), interpolation=cv2.INTER_AREA) for channel in field.double().numpy()])


# --- networks whose answers are known ---


class PaletteCVAE(CVAE):
    """Paints the whole picture in the color that the code names (ab/128), plus a fixed pattern."""

    def __init__(self, pattern: Tensor | None = None) -> None:
        super().__init__(CVAEConfig(latent=2))
        self.anchor = nn.Parameter(torch.zeros(1))
        self.drop = nn.Dropout(0.5)
        self.pattern = torch.zeros(2, 64, 64) if pattern is None else pattern

    def gray_features(self, gray: Tensor) -> list[Tensor]:
        return [nn.functional.avg_pool2d(gray, 16)]

    def decode_features(self, z: Tensor, features: list[Tensor]) -> Tensor:
        return self.drop(z[..., None, None] + self.pattern)


class PaletteMDN(MDN):
    """The same colors with the same weights for every photograph; the mixture has them as its means."""

    def __init__(self, colors: Sequence[tuple[float, float]], weights: Sequence[float], scale: float = 0.2) -> None:
        super().__init__(MDNConfig(inputs=(1, 4, 4), latent=2, components=len(colors), representatives=len(colors)))
        self.colors = torch.tensor(colors) / 128
        self.weights, self.scale = torch.tensor(weights), scale

    def representatives(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.weights.repeat(len(features), 1), self.colors.repeat(len(features), 1, 1)

    def forward(self, features: Tensor) -> MixtureSameFamily:
        means = self.colors.repeat(len(features), 1, 1)
        components = Independent(Normal(means, torch.full_like(means, self.scale)), 1)
        return MixtureSameFamily(Categorical(probs=self.weights.repeat(len(features), 1)), components)


FOUR = [(20.0, 0.0), (0.0, 20.0), (-20.0, 0.0), (0.0, -20.0)]


def palette(colors: Sequence[tuple[float, float]] = FOUR, weights: Sequence[float] = (0.1, 0.4, 0.2, 0.3), scale: float = 0.2) -> Colorizer:
    return Colorizer(PaletteCVAE(), PaletteMDN(colors, weights, scale))


def shown(fields: Tensor) -> list[tuple[int, int]]:
    """The mean color of each field, in whole Lab units."""
    return [tuple((field.mean((1, 2)) * 128).round().int().tolist()) for field in fields]


def real(seed: int = 0, latent: int = 2) -> Colorizer:
    """Untrained networks of the shipped design, tiny, with strong colors."""
    torch.manual_seed(seed)
    cvae = CVAE.build(CVAEConfig(latent=latent, width=0.1))
    mdn = MDN.build(MDNConfig(inputs=cvae.feature_shape, latent=latent, width=0.1, components=3, representatives=4))
    with torch.no_grad():
        cvae.painter.to_ab.weight.mul_(40)  # type: ignore[union-attr, operator]
        mdn.representatives_head.bias[4:].normal_(std=2.0)  # type: ignore[union-attr, index]
    for module in (cvae, mdn):
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
    anchors = {"mean": torch.rand(8192), "clusters": torch.rand(8, 2, 64, 64)}
    return Colorizer(cvae, mdn, {"name": "toy"}, ColorRegressor(0.1), anchors)


# --- lightness stays, colors follow the prediction ---


@pytest.mark.parametrize("gray", [False, True], ids=["in color", "gray"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_lightness_of_the_output_is_that_of_the_photograph(size: tuple[int, int], gray: bool) -> None:
    photo = photograph(*size, seed=1, gray=gray)
    colorizer = Colorizer(PaletteCVAE(hard_edges(2)[0]), PaletteMDN([(0.0, 0.0)], [1.0]))
    result = colorizer.colorize(photo, n=1)
    assert result.images.shape == (1, *size, 3) and result.images.dtype == np.uint8
    assert result.gray.shape == (*size, 3) and result.gray.dtype == np.uint8
    original = photo if photo.ndim == 3 else np.repeat(photo[..., None], 3, 2)
    lightness = rgb2lab(original)[..., 0]
    for output in (result.images[0], result.gray):
        assert np.abs(rgb2lab(output)[..., 0] - lightness).max() < 0.5
    assert (result.gray == result.gray[..., :1]).all()
    if gray:
        assert np.array_equal(result.gray, original)
    if min(size) > 30:
        assert np.abs(rgb2lab(result.images[0])[..., 1:]).mean() > 10


@pytest.mark.parametrize("size", [*SIZES, (70, 70), (96, 128), (250, 250)], ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_averaged_back_the_enlarged_colors_are_the_prediction(size: tuple[int, int], seed: int) -> None:
    """OpenCV averages over areas; sides below 64 pixels are compared at their own length."""
    field = hard_edges(seed)
    small = min(64, size[0]), min(64, size[1])
    back = area(enlarge(field, size)[0], *small)
    assert back.shape == (2, *small)
    assert np.abs(back - area(field[0], *small)).max() * 128 < 1.0


@pytest.mark.parametrize("size", [*SIZES, (9, 13), (64, 20)], ids=str)
def test_the_square_holds_the_reduced_photograph_and_goes_on_as_its_mirror_image(size: tuple[int, int]) -> None:
    gray = torch.randn(1, 1, *size, generator=generator(5))
    square, inner = squared(gray)
    small = square[inner]
    height, width = (max(1, round(64 * side / max(size))) for side in size)
    assert square.shape == (1, 1, 64, 64) and small.shape == (1, 1, height, width)
    if max(size) >= 64:
        np.testing.assert_allclose(small[0].numpy(), area(gray[0], height, width), atol=1e-4)
    top, left = (64 - height) // 2, (64 - width) // 2
    around = ((top, 64 - height - top), (left, 64 - width - left))
    np.testing.assert_array_equal(square[0, 0].numpy(), np.pad(small[0, 0].numpy(), around, mode="symmetric"))


def test_a_square_is_made_of_one_gray_photograph_at_a_time() -> None:
    with pytest.raises(ShapeError, match="gray"):
        squared(torch.zeros(2, 1, 9, 9))


def test_enlarging_to_the_same_size_changes_nothing_and_a_flat_color_stays_flat() -> None:
    field = hard_edges(3)
    assert torch.equal(enlarge(field, (64, 64)), field)
    flat = torch.full((1, 2, 64, 64), 0.3)
    for size in SIZES[:-1]:
        torch.testing.assert_close(enlarge(flat, size), torch.full((1, 2, *size), 0.3), atol=1e-5, rtol=0)


def test_colors_land_where_they_were_predicted() -> None:
    """The left half is red and the right half blue, in a picture of another shape."""
    field = torch.zeros(2, 64, 64)
    field[0, :, :32], field[1, :, 32:] = 0.25, -0.25
    lab = rgb2lab(paint(torch.full((1, 90, 200), 50.0), field))
    np.testing.assert_allclose(lab[:, :95].mean((0, 1)), [50, 32, 0], atol=0.6)
    np.testing.assert_allclose(lab[:, 105:].mean((0, 1)), [50, 0, -32], atol=0.6)


@pytest.mark.parametrize("lightness", [15.0, 50.0, 85.0])
def test_colors_that_no_screen_can_show_lose_chroma_and_keep_their_hue(lightness: float) -> None:
    angle = math.pi / 6 + torch.arange(64) * (2 * math.pi / 64)
    wanted = (0.9 * torch.stack([angle.cos(), angle.sin()]))[:, None, :].expand(2, 64, 64).contiguous()
    lab = rgb2lab(paint(torch.full((1, 64, 64), lightness), wanted))
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    assert chroma.max() < 0.9 * 128 + 1 and chroma.min() > 5 and (chroma < 100).any()
    turned = np.angle(np.exp(1j * (np.arctan2(lab[..., 2], lab[..., 1]) - np.arctan2(*wanted.flip(0).numpy()))))
    assert (np.abs(turned) * chroma).max() < 1.5  # as an arc, in Lab units: what rounding to bytes allows
    assert np.abs(lab[..., 0] - lightness).max() < 0.5


def test_colors_that_a_screen_can_show_are_painted_as_they_are() -> None:
    field = torch.stack([torch.linspace(-0.15, 0.15, 64).expand(64, 64), torch.linspace(-0.15, 0.15, 64)[:, None].expand(64, 64)])
    lab = rgb2lab(paint(torch.full((1, 64, 64), 60.0), field))
    assert np.abs(lab[..., 1:] - field.movedim(0, -1).numpy() * 128).max() < 1


def test_only_the_lightness_of_the_photograph_is_used() -> None:
    """A photograph and its gray version, made by OpenCV, give the same pictures up to the rounding of the gray bytes."""
    photo = photograph(80, 70, seed=4)
    colorizer = real()
    first = colorizer.colorize(photo, n=1)
    second = colorizer.colorize(first.gray, n=1)
    assert (first.fields - second.fields).abs().max() < 0.02


# --- how many, in which order ---


def test_the_heaviest_come_first_and_keep_their_weights() -> None:
    result = palette().colorize(photograph(20, 30), n=3)
    assert result.probabilities == pytest.approx((0.4, 0.3, 0.2))
    assert shown(result.fields) == [(0, 20), (0, -20), (-20, 0)]
    assert len(result) == len(result.images) == len(result.fields) == 3
    assert result.fields.shape == (3, 2, 43, 64)  # 64 pixels on the longer side


def test_all_of_them_come_when_all_are_asked_for() -> None:
    result = palette().colorize(photograph(20, 30), n=4)
    assert result.probabilities == pytest.approx((0.4, 0.3, 0.2, 0.1)) and sum(p or 0 for p in result.probabilities) == pytest.approx(1)


def test_ties_are_ordered_by_index() -> None:
    result = palette(weights=(0.25, 0.25, 0.25, 0.25)).colorize(photograph(20, 30), n=3)
    assert shown(result.fields) == [(20, 0), (0, 20), (-20, 0)]
    fields, weights = palette(weights=(0.2, 0.3, 0.2, 0.3)).predict(torch.zeros(2, 1, 64, 64))
    assert shown(fields[1]) == [(0, 20), (0, -20), (20, 0), (-20, 0)]
    assert weights.tolist()[0] == pytest.approx([0.3, 0.3, 0.2, 0.2])


def test_predict_gives_the_heaviest_n_of_each_photograph_by_its_own_weights() -> None:
    colorizer = palette()
    colorizer.mdn.weights = torch.tensor([0.1, 0.4, 0.2, 0.3])
    per_photo = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.5, 0.1, 0.4, 0.0]])
    colorizer.mdn.representatives = lambda features: (per_photo, colorizer.mdn.colors.repeat(2, 1, 1))  # type: ignore[method-assign, union-attr, operator]
    fields, weights = colorizer.predict(torch.zeros(2, 1, 64, 64), n=2)
    assert fields.shape == (2, 2, 2, 64, 64)
    assert [shown(each) for each in fields] == [[(0, 20), (0, -20)], [(20, 0), (-20, 0)]]
    torch.testing.assert_close(weights, torch.tensor([[0.4, 0.3], [0.5, 0.4]]))


def test_above_k_come_samples_without_a_probability() -> None:
    result = palette().colorize(photograph(20, 30), n=9, seed=1)
    assert result.probabilities[:4] == pytest.approx((0.4, 0.3, 0.2, 0.1))
    assert result.probabilities[4:] == (None,) * 5
    assert len(result.images) == len(result.fields) == 9
    means = result.fields.mean((2, 3)) * 128
    apart = torch.cdist(means, means) + 100 * torch.eye(9)
    assert apart.min() >= 2


def test_one_code_gives_one_picture_however_many_are_asked_for() -> None:
    """Samples that look like what is there already are left out, so fewer may come."""
    result = palette([(20.0, 0.0)], [1.0], scale=1e-4).colorize(photograph(20, 30), n=6)
    assert len(result) == len(result.images) == 1 and result.probabilities == pytest.approx((1.0,))


def test_results_closer_than_two_lab_units_are_merged_and_their_probabilities_added() -> None:
    colors = [(20.0, 0.0), (0.0, 20.0), (21.2, 1.2), (0.0, -20.0), (0.0, 18.5)]
    result = palette(colors, (0.28, 0.1, 0.06, 0.3, 0.26)).colorize(photograph(20, 30), n=5)
    assert shown(result.fields) == [(0, 18), (20, 0), (0, -20)]
    assert result.probabilities == pytest.approx((0.36, 0.34, 0.3))


@pytest.mark.parametrize(("distance", "count"), [(1.9, 1), (2.1, 2)])
def test_the_limit_of_merging_is_two_lab_units(distance: float, count: int) -> None:
    side = distance / math.sqrt(2)
    result = palette([(10.0, 5.0), (10 + side, 5 - side)], (0.6, 0.4)).colorize(photograph(20, 30), n=2)
    assert len(result) == count
    assert sum(p or 0 for p in result.probabilities) == pytest.approx(1)


def test_the_order_is_by_probability_after_merging() -> None:
    result = palette([(20.0, 0.0), (0.0, 20.0), (0.5, 20.0)], (0.4, 0.35, 0.25)).colorize(photograph(20, 30), n=2)
    assert shown(result.fields) == [(0, 20), (20, 0)] and result.probabilities == pytest.approx((0.6, 0.4))


# --- samples ---


def test_samples_follow_the_mixture() -> None:
    colorizer = palette([(60.0, 0.0), (-60.0, 0.0)], (0.25, 0.75), scale=0.05)
    drawn = colorizer.sample(torch.zeros(1, 1, 64, 64), 2000, generator(3))[0, :, :, 0, 0] * 128
    first = drawn[:, 0] > 0
    assert float(first.float().mean()) == pytest.approx(0.25, abs=0.03)
    for side, center in ((first, 60.0), (~first, -60.0)):
        np.testing.assert_allclose(drawn[side].mean(0).numpy(), [center, 0], atol=1.0)
        np.testing.assert_allclose(drawn[side].std(0).numpy(), [6.4, 6.4], rtol=0.1)


def test_the_seed_decides_the_samples_and_nothing_else_does() -> None:
    photo = photograph(40, 30)
    torch.manual_seed(1)
    first = palette().colorize(photo, n=7, seed=5)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = palette().colorize(photo, n=7, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(first.images, second.images) and first.probabilities == second.probabilities
    third = palette().colorize(photo, n=7, seed=6)
    assert np.array_equal(first.images[:4], third.images[:4]) and not np.array_equal(first.images[4:], third.images[4:])


# --- crops and arguments ---


def test_a_crop_is_the_same_as_a_picture_cut_out_before() -> None:
    photo = photograph(60, 90)
    cropped = real().colorize(photo, n=2, crop=(10, 5, 75, 55))
    cut = real().colorize(np.ascontiguousarray(photo[5:55, 10:75]), n=2)
    assert cropped.images.shape[1:] == (50, 65, 3)
    assert np.array_equal(cropped.images, cut.images) and np.array_equal(cropped.gray, cut.gray)


@pytest.mark.parametrize("crop", [(0, 0, 30, 20), (29, 19, 30, 20), (0, 0, 1, 20)])
def test_crops_up_to_the_edges_are_valid(crop: tuple[int, int, int, int]) -> None:
    result = palette().colorize(photograph(20, 30), n=1, crop=crop)
    assert result.images.shape == (1, crop[3] - crop[1], crop[2] - crop[0], 3)


@pytest.mark.parametrize(
    "crop",
    [
        (-1, 0, 10, 10),
        (0, 0, 31, 20),
        (0, 0, 30, 21),
        (5, 5, 5, 10),
        (5, 10, 9, 10),
        (9, 5, 4, 10),
        (0, 0, 10),
        "abcd",
        7,
        (0, 0, math.nan, 9),
    ],
)
def test_crops_that_do_not_lie_inside_are_refused(crop: Any) -> None:
    with pytest.raises(ConfigError, match="crop"):
        palette().colorize(photograph(20, 30), crop=crop)


def test_an_endless_crop_is_refused() -> None:
    with pytest.raises(ConfigError, match="crop"):
        palette().colorize(photograph(20, 30), crop=(0, 0, math.inf, 9))  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [0, -1])
def test_less_than_one_colorization_is_refused(n: int) -> None:
    with pytest.raises(ConfigError, match=f"{n} colorizations"):
        palette().colorize(photograph(20, 30), n=n)


def test_files_arrays_and_tensors_give_the_same(tmp_path: Path) -> None:
    photo = photograph(20, 30)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    expected = palette().colorize(photo, n=2).images
    for same in (tmp_path / "photo.png", str(tmp_path / "photo.png"), torch.from_numpy(photo), photo[:, ::-1][:, ::-1]):
        assert np.array_equal(palette().colorize(same, n=2).images, expected)


def test_networks_read_64_pixels_only() -> None:
    for call in (lambda gray: real().predict(gray), lambda gray: real().sample(gray, 2)):
        with pytest.raises(ShapeError, match="`gray` has shape"):
            call(torch.zeros(1, 1, 32, 32))


def test_predictions_that_are_nan_are_an_error_not_a_picture() -> None:
    with pytest.raises(ShapeError, match="predicted colors"):
        palette([(math.nan, 0.0), (0.0, 0.0)], (0.5, 0.5)).colorize(photograph(20, 30))


# --- modes ---


def test_models_keep_their_mode_and_color_as_in_eval_mode() -> None:
    colorizer = palette()
    photo = photograph(20, 30)
    expected = colorizer.colorize(photo, n=6).images
    assert not colorizer.cvae.training and not colorizer.mdn.training
    colorizer.cvae.train()
    colorizer.cvae.drop.eval()  # type: ignore[union-attr, operator]
    colorizer.mdn.train()
    assert np.array_equal(colorizer.colorize(photo, n=6).images, expected)
    colorizer.cvae.drop.train()  # type: ignore[union-attr, operator]
    assert np.array_equal(colorizer.colorize(photo, n=6).images, expected)
    assert colorizer.cvae.training and colorizer.mdn.training and colorizer.cvae.drop.training  # type: ignore[union-attr]
    assert not colorizer.predict(torch.zeros(1, 1, 64, 64))[0].requires_grad
    assert not colorizer.sample(torch.zeros(1, 1, 64, 64), 2).requires_grad


# --- checkpoints ---


def test_a_saved_colorizer_comes_back_with_everything_it_had(tmp_path: Path) -> None:
    colorizer = real()
    colorizer.save(tmp_path / "c.safetensors")
    loaded = Colorizer.from_checkpoint(tmp_path / "c.safetensors")
    gray = torch.rand(3, 1, 64, 64, generator=generator(1)) * 2 - 1
    (fields, weights), (others, other_weights) = colorizer.predict(gray), loaded.predict(gray)
    assert float(fields.std()) > 0.02
    torch.testing.assert_close(others, fields, atol=5e-3, rtol=0)
    torch.testing.assert_close(other_weights, weights, atol=5e-3, rtol=0)
    assert loaded.manifest["name"] == "toy"
    assert loaded.manifest["cvae"] == asdict(colorizer.cvae.config)
    assert loaded.regressor is not None and loaded.regressor.width == 0.1
    assert set(loaded.anchors) == {"mean", "clusters"}
    torch.testing.assert_close(loaded.anchors["clusters"], colorizer.anchors["clusters"], atol=1e-3, rtol=0)
    assert not any(module.training for module in (loaded.cvae, loaded.mdn, loaded.regressor))
    assert {value.dtype for value in loaded.cvae.parameters()} == {torch.float32}


def test_half_precision_is_all_that_saving_loses(tmp_path: Path) -> None:
    real().save(tmp_path / "a.safetensors")
    tensors, _ = read_tensors(tmp_path / "a.safetensors")
    assert {value.dtype for value in tensors.values()} <= {torch.float16, torch.int64}
    Colorizer.from_checkpoint(tmp_path / "a.safetensors").save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_colorizer_without_extras_comes_back_without(tmp_path: Path) -> None:
    colorizer = real()
    Colorizer(colorizer.cvae, colorizer.mdn).save(tmp_path / "c.safetensors")
    loaded = Colorizer.from_checkpoint(tmp_path / "c.safetensors")
    assert loaded.regressor is None and loaded.anchors == {}


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        real().save(tmp_path / "file" / "c.safetensors")


# --- what ships ---


@pytest.mark.parametrize("name", PRETRAINED)
def test_shipped_checkpoints_load_without_a_network_and_color_in_several_ways(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import divcolor_lib

    path = Path(divcolor_lib.__file__).parent / "artifacts" / f"{name}.safetensors"
    if not path.exists():
        pytest.skip(f"{path.name} is not in the package yet")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    colorizer = Colorizer.from_pretrained(name)
    assert path.stat().st_size <= 1_000_000 or name == "faces"
    y, x = np.mgrid[-1:1:96j, -1:1:80j]
    photo = (255 * np.exp(-(x**2 + 0.7 * y**2))).astype(np.uint8)
    first, second = colorizer.colorize(photo, n=8), colorizer.colorize(photo, n=8)
    assert np.array_equal(first.images, second.images)
    assert len(first) >= 2
    weights = [p for p in first.probabilities if p is not None]
    assert weights == sorted(weights, reverse=True) and sum(weights) == pytest.approx(1, abs=1e-3)
    assert colorizer.regressor is not None and {"mean", "components", "clusters"} <= set(colorizer.anchors)


def test_an_unknown_name_lists_what_ships() -> None:
    with pytest.raises(ConfigError, match="faces, portraits"):
        Colorizer.from_pretrained("dogs")


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_package_without_its_artifact_says_so(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("divcolor_lib.colorize.files", lambda package: tmp_path)
    with pytest.raises(CheckpointError, match=f"no such checkpoint.*{name}"):
        Colorizer.from_pretrained(name)


def test_images_of_the_wrong_kind_are_refused() -> None:
    for photo in (np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(ImageError):
            palette().colorize(photo)


# --- hints ---


def colored(*colors: tuple[float, float], size: int = 8) -> Tensor:
    """Flat fields of these colors, Lab units in, ab/128 out: `(K, 2, size, size)`."""
    return (torch.tensor(colors) / 128)[..., None, None].expand(-1, -1, size, size).contiguous()


@pytest.mark.parametrize("tau", [0.7, 5.0, 40.0])
def test_hinted_weights_are_bayes_rule(tau: float) -> None:
    """Against numpy, one coloring at a time, with a soft mask on fields without any structure."""
    rng = np.random.default_rng(int(tau))
    fields, mask, weights, hint = rng.normal(0, 0.02, (5, 2, 6, 7)), rng.uniform(0, 2, (6, 7)), rng.uniform(0, 3, 5), np.array([1.0, -0.5])
    unnormalized = []
    for weight, field in zip(weights, fields):
        mean = np.array([np.average(channel, weights=mask) * 128 for channel in field])
        unnormalized.append(weight * np.exp(-((hint - mean) ** 2).sum() / (2 * tau * tau)) / (2 * np.pi * tau * tau))
    got = hint_weights(torch.tensor(weights), torch.tensor(fields), torch.tensor(mask), hint.tolist(), tau)
    assert got.dtype == torch.float64 and got.shape == (5,)
    np.testing.assert_allclose(got, np.array(unnormalized) / sum(unnormalized), rtol=1e-9)


def test_only_the_marked_pixels_count_and_a_mask_of_bools_is_one_of_ones() -> None:
    fields, mask = colored(*FOUR), torch.zeros(8, 8, dtype=torch.bool)
    mask[:, :3] = True
    weights = torch.tensor([0.1, 0.4, 0.2, 0.3])
    got = hint_weights(weights, fields, mask, (20.0, 0.0), 10.0)
    changed = fields.clone()
    changed[:, :, :, 3:] = 0.9
    torch.testing.assert_close(hint_weights(weights, changed, mask, (20.0, 0.0), 10.0), got)
    torch.testing.assert_close(hint_weights(weights, fields, 7 * mask.double(), torch.tensor([20.0, 0.0]), 10.0), got)
    assert got.argmax() == 0


def test_several_hints_at_once_are_one_after_the_other_in_any_order() -> None:
    fields = torch.randn(4, 2, 8, 8, generator=generator(0)) * 0.1
    masks, hints = torch.rand(2, 8, 8, generator=generator(1)), torch.tensor([[3.0, -2.0], [-4.0, 5.0]])
    weights = torch.tensor([0.1, 0.4, 0.2, 0.3])
    at_once = hint_weights(weights, fields, masks, hints, 3.0)
    for first, second in ((0, 1), (1, 0)):
        step = hint_weights(weights, fields, masks[first], hints[first], 3.0)
        torch.testing.assert_close(hint_weights(step, fields, masks[second], hints[second], 3.0), at_once)


def test_a_loose_hint_says_nothing_and_a_sharp_one_far_from_everything_does_not_underflow() -> None:
    fields, weights, mask = colored(*FOUR), torch.tensor([0.1, 0.4, 0.2, 0.3]), torch.ones(8, 8)
    torch.testing.assert_close(hint_weights(weights, fields, mask, (20.0, 0.0), 1e5), weights.double(), atol=1e-6, rtol=0)
    far = hint_weights(weights, fields, mask, (900.0, 1.0), 1e-3)
    assert far.isfinite().all() and far.tolist() == pytest.approx([1, 0, 0, 0])
    none = hint_weights(torch.tensor([0.0, 0.4, 0.2, 0.3]), fields, mask, (20.0, 0.0), 1.0)
    assert none[0] == 0 and float(none.sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mask": torch.zeros(8, 8)}, "mask is empty"),
        ({"mask": torch.zeros(2, 8, 8), "hint": torch.zeros(2, 2)}, "mask is empty"),
        ({"mask": torch.ones(8, 7)}, "`mask` has shape"),
        ({"mask": torch.ones(2, 8, 8)}, "`hint` has shape"),
        ({"mask": -torch.ones(8, 8)}, "negative"),
        ({"mask": torch.full((8, 8), math.nan)}, "`mask` holds"),
        ({"mask": [[1]]}, "`mask` is a list"),
        ({"hint": (1.0, 2.0, 3.0)}, "`hint` has shape"),
        ({"hint": (math.nan, 1.0)}, "`hint` holds"),
        ({"weights": torch.ones(3)}, "`fields` has shape"),
        ({"weights": torch.zeros(4)}, "all weights are 0"),
        ({"weights": torch.tensor([1.0, -1.0, 1.0, 1.0])}, "negative"),
        ({"weights": torch.tensor([1.0, math.inf, 1.0, 1.0])}, "`weights` holds"),
        ({"fields": torch.full((4, 2, 8, 8), math.nan)}, "`fields` holds"),
    ],
)
def test_hints_that_cannot_be_used_raise_one_clear_error(changed: dict[str, Any], message: str) -> None:
    arguments = {"weights": torch.ones(4), "fields": colored(*FOUR), "mask": torch.ones(8, 8), "hint": (1.0, 2.0), "tau": 5.0} | changed
    with pytest.raises(ShapeError, match=message):
        hint_weights(**arguments)


@pytest.mark.parametrize("tau", [0, -1.0, math.nan, math.inf, "10"])
def test_a_spread_that_is_not_positive_is_refused(tau: Any) -> None:
    with pytest.raises(ConfigError, match="tau"):
        hint_weights(torch.ones(4), colored(*FOUR), torch.ones(8, 8), (1.0, 2.0), tau)
    with pytest.raises(ConfigError, match="tau"):
        palette().colorize(photograph(20, 30), hints=[Hint((3, 4), (128, 128, 128), tau)])


RED, GREENISH = (160, 100, 115), (85, 135, 120)


@pytest.mark.parametrize("where", [(3, 4), (3, 4, 20, 15), (0, 0, 30, 20), (29, 19)])
def test_a_hint_reorders_the_colorings_and_drops_none(where: tuple[int, ...]) -> None:
    photo = photograph(20, 30)
    plain, hinted = palette().colorize(photo, n=4), palette().colorize(photo, n=4, hints=[Hint(where, GREENISH)])
    assert shown(plain.fields)[0] == (0, 20) and shown(hinted.fields)[0] == (-20, 0)
    assert sorted(shown(hinted.fields)) == sorted(shown(plain.fields))
    known = [p for p in hinted.probabilities if p is not None]
    assert len(known) == 4 and known == sorted(known, reverse=True) and sum(known) == pytest.approx(1)
    assert np.array_equal(hinted.gray, plain.gray)
    first = palette().colorize(photo, n=1, hints=[Hint(where, GREENISH)])
    assert shown(first.fields) == [(-20, 0)]  # all four were weighed before one was taken


def test_a_hint_gives_the_weights_of_its_formula() -> None:
    """A gray photograph of one lightness, so that nothing leaves the gamut; OpenCV converts the color."""
    photo = np.full((40, 40), 120, np.uint8)
    hint = Hint((5, 5, 30, 30), RED)
    a, b = cv2.cvtColor(np.float32([[np.array(RED) / 255]]), cv2.COLOR_RGB2Lab)[0, 0, 1:]
    wanted = hint_weights(torch.tensor([0.1, 0.4, 0.2, 0.3]), colored(*FOUR), torch.ones(8, 8), (float(a), float(b)), HINT_TAU)
    result = palette().colorize(photo, n=4, hints=[hint])
    assert result.probabilities == pytest.approx(sorted(wanted.tolist(), reverse=True), abs=2e-3)


def test_a_hint_tells_of_its_own_place_also_in_a_crop() -> None:
    """Two colorings, red left and green right or the other way round; the crop keeps the picture's own coordinates."""
    pattern = torch.zeros(2, 64, 64)
    pattern[0, :, :32], pattern[0, :, 32:] = 0.2, -0.2

    class Mirrored(PaletteCVAE):
        def decode_features(self, z: Tensor, features: list[Tensor]) -> Tensor:
            return z[..., :1, None, None].sign() * pattern

    colorizer = Colorizer(Mirrored(), PaletteMDN([(1.0, 0.0), (-1.0, 0.0)], [0.4, 0.6]))
    photo = np.full((60, 100), 120, np.uint8)
    crop = (30, 10, 90, 60)
    for where, sign in (((35, 15), 1), ((85, 55), -1), ((31, 11, 50, 50), 1)):
        result = colorizer.colorize(photo, n=2, crop=crop, hints=[Hint(where, RED)])
        assert result.fields[0, 0, :, 0].mean() * sign > 0.1
    both = colorizer.colorize(photo, n=2, crop=crop, hints=[Hint((35, 15), RED, 5.0), Hint((85, 55), GREENISH, 5.0)])
    assert both.fields[0, 0, 0, 0] > 0.1 and both.probabilities[0] > 0.99


def test_samples_come_in_the_order_in_which_they_fit_the_hints() -> None:
    photo = np.full((40, 40), 120, np.uint8)
    plain = palette().colorize(photo, n=12, seed=1)
    hinted = palette().colorize(photo, n=12, seed=1, hints=[Hint((5, 5, 30, 30), GREENISH)])
    assert hinted.probabilities[4:] == (None,) * 8
    assert sorted(shown(hinted.fields[4:])) == sorted(shown(plain.fields[4:]))
    a, b = cv2.cvtColor(np.float32([[np.array(GREENISH) / 255]]), cv2.COLOR_RGB2Lab)[0, 0, 1:]
    apart = [math.dist((a, b), (field.mean((1, 2)) * 128).tolist()) for field in hinted.fields[4:]]
    assert apart == pytest.approx(sorted(apart), abs=0.2)


def test_without_hints_nothing_changes() -> None:
    photo = photograph(50, 40)
    plain, empty = real().colorize(photo, n=6), real().colorize(photo, n=6, hints=[])
    assert np.array_equal(plain.images, empty.images) and plain.probabilities == empty.probabilities


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (480, 640)])
def test_a_point_is_enough_at_every_size(size: tuple[int, int]) -> None:
    result = palette().colorize(photograph(*size), n=4, hints=[Hint((size[1] - 1, size[0] - 1), RED)])
    assert len(result) == 4 and all(math.isfinite(p or 0) for p in result.probabilities)


@pytest.mark.parametrize(
    "hint",
    [
        Hint((30, 5), RED),
        Hint((5, 20), RED),
        Hint((-1, 5), RED),
        Hint((5, 5, 5, 9), RED),
        Hint((5, 5, 31, 9), RED),
        Hint((5,), RED),
        Hint((5, 5, 9), RED),
        Hint((5.5, 5), RED),  # type: ignore[arg-type]
        Hint((math.nan, 5), RED),  # type: ignore[arg-type]
        Hint("ab", RED),  # type: ignore[arg-type]
        Hint((5, 5), (256, 0, 0)),
        Hint((5, 5), (-1, 0, 0)),
        Hint((5, 5), (0.5, 0.5, 0.5)),  # type: ignore[arg-type]
        Hint((5, 5), (1, 2)),  # type: ignore[arg-type]
    ],
)
def test_hints_outside_the_picture_or_without_a_color_are_refused(hint: Hint) -> None:
    with pytest.raises(ConfigError, match="hint"):
        palette().colorize(photograph(20, 30), hints=[hint])


def test_a_hint_must_lie_in_the_crop() -> None:
    with pytest.raises(ConfigError, match="hint"):
        palette().colorize(photograph(20, 30), crop=(10, 0, 30, 20), hints=[Hint((5, 5), RED)])
