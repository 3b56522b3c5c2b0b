"""`Harness`: a runtime in memory with virtual time, for tests of actors under any asyncio test runner.

Nothing sleeps: timers move only when the test says so, and then at once. Every invocation is replayed when it ends, and
a difference fails the test; so does a forgotten `await`, and a bug in a handler arrives as its traceback.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from durably.actors.actor import Actor, VirtualObject, Workflow
from durably.actors.definition.definition import definition_of
from durably.actors.headers import ForwardHeaders
from durably.actors.middleware import MiddlewareGiven
from durably.actors.protocol.operations import CallSite, HostOperation
from durably.actors.retry import RetryPolicy
from durably.actors.transport import Outgoing
from durably.actors.values.durations import MICROSECOND, Duration, delay_us, duration_us, shown_duration
from durably.actors.values.serde import SerdeFactory
from durably.errors import RuntimeStoppedError
from durably.runtime.environment import Environment
from durably.runtime.gateway.requests import InvocationRequest, Reply
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.observation.observer import Observer
from durably.runtime.runtime import Limits, PubSub, Runtime
from durably.runtime.settings import Settings
from durably.runtime.supervision.supervisor import Supervisor
from durably.sources import Feed
from durably.storage.connect import store_given
from durably.storage.introspection import InspectableStore
from durably.storage.memory import MemoryStore
from durably.testing.harness.action_patience import PATIENCE_SECONDS, ActionPatience
from durably.testing.harness.conditions import (
    Condition,
    Conditions,
    InvariantError,
    WatchedStore,
    holds,
    name_of,
    plain,
)
from durably.testing.harness.guard import ClockGuard
from durably.testing.harness.inline_consumers import CallWithConsumers, InlineConsumers
from durably.testing.harness.standstill import Standstill, what_comes
from durably.testing.harness.virtual import SeededEntropy, VirtualClock, one_turn
from durably.testing.stores.snapshots import Snapshots

_A_CENTURY_US = 100 * 365 * 86_400 * 1_000_000
_AN_HOUR_US = 3_600 * 1_000_000
_US_PER_SECOND = 1_000_000
_QUIET_TICKS = 10
"""Turns of the test's event loop without anything to do for the runtime, after which it counts as settled."""
R = TypeVar("R")

ONE_ATTEMPT = RetryPolicy(max_attempts=1)


