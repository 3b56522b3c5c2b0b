"""Simulation: the real runtime in a world made of a seed, where everything goes wrong that can."""

from __future__ import annotations

from durably.testing.harness.conditions import InvariantError as InvariantError
from durably.testing.simulation.campaign import NeverHappenedError as NeverHappenedError
from durably.testing.simulation.campaign import SimulationFailedError as SimulationFailedError
from durably.testing.simulation.campaign import for_each_crash_point as for_each_crash_point
from durably.testing.simulation.campaign import simulate as simulate
from durably.testing.simulation.clients import ConnectionLostError as ConnectionLostError
from durably.testing.simulation.clients import NobodyThereError as NobodyThereError
from durably.testing.simulation.clients import SimulatedClient as SimulatedClient
from durably.testing.simulation.faults import Faults as Faults
from durably.testing.simulation.guarantees import GuaranteeError as GuaranteeError
from durably.testing.simulation.hash_seeds import HashSeedError as HashSeedError
from durably.testing.simulation.hash_seeds import compare_hash_seeds as compare_hash_seeds
from durably.testing.simulation.loop import SimulationStuckError as SimulationStuckError
from durably.testing.simulation.simulation import Simulation as Simulation
from durably.testing.simulation.workload import Workload as Workload
from durably.testing.stores.snapshots import Snapshots as Snapshots
