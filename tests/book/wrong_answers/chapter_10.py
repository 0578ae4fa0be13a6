"""Typical wrong answers to the exercises of chapter 10: (what, answer, what the message must say)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

C = 0.5 * math.log(2 * math.pi)


def normal(means: Tensor, scale: Tensor, z: Tensor) -> Tensor:
    """Log-density of each number, `(B, K, D)`."""
    return -0.5 * ((z[:, None] - means) / scale) ** 2 - scale.log() - C


def joint(logits: Tensor, means: Tensor, scale: Tensor, z: Tensor) -> Tensor:
    return logits.log_softmax(1) + normal(means, scale, z).sum(2)


def parts(logits: Tensor, means: Tensor, scale: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distances, responsibilities with an axis more, and the gradient with respect to the scale without them."""
    away = z[:, None] - means
    return away, joint(logits, means, scale, z).softmax(1)[..., None], 1 / scale - away**2 / scale**3


def gradients(logits: Tensor, means: Tensor, scale: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    away, r, widen = parts(logits, means, scale, z)
    return logits.softmax(1) - r[..., 0], -r * away / scale**2, r * widen


def with_logits(make: Any) -> Any:
    return lambda w, m, s, z: (make(w, m, s, z), *gradients(w, m, s, z)[1:])


def with_means(make: Any) -> Any:
    return lambda w, m, s, z: (gradients(w, m, s, z)[0], make(w, m, s, z), gradients(w, m, s, z)[2])


def with_scale(make: Any) -> Any:
    return lambda w, m, s, z: (*gradients(w, m, s, z)[:2], make(w, m, s, z))


def bound_of(choose: Any) -> Any:
    """An answer that chooses its component by `choose` and gives the right gap for it."""

    def answer(w: Tensor, m: Tensor, s: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        k = choose(w, m, s, z)
        return k, -joint(w, m, s, z).log_softmax(1).gather(1, k[:, None])[:, 0]

    return answer


def gap_by(change: Any) -> Any:
    """An answer with the right component whose gap is `change(log joint, log responsibility)` of it."""

    def answer(w: Tensor, m: Tensor, s: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        a = joint(w, m, s, z)
        best, k = a.max(1)
        return k, change(best, a.log_softmax(1).max(1).values)

    return answer


def nearest(m: Tensor, z: Tensor) -> Tensor:
    return (z[:, None] - m).square().sum(2).argmin(1)


def cut(out: Tensor, K: int, D: int) -> tuple[Tensor, Tensor, Tensor]:
    logits, means, raw = out.split([K, K * D, K * D], dim=1)
    return logits, means.unflatten(1, (K, D)), raw.unflatten(1, (K, D))


def head(weigh: Any = lambda w: w.softmax(1), put: Any = lambda m: m, widen: Any = lambda r: 0.05 + F.softplus(r)) -> Any:
    def answer(out: Tensor, K: int, D: int) -> tuple[Tensor, Tensor, Tensor]:
        logits, means, raw = cut(out, K, D)
        return weigh(logits), put(means), widen(raw)

    return answer


def mixed(means: Tensor) -> Tensor:
    return means.reshape(len(means), means.shape[2], means.shape[1]).transpose(1, 2)


def step(measure: Any = lambda p: p, weight: Any = lambda p: p, share: Any = None, empty: str = "stay") -> Any:
    """One step with another distance (`measure`), other weights of the mean (`weight`), or other weights."""

    def answer(r: Tensor, mu: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        own = F.one_hot((measure(p)[:, None] * (mu[:, None] - r) ** 2).sum(2).argmin(1), len(r)).float()
        w = weight(p)
        total = own.T @ w
        center = own.T @ (w * mu) / (total if empty == "nan" else total.clamp(min=1e-12))
        return center.where(total > 0, r) if empty == "stay" else center, own.mean(0) if share is None else share(own, p)

    return answer


WRONG: dict[str, list[tuple[str, Any, str]]] = {
    "mixture_log_prob": [
        ("log-inside", lambda w, m, s, z: (w.softmax(1) * normal(m, s, z).sum(2)).sum(1), "mixture of logarithms"),
        ("naive", lambda w, m, s, z: joint(w, m, s, z).exp().sum(1).log(), "underflows"),
        ("raw-logits", lambda w, m, s, z: (w + normal(m, s, z).sum(2)).logsumexp(1), "taken for log weights"),
        ("no-weights", lambda w, m, s, z: normal(m, s, z).sum(2).logsumexp(1), "weights were left out"),
        (
            "no-log-scale",
            lambda w, m, s, z: (w.log_softmax(1) + (normal(m, s, z) + s.log()).sum(2)).logsumexp(1),
            "logarithm of the scale were missing",
        ),
        ("no-constant", lambda w, m, s, z: (w.log_softmax(1) + (normal(m, s, z) + C).sum(2)).logsumexp(1), "2 pi"),
        ("mean-of-numbers", lambda w, m, s, z: (w.log_softmax(1) + normal(m, s, z).mean(2)).logsumexp(1), "averaged"),
        (
            "not-squared",
            lambda w, m, s, z: (w.log_softmax(1) - (0.5 * (z[:, None] - m) ** 2 / s + s.log() + C).sum(2)).logsumexp(1),
            "where its square belongs",
        ),
        ("largest", lambda w, m, s, z: joint(w, m, s, z).max(1).values, "largest term"),
        ("sign", lambda w, m, s, z: -joint(w, m, s, z).logsumexp(1), "negative log-likelihood"),
        ("batch-mean", lambda w, m, s, z: joint(w, m, s, z).logsumexp(1).mean(), "has shape"),
    ],
    "nll_gradients": [
        ("no-weight", with_logits(lambda *e: -parts(*e)[1][..., 0]), "the weight itself is missing"),
        ("only-weights", with_logits(lambda w, m, s, z: w.softmax(1)), "the weights' own sum"),
        ("alone", with_means(lambda w, m, s, z: -(z[:, None] - m) / s**2), "as if it were alone"),
        ("weights-for-gamma", with_means(lambda w, m, s, z: -w.softmax(1)[..., None] * (z[:, None] - m) / s**2), "do not know the point"),
        ("not-squared", with_means(lambda w, m, s, z: -parts(w, m, s, z)[1] * (z[:, None] - m) / s), "by the scale, not by its square"),
        ("not-divided", with_means(lambda w, m, s, z: -parts(w, m, s, z)[1] * (z[:, None] - m)), "not divided by the square"),
        ("scale-alone", with_scale(lambda *e: parts(*e)[2]), "missing from the gradient of the scale"),
        ("no-height", with_scale(lambda w, m, s, z: -parts(w, m, s, z)[1] * (z[:, None] - m) ** 2 / s**3), "1/s is missing"),
        ("log-scale", with_scale(lambda w, m, s, z: gradients(w, m, s, z)[2] * s), "logarithm of the scale"),
        ("sign", lambda *e: tuple(-part for part in gradients(*e)), "sign of the gradient with respect to means"),
        ("mean", lambda *e: tuple(part / len(e[3]) for part in gradients(*e)), "batch mean's"),
        ("two", lambda *e: gradients(*e)[:2], "three tensors"),
    ],
    "tightest_bound": [
        ("nearest", bound_of(lambda w, m, s, z: nearest(m, z)), "whose mean is nearest"),
        ("density", bound_of(lambda w, m, s, z: normal(m, s, z).sum(2).argmax(1)), "its weight counts too"),
        ("weight", bound_of(lambda w, m, s, z: w.argmax(1)), "does not know the point"),
        ("loosest", bound_of(lambda *e: joint(*e).argmin(1)), "loosest"),
        ("sign", gap_by(lambda a, log_gamma: log_gamma), "wrong sign"),
        ("bound", gap_by(lambda a, log_gamma: -a), "take the NLL off"),
        ("responsibility", gap_by(lambda a, log_gamma: log_gamma.exp()), "this is the responsibility"),
        ("linear", gap_by(lambda a, log_gamma: 1 - log_gamma.exp()), "close for small gaps"),
        ("one-tensor", lambda *e: joint(*e).argmax(1), "two tensors"),
    ],
    "excess_nll": [
        ("not-squared", lambda m, v, c, s: 0.5 * ((v + (m - c) ** 2) / s - 1 - (v / s).log()), "s stood where its square"),
        ("v-is-sd", lambda m, v, c, s: 0.5 * ((v**2 + (m - c) ** 2) / s**2 - 1 - (v**2 / s**2).log()), "it is a variance"),
        ("whole", lambda m, v, c, s: (v + (m - c) ** 2) / (2 * s**2) + s.log() + C, "the whole NLL"),
        ("no-distance", lambda m, v, c, s: 0.5 * (v / s**2 - 1 - (v / s**2).log()), "distance of the means is missing"),
        ("no-logs", lambda m, v, c, s: 0.5 * ((v + (m - c) ** 2) / s**2 - 1), "logarithms are missing"),
        ("other-way", lambda m, v, c, s: 0.5 * ((s**2 + (m - c) ** 2) / v - 1 - (s**2 / v).log()), "other way round"),
        ("no-half", lambda m, v, c, s: (v + (m - c) ** 2) / s**2 - 1 - (v / s**2).log(), "one half"),
        ("sign", lambda m, v, c, s: -0.5 * ((v + (m - c) ** 2) / s**2 - 1 - (v / s**2).log()), "sign"),
    ],
    "mixture_parameters": [
        ("over-the-batch", head(weigh=lambda w: w.softmax(0)), "over the batch"),
        ("logits", head(weigh=lambda w: w), "the logits themselves"),
        ("exp", head(weigh=torch.exp), "do not sum to 1"),
        ("mixed", head(put=mixed), "mixed up"),
        ("floor-inside", head(widen=lambda r: F.softplus(r + 0.05)), "inside the softplus"),
        ("no-floor", head(widen=F.softplus), "floor is missing"),
        ("exp-scale", head(widen=lambda r: 0.05 + r.exp()), "exponential, not a softplus"),
        ("clamped", head(widen=lambda r: F.softplus(r).clamp(min=0.05)), "cut off at the floor"),
    ],
    "best_representatives": [
        ("plain-mean", step(weight=torch.ones_like), "plain mean"),
        ("plain-distance", step(measure=torch.ones_like), "not in the posterior's units"),
        ("k-means", step(measure=torch.ones_like, weight=torch.ones_like), "this is k-means"),
        ("root", step(weight=torch.sqrt), "square root of its precision"),
        ("variance", step(weight=lambda p: 1 / p), "variance stands where a precision"),
        ("empty-to-zero", step(empty="zero"), "not move to zero"),
        ("empty-nan", step(empty="nan"), "NaN"),
        ("unmoved", lambda r, mu, p: (r, step()(r, mu, p)[1]), "have not moved"),
        ("counts", step(share=lambda own, p: own.sum(0)), "numbers of rows"),
        ("even", step(share=lambda own, p: torch.full((own.shape[1],), 1 / own.shape[1])), "all equal"),
        ("precisions", step(share=lambda own, p: (own.T @ p.sum(1)) / p.sum()), "add up precisions"),
    ],
}
