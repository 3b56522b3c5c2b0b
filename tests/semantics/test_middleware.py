"""Middleware stands around handlers of every kind, inside their execution: it sees, changes, refuses, is replayed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from durably import (
    CallNext,
    CancelledInvocationError,
    Context,
    DeadlineExceededError,
    DefinitionError,
    HandlerInfo,
    InvalidArgumentError,
    Middleware,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    SharedContext,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    cron,
    handler,
    shared,
    state,
)
from durably.actors.definition.binding import bind
from durably.middleware import Validation
from durably.runtime.invocations.code_versions import CodeVersions
from durably.storage.memory import MemoryStore
from durably.testing import Harness, Simulation, for_each_crash_point
from durably.testing.replaying import ReplayError, export_journals, replay_journals

WAYS: list[dict[str, Any]] = [{}, {"suspend_after": 0}, {"nothing_resident": True}]


class Named:
    """Notes when it is entered and left, durably, with a run and a wait around the handler."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, ctx: Context, call_next: CallNext) -> Any:
        ENTERED.append(f"{self.name} of {ctx.handler.name}")
        await ctx.run(f"{self.name} begins", _nothing)
        result = await call_next()
        await ctx.sleep(1)
        return f"{self.name}({result})"


ENTERED: list[str] = []


def _nothing() -> None: ...


async def whole(ctx: Context, call_next: CallNext) -> Any:
    ENTERED.append(f"whole of {ctx.handler.name}")
    return await call_next()


class Base(VirtualObject, abstract=True, middleware=[Named("base")]):
    pass


class Desk(Base, middleware=[Named("class")], metadata={"team": "sales"}):
    seen: list[str] = state(default_factory=list[str])

    @handler(middleware=[Named("handler"), Named("inner")])
    async def write(self, ctx: ObjectContext, text: str, times: int = 1) -> str:
        self.seen.append(text)
        await ctx.run("write", _nothing)
        return text * times

    @handler(atomic=True)
    async def note(self, ctx: ObjectContext, text: str) -> str:
        self.seen.append(text)
        return text

    @shared
    async def read(self, ctx: SharedContext) -> str:
        return ",".join(self.seen)


@pytest.mark.parametrize("way", WAYS)
async def test_it_runs_from_the_runtime_inwards_in_handlers_of_each_kind(way: dict[str, Any]) -> None:
    class Errand(Workflow, middleware=[Named("class")]):
        @handler
        async def run(self, ctx: WorkflowContext) -> str:
            return "run"

        @shared(middleware=[Named("look")])
        async def look(self, ctx: SharedContext) -> str:
            return "look"

    async with Harness(Desk, Errand, middleware=[Named("runtime")], **way) as app:

        async def told(asked: Coroutine[Any, Any, str]) -> str:
            task = asyncio.ensure_future(asked)
            await app.advance(10)
            return await task

        desk = app.object(Desk, "a")
        assert await told(desk.write("x", 2)) == "runtime(base(class(handler(inner(xx)))))"
        assert await told(desk.note("y")) == "runtime(base(class(y)))"
        assert await told(desk.read()) == "runtime(base(class(x,y)))"
        assert await told(app.workflow(Errand, "1").run()) == "runtime(class(run))"
        assert await told(app.workflow(Errand, "1").look()) == "runtime(class(look(look)))"
        begun = [one.removesuffix(" begins") for one in app.actions() if one.endswith("begins")]
        assert begun[:5] == ["runtime", "base", "class", "handler", "inner"]


async def test_it_sees_the_invocation_the_handler_and_the_class() -> None:
    found: dict[str, Any] = {}

    async def look(ctx: Context, call_next: CallNext) -> Any:
        found.update(request=ctx.request, handler=ctx.handler, given=dict(call_next.arguments))
        return await call_next()

    policy = RetryPolicy(max_attempts=3)

    class Shop(Service, middleware=[look], retry=policy, metadata={"team": "sales"}):
        @handler(timeout=60, private=False, middleware=[whole], metadata={"tier": "1"})
        async def buy(self, ctx: Context, what: str, *, count: int = 2) -> float:
            return 1.5

        @handler(private=True)
        async def sell(self, ctx: Context) -> None: ...

    async with Harness(Shop) as app:
        await app.service(Shop).buy.options(headers={"X-Tenant": "acme"})("tea")
    info = found["handler"]
    assert found["request"].headers["x-tenant"] == "acme"
    assert found["request"].id.startswith("inv_")
    assert found["given"] == {"what": "tea", "count": 2}
    assert (info.service, info.name, info.kind, info.returns) == ("Shop", "buy", "service", float)
    assert info.parameters == {"what": str, "count": int}
    assert info.options.timeout is not None
    assert info.options.timeout.total_seconds() == 60
    assert info.options.retry == policy
    assert not info.options.private
    assert info.middleware == (whole,)
    assert info.metadata == {"team": "sales", "tier": "1"}
    about = info.actor_info
    assert (about.name, about.kind, about.actor, about.middleware) == ("Shop", "service", Shop, (look,))
    assert [*about.handlers] == ["buy", "sell"]
    assert about.handlers["sell"].options.private
    assert about.handlers["buy"] is info
    assert "sell" not in repr(info)


