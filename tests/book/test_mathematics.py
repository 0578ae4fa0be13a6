r"""Every number on the page *Mathematics you need* is computed here once more.

`STATEMENTS` holds, for each part, pieces of the page with the numbers written in by the computer. The page must hold each piece;
outside of these pieces its examples and self-tests may hold no decimal number and no result. So a wrong number fails a test, and a new one too.
Pieces are templates in which `<expression>` stands for a computed value, as `<x>` for the shortest form and `<x:.3f>` for three digits.
"""

# ruff: noqa: E501  (a piece of the page is as long as it is)

from __future__ import annotations

import functools
import math
import re
from fractions import Fraction
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from divcolor_lib import losses

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book" / "mathematics.md").read_text(encoding="utf-8")
PARTS = dict(re.findall(r"^\(math-(\w+)\)=\n(.*?)(?=^\(math-|\Z)", PAGE, re.DOTALL | re.MULTILINE))
FIELD = re.compile(r"<([^<>:]+)(?::([^<>]+))?>")
#: What may not stand uncovered in an example or a self-test: a decimal number, or a number after a sign of equality.
RESULT = re.compile(r"\d+\.\d+|(?:=|\\approx)\s*(?:\\mathcal N\()?\(?-?\d+(?![\d^])|\d+ %")


def exact(value: float) -> Fraction:
    """Return the decimal number as it is written, without rounding."""
    return Fraction(str(value))


@functools.cache
def derivatives() -> dict[str, Any]:
    z, x, w, step, near = (exact(v) for v in (3, 2, 0.5, 0.05, 0.501))
    loss = lambda w: (x - w * z) ** 2  # noqa: E731
    free = torch.tensor(float(w), requires_grad=True)
    loss(w)
    ((float(x) - free * float(z)) ** 2).backward()
    slope = exact(float(free.grad))  # type: ignore[arg-type]
    after = w - step * slope
    sigma = torch.tensor(2.0, requires_grad=True)
    sigma.square().log().backward()
    mu, spread, eps = torch.tensor(1.0, requires_grad=True), torch.tensor(0.5, requires_grad=True), -1.0
    drawn = mu + spread * eps
    drawn.square().backward()
    pair = torch.tensor([1.0, 2.0], requires_grad=True)
    (pair[0] ** 2 + 3 * pair[0] * pair[1]).backward()
    v = torch.tensor(0.0, requires_grad=True)
    (0.5 * v).exp().backward()
    facts = {"z": z, "x": x, "w": w, "wz": w * z, "error": x - w * z, "loss": loss(w), "slope": slope, "step": step, "after": after}
    facts |= {
        "prediction": after * z,
        "less": loss(after),
        "near": near,
        "nearloss": loss(near),
        "h": near - w,
        "quotient": (loss(near) - loss(w)) / (near - w),
    }
    facts |= {"dlog": sigma.grad, "drawn": drawn.detach(), "dz": 2 * drawn.detach(), "dmu": mu.grad, "dsigma": spread.grad}
    return facts | {"g1": pair.grad[0], "g2": pair.grad[1], "dv": v.grad}  # type: ignore[index]


@functools.cache
def expectation() -> dict[str, Any]:
    b, p = [exact(v) for v in (-40, 20, 60)], [exact(v) for v in (0.5, 0.3, 0.2)]
    mean = sum(q * v for q, v in zip(p, b))
    square = sum(q * v * v for q, v in zip(p, b))
    variance = sum(q * (v - mean) ** 2 for q, v in zip(p, b))
    facts = {f"b{i}": v for i, v in enumerate(b)} | {f"p{i}": v for i, v in enumerate(p)} | {f"s{i}": v * v for i, v in enumerate(b)}
    facts |= {
        "mean": mean,
        "square": square,
        "variance": variance,
        "sd": math.sqrt(variance),
        "few": 100,
        "error": math.sqrt(variance / 100),
    }
    two = [exact(-30), exact(30)]
    facts |= {"two0": two[0], "two1": two[1], "twomean": sum(two) / 2, "twovar": sum(v * v for v in two) / 2}
    m, var, c1, c2 = 4, 2, 3, 2
    facts |= {"m": m, "var": var, "c1": c1, "c2": c2, "lm": c1 * m + c2, "lvar": c1**2 * var}
    draws, wide, narrow = 50, exact(0.2), exact(0.05)
    factor = wide / narrow
    facts |= {"draws": draws, "wide": wide, "narrow": narrow, "factor": factor, "times": factor**2, "needed": factor**2 * draws}
    answer = 8
    return facts | {"answer": answer, "gap": mean - answer, "mse": sum(q * (v - answer) ** 2 for q, v in zip(p, b))}


