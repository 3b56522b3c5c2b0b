"""State is declared in the class. It is typed, belongs to one key, and is there again after a crash."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from durably import ObjectContext, PausedInvocationError, SharedContext, VirtualObject, handler, shared, state
from durably.testing import Harness


@dataclass
class Line:
    article: str
    count: int


class Cart(VirtualObject):
    lines: list[Line] = state(default=[])
    note: str | None = state(default=None)

    @handler
    async def add(self, ctx: ObjectContext, article: str, count: int = 1) -> int:
        self.lines.append(Line(article, count))
        return len(self.lines)

    @handler
    async def write(self, ctx: ObjectContext, note: str) -> None:
        self.note = note

    @handler
    async def forget_note(self, ctx: ObjectContext) -> None:
        del self.note

    @handler
    async def label(self, ctx: ObjectContext, name: str, value: str) -> list[str]:
        ctx.set(name, value)
        return list(ctx.keys())

    @handler
    async def misspell(self, ctx: ObjectContext) -> None:
        self.nota = "lost"

    @shared
    async def show(self, ctx: SharedContext) -> str:
        return f"{[line.article for line in self.lines]} {self.note}"


async def test_each_key_has_a_state_of_its_own() -> None:
    async with Harness(Cart) as app:
        await app.object(Cart, "mary").add("apple")
        await app.object(Cart, "joe").add("pear")
        assert await app.object(Cart, "mary").show() == "['apple'] None"
        assert await app.object(Cart, "joe").show() == "['pear'] None"


async def test_state_survives_a_crash() -> None:
    async with Harness(Cart) as app:
        await app.object(Cart, "mary").add("apple", 3)
        await app.crash()
        assert await app.object(Cart, "mary").add("pear") == 2


async def test_a_field_that_is_deleted_returns_to_its_default() -> None:
    async with Harness(Cart) as app:
        await app.object(Cart, "mary").write("fragile")
        await app.object(Cart, "mary").forget_note()
        assert await app.object(Cart, "mary").show() == "[] None"


async def test_state_may_also_be_used_by_name() -> None:
    async with Harness(Cart) as app:
        assert await app.object(Cart, "mary").label("colour", "red") == ["colour"]


async def test_the_runtime_shows_the_state_of_an_object() -> None:
    async with Harness(Cart) as app:
        await app.object(Cart, "mary").add("apple", 3)
        assert await app.state(Cart, "mary") == {"lines": [Line("apple", 3)]}


async def test_an_attribute_that_is_not_declared_cannot_get_lost_unnoticed() -> None:
    async with Harness(Cart) as app:
        with pytest.raises(PausedInvocationError, match=r"self\.nota .* is not declared as state"):
            await app.object(Cart, "mary").misspell()
