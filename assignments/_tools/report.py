"""Feedback for one student as a page: everything in one file, no script, nothing that is told by color alone."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from assignments._tools.source import Assignment

STYLE = """
body { color: #1b1b1b; background: #fff; font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 1rem; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { border-bottom: 1px solid #767676; padding: .3rem .6rem; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
ul { padding-left: 1.2rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid #767676; padding: .6rem; }
li, td, p { overflow-wrap: anywhere; }
.wrong { font-weight: 600; }
"""
ONCE = "An earlier task is not all right. So that this is not counted twice, this one was run with our version of the earlier functions."
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def total(result: dict[str, Any]) -> float:
    """Return the points of all tasks; what nobody has marked yet counts nothing."""
    return sum(task["earned"] or 0 for task in result["tasks"].values())


def feedback(assignment: Assignment, result: dict[str, Any]) -> str:
    """Return the page."""
    waiting = [task["title"] for task in result["tasks"].values() if task["earned"] is None]
    body = [
        f"<h1>{escape(assignment.title)}</h1>",
        f"<p>Feedback for <strong>{escape(result['student'])}</strong>: {total(result):g} of {assignment.points} points."
        + (f" Still to be marked by a person: {escape(', '.join(waiting))}." if waiting else "")
        + "</p>",
        *_overview(result),
        *_notes(result["notes"]),
    ]
    for task in result["tasks"].values():
        body += _task(task)
    body.append("<p>Cells are counted from the top of the notebook, those with text too.</p>")
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(assignment.title)}: feedback for {escape(result['student'])}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            *body,
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _overview(result: dict[str, Any]) -> Iterator[str]:
    yield "<table>"
    yield "<caption>Points by task</caption>"
    numbers = "".join(f'<th scope="col" class="number">{name}</th>' for name in ("Points", "Out of"))
    yield f'<thead><tr><th scope="col">Task</th>{numbers}</tr></thead>'
    yield "<tbody>"
    for task in result["tasks"].values():
        mark = "not yet marked" if task["earned"] is None else f"{task['earned']:g}"
        cells = f'<td class="number">{mark}</td><td class="number">{task["points"]:g}</td>'
        yield f'<tr><th scope="row">{escape(task["title"])}</th>{cells}</tr>'
    yield "</tbody>"
    yield "</table>"


def _notes(notes: list[str]) -> Iterator[str]:
    if notes:
        yield "<h2>When your notebook was run</h2>"
        yield "<ul>"
        yield from (f"<li>{escape(note)}</li>" for note in notes)
        yield "</ul>"


def _task(task: dict[str, Any]) -> Iterator[str]:
    yield f"<h2>{escape(task['title'])}</h2>"
    if task["by_hand"]:
        yield f"<p>{escape(task['comment'])}</p>" if task["comment"] else ""
        yield "<p>Your answer:</p>" if task["answer"] else "<p>There is no answer.</p>"
        yield f"<pre>{escape(task['answer'])}</pre>" if task["answer"] else ""
        return
    if task["ours_before"] and task["earned"]:
        yield f"<p>{ONCE}</p>"
    yield "<ul>"
    for part in task["parts"]:
        right = part["earned"] == part["points"]
        yield f"<li>{'Right' if right else 'Wrong'}, {part['earned']:g} of {part['points']:g}: {escape(part['name'])}"
        wrong = [text for holds, text in part["lines"] if not holds]
        if wrong:
            yield "<ul>"
            yield from (f'<li class="wrong">{escape(text)}</li>' for text in wrong)
            yield "</ul>"
        yield "</li>"
    yield "</ul>"
