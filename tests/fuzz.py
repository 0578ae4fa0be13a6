"""Bytes that nobody meant to write: strategies for hypothesis, and what a reader may do with them.

`tests/test_fuzz.py` takes a few seconds of them in every run, `tests/soak` many minutes (`make soak`).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from divcolor_lib import data
from divcolor_lib.colorize import Colorizer
from divcolor_lib.errors import CheckpointError, DataError, ImageError, ShapeError
from divcolor_lib.features import ZhangNet, stored_features
from divcolor_lib.lab import MAX_PIXELS, read_image
from divcolor_lib.train import read_tensors
from tests import hostile


def mutated(originals: list[bytes]) -> st.SearchStrategy[bytes]:
    """Valid files after a few accidents: bytes and numbers overwritten, pieces cut out, doubled, moved or taken from another file."""

    @st.composite
    def draw_one(draw: st.DrawFn) -> bytes:
        content = bytearray(draw(st.sampled_from(originals)))
        for _ in range(draw(st.integers(1, 5))):
            if not content:
                break
            # Heads decide more than pixels, so half of the accidents happen there.
            place = draw(st.integers(0, len(content) - 1) | st.integers(0, min(len(content) - 1, 400)))
            length = draw(st.integers(1, 1 + len(content) // 4) | st.integers(1, 8))
            match draw(st.sampled_from(["bits", "number", "noise", "cut", "end", "double", "other", "zeros"])):
                case "bits":
                    content[place] ^= draw(st.integers(1, 255))
                case "number":
                    value = draw(st.sampled_from([0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63]))
                    order = draw(st.sampled_from(["little", "big"]))
                    width = draw(st.sampled_from([2, 4, 8]))
                    content[place : place + width] = (value % 256**width).to_bytes(width, order)
                case "noise":
                    content[place : place + length] = draw(st.binary(min_size=1, max_size=40))
                case "cut":
                    del content[place : place + length]
                case "end":
                    del content[place:]
                case "double":
                    content[place:place] = content[place : place + length]
                case "other":
                    other = draw(st.sampled_from(originals))
                    content[place : place + length] = other[place : place + length]
                case "zeros":
                    content[place : place + length] = bytes(length)
        return bytes(content)

    return draw_one()


def picture_files() -> list[bytes]:
    """A small file of each format, plain and with what is odd about it."""
    smooth = hostile.SMOOTH[:20, :24].copy()
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"compression": "jpeg"}),
        ("GIF", {}),
        ("BMP", {}),
        ("PPM", {}),
        ("TGA", {}),
        ("TGA", {"compression": "tga_rle"}),
        ("JPEG2000", {}),
    ]
    plain = [hostile.encoded(smooth, kind, **settings) for kind, settings in kinds]
    odd = [hostile.turned(6), hostile.animated("GIF"), hostile.animated("PNG"), hostile.animated("WEBP")]
    odd += [hostile.encoded(hostile.palette(), "PNG", transparency=bytes([0, 255])), hostile.encoded(hostile.cmyk(), "JPEG")]
    return [*plain, *odd]


def feature_files() -> list[bytes]:
    return [hostile.packed(hostile.feature(3)), hostile.packed(hostile.feature(0.5, np.int16)), hostile.packed(np.zeros(3))]


def checkpoint_files() -> list[bytes]:
    return [hostile.a_checkpoint(), hostile.safetensors(divcolor="[1]")]


def weight_files() -> list[bytes]:
    return [hostile.torch_file(hostile.hollow()), hostile.torch_file({"a": torch.zeros(2)}), hostile.repacked(hostile.torch_file([1]))]


#: A list of pictures: lines of what such lines are made of.
LISTS = st.lists(
    st.text() | st.lists(st.sampled_from(["data", "faces", "Cy_0001.jpg", "..", ".", "", "C:", "~", "\0", "\ufeff"])).map("/".join)
).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass"))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["key", "sha256", "bad", "0", "1", "-1"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def check(path: Path, content: bytes, read: Callable[[Path], Any], *errors: type[Exception]) -> Any:
    """Read a file of this content: a result comes back, or `None` after one of these errors, which names the file. No other comes."""
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read(path)
        except errors as error:
            assert path.name in str(error) and error.todo, error  # type: ignore[attr-defined]
            assert len(str(error)) < 1000 + len(str(path))
            return None


def check_picture(folder: Path, content: bytes) -> None:
    pixels = check(folder / "x.png", content, read_image, ImageError)
    if pixels is not None:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and 0 < pixels.size <= 3 * MAX_PIXELS


def check_feature(folder: Path, content: bytes) -> None:
    found = check(folder / "x.npz", content, lambda path: stored_features([path]), DataError, ShapeError)
    assert found is None or (found.shape == (1, 512, 4, 4) and bool(found.isfinite().all()))


def check_checkpoint(folder: Path, content: bytes) -> None:
    """A changed checkpoint is refused; so what is read is what was written."""
    found = check(folder / "x.safetensors", content, Colorizer.from_checkpoint, CheckpointError)
    if found is not None:
        check_same(read_tensors(folder / "x.safetensors")[0])


def check_same(tensors: dict[str, torch.Tensor]) -> None:
    state = hostile.a_colorizer().cvae.state_dict()
    for name, value in state.items():
        torch.testing.assert_close(tensors[f"cvae.{name}"].to(value.dtype), value.half().to(value.dtype), rtol=0, atol=0)


def check_weights(folder: Path, content: bytes) -> None:
    found = check(folder / "x.pth", content, ZhangNet.from_published, CheckpointError)
    assert found is None or all(bool(value.isfinite().all()) for value in found.state_dict().values())


def check_list(folder: Path, content: bytes) -> None:
    """Folder: a bundle whose only picture is `data/faces/Cy_0001.jpg`."""
    path = folder / "data" / "imglist" / "lfw" / "list.train.vae.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    photos = check(path, content, lambda _: data.load_bundle(folder, cache=None, features=False), DataError)
    assert photos is None or set(photos.names) == {"Cy_0001"}


def check_cache(folder: Path, told: Any) -> None:
    """Folder: two photographs, with their cache. Whatever stands in its manifest, the photographs come out."""
    wanted = data.load(folder, cache=None).images
    (manifest,) = (folder / data.CACHE_FOLDER).glob("*.json")
    right = json.loads(manifest.read_text())
    found = check(manifest, json.dumps({**right, **told} if isinstance(told, dict) else told).encode(), lambda _: data.load(folder))
    assert torch.equal(found.images, wanted)
