"""Random programs of messages between objects: trees of acts, and the actors that carry them out.

Everything that an act does to the world commutes with what others do beside it, so the end can be said without knowing
how messages interleave (`reading.py` says it): totals, who was carried out how often, results, and side effects. Calls
and sends go to objects with a higher index only, so that nobody waits in a circle.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from random import Random

import msgspec

from durably.actors.actor import Service, VirtualObject
from durably.actors.context import Context, ObjectContext, SharedContext
from durably.actors.decorators import handler, shared
from durably.actors.retry import RetryPolicy
from durably.actors.state import state
from durably.errors import TerminalError

OBJECTS = 4


class Act(msgspec.Struct, frozen=True):
    """One act. `number` is unique within the program, `target` an object's index, `amount` what `kind` makes of it."""

    kind: str
    number: int
    target: int = 0
    amount: int = 0
    parts: tuple[Act, ...] = ()


class Oops(Exception):
    """What another attempt mends."""


class World:
    """What is outside: it survives the crashes of the runtime. It fails when an act wants that."""

    def __init__(self, *, mended: bool = False) -> None:
        self.failed: Counter[int] = Counter()
        self.mended = mended

    def stumble(self, number: int, times: int) -> None:
        """Fail the first `times` times."""
        if self.failed[number] < times and not self.mended:
            self.failed[number] += 1
            raise Oops(f"stumbled {number}")

    async def effect(self, number: int, stumbles: int) -> int:
        await asyncio.sleep(0)
        self.stumble(number, stumbles)
        return number

    def effect_in_a_thread(self, number: int) -> int:
        return number

    async def refusal(self, number: int) -> int:
        raise TerminalError(f"refused {number}")


class Node(VirtualObject, name="Node"):
    """Carries acts out, one message at a time, and says so in its log."""

    total: int = state(default=0)
    log: list[str] = state(default=[])

    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def carry(self, ctx: ObjectContext, act: Act) -> str:
        return await self._carry(ctx, act)

    @handler(atomic=True)
    async def carry_atomically(self, ctx: ObjectContext, act: Act) -> str:
        return await self._carry(ctx, act)

    @shared
    async def look(self, ctx: SharedContext) -> int:
        return self.total

    @shared
    async def watch(self, ctx: SharedContext) -> bool:
        before = self.total
        await ctx.sleep(1)
        return before <= self.total

    async def _carry(self, ctx: ObjectContext, act: Act) -> str:
        self.log.append(f"{act.number} begins")
        try:
            result = await Carrier(ctx, self.world, self).all(act.parts)
        except TerminalError:
            self.log.append(f"{act.number} ends")
            raise
        self.log.append(f"{act.number} ends")
        return result


class Worker(Service, name="Worker"):
    """Carries acts out without an object."""

    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def carry(self, ctx: Context, act: Act) -> str:
        return await Carrier(ctx, self.world, None).all(act.parts)


class Carrier:
    """One invocation of a handler that carries an act out."""

    def __init__(self, ctx: Context, world: World, node: Node | None) -> None:
        self.ctx = ctx
        self.world = world
        self.node = node

    async def all(self, acts: Iterable[Act]) -> str:
        return " ".join([await self.do(act) for act in acts])

    async def do(self, act: Act) -> str:
        ctx, target = self.ctx, self.ctx.object(Node, str(act.target))
        match act.kind:
            case "add":
                assert self.node is not None
                self.node.total += act.amount
            case "sleep":
                await ctx.sleep(act.amount)
            case "limit":
                async with asyncio.timeout(act.amount + 1):
                    await asyncio.sleep(act.amount)
            case "run":
                await ctx.run(f"run {act.number}", self.world.effect, act.number, act.amount % 3)
            case "run_in_a_thread":
                await ctx.run(f"run {act.number}", self.world.effect_in_a_thread, act.number)
            case "run_refused":
                await ctx.run(f"run {act.number}", self.world.refusal, act.number)
            case "run_given_up":
                run = ctx.run.options(retry=RetryPolicy(initial=1, max_attempts=2))
                await run(f"run {act.number}", self.world.effect, act.number, 1_000_000)
            case "fail":
                raise TerminalError(f"failed {act.number}")
            case "stumble":
                self.world.stumble(act.number, act.amount % 3)
            case "call":
                return f"{act.number}({await target.carry(act)})"
            case "call_atomic":
                return f"{act.number}({await target.carry_atomically(act)})"
            case "call_keyed":
                return f"{act.number}({await target.carry.options(idempotency_key=str(act.number))(act)})"
            case "call_service":
                return f"{act.number}({await self.call_service(act)})"
            case "watch":
                return f"{act.number}({await target.watch()})"
            case "send" if act.number % 2:
                await ctx.send("Node", "carry", key=str(act.target), argument=act)
            case "send":
                await target.carry.send(act)
            case "send_keyed":
                await target.carry.options(idempotency_key=str(act.number)).send(act)
            case "send_later":
                await target.carry.after(act.amount).send(act)
            case "send_and_ask":
                sent = await target.carry.send(act)
                return f"{act.number}({await sent.result()})"
            case "attempt":
                try:
                    return f"{act.number}({await self.all(act.parts)})"
                except TerminalError as error:
                    return f"{act.number}({error})"
            case "gather":
                return f"{act.number}({await self.gather(act.parts)})"
            case _:
                raise AssertionError(act.kind)
        return f"{act.number}"

    async def call_service(self, act: Act) -> str:
        """By its class or by its name."""
        if act.number % 2:
            return await self.ctx.call("Worker", "carry", argument=act, returns=str)
        return await self.ctx.service(Worker).carry(act)

    async def gather(self, acts: Iterable[Act]) -> str:
        results = await asyncio.gather(*map(self.do, acts), return_exceptions=True)
        for one in results:
            if isinstance(one, BaseException):
                raise one
        return " ".join(str(one) for one in results)


