"""The command line: `python -m benchmarks [--json [FILE]] [--check] [--only NAME] [--rounds N] [--small]`: ratios on a processor.

And `python -m benchmarks --training [--device cuda] [--images N] [--batch N] [--width W] ...`: training on one device, in numbers.

Exit codes: 0 done; 1 `--check` was given and a row misses its target or its tolerance, or a file cannot be written;
2 a wrong argument.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from divcolor_lib.errors import StorageError, whole_file
from divcolor_lib.runtime import machine

from . import training
from .rows import ROWS, SMALL_SIZES, Row, Sizes, run

PRINTED = "-"
RATIO_OPTIONS = ("check",)
TRAINING_OPTIONS = ("device", "images", "batch", "width", "workers", "no_compile")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the rows that are asked for, print them, and return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    _check(parser, options)
    try:
        return _training(options) if options.training else _ratios(options)
    except StorageError as error:
        print(error, file=sys.stderr)
        return 1


def _ratios(options: argparse.Namespace) -> int:
    sizes = SMALL_SIZES if options.small else Sizes()
    if options.rounds is not None:
        sizes = replace(sizes, rounds=options.rounds)
    rows = []
    for name in options.only or ROWS:
        rows.append(run(name, sizes))
        if options.json != PRINTED:
            print(as_text(rows[-1]), flush=True)
    _finish(options, as_json(rows))
    broken = [row.name for row in rows if not row.holds]
    if options.check and broken:
        print(f"missed: {', '.join(broken)}", file=sys.stderr)
    return 1 if options.check and broken else 0


def _training(options: argparse.Namespace) -> int:
    plan = training.Plan(torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu")), compile=not options.no_compile)
    if options.small:
        plan = plan.small()
    given = {name: getattr(options, name) for name in ("images", "batch", "width", "workers", "rounds")}
    plan = replace(plan, **{name: value for name, value in given.items() if value is not None})
    rows = []
    for row in training.measure(plan, options.only or ()):
        rows.append(row)
        if options.json != PRINTED:
            print(training.as_text(row), flush=True)
    found = training.facts(plan, rows)
    if options.json != PRINTED:
        print(training.facts_as_text(found))
    _finish(options, {"training": [asdict(row) for row in rows], "device": found, "machine": machine()})
    return 0


def as_json(rows: Sequence[Row]) -> dict[str, object]:
    """Return plain data: every row with all of its facts, and the machine."""
    return {"rows": [asdict(row) for row in rows], "machine": machine()}


def as_text(row: Row) -> str:
    """Return one row for the eye, in three lines."""
    promise = f"target {row.target:g}x" if row.target is not None else f"no target: {row.why_no_target}"
    verdict = "" if row.holds else " MISSED"
    allowed = f", allowed {row.tolerance:g}" if row.tolerance is not None else ""
    return "\n".join(
        [
            f"{row.name}: {row.ratio:.3g}x ({row.low:.3g} to {row.high:.3g}), {promise}{verdict}",
            f"    {_seconds(row.ours)} against {_seconds(row.baseline)}; {row.what}",
            f"    largest difference {row.equal:.2g}{allowed}; {row.equal_of}",
        ]
    )


def _finish(options: argparse.Namespace, content: dict[str, object]) -> None:
    """Print or write JSON if it was asked for, and name the machine under a table."""
    text = json.dumps(content, indent=2)
    if options.json == PRINTED:
        print(text)
        return
    print(" · ".join(f"{key} {value}" for key, value in machine().items()))
    if options.json is not None:
        with whole_file(Path(options.json)) as path:
            path.write_text(text + "\n", encoding="utf-8")


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be at least 0")
    return value


def _width(text: str) -> float:
    value = float(text)
    if not 0 < value <= 4:
        raise argparse.ArgumentTypeError("must be above 0 and at most 4")
    return value


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with a usage message if options do not belong together."""
    strangers = RATIO_OPTIONS if options.training else TRAINING_OPTIONS
    given = [f"--{name.replace('_', '-')}" for name in strangers if getattr(options, name) != parser.get_default(name)]
    if given:
        parser.error(f"{given[0]} {'does not go' if options.training else 'goes only'} with --training")
    known = training.NETWORKS if options.training else tuple(ROWS)
    unknown = [name for name in options.only or () if name not in known]
    if unknown:
        parser.error(f"argument --only: `{unknown[0]}` is none of {', '.join(known)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no card")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ratios of speed to plain code that does the same work.")
    parser.add_argument(
        "--json", nargs="?", const=PRINTED, metavar="FILE", help="write JSON to FILE; without one, print it instead of text"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 when a row misses its target or its tolerance")
    parser.add_argument("--only", action="append", metavar="NAME", help=f"one row, may be repeated: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=_at_least_one, metavar="N", help=f"measurements for each row (default {Sizes().rounds} pairs)")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs; the targets do not apply")
    plan = training.Plan(torch.device("cpu"))
    group = parser.add_argument_group("training on one device, in absolute numbers")
    group.add_argument("--training", action="store_true", help=f"measure training steps; --only is one of {', '.join(training.NETWORKS)}")
    group.add_argument("--device", choices=("cpu", "cuda"), help="default: the card if there is one")
    group.add_argument("--images", type=_at_least_one, metavar="N", help=f"photographs in an epoch (default {plan.images})")
    group.add_argument("--batch", type=_at_least_one, metavar="N", help="images in a step (default: each recipe's own)")
    group.add_argument("--width", type=_width, metavar="W", help=f"of every network (default {plan.width:g}, full width)")
    group.add_argument("--workers", type=_not_negative, metavar="N", help=f"processes of the published loader (default {plan.workers})")
    group.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes minutes to start")
    return parser


if __name__ == "__main__":
    sys.exit(main())
