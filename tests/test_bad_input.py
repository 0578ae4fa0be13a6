"""Whatever array or number a reader puts in, one of two things comes out: a documented result, or one clear error. Files: test_hostile."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import divcolor_lib.__main__ as cli
from divcolor_lib import lab
from divcolor_lib.colorize import Colorizer
from divcolor_lib.errors import ConfigError, DivcolorError, ImageError
from tests.hostile import SMOOTH, a_colorizer, encoded, ramp


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    return a_colorizer()


def put_gray(path: Path) -> Path:
    path.write_bytes(encoded(ramp(), "PNG"))
    return path


def test_a_picture_too_large_for_the_memory_is_refused(colorizer: Colorizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "MAX_PIXELS", 40 * 52 - 1)
    with pytest.raises(ImageError, match="too large"):
        colorizer.colorize(put_gray(tmp_path / "large.png"))


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
    pixels = SMOOTH.copy()
    same: Any = {
        "read-only": SMOOTH,
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
    pixels = SMOOTH.copy()
    before = pixels.copy()
    result = colorizer.colorize(pixels, n=2)
    result.images[:] = 0
    result.gray[:] = 0
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("n", [0, -3, 2.5, "8", None])
def test_a_number_of_colorizations_that_is_no_whole_number_is_refused(n: Any, colorizer: Colorizer) -> None:
    with pytest.raises(ConfigError):
        colorizer.colorize(ramp(), n=n)


@pytest.mark.parametrize("part", ["colors", "weights"])
def test_a_network_that_went_wrong_gives_no_picture(part: str, colorizer: Colorizer) -> None:
    broken = copy.deepcopy(colorizer)
    with torch.no_grad():
        if part == "colors":
            next(broken.cvae.parameters()).fill_(float("nan"))
        else:
            broken.mdn.representatives_head.bias[: broken.mdn.config.representatives] = float("nan")
    with pytest.raises(DivcolorError, match=f"the predicted {part}.*NaN"):
        broken.colorize(ramp())


# --- the same through the command line ---


def test_a_folder_without_color_cannot_be_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        put_gray(tmp_path / f"{number}.png")
    assert cli.main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "x.safetensors")]) == 1
    assert "single tint" in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()
