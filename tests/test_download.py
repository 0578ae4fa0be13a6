"""Downloads against a server on this machine that misbehaves on request; archives that attack; the table of sources."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.server
import inspect
import io
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
import types
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request

import gdown
import pytest
import requests

from book._tools import sources as page
from divcolor_lib import data, download
from divcolor_lib.download import Copy, Source, fetch, fetch_folder, lfw, unpack
from divcolor_lib.errors import ConfigError, DataError, DownloadError, StorageError
from divcolor_lib.features import ZHANG_FILE

ROOT = Path(__file__).resolve().parents[1]
CONTENT = bytes(range(256)) * 1200  # 307,200 bytes
OTHER = bytes(reversed(CONTENT))
HALF = len(CONTENT) // 2


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# --- A server that misbehaves on request ---


@dataclass
class Thing:
    """What the server has under one path, and how it gives it."""

    content: bytes = CONTENT
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})
    ranges: bool = True
    careless: bool = False  # gives a range also when If-Range names another version
    says: int | None = None  # the Content-Length that it states
    cut: list[int] = field(default_factory=list)  # after how many bytes of the body the first answers break off
    reset: bool = False  # break off with a reset of the connection
    before: Callable[[], Any] = lambda: None  # done before the first byte
    crumbs: bool = False  # gives one byte at a time, slowly
    chunked: bool = False


class Site:
    """A server on 127.0.0.1. `log` has one line for each request: path, Range, If-Range, bytes that were given."""

    def __init__(self) -> None:
        self.things: dict[str, Thing] = {}
        self.log: list[dict[str, Any]] = []
        self.over = threading.Event()
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):
                    site.answer(self)
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/{path}"

    def asked(self, path: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["path"] == path]

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = request.path.lstrip("/").split("?")[0]
        wanted = request.headers.get("Range")
        line = {"path": path, "range": wanted, "if": request.headers.get("If-Range"), "given": 0}
        self.log.append(line)
        thing = self.things.get(path, Thing(b"", 404))
        thing.before()
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and thing.ranges else 0  # type: ignore[index]
        if (
            line["if"] is not None
            and not thing.careless
            and line["if"] not in (thing.headers.get("ETag"), thing.headers.get("Last-Modified"))
        ):
            start = 0
        if start >= len(thing.content) > 0:
            request.send_response(416)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = thing.content[start:]
        request.send_response(206 if start and thing.status == 200 else thing.status)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(thing.content) - 1}/{len(thing.content)}")
        for name, value in thing.headers.items():
            request.send_header(name, value)
        if thing.chunked:
            request.send_header("Transfer-Encoding", "chunked")
        else:
            request.send_header("Content-Length", str(len(body) if thing.says is None else thing.says))
        request.end_headers()
        broken = thing.cut.pop(0) if thing.cut else None
        body = body if broken is None else body[:broken]
        line["given"] = len(body)
        if thing.crumbs:
            for position in range(len(body)):
                request.wfile.write(body[position : position + 1])
                if self.over.wait(0.05):
                    return
        elif thing.chunked:
            request.wfile.write(b"%x\r\n%s\r\n" % (len(body), body) + (b"" if broken is not None else b"0\r\n\r\n"))
        else:
            request.wfile.write(body)
        if broken is not None and thing.reset:
            time.sleep(0.05)  # what was given shall arrive before the reset
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.connection.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Site]:
    site = Site()
    yield site
    site.over.set()
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture
def site(server: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    server.things.clear()
    server.log.clear()
    for name, value in {"TIMEOUT": 20.0, "BACKOFF": 0.01, "TRIES": 3}.items():
        monkeypatch.setattr(download, name, value)
    monkeypatch.setenv("no_proxy", "*")
    return server


Table = Callable[..., None]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    """Put one source, `thing`, into the table."""

    def put(*copies: Copy, name: str = "thing") -> None:
        entry = Source(name, "A thing", "trying", "small", copies, "None.", "nobody")
        others = [kept for kept in download.SOURCES if kept.name != name]
        monkeypatch.setattr(download, "SOURCES", (entry, *others))

    return put


def copy(site: Site, path: str, content: bytes | None = CONTENT, file: str = "thing.bin", **facts: Any) -> Copy:
    """One place of the test server; with `content`, its size and hash are published."""
    known: dict[str, Any] = {} if content is None else {"size": len(content), "sha256": sha256(content)}
    return Copy(file, url=site.url(path), **{**known, **facts})


def get(folder: Path, **settings: Any) -> Path:
    return fetch("thing", folder, progress=False, **settings)


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".thing.lock"}


# --- A good download, and one that stays good ---


def test_a_file_comes_whole_with_its_hash_written_down(site: Site, table: Table, tmp_path: Path) -> None:
    site.things["a"] = Thing()
    table(copy(site, "a"))
    path = get(tmp_path / "new" / "folder")
    assert path.read_bytes() == CONTENT and left(path.parent) == {"thing.bin", "thing.bin.sha256.json"}
    note = json.loads((path.parent / "thing.bin.sha256.json").read_text(encoding="utf-8"))
    assert note["sha256"] == sha256(CONTENT) and note["size"] == len(CONTENT) and note["from"] == site.url("a")


def test_a_second_call_reads_the_file_and_asks_no_server(site: Site, table: Table, tmp_path: Path) -> None:
    site.things["a"] = Thing()
    table(copy(site, "a"))
    assert get(tmp_path) == get(tmp_path) and len(site.log) == 1


@pytest.mark.parametrize("name", ["a b", "thư mục Việt", "1%20#?", "naïve ☃"])
def test_folders_may_have_any_name(name: str, site: Site, table: Table, tmp_path: Path) -> None:
    site.things["a"] = Thing()
    table(copy(site, "a"))
    assert get(tmp_path / name).read_bytes() == CONTENT


def test_a_damaged_file_is_noticed_and_fetched_again(site: Site, table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.things["a"] = Thing()
    table(copy(site, "a"))
    path = get(tmp_path)
    path.write_bytes(flipped(CONTENT, 1000))
    assert get(tmp_path).read_bytes() == CONTENT and len(site.log) == 2
    assert "damaged or altered" in capsys.readouterr().err


def test_chunked_answers_and_answers_without_a_length_are_taken(site: Site, table: Table, tmp_path: Path) -> None:
    site.things["a"] = Thing(chunked=True)
    table(copy(site, "a"))
    assert get(tmp_path).read_bytes() == CONTENT


def test_a_redirection_is_followed_also_when_going_on(site: Site, table: Table, tmp_path: Path) -> None:
    site.things["a"] = Thing(b"", 302, {"Location": "/b"})
    site.things["b"] = Thing(cut=[HALF])
    table(copy(site, "a"))
    assert get(tmp_path).read_bytes() == CONTENT
    assert [line["range"] for line in site.asked("b")] == [None, f"bytes={HALF}-"]


def test_a_redirection_never_leaves_encryption() -> None:
    with pytest.raises(download._Unfit, match="not encrypted"):
        download._Redirects().redirect_request(Request("https://a.org"), io.BytesIO(), 302, "", http.client.HTTPMessage(), "http://b.org")


# --- One place fails: the next one is asked ---

PAGE = b"<!DOCTYPE html><html><body>Too many requests</body></html>"
#: what the first place does: (how, what is said of it, how often it is asked)
FAILURES: dict[str, tuple[Callable[[], Thing], str, int]] = {
    "forbidden": (lambda: Thing(b"", 403), "HTTP 403", 1),
    "not there": (lambda: Thing(b"", 404), "HTTP 404", 1),
    "gone": (lambda: Thing(b"", 410), "HTTP 410", 1),
    "an empty answer": (lambda: Thing(b"", 202), "HTTP 202", 1),
    "a page that says so": (lambda: Thing(PAGE, headers={"Content-Type": "text/html; charset=utf-8"}), "web page", 1),
    "a page that does not say so": (lambda: Thing(PAGE, headers={"Content-Type": "application/zip"}, says=len(CONTENT)), "web page", 1),
    "another size": (lambda: Thing(CONTENT + b"x"), "the file there has 307201 bytes, not 307200", 1),
    "another content": (lambda: Thing(OTHER), "its SHA-256 is", 1),
    "busy": (lambda: Thing(b"", 503, {"Retry-After": "0"}), "HTTP 503", 3),
    "too many requests": (lambda: Thing(b"", 429), "HTTP 429", 3),
    "silence": (lambda: Thing(before=lambda: time.sleep(1.5)), "no answer within 0.7 seconds", 1),
    "crumbs": (lambda: Thing(crumbs=True), "no answer within 0.7 seconds", 3),
    "breaks off at once, always": (lambda: Thing(cut=[0, 0, 0]), "broke off after 0 of 307200 bytes", 3),
    "resets the connection": (lambda: Thing(cut=[0, 0, 0], reset=True), "reset|broke off", 3),
    "another range than asked": (lambda: Thing(status=206, headers={"Content-Range": "bytes 5-9/10"}), "HTTP 206", 1),
}


@pytest.mark.parametrize("how", FAILURES)
def test_a_place_that_fails_makes_room_for_the_next(
    how: str, site: Site, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, said, times = FAILURES[how]
    if "no answer" in said:
        monkeypatch.setattr(download, "TIMEOUT", 0.7)
    site.things["bad"], site.things["good"] = make(), Thing()
    table(copy(site, "bad"), copy(site, "good"))
    assert get(tmp_path).read_bytes() == CONTENT
    assert re.search(said, capsys.readouterr().err)
    assert len(site.asked("bad")) == times and len(site.asked("good")) == 1
    assert left(tmp_path) == {"thing.bin", "thing.bin.sha256.json"}


def test_a_place_that_refuses_connections_is_passed_over(site: Site, table: Table, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    site.things["good"] = Thing()
    table(Copy("thing.bin", url=f"http://127.0.0.1:{port}/a", sha256=sha256(CONTENT)), copy(site, "good"))
    assert get(tmp_path).read_bytes() == CONTENT


def test_a_busy_place_is_asked_again_later(site: Site, table: Table, tmp_path: Path) -> None:
    site.things["a"] = thing = Thing(b"", 503)

    def recover() -> None:
        if len(site.log) == 2:
            thing.content, thing.status = CONTENT, 200

    thing.before = recover
    table(copy(site, "a"))
    assert get(tmp_path).read_bytes() == CONTENT and len(site.log) == 2


def test_pauses_grow_and_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    for tries in (1, 2, 3, 20):
        download._pause(tries)
    download._pause(1, wanted=7.0)
    download._pause(1, wanted=86400.0)
    assert 0.75 <= slept[0] <= 1.25 and 1.5 <= slept[1] <= 2.5 and 3 <= slept[2] <= 5
    assert slept[3:] == [60.0, 7.0, 60.0]


def test_when_all_places_fail_the_message_names_each_with_its_reason_and_what_to_do(site: Site, table: Table, tmp_path: Path) -> None:
    site.things["a"], site.things["b"] = Thing(b"", 403), Thing(OTHER)
    table(copy(site, "a"), copy(site, "b"), copy(site, "c"))
    with pytest.raises(DownloadError) as caught:
        get(tmp_path)
    message = str(caught.value)
    for path, reason in {"a": "HTTP 403", "b": "its SHA-256 is", "c": "HTTP 404"}.items():
        assert f"{site.url(path)}: {reason}" in message
    assert f"python -m divcolor_lib download thing --from THE_FILE --to {tmp_path}" in message and str(tmp_path) in message
    assert left(tmp_path) == set()


# --- Going on after a break ---


@pytest.mark.parametrize("reset", [False, True])
def test_a_broken_transfer_goes_on_and_fetches_no_byte_twice(reset: bool, site: Site, table: Table, tmp_path: Path) -> None:
    site.things["a"] = Thing(cut=[HALF, 1000], reset=reset)
    table(copy(site, "a"))
    assert get(tmp_path).read_bytes() == CONTENT
    assert [line["range"] for line in site.log] == [None, f"bytes={HALF}-", f"bytes={HALF + 1000}-"]
    assert {line["if"] for line in site.log[1:]} == {'"one"'}
    assert sum(line["given"] for line in site.log) == len(CONTENT)


def test_a_later_call_goes_on_where_the_earlier_one_had_to_stop(site: Site, table: Table, tmp_path: Path) -> None:
    site.things["a"] = Thing(cut=[HALF, 0, 0])
    table(copy(site, "a"))
    with pytest.raises(DownloadError, match=f"broke off after {HALF}"):
        get(tmp_path)
    assert not (tmp_path / "thing.bin").exists()
    assert get(tmp_path).read_bytes() == CONTENT
    assert site.log[-1]["range"] == f"bytes={HALF}-" and sum(line["given"] for line in site.log) == len(CONTENT)


def test_the_next_place_goes_on_with_what_the_first_one_gave_if_the_hash_is_known(site: Site, table: Table, tmp_path: Path) -> None:
    site.things["a"], site.things["b"] = Thing(cut=[HALF, 0, 0]), Thing(headers={})
    table(copy(site, "a"), copy(site, "b"))
    assert get(tmp_path).read_bytes() == CONTENT
    assert site.asked("b")[0]["range"] == f"bytes={HALF}-" and site.asked("b")[0]["if"] is None


def test_without_a_hash_the_next_place_starts_anew(site: Site, table: Table, tmp_path: Path) -> None:
    site.things["a"], site.things["b"] = Thing(cut=[HALF, 0, 0]), Thing()
    table(copy(site, "a", None), copy(site, "b", None))
    assert get(tmp_path).read_bytes() == CONTENT and site.asked("b")[0]["range"] is None


def test_a_server_that_knows_no_ranges_starts_anew(site: Site, table: Table, tmp_path: Path) -> None:
    site.things["a"] = Thing(cut=[HALF], ranges=False)
    table(copy(site, "a"))
    assert get(tmp_path).read_bytes() == CONTENT and site.log[1]["range"] == f"bytes={HALF}-"


def test_a_server_without_a_mark_for_its_version_is_not_asked_for_a_range_unless_a_hash_is_known(
    site: Site, table: Table, tmp_path: Path
) -> None:
    site.things["a"] = Thing(cut=[HALF], headers={"ETag": 'W/"weak"'})
    table(copy(site, "a", None))
    assert get(tmp_path).read_bytes() == CONTENT and [line["range"] for line in site.log] == [None, None]


def test_a_date_serves_as_a_mark(site: Site, table: Table, tmp_path: Path) -> None:
    date = "Sat, 18 Nov 2023 12:47:20 GMT"
    site.things["a"] = Thing(cut=[HALF], headers={"Last-Modified": date})
    table(copy(site, "a", None))
    assert get(tmp_path).read_bytes() == CONTENT and site.log[1]["if"] == date


@pytest.mark.parametrize("careless", [False, True])
def test_a_file_that_changed_in_between_is_not_glued_to_the_old_part(careless: bool, site: Site, table: Table, tmp_path: Path) -> None:
    site.things["a"] = thing = Thing(cut=[HALF], careless=careless)

    def change() -> None:
        if len(site.log) == 2:
            thing.content, thing.headers = OTHER, {"ETag": '"two"'}

    thing.before = change
    table(copy(site, "a", None))
    assert get(tmp_path).read_bytes() == OTHER
    assert [line["range"] for line in site.log] == [None, f"bytes={HALF}-", *[None] * careless]


def test_an_end_between_two_versions_never_leaves_the_old_part_under_the_new_mark(
    site: Site, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.things["a"] = thing = Thing(cut=[HALF, 0, 0])
    table(copy(site, "a", None))
    with pytest.raises(DownloadError):
        get(tmp_path)
    thing.content, thing.headers = OTHER, {"ETag": '"two"'}

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(download, "_pour", killed)
        get(tmp_path)
    assert get(tmp_path).read_bytes() == OTHER


def test_a_left_over_part_of_another_file_costs_one_more_transfer_and_no_more(site: Site, table: Table, tmp_path: Path) -> None:
    (tmp_path / ".thing.bin.part").write_bytes(OTHER[:HALF])
    site.things["a"] = Thing()
    table(copy(site, "a"))
    assert get(tmp_path).read_bytes() == CONTENT
    assert [line["range"] for line in site.log] == [f"bytes={HALF}-", None]


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 5])
def test_a_part_that_is_complete_or_too_long_is_checked_not_trusted(size: int, site: Site, table: Table, tmp_path: Path) -> None:
    (tmp_path / ".thing.bin.part").write_bytes((CONTENT + b"12345")[:size])
    site.things["a"] = Thing()
    table(copy(site, "a"))
    assert get(tmp_path).read_bytes() == CONTENT and len(site.log) == (0 if size == len(CONTENT) else 2)


def test_a_damaged_note_beside_a_part_is_no_more_than_a_fresh_start(site: Site, table: Table, tmp_path: Path) -> None:
    (tmp_path / ".thing.bin.part").write_bytes(CONTENT[:HALF])
    site.things["a"] = Thing()
    table(copy(site, "a", None))
    for text in ("{", "[]", '"x"', "null"):
        (tmp_path / ".thing.bin.part.json").write_text(text, encoding="utf-8")
        assert get(tmp_path).read_bytes() == CONTENT and site.log[-1]["range"] is None


# --- Files of which no hash is known ---


def test_the_first_download_says_that_nothing_was_compared_and_the_second_requires_its_hash(
    site: Site, table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.things["a"] = Thing()
    table(copy(site, "a", None))
    path = get(tmp_path)
    said = capsys.readouterr().err
    assert "compared with nothing" in said and sha256(CONTENT) in said
    get(tmp_path)
    assert capsys.readouterr().err == ""
    path.unlink()
    site.things["a"] = Thing(OTHER)
    with pytest.raises(DownloadError, match=f"at the first download it was {sha256(CONTENT)}.*delete thing.bin.sha256.json"):
        get(tmp_path)
    (tmp_path / "thing.bin.sha256.json").unlink()
    assert get(tmp_path).read_bytes() == OTHER


def test_an_altered_file_is_fetched_again_and_must_have_the_first_hash(site: Site, table: Table, tmp_path: Path) -> None:
    site.things["a"] = Thing()
    table(copy(site, "a", None))
    get(tmp_path).write_bytes(OTHER)
    assert get(tmp_path).read_bytes() == CONTENT and len(site.log) == 2


def test_the_beginning_of_a_hash_is_required_and_the_rest_is_written_down(
    site: Site, table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.things["a"], site.things["b"] = Thing(OTHER), Thing()
    table(*[copy(site, path, None, sha256=sha256(CONTENT)[:8]) for path in "ab"])
    assert get(tmp_path).read_bytes() == CONTENT
    assert "only the first 8 digits" in capsys.readouterr().err
    assert json.loads((tmp_path / "thing.bin.sha256.json").read_text(encoding="utf-8"))["sha256"] == sha256(CONTENT)


def test_an_md5_is_enough_to_know_a_file(site: Site, table: Table, tmp_path: Path) -> None:
    site.things["a"], site.things["b"] = Thing(OTHER), Thing()
    table(*[copy(site, path, None, md5=hashlib.md5(CONTENT).hexdigest()) for path in "ab"])
    assert get(tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"sha256": 5}', '{"sha256": "abc"}', "null", "\xff"])
def test_a_damaged_record_is_named_and_never_taken_for_none(text: str, site: Site, table: Table, tmp_path: Path) -> None:
    site.things["a"] = Thing()
    table(copy(site, "a", None))
    get(tmp_path)
    (tmp_path / "thing.bin.sha256.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"thing\.bin\.sha256\.json") as caught:
        get(tmp_path)
    assert "Delete it" in caught.value.todo


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def zipped(*names: str, content: bytes = b"abc" * 500) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(*names: str, mode: str = "w:gz", content: bytes = b"abc" * 500) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("thing.zip", zipped("a")[:-30]),
        ("thing.zip", flipped(zipped("a"), 34)),
        ("thing.zip", b"12345" + zipped("a")),
        ("thing.zip", b"no archive at all"),
        ("thing.tgz", tarred("a")[:-20]),
        ("thing.tgz", b"no archive at all"),
        ("thing.pth", zipped("archive/data.pkl")[:-30]),
        ("thing.pth", b"no weights at all"),
    ],
    ids=("zip-cut", "zip-flipped", "zip-shifted", "no-zip", "tgz-cut", "no-tgz", "pth-cut", "no-pth"),  # the bytes hold the time of day
)
def test_without_a_hash_an_archive_must_at_least_be_whole(file: str, content: bytes, site: Site, table: Table, tmp_path: Path) -> None:
    site.things["a"] = Thing(content)
    table(copy(site, "a", None, file))
    with pytest.raises(DownloadError, match=r"damaged|before its first part|not a file of PyTorch"):
        get(tmp_path)
    assert left(tmp_path) == set()


# --- A file that the user has ---


def test_a_file_given_by_hand_is_checked_copied_and_used_from_then_on(site: Site, table: Table, tmp_path: Path) -> None:
    table(copy(site, "a"))
    mine = tmp_path / "mine" / "thing.bin"
    mine.parent.mkdir()
    mine.write_bytes(CONTENT)
    path = get(tmp_path / "data", source=mine)
    assert path.read_bytes() == CONTENT and path.parent == tmp_path / "data"
    assert (
        get(tmp_path / "data", source=mine.parent) == path
        and get(tmp_path / "data") == path
        and get(tmp_path / "mine", source=mine) == mine
    )
    assert not site.log and left(tmp_path / "data") == {"thing.bin", "thing.bin.sha256.json"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("thing.bin", OTHER, "its SHA-256 is"),
        ("thing.bin", CONTENT[:-1], "307199 bytes, not 307200"),
        ("thing.zip", CONTENT, "a file of this kind"),
        (None, b"", "there is no such file"),
        ("folder/x.bin", CONTENT, "does not hold"),
    ],
)
def test_a_wrong_file_given_by_hand_is_refused(
    name: str | None, content: bytes, said: str, site: Site, table: Table, tmp_path: Path
) -> None:
    site.things["a"] = Thing()
    table(copy(site, "a"))
    given = tmp_path / (name or "nothing.bin")
    if name:
        given.parent.mkdir(exist_ok=True)
        given.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        get(tmp_path / "data", source=given.parent if name and "/" in name else given)
    assert "thing.bin" in caught.value.todo and not site.log and left(tmp_path / "data") == set()


# --- No network, no disk ---


def test_the_offline_switch_forbids_every_connection(site: Site, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.things["a"] = Thing()
    table(copy(site, "a"))
    get(tmp_path / "full")
    monkeypatch.setenv("DIVCOLOR_OFFLINE", "1")
    assert download.offline()

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    assert get(tmp_path / "full").read_bytes() == CONTENT
    with pytest.raises(DownloadError, match="DIVCOLOR_OFFLINE forbids") as caught:
        get(tmp_path / "empty")
    assert "Unset the variable" in caught.value.todo


@pytest.mark.parametrize(("value", "wanted"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_the_offline_switch_takes_one_and_nought(value: str | None, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is not None:
        monkeypatch.setenv("DIVCOLOR_OFFLINE", value)
    assert download.offline() is wanted


def test_another_value_of_the_offline_switch_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIVCOLOR_OFFLINE", "perhaps")
    with pytest.raises(ConfigError, match="perhaps"):
        download.offline()


class FullDisk:
    """A file that takes so many bytes and no more."""

    def __init__(self, stream: Any, room: int) -> None:
        self.stream, self.room = stream, room

    def write(self, content: bytes) -> int:
        if len(content) > self.room:
            self.stream.write(content[: self.room])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= len(content)
        return int(self.stream.write(content))

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: Any) -> None:
        self.stream.close()


def test_a_full_disk_leaves_the_old_file_and_the_part_and_the_next_call_goes_on(
    site: Site, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.things["a"], site.things["b"] = Thing(), Thing()
    table(copy(site, "a"), copy(site, "b"))
    (tmp_path / "thing.bin").write_bytes(b"an older file")
    plain = download._opened
    with monkeypatch.context() as patch:
        patch.setattr(
            download, "_opened", lambda path, mode: FullDisk(plain(path, mode), HALF) if path.suffix == ".part" else plain(path, mode)
        )
        with pytest.raises(StorageError, match="No space left") as caught:
            get(tmp_path)
    assert "Free some space" in caught.value.todo and not site.asked("b")
    assert (tmp_path / "thing.bin").read_bytes() == b"an older file"
    assert (tmp_path / ".thing.bin.part").read_bytes() == CONTENT[:HALF]
    assert get(tmp_path).read_bytes() == CONTENT and site.log[-1]["range"] == f"bytes={HALF}-"


def test_a_disk_that_is_too_small_is_noticed_before_the_first_byte(
    site: Site, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.things["a"] = Thing()
    table(copy(site, "a"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1000))
    with pytest.raises(StorageError, match="307200 more bytes are to come, but 1000 are free"):
        get(tmp_path)
    assert not (tmp_path / ".thing.bin.part").exists()


def test_a_folder_that_cannot_be_made_is_named_before_anything_is_fetched(site: Site, table: Table, tmp_path: Path) -> None:
    table(copy(site, "a"))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file") as caught:
        get(tmp_path / "file" / "folder")
    assert caught.value.todo and not site.log


@pytest.mark.parametrize("known", [True, False])
def test_a_folder_that_may_only_be_read_serves_what_it_holds(
    known: bool, site: Site, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> Any:
        raise StorageError("no file can be written here", path)

    table(copy(site, "a", CONTENT if known else None))
    (tmp_path / "thing.bin").write_bytes(CONTENT)
    monkeypatch.setattr(download, "check_writable", refuse)
    monkeypatch.setattr(download, "whole_file", refuse)
    assert get(tmp_path) == tmp_path / "thing.bin" and left(tmp_path) == {"thing.bin"} and not site.log


def test_more_bytes_than_anything_needs_are_not_taken(site: Site, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "LARGEST", 1000)
    site.things["a"], site.things["b"] = Thing(), Thing(chunked=True)
    table(copy(site, "a", None), copy(site, "b", None))
    with pytest.raises(DownloadError, match=r"a: the file there has 307200 bytes, more than.*b: more bytes came than"):
        get(tmp_path)
    assert download._size(tmp_path / ".thing.bin.part") <= 1000


# --- One writer at a time ---

#: Importing torch takes seconds, and plays no part here.
ANOTHER = """
import sys, types
sys.modules["torch"] = types.SimpleNamespace(Tensor=None)
from divcolor_lib import download as d
d.SOURCES = (d.Source("thing", "", "", "", (d.Copy("thing.bin", url=sys.argv[1], sha256=sys.argv[3]),), "", ""),)
print(d.fetch("thing", sys.argv[2], progress=False))
"""


def test_of_two_processes_one_fetches_and_the_other_waits_for_it(site: Site, table: Table, tmp_path: Path) -> None:
    released = threading.Event()
    site.things["a"] = Thing(before=lambda: released.wait(60))
    command = [sys.executable, "-c", ANOTHER, site.url("a"), str(tmp_path), sha256(CONTENT)]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]

    def release_when_one_waits(process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            if "waiting for its end" in line:
                released.set()

    readers = [threading.Thread(target=release_when_one_waits, args=(process,)) for process in both]
    for reader in readers:
        reader.start()
    assert [process.wait(60) for process in both] == [0, 0] and released.is_set()
    for reader, process in zip(readers, both):
        reader.join()
        assert process.stdout is not None and process.stdout.read().strip() == str(tmp_path / "thing.bin")
        process.stdout.close()
        process.stderr.close()  # type: ignore[union-attr]
    assert len(site.log) == 1 and (tmp_path / "thing.bin").read_bytes() == CONTENT


HOLDER = """
import fcntl, sys, time
with open(sys.argv[1], "a+b") as stream:
    fcntl.flock(stream, fcntl.LOCK_EX)
    stream.write(b"77")
    stream.flush()
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="holds the lock by fcntl")
def test_the_lock_of_a_killed_process_ends_with_it(site: Site, table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.things["a"] = Thing()
    table(copy(site, "a"))
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / ".thing.lock")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        timer = threading.Timer(0.3, holder.kill)
        timer.start()
        assert get(tmp_path).read_bytes() == CONTENT
        assert holder.wait() != 0
    assert "process (number 77) is at it" in capsys.readouterr().err