LEAVES = {
    "add": 5,
    "sleep": 3,
    "limit": 1,
    "run": 5,
    "run_in_a_thread": 1,
    "run_refused": 1,
    "run_given_up": 1,
    "fail": 1,
    "stumble": 1,
}
MESSAGES = {
    "call": 6, "call_atomic": 2, "call_keyed": 2, "call_service": 2, "watch": 1,
    "send": 4, "send_keyed": 2, "send_later": 2, "send_and_ask": 2,
}  # fmt: skip
BRANCHES = {"attempt": 3, "gather": 4}
WITHOUT_PARTS = {"watch"}
ONCE_PER_KEY = ("call_keyed", "send_keyed")
NOTHING = frozenset[str]()
NOT_IN = {
    "gather": frozenset({"stumble"}),  # Others run beside it, so what stumbles would not end the attempt at once.
    "call_service": frozenset({"add"}),
    "call_atomic": frozenset({"send_and_ask"}),  # What is asked for has not been sent yet.
}


class Maker:
    """Makes a program of at most `size` acts."""

    def __init__(self, random: Random, size: int) -> None:
        self.random = random
        self.size = size
        self.count = 0
        self.keyed: list[tuple[int, Act]] = []
        """Acts with a key, by the lowest object that may ask for them: some are asked for again."""

    def acts(self, level: int, depth: int, without: frozenset[str] = frozenset()) -> tuple[Act, ...]:
        return tuple(self.act(level, depth, without) for _ in range(self.random.randint(1, 4)))

    def act(self, level: int, depth: int, without: frozenset[str]) -> Act:
        """Messages go to objects from `level` on; acts of the kinds `without` make no sense where this one stands."""
        random = self.random
        self.count += 1
        number = self.count
        messages = MESSAGES if level < OBJECTS else {}
        choice = {**LEAVES, **messages, **BRANCHES} if depth and self.count < self.size else dict(LEAVES)
        kinds = [kind for kind in choice if kind not in without]
        kind = random.choices(kinds, [choice[kind] for kind in kinds])[0]
        target = random.randrange(level, OBJECTS) if level < OBJECTS else 0
        amount = random.randint(0, 9)
        if kind in ONCE_PER_KEY:
            again = [act for lowest, act in self.keyed if lowest >= level]
            if again and random.random() < 0.5:
                chosen = random.choice(again)
                return Act(kind, chosen.number, chosen.target, chosen.amount, chosen.parts)
        parts: tuple[Act, ...] = ()
        if kind in BRANCHES:
            parts = self.acts(level, depth - 1, without | NOT_IN.get(kind, NOTHING))
        elif kind == "call_service":
            parts = self.acts(level, depth - 1, NOT_IN[kind])
        elif kind in MESSAGES and kind not in WITHOUT_PARTS:
            parts = self.acts(target + 1, depth - 1, NOT_IN.get(kind, NOTHING))
        made = Act(kind, number, target, amount, parts)
        if kind in ONCE_PER_KEY:
            self.keyed.append((target, made))
        return made


def make_root(maker: Maker) -> Act:
    """A message from outside, to one of the first two objects."""
    maker.count += 1
    number, target = maker.count, maker.random.randrange(2)
    kind = maker.random.choice(("call", "call", "send", "send_later"))
    return Act(kind, number, target, maker.random.randint(0, 9), maker.acts(target + 1, depth=4))
