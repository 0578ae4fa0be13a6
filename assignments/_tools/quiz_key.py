"""Make the key of the book's quizzes, `assignments/guide/quiz_key.md`, from the quizzes' JSON files: `python -m assignments quiz-key`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from assignments._tools.source import FOLDER, ROOT
from divcolor_lib.checks.quiz import Quiz, load

PATH = FOLDER / "guide" / "quiz_key.md"
HEAD = """\
# The key of the quizzes

Made by `python -m assignments quiz-key` from `book/quizzes/`; change the quizzes, then run it again. The letters, the questions and
the reasons are those of the book, which shows a reason as soon as a student has chosen. So this key hides nothing from anybody who opens a
fold: use it to prepare, to print, and to ask *why is this one wrong?* Where a question shows pictures, the texts describe them.

{count} questions. The right letters:

"""


def files() -> list[Path]:
    """Return the quizzes of the book in order, without their translations."""
    return sorted(path for path in (ROOT / "book" / "quizzes").glob("*.json") if path.stem.isdigit())


def key(quizzes: Sequence[Quiz]) -> str:
    """Return the key as Markdown: a table of letters, then every question with the reason for each choice."""
    count = sum(len(quiz.questions) for quiz in quizzes)
    return HEAD.format(count=count) + _letters(quizzes) + "".join(_quiz(quiz) for quiz in quizzes)


def _letters(quizzes: Sequence[Quiz]) -> str:
    most = max(len(quiz.questions) for quiz in quizzes)
    numbers = [str(number) for number in range(1, most + 1)]
    rows = [["chapter", *numbers], ["---:", *["---"] * most]]
    for quiz in quizzes:
        letters = [question.answer for question in quiz.questions]
        rows.append([str(int(quiz.name)), *letters, *[""] * (most - len(letters))])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _quiz(quiz: Quiz) -> str:
    parts = [f"\n## Chapter {int(quiz.name)}: {quiz.title.removeprefix('Quiz: ')}\n"]
    for number, question in enumerate(quiz.questions, 1):
        parts.append(f"\n**{number}. {question.prompt}**\n\n")
        for choice in question.choices:
            verdict = "**Right:**" if choice.key == question.answer else "*No:*"
            parts.append(f"- {choice.key}) {choice.text} {verdict} {choice.why}\n")
    return "".join(parts)


def made() -> str:
    """Return what `quiz_key.md` must hold."""
    return key([load(path) for path in files()])
