"""The workload `edits`: the state of objects is replaced from outside, between and behind what they do themselves.

Each ledger belongs to one client, which knows what is in it: what it has put there since it was edited last. Edits that
were made for another state than the ledger has by then change nothing.
"""

from __future__ import annotations

from random import Random

import msgspec

from durably import ObjectContext, VirtualObject, handler, state
from durably.runtime.lifecycle.state_edits import state_version
from durably.testing import Simulation, Workload
from workloads.program_parts import UNKNOWN, all_of, randomness, restart_at_times, until_all_ended, wander

STALE = "the version of no state"


class Ledger(VirtualObject, name="SoakLedger"):
    """Keeps numbers."""

    numbers: list[int] = state(default=[])

    @handler
    async def put(self, ctx: ObjectContext, number: int) -> tuple[list[int], list[str]]:
        """The numbers, and the fields of the state."""
        self.numbers.append(number)
        return self.numbers, sorted({*ctx.keys(), "numbers"})

    @handler
    async def put_slowly(self, ctx: ObjectContext, number: int, seconds: float) -> None:
        self.numbers.append(number)
        await ctx.sleep(seconds)


async def program(sim: Simulation) -> None:
    """Everyone keeps a ledger."""
    random = randomness(sim)
    await all_of(
        *(keep(sim, Random(random.getrandbits(64)), number) for number in range(random.choice((1, 2, 3)))),
        restart_at_times(sim, random),
    )
    await until_all_ended(sim)


async def keep(sim: Simulation, random: Random, number: int) -> None:
    """Put numbers into a ledger of one's own, edit it, and know what is in it."""
    client, key = sim.client(f"owner {number}"), f"ledger {number}"
    ledger = client.object(Ledger, key)
    expected: dict[str, bytes] = {}
    for put in range(random.choice((2, 3, 5))):
        await wander(sim, random)
        fresh = {"numbers": _encoded([random.randrange(9) for _ in range(random.choice((0, 1, 3)))])}
        if random.random() < 0.3:
            fresh[f"remark {put}"] = b'"edited"'
        try:
            match random.choice(("put", "edit", "edit behind others", "edit what it is", "edit what it was")):
                case "edit":
                    await client.edit_state(Ledger, key, fresh)
                    expected = fresh
                case "edit behind others":
                    await ledger.put_slowly.send(-1, random.choice((5.0, 100.0)))
                    await ledger.put.send(-2)
                    await client.edit_state(Ledger, key, fresh)
                    expected = fresh
                case "edit what it is":
                    await client.edit_state(Ledger, key, fresh, version=state_version(expected))
                    expected = fresh
                case "edit what it was":
                    await client.edit_state(Ledger, key, fresh, version=STALE)
                case _:
                    pass
        except UNKNOWN:  # It happens, or not, and nobody knows when.
            return
        numbers, fields = await ledger.put(put)
        known = [*msgspec.json.decode(expected.get("numbers", b"[]"), type=list[int]), put]
        assert numbers == known, f"in ledger {number} there is {numbers} instead of {known}"
        expected = {**expected, "numbers": _encoded(known)}
        assert fields == sorted(expected), f"ledger {number} has the fields {fields} instead of {sorted(expected)}"


def _encoded(numbers: list[int]) -> bytes:
    return msgspec.json.encode(numbers)


EDITS = Workload(program=program, actors=(Ledger,))
