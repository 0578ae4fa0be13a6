"""Processes that are killed on purpose, and what must hold afterwards.

`Workshop` starts one process that imports the library once and then does each job in a child of its own; the child dies at the
`Moment` that it is given. A `Job` is called again and again in the same folder until it comes to its end. What it leaves there
must be what it leaves without any kill (`contents`); and whatever lies there under a name of its own in between must be whole
(`check_whole`).

The moments are drawn at random. `KILL_SEED=...` in the environment draws those of a run that failed once more; its seed stands in
the message. A time is not hit as exactly as an operation or a byte.
"""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from divcolor_lib import data, download, features, train
from divcolor_lib.cvae import CVAE
from divcolor_lib.train import read_tensors, write_tensors
from tests import test_train as toys

ROOT = Path(__file__).resolve().parents[1]
SEED = int(os.environ.get("KILL_SEED", time.time_ns() % 10**9))
#: What differs between two runs without a kill, too: times, memory, the state of the repository; and on whose word a hash was noted.
VOLATILE = {"seconds", "images a second", "peak memory, bytes", "commit", "on", "from"}


# --- jobs: each does its work in a folder, and does what is left of it when it is called again ---


def fit_a_toy(folder: Path, _: str) -> None:
    toy = toys.Toy()
    history = train.fit(toy, toys.toy_source(), toys.TOY, folder=folder / "run", progress=False)
    write_tensors(folder / "result.safetensors", toy.module.state_dict(), {"history": asdict(history)})


def all_stages(folder: Path, _: str) -> None:
    train.IN_MEMORY = 0  # the MDN's features lie on the disk
    toys.run(toys.tiny(save_every=1), folder / "run")


def command(folder: Path, _: str) -> int:
    import divcolor_lib.__main__ as cli

    os.chdir(folder)
    cli.PORTRAIT_COUNTS = {"train": 24, "val": 4, "test": 4}
    cli.RECIPES["portraits"] = toys.tiny(save_every=1)
    options = "--profile cpu --precision fp32 --snapshot-every 5 --out my.safetensors"
    return cli.main(["train", "--recipe", "portraits", *options.split()])


def cache(folder: Path, _: str) -> None:
    photos = data.load(folder / "photos", size=48)
    write_tensors(folder / "result.safetensors", {"images": photos.images}, {"names": photos.names})


def table_on_disk(folder: Path, _: str) -> None:
    torch.manual_seed(0)
    cvae = CVAE.build(toys.tiny().cvae)
    batches = [toys.TRAINING.batch(torch.arange(10))] * 20
    into = features.on_disk(folder / "table.features", (200, *cvae.feature_shape))
    found, mu, _logvar = features.code_table(cvae, batches, into=into)
    write_tensors(folder / "result.safetensors", {"features": found, "mu": mu}, {})


def fetched(folder: Path, url: str) -> None:
    kept = download.Copy("thing.zip", url=url)
    download.SOURCES = (download.Source("thing", "A thing", "trying", "small", (kept,), "None.", "nobody"),)
    download.fetch_folder("thing", folder, progress=False)


def checkpoints(folder: Path, _: str) -> None:
    for generation in range(6):
        tensors = {"a": torch.full((500_000,), float(generation)), "b": torch.tensor(generation)}
        write_tensors(folder / "c.safetensors", tensors, {"generation": generation})


JOBS: dict[str, Callable[[Path, str], int | None]] = {
    "fit": fit_a_toy,
    "stages": all_stages,
    "command": command,
    "cache": cache,
    "features": table_on_disk,
    "download": fetched,
    "checkpoint": checkpoints,
}


def prepare(job: str, folder: Path) -> None:
    """Make what the job finds in its folder."""
    folder.mkdir(parents=True)
    if job == "cache":
        (folder / "photos").mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
        for number, coarse in enumerate(pixels):
            Image.fromarray(coarse).resize((60, 60)).save(folder / "photos" / f"{number}.png")
    if job == "checkpoint":
        checkpoints(folder, "")


# --- the thing to download, and a server that takes its time ---


def packed() -> bytes:
    """A .zip of 60 files with noise in them, always the same bytes."""
    stream, noise = io.BytesIO(), np.random.default_rng(1)
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(60):
            archive.writestr(zipfile.ZipInfo(f"{number % 7}/{number}.bin"), noise.bytes(9000))
    return stream.getvalue()


