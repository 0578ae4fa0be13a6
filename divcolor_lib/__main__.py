"""The command line: `python -m divcolor_lib train | evaluate | ablate | colorize | data | download`.

Exit codes: 0 done; 1 something could not be read, written or trained; 2 a wrong argument; 3 paused, the same command goes on;
130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.cbook import get_sample_data
from PIL import Image
from torch import Tensor

from . import __version__, download, parallel, plots
from .ablation import ablate, face_variants, variants
from .colorize import Box, Colorizations, Colorizer
from .cost import peak_memory
from .data import (
    FRACTIONS,
    SPLIT_SEED,
    FieldSource,
    PhotoFields,
    Photos,
    TensorFields,
    content_hash,
    converted,
    face_tone,
    leakage,
    load,
    split_by_group,
    statement,
    subset,
    without_single_tint,
)
from .errors import ConfigError, DataError, DivcolorError, TrainingPaused, check_writable, whole_file
from .features import KINDS, ZhangNet
from .lab import read_image, resize_area
from .metrics import KS, Row, bootstrap_difference, by_label, evaluate, fit_anchors, oracle_gap, portrait_scores
from .metrics import errors as errors_of
from .plots import chapter_0
from .portraits import PORTRAIT_COUNTS, PORTRAIT_SEED, Portraits
from .runtime import best_precision, machine
from .train import RECIPES, Recipe, Trained, train_colorizer

RESULTS = Path("book") / "results"
PICTURES = RESULTS / "pictures"
PICTURE_SIDE = 112
HOPPER_HEAD = (65, 10, 445, 390)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a user's mistake prints one message and no traceback."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.command(options)
    except TrainingPaused as pause:
        print(pause, file=sys.stderr)
        return 3
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except DivcolorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to go on from the last checkpoint", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m divcolor_lib",
        description="Color gray photographs in several plausible ways, and train the networks that do it.",
        epilog="Each command has its own help: python -m divcolor_lib colorize --help",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="train | evaluate | ablate | colorize | data | download")

    train = _command(
        commands,
        "train",
        _train,
        "Train a colorizer and write it to one file.",
        "python -m divcolor_lib train --recipe portraits --out my.safetensors\n"
        "  python -m divcolor_lib train --data lfw-deepfunneled --out faces.safetensors\n"
        "  python -m divcolor_lib train --profile gpu --data lfw-deepfunneled --minutes 9 --record faces-full --out full.safetensors\n"
        "  torchrun --nproc_per_node=4 -m divcolor_lib train --data lfw-deepfunneled --out faces.safetensors\n\n"
        "Stopped or killed? The same command goes on from the last checkpoint in the run folder.",
    )
    train.add_argument(
        "--recipe", choices=sorted(RECIPES), help="what to train (default: portraits; with --data faces, on a graphics card faces-full)"
    )
    train.add_argument("--data", type=Path, help="a folder of photographs: LFW, the reference bundle, or any pictures; portraits need none")
    train.add_argument("--out", type=Path, required=True, help="the checkpoint to write, NAME.safetensors")
    train.add_argument("--run", type=Path, help="folder for checkpoints on the way (default: runs/NAME; not under torchrun)")
    train.add_argument("--stage", choices=("cvae", "mdn", "all"), default="all", help="stop after the CVAE, train only the MDN, or both")
    train.add_argument("--scale", type=float, default=1.0, help="multiply the steps of every stage, e.g. 0.1 for a quick try")
    train.add_argument("--seed", type=_natural, default=0, help="of weights, batches and noise (default 0)")
    train.add_argument("--profile", choices=("cpu", "gpu"), help="where to train (default: gpu if torch sees one)")
    train.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="default: what the machine multiplies fast")
    train.add_argument(
        "--snapshot-every",
        type=_natural,
        default=0,
        metavar="STEPS",
        help="write pictures beside the truth every so many steps of the CVAE",
    )
    train.add_argument(
        "--features",
        choices=KINDS,
        help="what the MDN reads of a photograph (default: the recipe's; classes trains a classifier first)",
    )
    train.add_argument("--zhang", type=Path, metavar="FILE", help="published weights of Zhang's network, for --features zhang")
    train.add_argument("--minutes", type=_minutes, help="stop after so many minutes with exit code 3; the same command then goes on")
    train.add_argument(
        "--record", metavar="NAME", help=f"write the manifest with curves to {RESULTS}/NAME.json, and pictures to {RESULTS}/pictures"
    )

    evaluation = _command(
        commands,
        "evaluate",
        _evaluate,
        "Measure a colorizer on photographs, beside the anchor rows that anyone can compute.",
        "python -m divcolor_lib evaluate --data lfw-deepfunneled --split test\n"
        "  python -m divcolor_lib evaluate --checkpoint my.safetensors --json      (no --data: portraits)",
    )
    evaluation.add_argument("--data", type=Path, help="a folder of photographs (default: held-back portraits)")
    evaluation.add_argument(
        "--split",
        choices=("all", "train", "val", "test"),
        default="test",
        help="which people (default test); all takes single-tint photographs too",
    )
    evaluation.add_argument("--checkpoint", type=Path, help="a trained colorizer (default: the one that ships with the library)")
    evaluation.add_argument("--samples", type=_natural, default=0, metavar="N", help="also the error of the best of N samples from p(z|G)")
    evaluation.add_argument("--limit", type=_positive, metavar="N", help="only the first N images")
    evaluation.add_argument("--record", metavar="NAME", help=f"write all that was measured, and on what, to {RESULTS}/NAME.json")
    evaluation.add_argument("--json", action="store_true", help="print JSON instead of a table")

    coloring = _command(
        commands,
        "colorize",
        _colorize,
        "Color photographs in several ways.",
        "python -m divcolor_lib colorize grandmother.jpg\n"
        "  python -m divcolor_lib colorize grandmother.jpg --crop 120,60,420,360 -n 8 --grid eight.png",
    )
    coloring.add_argument("photos", nargs="+", type=Path, metavar="PHOTO", help="a picture file; its own colors, if any, are put aside")
    coloring.add_argument("-n", type=int, default=8, help="how many ways (default 8); above the model's K come samples")
    coloring.add_argument(
        "--crop", type=_box, metavar="L,T,R,B", help="left, top, right, bottom in pixels: a square around the head colors best"
    )
    coloring.add_argument("--checkpoint", type=Path, help="a trained colorizer (default: the shipped faces)")
    coloring.add_argument("--out", type=Path, default=Path("."), help="folder for the pictures (default: here)")
    coloring.add_argument("--grid", type=Path, metavar="FILE", help="write one labeled picture of all instead (one PHOTO only)")
    coloring.add_argument("--seed", type=_natural, default=0, help="of the samples")

    ablation = _command(
        commands,
        "ablate",
        _ablate,
        "Train a recipe with one thing changed at a time, and measure every row alike.",
        "python -m divcolor_lib ablate --record ablations\n"
        "  python -m divcolor_lib ablate --data lfw-deepfunneled --record faces-ablations\n"
        "  python -m divcolor_lib ablate --scale 0.1 --record quick\n\n"
        "Stopped or killed? The same command goes on from the last checkpoint of the row it was at.",
    )
    ablation.add_argument("--record", metavar="NAME", required=True, help=f"write the table to {RESULTS}/NAME.json")
    ablation.add_argument("--data", type=Path, help="a folder of photographs, for the rows of the faces recipe (default: portraits)")
    ablation.add_argument("--run", type=Path, help="folder for checkpoints on the way (default: runs/NAME)")
    ablation.add_argument("--scale", type=float, default=1.0, help="multiply the steps of every stage, e.g. 0.1 for a quick try")
    ablation.add_argument(
        "--group", action="append", metavar="GROUP", help="only this group of rows, beside the base rows (may be repeated)"
    )
    ablation.add_argument("--profile", choices=("cpu", "gpu"), help="where to train (default: gpu if torch sees one)")
    ablation.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="default: what the machine multiplies fast")

    data = _command(
        commands,
        "data",
        _data,
        "Say what a folder of photographs holds: counts, and the tone of the middle of the pictures.",
        "python -m divcolor_lib data lfw-deepfunneled\n  python -m divcolor_lib data lfw-deepfunneled --record my-faces-data",
    )
    data.add_argument("folder", type=Path, help="LFW, the reference bundle, or any folder of pictures")
    data.add_argument("--json", action="store_true", help="print JSON")
    data.add_argument(
        "--record", metavar="NAME", help=f"write the whole data statement, and how much a split by image leaks, to {RESULTS}/NAME.json"
    )

    fetching = _command(
        commands,
        "download",
        _download,
        "Fetch faces, published weights and models, checked; without a name, list them.",
        "python -m divcolor_lib download\n"
        "  python -m divcolor_lib download lfw\n"
        "  python -m divcolor_lib download lfw --from lfw-deepfunneled.zip\n\n"
        "Broken off? The same command goes on where it stopped. DIVCOLOR_OFFLINE=1 forbids every connection.",
    )
    fetching.add_argument("names", nargs="*", metavar="NAME", help="what to fetch; lfw stands for the best set of faces that can be had")
    fetching.add_argument("--to", type=Path, metavar="FOLDER", help="where to keep it (default: DIVCOLOR_DATA, or a folder for caches)")
    fetching.add_argument("--from", dest="source", type=Path, metavar="PATH", help="a file that you have already: check and keep it")
    fetching.add_argument("--list", action="store_true", help="say what there is, and what is here")
    return parser


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], None], about: str, examples: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about, epilog=f"examples:\n  {examples}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(command=run)
    return parser


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"`{text}` is not a whole number from 0 on")
    return int(text)


def _positive(text: str) -> int:
    if _natural(text) == 0:
        raise argparse.ArgumentTypeError("0 is too few; use at least 1")
    return int(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"`{text}` is not a positive number of minutes")
    return minutes


def _box(text: str) -> Box:
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().lstrip("-").isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"`{text}` is not four whole numbers: left,top,right,bottom")
    left, top, right, bottom = (int(part) for part in parts)
    return left, top, right, bottom


# --- train ---


def _train(options: argparse.Namespace) -> None:
    with parallel.joined(_device(options.profile)) as device:
        _train_on(device, options)


def _train_on(device: torch.device, options: argparse.Namespace) -> None:
    started = time.monotonic()
    name = options.recipe or (("faces-full" if device.type == "cuda" else "faces") if options.data else "portraits")
    if name.startswith("faces") != (options.data is not None):
        raise ConfigError(
            f"the recipe `{name}` trains on {'photographs' if name.startswith('faces') else 'portraits, which need no folder'}", "--data"
        )
    if not 0 < options.scale < math.inf:
        raise ConfigError(f"the scale is {options.scale}", "--scale", "Use a positive number.")
    run = options.run or Path("runs") / options.out.stem
    for folder in (options.out.parent, run, *([PICTURES] if options.record else [])):
        check_writable(folder)
    recipe, network = _chosen(RECIPES[name], options, device)
    parts, about, groups = _training_data(options.data, device)
    if len(parts["train"]) < recipe.cvae_fit.batch:
        raise DataError(
            f"{len(parts['train'])} training photographs do not fill one batch of {recipe.cvae_fit.batch}",
            options.data,
            "Use a larger folder.",
        )
    snapshots = _Snapshots(run, options.snapshot_every, parts["val"])
    trained = train_colorizer(
        recipe,
        parts["train"],
        parts["val"],
        device,
        run,
        options.stage,
        snapshots if options.snapshot_every and parallel.rank() == 0 else None,
        zhang=network,
        pause=None if options.minutes is None else lambda: time.monotonic() - started > 60 * options.minutes,
    )
    if parallel.rank() > 0:
        return
    if trained.mdn is None:
        print(f"the CVAE is trained; go on with --stage mdn (run folder {run})")
        return
    anchors = fit_anchors(parts["train"], trained.regressor, SPLIT_SEED)
    colorizer = Colorizer(trained.cvae, trained.mdn, {}, trained.regressor, anchors.tensors(), trained.classifier or network)
    manifest = {**_facts(recipe, trained), "data": about, "peak memory, bytes": peak_memory(device)}
    colorizer.save(options.out)
    halved = Colorizer.from_checkpoint(options.out, device, network)  # what is measured is the file, in half precision
    manifest["validation"] = _measured(halved, parts["val"], groups, None if options.data else _portraits("val"))
    colorizer.manifest = manifest
    colorizer.save(options.out)
    _write_json(options.out.with_suffix(".json"), manifest)
    if options.record:
        curves = {stage: asdict(history) for stage, history in trained.histories.items()}
        _write_json(RESULTS / f"{options.record}.json", {**manifest, "curves": curves})
        _record_pictures(halved, options.record)
    print(_table(manifest["validation"]["rows"]))
    print(f"wrote {options.out} ({options.out.stat().st_size / 1e6:.1f} MB)")


def _chosen(recipe: Recipe, options: argparse.Namespace, device: torch.device) -> tuple[Recipe, torch.nn.Module | None]:
    """Return the recipe as the options change it, and the network whose features its MDN reads, if that is Zhang's."""
    kind = options.features or recipe.mdn.features
    if kind.startswith("zhang") != (options.zhang is not None):
        raise ConfigError(
            f"features of kind `{kind}` and a file of Zhang's weights do not go together", "--zhang", "Give both, or neither."
        )
    classes = replace(recipe.cvae_fit, steps=recipe.mdn_fit.steps) if kind == "classes" else None
    recipe = replace(recipe, mdn=replace(recipe.mdn, features=kind), classes_fit=classes)
    recipe = recipe.with_(seed=options.seed, precision=options.precision or best_precision(device)).scaled(options.scale)
    return recipe, ZhangNet.from_published(options.zhang).to(device) if options.zhang else None


