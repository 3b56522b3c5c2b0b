"""The load generator over HTTP: keep-alive connections that each send the next request when the last is answered.

It runs in a process of its own, with nothing between the HTTP parser and the socket, so that it is not what is
measured: the bare ASGI endpoint beside every result says how much it can drive.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Thread
from time import perf_counter_ns
from typing import IO, Final, NamedTuple, cast

import httptools

from benchmarks.load import Observed, Window

ROOT: Final = Path(__file__).parents[1]
HOST: Final = "127.0.0.1"
READY: Final = f"Listening on http://{HOST}:"
END_SECONDS: Final = 15


class Connection(asyncio.Protocol):
    """One connection of a closed loop; every `stride`-th request is its own."""

    def __init__(
        self, request: Callable[[int], bytes], number: int, stride: int, window: Window, latencies_ns: list[int]
    ) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._number = number
        self._stride = stride
        self._window = window
        self._latencies_ns = latencies_ns
        self._parser = httptools.HttpResponseParser(self)
        self._started_ns = 0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # Those of uvloop have no base class in common.
        self._started_ns = perf_counter_ns()
        self._transport.write(self._request(self._number))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """The parser has seen a whole response."""
        now_ns = perf_counter_ns()
        if self._parser.get_status_code() != 200:
            self._fail(f"The server answered {self._parser.get_status_code()}.")
            return
        if self._window.begin_ns <= now_ns < self._window.end_ns:
            self._latencies_ns.append(now_ns - self._started_ns)
        assert self._transport is not None
        if now_ns >= self._window.end_ns:
            if not self.finished.done():
                self.finished.set_result(None)
            return
        self._number += self._stride
        self._started_ns = now_ns
        self._transport.write(self._request(self._number))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"The server closed a connection: {exc}")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _fail(self, message: str) -> None:
        if not self.finished.done():
            self.finished.set_exception(ConnectionError(message))


async def drive(port: int, request: Callable[[int], bytes], *, connections: int, window: Window) -> Observed:
    """Send requests on so many connections until the window closes."""
    loop = asyncio.get_running_loop()
    observed = Observed()
    made: list[Connection] = []

    def connection() -> Connection:
        made.append(Connection(request, len(made), connections, window, observed.latencies_ns))
        return made[-1]

    try:
        for _ in range(connections):
            await loop.create_connection(connection, HOST, port)
        await asyncio.gather(*(one.finished for one in made))
    finally:
        for one in made:
            one.close()
    observed.ended = len(observed.latencies_ns)
    return observed


async def ask(port: int, request: bytes) -> bytes:
    """The body of the answer to one request."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        _, _, rest = head.partition(b"content-length: ")
        return await reader.readexactly(int(rest.partition(b"\r\n")[0]))
    finally:
        writer.close()
        await writer.wait_closed()


class ServerProcess(NamedTuple):
    """A server that takes connections."""

    port: int
    id: int

    def resident_mib(self) -> float | None:
        """What the process takes up in memory now; None where the system does not tell."""
        return self._told("VmRSS")

    def peak_mib(self) -> float | None:
        """The same, at most since it began."""
        return self._told("VmHWM")

    def _told(self, name: str) -> float | None:
        try:
            lines = Path(f"/proc/{self.id}/status").read_text("ascii", "replace").splitlines()
        except OSError:
            return None
        told = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
        return next((int(kib) / 1024 for kib in told), None)


@asynccontextmanager
async def serving(command: list[str], folder: Path) -> AsyncGenerator[ServerProcess]:
    """A server process."""
    log = folder / "server.log"
    process = _begin(command, folder, log)
    assert process.stdout is not None
    reader = Thread(target=process.stdout.read, daemon=True)
    try:
        port = await asyncio.to_thread(_read_port, process.stdout)
        if port is None:
            raise ConnectionError(f"The server did not start: {log.read_text(encoding='utf-8').strip()}")
        # A server that goes on printing must not block on a full pipe. Safe because the thread ends with the process.
        reader.start()
        yield ServerProcess(port, process.pid)
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if reader.is_alive():
            await asyncio.to_thread(reader.join)
        process.stdout.close()


def _begin(command: list[str], folder: Path, log: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), *(entry for entry in sys.path if entry)])
    environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
    with log.open("wb") as errors:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8"
        )


def _read_port(output: IO[str]) -> int | None:
    for line in output:
        if line.startswith(READY):
            return int(line.removeprefix(READY).split()[0])
    return None
