"""`SimulatedLoop`: an event loop on which time is a number, and what is ready runs in an order that a seed decides.

Time stands still while anything is ready, and jumps to the next timer when nothing is, so a year of sleeping takes no
time. Of the callbacks that are ready together, asyncio runs the oldest first; programs come to rely on that without
noticing, and on a busy day it is not what happens around a real process. So the loop shuffles them, as Trio does, more
or less as each run's seed wants. Tasks and futures hash by creation number, so that the sets of asyncio iterate alike
in every process: the same seed gives the same run, to the letter.

Callbacks, timers and tasks belong to the simulated process in whose context they were made. When that process is
killed they are never run again, and no `finally` block of them either: that is what `kill -9` does.
"""

from __future__ import annotations

import asyncio
import math
import sys
from asyncio import events
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from random import Random
from threading import get_ident
from typing import Any, NoReturn, Protocol, TypeVar, TypeVarTuple

from durably.runtime.execution.closing import CLOSINGS, close_asyncgen, close_coroutine
from durably.runtime.execution.loop import (
    IsolatedLoop,
    NumberedTask,
    has_unheard_error,
    never_report,
    timer_us,
)

T = TypeVar("T")
Args = TypeVarTuple("Args")

US_PER_SECOND = 1_000_000
MOST_CALLBACKS = 2_000_000
"""Of one run, by default. So many take a minute or so; a run of a hundred calls has some ten thousand."""


class Owner(Protocol):
    """A process that callbacks belong to."""

    @property
    def dead(self) -> bool:
        """None of its callbacks runs any more."""
        ...

    @property
    def halted(self) -> bool:
        """It is dead or stands still."""
        ...

    @property
    def backlog(self) -> list[Any]:
        """Callbacks that became ready while it stood still."""
        ...


class Outside:
    """Owns what belongs to no process."""

    def __init__(self) -> None:
        self.dead = self.halted = False
        self.backlog: list[Any] = []


OUTSIDE = Outside()

owner_variable: ContextVar[Owner] = ContextVar("durably_simulated_process")
"""The simulated process that a context belongs to. One without it (rule D4) belongs to the owner that runs then."""


class SimulatedTimer(asyncio.TimerHandle):
    """A call at a moment of virtual time."""

    __slots__ = ("owner",)

    def __init__(self, when: float, callback: Any, args: Any, loop: SimulatedLoop, context: Context) -> None:
        self.owner = context.get(owner_variable, loop.owner)
        super().__init__(when, callback, args, loop, context)


class SimulatedCallback(asyncio.Handle):
    """A call that is ready."""

    __slots__ = ("owner",)

    def __init__(self, callback: Any, args: Any, loop: SimulatedLoop, context: Context) -> None:
        self.owner = context.get(owner_variable, loop.owner)
        super().__init__(callback, args, loop, context)


class SimulatedTask(NumberedTask[T]):
    """A task of the simulation, or of one of its processes."""

    __slots__ = ("owner",)
    owner: Owner


