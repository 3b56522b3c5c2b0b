"""`export_journals`: the journals of what is under way in a store, written to files, and nothing in the store changed.

Or of what has ended, as long as its journal is kept. The store may be in use meanwhile: each object is read with its
state in one snapshot, and what ends or begins while the export runs is exported or not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import structlog

from durably.actors.definition.binding import BY_MACHINE
from durably.actors.migrations import FIRST_STATE_VERSION, recorded_state_version
from durably.actors.protocol.commands import ReadEntries
from durably.errors import DurablyError, UnreadableRecordError
from durably.ids import Address, InvocationStatus, visible_state
from durably.runtime.commands.entry_commands import encode_answer, query_of
from durably.runtime.execution.failure_text import describe_failure
from durably.runtime.execution.step import Delivery
from durably.runtime.gateway.describe import installed_version
from durably.runtime.invocations.invocation import argument_load_error
from durably.runtime.invocations.journal import (
    UnreadableStepError,
    Versions,
    deliveries_of,
    steps_of,
    unrecorded_reads,
    version_at,
    versions_of,
    with_outcome,
)
from durably.runtime.invocations.load_errors import (
    damaged_columns,
    journal_load_error,
    outcome_load_error,
    state_load_error,
    unreadable_entry,
    unreadable_error,
)
from durably.runtime.invocations.outcomes import decode_outcome
from durably.storage.introspection import InspectableStore, Introspection
from durably.storage.records import EntryAnswer, InvocationRecord, StoredInvocation, StoredObject
from durably.testing.replaying.journals import ExportedJournal, this_python, write_journal

logger = structlog.get_logger("durably.testing")

LeftOut: TypeAlias = Callable[[InvocationRecord, str], object]

_PAGE_INVOCATIONS = 100
"""How many invocations are asked for at a time: a read must end within the store's time limit."""
_NOT_STARTED = (InvocationStatus.SCHEDULED, InvocationStatus.PENDING)


