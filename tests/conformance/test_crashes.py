"""What has been accepted goes on where it stood when the server is killed and started again on the same store."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.conformance.suite import Suite, failure, new_key, new_number, path_of, served_by
from tests.conformance.waiting_services import BlockingOperation
from tests.processes import PATIENCE_SECONDS, serving

pytestmark = pytest.mark.slow

TARGET = "tests.conformance_app:runtime"
OPERATIONS = list(BlockingOperation)
NAP_MILLISECONDS = 1_000


class UnderWay:
    """One of everything that has to survive, begun before the server is killed, and what is true of it afterwards."""

    def __init__(self) -> None:
        self.key = new_key()
        self.numbers = [new_number() for _ in range(2)]
        self.trees = {operation: new_key() for operation in OPERATIONS}
        self.ids: dict[str, str] = {}

    def path(self, service: str, handler: str) -> str:
        return path_of(service, self.key, handler)

    async def begin(self, suite: Suite) -> None:
        await self._keep_state(suite)
        await self._begin_trees(suite)
        await self._begin_interpreters(suite)
        paused = await suite.ask(self.path("NonDeterministic", "setDifferentKey"), idempotency_key="kept")
        assert paused.status_code == 503
        self.ids["paused"] = paused.headers["x-restate-id"]

    async def _keep_state(self, suite: Suite) -> None:
        for _ in range(2):
            added = await suite.call(self.path("Counter", "add"), 3, idempotency_key="once")
            assert added == {"oldValue": 0, "newValue": 3}
        await suite.call(self.path("MapObject", "set"), {"key": "a", "value": "1"})
        await suite.call(self.path("ListObject", "append"), "first")
        target = {"serviceName": "ListObject", "virtualObjectKey": self.key, "handlerName": "append"}
        message = {"message": list(b'"second"'), "delayMillis": NAP_MILLISECONDS}
        await suite.call("/Proxy/oneWayCall", target | message)
        self.ids["workflow"] = await suite.send(self.path("BlockAndWaitWorkflow", "run"), "kept")
        await suite.eventually(self.path("BlockAndWaitWorkflow", "getState"), "kept")

    async def _begin_trees(self, suite: Suite) -> None:
        for operation, key in self.trees.items():
            self.ids[operation] = await suite.send(path_of("CancelTestRunner", key, "startTest"), operation)
            await suite.eventually(path_of("AwakeableHolder", key, "hasAwakeable"), True)
        # One of them is inside the operation that never ends already.
        await suite.call(path_of("AwakeableHolder", self.trees[BlockingOperation.CALL], "unlock"), "go on")
        self.ids["killed"] = await suite.send(self.path("KillTestRunner", "startCallTree"))
        await suite.eventually(self.path("AwakeableHolder", "hasAwakeable"), True)
        await suite.call(self.path("AwakeableHolder", "unlock"), "go on")

    async def _begin_interpreters(self, suite: Suite) -> None:
        commands = [
            {"type": "runReturns", "value": "run"},
            {"type": "createAwakeable", "awakeableKey": "awk"},
            {"type": "createSignal", "signalName": "early"},
            {"type": "createSignal", "signalName": "late"},
            {"type": "sleep", "timeoutMillis": NAP_MILLISECONDS},
        ]
        request = {"commands": [{"type": "awaitAllCompleted", "commands": commands}]}
        id = await suite.send(self.path("VirtualObjectCommandInterpreter", "interpretCommands"), request)
        await suite.eventually(self.path("VirtualObjectCommandInterpreter", "hasAwakeable"), True, "awk")
        await suite.call(
            "/TestUtilsService/resolveSignal", {"invocationId": id, "signalName": "early", "value": "before"}
        )
        self.ids["commands"] = id
        below = {"commands": [{"kind": 4}, {"kind": 6, "duration": NAP_MILLISECONDS}, {"kind": 5}, {"kind": 18}]}
        numbers = [{"kind": 19, "key": number, "program": below} for number in self.numbers]
        increments = [{"kind": 4}, {"kind": 9, "duration": NAP_MILLISECONDS}, {"kind": 11}, {"kind": 18}]
        program = {"commands": [*numbers, *increments, {"kind": 8, "sleep": NAP_MILLISECONDS}]}
        self.ids["programs"] = await suite.send(self.path("ObjectInterpreterL0", "interpret"), program)

    async def check(self, suite: Suite) -> None:
        await self._check_state(suite)
        await self._check_interpreters(suite)
        await self._check_trees(suite)
        assert (await suite.attach(self.ids["paused"])).status_code == 503
        assert await suite.act(self.ids["paused"], "kill") == 200
        assert failure(await suite.attach(self.ids["paused"]))["code"] == 409

    async def _check_state(self, suite: Suite) -> None:
        assert await suite.call(self.path("Counter", "add"), 9, idempotency_key="once") == {
            "oldValue": 0,
            "newValue": 3,
        }
        assert await suite.call(self.path("Counter", "get")) == 3
        assert await suite.call(self.path("MapObject", "clearAll")) == [{"key": "a", "value": "1"}]
        await suite.eventually(self.path("ListObject", "get"), ["first", "second"])
        assert await suite.call(self.path("BlockAndWaitWorkflow", "getState")) == "kept"
        again = (await suite.ask(self.path("BlockAndWaitWorkflow", "run/send"), "other")).json()
        assert again == {"invocationId": self.ids["workflow"], "status": "PreviouslyAccepted"}
        await suite.call(self.path("BlockAndWaitWorkflow", "unblock"), "result")
        assert (await suite.attach(self.ids["workflow"])).json() == "result"

    async def _check_interpreters(self, suite: Suite) -> None:
        id = self.ids["commands"]
        resolve = {"type": "resolveAwakeable", "awakeableKey": "awk", "value": "resolved"}
        await suite.call(self.path("VirtualObjectCommandInterpreter", "resolveAwakeable"), resolve)
        await suite.call(
            "/TestUtilsService/rejectSignal", {"invocationId": id, "signalName": "late", "reason": "after"}
        )
        assert (await suite.attach(id)).json() == "ok:run|ok:resolved|ok:before|err:after|ok:sleep"
        assert (await suite.attach(self.ids["programs"])).status_code == 200
        await suite.eventually(self.path("ObjectInterpreterL0", "counter"), 3)
        for number in self.numbers:
            await suite.eventually(path_of("ObjectInterpreterL1", str(number), "counter"), 3)

    async def _check_trees(self, suite: Suite) -> None:
        for operation, key in self.trees.items():
            if operation is not BlockingOperation.CALL:
                await suite.call(path_of("AwakeableHolder", key, "unlock"), "go on")
            assert await suite.act(self.ids[operation], "cancel") == 202
            assert (await suite.attach(self.ids[operation])).status_code == 200
            assert await suite.call(path_of("CancelTestRunner", key, "verifyTest")) is True
            assert await suite.call(path_of("CancelTestBlockingService", key, "isUnlocked")) is None
        assert await suite.act(self.ids["killed"], "kill") == 200
        assert await suite.call(self.path("KillTestSingleton", "isUnlocked")) is None


@pytest.mark.parametrize("end", ["kill -9", "SIGTERM"])
async def test_everything_under_way_goes_on_in_the_next_life_of_the_server(tmp_path: Path, end: str) -> None:
    """The first life ends while some of it sleeps, is about to run, or waits for what only the second life brings."""
    under_way = UnderWay()
    with serving(TARGET, cwd=tmp_path) as server:
        async with served_by(server) as suite:
            await under_way.begin(suite)
            waiting = asyncio.create_task(suite.attach(under_way.ids["workflow"]))
            if end == "SIGTERM":
                assert await asyncio.to_thread(server.stop) == 0
            else:
                server.kill()
            with suppress(httpx.TransportError):
                assert (await waiting).status_code == 503
    with serving(TARGET, cwd=tmp_path) as server:
        async with served_by(server) as suite:
            await under_way.check(suite)


async def test_nothing_is_lost_or_counted_twice_whenever_the_server_is_killed(tmp_path: Path) -> None:
    """Clients repeat with the same idempotency key until they have an answer, as all clients have to."""
    additions, lives = 60, 2
    path, url = path_of("Counter", new_key(), "add"), [""]
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_SECONDS) as client:

        async def add(number: int) -> int:
            while True:
                with suppress(httpx.TransportError):
                    answer = await client.post(url[0] + path, json=1, headers={"idempotency-key": str(number)})
                    if answer.status_code == 200:
                        value: int = answer.json()["newValue"]
                        return value
                await asyncio.sleep(0.01)

        adding: list[asyncio.Task[int]] = []
        for life in range(lives):
            with serving(TARGET, cwd=tmp_path) as server:
                url[0] = server.url
                adding += [asyncio.create_task(add(life * additions + number)) for number in range(additions)]
                await asyncio.wait([adding[-additions // 2]])
                server.kill()
        with serving(TARGET, cwd=tmp_path) as server:
            url[0] = server.url
            assert sorted(await asyncio.gather(*adding)) == list(range(1, lives * additions + 1))
