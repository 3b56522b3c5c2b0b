"""`SettingUp`: what factories make for an activation is there before the first attempt on it (scope "activation").

It is made when a handler is first to run, not when an object is loaded: who only looks at an object, or ends what waits
for it, needs none of it. A factory that fails is a failed attempt, with the handler's policy of retries. What was made
is torn down when the activation leaves memory, or when the incarnation is over (rule M2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.ids import Address, InvocationStatus
from durably.runtime.dependencies.made_dependencies import MadeDependencies
from durably.runtime.incarnation.idleness import Idleness
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.lifecycle.retries import Retries
from durably.runtime.registry.registry import InvocationRegistry

WAITS_FOR_OTHERS = (InvocationStatus.PAUSED, InvocationStatus.BACKING_OFF)


class SettingUp:
    """Of the activations of one incarnation."""

    def __init__(
        self,
        by_address: Mapping[Address, Activation],
        incarnation: Incarnation,
        *,
        idleness: Idleness,
        made: MadeDependencies,
        ready: ReadyQueue,
        registry: InvocationRegistry,
        retries: Retries,
    ) -> None:
        self._by_address = by_address
        self._incarnation = incarnation
        self._host = asyncio.get_running_loop()
        self._idleness = idleness
        self._made = made
        self._ready = ready
        self._registry = registry
        self._retries = retries
        self._waiting: dict[Activation, list[InvocationRun]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        idleness.add(self._is_idle)

    def begin(self, invocation: InvocationRun) -> None:
        """Make what its activation needs, then let it be advanced."""
        invocation.is_preparing = True
        activation = invocation.activation
        waiting = self._waiting.get(activation)
        if waiting is not None:
            waiting.append(invocation)
            return
        self._waiting[activation] = [invocation]
        task = self._host.create_task(self._set_up(activation))
        self._tasks.add(task)
        self._made.wait_for(task)
        task.add_done_callback(self._ended)

    def kill(self) -> None:
        """The incarnation is over."""
        for task in self._tasks:
            task.cancel()

    # ------------------------------------------------------------------ inside

    async def _set_up(self, activation: Activation) -> None:
        asked = activation.actor.asked
        assert asked is not None
        failure: BaseException | None = None
        try:
            scope = await self._made.enter(asked, activation.address.key)
            try:
                actor = activation.actor.furnished(scope.values)
            except BaseException:
                self._made.leave(scope)
                raise
            if self._incarnation.dead or self._by_address.get(activation.address) is not activation:
                self._made.leave(scope)  # What it was for has ended meanwhile.
            else:
                activation.actor, activation.made = actor, scope
        except USER_ERRORS as error:
            let_signals_pass(error)
            failure = error
        waiting = self._waiting.pop(activation)
        if not self._incarnation.dead:
            for invocation in waiting:
                self._go_on(invocation, failure)
            self._ready.schedule()

    def _go_on(self, invocation: InvocationRun, failure: BaseException | None) -> None:
        invocation.is_preparing = False
        is_here = self._registry.live.get(invocation.id) is invocation
        if not is_here or invocation.outcome is not None or invocation.status in WAITS_FOR_OTHERS:
            return
        if failure is None:
            self._ready.push(invocation)
        else:
            self._retries.attempt_failed(invocation, failure)

    def _is_idle(self) -> bool:
        return not self._tasks

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._incarnation.fail(error)
        self._idleness.changed()
