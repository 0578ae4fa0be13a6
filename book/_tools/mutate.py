"""Break the library on purpose and see who notices: `make mutate`.

What a chapter teaches must be noticed by the chapter. Each mutation is tried in a copy of the tree, without caches and without stored
checkpoints, except those that the chapter says it loads. It counts as noticed only if a
cell of that chapter fails by an assertion, or prints another output than the stored one where outputs are compared; any
other error would also be raised by a chapter that checks nothing. Before that, every chapter passes in an unbroken copy.

What the book promises (`book/promises.md`) must be noticed by the test that stands beside the promise. Each breach is tried in a copy of
the tree with its checkpoints. It counts as noticed only if that very test runs and fails; Python must still be able to read the broken
file, and know every name in it. Before that, all these tests pass in an unbroken copy.
"""

from __future__ import annotations

import argparse
import json
import os
import re
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
PROMISES = "promises"
UNREAD = re.compile(r"^E\s+(?:SyntaxError|IndentationError|ImportError|ModuleNotFoundError|NameError|UnboundLocalError)\b", re.MULTILINE)


@dataclass(frozen=True)
class Mutation:
    """One deliberate fault: in `module`, `old`, which stands there once, becomes `new`; `chapter` must notice."""

    what: str
    chapter: str
    module: str
    old: str
    new: str

    @property
    def file(self) -> str:
        """The path of the broken file in the repository."""
        return f"divcolor_lib/{self.module}.py"


@dataclass(frozen=True)
class Breach:
    """One promise broken on purpose: in `file`, `old`, which stands there once, becomes `new`; `test` must fail."""

    what: str
    test: str
    file: str
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


BREACHES = (
    Breach(
        "a download is compared with nothing",
        "tests/test_download.py::test_a_damaged_file_is_noticed_and_fetched_again",
        "divcolor_lib/download.py",
        "    if copy.size is not None and facts.size != copy.size:",
        '    return ""\n    if copy.size is not None and facts.size != copy.size:',
    ),
    Breach(
        "a broken transfer starts anew",
        "tests/test_download.py::test_a_broken_transfer_goes_on_and_fetches_no_byte_twice",
        "divcolor_lib/download.py",
        'headers["Range"] = f"bytes={have}-"',
        "have = 0",
    ),
    Breach(
        "the offline switch is forgotten",
        "tests/test_download.py::test_the_offline_switch_forbids_every_connection",
        "divcolor_lib/download.py",
        "        if offline():",
        "        if not entry:",
    ),
    Breach(
        "an archive may lead out of its folder",
        "tests/test_download.py::test_an_archive_that_attacks_is_refused_and_nothing_stays",
        "divcolor_lib/download.py",
        '    if ".." in parts:',
        "    if not parts:",
    ),
    Breach(
        "a decoder's own error goes on to the user",
        "tests/test_hostile.py::test_bad_pictures_are_one_error_that_names_the_file",
        "divcolor_lib/lab.py",
        'raise ImageError(f"the picture is damaged or cut off: {error}", path, "Copy or download it again.") from error',
        "raise",
    ),
    Breach(
        "a checkpoint's checksum is not compared",
        "tests/test_hostile.py::test_a_file_that_is_no_checkpoint_is_one_error",
        "divcolor_lib/train.py",
        "    if checksum != _checksum(tensors, note):",
        "    if not checksum:",
    ),
    Breach(
        "anchor rows of any shape are taken",
        "tests/test_hostile.py::test_a_checkpoint_that_is_no_colorizer_is_one_error",
        "divcolor_lib/colorize.py",
        "            if ANCHOR_SHAPES.get(name) != value.shape:",
        "            if not name:",
    ),
    Breach(
        "half a file is left where the disk is full",
        "tests/test_hostile.py::test_a_full_disk_is_one_error_and_leaves_nothing_half_written",
        "divcolor_lib/errors.py",
        "                temporary.unlink(missing_ok=True)",
        "                pass",
    ),
    Breach(
        "the noise starts anew after an interruption",
        "tests/test_train.py::test_killed_and_resumed_is_the_same_run_bit_for_bit",
        "divcolor_lib/train.py",
        "self.noise.set_state(noise)",
        "pass",
    ),
    Breach(
        "a loss that is no number is not noticed",
        "tests/test_blow_ups.py::test_what_is_no_number_ends_the_run_before_the_checkpoint_of_that_step",
        "divcolor_lib/train.py",
        "        bad = [term for term, value in values.items() if not math.isfinite(value)]",
        "        bad: list[str] = []",
    ),
    Breach(
        "two halves of a batch count as two batches",
        "tests/test_blow_ups.py::test_two_halves_have_the_gradient_and_the_terms_of_the_whole",
        "divcolor_lib/train.py",
        'self.scaler.scale(terms["loss"] * share).backward()',
        'self.scaler.scale(terms["loss"]).backward()',
    ),
    Breach(
        "colors that are no numbers become a picture",
        "tests/test_bad_input.py::test_a_network_that_went_wrong_gives_no_picture",
        "divcolor_lib/colorize.py",
        '    check_finite("the predicted colors", fields)\n',
        "",
    ),
    Breach(
        "weights may hold code",
        "tests/test_hostile.py::test_odd_weights_are_read_or_one_checkpoint_error",
        "divcolor_lib/features.py",
        'state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)',
        'state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)',
    ),
    Breach(
        "features may hold code",
        "tests/test_security.py::test_the_code_never_unpickles_runs_text_or_starts_a_shell",
        "divcolor_lib/data.py",
        "np.lib.format.read_array(member, allow_pickle=False)",
        "np.lib.format.read_array(member, allow_pickle=True)",
    ),
    Breach(
        "the colorizer could call home",
        "tests/test_security.py::test_one_module_of_the_library_knows_the_network",
        "divcolor_lib/colorize.py",
        "import math\n",
        "import math\nimport urllib.request\n",
    ),
    Breach(
        "pages load scripts from a foreign host",
        "tests/book/test_site.py::test_no_page_loads_from_a_foreign_host_or_has_a_script_that_could",
        "book/_tools/no_thebe.py",
        "[file for file in context.get(kind, []) if not _is_thebe(file)]",
        "context.get(kind, [])",
    ),
    Breach(
        "pages allow what comes from anywhere",
        "tests/book/test_site.py::test_every_page_forbids_the_browser_to_load_from_a_foreign_host",
        "book/_tools/content_policy.py",
        """HERE = "'self' file:\"""",
        """HERE = "'self' file: https:\"""",
    ),
)


