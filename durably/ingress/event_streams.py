"""`EventStreams`: published events as server-sent events, for any number of readers over HTTP.

A reader that comes back with the id of its last event misses nothing and gets nothing twice, across restarts of the
server too, since events are read from the store. If some were forgotten before it got to them, it is told so first. A
reader that is slow is not waited for and not buffered for: it costs its place in the log and one portion, however far
it is behind.

What is written is made once for all readers that are at the same place and ask for the same, which is why this is not
`sse-starlette`: that encodes each event for each reader, and has three tasks for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Final, Protocol

from starlette.types import Receive, Scope, Send

from durably.errors import DurablyError, RuntimeStoppedError, StoreUnavailableError
from durably.ingress.answers import Answer, error_answer, refusal_answer
from durably.ingress.event_frames import come_back, data_of, frame, store_name
from durably.ingress.event_nodes import event_nodes
from durably.ingress.event_readers import Asked, Told, what_is_asked
from durably.ingress.refusals import RefusedRequestError
from durably.runtime.messaging.event_feeds import EventReader
from durably.runtime.runtime import PubSub
from durably.storage.records import EventRecord

HEARTBEAT_SECONDS: Final = 15.0
PIECE_BYTES: Final = 64 * 1024
"""Of what is handed to the server at a time, which then waits until the client takes it."""
SHARED_BYTES: Final = 4 * 1024 * 1024
SHARED_PORTIONS: Final = 256
SHARED_INDEXES: Final = 16
HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)


class FollowedRuntime(Protocol):
    """The part of a `Runtime` that readers of events need."""

    @property
    def store_id(self) -> str: ...
    @property
    def pubsub(self) -> PubSub: ...
    async def follow_events(self, stream: str | None = None, /, *, after: int | None = None) -> EventReader: ...


class EventStreams:
    """Serves the events of one runtime, and of other nodes beside it."""

    def __init__(
        self,
        runtime: FollowedRuntime | None,
        nodes: Iterable[str] = (),
        *,
        discover: bool = False,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        """Without a runtime, readers hear of the nodes only.

        Raises:
            DefinitionError: the nodes are no URLs, or cannot be followed.
        """
        self._runtime = runtime
        self._nodes = event_nodes(nodes, discover=discover)
        self._heartbeat_seconds = heartbeat_seconds
        self._made = SharedPieces()
        self._keys = SharedKeys()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one reader until it goes away or the runtime stops."""
        try:
            asked = what_is_asked(scope)
            reader = None if self._runtime is None else await self._reader(self._runtime, asked)
        except RefusedRequestError as refused:
            await respond(error_answer(refused.status, refused.message, headers=list(refused.headers)), send)
            return
        except DurablyError as error:
            if isinstance(error, RuntimeStoppedError | StoreUnavailableError):
                await respond(Answer(200, [*HEADERS], come_back("this server is starting, or stopping")), send)
            else:
                await respond(refusal_answer(error, is_keyed=True, typed_errors=False), send)
            return
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS]})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
            else:
                await until_gone(self._write(asked, reader, send), receive)
        finally:
            if reader is not None:
                reader.close()

    async def close(self) -> None:
        """Close the connections to the other nodes. Call it when no client reads any more."""
        if self._nodes is not None:
            await self._nodes.close()

    async def _reader(self, runtime: FollowedRuntime, asked: Asked) -> EventReader:
        after = asked.places.get(store_name(runtime.store_id), 0 if asked.from_beginning else None)
        return await runtime.follow_events(asked.stream, after=after)

    async def _write(self, asked: Asked, reader: EventReader | None, send: Send) -> None:
        store = "" if self._runtime is None else store_name(self._runtime.store_id)
        async with AsyncExitStack() as stack:
            told = await stack.enter_async_context(Told(asked, send, self._heartbeat_seconds))
            if reader is not None:
                told.places[store] = asked.places.get(store, reader.after)
            if self._nodes is not None and not asked.is_local:
                await stack.enter_async_context(self._nodes.followed(asked, told, own=store))
            await told.begin()
            if reader is None:
                await asyncio.get_running_loop().create_future()  # The nodes have the word, until the reader goes.
            else:
                with suppress(RuntimeStoppedError):
                    await self._write_own(asked, store, reader, told)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write_own(self, asked: Asked, store: str, reader: EventReader, told: Told) -> None:
        if told.places[store] != reader.after:  # Forgotten meanwhile, or never happened: the store was set back.
            async with told.lock:
                await told.tell_gap(store, reader.after)
        while True:
            events = await reader.next()
            async with told.lock:
                if reader.complete_after > told.places[store]:
                    await told.tell_gap(store, reader.complete_after)
                pieces = self._pieces(asked, store, told.places, events)
                told.places[store] = reader.after
                await told.tell(pieces)

    def _pieces(
        self, asked: Asked, store: str, places: Mapping[str, int], events: Sequence[EventRecord]
    ) -> tuple[bytes, ...]:
        """What is written of these events: the same bytes for all who are there and ask for the same."""
        if asked.key is not None:
            events = self._keys.of(asked.stream, places[store], events).get(asked.key, ())
            return tuple(self._make(asked, store, {**places}, events)) if events else ()
        others = tuple(sorted((name, position) for name, position in places.items() if name != store))
        same = (asked.stream, asked.events, others, places[store], events[-1].position)
        pieces = self._made.get(same)
        return self._made.add(same, self._make(asked, store, dict(others), events)) if pieces is None else pieces

    def _make(self, asked: Asked, store: str, others: dict[str, int], events: Sequence[EventRecord]) -> Iterable[bytes]:
        assert self._runtime is not None
        sends_all = self._runtime.pubsub.sse
        frames: list[bytes] = []
        size_bytes = 0
        for event in events:
            data = data_of(event, sends_all=sends_all) if asked.wants(event) else None
            if data is not None:
                frames.append(frame({**others, store: event.position}, event.name, data))
                size_bytes += len(frames[-1])
                if size_bytes >= PIECE_BYTES:
                    yield b"".join(frames)
                    frames, size_bytes = [], 0
        if frames:
            yield b"".join(frames)