async def changes_the_count(ctx: Context, call_next: CallNext) -> Any:
    return await call_next(count=call_next.arguments["count"] + 1)


async def changes_the_type(ctx: Context, call_next: CallNext) -> Any:
    return await call_next(count="many")


async def names_another(ctx: Context, call_next: CallNext) -> Any:
    return await call_next(number=1)


async def calls_twice(ctx: Context, call_next: CallNext) -> Any:
    await call_next()
    return await call_next()


async def forgets_to_return(ctx: Context, call_next: CallNext) -> Any:
    await call_next()


async def answers_itself(ctx: Context, call_next: CallNext) -> Any:
    return ["cached"]


async def refuses(ctx: Context, call_next: CallNext) -> Any:
    raise TerminalError("not today", code=403)


async def _only_ctx(ctx: Context) -> None: ...


def _counting(*middleware: Any) -> type[Service]:
    class Counting(Service):
        @handler(middleware=middleware)
        async def count(self, ctx: Context, count: int, names: list[str]) -> list[str]:
            ENTERED.append("handler")
            return names * count

    return Counting


async def test_it_changes_arguments_and_results_and_may_answer_or_refuse() -> None:
    async def ask(*middleware: Any) -> Any:
        ENTERED.clear()
        async with Harness(_counting(*middleware)) as app:
            return await app.call("Counting", "count", argument={"count": 1, "names": ["a"]}, returns=list[str])

    assert await ask(changes_the_count, changes_the_count) == ["a", "a", "a"]
    assert await ask(answers_itself) == ["cached"]
    assert ENTERED == []
    with pytest.raises(TerminalError, match="not today") as refused:
        await ask(refuses)
    assert refused.value.code == 403
    assert ENTERED == []


@pytest.mark.parametrize(
    ("middleware", "sentence"),
    [
        (changes_the_type, "The argument 'count' of handler 'count'"),
        (
            names_another,
            r"names_another gave Counting/count the argument 'number', and .* \(count: int",
        ),
        (calls_twice, "calls_twice ran call_next.. a second time for Counting/count"),
        (forgets_to_return, r"result of handler 'count'.*through middleware \(.*forgets_to_return\)"),
    ],
)
async def test_its_mistakes_are_sentences(middleware: Any, sentence: str) -> None:
    async with Harness(_counting(middleware)) as app:
        with pytest.raises(PausedInvocationError, match=sentence):
            await app.call("Counting", "count", argument={"count": 1, "names": ["a"]}, returns=list[str])


async def test_an_argument_that_does_not_fit_is_refused_before_it() -> None:
    class Caller(Service):
        @handler
        async def ask(self, ctx: Context) -> None:
            await ctx.call("Counting", "count", argument={"count": "x"})

    ENTERED.clear()
    async with Harness(_counting(whole), Caller) as app:
        with pytest.raises(InvalidArgumentError):
            await app.service(Caller).ask()
    assert ENTERED == []


async def test_it_stands_around_ticks_and_hears_cancels_and_deadlines() -> None:
    heard: dict[str, list[str]] = {}  # A harness replays what has ended.

    async def hears(ctx: Context, call_next: CallNext) -> Any:
        try:
            return await call_next()
        except asyncio.CancelledError:
            heard[ctx.request.id] = [ctx.handler.name, "cancelled"]
            raise
        finally:
            heard.setdefault(ctx.request.id, [ctx.handler.name])

    class Clock(Service, middleware=[hears]):
        @cron("0 * * * *")
        @handler
        async def tick(self, ctx: Context) -> None: ...

        @handler
        async def wait(self, ctx: Context) -> None:
            await ctx.sleep(600)

    async with Harness(Clock) as app:
        await app.advance(hours=1)
        assert [*heard.values()] == [["tick"]]
        sent = await app.service(Clock).wait.send()
        await app.settle()
        await sent.cancel()
        with pytest.raises(CancelledInvocationError):
            await sent.result()
        late = await app.service(Clock).wait.options(timeout=5).send()
        await app.advance(6)
        with pytest.raises(DeadlineExceededError):
            await late.result()
    assert [*heard.values()][1:] == [["wait", "cancelled"]] * 2


class Till(VirtualObject):
    total: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        self.total += amount
        await ctx.run("print", _nothing)
        return self.total


class Book(VirtualObject):
    lines: list[str] = state(default_factory=list[str])

    @handler
    async def enter(self, ctx: ObjectContext, line: str) -> None:
        self.lines.append(line)


