"""Codes for color fields: principal components, k-means, autoencoders, and variational autoencoders of one level or several.

All work on rows `(N, M)`; a color field `(2, H, W)` is the row `ab.flatten()`. The networks here are small fully connected
ones, made for the color fields of small portraits; the conditional VAE for photographs is in `cvae`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .errors import ConfigError, ShapeError, TrainingError, check_finite, check_shape
from .losses import kl_between_normals, kl_per_dimension

#: log sigma^2 of every learned Gaussian stays in this range, so that exp never overflows.
LOGVAR_RANGE = (-12.0, 6.0)


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


def reparameterize(mu: Tensor, logvar: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw z = mu + sigma * eps with eps ~ N(0, I) and sigma = exp(logvar / 2); gradients flow to mu and logvar.

    The noise is drawn where the generator lives, so a CPU generator gives the same codes on every device.

    Source: Kingma and Welling, *Auto-Encoding Variational Bayes*, 2013, section 2.4.
    """
    where = generator.device if generator is not None else mu.device
    eps = torch.randn(mu.shape, generator=generator, device=where).to(mu.device)
    return mu + (0.5 * logvar).exp() * eps


def multilayer(widths: Sequence[int]) -> nn.Sequential:
    """Return linear layers between these widths with SiLU between them; two widths give one linear layer."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


class Autoencoder(nn.Module):
    """Encoder and decoder as fully connected networks; without hidden layers it is the linear autoencoder.

    Args:
        length: M, the length of a row.
        latent: D, the length of a code.
        hidden: the widths of the encoder's hidden layers; the decoder has them in reverse order.

    Raises:
        ConfigError: a width is not positive.
    """

    def __init__(self, length: int, latent: int, hidden: Sequence[int] = (128,)) -> None:
        super().__init__()
        _check_widths(length, latent, *hidden)
        self.encoder = multilayer([length, *hidden, latent])
        self.decoder = multilayer([latent, *reversed(hidden), length])

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes `(N, D)` of rows `(N, M)`."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """Return the rows `(N, M)` of codes `(N, D)`."""
        return self.decoder(z)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstructions `(N, M)` of rows `(N, M)`."""
        return self.decode(self.encode(x))


