"""`PostgresStore` keeps the contract on a real server: random histories agree with the specification."""

from __future__ import annotations

import psycopg
import pytest
from typing_extensions import override

from durably.storage import encoding
from durably.storage.decoding import NeedsPiecesError
from durably.storage.introspection import InspectableStore
from durably.storage.postgres import PostgresStore, statements
from durably.storage.row_source import Parameters
from durably.testing.stores.contract import StoreContract
from tests.levels import level
from tests.postgres import PostgresServer

pytestmark = pytest.mark.slow

FEW_BYTES = 20


class TestPostgresStore(StoreContract):
    examples = level().examples // 5

    @pytest.fixture(autouse=True)
    def _on_server(self, server: PostgresServer) -> None:
        self.server = server
        self.urls: dict[InspectableStore, str] = {}

    @override
    def make_store(self) -> InspectableStore:
        url = self.server.new_url()
        store = self.store_at(url)
        self.urls[store] = url
        return store

    def store_at(self, url: str) -> InspectableStore:
        return PostgresStore(url)

    @override
    def make_rival(self, store: InspectableStore) -> InspectableStore:
        url = self.urls[store]
        with psycopg.connect(self.server.url()) as connection:
            connection.execute(f"update {url.partition('schema=')[2]}.lease set is_held = false".encode())
        return PostgresStore(url)


class TestPostgresStoreWhenAnyPayloadIsLarge(TestPostgresStore):
    """Payloads of more than four bytes go the way of large ones, and come back in pieces."""

    examples = 8

    @pytest.fixture(autouse=True)
    def _with_large_payloads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(encoding, "LARGE_BYTES", 4)
        monkeypatch.setattr(statements, "INLINE_BYTES", 4)


class PiecemealStore(PostgresStore):
    """Loads in pieces from the start, and nothing that holds more than a few bytes."""

    @override
    async def _read(self, name: str, parameters: Parameters, limit_bytes: int | None = None) -> str:
        self._load_limit_bytes = FEW_BYTES
        if name in ("load", "fetch", "fetch_ended"):
            raise NeedsPiecesError
        return await super()._read(name, parameters, limit_bytes)


class TestPostgresStoreThatLoadsLittle(TestPostgresStoreWhenAnyPayloadIsLarge):
    """What holds too much is left out of a load, by the specification too. Each row is written by its own statement."""

    load_limit_bytes = FEW_BYTES

    @pytest.fixture(autouse=True)
    def _with_small_statements(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(encoding, "STATEMENT_BYTES", 1)

    @override
    def store_at(self, url: str) -> InspectableStore:
        return PiecemealStore(url)
