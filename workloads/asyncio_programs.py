"""The workload `asyncio_programs`: handlers use all of asyncio, and their answers are what their arguments say.

Whoever races, limits or cancels may end in more than one way; the answer then tells which, and the shelf, which keeps
what reached it, and the ledger of side effects have to agree with it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import msgspec

from durably.actors.actor import Service, VirtualObject
from durably.actors.context import Context, ObjectContext, SharedContext
from durably.actors.decorators import handler, shared
from durably.actors.retry import RetryPolicy
from durably.actors.select import select
from durably.actors.state import state
from durably.errors import TerminalError
from durably.testing import Workload
from durably.testing.simulation.simulation import Simulation
from workloads.acts import Oops, World
from workloads.program_parts import (
    all_of,
    randomness,
    restart_at_times,
    until_all_ended,
    wander,
)

SHELVES = 3
KINDS = (
    "queue", "group", "failing_group", "race", "limit", "first_of", "locked", "patient_run", "hopeless_run", "given_up",
    "deep", "handles",
)  # fmt: skip
WAYS_TO_END = {"race": ("fast", "slow"), "limit": ("in time", "too late")}


class Errand(msgspec.Struct, frozen=True):
    """What is to be done. `number` is unique within the run and a multiple of 100; parts count on from there."""

    kind: str
    number: int
    size: int


class Shelf(VirtualObject, name="SoakShelf"):
    """Keeps what is put on it."""

    things: list[int] = state(default=[])

    @handler
    async def put(self, ctx: ObjectContext, thing: int) -> int:
        """Put something there."""
        self.things.append(thing)
        return thing

    @handler
    async def put_and_tell(self, ctx: ObjectContext, thing: int, others: list[str]) -> int:
        """Put something there, and have the next shelf do the same; the answer is how many did."""
        self.things.append(thing)
        if not others:
            return 1
        return 1 + await ctx.object(Shelf, others[0]).put_and_tell(thing, others[1:])

    @handler
    async def refuse(self, ctx: ObjectContext, thing: int) -> int:
        """Fail for good, after a while."""
        await ctx.sleep(0.1)
        raise TerminalError(f"no room for {thing}")

    @shared
    async def look(self, ctx: SharedContext, seconds: float) -> bool:
        """What is there stays there."""
        before = len(self.things)
        await ctx.sleep(seconds)
        return before <= len(self.things)


class Runner(Service, name="SoakRunner"):
    """Runs errands."""

    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def run(self, ctx: Context, errand: Errand) -> str:
        """Run one; the answer says how it ended."""
        return await Running(ctx, self.world, errand).done()


class Running:
    """One errand under way."""

    def __init__(self, ctx: Context, world: World, errand: Errand) -> None:
        self.ctx = ctx
        self.world = world
        self.number = errand.number
        self.size = errand.size
        self.kind = errand.kind

    async def done(self) -> str:
        ways = {
            "queue": self.queue, "group": self.group, "failing_group": self.failing_group, "race": self.race,
            "limit": self.limit, "first_of": self.first_of, "locked": self.locked, "patient_run": self.patient_run,
            "hopeless_run": self.hopeless_run, "given_up": self.given_up, "deep": self.deep, "handles": self.handles,
        }  # fmt: skip
        return await ways[self.kind]()

    def shelf(self, place: int) -> Shelf:
        return self.ctx.object(Shelf, str(place % SHELVES))

    def act(self, part: int, stumbles: int = 0) -> asyncio.Task[int]:
        number = self.number + part
        return asyncio.create_task(self._act(number, stumbles))

    async def _act(self, number: int, stumbles: int) -> int:
        return await self.ctx.run(f"act {number}", self.world.effect, number, stumbles)

    async def queue(self) -> str:
        """A producer and three workers."""
        waiting: asyncio.Queue[int | None] = asyncio.Queue(maxsize=2)
        done: list[int] = []

        async def work() -> None:
            while (part := await waiting.get()) is not None:
                await self.shelf(part).put(self.number + part)
                done.append(part)

        workers = [asyncio.create_task(work()) for _ in range(3)]
        for part in range(self.size):
            await waiting.put(part)
        for _ in workers:
            await waiting.put(None)
        await asyncio.gather(*workers)
        return str(sorted(done))

    async def group(self) -> str:
        """A task group of actions and calls, with a sleep beside them."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(self.size))
            actions = [tasks.create_task(self._act(self.number + part, part % 3)) for part in range(self.size)]
            calls = [tasks.create_task(self._put(part)) for part in range(self.size)]
        return str([task.result() - self.number for task in (*actions, *calls)])

    async def _put(self, part: int) -> int:
        return await self.shelf(part).put(self.number + part)

    async def failing_group(self) -> str:
        """One of a group fails: the others are cancelled, and what they sent stands."""
        await self.shelf(0).put.send(self.number)
        failed = "nothing failed"
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.sleep(86_400 * self.size))
                tasks.create_task(self._refused())
        except* TerminalError as errors:
            failed = str(errors.exceptions[0])
        return failed

    async def _refused(self) -> int:
        return await self.shelf(1).refuse(self.number)

    async def race(self) -> str:
        """An action against a sleep."""
        name, _ = await select(fast=self.act(0), slow=asyncio.create_task(asyncio.sleep(self.size / 1000)))
        return name

    async def limit(self) -> str:
        """A look that takes about as long as it may."""
        try:
            async with asyncio.timeout(1):
                return "in time" if await self.shelf(0).look(self.size / 4) else "things are gone"
        except TimeoutError:
            return "too late"

    async def first_of(self) -> str:
        """Several sleeps: those that lost are cancelled."""
        tasks = [asyncio.create_task(asyncio.sleep(part + 1, part)) for part in range(self.size)]
        done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        return str(min(task.result() for task in done))

    async def locked(self) -> str:
        """Critical sections, one after the other; an event says when all may begin."""
        lock, begin, inside, order = asyncio.Lock(), asyncio.Event(), 0, list[int]()

        async def enter(part: int) -> None:
            nonlocal inside
            await begin.wait()
            async with lock:
                inside += 1
                assert inside == 1
                await self.act(part)
                order.append(part)
                inside -= 1

        tasks = [asyncio.create_task(enter(part)) for part in range(self.size)]
        begin.set()
        await asyncio.gather(*tasks)
        return str(sorted(order))

    async def patient_run(self) -> str:
        """An action that hangs and fails at first, and has enough attempts."""
        run = self.ctx.run.options(retry=RetryPolicy(initial=0.1, max_attempts=50), timeout=5)
        return str(await run(f"act {self.number}", self.world.effect, self.number, self.size) - self.number)

    async def hopeless_run(self) -> str:
        """An action that fails as often as it may."""
        run = self.ctx.run.options(retry=RetryPolicy(initial=0.1, max_attempts=2))
        try:
            await run(f"act {self.number}", self.world.effect, self.number, 1_000_000)
        except TerminalError:
            return "given up"
        return "it worked"

    async def given_up(self) -> str:
        """An action that fails with what no attempt mends; then one in a thread."""
        run = self.ctx.run.options(retry=RetryPolicy(initial=0.1, give_up_on=(Oops,)))
        try:
            await run(f"act {self.number}", self.world.effect, self.number, 1_000_000)
        except TerminalError:
            number = self.number + 1
            return str(await self.ctx.run(f"act {number}", self.world.effect_in_a_thread, number) - number)
        return "it worked"

    async def deep(self) -> str:
        """A call that goes through all shelves."""
        shelves = [str(place) for place in range(SHELVES)]
        return str(await self.ctx.object(Shelf, shelves[0]).put_and_tell(self.number, shelves[1:]))

    async def handles(self) -> str:
        """Messages whose outcomes are asked for, one of them sent twice with a key."""
        put = self.shelf(0).put.options(idempotency_key=f"put {self.number}")
        first, second = await put.send(self.number), await put.send(self.number)
        later = await self.shelf(1).put.after(self.size).send(self.number + 1)
        await later.status()
        answers = await asyncio.gather(first.result(), second.result(), later.result(), put.attach())
        return str([answer - self.number for answer in answers])


