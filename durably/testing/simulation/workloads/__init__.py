"""Workloads: what durably is soaked with. Strong random programs, each with an exact check of its end."""

from __future__ import annotations

from collections.abc import Mapping

from durably.testing.simulation.workloads.bank import BANK
from durably.testing.simulation.workloads.counters import COUNTERS
from durably.testing.simulation.workloads.errands import ERRANDS
from durably.testing.simulation.workloads.trees import TREES
from durably.testing.simulation.workloads.workload import Workload as Workload

WORKLOADS: Mapping[str, Workload] = {"bank": BANK, "counters": COUNTERS, "errands": ERRANDS, "trees": TREES}
"""Those that come with durably, by name."""
