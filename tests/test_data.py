"""Loading, splitting and batching photographs. Every picture here is made by the tests."""

from __future__ import annotations

import colorsys
import hashlib
import json
import os
import subprocess
import sys
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage.color import rgb2lab
from torch.utils.data import DataLoader

from divcolor_lib import data
from divcolor_lib.errors import CheckpointError, ConfigError, DataError, ImageError, ShapeError
from divcolor_lib.lab import join
from divcolor_lib.portraits import Portraits


def picture(seed: int, height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    """A smooth picture of many colors."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def save(path: Path, pixels: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)
    return path


def reread(path: Path) -> NDArray[np.uint8]:
    return np.array(Image.open(path).convert("RGB"))


def stack(count: int, size: int = 16) -> torch.Tensor:
    return torch.stack([torch.from_numpy(picture(seed, size, size)) for seed in range(count)])


def photos_of(count: int, size: int = 16) -> data.Photos:
    return data.Photos(stack(count, size), [f"n{i}" for i in range(count)], [f"g{i}" for i in range(count)])


@pytest.fixture
def lfw(tmp_path: Path) -> Path:
    root = tmp_path / "lfw"
    for seed, (person, number) in enumerate([("Ann_Lee", 2), ("Ann_Lee", 1), ("Bo_Wu", 1), ("Cy", 1)]):
        save(root / person / f"{person}_{number:04d}.jpg", picture(seed, 250, 250))
    return root


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    root = tmp_path / "bundle"
    lists: dict[str, list[str]] = {"pictures": [], "features": []}
    for seed, name in enumerate(["Ann_Lee_0001", "Bo_Wu_0003", "Cy_0001"]):
        save(root / "data" / "faces" / f"{name}.jpg", picture(seed, 250, 250))
        feature = root / "data" / "featslist" / "stored" / f"{name}.npz"
        feature.parent.mkdir(parents=True, exist_ok=True)
        np.savez(feature, np.full((512, 28, 28), seed, np.float32))
        lists["pictures"].append(f"/mnt/disk/author/divcolor/data/faces/{name}.jpg")
        lists["features"].append(f"data/featslist/stored/{name}.npz")
    for part in ("train", "test"):
        write_lists(root, part, lists["pictures"], lists["features"])
    return root


def write_lists(root: Path, part: str, pictures: list[str], features: list[str]) -> None:
    for folder, name, lines in (("imglist", f"list.{part}.vae.txt", pictures), ("featslist", f"list.{part}.txt", features)):
        path = root / "data" / folder / "lfw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")


# --- Loaders -------------------------------------------------------------------------------------------------------


def test_lfw_frames_are_cropped_to_the_center_and_area_averaged(lfw: Path) -> None:
    photos = data.load_lfw(lfw, cache=None)
    assert photos.names == ["Ann_Lee_0001", "Ann_Lee_0002", "Bo_Wu_0001", "Cy_0001"]
    assert photos.groups == ["Ann_Lee", "Ann_Lee", "Bo_Wu", "Cy"]
    assert photos.images.shape == (4, 64, 64, 3) and photos.images.dtype == torch.uint8
    for image, file in zip(photos.images.numpy(), photos.files):
        expected = cv2.resize(reread(file)[25:225, 25:225], (64, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(image.astype(int) - expected).max() <= 1
    assert photos.source == "LFW layout in lfw, 3 people; 250x250 frames cropped to the central 200x200; 64x64"


def test_an_lfw_frame_of_another_size_is_taken_whole(tmp_path: Path) -> None:
    file = save(tmp_path / "Ann" / "Ann_0001.jpg", picture(0, 80, 80))
    image = data.load_lfw(tmp_path, cache=None).images[0].numpy()
    expected = cv2.resize(reread(file), (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("top", ["lfw-deepfunneled", "lfw_funneled", "a/b"])
def test_the_top_folder_of_an_unpacked_archive_is_found(lfw: Path, tmp_path: Path, top: str) -> None:
    target = tmp_path / "unpacked" / top
    target.parent.mkdir(parents=True)
    lfw.rename(target)
    photos = data.load_lfw(tmp_path / "unpacked", cache=None)
    assert photos.groups == ["Ann_Lee", "Ann_Lee", "Bo_Wu", "Cy"]


def test_two_copies_of_lfw_side_by_side_are_not_mixed(tmp_path: Path) -> None:
    for top in ("lfw", "lfw_funneled"):
        save(tmp_path / top / "Ann" / "Ann_0001.jpg", picture(0, 8, 8))
    with pytest.raises(DataError, match=r"lfw, lfw_funneled"):
        data.load_lfw(tmp_path)


def test_one_person_named_as_the_folder_is_an_error_of_layout_and_not_of_data(tmp_path: Path) -> None:
    save(tmp_path / "Ann" / "Ann_0001.jpg", picture(0, 8, 8))
    with pytest.raises(DataError, match="layout of LFW"):
        data.load_lfw(tmp_path / "Ann")


def test_files_that_are_not_faces_are_passed_over_by_the_lfw_loader(lfw: Path) -> None:
    save(lfw / "Bo_Wu" / "Ann_Lee_0001.jpg", picture(9, 8, 8))
    save(lfw / "preview.jpg", picture(9, 8, 8))
    (lfw / "pairs.txt").write_text("10\n")
    assert len(data.load_lfw(lfw, cache=None)) == 4


def test_a_folder_is_read_with_its_subfolders_in_any_format(tmp_path: Path) -> None:
    for name in ("b/deep/x.PNG", "a.webp", "c.bmp", "d.tiff", "e.gif", "b/f.jpeg"):
        save(tmp_path / name, picture(1, 20, 30))
    save(tmp_path / ".hidden" / "no.png", picture(1))
    save(tmp_path / "._a.png", picture(1))
    (tmp_path / "notes.txt").write_text("not a picture")
    photos = data.load_folder(tmp_path, cache=None)
    assert photos.names == ["a.webp", "b/deep/x.PNG", "b/f.jpeg", "c.bmp", "d.tiff", "e.gif"]
    assert photos.groups == photos.names
    assert data.load_folder(tmp_path, cache=None, group_by="folder").groups == [".", "b/deep", "b", ".", ".", "."]


@pytest.mark.parametrize(("height", "width", "rows", "columns"), [(40, 100, (0, 40), (30, 70)), (101, 30, (35, 65), (0, 30))])
def test_a_folder_gives_central_squares(tmp_path: Path, height: int, width: int, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    pixels = picture(2, height, width)
    save(tmp_path / "x.png", pixels)
    image = data.load_folder(tmp_path, size=10, cache=None).images[0].numpy()
    expected = cv2.resize(pixels[slice(*rows), slice(*columns)], (10, 10), interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - expected).max() <= 1


def test_a_picture_of_one_pixel_and_a_gray_picture_are_photographs_too(tmp_path: Path) -> None:
    save(tmp_path / "one.png", np.array([[[10, 200, 30]]], np.uint8))
    save(tmp_path / "gray.png", np.full((9, 9), 77, np.uint8))
    gray, one = data.load_folder(tmp_path, size=8, cache=None).images
    assert (one == torch.tensor([10, 200, 30], dtype=torch.uint8)).all()
    assert (gray == 77).all()
    assert data.is_single_tint(torch.stack([gray, one])).all()


def test_the_bundle_pairs_pictures_with_features_line_by_line(bundle: Path) -> None:
    photos = data.load_bundle(bundle, "test", cache=None)
    assert photos.names == ["Ann_Lee_0001", "Bo_Wu_0003", "Cy_0001"]
    assert photos.groups == ["Ann_Lee", "Bo_Wu", "Cy"]
    for seed, file in enumerate(photos.features):
        feature = data.read_feature(file)
        assert feature.shape == (512, 28, 28) and feature.dtype == torch.float32 and (feature == seed).all()
    expected = cv2.resize(reread(photos.files[1])[25:225, 25:225], (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(photos.images[1].numpy().astype(int) - expected).max() <= 1


def test_the_bundle_keeps_the_order_of_its_list_and_reads_paths_of_any_system(bundle: Path) -> None:
    write_lists(
        bundle,
        "train",
        ["C:\\users\\me\\data\\faces\\Cy_0001.jpg", "", "../../faces/Ann_Lee_0001.jpg"],
        ["data/featslist/stored/Cy_0001.npz", "/x/stored/Ann_Lee_0001.npz"],
    )
    with pytest.raises(DataError, match=r"stored/Ann_Lee_0001.npz` is not in the bundle.*list.train.txt, line 2"):
        data.load_bundle(bundle, cache=None)
    photos = data.load_bundle(bundle, cache=None, features=False)
    assert photos.names == ["Cy_0001", "Ann_Lee_0001"] and photos.features == []


def test_the_data_folder_of_the_bundle_can_be_named_instead(bundle: Path) -> None:
    assert len(data.load_bundle(bundle / "data", cache=None)) == 3


def test_load_tells_the_layouts_apart(lfw: Path, bundle: Path, tmp_path: Path) -> None:
    save(tmp_path / "plain" / "x.png", picture(0))
    assert data.load(lfw, cache=None).source.startswith("LFW layout")
    assert data.load(bundle, cache=None).source.startswith("reference bundle, train part")
    assert data.load(tmp_path / "plain", cache=None).source.startswith("photographs in plain")
    assert torch.equal(data.load(lfw, cache=None).images, data.load_lfw(lfw, cache=None).images)


def test_a_folder_that_happens_to_hold_one_such_name_is_not_lfw(tmp_path: Path) -> None:
    for name in ("Rome/Rome_0001.jpg", "Rome/arch.jpg", "Rome/bridge.jpg"):
        save(tmp_path / name, picture(0))
    assert data.load(tmp_path, cache=None).names == ["Rome/Rome_0001.jpg", "Rome/arch.jpg", "Rome/bridge.jpg"]


# --- Errors of loading ---------------------------------------------------------------------------------------------


def test_a_folder_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"no photograph .* holds notes\.txt"):
        data.load(tmp_path)
    with pytest.raises(DataError, match="load_folder"):
        data.load_lfw(tmp_path)


@pytest.mark.parametrize("name", ["imglist/lfw/list.train.vae.txt", "featslist/lfw/list.train.txt"])
def test_an_absent_or_empty_list_is_a_data_error_that_names_it(bundle: Path, name: str) -> None:
    path = bundle / "data" / name
    path.write_text("\n \n")
    with pytest.raises(DataError, match=f"is empty .*{path.name}"):
        data.load_bundle(bundle, cache=None)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=f"cannot be read.*{path.name}"):
        data.load_bundle(bundle, cache=None)
    path.unlink()
    with pytest.raises(DataError, match=f"is absent .*{path.name}"):
        data.load_bundle(bundle, cache=None)


def test_lists_that_do_not_match_name_file_and_line(bundle: Path) -> None:
    pictures = ["faces/Ann_Lee_0001.jpg", "faces/Bo_Wu_0003.jpg"]
    write_lists(bundle, "train", pictures, ["featslist/stored/Ann_Lee_0001.npz", "featslist/stored/Cy_0001.npz"])
    with pytest.raises(DataError, match=r"`Bo_Wu_0003` is paired with the feature `Cy_0001` .*list\.train\.vae\.txt, line 2"):
        data.load_bundle(bundle, cache=None)
    write_lists(bundle, "train", pictures, ["featslist/stored/Ann_Lee_0001.npz"])
    with pytest.raises(DataError, match="2 pictures are listed, but 1 features"):
        data.load_bundle(bundle, cache=None)


def test_a_listed_picture_that_is_absent_is_named_with_its_line(bundle: Path) -> None:
    (bundle / "data" / "faces" / "Bo_Wu_0003.jpg").unlink()
    with pytest.raises(DataError, match=r"Bo_Wu_0003\.jpg` is not in the bundle .*list\.train\.vae\.txt, line 2"):
        data.load_bundle(bundle, cache=None)


def test_features_match_with_a_double_suffix(bundle: Path) -> None:
    stored = bundle / "data" / "featslist" / "stored"
    (stored / "Cy_0001.npz").rename(stored / "Cy_0001.jpg.npz")
    write_lists(bundle, "train", ["faces/Cy_0001.jpg"], ["featslist/stored/Cy_0001.jpg.npz"])
    assert data.load_bundle(bundle, cache=None).features == [stored / "Cy_0001.jpg.npz"]


def test_settings_that_cannot_be_used_are_config_errors(lfw: Path, bundle: Path) -> None:
    with pytest.raises(ConfigError, match="size is 0"):
        data.load_lfw(lfw, size=0)
    with pytest.raises(ConfigError, match="part `val`"):
        data.load_bundle(bundle, "val")
    with pytest.raises(ConfigError, match="grouping `person`"):
        data.load_folder(lfw, group_by="person")


def damage(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"\xff\xd8\xff damaged")


def test_damaged_pictures_are_all_named_in_one_error(tmp_path: Path) -> None:
    for number in range(9):
        save(tmp_path / f"{number}.jpg", picture(number))
    damage(tmp_path, "2.jpg", "5.jpg")
    (tmp_path / "7.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"3 of 9 photographs.* 2\.jpg: .* 5\.jpg: .* 7\.jpg: the file is empty.*skip_bad"):
        data.load_folder(tmp_path)
    damage(tmp_path, *(f"{number}.jpg" for number in range(8)))
    with pytest.raises(DataError, match=r"8 of 9 .*and 3 more"):
        data.load_folder(tmp_path)


def test_damaged_pictures_are_left_out_on_request_with_a_warning(bundle: Path) -> None:
    damage(bundle / "data" / "faces", "Bo_Wu_0003.jpg")
    for _ in range(2):  # decoded, then from the cache
        with pytest.warns(UserWarning, match=r"1 of 3 photographs cannot be read: data/faces/Bo_Wu_0003\.jpg: .*left out"):
            photos = data.load_bundle(bundle, skip_bad=True)
        assert photos.names == ["Ann_Lee_0001", "Cy_0001"] and photos.groups == ["Ann_Lee", "Cy"]
        assert [file.stem for file in photos.features] == photos.names == [file.stem for file in photos.files]
        assert "1 unreadable left out" in photos.source
        expected = cv2.resize(reread(photos.files[1])[25:225, 25:225], (64, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(photos.images[1].numpy().astype(int) - expected).max() <= 1
    with pytest.raises(DataError, match="1 of 3"):
        data.load_bundle(bundle)


def test_nothing_but_damaged_pictures_is_an_error_even_on_request(tmp_path: Path) -> None:
    damage(tmp_path, "a.png")
    with pytest.raises(DataError, match="1 of 1"):
        data.load_folder(tmp_path, skip_bad=True)


# --- The cache -----------------------------------------------------------------------------------------------------


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were really decoded."""
    seen: list[Path] = []
    read = data.read_image

    def counting(path: str | Path) -> NDArray[np.uint8]:
        seen.append(Path(path))
        return read(path)

    monkeypatch.setattr(data, "read_image", counting)
    return seen


def test_the_second_load_comes_from_the_cache_inside_the_data_folder(lfw: Path, decodes: list[Path]) -> None:
    first = data.load_lfw(lfw)
    assert len(decodes) == 4
    assert sorted(path.suffix for path in (lfw / data.CACHE_FOLDER).iterdir()) == [".json", ".npy"]
    second = data.load_lfw(lfw)
    assert len(decodes) == 4
    assert torch.equal(first.images, second.images)
    assert (first.names, first.groups, first.source, first.files) == (second.names, second.groups, second.source, second.files)


def test_a_cache_can_be_put_elsewhere_or_left_out(lfw: Path, tmp_path: Path, decodes: list[Path]) -> None:
    for cache in (None, False):
        data.load_lfw(lfw, cache=cache)
    assert len(decodes) == 8 and not (lfw / data.CACHE_FOLDER).exists()
    for _ in range(2):
        data.load_lfw(lfw, cache=tmp_path / "deep" / "cache")
    assert len(decodes) == 12 and not (lfw / data.CACHE_FOLDER).exists()


def test_data_sets_layouts_and_sizes_do_not_share_a_cache(lfw: Path, tmp_path: Path, decodes: list[Path]) -> None:
    save(tmp_path / "other" / "Ann" / "Ann_0001.jpg", picture(7))
    loads: list[Callable[[], data.Photos]] = [
        lambda: data.load_lfw(lfw, cache=tmp_path / "c"),
        lambda: data.load_lfw(lfw, size=8, cache=tmp_path / "c"),
        lambda: data.load_folder(lfw, cache=tmp_path / "c"),
        lambda: data.load_lfw(tmp_path / "other", cache=tmp_path / "c"),
    ]
    first = [load() for load in loads]
    before = len(decodes)
    second = [load() for load in loads]
    assert len(decodes) == before == 13
    assert all(torch.equal(one.images, two.images) for one, two in zip(first, second))


def change_content(lfw: Path) -> None:
    save(lfw / "Cy" / "Cy_0001.jpg", picture(99, 250, 250))


def change_time(lfw: Path) -> None:
    os.utime(lfw / "Cy" / "Cy_0001.jpg", ns=(1, 1))


def change_name(lfw: Path) -> None:
    (lfw / "Cy" / "Cy_0001.jpg").rename(lfw / "Cy" / "Cy_0002.jpg")


def add_file(lfw: Path) -> None:
    save(lfw / "Dee" / "Dee_0001.jpg", picture(5, 250, 250))


@pytest.mark.parametrize("change", [change_content, change_time, change_name, add_file])
def test_a_stale_cache_is_made_again(lfw: Path, decodes: list[Path], change: Callable[[Path], None]) -> None:
    data.load_lfw(lfw)
    change(lfw)
    decodes.clear()
    photos = data.load_lfw(lfw)
    assert sorted(decodes) == sorted(photos.files)
    assert torch.equal(photos.images, data.load_lfw(lfw, cache=None).images)
    decodes.clear()
    data.load_lfw(lfw)
    assert not decodes
    assert len(list((lfw / data.CACHE_FOLDER).iterdir())) == 2  # the stale one was replaced


def flip_a_pixel(npy: Path, manifest: Path) -> None:
    raw = bytearray(npy.read_bytes())
    raw[-1] ^= 1
    npy.write_bytes(raw)


def cut_off(npy: Path, manifest: Path) -> None:
    npy.write_bytes(npy.read_bytes()[:-100])


def empty_it(npy: Path, manifest: Path) -> None:
    npy.write_bytes(b"")


def drop_one(npy: Path, manifest: Path) -> None:
    np.save(npy, np.load(npy)[:-1])


def pickle_it(npy: Path, manifest: Path) -> None:
    np.save(npy, np.array([print], dtype=object), allow_pickle=True)


def claim_a_petabyte(npy: Path, manifest: Path) -> None:
    npy.write_bytes(npy.read_bytes().replace(b"(4, 64, 64, 3)", b"(9999999999,3)"))


def break_the_manifest(npy: Path, manifest: Path) -> None:
    manifest.write_text(manifest.read_text(encoding="utf-8")[:-9], encoding="utf-8")


def other_manifest(npy: Path, manifest: Path) -> None:
    manifest.write_text("[1, 2]", encoding="utf-8")


@pytest.mark.parametrize(
    "harm", [flip_a_pixel, cut_off, empty_it, drop_one, pickle_it, claim_a_petabyte, break_the_manifest, other_manifest]
)
def test_a_damaged_cache_is_noticed_and_made_again(lfw: Path, decodes: list[Path], harm: Callable[[Path, Path], None]) -> None:
    expected = data.load_lfw(lfw).images
    (npy,) = (lfw / data.CACHE_FOLDER).glob("*.npy")
    harm(npy, npy.with_suffix(".json"))
    decodes.clear()
    with pytest.warns(UserWarning, match="is damaged"):
        assert torch.equal(data.load_lfw(lfw).images, expected)
    assert len(decodes) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(data.load_lfw(lfw).images, expected)
    assert len(decodes) == 4


def test_a_cache_of_an_older_rule_is_made_again(lfw: Path, decodes: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    data.load_lfw(lfw)
    monkeypatch.setattr(data, "_CACHE_VERSION", -1)
    data.load_lfw(lfw)
    assert len(decodes) == 8


@pytest.mark.parametrize("lost", [".npy", ".json"])
def test_half_a_cache_is_no_cache(lfw: Path, decodes: list[Path], lost: str) -> None:
    expected = data.load_lfw(lfw).images
    next((lfw / data.CACHE_FOLDER).glob(f"*{lost}")).unlink()
    assert torch.equal(data.load_lfw(lfw).images, expected)
    assert len(decodes) == 8


def test_a_process_killed_while_writing_leaves_no_cache_that_is_believed(lfw: Path, decodes: list[Path]) -> None:
    script = f"""
import os, numpy as np
from divcolor_lib import data
def half(stream, array, **options):
    stream.write(array.tobytes()[: array.nbytes // 2]); stream.flush(); os._exit(9)
np.save = half
data.load_lfw({str(lfw)!r})
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(data.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", script], env=environment, timeout=120, check=False).returncode == 9
    left = list((lfw / data.CACHE_FOLDER).iterdir())
    assert [path.suffix for path in left] == [".part"]
    photos = data.load_lfw(lfw)
    assert len(decodes) == 4
    assert torch.equal(photos.images, data.load_lfw(lfw, cache=None).images)
    decodes.clear()
    data.load_lfw(lfw)
    assert not decodes


def test_an_array_newer_than_its_manifest_is_not_believed(lfw: Path) -> None:
    """What a crash between the two files of the cache leaves."""
    data.load_lfw(lfw)
    (manifest,) = (lfw / data.CACHE_FOLDER).glob("*.json")
    old = manifest.read_bytes()
    change_content(lfw)
    fresh = data.load_lfw(lfw).images
    manifest.write_bytes(old)
    assert torch.equal(data.load_lfw(lfw).images, fresh)


def test_a_cache_that_cannot_be_written_only_warns(lfw: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.warns(UserWarning, match="cannot be remembered"):
        photos = data.load_lfw(lfw, cache=tmp_path / "file")
    assert len(photos) == 4


def test_the_cache_manifest_is_plain_json(lfw: Path) -> None:
    data.load_lfw(lfw)
    (manifest,) = (lfw / data.CACHE_FOLDER).glob("*.json")
    content = json.loads(manifest.read_text())
    assert set(content) == {"key", "sha256", "bad"}
    assert content["sha256"] == hashlib.sha256(np.load(manifest.with_suffix(".npy"), allow_pickle=False).tobytes()).hexdigest()


def test_the_cache_itself_is_not_read_as_photographs(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture(0))
    data.load_folder(tmp_path)
    save(tmp_path / data.CACHE_FOLDER / "x.png", picture(1))
    assert data.load_folder(tmp_path).names == ["a.png"]


# --- Photos --------------------------------------------------------------------------------------------------------


def test_photos_refuse_tensors_and_lists_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match="float32"):
        data.Photos(torch.zeros(2, 4, 4, 3), ["a", "b"], ["a", "b"])
    with pytest.raises(ShapeError, match="shape"):
        data.Photos(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), ["a", "b"], ["a", "b"])
    with pytest.raises(ShapeError, match="`groups` has 1 entries for 2"):
        data.Photos(stack(2), ["a", "b"], ["a"])
    with pytest.raises(ShapeError, match="`files` has 1"):
        data.Photos(stack(2), ["a", "b"], ["a", "b"], files=[Path("a")])


def test_a_subset_of_photographs_keeps_everything_together(bundle: Path) -> None:
    photos = data.load_bundle(bundle, cache=None)
    for indices in ([2, 0], np.array([2, 0]), torch.tensor([2, 0]), [-1, -3]):
        part = photos.subset(indices)
        assert part.names == ["Cy_0001", "Ann_Lee_0001"] and part.groups == ["Cy", "Ann_Lee"]
        assert torch.equal(part.images, photos.images[[2, 0]])
        assert [file.stem for file in part.files] == [file.stem for file in part.features] == part.names
    assert photos.subset(torch.tensor([False, True, False])).names == ["Bo_Wu_0003"]
    with pytest.raises(IndexError):
        photos.subset([3])
    with pytest.raises(IndexError):
        photos.subset(torch.tensor([True, False]))
    with pytest.raises(DataError, match="no photograph is left"):
        photos.subset([])


def test_the_content_hash_is_of_pixels_and_shape_alone() -> None:
    photos = photos_of(3)
    again = data.Photos(photos.images.clone(), ["x"] * 3, ["y"] * 3, source="elsewhere")
    assert data.content_hash(photos) == data.content_hash(again)
    changed = photos.images.clone()
    changed[2, 15, 15, 2] ^= 1
    assert data.content_hash(data.Photos(changed, photos.names, photos.groups)) != data.content_hash(photos)
    reshaped = data.Photos(photos.images.reshape(3, 8, 32, 3), photos.names, photos.groups)
    assert data.content_hash(reshaped) != data.content_hash(photos)
    strided = data.Photos(photos.images.flip(0).contiguous().flip(0), photos.names, photos.groups)
    assert data.content_hash(strided) == data.content_hash(photos)
    black = data.Photos(torch.zeros(1, 1, 1, 3, dtype=torch.uint8), ["a"], ["a"])
    assert data.content_hash(black) == hashlib.sha256(b"(1, 1, 1, 3)\0\0\0").hexdigest()


# --- Single tint ---------------------------------------------------------------------------------------------------


def duotone(gray: NDArray[np.float64], dark: tuple[float, ...], light: tuple[float, ...]) -> NDArray[np.float64]:
    return np.array(dark) + (np.array(light) - np.array(dark)) * gray[..., None] / 255


def tinted(kind: str, seed: int) -> NDArray[np.uint8]:
    color = picture(seed, 200, 200).astype(float)
    gray = color @ [0.299, 0.587, 0.114]
    hue = np.random.default_rng(seed).random()
    if kind == "gray":
        pixels = np.repeat(gray[..., None], 3, axis=2)
    elif kind == "sepia":
        pixels = color @ np.array([[0.393, 0.349, 0.272], [0.769, 0.686, 0.534], [0.189, 0.168, 0.131]])
    elif kind == "cast":
        pixels = gray[..., None] + np.array([20.0, 0.0, -25.0])
    elif kind == "one hue":
        pixels = gray[..., None] * np.array(colorsys.hsv_to_rgb(hue, 0.4, 1.0))
    else:
        pixels = duotone(gray, (30.0, 20.0, 90.0), (255.0, 240.0, 190.0))
    stored = cv2.imencode(".jpg", pixels.round().clip(0, 255).astype(np.uint8)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    read = cv2.imdecode(stored, cv2.IMREAD_COLOR)[:, :, ::-1]
    return cv2.resize(read, (64, 64), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("kind", ["gray", "sepia", "cast", "one hue", "duotone"])
def test_tinted_photographs_have_a_single_tint(kind: str) -> None:
    images = torch.from_numpy(np.stack([tinted(kind, seed) for seed in range(12)]))
    assert data.is_single_tint(images).all()
    if kind == "gray":
        assert data.tint_spread(images).max() < 0.1


def test_color_photographs_do_not_have_a_single_tint() -> None:
    images = stack(40, 64)
    assert not data.is_single_tint(images).any()


def test_a_colored_face_before_a_gray_wall_is_a_color_photograph() -> None:
    """All colors lie on one line through gray, which a rule on the scatter of colors alone would take for a duotone."""
    shade = cv2.resize(np.random.default_rng(0).integers(60, 220, (6, 6)).astype(np.uint8), (64, 64), interpolation=cv2.INTER_CUBIC)
    image = np.repeat(shade[..., None], 3, axis=2)
    image[16:48, 16:48] = (shade[16:48, 16:48, None] * np.array([1.0, 0.75, 0.62])).astype(np.uint8)
    assert not data.is_single_tint(torch.from_numpy(image[None])).item()


def test_two_colors_of_equal_lightness_are_not_a_single_tint_however_they_lie() -> None:
    """Pixels of equal lightness must not be told apart by their position."""
    colors = np.random.default_rng(0).integers(0, 256, (4000, 3), dtype=np.uint8)
    lab = rgb2lab(colors[None] / 255)[0]
    near = np.flatnonzero(np.abs(lab[:, 0] - 50) < 0.05)
    one = near[0]
    two = near[np.argmax(np.linalg.norm(lab[near, 1:] - lab[one, 1:], axis=1))]
    image = np.repeat(colors[[one, two]], 32, axis=0)[:, None].repeat(64, axis=1)
    distance = float(np.linalg.norm(lab[one, 1:] - lab[two, 1:]))
    assert distance > 40
    assert data.tint_spread(torch.from_numpy(image[None])).item() == pytest.approx(distance / 2, rel=0.01)


def test_the_spread_equals_a_direct_computation_over_ranks() -> None:
    image = picture(3, 32, 32)
    lab = rgb2lab(image / 255).reshape(-1, 3)
    level = np.round(lab[:, 0] * 5)
    group = np.array([(level < own).sum() for own in level]) * 64 // len(level)
    squares = sum(((lab[group == g, 1:] - lab[group == g, 1:].mean(axis=0)) ** 2).sum() for g in np.unique(group))
    expected = np.sqrt(squares / (len(level) - len(np.unique(group))))
    assert data.tint_spread(torch.from_numpy(image[None])).item() == pytest.approx(expected, rel=0.01)


def test_the_spread_does_not_depend_on_order_mirroring_or_chunks() -> None:
    images = torch.cat([stack(5, 32), torch.from_numpy(np.repeat(picture(9, 32, 32)[None, :, :, :1], 3, axis=3))])
    spread = data.tint_spread(images)
    assert torch.allclose(data.tint_spread(images, chunk=2), spread, atol=1e-4)
    assert torch.allclose(data.tint_spread(images.flip(2)), spread, atol=1e-3)
    assert torch.allclose(data.tint_spread(images.flip(0)), spread.flip(0), atol=1e-4)


def test_single_tint_photographs_are_left_out_and_counted() -> None:
    images = stack(4, 64)
    images[1] = images[1, :, :, :1]
    photos = data.without_single_tint(data.Photos(images, list("abcd"), list("wxyz"), source="test"))
    assert photos.names == ["a", "c", "d"] and photos.groups == ["w", "y", "z"]
    assert photos.source == "test; 1 single-tint photographs left out"
    assert data.without_single_tint(photos) is photos
    with pytest.raises(DataError, match="all 1 photographs have a single tint"):
        data.without_single_tint(data.Photos(images[1:2], ["b"], ["x"]))


# --- Splits --------------------------------------------------------------------------------------------------------

GROUPS = st.lists(st.text(max_size=4), min_size=3, max_size=40).filter(lambda names: len(set(names)) >= 3)


@settings(max_examples=60, deadline=None)
@given(GROUPS, st.integers(-5, 2**40))
def test_every_photograph_is_in_one_part_and_every_group_too(groups: list[str], seed: int) -> None:
    parts = data.split_by_group(groups, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(groups)))
    persons = [{groups[i] for i in part} for part in parts]
    assert not (persons[0] & persons[1] or persons[0] & persons[2] or persons[1] & persons[2])
    assert all(len(part) > 0 and part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)


@settings(max_examples=50, deadline=None)
@given(st.permutations([f"p{i}" for i in range(30)]), st.integers(0, 99))
def test_the_split_does_not_depend_on_the_order_of_photographs(order: list[str], seed: int) -> None:
    def persons(groups: list[str]) -> list[set[str]]:
        return [{groups[i] for i in part} for part in data.split_by_group(groups, seed)]

    assert persons(order) == persons(sorted(order))


def test_the_split_is_the_same_on_every_machine() -> None:
    """The hash is written out here by hand: a change of the rule would move people between parts."""
    groups = [f"person {i}" for i in range(300)]
    split = data.split_by_group(groups)
    for name, low, high in (("train", 0.0, 0.90), ("val", 0.90, 0.94), ("test", 0.94, 1.0)):
        for i in getattr(split, name):
            share = int(hashlib.sha256(f"2017:{groups[i]}".encode()).hexdigest()[:12], 16) / 16**12
            assert low <= share < high


def test_fractions_are_met_on_average_and_new_people_move_nobody() -> None:
    groups = [f"p{i}" for i in range(5000)]
    split = data.split_by_group(groups)
    assert [len(part) / 5000 for part in split] == pytest.approx(data.FRACTIONS, abs=0.02)
    more = data.split_by_group([*groups, *(f"new{i}" for i in range(1000))])
    for old, new in zip(split, more):
        assert old.tolist() == [i for i in new if i < 5000]


def test_another_seed_gives_another_split() -> None:
    groups = [f"p{i}" for i in range(50)]
    assert data.split_by_group(groups, 1).test.tolist() != data.split_by_group(groups, 2).test.tolist()


def test_names_that_differ_in_unicode_form_alone_are_hashed_alike() -> None:
    groups = [f"José {i}" for i in range(40)]
    other = [unicodedata.normalize("NFD", name) for name in groups]
    assert groups != other
    for one, two in zip(data.split_by_group(groups), data.split_by_group(other)):
        assert one.tolist() == two.tolist()


def test_fewer_people_than_parts_is_said_clearly() -> None:
    with pytest.raises(DataError, match="2 groups cannot be split into 3 parts"):
        data.split_by_group(["a", "b", "a"])
    for seed in range(30):
        train, val, test = data.split_by_group(["a", "b", "a"], seed, (0.7, 0.3, 0))
        assert len(train) and len(val) and not len(test)
    assert data.split_by_group(["a"], 0, (1, 0, 0)).train.tolist() == [0]
    with pytest.raises(DataError, match="0 groups"):
        data.split_by_group([], 0, (1, 0, 0))


@pytest.mark.parametrize("fractions", [(0.8, 0.1), (0.8, 0.1, 0.2), (0, 0.5, 0.5), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5)])
def test_fractions_that_make_no_sense_are_config_errors(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="fractions"):
        data.split_by_group(["a", "b", "c", "d"], 0, fractions)


# --- What a data set holds ----------------------------------------------------------------------------------------


def colored(L: float, a: float, b: float, size: int = 64) -> torch.Tensor:
    """One picture (1, size, size, 3) of one Lab color."""
    ab = torch.tensor([a, b]).view(1, 2, 1, 1).expand(1, 2, size, size) / 128
    return join(torch.full((1, 1, size, size), L / 50 - 1), ab)


@pytest.mark.parametrize(("L", "b", "ita"), [(70, 20, 45.0), (50, 15, 0.0), (35, 15, -45.0), (67.32, 10, 60.0), (60, -10, 135.0)])
def test_the_tone_of_one_color_has_a_closed_form(L: float, b: float, ita: float) -> None:
    light, angle = data.face_tone(colored(L, 10, b))
    assert light.shape == angle.shape == (1,)
    assert light.item() == pytest.approx(L, abs=0.3) and angle.item() == pytest.approx(ita, abs=2)


@pytest.mark.parametrize("size", [16, 64, 100])
def test_the_tone_is_the_median_over_the_box_and_nothing_else(size: int) -> None:
    images = stack(5, size)
    light, angle = data.face_tone(images, chunk=2)
    top, bottom, left, right = (round(edge * size / 64) for edge in (26, 42, 22, 42))
    for image, found_light, found_angle in zip(images.numpy(), light.tolist(), angle.tolist()):
        inside = rgb2lab(image)[top:bottom, left:right].reshape(-1, 3)
        middle = np.sort(inside, axis=0)[(len(inside) - 1) // 2]
        assert found_light == pytest.approx(middle[0], abs=0.02)
        assert found_angle == pytest.approx(np.degrees(np.arctan2(middle[0] - 50, middle[2])), abs=0.3)
    outside = images.clone()
    outside[:, :top], outside[:, bottom:], outside[:, :, :left], outside[:, :, right:] = 0, 255, 7, 99
    assert torch.equal(data.face_tone(outside)[1], angle)


def test_a_few_dark_pixels_do_not_move_the_tone_and_light_does() -> None:
    face = colored(65, 12, 18)
    glasses = face.clone()
    glasses[:, 28:31] = 0
    assert data.face_tone(glasses)[1].item() == pytest.approx(data.face_tone(face)[1].item(), abs=1e-3)
    brighter = (face.float() * 1.2).clamp(max=255).to(torch.uint8)
    assert data.face_tone(brighter)[1] > data.face_tone(face)[1] + 5


def test_the_faces_of_portraits_are_in_the_box() -> None:
    """The skin of a drawn person has one color, so the box has its hue; the lightness is that of the skin's shade."""
    gray, ab = Portraits(40, seed=3).batch(range(40))
    drawn = join(gray, ab)
    top, bottom, left, right = data.FACE_BOX
    lab = rgb2lab(drawn.numpy())[:, top:bottom, left:right].reshape(40, -1, 3)
    hue = np.degrees(np.arctan2(*np.median(lab, axis=1)[:, [2, 1]].T))
    assert (abs(hue - np.degrees(np.arctan2(19, 14))) < 15).all()
    assert 20 < data.face_tone(drawn)[0].min() < data.face_tone(drawn)[0].max() < 95


def test_a_tone_needs_pictures() -> None:
    with pytest.raises(ShapeError, match="shape"):
        data.face_tone(torch.empty(0, 8, 8, 3, dtype=torch.uint8))
    with pytest.raises(ShapeError):
        data.face_tone(torch.zeros(8, 8, 3, dtype=torch.uint8))
    assert torch.isfinite(data.face_tone(torch.full((1, 1, 1, 3), 9, dtype=torch.uint8))[1]).all()  # a box of one pixel


def test_a_statement_counts_and_measures() -> None:
    images = torch.cat([colored(L, 10, 20) for L in (40, 50, 60, 70, 80)])
    photos = data.Photos(images, list("12345"), ["ann", "ann", "bo", "cy", "cy"])
    told = data.statement(photos, seed=3)
    assert json.loads(json.dumps(told))["images of a person"] == {"1": 1, "2": 2}
    assert (told["images"], told["people"], told["single tint"]) == (5, 3, 5)  # one color each: a single tint
    assert told["sha256 of the pixels"] == data.content_hash(photos) and told["source"] == photos.source
    assert told["split"]["seed"] == 3 and sum(told["split"]["images"]) == 5 and sum(told["split"]["people"]) == 3
    L = data.face_tone(images)[0].double().numpy()
    ita = data.face_tone(images)[1].double().numpy()
    for name, values in (("L", L), ("ITA", ita)):
        facts = told[name]
        assert facts["counts"] == np.histogram(values, facts["edges"])[0].tolist() and sum(facts["counts"]) == 5
        assert facts["quantiles"] == pytest.approx(np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]))
        assert facts["photographs"] == pytest.approx(values.std())
        squares = values[:2].var() * 2 + values[3:].var() * 2
        assert facts["within a person"] == pytest.approx((squares / 2) ** 0.5)


