"""The workload `machines`: objects of a model, their transitions, consumers that hear of them, and queries.

Clients make objects and let them go from state to state, while others count them and processes die. In the end each
object has gone the way that its history tells, each consumer has heard of each of its transitions once and in order,
and queries agree with what the objects say.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

from durably import Context, ObjectContext, RetryPolicy, Service, VirtualObject, handler, state
from durably.models import Machine, Model, Transition, TransitionContext, consumer, initial, transition
from durably.testing import Simulation, Workload
from workloads.program_parts import all_of, looked, randomness, until_all_ended, wander


class Diary(VirtualObject, name="SoakDiary"):
    """What one consumer has heard of one object."""

    heard: list[str] = state(default=[])

    @handler
    async def note(self, ctx: ObjectContext, transition_id: str) -> None:
        self.heard.append(transition_id)


class Parcel(Model, prefix="parcel", index=("weight",)):
    """What is sent."""

    weight: int


class Packed(Parcel):
    """Not sent yet."""


class Sent(Parcel):
    """On its way."""

    stops: int = 0


class Delivered(Parcel):
    """At its end."""

    stops: int


class Parcels(Machine[Parcel], name="SoakParcels"):
    """From one state to the next."""

    @initial
    async def pack(self, ctx: TransitionContext, weight: int) -> Packed:
        return Packed(weight=weight)

    @transition
    async def send(self, ctx: TransitionContext, parcel: Packed) -> Sent:
        return Sent.of(parcel)

    @transition
    async def stop_over(self, ctx: TransitionContext, parcel: Sent) -> Sent:
        await ctx.sleep(0.01)
        return Sent.of(parcel, stops=parcel.stops + 1)

    @transition
    async def deliver(self, ctx: TransitionContext, parcel: Sent) -> Delivered:
        return Delivered.of(parcel)

    @consumer(send, name="Carrier")
    async def carry(self, ctx: Any, parcel: Parcel, made: Transition) -> None:
        if isinstance(parcel, Sent):
            parcels = ctx.machine(Parcels)
            for _ in range(parcel.weight % 2):
                await parcels.stop_over(parcel)
            await parcels.deliver(parcel)

    @consumer(name="Clerk", start="beginning")
    async def keep(self, ctx: Any, parcel: Parcel, made: Transition) -> None:
        await ctx.object(Diary, f"clerk {made.object_id}").note(made.id)

    @consumer(send, pack, name="Guard")
    async def watch(self, ctx: Any, parcel: Parcel, made: Transition) -> None:
        await ctx.object(Diary, f"guard {made.object_id}").note(made.id)


class Office(Service, name="SoakOffice"):
    """Packs parcels, and sees at once that they are there."""

    @handler
    async def pack(self, ctx: Context, weight: int) -> str:
        parcels = ctx.machine(Parcels)
        parcel, _ = await parcels.pack(weight)
        assert await parcels.find_all(Packed, id=parcel.id) == [parcel], "a query tells of what was done before"
        return parcel.id


async def program(sim: Simulation) -> None:
    """Clients with parcels, and one who counts them."""
    random = randomness(sim)
    made: list[str] = []

    async def post(client: str, weight: int, is_sent: bool) -> None:
        parcels = sim.client(client).machine(Parcels)
        await wander(sim, random)
        parcel, _ = await parcels.pack.options(idempotency_key=f"pack {client}")(weight)
        made.append(parcel.id)
        if is_sent:
            await wander(sim, random)
            await parcels.send.options(idempotency_key=f"send {client}")(parcel)

    async def have_packed() -> None:
        office = sim.client("office").service(Office)
        made.append(await office.pack.options(idempotency_key="office")(0))

    async def count() -> None:
        parcels = sim.client("counter").machine(Parcels)
        for _ in range(random.randint(0, 3)):
            await wander(sim, random)
            before = len(made)
            there = await looked(sim, lambda: parcels.count(Parcel))
            assert there >= before, f"{there} parcels are there, and {before} had been answered before that was asked"

    posts = [
        (f"client {number}", random.randint(0, 3), random.random() < 0.8) for number in range(random.randint(1, 4))
    ]
    await all_of(count(), have_packed(), *(post(*one) for one in posts))
    await until_all_ended(sim)
    parcels = sim.machine(Parcels)
    for id in made:
        await _check(sim, id, await parcels.get_object_transitions(id))
    assert len(made) == len(posts) + 1
    states: dict[type[Parcel], list[str]] = defaultdict(list)
    for id in made:
        states[type(await parcels.find_one_or_raise(Parcel, id=id))].append(id)
    for kind in (Packed, Sent, Delivered):
        assert [one.id for one in await parcels.find_all(kind)] == sorted(states[kind]), (
            f"the query for {kind.__name__}"
        )
    assert not states[Sent], "a parcel that was sent is carried to its end"
    heavy = await parcels.find_all(Parcel, lambda parcel: parcel.weight > 1, order_by=lambda parcel: parcel.weight)
    assert [one.weight for one in heavy] == sorted(weight for _, weight, _ in posts if weight > 1)


async def _check(sim: Simulation, id: str, latest_first: list[Transition]) -> None:
    """The history of one parcel is a way through its states, and each consumer has heard of it once and in order."""
    history = latest_first[::-1]
    assert history[0].name == "pack"
    assert all(one.target == later.source for one, later in pairwise(history)), [one.name for one in history]
    assert sim.snapshots[Diary, f"clerk {id}"].heard == [one.id for one in history], f"the clerk of {id}"
    seen = [one.id for one in history if one.name in ("pack", "send")]
    assert sim.snapshots[Diary, f"guard {id}"].heard == seen, f"the guard of {id}"


MACHINES = Workload(program=program, actors=(Parcels, Diary, Office), retry=RetryPolicy(initial=0.5))
