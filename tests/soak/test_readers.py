"""`make soak`: many thousands of broken files for every reader, others each time; what once failed is tried first the next time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from divcolor_lib import data
from tests import fuzz, hostile

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]


def many(count: int) -> settings:
    return settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))


@many(60_000)
@given(content=st.binary(max_size=1000) | fuzz.mutated(fuzz.picture_files()))
def test_pictures(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    fuzz.check_picture(tmp_path_factory.getbasetemp(), content)


@many(10_000)
@given(content=fuzz.mutated(fuzz.feature_files()))
def test_features(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    fuzz.check_feature(tmp_path_factory.getbasetemp(), content)


@many(10_000)
@given(content=fuzz.mutated(fuzz.checkpoint_files()))
def test_checkpoints(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    fuzz.check_checkpoint(tmp_path_factory.getbasetemp(), content)


@many(10_000)
@given(content=fuzz.mutated(fuzz.weight_files()))
def test_weights(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    fuzz.check_weights(tmp_path_factory.getbasetemp(), content)


@many(5000)
@given(content=fuzz.LISTS)
def test_lists_of_a_bundle(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = folder_of(tmp_path_factory, "bundle", "data/faces/Cy_0001.jpg")
    fuzz.check_list(folder, content)


@many(5000)
@given(told=fuzz.JSON)
def test_manifests_of_the_cache(told: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = folder_of(tmp_path_factory, "photos", "a.png", "b.png")
    data.load(folder)
    fuzz.check_cache(folder, told)


def folder_of(factory: pytest.TempPathFactory, name: str, *pictures: str) -> Path:
    """Make the folder once."""
    folder = factory.getbasetemp() / name
    if not folder.exists():
        hostile.filled(*pictures)(folder)
    return folder
