"""Make what students get on paper: an exam of the guide, or its test before and after, without answers: `python -m assignments sheet`."""

from __future__ import annotations

import re

from assignments._tools.source import FOLDER
from divcolor_lib.errors import ConfigError

GUIDE = FOLDER / "guide"
TEST = "test"

_EXAM = re.compile(r"^\| (\w) \| [^|]+ \| ([\w ]+) \|$", re.MULTILINE)
_QUESTION = re.compile(r"^### (\w+)\. ([^\n]+) \((\d+) points?, [^\n]*\)\n+(.*?)(?=^#{2,3} |\Z)", re.MULTILINE | re.DOTALL)


def exams() -> dict[str, list[str]]:
    """Return the names of the questions of each exam of the guide, by the exam's letter."""
    return {letter: names.split() for letter, names in _EXAM.findall(_text("exam.md"))}


def sheet(which: str) -> str:
    """Return the sheet of an exam (`A`, `B`, ...) or of the test before and after (`test`), as Markdown without answers.

    Raises:
        ConfigError: there is no such sheet.
    """
    if which == TEST:
        questions = _questions(_text("pre_post_test.md").split("## The key")[0])
        return _sheet("Twenty minutes, for no grade", "A word of your own, the same on both days: ____________", list(questions.values()))
    picked, questions = exams(), _questions(_text("exam.md"))
    if which not in picked:
        raise ConfigError(f"there is no sheet {which}", "assignments/guide/exam.md", f"There are: {', '.join([*picked, TEST])}.")
    return _sheet("Exam", "Name: ____________", [questions[name] for name in picked[which]])


def _questions(page: str) -> dict[str, tuple[str, int, str]]:
    """Return title, points and text of every question of a page, by name."""
    return {name: (title, int(points), body.split("**Answer.**")[0].strip()) for name, title, points, body in _QUESTION.findall(page)}


def _sheet(title: str, line: str, questions: list[tuple[str, int, str]]) -> str:
    parts = [f"# {title}\n\n{line}\n\n{sum(points for _, points, _ in questions)} points.\n"]
    for number, (name, points, body) in enumerate(questions, 1):
        parts.append(f"## {number}. {name} ({points} point{'s' * (points > 1)})\n\n{body}\n")
    return "\n".join(parts)


def _text(name: str) -> str:
    return (GUIDE / name).read_text(encoding="utf-8")
