"""What holds for every test: the suite finds the same each time, and leaves nothing behind.

Properties try the same examples in every run: a suite that fails now and then tells nobody anything. A search is asked
for, by `--long` or by `--programs 20000`: it lets Hypothesis try other examples each time, and prints how to find again
what it finds. `tests/levels.py` says how much each level tries.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.levels import BRIEF, FULL, LONG, ORDINARY, Level, choose, level

os.environ.setdefault("DURABLY_FAILURES", "")  # Many of these tests fail simulations on purpose.

PROGRAMS_PER_EXAMPLE = 20

COMMON = settings(
    deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("how much durably's own suite tries")
    group.addoption("--brief", action="store_true", help="every law on a few examples")
    group.addoption(
        "--full", action="store_true", help="more examples, and what is marked slow: servers, packages, mutants, soak"
    )
    group.addoption("--long", action="store_true", help="a search for hours: --full on more examples, others each time")
    group.addoption(
        "--programs", type=int, help="a search: how many random programs each property tries, and other examples"
    )
    group.addoption("--kills", type=int, help="how often a process under load is killed")


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is imported that Hypothesis decorates."""
    choose(_level_of(config))
    chosen = level()
    settings.register_profile("durably", COMMON, derandomize=not chosen.is_search, max_examples=chosen.examples)
    settings.load_profile("durably")


def _level_of(config: pytest.Config) -> Level:
    asked = [of for name, of in (("--long", LONG), ("--full", FULL), ("--brief", BRIEF)) if config.getoption(name)]
    chosen = asked[0] if asked else ORDINARY
    programs: int | None = config.getoption("--programs")
    if programs is not None:
        examples = max(chosen.examples, programs // PROGRAMS_PER_EXAMPLE)
        chosen = replace(chosen, programs=programs, examples=examples, is_search=True)
    kills: int | None = config.getoption("--kills")
    return chosen if kills is None else replace(chosen, kills=kills)


def pytest_report_header() -> str | None:
    return None if level().with_slow else "durably: without --full, tests marked slow run only where a file is named"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is slow, unless it was asked for: by level, by `-m`, or by the name of its file."""
    markers: str = config.getoption("markexpr", "") or ""
    if level().with_slow or "slow" in markers:
        return
    here = config.invocation_params.dir
    named = {(here / argument.partition("::")[0]).resolve() for argument in config.args}
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        is_wanted = item.get_closest_marker("slow") is None or item.path.resolve() in named
        (kept if is_wanted else left_out).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


def pytest_runtest_setup() -> None:
    """A search takes as long as it takes: the limit in pyproject.toml is for tests that hang, and ends all tests."""
    if level().is_search:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Logging is configured process-wide, and `capture_logs` leaves it so."""
    yield
    structlog.reset_defaults()
