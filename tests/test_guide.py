"""The instructor's guide: what it names exists, its sums are right, its numbers are recomputed, its commands are commands."""

from __future__ import annotations

import ast
import json
import math
import re
import shlex
import subprocess
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import torch
import yaml

from assignments import __main__ as command_line
from assignments._tools import quiz_key, sheet, source

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "assignments" / "guide"
PAGES = sorted(GUIDE.glob("*.md"))
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
URL = CONFIG["repository"]["url"]
SESSION, READING = 90, 10  # minutes of a session and of an exam; minutes of an exam for reading
MADE = ("_build", "assignments/teacher", "graded", "submissions")  # what commands make, and git ignores
# What the walk-through of a teacher runs, here and on the page of the assignments: every bash block of this guide, in order.
COMMANDS = [
    f"git clone {URL}\ncd {URL.rsplit('/', 1)[1]}",
    "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make book",
    ".venv/bin/python -m pytest -q book/00_start.ipynb",
    "make assignments SEED=a-secret-word",
    ".venv/bin/python -m assignments grade assignments/teacher/1_lab/solution.ipynb"
    " --assignment 1 --seed a-secret-word --out graded/dry-run",
    ".venv/bin/python -m assignments leaks _build/html book/assignments",
]


@lru_cache
def text(name: str) -> str:
    return (GUIDE / name).read_text(encoding="utf-8")


def without_code(page: str) -> str:
    return re.sub(r"^ *```.*?^ *```", "", page, flags=re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL)


def sections(page: str) -> dict[str, str]:
    """Return the text below each heading of the third level, up to the next heading of any level above the fourth."""
    parts = re.split(r"^(#{1,3}) +(.*)$", page, flags=re.MULTILINE)
    return {title: body for level, title, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True) if level == "###"}


@lru_cache
def headings(path: Path) -> tuple[str, ...]:
    page = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        page = "\n".join("".join(cell["source"]) for cell in json.loads(page)["cells"] if cell["cell_type"] == "markdown")
    return tuple(re.findall(r"^#{1,4} +(.*?) *$", without_code(page), re.MULTILINE))


def anchors(path: Path) -> set[str]:
    """Return the anchors of a notebook as Jupyter and GitHub make them for notebooks, or of a page as GitHub does."""
    if path.suffix == ".ipynb":
        return {heading.replace(" ", "-") for heading in headings(path)}
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(path)}


# What is named exists.


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_section_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8")))
    assert links or page.name == "quiz_key.md"
    for link in links:
        if re.match(r"https?://", link):
            continue
        place, _, fragment = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.is_file(), f"{page.name} links to {link}"
        assert target.is_relative_to(ROOT)
        if fragment:
            assert unquote(fragment) in anchors(target), f"{page.name} links to {link}"


def test_no_two_sections_of_a_linked_file_share_a_name() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s#]+)#([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
            target = (page.parent / link[0]).resolve()
            if target.suffix == ".ipynb":
                assert [heading.replace(" ", "-") for heading in headings(target)].count(unquote(link[1])) == 1, link


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_path_in_the_text_is_there_or_is_made_by_a_command(page: Path) -> None:
    named = re.findall(r"`([\w.-]+(?:/[\w.-]*)+)`", without_code(page.read_text(encoding="utf-8")))
    for path in named:
        assert (ROOT / path).exists() or path.startswith(MADE), f"{page.name} names {path}"


