"""`Waiting`: who waits for whom at one moment of a simulated run, read apart from the machine's own graph.

It starts from those who are waited for: each invocation knows its caller and those who attached to it. The machine goes
the other way, from commands to what they stand for, so a mistake there is not repeated here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet

from durably.actors.protocol.commands import Attach, Call, Command, key_scope
from durably.ids import Address, InvocationStatus
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.invocations.journal import journal_of
from durably.storage.memory import Disk, StoredRow, holds_mailbox, waits_in_mailbox
from durably.storage.records import CallerRecord

NO_LIMIT_BYTES = 1 << 62
WAITING = (InvocationStatus.SUSPENDED, InvocationStatus.RUNNING)
NO_COMMANDS: Mapping[int, Command] = {}


class Party:
    """One unfinished invocation."""

    __slots__ = (
        "address",
        "at_limit",
        "callers",
        "commands",
        "has_key",
        "id",
        "is_free",
        "is_queued",
        "number",
        "own_caller",
        "waits",
    )

    def __init__(
        self, number: int, id: str, address: Address, own_caller: CallerRecord | None, callers: Iterable[CallerRecord]
    ) -> None:
        self.number = number
        self.id = id
        self.address = address
        self.has_key = False
        """Others who come with the same key count on it too."""
        self.own_caller = own_caller
        self.callers = [*callers] if own_caller is None else [own_caller, *callers]
        self.commands = NO_COMMANDS
        self.is_queued = False
        self.at_limit: Iterable[int] | None = None
        """Who keeps the places of the limit that it waits for."""
        self.is_free = True
        """It goes on without any other one; True until it is known what it waits for."""
        self.waits: dict[int, int] = {}
        """Whom it waits for, by command; by -1 what holds the mailbox that it is queued in, or by
        -1, -2 and so on what holds the places of its limit."""


class Waiting:
    """All unfinished invocations, those in memory as they are there, and the others as they are on the disk."""

    def __init__(
        self,
        disk: Disk,
        live: Iterable[InvocationRun],
        ended: Callable[[str], bool],
        limit_holders: Callable[[str], Iterable[int] | None],
    ) -> None:
        """`limit_holders`: whom one waits for that has not begun because of a limit."""
        self._disk = disk
        self._limit_holders = limit_holders
        self.parties: dict[int, Party] = {}
        self._by_id: dict[str, int] = {}
        self._holders: dict[Address, int] = {}
        for invocation in live:
            if invocation.outcome is None:
                self._add_live(invocation)
        for numbers in disk.unfinished.values():
            for number in numbers:
                row = disk.rows[number]
                if number not in self.parties and not ended(row.record.id):
                    self._add_row(row)
        self._join()
        self.blocked = self._blocked()
        """Those who wait for nothing but each other."""

    def knot_of(self, number: int) -> AbstractSet[int]:
        """The blocked ones that wait for this one, as it waits for them."""
        back: dict[int, list[int]] = {}
        for blocked in self.blocked:
            for target in self.parties[blocked].waits.values():
                back.setdefault(target, []).append(blocked)
        forth = {blocked: [*self.parties[blocked].waits.values()] for blocked in self.blocked}
        return _reached(number, forth) & _reached(number, back)

    def newest_queued_call(self, members: AbstractSet[int]) -> int | None:
        """The newest of these that is queued and was called by one of them, which still waits for that call."""
        called = [
            party.number
            for party in (self.parties[number] for number in members)
            if (party.is_queued or party.at_limit)
            and (caller := party.own_caller) is not None
            and caller.number in members
            and self.parties[caller.number].waits.get(caller.command) == party.number
        ]
        return max(called, default=None)

    def is_wanted(self, number: int, waiter: int) -> bool:
        """Somebody inside waits for this one besides `waiter`, or may count on it because of its key."""
        return self.parties[number].has_key or any(
            number in party.waits.values() for party in self.parties.values() if party.number != waiter
        )

    # ------------------------------------------------------------------ inside

    def _add_live(self, invocation: InvocationRun) -> None:
        party = Party(invocation.number, invocation.id, invocation.address, invocation.caller, invocation.attachments)
        party.has_key = invocation.scope is not None
        self._enter(party)
        activation, journal, status = invocation.activation, invocation.journal, invocation.status
        has_begun = activation.find(invocation.number) is invocation
        if has_begun and invocation.is_exclusive:
            self._holders[invocation.address] = invocation.number
        if status is InvocationStatus.PENDING and has_begun and journal is None:
            party.at_limit = self._limit_holders(invocation.id)
        elif status is InvocationStatus.PENDING and not has_begun:
            party.is_queued = invocation.is_exclusive
        elif has_begun and journal is not None and status in WAITING:
            is_to_be_woken = bool(journal.undelivered) or invocation.held_step is not None
            party.commands = NO_COMMANDS if is_to_be_woken else dict(journal.pending)

    def _add_row(self, row: StoredRow) -> None:
        record = row.record
        callers = (attachment.caller for attachment in row.attachments.values())
        party = Party(record.number, record.id, record.address, record.caller, callers)
        party.has_key = record.scope is not None
        self._enter(party)
        if holds_mailbox(record):
            self._holders.setdefault(record.address, record.number)
        if waits_in_mailbox(record):
            party.is_queued = True
        elif record.status is InvocationStatus.SUSPENDED:
            journal = journal_of(self._disk.journal(row, NO_LIMIT_BYTES))
            if not journal.undelivered:
                party.commands = journal.pending

    def _enter(self, party: Party) -> None:
        self.parties[party.number] = party
        self._by_id[party.id] = party.number

    def _join(self) -> None:
        asked = {
            (caller.number, caller.command): party.number for party in self.parties.values() for caller in party.callers
        }
        for party in self.parties.values():
            if party.at_limit is not None:
                holders = enumerate(party.at_limit, 1)
                party.waits = {-place: number for place, number in holders if number in self.parties}
            elif party.is_queued:
                holder = self._holders.get(party.address)
                party.waits = {} if holder is None else {-1: holder}
            else:
                targets = {number: self._target(asked, party, number, one) for number, one in party.commands.items()}
                party.waits = {number: target for number, target in targets.items() if target is not None}
                if len(party.waits) < len(targets):
                    party.waits.clear()
            party.is_free = not party.waits

    def _target(self, asked: Mapping[tuple[int, int], int], party: Party, number: int, command: Command) -> int | None:
        if not isinstance(command, Call | Attach):
            return None
        target = asked.get((party.number, number))
        if target is None and isinstance(command, Attach):  # It may not be written down yet.
            if command.invocation_id is not None:
                known = self._by_id.get(command.invocation_id)
                target = self._disk.aliases.get(command.invocation_id) if known is None else known
            else:
                target = self._disk.numbers_by_scope.get(key_scope(command))
        return target if target in self.parties else None

    def _blocked(self) -> set[int]:
        back: dict[int, list[int]] = {}
        for party in self.parties.values():
            for target in party.waits.values():
                back.setdefault(target, []).append(party.number)
        free: set[int] = set()
        for party in self.parties.values():
            if party.is_free and party.number not in free:
                free |= _reached(party.number, back)
        return set(self.parties) - free


def _reached(start: int, ways: Mapping[int, Iterable[int]]) -> set[int]:
    """What can be reached from here, itself included."""
    reached, coming = {start}, [start]
    while coming:
        for other in ways.get(coming.pop(), ()):
            if other not in reached:
                reached.add(other)
                coming.append(other)
    return reached
