"""Consumers that have to catch up hear of each transition once and in order, at whichever commit the process dies: one
that is added after 1,000 transitions, one whose method is renamed, one that was paused for longer than history is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from copy import deepcopy
from random import Random

import msgspec
import pytest

from durably import FOREVER, MemoryStore, RetryPolicy
from durably.errors import RuntimeStoppedError, StoreUnavailableError
from durably.ids import Address
from durably.models import Transition
from durably.runtime.lifecycle.subscriptions import PORTION
from durably.storage.memory import Disk
from durably.storage.records import Batch
from durably.testing import Harness, Simulation, for_each_crash_point
from durably.testing.stores.wrapped import WrappedStore
from workloads.consumers import CARRIER, Release, write_and_catch_up
from workloads.consumers import FIRST as SIMULATED

FIRST, LATER = Release(is_later=False, history=FOREVER), Release(is_later=True, history=FOREVER)
"""So a consumer that is new hears of all that was."""
LETTERS = 500
"""Each is written and received: 1,000 transitions."""
PORTIONS = range(0, 2 * LETTERS, PORTION)
"""In which a subscription reads them."""
MOST_COMMITS = 400
RETRY = RetryPolicy(initial=1)


async def program(sim: Simulation) -> None:
    await write_and_catch_up(sim, Random(1), clients=1, more=1)


@pytest.mark.slow
def test_in_simulation_no_crash_at_any_commit_loses_or_repeats_one() -> None:
    report = for_each_crash_point(
        program, *SIMULATED.actors, place=("before_commit", "after_commit"), retry=RetryPolicy(initial=0.5)
    )
    assert report.crashes == report.runs - 1


class DeadlyStore(WrappedStore):
    """Its process dies at commit number `at`: before it is durable, or after that and before anyone hears of it."""

    def __init__(self, disk: Disk, at: int, *, is_durable: bool) -> None:
        super().__init__(MemoryStore(disk))
        self.app: Harness | None = None
        self.commits = 0
        self.dying: asyncio.Task[None] | None = None
        self._at = at
        self._is_durable = is_durable

    async def commit(self, batch: Batch, /) -> None:
        self.commits += 1
        if self.commits == self._at:
            assert self.app is not None
            if self._is_durable:
                await self.inner.commit(batch)
            self.dying = asyncio.create_task(self.app.crash())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        else:
            await self.inner.commit(batch)


@pytest.fixture(scope="module")
def written() -> Disk:
    """Half a thousand letters were written and received, and one more was written while its carrier was paused."""
    return asyncio.run(write_letters())


async def write_letters() -> Disk:
    disk = Disk()
    async with Harness(*FIRST.actors, store=MemoryStore(disk), retry=RETRY) as app:
        await asyncio.gather(*(app.machine(FIRST.letters).write(number) for number in range(LETTERS)))
        await app.settle()
        assert await app.machine(FIRST.letters).count(FIRST.received) == LETTERS
        await app.pause_subscription(CARRIER)  # So it is behind when its method is renamed.
        await app.machine(FIRST.letters).write(LETTERS)
        await app.advance(days=8)
    return disk


async def catch_up(disk: Disk, at: int, *, is_durable: bool) -> int:
    """The next release begins, with the consumer that is paused and one that is new, and dies once. How many commits
    it made.
    """
    store = DeadlyStore(disk, at, is_durable=is_durable)
    app = Harness(*LATER.actors, store=store, retry=RETRY)
    store.app = app
    async with app:
        while not store.dying and not await resumed(app):
            await app.settle()
        if store.dying:
            await store.dying
        await resumed(app)
        await app.settle()
        if store.dying:
            await store.dying
            await resumed(app)
            await app.settle()
        letters = await app.machine(LATER.letters).find_all(LATER.received)
        assert len(letters) == LETTERS + 1
        for letter in letters:
            history = await app.machine(LATER.letters).get_object_transitions(letter)
            check(disk, letter.id, history[::-1], is_new=letter.number == LETTERS)
        assert [one.behind for one in await app.subscriptions()] == [0, 0, 0, 0]
    return store.commits


async def resumed(app: Harness) -> bool:
    try:
        await app.resume_subscription(CARRIER)
    except (RuntimeStoppedError, StoreUnavailableError):
        return False
    return True


def check(disk: Disk, id: str, history: Sequence[Transition], *, is_new: bool) -> None:
    assert [one.name for one in history] == ["write", "receive"]
    told = [one.id for one in history]
    for folder in ("carrier", "archive", "library"):
        assert heard(disk, f"{folder} {id}") == told, f"the {folder} of {id}"
    assert heard(disk, f"news {id}") == (told[1:] if is_new else [])


def heard(disk: Disk, key: str) -> list[str]:
    value = disk.state.get(Address("SoakFolder", key), {}).get("heard", b"[]")
    return msgspec.json.decode(value, type=list[str])


@pytest.mark.slow
@pytest.mark.parametrize("is_durable", [False, True])
def test_behind_a_thousand_transitions_no_death_at_any_commit_loses_or_repeats_one(
    written: Disk, is_durable: bool
) -> None:
    for at in range(1, MOST_COMMITS):
        if asyncio.run(catch_up(deepcopy(written), at, is_durable=is_durable)) < at:
            assert at > len(PORTIONS), "it died between portions, too"
            return
    raise AssertionError(f"There were more than {MOST_COMMITS} commits.")
