"""The workload `identities`: who calls knows which invocation its call is, inside and outside, and can cancel it.

The answer of every call is the id of the invocation that answers it, so each caller sees whether it was told the right
one, also where its call has joined an earlier one.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from durably import (
    CancelledInvocationError,
    Context,
    ObjectContext,
    RetryPolicy,
    Service,
    UnknownTargetError,
    VirtualObject,
    handler,
    state,
)
from durably.testing import SimulatedClient, Simulation, Workload
from workloads.program_parts import all_of, randomness, restart_at_times, until_all_ended, wander

PRINTERS = "ab"
NO_PAPER = -1
"""Printing this waits until it is cancelled."""


@dataclass(frozen=True)
class Printed:
    """What a caller was told that its calls are, and who has answered."""

    told: list[str]
    answered: list[str]
    joined: bool
    """One of them was there before."""


class SoakPrinter(VirtualObject):
    """Answers with its own id."""

    printed: list[str] = state(default=[])

    @handler
    async def print(self, ctx: ObjectContext, seconds: float) -> str:
        if seconds == NO_PAPER:
            await ctx.signal("paper")
        if seconds:
            await ctx.sleep(seconds)
        self.printed.append(ctx.request.id)
        return ctx.request.id


class SoakSpooler(Service):
    """Calls printers, and knows the ids of its calls before they are answered."""

    @handler
    async def print(self, ctx: Context, printer: str, seconds: list[float], key: str | None) -> Printed:
        """Print at once on one printer."""
        ask = ctx.call("SoakPrinter", "print", key=printer, argument=0, returns=str)
        calls = [ask]
        for each in seconds:
            handle = ctx.object(SoakPrinter, printer).print
            calls.append((handle if key is None else handle.options(idempotency_key=key))(each))
        jobs = [await ctx.invocation_of(call) for call in calls]
        joined = any(job.previously_accepted for job in jobs)
        return Printed([job.id for job in jobs], [await call for call in calls], joined)

    @handler
    async def give_up(self, ctx: Context, printer: str) -> str:
        """Call, wait a little, and cancel the call."""
        call = ctx.object(SoakPrinter, printer).print(NO_PAPER)
        job = await ctx.invocation_of(call)
        await ctx.sleep(1)
        await job.cancel()
        try:
            await call
        except CancelledInvocationError:
            return job.id
        return f"{job} has printed, and was cancelled"

    @handler
    async def misdirect(self, ctx: Context, seconds: float) -> tuple[str, str]:
        """Send to a printer that there is not, and ask what has become of it."""
        sent = await ctx.send("SoakPlotter", "print", argument=0)
        await ctx.sleep(seconds)
        try:
            await sent.result()
        except UnknownTargetError as error:
            return sent.id, str(error)
        return sent.id, "printed"


async def refusal(caller: SimulatedClient, id: str) -> str:
    """What the outcome of a message says that was refused."""
    try:
        await caller.invocation(id).result()
    except UnknownTargetError as error:
        return str(error)
    return f"{id} was printed"


async def program(sim: Simulation) -> None:
    """Clients call printers through the spooler and themselves."""
    random = randomness(sim)
    printed: list[str] = []
    given_up: list[str] = []

    async def client(name: str, random: Random) -> None:
        caller = sim.client(name)
        for _ in range(random.randint(1, 3)):
            await wander(sim, random)
            printer, key = random.choice(PRINTERS), random.choice((None, "first", "second"))
            match random.choice(("spool", "print", "give up", "misdirect")):
                case "spool":
                    seconds: list[float] = [random.choice((0, 1, 30)) for _ in range(random.randint(1, 3))]
                    spooled = await caller.service(SoakSpooler).print(printer, seconds, key)
                    assert spooled.told == spooled.answered, f"told were {spooled.told}, not {spooled.answered}"
                    assert key is not None or not spooled.joined, f"one of {spooled.told} was there before"
                    printed.extend(spooled.answered)
                case "give up":
                    given_up.append(await caller.service(SoakSpooler).give_up(printer))
                    assert given_up[-1].startswith("inv_"), given_up[-1]
                case "misdirect":
                    id, why = await caller.service(SoakSpooler).misdirect(random.choice((0, 5)))
                    assert "There is no service" in why, why
                    await wander(sim, random)
                    later = await refusal(caller, id)
                    assert later == why, f"{why}, and then {later}"
                case _:
                    call = caller.object(SoakPrinter, printer).print(random.choice((0, 5)))
                    job = await caller.invocation_of(call)
                    answer = await call
                    assert job.id == answer, f"the call was told to be {job}, and {answer} answered"
                    printed.append(answer)

    await all_of(
        *(client(name, Random(random.random())) for name in ("ann", "bob", "eve")), restart_at_times(sim, random)
    )
    await until_all_ended(sim)
    kept = [id for printer in PRINTERS for id in sim.snapshots[SoakPrinter, printer].printed]
    assert sorted(kept) == sorted(set(printed)), f"{kept} were printed, and {printed} answered"
    assert not set(kept) & set(given_up), f"{given_up} were cancelled, and {kept} printed"


IDENTITIES = Workload(program=program, actors=(SoakPrinter, SoakSpooler), retry=RetryPolicy(initial=0.5))
