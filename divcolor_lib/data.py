"""Photographs: load them once, split them by person, and hand them out in batches.

A data set of small pictures fits in memory: 12,000 faces of 64x64 pixels take 150 MB as bytes. So each file is decoded
once, kept as uint8 sRGB, and remembered on disk. Training moves the bytes to the device and converts every batch
there, which is far cheaper than reading files again in each epoch.

Three layouts are known, and `load` tells them apart:

- Labeled Faces in the Wild (`load_lfw`): `<Person>/<Person>_NNNN.jpg`.
- the bundle of the reference code (`load_bundle`): lists of picture paths beside lists of feature paths.
- any folder of photographs (`load_folder`).

Source of the faces: Huang et al., "Labeled Faces in the Wild", UMass Amherst TR 07-49, 2007; Huang et al., "Learning
to Align from Scratch", NIPS 2012 (deep funneling).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from tqdm import tqdm

from .download import LFW_SETS
from .errors import CheckpointError, ConfigError, DataError, ImageError, ShapeError, StorageError, check_shape, whole_file
from .lab import SIZE, read_image, resize_area, rgb_to_lab, split
from .portraits import PORTRAIT_COUNTS, PORTRAIT_SEED, Portraits
from .runtime import Runtime

SPLIT_SEED = 2017
FRACTIONS = (0.90, 0.04, 0.06)
SINGLE_TINT = 2.5
CACHE_FOLDER = ".divcolor-cache"
FACE_BOX = (26, 42, 22, 42)  #: top, bottom, left, right of the central face, in 64ths of a picture's height and width.
FEATURE_SHAPE = (512, 28, 28)
PICTURE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".jp2", ".tif", ".tiff"]
    + [".gif", ".bmp", ".dib", ".tga", ".ppm", ".pgm", ".pbm", ".pnm"]
)

Picture = NDArray[np.uint8]
Indices = Sequence[int] | NDArray[Any] | Tensor

_CACHE_VERSION = 1
_TINT_GROUPS = 64
_LFW_CROP = "250x250 frames cropped to the central 200x200"
_TONE_EDGES = {"L": tuple(range(0, 101, 5)), "ITA": tuple(range(-90, 91, 10))}
_LFW_NAME = re.compile(r"(?P<person>.+)_\d{4}\.jpe?g", re.IGNORECASE)


# --- Photographs in memory -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Photos:
    """Photographs of one size, decoded and in memory.

    Attributes:
        images: uint8 sRGB `(N, S, S, 3)`.
        names: one name for each photograph.
        groups: who or what each photograph shows. Photographs of one group never fall into different parts of a split.
        source: one line that says where the photographs come from and what was done to them.
        files: the files they were read from, or empty.
        crop: which part of a file the image shows, a key of `CROPS`.
        features: for the reference bundle, the stored feature file of each photograph; else empty.

    Raises:
        ShapeError: `images` is not uint8 `(N, S, S, 3)`, or a list has another length.
    """

    images: Tensor
    names: list[str]
    groups: list[str]
    source: str = "made in memory"
    files: list[Path] = field(default_factory=list, repr=False)
    crop: str = "square"
    features: list[Path] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        check_shape("images", self.images, (None, None, None, 3))
        if self.images.dtype != torch.uint8:
            raise ShapeError(f"`images` has type {self.images.dtype}", todo="Photographs at rest are uint8, 0..255.")
        for name, optional in (("names", False), ("groups", False), ("files", True), ("features", True)):
            values = getattr(self, name)
            if len(values) != len(self.images) and not (optional and not values):
                raise ShapeError(f"`{name}` has {len(values)} entries for {len(self.images)} photographs", todo="Give one for each.")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"Photos({len(self)} of {len(set(self.groups))} groups, {self.source})"

    def subset(self, indices: Indices) -> Photos:
        """Return the photographs at `indices` (integers, or one bool for each photograph), in that order.

        Raises:
            DataError: nothing is left.
            IndexError: an index is out of range.
        """
        index = _as_index(indices, len(self))
        if not len(index):
            raise DataError("no photograph is left", self.source, "Choose at least one.")
        chosen = index.tolist()

        def pick(values: list[Any]) -> list[Any]:
            return [values[i] for i in chosen] if values else []

        return replace(
            self,
            images=self.images[index.to(self.images.device)],
            names=pick(self.names),
            groups=pick(self.groups),
            files=pick(self.files),
            features=pick(self.features),
        )


def content_hash(photos: Photos) -> str:
    """Return the SHA-256 of the pixels and their shape, to name a data set in a manifest. Names and groups do not count."""
    images = photos.images.cpu().contiguous()
    digest = hashlib.sha256(repr(tuple(images.shape)).encode())
    digest.update(images.numpy().data)
    return digest.hexdigest()


def crop_square(image: Picture) -> Picture:
    """Return the largest central square of a picture `(H, W, 3)`."""
    side = min(image.shape[:2])
    return _center(image, side)


def crop_lfw(image: Picture) -> Picture:
    """Return the central 200x200 of a 250x250 frame; of any other size the central square, which may be the whole.

    The statistics that the authors of the method published for LFW match this crop, not the whole frame.
    """
    return _center(image, 200) if image.shape[:2] == (250, 250) else crop_square(image)


CROPS: Mapping[str, Callable[[Picture], Picture]] = {"lfw": crop_lfw, "square": crop_square}


# --- Loaders -------------------------------------------------------------------------------------------------------


def load(folder: str | Path, size: int = SIZE, cache: str | Path | bool | None = True, skip_bad: bool = False) -> Photos:
    """Load a folder of photographs, whatever its layout: the reference bundle (its training part), LFW, or plain.

    A folder counts as LFW if at least half of its pictures are called `<Person>/<Person>_NNNN.jpg`.
    Arguments and errors are those of `load_lfw`.
    """
    root = _existing(folder)
    if _bundle_data(root) is not None:
        return load_bundle(root, size=size, cache=cache, skip_bad=skip_bad)
    pictures = _pictures_under(root)
    is_lfw = 2 * sum(map(_is_lfw, pictures)) >= len(pictures) > 0
    listing = _list_lfw(root, pictures) if is_lfw else _list_folder(root, pictures, "file")
    return _decoded(listing, size, cache, skip_bad)


def load_lfw(folder: str | Path, size: int = SIZE, cache: str | Path | bool | None = True, skip_bad: bool = False) -> Photos:
    """Load Labeled Faces in the Wild, `<Person>/<Person>_NNNN.jpg`, also from inside the archive's top folder.

    A frame of 250x250 is cropped to its central 200x200 (`crop_lfw`), then area-averaged to `size`.

    Args:
        folder: the folder of people, or one that holds it, such as the parent of `lfw-deepfunneled/`.
        size: height and width of the images in memory.
        cache: where the decoded pixels are remembered. `True`: in a folder `.divcolor-cache` inside `folder`;
            a path: there; `False` or `None`: nowhere. A cache that cannot be written gives a warning, no error.
        skip_bad: leave out pictures that cannot be read, with a warning, instead of raising.

    Returns:
        `Photos`, sorted by person and number. A name is the file's stem, a group is a person.

    Raises:
        DataError: the folder is absent, empty or without such pictures; or pictures in it cannot be read.
        ConfigError: `size` is below one.
    """
    root = _existing(folder)
    return _decoded(_list_lfw(root, _pictures_under(root)), size, cache, skip_bad)


def load_folder(
    folder: str | Path,
    size: int = SIZE,
    cache: str | Path | bool | None = True,
    skip_bad: bool = False,
    group_by: str = "file",
) -> Photos:
    """Load every photograph in a folder and its subfolders: the central square, area-averaged to `size`.

    Hidden files and folders are passed over, and files without the suffix of a picture.

    Args:
        folder, size, cache, skip_bad: as in `load_lfw`.
        group_by: `file` (each photograph is its own group) or `folder` (photographs in one subfolder belong together).

    Returns:
        `Photos`, sorted by path. A name is the path inside `folder`, with `/`.

    Raises:
        DataError: the folder is absent, empty or without pictures; or pictures in it cannot be read.
        ConfigError: `group_by` is unknown, or `size` is below one.
    """
    if group_by not in ("file", "folder"):
        raise ConfigError(f"unknown grouping `{group_by}`", "group_by", "Use `file` or `folder`.")
    root = _existing(folder)
    return _decoded(_list_folder(root, _pictures_under(root), group_by), size, cache, skip_bad)


def load_bundle(
    folder: str | Path,
    part: str = "train",
    size: int = SIZE,
    cache: str | Path | bool | None = True,
    skip_bad: bool = False,
    features: bool = True,
) -> Photos:
    """Load one part of the reference code's data bundle.

    `data/imglist/lfw/list.<part>.vae.txt` lists pictures, `data/featslist/lfw/list.<part>.txt` lists feature files.
    Both belong together line by line, so each pair must have the same name. A path written on another machine is
    found by its end: the longest tail of it that exists inside the bundle.

    Args:
        folder: the bundle, the folder that holds `data/` (or `data/` itself).
        part: `train` or `test`.
        size, cache, skip_bad: as in `load_lfw`.
        features: whether to pair features; `False` needs no list of features.

    Returns:
        `Photos` in the order of the list; `photos.features[i]` is for `read_feature`.

    Raises:
        DataError: a list is absent or empty, a listed file is absent, a pair does not match, or a picture is damaged.
            The message names the list and the line.
        ConfigError: `part` is unknown, or `size` is below one.
    """
    if part not in ("train", "test"):
        raise ConfigError(f"unknown part `{part}`", "part", "Use `train` or `test`.")
    root = _existing(folder)
    data = _bundle_data(root)
    if data is None:
        raise DataError("this is not the reference bundle", root, "It should hold `data/imglist/lfw/` with lists of pictures.")
    picture_list = data / "imglist" / "lfw" / f"list.{part}.vae.txt"
    feature_list = data / "featslist" / "lfw" / f"list.{part}.txt"
    pictures = _read_list(picture_list)
    paired = _read_list(feature_list) if features else []
    if features:
        _check_pairs(picture_list, pictures, feature_list, paired)
    roots = list(dict.fromkeys((data.parent, data)))
    files = _resolve_all(picture_list, pictures, roots)
    stored = _resolve_all(feature_list, paired, roots)
    names = [_stem(text) for _, text in pictures]
    source = f"reference bundle, {part} part; {_LFW_CROP}"
    listing = _Listing(f"bundle-{part}", root, files, names, [_person(name) for name in names], source, "lfw", stored)
    return _decoded(listing, size, cache, skip_bad)


def read_feature(path: str | Path) -> Tensor:
    """Read one stored feature of the reference bundle: float32 `(512, 28, 28)`, the array `arr_0` of a `.npz` file.

    Raises:
        DataError: the file is absent or damaged, or holds something else.
    """
    todo = "Unpack the bundle again; this file should hold `arr_0`, 512x28x28 numbers."
    try:
        with np.load(path, allow_pickle=False) as archive:
            feature = np.asarray(archive["arr_0"], dtype=np.float32)
    except FileNotFoundError as error:
        raise DataError("there is no such feature file", path, todo) from error
    except Exception as error:  # zip, header and type errors: a broken archive raises whatever its reader meets
        raise DataError(f"the feature file cannot be read: {error}", path, todo) from error
    if feature.shape != FEATURE_SHAPE:
        raise DataError(f"the feature has shape {feature.shape}", path, todo)
    return torch.from_numpy(np.ascontiguousarray(feature))


# --- Which photographs to learn from -------------------------------------------------------------------------------


def tint_spread(images: Tensor, chunk: int = 64) -> Tensor:
    """Measure how far color is from being a function of lightness, in Lab units.

    A black-and-white, sepia or duotone print has one color for each lightness; a color photograph has many. So sort
    the pixels by lightness into 64 groups and measure how much (a, b) varies within a group:

        spread = sqrt( sum of squared distances to the mean color of the own group / (pixels - groups) )

    A neutral gray picture has 0. Hue and strength of the tint do not matter, and the tint may change with lightness.

    Args:
        images: uint8 sRGB `(N, H, W, 3)`.
        chunk: how many images are converted at once.

    Returns:
        float32 `(N,)`, on the device of `images`.
    """
    check_shape("images", images, (None, None, None, 3))
    return torch.cat([_tint_spread(images[start : start + chunk]) for start in range(0, len(images), chunk)])


def is_single_tint(images: Tensor, threshold: float = SINGLE_TINT) -> Tensor:
    """Tell which photographs have a single tint: `tint_spread` below `threshold`. There is no color to learn from them.

    The threshold 2.5 was chosen by eye at 64x64. Of 12,181 color photographs of LFW the lowest has 2.69, and the lowest
    seventy are all in color: faces before a black or a gray wall. Three hundred photographs that were tinted and saved
    as JPEG (quality 90) reach at most 0.0 in black and white, 1.1 with a color cast, 2.4 as duotones and 2.5 in sepia;
    at quality 75 one in fifty duotones and sepia prints lies above. So do duotones of two saturated colors that are
    about equally light.

    Args:
        images: uint8 sRGB `(N, H, W, 3)`.

    Returns:
        bool `(N,)`.
    """
    return tint_spread(images) < threshold


def without_single_tint(photos: Photos, threshold: float = SINGLE_TINT) -> Photos:
    """Leave out single-tint photographs; `source` then says how many.

    Raises:
        DataError: all of them are single-tint.
    """
    single = is_single_tint(photos.images, threshold)
    if not single.any():
        return photos
    if single.all():
        raise DataError(f"all {len(photos)} photographs have a single tint", photos.source, "Colors are learned from color photographs.")
    kept = photos.subset(~single)
    return replace(kept, source=f"{photos.source}; {int(single.sum())} single-tint photographs left out")


class Split(NamedTuple):
    """Indices of the three parts, int64 arrays in ascending order. Every index is in exactly one of them."""

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]


def split_by_group(groups: Sequence[str], seed: int = SPLIT_SEED, fractions: Sequence[float] = FRACTIONS) -> Split:
    """Split into training, validation and test so that no group (person) is in two parts.

    A hash of the seed and the group's name gives a number in [0, 1), and the number alone decides. So the same
    person is in the same part on every machine, and further people move nobody. `fractions` are then met on average
    over groups. Only if a part would be empty, the group nearest to it is moved there.

    Args:
        groups: the group of each photograph.
        seed: another seed gives another split.
        fractions: shares of training, validation and test; they sum to one. A share of 0 leaves that part empty.

    Raises:
        ConfigError: the fractions are not three shares that sum to one, or training has none.
        DataError: there are fewer groups than parts.
    """
    shares = [float(share) for share in fractions]
    if len(shares) != 3 or min(shares) < 0 or not abs(sum(shares) - 1) <= 1e-6 or shares[0] == 0:
        raise ConfigError(f"the fractions are {tuple(fractions)}", "fractions", "Give three shares that sum to 1, the first above 0.")
    number = {group: _hashed(seed, group) for group in sorted(set(groups))}
    wanted = [part for part in range(3) if shares[part] > 0]
    if len(number) < len(wanted):
        raise DataError(
            f"{len(number)} groups cannot be split into {len(wanted)} parts that share no group",
            "groups",
            "Add photographs of other people or scenes, or set a fraction to 0.",
        )
    edges = np.cumsum([0.0, *shares])
    # The last wanted part takes what rounding leaves above its edge.
    home = {group: min(int(np.searchsorted(edges, value, side="right")) - 1, wanted[-1]) for group, value in number.items()}
    for part in wanted:
        if part not in home.values():
            donor = Counter(home.values()).most_common(1)[0][0]
            middle = (edges[part] + edges[part + 1]) / 2
            nearest = min((abs(number[group] - middle), group) for group in home if home[group] == donor)[1]
            home[nearest] = part
    parts = np.array([home[group] for group in groups], dtype=np.int64)
    return Split(*(np.flatnonzero(parts == part).astype(np.int64) for part in range(3)))


# --- What a data set holds, in numbers ------------------------------------------------------------------------------


def face_tone(images: Tensor, chunk: int = 500) -> tuple[Tensor, Tensor]:
    """Measure how light, and how yellow for its lightness, the middle of each picture is.

    The individual typology angle of Chardon, Cretois and Hourseau (1991) describes skin that a colorimeter touches:

        ITA = atan2(L - 50, b), in degrees; here with the medians of L and of b over `FACE_BOX`

    In a photograph it is a proxy. Light, camera and print move it as much as skin does, the box may hold hair, glasses or no
    face at all, and Lab of an sRGB file knows nothing of the lamp. Use it to compare sets of pictures, not to describe a person.

    Args:
        images: uint8 sRGB `(N, H, W, 3)` with a face in the middle, as LFW has it.
        chunk: how many images are converted at once.

    Returns:
        Median L, 0 to 100, and ITA in degrees, both float32 `(N,)`, on the device of `images`. ITA lies in [-90, 90] wherever the
        median b is not negative. A median is the lower one of two middle values.

    Raises:
        ShapeError: another shape, or no image.
    """
    check_shape("images", images, (None, None, None, 3))
    height, width = images.shape[1:3]
    top, bottom, left, right = (round(edge * side / 64) for edge, side in zip(FACE_BOX, (height, height, width, width)))
    faces = images[:, top : max(bottom, top + 1), left : max(right, left + 1)]
    medians = torch.cat([rgb_to_lab(part.permute(0, 3, 1, 2)).flatten(2).median(dim=2).values for part in faces.split(chunk)])
    light, yellow = medians[:, 0], medians[:, 2]
    return light, torch.rad2deg(torch.atan2(light - 50, yellow))


def statement(photos: Photos, seed: int = SPLIT_SEED) -> dict[str, Any]:
    """Return a data statement: counts and proxies that are computed. Nothing about a person is inferred.

    Args:
        photos: the photographs.
        seed: of the split.

    Returns:
        Plain values, ready for JSON:

        - `source`, `sha256 of the pixels`, `images`, `people`, `single tint` (how many photographs are).
        - `images of a person`: how many people have 1, 2, ... photographs; the keys are texts.
        - `split`: `seed`, `fractions`, and `images` and `people` of training, validation and test; `None` for fewer people than parts.
        - `L` and `ITA` of `face_tone`: `edges` and `counts` of a histogram, whose first and last bins take what lies beyond; the
          `quantiles` at 5, 25, 50, 75 and 95 percent; the standard deviation over `photographs`; and the pooled one
          `within a person`, over all people with two or more photographs, `None` without any.
    """
    counts = Counter(photos.groups)
    of_one = Counter(counts.values())
    tones = dict(zip(("L", "ITA"), face_tone(photos.images)))
    split = None
    if len(counts) >= len(FRACTIONS):
        parts = split_by_group(photos.groups, seed)
        people = [len({photos.groups[i] for i in part}) for part in parts]
        split = {"seed": seed, "fractions": FRACTIONS, "images": [len(part) for part in parts], "people": people}
    return {
        "source": photos.source,
        "sha256 of the pixels": content_hash(photos),
        "images": len(photos),
        "people": len(counts),
        "single tint": int(is_single_tint(photos.images).sum()),
        "images of a person": {str(count): of_one[count] for count in sorted(of_one)},
        "split": split,
        **{name: _spread(values.double().cpu(), photos.groups, _TONE_EDGES[name]) for name, values in tones.items()},
    }


def leakage(photos: Photos, splits: int = 10, fractions: Sequence[float] = FRACTIONS, side: int = 32) -> dict[str, Any]:
    """Measure how much a split by photograph flatters a colorizer that has learned nothing and copies.

    It gives a gray picture the color field of the training photograph whose gray, averaged to `side` x `side` pixels, correlates
    most. Each of `splits` seeds makes a split by person (`split_by_group`), and a random one by photograph of the same sizes.
    For the second the test photographs are also colored while their own people's other photographs are hidden: same pictures,
    no leak. So the difference of the two is the leak and nothing else.

    Args:
        photos: photographs of at least three people.
        splits: how many seeds, 0, 1, ...
        fractions: shares of training, validation and test.
        side: of the gray pictures that are compared.

    Returns:
        `side`, and lists with one number for each seed: `train` and `test` (photographs); the error `by image`, the same with
        `own person hidden`, and `by person`; the share of test photographs `copied from the own person`; and the errors of these
        alone, `copied` and `copied, own person hidden` (`None` where there are none). An error is the RMS of ab/128 over a
        photograph, its mean over photographs.

    Raises:
        ConfigError: the fractions are not three shares that sum to one, or the test has none.
        DataError: fewer people than parts.
    """
    if not fractions[-1] > 0:
        raise ConfigError("the test part has no share", "fractions", "Give it a share above 0.")
    source = PhotoFields(photos.images)
    grays = [resize_area(source.batch(part)[0], (side, side)).flatten(1) for part in torch.arange(len(photos)).split(500)]
    keys = torch.nn.functional.normalize(torch.cat([gray - gray.mean(1, keepdim=True) for gray in grays]), dim=1)
    _, persons = np.unique(np.array(photos.groups), return_inverse=True)
    person = torch.from_numpy(persons)

    def errors(test: Tensor, copied: Tensor) -> Tensor:
        pairs = zip(test.split(500), copied.split(500))
        return torch.cat([(source.batch(a)[1] - source.batch(b)[1]).square().mean(dim=(1, 2, 3)).sqrt() for a, b in pairs])

    found: dict[str, list[Any]] = {}
    for seed in range(splits):
        parts = split_by_group(photos.groups, seed, fractions)
        order = torch.randperm(len(photos), generator=torch.Generator().manual_seed(seed))
        test, train = order[: len(parts.test)], order[len(parts.test) :][: len(parts.train)]
        likeness = keys[test] @ keys[train].T
        own = person[test][:, None] == person[train]
        nearest = likeness.argmax(dim=1)
        stranger = likeness.masked_fill(own, -torch.inf).argmax(dim=1)
        leaked = own.gather(1, nearest[:, None])[:, 0]
        by_image, hidden = errors(test, train[nearest]), errors(test, train[stranger])
        apart, rest = torch.from_numpy(parts.test), torch.from_numpy(parts.train)
        by_person = errors(apart, rest[(keys[apart] @ keys[rest].T).argmax(dim=1)])
        row = {
            "train": len(train),
            "test": len(test),
            "by image": float(by_image.mean()),
            "own person hidden": float(hidden.mean()),
            "by person": float(by_person.mean()),
            "copied from the own person": float(leaked.float().mean()),
            "copied": float(by_image[leaked].mean()) if leaked.any() else None,
            "copied, own person hidden": float(hidden[leaked].mean()) if leaked.any() else None,
        }
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return {"side": side, **found}


# --- Batches for training ------------------------------------------------------------------------------------------


class FieldSource(Protocol):
    """Whatever can hand out gray images and color fields by index."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return `gray` `(B, 1, H, W)` and `ab` `(B, 2, H, W)`, float32, for int64 indices `(B,)`."""
        ...


