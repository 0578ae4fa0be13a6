"""Run the chapters and store their outputs: `make execute`.

A chapter whose fingerprint still fits is left alone. The others run from the top in the `cpu` profile, each in a fresh kernel;
a chapter that raises is not written. Alternative texts that figures bring along move to where the book looks for them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from book._tools.environment import THREADS, chapter_environment
from book._tools.fingerprint import ROOT, fingerprint
from book._tools.notebooks import Notebook, as_text, composed_alt, normal, read

CELL_TIMEOUT = 120


def is_fresh(notebook: Notebook, root: Path = ROOT) -> bool:
    """Whether the stored outputs belong to the code as it is now."""
    stored: object = notebook["metadata"].get("divcolor", {}).get("fingerprint")
    return stored == fingerprint(notebook, root)


def execute(notebook: Notebook, folder: Path, root: Path = ROOT, timeout: int = CELL_TIMEOUT) -> Notebook:
    """Run every cell in a fresh kernel, in `folder`; return the notebook with outputs, texts, time and fingerprint.

    Raises:
        CellExecutionError: a cell raised.
        CellTimeoutError: a cell took longer than `timeout` seconds.
    """
    running: Any = nbformat.from_dict(normal(notebook))
    client = NotebookClient(
        running,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],
        resources={"metadata": {"path": str(folder)}},
    )
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as profile:
        client.execute(env=chapter_environment(os.environ) | THREADS | {"IPYTHONDIR": profile})
    seconds = time.perf_counter() - began
    done = normal(with_alt_texts(running))
    before = done["metadata"].get("divcolor", {})
    recorded = {"seconds": recorded_seconds(before.get("seconds"), seconds), "fingerprint": fingerprint(done, root)}
    done["metadata"]["divcolor"] = before | recorded
    return done


def with_alt_texts(notebook: Notebook) -> Notebook:
    """Copy the text that a cell's figure brought along into the cell's `mystnb.image.alt`; return the notebook."""
    for cell in notebook["cells"]:
        if texts := composed_alt(cell):
            cell["metadata"].setdefault("mystnb", {}).setdefault("image", {})["alt"] = texts[0]
    return notebook


def recorded_seconds(before: float | None, measured: float) -> int:
    """Return whole seconds; keep the earlier number unless the new one differs clearly, so that a repeated run changes no file."""
    if before is not None and abs(measured - before) <= max(3.0, 0.3 * before):
        return int(before)
    return max(1, round(measured))


def write(path: Path, notebook: Notebook) -> bool:
    """Write the notebook in one step if its text differs from the file's; return whether it did."""
    nbformat.validate(nbformat.from_dict(notebook))
    text = as_text(notebook)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return True


def execute_file(path: Path, force: bool = False, root: Path = ROOT) -> str:
    """Bring one chapter up to date; return what happened, as one line."""
    notebook = read(path)
    if not force and is_fresh(notebook, root):
        return f"{path.name}: fresh"
    done = execute(notebook, path.parent, root)
    changed = write(path, done)
    return f"{path.name}: {done['metadata']['divcolor']['seconds']} s, {'written' if changed else 'nothing changed'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring the named chapters, or all of them, up to date; return 1 if one failed."""
    parser = argparse.ArgumentParser(description="Run chapters and store their outputs.")
    parser.add_argument("chapters", nargs="*", type=Path, help="notebooks; default: all in book/")
    parser.add_argument("--force", action="store_true", help="run fresh chapters too")
    options = parser.parse_args(arguments)
    failed = 0
    for path in options.chapters or sorted((ROOT / "book").glob("*.ipynb")):
        try:
            print(execute_file(path.resolve(), options.force), flush=True)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            print(f"{path.name}: failed, not written\n{error}", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
