"""Settings for every test: the user's switches never reach one, and chapters run in the environment of the book."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from book._tools.environment import chapter_environment


def pytest_configure(config: pytest.Config) -> None:
    """nbval's kernels inherit this process's environment."""
    environment = chapter_environment(os.environ)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(autouse=True)
def no_switches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tests of the library start without any switch, the profile included."""
    for name in [name for name in os.environ if name.startswith("DIVCOLOR_")]:
        monkeypatch.delenv(name)
    yield
