"""The built book: no warning, nothing from a foreign host, links that lead somewhere, pictures with text."""

from __future__ import annotations

import functools
import html.parser
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from assignments._tools import leaks, source
from book._tools.notebooks import toc_files

ROOT = Path(__file__).resolve().parents[2]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
TOC = toc_files(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
LOADING_LINKS = {"stylesheet", "preload", "icon", "shortcut icon", "modulepreload"}


class Page(html.parser.HTMLParser):
    """The links, the loaded files, the ids and the pictures of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.pictures: list[str] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values["id"]} if "id" in values else set()
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in LOADS and LOADS[tag] in values:
            self.loaded.append(values[LOADS[tag]])
        if tag == "link" and values.get("rel") in LOADING_LINKS:
            self.loaded.append(values["href"])
        if tag == "img":
            self.pictures.append(values.get("alt", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the book as `make book` does, into a clean folder."""
    folder = tmp_path_factory.mktemp("site")
    command = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"
    options = ["build", str(ROOT), "--path-output", str(folder), "-W", "--keep-going"]
    done = subprocess.run([sys.executable, "-c", command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "WARNING" not in done.stderr
    return folder / "_build" / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    found = {name: Page(site / f"{name}.html") for name in TOC}
    assert found
    return found


def test_every_page_loads_only_its_own_files_and_they_are_there(site: Path, pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        local = [address for address in page.loaded if not address.startswith("data:")]
        assert local
        for address in local:
            assert not urlsplit(address).netloc, f"{name} loads {address}"
            assert ((site / name).parent / unquote(urlsplit(address).path)).is_file(), f"{name} loads {address}, which is not there"


def test_no_page_and_no_style_names_a_host_for_scripts_or_fonts(site: Path, pages: dict[str, Page]) -> None:
    foreign = re.compile(r"unpkg\.com|jsdelivr|cdnjs|fonts\.g|googleapis|thebe@")
    assert not [name for name, page in pages.items() if foreign.search(page.text)]
    styles = list((site / "_static").rglob("*.css"))
    assert styles
    assert not [path.name for path in styles if re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", path.read_text(encoding="utf-8"))]


def test_every_local_link_leads_to_a_file_and_a_place_in_it(site: Path, pages: dict[str, Page]) -> None:
    @functools.cache
    def places(target: Path) -> set[str]:
        return Page(target).ids

    for name, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link == "#":
                continue
            target = (site / name).parent / unquote(parts.path) if parts.path else site / f"{name}.html"
            assert target.is_file(), f"{name} links to {link}"
            if parts.fragment and target.suffix == ".html":
                assert unquote(parts.fragment) in places(target.resolve()), f"{name} links to {link}"


def test_every_picture_has_a_text(pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        assert page.pictures
        assert all(text.strip() and not re.search(r"\.(png|jpe?g|svg)$", text) for text in page.pictures), name


def test_the_launch_button_opens_the_file_in_this_repository(pages: dict[str, Page]) -> None:
    repository = CONFIG["repository"]
    base = repository["url"].replace("https://github.com/", "https://colab.research.google.com/github/")
    for name, page in pages.items():
        buttons = [link for link in page.links if link.startswith("https://colab.research.google.com/")]
        chapter = (ROOT / f"{name}.ipynb").is_file()
        assert buttons[:1] == ([f"{base}/blob/{repository['branch']}/{name}.ipynb"] if chapter else [])


def test_no_solution_and_no_hidden_test_of_an_assignment_is_in_the_built_book(site: Path) -> None:
    assignments = [source.load(name) for name in source.names()]
    assert assignments and leaks.in_folder(site, assignments) == []
    assert not [path for path in site.rglob("*") if path.name in ("source.ipynb", "mistakes.py", "autograder.ipynb", "rubric.md")]


def test_formulas_need_no_network(site: Path) -> None:
    script = (site / "_static" / CONFIG["sphinx"]["config"]["mathjax_path"]).resolve()
    assert script.is_relative_to(site) and script.is_file()
    fonts = script.parent / "output" / "chtml" / "fonts" / "woff-v2"
    named = set(re.findall(r"MathJax_[A-Za-z0-9]+-[A-Za-z]+", script.read_text(encoding="utf-8")))
    assert named <= {path.stem for path in fonts.glob("*.woff")} and len(list(fonts.glob("*.woff"))) > 20


def test_the_first_page_leads_to_the_book(site: Path) -> None:
    assert "book/index.html" in (site / "index.html").read_text(encoding="utf-8")


def test_colors_are_the_same_in_dark_mode(site: Path) -> None:
    style = (site / "_static" / "custom.css").read_text(encoding="utf-8")
    rule = re.search(r'html\[data-theme="dark"\] \.bd-content img[^{]*\{([^}]*)\}', style)
    assert rule and "filter: none" in rule[1]
    assert "custom.css" in (site / f"{TOC[0]}.html").read_text(encoding="utf-8")


def test_all_files_name_the_repository_as_the_configuration_does() -> None:
    url = CONFIG["repository"]["url"]
    project = url.rsplit("/", 1)[1]
    address = re.compile(rf"https://github\.com/[\w.-]+/{re.escape(project)}")
    paths = [
        path
        for folder in (ROOT, ROOT / "book", ROOT / "book" / "assignments")
        for path in folder.glob("*.*")
        if path.suffix in {".md", ".toml", ".cff", ".ipynb"}
    ]
    named = {(path.name, found) for path in paths for found in address.findall(path.read_text(encoding="utf-8"))}
    assert ("pyproject.toml", url) in named
    assert {found for _, found in named} == {url}
