"""What the code never does: unpickle, run text, start a shell, unpack without care, doubt no server, call home.

A scanner reads the syntax trees of the library, the tools, the benchmarks and every code cell of the book. It finds slips, not somebody
who hides what he does; what it should find it is shown in small samples, each of them bad.
"""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import divcolor_lib.__main__ as cli
from book._tools.fingerprint import code_sources, parsed

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]

#: Where the one file of pickles is opened, and how: `torch.load` there reads tensors and no code.
READER = ("divcolor_lib/features.py", "_published")
PICKLES = {
    "pickle",
    "_pickle",
    "cPickle",
    "pickletools",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "jsonpickle",
    "torch.package",
}
FORBIDDEN = {
    **dict.fromkeys(("eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"), "runs text as code"),
    **dict.fromkeys(("os.system", "os.popen", "pty.spawn", "asyncio.create_subprocess_shell"), "starts a shell"),
    **dict.fromkeys(("subprocess.getoutput", "subprocess.getstatusoutput"), "starts a shell"),
    **dict.fromkeys(("torch.jit.load", "torch.hub.load", "torch.hub.load_state_dict_from_url", "pandas.read_pickle"), "unpickles"),
    **dict.fromkeys(("torch.distributed.all_gather_object", "torch.distributed.broadcast_object_list"), "unpickles"),
    **dict.fromkeys(("torch.distributed.gather_object", "torch.distributed.scatter_object_list"), "unpickles"),
    **dict.fromkeys(("torch.distributed.recv_object_list", "torch.distributed.send_object_list"), "unpickles"),
    "shutil.unpack_archive": "unpacks without care",
    "tempfile.mktemp": "names a file that somebody else can make first",
    **dict.fromkeys(("ssl._create_unverified_context", "ssl.CERT_NONE"), "does not ask who a server is"),
}
FORBIDDEN_FAMILIES = {"os.exec": "starts a program", "os.spawn": "starts a program", "os.posix_spawn": "starts a program"}
STARTERS = {f"subprocess.{name}" for name in ("run", "Popen", "call", "check_call", "check_output")}
NUMPY_READERS = {"numpy.load", "numpy.lib.format.read_array", "numpy.lib.npyio.NpzFile"}
SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader"}
YAML_READERS = {f"yaml.{name}" for name in ("load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all")}
#: What a cell may ask of the system: on Colab alone, to bring the book and the library.
MAGICS = {
    ("system", f"git clone --quiet --depth 1 {REPOSITORY}"),
    ("run_line_magic", "cd", f"{REPOSITORY.rsplit('/', 1)[1]}/book"),
    ("run_line_magic", "pip", "install --quiet .."),
}


# --- the scanner ---


def complaints(tree: ast.AST, where: str = "sample") -> list[str]:
    """Return what stands in a syntax tree and must not, one line each."""
    names, makers, inside = imported(tree), list_makers(tree), functions(tree)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            wrong = next((f"imports {name}" for name in modules(node) if family(name) & PICKLES), "")
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
            parent = parents.get(node)
            call = parent if isinstance(parent, ast.Call) and parent.func is node else None
            wrong = of_name(full_name(node, names), call, names, makers, inside.get(node, tree), where)
            if isinstance(node, ast.Attribute) and node.attr in ("extractall", "extract") and call:
                wrong = "unpacks without care"
        else:
            wrong = ""
        if wrong:
            found.append(f"{where}:{node.lineno}: {wrong}")  # type: ignore[attr-defined]
    return found


