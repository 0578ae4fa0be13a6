"""A gray photograph in, several colorizations with probabilities out.

The networks see 64x64 pixels. Color is smooth where lightness is sharp, so the predicted colors are enlarged and joined
to the photograph's own lightness at full resolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from .cvae import CVAE, ColorClassifier, ColorRegressor, CVAEConfig, load_exactly
from .errors import CheckpointError, ConfigError, ImageError, ShapeError, check_finite, check_shape
from .features import mdn_inputs
from .lab import AB_SCALE, L_SCALE, SIZE, area_weights, lab_to_rgb, read_image, resize_area, rgb_to_lab, to_gamut, to_uint8
from .mdn import MDN, MDNConfig
from .runtime import evaluating, generator
from .train import read_tensors, write_tensors

PRETRAINED = ("faces", "portraits")
SAME_COLORS = 2.0
BACK_PROJECTIONS = 4
SAMPLE_ROUNDS = 4
HINT_TAU = 10.0
NETWORKS = {"cvae": "CVAE", "mdn": "MDN", "regressor": "regression network", "classifier": "color classifier"}
#: What a checkpoint may keep for the anchor rows, which `metrics` fits: mean and principal components of color fields, their clusters.
ANCHOR_SHAPES: dict[str, tuple[int, ...]] = {
    "mean": (2 * SIZE * SIZE,),
    "components": (20, 2 * SIZE * SIZE),
    "variances": (20,),
    "total_variance": (),
    "clusters": (8, 2, SIZE, SIZE),
    "cluster_step": (),
}

Box = tuple[int, int, int, int]
Inner = tuple[Any, slice, slice]


@dataclass(frozen=True)
class Colorizations:
    """Several colorizations of one photograph, heaviest first, then samples.

    Attributes:
        images: uint8 sRGB, `(n, H, W, 3)`, n being at most what was asked for.
        probabilities: for each image the weight that the model gives it, or `None` for a sample. Weights of those not
            shown are missing, so they need not sum to one.
        fields: the raw predictions `(n, 2, h, w)`, ab/128, before enlarging and gamut mapping. The longer side has 64
            pixels, the other one as many as the shape of the photograph asks for.
        gray: uint8 sRGB `(H, W, 3)`, the photograph's lightness alone.
    """

    images: NDArray[np.uint8]
    probabilities: tuple[float | None, ...]
    fields: Tensor
    gray: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.probabilities)


@dataclass(frozen=True)
class Hint:
    """A color that someone names for a place of a photograph.

    Attributes:
        where: a box `(left, top, right, bottom)` or a point `(x, y)`, in pixels of the whole photograph, also with a crop.
        color: sRGB, three whole numbers from 0 to 255. Its hue and chroma count, its lightness does not: that of the photograph
            is known. What sRGB cannot show at the lightness of the place loses chroma first.
        tau: in Lab units, how far the place's mean color may lie from the named one, as a standard deviation of a and of b. It
            holds all that makes them differ: how well the color was named, and how far colorings stray from the few that are
            weighed. Far above the distances between colorings (about 50) a hint says nothing; far below them (about 3) the
            nearest coloring takes all, however far it is from the hint.
    """

    where: tuple[int, ...]
    color: tuple[int, int, int]
    tau: float = HINT_TAU


class Colorizer:
    """A trained CVAE and MDN, ready to color photographs.

    Attributes:
        cvae, mdn: the networks, in eval mode.
        manifest: what the checkpoint says of itself: configuration, data, metrics, versions.
        regressor: the regression network of the anchor rows, if the checkpoint has one.
        anchors: tensors of the other anchor rows, as `metrics.Anchors` reads them.
        zhang: the network whose features the MDN reads, if it reads any: a `ColorClassifier`, which is part of the checkpoint, or
            Zhang's, which is not.
    """

    def __init__(
        self,
        cvae: CVAE,
        mdn: MDN,
        manifest: Mapping[str, Any] | None = None,
        regressor: ColorRegressor | None = None,
        anchors: Mapping[str, Tensor] | None = None,
        zhang: nn.Module | None = None,
    ) -> None:
        self.zhang = zhang.eval() if zhang else None
        self.cvae, self.mdn, self.regressor = cvae.eval(), mdn.eval(), regressor.eval() if regressor else None
        self.manifest, self.anchors = dict(manifest or {}), dict(anchors or {})

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.cvae.parameters()).device

    @staticmethod
    def from_pretrained(name: str = "faces", device: torch.device | str = "cpu") -> Colorizer:
        """Load a checkpoint that ships with the library, `faces` or `portraits`; no network is used.

        Raises:
            ConfigError: there is no shipped checkpoint of that name.
        """
        if name not in PRETRAINED:
            raise ConfigError(
                f"no checkpoint named `{name}` ships with the library",
                "from_pretrained",
                f"Use one of {', '.join(PRETRAINED)}, or from_checkpoint(path).",
            )
        with as_file(files("divcolor_lib") / "artifacts" / f"{name}.safetensors") as path:
            return Colorizer.from_checkpoint(path, device)

    @staticmethod
    def from_checkpoint(path: str | Path, device: torch.device | str = "cpu", zhang: nn.Module | None = None) -> Colorizer:
        """Load a checkpoint that `save` wrote.

        Args:
            zhang: Zhang's network, if the checkpoint's MDN reads its features.

        Raises:
            CheckpointError: the file is absent, damaged, its tensors do not fit the architecture it names, or are not all numbers.
        """
        tensors, facts = read_tensors(path)
        manifest = facts.get("manifest")
        try:
            with torch.device("meta"):  # sizes alone: a wrong manifest may name a network that no memory holds
                sketches = _untrained(manifest)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
            why = str(error).partition("\n")[0][:200]
            raise CheckpointError(
                f"the checkpoint names no complete colorizer: {why}", path, "Use the file that `train` wrote last."
            ) from error
        tensors = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
        for name, value in tensors.items():
            if not bool(value.isfinite().all()):
                raise CheckpointError(f"`{name}` holds NaN or infinities", path, "Use an older checkpoint, or train again.")

        def part(prefix: str) -> dict[str, Tensor]:
            return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}

        for name, sketch in sketches.items():
            if not _has_room(sketch, part(name)):
                load_exactly(sketch, part(name), f"{path}, {NETWORKS[name]}")  # says what differs
        if strange := {name.partition(".")[0] for name in tensors} - {*sketches, "anchors"}:
            raise CheckpointError(f"its manifest does not name the network `{min(strange)}`", path, "Use the file that `train` wrote last.")
        for name, value in part("anchors").items():
            if ANCHOR_SHAPES.get(name) != value.shape:
                found = f"its tensor `anchors.{name}` of shape {tuple(value.shape)} fits no anchor row"
                raise CheckpointError(found, path, "Use the file that `train` wrote last.")
        networks: dict[str, Any] = _untrained(manifest)
        for name, network in networks.items():
            load_exactly(network, part(name), f"{path}, {NETWORKS[name]}").to(device)
        anchors = {name: value.to(device) for name, value in part("anchors").items()}
        zhang = networks.get("classifier", zhang)
        return Colorizer(networks["cvae"], networks["mdn"], manifest, networks.get("regressor"), anchors, zhang)

    def save(self, path: str | Path) -> None:
        """Write networks, anchors and manifest to one safetensors file, floats in half precision.

        Raises:
            StorageError: the file cannot be written.
        """
        modules: dict[str, nn.Module] = {"cvae": self.cvae, "mdn": self.mdn}
        if self.regressor is not None:
            modules["regressor"] = self.regressor
        classifier = self.zhang if isinstance(self.zhang, ColorClassifier) else None
        if classifier is not None:
            modules["classifier"] = classifier
        tensors = {f"{part}.{name}": value for part, module in modules.items() for name, value in module.state_dict().items()}
        tensors |= {f"anchors.{name}": value for name, value in self.anchors.items()}
        halved = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
        manifest = {
            **self.manifest,
            "cvae": asdict(self.cvae.config),
            "mdn": asdict(self.mdn.config),
            "regressor": {"width": self.regressor.width} if self.regressor else None,
            "classifier": {"classes": classifier.classes, "width": classifier.width} if classifier else None,
        }
        write_tensors(Path(path), halved, {"manifest": manifest})

    def predict(self, gray: Tensor, n: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the `n` heaviest colorizations of each photograph: fields `(B, n, 2, 64, 64)` and weights `(B, n)`.

        Both by descending weight, ties by index; all K of them by default. Weights are not renormalized.

        Args:
            gray: `(B, 1, 64, 64)`.
        """
        check_shape("gray", gray, (None, 1, SIZE, SIZE))
        with evaluating(self.cvae, self.mdn):
            features = self.cvae.gray_features(gray)
            weights, codes = self.mdn.representatives(mdn_inputs(self.mdn.config.features, gray, features, self.zhang))
            weights, order = weights.sort(dim=1, descending=True, stable=True)
            codes = codes.gather(1, order[..., None].expand_as(codes))
            return self.cvae.decode_features(codes[:, :n], features), weights[:, :n]

    def sample(self, gray: Tensor, n: int, noise: torch.Generator | None = None) -> Tensor:
        """Return `n` draws from p(C|G), `(B, n, 2, 64, 64)`: codes from the mixture, decoded.

        Args:
            noise: a CPU generator; the draws then do not depend on the device.
        """
        check_shape("gray", gray, (None, 1, SIZE, SIZE))
        with evaluating(self.cvae, self.mdn):
            features = self.cvae.gray_features(gray)
            mixture = self.mdn(mdn_inputs(self.mdn.config.features, gray, features, self.zhang))
            chosen = torch.multinomial(mixture.mixture_distribution.probs.cpu(), n, replacement=True, generator=noise).to(gray.device)
            pick = chosen[..., None].expand(-1, -1, self.cvae.config.latent)
            mean = mixture.component_distribution.base_dist.loc.gather(1, pick)
            scale = mixture.component_distribution.base_dist.scale.gather(1, pick)
            eps = torch.randn(mean.shape, generator=noise).to(gray.device)
            return self.cvae.decode_features(mean + scale * eps, features)

    def colorize(
        self,
        photo: str | Path | NDArray[np.uint8] | Tensor,
        n: int = 8,
        crop: Box | None = None,
        seed: int = 0,
        hints: Sequence[Hint] = (),
    ) -> Colorizations:
        """Color a photograph of any size and shape in up to `n` ways.

        Any color the photograph has is put aside; only its lightness is used. The whole picture (or the crop) is
        reduced to 64 pixels on its longer side and mirrored at its edges to a square, because that colors better than
        squashing it.

        With n up to K the n heaviest come, with their probabilities; above K the K come first, then samples without a
        probability. Results closer than 2 Lab units on average are merged and their probabilities added, so fewer than
        `n` may come.

        Args:
            photo: a file, or uint8 sRGB `(H, W, 3)`, or uint8 gray `(H, W)`.
            crop: `(left, top, right, bottom)` in pixels; faces color best when cropped as the training faces are, from
                above the hair to below the chin. Only the crop comes back.
            seed: of the samples.
            hints: colors that are known for places. They change the probabilities by `hint_weights`, which then sum to one over
                all colorings, and with them the order; they make no new coloring and drop none before the first `n` are taken.
                Samples, which have no probability, come in the order in which they fit the hints.

        Raises:
            ImageError: the picture cannot be read, or is no photograph.
            ConfigError: `n` is below 1, or the crop lies outside the picture, or a hint outside what is colored.
        """
        if not isinstance(n, (int, np.integer)) or n < 1:
            raise ConfigError(f"{n} colorizations were asked for", "n", "Ask for at least one.")
        whole = _as_picture(photo)
        picture = _cropped(whole, crop)
        places = [_placed(hint, whole, crop) for hint in hints]
        lightness = rgb_to_lab(torch.from_numpy(picture).movedim(-1, 0).to(self.device))[:1]
        gray, inner = squared(lightness[None] / L_SCALE - 1)
        fields, weights = self.predict(gray)
        kept, probabilities = _merged(fields[0][inner], weights[0])
        wanted = [_wanted(hint, place, lightness, kept) for hint, place in zip(hints, places)]
        if wanted:
            given = torch.tensor(probabilities, dtype=torch.float64)
            for mask, color, tau in wanted:
                given = hint_weights(given, kept, mask, color, tau)
            given, order = given.sort(descending=True, stable=True)
            kept, probabilities = kept[order.to(kept.device)], given.tolist()
        if n > fields.shape[1]:
            known = len(kept)
            kept = self._with_samples(gray, inner, kept, n, seed)
            if wanted and len(kept) > known:
                fit = torch.stack([_hint_log_likelihood(kept[known:], mask[None], color[None], tau) for mask, color, tau in wanted]).sum(0)
                kept = torch.cat([kept[:known], kept[known:][fit.argsort(descending=True, stable=True)]])
        kept = kept[:n]
        shown: list[float | None] = [*probabilities[:n]]
        shown += [None] * (len(kept) - len(shown))
        images = np.stack([paint(lightness, field) for field in kept])
        neutral = paint(lightness, torch.zeros_like(kept[0]))
        return Colorizations(images, tuple(shown), kept.cpu(), neutral)

    def _with_samples(self, gray: Tensor, inner: Inner, kept: Tensor, n: int, seed: int) -> Tensor:
        noise = generator(seed)
        for _ in range(SAMPLE_ROUNDS):
            for field in self.sample(gray, n, noise)[0][inner]:
                if len(kept) < n and bool((_color_difference(field, kept) >= SAME_COLORS).all()):
                    kept = torch.cat([kept, field[None]])
        return kept


