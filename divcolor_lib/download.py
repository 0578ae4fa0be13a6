"""Downloads that are checked: from one of several places, in pieces if need be, and never half.

`SOURCES` is the one table of what this course fetches: from where, how large, under which terms. `fetch` brings one file
of it, `fetch_folder` also unpacks it, and `lfw` returns the folder of faces that `data.load` reads.

What is promised:

- Every file is compared with what its publisher says of it (size, SHA-256, MD5), after a download and again on each use.
  Where nobody published a hash, the first download can be compared with nothing. It says so, shows the hash, writes it
  to a small JSON file beside the data, and from then on that hash is required.
- A transfer that breaks goes on where it stopped. One place that fails (403, 404, a web page instead of a file, silence,
  a wrong hash) makes room for the next; the error at the end lists them all.
- A file appears under its name only when it is complete and right. Of two processes that want it, one fetches, one waits.
- `DIVCOLOR_OFFLINE=1` forbids every connection. Nothing here runs unless it is called.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import http.client
import inspect
import json
import os
import random
import re
import shlex
import shutil
import socket
import ssl
import stat
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

from tqdm import tqdm

from . import __version__
from .errors import ConfigError, DataError, DownloadError, StorageError, check_writable, whole_file

#: Where releases of this course are. The same address stands in `pyproject.toml`, and a test compares them.
REPOSITORY = "https://github.com/divcolor/diverse-image-colorization"
TIMEOUT = 30.0  #: seconds of silence after which a place is given up.
SLOWEST = 1024.0  #: bytes a second below which a place counts as silent.
TRIES = 4  #: attempts at one place, each a little later than the one before.
BACKOFF = 1.0  #: seconds before the second attempt; doubled before each further one.
LONGEST_WAIT = 7200.0  #: seconds to wait for another process that fetches the same file.
LARGEST = 16 * 10**9  #: bytes above which no download goes on.
MOST_FILES = 200_000  #: limits of what is unpacked: number of files and folders,
MOST_BYTES = 60 * 10**9  #: bytes in all,
MOST_RATIO = 50  #: and bytes for each byte of the archive, above the first ten million.
PIECE = 1 << 20

_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_PACKED = (".zip", ".tgz")
_LFW_NAME = re.compile(r"(?P<person>.+)_\d{4}\.jpe?g", re.IGNORECASE)
_LFW_COUNT = 13_233
#: The sets of LFW, best aligned first; each unpacks to a folder of its name.
LFW_SETS = ("lfw-deepfunneled", "lfw-funneled", "lfw-original")


# --- The table of sources ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Copy:
    """One place that has a file, and what is known of its bytes before they come.

    Attributes:
        file: the name it gets on disk.
        url: its address; or
        drive: its id on Google Drive.
        size: bytes, or `None` if nobody published it.
        sha256: 64 hexadecimal digits, or the first few of them where the publisher gives only those, or empty.
        md5: 32 digits where only this older hash was published. It still tells a damaged file from a whole one.
    """

    file: str
    url: str = ""
    drive: str = ""
    size: int | None = None
    sha256: str = ""
    md5: str = ""

    @property
    def address(self) -> str:
        """What a reader can open in a browser."""
        return self.url or f"https://drive.google.com/file/d/{self.drive}/view"

    @property
    def published(self) -> bool:
        """Whether a whole hash was published, so that a finished file needs no other proof."""
        return len(self.sha256) == 64 or bool(self.md5)


@dataclass(frozen=True)
class Source:
    """One entry of `SOURCES`.

    Attributes:
        name: what `fetch` takes.
        title, use: what it is, and what this course needs it for.
        about: its size in words.
        copies: the places that have it, in the order in which they are tried.
        license, citation: its terms, and whom to cite.
    """

    name: str
    title: str
    use: str
    about: str
    copies: tuple[Copy, ...]
    license: str
    citation: str

    @property
    def packed(self) -> bool:
        """Whether it is an archive, which `fetch_folder` unpacks."""
        return self.copies[0].file.endswith(_PACKED)


_LFW_PAGE = "https://umass-vis-lfw.github.io"
_LFW_TERMS = (
    "News photographs, published for research; no license is stated. The rights stay with the owners of the photographs: "
    "train and measure with them, do not pass them on."
)
_LFW_CITATION = (
    "G. B. Huang, M. Ramesh, T. Berg and E. Learned-Miller, Labeled Faces in the Wild, University of Massachusetts, Amherst, "
    "Technical Report 07-49, 2007"
)
_REFERENCE_CITATION = (
    "A. Deshpande, J. Lu, M.-C. Yeh, M. J. Chong and D. Forsyth, Learning Diverse Image Colorization, CVPR 2017, arXiv 1612.01958"
)


def _release(name: str, use: str, size: int, sha256: str) -> Source:
    file = f"{name}.safetensors"
    return Source(
        name=f"model-{name}",
        title=f"This course's own model `{name}`",
        use=use,
        about=f"{size / 1e6:.1f} MB",
        copies=(Copy(file, url=f"{REPOSITORY}/releases/download/v{__version__}/{file}", size=size, sha256=sha256),),
        license="MIT, as the code of this course.",
        citation="CITATION.cff in the repository",
    )


#: All that this course ever fetches. `book/_tools/sources.py` makes the book's page from it.
SOURCES: tuple[Source, ...] = (
    Source(
        name="lfw-deepfunneled",
        title="Labeled Faces in the Wild, aligned by deep funneling",
        use="the 13,233 photographs of faces for training at full size",
        about="about 110 MB packed",
        copies=(
            Copy("lfw-deepfunneled.zip", url=f"{_LFW_PAGE}/lfw-deepfunneled.zip"),
            # The page of LFW publishes the MD5 of each .tgz. Two public logs of its download give this size.
            Copy(
                "lfw-deepfunneled.tgz",
                url=f"{_LFW_PAGE}/lfw-deepfunneled.tgz",
                size=108_761_145,
                md5="68331da3eb755a505a502b5aacb3c201",
            ),
            Copy(
                "lfw-deepfunneled.tgz",
                url="https://web.archive.org/web/20231118124720if_/https://vis-www.cs.umass.edu/lfw/lfw-deepfunneled.tgz",
                size=108_761_145,
                md5="68331da3eb755a505a502b5aacb3c201",
            ),
        ),
        license=_LFW_TERMS,
        citation=f"{_LFW_CITATION}; G. B. Huang, M. Mattar, H. Lee and E. Learned-Miller, Learning to Align from Scratch, NIPS 2012",
    ),
    Source(
        name="lfw-funneled",
        title="Labeled Faces in the Wild, aligned by funneling",
        use="the same faces, aligned by an older method, if the first set cannot be had",
        about="243 MB packed",
        copies=(
            Copy("lfw-funneled.zip", url=f"{_LFW_PAGE}/lfw-funneled.zip"),
            # SHA-256: scikit-learn, sklearn/datasets/_lfw.py.
            Copy(
                "lfw-funneled.tgz",
                url="https://ndownloader.figshare.com/files/5976015",
                size=243_346_528,
                sha256="b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",
            ),
        ),
        license=_LFW_TERMS,
        citation=f"{_LFW_CITATION}; G. B. Huang, V. Jain and E. Learned-Miller, Unsupervised Joint Alignment of Complex Images, ICCV 2007",
    ),
    Source(
        name="lfw-original",
        title="Labeled Faces in the Wild, as detected",
        use="the same faces, not aligned, if neither of the others can be had",
        about="181 MB packed",
        copies=(
            Copy("lfw.zip", url=f"{_LFW_PAGE}/lfw.zip"),
            Copy(
                "lfw.tgz",
                url="https://ndownloader.figshare.com/files/5976018",
                sha256="055f7d9c632d7370e6fb4afc7468d40f970c34a80d4c6f50ffec63f5a8d536c0",
            ),
        ),
        license=_LFW_TERMS,
        citation=_LFW_CITATION,
    ),
    Source(
        name="reference-data",
        title="The data bundle of the reference code",
        use="the reference's lists of training and test pictures, and stored features of Zhang's network",
        about="about 2.7 GB packed",
        copies=(Copy("data.zip", drive="187x5YSXYibG4QwC5m_Hx8cNzPGVTXv6G"),),
        license="None is stated with the file; the authors' code is under Apache-2.0. It is derived from LFW, whose terms apply.",
        citation=_REFERENCE_CITATION,
    ),
    Source(
        name="reference-vae",
        title="The reference code's trained VAE",
        use="comparing with the reference design's published weights",
        about="about 134 MB (33,368,770 parameters in single precision)",
        copies=(Copy("model_vae.pth", drive="1wdyK198lXwwZO4NIB7DzJmA5arwUVWDU"),),
        license="None is stated with the file; the authors' code is under Apache-2.0.",
        citation=_REFERENCE_CITATION,
    ),
    Source(
        name="reference-mdn",
        title="The reference code's trained MDN",
        use="comparing with the reference design's published weights",
        about="about 56 MB (13,952,008 parameters in single precision)",
        copies=(Copy("model_mdn.pth", drive="1AhilMrR_C04v7_sysuf5ffEVsQllo2W6"),),
        license="None is stated with the file; the authors' code is under Apache-2.0.",
        citation=_REFERENCE_CITATION,
    ),
    Source(
        name="zhang",
        title="Zhang's colorization network, weights for PyTorch",
        use="gray-level features as the published method used them, `features.ZhangNet.from_published`",
        about="about 129 MB",
        copies=(
            Copy(
                "colorization_release_v2-9b330a0b.pth",
                url="https://colorizers.s3.us-east-2.amazonaws.com/colorization_release_v2-9b330a0b.pth",
                sha256="9b330a0b",
            ),
        ),
        license="BSD-2-Clause.",
        citation="R. Zhang, P. Isola and A. A. Efros, Colorful Image Colorization, ECCV 2016, arXiv 1603.08511",
    ),
    _release(
        "faces",
        "coloring photographs without training; it also ships with the library",
        7_659_244,
        "c5760ce6b5936d8c05084156506b5389a1739cf915cda83545796fecd0117d1e",
    ),
    _release(
        "portraits",
        "coloring portraits without training; it also ships with the library",
        970_300,
        "f3a830b730e7855e33a61e6a668cd75a7c5d2641757ddeb91fe71005c729eaf2",
    ),
)


# --- What a reader calls -------------------------------------------------------------------------------------------


def fetch(name: str, folder: str | Path | None = None, *, source: str | Path | None = None, progress: bool = True) -> Path:
    """Return a file of the table, checked; fetch it first if it is not there.

    Args:
        name: which one, a name in `SOURCES`.
        folder: where it is kept (default: `default_folder()`).
        source: a file that you already have, or a folder that holds it. It is checked and copied; nothing is fetched.
        progress: show a bar.

    Raises:
        ConfigError: no such name.
        DownloadError: every place failed, or the network is switched off. The message lists each place and its reason.
        DataError: `source` is not this file, or the record of an earlier hash is damaged.
        StorageError: the folder cannot be written, or the disk is full. What was fetched so far is kept for the next time.
    """
    entry, place = _entry(name), _place(folder)
    if source is None:
        ready, reasons = _kept(entry, place)
        if ready:
            return ready
        if offline():
            found = "; ".join([f"`{name}` is not here, and DIVCOLOR_OFFLINE forbids fetching it", *reasons])
            raise DownloadError(found, place, f"Unset the variable, or {_by_hand(entry, place)}")
    check_writable(place)
    with _locked(place, entry):
        if source is not None:
            return _adopted(entry, place, Path(source).expanduser())
        ready, reasons = _kept(entry, place)  # another process may have fetched it while this one waited
        if ready:
            return ready
        for reason in reasons:
            _say(f"{name}: damaged or altered, so it is fetched again: {reason}")
        for copy in entry.copies:
            try:
                return _obtained(entry, copy, place, progress)
            except _Unfit as error:
                reasons.append(f"{copy.address}: {error}")
                _say(f"{name}: {reasons[-1]}")
    raise DownloadError(f"`{name}` could not be fetched: {'; '.join(reasons)}", place, f"Try again later, or {_by_hand(entry, place)}")


def fetch_folder(name: str, folder: str | Path | None = None, *, source: str | Path | None = None, progress: bool = True) -> Path:
    """Return the folder into which an archive of the table is unpacked; fetch and unpack it first if it is not there.

    Arguments and errors are those of `fetch`, and a `DataError` also stands for an archive that `unpack` refuses, or one of LFW
    without faces. A folder that is there is complete, so it is not looked at again.
    """
    entry, place = _entry(name), _place(folder)
    if not entry.packed:
        raise ConfigError(f"`{name}` is a single file, with nothing to unpack", "fetch_folder", "Use fetch.")
    target = place / entry.name
    if target.is_dir():
        if source is not None:
            _say(f"{name}: {target} is there already, so {source} is not used")
        return target
    archive = fetch(name, place, source=source, progress=progress)
    with _locked(place, entry):
        for left_over in place.glob(f".{name}.*.unpack"):
            shutil.rmtree(left_over, ignore_errors=True)
        return target if target.is_dir() else unpack(archive, target, check=_check_faces if name in LFW_SETS else None)


def lfw(folder: str | Path | None = None, source: str | Path | None = None, *, progress: bool = True) -> Path:
    """Return the folder of Labeled Faces in the Wild, for `data.load`; fetch and unpack it first if need be.

    The deep-funneled set comes first. If no place has it, the funneled set is taken, then the one that is not aligned,
    with a warning: numbers then differ a little from those in the book.

    Args:
        folder: where data are kept (default: `default_folder()`).
        source: an archive of LFW that you have, a folder that holds one, or the unpacked folder, which is returned as it is.

    Raises:
        DownloadError: no place has any of the three sets.
        DataError: `source` holds no faces in the layout of LFW.
        StorageError: the folder cannot be written, or the disk is full.
    """
    place = _place(folder)
    if source is not None:
        given = Path(source).expanduser()
        if given.is_dir() and _count_faces(given):
            return given
        name = next((name for name in LFW_SETS if _given_file(_entry(name), given)), LFW_SETS[0])
        return fetch_folder(name, place, source=given, progress=progress)
    there = next((name for name in LFW_SETS if (place / name).is_dir()), None)
    failures = []
    for name in [there] if there else LFW_SETS:
        try:
            found = fetch_folder(name, place, progress=progress)
        except DownloadError as error:
            failures.append(error.found)
            continue
        if name != LFW_SETS[0]:
            warnings.warn(f"this is {_entry(name).title}, not the set that the book was measured on", stacklevel=2)
        return found
    raise DownloadError(
        f"no set of LFW could be fetched: {'; '.join(failures)}", place, f"For one of them, {_by_hand(_entry(LFW_SETS[0]), place)}"
    )


def unpack(archive: str | Path, folder: str | Path, *, check: Callable[[Path], None] | None = None, most_bytes: int = MOST_BYTES) -> Path:
    """Unpack a `.zip` or a `.tar` (also `.tgz`, `.tar.gz` and the like) into a new folder, all of it or nothing.

    Only plain files and folders are taken. Links, devices, absolute paths, `..`, encrypted or doubled members, and archives
    that swell beyond the limits of this module are refused. Owners, permissions and dates in the archive are not followed.

    Args:
        archive: the file.
        folder: the folder to make. It must not be there, or be empty.
        check: called with the unpacked folder before it gets its name; what it raises stops the unpacking.
        most_bytes: limit for what comes out.

    Raises:
        DataError: the archive is absent, damaged, of another kind or refused, or the folder is there already.
        StorageError: the folder cannot be written, or the disk is full.
    """
    archive, folder = Path(archive).expanduser(), Path(folder).expanduser()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError("something is there already", folder, "Remove it, or name another folder.")
    check_writable(folder.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name[:80]}.", suffix=".unpack", dir=folder.parent))
    try:
        budget = _Budget(archive, most_bytes)
        try:
            for member in _members(archive):
                _unpack_member(member, temporary, budget)
        except (StorageError, DataError):
            raise
        except Exception as error:  # zip, tar, gzip and zlib errors: a broken archive raises whatever its reader meets
            raise DataError(f"the archive is damaged ({error})", archive, "Fetch it again.") from error
        if check is not None:
            check(temporary)
        with _writing(folder):
            temporary.chmod(0o777 & ~_umask())
            if folder.exists():
                folder.rmdir()
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def offline() -> bool:
    """Whether `DIVCOLOR_OFFLINE` forbids connections.

    Raises:
        ConfigError: the variable has a value that is neither yes nor no.
    """
    value = os.environ.get("DIVCOLOR_OFFLINE", "")
    if value not in ("", "0", "1"):
        raise ConfigError(f"`{value}` is not a value that DIVCOLOR_OFFLINE can take", "DIVCOLOR_OFFLINE", "Use 1 or 0, or unset it.")
    return value == "1"


def default_folder() -> Path:
    """Return the folder of data sets: `DIVCOLOR_DATA`, or else `divcolor` in the user's folder for caches.

    On Colab that folder is gone with the machine. To keep data on Google Drive, mount it and set `DIVCOLOR_DATA`, for example to
    `/content/drive/MyDrive/divcolor`.
    """
    if chosen := os.environ.get("DIVCOLOR_DATA"):
        return Path(chosen).expanduser()
    caches = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "divcolor"


# --- One file: what is known of it, and whether it is right ---------------------------------------------------------


class _Unfit(Exception):
    """This place does not have the file: go on with the next one."""


class _Facts(NamedTuple):
    size: int
    sha256: str
    md5: str


def _facts(path: Path) -> _Facts:
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with open(path, "rb") as stream:
        while piece := stream.read(PIECE):
            sha256.update(piece)
            md5.update(piece)
            size += len(piece)
    return _Facts(size, sha256.hexdigest(), md5.hexdigest())


def _fault(copy: Copy, facts: _Facts, recorded: str = "") -> str:
    """Return what is wrong with a file, or nothing; `recorded` is the SHA-256 of its first download."""
    if copy.size is not None and facts.size != copy.size:
        return f"the file has {facts.size} bytes, not {copy.size}"
    if not facts.sha256.startswith(copy.sha256):
        return f"its SHA-256 is {facts.sha256}, not {copy.sha256}"
    if copy.md5 and facts.md5 != copy.md5:
        return f"its MD5 is {facts.md5}, not {copy.md5}"
    if recorded and facts.sha256 != recorded:
        return f"its SHA-256 is {facts.sha256}, but at the first download it was {recorded}"
    return ""


def _unsound(path: Path, name: str) -> str:
    """Return why a file cannot be what its name says, judged by its own form and checksums, or nothing."""
    with open(path, "rb") as stream:
        head = stream.read(512)
    if _is_page(head):
        return "it is a web page, not the file"
    try:
        if name.endswith(".zip") or (name.endswith(".pth") and head.startswith(b"PK")):
            with zipfile.ZipFile(path) as archive:
                if min((member.header_offset for member in archive.infolist()), default=0):
                    return "something stands before its first part"
                broken = archive.testzip()
                return f"its part `{broken}` is damaged" if broken else ""
        if name.endswith(".tgz"):
            with gzip.open(path) as packed:
                while packed.read(PIECE):
                    pass
        elif name.endswith(".pth") and not head.startswith(b"\x80"):
            return "it is not a file of PyTorch weights"
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error, RuntimeError) as error:
        return f"it is damaged or cut off ({error})"
    return ""


def _is_page(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html", b"<?xml", b"<head"))


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256.json")


def _recorded(path: Path) -> str:
    """Return the SHA-256 that was written down when the file first came, or nothing."""
    record = _record_path(path)
    try:
        text = record.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the record of a file's hash cannot be read: {error}", record, "Delete it to trust the next download.") from error
    with contextlib.suppress(ValueError, TypeError, KeyError):
        value = json.loads(text)["sha256"]
        if re.fullmatch("[0-9a-f]{64}", value):
            return str(value)
    raise DataError("the record of a file's hash is damaged", record, "Delete it to trust the next download.")


def _note(path: Path, facts: _Facts, origin: str) -> None:
    about = {"file": path.name, "size": facts.size, "sha256": facts.sha256, "from": origin}
    with whole_file(_record_path(path)) as temporary:
        temporary.write_text(json.dumps({**about, "on": time.strftime("%Y-%m-%d", time.gmtime())}, indent=1) + "\n", encoding="utf-8")


def _kept(entry: Source, place: Path) -> tuple[Path | None, list[str]]:
    """Return the entry's file in `place` if it is there and right, and what is wrong with those that are there and are not."""
    faults = []
    for file in dict.fromkeys(copy.file for copy in entry.copies):
        path = place / file
        if not path.is_file():
            continue
        copy = next(copy for copy in entry.copies if copy.file == file)  # copies of one name are the same file
        with _reading(path):
            facts, recorded = _facts(path), _recorded(path)
            unproven = not (copy.published or recorded)
            fault = _fault(copy, facts, recorded) or (_unsound(path, file) if unproven else "")
        if not fault:
            if unproven:
                with contextlib.suppress(StorageError):  # a folder that a course shares may be there to be read only
                    _note_first(path, copy, facts, "found in the folder")
            return path, []
        faults.append(f"{path}: {fault}")
    return None, faults


