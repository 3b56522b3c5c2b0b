"""Objects that keep state: a counter, a map, a list."""

from __future__ import annotations

import msgspec

from durably import ObjectContext, SharedContext, TerminalError, VirtualObject, handler, shared, state


class Update(msgspec.Struct, frozen=True, rename="camel"):
    """What adding has done."""

    old_value: int
    new_value: int


class Counter(VirtualObject):
    """Adds up."""

    counter: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, addend: int) -> Update:
        old = self.counter
        self.counter += addend
        return Update(old, self.counter)

    @handler(name="addThenFail")
    async def add_then_fail(self, ctx: ObjectContext, addend: int) -> None:
        self.counter += addend
        raise TerminalError(self.key)

    @shared
    async def get(self, ctx: SharedContext) -> int:
        return self.counter

    @handler
    async def reset(self, ctx: ObjectContext) -> None:
        del self.counter


class Entry(msgspec.Struct, frozen=True):
    """One entry of a map."""

    key: str
    value: str


class MapObject(VirtualObject):
    """A map, each entry of which is a state key of its own."""

    @handler
    async def set(self, ctx: ObjectContext, entry: Entry) -> None:
        ctx.set(entry.key, entry.value)

    @handler
    async def get(self, ctx: ObjectContext, key: str) -> str:
        return ctx.get(key, str, "")

    @handler(name="clearAll")
    async def clear_all(self, ctx: ObjectContext) -> list[Entry]:
        names = ctx.keys()
        entries = [Entry(name, ctx.get(name, str, "")) for name in names]
        ctx.clear_all()
        return entries


class ListObject(VirtualObject):
    """A list of texts."""

    values: list[str] = state(default=[])

    @handler
    async def append(self, ctx: ObjectContext, value: str) -> None:
        self.values.append(value)

    @handler
    async def get(self, ctx: ObjectContext) -> list[str]:
        return self.values

    @handler
    async def clear(self, ctx: ObjectContext) -> list[str]:
        values = self.values
        del self.values
        return values
