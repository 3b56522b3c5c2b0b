"""Stores that a command only reads: a file, beside the program that uses it or after it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from durably.cli.failures import CommandError
from durably.cli.loading import load_codec
from durably.configuration import Configuration, load_configuration
from durably.configuration.sections import without_password
from durably.runtime.supervision.contained_codec import contained_codec
from durably.storage.codec_marker import refuse_encoded
from durably.storage.connect import POSTGRES_PREFIXES, store_from_url
from durably.storage.encoded import EncodedStore
from durably.storage.introspection import InspectableStore
from durably.storage.sqlite import SqliteStore


def store_file(url: str) -> SqliteStore:
    """The store of a URL.

    Raises:
        CommandError: it is none in a file.
        DefinitionError: the URL names no store.
    """
    store = store_from_url(url)
    if isinstance(store, SqliteStore):
        return store
    if url.startswith(POSTGRES_PREFIXES):
        raise CommandError(
            f"{without_password(url)} is no file. Ask the server that runs on it (--admin), or use psql: "
            "docs/postgres.md says what is there."
        )
    raise CommandError(f"{url} is no file: a store in memory is only there for the process that has it.")


def store_url(given: str | None, configuration: Configuration | None = None) -> str:
    """The URL that an option gives, else the one of the configuration.

    Raises:
        CommandError: there is none.
    """
    settings = (load_configuration() if configuration is None else configuration).store
    url = given or (None if settings is None else settings.url)
    if url is None:
        raise CommandError(
            "Nothing says which store. Name it: --store sqlite:///app.db, or url in [store] of durably.toml."
        )
    return url


@asynccontextmanager
async def opened_to_read(store: SqliteStore, codec: str | None) -> AsyncGenerator[InspectableStore]:
    """The store, open for reads alone, with its values as they were before a codec wrapped them.

    Raises:
        StoreInUseError, StoreUnavailableError: it cannot be read, or needs another codec.
        CommandError: the codec cannot be loaded.
    """
    coding = None if codec is None else load_codec(codec)
    await store.open_read_only()
    try:
        if coding is None:
            await refuse_encoded(store, "--codec module:attribute")
            yield store
        else:
            decoded = EncodedStore(store, contained_codec(coding))
            await decoded.recognise_read_only()
            yield decoded
    finally:
        await store.close()