@functools.cache
def gaussian() -> dict[str, Any]:
    mu, sigma, x = 0.1, 0.1, 0.3
    normal, standard = NormalDist(mu, sigma), NormalDist()
    facts = {"mu": mu, "sigma": sigma, "x": x, "height": normal.pdf(mu), "density": normal.pdf(x), "half": ((x - mu) / sigma) ** 2 / 2}
    facts |= {"sigma2": sigma**2, "const": -0.5 * math.log(2 * math.pi * sigma**2), "nll": -math.log(normal.pdf(x))}
    facts |= {"one": 100 * (2 * standard.cdf(1) - 1), "two": 100 * (2 * standard.cdf(2) - 1)}
    # the product of two Gaussians, by numeric integration
    grid = torch.linspace(-8, 10, 20_001, dtype=torch.float64)
    product = (-0.5 * grid**2 - 0.5 * (grid - 2) ** 2 / 0.25).exp()
    product /= product.sum()
    mean = float((product * grid).sum())
    facts |= {"pmean": mean, "pvar": float((product * (grid - mean) ** 2).sum()), "v2": 0.25, "m2": 2, "rho2": 4, "rho": 5, "nu": 8}
    assert math.isclose(facts["nu"] / facts["rho"], mean, abs_tol=1e-9)
    facts |= {
        "nll1": -math.log(standard.pdf(1)),
        "log2pi": 0.5 * math.log(2 * math.pi),
        "within": 100 * (NormalDist(3, 2).cdf(5) - NormalDist(3, 2).cdf(1)),
    }
    total = NormalDist(1, 3) + NormalDist(2, 4)
    facts |= {"sumvar": total.variance, "sumsd": total.stdev, "va": 9, "vb": 16, "wrong": 3 + 4}
    read = (-(2 * grid**2 - 6 * grid)).exp()
    read /= read.sum()
    at = float((read * grid).sum())
    return facts | {"rmean": at, "rvar": float((read * (grid - at) ** 2).sum()), "rrho": 4, "rnu": 6}


@functools.cache
def gaussians() -> dict[str, Any]:
    mu, cov = torch.tensor([1.0, 2.0]).double(), torch.tensor([[4.0, 3.0], [3.0, 9.0]]).double()
    joint = torch.distributions.MultivariateNormal(mu, cov)

    def given(mu: torch.Tensor, cov: torch.Tensor, seen: int, value: float) -> tuple[float, float]:
        """The conditional of the other number, from the precision matrix: another way than the page's."""
        precision, other = torch.linalg.inv(cov), 1 - seen
        variance = 1 / precision[other, other]
        return float(mu[other] - variance * precision[other, seen] * (value - mu[seen])), float(variance)

    plus, minus = torch.tensor([1.0, 1.0]).double(), torch.tensor([1.0, -1.0]).double()
    first, second = given(mu, cov, 1, 5), given(mu, cov, 0, 3)
    facts = {
        "det": torch.linalg.det(cov),
        "density": joint.log_prob(mu).exp(),
        "m1": mu[0],
        "m2": mu[1],
        "v1": cov[0, 0],
        "v2": cov[1, 1],
        "c": cov[0, 1],
    }
    facts |= {"cm": first[0], "cv": first[1], "dm": second[0], "dv": second[1]}
    facts |= {"pm": plus @ mu, "pv": plus @ cov @ plus, "nm": minus @ mu, "nv": minus @ cov @ minus}
    lift = torch.tensor([[1.0, 0.0], [2.0, 1.0]]).double()
    linear = lift @ lift.T
    mean, variance = given(torch.zeros(2).double(), linear, 1, 5)
    return facts | {"l11": linear[0, 0], "l12": linear[0, 1], "l22": linear[1, 1], "lm": mean, "lv": variance}


