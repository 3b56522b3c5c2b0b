"""What does not fit into one value of SQLite is asked for in parts: nothing that could be stored cannot be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from durably import InvocationStatus, ObjectContext, RetryPolicy, Runtime, VirtualObject, handler, state
from durably.ids import Address, KeyScope
from durably.storage import connections, pieces
from durably.storage.introspection import InspectableStore
from durably.storage.memory import MemoryStore
from durably.storage.records import PENDING_BYTES, Batch, CompletionRecord, InvocationRecord, SignalRecord, StepRecord
from tests.storage.conftest import NewStore
from tests.storage.samples import MARY, OWNER, field, invocation

LIMIT_BYTES = 20_000
"""Of an answer, for the readers of these stores; megabytes in life."""
ARGUMENT = b'"' + b"x" * 5_000 + b'"'
JOE = Address("Ticket", "joe")


@pytest.fixture
def small_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_answers(monkeypatch, LIMIT_BYTES)


def limit_answers(monkeypatch: pytest.MonkeyPatch, limit_bytes: int) -> None:
    monkeypatch.setattr(connections, "ANSWER_LIMIT_BYTES", limit_bytes)


@pytest.fixture
async def stores(tmp_path: Path, new_store: NewStore, small_answers: None) -> tuple[InspectableStore, MemoryStore]:
    """A store with small answers, and the specification, with the same content."""
    store, specification = new_store(tmp_path / "app.db"), MemoryStore()
    for one in (store, specification):
        await one.open(OWNER)
        await one.commit(content())
    return store, specification


def content() -> Batch:
    def large(number: int, status: InvocationStatus, address: Address = MARY, **more: object) -> InvocationRecord:
        scope = KeyScope(address.service, address.key, "reserve", f"key {number}")
        return invocation(number, status=status, address=address, argument=ARGUMENT, scope=scope, **more)

    return Batch(
        last_position=40,
        accepted=[
            *(large(number, InvocationStatus.SUSPENDED) for number in range(1, 8)),
            large(8, InvocationStatus.PENDING),
            *(large(number, InvocationStatus.PENDING, mailbox_position=number) for number in range(9, 15)),
            *(large(number, InvocationStatus.PENDING, JOE, mailbox_position=number) for number in range(15, 18)),
            *(large(number, InvocationStatus.COMPLETED, expires_at=number) for number in range(20, 30)),
        ],
        steps=[StepRecord(1, index, ARGUMENT) for index in range(2)],
        completions=[CompletionRecord(2, 1, 20, False, b"\0\xff")],
        state=[field(name, ARGUMENT) for name in "abcdef"],
        signals=[SignalRecord(3, position, "approved", False, ARGUMENT) for position in range(21, 23)],
    )


async def test_an_object_is_loaded_whole(stores: tuple[InspectableStore, MemoryStore]) -> None:
    store, specification = stores
    places = [MARY, JOE, Address("Ticket", "nobody")]
    for limit in (1, 4, 100):
        assert await store.load(places, pending_limit=limit) == await specification.load(places, pending_limit=limit)


async def test_look_ups_are_answered(stores: tuple[InspectableStore, MemoryStore]) -> None:
    store, specification = stores
    ids = [f"inv_{number:032x}" for number in range(40)]
    assert await store.find(ids) == await specification.find(ids)
    numbers = list(range(40))
    assert await store.fetch(numbers) == await specification.fetch(numbers)
    scopes = [KeyScope("Ticket", key, "reserve", f"key {number}") for number in range(40) for key in ("mary", "joe")]
    assert await store.find_keyed(scopes) == await specification.find_keyed(scopes)


async def test_pages_are_shorter(stores: tuple[InspectableStore, MemoryStore], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PAGE_BYTES", LIMIT_BYTES)
    store, specification = stores
    found: list[InvocationRecord] = []
    while page := await store.invocations(after=found[-1].number if found else 0, limit=100):
        found += page
    assert found == await specification.invocations(after=0, limit=100)
    expired = await store.expired(100, 100)
    assert 0 < len(expired) < 10
    assert expired == await specification.expired(100, len(expired))


async def test_of_a_mailbox_no_more_is_loaded_than_memory_is_there_for(tmp_path: Path, new_store: NewStore) -> None:
    argument = b"x" * (PENDING_BYTES // 2)
    waiting = [
        invocation(number, status=InvocationStatus.PENDING, mailbox_position=number, argument=argument)
        for number in range(1, 6)
    ]
    for store in (new_store(tmp_path / "app.db"), MemoryStore()):
        await store.open(OWNER)
        await store.commit(Batch(last_position=5, accepted=waiting))
        (loaded,) = await store.load([MARY], pending_limit=100)
        assert [pending.record.number for pending in loaded.pending] == [1, 2]
        assert loaded.pending_beyond == 3


async def test_a_mailbox_that_holds_more_than_fits_into_a_value_is_worked_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_broken = True

    class Inbox(VirtualObject):
        received: int = state(default=0)

        @handler
        async def receive(self, ctx: ObjectContext, letter: str) -> int:
            if is_broken:
                raise RuntimeError("not yet")
            self.received += 1
            return self.received

    url = f"sqlite:///{tmp_path / 'app.db'}"
    letter = "x" * (PENDING_BYTES // 2)
    async with Runtime(url, [Inbox], retry=RetryPolicy(max_attempts=1)) as runtime:
        sent = [await runtime.object(Inbox, "mary").receive.send(letter) for _ in range(9)]
    is_broken = False
    limit_answers(monkeypatch, 4 * PENDING_BYTES)
    async with Runtime(url, [Inbox]) as runtime:
        await runtime.resume(sent[0].id)
        assert [await runtime.invocation(one.id, int).result() for one in sent] == list(range(1, 10))