def test_a_lock_file_that_was_left_behind_holds_nobody_up(site: Site, table: Table, tmp_path: Path) -> None:
    site.things["a"] = Thing()
    table(copy(site, "a"))
    (tmp_path / ".thing.lock").write_text("999999\n", encoding="ascii")
    assert get(tmp_path).read_bytes() == CONTENT


def test_waiting_has_an_end(site: Site, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(copy(site, "a"))
    monkeypatch.setattr(download, "LONGEST_WAIT", 0.2)
    with download._locked(tmp_path, download.SOURCES[0]), pytest.raises(DownloadError, match="another process has been at `thing`"):
        get(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="breaks fcntl")
def test_a_file_system_without_locks_gives_a_warning(site: Site, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    site.things["a"] = Thing()
    table(copy(site, "a"))
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="cannot be locked"):
        assert get(tmp_path).read_bytes() == CONTENT


# --- Google Drive ---

Step = Callable[[Path], Any]


def good(target: Path) -> str:
    target.write_bytes(CONTENT)
    return str(target)


def failing(error: Exception, beginning: int = 0) -> Step:
    """A call that writes the beginning of the file, as gdown does, and then raises."""

    def step(target: Path) -> Any:
        if beginning:
            parts = list(target.parent.glob("*.part")) or [target.with_name(f"{target.name}abcdefgh.part")]
            with open(parts[0], "ab") as stream:
                stream.write(CONTENT[:beginning])
        raise error

    return step


FIVE = "url=None, output=None, quiet=False, proxy=None, speed=None, use_cookies=True, verify=True, id=None, fuzzy=False, "
FIVE += "resume=False, format=None, user_agent=None, log_messages=None"
SIX = FIVE.replace("fuzzy=False, ", "") + ", progress=None, skip_download=False, cookies_file=None, hasher=None, timeout=None, retries=0, "
SIX += "cancel=None"


class Gdown:
    """Stands in for the module, with the signature of version 5.2 or of 6, and does one step in each call."""

    def __init__(self, version: int, *steps: Step) -> None:
        self.steps, self.calls = list(steps), list[dict[str, Any]]()
        self.download: Callable[..., Any] = eval(f"lambda {FIVE if version == 5 else SIX}: do(locals())", {"do": self.do, "locals": locals})

    def do(self, settings: dict[str, Any]) -> Any:
        target = Path(settings["output"])
        self.calls.append({**settings, "parts": sorted(path.name for path in target.parent.iterdir())})
        return self.steps.pop(0)(target)


class FileURLRetrievalError(Exception):
    pass


class GdownError(Exception):
    pass


GDOWNS = pytest.mark.parametrize("version", [5, 6])


@pytest.fixture
def drive(site: Site, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Gdown]:
    """Install a stand-in for gdown; the source is on Drive first, and then on the server."""

    def install(version: int, *steps: Step, known: bool = True) -> Gdown:
        fake = Gdown(version, *steps)
        monkeypatch.setitem(sys.modules, "gdown", fake)
        table(Copy("thing.bin", drive="ID", sha256=sha256(CONTENT) if known else ""), copy(site, "b", CONTENT if known else None))
        return fake

    site.things["b"] = Thing()
    return install


@GDOWNS
def test_drive_is_asked_in_words_that_both_versions_know(version: int, drive: Callable[..., Gdown], site: Site, tmp_path: Path) -> None:
    fake = drive(version, good)
    assert get(tmp_path).read_bytes() == CONTENT and not site.log
    call = fake.calls[0]
    assert (call["id"], call["resume"], call["quiet"], call["use_cookies"]) == ("ID", True, True, False)
    assert call.get("timeout") == (None if version == 5 else download.TIMEOUT)
    assert left(tmp_path) == {"thing.bin", "thing.bin.sha256.json"}


@GDOWNS
@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (FileURLRetrievalError("Too many users have viewed this file"), 1),
        (requests.exceptions.HTTPError("404 Client Error", response=types.SimpleNamespace(status_code=404)), 1),
        (requests.exceptions.ConnectionError("no route"), 3),
        (GdownError("Download failed after 3 retries"), 3),
        (AssertionError("hash"), 3),
        (KeyError("Content-Disposition"), 3),
    ],
)
def test_when_drive_fails_the_next_place_is_asked(
    version: int, error: Exception, calls: int, drive: Callable[..., Gdown], site: Site, tmp_path: Path, capsys: Any
) -> None:
    fake = drive(version, *[failing(error)] * calls)
    assert get(tmp_path).read_bytes() == CONTENT and len(fake.calls) == calls and len(site.log) == 1
    assert f"drive.google.com/file/d/ID/view: {type(error).__name__}" in capsys.readouterr().err
    assert left(tmp_path) == {"thing.bin", "thing.bin.sha256.json"}


