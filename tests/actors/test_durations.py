from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from durably.actors.values.durations import delay_us, duration_us, moment, moment_us


def test_a_bare_number_is_seconds() -> None:
    assert duration_us(1.5) == 1_500_000
    assert duration_us(0) == 0


@given(some.timedeltas(min_value=timedelta(0), max_value=timedelta(days=300_000)))
def test_a_timedelta_is_exact(duration: timedelta) -> None:
    assert timedelta(microseconds=duration_us(duration)) == duration


@pytest.mark.parametrize("wrong", [-1, -0.001, timedelta(seconds=-1), float("nan"), float("inf"), float("-inf"), 1e300])
def test_a_span_that_cannot_be_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="The delay"):
        duration_us(wrong, "The delay")


@pytest.mark.parametrize("wrong", [True, "5", None, [1]])
def test_what_is_no_span_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a timedelta or a number of seconds"):
        duration_us(wrong)


def test_named_parts_add_up() -> None:
    assert delay_us("sleep", (), days=1, hours=1, minutes=1, seconds=1.5) == (86_400 + 3_600 + 60 + 1.5) * 1_000_000
    assert delay_us("sleep", (timedelta(minutes=1),)) == 60_000_000
    assert delay_us("sleep", ()) == 0


def test_a_duration_and_parts_are_not_both_given() -> None:
    with pytest.raises(TypeError, match=r"^sleep\(\.\.\.\) .* not both"):
        delay_us("sleep", (5,), minutes=1)


def test_a_wrong_part_is_named() -> None:
    with pytest.raises(ValueError, match=r"minutes in sleep"):
        delay_us("sleep", (), minutes=-1, hours=1)


def test_a_moment_is_an_aware_datetime() -> None:
    assert moment_us(datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == 0
    with pytest.raises(ValueError, match="time zone"):
        moment_us(datetime(2026, 1, 1))  # noqa: DTZ001
    wrong: Any = 5
    with pytest.raises(TypeError, match=r"after\(\.\.\.\)"):
        moment_us(wrong)


@given(some.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2900, 1, 1)))  # noqa: DTZ001
def test_moments_and_microseconds_agree(when: datetime) -> None:
    assert moment(moment_us(when.replace(tzinfo=UTC))) == when.replace(tzinfo=UTC)
