from __future__ import annotations

import asyncio
import time
from random import Random

import pytest

from benchmarks.load import Window, closed_loop, open_loop, prepare, window_from_now
from benchmarks.measurement import latency_of


def window(seconds: float) -> Window:
    return window_from_now(0.0, seconds)


async def test_callers_of_a_closed_loop_number_their_operations_without_overlap() -> None:
    numbers: list[int] = []

    async def operation(number: int) -> None:
        numbers.append(number)
        await asyncio.sleep(0)

    observed = await closed_loop(operation, callers=3, window=window(0.02))
    assert len(numbers) == len(set(numbers))
    assert set(range(3)) <= set(numbers)
    assert 0 < observed.ended <= len(numbers)
    assert observed.unfinished == 0


async def test_what_ends_before_the_window_does_not_count() -> None:
    async def operation(number: int) -> None:
        await asyncio.sleep(0)

    observed = await closed_loop(operation, callers=1, window=window_from_now(0.02, 0.0))
    assert observed.ended == 0


async def test_an_operation_that_fails_fails_the_measurement() -> None:
    async def operation(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        await closed_loop(operation, callers=1, window=window(0.02))
    with pytest.raises(ValueError, match="0"):
        await open_loop(operation, rate_per_second=1000, window=window(0.05), random=Random(1))


async def test_arrivals_are_timed_from_when_they_were_meant_for() -> None:
    stall_seconds = 0.05

    async def operation(number: int) -> None:
        if number == 0:
            time.sleep(stall_seconds)  # noqa: ASYNC251 - the stall of the loop is what is looked for

    observed = await open_loop(operation, rate_per_second=2000, window=window(0.1), random=Random(1))
    latency = latency_of(observed.latencies_ns)
    assert latency is not None
    # Those that were meant for the stall waited for its end, though the loop only got round to them afterwards.
    assert latency.p90_us > 0.2 * stall_seconds * 1_000_000
    assert len(observed.latencies_ns) > 100


async def test_preparing_does_each_operation_once() -> None:
    numbers: list[int] = []

    async def operation(number: int) -> None:
        numbers.append(number)

    await prepare(operation, 10, at_once=3)
    assert sorted(numbers) == list(range(10))


def test_the_distribution_of_nothing_is_nothing() -> None:
    assert latency_of([]) is None


def test_percentiles_are_those_of_the_sorted_times() -> None:
    latency = latency_of([number * 1000 for number in reversed(range(100))])
    assert latency is not None
    assert (latency.p50_us, latency.p90_us, latency.p99_us, latency.highest_us) == (50, 90, 99, 99)
