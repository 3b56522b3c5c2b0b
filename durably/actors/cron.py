"""`CronSchedule`: the moments at which a handler is called by the clock. Pure: no clock is read here.

Moments are microseconds since 1970 UTC. cronsim evaluates the expression in the time zone of the schedule, and treats
changes of daylight-saving time as Debian's cron does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Literal, TypeAlias
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from durably.actors.values.type_checks import is_text
from durably.errors import DefinitionError
from durably.ids import is_storable

MissedTicks: TypeAlias = Literal["skip", "once", "all"]

MISSED_TICKS = ("skip", "once", "all")
MOST_MISSED_TICKS = 1_000
"""Of the ticks that nothing delivered in time, the newest so many are delivered by `missed="all"`."""
LATE_US = 60_000_000
"""A tick that is delivered later than this after its moment has been missed."""
TICK_HEADER = "cron-tick"
"""The header of a tick's message that says its moment, in ISO 8601."""

TICK_KEY_PREFIX = "cron:"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST_WINDOW_US = 3_600_000_000
_WINDOW_FACTOR = 4


@dataclass(frozen=True, slots=True)
class CronSchedule:
    """An expression in a time zone, and what is done about moments that have passed."""

    expression: str
    """Normal form: upper case, one space between fields."""
    zone: str
    key: str | None
    """Of the object that gets the ticks; None for services and workflows."""
    missed: MissedTicks

    def next_after(self, moment: int) -> int | None:
        """The first tick after a moment; None if the expression names no more."""
        return next(self._after(moment), None)

    def newest(self, after: int, until: int, limit: int) -> list[int]:
        """The last `limit` ticks after one moment and not after another, oldest first.

        It looks back from the end in windows that grow, so that a long time costs no more than the ticks wanted.
        """
        window_us = _FIRST_WINDOW_US
        while True:
            start = max(after, until - window_us)
            found = self._between(start, until, limit)
            if len(found) == limit or start == after:
                return found
            window_us *= _WINDOW_FACTOR

    def to_deliver(self, after: int, until: int) -> list[int]:
        """Which ticks after one moment are delivered at another one, oldest first: the policy for missed ticks."""
        if self.missed == "all":
            return self.newest(after, until, MOST_MISSED_TICKS)
        in_time = self.newest(max(after, until - LATE_US - 1), until, MOST_MISSED_TICKS)
        if in_time or self.missed == "skip":
            return in_time
        return self.newest(after, until, 1)

    def _between(self, after: int, until: int, limit: int) -> list[int]:
        return [*deque(takewhile(until.__ge__, self._after(after)), maxlen=limit)]

    def _after(self, moment: int) -> Iterator[int]:
        start = datetime_of(moment).astimezone(ZoneInfo(self.zone))
        for found in CronSim(self.expression, start):
            tick = timestamp_of(found)
            # cronsim counts in the time of day, so it may give 02:30 again when the clock has gone back to 02:15.
            if tick > moment:
                yield tick
                moment = tick


def datetime_of(moment: int) -> datetime:
    """A moment as an aware datetime, exactly."""
    return _EPOCH + timedelta(microseconds=moment)


def timestamp_of(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def shown_tick(tick: int) -> str:
    """A tick as it stands in idempotency keys: `2026-03-29T01:00:00Z`."""
    return datetime_of(tick).strftime("%Y-%m-%dT%H:%M:%SZ")


def tick_key(handler: str, tick: int) -> str:
    """The idempotency key of a tick, which is the id of the workflow that it starts."""
    return f"{TICK_KEY_PREFIX}{handler}:{shown_tick(tick)}"


def cron_schedule(expression: str, zone: str, key: str | None, missed: MissedTicks) -> CronSchedule:
    """A schedule, checked.

    Raises:
        DefinitionError: it cannot work; says what to write.
    """
    if not is_text(expression):
        raise DefinitionError(f'@cron takes an expression such as "*/5 * * * *", not {expression!r}.')
    if missed not in MISSED_TICKS:
        raise DefinitionError(
            f"@cron({expression!r}, missed={missed!r}): missed= is what happens to ticks that passed while nothing "
            'ran: "skip", "once" (the latest of them is delivered) or "all".'
        )
    if key is not None and (not is_text(key) or not key or not is_storable(key)):
        raise DefinitionError(f"@cron({expression!r}, key={key!r}): key= is the key of an object, a string.")
    schedule = CronSchedule(" ".join(expression.upper().split()), _zone(expression, zone), key, missed)
    try:
        schedule.next_after(0)
    except CronSimError as error:
        raise DefinitionError(
            f"@cron({expression!r}) is no cron expression: {str(error).lower()}. It has five fields: minute, hour, day "
            'of the month, month, day of the week, such as "30 2 * * MON-FRI"; with six, the first is the second.'
        ) from error
    return schedule


def _zone(expression: str, zone: str) -> str:
    if not is_text(zone):
        raise DefinitionError(f'@cron({expression!r}, tz={zone!r}): tz= is the name of a zone, as "Europe/Berlin".')
    try:
        ZoneInfo(zone)
    except (KeyError, OSError, ValueError) as error:
        raise DefinitionError(
            f"@cron({expression!r}, tz={zone!r}): this machine knows no time zone of that name. Names are those of the "
            'IANA database, as "Europe/Berlin"; where the system has none (Windows, small containers), install tzdata.'
        ) from error
    return zone
