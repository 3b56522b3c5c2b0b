"""What `durably serve` asks of an HTTP server, and which servers there are: `server_named`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, Protocol

from starlette.types import ASGIApp

from durably.cli.failures import CommandError
from durably.cli.servers.server_names import ServerName as ServerName
from durably.cli.servers.tls import Tls

GOODBYE_SECONDS: Final = 5
"""How long connections may take to close once everything is answered."""
BACKLOG: Final = 2_048
"""How many connections may wait to be accepted."""


class Server(Protocol):
    """An HTTP/1.1 server in the event loop of its caller. It leaves signals alone."""

    async def serve(self) -> None:
        """Listen until `stop`; then answer what was begun, and close connections within `GOODBYE_SECONDS`."""
        ...

    def stop(self) -> None:
        """Take no further connections, and let `serve` return."""
        ...


class ServerMaker(Protocol):
    """Makes a server for an application, on a bound socket that it takes over; `when_ready` is called when it listens.

    With `tls` it speaks HTTPS, where it can.
    """

    def __call__(
        self, application: ASGIApp, listener: socket.socket, when_ready: Callable[[], None], tls: Tls | None = None, /
    ) -> Server: ...


def server_named(name: ServerName) -> ServerMaker:
    """The maker of a server. Each has a module of its own, because its package may not be installed.

    Raises:
        CommandError: it is not installed.

    """
    try:
        module: Any = import_module(f"durably.cli.servers.{name}_server")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != name:
            raise
        raise CommandError(
            f"'--server {name}' needs the package {name}, which is not installed: pip install 'durably[{_extra(name)}]'"
        ) from error
    maker: ServerMaker = module.make
    return maker


def _extra(name: ServerName) -> str:
    return "http" if name is ServerName.UVICORN else name
