"""`Retention`: outcomes that no caller may come for any more are forgotten, in bounded portions."""

from __future__ import annotations

from collections.abc import Mapping

from durably.actors.definition.binding import BoundActor
from durably.runtime.clock import Cancellable, Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.incarnation.background import Background
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.settings import Settings
from durably.storage.records import InvocationRecord
from durably.storage.store import Store

LAST_MOMENT = (1 << 63) - 1


class Retention:
    """Looks when there may be something to forget, and not more often than settings allow."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        actors: Mapping[str, BoundActor],
        background: Background,
        clock: Clock,
        committer: Committer,
        registry: InvocationRegistry,
        settings: Settings,
        store: Store,
    ) -> None:
        self._incarnation = incarnation
        self._background = background
        self._clock = clock
        self._committer = committer
        self._registry = registry
        self._settings = settings
        self._store = store
        self._shortest_retention_us = _shortest_retention_us(actors, settings)
        self._timer: Cancellable | None = None

    def start(self) -> None:
        self._background.spawn(self._expire())

    def kill(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def _expire(self) -> None:
        """Forget what has expired, and look again when there may be more."""
        while await self._forget_portion():
            await self._committer.until_durable()
        self._expire_later(await self._store.expired(LAST_MOMENT, 1))

    async def _forget_portion(self) -> bool:
        """Whether there was anything to forget."""
        read = self._registry.read_begins()
        expired = await self._store.expired(self._clock.now(), self._settings.expiry_portion)
        self._forget(expired)
        self._registry.read_ended(read)
        return bool(expired)

    def _forget(self, expired: list[InvocationRecord]) -> None:
        for record in expired:
            if not self._incarnation.dead and record.id not in self._registry.live:
                self._registry.expire(record.number)

    def _expire_later(self, next_to_expire: list[InvocationRecord]) -> None:
        """Nothing that ends from now on may be forgotten before the shortest retention is over."""
        if self._incarnation.dead:
            return
        now = self._clock.now()
        moments = [record.expires_at for record in next_to_expire if record.expires_at is not None]
        wanted = min([*moments, now + self._shortest_retention_us])
        due = max(wanted, now + self._settings.expire_every_us)
        self._timer = self._clock.call_at(due, self._expire_again)

    def _expire_again(self) -> None:
        if not self._incarnation.dead:
            self._background.spawn(self._expire())


def _shortest_retention_us(actors: Mapping[str, BoundActor], settings: Settings) -> int:
    own = [handler.retention_us for actor in actors.values() for handler in actor.handlers.values()]
    return min([settings.retention_us, *(retention for retention in own if retention is not None)])
