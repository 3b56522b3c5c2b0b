"""`Upkeep`: what an incarnation does by itself. It recovers what can run, and forgets outcomes that need not be kept.

Both go in bounded portions beside the requests from outside, which are served meanwhile through the same loads (rule
T3). Recovery only makes activations; loading one takes up what is in it, so there is no second code path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from durably.actors.definition.binding import BoundActor
from durably.ids import Address
from durably.runtime.activations.activations import Activations
from durably.runtime.clock import Cancellable, Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.incarnation.background import Background
from durably.runtime.observation.logs import RuntimeLogger
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.settings import Settings
from durably.storage.records import InvocationRecord
from durably.storage.store import Store

LAST_MOMENT = (1 << 63) - 1


class RecoveryOwner(Protocol):
    """The incarnation, which may end at any time."""

    dead: bool

    async def until_durable(self) -> None: ...


class Recovery:
    """Recovery and expiry."""

    def __init__(
        self,
        owner: RecoveryOwner,
        *,
        actors: Mapping[str, BoundActor],
        background: Background,
        clock: Clock,
        committer: Committer,
        registry: InvocationRegistry,
        log: RuntimeLogger,
        activations: Activations,
        settings: Settings,
        store: Store,
    ) -> None:
        self._owner = owner
        self._actors = actors
        self._background = background
        self._clock = clock
        self._committer = committer
        self._registry = registry
        self._log = log
        self._activations = activations
        self._settings = settings
        self._store = store
        self._shortest_retention_us = _shortest_retention_us(actors, settings)
        self._expiry_timer: Cancellable | None = None

    def start(self) -> None:
        self._background.spawn(self._recover())
        self._background.spawn(self._expire())

    def kill(self) -> None:
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()

    async def _recover(self) -> None:
        """Activate every object that has something to run, in order of acceptance."""
        after, portion = 0, self._settings.recovery_portion
        while not self._owner.dead:
            found = await self._store.recoverable(after, portion)
            self._activate(found)
            await self._activations.settle()
            if len(found) < portion:
                break
            after = max(number for number, _ in found)
        paused = await self._store.paused(portion)
        if paused:
            self._log.waiting_for_people(len(paused), paused[0])

    def _activate(self, found: list[tuple[int, Address]]) -> None:
        for _, address in found:
            if self._owner.dead:
                return
            if address.service in self._actors:
                self._activations.activation(address)
            else:
                self._log.nobody_home(address)

    async def _expire(self) -> None:
        """Forget outcomes that nobody may come for any more, and look again when there may be others."""
        portion = self._settings.expiry_portion
        while expired := await self._store.expired(self._clock.now(), portion):
            self._forget(expired)
            await self._owner.until_durable()
        self._expire_later(await self._store.expired(LAST_MOMENT, 1))

    def _forget(self, expired: list[InvocationRecord]) -> None:
        for record in expired:
            if not self._owner.dead and record.id not in self._registry.live:
                self._committer.next_position()
                self._committer.batch.remove(record.number)
                self._registry.note_end(record.number)

    def _expire_later(self, next_to_expire: list[InvocationRecord]) -> None:
        """Nothing that ends from now on may be forgotten before the shortest retention is over."""
        if self._owner.dead:
            return
        now = self._clock.now()
        moments = [record.expires_at for record in next_to_expire if record.expires_at is not None]
        wanted = min([*moments, now + self._shortest_retention_us])
        due = max(wanted, now + self._settings.expire_every_us)
        self._expiry_timer = self._clock.call_at(due, self._expire_again)

    def _expire_again(self) -> None:
        if not self._owner.dead:
            self._background.spawn(self._expire())


def _shortest_retention_us(actors: Mapping[str, BoundActor], settings: Settings) -> int:
    own = [handler.retention_us for actor in actors.values() for handler in actor.handlers.values()]
    return min([settings.retention_us, *(retention for retention in own if retention is not None)])
