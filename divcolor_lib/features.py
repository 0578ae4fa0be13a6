"""Gray-level features: what the mixture density network sees of a photograph.

Here they come from the CVAE's own gray encoder, frozen: its coarsest map, `(C, 4, 4)`. They are computed once for a
data set and kept in half precision.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from tqdm import tqdm

from .cvae import CVAE
from .errors import DataError
from .runtime import autocast, evaluating


def gray_features(cvae: CVAE, gray: Tensor) -> Tensor:
    """Return the coarsest map `(B, C, 4, 4)` of the gray encoder for `gray` (B, 1, 64, 64), float32, without gradients."""
    with evaluating(cvae):
        return cvae.gray_features(gray)[-1].float()


def code_table(
    cvae: CVAE, batches: Iterable[tuple[Tensor, Tensor]], precision: str = "fp32", progress: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return features `(N, C, 4, 4)` in float16 and posteriors `mu`, `logvar`, each `(N, D)` in float32, of a whole data set.

    Args:
        batches: pairs `(gray, ab)`, in the order the rows shall have.
    """
    features, mus, logvars = [], [], []
    with evaluating(cvae):
        for gray, ab in tqdm(batches, desc="codes", disable=not progress):
            with autocast(gray.device, precision):
                mu, logvar = cvae.encode(ab, gray)
                features.append(cvae.gray_features(gray)[-1].half())
            mus.append(mu.float())
            logvars.append(logvar.float())
    if not features:
        raise DataError("no batch came, so there is nothing to tabulate", "code_table", "Pass an iterable that is not used up.")
    return torch.cat(features), torch.cat(mus), torch.cat(logvars)