def test_a_statement_of_few_people_has_no_split_and_values_beyond_the_edges_count() -> None:
    told = data.statement(data.Photos(colored(60, 0, -10), ["a"], ["a"]))
    assert told["split"] is None and told["ITA"]["within a person"] is None
    assert told["ITA"]["counts"][-1] == 1 == sum(told["ITA"]["counts"])  # 135 degrees


@pytest.fixture(scope="module")
def crowd() -> data.Photos:
    """Thirty people of one to four photographs; those of one person are alike but for noise."""
    rng = np.random.default_rng(0)
    images, groups = [], []
    for person in range(30):
        for _ in range(1 + person % 4):
            images.append(np.clip(picture(person, 32, 32) + rng.normal(0, 6, (32, 32, 3)), 0, 255).astype(np.uint8))
            groups.append(f"p{person}")
    return data.Photos(torch.from_numpy(np.stack(images)), [str(i) for i in range(len(images))], groups)


def test_copying_leaks_where_people_are_torn_apart(crowd: data.Photos) -> None:
    found = data.leakage(crowd, splits=4, fractions=(0.6, 0.1, 0.3), side=8)
    for leaky, hidden, apart, share, copied, clean in zip(
        *(found[name] for name in ("by image", "own person hidden", "by person", "copied from the own person", "copied")),
        found["copied, own person hidden"],
    ):
        assert 0.2 < share <= 1 and copied < 0.5 * clean
        assert leaky < 0.8 * hidden and leaky < 0.8 * apart
        assert leaky <= hidden + share * (copied - clean) + 1e-6  # what was not copied from the own person does not change
    parts = [data.split_by_group(crowd.groups, seed, (0.6, 0.1, 0.3)) for seed in range(4)]
    assert found["train"] == [len(part.train) for part in parts] and found["test"] == [len(part.test) for part in parts]
    assert found["side"] == 8


