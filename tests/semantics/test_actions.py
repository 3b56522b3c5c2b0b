"""Rules A: side effects, `ctx.run`."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import pytest

from durably import (
    ActionFailedError,
    ActionTimeoutError,
    Context,
    InvocationStatus,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    SharedContext,
    TerminalError,
    VirtualObject,
    WrongContextError,
    handler,
    shared,
    state,
)
from durably.testing import Harness
from tests.semantics.support import PuppetStore, World, begin, keep_one_incarnation, turns, wait_a_little

PATIENT = RetryPolicy(initial=1, factor=1, maximum=1)
ONCE = RetryPolicy(max_attempts=1)
TWICE = RetryPolicy(max_attempts=2, initial=1)


class TestA1:
    """Running actions belong to the runtime: attempts and failed commits come and go beside them."""

    class Stumbler(VirtualObject):
        """One branch runs an action, the other fails until it is told not to."""

        stumbles = 0

        def __init__(self, world: World) -> None:
            self.world = world

        @handler
        async def go(self, ctx: ObjectContext) -> str:
            action = asyncio.create_task(self._act(ctx))
            await ctx.sleep(1)
            if TestA1.Stumbler.stumbles > 0:
                TestA1.Stumbler.stumbles -= 1
                raise ConnectionError("not yet")
            return await action

        async def _act(self, ctx: ObjectContext) -> str:
            return await ctx.run("charge", self.world.act, "charge")

        @shared
        async def look(self, ctx: SharedContext) -> str:
            await ctx.sleep(100)
            return "looked"

    async def test_a_retry_beside_a_running_action_joins_it(self, world: World, suspend_after: float) -> None:
        self.Stumbler.stumbles = 3
        app = Harness(self.Stumbler, dependencies={World: world}, retry=PATIENT, suspend_after=suspend_after)
        async with app:
            call = begin(app.object(self.Stumbler, "s").go())
            await turns()
            for _ in range(6):
                await wait_a_little(app, 1)
            assert self.Stumbler.stumbles == 0
            world.end("charge")
            assert await call == "charge done"
            assert app.actions() == ["charge"]
            assert world.started == ["charge"]

    async def test_an_action_that_ends_while_the_handler_backs_off_is_not_started_again(
        self, world: World, suspend_after: float
    ) -> None:
        self.Stumbler.stumbles = 1
        app = Harness(self.Stumbler, dependencies={World: world}, retry=PATIENT, suspend_after=suspend_after)
        async with app:
            call = begin(app.object(self.Stumbler, "s").go())
            await turns()
            await wait_a_little(app, 1)
            world.end("charge")
            await turns()
            await wait_a_little(app, 1)
            assert await call == "charge done"
            assert world.started == ["charge"]

    async def test_an_object_with_a_running_action_is_not_forgotten_while_it_backs_off(self, world: World) -> None:
        self.Stumbler.stumbles = 1
        async with Harness(self.Stumbler, dependencies={World: world}, retry=PATIENT, suspend_after=0) as app:
            stumbler = app.object(self.Stumbler, "s")
            call = begin(stumbler.go())
            await turns()
            await wait_a_little(app, 1)
            await stumbler.look.send()  # Its suspension is a moment at which the object could leave memory.
            await turns()
            world.end("charge")
            await turns()
            await wait_a_little(app, 1)
            assert await call == "charge done"
            assert world.started == ["charge"]

    async def test_a_failed_commit_does_not_start_it_again(self, world: World, store: PuppetStore) -> None:
        class Two(VirtualObject):
            def __init__(self, world: World) -> None:
                self.world = world

            @handler
            async def go(self, ctx: ObjectContext) -> list[str]:
                first = asyncio.create_task(self._act(ctx, "first"))
                second = await ctx.run("second", self.world.act, "second")
                return [second, await first]

            async def _act(self, ctx: ObjectContext, name: str) -> str:
                return await ctx.run(name, self.world.act, name)

        async with Harness(Two, dependencies={World: world}, store=store) as app:
            call = begin(app.object(Two, "t").go())
            await turns()
            store.hold()
            world.end("second")
            await turns()
            await store.fail_one(durable=False)
            await store.go_on()
            await turns()
            world.end("first")
            assert await call == ["second done", "first done"]
            assert sorted(world.started) == ["first", "second"]

    async def test_a_new_process_starts_it_again(self, world: World) -> None:
        async with Harness(self.Stumbler, dependencies={World: world}) as app:
            call = begin(app.object(self.Stumbler, "s").go())
            await turns()
            assert world.started == ["charge"]
            await app.crash()
            await turns()
            assert world.started == ["charge", "charge"]
            assert world.cancelled == ["charge"]
            world.end("charge")
            await app.advance(1)
            assert await call == "charge done"


class TestA2:
    """A durable completion is never run again; what follows from an action starts only after that."""

    class Three(Service):
        def __init__(self, world: World) -> None:
            self.world = world

        @handler
        async def go(self, ctx: Context) -> list[str]:
            return [await ctx.run(name, self.world.act_at_once, name) for name in ("one", "two", "three")]

    async def test_a_kill_at_any_commit_repeats_at_most_the_last_action(self, suspend_after: float) -> None:
        for crash_at in range(1, 10):
            store, world = PuppetStore(), World()
            app = Harness(self.Three, dependencies={World: world}, store=store, suspend_after=suspend_after)
            async with app:
                store.hold()
                call = begin(app.service(self.Three).go.options(idempotency_key="k")())
                await turns()
                for _ in range(crash_at - 1):
                    if store.waiting:
                        await store.let_one()
                if not store.waiting:
                    assert crash_at > 4
                    assert await call == ["one done", "two done", "three done"]
                    assert world.started == ["one", "two", "three"]
                    break
                await store.lose(app)
                await asyncio.wait([call])
                answer = await app.service(self.Three).go.options(idempotency_key="k")()
                assert answer == ["one done", "two done", "three done"]
                ledger = world.started
                assert sorted(set(ledger), key=["one", "two", "three"].index) == ["one", "two", "three"]
                repeated = [name for name in ledger if ledger.count(name) > 1]
                assert len(ledger) <= 4
                assert repeated == [] or repeated == [repeated[0]] * 2
        else:
            pytest.fail("there was no end of commits")

    async def test_an_action_starts_only_when_its_command_is_durable(self, world: World, store: PuppetStore) -> None:
        async with Harness(self.Three, dependencies={World: world}, store=store) as app:
            store.hold()
            call = begin(app.service(self.Three).go())
            await turns()
            assert world.started == []
            await store.let_one()
            assert world.started == ["one"]
            await store.let_one()
            assert world.started == ["one", "two"]
            await store.go_on()
            assert await call == ["one done", "two done", "three done"]


class TestA3:
    """Without a policy an action is retried like the invocation; with one it fails; terminal errors are not retried."""

    class Flaky(Service):
        def __init__(self, failures: list[Exception]) -> None:
            self.failures = failures

        async def _fetch(self) -> str:
            if self.failures:
                raise self.failures.pop(0)
            return "fetched"

        @handler
        async def plain(self, ctx: Context) -> str:
            return await ctx.run("fetch", self._fetch)

        @handler
        async def limited(self, ctx: Context) -> str:
            try:
                return await ctx.run.options(retry=RetryPolicy(max_attempts=2, initial=1))("fetch", self._fetch)
            except TerminalError as error:
                return f"gave up: {error}"

        @handler
        async def terminal(self, ctx: Context) -> str:
            try:
                return await ctx.run("fetch", self._fetch)
            except TerminalError as error:
                return f"{error.code}: {error}"

    async def called(
        self, handler: Callable[[Flaky], Any], failures: list[Exception], seconds: float, **options: Any
    ) -> tuple[str, int]:
        async with Harness(self.Flaky, dependencies={list[Exception]: failures}, **options) as app:
            call = begin(handler(app.service(self.Flaky))())
            await turns()
            await wait_a_little(app, seconds)
            return await call, len(app.actions("fetch"))

    async def test_without_a_policy_it_is_retried_like_the_invocation_without_end(self, suspend_after: float) -> None:
        failures: list[Exception] = [ConnectionError(str(number)) for number in range(20)]
        got = await self.called(
            lambda flaky: flaky.plain, failures, 2000, retry=RetryPolicy(), suspend_after=suspend_after
        )
        assert got == ("fetched", 21)

    async def test_with_a_policy_the_handler_hears_a_terminal_error(self, suspend_after: float) -> None:
        failures: list[Exception] = [ConnectionError("first"), ConnectionError("second")]
        said, attempts = await self.called(
            lambda flaky: flaky.limited, failures, 60, retry=RetryPolicy(), suspend_after=suspend_after
        )
        assert said == (
            "gave up: The action 'fetch' failed for good after 2 attempts. The last error: ConnectionError: second"
        )
        assert attempts == 2

    async def test_a_terminal_error_is_delivered_unretried(self, suspend_after: float) -> None:
        failures: list[Exception] = [TerminalError("no such card", code=402)]
        got = await self.called(
            lambda flaky: flaky.terminal, failures, 60, retry=RetryPolicy(), suspend_after=suspend_after
        )
        assert got == ("402: no such card", 1)

    async def test_an_invocations_policy_that_is_exhausted_by_an_action_pauses_it(self) -> None:
        failures: list[Exception] = [ConnectionError("down")]
        async with Harness(self.Flaky, dependencies={list[Exception]: failures}) as app:
            with pytest.raises(PausedInvocationError, match="ConnectionError: down") as told:
                await app.service(self.Flaky).plain()
            assert isinstance(told.value.__cause__, ConnectionError)
            await app.resume(told.value.id)
            await app.settle()
            assert len(app.actions("fetch")) == 2

    async def test_being_cancelled_by_a_stop_is_no_result(self, world: World, store: PuppetStore) -> None:
        class Worker(Service):
            def __init__(self, world: World) -> None:
                self.world = world

            @handler
            async def work(self, ctx: Context) -> str:
                return await ctx.run("work", self.world.act, "work")

        async with Harness(Worker, dependencies={World: world}, store=store) as app:
            sent = await app.service(Worker).work.send()
            await turns()
            await app.crash()
            await turns()
            assert world.cancelled == ["work"]
            assert await sent.status() is InvocationStatus.RUNNING
            world.end("work")
            assert await sent.result() == "work done"

    async def test_a_time_limit_is_for_each_attempt(self, world: World) -> None:
        class Limited(Service):
            def __init__(self, world: World) -> None:
                self.world = world

            @handler
            async def work(self, ctx: Context) -> str:
                limited = ctx.run.options(timeout=0, retry=RetryPolicy(max_attempts=3, initial=1))
                try:
                    return await limited("work", self.world.act, "work")
                except TerminalError as error:
                    return f"{error.code}"

        async with Harness(Limited, dependencies={World: world}) as app:
            call = begin(app.service(Limited).work())
            await turns()
            await wait_a_little(app, 10)
            assert await call == "408"
            assert app.actions() == ["work"] * 3


class TestFailuresAreNamed:
    """An action that failed for good says which it is, how often it was tried, and what its last error was."""

    class Failing(Service):
        def __init__(self, world: World) -> None:
            self.world = world

        async def _fail(self, *errors: Exception) -> str:
            self.world.started.append("fail")
            raise errors[min(len(self.world.started), len(errors)) - 1]

        @handler
        async def fail(self, ctx: Context) -> None:
            await ctx.run.options(retry=TWICE)("fail", self._fail, ConnectionError("first"), ValueError("second"))

        @handler
        async def give_up(self, ctx: Context) -> None:
            policy = RetryPolicy(give_up_on=(KeyError,))
            await ctx.run.options(retry=policy)("give up", self._fail, KeyError("seat"))

        @handler
        async def never_end(self, ctx: Context) -> None:
            await ctx.run.options(retry=TWICE, timeout=5)("act", self.world.act, "act")

        @handler
        async def time_out_by_itself(self, ctx: Context) -> None:
            await ctx.run.options(retry=ONCE, timeout=5)("act", self._fail, TimeoutError("no answer"))

        @handler
        async def several(self, ctx: Context) -> None:
            group = ExceptionGroup("both", [TerminalError("a", code=402), TerminalError("b")])
            await ctx.run("act", self._fail, group)

        @handler
        async def ask(self, ctx: Context, handler: str) -> None:
            await ctx.call("Failing", handler)

        @handler
        async def cause(self, ctx: Context) -> str:
            try:
                await ctx.run.options(retry=TWICE)("fail", self._fail, ConnectionError("first"), ValueError("second"))
            except ActionFailedError as error:
                return repr(error.__cause__)
            return "nothing was raised"

    async def failure(self, world: World, handler: str, *, through: int = 0) -> TerminalError:
        async with Harness(self.Failing, dependencies={World: world}, retry=RetryPolicy()) as app:
            failing = app.service(self.Failing)
            call = begin(failing.ask(handler) if through else getattr(failing, handler)())
            await turns()
            await wait_a_little(app, 60)
            with pytest.raises(TerminalError) as told:
                await call
            return told.value

    @pytest.mark.parametrize("through", [0, 1], ids=["directly", "through another handler"])
    @pytest.mark.parametrize(
        ("handler", "kind", "action", "attempts", "error_type", "last"),
        [
            ("fail", ActionFailedError, "fail", 2, "ValueError", "second"),
            ("give_up", ActionFailedError, "give up", 1, "KeyError", "'seat'"),
            ("never_end", ActionTimeoutError, "act", 2, "TimeoutError", "took longer than its limit of 5 s"),
            ("time_out_by_itself", ActionFailedError, "act", 1, "TimeoutError", "no answer"),
        ],
    )  # fmt: skip
    async def test_in_every_field_and_in_the_text(
        self, world: World, handler: str, kind: type[ActionFailedError], action: str, attempts: int, error_type: str,
        last: str, through: int,
    ) -> None:  # fmt: skip
        error = await self.failure(world, handler, through=through)
        assert type(error) is kind
        assert isinstance(error, ActionFailedError)
        assert (error.action, error.attempts, error.error_type) == (action, attempts, error_type)
        assert error.last_message.endswith(last)
        assert error.code == (408 if kind is ActionTimeoutError else 500)
        assert str(error).startswith(f"The action {action!r} failed for good after {attempts} attempt")
        assert last in str(error)

    async def test_a_group_of_terminal_errors_is_delivered_unretried(self, world: World) -> None:
        error = await self.failure(world, "several")
        assert (type(error), error.code, str(error)) == (TerminalError, 402, "a")
        assert world.started == ["fail"]

    async def test_the_last_error_is_the_cause_where_it_is_in_memory(self, world: World) -> None:
        async with Harness(self.Failing, dependencies={World: world}) as app:
            call = begin(app.service(self.Failing).cause())
            await turns()
            await wait_a_little(app, 60)
            assert await call == "ValueError('second')"

    async def test_an_exhausted_policy_of_the_invocation_names_the_limit_too(self, world: World) -> None:
        class Limited(Service):
            @handler
            async def work(self, ctx: Context) -> str:
                return await ctx.run.options(timeout=5)("work", world.act, "work")

        async with Harness(Limited) as app:
            call = begin(app.service(Limited).work())
            await turns()
            await wait_a_little(app, 5)
            with pytest.raises(PausedInvocationError, match="TimeoutError: the action 'work' took longer than its"):
                await call


class Counter(VirtualObject):
    count: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext) -> int:
        self.count += 1
        return self.count


SMUGGLED: list[Callable[[Any, ObjectContext], object]] = []
"""What the action below does with the context and the object that were smuggled into it."""


class Smuggler(VirtualObject):
    count: int = state(default=0)
    names: list[str] = state(default=[])

    @handler
    async def smuggle(self, ctx: ObjectContext) -> str:
        async def action() -> None:
            result = SMUGGLED[-1](self, ctx)
            if asyncio.iscoroutine(result):
                result.close()

        self.names.append("touched")
        await ctx.run("smuggle", action)
        return "it was not refused"


def assign(smuggler: Any, ctx: ObjectContext) -> None:
    smuggler.count = 1


def delete(smuggler: Any, ctx: ObjectContext) -> None:
    del smuggler.count


USES: dict[str, Callable[[Any, ObjectContext], object]] = {
    "now": lambda _, ctx: ctx.now(),
    "random": lambda _, ctx: ctx.random(),
    "uuid": lambda _, ctx: ctx.uuid(),
    "sleep": lambda _, ctx: ctx.sleep(1),
    "run": lambda _, ctx: ctx.run("inner", int),
    "log": lambda _, ctx: ctx.log.info("hello"),
    "get": lambda _, ctx: ctx.get("count", int),
    "keys": lambda _, ctx: ctx.keys(),
    "set": lambda _, ctx: ctx.set("count", 1),
    "clear": lambda _, ctx: ctx.clear("count"),
    "clear_all": lambda _, ctx: ctx.clear_all(),
    "reading-state": lambda smuggler, _: smuggler.count,
    "assigning-state": assign,
    "deleting-state": delete,
    "calling": lambda _, ctx: ctx.object(Counter, "a").add(),
    "sending": lambda _, ctx: ctx.object(Counter, "a").add.send(),
    "attach": lambda _, ctx: ctx.object(Counter, "a").add.options(idempotency_key="k").attach(),
    "calling-by-name": lambda _, ctx: ctx.call("Counter", "add", key="a"),
    "result": lambda _, ctx: ctx.invocation("inv_1", int).result(),
    "status": lambda _, ctx: ctx.invocation("inv_1", int).status(),
}


class TestA4:
    """`ctx`, state and references refuse to be used inside an action, with a sentence."""

    @pytest.mark.parametrize("use", USES.values(), ids=USES)
    async def test_it_is_refused(self, use: Callable[[Any, ObjectContext], object]) -> None:
        SMUGGLED.append(use)
        async with Harness(Smuggler, Counter) as app:
            with pytest.raises(PausedInvocationError) as told:
                await app.object(Smuggler, "s").smuggle()
            assert isinstance(told.value.__cause__, WrongContextError)
            assert "ctx.run" in str(told.value) or "handler" in str(told.value)
            keep_one_incarnation(app)

    async def test_a_mistake_in_an_action_pauses_at_once_whatever_the_policy(self) -> None:
        SMUGGLED.append(lambda _, ctx: ctx.sleep(1))
        async with Harness(Smuggler, Counter, retry=RetryPolicy()) as app:
            call = begin(app.object(Smuggler, "s").smuggle())
            await turns()
            assert call.done()
            with pytest.raises(PausedInvocationError):
                await call
            assert len(app.actions()) == 1

    async def test_a_thread_is_refused_too(self) -> None:
        class Threads(Service):
            @handler
            async def go(self, ctx: Context) -> str:
                def action() -> str:
                    ctx.sleep(1)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
                    return "it was not refused"

                return await ctx.run("thread", action)

        async with Harness(Threads) as app:
            with pytest.raises(PausedInvocationError) as told:
                await app.service(Threads).go()
            assert isinstance(told.value.__cause__, WrongContextError)


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="nothing")


class TestActionsGetACopyOfTheContext:
    """Rule D4, for actions."""

    class Varied(Service):
        @handler
        async def inherited(self, ctx: Context) -> list[str]:
            async def look() -> str:
                return VARIABLE.get()

            return [VARIABLE.get(), await ctx.run("look", look)]

        @handler
        async def handed_on(self, ctx: Context) -> list[str]:
            async def look() -> str:
                seen = VARIABLE.get()
                VARIABLE.set("changed in the action")
                return seen

            VARIABLE.set("from the handler")
            return [await ctx.run("look", look), VARIABLE.get()]

        @handler
        async def handed_to_a_thread(self, ctx: Context) -> str:
            def look() -> str:
                return VARIABLE.get()

            VARIABLE.set("from the handler")
            return await ctx.run("look", look)

    async def test_nothing_is_inherited_from_the_caller(self) -> None:
        async with Harness(self.Varied) as app:
            VARIABLE.set("from the caller")
            assert await app.service(self.Varied).inherited() == ["nothing", "nothing"]

    async def test_an_action_sees_what_its_handler_set_and_changes_only_its_copy(self) -> None:
        async with Harness(self.Varied) as app:
            assert await app.service(self.Varied).handed_on() == ["from the handler", "from the handler"]

    async def test_a_thread_sees_it_too(self) -> None:
        async with Harness(self.Varied) as app:
            assert await app.service(self.Varied).handed_to_a_thread() == "from the handler"
