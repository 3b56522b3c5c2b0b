"""The workload `retentions`: what is kept for a while, what is begun anew from it, and objects that go.

Each basket belongs to one client, which knows what is in it: what it has put there since the basket was deleted, by
hand or because nobody had come for its `ttl`. Errands fail once, and begin as new behind what they did, with the ids
and random numbers of the steps that they keep. When all retentions are over the store holds state and nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from random import Random

from durably import (
    AlreadyStartedError,
    Context,
    DurableDict,
    InvocationStatusError,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedContext,
    SharedWorkflowContext,
    TerminalError,
    UnknownTargetError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    shared,
    state,
)
from durably.ids import Address
from durably.runtime.gateway.control import Verb
from durably.testing import SimulatedClient, Simulation, Workload
from workloads.program_parts import (
    UNKNOWN,
    all_of,
    randomness,
    records_but_state,
    restart_at_times,
    until_all_ended,
    wander,
)

TTL_SECONDS = 20_000.0
KEPT_SECONDS = 30_000.0
JOURNAL_SECONDS = 15_000.0
LATE_SECONDS = 12_000.0
"""Longer than a request is on its way, and than the cleaner may take."""
HOURS_UNTIL_EMPTY = 200
FULL = 6
LOOKS = 4
"""At a chest that is being deleted."""


class Basket(VirtualObject, name="SoakBasket", ttl=TTL_SECONDS, retention=KEPT_SECONDS):
    """Keeps numbers, until nobody comes for a while."""

    numbers: list[int] = state(default=[])

    @handler
    async def put(self, ctx: ObjectContext, number: int) -> list[int]:
        self.numbers.append(number)
        return self.numbers

    @handler
    async def put_slowly(self, ctx: ObjectContext, number: int, seconds: float) -> list[int]:
        self.numbers.append(number)
        await ctx.sleep(seconds)
        return self.numbers


class Chest(VirtualObject, name="SoakChest", ttl=TTL_SECONDS, retention=KEPT_SECONDS):
    """The same, and nothing of it is loaded with the object (rule V7)."""

    numbers: DurableDict[int, int] = state()

    @handler
    async def put(self, ctx: ObjectContext, number: int) -> list[int]:
        self.numbers[number] = number
        return [number async for number, _ in self.numbers.items()]

    @handler
    async def put_slowly(self, ctx: ObjectContext, number: int, seconds: float) -> list[int]:
        self.numbers[number] = number
        await ctx.sleep(seconds)
        return [number async for number, _ in self.numbers.items()]

    @shared
    async def look(self, ctx: SharedContext) -> list[int]:
        return [number async for number, _ in self.numbers.items()]


class Log(VirtualObject, name="SoakRetentionLog"):
    """Keeps what errands write, for ever."""

    lines: list[str] = state(default=[])

    @handler
    async def write(self, ctx: ObjectContext, line: str) -> None:
        self.lines.append(line)


class Errand(Service, name="SoakErrand", retention=KEPT_SECONDS, journal_retention=JOURNAL_SECONDS):
    """Fails if it has an idempotency key, which what begins as new has not."""

    @handler
    async def run(self, ctx: Context, number: int) -> str:
        done = f"{number} {ctx.uuid()}-of-{ctx.request.id}"
        await ctx.sleep(1)
        await ctx.object(Log, "errands").write(done)
        seen = f"{done} {ctx.random().random()}"
        sent = await ctx.object(Log, "notes").write.send(f"{number}")
        await ctx.sleep(1)
        seen = f"{seen} {sent.id}"
        await ctx.sleep(1)
        if ctx.request.idempotency_key is not None:
            raise TerminalError(seen)
        return seen


class Stay(Workflow, name="SoakStay", retention=KEPT_SECONDS):
    """Leaves a journal with what a workflow leaves."""

    nights: int = state(default=0)
    rooms: DurableDict[int, int] = state()

    @handler
    async def run(self, ctx: WorkflowContext) -> int:
        self.nights += 1
        for room in range(FULL):
            self.rooms[room] = room
        await ctx.sleep(1)
        return self.nights

    @shared
    async def look(self, ctx: SharedWorkflowContext) -> tuple[int, list[int]]:
        return self.nights, [room async for room, _ in self.rooms.items()]


KEPT_STEPS = 4
"""Of an errand: behind them there is nothing left of what it does but to wait."""


async def program(sim: Simulation) -> None:
    """Everyone does what they do; in the end the store is as empty as it was, but for the log."""
    random = randomness(sim)
    await all_of(
        *(fill(sim, Random(random.getrandbits(64)), number) for number in range(random.choice((1, 2, 3)))),
        *(run_errand(sim, Random(random.getrandbits(64)), number) for number in range(random.choice((1, 2)))),
        stay(sim, random),
        watch_chest(sim),
        restart_at_times(sim, random),
    )
    await until_all_ended(sim)
    await until_empty(sim)
    for line in sim.snapshots[Log, "errands"].lines:
        assert sim.snapshots[Log, "errands"].lines.count(line) == 1, f"{line} was done again by what began as new"


async def fill(sim: Simulation, random: Random, number: int) -> None:
    """Put numbers into a basket of one's own, and know what is in it."""
    client, key, expected = sim.client(f"owner {number}"), f"basket {number}", list[int]()
    kind = random.choice((Basket, Chest))
    basket = client.object(Basket, key) if kind is Basket else client.object(Chest, key)
    for put in range(random.choice((2, 3, 5))):
        match random.choice(("go on", "go on", "delete", "delete behind others", "stay away", "be nearly late")):
            case "delete" | "delete behind others" as how:
                if how == "delete behind others":
                    await basket.put_slowly.send(-1, random.choice((5.0, TTL_SECONDS * 2)))
                    await basket.put.send(-2)
                try:
                    if put % 2:
                        await client.delete_and_wait(kind, key)
                        left = {*sim.disk.state, *sim.disk.entries} & {Address(f"Soak{kind.__name__}", key)}
                        assert not left, f"{left} was deleted, and is there"
                    else:
                        await client.delete(kind, key)
                except UNKNOWN:  # It happens, or not, and nobody knows when.
                    await sim.advance(TTL_SECONDS * 2)  # What is ahead of it has ended.
                    return
                expected = []
            case "stay away":
                await sim.advance(TTL_SECONDS + LATE_SECONDS)
                expected = [] if expected and not sim.clock.jumped_at_us else expected
            case "be nearly late":
                await sim.advance(TTL_SECONDS / 4)
            case _:
                await wander(sim, random)
        is_slow = random.random() < 0.3
        found = await (basket.put_slowly(put, TTL_SECONDS / 10) if is_slow else basket.put(put))
        expected = [*expected, put]
        if sim.clock.jumped_at_us:
            return
        assert found == expected, f"in basket {number} there is {found} instead of {expected}"


