"""Rules D: the loop that a handler runs on."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from durably import (
    Context,
    HandlerMistakeError,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Runtime,
    Service,
    SharedContext,
    VirtualObject,
    WrongContextError,
    handler,
    shared,
    state,
)
from durably.runtime.gateway.requests import InvocationRequest
from durably.testing import Harness
from tests.semantics.support import PuppetStore, World, begin, turns, wait_a_little


class Counter(VirtualObject):
    count: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, by: int = 1) -> int:
        self.count += by
        return self.count

    @shared
    async def peek(self, ctx: SharedContext) -> int:
        return self.count


SHARED: dict[str, Any] = {}
"""What the handlers below wrongly share between invocations."""


class Sharer(VirtualObject):
    value: int = state(default=0)

    @handler
    async def wait_for_event(self, ctx: ObjectContext) -> str:
        event = SHARED["event"] = asyncio.Event()
        tasks = [asyncio.create_task(event.wait()), asyncio.create_task(_sleep(ctx))]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return "by the event" if tasks[0].done() else "by the timer"

    @handler
    async def set_event(self, ctx: ObjectContext) -> str:
        SHARED["event"].set()
        return "set"

    @handler
    async def hide(self, ctx: ObjectContext) -> None:
        SHARED["ctx"], SHARED["self"], SHARED["loop"] = ctx, self, asyncio.get_running_loop()
        SHARED["reference"] = ctx.object(Counter, "a")
        if self.key == "waits":
            await ctx.sleep(10)

    @handler
    async def use(self, ctx: ObjectContext, what: str) -> str:
        USES[what]()
        return "it was allowed"


async def _sleep(ctx: ObjectContext) -> None:
    await ctx.sleep(1000)


def _make_task() -> None:
    async def nothing() -> None: ...

    coroutine = nothing()
    try:
        SHARED["loop"].create_task(coroutine)
    finally:
        coroutine.close()


def _assign() -> None:
    SHARED["self"].value = 1


def _delete() -> None:
    del SHARED["self"].value


USES: dict[str, Callable[[], object]] = {
    "now": lambda: SHARED["ctx"].now(),
    "random": lambda: SHARED["ctx"].random(),
    "uuid": lambda: SHARED["ctx"].uuid(),
    "sleep": lambda: SHARED["ctx"].sleep(1),
    "run": lambda: SHARED["ctx"].run("x", int),
    "log": lambda: SHARED["ctx"].log.info("x"),
    "get": lambda: SHARED["ctx"].get("value", int),
    "keys": lambda: SHARED["ctx"].keys(),
    "set": lambda: SHARED["ctx"].set("value", 1),
    "clear": lambda: SHARED["ctx"].clear("value"),
    "clear_all": lambda: SHARED["ctx"].clear_all(),
    "read": lambda: SHARED["self"].value,
    "assign": _assign,
    "delete": _delete,
    "call": lambda: SHARED["reference"].add(),
    "send": lambda: SHARED["reference"].add.send(),
    "call_soon": lambda: SHARED["loop"].call_soon(print),
    "call_later": lambda: SHARED["loop"].call_later(1, print),
    "call_at": lambda: SHARED["loop"].call_at(1, print),
    "create_task": _make_task,
}


class TestD1:
    """Whatever belongs to a handler raises outside its own advance."""

    async def test_an_event_shared_between_two_invocations_fails_with_a_sentence(self) -> None:
        async with Harness(Sharer) as app:
            waiting = await app.object(Sharer, "waits").wait_for_event.send()
            await turns()
            with pytest.raises(PausedInvocationError) as told:
                await app.object(Sharer, "sets").set_event()
            assert isinstance(told.value.__cause__, WrongContextError)
            assert "event" in str(told.value.__cause__)
            await wait_a_little(app, 1000)
            assert await waiting.result() == "by the timer"

    @pytest.mark.parametrize("use", USES)
    @pytest.mark.parametrize("owner", ["waits", "has-ended"])
    async def test_another_handler_is_refused(self, use: str, owner: str) -> None:
        async with Harness(Sharer, Counter, retry=RetryPolicy()) as app:
            hiding = begin(app.object(Sharer, owner).hide())
            await turns()
            with pytest.raises(PausedInvocationError) as told:
                await app.object(Sharer, "other").use(use)
            assert isinstance(told.value.__cause__, WrongContextError), repr(told.value.__cause__)
            await wait_a_little(app, 10)
            await hiding
            assert await app.state(Sharer, owner) == {}
            assert await app.state(Counter, "a") == {}

    @pytest.mark.parametrize("use", USES)
    @pytest.mark.parametrize("owner", ["waits", "has-ended"])
    async def test_the_host_is_refused(self, use: str, owner: str) -> None:
        async with Harness(Sharer, Counter) as app:
            hiding = begin(app.object(Sharer, owner).hide())
            await turns()
            with pytest.raises(WrongContextError):
                USES[use]()
            await wait_a_little(app, 10)
            await hiding
            assert await app.state(Sharer, owner) == {}
            assert await app.state(Counter, "a") == {}

    async def test_another_thread_is_refused(self) -> None:
        refused: list[str] = []

        def use_all() -> None:
            for name, use in USES.items():
                try:
                    use()
                except WrongContextError:
                    refused.append(name)

        async with Harness(Sharer, Counter) as app:
            hiding = begin(app.object(Sharer, "waits").hide())
            await turns()
            thread = threading.Thread(target=use_all)
            thread.start()
            thread.join()
            assert refused == list(USES)
            await wait_a_little(app, 10)
            await hiding

    @pytest.mark.parametrize(
        "name",
        [
            "call_soon_threadsafe",
            "run_in_executor",
            "add_reader",
            "create_connection",
            "subprocess_exec",
            "add_signal_handler",
        ],
    )
    async def test_what_reaches_outside_always_raises(self, name: str) -> None:
        class Reacher(Service):
            @handler
            async def reach(self, ctx: Context) -> None:
                result = getattr(asyncio.get_running_loop(), name)(None, None)
                if asyncio.iscoroutine(result):
                    await result

        async with Harness(Reacher, retry=RetryPolicy()) as app:
            with pytest.raises(PausedInvocationError, match=r"ctx\.run") as told:
                await app.service(Reacher).reach()
            assert isinstance(told.value.__cause__, HandlerMistakeError)


class TestD2:
    """`Runtime` refuses, before any effect, in a handler and on another loop than its own."""

    async def test_in_a_handler_it_says_what_to_use(self, store: PuppetStore) -> None:
        class Around(Service):
            @handler
            async def go(self, ctx: Context) -> int:
                runtime: Runtime = SHARED["app"]
                return await runtime.object(Counter, "a").add()

        async with Harness(Around, Counter, store=store) as app:
            SHARED["app"] = app
            with pytest.raises(PausedInvocationError, match=r"ctx\.object"):
                await app.service(Around).go()
            assert await app.state(Counter, "a") == {}

    async def test_on_another_loop_it_says_so(self) -> None:
        async with Harness(Counter) as app:
            said: list[str] = []

            async def elsewhere() -> None:
                for use in (
                    lambda: app.object(Counter, "a").add(),
                    lambda: app.object(Counter, "a").add.send(),
                    lambda: app.call("Counter", "add", key="a"),
                    lambda: app.invocation("inv_1", int).result(),
                    lambda: app.resume("inv_1"),
                ):
                    try:
                        use()
                    except WrongContextError as error:
                        said.append(str(error))

            thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
            thread.start()
            thread.join()
            assert len(said) == 5
            assert all("loop" in one for one in said)
            assert await app.object(Counter, "a").add() == 1

    def test_on_another_loop_of_the_same_thread_nothing_has_happened_yet(self) -> None:
        app = Harness(Counter)
        uses: list[Callable[[], Any]] = [
            lambda: app.object(Counter, "a").add(),
            lambda: app.object(Counter, "a").add.send(),
            lambda: app.call("Counter", "add", key="a"),
            lambda: app.request_send(InvocationRequest(service="Counter", key="a", handler="add", body=b"")),
            lambda: app.invocation("inv_1", int).status(),
            lambda: app.resume("inv_1"),
        ]
        awaited: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            lambda: app.state(Counter, "a"),
            lambda: app.advance(seconds=1),
            app.settle,
            app.crash,
            lambda: app.__aexit__(None, None, None),
        ]

        def refused(use: Callable[[], Any]) -> None:
            with pytest.raises(WrongContextError, match=r"another event loop|no event loop"):
                use()

        async def elsewhere() -> None:
            for use in uses:
                refused(use)
            for begin_use in awaited:
                with pytest.raises(WrongContextError, match="another event loop"):
                    await begin_use()

        with asyncio.Runner() as own, asyncio.Runner() as other:
            own.run(app.__aenter__())
            before = app.clock.now()
            other.run(elsewhere())
            for use in uses:
                refused(use)
            assert app.clock.now() == before
            assert own.run(app.state(Counter, "a")) == {}
            assert own.run(_add_one(app)) == 1
            own.run(app.__aexit__(None, None, None))

    async def test_a_runtime_cannot_be_started_in_a_handler(self) -> None:
        class Starter(Service):
            @handler
            async def go(self, ctx: Context) -> None:
                await Runtime("memory:", [Counter]).__aenter__()

        async with Harness(Starter) as app:
            with pytest.raises(PausedInvocationError, match="started in a handler"):
                await app.service(Starter).go()

    async def test_an_action_may_use_it(self) -> None:
        class Bridge(Service):
            @handler
            async def go(self, ctx: Context) -> int:
                return await ctx.run("bridge", self._add)

            async def _add(self) -> int:
                runtime: Runtime = SHARED["app"]
                return await runtime.object(Counter, "a").add()

        async with Harness(Bridge, Counter) as app:
            SHARED["app"] = app
            assert await app.service(Bridge).go() == 1


async def _add_one(app: Harness) -> int:
    return await app.object(Counter, "a").add()


class Messy(VirtualObject):
    """Its `finally` blocks do everything that must be ignored when an attempt is thrown away."""

    entries: list[str] = state(default=[])

    @handler
    async def wait(self, ctx: ObjectContext, how: str) -> str:
        try:
            await getattr(self, f"_{how}")(ctx)
        finally:
            self.entries.append("finally")
            ctx.set("extra", how)
            await ctx.object(Counter, "sink").add.send()
        return how

    async def _plain(self, ctx: ObjectContext) -> None:
        await ctx.sleep(10)

    async def _group(self, ctx: ObjectContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._plain(ctx))
            group.create_task(self._nested(ctx))

    async def _nested(self, ctx: ObjectContext) -> None:
        try:
            await ctx.sleep(10)
        finally:
            try:
                await ctx.sleep(0)
            finally:
                self.entries.append("nested")
                await asyncio.sleep(0)
                await ctx.object(Counter, "sink").add(10)

    async def _timeout(self, ctx: ObjectContext) -> None:
        async with asyncio.timeout(3600):
            await ctx.sleep(10)

    async def _tasks(self, ctx: ObjectContext) -> None:
        try:
            await ctx.sleep(10)
        finally:
            task = asyncio.create_task(self._add_much(ctx))
            asyncio.get_running_loop().call_later(1, self.entries.append, "timer").cancel()
            await task

    async def _add_much(self, ctx: ObjectContext) -> None:
        await ctx.object(Counter, "sink").add(100)

    async def _generator(self, ctx: ObjectContext) -> None:
        async for _ in self._generate(ctx):
            await ctx.sleep(10)

    async def _generate(self, ctx: ObjectContext) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await ctx.object(Counter, "sink").add(1000)

    async def _abandoned(self, ctx: ObjectContext) -> None:
        generator = self._generate(ctx)
        await anext(generator)
        circle: list[Any] = [generator]
        circle.append(circle)
        del generator, circle
        await ctx.sleep(10)

    async def _lock(self, ctx: ObjectContext) -> None:
        lock = asyncio.Lock()
        async with lock:
            await ctx.sleep(10)

    @shared
    async def collect(self, ctx: SharedContext) -> int:
        gc.collect()
        await ctx.sleep(1)
        gc.collect()
        return len(self.entries)


SUMS = {"plain": 1, "group": 11, "timeout": 1, "tasks": 101, "generator": 1001, "abandoned": 1, "lock": 1}


@pytest.fixture(scope="module")
def nothing_older_to_collect() -> Iterator[None]:
    """For tests that collect garbage all the time: what the suite has in memory already is left out of it."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("nothing_older_to_collect")
