"""Workloads: what durably is soaked with. Strong random programs, each with an exact check of its end."""

from __future__ import annotations

from collections.abc import Mapping

from durably.testing import Workload
from workloads.approvals import APPROVALS
from workloads.asyncio_programs import ASYNCIO_PROGRAMS
from workloads.bank import BANK
from workloads.cancels import CANCELS
from workloads.changes import CHANGES
from workloads.circles import CIRCLES
from workloads.consumers import CONSUMERS
from workloads.counters import COUNTERS
from workloads.edits import EDITS
from workloads.events import EVENTS
from workloads.identities import IDENTITIES
from workloads.limits import LIMITS
from workloads.machines import MACHINES
from workloads.migrations import MIGRATIONS
from workloads.onions import ONIONS
from workloads.pauses import PAUSES
from workloads.promises import PROMISES
from workloads.queues import QUEUES
from workloads.retentions import RETENTIONS
from workloads.sagas import SAGAS
from workloads.schedules import SCHEDULES
from workloads.shelves import SHELVES
from workloads.topics import TOPICS
from workloads.trees import TREES
from workloads.workflows import WORKFLOWS

WORKLOADS: Mapping[str, Workload] = {
    "bank": BANK,
    "counters": COUNTERS,
    "asyncio_programs": ASYNCIO_PROGRAMS,
    "trees": TREES,
    "promises": PROMISES,
    "approvals": APPROVALS,
    "circles": CIRCLES,
    "cancels": CANCELS,
    "pauses": PAUSES,
    "identities": IDENTITIES,
    "workflows": WORKFLOWS,
    "changes": CHANGES,
    "shelves": SHELVES,
    "retentions": RETENTIONS,
    "limits": LIMITS,
    "schedules": SCHEDULES,
    "migrations": MIGRATIONS,
    "machines": MACHINES,
    "edits": EDITS,
    "onions": ONIONS,
    "events": EVENTS,
    "sagas": SAGAS,
    "topics": TOPICS,
    "consumers": CONSUMERS,
    "queues": QUEUES,
}
"""By name, as `--workload` takes them."""
