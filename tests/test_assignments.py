"""The assignments: sources follow the rules, artefacts come from them alone, nothing secret gets out, hidden tests are sound."""

from __future__ import annotations

import copy
import doctest
import functools
import importlib
import json
import re
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch

from assignments import __main__ as command
from assignments import live
from assignments._tools import build, exam, leaks, source
from assignments._tools.inside import plain
from assignments._tools.mistakes import different_solutions, mistakes_of
from book._tools import notebooks
from book._tools.execute import execute
from book._tools.notebooks import Notebook, text_of
from divcolor_lib.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[1]
NAMES = source.names()
LEAST_MISTAKES = 5
SEED = "a-seed-for-tests"
STUDENTS = ROOT / "book" / "assignments"
# What holds for a chapter and for a notebook that has not been run alike.
PAGE_CHECKS = (
    *(notebooks.cell_never_checked, notebooks.stored_error, notebooks.widget, notebooks.absolute_path, notebooks.headings),
    *(notebooks.directive_or_role, notebooks.html_block_without_blank_lines, notebooks.cell_ids, notebooks.too_large),
)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def files() -> dict[str, dict[str, str]]:
    return {name: build.build(source.load(name), SEED) for name in NAMES}


def small(**changes: str) -> Notebook:
    """A source of one task, `double`, and one answer in words; `changes` replace the text of cells."""

    def cell(name: str, text: str, kind: str = "code", **facts: Any) -> dict[str, Any]:
        metadata = {"nbgrader": {"grade_id": name, "schema_version": 3, "task": False} | facts} if facts else {}
        made: dict[str, Any] = {"cell_type": kind, "id": name, "metadata": metadata, "source": changes.get(name.replace("-", "_"), text)}
        return made | ({"outputs": [], "execution_count": None} if kind == "code" else {})

    solution = "def double(x):\n    ### BEGIN SOLUTION\n    twice_as_much = x + x\n    return twice_as_much\n    ### END SOLUTION"
    hidden = (
        "def hidden(exam):\n    with exam.part('it doubles numbers', 3):\n        x = exam.numbers(4)\n"
        "        exam.close(exam.call('double', x), 2 * x, 'right', 'wrong by {difference:.2f}')\n"
        "    with exam.part('it keeps shapes', 1):\n        x = exam.numbers(2, 2)\n"
        "        exam.same_shape('the result', exam.call('double', x), x)\n"
    )
    cells = [
        cell("title", "# Small", "markdown"),
        cell("task", "## Task 1. Twice (4 points)", "markdown"),
        cell("given", "FACTOR = 2", grade=False, solution=False, locked=True),
        cell("solution-double", solution, grade=False, solution=True, locked=False),
        cell(
            "test-double",
            f"print(double(3))\n### BEGIN HIDDEN TESTS\n{hidden}### END HIDDEN TESTS",
            grade=True,
            solution=False,
            locked=True,
            points=4,
        ),
        cell("words", "## Task 2. Why (2 points)", "markdown"),
        cell("answer-why", "Because nothing else is twice as much.", "markdown", grade=True, solution=True, locked=False, points=2),
    ]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def parsed(**changes: str) -> source.Assignment:
    return source.parse("0_small", small(**changes))


# --- sources --------------------------------------------------------------------------------------------------------------


def test_there_are_assignments() -> None:
    assert NAMES and [source.load(name).number for name in NAMES] == sorted({source.load(name).number for name in NAMES})
    with pytest.raises(ConfigError, match="no assignment 99"):
        source.load(99)


@pytest.mark.parametrize("name", NAMES)
def test_headings_number_the_tasks_as_feedback_does(name: str) -> None:
    headings = "\n".join(text for _, text in notebooks.markdown_cells(source.load(name).notebook))
    found = re.findall(r"^#{2,3} Task (\d+)\. (.+?) \(\d+ points?\)$", headings, re.MULTILINE)
    assert found == [(str(number), task.title) for number, task in enumerate(source.load(name).tasks, start=1)]


