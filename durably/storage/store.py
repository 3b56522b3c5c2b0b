"""`Store`: the interface between the runtime and its storage. Shipped: in memory, on SQLite, on PostgreSQL.

What any implementation must guarantee (`durably.testing.stores.contract` tests all of it):

1. `commit` is atomic: after a crash at any moment either all of a batch is there or nothing of it.
2. `commit` returns only when the batch would survive the loss of power. What it raised may or may not have become
   durable.
3. Reads see exactly what was committed before they began, each one a single snapshot.
4. One owner at a time. `open` names the holder in `StoreInUseError`. It also increments the epoch, and a `commit` under
   an older epoch changes nothing and raises `StoreInUseError`: the lock gives the early error, the epoch gives the
   safety (rule X4).
5. Busy is no failure: the store itself tries the same batch again. Any other error of `commit` leaves the store
   unusable until `open` has succeeded again; `open` returns only when what is readable is also durable (rule X3).
6. An owner that opens again without having closed finds the same store, as it left it, or an error: `StoreInUseError`
   if anybody has owned it in between, `StoreLostError` if it is gone, another one, or older than what was
   acknowledged. It is never created again.
7. `verify` fails once somebody else owns the store, even if the caller was stopped in between: what is answered after
   it returned was true when it was asked (rule X9).

8. A limit of the store's own is not a failure of the store. An invocation or a snapshot that is too large to load comes
   back without its payloads and with `left_out_bytes`; a payload that cannot be read is left out of its record, which
   says so by `unreadable` (rule L5).

What operators and tools read is apart from this, in `durably.storage.introspection`.

One runtime calls `commit` for one batch at a time; reads may run beside it and beside each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

from durably.errors import StoreUnavailableError
from durably.ids import Address, KeyScope
from durably.queries import TableLayout, TableQuery
from durably.storage.records import (
    EVER,
    Batch,
    EntryAnswer,
    EntryQuery,
    EventAnswer,
    EventQuery,
    InvocationRecord,
    JournalSize,
    KeptJournalRecord,
    Opened,
    OpenMessages,
    OrderRecord,
    Owner,
    PlaceKey,
    PlaceRecord,
    StoredInvocation,
    StoredObject,
    TimerPlace,
    TimerRecord,
    VersionsAnswer,
)


class Verified:
    """An awaitable that is over already."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


VALUE_LIMIT_BYTES: Final = 900_000_000
"""What the shipped stores keep in one value. SQLite takes a billion bytes in one row."""
VERIFIED: Final = Verified()
"""What `Store.verify` returns where it could tell at once. Callers that know it need not wait for a loop turn."""