async def export_journals(
    store: Introspection,
    folder: str | Path,
    *,
    target: str | None = None,
    limit: int | None = None,
    ended: bool = False,
    on_exported: Callable[[ExportedJournal], object] | None = None,
) -> list[Path]:
    """Write the journal of each unfinished invocation into a file of its own; the files, oldest invocation first.

    With `ended`, those that are kept of what has ended, instead (`journal_retention`). They are for people to look at:
    the state that the steps of an exclusive handler saw has gone, so `replay_journals` passes those by.

    The store is open, by a runtime or by `SqliteStore.open_read_only()`. What cannot be read is left out, with a
    warning that names it. `target` is `Service`, `Service/handler`,
    `Object/key` or `Object/key/handler`; `limit` is the most that is exported. The folder is made if need be; files of
    earlier exports stay in it. The files hold arguments, answers and state as they are.

    Raises:
        StoreUnavailableError: the store cannot be read.
        OSError: the files cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    found = kept_journals(store, target=target) if ended else journals_under_way(store, target=target)
    async with aclosing(found) as journals:
        async for journal in journals:
            if limit is not None and len(written) >= limit:
                break
            written.append(write_journal(journal, folder))
            if on_exported is not None:
                on_exported(journal)
    return written


async def journals_under_way(
    store: Introspection, *, target: str | None = None, on_left_out: LeftOut | None = None
) -> AsyncGenerator[ExportedJournal]:
    """The journals of unfinished invocations, oldest first; `target` as in `export_journals`.

    `on_left_out` hears of those that cannot be read, and why; without it a warning is logged.
    """
    left_out = _warn_of_unreadable if on_left_out is None else on_left_out
    service = None if target is None else target.partition("/")[0]
    after = 0
    while True:
        page = await store.invocations(after=after, limit=_PAGE_INVOCATIONS, service=service)
        wanted = [record for record in page if record.status is not InvocationStatus.COMPLETED and _is(record, target)]
        readable = [record for record in wanted if _has_readable_columns(record, left_out)]
        for journal in await _journals(store, readable, left_out):
            yield journal
        if not page:
            return
        after = page[-1].number


async def journal_with_id(store: InspectableStore, id: str) -> ExportedJournal | None:
    """The journal of one invocation, as far as it is kept; None where there is none of this id.

    Raises:
        UnreadableRecordError: it cannot be read.
    """
    record = (await store.find([id])).get(id)
    if record is None:
        return None
    said: list[str] = []

    def left_out(_: InvocationRecord, why: str) -> None:
        said.append(why)

    if record.status is InvocationStatus.COMPLETED:
        rows = await store.fetch_ended([record.number])
        found = [_kept(row) for row in rows.values()]
    else:
        found = [*await _journals(store, [record] if _has_readable_columns(record, left_out) else [], left_out)]
    if said:
        raise UnreadableRecordError(said[0])
    return found[0] if found else None


async def kept_journals(store: Introspection, *, target: str | None = None) -> AsyncGenerator[ExportedJournal]:
    """What is kept of the journals of invocations that have ended, oldest first; `target` as in `export_journals`."""
    service = None if target is None else target.partition("/")[0]
    after = 0
    while page := await store.invocations(
        after=after, limit=_PAGE_INVOCATIONS, service=service, status=InvocationStatus.COMPLETED
    ):
        after = page[-1].number
        wanted = [one for one in page if _is(one, target) and _has_readable_columns(one, _warn_of_unreadable)]
        rows = await store.fetch_ended([record.number for record in wanted])
        for row in rows.values():
            journal = _kept(row)
            if journal is not None:
                yield journal


def _has_readable_columns(record: InvocationRecord, left_out: LeftOut) -> bool:
    """Whether its journal can be looked for, and told from those of others (rule L5)."""
    error = damaged_columns(record)
    if error is not None:
        left_out(record, describe_failure(error))
    return error is None


def _kept(row: StoredInvocation) -> ExportedJournal | None:
    record = row.record
    if row.left_out_bytes is not None:
        _warn_of_unreadable(record, _too_large(row.left_out_bytes))
    elif row.steps:
        try:
            error = journal_load_error(row) or outcome_load_error(record)
            if error is not None:
                raise error
            exported = _exported(record, {}, row)
            outcome = None if record.outcome is None else decode_outcome(record.outcome)
            return replace(exported, steps=tuple(with_outcome(exported.steps, outcome)))
        except UnreadableStepError as damaged:
            _warn_of_unreadable(record, describe_failure(unreadable_error(record, damaged.unreadable)))
        except DurablyError as unreadable:  # Rule L5
            _warn_of_unreadable(record, describe_failure(unreadable))
    return None


async def is_known(store: Introspection, target: str) -> bool:
    """Whether the store holds anything of a target: an invocation, be it over, or the state of an object."""
    service, _, key = target.partition("/")
    after = 0
    while page := await store.invocations(after=after, limit=_PAGE_INVOCATIONS, service=service):
        if any(_is(record, target) for record in page):
            return True
        after = page[-1].number
    return bool(key and await store.state(Address(service, key)))


async def _journals(store: Introspection, records: list[InvocationRecord], left_out: LeftOut) -> list[ExportedJournal]:
    """Those of some invocations, without those that have ended since."""
    addresses = {record.address: None for record in records if record.status is not InvocationStatus.SCHEDULED}
    objects = await store.objects(list(addresses))
    started = {row.record.number: (row, stored) for stored in objects for row in stored.started}
    found: list[ExportedJournal] = []
    for record in records:
        if record.number in started:
            row, stored = started[record.number]
            left_out_bytes = row.left_out_bytes or stored.left_out_bytes
            if left_out_bytes is not None:
                left_out(record, _too_large(left_out_bytes))
                continue
            try:
                read = await _read_again(store, row)
                if read is not None:
                    found.append(journal_of(row, stored, read))
            except UnreadableRecordError as error:  # Rule L5
                left_out(record, describe_failure(error))
        elif record.status in _NOT_STARTED:
            load_error = argument_load_error(record)
            if load_error is None:
                found.append(_exported(record, {}, None))
            else:
                left_out(record, describe_failure(load_error))
    return found


def _too_large(left_out_bytes: int) -> str:
    return f"It holds {left_out_bytes:,} bytes, more than the store loads."


def _warn_of_unreadable(record: InvocationRecord, why: str) -> None:
    logger.warning("a journal cannot be read, so it is not exported", invocation=record.id, error=why)


async def _read_again(store: Introspection, row: StoredInvocation) -> list[Delivery] | None:
    """What its steps have read of entries, which stand still while it holds its object; None: it has ended since."""
    if journal_load_error(row) is not None:
        return []
    try:
        reads = unrecorded_reads(row)
    except UnreadableStepError:
        return []
    if not reads:
        return []
    address = row.record.address
    answers = await store.entries([query_of(address, command) for _, command in reads])
    unreadable = next((answer.unreadable for answer in answers if answer.unreadable is not None), None)
    if unreadable is not None:
        raise unreadable_entry(address, unreadable)
    (now,) = await store.objects([address])
    if all(one.record.number != row.record.number for one in now.started):
        return None
    return read_answers(reads, answers)


def read_answers(reads: Sequence[tuple[int, ReadEntries]], answers: Sequence[EntryAnswer]) -> list[Delivery]:
    """The answers to reads of entries, as an exclusive handler was given them."""
    return [
        Delivery(number, False, encode_answer(command, answer))
        for (number, command), answer in zip(reads, answers, strict=True)
    ]


def journal_of(row: StoredInvocation, stored: StoredObject, read: Sequence[Delivery] = ()) -> ExportedJournal:
    """The journal of an invocation that has started, as it was loaded with its object.

    `read` are the answers to its reads of entries, where these are no records.

    Raises:
        UnreadableRecordError: it, or the state of the object, cannot be read.
    """
    has_state = row.record.mailbox_position is not None
    error = journal_load_error(row) or (state_load_error(stored) if has_state else None)
    if error is not None:
        raise error
    try:
        # Rule V4: only the invocation that holds the mailbox changes the state, and does so when it ends.
        return _exported(row.record, stored.state if has_state else {}, row, read)
    except UnreadableStepError as damaged:
        raise unreadable_error(row.record, damaged.unreadable) from damaged


def _exported(
    record: InvocationRecord,
    snapshot: dict[str, bytes],
    row: StoredInvocation | None,
    read: Sequence[Delivery] = (),
) -> ExportedJournal:
    versions = () if row is None else versions_of(row)
    return ExportedJournal(
        id=record.id,
        service=record.address.service,
        key=record.address.key,
        handler=record.handler,
        status=record.status,
        accepted_at=record.accepted_at,
        deadline=record.deadline,
        idempotency_key=None if record.scope is None else record.scope.idempotency_key,
        headers=record.headers,
        argument=record.argument,
        seed=record.seed,
        snapshot=visible_state(snapshot),
        steps=() if row is None else tuple(steps_of(row)),
        deliveries=() if row is None else (*deliveries_of(row).values(), *read),
        durably=installed_version(),
        python=this_python(),
        versions=versions,
        state_version=_state_version(snapshot, versions),
    )


def _state_version(snapshot: Mapping[str, bytes], versions: Versions) -> int:
    """Of the state on which an execution began. Where there was none, its steps say what they have made of it."""
    if snapshot:
        return recorded_state_version(snapshot)
    began_with = version_at(versions, 0)
    return FIRST_STATE_VERSION if began_with is None else began_with.state


def _is(record: InvocationRecord, target: str | None) -> bool:
    service, key = record.address
    if record.handler in BY_MACHINE:  # The machine carries it out: there is no code to replay.
        return False
    if target is None or target == service:
        return True
    if key == record.id:  # A service keeps each invocation under its own id.
        return target == f"{service}/{record.handler}"
    return target in (f"{service}/{key}", f"{service}/{key}/{record.handler}")