def test_every_page_of_the_guide_is_on_its_first_page() -> None:
    linked = set(re.findall(r"\]\(([\w]+\.md)\)", text("README.md")))
    assert linked == {page.name for page in PAGES} - {"README.md"}
    assert "(guide/README.md)" in (ROOT / "assignments" / "README.md").read_text(encoding="utf-8")
    assert "(assignments/guide/README.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_git_ignores_what_holds_personal_data_or_secrets() -> None:
    paths = ["submissions/ada.ipynb", "graded/grades.csv", "assignments/teacher/1_lab/rubric.md"]
    done = subprocess.run(["git", "check-ignore", *paths], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 128:
        pytest.skip("not in a git repository")
    assert done.stdout.split() == paths


# Commands.


def test_the_commands_to_run_stand_on_the_first_page_alone_and_are_those_of_the_walk_through() -> None:
    assert [block.strip() for block in blocks(text("README.md"), "bash")] == COMMANDS
    for page in PAGES:
        assert page.name == "README.md" or not blocks(page.read_text(encoding="utf-8"), "(?:bash|sh|shell)")


def all_commands() -> list[str]:
    found = list(COMMANDS)
    for page in PAGES:
        page_text = page.read_text(encoding="utf-8")
        found += blocks(page_text, "text") + re.findall(r"`([^`\n]+)`", without_code(page_text))
    return [line.strip() for block in found for line in block.splitlines()]


def test_every_make_target_is_one_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {found[1] for line in all_commands() if (found := re.match(r"(?:\w+=\S+ )?make (\w+)", line))}
    assert {"book", "test", "assignments", "execute"} <= named <= targets


def test_every_command_of_the_assignments_is_understood() -> None:
    lines = [line for line in all_commands() if "python -m assignments" in line]
    assert len(lines) >= 3
    for line in lines:
        arguments = shlex.split(line.split("-m assignments", 1)[1])
        command_line._parser().parse_args(arguments)


def test_every_call_of_pytest_names_files_that_are_there() -> None:
    lines = [line for line in all_commands() if "-m pytest" in line]
    assert lines
    for line in lines:
        paths = [word for word in shlex.split(line.split("-m pytest", 1)[1]) if not word.startswith("-")]
        assert paths and all((ROOT / path).is_file() for path in paths)


def test_the_freeze_leaves_no_old_address_and_no_untagged_clone(tmp_path: Path) -> None:
    """The editing commands of the guide, run on copies of one file of each kind that they must change."""
    if URL not in text("semester.md"):
        pytest.skip("this is a frozen copy")
    copied = [
        "_config.yml",
        "pyproject.toml",
        "CITATION.cff",
        "divcolor_lib/download.py",
        "book/data_sources.md",
        "assignments/guide/README.md",
    ]
    notebooks = [*(ROOT / "book").glob("*.ipynb"), *(ROOT / "book" / "assignments").glob("*.ipynb")]
    sources = list((ROOT / "assignments" / "sources").glob("*/source.ipynb"))
    clone = "git clone --quiet --depth 1 "
    assert all(clone in path.read_text(encoding="utf-8") for path in [*notebooks, *sources]), "a first cell has changed its form"
    copied += [str(path.relative_to(ROOT)) for path in [notebooks[0], notebooks[-1], *sources[:1], GUIDE / "semester.md"]]
    for name in copied:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    lines = [line for line in blocks(text("semester.md"), "text")[0].splitlines() if "sed -i" in line]
    assert len(lines) == 4
    script = "\n".join(["set -e", "git init --quiet", "git add --all", *lines])
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True, capture_output=True)
    for name in copied:
        changed = (tmp_path / name).read_text(encoding="utf-8")
        if name.endswith("semester.md"):
            assert changed == (ROOT / name).read_text(encoding="utf-8")
            continue
        assert URL not in changed and "github.com/our-school/" in changed, name
        if name.endswith(".ipynb"):
            assert f"{clone}--branch fall-2026-v1 https://github.com/our-school/" in changed and "/blob/main/" not in changed
    assert yaml.safe_load((tmp_path / "_config.yml").read_text(encoding="utf-8"))["repository"]["branch"] == "fall-2026-v1"


# Plans.


def plan_sessions() -> list[tuple[str, str, str]]:
    """Return (plan, title, body) of every session."""
    found = []
    for part in re.split(r"^## ", text("plans.md"), flags=re.MULTILINE)[1:]:
        plan = part.splitlines()[0]
        found += [(plan, title, body) for title, body in sections("## " + part).items()]
    return found


def test_the_minutes_of_every_session_add_up() -> None:
    for plan, title, body in plan_sessions():
        stated = re.search(r"\((\d+) minutes\)$", title)
        assert stated and int(stated[1]) == SESSION, (plan, title)
        assert sum(int(minutes) for minutes in re.findall(r"^\| (\d+) \| ", body, re.MULTILINE)) == SESSION, (plan, title)
        assert body.strip().startswith("Goals: ")


def test_the_first_table_counts_the_sessions_of_each_plan() -> None:
    stated = dict(re.findall(r"^\| \[([a-z ]+)\]\(#[a-z-]+\) \| (\d+) \|", text("plans.md"), re.MULTILINE))
    assert set(stated) == {"one week", "four weeks", "ten weeks"}
    for plan, count in stated.items():
        assert sum(name.lower() == plan for name, _, _ in plan_sessions()) == int(count)


