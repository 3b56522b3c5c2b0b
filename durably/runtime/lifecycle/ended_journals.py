"""`EndedJournals`: the journals of invocations that have ended, as far as they are kept; they are in the store only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from durably.runtime.commit.committer import Committer
from durably.runtime.incarnation.background import Background
from durably.runtime.incarnation.idleness import Idleness
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.registry.batched_lookup import BatchedLookup
from durably.runtime.registry.reads import Reads
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.settings import Settings
from durably.storage.records import StoredInvocation

WhenRead: TypeAlias = Callable[[StoredInvocation | None], None]
"""Hears the rows of one that has ended; None: it is there no longer."""


class EndedJournals:
    """Reads and forgets them, in one incarnation."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        background: Background,
        committer: Committer,
        idleness: Idleness,
        reads: Reads,
        ready: ReadyQueue,
        registry: InvocationRegistry,
        settings: Settings,
    ) -> None:
        self._incarnation = incarnation
        self._background = background
        self._portion = settings.expiry_portion_steps
        self._reads = reads
        self._ready = ready
        self._committer = committer
        self._registry = registry
        self._fetch: BatchedLookup[int, StoredInvocation | None] = BatchedLookup(
            incarnation, ready, reads.fetch_ended, durable=lambda: committer.durable, gate=committer.when_durable
        )
        idleness.add(self._is_idle)

    def read(self, number: int, then: WhenRead) -> None:
        """What is kept of an invocation that has ended. The log is durable up to here before the store is asked."""
        self._fetch(number, partial(self._was_read, number, self._registry.read_begins(), then))

    def forget(self, number: int) -> None:
        """A journal is wanted no longer. This is a transition; for one whose row has gone it is none."""
        if not self._registry.has_left(number):
            self._committer.begin().forget_journal(number)

    async def shrink(self, number: int) -> None:
        """Remove a journal a portion at a time, until what is left fits into one transition: others go on in between.

        From the first portion on no one reads it any more, also after a crash.
        """
        await self._committer.until_durable()
        size = await self._reads.journal_size(number)
        while max(size) > self._portion and not self._incarnation.dead and not self._registry.has_left(number):
            self._committer.begin().trim_journal(number, size.steps, self._portion)
            self._ready.schedule()
            await self._committer.until_durable()
            size = await self._reads.journal_size(number)

    def when_short(self, number: int, then: Callable[[], None]) -> None:
        """`then` is called when a journal, which is wanted no longer, is so short that it can go in one transition."""
        self._background.spawn(self._shrink(number, then))

    async def _shrink(self, number: int, then: Callable[[], None]) -> None:
        await self.shrink(number)
        if not self._incarnation.dead:
            then()
            self._ready.schedule()

    def kill(self) -> None:
        self._fetch.kill()

    async def finish(self) -> None:
        """After `kill`: wait until the store is not asked any more."""
        await self._fetch.finish()

    def _was_read(self, number: int, read: int, then: WhenRead, stored: StoredInvocation | None) -> None:
        if self._registry.has_left(number):
            stored = None
        self._registry.read_ended(read)
        then(stored)

    def _is_idle(self) -> bool:
        return not self._fetch.outstanding
