"""Whatever an example does, it may die at each of its commits, in each way there is: the end is the same.

A scenario is run once undisturbed, then again with the n-th commit going wrong, n = 1, 2, 3 and so on until a run
has fewer commits. What counts is the answers, the state, and the ledger of side effects; only the last action of each
branch before a crash may stand in it twice (rule A2), and none where merely a commit failed: then actions live on
(rule A1).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any

import pytest

from durably.actors.actor import VirtualObject, Workflow
from durably.actors.awakeable import Awakeable
from durably.actors.retry import RetryPolicy
from durably.errors import RuntimeStoppedError, StoreUnavailableError, TerminalError
from durably.ids import InvocationStatus
from durably.storage.memory import MemoryStore
from durably.storage.records import Batch
from durably.testing.harness.harness import Harness
from durably.testing.stores.wrapped import FailingStore, WrappedStore
from examples import approval, state_machine
from examples.approval import Expense
from examples.callbacks import Feed, Inbox, Subscriber
from examples.providers import Ledger, MailProvider, PaymentProvider
from examples.signup import Carrier, ParcelWatch, Signup
from examples.state_machine import Resource
from examples.tickets import Cart, Checkout, Ticket
from tests.levels import level
from workloads.acts import OBJECTS, Act, Maker, Node, Worker, World
from workloads.cancels import Limb, Plan
from workloads.shelves import FAILS, Shelf, make_moves

WAYS = ("fails before", "fails after", "crash before", "crash after", "crash a little later")
"""How the n-th commit goes wrong: the store fails or everything dies; before it is durable, after it, or soon after."""
MOST_COMMITS = 200
A_WHILE = timedelta(hours=1)


@dataclass
class Scenario:
    """One run: the application, what it was asked, and what it answered."""

    app: Harness
    ledger: Ledger
    answers: dict[str, Any] = field(default_factory=dict[str, Any])
    asked: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    def ask(self, key: str, call: Callable[[], Awaitable[Any]]) -> None:
        """Ask, again and again if need be, and go on; each call has an idempotency key of its own."""
        self.asked.append(asyncio.create_task(self._insist(key, call)))

    async def _insist(self, key: str, call: Callable[[], Awaitable[Any]]) -> None:
        while key not in self.answers:
            try:
                self.answers[key] = await call()
            except (StoreUnavailableError, RuntimeStoppedError):
                await asyncio.sleep(0)
            except TerminalError as error:
                self.answers[key] = str(error)

    async def answered(self) -> None:
        """Let time pass until everything is answered."""
        for _ in range(1000):
            await self.app.settle()
            if all(task.done() for task in self.asked):
                return
            await self.app.advance(seconds=1)
        raise AssertionError(f"Only {[*self.answers]} were answered.")


Play = Callable[[Scenario], Coroutine[Any, Any, None]]


async def tour(scenario: Scenario) -> None:
    """Two people want the same seats; three check out at once, one with nothing in the cart."""
    for user, seat in [("ann", "A"), ("bob", "A"), ("ann", "B"), ("bob", "C")]:
        add_ticket = scenario.app.object(Cart, user).add_ticket
        scenario.ask(f"{user} {seat}", partial(add_ticket.options(idempotency_key=seat), seat))
        await scenario.answered()
    for user in ("ann", "bob", "eve"):
        scenario.ask(user, scenario.app.object(Cart, user).checkout.options(idempotency_key=user))
    await scenario.answered()


async def expiry(scenario: Scenario) -> None:
    """A reservation is not paid for in time, and somebody else takes the seat."""
    for user in ("ann", "bob"):
        add_ticket = scenario.app.object(Cart, user).add_ticket
        scenario.ask(user, partial(add_ticket.options(idempotency_key=user), "A"))
        await scenario.answered()
        await scenario.app.advance(minutes=16)


async def machines(scenario: Scenario) -> None:
    """Transitions of two machines side by side."""
    for number, up in enumerate([True, False, False, True, True]):
        for name in ("a", "b"):
            machine = scenario.app.object(Resource, name)
            transition = machine.set_up if up else machine.tear_down
            scenario.ask(f"{number} {name}", transition.options(idempotency_key=str(number)))
        await scenario.answered()


async def workflows(scenario: Scenario) -> None:
    """Two sign up, one of them with the wrong code, and a parcel is watched through several executions."""
    for user in ("ann", "bob"):
        scenario.ask(f"{user} starts", partial(scenario.app.workflow(Signup, user).run.send, f"{user}@example.org"))
    scenario.ask("watch", partial(scenario.app.workflow(ParcelWatch, "42").run.send, 2))
    await scenario.answered()
    for user in ("ann", "bob"):
        signup = scenario.app.workflow(Signup, user)
        scenario.ask(f"{user} waits", signup.run.attach)
        code = next((str(mail["text"]) for mail in scenario.ledger.of("mail") if user in str(mail["to"])), "")
        scenario.ask(
            f"{user} confirms",
            partial(signup.confirm.options(idempotency_key="c"), "wrong" if user == "bob" else code),
        )
        await scenario.answered()
    scenario.ask("watched", scenario.app.workflow(ParcelWatch, "42").run.attach)
    await scenario.app.advance(hours=8)
    await scenario.answered()
    for started in ("ann starts", "bob starts", "watch"):  # Handles and ids differ from one run to the next.
        scenario.answers[started] = "started"


async def callbacks(scenario: Scenario) -> None:
    """A feed calls two by name, one of whom it gives up; its calls have ids."""
    feed = scenario.app.object(Feed, "news")
    for number, name in enumerate(("put", "put_when_asked")):
        subscribe = feed.subscribe.options(idempotency_key=str(number))
        scenario.ask(f"subscribe {number}", partial(subscribe, Subscriber("Inbox", name, f"{number}")))
        await scenario.answered()
    scenario.ask("publish", partial(feed.publish.options(idempotency_key="once"), "It works."))
    await scenario.answered()


async def restarts(scenario: Scenario) -> None:
    """A sign-up is paused by hand and begins anew: it sends another code, and only that one counts."""
    signup = scenario.app.workflow(Signup, "ann")
    scenario.ask("start", partial(signup.run.send, "ann@example.org"))
    while not scenario.ledger.of("mail"):
        await scenario.app.advance(seconds=1)
    for act in (scenario.app.pause, scenario.app.restart):
        await _insist_on(scenario, partial(act, "Signup/ann/run"))
    while len(codes := {str(mail["text"]) for mail in scenario.ledger.of("mail")}) < 2:
        await scenario.app.advance(seconds=1)
    latest = [str(mail["text"]) for mail in scenario.ledger.of("mail")][-1]
    assert latest in codes
    scenario.ask("confirm", partial(signup.confirm.options(idempotency_key="c"), latest))
    scenario.ask("wait", signup.run.attach)
    await scenario.answered()
    scenario.answers["start"] = "started"


async def _insist_on(scenario: Scenario, act: Callable[[], Awaitable[Sequence[str]]]) -> None:
    """Until it was done: an order whose answer was lost is given again, and finds nothing to do."""
    while True:
        try:
            await act()
        except (StoreUnavailableError, RuntimeStoppedError):
            await scenario.app.advance(seconds=1)
        else:
            return


async def additions(scenario: Scenario) -> None:
    """Short messages to an object that is in memory: each begins and ends within one batch."""
    for number in range(8):
        carry = scenario.app.object(Node, "0").carry.options(idempotency_key=str(number))
        scenario.ask(str(number), partial(carry, Act("call", number, parts=(Act("add", number, amount=1),))))
        await scenario.answered()


async def approvals(scenario: Scenario) -> None:
    """Two expenses are decided on by several at once, from outside and by a handler; the first word counts."""
    for number, yes in (("1", True), ("2", False)):
        expense = scenario.app.object(Expense, number)
        scenario.ask(f"submit {number}", partial(expense.submit.options(idempotency_key="once"), 250, "boss"))
        while await _outcome(scenario, number) == "open":
            await scenario.app.advance(seconds=1)
        for word in range(2):
            decide = expense.decide.options(idempotency_key=str(word))
            scenario.ask(f"decide {number} {word}", partial(decide, yes=yes))
        await scenario.answered()
        scenario.answers[f"late {number}"] = await _outcome(scenario, number)


async def _outcome(scenario: Scenario, number: str) -> str:
    while True:
        await scenario.app.settle()
        try:
            return await scenario.app.object(Expense, number).outcome()
        except (StoreUnavailableError, RuntimeStoppedError):
            await scenario.app.advance(seconds=1)


def program(seed: int) -> Play:
    """A random program of messages, as in `tests/properties`."""

    async def carried(scenario: Scenario) -> None:
        acts = Maker(Random(seed), size=30).acts(1, depth=4)
        carry = scenario.app.object(Node, "0").carry.options(idempotency_key="root")
        scenario.ask("root", partial(carry, Act("call", 0, 0, 0, acts)))
        await scenario.answered()

    return carried


def stopped(how: str) -> Play:
    """A tree of calls, one of them queued, that is cancelled or killed or late, again and again until it has ended."""

    async def play(scenario: Scenario) -> None:
        app = scenario.app
        leaf, queued = Plan(3, "c", "await", 1_000, 0), Plan(4, "b", "await", 1_000, 0)
        tree = Plan(1, "a", "group", 1_000, 0, children=[Plan(2, "b", "await", 1_000, 0, children=[leaf]), queued])
        grow = app.object(Limb, "a").grow.options(idempotency_key="tree")
        grow = grow.options(timeout=50) if how == "late" else grow
        scenario.ask("tree", partial(grow, tree))
        for _ in range(100):
            await app.advance(1)
            if "tree" in scenario.answers:
                break
            with suppress(StoreUnavailableError, RuntimeStoppedError):
                if how == "cancelled":
                    await app.cancel("SoakLimb/a")
                elif how == "killed":
                    await app.kill("SoakLimb/a")
        await scenario.answered()
        await app.settle()
        scenario.answers["undone, in any order"] = sorted((await app.state(Limb, "undone")).get("log", []))

    return play


async def shelves(scenario: Scenario) -> None:
    """Moves on a shelf with collections, and what was heard."""
    random = Random(7)
    for number in range(4):
        moves = [move for _ in range(3) for move in make_moves(random) if move[0] not in (FAILS, "given up")]
        make = scenario.app.object(Shelf, "a").make.options(idempotency_key=str(number))
        scenario.ask(f"shelf {number}", partial(make, moves, []))
        await scenario.answered()
    scenario.ask("looked", scenario.app.object(Shelf, "a").look)
    await scenario.answered()
    await scenario.app.advance(1)
    for name in ("books", "prices", "pages", "note"):
        scenario.answers[name] = await scenario.app.entries(Shelf, "a", name)


PLAYS: dict[str, Play] = {
    "tour": tour, "expiry": expiry, "machines": machines, "additions": additions, "workflows": workflows,
    "approvals": approvals, "callbacks": callbacks, "restarts": restarts,
    "shelves": shelves,
    **{f"a tree {how}": stopped(how) for how in ("cancelled", "killed", "late")},
    **{f"program {seed}": program(seed) for seed in range(5)},
}  # fmt: skip
OBJECTS_OF_PLAYS: list[tuple[type[VirtualObject] | type[Workflow], tuple[str, ...]]] = [
    (Ticket, ("A", "B", "C")),
    (Cart, ("ann", "bob", "eve")),
    (Resource, ("a", "b")),
    (Limb, ("a", "b", "c")),
    (Signup, ("ann", "bob")),
    (ParcelWatch, ("42",)),
    (Expense, ("1", "2")),
    (Feed, ("news",)),
    (Inbox, ("0", "1")),
    (Node, tuple(str(index) for index in range(OBJECTS))),
]


class DeadlyStore(WrappedStore):
    """Has everything die at commit number `at`: before it is durable, after it, or some turns of the loop later."""

    def __init__(self, at: int, way: str) -> None:
        super().__init__(MemoryStore())
        self.crash: Callable[[], Coroutine[Any, Any, None]] | None = None
        self.commits = 0
        self.crashing: asyncio.Task[None] | None = None
        self._at = at
        self._way = way

    async def commit(self, batch: Batch, /) -> None:
        self.commits += 1
        if self.commits != self._at:
            await self.inner.commit(batch)
            return
        assert self.crash is not None
        if self._way != "crash before":
            await self.inner.commit(batch)
        self.crashing = asyncio.create_task(self._die(self.crash))
        if self._way != "crash a little later":
            await asyncio.sleep(0)  # The news of this commit reaches nobody any more.
            await asyncio.sleep(0)

    async def _die(self, crash: Callable[[], Coroutine[Any, Any, None]]) -> None:
        for _ in range(3 if self._way == "crash a little later" else 0):
            await asyncio.sleep(0)
        await crash()


@dataclass(frozen=True)
class End:
    """What is compared."""

    answers: dict[str, Any]
    state: dict[str, Any]
    payments: list[str]
    attempts: Counter[str]
    unfinished: list[str]


async def run(play: Play, suspend_after: int, store: FailingStore | DeadlyStore) -> End:
    ledger = Ledger()
    app = Harness(
        Ticket, Cart, Checkout, Resource, Limb, Node, Worker, Signup, ParcelWatch, Expense, Feed, Inbox,
        Shelf,
        dependencies={
            PaymentProvider: PaymentProvider(ledger), MailProvider: MailProvider(ledger), World: World(),
            Carrier: Carrier(delivered_after=5),
        },
        retry=RetryPolicy(initial=1),
        suspend_after=suspend_after,
        store=store,
    )  # fmt: skip
    if isinstance(store, DeadlyStore):
        store.crash = app.crash
    async with asyncio.timeout(20), app:
        scenario = Scenario(app, ledger)
        await play(scenario)
        await app.advance(A_WHILE)
        if isinstance(store, DeadlyStore) and store.crashing is not None:
            await store.crashing
        state = {
            f"{actor.__name__} {key}": _without_ids(await app.state(actor, key))
            for actor, keys in OBJECTS_OF_PLAYS
            for key in keys
        }
        kept = await store.invocations(after=0, limit=10_000)
    return End(
        answers=scenario.answers,
        state=state,
        payments=sorted(str(entry["amount"]) for entry in ledger.of("payment")),
        attempts=Counter(app.actions()),
        unfinished=[record.id for record in kept if record.status is not InvocationStatus.COMPLETED],
    )


def _without_ids(state: Mapping[str, Any]) -> dict[str, Any]:
    """An invocation that was asked for again has another id, and so have its awakeables."""
    return {name: "an awakeable" if isinstance(value, Awakeable) else value for name, value in state.items()}


def misbehaving(number: int, way: str) -> FailingStore | DeadlyStore:
    if way.startswith("fails"):
        return FailingStore(MemoryStore(), fail_at=number, durable=way == "fails after")
    return DeadlyStore(number, way)


def undisturbed(play: Play, suspend_after: int) -> End:
    return asyncio.run(run(play, suspend_after, FailingStore(MemoryStore(), fail_at=0, durable=False)))


def _no_letter(to: str, text: str) -> None:
    """Nobody is written to."""


@pytest.fixture(autouse=True)
def machines_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_machine, "SECONDS", 0)
    monkeypatch.setattr(approval, "send_letter", _no_letter)


@pytest.mark.parametrize("suspend_after", [0, 60])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PLAYS)
def test_the_end_is_the_same_whichever_commit_goes_wrong(name: str, way: str, suspend_after: int) -> None:
    play = PLAYS[name]
    expected = undisturbed(play, suspend_after)
    assert expected.unfinished == []
    stride = level().commit_stride
    for number in range(1 + WAYS.index(way) % stride, MOST_COMMITS, stride):
        store = misbehaving(number, way)
        end = asyncio.run(run(play, suspend_after, store))
        if store.commits < number:
            return
        compare(end, expected, may_repeat=way.startswith("crash"), where=f"commit {number}")
    raise AssertionError(f"{name} has more than {MOST_COMMITS} commits")


def compare(end: End, expected: End, *, may_repeat: bool, where: str) -> None:
    assert end.answers == expected.answers, where
    assert end.unfinished == [], where
    assert end.payments == expected.payments, where
    assert end.state == expected.state, where
    if not may_repeat:
        assert end.attempts == expected.attempts, where
        return
    assert end.attempts.keys() == expected.attempts.keys(), where
    for name, count in expected.attempts.items():
        assert count <= end.attempts[name] <= 2 * count, f"{name}, {where}"
