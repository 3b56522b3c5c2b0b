"""The deletion of an object is a message in its mailbox, sent by hand or by the object's `ttl`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest

from durably import (
    CancelledInvocationError,
    DefinitionError,
    DurableDict,
    DurableList,
    InvalidKeyError,
    InvocationStatusError,
    Lazy,
    ObjectContext,
    OverloadedError,
    PausedInvocationError,
    RetryPolicy,
    SharedContext,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    shared,
    state,
)
from durably.ids import Address
from durably.storage.introspection import InspectableStore
from durably.storage.memory import Disk, MemoryStore
from durably.storage.records import Batch
from durably.testing import Harness
from durably.testing.stores.wrapped import Barrier, WrappedStore
from tests.semantics.support import SECOND_US, begin, tuned, turns

TTL = 1_000


class Cart(VirtualObject, ttl=TTL):
    lines: list[str] = state(default=[])

    @handler
    async def add(self, ctx: ObjectContext, line: str) -> int:
        self.lines.append(line)
        return len(self.lines)

    @handler
    async def add_slowly(self, ctx: ObjectContext, line: str, seconds: float) -> int:
        self.lines.append(line)
        await ctx.sleep(seconds)
        return len(self.lines)

    @handler(retry=RetryPolicy(max_attempts=1))
    async def stumble(self, ctx: ObjectContext) -> None:
        raise RuntimeError("a mistake")

    @handler
    async def empty(self, ctx: ObjectContext) -> None:
        ctx.clear_all()

    @shared
    async def look(self, ctx: SharedContext) -> list[str]:
        return self.lines


class Chest(VirtualObject, ttl=TTL):
    """Nothing of it is loaded with the object, but where its list begins and ends."""

    coins: DurableDict[str, int] = state()
    note: Lazy[str] = state()
    queue: DurableList[int] = state()

    @handler
    async def put(self, ctx: ObjectContext, name: str) -> list[str]:
        self.coins[name] = 1
        return [name async for name, _ in self.coins.items()]

    @handler
    async def fill(self, ctx: ObjectContext) -> None:
        self.coins["a"], self.coins["b"] = 1, 2
        self.note.set("n")
        self.queue.append(1)

    @handler
    async def own(self, ctx: ObjectContext) -> list[Any]:
        return await self._all()

    @shared
    async def look(self, ctx: SharedContext) -> list[Any]:
        return await self._all()

    async def _all(self) -> list[Any]:
        one = await self.coins.get("a"), await self.coins.contains("b"), await self.coins.count()
        return [*one, await self.coins.page(), await self.note.get(), await self.queue.range(0, 9)]


NOTHING_LEFT: list[Any] = [None, False, 0, [], None, []]


class Ledger(VirtualObject):
    total: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, by: int) -> int:
        self.total += by
        return self.total


class Trip(Workflow):
    @handler
    async def run(self, ctx: WorkflowContext) -> None: ...


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def app(store: MemoryStore) -> AsyncIterator[Harness]:
    async with harness(store) as app:
        yield app


def harness(store: InspectableStore, **options: Any) -> Harness:
    return tuned(Harness(Cart, Chest, Ledger, Trip, store=store, **options), expire_every_us=SECOND_US)


def is_empty(disk: Disk) -> bool:
    return not (disk.rows or disk.state or disk.entries or disk.object_expiries or disk.promises)


# ---------------------------------------------------------------------- by hand


async def test_a_deletion_waits_for_what_came_before_and_what_comes_later_finds_no_state(
    app: Harness, store: MemoryStore
) -> None:
    cart = app.object(Cart, "mary")
    before = begin(cart.add_slowly("a", 5))
    deletion = begin(app.delete(Cart, "mary"))
    after = begin(cart.add("b"))
    await app.settle()
    assert await cart.look() == ["a"]
    assert not deletion.done()
    await app.advance(5)
    await deletion
    assert (await before, await after) == (1, 1)
    assert await cart.look() == ["b"]
    await app.delete(Cart, "mary")
    await app.delete(Cart, "never seen")
    await app.settle()
    assert is_empty(store.disk)


class SlowCommits(WrappedStore):
    """A store in memory whose commits can be held up."""

    def __init__(self) -> None:
        self.memory = MemoryStore()
        super().__init__(self.memory)
        self.commits = Barrier()

    async def commit(self, batch: Batch, /) -> None:
        await self.commits.passed()
        await super().commit(batch)


async def test_what_is_not_loaded_goes_too_also_for_those_who_read_before_that_is_stored() -> None:
    store = SlowCommits()
    async with harness(store) as app:
        chest = app.object(Chest, "c")
        await chest.fill()
        assert await chest.own() == [1, True, 2, [["a", 1], ["b", 2]], "n", [1]]
        await app.settle()
        store.commits.hold()
        asked = [begin(app.delete(Chest, "c")), begin(chest.own()), begin(chest.look())]
        await turns()
        assert store.memory.disk.entries
        store.commits.release()
        assert [await one for one in asked] == [None, NOTHING_LEFT, NOTHING_LEFT]
        assert await chest.put("z") == ["z"]
        await app.delete(Chest, "c")
        assert await chest.own() == NOTHING_LEFT
        await app.advance(TTL + 1)
        await app.settle()
        assert is_empty(store.memory.disk)


@pytest.mark.parametrize("residence", [{}, {"suspend_after": 0}, {"nothing_resident": True}])
async def test_a_deletion_that_waits_is_there_after_a_crash_and_happens_once(residence: dict[str, Any]) -> None:
    store = MemoryStore()
    async with harness(store, **residence) as app:
        cart = app.object(Cart, "mary")
        await cart.add_slowly.send("a", 5)
        await app.request_deletion("Cart", "mary")
        await cart.add.send("b")
        await app.crash()
        await app.advance(6)
        assert await cart.look() == ["b"]


class Portions(SlowCommits):
    """Notes how many entries each commit has left."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[int] = []

    async def commit(self, batch: Batch, /) -> None:
        await super().commit(batch)
        self.left.append(entries_in(self.memory.disk))


