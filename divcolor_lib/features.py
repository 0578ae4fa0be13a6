"""Gray-level features: what the mixture density network sees of a photograph.

By default they come from the CVAE's own gray encoder, frozen: its coarsest map, `(C, 4, 4)`. They are computed once for a
data set and kept in half precision. Other kinds serve to compare: pixels, nothing, and the features that the published
method used, those of Zhang's colorization network (`ZhangNet`, or computed before and stored in `.npz` files). Who has
no such weights trains a network for Zhang's task on the photographs at hand (`cvae.ColorClassifier`).
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from .cvae import CVAE, load_exactly
from .data import FEATURE_SHAPE, read_feature
from .errors import CheckpointError, ConfigError, DataError, ShapeError, StorageError, check_shape
from .lab import AB_SCALE
from .runtime import autocast, evaluating

KINDS = ("encoder", "pixels", "none", "classes", "zhang", "zhang-map")
PIXELS = 16
POOLED = 4
ZHANG_FILE = "colorization_release_v2-9b330a0b.pth"
ZHANG_SIZE = 224
ZHANG_AB_SCALE = 110.0
#: Blocks 1 to 7: output channels and number of 3x3 convolutions, stride of the last one, dilation.
ZHANG_BLOCKS = ((64, 2, 2, 1), (128, 2, 2, 1), (256, 3, 2, 1), (512, 3, 1, 1), (512, 3, 1, 2), (512, 3, 1, 2), (512, 3, 1, 1))
ZHANG_BINS = 313
_HASHED_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")


class ZhangNet(nn.Module):
    """Zhang's colorization network of 2016, in the layout of its published PyTorch weights (`colorization_release_v2-9b330a0b.pth`).

    Seven blocks of 3x3 convolutions, each with a ReLU, and a batch norm at the end of each block; the eighth returns to finer
    resolution and gives 313 classes of color, whose mean is the answer. `network(gray)` gives the features of the last
    convolution of block 7 after its ReLU and before the batch norm, "conv7_3": Deshpande et al. fed them to their MDN.

    Two cautions. Their code used an older release of the weights (v1, for Caffe), and so do the features stored in its
    data bundle; v2 gives other numbers, so an MDN that was trained on one cannot read the other. And they looked at
    photographs at 224 pixels, while `gray` here has 64 and is enlarged.

    Source: Zhang, Isola and Efros, *Colorful Image Colorization*, ECCV 2016; layers after colorizers/eccv16.py of
    github.com/richzhang/colorization.
    """

    def __init__(self) -> None:
        super().__init__()
        before = 1
        for number, (after, convolutions, stride, dilation) in enumerate(ZHANG_BLOCKS, start=1):
            layers: list[nn.Module] = []
            for place in range(1, convolutions + 1):
                step = stride if place == convolutions else 1
                layers += [nn.Conv2d(before, after, 3, stride=step, padding=dilation, dilation=dilation), nn.ReLU()]
                before = after
            self.add_module(f"model{number}", nn.Sequential(*layers, nn.BatchNorm2d(after)))
        self.model8 = nn.Sequential(
            nn.ConvTranspose2d(before, 256, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, ZHANG_BINS, 1),
        )
        self.model_out = nn.Conv2d(ZHANG_BINS, 2, 1, bias=False)

    @staticmethod
    def from_published(path: str | Path) -> ZhangNet:
        """Load published weights from a `.pth` file, in eval mode, on the CPU.

        Only tensors are read from it, no code. If the file's name ends in the start of its SHA-256, as the published one's
        does (`-9b330a0b.pth`), the content must match it.

        Raises:
            CheckpointError: the file is absent, damaged or altered, or holds another network.
        """
        return load_exactly(ZhangNet(), _published(Path(path)), str(path)).eval()

    def forward(self, gray: Tensor) -> Tensor:
        """Return the features `(B, 512, 28, 28)` for `gray` (B, 1, 64, 64), L/50 - 1.

        The photograph is enlarged to 224x224 and scaled as these weights want it: (L - 50) / 100.
        """
        check_shape("gray", gray, (None, 1, None, None))
        x = F.interpolate(gray, size=(ZHANG_SIZE, ZHANG_SIZE), mode="bilinear", align_corners=False) / 2
        for number in range(1, len(ZHANG_BLOCKS)):
            x = self.get_submodule(f"model{number}")(x)
        *layers, _ = self.get_submodule("model7").children()
        for layer in layers:
            x = layer(x)
        return x

    def colors(self, gray: Tensor) -> Tensor:
        """Return the network's own answer, one color field `(B, 2, 56, 56)`, ab/128: a test of weights that were just loaded."""
        classes = self.model8(self.get_submodule("model7.6")(self(gray)))
        ab: Tensor = self.model_out(classes.softmax(1)) * (ZHANG_AB_SCALE / AB_SCALE)
        return ab


