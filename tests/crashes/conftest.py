"""How often a process is killed: `pytest tests/crashes --kills 1000`, or DURABLY_KILLS=1000 with other tests beside."""

from __future__ import annotations

import os

import pytest

KILLS = 25


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=None, help=f"how often the process is killed ({KILLS})")


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    """How often the process is killed."""
    asked: int | None = request.config.getoption("kills", None)
    return int(os.environ.get("DURABLY_KILLS", KILLS)) if asked is None else asked
