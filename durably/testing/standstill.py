"""`Standstill`: a test that waits for virtual time which nobody lets pass is told so, rather than hanging for ever.

It is told where it waits, and only if nothing else can happen: the test's own task awaits an answer, the runtime is
idle, and no other task of the event loop could call `advance()`. That must stay so for some looks in a row. They are
the one thing in a `Harness` that takes real time, and a run that moves sees nothing of them.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from durably.actors.values.durations import EPOCH, MICROSECOND
from durably.errors import DurablyError
from durably.runtime.engine.engine import Engine
from durably.runtime.gateway.pending_requests import PendingRequest
from durably.runtime.supervision.supervisor import Supervisor

LOOK_EVERY_SECONDS = 0.35
LOOKS = 7
"""How often it has to look the same: 2.45 s together, which is nobody's own timeout."""

_UNITS_US = {"days": 86_400_000_000, "hours": 3_600_000_000, "minutes": 60_000_000}


class StandstillError(DurablyError, AssertionError):
    """A test waits for an answer that does not come unless time passes, and nobody lets it pass."""


class Watched(Protocol):
    """A harness."""

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
        engine = None if supervisor is None else supervisor.engine
        if supervisor is None or engine is None or not supervisor.is_idle():
            self._looks = 0
            return
        operation = self._awaited(supervisor)
        seen = (engine, engine.parts.committer.position, engine.clock.now(), operation)
        self._looks = self._looks + 1 if operation is not None and seen == self._seen else 0
        self._seen = seen
        if operation is not None and self._looks >= LOOKS:
            self._looks = 0
            operation.refuse(StandstillError(_sentence(engine, operation)))

    def _awaited(self, supervisor: Supervisor) -> PendingRequest[Any] | None:
        """What the test stands at, if nobody else is there who could let time pass."""
        waiting = {id(operation): operation for operation in supervisor.gateway.pending}
        others = asyncio.all_tasks(self._loop) - self._others - {self._test}
        if self._test is None or not all(id(_stands_at(task)) in waiting for task in others):
            return None
        return waiting.get(id(_stands_at(self._test)))


def _stands_at(task: asyncio.Task[Any] | None) -> object:
    """The future that a task awaits. asyncio shows it by this name to its debuggers alone, where it shows it at all."""
    return getattr(task, "_fut_waiter", None)


def _sentence(engine: Engine, operation: PendingRequest[Any]) -> str:
    invocation = engine.parts.registry.live.get(operation.id)
    what = operation.what
    if invocation is not None and invocation.handler.kind != "service":
        what = f"{invocation.address.service}/{invocation.address.key}/{invocation.handler.name}"
    due = engine.parts.timers.next_due()
    if due is None:
        return (
            f"{what} has not ended, and nothing happens any more: no timer is set either, so this would wait for ever. "
            "Objects that wait for each other in a circle, or for themselves, do that."
        )
    now = engine.clock.now()
    return (
        f"{what} has not ended, and nothing happens any more unless time passes, which it does when the test says so: "
        f"it is {_moment(now)}, and the next timer is due at {_moment(due)}. Ask with .send(), or in a task of its own "
        f"(asyncio.create_task), and then `await app.{_what_lets_pass(due - now)}`."
    )


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
