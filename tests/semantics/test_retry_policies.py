"""Retry policies of handlers, classes and runtimes; what a newcomer meets without one."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest

from durably import Context, PausedInvocationError, RetryPolicy, Service, TerminalError, handler
from durably.testing import Harness
from tests.semantics.support import begin

CLASSES = RetryPolicy(initial=10.0, factor=3.0, maximum=60.0, max_attempts=4, then="fail")


class Clumsy(Service, retry=CLASSES):
    """Fails as often as it is told, and notes when it began."""

    def __init__(self, begun: list[float], harness: dict[str, Harness]) -> None:
        self.begun, self.harness = begun, harness

    def _stumble(self) -> None:
        self.begun.append(self.harness["app"].clock.elapsed_us / 1_000_000)
        raise ValueError(f"attempt {len(self.begun)}")

    @handler
    async def by_class(self, ctx: Context) -> None:
        self._stumble()

    @handler(retry=RetryPolicy(initial=1.0, factor=1.0, max_attempts=2))
    async def by_handler(self, ctx: Context) -> None:
        self._stumble()

    @handler(retry=RetryPolicy(initial=1.0, factor=1.0, max_attempts=3, then="fail"))
    async def make_progress(self, ctx: Context) -> int:
        """Twice before each of three steps."""
        for step in range(3):
            if len(self.begun) < 2 * step + 2:
                self._stumble()
            await ctx.sleep(1)
        return len(self.begun)


class Careless(Service):
    """Has no policy."""

    def __init__(self, begun: list[float], harness: dict[str, Harness]) -> None:
        self.begun, self.harness = begun, harness

    @handler
    async def stumble(self, ctx: Context) -> None:
        self.begun.append(self.harness["app"].clock.elapsed_us / 1_000_000)
        raise ValueError("never")


def harness(begun: list[float], **options: Any) -> Harness:
    known: dict[str, Harness] = {}
    known["app"] = Harness(Clumsy, Careless, dependencies={list[float]: begun, dict[str, Harness]: known}, **options)
    return known["app"]


async def test_the_most_specific_policy_says_when_how_often_and_what_then() -> None:
    begun: list[float] = []
    async with harness(begun, retry=RetryPolicy(max_attempts=1)) as app:
        failing = begin(app.service(Clumsy).by_class())
        await app.advance(10 + 30 + 60 + 1)
        with pytest.raises(TerminalError, match="attempt 4"):
            await failing
        assert [round(after - before) for before, after in itertools.pairwise(begun)] == [10, 30, 60]
        begun.clear()
        pausing = begin(app.service(Clumsy).by_handler())
        await app.advance(2)
        with pytest.raises(PausedInvocationError, match="attempt 2"):
            await pausing
        begun.clear()
        with pytest.raises(PausedInvocationError):
            await app.service(Careless).stumble()
        assert len(begun) == 1


@pytest.mark.parametrize("residence", [{}, {"suspend_after": 0}])
async def test_attempts_count_anew_after_each_step(residence: dict[str, Any]) -> None:
    begun: list[float] = []
    async with harness(begun, **residence) as app:
        running = begin(app.service(Clumsy).make_progress())
        await app.advance(20)
        assert await running == 6


async def test_a_newcomer_meets_a_warning_with_traceback_attempt_and_the_time_of_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun: list[float] = []
    async with harness(begun, retry=RetryPolicy()) as app:
        sent = await app.service(Careless).stumble.send()
        await app.settle()
        (line,) = [record for record in caplog.records if "will be tried again" in record.getMessage()]
        assert line.levelname == "WARNING"
        told = line.getMessage()
        for part in ("failed_attempts=1", "delay_seconds=0.05", "next_attempt='2026-01-01T00:00:00.050000+00:00'"):
            assert part in told, told
        assert "in stumble" in caplog.text
        assert "ValueError: never" in caplog.text
        await app.advance(timedelta(hours=1))
        waits = [round(after - before, 2) for before, after in itertools.pairwise(begun)]
        assert waits[:4] == [0.05, 0.1, 0.2, 0.4]
        assert waits[-1] == 60
        await app.kill(sent.id)