def test_gdown_that_returns_nothing_counts_as_a_failure(drive: Callable[..., Gdown], site: Site, tmp_path: Path) -> None:
    fake = drive(5, *[lambda _: None] * 3)
    assert get(tmp_path).read_bytes() == CONTENT and len(fake.calls) == 3 and len(site.log) == 1


@GDOWNS
def test_gdown_finds_its_own_part_and_no_other_file_when_it_goes_on(version: int, drive: Callable[..., Gdown], tmp_path: Path) -> None:
    (tmp_path / "thing.binary.part").write_bytes(b"not of this file")
    broken = failing(requests.exceptions.ConnectionError("broken"), 1000)
    fake = drive(version, broken, broken, good)
    assert get(tmp_path).read_bytes() == CONTENT
    assert [call["parts"] for call in fake.calls] == [[], ["thing.binabcdefgh.part"], ["thing.binabcdefgh.part"]]


@GDOWNS
def test_a_part_that_gdown_cannot_go_on_with_is_put_aside(version: int, drive: Callable[..., Gdown], tmp_path: Path) -> None:
    broken, refused = failing(requests.exceptions.ConnectionError("broken"), 1000), failing(GdownError("did not honor the range"))
    fake = drive(version, broken, refused, good)
    assert get(tmp_path).read_bytes() == CONTENT and [len(call["parts"]) for call in fake.calls] == [0, 1, 0]


