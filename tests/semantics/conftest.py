"""Fixtures for the rules."""

from __future__ import annotations

import pytest

from tests.semantics.support import PuppetStore, World


@pytest.fixture(params=[60.0, 0.0], ids=["in-memory", "suspended"])
def suspend_after(request: pytest.FixtureRequest) -> float:
    """Rules hold whether a waiting invocation stays in memory or is thrown away at every wait."""
    after: float = request.param
    return after


@pytest.fixture
def world() -> World:
    """The outside world, for `ctx.run`."""
    return World()


@pytest.fixture
def store() -> PuppetStore:
    """A store in memory that obeys the test."""
    return PuppetStore()
