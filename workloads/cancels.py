"""The workload `cancels`: trees of calls that are cancelled, killed, paused and late, at any time and more than once.

Each limb of a tree writes down that it began, and how it ended: by itself, or told to. The end says of every one that
began and was not killed that it ended once, that its object is free, and that nothing of it is left. Handlers cancel
what they have sent, operators do to all invocations of an object what they do to one; what has ended is begun once
more, and purged.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from durably import (
    Context,
    Invocation,
    InvocationStatus,
    InvocationStatusError,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    TerminalError,
    UnknownTargetError,
    VirtualObject,
    handler,
    state,
)
from durably.ids import Address
from durably.runtime.gateway.control import Verb
from durably.testing import Simulation, Workload
from workloads.program_parts import UNKNOWN, all_of, randomness, restart_at_times, until_all_ended, wander

KEYS = "abcdefgh"
LONG_SECONDS = 500.0
LONGEST_SECONDS = 40_000.0
"""Longer than the clock is ever wrong by."""
LATE_SECONDS = 120.0
"""Longer than any request is on its way."""


@dataclass(frozen=True)
class Plan:
    """What one limb does. Its children are on objects further on in the alphabet, so no two wait for each other."""

    number: int
    key: str
    how: str
    seconds: float
    cleanup_seconds: float
    timeout: float | None = None
    swallows: bool = False
    children: list[Plan] = field(default_factory=list["Plan"])


class Limb(VirtualObject, name="SoakLimb"):
    """Writes `+n` when it begins, `=n` when it ends by itself, `~n` when it is told to end."""

    log: list[str] = state(default=[])

    @handler
    async def grow(self, ctx: ObjectContext, plan: Plan) -> int:
        self.log.append(f"+{plan.number}")
        try:
            async with ctx.compensations() as undo:
                undo.add(ctx.object(Limb, "undone").note.send, f"-{plan.number}")
                await self._wait_for_children(ctx, plan)
                await ctx.sleep(plan.seconds)
        except (asyncio.CancelledError, TimeoutError):
            self.log.append(f"~{plan.number}")
            await ctx.sleep(plan.cleanup_seconds)
            if not plan.swallows:
                raise
            return -plan.number
        self.log.append(f"={plan.number}")
        return plan.number

    async def _wait_for_children(self, ctx: ObjectContext, plan: Plan) -> None:
        match plan.how:
            case "gather":
                await asyncio.gather(*(self._call(ctx, child) for child in plan.children), return_exceptions=True)
            case "group":
                async with asyncio.TaskGroup() as group:
                    for child in plan.children:
                        group.create_task(self._call(ctx, child))
            case "limit":
                async with asyncio.timeout(LONG_SECONDS / 2):
                    for child in plan.children:
                        await self._call(ctx, child)
            case "in vain":
                with suppress(TimeoutError):
                    async with asyncio.timeout(5):
                        await ctx.run("in vain", in_vain)
                for child in plan.children:
                    await self._call(ctx, child)
            case _:
                for child in plan.children:
                    await self._call(ctx, child)

    async def _call(self, ctx: ObjectContext, child: Plan) -> int | str:
        grow = ctx.object(Limb, child.key).grow
        grow = grow if child.timeout is None else grow.options(timeout=child.timeout)
        try:
            return await grow(child)
        except TerminalError as error:
            return f"{error.code}"

    @handler(retry=RetryPolicy(initial=10.0, maximum=10.0))
    async def crash_for_ever(self, ctx: ObjectContext, number: int) -> int:
        self.log.append(f"!{number}")
        await ctx.sleep(1)
        raise ValueError(f"{number} crashes for ever")

    @handler(retry=RetryPolicy(initial=1.0, max_attempts=3, then="fail"))
    async def crash_when_told(self, ctx: ObjectContext, number: int) -> int:
        try:
            await ctx.sleep(LONG_SECONDS)
            return number
        except asyncio.CancelledError:
            raise ValueError(f"{number} crashes when it is told") from None

    @handler
    async def note(self, ctx: ObjectContext, what: str) -> None:
        self.log.append(what)

    @handler
    async def is_free(self, ctx: ObjectContext) -> bool:
        return True


async def in_vain() -> None:
    """Takes longer than anybody waits for it."""
    await asyncio.sleep(20)


class Warden(Service, name="SoakWarden"):
    """Cancels what it has sent."""

    @handler
    async def plant(self, ctx: Context, plan: Plan, patience: float) -> str:
        """How it ended; a cancel comes before or after that."""
        sent = await ctx.object(Limb, plan.key).grow.send(plan)
        await ctx.sleep(patience)
        await sent.cancel()
        try:
            return f"{await sent}"
        except TerminalError as error:
            return f"{error.code}"

    @handler
    async def plant_and_leave(self, ctx: Context, plan: Plan) -> str:
        """The cancel is the last thing that it does, in the step that sends."""
        sent = await ctx.object(Limb, plan.key).grow.send(plan)
        await sent.cancel()
        return sent.id

    @handler
    async def end_itself(self, ctx: Context) -> None:
        await ctx.invocation(ctx.request.id, str).cancel()


class Judge(VirtualObject, name="SoakJudge"):
    """Gives orders that hold when it does (rule V6)."""

    @handler(atomic=True)
    async def order(self, ctx: ObjectContext, id: str, seconds: float, *, holds: bool) -> None:
        await ctx.invocation(id, int).cancel()
        await ctx.sleep(seconds)
        if not holds:
            raise TerminalError("it does not hold")


class Forester:
    """Plans trees, and knows what has been done to them."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.numbers = 0
        self.plans: dict[int, Plan] = {}
        self.killed: set[int] = set()
        """The numbers of all limbs of trees of which something was killed."""
        self.felled: set[str] = set()
        """The keys of objects of which everything was killed, once or more."""

    def tree(self, first_key: int = 0, depth: int = 3) -> Plan:
        random = self.random
        self.numbers += 1
        number, place = self.numbers, random.randrange(first_key, min(first_key + 3, len(KEYS)))
        children: list[Plan] = []
        if depth and place + 1 < len(KEYS):
            children = [self.tree(place + 1, depth - 1) for _ in range(random.choice((0, 1, 1, 2, 3)))]
        plan = Plan(
            number,
            KEYS[place],
            random.choice(("await", "gather", "group", "limit", "in vain")),
            random.choice((0.0, 1.0, 30.0, LONG_SECONDS)),
            random.choice((0.0, 2.0, 40.0)),
            random.choice((None, None, None, 0.5, 20.0)),
            random.random() < 0.1,
            children,
        )
        self.plans[number] = plan
        return plan

    def note_felled(self) -> None:
        """What grew on an object when it was felled was killed. When that was, nobody knows: any may have been."""
        for plan in [plan for plan in self.plans.values() if plan.key in self.felled]:
            self.note_kill(plan)

    def note_kill(self, plan: Plan) -> None:
        self.killed.add(plan.number)
        for child in plan.children:
            self.note_kill(child)


