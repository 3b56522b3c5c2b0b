"""The law: when any mixed workload has settled, and all retentions are over, the store holds state and nothing else.

Every verb is in some workload: sends, delayed and keyed calls, workflows, promises, awakeables, signals, cancels,
kills, pauses, restarts, limits, schedules, deletions, new beginnings. Some run alone, with an exact check of their
end, and some beside each other. Then schedules are paused, and what waits for somebody is killed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from durably import TerminalError, Workflow
from durably.actors.definition.definition import definition_of
from durably.ids import Address, InvocationStatus
from durably.runtime.gateway.control import Verb
from durably.runtime.lifecycle.schedules import ScheduleStatus
from durably.storage.records import SCHEDULES
from durably.testing import Faults, Simulation, Workload
from tests.levels import level
from workloads import WORKLOADS
from workloads.program_parts import UNKNOWN, all_of, records_but_state

PATIENT_HOURS = 30
"""A day, which outcomes are kept by default, and what a clock is wrong by; then what waits for somebody is killed."""
HOURS = 300
MIXED = ("bank", "counters", "asyncio_programs", "circles", "cancels", "pauses", "identities", "limits", "promises")
"""Their checks look at nothing that the others do."""
QUICK_MIXES = (("cancels", "limits", "bank"), ("pauses", "identities", "asyncio_programs"))
AT_ONCE = 3


async def until_only_state_is_left(sim: Simulation) -> None:
    """Let all end, and let its time pass."""
    sim.allow_pauses()
    operator = sim.client("operator")
    for name in [*sim.disk.state.get(SCHEDULES, ())]:
        await operator.turn_schedule(name, ScheduleStatus.PAUSED)
    for hour in range(HOURS):
        await sim.settle()
        if not records_but_state(sim):
            return
        if hour == PATIENT_HOURS:
            for record in sim.disk.records():
                if record.status is not InvocationStatus.COMPLETED:
                    with suppress(TerminalError, *UNKNOWN):
                        await operator.act(Verb.KILL, record.id)
        await sim.advance(hours=1)
    raise AssertionError(f"the store still holds {records_but_state(sim)}")


def run_and_look(workload: Workload, seed: int) -> None:
    """One run with faults of all kinds; its state is at the end what it was when the last invocation had ended."""
    with Simulation(*workload.actors, seed=seed, faults=Faults.any(), **workload.options) as sim:
        sim.run(workload.program(sim))
        lasting = state_of_objects(sim, workload)
        has_ended = not sim.disk.unfinished
        sim.faults = sim.faults.at_points
        sim.run(until_only_state_is_left(sim))
        sim.finish()
        left = {
            address for address in (*sim.disk.state, *sim.disk.entries) if address.service
        }  # Others are durably's own.
        if has_ended:
            assert state_of_objects(sim, workload) == lasting
        assert left <= lasting.keys() or not has_ended, f"the state of {left - lasting.keys()} should have gone"


def state_of_objects(sim: Simulation, workload: Workload) -> Mapping[Address, Mapping[str, bytes]]:
    """Of those that are kept for ever."""
    passing = {
        definition_of(actor).name
        for actor in workload.actors
        if definition_of(actor).options.ttl_us is not None or issubclass(actor, Workflow)
    }
    there = {**{address: {} for address in sim.disk.entries}, **sim.disk.state}
    return {address: dict(fields) for address, fields in there.items() if address.service not in {*passing, ""}}


def mixed(names: Sequence[str]) -> Workload:
    """Several workloads at the same time, on one store."""
    parts = [WORKLOADS[name] for name in names]

    async def program(sim: Simulation) -> None:
        await all_of(*(part.program(sim) for part in parts))

    return Workload(
        program=program,
        actors=tuple(unique(actor for part in parts for actor in part.actors)),
        dependencies=lambda: {
            key: value for part in parts if part.dependencies for key, value in part.dependencies().items()
        },
        retry=parts[0].retry,
        limits={name: limit for part in parts for name, limit in part.limits.items()},
        mailbox_messages=min(part.mailbox_messages for part in parts),
    )


def unique(actors: Iterable[Any]) -> Iterable[Any]:
    return dict.fromkeys(actors)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_that_is_over_leaves_state_and_nothing_else(name: str) -> None:
    for seed in range(max(1, level().runs // 200)):
        run_and_look(WORKLOADS[name], seed)


@pytest.mark.parametrize("names", QUICK_MIXES, ids="+".join)
def test_workloads_beside_each_other_leave_state_and_nothing_else(names: Sequence[str]) -> None:
    run_and_look(mixed(names), 0)


@pytest.mark.slow
def test_any_mix_of_workloads_leaves_state_and_nothing_else() -> None:
    for seed in range(level().runs // 100):
        names = Random(f"mix {seed}").sample(MIXED, AT_ONCE)
        try:
            run_and_look(mixed(names), seed)
        except BaseException as error:
            error.add_note(f"This is seed {seed} of {' + '.join(names)}.")
            raise
