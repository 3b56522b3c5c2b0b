"""The kit that users test their actors with."""

from __future__ import annotations

from durably.testing.durable import Durable as Durable
from durably.testing.harness import Harness as Harness
from durably.testing.histories import HistoryCall as HistoryCall
from durably.testing.linearizability import LinearizabilityUnknownError as LinearizabilityUnknownError
from durably.testing.linearizability import NotLinearizableError as NotLinearizableError
from durably.testing.linearizability import check_linearizable as check_linearizable
from durably.testing.report import Report as Report
from durably.testing.simulation import ConnectionLostError as ConnectionLostError
from durably.testing.simulation import Faults as Faults
from durably.testing.simulation import GuaranteeError as GuaranteeError
from durably.testing.simulation import InvariantError as InvariantError
from durably.testing.simulation import NobodyThereError as NobodyThereError
from durably.testing.simulation import SimulatedClient as SimulatedClient
from durably.testing.simulation import Simulation as Simulation
from durably.testing.simulation import SimulationFailedError as SimulationFailedError
from durably.testing.simulation import SimulationStuckError as SimulationStuckError
from durably.testing.simulation import Snapshots as Snapshots
from durably.testing.simulation import Workload as Workload
from durably.testing.simulation import for_each_crash_point as for_each_crash_point
from durably.testing.simulation import simulate as simulate
from durably.testing.standstill import StandstillError as StandstillError