class TestD3:
    """Ending an attempt closes it at once, on its dead loop: whatever its `finally` blocks do is ignored."""

    @pytest.mark.parametrize("how", SUMS)
    async def test_finally_blocks_of_a_thrown_away_attempt_change_nothing(self, how: str, suspend_after: float) -> None:
        async with Harness(Messy, Counter, suspend_after=suspend_after) as app:
            call = begin(app.object(Messy, "m").wait(how))
            await turns()
            for _ in range(4):
                await app.crash()
                gc.collect()
                await wait_a_little(app, 2)
            await app.object(Messy, "m").collect.send()
            assert await app.object(Counter, "sink").peek() == 0
            await wait_a_little(app, 10)
            assert await call == how
            await wait_a_little(app, 10)
            assert await app.object(Counter, "sink").peek() == SUMS[how]
            entries = (await app.state(Messy, "m"))["entries"]
            assert entries.count("finally") == 1
            gc.collect()

    @pytest.mark.parametrize("how", SUMS)
    async def test_garbage_collection_at_every_advance_disturbs_nobody(self, how: str) -> None:
        thresholds = gc.get_threshold()
        try:
            async with Harness(Messy, Counter, suspend_after=0) as app:
                gc.set_threshold(1, 1, 1)
                calls = [begin(app.object(Messy, str(number)).wait(how)) for number in range(2)]
                looks = [begin(app.object(Messy, str(number)).collect()) for number in range(2)]
                await wait_a_little(app, 2)
                await app.crash()
                await wait_a_little(app, 12)
                assert [await call for call in calls] == [how] * 2
                assert [await look for look in looks] == [0] * 2
                assert await app.object(Counter, "sink").peek() == 2 * SUMS[how]
        finally:
            gc.set_threshold(*thresholds)


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="nothing")


