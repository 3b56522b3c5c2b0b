"""Which invocations are held up by a pause (guarantee 21), read from the disk when nothing happens.

It starts from what is paused and goes to who waits for it, until nothing is added: who called it or attached to it,
what is queued behind one that is held up, and what waits for a limit as many places of which are held up as it has.
The machine looks from both ends, in memory and in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from durably.actors.protocol.commands import Command
from durably.ids import Address, InvocationStatus
from durably.storage.memory import StoredRow, holds_mailbox
from durably.testing.simulation.limits import LimitWatch


def held_up(
    rows: Mapping[int, StoredRow], limits: LimitWatch, pending: Callable[[StoredRow], Mapping[int, Command]]
) -> set[int]:
    """The numbers of those of these unfinished invocations that do not go on unless a person does something.

    `pending`: the commands that an invocation waits for.
    """
    by_id = {row.record.id: number for number, row in rows.items()}
    callees = _callees(rows, pending)
    held = {number for number, row in rows.items() if row.record.status is InvocationStatus.PAUSED}

    def is_held(number: int) -> bool:
        record = rows[number].record
        if record.status is not InvocationStatus.PENDING:
            return not held.isdisjoint(callees.get(number, ()))
        taken = limits.places(record.id)
        if taken is not None:
            places, at_once = taken
            return sum(any(by_id.get(id) in held for id in members) for members in places) >= at_once
        ahead = _current(record.address, rows) if record.mailbox_position is not None else None
        return ahead is not None and ahead != number and ahead in held

    while more := {number for number in rows if number not in held and is_held(number)}:
        held |= more
    return held


def _callees(
    rows: Mapping[int, StoredRow], pending: Callable[[StoredRow], Mapping[int, Command]]
) -> dict[int, list[int]]:
    """Whose outcome each one waits for."""
    found: dict[int, list[int]] = {}
    waiting: dict[int, Mapping[int, Command]] = {}
    for number, row in rows.items():
        attached = [attachment.caller for attachment in row.attachments.values()]
        for caller in attached if row.record.caller is None else (row.record.caller, *attached):
            if caller.number in rows:
                if caller.number not in waiting:
                    waiting[caller.number] = pending(rows[caller.number])
                if caller.command in waiting[caller.number]:
                    found.setdefault(caller.number, []).append(number)
    return found


def _current(address: Address, rows: Mapping[int, StoredRow]) -> int | None:
    """What holds the mailbox of an object, or is the first in it."""
    queued: Sequence[StoredRow] = [row for row in rows.values() if row.record.address == address]
    holders: Iterable[StoredRow] = (row for row in queued if holds_mailbox(row.record))
    first = next(iter(holders), None)
    if first is None:
        places = {row.record.mailbox_position: row for row in queued if row.record.mailbox_position is not None}
        first = places[min(places)] if places else None
    return None if first is None else first.record.number
