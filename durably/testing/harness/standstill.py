"""`Standstill`: a test that waits for virtual time which no code lets pass gets an error instead of hanging for ever.

The error is raised where the test waits, and only if nothing else can happen: the test's own task awaits an answer, the
runtime is idle, and no other task of the event loop could call `advance()`. That must stay so for some looks in a row.
While an action is under way something else can happen, since inside an action time is real; so that lasts longer. A
run that moves sees nothing of these looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

from durably.actors.values.durations import EPOCH, MICROSECOND
from durably.errors import DurablyError
from durably.ids import InvocationStatus
from durably.runtime.actions.actions import ActionKey, Actions
from durably.runtime.engine.engine import Engine
from durably.runtime.execution.loop import is_task
from durably.runtime.gateway.pending_requests import PendingRequest
from durably.runtime.inspection.live_facts import LiveFacts
from durably.runtime.inspection.waits import WaitingInvocation, way_of
from durably.runtime.lifecycle.pause_errors import pause_error
from durably.runtime.supervision.supervisor import Supervisor
from durably.testing.harness.virtual import VirtualClock

LOOK_EVERY_SECONDS = 0.35
LOOKS = 7
"""How often it has to look the same: 2.45 s together, which no test uses as its own timeout."""

_MOST_PER_LOOK_SECONDS = 1.0
"""What one look adds to the time that an action has been seen under way: a machine that stood still did not wait."""

_UNITS_US = {"days": 86_400_000_000, "hours": 3_600_000_000, "minutes": 60_000_000}


class StandstillError(DurablyError, AssertionError):
    """A test waits for an answer that does not come unless time passes, and no code lets time pass."""

    def __init__(self, message: str, waits: WaitingInvocation | None = None) -> None:
        super().__init__(message)
        self.waits = waits
        """Why the invocation that was asked for does not go on, as far as memory shows; None: it is not in memory."""


class Watched(Protocol):
    """A harness."""

    @property
    def clock(self) -> VirtualClock: ...
    def supervisor_if_running(self) -> Supervisor | None: ...


class Standstill:
    """Looks after one harness, from its start to its end."""

    def __init__(self, harness: Watched, action_patience_seconds: float) -> None:
        """`action_patience_seconds` is how long an action may be under way, in real time, before it is named."""
        self._harness = harness
        self._action_patience_seconds = action_patience_seconds
        self._loop = asyncio.get_running_loop()
        self._others = asyncio.all_tasks()
        """Tasks of the test runner; they do not know of the harness."""
        self._test: asyncio.Task[Any] | None = asyncio.current_task()
        self._seen: tuple[object, ...] = ()
        self._seen_for_seconds = 0.0
        self._looked_at = self._loop.time()
        self._looks = 0
        self._next = self._loop.call_later(LOOK_EVERY_SECONDS, self._look)

    def asked(self) -> None:
        """Somebody asks the runtime something. If a fixture made the harness, the test is who asks after its end."""
        if self._test is None or self._test.done():
            self._test = asyncio.current_task()

    def end(self) -> None:
        self._next.cancel()

    def _look(self) -> None:
        self._next = self._loop.call_later(LOOK_EVERY_SECONDS, self._look)
        now = self._loop.time()
        since_last_seconds, self._looked_at = min(now - self._looked_at, _MOST_PER_LOOK_SECONDS), now
        supervisor = self._harness.supervisor_if_running()
        if supervisor is None:
            return
        engine = supervisor.engine
        attempts = supervisor.actions.under_way()
        nothing_happens = supervisor.is_idle() if engine is None else engine.parts.idleness.is_waiting()
        operation = self._awaited(supervisor) if nothing_happens else None
        position = None if engine is None else engine.parts.committer.position
        seen = (engine, position, self._harness.clock.now(), operation, attempts)
        if operation is None or seen != self._seen:
            self._seen, self._looks, self._seen_for_seconds = seen, 0, 0.0
            return
        self._looks += 1
        self._seen_for_seconds += since_last_seconds
        if self._looks >= LOOKS and (not attempts or self._seen_for_seconds >= self._action_patience_seconds):
            self._looks = 0
            waits = _waits(self._harness.clock, supervisor, operation)
            sentence = _sentence(self._harness.clock, supervisor, operation, self._seen_for_seconds, waits)
            operation.refuse(StandstillError(sentence, waits))

    def _awaited(self, supervisor: Supervisor) -> PendingRequest[Any] | None:
        """The request that the test waits for, if no other task could let time pass."""
        waiting = {id(operation.future): operation for operation in supervisor.gateway.pending}
        others = asyncio.all_tasks(self._loop) - self._others - supervisor.own_tasks() - {self._test}
        if self._test is None or not all(id(_stands_at(task)) in waiting for task in others):
            return None
        stands_at = _stands_at(self._test)
        found = _awaited_in(stands_at, waiting)
        return _awaited_through(stands_at, waiting, others) if found is None else found


def _stands_at(task: asyncio.Task[Any] | None) -> object:
    """The future that a task awaits. asyncio shows it by this name to its debuggers alone, where it shows it at all."""
    return getattr(task, "_fut_waiter", None)


def _waits(clock: VirtualClock, supervisor: Supervisor, operation: PendingRequest[Any]) -> WaitingInvocation | None:
    engine = supervisor.engine
    invocation = None if engine is None else engine.parts.registry.live.get(operation.id)
    if engine is None or invocation is None:
        return None
    return LiveFacts(engine, supervisor.actions, clock).why(invocation)


def _sentence(
    clock: VirtualClock,
    supervisor: Supervisor,
    operation: PendingRequest[Any],
    under_way_seconds: float,
    waits: WaitingInvocation | None,
) -> str:
    engine, now = supervisor.engine, clock.now()
    if engine is None:
        return (
            f"{operation.what} has not ended: the store failed, and opening it again waits for virtual time. Let time "
            "pass: ask with .send(), or in a task of its own (asyncio.create_task), and then `await "
            "app.advance(seconds=5)`."
        )
    live = engine.parts.registry.live
    invocation = live.get(operation.id)
    what = operation.what
    if invocation is not None and invocation.handler.kind != "service":
        what = f"{invocation.address.service}/{invocation.address.key}/{invocation.handler.name}"
    holding = None if waits is None else next((live.get(one.id) for one in waits.paused()), None)
    if waits is not None and holding is not None:
        return f"{what} has not ended, and nothing happens any more: {way_of(waits)}. {pause_error(holding)}"
    paused = [one for one in engine.parts.registry.live.values() if one.status is InvocationStatus.PAUSED]
    if paused:
        return f"{what} has not ended, and nothing happens any more: it may wait for {paused[0].target}. " + str(
            pause_error(paused[0])
        )
    due, coming = what_comes(clock, engine, supervisor.actions)
    under_way = [name_action(engine, attempt.key, attempt.name) for attempt in supervisor.actions.under_way()]
    has_ended = f"{what} has not ended, and "
    if under_way:
        has_ended = (
            f"{what} has not ended: {' and '.join(under_way)} has been under way for {under_way_seconds:.1f} s of real "
            "time. Inside an action time is real; most likely it waits for something that the test never does. "
        )
        if due is None:
            return has_ended + (
                "If it is only slow, give the harness more patience: Harness(..., action_patience=60). To test what a "
                "handler does then, give it a limit: ctx.run.options(timeout=...)."
            )
    if due is None:
        return (
            f"{has_ended}nothing happens any more: no timer is set either, so this would wait for ever. "
            f"{'It is not in memory' if waits is None else way_of(waits)}. Objects that wait for each other in a "
            'circle, or for themselves, do that if `deadlocks` is "wait".'
        )
    otherwise = "Otherwise nothing" if under_way else "nothing"
    return (
        f"{has_ended}{otherwise} happens any more unless time passes, which it does when the test says so: it is "
        f"{_moment(now)}, and {coming} {_moment(due)}. Ask with .send(), or in a task of its own "
        f"(asyncio.create_task), and then `await app.{_what_lets_pass(due - now)}`."
    )


def _awaited_in(future: object, waiting: Mapping[int, PendingRequest[Any]]) -> PendingRequest[Any] | None:
    """The operation that a future stands for: itself, what a task awaits, or one of several that are gathered."""
    if id(future) in waiting:
        return waiting[id(future)]
    if is_task(future):
        return _awaited_in(_stands_at(future), waiting)
    children: Sequence[object] = getattr(future, "_children", ())
    return next((found for child in children if (found := _awaited_in(child, waiting)) is not None), None)


def _awaited_through(
    future: object, waiting: Mapping[int, PendingRequest[Any]], tasks: AbstractSet[asyncio.Task[Any]]
) -> PendingRequest[Any] | None:
    """The same where asyncio's `wait`, `wait_for`, `shield` or `TaskGroup` made a future that another one will end."""
    if future is None:
        return None
    for one in [*(operation.future for operation in waiting.values()), *tasks]:
        if any(_ends(callback, future) for callback, *_ in getattr(one, "_callbacks", None) or ()):
            return _awaited_in(one, waiting)
    return None


