"""A healthy store is clean at every commit of every workload, whatever has crashed: no finding is a false alarm.

At every fifth, everything that is suspended has a wait that is named.
"""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

from durably.doctor import examine
from durably.ids import InvocationStatus
from durably.inspection import CallWait, MailboxWait, why
from durably.storage.memory import Disk
from durably.storage.records import Batch
from durably.storage.sqlite import SqliteStore
from durably.testing import Faults, Simulation
from durably.testing.simulation.guarantees import Guarantees
from tests.doctor.support import Look, at_once, stuck_on, write
from tests.levels import level
from workloads import WORKLOADS

SEEDS_PER_WORKLOAD = 100 if level().is_search else 4 if level().with_slow else 2
FILE_EVERY_COMMITS = 40
WHY_EVERY_COMMITS = 5


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_healthy_store_is_clean(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workload = WORKLOADS[name]
    commits = 0
    examined: list[Path] = []
    check = Guarantees.committed

    def look_too(self: Guarantees, batch: Batch) -> None:
        nonlocal commits
        check(self, batch)
        commits += 1
        disk: Disk = self._disk  # pyright: ignore[reportPrivateUsage] - As it is at this commit.
        assert [one for one in stuck_on(disk) if one.severity == "problem"] == []
        if commits % WHY_EVERY_COMMITS == 0:
            _why_tells_of_all(disk)
        if commits % FILE_EVERY_COMMITS == 0:
            examined.append(_file(disk, tmp_path / f"{commits}.db"))

    monkeypatch.setattr(Guarantees, "committed", look_too)
    for seed in range(SEEDS_PER_WORKLOAD):
        with Simulation(*workload.actors, seed=seed, faults=Faults.any(), **workload.options) as sim:
            sim.run(workload.program(sim))
            sim.finish()
            assert stuck_on(sim.disk) == []
    assert commits > 10
    for path in examined:
        asyncio.run(_is_clean(path))


def _why_tells_of_all(disk: Disk) -> None:
    """What is suspended waits for something that is named; each call and mailbox leads on to what is there."""
    look = Look(disk)
    for row in disk.rows.values():
        record = row.record
        told = at_once(why(look, record.id))
        assert told is not None
        assert (told.id, told.status) == (record.id, record.status)
        started_nothing = record.status in (InvocationStatus.RUNNING, InvocationStatus.COMPLETED)
        is_shared = record.status is InvocationStatus.PENDING and record.mailbox_position is None
        assert told.waits or started_nothing or is_shared, told
        for one in told.everything():
            for wait in one.waits:
                assert str(wait)
                if isinstance(wait, CallWait | MailboxWait) and one.status is InvocationStatus.SUSPENDED:
                    assert wait.leads_to is not None, told
        assert str(told).startswith(told.target)
        json.dumps(told.data())


def _file(disk: Disk, path: Path) -> Path:

    thread = threading.Thread(target=lambda: asyncio.run(write(disk, path)))
    thread.start()
    thread.join()
    return path


async def _is_clean(path: Path) -> None:
    store = SqliteStore(path)
    await store.open_read_only()
    report = await examine(store)
    await store.close()
    assert report.problems == ()
