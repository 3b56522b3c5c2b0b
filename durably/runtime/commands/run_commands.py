"""Side effects: `ctx.run` between the journal and the action behind it."""

from __future__ import annotations

from durably.actors.protocol.commands import Run
from durably.runtime.actions.actions import ActionListener, Actions
from durably.runtime.commands.command_kind import CommandKind
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.transition import Transition
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.messaging.messages import KeysFound
from durably.runtime.settings import Settings


class RunCommands(CommandKind[Run]):
    """An action starts only when its command is durable (rule X1). It outlives the attempt and the incarnation: the
    next attempt joins it (rule A1).
    """

    is_answered_by_this_process = True

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        actions: Actions,
        committer: Committer,
        listener: ActionListener,
        settings: Settings,
    ) -> None:
        """`listener` hears how each action ends."""
        self._incarnation = incarnation
        self._actions = actions
        self._committer = committer
        self._listener = listener
        self._settings = settings
        self._start = self.start

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: Run, found: KeysFound
    ) -> None:
        self._committer.when_answerable(self._start, (invocation, number, invocation.number))

    def resume(self, invocation: InvocationRun, number: int, command: Run) -> None:
        self._committer.when_answerable(self._start, (invocation, number, invocation.number))

    def give_up(self, transition: Transition, invocation: InvocationRun, number: int, command: Run) -> None:
        self._actions.cancel((invocation.id, number))

    def withdraw(self, invocation: InvocationRun, number: int, command: Run) -> None:
        self._actions.cancel((invocation.id, number))

    def start(self, which: tuple[InvocationRun, int, int], /) -> None:
        """Start the action behind a durable command, or join the one that runs: this is an exit (rule X1)."""
        invocation, number, asked_by = which
        execution, journal = invocation.execution, invocation.journal
        if execution is None or journal is None or self._incarnation.stopping:
            return
        if invocation.number != asked_by:  # It goes on in another execution, whose command this number is now.
            return
        action = execution.action(number)
        if action is None or number not in journal.pending:
            return
        policy = self._settings.retry_policy(invocation.handler)
        self._actions.start((invocation.id, number), invocation.number, action, policy, self._listener)
