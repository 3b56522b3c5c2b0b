"""Random programs of messages, sleeps, side effects and failures end as a plain reading of them says, whatever happens.

What happens is random too: crashes, failing commits, time passing, a store that dawdles, objects that leave memory
at once, mailboxes whose tail is in the store. Every journal that was ever committed is replayed, prefix by prefix.
"""

# pyright: reportPrivateUsage=false
# The machine's settings are turned to their extremes here.

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.actors.definition.binding import bind
from durably.actors.retry import RetryPolicy
from durably.errors import RuntimeStoppedError, StoreUnavailableError, TerminalError
from durably.ids import InvocationStatus
from durably.runtime.execution.execution import Execution
from durably.runtime.execution.step import decode_step
from durably.testing.harness.harness import Harness
from tests.levels import level
from tests.properties.journals import SETTINGS, Listener
from tests.properties.restless import RestlessStore
from workloads.acts import OBJECTS, Act, Maker, Node, Worker, World, make_root
from workloads.reference_model import check_ledger, check_log, read_roots

PATIENCE_SECONDS = 60
LONGEST_RETENTION_SECONDS = 86_400
CLEANER_SECONDS = 2 * 3_600
"""It looks once an hour in a harness."""
EVENTS = {"ticks": 8, "crash": 3, "fail_before": 1, "fail_after": 1, "advance": 4, "settle": 1, "look": 3}


@dataclass
class Scenario:
    """A program, and what happens while it runs."""

    seed: int
    roots: list[Act]
    events: list[tuple[str, int]]
    suspend_after: int
    dawdling: int
    journal_retention_us: int | None
    forgetful: bool
    """Objects leave memory as soon as they may, little of a mailbox is in memory, batches are small."""

    @property
    def crashes(self) -> int:
        return sum(event == "crash" for event, _ in self.events)


def make_scenario(random: Random, suspend_after: int | None = None) -> Scenario:
    maker = Maker(random, size=random.choice((8, 20, 45)))
    roots = [make_root(maker) for _ in range(random.randint(1, 4))]
    events = [
        (kind, random.randint(0, 12)) for kind in random.choices([*EVENTS], [*EVENTS.values()], k=random.randint(0, 12))
    ]
    return Scenario(
        seed=random.randrange(1_000_000),
        roots=roots,
        events=events,
        suspend_after=random.choice((0, 60)) if suspend_after is None else suspend_after,
        dawdling=random.choice((0, 1, 5)),
        journal_retention_us=random.choice((None, 0, 7_000_000_000)),
        forgetful=random.random() < 0.5,
    )


@dataclass
class Run:
    """A run of a scenario, with all that it leaves behind."""

    scenario: Scenario
    app: Harness
    store: RestlessStore
    results: dict[int, str] = field(default_factory=dict[int, str])
    seen: dict[int, list[int]] = field(default_factory=lambda: {index: [] for index in range(OBJECTS)})
    tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    async def play(self) -> None:
        waiting = [*self.scenario.roots]
        for kind, amount in [("root", 0), *self.scenario.events]:
            if waiting:
                self.begin(waiting.pop(0))
            await self.happen(kind, amount)
        for root in waiting:
            self.begin(root)
        for _ in range(20):
            await self.app.advance(minutes=1)
        await asyncio.gather(*self.tasks)

    def begin(self, root: Act) -> None:
        self.tasks.append(asyncio.create_task(self.ask(root)))

    async def happen(self, kind: str, amount: int) -> None:
        match kind:
            case "ticks":
                for _ in range(amount):
                    await asyncio.sleep(0)
            case "crash":
                await self.app.crash()
            case "fail_before" | "fail_after":
                self.store.fail_next = kind.removeprefix("fail_")
            case "advance":
                await self.app.advance(amount / 2)
            case "settle":
                await self.app.settle()
            case "look":
                self.tasks.append(asyncio.create_task(self.look(amount % OBJECTS)))
            case _:
                assert kind == "root", kind

    async def ask(self, root: Act) -> None:
        """Ask for a root until there is an answer: its key makes that safe."""
        carry = self.app.object(Node, str(root.target)).carry.options(idempotency_key=f"root {root.number}")
        while True:
            try:
                if root.kind == "call":
                    self.results[root.number] = await carry(root)
                elif root.kind == "send":
                    self.results[root.number] = await (await carry.send(root)).result()
                else:
                    await carry.after(root.amount).send(root)
                return
            except TerminalError as error:
                self.results[root.number] = f"failed: {error}"
                return
            except (StoreUnavailableError, RuntimeStoppedError):
                await asyncio.sleep(0)

    async def look(self, index: int) -> None:
        """What somebody outside has seen cannot be taken back."""
        known = max(self.seen[index], default=0)
        try:
            total = await self.app.object(Node, str(index)).look()
        except (StoreUnavailableError, RuntimeStoppedError):
            return
        assert total >= known
        self.seen[index].append(total)


