from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from durably import (
    Context,
    DefinitionError,
    HandlerMistakeError,
    InvocationStatus,
    MemoryStore,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedContext,
    SqliteStore,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.actors.protocol.commands import Call, Command, GetStatus
from durably.ids import EntryKey
from durably.queries import AllOf, Compare, FieldKind, FieldName, Not, OneOf, Operator, TableLayout, TableQuery
from durably.runtime.execution.step import Delivery, Step
from durably.testing import Harness
from durably.testing.replaying.export import export_journals, journals_under_way
from durably.testing.replaying.journals import (
    ExportedJournal,
    JournalFileError,
    decode_journal,
    encode_journal,
    read_journals,
    this_python,
    write_journal,
)
from durably.testing.replaying.replay import ReplayError, ReplayReport, replay_journals
from durably.testing.replaying.stand_ins import stand_in_for
from tests.processes import PATIENCE_SECONDS, ROOT, environment_with
from tests.testing.parcels import Carrier, Label, Parcel, Post


async def under_way(*, seconds: float, suspend_after: float = 60) -> list[ExportedJournal]:
    """A parcel that travels and is watched, so many seconds after it was sent."""
    store = MemoryStore()
    async with Harness(
        Parcel, Post, dependencies={Carrier: Carrier()}, store=store, suspend_after=suspend_after
    ) as app:
        parcel = app.object(Parcel, "p1")
        await parcel.travel.send("mary")
        await parcel.watch.send()
        await app.advance(seconds=seconds)
        return [journal async for journal in journals_under_way(store)]


def line_of(cls: type, text: str) -> str:
    """Where the first line of a class with this text is, as errors name it."""
    lines, first = inspect.getsourcelines(cls)
    offset = next(place for place, line in enumerate(lines) if text in line)
    return f"test_replay.py:{first + offset}"


def reasons(error: pytest.ExceptionInfo[ReplayError]) -> list[str]:
    return [failure.reason for failure in error.value.failures]


def only(journals: Sequence[ExportedJournal], target: str) -> list[ExportedJournal]:
    found = [journal for journal in journals if journal.target == target]
    assert found
    return found


# ---------------------------------------------------------------- the same code


@pytest.mark.parametrize("suspend_after", [0, 60, 100_000])
@pytest.mark.parametrize("seconds", [0, 60, 130, 3600, 3730])
async def test_the_same_code_replays_wherever_an_invocation_waits(seconds: float, suspend_after: float) -> None:
    journals = await under_way(seconds=seconds, suspend_after=suspend_after)
    assert {journal.target for journal in journals} >= {"Parcel/p1/travel"}
    report = replay_journals(journals, Parcel, Post)
    assert report == ReplayReport(journals=len(journals), steps=sum(len(journal.steps) for journal in journals))
    assert report.steps >= len(journals)


async def test_a_journal_survives_its_file(tmp_path: Path) -> None:
    for journal in await under_way(seconds=130):
        path = write_journal(journal, tmp_path)
        assert path.name == f"{journal.service}.{journal.handler}.{journal.id}.json"
        assert read_journals(path) == [replace(journal, path=path)]
    assert [journal.service for journal in read_journals(tmp_path)] == ["Parcel", "Parcel", "Post"]


async def test_an_object_is_replayed_on_the_state_as_the_invocation_first_saw_it(tmp_path: Path) -> None:
    """Rule V4: changes of its own are in its steps, and not yet in the snapshot."""
    store = MemoryStore()
    async with Harness(Counter, store=store) as app:
        counter = app.object(Counter, "a")
        assert await counter.add(5) == 5
        await counter.add_slowly.send(1)
        await counter.watch.send()
        await app.settle()
        path, watching = await export_journals(store, tmp_path)
    journal, watch = read_journals(path) + read_journals(watching)
    assert (watch.snapshot, watch.steps[0].reads) == ({}, {"count": b"6"})
    assert journal.snapshot == {"count": b"5"}
    assert journal.steps[0].changes == {"count": b"6"}
    assert replay_journals(path, Counter).steps == 1
    with pytest.raises(ReplayError, match=r"count = 6 +count = 1"):
        replay_journals([replace(journal, snapshot={})], Counter)


async def test_a_shared_handler_sees_what_it_read_then() -> None:
    (journal,) = only(await under_way(seconds=130), "Parcel/p1/watch")
    assert journal.snapshot == {}
    assert [step.reads for step in journal.steps][:2] == [{"place": None}, {"place": b'"truck"'}]
    assert replay_journals([journal], Parcel).journals == 1

    class Curious(VirtualObject, name="Parcel"):
        place: str = state(default="shop")
        visited: list[str] = state(default=[])

        @shared
        async def watch(self, ctx: SharedContext) -> list[str]:
            seen = [self.place, *self.visited]
            for _ in range(5):
                await ctx.sleep(60)
                seen.append(self.place)
            return seen

    with pytest.raises(ReplayError, match="read the field 'visited', which it had not read before"):
        replay_journals([journal], Curious)


async def test_steps_of_later_attempts_are_replayed_as_such() -> None:
    store = MemoryStore()
    retry = RetryPolicy(initial=10, max_attempts=5)
    async with Harness(Stubborn, store=store, retry=retry) as app:
        await app.service(Stubborn).work.send()
        await app.advance(seconds=61)
        (failing,) = [journal async for journal in journals_under_way(store)]
        await app.advance(seconds=30)
        (later,) = [journal async for journal in journals_under_way(store)]
    assert failing.status is InvocationStatus.BACKING_OFF
    assert [step.attempt for step in later.steps] == [1, 3]
    assert replay_journals([failing, later], Stubborn) == ReplayReport(journals=2, steps=3)
    first, second = later.steps
    forged = replace(later, steps=(first, Step(second.at, second.deliveries, second.commands, attempt=2)))
    with pytest.raises(ReplayError, match="raised RuntimeError: not yet"):
        replay_journals([forged], Stubborn)


async def test_what_waits_for_its_turn_is_checked_though_it_has_no_steps() -> None:
    store = MemoryStore()
    async with Harness(Counter, store=store) as app:
        await app.object(Counter, "a").add_slowly.send(1)
        await app.object(Counter, "a").add.send(2)
        await app.object(Counter, "b").add.after(days=1).send(3)
        await app.settle()
        journals = [journal async for journal in journals_under_way(store)]
        statuses = [journal.status for journal in journals]
        assert statuses == [InvocationStatus.SUSPENDED, InvocationStatus.PENDING, InvocationStatus.SCHEDULED]
        assert replay_journals(journals, Counter) == ReplayReport(journals=3, steps=1)

    class Changed(VirtualObject, name="Counter"):
        @handler
        async def add(self, ctx: ObjectContext, by: list[str]) -> int:
            return len(by)

    with pytest.raises(ReplayError) as raised:
        replay_journals(journals, Changed)
    slowly, add, delayed = reasons(raised)
    assert slowly.startswith("Counter has no handler 'add_slowly', and this invocation of it is under way")
    assert add.startswith("The argument that it was accepted with does not fit the handler any more")
    assert delayed == add.replace("2", "3")


@pytest.mark.parametrize("hash_seed", ["1", "4711"])
async def test_another_process_replays_the_same(tmp_path: Path, hash_seed: str) -> None:
    journals = await under_way(seconds=3730, suspend_after=0)
    for journal in journals:
        write_journal(journal, tmp_path)
    program = (
        "import sys; from durably.testing.replaying.replay import replay_journals; "
        "from tests.testing.parcels import Parcel, Post; print(replay_journals(sys.argv[1], Parcel, Post))"
    )
    child = subprocess.run(  # noqa: ASYNC221
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=ROOT, env=environment_with({"PYTHONHASHSEED": hash_seed}), capture_output=True, text=True,
        timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert child.stderr == ""
    assert child.stdout.strip() == str(replay_journals(journals, Parcel, Post))


# ---------------------------------------------------------------- changed code


class Reordered(VirtualObject, name="Parcel"):
    place: str = state(default="shop")
    visited: list[str] = state(default=[])

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier

    @handler
    async def travel(self, ctx: ObjectContext, to: str) -> str:
        await ctx.sleep(60)
        label = await ctx.run("label", self.carrier.label, to)
        return label.code


class Renamed(VirtualObject, name="Parcel"):
    place: str = state(default="shop")

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier

    @handler
    async def travel(self, ctx: ObjectContext, to: str) -> str:
        label = await ctx.run("print label", self.carrier.label, to)
        return label.code


class Elsewhere(VirtualObject, name="Parcel"):
    place: str = state(default="shop")
    visited: list[str] = state(default=[])

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier

    @handler
    async def travel(self, ctx: ObjectContext, to: str) -> str:
        label = await ctx.run("label", self.carrier.label, to)
        for stop in label.stops:
            self.place = f"the {stop}"
            self.visited.append(stop)
            await ctx.sleep(60)
        return self.place


class Shorter(VirtualObject, name="Parcel"):
    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier

    @handler
    async def travel(self, ctx: ObjectContext, to: str) -> str:
        label = await ctx.run("label", self.carrier.label, to)
        return label.code


@pytest.mark.parametrize(
    ("changed", "line", "told"),
    [
        (Reordered, "await ctx.sleep(60)", r"> Run\(name='label'\) +Sleep\("),
        (Renamed, '"print label"', r"> Run\(name='label'\) +Run\(name='print label'\)"),
        (Elsewhere, None, r'> place = "depot" +place = "the depot"'),
        (Shorter, None, r'> Sleep\(due=\d+\) +ends: "to-mary"'),
    ],
)
async def test_changed_code_fails_and_the_difference_is_shown(
    changed: type[Any], line: str | None, told: str, tmp_path: Path
) -> None:
    path = write_journal(only(await under_way(seconds=10), "Parcel/p1/travel")[0], tmp_path)
    with pytest.raises(ReplayError, match=told) as raised:
        replay_journals(path, changed)
    message = str(raised.value)
    (failure,) = raised.value.failures
    assert message.startswith("1 of 1 journals do not replay with this code.")
    assert f"Parcel/p1/travel ({failure.journal.id}, suspended, {path}):" in message
    if line is not None:
        assert re.search(rf"differ, first at \S*{re.escape(line_of(changed, line))}", message)


async def test_every_journal_that_fails_is_told() -> None:
    journals = await under_way(seconds=130)
    with pytest.raises(ReplayError) as raised:
        replay_journals(journals, Renamed)
    by_target = {failure.journal.target: failure.reason for failure in raised.value.failures}
    assert set(by_target) == {"Parcel/p1/travel", "Parcel/p1/watch", "Post/announce"}
    assert by_target["Post/announce"] == "No class named 'Post' was given; there are: Parcel."
    assert by_target["Parcel/p1/watch"].startswith("Parcel has no handler 'watch'")
    assert all(journal.id in str(raised.value) for journal in journals)


async def test_another_python_is_told_only_where_something_differs() -> None:
    journals = [replace(journal, python="3.2") for journal in only(await under_way(seconds=10), "Parcel/p1/travel")]
    replay_journals(journals, Parcel)
    with pytest.raises(ReplayError, match=rf"exported with Python 3\.2 and replayed with {this_python()}"):
        replay_journals(journals, Renamed)


async def test_a_journal_without_an_answer_that_it_needs_is_damaged() -> None:
    (journal,) = only(await under_way(seconds=10), "Parcel/p1/travel")
    with pytest.raises(ReplayError, match="damaged: a step takes in the answer to command 0"):
        replay_journals([replace(journal, deliveries=())], Parcel)


# ---------------------------------------------------------------- dependencies


async def test_dependencies_are_not_called() -> None:
    journals = await under_way(seconds=3730)
    assert only(journals, "Parcel/p1/travel") == journals[:1]
    carrier = Carrier()
    replay_journals(journals, Parcel, Post, dependencies={Carrier: carrier})
    assert carrier.asked == []


async def test_a_dependency_that_a_handler_looks_at_must_be_given() -> None:
    store = MemoryStore()
    prices = Prices(3)
    async with Harness(Till, store=store, dependencies={Prices: prices}) as app:
        await app.service(Till).sell.send()
        await app.settle()
        journals = [journal async for journal in journals_under_way(store)]
    replay_journals(journals, Till, dependencies={Prices: prices})
    with pytest.raises(ReplayError, match=r"Prices\.current was used on replay.*dependencies=\{Prices: \.\.\.\}"):
        replay_journals(journals, Till)


def test_what_is_no_class_has_no_stand_in() -> None:
    class Odd(Service):
        def __init__(self, names: list[str]) -> None: ...

        @handler
        async def work(self, ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match="asks for names"):
        replay_journals([], Odd)
    assert replay_journals([], Odd, dependencies={list[str]: ["a"]}).journals == 0


def test_a_default_stays_and_an_optional_dependency_gets_a_stand_in() -> None:
    class Modest(Service):
        def __init__(self, carrier: Carrier | None, prices: Prices | None = None) -> None:
            assert repr(carrier) == "<stand-in for Carrier>"
            assert prices is None

        @handler
        async def work(self, ctx: Context) -> None: ...

    replay_journals([], Modest)


def test_a_stand_in_has_the_methods_of_its_class_and_refuses_to_be_used() -> None:
    made: Any = stand_in_for(Prices)
    assert inspect.unwrap(made.ask).__annotations__ == {"what": "str", "return": "Label"}
    assert made.CURRENCY == "EUR"
    uses: list[Callable[[], object]] = [
        lambda: made.ask("a"),
        lambda: made.lowest(),
        lambda: made.current,
        lambda: made.table,
        lambda: len(made),
    ]
    for use in uses:
        with pytest.raises(HandlerMistakeError, match="only a stand-in is there"):
            use()
    with pytest.raises(HandlerMistakeError, match="int"):
        _ = stand_in_for(int) + 1  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    assert not hasattr(made, "__wrapped__")


# ---------------------------------------------------------------- files


def sample(**changes: Any) -> ExportedJournal:
    values: dict[str, Any] = {
        "id": "inv_1", "service": "S", "key": "k", "handler": "h", "status": InvocationStatus.RUNNING,
        "accepted_at": 1, "deadline": 2, "idempotency_key": "once", "headers": {"a": "b"}, "argument": b'{"x":1.0}',
        "seed": b"\0" * 16, "snapshot": {}, "steps": (), "deliveries": (), "durably": "0", "python": "3.11",
    }  # fmt: skip
    return ExportedJournal(**values | changes)


PAYLOADS = [
    b"null", b"1.0", b"1e5", b'"\\u00e9"', '"é"'.encode(), b'{"b":1,"a":[1,{"c":[]}]}', b'{"a":1,"a":2}', b"", b" 1",
    b"1 ", b"\xff\0", b'"\xff"', b"tru", b"9" * 40, b'{"$base64":"AA=="}', b'{"$absent":true}', b'{"$absent":1,"x":2}',
    b"[" * 5000 + b"]" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_every_payload_comes_back_as_the_bytes_that_went_in(payload: bytes) -> None:
    call = Call("S", None, "h", payload, {"h": "v"}, None, 5, True)
    step = Step(
        3, (0,), (call, GetStatus("inv_2")), {"f": payload, "gone": None}, (1,), {"r": payload, "unset": None}, None, 2
    )
    journal = sample(argument=payload, snapshot={"f": payload}, steps=(step,), deliveries=(Delivery(0, True, payload),))
    assert decode_journal(encode_journal(journal)) == journal


SIZE = FieldName("size", FieldKind.INTEGER)
SAMPLES: dict[Any, Any] = {
    str: "x", bytes: b"1", bool: True, int: 5, dict[str, str]: {"a": "b"},
    tuple[EntryKey, ...]: (EntryKey(1, "#"),), EntryKey: EntryKey(2, "=a"),
    TableQuery: TableQuery(
        TableLayout("order", "Orders", "object", (SIZE,), ("size",)), ("created",),
        AllOf((Not(Compare(SIZE, Operator.FROM, 3)), OneOf(SIZE, (1, None)))), SIZE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", get_args(Command), ids=lambda kind: kind.__name__)
def test_every_command_comes_back_from_a_file(kind: type[msgspec.Struct]) -> None:
    values = {
        field.name: next(SAMPLES[one] for one in (field.type, *get_args(field.type)) if one in SAMPLES)
        for field in msgspec.structs.fields(kind)
    }
    command: Any = kind(**values)
    journal = sample(steps=(Step(1, (), (command,), patches=("a change",)),))
    assert decode_journal(encode_journal(journal)) == journal


def test_json_stands_in_a_file_as_json() -> None:
    document = json.loads(encode_journal(sample(argument=b'{"tickets":["2B"]}', snapshot={"raw": b"\xff"})))
    assert document["argument"] == {"tickets": ["2B"]}
    assert document["snapshot"] == {"raw": {"$base64": "/w=="}}
    assert document["format"] == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "does not hold a journal"),
        (b"[]", "does not hold a journal"),
        (b'{"format": 1}', "missing required field"),
        (b'{"format": 2}', "has format 2, and this version of durably reads format 1"),
        (encode_journal(sample()).replace(b'"00', b'"zz'), "does not hold a journal"),
        (encode_journal(sample(argument=b"\xff")).replace(b"/w==", b"/w"), "damaged base64"),
        (
            encode_journal(sample(steps=(Step(1, (), (GetStatus("i"),)),))).replace(b'"look"', b'"leap"'),
            "unknown command, 'leap'",
        ),
    ],
)
def test_a_file_that_holds_something_else_is_refused_by_name(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(JournalFileError, match=told) as raised:
        read_journals(tmp_path)
    assert str(path) in str(raised.value)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(JournalFileError, match="cannot be read: No such file"):
        replay_journals(tmp_path / "nowhere", Parcel)


# ---------------------------------------------------------------- exporting


async def test_a_target_and_a_limit_choose(tmp_path: Path) -> None:
    store = MemoryStore()
    async with Harness(Parcel, Post, dependencies={Carrier: Carrier()}, store=store) as app:
        for name in ("p1", "p2"):
            await app.object(Parcel, name).travel.send("mary")
            await app.object(Parcel, name).watch.send()
        await app.advance(seconds=130)

        async def targets(target: str) -> list[str]:
            return [journal.target async for journal in journals_under_way(store, target=target)]

        assert await targets("Parcel/p1") == ["Parcel/p1/travel", "Parcel/p1/watch"]
        assert await targets("Parcel/p2/watch") == ["Parcel/p2/watch"]
        assert await targets("Post/announce") == await targets("Post") == ["Post/announce"] * 2
        assert await targets("Parcel/travel") == await targets("Postman") == []
        exported: list[ExportedJournal] = []
        files = await export_journals(store, tmp_path, target="Parcel", limit=3, on_exported=exported.append)
    assert len(files) == len(read_journals(tmp_path)) == 3
    assert [journal.target for journal in exported] == ["Parcel/p1/travel", "Parcel/p1/watch", "Parcel/p2/travel"]


async def test_more_than_a_page_is_exported_and_what_has_ended_is_not(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "app.db")
    async with Harness(Counter, store=store) as app:
        for number in range(230):
            await app.object(Counter, str(number)).add.send(number)
            if number % 2:
                await app.object(Counter, str(number)).add_slowly.send(1)
        await app.settle()
        files = await export_journals(store, tmp_path / "journals")
    assert len(files) == len(set(files)) == 115
    assert replay_journals(files, Counter) == ReplayReport(journals=115, steps=115)


# ---------------------------------------------------------------- actors of these tests


class Counter(VirtualObject):
    count: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, by: int) -> int:
        self.count += by
        return self.count

    @handler
    async def add_slowly(self, ctx: ObjectContext, by: int) -> int:
        self.count += by
        await ctx.sleep(60)
        return self.count

    @shared
    async def watch(self, ctx: SharedContext) -> int:
        before = self.count
        await ctx.sleep(60)
        return self.count - before


class Stubborn(Service):
    @handler
    async def work(self, ctx: Context) -> None:
        await ctx.sleep(60)
        if ctx.request.attempt < 3:
            raise RuntimeError("not yet")
        await ctx.sleep(60)


@dataclass
class Prices:
    current_price: int
    CURRENCY = "EUR"

    @property
    def current(self) -> int:
        return self.current_price

    async def ask(self, what: str) -> Label:
        return Label(what, [])

    @staticmethod
    def lowest() -> int:
        return 1

    def __len__(self) -> int:
        return 1


class Till(Service):
    def __init__(self, prices: Prices) -> None:
        self.prices = prices

    @handler
    async def sell(self, ctx: Context) -> None:
        await ctx.sleep(60 * self.prices.current)


async def test_a_folder_without_journals_proves_nothing_and_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalFileError, match=r"There is no journal in the folder .* so nothing is proven"):
        replay_journals(tmp_path, Parcel)
    assert replay_journals(read_journals(tmp_path), Parcel).journals == 0
    assert replay_journals([], Parcel).journals == 0
