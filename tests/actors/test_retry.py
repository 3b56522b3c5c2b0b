from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from durably.actors.retry import RetryPolicy
from durably.errors import RetryableError, TerminalError


def test_waits_grow_by_the_factor_up_to_the_maximum() -> None:
    policy = RetryPolicy(initial=0.05, factor=2, maximum=0.3)
    assert [policy.delay_us(n) for n in range(1, 6)] == [50_000, 100_000, 200_000, 300_000, 300_000]


@given(some.integers(1, 100_000))
def test_no_wait_is_longer_than_the_maximum(failures: int) -> None:
    policy = RetryPolicy()
    assert 0 < policy.delay_us(failures) <= 60_000_000
    assert policy.delay_us(failures) <= policy.delay_us(failures + 1)


def test_without_limits_it_is_never_exhausted() -> None:
    assert not RetryPolicy().exhausted(10**9, 10**18, 10**9)


def test_attempts_count_the_first() -> None:
    assert not RetryPolicy(max_attempts=2).exhausted(1, 0, 0)
    assert RetryPolicy(max_attempts=2).exhausted(2, 0, 0)


def test_an_attempt_that_would_start_too_late_is_not_made() -> None:
    policy = RetryPolicy(initial=1, maximum=1, max_duration=timedelta(seconds=3))
    assert not policy.exhausted(1, 2_000_000, 1_000_000)
    assert policy.exhausted(1, 2_000_001, 1_000_000)


@pytest.mark.parametrize("kind", [tuple, list, set])
def test_it_gives_up_on_the_classes_named(kind: Callable[[Any], Any]) -> None:
    policy = RetryPolicy(give_up_on=kind([KeyError, TerminalError]))
    assert hash(policy) == hash(replace(policy))
    assert policy.gives_up_on(KeyError())
    assert not policy.gives_up_on(RetryableError())
    assert not RetryPolicy().gives_up_on(KeyError())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("initial", -1),
        ("initial", 61),
        ("factor", 0.5),
        ("factor", float("nan")),
        ("factor", True),
        ("maximum", "1"),
        ("max_attempts", 0),
        ("max_attempts", True),
        ("max_duration", float("nan")),
        ("then", "explode"),
        ("max_attempts", "3"),
        ("max_attempts", 2.5),
        ("give_up_on", ("KeyError",)),
        ("give_up_on", KeyError),
        ("give_up_on", None),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_by_name(field: str, value: Any) -> None:
    options: dict[str, Any] = {field: value}
    with pytest.raises((ValueError, TypeError), match=field):
        RetryPolicy(**options)