@contextlib.contextmanager
def slow_server(content: bytes) -> Iterator[tuple[str, list[int]]]:
    """Yield an address of `content` that gives it in small pieces, from any byte on, and the bytes at which requests began."""
    starts: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(wanted[1]) if wanted else 0
            starts.append(start)
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("ETag", '"one"')
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                for position in range(start, len(content), 8192):
                    self.wfile.write(content[position : position + 8192])
                    time.sleep(0.001)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/thing.zip", starts
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# --- moments ---


@dataclass(frozen=True)
class Moment:
    """When a child dies.

    * `never`: it lives, and its file operations are counted;
    * `time`: after so many seconds;
    * `operation`: right before so many file operations were done (opening for writing, renaming, removing, making a folder);
    * `byte`: when a file is about to grow beyond so many bytes, in the middle of a write;
    * `appearance`: as soon as somebody sees so many temporary files appear.
    """

    kind: str = "never"
    at: float = 0
    signal: int = int(signal.SIGKILL)


@dataclass(frozen=True)
class Uncut:
    """What is known of a job from its run without a kill."""

    seconds: float
    operations: int
    largest: int
    contents: dict[str, Any] = field(repr=False)

    def moment(self, chance: random.Random, kind: str) -> Moment:
        """Draw a moment of this kind."""
        match kind:
            case "time":
                return Moment(kind, chance.uniform(0, self.seconds))
            case "operation":
                return Moment(kind, chance.randint(1, self.operations))
            case "byte":
                return Moment(kind, chance.randrange(4096, self.largest))
        return Moment(kind, chance.randint(1, max(1, self.operations // 4)))


KINDS = ("operation", "byte", "appearance", "time")


# --- the process in which jobs run and die ---


class Workshop:
    """A process that does jobs in children, one after the other."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1", "no_proxy": "*"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.kills"], cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def do(self, job: str, folder: Path, log: Path, moment: Moment = Moment(), url: str = "") -> dict[str, Any]:
        """Do a job until its end or the moment; return `status` (as `subprocess` counts), `seconds` and `operations`."""
        assert self.process.stdin is not None and self.process.stdout is not None
        order = {"job": job, "folder": str(folder), "log": str(log), "moment": asdict(moment), "url": url}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def serve() -> None:
    """Read orders, one on a line; answer each with a line when its child has ended."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        count, counted = os.pipe()
        child = os.fork()
        if child == 0:
            _obey(order, counted)
        os.close(counted)
        began = time.monotonic()
        status = _watched(child, Path(order["folder"]), Moment(**order["moment"]))
        seconds = time.monotonic() - began
        with open(count, "rb") as stream:
            operations = int(stream.read() or 0)
        print(json.dumps({"status": status, "seconds": seconds, "operations": operations}), flush=True)


def _watched(child: int, folder: Path, moment: Moment) -> int:
    """Wait for the end of a child, and bring it about at a `time` or an `appearance`."""
    began, seen = time.monotonic(), set[str]()
    outside = moment.kind in ("time", "appearance")
    while outside:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if moment.kind == "appearance":
            seen |= {name for _, _, names in os.walk(folder) for name in names if name.endswith((".part", ".features"))}
        if (time.monotonic() - began if moment.kind == "time" else len(seen)) >= moment.at:
            os.kill(child, moment.signal)
            break
        time.sleep(0.0002)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _obey(order: dict[str, Any], counted: int) -> None:
    """Do the job, in the child."""
    code = 1
    try:
        with open(order["log"], "w", encoding="utf-8") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)  # what was buffered for the other one is not ours to say
        moment, count = Moment(**order["moment"]), _counting(order["folder"], Moment(**order["moment"]))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests in the background may have it ignored
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if moment.kind == "byte":
            import resource

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(moment.at), int(moment.at)))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # the kernel ends the process, as by SIGKILL: no line of Python runs
        code = JOBS[order["job"]](Path(order["folder"]), order["url"]) or 0
        os.write(counted, str(count[0]).encode())
    except KeyboardInterrupt:  # what a command does not catch: `command` tells of it and returns this code itself
        code = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _counting(folder: str, moment: Moment) -> list[int]:
    """Count the file operations in a folder from now on, and die before the one of the moment."""
    count = [0]
    watched = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate"}

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in watched or isinstance(arguments[0], int):
            return
        if not os.fsdecode(arguments[0]).startswith(folder):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        count[0] += 1
        if moment.kind == "operation" and count[0] == moment.at:
            signal.raise_signal(moment.signal)

    sys.addaudithook(hear)
    return count


