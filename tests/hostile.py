"""A corpus of hostile files: the name of each, how it is made, and what the library does with it.

A case either is read, as the docstring of its reader promises, or gives one error of the library's own: `says` is a pattern that
its message must hold. `tests/test_hostile.py` runs the cases through the readers and the command line; `tests/soak` starts from
the same files and breaks them at random.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from divcolor_lib.colorize import Colorizer
from divcolor_lib.cvae import CVAE, ColorRegressor, CVAEConfig
from divcolor_lib.data import FEATURE_SHAPE
from divcolor_lib.features import ZhangNet
from divcolor_lib.mdn import MDN, MDNConfig
from divcolor_lib.train import FORMAT, read_tensors, write_tensors

Pixels = NDArray[np.uint8]

#: A name that is no text; other systems than Linux refuse it.
NOT_UNICODE = os.fsdecode(b"not-unicode-\xff\xfe") if sys.platform == "linux" else "unicode"


@dataclass(frozen=True)
class Case:
    """One file.

    Attributes:
        name: what the file is called.
        make: puts it at a path.
        says: a pattern for the error; empty if the file is read.
        shows: the sRGB bytes `(H, W, 3)` that are read, or none if they do not matter.
        within: by how much a byte may differ.
        listed: whether a walk through its folder finds it as a picture.
    """

    name: str
    make: Callable[[Path], object]
    says: str = ""
    shows: Pixels | None = None
    within: int = 0
    listed: bool = True


def holding(content: Callable[[], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content())


# --- pictures that are read ---


def ramp(height: int = 40, width: int = 52) -> Pixels:
    """Gray from black on the left to white on the right, `(H, W)`."""
    return np.broadcast_to(np.linspace(0, 255, width).round().astype(np.uint8), (height, width)).copy()


def colored(gray: Pixels) -> Pixels:
    """Three equal channels, `(H, W, 3)`."""
    return np.repeat(gray[..., None], 3, axis=2)


def pattern(height: int = 20, width: int = 30) -> Pixels:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(picture: Image.Image | NDArray[Any], kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(buffer, format=kind, **settings)
    return buffer.getvalue()


SMOOTH = cv2.resize(np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8), (52, 40))
HALVES = np.repeat(np.array([[0, 255]], np.uint8), 26, axis=1).repeat(40, axis=0)
SIXTEEN = np.linspace(0, 65535, 4096).round().astype(np.uint16).reshape(64, 64)
SIXTEEN_SHOWN = colored(np.round(SIXTEEN / 257).astype(np.uint8))


def turned(orientation: int) -> bytes:
    """What a camera held in this EXIF orientation stores, so that `pattern()` is seen."""
    upright = pattern()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
        9: upright,  # there is no ninth
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(np.ascontiguousarray(stored[orientation]), "PNG", exif=exif)


def sixteen_bit_color() -> bytes:
    wide = SIXTEEN[..., None].repeat(3, axis=2)
    return bytes(cv2.imencode(".png", wide)[1])


def half_transparent(mode: str) -> Image.Image:
    """Black, transparent on the right half: white there."""
    pixels = np.zeros((40, 52, 4), np.uint8)
    pixels[:, :26, 3] = 255
    return Image.fromarray(pixels, "RGBA").convert(mode)


def palette(transparency: Any = None) -> Image.Image:
    """Two pixels of two colors by palette."""
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putdata([0, 1])
    if transparency is not None:
        picture.info["transparency"] = transparency
    return picture


TWO = np.array([[[10, 20, 30], [200, 100, 50]]], np.uint8)
TWO_CLEAR = np.array([[[255, 255, 255], [200, 100, 50]]], np.uint8)


def cmyk() -> Image.Image:
    """No ink on the left half, black ink on the right half."""
    pixels = np.zeros((40, 52, 4), np.uint8)
    pixels[:, 26:, 3] = 255
    return Image.fromarray(pixels, "CMYK")


def animated(kind: str, **settings: Any) -> bytes:
    """Red, then blue."""
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **settings)


def without_the_end(png: bytes) -> bytes:
    return png[: png.index(b"IEND") - 4]


RED = np.zeros((4, 4, 3), np.uint8) + np.array([255, 0, 0], np.uint8)


def _read_pictures() -> Iterator[Case]:
    ramps = colored(ramp())
    plain = encoded(ramp(), "PNG")

    def read(name: str, content: Callable[[], bytes], shows: Pixels, within: int = 0) -> Case:
        return Case(name, holding(content), shows=shows, within=within, listed="." in name)

    yield read("gray.png", lambda: plain, ramps)
    yield read("gray.jpg", lambda: encoded(ramp(), "JPEG", quality=95), ramps, 4)
    yield read("one-bit.png", lambda: encoded(Image.fromarray(HALVES).convert("1"), "PNG"), colored(HALVES))
    yield read("png-called.jpg", lambda: plain, ramps)
    yield read("webp-called.jpg", lambda: encoded(ramps, "WEBP", lossless=True), ramps)
    yield read("no-suffix", lambda: plain, ramps)
    yield read("one-pixel.png", lambda: encoded(Image.new("L", (1, 1), 77), "PNG"), np.full((1, 1, 3), 77, np.uint8))
    yield read("wide.png", lambda: encoded(ramp(3, 20000), "PNG"), colored(ramp(3, 20000)))
    yield read("tall.png", lambda: encoded(ramp(3, 20000).T.copy(), "PNG"), colored(ramp(3, 20000).T))
    for orientation in range(1, 10):
        yield read(f"exif-{orientation}.png", lambda orientation=orientation: turned(orientation), pattern())
    yield read("exif-damaged.png", lambda: encoded(pattern(), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), pattern())
    yield read("sixteen.png", lambda: encoded(SIXTEEN, "PNG"), SIXTEEN_SHOWN)
    yield read("sixteen.tiff", lambda: encoded(SIXTEEN, "TIFF"), SIXTEEN_SHOWN)
    yield read("sixteen.pgm", lambda: b"P5 64 64 65535\n" + SIXTEEN.astype(">u2").tobytes(), SIXTEEN_SHOWN)
    yield read("sixteen-color.png", sixteen_bit_color, SIXTEEN_SHOWN, 1)
    yield read(
        "float.tif",
        lambda: encoded(np.array([[0, 0.25, 1]], np.float32), "TIFF"),
        colored(np.array([[0, 64, 255]], np.uint8)),
    )
    yield read("alpha.png", lambda: encoded(half_transparent("RGBA"), "PNG"), colored(HALVES))
    yield read("gray-alpha.png", lambda: encoded(half_transparent("LA"), "PNG"), colored(HALVES))
    yield read("one-color-clear.png", lambda: encoded(Image.fromarray(TWO), "PNG", transparency=(10, 20, 30)), TWO_CLEAR)
    yield read("palette.png", lambda: encoded(palette(), "PNG"), TWO)
    yield read("palette-clear.png", lambda: encoded(palette(), "PNG", transparency=0), TWO_CLEAR)
    yield read("palette-alpha.png", lambda: encoded(palette(), "PNG", transparency=bytes([0, 255])), TWO_CLEAR)
    yield read("palette.gif", lambda: encoded(palette(), "GIF"), TWO)
    yield read("palette-clear.gif", lambda: encoded(palette(), "GIF", transparency=0), TWO_CLEAR)
    yield read("cmyk.tif", lambda: encoded(cmyk(), "TIFF"), colored(HALVES[:, ::-1]))
    yield read("cmyk.jpg", lambda: encoded(cmyk(), "JPEG", quality=95), colored(HALVES[:, ::-1]), 12)
    yield read("animated.gif", lambda: animated("GIF"), RED)
    yield read("animated.webp", lambda: animated("WEBP", lossless=True), RED)
    yield read("animated.png", lambda: animated("PNG"), RED)
    yield read("two-in-one.jpg", lambda: encoded(ramps, "MPO", save_all=True, append_images=[cmyk().convert("RGB")], quality=95), ramps, 4)
    yield read("more-behind-its-end.jpg", lambda: encoded(ramp(), "JPEG", quality=95) + bytes(range(256)) * 40, ramps, 4)
    yield read("no-end.png", lambda: without_the_end(plain), ramps)
    for name in (
        "two words.png",
        "Grüße-漢字-🙂.png",
        "two\nlines.png",
        "tab\tand'quotes\".png",
        "\x1b[31mred.png",
        "-n.png",
        "%s{0}$HOME.png",
        NOT_UNICODE + ".png",
        "n" * 251 + ".png",
    ):
        yield read(name, lambda: plain, ramps)


# --- pictures that are not ---


def segments(jpeg: bytes) -> list[tuple[int, str]]:
    """Return where each marker of a JPEG file stands, but for the first and those inside a scan, and its code."""
    found, place = [], 2
    while place < len(jpeg):
        code = jpeg[place + 1]
        if jpeg[place] != 0xFF or code == 0 or 0xD0 <= code <= 0xD7:
            place += 1
            continue
        found.append((place, f"{code:02x}"))
        if code == 0xD9:
            break
        place += 2 + struct.unpack(">H", jpeg[place + 2 : place + 4])[0]
    return found


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, pixels: bytes = b"\0") -> bytes:
    """A PNG file that claims to be RGB of this size."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 0xFF for byte in content[middle : middle + 30]) + content[middle + 30 :]


