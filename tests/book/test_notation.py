"""One notation for the whole book: the page's tables, the library's names, and the formulas in the chapters."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from book._tools import notebooks
from book._tools.fingerprint import code_sources, parsed
from divcolor_lib import autoencoder, lab, losses

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book" / "notation.md").read_text(encoding="utf-8")
CHAPTERS = sorted((ROOT / "book").glob("[0-9][0-9]_*.ipynb"))
PAGES = [path for path in sorted((ROOT / "book").glob("*.md")) if path.name != "notation.md"]

#: What the page says in other words: symbols that stand twice in a table on purpose.
TWICE = {"G"}
MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\\$])\$(?!\$)([^$\n]+?)\$", re.DOTALL)
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
#: Forms that say the same in another way than the notation page, and known slips; each with what to write.
CLASHES = {
    r"D_\{?\\?(?:mathrm|text|operatorname)?\{?\s*KL": r"write \mathrm{KL}(q \,\Vert\, p)",
    r"\|\|": r"write \Vert, or \lVert and \rVert around a vector",
    r"\\(?:mathrm|operatorname|text)\{KL\}\s*(?:\\[bB]ig+l?)?\[": r"write \mathrm{KL}(q \,\Vert\, p) with round brackets",
    r"(?<![A-Za-z\\{])KL\s*\(": r"write \mathrm{KL}(...), upright",
    r"\\epsilon": r"the noise is \varepsilon",
    r"\\varphi|\\vartheta": r"the parameters are \phi and \theta",
    r"\\ln(?![A-Za-z])": r"write \log; it is the natural logarithm",
}


def tables() -> list[tuple[str, list[list[str]]]]:
    """Return (heading, rows with the head first, without the line of hyphens) of every table of the page."""
    found = []
    for heading, text in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE):
        lines = [line for line in text.splitlines() if line.startswith("|")]
        rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
        if rows:
            found.append((heading, [rows[0], *rows[2:]]))
    return found


def symbols(cell: str) -> list[str]:
    r"""Split the formulas of a cell at their outer commas: `$L, a, b$` holds three symbols, `$\mathcal N(\mu, \Sigma)$` one."""
    found = []
    for formula in re.findall(r"\$([^$]+)\$", cell):
        depth, piece = 0, ""
        for character in re.sub(r"\\[,;!]", "", formula):
            depth += (character in "([{") - (character in ")]}")
            if character == "," and depth == 0:
                found.append(piece.strip())
                piece = ""
            else:
                piece += character
        found.append(piece.strip())
    return found


def formulas(text: str) -> list[str]:
    """Return the formulas of a markdown text, code left out."""
    return [display or inline for display, inline in MATH.findall(CODE.sub(" ", text))]


def prose(path: Path) -> str:
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(text for _, text in notebooks.markdown_cells(notebooks.read(path)))


def identifiers(tree: ast.AST) -> set[str]:
    """Return the names of variables, attributes, functions and parameters in Python code."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, (ast.arg, ast.keyword)) and node.arg:
            found.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
    return found


def trees(path: Path) -> list[ast.Module]:
    if path.suffix == ".py":
        return [ast.parse(path.read_text(encoding="utf-8"))]
    return [parsed(text) for text in code_sources(notebooks.read(path))]


def clashes(text: str) -> list[str]:
    return [
        f"{formula.strip()[:80]!r}: {advice}"
        for formula in formulas(text)
        for pattern, advice in CLASHES.items()
        if re.search(pattern, formula)
    ]


def test_the_tables_are_well_formed() -> None:
    assert len(tables()) >= 4
    for heading, rows in tables():
        assert len(rows) > 3, heading
        for row in rows:
            assert len(row) == len(rows[0]), f"{heading}: {row}"
            assert row[0] and row[1], f"{heading}: {row}"
            assert "".join(row).count("$") % 2 == 0 and "".join(row).count("`") % 2 == 0, row


def test_no_symbol_stands_twice_in_a_table() -> None:
    for heading, rows in tables():
        named = [symbol for row in rows[1:] for symbol in symbols(row[0])]
        assert {symbol for symbol in named if named.count(symbol) > 1} <= TWICE, heading
    assert "only in Chapter 1 is $G$ a green" in PAGE


def test_symbols_are_split_at_outer_commas() -> None:
    assert symbols(r"$L, a, b$; $\mathcal N(\mu, \Sigma)$, $\mathbb E_{q}[\,\cdot\,]$") == [
        "L",
        "a",
        "b",
        r"\mathcal N(\mu, \Sigma)",
        r"\mathbb E_{q}[\cdot]",
    ]


def test_the_code_uses_the_names_on_the_page() -> None:
    """Every name in the column "in code" occurs in the library or in a chapter."""
    paths = [*sorted((ROOT / "divcolor_lib").rglob("*.py")), *CHAPTERS]
    used = set().union(*(identifiers(tree) for path in paths for tree in trees(path)))
    named = {
        name
        for _, rows in tables()
        if "in code" in rows[0]
        for row in rows[1:]
        for code in re.findall(r"`([^`]+)`", row[rows[0].index("in code")])
        for name in identifiers(ast.parse(code))
    }
    assert {"mu", "logvar", "noise", "decode", "gray", "ab"} <= named
    assert sorted(named - used) == []


