"""`durably migrate`: the tables of a project's models become what its classes say, unless that would lose something.

First every stored object is read as the classes have it now. What they could not read, or would drop at the next
transition, is told, and nothing is changed. Then tables are made, and columns and indexes added; rows are written only
where a column has become a value.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import typer

from durably.actors.definition.definition import definition_of
from durably.actors.machines.info import MACHINE, MachineInfo, info_of
from durably.actors.machines.model import prefix_of, state_name, states_of
from durably.actors.machines.type_ids import has_prefix
from durably.cli.failures import CommandError
from durably.cli.projects import Program, configured, program_of
from durably.errors import StoreInUseError, StoreUnavailableError, UnreadableRecordError
from durably.queries import TableLayout
from durably.runtime.clock import SystemClock
from durably.runtime.runtime import Runtime
from durably.storage.connect import store_from_url
from durably.storage.records import Owner
from durably.storage.sqlite import SqliteStore
from durably.storage.tables import TABLE_PREFIX

PORTION: Final = 1_000
"""So many objects are read at a time."""
_SHOWN: Final = 3
"""So many ids are named."""


class LossError(CommandError):
    """Something would be lost."""


def migrate(target: str | None, *, allow_loss: bool) -> None:
    """Migrate the store of a project, as its configuration has it.

    Raises:
        CommandError: the store or the project cannot be had; `LossError`: something would be lost.
    """
    migrate_store(program_of(target, configured()), allow_loss=allow_loss)


def migrate_store(program: Program, *, allow_loss: bool) -> None:
    """Migrate the store of a program.

    Raises:
        CommandError, LossError: as `migrate`.
    """
    url = program.store
    if url is None:
        raise CommandError(
            f"{program.target} gives its runtime a store of its own. Say in durably.toml which one it is: [store] url."
        )
    store = store_from_url(url)
    if not isinstance(store, SqliteStore):
        typer.echo(f"{store.describe()} keeps no tables of models that would have to be made before.")
        return
    if program.runtime.codec is not None:
        typer.echo(f"{url} has a codec, and keeps no tables of what it wraps.")
        return
    try:
        for line in asyncio.run(_migrate(store, machines_of(program.runtime), allow_loss=allow_loss)):
            typer.echo(line)
    except (StoreInUseError, StoreUnavailableError, UnreadableRecordError) as error:
        raise CommandError(str(error)) from error


def machines_of(runtime: Runtime) -> Sequence[type]:
    """Those of its classes that are state machines."""
    return [bound.definition.actor for bound in runtime.actors.values() if _is_machine(bound.definition.actor)]


def _is_machine(actor: type) -> bool:
    return isinstance(getattr(actor, MACHINE, None), MachineInfo)


async def _migrate(store: SqliteStore, machines: Sequence[type], *, allow_loss: bool) -> list[str]:
    await store.open(Owner(host=socket.gethostname(), process_id=os.getpid(), since=SystemClock().now()))
    try:
        told: list[str] = []
        counts: dict[str, int] = {}
        for machine in machines:
            losses = Losses(machine)
            async for id, version in _versions(store, info_of(machine).table):
                losses.look_at(id, version)
            counts[info_of(machine).table.name] = losses.seen
            told += losses.told(allow_loss=allow_loss)
        if told:
            raise LossError("Nothing was changed, because something would be lost:\n" + "\n".join(told))
        tables = [info_of(machine).table for machine in machines]
        before = {table.name: _shape(store.path, table) for table in tables}
        await store.lay_tables(tables)
        return [
            line
            for table in tables
            for line in _changes(table, before[table.name], _shape(store.path, table), counts[table.name])
        ]
    finally:
        await store.close()


async def _versions(store: SqliteStore, table: TableLayout) -> AsyncIterator[tuple[str, bytes]]:
    after = ""
    while True:
        some = await store.versions(table, after=after, limit=PORTION)
        if some.unreadable is not None:
            raise UnreadableRecordError(
                f"{some.unreadable.part} of an object of {table.service} cannot be read: {some.unreadable.reason}"
            )
        for one in some.versions:
            yield one
        if some.is_all:
            return
        after = some.versions[-1][0]


# ---------------------------------------------------------------- what would be lost


class Losses:
    """What the classes of one machine would make of the objects that are stored."""

    def __init__(self, machine: type) -> None:
        self._info = info_of(machine)
        self._decode = definition_of(machine).handlers["get"].signature.types.result.decode
        self._fields = {state_name(state): {"state", *_json_names(state)} for state in states_of(self._info.model)}
        self._classes = {state_name(state): state.__name__ for state in states_of(self._info.model)}
        self.seen = 0
        self._of_state: dict[str, list[str]] = {}
        self._of_prefix: list[str] = []
        self._unread: dict[tuple[str, str], list[str]] = {}
        self._dropped: Counter[tuple[str, str]] = Counter()

    def look_at(self, id: str, version: bytes) -> None:
        decoded: Any = msgspec.json.decode(version)
        if not isinstance(decoded, dict) or "state" not in decoded:
            return  # An edit has removed it.
        self.seen += 1
        fields = cast("dict[str, Any]", decoded)
        state = str(fields["state"])
        if state not in self._fields:
            self._of_state.setdefault(state, []).append(id)
            return
        if not has_prefix(id, prefix_of(self._info.model)):
            self._of_prefix.append(id)
        try:
            self._decode(version)
        except Exception as error:  # Types of users decode.
            self._unread.setdefault((state, str(error)), []).append(id)
        self._dropped.update((state, name) for name in fields.keys() - self._fields[state])

    def told(self, *, allow_loss: bool) -> Iterator[str]:
        model = self._info.model.__name__
        for state, ids in self._of_state.items():
            yield (
                f"- {_number(ids)} of {model} in the state {state!r}, which {model} has no longer ({_some(ids)}). Keep "
                "the state, with a transition that leads out of it; remove it when no object is in it."
            )
        if self._of_prefix:
            yield (
                f"- {_number(self._of_prefix)} of {model} with ids that do not begin with "
                f"'{prefix_of(self._info.model)}_' ({_some(self._of_prefix)}). Keep the prefix: an id stays what it is."
            )
        for (state, reason), ids in self._unread.items():
            yield (
                f"- {_number(ids)} of {model} could not be read as {self._classes[state]} ({_some(ids)}): {reason}. "
                "Give a new field a default, and let a changed one accept what is stored."
            )
        for (state, name), count in self._dropped.items() if not allow_loss else ():
            yield (
                f"- The field {name!r} of {count:,} object{'' if count == 1 else 's'} of {model} in the state "
                f"{state!r}, which {self._classes[state]} has no longer: the next transition would drop it. Keep "
                "the field, or say --allow-loss."
            )


def _json_names(state: Any) -> Iterable[str]:
    names: tuple[str, ...] = state.__struct_encode_fields__
    return names


def _number(ids: Sequence[str]) -> str:
    return f"{len(ids):,} object{'' if len(ids) == 1 else 's'}"


def _some(ids: Sequence[str]) -> str:
    return ", ".join([*ids[:_SHOWN], *(["..."] if len(ids) > _SHOWN else [])])


# ---------------------------------------------------------------- what has changed


def _shape(path: Path, table: TableLayout) -> tuple[set[str], set[str]]:
    """The columns and indexes that a table has."""
    name = TABLE_PREFIX + table.name
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        columns = {str(row[1]) for row in connection.execute("select * from pragma_table_info(?)", (name,)).fetchall()}
        indexes = {
            str(row[0])
            for row in connection.execute(
                "select name from sqlite_schema where type = 'index' and tbl_name = ? and sql is not null", (name,)
            )
        }
    return columns, indexes


def _changes(
    table: TableLayout, before: tuple[set[str], set[str]], after: tuple[set[str], set[str]], count: int
) -> Iterator[str]:
    name = TABLE_PREFIX + table.name
    if not before[0]:
        yield f"Made: {name}, with {count:,} object{'' if count == 1 else 's'}"
        return
    changes = [
        *(f"column {one} added" for one in sorted(after[0] - before[0])),
        *(f"index {one} added" for one in sorted(after[1] - before[1])),
        *(f"index {one} removed" for one in sorted(before[1] - after[1])),
    ]
    yield f"Altered: {name}, {', '.join(changes)}" if changes else f"Unchanged: {name}"
