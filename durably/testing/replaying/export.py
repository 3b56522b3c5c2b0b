"""`export_journals`: the journals of what is under way in a store, written to files, and nothing in the store changed.

Only what has not ended has a journal. The store may be in use meanwhile: each object is read with its state in one
snapshot, and what ends or begins while the export runs is exported or not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

import structlog

from durably.errors import DurablyError, UnreadableRecordError
from durably.ids import Address, InvocationStatus
from durably.runtime.execution.failure_text import describe_failure
from durably.runtime.invocations.invocation import argument_load_error
from durably.runtime.invocations.journal import UnreadableStepError, deliveries_of, steps_of
from durably.runtime.invocations.load_errors import journal_load_error, state_load_error, unreadable_error
from durably.storage.introspection import Introspection
from durably.storage.records import InvocationRecord, StoredInvocation, StoredObject
from durably.testing.replaying.journals import ExportedJournal, this_durably, this_python, write_journal

logger = structlog.get_logger("durably.testing")

_PAGE_INVOCATIONS = 100
"""How many invocations are asked for at a time: a read must end within the store's time limit."""
_NOT_STARTED = (InvocationStatus.SCHEDULED, InvocationStatus.PENDING)


async def export_journals(
    store: Introspection,
    folder: str | Path,
    *,
    target: str | None = None,
    limit: int | None = None,
    on_exported: Callable[[ExportedJournal], object] | None = None,
) -> list[Path]:
    """Write the journal of each unfinished invocation into a file of its own; the files, oldest invocation first.

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
    async with aclosing(journals_under_way(store, target=target)) as journals:
        async for journal in journals:
            if limit is not None and len(written) >= limit:
                break
            written.append(write_journal(journal, folder))
            if on_exported is not None:
                on_exported(journal)
    return written


async def journals_under_way(store: Introspection, *, target: str | None = None) -> AsyncGenerator[ExportedJournal]:
    """The journals of unfinished invocations, oldest first; `target` as in `export_journals`."""
    service = None if target is None else target.partition("/")[0]
    after = 0
    while True:
        page = await store.invocations(after=after, limit=_PAGE_INVOCATIONS, service=service)
        wanted = [record for record in page if record.status is not InvocationStatus.COMPLETED and _is(record, target)]
        for journal in await _journals(store, wanted):
            yield journal
        if not page:
            return
        after = page[-1].number


async def is_known(store: Introspection, target: str) -> bool:
    """Whether the store holds anything of a target: an invocation, be it over, or the state of an object."""
    service, _, key = target.partition("/")
    after = 0
    while page := await store.invocations(after=after, limit=_PAGE_INVOCATIONS, service=service):
        if any(_is(record, target) for record in page):
            return True
        after = page[-1].number
    return bool(key and await store.state(Address(service, key)))


async def _journals(store: Introspection, records: list[InvocationRecord]) -> list[ExportedJournal]:
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
                logger.warning(
                    "a journal is too large to be loaded, so it is not exported",
                    invocation=record.id,
                    bytes=left_out_bytes,
                )
                continue
            try:
                found.append(journal_of(row, stored))
            except UnreadableRecordError as error:  # Rule L5
                _warn_of_unreadable(record, error)
        elif record.status in _NOT_STARTED:
            load_error = argument_load_error(record)
            if load_error is None:
                found.append(_exported(record, {}, None))
            else:
                _warn_of_unreadable(record, load_error)
    return found


def _warn_of_unreadable(record: InvocationRecord, error: DurablyError) -> None:
    logger.warning(
        "a journal cannot be read, so it is not exported", invocation=record.id, error=describe_failure(error)
    )


def journal_of(row: StoredInvocation, stored: StoredObject) -> ExportedJournal:
    """The journal of an invocation that has started, as it was loaded with its object.

    Raises:
        UnreadableRecordError: it, or the state of the object, cannot be read.
    """
    has_state = row.record.mailbox_position is not None
    error = journal_load_error(row) or (state_load_error(stored) if has_state else None)
    if error is not None:
        raise error
    try:
        # Rule V4: whoever holds the mailbox is the only one to change the state, and does so when it ends.
        return _exported(row.record, stored.state if has_state else {}, row)
    except UnreadableStepError as damaged:
        raise unreadable_error(row.record, damaged.unreadable) from damaged


def _exported(record: InvocationRecord, snapshot: dict[str, bytes], row: StoredInvocation | None) -> ExportedJournal:
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
        snapshot=snapshot,
        steps=() if row is None else tuple(steps_of(row)),
        deliveries=() if row is None else tuple(deliveries_of(row).values()),
        durably=this_durably(),
        python=this_python(),
    )


def _is(record: InvocationRecord, target: str | None) -> bool:
    service, key = record.address
    if target is None or target == service:
        return True
    if key == record.id:  # A service keeps each invocation under its own id.
        return target == f"{service}/{record.handler}"
    return target in (f"{service}/{key}", f"{service}/{key}/{record.handler}")
