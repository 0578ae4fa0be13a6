"""A fingerprint says whether a chapter's stored outputs still belong to its code.

It covers what decides the outputs: the notebook's code cells, the library modules that they import (and what those import),
and the stored files that they load. Comments and docstrings do not count, and every Python version gives the same value.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "divcolor_lib"
VERSION = "1"
EVERY_MODULE = "*"
# Fields that hold no meaning, or that only some Python versions fill in.
_SILENT_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_ignores"})


def fingerprint(notebook: dict[str, Any], root: Path = ROOT) -> str:
    """Return the fingerprint of a notebook (a dict in nbformat 4) in the repository at `root`."""
    digest = hashlib.sha256(VERSION.encode())
    trees = [parsed(source) for source in code_sources(notebook)]
    for tree in trees:
        digest.update(written(tree).encode() + b"\0")
    modules = needed_modules(trees, root / PACKAGE)
    for name in modules:
        tree = module_tree(root / PACKAGE, name)
        digest.update(name.encode() + b"\0" + written(without_docstrings(tree)).encode() + b"\0")
    for path in loaded_files(notebook, trees, modules, root):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def code_sources(notebook: dict[str, Any]) -> list[str]:
    """Return the text of every code cell that is not empty."""
    sources = ("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    return [source for source in sources if source.strip()]


def parsed(source: str) -> ast.Module:
    """Return the syntax tree of a cell; magics and shell lines become calls, as IPython makes them."""
    return ast.parse(TransformerManager().transform_cell(source))


def module_tree(folder: Path, name: str) -> ast.Module:
    """Return the syntax tree of the module `name`, dotted, in `folder`."""
    return ast.parse(module_files(folder)[name].read_text(encoding="utf-8"))


def written(node: object) -> str:
    """Return a syntax tree as text that no Python version writes differently: absent and empty fields are left out."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if name not in _SILENT_FIELDS)
        inner = ",".join(f"{name}={written(value)}" for name, value in fields if value is not None and value != [])
        return f"{type(node).__name__}({inner})"
    if isinstance(node, list):
        return "[" + ",".join(written(item) for item in node) + "]"
    return repr(node)


def without_docstrings(tree: ast.Module) -> ast.Module:
    """Remove the docstrings of the module, its classes and its functions, in place; return the tree."""
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return tree


def imported_modules(trees: Iterable[ast.AST], package: tuple[str, ...] = ()) -> set[str]:
    """Return the library modules that code names by imports or as `divcolor_lib.name`.

    Names are dotted below the library (`lab`, `plots.chapter_1`) and may turn out to be functions. `package` says in which
    package of the library the code stands, such as `("plots",)`; relative imports start there.
    """
    found: set[str] = set()
    for tree in trees:
        for node in ast.walk(tree):
            found.update(_named_by(node, package))
    return found


def _named_by(node: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            for alias in names:
                parts = alias.name.split(".")
                if parts[0] == PACKAGE:
                    yield from ["__init__", *_with_parents(parts[1:])]
        case ast.ImportFrom(module=module, names=names, level=level):
            parts = (module or "").split(".") if module else []
            if level or parts[:1] == [PACKAGE]:
                below = [*package[: len(package) - level + 1], *parts] if level else parts[1:]
                yield from ["__init__", *_with_parents(below)]
                for alias in names:
                    every = alias.name == "*" and not below
                    yield EVERY_MODULE if every else ".".join([*below, alias.name])
        case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name == PACKAGE:
            yield attribute


def calls_the_command(tree: ast.AST) -> bool:
    """Whether a cell runs `python -m divcolor_lib`, which may use any module. In a module the words only tell a reader what to type."""
    return any(isinstance(node, ast.Constant) and f"-m {PACKAGE}" in str(node.value) for node in ast.walk(tree))


def _with_parents(parts: list[str]) -> list[str]:
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def module_files(folder: Path) -> dict[str, Path]:
    """Return the file of every module in `folder` under its dotted name; a package has the name of its folder."""
    paths = {path: path.relative_to(folder).with_suffix("").parts for path in sorted(folder.rglob("*.py"))}
    return {".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts): path for path, parts in paths.items()}


def package_of(name: str, files: dict[str, Path]) -> tuple[str, ...]:
    """Return the package, below the library, in which the module `name` stands."""
    parts = () if name == "__init__" else tuple(name.split("."))
    return parts if files[name].name == "__init__.py" else parts[:-1]


def needed_modules(cells: list[ast.Module], folder: Path) -> list[str]:
    """Return the modules in `folder` that cells reach, sorted."""
    called = {EVERY_MODULE} if any(calls_the_command(cell) for cell in cells) else set()
    return closure(imported_modules(cells) | called, folder)


def closure(names: Iterable[str], folder: Path) -> list[str]:
    """Return the modules in `folder` that `names` reach by imports, sorted; names that are no module (functions) fall away."""
    files = module_files(folder)
    waiting, reached = set(names), set[str]()
    while waiting:
        name = waiting.pop()
        if name == EVERY_MODULE:
            waiting |= set(files) - reached
        elif name in files and name not in reached:
            reached.add(name)
            waiting |= imported_modules([module_tree(folder, name)], package_of(name, files)) - reached
    return sorted(reached)


def loaded_files(notebook: dict[str, Any], trees: list[ast.Module], modules: list[str], root: Path) -> list[Path]:
    """Return the stored files that count: artefacts of the package, and recorded results, quizzes and pictures that the cells name.

    Artefacts: those that the notebook's metadata list in `divcolor.artifacts`; without such a list all of them,
    when any module that the notebook reaches speaks of the folder `artifacts`.

    Raises:
        FileNotFoundError: the metadata name an artefact that is not there.
    """
    folder = root / PACKAGE / "artifacts"
    listed = notebook["metadata"].get("divcolor", {}).get("artifacts")
    if listed is not None:
        artifacts = [folder / name for name in listed]
        if absent := [path.name for path in artifacts if not path.is_file()]:
            raise FileNotFoundError(f"the notebook lists artefacts that {PACKAGE}/artifacts does not hold: {', '.join(absent)}")
    else:
        speaks = any("artifacts" in text for name in modules for text in strings(module_tree(root / PACKAGE, name)))
        artifacts = [path for path in folder.glob("*") if path.is_file()] if speaks else []
    book = root / "book"
    named = {Path(text).name for tree in trees for text in strings(tree) if text and len(text) < 200 and "\n" not in text}
    stored = [path for part in ("results", "quizzes", "_static") for path in (book / part).glob("*") if path.is_file()]
    return sorted(artifacts) + sorted(path for path in stored if {path.name, path.stem} & named)


def strings(tree: ast.Module) -> Iterator[str]:
    """Yield every string constant in the tree that is not a docstring."""
    for node in ast.walk(without_docstrings(tree)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
