"""Random circles of calls, and near ones, end as a plain reading of them says, whichever commit goes wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

from durably.errors import RuntimeStoppedError, StoreUnavailableError
from durably.storage.records import Batch
from durably.testing import Harness
from tests.levels import level
from tests.properties.restless import RestlessStore
from tests.semantics.support import tuned
from workloads.circles import DEADLOCK, DONE, Link, Maker, Server, Visit, all_visits, read, times_held

KEYS = "abcde"
PATIENCE_SECONDS = 60
PATIENCE_MINUTES = 60


class FailingStore(RestlessStore):
    """One commit goes wrong, before or after it is durable."""

    def __init__(self, random: Random, fails_at: int) -> None:
        super().__init__(random, random.choice((0, 2)))
        self.fails_at = fails_at
        self.how = random.choice(("before", "after"))

    async def commit(self, batch: Batch, /) -> None:
        if self.commits + 1 == self.fails_at:
            self.fails_at, self.fail_next = 0, self.how
        await super().commit(batch)


def make_root(seed: int) -> Visit:
    random = Random(seed)
    return Maker(random, random.choice((3, 6, 12))).visit(KEYS, apart=True)


async def play(root: Visit, random: Random, fails_at: int) -> int:
    """Visit, and compare the end with the reading. Returns how many commits it took."""
    store = FailingStore(random, fails_at)
    app = Harness(Link, Server, store=store, suspend_after=random.choice((0, 60)))
    async with asyncio.timeout(PATIENCE_SECONDS), tuned(app, pending_in_memory=random.choice((1, 100))):
        asking = asyncio.create_task(ask(app, root))
        for _ in range(PATIENCE_MINUTES):
            await app.advance(minutes=1)
            if asking.done():
                break
        told = {str(root.number): DONE, **await asking}
        assert told == read(root)
        await app.settle()
        certain, unknown = times_held([*all_visits(root)], told)
        held: Counter[int] = Counter()
        for key in KEYS:
            held.update((await app.state(Link, key)).get("held", []))
        assert all(times == 1 for times in held.values())
        assert certain.keys() <= held.keys() <= certain.keys() | unknown
        assert await store.recoverable(0, 10) == await store.held_up(0, 10) == []
    return store.commits


async def ask(app: Harness, root: Visit) -> dict[str, str]:
    """Ask until there is an answer: the key makes that safe."""
    while True:
        try:
            return await app.object(Link, root.key).hold.options(idempotency_key="root")(root)
        except (StoreUnavailableError, RuntimeStoppedError):
            await asyncio.sleep(0)


def test_random_circles_end_as_a_plain_reading_says_whichever_commit_goes_wrong() -> None:
    ends: Counter[str] = Counter()
    for seed in range(level().programs // 16):
        root = make_root(seed)
        ends.update(read(root).values())
        random = Random(seed)
        try:
            commits = asyncio.run(play(root, random, 0))
            for fails_at in range(1 + seed % level().commit_stride, commits + 1, level().commit_stride):
                asyncio.run(play(root, random, fails_at))
        except BaseException as error:
            error.add_note(f"The root is that of seed {seed}: {root}")
            raise
    assert ends[DONE] > ends[DEADLOCK] > 0
