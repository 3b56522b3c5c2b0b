"""`invocation_of`: the id of a call that is under way, in handlers and outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from durably import (
    AlreadyStartedError,
    CancelledInvocationError,
    Context,
    InvalidArgumentError,
    InvocationStatus,
    ObjectContext,
    Service,
    SharedContext,
    StoreUnavailableError,
    UnknownTargetError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    shared,
    state,
)
from durably.testing import Harness
from tests.semantics.support import PuppetStore, begin, turns
from tests.semantics.test_awakeables import WAYS


class Printer(VirtualObject):
    own_ids: list[str] = state(default=[])

    @handler
    async def print(self, ctx: ObjectContext, pages: int) -> int:
        self.own_ids.append(ctx.request.id)
        pages += await ctx.signal("more", int) if pages < 0 else 0
        if pages:
            await ctx.sleep(pages)
        return pages


class Signup(Workflow):
    @handler
    async def run(self, ctx: WorkflowContext) -> str:
        await ctx.sleep(60)
        return ctx.request.id


class Desk(VirtualObject):
    """Shows the ids of what it calls."""

    jobs: list[str] = state(default=[])
    joined: list[bool] = state(default=[])

    @handler
    async def print_all(self, ctx: ObjectContext, pages: list[int], key: str | None = None) -> list[int]:
        answers: list[int] = []
        for count in pages:
            ask = ctx.object(Printer, "p").print
            call = (ask if key is None else ask.options(idempotency_key=key))(count)
            job = await ctx.invocation_of(call)
            self.jobs.append(job.id)
            self.joined.append(job.previously_accepted)
            answers.append(await call)
        return answers

    @handler
    async def cancel_one(self, ctx: ObjectContext, key: str | None = None) -> str:
        ask = ctx.object(Printer, "q").print
        call = (ask if key is None else ask.options(idempotency_key=key))(1000)
        job = await ctx.invocation_of(call)
        self.jobs.append(job.id)
        await ctx.sleep(1)
        status = await job.status()
        await job.cancel()
        try:
            await call
        except CancelledInvocationError:
            return f"cancelled while {status}"
        return "printed"

    @handler
    async def signal_one(self, ctx: ObjectContext) -> int:
        call = ctx.object(Printer, "r").print(-5)
        job = await ctx.invocation_of(call)
        await job.signal("more", 15)
        return await call

    @handler
    async def attach_twice(self, ctx: ObjectContext) -> list[int]:
        call = ctx.object(Printer, "s").print(3)
        job = await ctx.invocation_of(call)
        return [*await asyncio.gather(call, job.result(), job)]

    @handler
    async def start_twice(self, ctx: ObjectContext) -> list[Any]:
        first, second = (ctx.workflow(Signup, "ann").run() for _ in range(2))
        one, other = await ctx.invocation_of(first), await ctx.invocation_of(second)
        with pytest.raises(AlreadyStartedError):
            await second
        return [one.id == other.id == await first, one.previously_accepted, other.previously_accepted]

    @shared
    async def seen(self, ctx: SharedContext) -> list[str]:
        return self.jobs


class Wrong(Service):
    @handler
    async def ask(self, ctx: Context, what: str) -> str:
        kinds: dict[str, Callable[[], Any]] = {
            "sleep": lambda: ctx.sleep(1),
            "send": lambda: ctx.object(Printer, "p").print.send(1),
            "attach": lambda: ctx.object(Printer, "p").print.options(idempotency_key="k").attach(),
            "task": lambda: asyncio.ensure_future(asyncio.sleep(0)),
            "text": lambda: "inv_1",
        }
        given: Any = kinds[what]()
        try:
            await ctx.invocation_of(given)
        except TypeError as error:
            if what != "text":
                given.cancel()
                await asyncio.gather(given, return_exceptions=True)
            return str(error)
        return "was identified"


@pytest.mark.parametrize("key", [None, "once"])
@pytest.mark.parametrize("way", [*WAYS])
async def test_a_handler_knows_the_ids_of_its_calls(way: str, key: str | None) -> None:
    async with Harness(Printer, Desk, **WAYS[way]) as app:
        desk = app.object(Desk, "d")
        asked = await desk.print_all.send([30, 40], key)
        await app.settle()
        await app.advance(minutes=2)
        jobs = (await app.state(Desk, "d"))["jobs"]
        ran = (await app.state(Printer, "p"))["own_ids"]
        assert await asked.output() == ([30, 40] if key is None else [30, 30])
        assert jobs == (ran if key is None else ran * 2)
        assert (await app.state(Desk, "d"))["joined"] == [False, key is not None]


@pytest.mark.parametrize("key", [None, "once"])
@pytest.mark.parametrize("way", [*WAYS])
async def test_a_call_is_cancelled_by_its_handle(way: str, key: str | None) -> None:
    async with Harness(Printer, Desk, **WAYS[way]) as app:
        asked = await app.object(Desk, "d").cancel_one.send(key)
        await app.advance(2)
        assert await asked.output() == "cancelled while suspended"
        assert await app.object(Printer, "q").print(0) == 0


@pytest.mark.parametrize("way", [*WAYS])
async def test_a_call_is_signalled_and_attached_to_by_its_handle(way: str) -> None:
    async with Harness(Printer, Desk, **WAYS[way]) as app:
        signalled = await app.object(Desk, "d").signal_one.send()
        attached = await app.object(Desk, "e").attach_twice.send()
        await app.advance(20)
        assert await signalled.output() == 10
        assert await attached.output() == [3, 3, 3]


@pytest.mark.parametrize("way", [*WAYS])
async def test_a_second_start_of_a_workflow_leads_to_the_first(way: str) -> None:
    async with Harness(Signup, Desk, **WAYS[way]) as app:
        asked = await app.object(Desk, "d").start_twice.send()
        await app.advance(61)
        assert await asked.output() == [True, False, True]
        first = app.workflow(Signup, "ann").run()
        with pytest.raises(AlreadyStartedError):
            await first
        again = await app.invocation_of(first)
        assert (again.previously_accepted, again.id) == (True, await app.workflow(Signup, "ann").run.attach())


async def test_outside_a_call_is_identified_when_it_is_durable() -> None:
    store = PuppetStore()
    async with Harness(Printer, store=store) as app:
        store.hold()
        call = app.object(Printer, "p").print(30)
        job = begin(app.invocation_of(call))
        await turns()
        assert not job.done()
        await store.go_on()
        handle = await job
        assert (await app.state(Printer, "p")).get("own_ids", []) == []
        assert await handle.status() is InvocationStatus.SUSPENDED
        await handle.cancel()
        with pytest.raises(CancelledInvocationError):
            await call
        assert (await app.invocation_of(call)).id == handle.id, "also when the call has ended"


async def test_outside_a_keyed_call_is_identified_as_what_it_joined() -> None:
    async with Harness(Printer) as app:
        ask = app.object(Printer, "p").print.options(idempotency_key="k")
        sent = await ask.send(1)
        calls: list[Coroutine[Any, Any, int]] = [ask(2), ask(3)]
        handles = await asyncio.gather(*map(app.invocation_of, calls))
        assert {handle.id for handle in handles} == {sent.id}
        assert all(handle.previously_accepted for handle in handles)
        await app.advance(2)
        assert await asyncio.gather(*calls) == [1, 1]


async def test_a_refused_call_has_no_invocation() -> None:
    async with Harness(Printer) as app:
        for wrong, error in (
            (app.call("Printer", "draw", key="p"), UnknownTargetError),
            (app.call("Printer", "print", b'"x"', key="p"), InvalidArgumentError),
        ):
            asked = app.invocation_of(wrong)
            with pytest.raises(error):
                await asked
            with pytest.raises(error):
                await wrong
            with pytest.raises(error):
                await app.invocation_of(wrong)


async def test_a_call_keeps_its_id_through_a_crash() -> None:
    async with Harness(Printer) as app:
        call = app.object(Printer, "p").print(30)
        before = await app.invocation_of(call)
        await app.crash()
        assert (await app.invocation_of(call)).id == before.id
        await app.advance(30)
        assert await call == 30


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("asked", ["while it is looked for", "when that is over", "when it was given up before"])
async def test_a_call_that_the_store_may_have_lost_is_looked_for_before_it_is_identified(
    asked: str, durable: bool
) -> None:
    store = PuppetStore()
    async with Harness(Printer, store=store) as app:
        store.hold()
        call = app.object(Printer, "p").print(30)
        caller = begin(call)
        await turns()
        if asked == "when it was given up before":
            caller.cancel()
            await turns()
        store.lookups.hold()
        store.loads.hold()
        await store.fail_one(durable=durable)
        await store.go_on()
        if asked != "while it is looked for":
            store.lookups.release()
            store.loads.release()
            await turns()
        asking = begin(app.invocation_of(call))
        await turns()
        store.lookups.release()
        store.loads.release()
        if durable:
            assert await (await asking).status() is InvocationStatus.SUSPENDED
        else:
            with pytest.raises(StoreUnavailableError, match="unknown"):
                await asking
        caller.cancel()
        await asyncio.wait([caller])


@pytest.mark.parametrize("what", ["sleep", "send", "attach", "task", "text"])
async def test_only_calls_have_invocations(what: str) -> None:
    async with Harness(Printer, Wrong) as app:
        assert "invocation_of() takes a call" in await app.service(Wrong).ask(what)
    async with Harness(Printer) as app, Harness(Printer) as other:
        sent: Any = app.object(Printer, "p").print.send(0)
        call = app.object(Printer, "p").print(0)
        for caller, given in ((app, sent), (other, call)):
            with pytest.raises(TypeError, match=r"invocation_of\(\) takes a call"):
                await caller.invocation_of(given)
        await call
        await sent
