"""The mixture density network: from gray-level features to p(z|G), a mixture of Gaussians over codes.

Two designs share one interface and are made from an `MDNConfig`:

* `reference` (`ReferenceMDN`): the network of the published PyTorch code, layer for layer at width 1; fixed scale 0.1.
* `heads` (`HeadsMDN`): ours. One small trunk with two heads: a mixture with learned scales, a density to sample from;
  and K representatives with weights, pictures to show.

The interface: `mdn(features)` is a `torch.distributions.MixtureSameFamily`; `mdn.representatives(features)` gives the
weights and codes of the colorizations to show.

Sources: Bishop, *Mixture Density Networks*, 1994; Deshpande et al. 2017, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from .cvae import REFERENCE_LATENT, load_exactly
from .errors import CheckpointError, ConfigError, check_shape
from .features import KINDS

DESIGNS = ("heads", "reference")
REFERENCE_LAYERS = ((384, 1), (320, 1), (288, 1), (256, 2), (128, 1), (96, 2), (64, 2))
REFERENCE_INPUTS = (512, 28, 28)
SCALE_FLOOR = 0.05


@dataclass(frozen=True)
class MDNConfig:
    """What is needed to build an MDN again.

    Attributes:
        design: `heads` (ours) or `reference`.
        inputs: channels, height and width of the features it reads.
        latent: D, the size of the code.
        components: K, the number of Gaussians.
        representatives: the number of representatives (heads design only).
        width: multiplies every channel count.
        scale: `None` learns a scale for each component and dimension, with a floor of 0.05; a number fixes it.
            A fixed scale fails where dimensions of the code are inactive: their codes have variance 1.
        dropout: share of the last features that training drops. The published code has 0.7, twice.
        features: what it reads: `encoder`, the coarsest map of the CVAE's gray encoder, or another kind of `features.KINDS`.
    """

    design: str = "heads"
    inputs: tuple[int, int, int] = (176, 4, 4)
    latent: int = 16
    components: int = 8
    representatives: int = 8
    width: float = 1.0
    scale: float | None = None
    dropout: float = 0.2
    features: str = "encoder"

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(self.inputs))
        if self.design not in DESIGNS:
            raise ConfigError(f"unknown design `{self.design}`", "MDNConfig.design", f"Use one of {', '.join(DESIGNS)}.")
        if self.features not in KINDS:
            raise ConfigError(f"unknown features `{self.features}`", "MDNConfig.features", f"Use one of {', '.join(KINDS)}.")
        sizes = (*self.inputs, self.latent, self.components, self.representatives)
        if len(self.inputs) != 3 or min(sizes) < 1 or not 0 < self.width <= 4 or not 0 <= self.dropout < 1:
            raise ConfigError(f"no network can be built from {self}", "MDNConfig", "Sizes start at 1, width at 0, dropout is below 1.")
        if self.scale is not None and self.scale <= 0:
            raise ConfigError(f"the fixed scale is {self.scale}", "MDNConfig.scale", "Use a positive number, or None to learn it.")


class MDN(nn.Module):
    """Base of both designs."""

    def __init__(self, config: MDNConfig) -> None:
        super().__init__()
        self.config = config

    @staticmethod
    def build(config: MDNConfig) -> MDN:
        """Return an untrained network of the configured design."""
        return ReferenceMDN(config) if config.design == "reference" else HeadsMDN(config)

    @staticmethod
    def from_reference(state_dict: Mapping[str, Tensor]) -> ReferenceMDN:
        """Build the reference design from the published `model_mdn.pth` state_dict; width and components are read from it.

        The network comes back in eval mode and reads features `(B, 512, 28, 28)`, as the checkpoint says.

        Raises:
            CheckpointError: a tensor is missing, unexpected or of the wrong shape; the message names it.
        """
        first, last, head = (state_dict.get(name) for name in ("model.0.weight", "model.18.weight", "fc.weight"))
        if first is None or last is None or head is None or first.ndim != 4 or last.ndim != 4 or head.ndim != 2:
            raise CheckpointError(
                "this is not a state_dict of the reference MDN: `model.0.weight`, `model.18.weight` or `fc.weight` is missing or misshapen",
                todo="Load the file whose tensors are named model.0 to model.19 and fc.",
            )
        try:
            config = MDNConfig(
                design="reference",
                inputs=(first.shape[1], *REFERENCE_INPUTS[1:]),
                latent=REFERENCE_LATENT,
                components=max(1, head.shape[0] // (REFERENCE_LATENT + 1)),
                width=first.shape[0] / REFERENCE_LAYERS[0][0],
                scale=0.1,
                dropout=0.7,
            )
        except ConfigError as error:
            raise CheckpointError(f"this is not a state_dict of the reference MDN: {error.found}") from error
        return load_exactly(ReferenceMDN(config), state_dict, "reference MDN").eval()

    def forward(self, features: Tensor) -> MixtureSameFamily:
        """Return p(z|G) for `features` (B, C, H, W): a mixture with event shape `(D,)`, in float32."""
        raise NotImplementedError

    def representatives(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights `(B, K)` and codes `(B, K, D)` of the colorizations to show, in no particular order."""
        raise NotImplementedError

    def initialize(self, centers: Tensor) -> None:
        """Start the means (and representatives) at `centers`, k-means centers of training codes, for every photograph.

        Args:
            centers: `(K, D)`; ours takes max(K, R) rows, and each head the first as many as it has.

        Raises:
            ShapeError: `centers` has another shape than the network's components.
        """
        raise NotImplementedError

    def _checked(self, features: Tensor) -> Tensor:
        check_shape("features", features, (None, *self.config.inputs))
        return features

    def _mixture(self, logits: Tensor, means: Tensor, raw_scale: Tensor | None) -> MixtureSameFamily:
        logits, means = logits.float(), means.float()
        fixed = torch.full_like(means, self.config.scale or 1.0)
        scale = fixed if raw_scale is None else SCALE_FLOOR + F.softplus(raw_scale.float())
        return MixtureSameFamily(Categorical(logits=logits), Independent(Normal(means, scale), 1))


