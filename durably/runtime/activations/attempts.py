"""`Attempts`: runs of handlers' code, from the moment one is made until it is thrown away.

An invocation is running while this process itself has something to go on with, suspended while it waits for something
durable. One that waits may lose its attempt at any time after its last step is durable, and gets another one, replayed
from its journal, when it is woken (rule L4). Nothing here advances an invocation; it says which are ready.
"""

from __future__ import annotations

import asyncio

from durably.actors.definition.arguments import Decoded
from durably.actors.protocol.coding import CodingMeter
from durably.errors import InvalidArgumentError
from durably.ids import InvocationStatus
from durably.runtime.activations.passivation import Passivation
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.execution import Execution
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.invocations.journal import Journal
from durably.runtime.observation.observer import Observer
from durably.runtime.settings import Settings

RUNNING, SUSPENDED = InvocationStatus.RUNNING, InvocationStatus.SUSPENDED


class Attempts:
    """The attempts of one incarnation."""

    def __init__(
        self,
        *,
        coding: CodingMeter,
        committer: Committer,
        observer: Observer,
        passivation: Passivation,
        ready: ReadyQueue,
        settings: Settings,
    ) -> None:
        self._coding = coding
        self._committer = committer
        self._host = asyncio.get_running_loop()
        self._observer = observer
        self._passivation = passivation
        self._ready = ready
        self._settings = settings

    def make(self, invocation: InvocationRun, arguments: Decoded | InvalidArgumentError | None = None) -> Execution:
        """A fresh attempt, not begun; with its arguments, or why there are none, if they were decoded before."""
        observer, activation = self._observer, invocation.activation
        if observer.detailed:
            observer.invoked(invocation)
        return Execution(
            activation.actor,
            invocation.handler,
            invocation,
            activation.snapshot,
            observer,
            self._settings,
            self._host,
            self._coding,
            arguments,
        )

    def park(self, transition: Transition, invocation: InvocationRun, journal: Journal) -> None:
        """Its step is over and it waits; what it waits for says whether it is running or suspended."""
        if invocation.outcome is not None or invocation.held_step is not None:
            return
        is_running = bool(journal.unanswered or journal.undelivered)
        transition.move(invocation, RUNNING if is_running else SUSPENDED)
        if journal.undelivered:
            self._ready.push(invocation)
        elif not is_running:
            self._passivation.park(invocation)

    def wake(self, transition: Transition, invocation: InvocationRun) -> None:
        """An answer is there."""
        if invocation.status is SUSPENDED:
            transition.move(invocation, RUNNING)
        if invocation.status is RUNNING and invocation.held_step is None:
            self._ready.push_next(invocation)

    def take_up(self, invocation: InvocationRun) -> None:
        """One that had started is back from the store: go on, if there is something to go on with (rule T3)."""
        journal = invocation.journal
        has_news = journal is not None and (journal.undelivered or journal.unanswered)
        if has_news and invocation.status is InvocationStatus.SUSPENDED:
            self.wake(self._committer.begin(), invocation)
        elif invocation.status in (InvocationStatus.RUNNING, InvocationStatus.PENDING) or (
            invocation.load_error is not None and invocation.status is InvocationStatus.SUSPENDED
        ):
            self._ready.push(invocation)  # Also to be paused, if it could not be loaded (rule L5).
