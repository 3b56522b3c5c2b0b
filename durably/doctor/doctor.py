"""`examine`: everything that can be known of a store without running it.

It only reads, in pages and with one snapshot for each question, so it may run beside the owner. First the file, then
its rows, then the values and what waits in it; what comes later would stumble over what is broken before, and is left
out where it would.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, TypeAlias

import msgspec

from durably.actors.protocol.entries import decode_bounds
from durably.doctor.findings import Finding, Findings, Report, problem
from durably.doctor.rows import examine_file, examine_rows
from durably.doctor.stuck import LOOKS, find_stuck
from durably.errors import StoreUnavailableError, UndecodableError
from durably.ids import GOING_FIELD, Address
from durably.runtime.invocations.load_errors import state_load_error, unreadable_entry
from durably.runtime.lifecycle.schedules import schedule_row
from durably.storage.introspection import InspectableStore
from durably.storage.records import SCHEDULES, EntryQuery, EventQuery
from durably.storage.sqlite import SqliteStore

OBJECTS_AT_ONCE: Final = 100
ENTRIES_AT_ONCE: Final = 1_000
UNREADABLE_ROWS: Final = frozenset({"layout", "no-owner", "damaged-file"})
"""Kinds of findings after which rows cannot be read as records."""

_BEGINS_ANEW: Final = (
    "It begins anew when a runtime with its class starts: ticks that were missed until then are lost. Where they must "
    "not be, restore a backup."
)

_GAP: Final = (
    "Handlers that come to the gap pause. Stop the runtime, keep a copy of the files, and restore a backup from "
    "before; or clear the list."
)

Progressed: TypeAlias = Callable[[str, int, int | None], object]
"""Hears what is being done, how much of it, and of how much, if that is known."""


def _nobody_listens(stage: str, done: int, total: int | None) -> None:
    del stage, done, total


async def examine(
    file: SqliteStore, store: InspectableStore | None = None, progressed: Progressed = _nobody_listens
) -> Report:
    """Examine a store that is open, for reads alone or by its owner.

    `store` is the same store with its values as they were before a codec wrapped them.
    """
    values = file if store is None else store
    findings = Findings()
    await examine_file(file, findings, lambda stage: progressed(stage, 0, None))
    invocations = objects = 0
    if not _is_unreadable(findings):
        await examine_rows(file, findings, lambda stage: progressed(stage, 0, None))
    if not _is_unreadable(findings):
        try:
            ((total, _),) = await file.examine("count_to_examine")
            invocations = await _invocations(values, findings, progressed, int(total))
            objects = await _objects(file, values, findings, progressed)
            await _entries(file, values, findings, progressed)
            await _events(file, values, findings, progressed)
        except (StoreUnavailableError, UndecodableError, msgspec.MsgspecError, ValueError) as error:
            words = f"Reading stopped here, because rows are not what durably writes: {error}"
            findings.add(problem("unreadable", "the rows", words))
    return Report(
        store=file.describe(),
        findings=findings.told(),
        left_out=findings.left_out,
        invocations=invocations,
        objects=objects,
    )


def _is_unreadable(findings: Findings) -> bool:
    return any(one.code in UNREADABLE_ROWS for one in findings.told())


async def _invocations(store: InspectableStore, findings: Findings, progressed: Progressed, total: int) -> int:
    done = 0

    def looked_at(count: int) -> None:
        nonlocal done
        done += count
        progressed("Looking at invocations", done, total)

    async for finding in find_stuck(store, looked_at):
        findings.add(finding)
    return done


async def _objects(file: SqliteStore, store: InspectableStore, findings: Findings, progressed: Progressed) -> int:
    """Whether all state and all promises can be read."""
    done = 0
    for (service,) in await file.examine("services_with_state"):
        if not service:  # What says which codec the store has, and where schedules stand.
            await _schedules(store, findings)
            continue
        after = ""
        while page := await store.summaries(service, after=after, limit=OBJECTS_AT_ONCE):
            for stored in await store.objects([Address(service, one.key) for one in page]):
                error = state_load_error(stored)
                if error is not None:
                    findings.add(problem("unreadable", "/".join(stored.address), str(error)))
            done += len(page)
            progressed("Looking at objects", done, None)
            after = page[-1].key
    return done


async def _entries(file: SqliteStore, store: InspectableStore, findings: Findings, progressed: Progressed) -> None:
    """Whether all entries of collections can be read (rule V7)."""
    place, done = ("", "", ""), 0
    while fields := await file.examine("fields_with_entries", _after(place)):
        for service, key, field in fields:
            place = (service, key, field)
            address, after = Address(service, key), None
            while True:
                query = EntryQuery(address, field, limit=ENTRIES_AT_ONCE, after=after)
                (answer,) = await store.entries([query])
                if answer.unreadable is not None:
                    error = unreadable_entry(address, answer.unreadable)
                    findings.add(problem("unreadable", "/".join(address), str(error)))
                    break
                done += len(answer.entries)
                progressed("Looking at entries", done, None)
                if len(answer.entries) < ENTRIES_AT_ONCE:
                    break
                after = answer.entries[-1][0]
            finding = await _gap(file, store, address, field)
            if finding is not None:
                findings.add(finding)


async def _events(file: SqliteStore, store: InspectableStore, findings: Findings, progressed: Progressed) -> None:
    """Whether all that was published can be read (rule P1)."""
    done = 0
    for (stream,) in await file.examine("streams"):
        after = 0
        while True:
            answer = await store.events(EventQuery(stream=str(stream), after=after, limit=ENTRIES_AT_ONCE))
            for one in answer.damaged:
                words = f"{one.unreadable.part} cannot be read: {one.unreadable.reason}"
                findings.add(problem("unreadable", f"the stream {stream}", words))
            if answer.last is None:
                break
            done += len(answer.events)
            progressed("Looking at events", done, None)
            after = answer.last


async def _gap(file: SqliteStore, store: InspectableStore, address: Address, field: str) -> Finding | None:
    """Whether a list has an entry at each of its positions. What looks wrong is looked at again: it may go on."""
    seen = await _list_rows(file, store, address, field)
    for _ in range(LOOKS - 1):
        if seen.is_whole or seen != (seen := await _list_rows(file, store, address, field)):
            return None
    if GOING_FIELD in await store.state(address):  # A portion at a time, and no one sees what is left.
        return None
    count, first, last, bounds = seen
    said = "its bounds are not there" if bounds is None else f"it reaches from {bounds[0]} to {bounds[1]}"
    words = f"The list {field!r} has {count} entries, from position {first} to {last}, and {said}: entries are missing."
    return problem("list-gap", "/".join(address), words, _GAP)


class _ListRows(NamedTuple):
    """What is stored of a field whose entries have no name."""

    entries: int
    first: int
    last: int
    bounds: tuple[int, int] | None

    @property
    def is_whole(self) -> bool:
        if not self.entries or (self.bounds is None and (self.entries, self.first) == (1, 0)):  # It is loaded lazily.
            return True
        return self.bounds == (self.first, self.last + 1) and self.entries == self.last + 1 - self.first


async def _list_rows(file: SqliteStore, store: InspectableStore, address: Address, field: str) -> _ListRows:
    ((count, first, last),) = await file.examine("unnamed_entries", (*address, field))
    (stored,) = await store.objects([address])
    bounds: tuple[int, int] | None = None
    with suppress(msgspec.MsgspecError):  # Else it is the value of a field of another kind.
        bounds = decode_bounds(stored.state[field]) if field in stored.state else None
    return _ListRows(count, first or 0, last or 0, bounds)


def _after(place: tuple[str, str, str]) -> dict[str, object]:
    service, key, field = place
    return {"service": service, "key": key, "field": field, "limit": OBJECTS_AT_ONCE}


async def _schedules(store: InspectableStore, findings: Findings) -> None:
    """Whether the rows of all schedules can be read."""
    (stored,) = await store.objects([SCHEDULES])
    error = state_load_error(stored)
    if error is not None:
        findings.add(problem("unreadable", "the schedules", str(error)))
    for name, value in stored.state.items():
        try:
            schedule_row(value)
        except ValueError as damage:
            words = f"Where this schedule stands cannot be read: {damage}"
            findings.add(problem("unreadable-schedule", name, words, _BEGINS_ANEW))
