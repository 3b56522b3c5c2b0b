"""Programs that mypy and pyright accept in strict mode; they are checked, not run."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Protocol, TypeVar, assert_type

import structlog
from hypothesis import strategies as st
from hypothesis.stateful import rule

from durably import (
    ActivationKey,
    Awakeable,
    BytesSerde,
    Caller,
    CallNext,
    Context,
    DurableDict,
    DurableList,
    DurablePromise,
    Factory,
    HandlerInfo,
    Invocation,
    InvocationStatus,
    Keyed,
    Lazy,
    ObjectContext,
    Request,
    RetryPolicy,
    Runtime,
    Schedule,
    ScheduleStatus,
    Service,
    SharedContext,
    SharedWorkflowContext,
    SqliteStore,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    action_context,
    cron,
    factory,
    first_success,
    handler,
    migrate,
    promise,
    select,
    settled,
    shared,
    state,
)
from durably.doctor import examine
from durably.inspection import ActionWait, TimerWait, Wait, WaitingInvocation
from durably.middleware import Authentication, Logging, Measurement, Metrics, Validation
from durably.testing import Faults, Harness, Snapshots
from durably.testing.generation import ActorCall, ActorStateMachine, arguments, calls

T = TypeVar("T")


class Seat(Enum):
    FREE = "free"
    TAKEN = "taken"
    SOLD = "sold"


@dataclass(eq=False)
class SeatTakenError(TerminalError):
    seat: str
    until: datetime


@dataclass(frozen=True)
class Order:
    user: str
    seats: list[str]


class Ticket(VirtualObject, name="TicketObject"):
    status: Seat = state(default=Seat.FREE)
    holder: str | None = state(default=None)
    log: list[str] = state(name="history")
    tags: list[str] = state(default_factory=list)
    counts: dict[str, int] = state(default_factory=dict)
    banned: frozenset[str] = state(default_factory=frozenset)
    queue: deque[str] = state(default_factory=deque)
    seen: set[int] = state(default_factory=set)
    words: Counter[str] = state(default_factory=Counter)
    limit: int = state(default_factory=lambda: 3)

    @handler
    async def reserve(self, ctx: ObjectContext, user: str = "") -> bool:
        if self.status is not Seat.FREE:
            raise SeatTakenError(self.key, ctx.now() + timedelta(minutes=15))
        self.status = Seat.TAKEN
        self.holder = user
        self.log.append(user)
        ctx.set("seen", ctx.get("seen", int, 0) + 1)
        return True

    @handler(name="markAsSold", atomic=True, retry=RetryPolicy(max_attempts=3), timeout=30, private=True)
    async def mark_as_sold(self, ctx: ObjectContext) -> None:
        del self.holder
        ctx.clear("seen")

    @shared
    async def peek(self, ctx: SharedContext) -> Seat:
        seen: int | None = ctx.get("seen", int)
        ctx.log.info("seen", times=seen)
        return self.status

    @shared(name="historyOf")
    async def history(self, ctx: SharedContext, limit: int = 10) -> list[str]:
        return self.log[:limit]

    @shared
    async def with_a_wider_context(self, ctx: Context) -> str:
        return ctx.handler.name


class Payments:
    async def charge(self, key: str, amount: int, *, currency: str = "EUR") -> bool:
        return True

    def refund(self, key: str) -> int:
        return 1


class Fetch(Protocol):
    def __call__(self, url: str, *, retries: int = 0) -> Awaitable[bytes]: ...


class Fetcher:
    async def __call__(self, url: str) -> bytes:
        return b""


async def fetched(url: str) -> bytes:
    return b""


async def actions(ctx: Context, fetch: Fetch, some: Callable[..., Awaitable[int]]) -> None:
    by_protocol: bytes = await ctx.run("a", fetch, "https://example.org", retries=2)
    by_any_arguments: int = await ctx.run("b", some, 1, "x")
    by_object: bytes = await ctx.run("c", Fetcher(), "https://example.org")
    by_partial: bytes = await ctx.run("d", functools.partial(fetched, "https://example.org"))
    by_plain_partial: int = await ctx.run("e", functools.partial(int, "5"))
    by_lambda: bytes = await ctx.run("f", lambda: fetched("https://example.org"))
    by_plain_lambda: int = await ctx.run("g", lambda: 5)
    by_class: Order = await ctx.run("h", Order, "mary", seats=["2B"])
    by_options: bytes = await ctx.run.options(timeout=5)("i", fetch, "https://example.org")
    sent: Coroutine[object, object, bytes] = ctx.run("j", fetch, "https://example.org")
    print(by_protocol, by_any_arguments, by_object, by_partial, by_plain_partial, by_lambda, by_plain_lambda)
    print(by_class, by_options, await sent)


class Trip(Service):
    def __init__(self, payments: Payments) -> None:
        self.payments = payments

    @handler
    async def book(self, ctx: Context, seat: str) -> bool:
        async with ctx.compensations() as undo:
            undo.add(ctx.object(Ticket, seat).mark_as_sold)
            undo.add(ctx.object(Ticket, seat).reserve, user="mary")
            undo.add(ctx.object(Ticket, seat).reserve.send, "mary")
            undo.add(self.payments.charge, "key", 40, currency="USD")
            undo.add(lambda: ctx.run("refund", self.payments.refund, seat))
            sent = await ctx.object(Ticket, seat).reserve.after(minutes=15).send("mary")
            await sent.cancel()
            await ctx.invocation("inv_1").cancel()
        return True


async def operate(runtime: Runtime, sent: Invocation[bool]) -> list[str]:
    ids = [*await runtime.cancel(sent.id), *await runtime.kill("TicketObject/2B"), *await runtime.pause("TicketObject")]
    again = await runtime.restart_as_new(sent.id)
    return [*ids, *await runtime.resume("TicketObject/2B/reserve"), *await runtime.purge(sent.id), again.id]


class Checkout(Service, name="CheckoutService", retry=RetryPolicy(initial=timedelta(seconds=1))):
    def __init__(self, payments: Payments) -> None:
        self.payments = payments

    @handler
    async def handle(self, ctx: Context, order: Order) -> bool:
        try:
            async with asyncio.timeout(30):
                paid: bool = await ctx.run("charge", self.payments.charge, str(ctx.uuid()), 40, currency="USD")
        except TimeoutError:
            paid = False
        refunded: int = await ctx.run.options(retry=RetryPolicy(max_attempts=3), timeout=5)(
            "refund", self.payments.refund, order.user
        )
        async with asyncio.TaskGroup() as group:
            for seat in order.seats:
                group.create_task(ctx.object(Ticket, seat).mark_as_sold())
        await ctx.sleep(timedelta(seconds=refunded))
        await ctx.sleep(minutes=5, seconds=0.5)
        return paid

    @handler(accepts=BytesSerde(), returns=BytesSerde())
    async def upload(self, ctx: Context, data: bytes) -> bytes:
        return data


class TicketContract(VirtualObject, name="Contract", abstract=True):
    @handler
    async def reserve(self, ctx: ObjectContext, seat: str) -> bool:
        raise NotImplementedError


class TicketImplementation(TicketContract):
    @handler
    async def reserve(self, ctx: ObjectContext, seat: str) -> bool:
        return True


async def everywhere(caller: Caller, seats: list[str]) -> bool:
    ticket = caller.object(Ticket, "2B")
    reserved: bool = await ticket.reserve("mary")
    again: bool = await ticket.reserve(user="mary")
    by_default: bool = await ticket.reserve()
    sent: Invocation[bool] = await ticket.reserve.send("mary")
    later: Invocation[bool] = await ticket.reserve.after(minutes=15).send("mary")
    keyed_later: Invocation[bool] = await ticket.reserve.after(5).options(idempotency_key="k").send("mary")
    assert await keyed_later.result()
    at: Invocation[bool] = await ticket.reserve.at(datetime(2030, 1, 1, tzinfo=UTC)).send()
    keyed: bool = await ticket.reserve.options(idempotency_key="k", headers={"a": "b"}, timeout=5)("mary")
    attached: bool = await ticket.reserve.options(idempotency_key="k").attach()
    result: bool = await sent.result()
    status: InvocationStatus = await later.status()
    assert await at.result()
    seen: list[Seat] = await asyncio.gather(*(caller.object(Ticket, seat).peek() for seat in seats))
    name, first = await select(a=ticket.peek(), b=caller.object(Ticket, "3C").peek())
    winner: tuple[str, Seat] = (name, first)
    raw: bytes = await caller.call("TicketObject", "peek", key="2B")
    named: Seat = await caller.call("TicketObject", "peek", key="2B", returns=Seat)
    by_argument: bool = await caller.call("TicketObject", "reserve", key="2B", argument="mary", returns=bool, timeout=5)
    by_serde: bytes = await caller.call("CheckoutService", "upload", b"x", returns=BytesSerde())
    await caller.call("TicketObject", "markAsSold", key="2B", returns=None)
    by_name: Invocation[bool] = await caller.send("TicketObject", "reserve", key="2B", argument="a", returns=bool)
    by_bytes: Invocation[bytes] = await caller.send("TicketObject", "reserve", b'"a"', key="2B", after=5)
    call = ticket.reserve("mary")
    of_call: Invocation[bool] = await caller.invocation_of(call)
    of_named: Invocation[Seat] = await caller.invocation_of(caller.call("TicketObject", "peek", key="a", returns=Seat))
    print(of_call.id, await call, of_named.previously_accepted)
    print(named, by_argument, by_serde, await by_name, await by_bytes)
    handle: Invocation[int] = caller.invocation("inv_1", int)
    number: int = await handle.result()
    contracted: bool = await caller.object(TicketContract, "2B").reserve("2B")
    paid: bool = await caller.service(Checkout).handle(Order("mary", seats))
    history: list[str] = await asyncio.wait_for(ticket.history(limit=3), 5)
    task: asyncio.Task[bool] = asyncio.create_task(ticket.reserve())
    print(winner, raw, number, history, status, keyed, attached, result, again, by_default, contracted, paid, seen)
    return reserved and await task


def caught(error: SeatTakenError) -> str:
    return f"{error.seat} {error.until} {error.code} {error.message}"


class TicketModel:
    def peek(self) -> Seat:
        return Seat.FREE


class TicketMachine(ActorStateMachine):
    actors = (Ticket, Checkout)
    new_actors = (TicketImplementation,)
    keys = {Ticket: ("A", "B")}  # noqa: RUF012
    overrides = {str: st.sampled_from("AB"), Ticket.history: {"limit": st.just(3)}}  # noqa: RUF012
    leave_out = (Ticket.history, Checkout.upload)
    models = {Ticket: TicketModel}  # noqa: RUF012
    faults = Faults.slow()
    seconds = (1, 60)

    def dependencies(self) -> dict[type, object]:
        return {Payments: Payments()}

    def check(self, snapshots: Snapshots) -> None:
        assert all(ticket.status is not Seat.TAKEN for ticket in snapshots.of(Ticket).values())

    def answered(self, call: ActorCall, answer: object) -> None:
        assert call.key != answer

    @rule(call=calls(Ticket, keys={Ticket: "AB"}), given=arguments(Ticket.reserve, user=st.just("mary")))
    def mine(self, call: ActorCall, given: dict[str, str]) -> None:
        self.ask(call, ActorCall(Ticket, "A", "reserve", given))


TestTickets = TicketMachine.TestCase


async def from_a_strategy(caller: Caller, call: ActorCall) -> None:
    await call.on(caller)
    handle: Invocation[object] = await call.send_on(caller, after=timedelta(seconds=1))
    await handle.result()


class Signup(Workflow, retention=timedelta(days=30)):
    email: str = state(default="")
    confirmed: DurablePromise[str] = promise()
    count: DurablePromise[int | None] = promise(name="n")

    @handler
    async def run(self, ctx: WorkflowContext, email: str, left: int = 0) -> bool:
        self.email = email
        ctx.set("seen", 1)
        code: str = await self.confirmed
        seen: str | None = await self.confirmed.peek()
        named: int = await ctx.promise("other", int)
        receipt: DurablePromise[bytes] = ctx.promise("receipt", serde=BytesSerde())
        await receipt.resolve(b"x")
        raced: tuple[str, str | None] = await select(code=self.confirmed, time=ctx.sleep(5))
        if left:
            ctx.continue_as_new(Signup.run, email, left=left - 1)
        return code == seen and named > len(raced)

    @shared
    async def confirm(self, ctx: SharedWorkflowContext, code: str) -> None:
        await self.confirmed.resolve(code)
        await self.count.resolve(None)
        await ctx.promise("other", int).reject("no", code=403)

    @shared(retention=60)
    async def look(self, ctx: SharedContext) -> str:
        return self.email


async def uses_workflows(caller: Caller) -> bool:
    ann = caller.workflow(Signup, "ann")
    sent: Invocation[bool] = await ann.run.send("a", left=3)
    later = await ann.run.after(hours=1).send("a")
    done: bool = await sent
    same: bool = await sent.output()
    attached: bool = await ann.run.attach()
    look: str = await ann.look.options(idempotency_key="k").output()
    await ann.confirm("7")
    return sent.previously_accepted or later.previously_accepted or done or same or attached or look == ""


class Spread(VirtualObject):
    @handler
    async def work(self, ctx: ObjectContext, left: int) -> int:
        return ctx.continue_as_new(Spread.work, left - 1)


class Approval(VirtualObject):
    asked: Awakeable[bool] | None = state(default=None)

    @handler
    async def ask(self, ctx: ObjectContext) -> bool:
        asked = self.asked = ctx.awakeable(bool)
        await ctx.run("ask", print_attempt, asked.id)
        await self.remind.after(days=1).send(3)
        if ctx.patched("signals"):
            number: int = await ctx.signal("number", int)
            raw: bytes = await ctx.signal("raw", serde=BytesSerde())
            scan: Awakeable[bytes] = ctx.awakeable(bytes, serde=BytesSerde())
            raw = await ctx.awakeable(BytesSerde())
            await scan.resolve(raw, serde=BytesSerde())
            await ctx.resolve_awakeable(scan.id, raw, serde=BytesSerde())
            print(number)
        both: tuple[bool, bool] = await asyncio.gather(asked, asyncio.wait_for(asked, 5))
        name, first = await select(one=asked, other=asked)
        name, first = await first_success(one=asked, other=asked)
        ended: dict[str, bool | BaseException] = await settled(one=asked)
        print(both, name, first, ended)
        return await asked

    @handler
    async def remind(self, ctx: ObjectContext, left: int) -> None:
        await ctx.invocation(ctx.request.id, bool).signal("number", left)
        await ctx.reject_awakeable("sign_1", "no", code=409)

    @shared
    async def allow(self, ctx: SharedContext) -> None:
        if self.asked is not None:
            await self.asked.resolve(True)
            await self.asked.reject("no", code=403)


def print_attempt(id: str) -> int:
    mine = action_context()
    mine.log.info("asked", id=id, tenant=mine.request.headers.get("tenant"))
    return mine.attempt if not mine.given_up.is_set() else 0


async def approve(runtime: Runtime, id: str) -> None:
    await runtime.resolve_awakeable(id, True)
    await runtime.invocation(id, bool).reject_signal("number", "no")


def runtimes_that_log_elsewhere(bound: structlog.stdlib.BoundLogger) -> list[Runtime]:
    standard = logging.getLogger("shop")
    return [Runtime("memory:", [], logger=logger) for logger in (standard, bound, structlog.get_logger(), None)]


class Archive(VirtualObject):
    profile: Lazy[dict[str, int]] = state()
    prices: DurableDict[str, int] = state()
    pages: DurableDict[int, str] = state(name="leaves")
    books: DurableList[str] = state()

    @handler
    async def use(self, ctx: ObjectContext) -> int:
        profile: dict[str, int] = await self.profile
        maybe: dict[str, int] | None = await self.profile.get()
        self.profile.set({**profile, **(maybe or {})})
        self.profile.clear()
        price: int | None = await self.prices.get("a")
        sure: int = await self.prices.get("a", 0)
        self.prices["b"] = sure + (price or 0)
        del self.prices["c"]
        self.pages.delete(3)
        taken: int | None = await self.prices.pop("b")
        there: bool = await self.prices.contains("b")
        count: int = await self.prices.count()
        page: list[tuple[str, int]] = await self.prices.page("a", limit=10, reverse=True)
        names = [name.upper() async for name, _ in self.prices.items()]
        self.books.append("a")
        self.books.appendleft("b")
        self.books[0] = "c"
        first: str = await self.books.popleft()
        last: str | None = await self.books.pop(None)
        some: list[str] = await self.books.range(0, 10)
        one: str = await self.books.get(-1)
        rest = [book.upper() async for book in self.books]
        both: tuple[str, str] = await asyncio.gather(self.books.popleft(), self.books.popleft())
        del self.books
        print(taken, there, count, page, names, first, last, some, one, rest, both)
        return len(self.books)

    @shared
    async def look(self, ctx: SharedContext) -> tuple[int, list[str]]:
        return len(self.books), await self.books.range(0, 10)


async def look_into(runtime: Runtime) -> None:
    for key, value in await runtime.entries(Archive, "a", "prices", after="b", limit=10):
        print(key, value)


class Report(VirtualObject, state_version=2):
    lines: list[str] = state(default=[])

    @cron("*/5 * * * *", tz="Europe/Berlin", key="main", missed="all")
    @cron("0 6 * * *", key="early")
    @handler
    async def write(self, ctx: ObjectContext) -> int:
        return len(self.lines)

    @migrate(from_version=1)
    @staticmethod
    def split(old: dict[str, Any]) -> dict[str, Any]:
        return {"lines": old["text"].splitlines()}


async def look_at_schedules(runtime: Runtime) -> str | None:
    written: int = await runtime.object(Report, "main").write()
    schedules: list[Schedule] = await runtime.schedules()
    paused: bool = await runtime.pause_schedule(schedules[written].name)
    await runtime.cancel_schedule(schedules[0].name)
    return schedules[0].last_invocation if paused and schedules[0].status is ScheduleStatus.ON else None


old: dict[str, Any] = dict(Report.split({"text": "one"}))


async def look_inside(runtime: Runtime, file: SqliteStore) -> list[str]:
    listed = [one async for one in runtime.invocations(status=InvocationStatus.PAUSED, limit=10)]
    told: list[str] = [f"{one.id} of {one.description.target}, due {one.description.due}" for one in listed]
    busy: dict[str, int] = {one.key: one.mailbox_messages async for one in runtime.objects(Ticket, limit=5)}
    waits = await runtime.why(listed[0].id)
    for wait in waits.waits:
        match wait:
            case TimerWait(until=until):
                told.append(until.isoformat())
            case ActionWait(name=name, attempt=int() as attempt):
                told.append(f"{name} for the {attempt}th time")
            case _:
                told.append(f"{wait} {wait.leads_to}")
    ends: list[tuple[WaitingInvocation, Wait]] = [*waits.ends()]
    journal = await runtime.journal(listed[0].id)
    times: list[datetime] = [step.at for step in journal.steps]
    report = await examine(file)
    problems: list[str] = [one.sentence for one in report.problems]
    return [*told, *problems, str(busy), str(times), str(ends)]


def of_a_coroutine(work: Coroutine[Any, Any, T]) -> T:
    raise NotImplementedError(work)


def of_an_awaitable(work: Awaitable[T]) -> T:
    raise NotImplementedError(work)


async def keeps_types_through_asyncio(caller: Caller, url: str) -> None:
    ticket = caller.object(Ticket, "a")
    assert_type(await ticket.reserve(), bool)
    assert_type(await asyncio.gather(ticket.reserve(), ticket.peek()), tuple[bool, Seat])
    assert_type(await asyncio.gather(ticket.reserve(), ticket.peek.send()), tuple[bool, Invocation[Seat]])
    assert_type(
        await asyncio.gather(ticket.reserve(), ticket.peek(), return_exceptions=True),
        tuple[bool | BaseException, Seat | BaseException],
    )
    assert_type(await asyncio.gather(*[ticket.peek() for _ in url]), list[Seat])
    assert_type(
        await asyncio.gather(
            caller.call("Contract", "name", key="a", returns=str), caller.send("Contract", "name", key="a", returns=int)
        ),
        tuple[str, Invocation[int]],
    )
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        assert_type(group.create_task(ticket.peek()), asyncio.Task[Seat])
    assert_type(asyncio.create_task(ticket.peek()), asyncio.Task[Seat])
    assert_type(asyncio.ensure_future(ticket.peek()), asyncio.Task[Seat])
    assert_type(await asyncio.wait_for(ticket.peek(), 5), Seat)
    assert_type(await asyncio.shield(ticket.peek()), Seat)
    for one in asyncio.as_completed([ticket.peek()]):
        assert_type(await one, Seat)
    assert_type(await select(one=ticket.peek(), other=ticket.peek()), tuple[str, Seat])
    assert_type(await settled(one=ticket.peek()), dict[str, Seat | BaseException])
    assert_type(of_a_coroutine(ticket.peek()), Seat)
    assert_type(of_an_awaitable(ticket.peek()), Seat)
    assert_type(await caller.invocation_of(ticket.peek()), Invocation[Seat])


async def keeps_types_through_asyncio_in_a_handler(ctx: ObjectContext, url: str) -> None:
    ticket = ctx.object(Ticket, "a")
    fetches = ctx.run("fetch", fetched, url)
    assert_type(
        await asyncio.gather(ticket.reserve(), ctx.run("fetch", fetched, url), ctx.sleep(1), ctx.signal("go", int)),
        tuple[bool, bytes, None, int],
    )
    assert_type(await asyncio.gather(ctx.awakeable(int), fetches), tuple[int, bytes])
    assert_type(await asyncio.gather(ticket.reserve.send(), ctx.run("fetch", len, url)), tuple[Invocation[bool], int])
    invocation = await ticket.reserve.send()
    assert_type(await asyncio.gather(invocation.result(), invocation.status()), tuple[bool, InvocationStatus])
    async with asyncio.TaskGroup() as group:
        assert_type(group.create_task(ctx.run("fetch", fetched, url)), asyncio.Task[bytes])
    assert_type(await select(one=ticket.peek(), other=ctx.sleep(3)), tuple[str, Seat | None])


class Tenants:
    def __init__(self, carts: Keyed[Ticket], caller: Caller) -> None:
        self.carts = carts
        self.caller = caller

    async def __call__(self, ctx: Context, call_next: CallNext) -> Any:
        assert_type(ctx.handler, HandlerInfo)
        assert_type(ctx.handler.actor_info.handlers["x"].options.timeout, timedelta | None)
        assert_type(call_next.arguments, Mapping[str, Any])
        assert_type(await self.carts["a"].reserve(), bool)
        return await call_next(count=1)


async def short(ctx: Context, call_next: Callable[[], Awaitable[Any]]) -> Any:
    return await call_next()


class Connection: ...


async def connect(key: ActivationKey) -> AsyncIterator[Connection]:
    yield Connection()


def connect_plainly() -> Iterator[Connection]:
    yield Connection()


async def connect_at_once() -> Connection:
    return Connection()


class Office(Service, middleware=[Tenants, short, Logging()]):
    @handler(middleware=(short, Tenants))
    async def write(self, ctx: Context, count: int) -> str:
        assert_type(authentication.principal(), Connection)
        return ""


def check(request: Request) -> Connection | None:
    return None


def no_more(arguments: Mapping[str, Any], handler: HandlerInfo) -> str | None:
    return None


authentication = Authentication(check)
assert_type(authentication, Authentication[Connection])
measured: list[Measurement] = []
around = [Metrics(measured.append), Validation(no_more), authentication]
assert_type(factory(connect, scope="activation"), Factory[Connection])
assert_type(factory(connect_plainly), Factory[Connection])
assert_type(factory(connect_at_once), Factory[Connection])
assert_type(factory(Connection), Factory[Connection])
harness = Harness(Office, middleware=around, dependencies={Connection: factory(connect)})
embedded = Runtime("memory:", [Office], middleware=[Tenants, short], dependencies={Connection: Connection()})
