"""Awakeables: a value that somebody supplies to an id, once (rule E5)."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from durably import (
    Awakeable,
    Context,
    InvalidArgumentError,
    InvocationStatus,
    ObjectContext,
    Service,
    SharedContext,
    TerminalError,
    VirtualObject,
    WrongContextError,
    handler,
    select,
    shared,
    state,
)
from durably.ids import AWAKEABLE_PREFIX, SystemEntropy, awakeable_id, new_identity, parse_awakeable_id
from durably.storage.memory import MemoryStore
from durably.storage.sqlite import SqliteStore
from durably.testing import Harness
from tests.semantics.support import PuppetStore, begin, engine_of, turns, wait_a_little

HELD: list[str] = []
"""Ids as they leave a handler by the back door."""


class Permit(VirtualObject):
    """Asks for permission, and is given it by others."""

    asked: Awakeable[str] | None = state(default=None)

    @handler
    async def ask(self, ctx: ObjectContext) -> str:
        self.asked = ctx.awakeable(str)
        return await self.asked

    @handler
    async def ask_twice(self, ctx: ObjectContext) -> list[str]:
        self.asked = ctx.awakeable(str)
        return [await self.asked, await self.asked]

    @handler
    async def ask_in_every_way(self, ctx: ObjectContext) -> list[str]:
        asked = self.asked = ctx.awakeable(str)
        name, first = await select(word=asked, never=ctx.awakeable())
        async with asyncio.TaskGroup() as group:
            task: asyncio.Task[str] = group.create_task(cast("Any", asked))
        (done,), _ = await asyncio.wait([asyncio.ensure_future(asked)])
        gathered = await asyncio.gather(asked, asyncio.shield(asked), asyncio.wait_for(asked, 5))
        return [name, first, task.result(), await done, *gathered]

    @handler
    async def ask_with_reminders(self, ctx: ObjectContext) -> str:
        """Being cancelled ends one wait, not the awakeable."""
        self.asked = ctx.awakeable(str)
        reminders = 0
        while True:
            try:
                async with asyncio.timeout(3600):
                    return f"{await self.asked} after {reminders}"
            except TimeoutError:
                reminders += 1

    @handler
    async def ask_number(self, ctx: ObjectContext) -> int:
        asked = ctx.awakeable(int)
        self.asked = Awakeable(asked.id)
        return await asked

    @shared
    async def pending(self, ctx: SharedContext) -> str:
        return "" if self.asked is None else self.asked.id

    @shared
    async def allow(self, ctx: SharedContext, word: str) -> None:
        assert self.asked is not None
        await self.asked.resolve(word)

    @shared
    async def refuse(self, ctx: SharedContext, reason: str) -> None:
        assert self.asked is not None
        await self.asked.reject(reason, code=403)


class Chief(VirtualObject):
    """Completes awakeables with its outcome only."""

    @handler(atomic=True)
    async def resolve_if_good(self, ctx: ObjectContext, id: str, *, is_good: bool) -> None:
        await ctx.resolve_awakeable(id, "from an atomic handler")
        await ctx.sleep(10)
        if not is_good:
            raise TerminalError("not good")


class Clerk(Service):
    """Completes awakeables by their ids."""

    @handler
    async def resolve(self, ctx: Context, id: str, word: str) -> None:
        await ctx.resolve_awakeable(id, word)

    @handler
    async def reject(self, ctx: Context, id: str, reason: str) -> None:
        await ctx.reject_awakeable(id, reason, code=418)

    @handler
    async def resolve_all(self, ctx: Context, awakeables: list[Awakeable[str]], word: str) -> int:
        for awakeable in awakeables:
            await awakeable.resolve(word)
        return len(awakeables)

    @handler
    async def give_away(self, ctx: Context) -> str:
        """The id gets out before the step that makes it is in the log."""
        asked = ctx.awakeable(str)
        HELD.append(asked.id)
        return await asked

    @handler
    async def await_stranger(self, ctx: Context, id: str) -> str:
        stranger: Awakeable[str] = Awakeable(id)
        return await stranger


WAYS: dict[str, dict[str, Any]] = {
    "resident": {},
    "suspended": {"suspend_after": 0},
    "nothing resident": {"nothing_resident": True},
}


@pytest.fixture(params=[*WAYS])
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Where the one who waits is meanwhile."""
    return WAYS[request.param]


async def ask(app: Harness, key: str = "a") -> tuple[Any, str]:
    """Somebody waits: its invocation, and the id of its awakeable."""
    permit = app.object(Permit, key)
    asked = await permit.ask.send()
    await app.settle()
    return asked, await permit.pending()


async def test_whoever_knows_the_id_completes_it(way: dict[str, Any]) -> None:
    async with Harness(Permit, Clerk, **way) as app:
        clerk = app.service(Clerk)
        asked, id = await ask(app)
        assert await asked.status() is InvocationStatus.SUSPENDED
        await app.resolve_awakeable(id, "from outside")
        assert await asked.result() == "from outside"
        asked, id = await ask(app)
        await clerk.resolve(id, "from a service")
        assert await asked.result() == "from a service"
        asked, id = await ask(app)
        await app.object(Permit, "a").allow("from its own state")
        assert await asked.result() == "from its own state"
        asked, id = await ask(app)
        assert await clerk.resolve_all([Awakeable(id)], "as an argument") == 1
        assert await asked.result() == "as an argument"