async def run(scenario: Scenario) -> Run:
    store = RestlessStore(Random(scenario.seed), scenario.dawdling)
    app = Harness(
        Node,
        Worker,
        dependencies={World: World()},
        seed=scenario.seed,
        retry=RetryPolicy(initial=0.5),
        suspend_after=scenario.suspend_after,
        store=store,
    )
    app._settings = replace(app._settings, journal_retention_us=scenario.journal_retention_us)
    if scenario.forgetful:
        app._settings = replace(
            app._settings, active_objects=0, pending_in_memory=1, batch_limit_transitions=3, pump_budget_us=-1
        )
    played = Run(scenario, app, store)
    async with asyncio.timeout(PATIENCE_SECONDS), app:
        await played.play()
        await check(played)
    return played


async def check(played: Run) -> None:
    """Compare a run that has come to rest with the plain reading of its program."""
    expected, results = read_roots(played.scenario.roots)
    assert played.results == results
    for index in range(OBJECTS):
        state = await played.app.state(Node, str(index))
        assert state.get("total", 0) == expected.totals[index]
        log: list[str] = state.get("log", [])
        check_log(index, log, expected)
        assert all(seen <= expected.totals[index] for seen in played.seen[index])
    check_ledger(played.app.actions(), expected, lives=1 + played.scenario.crashes, failed={})
    await check_rest(played.store)
    check_journals(played.store)
    await check_that_only_state_is_left(played)


async def check_rest(store: RestlessStore) -> None:
    """Nothing is left that would wake up, or wait."""
    kept = await store.invocations(after=0, limit=10_000)
    assert all(record.status is InvocationStatus.COMPLETED for record in kept)
    assert await store.timers(2**62, 10) == []
    assert await store.recoverable(0, 10) == []


async def check_that_only_state_is_left(played: Run) -> None:
    """The law: what has settled, and whose retentions have passed, leaves state and nothing else."""
    disk = played.store.memory.disk
    state = {address: dict(fields) for address, fields in disk.state.items()}
    await played.app.advance(LONGEST_RETENTION_SECONDS + CLEANER_SECONDS)
    left = [*disk.rows, *disk.aliases, *disk.promises, *disk.orders, *disk.object_expiries]
    assert left == []
    assert disk.state == state


def check_journals(store: RestlessStore) -> None:
    """Every prefix of every journal that was ever committed issues the recorded commands."""
    world = World(mended=True)
    actors = {"Node": bind(Node, {World: world}), "Worker": bind(Worker, {World: world})}
    for journal in store.journals.values():
        record = journal.record
        actor = actors[record.address.service]
        steps = [decode_step(content) for content in journal.steps]
        for length in range(len(steps) + 1):
            execution = Execution(
                actor=actor,
                handler=actor.handlers[record.handler],
                accepted=record,
                snapshot=journal.snapshot,
                observer=Listener(),
                settings=SETTINGS,
            )
            try:
                execution.replay(steps[:length], journal.deliveries)
            finally:
                execution.close()


@given(random=st.randoms(use_true_random=False))
def test_programs_end_as_a_plain_reading_of_them_says(random: Random) -> None:
    asyncio.run(run(make_scenario(random)))


@pytest.mark.parametrize("suspend_after", [0, 60])
def test_many_programs_end_as_a_plain_reading_of_them_says(suspend_after: int) -> None:
    """The same on a fixed list of seeds, faster."""
    for seed in range(level().programs // 4):
        scenario = make_scenario(Random(seed), suspend_after)
        try:
            asyncio.run(run(scenario))
        except BaseException as error:
            error.add_note(f"The scenario is that of seed {seed}: {msgspec.json.encode(scenario).decode()}")
            raise