@functools.cache
def bayes() -> dict[str, Any]:
    prior, likelihood = [exact(0.7), exact(0.3)], [exact(0.2), exact(0.6)]
    product = [a * b for a, b in zip(prior, likelihood)]
    posterior = [a / sum(product) for a in product]
    again = [a * b for a, b in zip(posterior, likelihood)]
    facts = {
        f"{name}{i}": v
        for name, values in (("p", prior), ("l", likelihood), ("j", product), ("q", posterior), ("r", again))
        for i, v in enumerate(values)
    }
    facts |= {"evidence": sum(product), "lsum": sum(likelihood), "rsum": sum(again), "final": again[0] / sum(again)}
    grid = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    for name, noise in (("n", 1.0), ("w", 10.0)):
        weight = (-0.5 * grid**2 - 0.5 * (5 - 2 * grid) ** 2 / noise**2).exp()
        weight /= weight.sum()
        mean = float((weight * grid).sum())
        facts |= {f"{name}mean": mean, f"{name}var": float((weight * (grid - mean) ** 2).sum())}
    return facts


@functools.cache
def logsumexp() -> dict[str, Any]:
    small = torch.tensor([-1000.0, -1001.0]).double()
    assert small.float().exp().sum().log().isinf()
    tiny = torch.finfo(torch.float32).smallest_normal * torch.finfo(torch.float32).eps
    assert torch.tensor(tiny) > 0 and torch.tensor(tiny / 2.1) == 0
    assert torch.equal(small.softmax(0), torch.tensor([0.0, -1.0]).double().softmax(0))
    mixture = torch.tensor([0.5, 0.5]).double().log() + torch.tensor([-400.0, -402.0]).double()
    facts = {
        "tiny": tiny * 1e45,
        "logtiny": math.log(tiny),
        "lse": small.logsumexp(0),
        "rest": math.log1p(math.exp(-1)),
        "s0": small.softmax(0)[0],
        "s1": small.softmax(0)[1],
    }
    facts |= {"two": torch.zeros(2).double().logsumexp(0), "four": torch.full((4,), 5.0).double().logsumexp(0)}
    pair = torch.tensor([102.0, 100.0]).double().softmax(0)
    assert torch.allclose(pair, torch.tensor([2.0, 0.0]).double().softmax(0))
    facts |= {
        "e0": pair[0],
        "e1": pair[1],
        "half": 0.5,
        "log2": math.log(2),
        "little": math.log1p(math.exp(-2)),
        "mix": mixture.logsumexp(0),
    }
    return facts | {"best": mixture[0], "lost": mixture.logsumexp(0) - mixture[0]}


@functools.cache
def convolution() -> dict[str, Any]:
    row, slope = torch.tensor([[[1.0, 2, 4, 3, 0]]]), torch.tensor([[[1.0, 0, -1]]])

    def written(values: torch.Tensor) -> str:
        return ", ".join(f"{v:.0f}" for v in values.flatten().tolist())

    results = [F.conv1d(row, slope, padding=padding, stride=stride) for padding, stride in ((0, 1), (1, 1), (1, 2))]
    facts: dict[str, Any] = {"row": written(row), "slope": written(slope)} | {f"y{i}": written(y) for i, y in enumerate(results)}
    facts |= {f"n{i}": y.shape[-1] for i, y in enumerate(results)} | {"first": results[0][0, 0, 0]}
    image = torch.tensor([[1.0, 2, 0], [0, 1, 3], [2, 1, 1]])
    square = torch.tensor([[1.0, 0], [0, -1]])
    out = F.conv2d(image[None, None], square[None, None])[0, 0]

    def matrix(values: torch.Tensor) -> str:
        return r" \\ ".join(" & ".join(f"{v:.0f}" for v in line) for line in values.tolist())

    facts |= {"image": matrix(image), "square": matrix(square), "out": matrix(out)}
    sizes, x = [], torch.zeros(1, 1, 64, 64)
    for kernel, stride, padding in ((5, 2, 2), (5, 2, 2), (5, 2, 2), (3, 2, 1)):
        x = F.conv2d(x, torch.zeros(1, 1, kernel, kernel), stride=stride, padding=padding)
        sizes.append(x.shape[-1])
    facts |= {f"size{i}": size for i, size in enumerate(sizes)}

    def learned(layer: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in layer.parameters())

    facts |= {"learned": learned(torch.nn.Conv2d(2, 128, 5)), "more": learned(torch.nn.Conv2d(64, 128, 3))}
    pairs = F.conv1d(torch.tensor([[[2.0, 0, 1, 3]]]), torch.ones(1, 1, 2))
    facts |= {"pairs": written(pairs), "npairs": pairs.shape[-1]}
    facts |= {"half": F.conv1d(torch.zeros(1, 1, 28), torch.zeros(1, 1, 5), padding=2, stride=2).shape[-1]}
    keeps = [padding for padding in range(6) if F.conv1d(torch.zeros(1, 1, 20), torch.zeros(1, 1, 5), padding=padding).shape[-1] == 20]
    assert len(keeps) == 1
    return facts | {"keeps": keeps[0]}