def expected_answers(errand: Errand) -> tuple[str, ...]:
    """How it may end."""
    parts = [*range(errand.size)]
    match errand.kind:
        case "queue" | "locked":
            return (str(parts),)
        case "group":
            return (str([*parts, *parts]),)
        case "failing_group":
            return (f"no room for {errand.number}",)
        case "first_of" | "patient_run":
            return ("0",)
        case "hopeless_run":
            return ("given up",)
        case "given_up":
            return ("0",)
        case "deep":
            return (str(SHELVES),)
        case "handles":
            return ("[0, 0, 1, 0]",)
        case _:
            return WAYS_TO_END[errand.kind]


def expected_things(errand: Errand) -> list[tuple[int, int]]:
    """What it puts where: (shelf, thing)."""
    number = errand.number
    match errand.kind:
        case "queue" | "group":
            return [(part % SHELVES, number + part) for part in range(errand.size)]
        case "failing_group":
            return [(0, number)]
        case "deep":
            return [(place, number) for place in range(SHELVES)]
        case "handles":
            return [(0, number), (1, number + 1)]
        case _:
            return []


def expected_attempts(errand: Errand) -> dict[str, int]:
    """How often each action is attempted if nothing crashes; of a race, at least once if it is won."""
    number = errand.number
    match errand.kind:
        case "group":
            return {f"act {number + part}": part % 3 + 1 for part in range(errand.size)}
        case "locked":
            return {f"act {number + part}": 1 for part in range(errand.size)}
        case "patient_run":
            return {f"act {number}": errand.size + 1}
        case "hopeless_run":
            return {f"act {number}": 2}
        case "given_up":
            return {f"act {number}": 1, f"act {number + 1}": 1}
        case _:
            return {}


