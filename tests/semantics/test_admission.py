"""Requests from outside wait until the machine reaches them: in order, within limits; before that they are nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import msgspec
import pytest

from durably import (
    InvalidArgumentError,
    ObjectContext,
    OverloadedError,
    RuntimeStoppedError,
    StoreUnavailableError,
    VirtualObject,
    handler,
    state,
)
from durably.testing import Harness
from tests.semantics.support import PuppetStore, begin, engine_of, tuned, turns

read: list[str] = []
"""Words that were made of what somebody has written, in order."""


class Word(msgspec.Struct):
    """Notes when it is read."""

    text: str

    def __post_init__(self) -> None:
        read.append(self.text)


class Reader(VirtualObject):
    """Takes words."""

    @handler
    async def take(self, ctx: ObjectContext, word: Word) -> int:
        return len(word.text)


class Contract(VirtualObject, abstract=True, name="Reader"):
    """What somebody believes of it."""

    @handler
    async def take(self, ctx: ObjectContext, word: dict[str, int]) -> int:
        raise NotImplementedError


began: list[str] = []
"""What handlers began, in order; each is replayed once at its end."""


class Diary(VirtualObject):
    """Keeps what it was told, in order; or passes a message round for ever."""

    lines: list[str] = state(default=[])

    @handler
    async def write(self, ctx: ObjectContext, line: str) -> list[str]:
        began.append(line)
        self.lines.append(line)
        return self.lines

    @handler
    async def pass_round(self, ctx: ObjectContext, left: int) -> None:
        began.append(self.key)
        if left:
            await ctx.object(Diary, self.key).pass_round.send(left - 1)


@pytest.fixture
def store() -> PuppetStore:
    return PuppetStore()


@pytest.fixture
async def app(store: PuppetStore) -> AsyncIterator[Harness]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(Harness(Diary, Reader, store=store))


async def test_requests_are_accepted_in_the_order_in_which_they_came_whatever_they_are(app: Harness) -> None:
    diary = app.object(Diary, "d")
    await diary.write("zero")
    asked = [
        begin(one)
        for one in (
            diary.write("one"),
            diary.write.send("two"),
            diary.write.options(idempotency_key="k")("three"),
            diary.write("four"),
        )
    ]
    attached = begin(diary.write.options(idempotency_key="k").attach())
    await app.settle()
    assert [one.done() for one in asked] == [True] * 4
    lines = await diary.write("five")
    # The store is asked for the key, so the keyed one may come later; the others cannot change places.
    assert [line for line in lines if line != "three"] == ["zero", "one", "two", "four", "five"]
    assert "three" in await attached


async def test_nothing_of_a_request_exists_before_it_is_reached_and_all_of_it_after(
    app: Harness, store: PuppetStore
) -> None:
    await app.object(Diary, "d").write("zero")
    committed = len(store.commits)
    calls = [begin(app.object(Diary, "d").write(str(number))) for number in range(50)]
    await app.settle()
    assert all(call.done() for call in calls)
    assert len(store.commits) == committed + 1
    assert [batch.accepted for batch in store.commits[committed:]] == [[]]


async def test_when_the_store_fails_those_who_were_not_reached_hear_that_nothing_was_accepted(
    app: Harness, store: PuppetStore
) -> None:
    diary = app.object(Diary, "d")
    await diary.write("zero")
    store.hold()
    accepted = begin(diary.write.options(idempotency_key="a")("accepted"))
    await turns()
    waiting, engine = begin(diary.write.options(idempotency_key="k")("waiting")), engine_of(app)
    engine.parts.ready.turn = lambda: None  # The machine does not get to it.
    await turns()
    await store.fail_one(durable=True)
    with pytest.raises(StoreUnavailableError, match="Nothing was accepted") as told:
        await waiting
    assert told.value.nothing_accepted
    await store.go_on()
    assert await accepted == ["zero", "accepted"]
    assert await diary.write("last") == ["zero", "accepted", "last"]


async def test_what_has_arrived_before_a_stop_is_accepted_and_goes_on_at_the_next_start(store: PuppetStore) -> None:
    async with Harness(Diary, Reader, store=store) as app:
        await app.object(Diary, "d").write("zero")
        engine = engine_of(app)
        engine.incarnation.stopping = True  # As the first thing that a stop does.
        call = begin(app.object(Diary, "d").write("one"))
    with pytest.raises(RuntimeStoppedError) as told:
        await call
    assert told.value.id
    async with Harness(Diary, Reader, store=store) as app:
        assert await app.object(Diary, "d").write("two") == ["zero", "one", "two"]


async def test_those_who_wait_count_in_the_limits(store: PuppetStore) -> None:
    async with tuned(Harness(Diary, Reader, store=store), undurable_limit_bytes=4_096) as app:
        await app.object(Diary, "d").write("zero")
        calls = [begin(app.object(Diary, "d").write("x" * 100)) for _ in range(20)]
        await app.settle()
        refused = [call for call in calls if isinstance(call.exception(), OverloadedError)]
        assert 0 < len(refused) < len(calls)
        assert calls[-1] in refused
        assert engine_of(app).parts.ready.arrived_bytes == 0
        await app.object(Diary, "d").write("last")


async def test_handlers_that_keep_each_other_busy_keep_no_one_out(app: Harness) -> None:
    """No virtual time passes, so the machine works all of this off in one go."""
    await app.object(Diary, "d").write("zero")
    await app.object(Diary, "round").pass_round(0)
    busy = begin(app.object(Diary, "round").pass_round.send(500))
    call = begin(app.object(Diary, "d").write("one"))
    began.clear()
    await app.settle()
    assert (busy.done(), call.done()) == (True, True)
    assert began.count("round") >= 500
    assert began.index("one") < 100


async def test_what_the_types_of_the_handler_have_written_is_read_once_and_what_others_have_written_first_of_all(
    app: Harness,
) -> None:
    word = Word("hello")
    read.clear()
    argument = {"text": "hello"}
    assert await app.call("Reader", "take", msgspec.json.encode(argument), key="k") == b"5"
    by_name = len(read)
    read.clear()
    assert await app.object(Reader, "k").take(word) == 5
    assert len(read) == by_name - 1
    with pytest.raises(InvalidArgumentError):  # Rule V5: nothing was accepted.
        await app.object(Contract, "k").take({"text": 5})
