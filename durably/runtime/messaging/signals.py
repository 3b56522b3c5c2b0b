"""`Signals`: what comes for an invocation by name, from any sender with its id: signals, and values for awakeables.

What comes is recorded in the transition of its sender, or in one of its own (rule C2), wherever the invocation is: in
memory, on its way there, or in the store only. If a command waits for it, it is the command's answer at once; otherwise
it waits as a record until a command asks for it. The n-th command of a name takes the n-th signal of that name. Of what
comes for an awakeable the first counts, and the rest is ignored (rule E5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from durably.actors.protocol.commands import AwaitSignal, MakeAwakeable
from durably.errors import InvocationStatusError, TerminalError, UnknownTargetError
from durably.ids import AWAKEABLE_PREFIX, AwakeableId, InvocationStatus, awakeable_id, parse_awakeable_id
from durably.runtime.activations.activations import Activations
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.step import Delivery, Outcome
from durably.runtime.invocations.invocation import Found, InvocationRun
from durably.runtime.invocations.journal import Journal
from durably.runtime.messaging.completions import Completions
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.timers.scheduled_messages import ScheduledMessages
from durably.storage.records import InvocationRecord, SignalRecord

NOT_STARTED = (InvocationStatus.SCHEDULED, InvocationStatus.PENDING)


class Signals:
    """The signals of one incarnation."""

    def __init__(
        self,
        *,
        activations: Activations,
        committer: Committer,
        completions: Completions,
        registry: InvocationRegistry,
        scheduled: ScheduledMessages,
    ) -> None:
        self._activations = activations
        self._committer = committer
        self._completions = completions
        self._registry = registry
        self._scheduled = scheduled

    # ------------------------------------------------------------------ sending

    def complete(self, transition: Transition, awakeable: AwakeableId, target: Found, outcome: Outcome) -> None:
        """Supply what an awakeable waits for, if `target` is its invocation and goes on (rule E5)."""
        if target is None or _has_ended(target) or not awakeable.is_of(target.seed):
            return
        name = awakeable_id(target.id, target.seed, awakeable.command)
        if not self._is_in_memory(target):
            self._store(transition, target, name, outcome)
            return
        journal = target.journal
        if journal is not None and isinstance(journal.pending.get(awakeable.command), MakeAwakeable):
            self._completions.complete(transition, target, awakeable.command, outcome.failed, outcome.value)
        elif (journal is None or awakeable.command >= journal.next_command) and not _has_come(target, name):
            self._keep(transition, target, name, outcome)

    def send(self, transition: Transition, id: str, target: Found, name: str, outcome: Outcome) -> TerminalError | None:
        """Send a signal; why it could not be, if so. `target` is what `id` stands for."""
        if target is None:
            return UnknownTargetError(
                f"There is no invocation {id} that could take the signal {name!r}, or its outcome is no longer kept."
            )
        if _has_ended(target):
            return InvocationStatusError(
                f"Invocation {id} has ended, so nothing will take the signal {name!r} any more."
            )
        if not self._is_in_memory(target):
            self._store(transition, target, name, outcome)
            return None
        waiting = self._waiting(target, name)
        if waiting is None:
            self._keep(transition, target, name, outcome)
        else:
            self._completions.complete(transition, target, waiting, outcome.failed, outcome.value)
        return None

    # ------------------------------------------------------------------ taking

    def take(self, transition: Transition, invocation: InvocationRun, number: int, name: str) -> None:
        """A command waits for what is called so from now on: if it is there already, this is its answer."""
        found = next((signal for signal in invocation.signals if signal.name == name), None)
        if found is not None:
            self._forget(transition, invocation, found)
            self._completions.complete(transition, invocation, number, found.failed, found.value)

    def give_back(self, transition: Transition, invocation: InvocationRun, number: int) -> None:
        """A command was given up. If a signal had answered it that its handler never saw, the next one takes that."""
        journal = invocation.journal
        unseen = None if journal is None else journal.unseen_signal(number)
        if unseen is None:
            return
        name, delivery = unseen
        waiting, outcome = self._waiting(invocation, name), Outcome(delivery.failed, delivery.value)
        if waiting is not None:
            self._completions.complete(transition, invocation, waiting, outcome.failed, outcome.value)
        else:
            self._put_first(transition, invocation, name, outcome)

    def _put_first(self, transition: Transition, invocation: InvocationRun, name: str, outcome: Outcome) -> None:
        """What waits came later."""
        first = min((signal.position for signal in invocation.signals), default=transition.position)
        signal = transition.signal(invocation.number, name, outcome, invocation.activation, first - 1)
        invocation.signals = (signal, *invocation.signals)

    def give_back_unseen(self, transition: Transition, invocation: InvocationRun, unseen: Sequence[Delivery]) -> None:
        """Its execution ends, and the next one takes the signals among what its handler has not seen (rule W1)."""
        for delivery in reversed(unseen):  # Each goes to the front.
            self.give_back(transition, invocation, delivery.command)

    def give_back_all(self, transition: Transition, invocation: InvocationRun, journal: Journal, first: int) -> None:
        """The commands from this one on are to be as if they had not been: the signals that they took come again."""
        for name, delivery in reversed(journal.signals_taken(first)):
            self._put_first(transition, invocation, name, Outcome(delivery.failed, delivery.value))

    def settle(self, invocation: InvocationRun) -> None:
        """It is back from the store, with what came for it there: give its commands what they wait for."""
        journal = invocation.journal
        if journal is None or not invocation.signals or invocation.load_error is not None:
            return
        transition = self._committer.begin()
        for signal in invocation.signals:
            number = self._waiting(invocation, signal.name)
            if number is not None:
                self._forget(transition, invocation, signal)
                self._completions.complete(transition, invocation, number, signal.failed, signal.value)
            elif self._is_late(invocation, signal):
                self._forget(transition, invocation, signal)
        if not journal.undelivered and not journal.unanswered:
            self._rest(transition, invocation)

    def _rest(self, transition: Transition, invocation: InvocationRun) -> None:
        """What came was not for a command that waits: it was brought into memory for nothing, and need not run."""
        if invocation.status in (InvocationStatus.RUNNING, InvocationStatus.SUSPENDED):
            transition.move(invocation, InvocationStatus.SUSPENDED)  # Its row may have been woken.

    # ------------------------------------------------------------------ inside

    def _is_in_memory(self, target: InvocationRun | InvocationRecord) -> TypeGuard[InvocationRun]:
        """Its journal is: not one that has left meanwhile, or whose journal is too large to be loaded (rule L5)."""
        return (
            isinstance(target, InvocationRun)
            and target.load_error is None
            and self._registry.live.get(target.id) is target
        )

    def _keep(self, transition: Transition, target: InvocationRun, name: str, outcome: Outcome) -> None:
        target.signals += (transition.signal(target.number, name, outcome, target.activation),)

    def _store(
        self, transition: Transition, target: InvocationRun | InvocationRecord, name: str, outcome: Outcome
    ) -> None:
        """The invocation is in the store only. If something may wait there, it has to be brought into memory."""
        address, number = target.address, target.number
        is_waiting = target.status is InvocationStatus.SUSPENDED
        activation = self._activations.by_address.get(address)
        if activation is None and is_waiting and self._activations.hosts(address):
            activation = self._activations.activation(address)
        signal = transition.signal(number, name, outcome, activation)
        if target.status not in NOT_STARTED:
            transition.wake(number)
        elif self._scheduled.signal(signal):
            return
        if activation is not None and activation.load_buffer is not None:
            activation.load_buffer.signals.append(signal)

    def _waiting(self, invocation: InvocationRun, name: str) -> int | None:
        """The oldest command that waits for what is called so."""
        journal = invocation.journal
        if journal is None:
            return None
        awakeable = parse_awakeable_id(name) if name.startswith(AWAKEABLE_PREFIX) else None
        if awakeable is not None:
            is_pending = isinstance(journal.pending.get(awakeable.command), MakeAwakeable)
            return awakeable.command if is_pending and awakeable.is_of(invocation.seed) else None
        for number, command in journal.pending.items():
            if isinstance(command, AwaitSignal) and command.name == name:
                return number
        return None

    def _is_late(self, invocation: InvocationRun, signal: SignalRecord) -> bool:
        """It is for an awakeable that has been answered, or that nothing of this execution will ever ask for."""
        parsed = parse_awakeable_id(signal.name)
        journal = invocation.journal
        if parsed is None or journal is None:
            return False
        return parsed.command < journal.next_command or not parsed.is_of(invocation.seed)

    def _forget(self, transition: Transition, invocation: InvocationRun, signal: SignalRecord) -> None:
        invocation.signals = tuple(one for one in invocation.signals if one.position != signal.position)
        transition.take_signal(invocation, signal)


def _has_come(target: InvocationRun, name: str) -> bool:
    return any(signal.name == name for signal in target.signals)


def _has_ended(target: InvocationRun | InvocationRecord) -> bool:
    return target.outcome is not None or target.status is InvocationStatus.COMPLETED
