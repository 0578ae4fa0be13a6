"""Sphinx extension: take the scripts of thebe off every page.

Jupyter Book adds them even when thebe is off. They name a foreign host, and declare a constant twice, which is an error in the console.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def without_thebe(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object) -> None:
    """Take the scripts and styles of thebe out of a page; they would be fetched from a foreign host."""
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context.get(kind, []) if not _is_thebe(file)]


def _is_thebe(file: Any) -> bool:
    return "thebe" in f"{getattr(file, 'filename', '')} {getattr(file, 'attributes', {}).get('body', '')}".lower()


def setup(app: Sphinx) -> dict[str, bool]:
    """Make this file an extension of Sphinx."""
    app.connect("html-page-context", without_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
