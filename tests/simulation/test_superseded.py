"""Two processes may be there at once: the one that was superseded lets nothing out, and clients lose nothing."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from durably import ObjectContext, SharedContext, VirtualObject, handler, shared, state
from durably.errors import CancelledInvocationError
from durably.runtime.gateway.control import Verb
from durably.testing import Faults, Simulation, simulate


class Tally(VirtualObject, name="SupersededTally"):
    """Counts, and lets others look."""

    count: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext) -> int:
        self.count += 1
        return self.count

    @shared
    async def look(self, ctx: SharedContext) -> int:
        return self.count

    @shared
    async def look_long(self, ctx: SharedContext) -> int:
        await ctx.sleep(100)
        return self.count


async def add_and_look(sim: Simulation) -> None:
    """What was acknowledged is seen by whoever looks later, whichever process he reaches."""
    added = 0

    async def look(name: str) -> None:
        for _ in range(10):
            before = added
            await sim.advance(0.5)
            assert await sim.client(name).object(Tally, "x").look() >= before

    looking = [asyncio.create_task(look(name)) for name in ("bob", "eve")]
    for _ in range(10):
        added = await sim.client("ann").object(Tally, "x").add()
        await sim.advance(0.5)
    await asyncio.gather(*looking)
    assert added == 10


@pytest.mark.parametrize("way", ["loses the lock of its store", "stands still"])
def test_a_process_lives_on_beside_the_one_that_took_its_store_over(way: str) -> None:
    found = 0
    for seed in range(10):
        with Simulation(Tally, seed=seed, faults=Faults.superseded(at="after_commit:3")) as sim:
            sim.run(add_and_look(sim))
            sim.finish()
            told = [entry.what for entry in sim.trace.entries if entry.who == "process 1"]
            places = [place for place, what in enumerate(told) if what.startswith(way)]
            if places:
                found += 1
                assert sim.lives == 2
                assert "is not the owner of the store any more" in told[places[0] :]
                assert told[-1] == "is killed: it was superseded"
                reached = [entry.what for entry in sim.trace.entries if "serves no callers any more" in entry.what]
                assert not reached or any(what.startswith("stops for good") for what in told)
    assert found >= 2


def test_processes_are_superseded_again_and_again_and_nothing_is_lost() -> None:
    report = simulate(add_and_look, Tally, runs=40, faults=Faults.superseded(rate=0.2) | Faults.crash(rate=0.1))
    assert report.faults["superseded"] > 40
    assert report.crashes > 40


async def look_long_and_cancel(sim: Simulation) -> None:
    """Whom a cancel reaches, the owner or the one before it, reads an invocation that only the owner has in memory."""

    async def ask(name: str) -> None:
        for _ in range(4):
            client = sim.client(name)
            sent = await client.object(Tally, "x").look_long.send()
            await client.act(Verb.CANCEL, sent.id)
            with suppress(CancelledInvocationError):
                await sent.result()

    await asyncio.gather(*map(ask, ("ann", "bob", "eve")))


def test_what_a_successor_accepted_is_not_looked_for_for_ever() -> None:
    report = simulate(look_long_and_cancel, Tally, runs=60, faults=Faults.superseded(rate=0.2), most_callbacks=50_000)
    assert report.faults["superseded"] > 60


def test_a_process_that_is_superseded_while_it_is_restarted_is_replaced_by_the_new_code() -> None:
    class Renewed(Tally, name="SupersededTally"):
        @handler
        async def add(self, ctx: ObjectContext) -> int:
            self.count += 100
            return self.count

    async def program(sim: Simulation) -> None:
        assert await sim.object(Tally, "x").add() == 1
        await sim.restart(Renewed)
        assert await sim.object(Renewed, "x").add() == 101

    simulate(program, Tally, runs=60, faults=Faults.superseded(rate=0.5, lasts=2) | Faults.slow(rate=0.3))


OVERTAKEN_STARTS = [
    Faults.superseded(at="before_commit:1", lasts=30) | Faults.commit_fails(at="before_commit:1") | more
    for more in (
        Faults.none(),
        Faults.commit_fails(at="before_commit:2"),
        Faults.crash(at="before_commit:2"),
        Faults.crash(at="before_commit:2+17") | Faults.disk_full(at="before_commit:3"),
    )
]


async def three_calls(sim: Simulation) -> None:
    """A correct program, as short as users write them."""
    for count in (1, 2, 3):
        assert await sim.object(Tally, "x").add() == count


@pytest.mark.parametrize("faults", OVERTAKEN_STARTS, ids=str)
def test_a_process_that_is_superseded_while_it_starts_gives_up_for_good(faults: Faults) -> None:
    given_up = 0
    for seed in range(11, 26):
        with Simulation(Tally, seed=seed, faults=faults) as sim:
            sim.run(three_calls(sim))
            sim.finish()
            told = [entry.what for entry in sim.trace.entries if entry.who == "process 1"]
            if any(what.startswith("gives up starting") for what in told):
                given_up += 1
                assert "has started" not in told
    assert given_up >= 2


def test_a_correct_program_of_three_calls_bears_whatever_the_seed_chooses() -> None:
    simulate(three_calls, Tally, seed=328)
