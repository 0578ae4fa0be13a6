"""Every loss of the book, each a pure function on tensors.

Convention: a loss is the mean over the batch of a per-image sum (or norm); each docstring says which, with the formula.
All of them run in float32, also under autocast. `C` is a true color field and `f` a predicted one, both `(B, 2, H, W)`
in units of ab/128; z is a code, `(B, D)`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import MixtureSameFamily

from .errors import ConfigError, ShapeError, check_shape

REFERENCE_KL_WEIGHT = 1e-2
REFERENCE_MIXTURE_SIGMA = 0.1


def squared_error(prediction: Tensor, truth: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the batch of sum_p w_p (C_p - f_p)^2, the sum running over pixels and both channels.

    Args:
        weights: `(B, 1, H, W)`, the rarity weight of each pixel's color; none means 1 everywhere.
    """
    return _sums(_difference(prediction, truth).square(), weights).mean()


def gaussian_reconstruction(prediction: Tensor, truth: Tensor, noise_variance: float, weights: Tensor | None = None) -> Tensor:
    """-log N(C; f, sigma^2 I) without its constant: mean over the batch of sum_p w_p (C_p - f_p)^2 / (2 sigma^2).

    Args:
        noise_variance: sigma^2 in units of (ab/128)^2. It is also the water level of the code: a direction of color
            fields with less variance than this is cheaper to leave out than to code.

    Raises:
        ConfigError: the variance is not positive.
    """
    if not noise_variance > 0:
        raise ConfigError(f"the noise variance is {noise_variance}", "gaussian_reconstruction", "Use a positive number.")
    return squared_error(prediction, truth, weights) / (2 * noise_variance)