async def test_a_rejection_is_a_terminal_error_where_it_is_awaited(way: dict[str, Any]) -> None:
    async with Harness(Permit, Clerk, **way) as app:
        for code in (402, 418, 403):
            asked, id = await ask(app)
            if code == 402:
                await app.reject_awakeable(id, "no", code=code)
            elif code == 418:
                await app.service(Clerk).reject(id, "no")
            else:
                await app.object(Permit, "a").refuse("no")
            with pytest.raises(TerminalError, match="no") as refused:
                await asked.result()
            assert refused.value.code == code


async def test_the_first_completion_counts_and_later_ones_are_ignored(way: dict[str, Any]) -> None:
    async with Harness(Permit, Clerk, **way) as app:
        asked, id = await ask(app)
        told = [app.resolve_awakeable(id, "first"), app.reject_awakeable(id, "second"), app.resolve_awakeable(id, "3")]
        for one in told:
            await one
        assert await asked.result() == "first"
        await app.reject_awakeable(id, "late")
        await app.service(Clerk).resolve(id, "later")
        assert await asked.result() == "first"


async def test_it_is_awaited_as_often_as_one_likes_wherever_asyncio_takes_a_coroutine(way: dict[str, Any]) -> None:
    async with Harness(Permit, **way) as app:
        permit = app.object(Permit, "a")
        for method, expected in ((permit.ask_twice, 2), (permit.ask_in_every_way, 7)):
            asked = await method.send()
            await app.settle()
            await permit.allow("word")
            assert await asked.result() == ["word"] * expected


async def test_a_wait_that_is_cancelled_does_not_end_the_awakeable(way: dict[str, Any]) -> None:
    async with Harness(Permit, **way) as app:
        permit = app.object(Permit, "a")
        asked = await permit.ask_with_reminders.send()
        await app.advance(hours=3)
        await permit.allow("at last")
        assert await asked.result() == "at last after 3"


async def test_an_id_that_nobody_made_is_refused_or_ignored(way: dict[str, Any]) -> None:
    async with Harness(Permit, Clerk, **way) as app:
        asked, id = await ask(app)
        parsed = parse_awakeable_id(id)
        assert parsed is not None
        forged = [
            awakeable_id(asked.id, b"x" * 16, parsed.command),  # Another seed.
            id[:-1] + ("A" if id[-1] != "A" else "Q"),
            awakeable_id(new_identity(SystemEntropy(), "Permit", "a")[0], b"x" * 16, 0),
        ]
        for one in forged:
            await app.resolve_awakeable(one, "forged")
            await app.service(Clerk).resolve(one, "forged")
        for one in ("", "sign_1", id[:-4], id + "AAAA", id.replace("sign_1", "prom_1"), f"{id[:-1]}!", "sign_1é"):
            with pytest.raises(InvalidArgumentError, match="is not the id of an awakeable"):
                await app.resolve_awakeable(one, "malformed")
            with pytest.raises(InvalidArgumentError):
                await app.service(Clerk).resolve(one, "malformed")
        await app.resolve_awakeable(id, "right")
        assert await asked.result() == "right"


async def test_a_value_of_another_type_is_a_terminal_400_where_it_is_awaited(way: dict[str, Any]) -> None:
    async with Harness(Permit, **way) as app:
        permit = app.object(Permit, "a")
        asked = await permit.ask_number.send()
        await app.settle()
        await app.resolve_awakeable(await permit.pending(), "no number")
        with pytest.raises(InvalidArgumentError, match="an awakeable is not what its handler awaits"):
            await asked.result()


async def test_an_atomic_handler_completes_it_with_a_good_outcome_only(way: dict[str, Any]) -> None:
    """Rule V6"""
    async with Harness(Permit, Chief, **way) as app:
        asked, id = await ask(app)
        for is_good in (False, True):
            resolving = begin(app.object(Chief, "c").resolve_if_good(id, is_good=is_good))
            await app.advance(5)
            await app.crash()
            assert await asked.status() is InvocationStatus.SUSPENDED
            await app.advance(5)
            assert (resolving.exception() is None) is is_good if resolving.done() else True
            await asyncio.wait([resolving])
        assert await asked.result() == "from an atomic handler"


async def test_one_that_comes_before_its_command_is_kept_while_the_execution_exists() -> None:
    """Rule E5: the commit of the step is held back, and the id is out."""
    store = PuppetStore()
    async with Harness(Clerk, store=store, suspend_after=0) as app:
        HELD.clear()
        store.hold()
        asked = begin(app.service(Clerk).give_away())
        await turns()
        resolved = begin(app.resolve_awakeable(HELD[0], "early"))
        await turns()
        assert not resolved.done()  # Rule X1
        await store.go_on()
        await app.settle()
        await resolved
        assert await asked == "early"


