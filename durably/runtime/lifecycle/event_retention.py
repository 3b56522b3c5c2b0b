"""`EventRetention`: published events are forgotten when they are old enough and every subscription is past them.

A subscription that is paused, far behind, or of a class that the code has no longer keeps what it has not been given
(rule P4). So the store may hold more than the retention says; at the byte limit those outside publish no more. What
handlers publish is always accepted, as their messages are (rule C8).
"""

from __future__ import annotations

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
        ready: ReadyQueue,
        settings: Settings,
        store: Store,
        subscriptions: Subscriptions,
    ) -> None:
        """`has_events`: the store has some."""
        self._incarnation = incarnation
        self._background = background
        self._clock = clock
        self._committer = committer
        self._has_events = has_events
        self._ready = ready
        self._settings = settings
        self._store = store
        self._subscriptions = subscriptions
        self._bytes: dict[str, int] = {}
        """About what the events of each stream of users' events take up."""
        self._held: set[str] = set()
        """Streams whose oldest event is too old, and kept for a subscription."""
        self._timer: Cancellable | None = None
        self._due = NOT_DUE
        """When something may go, as far as is known; while it looks, of what has come since it began."""
        self._is_looking = False
        self._last_look: int | None = None
        events.on_kept = self._note
        subscriptions.on_moved = self._has_moved

    def start(self) -> None:
        if self._has_events:
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
        if PUBLISHED_STREAM not in stream:
            return
        self._bytes[stream] = self._bytes.get(stream, 0) + size_bytes
        if self._due == NOT_DUE:
            self._look_by(self._clock.now() + self._settings.event_retention_us)

    def _has_moved(self, stream: str) -> None:
        """A subscription of a stream is past further events."""
        if stream in self._held:
            self._held.discard(stream)
            self._look_by(self._clock.now())

    def _look_by(self, moment: int) -> None:
        """Something may go then."""
        if moment < self._due:
            self._due = moment
            if not self._is_looking:
                self._set_timer(moment)

    def _set_timer(self, moment: int) -> None:
        if self._settings.event_retention_us >= FOREVER_US or self._incarnation.dead:
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._last_look is not None:
            moment = max(moment, self._last_look + self._settings.expire_every_us)
        self._timer = self._clock.call_later(max(0, moment - self._clock.now()), self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._incarnation.dead and not self._incarnation.stopping:
            self._is_looking = True
            self._background.spawn(self._forget_all())

    async def _begin(self) -> None:
        for stream, size_bytes in await self._store.event_sizes():
            if PUBLISHED_STREAM in stream:
                self._bytes[stream] = self._bytes.get(stream, 0) + size_bytes
        await self._forget_all()

    async def _forget_all(self) -> None:
        self._last_look, self._due = self._clock.now(), NOT_DUE
        for stream in [*self._bytes]:
            await self._forget(stream)
        self._is_looking = False
        if self._due != NOT_DUE:
            self._set_timer(self._due)

    async def _forget(self, stream: str) -> None:
        """Forget what may go of a stream, and note when the next one grows too old."""
        while not self._incarnation.dead and not self._incarnation.stopping:
            counted = self._bytes[stream]
            await self._committer.until_durable()  # What has been forgotten is not read again.
            query = EventQuery(stream=stream, limit=self._settings.expiry_portion)
            answer = await self._store.events(query)
            events = sorted([*answer.events, *(one.record for one in answer.damaged)], key=lambda one: one.position)
            if not events:
                self._bytes[stream] -= counted  # The rest was published while the store was read.
                if not self._bytes[stream]:
                    del self._bytes[stream]
                return
            oldest, floor = self._clock.now() - self._settings.event_retention_us, self._subscriptions.floor(stream)
            leaving = [one for one in events if one.at <= oldest and one.position <= floor]
            self._drop(stream, leaving)
            if len(leaving) < len(events):
                kept = next(one for one in events if one.at > oldest or one.position > floor)
                if kept.at > oldest:
                    self._look_by(kept.at + self._settings.event_retention_us)
                else:
                    self._held.add(stream)
                return

    def _drop(self, stream: str, leaving: list[EventRecord]) -> None:
        if leaving:
            transition = self._committer.begin()
            for one in leaving:
                transition.forget_event(one.position)
            transition.forgets_until(stream, leaving[-1].position)
            self._bytes[stream] = max(0, self._bytes[stream] - sum(len(one.value) for one in leaving))
            self._ready.schedule()
