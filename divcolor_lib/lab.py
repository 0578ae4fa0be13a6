"""sRGB and CIE Lab: the two ways to write a color, and the roads between them.

A screen wants sRGB, three numbers that say how bright its red, green and blue lamps are. A colorizer wants CIE Lab
(D65 white): `L` is lightness from 0 (black) to 100 (white), `a` runs from green (-) to red (+), `b` from blue (-) to
yellow (+), and equal distances look about equally different. `L` is given, `a` and `b` are to be found.

Conventions
    The library keeps Lab in float32 and in *Lab units*, as above. Networks see `gray = L/50 - 1` in [-1, 1] and
    `ab/128`, for which neutral gray is exactly 0 (`split`, `join`).

    OpenCV has two conventions. `cv2.cvtColor` on float32 images in [0, 1] gives Lab units, as here. On uint8 images
    it gives bytes: `L8 = L * 255/100`, `a8 = a + 128`, `b8 = b + 128`, each rounded. That rounding moves a color by up
    to half a unit in every channel and cannot be undone, so 8-bit Lab is never used inside; files and networks that
    hold it are converted at the boundary (`opencv8_to_lab`, `lab_to_opencv8`).

    The reference code feeds bytes to its networks as `x8 * 2/255 - 1`. For lightness this is our `gray`. For color it
    is not our `ab`: neutral (byte 128) becomes +0.0039 (`reference_to_ab`, `ab_to_reference`).

Functions take tensors with channels first, `(..., 3, H, W)`, on any device. Float64 stays float64, every other type
becomes float32. Conversions have finite gradients everywhere, at black and at the joints of the curves too.

Sources: IEC 61966-2-1 (sRGB), CIE 15 (Lab), and the documentation of OpenCV's `cvtColor` for the matrix.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .errors import ImageError, ShapeError, check_finite, check_shape

L_SCALE = 50.0
AB_SCALE = 128.0
SIZE = 64
GAMUT_TOLERANCE = 1e-4
MAX_PIXELS = 150_000_000
#: What `read_image` reads, as Pillow calls it. Other formats of Pillow start other programs (EPS) or are not for photographs.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "DIB", "PPM", "TGA", "JPEG2000", "AVIF")

Images = TypeVar("Images", Tensor, NDArray[np.uint8])

_BISECTIONS = 20
_DELTA = 6 / 29
_RGB_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
# The white point is the color of (1, 1, 1), so each row of the scaled matrix sums to one, and of its inverse too.
_TO_XYZ = _RGB_TO_XYZ / _RGB_TO_XYZ.sum(axis=1, keepdims=True)
_TO_RGB = np.linalg.inv(_TO_XYZ)


def srgb_to_linear(x: Tensor) -> Tensor:
    """Undo the sRGB curve: coded values in [0, 1] to amounts of light in [0, 1]. Values below 0 follow the straight part."""
    # `where` sends gradients into both branches, and 0 * inf is NaN: the clamp keeps the unused branch finite.
    curve = ((x.clamp(min=0.04045) + 0.055) / 1.055).pow(2.4)
    return torch.where(x <= 0.04045, x / 12.92, curve)


def linear_to_srgb(x: Tensor) -> Tensor:
    """Apply the sRGB curve: amounts of light in [0, 1] to coded values in [0, 1]. Values outside are not clipped."""
    curve = 1.055 * x.clamp(min=0.0031308).pow(1 / 2.4) - 0.055
    return torch.where(x <= 0.0031308, x * 12.92, curve)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """Convert sRGB to CIE Lab.

    Args:
        rgb: `(..., 3, H, W)`, uint8, or float in [0, 1].

    Returns:
        Lab `(..., 3, H, W)` in Lab units, float32 (float64 if `rgb` is). Every gray has `a = b = 0` exactly.

    Raises:
        ShapeError: there are not three channels, or the type is neither uint8 nor float.
    """
    _check_channels("rgb", rgb)
    if rgb.dtype == torch.uint8:
        table = srgb_to_linear(torch.arange(256, device=rgb.device) / 255)
        linear = table.index_select(0, rgb.reshape(-1).int()).view(rgb.shape)
    elif rgb.is_floating_point():
        linear = srgb_to_linear(_real(rgb))
    else:
        raise ShapeError(f"`rgb` has type {rgb.dtype}", todo="Pass uint8, or float in [0, 1].")
    return _from_xyz(*_mix(linear, _TO_XYZ, pivot=1))


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Convert CIE Lab to sRGB without clipping.

    Args:
        lab: `(..., 3, H, W)` in Lab units.

    Returns:
        sRGB `(..., 3, H, W)`, float. A value outside [0, 1] says that no screen can show the color.

    Raises:
        ShapeError: there are not three channels.
    """
    return linear_to_srgb(_lab_to_linear(lab))


