"""Quizzes: the files, the form as HTML, the form in a browser; and the questions of the whole book."""

from __future__ import annotations

import copy
import html.parser
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from divcolor_lib.checks import quiz
from divcolor_lib.errors import ExerciseError
from tests.browser import CHROMIUM, Browser

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for path in (ROOT / "book" / "quizzes").glob("*.json") if path.stem.isdigit())
VOID = {"img", "input", "br", "hr", "meta", "link"}

SMALL: dict[str, Any] = {
    "title": 'Light & "dark"',
    "questions": [
        {
            "key": "what-is-l",
            "prompt": "What is `L`, if a < b & c > d?",
            "answer": "b",
            "choices": [
                {"key": "a", "text": "The <b>mean</b> of R, G, B", "why": "Tempting: `(R + G + B) / 3` is no lightness."},
                {"key": "b", "text": "Lightness", "why": 'It is "how bright" a surface looks.'},
                {"key": "c", "text": "Luminance", "why": "That is Y; L is a curve of it."},
            ],
        },
        {
            "key": "which-picture",
            "prompt": "Which picture is gray?",
            "answer": "a",
            "choices": [
                {"key": "a", "text": 'A square, "first"', "why": "All three numbers are equal."},
                {"key": "b", "text": "A square, second", "why": "Here red is larger."},
            ],
        },
    ],
}
PICTURES = {f"which-picture.{key}": np.full((4, 5, 3), value, np.uint8) for key, value in (("a", 100), ("b", 200))}


def written(folder: Path, data: Any, name: str = "01.json") -> Path:
    path = folder / name
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    data = copy.deepcopy(SMALL)
    change(data)
    return data


@pytest.fixture
def small(tmp_path: Path) -> quiz.Quiz:
    return quiz.load(written(tmp_path, SMALL))


# Reading a file


def test_a_quiz_is_read_as_it_was_written(small: quiz.Quiz) -> None:
    assert small.name == "01" and small.title == SMALL["title"]
    assert [question.key for question in small.questions] == ["what-is-l", "which-picture"]
    assert small.questions[0].choices[1] == quiz.Choice("b", "Lightness", 'It is "how bright" a surface looks.')


def nothing(data: dict[str, Any]) -> None:
    data["questions"] = []


def same_question(data: dict[str, Any]) -> None:
    data["questions"][1]["key"] = "what-is-l"


def same_choice(data: dict[str, Any]) -> None:
    data["questions"][0]["choices"][2]["key"] = "a"


def one_choice(data: dict[str, Any]) -> None:
    del data["questions"][1]["choices"][1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nothing, "no question"),
        (same_question, "a key of `what-is-l` occurs twice"),
        (same_choice, "a key of `what-is-l` occurs twice"),
        (one_choice, "only one choice"),
        (lambda data: data.pop("title"), "lacks 'title'"),
        (lambda data: data["questions"][0].pop("prompt"), "lacks 'prompt'"),
        (lambda data: data["questions"][0]["choices"][0].pop("why"), "lacks 'why'"),
        (lambda data: data["questions"][0].update(answer="z"), "no right choice"),
        (lambda data: data["questions"][0].update(key="What Is L"), "small letters, digits and hyphens"),
        (lambda data: data["questions"][0].update(key=7), "small letters, digits and hyphens"),
        (lambda data: data["questions"][0]["choices"][0].update(key=["a"]), "small letters, digits and hyphens"),
        (lambda data: data["questions"][0].update(choices=7), "not built as described"),
        (lambda data: data["questions"][0].update(choices="abc"), "not built as described"),
        (lambda data: data.update(questions=[1]), "not built as described"),
        (lambda data: data["questions"][0].update(prompt="  "), "`what-is-l.prompt` is empty"),
        (lambda data: data["questions"][0]["choices"][1].update(why=""), "`what-is-l.b.why` is empty"),
        (lambda data: data["questions"][0]["choices"][1].update(text=5), "`what-is-l.b.text` is empty"),
        (lambda data: data.update(title=""), "`title` is empty"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    with pytest.raises(ExerciseError, match=re.escape(message)) as caught:
        quiz.load(written(tmp_path, changed(change)))
    assert "(01.json)" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2", "\udc80".encode("utf-8", "surrogatepass").decode("latin-1")])
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ExerciseError, match=r"no JSON text.*\(01\.json\)\. Mend the file"):
        quiz.load(written(tmp_path, text))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "01.json"
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(ExerciseError, match="no JSON text"):
        quiz.load(path)