def test_arguments_have_the_names_and_the_order_of_the_page() -> None:
    def names(function: object) -> list[str]:
        return list(inspect.signature(function).parameters)  # type: ignore[arg-type]

    assert names(autoencoder.reparameterize)[:2] == ["mu", "logvar"]
    assert names(losses.kl_to_standard_normal) == names(losses.kl_per_dimension) == ["mu", "logvar"]
    assert names(autoencoder.VAE.decode) == names(autoencoder.Autoencoder.decode) == ["self", "z"]
    assert names(autoencoder.VAE.encode) == ["self", "x"]
    assert {"latent", "noise"} <= set(names(autoencoder.VAE))
    assert {"level"} <= set(names(autoencoder.HierarchicalVAE.posterior))


def test_mu_and_logvar_are_mean_and_logarithm_of_the_variance() -> None:
    mu, logvar = torch.tensor([[0.7]]), torch.tensor([[-1.5]])
    sigma = (0.5 * logvar).exp()
    assert torch.allclose(losses.kl_per_dimension(mu, logvar), kl_divergence(Normal(mu, sigma), Normal(0.0, 1.0)))
    eps = torch.randn(mu.shape, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(autoencoder.reparameterize(mu, logvar, torch.Generator().manual_seed(3)), mu + sigma * eps)


def test_noise_is_the_standard_deviation_of_x() -> None:
    x, mean = torch.tensor([[0.3, -0.2, 0.9]]), torch.tensor([[0.1, 0.0, 0.4]])
    wanted = Normal(mean, 0.3).log_prob(x).sum(1)
    assert torch.allclose(autoencoder.gaussian_log_likelihood(x, mean, noise=0.3), wanted)
    assert autoencoder.VAE(4, 2, noise=0.3).noise == 0.3


def test_shapes_are_those_of_the_page() -> None:
    rows, d = torch.randn(30, 6, generator=torch.Generator().manual_seed(0)), 2
    vae = autoencoder.VAE(6, d)
    mu, logvar = vae.encode(rows)
    assert mu.shape == logvar.shape == (30, d) and vae.decode(mu).shape == (30, 6)
    log_likelihood, kl = vae.elbo(rows, torch.Generator().manual_seed(0))
    assert log_likelihood.shape == (30,) and kl.shape == (30, d)
    pca = autoencoder.fit_pca(rows, d)
    assert pca.components.shape == (d, 6) and pca.variances.shape == (d,) and pca.mean.shape == (6,)
    assert bool((pca.variances.diff() <= 0).all())


def test_gray_and_ab_are_in_the_units_of_the_page() -> None:
    from skimage.color import rgb2lab

    photo = torch.tensor([204, 77, 26], dtype=torch.uint8).expand(1, 4, 4, 3).clone()
    gray, ab = lab.split(photo)
    wanted = torch.as_tensor(rgb2lab(photo[0].numpy()))[0, 0]
    assert gray.shape == (1, 1, 4, 4) and ab.shape == (1, 2, 4, 4)
    assert torch.allclose(gray[0, 0, 0, 0].double(), wanted[0] / 50 - 1, atol=1e-3)
    assert torch.allclose(ab[0, :, 0, 0].double(), wanted[1:] / 128, atol=1e-3)


@pytest.mark.parametrize("path", [*CHAPTERS, *PAGES], ids=lambda path: path.stem)
def test_formulas_follow_the_notation(path: Path) -> None:
    found = clashes(prose(path))
    assert not found, f"{path.name}:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "formula",
    [
        r"$D_{KL}(q \,\Vert\, p)$",
        r"$D_{\mathrm{KL}}(q)$",
        r"$D_\mathrm{KL}$",
        r"$$\mathrm{KL}(q || p)$$",
        r"$\mathrm{KL}[q \,\Vert\, p]$",
        r"$KL(q \| p)$",
        r"$z = \mu + \sigma \epsilon$",
        r"$p_\vartheta$",
        r"$\ln x$",
    ],
)
def test_a_clash_is_found(formula: str) -> None:
    assert clashes(f"Text {formula} text.")


@pytest.mark.parametrize(
    "text",
    [
        r"$\mathrm{KL}(q \,\Vert\, p)$ and $\mathrm{KL}(q \| p)$, $\lVert x \rVert$, $\log x$, $\varepsilon$, $\ell_n$",
        r"Other texts write `D_{KL}` or `||`, and code may hold `a || b`.",
        r"It costs \$5 || more: no formula here.",
        r"$q_\phi(z_t \mid z_{t-1})$ and $q(z \mid x)$",
    ],
)
def test_what_is_no_clash_is_left_alone(text: str) -> None:
    assert clashes(text) == []
