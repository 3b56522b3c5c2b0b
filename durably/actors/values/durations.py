"""Spans and moments of time as users write them, turned into whole microseconds, or refused with a sentence."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from durably.actors.values.type_checks import is_datetime, is_number
from durably.errors import InvalidDurationError

Duration: TypeAlias = timedelta | float
"""A span of time; a bare number is seconds, as in asyncio."""

FOREVER = timedelta.max
"""A retention without an end, as the longest span that Python writes: it needs no value of its own in signatures, and
reads as what it means."""
FOREVER_US = (1 << 62) - 1
"""The same in microseconds, as it is stored; a moment that lies so far ahead is never announced."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LATEST_US = (LAST - EPOCH) // MICROSECOND
"""The last moment that a date can show."""
LONGEST_SECONDS = 1_000 * 366 * 86_400.0
"""A thousand years: what is longer is a mistake of units, and would not fit a date."""


def duration_us(duration: Duration, what: str = "a duration") -> int:
    """Whole microseconds. `what` names the thing in the sentence of the InvalidDurationError or TypeError."""
    if isinstance(duration, timedelta):
        microseconds = duration // MICROSECOND
    elif not is_number(duration):
        raise TypeError(f"{what} is a timedelta or a number of seconds, not {duration!r} ({type(duration).__name__}).")
    elif math.isnan(duration) or duration > LONGEST_SECONDS:
        raise _too_long(what, duration)
    else:
        microseconds = -1 if duration < 0 else round(duration * 1_000_000)
    if microseconds < 0:
        raise InvalidDurationError(f"{what} cannot be negative: {duration!r}.")
    if microseconds > LONGEST_SECONDS * 1_000_000:
        raise _too_long(what, duration)
    return microseconds


def _too_long(what: str, duration: Duration) -> InvalidDurationError:
    limit = f"{LONGEST_SECONDS:.0f} seconds (a thousand years)"
    return InvalidDurationError(f"{what} is at most {limit}, not {duration!r}.")


def optional_duration_us(duration: Duration | None, what: str) -> int | None:
    return None if duration is None else duration_us(duration, what)


def retention_us(duration: Duration, what: str) -> int:
    """How long something is kept, in whole microseconds; `FOREVER` is the one span that may be longer than others."""
    return FOREVER_US if duration == FOREVER else duration_us(duration, what)


def optional_retention_us(duration: Duration | None, what: str) -> int | None:
    return None if duration is None else retention_us(duration, what)


def kept_until(now: int, keep_us: int) -> int:
    """The moment from which on it is not kept any longer."""
    return min(now + keep_us, FOREVER_US)


def shown_duration(duration: Duration) -> str:
    """For people: `90 s`, `2 days, 0:00:00`."""
    return str(duration) if isinstance(duration, timedelta) else f"{duration:g} s"


def delay_us(
    verb: str, delay: tuple[Duration, ...], days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
) -> int:
    """What a verb such as `after` or `sleep` was given: one duration, or named parts that add up, never both."""
    parts = {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
    if len(delay) > 1 or (delay and any(parts.values())):
        raise TypeError(f"{verb}(...) takes one duration or named parts (days, hours, minutes, seconds), not both.")
    if delay:
        return duration_us(delay[0], f"The delay of {verb}(...)")
    for name, part in parts.items():
        duration_us(part, f"{name} in {verb}(...)")
    return duration_us(((days * 24 + hours) * 60 + minutes) * 60 + seconds, f"The delay of {verb}(...)")


def moment_us(when: datetime) -> int:
    """Microseconds since 1970 UTC of an aware datetime."""
    if not is_datetime(when):
        raise TypeError(f"at(...) takes a datetime, not {when!r}. For a span of time use after(...).")
    if when.utcoffset() is None:
        raise InvalidDurationError(
            f"at({when!r}) does not say which time zone it means. Write datetime(..., tzinfo=UTC), or start from "
            "ctx.now()."
        )
    return (when - EPOCH) // MICROSECOND


def moment(microseconds: int) -> datetime:
    """The aware datetime, in UTC, of microseconds since 1970; the last or first that there is for what lies beyond."""
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:  # Only a damaged row says so.
        return LAST if microseconds > 0 else FIRST
