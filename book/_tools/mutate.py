"""Break the library on purpose and see whether the chapter that teaches the broken part notices: `make mutate`.

Each mutation is tried in a copy of the tree, without caches and without stored checkpoints, except those that the chapter says it
loads. It counts as noticed only if a
cell of that chapter fails by an assertion, or prints another output than the stored one where outputs are compared; any
other error would also be raised by a chapter that checks nothing. Before that, every chapter passes in an unbroken copy.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from book._tools.environment import THREADS, chapter_environment

ROOT = Path(__file__).resolve().parents[2]
LONGEST_SECONDS = 600
CHECKPOINTS = "divcolor_lib/artifacts/*.safetensors"


@dataclass(frozen=True)
class Mutation:
    """One deliberate fault: in `module`, `old`, which stands there once, becomes `new`; `chapter` must notice."""

    what: str
    chapter: str
    module: str
    old: str
    new: str


LAB, BINS, LOSSES, CODES = "lab", "bins", "losses", "autoencoder"
DATA, NETWORK, RUNTIME, TABLE, PAINT, SCORES = "data", "cvae", "runtime", "features", "colorize", "metrics"
LOOP = "train"
SEEING, LINEAR, ELBO = "01_seeing_in_lab", "03_autoencoders", "04_elbo"
TRICK, LEVELS = "05_reparameterization", "07_hierarchical_vae"
PHOTOS, CONDITIONAL, MIXTURES = "08_data", "09_cvae", "10_mdn"
PRIOR, COLORING, JUDGING, FULL = "11_conditional_prior", "12_coloring", "13_is_it_any_good", "14_full_training"

MUTATIONS = (
    Mutation("an entry of the matrix from RGB to XYZ", SEEING, LAB, "0.357580", "0.347580"),
    Mutation("the exponent of the sRGB curve", SEEING, LAB, ".pow(2.4)", ".pow(2.2)"),
    Mutation("the straight part of the sRGB curve", SEEING, LAB, "x / 12.92, curve", "x / 12.29, curve"),
    Mutation("the constant of the Lab curve", SEEING, LAB, "_DELTA = 6 / 29", "_DELTA = 7 / 29"),
    Mutation("the scale of color fields", SEEING, LAB, "AB_SCALE = 128.0", "AB_SCALE = 127.0"),
    Mutation(
        "the uniform share in Zhang's weights", SEEING, BINS, "1 / ((1 - mix) * smoothed + mix / bins.count)", "1 / ((1 - mix) * smoothed)"
    ),
    Mutation("the mean of Zhang's weights", SEEING, BINS, "weights / (smoothed * weights).sum()", "weights / weights.sum()"),
    Mutation("the inverse weights", SEEING, BINS, "(1 / prior.detach().double())", "(1 / prior.detach().double().sqrt())"),
    Mutation(
        "the sign of the KL",
        ELBO,
        LOSSES,
        "0.5 * (mu.square() + logvar.expm1() - logvar)",
        "-0.5 * (mu.square() + logvar.expm1() - logvar)",
    ),
    Mutation("sigma for sigma squared in the KL", ELBO, LOSSES, "mu.square() + logvar.expm1()", "mu.square() + (0.5 * logvar).expm1()"),
    Mutation(
        "the general KL, turned round",
        ELBO,
        LOSSES,
        "ratio = logvar.float() - prior_logvar.float()",
        "ratio = prior_logvar.float() - logvar.float()",
    ),
    Mutation("the constant of the likelihood", ELBO, CODES, "math.log(2 * math.pi * noise**2)", "math.log(2 * math.pi * noise)"),
    Mutation("sigma squared for sigma", TRICK, CODES, "return mu + (0.5 * logvar).exp() * eps", "return mu + logvar.exp() * eps"),
    Mutation(
        "no gradient through the draw",
        TRICK,
        CODES,
        "return mu + (0.5 * logvar).exp() * eps",
        "return (mu + (0.5 * logvar).exp() * eps).detach()",
    ),
    Mutation("no noise", TRICK, CODES, "return mu + (0.5 * logvar).exp() * eps", "return mu + (0.5 * logvar).exp()"),
    Mutation("evenly spread noise", TRICK, CODES, "eps = torch.randn(mu.shape", "eps = torch.rand(mu.shape"),
    Mutation("a projection without the mean", LINEAR, CODES, "return self.mean + (rows - self.mean) @", "return (rows - self.mean) @"),
    Mutation(
        "a variance for its inverse between levels",
        LEVELS,
        CODES,
        "0.5 * (prior_logvar - logvar + distance)",
        "0.5 * (logvar - prior_logvar + distance)",
    ),
    Mutation(
        "a split by image",
        PHOTOS,
        DATA,
        "parts = np.array([home[group] for group in groups]",
        "parts = np.array([int(np.searchsorted(edges[1:-1], _hashed(seed, str(image)), side='right')) for image in range(len(groups))]",
    ),
    Mutation(
        "mean and variance swapped",
        CONDITIONAL,
        NETWORK,
        "return mu, logvar.clamp(*LOGVAR_RANGE)",
        "return logvar.clamp(*LOGVAR_RANGE), mu",
    ),
    Mutation("a decoder that sees every map", CONDITIONAL, NETWORK, "hidden = len(features) - self.config.skips", "hidden = 0"),
    Mutation(
        "the nearest-component bound for the NLL",
        MIXTURES,
        LOSSES,
        "return -mixture.log_prob(z.float()).mean()",
        "return nearest_component_bound(mixture, z)",
    ),
    Mutation("the farthest component for the nearest", MIXTURES, LOSSES, ".square().sum(2).argmin(1)", ".square().sum(2).argmax(1)"),
    Mutation("training mode in place of eval mode", PRIOR, RUNTIME, "module.eval()", "module.train()"),
    Mutation("features that ignore their kind", PRIOR, TABLE, 'if kind == "encoder":\n        return maps[-1]', "return maps[-1]"),
    Mutation("the least likely first", COLORING, PAINT, "weights.sort(dim=1, descending=True", "weights.sort(dim=1, descending=False"),
    Mutation(
        "clipped colors in place of less chroma",
        COLORING,
        LAB,
        "return torch.cat([lightness.unsqueeze(-3), lab[..., 1:, :, :] * factor.unsqueeze(-3)], dim=-3)",
        "return rgb_to_lab(lab_to_rgb(lab).clamp(0, 1))",
    ),
    Mutation(
        "bilinear enlargement alone",
        COLORING,
        PAINT,
        "for _ in range(BACK_PROJECTIONS):",
        "return result\n    for _ in range(BACK_PROJECTIONS):",
    ),
    Mutation("the mean error for the best", JUDGING, SCORES, "return errors_[:, :k].min(1).values", "return errors_[:, :k].mean(1)"),
    Mutation("a total variation that forgets what hits nothing", JUDGING, SCORES, ".sum() + 1 - q.sum()))", ".sum()))"),
    Mutation(
        "losses in the precision of their inputs", FULL, LOSSES, "return prediction.float() - truth.float()", "return prediction - truth"
    ),
    Mutation("noise that starts anew after a resume", FULL, LOOP, "self.noise.set_state(noise)", "pass"),
    Mutation("bfloat16 on a card that has none", FULL, RUNTIME, 'return "bf16" if major >= 8 else', 'return "bf16" if major >= 7 else'),
)


def loaded(chapter: str, root: Path = ROOT) -> list[str]:
    """Return the names of the checkpoints that a chapter's metadata list."""
    notebook = json.loads((root / "book" / f"{chapter}.ipynb").read_text(encoding="utf-8"))
    return list(notebook["metadata"].get("divcolor", {}).get("artifacts", []))


