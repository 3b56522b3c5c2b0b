"""`ScheduledMessages`: accepted messages that are not in their mailbox yet.

Those due soon are in memory; the others are in the store only, and are fetched when their time comes (rule T2). Whoever
attaches to one that is on its way waits on its entry here, so that no answer is lost between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from durably.runtime.commit.committer import Committer
from durably.runtime.incarnation.idleness import Idleness
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.registry.batched_lookup import BatchedLookup
from durably.runtime.registry.reads import Reads
from durably.storage.records import CallerRecord, SignalRecord, StoredInvocation


class CameMeanwhile:
    """What came for a message while it was on its way from the store."""

    __slots__ = ("attachments", "signals")

    def __init__(self) -> None:
        self.attachments: list[CallerRecord] = []
        self.signals: list[SignalRecord] = []


Coming: TypeAlias = Callable[[StoredInvocation | None, CameMeanwhile], None]
"""Hears the rows of a message, if it is there still, and what came for it meanwhile."""


class ScheduledMessages:
    """The messages of one incarnation whose time is still to come."""

    def __init__(
        self, incarnation: Incarnation, *, committer: Committer, idleness: Idleness, reads: Reads, ready: ReadyQueue
    ) -> None:
        self._soon: dict[int, InvocationRun] = {}
        self._coming: dict[int, CameMeanwhile] = {}
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

    def keeps(self, number: int) -> bool:
        """It is in memory."""
        return number in self._soon

    def take(self, number: int) -> InvocationRun | None:
        """Take one out that is in memory."""
        return self._soon.pop(number, None)

    def bring(self, number: int, then: Coming) -> None:
        """Fetch one whose time has come from the store.

        Its timer may ring twice, if it was read ahead while it rang: what is on its way comes once.
        """
        if number in self._coming:
            return
        self._coming[number] = CameMeanwhile()
        self._fetch(number, partial(self._brought, number, then))

    def look_at(self, number: int, then: Callable[[StoredInvocation | None], None]) -> None:
        """Ask the store for one that stays there for now."""
        self._fetch(number, then)

    def attach(self, number: int, caller: CallerRecord) -> bool:
        """If it is on its way, let `caller` come with it."""
        coming = self._coming.get(number)
        if coming is None:
            return False
        coming.attachments.append(caller)
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

    def _brought(self, number: int, then: Coming, stored: StoredInvocation | None) -> None:
        then(stored, self._coming.pop(number, CameMeanwhile()))