def _record_pictures(colorizer: Colorizer, name: str) -> None:
    """Write eight colorizations of a photograph in the public domain, one strip: the gray one, the eight, and the original."""
    photo = read_image(get_sample_data("grace_hopper.jpg", asfileobj=False))
    left, top, right, bottom = HOPPER_HEAD
    found = colorizer.colorize(photo, crop=HOPPER_HEAD)
    tiles = [found.gray, *found.images, photo[top:bottom, left:right]]
    strip = torch.cat([resize_area(torch.from_numpy(tile), (PICTURE_SIDE, PICTURE_SIDE)) for tile in tiles], dim=1)
    with whole_file(PICTURES / f"{name}.jpg") as temporary:
        Image.fromarray(strip.numpy()).save(temporary, format="JPEG", quality=90)


def _training_data(folder: Path | None, device: torch.device) -> tuple[dict[str, FieldSource], dict[str, Any], list[str]]:
    """Return the parts as sources, what the manifest says of them, and the person of each validation image."""
    if folder is None:
        seeds = {part: PORTRAIT_SEED + offset for offset, part in enumerate(PORTRAIT_COUNTS)}
        sources: dict[str, FieldSource] = {part: _portrait_fields(part, device) for part in ("train", "val")}
        return sources, {"kind": "portraits", "counts": PORTRAIT_COUNTS, "seeds": seeds}, _numbered(PORTRAIT_COUNTS["val"])
    photos = load(folder)
    kept = without_single_tint(photos)
    split = split_by_group(kept.groups, SPLIT_SEED)
    indices = {"train": split.train, "val": split.val, "test": split.test}
    fields = PhotoFields(kept.images, device)
    about = {
        "kind": "photographs",
        "source": photos.source,
        "sha256": content_hash(photos),
        "counts": {part: len(chosen) for part, chosen in indices.items()},
        "people": {part: len({kept.groups[i] for i in chosen}) for part, chosen in indices.items()},
        "single tint left out": len(photos) - len(kept),
        "split seed": SPLIT_SEED,
        "fractions": FRACTIONS,
    }
    sources = {part: subset(fields, chosen) for part, chosen in indices.items()}
    if device.type == "cpu":  # a graphics card converts a batch in no time, and its memory is dear
        sources["train"] = converted(sources["train"])
    return sources, about, [kept.groups[i] for i in split.val]


