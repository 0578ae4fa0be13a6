"""Every hostile file of the corpus through every way into the library: what is promised comes out, or one clear error."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab
from torch import Tensor, nn

import divcolor_lib.__main__ as cli
from divcolor_lib import ablation, data, lab
from divcolor_lib.colorize import Colorizer
from divcolor_lib.errors import CheckpointError, DataError, DivcolorError, ImageError, StorageError
from divcolor_lib.features import ZhangNet, on_disk, stored_features
from divcolor_lib.train import FitConfig, History, fit, read_tensors
from tests import hostile
from tests.hostile import BAD_PICTURES, COLORIZERS, FEATURES, FILES, FOLDERS, LISTS, READ_PICTURES, WEIGHTS, WRONG_VALUES, Case, sprung

ROOT = Path(__file__).resolve().parents[1]

#: A reader that waits for a pipe or a device would wait forever.
pytestmark = pytest.mark.timeout(60)


def ids(cases: list[Case]) -> list[str]:
    return [told(case.name[:60]) for case in cases]


def told(text: object) -> str:
    """A text as the command line prints it, on one line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text))


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    return hostile.a_colorizer()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "c.safetensors"
    path.write_bytes(hostile.a_checkpoint())
    return path


@contextlib.contextmanager
def refused(kind: type[DivcolorError], says: str, name: str) -> Iterator[None]:
    """The error is of this kind, says what is wrong and what to do, and names the file."""
    with pytest.raises(kind, match=says) as caught:
        yield
    assert name in str(caught.value) and caught.value.todo
    assert len(str(caught.value).replace(name, "")) < 600


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str], list[str]]:
    """Run the command line in this process; return its exit code and the lines of both outputs."""
    code = cli.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out.splitlines(), printed.err.splitlines()


def assert_refused(ran: tuple[int, list[str], list[str]], says: str, name: str) -> None:
    """The command exits with 1 after one line."""
    code, out, err = ran
    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].startswith("error: ") and told(name) in err[0] and re.search(says, err[0])


def test_the_corpus_is_as_large_as_promised() -> None:
    names = [case.name for cases in (READ_PICTURES, BAD_PICTURES, FEATURES, WEIGHTS, FILES, COLORIZERS) for case in cases]
    assert len(names) > 200 and len(set(names)) == len(names)


# --- pictures ---


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("case", READ_PICTURES, ids=ids(READ_PICTURES))
def test_odd_pictures_are_read_and_colored_by_their_lightness(case: Case, colorizer: Colorizer, tmp_path: Path) -> None:
    path = tmp_path / case.name
    case.make(path)
    pixels = lab.read_image(path)
    assert case.shows is not None and pixels.shape == case.shows.shape and pixels.dtype == np.uint8 and pixels.flags.writeable
    assert np.abs(pixels.astype(int) - case.shows).max() <= case.within
    result = colorizer.colorize(path, n=1)
    assert result.images.shape == (1, *pixels.shape)
    assert np.abs(rgb2lab(result.images[0])[..., 0] - rgb2lab(pixels)[..., 0]).max() < 0.52
    if case.listed:
        photos = data.load(tmp_path, cache=None)
        assert photos.names == [case.name]
        assert np.array_equal(photos.images[0], lab.resize_area(data.crop_square(pixels), (lab.SIZE, lab.SIZE)))


