"""`EventFeeds`: published events for those who look on from outside handlers, and whose place no store keeps.

Any number of readers follow a stream, each at its own pace. What is new is read from the store once for all of them and
kept for a while, in bounded memory; a reader that is further behind reads from the store by itself, so it costs its
place and one portion. Readers see durable events only (rule X1), in the order of their positions, each once. One that
is so far behind that events were forgotten before it got to them (rule P4) can see that.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from durably.errors import RuntimeStoppedError, StoreUnavailableError
from durably.storage.records import STREAMS, EventQuery, EventRecord
from durably.storage.store import Store

PORTION = 256
"""So many events are read from the store at a time."""
RECENT_PORTION = 1_024
PORTION_BYTES = 128 * 1024
"""What one reader holds at a time: so many events, or bytes of events, at most, and at least one."""
MANY_READERS = 16
WAKE_SECONDS = 0.0002
"""For each reader, how long at least after one waking the next one comes, if there are more than these."""
RECENT_EVENTS = 32_768
RECENT_BYTES = 16 * 1024 * 1024
"""Of one stream, kept in memory for readers that keep up."""
EARLIER_PORTIONS = 16
"""Of one stream, kept in memory for readers that are behind together, as after a restart."""


class _Earlier(NamedTuple):
    """What the store has told behind a position."""

    events: Sequence[EventRecord]
    until: int
    """All up to here has been told."""
    forgotten: int


class _Stream:
    """What is new in one stream, and what those share who read further back."""

    def __init__(self, store: Store, name: str, position: int) -> None:
        self._store = store
        self._name = name
        self.after = position
        """All events behind this position that have been read are in `recent`."""
        self.last = position
        self.recent: list[EventRecord] = []
        self.positions: list[int] = []
        self.recent_bytes = 0
        self.is_reading = False
        self.is_behind = False
        self.readers = 0
        self.waiting: set[asyncio.Future[None]] = set()
        self._portions: dict[int, Sequence[EventRecord]] = {}
        """What comes behind a position, for all readers that are there."""
        self._earlier: dict[int, asyncio.Task[_Earlier]] = {}
        self._woken_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def take(self, events: Sequence[EventRecord]) -> None:
        self.recent += events
        self.positions += [event.position for event in events]
        self.recent_bytes += sum(len(event.value) for event in events)
        self.last = events[-1].position
        self._portions.clear()
        gone = max(0, len(self.recent) - RECENT_EVENTS)
        self.recent_bytes -= sum(len(event.value) for event in self.recent[:gone])
        while self.recent_bytes > RECENT_BYTES:
            self.recent_bytes -= len(self.recent[gone].value)
            gone += 1
        if gone:
            self.after = self.positions[gone - 1]
            del self.recent[:gone], self.positions[:gone]

    async def earlier(self, after: int) -> _Earlier:
        """Some events behind a position that memory does not have any more.

        Raises:
            StoreUnavailableError: the store cannot tell.
        """
        task = self._earlier.get(after)
        if task is None:
            task = self._earlier[after] = asyncio.get_running_loop().create_task(self._read_earlier(after))
            task.add_done_callback(lambda done: self._forget_failed(after, done))
            if len(self._earlier) > EARLIER_PORTIONS:
                del self._earlier[next(iter(self._earlier))]
        return await asyncio.shield(task)

    def _forget_failed(self, after: int, task: asyncio.Task[_Earlier]) -> None:
        if (task.cancelled() or task.exception() is not None) and self._earlier.get(after) is task:
            del self._earlier[after]

    async def forgotten(self) -> int:
        """Up to where events have been forgotten."""
        (stored,) = await self._store.load([STREAMS], pending_limit=0)
        return int(stored.state.get(self._name, b"0"))

    async def _read_earlier(self, after: int) -> _Earlier:
        before = self.after
        query = EventQuery(stream=self._name, after=after, before=before + 1, limit=PORTION)
        answer = await self._store.events(query)
        events, until = answer.events, before if answer.last is None else answer.last
        forgotten = await self.forgotten()  # Asked later, so that nothing of what was read can have been missed.
        size_bytes = 0
        for number, event in enumerate(events, 1):
            size_bytes += len(event.value)
            if size_bytes > PORTION_BYTES:
                events, until = events[:number], event.position
                break
        return _Earlier(events, until, forgotten)

    def portion(self, after: int) -> Sequence[EventRecord]:
        """Some events of those in memory; `after` is a position of which memory has all that comes behind it."""
        known = self._portions.get(after)
        if known is not None:
            return known
        first = bisect_right(self.positions, after)
        events: list[EventRecord] = []
        size_bytes = 0
        for number in range(first, min(first + RECENT_PORTION, len(self.recent))):
            events.append(self.recent[number])
            size_bytes += len(events[-1].value)
            if size_bytes > PORTION_BYTES:
                break
        self._portions[after] = events
        return events

    def wake_soon(self) -> None:
        """Many readers are woken now and then, so that each has something to do for its turn."""
        if len(self.waiting) <= MANY_READERS:
            self.wake()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            due = self._woken_at + len(self.waiting) * WAKE_SECONDS
            self._timer = loop.call_at(max(loop.time(), due), self._wake_late)

    def _wake_late(self) -> None:
        self._timer, self._woken_at = None, asyncio.get_running_loop().time()
        self.wake()

    def wake(self) -> None:
        waiting, self.waiting = self.waiting, set()
        for one in waiting:
            if not one.done():
                one.set_result(None)


class EventFeeds:
    """The streams that somebody reads. It outlives incarnations, since what is durable stays."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._streams: dict[str, _Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def wants(self, stream: str) -> bool:
        """Somebody reads it."""
        return stream in self._streams

    def arrived(self, stream: str) -> None:
        """Events of a stream have become durable."""
        known = self._streams.get(stream)
        if known is None or self._closed:
            return
        known.is_behind = True
        if not known.is_reading:
            known.is_reading = True
            task = asyncio.get_running_loop().create_task(self._read(stream, known))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def reopened(self) -> None:
        """A new incarnation has begun: whether the last one told of all that it made durable is not known."""
        for name, stream in [*self._streams.items()]:
            self.arrived(name)
            stream.wake()  # Who could not read the store tries again.

    def reader(self, stream: str, *, after: int, durable: int) -> EventReader:
        """Events of a stream behind a position; `durable` is where the log of the store is durable now."""
        known = self._streams.get(stream)
        if known is None:
            known = self._streams[stream] = _Stream(self._store, stream, durable)
        known.readers += 1
        return EventReader(known, after, partial(self._leave, stream), lambda: self._closed)

    def close(self) -> None:
        """The runtime stops: readers are told so."""
        self._closed = True
        for stream in self._streams.values():
            stream.wake()
        for task in self._tasks:
            task.cancel()

    def _leave(self, stream: str) -> None:
        known = self._streams[stream]
        known.readers -= 1
        if not known.readers:
            del self._streams[stream]

    async def _read(self, stream: str, known: _Stream) -> None:
        while known.is_behind and not self._closed:
            known.is_behind = False
            try:
                answer = await self._store.events(EventQuery(stream=stream, after=known.last, limit=PORTION))
            except StoreUnavailableError:  # `reopened` comes when it is back.
                break
            if answer.events:
                known.take(answer.events)
                known.wake_soon()
            if answer.last is not None:  # What is damaged is passed over.
                known.last = answer.last
                known.is_behind = True
        known.is_reading = False


