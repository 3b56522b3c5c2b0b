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
from workloads.counters import COUNTERS
from workloads.identities import IDENTITIES
from workloads.pauses import PAUSES
from workloads.promises import PROMISES
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
}
"""By name, as `--workload` takes them."""