VALUES = {
    "derivatives": derivatives,
    "expectation": expectation,
    "gaussian": gaussian,
    "gaussians": gaussians,
    "bayes": bayes,
    "logsumexp": logsumexp,
    "convolution": convolution,
}
STATEMENTS: dict[str, list[str]] = {
    "derivatives": [
        r"For $z = <z>$ it should give $x = <x>$; at present $w = <w>$",
        r"prediction is $w z = <wz>$, the error is $x - w z = <error>$, and the loss $(x - w z)^2$ is $<loss>$",
        r"&= 2\,(x - w z) \cdot (-z) \\",
        r"2 \cdot <error> \cdot (-<z>) = <slope> .",
        r"A step with $\eta = <step>$ gives $w = <w> - <step> \cdot (<slope>) = <after>$, the prediction $<prediction>$ and the loss $<less>$",
        r"at $w = <near>$ the loss is $<nearloss>$, and $(<nearloss> - <loss>) / <h> = <quotient>$, which is near $<slope>$",
        r"$\log \sigma^2 = 2 \log \sigma$, so $f'(\sigma) = 2/\sigma$ and $f'(2) = <dlog>$",
        r"at $\mu = 1$, $\sigma = 0.5$, $\varepsilon = -1$",
        r"$z = <drawn>$ and $\partial f/\partial z = 2z = <dz>$",
        r"$\partial f/\partial \mu = 2z \cdot 1 = <dmu>$ and $\partial f/\partial \sigma = 2z \cdot \varepsilon = <dsigma>$",
        r"(2 x_1 + 3 x_2,\; 3 x_1) = (<g1>, <g2>)$",
        r"at $v = 0$?",
        r"\frac12 e^{\frac12 v} = <dv>$ at $v = 0$",
    ],
    "expectation": [
        r"Its $b$ is $<b0>$ with probability $<p0>$, $<b1>$ with probability $<p1>$, and $<b2>$ with probability $<p2>$",
        r"\mathbb E[b] &= <p0> \cdot (<b0>) + <p1> \cdot <b1> + <p2> \cdot <b2> = <mean>,",
        r"\mathbb E[b^2] &= <p0> \cdot <s0> + <p1> \cdot <s1> + <p2> \cdot <s2> = <square>,",
        r"\operatorname{Var}(b) &= <square> - (<mean>)^2 = <variance> .",
        r"$\sqrt{<variance>} \approx <sd:.1f>$",
        r"from <few> draws gives a typical error of $<sd:.1f>/\sqrt{<few>} \approx <error:.2f>$; for an error of 1 you need $S = <variance>$ draws",
        r"A color is $<two0>$ or $<two1>$",
        r"The mean is $<twomean>$. Both squares are $<twovar>$, so the variance is $<twovar> - <twomean>^2 = <twovar>$",
        r"$\mathbb E[x] = <m>$ and $\operatorname{Var}(x) = <var>$. What are mean and variance of $<c1>x + <c2>$",
        r"$\mathbb E[<c1>x + <c2>] = <c1> \cdot <m> + <c2> = <lm>$, and $\operatorname{Var}(<c1>x + <c2>) = <c1>^2 \cdot <var> = <lvar>$",
        r"With <draws> draws, an estimate has a typical error of $<wide>$. How many draws bring it to $<narrow>$?",
        r"a factor of $<wide>/<narrow> = <factor>$, so the draws must grow by $<factor>^2 = <times>$: you need $<times> \cdot <draws> = <needed>$ draws",
        r"someone always answers $b = <answer>$",
        r"(\mathbb E b - <answer>)^2$ $= <variance> + (<gap>)^2 = <mse>$",
    ],
    "gaussian": [
        r"Within one $\sigma$ of $\mu$ lie <one:.1f> % of the draws, within two <two:.1f> %",
        r"predicts $\mu = <mu>$ with $\sigma = <sigma>$, and the pixel is $x = <x>$",
        r"$1/(\sqrt{2\pi} \cdot <sigma>) \approx <height:.3f>$, larger than 1",
        r"$<height:.3f> \cdot e^{-<half>} \approx <density:.3f>$, and the negative log-likelihood is $<half> + \frac12 \log(2 \pi \cdot <sigma2>) \approx <half> - <const:.3f> = <nll:.3f>$",
        r"$\mathcal N(0, 1)$ and $\mathcal N(<m2>, <v2>)$. Their product has $\rho = 1 + <rho2> = <rho>$ and $\nu = 0 + <m2> \cdot <rho2> = <nu>$",
        r"$\mathcal N(<pmean>,\, <pvar>)$. The result",
        r"What is the negative log density of $x = 1$ under $\mathcal N(0, 1)$?",
        r"$z = 3 + 2 \varepsilon$.",
        r"\approx 0.5 + <log2pi:.3f> = <nll1:.3f>$ nats",
        r"the variance is $2^2 = 4$. From 1 to 5 is one standard deviation to either side: <within:.1f> %",
        r"Variances add: $<va> + <vb> = <sumvar>$, so it is $<sumsd>$. (Standard deviations do not add; $3 + 4 = <wrong>$ is too much.)",
        r"so $\rho = <rrho>$ and $\nu = <rnu>$: it is $\mathcal N(<rmean>,\, <rvar>)$",
    ],
    "gaussians": [
        r"\mu = \begin{pmatrix} <m1> \\ <m2> \end{pmatrix}, \qquad \Sigma = \begin{pmatrix} <v1> & <c> \\ <c> & <v2> \end{pmatrix} .",
        r"$<v1> \cdot <v2> - <c> \cdot <c> = <det>$",
        r"$1/(2\pi \sqrt{<det>}) \approx <density:.4f>$",
        r"the first pixel is $\mathcal N(<m1>, <v1>)$",
        r"If you see $x_2 = 5$, then the first is $\mathcal N\big(<m1> + \tfrac{<c>}{<v2>} (5 - <m2>),\; <v1> - \tfrac{<c> \cdot <c>}{<v2>}\big)$ $= \mathcal N(<cm>, <cv>)$",
        r"with $B = (1\;\; 1)$",
        r"its mean is $<pm>$ and its variance $<v1> + <v2> + 2 \cdot <c> = <pv>$",
        r"$\mathcal N(<m2>, <v2>)$.",
        r"The mean is $<m1> - <m2> = <nm>$. The variance is $<v1> + <v2> - 2 \cdot <c> = <nv>$",
        r"You see $x_1 = 3$.",
        r"$\mathcal N\big(<m2> + \tfrac{<c>}{<v1>} (3 - <m1>),\; <v2> - \tfrac{<c> \cdot <c>}{<v1>}\big)$ $= \mathcal N(<dm>,\, <dv>)$",
        r"and what is $z$ given $x = 5$?",
        r"$x = 2z + \varepsilon$",
        r"$\operatorname{Var}(x) = 2^2 + 1 = <l22>$ and $\operatorname{Cov}(z, x) = <l12>$, so the matrix is $\begin{pmatrix} <l11> & <l12> \\ <l12> & <l22> \end{pmatrix}$. Given $x = 5$",
        r"$z \sim \mathcal N\big(\tfrac25 \cdot 5,\; 1 - \tfrac{4}{5}\big)$ $= \mathcal N(<lm>,\, <lv>)$",
    ],
    "bayes": [
        r"In a town, $<p0>$ of all scarves are red and $<p1>$ are blue. Of the red ones $<l0>$ have stripes, of the blue ones $<l1>$.",
        r"| red | <p0> | <l0> | <j0> | <q0> |",
        r"| blue | <p1> | <l1> | <j1> | <q1> |",
        r"| sum | 1 | | <evidence> | 1 |",
        r"The evidence is $<j0> + <j1> = <evidence>$",
        r"The posterior of red is $<j0>/<evidence> = <q0>$",
        r"Of the red ones with stripes $<l0>$ have a fringe, of the blue ones with stripes $<l1>$.",
        r"The products are $<q0> \cdot <l0> = <r0>$ and $<q1> \cdot <l1> = <r1>$, their sum is $<rsum>$, and $<r0>/<rsum> \approx <final:.3f>$",
        r"the likelihoods $<l0>$ and $<l1>$ sum to $<lsum>$",
        r"$w = 2$, $\sigma_x = 1$, and you see $x = 5$",
        r"Mean $\frac{2 \cdot 5}{4 + 1} = <nmean>$, variance $\frac{1}{4 + 1} = <nvar>$",
        r"with much more noise, $\sigma_x = 10$",
        r"Mean $\frac{2 \cdot 5}{4 + 100} \approx <wmean:.3f>$, variance $\frac{100}{4 + 100} \approx <wvar:.3f>$",
    ],
    "logsumexp": [
        r"about $<tiny:.1f> \cdot 10^{-45}$, which is $e^{<logtiny:.1f>}$",
        r"Take $\ell = (-1000, -1001)$.",
        r"With $m = -1000$:",
        r"&= -1000 + \log \big(1 + e^{-1}\big)",
        r"&\approx -1000 + <rest:.4f> = <lse:.4f> ,",
        r"\approx (<s0:.4f>, <s1:.4f>)$, the same as for $(0, -1)$",
        r"$\log 2 \approx <two:.3f>$, and $5 + \log 4 \approx <four:.3f>$",
        r"\frac{e^2}{e^2 + 1} \approx <e0:.3f>$ and $<e1:.3f>$, for both",
        r"$\pi_1 = \pi_2 = <half>$",
        r"$-400 + \log <half> + \log(1 + e^{-2})$ $\approx -400 - <log2:.3f> + <little:.3f> = <mix:.3f>$",
        r"$-400 - <log2:.3f> = <best:.3f>$: lower by $<lost:.3f>$ nats",
    ],
    "convolution": [
        r"The row is $(<row>)$ and the kernel is $(<slope>)$",
        r"| $(<y0>)$ | (5 − 3)/1 + 1 = <n0> |",
        r"| $(<y1>)$ | (5 + 2 − 3)/1 + 1 = <n1> |",
        r"| $(<y2>)$ | (5 + 2 − 3)/2 + 1 = <n2> |",
        r"$1 \cdot 1 + 0 \cdot 2 - 1 \cdot 4 = <first>$",
        r"\begin{pmatrix} <image> \end{pmatrix}",
        r"\begin{pmatrix} <square> \end{pmatrix}",
        r"\begin{pmatrix} <out> \end{pmatrix}.",
        r"$\lfloor (64 + 4 - 5)/2 \rfloor + 1 = <size0>$, then <size1>, then <size2>",
        r"$\lfloor (8 + 2 - 3)/2 \rfloor + 1 = <size3>$",
        r"from 2 channels to 128 and has $128 \cdot (2 \cdot 25 + 1) = <learned>$ numbers",
        r"$(<pairs>)$, and the size is $(4 - 2)/1 + 1 = <npairs>$",
        r"$\lfloor (28 + 4 - 5)/2 \rfloor + 1 = 13 + 1 = <half>$",
        r"the padding is $(5 - 1)/2 = <keeps>$",
        r"$128 \cdot (64 \cdot 9 + 1) = <more>$",
    ],
}


