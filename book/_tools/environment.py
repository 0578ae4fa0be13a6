"""The environment in which chapters run, for the book and for nbval alike."""

from __future__ import annotations

from collections.abc import Mapping

CHAPTER = {"DIVCOLOR_PROFILE": "cpu", "TQDM_DISABLE": "1", "PYTHONHASHSEED": "0"}
# Waiting threads sleep: beside other work, threads that spin while they wait make small networks many times slower.
THREADS = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}


def chapter_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` as chapters need it, whatever the user has set.

    The profile is `cpu` and no other switch of the book is set, figures go into the notebook, progress bars are off.
    Two threads compute, unless the user's OMP_NUM_THREADS says otherwise.
    """
    kept = {name: value for name, value in environment.items() if not name.startswith("DIVCOLOR_") and name != "MPLBACKEND"}
    return THREADS | kept | CHAPTER