def weighted_norm(prediction: Tensor, truth: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the batch of sqrt(sum_p w_p (C_p - f_p)^2): the reference's reconstruction loss.

    The square root makes it a norm and no Gaussian likelihood. Its gradient at an exact zero is taken as zero here;
    the published code gives NaN there.
    """
    sums = _sums(_difference(prediction, truth).square(), weights)
    positive = sums > 0
    return torch.where(positive, torch.where(positive, sums, torch.ones_like(sums)).sqrt(), torch.zeros_like(sums)).mean()


def mahalanobis(prediction: Tensor, truth: Tensor, components: Tensor, variances: Tensor) -> Tensor:
    """Mean over the batch of sum_k (P_k . (C - f))^2 / sigma_k^2 + |residual|^2 / sigma_P^2.

    The residual is what the P principal components leave of C - f; it is scaled by the smallest variance, sigma_P^2.

    Args:
        components: `(P, 2HW)` orthonormal rows, in the order of `ab.flatten(1)`.
        variances: `(P,)`, descending, positive.

    Raises:
        ShapeError: the shapes do not fit together, or a variance is not positive.

    Source: Deshpande et al. 2017, the term L_mah; the released code uses 20 components.
    """
    difference = _difference(prediction, truth).flatten(1)
    check_shape("components", components, (None, difference.shape[1]))
    check_shape("variances", variances, (components.shape[0],))
    if not bool((variances > 0).all()):
        raise ShapeError("a principal component has no variance", "variances", "Fit fewer components, or more color fields.")
    with torch.autocast(difference.device.type, enabled=False):
        scores = difference @ components.float().T
    residual = difference.square().sum(1) - scores.square().sum(1)
    return ((scores.square() / variances).sum(1) + residual.clamp(min=0) / variances[-1]).mean()


def gradient_error(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean over the batch of |grad_h C - grad_h f|^2 + |grad_v C - grad_v f|^2, gradients as forward differences.

    Source: Deshpande et al. 2017, the term L_grad.
    """
    difference = _difference(prediction, truth)
    horizontal = difference[..., :, 1:] - difference[..., :, :-1]
    vertical = difference[..., 1:, :] - difference[..., :-1, :]
    return (horizontal.square().flatten(1).sum(1) + vertical.square().flatten(1).sum(1)).mean()


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """Mean over the batch of KL(N(mu, diag sigma^2) || N(0, I)) = 1/2 sum_d (mu_d^2 + sigma_d^2 - log sigma_d^2 - 1), in nats."""
    return kl_per_dimension(mu, logvar).sum(1).mean()


def kl_per_dimension(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL of each image and dimension, `(B, D)`: where it stays near zero over a data set, the dimension is not in use."""
    check_shape("mu", mu, (None, None))
    check_shape("logvar", logvar, tuple(mu.shape))
    mu, logvar = mu.float(), logvar.float()
    return 0.5 * (mu.square() + logvar.expm1() - logvar)  # expm1: next to the prior, exp(x) - 1 rounds below x


def kl_between_normals(mu: Tensor, logvar: Tensor, prior_mu: Tensor, prior_logvar: Tensor) -> Tensor:
    """KL(N(mu, diag sigma^2) || N(m, diag s^2)) of each row and dimension, in nats.

    It is 1/2 (log s^2 - log sigma^2 + (sigma^2 + (mu - m)^2) / s^2 - 1) for each of the D dimensions.

    Args:
        mu, logvar: `(B, D)`, mean and log sigma^2 of the first Gaussian.
        prior_mu, prior_logvar: `(B, D)`, m and log s^2 of the second.
    """
    for name, tensor in (("logvar", logvar), ("prior_mu", prior_mu), ("prior_logvar", prior_logvar)):
        check_shape(name, tensor, tuple(mu.shape))
    ratio = logvar.float() - prior_logvar.float()
    distance = (mu.float() - prior_mu.float()).square() * (-prior_logvar.float()).exp()
    return 0.5 * (ratio.expm1() - ratio + distance)


def mixture_nll(mixture: MixtureSameFamily, z: Tensor) -> Tensor:
    """Mean over the batch of -log sum_k pi_k N(z; mu_k, diag s_k^2), exact, by logsumexp."""
    return -mixture.log_prob(z.float()).mean()


def nearest_component_bound(mixture: MixtureSameFamily, z: Tensor) -> Tensor:
    """Mean over the batch of -log pi_m - log N(z; mu_m, diag s_m^2), m being the component whose mean is nearest to z.

    A sum is at least each of its terms, so this is an upper bound of `mixture_nll` for every choice of m.

    Source: Deshpande et al. 2017, section 4.
    """
    z = z.float()
    nearest = (z[:, None] - mixture.component_distribution.mean).square().sum(2).argmin(1)
    log_joint = mixture.mixture_distribution.logits.log_softmax(1) + mixture.component_distribution.log_prob(z[:, None])
    return -log_joint.gather(1, nearest[:, None]).mean()


def representative_loss(logits: Tensor, codes: Tensor, mu: Tensor, precision: Tensor) -> Tensor:
    """Mean over the batch of 1/2 min_k sum_d precision_d (mu_d - r_kd)^2 - log pi_m, m being the nearest representative.

    It asks that one of the K representatives r_k lie close to the code, and that its weight say how often it does.
    Distances are in units of the posterior's own precision, so that dimensions that carry little count little.

    Args:
        logits: `(B, K)`, unnormalized log weights.
        codes: `(B, K, D)`, the representatives.
        mu: `(B, D)`, means of the posterior.
        precision: `(B, D)` or `(D,)`, one over its variance.
    """
    check_shape("codes", codes, (mu.shape[0], logits.shape[1], mu.shape[1]))
    mu, codes, precision = mu.float(), codes.float(), precision.float()
    distances = 0.5 * ((mu[:, None] - codes).square() * precision.expand_as(mu)[:, None]).sum(2)
    nearest, m = distances.min(1)
    return (nearest + F.cross_entropy(logits.float(), m, reduction="none")).mean()


def classification_error(logits: Tensor, index: Tensor, shares: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the pixels of -w_p sum_j share_j log p_j: cross-entropy against soft targets, rare colors weighted.

    Args:
        logits: `(B, Q, H, W)`, one class for each color bin.
        index, shares: `(B, J, H, W)`, the target as `bins.soft_encode` gives it, nearest bin first.
        weights: `(Q,)`; a pixel counts by the weight of its nearest bin, as in Zhang et al.

    Source: Zhang, Isola and Efros, *Colorful Image Colorization*, 2016, equations 2 and 3.
    """
    check_shape("index", index, (logits.shape[0], None, *logits.shape[2:]))
    check_shape("shares", shares, tuple(index.shape))
    error = -(shares * logits.float().log_softmax(1).gather(1, index)).sum(1)
    return (error if weights is None else error * weights[index[:, 0]]).mean()


def reference_cvae_loss(prediction: Tensor, truth: Tensor, mu: Tensor, logvar: Tensor, weights: Tensor) -> Tensor:
    """The published objective, defects and all, for comparison: weighted norm (a mean over the batch) + 0.01 KL (a *sum* over it).

    The sum makes the weight of one image's KL 0.01 B, so it changes with the batch size B.
    """
    return weighted_norm(prediction, truth, weights) + REFERENCE_KL_WEIGHT * kl_per_dimension(mu, logvar).sum()


def reference_mixture_loss(mixture: MixtureSameFamily, z: Tensor) -> Tensor:
    """The published objective of the MDN, defects and all: mean over the batch of sqrt(50 |z - mu_m|^2) - log(pi_m + 1e-30).

    50 is 1 / (2 * 0.1^2), which belongs to the squared distance; the square root makes it no Gaussian likelihood.
    """
    z = z.float()
    squared = (z[:, None] - mixture.component_distribution.mean).square().sum(2)
    nearest, m = squared.min(1)
    probability = mixture.mixture_distribution.probs.gather(1, m[:, None])[:, 0]
    scaled = nearest / (2 * REFERENCE_MIXTURE_SIGMA**2)
    return (scaled.clamp(min=torch.finfo(torch.float32).tiny).sqrt() - (probability + 1e-30).log()).mean()


def _difference(prediction: Tensor, truth: Tensor) -> Tensor:
    check_shape("truth", truth, (None, None, None, None))
    check_shape("prediction", prediction, tuple(truth.shape))
    return prediction.float() - truth.float()


def _sums(squares: Tensor, weights: Tensor | None) -> Tensor:
    if weights is not None:
        check_shape("weights", weights, (squares.shape[0], 1, *squares.shape[2:]))
        squares = squares * weights
    return squares.flatten(1).sum(1)
