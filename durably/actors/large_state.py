"""State that is not loaded with its object: `Lazy`, `DurableDict`, `DurableList` (rule V7).

Each entry is a row of its own, and each operation costs what it reads and writes, for a collection of any size.
Writes are changes of the step, made when they are called. Reads are awaited; one sees what the handler has written
before it was called, over the state that the invocation began with. Values are copies: what is changed in place is
written only when it is set again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, overload

import msgspec

from durably.actors.protocol.commands import ReadEntries, ReadListRange
from durably.actors.protocol.entries import (
    PAGE_ENTRIES,
    FoundEntries,
    decode_bounds,
    decode_found,
    encode_bounds,
    laid_over,
)
from durably.actors.protocol.operations import CallSite, Operation, frame_above
from durably.actors.protocol.popped import KeyPops, ListPops
from durably.actors.protocol.port import Port
from durably.actors.values.descriptions import MISSING, shortened
from durably.actors.values.serde import TypeCodec
from durably.actors.values.type_checks import is_int
from durably.errors import SharedStateError, UndecodableError, UnencodableError, UnsetStateError
from durably.ids import EntryKey, is_storable

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")
R = TypeVar("R")

LAZY_KEY: Final = EntryKey(0, "")
NUMBERED: Final = "#"
TEXT: Final = "="
ITERATED_ENTRIES: Final = 100
"""How many entries `async for` reads at a time."""
_INTEGERS = range(-(1 << 63), 1 << 63)


class KeyCodec(Generic[K]):
    """Keys of a dictionary to keys of entries: in the order of numbers, or of texts by code point. Never encrypted."""

    __slots__ = ("_codec",)

    def __init__(self, codec: TypeCodec[K]) -> None:
        self._codec = codec

    def encode(self, key: K) -> EntryKey:
        """
        Raises:
            UnencodableError: it is not of the annotated type, or cannot be stored.
        """
        plain = msgspec.json.decode(self._codec.encode_exactly(key))
        if isinstance(plain, int):
            if plain not in _INTEGERS:
                raise UnencodableError(f"{plain} has more than 64 bits, and so cannot be a key.")
            return EntryKey(plain, NUMBERED)
        if not isinstance(plain, str) or not is_storable(plain):
            raise UnencodableError(f"{shortened(key)} is not Unicode text without NUL, so it cannot be a key.")
        return EntryKey(0, TEXT + plain)

    def decode(self, key: EntryKey) -> K:
        """
        Raises:
            UndecodableError: it is not of the annotated type.
        """
        plain = key.position if key.name == NUMBERED else key.name.removeprefix(TEXT)
        return self._codec.decode(msgspec.json.encode(plain))


class LargeField:
    """A field that is not loaded: what its values and keys are written by."""

    __slots__ = ("codec", "keys", "kind", "name", "what")

    def __init__(
        self, kind: type[Lazy[Any]] | type[DurableDict[Any, Any]] | type[DurableList[Any]], name: str, what: str,
        codec: TypeCodec[Any], keys: KeyCodec[Any] | None,
    ) -> None:  # fmt: skip
        self.kind = kind
        self.name = name
        """The stored name."""
        self.what = what
        """For sentences: `self.tickets`."""
        self.codec = codec
        self.keys = keys

    def view(self, port: Port, *, writable: bool) -> Any:
        """The field as one attempt sees it."""
        return self.kind(port, self, writable)

    def encode(self, value: Any) -> bytes:
        try:
            return self.codec.encode_exactly(value)
        except UnencodableError as error:
            raise UnencodableError(
                f"{self.what} cannot be given this value: {error.message}", path=error.path
            ) from error

    def decode(self, data: bytes) -> Any:
        try:
            return self.codec.decode(data)
        except UndecodableError as error:
            raise UndecodableError(
                f"A stored value of {self.what} does not fit its type. {error.message} If its type has changed, give "
                "the new field another name=, or let the type accept the old form too.",
                path=error.path,
                reason=error.reason,
            ) from error

    def key(self, key: Any) -> EntryKey:
        assert self.keys is not None
        try:
            return self.keys.encode(key)
        except UnencodableError as error:
            raise UnencodableError(f"{self.what} cannot have this key: {error.message}", path=error.path) from error

    def place(self, key: EntryKey, first: int) -> Any:
        """What tells an entry from the others, in a list whose first one is at this position."""
        if self.keys is not None:
            return self.keys.decode(key)
        return key.position - first if self.kind is DurableList else None

    def bounds(self, stored: bytes | None) -> tuple[int, int]:
        """Where a list begins and ends."""
        try:
            return decode_bounds(stored)
        except msgspec.MsgspecError as error:
            raise UndecodableError(
                f"Where {self.what} begins and ends cannot be read: {error}. The store was damaged, or the field has "
                "had another type. Restore it from a backup, or give the field another name=."
            ) from error

    def has_bounds(self, stored: bytes) -> bool:
        """Whether this is what says where a list begins and ends. So is the value `[1, 2]` of a field before it."""
        try:
            self.bounds(stored)
        except UndecodableError:
            return False
        return self.kind is DurableList

    def user_key(self, key: EntryKey) -> Any:
        assert self.keys is not None
        return self.keys.decode(key)


class LargeState:
    """What the three have in common. Made for each attempt by durably itself."""

    __slots__ = ("_field", "_port", "_writable")

    def __init__(self, port: Port, field: LargeField, writable: bool) -> None:
        self._port = port
        self._field = field
        self._writable = writable

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._field.what}>"

    def _check_writable(self) -> None:
        self._port.check(self._field.what)
        if not self._writable:
            raise SharedStateError(
                f"{self._field.what} was changed in a shared handler, which may only read: others run beside it. "
                "Make the handler exclusive (@handler), or let it call one that is."
            )

    def _write(self, key: EntryKey, value: bytes | None) -> None:
        self._port.write_entry(self._field.name, key, value)

    def _read(self, key: EntryKey, then: Callable[[bytes | None], R], what: str, site: CallSite) -> Operation[R]:
        """Read one entry: at once where this execution has changed it."""
        what = f"{self._field.what}.{what}"
        self._port.check(what)
        own = self._port.own_entries(self._field.name)
        if own.is_cleared or key in own.entries:
            return self._port.issue_known(then(own.entries.get(key)), what, site)
        return self._port.issue(ReadEntries(self._field.name, (key,)), _first(then), what, site)


class Lazy(LargeState, Generic[T]):
    """A field that is read only when it is asked for: `profile: Lazy[Profile] = state()`, then `await self.profile`.

    For what is large and seldom wanted: a handler that does not ask for it does not pay for it.
    """

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, T]:
        """The value.

        Raises:
            UnsetStateError: it has none.
        """
        operation: Operation[T] = self._read(LAZY_KEY, self._set_value, "get()", CallSite(frame_above(1)))
        return cast("Generator[Any, None, T]", operation.__await__())

    @overload
    def get(self) -> Coroutine[Any, Any, T | None]: ...
    @overload
    def get(self, default: D) -> Coroutine[Any, Any, T | D]: ...
    def get(self, default: Any = None) -> Coroutine[Any, Any, Any]:
        """The value, or `default` if it has none."""
        field = self._field
        return self._read(
            LAZY_KEY,
            lambda data: default if data is None else field.decode(data),
            "get()",
            CallSite(frame_above(1)),
        )

    def set(self, value: T, /) -> None:
        """Give it a value. It is written as it is now.

        Raises:
            UnencodableError: the value is not of its type, or cannot be written.
            SharedStateError: the handler is shared.
        """
        self._check_writable()
        self._write(LAZY_KEY, self._field.encode(value))

    def clear(self) -> None:
        """Take its value away."""
        self._check_writable()
        self._write(LAZY_KEY, None)

    def _set_value(self, data: bytes | None) -> Any:
        if data is None:
            raise UnsetStateError(
                f"{self._field.what} was read before it was written. Set it first, or read it with `await "
                f"{self._field.what}.get(default)`."
            )
        return self._field.decode(data)

    if not TYPE_CHECKING:  # Type checkers say so by themselves.

        def __bool__(self) -> bool:
            raise TypeError(f"{self!r} was tested for truth. Write `await` before it to read it.")


class DurableDict(LargeState, Generic[K, V]):
    """A dictionary of any size: `seats: DurableDict[str, Seat] = state()`.

    Keys are texts or integers (also as enums, UUIDs and dates). Entries are in the order of the keys: integers by
    value, texts by code point. Keys stay readable in the store with every codec; values do not.
    """

    __slots__ = ()

    @overload
    def get(self, key: K, /) -> Coroutine[Any, Any, V | None]: ...
    @overload
    def get(self, key: K, default: D, /) -> Coroutine[Any, Any, V | D]: ...
    def get(self, key: K, default: Any = None, /) -> Coroutine[Any, Any, Any]:
        """The value of a key, or `default` if it is not there."""
        return self._read(self._field.key(key), self._or(default), f"get({key!r})", CallSite(frame_above(1)))

    def contains(self, key: K, /) -> Coroutine[Any, Any, bool]:
        """Whether a key is there. Its value is not read."""
        site, port, field = CallSite(frame_above(1)), self._port, self._field
        what, stored = f"{field.what}.contains({key!r})", field.key(key)
        port.check(what)
        own = port.own_entries(field.name)
        if own.is_cleared or stored in own.entries:
            return port.issue_known(own.entries.get(stored) is not None, what, site)
        command = ReadEntries(field.name, (stored,), only_keys=True)
        return port.issue(command, lambda answer: bool(decode_found(answer).entries), what, site)

    def set(self, key: K, value: V, /) -> None:
        """Give a key a value. Nothing is read for it.

        Raises:
            UnencodableError: key or value are not of their types, or cannot be written.
            SharedStateError: the handler is shared.
        """
        self._check_writable()
        self._write(self._field.key(key), self._field.encode(value))

    def __setitem__(self, key: K, value: V, /) -> None:
        self.set(key, value)

    def delete(self, key: K, /) -> None:
        """Remove a key. Nothing is read for it, so one that is not there is no error.

        Raises:
            SharedStateError: the handler is shared.
        """
        self._check_writable()
        self._write(self._field.key(key), None)

    def __delitem__(self, key: K, /) -> None:
        self.delete(key)

    @overload
    def pop(self, key: K, /) -> Coroutine[Any, Any, V | None]: ...
    @overload
    def pop(self, key: K, default: D, /) -> Coroutine[Any, Any, V | D]: ...
    def pop(self, key: K, default: Any = None, /) -> Coroutine[Any, Any, Any]:
        """Remove a key at once, and read what it had, or `default`.

        One that is cancelled before the handler has the value puts it back, unless the key was written again meanwhile.

        Raises:
            SharedStateError: the handler is shared.
        """
        self._check_writable()
        site, port, field = CallSite(frame_above(1)), self._port, self._field
        stored, what = field.key(key), f"{field.what}.pop({key!r})"
        changes = port.own_entries(field.name)
        own = changes.entries.get(stored)
        if own is None and (changes.is_cleared or stored in changes.entries):
            return port.issue_known(default, what, site)
        result = None if own is None else field.decode(own)
        pops = changes.pops
        if not isinstance(pops, KeyPops):
            pops = changes.pops = KeyPops(port, field.name, changes)
        self._write(stored, None)
        entry = pops.take(stored, own, result)
        command = ReadEntries(field.name, (stored,)) if own is None else None
        return port.issue_taking(command, _first(self._or(default)), what, site, pops, entry)

    def clear(self) -> None:
        """Remove all entries. The step records one change, however many there are."""
        self._check_writable()
        self._port.clear_entries(self._field.name)

    def count(self) -> Coroutine[Any, Any, int]:
        """How many entries there are. Costs the keys that this invocation has changed, not those that there are."""
        site, port, field = CallSite(frame_above(1)), self._port, self._field
        what = f"{field.what}.count()"
        port.check(what)
        own = port.own_entries(field.name)
        changed = {key: value is not None for key, value in own.entries.items()}
        if own.is_cleared:
            return port.issue_known(sum(changed.values()), what, site)
        unknown = tuple(sorted(key for key in changed if key not in own.known))
        if own.counted is not None and not unknown:
            return port.issue_known(_counted(own.counted, changed, own.known), what, site)

        def decode(answer: bytes) -> int:
            found = decode_found(answer)
            there = {key for key, _ in found.entries}
            own.known.update((key, key in there) for key in unknown)
            own.counted = found.count
            return _counted(found.count, changed, own.known)

        command = ReadEntries(field.name, unknown, only_keys=True, counts=True)
        return port.issue(command, decode, what, site)

    def page(
        self, after: K | None = None, *, limit: int = ITERATED_ENTRIES, reverse: bool = False
    ) -> Coroutine[Any, Any, list[tuple[K, V]]]:
        """The entries that follow the key `after`, or the first ones, in order; `reverse`: backwards from it.

        As many as there are, and at most `limit`, which is 1,000 at most. The next page begins after the last key of
        this one.
        """
        start = None if after is None else self._field.key(after)
        first = self._read_page(start, limit, reverse, CallSite(frame_above(1)))
        return self._page(first, limit, reverse)

    async def items(self, *, reverse: bool = False) -> AsyncIterator[tuple[K, V]]:
        """All entries in order, read by pages of 100: `async for key, value in self.seats.items()`."""
        after: EntryKey | None = None
        while True:
            page, after = await self._read_page(after, ITERATED_ENTRIES, reverse, CallSite(frame_above(0)))
            for key, value in page:
                yield key, value
            if after is None:
                return

    async def _page(
        self, first: Operation[tuple[list[tuple[K, V]], EntryKey | None]], limit: int, reverse: bool
    ) -> list[tuple[K, V]]:
        page: list[tuple[K, V]]
        page, end = await first
        while len(page) < limit and end is not None:  # Entries were removed of those that the store has.
            more, end = await self._read_page(end, limit - len(page), reverse, CallSite(frame_above(0)))
            page += more
        return page

    def _read_page(
        self, after: EntryKey | None, limit: int, reverse: bool, site: CallSite
    ) -> Operation[tuple[list[tuple[K, V]], EntryKey | None]]:
        field, port = self._field, self._port
        _check_limit(limit, field.what)
        start, end = (None, after) if reverse else (after, None)
        what = f"{field.what}.page()"
        port.check(what)
        own = port.own_entries(field.name)
        changed = own.between(start, end, limit, is_backward=reverse)

        def decode_over(stored: FoundEntries) -> tuple[list[tuple[K, V]], EntryKey | None]:
            page = laid_over(stored, changed, limit, is_backward=reverse)
            return [(field.user_key(key), field.decode(value)) for key, value in page.entries], page.end

        if own.is_cleared:
            return port.issue_known(decode_over(FoundEntries([])), what, site)
        command = ReadEntries(field.name, limit=limit, after=start, before=end, is_backward=reverse)
        return port.issue(command, lambda answer: decode_over(decode_found(answer)), what, site)

    def _or(self, default: Any) -> Callable[[bytes | None], Any]:
        field = self._field
        return lambda data: default if data is None else field.decode(data)

    if not TYPE_CHECKING:  # Type checkers say so by themselves.

        def __bool__(self) -> bool:
            raise TypeError(f"{self!r} was tested for truth. Write `await {self._field.what}.count()`.")

        def __len__(self) -> int:
            raise TypeError(f"The length of {self!r} has to be read. Write `await {self._field.what}.count()`.")

        def __getitem__(self, key: Any) -> Any:
            raise TypeError(f"An entry of {self!r} has to be read. Write `await {self._field.what}.get({key!r})`.")

        def __contains__(self, key: Any) -> bool:
            raise TypeError(f"A key of {self!r} has to be read. Write `await {self._field.what}.contains({key!r})`.")

        def __iter__(self) -> Any:
            raise TypeError(
                f"The entries of {self!r} have to be read. Write `async for key, value in {self._field.what}.items()`."
            )


class DurableList(LargeState, Generic[T]):
    """A list of any size, which is also a queue: `waiting: DurableList[Job] = state()`.

    Its length is known without reading; entries come and go at both ends, and are read and set by index.
    """

    __slots__ = ()

    def __len__(self) -> int:
        first, end = self._bounds()
        return end - first

    def append(self, value: T, /) -> None:
        """Add an entry at the end.

        Raises:
            UnencodableError: the value is not of its type, or cannot be written.
            SharedStateError: the handler is shared.
        """
        self._check_writable()
        self._add(value, is_left=False)

    def appendleft(self, value: T, /) -> None:
        """Add an entry at the beginning; raises what `append` does."""
        self._check_writable()
        self._add(value, is_left=True)

    @overload
    def pop(self) -> Coroutine[Any, Any, T]: ...
    @overload
    def pop(self, default: D) -> Coroutine[Any, Any, T | D]: ...
    def pop(self, default: Any = MISSING) -> Coroutine[Any, Any, Any]:
        """Take the last entry away at once, and read it.

        One that is cancelled before the handler has the entry takes nothing: pops of this end that were made later
        and wait get the entries before theirs, and the last one's goes back.

        Raises:
            IndexError: the list is empty, and no default was given.
            SharedStateError: the handler is shared.
        """
        return self._take(default, CallSite(frame_above(1)), is_left=False)

    @overload
    def popleft(self) -> Coroutine[Any, Any, T]: ...
    @overload
    def popleft(self, default: D) -> Coroutine[Any, Any, T | D]: ...
    def popleft(self, default: Any = MISSING) -> Coroutine[Any, Any, Any]:
        """Take the first entry away at once, and read it; otherwise as `pop`."""
        return self._take(default, CallSite(frame_above(1)), is_left=True)

    def get(self, index: int, /) -> Coroutine[Any, Any, T]:
        """The entry of an index, which counts from the end if it is negative.

        Raises:
            IndexError: there is none. In a shared handler this is raised where it is awaited.
        """
        site = CallSite(frame_above(1))
        if self._writable:
            return self._read(EntryKey(self._position(index), ""), self._present, f"get({index})", site)
        what = f"{self._field.what}.get({index})"
        stop = None if index == -1 else index + 1
        return self._port.issue(ReadListRange(self._field.name, index, stop), self._only(index), what, site)

    def set(self, index: int, value: T, /) -> None:
        """Replace the entry of an index. Nothing is read for it.

        Raises:
            IndexError: there is none.
            UnencodableError: the value is not of its type, or cannot be written.
            SharedStateError: the handler is shared.
        """
        self._check_writable()
        self._write(EntryKey(self._position(index), ""), self._field.encode(value))

    def __setitem__(self, index: int, value: T, /) -> None:
        self.set(index, value)

    def range(self, start: int = 0, stop: int | None = None, /) -> Coroutine[Any, Any, list[T]]:
        """The entries from `start` up to `stop`, as a slice has them. At most 1,000.

        Raises:
            ValueError: they would be more.
        """
        site, port, field = CallSite(frame_above(1)), self._port, self._field
        what = f"{field.what}.range({start}, {stop})"
        port.check(what)
        first, end = self._bounds()
        low, high, _ = slice(start, stop).indices(end - first)
        if high - low > PAGE_ENTRIES:
            raise ValueError(
                f"{what} has {high - low} entries, and one read returns at most {PAGE_ENTRIES}. Read them in portions, "
                f"or write `async for entry in {field.what}`."
            )
        if not self._writable:
            return port.issue(ReadListRange(field.name, start, stop), self._values, what, site)
        wanted = [EntryKey(position, "") for position in range(first + low, first + high)]
        own = port.own_entries(field.name)
        changed = {key: value for key in wanted if (value := own.entries.get(key)) is not None}
        missing = [key for key in wanted if key not in changed]

        def decode(answer: bytes) -> list[Any]:
            stored = dict(decode_found(answer).entries)
            return [self._present(changed[key] if key in changed else stored.get(key)) for key in wanted]

        if not missing:
            return port.issue_known([field.decode(changed[key]) for key in wanted], what, site)
        after, before = EntryKey(missing[0].position - 1, ""), EntryKey(missing[-1].position + 1, "")
        return port.issue(ReadEntries(field.name, limit=PAGE_ENTRIES, after=after, before=before), decode, what, site)

    async def __aiter__(self) -> AsyncIterator[T]:
        """All entries in order, read by portions of 100."""
        index = 0
        while index < len(self):
            portion = await self.range(index, index + ITERATED_ENTRIES)
            index += len(portion)
            for value in portion:
                yield value

    def clear(self) -> None:
        """Remove all entries. The step records one change, however many there are."""
        self._check_writable()
        self._port.clear_entries(self._field.name)
        self._port.write_field(self._field.name, None)

    # ------------------------------------------------------------------ inside

    def _add(self, value: T, *, is_left: bool) -> None:
        first, end = self._bounds()
        self._write(EntryKey(first - 1 if is_left else end, ""), self._field.encode(value))
        self._bound(first - is_left, end + (not is_left))
        pops = self._pops()
        if pops is not None:
            pops.added(is_left=is_left)

    def _pops(self) -> ListPops | None:
        pops = self._port.own_entries(self._field.name).pops
        return pops if isinstance(pops, ListPops) else None

    def _bounds(self) -> tuple[int, int]:
        stored = self._port.read_field(self._field.name)
        if stored is None:
            pops = self._pops()
            return (pops.empty_at, pops.empty_at) if pops else (0, 0)
        return self._field.bounds(stored)

    def _bound(self, first: int, end: int) -> None:
        self._port.write_field(self._field.name, encode_bounds(first, end))
        if first == end:
            pops = self._pops()
            if pops is not None:
                pops.empty_at = first

    def _position(self, index: int) -> int:
        if not is_int(index):
            raise TypeError(f"An index of {self._field.what} is a whole number, not {index!r}.")
        first, end = self._bounds()
        position = (first if index >= 0 else end) + index
        if not first <= position < end:
            raise IndexError(f"{self._field.what} has {end - first} entries, and none with the index {index}.")
        return position

    def _take(self, default: Any, site: CallSite, *, is_left: bool) -> Operation[Any]:
        self._check_writable()
        what = f"{self._field.what}.{'popleft' if is_left else 'pop'}()"
        port, name = self._port, self._field.name
        first, end = self._bounds()
        if first == end:
            if default is MISSING:
                raise IndexError(f"{what}: the list is empty. Ask `len({self._field.what})` first, or give a default.")
            return port.issue_known(default, what, site)
        key = EntryKey(first if is_left else end - 1, "")
        changes = port.own_entries(name)
        own = changes.entries.get(key)
        result = None if own is None else self._field.decode(own)
        pops = self._pops()
        if pops is None:
            pops = changes.pops = ListPops(port, name, changes)
        entry = pops.take(key, own, result, end - first, is_left=is_left)
        self._write(key, None)
        self._bound(*((first + 1, end) if is_left else (first, end - 1)))
        command = ReadEntries(name, (key,)) if own is None else None
        return port.issue_taking(command, _first(self._present), what, site, pops, entry)

    def _present(self, data: bytes | None) -> Any:
        if data is None:
            raise UndecodableError(
                f"An entry of {self._field.what} that is within its length is not in the store: the store was damaged, "
                "or the field has had another type. Restore it from a backup, or give the field another name=."
            )
        return self._field.decode(data)

    def _values(self, answer: bytes) -> list[Any]:
        return [self._field.decode(value) for _, value in decode_found(answer).entries]

    def _only(self, index: int) -> Callable[[bytes], Any]:
        def decode(answer: bytes) -> Any:
            values = self._values(answer)
            if not values:
                raise IndexError(f"{self._field.what} has no entry with the index {index}.")
            return values[0]

        return decode

    if not TYPE_CHECKING:  # Type checkers say so by themselves.

        def __getitem__(self, index: Any) -> Any:
            raise TypeError(f"An entry of {self!r} has to be read. Write `await {self._field.what}.get({index!r})`.")

        def __iter__(self) -> Any:
            raise TypeError(f"The entries of {self!r} have to be read. Write `async for entry in {self._field.what}`.")


def _first(then: Callable[[bytes | None], R]) -> Callable[[bytes], R]:
    """What an answer of one entry at most gives."""

    def decode(answer: bytes) -> R:
        entries = decode_found(answer).entries
        return then(entries[0][1] if entries else None)

    return decode


def _counted(stored: int, changed: dict[EntryKey, bool], known: dict[EntryKey, bool]) -> int:
    """How many entries there are: those of the snapshot, and what was changed of them."""
    return stored + sum(is_there - known[key] for key, is_there in changed.items())


def _check_limit(limit: int, what: str) -> None:
    if not is_int(limit) or not 1 <= limit <= PAGE_ENTRIES:
        raise ValueError(f"A page of {what} has between 1 and {PAGE_ENTRIES} entries, not {limit!r}.")


LARGE_KINDS: Final = (Lazy, DurableDict, DurableList)
