"""Color bins: how rare a color is, and how much a loss should care about it.

Photographs are mostly gray. A loss that counts every pixel alike learns to paint gray, so Zhang et al. (2016) and
Deshpande et al. (2017) cut the ab plane into bins, count how often each occurs, and give rare colors more weight.

The bins are the points of a square grid, 10 Lab units apart, to which some sRGB color is nearest; `gamut_bins` computes
them from all 2^24 colors. By construction every color of every photograph has its bin. Zhang et al. published a list of
313 bins that reaches about one bin further than any screen; `published_bins` loads that file.

A color belongs to the nearest bin, and between equally near ones to the one with the lower index, as in
`argmin`. `Bins.search` does exactly that, with a distance to each bin for each pixel. `Bins.index` gives the same answer, to the
last bit, from a table. How can a table be exact for colors that are not whole numbers? The plane is cut into cells
`(k - 1, k] x (l - 1, l]`, whose edges contain the edges between neighboring bins (at 5, 15, 25, ...), ties included;
`ceil` finds the cell without rounding error. Inside the gamut each cell has one bin. A few cells outside are cut by
a slanting edge; only colors in those, and beyond the table, are searched.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import ConfigError, DataError, ShapeError, check_finite, check_shape
from .lab import AB_SCALE, rgb_to_lab

GRID = 10

_REACH = 128  # The table covers [-128, 128] in both directions, all that `ab` in [-1, 1] can say.
_UNSURE = -1


class Bins:
    """A set of points of a square grid in the ab plane, and the fast search for the nearest one.

    Args:
        centers: `(Q, 2)`, a and b in Lab units, whole multiples of `grid`, sorted by a and then by b, each once.
        grid: distance between neighbors, a whole number of Lab units.

    Attributes:
        centers: float32 `(Q, 2)`, on the CPU.
        grid: as given.

    Raises:
        ConfigError: `grid` is not a whole number from 1 to 64.
        DataError: the centers are not as described.
    """

    def __init__(self, centers: Tensor | NDArray[np.generic], grid: int = GRID) -> None:
        _check_grid(grid)
        points = np.asarray(centers, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
            raise DataError(f"bin centers have shape {points.shape}", "centers", "They should be (Q, 2): a and b of each bin.")
        steps = points / grid
        if not (np.isfinite(steps).all() and (steps == np.round(steps)).all() and np.abs(points).max() <= _REACH):
            raise DataError(f"bin centers are not multiples of {grid} in [-128, 128]", "centers", "Check the file, or name its grid.")
        if [tuple(step) for step in steps] != sorted({tuple(step) for step in steps}):
            raise DataError("bin centers are not sorted by a and then b, each once", "centers", "Sort them, and the prior alike.")
        self.grid = grid
        self.centers = torch.from_numpy(points.astype(np.float32))
        self._scale = 1 if grid % 2 == 0 else 2  # cells for one Lab unit, so that the edge at grid/2 is an edge of cells
        self._side = 2 * self._outside + 1
        self._tables: dict[torch.device, Tensor] = {torch.device("cpu"): torch.from_numpy(self._make_table())}

    @property
    def count(self) -> int:
        """The number of bins, Q."""
        return len(self.centers)

    def __repr__(self) -> str:
        return f"Bins({self.count} on a grid of {self.grid})"

    def index(self, ab: Tensor) -> Tensor:
        """Return the bin of every pixel, from a table.

        Args:
            ab: `(B, 2, H, W)` in Lab units.

        Returns:
            int64 `(B, H, W)`, on the device of `ab`; the same as `search`, to the last bit.

        Raises:
            ShapeError: another shape, or a value is NaN or infinite.
        """
        check_shape("ab", ab, (None, 2, None, None))
        ab = ab.detach().float()
        found = _look_up(self._table_on(ab.device), self._cells(ab)).long()
        unsure = found == _UNSURE
        if unsure.any():
            found[unsure] = self._search_unsure(ab, unsure)
        return found

    def search(self, ab: Tensor) -> Tensor:
        """Return the bin of every pixel by comparing it with every bin: slow, and the definition of `index`.

        Args:
            ab: `(B, 2, H, W)` in Lab units.

        Returns:
            int64 `(B, H, W)`: argmin over q of (a - a_q)^2 + (b - b_q)^2 in float32, the first of equal ones.
        """
        check_shape("ab", ab, (None, 2, None, None))
        points = ab.detach().float().movedim(1, -1)
        return self._nearest(points.reshape(-1, 2)).view(points.shape[:-1])

    def _nearest(self, points: Tensor) -> Tensor:
        a, b = self.centers.to(points.device).T
        # Chunks of one megabyte stay in the cache.
        parts = [
            # Products and sums stay separate operations: fused ones round otherwise.
            (part[:, :1] - a).square().add((part[:, 1:] - b).square()).argmin(dim=1)
            for part in points.split(max(1, 2**18 // self.count))
        ]
        return torch.cat(parts)

    def _search_unsure(self, ab: Tensor, unsure: Tensor) -> Tensor:
        """Search the colors for which the table has no answer; `unsure` is bool `(B, H, W)`."""
        points = ab.movedim(1, -1)[unsure]
        check_finite("ab", points)
        return self._nearest(points)

    @property
    def _outside(self) -> int:
        """The number, counted from the middle, of the cells that stand for everything beyond the table."""
        return _REACH * self._scale + 1

    def _cells(self, ab: Tensor) -> Tensor:
        """Return the cell of every pixel: int32 `(B, H, W)` for `ab` in Lab units. NaN goes to a cell outside."""
        edge = float(self._outside)
        steps = ab if self._scale == 1 else ab * self._scale
        steps = steps.clamp(-edge, edge).nan_to_num_(nan=edge).ceil_()
        return steps[:, 0].mul(self._side).add_(steps[:, 1]).add_(self._outside * (self._side + 1)).int()

    def _table_on(self, device: torch.device) -> Tensor:
        if device not in self._tables:
            self._tables[device] = self._tables[torch.device("cpu")].to(device)
        return self._tables[device]

    def _make_table(self) -> NDArray[np.int16]:
        """Return the bin of each cell, flat, `_UNSURE` where a cell has more than one."""
        cells = np.arange(-self._outside, self._outside + 1)
        table = self._single_bin_of_cells(cells)
        lattice = self._lattice_of_cells(cells)
        table = np.where(lattice >= 0, lattice, table)
        if not self._ties_are_exact():
            border = (cells * 2 - self.grid * self._scale) % (2 * self.grid * self._scale) == 2
            table[border, :] = table[:, border] = _UNSURE
        table[[0, -1], :] = table[:, [0, -1]] = _UNSURE
        return table.astype(np.int16).ravel()

    def _lattice_of_cells(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return, for each pair of cells, the bin in whose square they lie, and `_UNSURE` where that square has no bin."""
        steps = np.round(self.centers.numpy() / self.grid).astype(np.int64)
        low = steps.min(axis=0) - 1
        of_step = np.full(steps.max(axis=0) - low + 2, _UNSURE)
        of_step[tuple((steps - low).T)] = np.arange(self.count)
        # Cell k is (k - 1, k] / scale; square i is (i - 1/2, i + 1/2] * grid.
        square = _square_of_cell(cells, self.grid, self._scale)
        rows, columns = ((square - start).clip(0, size - 1) for start, size in zip(low, of_step.shape))
        return of_step[np.ix_(rows, columns)]

    def _single_bin_of_cells(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the bin to which a whole cell is nearest, `_UNSURE` if there is none.

        The region nearest to a bin is convex, so a cell lies in it if its corners do. The cells are taken a little
        larger, so that no rounding in float32 can reach across the edge.
        """
        margin = 0.01
        corners = np.stack([cells - 1, cells]) / self._scale + np.array([[-margin], [margin]])
        a, b = self.centers.double().numpy().T
        to_a, to_b = (corners[..., None] - a) ** 2, (corners[..., None] - b) ** 2
        table = np.empty((len(cells), len(cells)), dtype=np.int64)
        for row in range(len(cells)):
            nearest = (to_a[:, None, row, None] + to_b[None]).argmin(axis=-1).reshape(4, -1)
            table[row] = np.where((nearest == nearest[0]).all(axis=0), nearest[0], _UNSURE)
        return table

    def _ties_are_exact(self) -> bool:
        """Whether float32 tells apart the two bins beside an edge as soon as a color is not on the edge.

        On the edge both distances are equal and the lower bin is right. One float above, the higher bin must be
        strictly nearer, whatever the other coordinate adds (at most (grid/2)^2, then rounded once more).
        """
        edge = (np.arange(-_REACH, _REACH + 1, dtype=np.float32) * self.grid + np.float32(self.grid / 2)).astype(np.float32)
        above = np.nextafter(edge, np.float32(np.inf))
        half = np.float32(self.grid / 2)
        to_low, to_high = (above - (edge - half)) ** 2, (above - (edge + half)) ** 2
        return bool((to_low - to_high > np.spacing(np.float32(self.grid**2 / 2) * np.float32(1.01))).all())


class WeightTable:
    """The weight of every pixel of a batch, by one table lookup.

    Equal to `weights[bins.search(ab * 128)]`, to the last bit. On a GPU one flag is read back for each batch.

    Args:
        bins: the Q bins.
        weights: `(Q,)`, finite.

    Raises:
        ShapeError: `weights` has another shape, or a value is NaN or infinite.
    """

    def __init__(self, bins: Bins, weights: Tensor) -> None:
        check_shape("weights", weights, (bins.count,))
        check_finite("weights", weights)
        self.bins = bins
        self.weights = weights.detach().cpu().float()
        index = bins._table_on(torch.device("cpu")).long()
        table = torch.where(index == _UNSURE, torch.nan, self.weights[index.clamp(min=0)])
        self._tables: dict[torch.device, Tensor] = {table.device: table}
        self._bytes: Tensor | None = None

    def __call__(self, ab: Tensor) -> Tensor:
        """Return float32 weights `(B, 1, H, W)`, on the device of `ab`, for a color field `ab` `(B, 2, H, W)` = ab/128.

        Raises:
            ShapeError: another shape, or a value is NaN or infinite.
        """
        check_shape("ab", ab, (None, 2, None, None))
        units = ab.detach().float() * AB_SCALE
        if units.device not in self._tables:
            self._tables[units.device] = self._tables[torch.device("cpu")].to(units.device)
        found = _look_up(self._tables[units.device], self.bins._cells(units))
        unsure = found.isnan()
        if unsure.any():
            found[unsure] = self.weights.to(units.device)[self.bins._search_unsure(units, unsure)]
        return found.unsqueeze(1)

    def from_bytes(self, ab8: Tensor) -> Tensor:
        """Return float32 weights `(B, 1, H, W)` for OpenCV's 8-bit `ab8` `(B, 2, H, W)`, uint8 = ab + 128.

        Raises:
            ShapeError: another shape or type.
        """
        check_shape("ab8", ab8, (None, 2, None, None))
        if ab8.dtype != torch.uint8:
            raise ShapeError(f"`ab8` has type {ab8.dtype}", todo="Pass the bytes of 8-bit Lab, uint8.")
        if self._bytes is None:
            byte = torch.arange(256.0) - 128
            self._bytes = self(torch.stack(torch.meshgrid(byte, byte, indexing="ij"))[None] / AB_SCALE).flatten()
        self._bytes = self._bytes.to(ab8.device)
        pairs = ab8[:, 0].int().mul_(256).add_(ab8[:, 1])
        return _look_up(self._bytes, pairs).unsqueeze(1)


@lru_cache
def gamut_bins(grid: int = GRID) -> Bins:
    """Return the bins that hold a displayable color: the grid points nearest to at least one of the 2^24 sRGB colors.

    Takes about a second the first time; later calls return the same object.

    Args:
        grid: distance between neighbors in Lab units, a whole number.

    Raises:
        ConfigError: `grid` is not a whole number from 1 to 64.
    """
    _check_grid(grid)
    scale = 1 if grid % 2 == 0 else 2
    outside = _REACH * scale
    seen = torch.zeros(2 * outside + 1, 2 * outside + 1, dtype=torch.bool)
    byte = torch.arange(256, dtype=torch.uint8)
    plane = torch.stack(torch.meshgrid(byte, byte, indexing="ij"))
    for red in byte.split(4):
        colors = torch.cat([red[:, None, None, None].expand(-1, 1, 256, 256), plane.expand(len(red), -1, -1, -1)], dim=1)
        cells = (rgb_to_lab(colors)[:, 1:] * scale).ceil_().add_(outside).int()
        seen.view(-1)[(cells[:, 0] * (2 * outside + 1) + cells[:, 1]).view(-1).long()] = True
    cells_seen = np.argwhere(seen.numpy()) - outside
    return Bins(np.unique(_square_of_cell(cells_seen, grid, scale), axis=0) * grid, grid)


def published_bins(path: str | Path) -> Bins:
    """Load the 313 bins that Zhang et al. published.

    Args:
        path: `ab_quantize.npy`, shape (2, 313, 1, 1); or `pts_in_hull.npy`, shape (313, 2); or a folder that holds one.

    Raises:
        DataError: the file is absent, damaged, or holds something else.
    """
    path = _file_in(path, "ab_quantize.npy", "pts_in_hull.npy")
    array = _load(path)
    flat = array.reshape(array.shape[:2]) if array.ndim == 4 and array.shape[2:] == (1, 1) else array
    # All of the a values and then all of the b values, or one pair after the other: never reshape one into the other.
    if flat.ndim == 2 and flat.shape[0] == 2 != flat.shape[1]:
        flat = flat.T
    if flat.ndim != 2 or flat.shape[1] != 2 or flat.shape[0] <= 2:
        raise DataError(f"an array of shape {array.shape} is not a list of bins", path, "It should be (2, 313, 1, 1) or (313, 2).")
    try:
        return Bins(flat)
    except DataError as error:
        raise DataError(error.found, path, error.todo) from error


def published_prior(path: str | Path) -> Tensor:
    """Load the probabilities of the published bins, `prior_probs.npy`, as float32 `(313,)`.

    Args:
        path: the file, or a folder that holds it.

    Raises:
        DataError: the file is absent, damaged, or does not hold positive probabilities that sum to one.
    """
    path = _file_in(path, "prior_probs.npy")
    array = _load(path)
    values = array.squeeze().astype(np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise DataError(f"an array of shape {array.shape} is not a list of probabilities", path, "It should be (313,).")
    if not (np.isfinite(values).all() and (values > 0).all() and abs(values.sum() - 1) < 1e-3):
        raise DataError(f"the values are not positive probabilities; they sum to {values.sum():g}", path, "Download the file again.")
    return torch.from_numpy(values).float()


def prior(ab: Tensor | Iterable[Tensor], bins: Bins, smoothing: float = 0.0, uniform: float = 0.01) -> Tensor:
    """Count how often each bin occurs.

    p = (1 - uniform) * smooth(histogram, smoothing) + uniform / Q. The uniform share keeps bins that never occur from a
    probability of zero, whose inverse is infinite.

    Args:
        ab: color fields `(B, 2, H, W)` = ab/128, or an iterable of such batches.
        bins: the Q bins.
        smoothing: standard deviation of `smooth`, in Lab units. `zhang_weights` smooths by itself.
        uniform: share of the uniform distribution, from 0 to 1.

    Returns:
        float32 `(Q,)` on the CPU, sums to one.

    Raises:
        DataError: there is no color field at all.
        ConfigError: `uniform` or `smoothing` is out of range.
    """
    if not 0 <= uniform <= 1:
        raise ConfigError(f"`uniform` is {uniform}", "prior", "It is a share, from 0 to 1.")
    counts = torch.zeros(bins.count, dtype=torch.float64)
    for batch in [ab] if isinstance(ab, Tensor) else ab:
        check_shape("ab", batch, (None, 2, None, None))
        counts += torch.bincount(bins.index(batch * AB_SCALE).flatten(), minlength=bins.count).cpu()
    if not counts.sum() > 0:
        raise DataError("there are no color fields to count", "prior", "Pass at least one batch (B, 2, H, W).")
    smoothed = _smooth(counts / counts.sum(), bins, smoothing)
    return ((1 - uniform) * smoothed + uniform / bins.count).float()


def smooth(probabilities: Tensor, bins: Bins, sigma: float) -> Tensor:
    """Blur probabilities over the grid with a Gaussian and share the result out among the bins.

    p~_q is proportional to sum_r exp(-|c_q - c_r|^2 / (2 sigma^2)) p_r. What would fall outside the bins is
    returned to all of them in proportion, so p~ sums to one.

    Args:
        probabilities: `(Q,)`.
        bins: the Q bins.
        sigma: standard deviation in Lab units; 0 leaves the probabilities as they are.

    Returns:
        float32 `(Q,)` on the CPU.
    """
    return _smooth(probabilities, bins, sigma).float()


def soft_encode(ab: Tensor, bins: Bins, neighbors: int = 5, sigma: float = 5.0) -> tuple[Tensor, Tensor]:
    """Say each color as a mixture of the bins around it: the targets of Zhang et al. (2016), section 2.1.

    share_j is proportional to exp(-|c - c_j|^2 / (2 sigma^2)) among the nearest bins, and they sum to one.

    Args:
        ab: color fields `(B, 2, H, W)` = ab/128.
        bins: the Q bins.
        neighbors: how many bins take part.
        sigma: in Lab units.

    Returns:
        The bins, int64 `(B, neighbors, H, W)`, nearest first, and their shares, float32 of the same shape.

    Raises:
        ConfigError: there are fewer bins than neighbors, or `sigma` is not positive.
    """
    check_shape("ab", ab, (None, 2, None, None))
    if not 1 <= neighbors <= bins.count or not sigma > 0:
        raise ConfigError(f"colors cannot be shared among {neighbors} bins with sigma {sigma}", "soft_encode", "Use at least one bin.")
    colors = (ab.float() * AB_SCALE).movedim(1, -1).reshape(-1, 2)
    distance = torch.cdist(colors, bins.centers.to(ab.device), compute_mode="donot_use_mm_for_euclid_dist")
    near, index = distance.topk(neighbors, dim=1, largest=False)
    shares = (-near.square() / (2 * sigma**2)).softmax(1)
    size = (len(ab), *ab.shape[2:], neighbors)
    return index.reshape(size).movedim(-1, 1), shares.reshape(size).movedim(-1, 1)


def zhang_weights(prior: Tensor, bins: Bins, mix: float = 0.5, sigma: float = 5.0) -> Tensor:
    """Return the rebalancing weights of Zhang et al., *Colorful Image Colorization*, 2016, equation 4.

    w_q is proportional to 1 / ((1 - mix) p~_q + mix / Q), with p~ = smooth(prior, sigma) and sum_q p~_q w_q = 1.

    The uniform share bounds the ratio of the largest to the smallest weight, which for 1/p has no bound.

    Args:
        prior: `(Q,)`, sums to one.
        bins: the Q bins.
        mix: share of the uniform distribution, above 0 to 1 (lambda in the paper). At 1 all weights are equal.
        sigma: smoothing in Lab units. Pass 0 for `published_prior`, which is smooth already.

    Returns:
        float32 `(Q,)`.

    Raises:
        ShapeError: `prior` has another shape than `(Q,)`, or no sum of one.
        ConfigError: `mix` or `sigma` is out of range.
    """
    if not 0 < mix <= 1:
        raise ConfigError(f"`mix` is {mix}", "zhang_weights", "It is a share, above 0 to 1.")
    smoothed = _smooth(prior, bins, sigma)
    if not abs(float(smoothed.sum()) - 1) < 1e-3:
        raise ShapeError(f"`prior` sums to {float(smoothed.sum()):g}", todo="Probabilities sum to one.")
    weights = 1 / ((1 - mix) * smoothed + mix / bins.count)
    return (weights / (smoothed * weights).sum()).float()


def inverse_weights(prior: Tensor) -> Tensor:
    """Return 1/p, the weights of Deshpande et al. (2017). One saturated pixel can outweigh an image.

    Args:
        prior: `(Q,)`, positive.

    Returns:
        float32 `(Q,)`; their mean under the prior is Q.

    Raises:
        ShapeError: a probability is not positive.
    """
    check_shape("prior", prior, (None,))
    if not (prior > 0).all():
        raise ShapeError("`prior` holds a probability that is not positive", todo="Give each bin a share: prior(..., uniform=0.01).")
    return (1 / prior.detach().double()).float()


def _smooth(probabilities: Tensor, bins: Bins, sigma: float) -> Tensor:
    check_shape("prior", probabilities, (bins.count,))
    if not 0 <= sigma < float("inf"):
        raise ConfigError(f"the smoothing is {sigma}", "sigma", "It is a standard deviation in Lab units, 0 or more.")
    p = probabilities.detach().cpu().double()
    if sigma == 0:
        return p
    distance = torch.cdist(bins.centers.double(), bins.centers.double())
    blurred = torch.exp(-0.5 * (distance / sigma) ** 2) @ p
    return blurred * (p.sum() / blurred.sum())


def _look_up(table: Tensor, index: Tensor) -> Tensor:
    return table.index_select(0, index.reshape(-1)).view(index.shape)


def _square_of_cell(cells: NDArray[np.int64], grid: int, scale: int) -> NDArray[np.int64]:
    """Return i for which square (i - 1/2, i + 1/2] * grid holds cell (k - 1, k] / scale: ceil((2k - grid*scale) / (2*grid*scale))."""
    squares: NDArray[np.int64] = -((grid * scale - 2 * cells) // (2 * grid * scale))
    return squares


def _check_grid(grid: int) -> None:
    if not isinstance(grid, int) or not 1 <= grid <= 64:
        raise ConfigError(f"a grid of {grid} Lab units", "grid", "Use a whole number from 1 to 64.")


def _file_in(path: str | Path, *names: str) -> Path:
    path = Path(path)
    if not path.is_dir():
        return path
    for name in names:
        if (path / name).is_file():
            return path / name
    raise DataError(f"the folder holds no {' or '.join(names)}", path, "Put the file there, or name it.")


def _load(path: Path) -> NDArray[np.generic]:
    try:
        with open(path, "rb") as stream:  # np.load leaves an archive open
            array = np.load(stream, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError("there is no such file", path, "It comes with the code of Zhang et al.; the library works without it.") from error
    except Exception as error:
        # NumPy raises ValueError, EOFError, OSError or BadZipFile, by what is wrong with the bytes.
        raise DataError(f"the file cannot be read as a NumPy array: {error}", path, "Download it again.") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise DataError("the file holds something else than one array of numbers", path, "Name a .npy file.")
    return array
