"""How much the suite tries: the same laws at each level, on more examples.

- *brief*: `--brief`. The same on few examples: `.ci/run` tries other versions of Python so.
- *ordinary*: `python -m pytest`. Every law, in a few minutes, without a server.
- *full*: `--full`, what `.ci/run` runs. Also the tests marked `slow`: servers, packages, mutants, the soak.
- *long*: `--long`, by hand, for hours: a search. Hypothesis tries other examples each time.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Level:
    """Sizes that tests take from here."""

    programs: int
    """Random programs that each property runs. `--programs` says otherwise."""
    examples: int
    """What Hypothesis tries of a property."""
    kills: int
    """How often a process under load is killed. `--kills` says otherwise."""
    runs: int
    """Simulated runs in which sound code must fail nowhere."""
    runs_per_app: int
    """The same for each of the sound apps of `tests/trust`."""
    sleepers: int
    """Invocations that wait at the same time."""
    commit_stride: int
    """One commit in this many goes wrong in a run of its own; the places differ from scenario to scenario."""
    soak_seconds: float
    """How long a real process runs every verb at the same time, with kills."""
    with_slow: bool
    """Tests marked `slow` run too."""
    is_search: bool
    """Other examples each time."""


BRIEF = Level(
    programs=60, examples=15, kills=2, runs=60, runs_per_app=8, sleepers=7_000, commit_stride=9, soak_seconds=20,
    with_slow=False, is_search=False,
)  # fmt: skip
ORDINARY = Level(
    programs=500,
    examples=60,
    kills=4,
    runs=60,
    runs_per_app=25,
    sleepers=12_000,
    commit_stride=3,
    soak_seconds=20,
    with_slow=False,
    is_search=False,
)
FULL = Level(
    programs=1_000, examples=90, kills=12, runs=400, runs_per_app=60, sleepers=20_000, commit_stride=1,
    soak_seconds=45, with_slow=True, is_search=False,
)  # fmt: skip
LONG = Level(
    programs=20_000, examples=1_000, kills=1_000, runs=100_000, runs_per_app=10_000,
    sleepers=100_000, commit_stride=1, soak_seconds=3_600, with_slow=True, is_search=True,
)  # fmt: skip

_chosen = ORDINARY


def level() -> Level:
    """What this run was asked for. `tests/conftest.py` chooses it before any test is imported."""
    return _chosen


def choose(chosen: Level) -> None:
    """The level of this run, from now on."""
    global _chosen
    _chosen = chosen
