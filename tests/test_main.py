"""The command line: what it writes, what it prints, and its exit codes. One tiny colorizer is trained for all tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import divcolor_lib
import divcolor_lib.__main__ as cli
from divcolor_lib import download
from divcolor_lib.colorize import Colorizer
from divcolor_lib.cvae import CVAEConfig
from divcolor_lib.data import SPLIT_SEED, face_tone, load, split_by_group, statement, without_single_tint
from divcolor_lib.mdn import MDNConfig
from divcolor_lib.train import FitConfig, Objective, Recipe, read_tensors

ROOT = Path(__file__).resolve().parents[1]
ROWS = ["model", "gray", "mean field", "regression", "k-means 8", "PCA 5 oracle", "PCA 20 oracle"]
COLUMNS = {"eob@1", "eob@5", "eob@8", "eob_pooled@8", "variance@8", "deltaE@8"}
COUNTS = {"train": 24, "val": 6, "test": 10}
OPTIONS = {
    "train": "--recipe --data --out --run --stage --scale --seed --profile --precision --snapshot-every --features --zhang --minutes "
    "--record",
    "evaluate": "--data --split --checkpoint --samples --limit --record --json",
    "colorize": "PHOTO -n --crop --checkpoint --out --grid --seed",
    "data": "folder --json --record",
    "download": "NAME --to --from --list",
}


def tiny(name: str) -> Recipe:
    fit = FitConfig(steps=40, batch=8, warmup=2, validate_every=20, save_every=20, average=0.5, flip=name == "faces")
    return Recipe(
        name,
        CVAEConfig(latent=2, width=0.1),
        MDNConfig(latent=2, width=0.1, components=3, representatives=8),
        Objective(),
        regression_fit=fit,
        cvae_fit=fit,
        mdn_fit=fit,
    )


@pytest.fixture(scope="module", autouse=True)
def small_world() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "PORTRAIT_COUNTS", COUNTS)
        patch.setitem(cli.RECIPES, "portraits", tiny("portraits"))
        patch.setitem(cli.RECIPES, "faces", tiny("faces"))
        yield


@pytest.fixture(scope="module")
def trained(small_world: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A portraits checkpoint, made as a reader makes one (with fewer steps)."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = ["train", "--recipe", "portraits", "--scale", "0.1", "--out", "my.safetensors", "--seed", "3"]
        assert cli.main([*arguments, "--snapshot-every", "2", "--record", "toy", "--precision", "fp32", "--profile", "cpu"]) == 0
    return folder


@pytest.fixture(scope="module")
def lfw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen people of one to three photographs, as Labeled Faces in the Wild keeps them; one photograph is sepia."""
    root = tmp_path_factory.mktemp("lfw")
    rng = np.random.default_rng(0)
    for person in range(15):
        name = f"Ann_{chr(65 + person)}"
        for number in range(1, 2 + person % 3):
            path = root / name / f"{name}_{number:04d}.jpg"
            path.parent.mkdir(exist_ok=True)
            coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            if person == 4 and number == 1:
                coarse = coarse[..., :1] // 2 + np.array([60, 40, 20], np.uint8)
            Image.fromarray(cv2.resize(coarse, (80, 80), interpolation=cv2.INTER_CUBIC)).save(path, quality=95)
    return root


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "grandmother.png"
    coarse = np.random.default_rng(1).integers(0, 256, (5, 5), dtype=np.uint8)
    Image.fromarray(cv2.resize(coarse, (60, 80), interpolation=cv2.INTER_CUBIC)).save(path)
    return path


def opened(path: Path) -> NDArray[np.uint8]:
    return np.array(Image.open(path))


# --- help and exit codes ---


@pytest.mark.parametrize("command", OPTIONS)
def test_help_names_every_option_and_gives_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    for option in OPTIONS[command].split():
        assert re.search(rf"(^|\W){re.escape(option)}\b", printed), option
    assert f"python -m divcolor_lib {command}" in printed
    known = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", printed.replace("torchrun --nproc_per_node", "")))
    assert known == {option for option in OPTIONS[command].split() if option.startswith("--")} | {"--help"}


