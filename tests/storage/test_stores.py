"""The misbehaving stores misbehave exactly as they say."""

from __future__ import annotations

import asyncio

import pytest

from durably.errors import StoreUnavailableError
from durably.storage.memory import MemoryStore
from durably.storage.records import Batch
from durably.testing.stores.wrapped import FailingStore, HeldStore
from tests.storage.samples import MARY, OWNER, field


def batch(position: int) -> Batch:
    return Batch(last_position=position, state=[field("a", str(position).encode())])


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_held_commit_waits_until_it_is_released() -> None:
    store = HeldStore(MemoryStore())
    await store.open(OWNER)
    commits = [asyncio.ensure_future(store.commit(batch(position))) for position in (1, 2)]
    await turns()
    assert store.commits.waiting == 2
    assert await store.state(MARY) == {}
    store.commits.release_one()
    await turns()
    assert await store.state(MARY) == {"a": b"1"}
    assert [commit.done() for commit in commits] == [True, False]
    store.release()
    await asyncio.gather(*commits)
    await store.commit(batch(3))
    assert await store.state(MARY) == {"a": b"3"}


async def test_a_held_acknowledgement_is_of_a_durable_commit() -> None:
    store = HeldStore(MemoryStore())
    await store.open(OWNER)
    store.release()
    store.acknowledgements.hold()
    commit = asyncio.ensure_future(store.commit(batch(1)))
    await turns()
    assert not commit.done()
    assert await store.state(MARY) == {"a": b"1"}
    store.release()
    await commit


async def test_a_held_load_answers_what_was_there_when_it_was_asked() -> None:
    store = HeldStore(MemoryStore())
    await store.open(OWNER)
    store.release()
    store.loads.hold()
    load = asyncio.ensure_future(store.load([MARY], pending_limit=1))
    await turns()
    await store.commit(batch(1))
    store.release()
    assert (await load)[0].state == {}


async def test_a_waiter_that_was_cancelled_is_passed_over() -> None:
    store = HeldStore(MemoryStore())
    await store.open(OWNER)
    first, second = (asyncio.ensure_future(store.commit(batch(position))) for position in (1, 2))
    await turns()
    first.cancel()
    store.commits.release_one()
    await second
    assert await store.state(MARY) == {"a": b"2"}


@pytest.mark.parametrize("durable", [False, True])
async def test_the_chosen_commit_fails_before_or_after_it_became_durable(durable: bool) -> None:
    store = FailingStore(MemoryStore(), fail_at=2, durable=durable)
    await store.open(OWNER)
    await store.commit(batch(1))
    with pytest.raises(StoreUnavailableError):
        await store.commit(batch(2))
    with pytest.raises(StoreUnavailableError):
        await store.commit(batch(3))
    opened = await store.open(OWNER)
    assert opened.last_position == (2 if durable else 1)
    await store.commit(batch(3))
    assert await store.state(MARY) == {"a": b"3"}
