"""Rule X9: an owner that was superseded answers nothing, reads included, however far it had come with the answer."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from durably import (
    Invocation,
    ObjectContext,
    SharedContext,
    StoreInUseError,
    StoreLostError,
    StoreUnavailableError,
    UnknownTargetError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.ids import Address
from durably.storage.memory import Disk, MemoryStore
from durably.storage.records import Batch, Opened, Owner, StateRecord
from durably.testing import Harness
from durably.testing.stores.wrapped import HeldStore, WrappedStore
from tests.semantics.support import PuppetStore, begin, engine_of, supervisor_of, tuned, turns, wait_a_little

RIVAL = Owner(host="elsewhere", process_id=1, since=0)
ACCOUNT = Address("Account", "a")


class Account(VirtualObject):
    balance: int = state(default=0)

    @handler
    async def pay_in(self, ctx: ObjectContext, amount: int) -> int:
        self.balance += amount
        return self.balance

    @handler
    async def read(self, ctx: ObjectContext) -> int:
        return self.balance

    @handler
    async def stumble(self, ctx: ObjectContext) -> None:
        raise RuntimeError("a bug")

    @shared
    async def look(self, ctx: SharedContext) -> int:
        return self.balance


async def supersede(disk: Disk) -> None:
    """Another owner comes, changes something and acknowledges it, while this one stands still."""
    disk.holder = None
    rival = MemoryStore(disk)
    await rival.open(RIVAL)
    await rival.commit(Batch(last_position=disk.last_position + 1, state=[StateRecord(ACCOUNT, "balance", b"1000000")]))


class CountingStore(WrappedStore):
    """Counts the times that it has said whose it is."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.disk = inner.disk
        self.checks = 0

    def verify(self) -> Awaitable[None]:
        checked = self.inner.verify()
        self.checks += 1
        return checked

    async def commit(self, batch: Batch, /) -> None:
        await self.inner.commit(batch)
        self.checks += 1


class SlowlyVerifyingStore(CountingStore):
    """Takes some turns of the loop to say it, as a store across a network does."""

    async def verify(self) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await super().verify()


@asynccontextmanager
async def running(store: WrappedStore) -> AsyncGenerator[tuple[Harness, Invocation[int]]]:
    """A runtime whose account has 5, and the invocation that paid them in."""
    app = Harness(Account, store=store)
    await app.__aenter__()
    sent = await app.object(Account, "a").pay_in.options(idempotency_key="once").send(5)
    assert await sent.result() == 5
    await app.settle()
    yield app, sent
    await Harness.__base__.__aexit__(app, None, None, None)  # type: ignore[union-attr]


Ask = Callable[[Harness, Invocation[int]], Awaitable[Any]]


async def invocations(app: Harness, sent: Invocation[int]) -> list[str]:
    return [invocation.id async for invocation in app.invocations()]


QUESTIONS: dict[str, Ask] = {
    "shared call": lambda app, sent: app.object(Account, "a").look(),
    "exclusive call": lambda app, sent: app.object(Account, "a").read(),
    "call of an object that is not in memory": lambda app, sent: app.object(Account, "b").look(),
    "result": lambda app, sent: sent.result(),
    "status": lambda app, sent: sent.status(),
    "duplicate call": lambda app, sent: app.object(Account, "a").pay_in.options(idempotency_key="once")(7),
    "duplicate send": lambda app, sent: app.object(Account, "a").pay_in.options(idempotency_key="once").send(7),
    "attach": lambda app, sent: app.object(Account, "a").pay_in.options(idempotency_key="once").attach(),
    "unknown id": lambda app, sent: app._issue_status("inv_unknown", None),  # type: ignore[arg-type]
    "resume": lambda app, sent: app.resume(sent.id),
    "state": lambda app, sent: app.state(Account, "a"),
    "invocations": invocations,
}


@pytest.mark.parametrize("store", [CountingStore, SlowlyVerifyingStore])
@pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS)
async def test_no_answer_leaves_an_owner_that_was_superseded_while_it_was_made(
    ask: Ask, store: Callable[[MemoryStore], CountingStore]
) -> None:
    """It is stopped after each number of turns in turn; what it has not verified by then, it never tells."""
    refused = answered = 0
    for progress in range(40):
        held = store(MemoryStore())
        async with running(held) as (app, sent):
            held.checks = 0
            asking = begin(ask(app, sent))
            await turns(progress)
            was_verified = held.checks > 0
            await supersede(held.disk)
            await asyncio.wait([asking])
            error = asking.exception()
            if isinstance(error, StoreInUseError | StoreUnavailableError):
                assert "elsewhere" in str(error)
                refused += 1
            else:
                assert error is None or isinstance(error, UnknownTargetError)
                assert was_verified, f"after {progress} turns: {error or asking.result()}"
                answered += 1
            with pytest.raises((StoreInUseError, StoreUnavailableError), match="elsewhere"):
                await app.object(Account, "a").look()
        if answered > 2:
            break
    assert refused
    assert answered


