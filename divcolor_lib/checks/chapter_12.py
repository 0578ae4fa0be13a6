"""The checks of chapter 12: order, draws, enlarging, the edge of the gamut, and hints."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Independent, Normal

from . import Trial, exercise


@exercise
def heaviest_first(trial: Trial, answer: Any) -> None:
    """Try the order on a batch whose photographs have different orders."""
    weights = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
    codes = trial.numbers(2, 3, 4)
    got = trial.call(answer, weights, codes)
    if not isinstance(got, tuple) or len(got) != 2:
        trial.stop("return two things: the weights and the codes")
    sorted_weights, sorted_codes = got
    trial.same_shape("the weights", sorted_weights, weights)
    trial.same_shape("the codes", sorted_codes, codes)
    wanted = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2]])
    mistakes = {
        "the lightest comes first: `argsort` and `sort` ascend unless they are told otherwise": wanted.flip(1),
        "every photograph is sorted by the weights of the first one; each has its own order": weights[:, [1, 2, 0]],
        "every photograph is sorted by the weights of the first one, and the lightest comes first": weights[:, [0, 2, 1]],
    }
    for told, value in mistakes.items():
        if torch.allclose(sorted_weights, value):
            trial.stop(told)
    trial.need(torch.allclose(sorted_weights, wanted), "the weights fall, for each photograph", "the weights are not sorted")
    right = torch.stack([codes[0, [1, 2, 0]], codes[1, [0, 2, 1]]])
    wrong = "the codes have another order than the weights, so each picture gets another one's probability"
    if torch.equal(sorted_codes, codes):
        wrong = "the codes are still in the old order: each picture gets another one's probability"
    trial.close(sorted_codes, right, "every code goes with its weight", wrong)
    more, points = trial.uniform(5, 8), trial.numbers(5, 8, 3)
    values, moved = trial.call(answer, more, points)
    order = more.sort(dim=1, descending=True)[1]
    trial.close(
        moved, torch.stack([p[o] for p, o in zip(points, order)]), "it is right for five photographs", "on five photographs it is off"
    )
    trial.close(values.sum(1), more.sum(1), "no weight is lost", "weights are lost or doubled")


@exercise
def draws_needed(trial: Trial, answer: Any) -> None:
    """Try the count against a table of probabilities, with a mode that cannot occur and with many equal ones."""
    p = torch.tensor([0.5, 0.3, 0.2])
    got = trial.call(answer, p, 0.9)
    if isinstance(got, Tensor) and got.numel() == 1 and not got.is_floating_point():
        got = int(got)
    if not isinstance(got, int) or isinstance(got, bool):
        trial.stop(f"the result is a {type(got).__name__}; it should be an int")
    wanted = _draws(p, 0.9)

    def first(enough: Any) -> int:
        return next(S for S in range(1, 1000) if enough(S))

    mistakes = {
        "it looks as if you asked that all modes be there with that probability; the question is how many there are on average": first(
            lambda S: torch.prod(1 - (1 - p) ** S) >= 0.9
        ),
        "it looks as if you took p ** S, the probability that every draw shows the same mode": 1000,
        "it looks as if you counted S * p, which counts the same mode again each time it comes": first(lambda S: S * 1.0 >= 0.9 * 3),
        "it looks as if you summed without comparing with the number of modes: `share` is a share of them": first(
            lambda S: float((1 - (1 - p) ** S).sum()) >= 0.9
        ),
    }
    if got != wanted:
        trial.stop(next((told for told, value in mistakes.items() if value == got), f"for (0.5, 0.3, 0.2) and 0.9 it gives {got}"))
    trial.that(True, "it is right for three modes", "")
    gone = trial.call(answer, torch.tensor([0.5, 0.0, 0.3, 0.2]), 0.9)
    trial.need(
        int(gone) == wanted,
        "a mode of probability 0 is not waited for",
        "a mode of probability 0 changes the answer; it is not possible, so no one waits for it",
    )
    trial.that(int(trial.call(answer, torch.tensor([1.0]), 0.99)) == 1, "one mode takes one draw", "a single mode takes one draw")
    many, uneven = torch.full((20,), 0.05), trial.uniform(7)
    found = [int(trial.call(answer, many, 0.95)), int(trial.call(answer, uneven / uneven.sum(), 0.8))]
    trial.that(
        found == [_draws(many, 0.95), _draws(uneven / uneven.sum(), 0.8)],
        "it is right for twenty even modes and for seven uneven ones",
        f"for twenty even and seven uneven modes it gives {found}",
    )


def _draws(p: Tensor, share: float) -> int:
    """The same, by the chance that a mode is missed, in log space."""
    p = p[p > 0].double()
    return next(S for S in range(1, 10000) if len(p) - float((S * torch.log1p(-p)).exp().sum()) >= share * len(p))


@exercise
def back_project(trial: Trial, answer: Any) -> None:
    """Try the rounds on linear maps, where they are powers of a matrix, and on an edge."""
    up_matrix, down_matrix = 0.4 * trial.numbers(12, 4), 0.4 * trial.numbers(4, 12)
    target = trial.numbers(4)

    def up(x: Tensor) -> Tensor:
        return up_matrix @ x

    def down(x: Tensor) -> Tensor:
        return down_matrix @ x

    got = trial.call(answer, target, up, down, 2)
    trial.shape("the result", got, (12,))
    left = torch.eye(4) - down_matrix @ up_matrix

    def after(rounds: int) -> Tensor:
        return up_matrix @ sum((torch.linalg.matrix_power(left, k) @ target for k in range(1, rounds + 1)), target)

    once = up(target - down(up(target)))
    mistakes = {
        "it looks as if the difference has the wrong sign: what is missing is the target minus what is there": up(target)
        + up(down(up(target)) - target)
        + up(down(up(target) + up(down(up(target)) - target)) - target),
        "it looks as if every round adds the same difference, that of the start; take that of the current result": up(target) + 2 * once,
        "it looks as if one round is missing": after(1),
        "it looks as if there is one round too many": after(3),
        "it looks as if you forgot to add: the result is only what was missing": up(left @ left @ target),
    }
    wanted = after(2)
    close = torch.allclose(got, wanted, atol=1e-4)
    wrong = next((told for told, value in mistakes.items() if torch.allclose(got, value, atol=1e-4)), "after two rounds it is off")
    trial.need(close, "two rounds are right, for any linear enlargement", wrong)
    trial.close(
        trial.call(answer, target, up, down, 0), up(target), "without rounds it is the plain enlargement", "rounds=0 should be up(target)"
    )
    edge = torch.tensor([1.0] * 4 + [-1.0] * 4).expand(1, 1, 8, 8)

    def larger(x: Tensor) -> Tensor:
        return F.interpolate(x, size=(8, 40), mode="bilinear", align_corners=False)

    def smaller(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, (1, 5))

    missed = [float((edge - smaller(trial.call(answer, edge, larger, smaller, n))).abs().max()) for n in (0, 4, 12)]
    trial.that(
        missed[0] > 4 * missed[1] and missed[1] > 10 * missed[2],
        "on an edge, what is missing shrinks with every round",
        f"on an edge it misses by {missed[0]:.3f}, {missed[1]:.3f}, {missed[2]:.3f} after 0, 4 and 12 rounds; it should shrink",
    )


@exercise
def largest_factor(trial: Trial, answer: Any) -> None:
    """Try the factor on disks, whose edge is known, on a color that fits, and on one that must never be overshot."""
    color = torch.tensor([30.0, -40.0]).double()  # length 50

    def within(radius: float) -> Any:
        return lambda ab: bool(torch.as_tensor(ab).norm() <= radius)

    got = trial.call(answer, color, within(20.0))
    trial.shape("the factor", got, ())
    value = float(got)
    mistakes = {
        "it looks as if you return the color or its length; return the factor": 20.0,
        "it looks as if you return how much to take away; the factor is what remains": 0.6,
        "after the first halving it stops: keep halving": 0.5,
    }
    if abs(value - 0.4) > 1e-6:
        trial.stop(
            next((told for told, wrong in mistakes.items() if abs(value - wrong) < 1e-3), f"for an edge at 0.4 it gives {value:.4f}")
        )
    trial.that(True, "it finds the edge", "")
    trial.need(
        within(20.0)(value * color),
        "what it returns does fit",
        "it lies a hair outside: of the two ends of the interval, return the one that is known to fit",
    )
    inside = float(trial.call(answer, color, within(60.0)))
    trial.need(inside == 1.0, "a color that fits comes back as it is", f"a color that fits already should give 1, not {inside:.10f}")
    radii = [50 * float(share) for share in trial.uniform(20, low=0.02, high=0.98)]
    found = [float(trial.call(answer, color, within(radius))) for radius in radii]
    off = max(abs(a - radius / 50) for a, radius in zip(found, radii))
    trial.that(off < 1e-6, "it is right for twenty other edges", f"for other edges it is off by up to {off:.2g}")
    fit = all(within(radius)(a * color) for a, radius in zip(found, radii))
    trial.that(fit, "none of them is overshot", "for some edges the returned factor does not fit")
    trial.that(float(trial.call(answer, color, within(0.0))) < 1e-6, "if only gray fits, it is 0", "if only gray fits, the factor is 0")


@exercise
def given_hint(trial: Trial, answer: Any) -> None:
    """Try the weights against torch.distributions, far away, and with a weight of 0."""
    weights, colors, hint, tau = torch.tensor([0.5, 0.3, 0.2]), 8 * trial.numbers(3, 2), torch.tensor([4.0, -3.0]), 6.0
    got = trial.call(answer, weights, colors, hint, tau)
    trial.shape("the weights", got, (3,))
    square = (colors - hint).square().sum(1)

    def normalized(values: Tensor) -> Tensor:
        return values / values.sum()

    density = Independent(Normal(colors, tau), 1).log_prob(hint).exp()
    wanted = normalized(weights * density)
    mistakes = {
        "they do not sum to one: divide by their sum": weights * density,
        "they do not sum to one: divide by their sum (the constant of the Gaussian then does not matter)": weights
        * (-square / (2 * tau**2)).exp(),
        "it looks as if tau stands where tau squared belongs": normalized(weights * (-square / (2 * tau)).exp()),
        "the factor 1/2 in the exponent is missing": normalized(weights * (-square / tau**2).exp()),
        "it looks as if you took the distance where its square belongs": normalized(weights * (-square.sqrt() / (2 * tau**2)).exp()),
        "the old weights are missing: without them all colorings count as equally likely before the hint": normalized(density),
        "the sign is wrong: the coloring farthest from the hint gains": normalized(weights * (square / (2 * tau**2)).exp()),
        "it looks as if the old weights are added to the logarithm of the density; their logarithm belongs there": (
            weights - square / (2 * tau**2)
        ).softmax(0),
    }
    found = torch.as_tensor(got).double()
    close = torch.allclose(found, wanted.double(), atol=1e-4)
    told = [text for text, value in mistakes.items() if torch.allclose(found, value.double(), atol=1e-4)]
    trial.need(close, "they are those of Bayes' rule", told[0] if told else "they differ from those of Bayes' rule")
    far = trial.call(answer, weights, colors, torch.tensor([1000.0, 0.0]), 1.0)
    if not bool(torch.isfinite(torch.as_tensor(far)).all()):
        trial.stop("a hint far away gives NaN: all densities underflow to 0, and 0 / 0 is no number; stay with logarithms")
    nearest = int((colors - torch.tensor([1000.0, 0.0])).norm(dim=1).argmin())
    trial.that(float(far[nearest]) > 0.99, "a hint far away goes to the nearest coloring", "far away, the nearest coloring should win")
    none = trial.call(answer, torch.tensor([0.0, 0.6, 0.4]), colors, hint, tau)
    trial.that(
        math.isclose(float(none[0]), 0, abs_tol=1e-7) and math.isclose(float(none.sum()), 1, abs_tol=1e-5),
        "a coloring of weight 0 keeps it",
        "a coloring of weight 0 should keep it, and the others sum to one",
    )
    loose = trial.call(answer, weights, colors, hint, 1e6)
    trial.close(loose, weights, "a very loose hint changes nothing", "a very loose hint should change nothing")
