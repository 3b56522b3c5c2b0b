"""granian, embedded in the event loop of the runtime, on the socket that `durably serve` has bound.

Its own way to a socket is not taken: it binds with SO_REUSEPORT, so a second server would share the port instead of
failing before it touches the store.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.net import SocketHolder
from granian.server import embed
from starlette.types import ASGIApp

from durably.cli.servers.server import BACKLOG, GOODBYE_SECONDS, Server

CONNECTIONS: Final = 1_000_000
"""How many may be open; one more is not accepted. A call that waits holds its connection, so the limit is the system's."""

LOGS: Final[dict[str, Any]] = {"formatters": {}, "handlers": {}, "loggers": {"_granian": {"propagate": True}}}
"""Through the process's own handlers, as everything else is logged."""


class GranianServer:
    """One embedded granian server on one socket."""

    def __init__(self, application: ASGIApp, listener: socket.socket, when_ready: Callable[[], None]) -> None:
        self._listener = listener
        self._when_ready = when_ready
        self._stopping = asyncio.Event()
        self._server = _Embedded(application, listener)

    async def serve(self) -> None:
        self._listener.listen(BACKLOG)
        serving = asyncio.create_task(self._server.serve())
        stopping = asyncio.create_task(self._stopping.wait())
        self._when_ready()
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            self._server.stop()
            await asyncio.wait({serving}, timeout=GOODBYE_SECONDS)
        finally:
            stopping.cancel()
        if serving.done():
            serving.result()

    def stop(self) -> None:
        self._stopping.set()


class _Embedded(embed.Server):
    def __init__(self, application: ASGIApp, listener: socket.socket) -> None:
        self._listener = listener
        super().__init__(
            application, interface=Interfaces.ASGINL, http=HTTPModes.http1, websockets=False, backlog=BACKLOG,
            backpressure=CONNECTIONS, log_level=LogLevels.error, log_dictconfig=LOGS,
        )  # fmt: skip

    def _init_shared_socket(self) -> None:
        self._shd = SocketHolder(self._listener.detach(), False, BACKLOG)


def make(application: ASGIApp, listener: socket.socket, when_ready: Callable[[], None]) -> Server:
    """A `ServerMaker`."""
    return GranianServer(application, listener, when_ready)
