"""The glossary: every term once, in order, in both languages, with a meaning and a place in the course."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
LEAST = 70
LONGEST_MEANING = 260
ENTRY = re.compile(r'^(?P<term>\S.*)\n  <em lang="vi">(?P<vietnamese>.+)</em>\n\n  (?P<meaning>\S.*) → (?P<where>.+)$')
PLACE = re.compile(r"Part II|\[(?P<text>[^\]]+)\]\((?P<file>[\w.]+)\)")
#: Latin letters with the marks of Vietnamese, and what stands around them in a term.
VIETNAMESE_MARKS = re.compile(r"[ăâđêôơưàảãáạằẳẵắặầẩẫấậèẻẽéẹềểễếệìỉĩíịòỏõóọồổỗốộờởỡớợùủũúụừửữứựỳỷỹýỵ]", re.IGNORECASE)


class Entry(NamedTuple):
    term: str
    vietnamese: str
    meaning: str
    where: str


def body() -> str:
    found = re.search(r"^:::\{glossary\}\n(.*?)^:::$", TEXT, re.DOTALL | re.MULTILINE)
    assert found
    return found[1].strip("\n")


def entries() -> list[Entry]:
    """Every entry; one that is not written as the others fails here."""
    found = []
    for text in re.split(r"\n\n(?=\S)", body()):
        match = ENTRY.match(text)
        assert match and match.end() == len(text), f"not term, Vietnamese term, meaning, place:\n{text}"
        found.append(Entry(**match.groupdict()))
    return found


def test_it_is_large_enough_and_in_alphabetical_order() -> None:
    terms = [entry.term.lower() for entry in entries()]
    assert len(terms) >= LEAST
    assert terms == sorted(terms)


def test_no_term_stands_twice_in_either_language() -> None:
    for words in ([entry.term.lower() for entry in entries()], [entry.vietnamese.lower() for entry in entries()]):
        assert sorted({word for word in words if words.count(word) > 1}) == []


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.term)
def test_an_entry_is_complete(entry: Entry) -> None:
    assert entry.vietnamese.strip()
    assert entry.meaning[0].isupper() or entry.meaning[0] in "$("
    assert entry.meaning.endswith((".", ".)"))
    assert len(entry.meaning) <= LONGEST_MEANING, "a definition is one or two sentences"
    assert entry.meaning.count("$") % 2 == 0
    places = entry.where.split(", ")
    assert places and all(PLACE.fullmatch(place) for place in places), entry.where


def test_a_vietnamese_term_is_vietnamese_or_the_word_that_vietnamese_courses_keep() -> None:
    kept = {"beta-VAE", "entropy", "gradient", "Gumbel-softmax", "log-sum-exp"}
    plain = [entry.vietnamese for entry in entries() if not VIETNAMESE_MARKS.search(entry.vietnamese)]
    assert set(plain) <= kept


def test_links_lead_to_pages_of_the_book_and_say_which_chapter_it_is() -> None:
    for entry in entries():
        for match in PLACE.finditer(entry.where):
            if match["file"]:
                assert (ROOT / "book" / match["file"]).is_file(), f"{entry.term} leads to {match['file']}"
                number = re.match(r"(\d\d)_", match["file"])
                assert not number or match["text"] == f"Chapter {int(number[1])}"


def test_the_words_that_readers_of_older_books_may_mix_up_carry_a_warning() -> None:
    by_term = {entry.term: entry for entry in entries()}
    assert "hàm lõm" in by_term["concave function"].vietnamese and "chú ý" in by_term["concave function"].vietnamese
    assert "hàm lồi" in by_term["convex function"].vietnamese and "chú ý" in by_term["convex function"].vietnamese


def test_divergences_are_written_as_on_the_notation_page() -> None:
    assert "D_{KL}" not in TEXT and "||" not in TEXT


def test_the_table_at_the_end_leads_from_vietnamese_to_english() -> None:
    """In the order of the Vietnamese alphabet, tone marks left out; a term that both languages share is not repeated."""
    rows = re.findall(r'^\| <span lang="vi">(.+)</span> \| \{term\}`(.+)` \|$', TEXT, re.MULTILINE)
    wanted = {(entry.vietnamese.split(" (")[0], entry.term) for entry in entries()}
    assert set(rows) == {(vietnamese, term) for vietnamese, term in wanted if vietnamese.lower() != term.lower()}
    assert len(rows) == len(set(rows))

    def place(word: str) -> list[int]:
        tones = dict.fromkeys(map(ord, "\u0300\u0301\u0303\u0309\u0323"))
        letters = unicodedata.normalize("NFC", unicodedata.normalize("NFD", word.lower()).translate(tones))
        return ["aăâbcdđeêfghijklmnoôơpqrstuưvwxyz".find(letter) for letter in letters]

    words = [vietnamese for vietnamese, _ in rows]
    assert words == sorted(words, key=lambda word: (place(word), word))
