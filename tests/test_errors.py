"""The library's errors: what a message says, the small checks, and files that are written whole or not at all."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import tempfile
from pathlib import Path

import pytest
import torch

from divcolor_lib.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DivcolorError,
    ImageError,
    ShapeError,
    StorageError,
    TrainingError,
    check_finite,
    check_shape,
    whole_file,
)

KINDS = (ConfigError, ShapeError, ImageError, DataError, CheckpointError, TrainingError, StorageError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("the width is 9", "CVAEConfig", "Use at most 4."), "the width is 9 (CVAEConfig). Use at most 4."),
        (("the width is 9", "CVAEConfig"), "the width is 9 (CVAEConfig)."),
        (("the width is 9", "", "Use at most 4."), "the width is 9. Use at most 4."),
        (("the width is 9",), "the width is 9."),
    ],
)
def test_a_message_says_what_was_found_where_and_what_to_do(arguments: tuple[str, ...], message: str) -> None:
    for kind in KINDS:
        assert str(kind(*arguments)) == message


def test_an_error_keeps_its_three_parts_for_a_program_to_read() -> None:
    error = DataError("no photographs", Path("faces") / "train", "Download them first.")
    assert (error.found, error.where, error.todo) == ("no photographs", str(Path("faces") / "train"), "Download them first.")


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_caught_as_the_librarys_own(kind: type[DivcolorError]) -> None:
    with pytest.raises(DivcolorError):
        raise kind("bad")


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (ConfigError, ValueError),
        (ShapeError, ValueError),
        (ImageError, ValueError),
        (TrainingError, ArithmeticError),
        (StorageError, OSError),
    ],
)
def test_code_that_knows_only_pythons_own_errors_catches_them_too(kind: type[DivcolorError], builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match=r"bad \(here\)"):
        raise kind("bad", "here")


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_the_way_back_from_a_worker_process(kind: type[DivcolorError]) -> None:
    error = kind("the file is damaged", "faces/1.jpg", "Delete it.")
    for arrived in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(arrived) is kind
        assert str(arrived) == "the file is damaged (faces/1.jpg). Delete it."
        assert (arrived.found, arrived.where, arrived.todo) == (error.found, error.where, error.todo)


# --- check_shape and check_finite ---


@pytest.mark.parametrize(
    ("size", "wanted"), [((2, 1, 8, 8), (2, 1, 8, 8)), ((2, 1, 8, 9), (None, 1, None, None)), ((), ()), ((0, 3), (0, 3))]
)
def test_a_tensor_of_the_right_shape_passes(size: tuple[int, ...], wanted: tuple[int | None, ...]) -> None:
    check_shape("x", torch.zeros(size), wanted)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((2, 3, 8, 8), (None, 1, None, None)),
        ((2, 1, 8), (None, 1, None, None)),
        ((2, 1, 8, 8, 1), (None, 1, None, None)),
        ((0, 1, 8, 8), (None, 1, None, None)),
        ((8,), ()),
    ],
)
def test_a_tensor_of_another_shape_is_named_with_both_shapes(size: tuple[int, ...], wanted: tuple[int | None, ...]) -> None:
    with pytest.raises(ShapeError) as caught:
        check_shape("gray", torch.zeros(size), wanted)
    written = "(" + ", ".join("any" if length is None else str(length) for length in wanted) + ")"
    assert str(caught.value) == f"`gray` has shape {size}. It should be {written}."


@pytest.mark.parametrize("thing", [[[1.0]], 3.0, None])
def test_something_that_is_no_tensor_is_refused_by_its_kind(thing: object) -> None:
    with pytest.raises(ShapeError, match=rf"`z` is a {type(thing).__name__}, not a torch tensor\. Pass a tensor of shape \(any, 4\)\."):
        check_shape("z", thing, (None, 4))  # type: ignore[arg-type]


def test_finite_tensors_pass_and_bad_values_are_counted() -> None:
    check_finite("x", torch.tensor([0.0, -1e38, 1e-45]))
    check_finite("x", torch.tensor([1, 2]))
    check_finite("x", torch.empty(0))
    bad = torch.tensor([[0.0, float("nan"), float("inf")], [float("-inf"), 1.0, 2.0]])
    with pytest.raises(ShapeError, match=r"`loss` holds 3 of 6 values that are NaN or infinite"):
        check_finite("loss", bad)


# --- whole_file ---


def everything_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file that was there before, alone in its folder."""
    path = tmp_path / "results.json"
    path.write_text("old")
    return path


