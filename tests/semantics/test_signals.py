"""Signals: what is sent to an invocation by name, and taken in the order in which it came (rule E5)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably import (
    Context,
    InvalidArgumentError,
    InvocationStatus,
    InvocationStatusError,
    ObjectContext,
    OverloadedError,
    Service,
    TerminalError,
    UnknownTargetError,
    VirtualObject,
    handler,
    select,
)
from durably.storage.memory import MemoryStore
from durably.storage.sqlite import SqliteStore
from durably.testing import Harness
from tests.semantics.support import PuppetStore, begin, engine_of, tuned, turns, wait_a_little
from tests.semantics.test_awakeables import WAYS


class Listener(VirtualObject):
    """Takes signals."""

    @handler
    async def take(self, ctx: ObjectContext, count: int, pause: float = 0) -> list[str]:
        if pause:
            await ctx.sleep(pause)
        return [await ctx.signal("word", str) for _ in range(count)]

    @handler
    async def take_at_once(self, ctx: ObjectContext, count: int) -> list[str]:
        return [*await asyncio.gather(*(ctx.signal("word", str) for _ in range(count)))]

    @handler
    async def take_numbers_and_words(self, ctx: ObjectContext) -> list[int | str]:
        number, word = ctx.signal("number", int), ctx.signal("word", str)
        return [await word, await number]

    @handler
    async def take_what_comes_first(self, ctx: ObjectContext) -> str:
        name, value = await select(word=ctx.signal("word", str), stop=ctx.signal("stop", str))
        return f"{name} {value}"

    @handler
    async def give_up_and_take(self, ctx: ObjectContext, limit: float) -> list[str]:
        """The first wait ends in vain; it takes no signal from the second."""
        taken: list[str] = []
        while len(taken) < 2:
            try:
                async with asyncio.timeout(limit):
                    taken.append(await ctx.signal("word", str))
            except TimeoutError:
                taken.append("in vain")
        return taken

    @handler
    async def signal_oneself(self, ctx: ObjectContext) -> list[str]:
        me = ctx.invocation(ctx.request.id, list[str])
        await me.signal("word", "before")
        before, after = ctx.signal("word", str), ctx.signal("word", str)
        await me.signal("word", "after")
        return [await before, await after]

    @handler
    async def add(self, ctx: ObjectContext) -> str:
        return "added"


class Sender(Service):
    """Sends signals."""

    @handler
    async def send(self, ctx: Context, id: str, words: list[str]) -> None:
        for word in words:
            await ctx.invocation(id, str).signal("word", word)

    @handler
    async def send_side_by_side(self, ctx: Context, id: str, words: list[str]) -> None:
        await asyncio.gather(*(ctx.invocation(id, str).signal("word", word) for word in words))

    @handler
    async def start_and_send(self, ctx: Context, key: str, words: list[str]) -> list[str]:
        started = await ctx.object(Listener, key).take.send(len(words))
        for word in words:
            await started.signal("word", word)
        return await started.result()

    @handler
    async def reject(self, ctx: Context, id: str, reason: str) -> None:
        await ctx.invocation(id, str).reject_signal("word", reason, code=418)

    @handler
    async def send_and_end(self, ctx: Context, id: str, word: str) -> None:
        task = asyncio.create_task(_send(ctx, id, word))
        await asyncio.sleep(0)
        assert not task.done()


async def _send(ctx: Context, id: str, word: str) -> None:
    await ctx.invocation(id, str).signal("word", word)


class Strict(VirtualObject):
    """Sends with its outcome only."""

    @handler(atomic=True)
    async def send(self, ctx: ObjectContext, id: str, *, fails: bool) -> None:
        await ctx.invocation(id, str).signal("word", "from an atomic handler")
        await ctx.sleep(10)
        if fails:
            raise TerminalError("not good")


@pytest.fixture(params=[*WAYS])
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Where the one who waits is meanwhile."""
    return WAYS[request.param]


