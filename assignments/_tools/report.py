"""Pages that a person reads: feedback for one student, and all answers in words for the one who marks them.

Each page is one file without scripts, follows the reader's choice of light or dark, and tells nothing by color alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from assignments._tools.exam import LOST
from assignments._tools.source import Assignment

NOT_DONE = "not done yet"
ONCE = (
    "An earlier task is not all right. So that this is not counted twice, this task was also run with our version of the earlier "
    "functions, and the better result counts."
)
ABOUT = (
    "Cells are counted from the top of the notebook, text too. If you think that a mark is wrong, tell your teacher the task, the line "
    "of this page, and in two sentences why."
)
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
# Text, quiet text, and the colors of right and wrong stand on the ground with a contrast of 4.5 or more; a test computes it.
LIGHT = {"text": "#1b1b1b", "ground": "#ffffff", "quiet": "#595959", "line": "#c4c4c4", "right": "#17663a", "wrong": "#a3241d"}
DARK = {"text": "#e8e6e3", "ground": "#17191b", "quiet": "#a8a8a8", "line": "#4a4e52", "right": "#7fce9b", "wrong": "#ffa198"}
STYLE = """
:root { color-scheme: light dark; }
* { box-sizing: border-box; }
body { color: var(--text); background: var(--ground); font: 1rem/1.55 system-ui, sans-serif; }
body { max-width: 46rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 0 0 .5rem; }
a { color: inherit; }
section { border-top: 1px solid var(--line); margin-top: 1.75rem; padding-top: 1rem; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; font-weight: 600; padding: .75rem 0 .25rem; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .5rem; text-align: left; vertical-align: top; }
th[scope=row] { font-weight: 400; }
tfoot th[scope=row], tfoot td { border-bottom: 0; font-weight: 600; }
.number { text-align: right; white-space: nowrap; }
.total { font-size: 1.25rem; }
.quiet { color: var(--quiet); }
.parts { list-style: none; padding: 0; }
.parts > li { border-left: .25rem solid var(--line); margin: .5rem 0; padding: .1rem 0 .1rem .75rem; }
.parts > .right { border-color: var(--right); }
.parts > .wrong { border-color: var(--wrong); }
.parts ul { margin: .15rem 0; padding-left: 1.2rem; }
.right > .mark { color: var(--right); }
.wrong > .mark { color: var(--wrong); }
.mark { font-weight: 600; }
blockquote { border-left: .25rem solid var(--line); margin: .5rem 0; padding: .1rem 0 .1rem .75rem; white-space: pre-wrap; }
li, th, td, p, blockquote { overflow-wrap: anywhere; }
@media print { body { max-width: none; padding: 0; font-size: 10.5pt; } }
@media print { .parts > li, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""


def total(result: Mapping[str, Any]) -> float:
    """Return the points of all tasks; what nobody has marked yet counts nothing."""
    return sum(task["earned"] or 0 for task in result["tasks"].values())


def feedback(assignment: Assignment, result: Mapping[str, Any]) -> str:
    """Return the page for one student."""
    tasks = result["tasks"].values()
    waiting = [task["title"] for task in tasks if task["earned"] is None]
    body = [
        f"<h1>{escape(assignment.title)}</h1>",
        f"<p>Feedback for <strong>{escape(result['student'])}</strong></p>",
        f'<p class="total"><strong>{total(result):g} of {assignment.points} points</strong></p>',
        f"<p>Still to be marked by a person: {escape(', '.join(waiting))}.</p>" if waiting else "",
        *_overview(assignment, result),
        *_notes(result["notes"]),
    ]
    for number, task in enumerate(tasks, start=1):
        body += ["<section>", *_task(number, task), "</section>"]
    body.append(f'<section><h2>About this page</h2><p class="quiet">{ABOUT}</p></section>')
    return _page(f"{assignment.title}: feedback for {result['student']}", body)


def to_mark(assignment: Assignment, results: Sequence[Mapping[str, Any]]) -> str:
    """Return the page for the one who marks: question by question, the model answer, then what each student wrote."""
    body = [
        f"<h1>{escape(assignment.title)}: answers to mark</h1>",
        "<p>For teachers. Points and comments belong into <code>by_hand.csv</code>.</p>",
    ]
    for number, task in enumerate(assignment.tasks, start=1):
        if not task.by_hand:
            continue
        body += ["<section>", f"<h2>{_titled(number, task.title)} ({task.points} points)</h2>"]
        body += ["<details><summary>The model answer, and how it is marked</summary>", _quoted(task.solution), "</details>"]
        for result in results:
            given = result["tasks"][task.name]
            mark = "not yet marked" if given["earned"] is None else f"{given['earned']:g} points"
            body += [
                f"<h3>{escape(result['student'])}: {mark}</h3>",
                _quoted(given["answer"]) if given["answer"] else "<p>There is no answer.</p>",
            ]
        body.append("</section>")
    return _page(f"{assignment.title}: answers to mark", body)


def _page(title: str, body: Sequence[str]) -> str:
    light, dark = (" ".join(f"--{name}: {value};" for name, value in colors.items()) for colors in (LIGHT, DARK))
    style = f"\n:root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}{STYLE}"
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>{style}</style>",
    ]
    lines = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", "<main>", *body, "</main>", "</body>", "</html>"]
    return "\n".join(line for line in lines if line) + "\n"


