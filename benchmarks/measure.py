"""`measure`: one measurement from beginning to end, in the running event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from time import perf_counter_ns, process_time

import msgspec

from benchmarks.event_load import drive_events
from benchmarks.http_load import ServerProcess, ask, drive, serving
from benchmarks.load import (
    TICK_SECONDS,
    Observed,
    Window,
    beside,
    closed_loop,
    never_idle,
    open_loop,
    prepare,
    window_from_now,
)
from benchmarks.measurement import NANOSECONDS, Counts, Sample, Spec, latency_of
from benchmarks.subject import InProcess, Running, Served, subject_named

PREPARED_AT_ONCE = 64
ARRIVALS_SEED = 20_250_101
MICROSECONDS = 1_000_000


async def measure(spec: Spec, folder: Path, *, prepared_at_most: int | None = None) -> Sample:
    """Measure in this process and loop, with files in `folder`."""
    match subject_named(spec.subject):
        case InProcess() as subject:
            async with subject.open(folder, spec.workload) as running:
                prepared = subject.prepared if running.prepared is None else running.prepared
                prepared = prepared if prepared_at_most is None else min(prepared, prepared_at_most)
                return await _measure_in_process(spec, running, prepared)
        case Served() as subject:
            async with serving(subject.command(folder), folder) as server:
                return await _measure_served(spec, subject, server)


async def _measure_in_process(spec: Spec, running: Running, prepared: int) -> Sample:
    await prepare(running.operation, prepared, at_once=PREPARED_AT_ONCE)
    ticker = Ticker()
    async with beside(never_idle if spec.beside_burner else ticker.tick if spec.watches_loop else None):
        window = window_from_now(spec.warm_up_seconds, spec.seconds)
        async with _edges(window, running.counts) as edges:
            if spec.rate_per_second is None:
                observed = await closed_loop(running.operation, callers=spec.callers, window=window)
            else:
                observed = await open_loop(
                    running.operation,
                    rate_per_second=spec.rate_per_second,
                    window=window,
                    random=Random(ARRIVALS_SEED),
                )
    cpu_us = edges.cpu_seconds * MICROSECONDS / observed.ended if observed.ended else None
    sample = _sample(window, observed, cpu_us, edges.counts)
    return msgspec.structs.replace(sample, longest_hold_us=ticker.longest_us) if spec.watches_loop else sample


async def _measure_served(spec: Spec, subject: Served, server: ServerProcess) -> Sample:
    port = server.port
    if spec.workload in subject.streams:
        at_first_mib = server.resident_mib()
        window, observed = await drive_events(
            port,
            subject.streams[spec.workload],
            subject.requests[spec.workload],
            readers=spec.callers,
            window_from_now=partial(window_from_now, spec.warm_up_seconds, spec.seconds),
        )
        peak_mib = server.peak_mib()
        grown_mib = None if at_first_mib is None or peak_mib is None else peak_mib - at_first_mib
        return msgspec.structs.replace(_sample(window, observed, None, None), grown_mib=grown_mib)
    window = window_from_now(spec.warm_up_seconds, spec.seconds)
    before, after = None, None
    if subject.counts_request is not None:
        before = asyncio.create_task(_counts_at(window.begin_ns, port, subject.counts_request))
        after = asyncio.create_task(_counts_at(window.end_ns, port, subject.counts_request))
    observed = await drive(port, subject.requests[spec.workload], connections=spec.callers, window=window)
    counts = _difference(None if before is None else await before, None if after is None else await after)
    return _sample(window, observed, None, counts)


class Ticker:
    """Sees how long the loop gives others no turn."""

    def __init__(self) -> None:
        self.longest_us = 0.0

    async def tick(self) -> None:
        last_ns = perf_counter_ns()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now_ns = perf_counter_ns()
            self.longest_us = max(self.longest_us, (now_ns - last_ns) / 1000)
            last_ns = now_ns


def _sample(window: Window, observed: Observed, cpu_us: float | None, counts: Counts | None) -> Sample:
    return Sample(
        seconds=window.seconds,
        operations=observed.ended,
        unfinished=observed.unfinished,
        latency=latency_of(observed.latencies_ns),
        cpu_us_per_operation=cpu_us,
        counts=counts,
    )


def _difference(before: Counts | None, after: Counts | None) -> Counts | None:
    return None if before is None or after is None else after.since(before)


async def _counts_at(when_ns: int, port: int, request: bytes) -> Counts | None:
    await _until(when_ns)
    return msgspec.json.decode(await ask(port, request), type=Counts | None)


@dataclass(slots=True)
class _Edges:
    """What has happened between the beginning of a window and its end."""

    cpu_seconds: float = 0.0
    counts: Counts | None = None


@asynccontextmanager
async def _edges(window: Window, counts: Callable[[], Counts | None]) -> AsyncGenerator[_Edges]:
    edges = _Edges()

    async def look() -> None:
        await _until(window.begin_ns)
        cpu_seconds, before = process_time(), counts()
        await _until(window.end_ns)
        edges.cpu_seconds = process_time() - cpu_seconds
        edges.counts = _difference(before, counts())

    looking = asyncio.create_task(look())
    try:
        yield edges
    except BaseException:
        looking.cancel()
        raise
    await looking


async def _until(when_ns: int) -> None:
    await asyncio.sleep(max(0, when_ns - perf_counter_ns()) / NANOSECONDS)