def test_the_errors_of_copying_agree_with_a_direct_search(crowd: data.Photos) -> None:
    found = data.leakage(crowd, splits=1, fractions=(0.6, 0.1, 0.3), side=8)
    parts = data.split_by_group(crowd.groups, 0, (0.6, 0.1, 0.3))
    lab = rgb2lab(crowd.images.numpy())
    small = lab[..., 0].reshape(-1, 8, 4, 8, 4).mean((2, 4)).reshape(len(crowd), -1)
    errors = []
    for i in parts.test:
        likeness = [np.corrcoef(small[i], small[j])[0, 1] for j in parts.train]
        copied = lab[parts.train[int(np.argmax(likeness))], ..., 1:]
        errors.append(np.sqrt(((lab[i, ..., 1:] - copied) ** 2).mean()) / 128)
    assert found["by person"][0] == pytest.approx(np.mean(errors), rel=1e-3)


def test_without_a_second_photograph_of_anyone_nothing_leaks() -> None:
    found = data.leakage(photos_of(20), splits=2, fractions=(0.5, 0.0, 0.5), side=4)
    assert found["copied from the own person"] == [0.0, 0.0] and found["copied"] == [None, None]
    assert found["by image"] == found["own person hidden"]


def test_leakage_needs_a_test_part_and_people() -> None:
    with pytest.raises(ConfigError, match="test part"):
        data.leakage(photos_of(9), fractions=(0.5, 0.5, 0.0))
    with pytest.raises(DataError, match="cannot be split"):
        data.leakage(photos_of(2))


