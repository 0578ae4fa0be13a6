"""Ablations: every row differs from the base in what it says, stages are shared, and a stopped run goes on."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from divcolor_lib import __main__ as cli
from divcolor_lib import ablation
from divcolor_lib.ablation import FACE_STEPS, FACE_WIDTH, SEEDS, Variant, ablate, face_variants, variants
from divcolor_lib.data import TensorFields, converted
from divcolor_lib.portraits import Portraits

FIGURES = ("eob@1", "eob@8", "variance@8", "chroma", "recall", "precision", "calibration", "oracle gap")


def tiny(variant: Variant) -> Variant:
    """Return the row with two steps of each stage and small batches."""
    return replace(variant, recipe=variant.recipe.with_(steps=2, batch=8))


@pytest.fixture(scope="module")
def fields() -> tuple[TensorFields, TensorFields, Portraits]:
    held = Portraits(10, seed=8)
    return converted(Portraits(40, seed=7)), converted(held), held


@pytest.fixture(scope="module")
def some() -> list[Variant]:
    wanted = ("base", "bound", "K = 2", "none")
    return [tiny(row) for row in variants() if row.name in wanted and row.seed == 0]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, fields: Any, some: list[Variant]) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("ablations")
    return folder, ablate(some, *fields, folder, progress=False)


def differences(a: Any, b: Any, where: str = "") -> set[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        return set().union(*(differences(a.get(key), b.get(key), f"{where}.{key}".lstrip(".")) for key in {*a, *b}))
    return set() if a == b else {where}


def test_every_row_changes_one_thing_and_no_two_rows_are_the_same() -> None:
    rows = variants()
    base = asdict(rows[0].recipe)
    assert [row.seed for row in rows if row.group == "base"] == list(SEEDS)
    assert len({(row.name, row.seed) for row in rows}) == len(rows) == len({json.dumps(asdict(row.recipe)) for row in rows})
    allowed = {
        "mixture": {"mdn_loss", "mdn.scale", "mdn.dropout"},
        "components": {"mdn.components", "mdn.representatives"},
        "features": {"mdn.features"},
        "loss terms": {f"objective.{term}" for term in ("kl", "mahalanobis", "gradient", "weighting", "reference")},
        "skips": {"cvae.skips"},
        "code": {"cvae.latent", "mdn.latent", "mdn.scale"},
    }
    for row in rows:
        changed = differences(base, asdict(row.recipe))
        if row.group in allowed:
            assert changed and changed <= allowed[row.group], row.name
            assert len({place.split(".")[0] for place in changed}) == (2 if row.group == "code" else 1), row.name


def test_all_rows_have_the_same_budget_and_the_budget_scales() -> None:
    for rows, share in ((variants(), 1.0), (variants(scale=0.1), 0.1)):
        for row in rows:
            found = {stage: getattr(row.recipe, f"{stage}_fit").steps for stage in ablation.STEPS}
            assert found == {stage: round(steps * share) for stage, steps in ablation.STEPS.items()}, row.name


def test_every_row_for_faces_changes_one_thing_within_one_budget() -> None:
    rows = face_variants()
    base = asdict(rows[0].recipe)
    assert base["cvae"]["width"] == FACE_WIDTH
    assert [row.seed for row in rows if row.group == "base"] == list(SEEDS)
    assert len({(row.name, row.seed) for row in rows}) == len(rows) == len({json.dumps(asdict(row.recipe)) for row in rows})
    allowed = {
        "features": {"mdn.features", "classes_fit"},
        "mixture": {"mdn_loss"},
        "augmentation": {f"{stage}_fit.shift" for stage in ("regression", "cvae")},
        "loss terms": {"objective.weighting", "objective.reference"},
        "noise": {"objective.noise_variance"},
        "code": {"cvae.latent", "mdn.latent"},
    }
    for row in rows:
        changed = differences(base, asdict(row.recipe))
        if row.group in allowed:
            assert changed and changed <= allowed[row.group], row.name
        assert {stage: fit.steps for stage, fit in row.recipe.fits().items()}.items() <= FACE_STEPS.items(), row.name
    assert {row.recipe.mdn.features for row in rows} == {"encoder", "classes", "pixels", "none"}
    assert {fit.steps for row in face_variants(scale=0.01) for fit in row.recipe.fits().values()} == {2, 3}


def test_photographs_are_measured_without_a_posterior(fields: Any, tmp_path: Path) -> None:
    training, held, _ = fields
    rows = [tiny(row) for row in face_variants() if row.name in ("base", "classes") and row.seed == 0]
    table = ablate(rows, training, held, None, tmp_path, progress=False)
    assert [row["name"] for row in table] == ["base", "classes", "regression", "k-means 8"]
    for row in table:
        assert all(isinstance(row[figure], float) for figure in ("eob@1", "eob@8", "variance@8", "chroma"))
        assert "recall" not in row and "means recall" not in row
    assert len({tuple(row) for row in table}) == 1 or set(table[0]) == set(table[-1])
    assert table[0]["kl"] == table[1]["kl"] and table[0]["nll"] != table[1]["nll"], "one CVAE, two MDNs"


def test_a_table_has_every_figure_of_every_row_and_two_anchor_rows(done: tuple[Path, list[dict[str, Any]]]) -> None:
    _, table = done
    assert [row["name"] for row in table] == ["base", "bound", "K = 2", "none", "regression", "k-means 8"]
    for row in table:
        assert all(isinstance(row[figure], float) for figure in FIGURES), row["name"]
    assert len({tuple(row) for row in table}) <= 2 and set(table[0]) == set(table[-1])
    assert table[-2]["oracle gap"] == pytest.approx(1, abs=1e-5), "the regression network is one whole gap from the oracle"
    assert table[-2]["variance@8"] == 0


def test_rows_that_differ_in_the_mdn_share_one_cvae(done: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, table = done
    assert sorted(path.name.split("-")[0] for path in (folder / "shared").iterdir()) == ["cvae", "regression"]
    assert len({row["kl"] for row in table[:4]}) == 1 and len({row["nll"] for row in table[:4]}) > 1


def test_a_finished_row_is_read_and_a_lost_one_is_made_again_alike(
    done: tuple[Path, list[dict[str, Any]]], fields: Any, some: list[Variant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, table = done
    shutil.copytree(folder, tmp_path / "again")
    (tmp_path / "again" / "mixture-bound-0" / "row.json").unlink()
    trained: list[str] = []
    train = ablation._train
    monkeypatch.setattr(ablation, "_train", lambda variant, *rest: (trained.append(variant.name), train(variant, *rest))[1])
    again = ablate(some, *fields, tmp_path / "again", progress=False)
    assert trained == ["bound"]
    assert [{**row, "seconds": 0} for row in again] == [{**row, "seconds": 0} for row in table]


def test_a_row_of_other_settings_is_not_taken_for_this_one(
    done: tuple[Path, list[dict[str, Any]]], fields: Any, some: list[Variant], tmp_path: Path
) -> None:
    folder, _ = done
    stored = json.loads((folder / "base-base-0" / "row.json").read_text())
    stored["row"]["eob@1"] = -1.0
    other = tmp_path / "base-base-0"
    other.mkdir()
    (other / "row.json").write_text(json.dumps(stored))
    assert ablate(some[:1], *fields, tmp_path, progress=False)[0]["eob@1"] == -1.0
    stored["settings"]["mdn_loss"] = "bound"
    (other / "row.json").write_text(json.dumps(stored))
    assert ablate(some[:1], *fields, tmp_path, progress=False)[0]["eob@1"] > 0


def test_the_rate_is_the_nll_less_the_entropy_of_the_posterior(done: tuple[Path, list[dict[str, Any]]]) -> None:
    _, table = done
    offsets = {round(row["nll"] - row["rate"], 4) for row in table[:4]}
    assert len(offsets) == 1, "one CVAE, one entropy"
    for row in table[:4]:
        # an untrained posterior is nearly N(0, I), so its entropy is nearly D/2 log(2 pi e)
        assert row["nll"] - row["rate"] == pytest.approx(8 / 2 * (1 + torch.log(torch.tensor(2 * torch.pi)).item()), abs=1.0)


def test_the_command_names_an_unknown_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["ablate", "--record", "x", "--group", "colour"]) == 2
    assert "no group `colour`" in capsys.readouterr().err
    assert cli.main(["ablate", "--record", "x", "--scale", "0"]) == 2


def test_the_command_writes_the_table_with_its_provenance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "PORTRAIT_COUNTS", {"train": 80, "val": 8, "test": 4})
    monkeypatch.setattr(cli, "ABLATION_COUNTS", {"train": 80, "val": 8})
    monkeypatch.setattr(cli, "variants", lambda precision, scale: [tiny(row) for row in variants(precision, scale)[:1]])
    assert cli.main(["ablate", "--record", "quick", "--scale", "0.01"]) == 0
    stored = json.loads((tmp_path / cli.RESULTS / "quick.json").read_text())
    assert [row["name"] for row in stored["rows"]] == ["base", "regression", "k-means 8"]
    assert {"commit", "machine", "library", "data", "steps"} <= set(stored)
    assert stored["steps"] == {"regression": 2, "cvae": 2, "mdn": 2}
    assert capsys.readouterr().out.count("\n") == 3
    assert (tmp_path / "runs" / "quick" / "base-base-0" / "row.json").is_file()


def test_the_command_takes_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(3)
    for number in range(60):
        (tmp_path / "faces" / f"P_{number}").mkdir(parents=True)
        coarse = Image.fromarray(noise.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((70, 70))
        coarse.save(tmp_path / "faces" / f"P_{number}" / f"P_{number}_0001.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "face_variants", lambda precision, scale: [tiny(row) for row in face_variants(precision, scale)[:1]])
    assert cli.main(["ablate", "--data", "faces", "--record", "quick-faces"]) == 0
    stored = json.loads((tmp_path / cli.RESULTS / "quick-faces.json").read_text())
    assert stored["data"]["kind"] == "photographs" and stored["data"]["counts"]["val"] >= 1
    assert [row["name"] for row in stored["rows"]] == ["base", "regression", "k-means 8"]
