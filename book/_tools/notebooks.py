"""What a committed notebook must be like: small checks, each a pure function from a notebook (a dict) to a list of complaints.

`CHECKS` lists them. The tests run each on every chapter, and on a notebook broken on purpose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

Notebook = dict[str, Any]
Check = Callable[[Notebook], list[str]]

MARK, MARK_TAG = "NBVAL_CHECK_OUTPUT", "nbval-check-output"
SKIP_TAGS = frozenset({"nbval-skip", "raises-exception"})
PICTURES = ("image/png", "image/jpeg")
LARGEST_NOTEBOOK, LARGEST_BOOK = 1_500_000, 15_000_000
LONGEST_BOOK_SECONDS = 600
NEARBY = 8
KEPT_CELL_METADATA = frozenset({"tags", "mystnb", "cellView"})
KEPT_NOTEBOOK_METADATA = frozenset({"kernelspec", "language_info", "divcolor", "accelerator"})
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python", "pygments_lexer": "ipython3"}

_ABSOLUTE = re.compile(r"(?<![\w:/.~<])/(?:home|root|Users|tmp|work|mnt|opt|usr|var|private|Volumes)/\w|\b[A-Za-z]:\\\w|file:///")
_FENCE = re.compile(r"^\s*(`{3,}|~{3,}|:{3,})(.*)$")
_ROLE = re.compile(r"\{[a-z][\w:.+-]*\}`[^`]+`")
_DISPLAY_MATH = re.compile(r"\$\$.*?\$\$", re.DOTALL)
_BARE_NUMBER = re.compile(r"\$[\s\\~\d.,%+-]*\$")
_NOT_PROSE = re.compile(r"`[^`]*`|\$[^$]*\$|!?\[[^\]]*\]\([^)]*\)|<[^>]*>")
_RESULT = re.compile(r"\d+\.\d+|\d+ ?(?:%|\\%|percent\b)")
_ASSERTED = re.compile(r"<!-- asserted: ([\w-]+) -->")
_HEADING = re.compile(r"^(#{1,6})\s+\S")
_HTML_OPENS = re.compile(r"^\s*<(?:div|details)\b[^>]*>\s*$|^.*</summary>\s*$|^\s*<p class=.*</p>\s*$")
_HTML_CLOSES = re.compile(r"^\s*</(?:div|details)>\s*$")


def text_of(value: str | list[str]) -> str:
    """Return a multi-line field of nbformat as one string."""
    return value if isinstance(value, str) else "".join(value)


def code_cells(notebook: Notebook) -> list[tuple[str, dict[str, Any]]]:
    """Return (where, cell) of every code cell that is not empty."""
    return [
        (f"cell {index}", cell)
        for index, cell in enumerate(notebook["cells"])
        if cell["cell_type"] == "code" and text_of(cell["source"]).strip()
    ]


def markdown_cells(notebook: Notebook) -> list[tuple[str, str]]:
    """Return (where, text) of every markdown cell."""
    return [(f"cell {index}", text_of(cell["source"])) for index, cell in enumerate(notebook["cells"]) if cell["cell_type"] == "markdown"]


def tags(cell: dict[str, Any]) -> set[str]:
    """Return the tags of a cell."""
    return set(cell.get("metadata", {}).get("tags", []))


def pictures(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the outputs of a cell that hold a picture."""
    return [output for output in cell.get("outputs", []) if any(kind.startswith("image/") for kind in output.get("data", {}))]


def composed_alt(cell: dict[str, Any]) -> list[str]:
    """Return the alternative texts that a cell's outputs bring along, in `metadata["image/png"]["alt"]`."""
    texts = (output.get("metadata", {}).get(kind, {}).get("alt", "") for output in pictures(cell) for kind in PICTURES)
    return [text for text in texts if text]


def prose_lines(markdown: str) -> Iterator[str]:
    """Yield the lines of a markdown text that stand outside fenced code."""
    fence = ""
    for line in markdown.splitlines():
        found = _FENCE.match(line)
        if found and not fence:
            fence = found[1]
        elif found and found[1].startswith(fence) and not found[2].strip():
            fence = ""
        elif not fence:
            yield line