async def test_signals_are_taken_in_the_order_in_which_they_came(way: dict[str, Any]) -> None:
    async with Harness(Listener, Sender, **way) as app:
        listener = app.object(Listener, "a")
        for method in (listener.take, listener.take_at_once):
            taking = await method.send(4)
            await taking.signal("word", "before it waits")
            await app.settle()
            await taking.signal("word", "from outside")
            await app.service(Sender).send(taking.id, ["from", "a handler"])
            assert await taking.result() == ["before it waits", "from outside", "from", "a handler"]


async def test_signals_wait_for_an_invocation_that_has_not_started(way: dict[str, Any]) -> None:
    async with Harness(Listener, Sender, **way) as app:
        listener = app.object(Listener, "a")
        await listener.take.send(0, 100)
        queued = await listener.take.send(1)
        delayed = await listener.take.after(300).send(2)
        await app.settle()
        assert await queued.status() is InvocationStatus.PENDING
        await queued.signal("word", "queued")
        await delayed.signal("word", "delayed")
        await app.crash()
        await delayed.signal("word", "again")
        await app.advance(200)
        assert await queued.result() == ["queued"]
        await app.advance(200)
        assert await delayed.result() == ["delayed", "again"]


async def test_each_name_has_its_own_signals(way: dict[str, Any]) -> None:
    async with Harness(Listener, **way) as app:
        listener = app.object(Listener, "a")
        taking = await listener.take_numbers_and_words.send()
        await taking.signal("number", 7)
        await taking.signal("word", "seven")
        assert await taking.result() == ["seven", 7]
        racing = await listener.take_what_comes_first.send()
        await app.settle()
        await racing.signal("stop", "now")
        assert await racing.result() == "stop now"


async def test_a_rejected_signal_is_a_terminal_error_where_it_is_awaited(way: dict[str, Any]) -> None:
    async with Harness(Listener, Sender, **way) as app:
        for from_outside in (True, False):
            taking = await app.object(Listener, "a").take.send(1)
            if from_outside:
                await taking.reject_signal("word", "no", code=418)
            else:
                await app.service(Sender).reject(taking.id, "no")
            with pytest.raises(TerminalError, match="no") as refused:
                await taking.result()
            assert refused.value.code == 418


async def test_one_whose_wait_ended_takes_none(way: dict[str, Any]) -> None:
    async with Harness(Listener, **way) as app:
        taking = await app.object(Listener, "a").give_up_and_take.send(10)
        await app.advance(15)
        await taking.signal("word", "late")
        assert await taking.result() == ["in vain", "late"]


async def test_a_signal_that_comes_with_the_time_limit_is_not_lost(way: dict[str, Any]) -> None:
    """The limit comes first in the log, so the wait ends in vain; the signal is for the next one."""
    async with Harness(Listener, **way) as app:
        for word_first in (True, False):
            taking = await app.object(Listener, "a").give_up_and_take.send(10)
            await app.settle()
            await app.advance(10, due=not word_first)
            await taking.signal("word", "just then")
            await app.settle()
            if word_first:
                await taking.signal("word", "more")
                assert await taking.result() == ["just then", "more"]
            else:
                assert await taking.result() == ["in vain", "just then"]


async def test_one_may_signal_itself(way: dict[str, Any]) -> None:
    async with Harness(Listener, **way) as app:
        assert await app.object(Listener, "a").signal_oneself() == ["before", "after"]


async def test_signals_to_what_was_started_in_the_same_step_arrive(way: dict[str, Any]) -> None:
    async with Harness(Listener, Sender, **way) as app:
        assert await app.service(Sender).start_and_send("a", ["one", "two"]) == ["one", "two"]


async def test_signals_that_are_sent_side_by_side_keep_the_order_of_issue(way: dict[str, Any]) -> None:
    async with Harness(Listener, Sender, **way) as app:
        taking = await app.object(Listener, "a").take.send(3)
        await app.settle()
        await app.service(Sender).send_side_by_side(taking.id, ["one", "two", "three"])
        assert await taking.result() == ["one", "two", "three"]


