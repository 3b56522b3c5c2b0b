"""The workload `topics`: records of a system outside, whose source fails and gives records again as it likes.

Each record becomes one message, and those of one key come in order, whatever the messages do meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any

from durably import (
    HandlerMistakeError,
    InvocationStatusError,
    ObjectContext,
    RetryPolicy,
    TerminalError,
    UnknownTargetError,
    VirtualObject,
    handler,
    state,
)
from durably.sources import Feed, SourceRecord
from durably.testing import Simulation, Topic, TopicSource, Workload
from workloads import program_parts
from workloads.program_parts import all_of, randomness, restart_at_times, wander

KEYS = "abcd"


class World:
    """What is outside: a topic, and whether the code is mended, which crashes do not undo."""

    def __init__(self) -> None:
        self.topic = Topic(partitions=2)
        self.is_mended = False


class Reader(VirtualObject, name="SoakReader"):
    """Reads the records of its key."""

    read: list[int] = state(default=[])

    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def take(self, ctx: ObjectContext, number: int, how: str) -> None:
        match how:
            case "slow":
                await ctx.sleep(20)
            case "crash" if ctx.request.attempt < 3:
                raise RuntimeError("not yet")
            case "stop" if not self.world.is_mended:
                raise HandlerMistakeError("this code is to be mended")
            case "fail":
                raise TerminalError("this is not read")
            case _:
                pass
        self.read.append(number)


class Unreliable(TopicSource):
    """Begins anew before what it is told, and fails every few polls."""

    def __init__(self, topic: Topic, chance: Random) -> None:
        super().__init__(topic, most_at_once=chance.choice((1, 2, 5)))
        self._chance = chance

    async def open(self, positions: Mapping[str, int], /) -> Mapping[str, int]:
        self._may_fail()
        earlier = {name: max(0, position - self._chance.randrange(3)) for name, position in positions.items()}
        return await super().open(earlier)

    async def poll(self) -> Sequence[SourceRecord]:
        self._may_fail()
        records = await super().poll()
        self._may_fail()
        return records

    def _may_fail(self) -> None:
        if self._chance.random() < 0.1:
            raise ConnectionError("the brokers are away")


async def program(sim: Simulation) -> None:
    """Records come in from several sides."""
    sim.allow_pauses()
    random = randomness(sim)
    world: World = sim.dependencies[World]
    expected: dict[str, list[int]] = {key: [] for key in KEYS}
    held_up: set[str] = set()

    async def produce(first: int) -> None:
        for number in range(first, first + random.choice((1, 5, 10))):
            await wander(sim, random)
            key, how = random.choice(KEYS), random.choice(("", "", "", "", "slow", "crash", "fail", "stop"))
            world.topic.put(f'{{"number": {number}, "how": "{how}"}}'.encode(), key=key)
            if how == "stop":
                held_up.add(key)
            if how != "fail":
                expected[key].append(number)

    await all_of(produce(0), produce(100), restart_at_times(sim, random))
    await read_all(sim, {key: numbers for key, numbers in expected.items() if key not in held_up})
    world.is_mended = True
    await read_all(sim, expected)
    await sim.advance(seconds=60)  # Nothing comes twice.
    await program_parts.until_all_ended(sim)
    await read_all(sim, expected)


async def read_all(sim: Simulation, expected: Mapping[str, Sequence[int]]) -> None:
    """Wait until these objects have read their records, and somebody has resumed what is paused."""
    for _ in range(program_parts.PATIENCE):
        await sim.settle()
        if all(len(sim.snapshots[Reader, key].read) >= len(numbers) for key, numbers in expected.items()):
            break
        for id in sim.paused if sim.dependencies[World].is_mended else ():
            with suppress(InvocationStatusError, UnknownTargetError):
                await sim.client("caretaker").resume(id)
        await sim.advance(seconds=30)
    for key, numbers in expected.items():
        read = sim.snapshots[Reader, key].read
        assert read == numbers, f"{key} was to read {numbers}, and has read {read}"


def _feeds(dependencies: Mapping[Any, Any]) -> Sequence[Feed]:
    topic = dependencies[World].topic
    chance = Random(len(topic.partitions["0"]))
    return [Feed(Unreliable(topic, chance), Reader.take, in_flight=chance.choice((1, 3, 1_000)))]


TOPICS = Workload(
    program=program,
    actors=(Reader,),
    dependencies=lambda: {World: World()},
    sources=_feeds,
    retry=RetryPolicy(initial=0.5),
)
