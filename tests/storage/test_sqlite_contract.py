"""`SqliteStore` keeps the contract: random histories agree with the specification, also over closing and opening."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from typing_extensions import override

from durably.storage import encoding
from durably.storage.connections import Parameters
from durably.storage.decoding import NeedsPiecesError
from durably.storage.introspection import InspectableStore
from durably.storage.sqlite import SqliteStore
from durably.testing.stores.contract import StoreContract
from tests.levels import level

FEW_BYTES = 20


class TestSqliteStore(StoreContract):
    examples = level().examples

    @pytest.fixture(autouse=True)
    def _in_folder(self, tmp_path: Path) -> None:
        self.paths = (tmp_path / f"{number}.db" for number in count())

    @override
    def make_store(self) -> InspectableStore:
        return SqliteStore(next(self.paths))

    @override
    def make_rival(self, store: InspectableStore) -> InspectableStore:
        assert isinstance(store, SqliteStore)
        store.path.with_name(store.path.name + ".lock").unlink()
        return SqliteStore(store.path)


class TestSqliteStoreWhenAnyPayloadIsLarge(TestSqliteStore):
    """Payloads of more than four bytes go the way of large ones, beside small ones in the same batch."""

    examples = 30

    @pytest.fixture(autouse=True)
    def _with_large_payloads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(encoding, "LARGE_BYTES", 4)


class PiecemealStore(SqliteStore):
    """Loads in pieces from the start, and nothing that holds more than a few bytes."""

    @override
    async def _read(self, name: str, parameters: Parameters, limit_bytes: int | None = None) -> str:
        self._load_limit_bytes = FEW_BYTES
        if name in ("load", "fetch", "fetch_ended"):
            raise NeedsPiecesError
        return await super()._read(name, parameters, limit_bytes)


class TestSqliteStoreThatLoadsLittle(TestSqliteStoreWhenAnyPayloadIsLarge):
    """What holds too much is left out of a load, by the specification too. Each row is written by its own statement."""

    load_limit_bytes = FEW_BYTES

    @pytest.fixture(autouse=True)
    def _with_small_statements(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(encoding, "STATEMENT_BYTES", 1)

    @override
    def make_store(self) -> InspectableStore:
        return PiecemealStore(next(self.paths))
