"""`EventServer`: an application that only tells of events, to be put where handlers must not be reached."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from durably.errors import DefinitionError
from durably.ingress.cross_origin import CrossOrigin
from durably.ingress.event_streams import EventStreams
from durably.runtime.runtime import Runtime


class EventServer:
    """An ASGI application with one path, `/events`, for readers of the events of a runtime, of other nodes, or of both.

        app = EventServer(runtime)
        app = EventServer(nodes=["http://events-1:8080", "http://events-2:8080"])

    Run by a server of its own it starts and stops the runtime. Mounted in another application, that one does.
    """

    def __init__(
        self, runtime: Runtime | None = None, *, nodes: Iterable[str] = (), discover: bool | None = None
    ) -> None:
        """`nodes`: the URLs of ingresses, or of other applications like this, beside those of the runtime's `PubSub`.
        `discover`: a host name in them stands for all addresses that DNS has for it, as in `PubSub`, which says so
        where this does not.

        Raises:
            DefinitionError: there is nothing to tell of, or a node is no URL.
        """
        urls = [*nodes, *(() if runtime is None else runtime.pubsub.nodes)]
        if runtime is None and not urls:
            raise DefinitionError("EventServer(...) takes a runtime, the URLs of nodes, or both.")
        self._runtime = runtime
        discovers = discover if discover is not None else runtime is not None and runtime.pubsub.discover
        self._streams = EventStreams(runtime, urls, discover=discovers)
        self._app = Starlette(routes=[Route("/events", CrossOrigin(self._streams))], lifespan=self._running)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope (ASGI 3)."""
        await self._app(scope, receive, send)

    @asynccontextmanager
    async def _running(self, _: Starlette) -> AsyncGenerator[None]:
        try:
            if self._runtime is None:
                yield
            else:
                async with self._runtime:
                    yield
        finally:
            await self._streams.close()
