"""`EventRetention`: events are forgotten when they are old enough and every subscription is past them.

So are the transitions of a machine that says how long its history is kept (rule P5). A subscription that is paused, far
behind, or of a class that the code has no longer keeps what it has not been given (rule P4). So the store may hold more
than the retention says; at the byte limit those outside publish no more. What handlers publish is always accepted, as
their messages are (rule C8).
"""

from __future__ import annotations

from collections.abc import Mapping

from durably.actors.event_values import PUBLISHED_STREAM
from durably.actors.values.durations import FOREVER_US
from durably.errors import OverloadedError
from durably.runtime.clock import Cancellable, Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.incarnation.background import Background
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.lifecycle.subscriptions import Subscriptions
from durably.runtime.messaging.events import Events
from durably.runtime.settings import Settings
from durably.storage.records import EventQuery, EventRecord
from durably.storage.store import Store

FULL_RETRY_SECONDS = 60.0
AT_ONCE = 0
NOT_DUE = 1 << 63


class EventRetention:
    """Looks when an event grows too old, and not more often than settings allow."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        background: Background,
        clock: Clock,
        committer: Committer,
        events: Events,
        has_events: bool,
        histories: Mapping[str, int],
        ready: ReadyQueue,
        settings: Settings,
        store: Store,
        subscriptions: Subscriptions,
    ) -> None:
        """`has_events`: the store has some of users' streams. `histories`: how long transitions are kept, by the stream
        of their machine (rule P5); those of others stay for ever.
        """
        self._incarnation = incarnation
        self._background = background
        self._clock = clock
        self._committer = committer
        self._has_events = has_events
        self._histories = histories
        self._ready = ready
        self._settings = settings
        self._store = store
        self._subscriptions = subscriptions
        self._bytes: dict[str, int] = {}
        """About what the events of each stream of users' events take up."""
        self._held: set[str] = set()
        """Streams whose oldest event is too old, and kept for a subscription."""
        self._timer: Cancellable | None = None
        self._due: dict[str, int] = dict.fromkeys(histories, AT_ONCE)
        """When something of each stream may go, as far as is known; while it looks, of what has come since it began."""
        self._is_looking = False
        self._last_look: int | None = None
        """By the clock that never goes back."""
        events.on_kept = self._note
        subscriptions.on_moved = self._has_moved

    def start(self) -> None:
        if self._has_events or self._histories:
            self._is_looking = True
            self._background.spawn(self._begin())

    def kill(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def check_room(self) -> None:
        """
        Raises:
            OverloadedError: no more may be published from outside.
        """
        held = sum(self._bytes.values())
        if held >= self._settings.event_limit_bytes:
            raise OverloadedError(
                f"The store holds {held} bytes of published events; its limit is {self._settings.event_limit_bytes} "
                "(PubSub(limit_bytes=...)). Events go when they are older than the retention and every subscription is "
                "past them: see whether one is paused or far behind. Nothing was published.",
                retry_after=FULL_RETRY_SECONDS,
            )

    def _note(self, stream: str, size_bytes: int) -> None:
        """An event is in the log."""
        if PUBLISHED_STREAM in stream:
            self._bytes[stream] = self._bytes.get(stream, 0) + size_bytes
        elif stream not in self._histories:
            return  # They stay for ever.
        if stream not in self._due and stream not in self._held:
            self._look_by(stream, self._clock.now() + self._kept_us(stream))

    def _kept_us(self, stream: str) -> int:
        """How long the events of a stream are kept."""
        if PUBLISHED_STREAM in stream:
            return self._settings.event_retention_us
        return self._histories.get(stream, FOREVER_US)

    def _has_moved(self, stream: str) -> None:
        """A subscription of a stream is past further events."""
        if stream in self._held:
            self._held.discard(stream)
            self._look_by(stream, AT_ONCE)

    def _look_by(self, stream: str, moment: int) -> None:
        """Something of a stream may go then."""
        if self._kept_us(stream) < FOREVER_US and moment < self._due.get(stream, NOT_DUE):
            is_next = moment < min(self._due.values(), default=NOT_DUE)
            self._due[stream] = moment
            if is_next and not self._is_looking:
                self._set_timer(moment)

    def _set_timer(self, moment: int) -> None:
        if self._incarnation.dead:
            return
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0, moment - self._clock.now())
        if self._last_look is not None:
            delay = max(delay, self._last_look + self._settings.expire_every_us - self._clock.monotonic())
        self._timer = self._clock.call_later(delay, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._incarnation.dead and not self._incarnation.stopping:
            self._is_looking = True
            self._background.spawn(self._forget_all())

    async def _begin(self) -> None:
        if self._has_events:
            for stream, size_bytes in await self._store.event_sizes():
                if PUBLISHED_STREAM in stream:
                    self._bytes[stream] = self._bytes.get(stream, 0) + size_bytes
                    self._look_by(stream, AT_ONCE)
        await self._forget_all()

    async def _forget_all(self) -> None:
        self._last_look, now = self._clock.monotonic(), self._clock.now()
        for stream in [stream for stream, due in self._due.items() if due <= now]:
            del self._due[stream]
            await self._forget(stream)
        self._is_looking = False
        if self._due:
            self._set_timer(min(self._due.values()))

    async def _forget(self, stream: str) -> None:
        """Forget what may go of a stream, and note when the next one grows too old."""
        kept_us = self._kept_us(stream)
        while not self._incarnation.dead and not self._incarnation.stopping:
            counted = self._bytes.get(stream, 0)
            await self._committer.until_durable()  # What has been forgotten is not read again.
            query = EventQuery(stream=stream, limit=self._settings.expiry_portion)
            answer = await self._store.events(query)
            events = sorted([*answer.events, *(one.record for one in answer.damaged)], key=lambda one: one.position)
            if not events:
                self._uncount(stream, counted)  # The rest was published while the store was read.
                return
            oldest, floor = self._clock.now() - kept_us, self._subscriptions.floor(stream)
            leaving = [one for one in events if one.at <= oldest and one.position <= floor]
            self._drop(stream, leaving)
            if len(leaving) < len(events):
                kept = next(one for one in events if one.at > oldest or one.position > floor)
                if kept.at > oldest:
                    self._look_by(stream, kept.at + kept_us)
                else:
                    self._held.add(stream)
                return

    def _uncount(self, stream: str, size_bytes: int) -> None:
        left = self._bytes.pop(stream, 0) - size_bytes
        if left > 0:
            self._bytes[stream] = left

    def _drop(self, stream: str, leaving: list[EventRecord]) -> None:
        if leaving:
            transition = self._committer.begin()
            for one in leaving:
                transition.forget_event(one.position)
            transition.forgets_until(stream, leaving[-1].position)
            self._uncount(stream, sum(len(one.value) for one in leaving))
            self._ready.schedule()
