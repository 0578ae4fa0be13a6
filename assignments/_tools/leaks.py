"""Nothing secret in what students get: no line of a solution or a hidden test, no mark of one, no seed.

What stands in a visible part of the source, in a chapter or in the library is no secret, though a solution may hold it too:
formulas, imports.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from assignments._tools.source import (
    BEGIN_HIDDEN,
    BEGIN_SOLUTION,
    END_HIDDEN,
    END_SOLUTION,
    ROOT,
    Assignment,
    is_answer,
    is_solution,
    is_test,
    visible_part,
)
from book._tools.notebooks import Notebook, read, text_of

MARKS = ("BEGIN SOLUTION", "END SOLUTION", "BEGIN HIDDEN", "END HIDDEN", "# stub:")
SHORTEST = 14
CELL_KEYS = frozenset({"nbgrader", "tags", "cellView"})
FACT_KEYS = frozenset({"grade", "grade_id", "locked", "points", "schema_version", "solution", "task", "cell_type", "checksum"})
NOTEBOOK_KEYS = frozenset({"kernelspec", "language_info"})
TEXT_FILES = frozenset({".html", ".js", ".json", ".ipynb", ".md", ".txt", ".py", ".css", ".xml", ".svg", ".inv", ""})


def secrets(assignment: Assignment) -> frozenset[str]:
    """Return the lines that no student's file may hold, squeezed: of solutions, model answers and hidden tests, and nowhere public."""
    hidden, shown = set[str](), set[str]()
    for cell in assignment.notebook["cells"]:
        text = text_of(cell["source"])
        if is_answer(cell):
            hidden |= _lines(text)
        elif is_solution(cell):
            inside = re.findall(rf"{BEGIN_SOLUTION}\n(.*?){END_SOLUTION}", text, re.DOTALL)
            hidden |= _lines("\n".join(inside))
            shown |= _lines(re.sub(rf"{BEGIN_SOLUTION}\n.*?{END_SOLUTION}", "", text, flags=re.DOTALL))
        elif is_test(cell):
            hidden |= _lines(text.split(BEGIN_HIDDEN, 1)[-1].split(END_HIDDEN, 1)[0])
            shown |= _lines(visible_part(text))
        else:
            shown |= _lines(text)
    return frozenset(hidden - shown - _public())


def in_text(text: str, secret: Iterable[str]) -> list[str]:
    """Return the secrets that a text holds."""
    squeezed = squeeze(text)
    return sorted(line for line in secret if line in squeezed)


def in_notebook(notebook: Notebook, assignment: Assignment, seed: str = "") -> list[str]:
    """Return complaints about a student's notebook: secrets anywhere in it, outputs, and metadata that nobody needs."""
    found = [f"it holds outputs (cell {number})" for number, cell in enumerate(notebook["cells"]) if cell.get("outputs")]
    found += [f"unknown metadata of the notebook: {key}" for key in set(notebook["metadata"]) - NOTEBOOK_KEYS]
    for number, cell in enumerate(notebook["cells"]):
        facts = cell["metadata"].get("nbgrader", {})
        unknown = (set(cell["metadata"]) - CELL_KEYS) | (set(facts) - FACT_KEYS) | (set(cell.get("attachments", {})))
        found += [f"unknown metadata of cell {number}: {key}" for key in sorted(unknown)]
    everything = "\n".join(_strings(notebook))
    found += [f"it holds the mark `{mark}`" for mark in MARKS if mark in everything]
    found += [f"it holds a secret line: {line[:80]}" for line in in_text(everything, secrets(assignment))]
    if len(seed) >= 4 and seed in everything:
        found.append("it holds the seed")
    return found


def in_folder(folder: Path, assignments: Iterable[Assignment]) -> list[str]:
    """Return complaints about a folder of files for students, such as the built book."""
    secret = frozenset().union(*(secrets(assignment) for assignment in assignments))
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        if "vendor" in name.parts or path.suffix not in TEXT_FILES:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".html":
            text = html.unescape(re.sub(r"<[^>]*>", "", text))
        if path.suffix in {".ipynb", ".json", ".js"}:
            text = text.replace("\\n", "\n").replace('\\"', '"')
        found += [f"{name} holds a secret line: {line[:80]}" for line in in_text(text, secret)]
        found += [f"{name} holds the mark `{mark}`" for mark in (BEGIN_SOLUTION, BEGIN_HIDDEN) if mark in text]
    return found


def squeeze(text: str) -> str:
    """Return a text without white space, so that neither indentation nor line breaks hide anything."""
    return re.sub(r"\s+", "", text)


def _lines(text: str) -> set[str]:
    """Return the lines that tell something: no imports, no short ones, no rules of tables."""
    lines = (line.strip() for line in text.splitlines() if re.search(r"\w", line))
    return {squeeze(line) for line in lines if len(squeeze(line)) >= SHORTEST and not line.startswith(("import ", "from "))}


def _strings(value: Any) -> Iterable[str]:
    """Yield every string in a notebook, keys included, and the parts of strings that are JSON themselves."""
    if isinstance(value, str):
        yield value
        if value.lstrip().startswith(("{", "[")):
            try:
                yield from _strings(json.loads(value))
            except (ValueError, RecursionError):
                return
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


@lru_cache
def _public() -> frozenset[str]:
    """Return the lines of the chapters and of the library."""
    found = set[str]()
    for path in (ROOT / "book").glob("*.ipynb"):
        for cell in read(path)["cells"]:
            found |= _lines(text_of(cell["source"]))
    for path in [*(ROOT / "divcolor_lib").rglob("*.py"), *(ROOT / "book").glob("*.md")]:
        found |= _lines(path.read_text(encoding="utf-8"))
    return frozenset(found)
