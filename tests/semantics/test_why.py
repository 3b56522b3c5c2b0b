"""`Runtime.why` names everything that an invocation waits for, as far as it leads; a stopped store tells the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from threading import Event

import pytest

from durably import (
    Context,
    DurablePromise,
    InvocationStatus,
    MemoryStore,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    UnknownTargetError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    promise,
)
from durably.inspection import (
    ActionWait,
    AttachWait,
    AwakeableWait,
    BackoffWait,
    CallWait,
    DelayWait,
    MailboxWait,
    PauseWait,
    PromiseWait,
    SignalWait,
    TimerWait,
    TurnWait,
    Wait,
    WaitingInvocation,
    why,
)
from durably.runtime.inspection.reasons import MOST_INVOCATIONS, MOST_LINKS, MOST_WAITS
from durably.storage.records import Owner
from durably.testing import Harness, StandstillError
from durably.testing.harness import standstill

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Desk(VirtualObject):
    @handler
    async def sleep(self, ctx: ObjectContext, seconds: float) -> None:
        await ctx.sleep(seconds)

    @handler
    async def fail(self, ctx: ObjectContext) -> None:
        raise RuntimeError("a bug")

    @handler
    async def ask(self, ctx: ObjectContext, key: str) -> None:
        await ctx.object(Desk, key).sleep(60)

    @handler
    async def ask_on(self, ctx: ObjectContext, depth: int) -> None:
        if depth:
            await ctx.object(Desk, f"{depth}").ask_on(depth - 1)
        await ctx.sleep(60)

    @handler
    async def ask_many(self, ctx: ObjectContext, count: int) -> None:
        await asyncio.gather(*(ctx.object(Desk, f"{n}").sleep(60) for n in range(count)))

    @handler
    async def ask_in_a_circle(self, ctx: ObjectContext) -> None:
        await ctx.object(Desk, "b" if self.key == "a" else "a").ask_in_a_circle()

    @handler
    async def attach(self, ctx: ObjectContext, id: str) -> None:
        await ctx.invocation(id, type(None)).result()


class Clerk(Service):
    def __init__(self, down: Event) -> None:
        self.down = down

    @handler
    async def charge(self, ctx: Context) -> None:
        await ctx.run.options(timeout=3_600)("charge", self._charge)

    async def _charge(self) -> None:
        if self.down.is_set():
            raise ConnectionError("down")
        await asyncio.Event().wait()

    @handler
    async def wait_for_a_person(self, ctx: Context) -> None:
        await asyncio.gather(ctx.signal("go", str), ctx.awakeable(str))


class Vote(Workflow):
    decided: DurablePromise[str] = promise()

    @handler
    async def run(self, ctx: WorkflowContext) -> str:
        return await self.decided


async def both(app: Harness, store: MemoryStore, id: str) -> WaitingInvocation:
    """What a running runtime says; a reader of the store beside it says the same, but for actions."""
    told = await app.why(id)
    beside = MemoryStore(store.disk)
    store.disk.holder = None
    await beside.open(Owner(host="x", process_id=1, since=0))
    store.disk.epoch -= 1
    stored = await why(beside, id)
    assert stored == told
    return told


Ask = Callable[[Harness], Awaitable[str]]


async def sent_sleep(app: Harness) -> str:
    return (await app.object(Desk, "d").sleep.send(90)).id


async def sent_later(app: Harness) -> str:
    return (await app.object(Desk, "d").sleep.after(60).send(1)).id


async def queued(app: Harness) -> str:
    await app.object(Desk, "d").sleep.send(90)
    await app.object(Desk, "d").sleep.send(1)
    return (await app.object(Desk, "d").sleep.send(1)).id


async def signalled(app: Harness) -> str:
    return (await app.service(Clerk).wait_for_a_person.send()).id


async def voting(app: Harness) -> str:
    return (await app.workflow(Vote, "v").run.send()).id


async def attached(app: Harness) -> str:
    return (await app.object(Desk, "a").attach.send(await sent_sleep(app))).id


def kinds(told: WaitingInvocation) -> list[type[Wait]]:
    return [type(wait) for wait in told.waits]


CASES: dict[str, tuple[Ask, list[type[Wait]], str]] = {
    "timer": (sent_sleep, [TimerWait], "waits for a timer until 2026-01-01 00:01:30+00:00"),
    "delay": (sent_later, [DelayWait], "is delayed until 2026-01-01 00:01:00+00:00"),
    "mailbox": (queued, [MailboxWait], "is queued behind Desk/d/sleep and 1 message before it"),
    "people": (signalled, [SignalWait, AwakeableWait], "waits for the signal 'go'"),
    "promise": (voting, [PromiseWait], "waits for the promise 'decided'"),
    "attach": (attached, [AttachWait], "waits for Desk/d/sleep"),
}


@pytest.mark.parametrize("case", CASES)
async def test_each_kind_of_wait_is_named_alike_by_a_runtime_and_by_its_store(case: str) -> None:
    ask, expected, text = CASES[case]
    store = MemoryStore()
    async with Harness(Desk, Clerk, Vote, dependencies={Event: Event()}, store=store) as app:
        id = await ask(app)
        await app.settle()
        told = await both(app, store, id)
        assert told.id == id
        assert kinds(told) == expected
        assert str(told.waits[0]) == text
        assert text in str(told)
        assert json.loads(json.dumps(told.data()))["waits"][0]["kind"] == expected[0].kind
        await asyncio.gather(*(app.kill(service) for service in ("Desk", "Clerk", "Vote")))


async def test_an_awakeable_is_named_by_the_id_that_ends_the_wait() -> None:
    async with Harness(Clerk, dependencies={Event: Event()}) as app:
        asked = await app.service(Clerk).wait_for_a_person.send()
        await app.settle()
        (awakeable,) = [wait for wait in (await app.why(asked.id)).waits if isinstance(wait, AwakeableWait)]
        await app.resolve_awakeable(awakeable.id, "x")
        await asked.signal("go", "y")
        await asked.result()
        told = await app.why(asked.id)
        assert (told.status, told.waits) == (InvocationStatus.COMPLETED, ())
        assert str(told).endswith("has ended")


async def test_a_way_leads_through_calls_and_mailboxes_to_what_is_paused() -> None:
    async with Harness(Desk) as app:
        with pytest.raises(PausedInvocationError) as broken:
            await app.object(Desk, "d").fail()
        asking = await app.object(Desk, "a").ask.send("d")
        await app.settle()
        told = await app.why(asking.id)
        (call,) = told.waits
        assert isinstance(call, CallWait)
        assert call.callee is not None
        (behind,) = call.callee.waits
        assert isinstance(behind, MailboxWait)
        assert behind.behind is not None
        assert behind.behind.waits == (PauseWait(error="RuntimeError: a bug"),)
        assert [one.id for one in told.paused()] == [broken.value.id]
        assert [type(wait) for _, wait in told.ends()] == [PauseWait]
        lines = str(told).splitlines()
        assert [line.strip().partition(" (")[0] for line in lines] == [
            "Desk/a/ask", "waits for Desk/d/sleep", "is queued behind Desk/d/fail", "is paused: RuntimeError: a bug"
        ]  # fmt: skip
        await app.kill(broken.value.id)


async def test_an_action_is_named_with_its_attempt_and_its_next_one() -> None:
    down = Event()
    down.set()
    async with Harness(Clerk, dependencies={Event: down}, retry=RetryPolicy(initial=60, factor=1)) as app:
        charged = await app.service(Clerk).charge.send()
        await app.settle()
        (wait,) = (await app.why(charged.id)).waits
        assert wait == ActionWait(
            command=0, name="charge", attempt=2, next_attempt_at=BEGIN + timedelta(seconds=60),
            error="ConnectionError: down",
        )  # fmt: skip
        down.clear()
        await app.advance(minutes=1)
        (wait,) = (await app.why(charged.id)).waits
        assert wait == ActionWait(
            command=0, name="charge", attempt=2, next_attempt_at=None, error="ConnectionError: down"
        )
        assert str(wait) == "waits for the action 'charge', in its attempt 2"
        await app.kill(charged.id)


async def test_one_that_backs_off_is_named_with_its_failures_and_its_next_attempt() -> None:
    store = MemoryStore()
    async with Harness(Desk, store=store, retry=RetryPolicy(initial=60, factor=1)) as app:
        failing = await app.object(Desk, "d").fail.send()
        await app.advance(minutes=1)
        told = await both(app, store, failing.id)
        until = BEGIN + timedelta(minutes=2)
        assert told.waits == (BackoffWait(until=until, failed_attempts=2, error="RuntimeError: a bug"),)
        await app.kill(failing.id)


async def test_a_circle_is_told_as_one_and_ends() -> None:
    store = MemoryStore()
    async with Harness(Desk, store=store, deadlocks="wait") as app:
        asked = await app.object(Desk, "a").ask_in_a_circle.send()
        await app.settle()
        told = await both(app, store, asked.id)
        assert "is queued behind Desk/a/ask_in_a_circle" in str(told)
        assert str(told).splitlines()[-1].endswith(": a circle")
        assert len(list(told.everything())) == 3
        assert list(told.ends()) == []
        await app.kill(asked.id)


async def test_what_is_told_of_a_fan_out_and_of_a_long_chain_has_a_limit() -> None:
    store = MemoryStore()
    async with Harness(Desk, store=store) as app:
        wide = await app.object(Desk, "wide").ask_many.send(MOST_WAITS + 10)
        deep = await app.object(Desk, "deep").ask_on.send(MOST_LINKS + 50)
        await app.settle()
        told = await both(app, store, wide.id)
        assert (len(told.waits), told.waits_left_out) == (MOST_WAITS, 10)
        assert "and for 10 more" in str(told)
        chain = list((await both(app, store, deep.id)).everything())
        assert MOST_LINKS / 2 < len(chain) <= MOST_INVOCATIONS
        await app.advance(minutes=5)


async def test_a_message_that_nothing_holds_back_waits_for_its_turn() -> None:
    """Before recovery has come to it: as a store says that nobody runs on."""
    store = MemoryStore()
    async with Harness(Desk, store=store) as app:
        first = await app.object(Desk, "d").sleep.send(90)
        second = await app.object(Desk, "d").sleep.send(1)
        await app.settle()
        rows = store.disk.rows
        number = store.disk.numbers_by_id[first.id]
        row = rows.pop(number)
        store.disk.unfinished[row.record.address].discard(number)
        assert (await app.why(second.id)).waits == (TurnWait(ahead=0),)
        rows[number] = row
        store.disk.unfinished[row.record.address].add(number)
        await app.advance(minutes=2)


async def test_an_unknown_id_is_refused() -> None:
    async with Harness(Desk) as app:
        for id in ("inv_1nothing", "\0", ""):
            with pytest.raises(UnknownTargetError, match="There is no invocation"):
                await app.why(id)


async def test_a_standstill_tells_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standstill, "LOOK_EVERY_SECONDS", 0)
    async with Harness(Desk) as app:
        sleeping = await app.object(Desk, "d").sleep.send(90)
        with pytest.raises(StandstillError) as told:
            await app.object(Desk, "a").ask("d")
        waits = told.value.waits
        assert waits is not None
        assert waits == await app.why(waits.id)
        assert [one.id for one in waits.everything()][-1] == sleeping.id
        await app.advance(minutes=5)
