"""A harness: exact ties, conditions after every commit, and time that passes until something is true."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from durably import ObjectContext, VirtualObject, handler, state
from durably.actors.values.durations import EPOCH, MICROSECOND
from durably.storage.sqlite import SqliteStore
from durably.testing import Harness, InvariantError, Snapshots

HOLD = timedelta(minutes=15)


class Seat(VirtualObject, name="HarnessSeat"):
    """Is held for a while."""

    log: list[str] = state(default=[])

    @handler
    async def hold(self, ctx: ObjectContext) -> None:
        self.log.append("held")
        await ctx.object(Seat, self.key).end.after(HOLD).send()

    @handler
    async def end(self, ctx: ObjectContext) -> None:
        self.log.append("ended")

    @handler
    async def ask(self, ctx: ObjectContext) -> str:
        self.log.append("asked")
        return str(ctx.now())


async def test_a_request_comes_at_the_very_moment_and_before_what_is_due() -> None:
    async with Harness(Seat) as app:
        seat = app.object(Seat, "a")
        await seat.hold()
        await app.advance(HOLD, due=False)
        assert await seat.ask() == str(EPOCH + app.clock.now() * MICROSECOND)
        assert app.snapshots[Seat, "a"].log == ["held", "asked"]
        await app.settle()
        assert app.snapshots[Seat, "a"].log == ["held", "asked", "ended"]


async def test_until_goes_from_one_due_moment_to_the_next() -> None:
    async with Harness(Seat) as app:
        await app.object(Seat, "a").hold()
        await app.until(lambda snapshots: "ended" in snapshots[Seat, "a"].log, within=3600)
        assert app.clock.elapsed_us == HOLD / timedelta(microseconds=1)
        with pytest.raises(InvariantError, match="did not come true within 60 s of virtual time"):
            await app.until(lambda snapshots: "sold" in snapshots[Seat, "a"].log)


async def test_two_tasks_that_let_time_pass_at_once_let_it_pass_one_after_the_other() -> None:
    async with Harness(Seat) as app:
        await app.object(Seat, "a").ask.after(5).send()
        await asyncio.gather(app.advance(3), app.advance(3), app.settle())
        assert app.clock.elapsed_us == 6_000_000
        assert app.snapshots[Seat, "a"].log == ["asked"]


async def test_a_condition_is_asked_when_it_is_registered_and_at_the_end() -> None:
    async with Harness(Seat) as app:
        await app.object(Seat, "a").ask()
        await app.settle()
        with pytest.raises(InvariantError, match="does not hold when it is registered"):
            app.invariant(lambda snapshots: not snapshots[Seat, "a"].log)
    async with Harness(Seat) as app:
        await app.object(Seat, "a").ask()
        with pytest.raises(InvariantError, match="allowed by bounded"):
            app.bounded(Seat, bytes=1)

    async def change_what_the_condition_sees() -> None:
        told = [True]
        async with Harness(Seat) as app:
            await app.object(Seat, "a").ask()
            app.invariant(lambda _: told[0])
            told[0] = False

    with pytest.raises(InvariantError, match="does not hold at the end"):
        await change_what_the_condition_sees()


async def test_conditions_are_asked_after_every_commit() -> None:
    def never_two(snapshots: Snapshots) -> bool:
        return len(snapshots[Seat, "a"].log) < 2

    async def ask_twice(harness: Harness, condition: Callable[[Harness], None]) -> None:
        async with harness as app:
            condition(app)
            await app.object(Seat, "a").ask()
            await app.object(Seat, "a").ask()

    with pytest.raises(InvariantError, match="never_two does not hold after a commit"):
        await ask_twice(Harness(Seat), lambda app: app.invariant(never_two))
    with pytest.raises(InvariantError, match="HarnessSeat/a has 12 bytes"):
        await ask_twice(Harness(Seat), lambda app: app.bounded(Seat, bytes=10))


async def test_conditions_of_another_store_are_refused(tmp_path: object) -> None:
    async with Harness(Seat, store=SqliteStore(f"{tmp_path}/x.db")) as app:
        with pytest.raises(TypeError, match="of a harness in memory"):
            app.invariant(lambda snapshots: True)
