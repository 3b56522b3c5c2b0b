"""Why an invocation cannot go on whose journal, or whose object's snapshot, could not be loaded (rule L5).

It was too large and the store left it out, or it cannot be read: it was changed at rest, or written with a key that the
codec does not have.
"""

from __future__ import annotations

from typing import TypeAlias

from durably.actors.migrations import recorded_state_version
from durably.errors import LoadLimitError, StateVersionError, UnreadableRecordError
from durably.ids import STATE_VERSION_FIELD, Address, is_storable
from durably.storage.records import (
    FAILURE_PART,
    NAMES_PART,
    OUTCOME_PART,
    PAYLOAD_PARTS,
    InvocationRecord,
    StoredInvocation,
    StoredObject,
    Unreadable,
    at_the_beginning,
    field_part,
)

LoadError: TypeAlias = LoadLimitError | UnreadableRecordError

ADVICE = (
    "It stays as it is until the store is opened with a higher limit (`SqliteStore(path, load_limit_mib=...)`) on a "
    "machine with the memory for it; then resume it. Keep large values elsewhere and pass their names."
)
WAY_OUT = (
    "Nothing else is affected. Give the codec its key back, or restore this record from a backup, then resume the "
    "invocation; it goes on where it stood."
)


def journal_load_error(stored: StoredInvocation) -> LoadError | None:
    """Why this invocation cannot go on, if it cannot."""
    record = stored.record
    if stored.left_out_bytes is not None:
        return LoadLimitError(
            f"The argument, steps and completions of {_target(record)} ({record.id}) hold "
            f"{_mib(stored.left_out_bytes)}, more than the store loads. {ADVICE}"
        )
    # What is known of its last failure is for people only.
    needed = [one for one in record.unreadable if one.part != FAILURE_PART]
    if stored.unreadable is not None:
        needed.append(stored.unreadable)
    return unreadable_error(record, needed[0]) if needed else None


def damaged_columns(record: InvocationRecord) -> UnreadableRecordError | None:
    """What is wrong with the row of an invocation, its payloads aside, if anything is. It is for tools: costs a look
    at each name.
    """
    for unreadable in record.unreadable:
        if unreadable.part not in PAYLOAD_PARTS:
            return unreadable_error(record, unreadable)
    names = (record.id, *record.address, record.handler)
    if not all(map(is_storable, names)):
        return unreadable_error(record, Unreadable(NAMES_PART, f"It is damaged: {'/'.join(names)!a} holds a NUL."))
    return None


def state_load_error(stored: StoredObject) -> LoadError | None:
    """Why nothing of this object can go on, if it cannot."""
    service, key = stored.address
    if stored.left_out_bytes is not None:
        return LoadLimitError(
            f"The state of {service}/{key} holds {_mib(stored.left_out_bytes)}, more than the store loads. {ADVICE}"
        )
    unreadable = stored.unreadable or _damaged_version(stored)
    if unreadable is None:
        return None
    return UnreadableRecordError(
        f"{at_the_beginning(unreadable.part)} of {service}/{key} cannot be read: {unreadable.reason} {WAY_OUT}"
    )


def _damaged_version(stored: StoredObject) -> Unreadable | None:
    try:
        recorded_state_version(stored.state)
    except ValueError as error:
        return Unreadable(field_part(STATE_VERSION_FIELD), f"It is damaged: {error}.")
    return None


def unreadable_entry(address: Address, unreadable: Unreadable) -> UnreadableRecordError:
    """An entry of a collection, which an invocation has asked for, cannot be read."""
    return UnreadableRecordError(
        f"{at_the_beginning(unreadable.part)} of {address.service}/{address.key} cannot be read: {unreadable.reason} "
        f"{WAY_OUT}"
    )


def newer_state_error(address: Address, version: int, known: int) -> StateVersionError | None:
    """Why nothing of an object can go on whose state newer code has written; there is no way back."""
    if version <= known:
        return None
    return StateVersionError(
        f"The state of {'/'.join(address)} has version {version}, and this code knows {known}: newer code has written "
        "it, and there is no way back. Run that code again, or restore this object from a backup; then resume the "
        "invocation."
    )


def unreadable_error(record: InvocationRecord, unreadable: Unreadable) -> UnreadableRecordError:
    """A part of an invocation cannot be read."""
    return UnreadableRecordError(
        f"{at_the_beginning(unreadable.part)} of {_target(record)} ({record.id}) cannot be read: {unreadable.reason} "
        f"{WAY_OUT}"
    )


def outcome_load_error(record: InvocationRecord) -> UnreadableRecordError | None:
    """Why the outcome of an invocation cannot be told, if it has one that cannot."""
    for unreadable in record.unreadable:
        if unreadable.part == OUTCOME_PART:
            return unreadable_outcome(record, unreadable.reason)
    return None


def unreadable_outcome(record: InvocationRecord, reason: str) -> UnreadableRecordError:
    """What those hear who ask for an outcome that cannot be read."""
    return UnreadableRecordError(
        f"The outcome of {_target(record)} ({record.id}) cannot be read: {reason} It is kept as it is. Give the codec "
        "its key back, or restore this record from a backup, and ask again."
    )


def _target(record: InvocationRecord) -> str:
    return f"{record.address.service}/{record.address.key}/{record.handler}"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):,.1f} MiB"
