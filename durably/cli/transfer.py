"""`durably export`, `import` and `backup`: whole stores, counted and compared before they count as made."""

from __future__ import annotations

import os
import socket
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from durably.cli.failures import CommandError
from durably.cli.operators.output import Format, print_result
from durably.cli.progress import bars_of
from durably.cli.reading import store_file, store_url
from durably.errors import DefinitionError, StoreInUseError, StoreUnavailableError
from durably.runtime.clock import SystemClock
from durably.storage.records import Owner
from durably.storage.transfer.backup import back_up
from durably.storage.transfer.dump import export_store, import_store
from durably.storage.transfer.snapshot import Contents, Stage

STAGES = {
    Stage.COPYING: "Copying",
    Stage.READING: "Reading",
    Stage.WRITING: "Writing",
    Stage.VERIFYING: "Comparing",
}


def export_all(file: Path, store: str | None, *, format: Format) -> None:
    """Write all that a store holds to a file of text.

    Raises:
        CommandError: it cannot be.
    """
    url = store_url(store)
    try:
        found = store_file(url)
        with bars_of(STAGES) as progressed:
            contents = export_store(
                Path(found.path), found.describe(), file, written_by=version("durably"), progressed=progressed
            )
    except (StoreUnavailableError, DefinitionError) as error:
        raise CommandError(str(error)) from error
    _tell(contents, url, file, f"{contents.total:,} rows of {url} are in {file}", made=str(file), format=format)


def import_all(file: Path, store: str | None, *, format: Format) -> None:
    """Make a store of an exported one.

    Raises:
        CommandError: it cannot be, and nothing is left where it would be.
    """
    url = store_url(store)
    owner = Owner(host=socket.gethostname(), process_id=os.getpid(), since=SystemClock().now())
    try:
        made = store_file(url)
        with bars_of(STAGES) as progressed:
            contents = import_store(file, Path(made.path), made.describe(), owner=owner, progressed=progressed)
    except (StoreInUseError, StoreUnavailableError, DefinitionError) as error:
        raise CommandError(str(error)) from error
    _tell(contents, url, file, f"{contents.total:,} rows of {file} are in {url}", made=url, format=format)


def back_up_all(file: Path, store: str | None, *, format: Format) -> None:
    """Copy a store, which may be in use, to a new file.

    Raises:
        CommandError: it cannot be.
    """
    url = store_url(store)
    try:
        found = store_file(url)
        with bars_of(STAGES) as progressed:
            made = back_up(Path(found.path), found.describe(), file, progressed=progressed)
    except (StoreUnavailableError, DefinitionError) as error:
        raise CommandError(str(error)) from error
    told = f"{file} is a backup of {url}: {made.contents.total:,} rows, {made.bytes:,} bytes"
    _tell(made.contents, url, file, told, made=str(file), format=format)


def _tell(contents: Contents, url: str, file: Path, sentence: str, *, made: str, format: Format) -> None:
    print_result(
        {"store": url, "file": str(file), "rows": contents.rows, "sha256": contents.sha256},
        format,
        names=[made],
        tell=lambda: Console(highlight=False, soft_wrap=True).print(
            f"{sentence}, read back and compared (SHA-256 of the rows: {contents.sha256}).", markup=False
        ),
    )
