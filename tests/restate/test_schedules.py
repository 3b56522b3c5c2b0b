"""`@cron` on Restate: the object that keeps a schedule, under virtual time, and on a cluster."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

import durably.restate
from durably import (
    Context,
    ObjectContext,
    Service,
    UnknownTargetError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    cron,
    handler,
    state,
)
from durably.actors.definition.binding import bind
from durably.restate import Client
from durably.restate.schedules import Schedules, clockwork_of, schedules_of
from durably.testing import Harness
from tests.processes import eventually
from tests.restate.cluster import Cluster, Deployed


class Log(VirtualObject):
    lines: list[str] = state(default=[])

    @handler
    async def add(self, ctx: ObjectContext, line: str) -> None:
        self.lines.append(line)

    @cron("*/10 * * * *", key="main", missed="skip")
    @cron("0 * * * *", key="other", missed="skip")
    @handler
    async def tick(self, ctx: ObjectContext) -> None:
        self.lines.append(ctx.request.headers["cron-tick"])


class Hourly(Workflow):
    @cron("0 * * * *")
    @handler
    async def run(self, ctx: WorkflowContext) -> None:
        await ctx.object(Log, "workflows").add.send(self.key)


class Minutely(Service):
    @cron("* * * * * *")
    @handler
    async def go(self, ctx: Context) -> None:
        await ctx.object(Log, "seconds").add(ctx.request.headers["cron-tick"])


APP = durably.restate.app(Log, Hourly, Minutely)


def test_a_class_with_schedules_has_a_service_beside_it() -> None:
    assert sorted(APP.actors) == ["Hourly", "Hourly.cron", "Log", "Log.cron", "Minutely", "Minutely.cron"]
    assert APP.has_schedules
    assert sorted(schedules_of(APP.actors["Log"]).by_name) == ["tick/main", "tick/other"]


class PlainLog(VirtualObject, name="Log"):
    """The same to those who send to it, without a clock of the runtime's."""

    lines: list[str] = state(default=[])

    @handler
    async def tick(self, ctx: ObjectContext) -> None:
        self.lines.append(ctx.request.headers["cron-tick"])


async def test_the_object_of_a_schedule_delivers_each_tick_once() -> None:
    schedules = schedules_of(bind(Log, {}))
    clockwork = clockwork_of("Log")
    async with Harness(clockwork, PlainLog, dependencies={Schedules: schedules}) as harness:
        main = harness.object(clockwork, "tick/main")
        await main.start()
        await main.start()  # Another registration of the same.
        await harness.advance(timedelta(minutes=35))
        await harness.crash()
        await harness.advance(timedelta(minutes=30))
        lines = harness.snapshots.of(PlainLog)["main"].lines
        assert len(lines) in (6, 7)
        assert len({*lines}) == len(lines)
        assert all(line[14:16] in ("00", "10", "20", "30", "40", "50") for line in lines)
        with pytest.raises(UnknownTargetError, match="There are: tick/main, tick/other"):
            await harness.object(clockwork, "tick/nothing").start()


@pytest.mark.slow
async def test_a_registration_starts_the_schedules(cluster: Cluster, tmp_path: Path) -> None:
    deployed = Deployed(cluster, "tests.restate.test_schedules:APP")
    try:
        statement = "select value_utf8 from state where service_name = 'Log' and service_key = 'seconds'"

        def ticked() -> bool:
            rows = cluster.query(statement)
            return bool(rows) and rows[0]["value_utf8"].count("T") >= 2

        assert eventually(ticked)
        async with Client(cluster.url) as client:
            await APP.start_schedules(client)  # It goes on as it goes.
    finally:
        deployed.end()