def test_the_ten_weeks_leave_out_no_chapter() -> None:
    plan = text("plans.md").split("## Ten weeks")[1]
    chapters = {int(number) for number in re.findall(r"/book/(\d\d)_", plan)}
    assert chapters == set(range(16))


@pytest.mark.parametrize(("plan", "assignments"), [("One week", "1"), ("Four weeks", "123"), ("Ten weeks", "1234")])
def test_every_assignment_is_handed_out_before_it_is_due(plan: str, assignments: str) -> None:
    bodies = "\n".join(body for name, _, body in plan_sessions() if name == plan)
    assert set(re.findall(r"ssignment (\d)", bodies)) == set(assignments)
    for number in set(assignments) - {"4"}:  # the project is shown in class
        assert 0 <= bodies.index(f"ssignment {number}") < bodies.index(f"ssignment {number} is due")


def test_the_table_of_assignments_is_that_of_their_sources() -> None:
    rows = re.findall(r"^\| (\d) \| ([^|]+) \| [\d, ]+ \| (\d+) \| (\d+) \|$", text("plans.md"), re.MULTILINE)
    assert [number for number, *_ in rows] == list("1234")
    for name in source.names():
        assignment = source.load(name)
        _, title, by_machine, by_hand = rows[assignment.number - 1]
        assert assignment.title == f"Assignment {assignment.number}: {title}"
        assert int(by_hand) == sum(task.points for task in assignment.tasks if task.by_hand)
        assert int(by_machine) + int(by_hand) == assignment.points == 100


def test_the_seconds_and_gigabytes_are_those_that_the_chapters_record() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| ([\d.]+) \|$", text("plans.md"), re.MULTILINE)
    chapters = sorted((ROOT / "book").glob("[0-9][0-9]_*.ipynb"))
    assert [int(number) for number, _, _ in rows] == [int(path.name[:2]) for path in chapters] == list(range(15))
    total = 0
    for (number, at_most, memory), path in zip(rows, chapters, strict=True):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        assert notebook["metadata"]["divcolor"]["seconds"] <= int(at_most), f"chapter {number} has become slower than the plan says"
        code = "\n".join("".join(cell["source"]) for cell in notebook["cells"])
        total += notebook["metadata"]["divcolor"]["seconds"]
        assert f"memory_gb={float(memory):g}" in code.replace("memory_gb=1.0", "memory_gb=1"), number
    assert total < 600, "semester.md says that all chapters run in less than ten minutes"


# The exam.

Question = dict[str, Any]


@lru_cache
def exam() -> dict[str, Question]:
    found = {}
    for title, body in sections(text("exam.md")).items():
        form = re.fullmatch(
            r"([NDCJ]\d+)\. (.+) \((\d+) points, (\d+) minutes, (?:chapters? [\d, and]+)(?: and the page on invented colors)?\)", title
        )
        assert form, title
        answer = body.split("**Answer.**")[1].split("**Numbers.**")[0].split("**Marking.**")[0]
        marking = body.split("**Marking.**")[1]
        found[form[1]] = {
            "points": int(form[3]),
            "minutes": int(form[4]),
            "answer": answer,
            "numbers": numbers_of(body, r"\*\*Numbers\.\*\* (.*)"),
            "marks": [int(points) for points in re.findall(r"^- (\d+): ", marking, re.MULTILINE)],
            "body": body,
        }
    return found


def numbers_of(page: str, pattern: str) -> list[str]:
    line = re.search(pattern, page)
    return line[1].split(", ") if line else []


def agree(printed: str, value: float) -> bool:
    """Whether a printed number is a value rounded to as many digits."""
    digits = len(printed.partition(".")[2])
    return abs(float(printed) - value) <= 0.5 * 10**-digits * (1 + 1e-6)


def test_the_bank_is_large_and_every_question_is_complete() -> None:
    questions = exam()
    assert len(questions) >= 40
    assert f"A bank of {len(questions)} questions" in text("exam.md") and f"{len(questions)} exam questions" in text("README.md")
    for kind, least in {"N": 12, "D": 10, "C": 8, "J": 8}.items():
        numbers = [int(name[1:]) for name in questions if name[0] == kind]
        assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= least


@pytest.mark.parametrize("name", list(exam()))
def test_the_marking_of_a_question_adds_up_to_its_points(name: str) -> None:
    question = exam()[name]
    assert sum(question["marks"]) == question["points"] == question["minutes"]  # a point is a minute
    assert len(question["answer"].split()) >= 20


