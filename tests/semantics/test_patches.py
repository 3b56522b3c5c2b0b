"""Rule W4: `ctx.patched` lets code change under open journals."""

from __future__ import annotations

from typing import Any

import pytest

from durably import Context, MemoryStore, NonDeterminismError, Service, handler
from durably.actors.values.slices import SLICE_BYTES
from durably.testing import Harness


class Before(Service, name="Order"):
    """The code as it was."""

    @handler
    async def ship(self, ctx: Context) -> list[str]:
        done = [await ctx.run("pack", lambda: "packed")]
        await ctx.sleep(10)
        done.append(await ctx.run("send", lambda: "sent"))
        return done


class Between(Service, name="Order"):
    """Both ways."""

    @handler
    async def ship(self, ctx: Context) -> list[str]:
        done: list[str] = []
        if ctx.patched("charge first"):
            done.append(await ctx.run("charge", lambda: "charged"))
        done.append(await ctx.run("pack", lambda: "packed"))
        await ctx.sleep(10)
        assert ctx.patched("charge first") is ("charged" in done)
        done.append(await ctx.run("send", lambda: "sent"))
        return done


class After(Service, name="Order"):
    """No journal of the old code is left."""

    @handler
    async def ship(self, ctx: Context) -> list[str]:
        done = [await ctx.run("charge", lambda: "charged"), await ctx.run("pack", lambda: "packed")]
        await ctx.sleep(10)
        done.append(await ctx.run("send", lambda: "sent"))
        return done


class Careless(Service, name="Order"):
    """The new code without asking."""

    @handler
    async def ship(self, ctx: Context) -> list[str]:
        await ctx.run("charge", lambda: "charged")
        return []


OLD, NEW = ["packed", "sent"], ["charged", "packed", "sent"]


async def begun(code: Any, disk: MemoryStore) -> str:
    """An invocation that sleeps, and the process ends."""
    async with Harness(code, store=disk) as app:
        sleeping = await app.service(code).ship.send()
        await app.settle()
        id: str = sleeping.id
        return id


async def ended(code: Any, disk: MemoryStore, id: str, **way: Any) -> list[Any]:
    async with Harness(code, store=disk, **way) as app:
        await app.advance(11)
        return await app.invocation(id, list[Any]).result()


@pytest.mark.parametrize("way", [{}, {"nothing_resident": True}], ids=["resident", "nothing resident"])
async def test_what_began_with_the_old_code_ends_with_it_and_the_rest_runs_the_new(way: dict[str, Any]) -> None:
    disk = MemoryStore()
    old = await begun(Before, disk)
    new = await begun(Between, disk)
    assert await ended(Between, disk, old, **way) == OLD
    assert await ended(Between, disk, new, **way) == NEW


async def test_code_that_no_longer_asks_follows_the_journals_of_code_that_did() -> None:
    disk = MemoryStore()
    assert await ended(After, disk, await begun(Between, disk)) == NEW


async def test_without_asking_the_change_is_found() -> None:
    disk = MemoryStore()
    old = await begun(Before, disk)
    with pytest.raises(NonDeterminismError):
        await ended(Careless, disk, old)


class Weighing(Service):
    """Takes something large, which is decoded in slices at each replay."""

    @handler
    async def weigh(self, ctx: Context, load: str) -> list[bool]:
        first = ctx.patched("weigh twice")
        await ctx.sleep(10)
        return [first, ctx.patched("weigh twice")]


@pytest.mark.parametrize("size", [1, 2 * SLICE_BYTES], ids=["small", "large"])
async def test_an_answer_holds_in_replays_that_decode_in_slices(size: int) -> None:
    disk = MemoryStore()
    async with Harness(Weighing, store=disk) as app:
        weighing = await app.service(Weighing).weigh.send("x" * size)
        await app.settle()
    assert await ended(Weighing, disk, weighing.id) == [True, True]


class Repeating(Service):
    """Asks in every turn of a loop; the answer of the first turn holds."""

    asks = False

    @handler
    async def turn(self, ctx: Context) -> list[bool]:
        answers: list[bool] = []
        for _ in range(4):
            if Repeating.asks:
                answers.append(ctx.patched("loop"))
            await ctx.sleep(10)
        return answers


@pytest.mark.parametrize("way", [{}, {"nothing_resident": True}], ids=["resident", "nothing resident"])
async def test_the_first_answer_holds_for_the_whole_execution(way: dict[str, Any]) -> None:
    disk = MemoryStore()
    Repeating.asks = False
    async with Harness(Repeating, store=disk, **way) as app:
        turning = await app.service(Repeating).turn.send()
        await app.advance(15)
    Repeating.asks = True
    async with Harness(Repeating, store=disk, **way) as app:
        await app.advance(60)
        assert await app.invocation(turning.id, list[bool]).result() == [False] * 4
        fresh = await app.service(Repeating).turn.send()
        await app.advance(60)
        assert await fresh.result() == [True] * 4


class Failing(Service):
    fails = True

    @handler
    async def ask(self, ctx: Context) -> bool:
        await ctx.sleep(1)
        answer = ctx.patched("late")
        if Failing.fails:
            raise RuntimeError("not yet")
        await ctx.sleep(1)
        return answer and ctx.patched("late")


async def test_a_step_that_failed_has_not_asked() -> None:
    """Rule S2: the next attempt runs that code for the first time."""
    Failing.fails = True
    async with Harness(Failing) as app:
        asking = await app.service(Failing).ask.send()
        with pytest.raises(RuntimeError):
            await app.advance(2)
        Failing.fails = False
        await app.resume(asking.id)
        await app.crash()
        await app.advance(5)
        assert await asking.result() is True


async def test_a_change_has_a_name() -> None:
    class Nameless(Service):
        @handler
        async def ask(self, ctx: Context) -> bool:
            name: Any = 7
            return ctx.patched(name)

    async with Harness(Nameless) as app:
        with pytest.raises(Exception, match=r"takes the name of a change"):
            await app.service(Nameless).ask()