def loaded(chapter: str, root: Path = ROOT) -> list[str]:
    """Return the names of the checkpoints that a chapter's metadata list."""
    notebook = json.loads((root / "book" / f"{chapter}.ipynb").read_text(encoding="utf-8"))
    return list(notebook["metadata"].get("divcolor", {}).get("artifacts", []))


@contextmanager
def copy_of_the_tree(root: Path = ROOT, keep: Sequence[str] | None = ()) -> Iterator[Path]:
    """Yield a copy of the files that git knows or would take, without stored checkpoints but `keep` (`None`: with all of them).

    It is gone afterwards.
    """
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
            if keep is not None and checkpoint.name not in keep:
                checkpoint.unlink()
        yield copy


def apply(mutation: Mutation | Breach, root: Path) -> None:
    """Write the fault into the tree at `root`.

    Raises:
        ValueError: the text to replace does not stand there exactly once.
    """
    path = root / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.what}: `{mutation.old}` stands {text.count(mutation.old)} times in {path.name}, not once")
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")


def failures(chapter: str, root: Path) -> list[str]:
    """Run a chapter by nbval in the tree at `root`; return the texts of the cells that fail, the first first."""
    return [text for _, text in results([f"book/{chapter}.ipynb"], root)]


def results(tests: Sequence[str], root: Path, *options: str) -> list[tuple[str, str]]:
    """Run tests in the tree at `root`; return `failure` or `error`, with its text, of those that do not pass, the first first."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = ["-m", "pytest", *tests, *options, "-q", "--color=no", "-p", "no:cacheprovider", f"--junitxml={report}"]
        environment = chapter_environment(os.environ) | THREADS | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run([sys.executable, *command], cwd=root, env=environment, capture_output=True, timeout=LONGEST_SECONDS, check=False)
        if not report.is_file():
            return [("error", "nothing was run")]
        tree = ElementTree.parse(report)
    found = [(node.tag, str(node.text)) for case in tree.iter("testcase") for node in case if node.tag in ("failure", "error")]
    return found if any(True for _ in tree.iter("testcase")) else [("error", "nothing was run")]


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
    return notices(texts), _last_word(texts)


def _last_word(texts: Sequence[str]) -> str:
    if not texts:
        return "nothing failed"
    telling = (line.strip() for line in reversed(texts[0].splitlines()) if re.search("Error|differ|DID NOT", line))
    return next(telling, "")[:120]


def proves(found: Sequence[tuple[str, str]]) -> bool:
    """Whether a test failed by what it looks at: it did run, and the broken code could be read and knew its names."""
    return bool(found) and found[0][0] == "failure" and not UNREAD.search(found[0][1])


def judge_breach(
    breach: Breach, root: Path = ROOT, run: Callable[[Sequence[str], Path, str], list[tuple[str, str]]] = results
) -> tuple[bool, str]:
    """Try one breach; return whether the promise's test noticed, and how the failure reads in one line."""
    with copy_of_the_tree(root, None) as copy:
        apply(breach, copy)
        found = run([breach.test], copy, "-x")
    return proves(found), _last_word([text for _, text in found])


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all unbroken, then every mutation and every breach; return 1 if something fails unbroken or a fault is missed."""
    parser = argparse.ArgumentParser(description="Break the library on purpose; the chapter or the promise's test must notice.")
    parser.add_argument("--chapter", help=f"only the mutations of this chapter; `{PROMISES}`: only the book's promises")
    options = parser.parse_args(arguments)
    failed = count = 0
    if options.chapter != PROMISES:
        chosen = [mutation for mutation in MUTATIONS if options.chapter in (None, mutation.chapter)]
        count, failed = len(chosen), _try_chapters(chosen)
    if options.chapter in (None, PROMISES):
        count, failed = count + len(BREACHES), failed + _try_promises(BREACHES)
    print(f"{count} mutations, {failed} problems")
    return int(failed > 0)


def _try_promises(breaches: Sequence[Breach]) -> int:
    """Try the tests of the promises unbroken, then broken one by one; print each and return the number of problems."""
    with copy_of_the_tree(keep=None) as copy:
        red = results(sorted({breach.test for breach in breaches}), copy)
    print(f"{'green' if not red else 'RED  '}   the tests of the promises, unbroken", flush=True)
    failed = int(bool(red))
    for breach in breaches:
        began = time.perf_counter()
        noticed, how = judge_breach(breach)
        failed += not noticed
        told = f"{breach.what}: {breach.test.rpartition('::')[2]} ({time.perf_counter() - began:.0f} s; {how})"
        print(f"{'noticed' if noticed else 'MISSED '} {told}", flush=True)
    return failed


def _try_chapters(chosen: Sequence[Mutation]) -> int:
    """Try the chapters unbroken, then with each mutation; print each and return the number of problems."""
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
    return failed


if __name__ == "__main__":
    sys.exit(main())