# --- Sources and batches -------------------------------------------------------------------------------------------


def test_photo_fields_agree_with_scikit_image() -> None:
    images = stack(5)
    source = data.PhotoFields(images, "cpu")
    gray, ab = source.batch(torch.tensor([4, 0]))
    lab = rgb2lab(images[[4, 0]].numpy() / 255)
    assert len(source) == 5 and gray.dtype == ab.dtype == torch.float32
    np.testing.assert_allclose(gray[:, 0].numpy() * 50 + 50, lab[..., 0], atol=0.02)
    np.testing.assert_allclose(ab.permute(0, 2, 3, 1).numpy() * 128, lab[..., 1:], atol=0.05)


def test_tensor_fields_are_stored_in_half_precision_and_handed_out_in_single() -> None:
    gray, ab = torch.rand(3, 1, 4, 4).half(), torch.rand(3, 2, 4, 4).bfloat16()
    source = data.TensorFields(gray, ab)
    one, two = source.batch(torch.tensor([2, 1]))
    assert one.dtype == two.dtype == torch.float32
    assert torch.equal(one, gray[[2, 1]].float()) and torch.equal(two, ab[[2, 1]].float())


def test_sources_refuse_tensors_that_do_not_fit() -> None:
    with pytest.raises(ShapeError):
        data.PhotoFields(torch.zeros(2, 4, 4, 3), "cpu")
    with pytest.raises(ShapeError):
        data.TensorFields(torch.zeros(2, 1, 4, 4), torch.zeros(3, 2, 4, 4))


