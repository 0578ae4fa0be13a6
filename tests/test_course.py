"""What the chapters of Part II train on: portraits of the shipped networks' seeds, or LFW from the folder that was named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from divcolor_lib import __main__ as cli
from divcolor_lib import data, runtime
from divcolor_lib.errors import ConfigError
from divcolor_lib.portraits import Portraits

HERE = runtime.Runtime("cpu", torch.device("cpu"), "fp32", "portraits", None, 0, 2)


def test_portraits_are_the_first_of_those_that_the_shipped_networks_know() -> None:
    course = data.course(HERE, train=6, val=4)
    assert course.portraits is not None and course.groups == ("0", "1", "2", "3")
    assert (len(course.train), len(course.val)) == (6, 4)
    for source, part, count in ((course.train, "train", 6), (course.val, "val", 4)):
        gray, ab = cli._portraits(part).batch(range(count))
        found = source.batch(torch.arange(count))
        torch.testing.assert_close(found[0], gray, atol=1e-3, rtol=0)
        torch.testing.assert_close(found[1], ab, atol=1e-3, rtol=0)
    assert isinstance(course.portraits, Portraits)
    gray, _ = course.val.batch(torch.tensor([3]))
    torch.testing.assert_close(course.portraits.gray([3]), gray, atol=1e-3, rtol=0)


@pytest.fixture
def lfw(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for person in range(40):
        folder = tmp_path / "lfw-deepfunneled" / f"Person_{person}"
        folder.mkdir(parents=True)
        for number in (1, 2):
            pixels = random.integers(0, 256, (250, 250, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"Person_{person}_{number:04}.jpg")
    return tmp_path


def test_lfw_comes_split_by_person(lfw: Path) -> None:
    course = data.course(replace(HERE, dataset="lfw", data=lfw), train=1000, val=1000)
    photos = data.without_single_tint(data.load(lfw))
    parts = data.split_by_group(photos.groups)
    assert course.portraits is None
    assert (len(course.train), len(course.val)) == (len(parts.train), len(parts.val))
    assert set(course.groups) == {photos.groups[i] for i in parts.val}
    assert not set(course.groups) & {photos.groups[i] for i in parts.train}
    gray, ab = course.val.batch(torch.tensor([0]))
    assert gray.shape == (1, 1, 64, 64) and ab.shape == (1, 2, 64, 64)
    few = data.course(replace(HERE, dataset="lfw", data=lfw), train=5, val=1)
    assert (len(few.train), len(few.val), len(few.groups)) == (5, 1, 1)


def test_lfw_without_a_folder_says_which_switch_names_it() -> None:
    with pytest.raises(ConfigError, match="DIVCOLOR_DATA"):
        data.course(replace(HERE, dataset="lfw"), train=5, val=1)


def test_other_pictures_beside_the_faces_are_left_alone(lfw: Path) -> None:
    before = data.course(replace(HERE, dataset="lfw", data=lfw), train=1000, val=1000)
    Image.new("RGB", (90, 90), "orange").save(lfw / "snapshot-000200.png")
    after = data.course(replace(HERE, dataset="lfw", data=lfw), train=1000, val=1000)
    assert (len(before.train), before.groups) == (len(after.train), after.groups)
