"""`durably export-journals`: what is under way in a store, as files that a test can replay.

The store may be in use meanwhile; it is only read.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import typer
from rich.console import Console

from durably.cli.failures import CommandError
from durably.cli.loading import load_codec
from durably.codecs import Codec
from durably.errors import DefinitionError, StoreInUseError, StoreUnavailableError
from durably.storage.codec_marker import refuse_encoded
from durably.storage.connect import store_from_url
from durably.storage.encoded import EncodedStore
from durably.storage.introspection import InspectableStore
from durably.storage.sqlite import SqliteStore
from durably.testing.replaying.export import export_journals, is_known
from durably.testing.replaying.journals import ExportedJournal


def export(
    url: str, folder: Path, *, target: str | None, limit: int | None, as_json: bool, codec: str | None = None
) -> None:
    """Export what is under way in the store of this URL.

    Raises:
        CommandError: the store cannot be read, or the files not be written.

    """
    try:
        store = store_from_url(url)
        if not isinstance(store, SqliteStore):
            raise CommandError(f"{url} is no file: a store in memory is only there for the process that has it.")
        coding = None if codec is None else load_codec(codec)
        tally = asyncio.run(_export(store, folder, coding, target=target, limit=limit))
    except (StoreInUseError, StoreUnavailableError, DefinitionError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"The journals cannot be written to {folder}: {error.strerror or error}.") from error
    if target is not None and not tally.is_known:
        raise CommandError(
            f"{target} names nothing in the store {store.describe()}: there is no invocation of it, and no state. "
            "Targets are Service, Service/handler, Object/key and Object/key/handler, with the names that the store "
            "knows."
        )
    if as_json:
        told = {"journals": tally.journals, "steps": tally.steps, "folder": str(folder)}
        typer.echo(orjson.dumps(told).decode())
    else:
        Console(highlight=False, soft_wrap=True).print(_sentence(tally, store, folder, target), markup=False)


class Tally:
    """How much has been exported."""

    def __init__(self) -> None:
        self.journals = 0
        self.steps = 0
        self.is_known = True
        """The store holds something of what was asked for, be it under way or not."""

    def add(self, journal: ExportedJournal) -> None:
        self.journals += 1
        self.steps += len(journal.steps)

    def __str__(self) -> str:
        return f"{_count(self.journals, 'journal')} of {_count(self.steps, 'step')}"


async def _export(
    store: SqliteStore, folder: Path, codec: Codec | None, *, target: str | None, limit: int | None
) -> Tally:
    tally = Tally()
    await store.open_read_only()
    try:
        decoded = await _decoded(store, codec)
        with Console(stderr=True).status("Reading the store") as status:

            def exported(journal: ExportedJournal) -> None:
                tally.add(journal)
                status.update(f"Exported {tally}")

            await export_journals(decoded, folder, target=target, limit=limit, on_exported=exported)
            if tally.journals == 0 and target is not None:
                tally.is_known = await is_known(decoded, target)
    finally:
        await store.close()
    return tally


async def _decoded(store: SqliteStore, codec: Codec | None) -> InspectableStore:
    """The open store as its values were before a codec wrapped them."""
    if codec is None:
        await refuse_encoded(store, "--codec module:attribute")
        return store
    decoded = EncodedStore(store, codec)
    await decoded.recognise_read_only()
    return decoded


def _sentence(tally: Tally, store: SqliteStore, folder: Path, target: str | None) -> str:
    if tally.journals:
        return f"Exported {tally} to {folder}."
    if target is None:
        return f"Nothing is under way in the store {store.describe()}, so there are no journals to export."
    return (
        f"Nothing of {target} is under way in the store {store.describe()}: all that was asked of it has ended, so "
        "there are no journals to export."
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