def written(template: str, values: dict[str, Any]) -> str:
    """Write the values into a template."""

    def value_of(match: re.Match[str]) -> str:
        value, form = values[match[1]], match[2]
        if isinstance(value, str):
            return value
        return format(float(value), form) if form else format(round(float(value), 6) + 0.0, ".7g")

    return FIELD.sub(value_of, template)


def uncovered(part: str, pieces: list[str]) -> list[str]:
    """Return the results in the examples and self-tests of a part that stand in none of the pieces."""
    found = part[part.index("\n### Example") :]
    for piece in sorted(pieces, key=len, reverse=True):
        found = found.replace(piece, "§")
    return [match[0] for match in RESULT.finditer(found)]


def faults(name: str, part: str) -> list[str]:
    pieces = [written(template, VALUES[name]()) for template in STATEMENTS[name]]
    return [f"not on the page: {piece}" for piece in pieces if piece not in part] + [
        f"not checked: {left}" for left in uncovered(part, pieces)
    ]


def test_the_page_has_the_seven_parts_and_each_is_checked() -> None:
    assert list(PARTS) == list(VALUES) == list(STATEMENTS)


@pytest.mark.parametrize("name", VALUES)
def test_every_number_is_right_and_every_result_is_checked(name: str) -> None:
    assert faults(name, PARTS[name]) == []


