"""Stores that are closed at the end of the test, however it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import pytest

from durably.storage.sqlite import SqliteStore

NewStore: TypeAlias = Callable[..., SqliteStore]


@pytest.fixture
async def new_store() -> AsyncIterator[NewStore]:
    made: list[SqliteStore] = []

    def make(*arguments: object, **options: object) -> SqliteStore:
        store = SqliteStore(*arguments, **options)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        made.append(store)
        return store

    yield make
    for store in reversed(made):
        await store.close()
