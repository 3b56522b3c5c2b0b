"""`Engine`: one incarnation of the machine, from an open store to the first failure of that store.

It is put together here, kept going by its pump, and ended here. The pump advances what is ready in plain callbacks of
the host loop, never inside a task (rule S1), for a bounded time, and then sees whether a batch can be cut. A failed
commit ends the incarnation: everything it held is void, and a new one recovers from the store (rule X3).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Protocol

from durably.actors.definition.binding import BoundActor
from durably.errors import StoreUnavailableError
from durably.ids import Entropy
from durably.runtime.actions.actions import Actions
from durably.runtime.activations.activation import Activation
from durably.runtime.activations.activations import Activations
from durably.runtime.activations.attempts import Attempts
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.thread_yielding import ThreadYielding
from durably.runtime.incarnation.background import Background
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.lifecycle.endings import Endings
from durably.runtime.lifecycle.pause_search import PauseSearch
from durably.runtime.lifecycle.pauses import Pauses
from durably.runtime.lifecycle.recovery import Recovery
from durably.runtime.lifecycle.retries import Retries
from durably.runtime.lifecycle.timer_dispatch import TimerDispatch
from durably.runtime.messaging.completions import Completions
from durably.runtime.messaging.messages import Messages
from durably.runtime.observation.logs import RuntimeLogger
from durably.runtime.registry.reads import Reads
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.settings import Settings
from durably.runtime.steps.run_commands import RunCommands
from durably.runtime.steps.steps import Steps
from durably.runtime.timers.scheduled_messages import ScheduledMessages
from durably.runtime.timers.timer_service import TimerService
from durably.storage.records import TimerRecord
from durably.storage.store import Store


class EngineOwner(Protocol):
    """The runtime, which outlives its engines."""

    def incarnation_failed(self, engine: Engine, error: BaseException, /) -> None: ...
    def invocation_paused(self, invocation: InvocationRun, error: BaseException, told: bool, /) -> None: ...
    def progressed(self) -> None:
        """A batch is durable."""
        ...


class Engine:
    """The machine on an open store. Made by the supervisor for each incarnation, with everything it depends on."""

    def __init__(
        self,
        *,
        owner: EngineOwner,
        store: Store,
        actors: Mapping[str, BoundActor],
        actions: Actions,
        clock: Clock,
        entropy: Entropy,
        settings: Settings,
        log: RuntimeLogger,
        thread_yielding: ThreadYielding,
        last_position: int,
        poisoned: str = "",
    ) -> None:
        """`poisoned` is the id of an invocation that ended the last incarnations: it is paused when its turn comes."""
        self.suspect = ""
        """The id of the invocation that is being advanced."""
        self._poisoned = poisoned
        self.stopping = False
        """Nothing starts any more (rule T4)."""
        self.dead = False
        """The incarnation is over: late callbacks do nothing (rule X3)."""
        self.clock = clock
        self.settings = settings
        self.thread_yielding = thread_yielding
        self._owner = owner
        self._actions = actions
        self._log = log
        self._host = asyncio.get_running_loop()
        self._ready: deque[InvocationRun] = deque()
        self._pump_scheduled = False
        self._pumping = False
        self._idle_waiters: list[asyncio.Future[None]] = []
        self._durable_waiters: dict[asyncio.Future[None], None] = {}

        # Each part is given the parts that it uses: they stand in an order in which that is possible.
        self.committer = committer = Committer(
            self,
            clock=clock,
            thread_yielding=thread_yielding,
            last_position=last_position,
            settings=settings,
            store=store,
        )
        self.when_durable = committer.when_answerable
        reads = Reads(store, thread_yielding, settings.pending_in_memory)
        self.registry = registry = InvocationRegistry(self, reads, committer)
        self.activations = activations = Activations(
            self,
            actors=actors,
            clock=clock,
            committer=committer,
            registry=registry,
            reads=reads,
            settings=settings,
        )
        self._background = background = Background(self)
        self.timers = timers = TimerService(
            self, background=background, clock=clock, committer=committer, settings=settings, store=store
        )
        self._scheduled = scheduled = ScheduledMessages(self, reads, committer)
        self.pause_search = PauseSearch(committer=committer, scheduled=scheduled, registry=registry)
        self._attempts = attempts = Attempts(
            self, committer=committer, log=log, activations=activations, settings=settings
        )
        completions = Completions(
            attempts=attempts, committer=committer, scheduled=scheduled, registry=registry, activations=activations
        )
        self.messages = messages = Messages(
            actors=actors,
            timers=timers,
            clock=clock,
            committer=committer,
            completions=completions,
            scheduled=scheduled,
            registry=registry,
            entropy=entropy,
            log=log,
            activations=activations,
            settings=settings,
        )
        endings = Endings(
            actions=actions,
            timers=timers,
            attempts=attempts,
            clock=clock,
            committer=committer,
            completions=completions,
            registry=registry,
            log=log,
            messages=messages,
            activations=activations,
        )
        self.pauses = pauses = Pauses(
            self,
            attempts=attempts,
            committer=committer,
            registry=registry,
            listener=owner.invocation_paused,
            log=log,
            activations=activations,
        )
        retries = Retries(
            self,
            timers=timers,
            attempts=attempts,
            clock=clock,
            committer=committer,
            log=log,
            endings=endings,
            pauses=pauses,
            settings=settings,
        )
        run_commands = RunCommands(
            self,
            actions=actions,
            committer=committer,
            completions=completions,
            registry=registry,
            log=log,
            pauses=pauses,
            activations=activations,
            retries=retries,
        )
        self._steps = Steps(
            timers=timers,
            attempts=attempts,
            clock=clock,
            committer=committer,
            completions=completions,
            registry=registry,
            log=log,
            messages=messages,
            endings=endings,
            pauses=pauses,
            activations=activations,
            retries=retries,
            run_commands=run_commands,
            settings=settings,
        )
        self._timer_dispatch = TimerDispatch(
            self,
            actors=actors,
            timers=timers,
            clock=clock,
            committer=committer,
            completions=completions,
            scheduled=scheduled,
            log=log,
            messages=messages,
            endings=endings,
            activations=activations,
            retries=retries,
        )
        self._recovery = Recovery(
            self,
            actors=actors,
            background=background,
            clock=clock,
            committer=committer,
            registry=registry,
            log=log,
            activations=activations,
            settings=settings,
            store=store,
        )

    # ------------------------------------------------------------------ its life

    def start(self) -> None:
        """Recover in the background; requests are served meanwhile, through the same loads (rule T3)."""
        self.timers.open_window()
        self._recovery.start()

    def store_failed(self, error: BaseException, /) -> None:
        """The incarnation cannot go on."""
        if not self.dead:
            self._owner.incarnation_failed(self, error)

    def kill(self) -> None:
        """End the incarnation: whatever it held is void, and late callbacks find it dead (rule X3)."""
        self.dead = True
        self.committer.kill()
        self.registry.kill()
        self.activations.kill()
        self.timers.kill()
        self._scheduled.kill()
        self._recovery.kill()
        self._background.kill()
        for invocation in self.registry.live.values():
            self._attempts.throw_away(invocation)
        self._ready.clear()
        for waiter in self._durable_waiters:
            if not waiter.done():
                waiter.set_exception(StoreUnavailableError("The store failed before it had answered. Ask again."))
        self.tell_if_idle()

    async def finish(self) -> None:
        """After `kill`: wait until nothing of it touches the store any more."""
        await self.committer.finish()
        await self.registry.finish()
        await self.activations.finish()
        await self._scheduled.finish()
        await self._background.finish()

    # ------------------------------------------------------------------ the pump

    def queue(self, invocation: InvocationRun, /) -> None:
        """It is ready to be advanced."""
        if not invocation.is_queued:
            invocation.is_queued = True
            self._ready.append(invocation)
            if not self._pump_scheduled:
                self.schedule()

    def schedule(self) -> None:
        """Something is ready or was appended: see to it, in a callback of its own."""
        if not self._pump_scheduled and not self._pumping:
            self._pump_scheduled = True
            self._host.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_scheduled = False
        if self.dead:
            return
        self._pumping = True
        try:
            self._work_off()
        except (MemoryError, SystemExit, KeyboardInterrupt):
            # Rule E3: the host's business. If that goes on, so do the others, and after a while this one too.
            self._pumping = False
            self.clock.call_later(self.settings.host_error_pause_us, self._again, self.suspect)
            self.schedule()
            raise
        except Exception as error:  # A mistake of ours: fail and recover, rather than go on half.
            self.store_failed(error)
        finally:
            self._pumping = False
        self._end_round()

    def _again(self, id: str) -> None:
        invocation = self.registry.live.get(id)
        if invocation is not None and not (self.dead or self.stopping) and invocation.execution is None:
            self.queue(invocation)

    def _work_off(self) -> None:
        """Advance what is ready, for a bounded time, unless too much is ahead of the disk (rule X2)."""
        ready, monotonic, committer, advance = self._ready, self.clock.monotonic, self.committer, self._steps.advance
        began = monotonic()
        until = began + self.settings.pump_budget_us
        while ready and not committer.is_behind():
            invocation = ready.popleft()
            invocation.is_queued = False
            self.suspect = invocation.id
            if invocation.id == self._poisoned:
                self._pause_poisoned(invocation)
            else:
                advance(invocation)
            self.suspect = ""
            ended = monotonic()
            if ended - began > self.settings.slow_advance_us:  # Rule S7
                self._log.slow(invocation, ended - began)
            began = ended
            if ended > until or self.dead:
                return

    def _pause_poisoned(self, invocation: InvocationRun) -> None:
        """Twice the machine has failed at this one. That is our mistake; the others must not suffer for it again."""
        self._poisoned = ""
        error = RuntimeError(
            "the runtime itself failed twice while it advanced this invocation; please report it, with the log"
        )
        self.pauses.pause(self.activations.by_address[invocation.address], invocation, error)

    def _end_round(self) -> None:
        """See whether a batch can go, and whether anything is left."""
        if self.dead:
            return
        self.committer.schedule()
        if self._ready and not self.committer.is_behind():
            self.schedule()
        elif self._idle_waiters:
            self.tell_if_idle()

    # ------------------------------------------------------------------ what its parts ask of it and tell it

    def is_quiet(self) -> bool:
        return not self._ready and not self._pumping

    def caught_up(self) -> None:
        if self.committer.commits == 1:
            self._owner.progressed()
        if self._ready:
            self.schedule()
        self.tell_if_idle()

    def begin(self, activation: Activation, invocation: InvocationRun, /) -> None:
        """Its turn in the mailbox has come; if its deadline has passed meanwhile, it never starts."""
        if invocation.deadline is not None and invocation.deadline <= self.clock.now():
            self._host.call_soon(self._timer_dispatch.never_start, activation, invocation)
        else:
            self.queue(invocation)

    def take_up(self, invocation: InvocationRun, /) -> None:
        self._attempts.take_up(invocation)

    def wake(self, invocation: InvocationRun, /) -> None:
        self._attempts.wake(invocation)

    def suspend(self, invocation: InvocationRun, /) -> None:
        self._attempts.suspend(invocation)

    def time_has_come(self, timer: TimerRecord, /) -> None:
        self._timer_dispatch.time_has_come(timer)

    # ------------------------------------------------------------------ waiting for it

    def is_idle(self) -> bool:
        """Nothing can happen here unless time passes or somebody asks."""
        return self._actions.busy == 0 and self.is_waiting()

    def is_waiting(self) -> bool:
        """Nothing can happen here unless an action ends, time passes or somebody asks."""
        return (
            not self._ready
            and not self._pump_scheduled
            and self.committer.is_settled()
            and not self.committer.writing
            and not (self.activations.loading or self.registry.outstanding or self._scheduled.outstanding)
            and not len(self._background)
        )

    def tell_if_idle(self) -> None:
        """Something has ended, or backs off."""
        if self._idle_waiters and (self.dead or self.is_idle()):
            waiters, self._idle_waiters = self._idle_waiters, []
            for waiter in waiters:
                _resolve(waiter)

    async def until_idle(self) -> None:
        """Wait until nothing can happen unless time passes or somebody asks."""
        while not self.is_idle() and not self.dead:
            waiter: asyncio.Future[None] = self._host.create_future()
            self._idle_waiters.append(waiter)
            await waiter

    async def until_durable(self) -> None:
        """Wait until everything that is in the log now is on disk, and the store is known to be ours (rule X9).

        Raises:
            StoreUnavailableError: it never will be, in this incarnation.
        """
        durable: asyncio.Future[None] = self._host.create_future()
        self._durable_waiters[durable] = None
        self.when_durable(_resolve, durable)
        self.schedule()
        try:
            await durable
        finally:
            self._durable_waiters.pop(durable, None)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
