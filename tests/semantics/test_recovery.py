"""Rules T3 and T4: recovery and the graceful stop."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durably import (
    Context,
    InvocationStatus,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Runtime,
    RuntimeStoppedError,
    Service,
    SharedContext,
    StoreUnavailableError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.storage.sqlite import SqliteStore
from durably.testing import Harness
from tests.semantics.support import PuppetStore, World, begin, keep_one_incarnation, stop, tuned, turns, wait_a_little


class Worker(VirtualObject):
    done: list[str] = state(default=[])

    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def work(self, ctx: ObjectContext, name: str) -> str:
        answer = await ctx.run(name, self.world.act, name)
        self.done.append(name)
        return answer

    @handler
    async def sleep(self, ctx: ObjectContext, seconds: float) -> str:
        await ctx.sleep(seconds)
        self.done.append("slept")
        return "slept"

    @handler
    async def note(self, ctx: ObjectContext, name: str) -> list[str]:
        self.done.append(name)
        return self.done

    @handler(retry=RetryPolicy(initial=60, factor=1))
    async def stumble(self, ctx: ObjectContext) -> None:
        raise ConnectionError("not yet")

    @handler(retry=RetryPolicy(max_attempts=1))
    async def break_down(self, ctx: ObjectContext) -> None:
        raise RuntimeError("a bug")

    @handler
    async def work_and_note(self, ctx: ObjectContext, name: str) -> str:
        answer = await ctx.run(name, self.world.act, name)
        await ctx.service(Helper).help(name)
        return answer

    @shared
    async def look(self, ctx: SharedContext) -> list[str]:
        return self.done


class Helper(Service):
    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def help(self, ctx: Context, name: str) -> str:
        return await ctx.run(f"help {name}", self.world.act_at_once, f"help {name}")


class TestT3:
    """What can run is loaded at recovery, in mailbox order, and nothing else: everything else is a row."""

    async def test_only_what_can_run_is_loaded(self, world: World, store: PuppetStore) -> None:
        async with Harness(Worker, Helper, dependencies={World: world}, store=store) as app:
            worker = Worker
            await app.object(worker, "finished").note("x")
            await app.object(worker, "kept").note.options(idempotency_key="k")("x")
            await app.object(worker, "sleeping").sleep.send(3600)
            await app.object(worker, "behind a sleeper").sleep.send(3600)
            await app.object(worker, "behind a sleeper").note.send("y")
            await app.object(worker, "delayed").note.after(3600).send("y")
            await app.object(worker, "backing off").stumble.send()
            broken = begin(app.object(worker, "paused").break_down())
            await turns()
            with pytest.raises(PausedInvocationError):
                await broken
            await app.object(worker, "running").work.send("act")
            await turns()
            store.loaded.clear()
            await app.crash()
            await turns()
            assert {address.key for address in store.loaded} == {"running"}
            world.end("act")
            await turns()
            assert await app.object(worker, "running").look() == ["act"]

    async def test_what_had_not_started_starts_and_the_mailbox_keeps_its_order(
        self, world: World, store: PuppetStore, suspend_after: float
    ) -> None:
        app = Harness(Worker, Helper, dependencies={World: world}, store=store, suspend_after=suspend_after)
        async with app:
            await app.object(Worker, "w").look()
            store.hold()
            sends = [begin(app.object(Worker, "w").note.send(name)) for name in ("a", "b", "c")]
            await turns()
            await store.lose(app)
            await asyncio.wait(sends)
            assert [type(send.exception()).__name__ for send in sends] == ["StoreUnavailableError"] * 3
            for name in ("d", "e", "f"):
                await app.object(Worker, "w").work.send(name)
            await app.crash()
            await turns()
            for name in ("f", "e", "d"):
                world.end(name)
            await turns()
            assert await app.object(Worker, "w").look() == ["d", "e", "f"]

    async def test_requests_are_served_while_it_recovers(self, world: World, store: PuppetStore) -> None:
        app = tuned(Harness(Worker, Helper, dependencies={World: world}, store=store), recovery_portion=2)
        async with app:
            for number in range(9):
                await app.object(Worker, str(number)).work.send(str(number))
            await turns()
            store.loaded.clear()
            store.loads.hold()
            await app.crash()
            await turns()
            asked = begin(app.object(Worker, "somebody else").note("x"))
            await turns()
            assert len({address.key for address in store.loaded}) <= 3, "it goes in bounded portions"
            store.loads.release()
            await turns()
            assert await asked == ["x"]
            for number in range(9):
                world.end(str(number))
            await turns()
            for number in range(9):
                assert await app.object(Worker, str(number)).look() == [str(number)]

    async def test_a_backing_off_invocation_is_tried_again_at_its_time(
        self, world: World, store: PuppetStore, suspend_after: float
    ) -> None:
        app = Harness(Worker, Helper, dependencies={World: world}, store=store, suspend_after=suspend_after)
        async with app:
            sent = await app.object(Worker, "w").stumble.send()
            await turns()
            await app.crash()
            await wait_a_little(app, 30)
            assert await sent.status() is InvocationStatus.BACKING_OFF
            record = next(one for one in store.stored() if one.id == sent.id)
            assert record.attempts == 1
            await wait_a_little(app, 30)
            record = next(one for one in store.stored() if one.id == sent.id)
            assert record.attempts == 2

    async def test_a_paused_invocation_stays_paused_and_can_be_resumed(
        self, world: World, store: PuppetStore, suspend_after: float
    ) -> None:
        app = Harness(Worker, Helper, dependencies={World: world}, store=store, suspend_after=suspend_after)
        async with app:
            with pytest.raises(PausedInvocationError) as paused:
                await app.object(Worker, "w").break_down()
            await app.crash()
            handle = app.invocation(paused.value.id, type(None))
            assert await handle.status() is InvocationStatus.PAUSED
            with pytest.raises(PausedInvocationError, match="RuntimeError: a bug"):
                await handle.result()
            waiting = await app.object(Worker, "w").note.send("behind it")
            assert await waiting.status() is InvocationStatus.PENDING
            await app.resume(paused.value.id)
            with pytest.raises(RuntimeError, match="a bug"):
                await app.settle()
            assert await handle.status() is InvocationStatus.PAUSED

    async def test_a_class_that_is_gone_disturbs_nobody_else(
        self, world: World, store: PuppetStore, suspend_after: float
    ) -> None:
        class Doomed(VirtualObject):
            @handler
            async def sleep(self, ctx: ObjectContext) -> None:
                await ctx.sleep(5)

            @handler
            async def act(self, ctx: ObjectContext) -> str:
                return await ctx.run("doomed", world.act, "doomed")

        options: dict[str, Any] = {"dependencies": {World: world}, "store": store, "suspend_after": suspend_after}
        app = Harness(Worker, Helper, Doomed, **options)
        await app.__aenter__()
        await app.object(Doomed, "d").sleep.send()
        await app.object(Doomed, "e").sleep.after(3).send()
        await app.object(Doomed, "f").act.send()
        sent = await app.object(Worker, "w").sleep.send(10)
        await turns()
        await stop(app)
        async with Harness(Worker, Helper, **options) as app:
            await wait_a_little(app, 20)
            keep_one_incarnation(app)
            assert await app.invocation(sent.id, str).result() == "slept"
        world.end("doomed")
        async with Harness(Worker, Helper, Doomed, **options) as app:
            await wait_a_little(app, 20)
            assert store.unfinished() == []

    async def test_a_handler_that_is_gone_disturbs_no_other_object(
        self, world: World, store: PuppetStore, suspend_after: float
    ) -> None:
        class Before(VirtualObject, name="Changing"):
            @handler
            async def old(self, ctx: ObjectContext) -> str:
                return await ctx.run("old", world.act, "old")

        class After(VirtualObject, name="Changing"):
            @handler
            async def new(self, ctx: ObjectContext) -> str:
                return "new"

        options: dict[str, Any] = {"dependencies": {World: world}, "store": store, "suspend_after": suspend_after}
        app = Harness(Worker, Helper, Before, **options)
        await app.__aenter__()
        await app.object(Before, "c").old.send()
        sent = await app.object(Worker, "w").work.send("act")
        await turns()
        await stop(app)
        world.end("act")
        async with Harness(Worker, Helper, After, seed=1, **options) as app:
            await turns()
            keep_one_incarnation(app)
            assert await app.invocation(sent.id, str).result() == "act done"
            assert await app.object(After, "another").new() == "new"
            app._ledger.unheard.clear()  # The invocation of the handler that is gone waits for a person.

    async def test_a_second_harness_on_one_store_makes_new_ids(self, world: World, store: PuppetStore) -> None:
        ids: set[str] = set()
        for _ in range(3):
            async with Harness(Worker, Helper, dependencies={World: world}, store=store) as app:
                sent = await app.object(Worker, "w").note.send("x")
                await app.settle()
                ids.add(sent.id)
        assert len(ids) == 3


class TestT4:
    """Graceful stop: nothing starts, what runs goes on until suspended, the last batch commits, everybody is told."""

    async def test_who_still_waits_is_told_and_it_continues_at_the_next_start(
        self, world: World, suspend_after: float
    ) -> None:
        store = PuppetStore()
        options: dict[str, Any] = {"dependencies": {World: world}, "store": store, "suspend_after": suspend_after}
        async with Harness(Worker, Helper, **options) as app:
            sleeping = begin(app.object(Worker, "w").sleep(100))
            await turns()
        with pytest.raises(RuntimeStoppedError, match="continue") as told:
            await sleeping
        assert told.value.id is not None
        async with Harness(Worker, Helper, **options) as app:
            await wait_a_little(app, 100)
            assert await app.object(Worker, "w").look() == ["slept"]

    async def test_what_runs_goes_on_and_nothing_new_starts(self, world: World, store: PuppetStore) -> None:
        app = Harness(Worker, Helper, dependencies={World: world}, store=store)
        await app.__aenter__()
        working = begin(app.object(Worker, "w").work_and_note("act"))
        behind = begin(app.object(Worker, "w").note("behind"))
        await turns()
        stopping = begin(Runtime.__aexit__(app, None, None, None))
        await turns()
        assert not stopping.done(), "an action runs, so it waits"
        with pytest.raises(RuntimeStoppedError, match="Nothing was accepted"):
            await app.object(Worker, "x").note("new")
        world.end("act")
        await turns()
        await stopping
        assert "help act" not in world.started, "a service's invocation was started while stopping"
        for asked in (working, behind):
            with pytest.raises(RuntimeStoppedError):
                await asked
        async with Harness(Worker, Helper, dependencies={World: world}, store=store) as app:
            await turns()
            assert world.started == ["act", "help act"]
            assert await app.object(Worker, "w").look() == ["behind"]

    async def test_what_waits_behind_one_that_ends_meanwhile_is_not_started(
        self, world: World, store: PuppetStore
    ) -> None:
        app = Harness(Worker, Helper, dependencies={World: world}, store=store)
        await app.__aenter__()
        working = begin(app.object(Worker, "w").work("act"))
        behind = begin(app.object(Worker, "w").note("behind"))
        await turns()
        stopping = begin(Runtime.__aexit__(app, None, None, None))
        await turns()
        world.end("act")
        await turns()
        await stopping
        assert await working == "act done"
        with pytest.raises(RuntimeStoppedError):
            await behind
        async with Harness(Worker, Helper, dependencies={World: world}, store=store) as app:
            await turns()
            assert await app.object(Worker, "w").look() == ["act", "behind"]

    async def test_an_action_that_takes_too_long_is_cancelled_and_started_again(
        self, world: World, store: PuppetStore
    ) -> None:
        app = tuned(Harness(Worker, Helper, dependencies={World: world}, store=store), drain_us=30_000_000)
        await app.__aenter__()
        working = begin(app.object(Worker, "w").work("act"))
        await turns()
        stopping = begin(Runtime.__aexit__(app, None, None, None))
        await wait_a_little(app, 29)
        assert not stopping.done()
        await wait_a_little(app, 1)
        await stopping
        assert world.cancelled == ["act"]
        with pytest.raises(RuntimeStoppedError):
            await working
        world.end("act")
        async with Harness(Worker, Helper, dependencies={World: world}, store=store) as app:
            await turns()
            assert world.started == ["act", "act"]
            assert await app.object(Worker, "w").look() == ["act"]

    async def test_the_last_batch_is_committed_and_its_gates_open(self, world: World, store: PuppetStore) -> None:
        app = Harness(Worker, Helper, dependencies={World: world}, store=store)
        await app.__aenter__()
        await app.object(Worker, "w").look()
        store.hold()
        noting = begin(app.object(Worker, "w").note("x"))
        await turns()
        stopping = begin(Runtime.__aexit__(app, None, None, None))
        await turns()
        await store.go_on()
        await stopping
        assert await noting == ["x"]

    async def test_an_action_that_ignores_its_cancellation_is_left(
        self, world: World, store: PuppetStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        started: list[asyncio.Event] = []

        async def ignore_cancellation() -> str:
            end = asyncio.Event()
            started.append(end)
            while not end.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await end.wait()
            return "ended"

        class Stubborn(Service):
            @handler
            async def work(self, ctx: Context) -> str:
                return await ctx.run("dig in", ignore_cancellation)

        app = Harness(Stubborn, store=store)
        await app.__aenter__()
        working = begin(app.service(Stubborn).work.options(idempotency_key="k")())
        await turns()
        stopping = begin(Runtime.__aexit__(app, None, None, None))
        await wait_a_little(app, 30)
        assert not stopping.done()
        await wait_a_little(app, 10)
        await stopping
        assert "dig in" in caplog.text
        with pytest.raises(RuntimeStoppedError):
            await working
        async with Harness(Stubborn, store=store) as app:
            again = begin(app.service(Stubborn).work.options(idempotency_key="k")())
            await turns()
            assert len(started) == 2
            started[0].set()  # What was left ends now, and nobody hears of it.
            await turns()
            assert not again.done()
            started[1].set()
            assert await again == "ended"

    async def test_an_action_that_fails_when_it_is_cancelled_is_not_tried_again(self, store: PuppetStore) -> None:
        started: list[str] = []

        async def fail_when_cancelled() -> None:
            started.append("act")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ConnectionError("was interrupted") from None

        class Touchy(Service):
            @handler
            async def work(self, ctx: Context) -> None:
                await ctx.run("act", fail_when_cancelled)

        app = Harness(Touchy, store=store, retry=RetryPolicy())
        await app.__aenter__()
        working = begin(app.service(Touchy).work())
        await turns()
        stopping = begin(Runtime.__aexit__(app, None, None, None))
        await wait_a_little(app, 3600)
        await stopping
        with pytest.raises(RuntimeStoppedError):
            await working
        assert started == ["act"]

    async def test_a_store_that_another_program_keeps_locked_is_let_go(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "app.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            async with Runtime(SqliteStore(path), [Worker, Helper], dependencies={World: World()}, drain=0.1,
                stop_timeout=3) as runtime:  # fmt: skip
                assert await runtime.object(Worker, "w").note("durable") == ["durable"]
                other.execute("begin immediate")
                noting = begin(runtime.object(Worker, "w").note("unknown"))
                await turns()
                began = time.monotonic()
            assert time.monotonic() - began < 5
            assert "the last batch" in caplog.text
            with pytest.raises(StoreUnavailableError, match="unknown"):
                await noting
            other.execute("rollback")
        async with Runtime(SqliteStore(path), [Worker, Helper], dependencies={World: World()}) as runtime:
            assert await runtime.object(Worker, "w").look() in (["durable"], ["durable", "unknown"])

    async def test_nobody_is_told_that_something_continues_of_which_that_is_unknown(
        self, world: World, store: PuppetStore
    ) -> None:
        app = Harness(Worker, Helper, dependencies={World: world}, store=store)
        await app.__aenter__()
        store.hold()
        noting = begin(app.object(Worker, "w").note("x"))
        await turns()
        store.failing_opens.extend(StoreUnavailableError("not yet") for _ in range(10))
        await store.fail_one(durable=False)
        await turns()
        await stop(app)
        with pytest.raises(StoreUnavailableError, match="unknown"):
            await noting

    async def test_it_can_be_started_again(self, world: World) -> None:
        runtime = Harness(Worker, Helper, dependencies={World: world})
        for number in range(3):
            async with runtime as app:
                assert await app.object(Worker, "w").note(str(number)) == [str(one) for one in range(number + 1)]