def _numbered(count: int) -> list[str]:
    return [str(index) for index in range(count)]


def _portraits(part: str) -> Portraits:
    return Portraits(PORTRAIT_COUNTS[part], seed=PORTRAIT_SEED + list(PORTRAIT_COUNTS).index(part))


def _portrait_fields(part: str, device: torch.device) -> TensorFields:
    fields = converted(_portraits(part))
    return TensorFields(fields.gray.to(device), fields.ab.to(device))


class _Snapshots:
    """Writes pictures of four validation images beside the truth every so many steps."""

    def __init__(self, run: Path, every: int, validation: FieldSource) -> None:
        self.run, self.every = run, every
        self.gray, self.ab = validation.batch(torch.arange(min(4, len(validation))))

    def __call__(self, stage: str, step: int, trained: Trained) -> None:
        if stage == "cvae" and step % self.every == 0:
            figure = chapter_0.snapshot(trained.cvae, self.gray, self.ab, step)
            with whole_file(self.run / f"snapshot-{step:06d}.png") as temporary:
                figure.savefig(temporary, format="png")
            plots.close(figure)


def _facts(recipe: Recipe, trained: Trained) -> dict[str, Any]:
    fits, histories = recipe.fits(), trained.histories
    speeds = {stage: fits[stage].batch * history.steps / history.seconds for stage, history in histories.items() if history.seconds}
    return {
        "name": recipe.name,
        "library": __version__,
        "commit": _commit(),
        "cvae": asdict(trained.cvae.config),
        "mdn": asdict(trained.mdn.config) if trained.mdn else None,
        "objective": asdict(recipe.objective),
        "mdn loss": recipe.mdn_loss,
        "training": {stage: asdict(fit) for stage, fit in fits.items()},
        "best": {stage: {"step": history.best_step, "loss": history.best_loss} for stage, history in histories.items()},
        "seconds": {stage: round(history.seconds, 1) for stage, history in histories.items()},
        "images a second": {stage: round(speed, 1) for stage, speed in speeds.items()},
        "processes": parallel.processes(),
        "machine": machine(),
        "parameters": {
            name: _count(module) for name in ("cvae", "mdn", "regressor", "classifier") if (module := getattr(trained, name)) is not None
        },
    }


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _commit() -> str:
    where = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "-C", str(where), "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"


