"""The rows of the table: what is compared, at which sizes, and what is promised.

A row is a function of `Sizes`. It prepares both sides, checks that they agree, and lets them take turns.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from divcolor_lib.bins import Bins, WeightTable, gamut_bins, prior, zhang_weights
from divcolor_lib.cvae import CVAE, CVAEConfig, ReferenceCVAE
from divcolor_lib.data import FieldSource, PhotoFields, converted
from divcolor_lib.features import code_table, gray_features
from divcolor_lib.lab import AB_SCALE, SIZE, reference_to_ab, rgb_to_lab, split
from divcolor_lib.losses import mixture_nll, reference_cvae_loss
from divcolor_lib.mdn import MDN, MDNConfig
from divcolor_lib.runtime import autocast, best_precision, evaluating, generator
from divcolor_lib.train import CodeSource

from .plain import NearestLevels, colorize_in_a_batch, nearest_bin_weights, opencv_lab, read_batch, read_pixels, resized
from .timing import Timing, take_turns

TARGETS = {"batch": 250.0, "colorize": 8.0, "cvae step": 1.7}
TOLERANCES = {"batch": 0.0, "batch from bytes": 0.0, "colorize": 1e-5, "weights": 0.0, "weights, all pixels at once": 0.0}
CODES = 8
PICTURE_SIDE = 250
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Sizes:
    """How much work a row does. The targets hold for the default sizes.

    Attributes:
        images: photographs in a batch, a multiple of eight.
        width: of the CVAE and MDN; 1 is full width.
        rounds: pairs of measurements.
    """

    images: int = 32
    width: float = 1.0
    rounds: int = 5

    def __post_init__(self) -> None:
        if self.images < 1 or self.images % CODES or not 0 < self.width <= 4 or self.rounds < 1:
            raise ValueError(f"{self}: images is a multiple of {CODES}, width lies in (0, 4], and rounds starts at 1")

    @property
    def full(self) -> bool:
        """Whether these are the sizes that the targets are for."""
        return self.images == 32 and self.width == 1


SMALL_SIZES = Sizes(images=8, width=1 / 16, rounds=1)


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: the row.
        what: what is compared with what.
        ratio, low, high: how many times faster ours is: median, smallest and largest over the pairs.
        ours, baseline: seconds, medians.
        target: the ratio that is promised; `None` promises nothing.
        why_no_target: the reason, where `target` is `None`.
        equal: the largest difference between the two results, in the units of `equal_of`; `None` where nothing is compared.
        equal_of: what is compared, and in which units.
        tolerance: the largest difference allowed; `None` where the difference only informs.
    """

    name: str
    what: str
    ratio: float
    low: float
    high: float
    ours: float
    baseline: float
    target: float | None
    why_no_target: str
    equal: float | None
    equal_of: str
    tolerance: float | None

    @property
    def holds(self) -> bool:
        """Whether the row keeps its promises, the target and the tolerance. NaN keeps none."""
        fast = self.target is None or self.ratio >= self.target
        same = self.tolerance is None or (self.equal is not None and self.equal <= self.tolerance)
        return fast and same


