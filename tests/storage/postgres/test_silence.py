"""A server that keeps its connections and does not answer: each wait ends, and what it was told is found out later."""

# pyright: reportPrivateUsage=false
# Which process of the server stands still is asked of the store's own connections.

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Generator
from contextlib import closing, contextmanager

import psycopg
import pytest

from durably import DefinitionError, Runtime, StoreUnavailableError, VirtualObject, handler, state
from durably.actors.context import ObjectContext
from durably.ids import Address
from durably.storage.postgres import PostgresStore
from durably.storage.postgres.server import place_of
from durably.storage.postgres.sessions import Sessions
from durably.storage.records import Batch, StateRecord
from durably.testing.stores.contract import OWNER
from tests.postgres import PostgresServer

MARY = Address("Ticket", "mary")
PATIENCE_SECONDS = 60
SHORT_SECONDS = 0.5


def batch(position: int) -> Batch:
    return Batch(last_position=position, state=[StateRecord(MARY, "status", str(position).encode())])


class Counter(VirtualObject, name="SilentCounter"):
    count: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext) -> int:
        self.count += 1
        return self.count


async def process_of(sessions: Sessions) -> int:
    return await sessions.run(lambda connection: connection.info.backend_pid)


@contextmanager
def standing_still(process_id: int) -> Generator[None]:
    os.kill(process_id, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process_id, signal.SIGCONT)


async def ended(server: PostgresServer, process_id: int) -> None:
    while server.execute(f"select 1 from pg_stat_activity where pid = {process_id}"):
        await asyncio.sleep(0.01)


@pytest.mark.slow
def test_a_commit_that_is_not_answered_fails_and_is_never_done_behind_the_back_of_its_owner(
    server: PostgresServer,
) -> None:
    async def check() -> None:
        store = PostgresStore(server.new_url(), answer_limit_seconds=SHORT_SECONDS)
        await store.open(OWNER)
        tenure = store._tenure
        assert tenure is not None
        process_id = await process_of(tenure.writer)
        with standing_still(process_id):
            async with asyncio.timeout(PATIENCE_SECONDS):
                with pytest.raises(StoreUnavailableError, match=r"does not answer.*silent for 0\.5 s.*`answer_limit"):
                    await store.commit(batch(1))
                with pytest.raises(StoreUnavailableError):
                    await store.verify()
                assert (await store.open(OWNER)).last_position == 0
        await ended(server, process_id)  # It has read the commit by now, under the older epoch.
        assert await store.state(MARY) == {}
        await store.commit(batch(1))
        assert await store.state(MARY) == {"status": b"1"}
        await store.close()

    asyncio.run(check())


@pytest.mark.slow
@pytest.mark.parametrize("of", ["readers", "checker", "keeper"])
def test_no_question_waits_for_ever(server: PostgresServer, of: str) -> None:
    async def check() -> None:
        store = PostgresStore(server.new_url(), readers=1, answer_limit_seconds=SHORT_SECONDS)
        await store.open(OWNER)
        tenure = store._tenure
        assert tenure is not None
        asks: dict[str, Callable[[], Awaitable[object]]] = {
            "readers": lambda: store.state(MARY),
            "checker": store.verify,
            "keeper": store.close,
        }
        sessions: Sessions = getattr(tenure, of)
        async with asyncio.timeout(PATIENCE_SECONDS):
            with standing_still(await process_of(sessions)):
                if of == "keeper":
                    await store.close()
                    return
                with pytest.raises(StoreUnavailableError, match="does not answer"):
                    await asks[of]()
                await asks[of]()  # On another connection.
            await store.close()

    asyncio.run(check())


@pytest.mark.slow
def test_a_runtime_goes_on_when_the_server_has_stood_still(server: PostgresServer) -> None:
    async def check() -> None:
        store = PostgresStore(server.new_url(), answer_limit_seconds=SHORT_SECONDS)
        async with Runtime(store, [Counter]) as runtime:
            counter = runtime.object(Counter, "one")
            assert await counter.add() == 1
            tenure = store._tenure
            assert tenure is not None
            with standing_still(await process_of(tenure.writer)):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    with pytest.raises(StoreUnavailableError):
                        await counter.add.options(idempotency_key="second")()
                    while True:  # The outcome may be unknown, so it is asked for by the same key.
                        try:
                            assert await counter.add.options(idempotency_key="second")() == 2
                            break
                        except StoreUnavailableError:
                            await asyncio.sleep(0.01)

    asyncio.run(check())


@pytest.mark.slow
def test_a_statement_that_takes_long_and_answers_is_waited_for(server: PostgresServer) -> None:
    """The limit is on silence at the end of which nothing came, not on what else happens meanwhile."""

    async def check() -> None:
        url = server.new_url()
        store = PostgresStore(url, answer_limit_seconds=PATIENCE_SECONDS)
        await store.open(OWNER)
        with closing(psycopg.connect(server.url())) as other:
            other.execute(f"select * from {url.partition('schema=')[2]}.owner for update".encode())
            committing = asyncio.ensure_future(store.commit(batch(1)))
            waiting = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%commit_state%'"
            while not server.execute(waiting):
                await asyncio.sleep(0.01)
            assert not committing.done()
            other.rollback()
        await committing
        await store.close()

    asyncio.run(check())


def test_the_limit_is_an_option_of_the_url_and_an_argument() -> None:
    url = "postgresql://mary@db.example/tickets"
    assert place_of(url).answer_limit_seconds == 30
    assert place_of(f"{url}?answer_limit_seconds=7").answer_limit_seconds == 7
    for wrong in (0, 3601, float("nan")):
        with pytest.raises(DefinitionError, match=r"`answer_limit_seconds` is .*between 0\.1 and 3600"):
            PostgresStore(url, answer_limit_seconds=wrong)