def test_a_new_file_appears_with_its_missing_folders_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "first" / "results.json"
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert temporary != path
        assert not path.exists()
    assert path.read_text() == "new"
    assert everything_in(path.parent) == ["results.json"]


def test_a_path_may_be_a_string(tmp_path: Path) -> None:
    with whole_file(str(tmp_path / "a.txt")) as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_reader_sees_the_old_file_until_the_new_one_is_complete(old: Path) -> None:
    with whole_file(old) as temporary:
        temporary.write_text("half of the n")
        assert old.read_text(encoding="utf-8") == "old"
        temporary.write_text("new")
        assert temporary.parent == old.parent, "a move between two file systems is not one step"
    assert old.read_text(encoding="utf-8") == "new"
    assert everything_in(old.parent) == ["results.json"]


@pytest.mark.parametrize("failure", [RuntimeError("boom"), KeyboardInterrupt(), ConfigError("boom")])
def test_a_failure_inside_passes_unchanged_and_leaves_the_old_file_alone(old: Path, failure: BaseException) -> None:
    with pytest.raises(type(failure)) as caught, whole_file(old) as temporary:
        temporary.write_text("half")
        raise failure
    assert caught.value is failure
    assert old.read_text(encoding="utf-8") == "old"
    assert everything_in(old.parent) == ["results.json"]


def test_a_storage_error_inside_is_not_wrapped_again(old: Path) -> None:
    failure = StorageError("inner", "elsewhere")
    with pytest.raises(StorageError) as caught, whole_file(old):
        raise failure
    assert caught.value is failure


def test_a_disk_that_fills_while_writing_becomes_one_clear_error(old: Path) -> None:
    with pytest.raises(StorageError) as caught, whole_file(old) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    message = str(caught.value)
    assert "No space left on device" in message
    assert str(old) in message
    assert "Free some space" in message
    assert isinstance(caught.value.__cause__, OSError)
    assert old.read_text(encoding="utf-8") == "old"
    assert everything_in(old.parent) == ["results.json"]


@pytest.mark.parametrize(
    ("module", "function", "number"),
    [(os, "fsync", errno.ENOSPC), (os, "replace", errno.EXDEV), (tempfile, "mkstemp", errno.EACCES), (Path, "mkdir", errno.EROFS)],
)
def test_every_step_of_the_writing_may_fail_and_leaves_the_old_file(
    old: Path, monkeypatch: pytest.MonkeyPatch, module: object, function: str, number: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(module, function, fail)
        with pytest.raises(StorageError, match=os.strerror(number)), whole_file(old) as temporary:
            temporary.write_text("new")
    assert old.read_text(encoding="utf-8") == "old"
    assert everything_in(old.parent) == ["results.json"]


def test_a_folder_that_is_a_file_cannot_be_written_into(old: Path) -> None:
    with pytest.raises(StorageError, match="cannot write the file"), whole_file(old / "inside.json"):
        pytest.fail("the body must not run")
    assert old.read_text(encoding="utf-8") == "old"


def test_a_path_that_is_a_folder_cannot_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(StorageError), whole_file(tmp_path / "runs") as temporary:
        temporary.write_text("new")
    assert everything_in(tmp_path) == ["runs"]


def test_the_bytes_reach_the_disk_before_the_name_moves(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda *a: (steps.append("fsync"), fsync(*a))[1])
    monkeypatch.setattr(os, "replace", lambda *a: (steps.append("replace"), replace(*a))[1])
    with whole_file(old) as temporary:
        temporary.write_text("new")
    assert steps == ["fsync", "replace"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are a matter of POSIX")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_the_file_has_the_mode_that_the_user_chose_for_new_files(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with whole_file(tmp_path / "a.txt") as temporary:
            temporary.write_text("new")
        assert (tmp_path / "a.txt").stat().st_mode & 0o777 == mode
        assert os.umask(umask) == umask, "the process's own umask must stay"
    finally:
        os.umask(before)


def test_a_name_of_the_greatest_length_still_has_room_for_the_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250 + ".json")
    with whole_file(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
