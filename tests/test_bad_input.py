"""Whatever a reader puts in, one of two things comes out: a documented result, or one clear error of the library's own."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.color import rgb2lab

import divcolor_lib.__main__ as cli
from divcolor_lib import lab
from divcolor_lib.colorize import Colorizer
from divcolor_lib.cvae import CVAE, CVAEConfig
from divcolor_lib.errors import ConfigError, DivcolorError, ImageError
from divcolor_lib.mdn import MDN, MDNConfig


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    torch.manual_seed(0)
    cvae = CVAE.build(CVAEConfig(latent=2, width=0.1))
    mdn = MDN.build(MDNConfig(inputs=cvae.feature_shape, latent=2, width=0.1, components=2, representatives=2))
    return Colorizer(cvae, mdn)


@pytest.fixture(scope="module")
def checkpoint(colorizer: Colorizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "c.safetensors"
    colorizer.save(path)
    return path


def ramp(height: int = 40, width: int = 52) -> NDArray[np.uint8]:
    """Gray from black on the left to white on the right."""
    return np.broadcast_to(np.linspace(0, 255, width).round().astype(np.uint8), (height, width)).copy()


def encoded(picture: Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **settings)
    return buffer.getvalue()


GRAY = Image.fromarray(ramp())
COLOR = Image.fromarray(cv2.resize(np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8), (52, 40)))


def with_alpha() -> Image.Image:
    """Black everywhere, but transparent on the right half."""
    pixels = np.zeros((40, 52, 4), np.uint8)
    pixels[:, :26, 3] = 255
    return Image.fromarray(pixels, "RGBA")


def cmyk() -> Image.Image:
    """No ink on the left half, black ink on the right half."""
    pixels = np.zeros((40, 52, 4), np.uint8)
    pixels[:, 26:, 3] = 255
    return Image.fromarray(pixels, "CMYK")


def sixteen_bits() -> bytes:
    return encoded(Image.fromarray(ramp().astype(np.uint16) * 257), "PNG")


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    return encoded(GRAY.convert("RGB"), "JPEG", exif=exif, quality=95)


def gif() -> bytes:
    return encoded(GRAY, "GIF", save_all=True, append_images=[Image.new("L", GRAY.size, 255)])


HALVES = np.repeat(np.array([[0, 255]], np.uint8), 26, axis=1).repeat(40, axis=0)

#: name of the file: (its bytes, the gray bytes that its lightness should show, how exactly)
GOOD: dict[str, tuple[Callable[[], bytes], NDArray[np.uint8], int]] = {
    "gray.png": (lambda: encoded(GRAY, "PNG"), ramp(), 0),
    "gray.jpg": (lambda: encoded(GRAY, "JPEG", quality=95), ramp(), 4),
    "sixteen.png": (sixteen_bits, ramp(), 1),
    "alpha.png": (lambda: encoded(with_alpha(), "PNG"), HALVES, 0),
    "cmyk.tif": (lambda: encoded(cmyk(), "TIFF"), HALVES[:, ::-1], 1),
    "cmyk.jpg": (lambda: encoded(cmyk(), "JPEG", quality=95), HALVES[:, ::-1], 12),
    "one-bit.png": (lambda: encoded(Image.fromarray(HALVES).convert("1"), "PNG"), HALVES, 0),
    "one-pixel.png": (lambda: encoded(Image.new("L", (1, 1), 77), "PNG"), np.full((1, 1), 77, np.uint8), 0),
    "two.gif": (gif, ramp(), 1),
    "turned.jpg": (turned, np.rot90(ramp(), -1), 4),
    "png-called.jpg": (lambda: encoded(GRAY, "PNG"), ramp(), 0),
    "no-suffix": (lambda: encoded(GRAY, "PNG"), ramp(), 0),
    "narrow.png": (lambda: encoded(Image.fromarray(ramp(1, 300)), "PNG"), ramp(1, 300), 0),
}

#: name of the file: (its bytes, what the error says)
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero-bytes.jpg": (lambda: b"", "the file is empty"),
    "text.jpg": (lambda: b"this is no picture", "not a picture of a known format"),
    "header-only.jpg": (lambda: encoded(COLOR, "JPEG")[:20], "damaged|not a picture"),
    "cut-off.jpg": (lambda: encoded(COLOR, "JPEG")[:-400], "damaged or cut off"),
    "cut-off.png": (lambda: encoded(COLOR, "PNG")[:200], "damaged or cut off"),
    "flipped.png": (lambda: flipped(encoded(COLOR, "PNG")), "damaged or cut off"),
    "numpy.png": (lambda: b"\x93NUMPY\x01\x00" + bytes(100), "not a picture of a known format"),
    "float.tif": (lambda: encoded(Image.fromarray(ramp().astype(np.float32)), "TIFF"), "does not say which one is white"),
    "nan.tif": (lambda: encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"), "does not say which one is white"),
}


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 0xFF for byte in content[middle : middle + 30]) + content[middle + 30 :]


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


# --- files ---


@pytest.mark.parametrize("name", GOOD)
def test_odd_pictures_are_colored_by_their_lightness(name: str, colorizer: Colorizer, tmp_path: Path) -> None:
    make, wanted, tolerance = GOOD[name]
    result = colorizer.colorize(put(tmp_path, name, make()), n=1)
    assert result.images.shape == (1, *wanted.shape, 3)
    assert np.abs(result.gray[..., 0].astype(int) - wanted).max() <= tolerance
    lightness = rgb2lab(np.repeat(wanted[..., None], 3, 2))[..., 0]
    assert np.abs(rgb2lab(result.images[0])[..., 0] - lightness).max() < 0.5 + 0.5 * tolerance


@pytest.mark.parametrize("name", BAD)
def test_damaged_pictures_are_one_image_error_that_names_the_file(name: str, colorizer: Colorizer, tmp_path: Path) -> None:
    make, message = BAD[name]
    with pytest.raises(ImageError, match=message) as caught:
        colorizer.colorize(put(tmp_path, name, make()), n=1)
    assert name in str(caught.value) and caught.value.todo


def test_folders_and_absent_files_are_named(colorizer: Colorizer, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="a folder, not a picture"):
        colorizer.colorize(tmp_path)
    for absent in (tmp_path / "nobody.jpg", "", tmp_path / "a\0b.jpg"):
        with pytest.raises(ImageError):
            colorizer.colorize(absent)


def test_a_picture_too_large_for_the_memory_is_refused(colorizer: Colorizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "MAX_PIXELS", 40 * 52 - 1)
    with pytest.raises(ImageError, match="too large"):
        colorizer.colorize(put(tmp_path, "large.png", encoded(GRAY, "PNG")))


# --- arrays ---

BAD_ARRAYS: dict[str, Any] = {
    "float in [0, 1]": np.zeros((8, 8, 3)),
    "float32": np.full((8, 8), 0.5, np.float32),
    "NaN": np.full((8, 8, 3), np.nan),
    "int64": np.zeros((8, 8, 3), np.int64),
    "uint16": np.zeros((8, 8), np.uint16),
    "bool": np.zeros((8, 8), bool),
    "text": np.array([["a", "b"]]),
    "channels first": np.zeros((3, 8, 8), np.uint8),
    "alpha": np.zeros((8, 8, 4), np.uint8),
    "one channel": np.zeros((8, 8, 1), np.uint8),
    "a batch": np.zeros((2, 8, 8, 3), np.uint8),
    "a row": np.zeros(8, np.uint8),
    "a number": np.uint8(3),
    "no rows": np.zeros((0, 8, 3), np.uint8),
    "no columns": np.zeros((8, 0), np.uint8),
    "a float tensor": torch.zeros(8, 8, 3),
    "a bfloat16 tensor": torch.zeros(8, 8, 3, dtype=torch.bfloat16),
    "a tensor with gradient": torch.zeros(8, 8, 3, requires_grad=True),
    "channels first tensor": torch.zeros(3, 8, 8, dtype=torch.uint8),
    "a list": [[0, 1], [2, 3]],
    "a ragged list": [[0, 1], [2]],
    "None": None,
    "bytes": b"\xff\xd8\xff",
    "a dictionary": {"image": 1},
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_arrays_that_are_no_photographs_are_one_image_error(name: str, colorizer: Colorizer) -> None:
    with pytest.raises(ImageError, match=r"`?photo") as caught:
        colorizer.colorize(BAD_ARRAYS[name])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("kind", ["read-only", "fortran", "strided", "negative strides", "tensor", "gray tensor", "turned tensor"])
def test_photographs_in_any_memory_layout_are_colored_without_a_warning(kind: str, colorizer: Colorizer) -> None:
    pixels = np.asarray(COLOR).copy()
    same: Any = {
        "read-only": np.asarray(COLOR),
        "fortran": np.asfortranarray(pixels),
        "strided": np.repeat(pixels, 2, axis=1)[:, ::2],
        "negative strides": pixels[::-1].copy()[::-1],
        "tensor": torch.from_numpy(pixels),
        "gray tensor": torch.from_numpy(ramp()),
        "turned tensor": torch.from_numpy(pixels.transpose(1, 0, 2).copy()).permute(1, 0, 2),
    }[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = colorizer.colorize(same, n=1)
    expected = colorizer.colorize(ramp() if kind == "gray tensor" else pixels, n=1)
    assert np.array_equal(found.images, expected.images)


def test_the_photograph_is_never_written_to(colorizer: Colorizer) -> None:
    pixels = np.asarray(COLOR).copy()
    before = pixels.copy()
    result = colorizer.colorize(pixels, n=2)
    result.images[:] = 0
    result.gray[:] = 0
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("n", [0, -3, 2.5, "8", None])
def test_a_number_of_colorizations_that_is_no_whole_number_is_refused(n: Any, colorizer: Colorizer) -> None:
    with pytest.raises(ConfigError):
        colorizer.colorize(ramp(), n=n)


def test_a_network_that_went_wrong_gives_no_picture(colorizer: Colorizer) -> None:
    broken = Colorizer(CVAE.build(CVAEConfig(latent=2, width=0.1)), colorizer.mdn)
    with torch.no_grad():
        next(broken.cvae.parameters()).fill_(float("nan"))
    with pytest.raises(DivcolorError, match="NaN"):
        broken.colorize(ramp())


# --- the same through the command line ---


def colorize(arguments: list[Any], checkpoint: Path) -> int:
    return cli.main(["colorize", "--checkpoint", str(checkpoint), "-n", "1", *map(str, arguments)])


@pytest.mark.parametrize("name", BAD)
def test_the_command_says_what_is_wrong_with_a_file_and_writes_nothing(
    name: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = put(tmp_path, name, BAD[name][0]())
    assert colorize([photo, "--out", tmp_path / "out"], checkpoint) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1
    assert printed.err.startswith("error: ") and name in printed.err
    assert not (tmp_path / "out").exists()


def test_the_command_colors_odd_pictures_too(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = [put(tmp_path, name, make()) for name, (make, _, _) in GOOD.items() if name not in ("gray.jpg", "cmyk.jpg")]
    assert colorize([*photos, "--out", tmp_path / "out"], checkpoint) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{photo.stem}-1.png" for photo in photos}
    assert len(capsys.readouterr().out.splitlines()) == len(photos)


def test_a_bad_file_among_good_ones_is_named_and_the_ones_before_it_are_written(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = put(tmp_path, "good.png", encoded(GRAY, "PNG"))
    bad = put(tmp_path, "bad.png", b"")
    assert colorize([good, bad, "--out", tmp_path / "out"], checkpoint) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good-1.png"]
    assert "bad.png" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["data", "evaluate"])
def test_a_damaged_picture_in_a_folder_is_named(command: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        put(tmp_path, f"{number}.png", encoded(COLOR, "PNG"))
    put(tmp_path, "broken.jpg", encoded(COLOR, "JPEG")[:-400])
    arguments = [str(tmp_path)] if command == "data" else ["--data", str(tmp_path), "--checkpoint", str(checkpoint)]
    assert cli.main([command, *arguments]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "broken.jpg" in errors[0] and "1 of 5" in errors[0]


def test_a_folder_without_color_cannot_be_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        put(tmp_path, f"{number}.png", encoded(GRAY, "PNG"))
    assert cli.main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "x.safetensors")]) == 1
    assert "single tint" in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()