def _ends(callback: Any, future: object) -> bool:
    """This callback ends that future, and no timer of asyncio does. Asyncio has no public way to tell."""
    cells: Sequence[Any] = getattr(callback, "__closure__", None) or ()
    held = [cell.cell_contents for cell in cells if _is_filled(cell)]
    if any(isinstance(one, asyncio.TimerHandle) for one in held):
        return False
    held += getattr(callback, "args", ())
    held.append(getattr(getattr(callback, "__self__", None), "_on_completed_fut", None))
    return any(one is future for one in held)


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def what_comes(clock: VirtualClock, engine: Engine, actions: Actions) -> tuple[int | None, str]:
    """What happens next if time passes, and when: microseconds since 1970 UTC."""
    ahead_us = clock.now() - clock.monotonic()
    due = engine.parts.timers.next_due()
    coming = [] if due is None else [(due, "the next timer is due at")]
    starts_at = engine.parts.named_limits.next_due()
    if starts_at is not None:
        coming.append((starts_at + ahead_us, "a limit lets the next invocation start at"))
    coming += [
        (moment + ahead_us, f"{name_action(engine, key, name)} failed and is tried again at")
        for key, name, moment in actions.backing_off()
    ]
    coming += [
        (attempt.until + ahead_us, f"the time limit of {name_action(engine, attempt.key, attempt.name)} ends at")
        for attempt in actions.under_way()
        if attempt.until is not None
    ]
    return min(coming, default=(None, ""), key=lambda moment: moment[0] or 0)


def name_action(engine: Engine, key: ActionKey, name: str) -> str:
    """An action for people: `the action 'charge' of Checkout/handle`."""
    invocation = engine.parts.registry.live.get(key[0])
    handler = "" if invocation is None else f" of {invocation.handler.service}/{invocation.handler.name}"
    return f"the action {name!r}{handler}"


def _moment(microseconds: int) -> str:
    return str(EPOCH + microseconds * MICROSECOND)


def _what_lets_pass(span_us: int) -> str:
    """As one would write it: `advance(days=2)`."""
    if span_us <= 0:
        return "settle()"
    for unit, unit_us in _UNITS_US.items():
        if span_us % unit_us == 0:
            return f"advance({unit}={span_us // unit_us})"
    return f"advance(seconds={f'{span_us / 1_000_000:.6f}'.rstrip('0').rstrip('.')})"
