"""The workload `trees`: random trees of acts end as a plain reading of them says."""

from __future__ import annotations

from durably.actors.retry import RetryPolicy
from durably.errors import TerminalError
from durably.testing import Workload
from durably.testing.simulation.simulation import Simulation
from workloads.acts import OBJECTS, Act, Maker, Node, Worker, World, make_root
from workloads.program_parts import (
    all_of,
    looked,
    randomness,
    restart_at_times,
    until_all_ended,
    wander,
)
from workloads.reference_model import check_ledger, check_log, read_roots

SIZES = (6, 12, 25)


async def program(sim: Simulation) -> None:
    """Some roots are asked for by a client each, while others look; the end is as the model says."""
    random = randomness(sim)
    maker = Maker(random, random.choice(SIZES))
    roots = [make_root(maker) for _ in range(random.randint(1, 4))]
    expected, answers = read_roots(roots)
    told: dict[int, str] = {}

    async def ask(root: Act) -> None:
        await wander(sim, random)
        carry = sim.client(f"asker {root.number}").object(Node, str(root.target)).carry
        try:
            if root.kind == "call":
                told[root.number] = await carry(root)
            elif root.kind == "send":
                told[root.number] = await (await carry.send(root)).result()
            else:
                await carry.after(root.amount).send(root)
        except TerminalError as error:
            told[root.number] = f"failed: {error}"

    async def look(index: int) -> None:
        """What somebody outside has seen cannot be taken back."""
        seen = 0
        node = sim.client(f"looker {index}", insists=False).object(Node, str(index))
        for _ in range(3):
            await wander(sim, random)
            total = await looked(sim, node.look)
            assert seen <= total <= expected.totals[index], f"the total of object {index} went from {seen} to {total}"
            seen = total

    await all_of(*map(ask, roots), *map(look, range(random.randint(0, OBJECTS))), restart_at_times(sim, random))
    await until_all_ended(sim)
    assert told == answers, f"the answers are {told}, not {answers}"
    for index in range(OBJECTS):
        node = sim.snapshots[Node, str(index)]
        assert node.total == expected.totals[index], f"the total of object {index}: {node.total}"
        check_log(index, node.log, expected)
    check_ledger(sim.actions(), expected, sim.lives, sim.failed_attempts, sim.actions(of_owners=True))


TREES = Workload(
    program=program, actors=(Node, Worker), dependencies=lambda: {World: World()}, retry=RetryPolicy(initial=0.5)
)
