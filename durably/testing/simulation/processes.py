"""`Processes`: the processes that run the program of a simulation: one after the other, or for a while two at once.

A process is killed, stopped, or superseded: another one takes its store over while it lives on, because its lock was
lost or because it stood still for a while. Clients then reach either of the two, until the older one is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from random import Random
from typing import Protocol

from durably.actors.actor import Actor
from durably.actors.definition.binding import BoundActor, bind
from durably.actors.definition.definition import definition_of
from durably.actors.definition.dependencies import Dependencies
from durably.actors.events.subscribing import with_companions
from durably.testing.simulation.clients import break_connections
from durably.testing.simulation.injection import Strike
from durably.testing.simulation.loop import outside_context
from durably.testing.simulation.process import Program, SimulatedProcess
from durably.testing.simulation.process import World as ProcessWorld
from durably.testing.simulation.process_memory import ProcessMemory

SETTLE_US = 20_000
LONGEST_STEP_US = 60_000_000
AFTER_A_JUMP_US = 10_000_000
"""For so long after the wall clock was set, what waits for a time of day may be late."""


class World(ProcessWorld, Protocol):
    """The simulation, as what starts and ends its processes sees it."""

    random: Random

    def check_journals(self) -> None:
        """A process is gone, and another one will replay what is under way."""
        ...


class Processes:
    """Those of one run."""

    def __init__(self, world: World, program: Program) -> None:
        self.program = program
        self.bound = _bound(program)
        self.current: SimulatedProcess | None = None
        """The owner of the store, or the one that is about to open it; None: it is down."""
        self.lives = 0
        """Processes that were started."""
        self.crashes = 0
        self.memory: ProcessMemory | None = None
        self.globals_changed: dict[str, int] = {}
        self.has_old_journals = False
        """What is under way may have been begun by other code."""
        self._world = world
        self._successor: SimulatedProcess | None = None
        """Has begun to take the store over."""
        self._takeover: Strike | None = None
        self._older: dict[SimulatedProcess, Random] = {}
        """Live on without the store, each with the dice that say which requests reach them."""
        self._restarting = asyncio.Lock()
        """Somebody stops and starts the process. What is being stopped cannot be stopped again, so others wait."""
        self._gone: list[SimulatedProcess] = []
        """Kept, so that nothing of a dead process runs, not even when the garbage collector comes."""

    def begin_life(self) -> None:
        """Start the program."""
        self.current = self._made()
        self.current.start()

    def reached(self) -> SimulatedProcess | None:
        """The process that a request comes to."""
        for older, dice in self._older.items():
            if dice.random() < 0.5:
                return older
        return self.current

    def has_two(self) -> bool:
        """Another process takes the store over, or has done so."""
        return self._successor is not None or bool(self._older)

    # ------------------------------------------------------------------ how they end

    def kill(self, reason: str, dice: Random, *, down_us: int = 0) -> None:
        """The owner of the store dies, and is started again when it was down for a while."""
        process, world = self.current, self._world
        if process is None or process.dead:
            return
        self.crashes += 1
        world.trace.note(process.name, f"is killed: {reason}")
        self._bury(process)
        self.current = None
        written = world.disk.lose_power(dice)
        if written is not None:
            world.note("the batch that was on its way is on the disk")
            world.committed(written)
        self.forget_memory()
        world.check_journals()
        if self._successor is None:
            world.loop.call_outside(down_us, self.begin_life)

    def kill_by(self, strike: Strike) -> bool:
        """Kill it as a fault says; whether at once."""
        point = strike.point
        reason = f"{point.place.replace('_', ' ')} {point.number}"
        down_us = strike.lasts_us
        if not point.later:
            self.kill(reason, strike.dice, down_us=down_us)
            return True
        process, loop, left = self.current, self._world.loop, point.later

        def count_down() -> None:
            nonlocal left
            left -= 1
            if left > 0:
                loop.call_soon(count_down)
            elif self.current is process:
                self.kill(f"a little later than {reason}", strike.dice, down_us=down_us)

        loop.call_soon(count_down, context=outside_context())
        return False

    def supersede(self, strike: Strike) -> None:
        """Another process begins to take the store over from the owner, which does not know it."""
        older = self.current
        if older is None or self.has_two():
            return
        if strike.dice.random() < 0.5:
            older.halted = True
            self._world.trace.note(older.name, "stands still, and another process is started")
        else:
            self._world.trace.note(older.name, "loses the lock of its store, and another process is started")
        self._takeover = strike
        self._successor = self._made()
        self._successor.takes_over = True
        self._successor.start()

    def opened(self, process: SimulatedProcess) -> None:
        """A process has the store now."""
        if process is not self._successor:
            return
        older, strike = self.current, self._takeover
        self.current, self._successor, self._takeover = process, None, None
        process.takes_over = False
        if older is None or older.dead or strike is None:
            return
        world = self._world
        world.trace.note(older.name, "is not the owner of the store any more")
        older.superseded_at_us = world.loop.elapsed_us
        world.disk.in_flight = None  # It cannot become durable any more.
        self._older[older] = strike.dice
        self.forget_memory()
        world.check_journals()
        lasts_us = strike.lasts_us
        world.loop.call_outside(strike.dice.randrange(lasts_us // 2 + 1), self._goes_on, older)
        world.loop.call_outside(lasts_us, self._stops_for_good, older)

    def forget_memory(self) -> None:
        """The process is gone, and with it what handlers kept in globals."""
        for name in () if self.memory is None else self.memory.begin_process():
            self.globals_changed[name] = 1
            self._world.note(f"the global {name} is lost with the process: handlers had changed it")

    def close(self) -> None:
        """Throw everything away."""
        self.forget_memory()
        for process in (*self._gone, *self._older, self._successor, self.current):
            if process is not None and process.runtime is not None and process.runtime.engine is not None:
                process.runtime.engine.kill()

    # ------------------------------------------------------------------ what programs ask for

    async def crash(self) -> None:
        self.kill("a program's wish", self._world.random)
        await self.up()

    async def passivate(self) -> None:
        await self.up()
        process = self.current
        if process is not None and process.runtime is not None and process.runtime.engine is not None:
            self._world.trace.note(process.name, "throws out of memory what idles and waits")
            process.context.run(process.runtime.engine.parts.passivation.passivate_all)

    async def restart(self, *actors: type[Actor]) -> None:
        """Stop the process and start it again; another one who wants that too does it after."""
        async with self._restarting:
            await self._restart(*actors)

    async def _restart(self, *actors: type[Actor]) -> None:
        await self.up()
        process = self.current
        assert process is not None
        if actors:
            self.has_old_journals = True
            self.program = self.program.running(*actors)
            self.bound = _bound(self.program)
        self._world.trace.note(process.name, "is stopped")
        stopping = self._world.loop.create_task(process.stop(), context=process.context)
        while self.current is process and not stopping.done():
            await wait_us(SETTLE_US)
        if self.current is process:  # Otherwise it was killed or superseded, and the next life begins by itself.
            stopping.result()
            self.forget_memory()
            if self._successor is None:
                self.begin_life()
        await self.up()
        if self.current is not None and self.current.program is not self.program:  # The successor is of the old code.
            await self._restart()

    async def first_up(self) -> None:
        """Wait until the first process serves requests, or its start has failed."""
        assert self.current is not None
        await asyncio.shield(self.current.started)

    async def up(self) -> None:
        """Wait until the owner of the store serves requests, and nothing is about to take the store from it."""
        step_us = SETTLE_US
        while self.current is None or not self.current.is_up or self._successor is not None:
            await wait_us(step_us)
            step_us = min(2 * step_us, LONGEST_STEP_US)

    # ------------------------------------------------------------------ when nothing happens

    def is_at_rest(self, *, but_for_actions: bool) -> bool:
        """Nothing can happen unless time passes or somebody asks."""
        process = self.current
        if self.has_two() or process is None or not process.is_up or process.runtime is None:
            return False
        engine = process.runtime.engine
        if engine is None:  # The store failed and is opened again: what was under way goes on after that.
            return False
        idleness = engine.parts.idleness
        return idleness.is_waiting() if but_for_actions else idleness.is_idle()

    def check_at_rest(self) -> None:
        """Time is about to pass: all that could happen before has happened."""
        process, world = self.current, self._world
        if process is None or process.runtime is None or not process.is_up or process.halted:
            return
        engine = process.runtime.engine
        if engine is None or engine.incarnation.stopping or not engine.parts.idleness.is_idle():
            return
        jumped_at_us = world.clock.jumped_at_us
        if jumped_at_us and world.loop.elapsed_us - jumped_at_us < AFTER_A_JUMP_US:
            return
        awaited = [waiter.id for waiter in engine.parts.waiters if not waiter.done()]
        waiting = [one.name for one in engine.parts.sources.running if one.waits_for_room]
        world.guarantees.at_rest(process.runtime.running_actions, world.clock.now(), awaited, waiting)
        made = process.runtime.supervisor.made
        world.guarantees.scopes_at_rest(made.opened, engine.parts.activations.by_address.values())

    # ------------------------------------------------------------------ inside

    def _made(self) -> SimulatedProcess:
        self.lives += 1
        self._world.guarantees.handlers = {
            (service, name): handler
            for service, actor in self.bound.items()
            for name, handler in actor.handlers.items()
        }
        return SimulatedProcess(self._world, self.program, self.lives)

    def _goes_on(self, older: SimulatedProcess) -> None:
        if older.halted and not older.dead:
            self._world.trace.note(older.name, "goes on")
            older.superseded_at_us = self._world.loop.elapsed_us
            older.halted = False
            self._world.loop.go_on(older)

    def _stops_for_good(self, older: SimulatedProcess) -> None:
        self._world.trace.note(older.name, "is killed: it was superseded")
        self._older.pop(older)
        self._bury(older)

    def _bury(self, process: SimulatedProcess) -> None:
        process.die()
        break_connections(process, self._world.loop, self._world.random)
        self._gone.append(process)


def _bound(program: Program) -> Mapping[str, BoundActor]:
    dependencies = Dependencies(program.dependencies)
    return {
        definition_of(actor).name: bind(actor, dependencies, limits=program.limits, middleware=program.middleware)
        for actor in with_companions(program.actors)
    }


async def wait_us(delay_us: int) -> None:
    """Let virtual time pass."""
    await asyncio.sleep(delay_us / 1_000_000)
