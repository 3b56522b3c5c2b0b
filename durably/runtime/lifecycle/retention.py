"""`Retention`: what no caller may come for any more is forgotten, in bounded portions: outcomes, and what workflows
leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from durably.actors.definition.binding import BoundActor
from durably.runtime.clock import Cancellable, Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.incarnation.background import Background
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.lifecycle.workflow_retention import WorkflowRetention
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.settings import Settings
from durably.storage.records import InvocationRecord
from durably.storage.store import Store

R = TypeVar("R")

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
        ready: ReadyQueue,
        registry: InvocationRegistry,
        settings: Settings,
        store: Store,
        workflows: WorkflowRetention,
    ) -> None:
        self._incarnation = incarnation
        self._background = background
        self._clock = clock
        self._committer = committer
        self._ready = ready
        self._registry = registry
        self._settings = settings
        self._store = store
        self._workflows = workflows
        self._host = asyncio.get_running_loop()
        self._shortest_retention_us = _shortest_retention_us(actors, settings)
        self._timer: Cancellable | None = None

    def start(self) -> None:
        self._background.spawn(self._expire())

    def kill(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def _expire(self) -> None:
        """Forget what has expired, and look again when there may be more."""
        while await self._forget_portion() or await self._forget_promises():
            await self._committer.until_durable()
        outcomes = await self._store.expired(LAST_MOMENT, 1)
        promises = await self._store.expired_promises(LAST_MOMENT, 1)
        moments = [record.expires_at for record in outcomes if record.expires_at is not None]
        self._expire_later([*moments, *(moment for moment, _ in promises)])

    async def _forget_portion(self) -> bool:
        """Whether there was anything to forget."""
        read = self._registry.read_begins()
        expired = await self._store.expired(self._clock.now(), self._settings.expiry_portion)
        await self._forget(expired)
        self._registry.read_ended(read)
        return bool(expired)

    async def _forget(self, expired: list[InvocationRecord]) -> None:
        workflows: list[InvocationRecord] = []
        for record in expired:
            if self._incarnation.dead or record.id in self._registry.live:
                continue
            if record.scope is not None and record.scope.is_workflow_id:
                workflows.append(record)
            else:
                self._registry.expire(record.number)
        self._ready.schedule()  # Loads wait until what has expired so far is durable.
        await self._all(self._workflows.expire, workflows)

    async def _forget_promises(self) -> bool:
        """The same of promises of workflows whose `run` was never started."""
        left_alone, portion = self._workflows.left_alone, self._settings.expiry_portion
        found = await self._store.expired_promises(self._clock.now(), portion + len(left_alone))
        expired = [address for _, address in found if address not in left_alone][:portion]
        await self._all(self._workflows.expire_promises, expired)
        return bool(expired)

    async def _all(self, expire: Callable[[R, Callable[[], None]], None], what: Sequence[R]) -> None:
        """Expire each, and wait until that has been decided."""
        if not what or self._incarnation.dead:
            return
        left, decided = len(what), self._host.create_future()

        def one_decided() -> None:
            nonlocal left
            left -= 1
            if not left and not decided.done():
                decided.set_result(None)

        for one in what:
            expire(one, one_decided)
        await decided

    def _expire_later(self, moments: list[int]) -> None:
        """Nothing that ends from now on may be forgotten before the shortest retention is over."""
        if self._incarnation.dead:
            return
        now = self._clock.now()
        wanted = min([*moments, now + self._shortest_retention_us])
        due = max(wanted, now + self._settings.expire_every_us)
        self._timer = self._clock.call_at(due, self._expire_again)

    def _expire_again(self) -> None:
        if not self._incarnation.dead:
            self._background.spawn(self._expire())


def _shortest_retention_us(actors: Mapping[str, BoundActor], settings: Settings) -> int:
    own = [handler.retention_us for actor in actors.values() for handler in actor.handlers.values()]
    return min([settings.retention_us, *(retention for retention in own if retention is not None)])