@pytest.mark.parametrize("name", NAMES)
def test_an_assignment_has_a_hundred_points(name: str) -> None:
    assert source.load(name).points == 100


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"solution_double": "def double(x):\n    ### BEGIN SOLUTION\n    return x"}, "no end"),
        ({"solution_double": "def double(x): return x"}, "no end"),
        ({"task": "## Task 1. Twice (3 points)"}, "other points"),
        ({"task": "## Task 1. Twice"}, "other points"),
        ({"test_double": "print(double(3))"}, "no hidden test"),
        ({"title": "# Small\n### BEGIN SOLUTION"}, "no nbgrader metadata"),
    ],
)
def test_a_source_that_breaks_a_rule_is_refused(changes: dict[str, str], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        parsed(**changes)


def test_a_name_that_is_used_twice_is_refused() -> None:
    notebook = small()
    notebook["cells"][2]["metadata"]["nbgrader"]["grade_id"] = "solution-double"
    with pytest.raises(DataError, match="used before"):
        source.parse("0_small", notebook)


def test_what_a_task_needs_is_read_from_our_solution() -> None:
    assignment = source.load(1)
    assert assignment.needs(assignment.task("gamut")) == ("lab_to_rgb",)
    assert assignment.needs(assignment.task("bins")) == ()
    assert "bin_index" in assignment.names_before("prior") and "prior" not in assignment.names_before("prior")
    assert "def prior" not in assignment.reference(before="prior") and "def bin_index" in assignment.reference(before="prior")


@pytest.mark.parametrize("name", ["source", "build", "exam", "grade"])
def test_the_examples_in_docstrings_are_true(name: str) -> None:
    module = importlib.import_module(f"assignments._tools.{name}")
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


# --- artefacts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_student_notebook_is_what_the_source_makes(name: str, files: dict[str, dict[str, str]]) -> None:
    path = f"book/assignments/{name}.ipynb"
    assert (ROOT / path).read_text(encoding="utf-8") == files[name][path], "run make assignments SEED=..."
    assert not [path for path in STUDENTS.glob("*.ipynb") if path.stem not in NAMES]


def test_making_twice_gives_the_same_and_only_the_autograder_knows_the_seed(tmp_path: Path) -> None:
    one, same, other = (build.build(parsed(), seed) for seed in (SEED, SEED, "another seed"))
    assert one == same
    assert {path for path in one if one[path] != other[path]} == {"assignments/teacher/0_small/autograder.ipynb"}
    assert [path for path in one if SEED in one[path]] == ["assignments/teacher/0_small/autograder.ipynb"]
    assert build.write(one, tmp_path) == list(one) and build.write(one, tmp_path) == []


def test_the_teacher_s_files_are_never_committed() -> None:
    ignored = subprocess.run(["git", "check-ignore", "assignments/teacher/1_lab/rubric.md"], cwd=ROOT, capture_output=True, check=False)
    if ignored.returncode == 128:
        pytest.skip("not a git checkout")
    assert ignored.returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_nbgrader_s_rules_hold(name: str, files: dict[str, dict[str, str]]) -> None:
    for path in (path for path in files[name] if path.endswith(".ipynb")):
        cells = [cell for cell in json.loads(files[name][path])["cells"] if "nbgrader" in cell["metadata"]]
        facts = [cell["metadata"]["nbgrader"] for cell in cells]
        assert len({fact["grade_id"] for fact in facts}) == len(facts) and all(fact["grade_id"] for fact in facts)
        for cell, fact in zip(cells, facts):
            assert fact["schema_version"] == 3 and fact["task"] is False
            assert all(isinstance(fact[flag], bool) for flag in ("grade", "solution", "locked"))
            assert ("points" in fact) == fact["grade"]
            assert cell["cell_type"] == "code" or (fact["grade"] and fact["solution"])
            assert fact["checksum"] == build.checksum(cell)


def test_the_checksum_is_nbgrader_s() -> None:
    # The values are those of nbgrader 0.9.6 for the same cells.
    facts: list[tuple[str, str, dict[str, Any], str]] = [
        (
            "x = 1\n",
            "code",
            {"grade": True, "grade_id": "test-x", "locked": True, "points": 4, "solution": False},
            "ec26a5c0da12b7d279ec2fffbbe3ca2a",
        ),
        (
            "x = 1",
            "code",
            {"grade": False, "grade_id": "solution-x", "locked": False, "solution": True},
            "8d828e2fc573360fc620ec36b1232039",
        ),
        (
            "words",
            "markdown",
            {"grade": True, "grade_id": "answer-x", "locked": False, "points": 2.5, "solution": True},
            "4d714448c85cb3e2416580e7e01b31c5",
        ),
    ]
    for text, kind, fact, wanted in facts:
        assert build.checksum({"source": text, "cell_type": kind, "metadata": {"nbgrader": fact}}) == wanted


def run_cells(notebook: Notebook) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "__main__"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile(source.runnable(text_of(cell["source"])), cell["id"], "exec"), space)
    return space


