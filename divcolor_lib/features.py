"""Gray-level features: what the mixture density network sees of a photograph.

By default they come from the CVAE's own gray encoder, frozen: its coarsest map, `(C, 4, 4)`. They are computed once for a
data set and kept in half precision. Other kinds serve to compare.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from .cvae import CVAE
from .errors import ConfigError, DataError
from .runtime import autocast, evaluating

KINDS = ("encoder", "pixels", "none", "zhang")
PIXELS = 16


def mdn_inputs(kind: str, gray: Tensor, maps: list[Tensor], zhang: nn.Module | None = None) -> Tensor:
    """Return what an MDN that reads features of this kind sees of photographs `gray` (B, 1, 64, 64).

    Kinds: `encoder`, the coarsest map of the CVAE's gray encoder; `pixels`, the photograph itself at 16x16; `none`, a
    constant, so that p(z|G) becomes p(z); `zhang`, features of Zhang's colorization network.

    Args:
        maps: `cvae.gray_features(gray)`.
        zhang: the network that `zhang` needs.

    Raises:
        ConfigError: an unknown kind, or `zhang` without its network.
    """
    if kind == "encoder":
        return maps[-1]
    if kind == "pixels":
        return F.avg_pool2d(gray, gray.shape[-1] // PIXELS)
    if kind == "none":
        return gray.new_zeros(len(gray), 1, 1, 1)
    if kind not in KINDS:
        raise ConfigError(f"unknown features `{kind}`", "features", f"Use one of {', '.join(KINDS)}.")
    if zhang is None:
        raise ConfigError("features of Zhang's network were asked for, but no such network came", "features", "Pass it as `zhang`.")
    with evaluating(zhang):
        features: Tensor = zhang(gray)
    return features


def input_shape(kind: str, cvae: CVAE, zhang: nn.Module | None = None) -> tuple[int, int, int]:
    """Return channels, height and width of the features of this kind."""
    if kind == "encoder":
        return cvae.feature_shape
    gray = torch.zeros(1, 1, 64, 64, device=next(cvae.parameters()).device)
    channels, height, width = mdn_inputs(kind, gray, [], zhang).shape[1:]
    return channels, height, width


def gray_features(cvae: CVAE, gray: Tensor) -> Tensor:
    """Return the coarsest map `(B, C, 4, 4)` of the gray encoder for `gray` (B, 1, 64, 64), float32, without gradients."""
    with evaluating(cvae):
        return cvae.gray_features(gray)[-1].float()


def code_table(
    cvae: CVAE,
    batches: Iterable[tuple[Tensor, Tensor]],
    precision: str = "fp32",
    progress: bool = False,
    kind: str = "encoder",
    zhang: nn.Module | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return features `(N, C, H, W)` in float16 and posteriors `mu`, `logvar`, each `(N, D)` in float32, of a whole data set.

    Args:
        batches: pairs `(gray, ab)`, in the order the rows shall have.
        kind, zhang: which features, as `mdn_inputs` takes them.
    """
    features, mus, logvars = [], [], []
    with evaluating(cvae):
        for gray, ab in tqdm(batches, desc="codes", disable=not progress):
            with autocast(gray.device, precision):
                mu, logvar = cvae.encode(ab, gray)
                features.append(mdn_inputs(kind, gray, cvae.gray_features(gray), zhang).half())
            mus.append(mu.float())
            logvars.append(logvar.float())
    if not features:
        raise DataError("no batch came, so there is nothing to tabulate", "code_table", "Pass an iterable that is not used up.")
    return torch.cat(features), torch.cat(mus), torch.cat(logvars)
