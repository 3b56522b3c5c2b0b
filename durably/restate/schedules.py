"""Schedules on Restate (`@cron`): for each class that has some a service beside it, for each schedule an object.

The object sends itself a message for the moment of the next tick, and each tick to the handler that wants it: Restate
keeps both. It is a class of actors like others. A schedule begins when a deployment with it is registered by `durably
serve-restate`, or by `Deployment.start_schedules`; one whose expression has changed begins anew, and one that is gone
from the code ends with its next tick.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from durably.actors.actor import VirtualObject
from durably.actors.context import ObjectContext
from durably.actors.cron import TICK_HEADER, CronSchedule, datetime_of, tick_key, timestamp_of
from durably.actors.decorators import handler
from durably.actors.definition.binding import BoundActor
from durably.actors.state import state
from durably.errors import UnknownTargetError

SUFFIX: Final = ".cron"
"""After the name of a class, the name of the service that keeps its schedules."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A schedule of a handler."""

    service: str
    kind: str
    handler: str
    schedule: CronSchedule

    @property
    def name(self) -> str:
        """The key of the object that keeps it."""
        key = self.schedule.key
        return self.handler if key is None else f"{self.handler}/{key}"


class Schedules:
    """Those of one class, by name."""

    def __init__(self, declared: Iterable[Declared]) -> None:
        self.by_name: Mapping[str, Declared] = {one.name: one for one in declared}


class Clockwork(VirtualObject, abstract=True):
    """One schedule."""

    expression: str = state(default="")
    """What it goes by, with its zone."""
    position: int = state(default=0)
    """Ticks up to here are dealt with: microseconds since 1970 UTC."""
    winding: int = state(default=0)
    """Messages to itself of an earlier one are ignored."""

    def __init__(self, schedules: Schedules) -> None:
        self.schedules = schedules

    @handler
    async def start(self, ctx: ObjectContext) -> None:
        """Begin, unless it goes by this expression already."""
        declared = self.schedules.by_name.get(self.key)
        if declared is None:
            known = sorted(self.schedules.by_name)
            raise UnknownTargetError(f"There is no schedule {self.key!r}. There are: {', '.join(known)}.", known=known)
        expression = f"{declared.schedule.expression} {declared.schedule.zone}"
        if self.expression != expression:
            self.expression, self.position = expression, timestamp_of(ctx.now())
            await self._wind(ctx, declared)

    @handler(private=True)
    async def look(self, ctx: ObjectContext, winding: int) -> None:
        """Deliver what is due."""
        if winding != self.winding:
            return
        declared = self.schedules.by_name.get(self.key)
        if declared is None:  # If it comes back, it begins anew.
            del self.expression
            return
        now = max(timestamp_of(ctx.now()), self.position)
        for tick in declared.schedule.to_deliver(self.position, now):
            await self._deliver(ctx, declared, tick)
        self.position = now
        await self._wind(ctx, declared)

    async def _wind(self, ctx: ObjectContext, declared: Declared) -> None:
        """Have itself called when the next tick is due."""
        self.winding += 1
        following = declared.schedule.next_after(self.position)
        if following is not None:
            await self.look.at(datetime_of(following)).send(self.winding)

    async def _deliver(self, ctx: ObjectContext, declared: Declared, tick: int) -> None:
        name = tick_key(declared.handler, tick)
        headers = {TICK_HEADER: datetime_of(tick).isoformat()}
        if declared.kind == "workflow":
            await ctx.send(declared.service, declared.handler, key=name, headers=headers)
        else:
            key = declared.schedule.key
            await ctx.send(declared.service, declared.handler, key=key, headers=headers, idempotency_key=name)


def schedules_of(actor: BoundActor) -> Schedules:
    """What the handlers of a class have declared."""
    definition = actor.definition
    return Schedules(
        Declared(definition.name, definition.kind, name, schedule)
        for name, one in actor.handlers.items()
        for schedule in one.schedules
    )


def clockwork_of(service: str) -> type[Clockwork]:
    """The class of the objects that keep the schedules of this one."""

    class ClockworkOf(Clockwork, name=f"{service}{SUFFIX}"):
        pass

    return ClockworkOf
