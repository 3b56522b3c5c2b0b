"""uvicorn, so configured that it leaves to `durably serve` what is `durably serve`'s: signals, logs, the socket."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from durably.cli.servers.plain_http import PlainHttpProtocol
from durably.cli.servers.server import BACKLOG, GOODBYE_SECONDS, Server
from durably.cli.servers.tls import Tls


class UvicornServer:
    """One uvicorn server on one socket."""

    def __init__(
        self, application: ASGIApp, listener: socket.socket, when_ready: Callable[[], None], tls: Tls | None
    ) -> None:
        self._listener = listener
        self._server = _Server(
            uvicorn.Config(
                application, lifespan="off", http=PlainHttpProtocol, ws="none", log_config=None, access_log=False,
                server_header=False, proxy_headers=False, backlog=BACKLOG, timeout_graceful_shutdown=GOODBYE_SECONDS,
                ssl_certfile=None if tls is None else tls.certificate, ssl_keyfile=None if tls is None else tls.key,
            ),
            when_ready=when_ready,
        )  # fmt: skip

    async def serve(self) -> None:
        await self._server.serve(sockets=[self._listener])

    def stop(self) -> None:
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """A uvicorn server that says when it listens, and leaves signals alone: the runtime has to stop before it does."""

    def __init__(self, config: uvicorn.Config, *, when_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._when_ready = when_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._when_ready()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def make(
    application: ASGIApp, listener: socket.socket, when_ready: Callable[[], None], tls: Tls | None = None, /
) -> Server:
    """A `ServerMaker`."""
    return UvicornServer(application, listener, when_ready, tls)
