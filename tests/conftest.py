"""What holds for every test: the suite finds the same each time, and leaves nothing behind.

Properties try the same examples in every run: a suite that fails now and then tells nobody anything. A search is asked
for: `pytest --programs 20000` (or DURABLY_PROGRAMS=20000) runs so many random programs, and lets Hypothesis try other
examples each time, in proportion more of them; what it finds it prints with the way to find it again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

os.environ.setdefault("DURABLY_FAILURES", "")  # Many of these tests fail simulations on purpose.

PROGRAMS = 2_000
PROGRAMS_PER_EXAMPLE = 20

COMMON = settings(
    deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--programs",
        type=int,
        default=None,
        help=f"search: how many random programs are tried ({PROGRAMS} fixed ones otherwise), and other examples",
    )
    parser.addoption("--full", action="store_true", help="run long campaigns to their end")


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is imported that Hypothesis decorates."""
    asked = _programs_asked(config)
    settings.register_profile("repeatable", COMMON, derandomize=True)
    settings.register_profile(
        "search", COMMON, derandomize=False, max_examples=max(100, (asked or 0) // PROGRAMS_PER_EXAMPLE)
    )
    settings.load_profile("repeatable" if asked is None else "search")


@pytest.fixture(scope="session")
def programs(request: pytest.FixtureRequest) -> int:
    """How many random asyncio programs are run; the other properties scale with it."""
    asked = _programs_asked(request.config)
    return PROGRAMS if asked is None else asked


def _programs_asked(config: pytest.Config) -> int | None:
    asked: int | None = config.getoption("programs", None)
    in_environment = os.environ.get("DURABLY_PROGRAMS")
    return int(in_environment) if asked is None and in_environment is not None else asked


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Logging is configured process-wide, and `capture_logs` leaves it so."""
    yield
    structlog.reset_defaults()