def exams() -> dict[str, list[str]]:
    return {
        name: names.split() for name, names in re.findall(r"^\| ([A-C]) \| [^|]+ \| ((?:[NDCJ]\d+ ?)+)\|$", text("exam.md"), re.MULTILINE)
    }


def test_the_exams_fill_ninety_minutes_and_share_no_question() -> None:
    picked, questions = exams(), exam()
    assert set(picked) == {"A", "B", "C"}
    for names in picked.values():
        assert sum(questions[name]["minutes"] for name in names) + READING == SESSION
        assert sum(questions[name]["points"] for name in names) == SESSION - READING
    everything = [name for names in picked.values() for name in names]
    assert len(set(everything)) == len(everything)


def test_the_shares_of_the_exams_are_as_the_page_says() -> None:
    questions = exam()
    share = {
        name: {kind: sum(questions[each]["points"] for each in names if each[0] == kind) / (SESSION - READING) for kind in "NDCJ"}
        for name, names in exams().items()
    }
    for name in "AB":
        assert 0.25 <= share[name]["N"] <= 0.35 and 0.25 <= share[name]["D"] <= 0.35 and 0.2 <= share[name]["J"] <= 0.3
    assert 0.42 <= share["C"]["N"] < 0.5


def test_the_code_of_the_exam_is_python() -> None:
    found = blocks(text("exam.md"), "python")
    assert len(found) == sum(name[0] == "C" for name in exam())
    for block in found:
        ast.parse(block)


def kl_to_standard(mu: float, variance: float) -> float:
    return 0.5 * (mu**2 + variance - math.log(variance) - 1)


def normal(z: float, mu: float, scale: float) -> float:
    return math.exp(-((z - mu) ** 2) / (2 * scale**2)) / (scale * math.sqrt(2 * math.pi))


def n1() -> list[float]:
    colors, p = torch.tensor([[30.0, 20], [-30, 30], [5, -35]]), torch.tensor([0.5, 0.3, 0.2])
    mean = p @ colors
    return [*mean.tolist(), float(mean.norm()), float(p @ colors.norm(dim=1))]


def n2() -> list[float]:
    def agreeing(regions: int) -> float:
        return sum(p**regions for p in (0.5, 0.3, 0.2))

    return [agreeing(2), agreeing(3), next(regions for regions in range(1, 99) if agreeing(regions) < 1e-3)]


def n3() -> list[float]:
    values, p = torch.tensor([-20.0, 10, 30], dtype=torch.double), torch.tensor([0.45, 0.25, 0.3], dtype=torch.double)
    grid = torch.linspace(-25, 35, 601, dtype=torch.double)
    cost = ((grid[:, None] - values).abs() * p).sum(1)
    mean, median, mode = float(p @ values), float(grid[cost.argmin()]), float(values[p.argmax()])
    return [mean, median, mode, *(float(p @ (values - answer).abs()) for answer in (median, mean, mode))]


def n4() -> list[float]:
    joint = [0.8 * 0.1, 0.2 * 0.7]
    evidence = sum(joint)
    posterior = [each / evidence for each in joint]
    elbo = sum(0.5 * math.log(each / 0.5) for each in joint)
    gap = sum(0.5 * math.log(0.5 / each) for each in posterior)
    assert abs(elbo + gap - math.log(evidence)) < 1e-12
    return [evidence, math.log(evidence), posterior[1], elbo, gap]


def n5() -> list[float]:
    return [kl_to_standard(1, 0.5**2), kl_to_standard(1, 0.5)]


def n6() -> list[float]:
    M, D, B = 8192, 16, 32
    beta = [(1 / (B * D)) / (1 / (B * M)), 1 / (1 / B)]  # factor of the KL over factor of the squared error
    return [beta[0], math.sqrt(beta[0] / 2), beta[1], math.sqrt(beta[1] / 2)]


def n7() -> list[float]:
    found: list[float] = []
    for level in (0.2, 1.0):
        above = [variance for variance in (1.6, 0.8, 0.3, 0.1) if variance > level]
        found += [len(above), sum(0.5 * math.log(variance / level) for variance in above)]
    return found


def n8() -> list[float]:
    return [*((D + 2) * (D + 4) / 4 for D in (8, 64)), *(2 * (D + 2) / 4 for D in (8, 64))]


