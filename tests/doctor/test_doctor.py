"""Each way in which a store can be damaged is named; a sound one of every kind of wait is clean."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from durably import (
    Context,
    DurableDict,
    DurableList,
    DurablePromise,
    Limit,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    promise,
    state,
)
from durably.codecs import AesGcmCodec
from durably.doctor import Report, Severity, examine
from durably.doctor.findings import MOST_OF_A_KIND
from durably.ids import STATE_VERSION_FIELD
from durably.storage.encoded import EncodedStore
from durably.storage.sqlite import SqliteStore
from durably.testing import Harness

LARGE = "x" * 200_000
PATIENT = RetryPolicy(initial=6_000, maximum=6_000)


class Desk(VirtualObject):
    note: str = state(default="")
    large: str = state(default="")
    names: DurableDict[str, str] = state()
    numbers: DurableList[int] = state()

    @handler
    async def sleep(self, ctx: ObjectContext, seconds: float) -> None:
        self.note = "sleeping"
        await ctx.sleep(seconds)

    @handler
    async def fail(self, ctx: ObjectContext) -> None:
        raise RuntimeError("a bug")

    @handler
    async def ask(self, ctx: ObjectContext, key: str) -> None:
        await ctx.object(Desk, key).sleep(6_000)

    @handler
    async def attach(self, ctx: ObjectContext, id: str) -> None:
        await ctx.invocation(id, type(None)).result()

    @handler
    async def keep(self, ctx: ObjectContext, text: str) -> None:
        self.large = text

    @handler
    async def enter(self, ctx: ObjectContext, name: str) -> None:
        self.names[name] = name

    @handler
    async def count_to(self, ctx: ObjectContext, number: int) -> None:
        for n in range(number):
            self.numbers.append(n)


class Clerk(Service):
    @handler
    async def wait_for_a_person(self, ctx: Context) -> None:
        await asyncio.gather(ctx.signal("go", str), ctx.awakeable(str))

    @handler
    async def wait_for_a_signal(self, ctx: Context) -> None:
        await ctx.signal("now", str)

    @handler
    async def large(self, ctx: Context, text: str) -> None:
        await ctx.sleep(6_000)


class Vote(Workflow):
    decided: DurablePromise[str] = promise()

    @handler
    async def run(self, ctx: WorkflowContext) -> str:
        return await self.decided


async def fill(app: Harness) -> None:
    """One of each."""
    first = await app.object(Desk, "d").sleep.options(timeout=9_000).send(6_000)
    await app.object(Desk, "d").sleep.send(1)
    await app.object(Desk, "d").sleep.send(2)
    await app.object(Desk, "l").sleep.after(6_000).send(1)
    await app.object(Desk, "f").fail.send()
    await app.object(Desk, "a").ask.send("e")
    await app.object(Desk, "b").attach.send(first.id)
    await app.object(Desk, "k").keep.options(idempotency_key="k")(LARGE)
    await app.object(Desk, "n").enter("mary")
    await app.object(Desk, "n").count_to(3)
    await app.service(Clerk).wait_for_a_person.send()
    await app.service(Clerk).wait_for_a_signal.send()
    await app.service(Clerk).large.send(LARGE)
    await app.workflow(Vote, "v").run.send()
    await app.settle()


@pytest.fixture
async def sound(tmp_path: Path) -> Path:
    """The file of a store with one of each kind of wait, of a runtime that has stopped."""
    path = tmp_path / "app.db"
    async with Harness(Desk, Clerk, Vote, store=SqliteStore(path), retry=PATIENT) as app:
        await fill(app)
    return path


async def examined(path: Path) -> Report:
    store = SqliteStore(path)
    await store.open_read_only()
    try:
        return await examine(store)
    finally:
        await store.close()


def damage(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount != 0, statement


async def test_a_sound_store_is_clean_and_tells_what_waits_for_somebody(sound: Path) -> None:
    report = await examined(sound)
    assert report.problems == ()
    assert report.is_sound
    assert (report.invocations, report.objects) == (13, 8)
    notes = [(one.code, one.subject.partition(" ")[0]) for one in report.findings]
    assert notes == [
        ("waits-for-somebody", "Clerk/wait_for_a_person"),
        ("waits-for-somebody", "Clerk/wait_for_a_signal"),
        ("waits-for-somebody", "Vote/v/run"),
    ]
    assert "the signal 'go', the awakeable sign_1" in report.findings[0].sentence
    assert report.data()["sound"]


OF = "(select number from invocations where handler = '{}' and key = '{}')"
SLEEPER = OF.format("sleep", "d")
DAMAGES: dict[str, tuple[str, ...]] = {
    "no-sleep-timer": (f"delete from timers where kind = 'sleep' and number in {SLEEPER}",),
    "no-deadline-timer": ("delete from timers where kind = 'deadline'",),
    "no-start-timer": ("delete from timers where kind = 'start'",),
    "no-retry-timer": ("delete from timers where kind = 'retry'",),
    "no-callee": (
        "delete from timers where number in (select number from invocations where caller_number is not null)",
        "delete from steps where number in (select number from invocations where caller_number is not null)",
        "delete from invocations where caller_number is not null",
    ),
    "not-answered": ("delete from attachments",),
    "not-woken": (
        (
            "insert into completions (number, position, command, failed, value) "
            "select number, 1, 0, 0, 'null' from invocations where handler = 'ask'"
        ),
    ),
    "not-delivered": (
        (
            "insert into signals (number, position, name, failed, value) "
            "select number, 1, 'now', 0, '\"x\"' from invocations where handler = 'wait_for_a_signal'"
        ),
    ),
    "waits-for-nothing": (
        "delete from steps where number = (select number from invocations where handler = 'wait_for_a_signal')",
    ),
    "unreadable": ("update steps set content = '{' where number = (select min(number) from steps)",),
    "orphan-rows": ("insert into aliases (id, number) values ('inv_1x', 999)",),
    "rows-of-ended": (
        (
            "insert into timers select number, 'sleep', 0, 1, service, key, 0 from invocations "
            "where status = 'completed' limit 1"
        ),
    ),
    "journal-gap": ("update steps set idx = 7 where number = (select min(number) from steps)",),
    "no-argument": ("delete from arguments where number = (select max(number) from arguments)",),
    "unknown-word": ("update invocations set status = 'asleep' where handler = 'attach'",),
    "two-holders": ("update invocations set status = 'running' where key = 'd' and status = 'pending'",),
    "shared-place": (
        (
            "update invocations set mailbox_position = "
            "(select max(mailbox_position) from invocations where key = 'd') where key = 'd' and status = 'pending'"
        ),
    ),
    "no-outcome": ("update invocations set outcome = null where status = 'completed'",),
    "kept-for-ever": ("update invocations set expires_at = null where status = 'completed'",),
    "late-position": ("update owner set last_position = 3",),
    "wrong-count": ("update entry_counts set entries = 2",),
    "early-position": ("update invocations set mailbox_position = -1 where handler = 'ask'",),
    "damaged-name": ("update state set field = 'large' || char(0) where field = 'large'",),
    "damaged-entry": ("update entries set name = 'mary' where field = 'names'",),
    "impossible-time": (f"update invocations set accepted_at = {1 << 62} where handler = 'ask'",),
    "wrong-target": ("update timers set key = 'z' where kind = 'sleep' and key = 'd'",),
    "wrong-caller": ("update attachments set caller_key = 'z'",),
    "wrong-kept": (
        "insert into kept_journals select number, 1, 1 from invocations where status = 'suspended' limit 1",
    ),
    "list-gap": ("delete from entries where position = 1",),
    "wrong-timer": ("update timers set due = due + 1 where kind = 'sleep' and key = 'd'",),
    "missing-index": ("drop index timers_by_due",),
    "foreign-table": ("create table notes (a integer)",),
    "layout": ("alter table signals add column colour text",),
    "no-owner": ("delete from owner",),
}


@pytest.mark.parametrize("code", DAMAGES)
async def test_each_damage_is_named_with_what_to_do(sound: Path, code: str) -> None:
    damage(sound, *DAMAGES[code])
    report = await examined(sound)
    assert not report.is_sound
    found = [one for one in report.problems if one.code == code]
    assert found, report.problems
    assert {one.code for one in report.problems} <= {code, *CONSEQUENCES.get(code, ())}
    for one in found:
        assert one.sentence.endswith(".")
        assert one.advice.endswith(".")
        assert one.subject


CONSEQUENCES = {
    "unreadable": ("no-sleep-timer",),
    "journal-gap": ("unreadable", "not-woken"),
    "no-argument": ("unreadable",),
    "unknown-word": ("unreadable",),
    "impossible-time": (),
    "layout": (),
}
"""What else is wrong then."""


async def test_a_list_of_an_object_that_goes_may_have_gaps(sound: Path) -> None:
    damage(sound, *DAMAGES["list-gap"], "insert into state values ('Desk', 'n', 'durably:going', '1')")
    assert (await examined(sound)).is_sound


async def test_a_promise_that_is_completed_and_awaited_all_the_same_is_named(sound: Path) -> None:
    damage(sound, "insert into promises values ('Vote', 'v', 'decided', 0, null, '\"yes\"')")
    (found,) = (await examined(sound)).problems
    assert (found.code, found.subject.partition(" ")[0]) == ("not-delivered", "Vote/v/run")
    assert "the promise 'decided' that it waits for is completed" in found.sentence


@pytest.mark.parametrize("table", ["state", "arguments", "invocations", "completions"])
async def test_pages_that_are_damaged_are_named(sound: Path, table: str) -> None:
    with closing(sqlite3.connect(sound)) as connection:
        (root,) = connection.execute("select rootpage from sqlite_master where name = ?", (table,)).fetchone()
        (size,) = connection.execute("pragma page_size").fetchone()
    with sound.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * 64)
    report = await examined(sound)
    assert {one.code for one in report.problems} == {"damaged-file"}
    assert table in report.problems[0].subject or "damaged" in report.problems[0].sentence


STATE_DAMAGES: dict[str, Callable[[str], str]] = {
    "text": lambda field: f"update state set value = cast(x'ff22' as text) where field = '{field}'",
    "base64": lambda field: f"update state set value = 'base64:A' where field = '{field}'",
}


@pytest.mark.parametrize("how", STATE_DAMAGES)
async def test_state_that_cannot_be_read_is_named(sound: Path, how: str) -> None:
    damage(sound, STATE_DAMAGES[how]("large"))
    (found,) = (await examined(sound)).problems
    assert (found.code, found.subject) == ("unreadable", "Desk/k")
    assert "The field 'large' of Desk/k cannot be read" in found.sentence


@pytest.mark.parametrize("how", STATE_DAMAGES)
async def test_an_entry_that_cannot_be_read_is_named(sound: Path, how: str) -> None:
    damage(sound, STATE_DAMAGES[how]("names").replace("update state", "update entries"))
    (found,) = (await examined(sound)).problems
    assert (found.code, found.subject) == ("unreadable", "Desk/n")
    assert "The entry =mary of the field 'names' of Desk/n cannot be read" in found.sentence


async def test_a_schedule_and_a_state_version_that_cannot_be_read_are_named(sound: Path) -> None:
    damage(
        sound,
        f"insert into state (service, key, field, value) values ('Desk', 'k', '{STATE_VERSION_FIELD}', 'two')",
        "insert into state (service, key, field, value) values ('', 'schedules', 'Desk/nightly', '{\"zone\": 1}')",
    )
    schedule, version = (await examined(sound)).problems
    assert (schedule.code, schedule.subject) == ("unreadable-schedule", "Desk/nightly")
    assert "begins anew" in schedule.advice
    assert (version.code, version.subject) == ("unreadable", "Desk/k")
    assert f"The field '{STATE_VERSION_FIELD}' of Desk/k cannot be read" in version.sentence


async def test_values_that_a_codec_cannot_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    codec = AesGcmCodec(b"k" * 32)
    async with Harness(Desk, Clerk, Vote, store=EncodedStore(SqliteStore(path), codec), retry=PATIENT) as app:
        await fill(app)
    damage(
        path,
        "update state set value = x'00ff00ff' where key = 'k'",
        "update entries set value = x'00ff00ff' where name <> ''",
    )
    store = SqliteStore(path)
    await store.open_read_only()
    report = await examine(store, EncodedStore(store, codec))
    await store.close()
    assert [(one.code, one.subject) for one in report.problems] == [("unreadable", "Desk/k"), ("unreadable", "Desk/n")]


async def test_many_findings_of_a_kind_are_counted(sound: Path) -> None:
    more = ", ".join(f"('inv_1{n}', {1000 + n})" for n in range(2 * MOST_OF_A_KIND))
    damage(sound, f"insert into aliases (id, number) values {more}")
    report = await examined(sound)
    assert len(report.problems) == MOST_OF_A_KIND
    assert report.left_out >= 1


async def test_a_live_store_is_clean_while_it_goes_on(tmp_path: Path) -> None:
    """What moves while it is looked at is not taken for stuck."""
    path = tmp_path / "app.db"
    async with Harness(Desk, Clerk, Vote, store=SqliteStore(path), retry=PATIENT) as app:
        await fill(app)
        going = asyncio.ensure_future(_keep_going(app))
        for _ in range(5):
            assert (await examined(path)).problems == ()
        going.cancel()


async def _keep_going(app: Harness) -> None:
    n = 0
    while True:
        n += 1
        await app.object(Desk, f"x{n}").ask.send(f"y{n % 3}")
        await app.advance(3_000)


async def test_paused_invocations_are_told_with_what_waits_behind_them(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with Harness(Desk, store=SqliteStore(path)) as app:
        with pytest.raises(PausedInvocationError) as failing:
            await app.object(Desk, "f").fail()
        await app.object(Desk, "f").sleep.send(1)
        await app.object(Desk, "f").sleep.send(1)
        await app.settle()
        (found,) = (await examined(path)).findings
        assert (found.code, found.severity, found.id) == ("paused", Severity.NOTE, failing.value.id)
        assert found.sentence == "It is paused (RuntimeError: a bug). 2 messages of its object wait behind it."
        await app.kill("Desk")


class Narrow(Service):
    @handler(limit=Limit(at_once=1, per="who"), retry=RetryPolicy(max_attempts=1))
    async def work(self, ctx: Context, who: str) -> None:
        if who == "mary":
            raise RuntimeError("a bug")
        await ctx.sleep(6_000)


async def test_a_paused_invocation_is_told_with_what_waits_for_the_place_of_a_limit_that_it_keeps(
    tmp_path: Path,
) -> None:
    path = tmp_path / "app.db"
    async with Harness(Narrow, store=SqliteStore(path)) as app:
        with pytest.raises(PausedInvocationError):
            await app.service(Narrow).work("mary")
        for who in ("mary", "mary", "john", "john"):
            await app.service(Narrow).work.send(who)
        await app.settle()
        (found,) = (await examined(path)).findings
        assert found.sentence == (
            "It is paused (RuntimeError: a bug). It keeps a place of the limit 'Narrow/work' of 'mary' taken, for "
            "which 2 messages wait."
        )
        await app.kill("Narrow")