def entries_in(disk: Disk) -> int:
    return sum(len(stored.keys) for fields in disk.entries.values() for stored in fields.values())


class Heap(VirtualObject, ttl=TTL):
    stones: DurableDict[int, int] = state()
    queue: DurableList[int] = state()
    height: int = state(default=0)

    @handler
    async def pile(self, ctx: ObjectContext, count: int) -> None:
        for number in range(count):
            self.stones[number] = number
            self.queue.append(number)
        self.height += count

    @handler
    async def add(self, ctx: ObjectContext) -> list[int]:
        self.stones[self.height] = 1
        self.queue.append(1)
        self.height += 1
        return [self.height, len(self.queue), await self.stones.count()]

    @shared
    async def look(self, ctx: SharedContext) -> list[Any]:
        return [self.height, await self.queue.range(0, 100), await self.stones.count(), await self.stones.get(39)]


GONE: list[Any] = [0, [], 0, None]
FEW = 5


def heaps(store: InspectableStore) -> Harness:
    return tuned(Harness(Heap, Ledger, store=store), expiry_portion=FEW, expire_every_us=SECOND_US)


async def test_a_large_object_goes_a_portion_at_a_time_and_other_commits_go_on_in_between() -> None:
    store = Portions()
    async with heaps(store) as app:
        await app.object(Heap, "h").pile(20)
        store.left.clear()
        deleting = begin(app.delete(Heap, "h"))
        later = begin(app.object(Heap, "h").add())
        added = 0
        while not deleting.done():
            added = await app.object(Ledger, "x").add(1)
        await deleting
        assert await later == [1, 1, 1]
        await app.settle()
    shrinks = [before - after for before, after in pairwise([40, *store.left])]
    assert max(shrinks) == FEW
    assert added >= 40 // FEW - 1
    assert entries_in(store.memory.disk) == 2


async def test_nothing_of_an_object_is_seen_while_it_goes() -> None:
    store = SlowCommits()
    async with heaps(store) as app:
        heap = app.object(Heap, "h")
        await heap.pile(20)
        assert await heap.look() == [20, [*range(20)], 20, None]
        deleting = begin(app.delete(Heap, "h"))
        while entries_in(store.memory.disk) == 40:
            await turns(1)
        looks = 0
        while not deleting.done():
            assert await heap.look() == GONE
            looks += 1
        assert looks
        assert await heap.look() == GONE


@pytest.mark.parametrize("by_ttl", [False, True])
async def test_a_deletion_that_a_crash_interrupts_anywhere_goes_on_and_shows_nothing_of_what_is_left(
    by_ttl: bool,
) -> None:
    left = 40
    while left:
        store = Portions()
        async with heaps(store) as app:
            heap = app.object(Heap, "h")
            await heap.pile(20)
            if by_ttl:
                await app.advance(TTL + 1)
            else:
                await app.request_deletion("Heap", "h")
            while entries_in(store.memory.disk) >= left:
                await turns(1)
            left = entries_in(store.memory.disk)
            await app.crash()
            assert await heap.look() == GONE
            assert await heap.add() == [1, 1, 1]
            await app.settle()
            assert entries_in(store.memory.disk) == 2
            await app.delete(Heap, "h")
            await app.advance(2 * 86_400)
            assert is_empty(store.memory.disk)