def _told(text: str) -> str:
    """Return a line of feedback, with what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _titled(number: int, title: str) -> str:
    return f"Task {number}. {escape(title)}"


def _quoted(text: str) -> str:
    return f"<blockquote>{escape(text)}</blockquote>"


def _overview(assignment: Assignment, result: Mapping[str, Any]) -> Iterator[str]:
    yield "<table>"
    yield "<caption>Points by task</caption>"
    numbers = "".join(f'<th scope="col" class="number">{name}</th>' for name in ("Points", "Out of"))
    yield f'<thead><tr><th scope="col">Task</th>{numbers}</tr></thead>'
    yield "<tbody>"
    for number, task in enumerate(result["tasks"].values(), start=1):
        mark = "not yet marked" if task["earned"] is None else f"{task['earned']:g}"
        cells = f'<td class="number">{mark}</td><td class="number">{task["points"]:g}</td>'
        yield f'<tr><th scope="row"><a href="#task-{number}">{_titled(number, task["title"])}</a></th>{cells}</tr>'
    yield "</tbody>"
    cells = f'<td class="number">{total(result):g}</td><td class="number">{assignment.points:g}</td>'
    yield f'<tfoot><tr><th scope="row">All</th>{cells}</tr></tfoot>'
    yield "</table>"


def _notes(notes: Sequence[str]) -> Iterator[str]:
    if notes:
        yield "<section>"
        yield "<h2>When your notebook was run</h2>"
        yield "<ul>"
        yield from (f"<li>{_told(note)}</li>" for note in notes)
        yield "</ul>"
        yield "</section>"


def _task(number: int, task: Mapping[str, Any]) -> Iterator[str]:
    yield f'<h2 id="task-{number}">{_titled(number, task["title"])}</h2>'
    yield f"<p>{task['earned']:g} of {task['points']:g} points</p>" if task["earned"] is not None else "<p>Not yet marked.</p>"
    if task["by_hand"]:
        yield f"<p>{escape(task['comment'])}</p>" if task["comment"] else ""
        yield f'<p class="quiet">Your answer:</p>{_quoted(task["answer"])}' if task["answer"] else "<p>There is no answer.</p>"
        return
    if task["ours_before"] and task["earned"]:
        yield f'<p class="quiet">{ONCE}</p>'
    found = [tuple(text for holds, text in part["lines"] if not holds) for part in task["parts"]]
    if all(texts == (NOT_DONE,) for texts in found):
        yield "<p>Nothing is written here yet. Every part would have earned points of its own.</p>"
    # What is the same everywhere is said once.
    same = found[0] if len(found) > 1 and len(set(found)) == 1 and found[0] and found[0] != (NOT_DONE,) else ()
    yield from (f"<p>In every part: {_told(text)}</p>" for text in same)
    yield '<ul class="parts">'
    for part, texts in zip(task["parts"], found):
        kind, word = _verdict(part, texts)
        yield f'<li class="{kind}"><span class="mark">{word}, {part["earned"]:g} of {part["points"]:g}:</span> {_told(part["name"])}'
        shown = () if same or texts == (NOT_DONE,) else texts
        if shown:
            yield "<ul>"
            yield from (f"<li>{_told(text)}</li>" for text in shown)
            yield "</ul>"
        yield "</li>"
    yield "</ul>"


def _verdict(part: Mapping[str, Any], texts: Sequence[str]) -> tuple[str, str]:
    """Return the class of a part's line, and the word that says the same."""
    if part["earned"] == part["points"]:
        return "right", "Right"
    if texts and all(text.startswith(LOST) for text in texts):
        return "wrong", "Not graded"
    return ("undone", "Not done yet") if tuple(texts) == (NOT_DONE,) else ("wrong", "Wrong")
