"""The built book: no warning, nothing from a foreign host, links that lead somewhere, pictures with text."""

from __future__ import annotations

import functools
import html.parser
import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from assignments._tools import leaks, source
from book._tools import content_policy
from book._tools.notebooks import toc_files
from tests.browser import CHROMIUM, Browser

ROOT = Path(__file__).resolve().parents[2]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
TOC = toc_files(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
LOADING_ATTRIBUTES = ("src", "srcset", "data", "poster", "background", "action", "formaction", "ping", "manifest", "xlink:href")
SILENT_LINKS = {"author", "canonical", "copyright", "index", "license", "next", "prev", "search"}  # every other <link> loads, or connects
NAMESPACE = "http://www.w3.org/"  # names of SVG and MathML, which no browser opens
#: Addresses in the scripts that came with the theme and with MathJax: comments, and what MathJax loads for Internet Explorer and for
#: reading formulas aloud, which is off. None is opened; the policy of every page would forbid it.
NAMED_IN_SCRIPTS = {
    "clipboardjs.com",
    "developer.mozilla.org",
    "pydata-sphinx-theme.readthedocs.io",
    "www.mathjax.org",
    "cdn.jsdelivr.net/npm/wicked-good-xpath",
    "cdn.jsdelivr.net/npm/sre-mathmaps-ie",
    "cdn.jsdelivr.net/npm/speech-rule-engine",
}
CALLS_HOME = re.compile(r"\bfetch\s*\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|importScripts|\bimport\s*\(|(?:https?|wss?)://")


class Page(html.parser.HTMLParser):
    """The links, what is loaded, styles and scripts, the ids and the pictures of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.styles: list[str] = []
        self.scripts: list[str] = []
        self.ids: set[str] = set()
        self.pictures: list[str] = []
        self.policies: list[str] = []
        self.text, self._inside = text, ""
        self.feed(text)

    @staticmethod
    @functools.cache
    def read(path: Path) -> Page:
        return Page(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values["id"]} if "id" in values else set()
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        self.loaded += [values[name] for name in LOADING_ATTRIBUTES if values.get(name)]
        if tag in ("image", "use") or (tag == "link" and values.get("rel") not in SILENT_LINKS):
            self.loaded.append(values.get("href", ""))
        if tag == "meta" and values.get("http-equiv", "").lower() == "refresh":
            self.loaded.append(values["content"].partition("=")[2])
        if tag == "meta" and values.get("http-equiv") == "Content-Security-Policy":
            assert not self.loaded, "the policy comes after something that is loaded"
            self.policies.append(values["content"])
        if tag == "img":
            self.pictures.append(values.get("alt", ""))
        self.styles += [values["style"]] if "style" in values else []
        self.scripts += [values[name] for name in values if name.startswith("on")]
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            (self.scripts if self._inside == "script" else self.styles).append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def foreign(page: Page) -> list[str]:
    """Return what a page would load from another host, or could ask of it by a script of its own."""
    loaded = [address for address in page.loaded if urlsplit(address.strip()).netloc and not address.startswith("data:")]
    return loaded + [text for text in page.styles if foreign_in_style(text)] + [text for text in page.scripts if CALLS_HOME.search(text)]


def foreign_in_style(text: str) -> list[str]:
    """Return the addresses of other hosts that a style loads."""
    named = re.findall(r"(?:url\(|@import)\s*['\"]?\s*([^'\")\s;]+)", text)
    return [address for address in named if urlsplit(address).netloc]


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
    found = {name: Page.read(site / f"{name}.html") for name in TOC}
    assert found
    return found


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The book, served on this machine as a web server would."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    with Browser(tmp_path_factory.mktemp("profile")) as started:
        started.call("Network.enable")
        listen = "window.refused = []; addEventListener('securitypolicyviolation', event => refused.push(event.blockedURI))"
        started.call("Page.addScriptToEvaluateOnNewDocument", source=listen)
        yield started


def test_every_page_loads_only_its_own_files_and_they_are_there(site: Path, pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        local = [address for address in page.loaded if not address.startswith(("data:", "#"))]
        assert local
        for address in local:
            assert not urlsplit(address).netloc, f"{name} loads {address}"
            assert ((site / name).parent / unquote(urlsplit(address).path)).is_file(), f"{name} loads {address}, which is not there"


def test_no_page_loads_from_a_foreign_host_or_has_a_script_that_could(site: Path) -> None:
    found = {path.relative_to(site).as_posix(): Page.read(path) for path in site.rglob("*.html") if "_static" not in path.parts}
    assert {"index.html", "search.html", "genindex.html", *(f"{name}.html" for name in TOC)} <= set(found)
    assert any(page.scripts for page in found.values()) and any(page.styles for page in found.values())
    assert not {name: bad for name, page in found.items() if (bad := foreign(page))}
    named = re.compile(r"unpkg\.com|jsdelivr|cdnjs|fonts\.g|googleapis|thebe@")
    assert not [name for name, page in found.items() if named.search(page.text)]


def test_no_style_loads_from_a_foreign_host_and_scripts_name_only_known_ones(site: Path) -> None:
    styles, scripts = list(site.rglob("*.css")), [*site.rglob("*.js"), *site.rglob("*.mjs")]
    assert styles and scripts
    assert not {path.name: bad for path in styles if (bad := foreign_in_style(path.read_text(encoding="utf-8")))}
    assert not [path for path in site.rglob("*.svg") if foreign(Page.read(path))]
    for path in scripts:
        named = re.findall(r"(?:https?|wss?)://[\w.-]+[\w./-]*", path.read_text(encoding="utf-8"))
        strangers = [name for name in named if not name.startswith((NAMESPACE, *(f"https://{place}" for place in NAMED_IN_SCRIPTS)))]
        assert path.name == "searchindex.js" or not strangers, path.name


HOST = "https://elsewhere.example/x"
FOREIGN = {
    "script": f'<script src="{HOST}"></script>',
    "without a scheme": '<script src="//elsewhere.example/x"></script>',
    "style": f'<link rel="stylesheet" href="{HOST}">',
    "connection": f'<link rel="preconnect" href="{HOST}">',
    "image": f'<img src="{HOST}" alt="x">',
    "image in a set": f'<img srcset="{HOST} 2x" alt="x">',
    "frame": f'<iframe src="{HOST}"></iframe>',
    "object": f'<object data="{HOST}"></object>',
    "form": f'<form action="{HOST}"></form>',
    "drawing": f'<svg><image href="{HOST}"/></svg>',
    "font": f"<style>@font-face {{font-family: f; src: url('{HOST}')}} p {{font-family: f}}</style>",
    "imported style": f'<style>@import "{HOST}";</style>',
    "background": f'<p style="background: url({HOST})">x</p>',
    "fetch": "<script>fetch('https:' + '//elsewhere.example/x').catch(() => 0)</script>",
    "beacon": "<script>navigator.sendBeacon('//elsewhere.example/x', '')</script>",
    "socket": "<script>new WebSocket('wss://elsewhere.example/x')</script>",
    "handler": "<img src='data:,' alt='x' onerror=\"new Image().src = 'https://elsewhere.example/x'\">",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_loaded_from_a_foreign_host_is_found(name: str) -> None:
    assert foreign(Page(FOREIGN[name]))
    assert not foreign(Page(f'<a href="{HOST}">a link, which nobody follows but the reader</a><img src="../x.png" alt="x">'))


def test_every_page_forbids_the_browser_to_load_from_a_foreign_host(site: Path, pages: dict[str, Page]) -> None:
    others = {name: Page.read(site / f"{name}.html") for name in ("search", "genindex")}
    for name, page in (pages | others).items():
        (policy,) = page.policies
        rules = {kind: set(places) for kind, *places in map(str.split, policy.split(";"))}
        assert rules["default-src"] == {"'self'", "file:"}, name
        assert not [place for places in rules.values() for place in places if "." in place or "*" in place or place.startswith("http")], (
            name
        )


# One page of each kind: the first, prose, a chapter with formulas, a slider and a quiz, many formulas, tables, the search.
KINDS = ("book/index", "book/01_seeing_in_lab", "book/mathematics", "book/data_sources", "book/references", "search")
STANDS = (
    "Promise.all([window.MathJax && MathJax.startup && MathJax.startup.promise, document.fonts.ready])"
    ".then(() => new Promise(go => setTimeout(go, 200)))"
)


@pytest.mark.parametrize("name", KINDS)
def test_no_page_asks_a_foreign_host_for_anything(name: str, browser: Browser, address: str) -> None:
    browser.requested.clear()
    browser.open(f"{address}/{name}.html" + ("?q=lab" if name == "search" else ""))
    browser.value(STANDS)
    assert len(browser.requested) > 10
    assert not [asked for asked in browser.requested if not asked.startswith((f"{address}/", "data:"))]
    assert browser.value("refused") == [], "the policy forbids something that the page needs"
    if name == "search":
        assert browser.value("new Promise(go => setTimeout(() => go(document.querySelectorAll('#search-results li').length), 500))") > 3


@pytest.mark.parametrize("place", ["a server", "a folder"])
def test_formulas_quizzes_and_sliders_work_under_the_policy(place: str, browser: Browser, address: str, site: Path) -> None:
    browser.open(f"{address}/book/01_seeing_in_lab.html" if place == "a server" else site / "book" / "01_seeing_in_lab.html")
    browser.value(STANDS)
    assert browser.value("document.querySelectorAll('mjx-container').length") > 50
    assert browser.value("[...document.fonts].filter(font => font.family.startsWith('MJX') && font.status == 'loaded').length") > 2
    slider = "document.querySelector('input[type=range]')"
    shown = "[...document.querySelectorAll('.divcolor-slider figure')].findIndex(figure => !figure.hidden)"
    before = browser.value(shown)
    browser.value(f"{slider}.value = {slider}.max; {slider}.dispatchEvent(new Event('input', {{bubbles: true}}))")
    assert browser.value(shown) != before
    browser.value("document.querySelector('form.question input').click(); document.querySelector('form.question button').click()")
    assert browser.value("document.querySelector('form.question [role=status]').innerText")
    assert browser.value("refused") == []


def test_the_browser_keeps_no_more_than_the_page_of_promises_says(browser: Browser, address: str) -> None:
    """The colors of the page; what was searched for last, to mark it; how far the reader has scrolled, until the window is closed."""
    browser.open(f"{address}/search.html?q=lab")
    browser.value("new Promise(go => setTimeout(go, 500))")
    browser.open(f"{address}/book/01_seeing_in_lab.html")
    browser.value(STANDS)
    browser.value("document.querySelector('form.question input').click(); document.querySelector('form.question button').click()")
    browser.value("document.querySelector('button.theme-switch-button').click()")
    assert browser.value("document.cookie") == ""
    assert {"mode", "theme"} <= set(browser.value("Object.keys(localStorage)")) <= {"mode", "theme", "sphinx_highlight_terms"}
    assert set(browser.value("Object.keys(sessionStorage)")) <= {"sidebar-scroll-top"}
    assert browser.value("indexedDB.databases().then(found => found.length)") == 0


@pytest.mark.parametrize("kept", [False, True], ids=["without a policy", "under the policy"])
def test_a_page_that_loads_from_elsewhere_is_seen_and_stopped(kept: bool, browser: Browser, tmp_path: Path) -> None:
    """Without this, an empty list of requests could mean that nobody listens."""
    context: dict[str, str] = {}
    content_policy.with_policy(None, "", "", context, None)  # type: ignore[arg-type]
    names = ["script", "style", "image", "frame", "font", "fetch", "socket"]
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html>{context['metatags'] if kept else ''}<p>x</p>" + "".join(FOREIGN[name] for name in names))
    browser.requested.clear()
    browser.open(page)
    browser.value(STANDS)
    refused = [asked for asked in browser.value("refused") if "elsewhere.example" in asked]
    if kept:
        assert len(refused) >= len(names)
    else:
        assert not refused and len([asked for asked in browser.requested if "elsewhere.example" in asked]) >= len(names)


def test_every_local_link_leads_to_a_file_and_a_place_in_it(site: Path, pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link == "#":
                continue
            target = ((site / name).parent / unquote(parts.path) if parts.path else site / f"{name}.html").resolve()
            assert target.is_file(), f"{name} links to {link}"
            if parts.fragment and target.suffix == ".html":
                assert unquote(parts.fragment) in Page.read(target).ids, f"{name} links to {link}"


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
