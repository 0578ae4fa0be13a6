"""The library's own exceptions, and the small checks that raise them.

Every error says three things: what was found, where, and what to do about it.
A command prints that one message; a notebook shows it as the last line of the traceback.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor


class DivcolorError(Exception):
    """Base of every error that this library raises on purpose.

    Args:
        found: what is wrong, as a plain sentence without a full stop.
        where: the file, argument or step at which it was found.
        todo: what the reader can do about it.
    """

    def __init__(self, found: str, where: str | Path = "", todo: str = "") -> None:
        self.found, self.where, self.todo = found, str(where), todo
        message = f"{found} ({where})." if where else f"{found}."
        super().__init__(f"{message} {todo}".rstrip())

    def __reduce__(self) -> tuple[type[DivcolorError], tuple[str, str, str]]:
        return type(self), (self.found, self.where, self.todo)


class ConfigError(DivcolorError, ValueError):
    """A setting or an argument has a value that cannot be used."""


class ShapeError(DivcolorError, ValueError):
    """A tensor has the wrong shape, type or range."""


class ImageError(DivcolorError, ValueError):
    """A picture cannot be read, or cannot be used as a photograph."""


class DataError(DivcolorError):
    """A data set is absent, incomplete or does not fit together."""


class DownloadError(DivcolorError):
    """A file could not be fetched, or what came was not the file that was published."""


class CheckpointError(DivcolorError):
    """A checkpoint is absent, damaged, or belongs to another architecture."""


class TrainingError(DivcolorError, ArithmeticError):
    """Training produced a value that is not a number, or cannot go on."""


class TrainingPaused(DivcolorError):
    """Training stopped before its end because it was asked to; a checkpoint holds everything that it needs to go on."""


class ExerciseError(DivcolorError, AssertionError):
    """An answer to an exercise did not pass its check, and the check was strict; or a quiz cannot be shown."""


class StorageError(DivcolorError, OSError):
    """A file cannot be written: the disk is full, or the folder is read-only."""


def check_shape(name: str, tensor: Tensor, shape: Sequence[int | None]) -> None:
    """Raise `ShapeError` unless `tensor` has `shape`; `None` stands for any size of at least one.

    >>> import torch
    >>> check_shape("gray", torch.zeros(2, 1, 8, 8), (None, 1, None, None))
    """
    if not isinstance(tensor, Tensor):
        raise ShapeError(f"`{name}` is a {type(tensor).__name__}, not a torch tensor", todo=f"Pass a tensor of shape {_written(shape)}.")
    fits = tensor.ndim == len(shape) and all(size >= 1 if wanted is None else size == wanted for size, wanted in zip(tensor.shape, shape))
    if not fits:
        raise ShapeError(f"`{name}` has shape {tuple(tensor.shape)}", todo=f"It should be {_written(shape)}.")


def check_finite(name: str, tensor: Tensor) -> None:
    """Raise `ShapeError` if `tensor` holds a NaN or an infinity; the message counts them."""
    bad = int((~tensor.isfinite()).sum())
    if bad:
        raise ShapeError(
            f"`{name}` holds {bad} of {tensor.numel()} values that are NaN or infinite",
            todo="Look at the step that made it: a division by zero, a log of zero, or a damaged file.",
        )


def check_writable(folder: str | Path) -> None:
    """Raise `StorageError` unless files can be made in `folder`, which is made if it is absent. For use before long work."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(
            f"no file can be written here: {error.strerror or error}", folder, "Choose a folder that you may write to."
        ) from error


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path; on success move it to `path` in one step, on failure leave nothing.

    A reader of `path` sees the old file or the new one, never half of one. Inside the block only write: every `OSError`
    there is taken for a failure to write.

    Raises:
        StorageError: the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as written:  # Windows flushes only what is open for writing
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"cannot write the file: {error.strerror or error}",
            path,
            "Free some space or choose a folder that you may write to; what was there before is untouched.",
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _written(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