# --- outputs ------------------------------------------------------------------------------------------------------------


def marked_cell_without_output(notebook: Notebook) -> list[str]:
    """nbval compares nothing, and says nothing, when a marked cell has no stored output."""
    marked = ((where, cell) for where, cell in code_cells(notebook) if MARK in text_of(cell["source"]) or MARK_TAG in tags(cell))
    return [
        f"{where} is marked {MARK} and has no stored text output"
        for where, cell in marked
        if not any(_comparable(output) for output in cell["outputs"])
    ]


def _comparable(output: dict[str, Any]) -> bool:
    return (
        bool(output.get("text"))
        if output["output_type"] == "stream"
        else "text/plain" in output.get("data", {}) and not _is_picture(output)
    )


def _is_picture(output: dict[str, Any]) -> bool:
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def cell_not_executed(notebook: Notebook) -> list[str]:
    """Every code cell ran, from the top, once."""
    counts = [(where, cell["execution_count"]) for where, cell in code_cells(notebook)]
    return [f"{where} was executed as {found}, not as {wanted}" for wanted, (where, found) in enumerate(counts, start=1) if found != wanted]


def cell_never_checked(notebook: Notebook) -> list[str]:
    """A tag that makes nbval skip a cell, or pass it when it fails, hides breakage."""
    return [f"{where} has the tag {tag}" for where, cell in code_cells(notebook) for tag in sorted(tags(cell) & SKIP_TAGS)]


def stored_error(notebook: Notebook) -> list[str]:
    """A traceback does not belong on a page."""
    return [
        f"{where} stores an error"
        for where, cell in code_cells(notebook)
        if any(output["output_type"] == "error" for output in cell["outputs"])
    ]


def stored_stderr(notebook: Notebook) -> list[str]:
    """Warnings and progress bars do not belong on a page."""
    return [
        f"{where} stores output on stderr"
        for where, cell in code_cells(notebook)
        if any(output.get("name") == "stderr" for output in cell["outputs"])
    ]


def widget(notebook: Notebook) -> list[str]:
    """Widget state shows as `Invalid Notebook` on GitHub and needs a kernel everywhere else."""
    found = ["the notebook's metadata hold widgets"] if "widgets" in notebook["metadata"] else []
    kinds = ((where, kind) for where, cell in code_cells(notebook) for output in cell["outputs"] for kind in output.get("data", {}))
    return found + [f"{where} outputs a widget" for where, kind in kinds if "jupyter.widget" in kind]