def _published(path: Path) -> Mapping[str, Tensor]:
    """Return the state_dict in a published `.pth` file. The one place where a file of pickles is opened."""
    if not path.is_file():
        raise CheckpointError("there is no such file of weights", path, "Fetch it: python -m divcolor_lib download zhang.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"the file of weights cannot be read: {error.strerror or error}", path) from error
    named, found = _HASHED_NAME.search(path.name), hashlib.sha256(content).hexdigest()
    if named and not found.startswith(named[1]):
        raise CheckpointError(
            f"its SHA-256 starts with {found[:8]}, its name says {named[1]}: it is truncated or altered", path, "Download it again."
        )
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and storage errors: a damaged file raises whatever its reader meets
        raise CheckpointError(f"the file of weights is damaged ({type(error).__name__})", path, "Download it again.") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError("the file holds no state_dict", path, f"Use {ZHANG_FILE}.")
    return state


def mdn_inputs(kind: str, gray: Tensor, maps: list[Tensor], zhang: nn.Module | None = None) -> Tensor:
    """Return what an MDN that reads features of this kind sees of photographs `gray` (B, 1, 64, 64).

    Kinds:

    * `encoder`: the coarsest map of the CVAE's gray encoder, `(C, 4, 4)`;
    * `pixels`: the photograph itself at 16x16;
    * `none`: a constant, so that p(z|G) becomes p(z);
    * `classes`: the coarsest map of a `ColorClassifier`, Zhang's task learned on our own photographs, `(C, 4, 4)`;
    * `zhang`: features of Zhang's network, averaged over 7x7 places, `(512, 4, 4)`, as the `heads` design can read them;
    * `zhang-map`: all of them, `(512, 28, 28)`, for the `reference` design. One photograph takes 0.8 MB in half precision.

    Args:
        maps: `cvae.gray_features(gray)`.
        zhang: the network that `classes` (a `ColorClassifier`), `zhang` and `zhang-map` (a `ZhangNet`) need.

    Raises:
        ConfigError: an unknown kind, or a network is needed and did not come.
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
        needed = "a color classifier" if kind == "classes" else "Zhang's network"
        raise ConfigError(f"features of {needed} were asked for, but no such network came", "features", "Pass it as `zhang`.")
    with evaluating(zhang):
        features: Tensor = zhang(gray)
    return F.adaptive_avg_pool2d(features, POOLED) if kind == "zhang" else features


def stored_features(paths: Sequence[str | Path], kind: str = "zhang") -> Tensor:
    """Return features that were computed before, in the reference bundle's layout, as `code_table` returns them: float16.

    With the codes of the same photographs they make a `CodeSource` for training an MDN: `Photos.features` of
    `data.load_bundle` names the files in the order of its photographs.

    Args:
        paths: `.npz` files of one array each, `arr_0`, 512x28x28 numbers.
        kind: `zhang` averages them to `(N, 512, 4, 4)`; `zhang-map` keeps `(N, 512, 28, 28)`.

    Raises:
        ConfigError: another kind.
        DataError: no path, or a file that is absent, damaged or of another shape.
        ShapeError: a number is infinite or too large for half precision.
    """
    if kind not in ("zhang", "zhang-map"):
        raise ConfigError(f"features of kind `{kind}` are not stored", "stored_features", "Use zhang or zhang-map.")
    if not paths:
        raise DataError("no feature file was named", "stored_features", "Pass one path for each photograph.")
    size = POOLED if kind == "zhang" else FEATURE_SHAPE[1]
    table = torch.empty(len(paths), FEATURE_SHAPE[0], size, size, dtype=torch.float16)
    for row, path in zip(table, paths):
        row.copy_(F.adaptive_avg_pool2d(read_feature(path), size))
        if not bool(row.isfinite().all()):
            raise ShapeError(f"the feature file {path} holds numbers that half precision cannot hold", todo="Look at how it was made.")
    return table


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
    into: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return features `(N, C, H, W)` in float16 and posteriors `mu`, `logvar`, each `(N, D)` in float32, of a whole data set.

    Args:
        batches: pairs `(gray, ab)`, in the order the rows shall have.
        kind, zhang: which features, as `mdn_inputs` takes them.
        into: `(N, C, H, W)` float16 to write the features to and return, such as `on_disk` makes; by default they stay in memory.

    Raises:
        DataError: no batch came.
        ShapeError: `into` does not have room for exactly these features.
    """
    features: list[Tensor] = []
    mus: list[Tensor] = []
    logvars: list[Tensor] = []
    count = 0
    with evaluating(cvae):
        for gray, ab in tqdm(batches, desc="codes", disable=not progress):
            with autocast(gray.device, precision):
                mu, logvar = cvae.encode(ab, gray)
                found = mdn_inputs(kind, gray, cvae.gray_features(gray), zhang).half()
            if into is None:
                features.append(found)
            else:
                check_shape("into", into[count : count + len(found)], tuple(found.shape))
                into[count : count + len(found)].copy_(found)
            count += len(found)
            mus.append(mu.float())
            logvars.append(logvar.float())
    if not count:
        raise DataError("no batch came, so there is nothing to tabulate", "code_table", "Pass an iterable that is not used up.")
    if into is not None and count != len(into):
        raise ShapeError(f"`into` has {len(into)} rows for {count} photographs", "code_table", "Give it one row for each.")
    return torch.cat(features) if into is None else into, torch.cat(mus), torch.cat(logvars)


def on_disk(path: str | Path, shape: tuple[int, ...]) -> Tensor:
    """Return a float16 tensor that lives in a file, for features that memory cannot hold; what the file held before is lost.

    Zhang's features of 12,000 photographs take 9.6 GB, `(12000, 512, 28, 28)` in half precision; a batch reads only its own rows.

    Raises:
        StorageError: the file cannot be made at that size.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as made:
            made.truncate(2 * math.prod(shape))
            if hasattr(os, "posix_fallocate"):  # else a disk that fills up later would kill the process
                os.posix_fallocate(made.fileno(), 0, 2 * math.prod(shape))
        return torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=torch.float16).view(shape)
    except (OSError, RuntimeError) as error:
        raise StorageError(
            f"no file for features can be made: {error}", path, "Free some space, or use `zhang`, which averages them."
        ) from error