class Harness(Runtime):
    """A `Runtime` on a `MemoryStore` with virtual time.

        async with Harness(Ticket, Cart, dependencies={Payments: FakePayments()}) as app:
            assert await app.object(Cart, "mary").add_ticket("2B")
            await app.crash()
            await app.advance(minutes=15)

    By default each invocation gets one attempt, so that a bug reaches the test as `PausedInvocationError` with the
    handler's error as its cause; give `retry` to test retries. `suspend_after=0` throws every waiting attempt away at
    once, unless its answer comes first. `nothing_resident=True` keeps none: each await replays, and each object is
    loaded again for each message. The same `seed` gives the same ids and random numbers.

    A handler that calls `time.time()`, `datetime.now()`, `uuid4()`, `random.choice()` or the like gets an
    `UnrepeatableCallError` that names what to use instead. What needs them belongs in `ctx.run`; logging and tracing
    may read clocks anywhere, and so may the modules named in `allow`, with all that they call.

    A test that awaits an answer which does not come unless time passes, while no task could call `advance()`, gets
    a `StandstillError` after some seconds, that says what is due and when. Ask with `.send()` or in a task, and then
    advance.

    Inside an action time is real, so that real I/O works; the limits and the backoff of `ctx.run` are virtual time.
    `advance()` waits for each action under way for up to a second of real time, then lets time pass all the same. A
    test that awaits an answer gets a `StandstillError` that names the action, when it has been under way for
    `action_patience` of real time; give more for actions that are slow, such as those that start a server.
    """

    def __init__(
        self,
        *actors: type[Actor],
        dependencies: Mapping[Any, Any] | None = None,
        middleware: Sequence[MiddlewareGiven] = (),
        seed: int = 0,
        retry: RetryPolicy = ONE_ATTEMPT,
        suspend_after: Duration | None = None,
        limits: Limits | None = None,
        pubsub: PubSub | None = None,
        sources: Sequence[Feed] = (),
        store: InspectableStore | str | os.PathLike[str] | None = None,
        allow: Collection[str] = (),
        deadlocks: Literal["error", "wait"] = "error",
        forward_headers: ForwardHeaders | None = None,
        serde: SerdeFactory | None = None,
        nothing_resident: bool = False,
        action_patience: Duration = 10.0,
        consumers: Literal["inline"] | None = None,
    ) -> None:
        if consumers not in (None, "inline"):
            raise ValueError(f'Harness(consumers=...) is "inline", or left out, not {consumers!r}.')
        self._consumers = None if consumers is None else InlineConsumers(self, self)
        self._action_patience_seconds = duration_us(action_patience, "Harness(action_patience=...)") / _US_PER_SECOND
        clock, entropy, ledger = VirtualClock(), SeededEntropy(seed), _Ledger()
        watched = MemoryStore() if store is None else store_given(store)
        if isinstance(watched, MemoryStore):
            watched = WatchedStore(watched, lambda: self._actors, ledger.unheard.append)
        super().__init__(
            watched,
            actors,
            dependencies=dependencies,
            middleware=middleware,
            retry=retry,
            suspend_after=suspend_after,
            limits=limits,
            pubsub=pubsub,
            sources=sources,
            deadlocks=deadlocks,
            forward_headers=forward_headers,
            serde=serde,
            environment=Environment(
                clock=clock,
                entropy=entropy,
                observer=ledger,
                settings=Settings(
                    verify_replay=True,
                    forgotten_await="error",
                    watch=ClockGuard(allow),
                    timer_window_us=_A_CENTURY_US,
                    give_way_us=None,
                    slow_collection_us=None,
                    blocked_advance_us=None,
                    verify_every_us=None,
                    expire_every_us=_AN_HOUR_US,
                    nothing_resident=nothing_resident,
                ),
            ),
        )
        self.clock = clock
        self._seeded = entropy
        self._ledger = ledger
        self._patience = ledger.patience
        self._standstill: Standstill | None = None
        self._passing = asyncio.Lock()
        """Held while time passes: it passes for one `advance` after the other."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        engine = self._supervised().engine
        self._seeded.mix(0 if engine is None else engine.parts.committer.position)
        self._standstill = Standstill(self, self._action_patience_seconds)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._supervisor is not None:
            self._supervised()
        if self._standstill is not None:
            self._standstill.end()
        if self._consumers is not None:
            self._consumers.end()
        try:
            if error is None and self._supervisor is not None:
                await self.settle()
                if isinstance(self._store, WatchedStore):
                    self._store.conditions.at_the_end()
        finally:
            await self._stop()
        if error is None:
            self._raise_unheard()

    async def settle(self) -> None:
        """Let everything happen that can happen without time passing.

        Raises:
            The error that paused an invocation for which no caller outside waits.
            StandstillError: an action was waited for in vain.
        """
        await self._advance(0)

    async def advance(
        self,
        *delay: Duration,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        due: bool = True,
    ) -> None:
        """Let time pass: all that is due meanwhile happens at its time and in order. A bare number is seconds.

        With `due=False` it ends in a tie: what is due at the very moment that is reached has not happened yet. What the
        test asks then comes first, at the same time; `settle()` or another `advance` lets the rest happen.

        Several at once pass one after the other: two tasks that advance by 3 s let 6 s pass.

        Raises:
            As `settle` does.
        """
        self._supervised()
        await self._advance(delay_us("advance", delay, days, hours, minutes, seconds), due=due)

    async def until(self, condition: Condition, /, *, within: Duration = 60.0) -> None:
        """Let time pass, from one moment when something is due to the next, until something is true of the state.

        Raises:
            InvariantError: it is not, when `within` has passed.
        """
        plain(condition)
        deadline_us = self.clock.elapsed_us + duration_us(within, "until(within=...)")
        await self.settle()
        while not holds(condition, self.snapshots):
            left_us = deadline_us - self.clock.elapsed_us
            if left_us <= 0:
                raise InvariantError(
                    f"{name_of(condition)} did not come true within {shown_duration(within)} of virtual time."
                )
            await self.advance(min(self.clock.until_next_us(left_us), left_us) * MICROSECOND)

    def invariant(self, condition: Condition, /) -> None:
        """Something that is true of the durable state now, after every commit from now on, and at the end.

        Raises:
            InvariantError: it is not true now. Later, the next `settle`, `advance` or the end of the test raises it.
        """
        self._conditions().always(condition)
        self._raise_unheard()

    def bounded(self, actor: type[VirtualObject] | type[Workflow], /, *, bytes: int) -> None:
        """The durable state of no object of this class is ever larger, however long it lives."""
        self._conditions().bounded(definition_of(actor).name, bytes)
        self._raise_unheard()

    @property
    def snapshots(self) -> Snapshots:
        """The durable state of all objects."""
        return self._watched().snapshots(self._actors)

    def _conditions(self) -> Conditions:
        return self._watched().conditions

    def _watched(self) -> WatchedStore:
        if not isinstance(self._store, WatchedStore):
            raise TypeError(
                "Conditions and snapshots are of a harness in memory. Leave store= out, or give a MemoryStore."
            )
        return self._store

    async def crash(self) -> None:
        """Lose all that is not durable, actions under way too, as `kill -9` would; then recover from the store."""
        await self._supervised().crash()

    def actions(self, name: str | None = None) -> Sequence[str]:
        """The ledger of `ctx.run`: the name of each attempt of an action, in order; of one name, if given."""
        return [entry for entry in self._ledger.attempts if name is None or entry == name]

    async def advance_to_next(self) -> bool:
        """Let time pass until the next moment when something is due; whether there is one.

        Raises:
            As `settle` does.
        """
        supervisor = self._supervised()
        engine = supervisor.engine
        if engine is None or what_comes(self.clock, engine, supervisor.actions)[0] is not None:
            await self._advance(self.clock.until_next_us(0))
            return True
        return False

    def request_call(self, request: InvocationRequest) -> Awaitable[Reply]:
        answering = super().request_call(request)
        if self._consumers is None or self._is_asked_by_an_action():
            return answering
        return self._consumers.reply(self._running(), answering)

    def _issue_call(self, outgoing: Outgoing[R], site: CallSite, /) -> HostOperation[R]:
        if self._consumers is None or self._is_asked_by_an_action():
            return super()._issue_call(outgoing, site)
        supervisor = self._running()
        gateway = supervisor.gateway
        operation = CallWithConsumers(gateway.pending, outgoing, site, outgoing.decode, self._consumers, supervisor)
        gateway.call(operation, outgoing, outgoing.argument, wire=outgoing.wire)
        return operation

    def _is_asked_by_an_action(self) -> bool:
        """It may be one of a consumer, which cannot wait for itself."""
        return asyncio.current_task() in self._supervised().own_tasks()

    def supervisor_if_running(self) -> Supervisor | None:
        return self._supervisor

    def _running(self) -> Supervisor:
        supervisor = super()._running()
        if self._standstill is not None:
            self._standstill.asked()
        return supervisor

    def _supervised(self) -> Supervisor:
        """The supervisor, if this is the harness's loop (rule D2: a fixture may have been run in another one)."""
        if self._supervisor is None:
            raise RuntimeStoppedError("The harness is not running: use it inside `async with Harness(...) as app:`.")
        return super()._running()

    async def _advance(self, by_us: int, *, due: bool = True) -> None:
        self._supervised()
        async with self._passing:
            await self.clock.advance(by_us, self._settle, due=due)
        self._raise_unheard()
        supervisor = self._supervised()
        if supervisor.engine is not None:
            self._patience.check(supervisor.engine, supervisor.actions)

    async def _settle(self) -> None:
        quiet = 0
        while quiet < _QUIET_TICKS:
            await one_turn()
            supervisor = self._supervised()
            engine = supervisor.engine
            if engine is None:
                quiet = quiet + 1 if supervisor.is_idle() else 0
            elif not engine.parts.idleness.is_waiting():
                quiet = 0
                await engine.parts.idleness.until_waiting()
            elif await self._patience.wait(supervisor.actions):
                quiet = 0
            else:
                quiet += 1

    async def _stop(self) -> None:
        """Stop the runtime. Its limits are virtual time, so time passes where something does not end by itself."""
        if self._supervisor is not None:
            self._supervisor.actions.stop()
        passing = asyncio.ensure_future(self._let_time_pass_for_the_stop())
        try:
            await super().__aexit__(None, None, None)
        finally:
            passing.cancel()
            await asyncio.wait([passing])

    async def _let_time_pass_for_the_stop(self) -> None:
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        while True:
            await asyncio.wait([never], timeout=PATIENCE_SECONDS)
            await self.clock.advance(self._settings.drain_us + self._settings.stop_us, one_turn)

    def _raise_unheard(self) -> None:
        unheard = self._ledger.unheard[:]
        self._ledger.unheard.clear()
        if unheard:
            raise unheard[0]


class _Ledger(Observer):
    """What a test may ask of what has happened."""

    def __init__(self) -> None:
        self.patience = ActionPatience()
        self.attempts: list[str] = []
        """Attempts of actions, by name."""
        self.unheard: list[BaseException] = []
        """What paused invocations that no caller outside waited for."""

    def action_attempt_started(self, id: str, command: int, name: str) -> None:
        self.attempts.append(name)

    def action_attempt_ended(self, id: str, command: int, name: str) -> None:
        self.patience.attempt_ended((id, command))

    def tear_down_failed(self, error: BaseException) -> None:
        self.unheard.append(error)

    def pause_durable(self, invocation: InvocationRun, error: BaseException, heard: bool) -> None:
        if not heard:
            self.unheard.append(error)
