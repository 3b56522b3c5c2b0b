"""The kit that users test their actors with. docs/testing.md is the tour; each name has its own help.

Here:

- `Harness`: a runtime in memory with virtual time, in which nothing sleeps and a bug is a traceback. `StandstillError`
  tells a test that it waits for time which no code lets pass. `Durable` is what the pytest fixture `durable` gives.
- `simulate`: many runs of one program, each with other interleavings, delays and `Faults`; the program is given a
  `Simulation`. In pytest it is `@pytest.mark.simulate(...)`. `for_each_crash_point`: one program, killed before each
  of its commits. Both return a `Report`, or raise `SimulationFailedError` with the seed that repeats the run; behind it
  may stand `InvariantError` (of yours, asked of `Snapshots`), `GuaranteeError` (of ours) or `SimulationStuckError`.
  `compare_hash_seeds` runs a program in processes with other hash seeds, and raises `HashSeedError` if they differ.
  `NeverHappenedError`: what `sometimes` names did not happen in any run.
- `SimulatedClient`: somebody outside in a simulation, who hears `ConnectionLostError` and `NobodyThereError` unless he
  insists.
- `check_linearizable`: whether what callers saw of one object (`HistoryCall`) can be explained by a plain Python model;
  it raises `NotLinearizableError`, or `LinearizabilityUnknownError` where the search is too long.
- `Topic`: a system outside that gives records to a `Feed`, through `TopicSource`.
- `Workload`: what `python -m durably.testing soak` runs all night.

In packages of their own:

- `durably.testing.generation` (needs the extra `testing`): `ActorStateMachine`, for which hypothesis writes programs
  and shrinks those that fail; `arguments` and `calls`, strategies made from handlers.
- `durably.testing.replaying`: `export_journals` (`durably export-journals`) and `replay_journals`: what is under way in
  production, replayed with the code that you are about to deploy.
- `durably.testing.stores`: stores that fail or are held back. `durably.testing.stores.contract` is what every store has
  to pass (needs the extra `testing`).
"""

from __future__ import annotations

from durably.testing.harness.durable import Durable as Durable
from durably.testing.harness.harness import Harness as Harness
from durably.testing.harness.standstill import StandstillError as StandstillError
from durably.testing.histories.calls import HistoryCall as HistoryCall
from durably.testing.histories.linearizability import LinearizabilityUnknownError as LinearizabilityUnknownError
from durably.testing.histories.linearizability import NotLinearizableError as NotLinearizableError
from durably.testing.histories.linearizability import check_linearizable as check_linearizable
from durably.testing.report import Report as Report
from durably.testing.simulation import ConnectionLostError as ConnectionLostError
from durably.testing.simulation import Faults as Faults
from durably.testing.simulation import GuaranteeError as GuaranteeError
from durably.testing.simulation import HashSeedError as HashSeedError
from durably.testing.simulation import InvariantError as InvariantError
from durably.testing.simulation import NeverHappenedError as NeverHappenedError
from durably.testing.simulation import NobodyThereError as NobodyThereError
from durably.testing.simulation import SimulatedClient as SimulatedClient
from durably.testing.simulation import Simulation as Simulation
from durably.testing.simulation import SimulationFailedError as SimulationFailedError
from durably.testing.simulation import SimulationStuckError as SimulationStuckError
from durably.testing.simulation import Snapshots as Snapshots
from durably.testing.simulation import Workload as Workload
from durably.testing.simulation import compare_hash_seeds as compare_hash_seeds
from durably.testing.simulation import for_each_crash_point as for_each_crash_point
from durably.testing.simulation import simulate as simulate
from durably.testing.topic import Topic as Topic
from durably.testing.topic import TopicSource as TopicSource
