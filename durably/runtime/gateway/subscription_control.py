"""`SubscriptionState`: what operators see of a subscription to events, as of a consumer of a model."""

from __future__ import annotations

from dataclasses import dataclass

from durably.runtime.engine.engine import Engine
from durably.runtime.lifecycle.subscriptions import Subscribed, SubscriptionStatus
from durably.storage.records import EventQuery
from durably.storage.store import Store

MOST_BEHIND = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionState:
    """A subscription of the code that runs, as it stands now."""

    name: str
    """`Orders.BookDelivery/consume`: what the verbs of a `Runtime` take."""
    stream: str
    """Whose events it gets: a stream with its cluster, `default/all`, or the name of a machine."""
    events: tuple[str, ...]
    """Their names; none: all."""
    status: SubscriptionStatus
    behind: int
    """So many events of the stream have not become messages, those that it does not want included; 1,000 are 1,000 or
    more."""
    in_flight: int
    """So many messages of it wait or run, as far as this process has delivered them; those behind paused ones do not
    count."""
    reason: str | None
    """Why the machine has paused it: an event that cannot be read."""


async def subscriptions_of(engine: Engine, store: Store) -> list[SubscriptionState]:
    """All subscriptions of the code that runs, by name."""
    return [await _described(one, store) for one in engine.parts.subscriptions.known()]


async def _described(one: Subscribed, store: Store) -> SubscriptionState:
    row = one.row
    answer = await store.events(EventQuery(stream=row.stream, after=row.position, limit=MOST_BEHIND))
    return SubscriptionState(
        name=one.name,
        stream=row.stream,
        events=tuple(sorted(one.declared.names)),
        status=row.status,
        behind=len(answer.events) + len(answer.damaged),
        in_flight=one.in_flight.counted,
        reason=row.reason,
    )
