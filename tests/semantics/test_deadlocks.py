"""Rule E8: an exclusive handler that waits for nothing but its own object is told so instead of waiting for ever."""

from __future__ import annotations

import asyncio

import pytest

from durably import DeadlockError, ObjectContext, SharedContext, VirtualObject, handler, shared, state
from durably.storage.memory import MemoryStore
from durably.testing import Harness, StandstillError
from tests.semantics.support import begin, tuned


class Mirror(VirtualObject):
    seen: list[str] = state(default=[])

    @handler
    async def look(self, ctx: ObjectContext) -> list[str]:
        self.seen.append("look")
        return await ctx.object(Mirror, self.key).note("itself")

    @handler
    async def look_twice(self, ctx: ObjectContext) -> list[str]:
        me = ctx.object(Mirror, self.key)
        answers = await asyncio.gather(me.note("a"), me.note("b"), return_exceptions=True)
        return [type(answer).__name__ for answer in answers]

    @handler
    async def look_after_a_while(self, ctx: ObjectContext) -> str:
        call = asyncio.ensure_future(ctx.object(Mirror, self.key).note("itself"))
        await ctx.sleep(10)
        try:
            return " ".join(await call)
        except DeadlockError as error:
            return " -> ".join(error.cycle)

    @handler
    async def look_with_a_limit(self, ctx: ObjectContext) -> str:
        try:
            async with asyncio.timeout(5):
                return " ".join(await ctx.object(Mirror, self.key).note("itself"))
        except TimeoutError:
            return "gave up"

    @handler
    async def look_at_another(self, ctx: ObjectContext, key: str) -> list[str]:
        return await ctx.object(Mirror, key).note("another")

    @handler
    async def look_beside(self, ctx: ObjectContext) -> int:
        return await ctx.object(Mirror, self.key).count()

    @handler
    async def look_keyed(self, ctx: ObjectContext) -> str:
        try:
            await ctx.object(Mirror, self.key).note.options(idempotency_key="k")("keyed")
        except DeadlockError:
            return "deadlock"
        return "no deadlock"

    @handler
    async def wait_for_itself(self, ctx: ObjectContext) -> None:
        await ctx.invocation(ctx.request.id, type(None)).result()

    @handler
    async def wait_for_what_it_sent(self, ctx: ObjectContext, how: str) -> str:
        note = ctx.object(Mirror, self.key).note
        keyed = note.options(idempotency_key="k")
        invocation = await (note if how == "id" else keyed).send("sent")
        waiting = keyed.attach() if how == "key" else keyed("sent") if how == "call" else invocation.result()
        try:
            return " ".join(await waiting)
        except DeadlockError as error:
            return " -> ".join(error.cycle)

    @handler
    async def wait_for_what_it_sent_last(self, ctx: ObjectContext, count: int) -> str:
        note = ctx.object(Mirror, self.key).note
        sent = [await note.send(f"{number}") for number in range(count)]
        await ctx.sleep(10)
        try:
            return " ".join(await sent[-1].result())
        except DeadlockError:
            return "deadlock"

    @handler
    async def note(self, ctx: ObjectContext, what: str) -> list[str]:
        self.seen.append(what)
        return self.seen

    @shared
    async def count(self, ctx: SharedContext) -> int:
        return len(self.seen)


@pytest.mark.parametrize("suspend_after", [60, 0])
async def test_a_call_to_itself_ends_in_an_error_that_names_the_cycle_and_leaves_no_message(
    suspend_after: float,
) -> None:
    store = MemoryStore()
    async with Harness(Mirror, store=store, suspend_after=suspend_after) as app:
        with pytest.raises(DeadlockError, match=r"Mirror/m/look -> Mirror/m/note\.") as told:
            await app.object(Mirror, "m").look()
        assert (told.value.code, told.value.cycle) == (508, ("Mirror/m/look", "Mirror/m/note"))
        assert await app.object(Mirror, "m").note("after") == ["look", "after"]
        assert not store.disk.rows