@pytest.mark.parametrize("question", ["shared call", "status", "result", "state"])
async def test_a_commit_that_began_before_the_answer_does_not_vouch_for_it(question: str) -> None:
    """The epoch was checked in that commit; the owner may have been superseded between this and the answer."""
    memory = MemoryStore()
    store = HeldStore(memory)
    store.commits.release()
    async with running(store) as (app, sent):
        store.acknowledgements.hold()
        paying = begin(app.object(Account, "a").pay_in(1))
        await turns(20)
        assert store.acknowledgements.waiting
        asking = begin(QUESTIONS[question](app, sent))
        await turns(20)
        await supersede(memory.disk)
        store.acknowledgements.release()
        assert await paying == 6, "it was durable before"
        with pytest.raises((StoreInUseError, StoreUnavailableError), match="elsewhere"):
            await asking


async def test_what_is_answered_in_one_turn_is_verified_once() -> None:
    store = CountingStore(MemoryStore())
    async with running(store) as (app, sent):
        store.checks = 0
        questions = [QUESTIONS[name](app, sent) for name in ("shared call", "exclusive call", "status", "result")]
        await asyncio.gather(
            *(begin(question) for question in questions * 1), *(begin(sent.status()) for _ in range(50))
        )
        assert 0 < store.checks <= 3


async def test_a_pause_is_not_told_by_an_owner_that_was_superseded() -> None:
    store = CountingStore(MemoryStore())
    async with running(store) as (app, _):
        failing = await app.object(Account, "c").stumble.send()
        await turns()
        app._ledger.unheard.clear()
        asking = begin(failing.result())
        await supersede(store.disk)
        with pytest.raises((StoreInUseError, StoreUnavailableError), match="elsewhere"):
            await asking


async def test_an_owner_that_was_superseded_and_left_alone_again_does_not_come_back() -> None:
    """Nobody holds the store any more, and still what this runtime has in memory may be old."""
    store = PuppetStore()
    async with running(store) as (app, sent):
        await supersede(store.memory.disk)
        store.memory.disk.holder = None
        with pytest.raises((StoreInUseError, StoreUnavailableError)):
            await sent.status()
        opens = store.opens
        await wait_a_little(app, 60)
        with pytest.raises(StoreInUseError):
            await sent.status()
        assert store.opens == opens


async def test_a_store_that_is_lost_stops_the_runtime_for_good_and_tells_those_who_wait() -> None:
    store = PuppetStore()
    lost = StoreLostError("The store is gone for good.")
    async with running(store) as (app, _):
        store.hold()
        paying = begin(app.object(Account, "a").pay_in(1))
        await turns()
        store.failing_opens.append(lost)
        await store.fail_one(durable=False)
        with pytest.raises(StoreUnavailableError, match="gone for good"):
            await paying
        opens = store.opens
        await wait_a_little(app, 60)
        assert store.opens == opens
        with pytest.raises(StoreLostError):
            await app.object(Account, "a").look()
        await store.go_on()


async def test_what_keeps_a_store_from_being_opened_again_is_what_callers_hear() -> None:
    """The first failure may be mended by then, or be a consequence of the same cause that says less."""
    store = PuppetStore()
    async with running(store) as (app, _):
        store.hold()
        paying = begin(app.object(Account, "a").pay_in(1))
        await turns()
        store.failing_opens.append(StoreUnavailableError("The role may not use the schema."))
        await store.fail_one(durable=False)
        await turns()
        with pytest.raises(StoreUnavailableError, match=r"opened again: The role may not use the schema\. Nothing was"):
            await app.object(Account, "a").look()
        await store.go_on()
        await wait_a_little(app, 60)
        with pytest.raises(StoreUnavailableError, match=r"the outcome is unknown.* The role may not use the schema"):
            await paying


class LostStore(WrappedStore):
    """Is lost when the test says so."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.lost = False

    async def open(self, owner: Owner, /) -> Opened:
        if self.lost:
            raise StoreLostError("It is gone for good.")
        return await self.inner.open(owner)

    def verify(self) -> Awaitable[None]:
        if self.lost:
            raise StoreUnavailableError("It is gone.")
        return self.inner.verify()


async def test_an_idle_runtime_notices_within_a_second() -> None:
    store = LostStore()
    app = tuned(Harness(Account, store=store), verify_every_us=1_000_000)
    await app.__aenter__()
    await wait_a_little(app, 10)
    assert engine_of(app).incarnation.dead is False
    store.lost = True
    await wait_a_little(app, 1)
    assert not app.accepts_requests
    assert isinstance(supervisor_of(app)._final, StoreLostError)
    await Harness.__base__.__aexit__(app, None, None, None)  # type: ignore[union-attr]
