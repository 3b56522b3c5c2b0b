"""Lists of invocations and objects, and journals: complete, in a stated order, in pages, beside what goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from durably import (
    Context,
    InvocationStatus,
    MemoryStore,
    ObjectContext,
    Runtime,
    Service,
    SharedContext,
    SqliteStore,
    TerminalError,
    UnknownTargetError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.codecs import AesGcmCodec
from durably.inspection import JournalAnswer, JournalStep
from durably.runtime.inspection import listing
from durably.runtime.inspection.journals import STEPS_AT_ONCE
from durably.storage.encoded import EncodedStore
from durably.testing import Harness

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Item:
    """Something that is sold."""

    name: str
    cents: int


class Refused(TerminalError):
    cents: int


class Cart(VirtualObject):
    items: list[Item] = state(default=[])
    note: str = state(default="")

    @handler
    async def add(self, ctx: ObjectContext, item: Item, *, gift: bool = False) -> int:
        self.items.append(item)
        await ctx.sleep(60)
        return len(self.items)

    @handler
    async def touch(self, ctx: ObjectContext) -> None: ...

    @handler
    async def keep(self, ctx: ObjectContext, text: str) -> None:
        self.note = text

    @handler
    async def check_out(self, ctx: ObjectContext) -> str:
        self.note = "paying"
        paid = await ctx.run("pay", pay)
        try:
            await ctx.service(Bank).book(Item("book", paid))
        except Refused:
            del self.note
        await ctx.object(Cart, "gifts").add.after(minutes=5).send(Item("card", 1), gift=True)
        await ctx.sleep(600)
        return "done"

    @shared
    async def wait(self, ctx: SharedContext) -> None:
        await ctx.sleep(600)


class Bank(Service):
    @handler
    async def book(self, ctx: Context, item: Item) -> None:
        error = Refused("too little")
        error.cents = item.cents
        raise error

    @handler
    async def count(self, ctx: Context, steps: int) -> None:
        for _ in range(steps):
            await ctx.sleep(1)


async def pay() -> int:
    return 42


async def keys(app: Runtime) -> list[str]:
    return [one.key async for one in app.objects(Cart)]


async def test_invocations_come_in_the_order_of_acceptance_with_a_description(tmp_path: Path) -> None:
    async with Harness(Cart, Bank, store=SqliteStore(tmp_path / "app.db")) as app:
        first = await app.object(Cart, "m/y").add.options(idempotency_key="k", timeout=300).send(Item("a", 1))
        second = await app.object(Cart, "m/y").touch.send()
        third = await app.object(Cart, "joe").keep.after(minutes=1).send("x")
        await app.settle()
        listed = [one async for one in app.invocations()]
        assert [one.id for one in listed] == [first.id, second.id, third.id]
        told = [one.description for one in listed]
        assert [one.target for one in told] == ["Cart/m/y/add", "Cart/m/y/touch", "Cart/joe/keep"]
        assert [one.status for one in told] == ["suspended", "pending", "scheduled"]
        assert (told[0].idempotency_key, told[1].idempotency_key) == ("k", None)
        assert (told[0].accepted_at, told[0].deadline) == (BEGIN, BEGIN + timedelta(minutes=5))
        assert (told[2].due, told[0].due) == (BEGIN + timedelta(minutes=1), None)
        assert [one.id async for one in app.invocations(limit=2)] == [first.id, second.id]
        assert [one.id async for one in app.invocations(limit=0)] == []
        assert [one.id async for one in app.invocations(target="Cart/m%2Fy", status=InvocationStatus.PENDING)] == [
            second.id
        ]
        with pytest.raises(FrozenInstanceError):
            told[0].status = InvocationStatus.PAUSED  # type: ignore[misc]
        await app.advance(minutes=2)
        assert await listed[0].result() == 1


@pytest.mark.parametrize("store", ["memory", "sqlite", "encrypted"])
async def test_objects_come_by_key_with_what_is_in_the_store_and_what_is_in_memory(tmp_path: Path, store: str) -> None:
    plain = MemoryStore() if store == "memory" else SqliteStore(tmp_path / "app.db")
    opened = EncodedStore(plain, AesGcmCodec(b"k" * 32)) if store == "encrypted" else plain
    async with Harness(Cart, store=opened) as app:
        await app.object(Cart, "b").keep("ten chars.")
        await app.object(Cart, "a").add.send(Item("a", 1))
        for _ in range(3):
            await app.object(Cart, "a").touch.send()
        await app.object(Cart, "a").wait.send()
        await app.object(Cart, "é").touch()  # No state, nothing to do: in memory alone.
        await app.object(Cart, "Z").keep.after(days=1).send("later")
        await app.settle()
        told = {one.key: one async for one in app.objects(Cart)}
        assert list(told) == ["Z", "a", "b", "é"]
        assert (told["a"].mailbox_messages, told["a"].started_invocations) == (3, 2)
        assert told["a"].is_active
        assert told["é"].is_active
        assert (told["é"].state_bytes, told["Z"].started_invocations, told["Z"].is_active) == (0, 0, False)
        assert told["b"].state_bytes == 12 if store != "encrypted" else told["b"].state_bytes > 12
        assert [one.key async for one in app.objects(Cart, limit=2)] == ["Z", "a"]
        await app.advance(hours=1)
        assert [one.key async for one in app.objects(Cart)] == ["Z", "a", "b"]
        assert not any([one.is_active async for one in app.objects(Cart)])


@pytest.mark.parametrize("page", [1, 2, 3, 500])
async def test_a_page_more_or_less_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(listing, "PAGE", page)
    async with Harness(Cart, store=SqliteStore(tmp_path / "app.db")) as app:
        for key in ("c", "a", "b", "d"):
            await app.object(Cart, key).keep("x")
        await app.advance(hours=1)
        for key in ("bb", "0", "zz"):
            await app.object(Cart, key).touch()
        sent = [(await app.object(Cart, "x").touch.send()).id for _ in range(5)]
        assert await keys(app) == ["0", "a", "b", "bb", "c", "d", "x", "zz"]
        assert [one.id async for one in app.invocations()] == sent


async def test_a_list_goes_on_beside_commits_and_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE", 1)
    async with Harness(Cart, store=SqliteStore(tmp_path / "app.db")) as app:
        sent = [await app.object(Cart, key).add.send(Item("a", 1)) for key in ("a", "b", "c")]
        seen: list[str] = []
        async for one in app.invocations():
            seen.append(one.id)
            await app.object(Cart, "other").keep(one.id)
        assert seen == [one.id for one in sent]
        await app.advance(minutes=1)


def shown(steps: Sequence[JournalStep]) -> list[str]:
    return [command.text for step in steps for command in step.commands]


@pytest.mark.parametrize("coded", [False, True])
async def test_a_journal_is_decoded_by_the_types_of_its_handlers(tmp_path: Path, coded: bool) -> None:
    store = SqliteStore(tmp_path / "app.db")
    opened = EncodedStore(store, AesGcmCodec(b"k" * 32)) if coded else store
    async with Harness(Cart, Bank, store=opened) as app:
        paying = await app.object(Cart, "mary").check_out.send()
        await app.settle()
        journal = await app.journal(paying.id)
        assert (journal.target, journal.status) == ("Cart/mary/check_out", "suspended")
        assert journal.accepted_at == BEGIN
        assert shown(journal.steps) == ["run 'pay'", "call Bank/book", "send Cart/gifts/add", "sleep"]
        first, second, third = journal.steps
        assert first.changes == {"note": "paying"}
        assert second.answers == (JournalAnswer(command=0, text="run 'pay'", value=42),)
        assert second.commands[0].value == {"item": Item("book", 42)}
        (refused,) = third.answers
        assert isinstance(refused.error, Refused)
        assert refused.error.cents == 42
        assert third.cleared == ("note",)
        assert [command.number for command in third.commands] == [2, 3]
        assert third.commands[0].value == {"item": Item("card", 1), "gift": True}
        assert "asked for #1 call Bank/book {'item': Item(name='book', cents=42)}" in str(journal)
        assert "set note = 'paying'" in str(journal)
        await app.advance(minutes=20)
        ended = await app.journal(paying.id)
        assert (ended.steps, ended.result, ended.error) == ((), "done", None)
        with pytest.raises(UnknownTargetError, match="There is no invocation"):
            await app.journal("inv_1nothing")


async def test_arguments_are_told_by_name_and_what_no_type_fits_as_bytes() -> None:
    store = MemoryStore()
    async with Harness(Cart, store=store) as app:
        adding = await app.object(Cart, "mary").add.send(Item("a", 1), gift=True)
        await app.settle()
        journal = await app.journal(adding.id)
        assert journal.arguments == {"item": Item("a", 1), "gift": True}
        assert journal.steps[0].changes == {"items": [Item("a", 1)]}

    class Changed(VirtualObject, name="Cart"):
        items: int = state(default=0)

        @handler
        async def add(self, ctx: ObjectContext, item: int) -> None: ...

    async with Harness(Changed, store=store) as app:
        journal = await app.journal(adding.id)
        assert journal.arguments == b'{"item":{"name":"a","cents":1},"gift":true}'
        assert journal.steps[0].changes == {"items": b'[{"name":"a","cents":1}]'}
        await app.kill(adding.id)


async def test_a_long_journal_is_told_whole() -> None:
    async with Harness(Bank) as app:
        counting = await app.service(Bank).count.send(2 * STEPS_AT_ONCE + 10)
        await app.advance(seconds=2 * STEPS_AT_ONCE + 5)
        journal = await app.journal(counting.id)
        assert [step.index for step in journal.steps] == list(range(2 * STEPS_AT_ONCE + 6))
        assert journal.steps[-1].at == BEGIN + timedelta(seconds=2 * STEPS_AT_ONCE + 5)
        await app.advance(seconds=10)
