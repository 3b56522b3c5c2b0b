"""What is large is decoded in slices, and between two slices everybody else gets a turn."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, replace
from types import GeneratorType
from typing import Any

import msgspec
import pytest

from durably import InvalidArgumentError, ObjectContext, Runtime, VirtualObject, handler, state
from durably.runtime.environment import Environment
from durably.runtime.gateway.requests import InvocationRequest
from durably.runtime.incarnation.sliced_work import SlicedWork
from durably.runtime.settings import Settings
from durably.storage.memory import MemoryStore

SLICE_BYTES = 1_000
LARGE = list(range(5_000))
LARGE_BODY = msgspec.json.encode(LARGE)
SLICES = len(LARGE_BODY) // (2 * SLICE_BYTES)
"""At least so many slices it has."""


@dataclass
class Line:
    number: int


class PreparationDesk(VirtualObject):
    total: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, numbers: list[int], times: int = 1) -> int:
        self.total += sum(numbers) * times
        return self.total

    @handler
    async def lines(self, ctx: ObjectContext, count: int) -> list[Line]:
        return [Line(number) for number in range(count)]

    @handler
    async def asked(self, ctx: ObjectContext) -> int:
        lines = await ctx.object(PreparationDesk, "other").lines(2_000)
        made = await ctx.run("make", _make)
        await ctx.sleep(0.01)
        lines[0].number += 1  # It is this attempt's own (rule V1).
        return len(lines) + len(made) + lines[0].number

    @handler
    async def asked_in_new_code(self, ctx: ObjectContext) -> tuple[bool, bool]:
        await ctx.run("make", _make)
        is_new = ctx.patched("more")
        await ctx.sleep(0.01)
        return is_new, ctx.patched("more")

    @handler
    async def poll(self, ctx: ObjectContext, times: int) -> int:
        for _ in range(times):
            await ctx.sleep(0)
        await ctx.sleep(0.01)
        return times


def _make() -> list[Line]:
    return [Line(number) for number in range(3_000)]


class Turns:
    """Counts the turns that others get."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)

    async def during(self, work: Awaitable[Any]) -> Any:
        """The result, and in `count` how many turns others got meanwhile."""
        counting = asyncio.create_task(self())
        try:
            return await work
        finally:
            counting.cancel()


def runtime(**settings: Any) -> Runtime:
    made = replace(Settings(), slice_bytes=SLICE_BYTES, **settings)
    return Runtime(MemoryStore(), [PreparationDesk], environment=Environment(settings=made))


