"""A client that insists gets through with every verb, whatever the network and the process do, and says so if not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from durably import InvocationStatusError, ObjectContext, SharedContext, VirtualObject, handler, shared, state
from durably.ids import InvocationStatus
from durably.runtime.gateway.control import Verb
from durably.testing import ConnectionLostError, Faults, NobodyThereError, Simulation, SimulationFailedError, simulate

TROUBLE = Faults.client_retries(rate=0.5) | Faults.crash(rate=0.03)


class Waiter(VirtualObject, name="ClientsWaiter"):
    waits_for: str = state(default="")

    @handler
    async def wait(self, ctx: ObjectContext) -> int:
        return await ctx.signal("go", int)

    @handler
    async def wait_for_a_word(self, ctx: ObjectContext) -> str:
        word = ctx.awakeable(str)
        self.waits_for = word.id
        return await word

    @shared
    async def peek(self, ctx: SharedContext) -> str:
        return self.waits_for


async def signal(sim: Simulation) -> None:
    started = await sim.client("joe").object(Waiter, "a").wait.send()
    await started.signal("go", 4)
    assert await started.result() == 4


async def cancel(sim: Simulation) -> None:
    started = await sim.object(Waiter, "a").wait.send()
    await started.cancel()


async def kill(sim: Simulation) -> None:
    started = await sim.object(Waiter, "a").wait.send()
    await sim.client("joe").act(Verb.KILL, started.id)
    assert await started.status() is InvocationStatus.COMPLETED


async def pause_and_resume(sim: Simulation) -> None:
    sim.allow_pauses()
    client = sim.client("joe")
    started = await client.object(Waiter, "a").wait.send()
    await sim.until(lambda _: sim.disk.unfinished != {})
    while await started.status() is InvocationStatus.PENDING:
        await sim.advance(1)
    await client.act(Verb.PAUSE, started.id)
    await sim.settle()  # One that comes twice may come after the resume, and would pause it again.
    await client.resume(started.id)
    await started.signal("go", 4)
    assert await started.result() == 4


async def purge(sim: Simulation) -> None:
    client = sim.client("joe")
    started = await client.object(Waiter, "a").wait.send()
    await started.cancel()
    await sim.settle()
    await client.act(Verb.PURGE, started.id)


async def resolve_an_awakeable(sim: Simulation) -> None:
    client = sim.client("joe")
    started = await client.object(Waiter, "a").wait_for_a_word.send()
    while not (id := await client.object(Waiter, "a").peek()):
        await sim.advance(1)
    await client.resolve_awakeable(id, "hello")
    assert await started == "hello"


PROGRAMS = [signal, cancel, kill, pause_and_resume, purge, resolve_an_awakeable]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_client_that_insists_gets_through_with_every_verb(
    program: Callable[[Simulation], Coroutine[Any, Any, None]],
) -> None:
    simulate(program, Waiter, runs=40, faults=TROUBLE, shrink=False)


def test_an_order_that_never_could_be_done_is_still_refused() -> None:
    async def program(sim: Simulation) -> None:
        started = await sim.object(Waiter, "a").wait.send()
        await started.signal("go", 4)
        await started
        with pytest.raises(InvocationStatusError):
            await started.cancel()

    simulate(program, Waiter, runs=2, faults=Faults.none())


def test_a_client_that_polls_for_what_never_comes_ends_the_run_and_is_named() -> None:
    async def program(sim: Simulation) -> None:
        while not await sim.client("joe").object(Waiter, "a").peek():
            await asyncio.sleep(1)

    with pytest.raises(
        SimulationFailedError,
        match=r"'joe' polls: it calls ClientsWaiter/a/peek 50 times, from 0\.\d+ s to \d\d\.\d+ s of virtual time, and "
        r'always gets "".*sim\.until.*most_polls=500',
    ):
        simulate(program, Waiter, seed=0, faults=Faults.none(), most_polls=50, shrink=False)


def test_a_poll_beside_which_something_changes_may_go_on() -> None:
    async def program(sim: Simulation) -> None:
        for number in range(10):
            started = await sim.object(Waiter, f"{number}").wait_for_a_word.send()
            for _ in range(5):
                await sim.object(Waiter, "a").peek()
            await started.cancel()

    simulate(program, Waiter, runs=2, most_polls=10)


async def poll(sim: Simulation) -> None:
    await sim.object(Waiter, "a").peek()


async def sleep(sim: Simulation) -> None:
    await asyncio.sleep(1)


async def spin(sim: Simulation) -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize("wait", [poll, sleep, spin])
def test_a_program_that_goes_round_in_circles_is_given_up_soon(
    wait: Callable[[Simulation], Coroutine[Any, Any, None]],
) -> None:
    async def program(sim: Simulation) -> None:
        while True:
            await wait(sim)

    told = r"ran 2,000 callbacks, in [\d,.]+ s of virtual time, and did not come to an end.*most_callbacks=20000"
    with pytest.raises(SimulationFailedError, match=told):
        simulate(program, Waiter, seed=0, faults=Faults.none(), most_callbacks=2_000, shrink=False)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"runs": 1.5}, "runs= is a whole number, not 1.5"),
        ({"runs": 0}, "runs= is a whole number from 1 on, not 0"),
        ({"runs": True}, "runs= is a whole number, not True"),
        ({"jobs": 0}, "jobs= is a whole number from 1 on, not 0"),
        ({"jobs": "2"}, "jobs= is a whole number, not '2'"),
        ({"seed": "a"}, "seed= is a whole number, not 'a'"),
        ({"part": (4, 4)}, "names no part of 4"),
        ({"most_polls": 0}, "most_polls= is a whole number from 1 on"),
        ({"run": 5}, "no option 'run'. It has: dependencies"),
        ({"dependencies": 3}, "dependencies= is a function"),
        ({"retry": 3}, "retry= is a RetryPolicy, not 3"),
        ({"longest": "x"}, "longest"),
    ],
)
def test_an_argument_that_cannot_work_is_refused_with_a_sentence(options: dict[str, Any], told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        simulate(signal, Waiter, **options)


async def ask_once(sim: Simulation) -> None:
    await sim.client("joe", insists=False).object(Waiter, "a").peek()


def test_without_faults_there_is_a_process_for_a_client_who_does_not_insist() -> None:
    simulate(ask_once, Waiter, runs=30, faults=Faults.none())


def test_that_there_is_no_process_is_a_kind_of_lost_connection() -> None:
    async def ask_and_bear_it(sim: Simulation) -> None:
        try:
            await ask_once(sim)
        except ConnectionLostError as error:
            sim.sometimes("there was no process", isinstance(error, NobodyThereError))

    report = simulate(ask_and_bear_it, Waiter, runs=10, faults=Faults.superseded(at="before_commit:99"))
    assert report.sometimes["there was no process"]