@pytest.mark.parametrize("name", NAMES)
def test_the_student_s_notebook_runs_clean_and_says_kindly_what_is_missing(name: str) -> None:
    notebook = notebooks.read(STUDENTS / f"{name}.ipynb")
    done = execute(notebook, STUDENTS)  # in a kernel, in the profile of the book; it raises where a cell does
    told = [output for _, cell in notebooks.code_cells(done) for output in cell["outputs"]]
    said = "".join(text_of(output.get("text", "")) for output in told)
    tests = [cell for cell in notebook["cells"] if source.is_test(cell)]
    assert said.count("not done yet") >= len(tests) and "wrong" not in said
    assert not [output for output in told if output.get("name") == "stderr"]
    assert sum(build.YOUR_CODE in text_of(cell["source"]) for cell in notebook["cells"]) >= len(tests)
    assert sum(cell["source"] == build.YOUR_WORDS for cell in notebook["cells"]) == sum(map(source.is_answer, notebook["cells"]))


@pytest.mark.parametrize("name", NAMES)
def test_the_student_s_notebook_is_a_page_of_the_book_without_outputs(name: str) -> None:
    path = STUDENTS / f"{name}.ipynb"
    notebook = notebooks.read(path)
    nbformat.validate(nbformat.from_dict(json.loads(path.read_text(encoding="utf-8"))))
    assert [complaint for check in PAGE_CHECKS for complaint in check(notebook)] == []
    code = [cell for _, cell in notebooks.code_cells(notebook)]
    assert not [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"] is not None]
    chapter = notebooks.code_cells(notebooks.read(ROOT / "book" / "00_start.ipynb"))
    assert text_of(code[0]["source"]) == text_of(chapter[0][1]["source"]), "the first code cell fetches the course, as in a chapter"


@pytest.mark.parametrize("name", NAMES)
def test_links_into_the_course_lead_somewhere_from_everywhere(name: str) -> None:
    text = "\n".join(text for _, text in notebooks.markdown_cells(notebooks.read(STUDENTS / f"{name}.ipynb")))
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links and not [link for link in links if not link.startswith("https://")], "on Colab there is no folder of the course around it"
    branch = re.search(r"^  branch: (\S+)$", (ROOT / "_config.yml").read_text(encoding="utf-8"), re.MULTILINE)
    here = f"/blob/{branch[1]}/" if branch else ""
    named = [link.split(here)[1].split("#")[0] for link in links if here in link]
    assert named and not [place for place in named if not (ROOT / place).is_file()]


@pytest.mark.parametrize("name", NAMES)
def test_our_solution_passes_the_visible_tests(name: str, files: dict[str, dict[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    run_cells(json.loads(files[name][f"assignments/teacher/{name}/solution.ipynb"]))
    told = capsys.readouterr().out
    assert "wrong" not in told and "not done yet" not in told and re.search(r"All \d+ checks passed", told)


@pytest.mark.parametrize("name", NAMES)
def test_the_rubric_names_every_part_every_mistake_and_the_model_answers(name: str, files: dict[str, dict[str, str]]) -> None:
    text = files[name][f"assignments/teacher/{name}/rubric.md"]
    assignment = source.load(name)
    for task in assignment.tasks:
        section = text.split(f"`{task.name}`\n")[1].split("\n## ")[0]
        if task.by_hand:
            assert "Marking" in section
            continue
        points = [float(number) for number in re.findall(r"^\| ([\d.]+) \|", section, re.MULTILINE)]
        assert sum(points) == task.points and len(points) >= 2
    assert all(f"| {mistake.what} | {mistake.points:g} |" in text for mistake in mistakes_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_task_has_another_right_answer_and_five_mistakes(name: str) -> None:
    for task in (task for task in source.load(name).tasks if not task.by_hand):
        known = [mistake for mistake in mistakes_of(name) if mistake.task == task.name]
        assert len(known) >= LEAST_MISTAKES and len({mistake.told for mistake in known}) == len(known)
        assert all(mistake.points < task.points for mistake in known)
        ours, theirs = (
            {leaks.squeeze(line) for line in code.splitlines() if len(line) > 20 and not line.startswith("def ")}
            for code in (task.solution, different_solutions(name)[task.name])
        )
        assert theirs and not ours & theirs


# --- leaks ----------------------------------------------------------------------------------------------------------------

SECRET = "    twice_as_much = x + x"


def planted(where: str) -> Notebook:
    notebook = build.student_notebook(parsed())
    assert leaks.in_notebook(notebook, parsed(), SEED) == []
    cell: dict[str, Any] = notebook["cells"][3]
    match where:
        case "source":
            cell["source"] += f"\n# {SECRET.replace(' ', '  ')}"
        case "another cell":
            notebook["cells"][0]["source"] += f"\n{SECRET}"
        case "metadata":
            cell["metadata"]["note"] = SECRET
        case "nbgrader's metadata":
            cell["metadata"]["nbgrader"]["backup"] = SECRET
        case "notebook's metadata":
            notebook["metadata"]["source"] = SECRET
        case "tag":
            cell["metadata"]["tags"] = [SECRET]
        case "output":
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "3"}]
        case "attachment":
            notebook["cells"][0]["attachments"] = {"a.txt": {"text/plain": SECRET}}
        case "text in text":
            notebook["cells"][0]["source"] = json.dumps([SECRET])
        case "hidden test":
            cell["source"] += "\nexam.close(exam.call('double', x), 2 * x, 'right', 'wrong by {difference:.2f}')"
        case "model answer":
            notebook["cells"][6]["source"] = "Because nothing else is\ntwice as much."
        case "mark":
            cell["source"] += "\n### BEGIN SOLUTION"
        case "seed":
            notebook["cells"][0]["source"] += SEED
    return notebook


@pytest.mark.parametrize(
    "where",
    [
        *("source", "another cell", "metadata", "nbgrader's metadata", "notebook's metadata", "tag", "output", "attachment"),
        *("text in text", "hidden test", "model answer", "mark", "seed"),
    ],
)
def test_a_leak_is_found_wherever_it_is(where: str) -> None:
    assert leaks.in_notebook(planted(where), parsed(), SEED)


def test_the_rule_of_a_table_is_no_secret() -> None:
    assignment = parsed(answer_why="| factor | result |\n|---------|---------|\n| two times | four of them |")
    assert leaks.in_text("|---------|---------|", leaks.secrets(assignment)) == []
    assert leaks.in_text("| two times | four of them |", leaks.secrets(assignment)) != []


def test_a_source_whose_visible_part_shows_a_secret_makes_nothing() -> None:
    notebook = small()
    notebook["cells"][4]["outputs"] = []
    text = notebook["cells"][3]["source"]
    notebook["cells"][3]["source"] = text.replace("return twice_as_much", "# stub: ### BEGIN HIDDEN\n    return twice_as_much")
    with pytest.raises(DataError, match="mark"):
        build.build(source.parse("0_small", notebook), SEED)


@pytest.mark.parametrize("name", NAMES)
def test_there_are_secrets_to_look_for_in_every_task(name: str) -> None:
    assignment = source.load(name)
    secret = leaks.secrets(assignment)
    for task in assignment.tasks:
        assert leaks.in_text(task.solution, secret), task.name
        assert task.by_hand or leaks.in_text(task.hidden, secret), task.name


def test_a_leak_in_a_built_page_is_found(tmp_path: Path) -> None:
    (tmp_path / "fine.html").write_text("<p>return x * 2</p>")
    assert leaks.in_folder(tmp_path, [parsed()]) == []
    (tmp_path / "page.html").write_text("<pre><span>twice_as_much</span> <b>=</b> x &#43; x</pre>")
    (tmp_path / "searchindex.js").write_text('{"a": "  twice_as_much = x + x\\n"}')
    (tmp_path / "copy.ipynb").write_text(notebooks.as_text(small()))
    found = leaks.in_folder(tmp_path, [parsed()])
    assert {line.split()[0] for line in found} == {"page.html", "searchindex.js", "copy.ipynb"}


def test_the_repository_s_chapters_and_student_notebooks_hold_nothing_secret() -> None:
    assignments = [source.load(name) for name in NAMES]
    assert leaks.in_folder(STUDENTS, assignments) == []
    assert leaks.in_folder(source.FOLDER / "sources", assignments) != []
    secret = frozenset().union(*(leaks.secrets(assignment) for assignment in assignments))
    assert not [path.name for path in (ROOT / "book").glob("*.ipynb") if leaks.in_text(path.read_text(encoding="utf-8"), secret)]


# --- hidden tests ---------------------------------------------------------------------------------------------------------


def rehearsed(assignment: source.Assignment, seed: str = SEED) -> tuple[exam.Part, ...]:
    return exam.rehearse(assignment, assignment.tasks[0], seed, exam.solution_of(assignment))


def hidden_test(body: str) -> source.Assignment:
    return parsed(test_double=f"### BEGIN HIDDEN TESTS\n{body}\n### END HIDDEN TESTS")


def first_input(parts: tuple[exam.Part, ...], part: int = 0) -> torch.Tensor:
    found: torch.Tensor = parts[part].calls[0].arguments[0]
    return found


def test_inputs_come_from_the_seed() -> None:
    one, same, other = rehearsed(parsed()), rehearsed(parsed()), rehearsed(parsed(), "other")
    assert torch.equal(first_input(one), first_input(same))
    assert not torch.equal(first_input(one), first_input(other))


def test_a_part_s_inputs_do_not_depend_on_the_parts_before_it() -> None:
    text = small()["cells"][4]["source"]
    more = parsed(test_double=text.replace("exam.numbers(4)", "exam.numbers(40)"))
    assert torch.equal(first_input(rehearsed(parsed()), 1), first_input(rehearsed(more), 1))


PART = "def hidden(exam):\n    with exam.part('a', {points}):\n        x = exam.numbers(3)\n{body}"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (PART.format(points=3, body="        exam.close(exam.call('double', x), 2 * x, '', '')"), "3 points, not 4"),
        (PART.format(points=4, body="        exam.close(exam.call('double', x), 3 * x, '', 'off')"), "our own solution fails"),
        (PART.format(points=4, body="        exam.that(True, '', '')"), "looks at nothing"),
        (PART.format(points=4, body="        exam.call('double', x)"), "looks at nothing"),
        (PART.format(points=4, body="        with exam.part('b', 1):\n            pass"), "inside another"),
        (PART.format(points=4, body="        exam.drive(lambda theirs: 1)"), "top level"),
        ("def hidden(exam):\n    exam.call('double', exam.numbers(1))", "outside of every part"),
        ("def test(exam):\n    pass", "no function `hidden"),
    ],
)
def test_an_unsound_hidden_test_is_refused(body: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        rehearsed(hidden_test(body))


def test_a_call_may_not_depend_on_what_was_returned() -> None:
    body = "        y = exam.call('double', x)\n        exam.close(exam.call('double', y), 4 * x, '', '')"
    assignment = hidden_test(PART.format(points=4, body=body))
    solution, plan = exam.solution_of(assignment), rehearsed(assignment)
    wrong = {"a": [exam.Outcome(torch.zeros(3)), exam.Outcome(torch.zeros(3))]}
    with pytest.raises(DataError, match="depend on what was returned"):
        exam.judge(assignment, assignment.tasks[0], SEED, solution, plan, wrong)


def test_a_test_may_read_the_words_of_an_answer() -> None:
    body = "        exam.need('twice' in exam.words('why'), 'it says so', 'it does not say twice')"
    body += "\n        exam.close(exam.call('double', x), 2 * x, '', 'wrong')"
    notebook = small()
    notebook["cells"][-1]["source"] += "\n\n**Marking.** One point."
    before, rest = text_of(notebook["cells"][4]["source"]).split(source.BEGIN_HIDDEN)
    hidden = PART.format(points=4, body=body)
    notebook["cells"][4]["source"] = f"{before}{source.BEGIN_HIDDEN}\n{hidden}{source.END_HIDDEN}{rest.split(source.END_HIDDEN)[1]}"
    assignment = source.parse("0_small", notebook)
    assert assignment.model_answers() == {"why": "Because nothing else is twice as much."}
    plan, solution = rehearsed(assignment), exam.solution_of(assignment)
    outcomes = {"a": [exam.Outcome(), exam.Outcome(2 * plan[0].calls[1].arguments[0])]}
    for words, line in (
        ({"why": "It is twice."}, ""),
        ({"why": "It is."}, "does not say"),
        ({}, "nothing is written"),
        ({"why": ""}, "nothing"),
    ):
        (part,) = exam.judge(assignment, assignment.tasks[0], SEED, solution, plan, outcomes, words)
        assert part.earned == (0 if line else 4) and line in part.lines[-1][1]
    student = build.answered(assignment, {"why": "Own words."}, "Others.")
    assert student["cells"][-1]["source"] == "Own words."


def judged(*values: Any) -> tuple[exam.Part, ...]:
    assignment = parsed()
    plan = rehearsed(assignment)
    outcomes = {part.name: [exam.Outcome(plain.copied(value))] for part, value in zip(plan, values)}
    return exam.judge(assignment, assignment.tasks[0], SEED, exam.solution_of(assignment), plan, outcomes)


def test_saved_returns_are_judged_part_by_part() -> None:
    numbers, table = (first_input(rehearsed(parsed()), part) for part in (0, 1))
    assert [part.earned for part in judged(2 * numbers, 2 * table)] == [3, 1]
    assert [part.earned for part in judged(3 * numbers, 2 * table)] == [0, 1]
    assert [part.earned for part in judged(2 * numbers)] == [3, 0]


@pytest.mark.parametrize("value", [None, ..., "text", [1, "a"], {"a": 1}, lambda: 1, float("nan"), torch.full((4,), float("nan")), 10**400])
def test_whatever_is_returned_costs_points_and_never_stops_the_judge(value: Any) -> None:
    (first, _) = judged(value)
    assert first.earned == 0 and first.lines and not first.lines[-1][0]


def test_in_a_notebook_hidden_tests_give_points_as_nbgrader_counts_them(capsys: pytest.CaptureFixture[str]) -> None:
    assignment = source.load(1)
    space = vars(exam.solution_of(assignment))
    assert live.points(space, "1_lab", "test-smooth", SEED) == 7
    (wrong,) = [mistake for mistake in mistakes_of("1_lab") if mistake.what == "sigma = 0 divides by zero"]
    exec(wrong.code, space)
    assert live.points(space, "1_lab", "test-smooth", SEED) == wrong.points
    assert re.search(wrong.told, capsys.readouterr().out)
    space["smooth"] = lambda p, centers, sigma: ...
    with pytest.raises(AssertionError, match="no points"):
        live.points(space, "1_lab", "test-smooth", SEED)


@pytest.mark.parametrize("seed", ["another seed"])
def test_marks_do_not_depend_on_the_seed(seed: str) -> None:
    assignment = source.load(1)
    solution = exam.solution_of(assignment)
    for mistake in mistakes_of("1_lab"):
        if mistake.task == "bins":  # its large table needs the limits of the box
            continue
        space = dict(vars(solution))
        exec(mistake.code, space)
        ask = functools.partial(performed_in, space)
        parts = exam.run(assignment, assignment.task(mistake.task), seed, solution, ask, strict=False)
        assert sum(part.earned for part in parts) == mistake.points, mistake.what


def performed_in(space: dict[str, Any], part: str, number: int, call: exam.Call) -> exam.Outcome:
    return exam.performed(call, space)


# --- plain data -----------------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    *(None, ..., True, 3, -(10**30), 2.5, float("inf"), "text", [1, [2.0, "a"]], (1, ...), {"a": [1], 2: None}),
    *(torch.arange(6).view(2, 3), torch.rand(0, 3), torch.tensor(1.5), torch.rand(2, dtype=torch.float64, requires_grad=True)),
    *(torch.tensor([True, False]), torch.tensor([1 + 2j]), torch.rand(3).bfloat16(), np.arange(4.0), np.float32(2), np.array(["a"])),
    *(torch.rand(4, 3).T, torch.rand(3).to_sparse()),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: re.sub(r"\W+", "-", str(value))[:30])
def test_plain_values_come_back(value: Any) -> None:
    back = plain.copied(value)
    if isinstance(value, torch.Tensor):
        assert back.dtype == value.dtype and back.requires_grad == value.requires_grad
        assert torch.equal(back.detach(), value.detach().to_dense())
    elif isinstance(value, np.ndarray) and value.dtype.kind == "U":
        assert isinstance(back, plain.Other)
    elif isinstance(value, np.ndarray):
        assert back.dtype == value.dtype and np.array_equal(back, value)
    else:
        assert back == value and type(back) is type(value)


def test_a_value_that_is_not_plain_becomes_its_name() -> None:
    class Evil:
        def __reduce__(self) -> Any:
            raise AssertionError("it was pickled")

    assert [item.name for item in plain.copied([Evil(), len, 10**1000])] == [
        "Evil",
        "builtin_function_or_method",
        "int, of too many digits",
    ]


NUMBERS = {"is": "tensor", "dtype": "float32", "shape": [2], "part": 0, "gradient": False, "as": "float32"}


@pytest.mark.parametrize(
    "tree",
    [
        *(None, 3, [], {}, {"is": "list"}, {"is": "list", "items": 3}, {"is": "int", "value": "x"}, {"is": "float", "value": []}),
        *(
            NUMBERS | {"shape": [3]},
            NUMBERS | {"shape": [-2, -1]},
            NUMBERS | {"dtype": "object"},
            NUMBERS | {"dtype": "O"},
            NUMBERS | {"part": 7},
        ),
        *(
            NUMBERS | {"shape": "ab"},
            {"is": "dict", "items": [[{"is": "list", "items": []}, {"is": "none"}]]},
            NUMBERS | {"shape": [2**62, 4]},
        ),
    ],
)
def test_a_forged_value_is_refused(tree: Any) -> None:
    assert torch.equal(plain.decode(NUMBERS, [bytes(8)]), torch.zeros(2))
    with pytest.raises(plain.NotPlain):
        plain.decode(tree, [bytes(8)])


def test_values_too_deep_or_too_many_are_refused() -> None:
    deep: Any = 1
    for _ in range(50):
        deep = [deep]
    for value in (deep, [0] * (plain.MOST_ITEMS + 1)):
        with pytest.raises(plain.NotPlain):
            plain.copied(value)
    tree: Any = {"is": "none"}
    for _ in range(50):
        tree = {"is": "list", "items": [tree]}
    with pytest.raises(plain.NotPlain):
        plain.decode(tree, [])


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage that is longer than sixteen bytes" * 10,
        struct.pack(">QQ", 2**62, 2**62),
        struct.pack(">QQ", 2, 0) + b"[]",
        struct.pack(">QQ", 3, 0) + b"{{{",
        struct.pack(">QQ", 32, 4) + b'{"message": {}, "parts": [9, -5]}'[:32] + b"abcd",
    ],
)
def test_a_forged_message_is_refused(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(sent)
        with pytest.raises(plain.NotPlain):
            plain.receive(ours, time.monotonic() + 5)


def test_a_message_that_trickles_in_does_not_move_the_deadline() -> None:
    ours, theirs = socket.socketpair()

    def trickle() -> None:
        for byte in struct.pack(">QQ", 10, 0) + bytes(10):
            try:
                theirs.sendall(bytes([byte]))
            except OSError:
                return
            time.sleep(0.1)

    with ours:
        threading.Thread(target=trickle, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            plain.receive(ours, began + 0.4)
        assert time.monotonic() - began < 1.5
    theirs.close()


# --- commands -------------------------------------------------------------------------------------------------------------


def test_the_command_checks_student_notebooks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert command.main(["make", "1", "--seed", SEED, "--check"]) == 0
    monkeypatch.setattr(command, "ROOT", tmp_path)
    assert command.main(["make", "1", "--seed", SEED, "--check"]) == 1
    assert "book/assignments/1_lab.ipynb is not what its source makes" in capsys.readouterr().out


def test_the_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rest = ["--seed", "x", "--out", str(tmp_path / "out")]
    assert command.main(["grade", str(tmp_path / "none"), "--assignment", "1", *rest]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert command.main(["grade", str(tmp_path), "--assignment", "7", *rest]) == 2
    assert "no assignment 7" in capsys.readouterr().err
    assert command.main(["leaks", str(STUDENTS)]) == 0
    assert command.main(["leaks", str(source.FOLDER / "sources")]) == 1
    assert command.main(["leaks", str(STUDENTS), str(tmp_path / "not there")]) == 2


def test_make_asks_for_a_seed() -> None:
    done = subprocess.run(["make", "assignments", "SEED="], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "SEED" in done.stdout + done.stderr


def test_the_small_source_is_sound() -> None:
    made = build.build(parsed(), SEED)
    student = json.loads(made["book/assignments/0_small.ipynb"])
    assert text_of(student["cells"][3]["source"]) == "def double(x):\n    # YOUR CODE HERE\n    return ..."
    assert text_of(student["cells"][4]["source"]) == "print(double(3))"
    assert text_of(student["cells"][6]["source"]) == build.YOUR_WORDS
    assert copy.deepcopy(small()) == small()
