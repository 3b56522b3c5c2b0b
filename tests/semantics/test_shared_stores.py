"""Two runtimes of one process that are given the same store: the second is refused, and the first goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from durably import Runtime, StoreInUseError, VirtualObject, handler, state
from durably.actors.context import ObjectContext
from durably.storage.introspection import InspectableStore
from durably.storage.memory import MemoryStore
from durably.storage.sqlite import SqliteStore


class Counter(VirtualObject, name="SharedStoreCounter"):
    count: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext) -> int:
        self.count += 1
        return self.count


def in_memory(_: Path) -> InspectableStore:
    return MemoryStore()


def in_a_file(folder: Path) -> InspectableStore:
    return SqliteStore(folder / "shared.db")


@pytest.mark.parametrize("make", [in_memory, in_a_file])
async def test_a_runtime_that_is_refused_does_not_let_the_store_of_the_other_go(
    tmp_path: Path, make: Callable[[Path], InspectableStore]
) -> None:
    store = make(tmp_path)
    async with Runtime(store, [Counter]) as first:
        for _ in range(2):  # It would be taken at the second time, if the first had let it go.
            second = Runtime(store, [Counter])
            with pytest.raises(StoreInUseError, match="is in use by process"):
                await second.__aenter__()
            await second.__aexit__(None, None, None)
        assert await first.object(Counter, "one").add() == 1
    async with Runtime(store, [Counter]) as second:
        assert await second.object(Counter, "one").add() == 2
