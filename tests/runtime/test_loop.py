"""`DeterministicLoop` by itself: nothing but a ready queue, the same order every time, and nothing real."""

from __future__ import annotations

import asyncio
import gc
from asyncio import events
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from durably import BlockingIOInHandlerError, WrongContextError
from durably.runtime.execution.loop import DeterministicLoop, DurableTimer, enter, is_in_a_handler, leave


class Owner:
    """Keeps timers, and fires them when a test says so."""

    def __init__(self) -> None:
        self.timers: list[tuple[int, DurableTimer]] = []
        self.dropped: list[DurableTimer] = []
        self.failures: list[dict[str, Any]] = []

    def start_timer(self, timer: DurableTimer, due: int, /) -> None:
        self.timers.append((due, timer))

    def drop_timer(self, timer: DurableTimer, /) -> None:
        self.dropped.append(timer)

    def callback_failed(self, context: dict[str, Any], /) -> None:
        self.failures.append(context)


class Machine:
    """One attempt without an execution: a coroutine on a loop, driven by hand."""

    def __init__(self, program: Callable[[], Coroutine[Any, Any, Any]], *, salt: int = 0, limit: int = 1_000) -> None:
        self.owner = Owner()
        self.loop = DeterministicLoop(self.owner, salt, limit)
        self.program = program
        self.main: asyncio.Task[Any] | None = None

    def advance(self) -> asyncio.Task[Any]:
        """Run until nothing is ready; timers that are due first have fired before."""
        before = enter(self.loop)
        try:
            if self.main is None:
                self.main = self.loop.start(self.program())
            elif self.owner.timers:
                due, timer = min(self.owner.timers, key=lambda one: one[0])
                self.owner.timers.remove((due, timer))
                self.loop.at = due
                self.loop.fire(timer)
            self.loop.run_ready(self.main)
        finally:
            leave(self.loop, None, before)
        return self.main

    def run(self) -> Any:
        """To the end."""
        for _ in range(100):
            if self.advance().done():
                break
        assert self.main is not None
        return self.main.result()


def test_it_runs_until_nothing_is_ready_and_gives_the_thread_back() -> None:
    async def program() -> str:
        assert is_in_a_handler()
        await asyncio.sleep(0)
        return "done"

    machine = Machine(program)
    assert machine.run() == "done"
    assert not is_in_a_handler()
    assert events._get_running_loop() is None


def test_time_passes_by_timers_only_and_sleeping_moves_it() -> None:
    async def program() -> list[float]:
        loop = asyncio.get_running_loop()
        times = [loop.time()]
        for seconds in (1.5, 0.000001):
            await asyncio.sleep(seconds)
            times.append(loop.time())
        return times

    assert Machine(program).run() == [0.0, 1.5, 1.500001]


def test_a_time_limit_that_is_not_needed_drops_its_timer() -> None:
    async def program() -> None:
        async with asyncio.timeout(5):
            await asyncio.sleep(1)

    machine = Machine(program)
    machine.run()
    assert 5_000_000 in {round(timer.when() * 1_000_000) for timer in machine.owner.dropped}


@pytest.mark.parametrize("salt", [0, 1, 12345])
def test_sets_of_tasks_and_futures_iterate_in_the_same_order_every_time(salt: int) -> None:
    async def program() -> list[str]:
        async def work(number: int) -> str:
            await asyncio.sleep(number % 3 + 1)
            return str(number)

        tasks = {asyncio.create_task(work(number), name=f"task {number}") for number in range(20)}
        futures = {asyncio.get_running_loop().create_future(): str(number) for number in range(20)}
        order = [futures[future] for future in set(futures)]
        order += [task.get_name() for task in tasks]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        order += [task.get_name() for task in done] + [task.get_name() for task in pending]
        for task in pending:
            task.cancel()
        return order

    garbage = [[object() for _ in range(100)] for _ in range(100)]  # Other addresses each time.
    first = Machine(program, salt=salt).run()
    del garbage
    gc.collect()
    assert Machine(program, salt=salt).run() == first


def test_a_step_ends_when_the_main_task_is_done() -> None:
    ran: list[str] = []

    async def program() -> str:
        async def other() -> None:
            ran.append("other")

        tasks = [asyncio.create_task(other()) for _ in range(3)]
        return f"left {len(tasks)}"

    machine = Machine(program)
    assert machine.run() == "left 3"
    assert ran == []
    assert len(machine.loop.live_tasks()) == 3
    machine.loop.kill()
    gc.collect()
    assert ran == []


def test_what_goes_wrong_in_a_callback_is_told() -> None:
    async def program() -> None:
        def fail() -> None:
            raise ValueError("in a callback")

        asyncio.get_running_loop().call_soon(fail)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    machine = Machine(program)
    machine.run()
    assert [str(failure["exception"]) for failure in machine.owner.failures] == ["in a callback"]


@pytest.mark.parametrize(
    "name",
    [
        "call_soon_threadsafe",
        "run_in_executor",
        "getaddrinfo",
        "create_connection",
        "sock_recv",
        "run_forever",
        "close",
    ],
)
def test_what_reaches_outside_is_refused_by_name(name: str) -> None:
    async def program() -> None:
        result = getattr(asyncio.get_running_loop(), name)()
        if asyncio.iscoroutine(result):
            await result

    with pytest.raises(BlockingIOInHandlerError, match=rf"loop\.{name}.*ctx\.run"):
        Machine(program).run()


def test_it_takes_nothing_from_others() -> None:
    async def program() -> None:
        await asyncio.get_running_loop().create_future()

    machine = Machine(program)
    machine.advance()
    for use in (
        lambda: machine.loop.call_soon(print),
        lambda: machine.loop.call_later(1, print),
        lambda: machine.loop.call_at(1, print),
    ):
        with pytest.raises(WrongContextError):
            use()
    machine.loop.kill()


def test_a_dead_loop_ignores_what_its_own_finally_blocks_do() -> None:
    ran: list[str] = []

    async def program() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ran.append("finally")
            try:
                await asyncio.sleep(5)
            finally:
                asyncio.get_running_loop().call_soon(ran.append, "callback")
                await asyncio.create_task(_append(ran))

    machine = Machine(program)
    machine.advance()
    machine.loop.kill()
    gc.collect()
    assert ran == ["finally"]
    assert machine.owner.timers == []


async def _append(ran: list[str]) -> None:
    ran.append("task")


def test_asynchronous_generators_are_closed_with_their_attempt() -> None:
    ran: list[str] = []

    async def program() -> None:
        async def generate() -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                ran.append("closed")

        generator = generate()
        await anext(generator)
        del generator
        gc.collect()
        assert ran == []
        await asyncio.get_running_loop().create_future()

    machine = Machine(program)
    machine.advance()
    assert ran == []
    machine.loop.kill()
    assert ran == ["closed"]