def of_name(name: str, call: ast.Call | None, names: dict[str, str], makers: set[str], scope: ast.AST, where: str) -> str:
    """Return what is wrong with the use of a dotted name, called or not, in a function or a module."""
    if name in FORBIDDEN:
        return FORBIDDEN[name]
    if not name.startswith("os.") and family(name) & PICKLES:
        return f"uses {name}"
    for start, wrong in FORBIDDEN_FAMILIES.items():
        if name.startswith(start):
            return wrong
    if name == "torch.load":
        known = call is not None and (where, getattr(scope, "name", "")) == READER
        return "" if known and constant(call, "weights_only", True) else "opens a file of pickles"
    if name in NUMPY_READERS:
        return "" if constant(call, "allow_pickle", False) else "does not say allow_pickle=False"
    if name in YAML_READERS:
        loaders = [keyword.value for keyword in call.keywords if keyword.arg == "Loader"] if call else []
        return "" if any(full_name(loader, names) in SAFE_LOADERS for loader in loaders) else "reads YAML without a safe loader"
    if name in STARTERS:
        return of_process(call, makers | known_lists(scope, makers))
    if name.startswith("get_ipython()."):
        texts = tuple(argument.value for argument in call.args if isinstance(argument, ast.Constant)) if call else ()
        return "" if (name.partition(".")[2], *texts) in MAGICS else f"asks the notebook's shell for {' '.join(map(str, texts))}"
    return ""


def of_process(call: ast.Call | None, lists: set[str]) -> str:
    """Return what is wrong with the start of a program; it must be what is known to be a list, and no shell."""
    if call is None or any(keyword.arg is None for keyword in call.keywords):
        return "starts a program with options that cannot be seen"
    if any(keyword.arg in ("shell", "executable") for keyword in call.keywords):
        return "starts a program by a shell"
    command = call.args[0] if call.args else next((keyword.value for keyword in call.keywords if keyword.arg == "args"), None)
    return "" if is_list(command, lists) else "starts a program by what may be no list"


def is_list(node: ast.AST | None, lists: set[str]) -> bool:
    """Whether an expression is a list or a tuple: it is written so, or its name is one of `lists`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return f"{node.func.id}()" in lists
    return isinstance(node, (ast.List, ast.ListComp, ast.Tuple)) or (isinstance(node, ast.Name) and node.id in lists)


def list_makers(tree: ast.AST) -> set[str]:
    """Return the functions that say they return `list[str]`, as `name()`; mypy knows whether that is true."""
    written = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.returns is not None)
    return {f"{node.name}()" for node in written if ast.unparse(node.returns) == "list[str]"}


def known_lists(scope: ast.AST, makers: set[str]) -> set[str]:
    """Return the names that are given lists and nothing else in a function or a module."""
    given: dict[str, list[ast.AST | None]] = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        given.setdefault(name.id, []).append(node.value if name is target else None)
        elif isinstance(node, ast.arg):
            given.setdefault(node.arg, []).append(None)
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.For, ast.NamedExpr, ast.comprehension)):
            for name in ast.walk(node.target):
                if isinstance(name, ast.Name):
                    given.setdefault(name.id, []).append(None)
    return {name for name, values in given.items() if all(is_list(value, makers) for value in values)}


def constant(call: ast.Call | None, argument: str, value: object) -> bool:
    """Whether a call says `argument=value` in plain sight."""
    return call is not None and any(
        keyword.arg == argument and isinstance(keyword.value, ast.Constant) and keyword.value.value is value for keyword in call.keywords
    )


def imported(tree: ast.AST) -> dict[str, str]:
    """Return what each imported name stands for, as `{"np": "numpy"}`."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return the dotted names that an import statement brings."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [] if node.level else [f"{node.module}.{alias.name}" for alias in node.names]


def family(name: str) -> set[str]:
    """Return a dotted name and all that it is a part of: `a.b.c`, `a.b`, `a`."""
    parts = name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts) + 1)}


