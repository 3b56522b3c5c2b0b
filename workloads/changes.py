"""The workload `changes`: code changes under open journals, and each invocation keeps the code that it began with.

The program stops at some time and starts with other code, which asks `ctx.patched` (rule W4). What had begun before
goes on as it began, also when it is replayed; what begins after that runs the new code. The marks say which it was.
"""

from __future__ import annotations

import asyncio

from durably import Context, ObjectContext, RetryPolicy, Service, VirtualObject, handler, state
from durably.testing import Simulation, Workload
from workloads.program_parts import all_of, randomness, until_all_ended, wander


class Parcels(VirtualObject, name="SoakParcels"):
    """Handles one parcel after the other, as it was."""

    done: list[str] = state(default=[])

    @handler
    async def handle(self, ctx: ObjectContext, number: int, seconds: float) -> list[str]:
        marks = [f"pack {number}"]
        self.done.append(marks[-1])
        await ctx.run("pack", effect)
        await ctx.sleep(seconds)
        marks.append(f"send {number}")
        self.done.append(marks[-1])
        return marks


class ChangedParcels(VirtualObject, name="SoakParcels"):
    """The same with two changes, one before the first wait and one after it."""

    done: list[str] = state(default=[])

    @handler
    async def handle(self, ctx: ObjectContext, number: int, seconds: float) -> list[str]:
        marks: list[str] = []
        if ctx.patched("weigh"):
            marks.append(f"weigh {number}")
            self.done.append(marks[-1])
            await ctx.run("weigh", effect)
        marks.append(f"pack {number}")
        self.done.append(marks[-1])
        await ctx.run("pack", effect)
        await ctx.sleep(seconds)
        assert ctx.patched("weigh") is (len(marks) > 1), "a change has two answers"
        if ctx.patched("seal"):
            marks.append(f"seal {number}")
            self.done.append(marks[-1])
            await ctx.sleep(0.5)
        marks.append(f"send {number}")
        self.done.append(marks[-1])
        return marks


class Courier(Service, name="SoakCourier"):
    """Asks from a handler; this one stays as it is."""

    @handler
    async def bring(self, ctx: Context, key: str, number: int, seconds: float) -> list[str]:
        return await ctx.object(Parcels, key).handle(number, seconds)


async def effect() -> None:
    await asyncio.sleep(0.001)


async def program(sim: Simulation) -> None:
    """Some ask all the time, and the code changes."""
    random = randomness(sim)
    answers: dict[int, list[str]] = {}
    is_changed = False

    async def customer(name: str, first: int) -> None:
        client = sim.client(name)
        for number in range(first, first + random.randint(1, 5)):
            await wander(sim, random)
            key, seconds, asked_after = random.choice("ab"), random.choice((0.0, 0.5, 30.0)), is_changed
            if random.random() < 0.5:
                marks = await client.service(Courier).bring(key, number, seconds)
            else:
                marks = await client.object(Parcels, key).handle(number, seconds)
            answers[number] = marks
            actions = [mark.split()[0] for mark in marks]
            assert actions[-1] == "send"
            assert "pack" in actions
            if asked_after:
                assert actions == ["weigh", "pack", "seal", "send"], f"{number} was asked for after the change: {marks}"
            if "weigh" in actions:
                assert "seal" in actions, f"{number} began with the new code, and forgot it: {marks}"

    async def change() -> None:
        nonlocal is_changed
        await wander(sim, random)
        await sim.restart(ChangedParcels, Courier)
        is_changed = True

    await all_of(*(customer(name, place * 100) for place, name in enumerate("abc")), change())
    await until_all_ended(sim)
    done = [mark for key in "ab" for mark in sim.snapshots[ChangedParcels, key].done]
    for number, marks in answers.items():
        kept = [mark for mark in done if mark.split()[1] == f"{number}"]
        assert kept == marks, f"{number} answered {marks}, and left {kept}"


CHANGES = Workload(program=program, actors=(Parcels, Courier), retry=RetryPolicy(initial=0.5))