def to_uint8(rgb: Tensor) -> Tensor:
    """Round sRGB in [0, 1] to bytes 0..255, of the same shape. Values outside are clipped."""
    return (rgb.detach() * 255).round().clamp(0, 255).to(torch.uint8)


def split(photos: Tensor) -> tuple[Tensor, Tensor]:
    """Split photographs into what a colorizer is given and what it has to find.

    Args:
        photos: uint8 sRGB `(N, H, W, 3)`.

    Returns:
        `gray` `(N, 1, H, W)` = L/50 - 1 and `ab` `(N, 2, H, W)` = ab/128, float32, on the device of `photos`.

    Raises:
        ShapeError: `photos` has another shape or type.
    """
    check_shape("photos", photos, (None, None, None, 3))
    if photos.dtype != torch.uint8:
        raise ShapeError(f"`photos` has type {photos.dtype}", todo="Photographs at rest are uint8, 0..255.")
    lab = rgb_to_lab(photos.permute(0, 3, 1, 2))
    return lab[:, :1] / L_SCALE - 1, lab[:, 1:] / AB_SCALE


def join(gray: Tensor, ab: Tensor) -> Tensor:
    """Join a gray image and a color field into photographs, the inverse of `split`.

    Colors that no screen can show are mapped by `to_gamut` first: they keep their lightness and hue.

    Args:
        gray: `(B, 1, H, W)` = L/50 - 1.
        ab: `(B, 2, H, W)` = ab/128.

    Returns:
        uint8 sRGB `(B, H, W, 3)`, on the device of `ab`.

    Raises:
        ShapeError: the shapes do not fit, or a value is NaN or infinite.
    """
    check_shape("gray", gray, (None, 1, None, None))
    check_shape("ab", ab, (gray.shape[0], 2, *gray.shape[2:]))
    check_finite("gray", gray)
    check_finite("ab", ab)
    with torch.no_grad():
        lab = torch.cat([(_real(gray) + 1) * L_SCALE, _real(ab) * AB_SCALE], dim=1)
        return to_uint8(lab_to_rgb(to_gamut(lab))).permute(0, 2, 3, 1).contiguous()


def in_gamut(lab: Tensor, tolerance: float = GAMUT_TOLERANCE) -> Tensor:
    """Tell which colors a screen can show.

    Args:
        lab: `(..., 3, H, W)` in Lab units.
        tolerance: how far outside [0, 1] an sRGB value may lie; float32 needs about 1e-5, a byte is 4e-3.

    Returns:
        bool `(..., H, W)`: the channel axis is gone. NaN counts as outside.
    """
    # The sRGB curve is increasing, so its limits can be moved to linear light and the costly power be left out.
    low, high = srgb_to_linear(torch.tensor([-tolerance, 1 + tolerance], dtype=torch.float64)).tolist()
    linear = _lab_to_linear(lab.detach())
    return ((linear >= low) & (linear <= high)).all(dim=-3)