# --- evaluate ---


def _evaluate(options: argparse.Namespace) -> None:
    if options.record:
        check_writable(RESULTS)
    colorizer = _colorizer(options.checkpoint, "faces" if options.data else "portraits")
    images: Tensor | None = None
    if options.data is None:
        part = options.split
        if part == "all":
            raise ConfigError("portraits come in three parts, drawn from three seeds", "--split", "Use train, val or test.")
        count = min(options.limit or PORTRAIT_COUNTS[part], PORTRAIT_COUNTS[part])
        source: FieldSource = subset(_portrait_fields(part, colorizer.device), torch.arange(count))
        groups = _numbered(count)
        portraits: Portraits | None = _portraits(part)
        about = {"kind": "portraits", "seed": PORTRAIT_SEED + list(PORTRAIT_COUNTS).index(part)}
    else:
        whole = load(options.data)
        photos = _part(whole, options.split)
        photos = photos.subset(range(min(options.limit or len(photos), len(photos))))
        source, groups, portraits = PhotoFields(photos.images, colorizer.device), list(photos.groups), None
        images = photos.images
        about = {"kind": "photographs", "source": whole.source, "sha256": content_hash(whole), "split seed": SPLIT_SEED}
    measured = _measured(colorizer, source, groups, portraits, options.samples, images)
    measured = {"split": options.split, "checkpoint": colorizer.manifest.get("name", "unknown"), **measured}
    if options.record:
        facts = {"name": options.record, "library": __version__, "commit": _commit(), "machine": machine(), "data": about}
        _write_json(RESULTS / f"{options.record}.json", {**facts, **measured})
    if options.json:
        print(json.dumps(measured, indent=1))
    else:
        print(_table(measured["rows"]))
        for name, value in measured.get("portraits", {}).items():
            print(f"{name:24} {value:.3f}")


