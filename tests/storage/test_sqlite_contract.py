"""`SqliteStore` keeps the contract: random histories agree with the specification, also over closing and opening."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from typing_extensions import override

from durably.storage.sqlite import SqliteStore
from durably.storage.store import Store
from durably.testing.stores.contract import StoreContract
from tests.levels import level


class TestSqliteStore(StoreContract):
    examples = level().examples

    @pytest.fixture(autouse=True)
    def _in_folder(self, tmp_path: Path) -> None:
        self.paths = (tmp_path / f"{number}.db" for number in count())

    @override
    def make_store(self) -> Store:
        return SqliteStore(next(self.paths))

    @override
    def make_rival(self, store: Store) -> Store:
        assert isinstance(store, SqliteStore)
        store.path.with_name(store.path.name + ".lock").unlink()
        return SqliteStore(store.path)
