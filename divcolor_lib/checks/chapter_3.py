"""The checks of the exercises of chapter 3: PCA, principal angles, errors from variances, and three kinds of autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..autoencoder import Autoencoder
from . import Trial, exercise


@exercise
def pca_by_eigenvalues(trial: Trial, answer: Any) -> None:
    """From rows (N, M) and D to the mean (M,), the components (D, M) and the variances (D,) of PCA."""
    rows = trial.numbers(60, 5).double() * torch.tensor([3.0, 2.0, 1.4, 0.8, 0.3]) @ _rotation(trial, 5) + 4.0
    result = trial.call(answer, rows, 3)
    if not isinstance(result, tuple) or len(result) != 3:
        trial.stop("return three tensors: mean, components, variances")
    mean, components, variances = result
    trial.shape("the mean", mean, (5,))
    if isinstance(components, Tensor) and components.shape == (5, 3):
        trial.stop("the components stand in columns; the book keeps them in rows, (D, M): transpose")
    trial.shape("components", components, (3, 5))
    trial.shape("variances", variances, (3,))
    trial.close(mean, rows.mean(0), right="the mean is right", wrong="the mean misses by {difference:.3g}")
    centered = rows - rows.mean(0)
    _, singular, directions = torch.linalg.svd(centered, full_matrices=False)
    wanted = singular.square() / (len(rows) - 1)
    told = "the variances miss by {difference:.3g}"
    for mistake, name in (
        (torch.linalg.svdvals(rows)[:3].square() / (len(rows) - 1), "it looks as if the mean were not subtracted first"),
        (wanted.flip(0)[:3], "these are the smallest variances: `eigh` sorts upward, and you need the last ones"),
        (wanted[:3].flip(0), "the right variances in the wrong order: the largest comes first"),
        (wanted[-3:], "these are the smallest variances: `eigh` sorts upward, and you need the last ones"),
        (wanted[:3].sqrt(), "these are standard deviations; a variance is the eigenvalue itself"),
        (singular.square()[:3], "it looks as if the covariance were not divided by N - 1"),
        (singular.square()[:3] / len(rows), "you divide by N; the library divides by N - 1"),
    ):
        told = name if _near(variances, mistake) else told
    trial.close(variances, wanted[:3], right="the variances are the three largest, in order", wrong=told)
    gram = components.double() @ components.double().T
    trial.close(gram, torch.eye(3), right="the components have length 1 and right angles", wrong="the components are not orthonormal")
    cosines = (components.double() * directions[:3]).sum(1).abs()
    wrong = "component by component, they are not the directions of largest variance: check which eigenvector belongs to which eigenvalue"
    trial.close(cosines, torch.ones(3), right="each component is the right direction, up to its sign", wrong=wrong)


@exercise
def principal_angles(trial: Trial, answer: Any) -> None:
    """From two bases (M, D) to the principal angles (D,) between their spans, in radians, smallest first."""
    basis = _rotation(trial, 7)
    theta = torch.tensor([0.2, 0.7, 1.3], dtype=torch.float64)
    first = basis[:, :3]
    second = first * theta.cos() + basis[:, 3:6] * theta.sin()
    mix, other = (trial.numbers(3, 3).double() + 3 * torch.eye(3) for _ in range(2))
    found = trial.call(answer, first @ mix, second @ other)
    trial.shape("the result", found, (3,))
    told = "the angles miss by {difference:.3g} radians"
    raw = torch.linalg.svdvals((first @ mix).T @ (second @ other))
    columns = torch.linalg.svdvals(_unit(first @ mix).T @ _unit(second @ other))
    for mistake, name in (
        (theta.cos(), "these are the cosines of the angles; one step is missing"),
        (theta.rad2deg(), "these are degrees; the angles are asked in radians"),
        (theta.flip(0), "the right angles in the wrong order: the smallest comes first"),
        (raw.clamp(max=1).acos(), "it looks as if the columns were used as they are; they need an orthonormal basis first"),
        (columns.clamp(max=1).acos(), "length 1 is not enough: the columns must also be at right angles to each other"),
    ):
        told = name if _near(found, mistake) else told
    trial.close(found, theta, right="known angles come out, whatever basis describes the subspaces", wrong=told, tolerance=1e-6)
    for _ in range(50):  # rounding makes some cosine slightly larger than 1, sooner or later
        same = trial.numbers(7, 3).double()
        mixed = same @ (trial.numbers(3, 3).double() + 3 * torch.eye(3))
        angles = trial.call(answer, same, mixed)
        if not bool(torch.isfinite(torch.as_tensor(angles)).all()):
            trial.stop("for twice the same subspace the result holds NaN: rounding made a cosine slightly larger than 1")
    trial.close(
        angles, torch.zeros(3), right="a subspace has the angles 0 with itself", wrong="a subspace with itself gives {found:.3g}, not 0"
    )


@exercise
def rms_errors(trial: Trial, answer: Any) -> None:
    """From all M variances to the RMS error per number of PCA with 0, 1, ..., M components, (M + 1,)."""
    rows = trial.numbers(80, 6).double() * torch.tensor([2.0, 1.5, 1.0, 0.7, 0.4, 0.2]) @ _rotation(trial, 6)
    rows = rows - rows.mean(0)
    _, singular, directions = torch.linalg.svd(rows, full_matrices=False)
    variances = singular.square() / len(rows)
    found = trial.call(answer, variances)
    if isinstance(found, Tensor) and found.shape == (6,):
        trial.stop("the result has 6 entries; with D = 0, 1, ..., 6 numbers kept there are 7 errors")
    rounded = "an error is NaN: rounding made a remainder slightly negative before the root"
    if isinstance(found, Tensor) and bool(found.isnan().any()):
        trial.stop(rounded)
    trial.shape("the result", found, (7,))
    left = [rows - rows @ directions[:size].T @ directions[:size] for size in range(7)]
    wanted = torch.stack([rest.square().mean().sqrt() for rest in left])
    told = "after projecting real rows the errors differ by {difference:.3g}"
    for mistake, name in (
        (wanted.square(), "these are mean squares; the RMS error is the root of that"),
        (wanted * 6**0.5, "this is the length of the error of a whole row; divide by the M numbers of a row before the root"),
        (wanted.square() * 6, "these are squared lengths of whole rows: divide by M, then take the root"),
        (wanted.flip(0), "the errors rise: with no number kept, all variance is lost"),
        ((variances.sum() / 6 - wanted.square()).clamp(min=0).sqrt(), "this is what the code keeps; asked is what it loses"),
    ):
        told = name if _near(found, mistake) else told
    trial.close(found, wanted, right="the errors agree with real rows that were projected", wrong=told)
    for _ in range(50):
        uneven = trial.uniform(30).sort(descending=True).values
        if not bool(torch.isfinite(torch.as_tensor(trial.call(answer, uneven))).all()):
            trial.stop(rounded)
    trial.that(True, "rounding turns no error into NaN", "")


@exercise
def denoising_loss(trial: Trial, answer: Any) -> None:
    """From an autoencoder, rows x and noise, both (N, M), to the loss of a denoising autoencoder."""
    model = _bent(trial, 6, 3)
    x, noise = trial.numbers(5, 6), 0.7 * trial.numbers(5, 6)
    found = trial.call(answer, model, x, noise)
    trial.shape("the loss", found, ())
    with torch.no_grad():
        noisy, clean = model(x + noise), model(x)
    each = (noisy - x).square().sum(1)
    told = "against an independent computation the loss misses by {difference:.3g}"
    for mistake, name in (
        ((noisy - x - noise).square().sum(1).mean(), "the target is noisy too: the network is asked to give the noise back"),
        ((clean - x).square().sum(1).mean(), "the noise never enters the network: this is the loss of the plain autoencoder"),
        ((clean - x - noise).square().sum(1).mean(), "the noise is in the target and not in the input: exchange the two"),
        ((noisy - x).square().mean(), "it is a mean over all numbers; take the sum over a row, then the mean over rows"),
        (each.sum(), "it is a sum over the rows of the batch; take their mean"),
    ):
        told = name if _near(found, mistake) else told
    trial.close(found, each.mean(), right="noise in, clean out", wrong=told)
    trainable = isinstance(found, Tensor) and found.requires_grad
    trial.that(
        trainable, "gradients reach the network", "no gradient reaches the network: was the result detached or turned into a number?"
    )
    quiet = trial.call(answer, model, x, torch.zeros_like(noise))
    wrong = "without noise it should be the plain loss; it differs by {difference:.3g}"
    trial.close(quiet, (clean - x).square().sum(1).mean(), right="without noise it is the plain autoencoder's loss", wrong=wrong)


@exercise
def contractive_penalty(trial: Trial, answer: Any) -> None:
    """From an encoder and rows (N, M) to the sum of its squared slopes, as a mean over the rows."""
    x = trial.numbers(5, 4)
    matrix = trial.numbers(3, 4).requires_grad_()

    def linear(rows: Tensor) -> Tensor:
        return rows @ matrix.T

    def bent(rows: Tensor) -> Tensor:
        return torch.tanh(rows @ matrix.T)

    found = trial.call(answer, linear, x)
    trial.shape("the penalty", found, ())
    squares = matrix.detach().square().sum()
    told = "for a linear encoder the penalty misses by {difference:.3g}"
    for mistake, name in (
        (
            matrix.detach().sum(0).square().sum(),
            "the codes were added up before the derivative, so their slopes cancel; treat each code by itself",
        ),
        (squares.sqrt(), "this is the norm; the penalty is its square"),
        (squares * len(x), "it is a sum over the batch; take the mean"),
        (squares / 3, "it is a mean over the numbers of the code; take their sum"),
        (squares / 12, "it is a mean over the entries of the Jacobian; take their sum"),
        (matrix.detach().abs().sum(), "it looks as if you took absolute values; the penalty adds squares"),
    ):
        told = name if _near(found, mistake) else told
    right = "for a linear encoder it is the sum of the squared weights, wherever x is"
    trial.close(found, squares, right=right, wrong=told)
    found = trial.call(answer, bent, x)
    slopes = 1 - bent(x).square()  # (N, D): the derivative of tanh
    wanted = (slopes.square() * matrix.square().sum(1)).sum(1).mean()
    trial.close(
        found, wanted, right="for a bent encoder it follows the slope at each x", wrong="for tanh the penalty misses by {difference:.3g}"
    )
    if not (isinstance(found, Tensor) and found.requires_grad):
        trial.stop("no gradient reaches the encoder's weights, so training cannot lower the penalty: keep the graph (`create_graph=True`)")
    (slope,) = torch.autograd.grad(found, matrix)
    (wanted_slope,) = torch.autograd.grad(wanted, matrix)
    trial.close(slope, wanted_slope, right="its gradient reaches the encoder's weights", wrong="its gradient misses by {difference:.3g}")


@exercise
def sparse_loss(trial: Trial, answer: Any) -> None:
    """From an autoencoder, rows (N, M) and a weight to squared error plus weight times sum of |z_d|, as a mean over the rows."""
    model = _bent(trial, 4, 6)
    x, weight = trial.numbers(5, 4), 0.3
    found = trial.call(answer, model, x, weight)
    trial.shape("the loss", found, ())
    with torch.no_grad():
        z = model.encode(x)
        error = (x - model.decode(z)).square().sum(1).mean()
    told = "against an independent computation the loss misses by {difference:.3g}"
    for mistake, name in (
        (
            error + weight * z.square().sum(1).mean(),
            "it looks as if the codes were squared; squares shrink codes but set none of them to zero",
        ),
        (error + weight * z.sum(1).mean(), "the absolute value is missing: a very negative code would be rewarded"),
        (error + weight * z.abs().mean(), "the penalty is a mean over the code's numbers; take their sum for each row"),
        (error + weight * z.abs().sum(), "the penalty is a sum over the batch while the error is a mean; take the mean of both"),
        (error, "the penalty is missing"),
        (weight * error + z.abs().sum(1).mean(), "the weight belongs to the penalty, not to the error"),
        (error + weight * (x - model.decode(z)).detach().abs().sum(1).mean(), "the penalty is on the error; it belongs on the codes"),
    ):
        told = name if _near(found, mistake) else told
    trial.close(found, error + weight * z.abs().sum(1).mean(), right="squared error plus weighted sizes of the codes", wrong=told)
    plain = trial.call(answer, model, x, 0.0)
    trial.close(
        plain, error, right="with weight 0 it is the plain loss", wrong="with weight 0 it differs from the plain loss by {difference:.3g}"
    )
    trainable = isinstance(found, Tensor) and found.requires_grad
    trial.that(
        trainable, "gradients reach the network", "no gradient reaches the network: was the result detached or turned into a number?"
    )


def _near(found: Any, mistake: Tensor, tolerance: float = 1e-4) -> bool:
    found = torch.as_tensor(found).detach().double()
    mistake = mistake.detach().double()
    return found.shape == mistake.shape and bool(((found - mistake).abs() <= tolerance * (1 + mistake.abs())).all())


def _rotation(trial: Trial, size: int) -> Tensor:
    rotation: Tensor = torch.linalg.qr(trial.numbers(size, size).double()).Q
    return rotation


def _unit(columns: Tensor) -> Tensor:
    return columns / columns.norm(dim=0)


def _bent(trial: Trial, length: int, latent: int, hidden: Sequence[int] = (5,)) -> Autoencoder:
    """Return a small autoencoder with random weights that come from the trial, not from the global state."""
    with torch.random.fork_rng(devices=[]):
        model = Autoencoder(length, latent, hidden)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
        parameter.data += 0.7 * trial.numbers(*parameter.shape)
    return model