def _part(photos: Photos, part: str) -> Photos:
    """Return one part of the split that training uses, or every photograph, single-tint ones too."""
    if part == "all":
        return photos
    photos = without_single_tint(photos)
    chosen = getattr(split_by_group(photos.groups, SPLIT_SEED), part)
    if len(chosen) == 0:
        raise DataError(f"the folder has no people in the split `{part}`", "--split", "Use --split all.")
    return photos.subset(chosen)


def _measured(
    colorizer: Colorizer,
    source: FieldSource,
    groups: list[str],
    portraits: Portraits | None,
    samples: int = 0,
    images: Tensor | None = None,
) -> dict[str, Any]:
    """Return the table and, for portraits, the scores against the posterior; with `images`, the errors by what can be measured of them."""
    rows = evaluate(colorizer, source, groups, samples=samples, progress=sys.stderr.isatty(), each=images is not None)
    measured: dict[str, Any] = {"images": len(source), "groups": len(set(groups)), "rows": rows}
    if portraits is not None:
        measured["portraits"] = _against_posterior(colorizer, source, portraits, rows)
    if images is not None:
        each = {row["name"]: row.pop("each") for row in rows}
        measured["each"] = _of_each(each, groups)
        measured["proxies"] = _by_proxy(each, images, groups)
    return measured


