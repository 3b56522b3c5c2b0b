"""Actors that the tests serve on a cluster: nothing in them knows of Restate."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import durably.restate
from durably import (
    ActionFailedError,
    BytesSerde,
    CallNext,
    Context,
    DurablePromise,
    MsgpackSerde,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedContext,
    SharedWorkflowContext,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    factory,
    handler,
    promise,
    shared,
    state,
)
from durably.sagas import Saga, SagaBuilder, SagaDefinition


def note(line: str) -> None:
    """One line in the ledger: what a side effect has done."""
    ledger = os.environ.get("LEDGER")
    if ledger:
        with open(ledger, "a") as file:
            file.write(f"{line}\n")


class OutOfStockError(TerminalError):
    code = 409
    item: str = ""


class Seat(VirtualObject):
    is_free: bool = state(default=True)

    @handler
    async def reserve(self, ctx: ObjectContext) -> bool:
        was_free, self.is_free = self.is_free, False
        return was_free


class Counter(VirtualObject):
    number: int = state(default=0)
    seen: list[str] = state(default=[])

    @handler
    async def add(self, ctx: ObjectContext, by: int = 1) -> int:
        self.number += by
        return self.number

    @handler
    async def remember(self, ctx: ObjectContext, what: str) -> list[str]:
        self.seen.append(what)
        ctx.set("last", what)
        return self.seen

    @handler
    async def forget(self, ctx: ObjectContext) -> list[str]:
        ctx.clear_all()
        return list(ctx.keys())

    @shared
    async def get(self, ctx: SharedContext) -> int:
        return self.number

    @shared
    async def names(self, ctx: SharedContext) -> list[str]:
        return list(ctx.keys())

    @shared
    async def report(self, ctx: SharedContext, seconds: float) -> list[Any]:
        """Reads before and after waits: what it sees is what was there when it began."""
        before = self.number
        in_action = await ctx.run("ten times", lambda: before * 10)
        await ctx.sleep(seconds)
        return [before, in_action, self.number, list(ctx.keys())]

    @handler(retry=RetryPolicy(initial=0.01, maximum=0.02))
    async def flaky(self, ctx: ObjectContext, tries: int) -> int:
        """Its first advances fail: nothing of them may be told (rule S2)."""
        self.number += 1
        await ctx.object(Counter, f"{self.key}-other").add.send(1)
        attempts[self.key] = attempts.get(self.key, 0) + 1
        if attempts[self.key] < tries:
            raise ValueError("not yet")
        await ctx.sleep(0.01)
        return self.number

    @handler(atomic=True)
    async def all_or_nothing(self, ctx: ObjectContext, fails: bool) -> int:
        self.number += 100
        sent = await ctx.object(Counter, f"{self.key}-other").add.send(1)
        await ctx.sleep(0.01)
        if fails:
            raise TerminalError(f"no, and {sent.id}", code=418)
        return self.number


attempts: dict[str, int] = {}


class Stamps:
    """What a factory makes."""

    def of(self, parcel: str) -> str:
        note(f"stamp of {parcel}")
        return f"stamp of {parcel}"


async def stamps() -> AsyncGenerator[Stamps]:
    note("stamps are made")
    yield Stamps()
    note("stamps are gone")


@dataclass
class Parcel:
    name: str
    content: bytes
    stamp: str = ""


class Stamping:
    """Middleware with a dependency, which journals and waits."""

    def __init__(self, stamps: Stamps) -> None:
        self.stamps = stamps

    async def __call__(self, ctx: Context, call_next: CallNext) -> Any:
        if "parcel" not in call_next.arguments:
            return await call_next()
        parcel: Parcel = call_next.arguments["parcel"]
        if not parcel.content:
            raise TerminalError("An empty parcel.", code=400)
        stamp = await ctx.run("stamp", self.stamps.of, parcel.name)
        await ctx.sleep(0.01)
        result: Parcel = await call_next(parcel=Parcel(parcel.name, parcel.content, stamp))
        return Parcel(result.name, result.content, f"{result.stamp}, seen")


class Depot(VirtualObject, serde=MsgpackSerde, middleware=[Stamping]):
    parcels: list[Parcel] = state(default=[])

    @handler
    async def take(self, ctx: ObjectContext, parcel: Parcel) -> Parcel:
        self.parcels.append(parcel)
        await ctx.sleep(0.01)
        return self.parcels[-1]

    @handler(accepts=BytesSerde("image/png"), returns=BytesSerde("image/png"))
    async def turn(self, ctx: ObjectContext, image: bytes) -> bytes:
        await ctx.sleep(0.01)
        return image[::-1]

    @shared
    async def count(self, ctx: SharedContext) -> int:
        return len(self.parcels)


class Desk(Service):
    """Plain asyncio, in which the order of answers decides what is asked next."""

    @handler
    async def work(self, ctx: Context, tag: str, count: int = 4) -> dict[str, Any]:
        async def charge(number: int) -> int:
            await asyncio.sleep(random.random() * 0.02)
            note(f"{tag} charge {number}")
            return number * 10

        def in_thread(number: int) -> int:
            time.sleep(0.002)
            note(f"{tag} thread {number}")
            return number

        began = ctx.now()
        order: list[str] = []
        queue: asyncio.Queue[int] = asyncio.Queue()

        async def one(number: int) -> int:
            value = await ctx.run(f"charge {number}", charge, number)
            order.append(f"c{number}")
            await ctx.run(f"after {'-'.join(order)}", in_thread, number)
            await ctx.sleep(0.01 * (len(order) % 3))
            order.append(f"s{number}")
            await queue.put(value)
            return value

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in range(count)]
        seats = await asyncio.gather(*(ctx.object(Seat, f"{tag}-{number}").reserve() for number in range(3)))
        late = "no"
        try:
            async with asyncio.timeout(0.05):
                await ctx.sleep(30)
        except TimeoutError:
            late = "timed out"
        sold = ""
        try:
            await ctx.service(Desk).sell("umbrella")
        except OutOfStockError as error:
            sold = f"{type(error).__name__} {error.item} {error.code}"
        parcel = await ctx.object(Depot, tag).take(Parcel(tag, b"\x00\xff"))
        return {
            "order": "-".join(order), "sum": sum(task.result() for task in tasks), "seats": seats, "late": late,
            "sold": sold, "queue": [queue.get_nowait() for _ in range(queue.qsize())], "uuid": str(ctx.uuid()),
            "parcel": [parcel.stamp, parcel.content.hex()], "took": (ctx.now() - began).total_seconds(),
        }  # fmt: skip

    @handler
    async def sell(self, ctx: Context, item: str) -> None:
        error = OutOfStockError(f"no {item}")
        error.item = item
        raise error

    @handler
    async def tell(self, ctx: Context) -> dict[str, str]:
        return dict(ctx.request.headers)

    @handler
    async def pass_on(self, ctx: Context) -> dict[str, str]:
        return await ctx.service(Desk).tell.options(forward_headers=["tenant"])()

    @handler
    async def try_in_vain(self, ctx: Context, times: int) -> str:
        def fail() -> None:
            note("tried in vain")
            raise ConnectionError("no line")

        run = ctx.run.options(retry=RetryPolicy(initial=0.01, maximum=0.02, max_attempts=times))
        try:
            await run("call", fail)
        except ActionFailedError as error:
            return f"{error.action} {error.attempts} {error.error_type} {error.last_message}"
        return "done"

    @handler(timeout=0.3)
    async def dawdle(self, ctx: Context, key: str) -> None:
        try:
            await ctx.sleep(60)
        except asyncio.CancelledError:
            await ctx.object(Counter, key).add(1)
            raise

    @handler
    async def hurry(self, ctx: Context, key: str) -> str:
        try:
            await ctx.service(Desk).linger.options(timeout=2)(key)
        except TerminalError as error:
            return f"{type(error).__name__} {error.code}"
        return "in time"

    @handler
    async def linger(self, ctx: Context, key: str) -> None:
        try:
            await ctx.sleep(60)
        finally:
            await ctx.object(Counter, key).add(1)

    @handler
    async def give_up_on(self, ctx: Context, key: str) -> str:
        try:
            await ctx.service(Desk).tidy_up.options(timeout=0.3)(key)
        except TerminalError as error:
            return f"{type(error).__name__} {error.code}, {await ctx.object(Counter, key).get()} tidied up"
        return "in time"

    @handler
    async def tidy_up(self, ctx: Context, key: str) -> None:
        """Goes on after its deadline until it is told to end."""
        try:
            await ctx.sleep(60)
        finally:
            awakeable = ctx.awakeable(str)
            await ctx.object(Counter, key).remember(awakeable.id)
            await awakeable
            await ctx.object(Counter, key).add(1)

    @handler
    async def in_time(self, ctx: Context, key: str) -> list[Any]:
        return [await ctx.object(Counter, key).add.options(timeout=30)(1) for _ in range(2)]

    @handler
    async def outer(self, ctx: Context, key: str) -> None:
        async with ctx.compensations() as undo:
            undo.add(ctx.object(Counter, key).add, 1)
            await ctx.object(Counter, key).add(10)
            await ctx.service(Desk).linger(key)

    @handler
    async def hold(self, ctx: Context) -> str:
        async def slow() -> str:
            note("held")
            await asyncio.sleep(2)
            note("let go")
            return "held"

        return await ctx.run("hold", slow)

    @handler
    async def hold_a_thread(self, ctx: Context) -> str:
        def slow() -> str:
            note("held")
            time.sleep(2 if os.environ.get("SOON") else 600)
            return "held"

        return await ctx.run("hold", slow)

    @handler
    async def ask_for_a_signal(self, ctx: Context) -> None:
        verb = "signal"
        await getattr(ctx, verb)("go")

    @handler
    async def start_twice(self, ctx: Context, id: str) -> str:
        await ctx.workflow(Signup, id).run.send("m@example.com")
        try:
            await ctx.workflow(Signup, id).run("m@example.com")
        except TerminalError as error:
            return f"{type(error).__name__} {error.code}"
        return "started twice"

    @handler
    async def ask_for(self, ctx: Context, id: str) -> str:
        try:
            return str(await ctx.invocation(id).result())
        except TerminalError as error:
            return f"{type(error).__name__} {error.code}"

    @handler
    async def which(self, ctx: Context) -> list[str]:
        sent = await ctx.object(Counter, "which").add.send(1)
        call = ctx.object(Counter, "which").add(1)
        called = await ctx.invocation_of(call)
        await call
        await sent.result()
        return [sent.id, called.id]


class Approval(Service):
    @handler
    async def wait(self, ctx: Context, key: str) -> str:
        awakeable = ctx.awakeable(str)
        await ctx.object(Counter, key).remember.send(awakeable.id)
        try:
            return f"approved by {await awakeable}"
        except TerminalError as error:
            return f"rejected: {error.message} {error.code}"

    @handler
    async def approve(self, ctx: Context, id: str, who: str) -> None:
        await ctx.resolve_awakeable(id, who)

    @handler
    async def reject(self, ctx: Context, id: str) -> None:
        await ctx.reject_awakeable(id, "not today", code=451)


class Signup(Workflow):
    mail: str = state(default="")
    clicked: DurablePromise[str] = promise()

    @handler
    async def run(self, ctx: WorkflowContext, mail: str) -> str:
        self.mail = mail
        secret = await self.clicked
        return f"{self.mail} {secret}"

    @shared
    async def click(self, ctx: SharedWorkflowContext, secret: str) -> None:
        await self.clicked.resolve(secret)

    @shared
    async def peek(self, ctx: SharedWorkflowContext) -> str | None:
        return await self.clicked.peek()

    @shared
    async def address(self, ctx: SharedWorkflowContext) -> str:
        return self.mail


class Sealed(Workflow):
    seal: DurablePromise[str] = promise()

    @handler(atomic=True)
    async def run(self, ctx: WorkflowContext) -> str:
        await self.seal.resolve("wax")
        await ctx.sleep(0.01)
        return "sealed"

    @shared
    async def peek(self, ctx: SharedWorkflowContext) -> str | None:
        return await self.seal.peek()


@dataclass
class TripData:
    ends: str
    charges: int = 0


class Trip(Saga[TripData]):
    def define(self, saga: SagaBuilder[TripData]) -> SagaDefinition[TripData]:
        return (
            saga.step(self.reserve).compensate(self.release).step(self.charge).compensate(self.refund)
            .step(self.confirm).build()
        )  # fmt: skip

    async def reserve(self, ctx: WorkflowContext, data: TripData) -> None:
        await ctx.object(Counter, self.key).add(1)

    async def release(self, ctx: WorkflowContext, data: TripData) -> None:
        await ctx.object(Counter, self.key).add(-1)

    async def charge(self, ctx: WorkflowContext, data: TripData) -> None:
        await ctx.run("charge", note, f"{self.key} charge")
        data.charges += 1

    async def refund(self, ctx: WorkflowContext, data: TripData) -> None:
        def pay_back() -> None:
            note(f"{self.key} refund")
            if data.ends == "stuck" and not os.path.exists(os.environ["LEDGER"] + "-mended"):
                raise TerminalError("The bank is closed.")

        await ctx.run("refund", pay_back)
        data.charges -= 1

    async def confirm(self, ctx: WorkflowContext, data: TripData) -> None:
        await ctx.sleep(60 if data.ends == "aborted" else 0.2)
        if data.ends != "completed":
            raise TerminalError("No.", code=418)


ACTORS = [Seat, Counter, Desk, Approval, Signup, Sealed, Trip]
DEPENDENCIES = {Stamps: factory(stamps)}


def _app() -> durably.restate.Deployment:
    suspend_after = os.environ.get("SUSPEND_AFTER")
    return durably.restate.app(
        *ACTORS,
        Depot,
        dependencies=DEPENDENCIES,
        retry=RetryPolicy(initial=0.05, maximum=0.5),
        suspend_after=None if suspend_after is None else float(suspend_after),
        lazy_state=bool(os.environ.get("LAZY_STATE")),
        engine="vm" if os.environ.get("ENGINE") == "vm" else "public",
    )


app = _app()