def make_errand(random: Random, place: int) -> Errand:
    return Errand(random.choice(KINDS), place * 100, random.randint(1, 6))


async def program(sim: Simulation) -> None:
    """Errands are run by clients who insist, some one after the other and some at once."""
    random = randomness(sim)
    errands = [make_errand(random, place) for place in range(1, random.choice((3, 6, 12)))]
    answers: dict[int, str] = {}

    async def ask(name: str, errands: list[Errand]) -> None:
        client = sim.client(name)
        for errand in errands:
            await wander(sim, random)
            answers[errand.number] = await client.service(Runner).run(errand)

    await all_of(*(ask(f"client {place}", errands[place::4]) for place in range(4)), restart_at_times(sim, random))
    await until_all_ended(sim)
    attempts = Counter(sim.actions())
    shelves = {place: Counter(sim.snapshots[Shelf, str(place)].things) for place in range(SHELVES)}
    things = Counter(thing for errand in errands for thing in expected_things(errand))
    assert things == Counter({(place, thing): count for place in shelves for thing, count in shelves[place].items()})
    for errand in errands:
        answer = answers[errand.number]
        assert answer in expected_answers(errand), f"{errand} ended with {answer}"
        for name, count in expected_attempts(errand).items():
            most = count * sim.lives + sim.failed_attempts[name]
            assert count <= attempts[name] <= most, f"{name} of {errand} was attempted {attempts[name]} x"
        if errand.kind == "race" and answer == "fast":
            assert attempts[f"act {errand.number}"], f"{errand} was won by an action that never began"


ASYNCIO_PROGRAMS = Workload(
    program=program, actors=(Runner, Shelf), dependencies=lambda: {World: World()}, retry=RetryPolicy(initial=0.5)
)
