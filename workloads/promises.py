"""The workload `promises`: promises of the machine that take a crash, a wait or a long time to be broken.

Headers are the same on every attempt, and go on with calls; failed attempts are counted through crashes; a shared
handler sees what an exclusive one has changed so far; a handler hears how its messages ended, however long ago; all
messages of a step arrive; a call to one's own object is refused; what is rolled is rolled once; what does not fit its
type fails and is not lost; and a request with an idempotency key that takes longer than outcomes are kept is carried
out once.
"""

from __future__ import annotations

from collections import Counter

from durably import (
    Context,
    DeadlockError,
    InvalidArgumentError,
    Invocation,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedContext,
    TerminalError,
    UndecodableError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.testing import Simulation, Workload
from workloads.program_parts import all_of, randomness, restart_at_times, until_all_ended, wander

MOST_ATTEMPTS = 3
MISTAKEN = (b'{"thing":"%d"}', b'{"thing":[%d]}', b'{"thing":%d', b'{"thin":%d}')
"""Arguments that `Keeper.put` does not take."""
LONG_SECONDS = 200_000.0
"""Longer than outcomes are kept."""


class Attempts:
    """How often handlers that fail were attempted, as the world outside saw it."""

    def __init__(self) -> None:
        self.count: Counter[int] = Counter()


class Keeper(VirtualObject, name="SoakKeeper"):
    """Keeps what arrives."""

    things: list[int] = state(default=[])
    level: int = state(default=0)

    @handler
    async def put(self, ctx: ObjectContext, thing: int) -> int:
        self.things.append(thing)
        return thing

    @handler
    async def raise_to(self, ctx: ObjectContext, level: int, seconds: float) -> int:
        """Change something, and ask a shared handler what it sees while this one waits."""
        self.level = level
        await ctx.sleep(seconds)
        return await ctx.object(Keeper, self.key).look()

    @handler
    async def ask_itself(self, ctx: ObjectContext, thing: int, seconds: float) -> int:
        """Call the object that is busy with this very call, which is answered with an error (rule E8)."""
        await ctx.sleep(seconds)
        try:
            await ctx.object(Keeper, self.key).put(thing)
        except DeadlockError:
            return thing
        return -1

    @shared
    async def look(self, ctx: SharedContext) -> int:
        return self.level

    @handler
    async def take_long(self, ctx: ObjectContext, thing: int) -> int:
        await ctx.sleep(LONG_SECONDS)
        self.things.append(thing)
        return thing

    @shared
    async def header(self, ctx: SharedContext) -> str:
        return ctx.request.headers.get("x-number", "lost")


class Promiser(Service, name="SoakPromiser", forward_headers=["x-number"]):
    """Relies on one promise at a time."""

    def __init__(self, attempts: Attempts) -> None:
        self.attempts = attempts

    @handler
    async def headers(self, ctx: Context, seconds: float) -> list[str]:
        """What the headers said, before and after a wait."""
        before = ctx.request.headers.get("x-number", "lost")
        await ctx.sleep(seconds)
        forwarded = await ctx.object(Keeper, "header").header()
        return [before, ctx.request.headers.get("x-number", "lost"), forwarded]

    @handler
    async def dice(self, ctx: Context, seconds: float) -> list[str]:
        """What is rolled before a wait is rolled again by each replay, and no other time."""
        before = [str(ctx.uuid()), str(ctx.random().random())]
        ctx.log.info("rolled", numbers=before)
        await ctx.sleep(seconds)
        return [*before, str(ctx.uuid()), str(ctx.random().random())]

    @handler(retry=RetryPolicy(initial=5.0, maximum=5.0, max_attempts=MOST_ATTEMPTS, then="fail"))
    async def fail(self, ctx: Context, number: int) -> None:
        self.attempts.count[number] += 1
        raise ValueError(f"attempt {self.attempts.count[number]} of {number}")

    @handler
    async def follow(self, ctx: Context, number: int, key: str, seconds: float) -> list[int]:
        """Send, wait long, and ask how it ended."""
        sent: list[Invocation[int]] = [await ctx.object(Keeper, key).put.send(number + part) for part in range(2)]
        await ctx.sleep(seconds)
        return [await one.result() for one in sent]

    @handler
    async def misread(self, ctx: Context, number: int, key: str, seconds: float) -> int:
        """Read an answer as what it is not, which fails where it is awaited, and then as what it is."""
        sent = await ctx.object(Keeper, key).put.send(number)
        await ctx.sleep(seconds)
        try:
            await ctx.invocation(sent.id, dict[str, list[int]]).result()
        except UndecodableError:
            return await sent.result()
        return -1

    @handler
    async def burst(self, ctx: Context, number: int, key: str, size: int, ends: bool) -> None:
        """Send many messages in one step: the last one, or one before a wait."""
        for part in range(size):
            await ctx.object(Keeper, key).put.send(number + part)
        if not ends:
            await ctx.sleep(1)


async def program(sim: Simulation) -> None:
    """Clients rely on one promise after the other."""
    random = randomness(sim)
    attempts: Attempts = sim.dependencies[Attempts]
    expected: dict[str, Counter[int]] = {key: Counter() for key in "ab"}
    failing: list[int] = []
    rolled: list[str] = []

    async def customer(name: str, first: int) -> None:
        client = sim.client(name)
        promiser = client.service(Promiser)
        for number in range(first, first + random.choice((10, 30)), 10):
            await wander(sim, random)
            key, seconds = random.choice("ab"), random.choice((0.0, 0.5, 20.0))
            match random.choice(
                ("headers", "fail", "level", "follow", "burst", "burst", "long", "itself", "dice", "misread", "bytes")
            ):
                case "headers":
                    said = await promiser.headers.options(headers={"x-number": str(number)})(seconds)
                    assert said == [str(number)] * 3, f"the headers of {number} were {said}"
                case "fail":
                    failing.append(number)
                    try:
                        await promiser.fail(number)
                    except TerminalError:
                        continue
                    raise AssertionError(f"{number} did not fail")
                case "level":
                    seen = await client.object(Keeper, f"level {number}").raise_to(number, seconds)
                    assert seen == number, f"a shared handler saw {seen}, and {number} was set"
                case "itself":
                    told = await client.object(Keeper, key).ask_itself(number, seconds)
                    assert told == number, f"{number} called its own object, and was not told"
                case "dice":
                    rolled.extend(await promiser.dice(seconds))
                    assert len(set(rolled)) == len(rolled), f"what {number} rolled had been rolled before"
                case "follow":
                    expected[key] += Counter((number, number + 1))
                    ends = await promiser.follow(number, key, random.choice((0.5, 20.0, 3_000.0)))
                    assert ends == [number, number + 1], f"the messages of {number} ended with {ends}"
                case "misread":
                    expected[key][number] += 1
                    told = await promiser.misread(number, key, seconds)
                    assert told == number, f"an answer that was misread is {told}, and not {number}"
                case "bytes":
                    body = random.choice(MISTAKEN) % number
                    try:
                        await client.call("SoakKeeper", "put", body, key=key)
                    except InvalidArgumentError:
                        continue
                    raise AssertionError(f"{body!r} was taken for a number")
                case "burst":
                    size = random.randint(3, 6)
                    expected[key] += Counter(range(number, number + size))
                    await promiser.burst(number, key, size, random.random() < 0.5)
                case _:
                    ended = await client.object(Keeper, f"long {number}").take_long(number)
                    assert ended == number
                    things = sim.snapshots[Keeper, f"long {number}"].things
                    assert things == [number], f"what took long was done {len(things)} times"

    await all_of(*(customer(name, place * 1_000) for place, name in enumerate("abc")), restart_at_times(sim, random))
    await until_all_ended(sim)
    for key, things in expected.items():
        kept = Counter(sim.snapshots[Keeper, key].things)
        assert kept == things, f"{key} lacks {things - kept}, and has {kept - things} too much"
    for number in failing:
        made = attempts.count[number]
        assert MOST_ATTEMPTS <= made < MOST_ATTEMPTS + sim.lives + sim.disk.failed_commits, f"{number}: {made} attempts"


PROMISES = Workload(
    program=program,
    actors=(Keeper, Promiser),
    dependencies=lambda: {Attempts: Attempts()},
    retry=RetryPolicy(initial=0.5),
)