class TestD4:
    """Each attempt runs in one fresh context; nothing is inherited from the caller but headers."""

    class Varied(VirtualObject):
        @handler
        async def look(self, ctx: ObjectContext) -> list[str]:
            before = VARIABLE.get()
            VARIABLE.set("from the handler")
            await ctx.sleep(1)
            return [before, VARIABLE.get()]

        @handler
        async def headers(self, ctx: ObjectContext) -> dict[str, str]:
            return dict(ctx.request.headers)

    async def test_variables_are_the_attempts_own(self, suspend_after: float) -> None:
        async with Harness(self.Varied, suspend_after=suspend_after) as app:
            VARIABLE.set("from the caller")
            for _ in range(2):
                call = begin(app.object(self.Varied, "v").look())
                await app.advance(1)
                assert await call == ["nothing", "from the handler"]
            assert VARIABLE.get() == "from the caller"

    async def test_headers_are_handed_on_by_hand(self) -> None:
        async with Harness(self.Varied) as app:
            headers = app.object(self.Varied, "v").headers
            assert await headers() == {}
            assert await headers.options(headers={"X-Tenant": "blue"})() == {"x-tenant": "blue"}


class TestD5:
    """`as_completed` over bare coroutines is refused, or in order; `create_task` takes what newer Pythons pass."""

    class Completing(Service):
        @handler
        async def bare(self, ctx: Context) -> list[int]:
            coroutines = [self._work(ctx, number) for number in range(5)]
            try:
                return [await one for one in asyncio.as_completed(coroutines)]
            finally:
                for coroutine in coroutines:
                    coroutine.close()

        @handler
        async def tasks(self, ctx: Context) -> list[int]:
            tasks = [asyncio.create_task(self._work(ctx, number)) for number in range(5)]
            return [await one for one in asyncio.as_completed(tasks)]

        async def _work(self, ctx: Context, number: int) -> int:
            await ctx.sleep(5 - number)
            return number

        @handler
        async def eager(self, ctx: Context) -> str:
            loop: Any = asyncio.get_running_loop()
            task: asyncio.Task[int] = loop.create_task(self._work(ctx, 4), name="n", eager_start=True, anything=1)
            return f"{await task} {task.get_name()}"

    async def test_bare_coroutines_are_refused_with_a_sentence(self) -> None:
        async with Harness(self.Completing, retry=RetryPolicy()) as app:
            with pytest.raises(PausedInvocationError, match="as_completed"):
                await app.service(self.Completing).bare()

    async def test_tasks_come_in_the_order_in_which_they_end(self, suspend_after: float) -> None:
        async with Harness(self.Completing, suspend_after=suspend_after) as app:
            call = begin(app.service(self.Completing).tasks())
            await app.advance(5)
            assert await call == [4, 3, 2, 1, 0]

    async def test_what_newer_pythons_pass_is_taken(self) -> None:
        async with Harness(self.Completing) as app:
            call = begin(app.service(self.Completing).eager())
            await app.advance(1)
            assert await call == "4 n"


