"""Typical wrong answers to the exercises of chapter 3, each with the words that name its mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from divcolor_lib.autoencoder import Autoencoder

Encode = Callable[[Tensor], Tensor]


def _pca(rows: Tensor, D: int, center: bool = True, divide: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    mean = rows.mean(0)
    centered = rows - mean if center else rows
    values, vectors = torch.linalg.eigh(centered.T @ centered / (len(rows) - divide))
    return mean, vectors.T.flip(0)[:D], values.flip(0)[:D]


def _ascending(rows: Tensor, D: int) -> Any:
    mean = rows.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(rows.T))
    return mean, vectors.T[:D], values[:D]


def _rows_of_vectors(rows: Tensor, D: int) -> Any:
    mean = rows.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(rows.T))
    return mean, vectors.flip(0)[:D], values.flip(0)[:D]


def _columns(rows: Tensor, D: int) -> Any:
    mean, components, variances = _pca(rows, D)
    return mean, components.T, variances


def _deviations(rows: Tensor, D: int) -> Any:
    mean, components, variances = _pca(rows, D)
    return mean, components, variances.sqrt()


def _cosines(A: Tensor, B: Tensor) -> Tensor:
    return torch.linalg.svdvals(torch.linalg.qr(A).Q.T @ torch.linalg.qr(B).Q)


def _normed(A: Tensor, B: Tensor) -> Tensor:
    return torch.linalg.svdvals((A / A.norm(dim=0)).T @ (B / B.norm(dim=0))).clamp(max=1).acos()


def _lost(variances: Tensor) -> Tensor:
    return torch.cat([variances.flip(0).cumsum(0).flip(0), variances.new_zeros(1)])


def _kept(variances: Tensor) -> Tensor:
    return torch.cat([variances.new_zeros(1), variances.cumsum(0)])


def _subtracted(variances: Tensor) -> Tensor:
    return ((variances.sum() - _kept(variances)) / len(variances)).sqrt()


def _jacobian(encode: Encode, x: Tensor) -> Tensor:
    """(N, D, M)"""
    x = x.detach().requires_grad_()
    z = encode(x)
    return torch.stack([torch.autograd.grad(z[:, d].sum(), x, create_graph=True)[0] for d in range(z.shape[1])], 1)


def _added_first(encode: Encode, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(encode(x).sum(), x, create_graph=True)[0].square().sum(1).mean()


def _sparse(model: Autoencoder, x: Tensor, penalty: Callable[[Tensor], Tensor]) -> Tensor:
    z = model.encode(x)
    return (x - model.decode(z)).square().sum(1).mean() + penalty(z)


WRONG: dict[str, list[tuple[str, Any, str]]] = {
    "pca_by_eigenvalues": [
        ("no mean", lambda rows, D: _pca(rows, D, center=False), "mean were not subtracted"),
        ("smallest first", _ascending, "sorts upward"),
        ("rows of the matrix of vectors", _rows_of_vectors, "which eigenvector belongs|not the directions"),
        ("columns", _columns, "transpose"),
        ("standard deviations", _deviations, "standard deviations"),
        ("by N", lambda rows, D: _pca(rows, D, divide=0), "divide by N;"),
        ("no tuple", lambda rows, D: _pca(rows, D)[1], "three tensors"),
    ],
    "principal_angles": [
        ("cosines", _cosines, "one step is missing"),
        ("degrees", lambda A, B: _cosines(A, B).clamp(max=1).acos().rad2deg(), "degrees"),
        ("columns as they are", lambda A, B: torch.linalg.svdvals(A.T @ B).clamp(max=1).acos(), "as they are"),
        ("only length one", _normed, "length 1 is not enough"),
        ("largest first", lambda A, B: _cosines(A, B).clamp(max=1).acos().flip(0), "smallest comes first"),
        ("no clamp", lambda A, B: _cosines(A, B).acos(), "slightly larger than 1"),
    ],
    "rms_errors": [
        ("no root", lambda v: _lost(v) / len(v), "mean squares"),
        ("per row", lambda v: _lost(v).sqrt(), "whole row"),
        ("neither", _lost, "then take the root"),
        ("kept", lambda v: (_kept(v) / len(v)).sqrt(), "errors rise|keeps"),
        ("without zero", lambda v: (_lost(v)[1:] / len(v)).sqrt(), "7 errors"),
        ("negative remainder", _subtracted, "slightly negative"),
    ],
    "denoising_loss": [
        ("noisy target", lambda model, x, n: (model(x + n) - (x + n)).square().sum(1).mean(), "target is noisy"),
        ("no noise", lambda model, x, n: (model(x) - x).square().sum(1).mean(), "never enters"),
        ("exchanged", lambda model, x, n: (model(x) - (x + n)).square().sum(1).mean(), "exchange"),
        ("mean of all", lambda model, x, n: (model(x + n) - x).square().mean(), "mean over all"),
        ("detached", lambda model, x, n: (model(x + n) - x).square().sum(1).mean().detach(), "no gradient"),
    ],
    "contractive_penalty": [
        ("added first", _added_first, "slopes cancel"),
        ("norm", lambda encode, x: _jacobian(encode, x).square().sum((1, 2)).sqrt().mean(), "its square"),
        ("sum over the batch", lambda encode, x: _jacobian(encode, x).square().sum(), "take the mean"),
        ("mean of entries", lambda encode, x: _jacobian(encode, x).square().mean(), "entries of the Jacobian"),
        ("detached", lambda encode, x: _jacobian(encode, x).square().sum((1, 2)).mean().detach(), "create_graph"),
        (
            "one matrix for all",
            lambda encode, x: _jacobian(encode, x)[:1].square().sum((1, 2)).mean(),
            "for tanh",
        ),
    ],
    "sparse_loss": [
        ("squares", lambda model, x, w: _sparse(model, x, lambda z: w * z.square().sum(1).mean()), "codes were squared"),
        ("no absolute value", lambda model, x, w: _sparse(model, x, lambda z: w * z.sum(1).mean()), "very negative"),
        ("mean over the code", lambda model, x, w: _sparse(model, x, lambda z: w * z.abs().mean()), "sum for each row"),
        ("sum over the batch", lambda model, x, w: _sparse(model, x, lambda z: w * z.abs().sum()), "mean of both"),
        ("forgotten", lambda model, x, w: _sparse(model, x, lambda z: 0 * z.sum()), "penalty is missing"),
    ],
}
