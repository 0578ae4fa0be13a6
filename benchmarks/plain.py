"""The other side: what the published PyTorch code does, written again, plainly.

Each function does the work, and has the cost, of its original: 8-bit Lab from OpenCV, one Python step for each value of a
color field, an encoder that nobody needs at inference. One thing is left out in its favor: the published loader also
reads a file of 512x28x28 features for each photograph, which the CVAE never uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from divcolor_lib.bins import Bins
from divcolor_lib.cvae import CVAE, ReferenceCVAE
from divcolor_lib.losses import reference_cvae_loss

FloatArray = NDArray[np.float32]
Bytes = NDArray[np.uint8]

SMALL, LARGE = 64, 256


class Item(NamedTuple):
    """One photograph as the published loader returns it; collated, every field gets a batch axis.

    Attributes:
        gray: float32 `(1, 64, 64)`, 8-bit L scaled to [-1, 1].
        ab: float32 `(2, 64, 64)`, 8-bit a and b scaled to [-1, 1]. Neutral is +0.0039.
        weights: float32 `(2, 64, 64)`, the rarity weight of each pixel, once for each channel.
        large_gray: float32 `(1, 256, 256)`, for output.
    """

    gray: FloatArray
    ab: FloatArray
    weights: FloatArray
    large_gray: FloatArray


class NearestLevels:
    """The published search for the weight of a pixel: the nearest a, the nearest b, then the weight of that pair.

    One value at a time is compared with the coordinates of all bins, in Python.

    Args:
        bins: the Q bins.
        weights: `(Q,)`.
    """

    def __init__(self, bins: Bins, weights: Tensor) -> None:
        self.levels = np.ascontiguousarray(bins.centers.numpy().T)
        self.weight_of: dict[float, dict[float, float]] = {}
        for (a, b), weight in zip(bins.centers.tolist(), weights.tolist()):
            self.weight_of.setdefault(a, {})[b] = weight

    def __call__(self, ab: FloatArray) -> FloatArray:
        """Return float32 weights `(2, H, W)` for one color field `ab` `(2, H, W)`; 128 times it is taken for Lab units.

        Raises:
            KeyError: the nearest a and the nearest b are no bin together, as can be beyond the edge of the gamut.
        """
        units = ab.reshape(2, -1) * 128.0
        nearest_a, nearest_b = ([levels[np.abs(levels - value).argmin()] for value in values] for levels, values in zip(self.levels, units))
        found = np.array([self.weight_of[a][b] for a, b in zip(nearest_a, nearest_b)], dtype=np.float32)
        return np.broadcast_to(found.reshape(ab.shape[1:]), ab.shape).copy()


def read_item(path: Path, search: NearestLevels) -> Item:
    """Read one photograph from disk, with everything that training and output want of it."""
    picture = read_pixels(path)
    small, large = (_coded_lab(resized(picture, side)) for side in (SMALL, LARGE))
    ab = _channels_first(small[..., 1:])
    return Item(_channels_first(small[..., :1]), ab, search(ab), _channels_first(large[..., :1]))


def read_batch(paths: Sequence[Path], search: NearestLevels) -> Item:
    """Read photographs one by one and stack them: tensors with a batch axis."""
    return Item(*default_collate([tuple(read_item(path, search)) for path in paths]))


class Files(Dataset[tuple[FloatArray, ...]]):
    """The published data set: every photograph is read, converted and searched anew each time it is asked for."""

    def __init__(self, paths: Sequence[Path], search: NearestLevels) -> None:
        self.paths, self.search = paths, search

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[FloatArray, ...]:
        """Return the fields of an `Item`."""
        return tuple(read_item(self.paths[index], self.search))


def published_step(cvae: CVAE, optimizer: torch.optim.Optimizer, item: Item, device: torch.device) -> float:
    """Take one training step of the CVAE as the published loop does, and return the loss: float32, plain layout, the loss read back.

    Args:
        item: a batch as the loader gives it, tensors on the host.
    """
    gray, ab, weights = (torch.as_tensor(field).to(device) for field in (item.gray, item.ab, item.weights))
    painted, mu, logvar = cvae(ab, gray)
    # One weight for both channels of a pixel; the loader stores it twice.
    loss = reference_cvae_loss(painted, ab, mu, logvar, weights[:, :1])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def read_pixels(path: Path) -> Bytes:
    """Read a picture as OpenCV does: uint8 `(H, W, 3)`, blue first.

    Raises:
        FileNotFoundError: OpenCV cannot read it.
    """
    picture = cv2.imread(str(path))
    if picture is None:
        raise FileNotFoundError(path)
    return np.asarray(picture, dtype=np.uint8)


def resized(picture: Bytes, side: int) -> Bytes:
    """Resize a picture to a square by OpenCV's default, bilinear interpolation without averaging."""
    return np.asarray(cv2.resize(picture, (side, side)), dtype=np.uint8)


def nearest_bin_weights(ab: FloatArray, centers: FloatArray, weights: FloatArray) -> FloatArray:
    """Return weights `(B, H, W)` for `ab` `(B, 2, H, W)` = ab/128 by comparing every pixel with every bin, an image at a time.

    The best that NumPy can do without a table: no loop over pixels.
    """
    return np.stack([weights[_squared_distances(field * 128.0, centers).argmin(axis=2)] for field in ab])


def opencv_lab(photos: Bytes) -> FloatArray:
    """Convert sRGB bytes `(B, H, W, 3)` to Lab `(B, H, W, 3)` in Lab units, one photograph after the other, by OpenCV."""
    return np.stack([cv2.cvtColor(photo.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for photo in photos])


def colorize_in_a_batch(cvae: ReferenceCVAE, codes: Tensor, gray: Tensor, ab: Tensor, batch: int) -> Tensor:
    """Colorize one photograph as the published inference does, and return `(K, 2, 64, 64)`.

    The K codes are repeated to fill a whole training batch over copies of the photograph; the color encoder runs too, its
    answer is thrown away, and every activation is kept for gradients that nobody asks for.

    Args:
        codes: `(K, D)`; K divides `batch`.
        gray, ab: one photograph, `(1, 1, 64, 64)` and `(1, 2, 64, 64)`.
        batch: the size of a training batch, 32 in the published code.
    """
    cvae.eval()
    with torch.enable_grad():
        cvae.encode(ab.repeat(batch, 1, 1, 1))
        painted = cvae.decode(codes.repeat(batch // len(codes), 1), gray.repeat(batch, 1, 1, 1))
    return painted[: len(codes)].detach()


def _coded_lab(picture: Bytes) -> NDArray[np.float64]:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2LAB) * 2.0 / 255.0 - 1.0, dtype=np.float64)


def _channels_first(image: NDArray[np.float64]) -> FloatArray:
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)


def _squared_distances(field: FloatArray, centers: FloatArray) -> FloatArray:
    """Return `(H, W, Q)` for `field` `(2, H, W)` and `centers` `(Q, 2)`, both in Lab units."""
    to_a, to_b = (field[channel, ..., None] - centers[:, channel] for channel in (0, 1))
    return to_a * to_a + to_b * to_b
