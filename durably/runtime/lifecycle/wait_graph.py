"""`WaitGraph`: what an invocation waits for, as data.

An invocation waits for the answers to its pending commands. A call or an attach leads on to another invocation, and one
that is queued leads on to the one that holds its mailbox, or to those that hold the limit that it starts under;
everything else (a timer, an action, a backoff, a person) is an end. An invocation goes on as soon as one of the things
that it waits for happens.

The graph is not stored anywhere: it is read from the journals and mailboxes in memory at the moment of the question.
Where it leads out of memory, the answer says what to look for, and `bring` fetches it. The search for deadlocks reads
it; what people are told about waiting is in `durably.runtime.inspection`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from functools import partial
from typing import NamedTuple, TypeAlias

from durably.actors.protocol.commands import (
    Attach,
    AwaitSignal,
    Call,
    Command,
    GetPromise,
    MakeAwakeable,
    Run,
    Sleep,
    key_scope,
)
from durably.ids import Address, InvocationStatus, KeyScope, derived_invocation_id
from durably.runtime.activations.activations import Activations
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import Found, InvocationRun
from durably.runtime.limits.limit_pool import LimitPool
from durably.runtime.limits.named_limits import NamedLimits
from durably.runtime.registry.registry import InvocationRegistry
from durably.storage.records import InvocationRecord


class WaitReason(StrEnum):
    """Why an invocation does not go on now."""

    CALL = "call"
    """A handler that it called has not ended."""
    ATTACH = "attach"
    """An invocation that it attached to, or joined by idempotency key, has not ended."""
    MAILBOX = "mailbox"
    """It is queued, and another invocation holds the mailbox."""
    LIMIT = "limit"
    """It has not started, and others hold the places of its limit."""
    RATE = "rate"
    """It has not started, and its limit lets the next one start later."""
    TURN = "turn"
    """It is queued, and nothing holds the mailbox: it starts when its turn comes."""
    TIMER = "timer"
    ACTION = "action"
    PROMISE = "promise"
    AWAKEABLE = "awakeable"
    SIGNAL = "signal"
    BACKOFF = "backoff"
    PERSON = "person"
    """It is paused."""
    ELSEWHERE = "elsewhere"
    """An answer that nothing in this process can be seen to hold up."""
    NOTHING = "nothing"
    """It runs, or has ended."""


QUEUED = frozenset({WaitReason.MAILBOX, WaitReason.LIMIT})
"""What waits for these has not started."""
LEADS_ON = QUEUED | {WaitReason.CALL, WaitReason.ATTACH}
"""Reasons that are other invocations; each other one ends by itself, or by a person."""

NO_COMMAND = -1

Waiting: TypeAlias = InvocationRun | InvocationRecord
"""An invocation in memory, or the row of one that waits far back in a stored mailbox (rule C8)."""


class Sought(NamedTuple):
    """What to look for where the graph leads out of memory: an id, an idempotency key, or what holds an object."""

    id: str | None = None
    scope: KeyScope | None = None
    address: Address | None = None


class Wait(NamedTuple):
    """One thing that an invocation waits for."""

    reason: WaitReason
    command: int = NO_COMMAND
    """The pending command."""
    target: Waiting | None = None
    """The invocation that it leads to; None where `reason` does not lead on, and where `sought` says what to bring."""
    sought: Sought | None = None


_BY_STATUS: Mapping[InvocationStatus, Wait] = {
    InvocationStatus.SCHEDULED: Wait(WaitReason.TIMER),
    InvocationStatus.BACKING_OFF: Wait(WaitReason.BACKOFF),
    InvocationStatus.PAUSED: Wait(WaitReason.PERSON),
    InvocationStatus.COMPLETED: Wait(WaitReason.NOTHING),
}
_RUNS = Wait(WaitReason.NOTHING)
_ITS_TURN = Wait(WaitReason.TURN)

Brought: TypeAlias = Mapping[Sought, Found]
"""What was sought and found: an invocation that is in memory now, the row of one that stays far back in a stored
mailbox, or None if nothing is there that could be waited for.
"""

NOTHING_BROUGHT: Brought = {}


class WaitGraph:
    """Reads the graph of one incarnation."""

    def __init__(self, *, activations: Activations, named_limits: NamedLimits, registry: InvocationRegistry) -> None:
        self._activations = activations
        self._named_limits = named_limits
        self._host = asyncio.get_running_loop()
        self._registry = registry

    def waits_of(self, waiter: Waiting, brought: Brought = NOTHING_BROUGHT) -> Iterator[Wait]:
        """Everything that this invocation waits for, the newest command first; there is at least one thing.

        It is read as it is asked for: a fan-out of thousands costs what the reader takes of it.
        """
        if isinstance(waiter, InvocationRecord):
            yield self._turn_at(waiter.address)
        elif waiter.status in _BY_STATUS:
            yield _BY_STATUS[waiter.status]
        elif waiter.number in self._named_limits.waits_in:
            yield from self._places_of(self._named_limits.waits_in[waiter.number], brought)
        elif waiter.status is InvocationStatus.PENDING and waiter.activation.current is not waiter:
            yield self._turn_at(waiter.address) if waiter.is_exclusive else _RUNS
        else:
            yield from self._answers_of(waiter, brought)

    def _places_of(self, pool: LimitPool, brought: Brought) -> Iterator[Wait]:
        """The next place is free when any of those that hold one ends. Who else waits does not count, as in a mailbox.

        A place that several keep taken is free when all of them have ended: one of them stands for it.
        """
        if pool.has_room():
            yield Wait(WaitReason.RATE)
            return
        for holder in pool.holders():
            live = self._registry.live.get(holder.id)
            yield self._leads_to(WaitReason.LIMIT, NO_COMMAND, live, Sought(holder.id), brought)

    def _answers_of(self, waiter: InvocationRun, brought: Brought) -> Iterator[Wait]:
        journal = waiter.journal
        can_go_on = journal is None or journal.undelivered or waiter.held_step is not None or waiter.is_preparing
        if journal is None or can_go_on or waiter.load_error or waiter.activation.load_error or not journal.pending:
            yield _RUNS
            return
        for number, command in reversed(journal.pending.items()):
            yield self._answer_of(waiter, number, command, brought)

    def _answer_of(self, waiter: InvocationRun, number: int, command: Command, brought: Brought) -> Wait:
        match command:
            case Call(idempotency_key=None, service=service, key=key):
                id = derived_invocation_id(waiter.id, waiter.seed, number, service, key)
                sought = Sought(id, None, Address(service, id if key is None else key))
                return self._leads_to(WaitReason.CALL, number, self._registry.live.get(id), sought, brought)
            case Call():
                scope = key_scope(command)
                live = self._registry.keyed.get(scope)
                return self._leads_to(WaitReason.CALL, number, live, Sought(None, scope), brought)
            case Attach(invocation_id=str() as id):
                live = self._registry.live.get(id)
                return self._leads_to(WaitReason.ATTACH, number, live, Sought(id), brought)
            case Attach():
                scope = key_scope(command)
                live = self._registry.keyed.get(scope)
                return self._leads_to(WaitReason.ATTACH, number, live, Sought(None, scope), brought)
            case Sleep():
                return Wait(WaitReason.TIMER, number)
            case Run():
                return Wait(WaitReason.ACTION, number)
            case GetPromise():
                return Wait(WaitReason.PROMISE, number)
            case MakeAwakeable():
                return Wait(WaitReason.AWAKEABLE, number)
            case AwaitSignal():
                return Wait(WaitReason.SIGNAL, number)
            case _:
                return Wait(WaitReason.ELSEWHERE, number)

    def _leads_to(
        self, reason: WaitReason, number: int, live: InvocationRun | None, sought: Sought, brought: Brought
    ) -> Wait:
        if live is not None:
            return Wait(reason, number, live)
        if sought not in brought:
            return Wait(reason, number, None, sought)
        found = brought[sought]
        if found is None:
            return Wait(WaitReason.ELSEWHERE, number)
        return Wait(reason, number, found) if self._is_as_found(found) else Wait(reason, number, None, sought)

    def _is_as_found(self, found: Waiting) -> bool:
        """Still in memory, or far back in its mailbox. It has not ended: a command waits for it."""
        if isinstance(found, InvocationRun):
            return self._registry.live.get(found.id) is found
        activation = self._activations.by_address.get(found.address)
        return activation is not None and activation.stored_tail > 0 and not activation.loading

    def _turn_at(self, address: Address) -> Wait:
        """What a message that is queued there waits for. Those ahead of it do not count: what they do is open."""
        activation = self._activations.by_address.get(address)
        if activation is None or (activation.loading and not activation.is_rehydrated):
            return Wait(WaitReason.MAILBOX, NO_COMMAND, None, Sought(None, None, address))
        holder = activation.current
        return _ITS_TURN if holder is None else Wait(WaitReason.MAILBOX, NO_COMMAND, holder)

    # ------------------------------------------------------------------ out of memory

    def bring(self, sought: Sought, then: Callable[[Found], None]) -> None:
        """Bring into memory what was sought.

        `then` hears what `Brought` keeps.
        """
        id, scope, address = sought
        if address is not None:
            self._load(address, partial(self._object_is_here, sought, then), then)
        elif id is not None:
            self._registry.by_id(id, partial(self._found, sought, then))
        else:
            assert scope is not None
            self._host.call_soon(self._registry.by_key, scope, partial(self._found, sought, then))

    def _load(self, address: Address, loaded: Callable[[Activation], None], then: Callable[[Found], None]) -> None:
        if self._activations.hosts(address):
            self._activations.with_loaded(address, loaded)
        else:
            then(None)

    def _object_is_here(self, sought: Sought, then: Callable[[Found], None], activation: Activation) -> None:
        if sought.id is None:
            then(activation.current)
            return
        live = self._registry.live.get(sought.id)
        if live is None and activation.stored_tail:
            self._registry.by_id(sought.id, partial(self._found_in_mailbox, then))
        else:
            then(live)

    def _found(self, sought: Sought, then: Callable[[Found], None], found: Found) -> None:
        if found is None or isinstance(found, InvocationRun):
            then(found)
        elif found.status in (InvocationStatus.SCHEDULED, InvocationStatus.COMPLETED):
            then(None)
        else:
            self._load(found.address, partial(self._is_here, found, then), then)

    def _is_here(self, row: InvocationRecord, then: Callable[[Found], None], activation: Activation) -> None:
        live = self._registry.live.get(row.id)
        self._found_in_mailbox(then, row if live is None and activation.stored_tail else live)

    def _found_in_mailbox(self, then: Callable[[Found], None], found: Found) -> None:
        is_queued = found is not None and found.status is InvocationStatus.PENDING
        then(found if isinstance(found, InvocationRun) or is_queued else None)


def name_of(invocation: Waiting) -> str:
    """An invocation for people, by what it runs: `Cart/mary/checkout`, `Shipping/handle`."""
    service, key = invocation.address
    place = service if key == invocation.id else f"{service}/{key}"
    handler = invocation.handler if isinstance(invocation, InvocationRecord) else invocation.handler.name
    return f"{place}/{handler}"