def test_a_list_is_no_quiz(tmp_path: Path) -> None:
    with pytest.raises(ExerciseError, match="not built as described"):
        quiz.load(written(tmp_path, []))


def test_an_absent_file_says_where_to_run_the_chapter(tmp_path: Path) -> None:
    with pytest.raises(ExerciseError, match=r"No such file.*\(09\.json\)\. Run the chapter in the folder `book`"):
        quiz.load(tmp_path / "09.json")


# Translations


def test_a_complete_translation_replaces_every_text(tmp_path: Path, small: quiz.Quiz) -> None:
    texts = quiz.keys(small)
    assert len(texts) == len(set(texts)) and {"title", "words.check", "what-is-l.prompt", "what-is-l.a.text", "what-is-l.a.why"} <= set(
        texts
    )
    written(tmp_path, {key: f"vi {key}" for key in texts}, "01.vi.json")
    translated = quiz.load(tmp_path / "01.json", "vi")
    assert quiz.keys(translated) == {key: f"vi {key}" for key in texts}
    assert [question.answer for question in translated.questions] == [question.answer for question in small.questions]
    shown = quiz.as_html(translated)
    assert all(f"vi {key}" in shown for key in texts)
    assert "Lightness" not in shown and "Check" not in shown


def test_what_a_translation_lacks_stays_english(tmp_path: Path, small: quiz.Quiz) -> None:
    written(tmp_path, {"title": "Ánh sáng", "words.check": "Kiểm tra"}, "01.vi.json")
    translated = quiz.load(tmp_path / "01.json", "vi")
    assert translated.title == "Ánh sáng" and translated.words["check"] == "Kiểm tra" and translated.words["right"] == small.words["right"]
    assert translated.questions == small.questions
    assert quiz.load(tmp_path / "01.json").title == SMALL["title"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"what-is-l.d.text": "x"}, "keys that the quiz does not have: what-is-l.d.text"),
        ({"titel": "x", "a": "x", "b": "x", "c": "x"}, "does not have: a, b, c"),
        ([], "not an object"),
        ("title", "not an object"),
        ({"title": ""}, "translation of `title` is empty"),
        ({"title": 5}, "translation of `title` is empty, or no text"),
    ],
)
def test_a_mistake_in_a_translation_is_named(tmp_path: Path, texts: Any, message: str) -> None:
    written(tmp_path, SMALL)
    written(tmp_path, json.dumps(texts), "01.vi.json")
    with pytest.raises(ExerciseError, match=message) as caught:
        quiz.load(tmp_path / "01.json", "vi")
    assert "(01.vi.json)" in str(caught.value)


def test_an_absent_translation_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExerciseError, match=r"\(01\.vi\.json\)"):
        quiz.load(written(tmp_path, SMALL), "vi")


# The form


