"""`InvocationRegistry`: which invocations there are, by id and by idempotency key, in memory or in the store (rule L3).

What is in memory is always found in memory, synchronously; only what is durable may leave. An answer of the store and
the decision that depends on it are one callback, and an answer that became old while it was on its way is asked for
again.

An outcome is found until the moment that was announced with it, and not from then on: a look-up that comes upon an
expired one removes it, in a transition of its own (rule C7). The cleaner only makes room sooner. What a workflow leaves
goes together with its outcome, when no handler of it is in flight; until then its outcome is found (rule W3).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeAlias

from msgspec import structs

from durably.ids import InvocationStatus, KeyScope
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.transition import Transition
from durably.runtime.incarnation.idleness import Idleness
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import Found, InvocationRun
from durably.runtime.registry.batched_lookup import BatchedLookup
from durably.runtime.registry.reads import Reads
from durably.storage.records import InvocationRecord

WhenFound: TypeAlias = Callable[[Found], None]
ExpireWorkflow: TypeAlias = Callable[[InvocationRecord, Callable[[], None]], None]
"""Let go what the workflow leaves whose `run` this is, if that can be; then go on."""

ENDS_BETWEEN_TIDYING = 1_024


class InvocationRegistry:
    """All look-ups of one incarnation."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        clock: Clock,
        committer: Committer,
        idleness: Idleness,
        reads: Reads,
        ready: ReadyQueue,
    ) -> None:
        self.live: dict[str, InvocationRun] = {}
        """In memory by id: unfinished ones, and finished ones that are not durable yet."""
        self.keyed: dict[KeyScope, InvocationRun] = {}
        """The same by idempotency key."""
        self.on_workflow_expired: ExpireWorkflow = _no_one_expires
        """Called when a look-up comes upon a workflow whose retention is over."""
        self._ready = ready
        self._host = asyncio.get_running_loop()
        self._when_durable = committer.when_durable
        self._suspended_senders: set[str] = set()
        """Unfinished ones in the store only that have sent messages, and may ask for their outcomes (rule X7)."""
        self._aliases: dict[str, str] = {}
        """Ids that lead to invocations in the store only, which does not know it yet."""
        self._pinned: Counter[KeyScope] = Counter()
        self._clock = clock
        self._committer = committer
        self._ends: dict[int, int] = {}
        """The log positions of ends that an answer of the store may not know yet, by invocation number."""
        self._expired: set[int] = set()
        """Those of them that have been removed, which an answer of the store may still hold."""
        self._readers: dict[int, int] = {}
        """Up to where the log was durable when each read began that is acted on after a while, oldest first."""
        self._reads = 0
        self._tidy_at = ENDS_BETWEEN_TIDYING
        self._dead = False
        self._by_id: BatchedLookup[str, InvocationRecord | None] = BatchedLookup(
            incarnation, ready, reads.find, durable=self._durable
        )
        self._by_key: BatchedLookup[KeyScope, InvocationRecord | None] = BatchedLookup(
            incarnation, ready, reads.find_keyed, durable=self._durable
        )
        idleness.add(self._is_idle)

    @property
    def outstanding(self) -> int:
        """Questions that the store has not answered yet."""
        return self._by_id.outstanding + self._by_key.outstanding

    def enter(self, invocation: InvocationRun) -> None:
        """It is in memory now."""
        self._suspended_senders.discard(invocation.id)
        self.live[invocation.id] = invocation
        if invocation.scope is not None:
            self.keyed[invocation.scope] = invocation

    def alias(self, id: str, first: InvocationRun | InvocationRecord) -> None:
        """`id` leads to this invocation too; the store will know it when that is durable."""
        if isinstance(first, InvocationRun):
            self.live[id] = first
            self._when_durable(lambda _: self.live.pop(id, None), first)
        else:
            self._aliases[id] = first.id
            self._when_durable(lambda _: self._aliases.pop(id, None), first)

    def forget(self, invocation: InvocationRun) -> None:
        """Drop an invocation from memory once it is durable; the next look-up asks the store (rule L4)."""
        if self.live.get(invocation.id) is invocation:
            del self.live[invocation.id]
            if invocation.outcome is None and invocation.has_sent():
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
        """It has ended: the store does not know it yet, and answers that are on their way will not."""
        self._ends[number] = self._committer.position
        if len(self._ends) >= self._tidy_at:
            self._tidy()

    def has_ended(self, number: int) -> bool:
        """It has ended, and an answer of the store may not know that yet."""
        return number in self._ends

    def forget_outcome(self, found: InvocationRun | InvocationRecord) -> None:
        """Drop a kept outcome that is no longer wanted."""
        if isinstance(found, InvocationRun):
            self._drop(found)
        else:
            self.expire(found.number)

    def expire(self, number: int) -> None:
        """A kept outcome is forgotten. This is a transition (rule C7); the second time it is none."""
        if number not in self._expired:
            self.expire_in(self._committer.begin(), number)

    def expire_in(self, transition: Transition, number: int) -> None:
        """The same, as part of a transition."""
        transition.remove(number)
        self._expired.add(number)
        self._ends.pop(number, None)  # The newest end stands last.
        self.note_end(number)

    def in_memory(self, scope: KeyScope) -> InvocationRun | None:
        """The invocation with this idempotency key, if it is in memory and its outcome has not expired."""
        return self._unexpired(self.keyed.get(scope))

    def stored(self, record: InvocationRecord | None) -> InvocationRecord | None:
        """A row of the store as it stands now: None if its outcome has expired."""
        if record is None or record.number in self._expired:
            return None
        # Rule E7: an outcome that is fixed before its code has ended stays until then.
        if (
            record.status is not InvocationStatus.COMPLETED
            or not self._has_expired(record.expires_at)
            or _is_run(record)
        ):
            return record
        self.expire(record.number)
        return None

    def read_begins(self) -> int:
        """The store is asked for rows that are acted on after a while; `read_ended` takes what this returns."""
        self._reads += 1
        self._readers[self._reads] = self._committer.durable
        return self._reads

    def read_ended(self, read: int) -> None:
        del self._readers[read]

    def by_id(self, id: str, then: WhenFound) -> None:
        """Find by id, or by an id that leads to it."""
        id = self._aliases.get(id, id)
        known = self._unexpired(self.live.get(id))
        if known is not None:
            # Not at once: the asking code is in the middle of a transition.
            self._host.call_soon(self._tell_known, id, then, known)
        else:
            self._by_id(id, partial(self._found_id, id, then))

    def by_key(self, scope: KeyScope, then: WhenFound) -> None:
        """Find by idempotency key; at once if it is in memory."""
        known = self.in_memory(scope)
        if known is not None:
            self._tell(then, known)
        else:
            self._by_key(scope, partial(self._found_key, scope, then))

    def pin(
        self,
        scopes: Iterable[KeyScope],
        ids: Iterable[str],
        unknown: Iterable[KeyScope | str],
        then: Callable[[dict[KeyScope | str, Found]], None],
    ) -> None:
        """Ask for those of several keys and ids that are `unknown`, and hold the keys in memory until the answers come.

        `then` hears of the unknown keys what the store has, and of all ids what they stood for; `known_by_now` says
        what an id stands for when that is used.
        """
        held, wanted = list(dict.fromkeys(scopes)), list(dict.fromkeys(unknown))  # Sets iterate at random.
        self._pinned.update(held)
        found: dict[KeyScope | str, Found] = {id: self.live[id] for id in ids if id in self.live}
        read, asked = self.read_begins(), set(wanted)

        def one_found(name: KeyScope | str, one: Found) -> None:
            asked.discard(name)
            found[name] = one if isinstance(name, str) or isinstance(one, InvocationRecord) else None
            if not asked:
                then(found)
                self.read_ended(read)
                self._unpin(held)

        for name in wanted:
            told = partial(one_found, name)
            if isinstance(name, str):
                id = self._aliases.get(name, name)
                self._by_id(id, partial(self._found_id, id, told))
            else:
                self._by_key(name, partial(self._found_key, name, told))

    def known_by_now(self, id: str, found: Found) -> Found:
        """What an id stands for now that stood for `found` when it was looked up, while a read was under way.

        An invocation that has left memory is good enough to tell where it is: in the store only.
        """
        known = self._unexpired(self.live.get(id if found is None else found.id))
        if known is not None or found is None:
            return known
        if found.number in self._expired:
            return None
        if found.outcome is None and found.number in self._ends:
            if not isinstance(found, InvocationRecord):
                return None
            return structs.replace(found, status=InvocationStatus.COMPLETED)
        return self.stored(found) if isinstance(found, InvocationRecord) else found

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

    def _forget_if_gone(self, invocation: InvocationRun) -> None:
        if self.live.get(invocation.id) is not invocation:
            self.forget(invocation)

    def _found_id(self, id: str, then: WhenFound, record: InvocationRecord | None) -> None:
        known = self._unexpired(self.live.get(id if record is None else record.id))
        if known is None and self._is_old(record):
            self._when_durable(partial(self._by_id, id), partial(self._found_id, id, then))
        elif known is None and record is not None and self._is_expired_run(record):
            self.on_workflow_expired(record, partial(self._after_expiry, record, then))
        else:
            self._tell(then, self.stored(record) if known is None else known)

    def _found_key(self, scope: KeyScope, then: WhenFound, record: InvocationRecord | None) -> None:
        known = self.in_memory(scope)
        if known is None and self._is_old(record):
            self._when_durable(partial(self._by_key, scope), partial(self._found_key, scope, then))
        elif known is None and record is not None and self._is_expired_run(record):
            self.on_workflow_expired(record, partial(self._after_expiry, record, then))
        else:
            self._tell(then, self.stored(record) if known is None else known)

    def has_left(self, number: int) -> bool:
        """Its kept outcome has been removed."""
        return number in self._expired

    def _after_expiry(self, record: InvocationRecord, then: WhenFound) -> None:
        """A workflow has been let go, or not yet. Another one may have been started under its id meanwhile."""
        known = self.live.get(record.id) or (None if record.scope is None else self.keyed.get(record.scope))
        self._tell(then, self.stored(record) if known is None else known)

    def _is_expired_run(self, record: InvocationRecord) -> bool:
        has_ended = record.status is InvocationStatus.COMPLETED
        return (
            has_ended and _is_run(record) and not self.has_left(record.number) and self._has_expired(record.expires_at)
        )

    def _is_old(self, record: InvocationRecord | None) -> bool:
        return record is not None and record.status is not InvocationStatus.COMPLETED and record.number in self._ends

    def _has_expired(self, expires_at: int | None) -> bool:
        return expires_at is not None and expires_at <= self._clock.now()

    def _unexpired(self, known: InvocationRun | None) -> InvocationRun | None:
        """One in memory, unless it has ended and its time is over already: then it leaves memory."""
        if known is None or known.outcome is None or not self._has_expired(known.expires_at) or _is_run(known):
            return known
        self._drop(known)
        return None

    def _drop(self, known: InvocationRun) -> None:
        self.expire(known.number)
        if self.live.get(known.id) is known:
            del self.live[known.id]
        if known.scope is not None and self.keyed.get(known.scope) is known:
            del self.keyed[known.scope]

    def _durable(self) -> int:
        return self._committer.durable

    def _tidy(self) -> None:
        """Forget the ends that every answer to come knows; as often as their number has doubled."""
        oldest_read = next(iter(self._readers.values()), None)
        known = [self._committer.durable, self._by_id.knows_up_to, self._by_key.knows_up_to, oldest_read]
        all_know = min(position for position in known if position is not None)
        while self._ends:
            number, position = next(iter(self._ends.items()))
            if position > all_know:
                break
            del self._ends[number]
            self._expired.discard(number)
        self._tidy_at = max(2 * len(self._ends), ENDS_BETWEEN_TIDYING)

    def _is_idle(self) -> bool:
        return not self.outstanding

    def _tell_known(self, id: str, then: WhenFound, known: InvocationRun) -> None:
        """It was in memory a moment ago; if it has left since to wait in the store, that is where it is found."""
        if known.outcome is None and self.live.get(known.id) is not known and not self._dead:
            self.by_id(id, then)
        else:
            self._tell(then, known)

    def _tell(self, then: WhenFound, found: Found) -> None:
        if not self._dead:
            then(found)
            self._ready.schedule()


def _is_run(found: InvocationRun | InvocationRecord) -> bool:
    """It is the `run` of a workflow."""
    return found.scope is not None and found.scope.is_workflow_id


def _no_one_expires(record: InvocationRecord, then: Callable[[], None]) -> None:
    raise AssertionError("a workflow was looked up before the machine was put together")