class ReferenceMDN(MDN):
    """The published PyTorch network; attribute names are those of its checkpoint.

    Seven 5x5 convolutions in the order convolution, batch norm, ReLU, then dropout and one linear layer: K x D means
    first, then K logits, and last the K x D raw scales if they are learned.

    The published code drops 70 % of the features twice in a row, so that 9 % survive; `MDNConfig.dropout` is the rate of
    each of the two.
    """

    def __init__(self, config: MDNConfig) -> None:
        super().__init__(config)
        before, height, width = config.inputs
        layers: list[nn.Module] = []
        for channels, stride in REFERENCE_LAYERS:
            after = max(1, round(channels * config.width))
            layers += [nn.Conv2d(before, after, 5, stride=stride, padding=2), nn.BatchNorm2d(after), nn.ReLU()]
            before, height, width = after, -(-height // stride), -(-width // stride)
        self.model = nn.Sequential(*layers, nn.Dropout(config.dropout), nn.Dropout(config.dropout))
        outputs = config.components * (config.latent + 1) + (config.components * config.latent if config.scale is None else 0)
        self.fc = nn.Linear(before * height * width, outputs)

    def forward(self, features: Tensor) -> MixtureSameFamily:
        """Return p(z|G)."""
        out = self.fc(self.model(self._checked(features)).flatten(1))
        k, d = self.config.components, self.config.latent
        means, logits, raw_scale = out.split([k * d, k, out.shape[1] - k * (d + 1)], dim=1)
        return self._mixture(logits, means.unflatten(1, (k, d)), raw_scale.unflatten(1, (k, d)) if self.config.scale is None else None)

    def representatives(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mixture's weights and means: the published way to choose what to show."""
        mixture = self(features)
        return mixture.mixture_distribution.probs, mixture.component_distribution.mean

    def initialize(self, centers: Tensor) -> None:
        """Set the bias of the means to `centers` (K, D)."""
        k, d = self.config.components, self.config.latent
        check_shape("centers", centers, (k, d))
        with torch.no_grad():
            self.fc.bias[: k * d] = centers.flatten()


class HeadsMDN(MDN):
    """Ours: pooled gray features, one hidden layer, a mixture head and a representatives head."""

    def __init__(self, config: MDNConfig) -> None:
        super().__init__(config)
        channels, height, width = config.inputs
        reduced, hidden = max(8, round(64 * config.width)), max(16, round(256 * config.width))
        self.trunk = nn.Sequential(
            nn.Conv2d(channels, reduced, 1),
            nn.GroupNorm(1, reduced),
            nn.SiLU(),
            nn.Flatten(),
            nn.Dropout(config.dropout),
            nn.Linear(reduced * height * width, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Dropout(config.dropout),
        )
        k, r, d = config.components, config.representatives, config.latent
        self.mixture_head = nn.Linear(hidden, k * (1 + d) + (k * d if config.scale is None else 0))
        self.representatives_head = nn.Linear(hidden, r * (1 + d))
        for head in (self.mixture_head, self.representatives_head):
            nn.init.normal_(head.weight, std=0.3 * hidden**-0.5)
            nn.init.zeros_(head.bias)

    def forward(self, features: Tensor) -> MixtureSameFamily:
        """Return p(z|G) from the mixture head."""
        return self._from_hidden(self.trunk(self._checked(features)))

    def representatives(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the representatives head's weights and codes."""
        logits, codes = self.representative_logits(self.trunk(self._checked(features)))
        return logits.softmax(1), codes

    def both(self, features: Tensor) -> tuple[MixtureSameFamily, Tensor, Tensor]:
        """Return `(mixture, representative logits, representative codes)` with one pass through the trunk, for training."""
        hidden = self.trunk(self._checked(features))
        return self._from_hidden(hidden), *self.representative_logits(hidden)

    def representative_logits(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits `(B, R)` and codes `(B, R, D)` from the trunk's hidden layer."""
        r, d = self.config.representatives, self.config.latent
        logits, codes = self.representatives_head(hidden).float().split([r, r * d], dim=1)
        return logits, codes.unflatten(1, (r, d))

    def initialize(self, centers: Tensor) -> None:
        """Set the biases of means and representatives to the first rows of `centers`, `(max(K, R), D)`."""
        k, r, d = self.config.components, self.config.representatives, self.config.latent
        check_shape("centers", centers, (max(k, r), d))
        with torch.no_grad():
            self.mixture_head.bias[k : k * (1 + d)] = centers[:k].flatten()
            self.representatives_head.bias[r:] = centers[:r].flatten()

    def _from_hidden(self, hidden: Tensor) -> MixtureSameFamily:
        k, d = self.config.components, self.config.latent
        out = cast(Tensor, self.mixture_head(hidden))
        logits, means, raw_scale = out.split([k, k * d, out.shape[1] - k * (1 + d)], dim=1)
        return self._mixture(logits, means.unflatten(1, (k, d)), raw_scale.unflatten(1, (k, d)) if self.config.scale is None else None)
