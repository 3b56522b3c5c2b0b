"""Schedules: each tick once, whatever happens; what was missed, by policy; pausing and cancelling."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from durably import (
    Context,
    InvocationStatus,
    MemoryStore,
    ObjectContext,
    Schedule,
    ScheduleStatus,
    Service,
    UnknownTargetError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    cron,
    handler,
    state,
)
from durably.actors.cron import MISSED_TICKS, cron_schedule, datetime_of, timestamp_of
from durably.runtime.lifecycle.schedules import SPANS_KEPT, ScheduleRow, schedule_row
from durably.testing import Harness
from tests.semantics.support import SECOND_US

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR_US = 3_600 * SECOND_US
KEY = "tower"


def bell(expression: str, missed: Literal["skip", "once", "all"] = "all") -> type[VirtualObject]:
    class Bell(VirtualObject):
        rung: list[str] = state(default=[])

        @cron(expression, key=KEY, missed=missed)
        @handler
        async def ring(self, ctx: ObjectContext) -> None:
            self.rung.append(ctx.request.headers["cron-tick"])

    return Bell


def rung(app: Harness, actor: Any) -> list[timedelta]:
    """The ticks that the bell has heard of, counted from the beginning of virtual time."""
    return [datetime.fromisoformat(tick) - START for tick in app.snapshots[actor, KEY].rung]


def minutes(*counts: int) -> list[timedelta]:
    return [timedelta(minutes=count) for count in counts]


async def only(app: Harness) -> Schedule:
    (schedule,) = await app.schedules()
    return schedule


async def test_each_tick_comes_once_at_its_time() -> None:
    loud = bell("*/5 * * * *")
    async with Harness(loud) as app:
        await app.advance(minutes=4, seconds=59)
        assert rung(app, loud) == []
        await app.advance(seconds=1)
        assert rung(app, loud) == minutes(5)
        await app.advance(minutes=11)
        assert rung(app, loud) == minutes(5, 10, 15)


async def test_a_crash_loses_no_tick_and_repeats_none() -> None:
    loud = bell("* * * * *")
    async with Harness(loud) as app:
        for _ in range(5):
            await app.advance(seconds=90)
            await app.crash()
        await app.settle()
        assert rung(app, loud) == minutes(*range(1, 8))


@pytest.mark.parametrize(("missed", "heard"), [("all", [10, 20, 30, 40]), ("once", [10, 40]), ("skip", [10])])
async def test_ticks_that_passed_while_nothing_ran_are_delivered_by_policy(missed: Any, heard: list[int]) -> None:
    loud = bell("*/10 * * * *", missed)
    disk = MemoryStore()
    async with Harness(loud, store=disk) as app:
        await app.advance(minutes=15)
    async with Harness(loud, store=disk) as app:
        app.clock.set_back(-45 * 60 * SECOND_US)
        await app.crash()
        await app.settle()
        assert rung(app, loud) == minutes(*heard)
        next_tick = (await only(app)).next_tick
        assert next_tick == START + timedelta(minutes=50)


async def test_nothing_is_delivered_for_the_time_before_the_first_deployment() -> None:
    loud, silent = bell("* * * * *"), bell("0 0 1 1 *")
    disk = MemoryStore()
    async with Harness(silent, store=disk) as app:
        await app.advance(minutes=30)
    async with Harness(loud, store=disk) as app:
        app.clock.set_back(-30 * 60 * SECOND_US)
        await app.crash()
        app_rung = rung(app, loud)
        await app.advance(minutes=1)
        assert app_rung == []
        assert rung(app, loud) == minutes(31)


async def test_a_schedule_that_is_gone_from_the_code_is_gone_and_begins_anew_when_it_comes_back() -> None:
    loud = bell("*/10 * * * *")

    class Bare(Service):
        @handler
        async def nothing(self, ctx: Context) -> None: ...

    disk = MemoryStore()
    async with Harness(loud, store=disk) as app:
        await app.advance(minutes=10)
    async with Harness(Bare, store=disk) as app:
        assert await app.schedules() == []
    async with Harness(loud, store=disk) as app:
        app.clock.set_back(-55 * 60 * SECOND_US)  # Before it has looked at its schedules.
        await app.crash()
        await app.advance(minutes=5)
        assert rung(app, loud) == minutes(10, 60)


async def test_a_clock_that_is_set_back_repeats_no_tick() -> None:
    loud = bell("*/10 * * * *")
    async with Harness(loud) as app:
        await app.advance(minutes=85)
        app.clock.set_back(HOUR_US)
        await app.advance(minutes=35)
        await app.crash()
        await app.advance(minutes=29)
        assert rung(app, loud) == minutes(*range(10, 81, 10))
        await app.advance(minutes=1)
        assert rung(app, loud) == minutes(*range(10, 91, 10))


@pytest.mark.parametrize("retention", [timedelta(0), timedelta(minutes=1)])
@pytest.mark.parametrize("kind", ["object", "service", "workflow"])
async def test_a_short_retention_repeats_no_tick(kind: str, retention: timedelta) -> None:
    heard: list[timedelta] = []

    async def hear(tick: str) -> None:
        heard.append(datetime.fromisoformat(tick) - START)

    async def note(ctx: Context | ObjectContext | WorkflowContext) -> None:
        await ctx.run("hear", hear, ctx.request.headers["cron-tick"])

    class Flow(Workflow, retention=retention):
        @cron("*/5 * * * *")
        @handler
        async def run(self, ctx: WorkflowContext) -> None:
            await note(ctx)

    class Free(Service, retention=retention):
        @cron("*/5 * * * *")
        @handler
        async def tick(self, ctx: Context) -> None:
            await note(ctx)

    class Thing(VirtualObject, retention=retention):
        @cron("*/5 * * * *", key=KEY)
        @handler
        async def tick(self, ctx: ObjectContext) -> None:
            await note(ctx)

    async with Harness({"object": Thing, "service": Free, "workflow": Flow}[kind]) as app:
        await app.advance(minutes=31)
        app.clock.set_back(20 * 60 * SECOND_US)
        await app.advance(minutes=40)
    assert heard == minutes(*range(5, 51, 5))


async def test_a_clock_that_ran_a_year_ahead_for_a_moment_parks_no_schedule() -> None:
    loud = bell("*/10 * * * *", "once")
    async with Harness(loud) as app:
        app.clock.set_back(-365 * 24 * HOUR_US)
        await app.advance(seconds=1)
        app.clock.set_back(365 * 24 * HOUR_US)
        await app.advance(hours=2)
        assert rung(app, loud)[-6:] == minutes(70, 80, 90, 100, 110, 120)


class Hearing:
    """What the ticks of a schedule did, and when by the wall clock."""

    def __init__(self, missed: Any, seconds: float = 0) -> None:
        self.heard: list[datetime] = []
        self.app: Harness
        hearing = self

        async def hear(tick: str) -> None:
            moment = datetime.fromisoformat(tick)
            assert moment <= hearing.now(), f"{tick} came at {hearing.now()}"
            hearing.heard.append(moment)

        class Report(Service):
            @cron("30 */2 * * *", missed=missed)
            @handler
            async def ring(self, ctx: Context) -> None:
                await ctx.run("hear", hear, ctx.request.headers["cron-tick"])
                await ctx.sleep(seconds)

        self.actor = Report

    def now(self) -> datetime:
        return datetime_of(self.app.clock.now())


@settings(max_examples=60, phases=(Phase.explicit, Phase.generate), deadline=None)
@given(
    st.sampled_from(MISSED_TICKS),
    st.integers(0, 6_000),
    st.integers(1, 180),
    st.booleans(),
)
async def test_whatever_a_wrong_clock_shows_a_tick_comes_once_and_not_before_its_moment(
    missed: Any, ahead_minutes: int, wrong_minutes: int, crashes: bool
) -> None:
    hearing = Hearing(missed)
    async with Harness(hearing.actor) as hearing.app:
        app = hearing.app
        await app.advance(hours=1)
        app.clock.set_back(-ahead_minutes * 60 * SECOND_US)
        await app.advance(minutes=wrong_minutes)
        app.clock.set_back(ahead_minutes * 60 * SECOND_US)
        if crashes:
            await app.crash()
        await app.advance(hours=1)
        begin = hearing.now()
        await app.advance(hours=5)
        assert len(hearing.heard) == len(set(hearing.heard))
        schedule = cron_schedule("30 */2 * * *", "UTC", None, "all")
        ticks = schedule.newest(timestamp_of(begin), timestamp_of(hearing.now()), 100)
        assert {datetime_of(tick) for tick in ticks} <= {*hearing.heard}


@settings(max_examples=3, phases=(Phase.explicit, Phase.generate), deadline=None)
@example("all", [(1_500, 180), (3_200, 5)])
@example("once", [(1_500, 5), (3_200, 5), (-4_000, 180)])
@given(
    st.sampled_from(MISSED_TICKS),
    st.lists(st.tuples(st.integers(-4_000, 3_500), st.integers(1, 180)), min_size=2, max_size=4),
)
async def test_a_clock_that_is_wrong_again_and_again_repeats_and_swallows_no_tick(
    missed: Any, episodes: list[tuple[int, int]]
) -> None:
    """Also where it is so far ahead meanwhile that the keys of ticks are forgotten, and where it shows old moments."""
    hearing = Hearing(missed)
    async with Harness(hearing.actor) as hearing.app:
        app = hearing.app
        await app.advance(hours=1)
        for wrong_by, wrong_minutes in episodes:
            app.clock.set_back(-wrong_by * 60 * SECOND_US)
            await app.advance(minutes=wrong_minutes)
            app.clock.set_back(wrong_by * 60 * SECOND_US)
            await app.advance(hours=1)
        begin = hearing.now()
        await app.advance(days=3)
        assert len(hearing.heard) == len(set(hearing.heard))
        schedule = cron_schedule("30 */2 * * *", "UTC", None, "all")
        ticks = schedule.newest(timestamp_of(begin), timestamp_of(hearing.now()), 200)
        assert {datetime_of(tick) for tick in ticks} <= {*hearing.heard}


@given(st.lists(st.integers(0, 60), max_size=80))
def test_a_row_knows_each_tick_that_was_delivered_and_no_other(minutes: list[int]) -> None:
    declared = cron_schedule("* * * * *", "UTC", None, "all")
    first = timestamp_of(START)
    row = ScheduleRow(expression="", zone="", position=first)
    for minute in dict.fromkeys(minutes):
        row = structs.replace(row, delivered=row.delivers(first + minute * 60 * SECOND_US, declared))
    kept = schedule_row(msgspec.json.encode(row))
    assert [kept.has_delivered(first + minute * 60 * SECOND_US) for minute in range(61)] == [
        minute in minutes for minute in range(61)
    ]
    assert len(kept.delivered) == sum(minute - 1 not in minutes for minute in set(minutes))


def test_a_row_forgets_gaps_of_long_ago_and_none_that_lies_ahead() -> None:
    declared, moment = cron_schedule("* * * * *", "UTC", None, "all"), timestamp_of(START)
    row = ScheduleRow(expression="", zone="", position=moment)
    for minute in range(0, 400, 2):  # Each second tick is left out.
        tick = moment + minute * 60 * SECOND_US
        position = tick if minute < 200 else row.position
        row = structs.replace(row, position=position, delivered=row.delivers(tick, declared))
    assert len(row.delivered) == SPANS_KEPT + 100
    assert row.has_delivered(moment + 60 * SECOND_US), "it is as good as delivered"
    assert not row.has_delivered(moment + 301 * 60 * SECOND_US)


@pytest.mark.parametrize("missed", ["all", "once", "skip"])
async def test_a_clock_that_ran_days_ahead_for_a_moment_repeats_and_swallows_no_tick(missed: Any) -> None:
    hearing = Hearing(missed, seconds=600)  # It ends when the clock has been corrected.
    async with Harness(hearing.actor) as hearing.app:
        app = hearing.app
        await app.advance(hours=2)
        app.clock.set_back(-72 * HOUR_US)
        await app.advance(seconds=3)
        app.clock.set_back(72 * HOUR_US)
        await app.advance(hours=100)
    assert sorted(hearing.heard) == [START + timedelta(hours=2 * count, minutes=30) for count in range(51)]


async def test_ticks_that_came_early_are_not_repeated_when_their_keys_are_gone() -> None:
    hearing = Hearing("all")
    async with Harness(hearing.actor) as hearing.app:
        app = hearing.app
        await app.advance(hours=1)
        app.clock.set_back(-72 * HOUR_US)
        await app.advance(seconds=3)
        app.clock.set_back(72 * HOUR_US)
        await app.advance(hours=3)
        await app.pause_schedule("Report/ring")
        await app.advance(days=5)
        await app.crash()
        await app.resume_schedule("Report/ring")
        await app.settle()
    assert START + timedelta(hours=122, minutes=30) in hearing.heard
    assert len(hearing.heard) == len(set(hearing.heard))


async def test_a_schedule_tells_its_last_and_next_tick_and_the_invocation() -> None:
    class Report(Service):
        @cron("30  2 * * mon-fri", tz="Europe/Berlin")
        @handler
        async def nightly(self, ctx: Context) -> str:
            return ctx.request.idempotency_key or ""

    async with Harness(Report) as app:
        schedule = await only(app)
        assert schedule == Schedule(
            name="Report/nightly",
            expression="30 2 * * MON-FRI",
            tz="Europe/Berlin",
            missed="once",
            status=ScheduleStatus.ON,
            next_tick=datetime(2026, 1, 1, 1, 30, tzinfo=UTC),
            last_tick=None,
            last_invocation=None,
        )
        await app.advance(hours=2)
        schedule = await only(app)
        assert schedule.last_tick == datetime(2026, 1, 1, 1, 30, tzinfo=UTC)
        assert schedule.next_tick == datetime(2026, 1, 2, 1, 30, tzinfo=UTC)
        assert schedule.last_invocation is not None
        ticked = app.invocation(schedule.last_invocation, str)
        assert await ticked.status() is InvocationStatus.COMPLETED
        assert await ticked.output() == "cron:nightly:2026-01-01T01:30:00Z"


async def test_each_tick_starts_a_workflow_of_its_own() -> None:
    class Cleanup(Workflow):
        began: str = state(default="")

        @cron("0 * * * *")
        @handler
        async def run(self, ctx: WorkflowContext) -> None:
            self.began = ctx.request.headers["cron-tick"]

    async with Harness(Cleanup) as app:
        await app.advance(hours=2)
        assert {id: flow.began for id, flow in app.snapshots.of(Cleanup).items()} == {
            "cron:run:2026-01-01T01:00:00Z": "2026-01-01T01:00:00+00:00",
            "cron:run:2026-01-01T02:00:00Z": "2026-01-01T02:00:00+00:00",
        }


async def test_a_paused_schedule_misses_ticks_and_a_cancelled_one_loses_them() -> None:
    loud = bell("*/10 * * * *")
    async with Harness(loud) as app:
        name = (await only(app)).name
        assert name == f"Bell/{KEY}/ring"
        assert await app.pause_schedule(name)
        assert not await app.pause_schedule(name)
        await app.advance(minutes=25)
        await app.crash()
        assert (await only(app)).status is ScheduleStatus.PAUSED
        assert (await only(app)).next_tick is None
        assert rung(app, loud) == []
        assert await app.resume_schedule(name)
        await app.settle()
        assert rung(app, loud) == minutes(10, 20)
        assert await app.cancel_schedule(name)
        await app.advance(minutes=20)
        assert await app.resume_schedule(name)
        await app.advance(minutes=10)
        assert rung(app, loud) == minutes(10, 20, 50)


async def test_a_name_that_no_schedule_has_is_refused_with_those_that_there_are() -> None:
    async with Harness(bell("* * * * *")) as app:
        with pytest.raises(UnknownTargetError, match=f"no schedule 'Bell/ring'. There are: Bell/{KEY}/ring"):
            await app.pause_schedule("Bell/ring")


async def test_a_year_of_ticks_passes_quickly() -> None:
    loud = bell("0 12 * * *", "once")
    async with Harness(loud) as app:
        await app.advance(days=365)
        assert len(rung(app, loud)) == 365