class SharedPieces:
    """What was made last, for those who need the same in a moment."""

    def __init__(self) -> None:
        self._made: dict[object, tuple[bytes, ...]] = {}
        self._size_bytes = 0

    def get(self, key: object) -> tuple[bytes, ...] | None:
        return self._made.get(key)

    def add(self, key: object, pieces: Iterable[bytes]) -> tuple[bytes, ...]:
        made = self._made[key] = tuple(pieces)
        self._size_bytes += _size(made)
        while self._size_bytes > SHARED_BYTES or len(self._made) > SHARED_PORTIONS:
            self._size_bytes -= _size(self._made.pop(next(iter(self._made))))
        return made


class SharedKeys:
    """The events of some portions by key: many readers that ask for one key each do not look at all events each."""

    def __init__(self) -> None:
        self._by_key: dict[object, dict[str, list[EventRecord]]] = {}

    def of(self, stream: str | None, after: int, events: Sequence[EventRecord]) -> Mapping[str, Sequence[EventRecord]]:
        portion = (stream, after, events[-1].position)
        by_key = self._by_key.get(portion)
        if by_key is None:
            by_key = self._by_key[portion] = {}
            for event in events:
                by_key.setdefault(event.key, []).append(event)
            if len(self._by_key) > SHARED_INDEXES:
                del self._by_key[next(iter(self._by_key))]
        return by_key


def _size(pieces: Iterable[bytes]) -> int:
    return sum(map(len, pieces))


async def until_gone(writing: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Write until the client goes away, or there is nothing more to be written."""
    loop = asyncio.get_running_loop()
    writer = loop.create_task(writing)
    watcher = loop.create_task(_gone(receive))
    try:
        await asyncio.wait((writer, watcher), return_when=asyncio.FIRST_COMPLETED)
        is_gone = watcher.done()
    finally:
        for task in (writer, watcher):
            task.cancel()
        await asyncio.wait((writer, watcher))
    if not is_gone:
        await writer  # What it raised is a mistake of ours; to a client that has gone all writing fails.


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def respond(answer: Answer, send: Send) -> None:
    headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