@contextmanager
def copy_of_the_tree(root: Path = ROOT, keep: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a copy of the files that git knows or would take, without stored checkpoints but `keep`; it is gone afterwards."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=root, capture_output=True, text=True, check=True
    )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        for name in filter(None, listed.stdout.split("\0")):
            if (root / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / name, copy / name)
        for checkpoint in copy.glob(CHECKPOINTS):
            if checkpoint.name not in keep:
                checkpoint.unlink()
        yield copy


def apply(mutation: Mutation, root: Path) -> None:
    """Write the fault into the tree at `root`.

    Raises:
        ValueError: the text to replace does not stand there exactly once.
    """
    path = root / "divcolor_lib" / f"{mutation.module}.py"
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.what}: `{mutation.old}` stands {text.count(mutation.old)} times in {path.name}, not once")
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")


def failures(chapter: str, root: Path) -> list[str]:
    """Run a chapter by nbval in the tree at `root`; return the texts of the cells that fail, the first first."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = ["-m", "pytest", f"book/{chapter}.ipynb", "-q", "--color=no", "-p", "no:cacheprovider", f"--junitxml={report}"]
        environment = chapter_environment(os.environ) | THREADS | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run([sys.executable, *command], cwd=root, env=environment, capture_output=True, timeout=LONGEST_SECONDS, check=False)
        if not report.is_file():
            return ["no cell was run"]
        tree = ElementTree.parse(report)
    found = [str(node.text) for case in tree.iter("testcase") for node in case if node.tag in ("failure", "error")]
    return found if any(True for _ in tree.iter("testcase")) else ["no cell was run"]


def notices(texts: Sequence[str]) -> bool:
    """Whether the first failure is an assertion, or an output that differs from the stored one."""
    if not texts:
        return False
    first = texts[0]
    return "AssertionError" in first or "ExerciseError" in first or "Cell outputs differ" in first


def judge(mutation: Mutation, root: Path = ROOT, run: Callable[[str, Path], list[str]] = failures) -> tuple[bool, str]:
    """Try one mutation; return whether its chapter noticed, and how the first failure reads in one line."""
    with copy_of_the_tree(root, loaded(mutation.chapter, root)) as copy:
        apply(mutation, copy)
        texts = run(mutation.chapter, copy)
    last = (
        next((line.strip() for line in reversed(texts[0].splitlines()) if "Error" in line or "differ" in line), "")
        if texts
        else "nothing failed"
    )
    return notices(texts), last[:120]


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the unbroken chapters, then every mutation; return 1 if one chapter fails unbroken or misses a fault."""
    parser = argparse.ArgumentParser(description="Break the library on purpose; the chapter that teaches the part must notice.")
    parser.add_argument("--chapter", help="only the mutations of this chapter")
    options = parser.parse_args(arguments)
    chosen = [mutation for mutation in MUTATIONS if options.chapter in (None, mutation.chapter)]
    failed = 0
    for chapter in sorted({mutation.chapter for mutation in chosen}):
        with copy_of_the_tree(keep=loaded(chapter)) as copy:
            texts = failures(chapter, copy)
        failed += bool(texts)
        print(f"{'green' if not texts else 'RED  '}   {chapter}, unbroken", flush=True)
    for mutation in chosen:
        began = time.perf_counter()
        noticed, how = judge(mutation)
        failed += not noticed
        told = f"{mutation.chapter}: {mutation.what} ({time.perf_counter() - began:.0f} s; {how})"
        print(f"{'noticed' if noticed else 'MISSED '} {told}", flush=True)
    print(f"{len(chosen)} mutations, {failed} problems")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