class VAE(nn.Module):
    """A variational autoencoder: p(z) = N(0, I), p(x|z) = N(f(z), sigma_x^2 I), q(z|x) = N(mu, diag sigma^2).

    Args:
        length: M, the length of a row.
        latent: D, the length of a code.
        hidden: the widths of the encoder's hidden layers; the decoder has them in reverse order.
        noise: sigma_x, the standard deviation of p(x|z), in the units of x.

    Raises:
        ConfigError: a width or the noise is not positive.

    Source: Kingma and Welling, *Auto-Encoding Variational Bayes*, 2013.
    """

    def __init__(self, length: int, latent: int, hidden: Sequence[int] = (128,), noise: float = 0.1) -> None:
        super().__init__()
        _check_widths(length, latent, *hidden)
        self.length, self.latent, self.noise = length, latent, _checked_noise(noise)
        self.encoder = multilayer([length, *hidden, 2 * latent])
        self.decoder = multilayer([latent, *reversed(hidden), length])

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the posterior of rows `(N, M)`: `mu` and `logvar`, each `(N, D)`."""
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        return mu, logvar.clamp(*LOGVAR_RANGE)

    def decode(self, z: Tensor) -> Tensor:
        """Return f(z), the mean of p(x|z): rows `(N, M)` of codes `(N, D)`."""
        return self.decoder(z)

    def elbo(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return the two terms of the ELBO for each row, in nats: log p(x|z) at one z ~ q(z|x), `(N,)`, and the KL per dimension, `(N, D)`.

        The ELBO of row n is `log_likelihood[n] - kl[n].sum()`.
        """
        mu, logvar = self.encode(x)
        z = reparameterize(mu, logvar, generator)
        return gaussian_log_likelihood(x, self.decode(z), self.noise), kl_per_dimension(mu, logvar)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` means f(z) with z ~ p(z): rows `(count, M)`."""
        return self.decode(torch.randn(count, self.latent, generator=generator))


class HierarchicalVAE(nn.Module):
    """A Markovian hierarchical VAE with T levels: z_T ~ N(0, I), z_{t-1} ~ p(z_{t-1}|z_t), x ~ p(x|z_1).

    The encoder goes up, q(z_1|x) q(z_2|z_1) ... q(z_T|z_{T-1}); the decoder goes down. Every conditional is a Gaussian with
    diagonal covariance whose mean and variance a small network gives; p(x|z_1) = N(f(z_1), sigma_x^2 I). With T = 1 it is `VAE`.

    Args:
        length: M, the length of a row.
        latents: the lengths of the codes z_1, ..., z_T, from the level next to x to the top.
        hidden: the width of the one hidden layer of every network.
        noise: sigma_x, the standard deviation of p(x|z_1), in the units of x.

    Raises:
        ConfigError: there is no level, or a width or the noise is not positive.

    Source: Kingma and Welling, *An Introduction to Variational Autoencoders*, 2019; Luo, *Understanding Diffusion Models*, 2022.
    """

    def __init__(self, length: int, latents: Sequence[int], hidden: int = 128, noise: float = 0.1) -> None:
        super().__init__()
        if not latents:
            raise ConfigError("a hierarchical VAE needs one level at least", "latents", "Pass the length of each level's code.")
        _check_widths(length, hidden, *latents)
        self.latents, self.noise = tuple(latents), _checked_noise(noise)
        below = [length, *latents[:-1]]
        self.up = nn.ModuleList(multilayer([before, hidden, 2 * after]) for before, after in zip(below, latents))
        self.down = nn.ModuleList(multilayer([above, hidden, 2 * at]) for at, above in itertools.pairwise(latents))
        self.decoder = multilayer([latents[0], hidden, length])

    def posterior(self, level: int, below: Tensor) -> tuple[Tensor, Tensor]:
        """Return `mu` and `logvar` of q(z_t|z_{t-1}) for t = `level` from 1; `below` is z_{t-1}, or x for t = 1."""
        mu, logvar = self.up[level - 1](below).chunk(2, dim=1)
        return mu, logvar.clamp(*LOGVAR_RANGE)

    def prior(self, level: int, above: Tensor | None, count: int = 0) -> tuple[Tensor, Tensor]:
        """Return `mu` and `logvar` of p(z_t|z_{t+1}) for t = `level` from 1; at the top those of N(0, I), for `count` rows."""
        if level == len(self.latents):
            zeros = next(self.parameters()).new_zeros(count, self.latents[-1])
            return zeros, zeros
        mu, logvar = self.down[level - 1](above).chunk(2, dim=1)
        return mu, logvar.clamp(*LOGVAR_RANGE)

    def decode(self, z: Tensor) -> Tensor:
        """Return f(z_1), the mean of p(x|z_1): rows `(N, M)` of codes `(N, D_1)`."""
        return self.decoder(z)

    def infer(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
        """Draw z_1, ..., z_T from the encoder, from the bottom up.

        Returns:
            The codes, `(N, D_t)` for t = 1..T, and the `(mu, logvar)` of the q(z_t|z_{t-1}) that each was drawn from.
        """
        codes: list[Tensor] = []
        posteriors: list[tuple[Tensor, Tensor]] = []
        for level in range(1, len(self.latents) + 1):
            posteriors.append(self.posterior(level, codes[-1] if codes else x))
            codes.append(reparameterize(*posteriors[-1], generator))
        return codes, posteriors

    def elbo(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return the terms of the ELBO for each row, in nats, all at one draw of the codes: log p(x|z_1), `(N,)`, and one term a level.

        The levels are a list over t = 1..T, per dimension, `(N, D_t)`; the ELBO is the mean over draws of log p(x|z_1) minus
        their sums. Level T gives KL(q(z_T|z_{T-1}) || N(0, I)) in closed form. A level t < T gives
        log q(z_t|z_{t-1}) - log p(z_t|z_{t+1}) at the drawn z_t. That may be negative; and no closed-form KL may take its place:
        z_{t+1} was drawn from q(z_{t+1}|z_t), so given z_{t-1} and z_{t+1} the code z_t no longer follows q(z_t|z_{t-1}).
        """
        codes, posteriors = self.infer(x, generator)
        levels = [
            _log_ratio(z, *posterior, *self.prior(level, above))
            for level, (z, above, posterior) in enumerate(zip(codes, codes[1:], posteriors), start=1)
        ]
        levels.append(kl_between_normals(*posteriors[-1], *self.prior(len(self.latents), None, len(x))))
        return gaussian_log_likelihood(x, self.decode(codes[0]), self.noise), levels

    def log_weight(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return log p(x, z_1, ..., z_T) - log q(z_1, ..., z_T|x) at one draw of the codes, `(N,)`, in nats.

        Its mean over draws is the ELBO; the log of the mean of its exponential over S draws is the tighter
        importance-weighted bound (Burda, Grosse and Salakhutdinov, *Importance Weighted Autoencoders*, 2015).
        """
        codes, posteriors = self.infer(x, generator)
        weight = gaussian_log_likelihood(x, self.decode(codes[0]), self.noise)
        for level, (z, above, posterior) in enumerate(zip(codes, [*codes[1:], None], posteriors), start=1):
            weight = weight - _log_ratio(z, *posterior, *self.prior(level, above, len(x))).sum(1)
        return weight

    def sample(self, count: int, generator: torch.Generator, top: Tensor | None = None) -> Tensor:
        """Return `count` means f(z_1), drawn from the top down: rows `(count, M)`. `top` fixes z_T, `(count, D_T)`."""
        z = top if top is not None else torch.randn(count, self.latents[-1], generator=generator)
        for level in range(len(self.latents) - 1, 0, -1):
            z = reparameterize(*self.prior(level, z), generator)
        return self.decode(z)


def gaussian_log_likelihood(x: Tensor, mean: Tensor, noise: float) -> Tensor:
    """Return log N(x; mean, sigma_x^2 I) of each row, constant included, in nats: `(N,)` for rows `(N, M)`."""
    check_shape("mean", mean, tuple(x.shape))
    constant = 0.5 * x.shape[1] * math.log(2 * math.pi * noise**2)
    return -(x - mean).square().sum(1) / (2 * noise**2) - constant


def fit_rows(
    module: nn.Module,
    loss: Callable[[Tensor, int], Tensor],
    rows: Tensor,
    steps: int,
    batch: int = 128,
    rate: float = 2e-3,
    seed: int = 0,
    progress: bool = True,
) -> Tensor:
    """Train `module` by Adam on random batches of `rows`; the rate falls to zero along a half cosine.

    Args:
        loss: from a batch `(batch, M)` and the step, counted from 0, to the number to make small.
        rows: `(N, M)`, all in memory.

    Returns:
        The loss of every step, `(steps,)`.

    Raises:
        TrainingError: a loss is not finite.
    """
    check_shape("rows", rows, (None, None))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = torch.empty(steps)
    # Without `disable`, tqdm keeps to the environment: TQDM_DISABLE leaves no bar in a stored notebook.
    for step in tqdm(range(steps), desc="training") if progress else range(steps):
        value = loss(rows[torch.randint(len(rows), (batch,), generator=generator)], step)
        if not bool(value.isfinite()):
            found = f"the loss is {float(value.detach())}"
            raise TrainingError(found, f"step {step}", "Lower the learning rate, or look for a division by zero.")
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        schedule.step()
        losses[step] = value.detach()
    return losses


def _check_widths(*widths: int) -> None:
    if bad := [width for width in widths if isinstance(width, bool) or not isinstance(width, int) or width < 1]:
        raise ConfigError(f"{bad[0]!r} is no width of a layer", "autoencoder", "Use integers from 1 on.")


def _checked_noise(noise: float) -> float:
    if not 0 < noise < math.inf:
        raise ConfigError(f"the noise is {noise}", "autoencoder", "Use a positive standard deviation.")
    return float(noise)


def _log_ratio(z: Tensor, mu: Tensor, logvar: Tensor, prior_mu: Tensor, prior_logvar: Tensor) -> Tensor:
    """log N(z; mu, sigma^2) - log N(z; m, s^2) per dimension: what `kl_between_normals` is the mean of, for z ~ N(mu, sigma^2)."""
    distance = (z - prior_mu).square() * (-prior_logvar).exp() - (z - mu).square() * (-logvar).exp()
    return 0.5 * (prior_logvar - logvar + distance)


def _squared_distances(rows: Tensor, centers: Tensor) -> Tensor:
    squares = rows.square().sum(1, keepdim=True) - 2 * rows @ centers.T + centers.square().sum(1)
    return squares.clamp(min=0)
