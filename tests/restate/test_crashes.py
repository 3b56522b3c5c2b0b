"""Kills of the service and of the server: no wrong result, no journal that does not fit, no side effect too many."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter as Counted
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from durably import Invocation
from durably.restate import Client
from tests.levels import level
from tests.processes import free_port
from tests.restate.cluster import Cluster, Deployed, installed, three_nodes
from tests.restate.programs import Desk

pytestmark = pytest.mark.slow

INVOCATIONS: Final = 12


def _is_stuck(cluster: Cluster, ids: list[str]) -> bool:
    """One of these has a journal that does not fit what is asked for."""
    if not ids:
        return False
    quoted = ", ".join(f"'{id}'" for id in ids)
    rows = cluster.query(f"select event_json from sys_journal_events where id in ({quoted})")
    return any("RT0016" in row["event_json"] for row in rows)


def _kills() -> int:
    return 12 if level().is_search else 3


class Load:
    """Invocations of `Desk/work`, and what they have to give."""

    def __init__(self, cluster: Cluster, folder: Path, target: str, **environment: str) -> None:
        self.cluster = cluster
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self._target = target
        self._port = free_port()
        self._environment = {"LEDGER": str(self.ledger), **environment}
        self._outputs: list[str] = []
        self.deployed = self._start(registers=True)

    def _start(self, *, registers: bool) -> Deployed:
        return Deployed(self.cluster, self._target, port=self._port, environment=self._environment, registers=registers)

    def kill_and_start(self) -> None:
        self.deployed.kill()
        self._outputs.append(self.deployed.output)
        self.deployed = self._start(registers=False)

    def end(self) -> str:
        """What the processes have written."""
        self.deployed.end()
        return "".join([*self._outputs, self.deployed.output])

    async def run(self, tag: str, disturb: Callable[[int], None]) -> dict[str, Any]:
        """Send all of it, disturb it, and wait for the results, by their tags."""
        async with Client(self.cluster.url) as client:
            sent: dict[str, Invocation[dict[str, Any]]] = {}
            for number in range(INVOCATIONS):
                name = f"{tag}-{number}"
                sent[name] = await client.service(Desk).work.options(idempotency_key=name).send(name)
            self.ids = ", ".join(f"'{one.id}'" for one in sent.values())
            for number in range(_kills()):
                await asyncio.sleep(random.uniform(0.05, 0.4))
                await asyncio.to_thread(disturb, number)
            return {name: await one.result() for name, one in sent.items()}

    def check(self, results: dict[str, Any], output: str) -> None:
        for name, told in results.items():
            assert told["sum"] == 60, (name, told)
            assert told["seats"] == [True, True, True], (name, told)
            assert told["late"] == "timed out", (name, told)
            assert told["sold"] == "OutOfStockError umbrella 409", (name, told)
            assert told["parcel"] == [f"stamp of {name}, seen", "00ff"], (name, told)
            ends = [int(part[1:]) * 10 for part in told["order"].split("-") if part[0] == "s"]
            assert told["queue"] == ends, (name, told)
        ledger = Counted(self.ledger.read_text().splitlines())
        assert all(ledger[f"{name} charge {number}"] >= 1 for name in results for number in range(4))
        # A result that is durable is never made again: only what was under way at a kill is (rule A2).
        again = sum(count - 1 for line, count in ledger.items() if line.split()[0] in results)
        assert again <= (_kills() + 1) * INVOCATIONS * 4
        for sign in ("differ. In this step", "NonDeterminismError", "VMException"):
            assert sign not in output, output[-4000:]
        events = self.cluster.query(f"select event_json from sys_journal_events where id in ({self.ids})")
        assert not [one for one in events if "RT0016" in one["event_json"]], events
        assert events, "no kill has met an attempt"


def _ways() -> list[tuple[str, str]]:
    """Engine, and whether state is lazy; half of them unless there is time."""
    ways = [("public", ""), ("vm", "1")]
    return [*ways, ("public", "1"), ("vm", "")] if level().is_search else ways


@pytest.mark.parametrize(("engine", "lazy_state"), _ways())
async def test_kills_of_the_service_change_no_result(
    cluster: Cluster, tmp_path: Path, engine: str, lazy_state: str
) -> None:
    environment = {"ENGINE": engine, "SUSPEND_AFTER": "0", "LAZY_STATE": lazy_state}
    load = Load(cluster, tmp_path, "tests.restate.programs:app", **environment)
    try:
        results = await load.run(f"k{time.time_ns()}", lambda _: load.kill_and_start())
    finally:
        output = load.end()
    load.check(results, output)


async def test_kills_of_service_and_server_change_no_result(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = Cluster(installed(tmp_path_factory.mktemp("npm")), tmp_path_factory.mktemp("restate"))
    own.start()

    def disturb(number: int) -> None:
        if number % 3 == 1:
            own.kill()
            own.start()
        else:
            load.kill_and_start()

    try:
        load = Load(own, tmp_path, "tests.restate.programs:app", ENGINE="public")
        try:
            results = await load.run("s", disturb)
        finally:
            output = load.end()
        load.check(results, output)
    finally:
        own.end()


async def test_nodes_that_are_killed_one_after_the_other_change_no_result(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not level().is_search:
        pytest.skip("a cluster of three nodes runs with --long")
    nodes = three_nodes(installed(tmp_path_factory.mktemp("npm")), tmp_path_factory.mktemp("three"))
    try:
        for node in nodes:
            node.begin()
        for node in nodes:
            node.wait_until_ready()
        first, second, third = nodes

        def disturb(number: int) -> None:
            if number == 1:
                second.kill()
            elif number == 2:
                second.start()  # It runs again before the next one is killed.
                time.sleep(10)
                third.kill()
            else:
                load.kill_and_start()

        load = Load(first, tmp_path, "tests.restate.programs:app", ENGINE="public")
        try:
            results = await load.run("c", disturb)
        finally:
            output = load.end()
        load.check(results, output)
    finally:
        for node in nodes:
            node.end()


async def test_one_task_for_each_future_of_the_sdk_gets_stuck_at_a_replay(cluster: Cluster, tmp_path: Path) -> None:
    """The way that this package goes is needed: this is what awaiting the SDK's futures in tasks comes to."""
    load = Load(cluster, tmp_path, "tests.restate.naive:app", SUSPEND_AFTER="0")
    try:
        async with Client(cluster.url, admin_url=cluster.admin_url) as client:
            ids: list[str] = []
            deadline = time.monotonic() + 60
            while not _is_stuck(cluster, ids):
                assert time.monotonic() < deadline, ids
                ids += [(await client.service(Desk).work.send(f"n{time.time_ns()}-{one}", 6)).id for one in range(8)]
                await asyncio.sleep(0.5)
    finally:
        load.end()
