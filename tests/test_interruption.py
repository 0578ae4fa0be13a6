"""Killed, interrupted, told to end, disconnected: whatever it is called, the same call goes on, and the result has the same bits.

A few kills at random moments; `make soak` makes a hundred. A failure prints `KILL_SEED=...`; with that in the environment the same
moments are drawn again.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jupyter_client.manager import KernelManager

import divcolor_lib.__main__ as cli
from divcolor_lib import download, runtime, train
from divcolor_lib.errors import TrainingPaused, whole_file
from divcolor_lib.train import fit, read_tensors
from tests import kills
from tests import test_train as toys
from tests.kills import Lives, Moment, Workshop

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked, and signals are those of POSIX")


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Lives]]:
    """Jobs that can be killed; each is done once without a kill."""
    made: dict[str, Lives] = {}
    workshop = Workshop()

    with kills.slow_server(kills.packed()) as (url, _):

        def of(job: str) -> Lives:
            if job not in made:
                made[job] = Lives(workshop, job, tmp_path_factory.mktemp(job), url)
            return made[job]

        yield of
        workshop.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the toy that nobody disturbed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    fit(toys.Toy(), toys.toy_source(), toys.TOY, folder=folder, progress=False)
    torch.set_num_threads(before)
    return folder


@pytest.fixture(autouse=True)
def one_thread_and_usual_signals() -> Iterator[None]:
    """Tests that run in the background may have inherited that SIGINT is ignored."""
    threads, handler = torch.get_num_threads(), signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, handler)


# --- SIGKILL ---


@pytest.mark.timeout(900)  # seconds on an idle machine; a busy one may give us a tenth of a processor
@pytest.mark.parametrize(
    ("job", "kinds"),
    [
        ("fit", ["operation"]),
        ("fit", ["byte"]),
        ("stages", ["operation", "byte"]),
        ("command", ["operation", "byte"]),
        ("cache", ["operation", "byte"]),
        ("features", ["operation", "byte"]),
        ("download", ["byte", "time"]),
        ("checkpoint", ["appearance", "time"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_killed_at_a_random_moment_it_goes_on_and_ends_with_the_same_bits(
    job: str, kinds: list[str], lives: Callable[[str], Lives]
) -> None:
    assert lives(job).die(kinds, kills=1)


@pytest.mark.parametrize("from_the_end", [1, 2])
def test_killed_at_the_last_moves_of_a_run(from_the_end: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two files of the last save: afterwards no step is left that would write them once more."""
    config = replace(toys.TOY, validate_every=toys.TOY.steps)  # so the best weights change with the last step
    fit(toys.Toy(), toys.toy_source(), config, folder=tmp_path / "whole", progress=False)
    move, moves = os.replace, 0
    saves = -(-config.steps // config.save_every)

    def counted(source: Any, target: Any) -> None:
        nonlocal moves
        moves += 1
        if moves > 2 * saves - from_the_end:
            raise toys.Killed
        move(source, target)

    with monkeypatch.context() as patch, pytest.raises(toys.Killed):
        patch.setattr(os, "replace", counted)
        fit(toys.Toy(), toys.toy_source(), config, folder=tmp_path / "killed", progress=False)
    fit(toys.Toy(), toys.toy_source(), config, folder=tmp_path / "killed", progress=False)
    toys.assert_same_run(tmp_path / "whole", tmp_path / "killed")


# --- what killed writers leave ---


def test_what_a_killed_writer_left_is_removed_by_the_next_one_of_that_file(tmp_path: Path) -> None:
    for name in (".a.json.abc_1234.part", ".a.json.b.json.abcd1234.part", ".b.json.abcd1234.part", ".a.json.part"):
        (tmp_path / name).write_text("half")
    with whole_file(tmp_path / "a.json") as temporary:
        temporary.write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", ".a.json.b.json.abcd1234.part", ".b.json.abcd1234.part", ".a.json.part"}


def test_two_writers_of_one_file_leave_each_other_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with whole_file(path) as first:
        first.write_text("first")
        with whole_file(path) as second:
            second.write_text("second")
        assert path.read_text() == "second" and first.read_text() == "first"
    assert path.read_text() == "first" and os.listdir(tmp_path) == ["a.json"]


def test_a_download_that_is_complete_is_freed_of_what_others_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"size": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    copies = (download.Copy("a.bin", url="http://127.0.0.1:9/a", **known), download.Copy("b.zip", url="http://127.0.0.1:9/b"))  # type: ignore[arg-type]
    monkeypatch.setattr(download, "SOURCES", (download.Source("thing", "A thing", "trying", "small", copies, "None.", "nobody"),))
    (tmp_path / "a.bin").write_bytes(b"abc")
    left = (".a.bin.part", ".a.bin.part.json", ".b.zip.part", ".a.bin.given", ".a.bin.sha256.json.x_1.part", "..b.zip.part.json.x_1.part")
    for name in (*left, ".c.bin.part", "b.zip.part"):
        (tmp_path / name).write_text("half")
    (tmp_path / ".b.zip.part.gdown").mkdir()
    assert download.fetch("thing", tmp_path) == tmp_path / "a.bin"
    assert {path.name for path in tmp_path.iterdir()} == {"a.bin", ".c.bin.part", "b.zip.part", ".thing.lock"}


# --- somebody stops it ---


def stopping_at(step: int, *signals: int) -> Callable[[int, Any], None]:
    def on_step(now: int, _: Any) -> None:
        if now == step:
            for number in signals:
                signal.raise_signal(number)

    return on_step


def test_a_stop_waits_for_the_step_and_the_checkpoint(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        fit(toys.Toy(), toys.toy_source(), toys.TOY, folder=tmp_path, progress=False, on_step=stopping_at(7, signal.SIGINT))
    assert capsys.readouterr().err == "model: stopped at step 7 of 23 and saved; the same call goes on from there\n"
    assert read_tensors(tmp_path / "model.last.safetensors")[1]["step"] == 7
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    resumed = toys.Toy()
    fit(resumed, toys.toy_source(), toys.TOY, folder=tmp_path, progress=False)
    assert resumed.calls == toys.TOY.steps - 7
    toys.assert_same_run(whole, tmp_path)


def test_a_second_stop_does_not_wait(whole: Path, tmp_path: Path) -> None:
    stop = stopping_at(7, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(toys.Toy(), toys.toy_source(), toys.TOY, folder=tmp_path, progress=False, on_step=stop)
    assert read_tensors(tmp_path / "model.last.safetensors")[1]["step"] == 6
    fit(toys.Toy(), toys.toy_source(), toys.TOY, folder=tmp_path, progress=False)
    toys.assert_same_run(whole, tmp_path)


def test_without_a_folder_there_is_nothing_to_wait_for() -> None:
    toy = toys.Toy()
    with pytest.raises(KeyboardInterrupt):
        fit(toy, toys.toy_source(), toys.TOY, progress=False, on_step=stopping_at(7, signal.SIGINT))
    assert toy.calls == 7


def test_a_stop_in_the_last_step_loses_nothing(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(toys.Toy(), toys.toy_source(), toys.TOY, folder=tmp_path, progress=False, on_step=stopping_at(23, signal.SIGINT))
    toys.assert_same_run(whole, tmp_path)


def test_a_handler_that_does_not_end_the_program_still_gets_no_half_trained_network(whole: Path, tmp_path: Path) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(read_tensors(tmp_path / "model.last.safetensors")[1]["step"]))
    try:
        with pytest.raises(TrainingPaused, match="stopped at step 7 of 23"):
            fit(toys.Toy(), toys.toy_source(), toys.TOY, folder=tmp_path, progress=False, on_step=stopping_at(7, signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [7]
    fit(toys.Toy(), toys.toy_source(), toys.TOY, folder=tmp_path, progress=False)
    toys.assert_same_run(whole, tmp_path)


def test_what_is_ignored_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        history = fit(toys.Toy(), toys.toy_source(), toys.TOY, folder=tmp_path, progress=False, on_step=stopping_at(7, signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert history.steps == toys.TOY.steps


def test_a_thread_trains_without_handlers(whole: Path, tmp_path: Path) -> None:
    toy = toys.Toy()
    thread = threading.Thread(target=lambda: fit(toy, toys.toy_source(), toys.TOY, folder=tmp_path, progress=False))
    thread.start()
    thread.join()
    toys.assert_same_run(whole, tmp_path)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("number", "said"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "told to end")])
def test_a_command_that_is_stopped_says_one_plain_thing_and_goes_on(number: int, said: str, lives: Callable[[str], Lives]) -> None:
    job = lives("command")
    at = job.chance.randint(2, job.uncut.operations)
    assert job.live(Moment("operation", at, number)) == 1
    told = job.told[0]
    assert f"\n{said}; run the same command again to go on" in told and "Traceback" not in told, f"KILL_SEED={kills.SEED}: {told}"


@pytest.mark.parametrize("job", ["cache", "features", "download"])
def test_the_stop_button_in_the_midst_of_other_work_is_no_harm(job: str, lives: Callable[[str], Lives]) -> None:
    chosen = lives(job)
    chosen.live(Moment("operation", chosen.chance.randint(1, chosen.uncut.operations), signal.SIGINT))
    chosen.live(Moment("time", chosen.chance.uniform(0, chosen.uncut.seconds), signal.SIGINT))


def test_the_stop_button_of_a_notebook(whole: Path, tmp_path: Path) -> None:
    """In a real kernel: the cell is interrupted in the midst of training, run again, and arrives at the same bits."""
    cell = f"""
import os, sys, time
sys.path.insert(0, {str(kills.ROOT)!r})
import torch; torch.set_num_threads(1)
from dataclasses import replace
from pathlib import Path
from tests import test_train as toys
def wait(step, module):
    print(step, flush=True); time.sleep(0.02 * SLOWLY)
toys.fit(toys.Toy(), toys.toy_source(), toys.TOY, folder=Path({str(tmp_path)!r}), progress=False, on_step=wait)
"""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env={**os.environ, "OMP_NUM_THREADS": "1"})
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        sent = client.execute(f"SLOWLY = 1\n{cell}")
        while "5\n" not in client.get_iopub_msg(timeout=120)["content"].get("text", ""):
            pass
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=120)
        while reply["parent_header"].get("msg_id") != sent:
            reply = client.get_shell_msg(timeout=120)
        assert (reply["content"]["status"], reply["content"].get("ename")) == ("error", "KeyboardInterrupt")
        step = read_tensors(tmp_path / "model.last.safetensors")[1]["step"]
        assert 5 <= step < toys.TOY.steps
        again = client.execute_interactive(f"SLOWLY = 0\n{cell}", timeout=120, output_hook=lambda _: None)
        assert again["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    toys.assert_same_run(whole, tmp_path)


# --- Colab: the Drive ---


def test_runs_go_to_the_drive_if_it_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted = tmp_path / "MyDrive"
    assert runtime.runs_folder(mounted) is None
    mounted.mkdir()
    assert runtime.runs_folder(mounted) == mounted / "divcolor" / "runs"
    monkeypatch.setenv("DIVCOLOR_RUNS", str(tmp_path / "mine"))
    assert runtime.runs_folder(mounted) == runtime.runs_folder(tmp_path / "none") == tmp_path / "mine"


def test_what_lies_on_the_drive(tmp_path: Path) -> None:
    drive = tmp_path / "MyDrive"
    (drive / "a").mkdir(parents=True)
    (tmp_path / "link").symlink_to(drive / "a")
    assert all(runtime.on_drive(folder, drive) for folder in (drive, drive / "a" / "not yet", tmp_path / "link" / "b"))
    assert not any(runtime.on_drive(folder, drive) for folder in (tmp_path, tmp_path / "MyDrive2", Path("runs")))


def test_the_command_keeps_its_checkpoints_there_and_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stop(Exception):
        pass

    def stop(*arguments: Any, **_: Any) -> None:
        assert arguments[4] == folder
        raise Stop

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "PORTRAIT_COUNTS", {"train": 24, "val": 4, "test": 4})
    monkeypatch.setattr(cli, "train_colorizer", stop)
    monkeypatch.setitem(cli.RECIPES, "portraits", toys.tiny())
    (tmp_path / "MyDrive").mkdir()
    for mounted, folder in ((tmp_path / "MyDrive", tmp_path / "MyDrive" / "divcolor" / "runs" / "my"), (tmp_path / "no", Path("runs/my"))):
        monkeypatch.setattr(cli, "runs_folder", lambda mounted=mounted: runtime.runs_folder(mounted))
        with pytest.raises(Stop):
            cli.main(["train", "--profile", "cpu", "--out", "my.safetensors"])
        assert capsys.readouterr().err == (f"checkpoints: {folder}\n" if folder.is_absolute() else "")
        assert folder.is_dir()


def test_a_drive_is_spared_and_loses_at_most_some_minutes(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bin keeps each checkpoint that was replaced. Here each look at the clock is a minute later than the one before."""
    minutes, saved = iter(range(10**6)), []
    write = train._Run._write
    monkeypatch.setattr(train.time, "monotonic", lambda: 60.0 * next(minutes))
    monkeypatch.setattr(train._Run, "_write", lambda run, *rest: (saved.append(run.step), write(run, *rest))[1])
    for folder in ("drive", "disk"):
        monkeypatch.setattr(train, "on_drive", lambda place: place.name == "drive")
        saved.clear()
        fit(toys.Toy(), toys.toy_source(), toys.TOY, folder=tmp_path / folder, progress=False)
        assert saved == {"drive": [15, 23], "disk": [3, 6, 9, 12, 15, 18, 21, 23]}[folder]
    toys.assert_same_run(whole, tmp_path / "drive")
    saved.clear()
    with pytest.raises(KeyboardInterrupt):
        fit(toys.Toy(), toys.toy_source(), toys.TOY, folder=tmp_path / "a" / "drive", progress=False, on_step=stopping_at(7, signal.SIGINT))
    assert saved == [7]
