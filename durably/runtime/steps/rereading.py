"""`Rereading`: what a journal's steps have read of collections is read again before they are replayed (rule V7).

The answers to an exclusive handler's reads are no records: its invocation holds the object, so the snapshot that they
were read from is still there.
"""

from __future__ import annotations

from functools import partial

from durably.ids import InvocationStatus
from durably.runtime.commands.entry_commands import read_still
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.invocations.journal import Journal
from durably.runtime.invocations.load_errors import unreadable_entry
from durably.runtime.lifecycle.pauses import Pauses
from durably.runtime.registry.entry_reads import EntryReads
from durably.runtime.registry.registry import InvocationRegistry
from durably.storage.records import EntryAnswer


class Rereading:
    """Of the journals of one incarnation."""

    def __init__(self, *, pauses: Pauses, reads: EntryReads, ready: ReadyQueue, registry: InvocationRegistry) -> None:
        self._pauses = pauses
        self._reads = reads
        self._ready = ready
        self._registry = registry

    def begin(self, invocation: InvocationRun, journal: Journal) -> None:
        """Read again all that is missing, then let the invocation be advanced."""
        assert journal.unread
        invocation.is_preparing = True
        for number, command in [*journal.unread.items()]:
            read_still(self._reads, invocation.activation, command, partial(self._found, invocation, journal, number))

    def _found(self, invocation: InvocationRun, journal: Journal, number: int, found: bytes | EntryAnswer) -> None:
        is_wanted = invocation.journal is journal and journal.unread and number in journal.unread
        if not is_wanted or self._registry.live.get(invocation.id) is not invocation or invocation.outcome is not None:
            return
        if isinstance(found, EntryAnswer):
            if invocation.is_preparing:
                invocation.is_preparing = False
                if invocation.status is not InvocationStatus.PAUSED and found.unreadable is not None:
                    self._pauses.pause(invocation, unreadable_entry(invocation.address, found.unreadable))
            return
        journal.read_again(number, found)
        if not journal.unread and invocation.is_preparing:
            invocation.is_preparing = False
            self._ready.push(invocation)