@GDOWNS
def test_of_several_parts_gdown_gets_the_longest(version: int, drive: Callable[..., Gdown], tmp_path: Path) -> None:
    nest = tmp_path / ".thing.bin.part.gdown"
    nest.mkdir()
    (nest / "thing.binaaaaaaaa.part").write_bytes(b"12")
    (nest / "thing.binbbbbbbbb.part").write_bytes(b"123")
    fake = drive(version, good)
    assert get(tmp_path).read_bytes() == CONTENT and fake.calls[0]["parts"] == ["thing.binbbbbbbbb.part"]


@GDOWNS
def test_a_web_page_from_drive_is_not_taken_for_the_file(version: int, drive: Callable[..., Gdown], site: Site, tmp_path: Path) -> None:
    drive(version, lambda target: target.write_bytes(PAGE), known=False)
    assert get(tmp_path).read_bytes() == CONTENT and len(site.log) == 1


@GDOWNS
def test_a_full_disk_while_gdown_writes_is_a_storage_error(version: int, drive: Callable[..., Gdown], site: Site, tmp_path: Path) -> None:
    drive(version, failing(OSError(errno.ENOSPC, "No space left on device"), 1000))
    with pytest.raises(StorageError, match="No space left"):
        get(tmp_path)
    assert not site.log