EACH_ROWS = ("model", "regression", "k-means 8")
PROXY_ROWS = ("model", "regression", "mean field")


def _of_each(each: dict[str, dict[str, list[float]]], groups: list[str]) -> dict[str, Any]:
    """Return the errors of every image, and a number for its person: enough to bootstrap, too little to find anybody."""
    first = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return {"person": [first[group] for group in groups]} | {name: each[name] for name in EACH_ROWS if name in each}


def _by_proxy(each: dict[str, dict[str, list[float]]], images: Tensor, groups: list[str]) -> dict[str, Any]:
    """Return errors by what is computed of a photograph, never by what somebody thinks that it shows."""
    values = {f"{name} {key}": torch.tensor(found) for name in PROXY_ROWS if name in each for key, found in each[name].items()}
    light, angle = face_tone(images)
    pictures = {group: groups.count(group) for group in set(groups)}
    proxies: dict[str, Any] = {}
    for proxy, numbers, edges in (
        ("lightness", light, torch.quantile(light, torch.tensor([1 / 3, 2 / 3])).tolist()),
        ("typology angle", angle, torch.quantile(angle, torch.tensor([1 / 3, 2 / 3])).tolist()),
        ("images of the person", torch.tensor([pictures[group] for group in groups]).float(), [1.5, 4.5]),
    ):
        labels = [str(band) for band in torch.bucketize(numbers.contiguous(), torch.tensor(edges)).tolist()]
        differences = {}
        low, high = (torch.tensor([label == end for label in labels]) for end in (min(labels), max(labels)))
        for name, value in values.items():
            with contextlib.suppress(DataError):  # too few people to compare
                differences[name] = bootstrap_difference(value, high, low, groups)
        proxies[proxy] = {"edges": edges, "bands": by_label(values, labels, groups), "highest minus lowest band": differences}
    return proxies


