from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.runtime.gateway.delays import MAXIMUM_DAYS, parse_delay

SECOND = 1_000_000
UNITS = {"d": 86_400 * SECOND, "h": 3_600 * SECOND, "m": 60 * SECOND, "s": SECOND, "ms": 1_000, "us": 1}
LONG = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds"}

delays = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=MAXIMUM_DAYS))


def microseconds(delay: timedelta) -> int:
    return delay // timedelta(microseconds=1)


def split(total: int) -> list[tuple[int, str]]:
    parts: list[tuple[int, str]] = []
    for unit, size in UNITS.items():
        count, total = divmod(total, size)
        if count:
            parts.append((count, unit))
    return parts or [(0, "s")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PT10S", 10 * SECOND),
        ("10s", 10 * SECOND),
        ("1h 5m", 3_900 * SECOND),
        ("1h5m", 3_900 * SECOND),
        ("1 hour, 5 minutes", 3_900 * SECOND),
        ("P1DT2H", 93_600 * SECOND),
        ("P2W", 14 * 86_400 * SECOND),
        ("PT0.5S", SECOND // 2),
        ("PT0,5S", SECOND // 2),
        ("PT1M", 60 * SECOND),
        ("pt1s", SECOND),
        ("1.5 days", 129_600 * SECOND),
        ("250ms", 250_000),
        ("3 µs", 3),
        ("+1s", SECOND),
        ("0s", 0),
        (" 10s ", 10 * SECOND),
        ("0", 0),
        ("00:00:10", 10 * SECOND),
        ("36:05:00.25", 129_900 * SECOND + SECOND // 4),
    ],
)
def test_what_clients_write_is_understood(text: str, expected: int) -> None:
    assert parse_delay(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("10", "neither"),
        ("soon", "neither"),
        ("5s soon", "read from 'soon' on"),
        ("5x", "'x' is not a unit"),
        ("1M", "'M' is not a unit"),
        ("1S", "'S' is not a unit"),
        ("00:10", "neither"),
        ("1h 00:00:10", "read from '00:00:10' on"),
        ("1s 2h", "large to small"),
        ("1s 2s", "large to small"),
        ("1.5h 3m", "fraction"),
        ("PT1.5H3M", "fraction"),
        ("1h,", "comma"),
        ("-1s", "negative"),
        ("P", "neither"),
        ("PT", "neither"),
        ("P1DT", "neither"),
        ("PT1D", "neither"),
        ("P1Y", "no fixed length"),
        ("P1M", "no fixed length"),
        ("1000000 d", "longer than 36600 days"),
        ("1" * 300, "200 characters"),
        ("１s", "neither"),  # noqa: RUF001 - a digit, but not an ASCII one
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_delay(text)


@given(delays)
def test_every_delay_survives_its_iso_spelling(delay: timedelta) -> None:
    minutes, seconds = divmod(delay.seconds, 60)
    spelled = f"P{delay.days}DT{minutes // 60}H{minutes % 60}M{seconds}.{delay.microseconds:06}S"
    assert parse_delay(spelled) == microseconds(delay)


@given(delays, st.sampled_from([" ", "", ", "]), st.booleans())
def test_every_delay_survives_its_friendly_spelling(delay: timedelta, separator: str, is_long: bool) -> None:
    parts = split(microseconds(delay))
    spelled = separator.join(f"{count} {LONG[unit]}" if is_long else f"{count}{unit}" for count, unit in parts)
    assert parse_delay(spelled) == microseconds(delay)


@given(st.integers(0, 10**6), st.text("0123456789", min_size=1, max_size=20))
def test_a_fraction_finer_than_a_microsecond_never_makes_a_message_early(whole: int, fraction: str) -> None:
    exact = Fraction(f"{whole}.{fraction}") * SECOND
    assert exact <= parse_delay(f"{whole}.{fraction}s") == parse_delay(f"PT{whole}.{fraction}S") < exact + 1


@given(st.text(max_size=40) | st.text(alphabet="PTWDHMSdhmsu0123456789., +-", max_size=20))
def test_any_text_is_a_delay_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert 0 <= parse_delay(text) <= MAXIMUM_DAYS * UNITS["d"]
