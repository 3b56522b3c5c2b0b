"""A commit that did not wait for its synchronous replica does not count: it may be gone after a failover."""

# pyright: reportPrivateUsage=false
# Whose wait is cancelled is asked of the store's own connections.

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from durably import StoreUnavailableError
from durably.ids import Address
from durably.storage.postgres import PostgresStore
from durably.storage.records import Batch, StateRecord
from durably.testing.stores.contract import OWNER
from tests.postgres import PostgresServer, running_postgres

pytestmark = pytest.mark.slow

MARY = Address("Ticket", "mary")


@pytest.fixture(name="primary")
def _primary() -> Iterator[PostgresServer]:
    """A server of its own, since all of its commits wait once a replica is named."""
    with running_postgres() as server:
        yield server


async def wait_for_replica(server: PostgresServer, name: str) -> None:
    server.execute(f"alter system set synchronous_standby_names = '{name}'")
    server.execute("select pg_reload_conf()")
    while server.execute("show synchronous_standby_names") != [(name,)]:
        await asyncio.sleep(0.01)


async def cancel_the_wait(server: PostgresServer) -> None:
    """Of the commit that waits for the replica, or will."""
    while not server.execute("select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'"):
        await asyncio.sleep(0.01)


def test_a_commit_whose_wait_for_a_replica_was_cancelled_has_an_unknown_outcome(primary: PostgresServer) -> None:
    async def check() -> None:
        url = primary.new_url()
        store = PostgresStore(url, lease_seconds=0.3)
        await store.open(OWNER)
        await wait_for_replica(primary, "missing")
        committing = asyncio.ensure_future(store.commit(Batch(last_position=1, state=[StateRecord(MARY, "a", b"1")])))
        while not primary.execute("select 1 from pg_stat_activity where wait_event = 'SyncRep'"):
            await asyncio.sleep(0.01)
        renewed_at = f"select renewed_at from {url.partition('schema=')[2]}.lease"
        before = primary.execute(renewed_at)
        while primary.execute(renewed_at) == before:  # Renewals wait for no replica: the store stays ours.
            await asyncio.sleep(0.01)
        await cancel_the_wait(primary)
        with pytest.raises(StoreUnavailableError, match=r"has not replicated a commit.*`synchronous_standby_names`"):
            await committing
        with pytest.raises(StoreUnavailableError, match="has not replicated a commit"):
            await store.state(MARY)
        # To open the store again is a commit behind that one, so it is not open before both are replicated.
        opening = asyncio.ensure_future(store.open(OWNER))
        await cancel_the_wait(primary)
        with pytest.raises(StoreUnavailableError, match="has not replicated a commit"):
            await opening
        await wait_for_replica(primary, "")
        assert (await store.open(OWNER)).last_position == 1
        assert await store.state(MARY) == {"a": b"1"}
        await store.close()

    asyncio.run(check())