async def bookkeeping(ctx: Context, call_next: CallNext) -> Any:
    """A run, a call, the handler, a wait and a call."""
    if ctx.handler.service == "Book":
        return await call_next()
    number = await ctx.run("number", lambda: 7)
    await ctx.object(Book, "b").enter(f"begins {number}")
    result = await call_next(amount=call_next.arguments["amount"] * 2)
    await ctx.sleep(30)
    await ctx.object(Book, "b").enter(f"ends {result}")
    return result + 1


@pytest.mark.parametrize("options", [{}, {"suspend_after": 0}])
def test_it_is_replayed_like_a_handler_with_a_crash_at_every_commit(options: dict[str, Any]) -> None:
    async def program(sim: Simulation) -> Any:
        assert await sim.object(Till, "t").add(1) == 3
        assert sim.snapshots[Book, "b"].lines == ["begins 7", "ends 2"]
        assert sim.snapshots[Till, "t"].total == 2

    run: Callable[..., Any] = partial(for_each_crash_point, program, Till, Book, middleware=[bookkeeping], **options)
    assert run().runs > 5


async def test_with_nothing_resident_at_any_await_the_end_is_the_same() -> None:
    async with Harness(Till, Book, middleware=[bookkeeping], nothing_resident=True) as app:
        task = asyncio.ensure_future(app.object(Till, "t").add(1))
        await app.advance(60)
        assert await task == 3
        assert app.snapshots[Book, "b"].lines == ["begins 7", "ends 2"]


class Limits:
    highest = 2


class Bounded:
    made: ClassVar[int] = 0

    def __init__(self, limits: Limits) -> None:
        Bounded.made += 1
        self.limits = limits

    async def __call__(self, ctx: Context, call_next: CallNext) -> Any:
        if call_next.arguments["count"] > self.limits.highest:
            raise TerminalError("too many")
        return await call_next()


async def test_a_class_is_made_once_for_a_runtime_with_its_dependencies() -> None:
    counting = _counting(Bounded, Bounded)
    async with Harness(counting, dependencies={Limits: Limits()}, middleware=[Bounded]) as app:
        with pytest.raises(TerminalError, match="too many"):
            await app.call("Counting", "count", argument={"count": 3, "names": []})
    assert Bounded.made == 1
    with pytest.raises(DefinitionError, match=r"constructor of the middleware .*Bounded asks for limits: .*Limits"):
        Harness(counting)


def _not_async(ctx: Context, call_next: CallNext) -> None: ...


NO_MIDDLEWARE: list[tuple[Any, str]] = [
    (whole, r"middleware= of handler 'add' takes a list"),
    ([3], "has 3, which is no middleware"),
    ([_not_async], "called without `async`"),
    ([Till], "a class without `__call__`"),
    ([_only_ctx], r"called with \(ctx, call_next\)"),
]


@pytest.mark.parametrize(("given", "sentence"), NO_MIDDLEWARE)
def test_what_is_no_middleware_is_refused_where_it_is_named(given: Any, sentence: str) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        handler(middleware=given)(Till.add.function)
    with pytest.raises(DefinitionError):
        Harness(Till, middleware=given)


class Explicit(Middleware):
    """A class that says what it is, without a constructor of its own."""

    async def __call__(self, ctx: Context, call_next: CallNext, /) -> Any:
        return [*await call_next(), "explicit"]


async def test_a_class_may_extend_the_protocol() -> None:
    async with Harness(_counting(Explicit)) as app:
        told = await app.call("Counting", "count", argument={"count": 1, "names": ["a"]}, returns=list[str])
    assert told == ["a", "explicit"]


def test_it_changes_the_version_of_the_handlers_around_which_it_stands() -> None:
    def versions(*middleware: Any, own: Sequence[Any] = ()) -> list[str]:
        versions = CodeVersions()
        bound = bind(_counting(*own), {}, middleware=middleware)
        return [versions.of(one).code for one in bound.handlers.values()]

    bare, one, other = versions(), versions(whole), versions(refuses)
    assert len({*bare, *one, *other}) == 3
    assert versions(own=[whole]) == one
    assert versions(whole, refuses) != versions(refuses, whole)
    assert versions(Validation(_first_rule)) != versions(Validation(_other_rule))


def _first_rule(arguments: Mapping[str, Any], handler: HandlerInfo) -> str | None:
    return "no"


def _other_rule(arguments: Mapping[str, Any], handler: HandlerInfo) -> str | None:
    return "never"


async def test_journals_are_replayed_with_it(tmp_path: Path) -> None:
    store = MemoryStore()
    async with Harness(Till, Book, middleware=[bookkeeping], store=store) as app:
        await app.object(Till, "t").add.send(1)
        await app.settle()
        await export_journals(store, tmp_path)
    assert replay_journals(tmp_path, Till, Book, middleware=[bookkeeping]).steps == 4
    with pytest.raises(ReplayError, match="number"):
        replay_journals(tmp_path, Till, Book)
