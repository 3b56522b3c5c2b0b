"""Rule E6 under named limits: a limit whose places are all held up by pauses holds up what waits for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from durably import (
    Context,
    Limit,
    Limits,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    VirtualObject,
    handler,
)
from durably.storage.memory import MemoryStore
from durably.testing import Harness
from tests.semantics.support import begin

LIMITS = Limits(named={"one": Limit(at_once=1), "two": Limit(at_once=2), "other": Limit(at_once=1)})
MENDED = {"code": False}


@pytest.fixture(autouse=True)
def broken() -> None:
    MENDED["code"] = False


async def id_of_paused(caller: Awaitable[str]) -> str:
    """Whose caller has been refused: the harness wants somebody to hear of each pause."""
    with pytest.raises(PausedInvocationError) as refused:
        await caller
    return refused.value.id


async def stumble(ctx: Context | ObjectContext, seconds: float) -> str:
    if seconds:
        await ctx.sleep(seconds)
    if not MENDED["code"]:
        raise RuntimeError("the printer is off")
    return "printed"


class Printer(VirtualObject):
    """Some of them are broken."""

    @handler(limit="one")
    async def one(self, ctx: ObjectContext, seconds: float = 0) -> str:
        return await stumble(ctx, seconds) if self.key == "broken" else "printed"

    @handler(limit="two")
    async def two(self, ctx: ObjectContext, seconds: float = 0) -> str:
        if self.key.startswith("broken"):
            return await stumble(ctx, seconds)
        await ctx.sleep(seconds)
        return "printed"

    @handler(limit=Limit(at_once=1, per="tenant"))
    async def keyed(self, ctx: ObjectContext, tenant: str, seconds: float = 0) -> str:
        return await stumble(ctx, seconds) if self.key == "broken" else tenant

    @handler
    async def idle(self, ctx: ObjectContext) -> str:
        return "idle"


class Clerk(Service):
    @handler
    async def ask(self, ctx: Context, key: str) -> str:
        return await ctx.object(Printer, key).one()

    @handler(limit="other")
    async def ask_alone(self, ctx: Context, key: str) -> str:
        return await ctx.object(Printer, key).one()


ALL = (Printer, Clerk)

WAYS: dict[str, Callable[[Harness], Awaitable[object]]] = {
    "waits for the place": lambda app: app.object(Printer, "b").one(),
    "queued behind one that waits for it": lambda app: app.object(Printer, "behind").idle(),
    "calls one that waits for it": lambda app: app.service(Clerk).ask("b"),
    "waits for another limit, behind one that waits for it": lambda app: app.service(Clerk).ask_alone("b"),
}


async def chain(app: Harness) -> None:
    """Those that the ways lead through: each waits for the place in its way."""
    await app.object(Printer, "behind").one.send()
    await app.service(Clerk).ask_alone.send("c")
    await app.settle()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("suspend_after", [None, 0])
@pytest.mark.parametrize("first", ["pause", "caller", "crash"])
async def test_who_waits_for_a_place_that_a_paused_one_holds_is_refused_at_once(
    way: str, suspend_after: float | None, first: str
) -> None:
    retry, store = RetryPolicy(max_attempts=1), MemoryStore()
    async with Harness(*ALL, limits=LIMITS, retry=retry, store=store, suspend_after=suspend_after) as app:
        printing = begin(app.object(Printer, "broken").one(10))
        await app.settle()
        await chain(app)
        if first == "caller":
            waiting = begin(WAYS[way](app))
            await app.settle()
            assert not waiting.done()
            await app.advance(10)
            paused = await id_of_paused(printing)
        else:
            await app.advance(10)
            paused = await id_of_paused(printing)
            if first == "crash":
                await app.crash()
            waiting = begin(WAYS[way](app))
        with pytest.raises(PausedInvocationError, match=f"the printer is off.*{paused}"):
            await waiting
        MENDED["code"] = True
        assert await app.resume(paused) == [paused]
        await app.settle()
        assert not store.disk.unfinished


@pytest.mark.parametrize("suspend_after", [None, 0])
@pytest.mark.parametrize("is_there_before", [False, True])
async def test_a_limit_with_several_places_is_shut_only_when_all_of_them_are_held_up(
    suspend_after: float | None, is_there_before: bool
) -> None:
    async with Harness(*ALL, limits=LIMITS, retry=RetryPolicy(max_attempts=1), suspend_after=suspend_after) as app:
        first = begin(app.object(Printer, "broken").two(1))
        sound = begin(app.object(Printer, "sound").two(30))
        await app.advance(2)
        second = begin(app.object(Printer, "broken too").two(10))  # Takes the place of the sound one.
        early = begin(app.object(Printer, "sound too").two(0))
        await app.advance(25)
        assert [second.done(), early.done()] == [False, False]
        if not is_there_before:
            early.cancel()
        await app.advance(20)
        assert await sound == "printed"
        paused = [await id_of_paused(one) for one in (first, second)]
        with pytest.raises(PausedInvocationError, match="the printer is off"):
            await (early if is_there_before else app.object(Printer, "sound too").two(0))
        MENDED["code"] = True
        await app.resume(paused[1])
        again = begin(app.object(Printer, "sound too").two(0))
        await app.advance(1)
        assert await again == "printed"
        await app.resume(paused[0])


async def test_one_key_of_a_limit_that_is_shut_leaves_the_others_open() -> None:
    async with Harness(*ALL, limits=LIMITS, retry=RetryPolicy(max_attempts=1)) as app:
        paused = await id_of_paused(begin(app.object(Printer, "broken").keyed("acme")))
        with pytest.raises(PausedInvocationError, match=paused):
            await app.object(Printer, "a").keyed("acme")
        assert await app.object(Printer, "b").keyed("bolt") == "bolt"
        await app.kill(paused)


async def test_a_limit_that_a_new_version_makes_smaller_is_shut_by_as_many_pauses_as_it_has_places_now() -> None:
    """Whether the others that still hold places end or not."""
    store, retry = MemoryStore(), RetryPolicy(max_attempts=1)
    async with Harness(*ALL, limits=LIMITS, retry=retry, store=store) as app:
        sound = await app.object(Printer, "sound").two.send(60)
        paused = await id_of_paused(begin(app.object(Printer, "broken").two()))
    narrow = Limits(named={**LIMITS.named, "two": Limit(at_once=1)})
    async with Harness(*ALL, limits=narrow, retry=retry, store=store) as app:
        with pytest.raises(PausedInvocationError, match=paused):
            await app.object(Printer, "late").two()
        assert await app.invocation(sound.id).status() == "suspended"
        await app.kill(paused)
        await app.advance(60)
