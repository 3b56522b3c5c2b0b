"""Stores by URL, for configuration files and command lines."""

from __future__ import annotations

import os
import re
import sys
from typing import Any, Literal, TypeGuard, cast
from urllib.parse import unquote_to_bytes

from durably.configuration.sections import SQLITE_PREFIX, without_password
from durably.errors import DefinitionError
from durably.storage.introspection import InspectableStore
from durably.storage.memory import MemoryStore
from durably.storage.sqlite import SqliteStore

POSTGRES_PREFIXES = ("postgresql://", "postgres://")
_METHODS = ("open", "commit", "describe", "close")
"""What every Store has; looked for by name, since a Store need not be a subclass."""

_scheme = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
"""Of more than one letter, which would be a drive of Windows."""
_drive_behind_slash = re.compile(r"/[A-Za-z]:([/\\]|$)")


def store_given(store: object) -> InspectableStore:
    """The store that a program gives a runtime: a Store, a URL, or the path of a SQLite file as `pathlib.Path`.

    Raises:
        DefinitionError: it is none of them.
    """
    if isinstance(store, str):
        return store_from_url(store)
    if _is_path(store) and isinstance(os.fspath(store), str):
        return SqliteStore(store)
    if isinstance(store, type) or not all(callable(getattr(store, method, None)) for method in _METHODS):
        raise DefinitionError(
            f"{without_password(repr(store))[:80]} ({type(store).__name__}) is no store. Give a URL such as "
            "`sqlite:///tickets.db`, a pathlib.Path, a SqliteStore(path), or a MemoryStore()."
        )
    return cast("InspectableStore", store)


def _is_path(store: object) -> TypeGuard[os.PathLike[Any]]:
    return isinstance(store, os.PathLike)


def store_from_url(url: str, *, checkpoints: Literal["own", "external"] = "own") -> InspectableStore:
    """The store that a URL names: `sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://…` or `memory:`.

    What follows `sqlite:///` is a path. A relative one begins at the working directory of the moment when the store is
    first opened. A `%` with two hexadecimal digits stands for that byte, as in every URL (`%20` is a space, `%3F` a
    question mark, `%25` a percent sign). Everything else stands for itself, spaces and `#` too. A `?` would begin
    options, which there are none of.
    What begins with `postgresql://` is a URL of PostgreSQL, with one option of our own: `?schema=name`.
    On Windows, `sqlite:///C:/folder/app.db` is absolute, and `sqlite://///server/share/app.db` is a path on a server.

    Raises:
        DefinitionError: the URL names no store.
    """
    if not isinstance(cast(object, url), str):
        raise DefinitionError(
            f"A store is named by a URL, as text, such as `sqlite:///tickets.db`, not by "
            f"{without_password(repr(url))} ({type(url).__name__})."
        )
    if url == "memory:":
        return MemoryStore()
    if url.startswith(POSTGRES_PREFIXES):
        return _postgres_store(url)
    return SqliteStore(path_in_url(url, windows=sys.platform == "win32"), checkpoints=checkpoints)


def _postgres_store(url: str) -> InspectableStore:
    try:
        from durably.storage.postgres import PostgresStore  # Only who uses it needs its driver.
    except ImportError as error:
        raise DefinitionError(
            f"A store in PostgreSQL needs psycopg, which cannot be imported ({error}). Install it: "
            "`pip install 'durably[postgres]'`."
        ) from error
    return PostgresStore(url)


def path_in_url(url: str, *, windows: bool) -> str:
    """The path that a URL of SQLite names.

    Raises:
        DefinitionError: it names none.
    """
    quoted = url.removeprefix(SQLITE_PREFIX)
    if not url.startswith(SQLITE_PREFIX) or not quoted:
        shown = without_password(url)
        if url and _scheme.match(url.lstrip()) is None and shown == url:
            written = url.replace("%", "%25").replace("?", "%3F")
            raise DefinitionError(f"{url!r} names no store, since it is no URL. Write `{SQLITE_PREFIX}{written}`.")
        raise DefinitionError(
            f"{shown!r} names no store. Write `sqlite:///tickets.db` for a file in the working "
            "directory, `sqlite:////var/lib/tickets.db` for an absolute path, "
            "`postgresql://user:password@host/database`, or `memory:`."
        )
    if "?" in quoted:
        raise DefinitionError(
            f"{without_password(url)!r} has options behind a `?`, and there are none. Leave them out, or write `%3F` "
            "if the name of the file has a question mark in it. The options of a store are arguments of "
            "`SqliteStore(path, ...)`."
        )
    try:
        raw = unquote_to_bytes(quoted)
        path = raw.decode("utf-8") if windows else os.fsdecode(raw)
    except UnicodeEncodeError as error:
        raise DefinitionError(
            f"{url!r} has half a surrogate pair in it, which is no Unicode text. Write the bytes of the name as `%XX`."
        ) from error
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{url!r} has bytes in it that are not UTF-8, as names are here.") from error
    if path.endswith("/"):
        raise DefinitionError(f"{url!r} names a folder. Add the name of a file: `{url}tickets.db`.")
    if windows and _drive_behind_slash.match(path):
        return path[1:]  # `sqlite:////C:/app.db`, as on other systems with one slash more.
    return path
