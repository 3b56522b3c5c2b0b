"""Sagas on a cluster, under kills: each ends completed or undone, and waits for a person where it cannot be undone."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest

from durably import AlreadyStartedError, TerminalError, UnknownTargetError
from durably.restate import Client
from durably.sagas import SagaState
from tests.processes import free_port
from tests.restate.cluster import Cluster, Deployed
from tests.restate.programs import Counter, Trip, TripData

pytestmark = pytest.mark.slow

KILLS = 3
ENDS = ("completed", "failed", "aborted", "stuck")


async def _until(client: Client, key: str, *statuses: str) -> SagaState[TripData]:
    for _ in range(600):
        state = await client.workflow(Trip, key).state()
        if state.status in statuses:
            return state
        await asyncio.sleep(0.05)
    raise AssertionError(await client.workflow(Trip, key).state())


@pytest.mark.parametrize("engine", ["public", "vm"])
async def test_a_saga_ends_completed_or_undone_whatever_is_killed(
    cluster: Cluster, tmp_path: Path, engine: str
) -> None:
    ledger = tmp_path / "ledger"
    environment = {"ENGINE": engine, "SUSPEND_AFTER": "0", "LEDGER": str(ledger)}
    port, tag = free_port(), f"{engine}{time.time_ns()}"
    deployed = Deployed(cluster, "tests.restate.programs:app", environment=environment, port=port)
    try:
        async with Client(cluster.url) as client:
            sagas = {ends: client.workflow(Trip, f"{tag}-{ends}") for ends in ENDS}
            with pytest.raises(UnknownTargetError, match="was started, or it has not begun yet"):
                await sagas["completed"].state()
            for ends, saga in sagas.items():
                begun = await saga.start(TripData(ends))
                assert (begun.status, begun.step_name, begun.data) == ("running", "reserve", TripData(ends))
                with pytest.raises(AlreadyStartedError, match="Ask for its `state`"):
                    await saga.start(TripData(ends))
            for _ in range(KILLS):
                await asyncio.sleep(0.3)
                deployed.kill()
                deployed = Deployed(
                    cluster, "tests.restate.programs:app", environment=environment, port=port, registers=False
                )  # fmt: skip
            while (await sagas["aborted"].state()).step_name != "confirm":
                await asyncio.sleep(0.05)
            await sagas["aborted"].abort()

            stuck = await _until(client, f"{tag}-stuck", "compensation-paused")
            assert "The bank is closed. Mend the cause and resolve the awakeable" in str(stuck.failure)
            found = re.search("awakeable ([^:]+):", str(stuck.failure))
            assert found is not None
            (tmp_path / "ledger-mended").touch()
            await client.resolve_awakeable(found[1], "mended")

            ended: dict[str, Any] = {}
            for ends, saga in sagas.items():
                try:
                    ended[ends] = await saga.run.attach()
                except TerminalError as error:
                    ended[ends] = error.code
            assert ended == {
                "completed": TripData("completed", charges=1), "failed": 418, "aborted": 409, "stuck": 418,
            }  # fmt: skip
            for ends in ENDS:
                state = await client.workflow(Trip, f"{tag}-{ends}").state()
                is_done = ends == "completed"
                assert state.status == ("completed" if is_done else "compensated")
                assert state.compensated == (() if is_done else ("charge", "reserve"))
                assert state.data.charges == await client.object(Counter, f"{tag}-{ends}").get() == int(is_done)
        lines = ledger.read_text().splitlines()
        for ends in ENDS:
            assert 1 <= lines.count(f"{tag}-{ends} charge") <= KILLS + 1
            assert (lines.count(f"{tag}-{ends} refund") == 0) is (ends == "completed")
    finally:
        deployed.end()