def full_name(node: ast.AST, names: dict[str, str]) -> str:
    """Return the dotted name behind an expression, with what was imported written out; nothing for any other expression."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        before = full_name(node.value, names)
        return f"{before}.{node.attr}" if before else ""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "get_ipython":
        return "get_ipython()"
    return ""


def functions(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    """Return the innermost function around each node."""
    return {
        inner: node
        for node in ast.walk(tree)  # outer functions first
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for inner in ast.walk(node)
    }


@functools.cache
def code() -> dict[str, ast.Module]:
    """Return the trees of all code that a reader of the book runs, `{where: tree}`; the cells of a notebook make one."""
    return dict(_code())


def _code() -> Iterator[tuple[str, ast.Module]]:
    for folder in ("divcolor_lib", "book", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "book").rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            cells = [cell_tree(source) for source in code_sources(json.loads(path.read_text(encoding="utf-8")))]
            yield str(path.relative_to(ROOT)), ast.Module([line for cell in cells for line in cell.body], [])


def cell_tree(source: str) -> ast.Module:
    """Return the syntax tree of a cell; what is no Python is a shell line or a magic, which IPython makes a call of."""
    try:
        return ast.parse(source)
    except SyntaxError:
        return parsed(source)


# --- the book and the library ---


def test_the_code_never_unpickles_runs_text_or_starts_a_shell() -> None:
    trees = code()
    assert {"divcolor_lib/train.py", "book/_tools/execute.py", "benchmarks/rows.py", "book/14_full_training.ipynb"} <= set(trees)
    assert not [line for where, tree in trees.items() for line in complaints(tree, where)]


def test_one_function_opens_a_file_of_pickles_and_takes_tensors_alone() -> None:
    """The exception of the rule is there, and needed: under another name the same lines are a complaint."""
    where, function = READER
    tree = ast.parse((ROOT / where).read_text(encoding="utf-8"))
    assert not complaints(tree, where)
    assert len(complaints(tree, "divcolor_lib/elsewhere.py")) == 1
    lax = ast.parse(ast.unparse(tree).replace("weights_only=True", "weights_only=False"))
    assert len(complaints(lax, where)) == 1
    moved = ast.parse(ast.unparse(tree).replace(f"def {function}(", "def another("))
    assert len(complaints(moved, where)) == 1


# --- nothing leaves this machine ---

NETWORK = {"socket", "ssl", "http", "urllib.request", "urllib3", "requests", "gdown", "ftplib", "smtplib", "telnetlib", "xmlrpc"}
NETWORK |= {"socketserver", "httpx", "aiohttp", "websockets", "webbrowser", "torch.hub", "huggingface_hub"}


def network_modules(tree: ast.AST) -> set[str]:
    """Return the modules through which code in a syntax tree could reach the network."""
    named = {name for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)) for name in modules(node)}
    return set().union(*map(family, named | set(imported(tree).values()))) & NETWORK


def test_one_module_of_the_library_knows_the_network() -> None:
    assert {where for where, tree in code().items() if network_modules(tree)} == {"divcolor_lib/download.py"}


@pytest.mark.parametrize(
    "line", ["import socket", "import urllib.request", "from urllib import request", "import requests as r", "from http.client import X"]
)
def test_an_import_of_the_network_is_seen(line: str) -> None:
    assert network_modules(ast.parse(line))
    assert not network_modules(ast.parse("import urllib.parse, html"))


def test_coloring_and_training_open_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real runs of the command, with every way to another machine replaced by a trap."""
    asked: list[Any] = []

    def trap(*arguments: Any, **options: Any) -> Any:
        asked.append(arguments)
        raise OSError("no network in this test")

    for name in ("socket.socket.connect", "socket.socket.connect_ex", "socket.socket.sendto", "socket.getaddrinfo"):
        monkeypatch.setattr(name, trap)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "PORTRAIT_COUNTS", {"train": 24, "val": 6, "test": 10})
    monkeypatch.setitem(cli.RECIPES, "portraits", cli.RECIPES["portraits"].with_(batch=8))
    Image.fromarray(np.linspace(0, 255, 96 * 80).reshape(96, 80).astype(np.uint8)).save("photo.png")
    assert cli.main(["colorize", "photo.png", "--out", "colored"]) == 0
    assert cli.main(["train", "--scale", "0.001", "--out", "my.safetensors"]) == 0
    assert len(list(Path("colored").iterdir())) > 1 and Path("my.safetensors").is_file()
    assert not asked


# --- the scanner sees what it should ---

