"""`DeadLetter`: an event that a subscription has given up; what operators see of it, and do with it (rule P4)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

import msgspec

from durably.actors.values.durations import moment
from durably.errors import UnknownTargetError
from durably.runtime.engine.engine import Engine
from durably.runtime.lifecycle.dead_letters import decode_letter
from durably.runtime.messaging.events import DEAD_LETTERS
from durably.storage.records import EventQuery, EventRecord
from durably.storage.store import Store

PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An event that a subscription has given up."""

    id: str
    """What `retry_dead_letter` and `drop_dead_letter` take."""
    subscription: str
    event: str
    """The name of the event."""
    event_id: str
    version: str
    key: str
    stream: str
    value: bytes
    """The event, as JSON."""
    published_at: datetime
    failed_at: datetime
    code: int
    reason: str
    invocation_id: str
    """The message that has failed; empty: the event never became one."""


async def dead_letters_of(store: Store, subscription: str | None) -> AsyncIterator[DeadLetter]:
    """All of them, or those of one subscription, the oldest first."""
    after = 0
    while True:
        query = EventQuery(stream=DEAD_LETTERS, key=subscription, after=after, limit=PAGE)
        answer = await store.events(query)
        damaged = {one.record.position: one for one in answer.damaged}
        records = [*answer.events, *(one.record for one in answer.damaged)]
        for one in sorted(records, key=lambda one: one.position):
            yield _damaged(one, damaged[one.position].unreadable.reason) if one.position in damaged else _described(one)
        if answer.last is None:
            return
        after = answer.last


async def act_on_letter(engine: Engine, store: Store, id: str, *, is_retried: bool) -> None:
    """Make a message of it again, or drop it.

    Raises:
        UnknownTargetError: there is none of this id, or no such subscription.
        EventDeliveryError: no object can get it, or it is damaged.
    """
    await engine.until_durable()
    answer = await store.events(EventQuery(stream=DEAD_LETTERS, id=id))
    found = [*answer.events, *(one.record for one in answer.damaged)]
    if not found or engine.incarnation.dead:
        raise UnknownTargetError(f"There is no dead letter {id!r}.")
    subscriptions = engine.parts.subscriptions
    if is_retried:
        subscriptions.redeliver(found[0])
    else:
        subscriptions.forget_letter(found[0])


def _described(event: EventRecord) -> DeadLetter:
    try:
        letter = decode_letter(event.value)
    except msgspec.DecodeError as error:
        return _damaged(event, str(error))
    delivery = letter.delivery
    return DeadLetter(
        id=event.id,
        subscription=event.key,
        event=delivery.name,
        event_id=delivery.id,
        version=delivery.version,
        key=delivery.key,
        stream=delivery.stream,
        value=bytes(delivery.value),
        published_at=moment(delivery.at),
        failed_at=moment(event.at),
        code=letter.code,
        reason=letter.message,
        invocation_id=letter.invocation_id,
    )


def _damaged(event: EventRecord, reason: str) -> DeadLetter:
    return DeadLetter(
        id=event.id, subscription=event.key, event=event.name, event_id="", version="", key="", stream="",
        value=event.value or b"null", published_at=moment(event.at), failed_at=moment(event.at), code=500,
        reason=f"the store does not tell what it is: {reason}", invocation_id="",
    )  # fmt: skip
