"""`Continuations`: an invocation ends its execution and begins the next, under the same id (rules T5, W1).

State and messages of the last step, the end of the old number and the new one are one transition. The object stays
held, so nothing runs in between; who waits for the invocation goes on waiting.
"""

from __future__ import annotations

from durably.actors.definition.binding import BoundActorHandler
from durably.actors.protocol.commands import READS, ReadEntries
from durably.actors.values.error_envelopes import encode_failure
from durably.errors import CancelledInvocationError, InvocationStatusError
from durably.ids import Entropy, earliest_time, next_seed
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.step import Delivery, Outcome, Step, is_cancel
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import InvocationRun, throw_away
from durably.runtime.invocations.journal import Journal
from durably.runtime.lifecycle.endings import Endings
from durably.runtime.limits.named_limits import NamedLimits
from durably.runtime.messaging.messages import KeysFound
from durably.runtime.messaging.signals import Signals
from durably.runtime.observation.observer import Observer
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.registry.waiters import Waiters
from durably.runtime.timers.timer_service import TimerService
from durably.storage.records import TimerKind

BAD_REQUEST = 400


class Continuations:
    """`ctx.continue_as_new()`, and the restart of what is paused."""

    def __init__(
        self,
        *,
        committer: Committer,
        endings: Endings,
        entropy: Entropy,
        named_limits: NamedLimits,
        observer: Observer,
        ready: ReadyQueue,
        registry: InvocationRegistry,
        signals: Signals,
        timers: TimerService,
        waiters: Waiters,
    ) -> None:
        self._committer = committer
        self._endings = endings
        self._entropy = entropy
        self._named_limits = named_limits
        self._observer = observer
        self._ready = ready
        self._registry = registry
        self._signals = signals
        self._timers = timers
        self._waiters = waiters

    def outcome_instead(self, invocation: InvocationRun, last: Step) -> Outcome | None:
        """What an invocation ends with that would go on after this step, and may not: None if it may.

        Its outcome is fixed already (rule E7), or a cancel has come for it that the step has not seen (rule E1).
        """
        if invocation.fixed is not None:
            return invocation.fixed
        if any(map(is_cancel, _unseen(invocation, last))):
            return Outcome(True, encode_failure(CancelledInvocationError("The invocation was cancelled.")))
        return None

    def continue_as_new(self, transition: Transition, invocation: InvocationRun, last: Step, found: KeysFound) -> None:
        """Goes on as its handler asked with this step. Calls under way are abandoned; their answers are dropped."""
        assert last.continues_with is not None
        left = self._endings.take_last_step(transition, invocation, last, found, drops=False)
        throw_away(invocation)
        invocation.sent_before = invocation.has_sent()
        if invocation.journal is not None:
            self._endings.withdraw_pending(invocation, invocation.journal)
            self._signals.give_back_unseen(transition, invocation, _unseen(invocation, last))
        self._renew(transition, invocation, last.continues_with, last.at)
        self._endings.cancel_left(transition, left)
        self._ready.push(invocation)

    def refusal(
        self, id: str, handler: BoundActorHandler, journal: Journal | None, from_step: int
    ) -> InvocationStatusError | None:
        """Why an invocation cannot begin anew from this step, if it cannot (rule W2)."""
        if not from_step:
            return None
        steps = [] if journal is None else journal.steps
        if from_step > len(steps) or from_step < 0:
            return cannot_begin_from(id, from_step, f"it has {len(steps)} steps")
        if handler.atomic:
            return cannot_begin_from(id, from_step, "its handler is atomic, so its steps have sent nothing yet")
        if any(number < 0 for step in steps[:from_step] for number in step.deliveries):
            return cannot_begin_from(id, from_step, "a cancel was taken in before")
        assert journal is not None
        pending = journal.cut(from_step).pending.values()
        missing = [command for command in pending if not isinstance(command, READS)]
        if missing:  # Reads are done again.
            kinds = ", ".join(type(command).__name__ for command in missing)
            return cannot_begin_from(id, from_step, f"there it waits for what has not come yet ({kinds})")
        return None

    def restart(self, invocation: InvocationRun, from_step: int = 0) -> None:
        """Begin one that is paused anew: its id and its callers stay, its journal goes from this step on (rule W2).

        From a later step than the first the answers that have come to the commands before it stay, too.

        What its steps changed of the state is dropped, since it begins on the state as it first saw it (rule V4). What
        they sent and did stands; calls under way are abandoned. The signals that they took come again.
        """
        transition = self._committer.begin()
        invocation.sent_before = invocation.has_sent()
        journal, kept = invocation.journal, None
        not_before, earlier = earliest_time(invocation.seed), invocation.seed
        if journal is not None:
            not_before = max(not_before, journal.not_before)
            kept = journal.cut(from_step) if from_step else None
            self._endings.withdraw_pending(invocation, journal)
            self._signals.give_back_all(transition, invocation, journal, 0 if kept is None else kept.next_command)
        invocation.attempts, invocation.failing_since, invocation.failure = 0, None, None
        invocation.paused_error = None
        self._renew(transition, invocation, invocation.argument, not_before, steps=from_step, earlier=earlier)
        if kept is not None:
            self.keep(transition, invocation, kept)
        self._ready.push(invocation)

    def keep(self, transition: Transition, invocation: InvocationRun, kept: Journal) -> None:
        """The new execution begins with these steps, and with answers that no step has taken in."""
        invocation.journal = kept
        for index, step in enumerate(kept.steps):
            transition.step(invocation, index, step, kept.version_from(index), kept.undoing_at(index))
        commands = [command for step in kept.steps for command in step.commands]
        for delivery in (*kept.deliveries.values(), *kept.undelivered):
            if invocation.is_exclusive and isinstance(commands[delivery.command], ReadEntries):
                continue  # Rule V7
            transition.answer(invocation, delivery.command, delivery.failed, delivery.value)

    # ------------------------------------------------------------------ inside

    def _renew(
        self,
        transition: Transition,
        invocation: InvocationRun,
        argument: bytes,
        not_before: int,
        *,
        steps: int = 0,
        earlier: bytes = b"",
    ) -> None:
        """The old number ends, and the new one begins."""
        activation, previous = invocation.activation, invocation.number
        invocation.journal = None
        if invocation.deadline is not None:
            self._timers.forget(previous, TimerKind.DEADLINE)
        transition.renew(invocation, next_seed(self._entropy, not_before, steps=steps, earlier=earlier), argument)
        if activation.shared.pop(previous, None) is not None:
            activation.shared[invocation.number] = invocation
        if self._named_limits.is_used:
            self._named_limits.renewed(transition, invocation, previous)
        self._registry.note_end(previous)
        self._waiters.move(previous, invocation.number)
        if invocation.deadline is not None:
            self._timers.set(transition, invocation, TimerKind.DEADLINE, invocation.deadline)
        if self._observer.detailed:
            self._observer.continued(invocation, previous)


def _unseen(invocation: InvocationRun, last: Step) -> list[Delivery]:
    """What has come for an invocation and its handler has not seen, in order: it ended before, or had given that up."""
    if invocation.journal is None:
        return []
    seen = set(last.deliveries).difference(last.abandoned)
    return [delivery for delivery in invocation.journal.undelivered if delivery.command not in seen]


def cannot_begin_from(id: str, step: int, why: str) -> InvocationStatusError:
    return InvocationStatusError(f"The invocation '{id}' cannot begin anew from step {step}: {why}.", code=BAD_REQUEST)
