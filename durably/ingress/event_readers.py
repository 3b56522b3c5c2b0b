"""One reader of events over HTTP: what it asks for, and what it has been told by now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import parse_qs, urlencode

import msgspec
from starlette.types import Scope, Send

from durably.actors.event_values import checked_stream
from durably.errors import DurablyError
from durably.ingress.event_frames import frame, gap, heartbeat, hello, parse_places
from durably.ingress.refusals import RefusedRequestError
from durably.storage.records import EventRecord

PARAMETERS: Final = ("stream", "event", "key", "start", "last-event-id", "local")


class Asked(msgspec.Struct, frozen=True):
    """What a reader asks for."""

    stream: str | None
    """None: the default one."""
    events: tuple[str, ...]
    """Their names; none: all."""
    key: str | None
    from_beginning: bool
    places: Mapping[str, int]
    """What it has seen, by store."""
    is_local: bool
    """It is another node, and wants what this one has itself."""

    def wants(self, event: EventRecord) -> bool:
        return (not self.events or event.name in self.events) and self.key in (None, event.key)

    def question(self) -> str:
        """The query with which a node asks another one for the same."""
        asked = [("local", ""), *(("event", name) for name in self.events)]
        asked += [("stream", self.stream)] if self.stream is not None else []
        asked += [("key", self.key)] if self.key is not None else []
        return urlencode([*asked, ("start", "beginning")] if self.from_beginning else asked)


class Told:
    """What a reader has been told, and the way to tell it more. Who tells it something holds the lock.

    A reader that hears nothing for long gets a heartbeat, for as long as this is entered.
    """

    def __init__(self, asked: Asked, send: Send, heartbeat_seconds: float) -> None:
        self.lock = asyncio.Lock()
        """The places in an id are those of one moment, so those who tell of different stores take turns."""
        self.places = {} if asked.is_local else dict(asked.places)
        self._send = send
        self._heartbeat_seconds = heartbeat_seconds
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + heartbeat_seconds
        self._timer = self._loop.call_at(self._due, self._look)
        self._beating: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Told:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)  # To a reader that has gone all writing fails.

    async def begin(self) -> None:
        async with self.lock:
            await self._write(hello(self.places))

    async def tell(self, pieces: Iterable[bytes]) -> None:
        """Events, whose ids are made of the places; none: it may be time for a sign of life."""
        for piece in pieces:
            await self._write(piece)
        if self._loop.time() >= self._due:
            await self._write(heartbeat(self.places))

    async def tell_event(self, store: str, position: int, name: str, data: bytes) -> None:
        """An event of another node."""
        self.places[store] = position
        await self._write(frame(self.places, name, data))

    async def tell_gap(self, store: str, until: int) -> None:
        """Events of a store between its place and this one are no more."""
        after, self.places[store] = self.places[store], until
        await self._write(gap(self.places, after, until))

    def _look(self) -> None:
        now = self._loop.time()
        if now >= self._due and not self.lock.locked():  # Who holds it writes.
            self._beating = self._loop.create_task(self._beat())
        due = self._due if self._due > now else now + self._heartbeat_seconds
        self._timer = self._loop.call_at(due, self._look)

    async def _beat(self) -> None:
        async with self.lock:
            await self.tell(())

    async def _write(self, body: bytes) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        self._due = self._loop.time() + self._heartbeat_seconds


def what_is_asked(scope: Scope) -> Asked:
    """
    Raises:
        RefusedRequestError: it makes no sense.
    """
    if scope["method"] not in ("GET", "HEAD"):
        raise RefusedRequestError(405, "method not allowed, use GET", headers=[(b"allow", b"GET")])
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    for name in query:
        if name not in PARAMETERS:
            raise RefusedRequestError(400, f"unknown query parameter '{name}', there are: {', '.join(PARAMETERS)}")
    start = _one(query, "start") or "now"
    if start not in ("now", "beginning"):
        raise RefusedRequestError(400, f"bad start '{start}', expected now or beginning")
    stream = _one(query, "stream")
    if stream is not None:
        try:
            checked_stream(stream)
        except DurablyError as error:
            raise RefusedRequestError(400, str(error)) from error
    last = dict(scope["headers"]).get(b"last-event-id")
    seen = (_one(query, "last-event-id") or "") if last is None else last.decode("latin-1")
    return Asked(
        stream=stream,
        events=tuple(sorted(query.get("event", ()))),
        key=_one(query, "key"),
        from_beginning=start == "beginning",
        places=parse_places(seen),
        is_local=_one(query, "local") is not None,
    )


def _one(query: Mapping[str, Sequence[str]], name: str) -> str | None:
    values = query.get(name, ())
    if len(values) > 1:
        raise RefusedRequestError(400, f"there are {len(values)} query parameters '{name}'; send one of them")
    return values[0] if values else None
