"""Make and grade the assignments: `python -m assignments make | grade | rehearse | leaks | quiz-key | sheet`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from assignments._tools import build, grade, leaks, quiz_key, sheet
from assignments._tools.confine import BoxError, Limits
from assignments._tools.grade import Submission
from assignments._tools.invent import invent
from assignments._tools.source import ROOT, Assignment, load, names
from book._tools.notebooks import as_text
from divcolor_lib.errors import ConfigError, DivcolorError, whole_file


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; return 0, 1 if a check found something, or 2 if it could not be carried out."""
    options = _parser().parse_args(arguments)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the tests are small, and the submissions need the other processors
    try:
        command: int = options.command(options)
        return command
    except (DivcolorError, BoxError) as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        torch.set_num_threads(threads)


def _make(options: argparse.Namespace) -> int:
    stale = 0
    for name in options.assignment or names():
        files = build.build(load(name), options.seed)
        if options.check:
            student = {path: text for path, text in files.items() if path.startswith(build.STUDENT)}
            differ = [path for path, text in student.items() if not _is(ROOT / path, text)]
            print("".join(f"{path} is not what its source makes; run make assignments\n" for path in differ), end="")
            stale |= bool(differ)
        else:
            build.write(files)
            print("".join(f"{path}\n" for path in files), end="")
    return stale


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _grade(options: argparse.Namespace) -> int:
    assignment = load(options.assignment)
    marks = grade.read_marks(options.marks, assignment) if options.marks else None
    limits = _limits(assignment, options)
    results = grade.grade(
        assignment,
        grade.find(options.submissions, assignment.name),
        options.seed,
        options.out,
        limits,
        options.task,
        options.unsafe,
        options.jobs,
        marks,
        say=lambda line: print(line, flush=True),
    )
    for result in results:
        for flag in result["flags"]:
            print(f"look at {result['student']}: {flag}")
    print(f"{len(results)} submissions; see {options.out / 'grades.csv'}")
    return 0


def _rehearse(options: argparse.Namespace) -> int:
    """Invent a class for each assignment, grade it, and compare with the marks that are due."""
    failed = 0
    for name in options.assignment or names():
        assignment = load(name)
        invented = invent(assignment, options.students)
        folder = options.out / assignment.name
        build.write({f"{one.student}.ipynb": as_text(one.notebook) for one in invented}, folder / "submissions")
        began = time.monotonic()
        results = grade.grade(
            assignment,
            [Submission(one.student, one.notebook) for one in invented],
            options.seed,
            folder / "graded",
            _limits(assignment, options),
            unsafe=options.unsafe,
            jobs=options.jobs,
            say=lambda line: print(line, flush=True),
        )
        minutes = (time.monotonic() - began) / 60
        for one, result in zip(invented, results):
            earned = {task: result["tasks"][task]["earned"] for task in one.due}
            wrong = [f"{task} got {earned[task]:g}, due are {due:g}" for task, due in one.due.items() if earned[task] != due]
            print("".join(f"{one.student}: {line}\n" for line in [*wrong, *result["flags"]]), end="")
            failed |= bool(wrong or result["flags"])
        print(f"{assignment.name}: {len(invented)} invented submissions in {minutes:.1f} minutes; see {folder}")
    return failed


def _limits(assignment: Assignment, options: argparse.Namespace) -> Limits:
    """Return what the command line says, else what the source says, else what is usual."""
    usual = {"seconds": Limits.seconds, "part_seconds": Limits.part_seconds, "memory_mb": Limits.memory_bytes >> 20}
    said = {name: getattr(options, name) for name in usual if getattr(options, name) is not None}
    chosen = usual | assignment.limits | said
    return Limits(chosen["seconds"], chosen["part_seconds"], int(chosen["memory_mb"]) * 2**20)