async def test_several_calls_to_itself_are_answered_one_after_the_other() -> None:
    async with Harness(Mirror) as app:
        assert await app.object(Mirror, "m").look_twice() == ["DeadlockError", "DeadlockError"]
        assert await app.object(Mirror, "m").note("after") == ["after"]


async def test_it_is_told_once_it_waits_for_nothing_else() -> None:
    async with Harness(Mirror) as app:
        looking = begin(app.object(Mirror, "m").look_after_a_while())
        await app.settle()
        assert not looking.done()
        await app.advance(10)
        assert await looking == "Mirror/m/look_after_a_while -> Mirror/m/note"


async def test_a_timer_of_its_own_makes_it_no_deadlock() -> None:
    async with Harness(Mirror) as app:
        looking = begin(app.object(Mirror, "m").look_with_a_limit())
        await app.advance(5)
        assert await looking == "gave up"


async def test_other_objects_and_shared_handlers_of_its_own_are_called_as_ever() -> None:
    async with Harness(Mirror) as app:
        assert await app.object(Mirror, "m").look_at_another("n") == ["another"]
        assert await app.object(Mirror, "m").look_beside() == 0


async def test_waiting_for_ones_own_outcome_is_a_deadlock_too() -> None:
    async with Harness(Mirror) as app:
        with pytest.raises(DeadlockError):
            await app.object(Mirror, "m").wait_for_itself()


@pytest.mark.parametrize("suspend_after", [60, 0])
@pytest.mark.parametrize("how", ["id", "key", "call"])
async def test_waiting_for_what_it_sent_to_its_own_object_is_a_deadlock_and_the_message_stays(
    how: str, suspend_after: float
) -> None:
    async with Harness(Mirror, suspend_after=suspend_after) as app:
        cycle = await app.object(Mirror, "m").wait_for_what_it_sent(how)
        assert cycle == "Mirror/m/wait_for_what_it_sent -> Mirror/m/note"
        assert await app.object(Mirror, "m").note("after") == ["sent", "after"]


async def test_a_message_that_others_wait_for_stays_in_the_mailbox() -> None:
    async with Harness(Mirror) as app:
        looking = begin(app.object(Mirror, "m").look_keyed())
        await asyncio.sleep(0)
        other = begin(app.object(Mirror, "m").note.options(idempotency_key="k")("keyed"))
        assert await looking == "deadlock"
        assert await other == ["keyed"]


@pytest.mark.parametrize("crashes", [0, 1])
async def test_a_message_far_back_in_the_stored_mailbox_is_found_there(crashes: int) -> None:
    store = MemoryStore()
    app = Harness(Mirror, store=store)
    async with tuned(app, pending_in_memory=1):
        looking = await app.object(Mirror, "m").look_after_a_while.send()
        notes = [await app.object(Mirror, "m").note.send(f"{number}") for number in range(3)]
        await app.settle()
        for _ in range(crashes):
            await app.crash()
        await app.advance(10)
        assert await looking.result() == "Mirror/m/look_after_a_while -> Mirror/m/note"
        assert [len(await note.result()) for note in notes] == [1, 2, 3]
        assert await app.object(Mirror, "m").count() == 3


@pytest.mark.parametrize("crashes", [0, 1])
@pytest.mark.parametrize("count", [2, 4])
async def test_what_it_sent_and_waits_for_far_back_in_the_stored_mailbox_stays_there(count: int, crashes: int) -> None:
    app = Harness(Mirror)
    async with tuned(app, pending_in_memory=1):
        looking = await app.object(Mirror, "m").wait_for_what_it_sent_last.send(count)
        await app.settle()
        for _ in range(crashes):
            await app.crash()
        await app.advance(10)
        assert await looking.result() == "deadlock"
        assert await app.object(Mirror, "m").note("after") == [*map(str, range(count)), "after"]


async def test_who_asks_for_it_may_wait_for_ever() -> None:
    async with Harness(Mirror, deadlocks="wait") as app:
        with pytest.raises(StandstillError):
            await app.object(Mirror, "m").look()
