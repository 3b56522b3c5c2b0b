"""Each kind of mistake gets its sentence, pauses at once where a retry cannot mend it, and nothing is lost."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import math
import warnings
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from durably import (
    BlockingIOInHandlerError,
    BytesSerde,
    Context,
    DefinitionError,
    ForgottenAwaitError,
    HandlerMistakeError,
    InvalidArgumentError,
    InvalidKeyError,
    Limits,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Runtime,
    RuntimeStoppedError,
    Service,
    SharedContext,
    SharedStateError,
    TerminalError,
    UndeclaredStateError,
    UnknownTargetError,
    UnsetStateError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.actors.protocol.operations import frame_above
from durably.client import Client
from durably.storage.memory import MemoryStore
from durably.testing import Harness
from tests.semantics.support import PuppetStore, begin, tuned, turns


class Counter(VirtualObject):
    count: int = state(default=0)
    names: list[str] = state(default=[])
    unset: int = state()

    @handler
    async def add(self, ctx: ObjectContext, by: int = 1) -> int:
        self.count += by
        return self.count

    @shared
    async def peek(self, ctx: SharedContext) -> int:
        return self.count


MISTAKES: dict[str, bool] = {}
"""Which mistakes are still made, by the name of the handler: a person mends one by taking it out."""


class Mistaken(VirtualObject):
    count: int = state(default=0)
    names: list[str] = state(default=[])
    unset: int = state()

    @handler
    async def make(self, ctx: ObjectContext, what: str) -> str:
        self.names.append("begun")
        await ctx.object(Counter, "seen").add()
        if MISTAKES.get(what):
            await getattr(self, f"_{what}")(ctx)
        self.names.append("done")
        return ",".join(self.names)

    @shared
    async def make_shared(self, ctx: SharedContext, what: str) -> str:
        await ctx.object(Counter, "seen").add()
        if MISTAKES.get(what):
            await getattr(self, f"_{what}")(ctx)
        return "done"

    async def _undeclared(self, ctx: ObjectContext) -> None:
        self.conut = 1

    async def _key(self, ctx: ObjectContext) -> None:
        self.key = "another"

    async def _unset(self, ctx: ObjectContext) -> None:
        assert self.unset

    async def _own_handler(self, ctx: ObjectContext) -> None:
        await self.make("nothing")

    async def _connection(self, ctx: ObjectContext) -> None:
        await asyncio.open_connection("127.0.0.1", 1)

    async def _thread(self, ctx: ObjectContext) -> None:
        await asyncio.to_thread(print)

    async def _http(self, ctx: ObjectContext) -> None:
        import httpx

        client = httpx.AsyncClient(trust_env=False, verify=False)
        await client.get("http://127.0.0.1:1/")

    async def _subprocess(self, ctx: ObjectContext) -> None:
        await asyncio.create_subprocess_exec("true")

    async def _in_a_group(self, ctx: ObjectContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._thread(ctx))
            group.create_task(self._sleep(ctx))

    async def _in_gather(self, ctx: ObjectContext) -> None:
        await asyncio.gather(self._thread(ctx), self._sleep(ctx))

    async def _sleep(self, ctx: ObjectContext) -> None:
        await ctx.sleep(10)

    async def _nothing_to_wait_for(self, ctx: ObjectContext) -> None:
        await asyncio.Queue[int]().get()

    async def _busy(self, ctx: ObjectContext) -> None:
        while True:
            await asyncio.sleep(0)

    async def _write(self, ctx: Any) -> None:
        self.count = 1

    async def _delete(self, ctx: Any) -> None:
        del self.count

    async def _in_place(self, ctx: Any) -> None:
        self.names.append("x")

    async def _set(self, ctx: Any) -> None:
        ctx.set("count", 1)

    async def _clear(self, ctx: Any) -> None:
        ctx.clear("count")


@pytest.fixture(autouse=True)
def nobody_has_mended_anything() -> None:
    MISTAKES.clear()


EXCLUSIVE: list[tuple[str, type[BaseException], str]] = [
    ("undeclared", UndeclaredStateError, r"self\.conut.*state\(default"),
    ("key", UndeclaredStateError, r"self\.key"),
    ("unset", UnsetStateError, r"self\.unset.*default"),
    ("own_handler", HandlerMistakeError, r"ctx\.object\(Mistaken, self\.key\)\.make"),
    ("connection", BlockingIOInHandlerError, r"ctx\.run"),
    ("thread", BlockingIOInHandlerError, r"ctx\.run"),
    ("http", BlockingIOInHandlerError, r"ctx\.run"),
    ("subprocess", BlockingIOInHandlerError, r"ctx\.run"),
    ("in_a_group", BlockingIOInHandlerError, r"ctx\.run"),
    ("in_gather", BlockingIOInHandlerError, r"ctx\.run"),
    ("nothing_to_wait_for", HandlerMistakeError, r"nothing will ever supply"),
    ("busy", HandlerMistakeError, r"sleep\(0\)"),
]
SHARED: list[tuple[str, type[BaseException], str]] = [
    ("write", SharedStateError, r"self\.count.*@handler"),
    ("delete", SharedStateError, r"self\.count.*@handler"),
    ("in_place", SharedStateError, r"names.*@handler"),
    ("set", HandlerMistakeError, r"set"),
    ("clear", HandlerMistakeError, r"clear"),
]


DELAYS: dict[str, Callable[[Context], Any]] = {
    "case 0": lambda ctx: ctx.sleep(math.nan),
    "case 1": lambda ctx: ctx.sleep(-1),
    "case 2": lambda ctx: ctx.sleep(cast(Any, "5")),
    "case 3": lambda ctx: ctx.sleep(math.inf),
    "case 4": lambda ctx: ctx.sleep(timedelta(days=999_999)),
    "case 5": lambda ctx: asyncio.sleep(math.nan),
    "case 6": lambda ctx: asyncio.sleep(1e15),
    "case 7": lambda ctx: ctx.object(Counter, "a").add.after(math.nan).send(),
}


class TestMistakesOfAHandler:
    """They pause at once, whatever the policy; the caller hears the sentence; mended and resumed, it goes on."""

    async def paused(self, app: Harness, ask: Awaitable[str], kind: type[BaseException], words: str, what: str) -> None:
        call = begin(ask)
        await turns()
        assert call.done(), "it did not pause at once"
        with pytest.raises(PausedInvocationError, match=f"(?s){words}") as told:
            await call
        cause: Any = told.value.__cause__
        while isinstance(cause, BaseExceptionGroup):
            cause = next(iter(cast(Any, cause).exceptions))
        assert isinstance(cause, kind), repr(cause)
        MISTAKES[what] = False
        await app.resume(told.value.id)
        await app.settle()

    @pytest.mark.parametrize(("what", "kind", "words"), EXCLUSIVE, ids=[what for what, _, _ in EXCLUSIVE])
    async def test_in_an_exclusive_handler(
        self, what: str, kind: type[BaseException], words: str, suspend_after: float
    ) -> None:
        MISTAKES[what] = True
        # httpx reads a clock before it opens a connection; here it is to come so far.
        app = Harness(Mistaken, Counter, retry=RetryPolicy(), suspend_after=suspend_after, allow=["httpx"])
        async with tuned(app, advance_limit_callbacks=1_000):
            await self.paused(app, app.object(Mistaken, "m").make(what), kind, words, what)
            assert await app.state(Mistaken, "m") == {"names": ["begun", "done"]}
            assert await app.object(Counter, "seen").peek() == 1

    @pytest.mark.parametrize(("what", "kind", "words"), SHARED, ids=[what for what, _, _ in SHARED])
    async def test_in_a_shared_handler(
        self, what: str, kind: type[BaseException], words: str, suspend_after: float
    ) -> None:
        MISTAKES[what] = True
        async with Harness(Mistaken, Counter, retry=RetryPolicy(), suspend_after=suspend_after) as app:
            await self.paused(app, app.object(Mistaken, "m").make_shared(what), kind, words, what)
            assert await app.state(Mistaken, "m") == {}
            assert await app.object(Counter, "seen").peek() == 1

    async def test_a_call_that_is_tested_for_truth_says_what_is_missing(self) -> None:
        class Tester(Service):
            @handler
            async def test(self, ctx: Context) -> str:
                call: Any = ctx.object(Counter, "a").add()
                if call:
                    return "always true"
                return "never"

        async with Harness(Tester, Counter, retry=RetryPolicy(max_attempts=1)) as app:
            with pytest.raises(PausedInvocationError, match=r"Counter/add was tested for truth.*await"):
                await app.service(Tester).test()

    async def test_a_field_read_through_a_reference_says_who_may(self) -> None:
        class Reader(Service):
            @handler
            async def read(self, ctx: Context) -> int:
                return ctx.object(Counter, "a").count

            @handler
            async def write(self, ctx: Context) -> None:
                ctx.object(Counter, "a").count = 5

        async with Harness(Reader, Counter) as app:
            with pytest.raises(PausedInvocationError, match=r"'count' is state of .*@shared"):
                await app.service(Reader).read()
            with pytest.raises(PausedInvocationError, match=r"'count'.*handlers"):
                await app.service(Reader).write()
            with pytest.raises(AttributeError, match="is state of"):
                assert app.object(Counter, "a").count

    @pytest.mark.parametrize("wait", DELAYS.values(), ids=DELAYS)
    async def test_a_delay_that_makes_no_sense_is_refused_in_a_handler(self, wait: Callable[[Context], Any]) -> None:
        class Waiter(Service):
            @handler
            async def wait(self, ctx: Context) -> str:
                try:
                    await wait(ctx)
                except (ValueError, TypeError, OverflowError, HandlerMistakeError) as error:
                    return type(error).__name__
                return "it waited"

        async with Harness(Waiter, Counter) as app:
            call = begin(app.service(Waiter).wait())
            await turns()
            assert call.done(), "it waits"
            assert (await call) in ("InvalidDurationError", "ValueError", "OverflowError", "TypeError")

    @pytest.mark.parametrize("key", ["", "\ud800", "a\0b"])
    async def test_a_bad_key_is_a_terminal_error_400_wherever_it_is_used(self, key: str) -> None:
        class Asking(Service):
            @handler
            async def ask(self, ctx: Context) -> int:
                return await ctx.object(Counter, key).add()

            @handler
            async def tell(self, ctx: Context) -> None:
                await ctx.object(Counter, key).add.send()

        async with Harness(Asking, Counter) as app:
            for ask in (
                app.service(Asking).ask,
                app.service(Asking).tell,
                lambda: app.object(Counter, key).add(),
            ):
                with pytest.raises(InvalidKeyError, match="The key") as refused:
                    await ask()
                assert refused.value.code == 400

    @pytest.mark.parametrize("crashes", [False, True])
    @pytest.mark.parametrize("bad", ["", "\ud800", "a\0b"])
    async def test_what_may_come_from_a_request_and_makes_no_sense_is_a_terminal_error_400(
        self, bad: str, crashes: bool
    ) -> None:
        uses: dict[str, Callable[[Context], Awaitable[Any]]] = {
            "key": lambda ctx: ctx.call("Counter", "add", key=bad),
            "sent key": lambda ctx: ctx.send("Counter", "add", key=bad),
            "attached key": lambda ctx: ctx.attach("Counter", "add", key=bad, idempotency_key="k"),
            "service": lambda ctx: ctx.call(bad, "add", key="a"),
            "handler": lambda ctx: ctx.call("Counter", bad, key="a"),
            "idempotency key": lambda ctx: ctx.call("Counter", "add", key="a", idempotency_key=bad),
            "option": lambda ctx: ctx.object(Counter, "a").add.options(idempotency_key=bad)(),
            "id": lambda ctx: ctx.invocation(bad).status(),
            "awakeable": lambda ctx: ctx.resolve_awakeable(bad),
            "header": lambda ctx: ctx.object(Counter, "a").add.options(headers={"x": bad or "a\nb"})(),
            "delay": lambda ctx: ctx.object(Counter, "a").add.after(-5).send(),
            "long delay": lambda ctx: ctx.send("Counter", "add", key="a", after=1e300),
            "timeout": lambda ctx: ctx.object(Counter, "a").add.options(timeout=-1)(),
            "sleep": lambda ctx: ctx.sleep(-1),
        }

        class Asking(Service):
            @handler
            async def ask(self, ctx: Context, what: str) -> None:
                await ctx.sleep(1)
                await uses[what](ctx)

        async with Harness(Asking, Counter) as app:
            for what in uses:
                asked = begin(app.service(Asking).ask(what))
                if crashes:
                    await app.settle()
                    await app.crash()
                await app.advance(2)
                with pytest.raises(InvalidArgumentError) as refused:
                    await asked
                assert refused.value.code == 400


class TestMistakesOutside:
    """Host code hears of its mistake where it makes it, and nothing is accepted."""

    async def test_unknown_targets_are_named_with_what_there_is(self, store: PuppetStore) -> None:
        async with Harness(Counter, Mistaken, store=store) as app:
            for ask in (app.call, app.send):
                with pytest.raises(UnknownTargetError, match=r"'Cuonter'.*Counter, Mistaken") as unknown:
                    await ask("Cuonter", "add", b"1", key="a")
                assert unknown.value.known == ("Counter", "Mistaken")
                with pytest.raises(UnknownTargetError, match=r"Counter has no handler 'ad'.*add, peek"):
                    await ask("Counter", "ad", b"1", key="a")
                with pytest.raises(UnknownTargetError, match="needs a key"):
                    await ask("Counter", "add", b"1")
            with pytest.raises(UnknownTargetError, match="inv_nothing"):
                await app.invocation("inv_nothing", int).result()
            with pytest.raises(UnknownTargetError, match="inv_nothing"):
                await app.invocation("inv_nothing", int).status()
            with pytest.raises(UnknownTargetError, match="inv_nothing"):
                await app.resume("inv_nothing")
            assert store.stored() == []

    async def test_a_class_that_the_runtime_does_not_run_is_unknown_too(self) -> None:
        async with Harness(Mistaken) as app:
            with pytest.raises(UnknownTargetError, match="'Counter'"):
                await app.object(Counter, "a").add()

    async def test_the_wrong_kind_of_reference_is_refused(self) -> None:
        class Plain(Service):
            @handler
            async def go(self, ctx: Context) -> None: ...

        async with Harness(Counter, Plain) as app:
            service: Any = Counter
            with pytest.raises(TypeError, match=r"object\(Counter, key\)"):
                app.service(service)
            thing: Any = Plain
            with pytest.raises(TypeError, match=r"service\(Plain\)"):
                app.object(thing, "key")
            for key in ("", 5, None):
                wrong: Any = key
                with pytest.raises(TypeError, match="key of Counter"):
                    app.object(Counter, wrong)
            with pytest.raises(UnknownTargetError, match="takes no key"):
                await app.call("Plain", "go", key="x")

    async def test_wrong_numbers_of_arguments_are_refused_in_pythons_words(self) -> None:
        async with Harness(Counter) as app:
            add: Any = app.object(Counter, "a").add
            for args, kwargs in (((1, 2), {}), ((), {"bye": 1}), ((1,), {"by": 1})):
                with pytest.raises(TypeError, match=r"'add' takes \(by: int = 1\)"):
                    add(*args, **kwargs)

    async def test_delays_and_moments_that_make_no_sense(self) -> None:
        async with Harness(Counter) as app:
            add = app.object(Counter, "a").add
            for delay in (math.nan, -1.0, math.inf):
                with pytest.raises(ValueError, match="after"):
                    add.after(delay)
            with pytest.raises(ValueError, match="time zone"):
                add.at(datetime(2026, 1, 1))  # noqa: DTZ001
            moment: Any = 5
            with pytest.raises(TypeError, match="datetime"):
                add.at(moment)
            with pytest.raises(TypeError, match="not both"):
                add.after(*(5,), seconds=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
            with pytest.raises(ValueError, match="timeout"):
                add.options(timeout=math.nan)
            with pytest.raises(TypeError, match="idempotency key"):
                add.options(idempotency_key="")

    async def test_a_payload_that_is_too_large_is_refused(self, store: PuppetStore) -> None:
        class Taker(VirtualObject):
            @handler
            async def take(self, ctx: ObjectContext, text: str) -> int:
                return len(text)

        async with tuned(Harness(Taker, store=store), payload_bytes=1_000) as app:
            with pytest.raises(InvalidArgumentError, match="1000"):
                await app.object(Taker, "t").take("x" * 2_000)
            with pytest.raises(InvalidArgumentError, match="1000"):
                await app.send("Taker", "take", b'"' + b"x" * 2_000 + b'"', key="t")
            assert store.stored() == []
            assert await app.object(Taker, "t").take("x" * 100) == 100

    def test_before_the_start_and_after_the_stop_it_says_so(self) -> None:
        runtime = Runtime(MemoryStore(), [Counter])
        uses: list[Callable[[], Any]] = [
            lambda: runtime.object(Counter, "a").add(),
            lambda: runtime.object(Counter, "a").add.send(),
            lambda: runtime.call("Counter", "add", key="a"),
            lambda: runtime.invocation("inv_1", int).status(),
            lambda: runtime.resume("inv_1"),
        ]

        async def use_all() -> None:
            for use in uses:
                with pytest.raises(RuntimeStoppedError, match="async with"):
                    use()
            with pytest.raises(RuntimeStoppedError):
                await runtime.state(Counter, "a")

        async def main() -> None:
            await use_all()
            async with runtime:
                assert await runtime.object(Counter, "a").add() == 1
                with pytest.raises(RuntimeError, match="running already"):
                    await runtime.__aenter__()
            await use_all()

        for use in uses:
            with pytest.raises(RuntimeStoppedError):
                use()
        asyncio.run(main())

    async def test_a_forgotten_await_outside_is_a_warning_that_names_its_line(self) -> None:
        async with Harness(Counter) as app:
            app.object(Counter, "a").add()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
            line = frame_above(0).f_lineno - 1
            with pytest.warns(RuntimeWarning, match=r"Counter/add was never awaited, at .*test_bad_input\.py") as told:
                await app.settle()
            assert [(warning.filename, warning.lineno) for warning in told] == [(__file__, line)]
            assert await app.object(Counter, "a").peek() == 1

    async def test_a_forgotten_await_in_a_handler_names_its_line(self) -> None:
        class Forgetful(Service):
            @handler
            async def go(self, ctx: Context) -> None:
                ctx.sleep(5)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]

        async with Harness(Forgetful) as app:
            with pytest.raises(PausedInvocationError, match=r"sleep, at .*test_bad_input\.py") as told:
                await app.service(Forgetful).go()
            assert isinstance(told.value.__cause__, ForgottenAwaitError)

    async def test_a_call_outside_that_is_tested_for_truth_says_what_is_missing(self) -> None:
        async with Harness(Counter) as app:
            call: Any = app.object(Counter, "a").add()
            with pytest.raises(TypeError, match="await"):
                assert call
            assert await call == 1

    async def test_no_warning_is_left_over(self) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            async with Harness(Counter) as app:
                await app.object(Counter, "a").add()
        assert caught == []


@pytest.mark.parametrize("given", [5, "often", RetryPolicy], ids=repr)
def test_a_retry_policy_of_another_kind_is_refused_where_it_is_given(given: Any) -> None:
    """Found wrong when an attempt fails, it was taken for a failure of the store."""
    with pytest.raises(DefinitionError, match="retry= of handler 'add' is a RetryPolicy"):
        handler(retry=given)(Counter.add.function)
    with pytest.raises(DefinitionError, match=r"retry= of .*Other is a RetryPolicy"):
        type("Other", (VirtualObject,), {}, retry=given)
    with pytest.raises(DefinitionError, match=r"Runtime\(retry=\.\.\.\) is a RetryPolicy"):
        Runtime(MemoryStore(), [Counter], retry=given)
    with pytest.raises(DefinitionError, match=r"Client\(retry=\.\.\.\) is a RetryPolicy"):
        Client("http://localhost", retry=given)


@pytest.mark.parametrize(
    "option", ["limits", "pubsub", "codec", "on_paused", "deadlocks", "retention", "drain", "version", "logger"]
)
def test_an_option_of_another_kind_is_refused_where_it_is_given(option: str) -> None:
    given: dict[str, Any] = {option: {}}
    with pytest.raises((DefinitionError, TypeError), match=option):
        Runtime(MemoryStore(), [Counter], **given)


def test_limits_by_name_are_a_mapping() -> None:
    names: Any = ["stripe"]
    with pytest.raises(TypeError, match=r"named=\.\.\.\) takes a mapping"):
        Limits(named=names)


@pytest.mark.parametrize("given", [{"retry": 5}, {"retry": RetryPolicy}, {"serde": 5}, {"serde": BytesSerde}], ids=repr)
async def test_options_of_an_action_that_make_no_sense_pause_the_handler(given: dict[str, Any]) -> None:
    class Doer(Service):
        @handler
        async def do(self, ctx: Context) -> None:
            await ctx.run.options(**given)("fail", fail)

    async def fail() -> None:
        raise ValueError("try again")

    async with Harness(Doer) as app:
        with pytest.raises(PausedInvocationError, match=r"run\.options\((retry|serde)=\.\.\.\) is a"):
            await app.service(Doer).do()


USES_OF_NAMES: dict[str, Callable[[ObjectContext, Any], Any]] = {
    "run": lambda ctx, name: ctx.run(name, str),
    "state": lambda ctx, name: ctx.set(name, 1),
    "headers": lambda ctx, headers: ctx.object(Counter, "b").add.options(headers=headers)(),
}


@pytest.mark.parametrize("given", [5, [3], {3}, b"x", 1.5], ids=repr)
@pytest.mark.parametrize("what", USES_OF_NAMES)
async def test_what_is_no_name_is_told_so(what: str, given: Any) -> None:
    class Namer(VirtualObject):
        @handler(retry=RetryPolicy(max_attempts=1, then="fail"))
        async def use(self, ctx: ObjectContext) -> None:
            await USES_OF_NAMES[what](ctx, given)

    async with Harness(Namer, Counter) as app:
        with pytest.raises((TerminalError, PausedInvocationError), match=r"Unicode text without NUL|Headers are"):
            await app.object(Namer, "a").use()
