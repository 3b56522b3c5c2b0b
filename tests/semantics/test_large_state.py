"""Rule V7: what is not loaded with its object costs what is asked for, and is what plain collections are."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Any, cast

import msgspec
import pytest

from durably import (
    DefinitionError,
    DurableDict,
    DurableList,
    InvocationStatus,
    Lazy,
    Limits,
    MemoryStore,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    SharedContext,
    SqliteStore,
    TerminalError,
    UndecodableError,
    UnencodableError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    select,
    shared,
    state,
)
from durably.actors.definition.binding import bind
from durably.actors.protocol.commands import ReadEntries
from durably.actors.protocol.entries import FieldChanges, name_of_all
from durably.codecs import AesGcmCodec
from durably.ids import Address, EntryKey
from durably.runtime.execution.step import decode_step
from durably.storage.encoded import EncodedStore
from durably.storage.introspection import InspectableStore
from durably.storage.records import Batch, EntryAnswer, EntryQuery
from durably.testing import Harness
from durably.testing.replaying.export import export_journals
from durably.testing.replaying.replay import replay_journals
from durably.testing.stores.wrapped import WrappedStore
from tests.semantics.support import begin, turns
from workloads.shelves import PlainShelf, Shelf, make_moves


class CountingStore(WrappedStore):
    """Counts the entries that are read and written, and keeps the batches."""

    def __init__(self, inner: InspectableStore | None = None) -> None:
        super().__init__(MemoryStore() if inner is None else inner)
        self.read = 0
        self.written = 0
        self.questions = 0
        self.batches: list[Batch] = []
        self.held: asyncio.Event | None = None
        """Answers are given when this is set."""

    async def commit(self, batch: Batch, /) -> None:
        self.written += len(batch.entries)
        self.batches.append(batch)
        await super().commit(batch)

    async def entries(self, queries: Sequence[EntryQuery], /) -> list[EntryAnswer]:
        answers = await super().entries(queries)
        self.questions += len(queries)
        self.read += sum(len(answer.entries) for answer in answers)
        if self.held is not None:
            await self.held.wait()
        return answers


class Queue(VirtualObject):
    """A queue, and things beside it."""

    jobs: DurableList[int] = state()
    prices: DurableDict[str, int] = state()
    numbers: DurableDict[int, str] = state(name="nums")
    profile: Lazy[dict[str, int]] = state()
    total: int = state(default=0)

    @handler
    async def put(self, ctx: ObjectContext, job: int) -> int:
        self.jobs.append(job)
        return len(self.jobs)

    @handler
    async def put_many(self, ctx: ObjectContext, count: int) -> None:
        for job in range(count):
            self.jobs.append(job)
            self.prices[f"{job:06}"] = job

    @handler
    async def take(self, ctx: ObjectContext) -> int | None:
        return await self.jobs.popleft(None)

    @handler
    async def take_many(self, ctx: ObjectContext, count: int, sleeps: bool) -> list[int]:
        taken = [await self.jobs.popleft() for _ in range(count)]
        if sleeps:
            await ctx.sleep(100)
        return taken

    @handler(retry=RetryPolicy(max_attempts=1))
    async def fail_after(self, ctx: ObjectContext, waits: bool) -> None:
        self.jobs.append(99)
        self.prices["x"] = 1
        if waits:
            await ctx.sleep(1)
        raise TerminalError("no")

    @handler(atomic=True)
    async def fail_whole(self, ctx: ObjectContext) -> None:
        self.jobs.append(await self.jobs.pop())
        self.prices["x"] = 1
        self.prices.clear()
        await ctx.sleep(1)
        raise TerminalError("no")

    @handler
    async def change_and_sleep(self, ctx: ObjectContext, seconds: float) -> int:
        self.jobs.append(7)
        self.prices["7"] = 7
        self.profile.set({"a": 1})
        await ctx.sleep(seconds)
        return await self.jobs.popleft()

    @handler
    async def give_up(self, ctx: ObjectContext, both: bool) -> tuple[int | None, list[int]]:
        first = cast("asyncio.Future[int]", self.jobs.popleft())
        second = self.jobs.popleft() if both else None
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        return None if second is None else await second, await self.jobs.range()

    @handler
    async def clear_by_name(self, ctx: ObjectContext) -> list[str]:
        self.total = 3
        names = [*ctx.keys()]
        ctx.clear_all()
        await ctx.sleep(1)
        return names

    @handler
    async def use_by_name(self, ctx: ObjectContext, what: str) -> None:
        if what == "get":
            ctx.get("jobs", list[int])
        elif what == "set":
            ctx.set("nums", 1)
        elif what == "assign":
            self.jobs = [1]  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
        elif what == "len":
            len(self.prices)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        elif what == "index":
            self.jobs[0]  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
        elif what == "far":
            await self.jobs.range(0, 2_000)
        elif what == "key":
            self.numbers[1 << 63] = "x"
        else:
            await self.jobs.pop()

    @shared
    async def write_shared(self, ctx: SharedContext) -> None:
        self.jobs.append(1)

    @shared
    async def look(self, ctx: SharedContext) -> tuple[int, list[int], int, dict[str, int] | None]:
        return len(self.jobs), await self.jobs.range(0, 500), await self.prices.count(), await self.profile.get()

    @shared
    async def list_jobs(self, ctx: SharedContext) -> list[int]:
        return await self.jobs.range(0, 500)


# ---------------------------------------------------------------------- costs


async def rows(jobs: int) -> tuple[int, int]:
    store = CountingStore()
    async with Harness(Queue, store=store) as app:
        queue = app.object(Queue, "q")
        for job in range(jobs):
            await queue.put(job)
        taken = [await queue.take() for _ in range(jobs)]
        assert taken == [*range(jobs)]
        assert await queue.take() is None
    return store.read, store.written


async def test_appends_and_pops_read_and_write_a_row_each() -> None:
    """So 100,000 of them are linear: `python -m benchmarks.large_state` does that."""
    for jobs in (50, 150):
        read, written = await rows(jobs)
        # The harness replays each invocation that ends, and reads nothing again for it.
        assert (read, written) == (jobs, 2 * jobs)


async def test_what_is_asked_for_is_all_that_is_read() -> None:
    class Reader(VirtualObject):
        prices: DurableDict[str, int] = state()
        jobs: DurableList[int] = state()
        profile: Lazy[str] = state()

        @handler
        async def fill(self, ctx: ObjectContext) -> None:
            for number in range(300):
                self.prices[f"{number:03}"] = number
                self.jobs.append(number)
            self.profile.set("x" * 1_000)

        @handler
        async def read(self, ctx: ObjectContext, what: str) -> Any:
            match what:
                case "nothing":
                    return len(self.jobs)
                case "get":
                    return await self.prices.get("007")
                case "contains":
                    return await self.prices.contains("007")
                case "count":
                    return await self.prices.count()
                case "page":
                    return await self.prices.page("100", limit=3)
                case "middle":
                    return await self.jobs.range(100, 104)
                case "lazy":
                    return len(await self.profile)
                case _:
                    self.prices["008"] = 1
                    return await self.prices.get("008")

    store = CountingStore()
    async with Harness(Reader, store=store) as app:
        reader = app.object(Reader, "r")
        await reader.fill()
        read = {}
        for what in ("nothing", "get", "contains", "count", "page", "middle", "lazy", "own"):
            before = store.read
            await reader.read(what)
            read[what] = store.read - before
            (loaded,) = await store.load([Address("Reader", "r")], pending_limit=1)
            assert loaded.state == {"jobs": b"[0,300]"}
    assert read == {
        "nothing": 0, "get": 1, "contains": 1, "count": 0, "page": 3, "middle": 4, "lazy": 1, "own": 0,
    }  # fmt: skip


class Forgetful(WrappedStore):
    """Keeps no values of entries, so that memory is what the runtime holds."""

    async def commit(self, batch: Batch, /) -> None:
        batch.entries = [msgspec.structs.replace(one, value=b'""') for one in batch.entries]
        await super().commit(batch)


class Parcel(VirtualObject):
    content: DurableDict[str, str] = state()
    lines: DurableList[str] = state()
    note: Lazy[str] = state()

    @handler
    async def fill(self, ctx: ObjectContext, byte: str) -> None:
        text = byte * 100_000
        match int(ctx.key) % 3:
            case 0:
                self.content["all"] = text
            case 1:
                self.lines.append(text)
            case _:
                self.note.set(text)


async def test_idle_objects_hold_none_of_what_they_have_written() -> None:
    async with Harness(Parcel, store=Forgetful(MemoryStore())) as app:
        gc.collect()
        before = bytes_of_changes()
        await asyncio.gather(*[app.object(Parcel, str(key)).fill("x") for key in range(300)])
        await app.settle()
        assert bytes_of_changes() == before


def bytes_of_changes() -> int:
    """Of all changed entries in memory."""
    return sum(
        len(value)
        for one in gc.get_objects()
        if isinstance(one, FieldChanges)
        for value in one.entries.values()
        if value is not None
    )


# ---------------------------------------------------------------------- the model


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("seed", range(6))
async def test_collections_are_what_plain_ones_are(kind: str, seed: int, tmp_path: Path) -> None:
    random, plain = Random(seed), PlainShelf()
    store: InspectableStore = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "app.db")
    async with Harness(Shelf, store=store, suspend_after=0) as app:
        shelf = app.object(Shelf, "a")
        for _ in range(8):
            moves, heard = make_moves(random), None
            asked = begin(shelf.make(moves, []))
            await app.advance(100)
            with suppress(TerminalError):
                heard = await asked
            assert heard == plain.make(moves)
            assert dict(await app.entries(Shelf, "a", "prices")) == dict(sorted(plain.prices.items()))
            assert [book for _, book in await app.entries(Shelf, "a", "books")] == plain.books


# ---------------------------------------------------------------------- executions


async def test_a_replay_reads_again_and_an_exclusive_read_is_no_record() -> None:
    store = CountingStore()
    async with Harness(Queue, store=store, suspend_after=0) as app:
        queue = app.object(Queue, "q")
        await queue.put_many(10)
        taking = begin(queue.take_many.options(idempotency_key="k")(5, True))
        await app.advance(1)
        assert not [one for batch in store.batches for one in batch.completions]
        before = store.read
        await app.crash()
        await app.settle()
        with suppress(Exception):
            await taking
        again = begin(queue.take_many.options(idempotency_key="k")(5, True))
        await app.advance(200)
        assert await again == [0, 1, 2, 3, 4]
        assert store.read - before == 5
        assert (await queue.look())[1] == [5, 6, 7, 8, 9]


async def test_an_exported_journal_has_what_its_steps_have_read(tmp_path: Path) -> None:
    store = CountingStore()
    async with Harness(Queue, store=store, suspend_after=0) as app:
        queue = app.object(Queue, "q")
        await queue.put_many(5)
        await queue.take_many.send(3, True)
        await app.advance(1)
        await export_journals(store, tmp_path)
        await app.advance(200)
    assert replay_journals(tmp_path, Queue).journals == 1


class Notes(VirtualObject):
    names: DurableDict[str, int] = state()
    lines: DurableList[str] = state()
    profile: Lazy[dict[str, int]] = state()

    @handler
    async def change(self, ctx: ObjectContext) -> None:
        self.names["x"] = 7
        self.lines.append("a")
        self.profile.set({"a": 1})
        await ctx.sleep(1)
        del self.names["x"]
        await self.lines.popleft()
        await ctx.sleep(1)

    @handler
    async def name(self, ctx: ObjectContext, name: str, forget: bool) -> None:
        self.names[name] = 1
        if forget:
            del self.names[name]

    @shared
    async def look(self, ctx: SharedContext) -> None:
        await self.names.get("x")
        await self.names.contains("x")
        await self.names.count()
        await self.lines.range(0, 9)
        await self.profile.get()
        await ctx.sleep(10)


async def test_a_journal_for_people_tells_entries_as_the_class_has_them() -> None:
    async with Harness(Notes) as app:
        changing = await app.object(Notes, "n").change.send()
        await app.settle()
        looking = await app.object(Notes, "n").look.send()
        await app.advance(1)
        first, second = (await app.journal(changing.id)).steps
        assert first.changes == {"names[x]": 7, "lines[0]": "a", "profile": {"a": 1}}
        assert second.cleared == ("names[x]", "lines[0]")
        assert [command.kind for command in second.commands] == ["sleep"], "the entry that it took was its own"
        seen = (await app.journal(looking.id)).steps
        assert [answer.value for step in seen for answer in step.answers] == [[7], ["names[x]"], 1, ["a"], [{"a": 1}]]


async def test_objects_that_have_nothing_but_entries_are_listed(tmp_path: Path) -> None:
    for store in (MemoryStore(), SqliteStore(tmp_path / "app.db")):
        async with Harness(Notes, store=store, limits=Limits(active_objects=0)) as app:
            for key, forget in (("b", False), ("a", False), ("c", False), ("d", True)):
                for name in "xyz":
                    await app.object(Notes, key).name(name, forget)
            await app.settle()
            assert [(one.key, one.state_bytes) async for one in app.objects(Notes)] == [("a", 0), ("b", 0), ("c", 0)]


async def test_entries_do_not_count_as_state_that_is_loaded() -> None:
    async with Harness(Queue, limits=Limits(state_bytes=1_000)) as app:
        queue = app.object(Queue, "q")
        await queue.put_many(500)
        assert (await queue.look())[2] == 500


async def test_a_shared_read_is_a_record_and_sees_what_is_in_flight() -> None:
    store = CountingStore()
    async with Harness(Queue, store=store, suspend_after=0) as app:
        queue = app.object(Queue, "q")
        await queue.put(1)
        sleeping = begin(queue.change_and_sleep(50))
        await app.advance(1)
        assert await queue.look() == (2, [1, 7], 1, {"a": 1})
        assert (await store.entries([EntryQuery(Address("Queue", "q"), "jobs", limit=9)]))[0].entries == [
            (EntryKey(0, ""), b"1")
        ]
        await app.advance(60)
        assert await sleeping == 1
        assert await queue.look() == (1, [7], 1, {"a": 1})


async def test_a_shared_read_is_of_one_moment_while_the_list_moves() -> None:
    store = CountingStore()
    async with Harness(Queue, store=store) as app:
        queue = app.object(Queue, "q")
        for job in range(4):
            await queue.put(job)
        store.held = asyncio.Event()
        looking = begin(queue.list_jobs())
        await turns(50)
        held, store.held = store.held, None
        for job in range(4, 8):  # What the store has answered is old by now.
            await queue.put(job)
            await queue.take()
        held.set()
        assert await looking == [4, 5, 6, 7]


@pytest.mark.parametrize("how", ["kill", "cancel", "fail"])
async def test_what_was_recorded_stays_and_an_atomic_handler_leaves_nothing(how: str) -> None:
    async with Harness(Queue, suspend_after=0) as app:
        queue = app.object(Queue, "q")
        await queue.put(1)
        if how == "fail":
            with pytest.raises(TerminalError):
                await queue.fail_after(False)
            assert (await queue.look())[:3] == (2, [1, 99], 1)
            failing = begin(queue.fail_whole())
            await app.advance(5)
            with pytest.raises(TerminalError):
                await failing
            assert (await queue.look())[:3] == (2, [1, 99], 1)
            return
        sent = await queue.change_and_sleep.send(1_000)
        await app.advance(1)
        await (app.kill(sent.id) if how == "kill" else app.cancel(sent.id))
        await app.settle()
        assert await queue.look() == (2, [1, 7], 1, {"a": 1})


@pytest.mark.parametrize("from_step", [0, 1, 2])
async def test_a_restart_drops_what_later_steps_have_changed(from_step: int) -> None:
    class Stumbling(VirtualObject):
        jobs: DurableList[int] = state()
        is_broken = True

        @handler(retry=RetryPolicy(max_attempts=1))
        async def go(self, ctx: ObjectContext) -> list[int]:
            self.jobs.append(len(self.jobs))
            first = await self.jobs.popleft(None)
            self.jobs.append(5)
            await ctx.sleep(1)
            if Stumbling.is_broken:
                raise RuntimeError("not yet")
            return [first or 0, *await self.jobs.range()]

        @handler
        async def put(self, ctx: ObjectContext) -> None:
            self.jobs.append(3)

    async with Harness(Stumbling, suspend_after=0) as app:
        stumbling = app.object(Stumbling, "s")
        await stumbling.put()
        going = await stumbling.go.options(idempotency_key="once").send()
        hearing = begin(going.result())
        await app.advance(5)
        with pytest.raises(PausedInvocationError):
            await hearing
        Stumbling.is_broken = False
        assert await app.restart(going.id, from_step=from_step) == [going.id]
        await app.advance(5)
        assert await going.result() == [3, 1, 5]


async def test_a_cancelled_pop_takes_nothing_and_the_next_one_gets_its_entry() -> None:
    async with Harness(Queue) as app:
        queue = app.object(Queue, "q")
        for job in range(3):
            await queue.put(job)
        assert await queue.give_up(False) == (None, [0, 1, 2])
        assert await queue.give_up(True) == (0, [1, 2])


async def test_what_a_pop_has_not_got_when_it_is_cancelled_or_the_handler_ends_stays() -> None:
    class Desk(VirtualObject):
        jobs: DurableList[int] = state()
        prices: DurableDict[str, int] = state()

        @handler
        async def fill(self, ctx: ObjectContext) -> None:
            for job in range(3):
                self.jobs.append(job)
                self.prices[str(job)] = job

        @handler
        async def cancel(self, ctx: ObjectContext) -> int | None:
            self.prices["3"] = 3
            popping = [cast("asyncio.Future[int]", self.prices.pop(key)) for key in "0123"]
            self.prices["1"] = 10
            self.prices["2"] = 20
            del self.prices["2"]
            both = asyncio.gather(*popping)
            both.cancel()
            with suppress(asyncio.CancelledError):
                await both
            return await self.prices.pop("0")

        @handler
        async def leave(self, ctx: ObjectContext, how: str) -> None:
            if how == "select":
                await select(job=self.jobs.popleft(), price=self.prices.pop("1"), now=asyncio.sleep(0))
            elif how == "shield":
                asyncio.shield(self.jobs.pop()).cancel()
            else:
                await asyncio.gather(self.jobs.popleft(), self.jobs.popleft(), fail())

    async def fail() -> None:
        raise TerminalError("no")

    async with Harness(Desk) as app:
        desk = app.object(Desk, "d")
        await desk.fill()
        assert await desk.cancel() == 0
        for how in ("select", "gather", "shield"):
            with suppress(TerminalError):
                await desk.leave(how)
            assert await app.entries(Desk, "d", "jobs") == [(0, 0), (1, 1), (2, 2)]
        assert await app.entries(Desk, "d", "prices") == [("1", 10), ("3", 3)]


async def test_all_state_goes_in_one_record_for_each_field() -> None:
    store = CountingStore()
    async with Harness(Queue, store=store, suspend_after=0) as app:
        queue = app.object(Queue, "q")
        await queue.put_many(20)
        store.batches.clear()
        clearing = begin(queue.clear_by_name())
        await app.advance(5)
        assert await clearing == ["total"]
        steps = [decode_step(one.content) for batch in store.batches for one in batch.steps]
        changes = steps[0].changes or {}
        assert {name for name in changes if name.endswith("\0")} == {
            name_of_all(field) for field in ("jobs", "prices", "nums", "profile")
        }
        assert len(changes) == 6
        assert await queue.look() == (0, [], 0, None)
        disk = cast("MemoryStore", store.inner).disk
        assert (disk.entries, disk.state) == ({}, {})


async def test_what_a_workflow_leaves_goes_with_its_entries() -> None:
    class Progress(Workflow, retention=10):
        lines: DurableList[str] = state()
        seen: DurableDict[str, int] = state()

        @handler
        async def run(self, ctx: WorkflowContext) -> int:
            self.lines.append("begun")
            await ctx.sleep(5)
            self.seen["x"] = 1
            return len(self.lines)

        @shared
        async def progress(self, ctx: SharedContext) -> list[str]:
            return await self.lines.range()

    store = CountingStore()
    async with Harness(Progress, store=store) as app:
        flow = app.workflow(Progress, "1")
        await flow.run.send()
        assert await flow.progress() == ["begun"]
        await app.advance(6)
        disk = cast("MemoryStore", store.inner).disk
        assert disk.entries
        await app.advance(hours=2)
        assert (disk.entries, disk.state) == ({}, {})


# ---------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("get", "HandlerMistakeError", "used by name"),
        ("set", "HandlerMistakeError", "used by name"),
        ("assign", "HandlerMistakeError", "is a DurableList, which is changed by its methods"),
        ("len", "TypeError", "await self.prices.count()"),
        ("index", "TypeError", "await self.jobs.get(0)"),
        ("far", "ValueError", "at most 1000"),
        ("key", "UnencodableError", "self.numbers cannot have this key"),
        ("pop", "IndexError", "the list is empty"),
    ],
)
async def test_a_mistake_is_told_in_a_sentence(what: str, error: str, words: str) -> None:
    async with Harness(Queue, retry=RetryPolicy(max_attempts=1)) as app:
        queue = app.object(Queue, "q")
        if what == "far":
            await queue.put_many(1_500)
        with pytest.raises(PausedInvocationError) as paused:
            await queue.use_by_name(what)
        assert error in str(paused.value)
        assert words in str(paused.value)


async def test_a_shared_handler_writes_nothing() -> None:
    async with Harness(Queue, retry=RetryPolicy(max_attempts=1)) as app:
        with pytest.raises(TerminalError, match=r"SharedStateError: self\.jobs was changed in a shared handler"):
            await app.object(Queue, "q").write_shared()


class Nested(VirtualObject):
    field: list[DurableList[int]] = state()


class WithDefault(VirtualObject):
    field: DurableDict[str, int] = state(default={})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class WithKey(VirtualObject):
    field: DurableDict[float, int] = state()


class WithFlags(VirtualObject):
    field: DurableDict[bool, int] = state()


class WithValue(VirtualObject):
    field: DurableList[complex] = state()


class LazyMaybe(VirtualObject):
    field: Lazy[int] | None = state()


@pytest.mark.parametrize(
    ("actor", "words"),
    [
        (Nested, "a DurableList can only be a field by itself"),
        (WithDefault, "begins empty"),
        (WithKey, "float cannot be the key of a DurableDict"),
        (WithFlags, "bool cannot be the key of a DurableDict"),
        (WithValue, "WithValue.field does not work"),
        (LazyMaybe, "a Lazy can only be a field by itself"),
    ],
)
def test_an_annotation_that_cannot_work_is_refused(actor: type[VirtualObject], words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        bind(actor, {})


def test_a_service_has_no_collections() -> None:
    with pytest.raises(DefinitionError, match="a Service has none"):
        type("Desk", (Service,), {"__annotations__": {"jobs": DurableList[int]}, "jobs": state()})


# ---------------------------------------------------------------------- what is stored


async def test_a_codec_wraps_values_and_leaves_keys_readable(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    codec = AesGcmCodec(bytes(range(32)))
    async with Harness(Queue, store=EncodedStore(SqliteStore(path), codec)) as app:
        queue = app.object(Queue, "q")
        await queue.put_many(3)
        assert (await queue.look())[:3] == (3, [0, 1, 2], 3)
        assert await app.entries(Queue, "q", "prices", after="000000") == [("000001", 1), ("000002", 2)]
        assert await app.entries(Queue, "q", "jobs", after=1) == [(2, 2)]
        plain = SqliteStore(path)
        await plain.open_read_only()
        (answer,) = await plain.entries([EntryQuery(Address("Queue", "q"), "prices", limit=9)])
        await plain.close()
        assert [key.name for key, _ in answer.entries] == ["=000000", "=000001", "=000002"]
        assert all(value.startswith(b"\0") for _, value in answer.entries)


async def test_an_entry_that_cannot_be_read_pauses_who_asks_for_it() -> None:
    store = CountingStore()
    async with Harness(Queue, store=store) as app:
        queue = app.object(Queue, "q")
        await queue.put(1)
        stored = cast("MemoryStore", store.inner).disk.entries[Address("Queue", "q")]["jobs"]
        stored.values[EntryKey(0, "")] = b"{"
        with pytest.raises(PausedInvocationError, match="does not fit its type"):
            await queue.take()
        stored.values[EntryKey(0, "")] = b"1"
        (paused,) = [one async for one in app.invocations(status=InvocationStatus.PAUSED)]
        await app.resume(paused.id)
        await app.settle()
        assert await queue.take() is None


async def test_entries_are_asked_for_with_any_integers(tmp_path: Path) -> None:
    async with Harness(Queue, store=SqliteStore(tmp_path / "app.db")) as app:
        await app.object(Queue, "q").put_many(3)
        every = [(0, 0), (1, 1), (2, 2)]
        for beyond in (1 << 63, 1 << 70):
            assert await app.entries(Queue, "q", "jobs", after=beyond) == []
            assert await app.entries(Queue, "q", "jobs", after=-beyond) == every
            assert await app.entries(Queue, "q", "jobs", limit=beyond) == every
            with pytest.raises(ValueError, match="fewer than none cannot come"):
                await app.entries(Queue, "q", "jobs", limit=-beyond)
            assert await app.entries(Queue, "q", "profile", after=beyond) == []
            with pytest.raises(UnencodableError, match="more than 64 bits"):
                await app.entries(Queue, "q", "nums", after=beyond)
        with pytest.raises(UnencodableError, match="an index is an integer"):
            await app.entries(Queue, "q", "jobs", after="1")
        with pytest.raises(TypeError, match="integer"):
            await app.entries(Queue, "q", "jobs", limit=cast("int", 1.5))
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute("update state set value = '[1,2,3]'")
    async with Harness(Queue, store=SqliteStore(tmp_path / "app.db")) as app:
        with pytest.raises(UndecodableError, match="begins and ends"):
            await app.entries(Queue, "q", "jobs")


class Reader(VirtualObject):
    """Nothing but a list that shared handlers read."""

    jobs: DurableList[int] = state()

    @handler
    async def put(self, ctx: ObjectContext, count: int) -> None:
        for job in range(count):
            self.jobs.append(job)

    @shared
    async def read(self, ctx: SharedContext, index: int | None = None) -> list[int]:
        return [job async for job in self.jobs] if index is None else [await self.jobs.get(index)]


HUGE = (1 << 63) - 1
DAMAGED_LISTS = {
    "an entry is gone": ("delete from entries where key = 'a' and position = 2", None, "The entry 2 of"),
    "its bounds say too much": ("update state set value = '[0,99]' where key = 'a'", None, "The entry 5 of"),
    "its bounds say far too much": (
        f"update state set value = '[0,{1 << 61}]' where key = 'a'",
        -1,
        "within the length",
    ),
    "its bounds have 64 bits": (
        f"update state set value = '[{HUGE - 1},{HUGE}]' where key = 'a'",
        -1,
        "begins and ends",
    ),
    "its bounds have more": (f"update state set value = '[0,{1 << 70}]' where key = 'a'", -1, "begins and ends"),
    "its bounds are backward": ("update state set value = '[5,2]' where key = 'a'", -1, "begins and ends"),
}


@pytest.mark.parametrize("how", DAMAGED_LISTS)
async def test_a_list_that_has_a_gap_stops_its_shared_readers_and_no_other_object(how: str, tmp_path: Path) -> None:
    sql, index, words = DAMAGED_LISTS[how]
    path = tmp_path / "app.db"
    async with Harness(Reader, store=SqliteStore(path)) as app:
        await app.object(Reader, "a").put(5)
        await app.object(Reader, "b").put(2)
        await app.settle()
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(sql).rowcount == 1
    async with Harness(Reader, store=SqliteStore(path)) as app:
        with pytest.raises(PausedInvocationError, match=words):
            await app.object(Reader, "a").read(index)
        assert await app.object(Reader, "b").read() == [0, 1]
        await app.object(Reader, "b").put(1)
        assert await app.object(Reader, "b").read() == [0, 1, 0]


def test_the_read_of_an_entry_is_a_command_of_few_bytes() -> None:
    assert msgspec.json.encode(ReadEntries("jobs", (EntryKey(3, ""),))).startswith(b'["entries","jobs",[[3,""]]')


@pytest.mark.parametrize("how", ["clear", "delete", "clear all", "clear and fill"])
async def test_an_entry_whose_pop_is_given_up_after_a_clear_is_gone_with_the_others(how: str) -> None:
    class Emptied(VirtualObject):
        jobs: DurableList[str] = state()

        @handler
        async def put(self, ctx: ObjectContext) -> None:
            self.jobs.append("old")

        @handler
        async def empty(self, ctx: ObjectContext) -> None:
            taken = asyncio.ensure_future(self.jobs.popleft())
            await asyncio.sleep(0)
            if how == "delete":
                del self.jobs
            elif how == "clear all":
                ctx.clear_all()
            else:
                self.jobs.clear()
            if how == "clear and fill":
                self.jobs.append("a")
                self.jobs.append("b")
                assert await self.jobs.popleft() == "a"
            taken.cancel()
            with suppress(asyncio.CancelledError):
                await taken

        @shared
        async def look(self, ctx: SharedContext) -> list[str]:
            return [job async for job in self.jobs]

    async with Harness(Emptied) as app:
        await app.object(Emptied, "a").put()
        await app.object(Emptied, "a").empty()
        assert await app.object(Emptied, "a").look() == (["b"] if how == "clear and fill" else [])
