"""Grade submissions: `python -m assignments grade SUBMISSIONS --assignment 1 --seed ... --out ...`.

Into the folder `out` go `grades.csv`, `by_hand.csv` (what a person has to mark), `by_hand.html` (what there is to mark),
`feedback/STUDENT.html` and `results/STUDENT.json`. A later run into the same folder, of one task or of some of the students,
keeps everything else.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assignments._tools import report
from assignments._tools.build import YOUR_WORDS
from assignments._tools.confine import Box, BoxError, Limits, choose
from assignments._tools.exam import LOST, Outcome, Part, judge, rehearse, solution_of
from assignments._tools.perform import cells_to_run, earned, forbidden_imports, perform
from assignments._tools.source import FOLDER, Assignment, Task, grade_id
from book._tools.notebooks import Notebook, text_of
from divcolor_lib.errors import ConfigError, DataError, whole_file

LARGEST_SUBMISSION = 20 * 2**20
LONGEST_NAME = 80
Result = dict[str, Any]


@dataclass(frozen=True)
class Submission:
    """One student's work: a name, and the notebook or, in words, why there is none."""

    student: str
    notebook: Notebook | None
    problem: str = ""


def grade(
    assignment: Assignment,
    submissions: Sequence[Submission],
    seed: str,
    out: Path,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    only: str = "",
    unsafe: bool = False,
    jobs: int = 1,
    marks: Mapping[tuple[str, str], tuple[float, str]] | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> list[Result]:
    """Grade submissions and write what came out; return their results, in the order of the submissions.

    The tables hold everyone who was ever graded into this folder, such as those who handed in on time.

    Args:
        assignment: what they answer.
        submissions: from `find`.
        seed: the teacher's.
        out: folder for the results.
        limits: what each submission may use.
        only: regrade this one task, and keep the results of all others.
        unsafe: run submissions without confinement.
        jobs: how many at a time.
        marks: points and a comment for (student, task), for what a person marks. By default those that somebody wrote into
            `by_hand.csv` in `out`, so that grading again loses none.
        say: is told one line for each submission.

    Raises:
        ConfigError: there is no submission; the task is unknown, or nothing was graded before; confinement is refused; the folder
            holds results of another assignment.
        DataError: `by_hand.csv` cannot be read, or gives points to somebody who handed in nothing.
    """
    if not submissions:
        raise ConfigError("there is no submission", "grade", "Name a folder that holds notebooks, or one folder for each student.")
    chosen = [assignment.task(only)] if only else list(assignment.tasks)
    saved = _saved(out, assignment)
    students = {one.student for one in submissions}
    if only and (absent := sorted(students - set(saved))):
        raise ConfigError(f"{absent[0]} was not graded before", out, "Leave out --task first, so that there is something to keep.")
    by_hand = out / "by_hand.csv"
    known = marks if marks is not None else read_marks(by_hand, assignment) if by_hand.is_file() else {}
    if unknown := sorted({student for student, _ in known} - students - set(saved)):
        raise DataError(f"there are points for {unknown[0]}, of whom there is no submission", by_hand, "Mend the name, or remove the line.")
    # A task that only a person marks needs no submission to run.
    way = choose(unsafe, [FOLDER, out]) if any(not task.by_hand for task in chosen) else ""
    solution = solution_of(assignment)
    plans = {task.name: rehearse(assignment, task, seed, solution) for task in chosen if not task.by_hand}
    lock = threading.Lock()

    def judged(words: Mapping[str, str], task: str, outcomes: Mapping[str, Sequence[Outcome]]) -> Sequence[Part]:
        with lock:
            return judge(assignment, assignment.task(task), seed, solution, plans[task], outcomes, words)

    def one(submission: Submission) -> Result:
        result = dict(saved[submission.student]) if only else {"student": submission.student, "assignment": assignment.name, "tasks": {}}
        words = {task.name: answer_to(task, submission.notebook) for task in assignment.tasks if task.by_hand}
        result |= _graded(assignment, submission, chosen, plans, functools.partial(judged, words), limits, way, result)
        keep(result)
        say(f"{submission.student}: {report.total(result):g} of {assignment.points}")
        return result

    def keep(result: Result) -> None:
        for task in assignment.tasks:
            if task.by_hand and (result["student"], task.name) in known:
                points, comment = known[result["student"], task.name]
                result["tasks"][task.name] |= {"earned": points, "comment": comment}
        name = file_name(result["student"])
        _write(out / "results" / f"{name}.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        _write(out / "feedback" / f"{name}.html", report.feedback(assignment, result))

    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        results = list(pool.map(one, submissions))
    for student in set(saved) - students:
        keep(saved[student])
    everyone = sorted((saved | {result["student"]: result for result in results}).values(), key=lambda result: str(result["student"]))
    _write(out / "grades.csv", table(assignment, everyone))
    _write(out / "by_hand.csv", left_by_hand(assignment, everyone))
    if any(task.by_hand for task in assignment.tasks):
        _write(out / "by_hand.html", report.to_mark(assignment, everyone))
    return results


def _graded(
    assignment: Assignment,
    submission: Submission,
    chosen: Sequence[Task],
    plans: Mapping[str, Sequence[Part]],
    judged: Callable[[str, Any], Sequence[Part]],
    limits: Limits,
    way: str,
    result: Result,
) -> Result:
    tasks = dict(result["tasks"])
    notes = [submission.problem] if submission.problem else []
    flags: list[str] = []
    found: Mapping[str, tuple[Sequence[Part], bool]] = {}
    if submission.notebook is not None and plans:
        try:
            cells = cells_to_run(assignment, submission.notebook)
            if banned := forbidden_imports(assignment, cells):
                flags.append(f"it uses {', '.join(banned)}, which this assignment forbids")
            with Box(way) as box:
                found, more = perform(box, assignment, cells, limits, plans, judged)
            notes += more
        except (BoxError, OSError) as error:
            flags.append(f"the box failed, grade this one again: {error}")
        except Exception as error:  # whatever one submission meets, the class is graded
            flags.append(f"the grader failed on this one, which got nothing: {type(error).__name__}: {error}")
    for task in chosen:
        kept = {"points": task.points, "by_hand": task.by_hand, "title": task.title}
        if task.by_hand:
            earlier = tasks.get(task.name, {})
            answer = answer_to(task, submission.notebook)
            tasks[task.name] = {"earned": None if answer else 0, "comment": ""} | earlier | kept | {"answer": answer}
            continue
        parts, ours = found.get(task.name, (tuple(_lost(part) for part in plans[task.name]), False))
        flags += [f"{task.name}, `{part.name}`: the test met something unexpected ({part.odd})" for part in parts if part.odd]
        shown = [
            {"name": part.name, "points": part.points, "earned": part.earned, "lines": [list(line) for line in part.lines]}
            for part in parts
        ]
        needs_earlier = assignment.needs(task) if ours else ()
        tasks[task.name] = kept | {"earned": earned(parts), "parts": shown, "ours_before": bool(needs_earlier)}
    ordered = {task.name: tasks[task.name] for task in assignment.tasks if task.name in tasks}
    return {"tasks": ordered, "notes": notes if plans else result.get("notes", []), "flags": flags if plans else result.get("flags", [])}


def _lost(part: Part) -> Part:
    return Part(part.name, part.points, 0, ((False, f"{LOST}: there is no submission that runs"),))


def answer_to(task: Task, notebook: Notebook | None) -> str:
    """Return a student's words to a task that a person marks; an empty text if there are none."""
    cells = notebook["cells"] if notebook else []
    found = [text_of(cell["source"]).strip() for cell in cells if grade_id(cell) == f"answer-{task.name}"]
    return "" if not found or found[0] in ("", YOUR_WORDS, "YOUR ANSWER HERE") else found[0]


# --- files ----------------------------------------------------------------------------------------------------------------


def find(place: Path, assignment: str) -> list[Submission]:
    """Return the submissions at a place, sorted by student.

    A place is one notebook; or a folder of notebooks, each named after its student; or a folder with a folder for each student, in
    which the notebook lies, or lies in a folder named after the assignment, as nbgrader collects it.

    Raises:
        ConfigError: there is no such place.
    """
    if place.is_file():
        return [read_submission(place.stem, place)]
    if not place.is_dir():
        raise ConfigError("there is no such folder", place, "Name the folder with the submissions.")
    found = [read_submission(path.stem, path) for path in place.glob("*.ipynb") if path.is_file()]
    for folder in (path for path in place.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))):
        inner = next(path for path in (folder / assignment, folder) if path.is_dir())
        notebooks = sorted(path for path in inner.glob("*.ipynb") if not path.name.startswith("."))
        named = [path for path in notebooks if path.stem == assignment] or notebooks
        if len(named) == 1:
            found.append(read_submission(folder.name, named[0]))
        else:
            found.append(
                Submission(folder.name, None, f"there are {len(named)} notebooks in the folder; one is needed, {assignment}.ipynb")
            )
    students = [one.student for one in found]
    if twice := sorted({student for student in students if students.count(student) > 1}):
        raise ConfigError(f"there are two submissions of {twice[0]}", place, "Leave one of them there.")
    return sorted(found, key=lambda one: one.student)


