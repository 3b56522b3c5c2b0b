"""Awakeables and signals: waiting for what others send by name, and sending it."""

from __future__ import annotations

from durably.actors.protocol.commands import AwaitSignal, CompleteAwakeable, MakeAwakeable, SendSignal
from durably.actors.values.error_envelopes import encode_failure
from durably.errors import TerminalError
from durably.ids import awakeable_id, parse_awakeable_id
from durably.runtime.commands.command_kind import CommandKind
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.step import Outcome
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.messaging.completions import Completions
from durably.runtime.messaging.messages import KeysFound
from durably.runtime.messaging.signals import Signals
from durably.runtime.observation.observer import Observer
from durably.runtime.registry.registry import InvocationRegistry
from durably.storage.records import CallerRecord

DONE = Outcome(False, b"null")


class MakeAwakeableCommands(CommandKind[MakeAwakeable]):
    """What somebody sends to its id is the answer (rule E5)."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: MakeAwakeable, found: KeysFound
    ) -> None:
        name = awakeable_id(invocation.id, invocation.seed, number)
        self._signals.take(transition, invocation, number, name)


class AwaitSignalCommands(CommandKind[AwaitSignal]):
    """The next signal of its name is the answer. One that is given up takes none (rule C5)."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: AwaitSignal, found: KeysFound
    ) -> None:
        self._signals.take(transition, invocation, number, command.name)


class CompleteAwakeableCommands(CommandKind[CompleteAwakeable]):
    """Resolves or rejects; the sender does not learn if it was first. An atomic handler's waits for its outcome."""

    def __init__(self, signals: Signals, registry: InvocationRegistry) -> None:
        self._signals = signals
        self._registry = registry

    def is_answered(self, invocation: InvocationRun, command: CompleteAwakeable) -> bool:
        return False

    def issue(
        self,
        transition: Transition,
        invocation: InvocationRun,
        number: int,
        command: CompleteAwakeable,
        found: KeysFound,
    ) -> None:
        if invocation.handler.atomic:
            assert invocation.journal is not None
            invocation.journal.held_back.append((number, command))  # Rule V6
        else:
            self.issue_unawaited(transition, invocation, number, command, found)

    def issue_unawaited(
        self,
        transition: Transition,
        invocation: InvocationRun,
        number: int,
        command: CompleteAwakeable,
        found: KeysFound,
    ) -> None:
        awakeable = parse_awakeable_id(command.id)
        if awakeable is not None:
            target = self._registry.known_by_now(awakeable.invocation_id, found.get(awakeable.invocation_id))
            self._signals.complete(transition, awakeable, target, Outcome(command.failed, command.value))


class SendSignalCommands(CommandKind[SendSignal]):
    """A signal to another invocation, or to its own; the answer says whether it was taken in."""

    def __init__(
        self, signals: Signals, completions: Completions, observer: Observer, registry: InvocationRegistry
    ) -> None:
        self._signals = signals
        self._completions = completions
        self._observer = observer
        self._registry = registry

    def is_answered(self, invocation: InvocationRun, command: SendSignal) -> bool:
        return not invocation.handler.atomic

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: SendSignal, found: KeysFound
    ) -> None:
        if invocation.handler.atomic:
            assert invocation.journal is not None
            invocation.journal.held_back.append((number, command))  # Rule V6
            return
        error = self._send(transition, command, found)
        answer = DONE if error is None else Outcome(True, encode_failure(error))
        self._completions.answer(transition, CallerRecord(invocation.address, invocation.number, number), answer)

    def issue_unawaited(
        self, transition: Transition, invocation: InvocationRun, number: int, command: SendSignal, found: KeysFound
    ) -> None:
        error = self._send(transition, command, found)
        if error is not None:
            self._observer.undeliverable(invocation, command, error)

    def _send(self, transition: Transition, command: SendSignal, found: KeysFound) -> TerminalError | None:
        id = command.invocation_id
        target = self._registry.known_by_now(id, found.get(id))
        return self._signals.send(transition, id, target, command.name, Outcome(command.failed, command.value))
