"""The figures of chapter 4: the evidence, its lower bound, and the gap between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from . import PALETTE, close, described, styled

STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D")
DARK = "#333333"


def coin(q: Tensor, elbo: Tensor, evidence: float, posterior: float) -> Figure:
    """Draw the ELBO of the hidden coin for every q, below the constant log p(x).

    Args:
        q: `(n,)`, the probability q(z = 1).
        elbo: `(n,)`, in nats.
        evidence: log p(x), in nats.
        posterior: p(z = 1 | x).
    """
    best = int(elbo.argmax())
    shown = int((q - 0.4).abs().argmin())
    with styled():
        figure, axes = plt.subplots(figsize=(6.8, 3.8), layout="constrained")
        axes.axhline(evidence, color=PALETTE[6], lw=1.5)
        axes.plot(q, elbo, color=PALETTE[0], lw=2.5)
        axes.plot(float(q[best]), float(elbo[best]), "o", color=PALETTE[0], ms=9)
        axes.plot([posterior, posterior], [float(elbo.min()) - 0.12, evidence], ":", color=DARK, lw=1)
        axes.annotate(
            "",
            xy=(float(q[shown]), evidence),
            xytext=(float(q[shown]), float(elbo[shown])),
            arrowprops={"arrowstyle": "<->", "color": PALETTE[1]},
        )
        middle = (evidence + float(elbo[shown])) / 2
        axes.text(float(q[shown]) - 0.02, middle + 0.05, "gap = KL(q || p(z|x))", color=PALETTE[1], ha="right", va="center")
        axes.text(0.0, evidence + 0.03, f"log p(x) = {evidence:.3f}, whatever q is", va="bottom")
        axes.text(float(q[shown]) + 0.05, float(elbo[shown]) - 0.03, "ELBO of q", color=PALETTE[0], va="top")
        axes.text(posterior + 0.01, float(elbo.min()) - 0.1, f"p(z=1|x) = {posterior:.2f}", va="bottom", color=DARK)
        axes.set(xlabel="q(z = 1)", ylabel="nats", ylim=(float(elbo.min()) - 0.12, evidence + 0.2))
    return described(
        figure,
        f"The ELBO of the hidden coin as a curve over q(z=1). It stays below the level line log p(x) = {evidence:.3f} and touches it "
        f"at one point, q(z=1) = {float(q[best]):.2f}, which is the posterior p(z=1|x) = {posterior:.2f}. "
        f"At q(z=1) = {float(q[0]):.2f} it has fallen to {float(elbo[0]):.2f}, at {float(q[-1]):.2f} to {float(elbo[-1]):.2f}. "
        "The vertical gap at each q is KL(q || p(z|x)).",
    )


def naive_estimates(errors: Mapping[int, Tensor], draws: int) -> Figure:
    """Draw how far estimates of log p(x) with codes from the prior lie from the exact value.

    Args:
        errors: for each length D of the code, `(runs,)`, estimate minus exact value, in nats.
        draws: the number of codes that one estimate used.
    """
    with styled():
        figure, axes = plt.subplots(figsize=(6.8, 3.8), layout="constrained")
        axes.axhline(0, color=PALETTE[6], lw=1.5)
        medians = [float(each.median()) for each in errors.values()]
        for place, each in enumerate(errors.values()):
            spread = np.linspace(-0.18, 0.18, len(each))
            axes.plot(place + spread, each, "o", color=PALETTE[0], ms=5, alpha=0.5, mec="none")
        axes.plot(range(len(medians)), medians, "_", color=PALETTE[1], ms=34, mew=3)
        room = 0.04 * abs(min(medians))
        for place, (median, each) in enumerate(zip(medians, errors.values())):
            axes.text(place, float(each.min()) - room, f"{round(median, 1) + 0.0:+.1f}", color=PALETTE[1], ha="center", va="top")
        axes.set_ylim(min(float(each.min()) for each in errors.values()) - 4 * room, 4 * room)
        axes.text(-0.4, room, "0 = exact log p(x)", va="bottom")
        axes.text(-0.4, 0.55 * min(medians), "dots: single runs\nbars and numbers: median", va="center")
        axes.set_xticks(range(len(errors)), [str(length) for length in errors])
        axes.set(xlabel="D, the length of the code", ylabel="error of log p(x), nats", xlim=(-0.5, len(errors) - 0.3))
    told = ", ".join(f"{round(median, 1) + 0.0:+.1f} at D = {length}" for length, median in zip(errors, medians))
    runs = len(next(iter(errors.values())))
    return described(
        figure,
        f"Error of the estimated log p(x), {runs} runs for each length D of the code, {draws} draws from the prior in each run. "
        f"Median error in nats: {told}. The longer the code, the further the estimates fall below the exact value.",
    )


def jensen(low: float, high: float) -> Figure:
    """Draw log, with f'' < 0, and exp, with f'' > 0, each with the chord between two values of equal weight, and its tangent."""
    with styled():
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.5), layout="constrained")
        sunk = _chord(left, "log: $f'' < 0$", np.log, low, high, (0.35, 1.25 * high))
        raised = _chord(right, "exp: $f'' > 0$", np.exp, math.log(low), math.log(high), (-1.0, 1.1 * math.log(high)))
    return described(
        figure,
        f"Two panels. Left: the logarithm between X = {low:g} and X = {high:g}. The chord lies below the curve: at the mean of X, "
        f"E[log X] = {sunk[1]:.3f} (square) is below log E[X] = {sunk[0]:.3f} (dot); the tangent at the dot lies above the curve. "
        f"Right: the exponential. The chord lies above it: E[exp X] = {raised[1]:.2f} (square) is above exp E[X] = {raised[0]:.2f} (dot).",
    )


def posterior_and_diagonal(cases: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> Figure:
    """Draw true posteriors and the best diagonal Gaussians, as ellipses of one and two standard deviations.

    Args:
        cases: for each panel, its name and (mean `(2,)`, covariance of the posterior `(2, 2)`, variances of q `(2,)`).
    """
    told = []
    with styled():
        figure, places = plt.subplots(1, len(cases), figsize=(7.4, 4.3), layout="constrained", squeeze=False)
        for axes, (name, (mean, covariance, variances)) in zip(places.flat, cases.items()):
            for scale in (1, 2):
                axes.plot(*_ellipse(mean, covariance, scale), color=PALETTE[0], lw=2, label="true posterior" if scale == 1 else None)
                axes.plot(
                    *_ellipse(mean, variances.diag(), scale),
                    color=PALETTE[1],
                    ls="--",
                    lw=2,
                    label="best diagonal q" if scale == 1 else None,
                )
            axes.plot(*mean.tolist(), "+", color=DARK, ms=10)
            gap = 0.5 * float(-variances.log().sum() + covariance.logdet())
            axes.set(title=f"{name}\ngap {abs(gap):.3f} nats", xlabel="first number of z", ylabel="second number of z", aspect="equal")
            reach = 2.15 * float(covariance.diagonal().max().sqrt())
            axes.set(xlim=(float(mean[0]) - reach, float(mean[0]) + reach), ylim=(float(mean[1]) - reach, float(mean[1]) + reach))
            correlation = float(covariance[0, 1] / (covariance[0, 0] * covariance[1, 1]).sqrt())
            narrower = ", ".join(f"{float(ratio):.2f}" for ratio in (variances / covariance.diag()).sqrt())
            handles = axes.get_legend_handles_labels()
            told.append(
                f"{name}: the posterior has correlation {abs(correlation):.2f}; the standard deviations of q are {narrower} "
                f"times those of the posterior; the gap is {abs(gap):.3f} nats"
            )
        figure.legend(*handles, frameon=False, loc="outside lower center", ncols=2)
    return described(figure, f"Ellipses of the true posterior (solid) and of the best diagonal q (dashed). {'. '.join(told)}.")


def importance_bound(draws: Sequence[int], bounds: Mapping[str, tuple[Tensor, Tensor]], evidence: float) -> Figure:
    """Draw importance-weighted bounds over the number of draws S, below log p(x).

    Args:
        draws: the values of S.
        bounds: for each q, its name and (bound `(n,)`, standard error `(n,)`), in nats.
        evidence: log p(x).
    """
    told = []
    with styled():
        figure, axes = plt.subplots(figsize=(6.8, 3.9), layout="constrained")
        axes.axhline(evidence, color=PALETTE[6], lw=1.5)
        axes.text(draws[0], evidence + 0.02, "log p(x)", va="bottom")
        for number, (name, (bound, error)) in enumerate(bounds.items()):
            axes.errorbar(
                list(draws),
                bound.tolist(),
                yerr=(2 * error).tolist(),
                color=PALETTE[number],
                marker=MARKERS[number],
                ls=STYLES[number],
                lw=2,
                ms=6,
                capsize=3,
            )
            at = 0 if number else len(draws) // 2
            axes.annotate(name, (draws[at], float(bound[at])), xytext=(12, -6), textcoords="offset points", color=PALETTE[number], va="top")
            told.append(f"{name}: from {float(bound[0]):.2f} at S = {draws[0]} to {float(bound[-1]):.2f} at S = {draws[-1]}")
        axes.set(xscale="log", xlabel="S, the number of draws in one estimate", ylabel="bound, nats")
        axes.set_xticks(list(draws), [str(each) for each in draws])
        axes.minorticks_off()
        lowest = min(float(bound[0] - 2 * error[0]) for bound, error in bounds.values())
        axes.set_ylim(lowest - 0.15, evidence + 0.15)
    names = list(bounds)
    first = max(names, key=lambda name: float(bounds[name][0][0]))
    last = max(names, key=lambda name: float(bounds[name][0][-1]))
    return described(
        figure,
        f"The importance-weighted bound over the number of draws, with bars of two standard errors, below log p(x) = {evidence:.2f}. "
        f"{'; '.join(told)}. Highest at S = {draws[0]}: {first}; highest at S = {draws[-1]}: {last}.",
    )


def noise_curve(noise: Tensor, data_term: Tensor, log_term: Tensor) -> Figure:
    """Draw -log N per number over sigma_x, as the sum of the error's term and the logarithm's.

    Args:
        noise: `(n,)`, values of sigma_x.
        data_term, log_term: `(n,)`, in nats for one number.
    """
    total = data_term + log_term
    best = int(total.argmin())
    with styled():
        figure, axes = plt.subplots(figsize=(6.8, 3.9), layout="constrained")
        for curve, name, style, color in (
            (data_term, r"squared error / ($2\sigma_x^2$)", "--", PALETTE[1]),
            (log_term, r"$\frac{1}{2}\log(2\pi\sigma_x^2)$", ":", PALETTE[2]),
            (total, "sum: -log N", "-", PALETTE[0]),
        ):
            axes.plot(noise, curve, color=color, ls=style, lw=2.5, label=name)
        axes.plot(float(noise[best]), float(total[best]), "o", color=PALETTE[0], ms=9)
        axes.annotate(
            rf"lowest at $\sigma_x$ = {float(noise[best]):.3f}" + "\n= RMS error",
            (float(noise[best]), float(total[best])),
            xytext=(60, -40),
            textcoords="offset points",
            va="center",
            arrowprops={"arrowstyle": "->", "color": DARK},
        )
        axes.set(xscale="log", xlabel=r"$\sigma_x$", ylabel="nats for one number", ylim=(float(log_term.min()) - 0.3, 5))
        ticks = [value for value in (0.03, 0.05, 0.1, 0.2, 0.5, 1.0) if float(noise[0]) <= value <= float(noise[-1])]
        axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
        axes.minorticks_off()
        axes.legend(frameon=False)
    return described(
        figure,
        f"Negative log-likelihood of one number over sigma_x. The error's term falls, the logarithm's term rises; their sum is lowest, "
        f"{float(total[best]):.2f} nats, at sigma_x = {float(noise[best]):.3f}, the RMS error. At sigma_x = {float(noise[0]):.2f} it is "
        f"{float(total[0]):.1f}, at sigma_x = {float(noise[-1]):.2f} it is {float(total[-1]):.2f}.",
    )


def bernoulli(f: Tensor, mass: Tensor, target: float, squared: Tensor, cross_entropy: Tensor) -> Figure:
    """Draw binary cross-entropy beside squared error for one gray value, and the mass that exp(-cross-entropy) gives to [0, 1].

    Args:
        f: `(n,)`, the decoder's output, between 0 and 1.
        mass: `(n,)`, the integral of f^x (1 - f)^(1 - x) over x from 0 to 1.
        target: the gray value x of the left panel.
        squared, cross_entropy: `(n,)`, the two losses at that x.
    """
    lowest = int(cross_entropy.argmin())
    with styled():
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.5), layout="constrained")
        left.plot(f, cross_entropy, color=PALETTE[1], lw=2.5)
        left.plot(f, squared, color=PALETTE[0], ls="--", lw=2.5)
        left.axvline(target, color=DARK, lw=1, ls=":")
        left.plot(target, float(cross_entropy[lowest]), "s", color=PALETTE[1], ms=8)
        left.plot(target, 0, "o", color=PALETTE[0], ms=8)
        at = int((f - 0.5).abs().argmin())
        left.text(target + 0.04, float(cross_entropy[at]) + 0.6, "binary cross-entropy", color=PALETTE[1])
        left.text(0.55, float(squared[at]) + 0.02, "squared error", color=PALETTE[0], ha="left", va="top")
        left.set(xlabel="f, the decoder's answer", ylabel="loss", title=f"one gray value, x = {target:g}", ylim=(-0.1, 2.5), xlim=(0, 1))
        right.axhline(1, color=PALETTE[6], lw=1.5)
        right.text(0.5, 0.98, "a density has mass 1", ha="center", va="top")
        right.plot(f, mass, color=PALETTE[1], lw=2.5)
        highest = int(mass.argmax())
        right.annotate(
            f"at most {float(mass.max()):.2f}",
            (float(f[highest]), float(mass.max())),
            xytext=(0, -8),
            textcoords="offset points",
            ha="center",
            va="top",
        )
        right.set(xlabel="f", ylabel="integral over x, 0 to 1", title="mass of exp(-cross-entropy)", ylim=(0, 1.05), xlim=(0, 1))
    return described(
        figure,
        f"Left: the two losses of one gray value x = {target:g} over the answer f. Both are lowest at f = {float(f[lowest]):.2f}; "
        f"squared error is 0 there, cross-entropy {float(cross_entropy[lowest]):.3f}, and cross-entropy rises steeply toward 0 and 1. "
        "Right: the mass of exp(-cross-entropy) over gray values from 0 to 1. "
        f"It is at most {float(mass.max()):.2f}, at f = {float(f[highest]):.2f}, falls to {float(mass[0]):.2f} at f = {float(f[0]):.2f}; "
        "a density would have mass 1.",
    )


def water_levels(variances: Tensor, levels: Mapping[str, float]) -> Figure:
    """Draw the variance of color fields along each principal direction, and the water level that each loss implies.

    Args:
        variances: `(D,)`, descending.
        levels: for each loss, its name and beta / 2.
    """
    told = []
    with styled():
        figure, axes = plt.subplots(figsize=(7.4, 4.8), layout="constrained")
        numbers = np.arange(1, len(variances) + 1)
        bottom = float(variances.min()) / 3
        axes.vlines(numbers, bottom, variances.tolist(), color=PALETTE[0], lw=5, alpha=0.5)
        axes.plot(numbers, variances, "o", color=PALETTE[0], ms=7)
        for number, (name, level) in enumerate(levels.items()):
            above = int((variances > level).sum())
            axes.axhline(level, color=DARK, lw=1.5, ls=STYLES[number % len(STYLES)])
            axes.text(1.3 * len(variances) + 0.5, level * 1.08, f"{name}\n{above} above water", ha="right", va="bottom")
            told.append(f"{name}: level {level:.3g}, {above} of {len(variances)} directions above")
        axes.set(
            yscale="log",
            xlabel="principal direction of the color fields",
            ylabel="variance along it, (ab/128)²",
            xlim=(0.4, 1.3 * len(variances) + 0.6),
        )
        axes.set_ylim(bottom, 9 * max(*levels.values(), float(variances.max())))
        axes.set_xticks(numbers)
    return described(
        figure,
        f"Variances of color fields along their first {len(variances)} principal directions, from {float(variances[0]):.2f} down to "
        f"{float(variances[-1]):.3f}, on a logarithmic scale, with the water level of each loss as a line. {'; '.join(told)}.",
    )


def jensen_choices() -> dict[str, NDArray[np.uint8]]:
    """Return three pictures for the quiz: a curve, a chord, a dot on the curve and a square on the chord; keys `a`, `b`, `c`."""
    x = np.linspace(0, 1, 200)
    curves = {
        "a": 0.1 + 0.8 * x**2.6,
        "b": 0.5 + 0.4 * np.sin(2 * np.pi * (x - 0.02)) * (1 - 0.2 * x),
        "c": 0.1 + 0.85 * np.log1p(25 * x) / np.log(26),
    }
    pictures = {}
    for key, y in curves.items():
        with styled():
            figure, axes = plt.subplots(figsize=(2.4, 1.8), dpi=100)
            axes.plot(x, y, color=PALETTE[0], lw=3)
            ends = (12, 185) if key != "b" else (8, 95)
            middle = sum(ends) // 2
            axes.plot(x[list(ends)], y[list(ends)], "--", color=DARK, lw=2)
            axes.plot(x[middle], y[middle], "o", color=PALETTE[0], ms=10)
            axes.plot(x[middle], y[list(ends)].mean(), "s", color=PALETTE[1], ms=10)
            axes.set(xlim=(-0.05, 1.05), ylim=(0, 1))
            axes.axis("off")
            figure.canvas.draw()
            pictures[key] = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]
        close(figure)
    return pictures


def _chord(axes: Axes, title: str, function: np.ufunc, low: float, high: float, limits: tuple[float, float]) -> tuple[float, float]:
    """Draw one panel of `jensen`; return f(E[X]) and E[f(X)] for X equally likely `low` and `high`."""
    x = np.linspace(*limits, 200)
    middle = (low + high) / 2
    on_curve, on_chord = float(function(middle)), float((function(low) + function(high)) / 2)
    above = on_curve > on_chord
    slope = 1 / middle if function is np.log else on_curve
    axes.plot(x, function(x), color=PALETTE[0], lw=2.5)
    axes.plot(x, on_curve + slope * (x - middle), ":", color=PALETTE[2], lw=2)
    axes.plot([low, high], [function(low), function(high)], "--", color=PALETTE[1], lw=2)
    axes.plot(middle, on_curve, "o", color=PALETTE[0], ms=9)
    axes.plot(middle, on_chord, "s", color=PALETTE[1], ms=9)
    name = "log" if function is np.log else "exp"
    axes.annotate(
        f"{name} E[X]",
        (middle, on_curve),
        xytext=(-8, 9) if above else (10, -6),
        textcoords="offset points",
        ha="right" if above else "left",
        va="bottom" if above else "top",
        color=PALETTE[0],
    )
    axes.annotate(
        f"E[{name} X]",
        (middle, on_chord),
        xytext=(8, -10) if above else (-10, 6),
        textcoords="offset points",
        ha="left" if above else "right",
        va="top" if above else "bottom",
        color=PALETTE[1],
    )
    at = float(x[-1]) if above else float(x[50])
    axes.text(
        at,
        on_curve + slope * (at - middle),
        "tangent" if above else "  tangent",
        color=PALETTE[2],
        ha="right" if above else "left",
        va="bottom" if above else "top",
    )
    axes.set(title=title, xlabel="X")
    return on_curve, on_chord


def _ellipse(mean: Tensor, covariance: Tensor, scale: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the points at `scale` standard deviations around the mean of a Gaussian in the plane."""
    angle = np.linspace(0, 2 * np.pi, 200)
    factor = np.linalg.cholesky(covariance.double().numpy())
    points = mean.double().numpy()[:, None] + scale * factor @ np.stack([np.cos(angle), np.sin(angle)])
    return points[0], points[1]
