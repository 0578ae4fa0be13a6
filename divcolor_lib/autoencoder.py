"""Low-dimensional summaries of color fields: principal components and k-means.

Both work on rows, `(N, M)`; a color field `(2, H, W)` is the row `ab.flatten()`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import ShapeError, check_finite, check_shape


@dataclass(frozen=True)
class PCA:
    """Principal components of rows of length M.

    Attributes:
        mean: `(M,)`.
        components: `(P, M)`, orthonormal rows, by descending variance.
        variances: `(P,)`, the variance of the data along each component.
        total_variance: the sum of the variances of all M coordinates.
    """

    mean: Tensor
    components: Tensor
    variances: Tensor
    total_variance: float

    def scores(self, rows: Tensor) -> Tensor:
        """Return the coordinates `(N, P)` of rows `(N, M)`."""
        return (rows - self.mean) @ self.components.T

    def project(self, rows: Tensor, components: int | None = None) -> Tensor:
        """Return rows `(N, M)` with only their first `components` coordinates kept (all P of them by default)."""
        kept = self.components[:components]
        return self.mean + (rows - self.mean) @ kept.T @ kept


def fit_pca(rows: Tensor, components: int, seed: int = 0) -> PCA:
    """Fit the first principal components of `rows` (N, M) by a randomized singular value decomposition.

    Variances divide by N - 1. Signs are fixed so that the entry of largest absolute value of each component is positive.

    Raises:
        ShapeError: there are fewer than `components` + 1 rows, fewer columns than components, or a row is not finite.

    Source: Halko, Martinsson and Tropp, *Finding structure with randomness*, 2011.
    """
    check_shape("rows", rows, (None, None))
    count, length = rows.shape
    if components < 1 or count < components + 1 or length < components:
        raise ShapeError(
            f"{components} components cannot be fitted to {count} rows of length {length}", "fit_pca", "Use more rows, or fewer components."
        )
    rows = rows.float()
    check_finite("rows", rows)
    mean = rows.mean(0)
    centered = rows - mean
    oversampled = min(components + 20, count, length)
    sketch = torch.randn(length, oversampled, generator=torch.Generator().manual_seed(seed)).to(rows.device)
    basis = torch.linalg.qr(centered @ sketch).Q
    for _ in range(6):
        basis = torch.linalg.qr(centered.T @ basis).Q
        basis = torch.linalg.qr(centered @ basis).Q
    _, singular, directions = torch.linalg.svd(basis.T @ centered, full_matrices=False)
    directions = directions[:components]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return PCA(
        mean=mean,
        components=directions * largest.sign(),
        variances=singular[:components].square() / (count - 1),
        total_variance=float(centered.square().sum() / (count - 1)),
    )


def kmeans(rows: Tensor, clusters: int, seed: int = 0, rounds: int = 50) -> Tensor:
    """Return the `(clusters, M)` centers of Lloyd's algorithm from a k-means++ start; fewer than `rounds` rounds if nothing moves.

    An empty cluster takes over the row that lies farthest from its center.

    Raises:
        ShapeError: there are fewer rows than clusters, or a row is not finite.
    """
    check_shape("rows", rows, (None, None))
    if not 1 <= clusters <= rows.shape[0]:
        raise ShapeError(f"{clusters} clusters cannot be found in {rows.shape[0]} rows", "kmeans", "Use more rows, or fewer clusters.")
    rows = rows.float()
    check_finite("rows", rows)
    mean = rows.mean(0)
    rows = rows - mean  # far from the origin, squared distances would cancel
    generator = torch.Generator().manual_seed(seed)
    chosen = [int(torch.randint(rows.shape[0], (1,), generator=generator))]
    nearest = _squared_distances(rows, rows[chosen]).squeeze(1)
    while len(chosen) < clusters:
        chosen.append(int(torch.multinomial(nearest.cpu() + 1e-12, 1, generator=generator)))
        nearest = torch.minimum(nearest, _squared_distances(rows, rows[chosen[-1:]]).squeeze(1))
    centers = rows[chosen].clone()
    before = None
    for _ in range(rounds):
        distances = _squared_distances(rows, centers)
        closest, label = distances.min(1)
        if before is not None and torch.equal(label, before):
            break
        before = label
        counts = torch.bincount(label, minlength=clusters)
        sums = torch.zeros_like(centers).index_add_(0, label, rows)
        centers = sums / counts.clamp(min=1)[:, None]
        for empty in (counts == 0).nonzero().flatten().tolist():
            farthest = int(closest.argmax())
            centers[empty] = rows[farthest]
            closest[farthest] = 0
    return centers + mean


def _squared_distances(rows: Tensor, centers: Tensor) -> Tensor:
    squares = rows.square().sum(1, keepdim=True) - 2 * rows @ centers.T + centers.square().sum(1)
    return squares.clamp(min=0)
