"""granian, embedded in the event loop of the runtime, on the socket that `durably serve` has bound.

Its own way to a socket is not taken: it binds with SO_REUSEPORT, so a second server would share the port instead of
failing before it touches the store.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from starlette.types import ASGIApp

from durably.cli.servers.server import BACKLOG, GOODBYE_SECONDS, Server
from durably.cli.servers.tls import Tls

# Any, because what is used of it has no types that hold.
_constants: Final[Any] = import_module("granian.constants")
_net: Final[Any] = import_module("granian.net")
_embed: Final[Any] = import_module("granian.server.embed")

CONNECTIONS: Final = 1_000_000
"""How many may be open. A call that waits holds its connection, so the system's limits are left to say how many."""
HAS_BACKLOG: Final = sys.platform.startswith(("linux", "freebsd"))
"""Whether granian's holder of a socket listens on it; elsewhere the socket listens already."""

LOGS: Final[dict[str, Any]] = {"formatters": {}, "handlers": {}, "loggers": {"_granian": {"propagate": True}}}
"""Through the handlers of the process, as all else is logged."""


class GranianServer:
    """One embedded granian server on one socket."""

    def __init__(self, application: ASGIApp, listener: socket.socket, when_ready: Callable[[], None]) -> None:
        self._listener = listener
        self._when_ready = when_ready
        self._stopping = asyncio.Event()
        self._server = _embed.Server(
            application, interface=_constants.Interfaces.ASGINL, http=_constants.HTTPModes.http1, websockets=False,
            backlog=BACKLOG, backpressure=CONNECTIONS, log_level="error", log_dictconfig=LOGS,
        )  # fmt: skip
        self._server._init_shared_socket = self._hand_over_the_socket

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

    def _hand_over_the_socket(self) -> None:
        """From now on granian is to close it."""
        descriptor = self._listener.detach()
        self._server._shd = _net.SocketHolder(descriptor, False, *([BACKLOG] if HAS_BACKLOG else []))


def make(
    application: ASGIApp, listener: socket.socket, when_ready: Callable[[], None], tls: Tls | None = None, /
) -> Server:
    """A `ServerMaker`."""
    assert tls is None, "`tls_of` refuses it"
    return GranianServer(application, listener, when_ready)
