"""`Standstill`: a test that waits for virtual time which nobody lets pass gets an error, rather than hanging for ever.

The error is raised where the test waits, and only if nothing else can happen: the test's own task awaits an answer, the
runtime is idle, and no other task of the event loop could call `advance()`. That must stay so for some looks in a row.
While an action is under way something else can happen, since inside an action time is real; so that lasts longer. A
run that moves sees nothing of these looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from durably.actors.values.durations import EPOCH, MICROSECOND
from durably.errors import DurablyError
from durably.ids import InvocationStatus
from durably.runtime.actions.actions import ActionKey, Actions
from durably.runtime.engine.engine import Engine
from durably.runtime.execution.loop import is_task
from durably.runtime.gateway.pending_requests import PendingRequest
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.lifecycle.pause_errors import pause_error
from durably.runtime.lifecycle.wait_graph import way_down
from durably.runtime.supervision.supervisor import Supervisor
from durably.testing.harness.virtual import VirtualClock

LOOK_EVERY_SECONDS = 0.35
LOOKS = 7
"""How often it has to look the same: 2.45 s together, which is nobody's own timeout."""

ACTION_PATIENCE_SECONDS = 30.0
"""How long an action may be under way, in real time, before the test that waits for it is told."""

_UNITS_US = {"days": 86_400_000_000, "hours": 3_600_000_000, "minutes": 60_000_000}


class StandstillError(DurablyError, AssertionError):
    """A test waits for an answer that does not come unless time passes, and nobody lets it pass."""


class Watched(Protocol):
    """A harness."""

    @property
    def clock(self) -> VirtualClock: ...
    def supervisor_if_running(self) -> Supervisor | None: ...


class Standstill:
    """Looks after one harness, from its start to its end."""

    def __init__(self, harness: Watched) -> None:
        self._harness = harness
        self._loop = asyncio.get_running_loop()
        self._others = asyncio.all_tasks()
        """Those of whoever runs the tests; they do not know of the harness."""
        self._test: asyncio.Task[Any] | None = asyncio.current_task()
        self._seen: tuple[object, ...] = ()
        self._seen_since = 0.0
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
            self._seen, self._looks, self._seen_since = seen, 0, self._loop.time()
            return
        self._looks += 1
        if self._looks >= LOOKS and (not attempts or self._loop.time() - self._seen_since >= ACTION_PATIENCE_SECONDS):
            self._looks = 0
            operation.refuse(StandstillError(_sentence(self._harness.clock, supervisor, operation)))

    def _awaited(self, supervisor: Supervisor) -> PendingRequest[Any] | None:
        """What the test stands at, if nobody else is there who could let time pass."""
        waiting = {id(operation.future): operation for operation in supervisor.gateway.pending}
        others = asyncio.all_tasks(self._loop) - self._others - supervisor.own_tasks() - {self._test}
        if self._test is None or not all(id(_stands_at(task)) in waiting for task in others):
            return None
        return _awaited_in(_stands_at(self._test), waiting)


def _stands_at(task: asyncio.Task[Any] | None) -> object:
    """The future that a task awaits. asyncio shows it by this name to its debuggers alone, where it shows it at all."""
    return getattr(task, "_fut_waiter", None)


def _sentence(clock: VirtualClock, supervisor: Supervisor, operation: PendingRequest[Any]) -> str:
    engine, now = supervisor.engine, clock.now()
    if engine is None:
        return (
            f"{operation.what} has not ended: the store failed, and opening it again waits for virtual time. Let time "
            "pass: ask with .send(), or in a task of its own (asyncio.create_task), and then `await "
            "app.advance(seconds=5)`."
        )
    invocation = engine.parts.registry.live.get(operation.id)
    what = operation.what
    if invocation is not None and invocation.handler.kind != "service":
        what = f"{invocation.address.service}/{invocation.address.key}/{invocation.handler.name}"
    way = None if invocation is None else way_down(engine.parts.wait_graph, invocation)
    if way is not None and isinstance(way.end, InvocationRun) and way.end.status is InvocationStatus.PAUSED:
        return f"{what} has not ended, and nothing happens any more: {way.text}. {pause_error(way.end)}"
    paused = [one for one in engine.parts.registry.live.values() if one.status is InvocationStatus.PAUSED]
    if paused:
        return f"{what} has not ended, and nothing happens any more: it may wait for {paused[0].target}. " + str(
            pause_error(paused[0])
        )
    due, coming = _what_comes(clock, engine, supervisor.actions)
    under_way = [name_action(engine, attempt.key, attempt.name) for attempt in supervisor.actions.under_way()]
    has_ended = f"{what} has not ended, and "
    if under_way:
        has_ended = (
            f"{what} has not ended: {' and '.join(under_way)} is under way, for at least {ACTION_PATIENCE_SECONDS:g} s "
            "of real time. Inside an action time is real; most likely it waits for something that the test never does. "
        )
        if due is None:
            return has_ended + "To test what a handler does then, give it a limit: ctx.run.options(timeout=...)."
    if due is None:
        return (
            f"{has_ended}nothing happens any more: no timer is set either, so this would wait for ever. "
            f"{'It is not in memory' if way is None else way.text}. Objects that wait for each other in a circle, or "
            'for themselves, do that if `deadlocks` is "wait".'
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


def _what_comes(clock: VirtualClock, engine: Engine, actions: Actions) -> tuple[int | None, str]:
    """What happens next if time passes, and when: microseconds since 1970 UTC."""
    ahead_us = clock.now() - clock.monotonic()
    due = engine.parts.timers.next_due()
    coming = [] if due is None else [(due, "the next timer is due at")]
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