# --- what must hold ---


def contents(folder: Path) -> dict[str, Any]:
    """Return every file below a folder, but for locks, with what it says; times are left out."""
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock"}
    return {name: _said(path) for name, path in found.items()}


def _said(path: Path) -> Any:
    if path.suffix == ".safetensors":
        tensors, facts = read_tensors(path)
        return {**{name: (str(value.dtype), value.shape, value.numpy().tobytes()) for name, value in tensors.items()}, "": _timeless(facts)}
    return _timeless(json.loads(path.read_text(encoding="utf-8"))) if path.suffix == ".json" else path.read_bytes()


def _timeless(told: Any) -> Any:
    if isinstance(told, dict):
        return {key: _timeless(value) for key, value in told.items() if key not in VOLATILE}
    return [_timeless(value) for value in told] if isinstance(told, list) else told


def check_whole(folder: Path, uncut: dict[str, Any]) -> None:
    """Whatever lies there under a name of its own was read without an error, is one that the job leaves, and pictures are complete."""
    for name, said in contents_of_names(folder).items():
        if name.endswith(".features"):  # nobody ever reads one
            continue
        assert name in uncut, f"{name} is nothing that the job leaves"
        if not name.endswith((".safetensors", ".json")):
            assert said == uncut[name], f"{name} is not whole"


def contents_of_names(folder: Path) -> dict[str, Any]:
    """Return the contents of files that are not hidden, nor in a hidden folder; but those of the cache's folder."""
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    shown = [name for name in names if not any(part.startswith(".") and part != data.CACHE_FOLDER for part in name.parts)]
    return {str(name): _said(folder / name) for name in shown}


class Lives:
    """A job, what it leaves without a kill, and its lives with kills in them."""

    def __init__(self, workshop: Workshop, job: str, base: Path, url: str = "") -> None:
        self.workshop, self.job, self.base, self.url = workshop, job, base, url
        self.chance = random.Random(f"{SEED} {job}")
        self.told: list[str] = []  # what the last life printed before each of its deaths
        self.work, self.template, self.log = base / "work", base / "template", base / "log.txt"
        prepare(job, self.template)
        self._begin()
        done = self._do(Moment())
        self.uncut = Uncut(done["seconds"], done["operations"], self._largest(), contents(self.work))
        assert done["status"] == 0, self.log.read_text()

    def live(self, *moments: Moment) -> int:
        """Begin anew, die at each of these moments, then come to the end; check all that must hold; return how often it died."""
        self._begin()
        died, self.told = 0, []
        for moment in moments:
            status = self._do(moment)["status"]
            about = f"KILL_SEED={SEED}: {self.job}, {moments}, at {moment}, status {status}: {self.log.read_text()}"
            died_of = {-moment.signal, -signal.SIGXFSZ} if moment.signal == signal.SIGKILL else {128 + moment.signal}
            assert status in {0, *died_of}, about
            self.told.append(self.log.read_text())
            assert "Traceback" not in self.told[-1], about
            died += status != 0
            try:
                check_whole(self.work, self.uncut.contents)
            except Exception as error:
                raise AssertionError(about) from error
        status = self._do(Moment())["status"]
        about = f"KILL_SEED={SEED}: {self.job}, {moments}: {self.log.read_text()}"
        assert status == 0, about
        found = contents(self.work)
        assert found.keys() == self.uncut.contents.keys(), about
        different = [name for name in found if found[name] != self.uncut.contents[name]]
        assert not different, f"other bits in {different}; {about}"
        return died

    def die(self, kinds: Sequence[str], kills: int, at_once: int = 1) -> int:
        """Live until so many kills hit; draw up to `at_once` moments for each life; return the number of lives."""
        lives = 0
        while kills > 0:
            count = min(kills, self.chance.randint(1, at_once))
            kills -= self.live(*(self.uncut.moment(self.chance, self.chance.choice(kinds)) for _ in range(count)))
            lives += 1
        return lives

    def _begin(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.template, self.work)  # the times of the files too: the cache asks for them

    def _do(self, moment: Moment) -> dict[str, Any]:
        return self.workshop.do(self.job, self.work, self.log, moment, self.url)

    def _largest(self) -> int:
        return max(path.stat().st_size for path in self.work.rglob("*") if path.is_file())


if __name__ == "__main__":
    serve()