class ValueTooLargeError(ValueError):
    """The store keeps no value of this size."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"it has {size_bytes} bytes, and the store keeps at most {limit_bytes} in one value")


class DiskFullError(StoreUnavailableError):
    """A batch did not fit on the disk. A smaller one may."""


def check_size(value: bytes, limit_bytes: int) -> None:
    """
    Raises:
        ValueTooLargeError: it is larger.
    """
    if len(value) > limit_bytes:
        raise ValueTooLargeError(len(value), limit_bytes)


@runtime_checkable
class IndexesNames(Protocol):
    """A store whose indexes take names up to a size."""

    @property
    def names_limit_bytes(self) -> int | None:
        """What the names of a record in an index may hold together, in UTF-8; None: it has no such limit."""
        ...


class Store(Protocol):
    """Keeps what has happened. Every coroutine may raise `StoreUnavailableError`."""

    def describe(self) -> str:
        """One line for people: what and where this store is."""
        ...

    def congestion(self) -> str | None:
        """Why nothing more should be accepted from outside for now, as a sentence; None: no reason."""
        ...

    async def open(self, owner: Owner, /) -> Opened:
        """Take the store over, creating or migrating it as needed; also after a failure, on fresh connections.

        Raises:
            StoreInUseError: another owner runs on it, or has since this one opened it.
            StoreLostError: it was open and is not there any more, or is not the same.
            StoreUnavailableError: it cannot be read, was written by a newer version, or is not ours.
        """
        ...

    def verify(self) -> Awaitable[None]:
        """Check that this owner still is one: the check begins after the call (rule X9).

        Return `VERIFIED` if that was a matter of microseconds; otherwise, as any coroutine function does, something to
        wait for. Errors are raised here or where it is awaited.

        Raises:
            StoreInUseError: somebody else owns the store; final.
            StoreUnavailableError: the store is gone, or cannot tell.
        """
        ...

    async def close(self) -> None:
        """Let the store go. Closing a closed store does nothing."""
        ...

    @property
    def value_limit_bytes(self) -> int:
        """What one value may hold at most, and the names of one record together."""
        ...

    @property
    def checks_every_value(self) -> bool:
        """Whether a value can be stored is known by `check` alone; otherwise its size says it."""
        ...

    def check(self, value: bytes, /) -> None:
        """Return if a batch may hold this value. The machine asks before it lets anything follow from it (rule L5).

        Raises:
            ValueTooLargeError: it is larger than `value_limit_bytes`, as it would be stored.
            CodecError: it cannot be encoded.
        """
        ...

    async def commit(self, batch: Batch, /) -> None:
        """Make a batch durable, however much all of its values hold together.

        Raises:
            StoreInUseError: somebody else has taken the store over; final.
            StoreUnavailableError: the outcome is unknown.
        """
        ...

    async def load(self, addresses: Sequence[Address], /, *, pending_limit: int) -> list[StoredObject]:
        """What an activation of each address begins with, in the order asked for; also for those never seen.

        Of each mailbox at most `pending_limit` messages, and about `PENDING_BYTES` of arguments.
        """
        ...

    async def entries(self, queries: Sequence[EntryQuery], /) -> list[EntryAnswer]:
        """What fields keep apart from the snapshots of their objects (rule V7), in the order asked for.

        Each answer is a snapshot of its own. Its cost is that of the entries in it, not of the collection.
        """
        ...

    async def events(self, query: EventQuery, /) -> EventAnswer:
        """What was published, in the order of positions; at most `limit`, and fewer where they are large: at least one
        of those that are there.
        """
        ...

    async def event_sizes(self) -> list[tuple[str, int]]:
        """The streams of users' events, whose names have a slash, with about the bytes of what was published there."""
        ...

    async def lay_tables(self, tables: Sequence[TableLayout], /) -> None:
        """Keep tables of the objects of these classes, if this store keeps any, or of none; asked behind `open`."""
        ...

    async def search(self, query: TableQuery, /) -> VersionsAnswer | None:
        """Objects that fit, in order, and perhaps some that do not; None: no tables tell, but `versions` does."""
        ...

    async def count_objects(self, query: TableQuery, /) -> int | None:
        """How many objects fit. None: tables do not tell."""
        ...

    async def versions(self, table: TableLayout, /, *, after: str, limit: int) -> VersionsAnswer:
        """All objects of a class that have the field of the table, by key and behind one."""
        ...

    async def find(self, ids: Sequence[str], /) -> Mapping[str, InvocationRecord]:
        """Invocations by id (or alias), finished ones with their outcome; unknown ids are missing from the answer."""
        ...

    async def find_keyed(self, scopes: Sequence[KeyScope], /) -> Mapping[KeyScope, InvocationRecord]:
        """Invocations by idempotency key; unknown ones are missing from the answer."""
        ...

    async def fetch(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        """Unfinished invocations by number, with what belongs to them; unknown ones are missing from the answer."""
        ...

    async def fetch_ended(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        """The same of invocations that have ended, with what is kept of their journals; not where that is `LEAVING`."""
        ...

    async def has_more_entries(self, address: Address, most: int, /) -> bool:
        """Whether an object has more than so many entries (rule V7)."""
        ...

    async def journal_size(self, number: int, /) -> JournalSize:
        """How much there is of the journal of an invocation, whether it is kept or on its way out."""
        ...

    async def recoverable(self, after: int, limit: int, /) -> list[tuple[int, Address]]:
        """(number, address), by number and above `after`, of what can run without anything else happening (rule T3).

        That is every invocation with status running, every pending one without a mailbox position, and the first
        pending one of each mailbox that no invocation holds: its object has no started exclusive invocation (one with a
        mailbox position and a status other than pending, scheduled or completed).
        """
        ...

    async def held_up(self, after: int, limit: int, /) -> list[tuple[int, Address]]:
        """(number, address), by number and above `after`, of what may wait in a circle (rule E4).

        That is every suspended invocation without a sleep timer that something waits for: it holds a mailbox in which
        a message with a caller, or one that another command attached to, is pending; or a command attached to it.
        """
        ...

    async def timers(
        self, until: int, limit: int, /, *, after: TimerPlace | None = None, asked_after: int = EVER
    ) -> list[TimerRecord]:
        """Timers due at or before `until`, by (due, number, kind, command), beyond `after`, at most `limit`.

        With `asked_after` only those whose `asked_at` is later.
        """
        ...

    async def orders(self, after: int, limit: int, /) -> list[OrderRecord]:
        """Orders that are not carried out, by position and above `after`."""
        ...

    async def places(self, limit: int, /, *, after: PlaceKey | None = None) -> list[PlaceRecord]:
        """Which unfinished invocations run on places of limits, by (number, name, key), beyond `after`."""
        ...

    async def open_messages(self, service: str, handler: str, /) -> list[OpenMessages]:
        """Of one handler, by key: unfinished invocations that no invocation called or sent, and whose outcome is not
        kept. Scheduled ones are left out.

        Such are the messages that events and records of sources become, and calls from outside. Those of a key are held
        up while one of them is paused, or another invocation that has a place in the mailbox of the object.
        """
        ...

    async def expired(self, now: int, limit: int, /) -> list[InvocationRecord]:
        """Finished invocations whose outcome need not be kept any longer (`expires_at` at or before `now`).

        The first to expire first; fewer than `limit` where they are large, and none only if there is none.
        """
        ...

    async def expired_promises(self, now: int, limit: int, /) -> list[tuple[int, Address]]:
        """(when, address) of the objects of which the last promise that has an `expires_at` expires at or before `now`.

        The first to expire first; none only if there is none.
        """
        ...

    async def expired_journals(self, now: int, limit: int, /) -> list[KeptJournalRecord]:
        """Journals of ended invocations that need not be kept any longer (`expires_at` at or before `now`).

        The first to expire first.
        """
        ...

    async def expired_objects(self, now: int, limit: int, /) -> list[tuple[int, Address]]:
        """(when, address) of objects whose state goes at or before `now`. The first to go first."""
        ...

    async def paused(self, limit: int, /) -> list[InvocationRecord]:
        """Invocations that wait for a person, by number; fewer than `limit` where they are large."""
        ...


def names_limit_of(store: Store) -> int | None:
    """What names in an index of a store may hold together, in bytes of UTF-8; None: it has no such limit."""
    return store.names_limit_bytes if isinstance(store, IndexesNames) else None