async def test_who_signals_what_has_ended_or_never_was_is_told(way: dict[str, Any]) -> None:
    async with Harness(Listener, Sender, **way) as app:
        ended = await app.object(Listener, "a").take.send(0)
        assert await ended.result() == []
        unknown = "inv_1" + "0" * 33

        async def send(id: str, *, from_outside: bool) -> None:
            if from_outside:
                await app.invocation(id, str).signal("word", "x")
            else:
                await app.service(Sender).send(id, ["x"])

        for from_outside in (True, False):
            with pytest.raises(InvocationStatusError, match="has ended") as refused:
                await send(ended.id, from_outside=from_outside)
            assert refused.value.code == 409
            with pytest.raises(UnknownTargetError, match="There is no invocation"):
                await send(unknown, from_outside=from_outside)
        with pytest.raises(UnknownTargetError):
            await app.invocation("no id", str).signal("word")


async def test_a_signal_of_a_handler_that_has_ended_arrives(way: dict[str, Any]) -> None:
    """Rule S6: what was issued stands."""
    async with Harness(Listener, Sender, **way) as app:
        taking = await app.object(Listener, "a").take.send(1)
        await app.settle()
        await app.service(Sender).send_and_end(taking.id, "and gone")
        assert await taking.result() == ["and gone"]


async def test_an_atomic_handler_signals_with_a_good_outcome_only(way: dict[str, Any]) -> None:
    """Rule V6"""
    async with Harness(Listener, Strict, **way) as app:
        taking = await app.object(Listener, "a").take.send(1)
        for fails in (True, False):
            sent = await app.object(Strict, "s").send.send(taking.id, fails=fails)
            await app.advance(5)
            await app.crash()
            assert await taking.status() is InvocationStatus.SUSPENDED
            await app.advance(5)
            assert await sent.status() is InvocationStatus.COMPLETED
        assert await taking.result() == ["from an atomic handler"]


async def test_a_value_of_another_type_is_a_terminal_400_where_it_is_awaited(way: dict[str, Any]) -> None:
    async with Harness(Listener, **way) as app:
        taking = await app.object(Listener, "a").take.send(1)
        await taking.signal("word", 7)
        with pytest.raises(InvalidArgumentError, match="the signal 'word' is not what its handler awaits"):
            await taking.result()


async def test_a_name_that_is_an_awakeables_id_is_refused() -> None:
    async with Harness(Listener) as app:
        taking = await app.object(Listener, "a").take.send(1)
        names: list[Any] = ["sign_1abc", "a\0b", 7]
        for name in names:
            with pytest.raises(TypeError, match="The name of a signal is"):
                await taking.signal(name)
        await taking.signal("word", "x")


async def test_signals_that_come_while_the_object_loads_are_neither_lost_nor_doubled() -> None:
    store = PuppetStore()
    async with Harness(Listener, store=store, nothing_resident=True) as app:
        taking = await app.object(Listener, "a").take.send(3)
        await app.settle()
        await taking.signal("word", "before the load")
        await app.settle()
        store.loads.hold()
        sent = [begin(taking.signal("word", word)) for word in ("one", "two")]
        await turns()
        store.loads.release()
        await asyncio.gather(*sent)
        assert await taking.result() == ["before the load", "one", "two"]


async def test_a_signal_whose_look_up_is_slow_comes_after_those_that_overtook_it() -> None:
    store = PuppetStore()
    async with Harness(Listener, Sender, store=store, nothing_resident=True) as app:
        taking = await app.object(Listener, "a").take.send(2)
        await app.settle()
        store.lookups.hold()
        slow = begin(app.service(Sender).send(taking.id, ["first"]))
        await turns()
        fast = begin(taking.signal("word", "second"))
        await turns()
        assert not slow.done()
        store.lookups.release()
        await asyncio.gather(slow, fast)
        assert sorted(await taking.result()) == ["first", "second"]


