"""Lab against OpenCV and scikit-image, the gamut by brute force, and every kind of picture file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage.color import deltaE_cie76, lab2rgb, rgb2lab
from torch import Tensor

from divcolor_lib import lab
from divcolor_lib.errors import ImageError, ShapeError
from tests import hostile

DELTA = 6 / 29


def first(channels_last: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.moveaxis(channels_last, -1, -3).copy())


def last(channels_first: Tensor) -> NDArray[Any]:
    return np.moveaxis(channels_first.numpy(), -3, -1)


@pytest.fixture(scope="module")
def grid() -> NDArray[np.float32]:
    """The 17 x 17 x 17 sRGB colors, as an image (17, 289, 3)."""
    steps = np.linspace(0, 1, 17, dtype=np.float32)
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(17, 289, 3)


@pytest.fixture(scope="module")
def bytes_grid() -> Tensor:
    """uint8 colors (1, 52, 2704, 3): 52 levels of each channel, black and white among them."""
    level = torch.arange(0, 256, 5, dtype=torch.uint8)
    return torch.stack(torch.meshgrid(level, level, level, indexing="ij"), dim=-1).reshape(1, 52, -1, 3)


def random_lab(*shape: int, seed: int = 0) -> Tensor:
    """Lab colors of which most are outside the gamut, `(*shape[:-2], 3, *shape[-2:])`."""
    noise = torch.rand(*shape[:-2], 3, *shape[-2:], generator=torch.Generator().manual_seed(seed))
    return noise * torch.tensor([100.0, 220.0, 220.0]).view(3, 1, 1) - torch.tensor([0.0, 110.0, 110.0]).view(3, 1, 1)


# ---- conversions


def test_lab_agrees_with_opencv_within_its_own_table_error(grid: NDArray[np.float32]) -> None:
    # OpenCV interpolates its curves in tables; against float64 mathematics it is the one that is off by 0.008.
    error = np.abs(last(lab.rgb_to_lab(first(grid))) - cv2.cvtColor(grid, cv2.COLOR_RGB2Lab))
    assert error.max() < 0.01


def test_lab_agrees_with_scikit_image_within_its_rounded_white_point(grid: NDArray[np.float32]) -> None:
    error = np.abs(last(lab.rgb_to_lab(first(grid))) - rgb2lab(grid.astype(np.float64)))
    assert error.max() < 0.006


def test_float32_is_as_good_as_float64(grid: NDArray[np.float32]) -> None:
    colors = first(grid)
    assert (lab.rgb_to_lab(colors) - lab.rgb_to_lab(colors.double())).abs().max() < 1e-4


def test_going_back_agrees_with_opencv_and_scikit_image(grid: NDArray[np.float32]) -> None:
    colors = lab.rgb_to_lab(first(grid))
    mine = last(lab.lab_to_rgb(colors))
    np.testing.assert_allclose(mine, grid, atol=2e-5)
    np.testing.assert_allclose(mine, cv2.cvtColor(last(colors), cv2.COLOR_Lab2RGB), atol=5e-5)
    np.testing.assert_allclose(mine, lab2rgb(last(colors).astype(np.float64)), atol=5e-4)


def test_bytes_and_floats_give_the_same_lab(bytes_grid: Tensor) -> None:
    from_bytes = lab.rgb_to_lab(bytes_grid.movedim(-1, -3))
    torch.testing.assert_close(from_bytes, lab.rgb_to_lab(bytes_grid.movedim(-1, -3) / 255), atol=1e-4, rtol=0)


def test_every_gray_is_neutral_to_the_last_bit_and_back() -> None:
    # An odd number of pixels also runs the scalar ends of vectorized loops.
    level = torch.linspace(0, 1, 1021)
    colors = lab.rgb_to_lab(level.expand(3, 1, -1))
    assert not colors[1:].any()
    rgb = lab.lab_to_rgb(colors)
    assert torch.equal(rgb[0], rgb[1]) and torch.equal(rgb[1], rgb[2])


def test_black_and_white_are_0_and_100() -> None:
    ends = torch.tensor([0.0, 1.0]).expand(3, 1, 2)
    assert lab.rgb_to_lab(ends)[0, 0].tolist() == [0, 100]


@pytest.mark.parametrize(
    "rgb, known",
    [((1, 0, 0), (53.24, 80.09, 67.20)), ((0, 1, 0), (87.73, -86.18, 83.18)), ((0, 0, 1), (32.30, 79.19, -107.86))],
)
def test_the_primaries_have_their_textbook_values(rgb: tuple[int, ...], known: tuple[float, ...]) -> None:
    color = lab.rgb_to_lab(torch.tensor(rgb, dtype=torch.float32).view(3, 1, 1)).flatten()
    torch.testing.assert_close(color, torch.tensor(known), atol=0.02, rtol=0)


def test_the_curves_are_continuous_and_inverse_to_each_other() -> None:
    x = torch.linspace(-0.2, 1.2, 5001, dtype=torch.float64)
    torch.testing.assert_close(lab.linear_to_srgb(lab.srgb_to_linear(x)), x, atol=1e-6, rtol=0)
    assert (lab.srgb_to_linear(x).diff() > 0).all()
    joints = torch.tensor([0.04045, 0.04045 + 1e-12], dtype=torch.float64)
    assert lab.srgb_to_linear(joints).diff().abs() < 1e-7


def test_gradients_agree_with_finite_differences() -> None:
    colors = torch.tensor([[0.2, 0.5, 0.8], [0.01, 0.02, 0.03], [0.9, 0.1, 0.003]], dtype=torch.float64).T.reshape(3, 1, 3)
    assert torch.autograd.gradcheck(lab.rgb_to_lab, colors.clone().requires_grad_())
    assert torch.autograd.gradcheck(lab.lab_to_rgb, lab.rgb_to_lab(colors).requires_grad_())


def test_gradients_are_finite_at_black_at_white_and_at_the_joints() -> None:
    linear_joint = torch.tensor(DELTA**3)
    special = torch.stack([torch.tensor(0.0), torch.tensor(1.0), torch.tensor(0.04045), lab.linear_to_srgb(linear_joint)])
    rgb = special.expand(3, 1, -1).clone().requires_grad_()
    lab.rgb_to_lab(rgb).sum().backward()
    assert rgb.grad is not None and rgb.grad.isfinite().all() and (rgb.grad.sum(dim=0) > 0).all()

    lightness = torch.tensor([0.0, 100.0, 8.0, 116 * DELTA - 16])
    color = torch.stack([lightness, torch.zeros(4), torch.zeros(4)]).unsqueeze(1).requires_grad_()
    lab.lab_to_rgb(color).sum().backward()
    assert color.grad is not None and color.grad.isfinite().all() and (color.grad[0] > 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_floats_become_float32(dtype: torch.dtype) -> None:
    assert lab.rgb_to_lab(torch.rand(3, 2, 2, dtype=dtype)).dtype == torch.float32
    assert lab.lab_to_rgb(torch.rand(3, 2, 2, dtype=dtype)).dtype == torch.float32


def test_leading_axes_are_free() -> None:
    colors = torch.rand(2, 4, 3, 5, 6)
    torch.testing.assert_close(lab.rgb_to_lab(colors)[1, 2], lab.rgb_to_lab(colors[1, 2]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "rgb",
    [torch.zeros(4, 8, 8), torch.zeros(3), torch.zeros(8, 8, 3), torch.zeros(3, 8, 8, dtype=torch.int64), np.zeros((3, 8, 8))],
)
def test_what_is_no_color_image_is_refused(rgb: Any) -> None:
    with pytest.raises(ShapeError, match="`rgb`"):
        lab.rgb_to_lab(rgb)


def test_to_uint8_rounds_and_clips() -> None:
    values = torch.tensor([-0.5, 0.0, 0.49 / 255, 0.51 / 255, 200.4 / 255, 1.0, 7.0])
    assert lab.to_uint8(values).tolist() == [0, 0, 0, 1, 200, 255, 255]


# ---- split and join


def test_split_and_join_give_every_color_back(bytes_grid: Tensor) -> None:
    gray, ab = lab.split(bytes_grid)
    assert torch.equal(lab.join(gray, ab), bytes_grid)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_split_and_join_give_any_photograph_back(seed: int, height: int, width: int) -> None:
    photos = torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(lab.join(*lab.split(photos)), photos)


def test_split_gives_the_contract_of_networks(bytes_grid: Tensor) -> None:
    gray, ab = lab.split(bytes_grid)
    assert gray.shape == (1, 1, 52, 2704) and ab.shape == (1, 2, 52, 2704)
    assert gray.dtype == ab.dtype == torch.float32
    assert gray.min() == -1 and gray.max() == 1 and ab.abs().max() < 1
    known = rgb2lab(bytes_grid[0].numpy())
    np.testing.assert_allclose(gray[0, 0], known[..., 0] / 50 - 1, atol=1e-5)
    np.testing.assert_allclose(last(ab[0]), known[..., 1:] / 128, atol=1e-4)


def test_join_keeps_the_lightness_that_was_given() -> None:
    gray = torch.linspace(-1, 1, 64).view(1, 1, 1, 64).expand(1, 1, 64, 64)
    wild = torch.rand(1, 2, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    back, _ = lab.split(lab.join(gray, wild))
    assert (back - gray).abs().max() * 50 < 0.5


def test_join_takes_a_lightness_a_little_out_of_range() -> None:
    photos = lab.join(torch.tensor([[[[-1.2, 1.2]]]]), torch.full((1, 2, 1, 2), 0.3))
    assert photos.flatten().tolist() == [0, 0, 0, 255, 255, 255]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_join_refuses_values_that_are_no_numbers(bad: float) -> None:
    with pytest.raises(ShapeError, match="`ab` holds 1 of"):
        lab.join(torch.zeros(1, 1, 2, 2), torch.tensor([bad] + [0.0] * 7).view(1, 2, 2, 2))


def test_split_and_join_refuse_other_shapes_and_types() -> None:
    with pytest.raises(ShapeError, match="float32"):
        lab.split(torch.zeros(1, 2, 2, 3))
    with pytest.raises(ShapeError, match="shape"):
        lab.split(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
    with pytest.raises(ShapeError, match="`ab`"):
        lab.join(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 4, 4))


# ---- gamut


def test_every_color_of_a_screen_is_in_gamut_and_comes_back_bit_for_bit(bytes_grid: Tensor) -> None:
    colors = lab.rgb_to_lab(bytes_grid.movedim(-1, -3))
    assert lab.in_gamut(colors, tolerance=1e-5).all()
    assert torch.equal(lab.to_gamut(colors), colors)


def test_in_gamut_is_the_range_of_the_rgb_values() -> None:
    colors = random_lab(4, 40, 40).double()
    rgb = lab2rgb_unclipped(colors)
    for tolerance in (0.0, 1e-4, 0.01):
        expected = ((rgb >= -tolerance) & (rgb <= 1 + tolerance)).all(dim=-3)
        assert torch.equal(lab.in_gamut(colors, tolerance), expected)
    assert 0.1 < expected.float().mean() < 0.9


def lab2rgb_unclipped(colors: Tensor) -> Tensor:
    """An independent way back: the definition of Lab, the inverse matrix and the sRGB curve, in float64 and one by one."""
    to_xyz = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
    white = to_xyz.sum(axis=1)
    lightness, a, b = np.moveaxis(colors.numpy(), -3, 0)
    f = np.stack([(lightness + 16) / 116 + a / 500, (lightness + 16) / 116, (lightness + 16) / 116 - b / 200], axis=-1)
    xyz = np.where(f > DELTA, f**3, (f - 4 / 29) * 3 * DELTA**2) * white
    linear = xyz @ np.linalg.inv(to_xyz).T
    curve = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return first(np.where(linear > 0.0031308, curve, 12.92 * linear))


def test_mapped_colors_are_displayable_with_the_same_lightness_and_hue() -> None:
    colors = random_lab(3, 50, 50)
    mapped = lab.to_gamut(colors)
    rgb = lab.lab_to_rgb(mapped)
    assert lab.in_gamut(mapped).all() and rgb.min() > -2e-4 and rgb.max() < 1 + 2e-4
    assert torch.equal(mapped[:, 0], colors[:, 0])
    cross = mapped[:, 1] * colors[:, 2] - mapped[:, 2] * colors[:, 1]
    dot = mapped[:, 1] * colors[:, 1] + mapped[:, 2] * colors[:, 2]
    assert cross.abs().max() < 1e-3 * dot.abs().max() and (dot >= 0).all()
    assert (mapped[:, 1:].norm(dim=1) <= colors[:, 1:].norm(dim=1)).all()


def test_mapped_colors_keep_all_the_chroma_that_a_screen_can_show() -> None:
    colors = random_lab(20, 20)
    outside = ~lab.in_gamut(colors)
    mapped = lab.to_gamut(colors)
    chroma = mapped[1:].norm(dim=0)
    a_bit_more = torch.cat([mapped[:1], mapped[1:] * ((chroma + 0.01) / chroma.clamp(min=1e-9))])
    assert outside.float().mean() > 0.5 and not lab.in_gamut(a_bit_more)[outside & (chroma > 0)].any()


def test_a_ray_from_gray_leaves_the_gamut_once_except_near_pure_yellow() -> None:
    # The bisection of `to_gamut` relies on it.
    degrees = torch.arange(0, 360, 3)[:, None, None]
    chroma = torch.linspace(0, 160, 161)[None, None, :]
    lightness = torch.linspace(1, 99, 50)[None, :, None].expand(120, 50, 161)
    a, b = degrees.deg2rad().cos() * chroma, degrees.deg2rad().sin() * chroma
    inside = lab.in_gamut(torch.stack([lightness, a.expand_as(lightness), b.expand_as(lightness)]).flatten(1, 2)).view(120, 50, 161)
    comes_back = (inside.int().diff(dim=-1) > 0).any(dim=-1)
    hues = degrees[comes_back.any(dim=1)]
    assert comes_back.float().mean() < 1e-3 and ((hues > 90) & (hues < 110)).all()


def test_only_the_colors_outside_change() -> None:
    colors = random_lab(30, 30)
    inside = lab.in_gamut(colors)
    mapped = lab.to_gamut(colors)
    assert inside.any() and not inside.all()
    assert torch.equal(mapped[:, inside], colors[:, inside]) and (mapped != colors).any(dim=0)[~inside].all()


def test_a_lightness_that_no_color_has_is_clipped() -> None:
    mapped = lab.to_gamut(torch.tensor([[-5.0, 120.0], [20.0, -20.0], [0.0, 40.0]]).unsqueeze(1))
    assert mapped[0, 0].tolist() == [0, 100] and lab.in_gamut(mapped).all()


def test_not_a_number_is_outside_the_gamut() -> None:
    assert not lab.in_gamut(torch.full((3, 1, 1), torch.nan)).any()


def test_the_gamut_map_passes_gradients() -> None:
    colors = random_lab(6, 6).requires_grad_()
    lab.to_gamut(colors).sum().backward()
    assert colors.grad is not None and colors.grad.isfinite().all()


# ---- other conventions


def test_eight_bit_lab_is_the_one_of_opencv(bytes_grid: Tensor) -> None:
    photo = bytes_grid[0].numpy()
    theirs = cv2.cvtColor(photo, cv2.COLOR_RGB2Lab).astype(int)
    mine = last(lab.lab_to_opencv8(lab.rgb_to_lab(first(photo)))).astype(int)
    # OpenCV computes with whole numbers here, and is up to two steps off.
    difference = np.abs(mine - theirs)
    assert difference.max() <= 2 and (difference > 1).mean() < 1e-3 and (difference == 0).mean() > 0.85


def test_decoding_eight_bit_lab_undoes_coding_up_to_half_a_step() -> None:
    colors = random_lab(16, 16)
    back = lab.opencv8_to_lab(lab.lab_to_opencv8(colors))
    assert (back[0] - colors[0]).abs().max() <= 0.5 * 100 / 255 + 1e-4
    assert (back[1:] - colors[1:]).abs().max() <= 0.5 + 1e-4
    coded = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    assert torch.equal(lab.lab_to_opencv8(lab.opencv8_to_lab(coded)), coded)


def test_the_coding_of_the_reference_code_is_converted() -> None:
    byte = torch.arange(256.0)
    torch.testing.assert_close(lab.reference_to_ab(byte * 2 / 255 - 1), (byte - 128) / 128, atol=1e-6, rtol=0)
    torch.testing.assert_close(lab.ab_to_reference((byte - 128) / 128), byte * 2 / 255 - 1, atol=1e-6, rtol=0)
    # The neutral byte is not 0 for the reference code, which is why neutral ab must be converted.
    assert lab.ab_to_reference(torch.zeros(1)).item() == pytest.approx(1 / 255, abs=1e-6)


def test_delta_e_is_the_one_of_scikit_image() -> None:
    one, two = random_lab(9, 7), random_lab(9, 7, seed=1)
    np.testing.assert_allclose(lab.delta_e(one, two), deltaE_cie76(last(one), last(two)), rtol=1e-5)


def test_delta_e_of_equal_colors_has_gradient_zero() -> None:
    color = torch.ones(3, 1, 1, requires_grad=True)
    lab.delta_e(color, color.detach()).sum().backward()
    assert color.grad is not None and not color.grad.any()


# ---- resizing


def exact_area(image: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float64]:
    """The average over each new pixel, on a grid so fine that every old and new pixel is whole."""
    height, width = image.shape[:2]
    fine = image.astype(np.float64).repeat(size[0], axis=0).repeat(size[1], axis=1)
    return fine.reshape(size[0], height, size[1], width, -1).mean(axis=(1, 3))


@pytest.mark.parametrize("shape, size", [((12, 18), (4, 6)), ((13, 17), (5, 7)), ((40, 30), (32, 24)), ((9, 5), (9, 2)), ((7, 7), (1, 1))])
def test_shrinking_is_the_exact_area_average(shape: tuple[int, int], size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    known = exact_area(image, size)
    assert np.abs(lab.resize_area(image, size) - known).max() <= 0.5 + 1e-4
    floats = lab.resize_area(first(image).double(), size)
    np.testing.assert_allclose(last(floats), known, atol=1e-9)


@pytest.mark.parametrize("shape", [(80, 80), (250, 250), (97, 133)])
def test_shrinking_agrees_with_opencv(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    theirs = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(lab.resize_area(image, (64, 64)) - theirs).max() <= 1


def test_growing_agrees_with_bilinear_interpolation() -> None:
    image = torch.rand(2, 3, 5, 6)
    known = torch.nn.functional.interpolate(image, size=(12, 21), mode="bilinear", align_corners=False)
    torch.testing.assert_close(lab.resize_area(image, (12, 21)), known, atol=1e-6, rtol=0)


def test_one_axis_may_shrink_while_the_other_grows() -> None:
    image = torch.rand(1, 8, 4)
    rows = torch.nn.functional.avg_pool2d(image, (2, 1))
    known = torch.nn.functional.interpolate(rows[None], size=(4, 8), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(lab.resize_area(image, (4, 8)), known, atol=1e-6, rtol=0)


def test_a_single_pixel_grows_to_a_plain_image() -> None:
    image = np.full((1, 1, 3), (10, 200, 255), dtype=np.uint8)
    assert (lab.resize_area(image, (64, 64)) == image).all()


def test_the_same_size_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 9, 8, 3), dtype=np.uint8)
    assert np.array_equal(lab.resize_area(image, (9, 8)), image)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 255), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_a_plain_image_stays_plain(level: int, height: int, width: int, rows: int, columns: int) -> None:
    resized = lab.resize_area(np.full((height, width, 3), level, dtype=np.uint8), (rows, columns))
    assert resized.shape == (rows, columns, 3) and (resized == level).all()


def test_resizing_returns_the_kind_it_was_given() -> None:
    photo = np.zeros((6, 6, 3), dtype=np.uint8)
    single, batch = lab.resize_area(photo, (3, 3)), lab.resize_area(torch.zeros(2, 6, 6, 3, dtype=torch.uint8), (3, 3))
    assert isinstance(single, np.ndarray) and single.shape == (3, 3, 3) and single.dtype == np.uint8
    assert isinstance(batch, Tensor) and batch.shape == (2, 3, 3, 3) and batch.dtype == torch.uint8
    field = torch.rand(2, 2, 6, 6, requires_grad=True)
    lab.resize_area(field, (3, 3)).sum().backward()
    torch.testing.assert_close(field.grad, torch.full_like(field, 1 / 4))


def test_resizing_is_exact_under_autocast() -> None:
    field = torch.rand(1, 2, 9, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = lab.resize_area(field, (4, 4))
    assert torch.equal(inside, lab.resize_area(field, (4, 4)))


@pytest.mark.parametrize(
    "images, size",
    [
        (np.zeros((4, 4, 3)), (2, 2)),
        (np.zeros((4, 4), dtype=np.uint8), (2, 2)),
        (torch.zeros(4, 4, 3, dtype=torch.int64), (2, 2)),
        (torch.zeros(1, 1, 4, 4, 3, dtype=torch.uint8), (2, 2)),
        (torch.zeros(3, 4, 4), (0, 2)),
        (torch.zeros(3, 0, 4), (2, 2)),
        ([[1, 2]], (2, 2)),
    ],
)
def test_what_cannot_be_resized_is_refused(images: Any, size: tuple[int, int]) -> None:
    with pytest.raises(ShapeError):
        lab.resize_area(images, size)


# ---- reading


def stored(path: Path, picture: Image.Image, **options: Any) -> Path:
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.ppm", "no_suffix"])
def test_lossless_pictures_are_read_as_they_are(name: str, tmp_path: Path) -> None:
    path = stored(tmp_path / name, Image.fromarray(hostile.pattern()), format="PNG" if name == "no_suffix" else None)
    pixels = lab.read_image(path)
    assert pixels.dtype == np.uint8 and pixels.flags.writeable and np.array_equal(pixels, hostile.pattern())
    assert np.array_equal(lab.read_image(str(path)), pixels)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_gray_becomes_three_equal_channels(mode: str, tmp_path: Path) -> None:
    gray = Image.fromarray(hostile.pattern()[..., 0]).convert(mode)
    pixels = lab.read_image(stored(tmp_path / "a.png", gray))
    assert (pixels == np.asarray(gray.convert("L"))[..., None]).all() and pixels.shape == (20, 30, 3)


def test_transparent_parts_show_white(tmp_path: Path) -> None:
    color = np.zeros((1, 3, 4), dtype=np.uint8)
    color[0, :, 0], color[0, :, 3] = 200, (0, 128, 255)
    pixels = lab.read_image(stored(tmp_path / "a.png", Image.fromarray(color)))
    half = round(200 * 128 / 255 + 255 * 127 / 255), round(255 * 127 / 255)
    assert pixels[0, 0].tolist() == [255, 255, 255] and pixels[0, 2].tolist() == [200, 0, 0]
    np.testing.assert_allclose(pixels[0, 1], [half[0], half[1], half[1]], atol=1)


def test_cmyk_is_not_inverted(tmp_path: Path) -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for path in (stored(tmp_path / "a.jpg", red, quality=100), stored(tmp_path / "a.tiff", red)):
        np.testing.assert_allclose(lab.read_image(path)[8, 8], [255, 0, 0], atol=3)


def test_a_decompression_bomb_that_only_warns_is_an_image_error_under_strict_warnings(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(hostile.png(10000, 10000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match="too large"):
            lab.read_image(path)
