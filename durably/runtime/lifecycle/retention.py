"""`Retention`: what need not be kept any longer is forgotten, in bounded portions: outcomes, journals, what workflows
leave, and the state of objects whose `ttl` is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from durably.ids import Address
from durably.runtime.clock import Cancellable, Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.incarnation.background import Background
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.lifecycle.ended_journals import EndedJournals
from durably.runtime.lifecycle.object_deletion import ObjectDeletion, ObjectExpiry
from durably.runtime.lifecycle.workflow_retention import WorkflowRetention
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.settings import Settings
from durably.storage.records import EVER, LEAVING, InvocationRecord
from durably.storage.store import Store

R = TypeVar("R")

LAST_MOMENT = (1 << 63) - 1
LONGEST_REST_US = 86_400_000_000
"""However much later something expires: the wall clock may be set."""


class Retention:
    """Looks when there is something to forget, and not more often than settings allow."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        background: Background,
        clock: Clock,
        committer: Committer,
        ended_journals: EndedJournals,
        object_deletion: ObjectDeletion,
        object_expiry: ObjectExpiry,
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
        self._ended_journals = ended_journals
        self._object_deletion = object_deletion
        self._object_expiry = object_expiry
        self._ready = ready
        self._registry = registry
        self._settings = settings
        self._store = store
        self._workflows = workflows
        self._host = asyncio.get_running_loop()
        self._timer: Cancellable | None = None
        self._next_look: int = EVER
        """When it looks again; `EVER` while it looks."""
        self._last_look = EVER
        self._noted = LAST_MOMENT
        """The first moment that has been announced since it began to look."""
        committer.on_expiry = self._note

    def start(self) -> None:
        self._background.spawn(self._expire())

    def kill(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _note(self, expires_at: int) -> None:
        """Something expires then that is in the open batch."""
        if expires_at < self._noted:
            self._noted = expires_at
            if expires_at < self._next_look:
                self._look_at(expires_at)

    async def _expire(self) -> None:
        """Forget what has expired, and look again when there is more."""
        self._next_look, self._noted, self._last_look = EVER, LAST_MOMENT, self._clock.now()
        await self._committer.until_durable()
        while await self._forget_some():
            await self._committer.until_durable()
        outcomes = await self._store.expired(LAST_MOMENT, 1)
        promises = await self._store.expired_promises(LAST_MOMENT, 1)
        journals = await self._store.expired_journals(LAST_MOMENT, 1)
        left_alone = self._object_deletion.left_alone
        objects = await self._store.expired_objects(LAST_MOMENT, 1 + len(left_alone))
        moments = [record.expires_at for record in outcomes if record.expires_at is not None]
        moments += [kept.expires_at for kept in journals]
        moments += [moment for moment, _ in promises]
        moments += [moment for moment, address in objects if address not in left_alone]
        self._look_at(min([*moments, self._noted, self._clock.now() + LONGEST_REST_US]))

    async def _forget_some(self) -> bool:
        """Whether there was anything to forget. A row goes when its journal has, so both are asked for one moment."""
        now = self._clock.now()
        return (
            await self._forget_journals(now)
            or await self._forget_portion(now)
            or await self._forget_promises()
            or await self._delete_objects()
        )

    async def _forget_journals(self, now: int) -> bool:
        """They go before their rows, so what a batch has to remove is bounded in steps, too."""
        read = self._registry.read_begins()
        expired = await self._store.expired_journals(now, self._settings.expiry_portion)
        if expired and (expired[0].steps > self._settings.expiry_portion_steps or expired[0].expires_at == LEAVING):
            await self._ended_journals.shrink(expired[0].number)
        steps = 0  # Rule X10
        for kept in expired:
            if self._incarnation.dead or (steps and steps + kept.steps > self._settings.expiry_portion_steps):
                break
            steps += kept.steps
            self._ended_journals.forget(kept.number)
        self._registry.read_ended(read)
        self._ready.schedule()
        return bool(expired)

    async def _forget_portion(self, now: int) -> bool:
        """Whether there was anything to forget."""
        read = self._registry.read_begins()
        expired = await self._store.expired(now, self._settings.expiry_portion)
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

    async def _delete_objects(self) -> bool:
        """The same of the state of objects whose `ttl` is over."""
        if not await self._expired_objects():
            return False
        self._object_expiry.read_begins()
        await self._committer.until_durable()
        expired = await self._expired_objects()
        await self._all(self._object_deletion.expire, expired)
        self._object_expiry.read_ended()
        self._ready.schedule()
        return bool(expired)

    async def _expired_objects(self) -> list[Address]:
        left_alone, portion = self._object_deletion.left_alone, self._settings.expiry_portion
        found = await self._store.expired_objects(self._clock.now(), portion + len(left_alone))
        return [address for _, address in found if address not in left_alone][:portion]

    async def _all(self, expire: Callable[[R, Callable[[], None]], None], what: Sequence[R]) -> None:
        """Expire each, and wait until that has been decided."""
        if not what or self._incarnation.dead:
            return
        left, decided = len(what), self._host.create_future()

        def one_decided() -> None:
            nonlocal left
            left -= 1
            self._ready.schedule()
            if not left and not decided.done():
                decided.set_result(None)

        for one in what:
            expire(one, one_decided)
        self._ready.schedule()  # Some may wait for a load, which waits until what others have begun is durable.
        await decided

    def _look_at(self, moment: int) -> None:
        """Look then, but not more often than settings allow."""
        if self._incarnation.dead:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._next_look = max(moment, self._last_look + self._settings.expire_every_us)
        self._timer = self._clock.call_at(self._next_look, self._expire_again)

    def _expire_again(self) -> None:
        if not self._incarnation.dead:
            self._background.spawn(self._expire())
