"""Rule C7: an outcome is found until the moment that was announced with it, by the clock, and never after it.

The cleaner, which looks once an hour in a harness, has no part in that: these tests end before it comes.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from durably import Context, ObjectContext, Service, UnknownTargetError, VirtualObject, handler, state
from durably.runtime.gateway.requests import InvocationRequest
from durably.storage.records import InvocationRecord
from durably.testing import Harness
from durably.testing.stores.wrapped import Barrier
from tests.semantics.support import SECOND_US, PuppetStore, begin, engine_of, keep_one_incarnation, turns

KEPT_SECONDS = 90
KEPT_US = KEPT_SECONDS * SECOND_US


class Counter(VirtualObject):
    count: int = state(default=0)

    @handler(retention=KEPT_SECONDS)
    async def add(self, ctx: ObjectContext, by: int) -> int:
        self.count += by
        return self.count

    @handler(retention=0)
    async def add_forgetfully(self, ctx: ObjectContext, by: int) -> int:
        self.count += by
        return self.count


class Inside(Service):
    """Repeats the request from within a handler."""

    @handler
    async def call(self, ctx: Context) -> int:
        return await ctx.object(Counter, "a").add.options(idempotency_key="k")(7)

    @handler
    async def send(self, ctx: Context) -> int:
        add = ctx.object(Counter, "a").add.options(idempotency_key="k")
        await add.send(7)
        return await add.attach()

    @handler
    async def call_both(self, ctx: Context) -> list[int]:
        """The look-up of one key waits for that of another one."""
        add, other = ctx.object(Counter, "a").add, ctx.object(Counter, "b").add
        return list(
            await asyncio.gather(add.options(idempotency_key="k")(7), other.options(idempotency_key="other")(1))
        )

    @handler
    async def attach(self, ctx: Context) -> int | str:
        try:
            return await ctx.object(Counter, "a").add.options(idempotency_key="k").attach()
        except UnknownTargetError:
            return "gone"


async def ask(app: Harness, way: str) -> object:
    """The answer to the request when it is repeated in this way."""
    add = app.object(Counter, "a").add.options(idempotency_key="k")
    match way:
        case "call":
            return await add(7)
        case "send":
            return await (await add.send(7)).result()
        case "attach":
            try:
                return await add.attach()
            except UnknownTargetError:
                return "gone"
        case "call in a handler":
            return await app.service(Inside).call()
        case "send in a handler":
            return await app.service(Inside).send()
        case "calls in a handler":
            return (await app.service(Inside).call_both())[0]
        case _:
            return await app.service(Inside).attach()


WAYS = ["call", "send", "attach", "call in a handler", "send in a handler", "calls in a handler", "attach in a handler"]


@pytest.fixture
async def app(store: PuppetStore) -> AsyncIterator[Harness]:
    async with Harness(Counter, Inside, store=store) as app:
        yield app
        keep_one_incarnation(app)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("crashes", [False, True])
async def test_an_answer_is_there_until_the_announced_moment_and_not_from_then_on(
    app: Harness, way: str, crashes: bool
) -> None:
    assert await app.object(Counter, "a").add.options(idempotency_key="k")(5) == 5
    await app.settle()
    await app.clock.advance(KEPT_US - 1, turns)
    if crashes:
        await app.crash()
    assert await ask(app, way) == 5
    await app.clock.advance(1, turns)
    assert await ask(app, way) == ("gone" if "attach" in way else 12)
    if "attach" not in way:  # The new one has a retention of its own.
        await app.clock.advance(KEPT_US - 1, turns)
        assert await ask(app, way) == 12


async def test_the_announced_moment_is_the_one_that_is_kept(app: Harness) -> None:
    request = InvocationRequest(service="Counter", key="a", handler="add", body=b"5", idempotency_key="k")
    first, kept_until = await app.request_call(request), app.clock.now() + KEPT_US
    assert first.expires_at is None, "the one who asks first is told of it when asking again"
    for _ in range(2):
        assert (await app.request_call(request)).expires_at == kept_until
        await app.clock.advance(KEPT_US // 2, turns)
    anew, kept_until = await app.request_call(request), app.clock.now() + KEPT_US
    assert (anew.id != first.id, anew.body) == (True, b"10")
    assert (await app.request_call(request)).expires_at == kept_until


async def test_an_id_leads_nowhere_from_then_on(app: Harness) -> None:
    sent = await app.object(Counter, "a").add.send(5)
    assert await sent.result() == 5
    await app.clock.advance(KEPT_US, turns)
    for asking in (sent.result, sent.status):
        with pytest.raises(UnknownTargetError, match="no longer kept"):
            await asking()


async def test_it_is_not_listed_from_then_on(app: Harness) -> None:
    sent = await app.object(Counter, "a").add.send(5)
    await app.settle()
    await app.clock.advance(KEPT_US - 1, turns)
    assert [one.id async for one in app.invocations()] == [sent.id]
    await app.clock.advance(1, turns)
    assert [one.id async for one in app.invocations(target="Counter/a")] == []


async def test_what_has_expired_stays_so_when_the_clock_is_set_back(app: Harness) -> None:
    sent = await app.object(Counter, "a").add.options(idempotency_key="k").send(5)
    await app.settle()
    app.clock.set_back(-KEPT_US)
    with pytest.raises(UnknownTargetError):
        await sent.result()
    app.clock.set_back(KEPT_US)
    with pytest.raises(UnknownTargetError):
        await sent.result()
    await app.crash()
    assert await app.object(Counter, "a").add.options(idempotency_key="k")(7) == 12


async def test_that_an_outcome_is_gone_is_told_when_it_is_durable(app: Harness, store: PuppetStore) -> None:
    sent = await app.object(Counter, "a").add.send(5)
    await app.settle()
    await app.clock.advance(KEPT_US, turns)
    store.hold()
    asking = begin(sent.result())
    await turns()
    assert not asking.done()  # Rule X1
    await store.go_on()
    with pytest.raises(UnknownTargetError):
        await asking


async def test_one_that_is_kept_for_no_time_is_forgotten_in_memory_too(app: Harness, store: PuppetStore) -> None:
    await app.object(Counter, "a").add(0)  # Loaded: what follows ends before anything is durable.
    store.hold()
    add = app.object(Counter, "a").add_forgetfully.options(idempotency_key="k")
    first = begin(add(5))
    await turns()
    second = begin(add(7))
    await turns()
    await store.go_on()
    assert (await first, await second) == (5, 12)


async def test_requests_that_find_it_expired_together_share_the_new_one(app: Harness, store: PuppetStore) -> None:
    assert await app.object(Counter, "a").add.options(idempotency_key="k")(5) == 5
    await app.settle()
    await app.clock.advance(KEPT_US, turns)
    asking = [begin(ask(app, way)) for way in ("call", "send", "call", "call in a handler", "send in a handler")]
    assert await asyncio.gather(*asking) == [12] * 5


async def forget_ends(app: Harness) -> None:
    """Make the registry tidy up what no answer on its way can bring back."""
    engine_of(app).parts.registry._tidy_at = 1
    for _ in range(10):
        await app.object(Counter, "c").add(1)
    await turns()


async def test_an_old_answer_of_the_store_removes_nothing_twice(app: Harness, store: PuppetStore) -> None:
    """The row was read before it was removed, and the answer comes when the removal is durable."""
    sent = await app.object(Counter, "a").add.options(idempotency_key="k").send(5)
    await app.settle()
    await app.clock.advance(KEPT_US, turns)
    store.lookups.hold()
    late = begin(sent.status())
    await turns()
    call = begin(app.object(Counter, "a").add.options(idempotency_key="k")(7))
    await turns()
    store.lookups._waiting.rotate(1)
    store.lookups.release_one()
    assert await call == 12
    await forget_ends(app)
    store.lookups.release()
    with pytest.raises(UnknownTargetError):
        await late
    assert await app.object(Counter, "a").add.options(idempotency_key="k")(9) == 12


async def test_a_row_that_expires_while_a_handler_waits_for_another_look_up_is_gone(
    app: Harness, store: PuppetStore
) -> None:
    assert await app.object(Counter, "a").add.options(idempotency_key="k")(5) == 5
    await app.settle()
    await app.clock.advance(KEPT_US - 1, turns)
    store.lookups.hold()
    other = begin(app.object(Counter, "b").add.options(idempotency_key="other")(1))
    await turns()
    inside = begin(app.service(Inside).call_both())  # It joins the first look-up, and begins one of its own.
    await turns()
    store.lookups._waiting.rotate(1)
    store.lookups.release_one()
    await turns()
    await app.clock.advance(1, turns)
    attach = begin(app.object(Counter, "a").add.options(idempotency_key="k").attach())
    await turns()
    store.lookups._waiting.rotate(1)
    store.lookups.release_one()
    with pytest.raises(UnknownTargetError):
        await attach
    await forget_ends(app)
    store.lookups.release()
    assert (await inside, await other) == ([12, 1], 1)


class HeldCleaner(PuppetStore):
    """Keeps back what the cleaner has read."""

    def __init__(self) -> None:
        super().__init__()
        self.cleaner = Barrier()

    async def expired(self, now: int, limit: int, /) -> list[InvocationRecord]:
        answer = await super().expired(now, limit)
        await self.cleaner.passed()
        return answer


async def test_the_cleaner_removes_nothing_that_a_look_up_has_removed() -> None:
    store = HeldCleaner()
    async with Harness(Counter, store=store) as app:
        assert await app.object(Counter, "a").add.options(idempotency_key="k")(5) == 5
        await app.settle()
        await app.clock.advance(KEPT_US, turns)
        store.cleaner.hold()
        await app.crash()  # The cleaner looks at the start.
        await turns()
        assert store.cleaner.waiting == 1
        assert await app.object(Counter, "a").add.options(idempotency_key="k")(7) == 12
        await forget_ends(app)
        store.cleaner.release()
        await app.settle()
        keep_one_incarnation(app)
        assert await app.object(Counter, "a").add.options(idempotency_key="k")(9) == 12