class Slices:
    """Counts slices by what they are of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts: Counter[str] = Counter()
        begin = SlicedWork.begin

        def counted(slices: Generator[None, None, Any]) -> Generator[None, None, Any]:
            assert isinstance(slices, GeneratorType)
            work = slices.__name__
            while True:
                try:
                    next(slices)
                except StopIteration as stop:
                    return stop.value
                self.counts[work] += 1
                yield

        def begin_counted(
            work: SlicedWork,
            slices: Generator[None, None, Any],
            then: Callable[[Any], None],
            failed: Callable[[BaseException], None],
        ) -> None:
            begin(work, counted(slices), then, failed)

        monkeypatch.setattr(SlicedWork, "begin", begin_counted)


async def test_between_two_slices_of_a_large_body_others_get_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    slices, turns = Slices(monkeypatch), Turns()
    async with runtime() as served:
        request = InvocationRequest(service="PreparationDesk", key="a", handler="add", body=LARGE_BODY)
        reply = await turns.during(served.request_call(request))
    assert reply.body == b"%d" % sum(LARGE)
    assert slices.counts["admit_in_slices"] > SLICES
    assert slices.counts["_attempt"] > SLICES
    assert slices.counts["release_in_slices"] == 1
    assert turns.count > slices.counts["admit_in_slices"] + slices.counts["_attempt"]


async def test_large_answers_are_decoded_in_slices_live_and_on_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = Slices(monkeypatch)
    made = Settings(slice_bytes=SLICE_BYTES, verify_replay=True)
    served = Runtime(MemoryStore(), [PreparationDesk], suspend_after=0, environment=Environment(settings=made))
    async with served:
        assert await served.object(PreparationDesk, "a").asked() == 5_001
    answers_bytes = sum(len(msgspec.json.encode([Line(number) for number in range(count)])) for count in (2_000, 3_000))
    assert slices.counts["prepare_answers"] > answers_bytes / (2 * SLICE_BYTES)
    # The attempt left memory while it slept, and its journal was replayed.
    assert slices.counts["_attempt"] > answers_bytes / (2 * SLICE_BYTES)


async def test_a_long_journal_is_replayed_a_part_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = Slices(monkeypatch)
    made = Settings(replayed_at_once=10)
    async with Runtime(
        MemoryStore(), [PreparationDesk], suspend_after=0, environment=Environment(settings=made)
    ) as served:
        assert await served.object(PreparationDesk, "a").poll(100) == 100
    assert slices.counts["_attempt"] >= 10


async def test_a_change_of_the_code_is_answered_alike_in_slices() -> None:
    made = Settings(slice_bytes=SLICE_BYTES)
    async with Runtime(
        MemoryStore(), [PreparationDesk], suspend_after=0, environment=Environment(settings=made)
    ) as served:
        assert await served.object(PreparationDesk, "a").asked_in_new_code() == (True, True)


async def test_what_the_host_has_frozen_is_asked_for_once_and_stays_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask takes as long as there are frozen objects."""
    asked: list[int] = []

    def get_freeze_count() -> int:
        asked.append(1_000_000)
        return asked[-1]

    monkeypatch.setattr(gc, "get_freeze_count", get_freeze_count)
    monkeypatch.setattr(gc, "unfreeze", lambda: pytest.fail("what the host has frozen is not any more"))
    async with runtime() as served:
        assert len(await served.object(PreparationDesk, "a").lines(2_000)) == 2_000
    assert len(asked) == 1


async def test_a_large_result_is_decoded_for_a_caller_outside_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = Slices(monkeypatch)
    async with runtime() as served:
        lines = await served.object(PreparationDesk, "a").lines(2_000)
    assert lines == [Line(number) for number in range(2_000)]
    assert slices.counts["decode_in_slices"] > 10


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (LARGE_BODY[:-1] + b',"x"]', r"\$\[5000\]"),
        (LARGE_BODY[:-1], "is malformed|truncated"),
        (b'{"numbers":' + LARGE_BODY + b',"time":2}', "unknown field `time`"),
        (b'{"times":2,"other":' + LARGE_BODY + b"}", "Expected `array`, got `object`"),
    ],
)
async def test_a_large_body_that_does_not_fit_is_refused_and_nothing_accepted(body: bytes, told: str) -> None:
    async with runtime() as served:
        with pytest.raises(InvalidArgumentError, match=told):
            await served.call("PreparationDesk", "add", body, key="a")
        assert [one async for one in served.invocations()] == []


async def test_a_large_body_by_name_and_a_bare_one_mean_the_same() -> None:
    async with runtime() as served:
        by_name = await served.call("PreparationDesk", "add", b'{"numbers":' + LARGE_BODY + b',"times":2}', key="a")
        bare = await served.call("PreparationDesk", "add", LARGE_BODY, key="b")
    assert (by_name, bare) == (b"%d" % (2 * sum(LARGE)), b"%d" % sum(LARGE))


async def test_a_small_message_to_the_same_object_waits_behind_a_large_one_that_was_accepted() -> None:
    async with runtime() as served:
        sent = await served.object(PreparationDesk, "a").add.send(LARGE)
        assert await served.object(PreparationDesk, "a").add([1]) == sum(LARGE) + 1
        assert await sent.result() == sum(LARGE)


async def test_a_stop_waits_for_what_is_being_decoded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    store = MemoryStore()
    made = Environment(settings=Settings(slice_bytes=SLICE_BYTES))
    async with Runtime(store, [PreparationDesk], environment=made) as served:
        await served.object(PreparationDesk, "a").add.send(LARGE)
    async with Runtime(store, [PreparationDesk], environment=made) as served:
        assert await served.object(PreparationDesk, "a").add([]) == sum(LARGE)
    assert not caplog.records