def one_bit(content: bytes) -> bytes:
    """A zip archive with one bit changed: in a number of the largest tensor in it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        largest = max((item for item in archive.infolist() if "/data/" in item.filename), key=lambda item: item.file_size)
    name, extra = struct.unpack_from("<HH", content, largest.header_offset + 26)
    place = largest.header_offset + 30 + name + extra + largest.file_size // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def jpeg_of_size(side: int) -> bytes:
    """A small JPEG whose frame header claims `side` x `side` pixels."""
    content = bytearray(encoded(SMOOTH, "JPEG"))
    place = next(place for place, code in segments(bytes(content)) if code == "c0")
    content[place + 5 : place + 9] = struct.pack(">HH", side, side)
    return bytes(content)


def gif_of_size(side: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", side, side) + encoded(SMOOTH, "GIF")[10:]


def bmp_of_size(side: int) -> bytes:
    content = bytearray(encoded(SMOOTH, "BMP"))
    content[18:26] = struct.pack("<ii", side, side)
    return bytes(content)


def bound_socket(path: Path) -> None:
    """A socket of the file system; its address may have 107 bytes only, so it is bound from inside its folder."""
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


DAMAGED = "damaged or cut off"
UNKNOWN = "not a picture of a known format"
NO_FILE = "no ordinary file"


def _bad_pictures() -> Iterator[Case]:
    def bad(name: str, content: Callable[[], bytes], says: str) -> Case:
        return Case(name, holding(content), says)

    jpegs = {"jpeg": {}, "progressive": {"progressive": True}, "restarts": {"restart_marker_blocks": 2}}
    for kind, settings in jpegs.items():
        whole = encoded(SMOOTH, "JPEG", quality=90, **settings)
        for place, code in segments(whole):
            yield bad(f"{kind}-cut-at-{place}-{code}.jpg", lambda whole=whole, place=place: whole[:place], DAMAGED)
    whole = encoded(SMOOTH, "JPEG", quality=90)
    for place, code in segments(whole)[:-1]:
        yield bad(f"jpeg-cut-inside-{place}-{code}.jpg", lambda place=place: whole[: place + 3], DAMAGED)
    stored = encoded(SMOOTH, "PNG")
    for length, where in ((8, "signature"), (20, "header"), (33, "first-chunk"), (41, "pixels"), (len(stored) // 2, "middle")):
        yield bad(f"png-cut-at-{where}.png", lambda length=length: stored[:length], DAMAGED)
    for kind in ("GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000"):
        suffix = {"TIFF": "tif", "JPEG2000": "jp2"}.get(kind, kind.lower())
        yield bad(f"half.{suffix}", lambda kind=kind: (content := encoded(SMOOTH, kind))[: len(content) // 2], DAMAGED)
    yield bad("flipped.png", lambda: flipped(stored), DAMAGED)
    yield bad("no-pixels-stored.png", lambda: png(5, 5), DAMAGED)
    yield bad("width-zero.png", lambda: png(0, 5), f"{DAMAGED}|no pixels")
    yield bad("zero-bytes.jpg", lambda: b"", "the file is empty")
    yield bad("text.jpg", lambda: b"this is no picture", UNKNOWN)
    yield bad("error-page.jpg", lambda: b"<!DOCTYPE html><title>403 Forbidden</title>", UNKNOWN)
    yield bad("numpy.png", lambda: b"\x93NUMPY\x01\x00" + bytes(100), UNKNOWN)
    yield bad("drawing.png", lambda: b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", UNKNOWN)
    yield bad("document.jpg", lambda: encoded(SMOOTH, "PDF"), UNKNOWN)
    yield bad("postscript.jpg", lambda: encoded(SMOOTH, "EPS"), UNKNOWN)  # Pillow would start Ghostscript for it
    yield bad("icon.png", lambda: encoded(SMOOTH, "ICO"), UNKNOWN)
    yield bad("float-bytes.tif", lambda: encoded(ramp().astype(np.float32), "TIFF"), "does not say which one is white")
    yield bad("nan.tif", lambda: encoded(np.full((4, 4), np.nan, np.float32), "TIFF"), "does not say which one is white")
    yield bad("million.tif", lambda: encoded(np.array([[0, 10**6]], np.int32), "TIFF"), "does not say which one is white")
    yield bad("bomb.png", lambda: png(60000, 60000), "too large")
    yield bad("bomb-just-too-large.png", lambda: png(13000, 13000), "too large")
    yield bad("bomb-that-unpacks.png", lambda: png(20000, 20000, pixels=bytes(2**24)), "too large")
    yield bad("bomb-in-its-text.png", lambda: png(5, 5, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26)))), DAMAGED)
    yield bad("bomb.jpg", lambda: jpeg_of_size(65500), "too large")
    yield bad("bomb.gif", lambda: gif_of_size(65535), "too large")
    yield bad("bomb.bmp", lambda: bmp_of_size(30000), "too large")
    yield Case("folder.jpg", Path.mkdir, "this is a folder, not a picture", listed=False)
    yield Case("absent.jpg", lambda path: None, "there is no such file", listed=False)
    yield Case("n" * 300 + ".jpg", lambda path: None, "there is no such file|File name too long", listed=False)
    yield Case("link-to-nowhere.jpg", lambda path: path.symlink_to(path.parent / "nowhere"), "there is no such file")
    yield Case("link-to-itself.jpg", lambda path: path.symlink_to(path), "there is no such file")
    yield Case("pipe.jpg", os.mkfifo, NO_FILE)
    yield Case("socket.jpg", bound_socket, NO_FILE)
    yield Case("device.jpg", lambda path: path.symlink_to("/dev/zero"), NO_FILE)


READ_PICTURES = list(_read_pictures())
BAD_PICTURES = list(_bad_pictures())


# --- stored features ---


def packed(array: NDArray[Any], name: str = "arr_0", compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An `.npz` file of one array."""
    member = io.BytesIO()
    np.lib.format.write_array(member, array, allow_pickle=True)
    return archived({f"{name}.npy": member.getvalue()}, compression)