def to_gamut(lab: Tensor, tolerance: float = GAMUT_TOLERANCE) -> Tensor:
    """Move colors that no screen can show to the edge of the gamut, at constant lightness and hue.

    The chroma (the distance from gray) is multiplied by the largest factor in [0, 1] that bisection finds; colors
    already inside come back bit for bit. (Near pure yellow the way from gray can leave the gamut and enter it again; then
    either edge may be found.) `L` outside [0, 100] is clipped, as no color has it. Clipping the red, green
    and blue values instead would change the lightness, which in colorization is given.

    Args:
        lab: `(..., 3, H, W)` in Lab units.
        tolerance: as in `in_gamut`.

    Returns:
        Lab of the same shape, all `in_gamut`. Gradients treat the factor as a constant.
    """
    with torch.no_grad():
        inside = in_gamut(lab, tolerance)
        lightness = torch.where(inside, lab[..., 0, :, :], lab[..., 0, :, :].clamp(0, 100))
        factor = torch.ones_like(lightness)
        if not inside.all():
            # Only the colors outside are searched, as a column of single-pixel "images".
            ab = lab[..., 1:, :, :].movedim(-3, -1)[~inside]
            color = torch.cat([lightness[~inside].unsqueeze(-1), ab], dim=-1)[..., None, None]
            low, high = torch.zeros_like(color[:, :1]), torch.ones_like(color[:, :1])
            for _ in range(_BISECTIONS):
                middle = (low + high) / 2
                shown = in_gamut(torch.cat([color[:, :1], color[:, 1:] * middle], dim=1), tolerance).unsqueeze(1)
                low, high = torch.where(shown, middle, low), torch.where(shown, high, middle)
            factor[~inside] = low.flatten()
    return torch.cat([lightness.unsqueeze(-3), lab[..., 1:, :, :] * factor.unsqueeze(-3)], dim=-3)


def opencv8_to_lab(lab8: Tensor) -> Tensor:
    """Decode OpenCV's 8-bit Lab `(..., 3, H, W)`, values 0..255, to Lab units (float32)."""
    _check_channels("lab8", lab8)
    lab8 = _real(lab8)
    return torch.cat([lab8[..., :1, :, :] * (100 / 255), lab8[..., 1:, :, :] - 128], dim=-3)


def lab_to_opencv8(lab: Tensor) -> Tensor:
    """Code Lab `(..., 3, H, W)` as OpenCV does for 8-bit images: `L * 255/100`, `a + 128`, `b + 128`, rounded, uint8."""
    _check_channels("lab", lab)
    lab = _real(lab.detach())
    coded = torch.cat([lab[..., :1, :, :] * (255 / 100), lab[..., 1:, :, :] + 128], dim=-3)
    return coded.round().clamp(0, 255).to(torch.uint8)


def reference_to_ab(x: Tensor) -> Tensor:
    """Turn the reference code's color field, `(ab + 128) * 2/255 - 1`, into ours, `ab/128`. Any shape."""
    return ((_real(x) + 1) * (255 / 2) - 128) / AB_SCALE


def ab_to_reference(ab: Tensor) -> Tensor:
    """Turn our color field, `ab/128`, into the reference code's, `(ab + 128) * 2/255 - 1`. Any shape."""
    return (_real(ab) * AB_SCALE + 128) * (2 / 255) - 1