def test_a_subset_of_a_subset_points_into_the_first_source() -> None:
    source = data.PhotoFields(stack(6), "cpu")
    part = data.subset(data.subset(source, np.array([5, 3, 1])), [2, 0])
    assert len(part) == 2
    assert all(torch.equal(one, two) for one, two in zip(part.batch(torch.tensor([0, 1])), source.batch(torch.tensor([1, 5]))))
    with pytest.raises(IndexError):
        data.subset(source, [6])


def test_in_order_sees_everything_once_with_a_short_last_batch() -> None:
    source = data.PhotoFields(stack(7), "cpu")
    batches = list(data.in_order(source, 3))
    assert [len(indices) for indices, _, _ in batches] == [3, 3, 1]
    assert torch.equal(torch.cat([indices for indices, _, _ in batches]), torch.arange(7))
    assert torch.equal(torch.cat([ab for _, _, ab in batches]), source.batch(torch.arange(7))[1])
    with pytest.raises(ConfigError):
        list(data.in_order(source, 0))


def numbered(count: int, width: int = 2) -> data.TensorFields:
    """A source whose fields tell their own index, and whether they are mirrored."""
    field = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1) + torch.tensor([0.0, 0.5]).repeat(width // 2)
    return data.TensorFields(field.expand(-1, 1, 1, -1), field.expand(-1, 2, 1, -1))


def take(batches: data.Batches, count: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    return [next(batches) for _ in range(count)]


@pytest.mark.parametrize(("drop_last", "sizes"), [(True, [3, 3, 3]), (False, [3, 3, 3, 1])])
def test_each_epoch_shuffles_and_sees_every_image_at_most_once(drop_last: bool, sizes: list[int]) -> None:
    batches = data.Batches(numbered(10), 3, seed=4, drop_last=drop_last)
    assert batches.steps_per_epoch == len(sizes)
    orders = []
    for epoch in range(3):
        taken = take(batches, len(sizes))
        assert batches.epoch == epoch
        assert [len(indices) for indices, _, _ in taken] == sizes
        orders.append(torch.cat([indices for indices, _, _ in taken]).tolist())
        assert len(set(orders[-1])) == sum(sizes)
        for indices, gray, ab in taken:
            assert torch.equal(gray[:, 0, 0, 0], indices.float()) and torch.equal(ab[:, 1, 0, 1], indices + 0.5)
    assert orders[0] != orders[1] != orders[2]


def test_over_many_epochs_every_image_is_dropped_equally_often() -> None:
    batches = data.Batches(numbered(7), 4)
    counts = torch.zeros(7)
    for indices, _, _ in take(batches, 2000):
        counts[indices] += 1
    assert (counts / 2000 - 4 / 7).abs().max() < 0.06  # five standard deviations


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
def test_a_stream_resumes_at_every_position_bit_for_bit(flip: bool, drop_last: bool) -> None:
    def fresh(seed: int) -> data.Batches:
        return data.Batches(numbered(7), 3, seed=seed, flip=flip, drop_last=drop_last)

    whole = take(fresh(5), 12)
    for position in range(10):
        first = fresh(5)
        take(first, position)
        state = first.state_dict()
        take(first, 1)  # the state must not change with the stream that it came from
        resumed = fresh(6)
        take(resumed, 2)
        resumed.load_state_dict(state)
        assert resumed.epoch == state["epoch"]
        for expected, found in zip(whole[position:], take(resumed, 12 - position)):
            assert all(torch.equal(one, two) for one, two in zip(expected, found))


def test_the_state_survives_a_file_and_holds_tensors_and_plain_values_only(tmp_path: Path) -> None:
    batches = data.Batches(numbered(7), 3, flip=True)
    take(batches, 3)
    state = batches.state_dict()
    assert all(isinstance(value, (torch.Tensor, int, bool)) for value in state.values())
    torch.save(state, tmp_path / "state.pt")
    resumed = data.Batches(numbered(7), 3, seed=1, flip=True)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(next(resumed)[1], next(batches)[1])


def test_the_stream_neither_reads_nor_moves_the_global_generator() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one = take(data.Batches(numbered(9), 2, seed=3, flip=True), 9)
    assert torch.equal(torch.rand(3), expected)
    two = take(data.Batches(numbered(9), 2, seed=3, flip=True), 9)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(one, two))


def test_flips_mirror_gray_and_color_together_half_of_the_time() -> None:
    batches = data.Batches(numbered(100), 50, flip=True)
    mirrored = []
    for indices, gray, ab in take(batches, 40):
        offset = gray[:, 0, 0, 0] - indices
        assert set(offset.tolist()) <= {0.0, 0.5}
        assert torch.equal(ab[:, 0, 0, 0] - indices, offset) and torch.equal(ab[:, 1, 0, 1] - indices, 0.5 - offset)
        mirrored.append(offset > 0)
    assert 0.45 < torch.cat(mirrored).float().mean() < 0.55  # 2000 draws, standard deviation 0.011
    plain = take(data.Batches(numbered(100), 50), 40)
    assert all((gray[:, 0, 0, 0] == indices).all() for indices, gray, _ in plain)


def test_flips_do_not_change_which_images_are_shown() -> None:
    one, two = data.Batches(numbered(9), 4, flip=True), data.Batches(numbered(9), 4, flip=False)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(take(one, 8), take(two, 8)))