@pytest.mark.parametrize("name", VALUES)
def test_every_wrong_number_would_be_noticed(name: str) -> None:
    """Change one number of the examples and self-tests at a time: the checks must object to every decimal one and every result."""
    part = PARTS[name]
    start = part.index("\n### Example")
    tried = 0
    pieces = [written(template, VALUES[name]()) for template in STATEMENTS[name]]
    for match in RESULT.finditer(part, start):
        last = max(i for i in range(match.start(), match.end()) if part[i].isdigit())
        broken = part[:last] + str((int(part[last]) + 1) % 10) + part[last + 1 :]
        noticed = any(piece not in broken for piece in pieces) or uncovered(broken, pieces)
        assert noticed, f"{part[match.start() - 30 : match.end() + 10]!r}"
        tried += 1
    assert tried >= 10


@pytest.mark.parametrize("name", VALUES)
def test_a_part_says_why_states_works_an_example_and_asks(name: str) -> None:
    part = PARTS[name]
    assert part.index("**Why.**") < part.index("**Statement.**") < part.index("\n### Example: ") < part.index("\n### Self-test: ")
    questions = part[part.index("\n### Self-test: ") :]
    count = len(re.findall(r"^\d\. \S", questions, re.MULTILINE))
    assert 3 <= count <= 4
    folds = r"^   <details>\n   <summary>Answer</summary>\n\n   \S.*?\n\n   </details>$"
    assert (
        len(re.findall(folds, questions, re.MULTILINE | re.DOTALL))
        == questions.count("<details>")
        == questions.count("</details>")
        == count
    )