async def note_unknown(request: Awaitable[object], unheard: list[Exception]) -> None:
    """Beside others, of which none is to end because of this one."""
    try:
        await request
    except UNKNOWN as error:
        unheard.append(error)


async def watch_chest(sim: Simulation) -> None:
    """A full chest is deleted, and looked at meanwhile: all is there, or nothing, however many portions it goes in."""
    client = sim.client("watcher")
    chest, before = client.object(Chest, "watched"), list[int]()
    with suppress(*UNKNOWN):
        for number in range(FULL):
            before = await chest.put(number)
        await all_of(note_unknown(client.delete_and_wait(Chest, "watched"), []), *(look(chest, before) for _ in "ab"))


async def look(chest: Chest, before: list[int]) -> None:
    for _ in range(LOOKS):
        try:
            seen = await chest.look()
        except UNKNOWN:
            continue
        assert seen in (before, []), f"of {before} in a chest there is {seen} while it is deleted"


async def run_errand(sim: Simulation, random: Random, number: int) -> None:
    """An errand fails, and begins as new from a step."""
    client = sim.client(f"errand {number}")
    sent = await client.service(Errand).run.options(idempotency_key=f"errand {number}").send(number)
    try:
        raise AssertionError(f"an errand that fails ended with {await sent}")
    except TerminalError as error:
        failed = error.message
    for _ in range(random.choice((1, 2))):
        if random.random() < 0.2:
            await sim.advance(JOURNAL_SECONDS + LATE_SECONDS)
        step = random.choice((0, 2, KEPT_STEPS))
        try:
            again = await client.restart_as_new(sent.id, from_step=step)
        except UNKNOWN:
            return
        except (InvocationStatusError, UnknownTargetError) as error:
            if sim.loop.elapsed_us > JOURNAL_SECONDS * 1_000_000 or sim.clock.jumped_at_us:
                return
            raise AssertionError("what has ended a moment ago cannot begin as new") from error
        result = await client.invocation(again, str).result()
        assert result.split()[0] == f"{number}"
        if step:
            assert result.split()[1] == failed.split()[1], "a step that is kept drew another uuid, or has another id"
        assert (result == failed) == (step == KEPT_STEPS), f"from step {step}: {failed}, and then {result}"
        assert sim.disk.find(again) is not None, "the journal of what began as new is not kept"
    if number:
        await forget_journal(client, sent.id, failed, as_program=random.random() < 0.5)


