"""`durably export-journals`: what is under way in a store, as files that a test can replay.

The store may be in use meanwhile; it is only read.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from rich.console import Console

from durably.cli.failures import CommandError
from durably.cli.operators.output import Format, print_result
from durably.cli.reading import opened_to_read, store_file
from durably.errors import DefinitionError, StoreInUseError, StoreUnavailableError
from durably.storage.sqlite import SqliteStore
from durably.testing.replaying.export import export_journals, is_known
from durably.testing.replaying.journals import ExportedJournal


def export(
    url: str,
    folder: Path,
    *,
    target: str | None,
    limit: int | None,
    format: Format,
    codec: str | None = None,
    ended: bool = False,
) -> None:
    """Export what is under way in the store of this URL, or what is kept of what has `ended`.

    Raises:
        CommandError: the store cannot be read, or the files not be written.

    """
    try:
        store = store_file(url)
        tally = asyncio.run(_export(store, folder, codec, target=target, limit=limit, ended=ended))
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
    print_result(
        {"journals": tally.journals, "steps": tally.steps, "folder": str(folder)},
        format,
        names=[str(folder)],
        tell=lambda: Console(highlight=False, soft_wrap=True).print(
            _sentence(tally, store, folder, target, ended=ended), markup=False
        ),
    )


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
    store: SqliteStore, folder: Path, codec: str | None, *, target: str | None, limit: int | None, ended: bool
) -> Tally:
    tally = Tally()
    async with opened_to_read(store, codec) as decoded:
        with Console(stderr=True).status("Reading the store") as status:

            def exported(journal: ExportedJournal) -> None:
                tally.add(journal)
                status.update(f"Exported {tally}")

            await export_journals(decoded, folder, target=target, limit=limit, ended=ended, on_exported=exported)
            if tally.journals == 0 and target is not None:
                tally.is_known = await is_known(decoded, target)
    return tally


def _sentence(tally: Tally, store: SqliteStore, folder: Path, target: str | None, *, ended: bool) -> str:
    if tally.journals:
        return f"Exported {tally} to {folder}."
    if ended:
        of_what = "" if target is None else f" of {target}"
        return (
            f"The store {store.describe()} keeps no journal{of_what} of what has ended: journal_retention= says how "
            "long they are kept."
        )
    if target is None:
        return f"Nothing is under way in the store {store.describe()}, so there are no journals to export."
    return (
        f"Nothing of {target} is under way in the store {store.describe()}: all that was asked of it has ended, so "
        "there are no journals to export."
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
