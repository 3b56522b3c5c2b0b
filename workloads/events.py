"""The workload `events`: what is published reaches each subscription once, in order for each key, whatever goes wrong.

Clients and handlers publish, while processes die and are replaced by other code. One subscription is there from the
beginning, one comes after events have been published, one is renamed, one fails for a while and is tried again from its
dead letters, and one is paused for longer than events are kept. In the end each has been given what it is for.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from random import Random

from durably import (
    Context,
    ObjectContext,
    RetryPolicy,
    Service,
    TerminalError,
    VirtualObject,
    handler,
    state,
)
from durably.events import subscribe
from durably.runtime.lifecycle.subscriptions import SubscriptionStatus
from durably.testing import Simulation, Workload
from workloads.program_parts import all_of, looked, randomness, until_all_ended, wander

KEYS = "ab"
BOOKS = ("print", "part", "doubt", "keep", "follow", "library")
PAUSED = "SoakPress/print"
KEPT_DAYS = 8
"""Longer than events are kept."""


@dataclass
class Said:
    """Something was said about a key."""

    key: str
    number: int


@dataclass
class Left:
    """Somebody has left."""

    key: str
    number: int


class Notebook(VirtualObject, name="SoakNotebook"):
    """What one subscription has heard of one key."""

    heard: list[int] = state(default=[])

    @handler
    async def note(self, ctx: ObjectContext, number: int) -> None:
        self.heard.append(number)


class Speaker(VirtualObject, name="SoakSpeaker"):
    """Publishes, in steps, and hears of what is published about its own key in between."""

    heard: list[int] = state(default=[])

    @handler
    async def speak(self, ctx: ObjectContext, numbers: list[int]) -> None:
        for number in numbers:
            await ctx.publish(Said(self.key, number), key=self.key)
            if number % 3 == 0:
                await ctx.sleep(0.01)

    @handler(atomic=True)
    async def withdraw(self, ctx: ObjectContext, number: int) -> None:
        await ctx.publish(Said(self.key, number), key=self.key)
        await ctx.sleep(0.01)
        raise TerminalError("it was not meant")

    @subscribe(Said, Left, key=lambda event: event.key, start="beginning")
    async def hear(self, ctx: ObjectContext, event: Said | Left) -> None:
        self.heard.append(event.number)


class Press(Service, name="SoakPress"):
    """Subscriptions of a service, of which one gives up odd numbers at first."""

    @subscribe(Said, start="beginning")
    async def print(self, ctx: Context, event: Said) -> None:
        await ctx.object(Notebook, f"print {event.key}").note(event.number)

    @subscribe(Left, name="farewell")
    async def part(self, ctx: Context, event: Left) -> None:
        await ctx.object(Notebook, f"part {event.key}").note(event.number)

    @subscribe(Said, start="beginning", retry=RetryPolicy(initial=0.01, max_attempts=2, then="fail"))
    async def doubt(self, ctx: Context, event: Said) -> None:
        if event.number % 2 and not await ctx.object(Doubts, "all").are_over():
            raise ValueError("an odd number")
        await ctx.object(Notebook, f"doubt {event.key}").note(event.number)


class Doubts(VirtualObject, name="SoakDoubts"):
    """Whether odd numbers are believed."""

    over: bool = state(default=False)

    @handler
    async def end(self, ctx: ObjectContext) -> None:
        self.over = True

    @handler
    async def are_over(self, ctx: ObjectContext) -> bool:
        return self.over


class LaterPress(Service, name="SoakLaterPress"):
    """Comes when much has been published; the second one hears of nothing before it."""

    @subscribe(Said, start="beginning", name="archive")
    async def keep(self, ctx: Context, event: Said) -> None:
        await ctx.object(Notebook, f"keep {event.key}").note(event.number)

    @subscribe(Said)
    async def follow(self, ctx: Context, event: Said) -> None:
        await ctx.object(Notebook, f"follow {event.key}").note(event.number)


class RenamedPress(Service, name="SoakLaterPress"):
    """The same with a new name: it starts as it says, and the old one keeps its place."""

    @subscribe(Said, start="beginning", name="library")
    async def keep(self, ctx: Context, event: Said) -> None:
        await ctx.object(Notebook, f"library {event.key}").note(event.number)


BEFORE = (Speaker, Press, Notebook, Doubts)
LATER = (*BEFORE, LaterPress)
RENAMED = (*BEFORE, RenamedPress)


class Told:
    """What was published, by key, in the order of the one who speaks about it."""

    def __init__(self) -> None:
        self.said: dict[str, list[int]] = {key: [] for key in KEYS}
        self.left: dict[str, list[int]] = {key: [] for key in KEYS}
        self._last = 0

    def number(self) -> int:
        self._last += 1
        return self._last


async def program(sim: Simulation) -> None:
    """Three periods, each with other code; then the doubts end."""
    random, told = randomness(sim), Told()
    operator = sim.client("operator")
    is_paused = random.random() < 0.5
    await _talk(sim, random, told, "first")
    if is_paused:
        await looked(sim, lambda: operator.turn_subscription(PAUSED, SubscriptionStatus.PAUSED))
    await sim.restart(*LATER)
    before = {key: len(said) for key, said in told.said.items()}
    await _talk(sim, random, told, "second")
    if is_paused:
        await sim.advance(days=KEPT_DAYS)
        await looked(sim, lambda: operator.turn_subscription(PAUSED, SubscriptionStatus.ON))
    await until_all_ended(sim)
    renamed_at = {key: len(said) for key, said in told.said.items()}
    await sim.restart(*RENAMED)
    await _talk(sim, random, told, "third")
    await until_all_ended(sim)
    await sim.object(Doubts, "all").end.options(idempotency_key="the end")()
    await looked(sim, lambda: operator.retry_dead_letters("SoakPress/doubt"))
    await until_all_ended(sim)
    for key in KEYS:
        said = told.said[key]
        pages = {name: sim.snapshots[Notebook, f"{name} {key}"].heard for name in BOOKS}
        assert sim.snapshots[Speaker, key].heard == sorted([*said, *told.left[key]]), f"what {key} hears of itself"
        assert pages["print"] == said, f"what was printed of {key}"
        assert pages["part"] == told.left[key], f"who has left {key}"
        assert sorted(pages["doubt"]) == said, f"what was doubted of {key}"
        assert pages["keep"] == said[: renamed_at[key]], f"what was archived of {key} until it was renamed"
        assert pages["follow"] == said[before[key] : renamed_at[key]], f"what was followed of {key}"
        kept = pages["library"]
        assert kept == said[len(said) - len(kept) :], f"the library of {key} has the newest"
        assert len(kept) >= len(said) - renamed_at[key], f"the library of {key} has all since it is there"


async def _talk(sim: Simulation, random: Random, told: Told, period: str) -> None:
    await all_of(*(_talk_of(sim, random, told, period, key) for key in KEYS if random.random() < 0.8))


async def _talk_of(sim: Simulation, random: Random, told: Told, period: str, key: str) -> None:
    """One client speaks about a key, in several ways, one after the other."""
    client = sim.client(f"{period} {key}")
    for turn in range(random.randint(1, 2)):
        await wander(sim, random)
        name, numbers = f"{period} {key} {turn}", [told.number() for _ in range(random.randint(1, 3))]
        match random.choice(("outside", "inside", "leaves", "withdraws")):
            case "outside":
                said = [Said(key, number) for number in numbers]
                await client.publish(*said, key=key, idempotency_key=name)
                told.said[key] += numbers
            case "inside":
                await client.object(Speaker, key).speak.options(idempotency_key=name)(numbers)
                told.said[key] += numbers
            case "leaves":
                await client.publish(Left(key, numbers[0]), key=key, idempotency_key=name)
                told.left[key].append(numbers[0])
            case _:
                with suppress(TerminalError):
                    await client.object(Speaker, key).withdraw.options(idempotency_key=name)(numbers[0])


EVENTS = Workload(program=program, actors=BEFORE, retry=RetryPolicy(initial=0.5))
