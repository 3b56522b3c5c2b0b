"""`Transition`: a set of changes that become durable together, while it is being made. The one way to change anything
durable.

It owns its log position and the way into the open batch, and keeps `changed_at` of every activation that it changes, on
which rule L4 depends. It is filled synchronously, and handed to whatever takes part in it; a
function without a `Transition` among its arguments changes nothing durable, or makes one of its own. No batch is cut
before the callback that makes it has returned (rule X2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from durably.ids import InvocationStatus
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.statuses import LEGAL_MOVES, illegal_move
from durably.storage.records import (
    NO_COMMAND,
    CallerRecord,
    CompletionRecord,
    InvocationRecord,
    OrderRecord,
    PromiseRecord,
    TimerKind,
    TimerRecord,
)

if TYPE_CHECKING:
    from durably.runtime.commit.open_batch import OpenBatch
    from durably.runtime.execution.step import Outcome, Step
    from durably.runtime.invocations.invocation import InvocationRun


class Log(Protocol):
    """The committer, as a transition sees it."""

    batch: OpenBatch
    position: int


class Transition:
    """Its methods are the verbs that records know."""

    __slots__ = ("_batch", "_log", "position")

    def __init__(self, log: Log) -> None:
        """Takes the next position of the log."""
        self._log = log
        self._batch = log.batch
        self.position = log.position = log.position + 1
        log.batch.transitions += 1

    def next_position(self) -> int:
        """A further log position in this transition: for another invocation that it accepts, another answer."""
        log = self._log
        self.position = log.position = log.position + 1
        log.batch.transitions += 1
        return self.position

    # ------------------------------------------------------------------ an invocation's life

    def accept(self, invocation: InvocationRun) -> None:
        """It exists from now on."""
        self._batch.accept(invocation)

    def move(self, invocation: InvocationRun, status: InvocationStatus) -> None:
        """Its status, with its attempts, failure and mailbox position as they now are."""
        assert status in LEGAL_MOVES[invocation.status], illegal_move(invocation, status)
        invocation.status = status
        invocation.position = invocation.activation.changed_at = self.position
        self._batch.change(invocation)

    def step(self, invocation: InvocationRun, index: int, step: Step) -> None:
        """One more step of its journal."""
        invocation.position = invocation.activation.changed_at = self.position
        self._batch.step(invocation.number, index, step)

    def renew(self, invocation: InvocationRun, seed: bytes, argument: bytes) -> None:
        """It goes on in a new execution, under a new number (rule W1): what belonged to the old number goes."""
        running = InvocationStatus.RUNNING
        assert running in LEGAL_MOVES[invocation.status], illegal_move(invocation, running)
        previous = invocation.number
        invocation.number = invocation.position = invocation.activation.changed_at = self.next_position()
        invocation.seed, invocation.argument = seed, argument
        invocation.status = running
        self._batch.renew(invocation, previous)

    def end(self, invocation: InvocationRun, outcome: Outcome, *, expires_at: int | None) -> bool:
        """Its outcome. Its row stays until `expires_at`, or goes at once (None, rule X7); its history goes.

        Returns whether a row of it may be in the store, or on its way there.
        """
        ended = InvocationStatus.COMPLETED
        assert ended in LEGAL_MOVES[invocation.status], illegal_move(invocation, ended)
        invocation.outcome = outcome
        invocation.status = ended
        invocation.expires_at = expires_at
        invocation.activation.changed_at = self.position
        return self._batch.end(invocation, keep=expires_at is not None)

    def fix(self, invocation: InvocationRun, outcome: Outcome, *, expires_at: int | None) -> None:
        """Its outcome is known from now on, whatever its code still does (rule E7)."""
        invocation.fixed, invocation.expires_at = outcome, expires_at
        invocation.position = invocation.activation.changed_at = self.position
        self._batch.change(invocation)

    def remove(self, number: int) -> None:
        """A kept outcome is wanted no longer."""
        self._batch.remove(number)

    def postpone_expiry(self, record: InvocationRecord, until: int) -> None:
        """A kept outcome, in the store only, is looked at again then."""
        self._batch.postpone_expiry(record, until)

    # ------------------------------------------------------------------ answers

    def answer(self, invocation: InvocationRun, command: int, failed: bool, value: bytes) -> None:
        """The answer to a command of an invocation in memory."""
        invocation.activation.changed_at = position = self.next_position()
        self._batch.complete(CompletionRecord(invocation.number, command, position, failed, value))

    def answer_stored(self, caller: CallerRecord, outcome: Outcome, activation: Activation | None) -> None:
        """The answer to a command of an invocation in the store, which can run from now on (rule T3).

        `activation` is its object's, if that is on its way into memory.
        """
        position = self.next_position()
        if activation is not None:
            activation.changed_at = position
        self._batch.complete(CompletionRecord(caller.number, caller.command, position, outcome.failed, outcome.value))
        self._batch.wake(caller.number)

    def attach(self, number: int, caller: CallerRecord) -> None:
        """One more command is answered when the invocation `number` ends."""
        self._batch.attach(number, caller)

    def alias(self, id: str, number: int) -> None:
        """`id` leads to the invocation `number` too (rule C7)."""
        self._batch.alias(id, number)

    # ------------------------------------------------------------------ orders

    def order(self, order: OrderRecord) -> None:
        """An order to another invocation, until it is carried out."""
        self._batch.order(order)

    def order_done(self, position: int) -> None:
        self._batch.order_done(position)

    # ------------------------------------------------------------------ timers and state

    def set_timer(self, timer: TimerRecord) -> None:
        self._batch.set_timer(timer)

    def clear_timer(self, number: int, kind: TimerKind, command: int = NO_COMMAND) -> None:
        self._batch.clear_timer(number, kind, command)

    def keep_promise(self, activation: Activation, promise: PromiseRecord) -> None:
        """A promise is completed, or expires at another time."""
        activation.promises[promise.name] = promise
        activation.changed_at = self.position
        self._batch.keep_promise(promise)

    def vacate(self, activation: Activation) -> None:
        """State and promises of a workflow go (rule W3)."""
        activation.changed_at = self.position
        self._batch.vacate(activation.address, [*activation.snapshot], [*activation.promises])
        activation.snapshot.clear()
        activation.promises.clear()

    def change_state(self, activation: Activation, changes: Mapping[str, bytes | None]) -> None:
        """Changed fields become part of the object's snapshot."""
        snapshot, address, batch = activation.snapshot, activation.address, self._batch
        activation.changed_at = self.position
        for name, value in changes.items():
            if value is None:
                snapshot.pop(name, None)
            else:
                snapshot[name] = value
            batch.set_state(address, name, value)