def picture_without_alt(notebook: Notebook) -> list[str]:
    """Every picture has a text for readers who do not see it."""
    shown = [(where, cell) for where, cell in code_cells(notebook) if pictures(cell)]
    alt = [(where, cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")) for where, cell in shown]
    return [f"{where} shows a picture without alternative text (mystnb.image.alt)" for where, text in alt if not text.strip()]


def alt_out_of_date(notebook: Notebook) -> list[str]:
    """The text in the cell's metadata is the one that the picture brought along."""
    cells = [
        (where, composed_alt(cell), cell["metadata"].get("mystnb", {}).get("image", {}).get("alt")) for where, cell in code_cells(notebook)
    ]
    return [
        f"{where}: mystnb.image.alt differs from the text that the figure composed"
        for where, texts, stored in cells
        if texts and stored != texts[0]
    ]


def several_pictures(notebook: Notebook) -> list[str]:
    """One figure a cell: one text describes it."""
    return [f"{where} shows {len(pictures(cell))} pictures" for where, cell in code_cells(notebook) if len(pictures(cell)) > 1]


def picture_of_another_kind(notebook: Notebook) -> list[str]:
    """nbval leaves out png and jpeg only; it would compare the text of others."""
    kinds = ((where, kind) for where, cell in code_cells(notebook) for output in pictures(cell) for kind in output["data"])
    return [f"{where} outputs {kind}" for where, kind in kinds if kind.startswith("image/") and kind not in PICTURES]


def absolute_path(notebook: Notebook) -> list[str]:
    """A path of one machine, in sources, outputs or metadata."""
    texts = [("the metadata", json.dumps(notebook["metadata"]))]
    for index, cell in enumerate(notebook["cells"]):
        texts.append((f"cell {index}", text_of(cell["source"])))
        texts.append((f"the metadata of cell {index}", json.dumps(cell["metadata"])))
        texts += [(f"the output of cell {index}", text) for output in cell.get("outputs", []) for text in _output_texts(output)]
    return [f"{where} holds an absolute path: {found[0]}..." for where, text in texts for found in [_ABSOLUTE.search(text)] if found]


def _output_texts(output: dict[str, Any]) -> Iterator[str]:
    yield text_of(output.get("text", ""))
    yield "\n".join(output.get("traceback", []))
    for kind, data in output.get("data", {}).items():
        if not kind.startswith("image/"):
            yield json.dumps(data) if isinstance(data, dict) else text_of(data)


# --- text ---------------------------------------------------------------------------------------------------------------


def headings(notebook: Notebook) -> list[str]:
    """The first cell opens with the one title; no level is left out."""
    cells = markdown_cells(notebook)
    first = text_of(notebook["cells"][0]["source"]) if notebook["cells"] else ""
    problems = [] if re.match(r"# \S", first) else ["the first cell does not start with a title"]
    levels = [(where, len(found[1])) for where, text in cells for line in prose_lines(text) if (found := _HEADING.match(line))]
    problems += [f"{where} holds another title of the first level" for where, level in levels[1:] if level == 1]
    return problems + [
        f"{where}: a heading goes from level {before} to {level}" for (_, before), (where, level) in pairwise(levels) if level > before + 1
    ]


def directive_or_role(notebook: Notebook) -> list[str]:
    """Colab shows MyST's directives and roles as raw text."""
    problems = []
    for where, text in markdown_cells(notebook):
        fences = [found for line in text.splitlines() if (found := _FENCE.match(line))]
        problems += [
            f"{where} holds the directive fence {found[0].strip()}"
            for found in fences
            if found[2].lstrip().startswith("{") or found[1].startswith(":")
        ]
        problems += [f"{where} holds the raw role {role}" for line in prose_lines(text) for role in _ROLE.findall(line)]
    return problems


def html_block_without_blank_lines(notebook: Notebook) -> list[str]:
    """Markdown inside an HTML block needs a blank line after the opening tag and before the closing one."""
    problems = []
    for where, text in markdown_cells(notebook):
        lines = ["", *prose_lines(text), ""]
        for before, line, after in zip(lines, lines[1:], lines[2:]):
            if _HTML_OPENS.match(line) and _is_markdown(after):
                problems.append(f"{where}: no blank line after {line.strip()[:60]}")
            if _HTML_CLOSES.match(line) and _is_markdown(before):
                problems.append(f"{where}: no blank line before {line.strip()}")
    return problems


def _is_markdown(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("<")


# --- exercises and numbers ----------------------------------------------------------------------------------------------


def exercise_incomplete(notebook: Notebook) -> list[str]:
    """Every exercise has a stub that reports `not done yet` and, after it, a folded solution whose check is strict.

    The cells are called `exercise-NAME` and `solution-NAME`; Colab folds a cell with a title in the form view.
    """
    cells = {cell.get("id"): (index, cell) for index, cell in enumerate(notebook["cells"])}
    stubs = {name.removeprefix("exercise-") for name in cells if str(name).startswith("exercise-")}
    solutions = {name.removeprefix("solution-") for name in cells if str(name).startswith("solution-")}
    problems = [f"the exercise {name} has no solution" for name in sorted(stubs - solutions)]
    problems += [f"the solution {name} has no exercise" for name in sorted(solutions - stubs)]
    for name in sorted(stubs & solutions):
        (before, stub), (after, solution) = cells[f"exercise-{name}"], cells[f"solution-{name}"]
        source, told = text_of(solution["source"]), "".join(text_of(output.get("text", "")) for output in stub.get("outputs", []))
        demands = {
            "stands before its exercise": before > after,
            "does not begin with `# @title Solution`": not source.startswith("# @title Solution"),
            "has no strict check": "strict=True" not in source,
            "is not folded (tag hide-cell, cellView form)": "hide-cell" not in tags(solution)
            or solution["metadata"].get("cellView") != "form",
        }
        problems += [f"the solution {name} {what}" for what, broken in demands.items() if broken]
        if "not done yet" not in told or MARK_TAG not in tags(stub):
            problems.append(f"the exercise {name} does not show `not done yet`, or lacks the tag {MARK_TAG}")
    return problems


def number_in_prose(notebook: Notebook) -> list[str]:
    """A decimal or a percentage in the text names a cell nearby that asserts it: `<!-- asserted: cell-id -->`.

    What stands in code, in a formula or in a link is no result; a formula that is nothing but a number is.
    """
    ids = [cell.get("id") for cell in notebook["cells"]]
    problems = []
    for index, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "markdown":
            continue
        text = _DISPLAY_MATH.sub("", "\n".join(prose_lines(text_of(cell["source"]))))
        named = _ASSERTED.findall(text)
        lone = [number[0].strip("$") for number in _BARE_NUMBER.finditer(text) if re.search(r"\d\.\d|%", number[0])]
        found = _RESULT.findall(_NOT_PROSE.sub(" ", text)) + lone
        problems += [f"cell {index} states {number} and names no cell that asserts it" for number in found if not named]
        for name in named:
            place = ids.index(name) if name in ids else -100
            if abs(place - index) > NEARBY or not _asserts(notebook["cells"][place]):
                problems.append(f"cell {index} names {name}, which is not within {NEARBY} cells or asserts nothing")
    return problems


def _asserts(cell: dict[str, Any]) -> bool:
    source = text_of(cell["source"])
    return cell["cell_type"] == "code" and ("assert" in source or MARK in source or MARK_TAG in tags(cell))


# --- form ---------------------------------------------------------------------------------------------------------------


def cell_ids(notebook: Notebook) -> list[str]:
    """Ids are there and differ, so that a change shows as a change of one cell."""
    ids = [cell.get("id") for cell in notebook["cells"]]
    return [f"cell {index} has no id of its own" for index, name in enumerate(ids) if not name or name in ids[:index]]


def not_normal(notebook: Notebook) -> list[str]:
    """The file is as `make execute` writes it."""
    return [] if normal(notebook) == notebook else ["the notebook holds metadata or outputs that `make execute` would leave out"]


def too_large(notebook: Notebook) -> list[str]:
    """A notebook stays small enough for GitHub and Colab to show it."""
    size = len(as_text(notebook).encode())
    return [f"the notebook has {size / 1e6:.2f} MB; at most {LARGEST_NOTEBOOK / 1e6:g} are allowed"] if size > LARGEST_NOTEBOOK else []


CHECKS: tuple[Check, ...] = (
    marked_cell_without_output,
    cell_not_executed,
    cell_never_checked,
    stored_error,
    stored_stderr,
    widget,
    picture_without_alt,
    alt_out_of_date,
    several_pictures,
    picture_of_another_kind,
    absolute_path,
    headings,
    directive_or_role,
    html_block_without_blank_lines,
    exercise_incomplete,
    number_in_prose,
    cell_ids,
    not_normal,
    too_large,
)


# --- the whole book -----------------------------------------------------------------------------------------------------


def toc_files(toc: dict[str, Any]) -> list[str]:
    """Return every file that a table of contents (format jb-book) names, the root first."""
    found = []

    def walk(node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                walk(item)
        elif isinstance(node, dict):
            found.extend([node["file"]] if "file" in node else [])
            for value in node.values():
                walk(value)

    walk({key: value for key, value in toc.items() if key != "root"})
    return [toc["root"], *found]


def chapters_differ(notebooks: Iterable[str], listed: Iterable[str], place: str) -> list[str]:
    """Compare the notebooks on the disk with those that `place` lists; names such as `book/00_start`."""
    there, named = set(notebooks), set(listed)
    return [f"{name} is missing from {place}" for name in sorted(there - named)] + [
        f"{place} names {name}, which is not there" for name in sorted(named - there)
    ]


def too_slow(seconds: dict[str, float]) -> list[str]:
    """The recorded times of all chapters together stay within the limit, so that every change can be tested."""
    absent = [f"{name} has no recorded time; run make execute" for name, value in seconds.items() if not value > 0]
    total = sum(seconds.values())
    return absent + (
        [f"all chapters take {total:.0f} s; at most {LONGEST_BOOK_SECONDS} are allowed"] if total > LONGEST_BOOK_SECONDS else []
    )


def too_large_together(sizes: dict[str, int]) -> list[str]:
    """All notebooks together stay small enough to be cloned by a whole class."""
    total = sum(sizes.values())
    return [f"all notebooks have {total / 1e6:.1f} MB; at most {LARGEST_BOOK / 1e6:g} are allowed"] if total > LARGEST_BOOK else []


# --- the stored form ----------------------------------------------------------------------------------------------------


def normal(notebook: Notebook) -> Notebook:
    """Return a copy with only what belongs in the repository: no editor's metadata, no version numbers, one output per stream."""
    metadata = {key: value for key, value in notebook["metadata"].items() if key in KEPT_NOTEBOOK_METADATA}
    cells = [_normal_cell(cell, index) for index, cell in enumerate(notebook["cells"])]
    return {"cells": cells, "metadata": metadata | {"kernelspec": KERNEL, "language_info": LANGUAGE}, "nbformat": 4, "nbformat_minor": 5}


def _normal_cell(cell: dict[str, Any], index: int) -> dict[str, Any]:
    metadata = {key: value for key, value in cell["metadata"].items() if key in KEPT_CELL_METADATA}
    kept = {
        "cell_type": cell["cell_type"],
        "id": cell.get("id") or f"cell-{index:02d}",
        "metadata": metadata,
        "source": text_of(cell["source"]),
    }
    if cell["cell_type"] == "code":
        kept |= {"execution_count": cell["execution_count"], "outputs": _merged([_normal_output(output) for output in cell["outputs"]])}
    return kept


def _normal_output(output: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in output.items() if key != "transient"}
    if "text" in kept:
        kept["text"] = text_of(kept["text"])
    if "data" in kept:
        kept["data"] = {kind: text_of(data) if isinstance(data, list) else data for kind, data in kept["data"].items()}
        kept["data"] = {kind: data.rstrip("\n") if kind.startswith("image/") else data for kind, data in kept["data"].items()}
    return kept


def _merged(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join neighboring pieces of one stream: where the kernel cuts it depends on the clock."""
    merged: list[dict[str, Any]] = []
    for output in outputs:
        if merged and output["output_type"] == "stream" and merged[-1].get("name") == output["name"]:
            merged[-1] = merged[-1] | {"text": merged[-1]["text"] + output["text"]}
        else:
            merged.append(output)
    return merged


def as_text(notebook: Notebook) -> str:
    """Return the file's text: keys sorted, one source line a line, so that changes read well."""
    lines = json.loads(json.dumps(notebook))
    for cell in lines["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)
        for output in cell.get("outputs", []):
            if "text" in output:
                output["text"] = output["text"].splitlines(keepends=True)
    return json.dumps(lines, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read(path: Path) -> Notebook:
    """Return a notebook file in its normal reading form: sources and texts are single strings."""
    notebook: Notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = text_of(cell["source"])
        for output in cell.get("outputs", []):
            if "text" in output:
                output["text"] = text_of(output["text"])
            for kind, data in output.get("data", {}).items():
                output["data"][kind] = text_of(data) if isinstance(data, list) else data
    return notebook