def _untrained(manifest: Any) -> dict[str, nn.Module]:
    """Build the networks that a manifest names, by the prefix of their tensors; another manifest raises what Python raises."""
    networks: dict[str, nn.Module] = {
        "cvae": CVAE.build(CVAEConfig(**manifest["cvae"])),
        "mdn": MDN.build(MDNConfig(**manifest["mdn"])),
    }
    if manifest["regressor"]:
        networks["regressor"] = ColorRegressor(float(manifest["regressor"]["width"]))
    if known := manifest.get("classifier"):
        networks["classifier"] = ColorClassifier(int(known["classes"]), float(known["width"]))
    return networks


def _has_room(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Tell whether each tensor of a network, but for its counters, is in `state` with the same shape."""
    own = network.state_dict()
    return all(name in state and state[name].shape == own[name].shape for name in own if not name.endswith("num_batches_tracked"))


def hint_weights(weights: Tensor, fields: Tensor, mask: Tensor, hint: Tensor | Sequence[float], tau: float) -> Tensor:
    """Return the weights of colorings once the color of a place is known: `(K,)`, float64, summing to one.

    By Bayes' rule, `weight_k * N(hint | c_k, tau^2 I)`, normalized, where c_k is the mean color of the place in coloring k. In
    log space, so that a hint far from every coloring does not underflow: the nearest one then takes all. A coloring of
    weight 0 keeps it. Several hints at once count as independent, given the coloring.

    Args:
        weights: `(K,)`, from 0 on; they need not sum to one.
        fields: `(K, 2, H, W)`, ab/128.
        mask: `(H, W)`, or `(n, H, W)` for n hints: bool, or how much each pixel counts, from 0 on.
        hint: the named color (a, b) in Lab units, `(2,)` or `(n, 2)`.
        tau: standard deviation of a and of b, in Lab units; see `Hint`.

    Raises:
        ShapeError: a shape is wrong, a mask is empty, a number is NaN, infinite or negative, or all weights are 0.
        ConfigError: `tau` is not positive and finite.
    """
    check_shape("weights", weights, (None,))
    check_shape("fields", fields, (len(weights), 2, None, None))
    color = torch.as_tensor(hint, dtype=torch.float64, device=fields.device)
    if isinstance(mask, Tensor) and mask.ndim == 2 and color.ndim == 1:
        mask, color = mask[None], color[None]
    check_shape("mask", mask, (None, *fields.shape[2:]))
    check_shape("hint", color, (len(mask), 2))
    mask = mask.to(fields.device, torch.float64)
    for name, values in (("weights", weights), ("fields", fields), ("mask", mask), ("hint", color)):
        check_finite(name, values)
    for name, values in (("weights", weights), ("mask", mask)):
        if bool((values < 0).any()):
            raise ShapeError(f"`{name}` holds a negative number", "hint_weights", "Weights and masks count from 0.")
    if not bool(mask.flatten(1).any(1).all()):
        raise ShapeError("the mask is empty", "hint_weights", "Mark at least one pixel; a very small box may lie between the pixels.")
    if not bool(weights.any()):
        raise ShapeError("all weights are 0", "hint_weights", "Pass the weights of the colorings, before they are rounded.")
    if not (isinstance(tau, (int, float)) and math.isfinite(tau) and tau > 0):
        raise ConfigError(f"`tau` is {tau}", "hint_weights", "Pass a positive number of Lab units, such as 10.")
    log_likelihood = _hint_log_likelihood(fields, mask, color, tau)
    return (weights.to(fields.device, torch.float64).log() + log_likelihood).softmax(0)


def _hint_log_likelihood(fields: Tensor, masks: Tensor, colors: Tensor, tau: float) -> Tensor:
    """Sum over the hints of log N(hint | c_k, tau^2 I), without its constant: `(K,)`, float64."""
    means = torch.einsum("nhw,kchw->knc", masks, fields.double()) / masks.sum((1, 2))[:, None] * AB_SCALE
    return -(means - colors).square().sum((1, 2)) / (2 * tau**2)


def _placed(hint: Hint, picture: NDArray[np.uint8], crop: Box | None) -> Box:
    """Return the hint's box in pixels of the crop."""
    rgb = np.asarray(hint.color)
    if rgb.shape != (3,) or rgb.dtype.kind not in "iu" or rgb.min() < 0 or rgb.max() > 255:
        raise ConfigError(f"the hint's color is {hint.color!r}", "hints", "Give sRGB, three whole numbers from 0 to 255.")
    try:
        edges = [int(edge) for edge in hint.where]
        whole = edges == list(hint.where)
    except (TypeError, ValueError, OverflowError):
        edges, whole = [], False
    if len(edges) == 2:
        edges += [edges[0] + 1, edges[1] + 1]
    left, top, right, bottom = map(int, crop or (0, 0, picture.shape[1], picture.shape[0]))
    if not (whole and len(edges) == 4 and left <= edges[0] < edges[2] <= right and top <= edges[1] < edges[3] <= bottom):
        raise ConfigError(
            f"the hint's place {hint.where!r} does not lie inside what is colored, {(left, top, right, bottom)}",
            "hints",
            "Give (left, top, right, bottom) or (x, y), whole numbers, in pixels of the whole photograph.",
        )
    return edges[0] - left, edges[1] - top, edges[2] - left, edges[3] - top


def _wanted(hint: Hint, place: Box, lightness: Tensor, fields: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return what `hint_weights` takes of a hint: how much each pixel of the fields counts, the color (a, b), and tau."""
    left, top, right, bottom = place
    sides = []
    for (first, last), many, few in zip(((top, bottom), (left, right)), lightness.shape[1:], fields.shape[2:]):
        side = torch.zeros(many, 1, device=fields.device, dtype=torch.float64)
        side[first:last] = 1
        sides.append(resize_area(side, (few, 1)))
    rows, columns = sides
    rgb = torch.tensor(hint.color, dtype=torch.uint8, device=fields.device)[:, None, None]
    level = lightness[:, top:bottom, left:right].mean().reshape(1, 1, 1)
    color = to_gamut(torch.cat([level, rgb_to_lab(rgb)[1:]]))[1:, 0, 0]
    return rows * columns.T, color.double(), hint.tau


def paint(lightness: Tensor, ab: Tensor) -> NDArray[np.uint8]:
    """Join colors `ab` (2, h, w), ab/128, to full-resolution lightness L* `(1, H, W)`; return uint8 sRGB `(H, W, 3)`.

    Lightness stays; a color that sRGB cannot show at that lightness loses chroma and keeps its hue.
    """
    check_shape("lightness", lightness, (1, None, None))
    enlarged = enlarge(ab[None], (lightness.shape[1], lightness.shape[2]))[0] * AB_SCALE
    lab = to_gamut(torch.cat([lightness, enlarged]))
    return to_uint8(lab_to_rgb(lab)).movedim(0, -1).cpu().numpy()


def enlarge(ab: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize color fields `(B, 2, h, w)` to `size` such that averaging back over areas returns them.

    Bilinear enlargement alone blurs: averaged back it misses the prediction at edges. So what it misses is enlarged and
    added, several times over (back-projection: Irani and Peleg, 1991). The rest, which is large where a side grows by
    less than half, is added as the smallest change that removes it. Sides that shrink are averaged.
    """
    small = (min(ab.shape[2], size[0]), min(ab.shape[3], size[1]))
    target = resize_area(ab, small)
    if small == size:
        return target
    result = F.interpolate(target, size=size, mode="bilinear", align_corners=False)
    for _ in range(BACK_PROJECTIONS):
        missed = target - resize_area(result, small)
        result = result + F.interpolate(missed, size=size, mode="bilinear", align_corners=False)
    missed = target - resize_area(result, small)
    rows, columns = (_undo_average(few, many).to(ab) for few, many in zip(small, size))
    return result + rows @ missed @ columns.T


def squared(gray: Tensor) -> tuple[Tensor, Inner]:
    """Make of a photograph of any shape the square that the networks read, and say where in it the photograph lies.

    The longer side is reduced to 64 pixels (or enlarged, if it is shorter), the other one by the same factor, and the rest of the
    square is filled by mirroring the photograph at its edges.

    Args:
        gray: `(1, 1, H, W)`, L/50 - 1.

    Returns:
        The square `(1, 1, 64, 64)`, and an index such that `square[inner]` is the photograph alone, `(1, 1, h, w)`.
    """
    check_shape("gray", gray, (1, 1, None, None))
    height, width = gray.shape[2:]
    longer = max(height, width)
    rows, columns = (max(1, round(SIZE * side / longer)) for side in (height, width))
    top, left = (SIZE - rows) // 2, (SIZE - columns) // 2
    small = resize_area(gray, (rows, columns))
    squared = small[:, :, _mirrored(rows, top, gray.device)][..., _mirrored(columns, left, gray.device)]
    return squared, (..., slice(top, top + rows), slice(left, left + columns))


def _undo_average(few: int, many: int) -> Tensor:
    """Return `(many, few)`, the pseudoinverse of averaging `many` pixels over `few` areas."""
    average = area_weights(many, few)
    return average.T @ torch.linalg.inv(average @ average.T)


def _mirrored(count: int, offset: int, device: torch.device) -> Tensor:
    """Indices 0 .. count-1 that run forth and back over an axis of 64, the first run starting at `offset`."""
    phase = (torch.arange(SIZE, device=device) - offset) % (2 * count)
    return torch.minimum(phase, 2 * count - 1 - phase)


def _as_picture(photo: str | Path | NDArray[np.uint8] | Tensor) -> NDArray[np.uint8]:
    if isinstance(photo, (str, Path)):
        return read_image(photo)
    kind = getattr(photo, "dtype", type(photo).__name__)
    if kind not in (np.uint8, torch.uint8):
        raise ImageError(f"the photograph is an array of {kind}", "photo", "Pass uint8 values from 0 to 255.")
    picture = photo.detach().cpu().numpy() if isinstance(photo, Tensor) else np.asarray(photo)
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ImageError(f"the photograph has shape {picture.shape}", "photo", "Pass (H, W, 3) in sRGB, or (H, W) for gray.")
    return np.array(picture, order="C")  # a copy: torch wants arrays that it may write to


def _cropped(picture: NDArray[np.uint8], crop: Box | None) -> NDArray[np.uint8]:
    if crop is None:
        return picture
    height, width = picture.shape[:2]
    try:
        left, top, right, bottom = (int(edge) for edge in crop)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"the crop is {crop!r}", "crop", "Give four whole numbers: left, top, right, bottom.") from error
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ConfigError(f"the crop {(left, top, right, bottom)} does not lie inside the picture of {width}x{height} pixels", "crop")
    return np.ascontiguousarray(picture[top:bottom, left:right])


def _color_difference(field: Tensor, others: Tensor) -> Tensor:
    """Mean CIE76 difference `(n,)` of one field from others `(n, 2, h, w)`, lightness being the same."""
    return (field - others).mul(AB_SCALE).square().sum(1).sqrt().mean((1, 2))


def _merged(fields: Tensor, weights: Tensor) -> tuple[Tensor, list[float]]:
    """Merge fields closer than `SAME_COLORS` into the heaviest of them; return what is left, heaviest first."""
    check_finite("the predicted colors", fields)
    check_finite("the predicted weights", weights)
    kept, probabilities = fields[:1], [float(weights[0])]
    for field, weight in zip(fields[1:], weights[1:].tolist()):
        distance, nearest = _color_difference(field, kept).min(0)
        if distance < SAME_COLORS:
            probabilities[int(nearest)] += weight
        else:
            kept, probabilities = torch.cat([kept, field[None]]), [*probabilities, weight]
    order = sorted(range(len(probabilities)), key=lambda index: -probabilities[index])
    return kept[order], [probabilities[index] for index in order]
