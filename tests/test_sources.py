"""Rule P7: what a source gives becomes messages, each once and in order, and nothing of it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import pytest
from pydantic_core import core_schema
from structlog.testing import capture_logs

from durably import (
    Context,
    DefinitionError,
    HandlerMistakeError,
    ObjectContext,
    Runtime,
    Service,
    SharedContext,
    UnknownTargetError,
    UnreadableRecordError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.runtime.lifecycle import sources as running_sources
from durably.sources import Feed, SourceRecord
from durably.storage.memory import Disk, MemoryStore
from durably.storage.records import SOURCES
from durably.testing import Harness, Simulation, Topic, TopicSource, for_each_crash_point


class Account(VirtualObject):
    booked: list[int] = state(default=[])
    headers: list[str] = state(default=[])

    @handler
    async def book(self, ctx: ObjectContext, amount: int) -> None:
        if amount == 99:
            await ctx.sleep(100)
        self.booked.append(amount)
        self.headers.append(ctx.request.headers.get("x-from", ""))

    @shared
    async def look(self, ctx: SharedContext) -> list[int]:
        return self.booked


class Tally(Service):
    @handler
    async def count(self, ctx: Context, amount: int) -> None:
        await ctx.object(Account, "all").book(amount)


def fed(topic: Topic, **options: Any) -> list[Feed]:
    return [Feed(TopicSource(topic, most_at_once=3), Account.book, **options)]


async def booked(app: Harness, key: str) -> list[int]:
    await app.settle()
    found: list[int] = (await app.state(Account, key)).get("booked", [])
    return found


async def test_records_go_to_the_object_of_their_key_in_order_each_once_over_crashes() -> None:
    topic = Topic(partitions=3)
    async with Harness(Account, sources=fed(topic)) as app:
        for number in range(20):
            topic.put(b"%d" % number, key=f"k{number % 5}", headers={"X-From": f"{number}"})
            if number % 4 == 0:
                await app.crash()
            if number % 3 == 0:
                await app.settle()
        for key in range(5):
            assert await booked(app, f"k{key}") == [*range(key, 20, 5)]
        assert (await app.state(Account, "k1"))["headers"] == ["1", "6", "11", "16"]
        (one,) = await app.sources()
        assert {name: len(records) for name, records in topic.partitions.items()} == one.positions
        assert (one.name, one.handler, one.status, one.in_flight) == ("topic", "Account/book", "on", 0)


async def test_what_is_given_again_or_after_a_failure_is_passed_over() -> None:
    class Sloppy(TopicSource):
        """Fails every now and then, and begins anew each time, whatever it is told."""

        async def open(self, positions: Mapping[str, int], /) -> Mapping[str, int]:
            if self.opened == 1:
                self.opened += 1
                raise ConnectionError("nobody there")
            await super().open({})
            return positions

        async def poll(self) -> Sequence[SourceRecord]:
            records = await super().poll()
            if self.opened < 4 and records[-1].position > 2:
                raise ConnectionError("gone")
            return records

    topic = Topic()
    source = Sloppy(topic, most_at_once=2)
    async with Harness(Account, sources=[Feed(source, Account.book)]) as app:
        for number in range(10):
            topic.put(b"%d" % number, key="a")
        assert await booked(app, "a") == [0, 1]
        (one,) = await app.sources()
        assert one.failure == "ConnectionError: gone"
        await app.advance(60)
        assert await booked(app, "a") == [*range(10)]
        (one,) = await app.sources()
        assert one.failure is None
        assert source.opened == 4


async def test_a_record_that_cannot_become_a_message_stops_its_source_until_a_person_decides() -> None:
    topic = Topic()
    async with Harness(Account, sources=fed(topic)) as app:
        topic.put(b"1", key="a")
        topic.put(b'"one"', key="a")
        topic.put(b"2", key="a")
        topic.put(b"3")
        topic.put(b"4", key="a")
        assert await booked(app, "a") == [1]
        (one,) = await app.sources()
        assert (one.status, one.positions) == ("paused", {"0": 1})
        assert one.reason is not None
        assert one.reason.startswith("The record 1 of the partition 0 cannot become a message")
        await app.crash()
        assert await app.resume_source("topic")  # It is as it was.
        assert await booked(app, "a") == [1]
        assert await app.resume_source("topic", pass_over=True)
        assert not await app.resume_source("topic")
        assert await booked(app, "a") == [1, 2]
        (one,) = await app.sources()
        assert "The key of Account" in (one.reason or "")
        assert await app.resume_source("topic", pass_over=True)
        assert await booked(app, "a") == [1, 2, 4]
        assert await app.pause_source("topic")
        topic.put(b"5", key="a")
        assert await booked(app, "a") == [1, 2, 4]
        await app.resume_source("topic")
        assert await booked(app, "a") == [1, 2, 4, 5]
        with pytest.raises(UnknownTargetError, match="There are: topic"):
            await app.pause_source("tropic")


class Named(TopicSource):
    """Tells what it reads."""

    is_named: Any = "first"

    def identity(self) -> str | None:
        return cast("str | None", self.is_named)


@pytest.mark.parametrize("passes_over", [True, False])
async def test_what_is_something_else_of_the_same_name_is_not_read_before_a_person_says_how(passes_over: bool) -> None:
    topic, store = Topic(), MemoryStore()
    source = Named(topic, most_at_once=3)
    source.is_named = None
    async with Harness(Account, store=store, sources=[Feed(source, Account.book)]) as app:
        topic.put(b"1", key="a")
        assert await booked(app, "a") == [1], "it cannot tell what it is"
        source.is_named = "first"
        await app.crash()
        topic.put(b"2", key="a")
        assert await booked(app, "a") == [1, 2], "what could not be told is what it is now"
        await app.crash()
        source.is_named = None
        await app.crash()
        topic.put(b"3", key="a")
        assert await booked(app, "a") == [1, 2, 3], "nor does it matter where it cannot be told any more"
        source.is_named = "second"
        topic.put(b"4", key="a")
        for _ in range(2):
            await app.crash()
            assert await booked(app, "a") == [1, 2, 3]
            (one,) = await app.sources()
            assert one.status == "paused"
            assert "it was first and is second" in (one.reason or "")
        await app.resume_source("topic", pass_over=passes_over)
        expected = [1, 2, 3, 1, 2, 3, 4] if passes_over else [1, 2, 3, 4]
        assert await booked(app, "a") == expected
        topic.put(b"no number", key="a")
        await app.settle()
        await app.resume_source("topic", pass_over=True)  # The record, and what is read is known still.
        await app.crash()
        topic.put(b"5", key="a")
        assert await booked(app, "a") == [*expected, 5]
        source.is_named = "first"
        await app.crash()
        await app.settle()
        assert (await app.sources())[0].status == "paused"


@pytest.mark.parametrize("nonsense", [7, "\0", "\ud800"])
async def test_what_is_no_identity_is_told(nonsense: Any) -> None:
    source = Named(Topic())
    source.is_named = nonsense
    async with Harness(Account, sources=[Feed(source, Account.book)]) as app:
        await app.settle()
        assert "identity() of a source gives Unicode text" in ((await app.sources())[0].failure or "")


async def test_a_source_is_read_on_when_there_is_room() -> None:
    topic = Topic()
    async with Harness(Account, sources=fed(topic, in_flight=2)) as app:
        for key in "abcdefg":
            topic.put(b"99", key=key)
        await app.settle()
        (one,) = await app.sources()
        assert one.positions == {"0": 3}  # A poll gives three.
        await app.advance(100)
        (one,) = await app.sources()
        assert one.positions == {"0": 6}
        await app.advance(200)
        assert [await booked(app, key) for key in "abcdefg"] == [[99]] * 7


async def test_no_more_of_a_source_is_under_way_when_a_runtime_has_come_back_again_and_again() -> None:
    topic, store = Topic(), MemoryStore()
    for key in "abcdefg":
        topic.put(b"99", key=key)
    for _ in range(3):
        async with Harness(Account, store=store, sources=fed(topic, in_flight=2)) as app:
            for _ in range(2):
                await app.settle()
                (one,) = await app.sources()
                assert (one.positions, one.in_flight) == ({"0": 3}, 3)  # A poll gives three.
                await app.crash()
    async with Harness(Account, store=store, sources=fed(topic, in_flight=2)) as app:
        await app.advance(100)
        (one,) = await app.sources()
        assert (one.positions, one.in_flight) == ({"0": 6}, 3)
        await app.advance(200)
        assert [await booked(app, key) for key in "abcdefg"] == [[99]] * 7
        (one,) = await app.sources()
        assert one.in_flight == 0


class Shop(VirtualObject):
    """One of its handlers may stop."""

    is_open = True
    booked: list[int] = state(default=[])

    @handler
    async def count(self, ctx: ObjectContext) -> None:
        await ctx.sleep(1)
        if not Shop.is_open:
            raise HandlerMistakeError("not yet")

    @handler
    async def book(self, ctx: ObjectContext, amount: int) -> None:
        await ctx.sleep(1)
        self.booked.append(amount)


@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize("goes_on", ["resume", "cancel", "kill"])
async def test_records_behind_a_paused_handler_of_their_object_hold_no_others_up(goes_on: str, crashes: bool) -> None:
    topic = Topic()

    async def now() -> tuple[Mapping[str, int], int]:
        await app.settle()
        (one,) = await app.sources()
        return one.positions, one.in_flight

    async with Harness(Shop, sources=[Feed(TopicSource(topic, most_at_once=1), Shop.book, in_flight=3)]) as app:
        Shop.is_open = False
        count = await app.object(Shop, "a").count.send()
        for number, key in enumerate("aaab"):
            topic.put(b"%d" % number, key=key)
        assert await now() == ({"0": 3}, 3)
        with pytest.raises(HandlerMistakeError):
            await app.advance(1)
        if crashes:
            await app.crash()
        assert await now() == ({"0": 4}, 1), "what waits behind it does not count"
        await app.advance(1)
        assert await now() == ({"0": 4}, 0)
        Shop.is_open = True
        match goes_on:
            case "resume":
                assert await app.resume(count.id)
            case "cancel":
                assert await app.cancel(count.id)
            case _:
                assert await app.kill(count.id)
        await app.settle()
        for number in range(4, 8):
            topic.put(b"%d" % number, key=f"{number}")
        assert await now() == ({"0": 5}, 4), "and counts again when that goes on; a poll was under way"
        await app.advance(30)
        assert await now() == ({"0": 8}, 0)
        assert [(await app.state(Shop, key))["booked"] for key in "ab"] == [[0, 1, 2], [3]]


async def test_records_of_a_service_need_no_key_and_positions_outlive_a_runtime() -> None:
    topic, store = Topic(), MemoryStore()
    for number in range(6):
        if number % 2 == 0:
            topic.put(b"%d" % number)
        source = TopicSource(topic, most_at_once=1)
        async with Harness(Account, Tally, store=store, sources=[Feed(source, Tally.count, name="tally")]) as app:
            await app.settle()
    topic.put(b"6")
    async with Harness(Account, Tally, store=store, sources=[Feed(TopicSource(topic), Tally.count)]) as app:
        assert await booked(app, "all") == [0, 2, 4, 0, 2, 4, 6]  # Another name has read nothing yet.


def test_feeds_that_cannot_work_are_refused() -> None:
    source = TopicSource(Topic())
    wrong: Any = Account
    with pytest.raises(DefinitionError, match=r"Feed\(to=.*\) is a handler"):
        Feed(source, wrong)
    with pytest.raises(DefinitionError, match="without NUL"):
        Feed(source, Account.book, name="\0")
    with pytest.raises(DefinitionError, match="in_flight"):
        Feed(source, Account.book, in_flight=0)
    for feeds, match in (
        ([Feed(source, Account.look)], "which is shared"),
        ([Feed(source, Tally.count)], "has none of that class"),
        ([Feed(source, Account.book), Feed(source, Account.book)], "Two feeds are named 'topic'"),
        ([wrong], "takes Feed"),
        (cast("Any", Feed(source, Account.book)), "takes a list"),
    ):
        with pytest.raises(DefinitionError, match=match):
            Harness(Account, sources=feeds)


async def payments_come_in(sim: Simulation) -> None:
    topic: Topic = sim.dependencies[Topic]
    for number in range(6):
        topic.put(b"%d" % number, key="ab"[number % 2])
        await sim.advance(0.01)
    await sim.until(lambda snapshots: sum(len(snapshots[Account, key].booked) for key in "ab") >= 6, within=600)
    await sim.advance(60)
    for start, key in enumerate("ab"):
        assert sim.snapshots[Account, key].booked == [*range(start, 6, 2)]


def test_no_crash_around_a_commit_loses_or_doubles_a_record() -> None:
    for_each_crash_point(
        payments_come_in,
        Account,
        place=("before_commit", "after_commit"),
        dependencies=lambda: {Topic: Topic()},
        sources=lambda made: [Feed(TopicSource(made[Topic], most_at_once=2), Account.book)],
    )


async def test_no_record_is_lost_where_a_source_is_paused_and_resumed_while_it_reads() -> None:
    for ticks in range(10):
        topic = Topic()
        async with Harness(Account, sources=fed(topic)) as app:
            await app.settle()
            for number in range(4):
                topic.put(b"%d" % number, key="a")
                for _ in range(ticks % 5):
                    await asyncio.sleep(0)
                pausing = asyncio.ensure_future(app.pause_source("topic"))
                for _ in range(ticks):
                    await asyncio.sleep(0)
                await app.resume_source("topic")
                await pausing
            await app.resume_source("topic")
            assert await booked(app, "a") == [0, 1, 2, 3], f"after {ticks} turns"


async def test_what_comes_behind_a_record_that_is_passed_over_at_once_is_read() -> None:
    topic = Topic()
    async with Harness(Account, sources=fed(topic)) as app:
        for value in (b"1", b'"two"', b"3"):  # Of one poll.
            topic.put(value, key="a")
        while not await app.resume_source("topic", pass_over=True):
            await asyncio.sleep(0)
        assert await booked(app, "a") == [1, 3]


@pytest.mark.parametrize(
    "wrong",
    [
        "no record",
        SourceRecord(partition="\0", position=1, key="a", value=b"1"),
        SourceRecord(partition="0", position=2**63, key="a", value=b"1"),
        SourceRecord(partition="0", position=1, key="a", value=cast("Any", "1")),
        SourceRecord(partition="0", position=1, key="a", value=b"1", headers=cast("Any", 7)),
    ],
)
async def test_nothing_of_a_poll_is_taken_that_gives_what_is_no_record(wrong: Any) -> None:
    class Wrong(TopicSource):
        async def poll(self) -> Sequence[SourceRecord]:
            records = await super().poll()
            return records if self.opened > 1 else [*records, wrong]

    topic = Topic()
    topic.put(b"0", key="a")
    async with Harness(Account, sources=[Feed(Wrong(topic), Account.book)]) as app:
        assert await booked(app, "a") == []
        assert "TypeError" in ((await app.sources())[0].failure or "")
        await app.advance(1)
        assert await booked(app, "a") == [0]


async def test_a_source_that_ignores_its_cancellation_does_not_keep_the_runtime_from_stopping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running_sources, "STOPPING_US", 1_000)
    ends = asyncio.Event()

    class Stubborn(TopicSource):
        async def poll(self) -> Sequence[SourceRecord]:
            while not ends.is_set():
                with suppress(asyncio.CancelledError):
                    await ends.wait()
            return ()

    try:
        with capture_logs() as logs:
            async with Runtime(MemoryStore(), [Account], sources=[Feed(Stubborn(Topic()), Account.book)]) as runtime:
                while not (await runtime.sources())[0].positions:
                    await asyncio.sleep(0)
    finally:
        ends.set()
    assert [one["source"] for one in logs if "does not end" in one["event"]] == ["topic"]


async def test_a_record_that_the_store_does_not_take_pauses_its_source() -> None:
    topic = Topic()
    async with Harness(Account, sources=fed(topic), store=MemoryStore(value_limit_bytes=50_000)) as app:
        topic.put(b"1", key="a")
        topic.put(b"2", key="k" * 40_000)
        topic.put(b"3", key="a")
        await app.settle()
        (one,) = await app.sources()
        assert "cannot be stored" in (one.reason or "")
        assert await app.resume_source("topic", pass_over=True)
        assert await booked(app, "a") == [1, 3]


async def test_what_can_be_gone_through_only_once_is_no_answer_of_a_source() -> None:
    class Generating(TopicSource):
        async def poll(self) -> Sequence[SourceRecord]:
            records = await super().poll()
            return records if self.opened > 1 else cast("Any", (record for record in records))

    topic = Topic()
    topic.put(b"1", key="a")
    async with Harness(Account, sources=[Feed(Generating(topic), Account.book)]) as app:
        await app.settle()
        assert "sequence of SourceRecords" in ((await app.sources())[0].failure or "")
        await app.advance(1)
        assert await booked(app, "a") == [1]


async def test_a_reason_that_is_no_unicode_text_doubles_nothing() -> None:
    class Number(int):
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            return core_schema.no_info_plain_validator_function(refusing)

    def refusing(given: object) -> int:
        if given == 2:
            raise ValueError("not \udcff")
        assert isinstance(given, int)
        return given

    class Exact(VirtualObject):
        taken: list[int] = state(default=[])

        @handler
        async def take(self, ctx: ObjectContext, number: Number) -> None:
            self.taken.append(int(number))

    topic = Topic()
    topic.put(b"1", key="a")
    topic.put(b"2", key="a")
    disk = Disk()
    for _ in range(3):
        async with Harness(Exact, sources=[Feed(TopicSource(topic), Exact.take)], store=MemoryStore(disk)) as app:
            await app.settle()
            assert (await app.state(Exact, "a"))["taken"] == [1]
            assert "\\udcff" in ((await app.sources())[0].reason or "")


async def test_a_source_whose_row_cannot_be_read_is_not_read_until_the_row_is_restored_or_passed_over() -> None:
    topic, disk = Topic(), Disk()
    topic.put(b"1", key="a")
    async with Harness(Account, sources=fed(topic), store=MemoryStore(disk)) as app:
        assert await booked(app, "a") == [1]
    row = disk.state[SOURCES]["topic"]
    disk.state[SOURCES]["topic"] = b"{dam"
    topic.put(b"2", key="a")
    for _ in range(2):
        with capture_logs() as logs:
            async with Harness(Account, sources=fed(topic), store=MemoryStore(disk)) as app:
                assert await booked(app, "a") == [1]
                (one,) = await app.sources()
                assert one.status == "paused"
                assert (one.reason or "").startswith("The store does not tell how far the source 'topic' was read")
                with pytest.raises(UnreadableRecordError, match="pass_over=True"):
                    await app.resume_source("topic")
                assert await booked(app, "a") == [1], "a resume does not begin anew silently"
        assert "a source is paused, since the store does not tell where it was" in [one["event"] for one in logs]
    async with Harness(Account, sources=fed(topic), store=MemoryStore(disk)) as app:
        await app.settle()
        disk.state[SOURCES]["topic"] = row
        assert await app.resume_source("topic")
        assert await booked(app, "a") == [1, 2], "it goes on where it was"
    disk.state[SOURCES]["topic"] = b""
    async with Harness(Account, sources=fed(topic), store=MemoryStore(disk)) as app:
        assert await app.resume_source("topic", pass_over=True)
        assert await booked(app, "a") == [1, 2, 1, 2], "a person has decided"


async def test_how_far_a_source_is_behind_is_told_where_the_source_knows() -> None:
    class Silent(TopicSource):
        ends: Any = None

    class Wrong(TopicSource):
        def ends(self) -> Mapping[str, int]:
            raise ConnectionError("nobody there")

    topic = Topic(partitions=2)
    for source, behind in ((TopicSource(topic), 3), (Silent(topic), None), (Wrong(topic), None)):
        async with Harness(Account, sources=[Feed(source, Account.book)]) as app:
            await app.settle()
            assert await app.pause_source("topic")
            for value in (b"1", b"2", b"3"):
                topic.put(value, key="a")
            (one,) = await app.sources()
            assert one.behind == behind
            assert (await app.metrics()).source_lags == ({} if behind is None else {"topic": 3})
            await app.resume_source("topic")
            await app.settle()
            (one,) = await app.sources()
            assert one.behind == (None if behind is None else 0)
