"""Which nodes there are: those that a list names, or all addresses that DNS has for the names in it.

Addresses are looked up again and again for as long as a reader is there, once for all readers. While the names cannot
be looked up, those that were found last are the nodes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import structlog

from durably.runtime.observation.standard_library import LOGGER_NAME

LOOK_UP_SECONDS: Final = 10.0
"""How old what was looked up may be."""
PATIENCE_SECONDS: Final = 5.0
"""How long a look-up may take."""
_PORTS: Final = {"http": 80, "https": 443}


class Node(NamedTuple):
    """One that is asked for events."""

    url: str
    """Where it is."""
    host: str = ""
    """The name that led to this address, with the port if it has one of its own; empty: the URL says it."""

    @property
    def server_name(self) -> str:
        """The name that its certificate is for, where the URL does not say it."""
        return urlsplit(f"//{self.host}").hostname or ""


class NodeAddresses:
    """The nodes behind URLs."""

    def __init__(self, urls: Iterable[str], *, discovers: bool) -> None:
        self.discovers = discovers
        self._urls = tuple(urls)
        self._nodes = tuple(Node(url) for url in self._urls)
        self._found: dict[str, tuple[Node, ...]] = {}
        """What was looked up, by URL."""
        self._looked_up_at: float | None = None
        self._looking: asyncio.Task[None] | None = None
        self._unknown: set[str] = set()
        """Names that the log has told to be unknown."""

    async def nodes(self) -> tuple[Node, ...]:
        """All that are there now."""
        if not self.discovers:
            return self._nodes
        loop = asyncio.get_running_loop()
        if self._looked_up_at is None or loop.time() - self._looked_up_at >= LOOK_UP_SECONDS:
            if self._looking is None:
                self._looking = loop.create_task(self._look_up_all())
            await asyncio.shield(self._looking)
        return tuple(dict.fromkeys(node for url in self._urls for node in self._found.get(url, ())))

    async def close(self) -> None:
        """Look up nothing more."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.wait([looking])

    async def _look_up_all(self) -> None:
        await asyncio.gather(*map(self._look_up, self._urls))
        self._looked_up_at, self._looking = asyncio.get_running_loop().time(), None

    async def _look_up(self, url: str) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                addresses = await addresses_of(host, parts.port or _PORTS[parts.scheme])
        except (OSError, TimeoutError, UnicodeError) as error:  # The last one: it cannot be a name.
            if url not in self._unknown:
                self._unknown.add(url)
                structlog.get_logger(LOGGER_NAME).warning(
                    "a name of nodes for events cannot be looked up; those found last are asked on",
                    name=host, error=str(error),
                )  # fmt: skip
            return
        self._unknown.discard(url)
        user, at, own = parts.netloc.rpartition("@")
        self._found[url] = tuple(
            Node(urlunsplit(parts._replace(netloc=f"{user}{at}{_place(address, parts.port)}")), own)
            for address in addresses
        )


async def addresses_of(host: str, port: int) -> list[str]:
    """The addresses that DNS has for a name, in a fixed order.

    Raises:
        OSError: it has none, or cannot tell.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


def _place(address: str, port: int | None) -> str:
    host = f"[{address}]" if ":" in address else address
    return host if port is None else f"{host}:{port}"