def test_shifts_move_gray_and_color_together_by_whole_pixels_up_to_the_limit() -> None:
    noise = torch.Generator().manual_seed(4)
    gray, ab = torch.rand(6, 1, 9, 7, generator=noise), torch.rand(6, 2, 9, 7, generator=noise)
    batches = data.Batches(data.TensorFields(gray, ab), 3, shift=2)
    seen = set()
    for indices, moved_gray, moved_ab in take(batches, 60):
        for index, one, two in zip(indices.tolist(), moved_gray, moved_ab):
            matches = [
                (down, right)
                for down in range(-2, 3)
                for right in range(-2, 3)
                if torch.equal(one, mirrored_crop(gray[index], down, right)) and torch.equal(two, mirrored_crop(ab[index], down, right))
            ]
            assert len(matches) == 1
            seen.add(matches[0])
    assert len(seen) == 25


def mirrored_crop(field: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Move one field, by NumPy's own padding."""
    padded = np.pad(field.numpy(), ((0, 0), (2, 2), (2, 2)), mode="reflect")
    height, width = field.shape[1:]
    return torch.from_numpy(padded[:, 2 - down : 2 - down + height, 2 - right : 2 - right + width].copy())


def test_shifts_change_neither_the_order_nor_the_flips_of_the_first_epoch() -> None:
    source = data.TensorFields(torch.rand(9, 1, 8, 8), torch.rand(9, 2, 8, 8))
    one, two = data.Batches(source, 3, flip=True), data.Batches(source, 3, flip=True, shift=1)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(take(one, 3), take(two, 3)))


