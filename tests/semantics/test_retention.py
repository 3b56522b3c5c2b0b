"""How long journals are kept after the end, what they are good for, and that nothing is left when the time is over."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from durably import (
    FOREVER,
    Context,
    InvocationStatus,
    InvocationStatusError,
    ObjectContext,
    RetryPolicy,
    Service,
    TerminalError,
    UnknownTargetError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    state,
)
from durably.actors.values.durations import FOREVER_US
from durably.storage.memory import Disk, MemoryStore
from durably.storage.records import Batch
from durably.storage.sqlite import SqliteStore
from durably.testing import Harness
from durably.testing.replaying.export import export_journals
from durably.testing.replaying.journals import read_journals
from durably.testing.replaying.replay import replay_journals
from durably.testing.stores.wrapped import WrappedStore
from tests.semantics.support import SECOND_US, tuned

MINUTE, DAY = 60, 86_400


class Outside:
    """What is done outside, and whether that works."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.is_broken = False

    async def do(self, what: str) -> str:
        self.done.append(what)
        if self.is_broken and what.startswith("second"):
            raise TerminalError("it is broken")
        return what


class Desk(Service):
    """Two actions, with ids and random numbers before, between and behind them."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside

    @handler
    async def work(self, ctx: Context, name: str) -> list[str]:
        first = str(ctx.uuid())
        told = await ctx.object(Note, ctx.request.id).write.options(idempotency_key=first).send(name)
        await ctx.run("first", self.outside.do, f"first {name}")
        seen = ctx.request.id
        await ctx.object(Note, told.id).write(name)
        await ctx.run("second", self.outside.do, f"second {name}")
        return [first, str(ctx.uuid()), seen, ctx.request.id]

    @handler(journal_retention=0)
    async def leave_nothing(self, ctx: Context) -> None:
        await ctx.run("first", self.outside.do, "first")

    @handler(journal_retention=10 * MINUTE)
    async def stay_a_while(self, ctx: Context) -> None:
        await ctx.run("first", self.outside.do, "first")

    @handler(retention=5 * MINUTE, journal_retention=FOREVER)
    async def stay_with_the_outcome(self, ctx: Context) -> None:
        await ctx.run("first", self.outside.do, "first")

    @handler(retention=FOREVER)
    async def be_known_for_ever(self, ctx: Context, number: int) -> int:
        return number

    @handler(journal_retention=MINUTE)
    async def tell(self, ctx: Context) -> None:
        await ctx.object(Note, "told").write.send("told")


class Note(VirtualObject):
    text: str = state(default="")

    @handler
    async def write(self, ctx: ObjectContext, text: str) -> None:
        self.text = text

    @handler
    async def write_later(self, ctx: ObjectContext, text: str) -> str:
        await ctx.sleep(1)
        self.text = text
        return text


class Trip(Workflow):
    """Is kept for a day."""

    @handler
    async def run(self, ctx: WorkflowContext) -> str:
        await ctx.sleep(1)
        return "there"


def harness(store: MemoryStore | None = None, outside: Outside | None = None, **options: Any) -> Harness:
    app = Harness(
        Desk,
        Note,
        Trip,
        store=MemoryStore() if store is None else store,
        dependencies={Outside: Outside() if outside is None else outside},
        **options,
    )
    return tuned(app, expire_every_us=5 * SECOND_US)


def journals(disk: Disk) -> int:
    return sum(bool(row.steps) for row in disk.rows.values())


def left(disk: Disk) -> list[object]:
    """All that is stored and is no state."""
    return [*disk.rows, *disk.aliases, *disk.promises, *disk.orders, *disk.object_expiries]


async def in_the_end(app: Harness, seconds: float = 2 * DAY) -> None:
    await app.settle()
    await app.advance(seconds)


# ---------------------------------------------------------------------- what is kept, and for how long


async def test_what_has_a_key_and_a_workflow_leave_their_journals_for_a_day_and_a_plain_call_nothing() -> None:
    store = MemoryStore()
    async with harness(store) as app:
        await app.service(Desk).work.options(idempotency_key="k")("a")
        await app.workflow(Trip, "t").run.send()
        await app.advance(2)
        await app.service(Desk).work("b")
        await app.settle()
        assert journals(store.disk) == 2
        await app.advance(DAY - 10)
        assert journals(store.disk) == 2
        await app.advance(20)
        assert left(store.disk) == []


async def test_journals_are_kept_as_long_as_the_most_specific_says_and_no_longer_than_their_outcome() -> None:
    store = MemoryStore()
    async with harness(store) as app:
        desk = app.service(Desk)
        await desk.leave_nothing.options(idempotency_key="k")()
        await app.settle()
        assert journals(store.disk) == 0
        await desk.stay_with_the_outcome.options(idempotency_key="k")()
        await desk.stay_a_while()  # A plain call whose journal is asked for: its outcome stays with it.
        await app.settle()
        assert journals(store.disk) == 2
        await app.advance(5 * MINUTE + 5)
        assert journals(store.disk) == 1
        assert await desk.stay_with_the_outcome.options(idempotency_key="k").send() is not None  # The key is free.
        await app.advance(5 * MINUTE + 5)
        await in_the_end(app)
        assert left(store.disk) == []


async def test_what_asks_for_nothing_in_its_only_step_has_no_journal_and_what_sends_has_one() -> None:
    store = MemoryStore()
    async with harness(store) as app:
        await app.object(Note, "n").write.options(idempotency_key="k")("x")
        await app.settle()
        assert journals(store.disk) == 0
        await app.service(Desk).tell()
        await app.settle()
        assert journals(store.disk) == 1
        await in_the_end(app)
        assert left(store.disk) == []
        assert store.disk.state.keys() == {("Note", "n"), ("Note", "told")}


async def test_an_outcome_that_is_kept_for_ever_outlives_all_others() -> None:
    store = MemoryStore()
    async with harness(store) as app:
        first = app.service(Desk).be_known_for_ever.options(idempotency_key="event 7")
        assert await first(1) == 1
        await in_the_end(app)
        (row,) = store.disk.rows.values()
        assert row.record.expires_at == FOREVER_US
        await app.crash()
        assert await first(2) == 1


async def test_a_journal_goes_before_its_outcome_and_after_a_crash_too() -> None:
    store = MemoryStore()
    async with tuned(harness(store), journal_retention_us=MINUTE * SECOND_US) as app:
        invocation = await app.service(Desk).work.options(idempotency_key="k").send("a")
        await app.settle()
        await app.crash()
        assert journals(store.disk) == 1
        await app.advance(MINUTE + 5)
        assert journals(store.disk) == 0
        assert (await invocation.result())[2] == invocation.id
        with pytest.raises(InvocationStatusError, match="it has 0 steps"):
            await app.restart_as_new(invocation.id, from_step=1)


async def test_a_purged_journal_is_gone_and_its_outcome_stays() -> None:
    store = MemoryStore()
    async with harness(store) as app:
        invocation = await app.service(Desk).work.options(idempotency_key="k").send("a")
        await app.settle()
        assert await app.purge_journal("Desk") == [invocation.id]
        assert await app.purge_journal(invocation.id) == []
        assert journals(store.disk) == 0
        assert (await invocation.result())[2] == invocation.id
        with pytest.raises(UnknownTargetError):
            await app.purge_journal("inv_1" + "0" * 33)


# ---------------------------------------------------------------------- restart as new, from a later step


@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize("residence", [{}, {"suspend_after": 0}, {"nothing_resident": True}])
async def test_what_has_failed_begins_as_new_behind_what_it_did(crashes: bool, residence: dict[str, Any]) -> None:
    """Ids, `uuid` and the id that the handler sees are the old ones before step k, and new ones from there on."""
    store, outside = MemoryStore(), Outside()
    outside.is_broken = True
    async with tuned(harness(store, outside, **residence), journal_retention_us=DAY * SECOND_US) as app:
        failed = await app.service(Desk).work.options(idempotency_key="k").send("a")
        with pytest.raises(TerminalError):
            await failed.result()
        if crashes:
            await app.crash()
        outside.is_broken = False
        (row,) = [row for row in store.disk.rows.values() if row.record.id == failed.id]
        again = await app.restart_as_new(failed.id, from_step=len(row.steps) - 2)
        if crashes:
            await app.crash()
        first, second, seen, own = await again.result()
        assert outside.done == ["first a", "second a", "second a"]
        assert seen == failed.id
        assert own == again.id != failed.id
        assert first != second
        # What it began as new can begin as new once more, with the ids of both.
        third = await app.restart_as_new(again.id, from_step=2)
        assert (await third.result())[0] == first
        await in_the_end(app)
        assert left(store.disk) == []


async def test_what_cannot_begin_from_a_later_step_is_refused_with_400() -> None:
    store = MemoryStore()
    async with harness(store, retry=RetryPolicy(max_attempts=1)) as app:
        note = await app.object(Note, "n").write_later.options(idempotency_key="k").send("x")
        desk = await app.service(Desk).work.options(idempotency_key="k").send("a")
        await app.advance(5)
        with pytest.raises(InvocationStatusError, match="exclusive") as refused:
            await app.restart_as_new(note.id, from_step=1)
        assert refused.value.code == 400
        for step in (-1, 99):
            with pytest.raises(InvocationStatusError) as refused:
                await app.restart_as_new(desk.id, from_step=step)
            assert refused.value.code == 400
        again = await app.restart_as_new(note.id)
        await app.advance(5)
        assert await again.result() == "x"


# ---------------------------------------------------------------------- for people to look at


async def test_what_is_kept_of_ended_invocations_can_be_exported_and_replayed_to_its_outcome(tmp_path: Path) -> None:
    """On SQLite, which is where operators look."""
    store = SqliteStore(tmp_path / "app.db")
    app = Harness(Desk, Note, Trip, store=store, dependencies={Outside: Outside()})
    async with app:
        done = await app.service(Desk).work.options(idempotency_key="k").send("a")
        await app.workflow(Trip, "t").run.send()
        await app.advance(5)
        result = await done.result()
        again = await app.restart_as_new(done.id, from_step=2)
        assert (await again.result())[:1] == result[:1]
        files = await export_journals(store, tmp_path / "journals", ended=True)
        assert [journal.status for journal in read_journals(tmp_path / "journals")] == [InvocationStatus.COMPLETED] * 2
        assert len(files) == 2
        report = replay_journals(tmp_path / "journals", Desk, Note, Trip)
        assert (report.journals, report.steps) == (1, 5)  # The other is of the run of a workflow: its state has gone.
        await app.purge_journal("Desk/work")
        assert len(await export_journals(store, tmp_path / "others", ended=True)) == 1
        await app.advance(DAY + 2 * 3_600)
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        tables = [name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")]
        counts = {name: connection.execute(f"select count(*) from {name}").fetchone()[0] for name in tables}
    assert {name for name, count in counts.items() if count} == {"owner", "state"}


# ---------------------------------------------------------------------- in portions


FEW, MANY = 5, 30


class Walker(Service):
    """Has a journal of many steps."""

    @handler
    async def walk(self, ctx: Context) -> int:
        for _ in range(MANY):
            await ctx.run("step", _nothing)
        return MANY

    @handler
    async def wait(self, ctx: Context) -> int:
        for _ in range(MANY):
            await ctx.run("step", _nothing)
        await ctx.signal("on")
        return MANY


class Journey(Workflow):
    @handler
    async def run(self, ctx: WorkflowContext) -> int:
        for _ in range(MANY):
            await ctx.run("step", _nothing)
        return MANY


async def _nothing() -> None: ...


class Shrinking(WrappedStore):
    """Notes how many steps each commit has left."""

    def __init__(self) -> None:
        self.memory = MemoryStore()
        super().__init__(self.memory)
        self.left: list[int] = []

    async def commit(self, batch: Batch, /) -> None:
        await super().commit(batch)
        self.left.append(self.steps())

    def steps(self) -> int:
        return sum(len(row.steps) for row in self.memory.disk.rows.values())


def walkers(store: Shrinking) -> Harness:
    return tuned(Harness(Walker, Journey, Note, store=store), expiry_portion_steps=FEW, expire_every_us=SECOND_US)


async def keyed(app: Harness) -> str:
    sent = await app.service(Walker).walk.options(idempotency_key="k").send()
    assert await sent.result() == MANY
    return sent.id


async def expires(app: Harness) -> None:
    await keyed(app)
    await app.advance(DAY + MINUTE)


async def is_purged(app: Harness) -> None:
    await app.purge(await keyed(app))


async def loses_its_journal(app: Harness) -> None:
    await app.purge_journal(await keyed(app))


async def was_a_plain_call(app: Harness) -> None:
    assert await app.service(Walker).walk() == MANY
    await app.advance(2 * MINUTE)


async def is_killed(app: Harness) -> None:
    sent = await app.service(Walker).wait.send()
    await app.settle()
    await app.kill(sent.id)
    await app.advance(2 * DAY)


async def is_a_workflow_that_expires(app: Harness) -> None:
    assert await app.workflow(Journey, "j").run() == MANY
    await app.advance(DAY + MINUTE)


async def is_a_workflow_that_is_purged(app: Harness) -> None:
    sent = await app.workflow(Journey, "j").run.send()
    assert await sent.result() == MANY
    await app.purge(sent.id)


WAYS = (
    expires, is_purged, loses_its_journal, was_a_plain_call, is_killed, is_a_workflow_that_expires,
    is_a_workflow_that_is_purged,
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
async def test_a_long_journal_goes_a_portion_at_a_time(way: Callable[[Harness], Awaitable[None]]) -> None:
    store = Shrinking()
    async with walkers(store) as app:
        await way(app)
        await app.settle()
        assert store.steps() == 0
        shrinks = [before - after for before, after in pairwise(store.left) if after < before]
        assert max(shrinks) <= FEW
        assert sum(shrinks) >= MANY
        await app.advance(3 * DAY)
        assert not store.memory.disk.rows


@pytest.mark.parametrize("way", [expires, is_purged, was_a_plain_call])
async def test_a_journal_of_which_a_part_has_gone_is_no_journal_and_the_rest_goes_after_a_crash(
    way: Callable[[Harness], Awaitable[None]],
) -> None:
    left = MANY + 1
    while left:
        store = Shrinking()
        async with walkers(store) as app:
            going = asyncio.ensure_future(way(app))
            while not store.left or max(store.left) < MANY or store.steps() >= left:
                await asyncio.sleep(0)
            left = store.steps()
            going.cancel()
            await asyncio.wait([going])
            await app.crash()
            rows = await store.fetch_ended([*store.memory.disk.rows])
            assert left in (0, MANY, MANY + 1) or not any(row.steps for row in rows.values())
            await app.advance(2 * DAY)
            assert not store.memory.disk.rows


async def test_other_commits_go_on_while_a_long_journal_goes() -> None:
    store = Shrinking()
    async with walkers(store) as app:
        purging = asyncio.ensure_future(is_purged(app))
        while max([0, *store.left]) < MANY:
            await asyncio.sleep(0)
        written = 0
        while not purging.done():
            await app.object(Note, "n").write(f"{written}")
            written += 1
        await purging
    assert written >= MANY // FEW - 1