def test_without_gdown_the_message_says_how_to_get_it(drive: Callable[..., Gdown], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    drive(6)
    monkeypatch.setitem(sys.modules, "gdown", None)
    assert get(tmp_path).read_bytes() == CONTENT and "pip install gdown" in capsys.readouterr().err


# gdown 5.2 leaves its file open when a transfer breaks.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_the_gdown_that_is_installed_takes_our_words_and_goes_on_after_a_break(
    site: Site, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real module; only the address of Google is replaced by the test server's."""
    inspect.signature(gdown.download).bind(id="ID", output="x", quiet=True, resume=True, use_cookies=False)
    headers = {"ETag": '"one"', "Content-Type": "application/zip", "Content-Disposition": 'attachment; filename="data.zip"'}
    content = zipped("a", content=os.urandom(1_200_000))
    site.things["uc"] = Thing(content, headers=headers, cut=[700_000])  # gdown writes pieces of 524,288 bytes
    plain = requests.Session.get

    def here(self: requests.Session, url: str, **settings: Any) -> requests.Response:
        return plain(self, url.replace("https://drive.google.com/uc", site.url("uc")), **settings)

    monkeypatch.setattr(requests.Session, "get", here)
    table(Copy("thing.zip", drive="ID"))
    assert get(tmp_path).read_bytes() == content
    assert "bytes=524288-" in [line["range"] for line in site.log] and left(tmp_path) == {"thing.zip", "thing.zip.sha256.json"}


# --- Archives ---


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", zipped("top/one.txt", "top/deep/two.txt", "top/Two.txt", "top/two.txt")),
        ("a.tgz", tarred("top/one.txt", "./top/deep/two.txt", "top/Two.txt", "top/two.txt")),
        ("a.tar", tarred("top/one.txt", "top/deep/two.txt", "top/Two.txt", "top/two.txt", mode="w")),
        ("no-suffix", tarred("top/one.txt", "top/deep/two.txt", "top/Two.txt", "top/two.txt", mode="w:xz")),
    ],
)
def test_an_archive_is_unpacked_whole(name: str, content: bytes, tmp_path: Path) -> None:
    folder = unpack(put(tmp_path, name, content), tmp_path / "out")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"top/one.txt", "top/deep/two.txt", "top/Two.txt", "top/two.txt"}
    assert (folder / "top" / "one.txt").read_bytes() == b"abc" * 500
    assert {path.name for path in tmp_path.iterdir()} == {name, "out"}