def n9() -> list[float]:
    low, high = torch.linalg.eigvalsh(torch.tensor([[5.0, 2], [2, 2]], dtype=torch.double)).tolist()
    return [high, low, low, high / (high + low), high / (high + 2), low / (low + 2)]


def n10() -> list[float]:
    parts = [0.6 * normal(0.5, 0, 1), 0.4 * normal(0.5, 2, 1)]
    gamma = [part / sum(parts) for part in parts]
    return [*gamma, -math.log(sum(parts)), -math.log(parts[0]), -math.log(gamma[0]), 0.6 - gamma[0]]


def n11() -> list[float]:
    excess = [0.5 * (1 / scale**2 - 1) + math.log(scale) for scale in (0.1, 0.2)]
    return [*excess, 5 * excess[0]]


def n12() -> list[float]:
    different = sum(1 - (1 - p) ** 8 for p in (0.6, 0.3, 0.1))
    return [different, 0.9**8, next(draws for draws in range(1, 99) if 1 - 0.9**draws >= 0.95)]


def n13() -> list[float]:
    p, q = [0.5, 0.3, 0.2], [0.4 + 0.25, 0.2, 0.0]
    nothing = 1 - sum(q)
    recall = sum(true for true, shown in zip(p, q, strict=True) if shown)
    return [recall, sum(q), 0.5 * (sum(abs(true - shown) for true, shown in zip(p, q, strict=True)) + nothing)]


def n14() -> list[float]:
    truth, answers = torch.tensor([0.3, 0.1]), torch.tensor([[0.3, -0.2], [0.1, 0.1], [0.0, 0.4]])
    square = (answers - truth).square()
    error = square.mean(1).sqrt()
    return [float(x) for x in (error[0], error.min(), square.amin(0).mean().sqrt(), answers.var(0, correction=0).mean())]


def n15() -> list[float]:
    forward = 2 * 64 * 64 * 3**2 * 32 * 32
    return [forward, 3 * 16 * forward / 1e9, 12_000 * 64 * 64 * 3 / 1e9, 12_000 * 512 * 28 * 28 * 2 / 1e9]


def n16() -> list[float]:
    p = torch.tensor([0.8, 0.15, 0.05], dtype=torch.double)
    raw = 1 / (0.5 * p + 0.5 / 3)
    weights = raw / (p @ raw)
    return [*weights.tolist(), float(weights[2] / weights[0]), float(p[0] / p[2])]


def n17() -> list[float]:
    return [1 / (1 - 0.82 + 0.82 / 104), 1 / (1 - 0.82)]


def n18() -> list[float]:
    colors, p = torch.tensor([[27.0, 15], [6, -31], [-30, 26]], dtype=torch.double), torch.tensor([0.5, 0.3, 0.2], dtype=torch.double)
    variance = 2.0**2 + 20.0**2
    given = (p.log() - (colors - torch.tensor([16.0, -2.0])).square().sum(1) / (2 * variance)).softmax(0)
    return [variance, *given.tolist()]


def c4() -> list[float]:
    squares, kl = torch.ones(32, 8192), torch.ones(32, 16)
    by_sum = squares.sum() / squares.mean()  # what multiplies the loss so that squares are summed
    return [float(by_sum * kl.sum() / kl.sum())]


ANSWERS: dict[str, Callable[[], list[float]]] = {
    function.__name__.upper(): function
    for function in (n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11, n12, n13, n14, n15, n16, n17, n18, c4)
}


def test_every_question_with_numbers_is_recomputed() -> None:
    assert {name for name, question in exam().items() if question["numbers"]} == set(ANSWERS)
    assert {name for name in exam() if name[0] == "N"} <= set(ANSWERS)


@pytest.mark.parametrize("name", list(ANSWERS))
def test_the_numbers_of_a_model_answer_are_right_and_stand_in_it(name: str) -> None:
    question, values = exam()[name], ANSWERS[name]()
    assert len(question["numbers"]) == len(values)
    answer = re.sub(r"(?<=\d),(?=\d{3})", "", question["answer"])
    for printed, value in zip(question["numbers"], values, strict=True):
        assert agree(printed, value), f"{name}: {printed} is printed, {value} is right"
        known = printed in answer or printed.lstrip("-") in answer or f"{float(printed):g}" in answer
        assert known, f"{name}: {printed} does not stand in the answer"


