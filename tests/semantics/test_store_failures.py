"""Rule X3: a failed commit ends the incarnation; nobody is left waiting, nothing is lost and nothing is doubled."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from durably import (
    Context,
    ObjectContext,
    Runtime,
    RuntimeStoppedError,
    Service,
    SharedContext,
    StoreInUseError,
    StoreUnavailableError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.ids import Address
from durably.storage.memory import MemoryStore
from durably.storage.records import Owner
from durably.testing import Harness
from durably.testing.stores.wrapped import FailingStore
from tests.semantics.support import PuppetStore, World, begin, supervisor_of, turns, wait_a_little


class Account(VirtualObject):
    balance: int = state(default=0)

    @handler
    async def pay_in(self, ctx: ObjectContext, amount: int) -> int:
        self.balance += amount
        return self.balance

    @handler
    async def wait_and_pay_in(self, ctx: ObjectContext, amount: int) -> int:
        await ctx.sleep(1)
        self.balance += amount
        return self.balance

    @shared
    async def look(self, ctx: SharedContext) -> int:
        return self.balance


class Transfer(Service):
    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def transfer(self, ctx: Context, amount: int) -> list[int]:
        receipt = await ctx.run("bank", self.world.act_at_once, "bank")
        assert receipt == "bank done"
        source = await ctx.object(Account, "source").pay_in(-amount)
        await ctx.object(Account, "log").pay_in.send(1)
        target = await ctx.object(Account, "target").wait_and_pay_in(amount)
        return [source, target]


@pytest.fixture
async def app(world: World, store: PuppetStore) -> AsyncIterator[Harness]:
    async with Harness(Account, Transfer, dependencies={World: world}, store=store) as app:
        await app.settle()
        yield app
        await store.go_on()


async def insist(app: Harness, ask: Callable[[], Awaitable[Any]]) -> Any:
    """What a client does: with an idempotency key, ask again until there is an answer."""
    for _ in range(10):
        asking = begin(ask())
        for _ in range(10):
            await turns(100)
            if asking.done():
                break
            await wait_a_little(app, 1)
        try:
            return await asking
        except StoreUnavailableError:
            await wait_a_little(app, 1)
    return pytest.fail("no answer after ten times")


@pytest.mark.parametrize("durable", [False, True], ids=["lost", "durable"])
@pytest.mark.parametrize("fail_at", range(1, 9))
async def test_a_commit_that_fails_loses_and_doubles_nothing(
    fail_at: int, durable: bool, suspend_after: float, world: World
) -> None:
    store = FailingStore(MemoryStore(), fail_at=fail_at, durable=durable)
    app = Harness(Account, Transfer, dependencies={World: world}, store=store, suspend_after=suspend_after)
    async with app:
        transfer = app.service(Transfer).transfer.options(idempotency_key="k")
        assert await insist(app, lambda: transfer(5)) == [-5, 5]
        await app.settle()
        if store.commits >= fail_at:
            assert supervisor_of(app).incarnations == 2
        assert await app.state(Account, "source") == {"balance": -5}
        assert await app.state(Account, "target") == {"balance": 5}
        assert await app.state(Account, "log") == {"balance": 1}
        assert world.started == ["bank"], "an action was started again in the same process"


async def test_a_lost_acceptance_is_told_as_unknown(app: Harness, store: PuppetStore) -> None:
    store.hold()
    call = begin(app.object(Account, "a").pay_in(5))
    send = begin(app.object(Account, "a").pay_in.send(7))
    await turns()
    await store.fail_one(durable=False)
    await store.go_on()
    for asked in (call, send):
        with pytest.raises(StoreUnavailableError, match="unknown"):
            await asked
    assert await app.object(Account, "a").look() == 0


async def test_a_durable_acceptance_is_found_and_its_caller_attached_again(app: Harness, store: PuppetStore) -> None:
    store.hold()
    call = begin(app.object(Account, "a").wait_and_pay_in(5))
    send = begin(app.object(Account, "b").wait_and_pay_in.send(7))
    await turns()
    await store.fail_one(durable=True)
    await store.go_on()
    await turns()
    assert supervisor_of(app).incarnations == 2
    sent = await send
    await app.advance(1)
    assert await call == 5
    assert await sent.result() == 7


async def test_the_answer_that_was_computed_and_not_durable_is_not_given(app: Harness, store: PuppetStore) -> None:
    await app.object(Account, "a").pay_in(1)
    store.hold()
    looking = begin(app.object(Account, "a").look())
    paying = begin(app.object(Account, "a").pay_in(5))
    looking_again = begin(app.object(Account, "a").look())
    await turns()
    await store.fail_one(durable=False)
    await store.go_on()
    await turns()
    for asked in (looking, paying, looking_again):
        if asked.done():
            assert isinstance(asked.exception(), StoreUnavailableError)
        else:
            asked.cancel()
    assert await app.object(Account, "a").look() == 1


async def test_commit_n_fails_while_batch_n_plus_one_fills_and_its_positions_are_used_again(
    app: Harness, store: PuppetStore, world: World
) -> None:
    store.hold()
    first = begin(app.object(Account, "a").pay_in(1))
    await turns()
    others = [begin(app.object(Account, "b").pay_in(10)) for _ in range(5)]
    waiting = begin(app.object(Account, "c").wait_and_pay_in(100))
    await turns()
    await store.fail_one(durable=False)
    await store.go_on()
    await turns()
    for asked in (first, *others, waiting):
        assert isinstance(asked.exception(), StoreUnavailableError)
    again = [await app.object(Account, "d").pay_in(1) for _ in range(3)]
    assert again == [1, 2, 3]
    await app.advance(2)
    assert await app.object(Account, "a").look() == 0
    assert await app.object(Account, "b").look() == 0
    assert await app.object(Account, "c").look() == 0
    numbers = [record.number for batch in store.commits for record in batch.accepted]
    assert len(numbers) == len(set(numbers))


async def test_a_late_callback_of_a_dead_incarnation_is_ignored(app: Harness, store: PuppetStore) -> None:
    store.loads.hold()
    late = begin(app.object(Account, "late").pay_in(1))
    await turns()
    assert store.loads.waiting == 1
    store.hold()
    failing = begin(app.object(Account, "late").pay_in(2))
    await turns()
    await store.fail_one(durable=False)
    await turns()
    store.loads.release()
    await store.go_on()
    await turns()
    assert supervisor_of(app).incarnations == 2
    assert await late == 1, "its acceptance was durable, so it was run again, once"
    with pytest.raises(StoreUnavailableError):
        await failing
    assert await app.object(Account, "late").pay_in(5) == 6


async def test_requests_while_the_store_is_gone_are_refused_with_nothing_accepted(
    app: Harness, store: PuppetStore
) -> None:
    store.failing_opens.extend([StoreUnavailableError("gone")] * 3)
    store.hold()
    call = begin(app.object(Account, "a").wait_and_pay_in(5))
    await turns()
    await store.fail_one(durable=True)
    with pytest.raises(StoreUnavailableError, match="Nothing was accepted"):
        await app.object(Account, "b").pay_in(1)
    await store.go_on()
    opens = store.opens
    for _ in range(20):
        await wait_a_little(app, 0.1)
    assert store.opens - opens >= 2
    assert supervisor_of(app).incarnations == 2
    await app.advance(1)
    assert await call == 5
    assert await app.object(Account, "b").pay_in(1) == 1


async def test_a_store_that_cannot_be_opened_for_a_strange_reason_is_tried_again(
    app: Harness, store: PuppetStore
) -> None:
    store.failing_opens.extend([OSError("too many open files"), PermissionError("read-only")])
    store.hold()
    call = begin(app.object(Account, "a").wait_and_pay_in(5))
    await turns()
    await store.fail_one(durable=True)
    await store.go_on()
    for _ in range(10):
        await wait_a_little(app, 0.1)
    assert supervisor_of(app).incarnations == 2
    await app.advance(1)
    assert await call == 5


async def test_callers_do_not_wait_for_ever_for_a_store_that_stays_away(app: Harness, store: PuppetStore) -> None:
    store.failing_opens.extend([StoreUnavailableError("gone")] * 1000)
    store.hold()
    call = begin(app.object(Account, "a").wait_and_pay_in(5))
    send = begin(app.object(Account, "a").pay_in.send(5))
    await turns()
    await store.fail_one(durable=True)
    await wait_a_little(app, 11)
    for asked in (call, send):
        with pytest.raises(StoreUnavailableError):
            await asked
    store.failing_opens.clear()
    await store.go_on()
    await wait_a_little(app, 10)
    assert await app.object(Account, "a").look() == 10


async def test_the_tries_come_with_growing_pauses(app: Harness, store: PuppetStore) -> None:
    store.failing_opens.extend([StoreUnavailableError("gone")] * 1000)
    store.hold()
    call = begin(app.object(Account, "a").pay_in(5))
    await turns()
    await store.fail_one(durable=False)
    await wait_a_little(app, 9)
    assert 5 <= store.opens <= 12
    store.failing_opens.clear()
    await store.go_on()
    await wait_a_little(app, 10)
    with pytest.raises(StoreUnavailableError):
        await call


async def test_a_batch_that_fails_again_and_again_is_not_tried_without_a_pause(
    app: Harness, store: PuppetStore
) -> None:
    """A store that opens and then refuses to commit must not make the machine spin."""
    await app.object(Account, "a").wait_and_pay_in.send(5)
    await app.clock.advance(0, turns)
    store.hold()
    opens = store.opens
    advancing = begin(wait_a_little(app, 3))
    for _ in range(100):
        await turns(50)
        if store.waiting:
            await store.fail_one(durable=False)
    await advancing
    assert store.opens - opens < 20
    await store.go_on()
    for _ in range(10):
        await wait_a_little(app, 1)
    assert await app.object(Account, "a").look() == 5


ASKS: dict[str, Callable[[Harness], Awaitable[Any]]] = {
    "state": lambda app: app.state(Account, "a"),
    "invocations": lambda app: anext(app.invocations(), None),
    "shared": lambda app: app.object(Account, "a").look(),
    "status": lambda app: app.invocation("inv_1", int).status(),
    "result": lambda app: app.invocation("inv_1", int).result(),
    "attach": lambda app: app.object(Account, "a").pay_in.options(idempotency_key="k").attach(),
    "resume": lambda app: app.resume("inv_1"),
    "keyed-call": lambda app: app.object(Account, "a").pay_in.options(idempotency_key="k")(1),
    "keyed-send": lambda app: app.object(Account, "a").pay_in.options(idempotency_key="k").send(1),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
async def test_everybody_hears_something_when_a_commit_fails(
    app: Harness, store: PuppetStore, ask: Callable[[Harness], Awaitable[Any]]
) -> None:
    store.hold()
    call = begin(app.object(Account, "a").pay_in(5))
    await turns()
    asked = begin(ask(app))
    await turns()
    await store.fail_one(durable=False)
    await store.go_on()
    await turns()
    await wait_a_little(app, 11)
    assert call.done()
    assert asked.done(), "its future hangs"
    call.exception()
    asked.exception()


@pytest.mark.parametrize("key", [None, "k"], ids=["plain", "keyed"])
async def test_somebody_whose_invocation_ends_while_it_is_looked_for_again_hears_of_it(
    app: Harness, store: PuppetStore, key: str | None
) -> None:
    store.hold()
    pay_in = app.object(Account, "a").wait_and_pay_in
    call = begin(pay_in(5) if key is None else pay_in.options(idempotency_key=key)(5))
    await turns()
    store.lookups.hold()
    await store.fail_one(durable=True)
    await store.go_on()
    await turns()
    assert store.lookups.waiting == 1, "after the recovery it is looked for"
    await wait_a_little(app, 2)
    store.lookups.release()
    await turns()
    assert call.done(), "its future hangs"
    if key is not None:
        assert await call == 5
    else:
        assert call.exception() is None or isinstance(call.exception(), StoreUnavailableError)


async def test_a_load_that_fails_ends_the_incarnation_and_is_tried_again(app: Harness, store: PuppetStore) -> None:
    load = store.memory.load
    failures = [StoreUnavailableError("a bad sector")]

    async def failing(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return await load(*args, **kwargs)

    store.memory.load = failing  # type: ignore[method-assign]
    sending = begin(app.object(Account, "a").pay_in.options(idempotency_key="k").send(5))
    await turns()
    await wait_a_little(app, 1)
    assert supervisor_of(app).incarnations == 2
    await asyncio.wait([sending])
    assert await app.object(Account, "a").pay_in.options(idempotency_key="k")(7) == 5


class TestX4:
    """Somebody else has taken the store over: the older runtime stops for good, and says so."""

    async def test_the_older_runtime_stops_for_good_and_its_callers_hear_that_the_store_is_in_use(
        self, world: World
    ) -> None:
        disk = MemoryStore().disk
        store = PuppetStore(MemoryStore(disk))
        app = Harness(Account, Transfer, dependencies={World: world}, store=store)
        async with app:
            waiting = begin(app.object(Account, "a").wait_and_pay_in(5))
            await app.settle()
            disk.holder = None  # The lock file was deleted.
            usurper = MemoryStore(disk)
            await usurper.open(Owner(host="elsewhere", process_id=1, since=0))
            changing = begin(app.object(Account, "a").look.send())
            await turns()
            for asked in (waiting, changing):
                with pytest.raises((StoreInUseError, StoreUnavailableError), match="elsewhere"):
                    await asked
            opens = store.opens
            for _ in range(3):
                with pytest.raises(StoreInUseError, match="elsewhere"):
                    await app.object(Account, "b").pay_in(1)
                await wait_a_little(app, 60)
            assert store.opens == opens, "it must not try to get the store back"
            assert Address("Account", "b") not in disk.state
            with pytest.raises(StoreInUseError):
                await app.state(Account, "a")
            # Leaving it must not hang either; the harness would wait for the machine to settle.
            await Runtime.__aexit__(app, None, None, None)
        assert str(disk.holder).count("elsewhere") == 1

    async def test_a_second_runtime_fails_at_start_and_names_the_first(self) -> None:
        store = MemoryStore()
        async with Runtime(store, [Account]):
            second = Runtime(MemoryStore(store.disk), [Account])
            with pytest.raises(StoreInUseError, match=r"process \d+|pid"):
                async with second:
                    pass
            with pytest.raises(RuntimeStoppedError):
                second.object(Account, "a").look()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]


async def test_a_last_commit_that_fails_does_not_hold_up_the_stop(world: World) -> None:
    store = PuppetStore()
    runtime = Runtime(store, [Account], drain=0)
    await runtime.__aenter__()
    await runtime.object(Account, "a").pay_in(1)
    store.hold()
    call = begin(runtime.object(Account, "a").pay_in(5))
    await turns()
    stopping = begin(runtime.__aexit__(None, None, None))
    await turns()
    while store.waiting:
        await store.fail_one(durable=False)
    await turns(3000)
    done = stopping.done()
    await stopping
    assert done, "it waited for a commit that had failed"
    with pytest.raises((RuntimeStoppedError, StoreUnavailableError)):
        await call
