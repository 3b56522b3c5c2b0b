"""What pops have taken of a collection and have not handed over yet: an entry is handed over or given back, once.

A pop takes its entry when it is called, and reads it afterwards. Pops of one end of a list are answered in the order in
which they were made. One that is cancelled leaves its entry to the pop after it, and so on; the entry of the last goes
back. So the entries that wait are always the innermost ones, next to what is in the list, and keep their order.

An entry that the store alone knows can only go back to its own position. What was added at that end meanwhile makes
room: it is known, so it can be written elsewhere.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import islice
from typing import Any, Protocol

from durably.actors.protocol.entries import FieldChanges, decode_bounds, decode_found, encode_bounds
from durably.ids import EntryKey


class Writer(Protocol):
    """What writes fields and entries: the port."""

    def read_field(self, name: str, /) -> bytes | None: ...
    def write_field(self, name: str, value: bytes | None, /) -> None: ...
    def write_entry(self, field: str, key: EntryKey, value: bytes | None, /) -> None: ...
    def restore_entry(self, field: str, key: EntryKey, /) -> None: ...


class Answer(Protocol):
    """What a read is answered with."""

    @property
    def failed(self) -> bool: ...
    @property
    def value(self) -> bytes: ...


class Popping(Protocol):
    """The operation of a pop."""

    taken: bool
    """Something awaits it."""

    def hand_over(self, entry: PoppedEntry, /) -> None:
        """The entry is known: the operation ends with it."""
        ...


class PoppedEntry:
    """An entry that a pop has taken."""

    __slots__ = ("answer", "command", "is_left", "key", "lies_left", "operation", "result", "value")

    def __init__(self, key: EntryKey, value: bytes | None, result: Any, *, is_left: bool = True) -> None:
        self.key = key
        self.value = value
        """Encoded, if this execution has written it; None: it is read from the snapshot."""
        self.result = result
        """What the value is."""
        self.is_left = self.lies_left = is_left
        """From which end of a list it was taken; and at which end it lay, which is the other one if it was added there
        and nothing is left between."""
        self.command: int | None = None
        """What reads it."""
        self.answer: Answer | None = None
        self.operation: Popping | None = None
        """That has been given it, and has not handed it over to the handler."""

    @property
    def is_known(self) -> bool:
        return self.value is not None or self.answer is not None

    def stored(self) -> bytes | None:
        """The encoded value, once it is known; None: it could not be read."""
        if self.value is not None or self.answer is None:
            return self.value
        found = [] if self.answer.failed else decode_found(self.answer.value).entries
        return found[0][1] if found else None


class Pops(Protocol):
    """The pops of a collection."""

    def issued(self, operation: Popping, entry: PoppedEntry, /) -> None:
        """An operation waits for its entry."""
        ...

    def answered(self, entry: PoppedEntry, answer: Answer, /) -> None:
        """The read of an entry has been answered."""
        ...

    def give_up(self, operation: Popping, asked: PoppedEntry, /) -> int | None:
        """A pop is cancelled that has no entry yet; `asked` is what it was issued for. Returns the read that is not
        needed any more.
        """
        ...

    def give_back(self, entry: PoppedEntry, /) -> None:
        """A pop is cancelled that has ended with this entry, which the handler has not seen."""
        ...

    def handed_over(self, entry: PoppedEntry, /) -> None:
        """The handler has it."""
        ...


class KeyPops:
    """The pops of a dictionary: the entry goes back, unless its key was written again."""

    __slots__ = ("_changes", "_entries", "_field", "_port")

    def __init__(self, port: Writer, field: str, changes: FieldChanges) -> None:
        self._port = port
        self._field = field
        self._changes = changes
        self._entries: dict[EntryKey, PoppedEntry] = {}

    def take(self, key: EntryKey, value: bytes | None, result: Any) -> PoppedEntry:
        """Note what a pop takes, after the key was removed."""
        entry = self._entries[key] = PoppedEntry(key, value, result)
        return entry

    def written(self, key: EntryKey, /) -> None:
        self._entries.pop(key, None)

    def issued(self, operation: Popping, entry: PoppedEntry, /) -> None:
        entry.operation = operation
        if entry.is_known:
            operation.hand_over(entry)

    def answered(self, entry: PoppedEntry, answer: Answer, /) -> None:
        entry.answer = answer
        if entry.operation is not None:
            entry.operation.hand_over(entry)

    def give_up(self, operation: Popping, asked: PoppedEntry, /) -> int | None:
        self.give_back(asked)
        return asked.command

    def give_back(self, entry: PoppedEntry, /) -> None:
        if self._changes.pops is not self or self._entries.get(entry.key) is not entry:
            return
        del self._entries[entry.key]
        if entry.value is None:
            self._port.restore_entry(self._field, entry.key)
        else:
            self._port.write_entry(self._field, entry.key, entry.value)

    def handed_over(self, entry: PoppedEntry, /) -> None:
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]

    def give_back_all(self) -> None:
        for entry in [*self._entries.values()]:
            if entry.operation is not None and entry.operation.taken:
                self.give_back(entry)


class ListPops:
    """The pops of a list.

    Beside the list, at either end, lie the entries that were taken and are not handed over, and None for each entry
    that was added outside of them. What is left between the two sides of that is as it was.
    """

    __slots__ = ("_added_left", "_added_right", "_changes", "_field", "_left", "_lines", "_port", "_right", "empty_at")

    def __init__(self, port: Writer, field: str, changes: FieldChanges) -> None:
        self._port = port
        self._field = field
        self._changes = changes
        self._left: deque[PoppedEntry | None] = deque()
        self._right: deque[PoppedEntry | None] = deque()
        """Both from the inside out."""
        self._added_left = self._added_right = 0
        """How many None are in each."""
        self._lines = (_Line(), _Line())
        """Of the right end and of the left one."""
        self.empty_at = 0
        """Where the list goes on, if it is empty while there are entries that may go back to their positions."""

    def __bool__(self) -> bool:
        """There are entries that may go back."""
        return bool(self._left or self._right)

    def take(self, key: EntryKey, value: bytes | None, result: Any, length: int, *, is_left: bool) -> PoppedEntry:
        """Note what a pop is about to take from a list of this length."""
        edge, other = (self._left, self._right) if is_left else (self._right, self._left)
        added = self._added_left if is_left else self._added_right
        entry = PoppedEntry(key, value, result, is_left=is_left)
        if added:
            place = len(edge) - 1
            while edge[place] is not None:
                place -= 1
            edge[place] = entry
            self._count(-1, is_left=is_left)
        elif length > self._added_left + self._added_right:
            edge.appendleft(entry)
        else:
            entry.lies_left = not is_left
            other[other.index(None)] = entry
            self._count(-1, is_left=not is_left)
        return entry

    def written(self, key: EntryKey, /) -> None:
        """Does nothing: entries of a list keep their places when one is written."""

    def added(self, *, is_left: bool) -> None:
        """An entry was added at an end."""
        edge = self._left if is_left else self._right
        if edge:
            edge.append(None)
            self._count(1, is_left=is_left)

    def issued(self, operation: Popping, entry: PoppedEntry, /) -> None:
        line = self._lines[entry.is_left]
        line.operations[operation] = None
        line.entries.append(entry)
        line.hand_over()

    def answered(self, entry: PoppedEntry, answer: Answer, /) -> None:
        entry.answer = answer
        self._lines[entry.is_left].hand_over()

    def give_up(self, operation: Popping, asked: PoppedEntry, /) -> int | None:
        line = self._lines[asked.is_left]
        del line.operations[operation]
        entry = line.entries.pop()
        self._insert(entry, entry.value)
        return entry.command

    def give_back(self, entry: PoppedEntry, /) -> None:
        value = entry.stored()
        if value is not None:
            self._insert(entry, value)

    def handed_over(self, entry: PoppedEntry, /) -> None:
        edge = self._left if entry.lies_left else self._right
        if edge and edge[-1] is entry:  # As a rule: the oldest is the outermost.
            edge.pop()
        elif entry in edge:
            edge.remove(entry)
            self._trim(is_left=entry.lies_left)

    def give_back_all(self) -> None:
        for line in self._lines:
            for operation in [one for one in line.operations if one.taken]:
                self.give_up(operation, line.entries[-1])
        for edge in (self._left, self._right):
            for entry in [one for one in edge if one is not None and one.operation is not None]:
                if entry.operation is not None and entry.operation.taken:
                    self.give_back(entry)

    def _insert(self, entry: PoppedEntry, value: bytes | None) -> None:
        """Put an entry back to its place among the others; without a value it can go to its own position alone."""
        edge, added = (self._left, self._added_left) if entry.lies_left else (self._right, self._added_right)
        if self._changes.pops is not self or entry not in edge:
            return  # It has gone with all others.
        place = edge.index(entry)
        outside = sum(one is None for one in islice(edge, place, None)) if added else 0
        first, end = self.bounds()
        before = outside if entry.lies_left else end - first - outside
        position = entry.key.position if value is None else first + before - entry.lies_left
        self._move(first, end, before, position)
        if value is None:
            self._port.restore_entry(self._field, entry.key)
        else:
            self._port.write_entry(self._field, EntryKey(position, ""), value)
        edge[place] = None
        self._count(1, is_left=entry.lies_left)
        self._trim(is_left=entry.lies_left)
        self._port.write_field(self._field, encode_bounds(position - before, position + 1 + end - first - before))

    def bounds(self) -> tuple[int, int]:
        """Where the list begins and ends."""
        bounds = self._port.read_field(self._field)
        return (self.empty_at, self.empty_at) if bounds is None else decode_bounds(bounds)

    def _move(self, first: int, end: int, before: int, position: int) -> None:
        """Let so many entries of the list end before a position, and the others begin behind it.

        Those that move were written by this execution.
        """
        ranges = ((first, first + before, position - before), (first + before, end, position + 1))
        moving = [(range(start, stop), to - start) for start, stop, to in ranges if start != to]
        own, port, field = self._changes.entries, self._port, self._field
        moved = [(at + by, own[EntryKey(at, "")]) for positions, by in moving for at in positions]
        for positions, _ in moving:
            for at in positions:
                port.write_entry(field, EntryKey(at, ""), None)
        for at, value in moved:
            port.write_entry(field, EntryKey(at, ""), value)

    def _count(self, more: int, *, is_left: bool) -> None:
        if is_left:
            self._added_left += more
        else:
            self._added_right += more

    def _trim(self, *, is_left: bool) -> None:
        """What lies inside of all that was taken belongs to the list."""
        edge = self._left if is_left else self._right
        while edge and edge[0] is None:
            edge.popleft()
            self._count(-1, is_left=is_left)


class _Line:
    """The pops of one end that wait, and the entries that they wait for, in order."""

    __slots__ = ("entries", "operations")

    def __init__(self) -> None:
        self.operations: OrderedDict[Popping, None] = OrderedDict()
        self.entries: deque[PoppedEntry] = deque()

    def hand_over(self) -> None:
        """What is known, and not behind something that is not."""
        while self.entries and self.entries[0].is_known:
            entry, (operation, _) = self.entries.popleft(), self.operations.popitem(last=False)
            entry.operation = operation
            operation.hand_over(entry)
