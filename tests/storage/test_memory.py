"""The specification keeps its own contract."""

from __future__ import annotations

from typing_extensions import override

from durably.storage.introspection import InspectableStore
from durably.storage.memory import MemoryStore
from durably.testing.stores.contract import StoreContract
from tests.levels import level


class TestMemoryStore(StoreContract):
    examples = level().examples // 3

    @override
    def make_store(self) -> InspectableStore:
        return MemoryStore()

    @override
    def make_rival(self, store: InspectableStore) -> InspectableStore:
        assert isinstance(store, MemoryStore)
        store.disk.holder = None
        return MemoryStore(store.disk)