async def test_a_completion_survives_a_crash_before_the_step_that_asks_is_made() -> None:
    """The id is known from an earlier attempt: the same seed makes it again."""

    class Fickle(Service):
        fails = True

        @handler
        async def wait(self, ctx: Context) -> str:
            await ctx.sleep(1)
            asked = ctx.awakeable(str)
            HELD.append(asked.id)
            if Fickle.fails:
                raise RuntimeError("not yet")
            return await asked

    HELD.clear()
    async with Harness(Fickle) as app:
        asked = await app.service(Fickle).wait.send()
        with pytest.raises(RuntimeError):
            await app.advance(2)
        assert await asked.status() is InvocationStatus.PAUSED
        await app.resolve_awakeable(HELD[0], "early")
        await app.resolve_awakeable(HELD[0], "second")
        await app.crash()
        Fickle.fails = False
        await app.resume(asked.id)
        assert await asked.result() == "early"


@pytest.mark.parametrize("order", [("resolve", "reject"), ("reject", "resolve")])
async def test_completions_that_come_while_the_object_loads_count_in_the_order_of_the_log(
    order: tuple[str, str],
) -> None:
    store = PuppetStore()
    async with Harness(Permit, store=store, nothing_resident=True) as app:
        asked, id = await ask(app)
        await app.settle()
        engine = engine_of(app)
        assert not engine.parts.activations.by_address
        store.loads.hold()
        told = {
            "resolve": lambda: begin(app.resolve_awakeable(id, "yes")),
            "reject": lambda: begin(app.reject_awakeable(id, "no")),
        }
        first, second = told[order[0]](), told[order[1]]()
        await turns()
        store.loads.release()
        await asyncio.wait([first, second])
        if order[0] == "resolve":
            assert await asked.result() == "yes"
        else:
            with pytest.raises(TerminalError, match="no"):
                await asked.result()


async def test_only_its_own_handler_can_await_it() -> None:
    async with Harness(Permit, Clerk) as app:
        _, id = await ask(app)
        with pytest.raises(Exception, match="awaited by another handler than the one that made it"):
            await app.service(Clerk).await_stranger(id)
        stranger: Awakeable[str] = Awakeable(id)
        for use in (lambda: stranger.resolve("x"), lambda: stranger.reject("x"), lambda: stranger.send(None)):
            with pytest.raises(WrongContextError, match=r"runtime\.resolve_awakeable"):
                use()
        await app.resolve_awakeable(id, "right")


async def test_those_who_wait_hold_no_memory_and_are_not_replayed_for_others() -> None:
    async with Harness(Permit, nothing_resident=True) as app:
        waiting = [await ask(app, str(number)) for number in range(20)]
        await app.settle()
        engine = engine_of(app)
        assert len(engine.parts.activations.by_address) == 0
        assert len(engine.parts.registry.live) == 0
        asked, id = waiting[7]
        await app.resolve_awakeable(id, "you")
        assert await asked.result() == "you"
        assert len(engine.parts.activations.by_address) <= 1


@pytest.mark.parametrize("durable", [True, False])
async def test_a_completion_outlives_a_failed_commit(store: PuppetStore, durable: bool) -> None:
    """Rule X3: the one who resolves is attached again; what was not durable is done again."""
    async with Harness(Permit, store=store) as app:
        asked, id = await ask(app)
        store.hold()
        resolved = begin(app.resolve_awakeable(id, "yes"))
        await turns()
        await store.fail_one(durable=durable)
        await store.go_on()
        await wait_a_little(app, 1)
        await resolved
        assert await asked.result() == "yes"


async def test_it_waits_in_a_file_too(tmp_path: Any) -> None:
    for suspend_after in (60, 0):
        path = tmp_path / f"{suspend_after}.db"
        async with Harness(Permit, store=SqliteStore(path), suspend_after=suspend_after) as app:
            asked, id = await ask(app)
        async with Harness(Permit, store=SqliteStore(path), suspend_after=suspend_after) as app:
            await app.resolve_awakeable(id, "after a restart")
            assert await app.invocation(asked.id, str).result() == "after a restart"


async def test_an_awakeable_of_a_handler_that_has_ended_is_ignored() -> None:
    disk = MemoryStore()
    async with Harness(Permit, store=disk) as app:
        asked, id = await ask(app)
        await app.resolve_awakeable(id, "yes")
        await asked.result()
        await app.resolve_awakeable(id, "again")
        await app.settle()
        assert all(not row.signals for row in disk.disk.rows.values())


def test_an_id_is_read_as_it_was_made() -> None:
    entropy = SystemEntropy()
    for service, key in (("Permit", "a"), ("Clerk", None)):
        invocation, seed = new_identity(entropy, service, key)
        for id in (invocation, "inv_" + "0f" * 16):
            for command in (0, 1, 61, 2**32 - 1):
                made = awakeable_id(id, seed, command)
                parsed = parse_awakeable_id(made)
                assert parsed is not None
                assert (parsed.invocation_id, parsed.command) == (id, command)
                assert parsed.is_of(seed)
                assert not parsed.is_of(b"0" * 16)
                assert made.startswith(AWAKEABLE_PREFIX)
                assert made == awakeable_id(id, seed, command)
