"""`ScheduledMessages`: accepted messages that are not in their mailbox yet.

Those due soon are in memory; the others are in the store only, and are fetched when their time comes (rule T2). A
caller that attaches to one on its way waits on its entry here, so that no answer is lost between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from msgspec import structs

from durably.runtime.commit.committer import Committer
from durably.runtime.incarnation.idleness import Idleness
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.registry.batched_lookup import BatchedLookup
from durably.runtime.registry.reads import Reads
from durably.runtime.registry.registry import InvocationRegistry
from durably.storage.records import CallerRecord, SignalRecord, StoredInvocation

Coming: TypeAlias = Callable[[StoredInvocation | None, list[CallerRecord], bool], bool]
"""Hears the rows of a message, if there are any, who attached to it while it was on its way, and whether it is where it
was: somebody else who waited for it may have started or ended it. Returns whether it has done so itself.
"""


class _OnItsWay:
    """A message that the store has been asked for."""

    __slots__ = ("attached", "callbacks", "signals")

    def __init__(self) -> None:
        self.attached: list[CallerRecord] = []
        self.callbacks: list[Coming] = []
        self.signals: list[SignalRecord] = []
        """What has come for it meanwhile."""


class ScheduledMessages:
    """The messages of one incarnation whose time is still to come."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        committer: Committer,
        idleness: Idleness,
        reads: Reads,
        ready: ReadyQueue,
        registry: InvocationRegistry,
    ) -> None:
        self._registry = registry
        self._soon: dict[int, InvocationRun] = {}
        self._coming: dict[int, _OnItsWay] = {}
        self._fetch: BatchedLookup[int, StoredInvocation | None] = BatchedLookup(
            incarnation, ready, reads.fetch, durable=lambda: committer.durable, gate=committer.when_durable
        )
        idleness.add(self._is_idle)

    def keep(self, invocation: InvocationRun) -> None:
        """It is due soon."""
        self._soon[invocation.number] = invocation

    def is_coming(self, number: int) -> bool:
        """It is on its way from the store, because its time has come."""
        return number in self._coming

    def kept(self, number: int) -> InvocationRun | None:
        """The one of this number, if it is in memory."""
        return self._soon.get(number)

    def take(self, number: int) -> InvocationRun | None:
        """Take one out that is in memory."""
        return self._soon.pop(number, None)

    def bring(self, number: int, then: Coming) -> None:
        """Fetch one from the store that is about to start or to end. What is on its way comes once, for all who ask."""
        coming = self._coming.get(number)
        if coming is None:
            coming = self._coming[number] = _OnItsWay()
            self._fetch(number, partial(self._brought, number, self._registry.read_begins()))
        coming.callbacks.append(then)

    def look_at(self, number: int, then: Callable[[StoredInvocation | None], None]) -> None:
        """Ask the store for one that stays there for now."""
        self._fetch(number, then)

    def attach(self, number: int, caller: CallerRecord) -> bool:
        """If it is on its way, let `caller` come with it."""
        coming = self._coming.get(number)
        if coming is None:
            return False
        coming.attached.append(caller)
        return True

    def signal(self, signal: SignalRecord) -> bool:
        """If its message is on its way, let it come too."""
        coming = self._coming.get(signal.number)
        if coming is None:
            return False
        coming.signals.append(signal)
        return True

    def kill(self) -> None:
        self._fetch.kill()

    async def finish(self) -> None:
        """After `kill`: wait until the store is not asked any more."""
        await self._fetch.finish()

    def _is_idle(self) -> bool:
        return not self._fetch.outstanding

    def _brought(self, number: int, read: int, stored: StoredInvocation | None) -> None:
        coming = self._coming.pop(number)
        if self._registry.has_ended(number):  # What was read does not know that yet.
            stored = None
        self._registry.read_ended(read)
        if stored is not None and coming.signals:
            later = [signal for signal in coming.signals if signal not in stored.signals]
            stored = structs.replace(stored, signals=[*stored.signals, *later])
        is_there = True
        for then in coming.callbacks:
            if then(stored, coming.attached, is_there):
                is_there = False
