"""The workload `queues`: more comes than may be under way at once, keys are paused, and processes die and restart.

Events and records wait behind messages that are slow or have stopped, and behind other handlers of their objects that
have. People resume some of these, and cancel or kill others. Where there is room, what is for other keys goes on; in
the end each object has heard all that is for it, in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

from durably import (
    Context,
    HandlerMistakeError,
    InvocationStatusError,
    ObjectContext,
    RetryPolicy,
    Service,
    UnknownTargetError,
    VirtualObject,
    handler,
    state,
)
from durably.events import subscribe
from durably.runtime.gateway.control import Verb
from durably.sources import Feed
from durably.testing import Simulation, Topic, TopicSource, Workload
from workloads import program_parts
from workloads.program_parts import all_of, randomness, restart_at_times, until_all_ended, wander

KEYS = "abc"


@dataclass
class Rung:
    """The bell of a key has rung."""

    key: str
    number: int
    how: str


class Outside:
    """A topic, and whether the code is mended, which crashes do not undo."""

    def __init__(self) -> None:
        self.topic = Topic()
        self.is_mended = False


class Porter(VirtualObject, name="SoakPorter"):
    """Hears records and events of its key, one after the other; a round of its own holds them up meanwhile."""

    records: list[int] = state(default=[])
    events: list[int] = state(default=[])
    copies: list[int] = state(default=[])

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    @handler
    async def take(self, ctx: ObjectContext, number: int, how: str) -> None:
        await behave(ctx, how, self._outside)
        self.records.append(number)

    @subscribe(Rung, key=lambda event: event.key, start="beginning")
    async def hear(self, ctx: ObjectContext, event: Rung) -> None:
        await behave(ctx, event.how, self._outside)
        self.events.append(event.number)

    @handler
    async def note(self, ctx: ObjectContext, number: int) -> None:
        self.copies.append(number)

    @handler
    async def round(self, ctx: ObjectContext, how: str) -> None:
        await ctx.sleep(1)
        await behave(ctx, how, self._outside)


class Copier(Service, name="SoakCopier"):
    """Hears of the same events as a service."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    @subscribe(Rung, start="beginning")
    async def copy(self, ctx: Context, event: Rung) -> None:
        await behave(ctx, event.how, self._outside)
        await ctx.object(Porter, event.key).note.send(event.number)


async def behave(ctx: Context | ObjectContext, how: str, outside: Outside) -> None:
    """Be slow, or stop until the code is mended."""
    match how:
        case "slow":
            await ctx.sleep(20)
        case "stop" if not outside.is_mended:
            raise HandlerMistakeError("this code is to be mended")
        case _:
            pass


class Told:
    """What each key is to hear, in order."""

    def __init__(self) -> None:
        self.records: dict[str, list[int]] = {key: [] for key in KEYS}
        self.events: dict[str, list[int]] = {key: [] for key in KEYS}
        self.rounds: list[str] = []
        """Ids of rounds, which may be cancelled."""


async def program(sim: Simulation) -> None:
    """Two sides tell, one sends porters on rounds, one lets go on what is paused."""
    sim.allow_pauses()
    random, told = randomness(sim), Told()
    outside: Outside = sim.dependencies[Outside]
    await all_of(
        _produce(sim, random, told, outside.topic),
        _publish(sim, random, told),
        _make_rounds(sim, random, told),
        _let_go(sim, random, told),
        restart_at_times(sim, random),
        restart_at_times(sim, random),
    )
    outside.is_mended = True
    for _ in range(program_parts.PATIENCE):
        await sim.settle()
        if _is_all_heard(sim, told):
            break
        await _resume(sim, [*sim.paused])
        await sim.advance(seconds=30)
    await sim.advance(seconds=60)  # Nothing comes twice.
    await until_all_ended(sim)
    for key in KEYS:
        porter = sim.snapshots[Porter, key]
        assert porter.records == told.records[key], f"{key} has taken {porter.records}"
        assert porter.events == told.events[key], f"{key} has heard {porter.events}"
        assert porter.copies == told.events[key], f"{key} has copies of {porter.copies}"


def _is_all_heard(sim: Simulation, told: Told) -> bool:
    porters = {key: sim.snapshots[Porter, key] for key in KEYS}
    return not sim.paused and all(
        len(porter.records) == len(told.records[key])
        and len(porter.events) == len(porter.copies) == len(told.events[key])
        for key, porter in porters.items()
    )


async def _produce(sim: Simulation, random: Random, told: Told, topic: Topic) -> None:
    for number in range(random.choice((3, 8, 16))):
        if random.random() < 0.4:
            await wander(sim, random)
        key, how = random.choice(KEYS), random.choice(("", "", "slow", "slow", "stop"))
        topic.put(f'{{"number": {number}, "how": "{how}"}}'.encode(), key=key)
        told.records[key].append(number)


async def _publish(sim: Simulation, random: Random, told: Told) -> None:
    client = sim.client("the bell")
    for number in range(random.choice((3, 8, 16))):
        if random.random() < 0.4:
            await wander(sim, random)
        key, how = random.choice(KEYS), random.choice(("", "", "slow", "slow", "stop"))
        await client.publish(Rung(key, number, how), key=key, idempotency_key=f"ring {number}")
        told.events[key].append(number)


async def _make_rounds(sim: Simulation, random: Random, told: Told) -> None:
    client = sim.client("the office")
    for number in range(random.choice((0, 2, 4))):
        await wander(sim, random)
        key, how = random.choice(KEYS), random.choice(("", "stop", "stop"))
        sent = await client.object(Porter, key).round.options(idempotency_key=f"round {number}").send(how)
        told.rounds.append(sent.id)


async def _let_go(sim: Simulation, random: Random, told: Told) -> None:
    """What stops is resumed, and stops again; rounds that have stopped are ended otherwise, too."""
    operator = sim.client("operator")
    for _ in range(random.choice((0, 3, 6))):
        await wander(sim, random)
        paused = [*sim.paused]
        if not paused:
            continue
        id = random.choice(paused)
        verb = random.choice((Verb.RESUME, Verb.CANCEL, Verb.KILL)) if id in told.rounds else Verb.RESUME
        with suppress(InvocationStatusError, UnknownTargetError):
            await operator.act(verb, id)


async def _resume(sim: Simulation, ids: Sequence[str]) -> None:
    for id in ids:
        with suppress(InvocationStatusError, UnknownTargetError):
            await sim.client("operator").act(Verb.RESUME, id)


def _feeds(dependencies: Mapping[Any, Any]) -> Sequence[Feed]:
    topic = dependencies[Outside].topic
    chance = Random(len(topic.partitions["0"]))
    source = TopicSource(topic, most_at_once=chance.choice((1, 2)))
    return [Feed(source, Porter.take, name="porters", in_flight=chance.choice((1, 2, 3)))]


QUEUES = Workload(
    program=program,
    actors=(Porter, Copier),
    dependencies=lambda: {Outside: Outside()},
    sources=_feeds,
    retry=RetryPolicy(initial=0.5),
)
