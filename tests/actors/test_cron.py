"""When a schedule ticks, and what `@cron` refuses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably import (
    Context,
    DefinitionError,
    ObjectContext,
    Service,
    SharedWorkflowContext,
    VirtualObject,
    Workflow,
    WorkflowContext,
    cron,
    handler,
    shared,
)
from durably.actors.cron import (
    LATE_US,
    MISSED_TICKS,
    MOST_MISSED_TICKS,
    CronSchedule,
    cron_schedule,
    datetime_of,
    tick_key,
    timestamp_of,
)

BERLIN = ZoneInfo("Europe/Berlin")
HOUR_US = 3_600_000_000
EXPRESSIONS = (
    "*/5 * * * *",
    "30 2 * * *",
    "0 * * * *",
    "15 */2 * * MON",
    "0 0 1 * *",
    "30 1-3 * * *",
    "*/20 15 2 * * *",
)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata")


def us(*parts: int) -> int:
    return timestamp_of(datetime(*parts, tzinfo=UTC))  # type: ignore[arg-type, misc]


def local_ticks(expression: str, first: datetime, last: datetime) -> list[str]:
    """The ticks of a schedule in Berlin between two moments there, as the clocks on its walls show them."""
    schedule = cron_schedule(expression, "Europe/Berlin", None, "all")
    ticks = schedule.newest(
        timestamp_of(first.replace(tzinfo=BERLIN)), timestamp_of(last.replace(tzinfo=BERLIN)), 1_000
    )
    return [f"{datetime_of(tick).astimezone(BERLIN):%d %H:%M %Z}" for tick in ticks]


# On 29 March 2026 clocks in Berlin go from 02:00 to 03:00, on 25 October from 03:00 back to 02:00.
FORWARD = datetime(2026, 3, 28, 12, tzinfo=BERLIN), datetime(2026, 3, 30, 12, tzinfo=BERLIN)
BACK = datetime(2026, 10, 24, 12, tzinfo=BERLIN), datetime(2026, 10, 26, 12, tzinfo=BERLIN)


def test_a_daily_tick_in_the_hour_that_is_skipped_comes_when_the_clocks_have_gone_forward() -> None:
    assert local_ticks("30 2 * * *", *FORWARD) == ["29 03:00 CEST", "30 02:30 CEST"]


def test_a_daily_tick_in_the_hour_that_comes_twice_comes_once() -> None:
    assert local_ticks("30 2 * * *", *BACK) == ["25 02:30 CEST", "26 02:30 CET"]


def test_what_ticks_every_hour_ticks_through_both_changes() -> None:
    schedule = cron_schedule("0 * * * *", "Europe/Berlin", None, "all")
    for first, last in (FORWARD, BACK):
        start, end = timestamp_of(first), timestamp_of(last)
        assert schedule.newest(start, end, 1_000) == [*range(start + HOUR_US, end + 1, HOUR_US)]


@pytest.mark.parametrize("expression", ["*/30 2 * * *", "0 */30 2 * * *"])
def test_minutes_of_a_star_and_expressions_with_seconds_follow_the_clock(expression: str) -> None:
    assert local_ticks(expression, *FORWARD) == ["30 02:00 CEST", "30 02:30 CEST"]
    twice = ["25 02:00 CEST", "25 02:30 CEST", "25 02:00 CET", "25 02:30 CET"]
    assert local_ticks(expression, *BACK) == [*twice, "26 02:00 CET", "26 02:30 CET"]


@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(ZONES),
    st.datetimes(min_value=datetime(2026, 1, 1), max_value=datetime(2027, 12, 31)),  # noqa: DTZ001
    st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=2)),
)
def test_ticks_grow_and_none_depends_on_where_one_begins_to_look(
    expression: str, zone: str, start: datetime, later: timedelta
) -> None:
    schedule = cron_schedule(expression, zone, None, "all")
    begin = timestamp_of(start.replace(tzinfo=UTC))
    first = schedule.next_after(begin)
    assert first is not None
    assert first > begin
    between = min(begin + later // timedelta(microseconds=1), first - 1)
    assert schedule.next_after(between) == first
    ticks = schedule.newest(begin, begin + 3 * 86_400_000_000, 10_000)
    assert ticks == sorted(set(ticks))
    assert ticks[:1] == ([first] if first <= begin + 3 * 86_400_000_000 else [])
    assert schedule.newest(begin, begin + 3 * 86_400_000_000, 3) == ticks[-3:]


def test_the_newest_ticks_of_a_long_time_cost_no_look_at_the_others() -> None:
    schedule = cron_schedule("* * * * *", "UTC", None, "all")
    end = us(2126, 1, 1)
    assert schedule.to_deliver(us(2026, 1, 1), end) == [
        end - ago * 60_000_000 for ago in reversed(range(MOST_MISSED_TICKS))
    ]


def missed(policy: Any, late_us: int) -> list[int]:
    schedule = CronSchedule("0 * * * *", "UTC", None, policy)
    return schedule.to_deliver(us(2026, 1, 1), us(2026, 1, 1, 3) + late_us)


def test_of_missed_ticks_all_are_delivered_or_the_latest_or_none() -> None:
    three = [us(2026, 1, 1, 1), us(2026, 1, 1, 2), us(2026, 1, 1, 3)]
    assert missed("all", LATE_US + 1) == three
    assert missed("once", LATE_US + 1) == three[-1:]
    assert missed("skip", LATE_US + 1) == []
    assert missed("skip", LATE_US) == three[-1:]


@given(
    st.sampled_from(("*/10 * * * * *", "*/7 * * * * *", "* * * * *", "*/5 * * * *")),
    st.sampled_from(MISSED_TICKS),
    st.integers(0, HOUR_US),
    st.integers(0, 5 * LATE_US),
)
def test_every_tick_that_is_at_most_a_minute_late_is_delivered_and_others_by_policy(
    expression: str, policy: Any, begin_us: int, later_us: int
) -> None:
    schedule = CronSchedule(expression, "UTC", None, policy)
    after = us(2026, 1, 1) + begin_us
    until = after + later_us
    every = schedule.newest(after, until, MOST_MISSED_TICKS)
    in_time = [tick for tick in every if until - tick <= LATE_US]
    of_missed = {"all": every, "once": in_time or every[-1:], "skip": in_time}
    assert schedule.to_deliver(after, until) == of_missed[policy]


def test_the_key_of_a_tick_tells_it_in_utc() -> None:
    tick = timestamp_of(datetime(2026, 3, 29, 3, tzinfo=BERLIN))
    assert tick_key("nightly", tick) == "cron:nightly:2026-03-29T01:00:00Z"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"expression": "61 * * * *"}, "no cron expression: bad minute"),
        ({"expression": "* * *"}, "no cron expression: wrong number of fields"),
        ({"expression": "0 0 31 2 *"}, "no cron expression: bad day-of-month"),
        ({"expression": 5}, "@cron takes an expression"),
        ({"zone": "Europe/Nowhere"}, "no time zone of that name.*tzdata"),
        ({"zone": "../etc/passwd"}, "no time zone of that name"),
        ({"zone": None}, "tz= is the name of a zone"),
        ({"missed": "never"}, 'missed= is .* "skip", "once"'),
        ({"key": ""}, "key= is the key of an object"),
    ],
)
def test_what_cannot_be_a_schedule_is_refused_with_a_sentence(arguments: dict[str, Any], sentence: str) -> None:
    given: dict[str, Any] = {"expression": "* * * * *", "zone": "UTC", "key": None, "missed": "once", **arguments}
    with pytest.raises(DefinitionError, match=sentence):
        cron_schedule(**given)


def with_parameters() -> None:
    wrong: Any = cron("* * * * *")

    class Report(Service):  # pyright: ignore[reportUnusedClass]
        @wrong  # type: ignore[untyped-decorator]
        @handler
        async def nightly(self, ctx: Context, day: str) -> None: ...


def below_handler() -> None:
    wrong: Any = cron("* * * * *")

    class Report(Service):  # pyright: ignore[reportUnusedClass]
        @handler
        @wrong  # type: ignore[untyped-decorator]
        async def nightly(self, ctx: Context) -> None: ...


def of_an_object_without_key() -> None:
    class Bell(VirtualObject):  # pyright: ignore[reportUnusedClass]
        @cron("* * * * *")
        @handler
        async def ring(self, ctx: ObjectContext) -> None: ...


def of_a_service_with_key() -> None:
    class Report(Service):  # pyright: ignore[reportUnusedClass]
        @cron("* * * * *", key="x")
        @handler
        async def nightly(self, ctx: Context) -> None: ...


def twice() -> None:
    class Report(Service):  # pyright: ignore[reportUnusedClass]
        @cron("* * * * *")
        @cron("30 * * * *")
        @handler
        async def nightly(self, ctx: Context) -> None: ...


def of_a_shared_handler_of_a_workflow() -> None:
    class Signup(Workflow):  # pyright: ignore[reportUnusedClass]
        @handler
        async def run(self, ctx: WorkflowContext) -> None: ...
        @cron("* * * * *")
        @shared
        async def look(self, ctx: SharedWorkflowContext) -> None: ...


@pytest.mark.parametrize(
    ("define", "sentence"),
    [
        (with_parameters, "takes parameters"),
        (below_handler, "above @handler"),
        (of_an_object_without_key, "without key="),
        (of_a_service_with_key, "Leave key= out"),
        (twice, "two @cron for the same handler"),
        (of_a_shared_handler_of_a_workflow, "put @cron on `run`"),
    ],
)
def test_a_handler_that_the_clock_cannot_call_is_refused(define: Callable[[], None], sentence: str) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        define()
