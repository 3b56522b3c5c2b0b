"""`Reads`: what the machine asks the store, many at once.

While a question is open, a busy event loop gives way to the store's threads (rule X8).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

from durably.ids import Address, KeyScope
from durably.runtime.commit.thread_yielding import ThreadYielding
from durably.storage.records import (
    EntryAnswer,
    EntryQuery,
    InvocationRecord,
    JournalSize,
    StoredInvocation,
    StoredObject,
)
from durably.storage.store import Store

R = TypeVar("R")


class EntryQuestion(NamedTuple):
    """A question about entries, asked when the log was durable up to a position, and their last change was at another.

    The same question asked then may have the same answer.
    """

    query: EntryQuery
    changed_at: int
    durable: int


class Reads:
    """Each method answers a group of questions with a function that knows the answer to each of them."""

    def __init__(self, store: Store, thread_yielding: ThreadYielding, pending_limit: int) -> None:
        """`pending_limit` is how many messages of a mailbox are loaded at once."""
        self._store = store
        self._thread_yielding = thread_yielding
        self._pending_limit = pending_limit

    async def load(self, addresses: Sequence[Address], /) -> Callable[[Address], StoredObject]:
        """What activations begin with."""
        loaded = await self._in_thread(self._store.load(addresses, pending_limit=self._pending_limit))
        return {stored.address: stored for stored in loaded}.__getitem__

    async def entries(self, questions: Sequence[EntryQuestion], /) -> Callable[[EntryQuestion], EntryAnswer]:
        """Entries of collections."""
        answers = await self._in_thread(self._store.entries([question.query for question in questions]))
        return dict(zip(questions, answers, strict=True)).__getitem__

    async def fetch(self, numbers: Sequence[int], /) -> Callable[[int], StoredInvocation | None]:
        """Unfinished invocations by number."""
        return (await self._in_thread(self._store.fetch(numbers))).get

    async def fetch_ended(self, numbers: Sequence[int], /) -> Callable[[int], StoredInvocation | None]:
        """Invocations that have ended, by number, with what is kept of their journals."""
        return (await self._in_thread(self._store.fetch_ended(numbers))).get

    async def find(self, ids: Sequence[str], /) -> Callable[[str], InvocationRecord | None]:
        """Invocations by id, or by an id that leads to them."""
        return (await self._in_thread(self._store.find(ids))).get

    async def find_keyed(self, scopes: Sequence[KeyScope], /) -> Callable[[KeyScope], InvocationRecord | None]:
        """Invocations by idempotency key."""
        return (await self._in_thread(self._store.find_keyed(scopes))).get

    async def has_more_entries(self, address: Address, most: int, /) -> bool:
        """Whether an object has more than so many entries."""
        return await self._in_thread(self._store.has_more_entries(address, most))

    async def journal_size(self, number: int, /) -> JournalSize:
        """How much there is of a journal, whether it is kept or on its way out."""
        return await self._in_thread(self._store.journal_size(number))

    async def _in_thread(self, question: Coroutine[Any, Any, R]) -> R:
        self._thread_yielding.begin()
        try:
            return await question
        finally:
            self._thread_yielding.end()
