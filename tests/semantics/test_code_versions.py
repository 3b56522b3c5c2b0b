"""Rule S5: a journal says which code made it, and a difference names both versions."""

from __future__ import annotations

# pyright: reportPrivateUsage=false
from typing import Any

import pytest
from msgspec import structs

from durably import Context, DefinitionError, MemoryStore, NonDeterminismError, Runtime, Service, handler
from durably.actors.definition.binding import BoundActorHandler, bind
from durably.runtime.execution.step import CodeVersion, decode_recorded_step, encode_step
from durably.runtime.invocations import code_versions
from durably.testing import Harness
from tests.semantics.support import tuned


class Before(Service, name="Order"):
    @handler
    async def ship(self, ctx: Context) -> str:
        await ctx.run("pack", lambda: "packed")
        await ctx.sleep(10)
        await ctx.sleep(10)
        return "sent"


class Changed(Service, name="Order"):
    @handler
    async def ship(self, ctx: Context) -> str:
        await ctx.run("charge", lambda: "charged")
        return "sent"


class Same(Service, name="Order"):
    """Another class of the same code."""

    @handler
    async def ship(self, ctx: Context) -> str:
        await ctx.run("pack", lambda: "packed")
        await ctx.sleep(10)
        await ctx.sleep(10)
        return "sent, and this comes after what is recorded"


class Bell(Service):
    """Ends in its only step."""

    @handler
    async def ring(self, ctx: Context) -> None:
        await ctx.service(Bell).hear.send()

    @handler
    async def hear(self, ctx: Context) -> None: ...


def versions(disk: MemoryStore) -> list[CodeVersion | None]:
    """What the steps of the only journal say."""
    (row,) = disk.disk.rows.values()
    return [decode_recorded_step(row.steps[index].content).version for index in sorted(row.steps)]


async def begun(version: str | None = None) -> MemoryStore:
    """A store with one order on its way."""
    disk = MemoryStore()
    async with running(Before, disk, version) as app:
        await app.service(Before).ship.send()
        await app.settle()
    return disk


def running(actor: type[Service], disk: MemoryStore, version: str | None = None) -> Harness:
    return tuned(Harness(actor, store=disk), code_version=version)


async def difference(disk: MemoryStore, actor: type[Service] = Changed, version: str | None = None) -> str:
    """What is told when other code goes on with the order, which pauses."""
    async with running(actor, disk, version) as app:
        with pytest.raises(NonDeterminismError) as told:
            await app.advance(seconds=10)
    return str(told.value)


async def test_a_journal_says_which_code_made_it_once() -> None:
    disk = await begun()
    first, *others = versions(disk)
    assert first == CodeVersion(code_versions.CodeVersions().of(handler_of(Before)).code, code_versions.this_python())
    assert others == [None]


async def test_code_that_goes_on_with_a_journal_of_other_code_says_so() -> None:
    disk = await begun("one")
    async with running(Same, disk, "two") as app:
        await app.advance(seconds=10)
        assert [version and version.code for version in versions(disk)] == ["one", None, "two"]
        await app.advance(seconds=10)
    assert not disk.disk.unfinished


async def test_a_journal_that_is_kept_after_its_only_step_says_which_code_made_it() -> None:
    disk = MemoryStore()
    async with running(Bell, disk, "one") as app:
        await app.service(Bell).ring.options(idempotency_key="k")()
        await app.settle()
        assert [version and version.code for version in versions(disk)] == ["one"]


async def test_who_looks_at_a_journal_sees_where_other_code_went_on() -> None:
    disk = await begun("one")
    async with running(Same, disk, "two") as app:
        await app.advance(seconds=10)
        ((id, _),) = disk.disk.numbers_by_id.items()
        journal = await app.journal(id)
    here = code_versions.this_python()
    one, two = f"version one on Python {here}", f"version two on Python {here}"
    assert [step.made_by for step in journal.steps] == [one, one, two]
    assert f"made by {two}" in str(journal)
    assert one not in str(journal)


async def test_a_difference_names_both_versions() -> None:
    told = await difference(await begun("2026.1"), Changed, "2026.2")
    here = code_versions.this_python()
    assert f"recorded by version 2026.1 on Python {here} and replayed by version 2026.2 on Python {here}" in told
    assert "asyncio orders" not in told
    before, now = (code_versions.CodeVersions().of(handler_of(actor)) for actor in (Before, Changed))
    assert f"recorded by {before} and replayed by {now}" in await difference(await begun())


async def test_a_journal_of_another_python_is_replayed_before_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(code_versions, "this_python", lambda: "3.10")
        followed, not_followed = await begun("one"), await begun("one")
    async with running(Same, followed, "one") as app:
        await app.advance(seconds=10)
        here = code_versions.this_python()
        assert versions(followed) == [CodeVersion("one", "3.10"), None, CodeVersion("one", here)]
    told = await difference(not_followed, Changed, "one")
    assert f"version one on Python 3.10 and replayed by version one on Python {here}" in told
    assert "asyncio orders callbacks differently" in told
    assert "Run Python 3.10 to let it finish" in told


async def test_a_step_of_before_versions_were_recorded_is_read_and_named_by_nothing() -> None:
    disk = await begun()
    (row,) = disk.disk.rows.values()
    for index, step in row.steps.items():
        recorded = decode_recorded_step(step.content)
        row.steps[index] = structs.replace(step, content=encode_step(recorded.step, recorded.answers))
    assert "recorded by version" not in await difference(disk)


@pytest.mark.parametrize("wrong", ["", "x" * 201, "a\nb", 5])
def test_a_version_that_cannot_be_shown_is_refused(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match="a version is what you call your code"):
        Runtime(MemoryStore(), [Before], version=wrong)


def test_a_runtime_takes_a_version() -> None:
    runtime = Runtime(MemoryStore(), [Before], version="2026.11.3")
    assert runtime._settings.code_version == "2026.11.3"


def handler_of(actor: type[Service]) -> BoundActorHandler:
    return bind(actor, {}).handlers["ship"]
