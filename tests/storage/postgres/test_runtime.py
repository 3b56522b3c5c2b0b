"""What runs on other stores runs on PostgreSQL: a process that is killed under load, the harness in virtual time."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from durably import (
    Context,
    DurableDict,
    InvalidArgumentError,
    ObjectContext,
    PausedInvocationError,
    Runtime,
    Service,
    SharedContext,
    TerminalError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.testing import Harness
from tests.crashes.test_kill import kill_again_and_again
from tests.levels import level
from tests.models.test_history import old_transitions_go
from tests.postgres import PostgresServer

pytestmark = pytest.mark.slow

LARGE = "x" * 3_000_000


class Shelf(VirtualObject, name="PostgresShelf"):
    """State of every kind."""

    title: str = state(default="")
    books: DurableDict[str, str] = state()

    @handler
    async def put(self, ctx: ObjectContext, name: str, text: str) -> int:
        if name == "fail":
            raise TerminalError("no such shelf")
        self.title += name
        self.books[name] = text
        return len(self.title)

    @shared
    async def read(self, ctx: SharedContext, name: str) -> str | None:
        return await self.books.get(name)


class Clerk(Service, name="PostgresClerk"):
    """Waits for days, calls, and runs side effects."""

    @handler
    async def work(self, ctx: Context, name: str) -> int:
        text = await ctx.run("fetch", lambda: LARGE)
        await ctx.sleep(timedelta(days=3))
        async with asyncio.TaskGroup() as group:
            first = group.create_task(ctx.object(Shelf, "a").put(name, text))
            second = group.create_task(ctx.object(Shelf, "b").put(name, "short"))
        return first.result() + second.result()


def test_nothing_that_was_acknowledged_is_lost_or_done_twice(server: PostgresServer, tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, level().kills, server.new_url())


def test_a_harness_in_virtual_time_crashes_and_goes_on(server: PostgresServer) -> None:
    async def check() -> None:
        async with Harness(Shelf, Clerk, store=server.new_url()) as app:
            working = asyncio.ensure_future(app.service(Clerk).work.options(idempotency_key="once")("one"))
            await app.advance(timedelta(days=2))
            await app.crash()
            assert not working.done()
            await app.advance(timedelta(days=2))
            assert await working == 6
            assert await app.object(Shelf, "a").read("one") == LARGE

    asyncio.run(check())


def test_old_transitions_go(server: PostgresServer) -> None:
    asyncio.run(old_transitions_go(server.new_url()))


def test_people_look_at_it_with_psql_by_the_names_of_the_admin_api(server: PostgresServer) -> None:
    url = server.new_url()
    schema = url.partition("schema=")[2]

    async def check() -> None:
        async with Runtime(url, [Shelf, Clerk]) as runtime:
            await runtime.object(Shelf, "a").put.options(idempotency_key="once")("one", "text")
            sent = await runtime.service(Clerk).work.send("two")
            with pytest.raises(TerminalError):
                await runtime.object(Shelf, "b").put.options(idempotency_key="bad")("fail", "text")
            while not server.execute(f"select id from {schema}.sys_invocation where status = 'suspended'"):
                await asyncio.sleep(0.01)
            rows = server.execute(
                "select target, target_service_key, idempotency_key, status, completion_result, invoked_by "
                f"from {schema}.sys_invocation order by created_at"
            )
            assert rows == [
                ("PostgresShelf/a/put", "a", "once", "completed", "success", "ingress"),
                ("PostgresClerk/work", None, None, "suspended", None, "ingress"),
                ("PostgresShelf/b/put", "b", "bad", "completed", "failure", "ingress"),
            ]
            failures = f"select completion_failure from {schema}.sys_invocation where completion_result = 'failure'"
            ((failure,),) = server.execute(failures)
            assert "no such shelf" in failure
            assert server.execute(f"select service_key, key, value_utf8 from {schema}.sys_state") == [
                ("a", "title", '"one"')
            ]
            assert server.execute(f"select distinct id from {schema}.sys_journal") == [(sent.id,)]
            assert server.execute(f"select service_key, idempotency_key from {schema}.sys_idempotency order by 2") == [
                ("b", "bad"),
                ("a", "once"),
            ]
            for view in ("sys_inbox", "sys_keyed_service_status", "sys_promise"):
                assert server.execute(f"select * from {schema}.{view}") == []
            assert server.execute(f"select process_id, is_held from {schema}.sys_owner") == [(os.getpid(), True)]

    asyncio.run(check())


class Clerks(VirtualObject, name="PostgresClerks"):
    """Gives names on."""

    notes: DurableDict[str, int] = state()
    kept: str = state(default="")

    @handler
    async def keep(self, ctx: ObjectContext, text: str) -> int:
        self.kept = text
        return len(text)

    @handler
    async def note(self, ctx: ObjectContext, name: str) -> None:
        self.notes[name] = 1

    @handler
    async def tell(self, ctx: ObjectContext, key: str) -> int:
        return await ctx.object(Clerks, key).keep("")


def test_names_that_no_index_takes_are_refused_before_anything_follows_from_them(server: PostgresServer) -> None:
    """They ended the commit, with everything else in it, and the runtime opened the store again."""
    long = Random(1).randbytes(1_500).hex()
    fits = "ä" * 900

    async def check() -> None:
        async with Harness(Clerks, store=server.new_url()) as app:
            with pytest.raises(InvalidArgumentError, match=r"The key for PostgresClerks/keep cannot.*at most 2000"):
                await app.object(Clerks, long).keep("")
            with pytest.raises(InvalidArgumentError, match="shorter one"):
                await app.object(Clerks, "a").keep.options(idempotency_key=long)("")
            with pytest.raises(PausedInvocationError, match=r"The field or entry 'notes\["):
                await app.object(Clerks, "a").note(long)
            with pytest.raises(
                PausedInvocationError, match=r"The key for PostgresClerks/keep, sent at .*test_runtime.py"
            ):
                await app.object(Clerks, "b").tell(long)
            assert await app.object(Clerks, fits).keep(long) == 3_000
            await app.object(Clerks, "c").note(fits)
            assert await app.object(Clerks, "d").tell(fits) == 0

    asyncio.run(check())