class PhotoFields:
    """Photographs as bytes on a device; each batch is converted to `gray` and `ab` there.

    Args:
        images: uint8 sRGB `(N, H, W, 3)`.
        device: where the bytes stay and the conversion runs; by default where `images` are.
    """

    def __init__(self, images: Tensor, device: torch.device | str | None = None) -> None:
        check_shape("images", images, (None, None, None, 3))
        if images.dtype != torch.uint8:
            raise ShapeError(f"`images` has type {images.dtype}", todo="Photographs at rest are uint8, 0..255.")
        self.images = images.to(device) if device is not None else images

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return `gray` `(B, 1, H, W)` and `ab` `(B, 2, H, W)` of these images, converted now."""
        return split(self.images[_to_device(indices, self.images.device)])


class TensorFields:
    """Ready tensors: `gray` `(N, 1, H, W)` and `ab` `(N, 2, H, W)`. Half precision at rest saves memory; batches are float32."""

    def __init__(self, gray: Tensor, ab: Tensor) -> None:
        check_shape("gray", gray, (None, 1, None, None))
        check_shape("ab", ab, (gray.shape[0], 2, *gray.shape[2:]))
        self.gray, self.ab = gray, ab

    def __len__(self) -> int:
        return len(self.gray)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return `gray` `(B, 1, H, W)` and `ab` `(B, 2, H, W)` of these images, float32."""
        gray = self.gray[_to_device(indices, self.gray.device)]
        return gray.float(), self.ab[_to_device(indices, self.ab.device)].float()


