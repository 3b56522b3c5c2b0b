"""Rules E3 and E6: what ends an invocation, and what waits for a person."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from durably import (
    CancelledInvocationError,
    Context,
    HandlerMistakeError,
    Invocation,
    InvocationStatus,
    ObjectContext,
    PausedInvocationError,
    RetryableError,
    RetryPolicy,
    Runtime,
    Service,
    SharedContext,
    TerminalError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.storage.memory import MemoryStore
from durably.testing import Harness
from tests.semantics.support import PuppetStore, World, begin, turns, wait_a_little


@dataclass(eq=False)
class SoldOutError(TerminalError):
    """No seats are left."""

    seat: str
    left: int
    code = 409


class Failing(Service):
    @handler
    async def sold_out(self, ctx: Context) -> None:
        raise SoldOutError("2B", 0)

    @handler
    async def group(self, ctx: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._fail(SoldOutError("2B", 0)))
            group.create_task(self._fail(TerminalError("second", code=400)))

    @handler
    async def mixed_group(self, ctx: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._fail(SoldOutError("2B", 0)))
            group.create_task(self._fail(ValueError("a bug")))

    async def _fail(self, error: Exception) -> None:
        raise error

    @handler
    async def timeout(self, ctx: Context) -> None:
        async with asyncio.timeout(5):
            await ctx.sleep(10)

    @handler
    async def cancelled(self, ctx: Context) -> None:
        raise asyncio.CancelledError

    @handler
    async def through(self, ctx: Context) -> str:
        try:
            await ctx.service(Failing).sold_out()
        except SoldOutError as error:
            return f"{error.seat} {error.left} {error.code}"
        return "?"

    @handler
    async def uncaught(self, ctx: Context) -> None:
        await ctx.service(Failing).sold_out()


class TestE3:
    async def test_a_terminal_error_arrives_with_its_class_and_fields(self, suspend_after: float) -> None:
        async with Harness(Failing, suspend_after=suspend_after) as app:
            for name in ("sold_out", "uncaught"):
                with pytest.raises(SoldOutError) as failed:
                    await getattr(app.service(Failing), name)()
                assert (failed.value.seat, failed.value.left, failed.value.code) == ("2B", 0, 409)
            assert await app.service(Failing).through() == "2B 0 409"

    async def test_a_group_whose_leaves_are_all_terminal_is_terminal(self, suspend_after: float) -> None:
        async with Harness(Failing, suspend_after=suspend_after) as app:
            with pytest.raises(SoldOutError) as failed:
                await app.service(Failing).group()
            assert failed.value.seat == "2B"
            assert "second" in str(failed.value.metadata)

    async def test_a_group_with_a_bug_in_it_is_retried(self, suspend_after: float) -> None:
        async with Harness(Failing, suspend_after=suspend_after) as app:
            with pytest.raises(PausedInvocationError) as told:
                await app.service(Failing).mixed_group()
            assert isinstance(told.value.__cause__, ExceptionGroup)

    async def test_a_timeout_that_leaves_a_handler_is_terminal(self, suspend_after: float) -> None:
        async with Harness(Failing, suspend_after=suspend_after) as app:
            call = begin(app.service(Failing).timeout())
            await turns()
            await wait_a_little(app, 5)
            with pytest.raises(TerminalError) as failed:
                await call
            assert failed.value.code == 408

    async def test_a_cancellation_that_leaves_a_handler_is_terminal(self, suspend_after: float) -> None:
        async with Harness(Failing, suspend_after=suspend_after) as app:
            with pytest.raises(CancelledInvocationError) as failed:
                await app.service(Failing).cancelled()
            assert failed.value.code == 409
            assert type(failed.value) is CancelledInvocationError

    @pytest.mark.parametrize("where", ["at once", "in a task", "in a callback", "after a wait"])
    async def test_a_handler_that_exits_is_paused_and_the_others_go_on(self, where: str, suspend_after: float) -> None:
        class Exits(VirtualObject):
            @handler
            async def exit(self, ctx: ObjectContext) -> None:
                if where == "in a task":
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._exit())
                if where == "in a callback":
                    asyncio.get_running_loop().call_soon(sys.exit, 0)
                if where == "after a wait" or where == "in a callback":
                    await ctx.sleep(1)
                sys.exit(0)

            async def _exit(self) -> None:
                sys.exit(0)

            @shared
            async def peek(self, ctx: SharedContext) -> str:
                return "fine"

        async with Harness(Exits, suspend_after=suspend_after) as app:
            exiting = begin(app.object(Exits, "e").exit())
            await app.advance(seconds=1)
            with pytest.raises(PausedInvocationError, match=r"SystemExit\(0\), as sys.exit\(\) does"):
                await exiting
            assert await app.object(Exits, "e").peek() == "fine"
            await app.crash()
            assert await app.object(Exits, "e").peek() == "fine"

    async def test_running_out_of_memory_is_a_failed_attempt(self) -> None:
        errors = [MemoryError("too much"), MemoryError("too much")]

        class Greedy(Service):
            @handler
            async def eat(self, ctx: Context) -> str:
                if errors:
                    raise errors.pop()
                return "eaten"

        async with Harness(Greedy, retry=RetryPolicy(max_attempts=2, initial=1)) as app:
            eating = await app.service(Greedy).eat.send()
            asking = begin(eating.result())
            await app.advance(seconds=1)
            with pytest.raises(PausedInvocationError, match="MemoryError: too much"):
                await asking
            await app.resume(eating.id)
            assert await eating.result() == "eaten"

    async def test_retry_after_is_obeyed(self) -> None:
        errors: list[Exception] = [RetryableError("later", retry_after=100)]

        class Later(Service):
            @handler
            async def go(self, ctx: Context) -> str:
                if errors and ctx.request.attempt == 1:
                    raise errors[0]
                return "done"

        async with Harness(Later, retry=RetryPolicy()) as app:
            call = begin(app.service(Later).go())
            await turns()
            await wait_a_little(app, 99)
            assert not call.done()
            await wait_a_little(app, 1)
            assert await call == "done"

    @pytest.mark.parametrize("method", ["attempts", "action"])
    async def test_the_longest_duration_of_a_policy_counts_across_crashes(
        self, method: str, suspend_after: float
    ) -> None:
        policy = RetryPolicy(initial=10, factor=1, max_duration=100, then="fail")

        class Hopeless(Service):
            @handler(retry=policy)
            async def attempts(self, ctx: Context) -> None:
                raise ConnectionError("never")

            @handler
            async def action(self, ctx: Context) -> None:
                await ctx.run.options(retry=policy)("act", self._act)

            async def _act(self) -> None:
                raise ConnectionError("never")

        async with Harness(Hopeless, suspend_after=suspend_after) as app:
            sent = await getattr(app.service(Hopeless), method).send()
            for _ in range(3):
                await app.advance(29)
                await app.crash()
                await app.settle()
                assert await sent.status() is not InvocationStatus.COMPLETED
            await app.advance(14)
            with pytest.raises(TerminalError, match="never"):
                await asyncio.wait_for(sent.result(), 1)

    async def test_an_exhausted_policy_may_fail_instead_of_pausing(self, suspend_after: float) -> None:
        class Hopeless(Service):
            @handler(retry=RetryPolicy(initial=1, max_attempts=3, then="fail"))
            async def go(self, ctx: Context) -> None:
                raise ConnectionError("never")

            @handler(retry=RetryPolicy(give_up_on=(ValueError,)))
            async def give_up(self, ctx: Context) -> None:
                raise ValueError("not a number")

        async with Harness(Hopeless, suspend_after=suspend_after) as app:
            call = begin(app.service(Hopeless).go())
            await turns()
            await wait_a_little(app, 10)
            with pytest.raises(TerminalError, match="ConnectionError: never"):
                await call
            with pytest.raises(TerminalError, match="ValueError: not a number"):
                await app.service(Hopeless).give_up()


MENDED = {"code": False}


class Fragile(VirtualObject):
    entries: list[str] = state(default=[])

    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def work(self, ctx: ObjectContext) -> str:
        self.entries.append("begun")
        answer = await ctx.run("act", self.world.act_at_once, "act")
        await ctx.object(Fragile, "other").note("called")
        if not MENDED["code"]:
            await asyncio.to_thread(print, "this is not allowed")
        self.entries.append(answer)
        return answer

    @handler
    async def note(self, ctx: ObjectContext, text: str) -> list[str]:
        self.entries.append(text)
        return self.entries

    @shared
    async def look(self, ctx: SharedContext) -> list[str]:
        return self.entries


class Above(Service):
    @handler
    async def call(self, ctx: Context) -> str:
        return await ctx.object(Fragile, "f").work()

    @handler
    async def call_above(self, ctx: Context) -> str:
        return await ctx.service(Above).call()


class TestE6:
    """A paused invocation keeps its mailbox blocked until a person resumes it; it goes on from its journal."""

    @pytest.fixture(autouse=True)
    def broken(self) -> None:
        MENDED["code"] = False

    async def test_it_blocks_its_mailbox_shared_handlers_run_and_resuming_goes_on_from_the_journal(
        self, world: World, suspend_after: float
    ) -> None:
        app = Harness(Fragile, Above, dependencies={World: world}, retry=RetryPolicy(), suspend_after=suspend_after)
        async with app:
            fragile = app.object(Fragile, "f")
            with pytest.raises(PausedInvocationError) as paused:
                await fragile.work()
            assert isinstance(paused.value.__cause__, HandlerMistakeError)
            behind = await fragile.note.send("behind")
            with pytest.raises(PausedInvocationError, match=paused.value.id):
                await behind.result()
            assert await behind.status() is InvocationStatus.PENDING
            assert await fragile.look() == ["begun"]
            assert await app.invocation(paused.value.id, str).status() is InvocationStatus.PAUSED
            await app.crash()
            await wait_a_little(app, 3600)
            assert await behind.status() is InvocationStatus.PENDING
            MENDED["code"] = True
            assert await app.resume(paused.value.id) == [paused.value.id]
            assert await behind.result() == ["begun", "act done", "behind"]
            assert world.started == ["act"], "what was journaled was done again"
            assert await app.object(Fragile, "other").look() == ["called"]

    async def test_resuming_what_is_not_mended_pauses_again_and_loses_nothing(self, world: World) -> None:
        async with Harness(Fragile, Above, dependencies={World: world}, retry=RetryPolicy()) as app:
            with pytest.raises(PausedInvocationError) as paused:
                await app.object(Fragile, "f").work()
            for _ in range(3):
                await app.resume(paused.value.id)
                with pytest.raises(HandlerMistakeError):
                    await app.settle()
            MENDED["code"] = True
            await app.resume(paused.value.id)
            await app.settle()
            assert await app.object(Fragile, "f").look() == ["begun", "act done"]

    async def test_everybody_outside_who_waits_for_it_however_far_above_is_told(
        self, world: World, suspend_after: float
    ) -> None:
        app = Harness(Fragile, Above, dependencies={World: world}, retry=RetryPolicy(), suspend_after=suspend_after)
        async with app:
            calls = [
                begin(app.service(Above).call_above()),
                begin(app.object(Fragile, "f").work.options(idempotency_key="k")()),
                begin(app.object(Fragile, "f").work.options(idempotency_key="k")()),
            ]
            await turns()
            told = [call.done() for call in calls]
            for call in calls:
                if not call.done():
                    call.cancel()
            assert told.count(True) >= 1
            first = next(call for call in calls if call.done())
            assert isinstance(first.exception(), PausedInvocationError)
            app._ledger.unheard.clear()

    @pytest.mark.parametrize("levels", ["call", "call_above"])
    async def test_a_caller_of_a_caller_of_a_paused_invocation_does_not_hang(
        self, levels: str, world: World, suspend_after: float
    ) -> None:
        app = Harness(Fragile, Above, dependencies={World: world}, retry=RetryPolicy(), suspend_after=suspend_after)
        async with app:
            call = begin(getattr(app.service(Above), levels)())
            await turns()
            hangs = not call.done()
            app._ledger.unheard.clear()
            assert not hangs, "it hangs"
            with pytest.raises(PausedInvocationError, match=r"to_thread|run_in_executor"):
                await call

    async def test_one_that_waits_for_itself_can_be_paused(self, world: World) -> None:
        class Snake(Service):
            @handler
            async def bite(self, ctx: Context) -> None:
                tail = asyncio.create_task(self._wait(ctx))
                await ctx.sleep(1)
                await asyncio.to_thread(print, tail)

            async def _wait(self, ctx: Context) -> None:
                await ctx.invocation(ctx.request.id, str).result()

        async with Harness(Snake, retry=RetryPolicy()) as app:
            call = begin(app.service(Snake).bite())
            await turns()
            await wait_a_little(app, 1)
            with pytest.raises(PausedInvocationError):
                await call

    async def test_the_hook_is_told_with_a_handle_and_the_cause(self, world: World) -> None:
        told: list[tuple[str, BaseException, InvocationStatus]] = []

        async def on_paused(invocation: Invocation[Any], error: BaseException) -> None:
            told.append((invocation.id, error, await invocation.status()))

        runtime = Runtime(MemoryStore(), [Fragile, Above], dependencies={World: world}, on_paused=on_paused)
        async with runtime:
            with pytest.raises(PausedInvocationError) as paused:
                await runtime.object(Fragile, "f").work()
            await turns()
            ((id, error, status),) = told
            assert id == paused.value.id
            assert error is paused.value.__cause__
            assert status is InvocationStatus.PAUSED

    async def test_a_hook_that_fails_is_logged_and_disturbs_nobody(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def on_paused(invocation: Invocation[Any], error: BaseException) -> None:
            raise ConnectionError("the pager is down")

        runtime = Runtime(MemoryStore(), [Fragile, Above], dependencies={World: world}, on_paused=on_paused)
        async with runtime:
            with pytest.raises(PausedInvocationError):
                await runtime.object(Fragile, "f").work()
            await turns()
            assert "the pager is down" in caplog.text
            assert await runtime.object(Fragile, "other").look() == ["called"]

    @pytest.mark.parametrize("depth", ["call", "call_above"])
    @pytest.mark.parametrize("crash", [False, True])
    async def test_whoever_asks_later_for_a_caller_of_a_paused_one_is_told_too(
        self, depth: str, crash: bool, world: World, store: PuppetStore, suspend_after: float
    ) -> None:
        app = Harness(Fragile, Above, dependencies={World: world}, store=store, suspend_after=suspend_after)
        async with app:
            with pytest.raises(PausedInvocationError) as paused:
                await getattr(app.service(Above), depth).options(idempotency_key="k")()
            if crash:
                await app.crash()
            with pytest.raises(PausedInvocationError) as told:
                await asyncio.wait_for(getattr(app.service(Above), depth).options(idempotency_key="k")(), 1)
            assert told.value.id == paused.value.id
            handles = [one async for one in app.invocations(target=f"Above/{depth}")]
            with pytest.raises(PausedInvocationError):
                await asyncio.wait_for(handles[0].result(), 1)

    async def test_whoever_asks_for_one_that_is_resumed_and_goes_on_hears_its_outcome(self, world: World) -> None:
        async with Harness(Fragile, Above, dependencies={World: world}) as app:
            with pytest.raises(PausedInvocationError) as paused:
                await app.service(Above).call.options(idempotency_key="k")()
            MENDED["code"] = True
            await app.resume(paused.value.id)
            assert await app.service(Above).call.options(idempotency_key="k")() == "act done"

    async def test_operators_see_what_waits(self, world: World, store: PuppetStore) -> None:
        class Stumbler(VirtualObject):
            @handler(retry=RetryPolicy(initial=60))
            async def stumble(self, ctx: ObjectContext) -> None:
                raise ConnectionError("not yet")

        app = Harness(Fragile, Above, Stumbler, dependencies={World: world}, store=store)
        async with app:
            with pytest.raises(PausedInvocationError) as paused:
                await app.object(Fragile, "f").work()
            stumbling = await app.object(Stumbler, "s").stumble.send()
            behind = await app.object(Fragile, "f").note.send("behind")
            await turns()
            seen = {one.id: await one.status() async for one in app.invocations()}
            assert seen[paused.value.id] is InvocationStatus.PAUSED
            assert seen[stumbling.id] is InvocationStatus.BACKING_OFF
            assert seen[behind.id] is InvocationStatus.PENDING
            only = [one.id async for one in app.invocations(status=InvocationStatus.PAUSED)]
            assert only == [paused.value.id]
            assert [one.id async for one in app.invocations(target="Fragile/f/note")] == [behind.id]