def _finished(copy: Copy, part: Path, place: Path, origin: str) -> Path:
    """Give a file that has come its name, if it is right; else raise `_Unfit`."""
    path = place / copy.file
    facts, recorded = _facts(part), _recorded(path)
    if fault := _fault(copy, facts, recorded):
        trusted = recorded and facts.sha256 != recorded and not _fault(copy, facts)
        raise _Unfit(f"{fault} (delete {_record_path(path).name} if you trust the new file)" if trusted else fault)
    if not (copy.published or recorded) and (fault := _unsound(part, copy.file)):
        raise _Unfit(fault)
    with _writing(path):
        with open(part, "rb+") as stream:  # Windows flushes only what may be written
            os.fsync(stream.fileno())
        os.replace(part, path)
    if copy.published:
        _note(path, facts, origin)
    elif not recorded:
        _note_first(path, copy, facts, origin)
    return path


def _note_first(path: Path, copy: Copy, facts: _Facts, origin: str) -> None:
    """Write down the hash of a file for which nobody published a whole one, and say so."""
    known = "nobody published a hash of this file, so its content was compared with nothing"
    if copy.sha256:
        known = f"only the first {len(copy.sha256)} digits of its SHA-256 were published, and they fit"
    kept = f"{_record_path(path).name} keeps it, and from now on it is required"
    _say(f"{path.name}: {known}. Its SHA-256 is {facts.sha256}; {kept}.")
    _note(path, facts, origin)


