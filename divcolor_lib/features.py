"""Gray-level features: what the mixture density network sees of a photograph.

By default they come from the CVAE's own gray encoder, frozen: its coarsest map, `(C, 4, 4)`. They are computed once for a
data set and kept in half precision. Other kinds serve to compare: pixels, nothing, and the features that the published
method used, those of Zhang's colorization network (`ZhangNet`, or computed before and stored in `.npz` files).
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from .cvae import CVAE, load_exactly
from .data import FEATURE_SHAPE, read_feature
from .errors import CheckpointError, ConfigError, DataError, ShapeError, check_shape
from .lab import AB_SCALE
from .runtime import autocast, evaluating

KINDS = ("encoder", "pixels", "none", "zhang", "zhang-map")
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
        raise CheckpointError("there is no such file of weights", path, f"Download {ZHANG_FILE} and pass its path.")
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
    * `zhang`: features of Zhang's network, averaged over 7x7 places, `(512, 4, 4)`, as the `heads` design can read them;
    * `zhang-map`: all of them, `(512, 28, 28)`, for the `reference` design. One photograph takes 0.8 MB in half precision.

    Args:
        maps: `cvae.gray_features(gray)`.
        zhang: the network that `zhang` and `zhang-map` need, such as `ZhangNet`.

    Raises:
        ConfigError: an unknown kind, or one of Zhang's without the network.
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
