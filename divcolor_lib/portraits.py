"""Procedural portraits: an embedded data set whose posterior p(C|G) is known exactly.

A portrait is drawn in gray first: one field of lightness L, and beside it the share of every pixel that belongs to
each *region* (wall, clothes, skin, hair, hat). Colors come second. They depend on *cues* that the eye sees in gray
(the pattern of the clothes, a hat, glasses, the hair style, the kind of wall) through the three tables below, and on
nothing else in the gray image. With A the shares times s(L) the model is

    C = A(G) c + e,     c | mode m ~ N(c_m, s1^2 I),     e ~ N(0, s0^2 I),

in Lab units, separately for a and b; the mode m is a combination of palettes, with a probability from the tables.
So p(C|G) is a mixture of two to six Gaussians of low rank: we can list its modes, sample from it and evaluate it.

Every random number is a hash of (seed, index, name). Image 7 is the same alone and in any batch, on any number of
threads: the drawing uses only operations that IEEE 754 rounds exactly (+ - * / sqrt min max floor) and one table.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import ConfigError, ShapeError, check_finite, check_shape
from .lab import AB_SCALE, L_SCALE, SIZE, join

# --- The tables: which cues exist, and which colors follow from them ---------------------------------------------

#: Every cue, its values, and how often each value occurs. Cues are drawn independently of each other.
CUES: dict[str, dict[str, float]] = {
    "pattern": {"plain": 1 / 3, "striped": 1 / 3, "dotted": 1 / 3},
    "hat": {"bareheaded": 0.6, "hat": 0.4},
    "glasses": {"no glasses": 0.6, "glasses": 0.4},
    "hair": {"short": 0.25, "long": 0.25, "curly": 0.25, "pigtails": 0.25},
    "wall": {"plain": 1 / 3, "disk": 1 / 3, "panels": 1 / 3},
}
CUE_NAMES: tuple[str, ...] = tuple(CUES)
CUE_VALUES: dict[str, tuple[str, ...]] = {name: tuple(values) for name, values in CUES.items()}

#: The colors (a, b) in Lab units, before the factor s(L).
COLORS: dict[str, tuple[float, float]] = {
    "red": (27.0, 15.0),
    "blue": (6.0, -31.0),
    "green": (-30.0, 26.0),
    "gold": (3.0, 36.0),
    "purple": (32.0, -27.0),
    "rose": (24.0, 2.0),
    "teal": (-20.0, 2.0),
    "sand": (6.0, 24.0),
    "sky": (-4.0, -22.0),
    "lilac": (16.0, -19.0),
    "brown": (8.0, 17.0),
    "ginger": (24.0, 28.0),
    "blond": (3.0, 33.0),
    "skin": (14.0, 19.0),
}

#: An outfit colors two regions at once: the clothes, and the hat if there is one.
OUTFITS: dict[str, dict[str, str]] = {
    "red": {"clothes": "red", "hat": "blue"},
    "blue": {"clothes": "blue", "hat": "gold"},
    "green": {"clothes": "green", "hat": "red"},
    "gold": {"clothes": "gold", "hat": "green"},
    "purple": {"clothes": "purple", "hat": "rose"},
}

#: p(outfit | pattern, hat).
OUTFIT_ODDS: dict[tuple[str, ...], dict[str, float]] = {
    ("plain", "bareheaded"): {"red": 0.55, "blue": 0.25, "green": 0.20},
    ("plain", "hat"): {"red": 0.20, "blue": 0.25, "green": 0.55},
    ("striped", "bareheaded"): {"blue": 0.75, "red": 0.25},
    ("striped", "hat"): {"blue": 0.35, "red": 0.65},
    ("dotted", "bareheaded"): {"gold": 0.70, "purple": 0.30},
    ("dotted", "hat"): {"gold": 0.30, "purple": 0.70},
}

#: p(color of the wall | kind of wall, glasses).
WALL_ODDS: dict[tuple[str, ...], dict[str, float]] = {
    ("plain", "no glasses"): {"rose": 0.70, "teal": 0.30},
    ("plain", "glasses"): {"rose": 0.25, "teal": 0.75},
    ("disk", "no glasses"): {"sand": 0.65, "sky": 0.35},
    ("disk", "glasses"): {"sand": 0.30, "sky": 0.70},
    ("panels", "no glasses"): {"lilac": 1.0},
    ("panels", "glasses"): {"lilac": 1.0},
}

#: p(color of the hair | hair style): here the style decides.
HAIR_ODDS: dict[str, dict[str, float]] = {
    "short": {"brown": 1.0},
    "long": {"ginger": 1.0},
    "curly": {"brown": 1.0},
    "pigtails": {"blond": 1.0},
}

REGIONS: tuple[str, ...] = ("wall", "clothes", "skin", "hair", "hat")
MAX_MODES = 6
PORTRAIT_COUNTS = {"train": 24000, "val": 500, "test": 1000}  #: of the parts that the shipped networks are trained and measured on.
PORTRAIT_SEED = 7  #: of the first part; the next two have the seeds after it.
WITHIN_MODE_SD = 2.0  #: s1, Lab units: how far the region colors of one image stray from those of its mode.
NOISE_SD = 0.5  #: s0, Lab units: independent noise of every pixel.

_WALL, _CLOTHES, _SKIN, _HAIR, _HAT = range(len(REGIONS))
_SHADES = (32.0, 44.0, 56.0, 68.0, 80.0)  # One for each region, so that neighbors always differ in lightness.
_CHUNK = 32  # Images drawn at a time: their buffers then fit in the processor's cache.

Array = NDArray[np.float32]
_Values = Mapping[str, NDArray[np.int64]]  # The value of each cue, for each image.
_Masks = Mapping[str, Array]  # The same as zeros and ones (B, 1, 1), under names such as "hat=hat".


def color_strength(light: Tensor) -> Tensor:
    """Return s(L) = 4 (L/100) (1 - L/100): 1 for middle gray, 0 for black and white, where sRGB has no colors.

    Args:
        light: L in 0..100, any shape.
    """
    return light * (100.0 - light) * (4.0 / 100.0**2)


@dataclass(frozen=True)
class Posterior:
    """The exact p(C|G) of one portrait, mode by mode. M modes, R regions, size S.

    Attributes:
        probabilities: (M,) float64, sums to 1.
        blind: (M,) float64, what a predictor that ignores the cues would give to these modes. It knows the tables and
            how often each cue occurs. The rest, `1 - blind.sum()`, it wastes on modes that this portrait cannot have.
        ab: (M, 2, S, S) float32, the mean color field of each mode, ab/128.
        region_colors: (M, R, 2) float32, the c_m in Lab units.
        regions: the names of the R regions that this portrait has.
        names: what each mode looks like in words.
    """

    probabilities: Tensor
    blind: Tensor
    ab: Tensor
    region_colors: Tensor
    regions: tuple[str, ...]
    names: tuple[str, ...]

    def given_hint(self, region: str, hint: Tensor | Sequence[float], tau: float) -> Tensor:
        """Return p(m | h), the exact probabilities of the modes once a region's color is known up to noise: (M,) float64.

        The hint tells of this one image: h = c + N(0, tau^2 I), c being the color that was drawn for the region and not the
        mean c_m of its mode. Since c given m is N(c_m, s1^2 I), h given m is N(c_m, (s1^2 + tau^2) I), and by Bayes' rule

            p(m | h) is proportional to p_m N(h | c_m, (s1^2 + tau^2) I).

        (Of a hint about the mode's own mean, s1 would have to go.) Colors are those before the factor s(L): where it is a, the
        eye sees a c; so a hint a h with spread a tau about what the eye sees says the same.

        Args:
            region: one of `regions`.
            hint: (2,), a and b in Lab units.
            tau: standard deviation of the hint's a and b, in Lab units; 0 if the color is known exactly.

        Raises:
            ConfigError: the portrait has no such region, or `tau` is negative or not finite.
            ShapeError: `hint` is not two finite numbers.
        """
        if region not in self.regions:
            raise ConfigError(f"the portrait has no `{region}`", "given_hint", f"Use one of {', '.join(self.regions)}.")
        if not (isinstance(tau, (int, float)) and math.isfinite(tau) and tau >= 0):
            raise ConfigError(f"`tau` is {tau}", "given_hint", "Pass a number of Lab units from 0 on.")
        color = torch.as_tensor(hint, dtype=torch.float64)
        check_shape("hint", color, (2,))
        check_finite("hint", color)
        distance = (self.region_colors[:, self.regions.index(region)].double() - color).square().sum(1)
        return (self.probabilities.log() - distance / (2 * (WITHIN_MODE_SD**2 + tau**2))).softmax(0)


@dataclass(frozen=True)
class Posteriors:
    """The posteriors of B portraits, padded to `MAX_MODES` modes and to all `REGIONS`.

    Attributes:
        probabilities: (B, 6) float64; 0 for padding.
        blind: (B, 6) float64, see `Posterior`; 0 for padding.
        region_colors: (B, 6, 5, 2) float32, Lab units; 0 for padding and for absent regions.
        present: (B, 5) bool, which regions a portrait has.
        basis: (B, 5, S, S) float32, A; an absent region has a basis of zeros, which changes no density.
    """

    probabilities: Tensor
    blind: Tensor
    region_colors: Tensor
    present: Tensor
    basis: Tensor

    def fields(self) -> Tensor:
        """Return the mean color field of every mode: (B, 6, 2, S, S) float32, ab/128; padding is neutral."""
        return torch.einsum("brhw,bmrc->bmchw", self.basis, self.region_colors) / AB_SCALE


class Portraits:
    """Portraits 0 .. count-1 of the endless series that `seed` names, each `size` x `size` pixels.

    A portrait depends on the seed, its index and the size, never on `count` or on the rest of a batch.
    Training and test sets are two seeds, or two ranges of indices.

    Raises:
        ConfigError: `count` or `size` is not a positive integer (size from 16), or `seed` is not an integer from 0.
    """

    def __init__(self, count: int, seed: int = 0, size: int = SIZE) -> None:
        for name, value, least in (("count", count, 1), ("seed", seed, 0), ("size", size, 16)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value < 2**63:
                raise ConfigError(f"`{name}` is {value!r}", "Portraits", f"Pass an integer from {least} on.")
        self.count, self.seed, self.size = int(count), int(seed), int(size)

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"Portraits(count={self.count}, seed={self.seed}, size={self.size})"

    def batch(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Return `gray` (B, 1, S, S) = L/50 - 1 and the true `ab` (B, 2, S, S) = ab/128, float32, on the CPU.

        Raises:
            ShapeError: an index is not an integer in 0 .. count-1.
        """
        wanted = self._checked(indices)
        gray = np.empty((len(wanted), 1, self.size, self.size), np.float32)
        ab = np.empty((len(wanted), 2, self.size, self.size), np.float32)
        for part, streams, cues, light, shares in self._drawn(wanted):
            gray[part, 0] = light / np.float32(L_SCALE) - np.float32(1.0)
            ab[part] = _color(streams, cues, _strengthen(light, shares))
        return torch.from_numpy(gray), torch.from_numpy(ab)

    def gray(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Return `gray` (B, 1, S, S) alone, the same bits as `batch` gives."""
        wanted = self._checked(indices)
        gray = np.empty((len(wanted), 1, self.size, self.size), np.float32)
        for part, _, _, light, _ in self._drawn(wanted):
            gray[part, 0] = light / np.float32(L_SCALE) - np.float32(1.0)
        return torch.from_numpy(gray)

    def cues(self, indices: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """Return for each cue of `CUE_NAMES` its value as int64 (B,), a position in `CUE_VALUES[name]`."""
        cues = _draw_cues(_Streams(self.seed, self._checked(indices)))
        return {name: torch.from_numpy(cues[name]) for name in CUE_NAMES}

    def modes(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Return the true joint mode of each portrait, int64 (B,): a row of its `posterior`."""
        streams = _Streams(self.seed, self._checked(indices))
        return torch.from_numpy(_draw_modes(streams, _draw_cues(streams)))

    def posteriors(self, indices: Sequence[int] | Tensor) -> Posteriors:
        """Return the posteriors of many portraits at once, padded; see `Posteriors`. A portrait of 64 x 64 takes 80 kB."""
        wanted = self._checked(indices)
        table, row = _joint_table(), _combination(_draw_cues(_Streams(self.seed, wanted)))
        basis = np.empty((len(wanted), len(REGIONS), self.size, self.size), np.float32)
        for part, _, _, light, shares in self._drawn(wanted):
            basis[part] = _strengthen(light, shares).swapaxes(0, 1)
        return Posteriors(
            probabilities=torch.from_numpy(table.probabilities[row]),
            blind=torch.from_numpy(table.blind[row]),
            region_colors=torch.from_numpy(table.colors[row]),
            present=torch.from_numpy(table.present[row]),
            basis=torch.from_numpy(basis),
        )

    def posterior(self, index: int) -> Posterior:
        """Return every joint mode of one portrait with its probability, its mean field and its region colors."""
        batch = self.posteriors([index])
        row = int(_combination(_draw_cues(_Streams(self.seed, self._checked([index]))))[0])
        names, present = _joint_table().names[row], batch.present[0]
        return Posterior(
            probabilities=batch.probabilities[0, : len(names)],
            blind=batch.blind[0, : len(names)],
            ab=batch.fields()[0, : len(names)],
            region_colors=batch.region_colors[0, : len(names), present],
            regions=self.region_names(index),
            names=names,
        )

    def blind_posterior(self, index: int) -> Tensor:
        """Return (M,) float64: the probabilities that a predictor ignoring the cues gives to this portrait's modes."""
        return self.posterior(index).blind

    def region_names(self, index: int) -> tuple[str, ...]:
        """Return the names of the regions that the portrait has, in the order of `basis`."""
        row = _combination(_draw_cues(_Streams(self.seed, self._checked([index]))))[0]
        return tuple(name for name, there in zip(REGIONS, _joint_table().present[row]) if there)

    def basis(self, index: int) -> Tensor:
        """Return A (R, S, S) float32: the share of each region in each pixel, times s(L).

        The shares of a pixel sum to at most 1. Neutral parts (eyes, brows, frames of glasses) belong to no region.
        """
        batch = self.posteriors([index])
        return batch.basis[0, batch.present[0]]

    def sample(self, index: int, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` color fields from p(C|G) of one portrait: (count, 2, S, S) float32, ab/128, on the generator's device.

        Raises:
            ConfigError: `count` is less than 1.
        """
        if count < 1:
            raise ConfigError(f"`count` is {count}", "Portraits.sample", "Ask for one sample or more.")
        exact, basis, device = self.posterior(index), self.basis(index), generator.device
        modes = torch.multinomial(exact.probabilities.to(device), count, replacement=True, generator=generator)
        colors = exact.region_colors.to(device)[modes]
        colors = colors + WITHIN_MODE_SD * torch.randn(colors.shape, generator=generator, device=device)
        noise = NOISE_SD * torch.randn(count, 2, self.size, self.size, generator=generator, device=device)
        return (torch.einsum("rhw,nrc->nchw", basis.to(device), colors) + noise) / AB_SCALE

    def log_prob(self, index: int, ab: Tensor) -> Tensor:
        """Return log p(ab | gray) of color fields for one portrait, in nats: (N,) float64.

        The density is that of the normalized field ab/128, over its 2 S S numbers. Differentiable in `ab`.

        Args:
            ab: (N, 2, S, S), any float type, any device.

        Raises:
            ShapeError: `ab` has another shape.
        """
        check_shape("ab", ab, (None, 2, self.size, self.size))
        return _log_prob(self.posteriors([index]), ab[None])[0]

    def log_prob_batch(self, indices: Sequence[int] | Tensor, ab: Tensor) -> Tensor:
        """Return log p(ab | gray), (B,) float64: the i-th color field (B, 2, S, S) under the i-th portrait of `indices`."""
        wanted = self._checked(indices)
        check_shape("ab", ab, (len(wanted), 2, self.size, self.size))
        parts = [_log_prob(batch, ab[part, None])[:, 0] for part, batch in self._posteriors_by_part(wanted)]
        return torch.cat(parts)

    def project(self, indices: Sequence[int] | Tensor, ab: Tensor) -> Tensor:
        """Return the region colors that explain color fields best: the least-squares c of ab = A c.

        Args:
            ab: (B, K, 2, S, S), K colorizations of each portrait, ab/128.

        Returns:
            (B, K, 5, 2) float64 in Lab units; 0 for regions that a portrait does not have.
        """
        wanted = self._checked(indices)
        check_shape("ab", ab, (len(wanted), None, 2, self.size, self.size))
        return torch.cat([_project(batch, ab[part]) for part, batch in self._posteriors_by_part(wanted)])

    def describe(self, index: int) -> str:
        """Return one line of words, fit as an alt text: `portrait 7: striped shirt, long hair, hat, glasses, plain wall`."""
        value = {name: CUE_VALUES[name][int(found)] for name, found in self.cues([index]).items()}
        parts = [f"{value['pattern']} shirt"]
        parts += [f"{value['hair']} hair" if value["hair"] != "pigtails" else "pigtails"] if "hair" in self.region_names(index) else []
        parts += ["hat"] if value["hat"] == "hat" else []
        parts += ["glasses"] if value["glasses"] == "glasses" else []
        parts += [{"plain": "plain wall", "disk": "wall with a disk", "panels": "paneled wall"}[value["wall"]]]
        return f"portrait {int(index)}: {', '.join(parts)}"

    @staticmethod
    def picture(gray: Tensor, ab: Tensor) -> Tensor:
        """Return uint8 sRGB (B, S, S, 3), for the eye only: no code computes gray from it."""
        return join(gray, ab)

    def _checked(self, indices: Sequence[int] | Tensor) -> NDArray[np.uint64]:
        found = torch.as_tensor(indices).detach().cpu()
        if found.numel() == 0:
            found = found.long()
        if found.ndim != 1 or found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
            raise ShapeError(f"indices are {found.dtype} of shape {tuple(found.shape)}", "Portraits", "Pass a list of integers.")
        outside = found[(found < 0) | (found >= self.count)]
        if outside.numel():
            raise ShapeError(f"portrait {int(outside[0])} does not exist", repr(self), f"Indices run from 0 to {self.count - 1}.")
        return found.numpy().astype(np.uint64)

    def _posteriors_by_part(self, wanted: NDArray[np.uint64]) -> Iterator[tuple[slice, Posteriors]]:
        """Yield the posteriors of a few hundred portraits at a time, so that any number of them fits in memory."""
        for start in range(0, len(wanted), 8 * _CHUNK):
            part = slice(start, start + 8 * _CHUNK)
            yield part, self.posteriors(torch.from_numpy(wanted[part].astype(np.int64)))

    def _drawn(self, wanted: NDArray[np.uint64]) -> Iterator[tuple[slice, _Streams, _Values, Array, Array]]:
        """Yield the portraits in small parts: their place, streams, cues, lightness (n, S, S) and region shares (5, n, S, S)."""
        for start in range(0, len(wanted), _CHUNK):
            part = slice(start, start + _CHUNK)
            streams = _Streams(self.seed, wanted[part])
            cues = _draw_cues(streams)
            yield part, streams, cues, *_draw(streams, cues, self.size)


# --- Random numbers: a hash of (seed, index, name) ----------------------------------------------------------------


class _Streams:
    """Random numbers of several images at once; each is a pure function of (seed, index of the image, name, position)."""

    def __init__(self, seed: int, indices: NDArray[np.uint64]) -> None:
        with np.errstate(over="ignore"):
            self._keys = _mixed(_mixed(np.array([seed], np.uint64)) + indices)

    def words(self, name: str, count: int) -> NDArray[np.uint64]:
        """Return (B, count) 64-bit words: SplitMix64 (Steele, Lea, Flood 2014), started at a key of its own for each image."""
        with np.errstate(over="ignore"):
            start = _mixed(self._keys ^ np.uint64(zlib.crc32(name.encode())))
            steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
            return _mixed(start[:, None] + steps)

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> Array:
        """Return (B, 1, 1), uniform in [low, high)."""
        fraction = (self.words(name, 1) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
        return (low + (high - low) * fraction)[:, :, None]

    def sign(self, name: str) -> Array:
        """Return (B, 1, 1), -1 or +1 with equal odds."""
        return _sign(self.uniform(name) - 0.5)

    def choice(self, name: str, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return (B,), positions in the last axis of `probabilities` (n,) or (B, n)."""
        fraction = (self.words(name, 1) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        # Rounding can leave the last sum below 1, so the last position that is possible takes what remains.
        below = np.cumsum(probabilities, -1)[..., :-1]
        last = (np.broadcast_to(probabilities, (len(fraction), probabilities.shape[-1])) > 0).cumsum(-1).argmax(-1)
        return np.minimum((fraction >= below).sum(-1), last).astype(np.int64)

    def normal(self, name: str, count: int) -> Array:
        """Return (B, count) standard normal numbers. Each takes 16 bits, so there are 65536 different ones, up to 4.3."""
        words = self.words(name, -(-count // 4)).astype("<u8", copy=False)
        return _normal_table()[words.view("<u2")[:, :count]]


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mixed(word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the finalizer of SplitMix64: every output bit depends on every input bit."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@lru_cache(maxsize=1)
def _normal_table() -> Array:
    """Return the (k + 1/2) / 65536 quantiles of N(0, 1), scaled to variance 1."""
    quantiles = torch.special.ndtri((torch.arange(65536, dtype=torch.float64) + 0.5) / 65536)
    return (quantiles / quantiles.square().mean().sqrt()).float().numpy()


# --- From cues to modes -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _JointTable:
    """What the tables above say for each combination of cues, in the order of `itertools.product`."""

    probabilities: NDArray[np.float64]  # (combinations, 6)
    blind: NDArray[np.float64]  # (combinations, 6)
    colors: Array  # (combinations, 6, 5, 2)
    present: NDArray[np.bool_]  # (combinations, 5)
    names: tuple[tuple[str, ...], ...]


@lru_cache(maxsize=1)
def _joint_table() -> _JointTable:
    combinations = list(itertools.product(*CUE_VALUES.values()))
    probabilities, blind = np.zeros((2, len(combinations), MAX_MODES))
    colors = np.zeros((len(combinations), MAX_MODES, len(REGIONS), 2), np.float32)
    present = np.ones((len(combinations), len(REGIONS)), bool)
    names: list[tuple[str, ...]] = []
    any_outfit = _marginal(OUTFIT_ODDS, "pattern", "hat")
    any_wall = _marginal(WALL_ODDS, "wall", "glasses")
    any_hair = _marginal({(style,): odds for style, odds in HAIR_ODDS.items()}, "hair")
    for row, (pattern, hat, glasses, style, wall_kind) in enumerate(combinations):
        present[row, _HAT] = hat == "hat"
        present[row, _HAIR] = not (hat == "hat" and style == "short")  # The hat hides all of it.
        modes = itertools.product(OUTFIT_ODDS[pattern, hat].items(), WALL_ODDS[wall_kind, glasses].items(), HAIR_ODDS[style].items())
        words: list[str] = []
        for mode, ((outfit, p_outfit), (wall, p_wall), (hair, p_hair)) in enumerate(modes):
            worn = OUTFITS[outfit]
            dyed = {"wall": wall, "clothes": worn["clothes"], "skin": "skin", "hair": hair, "hat": worn["hat"]}
            probabilities[row, mode] = p_outfit * p_wall * p_hair
            blind[row, mode] = any_outfit[outfit] * any_wall[wall] * (any_hair[hair] if present[row, _HAIR] else 1.0)
            colors[row, mode] = [COLORS[dyed[region]] for region in REGIONS]
            shown = [region for region, there in zip(REGIONS, present[row]) if there and region != "skin"]
            words.append(", ".join(f"{dyed[region]} {region}" for region in shown))
        names.append(tuple(words))
    colors *= present[:, None, :, None]
    return _JointTable(probabilities, blind, colors, present, tuple(names))


def _marginal(odds: Mapping[tuple[str, ...], Mapping[str, float]], *cues: str) -> dict[str, float]:
    """Return p(palette), summed over the values of `cues`, which are independent."""
    total: dict[str, float] = {}
    for values, palettes in odds.items():
        weight = math.prod(CUES[cue][value] for cue, value in zip(cues, values))
        for palette, p in palettes.items():
            total[palette] = total.get(palette, 0.0) + weight * p
    return total


def _draw_cues(streams: _Streams) -> dict[str, NDArray[np.int64]]:
    return {name: streams.choice(f"cue: {name}", np.array(list(odds.values()))) for name, odds in CUES.items()}


def _combination(cues: _Values) -> NDArray[np.int64]:
    """Return the row of the joint table for each image."""
    return np.ravel_multi_index(tuple(cues[name] for name in CUE_NAMES), tuple(len(CUES[name]) for name in CUE_NAMES)).astype(np.int64)


def _draw_modes(streams: _Streams, cues: _Values) -> NDArray[np.int64]:
    return streams.choice("mode", _joint_table().probabilities[_combination(cues)])


# --- From modes to colors -----------------------------------------------------------------------------------------


def _strengthen(light: Array, shares: Array) -> Array:
    """Return A (5, B, S, S): the shares times s(L)."""
    return shares * color_strength(torch.from_numpy(light)).numpy()


def _color(streams: _Streams, cues: _Values, basis: Array) -> Array:
    """Return the true field (B, 2, S, S) of each image, ab/128: a draw of the mode, of its colors, and of the noise."""
    regions, batch, height, width = basis.shape
    center = _joint_table().colors[_combination(cues), _draw_modes(streams, cues)]
    stray = streams.normal("colors", regions * 2).reshape(batch, regions, 2)
    colors = center + np.float32(WITHIN_MODE_SD) * stray
    field = np.float32(NOISE_SD) * streams.normal("noise", 2 * height * width).reshape(batch, 2, height, width)
    # A sum in a fixed order: a matrix product may round differently for another batch size.
    for region in range(regions):
        for channel in range(2):
            field[:, channel] += basis[region] * colors[:, region, channel, None, None]
    return field / np.float32(AB_SCALE)


def _project(batch: Posteriors, ab: Tensor) -> Tensor:
    """Solve the normal equations A^T A c = A^T y for each colorization (B, K, 2, S, S): (B, K, 5, 2) float64."""
    basis = batch.basis.to(ab.device).double().flatten(2)
    seen = torch.einsum("brp,bkcp->bkrc", basis, ab.double().flatten(3) * AB_SCALE)
    # An absent region gets a one on the diagonal, so that its color solves 1 * c = 0.
    gram = basis @ basis.mT + torch.diag_embed((~batch.present).double()).to(ab.device)
    return torch.linalg.solve(gram[:, None], seen)


def _log_prob(batch: Posteriors, ab: Tensor) -> Tensor:
    """Return log p of `ab` (B, N, 2, S, S) under each posterior: (B, N) float64.

    Both channels have covariance V = s0^2 I + s1^2 A A^T. With K = (s0/s1)^2 I + A^T A (R x R), Woodbury's identity gives
    r^T V^-1 r = (r^T r - (A^T r)^T K^-1 (A^T r)) / s0^2, and the determinant lemma log|V| = P log s0^2 + log|K| - R log (s0/s1)^2.
    """
    device = ab.device
    basis = batch.basis.to(device).double().flatten(2)  # (B, R, P)
    colors, weights = batch.region_colors.to(device).double(), batch.probabilities.to(device)
    field = ab.double().flatten(3) * AB_SCALE  # (B, N, 2, P)
    count, pixels = basis.shape[1:]
    ratio = (NOISE_SD / WITHIN_MODE_SD) ** 2
    gram = basis @ basis.mT
    factor = torch.linalg.cholesky(gram + ratio * torch.eye(count, dtype=gram.dtype, device=device))
    log_det = pixels * math.log(NOISE_SD**2) + 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) - count * math.log(ratio)

    # The residual r = y - A c enters only through r^T r and A^T r, which expand in c: no field is built for any mode.
    seen = torch.einsum("brp,bncp->bnrc", basis, field)  # A^T y
    predicted = torch.einsum("brs,bmsc->bmrc", gram, colors)  # A^T A c
    square = field.square().sum((-1, -2))[:, :, None] - 2 * torch.einsum("bnrc,bmrc->bnm", seen, colors)
    square = square + (colors * predicted).sum((-1, -2))[:, None]
    inner = seen[:, :, None] - predicted[:, None]  # A^T r, (B, N, M, R, 2)
    whitened = torch.linalg.solve_triangular(factor[:, None, None], inner, upper=False)
    distance = (square - whitened.square().sum((-1, -2))) / NOISE_SD**2
    # Two channels, and the change of units from Lab to ab/128.
    constant = log_det + pixels * (math.log(2 * math.pi) - 2 * math.log(AB_SCALE))
    return (weights.log()[:, None] - 0.5 * distance).logsumexp(-1) - constant[:, None]


# --- Drawing ------------------------------------------------------------------------------------------------------
# Coordinates run from -1 to 1, y down. A shape is a signed distance (negative inside), which becomes a soft cover.


class _Canvas:
    """Lightness and region shares of a few images, painted from back to front."""

    def __init__(self, light: Array, softness: float) -> None:
        self.light = light
        self.shares = np.zeros((len(REGIONS), *light.shape), np.float32)
        self.softness = softness

    def cover(self, distance: Array, softness: float = 0.0) -> Array:
        """Return how much of each pixel a shape covers, in [0, 1]."""
        width = max(softness, self.softness)
        return np.clip(0.5 - distance * np.float32(1 / width), 0.0, 1.0)

    def paint(self, cover: Array, light: Array | float, region: int | None) -> None:
        """Put something opaque of lightness `light` on top; without a region it stays neutral."""
        self.tint(cover, light)
        self.shares *= 1.0 - cover
        if region is not None:
            self.shares[region] += cover

    def tint(self, cover: Array, light: Array | float) -> None:
        """Change the lightness only."""
        self.light += cover * (light - self.light)


def _draw(streams: _Streams, cues: _Values, size: int) -> tuple[Array, Array]:
    """Return lightness L (B, S, S) and region shares (5, B, S, S). Nothing here knows the mode."""
    grid = ((np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)
    x, y = np.broadcast_arrays(grid[None, None, :], grid[None, :, None])
    has = {
        f"{name}={value}": (cues[name] == position).astype(np.float32)[:, None, None]
        for name in CUE_NAMES
        for position, value in enumerate(CUE_VALUES[name])
    }
    shade = _draw_shades(streams)
    lean = streams.sign("side of the lamp")

    middle = streams.uniform("middle", -0.07, 0.07)
    scale, tilt = streams.uniform("scale", 1.0, 1.1), streams.uniform("tilt", -0.12, 0.12)
    norm = 1.0 / (scale * np.sqrt(1.0 + tilt * tilt))
    right, down = x - middle, y - streams.uniform("height", -0.13, -0.06)
    head_x, head_y = (right + tilt * down) * norm, (down - tilt * right) * norm

    canvas = _Canvas(_wall_light(x, y, right, down, streams, has, shade, lean, 2.4 / size), 2.4 / size)
    canvas.shares[_WALL] = 1.0
    _paint_clothes(canvas, right, y, down, streams, has, shade[_CLOTHES], lean)
    _paint_back_hair(canvas, head_x, head_y, streams, has, shade[_HAIR], lean)
    _paint_head(canvas, right, down, head_x, head_y, streams, has, shade[_SKIN], lean)
    _paint_front_hair(canvas, head_x, head_y, streams, has, shade[_HAIR], lean)
    _paint_face(canvas, head_x, head_y, streams, shade[_SKIN])
    _paint_hat(canvas, head_x, head_y, has, shade[_HAT], lean)
    _paint_glasses(canvas, head_x, head_y, has, streams)
    grain = streams.normal("grain", size * size).reshape(canvas.light.shape)
    return canvas.light + 0.5 * grain, canvas.shares


def _draw_shades(streams: _Streams) -> list[Array]:
    """Return the lightness of each region, (B, 1, 1): a random order of `_SHADES`, so that neighbors differ either way."""
    skin = streams.choice("shade of the skin", np.array([0.0, 0.2, 0.25, 0.3, 0.25]))
    order = np.concatenate([streams.uniform(f"order of {name}")[:, 0] for name in REGIONS], 1)
    order[:, _SKIN] = 2.0
    rank = order.argsort(1, kind="stable").argsort(1, kind="stable")  # 0..3 for the others, 4 for the skin
    slot = np.where(rank >= skin[:, None], rank + 1, rank)
    slot[:, _SKIN] = skin
    shades = np.array(_SHADES, np.float32)[slot]
    return [shades[:, k, None, None] + streams.uniform(f"shade of {name}", -1.5, 1.5) for k, name in enumerate(REGIONS)]


def _wall_light(
    x: Array, y: Array, right: Array, down: Array, streams: _Streams, has: _Masks, shade: list[Array], lean: Array, soft: float
) -> Array:
    """Return the wall: its shade behind the head, and patterns that move away from the shade of what they touch."""
    wall = shade[_WALL]
    light = wall - 2.0 * y * streams.sign("wall gradient") - 1.5 * lean * x
    outside = np.clip(0.5 + (_length(right, down + 0.02) - streams.uniform("disk", 0.82, 0.90)) / soft, 0.0, 1.0)
    light = light + has["wall=disk"] * outside * 9.0 * _sign(wall - shade[_CLOTHES])
    width = streams.uniform("panel width", 0.24, 0.30)
    panel = np.clip(0.5 - (0.25 * width - abs(_fold(x + streams.uniform("panel shift"), width))) / soft, 0.0, 1.0)
    return light + has["wall=panels"] * panel * 7.0 * _sign(wall - shade[_HAIR])


def _paint_clothes(canvas: _Canvas, right: Array, y: Array, down: Array, streams: _Streams, has: _Masks, shade: Array, lean: Array) -> None:
    width, top = streams.uniform("shoulders", 0.80, 0.92), streams.uniform("shoulder height", 0.34, 0.42)
    body = _ellipse(right, y - top - 0.72, width, 0.72)
    light = shade - 4.0 * lean * right - 5.0 * np.clip(y - 0.7, 0.0, 1.0)
    away = _toward_middle(shade)
    period = streams.uniform("stripe period", 0.20, 0.24)
    stripe = canvas.cover(0.25 * period - abs(_fold(y + 0.18 * right * right + streams.uniform("stripe shift"), period)))
    spacing = streams.uniform("dot spacing", 0.25, 0.29)
    row = np.floor(y / spacing + 0.5)
    dot_x = _fold(right + 0.5 * spacing * (row - 2.0 * np.floor(0.5 * row)), spacing)
    dot = canvas.cover(_length(dot_x, y - row * spacing) - 0.34 * spacing)
    light = light + 17.0 * away * (has["pattern=striped"] * stripe + has["pattern=dotted"] * dot)
    canvas.paint(canvas.cover(body), light, _CLOTHES)
    collar = _box(right, down - 0.36, 0.15, 0.26, 0.15) - 0.06
    canvas.tint(canvas.cover(collar) * canvas.shares[_CLOTHES], shade + 7.0 * away)


def _paint_back_hair(canvas: _Canvas, x: Array, y: Array, streams: _Streams, has: _Masks, shade: Array, lean: Array) -> None:
    """Paint what falls behind the face: one ellipse (long, curly), two (pigtails), or nothing (short)."""
    wobble = has["hair=curly"] * np.float32(0.05)
    wavy_x, wavy_y = x + wobble * _smooth_wave(y, 0.27), y + wobble * _smooth_wave(x, 0.27)
    # Under a hat curls spread lower and wider, so that enough hair to color remains in sight.
    pressed = has["hair=curly"] * has["hat=hat"]
    offset = 0.52 * has["hair=pigtails"]
    center = 0.10 * has["hair=long"] - 0.10 * has["hair=curly"] + 0.20 * has["hair=pigtails"] + 0.10 * pressed
    wide = 0.54 * has["hair=long"] + 0.60 * has["hair=curly"] + 0.20 * has["hair=pigtails"] + 0.06 * pressed + 0.01 * has["hair=short"]
    tall = 0.70 * has["hair=long"] + 0.58 * has["hair=curly"] + 0.38 * has["hair=pigtails"] + 0.01 * has["hair=short"]
    there = 1.0 - has["hair=short"]
    grow = streams.uniform("hair volume", 0.97, 1.05)
    shape = _ellipse(abs(wavy_x) - offset, wavy_y - center, wide * grow, tall * grow)
    canvas.paint(canvas.cover(shape) * there, _hair_light(x, y, has, shade, lean) - 2.0, _HAIR)


def _hair_light(x: Array, y: Array, has: _Masks, shade: Array, lean: Array) -> Array:
    curls = has["hair=curly"]
    strands = (1.0 - curls) * _wave(x + 0.25 * y * y, 0.11) + curls * _wave(x + y, 0.2) * _wave(x - y, 0.2)
    return shade + (1.6 + 2.0 * curls) * strands - 4.0 * lean * x - 3.0 * y


def _paint_head(
    canvas: _Canvas, right: Array, down: Array, x: Array, y: Array, streams: _Streams, has: _Masks, shade: Array, lean: Array
) -> None:
    neck = _box(right, down - 0.36, 0.15, 0.26, 0.15)
    chin = streams.uniform("chin", 0.40, 0.44)
    shadow = canvas.cover(_ellipse(right, down - 0.07, 0.40, 0.42), 0.12)
    canvas.paint(canvas.cover(neck), shade - 3.0 - 7.0 * shadow - 3.0 * lean * right, _SKIN)
    ears = _ellipse(abs(x) - 0.40, y - 0.03, 0.07, 0.10)
    canvas.paint(canvas.cover(ears) * has["hair=short"], shade - 4.0, _SKIN)
    below: Array = np.maximum(y, 0.0)
    head = _ellipse(x * (1.0 + 0.22 * below), y, streams.uniform("face width", 0.37, 0.41), chin)
    canvas.paint(canvas.cover(head), shade - 7.0 * lean * x - 2.0 * y, _SKIN)


def _paint_front_hair(canvas: _Canvas, x: Array, y: Array, streams: _Streams, has: _Masks, shade: Array, lean: Array) -> None:
    """Paint the cap of hair above the hairline; a hat replaces it."""
    part = streams.uniform("parting", -0.16, 0.16)
    wobble = has["hair=curly"] * np.float32(0.03)
    line = -0.27 + (0.9 + 1.3 * abs(part)) * (x - part) * (x - part) + wobble * _smooth_wave(x, 0.22)
    cap = _ellipse(x, y + 0.12, 0.45, streams.uniform("hair height", 0.50, 0.56))
    falls = y - np.minimum(line, 0.10)
    cover = canvas.cover(np.maximum(cap, falls * 0.8)) * has["hat=bareheaded"]
    cast = canvas.cover(np.maximum(cap, falls * 0.8 - 0.05), 0.08) * has["hat=bareheaded"] * canvas.shares[_SKIN]
    canvas.light -= 4.0 * cast
    canvas.paint(cover, _hair_light(x, y, has, shade, lean) + 2.0, _HAIR)


def _paint_face(canvas: _Canvas, x: Array, y: Array, streams: _Streams, shade: Array) -> None:
    eye_y = y - streams.uniform("eye height", 0.01, 0.04)
    apart = streams.uniform("eye distance", 0.145, 0.17)
    side = abs(x) - apart
    gaze = streams.uniform("gaze", -0.02, 0.02)
    canvas.tint(_glow(abs(x) - 0.21, y - 0.16, 0.13), shade - streams.uniform("blush", 2.0, 5.0))
    canvas.tint(0.8 * canvas.cover(_ellipse(x - 0.012, y - 0.13, 0.042, 0.036), 0.06), shade - 9.0)
    canvas.tint(_glow(x + 0.01, y - 0.04, 0.07), shade + 3.0)
    canvas.paint(canvas.cover(_ellipse(side, eye_y, 0.075, 0.056)), 92.0, None)
    canvas.paint(canvas.cover(_length(x - np.where(x < 0, -apart, apart) - gaze, eye_y) - 0.044), 16.0, None)
    raised = streams.uniform("brow", 0.10, 0.13)
    brow = abs(eye_y + raised - 2.2 * side * side + streams.uniform("brow slope", -0.1, 0.1) * side) - 0.018
    canvas.paint(canvas.cover(np.maximum(brow, abs(side) - 0.085)), 22.0, None)
    smile, wide = streams.uniform("smile", 1.5, 4.5), streams.uniform("mouth width", 0.10, 0.14)
    lips = abs(y - 0.255 + smile * x * x) - 0.022
    canvas.tint(canvas.cover(np.maximum(lips, abs(x) - wide)), shade - 19.0)


def _paint_hat(canvas: _Canvas, x: Array, y: Array, has: _Masks, shade: Array, lean: Array) -> None:
    """Paint a knitted hat: a dome, a pompon and a band."""
    there, away = has["hat=hat"], _toward_middle(shade)
    dome = np.maximum(_ellipse(x, y + 0.24, 0.47, 0.48), y + 0.22)
    ribs = _wave(x * (1.0 + 0.5 * (y + 0.3)), 0.13)
    canvas.paint(canvas.cover(dome) * there, shade - 5.0 * lean * x + 1.8 * ribs, _HAT)
    canvas.paint(canvas.cover(_length(x, y + 0.70) - 0.11) * there, shade + 5.0 * away - 8.0 * lean * x, _HAT)
    band = _box(x, y + 0.25, 0.48, 0.085, 0.07)
    canvas.paint(canvas.cover(band) * there, shade + (6.0 + 1.5 * ribs) * away - 4.0 * lean * x, _HAT)


def _paint_glasses(canvas: _Canvas, x: Array, y: Array, has: _Masks, streams: _Streams) -> None:
    there, eye_y = has["glasses=glasses"], y - 0.025
    lens = _box(abs(x) - 0.165, eye_y, 0.125, 0.11, 0.09)
    rims = abs(lens) - 0.018
    bridge = np.maximum(abs(x) - 0.05, abs(eye_y) - 0.016)
    temples = np.maximum(abs(abs(x) - 0.33) - 0.06, abs(eye_y) - 0.014)
    canvas.paint(canvas.cover(np.minimum(np.minimum(rims, bridge), temples)) * there, streams.uniform("frame", 14.0, 22.0), None)


def _toward_middle(shade: Array) -> Array:
    """Return the sign that moves a shade toward middle gray, so that patterns never reach black or white."""
    return _sign(56.0 - shade)


def _sign(x: Array) -> Array:
    return np.where(x < 0.0, np.float32(-1), np.float32(1))


def _length(x: Array, y: Array) -> Array:
    square = x * x + y * y
    return np.sqrt(square, out=square)


def _ellipse(x: Array, y: Array, a: Array | float, b: Array | float) -> Array:
    """Return about the signed distance to an ellipse with half axes a, b: f / |grad f| for f = (x/a)^2 + (y/b)^2 - 1."""
    u, v = x / a, y / b
    slope: Array = np.maximum(2.0 * _length(u / a, v / b), np.float32(1e-6))
    return np.asarray((u * u + v * v - 1.0) / slope, np.float32)


def _box(x: Array, y: Array, a: float, b: Array | float, radius: float) -> Array:
    """Return the signed distance to a box with half sides a, b and round corners."""
    u, v = abs(x) - (a - radius), abs(y) - (b - radius)
    return _length(np.maximum(u, 0.0), np.maximum(v, 0.0)) + np.minimum(np.maximum(u, v), 0.0) - radius


def _fold(x: Array, period: Array | float) -> Array:
    """Return `x` folded to [-period/2, period/2)."""
    turns = x / period
    whole: Array = np.floor(turns + 0.5)
    return np.asarray((turns - whole) * period, np.float32)


def _wave(x: Array, period: Array | float) -> Array:
    """Return a triangle wave between -1 and 1."""
    return np.asarray(abs(_fold(x, period)) * (4.0 / period) - 1.0, np.float32)


def _smooth_wave(x: Array, period: Array | float) -> Array:
    """Return a rounded wave between -1 and 1, nearly a cosine, without a transcendental function."""
    wave = _wave(x, period)
    return wave * (1.5 - 0.5 * wave * wave)


def _glow(x: Array, y: Array, radius: float) -> Array:
    """Return a soft spot: 1 in the middle, 0 from `radius` on."""
    return np.square(np.maximum(1.0 - (x * x + y * y) * np.float32(1 / radius**2), 0.0))