async def test_a_signal_that_nothing_waits_for_leaves_the_invocation_where_it_was() -> None:
    store = PuppetStore()
    async with Harness(Listener, store=store, nothing_resident=True) as app:
        sleeping = await app.object(Listener, "a").take.send(1, 600)
        await app.settle()
        await sleeping.signal("word", "early")
        await app.settle()
        (row,) = store.memory.disk.rows.values()
        assert row.record.status is InvocationStatus.SUSPENDED
        assert [signal.name for signal in row.signals.values()] == ["word"]
        assert not engine_of(app).parts.registry.live
        await app.crash()
        await app.advance(700)
        assert await sleeping.result() == ["early"]
        assert all(not row.signals for row in store.memory.disk.rows.values())


async def test_an_invocation_that_ends_leaves_no_signals_behind(way: dict[str, Any]) -> None:
    disk = MemoryStore()
    async with Harness(Listener, Sender, store=disk, **way) as app:
        listener = app.object(Listener, "a")
        taking = await listener.take.send(1)
        for word in ("taken", "too much", "more"):
            try:
                await taking.signal("word", word)
            except InvocationStatusError:
                assert word != "taken"
        assert await taking.result() == ["taken"]
        await app.settle()
        assert all(not row.signals for row in disk.disk.rows.values())


@pytest.mark.parametrize("durable", [True, False])
async def test_who_signals_while_a_commit_fails_hears_that_the_outcome_is_unknown(
    store: PuppetStore, durable: bool
) -> None:
    async with Harness(Listener, store=store) as app:
        taking = await app.object(Listener, "a").take.send(1)
        await app.settle()
        store.hold()
        sent = begin(taking.signal("word", "perhaps"))
        await turns()
        await store.fail_one(durable=durable)
        await store.go_on()
        await wait_a_little(app, 1)
        with pytest.raises(Exception, match="the outcome is unknown"):
            await sent
        if not durable:
            await taking.signal("word", "again")
        assert await taking.result() == ["perhaps" if durable else "again"]


async def test_outside_signals_have_a_limit() -> None:
    """Rule C8"""
    async with tuned(Harness(Listener, Sender), mailbox_messages=3) as app:
        sleeping = await app.object(Listener, "a").take.send(4, 600)
        await app.settle()
        for number in range(3):
            await sleeping.signal("word", str(number))
        with pytest.raises(OverloadedError, match="has 3 signals that it has not taken"):
            await sleeping.signal("word", "too many")
        await app.service(Sender).send(sleeping.id, ["always"])
        await app.advance(700)
        assert await sleeping.result() == ["0", "1", "2", "always"]


@pytest.mark.parametrize("target", ["suspended", "paused", "pending", "scheduled"])
async def test_outside_signals_have_a_limit_where_the_invocation_is_not_in_memory_too(target: str) -> None:
    """Rule C8"""
    async with tuned(Harness(Listener, suspend_after=0, nothing_resident=True), mailbox_messages=3) as app:
        listener = app.object(Listener, "a")
        if target == "pending":
            await listener.take.send(1, 500)
            await app.settle()
        take = listener.take
        sent = await (take.after(500).send(3) if target == "scheduled" else take.send(3, 600))
        await app.settle()
        if target == "paused":
            await app.pause(sent.id)
        for number in range(3):
            await app.settle()
            await sent.signal("word", str(number))
        for _ in range(2):
            await app.crash()
            with pytest.raises(OverloadedError, match=r"has 3 signals that it has not taken.*runtime\.resume\('inv_1"):
                await sent.signal("word", "too many")
        assert await app.kill("Listener/a") != []


async def test_signals_wait_in_a_file_too(tmp_path: Any) -> None:
    for suspend_after in (60, 0):
        path = tmp_path / f"{suspend_after}.db"
        async with Harness(Listener, store=SqliteStore(path), suspend_after=suspend_after) as app:
            taking = await app.object(Listener, "a").take.send(3, 600)
            await taking.signal("word", "x" * 100_000)
            await taking.signal("word", "small")
        async with Harness(Listener, store=SqliteStore(path), suspend_after=suspend_after) as app:
            again = app.invocation(taking.id, list[str])
            await again.signal("word", "last")
            await app.advance(700)
            assert await again.result() == ["x" * 100_000, "small", "last"]