def _leaks(options: argparse.Namespace) -> int:
    if absent := [folder for folder in options.folders if not folder.is_dir()]:
        raise ConfigError("there is no such folder", absent[0], "Name folders; the built book is in _build/html.")
    assignments = [load(name) for name in names()]
    found = [f"{folder}: {complaint}" for folder in options.folders for complaint in leaks.in_folder(folder, assignments)]
    print("\n".join(found) or "nothing secret found")
    return 1 if found else 0


def _quiz_key(options: argparse.Namespace) -> int:
    text = quiz_key.made()
    if options.check:
        fresh = _is(quiz_key.PATH, text)
        print("the key is that of the quizzes" if fresh else "the key is out of date; run python -m assignments quiz-key")
        return 0 if fresh else 1
    with whole_file(quiz_key.PATH) as part:
        part.write_text(text, encoding="utf-8")
    print(quiz_key.PATH.relative_to(ROOT))
    return 0


def _sheet(options: argparse.Namespace) -> int:
    print(sheet.sheet(options.which), end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m assignments", description="Make and grade the assignments of the course.")
    commands = parser.add_subparsers(required=True)
    make = commands.add_parser("make", help="make student notebook, autograder, solution and rubric from the source")
    make.add_argument("assignment", nargs="*", help="number or name; default: all")
    make.add_argument("--seed", required=True, help="your secret: any word; hidden tests draw their inputs from it")
    make.add_argument("--check", action="store_true", help="write nothing; fail if a committed student notebook differs")
    make.set_defaults(command=_make)
    one = commands.add_parser("grade", help="grade submissions")
    one.add_argument("submissions", type=Path, help="a folder of notebooks, a folder of folders, or one notebook")
    one.add_argument("--assignment", required=True, help="number or name")
    one.add_argument("--seed", required=True, help="the seed of `make`")
    one.add_argument("--out", type=Path, required=True, help="folder for grades, feedback and results")
    one.add_argument("--task", default="", help="regrade this task only, keep all others")
    _how_to_run(one)
    one.add_argument("--marks", type=Path, help="points that a person gave (default: OUT/by_hand.csv, where it exists)")
    one.set_defaults(command=_grade)
    whole = commands.add_parser("rehearse", help="invent a class whose marks are known, grade it, and compare")
    whole.add_argument("assignment", nargs="*", help="number or name; default: all")
    whole.add_argument("--students", type=int, default=4, help="how many (default: %(default)s, one of each kind)")
    whole.add_argument("--seed", default="rehearsal", help="default: %(default)s")
    whole.add_argument("--out", type=Path, required=True, help="folder; in it, for each assignment, submissions and graded")
    _how_to_run(whole)
    whole.set_defaults(command=_rehearse)
    look = commands.add_parser("leaks", help="look for solutions and hidden tests in folders, such as the built book")
    look.add_argument("folders", nargs="+", type=Path)
    look.set_defaults(command=_leaks)
    answers = commands.add_parser("quiz-key", help="make the key of the book's quizzes, for the guide")
    answers.add_argument("--check", action="store_true", help="write nothing; fail if the key is not that of the quizzes")
    answers.set_defaults(command=_quiz_key)
    paper = commands.add_parser("sheet", help="print an exam of the guide, or the test before and after, without answers")
    paper.add_argument("which", help="the letter of an exam, or test")
    paper.set_defaults(command=_sheet)
    return parser


def _how_to_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=_positive, help="for one submission; default: as the assignment says")
    parser.add_argument("--part-seconds", type=_positive, help="for a cell or a part of a task; default: as the assignment says")
    parser.add_argument("--memory-mb", type=_positive, help="beyond Python and torch; default: as the assignment says")
    parser.add_argument("--jobs", type=int, default=1, help="submissions at a time (default: %(default)s)")
    parser.add_argument(
        "--unsafe", action="store_true", help="run submissions without confinement: they can read, change and delete what you can"
    )


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


if __name__ == "__main__":
    sys.exit(main())