def delta_e(lab1: Tensor, lab2: Tensor) -> Tensor:
    """Return the color difference CIE76, the Euclidean distance in Lab units.

    Args:
        lab1, lab2: `(..., 3, H, W)`; leading axes broadcast.

    Returns:
        `(..., H, W)`. About 2.3 is just noticeable. The gradient where both are equal is 0.
    """
    _check_channels("lab1", lab1)
    _check_channels("lab2", lab2)
    return torch.linalg.vector_norm(lab1 - lab2, dim=-3)


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read a picture file as sRGB bytes `(H, W, 3)`. Its content decides what it is, not its name.

    The EXIF rotation is applied. Transparent parts show white. 16-bit grays and floats in [0, 1] are scaled to bytes,
    not clipped. CMYK is converted without a color profile (in a JPEG it is read as inverted, the way Adobe writes it
    and OpenCV reads it), and embedded profiles are not applied. Of an animation the first frame is read. A file that
    lacks only what follows its last pixel is read, and a damaged EXIF block is passed over.

    Raises:
        ImageError: there is no such file, it is a folder, a pipe, a socket or a device, it is empty, damaged, cut off,
            in none of `FORMATS`, larger than `MAX_PIXELS`, or holds numbers whose range nobody can know.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ImageError("this is a folder, not a picture", path, "Name one picture file in it.")
        if not path.exists():
            raise ImageError("there is no such file", path, "Check the spelling, and the folder that the path starts from.")
        if not path.is_file():  # reading it could wait forever
            raise ImageError("this is no ordinary file, but a pipe, a socket or a device", path, "Name a picture file.")
        if path.stat().st_size == 0:
            raise ImageError("the file is empty", path, "Copy or download it again.")
        with Image.open(path, formats=_formats()) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            # PNG and GIF name their transparent color here, and loading may drop it.
            transparent = "transparency" in picture.info
            picture.load()
            pixels = np.array(_to_rgb_picture(_upright(picture), transparent, path), dtype=np.uint8)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        if _begins_like_a_picture(path):
            raise ImageError("the picture is damaged or cut off at its beginning", path, "Copy or download it again.") from error
        raise ImageError("the file is not a picture of a known format", path, "Use JPEG, PNG, WebP, TIFF, GIF or BMP.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        todo = f"At most {MAX_PIXELS // 10**6} million pixels are read, to protect your memory. Make the picture smaller first."
        raise ImageError("the picture is too large", path, todo) from error
    except PermissionError as error:
        raise ImageError("the file may not be read", path, "Ask for permission to read it, or copy it.") from error
    except Exception as error:
        # Decoders raise whatever they meet in a broken file: OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageError(f"the picture is damaged or cut off: {error}", path, "Copy or download it again.") from error
    if pixels.ndim != 3 or pixels.size == 0:
        raise ImageError("the picture has no pixels", path, "Use another file.")
    return pixels


def resize_area(images: Images, size: tuple[int, int]) -> Images:
    """Resize images; each new pixel is the average of the area that it covers.

    The average is exact: a pixel half covered counts half. An axis that grows is interpolated linearly between the
    centers of the old pixels, as an average over a part of one pixel would give blocks.

    Args:
        images: uint8 `(H, W, 3)` or `(N, H, W, 3)`, NumPy or torch; or a float tensor `(..., H, W)`.
        size: new height and width.

    Returns:
        The same kind of images, of the new size. Bytes are rounded. Float tensors keep their gradient.

    Raises:
        ShapeError: another shape or type, or a size below one.
    """
    if min(size) < 1:
        raise ShapeError(f"the new size is {tuple(size)}", todo="Height and width must be at least one.")
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8:
            raise ShapeError(f"`images` has type {images.dtype}", todo="NumPy images are uint8; pass floats as a torch tensor.")
        return resize_area(torch.from_numpy(np.ascontiguousarray(images)), size).numpy()
    if not isinstance(images, Tensor):
        raise ShapeError(f"`images` is a {type(images).__name__}", todo="Pass a NumPy array or a torch tensor.")
    if images.dtype == torch.uint8:
        check_shape("images", images, (None, None, None, 3)[-max(3, images.ndim) :])
        return _resample(images.float(), -3, -2, size).add_(0.5).clamp_(0, 255).to(torch.uint8)
    if not images.is_floating_point() or images.ndim < 2 or images.numel() == 0:
        found = f"`images` has shape {tuple(images.shape)} and type {images.dtype}"
        raise ShapeError(found, todo="Pass uint8 (N, H, W, 3) or float (..., H, W).")
    return _resample(images, -2, -1, size)


@lru_cache(maxsize=32)
def area_weights(old: int, new: int) -> Tensor:
    """Return the matrix `(new, old)`, float64, that `resize_area` applies to an axis; every row sums to one. Do not write to it."""
    if new < old:
        edges = np.arange(new + 1) * old / new
        pixel = np.arange(old)
        covered = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
        weights = covered.clip(min=0)
    else:
        center = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
        weights = (1 - np.abs(center[:, None] - np.arange(old))).clip(min=0)
    return torch.from_numpy(weights / weights.sum(axis=1, keepdims=True))


def _check_channels(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise ShapeError(f"`{name}` is a {type(tensor).__name__}, not a torch tensor", todo="Pass a tensor of shape (..., 3, H, W).")
    if tensor.ndim < 3 or tensor.shape[-3] != 3:
        raise ShapeError(f"`{name}` has shape {tuple(tensor.shape)}", todo="It should be (..., 3, H, W), channels first.")


def _real(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _mix(channels: Tensor, matrix: NDArray[np.float64], pivot: int) -> list[Tensor]:
    """Multiply three channels by a matrix whose rows sum to one; equal channels stay equal, to the last bit.

    Row (m0, m1, m2) gives m0 x0 + m1 x1 + m2 x2 = x1 + m0 (x0 - x1) + m2 (x2 - x1), here with channel 1 as the pivot.
    """
    base = channels[..., pivot, :, :]
    others = [(index, channels[..., index, :, :] - base) for index in range(3) if index != pivot]
    (first, first_difference), (last, last_difference) = others
    return [base.add(first_difference, alpha=row[first]).add(last_difference, alpha=row[last]) for row in matrix.tolist()]


def _from_xyz(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    fx, fy, fz = _f(x), _f(y), _f(z)
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], dim=-3)


def _f(t: Tensor) -> Tensor:
    # The straight part is the tangent of the cube root at the joint, and a tangent lies above a concave curve: the
    # smaller one is the right one. exp(log / 3) is as exact here as pow(1 / 3), in a quarter of the time.
    root = t.clamp(min=_DELTA**3).log().div(3).exp()
    return torch.minimum(root, t / (3 * _DELTA**2) + 4 / 29)


def _lab_to_linear(lab: Tensor) -> Tensor:
    _check_channels("lab", lab)
    lab = _real(lab)
    fy = (lab[..., :1, :, :] + 16) / 116
    f = torch.cat([fy + lab[..., 1:2, :, :] / 500, fy, fy - lab[..., 2:, :, :] / 200], dim=-3)
    xyz = torch.where(f > _DELTA, f * f * f, 3 * _DELTA**2 * (f - 4 / 29))
    return torch.stack(_mix(xyz, _TO_RGB, pivot=1), dim=-3)


def _resample(x: Tensor, rows: int, columns: int, size: tuple[int, int]) -> Tensor:
    # Autocast would run these products in 16 bits.
    with torch.autocast(x.device.type, enabled=False):
        for axis, new in zip((rows, columns), size):
            if x.shape[axis] != new:
                weights = area_weights(x.shape[axis], new).to(x.device, x.dtype)
                x = (x.movedim(axis, -1) @ weights.T).movedim(-1, axis) if axis == -1 else _left_product(weights, x, axis)
    return x


def _left_product(weights: Tensor, x: Tensor, axis: int) -> Tensor:
    """Multiply `weights` onto an axis that is not the last one; the axes behind it are one long row."""
    lead, trail = x.shape[: x.ndim + axis], x.shape[x.ndim + axis + 1 :]
    return (weights @ x.reshape(*lead, x.shape[axis], -1)).reshape(*lead, -1, *trail)


@lru_cache(maxsize=1)
def _formats() -> list[str]:
    Image.init()  # else only the most common formats are registered
    return [name for name in FORMATS if name in Image.OPEN]


def _begins_like_a_picture(path: Path) -> bool:
    try:
        with path.open("rb") as opened:
            return opened.read(4).startswith((b"\xff\xd8", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*"))
    except OSError:
        return False


def _upright(picture: Image.Image) -> Image.Image:
    """Apply the EXIF rotation. A damaged EXIF block is passed over: the pixels are still good."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        return picture


def _to_rgb_picture(picture: Image.Image, transparent: bool, path: Path) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        return Image.fromarray(_wide_to_bytes(np.asarray(picture), path)).convert("RGB")
    if transparent or picture.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        picture = picture.convert("LA") if picture.mode == "La" else picture
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("RGB")


def _wide_to_bytes(values: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
    """Scale gray values of more than 8 bits to bytes: integers from 16 bits, floats from [0, 1]."""
    wide = values.astype(np.float64)
    top = 1.0 if np.issubdtype(values.dtype, np.floating) else 65535.0
    if not (wide.min() >= 0 and wide.max() <= top):
        found = f"the picture holds values from {wide.min():g} to {wide.max():g}, and the file does not say which one is white"
        raise ImageError(found, path, "Save it with 8 or 16 bits for each channel.")
    return (wide * (255 / top) + 0.5).astype(np.uint8)