def test_the_command_colors_odd_pictures_too(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [case for case in READ_PICTURES if case.shows is not None and case.shows.size < 20000 and len(case.name) < 100]
    photos = {path.stem: (case, path) for case in small if (path := tmp_path / "in" / case.name)}
    (tmp_path / "in").mkdir()
    for case, path in photos.values():
        case.make(path)
    arguments = ["--checkpoint", checkpoint, "-n", 1, "--out", tmp_path / "out"]
    code, out, err = command(capsys, "colorize", *(path for _, path in photos.values()), *arguments)
    assert (code, err) == (0, [])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{stem}-1.png" for stem in photos}
    assert [line.rpartition(" probability ")[0] for line in out] == [told(tmp_path / "out" / f"{stem}-1.png") for stem in photos]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", BAD_PICTURES, ids=ids(BAD_PICTURES))
def test_bad_pictures_are_one_error_that_names_the_file(
    case: Case, colorizer: Colorizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_colorizer", lambda *_: colorizer)
    path = tmp_path / "in" / case.name
    path.parent.mkdir()
    case.make(path)
    for read in (lab.read_image, colorizer.colorize):
        with refused(ImageError, case.says, case.name):
            read(path)
    if case.listed:
        for load in (data.load, data.load_folder):
            with refused(DataError, case.says, case.name):
                load(path.parent, cache=None)
    assert_refused(command(capsys, "colorize", path, "--out", tmp_path / "out"), case.says, case.name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["bomb-just-too-large.png", "exif-damaged.png"])
def test_the_command_does_not_repeat_what_pillow_warns_of(
    name: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = next(case for case in [*READ_PICTURES, *BAD_PICTURES] if case.name == name)
    case.make(tmp_path / name)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with contextlib.suppress(ImageError):
            lab.read_image(tmp_path / name)
        assert heard and all("PIL" in warning.filename for warning in heard)
        heard.clear()
        code, _, err = command(capsys, "colorize", tmp_path / name, "--checkpoint", checkpoint, "-n", 1, "--out", tmp_path)
    assert not heard and len(err) == code == (1 if case.says else 0)


def test_a_name_that_no_file_can_have_is_an_image_error(colorizer: Colorizer, tmp_path: Path) -> None:
    for name in (tmp_path / "a\0b.jpg", ""):
        with pytest.raises(ImageError):
            colorizer.colorize(name)


def test_a_bad_file_among_good_ones_is_named_and_the_ones_before_it_are_written(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile.filled("good.png")(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"")
    photos = (tmp_path / "good.png", tmp_path / "bad.png")
    code, out, err = command(capsys, "colorize", *photos, "--checkpoint", checkpoint, "-n", 1, "--out", tmp_path / "out")
    assert (code, len(out), len(err)) == (1, 1, 1) and "bad.png" in err[0]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good-1.png"]


@pytest.mark.parametrize("name", ["data", "evaluate"])
def test_a_damaged_picture_in_a_folder_is_named_by_the_command(
    name: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile.filled("0.png", "1.png", "2.png", "3.png")(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(hostile.encoded(hostile.SMOOTH, "JPEG")[:-400])
    arguments = [tmp_path] if name == "data" else ["--data", tmp_path, "--checkpoint", checkpoint]
    assert_refused(command(capsys, name, *arguments), "1 of 5 photographs", "broken.jpg")


# --- folders and lists ---


@pytest.mark.parametrize("case", FOLDERS, ids=ids(FOLDERS))
def test_odd_folders_are_read_or_one_data_error(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / case.name
    case.make(path)
    if not case.says:
        assert len(data.load(path)) == len(data.load(path)) == len(data.load_folder(path, cache=None)) == 1
        code, out, err = command(capsys, "data", path)
        assert (code, len(out), err) == (0, 8, [])
        return
    for load in (data.load, data.load_folder, data.load_lfw, data.load_bundle):
        with refused(DataError, f"{case.says}|this is not the reference bundle", case.name):
            load(path)
    assert_refused(command(capsys, "data", path), case.says, case.name)


def test_the_home_of_nobody_is_a_data_error() -> None:
    with refused(DataError, "the folder cannot be reached", "~nobody-of-this-name"):
        data.load("~nobody-of-this-name/photographs")


@pytest.mark.parametrize("case", LISTS, ids=ids(LISTS))
def test_odd_lists_of_a_bundle_are_read_or_one_data_error(case: Case, tmp_path: Path) -> None:
    hostile.filled("data/faces/Cy_0001.jpg")(tmp_path)
    path = tmp_path / "data" / "imglist" / "lfw" / "list.train.vae.txt"
    path.parent.mkdir(parents=True)
    case.make(path)
    if not case.says:
        assert data.load_bundle(tmp_path, cache=None, features=False).names == ["Cy_0001"]
        return
    with pytest.raises(DataError, match=case.says) as caught:
        data.load_bundle(tmp_path, cache=None, features=False)
    assert path.name in str(caught.value) and caught.value.todo


# --- the cache of decoded photographs ---


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    hostile.filled("a.png", "b.png")(tmp_path / "photos")
    data.load(tmp_path / "photos")
    return tmp_path / "photos"


def cached(photos: Path, suffix: str) -> Path:
    (path,) = (photos / data.CACHE_FOLDER).glob(f"*{suffix}")
    return path


@pytest.mark.parametrize("key", ["key", "sha256", "bad", "all"])
@pytest.mark.parametrize("value", WRONG_VALUES.values(), ids=list(WRONG_VALUES))
@pytest.mark.filterwarnings("ignore:The cache .* is damaged")
def test_a_cache_with_a_wrong_manifest_is_made_again(key: str, value: Any, photos: Path) -> None:
    wanted = data.load(photos, cache=None).images
    manifest = cached(photos, ".json")
    right = manifest.read_text()
    told_before = json.loads(right)
    manifest.write_text(json.dumps(value if key == "all" else {**told_before, key: value}))
    assert torch.equal(data.load(photos).images, wanted)
    assert (json.loads(manifest.read_text()) == told_before) or (key == "bad" and value == [])


def test_a_cache_that_names_a_photograph_beyond_the_last_is_made_again(photos: Path) -> None:
    (photos / "c.png").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="1 of 3 photographs"):
        data.load(photos, skip_bad=True)
    manifest = cached(photos, ".json")
    right = manifest.read_text()
    for index in ("3", "-1"):
        manifest.write_text(right.replace('{"2":', f'{{"{index}":'))
        with pytest.warns(UserWarning, match="1 of 3"), pytest.warns(UserWarning, match="is damaged.*names files beyond the 3"):
            assert len(data.load(photos, skip_bad=True)) == 2
        assert manifest.read_text() == right


@pytest.mark.filterwarnings("ignore:The decoded photographs cannot be remembered")  # a folder in its place stays
@pytest.mark.parametrize("suffix", [".json", ".npy"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["folder", "pipe", "device"])
def test_a_cache_that_is_no_ordinary_file_is_passed_over(suffix: str, make: Callable[[Path], object], photos: Path) -> None:
    wanted = data.load(photos, cache=None).images
    path = cached(photos, suffix)
    path.unlink()
    make(path)
    with pytest.warns(UserWarning, match=r"is damaged \(it is no ordinary file\)"):
        assert torch.equal(data.load(photos).images, wanted)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000], ids=lambda content: repr(content[:9]))
def test_a_damaged_row_of_an_ablation_counts_as_not_measured(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "row.json").write_bytes(content)
    assert ablation._finished(tmp_path / "row.json") == {}


# --- stored features and published weights ---


@pytest.mark.parametrize("case", FEATURES, ids=ids(FEATURES))
def test_odd_features_are_read_or_one_error(case: Case, tmp_path: Path) -> None:
    path = tmp_path / case.name
    case.make(path)
    if not case.says:
        assert torch.equal(stored_features([path]), torch.full((1, 512, 4, 4), 3.0, dtype=torch.float16))
        return
    with pytest.raises((DataError, data.ShapeError), match=case.says) as caught:
        stored_features([path])
    assert case.name in str(caught.value) and caught.value.todo
    assert not sprung(path).exists()


@pytest.mark.parametrize("case", WEIGHTS, ids=ids(WEIGHTS))
def test_odd_weights_are_read_or_one_checkpoint_error(case: Case, tmp_path: Path) -> None:
    path = tmp_path / case.name
    case.make(path)
    if not case.says:
        assert not ZhangNet.from_published(path).state_dict()["model7.4.weight"].any()
        return
    with refused(CheckpointError, case.says, case.name):
        ZhangNet.from_published(path)
    assert not sprung(path).exists()


def test_the_command_refuses_weights_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile.filled("a.png")(tmp_path / "photos")
    (tmp_path / "w.pth").write_bytes(b"not weights")
    arguments = ["--data", tmp_path / "photos", "--out", tmp_path / "x.safetensors", "--run", tmp_path / "run", "--features", "zhang"]
    assert_refused(command(capsys, "train", *arguments, "--zhang", tmp_path / "w.pth"), "damaged", "w.pth")


# --- checkpoints ---


class Line:
    """A task that is trained in no time."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))

    def losses(self, first: Tensor, second: Tensor, noise: torch.Generator, progress: float) -> dict[str, Tensor]:
        return {"loss": (self.module(first) - second).square().mean()}

    def validate(self, module: nn.Module) -> dict[str, float]:
        return {"loss": float(module[0].weight.detach().square().sum())}


LINE = FitConfig(steps=4, batch=2, warmup=1, save_every=2, validate_every=2, average=0.5, flip=False)


def source() -> data.TensorFields:
    return data.TensorFields(torch.linspace(-1, 1, 32).reshape(8, 1, 2, 2), torch.linspace(0, 1, 64).reshape(8, 2, 2, 2))


def train_line(folder: Path, config: FitConfig = LINE) -> History:
    return fit(Line(), source(), config, folder=folder, progress=False)


class Stop(Exception):
    """Ends a run at its first checkpoint."""


@pytest.fixture(scope="module")
def half_a_run(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("half")

    def stop(step: int, module: nn.Module) -> None:
        if step == 3:
            raise Stop

    with pytest.raises(Stop):
        fit(Line(), source(), LINE, folder=folder, progress=False, on_step=stop)
    return (folder / "model.last.safetensors").read_bytes()


@pytest.mark.parametrize("case", FILES, ids=ids(FILES))
def test_a_file_that_is_no_checkpoint_is_one_error(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / case.name
    case.make(path)
    for read in (read_tensors, Colorizer.from_checkpoint):
        with refused(CheckpointError, case.says, case.name):
            read(path)
    assert_refused(command(capsys, "colorize", "x.png", "--checkpoint", path, "--out", tmp_path / "out"), case.says, case.name)
    run = tmp_path / "run" / "model.last.safetensors"
    run.parent.mkdir()
    case.make(run)
    if os.path.exists(run):
        with refused(CheckpointError, case.says, run.name):
            train_line(run.parent)
        assert not sprung(path).exists() and not sprung(run).exists()
    else:  # nothing, or a link to nothing: the run starts, and its checkpoint takes that place
        assert train_line(run.parent).steps == 4 and read_tensors(run)[1]["step"] == 4


@pytest.mark.parametrize("case", COLORIZERS, ids=ids(COLORIZERS))
def test_a_checkpoint_that_is_no_colorizer_is_one_error(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / case.name
    case.make(path)
    with refused(CheckpointError, case.says, case.name):
        Colorizer.from_checkpoint(path)
    assert_refused(command(capsys, "evaluate", "--checkpoint", path), case.says, case.name)


#: The keys of a colorizer's manifest, and the wrong values that change nothing about the networks.
MANIFEST = {
    "cvae": [],
    "mdn": [],
    "regressor": [],
    "classifier": ["null", "a list"],
    "cvae.design": [],
    "cvae.latent": [],
    "cvae.width": [],
    "cvae.dropout": ["a fraction"],
    "cvae.skips": [],
    "mdn.design": [],
    "mdn.inputs": [],
    "mdn.latent": [],
    "mdn.components": [],
    "mdn.representatives": [],
    "mdn.width": [],
    "mdn.scale": ["null"],
    "mdn.dropout": ["a fraction"],
    "mdn.features": [],
    "regressor.width": [],
}


@pytest.mark.parametrize("key", MANIFEST)
def test_a_manifest_of_wrong_types_is_a_checkpoint_error(key: str, tmp_path: Path, colorizer: Colorizer) -> None:
    gray = torch.linspace(-1, 1, 64 * 64).reshape(1, 1, 64, 64)
    part, _, inner = key.partition(".")
    for name, value in WRONG_VALUES.items():
        path = tmp_path / f"{name}.safetensors"

        def change(tensors: dict[str, Tensor], facts: dict[str, Any], value: Any = value) -> None:
            (facts["manifest"][part] if inner else facts["manifest"])[inner or part] = value

        hostile.rewritten(hostile.a_checkpoint(), path, change)
        if name in MANIFEST[key]:
            torch.testing.assert_close(Colorizer.from_checkpoint(path).predict(gray), colorizer.predict(gray), atol=1e-2, rtol=0)
        else:
            with refused(CheckpointError, "the checkpoint|state_dict|its manifest", path.name):
                Colorizer.from_checkpoint(path)
                pytest.fail(f"{key} = {name} was taken")


#: The keys of a run's checkpoint, and the wrong values that do no harm: numbers that are only reported, and machines that only warn.
ANY = list(WRONG_VALUES)
NUMBERS = ["negative", "huge", "a fraction"]
RUN = {
    "step": [],
    "config": [],
    "config.steps": [],
    "history": [],
    "history.train": ["a list"],
    "history.validation": ["a list"],
    "history.best_step": [],
    "history.best_loss": NUMBERS,
    "history.without_improvement": [],
    "history.stopped_early": [],
    "history.halved_at": [],
    "history.seconds": NUMBERS,
    "batches": [],
    "batches.epoch": ["huge"],
    "batches.step": [],
    "batches.count": [],
    "batches.batch_size": [],
    "batches.flip": [],
    "batches.drop_last": [],
    "batches.shift": [],
    "scaler": ["an object"],  # without fp16 nothing is scaled
    "threads": ANY,
    "device": ANY,
    "processes": ANY,
}


@pytest.mark.filterwarnings("ignore:resuming on")
@pytest.mark.parametrize("key", RUN)
def test_a_run_with_facts_of_wrong_types_does_not_go_on(key: str, half_a_run: bytes, tmp_path: Path) -> None:
    part, _, inner = key.partition(".")
    for name, value in WRONG_VALUES.items():
        path = tmp_path / name / "model.last.safetensors"
        path.parent.mkdir()

        def change(tensors: dict[str, Tensor], facts: dict[str, Any], value: Any = value) -> None:
            (facts[part] if inner else facts)[inner or part] = value

        hostile.rewritten(half_a_run, path, change)
        before = path.read_bytes()
        if name in RUN[key]:
            assert train_line(path.parent).steps == 4
        else:
            with pytest.raises(CheckpointError) as caught:
                train_line(path.parent)
                pytest.fail(f"{key} = {name} was taken")
            assert caught.value.todo and path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("optimizer.0.exp_avg"),
        lambda tensors: tensors.update({"optimizer.0.exp_avg": torch.zeros(1)}),
        lambda tensors: tensors.update({"optimizer.0.exp_avg_sq": torch.zeros(2, 1, 1)}),
        lambda tensors: tensors.pop("random.noise"),
        lambda tensors: tensors.update({"random.noise": torch.zeros(3)}),
        lambda tensors: tensors.update({"random.cpu": torch.zeros(3, dtype=torch.uint8)}),
        lambda tensors: tensors.pop("batches.generator"),
        lambda tensors: tensors.pop("model.0.weight"),
        lambda tensors: tensors.pop("average.0.weight"),
        lambda tensors: tensors.pop("best.0.weight"),
        lambda tensors: tensors.update({"best.0.weight": torch.zeros(3, 1, 1, 1)}),
    ],
)
def test_a_run_that_lacks_a_part_of_its_state_does_not_go_on(
    change: Callable[[dict[str, Tensor]], object], half_a_run: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "model.last.safetensors"
    hostile.rewritten(half_a_run, path, lambda tensors, facts: change(tensors))
    with pytest.raises(CheckpointError) as caught:
        train_line(tmp_path)
    assert caught.value.todo


def test_the_untouched_half_of_a_run_goes_on(half_a_run: bytes, tmp_path: Path) -> None:
    hostile.rewritten(half_a_run, tmp_path / "model.last.safetensors", lambda tensors, facts: None)
    assert train_line(tmp_path) == train_line(tmp_path / "whole")


# --- what may not be read, and what may not be written ---


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder of a user whom permissions bind: one without rights where the tests run as root."""
    root = os.geteuid() == 0
    folder = Path(tempfile.mkdtemp())
    hostile.filled("good.png", "photos/a.png", "photos/below/b.png", "above/photos/c.png")(folder)
    (folder / "c.safetensors").write_bytes(hostile.a_checkpoint())
    lab.read_image(folder / "good.png")  # Pillow loads its decoders while it may still read them
    if root:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 65534, 65534)
        os.seteuid(65534)
    try:
        if not os.access(folder, os.W_OK, effective_ids=root):
            pytest.skip("the folder for temporary files is closed to other users")
        yield folder
    finally:
        if root:
            os.seteuid(0)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o700)
        shutil.rmtree(folder)


def test_what_may_not_be_read_is_named(nobody: Path, colorizer: Colorizer, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("closed.png", "closed.npz", "closed.pth", "closed.safetensors"):
        (nobody / name).write_bytes((nobody / "c.safetensors").read_bytes())
        (nobody / name).chmod(0)
    with refused(ImageError, "the file may not be read", "closed.png"):
        colorizer.colorize(nobody / "closed.png")
    with refused(DataError, "Permission denied", "closed.npz"):
        stored_features([nobody / "closed.npz"])
    with refused(CheckpointError, "Permission denied", "closed.pth"):
        ZhangNet.from_published(nobody / "closed.pth")
    with refused(CheckpointError, "Permission denied", "closed.safetensors"):
        Colorizer.from_checkpoint(nobody / "closed.safetensors")
    assert_refused(
        command(capsys, "colorize", nobody / "closed.png", "--checkpoint", nobody / "c.safetensors"), "may not be read", "closed"
    )


@pytest.mark.parametrize("closed", ["photos", "photos/below", "above"])
def test_a_folder_that_may_not_be_read_is_named_and_never_passed_over(
    closed: str, nobody: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (nobody / closed).chmod(0)
    photos = nobody / "above" / "photos" if closed == "above" else nobody / "photos"
    for load in (data.load, data.load_folder, data.load_lfw):
        with refused(DataError, "the folder cannot be (read|reached): Permission denied", closed):
            load(photos)
    assert_refused(command(capsys, "data", photos), "Permission denied", closed)


def test_where_nothing_may_be_written_one_error_says_so(nobody: Path, colorizer: Colorizer, capsys: pytest.CaptureFixture[str]) -> None:
    closed = nobody / "photos"
    closed.chmod(0o500)
    with pytest.warns(UserWarning, match="cannot be remembered.*Permission denied"):
        assert len(data.load(closed)) == 2
    with refused(StorageError, "Permission denied", "c.safetensors"):
        colorizer.save(closed / "c.safetensors")
    with refused(StorageError, "Permission denied", "model.best"):
        train_line(closed / "run")
    with refused(StorageError, "Permission denied", "features"):
        on_disk(closed / "x.features", (2, 3))
    arguments = [nobody / "good.png", "--checkpoint", nobody / "c.safetensors", "-n", 1]
    assert_refused(command(capsys, "colorize", *arguments, "--out", closed), "Permission denied", "good-1.png")
    assert_refused(command(capsys, "colorize", *arguments, "--grid", closed / "g.png"), "Permission denied", "g.png")
    assert_refused(command(capsys, "train", "--out", closed / "x.safetensors"), "Permission denied", "photos")
    assert sorted(path.name for path in closed.iterdir()) == ["a.png", "below"]


def test_a_folder_in_place_of_the_file_to_write_is_refused_before_any_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.safetensors").mkdir()
    assert_refused(command(capsys, "train", "--out", tmp_path / "x.safetensors"), "a folder, not a file", "x.safetensors")


# --- a full disk ---


@contextlib.contextmanager
def no_space(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Nothing that is written reaches the disk; yield what the system says then."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        patch.setattr(os, "posix_fallocate", full, raising=False)
        yield "No space left on device"


@contextlib.contextmanager
def small_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The system writes no file of more than 300 bytes; yield what it, or the library that writes, says then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        yield "File too large|requested and|cannot write"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limited", [no_space, small_files])
def test_a_full_disk_is_one_error_and_leaves_nothing_half_written(
    limited: Callable[..., contextlib.AbstractContextManager[str]],
    colorizer: Colorizer,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    hostile.filled("photos/a.png", "photos/b.png", "photos/c.png")(tmp_path)
    colorizer.save(tmp_path / "c.safetensors")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with limited(monkeypatch) as says:
        with refused(StorageError, says, "c.safetensors"):
            colorizer.save(tmp_path / "c.safetensors")
        with refused(StorageError, says, "model.best"):
            train_line(tmp_path / "run")
        with refused(StorageError, says, "x.features"):
            on_disk(tmp_path / "x.features", (999, 3))
        with pytest.warns(UserWarning, match=f"cannot be remembered.*({says})"):
            assert len(data.load(tmp_path / "photos")) == 3
        arguments = ["photos/a.png", "--checkpoint", checkpoint, "-n", 1]
        assert_refused(command(capsys, "colorize", *arguments), says, "a-1.png")
        for kind in ("png", "pdf", "svg"):
            assert_refused(command(capsys, "colorize", *arguments, "--grid", f"g.{kind}"), says, f"g.{kind}")
    with limited(monkeypatch), pytest.warns(UserWarning, match="cannot be remembered"):
        code, _, err = command(capsys, "data", "photos", "--record", "mine")
    assert code == 1 and [line for line in err if line.startswith("error: ")] and "mine.json" in err[-1]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a device that is always full")
def test_output_that_goes_to_a_full_disk_is_one_line(tmp_path: Path) -> None:
    hostile.filled("two\nlines-\udcff.png")(tmp_path)
    (tmp_path / "c.safetensors").write_bytes(hostile.a_checkpoint())
    call = [
        sys.executable,
        "-m",
        "divcolor_lib",
        "colorize",
        tmp_path / "two\nlines-\udcff.png",
        "--checkpoint",
        tmp_path / "c.safetensors",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii:strict", "OMP_NUM_THREADS": "1"}
    with open("/dev/full", "w", encoding="utf-8") as full:
        ran = subprocess.run(
            [*call, "-n", "1", "--out", tmp_path], stdout=full, stderr=subprocess.PIPE, env=environment, timeout=50, check=False
        )
    assert ran.returncode == 1
    assert ran.stderr.decode().splitlines() == ["error: input or output failed: [Errno 28] No space left on device"]
    assert (tmp_path / "two\nlines-\udcff-1.png").exists()
