"""Rules X1, X2, X7: nothing leaves the process before it is durable, and inside nobody waits for the disk."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from durably import (
    Context,
    InvalidArgumentError,
    Invocation,
    InvocationStatus,
    ObjectContext,
    OverloadedError,
    PausedInvocationError,
    RetryPolicy,
    Service,
    SharedContext,
    TerminalError,
    UnknownTargetError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.runtime.gateway.requests import InvocationRequest
from durably.testing import Harness
from tests.semantics.support import SECOND_US, PuppetStore, World, begin, tuned, turns, wait_a_little


class Account(VirtualObject):
    balance: int = state(default=0)

    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def pay_in(self, ctx: ObjectContext, amount: int) -> int:
        self.balance += amount
        return self.balance

    @handler
    async def refuse(self, ctx: ObjectContext) -> None:
        raise TerminalError("closed", code=409)

    @handler(retry=RetryPolicy(max_attempts=1))
    async def stumble(self, ctx: ObjectContext) -> None:
        raise RuntimeError("a bug")

    @handler
    async def notify(self, ctx: ObjectContext) -> str:
        return await ctx.run("notify", self.world.act_at_once, "notify")

    @handler
    async def wait(self, ctx: ObjectContext) -> str:
        await ctx.sleep(60)
        return "waited"

    @shared
    async def look(self, ctx: SharedContext) -> int:
        return self.balance


class Chain(VirtualObject):
    passed: int = state(default=0)

    @handler
    async def step(self, ctx: ObjectContext, left: int) -> int:
        self.passed += 1
        return 0 if left == 0 else 1 + await ctx.object(Chain, f"{self.key}{left}").step(left - 1)


@pytest.fixture
async def app(world: World, store: PuppetStore) -> AsyncIterator[Harness]:
    """Some accounts; the store holds commits from the start."""
    async with Harness(Account, Chain, dependencies={World: world}, store=store) as app:
        await app.object(Account, "a").look()  # It is in memory from now on.
        await app.settle()
        store.hold()
        yield app
        await store.go_on()


Exit = Callable[[Harness], Awaitable[Any]]


def by_name(handler: str, **options: Any) -> InvocationRequest:
    return InvocationRequest(service="Account", key="a", handler=handler, body=b"", **options)


LEAVES: dict[str, Exit] = {
    "result": lambda app: app.object(Account, "a").pay_in(1),
    "read-only-reply": lambda app: app.object(Account, "a").look(),
    "error": lambda app: app.object(Account, "a").refuse(),
    "paused": lambda app: app.object(Account, "a").stumble(),
    "acknowledgement": lambda app: app.object(Account, "a").pay_in.send(1),
    "delayed-acknowledgement": lambda app: app.object(Account, "a").pay_in.after(60).send(1),
    "reply-by-name": lambda app: app.call("Account", "look", key="a"),
    "reply-to-an-ingress": lambda app: app.request_call(by_name("look")),
    "acknowledgement-to-an-ingress": lambda app: app.request_send(by_name("look")),
    "result-of-an-action": lambda app: app.object(Account, "a").notify(),
}


TELLS: dict[str, Callable[[Harness, str], Awaitable[Any]]] = {
    "read-only-reply": lambda app, _: app.object(Account, "a").look(),
    "state": lambda app, _: app.state(Account, "a"),
    "invocations": lambda app, _: anext(app.invocations()),
    "status": lambda app, id: app.invocation(id, int).status(),
    "result-of-a-handle": lambda app, id: app.invocation(id, int).result(),
    "attach": lambda app, _: app.object(Account, "a").pay_in.options(idempotency_key="k").attach(),
    "duplicate": lambda app, _: app.object(Account, "a").pay_in.options(idempotency_key="k").send(1),
    "resume": lambda app, id: app.resume(id),
}


class TestX1:
    """An exit is whatever host code or another process can observe; each waits until what it tells of is durable."""

    @pytest.mark.parametrize("leave", LEAVES.values(), ids=LEAVES)
    async def test_it_waits_for_the_disk(self, app: Harness, store: PuppetStore, leave: Exit) -> None:
        changing = begin(app.object(Account, "a").pay_in(1))
        leaving = begin(leave(app))
        await turns()
        assert store.waiting == 1
        assert not leaving.done()
        await store.let_one()
        await store.go_on()
        await asyncio.wait([changing, leaving])
        leaving.exception()

    @pytest.mark.parametrize("leave", TELLS.values(), ids=TELLS)
    async def test_what_it_tells_of_others_waits_too(
        self, app: Harness, store: PuppetStore, leave: Callable[[Harness, str], Awaitable[Any]]
    ) -> None:
        account = app.object(Account, "a")
        sending = begin(account.pay_in.options(idempotency_key="k").send(5))
        await turns()
        await store.let_one()
        sent = await sending
        changing = begin(account.pay_in(7))
        await turns()
        leaving = begin(leave(app, sent.id))
        await turns()
        assert store.waiting == 1
        assert not leaving.done()
        await store.let_one()
        await store.go_on()
        await leaving
        assert await changing == 12

    async def test_an_action_starts_when_its_command_is_durable(
        self, app: Harness, store: PuppetStore, world: World
    ) -> None:
        call = begin(app.object(Account, "a").notify())
        await turns()
        assert world.started == []
        await store.let_one()
        assert world.started == ["notify"]
        await store.go_on()
        assert await call == "notify done"

    async def test_a_hook_hears_of_a_pause_when_it_is_durable(self, world: World, store: PuppetStore) -> None:
        told: list[str] = []

        async def on_paused(invocation: Invocation[Any], error: BaseException) -> None:
            told.append(f"{invocation.id}: {error}")

        app = Harness(Account, dependencies={World: world}, store=store)
        app._on_paused = on_paused
        async with app:
            await app.settle()
            store.hold()
            call = begin(app.object(Account, "a").stumble())
            await turns()
            assert told == []
            await store.go_on()
            with pytest.raises(PausedInvocationError) as paused:
                await call
            await turns()
            assert told == [f"{paused.value.id}: a bug"]

    async def test_that_there_is_no_such_invocation_waits_for_what_it_follows_from(
        self, world: World, store: PuppetStore
    ) -> None:
        async with Harness(Account, dependencies={World: world}, store=store) as app:
            sent = await app.object(Account, "a").pay_in.send(1)
            await app.settle()
            app.clock.set_back(-2 * 86_400 * SECOND_US)
            store.hold()
            await app.crash()  # What has expired is looked for at the start.
            await turns()
            assert store.waiting == 1
            asking = begin(sent.result())
            await turns()
            assert not asking.done() or await asking == 1, (
                "it was told that the outcome is gone, and a crash would bring it back"
            )
            await store.go_on()
            with pytest.raises(UnknownTargetError):
                await sent.result()
            await asyncio.wait([asking])
            asking.exception()

    async def test_a_refusal_that_follows_from_nothing_need_not_wait(self, app: Harness, store: PuppetStore) -> None:
        with pytest.raises(InvalidArgumentError):
            await app.call("Account", "pay_in", b'"five"', key="a")
        with pytest.raises(UnknownTargetError):
            await app.call("Nobody", "look")
        assert store.waiting == 0


class TestInsideNobodyWaits:
    """Calls between objects go on while the disk stands still; what happens meanwhile is one batch."""

    async def test_calls_between_objects_go_on_while_a_commit_is_held(self, app: Harness, store: PuppetStore) -> None:
        await store.go_on()
        await app.object(Chain, "c").step(10)
        store.hold()
        first = begin(app.object(Account, "a").pay_in(1))
        await turns()
        assert store.waiting == 1
        call = begin(app.object(Chain, "c").step(10))
        await turns()
        before = len(store.commits)
        await store.let_one()
        assert await first == 1
        assert not call.done()
        await store.let_one()
        assert await call == 10
        assert len(store.commits) - before == 2, "what happened meanwhile is one batch"

    async def test_a_chain_of_ten_calls_is_one_commit(self, world: World, store: PuppetStore) -> None:
        async with Harness(Chain, store=store) as app:
            await app.object(Chain, "c").step(10)
            before = len(store.commits)
            assert await app.object(Chain, "c").step(10) == 10
            assert len(store.commits) - before == 1

    async def test_a_call_that_ends_in_its_first_step_leaves_only_the_state(
        self, world: World, store: PuppetStore
    ) -> None:
        async with Harness(Chain, store=store) as app:
            await app.object(Chain, "c").step(10)
            store.commits.clear()
            await app.object(Chain, "c").step(10)
            assert store.stored() == []
            (batch,) = store.commits
            assert (batch.accepted, batch.steps, batch.completions, batch.updated) == ([], [], [], [])
            assert len(batch.state) == 11

    async def test_what_comes_while_a_commit_is_under_way_is_the_next_batch(
        self, app: Harness, store: PuppetStore
    ) -> None:
        calls = [begin(app.object(Account, "a").pay_in(1))]
        await turns()
        calls += [begin(app.object(Account, "a").pay_in(1)) for _ in range(100)]
        await turns()
        before = len(store.commits)
        await store.let_one()
        assert [call.done() for call in calls] == [True] + [False] * 100
        await store.let_one()
        assert await asyncio.gather(*calls) == list(range(1, 102))
        assert len(store.commits) - before == 2


class TestX2:
    """A batch is cut when nothing is ready, or at a limit, and never within a transition."""

    @pytest.mark.parametrize("limit", range(1, 12))
    async def test_a_batch_border_at_every_host_callback_changes_nothing(
        self, limit: int, suspend_after: float
    ) -> None:
        """Rule C2 too: each limit puts the borders elsewhere; a crash after any of them finds whole transitions."""
        for crash_at in range(1, 60):
            store = PuppetStore()
            app = tuned(
                Harness(Chain, store=store, suspend_after=suspend_after),
                batch_limit_transitions=limit,
                pump_budget_us=-1,  # one invocation in each host callback
            )
            async with app:
                store.hold()
                call = begin(app.object(Chain, "c").step.options(idempotency_key="k")(4))
                await turns()
                for _ in range(crash_at - 1):
                    if store.waiting:
                        await store.let_one()
                if not store.waiting:
                    assert await call == 4
                    return
                await store.lose(app)
                await asyncio.wait([call])
                call.exception()
                assert await app.object(Chain, "c").step.options(idempotency_key="k")(4) == 4
                for link in ("c", "c4", "c43", "c432", "c4321"):
                    assert await app.state(Chain, link) == {"passed": 1}
        pytest.fail("there was no end of commits")

    async def test_nothing_is_admitted_when_too_much_is_ahead_of_the_disk(
        self, world: World, store: PuppetStore
    ) -> None:
        app = tuned(Harness(Account, dependencies={World: world}, store=store), undurable_limit_bytes=2_000)
        async with app:
            await app.object(Account, "a").look()
            store.hold()
            calls: list[asyncio.Task[Any]] = [begin(app.object(Account, "a").pay_in(1))]
            await turns()
            assert store.waiting == 1
            for _ in range(200):
                calls.append(begin(_caught(lambda: app.object(Account, "a").pay_in(1))))
                await turns(5)
            refused = [call for call in calls if call.done() and isinstance(call.result(), OverloadedError)]
            assert 0 < len(refused) < 200
            await store.go_on()
            answers: list[Any] = [await call for call in calls]
            accepted = [answer for answer in answers if not isinstance(answer, OverloadedError)]
            assert accepted == list(range(1, 202 - len(refused)))
            assert await app.object(Account, "a").pay_in(1) == 202 - len(refused)


async def _caught(ask: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await ask()
    except OverloadedError as error:
        return error


class TestX7:
    """Outcomes are kept for keyed invocations and for handles given outside; a plain call's goes with its reply."""

    async def test_a_plain_call_leaves_nothing(self, world: World, store: PuppetStore) -> None:
        async with Harness(Account, dependencies={World: world}, store=store) as app:
            waiting = begin(app.object(Account, "a").wait())
            await app.advance(60)
            assert await waiting == "waited"
            await app.settle()
            assert store.stored() == []
            assert store.timers_on_disk() == 0

    async def test_a_sends_outcome_stays_and_a_keyed_calls_too(self, world: World, store: PuppetStore) -> None:
        async with Harness(Account, dependencies={World: world}, store=store) as app:
            sent = await app.object(Account, "a").pay_in.send(5)
            await app.object(Account, "a").pay_in.options(idempotency_key="k")(7)
            await app.settle()
            await app.crash()
            assert await sent.result() == 5
            assert await sent.status() is InvocationStatus.COMPLETED
            assert await app.object(Account, "a").pay_in.options(idempotency_key="k")(100) == 12

    async def test_a_failed_outcome_is_kept_too(self, world: World, store: PuppetStore) -> None:
        async with Harness(Account, dependencies={World: world}, store=store) as app:
            sent = await app.object(Account, "a").refuse.send()
            await app.settle()
            await app.crash()
            for _ in range(2):
                with pytest.raises(TerminalError, match="closed") as failed:
                    await sent.result()
                assert failed.value.code == 409

    async def test_a_handlers_message_keeps_its_outcome_while_the_handler_may_ask(
        self, world: World, store: PuppetStore, suspend_after: float
    ) -> None:
        class Sender(Service):
            @handler
            async def ask_later(self, ctx: Context) -> int:
                sent = await ctx.object(Account, "a").pay_in.send(5)
                await ctx.sleep(60)
                return await sent.result()

            @handler
            async def ask_never(self, ctx: Context) -> None:
                await ctx.object(Account, "a").pay_in.send(7)

        actors = (Account, Sender)
        app = Harness(*actors, dependencies={World: world}, store=store, suspend_after=suspend_after)
        async with app:
            asking = begin(app.service(Sender).ask_later())
            await app.settle()
            await app.crash()
            await wait_a_little(app, 60)
            assert await asking == 5
            stored = len(store.stored())
            await app.service(Sender).ask_never()
            await app.settle()
            assert len(store.stored()) == stored