async def program(sim: Simulation) -> None:
    """Some grow trees, and do to them whatever there is; in the end all of it has ended, and every object is free."""
    random = randomness(sim)
    forester = Forester(random)
    outcomes: dict[int, set[str]] = {}

    async def outcome_of(name: str, id: str) -> str:
        client = sim.client(name)
        while True:
            try:
                return f"{await client.invocation(id, int).result()}"
            except PausedInvocationError as error:  # Whoever paused it may have lost the answer.
                with suppress(InvocationStatusError, UnknownTargetError):
                    await client.act(Verb.RESUME, error.id)
            except TerminalError as error:
                return f"{error.code}"

    async def grow(name: str) -> None:
        client = sim.client(name)
        for _ in range(random.choice((1, 2, 3))):
            await wander(sim, random)
            plan = forester.tree()
            grow = client.object(Limb, plan.key).grow
            if plan.timeout is not None:
                grow = grow.options(timeout=plan.timeout)
            sent = await (grow.after(random.choice((0.5, 60.0))) if random.random() < 0.2 else grow).send(plan)
            for _ in range(random.choice((0, 1, 1, 2, 4))):
                await wander(sim, random)
                await meddle(name, sent.id, plan)
            heard = outcomes.setdefault(plan.number, set())
            if random.random() < 0.7:
                heard.add(await outcome_of(name, sent.id))
                heard.add(await outcome_of(f"{name} again", sent.id))
                assert len(heard) == 1, f"{plan.number} ended with {heard}"

    async def meddle(name: str, id: str, plan: Plan) -> None:
        client = sim.client(name)
        verb = random.choice((Verb.CANCEL, Verb.CANCEL, Verb.CANCEL, Verb.KILL, Verb.PAUSE))
        if verb is Verb.KILL:
            forester.note_kill(plan)
        try:
            await client.act(verb, id)
            if verb is Verb.PAUSE:
                await wander(sim, random)
                await client.act(random.choice((Verb.RESUME, Verb.RESUME, Verb.CANCEL)), id)
        except InvocationStatusError:
            pass

    async def order_all(name: str) -> None:
        """Do to all of an object what is done to one; all that had not ended then has been told."""
        client, verb = sim.client(name), random.choice((Verb.CANCEL, Verb.KILL, Verb.KILL, Verb.PAUSE))
        await wander(sim, random)
        unfinished = {key: sorted(sim.disk.unfinished.get(Address("SoakLimb", key), ())) for key in KEYS}
        key = max(KEYS, key=lambda key: len(unfinished[key]))
        before = [sim.disk.rows[number].record.id for number in unfinished[key]]
        if verb is Verb.KILL:
            forester.felled.add(key)
        await client.act_on_all(verb, f"SoakLimb/{key}")
        if verb is Verb.KILL:
            left = [id for id in before if (record := sim.disk.find(id)) is not None and record.outcome is None]
            assert not left, f"all of {key} was killed, and {left} go on"
        if verb is Verb.PAUSE:
            await wander(sim, random)
            await client.act_on_all(Verb.RESUME, random.choice((f"SoakLimb/{key}", "SoakLimb")))

    async def plant(name: str) -> None:
        """A handler cancels."""
        client, plan = sim.client(name), forester.tree()
        warden = client.service(Warden)
        await wander(sim, random)
        if random.random() < 0.5:
            with suppress(PausedInvocationError):  # A limb was paused, and goes on when that is resumed.
                await outcome(sim, warden.plant(plan, random.choice((0.0, 1.0, 60.0))))
        else:
            await outcome_of(name, await warden.plant_and_leave(plan))
        assert await outcome(sim, warden.end_itself()) in ("None", "409"), "what cancels itself ended in another way"

    async def judge(number: int) -> None:
        """An order that does not hold cancels nobody."""
        client, holds = sim.client(f"judge {number}"), random.random() < 0.5
        limb = client.object(Limb, f"judged {number}")
        sent = await limb.grow.send(Plan(-number, f"judged {number}", "await", LONGEST_SECONDS, 0.0))
        ordering = client.object(Judge, f"{number}").order(sent.id, random.choice((0.0, 1.0)), holds=holds)
        assert await outcome(sim, ordering) == ("None" if holds else "500")
        heard = await outcome_of(f"judge {number}", sent.id)
        assert heard == ("409" if holds else f"{-number}"), f"holds={holds}, and what was judged ended with {heard}"

    async def end_what_crashes(number: int) -> None:
        """A handler that crashes for ever can be cancelled."""
        client = sim.client(f"crash {number}")
        limb = client.object(Limb, f"crash {number}")
        sent = await (limb.crash_when_told if number else limb.crash_for_ever).send(number)
        await wander(sim, random)
        with suppress(InvocationStatusError):  # The answer to the first try was lost.
            await sent.cancel()
        heard = await outcome_of("crash", sent.id)
        assert heard == "409" or (number > 0 and heard == f"{number}"), f"what crashes ended with {heard}"
        assert await client.object(Limb, f"crash {number}").is_free()

    await all_of(
        *(grow(name) for name in ("ann", "bob", "cid")),
        *(end_what_crashes(number) for number in range(random.choice((0, 1, 2)))),
        *(order_all(f"operator {number}") for number in range(random.choice((0, 1, 2)))),
        *(plant(f"planter {number}") for number in range(random.choice((0, 1, 2)))),
        *(judge(number) for number in range(1, random.choice((1, 2, 3)))),
        restart_at_times(sim, random),
    )
    await resume_all(sim)
    await until_all_ended(sim)
    forester.note_felled()
    for key in KEYS:
        assert await sim.client("looker").object(Limb, key).is_free()
    undone = Counter(sim.snapshots[Limb, "undone"].log)
    for key in KEYS:
        check(sim.snapshots[Limb, key].log, forester.killed, undone)
    await begin_again(sim, random)
    await purge(sim, random)