class Crate(VirtualObject, ttl=TTL):
    things: int = state(default=0)

    @handler
    async def put(self, ctx: ObjectContext, *, seconds: float = 0) -> None:
        self.things += 1
        if seconds:
            await ctx.sleep(seconds)


async def test_an_object_that_is_at_work_when_its_time_is_over_does_not_hold_up_the_others() -> None:
    """Nothing else happens here that would make durable what the others wait for."""
    for at_work in "abc":
        store = MemoryStore()
        async with tuned(Harness(Crate, store=store), expire_every_us=SECOND_US) as app:
            for key in "abc":
                await app.object(Crate, key).put()
            await app.crash()
            await app.advance(TTL - 10)
            await app.object(Crate, at_work).put.send(seconds=TTL / 2)
            await app.advance(30)
            assert [*store.disk.state] == [Address("Crate", at_work)]
            await app.advance(2 * TTL)
            assert not store.disk.state


class Archive(Workflow):
    stones: DurableDict[int, int] = state()
    title: str = state(default="")

    @handler(retention=TTL)
    async def run(self, ctx: WorkflowContext) -> None:
        for number in range(40):
            self.stones[number] = number
        self.title = "full"

    @shared
    async def look(self, ctx: SharedContext) -> list[Any]:
        return [self.title, await self.stones.count()]