def test_what_the_exam_says_of_recorded_results_is_recorded() -> None:
    record = json.loads((ROOT / "book" / "results" / "faces-data.json").read_text(encoding="utf-8"))["ITA"]
    assert 0.6 < record["within a person"] ** 2 / record["photographs"] ** 2 < 0.72  # "two thirds" in J5
    low, high = record["quantiles"][0], record["quantiles"][-1]
    assert round(high) - round(low) == 94  # degrees, in J5
    assert (round(low), round(high)) == (-37, 57)  # in the stumbles of chapter 8


# The key, and the demonstrations.


def test_the_key_is_that_of_the_quizzes() -> None:
    assert text("quiz_key.md") == quiz_key.made(), "run python -m assignments quiz-key"


def test_the_key_names_the_right_letter_and_every_reason_of_every_question() -> None:
    parts = text("quiz_key.md").split("\n## Chapter ")[1:]
    assert len(parts) == len(quiz_key.files()) == 14
    for part, path in zip(parts, quiz_key.files(), strict=True):
        quiz = json.loads(path.read_text(encoding="utf-8"))
        assert part.startswith(f"{int(path.stem)}: ")
        assert re.findall(r"^- (\w)\) .*\*\*Right:\*\*", part, re.MULTILINE) == [each["answer"] for each in quiz["questions"]]
        assert all(choice["why"] in part for question in quiz["questions"] for choice in question["choices"])


def test_the_command_writes_the_key_and_complains_of_an_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quiz_key, "PATH", tmp_path / "key.md")
    monkeypatch.setattr(command_line, "ROOT", tmp_path)
    assert command_line.main(["quiz-key", "--check"]) == 1 and "out of date" in capsys.readouterr().out
    assert command_line.main(["quiz-key"]) == 0 and command_line.main(["quiz-key", "--check"]) == 0
    assert (tmp_path / "key.md").read_text(encoding="utf-8") == text("quiz_key.md")


def demonstrations() -> dict[str, str]:
    found = {}
    for part in re.split(r"^## ", text("stumbles.md"), flags=re.MULTILINE)[1:]:
        for block in blocks(part, "python"):
            found[part.splitlines()[0].split(":")[0]] = block
    return found


def test_every_chapter_has_stumbles_and_one_demonstration() -> None:
    chapters = [f"Chapter {number}" for number in range(15)]
    assert list(demonstrations()) == chapters
    for number, part in enumerate(re.split(r"^## Chapter ", text("stumbles.md"), flags=re.MULTILINE)[1:]):
        (path,) = (ROOT / "book").glob(f"{number:02}_*.ipynb")
        assert part.splitlines()[0] == f"{number}: {headings(path)[0]}"
        assert len(re.findall(r"^- \*\*", part, re.MULTILINE)) >= 3


@pytest.mark.parametrize("name", list(demonstrations()))
def test_the_demonstration_runs_and_shows_what_it_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = demonstrations()[name]
    assert "assert" in code and "print" in code and len(code.splitlines()) <= 16
    with torch.random.fork_rng():
        exec(compile(code, name, "exec"), {"__name__": "demonstration"})
    assert capsys.readouterr().out


# The test before and after.


def test_the_points_goals_and_minutes_of_the_test_agree() -> None:
    page = text("pre_post_test.md")
    questions = {}
    for title, body in sections(page.split("## The key")[0]).items():
        form = re.fullmatch(
            r"T(\d+)\. .+ \((\d) points?, (Explain|Implement|Train|Judge), (?:chapters? [\d and]+|page on invented colors)\)", title
        )
        assert form, title
        questions[f"T{form[1]}"] = (int(form[2]), form[3], re.findall(r"^- ([a-d])\) ", body, re.MULTILINE))
    assert list(questions) == [f"T{number}" for number in range(1, 17)]
    for points, _, letters in questions.values():
        assert letters == (["a", "b", "c", "d"] if points == 1 else [])
    total = sum(points for points, _, _ in questions.values())
    assert f"20 minutes, {total} points" in page and total < 20
    goals = re.findall(r"^\| (Explain|Implement|Train|Judge) \| ([T\d ]+) \| (\d+) \|$", page, re.MULTILINE)
    assert [goal for goal, _, _ in goals] == re.findall(r":::\{grid-item-card\} (Explain|Implement|Train|Judge)\n", index())
    for goal, names, points in goals:
        assert names.split() == [name for name, each in questions.items() if each[1] == goal]
        assert int(points) == sum(each[0] for each in questions.values() if each[1] == goal)
    lettered = sum(bool(letters) for _, _, letters in questions.values())
    assert f"quarter of the {lettered} letters: {lettered / 4} points of {total}, or {100 * lettered / 4 / total:.0f} %" in page


