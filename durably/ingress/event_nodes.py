"""Events of other nodes, for readers that have come to this one: each hears of all, over one connection of its own.

A node is asked as a reader asks it, and from where the reader is, so nothing is lost or told twice while a node is
away for a time, and a slow reader holds up the node as little as a direct one. A list of nodes may be the same
everywhere: a node that finds itself in it, or one store under two addresses, listens once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import structlog

from durably.configuration.sections import without_credentials, without_password
from durably.errors import DefinitionError
from durably.ingress.event_frames import RETRY_MS, Received, parse_frames, shown_places
from durably.ingress.event_readers import Asked, Told
from durably.ingress.node_addresses import LOOK_UP_SECONDS, Node, NodeAddresses
from durably.ingress.refusals import RefusedRequestError
from durably.runtime.clock import SystemClock
from durably.runtime.observation.standard_library import LOGGER_NAME

if TYPE_CHECKING:
    import httpx

FIRST_ANSWER_SECONDS: Final = 1.0
"""So long a reader waits at first until all nodes have said where they are."""
SILENCE_SECONDS: Final = 60.0
"""After which a node that sends nothing, not even heartbeats, is asked again."""
CONNECT_SECONDS: Final = 5.0


def event_nodes(urls: Iterable[str], *, discover: bool = False) -> EventNodes | None:
    """Those that are named, or with `discover` all behind these names; None: no others.

    Raises:
        DefinitionError: they are no URLs, or cannot be followed.
    """
    nodes = tuple(dict.fromkeys(url.rstrip("/") for url in urls))
    if not nodes:
        return None
    for url in nodes:
        if not _is_address(url):
            raise DefinitionError(
                f"A node is the URL of the ingress of a runtime, as in http://events-1:8080, not "
                f"{without_password(url)!r}."
            )
    if find_spec("httpx") is None:
        raise DefinitionError("Events of other nodes need the extra `client`: pip install 'durably[client]'.")
    return EventNodes(NodeAddresses(nodes, discovers=discover))


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # Its port is no number, or an address in brackets is none.
        return False


class EventNodes:
    """The other nodes."""

    def __init__(self, addresses: NodeAddresses) -> None:
        self._addresses = addresses
        self._http: httpx.AsyncClient | None = None
        self._away: set[str] = set()
        """Those that the log has told to be away."""

    async def close(self) -> None:
        await self._addresses.close()
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    @asynccontextmanager
    async def followed(self, asked: Asked, told: Told, *, own: str) -> AsyncGenerator[None]:
        """Tell a reader of the events of all nodes, for as long as this lasts. `own`: the store of this one."""
        following = Following(asked, told, own)
        task = asyncio.create_task(self._follow_all(following))
        try:
            await following.until_all_have_answered()
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _follow_all(self, following: Following) -> None:
        """Follow the nodes that there are. Those may be others in a while, if names stand for them."""
        clock, loop = SystemClock(), asyncio.get_running_loop()
        tasks: dict[Node, asyncio.Task[None]] = {}
        try:
            while True:
                nodes = await self._addresses.nodes()
                gone = tasks.keys() - {*nodes}
                for node in gone:
                    tasks[node].cancel()
                    await asyncio.wait([tasks.pop(node)])
                    following.forget(node.url)
                if gone:  # Of its store another one may tell, that was not needed before.
                    tasks = {node: task for node, task in tasks.items() if not task.done()}
                for node in nodes:
                    if node not in tasks:
                        tasks[node] = loop.create_task(self._follow(node, following))
                following.expect(node.url for node in nodes)
                if not self._addresses.discovers:
                    await asyncio.wait(tasks.values())
                    return
                await clock.sleep(int(LOOK_UP_SECONDS * 1_000_000))
        finally:
            for task in tasks.values():
                task.cancel()
            if tasks:
                await asyncio.wait(tasks.values())

    async def _follow(self, node: Node, following: Following) -> None:
        import httpx

        clock = SystemClock()
        url, credentials = without_credentials(node.url)
        authorization = {} if credentials is None else {"authorization": credentials}
        while True:
            try:
                headers = following.headers() | authorization | ({"host": node.host} if node.host else {})
                # The certificate is for the name, not for the address.
                extensions = {"sni_hostname": node.server_name} if node.host else {}
                asking = self._client().stream(
                    "GET", f"{url}/events?{following.query}", headers=headers, extensions=extensions
                )
                async with asking as response:
                    response.raise_for_status()
                    self._is_there(url)
                    if not await following.listen(node.url, _frames(response)):
                        return
            except (httpx.HTTPError, RefusedRequestError) as error:
                self._is_away(url, error)
            await clock.sleep(RETRY_MS * 1_000)

    def _client(self) -> httpx.AsyncClient:
        import httpx

        if self._http is None:
            timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS, pool=None)
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
            self._http = httpx.AsyncClient(timeout=timeout, limits=limits)
        return self._http

    def _is_there(self, url: str) -> None:
        if url in self._away:
            self._away.discard(url)
            structlog.get_logger(LOGGER_NAME).info("a node for events is back", node=without_password(url))

    def _is_away(self, url: str, error: Exception) -> None:
        if url not in self._away:
            self._away.add(url)
            structlog.get_logger(LOGGER_NAME).warning(
                "a node for events is away; its readers hear what they miss when it is back",
                node=without_password(url),
                error=str(error),
            )


class Following:
    """One reader and its nodes."""

    def __init__(self, asked: Asked, told: Told, own: str) -> None:
        self._told = told
        self.query = asked.question()
        self._listens: dict[str, str | None] = {own: None}
        """Which node tells of which store."""
        self._answered: set[str] = set()
        self._expected: set[str] | None = None
        """The nodes; None: they are not known yet."""
        self._has_answer = asyncio.Event()

    def expect(self, urls: Iterable[str]) -> None:
        """These are the nodes now."""
        self._expected = {*urls}
        self._has_answer.set()

    def forget(self, url: str) -> None:
        """A node is none any more. Another one may tell of its store."""
        for store in [store for store, teller in self._listens.items() if teller == url]:
            del self._listens[store]

    async def until_all_have_answered(self) -> None:
        """A reader that leaves at once then knows where it was on each node."""
        try:
            async with asyncio.timeout(FIRST_ANSWER_SECONDS):
                while self._expected is None or not self._expected <= self._answered:
                    self._has_answer.clear()
                    await self._has_answer.wait()
        except TimeoutError:
            return

    def headers(self) -> dict[str, str]:
        """How a node is asked for what comes behind what the reader has heard."""
        places = shown_places(self._told.places)
        return {"last-event-id": places} if places else {}

    async def listen(self, url: str, frames: AsyncIterator[Received]) -> bool:
        """Tell the reader of what a node tells; false: somebody else tells of its store already."""
        async for received in frames:
            for store, position in received.places.items():
                if self._listens.setdefault(store, url) != url:
                    self._has_answered(url)
                    return False
                async with self._told.lock:
                    if received.data:
                        await self._told.tell_event(store, position, received.name, received.data)
                    else:
                        self._told.places[store] = position
                self._has_answered(url)
        return True

    def _has_answered(self, url: str) -> None:
        self._answered.add(url)
        self._has_answer.set()


async def _frames(response: httpx.Response) -> AsyncIterator[Received]:
    rest = b""
    async for part in response.aiter_raw():
        frames, rest = parse_frames(rest + part)
        for one in frames:
            yield one