async def outcome(sim: Simulation, asking: Awaitable[object]) -> str:
    """The result as text, or the code of the failure."""
    try:
        return f"{await asking}"
    except TerminalError as error:
        return f"{error.code}"


async def begin_again(sim: Simulation, random: Random) -> None:
    """What has ended is begun once more, under a new id, as often as is asked."""
    client = sim.client("operator")
    noted: Invocation[None] = await client.object(Limb, "again").note.send("once")
    with suppress(*UNKNOWN, InvocationStatusError):
        await client.restart_as_new(noted.id)
    await noted
    tried, known = 1, set[str]()
    for _ in range(random.choice((0, 1, 3))):
        tried += 1
        with suppress(*UNKNOWN):
            known.add(await client.restart_as_new(noted.id))
    for id in sorted(known):
        assert await outcome(sim, client.invocation(id, type(None)).result()) == "None"
    await until_all_ended(sim)
    log = sim.snapshots[Limb, "again"].log
    assert {*log} == {"once"}, f"what was begun again wrote {log}"
    assert len(known) <= len(log) - 1 <= tried, f"begun again {len(known)} to {tried} times, it wrote {log}"


async def purge(sim: Simulation, random: Random) -> None:
    """The outcome of what is purged is gone, and its key can be used anew."""
    client = sim.client("operator")
    note = client.object(Limb, "purged").note.options(idempotency_key="purged")
    times = random.choice((1, 2))
    for _ in range(times):
        sent = await note.send("once")
        await sent
        await sim.advance(LATE_SECONDS)  # A request that comes twice would do it anew.
        if random.random() < 0.5:
            with suppress(UnknownTargetError):  # The answer to the first try was lost.
                await client.act(Verb.PURGE, sent.id)
        else:
            await client.act_on_all(Verb.PURGE, "SoakLimb/purged/note")
        assert sim.disk.find(sent.id) is None, "what was purged is there"
        assert await outcome(sim, client.invocation(sent.id, type(None)).result()) == "404"
        await sim.advance(LATE_SECONDS)
    log = sim.snapshots[Limb, "purged"].log
    assert log == ["once"] * times, f"purged {times} times, it wrote {log}"


