"""Rule E3: an error that was raised from a terminal one is terminal, in handlers and in actions, however wrapped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably import (
    ActionFailedError,
    Context,
    PausedInvocationError,
    RetryableError,
    RetryPolicy,
    Service,
    TerminalError,
    handler,
)
from durably.actors.values.error_envelopes import terminal, terminal_of_action
from durably.testing import Harness


@dataclass(frozen=True, eq=False)
class FrozenError(TerminalError):
    """Neither Python nor durably may set an attribute of it."""

    seat: str
    code = 409


LEAVES: dict[str, Callable[[], BaseException]] = {
    "terminal": lambda: TerminalError("over", code=418),
    "timeout": TimeoutError,
    "plain": lambda: ValueError("later"),
    "later": lambda: RetryableError("later", retry_after=5),
}
TERMINAL = {"terminal": (418, 418), "timeout": (408, None), "plain": (None, None), "later": (None, None)}
"""The code of each as the end of a handler, and of an action."""


def wrapped(error: BaseException, depth: int) -> BaseException:
    for number in range(depth):
        outer = RuntimeError(f"wrapped {number}")
        outer.__cause__ = error
        error = outer
    return error


@given(st.lists(st.tuples(st.sampled_from([*LEAVES]), st.integers(0, 2)), min_size=1, max_size=3), st.integers(0, 2))
def test_a_group_is_terminal_if_all_that_is_in_it_is_and_wrapping_undoes_nothing(
    leaves: list[tuple[str, int]], depth: int
) -> None:
    errors = [wrapped(LEAVES[name](), inner) for name, inner in leaves]
    error = wrapped(BaseExceptionGroup("several", errors), depth)
    for of_action, judge in enumerate((terminal, terminal_of_action)):
        codes = [TERMINAL[name][of_action] for name, _ in leaves]
        found = judge(error)
        assert (None if found is None else found.code) == (None if None in codes else codes[0])


class Failing(Service):
    @handler
    async def group(self, ctx: Context) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail(TerminalError("over", code=418)))
        except BaseExceptionGroup as error:
            raise RuntimeError("wrapped") from error

    @handler
    async def limit(self, ctx: Context) -> None:
        try:
            async with asyncio.timeout(5):
                await ctx.sleep(60)
        except TimeoutError as error:
            raise RuntimeError("wrapped") from error

    @handler
    async def action(self, ctx: Context) -> None:
        await ctx.run("act", fail_wrapped)

    @handler
    async def frozen(self, ctx: Context) -> None:
        raise FrozenError("2B")

    @handler
    async def frozen_action(self, ctx: Context) -> None:
        await ctx.run("act", fail, FrozenError("2B"))

    @handler
    async def frozen_call(self, ctx: Context) -> None:
        async with ctx.compensations() as undo:
            undo.add(fail, TerminalError("cannot be undone"))
            await ctx.service(Failing).frozen()


async def fail(error: Exception) -> None:
    raise error


async def fail_wrapped() -> None:
    try:
        raise ExceptionGroup("several", [TerminalError("over", code=418)])
    except ExceptionGroup as error:
        raise OSError("wrapped") from error


@pytest.mark.parametrize("nothing_resident", [False, True])
@pytest.mark.parametrize(
    ("name", "code"),
    [("group", 418), ("limit", 408), ("action", 418), ("frozen", 409), ("frozen_action", 409), ("frozen_call", 409)],
)
async def test_callers_get_what_was_wrapped(name: str, code: int, nothing_resident: bool) -> None:
    async with Harness(Failing, nothing_resident=nothing_resident) as app:
        asked = asyncio.ensure_future(getattr(app.service(Failing), name)())
        await app.advance(10)
        with pytest.raises(TerminalError) as failed:
            await asked
        assert failed.value.code == code
        if name.startswith("frozen"):
            assert isinstance(failed.value, FrozenError)
            assert failed.value.seat == "2B"


class Slow(Service):
    @handler(retry=RetryPolicy(max_duration=timedelta(seconds=10)))
    async def invocation(self, ctx: Context) -> None:
        BEGAN.append(ctx.now().timestamp())
        raise RetryableError("later", retry_after=30)

    @handler
    async def action(self, ctx: Context) -> None:
        await ctx.run.options(retry=RetryPolicy(max_duration=timedelta(seconds=10)))("act", fail_later)


BEGAN: list[float] = []


async def fail_later() -> None:
    BEGAN.append(0)
    raise RetryableError("later", retry_after=30)


@pytest.mark.parametrize("name", ["invocation", "action"])
async def test_no_attempt_begins_after_the_longest_duration_though_the_error_asks_for_a_later_one(name: str) -> None:
    BEGAN.clear()
    async with Harness(Slow) as app:
        asked = asyncio.ensure_future(getattr(app.service(Slow), name)())
        await app.advance(60)
        with pytest.raises(PausedInvocationError if name == "invocation" else ActionFailedError):
            await asked
        assert len(BEGAN) == 1


class Waiting(Service):
    @handler(retry=RetryPolicy(max_attempts=3))
    async def group(self, ctx: Context) -> None:
        BEGAN.append(ctx.now().timestamp())
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(RetryableError("later", retry_after=30)))
            group.create_task(fail(RetryableError("soon", retry_after=5)))

    @handler
    async def action(self, ctx: Context) -> None:
        await ctx.run.options(retry=RetryPolicy(max_attempts=3))("act", self._act)

    async def _act(self) -> None:
        BEGAN.append(0)
        raise ExceptionGroup("several", [RetryableError("later", retry_after=30), ValueError("other")])


@pytest.mark.parametrize("name", ["group", "action"])
async def test_the_longest_delay_that_an_error_of_a_group_asks_for_is_waited(name: str) -> None:
    BEGAN.clear()
    async with Harness(Waiting, retry=RetryPolicy()) as app:
        asked = asyncio.ensure_future(getattr(app.service(Waiting), name)())
        for seconds, attempts in ((29, 1), (2, 2), (28, 2), (2, 3)):
            await app.advance(seconds)
            assert len(BEGAN) == attempts
        with pytest.raises(PausedInvocationError if name == "group" else ActionFailedError):
            await asked
