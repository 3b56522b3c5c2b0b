"""What once broke a promise, each as a short story: it happens again here, and the promise holds."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from durably import (
    Context,
    HandlerMistakeError,
    InvocationStatus,
    ObjectContext,
    PausedInvocationError,
    RetryableError,
    RetryPolicy,
    Runtime,
    Service,
    SharedContext,
    StoreUnavailableError,
    UnknownTargetError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.ids import Address
from durably.runtime.commit.open_batch import OpenBatch
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.steps.steps import Steps
from durably.storage.memory import MemoryStore
from durably.storage.records import Batch
from durably.testing import Harness
from tests.semantics.support import (
    PuppetStore,
    World,
    begin,
    engine_of,
    keep_one_incarnation,
    supervisor_of,
    turns,
    wait_a_little,
)


class Counter(VirtualObject):
    n: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext) -> int:
        self.n += 1
        return self.n

    @handler
    async def nap(self, ctx: ObjectContext) -> int:
        await ctx.sleep(60)
        self.n += 1
        return self.n


class Napping(Service):
    @handler
    async def nap(self, ctx: Context) -> int:
        await ctx.sleep(60)
        return 5


async def others_go_on(app: Harness) -> None:
    """Somebody else's object answers, and the machine is in its first incarnation."""
    before = await app.object(Counter, "other").add()
    assert await app.object(Counter, "other").add() == before + 1
    assert supervisor_of(app).incarnations == 1
    keep_one_incarnation(app)


def statuses(store: PuppetStore, name: str) -> list[InvocationStatus]:
    """Where the invocations of a handler stand on disk."""
    return [record.status for record in store.stored() if record.handler == name]


# ---------------------------------------------------------------------- what cannot be stored


ODD_NAMES = {"surrogate": "read \udcff", "nul": "a\0b"}


class OddNames(Service):
    @handler
    async def run(self, ctx: Context, which: str) -> str:
        async def act() -> int:
            return 1

        try:
            await ctx.run(ODD_NAMES[which], act)
        except TypeError as error:
            return str(error)
        return "accepted"


@pytest.mark.parametrize("which", ODD_NAMES)
async def test_the_name_of_an_action_that_no_store_can_keep_is_refused_in_the_handler(which: str) -> None:
    async with Harness(OddNames, Counter) as app:
        assert "The name of a run is Unicode text without NUL" in await app.service(OddNames).run(which)
        assert app.actions() == []
        await others_go_on(app)


