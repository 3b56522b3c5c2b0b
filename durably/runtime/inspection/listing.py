"""Invocations and objects as lists, a page at a time: what is durable, with what is known in memory besides.

A page is one snapshot of the store, read in another connection than the one that commits; everything that was accepted
before a list began is durable before its first page is read (rule X1). No page is answered by an owner that has lost
the store (rule X9).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from durably.actors.transport import Invocation, Transport
from durably.actors.values.durations import FOREVER_US, moment
from durably.ids import InvocationStatus
from durably.runtime.activations.activations import Activations
from durably.storage.introspection import Introspection
from durably.storage.records import InvocationRecord

PAGE = 500
"""How many rows are read at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationDescription:
    """An invocation as it was when its page was read."""

    id: str
    service: str
    key: str | None
    """None for a service."""
    handler: str
    status: InvocationStatus
    accepted_at: datetime
    due: datetime | None
    """When a delayed message joins its mailbox."""
    deadline: datetime | None
    failed_attempts: int
    """Since it last made progress."""
    idempotency_key: str | None
    caller_service: str | None
    """The class of the handler that called it; None: it was called from outside, or sent."""
    expires_at: datetime | None
    """When its outcome is forgotten; None: it has none yet, or is kept for ever."""

    @property
    def target(self) -> str:
        """`Cart/mary/checkout`, `Shipping/handle`."""
        return f"{self.service}/{self.handler}" if self.key is None else f"{self.service}/{self.key}/{self.handler}"


class ListedInvocation(Invocation[Any]):
    """A handle on an invocation, with what a list says of it."""

    __slots__ = ("description",)

    def __init__(self, transport: Transport, decode: Callable[[bytes], Any], record: InvocationRecord) -> None:
        super().__init__(transport, record.id, decode)
        self.description = described(record)

    def __repr__(self) -> str:
        return f"<{self.description.status} invocation {self.id} of {self.description.target}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectDescription:
    """A virtual object or workflow as it was when its page was read."""

    key: str
    mailbox_messages: int
    """How many messages wait in its mailbox."""
    started_invocations: int
    """How many have started and not ended, those of shared handlers too."""
    state_bytes: int
    """What its fields hold together, as they are stored: with a codec, what the codec has made of them.

    What is not loaded with it (`Lazy`, `DurableDict`, `DurableList`) does not count.
    """
    is_active: bool
    """It is in memory."""


def described(record: InvocationRecord) -> InvocationDescription:
    """What a row says."""
    service, key = record.address
    return InvocationDescription(
        id=record.id,
        service=service,
        key=None if key == record.id else key,
        handler=record.handler,
        status=record.status,
        accepted_at=moment(record.accepted_at),
        due=_moment(record.due),
        deadline=_moment(record.deadline),
        failed_attempts=record.attempts,
        idempotency_key=(record.scope.idempotency_key or None) if record.scope is not None else None,
        caller_service=None if record.caller is None else record.caller.address.service,
        expires_at=_moment(record.expires_at),
    )


async def records(
    store: Introspection,
    checked: Callable[[], Awaitable[None]],
    now: Callable[[], int],
    *,
    service: str | None,
    key: str | None,
    handler: str | None,
    status: InvocationStatus | None,
) -> AsyncIterator[InvocationRecord]:
    """The rows by number, which is the order of acceptance; what begins anew meanwhile may come a second time.

    `checked` ends when the store is known to be still ours.
    """
    after = 0
    while True:
        page = await store.invocations(
            after=after, limit=PAGE, service=service, key=key, handler=handler, status=status
        )
        await checked()
        if not page:
            return
        for record in page:
            # Rule C7: what has expired is there no longer, whenever it is removed.
            is_under_way = record.status is not InvocationStatus.COMPLETED  # Rule E7: its code has not ended.
            if is_under_way or record.expires_at is None or record.expires_at > now():
                yield record
        after = page[-1].number


async def objects(
    store: Introspection, checked: Callable[[], Awaitable[None]], activations: Callable[[], Activations], service: str
) -> AsyncIterator[ObjectDescription]:
    """The objects of a class by key: those that have state, promises or work in the store, and those in memory."""
    active = sorted(key for owner, key in activations().by_address if owner == service)
    after = ""
    while True:
        page = await store.summaries(service, after=after, limit=PAGE)
        await checked()
        until = page[-1].key if page else None
        first = bisect_right(active, after)
        beyond = len(active) if until is None else bisect_right(active, until)
        stored = {one.key for one in page}
        in_memory = [
            ObjectDescription(key=key, mailbox_messages=0, started_invocations=0, state_bytes=0, is_active=True)
            for key in active[first:beyond]
            if key not in stored
        ]
        is_active = frozenset(active[first:beyond])
        told = [
            ObjectDescription(
                key=one.key,
                mailbox_messages=one.waiting,
                started_invocations=one.started,
                state_bytes=one.state_bytes,
                is_active=one.key in is_active,
            )
            for one in page
        ]
        for description in sorted((*told, *in_memory), key=_key_of):
            yield description
        if until is None:
            return
        after = until


def _key_of(description: ObjectDescription) -> str:
    return description.key


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None or microseconds >= FOREVER_US else moment(microseconds)
