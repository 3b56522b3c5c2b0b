"""`durably serve --standby`: a second process on the machine waits for the store, and takes over when it is free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Literal, TypeAlias

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from durably import (
    DefinitionError,
    ObjectContext,
    Runtime,
    StoreInUseError,
    StoreLostError,
    StoreUnavailableError,
    VirtualObject,
    factory,
    handler,
    state,
)
from durably.bearer_tokens import BearerTokens
from durably.cli import standby
from durably.cli.standby import Door, stand_by, until_taken_over
from durably.ingress import Ingress
from durably.storage.memory import MemoryStore
from durably.storage.records import Batch, Opened, Owner
from durably.storage.standby import file_system_of, refuse_network
from durably.testing.stores.wrapped import WrappedStore
from tests.processes import PATIENCE_SECONDS, eventually, serving

Outcome: TypeAlias = Literal["ours", "in use", "away", "broken"]

APPLICATION = """
from durably import ObjectContext, Runtime, VirtualObject, handler, state

class Counter(VirtualObject):
    count: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext) -> int:
        self.count += 1
        return self.count

runtime = Runtime("sqlite:///app.db", [Counter])
"""


def add(url: str) -> httpx.Response:
    return httpx.post(f"{url}/Counter/one/add", timeout=PATIENCE_SECONDS)


def answers(url: str, count: int) -> bool:
    with suppress(httpx.TransportError):
        response = add(url)
        return response.status_code == 200 and response.json() == count
    return False


@pytest.mark.slow
def test_a_standby_names_the_holder_and_takes_over_when_that_is_stopped_or_killed(tmp_path: Path) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    with (
        serving("application:runtime", "--standby", cwd=tmp_path) as first,
        serving("application:runtime", "--standby", cwd=tmp_path) as second,
    ):
        assert eventually(lambda: answers(first.url, 1))
        refusal = add(second.url)
        assert refusal.status_code == 503
        assert f"in use by process {first.process.pid}" in refusal.json()["message"]
        assert (refusal.headers["retry-after"], refusal.headers["x-durably-accepted"]) == ("1", "no")
        assert first.stop() == 0
        assert eventually(lambda: answers(second.url, 2))
        with serving("application:runtime", "--standby", cwd=tmp_path) as third:
            second.kill()
            assert eventually(lambda: answers(third.url, 3))


class ScriptedStore(WrappedStore):
    """Opens as the script says; what comes behind it is a signal to stop."""

    def __init__(self, script: Sequence[Outcome], stop: asyncio.Future[None]) -> None:
        super().__init__(MemoryStore())
        self.is_owned = False
        self._script = [*script]
        self._stop = stop

    @property
    def is_at_the_end(self) -> bool:
        return not self._script

    @override
    async def open(self, owner: Owner, /) -> Opened:
        outcome = self._script.pop(0)
        if self.is_at_the_end:
            self._stop.set_result(None)
        if outcome == "in use":
            raise StoreInUseError("It is another one's.")
        if outcome == "away":
            raise StoreUnavailableError("It cannot be reached.")
        if outcome == "broken":
            raise ConnectionRefusedError("A factory connects to the same database.")
        self.is_owned = True
        return await super().open(owner)


@given(script=st.lists(st.sampled_from(["ours", "in use", "away", "broken"]), min_size=1, max_size=6))
def test_only_the_very_first_try_to_reach_the_store_ends_the_server(script: list[Outcome]) -> None:
    """One that has seen its store waits for it, also between a term as its owner and the next."""

    async def serve() -> bool:
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        door, store = Door(), ScriptedStore(script, stop)
        runtime = Runtime(store, [])
        try:
            while not stop.done():
                async with AsyncExitStack() as stack:
                    await stand_by(runtime, door, stop, stack)
        except (StoreUnavailableError, ConnectionRefusedError):
            return False
        return store.is_at_the_end

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standby, "TRY_AGAIN_SECONDS", 0)
        assert asyncio.run(serve()) is (script[0] not in ("away", "broken"))


class Connections:
    """What a factory makes: as dear as a pool of connections."""


class Client(VirtualObject):
    def __init__(self, connections: Connections) -> None:
        self.connections = connections

    @handler
    async def go(self, ctx: ObjectContext) -> None:
        pass


async def test_a_standby_makes_its_dependencies_once_it_owns_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standby, "TRY_AGAIN_SECONDS", 0)
    stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    store, made = ScriptedStore(["in use", "away", "in use", "ours", "ours"], stop), list[str]()

    async def connections() -> AsyncGenerator[Connections]:
        made.append("made by the owner" if store.is_owned else "made too early")
        yield Connections()
        made.append("torn down")

    runtime = Runtime(store, [Client], dependencies={Connections: factory(connections)})
    async with AsyncExitStack() as stack:
        assert await stand_by(runtime, Door(), stop, stack)
        assert made == ["made by the owner"]
    assert made == ["made by the owner", "torn down"]


async def test_an_owner_whose_factory_fails_lets_the_store_go() -> None:
    async def connections() -> Connections:
        raise ConnectionRefusedError("no database")

    store = MemoryStore()
    runtime = Runtime(store, [Client], dependencies={Connections: factory(connections)})
    with pytest.raises(ConnectionRefusedError, match="no database"):
        async with runtime:
            pass
    assert store.disk.holder is None


class LostStore(WrappedStore):
    """Is lost behind its first commit."""

    has_failed = False

    @override
    async def open(self, owner: Owner, /) -> Opened:
        if self.has_failed:
            raise StoreLostError("The database is older than it was.")
        return await super().open(owner)

    @override
    async def commit(self, batch: Batch, /) -> None:
        self.has_failed = True
        raise StoreUnavailableError("The connection was cut.")


class Counter(VirtualObject):
    total: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext) -> None:
        self.total += 1


async def test_an_owner_whose_store_is_lost_ends_and_does_not_stay_as_one_that_only_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(standby, "LOOK_SECONDS", 0)
    door = Door()
    async with Runtime(LostStore(MemoryStore()), [Counter]) as runtime:
        sent = asyncio.ensure_future(runtime.object(Counter, "a").add())
        with pytest.raises(StoreLostError, match="older than it was"):
            await asyncio.wait_for(until_taken_over(runtime, door), PATIENCE_SECONDS)
        with pytest.raises(StoreUnavailableError):
            await sent


async def test_a_standby_names_the_holder_to_those_alone_who_have_a_token_where_one_is_needed() -> None:
    door = Door()
    door.close(StoreInUseError("The store app.db is in use.", address="http://10.0.0.7:8080"))
    guarded = BearerTokens(door.of(Ingress(Runtime("memory:", []))), ["hush"], open_paths={"/restate/health"})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://here") as client:
        anonymous = await client.get("/restate/health")
        assert (anonymous.status_code, anonymous.headers["retry-after"]) == (503, "1")
        assert anonymous.json() == {"code": 503, "message": "This server stands by. Nothing was accepted."}
        assert (await client.post("/Counter/one/add")).status_code == 401
        told = (await client.post("/Counter/one/add", headers={"authorization": "Bearer hush"})).json()
        assert told["metadata"] == {"holder": "http://10.0.0.7:8080"}
        assert told["message"] == "This server stands by. The store app.db is in use. Nothing was accepted."


def test_what_nobody_can_take_over_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="has nothing that a standby could take over"):
        Runtime("memory:", []).stand_by()
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/sda1 / ext4 rw 0 0\nserver:/data {tmp_path}/far nfs4 rw 0 0\n/dev/sdb1 {tmp_path}/far/near xfs rw 0 0\n"
    )
    assert file_system_of(tmp_path / "app.db", mounts) == "ext4"
    assert file_system_of(tmp_path / "far" / "near" / "app.db", mounts) == "xfs"
    refuse_network(tmp_path / "app.db", mounts)
    with pytest.raises(DefinitionError, match=r"network file system \(nfs4\)"):
        refuse_network(tmp_path / "far" / "app.db", mounts)