class EventReader:
    """One who reads a stream."""

    def __init__(self, known: _Stream, after: int, leave: Callable[[], None], is_closed: Callable[[], bool]) -> None:
        self._known = known
        self._leave = leave
        self._is_closed = is_closed
        self.after = after
        """Events up to here have been given."""
        self.complete_after = after
        """What was given last is complete behind here: later than where it was before, if events were forgotten."""

    async def begin(self) -> None:
        """Go to the oldest event that is kept, if the place of this reader is before that.

        Raises:
            StoreUnavailableError: the store cannot tell.
        """
        self._skip(await self._known.forgotten())

    async def next(self) -> Sequence[EventRecord]:
        """Some further events, at least one; it waits until there is one.

        Raises:
            RuntimeStoppedError: the runtime stops.
        """
        while True:
            if self._is_closed():
                raise RuntimeStoppedError("The runtime stops, and tells of no more events.")
            events = self._at_hand()
            if not events and self.after < self._known.after:
                try:
                    events = await self._catch_up()
                except StoreUnavailableError:
                    await self._wait()
            if events:
                return events
            if self.after >= self._known.last:
                await self._wait()

    def close(self) -> None:
        """It reads no more."""
        self._leave()

    def _at_hand(self) -> Sequence[EventRecord]:
        """What memory has."""
        known = self._known
        if self._is_closed() or self.after < known.after or self.after >= known.last:
            return ()
        events = known.portion(self.after)
        self.after = events[-1].position if events else known.last
        return events

    async def _catch_up(self) -> Sequence[EventRecord]:
        """What memory does not have any more."""
        earlier = await self._known.earlier(self.after)
        if self._skip(earlier.forgotten):
            return ()
        self.after = max(self.after, earlier.until)
        return earlier.events

    def _skip(self, forgotten: int) -> bool:
        if forgotten <= self.after:
            return False
        self.after = self.complete_after = forgotten
        return True

    async def _wait(self) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._known.waiting.add(woken)
        try:
            await woken
        finally:
            self._known.waiting.discard(woken)
