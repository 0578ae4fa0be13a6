"""Sphinx extension: every page tells the browser to load nothing from a foreign host (a Content Security Policy).

The book needs nothing from elsewhere. With the policy a reader's browser makes sure of it, also of what a page's scripts might ask for
later. Scripts and styles written into a page are allowed: quizzes and sliders are such.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

HERE = "'self' file:"  # `file:` for a book that is read from a folder: not every browser calls that 'self'
POLICY = {
    "default-src": HERE,
    "script-src": f"{HERE} 'unsafe-inline'",
    "style-src": f"{HERE} 'unsafe-inline'",
    "img-src": f"{HERE} data:",
    "font-src": f"{HERE} data:",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": HERE,
}


def with_policy(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object) -> None:
    """Put the policy before everything that a page could load."""
    rules = "; ".join(f"{kind} {places}" for kind, places in POLICY.items())
    context["metatags"] = f'<meta http-equiv="Content-Security-Policy" content="{rules}" />\n{context.get("metatags", "")}'


def setup(app: Sphinx) -> dict[str, bool]:
    """Make this file an extension of Sphinx."""
    app.connect("html-page-context", with_policy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