def test_a_shifted_stream_resumes_bit_for_bit() -> None:
    source = data.TensorFields(torch.rand(7, 1, 8, 8), torch.rand(7, 2, 8, 8))
    whole = take(data.Batches(source, 3, shift=3, seed=2), 9)
    first = data.Batches(source, 3, shift=3, seed=2)
    take(first, 5)
    resumed = data.Batches(source, 3, shift=3, seed=8)
    resumed.load_state_dict(first.state_dict())
    assert all(torch.equal(a, b) for one, two in zip(whole[5:], take(resumed, 4)) for a, b in zip(one, two))


def test_moves_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="the shift is -1"):
        data.Batches(numbered(4), 2, shift=-1)
    with pytest.raises(ShapeError, match="a move of 4 pixels leaves the field"):
        data.shifted(torch.zeros(1, 1, 4, 9), torch.tensor([[4, 0]]))
    with pytest.raises(ShapeError, match="`moves` has shape"):
        data.shifted(torch.zeros(2, 1, 4, 9), torch.tensor([[1, 0]]))


def test_a_batch_larger_than_the_source_is_a_config_error_that_names_the_limit() -> None:
    with pytest.raises(ConfigError, match=r"3 images do not fill one batch of 4.*at most 3"):
        data.Batches(numbered(3), 4)
    with pytest.raises(ConfigError, match="batch size is 0"):
        data.Batches(numbered(3), 0)
    assert len(next(data.Batches(numbered(3), 4, drop_last=False))[0]) == 3


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    state = data.Batches(numbered(8), 2).state_dict()
    stream, twin = data.Batches(numbered(8), 2, seed=3), data.Batches(numbered(8), 2, seed=3)
    bad: list[tuple[dict[str, object], str]] = [
        ({key: value for key, value in state.items() if key != "generator"}, "lacks generator"),
        ({**state, "count": 9}, "count = 9, this stream has 8"),
        ({**state, "batch_size": 4}, "batch_size"),
        ({**state, "flip": True}, "flip"),
        ({**state, "step": 5}, "step 5 of 4"),
        ({**state, "step": -1}, "step -1"),
        ({**state, "generator": torch.zeros(3, dtype=torch.uint8)}, "generator is damaged"),
        ({**state, "generator": "text"}, "generator is damaged"),
    ]
    for broken, message in bad:
        with pytest.raises(CheckpointError, match=message):
            stream.load_state_dict(broken)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(take(stream, 9), take(twin, 9)))


