"""`durably check`: what would break is told before a deployment, and nothing is changed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from durably import (
    Context,
    DurableDict,
    DurableList,
    Lazy,
    MemoryStore,
    ObjectContext,
    Runtime,
    Service,
    SharedContext,
    SqliteStore,
    VirtualObject,
    handler,
    migrate,
    shared,
    state,
)
from durably.cli.check import WOULD_BREAK, check
from durably.cli.failures import CommandError
from durably.cli.operators.output import Format
from durably.codecs import CompressionCodec
from durably.testing import Harness
from durably.testing.replaying import check_store, journals_under_way, replay_journals
from tests.cli.output_schemas import assert_fits
from tests.processes import durably

EFFECTS: list[str] = []


class Order(Service):
    @handler
    async def ship(self, ctx: Context) -> str:
        await ctx.run("pack", lambda: "packed")
        await ctx.sleep(10)
        return "sent"


class ChangedOrder(Service, name="Order"):
    @handler
    async def ship(self, ctx: Context) -> str:
        await ctx.run("charge", lambda: EFFECTS.append("charged"))
        await ctx.sleep(10)
        return "sent"


class Person(VirtualObject):
    name: str = state(default="")

    @handler
    async def rename(self, ctx: ObjectContext, name: str, seconds: float = 0) -> None:
        self.name = name
        await ctx.sleep(seconds)


class ChangedPerson(VirtualObject, name="Person"):
    name: int = state(default=0)

    @handler
    async def rename(self, ctx: ObjectContext, name: str, seconds: float = 0) -> None: ...


class MigratedPerson(VirtualObject, name="Person", state_version=2):
    names: list[str] = state(default=[])

    @migrate(from_version=1)
    @staticmethod
    def split(old: dict[str, Any]) -> dict[str, Any]:
        return {"names": old["name"].split()}

    @handler
    async def rename(self, ctx: ObjectContext, name: str, seconds: float = 0) -> None: ...

    @shared
    async def told(self, ctx: SharedContext) -> list[str]:
        return self.names


class FickleCounter:
    count = 0


class FicklePerson(MigratedPerson, name="Person"):
    @migrate(from_version=1)
    @staticmethod
    def split(old: dict[str, Any]) -> dict[str, Any]:
        FickleCounter.count += 1
        return {"names": [str(FickleCounter.count)]}


class Anything(VirtualObject, name="Person", state_version=2):
    @migrate(from_version=1)
    @staticmethod
    def broken(old: dict[str, Any]) -> dict[str, Any]:
        raise LookupError("nowhere")

    @handler
    async def rename(self, ctx: ObjectContext, name: str, seconds: float = 0) -> None: ...


@asynccontextmanager
async def under_way(folder: Path, *, seconds: float = 0.0, codec: Any = None) -> AsyncGenerator[str]:
    """A store in which an order is on its way and a person has a name, live; its URL."""
    path = folder / "app.db"
    app = Harness(Order, Person, store=SqliteStore(path))
    if codec is not None:
        app._codec = codec  # pyright: ignore[reportPrivateUsage]
        app.use_store(SqliteStore(path))
    async with app:
        await app.service(Order).ship.send()
        await app.object(Person, "mary").rename.send("Mary Smith", seconds)
        await app.settle()
        if not seconds:
            await app.advance(seconds=1)
        yield f"sqlite:///{path}"


def with_code(monkeypatch: pytest.MonkeyPatch, *actors: type[Any], **options: Any) -> str:
    """A module whose runtime has these classes; its name as the command takes it."""
    module = ModuleType("checked_app")
    module.runtime = Runtime("sqlite:///unused.db", actors, **options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "checked_app", module)
    return "checked_app:runtime"


def told(capsys: pytest.CaptureFixture[str], target: str, url: str, status: int) -> dict[str, Any]:
    """What the command tells as JSON, when it ends with this status."""
    if status:
        with pytest.raises(CommandError) as error:
            check(target, url, format=Format.JSON)
        assert error.value.status == status
    else:
        check(target, url, format=Format.JSON)
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert_fits("check", report)
    assert report["ok"] is (status == 0)
    return report


def content(folder: Path) -> dict[str, str]:
    """What the files of a stopped store hold."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("app.db*"))}


def stopped(folder: Path, **options: Any) -> str:
    url = ""

    async def begin() -> None:
        nonlocal url
        async with under_way(folder, **options) as given:
            url = given

    asyncio.run(begin())
    return url


def test_code_that_goes_on_with_everything_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = stopped(tmp_path)
    before = content(tmp_path)
    target = with_code(monkeypatch, Order, Person)
    report = told(capsys, target, url, 0)
    assert (report["journals"], report["steps"], report["objects"], report["problems"]) == (1, 2, 1, [])
    check(target, url, format=Format.TABLE)
    assert "goes on with all of sqlite" in capsys.readouterr().out
    assert content(tmp_path) == before


