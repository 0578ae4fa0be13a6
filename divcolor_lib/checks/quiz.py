"""Quizzes: questions with one right choice, an explanation for every choice, and pictures where they ask better than words.

A quiz is a JSON file, written once. On a page it is a form that works by keyboard and with a screen reader; without
JavaScript, and in print, the questions stand there with their answers in a fold. The file:

    {"title": "...",
     "questions": [{"key": "what-is-l", "prompt": "...", "answer": "b",
                    "choices": [{"key": "a", "text": "...", "why": "..."}, ...]}, ...]}

Texts are plain, with `code` in backticks and mathematics in Unicode. A translation is a second file, such as `01.vi.json`
beside `01.json`: a flat object from keys such as `title`, `what-is-l.prompt`, `what-is-l.a.text`, `what-is-l.a.why` to texts;
what it lacks stays English.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ExerciseError

_KEY = re.compile(r"[a-z0-9][a-z0-9-]*")
_WORDS = {"check": "Check", "right": "Right.", "wrong": "Not quite.", "choose": "Choose an answer first.", "answers": "Answers"}


@dataclass(frozen=True)
class Choice:
    """One choice of a question; `why` says why it is right or wrong."""

    key: str
    text: str
    why: str


@dataclass(frozen=True)
class Question:
    """One question; `answer` is the key of the right choice."""

    key: str
    prompt: str
    answer: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Quiz:
    """The questions of a chapter. `words` are the texts of the form itself."""

    name: str
    title: str
    questions: tuple[Question, ...]
    words: Mapping[str, str]


def load(path: str | Path, language: str = "en") -> Quiz:
    """Read a quiz, and its translation for another language than English.

    Raises:
        ExerciseError: a file is absent or not as the module's description says, or a translation has an unknown key.
    """
    path = Path(path)
    quiz = _quiz(path, _read(path))
    if language == "en":
        return quiz
    translation = path.with_suffix(f".{language}.json")
    return _translated(quiz, _read(translation), translation)


def keys(quiz: Quiz) -> dict[str, str]:
    """Return every text of a quiz under the key that a translation uses."""
    texts = {"title": quiz.title, **{f"words.{key}": text for key, text in quiz.words.items()}}
    for question in quiz.questions:
        texts[f"{question.key}.prompt"] = question.prompt
        for choice in question.choices:
            texts |= {f"{question.key}.{choice.key}.text": choice.text, f"{question.key}.{choice.key}.why": choice.why}
    return texts


def show(path: str | Path, pictures: Mapping[str, NDArray[np.uint8]] | None = None, language: str = "en") -> None:
    """Display a quiz in a notebook.

    Args:
        path: the JSON file, such as `quizzes/01.json`.
        pictures: for choices that are pictures, uint8 arrays (H, W, 3) under `question.choice`; the choice's text is their alt text.

    Raises:
        ExerciseError: the quiz cannot be read, or a picture belongs to no choice or is no such array.
    """
    from IPython.display import display

    quiz = load(path, language)
    display({"text/html": as_html(quiz, pictures), "text/plain": as_text(quiz)}, raw=True)


def as_text(quiz: Quiz) -> str:
    """Return the questions and their choices, without the answers."""
    lines = [quiz.title]
    for number, question in enumerate(quiz.questions, start=1):
        lines += ["", f"{number}. {question.prompt}", *(f"   {choice.key}) {choice.text}" for choice in question.choices)]
    return "\n".join(lines)


def as_html(quiz: Quiz, pictures: Mapping[str, NDArray[np.uint8]] | None = None) -> str:
    """Return a quiz as HTML that stands alone: a form, a fold with the answers, and the script that joins the two.

    Raises:
        ExerciseError: a picture belongs to no choice, or is not a uint8 array (H, W, 3).
    """
    pictures = dict(pictures or {})
    body = "\n".join(_question(quiz, number, question, pictures) for number, question in enumerate(quiz.questions, start=1))
    if pictures:
        raise ExerciseError(f"no choice is called {', '.join(sorted(pictures))}", quiz.name, "Name pictures as `question.choice`.")
    label = html.escape(quiz.title, quote=True)
    return (
        f'<div class="divcolor-quiz" role="group" aria-label="{label}">\n'
        f"<style>{_STYLE}</style>\n{body}\n<script>{_SCRIPT}</script>\n</div>"
    )


def _question(quiz: Quiz, number: int, question: Question, pictures: dict[str, NDArray[np.uint8]]) -> str:
    name = html.escape(f"quiz-{quiz.name}-{question.key}", quote=True)
    words = {key: html.escape(text, quote=True) for key, text in quiz.words.items()}
    choices, reasons = [], []
    for choice in question.choices:
        right = choice.key == question.answer
        picture = pictures.pop(f"{question.key}.{choice.key}", None)
        shown = (
            f'<img src="{_data_url(picture, f"{question.key}.{choice.key}")}" alt="{html.escape(choice.text, quote=True)}">'
            if picture is not None
            else _marked(choice.text)
        )
        choices.append(
            f'<label><input type="radio" name="{name}" value="{choice.key}"> '
            f'<span class="letter">{choice.key})</span> <span class="choice">{shown}</span></label>'
        )
        verdict = words["right"] if right else words["wrong"]
        reasons.append(
            f'<li data-choice="{choice.key}" data-right="{int(right)}"><b>{choice.key}) {verdict}</b> {_marked(choice.why)}</li>'
        )
    return (
        f'<form class="question" data-choose="{words["choose"]}">\n<fieldset>\n'
        f"<legend>{number}. {_marked(question.prompt)}</legend>\n" + "\n".join(choices) + "\n</fieldset>\n"
        f'<button type="submit" hidden>{words["check"]}<span class="unseen"> {number}</span></button>\n'
        f'<p class="verdict" role="status" aria-live="polite"></p>\n'
        f'<details><summary>{words["answers"]}<span class="unseen"> {number}</span></summary>\n<ul>\n'
        + "\n".join(reasons)
        + "\n</ul>\n</details>\n</form>"
    )


def _marked(text: str) -> str:
    """Escape a text and set what stands in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def _data_url(picture: NDArray[np.uint8], where: str) -> str:
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ExerciseError(
            "a picture is not a uint8 array of shape (H, W, 3)", where, "Give red, green and blue as numbers from 0 to 255."
        )
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExerciseError(f"the quiz cannot be read: {error.strerror}", path.name, "Run the chapter in the folder `book`.") from error
    except ValueError as error:
        raise ExerciseError(f"the quiz is no JSON text: {error}", path.name, "Mend the file.") from error


