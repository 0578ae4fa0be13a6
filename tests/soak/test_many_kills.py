"""`make soak`: a hundred kills at random moments, some lives with several, and one before each file operation of the short jobs.

A failure prints `KILL_SEED=...`; with that in the environment the same moments are drawn again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import kills
from tests.kills import Lives, Moment, Workshop

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked, and signals are those of POSIX"),
]
#: How often each job dies.
KILLS = {"fit": 20, "stages": 20, "command": 12, "cache": 12, "features": 10, "download": 14, "checkpoint": 12}


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    made = Workshop()
    yield made
    made.close()


@pytest.fixture
def lives(job: str, workshop: Workshop, tmp_path: Path) -> Iterator[Lives]:
    with kills.slow_server(kills.packed()) as (url, _):
        yield Lives(workshop, job, tmp_path, url)


def test_it_is_a_hundred() -> None:
    assert sum(KILLS.values()) == 100


@pytest.mark.parametrize("job", KILLS)
def test_kills_at_random_moments(job: str, lives: Lives) -> None:
    count = lives.die(kills.KINDS, KILLS[job], at_once=3)
    print(f"KILL_SEED={kills.SEED}: {job} died {KILLS[job]} times in {count} lives")


@pytest.mark.parametrize("job", ["cache", "checkpoint", "features"])
def test_a_kill_before_every_file_operation(job: str, lives: Lives) -> None:
    assert all(lives.live(Moment("operation", at)) == 1 for at in range(1, lives.uncut.operations + 1))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("job", ["command"])
def test_a_command_that_is_told_to_stop(job: str, number: int, lives: Lives) -> None:
    for _ in range(5):
        lives.live(Moment("operation", lives.chance.randint(1, lives.uncut.operations), number))
        lives.live(Moment("time", lives.chance.uniform(0, lives.uncut.seconds), number))