def tar_entry(name: str, kind: bytes, **attributes: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        first = tarfile.TarInfo("first.txt")
        first.size = 3
        archive.addfile(first, io.BytesIO(b"abc"))
        info = tarfile.TarInfo(name)
        info.type = kind
        for attribute, value in attributes.items():
            setattr(info, attribute, value)
        archive.addfile(info)
    return buffer.getvalue()


def zip_entry(name: str, mode: int = 0o100644, content: bytes = b"abc", flags: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("first.txt", b"abc")
        info = zipfile.ZipInfo("placeholder")
        info.filename = name  # as it is: the constructor would mend it
        info.external_attr = mode << 16
        archive.writestr(info, content)
    packed = bytearray(buffer.getvalue())
    if flags:  # in the directory at the end, two bytes at offset 8 of the second entry
        packed[packed.rindex(b"PK\x01\x02") + 8] |= flags
    return bytes(packed)


def doubled(kind: str) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zipped("a", "a") if kind == "zip" else tarred("a", "a")


ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "tar, symbolic link": (lambda: tar_entry("x", tarfile.SYMTYPE, linkname="../../etc/passwd"), "link or a device"),
    "tar, hard link": (lambda: tar_entry("x", tarfile.LNKTYPE, linkname="first.txt"), "link or a device"),
    "tar, device": (lambda: tar_entry("x", tarfile.CHRTYPE), "link or a device"),
    "tar, pipe": (lambda: tar_entry("x", tarfile.FIFOTYPE), "link or a device"),
    "tar, absolute": (lambda: tarred("first.txt", "/tmp-of-nobody/x"), "absolute path"),
    "tar, above": (lambda: tarred("first.txt", "a/../../x"), "leads out"),
    "tar, twice": (lambda: doubled("tar"), "is there twice"),
    "tar, file used as a folder": (lambda: tarred("a", "a/b"), "is there twice"),
    "tar, folder used as a file": (lambda: tarred("a/b", "a"), "is there twice"),
    "tar, bomb": (lambda: tarred("first.txt", "big", content=bytes(12 * 10**6)), "fill the disk"),
    "tar, cut off": (lambda: tarred("a", "b", content=os.urandom(50_000))[:-30_000], "damaged"),
    "zip, symbolic link": (lambda: zip_entry("x", 0o120777, b"/etc/passwd"), "link or a device"),
    "zip, device": (lambda: zip_entry("x", 0o020666), "link or a device"),
    "zip, absolute": (lambda: zip_entry("/tmp-of-nobody/x"), "absolute path"),
    "zip, drive": (lambda: zip_entry("C:\\x"), "absolute path"),
    "zip, share": (lambda: zip_entry("\\\\host\\x"), "absolute path"),
    "zip, above": (lambda: zip_entry("../x"), "leads out"),
    "zip, above by backslash": (lambda: zip_entry("a\\..\\..\\x"), "leads out"),
    "zip, encrypted": (lambda: zip_entry("x", flags=1), "is encrypted"),
    "zip, twice": (lambda: doubled("zip"), "is there twice"),
    "zip, bomb": (lambda: zipped("first.txt", "big", content=bytes(12 * 10**6)), "fill the disk"),
    "zip, wrong checksum": (lambda: zip_entry("x").replace(b"abc", b"abd"), "damaged"),
    "zip, cut off": (lambda: zipped("a", "b")[:-40], "neither a .zip nor a .tar"),
    "a page": (lambda: PAGE, "neither a .zip nor a .tar"),
    "empty": (lambda: b"", "neither a .zip nor a .tar"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_archive_that_attacks_is_refused_and_nothing_stays(name: str, tmp_path: Path) -> None:
    make, said = ATTACKS[name]
    (tmp_path / "inner").mkdir()
    archive = put(tmp_path / "inner", "archive", make())
    with pytest.raises(DataError, match=said) as caught:
        unpack(archive, tmp_path / "inner" / "out")
    assert "archive" in str(caught.value) and caught.value.todo
    assert {path.name for path in tmp_path.rglob("*")} == {"inner", "archive"}


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MOST_FILES", 3)
    with pytest.raises(DataError, match="more than 3 files"):
        unpack(put(tmp_path, "a.zip", zipped(*"abcd")), tmp_path / "out")


def test_a_limit_of_bytes_can_be_given(tmp_path: Path) -> None:
    archive = put(tmp_path, "a.zip", zipped("a", "b"))
    with pytest.raises(DataError, match="more than 2000 bytes"):
        unpack(archive, tmp_path / "out", most_bytes=2000)
    assert unpack(archive, tmp_path / "out", most_bytes=3000).is_dir()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    archive = put(tmp_path, "a.zip", zipped("a"))
    (tmp_path / "out").mkdir()
    unpack(archive, tmp_path / "out")
    with pytest.raises(DataError, match="already"):
        unpack(archive, tmp_path / "out")
    with pytest.raises(DataError, match="no such archive"):
        unpack(tmp_path / "nothing.zip", tmp_path / "other")


def test_a_full_disk_while_unpacking_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = put(tmp_path, "a.zip", zipped("a", "b"))
    plain = open
    monkeypatch.setattr(
        "builtins.open", lambda path, mode="r", *rest: FullDisk(plain(path, mode), 100) if "x" in mode else plain(path, mode, *rest)
    )
    with pytest.raises(StorageError, match="No space left"):
        unpack(archive, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip"}


# --- The faces ---


def faces(*people: str) -> bytes:
    return tarred(*[f"lfw-deepfunneled/{person}/{person}_0001.jpg" for person in people])


@pytest.fixture
def face_table(site: Site, table: Table) -> None:
    """The three sets of faces, each at a place of its own on the server that is not there until a test puts it there."""
    for name in ("lfw-original", "lfw-funneled", "lfw-deepfunneled"):
        table(Copy(f"{name}.tgz", url=site.url(name)), name=name)


FEWER = pytest.mark.filterwarnings("ignore:. photographs came out of the archive")


@FEWER
@pytest.mark.usefixtures("face_table")
def test_faces_are_fetched_and_unpacked_once(site: Site, tmp_path: Path) -> None:
    site.things["lfw-deepfunneled"] = Thing(faces("Ann_Lee", "Bo_Wu"))
    folder = lfw(tmp_path, progress=False)
    assert folder == tmp_path / "lfw-deepfunneled" and len(data._list_lfw(folder, data._pictures_under(folder)).files) == 2
    asked = len(site.log)
    (tmp_path / "lfw-deepfunneled.tgz").unlink()
    assert lfw(tmp_path, progress=False) == folder and len(site.log) == asked


@FEWER
@pytest.mark.usefixtures("face_table")
def test_another_alignment_is_taken_with_a_warning_when_the_first_cannot_be_had(site: Site, tmp_path: Path) -> None:
    site.things["lfw-funneled"] = Thing(faces("Ann_Lee"))
    with pytest.warns(UserWarning, match="not the set that the book was measured on"):
        assert lfw(tmp_path, progress=False) == tmp_path / "lfw-funneled"


@pytest.mark.usefixtures("face_table")
def test_when_no_set_of_faces_can_be_had_all_three_are_named(tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        lfw(tmp_path, progress=False)
    assert all(f"`{name}` could not be fetched" in str(caught.value) for name in ("lfw-deepfunneled", "lfw-funneled", "lfw-original"))


@FEWER
@pytest.mark.usefixtures("face_table")
def test_an_archive_of_faces_given_by_hand_is_used_and_a_folder_stays_where_it_is(site: Site, tmp_path: Path) -> None:
    given = put(tmp_path, "lfw-funneled.tgz", faces("Ann_Lee"))
    folder = lfw(tmp_path / "data", given)
    assert folder == tmp_path / "data" / "lfw-funneled" and lfw(tmp_path / "other", folder) == folder
    assert not (tmp_path / "other").exists() and not site.log


@pytest.mark.usefixtures("face_table")
def test_an_archive_without_faces_is_refused_and_unpacks_nothing(tmp_path: Path) -> None:
    given = put(tmp_path, "lfw-deepfunneled.tgz", tarred("cats/tom.jpg"))
    with pytest.raises(DataError, match="no faces"):
        lfw(tmp_path / "data", given)
    assert not (tmp_path / "data" / "lfw-deepfunneled").exists()


@pytest.mark.usefixtures("face_table")
def test_fewer_faces_than_lfw_has_are_noticed(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="1 photographs came out of the archive; LFW has 13233"):
        lfw(tmp_path / "data", put(tmp_path, "lfw-deepfunneled.tgz", faces("Ann_Lee")))


@FEWER
@pytest.mark.usefixtures("face_table")
def test_what_a_killed_unpacking_left_behind_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".lfw-deepfunneled.abc.unpack").mkdir()
    lfw(tmp_path, put(tmp_path, "lfw-deepfunneled.tgz", faces("Ann_Lee")))
    assert not list(tmp_path.glob("*.unpack"))


# --- The table and its page ---


def test_every_entry_of_the_table_can_be_fetched_by_name_and_says_what_it_is() -> None:
    names = [entry.name for entry in download.SOURCES]
    assert len(set(names)) == len(names) and {"lfw-deepfunneled", "reference-data", "zhang", "model-faces"} <= set(names)
    for entry in download.SOURCES:
        assert entry.copies and all((entry.title, entry.use, entry.about, entry.license, entry.citation))
        for place in entry.copies:
            assert bool(place.drive) != bool(place.url) and place.address.startswith("https://")
            assert re.fullmatch("[0-9a-f]{8}|[0-9a-f]{64}|", place.sha256) and re.fullmatch("[0-9a-f]{32}|", place.md5)
            assert "/" not in place.file and not place.file.startswith(".")
        facts = {(place.file, place.size, place.sha256, place.md5) for place in entry.copies}
        assert len({place.file for place in entry.copies}) == len(facts), "two places of one name must have the same file"


def test_the_weights_of_zhang_have_the_name_that_the_network_reads() -> None:
    assert next(entry for entry in download.SOURCES if entry.name == "zhang").copies[0].file == ZHANG_FILE


@pytest.mark.parametrize("name", ["faces", "portraits"])
def test_a_release_has_the_models_that_ship_with_this_version(name: str) -> None:
    content = (ROOT / "divcolor_lib" / "artifacts" / f"{name}.safetensors").read_bytes()
    place = next(entry for entry in download.SOURCES if entry.name == f"model-{name}").copies[0]
    assert (place.size, place.sha256) == (len(content), sha256(content)), "the model changed: write its size and hash into the table"


def test_the_table_names_the_repository_as_the_project_does() -> None:
    assert f'Repository = "{download.REPOSITORY}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_page_in_the_book_is_made_from_the_table() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.render(), "run `python -m book._tools.sources`"
    for entry in download.SOURCES:
        assert all(place.address in page.render() for place in entry.copies) and entry.license in page.render()


def test_a_name_that_is_not_in_the_table_is_an_error_that_lists_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lfw-deepfunneled, lfw-funneled"):
        fetch("celeba", tmp_path)


def test_a_single_file_has_nothing_to_unpack(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to unpack"):
        fetch_folder("zhang", tmp_path)


def test_the_default_folder_follows_the_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME", str(tmp_path))
    assert download.default_folder() == tmp_path / "divcolor"
    monkeypatch.setenv("DIVCOLOR_DATA", "~/faces")
    assert download.default_folder() == Path.home() / "faces"
    monkeypatch.delenv("DIVCOLOR_DATA")
    monkeypatch.delenv("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME")
    assert download.default_folder().name == "divcolor" and download.default_folder().is_absolute()


def test_gdown_is_imported_only_when_drive_is_asked() -> None:
    tree = inspect.getsource(download)
    assert re.search(r"^ +import gdown$", tree, re.MULTILINE) and not re.search(r"^import gdown|^from gdown", tree, re.MULTILINE)
