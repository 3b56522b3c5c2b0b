"""An action that has used up its attempts pauses its invocation, wherever that stands by then (rule A2)."""

from __future__ import annotations

import asyncio

import pytest

from durably import InvocationStatus, ObjectContext, PausedInvocationError, RetryPolicy, VirtualObject, handler
from durably.errors import UnencodableError
from durably.testing import Harness
from tests.semantics.support import keep_one_incarnation

BROKEN: set[str] = set()
"""Actions that fail."""


class Mill(VirtualObject):
    @handler
    async def grind(self, ctx: ObjectContext, names: list[str]) -> list[str]:
        return await asyncio.gather(*(ctx.run(name, grind, name) for name in names))

    @handler
    async def stumble(self, ctx: ObjectContext) -> str:
        grinding = asyncio.create_task(ctx.run("late", grind, "late"))
        await ctx.sleep(1)
        if "handler" in BROKEN:
            raise ValueError("the handler stumbles")
        return await grinding

    @handler
    async def ping(self, ctx: ObjectContext) -> str:
        return "pong"


async def grind(name: str) -> str:
    if name in BROKEN:
        raise UnencodableError("a mistake") if name == "mistaken" else ValueError(f"{name} is stuck")
    return name


@pytest.fixture(autouse=True)
def _all_is_well_at_first() -> None:
    BROKEN.clear()


@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize("nothing_resident", [False, True])
@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "mistaken"], list("abcdefgh")])
async def test_several_that_are_exhausted_pause_it_once_and_are_tried_again_after_a_resume(
    names: list[str], nothing_resident: bool, crashes: bool
) -> None:
    BROKEN.update(names)
    async with Harness(Mill, nothing_resident=nothing_resident, retry=RetryPolicy(max_attempts=2)) as app:
        sent = await app.object(Mill, "m").grind.send(names)
        with pytest.raises((ValueError, UnencodableError)):
            await app.advance(60)
        assert await sent.status() is InvocationStatus.PAUSED
        with pytest.raises(PausedInvocationError):
            await app.object(Mill, "m").ping()
        if crashes:
            await app.crash()
        BROKEN.clear()
        await app.resume(sent.id)
        await app.advance(60)
        assert await sent.output() == names
        assert await app.object(Mill, "m").ping() == "pong"
        if not crashes:
            keep_one_incarnation(app)


@pytest.mark.parametrize("waits", [0.01, 1.0])
async def test_one_that_is_exhausted_after_its_invocation_was_paused_by_hand_changes_nothing(waits: float) -> None:
    BROKEN.add("a")
    async with Harness(Mill, retry=RetryPolicy(initial=0.5, max_attempts=2)) as app:
        sent = await app.object(Mill, "m").grind.send(["a"])
        await app.advance(waits / 10)
        await app.pause(sent.id)
        await app.advance(waits)
        await app.advance(60)
        assert await sent.status() is InvocationStatus.PAUSED
        BROKEN.clear()
        await app.resume(sent.id)
        await app.advance(60)
        assert await sent.output() == ["a"]
        keep_one_incarnation(app)


async def test_one_that_is_exhausted_while_its_invocation_backs_off_pauses_it_until_it_is_resumed() -> None:
    BROKEN.update(["late", "handler"])
    async with Harness(Mill, retry=RetryPolicy(initial=3, max_attempts=2)) as app:
        sent = await app.object(Mill, "m").stumble.send()
        await app.advance(2)
        assert await sent.status() is InvocationStatus.BACKING_OFF
        with pytest.raises(ValueError, match="late is stuck"):
            await app.advance(1.5)
        BROKEN.clear()
        await app.advance(1_000)  # No retry comes in between.
        assert await sent.status() is InvocationStatus.PAUSED
        await app.resume(sent.id)
        await app.advance(60)
        assert await sent.output() == "late"
        keep_one_incarnation(app)