def _quiz(path: Path, data: Any) -> Quiz:
    try:
        questions = tuple(
            Question(q["key"], q["prompt"], q["answer"], tuple(Choice(c["key"], c["text"], c["why"]) for c in q["choices"]))
            for q in data["questions"]
        )
        quiz = Quiz(path.stem, data["title"], questions, _WORDS)
    except KeyError as error:
        raise ExerciseError(f"the quiz lacks {error}", path.name, "See the description in `divcolor_lib.checks.quiz`.") from error
    except TypeError as error:
        raise ExerciseError(f"the quiz is not built as described: {error}", path.name, "See `divcolor_lib.checks.quiz`.") from error
    if problem := next(_problems(quiz), None):
        raise ExerciseError(problem, path.name, "See the description in `divcolor_lib.checks.quiz`.")
    return quiz


def _problems(quiz: Quiz) -> Iterator[str]:
    if not quiz.questions:
        yield "the quiz has no question"
    names = [question.key for question in quiz.questions]
    for question in quiz.questions:
        letters = [choice.key for choice in question.choices]
        if not all(isinstance(key, str) and _KEY.fullmatch(key) for key in [question.key, *letters]):
            yield f"the keys of `{question.key}` are not made of small letters, digits and hyphens"
        if names.count(question.key) > 1 or len(set(letters)) < len(letters):
            yield f"a key of `{question.key}` occurs twice"
        if question.answer not in letters or len(letters) < 2:
            yield f"`{question.key}` has no right choice, or only one choice"
    for key, text in keys(quiz).items():
        if not isinstance(text, str) or not text.strip():
            yield f"the text `{key}` is empty"