def test_the_table_at_the_top_leads_to_every_part() -> None:
    assert re.findall(r"^\| \[[^\]]+\]\(math-(\w+)\) \|", PAGE, re.MULTILINE) == list(VALUES)


def test_the_statements_without_numbers_hold() -> None:
    """Try the general statements on random numbers: conditional, product, sum, posterior, bounds of log-sum-exp, size formulas."""
    random = torch.Generator().manual_seed(0)
    a = torch.randn(5, 5, generator=random).double()
    cov, mean = a @ a.T, torch.randn(5, generator=random).double()
    joint, x = torch.distributions.MultivariateNormal(mean, cov), torch.randn(5, generator=random).double()
    kept, seen = slice(0, 2), slice(2, 5)
    gain = cov[kept, seen] @ torch.linalg.inv(cov[seen, seen])
    conditional = torch.distributions.MultivariateNormal(
        mean[kept] + gain @ (x[seen] - mean[seen]), cov[kept, kept] - gain @ cov[seen, kept]
    )
    marginal = torch.distributions.MultivariateNormal(mean[seen], cov[seen, seen])
    assert torch.allclose(joint.log_prob(x), conditional.log_prob(x[kept]) + marginal.log_prob(x[seen]))

    w, noise, value, z = 1.7, 0.6, 0.9, torch.linspace(-2, 2, 9).double()
    normal = torch.distributions.Normal
    posterior = normal(w * value / (w**2 + noise**2), noise / math.sqrt(w**2 + noise**2))
    evidence = normal(0.0, math.sqrt(w**2 + noise**2)).log_prob(torch.tensor(value).double())
    assert torch.allclose(
        posterior.log_prob(z), normal(w * z, noise).log_prob(torch.tensor(value).double()) + normal(0.0, 1.0).log_prob(z) - evidence
    )

    logs = torch.randn(7, generator=random).double() * 3
    top = logs.max()
    assert top <= logs.logsumexp(0) <= top + math.log(7)
    free = logs.clone().requires_grad_()
    free.logsumexp(0).backward()
    assert torch.allclose(free.grad, logs.softmax(0))  # type: ignore[arg-type]

    for size, kernel, stride, padding in ((11, 3, 2, 1), (12, 4, 3, 0), (9, 5, 1, 2), (64, 5, 2, 2)):
        here = F.conv1d(torch.zeros(1, 1, size), torch.zeros(1, 1, kernel), stride=stride, padding=padding).shape[-1]
        assert here == (size + 2 * padding - kernel) // stride + 1
        back = F.conv_transpose1d(torch.zeros(1, 1, size), torch.zeros(1, 1, kernel), stride=stride, padding=padding).shape[-1]
        assert back == (size - 1) * stride - 2 * padding + kernel


def test_the_library_takes_variances_as_the_page_says() -> None:
    mu, logvar = torch.tensor([[0.3]]), torch.tensor([[-1.2]])
    p, q = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(mu, (0.5 * logvar).exp())
    assert torch.allclose(losses.kl_per_dimension(mu, logvar), torch.distributions.kl_divergence(q, p))
