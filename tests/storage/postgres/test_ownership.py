"""One owner at a time, by the clock of the server: who may take a store over, and who may not take it back."""

# pyright: reportPrivateUsage=false
# A process that is stopped is made by stopping its renewal.

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from threading import Event
from typing import Any

import psycopg
import pytest

from durably import Runtime, StoreInUseError, StoreLostError, StoreUnavailableError, VirtualObject, handler, state
from durably.actors.context import ObjectContext
from durably.ids import Address
from durably.storage.postgres import PostgresStore
from durably.storage.postgres import store as store_module
from durably.storage.postgres.connection import PgConnection
from durably.storage.postgres.ownership import end_writer
from durably.storage.records import Batch, StateRecord
from durably.testing.stores.contract import OWNER, RIVAL
from tests.postgres import PATIENCE_SECONDS, PostgresServer

pytestmark = pytest.mark.slow


def field(value: bytes) -> StateRecord:
    return StateRecord(Address("Ticket", "mary"), "status", value)


def schema_of(url: str) -> str:
    return url.partition("schema=")[2]


@asynccontextmanager
async def opened(url: str, lease_seconds: float = 30) -> AsyncGenerator[PostgresStore]:
    store = PostgresStore(url, lease_seconds=lease_seconds, advertised="http://first:8080")
    await store.open(OWNER)
    try:
        yield store
    finally:
        await store.close()


def stop_renewing(store: PostgresStore) -> None:
    """As SIGSTOP does: the sessions stay, and nothing comes from them."""
    tenure = store._tenure
    assert tenure is not None
    assert tenure.renewal is not None
    tenure.renewal.stop()


def stand_still(is_over: Event) -> None:
    """As a renewal does that waits for a lock."""
    is_over.wait(PATIENCE_SECONDS)


def in_the_middle(connection: psycopg.Connection[Any]) -> None:
    """Of a batch that takes several statements."""
    connection.execute("begin")
    connection.execute("update owner set host = host")


def let_time_pass(server: PostgresServer, url: str) -> None:
    server.execute(f"update {schema_of(url)}.lease set renewed_at = renewed_at - interval '1 hour'")


def test_a_store_is_taken_when_its_lease_has_run_out_and_never_taken_back(server: PostgresServer) -> None:
    """Rule X9: an owner that was stopped finds a successor, and would otherwise play ping-pong with it."""

    async def check() -> None:
        url = server.new_url()
        async with opened(url) as first:
            await first.commit(Batch(last_position=1, state=[field(b"1")]))
            second = PostgresStore(url)
            with pytest.raises(StoreInUseError, match=r"first\.example.*It serves at http://first:8080") as raised:
                await second.open(RIVAL)
            assert raised.value.address == "http://first:8080"
            stop_renewing(first)
            let_time_pass(server, url)
            await second.open(RIVAL)
            await second.commit(Batch(last_position=2, state=[field(b"2")]))
            for again in (False, True):
                if again:  # What it may have heard of a failure in between makes no difference.
                    await second.close()
                with pytest.raises(StoreInUseError, match=RIVAL.host):
                    await first.open(OWNER)
                with pytest.raises((StoreInUseError, StoreUnavailableError)):
                    await first.verify()

    asyncio.run(check())


def test_a_store_is_taken_at_once_when_the_session_of_its_owner_has_ended(server: PostgresServer) -> None:
    async def check() -> None:
        url = server.new_url()
        async with opened(url) as first:
            stop_renewing(first)
            server.execute(f"select pg_terminate_backend(session_pid) from {schema_of(url)}.lease")
            second = PostgresStore(url)
            await second.open(RIVAL)
            await second.close()

    asyncio.run(check())


def test_a_stopped_owner_in_the_middle_of_a_transaction_is_not_waited_for(server: PostgresServer) -> None:
    async def check() -> None:
        url = server.new_url()
        async with opened(url) as first:
            tenure = first._tenure
            assert tenure is not None
            await tenure.writer.run(in_the_middle)
            second = PostgresStore(url)
            with pytest.raises(StoreInUseError):  # It is slow, and there: a long commit is no reason.
                await second.open(RIVAL)
            stop_renewing(first)
            let_time_pass(server, url)
            await second.open(RIVAL)
            await second.close()

    asyncio.run(check())


