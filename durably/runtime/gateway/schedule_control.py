"""`Schedule`: what operators see of a schedule, and the verbs that they have for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from durably.actors.cron import MissedTicks, datetime_of
from durably.runtime.engine.engine import Engine
from durably.runtime.lifecycle.schedules import Scheduled, ScheduleStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A `@cron` of a handler, as it stands now. Moments are in UTC."""

    name: str
    """`Service/handler`, `Object/key/handler` or `Workflow/run`: what the verbs of a `Runtime` take."""
    expression: str
    tz: str
    missed: MissedTicks
    status: ScheduleStatus
    next_tick: datetime | None
    """None: none comes, because it is paused or cancelled, or because the expression names no more."""
    last_tick: datetime | None
    """The last one that was delivered."""
    last_invocation: str | None
    """The id of the invocation of that tick."""


async def schedules_of(engine: Engine) -> list[Schedule]:
    """All schedules of the code that runs, by name."""
    return sorted(map(_described, await engine.parts.schedules.known()), key=lambda one: one.name)


def _described(one: Scheduled) -> Schedule:
    row, declared = one.row, one.declared
    return Schedule(
        name=one.name,
        expression=declared.expression,
        tz=declared.zone,
        missed=declared.missed,
        status=row.status,
        next_tick=None if one.next_tick is None else datetime_of(one.next_tick),
        last_tick=None if row.last_tick is None else datetime_of(row.last_tick),
        last_invocation=row.last_id,
    )