def _against_posterior(colorizer: Colorizer, source: FieldSource, portraits: Portraits, rows: list[Row]) -> dict[str, float]:
    indices = list(range(len(source)))
    outputs, weights, found, truths = [], [], [], []
    for part in torch.arange(len(source)).split(128):
        gray, truth = source.batch(part)
        fields, weight = colorizer.predict(gray)
        outputs.append(fields.cpu())
        weights.append(weight.cpu())
        found.append(errors_of(fields, truth).cpu())
        truths.append(truth.cpu())
    scores = portrait_scores(portraits, indices, torch.cat(outputs), torch.cat(weights))
    regression = [row["eob@1"] for row in rows if row["name"] == "regression"]
    if regression:
        scores |= oracle_gap(portraits, indices, torch.cat(found), torch.cat(truths), regression[0])
    return scores


def _table(rows: list[Row]) -> str:
    columns = [*(f"eob@{k}" for k in KS), "eob_pooled@8", "variance@8", "deltaE@8"]
    lines = [f"{'':16}" + "".join(f"{column:>14}" for column in columns)]
    for row in rows:
        lines.append(
            f"{row['name']:16}" + "".join(f"{row[column]:14.2f}" if column == "deltaE@8" else f"{row[column]:14.4f}" for column in columns)
        )
    return "\n".join(lines)


# --- ablate ---

ABLATION_COUNTS = {"train": 12000, "val": 300}


def _ablate(options: argparse.Namespace) -> None:
    device = _device(options.profile)
    if not 0 < options.scale < math.inf:
        raise ConfigError(f"the scale is {options.scale}", "--scale", "Use a positive number.")
    precision = options.precision or best_precision(device)
    rows = (face_variants if options.data else variants)(precision, options.scale)
    groups = sorted({row.group for row in rows} - {"base"})
    if unknown := sorted(set(options.group or ()) - set(groups)):
        raise ConfigError(f"there is no group `{unknown[0]}`", "--group", f"Use one of {', '.join(groups)}.")
    rows = [row for row in rows if row.group in ("base", *(options.group or groups))]
    run = options.run or Path("runs") / options.record
    for folder in (RESULTS, run):
        check_writable(folder)
    fields: dict[str, FieldSource] = {}
    about: dict[str, Any] = {"kind": "portraits", "counts": ABLATION_COUNTS, "seed": PORTRAIT_SEED}
    if options.data:
        fields, about, _ = _training_data(options.data, device)
    else:
        fields = {part: subset(_portrait_fields(part, device), torch.arange(count)) for part, count in ABLATION_COUNTS.items()}
    known = None if options.data else _portraits("val")
    started = time.monotonic()
    table = ablate(rows, fields["train"], fields["val"], known, run, device, sys.stderr.isatty())
    facts = {
        "name": "ablations",
        "library": __version__,
        "commit": _commit(),
        "machine": machine(),
        "precision": precision,
        "data": about,
        "steps": {stage: fit.steps for stage, fit in rows[0].recipe.fits().items()},
        "seconds of this call": round(time.monotonic() - started, 1),
    }
    _write_json(RESULTS / f"{options.record}.json", {**facts, "rows": table})
    for row in table:
        print(
            f"{row['group']:12} {row['name']:20} {row['seed']:2}"
            + "".join(f"{row[column]:10.4f}" for column in ("eob@1", "eob@8", "recall", "calibration") if column in row)
        )


# --- colorize ---