def test_an_owner_that_is_superseded_ends_no_session_of_its_successor(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The successor has the number of the epoch that the older one tries for when it opens again."""

    async def check() -> None:
        url = server.new_url()
        async with opened(url) as first:
            stop_renewing(first)
            let_time_pass(server, url)
            second = PostgresStore(url)
            await second.open(RIVAL)
            with closing(psycopg.connect(server.url())) as other:
                other.execute(f"select * from {schema_of(url)}.lease for update".encode())

                def end_once(connection: PgConnection, **told: Any) -> None:
                    end_writer(connection, **told)
                    other.rollback()

                monkeypatch.setattr(store_module, "end_writer", end_once)
                with pytest.raises(StoreInUseError, match=RIVAL.host):
                    await first.open(OWNER)
            await second.commit(Batch(last_position=1, state=[field(b"1")]))
            await second.close()

    asyncio.run(check())


def test_another_owner_with_the_same_epoch_is_told_apart(server: PostgresServer) -> None:
    """After a failover to a replica that lagged behind, a successor gets a number that was given before."""

    async def check() -> None:
        url = server.new_url()
        async with opened(url) as first:
            server.execute(f"update {schema_of(url)}.owner set host = 'second.example'")
            with pytest.raises(StoreInUseError, match=RIVAL.host):
                await first.verify()
        assert server.execute(f"select is_held from {schema_of(url)}.lease") == [(True,)]

    asyncio.run(check())


def test_a_check_does_not_wait_for_a_renewal(server: PostgresServer) -> None:
    """What is answered from memory waits for it (rule X9)."""

    async def check() -> None:
        async with opened(server.new_url()) as first:
            tenure = first._tenure
            assert tenure is not None
            is_over = Event()
            tenure.keeper.tell(lambda _: stand_still(is_over))
            try:
                async with asyncio.timeout(PATIENCE_SECONDS / 2):
                    await first.verify()
                    assert await first.state(Address("Ticket", "mary")) == {}
            finally:
                is_over.set()

    asyncio.run(check())


def test_who_finds_the_store_in_use_keeps_its_owner_from_nothing(server: PostgresServer) -> None:
    """A row that a newcomer has locked would stay so while its answer waits for a replica."""

    async def check() -> None:
        url = server.new_url()
        async with opened(url):
            with closing(psycopg.connect(server.url())) as other:
                other.execute(f"select * from {schema_of(url)}.lease for update".encode())
                with pytest.raises(StoreInUseError, match=r"first\.example.*It serves at http://first:8080"):
                    await PostgresStore(url).open(RIVAL)
                other.rollback()

    asyncio.run(check())


def test_renewals_that_cannot_be_sent_do_not_add_up(server: PostgresServer) -> None:
    async def check() -> None:
        url = server.new_url()
        async with opened(url, lease_seconds=0.1) as first:
            tenure = first._tenure
            assert tenure is not None
            assert tenure.renewal is not None
            with closing(psycopg.connect(server.url())) as other:
                other.execute(f"select * from {schema_of(url)}.lease for update".encode())
                while not tenure.renewal._is_under_way:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.2)  # Six of its periods.
                assert tenure.keeper._jobs.qsize() <= 1
                other.rollback()

    asyncio.run(check())


@pytest.mark.parametrize("end", ["refused", "closed"])
def test_a_second_runtime_on_the_same_object_leaves_the_first_alone(server: PostgresServer, end: str) -> None:
    async def check() -> None:
        url = server.new_url()
        store = PostgresStore(url)
        async with Runtime(store, [Counter]) as first:
            second = Runtime(store, [Counter])
            with pytest.raises(StoreInUseError, match="is in use by process"):
                await second.__aenter__()
            if end == "closed":
                await second.__aexit__(None, None, None)
            assert server.execute(f"select is_held from {schema_of(url)}.lease") == [(True,)]
            assert await first.object(Counter, "one").add() == 1
        async with Runtime(store, [Counter]) as second:  # It is free once the first has let it go.
            assert await second.object(Counter, "one").add() == 2

    asyncio.run(check())


def test_a_long_commit_does_not_keep_its_owner_from_renewing(server: PostgresServer) -> None:
    async def check() -> None:
        url = server.new_url()
        renewed_at = f"select renewed_at from {schema_of(url)}.lease"
        async with opened(url, lease_seconds=6) as first:
            with closing(psycopg.connect(server.url())) as other:
                other.execute(f"select * from {schema_of(url)}.owner for update".encode())
                committing = asyncio.ensure_future(first.commit(Batch(last_position=1, state=[field(b"1")])))
                before = server.execute(renewed_at)
                while server.execute(renewed_at) == before:
                    await asyncio.sleep(0.01)
                with pytest.raises(StoreInUseError):
                    await PostgresStore(url).open(RIVAL)
                assert not committing.done()
                other.rollback()
                await committing

    asyncio.run(check())


def test_what_is_not_what_it_was_is_not_written_to(server: PostgresServer) -> None:
    async def check() -> None:
        for change, sentence in (
            ("update {}.owner set last_position = 3", "is older than it was"),
            ("update {}.owner set store_id = 'other'", "is not the one that was open"),
            ("drop schema {} cascade", "its tables are gone"),
        ):
            url = server.new_url()
            store = PostgresStore(url)
            await store.open(OWNER)
            await store.commit(Batch(last_position=7))
            server.execute(change.format(schema_of(url)))
            with pytest.raises(StoreLostError, match=sentence):
                await store.open(OWNER)
            await store.close()

    asyncio.run(check())


class Counter(VirtualObject):
    count: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext) -> int:
        self.count += 1
        return self.count


def test_a_runtime_goes_on_when_its_connections_are_cut_and_when_the_server_restarts(server: PostgresServer) -> None:
    async def check() -> None:
        url = server.new_url()
        async with Runtime(url, [Counter]) as runtime:
            counter = runtime.object(Counter, "one")

            async def add(key: str) -> int:
                while True:  # The outcome may be unknown, so it is asked for by the same key.
                    try:
                        return await counter.add.options(idempotency_key=key)()
                    except StoreUnavailableError:
                        await asyncio.sleep(0.01)

            assert [await add(f"before {number}") for number in range(3)] == [1, 2, 3]
            for number in range(4, 8):
                asked = asyncio.ensure_future(add(str(number)))
                await asyncio.sleep(0.002 * (number - 4))
                server.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'durably'"
                )
                assert await asked == number
            await asyncio.to_thread(server.restart)
            assert [await add(f"after {number}") for number in range(3)] == [8, 9, 10]

    asyncio.run(check())
