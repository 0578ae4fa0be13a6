"""A few seconds of broken files for every reader. `make soak` does the same for much longer, with other files each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from divcolor_lib import data
from tests import fuzz, hostile

#: The same files in every run, so that a failure is a change of the library.
FEW = settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))

pytestmark = pytest.mark.timeout(120)


@FEW
@given(content=st.binary(max_size=400) | fuzz.mutated(fuzz.picture_files()))
def test_pictures(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    fuzz.check_picture(tmp_path_factory.getbasetemp(), content)


@FEW
@given(content=fuzz.mutated(fuzz.feature_files()))
def test_features(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    fuzz.check_feature(tmp_path_factory.getbasetemp(), content)


@FEW
@given(content=fuzz.mutated(fuzz.checkpoint_files()))
def test_checkpoints(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    fuzz.check_checkpoint(tmp_path_factory.getbasetemp(), content)


@FEW
@given(content=fuzz.mutated(fuzz.weight_files()))
def test_weights(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    fuzz.check_weights(tmp_path_factory.getbasetemp(), content)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    hostile.filled("data/faces/Cy_0001.jpg")(folder)
    return folder


@FEW
@given(content=fuzz.LISTS)
def test_lists_of_a_bundle(content: bytes, bundle: Path) -> None:
    fuzz.check_list(bundle, content)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    hostile.filled("a.png", "b.png")(folder)
    data.load(folder)
    return folder


@FEW
@given(told=fuzz.JSON)
def test_manifests_of_the_cache(told: Any, photos: Path) -> None:
    fuzz.check_cache(photos, told)
