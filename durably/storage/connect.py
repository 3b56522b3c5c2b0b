"""Stores by URL, for configuration files and command lines."""

from __future__ import annotations

from urllib.parse import unquote

from durably.errors import DefinitionError
from durably.storage.introspection import InspectableStore
from durably.storage.memory import MemoryStore
from durably.storage.sqlite import SqliteStore

SQLITE_PREFIX = "sqlite:///"


def store_from_url(url: str) -> InspectableStore:
    """The store that a URL names: `sqlite:///relative.db`, `sqlite:////absolute/path.db` or `memory:`.

    Raises:
        DefinitionError: the URL names no store.
    """
    if url == "memory:":
        return MemoryStore()
    path = unquote(url.removeprefix(SQLITE_PREFIX))
    if not url.startswith(SQLITE_PREFIX) or not path or "?" in path:
        raise DefinitionError(
            f"{url!r} names no store. Write `sqlite:///tickets.db` for a file in the working directory, "
            "`sqlite:////var/lib/tickets.db` for an absolute path, or `memory:`."
        )
    return SqliteStore(path)
