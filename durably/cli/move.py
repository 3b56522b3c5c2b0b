"""`durably move`: a store in a SQLite file as a store in PostgreSQL, while no runtime runs on it."""

from __future__ import annotations

import os
import socket

from rich.console import Console
from rich.progress import Progress, TextColumn

from durably.cli.failures import CommandError
from durably.cli.operators.output import Format, print_result
from durably.cli.reading import store_file
from durably.configuration.sections import without_password
from durably.errors import DefinitionError, StoreInUseError, StoreUnavailableError
from durably.runtime.clock import SystemClock
from durably.storage.connect import POSTGRES_PREFIXES
from durably.storage.records import Owner


def move_store(source: str, target: str, *, format: Format) -> None:
    """
    Raises:
        CommandError: the stores are none that this moves between, or one of them cannot be had.
    """
    if not target.startswith(POSTGRES_PREFIXES):
        raise CommandError(
            "A store is moved to PostgreSQL: name it by a URL such as postgresql://user:password@host/database. A file "
            "of SQLite is moved by copying it (docs/operations.md)."
        )
    try:
        from durably.storage.postgres.moving import move  # Only who uses it needs its driver.
    except ImportError as error:
        raise CommandError(
            f"A store in PostgreSQL needs psycopg, which cannot be imported ({error}). Install it: pip install "
            "'durably[postgres]'"
        ) from error
    owner = Owner(host=socket.gethostname(), process_id=os.getpid(), since=SystemClock().now())
    try:
        with Progress(
            TextColumn("{task.description}"), TextColumn("{task.completed:,}"), console=Console(stderr=True),
            transient=True,
        ) as bars:  # fmt: skip
            task = bars.add_task("", total=None)
            moved = move(
                store_file(source).path, target, owner=owner,
                progressed=lambda table, rows: bars.update(task, description=table, completed=rows),
            )  # fmt: skip
    except (StoreInUseError, StoreUnavailableError, DefinitionError) as error:
        raise CommandError(str(error)) from error
    counts = ", ".join(f"{count:,} {table}" for table, count in moved.rows.items() if count) or "no rows"
    print_result(
        {"rows": moved.rows, "digest": moved.digest},
        format,
        names=[without_password(target)],
        tell=lambda: Console(highlight=False, soft_wrap=True).print(
            f"Moved: {counts}. Read back and compared: {moved.digest}. The file stays as it is. Do not start a runtime "
            "on it again: it would do once more what goes on in PostgreSQL.",
            markup=False,
        ),
    )
