"""`Directory`: which invocations there are, by id and by idempotency key, in memory or in the store (rule L3).

What is in memory is always found in memory, synchronously; only what is durable may leave. An answer of the store and
the decision that depends on it are one callback, and an answer that became old while it was on its way is asked for
again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol, TypeAlias

from durably.ids import KeyScope
from durably.runtime.committer import Committer
from durably.runtime.invocation import Invocation
from durably.runtime.journal import Outcome
from durably.runtime.lookups import Lookup, LookupOwner
from durably.runtime.reads import Reads
from durably.storage.records import InvocationRecord

Found: TypeAlias = Callable[["Invocation | None", "InvocationRecord | None"], None]
"""Hears what was found: the invocation in memory, or else its row, or neither."""


class Waiter(Protocol):
    """Somebody outside who waits for an outcome."""

    def answer(self, outcome: Outcome, expires_at: int | None, /) -> None: ...
    def refuse(self, error: BaseException, /) -> None: ...
    def done(self) -> bool: ...


class Directory:
    """All look-ups of one incarnation."""

    def __init__(self, owner: LookupOwner, reads: Reads, committer: Committer) -> None:
        self.live: dict[str, Invocation] = {}
        """In memory by id: unfinished ones, and finished ones that are not durable yet."""
        self.keyed: dict[KeyScope, Invocation] = {}
        """The same by idempotency key."""
        self.waiters: dict[int, list[Waiter]] = {}
        """Who waits outside, by invocation number; kept while the invocation itself is in the store only."""
        self._owner = owner
        self._host = asyncio.get_running_loop()
        self._when_durable = committer.when_durable
        self._suspended_senders: set[str] = set()
        """Unfinished ones in the store only that have sent messages, and may ask for their outcomes (rule X7)."""
        self._pinned: Counter[KeyScope] = Counter()
        self._ended_meanwhile: set[int] = set()
        self._dead = False
        self._by_id: Lookup[str, InvocationRecord | None] = Lookup(owner, reads.find)
        self._by_key: Lookup[KeyScope, InvocationRecord | None] = Lookup(owner, reads.find_keyed)

    @property
    def outstanding(self) -> int:
        """Questions that the store has not answered yet."""
        return self._by_id.outstanding + self._by_key.outstanding

    def enter(self, invocation: Invocation) -> None:
        """It is in memory now."""
        self._suspended_senders.discard(invocation.id)
        self.live[invocation.id] = invocation
        if invocation.scope is not None:
            self.keyed[invocation.scope] = invocation

    def alias(self, id: str, invocation: Invocation) -> None:
        """`id` leads to this invocation too; the store will know it when that is durable."""
        self.live[id] = invocation
        self._when_durable(lambda _: self.live.pop(id, None), invocation)

    def wait_for(self, number: int, waiter: Waiter) -> None:
        """Somebody outside waits for an invocation; those who have given up make room."""
        waiting = [one for one in self.waiters.get(number, ()) if not one.done()]
        self.waiters[number] = [*waiting, waiter]

    def forget(self, invocation: Invocation) -> None:
        """It is durable and leaves memory; whoever asks next asks the store (rule L4)."""
        if self.live.get(invocation.id) is invocation:
            del self.live[invocation.id]
            if invocation.outcome is None and invocation.journal is not None and invocation.journal.has_sent:
                self._suspended_senders.add(invocation.id)
        scope = invocation.scope
        if scope is not None and self.keyed.get(scope) is invocation and not self._pinned[scope]:
            del self.keyed[scope]

    def may_ask(self, sender_id: str, otherwise: bool) -> bool:
        """The sender of a message has not ended and may still ask for the outcome; `otherwise`: the store said so."""
        sender = self.live.get(sender_id)
        if sender is not None:
            return sender.outcome is None
        return otherwise or sender_id in self._suspended_senders

    def note_end(self, number: int) -> None:
        """It has ended: an answer that is on its way from the store may not know it."""
        if self._by_id.outstanding or self._by_key.outstanding:
            self._ended_meanwhile.add(number)
        elif self._ended_meanwhile:
            self._ended_meanwhile.clear()

    def by_id(self, id: str, then: Found) -> None:
        """Find by id, or by an id that leads to it."""
        known = self.live.get(id)
        if known is not None:
            # Not at once: whoever asks is in the middle of a transition.
            self._host.call_soon(self._tell, then, known, None)
        else:
            self._by_id(id, partial(self._found_id, id, then))

    def by_key(self, scope: KeyScope, then: Found) -> None:
        """Find by idempotency key; at once if it is in memory."""
        known = self.keyed.get(scope)
        if known is not None:
            self._tell(then, known, None)
        else:
            self._by_key(scope, partial(self._found_key, scope, then))

    def pin(
        self,
        scopes: Iterable[KeyScope],
        unknown: Iterable[KeyScope],
        then: Callable[[dict[KeyScope, InvocationRecord | None]], None],
    ) -> None:
        """Ask for those of several keys that are `unknown`, and hold all of them in memory until the answers come."""
        held, wanted = list(dict.fromkeys(scopes)), list(dict.fromkeys(unknown))  # Sets iterate at random.
        self._pinned.update(held)
        found: dict[KeyScope, InvocationRecord | None] = {}

        def one_found(scope: KeyScope, _: Invocation | None, record: InvocationRecord | None) -> None:
            found[scope] = record
            if len(found) == len(wanted):
                then(found)
                self._unpin(held)

        for scope in wanted:
            self._by_key(scope, partial(self._found_key, scope, partial(one_found, scope)))

    def kill(self) -> None:
        self._dead = True
        self._by_id.kill()
        self._by_key.kill()

    async def finish(self) -> None:
        """After `kill`: wait until the store is not asked any more."""
        await self._by_id.finish()
        await self._by_key.finish()

    def _unpin(self, scopes: Iterable[KeyScope]) -> None:
        for scope in scopes:
            self._pinned[scope] -= 1
            if self._pinned[scope] <= 0:
                del self._pinned[scope]
                holder = self.keyed.get(scope)
                if holder is not None:
                    self._when_durable(self._forget_if_gone, holder)

    def _forget_if_gone(self, invocation: Invocation) -> None:
        if self.live.get(invocation.id) is not invocation:
            self.forget(invocation)

    def _found_id(self, id: str, then: Found, record: InvocationRecord | None) -> None:
        if self._is_old(record):
            self._by_id(id, partial(self._found_id, id, then))
        else:
            self._tell(then, self.live.get(id if record is None else record.id), record)

    def _found_key(self, scope: KeyScope, then: Found, record: InvocationRecord | None) -> None:
        if self._is_old(record):
            self._by_key(scope, partial(self._found_key, scope, then))
        else:
            self._tell(then, self.keyed.get(scope), record)

    def _is_old(self, record: InvocationRecord | None) -> bool:
        return record is not None and record.outcome is None and record.number in self._ended_meanwhile

    def _tell(self, then: Found, known: Invocation | None, record: InvocationRecord | None) -> None:
        if not self._dead:
            then(known, record)
            self._owner.poke()
