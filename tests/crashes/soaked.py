"""The process that is soaked: `python -m tests.crashes.soaked FOLDER RUN SECONDS`.

It runs the runtime on `FOLDER/store.db` with every verb under way at the same time, for so many seconds, unless it is
killed before. A client writes down what it asks for, what it has been answered, and what has ended; the next run takes
up what the last one has left. When the time is up it waits until all has ended and all retentions are over, and leaves
the store as it then is.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

from benchmarks.cold_objects import resident_mib
from durably import (
    Context,
    DurablePromise,
    Invocation,
    InvocationStatus,
    Limit,
    Limits,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Runtime,
    Service,
    SharedContext,
    SharedWorkflowContext,
    SqliteStore,
    TerminalError,
    UnknownTargetError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    cron,
    handler,
    promise,
    shared,
    state,
)
from durably.doctor import examine
from tests.crashes.app import Lines

CLIENTS: Final = 10
KEYS: Final = "abcdefgh"
KEPT: Final = timedelta(seconds=20)
"""Longer than a restart takes, after which clients ask for what they have missed."""
TTL: Final = timedelta(seconds=3)
WAIT_SECONDS: Final = 5
"""Whoever waits for what a killed client would have done gives up then."""
LATE: Final = "late"
PATIENCE_SECONDS: Final = 120
LIMITS: Final = Limits(named={"gate": Limit(at_once=3), "pace": Limit(per_second=40, burst=5)})


@dataclass(frozen=True)
class Plan:
    """What one limb of a tree does. Its children are on objects further on in the alphabet."""

    number: str
    key: str
    kind: str
    how: str
    seconds: float
    stumbles: int
    timeout: float | None
    children: tuple[Plan, ...] = ()


class Stumbled(Exception):
    """Another attempt mends it."""


class World:
    """What is outside. It fails at times."""

    def __init__(self) -> None:
        self.stumbled: dict[str, int] = {}

    async def effect(self, number: str, stumbles: int) -> str:
        await asyncio.sleep(0)
        if self.stumbled.get(number, 0) < stumbles:
            self.stumbled[number] = self.stumbled.get(number, 0) + 1
            raise Stumbled(number)
        self.stumbled.pop(number, None)
        return number


WORLD: Final = World()


class Account(VirtualObject, name="SoakedAccount"):
    """Counts, for one client."""

    total: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext) -> int:
        self.total += 1
        await ctx.run("effect", WORLD.effect, f"{self.key}", 0)
        return self.total

    @shared
    async def look(self, ctx: SharedContext) -> int:
        return self.total


class Limb(VirtualObject, name="SoakedLimb"):
    """Trees of calls, under limits and without."""

    last: str = state(default="")

    @handler(retry=RetryPolicy(initial=0.01, max_attempts=2))
    async def grow(self, ctx: ObjectContext, plan: Plan) -> str:
        return await self._grow(ctx, plan)

    @handler(limit="gate")
    async def gated(self, ctx: ObjectContext, plan: Plan) -> str:
        return await self._grow(ctx, plan)

    @handler(limit="pace")
    async def paced(self, ctx: ObjectContext, plan: Plan) -> str:
        return await self._grow(ctx, plan)

    @handler
    async def note(self, ctx: ObjectContext, number: str) -> str:
        self.last = number
        return number

    async def _grow(self, ctx: ObjectContext, plan: Plan) -> str:
        self.last = plan.number
        async with ctx.compensations() as undo:
            undo.add(ctx.object(Limb, "undone").note.send, plan.number)
            await ctx.run("effect", WORLD.effect, plan.number, plan.stumbles)
            if plan.how == "gather":
                await asyncio.gather(*(call(ctx, child) for child in plan.children), return_exceptions=True)
            elif plan.how == "limit":
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        for child in plan.children:
                            await call(ctx, child)
            else:
                for child in plan.children:
                    await call(ctx, child)
            await ctx.sleep(plan.seconds)
        return plan.number


async def call(ctx: ObjectContext, plan: Plan) -> str:
    limb = ctx.object(Limb, plan.key)
    made = {"grow": limb.grow, "gate": limb.gated, "pace": limb.paced}[plan.kind]
    try:
        return await (made if plan.timeout is None else made.options(timeout=plan.timeout))(plan)
    except TerminalError as error:
        return f"{error.code}"


class Errand(Service, name="SoakedErrand", journal_retention=KEPT):
    """Fails if it has an idempotency key; waits for a signal, but not for ever."""

    @handler
    async def run(self, ctx: Context, number: str) -> str:
        await ctx.run("effect", WORLD.effect, number, 0)
        if ctx.request.idempotency_key is not None:
            raise TerminalError(number)
        return number

    @handler
    async def wait(self, ctx: Context) -> str:
        answer = ctx.awakeable(str)
        await ctx.service(Errand).answer.after(seconds=0.02).send(answer.id)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return f"{await answer} and {await ctx.signal('on', str)}"
        except TimeoutError:
            return LATE

    @handler
    async def answer(self, ctx: Context, id: str) -> None:
        await ctx.resolve_awakeable(id, "answer")


class Stay(Workflow, name="SoakedStay"):
    """Waits for a promise, but not for ever."""

    nights: int = state(default=0)
    paid: DurablePromise[str] = promise()

    @handler
    async def run(self, ctx: WorkflowContext) -> str:
        self.nights += 1
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await self.paid
        except TimeoutError:
            return LATE

    @shared
    async def pay(self, ctx: SharedWorkflowContext, who: str) -> None:
        await self.paid.resolve(who)


class Basket(VirtualObject, name="SoakedBasket", ttl=TTL):
    """Goes when nobody comes."""

    numbers: list[str] = state(default=[])

    @handler
    async def put(self, ctx: ObjectContext, number: str) -> int:
        self.numbers.append(number)
        return len(self.numbers)

    @cron("* * * * *", key="clock")
    @handler
    async def tick(self, ctx: ObjectContext) -> None:
        self.numbers.append("tick")


ACTORS: Final = (Account, Limb, Errand, Stay, Basket)


class Client:
    """One client: it adds to its account, and does whatever comes to its mind in between."""

    def __init__(self, runtime: Runtime, number: int, run: int, lines: Lines, added: int) -> None:
        self._runtime = runtime
        self._number = number
        self._dice = Random(f"{run} {number}")
        self._lines = lines
        self._added = added
        self._made = 0
        self._name = f"{run}.{number}"

    async def work(self, until: float) -> None:
        acts: list[Callable[[], Awaitable[None]]] = [
            self._add, self._add, self._tree, self._tree, self._tree, self._later, self._errand, self._wait,
            self._stay, self._basket,
        ]  # fmt: skip
        while time.monotonic() < until:
            await self._dice.choice(acts)()

    async def _add(self) -> None:
        account = self._runtime.object(Account, str(self._number))
        total = await account.add.options(idempotency_key=f"{self._number}.{self._added}")()
        assert total == self._added + 1, f"account {self._number} has {total} after {self._added + 1} calls"
        self._added = total
        self._lines.append("added", self._number)

    async def _tree(self) -> None:
        plan = self._plan(depth=2)
        limb = self._runtime.object(Limb, plan.key)
        made = {"grow": limb.grow, "gate": limb.gated, "pace": limb.paced}[plan.kind]
        sent = await (made if plan.timeout is None else made.options(timeout=plan.timeout)).send(plan)
        self._lines.append("sent", sent.id)
        for _ in range(self._dice.choice((0, 0, 1, 2))):
            await asyncio.sleep(self._dice.random() * 0.1)
            verb = self._dice.choice((self._runtime.cancel, self._runtime.kill, self._runtime.pause))
            with suppress(TerminalError):
                await verb(sent.id)
        await self._until_ended(sent)

    def _plan(self, depth: int, first: int = 0) -> Plan:
        dice = self._dice
        self._made += 1
        place = dice.randrange(first, len(KEYS))
        count = dice.choice((0, 1, 2)) if depth and place + 1 < len(KEYS) else 0
        return Plan(
            number=f"{self._name}.{self._made}",
            key=KEYS[place],
            kind=dice.choice(("grow", "grow", "gate", "pace")),
            how=dice.choice(("await", "gather", "limit")),
            seconds=dice.choice((0.0, 0.0, 0.01, 0.05)),
            stumbles=dice.choice((0, 0, 0, 1, 3)),
            timeout=dice.choice((None, None, 0.05, 1.0)),
            children=tuple(self._plan(depth - 1, place + 1) for _ in range(count)),
        )

    async def _later(self) -> None:
        sent = await self._runtime.object(Limb, "later").note.after(seconds=self._dice.random()).send("later")
        self._lines.append("sent", sent.id)
        if self._dice.random() < 0.5:
            with suppress(TerminalError):  # It may have ended.
                await sent.cancel()
        await self._until_ended(sent)

    async def _errand(self) -> None:
        self._made += 1
        number = f"{self._name}.{self._made}"
        sent = await self._runtime.service(Errand).run.options(idempotency_key=number).send(number)
        self._lines.append("sent", sent.id)
        await self._until_ended(sent)
        again = await self._runtime.restart_as_new(sent.id, from_step=self._dice.choice((0, 1)))
        assert await again == number

    async def _wait(self) -> None:
        sent = await self._runtime.service(Errand).wait.send()
        self._lines.append("sent", sent.id)
        await sent.signal("on", "signal")
        assert await sent in ("answer and signal", LATE)
        self._lines.append("ended", sent.id)

    async def _stay(self) -> None:
        self._made += 1
        stay = self._runtime.workflow(Stay, f"{self._name}.{self._made}")
        sent = await stay.run.send()
        self._lines.append("sent", sent.id)
        await stay.pay("ann")
        assert await sent in ("ann", LATE)
        self._lines.append("ended", sent.id)

    async def _basket(self) -> None:
        key = self._dice.choice(KEYS)
        await self._runtime.object(Basket, key).put(self._name)
        if self._dice.random() < 0.2:
            await self._runtime.delete(Basket, key)

    async def _until_ended(self, sent: Invocation[Any]) -> None:
        await until_ended(self._runtime, sent)
        self._lines.append("ended", sent.id)


async def until_ended(runtime: Runtime, sent: Invocation[Any]) -> None:
    """Wait for its outcome, which must be there."""
    while True:
        try:
            await sent.result()
            return
        except PausedInvocationError as paused:
            with suppress(TerminalError):
                await runtime.resume(paused.id)
        except UnknownTargetError as error:
            raise AssertionError(f"{sent.id} was acknowledged, and is lost") from error
        except TerminalError:
            return


async def operate(runtime: Runtime) -> None:
    """Let go on what is paused: one may have been paused just before a kill, and be waited for by none."""
    while True:
        async for one in runtime.invocations(status=InvocationStatus.PAUSED):
            with suppress(TerminalError):
                await runtime.resume(one.id)
        await asyncio.sleep(0.2)


async def watch(run: int, lines: Lines) -> None:
    """Write down what the process takes up."""
    while True:
        await asyncio.sleep(0.5)
        lines.append(run, f"{resident_mib():.1f}")


async def until_nothing_is_left(runtime: Runtime, store: SqliteStore) -> None:
    """All has ended, and all retentions are over."""
    for schedule in await runtime.schedules():
        await runtime.pause_schedule(schedule.name)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await store.invocations(after=0, limit=1):
            await runtime.purge("SoakedBasket/clock")  # Ticks are known for a day.
            await asyncio.sleep(0.2)
        while any([one.state_bytes async for one in runtime.objects(Basket)]):
            await asyncio.sleep(0.2)


async def main(folder: Path, run: int, seconds: float) -> None:
    lines, memory = Lines(folder / "lines"), Lines(folder / "memory")
    before = [line.split(" ") for line in (folder / "lines").read_text().splitlines()]
    ended = {id for word, id in before if word == "ended"}
    left = {id for word, id in before if word == "sent"} - ended
    added = [word + id for word, id in before]
    store = SqliteStore(folder / "store.db")
    runtime = Runtime(store, ACTORS, limits=LIMITS, retention=KEPT, cleanup_interval=timedelta(seconds=1))
    async with runtime:
        print("ready", flush=True)
        beside = [asyncio.create_task(operate(runtime)), asyncio.create_task(watch(run, memory))]
        async with asyncio.TaskGroup() as group:
            for id in left:
                group.create_task(take_up(runtime, id, lines))
            until = time.monotonic() + seconds
            for number in range(CLIENTS):
                client = Client(runtime, number, run, lines, added.count(f"added{number}"))
                group.create_task(client.work(until))
        memory.append(run, "over")
        await until_nothing_is_left(runtime, store)
        totals = [await runtime.object(Account, str(number)).look() for number in range(CLIENTS)]
        for one in beside:
            one.cancel()
    await look_at(folder)
    (folder / "totals").write_text(" ".join(map(str, totals)))
    print("done", flush=True)


async def take_up(runtime: Runtime, id: str, lines: Lines) -> None:
    await until_ended(runtime, runtime.invocation(id, str))
    lines.append("ended", id)


async def look_at(folder: Path) -> None:
    """The doctor finds nothing."""
    store = SqliteStore(folder / "store.db")
    await store.open_read_only()
    report = await examine(store)
    await store.close()
    assert report.problems == (), report.problems


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