class Pantry(VirtualObject):
    by_name: DurableDict[str, int] = state()
    in_order: DurableList[int] = state()
    rarely: Lazy[int] = state()

    @handler
    async def fill(self, ctx: ObjectContext, field: str) -> None:
        if field == "by_name":
            self.by_name["One"] = 1
        elif field == "in_order":
            self.in_order.append(1)
        else:
            self.rarely.set(1)


class ChangedPantry(VirtualObject, name="Pantry"):
    by_name: DurableDict[str, bool] = state()
    in_order: DurableList[str] = state()
    rarely: Lazy[list[int]] = state()


class RekeyedPantry(VirtualObject, name="Pantry"):
    by_name: DurableDict[int, int] = state()
    in_order: DurableDict[str, int] = state()
    rarely: DurableDict[int, int] = state()


@pytest.mark.parametrize("field", ["by_name", "in_order", "rarely"])
async def test_entries_that_the_code_cannot_read_are_named_also_where_an_object_has_nothing_else(field: str) -> None:
    store = MemoryStore()
    async with Harness(Pantry, store=store) as app:
        await app.object(Pantry, "top").fill(field)
        sound = await check_store(store, app.actors)
        assert (sound.objects, sound.problems) == (1, [])
        for actor in (ChangedPantry, RekeyedPantry):
            report = await check_store(store, Runtime(MemoryStore(), [actor]).actors)
            (problem,) = report.problems
            assert (report.objects, problem.kind, problem.target) == (1, "state", "Pantry/top")
            assert problem.reason.startswith(("The entry ", "The stored value "))
            assert f"'{field}'" in problem.reason


@pytest.mark.parametrize(("version", "named"), [("2026.12", "version 2026.12"), (None, "version ")])
async def test_a_difference_names_the_version_that_the_runtime_has(version: str | None, named: str) -> None:
    store = MemoryStore()
    async with Harness(Order, store=store) as app:
        await app.service(Order).ship.send()
        await app.settle()
        runtime = Runtime(MemoryStore(), [ChangedOrder], version=version)
        (problem,) = (await check_store(store, runtime.actors, version=runtime.version)).problems
        assert f"replayed by {named}" in problem.reason


def test_a_journal_that_the_code_does_not_follow_is_named_with_both_sides_and_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = stopped(tmp_path)
    before = content(tmp_path)
    target = with_code(monkeypatch, ChangedOrder, Person)
    (problem,) = told(capsys, target, url, WOULD_BREAK)["problems"]
    assert problem["kind"] == "journal"
    assert problem["target"] == "Order/ship"
    assert problem["invocation"].startswith("inv_")
    assert (problem["status"], problem["step"]) == ("suspended", 0)
    assert any("'pack'" in line for line in problem["recorded"])
    assert any("'charge'" in line for line in problem["attempted"])
    assert "version" in problem["recorded_by"]
    with pytest.raises(CommandError, match="1 invocation would not go on"):
        check(target, url, format=Format.TABLE)
    out = capsys.readouterr().out
    head, row = (line.split(maxsplit=5) for line in out.splitlines()[:2])
    assert head == ["WHAT", "WHERE", "STATUS", "STEP", "FOUND"]
    assert row[:5] == ["journal", "Order/ship", f"({problem['invocation']})", "suspended", "0"]
    assert "durably invocations restart ID" in out
    for part in (f"Order/ship ({problem['invocation']}, suspended, step 0)", "recorded by version", "ctx.patched"):
        assert part in out
    assert EFFECTS == []
    assert content(tmp_path) == before


def test_state_that_the_code_cannot_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = stopped(tmp_path)
    for actor, sentence in (
        (ChangedPerson, "The stored value of 'name' does not fit its type"),
        (Anything, "raised LookupError: nowhere"),
        (FicklePerson, "gives another state each time"),
    ):
        (problem,) = told(capsys, with_code(monkeypatch, Order, actor), url, WOULD_BREAK)["problems"]
        assert (problem["kind"], problem["target"]) == ("state", "Person/mary")
        assert sentence in problem["reason"]


def test_what_can_be_migrated_is_counted_and_what_began_before_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = with_code(monkeypatch, Order, MigratedPerson)
    assert told(capsys, target, stopped(tmp_path), 0)["migrated"] == 1
    (tmp_path / "other").mkdir()
    (problem,) = told(capsys, target, stopped(tmp_path / "other", seconds=10), WOULD_BREAK)["problems"]
    assert problem["target"] == "Person/mary/rename"
    assert "had version 1, and the code has version 2" in problem["reason"]


class Shelf(VirtualObject):
    books: DurableList[str] = state()

    @handler
    async def put(self, ctx: ObjectContext, book: str) -> None:
        self.books.append(book)


class MigratedShelf(VirtualObject, name="Shelf", state_version=2):
    books: DurableList[str] = state()

    @migrate(from_version=1)
    @staticmethod
    def as_it_was(old: dict[str, Any]) -> dict[str, Any]:
        return old

    @handler
    async def put(self, ctx: ObjectContext, book: str) -> None: ...