def index() -> str:
    return (ROOT / "book" / "index.md").read_text(encoding="utf-8")


def test_the_key_of_the_test_answers_every_question_and_explains_the_wrong_letters() -> None:
    page = text("pre_post_test.md")
    rows = re.findall(r"^\| (T\d+) \| ([^|]+) \| ([^|]+) \|$", page.split("## The key")[1], re.MULTILINE)
    assert [name for name, _, _ in rows] == [f"T{number}" for number in range(1, 17)]
    spoken = {"T3", "T6", "T16"}
    for name, right, wrong in rows:
        assert (right in ("a", "b", "c", "d")) == (name not in spoken), name
        if name not in spoken:
            told = set(re.findall(r"\b([a-d])\b(?=[,:])", wrong))
            assert told == set("abcd") - {right}, name
    letters = [right for _, right, _ in rows if right in "abcd"]
    assert max(letters.count(letter) for letter in "abcd") <= 5 and all(letter in letters for letter in "abcd")


def test_the_numbers_of_the_test_are_right() -> None:
    page = text("pre_post_test.md")
    values, p = torch.tensor([0.0, 10.0]), torch.tensor([0.6, 0.4])
    grid = torch.linspace(0, 10, 101)
    absolute = ((grid[:, None] - values).abs() * p).sum(1)
    expected = {
        "T3": [float(p @ values), float(grid[absolute.argmin()])],
        "T6": [0.25 * 0.9 / (0.75 * 0.1 + 0.25 * 0.9)],
        "T16": [1 - 0.9**10],
        "gain": [(74 - 38) / (100 - 38)],
    }
    for name, right in expected.items():
        printed = numbers_of(page, rf"\*\*Numbers {name}\.\*\* (.*)")
        assert len(printed) == len(right) and all(agree(each, value) for each, value in zip(printed, right, strict=True)), name


def test_the_printed_part_of_the_test_holds_no_key() -> None:
    printed = text("pre_post_test.md").split("## The test\n")[1].split("## The key")[0]
    assert not re.search(r"\| T\d+ \||\*\*Numbers|0\.651|\b0\.75\b", printed)


@pytest.mark.parametrize("which", [*sheet.exams(), sheet.TEST])
def test_a_printed_sheet_holds_every_question_and_no_answer(which: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["sheet", which]) == 0
    printed = capsys.readouterr().out
    names = exams()[which] if which != sheet.TEST else [f"T{number}" for number in range(1, 17)]
    assert len(re.findall(r"^## \d+\. ", printed, re.MULTILINE)) == len(names)
    assert "Answer" not in printed and "Marking" not in printed and "Numbers" not in printed and "chapter" not in printed
    assert len(re.findall("```", printed)) == 2 * sum(name[0] == "C" for name in names)
    if which == sheet.TEST:
        assert "\n19 points.\n" in printed and printed.count("\n- a) ") == 13
        return
    assert f"\n{SESSION - READING} points.\n" in printed
    for name in names:
        assert exam()[name]["body"].split("**Answer.**")[0].strip() in printed
        assert exam()[name]["answer"].strip() not in printed


def test_a_sheet_that_is_not_there_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["sheet", "Z"]) == 2
    assert "there is no sheet Z" in (told := capsys.readouterr().err) and "A, B, C, test" in told


def test_the_discussions_that_plans_name_are_there() -> None:
    numbers = [int(title.split(".")[0]) for title in re.findall(r"^## (\d+\. .*)$", text("discussion.md"), re.MULTILINE)]
    assert numbers == list(range(1, 12)) and text("discussion.md").count("eaches: ") == len(numbers)
    for said in re.findall(r"Discussion ([\d, and]+) of", text("plans.md")):
        assert {int(number) for number in re.findall(r"\d+", said)} <= set(numbers)


def test_sessions_follow_the_chapters() -> None:
    """In the plan of ten weeks no lecture builds on a chapter that comes later: its first chapters rise."""
    lectures = [body for name, title, body in plan_sessions() if name == "Ten weeks" and "lecture" in title]
    latest = [max(int(number) for number in re.findall(r"/book/(\d\d)_", body)) for body in lectures]
    assert all(first <= second for first, second in pairwise(latest))