def read_submission(student: str, path: Path) -> Submission:
    """Read a notebook that anyone may have written."""
    try:
        if path.is_symlink():
            return Submission(student, None, "the notebook is a link to another file")
        if path.stat().st_size > LARGEST_SUBMISSION:
            return Submission(student, None, f"the notebook is larger than {LARGEST_SUBMISSION >> 20} MB; clear its outputs")
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if notebook["nbformat"] != 4:
            return Submission(student, None, "the notebook is of an old format; save it again with a Jupyter of today")
        cells = [_cell(cell) for cell in notebook["cells"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        return Submission(student, None, f"the file is not a notebook that can be read ({type(error).__name__})")
    return Submission(student, {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def _cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    source = cell["source"]
    text = source if isinstance(source, str) else "".join(str(line) for line in source)
    metadata = cell.get("metadata", {})
    facts = metadata.get("nbgrader")
    kept = {"nbgrader": {"grade_id": str(facts.get("grade_id", ""))}} if isinstance(facts, dict) else {}
    return {"cell_type": str(cell["cell_type"]), "metadata": kept, "source": text}


def file_name(student: str) -> str:
    """Return a name for a student's files: their name, if every file system can write it.

    >>> file_name("ada.lovelace"), file_name("../x") == file_name("../x") != file_name("/../x")
    ('ada.lovelace', True)
    """
    if re.fullmatch(r"\w[\w.-]*", student, re.ASCII) and len(student) <= LONGEST_NAME:
        return student
    return (
        re.sub(r"[^\w-]+", "_", student, flags=re.ASCII).strip("_")[:LONGEST_NAME] + "-" + hashlib.sha256(student.encode()).hexdigest()[:8]
    )


def table(assignment: Assignment, results: Sequence[Result]) -> str:
    """Return all results as CSV: a line for each student."""
    rows = [["student", "total", "out of", *(task.name for task in assignment.tasks), "complete", "notes for the teacher"]]
    for result in results:
        marks = [result["tasks"][task.name]["earned"] for task in assignment.tasks]
        remarks = "; ".join([*result["flags"], *result["notes"]])
        rows.append(
            [
                *(_cell_of_table(result["student"]), f"{report.total(result):g}", str(assignment.points)),
                *("" if mark is None else f"{mark:g}" for mark in marks),
                *("no" if None in marks else "yes", _cell_of_table(remarks)),
            ]
        )
    return _csv(rows)


def left_by_hand(assignment: Assignment, results: Sequence[Result]) -> str:
    """Return what a person has to mark as CSV, with what was marked already; the filled-in file is what `--marks` takes."""
    rows = [["student", "task", "points", "out of", "comment"]]
    for result in results:
        for task in assignment.tasks:
            if task.by_hand:
                given = result["tasks"][task.name]
                mark = "" if given["earned"] is None else f"{given['earned']:g}"
                rows.append([_cell_of_table(result["student"]), task.name, mark, str(task.points), _cell_of_table(given["comment"])])
    return _csv(rows)


def read_marks(path: Path, assignment: Assignment) -> dict[tuple[str, str], tuple[float, str]]:
    """Read a filled-in `by_hand.csv`; lines without points are left out.

    Spreadsheets of many countries part columns by semicolons and write a comma in numbers; both are understood.

    Raises:
        DataError: it is no such table, or a line names no task that a person marks, or points that are no number or out of range.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError("the table cannot be read", path, "Save it as CSV in UTF-8.") from error
    head = text.split("\n", 1)[0]
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    if absent := {"student", "task", "points"} - set(rows.fieldnames or ()):
        raise DataError(f"there is no column `{min(absent)}`", path, "Keep the first line as `grade` wrote it.")
    found = {}
    for number, row in enumerate(rows, start=2):
        if not (row["points"] or "").strip():
            continue
        try:
            task = assignment.task(row["task"])
            points = float(row["points"].replace(",", "."))
            if not task.by_hand or not 0 <= points <= task.points:
                raise ValueError
        except (ValueError, TypeError, ConfigError) as error:
            raise DataError(
                f"line {number} cannot be used", path, "Each line needs a student, a task marked by hand, and its points."
            ) from error
        found[row["student"].removeprefix("'"), task.name] = (points, (row.get("comment") or "").strip())
    return found


def _cell_of_table(text: str) -> str:
    """A spreadsheet takes what begins like this for a formula and carries it out."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _saved(out: Path, assignment: Assignment) -> dict[str, Result]:
    """Return what was graded into this folder before, by student."""
    found = {}
    for path in sorted((out / "results").glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            found[str(result["student"])] = result
            other = result["assignment"] != assignment.name
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise DataError("this is no result of a submission", path, "Remove the file, and grade that submission again.") from error
        if other:
            raise ConfigError(
                f"the folder holds results of {result['assignment']}", out, f"Name another one with --out for {assignment.name}."
            )
    return found


def _write(path: Path, text: str) -> None:
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8", errors="replace")