@pytest.mark.parametrize("actor", [Shelf, MigratedShelf])
async def test_where_a_list_begins_and_ends_is_no_value_of_its_type(actor: type[VirtualObject]) -> None:
    store = MemoryStore()
    async with Harness(Shelf, store=store) as app:
        await app.object(Shelf, "a").put("dune")
        report = await check_store(store, Runtime("sqlite:///unused.db", [actor]).actors)
    assert (report.objects, report.problems) == (1, [])


class PlainShelf(VirtualObject, name="Shelf"):
    books: list[int] = state(default=[])

    @handler
    async def put(self, ctx: ObjectContext, books: list[int]) -> None:
        self.books = books


class ShelfByKey(VirtualObject, name="Shelf"):
    books: DurableDict[str, int] = state()


class LazyShelf(VirtualObject, name="Shelf"):
    books: Lazy[list[int]] = state()


@pytest.mark.parametrize("actor", [Shelf, ShelfByKey, LazyShelf])
@pytest.mark.parametrize("books", [[1, 2], [0, 5], [1, 2, 3], [2, 1]])
async def test_a_field_that_has_become_large_state_is_named(actor: type[VirtualObject], books: list[int]) -> None:
    store = MemoryStore()
    async with Harness(PlainShelf, store=store) as app:
        await app.object(PlainShelf, "a").put(books)
        (problem,) = (await check_store(store, Runtime("sqlite:///unused.db", [actor]).actors)).problems
    assert problem.target == "Shelf/a"
    assert "a field of another kind" in problem.reason


def test_state_of_newer_code_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = stopped(tmp_path)

    async def go_on() -> None:
        async with Harness(Order, MigratedPerson, store=SqliteStore(tmp_path / "app.db")) as app:
            assert await app.object(MigratedPerson, "mary").told() == ["Mary", "Smith"]

    asyncio.run(go_on())
    (problem,) = told(capsys, with_code(monkeypatch, Order, Person), url, WOULD_BREAK)["problems"]
    assert "has version 2, and this code knows 1" in problem["reason"]


async def test_the_deletion_of_an_object_needs_no_code() -> None:
    class Kept(VirtualObject, ttl=60):
        name: str = state(default="")

        @handler
        async def hold(self, ctx: ObjectContext) -> None:
            self.name = "mary"
            await ctx.sleep(100)

    store = MemoryStore()
    async with Harness(Kept, store=store) as app:
        await app.object(Kept, "a").hold.send()
        await app.request_deletion("Kept", "a")
        await app.settle()
        assert (await check_store(store, Runtime("sqlite:///unused.db", [Kept]).actors)).problems == []
        found = [journal async for journal in journals_under_way(store)]
        assert [journal.handler for journal in found] == ["hold"]
        deletion = replace(found[0], handler="(delete)", steps=(), deliveries=())
        assert replay_journals([*found, deletion], Kept).journals == 1


def test_a_store_with_a_codec_is_read_with_that_of_the_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = stopped(tmp_path, codec=CompressionCodec())
    assert told(capsys, with_code(monkeypatch, Order, Person, codec=CompressionCodec()), url, 0)["objects"] == 1
    with pytest.raises(CommandError, match="codec") as error:
        check(with_code(monkeypatch, Order, Person), url, format=Format.TABLE)
    assert error.value.status == 1


@pytest.mark.parametrize(
    ("target", "url", "sentence"),
    [
        ("checked_app:runtime", "sqlite:///nowhere.db", "is not there"),
        ("checked_app:runtime", "postgresql://mary:secret@x/y", "@x/y is no file. Ask the server"),
        ("checked_app:runtime", "memory:", "is no file"),
        ("checked_app:runtime", "mysql://x", "names no store"),
        ("checked_app:nothing", "sqlite:///nowhere.db", "has no 'nothing'"),
    ],
)
def test_what_cannot_be_checked_is_told_in_a_sentence(
    target: str, url: str, sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with_code(monkeypatch, Order, Person)
    with pytest.raises(CommandError, match=sentence) as error:
        check(target, url, format=Format.TABLE)
    assert error.value.status == 1


@pytest.mark.slow
async def test_a_live_store_is_checked_by_another_process(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from durably import *\n"
        "from tests.cli.test_check import ChangedOrder, Person\n"
        "runtime = Runtime('sqlite:///app.db', [ChangedOrder, Person])\n"
    )
    async with under_way(tmp_path):
        command = ("check", "app:runtime", "--store", "sqlite:///app.db")
        done = await asyncio.to_thread(durably, *command, cwd=tmp_path)
        assert done.returncode == WOULD_BREAK, done.stderr
        assert "Order/ship" in done.stdout
        assert "1 invocation would not go on" in done.stderr
        assert "Traceback" not in done.stdout + done.stderr
