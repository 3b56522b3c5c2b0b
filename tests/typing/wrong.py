# mypy: ignore-errors
# type: ignore  # noqa: PGH003
# The two lines above are for those who check the whole project; the test takes them away.
"""Lines that mypy and pyright refuse, each marked with why; they are checked, not run."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from datetime import datetime

from durably import (
    Caller,
    CallNext,
    Context,
    DurableDict,
    DurableList,
    DurablePromise,
    Invocation,
    Keyed,
    Lazy,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedContext,
    SharedWorkflowContext,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    cron,
    factory,
    handler,
    promise,
    shared,
    state,
)
from durably.testing import Durable


class Cart(VirtualObject):
    tickets: list[str] = state(default=[])
    count: int = state(default="none")  # refused: the default has another type
    limit: int = state(default_factory=lambda: "none")  # refused: the factory gives another type
    sizes: list[int] = state(default_factory=dict)  # refused: the factory makes another type
    seen: frozenset[int] = state(default_factory=set)  # refused: the factory makes another type
    queue: list[int] = state(default_factory=deque)  # refused: the factory makes another type

    @handler
    async def add(self, ctx: ObjectContext, ticket: str, count: int = 1) -> bool:
        self.tickets = [1]  # refused: a field is given a value of another type
        self.tickets.append(2)  # refused: an element of another type
        return True

    @shared
    async def look(self, ctx: SharedContext) -> list[str]:
        ctx.set("tickets", [])  # refused: a shared handler reads
        ctx.clear_all()  # refused: a shared handler reads
        return self.tickets

    @shared  # refused: a shared handler's context cannot write
    async def wrong_context(self, ctx: ObjectContext) -> None: ...

    @handler  # refused: a handler is async
    def plain(self, ctx: ObjectContext) -> None: ...

    @handler  # refused: a handler has a context
    async def without_context(self, seat: int) -> None: ...

    @cron("* * * * *", key="x")  # refused: the clock has no arguments to give
    @handler
    async def ticked(self, ctx: ObjectContext, seat: int) -> None: ...

    @cron("* * * * *", key="x", missed="never")  # refused: there is no such policy
    @handler
    async def ticked_too(self, ctx: ObjectContext) -> None: ...

    @shared(atomic=True)  # refused: a shared handler changes nothing
    async def atomic(self, ctx: SharedContext) -> None: ...

    @handler(timeout="5 s")  # refused: a duration is a timedelta or seconds
    async def slow(self, ctx: ObjectContext) -> None: ...


class Checkout(Service):
    @handler
    async def handle(self, ctx: Context, user: str) -> None:
        ctx.get("x", int)  # refused: a service has no state
        await ctx.sleep("5 s")  # refused: a duration is a timedelta or seconds
        await ctx.sleep(5, minutes=1)  # refused: a duration or parts, not both

    @shared  # refused: a service has no shared handlers
    async def look(self, ctx: Context) -> None: ...

    @handler  # refused: a service has no object context
    async def wrong_context(self, ctx: ObjectContext) -> None: ...


class Wrong(Service, nme="x"): ...  # refused: there is no such class option


async def charge(amount: int) -> bool:
    return True


def refund(amount: int) -> int:
    return 1


def fetch(seat: str) -> Awaitable[str]:
    return asyncio.sleep(0, seat)


async def use(caller: Caller, ctx: Context) -> None:
    cart = caller.object(Cart, "mary")
    await cart.add(5)  # refused: an argument of another type
    await cart.add()  # refused: an argument is missing
    await cart.add("a", number=1)  # refused: there is no such parameter
    cart.add("a")  # refused: the await is forgotten
    cart.add.send("a")  # refused: the await is forgotten
    text: str = await cart.add("a")  # refused: the result has another type
    await cart.add.send(5)  # refused: an argument of another type, in a message
    await cart.add.after(5)("a")  # refused: what is delayed can only be sent
    await cart.add.after(5, minutes=1).send("a")  # refused: a duration or parts, not both
    await cart.add.after(5).attach()  # refused: what is delayed can only be sent
    await cart.add.at(5).send("a")  # refused: a moment is a datetime
    await cart.add.options(key="k")("a")  # refused: there is no such option
    await cart.missing()  # refused: there is no such handler
    caller.object(Checkout, "k")  # refused: a service has no key
    caller.service(Cart)  # refused: a virtual object has a key
    caller.object(Cart)  # refused: the key is missing
    caller.object(Cart, 5)  # refused: a key is a string
    caller.set("x", 1)  # refused: only the context of a handler has state
    sent = await cart.add.send("a")
    number: int = await sent.result()  # fine: a bool is an int
    other: str = await sent.result()  # refused: the result has another type
    sent.status()  # refused: the await is forgotten
    sent.cancel()  # refused: the await is forgotten
    async with ctx.compensations() as undo:
        undo.add(cart.add, 5)  # refused: an argument of another type, of a compensation
        undo.add(refund, 5)  # refused: a compensation is awaited
    await caller.call("Cart", "add", "text")  # refused: a body is bytes
    named: str = await caller.call("Cart", "add", key="k", argument="a", returns=bool)  # refused: the result is a bool
    handle: Invocation[str] = await caller.send("Cart", "add", key="k", returns=bool)  # refused: the result is a bool
    caller.call("Cart", "add", key="k", argument="a", returns=bool)  # refused: the await is forgotten
    behind: Invocation[str] = await caller.invocation_of(cart.add("a"))  # refused: the result is a bool
    caller.invocation_of(cart.add("a"))  # refused: the await is forgotten
    caller.invocation_of("inv_1")  # refused: that is invocation()
    print(named, handle, behind)
    await ctx.run("charge", charge, "5")  # refused: an argument of another type, of an action
    await ctx.run("charge", charge)  # refused: an argument of the action is missing
    ctx.run("refund", refund, 5)  # refused: the await is forgotten
    asked = ctx.awakeable(bool)
    word: str = await asked  # refused: an awakeable has the type that was asked for
    await asked.resolve("yes")  # refused: a value of another type, for an awakeable
    ctx.resolve_awakeable(asked.id, True)  # refused: the await is forgotten
    signalled: str = await ctx.signal("number", int)  # refused: a signal has the type that was asked for
    print(word, signalled)
    amount: str = await ctx.run("refund", refund, 5)  # refused: the result of the action has another type
    paid: int = await ctx.run("refund", refund, 5)
    seats: int = await ctx.run("fetch", fetch, "2B")  # refused: the result of the awaitable has another type
    await ctx.run("fetch", fetch, 5)  # refused: an argument of another type, of what returns an awaitable
    print(number, paid, text, other, amount, seats)
    await ctx.run.options(retries=3)("refund", refund, 5)  # refused: there is no such option
    ctx.sleep(5)  # refused: the await is forgotten
    RetryPolicy(attempts=3)  # refused: there is no such field
    raise TerminalError("x", status=409)  # refused: the code is called code


class Signup(Workflow):
    confirmed: DurablePromise[str] = promise()

    @handler
    async def run(self, ctx: WorkflowContext, email: str) -> bool:
        number: int = await self.confirmed  # refused: the promise has another type
        ctx.continue_as_new(Signup.run, 5)  # refused: an argument of another type, of the next execution
        return number > 0

    @shared
    async def confirm(self, ctx: SharedWorkflowContext, code: int) -> None:
        await self.confirmed.resolve(code)  # refused: the value has another type
        self.confirmed.resolve("7")  # refused: the await is forgotten
        ctx.set("x", 1)  # refused: a shared handler reads


class Shelf(VirtualObject):
    profile: Lazy[int] = state()
    prices: DurableDict[str, int] = state()
    books: DurableList[str] = state()
    numbers: DurableList[int] = state(default=[])  # refused: a list begins empty

    @handler
    async def use(self, ctx: ObjectContext) -> int:
        plain: int = self.profile  # refused: it has to be read
        text: str = await self.profile  # refused: the value has another type
        self.profile.set("7")  # refused: the value to be set has another type
        self.profile = 7  # refused: it is set by a method
        self.profile.get()  # refused: the await of a read is forgotten
        price: int = await self.prices.get("a")  # refused: it may not be there
        self.prices[7] = 7  # refused: the key has another type
        self.prices.set("a", "b")  # refused: the value of the key has another type
        number: int = self.prices["a"]  # refused: an entry of a dictionary has to be read
        len(self.prices)  # refused: the length of a dictionary has to be read
        self.books.append(7)  # refused: the entry has another type
        first: int = await self.books.popleft()  # refused: the entry that is read has another type
        self.books.pop()  # refused: the await of a pop is forgotten
        second: str = self.books[0]  # refused: an entry of a list has to be read
        third: str = await self.books.pop(None)  # refused: it may be the default
        for book in self.books:  # refused: entries are read by `async for`
            del book
        del number, second
        print(plain, text, price, first, third)
        return len(self.books)


async def uses_workflows(caller: Caller) -> None:
    caller.object(Signup, "ann")  # refused: a workflow is no virtual object
    caller.workflow(Cart, "ann")  # refused: a virtual object is no workflow
    done: str = await caller.workflow(Signup, "ann").run("a")  # refused: the result has another type
    await caller.workflow(Signup, "ann").confirm("7")  # refused: an argument of another type, in a workflow
    print(done)


async def a_test(durable: Durable) -> None:
    app = await durable(Cart, seed=7, dependencies={str: "x"})
    await durable(Cart, dependenies={str: "x"})  # refused: there is no such parameter
    await durable(Cart, seed="7")  # refused: a seed is a number
    await app.advance(weeks=1)  # refused: there is no such part of a time


def when() -> datetime:
    return Cart.add.name  # refused: a name is a string


async def tells(ctx: Context, call_next: CallNext) -> object:
    return await call_next(1)  # refused: arguments are changed by name


def plain(ctx: Context, call_next: CallNext) -> object:
    return None


async def needs_state(ctx: ObjectContext, call_next: CallNext) -> object:
    return await call_next()


class Around(Service, middleware=[plain]):  # refused: middleware is asynchronous
    def __init__(self, carts: Keyed[Cart]) -> None:
        self.carts = carts

    @handler(middleware=[needs_state])  # refused: it may stand around handlers that have no state
    async def ask(self, ctx: Context) -> None:
        await self.carts["a"].add(1)  # refused: an argument of another type, through a dependency
        await self.carts[1].add("x")  # refused: a key is a string

    @handler(middleware=tells)  # refused: a list
    async def look(self, ctx: Context) -> None: ...


factory(Cart, scope="request")  # refused: there is no such scope
