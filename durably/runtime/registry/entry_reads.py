"""`EntryReads`: reads of entries of collections, for handlers (rule V7).

Those that are asked for in one tick are one question. What is part of the object's snapshot and not in the store yet
(`recent`) is for those who ask to lay over the answer, or to wait for.
"""

from __future__ import annotations

from collections.abc import Callable

from durably.actors.protocol.entries import FieldChanges
from durably.runtime.commit.committer import Committer
from durably.runtime.incarnation.idleness import Idleness
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.activation import Activation
from durably.runtime.registry.batched_lookup import BatchedLookup
from durably.runtime.registry.reads import EntryQuestion, Reads
from durably.storage.records import EntryAnswer, EntryQuery


class EntryReads:
    """The reads of one incarnation."""

    def __init__(
        self, incarnation: Incarnation, *, committer: Committer, idleness: Idleness, reads: Reads, ready: ReadyQueue
    ) -> None:
        self._committer = committer
        self._lookup: BatchedLookup[EntryQuestion, EntryAnswer] = BatchedLookup(
            incarnation, ready, reads.entries, durable=lambda: committer.durable
        )
        idleness.add(lambda: not self._lookup.outstanding)

    def recent(self, activation: Activation, field: str) -> FieldChanges:
        """What the store may not have yet of the entries of a field."""
        recent = activation.recent_entries
        return FieldChanges() if recent is None else recent.of(field, self._committer.durable)

    def ask(self, activation: Activation, query: EntryQuery, then: Callable[[EntryAnswer], None]) -> None:
        """`then` hears the answer of the store, which may not have what is `recent` now."""
        self._ask((activation, query, then))

    def ask_when_durable(self, activation: Activation, query: EntryQuery, then: Callable[[EntryAnswer], None]) -> None:
        """The same, once the store has all that is part of the snapshot now."""
        if activation.entries_changed_at <= self._committer.durable:
            self._ask((activation, query, then))
        else:
            self._committer.when_durable(self._ask, (activation, query, then))

    def kill(self) -> None:
        self._lookup.kill()

    async def finish(self) -> None:
        """After `kill`: wait until the store is not asked any more."""
        await self._lookup.finish()

    def _ask(self, asked: tuple[Activation, EntryQuery, Callable[[EntryAnswer], None]]) -> None:
        activation, query, then = asked
        self._lookup(EntryQuestion(query, activation.entries_changed_at, self._committer.durable), then)