async def test_a_workflow_with_many_entries_goes_a_portion_at_a_time_and_is_not_seen_meanwhile() -> None:
    store = Portions()
    app = tuned(Harness(Archive, store=store), expiry_portion=FEW, expire_every_us=SECOND_US, passivate_after_us=0)
    async with app:
        archive = app.workflow(Archive, "a")
        sent = await archive.run.send()
        await sent.result()
        assert await archive.look() == ["full", 40]
        store.left.clear()
        purging = begin(app.purge(sent.id))
        while not purging.done():
            assert await archive.look() in (["full", 40], ["", 0])
        await purging
        assert await archive.look() == ["", 0]
        assert max(before - after for before, after in pairwise([40, *store.left])) == FEW
        await app.settle()
        assert is_empty(store.memory.disk)
        await archive.run()
        left = 41
        while entries_in(store.memory.disk):
            left = entries_in(store.memory.disk)
            await app.advance(TTL // 2)
            await app.crash()
        assert left == 40
        assert is_empty(store.memory.disk)


@pytest.mark.parametrize("by_hand", [True, False])
async def test_nothing_is_seen_of_a_workflow_that_a_crash_interrupts_while_it_goes_and_its_id_is_free_when_it_has_gone(
    by_hand: bool,
) -> None:
    """Rule W3. The clock stands still at the crash: the moment of the retention may never come again."""
    left = 40
    while left:
        store = Portions()
        minute_us = 60 * SECOND_US
        app = tuned(Harness(Archive, store=store), expiry_portion=FEW, expire_every_us=minute_us, passivate_after_us=0)
        async with app:
            archive = app.workflow(Archive, "a")
            first = await archive.run.send()
            await first.result()
            going = begin(app.purge(first.id) if by_hand else app.advance(TTL + 120))
            while entries_in(store.memory.disk) >= left:
                await turns(1)
            left = entries_in(store.memory.disk)
            going.cancel()
            await app.crash()
            assert await app.state(Archive, "a") == {}
            assert await app.entries(Archive, "a", "stones") == []
            assert await archive.look() == ["", 0]
            await archive.run()
            assert await archive.look() == ["full", 40]
            await app.settle()
            assert entries_in(store.memory.disk) == 40
            assert await archive.look() == ["full", 40]
            await app.advance(TTL + 120)
            assert is_empty(store.memory.disk)


async def test_a_deletion_that_is_under_way_cannot_be_ended_or_paused() -> None:
    store = SlowCommits()
    async with heaps(store) as app:
        await app.object(Heap, "h").pile(20)
        accepted = await app.request_deletion("Heap", "h")
        while entries_in(store.memory.disk) == 40:
            await turns(1)
        for verb in (app.cancel, app.kill, app.pause):
            with pytest.raises(InvocationStatusError, match="goes on to its end"):
                await verb(accepted.id)
        await app.settle()
        assert await app.invocation(accepted.id).status() == "completed"
        assert not store.memory.disk.entries


async def test_a_deletion_behind_a_paused_handler_is_told_so_and_can_be_cancelled(
    app: Harness, store: MemoryStore
) -> None:
    cart = app.object(Cart, "mary")
    await cart.add("a")
    with pytest.raises(PausedInvocationError):
        await cart.stumble()
    with pytest.raises(PausedInvocationError):
        await app.delete(Cart, "mary")
    accepted = await app.request_deletion("Cart", "mary")
    await app.cancel(accepted.id)
    (deletion,) = [one async for one in app.invocations(target="Cart/mary") if one.id == accepted.id]
    with pytest.raises(CancelledInvocationError):
        await deletion.result()
    await app.kill("Cart/mary")
    assert await cart.look() == ["a"]


async def test_a_deletion_that_has_ended_cannot_begin_anew_and_says_what_it_is(app: Harness) -> None:
    await app.object(Cart, "mary").add("a")
    accepted = await app.request_deletion("Cart", "mary")
    await app.settle()
    for from_step in (0, 1):
        with pytest.raises(InvocationStatusError, match="is the deletion of Cart/mary, which has no code") as told:
            await app.restart_as_new(accepted.id, from_step=from_step)
        assert told.value.code == 422


@pytest.mark.parametrize("in_memory", [2, 100])
async def test_an_object_with_a_full_mailbox_can_be_deleted_and_deletions_do_not_make_it_longer(in_memory: int) -> None:
    """They join the one that waits at its end. What begins once more is refused, as a call is."""
    store, retry = MemoryStore(), RetryPolicy(max_attempts=1)
    app = tuned(Harness(Cart, store=store, retry=retry), mailbox_messages=3, pending_in_memory=in_memory)
    async with app:
        cart = app.object(Cart, "a")
        again = await cart.empty.send()
        await again.result()
        with pytest.raises(PausedInvocationError) as paused:
            await cart.stumble()
        for line in "abc":
            await cart.add.send(line)
        waiting = len(store.disk.unfinished[Address("Cart", "a")])
        for _ in range(3):
            with pytest.raises(OverloadedError, match=r"[34] messages waiting; its limit is 3\."):
                await app.restart_as_new(again.id)
            with pytest.raises(OverloadedError):
                await cart.add("d")
            with pytest.raises(PausedInvocationError, match="a mistake"):
                await app.delete(Cart, "a")
        sent = [await app.request_deletion("Cart", "a") for _ in range(3)]
        assert [one.previously_accepted for one in sent] == [False, True, True]
        assert len({one.id for one in sent}) == 1
        deleting = begin(app.delete(Cart, "a"))
        await turns()
        assert len(store.disk.unfinished[Address("Cart", "a")]) == waiting + 2  # One that is awaited, one that is sent.
        await app.cancel(sent[0].id)  # It is the last no longer.
        with pytest.raises(PausedInvocationError):
            await deleting
        later = await app.request_deletion("Cart", "a")
        assert (later.id != sent[0].id, later.previously_accepted) == (True, False)
        await app.kill(paused.value.id)
        await app.settle()
        assert not store.disk.state.get(Address("Cart", "a"))
        assert not store.disk.unfinished
        assert await app.invocation(later.id).status() == "completed"


async def test_an_object_whose_state_cannot_be_read_can_be_deleted(store: MemoryStore) -> None:
    store = MemoryStore(load_limit_bytes=100)
    async with harness(store) as app:
        cart = app.object(Cart, "mary")
        await cart.add("x" * 200)
        await app.crash()
        with pytest.raises(PausedInvocationError):
            await cart.add("y")
        await app.kill("Cart/mary")
        await app.delete(Cart, "mary")
        assert await cart.add("y") == 1


async def test_only_objects_of_this_runtime_are_deleted(app: Harness) -> None:
    with pytest.raises(DefinitionError, match="purge"):
        await app.delete(Trip, "t")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for key in ("", "a\0b"):
        with pytest.raises(InvalidKeyError):
            await app.delete(Cart, key)


# ---------------------------------------------------------------------- ttl


async def test_the_state_goes_when_no_exclusive_handler_has_ended_for_the_ttl(app: Harness, store: MemoryStore) -> None:
    cart = app.object(Cart, "mary")
    await cart.add("a")
    await app.advance(TTL - 10)
    await cart.add("b")  # Counts anew.
    await app.advance(TTL - 10)
    assert await cart.look() == ["a", "b"]  # A shared handler does not.
    await app.advance(9)
    assert await cart.look() == ["a", "b"]
    await app.crash()
    await app.advance(3)
    assert await cart.look() == []
    await app.settle()
    assert is_empty(store.disk)


async def test_an_object_of_which_nothing_is_loaded_goes_when_its_ttl_is_over_and_once(
    app: Harness, store: MemoryStore
) -> None:
    chest = app.object(Chest, "c")
    await chest.put("a")
    await app.advance(TTL - 10)
    assert await chest.put("b") == ["a", "b"]
    await app.advance(TTL - 1)
    assert store.disk.entries
    await app.crash()
    await app.advance(3)
    await app.settle()
    assert is_empty(store.disk), "nor does the object expire once more"


async def test_an_object_at_work_is_not_deleted_and_counts_from_its_end(app: Harness, store: MemoryStore) -> None:
    cart = app.object(Cart, "mary")
    await cart.add("a")
    working = begin(cart.add_slowly("b", 5 * TTL))
    await app.advance(5 * TTL - 1)
    assert await cart.look() == ["a", "b"]
    await app.advance(2)
    assert await working == 2
    await app.advance(TTL - 10)
    assert await cart.look() == ["a", "b"]
    await app.advance(12)
    assert await cart.look() == []


async def test_what_is_cancelled_before_it_began_does_not_count(app: Harness) -> None:
    cart = app.object(Cart, "mary")
    await cart.add("a")
    scheduled = await cart.add.after(TTL * 2).send("b")
    await app.advance(TTL - 10)
    await scheduled.cancel()
    await app.advance(12)
    assert await cart.look() == []


async def test_an_object_without_state_and_one_without_a_ttl_are_not_looked_at(
    app: Harness, store: MemoryStore
) -> None:
    await app.object(Cart, "mary").add("a")
    await app.object(Cart, "mary").empty()
    await app.object(Ledger, "x").add(1)
    await app.settle()
    assert store.disk.object_expiries == {}
    await app.advance(3 * TTL)
    assert store.disk.state.keys() == {Address("Ledger", "x")}


async def test_a_ttl_that_the_class_has_no_longer_deletes_nothing(store: MemoryStore) -> None:
    class Lasting(VirtualObject, name="Cart"):
        lines: list[str] = state(default=[])

        @shared
        async def look(self, ctx: SharedContext) -> list[str]:
            return self.lines

    async with harness(store) as app:
        await app.object(Cart, "mary").add("a")
    async with tuned(Harness(Ledger, store=store), expire_every_us=SECOND_US) as app:  # Its class is not here.
        await app.advance(3 * TTL)
        assert store.disk.object_expiries.keys() == {Address("Cart", "mary")}
    async with tuned(Harness(Lasting, store=store), expire_every_us=SECOND_US) as app:
        await app.advance(3 * TTL)
        assert await app.object(Lasting, "mary").look() == ["a"]
        assert store.disk.object_expiries == {}


def test_only_an_object_has_a_ttl() -> None:
    with pytest.raises(DefinitionError, match="retention="):

        class Journey(Workflow, ttl=5):  # pyright: ignore[reportUnusedClass]
            @handler
            async def run(self, ctx: WorkflowContext) -> None: ...

    with pytest.raises(DefinitionError, match="is 0"):

        class Fleeting(VirtualObject, ttl=0):  # pyright: ignore[reportUnusedClass]
            pass


class SlowAnswers(WrappedStore):
    """Holds back what the cleaner is told of objects."""

    def __init__(self) -> None:
        self.memory = MemoryStore()
        super().__init__(self.memory)
        self.answers = Barrier()

    async def expired_objects(self, now: int, limit: int, /) -> list[tuple[int, Address]]:
        answer = await super().expired_objects(now, limit)
        await self.answers.passed()
        return answer


async def test_an_answer_of_the_store_that_became_old_on_its_way_deletes_nothing() -> None:
    store = SlowAnswers()
    async with tuned(Harness(Cart, store=store), expire_every_us=SECOND_US) as app:
        cart = app.object(Cart, "mary")
        await cart.add("a")
        await app.settle()
        store.answers.hold()
        await app.clock.advance((TTL + 5) * SECOND_US, turns)
        assert store.answers.waiting
        await cart.add("b")
        store.answers.release()
        await app.settle()
        assert await cart.look() == ["a", "b"]
        await app.advance(TTL + 5)
        assert await cart.look() == []