def _adopted(entry: Source, place: Path, given: Path) -> Path:
    """Check a file that the user has, and return its copy in `place`."""
    todo = f"It should be one of: {', '.join(dict.fromkeys(copy.file for copy in entry.copies))}."
    path = _given_file(entry, given) or given
    if not path.is_file():
        raise DataError(f"this folder does not hold `{entry.name}`" if path.is_dir() else "there is no such file", given, todo)
    alike = [copy for copy in entry.copies if Path(copy.file).suffix == path.suffix]
    copy = next((copy for copy in alike if copy.file == path.name), alike[0] if alike else None)
    if copy is None:
        raise DataError(f"a file of this kind cannot be `{entry.name}`", path, todo)
    target = place / copy.file
    if target.is_file() and target.samefile(path):
        ready, faults = _kept(entry, place)
        if ready != target:
            raise DataError("; ".join(faults), path, todo)
        return target
    temporary = target.with_name(f".{target.name}.given")
    try:
        with _writing(temporary):
            shutil.copyfile(path, temporary)
        return _finished(copy, temporary, place, "a file given by hand")
    except _Unfit as error:
        raise DataError(str(error), path, todo) from error
    finally:
        temporary.unlink(missing_ok=True)


def _given_file(entry: Source, given: Path) -> Path | None:
    """Return the file of this entry that the user named, or that lies in the folder that the user named."""
    files = dict.fromkeys(copy.file for copy in entry.copies)
    if given.is_dir():
        return next((given / file for file in files if (given / file).is_file()), None)
    return given if given.name in files else None