def archived(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def feature(value: float = 0.5, kind: Any = np.float32) -> NDArray[Any]:
    return np.full(FEATURE_SHAPE, value, kind)


def npy_of_shape(shape: tuple[int, ...], length: int = 1000) -> bytes:
    """The bytes of an array whose header claims `shape`, with `length` bytes behind it."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return header.getvalue() + bytes(length)


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def sprung(path: Path) -> Path:
    """The file that a trap at `path` makes."""
    return path.with_name("sprung")


def _features() -> Iterator[Case]:
    def bad(name: str, content: Callable[[], bytes], says: str) -> Case:
        return Case(name, holding(content), says)

    for name, kind in (("ints", np.int16), ("doubles", np.float64), ("big-endian", ">f4"), ("halves", np.float16)):
        yield Case(f"{name}.npz", holding(lambda kind=kind: packed(feature(3, kind))))
    yield Case("fortran.npz", holding(lambda: packed(np.asfortranarray(feature(3)))))
    yield Case("not packed.npz", holding(lambda: packed(feature(3), compression=zipfile.ZIP_STORED)))
    yield bad("zero-bytes.npz", lambda: b"", "cannot be read")
    yield bad("text.npz", lambda: b"PK\x03\x04 no archive", "cannot be read")
    yield bad("array-alone.npz", lambda: npy_of_shape(FEATURE_SHAPE), "cannot be read: File is not a zip file")
    yield bad("cut-off.npz", lambda: packed(feature())[:-100], "cannot be read")
    yield bad("flipped.npz", lambda: flipped(packed(feature())), "cannot be read")
    yield bad("other-name.npz", lambda: packed(feature(), "features"), "no item named 'arr_0.npy'")
    yield bad("other-shape.npz", lambda: packed(np.zeros((28, 28, 512), np.float32)), r"shape \(28, 28, 512\)")
    yield bad("no-shape.npz", lambda: packed(np.float32(3)), r"shape \(\)")
    yield bad("objects.npz", lambda: packed(np.array([{"a": 1}], dtype=object)), "cannot be read: Object arrays")
    yield bad("words.npz", lambda: packed(np.full(FEATURE_SHAPE, "1", "<U1")), "not numbers")
    yield bad("truths.npz", lambda: packed(np.ones(FEATURE_SHAPE, bool)), "not numbers")
    yield bad("complex.npz", lambda: packed(feature(1j, np.complex64)), "not numbers")
    yield bad("nan.npz", lambda: packed(feature(np.nan)), "holds NaN, or numbers that half precision cannot hold")
    yield bad("one-nan.npz", lambda: packed(np.where(np.arange(28) == 5, np.nan, feature())), "holds NaN")
    yield bad("infinite.npz", lambda: packed(feature(np.inf)), "half precision")
    yield bad("too-large.npz", lambda: packed(feature(1e6)), "half precision")
    yield bad("bomb.npz", lambda: archived({"arr_0.npy": bytes(2**26)}), "larger than any such feature")
    yield bad("petabyte.npz", lambda: archived({"arr_0.npy": npy_of_shape((10**8, 10**8))}), "cannot be read")
    yield bad("long-header.npz", lambda: archived({"arr_0.npy": b"\x93NUMPY\x01\x00\xff\xff" + b" " * 70000}), "cannot be read")
    yield Case("folder.npz", Path.mkdir, "cannot be read: it is no ordinary file")
    yield Case("absent.npz", lambda path: None, "there is no such feature file")
    yield Case("link-to-itself.npz", lambda path: path.symlink_to(path), "cannot be read|no such feature file")
    yield Case("pipe.npz", os.mkfifo, "cannot be read: it is no ordinary file")

    def trap(path: Path) -> None:
        content = io.BytesIO()
        np.save(content, np.array([Trap(sprung(path))], dtype=object), allow_pickle=True)
        path.write_bytes(archived({"arr_0.npy": content.getvalue()}))

    yield Case("trap.npz", trap, "cannot be read: Object arrays")


FEATURES = list(_features())


# --- published weights ---


def hollow() -> dict[str, Tensor]:
    """A state_dict for Zhang's network with one number behind each tensor, so that a file of them is small."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in ZhangNet().state_dict().items()}
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def torch_file(thing: Any, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer, **settings)
    return buffer.getvalue()


def repacked(content: bytes) -> bytes:
    """The same zip file with every member compressed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archived({name: archive.read(name) for name in archive.namelist()})


def _weights() -> Iterator[Case]:
    def bad(name: str, content: Callable[[], bytes], says: str) -> Case:
        return Case(name, holding(content), says)

    def changed(**changes: Any) -> bytes:
        state = {**hollow(), **{name.replace("__", "."): value for name, value in changes.items()}}
        return torch_file({name: value for name, value in state.items() if value is not None})

    yield Case("right.pth", holding(lambda: torch_file(hollow())))
    yield Case("old format.pth", holding(lambda: torch_file(hollow(), _use_new_zipfile_serialization=False)))
    yield Case("without-counters.pth", holding(lambda: torch_file({k: v for k, v in hollow().items() if not k.endswith("tracked")})))
    yield bad("zero-bytes.pth", lambda: b"", "damaged")
    yield bad("text.pth", lambda: b"not weights", "damaged")
    yield bad("cut-off.pth", lambda: torch_file(hollow())[:5000], "damaged")
    yield bad("flipped.pth", lambda: one_bit(torch_file(hollow())), "damaged")
    yield bad("colors-9b330a0b.pth", lambda: torch_file(hollow()), "its name says 9b330a0b")
    yield bad("packed.pth", lambda: repacked(torch_file(hollow())), "damaged")
    yield bad("bomb.pth", lambda: archived({"archive/data.pkl": bytes(2**26)}), "damaged")
    yield bad("lacking.pth", lambda: changed(model3__0__bias=None), "lacks model3.0.bias")
    yield bad("more.pth", lambda: changed(model9__weight=torch.zeros(1)), "unknown model9.weight")
    yield bad("wider.pth", lambda: changed(model_out__weight=torch.zeros(2, 529, 1, 1)), "another shape of model_out.weight")
    yield bad("nan.pth", lambda: changed(model1__0__bias=torch.full((64,), torch.nan)), "NaN or infinities")
    yield bad("sparse.pth", lambda: changed(model1__0__bias=torch.zeros(64).to_sparse()), "damaged")
    yield bad("list.pth", lambda: torch_file([torch.zeros(2)]), "holds no state_dict")
    yield bad("number.pth", lambda: torch_file({"epoch": 3}), "holds no state_dict")
    yield bad("nothing.pth", lambda: torch_file({}), "lacks model")
    yield Case("folder.pth", Path.mkdir, "no such file")
    yield Case("absent.pth", lambda path: None, "no such file")
    yield Case("pipe.pth", os.mkfifo, "no such file")
    yield Case("trap.pth", lambda path: torch.save({"model1.0.weight": Trap(sprung(path))}, path), "damaged")
    yield Case("plain-pickle.pth", lambda path: path.write_bytes(pickle.dumps(Trap(sprung(path)), protocol=2)), "damaged")


WEIGHTS = list(_weights())

# --- folders of photographs ---


def filled(*names: str) -> Callable[[Path], object]:
    """Make a folder with a picture of each of these names."""

    def make(path: Path) -> None:
        for name in names:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(encoded(SMOOTH, "PNG"))

    return make


def with_links(path: Path) -> None:
    """A picture, a link to the folder itself, and one to the folder above it."""
    filled("a.png")(path)
    (path / "again").symlink_to(path)
    (path / "above").symlink_to(path.parent)


def texts_only(path: Path) -> None:
    path.mkdir()
    (path / "readme.txt").write_text("nothing to see")


NOBODY = "no photograph is in this folder|no faces in the layout of LFW"

#: Each through `load` and `load_folder`, and through `load_lfw` where it is an error.
FOLDERS = [
    Case("with-links", with_links),
    Case("deep", filled("/".join(["below"] * 60) + "/a.png")),
    Case("odd\nname 漢字", filled("a.png")),
    Case(NOT_UNICODE, filled("a.png")),
    Case("absent", lambda path: None, "there is no such folder"),
    Case("nul-\0", lambda path: None, "there is no such folder"),
    Case("n" * 300, lambda path: None, "the folder cannot be reached: File name too long"),
    Case("picture.png", holding(lambda: encoded(SMOOTH, "PNG")), "this is a file, not a folder"),
    Case("pipe", os.mkfifo, "this is a file, not a folder"),
    Case("socket", bound_socket, "this is a file, not a folder"),
    Case("device", lambda path: path.symlink_to("/dev/zero"), "this is a file, not a folder"),
    Case("link-to-nowhere", lambda path: path.symlink_to(path.parent / "nowhere"), "there is no such folder"),
    Case("link-to-itself", lambda path: path.symlink_to(path), "the folder cannot be reached: Too many levels of symbolic links"),
    Case("empty", Path.mkdir, "the folder is empty"),
    Case("texts-only", texts_only, NOBODY),
    Case("hidden-only", filled(".a.png", ".hidden/b.png"), NOBODY),
    Case("folder-called-as-a-picture", lambda path: (path / "a.png").mkdir(parents=True), NOBODY),
]

#: What stands in the list of pictures of a reference bundle whose only picture is `data/faces/Cy_0001.jpg`.
LISTS = [
    Case("windows", holding(lambda: "\ufefffaces\\Cy_0001.jpg\r\n\r\n".encode())),
    Case("other-machine", holding(lambda: b"/mnt/a/../disk/faces/Cy_0001.jpg")),
    Case("zero-bytes", holding(lambda: b""), "a list of the bundle is empty"),
    Case("spaces", holding(lambda: b" \n\t\n"), "a list of the bundle is empty"),
    Case("not-unicode", holding(lambda: b"faces/\xff\xfe.jpg\n"), "cannot be read"),
    Case("nul", holding(lambda: b"faces/Cy\0_0001.jpg\n"), "is not in the bundle"),
    Case("endless-line", holding(lambda: b"n" * 100_000 + b".jpg\n"), "is not in the bundle"),
    Case("outside", holding(lambda: b"../../../../etc/passwd\n"), "is not in the bundle"),
    Case("a-folder-of-it", holding(lambda: b"faces\n"), "is not in the bundle"),
    Case("absent", lambda path: None, "a list of the bundle is absent"),
    Case("a-folder", Path.mkdir, "cannot be read: it is no ordinary file"),
    Case("pipe", os.mkfifo, "cannot be read: it is no ordinary file"),
    Case("device", lambda path: path.symlink_to("/dev/zero"), "cannot be read: it is no ordinary file"),
    Case("link-to-itself", lambda path: path.symlink_to(path), "a list of the bundle is absent|cannot be read"),
]


# --- checkpoints ---


@lru_cache(maxsize=1)
def a_colorizer() -> Colorizer:
    """The smallest colorizer, with a regression network."""
    torch.manual_seed(0)
    cvae = CVAE.build(CVAEConfig(latent=2, width=0.1))
    mdn = MDN.build(MDNConfig(inputs=cvae.feature_shape, latent=2, width=0.1, components=2, representatives=2))
    return Colorizer(cvae, mdn, {"name": "toy"}, ColorRegressor(0.1), {"mean": torch.zeros(2 * 64 * 64)})


@lru_cache(maxsize=1)
def a_checkpoint() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        a_colorizer().save(path := Path(folder) / "c.safetensors")
        return path.read_bytes()


def rewritten(content: bytes, path: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], object]) -> None:
    """Put a checkpoint at `path` whose tensors and facts were changed and whose checksum fits them."""
    path.write_bytes(content)
    tensors, facts = read_tensors(path)
    change(tensors, facts)
    write_tensors(path, tensors, facts)


def safetensors(**metadata: str) -> bytes:
    return safetensors_bytes({"x": torch.zeros(3)}, metadata or None)


def with_bit(content: bytes, place: int) -> bytes:
    place %= len(content)
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


def _files() -> Iterator[Case]:
    """Files in place of a checkpoint, of a colorizer or of a run."""

    def bad(name: str, content: Callable[[], bytes], says: str = "damaged or no safetensors file") -> Case:
        return Case(f"{name}.safetensors", holding(content), says)

    ours = "not one of this library's"
    yield bad("zero-bytes", lambda: b"")
    yield bad("text", lambda: b"hello, this is a text file")
    yield bad("picture", lambda: encoded(SMOOTH, "PNG"))
    for length in (7, 8, 500, 20_000, -1000, -1):
        yield bad(f"cut-at-{length}", lambda length=length: a_checkpoint()[:length])
    yield bad("more-behind-its-end", lambda: a_checkpoint() + b"more")
    for place in (0, 5, 20, 300):
        yield bad(f"flipped-bit-at-{place}", lambda place=place: with_bit(a_checkpoint(), place), "damaged|checksum|not one of")
    for place in (-1, -5000, -20_000):
        yield bad(f"flipped-bit-at-{place}", lambda place=place: with_bit(a_checkpoint(), place), "does not match its checksum")
    yield bad("endless-header", lambda: struct.pack("<Q", 2**62) + b"{}")
    yield bad("deep-header", lambda: struct.pack("<Q", 80_000) + b"[" * 80_000)
    yield bad("tensor-beyond-the-end", lambda: header({"x": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}))
    yield bad("negative-shape", lambda: header({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}))
    yield bad("foreign", lambda: safetensors(), ours)
    yield bad("noted", lambda: safetensors(divcolor="[1]"))
    yield bad("broken-note", lambda: safetensors(divcolor="{"))
    yield bad("deep-note", lambda: safetensors(divcolor="[" * 100_000))
    yield bad("numbers-for-a-note", lambda: safetensors(divcolor="[1, 2]"))
    yield bad("list-for-a-note", lambda: safetensors(divcolor=json.dumps(["[]", ""])), ours)
    yield bad("newer", lambda: safetensors(divcolor=json.dumps([json.dumps({"format": FORMAT + 1}), ""])), ours)
    yield bad("torch", lambda: torch_file({"x": torch.zeros(3)}))
    yield bad("numpy", lambda: packed(feature()))
    yield Case("trap.safetensors", lambda path: path.write_bytes(pickle.dumps(Trap(sprung(path)))), "damaged or no safetensors file")
    yield Case("torch-trap.safetensors", lambda path: torch.save(Trap(sprung(path)), path), "damaged or no safetensors file")
    yield Case("folder.safetensors", Path.mkdir, NO_FILE)
    yield Case("pipe.safetensors", os.mkfifo, NO_FILE)
    yield Case("socket.safetensors", bound_socket, NO_FILE)
    yield Case("device.safetensors", lambda path: path.symlink_to("/dev/zero"), NO_FILE)
    yield Case("absent.safetensors", lambda path: None, "there is no such checkpoint")
    yield Case("link-to-nowhere.safetensors", lambda path: path.symlink_to(path.parent / "nowhere"), "there is no such checkpoint")
    yield Case("link-to-itself.safetensors", lambda path: path.symlink_to(path), "there is no such checkpoint")


def header(facts: dict[str, Any]) -> bytes:
    text = json.dumps(facts).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4)


def _colorizers() -> Iterator[Case]:
    """Checkpoints with a right checksum that are no colorizer."""

    def changed(name: str, says: str, change: Callable[[dict[str, Tensor], dict[str, Any]], object]) -> Case:
        return Case(f"{name}.safetensors", lambda path: rewritten(a_checkpoint(), path, lambda t, f: change(t, f["manifest"])), says)

    another = "another shape|lacks|unknown"
    yield changed("latent", another, lambda tensors, manifest: manifest["cvae"].update(latent=3))
    yield changed("endless-latent", another, lambda tensors, manifest: manifest["cvae"].update(latent=10**12))
    yield changed("width", another, lambda tensors, manifest: manifest["cvae"].update(width=0.5))
    yield changed("design", another, lambda tensors, manifest: manifest["cvae"].update(design="reference"))
    yield changed("components", another, lambda tensors, manifest: manifest["mdn"].update(components=5))
    yield changed("regressor", another, lambda tensors, manifest: manifest["regressor"].update(width=1.0))
    yield changed("classifier", another, lambda tensors, manifest: manifest.update(classifier={"classes": 10**9, "width": 1.0}))
    yield changed("unknown-key", "no complete colorizer", lambda tensors, manifest: manifest["cvae"].update(depth=9))
    yield changed("no-cvae", "no complete colorizer", lambda tensors, manifest: manifest.pop("cvae"))
    yield changed("no-key", "no complete colorizer", lambda tensors, manifest: manifest.pop("regressor"))
    yield changed("less", "lacks posterior.bias", lambda tensors, manifest: tensors.pop("cvae.posterior.bias"))
    yield changed("more", "unknown more", lambda tensors, manifest: tensors.update({"mdn.more": torch.zeros(1)}))
    yield changed("stranger", "network `gan`", lambda tensors, manifest: tensors.update({"gan.weight": torch.zeros(1)}))
    yield changed("nan", "holds NaN or infinities", lambda tensors, manifest: tensors["cvae.posterior.bias"].fill_(torch.nan))
    yield changed("nan-anchor", "holds NaN or infinities", lambda tensors, manifest: tensors["anchors.mean"].fill_(torch.inf))
    anchor = "fits no anchor row"
    yield changed("anchor-of-32-pixels", anchor, lambda tensors, manifest: tensors.update({"anchors.mean": torch.zeros(2 * 32 * 32)}))
    yield changed("five-clusters", anchor, lambda tensors, manifest: tensors.update({"anchors.clusters": torch.zeros(5, 2, 64, 64)}))
    yield changed("one-total-in-a-list", anchor, lambda tensors, manifest: tensors.update({"anchors.total_variance": torch.ones(1)}))
    yield changed("unknown-anchor", anchor, lambda tensors, manifest: tensors.update({"anchors.median": torch.zeros(2 * 64 * 64)}))

    def a_run(path: Path) -> None:
        write_tensors(path, {"x": torch.zeros(2)}, {"step": 3})

    yield Case("run.safetensors", a_run, "no complete colorizer")


FILES = list(_files())
COLORIZERS = list(_colorizers())


# --- JSON of the wrong type ---

#: What stands where a manifest should have something else.
WRONG_VALUES: dict[str, Any] = {
    "null": None,
    "a list": [],
    "a list of words": ["a"],
    "a word": "a",
    "negative": -1,
    "huge": 10**30,
    "a fraction": 0.5,
    "not a number": float("nan"),
    "an object": {"a": 1},
}
