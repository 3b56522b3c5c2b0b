"""Promises of workflows: wait, look, complete."""

from __future__ import annotations

from durably.actors.protocol.commands import CompletePromise, GetPromise, PeekPromise
from durably.runtime.commands.command_kind import CommandKind
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.step import Outcome
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.messaging.completions import Completions
from durably.runtime.messaging.messages import KeysFound
from durably.runtime.messaging.promises import Promises, already_completed
from durably.runtime.observation.observer import Observer
from durably.storage.records import CallerRecord

COMPLETED = Outcome(False, b"null")


class GetPromiseCommands(CommandKind[GetPromise]):
    """The completion of the promise is the answer, at once if it has been completed."""

    def __init__(self, promises: Promises, completions: Completions) -> None:
        self._promises = promises
        self._completions = completions

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: GetPromise, found: KeysFound
    ) -> None:
        value = self._promises.value(invocation, command.name)
        if value is not None:
            self._completions.answer(transition, _asker(invocation, number), value)


class PeekPromiseCommands(CommandKind[PeekPromise]):
    """The promise as it is when the step is recorded is the answer (rule S4)."""

    def __init__(self, promises: Promises, completions: Completions) -> None:
        self._promises = promises
        self._completions = completions

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: PeekPromise, found: KeysFound
    ) -> None:
        seen = self._promises.peek(invocation, command.name)
        self._completions.answer(transition, _asker(invocation, number), seen)


class CompletePromiseCommands(CommandKind[CompletePromise]):
    """The answer is whether this was the first completion (rule E5).

    That of an atomic handler is held back until its outcome (rule V6). If another one came first by then, it is told.
    """

    def __init__(self, promises: Promises, completions: Completions, observer: Observer) -> None:
        self._promises = promises
        self._completions = completions
        self._observer = observer

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: CompletePromise, found: KeysFound
    ) -> None:
        refusal = self._promises.refusal(invocation, command.name)
        if refusal is None and invocation.handler.atomic:
            assert invocation.journal is not None
            invocation.journal.held.append((number, command))
        elif refusal is None:
            self._promises.complete(transition, invocation.activation, command)
        self._completions.answer(transition, _asker(invocation, number), COMPLETED if refusal is None else refusal)

    def issue_unawaited(
        self, transition: Transition, invocation: InvocationRun, number: int, command: CompletePromise, found: KeysFound
    ) -> None:
        if command.name not in invocation.activation.promises:
            self._promises.complete(transition, invocation.activation, command)
        else:
            self._observer.undeliverable(invocation, command, already_completed(invocation, command.name))


def _asker(invocation: InvocationRun, number: int) -> CallerRecord:
    return CallerRecord(invocation.address, invocation.number, number)
