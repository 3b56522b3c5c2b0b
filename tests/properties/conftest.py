"""How much is tried: `pytest tests/properties --programs 20000`, or DURABLY_PROGRAMS=20000 with other tests beside."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

PROGRAMS = 2_000

settings.register_profile(
    "durably",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--programs", type=int, default=None, help=f"how many random programs are tried ({PROGRAMS})")


@pytest.fixture(scope="session")
def programs(request: pytest.FixtureRequest) -> int:
    """How many random asyncio programs are run; the other properties scale with it."""
    asked: int | None = request.config.getoption("programs", None)
    return int(os.environ.get("DURABLY_PROGRAMS", PROGRAMS)) if asked is None else asked


@pytest.fixture(autouse=True)
def profile() -> Iterator[None]:
    """Hypothesis tries the same examples each time; another seed is a flag away."""
    before = settings.get_current_profile_name()
    settings.load_profile("durably")
    yield
    settings.load_profile(before)