def test_the_examples_of_the_help_can_be_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    seen = 0
    for command in OPTIONS:
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        for line in re.findall(r"^ *python -m divcolor_lib (.*)$", capsys.readouterr().out, re.MULTILINE):
            words = line.split("  ")[0].split()
            if "--help" not in words:
                assert callable(cli._parser().parse_args(words).command)
                seen += 1
    assert seen >= 6


def test_the_module_runs_and_knows_its_version() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "divcolor_lib", "--version"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, divcolor_lib.__version__, "")


def code(arguments: list[str]) -> int:
    """The exit code, whether argparse or the command itself says it."""
    try:
        return cli.main(arguments)
    except SystemExit as stopped:
        return int(stopped.code or 0)


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "paint",
        "train",
        "train --out x.safetensors --recipe dogs",
        "train --out x.safetensors --recipe faces",
        "train --out x.safetensors --recipe portraits --data .",
        "train --out x.safetensors --stage vae",
        "train --out x.safetensors --scale 0",
        "train --out x.safetensors --scale -1",
        "train --out x.safetensors --scale nan",
        "train --out x.safetensors --scale inf",
        "train --out x.safetensors --scale much",
        "train --out x.safetensors --seed 99999999999999999999999999",
        "train --out x.safetensors --precision fp8",
        "evaluate --split dev",
        "evaluate --checkpoint {checkpoint} --limit -1",
        "evaluate --checkpoint {checkpoint} --limit 0",
        "evaluate --checkpoint {checkpoint} --limit 2 --samples -3",
        "colorize",
        "colorize {photo} --checkpoint {checkpoint} -n 0",
        "colorize {photo} --checkpoint {checkpoint} -n many",
        "colorize {photo} --checkpoint {checkpoint} --crop 1,2,3",
        "colorize {photo} --checkpoint {checkpoint} --crop 1,2,3,x",
        "colorize {photo} --checkpoint {checkpoint} --crop=-1,0,5,5",
        "colorize {photo} --checkpoint {checkpoint} --crop 0,0,61,80",
        "colorize {photo} --checkpoint {checkpoint} --crop 9,9,9,20",
        "colorize {photo} {photo} --checkpoint {checkpoint} --grid both.png",
        "colorize {photo} --checkpoint {checkpoint} --grid eight.docx",
        "colorize {photo} --checkpoint {checkpoint} -n 9 --seed 99999999999999999999999999",
        "data",
        "download moon",
        "download zhang reference-vae --from x.pth",
    ],
)
def test_wrong_arguments_exit_with_2(
    arguments: str, trained: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    filled = arguments.format(photo=photo, checkpoint=trained / "my.safetensors")
    assert code(filled.split()) == 2
    printed = capsys.readouterr()
    assert "error: " in printed.err and "Traceback" not in printed.err
    assert printed.out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("colorize nobody.jpg --checkpoint {checkpoint}", "no such file.*nobody.jpg"),
        ("colorize {folder} --checkpoint {checkpoint}", "a folder, not a picture"),
        ("colorize {photo} --checkpoint nowhere.safetensors", "no such checkpoint.*nowhere"),
        ("colorize {photo} --checkpoint {photo}", "damaged or no safetensors file"),
        ("colorize {photo} --checkpoint {last}", "no complete colorizer"),
        ("colorize {photo} --checkpoint {checkpoint} --out {photo}/in", "cannot write the file"),
        ("colorize {photo} --checkpoint {checkpoint} --grid {photo}/x.png", "cannot write the file"),
        ("evaluate --data nowhere --checkpoint {checkpoint}", "no such folder.*nowhere"),
        ("evaluate --data {photo} --checkpoint {checkpoint}", "a file, not a folder"),
        ("evaluate --checkpoint {photo}", "damaged or no safetensors file"),
        ("train --data nowhere --out x.safetensors", "no such folder"),
        ("train --stage mdn --out x.safetensors", "no trained CVAE"),
        ("train --out x.safetensors --run {photo}/run --scale 0.1", "no file can be written here"),
        ("data nowhere", "no such folder"),
        ("data {empty}", "the folder is empty"),
    ],
)
def test_what_cannot_be_read_or_written_exits_with_1_and_one_message(
    arguments: str,
    message: str,
    trained: Path,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {
        "photo": photo,
        "folder": tmp_path,
        "empty": tmp_path / "empty",
        "checkpoint": trained / "my.safetensors",
        "last": trained / "runs" / "my" / "cvae.last.safetensors",
    }
    assert code(arguments.format(**places).split()) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and re.search(message, errors[0])


def test_a_gpu_that_is_not_there_is_a_wrong_argument(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert code(["train", "--out", "x.safetensors", "--profile", "gpu"]) == 2
    assert "torch sees no GPU" in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "train_colorizer", interrupted)
    assert cli.main(["train", "--out", str(tmp_path / "x.safetensors")]) == 130
    printed = capsys.readouterr().err
    assert "run the same command again" in printed and "Traceback" not in printed


# --- train ---


def test_training_writes_one_checkpoint_its_manifest_and_a_record(trained: Path) -> None:
    manifest = json.loads((trained / "my.json").read_text())
    stored = read_tensors(trained / "my.safetensors")[1]["manifest"]
    for key, value in manifest.items():
        if key != "regressor":
            assert stored[key] == value, key
    record = json.loads((trained / "book" / "results" / "toy.json").read_text())
    assert {key: record[key] for key in manifest} == manifest
    assert set(record["curves"]) == {"regression", "cvae", "mdn"}
    assert all(len(curve["validation"]) >= 1 for curve in record["curves"].values())
    assert manifest["name"] == "portraits" and manifest["library"] == divcolor_lib.__version__
    assert manifest["data"]["counts"] == COUNTS and manifest["machine"]["torch"] == torch.__version__
    assert {stage: fit["steps"] for stage, fit in manifest["training"].items()} == {"regression": 4, "cvae": 4, "mdn": 4}
    assert {fit["seed"] for fit in manifest["training"].values()} == {3}
    colorizer = Colorizer.from_checkpoint(trained / "my.safetensors")
    counted = sum(parameter.numel() for parameter in colorizer.cvae.parameters())
    assert manifest["parameters"]["cvae"] == counted
    assert manifest["validation"]["images"] == COUNTS["val"]
    assert [row["name"] for row in manifest["validation"]["rows"]] == ROWS


def test_snapshots_are_pictures_of_the_steps_asked_for(trained: Path) -> None:
    shots = sorted(path.name for path in (trained / "runs" / "my").glob("snapshot-*"))
    assert shots == ["snapshot-000002.png", "snapshot-000004.png"]
    assert all(opened(trained / "runs" / "my" / name).std() > 5 for name in shots)


def test_nothing_half_written_is_left(trained: Path) -> None:
    assert not list(trained.rglob("*.part"))
    assert {path.name for path in trained.iterdir()} == {"my.safetensors", "my.json", "runs", "book"}


def test_the_same_command_again_gives_the_same_file(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = read_tensors(trained / "my.safetensors")
    monkeypatch.chdir(trained)
    arguments = ["train", "--recipe", "portraits", "--scale", "0.1", "--out", "my.safetensors", "--seed", "3"]
    assert cli.main([*arguments, "--precision", "fp32", "--profile", "cpu"]) == 0
    after, _ = read_tensors(trained / "my.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    printed = capsys.readouterr().out
    assert re.search(r"wrote my\.safetensors \(\d+\.\d MB\)", printed)
    assert all(row in printed for row in ROWS) and all(column in printed for column in COLUMNS)


def test_a_record_holds_time_speed_memory_and_a_picture(trained: Path) -> None:
    record = json.loads((trained / "book" / "results" / "toy.json").read_text())
    stages = {"regression", "cvae", "mdn"}
    assert set(record["seconds"]) == set(record["images a second"]) == stages and record["processes"] == 1
    for stage in stages:
        images = record["training"][stage]["steps"] * record["training"][stage]["batch"]
        assert images / record["images a second"][stage] == pytest.approx(record["seconds"][stage], abs=0.06, rel=0.1)
    assert record["peak memory, bytes"] > 50e6
    picture = opened(trained / "book" / "results" / "pictures" / "toy.jpg")
    count = picture.shape[1] // cli.PICTURE_SIDE  # this network's eight look alike and are merged
    assert picture.shape == (cli.PICTURE_SIDE, count * cli.PICTURE_SIDE, 3) and 3 <= count <= 10
    tiles = np.split(picture.astype(float), count, axis=1)
    assert np.ptp(tiles[0], axis=2).max() < 8 and np.ptp(tiles[-1], axis=2).max() > 60  # gray first, the original last
    assert all(abs(tile.mean(2) - tiles[0].mean(2)).mean() < 12 for tile in tiles[1:])  # one lightness


def test_training_in_slices_pauses_with_exit_code_3_and_ends_with_the_same_file(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "--scale", "0.1", "--out", "c.safetensors", "--seed", "3", "--precision", "fp32", "--profile", "cpu"]
    codes = []
    while not codes or (codes[-1] == 3 and len(codes) < 20):
        codes.append(cli.main([*arguments, "--minutes", "0.0001"]))
        if codes[-1] == 3:
            assert re.search(r"stopped at step \d of 4, as asked \((regression|cvae|mdn)\).*goes on", capsys.readouterr().err)
            assert not (tmp_path / "c.safetensors").exists()
    assert codes == [3] * 9 + [0]  # three of the four steps of each stage end in a pause
    one, other = (read_tensors(path)[0] for path in (trained / "my.safetensors", tmp_path / "c.safetensors"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_an_mdn_that_reads_a_classifier_trains_colors_and_is_measured_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--scale", "0.1", "--out", "c.safetensors", "--features", "classes", "--profile", "cpu"]) == 0
    manifest = read_tensors(tmp_path / "c.safetensors")[1]["manifest"]
    assert manifest["mdn"]["features"] == "classes" and manifest["training"]["classes"]["steps"] == 4
    assert set(manifest["parameters"]) == {"cvae", "mdn", "regressor", "classifier"}
    capsys.readouterr()
    assert cli.main(["evaluate", "--checkpoint", "c.safetensors", "--split", "val", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[0]["eob@8"] == pytest.approx(manifest["validation"]["rows"][0]["eob@8"], abs=1e-6)


def test_another_seed_in_the_same_run_folder_is_refused(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    arguments = ["train", "--recipe", "portraits", "--scale", "0.1", "--out", "my.safetensors", "--precision", "fp32", "--profile", "cpu"]
    assert cli.main([*arguments, "--seed", "4"]) == 1
    assert "another configuration (seed)" in capsys.readouterr().err


def test_the_stages_one_by_one_give_the_same_checkpoint(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "--scale", "0.1", "--out", "b.safetensors", "--seed", "3", "--precision", "fp32", "--profile", "cpu"]
    assert cli.main([*arguments, "--stage", "cvae"]) == 0
    assert "go on with --stage mdn" in capsys.readouterr().out and not (tmp_path / "b.safetensors").exists()
    assert cli.main([*arguments, "--stage", "mdn"]) == 0
    one, other = (read_tensors(path)[0] for path in (trained / "my.safetensors", tmp_path / "b.safetensors"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_faces_train_on_a_folder_without_its_single_tint_photographs(
    lfw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--data", str(lfw), "--out", "faces.safetensors", "--scale", "0.05", "--profile", "cpu"]) == 0
    about = json.loads((tmp_path / "faces.json").read_text())["data"]
    kept = without_single_tint(load(lfw, cache=False))
    split = split_by_group(kept.groups, SPLIT_SEED)
    assert about["single tint left out"] == 1 and sum(about["counts"].values()) == 29 == len(kept)
    assert about["counts"] == {"train": len(split.train), "val": len(split.val), "test": len(split.test)}
    people = [{kept.groups[i] for i in part} for part in split]
    assert list(about["people"].values()) == [len(part) for part in people]
    assert not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])
    assert cli.main(["evaluate", "--data", str(lfw), "--split", "val", "--checkpoint", "faces.safetensors", "--json"]) == 0
    printed = capsys.readouterr().out
    measured = json.loads(printed[printed.index("{") :])
    assert measured["images"] == len(split.val)
    again = json.loads((tmp_path / "faces.json").read_text())["validation"]["rows"]
    assert measured["rows"][0]["eob@8"] == pytest.approx(again[0]["eob@8"], rel=1e-4)


# --- evaluate ---


def evaluated(arguments: list[str], trained: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    capsys.readouterr()
    assert cli.main(["evaluate", "--checkpoint", str(trained / "my.safetensors"), "--json", *arguments]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out, parse_constant=refuse)
    return result


def test_evaluate_prints_json_with_the_rows_and_keys_of_the_design(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = evaluated([], trained, capsys)
    assert [row["name"] for row in measured["rows"]] == ROWS
    for row in measured["rows"]:
        assert set(row) - {"ratio to regression", "below k-means 8"} == COLUMNS | {"name", "interval", "chroma"}
        assert all(isinstance(row[column], float) for column in COLUMNS)
        low, high = row["interval"]["eob@1"]
        assert low <= row["eob@1"] <= high
    assert measured["images"] == measured["groups"] == COUNTS["test"]
    assert measured["split"] == "test" and measured["checkpoint"] == "portraits"
    assert set(measured["portraits"]) == {"recall", "precision", "calibration", "cue-blind calibration", "oracle eob", "oracle gap"}
    assert 0 <= measured["portraits"]["calibration"] <= 1


def test_splits_limits_and_samples_are_obeyed(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limited = evaluated(["--split", "val", "--limit", "4", "--samples", "3"], trained, capsys)
    assert limited["images"] == 4 and limited["split"] == "val"
    assert 0 < limited["rows"][0]["eob@3 (samples)"] < 1
    whole = evaluated(["--split", "val", "--limit", "99"], trained, capsys)
    assert whole["images"] == COUNTS["val"]
    stored = json.loads((trained / "my.json").read_text())["validation"]
    assert whole["rows"][0]["eob@8"] == pytest.approx(stored["rows"][0]["eob@8"], rel=1e-5)
    assert whole["portraits"]["recall"] == pytest.approx(stored["portraits"]["recall"])


def test_photographs_are_measured_by_person_and_split(trained: Path, lfw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = load(lfw, cache=False)
    split = split_by_group(photos.groups, SPLIT_SEED)
    for part, chosen in (("all", range(len(photos))), ("val", split.val), ("train", split.train)):
        measured = evaluated(["--data", str(lfw), "--split", part], trained, capsys)
        assert abs(measured["images"] - len(chosen)) <= 1  # whether the one single-tint photograph counts
        assert measured["groups"] == len({photos.groups[i] for i in chosen})
        assert "portraits" not in measured


def test_a_record_of_portraits_holds_what_was_measured_and_on_what(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    measured = evaluated(["--limit", "4", "--record", "toy-test"], trained, capsys)
    record = json.loads((tmp_path / "book" / "results" / "toy-test.json").read_text())
    assert {key: record[key] for key in measured} == measured
    assert record["name"] == "toy-test" and record["library"] == divcolor_lib.__version__ and len(record["commit"]) >= 7
    assert {"torch", "numpy", "python"} <= set(record["machine"])
    assert record["data"]["kind"] == "portraits" and record["data"]["seed"] == cli._portraits("test").seed
    assert "proxies" not in record and "each" not in record


def test_a_record_of_photographs_holds_errors_by_proxy_and_no_names(
    trained: Path, lfw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    measured = evaluated(["--data", str(lfw), "--split", "all", "--record", "toy-faces"], trained, capsys)
    text = (tmp_path / "book" / "results" / "toy-faces.json").read_text()
    assert "Ann_" not in text
    record = json.loads(text)
    photos = load(lfw, cache=False)
    assert record["data"]["kind"] == "photographs" and len(record["data"]["sha256"]) == 64
    assert (record["images"], record["groups"]) == (len(photos), 15) == (measured["images"], measured["groups"])
    assert set(record["each"]) == {"person", "model", "regression", "k-means 8"}
    first = {group: number for number, group in enumerate(dict.fromkeys(photos.groups))}
    assert record["each"]["person"] == [first[group] for group in photos.groups]
    for row in record["rows"]:
        assert "each" not in row
    model = record["rows"][0]
    assert np.mean(record["each"]["model"]["eob@8"]) == pytest.approx(model["eob@8"], abs=1e-5)
    assert set(record["proxies"]) == {"lightness", "typology angle", "images of the person"}
    light, angle = face_tone(photos.images)
    for name, values in (("lightness", light), ("typology angle", angle)):
        bands = record["proxies"][name]["bands"]
        low, high = record["proxies"][name]["edges"]
        assert [band["label"] for band in bands] == ["0", "1", "2"]
        chosen = values <= low
        assert bands[0]["images"] == int(chosen.sum()) and bands[2]["images"] == int((values > high).sum())
        assert bands[0]["people"] == len({group for group, own in zip(photos.groups, chosen.tolist()) if own})
        errors = torch.tensor(record["each"]["model"]["eob@8"])
        assert bands[0]["model eob@8"] == pytest.approx(float(errors[chosen].mean()), abs=1e-5)
        assert sum(band["images"] for band in bands) == record["images"]
        assert {"model eob@1", "model eob@8", "regression eob@1", "mean field eob@1"} <= set(bands[1])
    single = record["proxies"]["images of the person"]["bands"][0]
    assert single["images"] == single["people"] == 5  # every third of fifteen people has one photograph


def test_without_json_a_table_is_printed(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--checkpoint", str(trained / "my.safetensors"), "--limit", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["eob@1", "eob@5", "eob@8", "eob_pooled@8", "variance@8", "deltaE@8"]
    assert [line[:16].strip() for line in lines[1:8]] == ROWS
    assert any(line.startswith("oracle gap") for line in lines)


# --- colorize ---


def test_colorize_writes_one_picture_a_colorization(trained: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = trained / "my.safetensors"
    assert cli.main(["colorize", str(photo), "--checkpoint", str(checkpoint), "-n", "3", "--out", str(tmp_path / "out")]) == 0
    expected = Colorizer.from_checkpoint(checkpoint).colorize(photo, n=3)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(expected) == len(list((tmp_path / "out").iterdir()))
    for number, (line, image, probability) in enumerate(zip(lines, expected.images, expected.probabilities), start=1):
        path = tmp_path / "out" / f"grandmother-{number}.png"
        assert line == f"{path} " + ("sample" if probability is None else f"probability {probability:.2f}")
        assert np.array_equal(opened(path), image) and image.shape == (80, 60, 3)


def test_a_crop_comes_back_alone(trained: Path, photo: Path, tmp_path: Path) -> None:
    arguments = ["colorize", str(photo), "--checkpoint", str(trained / "my.safetensors"), "-n", "1", "--out", str(tmp_path)]
    assert cli.main([*arguments, "--crop", "5,10,55,70"]) == 0
    assert opened(tmp_path / "grandmother-1.png").shape == (60, 50, 3)


@pytest.mark.parametrize("name", ["eight.png", "eight", "eight.pdf", "eight.JPG"])
def test_a_grid_is_one_picture_in_the_format_of_its_name(
    name: str, trained: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = tmp_path / "new" / name
    assert cli.main(["colorize", str(photo), "--checkpoint", str(trained / "my.safetensors"), "--grid", str(grid)]) == 0
    assert capsys.readouterr().out.strip() == str(grid)
    assert [path.name for path in grid.parent.iterdir()] == [name]
    start = {".pdf": b"%PDF", ".JPG": b"\xff\xd8"}.get(grid.suffix, b"\x89PNG")
    assert grid.read_bytes().startswith(start)


def test_several_photographs_are_colored_in_one_call(trained: Path, photo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    other.write_bytes(photo.read_bytes())
    arguments = [
        "colorize",
        str(photo),
        str(other),
        "--checkpoint",
        str(trained / "my.safetensors"),
        "-n",
        "1",
        "--out",
        str(tmp_path / "o"),
    ]
    assert cli.main(arguments) == 0
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["grandmother-1.png", "other-1.png"]


def test_photographs_of_one_name_do_not_overwrite_each_other(trained: Path, photo: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin" / photo.name
    twin.parent.mkdir()
    Image.fromarray(255 - opened(photo)).save(twin)
    code(["colorize", str(photo), str(twin), "--checkpoint", str(trained / "my.safetensors"), "-n", "1", "--out", str(tmp_path / "o")])
    written = list((tmp_path / "o").iterdir()) if (tmp_path / "o").exists() else []
    assert len(written) != 1  # two files, or a refusal


def test_the_default_checkpoint_is_the_one_that_ships(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path) -> None:
    asked: list[str] = []

    def shipped(name: str, device: Any) -> Colorizer:
        asked.append(name)
        return Colorizer.from_checkpoint(trained / "my.safetensors")

    monkeypatch.setattr(cli.Colorizer, "from_pretrained", staticmethod(shipped))
    assert cli.main(["colorize", str(photo), "-n", "1", "--out", str(tmp_path)]) == 0
    assert cli.main(["evaluate", "--limit", "2"]) == 0
    assert asked == ["faces", "portraits"]


# --- data ---


def test_data_tells_what_a_folder_holds(lfw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", str(lfw), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    photos = load(lfw, cache=False)
    assert facts["images"] == 30 == len(photos) and facts["people"] == 15 and facts["single tint"] == 1
    assert facts["train, val, test images"] == [len(part) for part in split_by_group(photos.groups, SPLIT_SEED)]
    assert re.fullmatch("[0-9a-f]{64}", facts["sha256 of the pixels"])
    assert cli.main(["data", str(lfw)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^images +30$", printed, re.MULTILINE) and facts["sha256 of the pixels"] in printed


def test_data_tells_of_a_folder_with_one_photograph(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Too few people to split are no reason to say nothing."""
    assert cli.main(["data", str(photo.parent), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["images"] == 1 and facts["single tint"] == 1


def test_data_records_the_statement_and_what_leaks(lfw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", str(lfw), "--record", "toy"]) == 0
    record = json.loads((tmp_path / "book" / "results" / "toy.json").read_text())
    photos = load(lfw, cache=False)
    assert record["name"] == "toy" and record["library"] == divcolor_lib.__version__ and record["machine"]["torch"] == torch.__version__
    told = json.loads(json.dumps(statement(photos)))
    assert {name: record[name] for name in told} == told
    assert record["leakage"]["test"] == [len(split_by_group(photos.groups, seed).test) for seed in range(10)]
    assert not any(str(lfw) in text for text in (tmp_path / "book" / "results" / "toy.json").read_text().splitlines())


def test_a_record_of_too_few_people_says_so(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", str(photo.parent), "--record", "one"]) == 0
    record = json.loads((tmp_path / "book" / "results" / "one.json").read_text())
    assert record["split"] is None and record["leakage"] is None and record["people"] == 1


# --- download ---


def test_download_lists_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIVCOLOR_DATA", str(tmp_path))
    shipped = download.fetch("model-portraits", source=ROOT / "divcolor_lib" / "artifacts" / "portraits.safetensors")
    capsys.readouterr()
    for arguments in (["download"], ["download", "--list"]):
        assert cli.main(arguments) == 0
        first, *lines = capsys.readouterr().out.splitlines()
        assert first == f"in {tmp_path}:" and len(lines) == len(download.SOURCES)
        assert [line.split()[1] for line in lines if line.startswith("here")] == ["model-portraits"]
    assert shipped.parent == tmp_path


def test_download_takes_a_file_that_is_here_and_checks_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIVCOLOR_OFFLINE", "1")
    shipped = ROOT / "divcolor_lib" / "artifacts" / "portraits.safetensors"
    assert cli.main(["download", "model-portraits", "--to", str(tmp_path), "--from", str(shipped)]) == 0
    placed = Path(capsys.readouterr().out.strip().splitlines()[-1])
    assert placed.parent == tmp_path and placed.read_bytes() == shipped.read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(shipped.read_bytes()[:-1])
    assert cli.main(["download", "model-portraits", "--to", str(tmp_path / "other"), "--from", str(damaged)]) == 1
    assert cli.main(["download", "zhang", "--to", str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert "DIVCOLOR_OFFLINE" in printed and "Traceback" not in printed
