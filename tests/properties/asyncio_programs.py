"""Random asyncio programs: a tree of operations, and a handler that carries them out and notes everything that it sees.

What a program notes goes into a digest in the object's state, so that two runs in which anything happened in another
order have different steps. Programs are plain data and travel as the handler's argument.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Iterable
from contextvars import ContextVar
from functools import partial
from random import Random
from typing import Any, cast
from zlib import crc32

import msgspec

from durably import ObjectContext, TerminalError, VirtualObject, handler, select, state


class Op(msgspec.Struct, frozen=True):
    """One operation. `number` is unique within the program, `amount` means what `kind` makes of it."""

    kind: str
    number: int
    amount: int = 0
    parts: tuple[Op, ...] = ()


class Oops(Exception):
    """What an operation of a program raises on purpose."""


LEAVES = {
    "run": 14, "sleep": 5, "asyncio_sleep": 5, "call": 6, "send": 2, "sends_completed": 1, "yield": 3, "oops": 1,
    "random": 1, "put": 3, "get": 3, "set": 2, "wait_event": 2, "notify": 1, "wait_condition": 1, "join": 2,
    "cancel": 2, "operations_completed": 2, "operations_waited": 2, "all_tasks": 1, "callback": 2, "later": 1,
    "future": 1, "barrier": 1,
}  # fmt: skip
"""Operations without parts, with how often they are chosen."""
BRANCHES = {
    "sequence": 6, "gather": 5, "gather_errors": 5, "wait_all": 3, "wait_first": 4, "wait_error": 3, "wait_briefly": 3,
    "group": 7, "timeout": 5, "wait_for": 4, "shield": 3, "completed": 4, "attempt": 6, "finally": 4, "generator": 3,
    "spawn": 4, "cancelled": 4, "lock": 3, "semaphore": 3, "gathers_waited": 3, "select": 3, "group_of_gathers": 1,
    "repeat": 2, "variable": 2,
}  # fmt: skip
"""Operations with parts."""
SINGLE = {"timeout", "wait_for", "shield", "lock", "semaphore", "spawn", "cancelled", "variable", "repeat", "generator"}


def make_program(random: Random, size: int = 60, depth: int = 5) -> Op:
    """A program of about `size` operations, nested at most `depth` deep."""
    count = 0
    kinds = ([*LEAVES], [*LEAVES.values()], [*BRANCHES], [*BRANCHES.values()])

    def make(depth: int) -> Op:
        nonlocal count
        count += 1
        number = count
        if depth == 0 or count >= size or random.random() < 0.3:
            return Op(random.choices(kinds[0], kinds[1])[0], number, random.randrange(60))
        kind = random.choices(kinds[2], kinds[3])[0]
        width = 1 if kind in SINGLE else random.randint(2, 6)
        return Op(kind, number, random.randrange(60), tuple(make(depth - 1) for _ in range(width)))

    return Op("program", 0, 0, tuple(make(depth) for _ in range(random.randint(3, 8))))


class Machine(VirtualObject, name="Machine"):
    """Carries programs out."""

    digest: int = state(default=0)

    @handler
    async def interpret(self, ctx: ObjectContext, program: Op) -> str:
        return f"{await Interpreter(self, ctx).do(program)} {self.digest}"

    @handler
    async def answer(self, ctx: ObjectContext, number: int) -> str:
        return f"answer {number}"


async def act() -> str:
    """The side effect of every `run`; whoever drives the execution answers instead."""
    return ""


def said(error: BaseException) -> str:
    """An error as a word that is the same in each run."""
    if isinstance(error, BaseExceptionGroup):
        leaves = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return f"[{', '.join(said(leaf) for leaf in leaves)}]"
    return f"{type(error).__name__}({error})"


variable: ContextVar[str] = ContextVar("variable", default="unset")


class Interpreter:
    """One run of a program: what its operations share, and what it has seen."""

    def __init__(self, machine: Machine, ctx: ObjectContext) -> None:
        self.machine = machine
        self.ctx = ctx
        self.queues: list[asyncio.Queue[int]] = [asyncio.Queue(), asyncio.Queue(2), asyncio.PriorityQueue(3)]
        self.events = [asyncio.Event() for _ in range(3)]
        self.locks = [asyncio.Lock() for _ in range(2)]
        self.semaphores = [asyncio.Semaphore(2), asyncio.BoundedSemaphore(1)]
        self.condition = asyncio.Condition()
        self.barrier = asyncio.Barrier(2)
        self.spawned: list[asyncio.Future[str]] = []

    def note(self, *seen: object) -> None:
        seen = tuple(one for one in seen if not isinstance(one, asyncio.Future))  # What callbacks are given.
        self.machine.digest = crc32(repr(seen).encode(), self.machine.digest)

    async def do(self, op: Op) -> str:
        """Carry one operation out; note how it began and ended."""
        self.note(op.number, "begins", variable.get())
        try:
            result = await getattr(self, f"do_{op.kind}")(op)
        except BaseException as error:
            self.note(op.number, said(error))
            raise
        self.note(op.number, result)
        return f"{op.kind}={result}"

    def parts(self, op: Op) -> list[Coroutine[Any, Any, str]]:
        return [self.do(part) for part in op.parts]

    def tasks(self, op: Op) -> list[asyncio.Task[str]]:
        return [asyncio.create_task(part) for part in self.parts(op)]

    def operation(self, op: Op, offset: int = 0) -> Coroutine[Any, Any, Any]:
        """A durable operation that is nobody's task yet."""
        match (op.amount + offset) % 3:
            case 0:
                return self.ctx.run(f"{op.number}.{offset}", act)
            case 1:
                return self.ctx.sleep(op.amount + 1 + offset)
            case _:
                return self.ctx.object(Machine, str(op.amount)).answer(op.number)

    def told(self, done: Iterable[asyncio.Future[Any]]) -> str:
        """What has ended, in the order in which asyncio hands it over."""
        return ", ".join(
            "cancelled"
            if one.cancelled()
            else said(error)
            if (error := one.exception()) is not None
            else str(one.result())
            for one in done
        )

    # ------------------------------------------------------------------ durable operations

    async def do_run(self, op: Op) -> str:
        return await self.ctx.run(f"run {op.number}", act)

    async def do_sleep(self, op: Op) -> str:
        await self.ctx.sleep(op.amount)
        return self.ctx.now().isoformat()

    async def do_asyncio_sleep(self, op: Op) -> str:
        return await asyncio.sleep(op.amount / 7, f"{asyncio.get_running_loop().time()}")

    async def do_call(self, op: Op) -> str:
        return await self.ctx.object(Machine, str(op.amount)).answer(op.number)

    async def do_send(self, op: Op) -> str:
        return (await self.ctx.object(Machine, str(op.amount)).answer.send(op.number)).id

    async def do_sends_completed(self, op: Op) -> str:
        sends = [self.ctx.object(Machine, str(key)).answer.send(key) for key in range(op.amount % 9 + 2)]
        return " ".join([(await one).id for one in asyncio.as_completed(sends)])

    async def do_random(self, op: Op) -> str:
        return f"{self.ctx.random().random()} {self.ctx.uuid()}"

    # ------------------------------------------------------------------ without parts

    async def do_yield(self, op: Op) -> str:
        for _ in range(op.amount % 4):
            await asyncio.sleep(0)
        return ""

    async def do_oops(self, op: Op) -> str:
        raise (Oops, TerminalError, TimeoutError)[op.amount % 3](f"{op.number}")

    async def do_put(self, op: Op) -> str:
        async with asyncio.timeout(op.amount + 1):
            await self.queues[op.amount % 3].put(op.number)
        return ""

    async def do_get(self, op: Op) -> str:
        async with asyncio.timeout(op.amount + 1):
            return f"got {await self.queues[op.amount % 3].get()}"

    async def do_set(self, op: Op) -> str:
        event = self.events[op.amount % 3]
        (event.clear if op.amount % 5 == 0 else event.set)()
        return ""

    async def do_wait_event(self, op: Op) -> str:
        return f"set: {await asyncio.wait_for(self.events[op.amount % 3].wait(), op.amount + 1)}"

    async def do_notify(self, op: Op) -> str:
        async with self.condition:
            self.condition.notify(op.amount % 3)
        return ""

    async def do_wait_condition(self, op: Op) -> str:
        async with asyncio.timeout(op.amount + 1), self.condition:
            return f"notified: {await self.condition.wait()}"

    async def do_barrier(self, op: Op) -> str:
        async with asyncio.timeout(op.amount + 1):
            return f"place {await self.barrier.wait()}"

    async def do_join(self, op: Op) -> str:
        if not self.spawned:
            return "nobody"
        async with asyncio.timeout(op.amount + 1):
            return await asyncio.shield(self.spawned[op.amount % len(self.spawned)])

    async def do_cancel(self, op: Op) -> str:
        if not self.spawned:
            return "nobody"
        return f"cancelled: {self.spawned[op.amount % len(self.spawned)].cancel()}"

    async def do_operations_completed(self, op: Op) -> str:
        results: list[str] = []
        for one in asyncio.as_completed(
            [self.operation(op, offset) for offset in range(op.amount % 4 + 2)], timeout=90
        ):
            try:
                results.append(str(await one))
            except (TerminalError, TimeoutError) as error:
                results.append(said(error))
            self.note(op.number, results)
        return ", ".join(results)

    async def do_operations_waited(self, op: Op) -> str:
        futures = {asyncio.create_task(self.operation(op, offset)) for offset in range(op.amount % 5 + 2)}
        done, pending = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        for one in pending:
            one.cancel()
        return self.told(done)

    async def do_all_tasks(self, op: Op) -> str:
        return ", ".join(sorted(task.get_name() for task in asyncio.all_tasks()))

    async def do_callback(self, op: Op) -> str:
        future = asyncio.ensure_future(self.operation(op))
        for number in range(2):
            future.add_done_callback(partial(self.note, op.number, "callback", number))
        return str(await future)

    async def do_later(self, op: Op) -> str:
        loop = asyncio.get_running_loop()
        timers = [loop.call_later(op.amount % 5 + delay, self.note, op.number, delay) for delay in range(3)]
        timers[op.amount % 3].cancel()
        loop.call_soon(self.note, op.number, "soon")
        return ""

    async def do_future(self, op: Op) -> str:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        loop.call_later(op.amount / 10, future.set_result, "by a timer")
        return await asyncio.shield(future)

    # ------------------------------------------------------------------ with parts

    async def do_program(self, op: Op) -> str:
        results: list[str] = []
        for part in op.parts:
            try:
                results.append(await self.do(part))
            except (Exception, asyncio.CancelledError) as error:
                results.append(said(error))
        return ", ".join(results)

    async def do_sequence(self, op: Op) -> str:
        return ", ".join([await self.do(part) for part in op.parts])

    async def do_repeat(self, op: Op) -> str:
        return ", ".join([await self.do(op.parts[0]) for _ in range(op.amount % 4)])

    async def do_gather(self, op: Op) -> str:
        return ", ".join(await asyncio.gather(*self.parts(op)))

    async def do_gather_errors(self, op: Op) -> str:
        results = await asyncio.gather(*self.parts(op), return_exceptions=True)
        return ", ".join(said(one) if isinstance(one, BaseException) else one for one in results)

    async def do_wait_all(self, op: Op) -> str:
        done, _ = await asyncio.wait(self.tasks(op))
        return self.told(done)

    async def do_wait_first(self, op: Op) -> str:
        done, pending = await asyncio.wait(self.tasks(op), return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        if pending and op.amount % 2:
            await asyncio.wait(pending)
        return self.told(done)

    async def do_wait_error(self, op: Op) -> str:
        done, pending = await asyncio.wait(self.tasks(op), return_when=asyncio.FIRST_EXCEPTION)
        self.spawned.extend(pending)
        return self.told(done)

    async def do_wait_briefly(self, op: Op) -> str:
        done, pending = await asyncio.wait(self.tasks(op), timeout=op.amount / 3)
        self.spawned.extend(pending)
        return f"{self.told(done)}; {len(pending)}"

    async def do_group(self, op: Op) -> str:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.do(part)) for part in op.parts]
            if op.amount % 4 == 0:
                group.create_task(self.operation(op))
            if op.amount % 5 == 0:
                await self.operation(op, 1)
        return self.told(tasks)

    async def do_group_of_gathers(self, op: Op) -> str:
        async with asyncio.TaskGroup() as group:
            for part in op.parts:
                group.create_task(self.do_gather_errors(Op("gather_errors", op.number, 0, (part, part))))
        return ""

    async def do_gathers_waited(self, op: Op) -> str:
        gathers = [asyncio.gather(self.do(part), self.do(part), return_exceptions=True) for part in op.parts]
        how = (asyncio.FIRST_COMPLETED, asyncio.ALL_COMPLETED)[op.amount % 2]
        done, pending = await asyncio.wait(gathers, return_when=how)
        for one in pending:
            one.cancel()
        return " / ".join(said(e) if isinstance(e, BaseException) else e for one in done for e in one.result())

    async def do_select(self, op: Op) -> str:
        racers: dict[str, Awaitable[Any]] = {f"part{part.number}": self.do(part) for part in op.parts}
        racers["own"] = self.operation(op)
        name, value = await select(**racers)
        return f"{name} won: {value}"

    async def do_timeout(self, op: Op) -> str:
        async with asyncio.timeout(op.amount / 2) as limit:
            if op.amount % 7 == 0:
                limit.reschedule(asyncio.get_running_loop().time() + op.amount)
            return await self.do(op.parts[0])

    async def do_wait_for(self, op: Op) -> str:
        return await asyncio.wait_for(self.do(op.parts[0]), None if op.amount % 9 == 0 else op.amount / 2)

    async def do_shield(self, op: Op) -> str:
        task = asyncio.create_task(self.do(op.parts[0]))
        self.spawned.append(task)
        return await asyncio.wait_for(asyncio.shield(task), op.amount / 2)

    async def do_completed(self, op: Op) -> str:
        results: list[str] = []
        for one in asyncio.as_completed(self.tasks(op)):
            try:
                results.append(await one)
            except (Exception, asyncio.CancelledError) as error:
                results.append(said(error))
        return ", ".join(results)

    async def do_attempt(self, op: Op) -> str:
        first, *others = op.parts
        try:
            return await self.do(first)
        except Exception as error:
            return said(error) + ", ".join([await self.do(other) for other in others])

    async def do_finally(self, op: Op) -> str:
        first, second, *_ = op.parts
        try:
            return await self.do(first)
        finally:
            await self.do(second)

    async def do_generator(self, op: Op) -> str:
        results: list[str] = []
        generator = self.generate(op)
        async for result in generator:
            results.append(result)
            if len(results) > op.amount % 4:
                break
        if op.amount % 3 == 0:
            await generator.aclose()
        return ", ".join(results)

    async def generate(self, op: Op) -> AsyncGenerator[str, None]:
        try:
            for _ in range(3):
                yield await self.do(op.parts[0])
        finally:
            await self.ctx.run(f"close {op.number}", act)
            self.note(op.number, "closed")

    async def do_spawn(self, op: Op) -> str:
        self.spawned.append(asyncio.create_task(self.do(op.parts[0])))
        return ""

    async def do_cancelled(self, op: Op) -> str:
        task = asyncio.create_task(self.do(op.parts[0]))
        if op.amount % 3:
            await self.operation(op)
        else:
            await asyncio.sleep(0)
        task.cancel(f"by {op.number}")
        try:
            return await task
        except (Exception, asyncio.CancelledError) as error:
            return said(error)

    async def do_lock(self, op: Op) -> str:
        async with asyncio.timeout(op.amount + 5), self.locks[op.amount % 2]:
            return await self.do(op.parts[0])

    async def do_semaphore(self, op: Op) -> str:
        async with asyncio.timeout(op.amount + 5), self.semaphores[op.amount % 2]:
            return await self.do(op.parts[0])

    async def do_variable(self, op: Op) -> str:
        token = variable.set(f"{variable.get()}.{op.number}")
        try:
            return await self.do(op.parts[0])
        finally:
            variable.reset(token)