async def forget_journal(client: SimulatedClient, id: str, failed: str, *, as_program: bool) -> None:
    """Without its journal, what has ended keeps its outcome, and cannot begin as new from a step."""
    with suppress(UnknownTargetError):  # Its retention may be over.
        if as_program:
            await client.act_on_all(Verb.PURGE_JOURNAL, id)
        else:
            await client.act(Verb.PURGE_JOURNAL, id)
    try:
        await client.restart_as_new(id, from_step=KEPT_STEPS)
    except (*UNKNOWN, InvocationStatusError, UnknownTargetError):
        pass
    else:
        raise AssertionError(f"{id} began as new from a step of the journal that was forgotten")
    with suppress(UnknownTargetError):
        told = await outcome_of(client, id)
        assert told == failed, f"without its journal, what had failed with {failed} ended with {told}"


async def outcome_of(client: SimulatedClient, id: str) -> str:
    try:
        return await client.invocation(id, str).output()
    except UnknownTargetError:
        raise
    except TerminalError as error:
        return error.message


LEFT_BY_A_STAY = (1, [*range(FULL)])


async def stay(sim: Simulation, random: Random) -> None:
    """A guest stays, all of that is forgotten, and the guest comes again as if for the first time."""
    await wander(sim, random)
    client = sim.client("guest")
    with suppress(*UNKNOWN):
        stays = client.workflow(Stay, "s")
        first = await stays.run.send()
        assert await first.result() == 1
        assert await stays.look() == LEFT_BY_A_STAY or sim.clock.jumped_at_us
        unheard: list[Exception] = []
        await all_of(note_unknown(client.act(Verb.PURGE, first.id), unheard), look_back(sim, stays))
        if unheard:
            return
        try:
            again = await stays.run()
        except AlreadyStartedError:  # It goes when a handler has ended that looks at it still.
            await sim.advance(LATE_SECONDS)
            if sim.clock.jumped_at_us:
                return
            again = await stays.run()
        assert again == 1
        seen = await stays.look()
        assert seen == LEFT_BY_A_STAY or sim.clock.jumped_at_us, f"the second stay left {seen}"


async def look_back(sim: Simulation, stays: Stay) -> None:
    """While it is forgotten: all of it is there, or nothing; what has gone does not come back."""
    gone: tuple[int, list[int]] = (0, [])
    may_be = [LEFT_BY_A_STAY, gone]
    for _ in range(LOOKS):
        try:
            seen = await stays.look()
        except UNKNOWN:
            continue
        assert seen in may_be, f"of a stay that is being forgotten there is {seen}"
        may_be = may_be[may_be.index(seen) :]


async def until_empty(sim: Simulation) -> None:
    """The law: when all has ended and its time is over, the store holds state and nothing else."""
    for _ in range(HOURS_UNTIL_EMPTY):
        await sim.settle()
        if not left_in(sim):
            return
        await sim.advance(3_600)
    raise AssertionError(f"the store still holds {left_in(sim)}")


def left_in(sim: Simulation) -> list[object]:
    """What is stored and should have gone."""
    disk = sim.disk
    kept = [address for address in (*disk.state, *disk.entries) if address.service not in ("", "SoakRetentionLog")]
    return [*records_but_state(sim).values(), *kept]


RETENTIONS = Workload(program=program, actors=(Basket, Chest, Log, Errand, Stay), retry=RetryPolicy(initial=0.5))
