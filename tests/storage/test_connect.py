"""URLs name stores, and what is no URL of a store says how to write one."""

from __future__ import annotations

from pathlib import Path

import pytest

from durably.errors import DefinitionError
from durably.storage.connect import store_from_url
from durably.storage.memory import MemoryStore
from durably.storage.sqlite import SqliteStore


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///tickets.db", "tickets.db"),
        ("sqlite:///folder/my%20tickets.db", "folder/my tickets.db"),
        ("sqlite:////var/lib/tickets.db", "/var/lib/tickets.db"),
    ],
)
def test_a_sqlite_url_names_a_file(url: str, path: str) -> None:
    store = store_from_url(url)
    assert isinstance(store, SqliteStore)
    assert store.path == Path(path)


def test_memory_is_a_store_too() -> None:
    assert isinstance(store_from_url("memory:"), MemoryStore)


@pytest.mark.parametrize(
    "url", ["", "tickets.db", "sqlite://tickets.db", "sqlite:///", "postgres://db", "sqlite:///:memory:"]
)
def test_a_url_of_no_store_says_what_to_write(url: str) -> None:
    with pytest.raises(DefinitionError, match=r"sqlite:///tickets\.db|MemoryStore"):
        store_from_url(url)
