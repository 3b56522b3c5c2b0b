"""The numbers of a runtime as it is now: what is counted, what is in memory, and what only the store knows."""

from __future__ import annotations

from collections import Counter

from durably.errors import DurablyError
from durably.ids import InvocationStatus
from durably.runtime.gateway.subscription_control import subscriptions_of
from durably.runtime.observation.metrics import Counts, RuntimeMetrics
from durably.runtime.supervision.supervisor import Supervisor
from durably.storage.introspection import InspectableStore

MOST_PAUSED = 1_000


async def runtime_metrics(supervisor: Supervisor, store: InspectableStore, counts: Counts | None) -> RuntimeMetrics:
    """All of it. While the store is away, nothing is told of what it knows."""
    active: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    paused: int | None = None
    lags: dict[str, int] = {}
    source_lags: dict[str, int] = {}
    engine = supervisor.engine
    parts = None if engine is None else engine.parts
    if engine is not None and parts is not None:
        for address, activation in parts.activations.by_address.items():
            active[address.service] += 1
            messages = len(activation.mailbox) + activation.stored_tail
            if messages:
                waiting[address.service] += messages
        try:
            found = await store.invocations(
                after=0, limit=MOST_PAUSED, service=None, key=None, handler=None, status=InvocationStatus.PAUSED
            )
            paused = len(found)
            lags = {one.name: one.behind for one in await subscriptions_of(engine, store)}
        except DurablyError:
            paused = None
        source_lags = {one.name: one.behind for one in parts.sources.running if one.behind is not None}
    return RuntimeMetrics(
        accepts_requests=supervisor.accepts_requests,
        counts=counts,
        active_objects=active,
        mailbox_messages=waiting,
        waiting_requests=0 if parts is None else len(parts.ready.requests),
        waiting_attempts=0 if parts is None else parts.passivation.waiting_attempts,
        running_actions=supervisor.actions.busy,
        timers_due_soon=0 if parts is None else parts.timers.in_memory,
        undurable_bytes=0 if parts is None else parts.committer.undurable_bytes,
        paused_invocations=paused,
        subscription_lags=lags,
        source_lags=source_lags,
    )