def _translated(quiz: Quiz, texts: Any, path: Path) -> Quiz:
    known = keys(quiz)
    if not isinstance(texts, dict):
        raise ExerciseError("the translation is not an object from keys to texts", path.name, "See `quiz.keys`.")
    if unknown := sorted(set(texts) - set(known)):
        raise ExerciseError(
            f"the translation has keys that the quiz does not have: {', '.join(unknown[:3])}", path.name, "See `quiz.keys`."
        )
    if empty := [key for key, text in texts.items() if not isinstance(text, str) or not text.strip()]:
        raise ExerciseError(f"the translation of `{empty[0]}` is empty, or no text", path.name, "Leave out what stays English.")
    told = known | texts
    questions = tuple(
        replace(
            question,
            prompt=told[f"{question.key}.prompt"],
            choices=tuple(
                replace(c, text=told[f"{question.key}.{c.key}.text"], why=told[f"{question.key}.{c.key}.why"]) for c in question.choices
            ),
        )
        for question in quiz.questions
    )
    return replace(quiz, title=told["title"], questions=questions, words={key: told[f"words.{key}"] for key in quiz.words})


# The theme of the book puts a light card under HTML of a notebook in dark mode; the quiz takes the page's own colors instead.
_STYLE = """
.divcolor-quiz{background:var(--pst-color-background,transparent);color:var(--pst-color-text-base,inherit)}
.text_html:has(>.divcolor-quiz){background:transparent!important;padding:0!important}
.divcolor-quiz .question{margin:0 0 1.5rem;padding:.75rem 1rem;border:1px solid var(--pst-color-border,#8885);border-radius:.25rem}
.divcolor-quiz fieldset{margin:0;padding:0;border:0;min-width:0}
.divcolor-quiz legend{float:none;width:auto;margin:0 0 .5rem;padding:0;font-size:1rem;font-weight:600}
.divcolor-quiz label{display:flex;gap:.5rem;align-items:baseline;padding:.25rem .25rem;cursor:pointer;border-radius:.25rem}
.divcolor-quiz label:focus-within{outline:2px solid var(--pst-color-primary,#0072b2);outline-offset:1px}
.divcolor-quiz img{display:block;max-width:min(100%,16rem);height:auto;image-rendering:pixelated;background:#fff}
.divcolor-quiz .verdict{margin:.5rem 0 0;font-weight:600}
.divcolor-quiz .verdict:empty{margin:0}
.divcolor-quiz .verdict span{font-weight:400}
.divcolor-quiz button{margin-top:.5rem;padding:.25rem 1rem;font:inherit;cursor:pointer}
.divcolor-quiz .unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
"""
# Without the script the fold is all there is; with it the fold stays, for who wants to read every explanation. Some notebooks
# run a script away from where it stood, so it looks for the forms that no script has taken up yet.
_SCRIPT = """
(function(){
  document.querySelectorAll(".divcolor-quiz form.question:not([data-ready])").forEach(function(form){
    form.dataset.ready="";
    var button=form.querySelector("button"),verdict=form.querySelector(".verdict");
    button.hidden=false;
    form.addEventListener("change",function(){verdict.textContent="";});
    form.addEventListener("submit",function(event){
      event.preventDefault();
      var chosen=form.querySelector("input:checked");
      if(!chosen){verdict.textContent=form.dataset.choose;return;}
      var reason=form.querySelector('li[data-choice="'+chosen.value+'"]');
      verdict.innerHTML=reason.innerHTML.replace("<b>","").replace("</b>","<span>")+"</span>";
    });
  });
})();
"""