# --- ColorDataset --------------------------------------------------------------------------------------------------


def weights_of(ab: torch.Tensor) -> torch.Tensor:
    return 1 + ab.square().sum(dim=1, keepdim=True)


def test_an_item_holds_the_fields_of_the_reference_code(lfw: Path) -> None:
    photos = data.load_lfw(lfw, cache=None)
    dataset = data.ColorDataset(photos, weights_of)
    item = dataset[2]
    lab = rgb2lab(photos.images[2].numpy() / 255)
    assert len(dataset) == 4 and set(item) == {"ab", "gray", "weights", "L_full", "name"}
    assert item["name"] == "Bo_Wu_0001"
    np.testing.assert_allclose(item["gray"][0].numpy() * 50 + 50, lab[..., 0], atol=0.02)
    np.testing.assert_allclose(item["ab"].permute(1, 2, 0).numpy() * 128, lab[..., 1:], atol=0.05)
    torch.testing.assert_close(item["weights"], 1 + item["ab"].square().sum(dim=0, keepdim=True))
    full = rgb2lab(reread(photos.files[2])[25:225, 25:225] / 255)[..., 0]
    assert item["L_full"].shape == (1, 200, 200) and item["L_full"].dtype == torch.float32
    np.testing.assert_allclose(item["L_full"][0].numpy(), full, atol=0.02)


def test_without_files_the_full_lightness_is_that_of_the_image() -> None:
    photos = photos_of(3)
    item = data.ColorDataset(photos, weights_of)[-1]
    np.testing.assert_allclose(item["L_full"][0].numpy(), rgb2lab(photos.images[2].numpy() / 255)[..., 0], atol=0.02)
    assert item["name"] == "n2"


def test_the_full_lightness_is_decoded_only_when_asked_for(lfw: Path, decodes: list[Path]) -> None:
    photos = data.load_lfw(lfw, cache=None)
    decodes.clear()
    data.ColorDataset(photos, weights_of, full=False)[0]
    assert not decodes
    data.ColorDataset(photos, weights_of)[0]
    assert decodes == [photos.files[0]]
    photos.files[0].unlink()
    with pytest.raises(ImageError, match="no such file"):
        data.ColorDataset(photos, weights_of)[0]


def test_the_dataset_works_in_a_loader_with_files_of_many_sizes(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture(0, 30, 50))
    save(tmp_path / "b.png", picture(1, 41, 40))
    dataset = data.ColorDataset(data.load_folder(tmp_path, cache=None), weights_of)
    batch = next(iter(DataLoader(dataset, batch_size=2, collate_fn=data.ColorDataset.collate)))
    assert batch["ab"].shape == (2, 2, 64, 64) and batch["weights"].shape == (2, 1, 64, 64)
    assert batch["name"] == ["a.png", "b.png"]
    assert [full.shape for full in batch["L_full"]] == [(1, 30, 30), (1, 40, 40)]


def test_the_dataset_ends_like_a_list() -> None:
    dataset = data.ColorDataset(photos_of(3), weights_of)
    with pytest.raises(IndexError):
        dataset[3]
    assert [item["name"] for item in dataset] == ["n0", "n1", "n2"]


def test_the_weight_table_of_the_library_fits() -> None:
    from divcolor_lib.bins import WeightTable, gamut_bins, prior, zhang_weights

    photos, bins = photos_of(4, 64), gamut_bins()
    _, ab = data.PhotoFields(photos.images).batch(torch.arange(4))
    table = WeightTable(bins, zhang_weights(prior(ab, bins), bins))
    item = data.ColorDataset(photos, table)[1]
    assert item["weights"].shape == (1, 64, 64) and torch.equal(item["weights"], table(ab[1:2])[0])