BAD = {
    "pickle": "import pickle",
    "a part of pickle": "from pickle import loads",
    "pickle under another name": "import _pickle as p",
    "joblib": "from joblib import load",
    "marshal": "import marshal, os",
    "shelve": "def f():\n    import shelve",
    "dill": "import dill as anything",
    "torch.package": "from torch import package",
    "torch.load": "import torch\ntorch.load('x', weights_only=True)",
    "torch.load by name": "from torch import load as read\nread('x')",
    "torch.load handed on": "import torch as t\nreader = t.load",
    "torch.hub": "import torch\ntorch.hub.load('a/b', 'c')",
    "torch.jit": "import torch.jit\ntorch.jit.load('x')",
    "objects between processes": "import torch.distributed as dist\ndist.all_gather_object([], 1)",
    "np.load with pickles": "import numpy as np\nnp.load('x', allow_pickle=True)",
    "np.load that says nothing": "import numpy as np\nnp.load('x')",
    "np.load with a variable": "from numpy import load\nload('x', allow_pickle=lax)",
    "np.load handed on": "import numpy as np\nlist(map(np.load, paths))",
    "read_array": "import numpy as np\nnp.lib.format.read_array(stream)",
    "eval": "eval('1 + 1')",
    "exec": "exec(open('x').read())",
    "exec handed on": "list(map(exec, texts))",
    "compile": "compile('1', 'x', 'eval')",
    "__import__": "__import__('pickle')",
    "yaml.load": "import yaml\nyaml.load(text)",
    "yaml.load with another loader": "import yaml\nyaml.load(text, Loader=yaml.FullLoader)",
    "yaml.unsafe_load": "from yaml import unsafe_load\nunsafe_load(text)",
    "a text for a command": "import subprocess\nsubprocess.run('ls')",
    "a name for a command": "import subprocess\nsubprocess.run(command)",
    "a name that is a list and then none": "import subprocess\ncommand = ['ls']\ncommand = 'ls'\nsubprocess.run(command)",
    "an argument for a command": "import subprocess\ndef f(command):\n    subprocess.run(command)",
    "a text from a function": "import subprocess\ndef made() -> str:\n    return 'ls'\nsubprocess.run(made())",
    "a shell": "import subprocess\nsubprocess.run(['ls'], shell=True)",
    "perhaps a shell": "from subprocess import Popen\nPopen(['ls'], shell=maybe)",
    "unseen options": "import subprocess as sp\nsp.check_call(['ls'], **options)",
    "another program": "import subprocess\nsubprocess.run(['ls'], executable='sh')",
    "a start handed on": "import subprocess\nstart = subprocess.Popen",
    "getoutput": "import subprocess\nsubprocess.getoutput('ls')",
    "os.system": "import os\nos.system('ls')",
    "os.popen": "from os import popen\npopen('ls')",
    "os.execv": "import os\nos.execv('/bin/ls', [])",
    "unpack_archive": "import shutil\nshutil.unpack_archive('x.zip')",
    "extractall": "import zipfile\nzipfile.ZipFile('x').extractall()",
    "mktemp": "import tempfile\ntempfile.mktemp()",
    "no certificate": "import ssl\ncontext.verify_mode = ssl.CERT_NONE",
    "a shell line": "!rm -rf data",
    "another repository": "!git clone --quiet --depth 1 https://github.com/somebody/else",
    "another package": "%pip install --quiet surprise",
    "a shell cell": "%%bash\nls",
}
GOOD = {
    "eval mode": "model.eval()\nmodule.eval().encode(x)",
    "a pattern": "import re\nre.compile('x')",
    "a compiled model": "model.compile()",
    "a field with the name of a function": "class Options:\n    compile: bool = True",
    "np.load without pickles": "import numpy as np\nnp.load('x', allow_pickle=False)",
    "safe YAML": "import yaml\nyaml.safe_load(text)\nyaml.load(text, Loader=yaml.SafeLoader)",
    "a list for a command": "import subprocess\nsubprocess.run(['git', *names], check=True)",
    "a list with a name": "import subprocess\ndef made() -> list[str]:\n    return ['ls']\ncommand = made()\nsubprocess.run(command)",
    "an error of a program": "import subprocess\ntry:\n    pass\nexcept subprocess.TimeoutExpired:\n    pass",
    "one file of an archive": "bundle.extractfile(entry)",
    "the book's own repository": f"!git clone --quiet --depth 1 {REPOSITORY}",
}


@pytest.mark.parametrize("name", BAD)
def test_the_scanner_complains_of_what_is_bad(name: str) -> None:
    assert complaints(cell_tree(BAD[name]))


@pytest.mark.parametrize("name", GOOD)
def test_the_scanner_lets_pass_what_is_good(name: str) -> None:
    assert not complaints(cell_tree(GOOD[name]))
