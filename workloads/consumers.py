"""The workload `consumers`: four consumers of a model that have to catch up, whatever goes wrong meanwhile.

Letters are written and received while processes die. Then other code takes over: the method of one consumer, which is
behind, has another name, one consumer hears of everything from the beginning of history, and one of nothing before it.
Another one was paused, and goes on when its transitions are older than the history is kept, so they have waited for it.
In the end each has heard of each of its transitions once, in the order of the letter's history, and each letter was
received once. The old history is gone by then, and what a consumer that comes last hears begins behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from random import Random

from durably import (
    Context,
    ObjectContext,
    RetryPolicy,
    Service,
    UnknownTargetError,
    VirtualObject,
    handler,
    state,
)
from durably.models import Machine, Model, Transition, TransitionContext, consumer, initial, transition
from durably.runtime.lifecycle.subscriptions import SubscriptionStatus
from durably.testing import Simulation, Workload
from workloads.program_parts import all_of, looked, randomness, until_all_ended, wander

ARCHIVE, CARRIER = "SoakLetters.Archive/consume", "SoakLetters.Carrier/consume"
HISTORY = timedelta(days=7)
KEPT_DAYS = 8
"""Longer than transitions, events, and the places of consumers that are gone, are kept."""


class Folder(VirtualObject, name="SoakFolder"):
    """What one consumer has heard of one letter."""

    heard: list[str] = state(default=[])

    @handler
    async def put(self, ctx: ObjectContext, transition_id: str) -> None:
        self.heard.append(transition_id)


async def put(ctx: Context, folder: str, made: Transition) -> None:
    await ctx.object(Folder, f"{folder} {made.object_id}").put(made.id)


class Release:
    """A version of the code, with classes of its own; those of all versions have the same names."""

    def __init__(self, *, is_later: bool, is_last: bool = False, history: timedelta = HISTORY) -> None:
        class Letter(Model, prefix="letter", index=("number",)):
            number: int

        class Written(Letter):
            pass

        class Received(Letter):
            times: int = 1

        class Letters(Machine[Letter], name="SoakLetters", history=history):
            @initial
            async def write(self, ctx: TransitionContext, number: int) -> Written:
                return Written(number=number)

            @transition
            async def receive(self, ctx: TransitionContext, letter: Written) -> Received:
                return Received.of(letter)

            @transition
            async def read_again(self, ctx: TransitionContext, letter: Received) -> Received:
                return Received.of(letter, times=letter.times + 1)

            @consumer(name="Archive")
            async def file(self, ctx: Context, letter: Letter, made: Transition) -> None:
                await put(ctx, "archive", made)

            if not is_later:

                @consumer(name="Carrier")
                async def carry(self, ctx: Context, letter: Letter, made: Transition) -> None:
                    await bring(ctx, letter, made)

            else:

                @consumer(name="Carrier")  # It was called `carry`.
                async def deliver(self, ctx: Context, letter: Letter, made: Transition) -> None:
                    await bring(ctx, letter, made)

                @consumer(name="Library", start="beginning")
                async def collect(self, ctx: Context, letter: Letter, made: Transition) -> None:
                    await put(ctx, "library", made)

                @consumer(name="News")
                async def tell(self, ctx: Context, letter: Letter, made: Transition) -> None:
                    await put(ctx, "news", made)

            if is_last:

                @consumer(name="Museum", start="beginning")
                async def exhibit(self, ctx: Context, letter: Letter, made: Transition) -> None:
                    await put(ctx, "museum", made)

        async def bring(ctx: Context, letter: Letter, made: Transition) -> None:
            await put(ctx, "carrier", made)
            if isinstance(letter, Written):
                await ctx.machine(Letters).receive(letter)

        class Writers(Service, name="SoakWriters"):
            @handler
            async def write(self, ctx: Context, first: int, count: int) -> list[str]:
                letters = ctx.machine(Letters)
                return [(await letters.write(first + number)).object.id for number in range(count)]

        self.letters, self.writers = Letters, Writers
        self.written, self.received = Written, Received
        self.actors = (Letters, Writers, Folder)


FIRST, LATER, LAST = Release(is_later=False), Release(is_later=True), Release(is_later=True, is_last=True)


async def program(sim: Simulation) -> None:
    """Clients who write, in a number that the seed says."""
    random = randomness(sim)
    await write_and_catch_up(sim, random, clients=random.randint(1, 2), more=random.randint(0, 2))


async def write_and_catch_up(sim: Simulation, random: Random, *, clients: int, more: int) -> None:
    """So many clients write a letter each, one writes `more` at a time; then other code takes over, and they write
    again. When all has been read, the code changes once more, and the first letters are read again.
    """
    operator, ids = sim.client("operator"), list[str]()

    async def write(period: str, number: int) -> None:
        letters = sim.client(f"{period} {number}").machine(FIRST.letters)
        await wander(sim, random)
        letter, _ = await letters.write.options(idempotency_key=f"{period} {number}")(number)
        ids.append(letter.id)

    async def turn(name: str, status: SubscriptionStatus) -> None:
        await looked(sim, lambda: operator.turn_subscription(name, status))

    await turn(ARCHIVE, SubscriptionStatus.PAUSED)
    await all_of(*(write("first", number) for number in range(clients)))
    again = [*ids]
    if more:
        writers = sim.client("writers").service(FIRST.writers)
        ids += await writers.write.options(idempotency_key="many")(clients, more)
    await until_all_ended(sim)
    await turn(CARRIER, SubscriptionStatus.PAUSED)
    await all_of(*(write("between", number) for number in range(clients)))
    before = {id: len(await history(sim, id)) for id in ids}
    await sim.restart(*LATER.actors)
    await turn(CARRIER, SubscriptionStatus.ON)
    await all_of(*(write("second", number) for number in range(clients)))
    letters = sim.client("reader").machine(LATER.letters)
    for id in again:
        await letters.read_again.options(idempotency_key=f"again {id}")(id)
    await sim.advance(days=KEPT_DAYS)
    histories = {id: await history(sim, id) for id in ids}
    await turn(ARCHIVE, SubscriptionStatus.ON)
    await until_all_ended(sim)
    for id, made in histories.items():
        assert [one.name for one in made] == ["write", "receive", *(["readAgain"] if id in again else [])]
        told = [one.id for one in made]
        for folder in ("carrier", "archive", "library"):
            assert sim.snapshots[Folder, f"{folder} {id}"].heard == told, f"the {folder} of {id}"
        assert sim.snapshots[Folder, f"news {id}"].heard == told[before.get(id, 0) :], f"the news of {id}"
    received = await letters.find_all(LATER.received)
    assert [one.id for one in received] == sorted(ids), "each letter was received"
    assert [one.times for one in received] == [2 if one.id in again else 1 for one in received]
    assert not await letters.count(LATER.written)
    await the_old_history_is_gone(sim, histories, again)


async def the_old_history_is_gone(sim: Simulation, histories: Mapping[str, list[Transition]], again: list[str]) -> None:
    """All consumers are past it. The last release brings one that is to begin where history does."""
    await sim.advance(hours=3)  # Clocks may be wrong by an hour.
    await sim.restart(*LAST.actors)
    letters = sim.client("reader").machine(LAST.letters)
    for id, made in histories.items():
        assert await letters.get_object_transitions(id) == [], f"the old history of {id} is gone"
        with suppress(UnknownTargetError):
            kept = await letters.get_transition(made[0].id)
            raise AssertionError(f"{kept} is kept for too long")
    young = {id: (await letters.read_again.options(idempotency_key=f"late {id}")(id))[1].id for id in again}
    await until_all_ended(sim)
    for id in histories:
        told = [young[id]] if id in again else []
        assert [one.id for one in await letters.get_object_transitions(id)] == told, f"the new history of {id}"
        assert sim.snapshots[Folder, f"museum {id}"].heard == told, f"the museum of {id}"
        assert sim.snapshots[Folder, f"library {id}"].heard == [*(one.id for one in histories[id]), *told]
    assert [one.times for one in await letters.find_all(LAST.received)] == [
        3 if id in again else 1 for id in sorted(histories)
    ]


async def history(sim: Simulation, id: str) -> list[Transition]:
    """The oldest first."""
    return (await sim.machine(LATER.letters).get_object_transitions(id))[::-1]


CONSUMERS = Workload(program=program, actors=FIRST.actors, retry=RetryPolicy(initial=0.5))
