"""`Completions`: the answers to commands, from callees, from other invocations, from timers and actions.

An answer is a record of the invocation that asked, made in the same transition as what it follows from (rule C2),
whether the asker is in memory, on its way there, or in the store only. The first answer counts; what no command waits
for is ignored (rule C3).
"""

from __future__ import annotations

from durably.runtime.activations.activations import Activations
from durably.runtime.activations.attempts import Attempts
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.step import Delivery, Outcome
from durably.runtime.invocations.invocation import InvocationRun
from durably.storage.records import CallerRecord


class Completions:
    """Answers commands, wherever the invocation that issued them is."""

    def __init__(self, *, activations: Activations, attempts: Attempts) -> None:
        self._activations = activations
        self._attempts = attempts

    def answer(self, transition: Transition, caller: CallerRecord, outcome: Outcome) -> None:
        """Answer a command of an invocation that may be anywhere."""
        if not self._activations.hosts(caller.address):  # Its class is gone; the answer waits until it is back.
            transition.answer_stored(caller, outcome, None)
            return
        activation = self._activations.activation(caller.address)
        if activation.load_buffer is None:
            invocation = activation.find(caller.number)
            if invocation is not None and invocation.load_error is not None:
                transition.answer_stored(caller, outcome, activation)  # Rule L5: its journal is in the store only.
            elif invocation is not None:
                self.complete(transition, invocation, caller.command, outcome.failed, outcome.value)
            return
        transition.answer_stored(caller, outcome, activation)
        activation.load_buffer.answers.append((caller.number, Delivery(caller.command, outcome.failed, outcome.value)))

    def complete(
        self,
        transition: Transition,
        invocation: InvocationRun,
        command: int,
        failed: bool,
        value: bytes,
        cause: BaseException | None = None,
    ) -> None:
        """Answer a command of an invocation that is in memory; `cause` is what a failure follows from."""
        journal = invocation.journal
        if journal is None or not journal.answer(Delivery(command, failed, value, cause)):  # Rule C3
            return
        transition.answer(invocation, command, failed, value)
        self._attempts.wake(transition, invocation)
