"""Rules L: loading and looking up."""

# pyright: reportPrivateUsage=false
# What is remembered for how long is seen inside only.

from __future__ import annotations

import asyncio
from collections import deque
from itertools import permutations

import pytest

from durably import (
    Context,
    InvocationStatus,
    ObjectContext,
    Service,
    SharedContext,
    UnknownTargetError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.ids import Address
from durably.runtime.registry import registry as directory
from durably.testing import Harness
from tests.semantics.support import (
    PuppetStore,
    World,
    begin,
    engine_of,
    keep_one_incarnation,
    tuned,
    turns,
    wait_a_little,
)


class Log(VirtualObject):
    lines: list[str] = state(default=[])

    @handler
    async def write(self, ctx: ObjectContext, line: str) -> list[str]:
        self.lines.append(line)
        return self.lines

    @handler
    async def write_what_comes(self, ctx: ObjectContext) -> list[str]:
        answer = await ctx.object(Source, "s").next()
        self.lines.append(answer)
        return self.lines

    @handler
    async def write_slowly(self, ctx: ObjectContext, line: str) -> list[str]:
        await ctx.sleep(10)
        self.lines.append(line)
        return self.lines

    @shared
    async def read(self, ctx: SharedContext) -> list[str]:
        return self.lines


class Source(VirtualObject):
    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def next(self, ctx: ObjectContext) -> str:
        return await ctx.run("next", self.world.act, "next")


class TestL1AndL2:
    """What comes during a load waits at the activation, in whatever order; a load takes what was there before."""

    @pytest.mark.parametrize("order", list(permutations(["message", "completion", "commit"])), ids="-".join)
    async def test_a_load_held_back_while_a_message_a_completion_and_a_commit_arrive(
        self, order: tuple[str, ...], world: World, store: PuppetStore
    ) -> None:
        async with Harness(Log, Source, dependencies={World: world}, store=store, suspend_after=0) as app:
            first = begin(app.object(Log, "a").write_what_comes())
            await turns()
            # It is suspended and out of memory now. A look at it begins a load, whose answer is held back.
            store.loads.hold()
            looking = begin(app.object(Log, "a").read())
            await turns()
            assert store.loads.waiting == 1
            store.hold()
            message = None
            for event in order:
                if event == "message":
                    message = begin(app.object(Log, "a").write("message"))
                elif event == "completion":
                    world.end("next")
                elif store.waiting:
                    await store.let_one()
                await turns()
            store.loads.release()
            await turns()
            await store.go_on()
            await turns()
            keep_one_incarnation(app)
            assert await looking in ([], ["next done"])
            assert await first == ["next done"]
            assert message is not None
            assert await message == ["next done", "message"]
            assert await app.object(Log, "a").read() == ["next done", "message"]

    @pytest.mark.parametrize("order", list(permutations(["message", "completion", "commit"])), ids="-".join)
    async def test_a_crash_after_it_loses_nothing(
        self, order: tuple[str, ...], world: World, store: PuppetStore
    ) -> None:
        async with Harness(Log, Source, dependencies={World: world}, store=store, suspend_after=0) as app:
            first = begin(app.object(Log, "a").write_what_comes())
            await turns()
            store.loads.hold()
            looking = begin(app.object(Log, "a").read())
            await turns()
            for event in order:
                if event == "message":
                    await app.object(Log, "a").write.send("message")
                elif event == "completion":
                    world.end("next")
                await turns()
            await_crash = begin(app.crash())
            await turns()
            store.loads.release()
            await await_crash
            await turns()
            assert await first == ["next done"]
            await turns()
            assert await app.object(Log, "a").read() == ["next done", "message"]
            await asyncio.wait([looking])
            looking.exception()

    async def test_messages_that_come_during_a_load_stand_behind_those_that_were_there(
        self, world: World, store: PuppetStore
    ) -> None:
        async with Harness(Log, store=store) as app:
            for line in ("0", "1", "2"):
                await app.object(Log, "a").write_slowly.send(line)
            await app.settle()
            await app.crash()
            store.loads.hold()
            looking = begin(app.object(Log, "a").read())
            await turns()
            assert store.loads.waiting == 1
            for line in ("3", "4", "5"):
                await app.object(Log, "a").write_slowly.send(line)
            store.loads.release()
            assert await looking == []
            await app.advance(60)
            assert await app.object(Log, "a").read() == ["0", "1", "2", "3", "4", "5"]

    async def test_a_delayed_message_that_becomes_due_during_a_load_comes_once(self, store: PuppetStore) -> None:
        async with Harness(Log, store=store) as app:
            await app.object(Log, "a").write_slowly.send("slow")
            await app.object(Log, "a").write.after(5).send("delayed")
            store.loads.hold()
            await app.crash()
            await wait_a_little(app, 5)
            assert store.loads.waiting == 1
            store.loads.release()
            await app.advance(60)
            assert await app.object(Log, "a").read() == ["slow", "delayed"]

    async def test_a_timer_that_fires_during_a_load_wakes_its_handler_once(self, store: PuppetStore) -> None:
        async with Harness(Log, store=store, suspend_after=0) as app:
            call = begin(app.object(Log, "a").write_slowly("slow"))
            await turns()
            store.loads.hold()
            looking = begin(app.object(Log, "a").read())
            await wait_a_little(app, 10)
            assert store.loads.waiting == 1
            store.loads.release()
            await turns()
            assert await looking in ([], ["slow"])
            assert await call == ["slow"]
            assert await app.object(Log, "a").read() == ["slow"]

    async def test_requests_for_one_object_in_one_moment_are_one_load(self, store: PuppetStore) -> None:
        async with Harness(Log, store=store) as app:
            await asyncio.gather(*(app.object(Log, "a").write(str(number)) for number in range(20)))
            assert store.loaded == [Address("Log", "a")]


class TestL3:
    """The entry for a key is made before the store is asked; later requests wait on it."""

    async def test_two_requests_with_one_key_and_the_lookup_held_back_start_one_invocation(
        self, store: PuppetStore
    ) -> None:
        async with Harness(Log, store=store) as app:
            write = app.object(Log, "a").write.options(idempotency_key="k")
            store.lookups.hold()
            first = begin(write("first"))
            await turns()
            assert store.lookups.waiting == 1
            second = begin(write("second"))
            third = begin(write.send("third"))
            await turns()
            store.lookups.release()
            assert await first == await second == ["first"]
            assert await (await third).result() == ["first"]
            assert await app.object(Log, "a").read() == ["first"]

    async def test_a_handler_and_somebody_outside_with_one_key_start_one_invocation(
        self, store: PuppetStore, suspend_after: float
    ) -> None:
        class Inside(Service):
            @handler
            async def go(self, ctx: Context) -> list[str]:
                return await ctx.object(Log, "a").write.options(idempotency_key="k")("inside")

        for outside_first in (True, False):
            async with Harness(Log, Inside, store=PuppetStore(), suspend_after=suspend_after) as app:
                held = app._store  # pyright: ignore[reportPrivateUsage]
                assert isinstance(held, PuppetStore)
                held.lookups.hold()
                asks = [
                    lambda app=app: app.object(Log, "a").write.options(idempotency_key="k")("outside"),
                    lambda app=app: app.service(Inside).go(),
                ]
                calls: list[asyncio.Task[list[str]]] = []
                for ask in asks if outside_first else reversed(asks):
                    calls.append(begin(ask()))
                    await turns()
                held.lookups.release()
                first, second = [await call for call in calls]
                assert first == second
                assert len(await app.object(Log, "a").read()) == 1

    async def test_two_keys_of_one_step_that_are_answered_apart_start_two_invocations(
        self, store: PuppetStore, suspend_after: float
    ) -> None:
        class Both(Service):
            @handler
            async def go(self, ctx: Context) -> list[str]:
                one = ctx.object(Log, "a").write.options(idempotency_key="1")("one")
                two = ctx.object(Log, "a").write.options(idempotency_key="2")("two")
                again = ctx.object(Log, "a").write.options(idempotency_key="1")("again")
                return [*await one, *(await two)[1:], *await again]

        async with Harness(Log, Both, store=store, suspend_after=suspend_after) as app:
            assert await app.object(Log, "a").write.options(idempotency_key="2")("before") == ["before"]
            await app.settle()
            assert await app.service(Both).go() == ["before", "one", "before", "one"]
            assert await app.object(Log, "a").read() == ["before", "one"]

    async def test_a_look_up_that_was_answered_before_the_first_ended_is_not_believed(
        self, world: World, store: PuppetStore
    ) -> None:
        async with Harness(Log, Source, dependencies={World: world}, store=store, suspend_after=0) as app:
            write = app.object(Log, "a").write_what_comes.options(idempotency_key="k")
            first = begin(write())
            await turns()
            store.lookups.hold()
            second = begin(write())
            await turns()
            assert store.lookups.waiting == 1, "the first is on disk only"
            world.end("next")
            await turns()
            assert await first == ["next done"]
            store.lookups.release()
            await turns()
            assert second.done(), "its future hangs"
            assert await second == ["next done"]

    async def test_whoever_asks_for_one_that_has_ended_and_is_not_durable_hears_how_it_stands_then(
        self, store: PuppetStore
    ) -> None:
        async with Harness(Log, store=store) as app:
            call = begin(app.object(Log, "a").write_slowly("one"))
            await app.settle()
            (handle,) = [one async for one in app.invocations()]
            store.hold()
            await wait_a_little(app, 10)
            asking = begin(handle.result())
            await turns()
            await store.go_on()
            assert await call == ["one"]
            # Nobody was to come for the outcome of a plain call, so it went with its reply.
            with pytest.raises(UnknownTargetError):
                await asyncio.wait_for(asking, 1)

    async def test_what_is_remembered_for_answers_on_their_way_is_bounded(
        self, store: PuppetStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(directory, "ENDS_BETWEEN_TIDYING", 10)
        async with Harness(Log, store=store) as app:
            sent = [await app.object(Log, "a").write.send(line) for line in ("one", "two")]
            assert await sent[1].result() == ["one", "two"]
            await app.settle()
            store.lookups.hold()
            asking = deque([begin(sent[0].status())])
            for number in range(50):
                await turns(5)
                asking.append(begin(sent[(number + 1) % 2].status()))
                await turns(5)
                assert engine_of(app).parts.registry.outstanding == 2
                store.lookups.release_one()
                assert await asking.popleft() is InvocationStatus.COMPLETED
                for _ in range(5):
                    await app.object(Log, "b").read()
            assert len(engine_of(app).parts.registry._ends) <= 30
            store.lookups.release()
            await asking.popleft()


class TestL4:
    """Only what is durable leaves memory, and one tick later there is a new activation."""

    async def test_an_idle_object_leaves_memory_and_comes_back_the_same(self, store: PuppetStore) -> None:
        async with Harness(Log, store=store) as app:
            await app.object(Log, "a").write("one")
            await app.advance(minutes=10)
            store.loaded.clear()
            assert await app.object(Log, "a").write("two") == ["one", "two"]
            assert store.loaded == [Address("Log", "a")]

    async def test_an_object_in_use_stays(self, store: PuppetStore) -> None:
        async with Harness(Log, store=store) as app:
            for number in range(10):
                await app.object(Log, "a").write(str(number))
                await app.advance(minutes=4)
            assert store.loaded == [Address("Log", "a")]

    async def test_the_least_recently_used_goes_first_when_there_are_too_many(self, store: PuppetStore) -> None:
        async with tuned(Harness(Log, store=store), active_objects=2) as app:
            for key in ("a", "b", "a", "c"):
                await app.object(Log, key).write("x")
                await app.settle()
            store.loaded.clear()
            await app.object(Log, "a").read()
            await app.object(Log, "c").read()
            assert store.loaded == []
            await app.object(Log, "b").read()
            assert store.loaded == [Address("Log", "b")]

    async def test_what_is_not_durable_stays_in_memory(self, store: PuppetStore) -> None:
        async with tuned(Harness(Log, store=store), active_objects=1) as app:
            await app.object(Log, "a").write("one")
            await app.object(Log, "b").write("x")
            await app.settle()
            store.hold()
            calls = [begin(app.object(Log, "b").write("two"))]
            await turns()
            calls += [begin(app.object(Log, key).write("y")) for key in ("b", "b")]
            await turns()
            await wait_a_little(app, 600)
            reading = begin(app.object(Log, "b").read())
            await turns()
            await store.go_on()
            assert await reading == ["x", "two", "y", "y"]
            assert [len(await call) for call in calls] == [2, 3, 4]

    async def test_it_suspends_only_when_its_last_step_is_durable(self, store: PuppetStore) -> None:
        async with Harness(Log, store=store, suspend_after=0) as app:
            await app.object(Log, "a").read()
            await app.settle()
            store.hold()
            call = begin(app.object(Log, "a").write_slowly("one"))
            await wait_a_little(app, 10)
            store.loaded.clear()
            await store.go_on()
            await turns()
            assert await call == ["one"]

    async def test_it_does_not_suspend_while_its_action_runs(self, world: World) -> None:
        replays: list[int] = []

        class Worker(Service):
            def __init__(self, world: World) -> None:
                self.world = world

            @handler
            async def work(self, ctx: Context) -> str:
                replays.append(1)
                return await ctx.run("work", self.world.act, "work")

        async with Harness(Worker, dependencies={World: world}, suspend_after=0) as app:
            sent = await app.service(Worker).work.send()
            await turns()
            await wait_a_little(app, 3600)
            assert await sent.status() is InvocationStatus.RUNNING
            assert len(replays) == 1
            world.end("work")
            assert await sent.result() == "work done"

    async def test_a_message_in_the_tick_of_the_passivation_finds_everything(self, suspend_after: float) -> None:
        async with Harness(Log, suspend_after=suspend_after) as app:
            for number in range(5):
                await app.object(Log, "a").write(str(number))
                await app.clock.advance(300_000_000, _three_turns)
                await app.clock.advance(1_000_000, _three_turns)
            assert await app.object(Log, "a").read() == ["0", "1", "2", "3", "4"]

    async def test_idling_is_measured_from_the_last_message(self, store: PuppetStore) -> None:
        async with Harness(Log, store=store) as app:
            await wait_a_little(app, 3600)
            await app.object(Log, "a").write("one")
            await wait_a_little(app, 240)
            store.loaded.clear()
            await app.object(Log, "a").read()
            assert store.loaded == []
            await wait_a_little(app, 400)
            await app.object(Log, "a").read()
            assert len(store.loaded) == 1


async def _three_turns() -> None:
    await turns(3)
