"""The list of references: well-formed entries, and one for every paper that a chapter or a page links to."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from pybtex.database import Entry, parse_file

ROOT = Path(__file__).resolve().parents[2]
BIB = ROOT / "book" / "references.bib"
ENTRIES: dict[str, Entry] = dict(parse_file(str(BIB)).entries)
PAGES = [*sorted((ROOT / "book").glob("*.md")), *sorted((ROOT / "book").glob("*.ipynb"))]
REQUIRED = {
    "article": {"title", "journal", "year"},
    "inproceedings": {"title", "booktitle", "year"},
    "book": {"title", "publisher", "year"},
    "techreport": {"title", "institution", "year"},
    "misc": {"title", "year", "eprint"},
}
#: An address may hold brackets in pairs, as some DOIs do; a closing one without its partner ends a markdown link.
LINK = re.compile(r"https?://(?:www\.|export\.|dx\.)?(arxiv\.org|doi\.org)/((?:[^\s()\]}>\"'`|]|\([^\s()]*\))+)", re.IGNORECASE)
ARXIV = re.compile(r"(?:abs|pdf|html)/([a-z.-]+/\d{7}|\d{4}\.\d{4,5})(?:v\d+)?(?:\.pdf)?/?", re.IGNORECASE)


def prose(path: Path) -> str:
    """The text of a page: all of a markdown file, the markdown cells of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


def cited(text: str) -> set[tuple[str, str]]:
    """Return ("arxiv" or "doi", number in small letters) of every link to arXiv or a DOI."""
    found = set()
    for match in LINK.finditer(text):
        host, rest = match[1].lower(), unquote(match[2]).rstrip(".,;:")
        if host == "arxiv.org":
            number = ARXIV.fullmatch(rest)
            found.add(("arxiv", number[1].lower() if number else rest.lower()))
        elif rest.lower().startswith("10.48550/arxiv."):
            found.add(("arxiv", rest.lower().removeprefix("10.48550/arxiv.")))
        else:
            found.add(("doi", rest.lower()))
    return found


@cache
def known() -> set[tuple[str, str]]:
    found = set()
    for entry in ENTRIES.values():
        if "eprint" in entry.fields:
            found.add(("arxiv", entry.fields["eprint"].lower()))
        if "doi" in entry.fields:
            found.add(("doi", entry.fields["doi"].lower()))
    return found


def test_links_are_recognized() -> None:
    text = "[A](https://arxiv.org/abs/1312.6114), [B](https://arxiv.org/pdf/1906.02691v3.pdf), "
    text += "<https://doi.org/10.1016/0893-6080(89)90014-2>. "
    text += (
        "[C](https://doi.org/10.1109/CVPR.2017.307) https://doi.org/10.48550/arXiv.2208.11970, [D](http://dx.doi.org/10.1137/090771806)."
    )
    assert (
        cited(text)
        == cited(text.replace("(89)", "%2889%29"))
        == {
            ("arxiv", "1312.6114"),
            ("arxiv", "1906.02691"),
            ("arxiv", "2208.11970"),
            ("doi", "10.1016/0893-6080(89)90014-2"),
            ("doi", "10.1109/cvpr.2017.307"),
            ("doi", "10.1137/090771806"),
        }
    )
    assert not cited("https://github.com/a/b and arxiv.org without a scheme")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_paper_that_a_page_links_to_has_an_entry(path: Path) -> None:
    missing = sorted(cited(prose(path)) - known())
    assert not missing, f"{path.name} links to papers that references.bib does not hold: {missing}"


@pytest.mark.parametrize("key", ENTRIES)
def test_an_entry_is_complete_and_well_formed(key: str) -> None:
    entry = ENTRIES[key]
    fields = {name.lower(): value for name, value in entry.fields.items()}
    assert entry.type in REQUIRED, entry.type
    assert not REQUIRED[entry.type] - {name for name, value in fields.items() if value.strip()}
    assert entry.persons.get("author")
    year = int(fields["year"])
    assert 1950 <= year <= 2030
    assert re.fullmatch(rf"[a-z]+{year}[a-z]+", key), "a key is name, year, word"
    if "eprint" in fields:
        assert fields["archiveprefix"] == "arXiv"
        assert re.fullmatch(r"\d{4}\.\d{4,5}", fields["eprint"])
        submitted = 2000 + int(fields["eprint"][:2])
        assert submitted - 1 <= year <= submitted + 3, "the year does not go with the number on arXiv"
    if "doi" in fields:
        assert re.fullmatch(r"10\.\d{4,9}/\S+", fields["doi"])
    if "url" in fields:
        assert re.match(r"https?://", fields["url"]) and "arxiv.org" not in fields["url"] and "doi.org" not in fields["url"]


def test_keys_and_numbers_and_titles_are_unique() -> None:
    text = BIB.read_text(encoding="utf-8")
    keys = re.findall(r"^@\w+\{([^,]+),", text, re.MULTILINE)
    assert len(keys) == len(set(keys)) == len(ENTRIES)
    for name in ("eprint", "doi", "title"):
        values = [re.sub(r"[{}]", "", entry.fields[name]).lower() for entry in ENTRIES.values() if name in entry.fields]
        assert sorted({value for value in values if values.count(value) > 1}) == [], name


def test_every_entry_stands_under_one_heading_of_the_page() -> None:
    page = (ROOT / "book" / "references.md").read_text(encoding="utf-8")
    shown = re.findall(r'^:filter: keywords % "(\w+)"$', page, re.MULTILINE)
    assert len(shown) == len(set(shown)) == page.count("```{bibliography}") > 1
    assert {entry.fields["keywords"] for entry in ENTRIES.values()} == set(shown)
    assert not [a for a in shown for b in shown if a != b and a in b], "one heading's filter would find the entries of another"


def test_the_page_cites_entries_that_exist_and_the_configuration_names_the_file() -> None:
    page = (ROOT / "book" / "references.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\{cite\}`([^`]+)`", page))
    assert named and named <= set(ENTRIES)
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert config["bibtex_bibfiles"] == ["book/references.bib"]


def test_the_papers_that_the_book_rests_on_are_there() -> None:
    assert {("arxiv", "1612.01958"), ("arxiv", "1312.6114"), ("arxiv", "1603.08511"), ("arxiv", "1906.02691")} <= known()
    assert {"bishop1994mixture", "huang2007labeled", "huang2012learning"} <= set(ENTRIES)
