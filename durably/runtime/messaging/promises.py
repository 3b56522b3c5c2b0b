"""`Promises`: the promises of workflows, and who waits for them.

A completed promise is a record of the workflow's object, loaded with it. Who waits for one is found among the pending
commands of its handlers, all of which are in memory with the object, so waiting leaves no record of its own. The first
completion in log order counts (rule E5).
"""

from __future__ import annotations

from durably.actors.promises import PEEKED
from durably.actors.protocol.commands import CompletePromise, GetPromise
from durably.actors.values.error_envelopes import encode_failure
from durably.errors import AlreadyCompletedError, TerminalError
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.step import Outcome
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.messaging.completions import Completions
from durably.runtime.messaging.targets import Targets
from durably.storage.records import PromiseRecord

NOT_COMPLETED = Outcome(False, b"-")
"""The answer to a look at a promise that is not completed."""
GONE_CODE = 410


class Promises:
    """Completes promises, and answers those who wait for them."""

    def __init__(self, *, clock: Clock, committer: Committer, completions: Completions, targets: Targets) -> None:
        self._clock = clock
        self._committer = committer
        self._completions = completions
        self._targets = targets

    def value(self, invocation: InvocationRun, name: str) -> Outcome | None:
        """What a handler sees of a promise: its own completions too, when they are held back (rule V6)."""
        held = _held(invocation, name)
        if held is not None:
            return Outcome(held.failed, held.value)
        activation = invocation.activation
        kept = activation.promises.get(name)
        if kept is not None:
            return Outcome(kept.failed, kept.value)
        is_going = activation.expiring is not None or activation.is_being_emptied
        return _gone(activation, name) if is_going else None

    def peek(self, invocation: InvocationRun, name: str) -> Outcome:
        """What a handler sees that does not wait."""
        seen = _held(invocation, name) or invocation.activation.promises.get(name)
        if seen is None:
            return NOT_COMPLETED
        return Outcome(True, seen.value) if seen.failed else Outcome(False, PEEKED + seen.value)

    def refusal(self, invocation: InvocationRun, name: str) -> Outcome | None:
        """Why a promise cannot be completed any more; None: it can."""
        if name not in invocation.activation.promises and _held(invocation, name) is None:
            return None
        return Outcome(True, encode_failure(already_completed(invocation, name)))

    def complete(self, transition: Transition, activation: Activation, command: CompletePromise) -> None:
        """It is completed from now on, and those who wait for it are answered.

        While the `run` of the workflow is in memory and has not ended, that one's end decides how long it is kept. In
        all other cases the `run` may never come, so the promise has a time limit of its own (rule W3).
        """
        is_run_under_way = activation.current is not None or activation.mailbox
        retention_us = self._targets.run_retention_us(activation.address.service)
        expires_at = None if is_run_under_way else self._clock.now() + retention_us
        transition.keep_promise(
            activation, PromiseRecord(activation.address, command.name, command.failed, command.value, expires_at)
        )
        self._answer(transition, activation, command.name, Outcome(command.failed, command.value))

    def give_up(self, transition: Transition, activation: Activation) -> None:
        """The retention of the workflow is over: who still waits for a promise of it waits in vain (rule W3)."""
        for invocation in activation.started():
            for name in _awaited(invocation):
                self._answer(transition, activation, name, _gone(activation, name))

    def look_at_loaded(self, activation: Activation) -> None:
        """An object has come from the store. Handlers that could not be loaded before may wait for what is there."""
        if not activation.promises:
            return
        for invocation in activation.started():
            for name in _awaited(invocation):
                kept = activation.promises.get(name)
                if kept is not None:
                    self._answer(self._committer.begin(), activation, name, Outcome(kept.failed, kept.value))

    def _answer(self, transition: Transition, activation: Activation, name: str, outcome: Outcome) -> None:
        for invocation in activation.started():
            journal = invocation.journal
            if journal is None:
                continue
            waiting = [
                number
                for number, command in journal.pending.items()
                if isinstance(command, GetPromise) and command.name == name
            ]
            for number in waiting:
                self._completions.complete(transition, invocation, number, outcome.failed, outcome.value)


def already_completed(invocation: InvocationRun, name: str) -> AlreadyCompletedError:
    """What the loser hears who completes a promise."""
    service, id = invocation.address
    return AlreadyCompletedError(
        f"promise was already completed: {name!r} of {service}/{id} has its value, and the first completion counts. "
        "Peek at the promise to see it."
    )


def _gone(activation: Activation, name: str) -> Outcome:
    service, id = activation.address
    error = TerminalError(
        f"The promise {name!r} of {service}/{id} was not completed before the retention of the workflow ended, so "
        "nothing will complete it.",
        code=GONE_CODE,
    )
    return Outcome(True, encode_failure(error))


def _awaited(invocation: InvocationRun) -> list[str]:
    """The names of the promises that it waits for."""
    pending = () if invocation.journal is None else invocation.journal.pending.values()
    return list(dict.fromkeys(command.name for command in pending if isinstance(command, GetPromise)))


def _held(invocation: InvocationRun, name: str) -> CompletePromise | None:
    """The completion of this promise that an atomic handler holds back."""
    held = () if invocation.journal is None else invocation.journal.held_back
    return next((one for _, one in held if isinstance(one, CompletePromise) and one.name == name), None)