async def test_an_answer_whose_batch_could_not_be_made_never_gets_out(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = OpenBatch.cut
    failures = [ValueError("this batch cannot be encoded")]

    def failing_cut(batch: OpenBatch, last_position: int) -> Batch | None:
        if failures:
            raise failures.pop()
        return cut(batch, last_position)

    store = PuppetStore()
    async with Harness(Counter, store=store) as app:
        assert await app.object(Counter, "good").add() == 1
        assert await app.object(Counter, "later").add() == 1
        monkeypatch.setattr(OpenBatch, "cut", failing_cut)
        good = begin(app.object(Counter, "good").add())
        await app.settle()
        assert not failures
        with pytest.raises(StoreUnavailableError):
            await good
        assert await app.object(Counter, "later").add() == 2
        assert store.memory.disk.state[Address("Counter", "good")] == {"n": b"1"}
        assert await app.object(Counter, "good").add() == 2


# ---------------------------------------------------------------------- odd errors stay their handler's own


class TextlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("detached")

    __repr__ = __str__


class ForgetfulError(RetryableError):
    def __init__(self) -> None:
        pass


ODD_ERRORS: dict[str, Callable[[], Exception]] = {
    "no text": TextlessError,
    "argument without text": lambda: ValueError(TextlessError()),
    "lone surrogate": lambda: ValueError("file \udcff not found"),
    "negative retry_after": lambda: RetryableError("busy", retry_after=-5),
    "retry_after of a header": lambda: RetryableError("busy", retry_after=_from_a_header("5")),
    "no retry_after": ForgetfulError,
}


def _from_a_header(value: Any) -> Any:
    return value


class OddErrors(Service):
    @handler
    async def fail(self, ctx: Context, which: str) -> int:
        await ctx.sleep(1)
        raise ODD_ERRORS[which]()

    @handler
    async def fail_in_an_action(self, ctx: Context, which: str) -> int:
        async def act() -> int:
            raise ODD_ERRORS[which]()

        return await ctx.run("act", act)


@pytest.mark.parametrize("handler_name", ["fail", "fail_in_an_action"])
@pytest.mark.parametrize("which", ODD_ERRORS)
async def test_an_error_that_cannot_be_told_pauses_its_invocation_and_nobody_else(
    which: str, handler_name: str, store: PuppetStore
) -> None:
    app = Harness(OddErrors, Counter, store=store, retry=RetryPolicy(initial=1, max_attempts=2))
    async with app:
        call: Any = getattr(app.service(OddErrors), handler_name)
        failing = begin(call(which))
        await app.advance(seconds=30)
        assert failing.done()
        with pytest.raises(PausedInvocationError):
            await failing
        assert statuses(store, handler_name) == [InvocationStatus.PAUSED]
        await others_go_on(app)


# ---------------------------------------------------------------------- classes that are gone


class Asking(Service):
    @handler
    async def ask(self, ctx: Context) -> int:
        return await ctx.object(Counter, "asked").nap()


class Mistaken(Service):
    @handler
    async def go(self, ctx: Context) -> int:
        raise HandlerMistakeError("mend me")


async def test_a_callee_ends_although_the_class_of_its_caller_is_gone(store: PuppetStore) -> None:
    async with Harness(Asking, Counter, store=store) as app:
        asked = await app.service(Asking).ask.send()
    async with Harness(Counter, store=store) as app:
        await app.advance(seconds=61)
        assert statuses(store, "nap") == []
        assert store.memory.disk.state[Address("Counter", "asked")] == {"n": b"1"}
        await others_go_on(app)
    async with Harness(Asking, Counter, store=store) as app:
        assert await app.invocation(asked.id, int).result() == 1


async def test_an_invocation_of_a_class_that_is_gone_cannot_be_resumed(store: PuppetStore) -> None:
    async with Harness(Mistaken, store=store) as app:
        with pytest.raises(PausedInvocationError) as paused:
            await app.service(Mistaken).go()
    async with Harness(Counter, store=store) as app:
        with pytest.raises(UnknownTargetError, match="does not have Mistaken"):
            await app.resume(paused.value.id)
        assert not supervisor_of(app).gateway.pending
        await others_go_on(app)


# ---------------------------------------------------------------------- actions that ended unheard


class PeculiarError(BaseException):
    pass


class Acting(Service):
    @handler
    async def stop_iteration(self, ctx: Context) -> int:
        def act() -> int:
            return next(iter(list[int]()))

        return await ctx.run("act", act)

    @handler
    async def base_exception(self, ctx: Context) -> int:
        async def act() -> int:
            raise PeculiarError

        return await ctx.run("act", act)


@pytest.mark.parametrize("handler_name", ["stop_iteration", "base_exception"])
async def test_an_invocation_hears_of_its_action_whatever_that_raised(handler_name: str, store: PuppetStore) -> None:
    async with Harness(Acting, Counter, store=store) as app:
        call: Any = getattr(app.service(Acting), handler_name)
        acting = begin(call())
        await app.settle()
        assert acting.done()
        with pytest.raises(PausedInvocationError):
            await acting
        assert statuses(store, handler_name) == [InvocationStatus.PAUSED]
        assert supervisor_of(app).actions.busy == 0
        await others_go_on(app)


# ---------------------------------------------------------------------- what is paused stays paused


class Gathering(Service):
    @handler
    async def both(self, ctx: Context) -> list[int]:
        async def good() -> int:
            return 1

        async def bad() -> int:
            raise ValueError("no")

        return list(await asyncio.gather(ctx.run("good", good), ctx.run("bad", bad)))


async def test_an_answer_of_the_same_moment_does_not_override_a_pause(store: PuppetStore) -> None:
    async with Harness(Gathering, Counter, store=store) as app:
        with pytest.raises(PausedInvocationError):
            await app.service(Gathering).both()
        await app.advance(hours=1)
        assert app.actions() == ["good", "bad"]
        assert statuses(store, "both") == [InvocationStatus.PAUSED]
        await others_go_on(app)


class Holding(Service):
    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def go(self, ctx: Context) -> str:
        async def slow() -> str:
            answer = await self.world.act("slow")
            if self.world.started.count("slow") == 1:
                raise ValueError("no")
            return answer

        async def wait_for_it() -> str:
            return await ctx.run("slow", slow)

        waiting = asyncio.create_task(wait_for_it())
        await ctx.sleep(1)
        await ctx.object(Counter, "sent").add.options(idempotency_key="once").send()
        return await waiting


async def test_a_step_that_waits_for_its_keys_does_not_override_a_pause(world: World, store: PuppetStore) -> None:
    async with Harness(Holding, Counter, dependencies={World: world}, store=store) as app:
        going = begin(app.service(Holding).go())
        await turns()
        store.lookups.hold()
        await wait_a_little(app, 2)
        assert store.lookups.waiting
        world.end("slow")
        await turns()
        with pytest.raises(PausedInvocationError) as paused:
            await going
        store.lookups.release()
        await app.advance(hours=1)
        assert statuses(store, "go") == [InvocationStatus.PAUSED]
        assert app.actions() == ["slow"]

        await app.resume(paused.value.id)
        await app.settle()
        assert app.actions() == ["slow", "slow"]
        assert await app.object(Counter, "sent").add() == 2
        keep_one_incarnation(app)


# ---------------------------------------------------------------------- memory, logging, patience


class Hungry(VirtualObject):
    meals: int = state(default=0)

    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def eat(self, ctx: ObjectContext) -> int:
        self.world.started.append("eat")
        if len(self.world.started) == 1:
            raise MemoryError
        self.meals += 1
        return self.meals

    @handler
    async def eat_later(self, ctx: ObjectContext) -> int:
        self.world.started.append("eat later")
        if len(self.world.started) == 2:
            raise MemoryError
        await ctx.sleep(1)
        self.meals += 1
        return self.meals


async def test_an_invocation_that_ran_out_of_memory_is_tried_again(world: World) -> None:
    async with Harness(Hungry, Counter, dependencies={World: world}, retry=RetryPolicy(initial=1)) as app:
        first = begin(app.object(Hungry, "h").eat())
        second = begin(app.object(Hungry, "h").eat())
        await app.settle()
        assert not first.done()
        await others_go_on(app)
        await app.advance(seconds=1)
        assert [await first, await second] == [1, 2]


async def test_an_invocation_that_ran_out_of_memory_on_replay_is_replayed_again(world: World) -> None:
    retry = RetryPolicy(initial=1)
    async with Harness(Hungry, Counter, dependencies={World: world}, suspend_after=0, retry=retry) as app:
        eating = begin(app.object(Hungry, "h").eat_later())
        await app.advance(seconds=1)
        assert not eating.done()
        await others_go_on(app)
        await app.advance(seconds=1)
        assert await eating == 1


class Talking(Service):
    @handler
    async def talk(self, ctx: Context) -> int:
        ctx.log.info("hello")
        if ctx.request.attempt == 1:
            raise ValueError("the first attempt fails")
        return ctx.request.attempt


async def test_a_logger_that_raises_loses_its_lines_and_nothing_else() -> None:
    lost: list[str] = []

    def refuse(_logger: Any, _method: str, fields: Any) -> Any:
        lost.append(fields["event"])
        raise TypeError("not serialisable")

    structlog.configure(processors=[refuse])
    try:
        async with Harness(Talking, Counter, retry=RetryPolicy(initial=1, max_attempts=2)) as app:
            talking = begin(app.service(Talking).talk())
            await app.advance(seconds=10)
            assert await talking == 2
            assert lost.count("hello") == 2
            assert "an attempt failed and will be tried again" in lost
            await others_go_on(app)
    finally:
        structlog.reset_defaults()


async def test_whoever_waits_on_is_not_refused_when_the_store_is_back(store: PuppetStore) -> None:
    async with Harness(Napping, Counter, store=store) as app:
        napping = begin(app.service(Napping).nap())
        await app.settle()
        store.hold()
        adding = begin(app.object(Counter, "c").add())
        await turns()
        await store.fail_one(durable=False)
        with pytest.raises(StoreUnavailableError):
            await adding
        await store.go_on()
        await app.advance(seconds=59)
        assert not napping.done()
        await app.advance(seconds=2)
        assert await napping == 5


async def test_callers_that_have_given_up_are_not_kept() -> None:
    async with Harness(Napping) as app:
        sent = await app.service(Napping).nap.send()
        for _ in range(100):
            asking = begin(sent.result())
            await turns(5)
            asking.cancel()
            await asyncio.wait([asking])
        assert not supervisor_of(app).gateway.pending
        assert len(engine_of(app).parts.waiters) <= 1


# ---------------------------------------------------------------------- a class that changed


class TurnedBefore(VirtualObject, name="Turned"):
    @shared
    async def wait(self, ctx: SharedContext, seconds: int) -> int:
        await ctx.sleep(seconds)
        return seconds


class TurnedAfter(VirtualObject, name="Turned"):
    @handler
    async def wait(self, ctx: ObjectContext, seconds: int) -> int:
        await ctx.sleep(seconds)
        return seconds


async def test_none_is_lost_when_a_shared_handler_has_become_exclusive() -> None:
    store = MemoryStore()
    async with Harness(TurnedBefore, store=store) as app:
        ids = [(await app.object(TurnedBefore, "t").wait.send(seconds)).id for seconds in (50, 60, 70)]
    async with Harness(TurnedAfter, Counter, store=store) as app:
        asking = [begin(app.invocation(id, int).result()) for id in ids]
        await app.advance(seconds=200)
        assert [await one for one in asking] == [50, 60, 70]
        await others_go_on(app)


# ---------------------------------------------------------------------- keys


class Recorded(VirtualObject):
    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def go(self, ctx: ObjectContext) -> int:
        await ctx.run("go", self.world.act_at_once, ctx.key)
        await ctx.sleep(1)
        return 1


class SendingTwo(Service):
    @handler
    async def send_two(self, ctx: Context) -> int:
        await ctx.object(Recorded, "known").go.options(idempotency_key="k1").send()
        await ctx.object(Recorded, "unknown").go.options(idempotency_key="k2").send()
        return 1


async def test_a_key_that_is_known_stays_so_while_another_of_its_step_is_looked_up(
    world: World, store: PuppetStore
) -> None:
    async with Harness(Recorded, SendingTwo, Counter, dependencies={World: world}, store=store) as app:
        await app.object(Recorded, "known").go.options(idempotency_key="k1").send()
        await turns()
        store.lookups.hold()
        sending = begin(app.service(SendingTwo).send_two())
        await turns()
        assert store.lookups.waiting
        await wait_a_little(app, 2)
        assert statuses(store, "go") == [InvocationStatus.COMPLETED]
        store.lookups.release()
        await app.advance(seconds=5)
        assert await sending == 1
        assert world.started == ["known", "unknown"]
        await others_go_on(app)


# ---------------------------------------------------------------------- mistakes of the machine, and its end


async def test_an_invocation_at_which_the_machine_fails_twice_is_paused_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, store: PuppetStore
) -> None:
    advance = Steps.advance
    failures = 0

    def failing_advance(steps: Steps, invocation: InvocationRun) -> None:
        nonlocal failures
        if invocation.handler.name == "nap":
            failures += 1
            raise AssertionError("a mistake of the machine")
        advance(steps, invocation)

    async with Harness(Napping, Counter, store=store) as app:
        napping = begin(app.service(Napping).nap())
        await app.settle()
        monkeypatch.setattr(Steps, "advance", failing_advance)
        await app.advance(seconds=70)
        assert failures == 2
        with pytest.raises(PausedInvocationError, match="failed twice"):
            await napping
        assert statuses(store, "nap") == [InvocationStatus.PAUSED]
        assert [await app.object(Counter, "c").add() for _ in range(3)] == [1, 2, 3]
        assert supervisor_of(app).incarnations == 3


async def test_an_exit_that_is_cancelled_still_stops_the_runtime(world: World) -> None:
    class Lasting(Service):
        @handler
        async def act(self, ctx: Context) -> str:
            return await ctx.run("act", world.act, "act")

    store = MemoryStore()
    app = Harness(Lasting, store=store)
    await app.__aenter__()
    await app.service(Lasting).act.send()
    await turns()
    supervisor = supervisor_of(app)
    leaving = begin(Runtime.__aexit__(app, None, None, None))
    await turns()
    leaving.cancel()
    await turns()
    await wait_a_little(app, 31)
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert supervisor.engine is None
    assert world.cancelled == ["act"]
    world.end("act")
    async with Harness(Lasting, store=store) as again:
        await again.settle()
        assert world.started == ["act", "act"]
