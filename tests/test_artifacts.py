"""The checkpoints that ship with the library keep the promises that the book makes of them."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from divcolor_lib import __main__ as cli
from divcolor_lib.colorize import PRETRAINED, Colorizer
from divcolor_lib.cvae import CVAE, CVAEConfig
from divcolor_lib.data import FRACTIONS, SPLIT_SEED
from divcolor_lib.metrics import ANCHOR_ROWS
from divcolor_lib.metrics import errors as errors_of
from divcolor_lib.train import RECIPES, FitConfig, read_tensors

ROOT = Path(__file__).resolve().parents[1]

ARTIFACTS = Path(str(files("divcolor_lib") / "artifacts"))
MEGABYTE = 10**6


def manifest(name: str) -> dict[str, Any]:
    return json.loads((ARTIFACTS / f"{name}.json").read_text(encoding="utf-8"))


def row(facts: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in facts["validation"]["rows"] if row["name"] == name)


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_shipped_checkpoint_loads_without_a_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the library opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    colorizer = Colorizer.from_pretrained(name)
    fields, weights = colorizer.predict(torch.zeros(1, 1, 64, 64))
    assert fields.shape == (1, 8, 2, 64, 64) and weights.shape == (1, 8)


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_manifest_beside_a_checkpoint_says_what_the_checkpoint_says(name: str) -> None:
    _, facts = read_tensors(ARTIFACTS / f"{name}.safetensors")
    inside, beside = facts["manifest"], manifest(name)
    assert {key: inside[key] for key in beside} == beside


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_manifest_names_the_recipe_data_machine_and_commit(name: str) -> None:
    facts = manifest(name)
    assert facts["name"] == name and {"torch", "numpy", "python"} <= set(facts["machine"])
    assert len(facts["commit"]) >= 12 and "dirty" not in facts["commit"]
    assert facts["data"]["counts"]["train"] > 10_000
    assert [row["name"] for row in facts["validation"]["rows"]] == ["model", *ANCHOR_ROWS]


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_shipped_network_is_the_one_that_its_recipe_trains(name: str) -> None:
    colorizer, recipe = Colorizer.from_pretrained(name), RECIPES[name]
    assert colorizer.cvae.config == recipe.cvae
    assert colorizer.mdn.config.components == recipe.mdn.components and colorizer.mdn.config.latent == recipe.cvae.latent
    trained = manifest(name)["training"]
    wanted = {"regression": recipe.regression_fit, "cvae": recipe.cvae_fit, "mdn": recipe.mdn_fit}
    assert {stage: fit["steps"] for stage, fit in trained.items()} == {stage: fit.steps for stage, fit in wanted.items() if fit}


def test_the_faces_were_split_by_the_one_split_of_the_library() -> None:
    data = manifest("faces")["data"]
    assert (data["split seed"], tuple(data["fractions"])) == (SPLIT_SEED, FRACTIONS)


def test_the_shipped_files_are_small() -> None:
    assert (ARTIFACTS / "faces.safetensors").stat().st_size < 8 * MEGABYTE
    assert (ARTIFACTS / "portraits.safetensors").stat().st_size < 1 * MEGABYTE


def test_the_faces_model_keeps_its_promises_on_held_back_people() -> None:
    facts = manifest("faces")
    model = row(facts, "model")
    assert model["below k-means 8"][1] < 0
    assert model["ratio to regression"][1] <= 1.1
    assert model["interval"]["deltaE@8"][0] >= 5
    assert model["eob@8"] <= 0.062


def test_the_portraits_model_finds_the_modes_that_its_manifest_says_it_finds() -> None:
    colorizer, portraits = Colorizer.from_pretrained("portraits"), cli._portraits("val")
    source = cli._portrait_fields("val", torch.device("cpu"))
    measured = cli._measured(colorizer, source, cli._numbered(len(source)), portraits)
    stored = manifest("portraits")["validation"]
    for name, value in stored["portraits"].items():
        assert measured["portraits"][name] == pytest.approx(value, abs=0.01), name
    assert measured["rows"][0]["eob@8"] == pytest.approx(row(manifest("portraits"), "model")["eob@8"], rel=0.01)
    scores = measured["portraits"]
    assert scores["recall"] >= 0.9 and scores["precision"] >= 0.9
    assert scores["calibration"] <= 0.10
    assert scores["calibration"] < scores["cue-blind calibration"] / 3
    assert scores["oracle gap"] <= 0.15


def test_eight_answers_come_closer_to_a_portrait_than_one() -> None:
    colorizer = Colorizer.from_pretrained("portraits")
    gray, truth = cli._portraits("test").batch(range(64))
    found = errors_of(colorizer.predict(gray)[0], truth)
    assert float(found.min(1).values.mean()) < 0.5 * float(found[:, 0].mean())


# --- records ---

RESULTS = ROOT / "book" / "results"
RECORDED = sorted(set(RECIPES) & {path.stem for path in RESULTS.glob("*.json")})


def test_the_shipped_recipes_and_their_references_are_recorded() -> None:
    assert {"faces", "faces-short", "faces-reference", "portraits", "portraits-reference"} <= set(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_a_record_and_the_recipe_of_its_name_agree(name: str) -> None:
    """Whoever changes a recipe trains again, or the book shows curves of something else."""
    record, recipe = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")), RECIPES[name]
    free = {"precision", "seed"}  # of the machine and of the call
    for stage, fit in recipe.fits().items():
        trained = asdict(FitConfig(**record["training"][stage]))
        wanted = asdict(fit)
        assert {key: value for key, value in trained.items() if key not in free} == {k: v for k, v in wanted.items() if k not in free}, (
            stage
        )
    assert set(record["training"]) == set(record["curves"]) == set(recipe.fits())
    assert (record["objective"], record["mdn loss"]) == (asdict(recipe.objective), recipe.mdn_loss)
    if "cvae" in record:  # older records leave it to the parameters
        assert CVAEConfig(**record["cvae"]) == recipe.cvae
    assert record["parameters"]["cvae"] == count(CVAE.build(recipe.cvae))
    assert {"commit", "machine", "data", "validation", "library"} <= set(record)
    for stage, history in record["curves"].items():
        assert history["validation"][-1]["step"] == recipe.fits()[stage].steps or history["stopped_early"]


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_record_of_a_shipped_network_is_its_manifest() -> None:
    for name in PRETRAINED:
        record, facts = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")), manifest(name)
        assert {key: record[key] for key in facts} == facts
