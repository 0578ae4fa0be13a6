"""Typical wrong submissions and what they get. The rubric shows them, and a test grades every one."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from assignments._tools.source import SOURCES


@dataclass(frozen=True)
class Mistake:
    """A typical wrong answer to one task.

    Attributes:
        task: the name of the task.
        what: the mistake, in a few words.
        code: what the student wrote.
        points: what it gets.
        told: a regular expression that the feedback matches, because it names the mistake.
        words: what the student wrote as answers that a person marks, where a test reads them.
    """

    task: str
    what: str
    code: str
    points: float
    told: str
    words: Mapping[str, str] = field(default_factory=dict)


def mistakes_of(name: str) -> list[Mistake]:
    """Return the typical mistakes that `mistakes.py` beside the source of an assignment lists in `MISTAKES`."""
    return list(_file(name).get("MISTAKES", []))


def different_solutions(name: str) -> dict[str, str]:
    """Return right answers that are written differently from ours, by task: the code, or the words where a test reads them."""
    return dict(_file(name).get("DIFFERENT", {}))


def _file(name: str) -> dict[str, Any]:
    path = SOURCES / name / "mistakes.py"
    return runpy.run_path(str(path)) if path.is_file() else {}
