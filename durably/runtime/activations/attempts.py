"""`Attempts`: runs of handlers' code, from the moment one is made until it is thrown away.

An invocation is running while this process itself has something to go on with, suspended while it waits for something
durable. What waits may lose its attempt at any time after its last step is durable, and gets another one, replayed from
its journal, when it is woken (rule L4). Nothing here advances; it says who is ready.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from durably.actors.protocol.commands import Attach, GetStatus, Run, Send
from durably.ids import InvocationStatus
from durably.runtime.activations.activation import Activation
from durably.runtime.activations.activations import Activations
from durably.runtime.commit.committer import Committer
from durably.runtime.execution.execution import Execution
from durably.runtime.invocations.invocation import InvocationRun, Journal
from durably.runtime.observation.logs import RuntimeLogger
from durably.runtime.settings import Settings


class AttemptsOwner(Protocol):
    """Who advances what is ready."""

    def queue(self, invocation: InvocationRun, /) -> None: ...


class Attempts:
    """The attempts of one incarnation."""

    def __init__(
        self,
        owner: AttemptsOwner,
        *,
        committer: Committer,
        log: RuntimeLogger,
        activations: Activations,
        settings: Settings,
    ) -> None:
        self._owner = owner
        self._committer = committer
        self._host = asyncio.get_running_loop()
        self._log = log
        self._activations = activations
        self._settings = settings

    def make(self, activation: Activation, invocation: InvocationRun) -> Execution:
        """A fresh attempt, not begun."""
        if self._log.debug:
            self._log.invoked(invocation)
        return Execution(
            activation.actor,
            invocation.handler,
            invocation,
            activation.snapshot,
            self._log,
            self._settings,
            self._host,
        )

    def park(self, invocation: InvocationRun, journal: Journal) -> None:
        """Its step is over and it waits; what it waits for says what it is."""
        if invocation.outcome is not None or invocation.is_held:
            return
        is_running = bool(journal.unanswered or journal.undelivered)
        invocation.status = InvocationStatus.RUNNING if is_running else InvocationStatus.SUSPENDED
        self._committer.batch.change(invocation)
        if journal.undelivered:
            self._owner.queue(invocation)
        elif not is_running:
            self._activations.park(invocation)

    def wake(self, invocation: InvocationRun) -> None:
        """An answer is there."""
        if invocation.status is InvocationStatus.SUSPENDED:
            invocation.status = InvocationStatus.RUNNING
            self._committer.batch.change(invocation)
        if invocation.status is InvocationStatus.RUNNING and not invocation.is_held:
            self._owner.queue(invocation)

    def take_up(self, invocation: InvocationRun) -> None:
        """One that had started is back from the store: go on, if there is something to go on with (rule T3)."""
        journal = invocation.journal
        if journal is not None:
            for number, command in journal.pending.items():
                if isinstance(command, Run | GetStatus | Attach):
                    journal.unanswered.add(number)
            if invocation.handler.atomic:
                _hold_sends_again(journal)
            if journal.undelivered or journal.unanswered:
                self.wake(invocation)
        if invocation.status is InvocationStatus.RUNNING or (
            invocation.load_error is not None and invocation.status is InvocationStatus.SUSPENDED
        ):
            self._owner.queue(invocation)  # One that could not be loaded is queued to be paused.

    def suspend(self, invocation: InvocationRun) -> None:
        """Throw the attempt away while it waits; it continues from its journal (rule L4)."""
        journal = invocation.journal
        if (
            invocation.execution is None
            or journal is None
            or journal.undelivered
            or journal.unanswered
            or invocation.is_queued
            or invocation.is_held
            or invocation.outcome is not None
            or invocation.position > self._committer.durable
        ):
            return
        self.throw_away(invocation)
        if self._log.debug:
            self._log.suspended(invocation)
        self._activations.passivate(invocation.address)

    def throw_away(self, invocation: InvocationRun) -> None:
        """End the attempt, if there is one; whatever its code still does is ignored (rule D3)."""
        execution = invocation.execution
        if execution is not None:
            invocation.execution = None
            execution.close()
            if invocation.parked_in is not None:
                self._activations.unpark(invocation)


def _hold_sends_again(journal: Journal) -> None:
    """Messages of an atomic handler are not in the store as such: they are found in its steps (rule V6)."""
    number = 0
    for step in journal.steps:
        for command in step.commands:
            if isinstance(command, Send):
                journal.held_sends.append((number, command))
            number += 1