class TestD6:
    """A cancelled embedded caller abandons the reply, never the invocation."""

    class Slow(VirtualObject):
        done: int = state(default=0)

        def __init__(self, world: World) -> None:
            self.world = world

        @handler
        async def work(self, ctx: ObjectContext) -> str:
            answer = await ctx.run("work", self.world.act, "work")
            self.done += 1
            return answer

    async def test_the_work_goes_on(self, world: World, suspend_after: float) -> None:
        async with Harness(self.Slow, dependencies={World: world}, suspend_after=suspend_after) as app:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await app.object(self.Slow, "s").work.options(idempotency_key="k")()
            assert world.cancelled == []
            world.end("work")
            assert await app.object(self.Slow, "s").work.options(idempotency_key="k").attach() == "work done"
            assert await app.state(self.Slow, "s") == {"done": 1}
            assert world.started == ["work"]

    async def test_a_reply_that_nobody_wants_any_more_is_dropped_quietly(self, world: World) -> None:
        async with Harness(self.Slow, dependencies={World: world}) as app:
            calls = [begin(app.object(self.Slow, "s").work()) for _ in range(3)]
            await turns()
            for call in calls:
                call.cancel()
            world.end("work")
            await app.settle()
            assert await app.state(self.Slow, "s") == {"done": 3}