async def resume_all(sim: Simulation) -> None:
    """A request to pause may have been on its way for long."""
    while True:
        await sim.advance(LATE_SECONDS)
        paused = [row.record.id for row in sim.disk.rows.values() if row.record.status is InvocationStatus.PAUSED]
        if not paused:
            return
        for id in paused:
            with suppress(InvocationStatusError, UnknownTargetError):
                await sim.client("caretaker").act(Verb.RESUME, id)


def check(log: list[str], killed: set[int], undone: Counter[str]) -> None:
    """What the limbs of one object have written down."""
    ends: dict[int, list[str]] = {}
    for entry in log:
        kind, number = entry[0], int(entry[1:])
        if kind == "+":
            assert number not in ends, f"{number} began twice"
            ends[number] = []
        else:
            ends[number].append(kind)
    for number, kinds in ends.items():
        assert len(kinds) == 1 or (not kinds and number in killed), f"{number} ended {len(kinds)} times: {kinds}"
        told = undone[f"-{number}"]
        assert told <= 1, f"{number} was undone {told} times"
        assert not (told and kinds == ["="]), f"{number} ended well, and was undone"
        assert told or number in killed or kinds == ["="], f"{number} was told to end, and not undone"


CANCELS = Workload(program=program, actors=(Limb, Warden, Judge), retry=RetryPolicy(initial=0.5))
