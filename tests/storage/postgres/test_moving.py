"""`durably move`: what was under way in a file goes on in PostgreSQL, also if the move was cut off in between."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from durably import (
    Context,
    DurableDict,
    ObjectContext,
    Service,
    SharedContext,
    SqliteStore,
    StoreInUseError,
    StoreUnavailableError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.storage.postgres import PostgresStore, moving
from durably.storage.postgres.moving import move
from durably.storage.postgres.statements import STATEMENTS
from durably.storage.statements import MIGRATIONS
from durably.testing import Harness
from durably.testing.stores.contract import OWNER
from tests.cli.output_schemas import assert_fits
from tests.postgres import PostgresServer
from tests.processes import durably
from tests.storage.layout_program import restore

pytestmark = pytest.mark.slow

LARGE = "€" * 30_000


class Chest(VirtualObject, name="MovedChest"):
    content: bytes = state(default=b"")
    pieces: DurableDict[str, str] = state()

    @handler
    async def fill(self, ctx: ObjectContext, text: str) -> int:
        self.content += b"\x00\xff" + text.encode()
        self.pieces[text[:5]] = text
        return len(self.content)

    @shared
    async def size(self, ctx: SharedContext) -> tuple[int, int]:
        return len(self.content), await self.pieces.count()


class Carrier(Service, name="MovedCarrier"):
    @handler
    async def carry(self, ctx: Context, text: str) -> tuple[str, int]:
        kept = await ctx.run("keep", lambda: text)
        await ctx.sleep(timedelta(days=1))
        return kept[:5], await ctx.object(Chest, "a").fill(text)


class CutOffError(Exception):
    """The move ends here."""


def test_what_is_under_way_goes_on_where_it_was_moved_to(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, url = tmp_path / "app.db", server.new_url()
    monkeypatch.setattr(moving, "PORTION_ROWS", 2)
    portions: list[str] = []

    def cut_off(table: str, rows: int) -> None:
        portions.append(f"{table} {rows}")
        if len(portions) == 5:
            raise CutOffError

    async def begin() -> None:
        async with Harness(Chest, Carrier, store=path) as app:
            assert await app.object(Chest, "a").fill.options(idempotency_key="first")(LARGE) == 2 + 3 * len(LARGE)
            for number in range(5):
                await app.object(Chest, str(number)).fill(f"{number} text")
            await app.service(Carrier).carry.options(idempotency_key="under way").send(LARGE)
            await app.advance(timedelta(minutes=1))
            with pytest.raises(StoreInUseError, match="Stop that runtime"):
                move(path, url, owner=OWNER, progressed=cut_off)

    async def go_on() -> None:
        async with Harness(Chest, Carrier, store=url) as app:
            assert await app.object(Chest, "a").fill.options(idempotency_key="first")(LARGE) == 2 + 3 * len(LARGE)
            under_way = app.service(Carrier).carry.options(idempotency_key="under way").attach()
            going_on = asyncio.ensure_future(under_way)
            await app.advance(timedelta(days=1))
            assert await going_on == ("€€€€€", 2 * (2 + 3 * len(LARGE)))
            assert await app.object(Chest, "a").size() == (2 * (2 + 3 * len(LARGE)), 1)
            assert await app.object(Chest, "3").size() == (8, 1)

    async def refused() -> None:
        with pytest.raises(StoreUnavailableError, match="Run `durably move` again"):
            await PostgresStore(url).open(OWNER)

    asyncio.run(begin())
    with pytest.raises(CutOffError):
        move(path, url, owner=OWNER, progressed=cut_off)
    asyncio.run(refused())
    done = portions[4]
    moved = move(path, url, owner=OWNER, progressed=lambda table, rows: portions.append(f"{table} {rows}"))
    assert done not in portions[5 : 5 + 1]  # What had come is not written again.
    assert moved.rows["state"] == 6
    assert moved.rows["entries"] == 6
    with pytest.raises(StoreUnavailableError, match="something is there already"):
        move(path, url, owner=OWNER, progressed=cut_off)
    asyncio.run(same(SqliteStore(path), PostgresStore(url)))
    asyncio.run(go_on())


def test_a_move_that_is_cut_off_after_each_of_its_portions_comes_to_the_same(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a store that has rows in most of the tables."""
    path = tmp_path / "app.db"
    restore(MIGRATIONS[-1].version, path)
    whole = move(path, server.new_url(), owner=OWNER, progressed=lambda table, rows: None)
    assert sum(count > 0 for count in whole.rows.values()) >= 8, whole.rows
    monkeypatch.setattr(moving, "PORTION_ROWS", 2)
    url, portions = server.new_url(), list[tuple[str, int]]()

    def cut_off(table: str, rows: int) -> None:
        if (table, rows) not in portions:
            portions.append((table, rows))
            raise CutOffError

    cuts, moved = 0, None
    while moved is None:
        with monkeypatch.context() as patch, suppress(StoreUnavailableError):  # A portion is lost with its transaction.
            patch.setitem(STATEMENTS, "note_moved", "select 1 / 0")
            moved = move(path, url, owner=OWNER, progressed=lambda table, rows: None)
        if moved is None:
            with suppress(CutOffError):  # And the move is cut off behind it.
                moved = move(path, url, owner=OWNER, progressed=cut_off)
        cuts += 1
    assert moved == whole
    assert cuts > sum(count > 0 for count in whole.rows.values())
    asyncio.run(same(SqliteStore(path), PostgresStore(url)))


async def same(old: SqliteStore, new: PostgresStore) -> None:
    """All that can be asked of them is answered alike."""
    opened = [await store.open(OWNER) for store in (old, new)]
    assert opened[0] == opened[1]
    invocations = [await store.invocations(after=0, limit=100) for store in (old, new)]
    assert invocations[0] == invocations[1]
    addresses = [one.address for one in invocations[0]]
    assert await old.load(addresses, pending_limit=10) == await new.load(addresses, pending_limit=10)
    for store in (old, new):
        await store.close()


def test_the_command_tells_what_it_has_moved(server: PostgresServer, tmp_path: Path) -> None:
    async def begin() -> None:
        async with Harness(Chest, store=tmp_path / "app.db") as app:
            await app.object(Chest, "a").fill("text")

    asyncio.run(begin())
    url = server.new_url()
    done = durably("move", "sqlite:///app.db", url, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert_fits("move", told)
    assert told["rows"]["state"] == 1
    again = durably("move", "sqlite:///app.db", url, cwd=tmp_path)
    assert "something is there already" in again.stderr
    assert "moved to PostgreSQL: name it" in durably("move", "sqlite:///app.db", "memory:", cwd=tmp_path).stderr


def test_portions_are_limited_by_their_bytes(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, url = tmp_path / "app.db", server.new_url()
    monkeypatch.setattr(moving, "PORTION_BYTES", 200)
    portions: list[tuple[str, int]] = []

    async def begin() -> None:
        async with Harness(Chest, store=path) as app:
            for number in range(30):
                await app.object(Chest, str(number)).fill(f"{number}" if number % 10 else "x" * 300)

    asyncio.run(begin())
    moved = move(path, url, owner=OWNER, progressed=lambda table, rows: portions.append((table, rows)))
    assert moved.rows["entries"] == 30
    reached = [rows for table, rows in portions if table == "entries"]
    assert len(reached) >= 5
    assert reached[-1] == 30
