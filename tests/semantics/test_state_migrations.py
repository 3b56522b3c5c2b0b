"""Code meets state of its own version only; state is migrated between two invocations (rule V4)."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from durably import (
    BytesSerde,
    DefinitionError,
    DurableDict,
    DurableList,
    Lazy,
    MemoryStore,
    MsgpackSerde,
    NonDeterminismError,
    ObjectContext,
    PausedInvocationError,
    Service,
    SharedContext,
    SqliteStore,
    StateMigrationError,
    StateVersionError,
    TerminalError,
    VirtualObject,
    handler,
    migrate,
    shared,
    state,
)
from durably.actors import migrations
from durably.actors.definition.binding import bind
from durably.ids import STATE_VERSION_FIELD, Address
from durably.testing import Harness

MARY = Address("Person", "mary")


class Person(VirtualObject):
    """The first version."""

    name: str = state(default="")
    visits: int = state(default=0)

    @handler
    async def rename(self, ctx: ObjectContext, name: str, seconds: float = 0) -> None:
        self.name = name
        self.visits += 1
        if seconds:
            await ctx.sleep(seconds)

    @shared
    async def told(self, ctx: SharedContext) -> str:
        return self.name


class Second(VirtualObject, name="Person", state_version=2):
    """The second version keeps two names."""

    first: str = state(default="nobody")
    last: str = state(default="")
    visits: int = state(default=0)

    @migrate(from_version=1)
    @staticmethod
    def split(old: dict[str, Any]) -> dict[str, Any]:
        first, _, last = old.pop("name").partition(" ")
        return {**old, "first": first, "last": last}

    @handler
    async def rename(self, ctx: ObjectContext, name: str, seconds: float = 0) -> None:
        self.first, _, self.last = name.partition(" ")
        self.visits += 1
        if seconds:
            await ctx.sleep(seconds)

    @handler
    async def forget(self, ctx: ObjectContext) -> None:
        ctx.clear_all()

    @shared
    async def told(self, ctx: SharedContext) -> str:
        assert STATE_VERSION_FIELD not in list(ctx.keys())
        return f"{self.first}/{self.last}"


class Third(VirtualObject, name="Person", state_version=3):
    """The third version counts nothing."""

    names: list[str] = state(default=[])

    split = Second.split

    @migrate(from_version=2)
    @staticmethod
    def listed(old: dict[str, Any]) -> dict[str, Any]:
        return {"names": [old["first"], old["last"]]}

    @shared
    async def told(self, ctx: SharedContext) -> str:
        return "+".join(self.names)

    @handler
    async def rename(self, ctx: ObjectContext, name: str, seconds: float = 0) -> None:
        self.names = name.split()


class Failing(VirtualObject, name="Person", state_version=2):
    """Its migration does not know what is stored."""

    names: list[str] = state(default=[])

    @migrate(from_version=1)
    @staticmethod
    def split(old: dict[str, Any]) -> dict[str, Any]:
        return {"names": old["surname"]}

    @handler
    async def rename(self, ctx: ObjectContext, name: str, seconds: float = 0) -> None:
        self.names = name.split()

    @shared
    async def told(self, ctx: SharedContext) -> str:
        return "+".join(self.names)


class Misfitting(Failing, name="Person"):
    """What its migration gives does not fit the field."""

    @migrate(from_version=1)
    @staticmethod
    def split(old: dict[str, Any]) -> dict[str, Any]:
        return {"names": old["name"]}


async def stored(name: str = "Mary Smith", seconds: float = 0) -> MemoryStore:
    """A store in which Mary has a name, or is about to."""
    disk = MemoryStore()
    async with Harness(Person, store=disk) as app:
        await app.object(Person, "mary").rename(name)
        if seconds:
            await app.object(Person, "mary").rename.send("Maria Smith", seconds)
            await app.settle()
    return disk


def on_disk(disk: MemoryStore) -> dict[str, bytes]:
    return dict(disk.disk.state.get(MARY, {}))


async def test_state_is_migrated_when_the_object_is_next_used_and_durable_with_that() -> None:
    disk = await stored()
    assert on_disk(disk) == {"name": b'"Mary Smith"', "visits": b"1"}, "the first version is not recorded"
    async with Harness(Second, store=disk) as app:
        assert await app.object(Second, "mary").told() == "Mary/Smith"
        await app.settle()
        migrated = {"first": b'"Mary"', "last": b'"Smith"', "visits": b"1", STATE_VERSION_FIELD: b"2"}
        assert on_disk(disk) == migrated
        await app.crash()
        assert await app.object(Second, "mary").told() == "Mary/Smith"
        assert set(await app.state(Second, "mary")) == {"first", "last", "visits"}
    assert on_disk(disk) == migrated


async def test_migrations_are_carried_out_one_after_the_other_wherever_an_object_stands() -> None:
    first, second = await stored(), await stored()
    async with Harness(Second, store=second) as app:
        await app.object(Second, "mary").rename("Mary Jones")
    for disk, told in ((first, "Mary+Smith"), (second, "Mary+Jones")):
        async with Harness(Third, store=disk) as app:
            assert await app.object(Third, "mary").told() == told
        assert set(on_disk(disk)) == {"names", STATE_VERSION_FIELD}


async def test_a_new_object_has_the_version_of_its_class_and_an_empty_one_has_none() -> None:
    disk = MemoryStore()
    async with Harness(Second, store=disk) as app:
        assert await app.object(Second, "mary").told() == "nobody/"
        await app.object(Second, "mary").rename("Mary Smith")
        await app.settle()
        assert on_disk(disk)[STATE_VERSION_FIELD] == b"2"
        await app.object(Second, "mary").forget()
    assert on_disk(disk) == {}


async def test_an_invocation_that_began_on_older_state_waits_for_its_code() -> None:
    disk = await stored(seconds=10)
    async with Harness(Second, store=disk) as app:
        with pytest.raises(StateVersionError, match=r"Person/mary/rename .* had version 1, and the code has version 2"):
            await app.advance(seconds=10)
    assert STATE_VERSION_FIELD not in on_disk(disk)
    async with Harness(Person, store=disk) as app:
        (old,) = [one.id async for one in app.invocations(target="Person/mary")]
        await app.resume(old)
        await app.settle()
        assert await app.object(Person, "mary").told() == "Maria Smith"
    async with Harness(Second, store=disk) as app:
        assert await app.object(Second, "mary").told() == "Maria/Smith"


async def test_a_restart_begins_on_the_migrated_state_and_a_kill_lets_it_be_migrated() -> None:
    for verb in ("restart", "kill", "cancel"):
        disk = await stored(seconds=10)
        async with Harness(Second, store=disk) as app:
            with pytest.raises(StateVersionError):
                await app.advance(seconds=10)
            with pytest.raises(TerminalError, match="StateVersionError"):
                await app.object(Second, "mary").told()
            await getattr(app, verb)("Person/mary")
            await app.advance(seconds=10)
            assert await app.object(Second, "mary").told() == "Maria/Smith"
            assert (await app.state(Second, "mary"))["visits"] == 2


async def test_what_a_first_invocation_has_changed_of_a_new_object_is_of_the_version_that_it_began_with() -> None:
    for verb, told in (("kill", "Mary/Smith"), ("restart", "Mary/Smith")):
        disk = MemoryStore()
        async with Harness(Person, store=disk) as app:
            await app.object(Person, "mary").rename.send("Mary Smith", 10)
            await app.settle()
        async with Harness(Second, store=disk) as app:
            with pytest.raises(StateVersionError):
                await app.advance(seconds=10)
            await getattr(app, verb)("Person/mary")
            await app.advance(seconds=10)
            assert await app.object(Second, "mary").told() == told


class Hasty(VirtualObject, name="Person"):
    """Code of the first version that does not follow the journals of before."""

    name: str = state(default="")

    @handler
    async def rename(self, ctx: ObjectContext, name: str, seconds: float = 0) -> None:
        await ctx.run("look up", lambda: None)


async def test_what_is_paused_is_still_of_the_version_that_it_began_with_when_it_is_read_again() -> None:
    disk = MemoryStore()
    async with Harness(Person, store=disk) as app:
        await app.object(Person, "mary").rename.send("Mary Smith", 10)
        await app.settle()
    async with Harness(Hasty, store=disk) as app:
        with pytest.raises(NonDeterminismError):
            await app.advance(seconds=10)
    async with Harness(Second, store=disk) as app:
        await app.resume("Person/mary")
        with pytest.raises(StateVersionError):
            await app.settle()


@pytest.mark.parametrize("damaged", [b"two", b"0", b"\xff"])
async def test_a_damaged_version_pauses_what_comes_for_its_object_and_names_it(damaged: bytes) -> None:
    disk = await stored()
    disk.disk.state[MARY][STATE_VERSION_FIELD] = damaged
    before = on_disk(disk)
    async with Harness(Second, store=disk) as app:
        with pytest.raises(PausedInvocationError, match=f"The field '{STATE_VERSION_FIELD}' of Person/mary cannot be"):
            await app.object(Second, "mary").rename("Mary Jones")
    assert on_disk(disk) == before


async def test_a_migration_that_fails_pauses_what_came_and_leaves_the_state_as_it_was() -> None:
    for actor, sentence in ((Failing, "raised KeyError: 'surname'"), (Misfitting, "does not fit: the field 'names'")):
        disk = await stored()
        before = on_disk(disk)
        async with Harness(actor, store=disk) as app:
            with pytest.raises(PausedInvocationError) as told:
                await app.object(actor, "mary").rename("Mary Jones")
            assert isinstance(told.value.__cause__, StateMigrationError)
            assert sentence in str(told.value.__cause__)
            assert "Person/mary: " in str(told.value.__cause__)
            with pytest.raises(TerminalError, match="StateMigrationError"):
                await app.object(actor, "mary").told()
        assert on_disk(disk) == before
        async with Harness(Second, store=disk) as app:
            await app.resume("Person/mary")
            await app.settle()
            assert await app.object(Second, "mary").told() == "Mary/Jones"


async def test_code_does_not_touch_state_that_newer_code_has_written() -> None:
    disk = MemoryStore()
    async with Harness(Second, store=disk) as app:
        await app.object(Second, "mary").rename("Mary Smith")
    before = on_disk(disk)
    async with Harness(Person, store=disk) as app:
        with pytest.raises(PausedInvocationError) as told:
            await app.object(Person, "mary").rename("Mary Jones")
        assert isinstance(told.value.__cause__, StateVersionError)
        assert "has version 2, and this code knows 1" in str(told.value.__cause__)
        await app.object(Person, "john").rename("John Smith")
    assert on_disk(disk) == before
    async with Harness(Second, store=disk) as app:
        await app.resume("Person/mary")
        await app.settle()
        assert await app.object(Second, "mary").told() == "Mary/Jones"


async def test_migrated_state_is_the_same_on_a_disk(tmp_path: Path) -> None:
    async with Harness(Person, store=SqliteStore(tmp_path / "app.db")) as app:
        await app.object(Person, "mary").rename("Mary Smith")
    async with Harness(Third, store=SqliteStore(tmp_path / "app.db")) as app:
        assert await app.object(Third, "mary").told() == "Mary+Smith"
    async with Harness(Third, store=SqliteStore(tmp_path / "app.db")) as app:
        assert await app.object(Third, "mary").told() == "Mary+Smith"


class Packed(VirtualObject, name="Packed", serde=MsgpackSerde):
    count: int = state(default=0)
    raw: bytes = state(default=b"", serde=BytesSerde())

    @handler
    async def put(self, ctx: ObjectContext) -> None:
        self.count, self.raw = 7, b"\xff\x00"


class Repacked(VirtualObject, name="Packed", serde=MsgpackSerde, state_version=2):
    counts: list[int] = state(default=[])
    raw: bytes = state(default=b"", serde=BytesSerde())

    @migrate(from_version=1)
    @staticmethod
    def listed(old: dict[str, Any]) -> dict[str, Any]:
        return {"counts": [old["count"]], "raw": old["raw"] + b"!"}

    @handler
    async def look(self, ctx: ObjectContext) -> str:
        return f"{self.counts} {self.raw!r}"


async def test_a_migration_reads_what_other_serdes_have_written() -> None:
    disk = MemoryStore()
    async with Harness(Packed, store=disk) as app:
        await app.object(Packed, "x").put()
    async with Harness(Repacked, store=disk) as app:
        assert await app.object(Repacked, "x").look() == "[7] b'\\xff\\x00!'"


class Shelf(VirtualObject):
    """A field that is loaded beside fields that are not."""

    name: str = state(default="")
    books: DurableList[str] = state()
    prices: DurableDict[str, int] = state()
    profile: Lazy[str] = state()

    @handler
    async def fill(self, ctx: ObjectContext) -> None:
        self.name = "oak"
        self.books.append("a")
        self.books.append("b")
        self.prices["a"] = 3
        self.profile.set("tall")


class NewShelf(VirtualObject, name="Shelf", state_version=2):
    wood: str = state(default="")
    books: DurableList[str] = state()
    prices: DurableDict[str, int] = state()
    profile: Lazy[str] = state()

    @migrate(from_version=1)
    @staticmethod
    def rename(old: dict[str, Any]) -> dict[str, Any]:
        assert [*old] == ["name"], "a migration sees what is loaded"
        return {"wood": old["name"]}

    @handler
    async def read(self, ctx: ObjectContext) -> tuple[str, str, int | None, str]:
        return self.wood, await self.books.popleft(), await self.prices.get("a"), await self.profile


async def test_fields_that_are_not_loaded_stay_as_they_are() -> None:
    store = MemoryStore()
    async with Harness(Shelf, store=store) as app:
        await app.object(Shelf, "a").fill()
    async with Harness(NewShelf, store=store) as app:
        assert await app.object(NewShelf, "a").read() == ("oak", "a", 3, "tall")


async def test_a_field_that_becomes_a_collection_is_not_taken_for_one() -> None:
    class Plain(VirtualObject, name="Row"):
        books: list[str] = state(default=[])

        @handler
        async def put(self, ctx: ObjectContext, book: str) -> None:
            self.books.append(book)

    class Large(VirtualObject, name="Row", state_version=2):
        books: DurableList[str] = state()

        @migrate(from_version=1)
        @staticmethod
        def as_it_was(old: dict[str, Any]) -> dict[str, Any]:
            return old

        @handler
        async def count(self, ctx: ObjectContext) -> int:
            return len(self.books)

    store = MemoryStore()
    async with Harness(Plain, store=store) as app:
        await app.object(Plain, "a").put("dune")
    async with Harness(Large, store=store) as app:
        with pytest.raises(PausedInvocationError, match="'books', which is kept apart from the state"):
            await app.object(Large, "a").count()


def test_a_migration_can_be_called() -> None:
    assert Second.split({"name": "Mary Smith", "visits": 1}) == {"first": "Mary", "last": "Smith", "visits": 1}


def define(version: Any, *from_versions: Any, kind: type = VirtualObject) -> None:
    """A class with these migrations."""
    namespace = {f"from_{one}": migrate(from_version=one)(lambda old: old) for one in from_versions}
    type(kind)("Made", (kind,), {**namespace, "__module__": __name__}, state_version=version)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((3, 1), "no migration from version 2"),
        ((2, 1, 2), r"a migration from state version 2, and its state has version 2"),
        ((None, 1), r"class ...\(state_version=2\)"),
        ((0,), "whole numbers from 1 on"),
        (("2",), "whole numbers from 1 on"),
        ((2, 0), "whole numbers from 1 on"),
    ],
)
def test_a_version_without_a_way_to_it_is_refused(arguments: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        define(*arguments)


def test_a_service_has_no_state_to_migrate() -> None:
    with pytest.raises(DefinitionError, match="a Service has no state"):
        define(2, 1, kind=Service)


def of_an_object(self: Any, old: dict[str, Any]) -> dict[str, Any]:
    raise NotImplementedError


@pytest.mark.parametrize("wrong", [5, asyncio.sleep, of_an_object, Second])
def test_what_is_no_function_of_the_old_state_is_refused(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match="the old state"):
        migrate(from_version=1)(wrong)


def test_a_migration_that_is_named_like_its_decorator_is_refused() -> None:
    def migrate(old: dict[str, Any]) -> dict[str, Any]:
        return old

    with pytest.raises(DefinitionError, match="hides it in the rest of the class"):
        migrations.migrate(from_version=1)(migrate)


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


DEEP = nested(100_000)
ROUND: list[Any] = []
ROUND.append(ROUND)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it has no words")


def fail(error: BaseException) -> Any:
    raise error


@dataclass
class Parcel:
    raw: bytes
    label: str


class Typed(VirtualObject, state_version=2):
    text: str = state(default="")
    texts: list[str] = state(default=[])
    raw: bytes = state(default=b"")
    parcel: Parcel | None = state(default=None)
    anything: Any = state(default=None)

    @migrate(from_version=1)
    @staticmethod
    def given(old: dict[str, Any]) -> Any:
        given = GIVEN[-1]
        return given() if callable(given) else given


GIVEN: list[Any] = []
JUNK: dict[str, Any] = {
    "deep": {"text": DEEP},
    "deep in a field that is not declared": {"other": DEEP},
    "round": {"anything": ROUND},
    "bytes for text": {"text": b"q"},
    "bytes in a list of texts": {"texts": ["a", b"q"]},
    "bytes in a record": {"parcel": {"raw": b"q", "label": b"q"}},
    "bytes for anything": {"anything": {"part": [b"q"]}},
    "bytes in a field that is not declared": {"other": b"q"},
    "NaN": {"anything": float("nan")},
    "a field without a name": {"": 1},
    "an error without words": lambda: fail(Unspeakable()),
    "an error that is none": lambda: fail(BaseException()),
    "no state": [1],
}


@pytest.mark.parametrize("what", JUNK)
def test_what_a_migration_must_not_give_is_refused_with_a_sentence(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "GIVEN", [JUNK[what]])
    with pytest.raises(StateMigrationError) as told:
        bind(Typed, {}).migrate_state({"text": b'"a"'}, 1)
    assert len(str(told.value)) < 600


def test_a_migration_may_give_bytes_where_the_field_has_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"raw": b"q", "parcel": {"raw": b"q", "label": "to mary"}}
    monkeypatch.setattr(sys.modules[__name__], "GIVEN", [given])
    actor = bind(Typed, {})
    migrated = actor.migrate_state({"text": b'"a"'}, 1)
    assert {name: actor.decode_state(name, data) for name, data in migrated.items()} == {
        "raw": b"q",
        "parcel": Parcel(b"q", "to mary"),
    }