class SimulatedLoop(IsolatedLoop):
    """The loop of one simulation: its time, its order, its tasks."""

    def __init__(
        self,
        random: Random,
        *,
        shuffle: Callable[[list[Any]], None],
        longest_us: int,
        most_callbacks: int | None = None,
    ) -> None:
        """`shuffle` may change the order of what is ready together; the others bound the run."""
        self.random = random
        self.elapsed_us = 0
        self.callbacks = 0
        self.owner: Owner = OUTSIDE
        """To whom the callback belongs that runs at the moment."""
        self._shuffle = shuffle
        self._longest_us = longest_us
        self._most_callbacks = MOST_CALLBACKS if most_callbacks is None else most_callbacks
        self._ready: list[SimulatedCallback | SimulatedTimer] = []
        self._timers: list[tuple[int, int, SimulatedTimer]] = []
        self._count = 0
        self._next_number = 1
        self._tasks: dict[int, SimulatedTask[Any]] = {}
        self._failed: list[asyncio.Task[Any]] = []
        self._asyncgens: list[AsyncGenerator[Any, Any]] = []
        self._gateway = outside_context()
        self._thread = get_ident()
        self._running = False
        self._task_factory: Any = None
        self._closed = False
        self._stop: BaseException | None = None
        self.tell_busiest: Callable[[], str] = str
        """A sentence on what was done most, for a run that does not end."""
        self.tell_unanswered: Callable[[], str] = str
        """What the program has asked for that is not answered; empty, if that is nothing."""
        self.on_time_passing: Callable[[], None] | None = None
        """Called when nothing is ready, before time jumps to the next timer."""
        self.on_error: Callable[[BaseException], None] = self.stop_with
        """Gets the errors of callbacks, and of tasks that no code awaited."""

    # ------------------------------------------------------------------ running

    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        """Run until it is done.

        Raises:
            SimulationStuckError: nothing can happen any more, or only what can happen for ever.
            The error that `stop_with` was given.
        """
        __tracebackhide__ = True
        hooks = sys.get_asyncgen_hooks()
        outer = events._get_running_loop()
        if outer is not None:
            raise RuntimeError(
                "A simulation was run inside a running event loop. Call it from a plain function: a simulation "
                "brings its own loop."
            )
        events._set_running_loop(self)
        sys.set_asyncgen_hooks(self._asyncgens.append, _leave_alone)
        self._running = True
        try:
            main = future if isinstance(future, asyncio.Future) else self.create_task(_awaited(future))
            while not main.done() and self._stop is None:
                self._turn()
            if self._stop is not None:
                raise self._stop
            result: T = main.result()
            return result
        finally:
            self._running = False
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def stop(self) -> None:
        """A simulation ends when its program does; a bare stop has no meaning."""

    run_forever = stop

    def stop_with(self, error: BaseException) -> None:
        """End the simulation with an error at the next turn; the first one counts."""
        if self._stop is None:
            self._stop = error

    def close(self) -> None:
        """Close all that still runs, newest first; what it then does is ignored."""
        if self._closed:
            return
        self._closed = True
        self._ready.clear()
        self._timers.clear()
        for task in reversed(list(self._tasks.values())):
            if not task.done():
                never_report(task)
                close_coroutine(task.get_coro())
        for _ in range(CLOSINGS):
            if not self._asyncgens:
                break
            close_asyncgen(self._asyncgens.pop())
        self._tasks.clear()

    def _turn(self) -> None:
        """Run what is ready, or let time pass."""
        if not self._ready:
            self._take_due()
        if not self._ready:
            if self.on_time_passing is not None:
                self.on_time_passing()
            if not self._ready:
                self._jump()
        batch, self._ready = self._ready, []
        if len(batch) > 1:
            self._shuffle(batch)
        for handle in batch:
            owner = handle.owner
            if handle.cancelled():
                continue
            if owner.halted:
                if not owner.dead:
                    owner.backlog.append(handle)
                continue
            self.callbacks += 1
            self.owner = owner
            handle._run()
            if self._stop is not None:
                return
        self.owner = OUTSIDE
        if self.callbacks > self._most_callbacks:
            raise SimulationStuckError(
                f"The simulation ran {self._most_callbacks:,} callbacks, in "
                f"{self.elapsed_us / US_PER_SECOND:,.3f} s of virtual time, and did not come to an end. Most likely "
                "something goes round in circles, or waits in a loop for what never comes. "
                f"{self.tell_busiest()} If the program is so long, give simulate(..., "
                f"most_callbacks={10 * self._most_callbacks}).\n{self._describe()}"
            )

    def go_on(self, owner: Owner) -> None:
        """What became ready while a process stood still is ready now."""
        self._ready += owner.backlog
        owner.backlog.clear()

    def _jump(self) -> None:
        timers = self._timers
        while timers and (timers[0][2].cancelled() or timers[0][2].owner.dead):
            heappop(timers)
        if not timers:
            raise SimulationStuckError(
                f"The program waits for something that nothing will ever do, and no timer is set.\n{self._describe()}"
            )
        self.elapsed_us = max(self.elapsed_us, timers[0][0])
        if self.elapsed_us > self._longest_us:
            raise SimulationStuckError(
                f"After {self._longest_us / US_PER_SECOND / 86_400:,.0f} days of virtual time the program was not "
                f"done. {self._what_to_do()}\n{self._describe()}"
            )
        self._take_due()

    def _what_to_do(self) -> str:
        """For a program that was not done in time: more time helps where something is on its way to it."""
        asked = self.tell_unanswered()
        if asked:
            return f"It waits for {asked}. Give Simulation(longest=...) more, if that was meant."
        if any(timer.owner is OUTSIDE and not timer.cancelled() for _, _, timer in self._timers):
            return "Give Simulation(longest=...) more, if that was meant."
        return (
            "It waits for something that nothing in the simulation can set: it has asked for nothing that is not "
            "answered, and has set no timer. An asyncio.Event or a future of the program is set by the program itself, "
            "or by a dependency; to wait for the state of objects, use `await sim.until(...)`."
        )

    def _take_due(self) -> None:
        """Timers whose moment is now; for them no time needs to pass."""
        timers = self._timers
        while timers and timers[0][0] <= self.elapsed_us:
            self._ready.append(heappop(timers)[2])

    def _describe(self) -> str:
        waiting = [task for task in self._tasks.values() if not task.done() and task.owner is OUTSIDE]
        return "\n".join(f"  waits: {task.get_name()} {task.get_coro()!r}" for task in waiting)

    # ------------------------------------------------------------------ for asyncio

    def time(self) -> float:
        return self.elapsed_us / US_PER_SECOND

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """A simulation is repeatable, which is better than asyncio's debugging."""

    def call_soon(self, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None) -> Any:
        handle = SimulatedCallback(callback, args, self, copy_context() if context is None else context)
        if not self._closed:
            self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> Any:
        if self._thread != get_ident():
            raise RuntimeError(
                "Something came from another thread into a simulation. Threads run when they like, which would make "
                "each run another one; give blocking work to ctx.run or loop.run_in_executor, which run it in turn."
            )
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._call_after_us(timer_us(delay), callback, args, context)

    def call_at(
        self, when: float, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> asyncio.TimerHandle:
        moment_us = timer_us(when)
        return self._call_after_us(None if moment_us is None else moment_us - self.elapsed_us, callback, args, context)

    def call_after_us(
        self, delay_us: int, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> SimulatedTimer:
        """Call back when so many microseconds have passed."""
        return self._call_after_us(delay_us, callback, args, context)

    def _call_after_us(
        self, delay_us: int | None, callback: Callable[..., Any], args: tuple[Any, ...], context: Context | None
    ) -> SimulatedTimer:
        """None: never."""
        due = None if delay_us is None else self.elapsed_us + max(delay_us, 0)
        when = math.inf if due is None else due / US_PER_SECOND
        timer = SimulatedTimer(when, callback, args, self, copy_context() if context is None else context)
        if due is not None and not self._closed:
            self._count += 1
            heappush(self._timers, (due, self._count, timer))
        return timer

    def call_outside(self, delay_us: int, callback: Callable[[*Args], object], *args: *Args) -> None:
        """The same for what belongs to no process, even if a process asks for it."""
        self.call_after_us(delay_us, callback, *args, context=outside_context())

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Asyncio's hook: a cancelled timer is passed over when its time comes."""

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: Context | None = None,
        **ignored: Any,
    ) -> asyncio.Task[T]:
        if self._task_factory is not None:
            made: asyncio.Task[T] = self._task_factory(self, coro, name=name, context=context)
            return made
        number = self.number()
        context = copy_context() if context is None else context
        title = f"task-{number}" if name is None else str(name)
        task = SimulatedTask(number, coro, loop=self, name=title, context=context)
        task.owner = context.get(owner_variable, self.owner)
        context.run(owner_variable.set, task.owner)
        if self._closed:
            never_report(task)
            close_coroutine(coro)
            return task
        self._tasks[number] = task
        task.add_done_callback(self._forget, context=self._gateway)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        assert isinstance(task, SimulatedTask)
        self._tasks.pop(task.number, None)
        if task.owner is OUTSIDE and has_unheard_error(task):
            self._failed.append(task)

    def unheard_errors(self) -> list[BaseException]:
        """Return, and forget, the errors of tasks outside the processes that no code has asked for."""
        failed, self._failed = self._failed, []
        unheard = [task for task in failed if has_unheard_error(task)]
        return [error for task in unheard if (error := task.exception()) is not None]

    def run_in_executor(self, executor: Any, func: Callable[[*Args], T], *args: *Args) -> asyncio.Future[T]:
        """There are no threads here: the function runs a moment later, in a callback of its own."""
        future: asyncio.Future[T] = self.create_future()

        def run() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except BaseException as error:
                future.set_exception(error)

        self.call_after_us(self.random.randrange(1, 2_000), run)
        return future

    def refuse(self, name: str) -> NoReturn:
        raise RuntimeError(
            f"`loop.{name}` was used in a simulation, where there are no sockets, pipes, processes and signals: they "
            "would make each run another one. Give the actors a fake of what reaches outside, as a dependency."
        )

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A callback raised, or a task ended with an error that no code asked for; futures do that all the time."""
        task = context.get("task")
        owner = self.owner if task is None else task.owner
        is_worth_telling = task is not None or "handle" in context
        if is_worth_telling and not self._closed and not owner.dead:
            error = context.get("exception")
            self.on_error(RuntimeError(context["message"]) if error is None else error)

    default_exception_handler = call_exception_handler

    def get_exception_handler(self) -> None:
        return None

    def get_task_factory(self) -> Any:
        return self._task_factory

    def set_task_factory(self, factory: Any) -> None:
        self._task_factory = factory

    async def shutdown_asyncgens(self) -> None:
        """`close` does that."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""


class SimulationStuckError(AssertionError):
    """The program can never end: it waits for what does not come, or goes round for ever."""


def outside_context() -> Context:
    """A context that belongs to no process."""
    context = Context()
    context.run(owner_variable.set, OUTSIDE)
    return context


async def _awaited(future: Any) -> Any:
    return await future


def _leave_alone(asyncgen: AsyncGenerator[Any, Any]) -> None:
    """Never called while the loop holds the generator."""
