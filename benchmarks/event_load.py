"""The load generator for streams of events: so many readers over HTTP, and publishers that publish for them.

What counts is an event that a reader gets. Latencies are those of publications: of a request with many events, until it
is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import Final, cast

from benchmarks.http_load import HOST, Connection
from benchmarks.load import Observed, Window

PUBLISHERS: Final = 16
DATA: Final = b"\ndata: "
OPEN: Final = b"HTTP/1.1 200"


class Reader(asyncio.Protocol):
    """One stream. Events are counted, not parsed: the generator must not be what is measured."""

    def __init__(self, request: bytes) -> None:
        self.is_open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.received = 0
        self._request = request
        self._window = Window(begin_ns=0, end_ns=0)
        self._rest = b""
        self._transport: asyncio.WriteTransport | None = None

    def count_in(self, window: Window) -> None:
        self._window = window

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.is_open.done():
            if data.startswith(OPEN):
                self.is_open.set_result(None)
            else:
                self.is_open.set_exception(ConnectionError(f"The server answered {data[:200]!r}."))
        if self._window.begin_ns <= perf_counter_ns() < self._window.end_ns:
            self.received += (self._rest + data).count(DATA)
        self._rest = data[1 - len(DATA) :]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.is_open.done():
            self.is_open.set_exception(ConnectionError(f"The server closed a stream: {exc}"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def drive_events(
    port: int,
    reading: Callable[[int], bytes],
    publishing: Callable[[int], bytes],
    *,
    readers: int,
    window_from_now: Callable[[], Window],
) -> tuple[Window, Observed]:
    """Open the streams, then publish until the window closes. The latencies are those of publications."""
    loop = asyncio.get_running_loop()
    opened: list[Reader] = []
    publishers: list[Connection] = []
    observed = Observed()
    try:
        for number in range(readers):
            _, reader = await loop.create_connection(partial(Reader, reading(number)), HOST, port)
            opened.append(reader)
        await asyncio.gather(*(one.is_open for one in opened))
        window = window_from_now()
        for reader in opened:
            reader.count_in(window)
        for number in range(PUBLISHERS):
            _, publisher = await loop.create_connection(
                partial(Connection, publishing, number, PUBLISHERS, window, observed.latencies_ns), HOST, port
            )
            publishers.append(publisher)
        await asyncio.gather(*(one.finished for one in publishers))
    finally:
        for reader in opened:
            reader.close()
        for publisher in publishers:
            publisher.close()
    observed.ended = sum(one.received for one in opened)
    return window, observed
