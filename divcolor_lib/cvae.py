"""The conditional VAE: a code z of a color field, and a decoder that paints z over a gray photograph.

Two designs share one interface and are made from a `CVAEConfig`:

* `reference` (`ReferenceCVAE`): the network of the published PyTorch code, layer for layer at width 1, so that its checkpoints load.
* `unet` (`UNetCVAE`): ours. A gray U-Net, a small code that enters at every scale, no dropout. It colors better and is the default.

The interface: `encode(ab, gray) -> (mu, logvar)`, `decode(z, gray) -> ab`, `decode_many(z, gray)` for several codes of
one photograph, and `gray_features(gray)`, which the mixture density network reads.

Source: Deshpande et al., *Learning Diverse Image Colorization*, CVPR 2017, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .autoencoder import LOGVAR_RANGE, reparameterize
from .errors import CheckpointError, ConfigError, ShapeError, check_shape

DESIGNS = ("unet", "reference")
REFERENCE_CHANNELS = (128, 256, 512, 1024)
REFERENCE_LATENT = 64
UNET_CHANNELS = (40, 72, 112, 176)
UNET_COLOR_CHANNELS = (32, 64, 96, 128)
UNET_CODE_CHANNELS = 32

SomeModule = TypeVar("SomeModule", bound=nn.Module)


@dataclass(frozen=True)
class CVAEConfig:
    """What is needed to build a CVAE again.

    Attributes:
        design: `unet` (ours) or `reference`.
        latent: D, the number of dimensions of the code: 64 in the published code.
        width: multiplies every channel count; 1 is full width.
        dropout: share of the color encoder's last features that training drops (reference design only; 0.7 in the published code).
        skips: how many of the gray encoder's four maps the decoder sees, the coarsest first; the others reach it as zeros.
            Both designs use all four; fewer serve to show what the skips are for.
    """

    design: str = "unet"
    latent: int = 16
    width: float = 1.0
    dropout: float = 0.7
    skips: int = 4

    def __post_init__(self) -> None:
        if self.design not in DESIGNS:
            raise ConfigError(f"unknown design `{self.design}`", "CVAEConfig.design", f"Use one of {', '.join(DESIGNS)}.")
        if self.latent < 1 or not 0 < self.width <= 4 or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"no network has latent {self.latent}, width {self.width} and dropout {self.dropout}",
                "CVAEConfig",
                "Use latent >= 1, 0 < width <= 4 and 0 <= dropout < 1.",
            )
        if not 1 <= self.skips <= 4:
            raise ConfigError(f"the decoder cannot see {self.skips} maps", "CVAEConfig.skips", "The gray encoder has four; use 1 to 4.")


class CVAE(nn.Module):
    """Base of both designs: q(z|C, G) and p(C|z, G) for 64x64 color fields C and gray photographs G."""

    def __init__(self, config: CVAEConfig) -> None:
        super().__init__()
        self.config = config

    @staticmethod
    def build(config: CVAEConfig) -> CVAE:
        """Return an untrained network of the configured design."""
        return ReferenceCVAE(config) if config.design == "reference" else UNetCVAE(config)

    @staticmethod
    def from_reference(state_dict: Mapping[str, Tensor]) -> ReferenceCVAE:
        """Build the reference design from the published `model_vae.pth` state_dict; width and latent size are read from it.

        The network comes back in eval mode and computes the published function on the same tensors. The published
        code scales 8-bit Lab by `x * 2 / 255 - 1`; `lab.ab_to_reference` and `lab.reference_to_ab` convert.

        Raises:
            CheckpointError: a tensor is missing, unexpected or of the wrong shape; the message names it.
        """
        first, last = state_dict.get("enc_conv1.weight"), state_dict.get("enc_fc1.weight")
        if first is None or last is None or first.ndim != 4 or last.ndim != 2:
            raise CheckpointError(
                "this is not a state_dict of the reference CVAE: `enc_conv1.weight` or `enc_fc1.weight` is missing or misshapen",
                todo="Load the file whose tensors are named enc_conv1 to dec_conv5.",
            )
        try:
            config = CVAEConfig(design="reference", latent=last.shape[0] // 2, width=first.shape[0] / REFERENCE_CHANNELS[0])
        except ConfigError as error:
            raise CheckpointError(f"this is not a state_dict of the reference CVAE: {error.found}") from error
        return load_exactly(ReferenceCVAE(config), state_dict, "reference CVAE").eval()

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the coarsest map of `gray_features`."""
        raise NotImplementedError

    def encode(self, ab: Tensor, gray: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the posterior of the code, `(mu, logvar)`, each `(B, D)`, for color fields `ab` (B, 2, 64, 64).

        The reference design sees only the colors, q(z|C). Ours also sees the photograph, q(z|C, G), and needs `gray`.
        """
        raise NotImplementedError

    def gray_features(self, gray: Tensor) -> list[Tensor]:
        """Return the gray encoder's four maps, finest first, for `gray` (B, 1, 64, 64)."""
        raise NotImplementedError

    def decode_features(self, z: Tensor, features: list[Tensor]) -> Tensor:
        """Return `(B, K, 2, 64, 64)` for codes `z` (B, K, D) and the maps of `gray_features`."""
        raise NotImplementedError

    def decode(self, z: Tensor, gray: Tensor) -> Tensor:
        """Return the color fields `(B, 2, 64, 64)` that codes `z` (B, D) paint over `gray` (B, 1, 64, 64)."""
        check_shape("gray", gray, (None, 1, 64, 64))
        check_shape("z", z, (gray.shape[0], self.config.latent))
        return self.decode_features(z[:, None], self.gray_features(gray))[:, 0]

    def decode_many(self, z: Tensor, gray: Tensor) -> Tensor:
        """Decode K codes of each photograph: `z` (B, K, D) and `gray` (B, 1, 64, 64) give `(B, K, 2, 64, 64)`.

        The gray photograph is encoded once, not K times.
        """
        check_shape("gray", gray, (None, 1, 64, 64))
        check_shape("z", z, (gray.shape[0], None, self.config.latent))
        return self.decode_features(z, self.gray_features(gray))

    def _seen(self, features: list[Tensor]) -> list[Tensor]:
        """Return the maps as the decoder sees them, the hidden ones as zeros."""
        hidden = len(features) - self.config.skips
        return [torch.zeros_like(feature) if level < hidden else feature for level, feature in enumerate(features)]

    def forward(self, ab: Tensor, gray: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode, draw one code, decode: `(reconstruction, mu, logvar)`."""
        mu, logvar = self.encode(ab, gray)
        return self.decode(reparameterize(mu, logvar, generator), gray), mu, logvar


def load_exactly(module: SomeModule, state_dict: Mapping[str, Tensor], what: str) -> SomeModule:
    """Load `state_dict` into `module` if names and shapes agree exactly; otherwise say which do not.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of the wrong shape.
    """
    own = module.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    missing = sorted(set(own) - set(state_dict) - counters)
    unexpected = sorted(set(state_dict) - set(own))
    misshapen = [name for name in own if name in state_dict and own[name].shape != state_dict[name].shape]
    for found, names in (("lacks", missing), ("has the unknown", unexpected), ("has another shape of", misshapen)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(
                f"the state_dict {found} {', '.join(names[:3])}{more}",
                what,
                "It belongs to another architecture; build the one it was saved from.",
            )
    module.load_state_dict(state_dict, strict=False)
    return module


# --- the reference design ---


class ReferenceCVAE(CVAE):
    """The published PyTorch network; attribute names are those of its checkpoint.

    Color encoder and gray encoder: four strided convolutions each, in the order convolution, ReLU, batch norm.
    Decoder: the code (D numbers, spread over 4x4) joins the coarsest gray map; then upsample, join the next gray map,
    convolve, four times over. The output passes through tanh.
    """

    def __init__(self, config: CVAEConfig) -> None:
        super().__init__(config)
        c1, c2, c3, c4 = self.channels = tuple(max(1, round(channels * config.width)) for channels in REFERENCE_CHANNELS)
        for branch, inputs in (("enc", 2), ("cond_enc", 1)):
            sizes = ((inputs, c1, 5), (c1, c2, 5), (c2, c3, 5), (c3, c4, 3))
            for level, (before, after, kernel) in enumerate(sizes, start=1):
                self.add_module(f"{branch}_conv{level}", nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2))
                self.add_module(f"{branch}_bn{level}", nn.BatchNorm2d(after))
        self.enc_fc1 = nn.Linear(c4 * 16, 2 * config.latent)
        half = max(1, round(64 * config.width))
        sizes = ((config.latent + c4, c3, 3), (c3 + c3, c2, 5), (c2 + c2, c1, 5), (c1 + c1, half, 5))
        for level, (before, after, kernel) in enumerate(sizes, start=1):
            self.add_module(f"dec_conv{level}", nn.Conv2d(before, after, kernel, padding=kernel // 2))
            self.add_module(f"dec_bn{level}", nn.BatchNorm2d(after))
        self.dec_conv5 = nn.Conv2d(half, 2, 5, padding=2)

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the coarsest gray map."""
        return self.channels[3], 4, 4

    def encode(self, ab: Tensor, gray: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return q(z|C) as `(mu, logvar)`, each `(B, D)`; `gray` is not used, as in the published code."""
        check_shape("ab", ab, (None, 2, 64, 64))
        features = self._pyramid("enc", ab)[-1].flatten(1)
        features = F.dropout(features, self.config.dropout, self.training)
        mu, logvar = self.enc_fc1(features).float().chunk(2, dim=1)
        return mu, logvar

    def gray_features(self, gray: Tensor) -> list[Tensor]:
        """Return the four skips: 128, 256, 512, 1024 channels (times width) at 32, 16, 8 and 4 pixels."""
        check_shape("gray", gray, (None, 1, 64, 64))
        return self._pyramid("cond_enc", gray)

    def decode_features(self, z: Tensor, features: list[Tensor]) -> Tensor:
        """Decode codes `(B, K, D)`.

        A convolution of (upsampled, skip) is the sum of two convolutions; the skip's is computed once for all K.
        """
        images, codes, latent = z.shape
        x = z.reshape(images * codes, latent, 1, 1).expand(-1, -1, 4, 4)
        for level, skip in enumerate(reversed(self._seen(features)), start=1):
            if level > 1:
                x = _twice(x)
            x = self._batch_norm("dec", level, F.relu(self._joined(level, x, skip, codes)))
        x = torch.tanh(self.dec_conv5(_twice(x)))
        return x.reshape(images, codes, *x.shape[1:])

    def _joined(self, level: int, x: Tensor, skip: Tensor, codes: int) -> Tensor:
        conv = self.get_submodule(f"dec_conv{level}")
        assert isinstance(conv, nn.Conv2d)
        if codes == 1:
            return F.conv2d(torch.cat([x, skip.to(x.dtype)], dim=1), conv.weight, conv.bias, padding=conv.padding)
        for_code, for_skip = conv.weight.split([x.shape[1], skip.shape[1]], dim=1)
        shared = F.conv2d(skip, for_skip, conv.bias, padding=conv.padding)
        own = F.conv2d(x, for_code, padding=conv.padding)
        return (own.unflatten(0, (-1, codes)) + shared[:, None]).flatten(0, 1)

    def _pyramid(self, branch: str, x: Tensor) -> list[Tensor]:
        maps = []
        for level in range(1, 5):
            x = self._batch_norm(branch, level, F.relu(self.get_submodule(f"{branch}_conv{level}")(x)))
            maps.append(x)
        return maps

    def _batch_norm(self, branch: str, level: int, x: Tensor) -> Tensor:
        normalized: Tensor = self.get_submodule(f"{branch}_bn{level}")(x)
        return normalized


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


# --- our design ---


class UNetCVAE(CVAE):
    """A gray U-Net whose decoder is steered by a small code at every scale.

    The photograph enters by pixel-unshuffle at 32x32 and leaves by pixel-shuffle at 64x64, which keeps the costly full
    resolution out of the network. The code enters the coarsest map as 32 extra 4x4 channels, and every decoder block
    as a scale and a shift of its channels (FiLM: Perez et al., 2018). Without the code, the same trunk is the
    regression network `ColorRegressor`, from which training starts.
    """

    def __init__(self, config: CVAEConfig) -> None:
        super().__init__(config)
        channels = _scaled(UNET_CHANNELS, config.width)
        color_channels = _scaled(UNET_COLOR_CHANNELS, config.width)
        self.gray_encoder = _Pyramid(4, channels)
        self.painter = _Painter(channels, config.latent)
        self.color_encoder = _Pyramid(12, color_channels)
        self.posterior = nn.Linear(color_channels[-1] * 16, 2 * config.latent)
        nn.init.normal_(self.posterior.weight, std=0.3 * self.posterior.in_features**-0.5)
        nn.init.zeros_(self.posterior.bias)

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the coarsest gray map."""
        return self.gray_encoder.channels[-1], 4, 4

    def encode(self, ab: Tensor, gray: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return q(z|C, G) as `(mu, logvar)`, each `(B, D)`; `logvar` is kept within `LOGVAR_RANGE`.

        Raises:
            ShapeError: `gray` is missing.
        """
        check_shape("ab", ab, (None, 2, 64, 64))
        if gray is None:
            raise ShapeError("this design's posterior is q(z|C, G), but no gray photograph came", "encode", "Call encode(ab, gray).")
        check_shape("gray", gray, (ab.shape[0], 1, 64, 64))
        features = self.color_encoder(F.pixel_unshuffle(torch.cat([ab, gray], dim=1), 2))[-1].flatten(1)
        mu, logvar = self.posterior(features).float().chunk(2, dim=1)
        return mu, logvar.clamp(*LOGVAR_RANGE)

    def gray_features(self, gray: Tensor) -> list[Tensor]:
        """Return maps of 40, 72, 112 and 176 channels (times width) at 32, 16, 8 and 4 pixels."""
        check_shape("gray", gray, (None, 1, 64, 64))
        maps: list[Tensor] = self.gray_encoder(F.pixel_unshuffle(gray, 2))
        return maps

    def decode_features(self, z: Tensor, features: list[Tensor]) -> Tensor:
        """Decode codes `(B, K, D)`."""
        codes, features = z.shape[1], self._seen(features)
        if codes > 1:
            features = [feature.repeat_interleave(codes, dim=0) for feature in features]
        painted: Tensor = self.painter(features, z.flatten(0, 1))
        return painted.unflatten(0, (-1, codes))

    def warm_start(self, regressor: ColorRegressor) -> None:
        """Copy a trained regression network into the trunk; the code's own weights keep their first values.

        Raises:
            CheckpointError: the regression network has another width.
        """
        if regressor.gray_encoder.channels != self.gray_encoder.channels:
            raise CheckpointError("the regression network has another width than the CVAE", "warm_start", "Train one of the same width.")
        self.gray_encoder.load_state_dict(regressor.gray_encoder.state_dict())
        own, given = self.painter.state_dict(), regressor.painter.state_dict()
        coarsest = self.gray_encoder.channels[-1]
        for name, value in given.items():
            if own[name].shape == value.shape:
                own[name] = value
            else:  # the first convolution reads (coarsest map, code map, skip) here, but (coarsest map, skip) there
                own[name][:, :coarsest] = value[:, :coarsest]
                own[name][:, coarsest + UNET_CODE_CHANNELS :] = value[:, coarsest:]
        self.painter.load_state_dict(own)


class ColorRegressor(nn.Module):
    """The same U-Net without a code, trained by squared error: it predicts the mean color field, one answer for each photograph."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        channels = _scaled(UNET_CHANNELS, width)
        self.width = width
        self.gray_encoder = _Pyramid(4, channels)
        self.painter = _Painter(channels, latent=0)

    def forward(self, gray: Tensor) -> Tensor:
        """Return `(B, 2, 64, 64)` for `gray` (B, 1, 64, 64)."""
        check_shape("gray", gray, (None, 1, 64, 64))
        painted: Tensor = self.painter(self.gray_encoder(F.pixel_unshuffle(gray, 2)), None)
        return painted


class ColorClassifier(nn.Module):
    """The gray U-Net with Zhang's task: which color bin each place of a 16x16 field falls into.

    Networks trained for this see what a photograph shows; `forward` returns their coarsest map, for an MDN to read, where the
    published method read Zhang's own network. `logits` is what is trained.
    """

    def __init__(self, classes: int, width: float = 1.0) -> None:
        super().__init__()
        channels = _scaled(UNET_CHANNELS, width)
        self.classes, self.width = classes, width
        self.gray_encoder = _Pyramid(4, channels)
        self.finer = nn.ModuleList()
        before = channels[-1]
        for size in reversed(channels[1:-1]):
            self.finer.append(_Pair(_Block(before + size, size), _Block(size, size)))
            before = size
        self.to_classes = nn.Conv2d(before, classes, 1)

    def forward(self, gray: Tensor) -> Tensor:
        """Return the coarsest map `(B, C, 4, 4)` for `gray` (B, 1, 64, 64)."""
        return self._maps(gray)[-1]

    def logits(self, gray: Tensor) -> Tensor:
        """Return the classes' logits `(B, classes, 16, 16)` for `gray` (B, 1, 64, 64)."""
        maps = self._maps(gray)
        x = maps[-1]
        for level, skip in zip(self.finer, reversed(maps[1:-1])):
            x = level(torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skip], dim=1))
        classes: Tensor = self.to_classes(x)
        return classes

    def _maps(self, gray: Tensor) -> list[Tensor]:
        check_shape("gray", gray, (None, 1, 64, 64))
        maps: list[Tensor] = self.gray_encoder(F.pixel_unshuffle(gray, 2))
        return maps


class _Block(nn.Module):
    """3x3 convolution, batch norm, optional FiLM by the code, SiLU."""

    def __init__(self, before: int, after: int, stride: int = 1, latent: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(after)
        self.film = nn.Linear(latent, 2 * after) if latent else None
        if self.film is not None:
            nn.init.normal_(self.film.weight, std=0.02)
            nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        x = self.norm(self.conv(x))
        if self.film is not None and z is not None:
            scale, shift = self.film(z)[..., None, None].chunk(2, dim=1)
            x = x * (1 + scale) + shift
        return F.silu(x)


class _Pair(nn.Module):
    """Two blocks in a row."""

    def __init__(self, first: _Block, second: _Block) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        result: Tensor = self.second(self.first(x, z), z)
        return result


class _Pyramid(nn.Module):
    """Four levels of two blocks; each level after the first halves the resolution. Returns every level's map."""

    def __init__(self, inputs: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = channels
        self.levels = nn.ModuleList()
        for level, size in enumerate(channels):
            self.levels.append(_Pair(_Block(inputs, size, stride=2 if level else 1), _Block(size, size)))
            inputs = size

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        return maps


class _Painter(nn.Module):
    """The decoder: from the coarsest gray map (and the code) back to 64x64, joining a finer gray map at each level."""

    def __init__(self, channels: tuple[int, ...], latent: int) -> None:
        super().__init__()
        self.to_map = nn.Linear(latent, UNET_CODE_CHANNELS * 16) if latent else None
        before = channels[-1] + (UNET_CODE_CHANNELS if latent else 0)
        self.levels = nn.ModuleList()
        for size in reversed(channels[:-1]):
            self.levels.append(_Pair(_Block(before + size, size, latent=latent), _Block(size, size, latent=latent)))
            before = size
        self.to_ab = nn.Conv2d(before, 8, 3, padding=1)
        nn.init.normal_(self.to_ab.weight, std=0.01)
        if self.to_ab.bias is not None:
            nn.init.zeros_(self.to_ab.bias)

    def forward(self, maps: list[Tensor], z: Tensor | None) -> Tensor:
        x = maps[-1]
        if self.to_map is not None and z is not None:
            x = torch.cat([x, self.to_map(z).reshape(-1, UNET_CODE_CHANNELS, 4, 4).to(x.dtype)], dim=1)
        for level, skip in zip(self.levels, reversed(maps[:-1])):
            x = level(torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skip], dim=1), z)
        return F.pixel_shuffle(self.to_ab(x), 2)


def _scaled(channels: tuple[int, ...], width: float) -> tuple[int, ...]:
    """Channel counts times `width`, as multiples of 8."""
    return tuple(max(8, 8 * round(size * width / 8)) for size in channels)