def _colorize(options: argparse.Namespace) -> None:
    if options.grid and len(options.photos) > 1:
        raise ConfigError("one grid shows one photograph", "--grid", "Name one PHOTO, or leave --grid out.")
    kind = options.grid.suffix.lstrip(".").lower() or "png" if options.grid else "png"
    if kind not in FigureCanvasBase.get_supported_filetypes():
        raise ConfigError(f"a grid cannot be written as `{kind}`", "--grid", "Use a name that ends in .png, .jpg, .pdf or .svg.")
    if not options.grid and len({photo.stem for photo in options.photos}) < len(options.photos):
        raise ConfigError("two photographs have the same name", "PHOTO", "Color them in two calls, each with an --out of its own.")
    colorizer = _colorizer(options.checkpoint, "faces")
    for photo in options.photos:
        result = colorizer.colorize(photo, options.n, options.crop, options.seed)
        if options.grid:
            figure = chapter_0.colorizations(result)
            with whole_file(options.grid) as temporary:
                figure.savefig(temporary, format=kind)
            plots.close(figure)
            print(options.grid)
        else:
            _write_pictures(result, photo, options.out)


def _write_pictures(result: Colorizations, photo: Path, folder: Path) -> None:
    for number, (image, probability) in enumerate(zip(result.images, result.probabilities), start=1):
        path = folder / f"{photo.stem}-{number}.png"
        with whole_file(path) as temporary:
            Image.fromarray(image).save(temporary, format="PNG")
        print(path, "sample" if probability is None else f"probability {probability:.2f}")


# --- data ---


def _data(options: argparse.Namespace) -> None:
    photos = load(options.folder)
    if options.record:
        check_writable(RESULTS)
    told = statement(photos)
    facts = {
        "source": told["source"],
        "images": told["images"],
        "people": told["people"],
        "single tint": told["single tint"],
        "train, val, test images": told["split"]["images"] if told["split"] else "too few people",
        "median L of the middle": round(told["L"]["quantiles"][2], 1),
        "median ITA, degrees": round(told["ITA"]["quantiles"][2], 1),
        "sha256 of the pixels": told["sha256 of the pixels"],
    }
    print(json.dumps(facts, indent=1) if options.json else "\n".join(f"{name:24} {value}" for name, value in facts.items()))
    if options.record:
        about = {"name": options.record, "library": __version__, "commit": _commit(), "machine": machine()}
        leak = leakage(photos) if told["split"] else None
        _write_json(RESULTS / f"{options.record}.json", {**about, **told, "leakage": leak})


# --- shared ---


def _colorizer(checkpoint: Path | None, shipped: str) -> Colorizer:
    device = _device(None)
    return Colorizer.from_checkpoint(checkpoint, device) if checkpoint else Colorizer.from_pretrained(shipped, device)


def _device(profile: str | None) -> torch.device:
    if profile == "gpu" and not torch.cuda.is_available():
        raise ConfigError("the profile is `gpu`, but torch sees no GPU", "--profile", "Leave it out to train on the processor.")
    return torch.device("cuda" if profile != "cpu" and torch.cuda.is_available() else "cpu")


def _write_json(path: Path, content: Any) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


# --- download ---


def _download(options: argparse.Namespace) -> None:
    place = options.to or download.default_folder()
    if options.list or not options.names:
        print(f"in {place}:")
        for entry in download.SOURCES:
            here = (place / entry.name).is_dir() or any((place / copy.file).is_file() for copy in entry.copies)
            print(f"{'here' if here else '-':5}{entry.name:18}{entry.title}; {entry.about}")
        return
    if options.source and len(options.names) > 1:
        raise ConfigError("one file was given for several names", "--from", "Name what it is, one at a time.")
    packed = {entry.name for entry in download.SOURCES if entry.packed}
    for name in options.names:
        if name == "lfw":
            print(download.lfw(place, options.source))
        else:
            print((download.fetch_folder if name in packed else download.fetch)(name, place, source=options.source))


if __name__ == "__main__":
    sys.exit(main())