class Tree(html.parser.HTMLParser):
    """The elements of a text as (tag, attributes, text inside), after checking that they are nested soundly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[int] = []
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open, [self.elements[i][0] for i in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute of {tag} stands twice"
        self.elements.append((tag, {name: value or "" for name, value in attrs}, []))
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.elements[self.open[-1]][0] == tag, f"</{tag}> closes another element"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for at in self.open:
            self.elements[at][2].append(data)

    def all(self, tag: str, **wanted: str) -> list[tuple[dict[str, str], str]]:
        return [
            (attributes, "".join(text))
            for name, attributes, text in self.elements
            if name == tag and all(attributes.get(key) == value for key, value in wanted.items())
        ]


def test_the_html_is_sound_and_every_text_is_escaped(small: quiz.Quiz) -> None:
    tree = Tree(quiz.as_html(small, PICTURES))
    assert tree.all("div")[0][0]["aria-label"] == SMALL["title"]
    assert [text for _, text in tree.all("legend")] == ["1. What is L, if a < b & c > d?", "2. Which picture is gray?"]
    assert [text for _, text in tree.all("code")] == ["L", "(R + G + B) / 3"]
    assert tree.all("label")[0][1] == " a) The <b>mean</b> of R, G, B"
    assert len(tree.all("b")) == 5, "no markup of a text reaches the page; only the verdicts in the fold are bold"
    why = [text for attributes, text in tree.all("li")]
    assert why[1] == 'b) Right. It is "how bright" a surface looks.' and why[2].startswith("c) Not quite. That is Y")


def test_words_of_the_form_are_escaped_too(tmp_path: Path) -> None:
    written(tmp_path, SMALL)
    texts = {f"words.{key}": f"<{key}> & \"{key}\" 'x'" for key in ("check", "right", "wrong", "choose", "answers")}
    written(tmp_path, texts, "01.vi.json")
    tree = Tree(quiz.as_html(quiz.load(tmp_path / "01.json", "vi")))
    assert tree.all("button")[0][1] == "<check> & \"check\" 'x' 1"
    assert tree.all("form")[0][0]["data-choose"] == "<choose> & \"choose\" 'x'"
    assert tree.all("summary")[0][1].startswith("<answers>") and tree.all("li")[0][1].startswith("a) <wrong>")


def test_a_quiz_with_an_odd_name_makes_sound_html(tmp_path: Path) -> None:
    tree = Tree(quiz.as_html(quiz.load(written(tmp_path, SMALL, 'a"b & c.json'))))
    assert {attributes["name"] for attributes, _ in tree.all("input")} == {'quiz-a"b & c-what-is-l', 'quiz-a"b & c-which-picture'}


def test_the_form_is_built_for_keyboard_and_screen_reader(small: quiz.Quiz) -> None:
    tree = Tree(quiz.as_html(small, PICTURES))
    questions = len(SMALL["questions"])
    for tag in ("form", "fieldset", "legend", "button", "details", "summary"):
        assert len(tree.all(tag)) == questions, tag
    assert len(tree.all("p", role="status")) == questions
    assert all(attributes["aria-live"] == "polite" and text == "" for attributes, text in tree.all("p", role="status"))
    assert all(attributes["type"] == "submit" for attributes, _ in tree.all("button"))
    assert len(tree.all("label")) == len(tree.all("input", type="radio")) == 5
    groups = [attributes["name"] for attributes, _ in tree.all("input")]
    assert len(set(groups)) == questions
    assert len({text for _, text in tree.all("button")}) == questions, "a list of buttons tells them apart"
    assert not [attributes for _, attributes, _ in tree.elements if "id" in attributes], "an id could stand twice on a page"


def test_without_javascript_everything_is_in_the_fold(small: quiz.Quiz) -> None:
    tree = Tree(quiz.as_html(small))
    assert all("hidden" in attributes for attributes, _ in tree.all("button"))
    assert not any("open" in attributes for attributes, _ in tree.all("details"))
    reasons = tree.all("li")
    assert [attributes["data-choice"] for attributes, _ in reasons] == ["a", "b", "c", "a", "b"]
    assert [attributes["data-right"] for attributes, _ in reasons] == ["0", "1", "0", "1", "0"]
    folds = [text for _, text in tree.all("details")]
    for question, fold in zip(SMALL["questions"], folds):
        assert all(choice["why"].replace("`", "") in fold for choice in question["choices"])


def test_nothing_is_loaded_from_elsewhere(small: quiz.Quiz) -> None:
    shown = quiz.as_html(small, PICTURES)
    assert not re.search(r"https?://|@import|url\(", shown)
    assert "innerHTML=reason" in shown, "the verdict copies escaped text of the page"


def test_colors_follow_the_theme(small: quiz.Quiz) -> None:
    """No color of its own but as the fallback of a theme's variable; the white ground of pictures is the book's rule."""
    (style,) = re.findall(r"<style>(.*?)</style>", quiz.as_html(small), re.DOTALL)
    bare = re.sub(r"var\(--pst-[\w-]+,[^)]*\)", "var", style).replace("background:#fff", "")
    assert "var(" in style and not re.search(r"#[0-9a-fA-F]{3,8}\b|\brgba?\(|(?<![-\w])color:(?!var)", bare)
    assert "outline:none" not in style and "outline:0" not in style
    assert ".verdict:empty{display:none}" not in style, "a live region must be there before its text changes"


def test_pictures_carry_their_text_and_stand_for_it(small: quiz.Quiz) -> None:
    tree = Tree(quiz.as_html(small, PICTURES))
    images = tree.all("img")
    assert [attributes["alt"] for attributes, _ in images] == ['A square, "first"', "A square, second"]
    assert all(attributes["src"].startswith("data:image/png;base64,iVBOR") for attributes, _ in images)
    assert [text for _, text in tree.all("label")][3:] == [" a) ", " b) "]
    assert "A square, second" in quiz.as_text(small)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ({"which-picture.c": PICTURES["which-picture.a"]}, "no choice is called which-picture.c"),
        ({"which-picture.z": PICTURES["which-picture.a"], "a.a": PICTURES["which-picture.a"]}, "a.a, which-picture.z"),
        ({"which-picture.a": np.zeros((4, 4, 3))}, r"not a uint8 array of shape \(H, W, 3\) \(which-picture.a\)"),
        ({"which-picture.a": np.zeros((4, 4), np.uint8)}, "not a uint8 array"),
        ({"which-picture.a": np.zeros((1, 4, 4, 3), np.uint8)}, "not a uint8 array"),
        ({"which-picture.a": np.zeros((0, 4, 3), np.uint8)}, "not a uint8 array"),
        ({"which-picture.a": [[1, 2, 3]]}, "not a uint8 array"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(small: quiz.Quiz, pictures: dict[str, Any], message: str) -> None:
    with pytest.raises(ExerciseError, match=message):
        quiz.as_html(small, pictures)


def test_the_output_is_the_same_every_time_and_the_arguments_are_left_alone(small: quiz.Quiz) -> None:
    pictures = dict(PICTURES)
    assert quiz.as_html(small, pictures) == quiz.as_html(small, pictures)
    assert set(pictures) == set(PICTURES)


def test_show_gives_a_page_and_a_text_without_the_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: shown.append((data, options)))
    path = written(tmp_path, SMALL)
    quiz.show(path, PICTURES)
    ((data, options),) = shown
    assert options == {"raw": True} and set(data) == {"text/html", "text/plain"}
    assert data["text/html"] == quiz.as_html(quiz.load(path), PICTURES)
    lines = data["text/plain"].splitlines()
    assert lines[:6] == [
        'Light & "dark"',
        "",
        "1. What is `L`, if a < b & c > d?",
        "   a) The <b>mean</b> of R, G, B",
        "   b) Lightness",
        "   c) Luminance",
    ]
    assert "Right" not in data["text/plain"] and "curve" not in data["text/plain"]


# The form in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    with Browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


def page(folder: Path, *bodies: str) -> Path:
    path = folder / "page.html"
    path.write_text(
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>A quiz</title><body>' + "\n".join(bodies), encoding="utf-8"
    )
    return path


def statuses(browser: Browser) -> list[str]:
    found: list[str] = browser.value('[...document.querySelectorAll("[role=status]")].map(p => p.innerText.replace(/\\s+/g, " ").trim())')
    return found


def test_by_keyboard_alone_one_chooses_checks_and_reads_the_verdict(browser: Browser, tmp_path: Path, small: quiz.Quiz) -> None:
    browser.open(page(tmp_path, quiz.as_html(small, PICTURES)))
    browser.press("Tab", " ")
    assert browser.value('document.querySelector("input:checked").value') == "a"
    browser.press("Enter")
    assert statuses(browser) == ["a) Not quite. Tempting: (R + G + B) / 3 is no lightness.", ""]
    browser.press("ArrowDown")
    assert statuses(browser) == ["", ""], "a new choice takes the old verdict away"
    browser.press("Tab")
    assert browser.value("document.activeElement.innerText").split() == ["Check", "1"]
    browser.press(" ")
    assert statuses(browser) == ['b) Right. It is "how bright" a surface looks.', ""]
    browser.press("Tab", "Enter")
    assert browser.value('[...document.querySelectorAll("details")].map(d => d.open)') == [True, False]
    browser.press("Tab", " ", "Enter")
    assert statuses(browser)[1] == "a) Right. All three numbers are equal."


def test_to_check_without_a_choice_asks_for_one(browser: Browser, tmp_path: Path, small: quiz.Quiz) -> None:
    path = page(tmp_path, quiz.as_html(small))
    browser.open(path)
    browser.value('document.querySelectorAll("button")[1].focus()')
    browser.press("Enter")
    assert statuses(browser) == ["", "Choose an answer first."]
    assert browser.value("location.href") == path.resolve().as_uri(), "the page is not sent away"


def test_the_same_quiz_twice_on_a_page_works_twice(browser: Browser, tmp_path: Path, small: quiz.Quiz) -> None:
    browser.open(page(tmp_path, quiz.as_html(small), quiz.as_html(small)))
    browser.value('document.querySelectorAll("form")[2].querySelectorAll("input")[1].focus()')
    browser.press(" ", "Enter")
    assert [bool(text) for text in statuses(browser)] == [False, False, True, False]
    assert browser.value('document.querySelectorAll("input:checked").length') == 1


def test_it_works_where_a_notebook_runs_the_script_elsewhere(browser: Browser, tmp_path: Path, small: quiz.Quiz) -> None:
    """Some notebooks put the HTML in place first and run its script in the head afterwards."""
    late = "<div id=place></div><script>const html = " + json.dumps(quiz.as_html(small)).replace("</", "<\\/") + ";"
    late += "place.innerHTML = html; const again = document.createElement('script');"
    late += "again.textContent = place.querySelector('script').textContent; document.head.append(again);</script>"
    browser.open(page(tmp_path, late))
    browser.press("Tab", " ", "Enter")
    assert statuses(browser)[0].startswith("a) Not quite.")


def test_without_javascript_the_fold_opens_and_no_dead_button_shows(browser: Browser, tmp_path: Path, small: quiz.Quiz) -> None:
    browser.open(page(tmp_path, quiz.as_html(small)), scripts=False)
    assert browser.value('[...document.querySelectorAll("button")].every(b => b.offsetParent === null)')
    browser.press("Tab", "Tab", "Enter")
    assert browser.value('document.querySelector("details").open')
    assert "That is Y" in browser.value('document.querySelector("details").innerText')


def test_a_screen_reader_meets_question_choices_and_status(browser: Browser, tmp_path: Path, small: quiz.Quiz) -> None:
    browser.open(page(tmp_path, quiz.as_html(small, PICTURES)))
    nodes = browser.accessible()
    names = {
        role: [str(node["name"]).strip() for node in nodes if node["role"] == role]
        for role in ("group", "radio", "button", "image", "status")
    }
    assert names["group"][0] == SMALL["title"]
    assert {"1. What is L, if a < b & c > d?", "2. Which picture is gray?"} <= set(names["group"])
    assert [re.sub(r"\s+", " ", name) for name in names["radio"]] == [
        "a) The <b>mean</b> of R, G, B",
        "b) Lightness",
        "c) Luminance",
        'a) A square, "first"',
        "b) A square, second",
    ]
    assert {"Check 1", "Check 2"} <= {re.sub(r"\s+", " ", name) for name in names["button"]}
    assert names["image"] == ['A square, "first"', "A square, second"]
    assert len(names["status"]) == 2, "an empty status is there before it speaks"


def test_the_focus_is_seen(browser: Browser, tmp_path: Path, small: quiz.Quiz) -> None:
    browser.open(page(tmp_path, quiz.as_html(small)))
    outline = 'getComputedStyle(document.querySelector("label")).outlineStyle'
    assert browser.value(outline) == "none"
    browser.press("Tab")
    assert browser.value(outline) == "solid"
    assert browser.value('getComputedStyle(document.querySelector("label")).outlineWidth') == "2px"


#: What the theme of the book does in dark mode, reduced to what matters to a quiz.
DARK = """<style>
:root{--pst-color-background:#14181e;--pst-color-text-base:#ced6dd;--pst-color-border:#48566b}
body{background:var(--pst-color-background);color:var(--pst-color-text-base)}
code{color:#f9d8ef}
html body div.cell_output .text_html{background-color:var(--pst-color-text-base);color:#222832;padding:.5rem}
</style>"""
CONTRASTS = r"""
[...document.querySelectorAll(".divcolor-quiz :is(legend, .choice, code, .verdict, summary, .letter)")].map(element => {
  const linear = value => value / 255 <= .03928 ? value / 255 / 12.92 : ((value / 255 + .055) / 1.055) ** 2.4;
  const luminance = color => {
    const [r, g, b] = color.match(/[\d.]+/g).map(Number).map(linear);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = e => getComputedStyle(e).backgroundColor;
  let under = element;
  while (under.parentElement && ground(under) === "rgba(0, 0, 0, 0)") under = under.parentElement;
  const [light, dark] = [getComputedStyle(element).color, ground(under)].map(luminance).sort((a, b) => b - a);
  return (light + .05) / (dark + .05);
})"""


def test_text_and_code_stand_out_in_dark_mode(browser: Browser, tmp_path: Path, small: quiz.Quiz) -> None:
    framed = f'<div class="cell_output"><div class="output text_html">{quiz.as_html(small)}</div></div>'
    browser.open(page(tmp_path, DARK, framed))
    found = browser.value(CONTRASTS)
    assert len(found) > 10 and min(found) >= 4.5, sorted(found)[:3]
    assert browser.value('getComputedStyle(document.querySelector(".text_html")).backgroundColor') == "rgba(0, 0, 0, 0)"


def test_a_page_as_narrow_as_a_phone_is_not_widened(browser: Browser, tmp_path: Path, small: quiz.Quiz) -> None:
    wide = {"which-picture.a": np.zeros((50, 900, 3), np.uint8)}
    browser.open(page(tmp_path, f'<div style="width:300px">{quiz.as_html(small, wide)}</div>'))
    assert browser.value('Math.max(...[...document.querySelectorAll("form *")].map(e => e.getBoundingClientRect().right))') <= 320


# The questions of the book

#: What the course's first handout asked about, and the question (quiz/key) that asks about it here.
HANDOUT = {
    "what a VAE can be used for": "06/uses",
    "the parts of a VAE": "03/blocks",
    "how a VAE represents what it encodes": "05/represented",
    "the value that the KL term should take": "04/kl-target",
    "why Lab and not RGB": "01/why-lab",
    "what takes part in coloring a new photograph": "02/inference",
}


@pytest.fixture(scope="module")
def book() -> dict[str, quiz.Quiz]:
    found = {path.stem: quiz.load(path) for path in FILES}
    if not found:
        pytest.skip("no chapter has a quiz yet")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_quiz_of_the_book_is_sound(path: Path) -> None:
    found = quiz.load(path)
    assert 5 <= len(found.questions) <= 7
    Tree(quiz.as_html(found))
    for question in found.questions:
        assert 2 < len(question.choices) <= 5 or len(question.choices) == 2, question.key
        assert [choice.key for choice in question.choices] == list("abcde"[: len(question.choices)]), question.key
        texts = [choice.text for choice in question.choices]
        assert len(set(texts)) == len(texts), f"{question.key}: two choices say the same"
        reasons = [choice.why for choice in question.choices]
        assert len(set(reasons)) == len(reasons), f"{question.key}: two explanations say the same"
        assert all(len(reason) >= 15 for reason in reasons), f"{question.key}: an explanation says nothing"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_texts_are_plain(path: Path) -> None:
    """Mathematics in Unicode and code in backticks; TeX, markdown and HTML would be shown as they stand."""
    for key, text in quiz.keys(quiz.load(path)).items():
        assert text.count("`") % 2 == 0, f"{key}: {text}"
        bare = re.sub(r"`[^`]*`", "", text)
        assert not re.search(r"\$|\\[a-zA-Z]{2,}|\*\w|\w\*|\]\(|</?[a-z]+>|&[a-z]+;", bare), f"{key}: {text}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_choice_does_not_give_the_answer_away(path: Path) -> None:
    """Within one quiz the right choice is not always the same letter, and not always the longest text."""
    found = quiz.load(path).questions
    assert len({question.answer for question in found}) >= 2
    longest = [question.key for question in found if is_longest(question)]
    assert len(longest) < len(found), longest


def is_longest(question: quiz.Question) -> bool:
    """Whether the right choice is longer than every other by more than the eye overlooks."""
    lengths = {choice.key: len(choice.text) for choice in question.choices}
    return all(lengths[question.answer] > 1.15 * length for key, length in lengths.items() if key != question.answer)


def test_over_the_whole_book_neither_letter_nor_length_gives_the_answer_away(book: dict[str, quiz.Quiz]) -> None:
    questions = [question for found in book.values() for question in found.questions]
    letters = [question.answer for question in questions]
    share = max(letters.count(letter) for letter in set(letters)) / len(letters)
    assert share <= 0.5, f"{share:.0%} of the right choices have one letter"
    by_quiz = {name: [question.key for question in found.questions if is_longest(question)] for name, found in book.items()}
    longest = sum(map(len, by_quiz.values())) / len(questions)
    assert longest <= 0.5, f"in {longest:.0%} of the questions the right choice is the longest: {by_quiz}"


def test_no_question_is_asked_twice(book: dict[str, quiz.Quiz]) -> None:
    prompts = [question.prompt for found in book.values() for question in found.questions]
    assert len(set(prompts)) == len(prompts)


@pytest.mark.parametrize("topic", HANDOUT)
def test_what_the_handout_asked_is_asked(book: dict[str, quiz.Quiz], topic: str) -> None:
    number, key = HANDOUT[topic].split("/")
    assert number in book and key in [question.key for question in book[number].questions], f"no question {HANDOUT[topic]}: {topic}"


def test_every_chapter_with_a_quiz_shows_it_and_every_quiz_is_shown() -> None:
    shown = set()
    for path in sorted((ROOT / "book").glob("[0-9][0-9]_*.ipynb")):
        sources = "\n".join(
            "".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"
        )
        for number in re.findall(r"quizzes/(\d\d)\.json", sources):
            assert number == path.name[:2], f"{path.name} shows the quiz of another chapter"
            shown.add(number)
    assert shown == {path.stem for path in FILES}