def converted(source: FieldSource, chunk: int = 500) -> TensorFields:
    """Convert every image of a source once, and keep the fields in half precision, 25 kB for an image of 64x64.

    For training on a processor, where converting a batch costs several times what gathering it costs. Half precision
    is within 0.03 Lab units; measure on the source itself.
    """
    pairs = [source.batch(indices) for indices in torch.arange(len(source)).split(chunk)]
    return TensorFields(torch.cat([gray.half() for gray, _ in pairs]), torch.cat([ab.half() for _, ab in pairs]))


def subset(source: FieldSource, indices: Indices) -> FieldSource:
    """Return the part of a source at `indices`, without copying it. Index 0 of the part is `indices[0]` of the source.

    Raises:
        IndexError: an index is out of range.
    """
    return _Subset(source, _as_index(indices, len(source)))


def in_order(source: FieldSource, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield `(indices, gray, ab)` over the whole source once, in order; the last batch may be smaller. For evaluation."""
    if batch_size < 1:
        raise ConfigError(f"the batch size is {batch_size}", "batch_size", "Use at least one.")
    for start in range(0, len(source), batch_size):
        indices = torch.arange(start, min(start + batch_size, len(source)))
        yield indices, *source.batch(indices)


class Batches:
    """An endless stream of shuffled batches `(indices, gray, ab)` that can be resumed exactly.

    Each epoch draws a permutation, the flips and the shifts from a generator of its own, so nothing else that uses random
    numbers disturbs the stream. `state_dict` in the middle of an epoch, then `load_state_dict` into a new object, gives
    bit-identical batches to an uninterrupted run.

    Args:
        source: where the fields come from.
        batch_size: how many a batch.
        seed: of the generator.
        flip: mirror each image left to right with probability 1/2 (gray and ab together).
        drop_last: leave out the last, smaller batch of an epoch, so that every batch has the same size.
        shift: move each image by up to so many pixels along both axes (gray and ab together); what the move uncovers
            mirrors what lies inside.

    Raises:
        ConfigError: the batch size is below one, or larger than the source while `drop_last` is on; or the shift is negative.
    """

    def __init__(
        self, source: FieldSource, batch_size: int, seed: int = 0, flip: bool = False, drop_last: bool = True, shift: int = 0
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"the batch size is {batch_size}", "batch_size", "Use at least one.")
        if shift < 0:
            raise ConfigError(f"the shift is {shift}", "shift", "Use 0 or a few pixels.")
        if len(source) == 0 or (drop_last and batch_size > len(source)):
            found = f"{len(source)} images do not fill one batch of {batch_size}"
            raise ConfigError(found, "batch_size", f"Use more images, or a batch size of at most {max(len(source), 1)}.")
        self.source, self.batch_size, self.flip, self.drop_last, self.shift = source, batch_size, flip, drop_last, shift
        self.epoch = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._draw_epoch()

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch."""
        full, rest = divmod(len(self.source), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> tuple[Tensor, Tensor, Tensor]:
        if self._step == self.steps_per_epoch:
            self.epoch += 1
            self._draw_epoch()
        chosen = slice(self._step * self.batch_size, (self._step + 1) * self.batch_size)
        indices = self._order[chosen]
        gray, ab = self.source.batch(indices)
        if self.flip:
            mirrored = self._mirrored[chosen].view(-1, 1, 1, 1)
            gray = torch.where(_to_device(mirrored, gray.device), gray.flip(-1), gray)
            ab = torch.where(_to_device(mirrored, ab.device), ab.flip(-1), ab)
        if self.shift:
            gray, ab = (shifted(field, self._moves[chosen]) for field in (gray, ab))
        self._step += 1
        return indices, gray, ab

    def state_dict(self) -> dict[str, Tensor | int | bool]:
        """Return what `load_state_dict` needs: a uint8 tensor (the generator at the start of the epoch) and plain values."""
        return {"generator": self._epoch_start.clone(), "epoch": self.epoch, "step": self._step, **self._settings()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where `state_dict` was called.

        Raises:
            CheckpointError: the state is incomplete, or from a stream with other settings or another number of images.
        """
        missing = {"generator", "epoch", "step", *self._settings()} - set(state)
        if missing:
            raise CheckpointError(f"the state of the batches lacks {', '.join(sorted(missing))}", todo="Start training anew.")
        for name, value in self._settings().items():
            if state[name] != value:
                found = f"the state of the batches has {name} = {state[name]}, this stream has {value}"
                raise CheckpointError(found, todo="Resume with the same data and the same settings, or start anew.")
        step, epoch = int(state["step"]), int(state["epoch"])
        if not 0 <= step <= self.steps_per_epoch or epoch < 0:
            raise CheckpointError(f"the state of the batches is at step {step} of {self.steps_per_epoch}", todo="Start training anew.")
        before = self._generator.get_state()
        try:
            self._generator.set_state(torch.as_tensor(state["generator"]).cpu().contiguous())
        except (RuntimeError, TypeError, ValueError) as error:
            self._generator.set_state(before)
            raise CheckpointError(f"the state of the generator is damaged: {error}", todo="Start training anew.") from error
        self._draw_epoch()
        self._step, self.epoch = step, epoch

    def _settings(self) -> dict[str, int | bool]:
        return {
            "count": len(self.source),
            "batch_size": self.batch_size,
            "flip": self.flip,
            "drop_last": self.drop_last,
            "shift": self.shift,
        }

    def _draw_epoch(self) -> None:
        self._epoch_start = self._generator.get_state()
        self._step = 0
        self._order = torch.randperm(len(self.source), generator=self._generator)
        # Drawn in either case: a stream with flips then shows the same images as one without.
        self._mirrored = torch.rand(len(self.source), generator=self._generator) < 0.5
        if self.shift:  # drawn only then: every stream without shifts stays as it was
            self._moves = torch.randint(-self.shift, self.shift + 1, (len(self.source), 2), generator=self._generator)


def shifted(fields: Tensor, moves: Tensor) -> Tensor:
    """Move each field by whole pixels; what a move uncovers is filled by mirroring at the border, whose own row is not repeated.

    Args:
        fields: `(B, C, H, W)`.
        moves: `(B, 2)` whole numbers, down and to the right, each smaller than the field.

    Raises:
        ShapeError: a move is as large as the field.
    """
    check_shape("moves", moves, (fields.shape[0], 2))
    places = []
    for axis, size in enumerate(fields.shape[-2:]):
        if int(moves[:, axis].abs().max()) >= size:
            raise ShapeError(
                f"a move of {int(moves[:, axis].abs().max())} pixels leaves the field", "shifted", f"Move by less than {size}."
            )
        place = torch.arange(size) - moves[:, axis, None]
        places.append(_to_device(size - 1 - (size - 1 - place.abs()).abs(), fields.device))
    rows, columns = places
    image = torch.arange(len(fields), device=fields.device)[:, None, None]
    return fields.movedim(1, -1)[image, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


class Course(NamedTuple):
    """What a chapter trains and measures on, on the device of its runtime.

    Attributes:
        train, val: gray images and color fields; no person is in both.
        groups: the person of each image of `val`; every portrait is a person of its own.
        portraits: the portraits behind `val`, whose posterior is known; `None` for photographs.
    """

    train: FieldSource
    val: FieldSource
    groups: tuple[str, ...]
    portraits: Portraits | None


def course(runtime: Runtime, train: int, val: int) -> Course:
    """Return the first `train` training and `val` validation images of the runtime's data set: portraits, or LFW.

    Portraits come from the same seeds as those of the shipped networks. LFW comes from the folder `DIVCOLOR_DATA`, where
    `download.lfw` puts it, without single-tint photographs, split by person; where it has fewer images, all come.

    Raises:
        ConfigError: the data set is LFW and no folder was named.
        DataError: the folder holds no photographs that can be used.
    """
    if runtime.dataset == "portraits":
        sources = {}
        portraits = {}
        for part, count, seed in (("train", train, PORTRAIT_SEED), ("val", val, PORTRAIT_SEED + list(PORTRAIT_COUNTS).index("val"))):
            portraits[part] = Portraits(count, seed=seed)
            fields = converted(portraits[part])
            sources[part] = TensorFields(fields.gray.to(runtime.device), fields.ab.to(runtime.device))
        return Course(sources["train"], sources["val"], tuple(str(index) for index in range(val)), portraits["val"])
    if runtime.data is None:
        raise ConfigError(
            "the data set is LFW, but no folder was named",
            "DIVCOLOR_DATA",
            "Fetch the faces (python -m divcolor_lib download lfw) and set it to the folder that holds lfw-deepfunneled, or set "
            "DIVCOLOR_DATASET=portraits.",
        )
    unpacked = (runtime.data / name for name in LFW_SETS)
    photos = without_single_tint(load(next((folder for folder in unpacked if folder.is_dir()), runtime.data)))
    parts = split_by_group(photos.groups, SPLIT_SEED)
    fields_of = PhotoFields(photos.images, runtime.device)
    chosen = parts.val[:val]
    return Course(subset(fields_of, parts.train[:train]), subset(fields_of, chosen), tuple(photos.groups[i] for i in chosen), None)


class ColorDataset(Dataset[dict[str, Any]]):
    """The data set of the reference code, one photograph an item, for a `torch.utils.data.DataLoader`.

    An item is a dict:

    - `ab`: float32 `(2, S, S)`, ab/128.
    - `gray`: float32 `(1, S, S)`, L/50 - 1.
    - `weights`: float32 `(1, S, S)`, how rare each pixel's color is.
    - `L_full`: float32 `(1, H, W)`, the lightness 0..100 of the photograph's file at its own resolution, cropped as the
      image was. It is decoded when asked for; photographs without files give the L of the image itself.
    - `name`: str.

    Use `collate_fn=ColorDataset.collate` if the files differ in size: `L_full` is then a list.
    Training is faster with `Batches`, which decodes nothing.

    Args:
        photos: the photographs.
        weights: from `ab` `(B, 2, S, S)` to weights `(B, 1, S, S)`, such as `bins.WeightTable`.
        full: whether items have `L_full`.
    """

    def __init__(self, photos: Photos, weights: Callable[[Tensor], Tensor], full: bool = True) -> None:
        self.photos, self.weights, self.full = photos, weights, full

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]
        gray, ab = split(self.photos.images[index].unsqueeze(0))
        item = {"ab": ab[0], "gray": gray[0], "weights": self.weights(ab)[0], "name": self.photos.names[index]}
        if self.full:
            item["L_full"] = rgb_to_lab(self._original(index).permute(2, 0, 1))[:1]
        return item

    def _original(self, index: int) -> Tensor:
        if not self.photos.files:
            return self.photos.images[index]
        return torch.from_numpy(np.ascontiguousarray(CROPS[self.photos.crop](read_image(self.photos.files[index]))))

    @staticmethod
    def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Stack items into a batch; `name` and `L_full` stay lists."""
        listed = ("name", "L_full")
        return {key: [item[key] for item in items] if key in listed else default_collate([item[key] for item in items]) for key in items[0]}


# --- Decoding and its cache ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Listing:
    """What a loader found, before anything is decoded."""

    kind: str
    folder: Path
    files: list[Path]
    names: list[str]
    groups: list[str]
    source: str
    crop: str
    features: list[Path] = field(default_factory=list)


class _Decoded(NamedTuple):
    """Pixels `(n, size, size, 3)` of the readable files, and why each other one (by index) is unreadable."""

    pixels: Picture
    bad: dict[int, str]


def _decoded(listing: _Listing, size: int, cache: str | Path | bool | None, skip_bad: bool) -> Photos:
    if size < 1:
        raise ConfigError(f"the size is {size}", "size", "Use at least one pixel.")
    slot = _cache_slot(listing, size, cache)
    key = _cache_key(listing, size) if slot else ""
    result = _read_cache(slot, key, len(listing.files), size) if slot else None
    if result is None or (result.bad and not skip_bad):
        result = _decode_all(listing, size)
        _check_readable(listing, result.bad, skip_bad)
        if slot:
            _write_cache(slot, key, result)
    source = f"{listing.source}; {size}x{size}"
    if result.bad:
        warnings.warn(f"{_unreadable(listing, result.bad)}. They are left out.", stacklevel=3)
        source += f"; {len(result.bad)} unreadable left out"
    kept = [i for i in range(len(listing.files)) if i not in result.bad]
    return Photos(
        images=torch.from_numpy(result.pixels),
        names=[listing.names[i] for i in kept],
        groups=[listing.groups[i] for i in kept],
        source=source,
        files=[listing.files[i] for i in kept],
        crop=listing.crop,
        features=[listing.features[i] for i in kept] if listing.features else [],
    )


def _decode_all(listing: _Listing, size: int) -> _Decoded:
    def decode(path: Path) -> Picture | str:
        try:
            return resize_area(CROPS[listing.crop](read_image(path)), (size, size))
        except ImageError as error:
            return error.found

    # Decoders and array arithmetic run outside Python's global lock, so threads help. More than eight hold too many
    # large photographs in memory at once.
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        progress = tqdm(pool.map(decode, listing.files), total=len(listing.files), desc="reading photographs", unit="photo", delay=1.0)
        results = list(progress)
    finally:
        # Without this an interrupt would wait for every file in the queue.
        pool.shutdown(wait=True, cancel_futures=True)
    bad = {index: result for index, result in enumerate(results) if isinstance(result, str)}
    good = [result for result in results if not isinstance(result, str)]
    return _Decoded(np.stack(good) if good else np.empty((0, size, size, 3), np.uint8), bad)


def _check_readable(listing: _Listing, bad: dict[int, str], skip_bad: bool) -> None:
    if bad and (not skip_bad or len(bad) == len(listing.files)):
        todo = "Copy or download them again, or delete them." + ("" if skip_bad else " `skip_bad=True` leaves them out.")
        raise DataError(_unreadable(listing, bad), listing.folder, todo)


def _unreadable(listing: _Listing, bad: dict[int, str]) -> str:
    shown = [f"{_inside(listing.files[index], listing.folder)}: {why}" for index, why in list(bad.items())[:5]]
    more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
    return f"{len(bad)} of {len(listing.files)} photographs cannot be read: {'; '.join(shown)}{more}"


def _cache_slot(listing: _Listing, size: int, cache: str | Path | bool | None) -> Path | None:
    """Return the path of the cache without its suffix. One slot for each folder, layout and size: a stale one is replaced."""
    if cache is None or cache is False:
        return None
    place = listing.folder / CACHE_FOLDER if cache is True else Path(cache)
    tag = hashlib.sha256(str(listing.folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return place / f"{listing.kind}-{size}-{tag}"


def _cache_key(listing: _Listing, size: int) -> str:
    """Hash what the pixels depend on: names, sizes and times of the files, and the rule that made the images."""
    digest = hashlib.sha256(f"{_CACHE_VERSION} {listing.crop} {size}\n".encode())
    for path in listing.files:
        try:
            stat = path.stat()
            state = f"{stat.st_size}\0{stat.st_mtime_ns}"
        except OSError as error:  # a link to nowhere; reading it fails later, with a message that names it
            state = type(error).__name__
        line = f"{_inside(path, listing.folder)}\0{state}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _read_cache(slot: Path, key: str, count: int, size: int) -> _Decoded | None:
    """Return what is remembered, or `None` if there is nothing, or it is stale, or damaged (with a warning)."""
    try:
        manifest = json.loads(slot.with_name(f"{slot.name}.json").read_text(encoding="utf-8"))
        if manifest["key"] != key:
            return None
        bad = {int(index): str(why) for index, why in manifest["bad"].items()}
        pixels = np.load(slot.with_name(f"{slot.name}.npy"), allow_pickle=False)
        if pixels.dtype != np.uint8 or pixels.shape != (count - len(bad), size, size, 3):
            raise ValueError(f"it holds {pixels.dtype} {pixels.shape}")
        if hashlib.sha256(pixels.data).hexdigest() != manifest["sha256"]:
            raise ValueError("its pixels do not match their checksum")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # a damaged file raises anything, and each time the answer is to decode again
        warnings.warn(f"The cache {slot} is damaged ({error}); the photographs are decoded again.", stacklevel=4)
        return None
    return _Decoded(pixels, bad)


def _write_cache(slot: Path, key: str, result: _Decoded) -> None:
    manifest = {"key": key, "sha256": hashlib.sha256(result.pixels.data).hexdigest(), "bad": result.bad}
    try:
        # The manifest comes last: until it is there, the checksum in the old one does not fit the new pixels.
        with whole_file(slot.with_name(f"{slot.name}.npy")) as path, open(path, "wb") as stream:
            np.save(stream, result.pixels, allow_pickle=False)
        with whole_file(slot.with_name(f"{slot.name}.json")) as path:
            path.write_text(json.dumps(manifest), encoding="utf-8")
    except StorageError as error:
        warnings.warn(f"The decoded photographs cannot be remembered, which only costs time: {error}", stacklevel=4)


# --- Files and layouts ---------------------------------------------------------------------------------------------


def _existing(folder: str | Path) -> Path:
    root = Path(folder).expanduser()
    if not root.exists():
        raise DataError("there is no such folder", root, "Check the spelling, or fetch the data: python -m divcolor_lib download lfw.")
    if not root.is_dir():
        raise DataError("this is a file, not a folder", root, "Name the folder that holds the photographs.")
    return root


def _pictures_under(root: Path) -> list[Path]:
    """Return the picture files under `root`, sorted by the parts of their path; hidden files and folders are passed over."""
    found = []
    for place, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(place, name)
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES
        ]
    return [Path(text) for text in sorted(found, key=lambda text: text.split(os.sep))]


def _no_pictures(root: Path) -> DataError:
    held = [path.name for path in root.iterdir() if path.name != CACHE_FOLDER]
    if not held:
        return DataError("the folder is empty", root, "Put photographs into it.")
    found = f"no photograph is in this folder or below; it holds {', '.join(sorted(held)[:5])}"
    return DataError(found, root, "Name a folder of pictures.")


def _is_lfw(path: Path) -> bool:
    match = _LFW_NAME.fullmatch(path.name)
    return match is not None and match["person"] == path.parent.name


def _list_lfw(root: Path, pictures: list[Path]) -> _Listing:
    """Keep the pictures of the only folder of people, which is `root` or lies below it."""
    faces = [path for path in pictures if _is_lfw(path)]
    # A picture directly in `root` may be in a folder of its own name; then its people are above `root`.
    places = {path.parent.parent for path in faces if path.parent != root}
    if not places:
        if not any(root.iterdir()):
            raise _no_pictures(root)
        todo = "LFW has one folder for each person, with <Person>/<Person>_0001.jpg. For other photographs use `load_folder`."
        raise DataError("no faces in the layout of LFW are in this folder", root, todo)
    people = root if root in places else min(places)
    if people != root and len(places) > 1:
        names = ", ".join(sorted(_inside(place, root) for place in places))
        raise DataError(f"several folders hold faces in the layout of LFW: {names}", root, "Name one of them.")
    files = [path for path in faces if path.parent.parent == people]
    persons = [path.parent.name for path in files]
    source = f"LFW layout in {root.name or root}, {len(set(persons))} people; {_LFW_CROP}"
    return _Listing("lfw", root, files, [path.stem for path in files], persons, source, "lfw")


def _list_folder(root: Path, pictures: list[Path], group_by: str) -> _Listing:
    if not pictures:
        raise _no_pictures(root)
    names = [path.relative_to(root).as_posix() for path in pictures]
    groups = list(names) if group_by == "file" else [path.parent.relative_to(root).as_posix() for path in pictures]
    return _Listing("folder", root, pictures, names, groups, f"photographs in {root.name or root}; central squares", "square")


def _bundle_data(root: Path) -> Path | None:
    """Return the bundle's `data` folder, or `None` if `root` is not a bundle."""
    return next((place for place in (root / "data", root) if (place / "imglist" / "lfw").is_dir()), None)


def _read_list(path: Path) -> list[tuple[int, str]]:
    """Return line numbers (from 1) and texts of a list file; blank lines are passed over."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError("a list of the bundle is absent", path, "Unpack the bundle again.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"a list of the bundle cannot be read: {error}", path, "Unpack the bundle again.") from error
    entries = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not entries:
        raise DataError("a list of the bundle is empty", path, "Unpack the bundle again.")
    return entries


def _check_pairs(picture_list: Path, pictures: list[tuple[int, str]], feature_list: Path, features: list[tuple[int, str]]) -> None:
    for (number, picture), (paired_number, feature) in zip(pictures, features):
        if _stem(picture) != _stem(feature):
            found = f"the picture `{_stem(picture)}` is paired with the feature `{_stem(feature)}`"
            where = f"{picture_list}, line {number}, and {feature_list}, line {paired_number}"
            raise DataError(found, where, "Both lists must be in the same order.")
    if len(pictures) != len(features):
        found = f"{len(pictures)} pictures are listed, but {len(features)} features in {feature_list}"
        raise DataError(found, picture_list, "Each picture needs the feature on the same line.")


def _resolve_all(path: Path, entries: list[tuple[int, str]], roots: list[Path]) -> list[Path]:
    resolved = [_resolve(text, roots) for _, text in entries]
    missing = [entry for entry, file in zip(entries, resolved) if file is None]
    if missing:
        number, text = missing[0]
        more = f", and {len(missing) - 1} more listed files" if len(missing) > 1 else ""
        raise DataError(f"`{text}` is not in the bundle{more}", f"{path}, line {number}", "Unpack the bundle again, or correct the list.")
    return [file for file in resolved if file is not None]


def _resolve(text: str, roots: list[Path]) -> Path | None:
    """Find a listed file inside the bundle by the longest tail of its path that exists there."""
    parts = [part for part in _parts(text) if part not in ("", ".", "..") and not part.endswith(":")]
    tails = (root.joinpath(*parts[start:]) for start in range(len(parts)) for root in roots)
    return next((file for file in tails if file.is_file()), None)


def _parts(text: str) -> list[str]:
    return re.split(r"[\\/]+", text)


def _stem(text: str) -> str:
    """Return a listed file's name without suffixes: `faces/A_0001.jpg` and `A_0001.jpg.npz` are both `A_0001`."""
    name = _parts(text)[-1]
    while Path(name).suffix.lower() in PICTURE_SUFFIXES | {".npz"}:
        name = Path(name).stem
    return name


def _person(name: str) -> str:
    match = re.fullmatch(r"(.+)_\d+", name)
    return match[1] if match else name


def _inside(path: Path, folder: Path) -> str:
    return path.as_posix().removeprefix(f"{folder.as_posix()}/")


# --- Small helpers -------------------------------------------------------------------------------------------------


def _center(image: Picture, side: int) -> Picture:
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return image[top : top + side, left : left + side]


def _tint_spread(images: Tensor) -> Tensor:
    gray, ab = split(images)
    color = ab.flatten(2) * 128.0
    pixels = color.shape[-1]
    groups = max(1, min(_TINT_GROUPS, pixels // 8))
    # The rank of a pixel is the number of darker ones. Rounding to a fifth of a unit makes equal what is equally light,
    # and equal ranks keep it in one group, whatever its color.
    level = (gray.flatten(1) * 250 + 250).round().long()
    count = torch.zeros(len(images), 501, dtype=torch.int64, device=images.device).scatter_add_(1, level, torch.ones_like(level))
    darker = count.cumsum(dim=1) - count
    group = darker.gather(1, level) * groups // pixels
    size = torch.zeros(len(images), groups, device=images.device).scatter_add_(1, group, torch.ones_like(color[:, 0]))
    group = group.unsqueeze(1).expand(-1, 2, -1)
    total = torch.zeros(len(images), 2, groups, device=images.device).scatter_add_(2, group, color)
    mean = total / size.clamp_min(1).unsqueeze(1)
    squares = (color - mean.gather(2, group)).square().sum(dim=(1, 2))
    return (squares / (pixels - (size > 0).sum(dim=1)).clamp_min(1)).sqrt()


def _spread(values: Tensor, groups: Sequence[str], edges: Sequence[int]) -> dict[str, Any]:
    """Return what `statement` says of one number `(N,)` for each photograph."""
    inside = values.clamp(edges[0], edges[-1] - 1e-9)
    counts = torch.bincount(torch.bucketize(inside, torch.tensor(edges, dtype=inside.dtype), right=True) - 1, minlength=len(edges) - 1)
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=values.dtype)
    by_person: dict[str, list[float]] = {}
    for group, value in zip(groups, values.tolist()):
        by_person.setdefault(group, []).append(value)
    several = [torch.tensor(own, dtype=values.dtype) for own in by_person.values() if len(own) > 1]
    squares, freedom = sum(float((own - own.mean()).square().sum()) for own in several), sum(len(own) - 1 for own in several)
    return {
        "edges": list(edges),
        "counts": counts.tolist(),
        "quantiles": torch.quantile(values, levels).tolist(),
        "photographs": float(values.std(correction=0)),
        "within a person": (squares / freedom) ** 0.5 if freedom else None,
    }


def _hashed(seed: int, group: str) -> float:
    # NFC: macOS stores the same name with other code points.
    text = f"{seed}:{unicodedata.normalize('NFC', group)}"
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:6], "big") / 2**48


def _as_index(indices: Indices, count: int) -> Tensor:
    """Return int64 indices in [0, count) on the CPU, from integers or from one bool for each."""
    index = torch.as_tensor(indices).cpu()
    if index.dtype == torch.bool:
        if index.shape != (count,):
            raise IndexError(f"a mask of shape {tuple(index.shape)} does not fit {count} items")
        return index.nonzero().flatten()
    index = index.reshape(-1).long()
    if len(index) and not (-count <= int(index.min()) and int(index.max()) < count):
        raise IndexError(f"an index is out of range for {count} items")
    return index % max(count, 1)


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor if tensor.device == device else tensor.to(device, non_blocking=True)


class _Subset:
    def __init__(self, source: FieldSource, indices: Tensor) -> None:
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.source.batch(self.indices[_to_device(indices, self.indices.device)])