def run(name: str, sizes: Sizes) -> Row:
    """Measure one row.

    Raises:
        KeyError: there is no such row; `ROWS` names them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ROWS[name](sizes)


def batch(sizes: Sizes) -> Row:
    """A batch of gray, ab and weights as training on a processor takes it: fields gathered in memory, and a table."""
    how = "gathered from half-precision fields in memory, with a weight table"
    return _batch("batch", sizes, lambda photos: converted(PhotoFields(photos)), how)


def batch_from_bytes(sizes: Sizes) -> Row:
    """The same where the memory holds photographs as bytes, half the size, and each batch is converted."""
    return _batch("batch from bytes", sizes, PhotoFields, "gathered from bytes in memory and converted, with a weight table")


def _batch(name: str, sizes: Sizes, source: Callable[[Tensor], FieldSource], how: str) -> Row:
    bins, weights = rarity(sizes)
    table, search = WeightTable(bins, weights), NearestLevels(bins, weights)
    with TemporaryDirectory() as folder:
        paths = write_jpegs(Path(folder), pictures(sizes.images, PICTURE_SIDE))
        # The same pixels on both sides: decoded once here, and in every batch there.
        decoded = [resized(read_pixels(path), SIZE)[..., ::-1] for path in paths]
        fields = source(torch.from_numpy(np.stack(decoded)))
        order = torch.randperm(sizes.images, generator=generator(2))

        def ours() -> tuple[Tensor, Tensor, Tensor]:
            gray, ab = fields.batch(order)
            return gray, ab, table(ab)

        timing = take_turns(ours, lambda: read_batch(paths, search), sizes.rounds, repeats=20)
        plain = read_batch(paths, search)
    plain_ab, plain_weights = torch.as_tensor(plain.ab), torch.as_tensor(plain.weights)
    # Both ways of finding a weight, on both codings of the colors; the search of `Bins` is neither.
    _, ab, ours_weights = ours()
    difference = max(
        max_difference(table(plain_ab).expand_as(plain_weights), plain_weights),
        max_difference(ours_weights[:, 0], weights[bins.search(ab * AB_SCALE)]),
    )
    color = max_difference(ab, reference_to_ab(plain_ab)[order]) * AB_SCALE
    return _row(
        name,
        sizes,
        timing,
        f"gray, ab and rarity weights of 32 photographs: {how}; against reading each JPEG, "
        "8-bit Lab and a search for each pixel, without the feature file that the published loader reads too",
        equal=difference,
        equal_of=f"weights on the same color fields, bit for bit (colors differ by up to {color:.2f} Lab units, as theirs are bytes)",
    )


def colorize(sizes: Sizes) -> Row:
    """Eight colorizations of one photograph, reference design."""
    cvae = calibrated(sizes)
    gray, ab = (field[:1] for field in fields_of(sizes))
    codes = torch.randn(CODES, cvae.config.latent, generator=generator(3))

    def ours() -> Tensor:
        with evaluating(cvae):
            return cvae.decode_many(codes[None], gray)[0]

    def baseline() -> Tensor:
        return colorize_in_a_batch(cvae, codes, gray, ab, sizes.images)

    timing = take_turns(ours, baseline, sizes.rounds, repeats=3)
    return _row(
        "colorize",
        sizes,
        timing,
        "eight colorizations, reference design: the photograph encoded once, no gradients; against a batch of 32 "
        "through color encoder, gray encoder and decoder, with gradients",
        equal=max_difference(ours(), baseline()),
        equal_of="color fields, in units of ab/128",
    )


def cvae_step(sizes: Sizes) -> Row:
    """One training step of the reference CVAE."""
    precision = best_precision(CPU)
    gray, ab = fields_of(sizes)
    weights = WeightTable(*rarity(sizes))(ab)
    start = reference_cvae(sizes).train()
    plain = copy.deepcopy(start)
    tuned = start.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    adam = torch.optim.Adam(plain.parameters(), lr=5e-5)
    fused = torch.optim.AdamW(tuned.parameters(), lr=5e-5, fused=True)
    first_losses: dict[str, float] = {}

    def step(side: str, cvae: nn.Module, optimizer: torch.optim.Optimizer, cast_to: str, *batch: Tensor) -> None:
        gray, ab, weights = batch
        torch.manual_seed(4)  # the same dropout on both sides
        with autocast(CPU, cast_to):
            painted, mu, logvar = cvae(ab, gray, generator(4))
            loss = reference_cvae_loss(painted, ab, mu, logvar, weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        first_losses.setdefault(side, float(loss.detach()))

    there = [tensor.contiguous(memory_format=torch.channels_last) for tensor in (gray, ab, weights)]
    timing = take_turns(
        lambda: step("ours", tuned, fused, precision, *there),
        lambda: step("baseline", plain, adam, "fp32", gray, ab, weights),
        sizes.rounds,
    )
    return _row(
        "cvae step",
        sizes,
        timing,
        f"one training step of the reference CVAE on a batch of 32: {precision}, channels last, fused AdamW; against float32 and Adam",
        equal=abs(first_losses["ours"] / first_losses["baseline"] - 1),
        equal_of="loss of the first step, relative",
        why_no_target="" if precision == "bf16" else "this processor has no bfloat16 instructions (AVX512_BF16 or AMX)",
    )


def weights_by_value(sizes: Sizes) -> Row:
    """Rarity weights of 32 color fields: a table against the published search, one value at a time."""
    bins, weights = rarity(sizes)
    table, search = WeightTable(bins, weights), NearestLevels(bins, weights)
    _, ab = fields_of(sizes)
    plain = ab.numpy()

    def baseline() -> NDArray[np.float32]:
        return np.stack([search(field) for field in plain])

    timing = take_turns(lambda: table(ab), baseline, sizes.rounds, repeats=20)
    return _row(
        "weights",
        sizes,
        timing,
        "rarity weights of 32 color fields: a table; against the published search, one value at a time in Python",
        equal=max_difference(table(ab).expand_as(ab), torch.from_numpy(baseline())),
        equal_of="weights, bit for bit",
    )


def weights_at_once(sizes: Sizes) -> Row:
    """Rarity weights of 32 color fields: a table against all distances at once in NumPy."""
    bins, weights = rarity(sizes)
    table = WeightTable(bins, weights)
    _, ab = fields_of(sizes)

    def baseline() -> NDArray[np.float32]:
        return nearest_bin_weights(ab.numpy(), bins.centers.numpy(), weights.numpy())

    timing = take_turns(lambda: table(ab), baseline, sizes.rounds, repeats=20)
    return _row(
        "weights, all pixels at once",
        sizes,
        timing,
        "rarity weights of 32 color fields: a table; against NumPy comparing every pixel with every bin, without a loop over pixels",
        equal=max_difference(table(ab)[:, 0], torch.from_numpy(baseline())),
        equal_of="weights, bit for bit",
    )


def lab(sizes: Sizes) -> Row:
    """Lab of a batch: torch against OpenCV in float32."""
    photos = pictures(sizes.images, SIZE)
    rgb = torch.from_numpy(photos).permute(0, 3, 1, 2)
    timing = take_turns(lambda: rgb_to_lab(rgb), lambda: opencv_lab(photos), sizes.rounds, repeats=20)
    return _row(
        "lab",
        sizes,
        timing,
        "float32 Lab of 32 photographs: torch, which runs on any device and has gradients; against OpenCV, one photograph at a time",
        equal=max_difference(rgb_to_lab(rgb).permute(0, 2, 3, 1), torch.from_numpy(opencv_lab(photos))),
        equal_of="Lab units; OpenCV interpolates in a table",
    )


def codes(sizes: Sizes) -> Row:
    """One step of our MDN: features and posteriors from a table, or through the frozen CVAE every time."""
    cvae = CVAE.build(CVAEConfig(width=sizes.width)).eval()
    mdn = MDN.build(MDNConfig(inputs=cvae.feature_shape, width=sizes.width)).train()
    optimizer = torch.optim.AdamW(mdn.parameters(), lr=2e-3, fused=True)
    gray, ab = fields_of(sizes)
    features, mu, logvar = code_table(cvae, [(gray, ab)])
    source = CodeSource(features, torch.cat([mu, logvar], dim=1))
    order = torch.arange(sizes.images)

    def encoded() -> tuple[Tensor, Tensor]:
        with evaluating(cvae):
            posterior = torch.cat(cvae.encode(ab, gray), dim=1)
        return gray_features(cvae, gray), posterior

    def step(batch: tuple[Tensor, Tensor]) -> None:
        features, posterior = batch
        mean, logvar = posterior.chunk(2, dim=1)
        loss = mixture_nll(mdn(features), mean + (0.5 * logvar).exp() * torch.randn_like(mean))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    timing = take_turns(lambda: step(source.batch(order)), lambda: step(encoded()), sizes.rounds, repeats=5)
    return _row(
        "codes",
        sizes,
        timing,
        "one training step of our MDN on a batch of 32: features and posteriors from a table; against encoding the batch anew",
        equal=max_difference(source.batch(order)[1], encoded()[1]),
        equal_of="posteriors, mu and logvar",
    )


# Insertion order is the order of the table.
ROWS: dict[str, Callable[[Sizes], Row]] = {
    "batch": batch,
    "batch from bytes": batch_from_bytes,
    "colorize": colorize,
    "cvae step": cvae_step,
    "weights": weights_by_value,
    "weights, all pixels at once": weights_at_once,
    "lab": lab,
    "codes": codes,
}


# --- what the rows work on ---


def pictures(count: int, side: int) -> NDArray[np.uint8]:
    """Return uint8 sRGB pictures `(count, side, side, 3)`, smooth and moderately colored like photographs, with a little grain."""
    random = np.random.default_rng(20)
    made = []
    for _ in range(count):
        gray = cv2.resize(random.uniform(40, 215, (9, 9)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
        tint = cv2.resize(random.uniform(-45, 45, (5, 5, 3)).astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
        grain = random.normal(0, 3, (side, side, 1))
        made.append((gray[..., None] + tint + grain).round().clip(0, 255).astype(np.uint8))
    return np.stack(made)


def write_jpegs(folder: Path, photos: NDArray[np.uint8]) -> list[Path]:
    """Write sRGB pictures as JPEG files of quality 95 and return their paths, in order."""
    paths = [folder / f"{number:03}.jpg" for number in range(len(photos))]
    for path, photo in zip(paths, photos):
        cv2.imwrite(str(path), photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return paths


def fields_of(sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Return `gray` and `ab` of one batch of pictures."""
    gray, ab = split(torch.from_numpy(pictures(sizes.images, SIZE)))
    return gray.contiguous(), ab.contiguous()