# --- One place: bring the bytes ------------------------------------------------------------------------------------


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _obtained(entry: Source, copy: Copy, place: Path, progress: bool) -> Path:
    """Fetch one copy, check it, and return it under its name."""
    part = _part(place / copy.file)
    resumed = part.exists()
    while True:
        with _writing(part):  # errors of the network do not get this far
            (_from_drive if copy.drive else _from_web)(copy, part, progress)
        try:
            path = _finished(copy, part, place, copy.address)
        except _Unfit:
            _discard(part)
            if not resumed:
                raise
            resumed = False  # what an earlier call had left may be at fault: once more, from the first byte
            continue
        for other in entry.copies:
            _discard(_part(place / other.file))
        return path


def _discard(part: Path) -> None:
    for path in (part, _state_path(part)):
        path.unlink(missing_ok=True)
    shutil.rmtree(_nest(part), ignore_errors=True)


def _from_web(copy: Copy, part: Path, progress: bool) -> None:
    """Bring all bytes of an address to `part`; go on after breaks, with pauses, up to `TRIES` times without a gain."""
    tries = 0
    while True:
        before, pause = _size(part), 0.0
        try:
            return _request(copy, part, progress)
        except StorageError:
            raise
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:
                _discard(part)
            elif error.code not in _AGAIN:
                raise _Unfit(f"HTTP {error.code} {error.reason}") from error
            reason, silent, pause = f"HTTP {error.code} {error.reason}", False, _retry_after(error.headers)
        except (OSError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise _Unfit(f"its certificate is not valid: {cause.verify_message}") from error
            if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
                raise _Unfit("there is no machine of this name, or no network") from error
            silent = isinstance(cause, TimeoutError)
            reason = f"no answer within {TIMEOUT:g} seconds" if silent else f"{cause}" or type(cause).__name__
        gained = _size(part) - before
        tries = 1 if gained >= PIECE else tries + 1
        if tries >= TRIES or (silent and gained <= 0):
            raise _Unfit(reason)
        _pause(tries, pause)


def _request(copy: Copy, part: Path, progress: bool) -> None:
    """Make one request and write what comes; `part` and the small file beside it allow the next request to go on."""
    have, state = _size(part), _state(part)
    mine = state.get("url") == copy.url
    total = copy.size if copy.size is not None else state.get("total") if mine else None
    if have and have == total:
        return
    # Bytes go on only if it is sure that they belong together: the server says so, or a published hash will.
    if not (have and ((mine and state.get("validator")) or copy.published)):
        have = 0
    headers = {"User-Agent": f"divcolor_lib/{__version__} (+{REPOSITORY})", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if mine and state.get("validator"):
            headers["If-Range"] = state["validator"]
    with _opener().open(urllib.request.Request(copy.url, headers=headers), timeout=TIMEOUT) as response:
        start, total = _extent(response, have)
        etag = response.headers.get("ETag", "")
        if start and ((mine and etag and state.get("etag") and etag != state["etag"]) or (mine and total != state.get("total", total))):
            _discard(part)
            raise ConnectionError("the file there has changed since the first part came")
        if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
            raise _Unfit("a web page came instead of the file")
        if total is not None and copy.size is not None and total != copy.size:
            raise _Unfit(f"the file there has {total} bytes, not {copy.size}")
        if (total or 0) > LARGEST:
            raise _Unfit(f"the file there has {total} bytes, more than anything this course needs")
        if not start:
            _discard(part)
            strong = etag if not etag.startswith("W/") else ""
            fresh = {"url": copy.url, "etag": etag, "validator": strong or response.headers.get("Last-Modified", ""), "total": total}
            with whole_file(_state_path(part)) as temporary:
                temporary.write_text(json.dumps(fresh), encoding="utf-8")
        _check_space(part, (total or 0) - start)
        _pour(response, part, start, total, progress, copy.file)


def _extent(response: http.client.HTTPResponse, asked: int) -> tuple[int, int | None]:
    """Return at which byte the answer starts, and how long the whole file is, if the server says so."""
    if response.status == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isascii() and length.isdigit() else None
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if response.status != 206 or not match or int(match[1]) != asked:
        raise _Unfit(f"HTTP {response.status} instead of the file")
    return asked, None if match[3] == "*" else int(match[3])


def _pour(response: http.client.HTTPResponse, part: Path, start: int, total: int | None, progress: bool, name: str) -> None:
    """Write the body of an answer to `part`, from byte `start` on, and make sure that all of it came."""
    done, mark, clock = start, start, time.monotonic()
    bar = tqdm(total=total, initial=start, desc=name, unit="B", unit_scale=True, disable=not progress)
    with contextlib.closing(bar), _opened(part, "ab" if start else "wb") as stream:
        while piece := response.read1(PIECE):
            if done == 0 and _is_page(piece[:512]):
                raise _Unfit("a web page came instead of the file")
            done += len(piece)
            if done > (LARGEST if total is None else total):
                raise _Unfit(f"more bytes came than the {total or LARGEST} that were to come")
            with _writing(part):
                stream.write(piece)
            bar.update(len(piece))
            if time.monotonic() - clock > TIMEOUT:
                if done - mark < SLOWEST * TIMEOUT:
                    raise TimeoutError
                mark, clock = done, time.monotonic()
    if total is not None and done != total:
        raise ConnectionError(f"the transfer broke off after {done} of {total} bytes")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but never from an encrypted address to another kind."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise _Unfit("it leads on to an address that is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_Redirects)


def _from_drive(copy: Copy, part: Path, progress: bool) -> None:
    """Bring a file of Google Drive to `part` by gdown, version 5.2 or 6."""
    if part.exists():
        return  # complete, but an interruption came before the check
    try:
        import gdown
    except ImportError as error:
        raise _Unfit("gdown is not installed; `pip install gdown` helps") from error
    # gdown takes any file whose name begins like the target's for its own beginning of it: give it a folder of its own.
    nest = _nest(part)
    nest.mkdir(exist_ok=True)
    target = nest / copy.file
    settings: dict[str, Any] = {"quiet": not progress, "resume": True, "use_cookies": False}
    if "timeout" in inspect.signature(gdown.download).parameters:  # gdown 5 has none, and waits
        settings["timeout"] = TIMEOUT
    tries = 0
    while True:
        beginnings = sorted(nest.glob("*.part"), key=_size)
        for shorter in beginnings[:-1]:
            shorter.unlink()
        before = _size(beginnings[-1]) if beginnings else 0
        hopeless, refused, reason = False, False, "gdown returned without the file"
        try:
            gdown.download(id=copy.drive, output=str(target), **settings)
        except Exception as error:  # requests' errors, gdown's own, and those of a page that gdown did not expect
            if isinstance(error, OSError) and error.errno in _DISK:
                raise
            status = getattr(getattr(error, "response", None), "status_code", None)
            hopeless = type(error).__name__ == "FileURLRetrievalError" or (status is not None and status not in _AGAIN)
            refused = not isinstance(error, OSError)
            reason = " ".join(f"{type(error).__name__}: {error}".split())
        if target.is_file():
            os.replace(target, part)
            shutil.rmtree(nest, ignore_errors=True)
            return
        gained = max(map(_size, nest.glob("*.part")), default=0) - before
        tries = 1 if gained >= PIECE else tries + 1
        if hopeless or tries >= TRIES:
            raise _Unfit(reason)
        if refused and gained <= 0:  # a beginning that gdown cannot go on with must not stop every later attempt
            shutil.rmtree(nest, ignore_errors=True)
            nest.mkdir(exist_ok=True)
        _pause(tries)


def _nest(part: Path) -> Path:
    return part.with_name(f"{part.name}.gdown")


def _state_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _state(part: Path) -> dict[str, Any]:
    try:
        state = json.loads(_state_path(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _retry_after(headers: Message | None) -> float:
    value = str(headers.get("Retry-After", "")) if headers is not None else ""
    return float(value) if value.isascii() and value.isdigit() else 0.0


def _pause(tries: int, wanted: float = 0.0) -> None:
    time.sleep(min(max(wanted, BACKOFF * 2 ** (tries - 1) * random.uniform(0.75, 1.25)), 60.0))


# --- One writer at a time ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(place: Path, entry: Source) -> Iterator[None]:
    """Hold the lock of one entry in one folder, among processes and threads; wait while another holds it.

    It is the system's own lock on an open file. It ends with the process that holds it, however that ends, so a file that a
    killed process left behind locks nothing.
    """
    path, waited = place / f".{entry.name}.lock", 0.0
    with _opened(path, "a+b") as stream:
        while not _lock(stream):
            if not waited:
                stream.seek(0)
                holder = stream.read(20).decode("ascii", "replace").strip() or "unknown"
                _say(f"{entry.name}: another process (number {holder}) is at it; waiting for its end")
            if waited >= LONGEST_WAIT:
                raise DownloadError(f"another process has been at `{entry.name}` for {waited / 60:.0f} minutes", path, "End it first.")
            time.sleep(0.2)
            waited += 0.2
        try:
            with _writing(path):
                stream.truncate(0)
                stream.write(f"{os.getpid()}\n".encode())
                stream.flush()
            yield
        finally:
            _unlock(stream)


def _lock(stream: BinaryIO) -> bool:
    """Try to lock an open file; a file system that knows no locks counts as locked, with a warning."""
    try:
        if sys.platform == "win32":
            import msvcrt

            stream.seek(1 << 30)
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        warnings.warn(f"this folder cannot be locked ({error}): let one notebook fetch at a time", stacklevel=2)
    return True


def _unlock(stream: BinaryIO) -> None:
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            import msvcrt

            stream.seek(1 << 30)
            msvcrt.locking(stream.fileno(), msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream.fileno(), fcntl.LOCK_UN)


# --- Archives ------------------------------------------------------------------------------------------------------


class _Member(NamedTuple):
    name: str
    is_folder: bool
    open: Callable[[], IO[bytes]]


class _Budget:
    """Counts what comes out of an archive, and stops what swells."""

    def __init__(self, archive: Path, most_bytes: int) -> None:
        self.archive, self.files, self.bytes = archive, 0, 0
        try:
            packed = archive.stat().st_size
        except OSError as error:
            raise DataError(f"there is no such archive: {error.strerror}", archive, "Check the path.") from error
        self.most_bytes = min(most_bytes, max(10**7, MOST_RATIO * packed))

    def count(self, files: int = 0, size: int = 0) -> None:
        self.files += files
        self.bytes += size
        if self.files > MOST_FILES or self.bytes > self.most_bytes:
            found = f"more than {MOST_FILES} files" if self.files > MOST_FILES else f"more than {self.most_bytes} bytes"
            raise DataError(f"{found} come out of the archive: it may be made to fill the disk", self.archive, "Do not use it.")


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _refused(archive, info.filename, "is a link or a device")
                if info.flag_bits & 1:
                    raise _refused(archive, info.filename, "is encrypted")
                yield _Member(info.filename, info.is_dir(), lambda info=info: packed.open(info))  # type: ignore[misc]
        return
    try:
        bundle = tarfile.open(archive)  # noqa: SIM115 - closed below, by `with`
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(
            "this is neither a .zip nor a .tar archive", archive, "Fetch it again; a web page may have come in its place."
        ) from error
    with bundle:
        for entry in bundle:
            if not (entry.isreg() or entry.isdir()):
                raise _refused(archive, entry.name, "is a link or a device")
            yield _Member(entry.name, entry.isdir(), lambda entry=entry: _tar_stream(bundle, entry))  # type: ignore[misc]


def _tar_stream(bundle: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    stream = bundle.extractfile(entry)
    assert stream is not None
    return stream


def _unpack_member(member: _Member, folder: Path, budget: _Budget) -> None:
    parts = _safe_parts(member.name, budget.archive)
    budget.count(files=1)
    target = folder.joinpath(*parts)
    try:
        with _writing(target, but=(FileExistsError, NotADirectoryError)):
            (target if member.is_folder else target.parent).mkdir(parents=True, exist_ok=True)
            if member.is_folder:
                return
            out = open(target, "xb")  # noqa: SIM115 - closed by the next line
        with out, member.open() as packed:
            while piece := packed.read(PIECE):
                budget.count(size=len(piece))
                with _writing(target):
                    out.write(piece)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise _refused(budget.archive, member.name, "is there twice") from error


def _safe_parts(name: str, archive: Path) -> list[str]:
    r"""Return the parts of a member's path, or refuse it. `\` separates as `/` does: on some systems it would."""
    text = name.replace("\\", "/")
    if text.startswith("/") or re.match("[A-Za-z]:", text):
        raise _refused(archive, name, "has an absolute path")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _refused(archive, name, "leads out of the folder")
    return parts


def _refused(archive: Path, name: str, why: str) -> DataError:
    return DataError(f"the archive's member {name[:200]!r} {why}, so nothing was unpacked", archive, "Do not use this archive.")


def _count_faces(folder: Path) -> int:
    """Count the pictures `<Person>/<Person>_NNNN.jpg` in a folder and below."""
    found = 0
    for root, _, files in os.walk(folder):
        person = os.path.basename(root)
        found += sum(1 for file in files if (match := _LFW_NAME.fullmatch(file)) and match["person"] == person)
    return found


def _check_faces(folder: Path) -> None:
    found = _count_faces(folder)
    if not found:
        raise DataError("this archive holds no faces in the layout of LFW", "<Person>/<Person>_0001.jpg", "Use another archive.")
    if found != _LFW_COUNT:
        warnings.warn(f"{found} photographs came out of the archive; LFW has {_LFW_COUNT}", stacklevel=2)


# --- Small helpers -------------------------------------------------------------------------------------------------


def _entry(name: str) -> Source:
    for entry in SOURCES:
        if entry.name == name:
            return entry
    raise ConfigError(f"there is no `{name}` to fetch", "download", f"Use one of {', '.join(entry.name for entry in SOURCES)}.")


def _place(folder: str | Path | None) -> Path:
    return default_folder() if folder is None else Path(folder).expanduser()


def _by_hand(entry: Source, place: Path) -> str:
    addresses = " or ".join(dict.fromkeys(copy.address for copy in entry.copies))
    return (
        f"fetch it by hand (a browser may succeed where a program does not) from {addresses}, "
        f"then: python -m divcolor_lib download {entry.name} --from THE_FILE --to {shlex.quote(str(place))}"
    )


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def _opened(path: Path, mode: str) -> BinaryIO:
    with _writing(path):
        return open(path, mode)  # type: ignore[return-value]


@contextlib.contextmanager
def _writing(path: Path, but: tuple[type[OSError], ...] = ()) -> Iterator[None]:
    """Turn an `OSError` of this block into a `StorageError`, all but those of the kinds `but`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, (StorageError, *but)):
            raise
        raise StorageError(
            f"cannot write the file: {error.strerror or error}",
            path,
            "Free some space or choose a folder that you may write to; what was complete is untouched, and what has come so far is kept.",
        ) from error


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the file cannot be read: {error.strerror or error}", path, "Look at its permissions, or fetch it again."
        ) from error


def _check_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise StorageError(
            f"{needed} more bytes are to come, but {free} are free", part.parent, "Free some space, or choose another folder."
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
