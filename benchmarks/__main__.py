"""The command line: `python -m benchmarks [--json] [--check] [--only NAME] [--rounds N] [--small]`.

Exit codes: 0 done; 1 `--check` was given and a row misses its target or its tolerance; 2 a wrong argument.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace

from divcolor_lib.runtime import machine

from .rows import ROWS, SMALL_SIZES, Row, Sizes, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the rows that are asked for, print them, and return the exit code."""
    options = _parser().parse_args(arguments)
    sizes = SMALL_SIZES if options.small else Sizes()
    if options.rounds is not None:
        sizes = replace(sizes, rounds=options.rounds)
    rows = []
    for name in options.only or ROWS:
        rows.append(run(name, sizes))
        if not options.json:
            print(as_text(rows[-1]), flush=True)
    if options.json:
        print(json.dumps(as_json(rows), indent=2))
    else:
        print(" · ".join(f"{key} {value}" for key, value in machine().items()))
    broken = [row.name for row in rows if not row.holds]
    if options.check and broken:
        print(f"missed: {', '.join(broken)}", file=sys.stderr)
    return 1 if options.check and broken else 0


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


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ratios of speed to plain code that does the same work.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a row misses its target or its tolerance")
    parser.add_argument("--only", action="append", choices=list(ROWS), metavar="NAME", help=f"one row, may be repeated: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=_at_least_one, metavar="N", help=f"pairs of measurements for each row (default {Sizes().rounds})")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs; the targets do not apply")
    return parser


if __name__ == "__main__":
    sys.exit(main())