def rarity(sizes: Sizes) -> tuple[Bins, Tensor]:
    """Return the bins, and the rarity weights that the pictures give them."""
    bins = gamut_bins()
    return bins, zhang_weights(prior(fields_of(sizes)[1], bins), bins)


def reference_cvae(sizes: Sizes) -> ReferenceCVAE:
    """Return an untrained network of the reference design."""
    cvae = CVAE.build(CVAEConfig(design="reference", latent=64, width=sizes.width))
    assert isinstance(cvae, ReferenceCVAE)
    return cvae


def calibrated(sizes: Sizes) -> ReferenceCVAE:
    """Return a network with random weights whose activations have the scale of a trained one's.

    Without it they would shrink from layer to layer, and two outputs that are nearly zero would agree for no reason.
    """
    cvae = reference_cvae(sizes)
    norms = [part for part in cvae.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    gray, ab = fields_of(sizes)
    with torch.no_grad():
        cvae.train()(ab[:CODES], gray[:CODES], generator(5))
    return cvae.eval()


def max_difference(first: Tensor, second: Tensor) -> float:
    """Return the largest absolute difference of two tensors of one shape."""
    if first.shape != second.shape:
        raise ValueError(f"shapes {tuple(first.shape)} and {tuple(second.shape)} cannot be compared")
    return float((first - second).abs().max())


def _row(name: str, sizes: Sizes, timing: Timing, what: str, equal: float, equal_of: str, why_no_target: str = "") -> Row:
    if not why_no_target and not sizes.full:
        why_no_target = "these are not the sizes that the target is for"
    elif name not in TARGETS:
        why_no_target = "for information"
    return Row(
        name=name,
        what=what,
        ratio=timing.ratio,
        low=timing.low,
        high=timing.high,
        ours=timing.ours,
        baseline=timing.baseline,
        target=None if why_no_target else TARGETS[name],
        why_no_target=why_no_target,
        equal=equal,
        equal_of=equal_of,
        tolerance=TOLERANCES.get(name),
    )
