"""The workload `limits`: work under limits of number and rate, for all, for each tenant and for each object.

Jobs call other jobs under the same limit and under others, directly or through a relay that has none, wait for each
other in circles, sleep, fail, continue as new, are left behind, cancelled, killed, paused, and late. The guarantees
watch how many run and in which order they begin; the end says that all have ended and that every place is free.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random

from durably import (
    Context,
    InvocationStatusError,
    Limit,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    SharedContext,
    TerminalError,
    UnknownTargetError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.runtime.gateway.control import Verb
from durably.testing import Simulation, Workload
from workloads.program_parts import all_of, randomness, restart_at_times, until_all_ended, wander

KEYS = "abc"
TENANTS = ("acme", "bolt")
KINDS = ("gate", "gate", "tenant", "look", "relay", "pace")
NAMED = {"gate": Limit(at_once=2), "pace": Limit(per_second=0.5, burst=2, at_once=3)}


@dataclass(frozen=True)
class Job:
    """What is done, and what it calls before it is done with it."""

    number: int
    kind: str
    key: str
    tenant: str
    how: str
    seconds: float
    timeout: float | None
    fails: bool
    renews: bool
    children: tuple[Job, ...] = ()


async def call(ctx: Context | SharedContext, job: Job) -> str:
    match job.kind:
        case "gate":
            made = ctx.service(LimitedGate).work
        case "pace":
            made = ctx.service(LimitedGate).pace
        case "relay":
            made = ctx.service(LimitedGate).relay
        case "tenant":
            made = ctx.object(LimitedShop, job.key).serve
        case _:
            made = ctx.object(LimitedShop, job.key).look
    try:
        return await (made if job.timeout is None else made.options(timeout=job.timeout))(job)
    except TerminalError as error:
        return f"{job.number}!{error.code}"


async def do(ctx: Context | SharedContext, job: Job) -> str:
    """The children, in the way that the job says; then its own time."""
    match job.how:
        case "gather":
            await asyncio.gather(*(call(ctx, child) for child in job.children))
        case "leave":
            left = [asyncio.ensure_future(call(ctx, child)) for child in job.children]
            await (ctx.sleep(0.5) if job.number % 2 else asyncio.sleep(0))  # Or before they are sent: they go out.
            for one in left:
                one.cancel()
        case _:
            for child in job.children:
                await call(ctx, child)
    await ctx.sleep(job.seconds)
    if job.fails:
        raise TerminalError(f"{job.number} fails")
    return f"{job.number}"


class LimitedGate(Service, name="SoakLimitedGate"):
    """Two at once, three at a time of which one begins every two seconds, and as many as like."""

    @handler(limit="gate")
    async def work(self, ctx: Context, job: Job) -> str:
        return await do(ctx, job)

    @handler(limit="pace")
    async def pace(self, ctx: Context, job: Job) -> str:
        return await do(ctx, job)

    @handler
    async def relay(self, ctx: Context, job: Job) -> str:
        return await do(ctx, job)


class LimitedShop(VirtualObject, name="SoakLimitedShop"):
    """One at once for each tenant; one that looks for each shop."""

    served: list[int] = state(default=[])

    @handler(limit=Limit(at_once=1, per="job.tenant"))
    async def serve(self, ctx: ObjectContext, job: Job) -> str:
        self.served.append(job.number)
        if job.renews:
            await ctx.sleep(job.seconds)
            ctx.continue_as_new(LimitedShop.serve, replace(job, renews=False))
        return await do(ctx, job)

    @shared(limit=Limit(at_once=1, per="self.key"))
    async def look(self, ctx: SharedContext, job: Job) -> str:
        return await do(ctx, job)


class Foreman:
    """Makes jobs."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.number = 0

    def job(self, depth: int = 2, kind: str | None = None) -> Job:
        random = self.random
        self.number += 1
        number = self.number
        count = random.choice((0, 0, 1, 2)) if depth else 0
        chosen = random.choice(KINDS) if kind is None else kind
        return Job(
            number,
            chosen,
            random.choice(KEYS),
            random.choice(TENANTS),
            random.choice(("await", "await", "gather", "leave")),
            random.choice((0.0, 0.0, 1.0, 20.0)),
            random.choice((None, None, None, 5.0)),
            random.random() < 0.1,
            random.random() < 0.2,
            tuple(self.job(depth - 1) for _ in range(count)),
        )

    def crossing(self) -> list[Job]:
        """Two jobs, each of which calls one that needs what the other has."""
        jobs: list[Job] = []
        for key, mine, other in zip(KEYS, TENANTS, reversed(TENANTS), strict=False):
            child = replace(self.job(depth=0, kind="tenant"), key=KEYS[-1], tenant=other, timeout=None, renews=False)
            job = self.job(depth=0, kind="tenant")
            jobs.append(replace(job, key=key, tenant=mine, how="await", timeout=None, children=(child,)))
        return jobs


async def program(sim: Simulation) -> None:
    """Several send jobs at the same time and meddle with them; all end, and no place stays taken."""
    random = randomness(sim)
    foreman = Foreman(random)
    busy = random.choice((None, None, "gate", "tenant"))  # Now and then everybody wants the same.
    jobs = [foreman.job(kind=busy) for _ in range(random.choice((2, 4, 8)))]
    jobs += foreman.crossing() if random.random() < 0.3 else []

    async def keep_pace() -> None:
        """One after the other, and between two of them a limit comes into use that was not."""
        client = sim.client("runner")
        for number in range(random.choice((0, 0, 8))):
            job = replace(foreman.job(depth=0, kind="look" if number % 2 else "pace"), seconds=0.0, fails=False)
            gate, shop = client.service(LimitedGate), client.object(LimitedShop, f"{number}")
            await (shop.look(job) if number % 2 else gate.pace(job))

    async def ask(job: Job) -> None:
        client = sim.client(f"customer {job.number}")
        await wander(sim, random)
        match job.kind:
            case "gate":
                made = client.service(LimitedGate).work
            case "pace":
                made = client.service(LimitedGate).pace
            case "relay":
                made = client.service(LimitedGate).relay
            case "tenant":
                made = client.object(LimitedShop, job.key).serve
            case _:
                made = client.object(LimitedShop, job.key).look
        if job.timeout is not None:
            made = made.options(timeout=job.timeout)
        sent = await made.send(job)
        for _ in range(random.choice((0, 0, 0, 1, 2))):
            await wander(sim, random)
            verb = random.choice((Verb.CANCEL, Verb.KILL, Verb.PAUSE))
            with suppress(InvocationStatusError):
                await client.act(verb, sent.id)
                if verb is Verb.PAUSE:
                    await wander(sim, random)
                    await client.act(Verb.RESUME, sent.id)
        while True:
            try:
                assert await sent.result() == f"{job.number}"
                return
            except PausedInvocationError as error:
                with suppress(InvocationStatusError, UnknownTargetError):
                    await client.act(Verb.RESUME, error.id)
            except TerminalError:
                return

    await all_of(*map(ask, jobs), keep_pace(), restart_at_times(sim, random))
    await until_all_ended(sim)
    assert not sim.disk.places, f"these places stay taken: {[*sim.disk.places]}"


LIMITS = Workload(program=program, actors=(LimitedGate, LimitedShop), retry=RetryPolicy(initial=0.5), limits=NAMED)
