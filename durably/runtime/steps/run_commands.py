"""`Runs`: the `Run` commands of one incarnation, between the journal and the actions behind them.

An action starts only when its command is durable (rule X1). It outlives the attempt and the incarnation that asked for
it: whoever needs its result joins it, and the result is kept until the completion is durable (rule A1).
"""

from __future__ import annotations

from typing import Any, Protocol

from durably.runtime.actions.actions import ActionKey, ActionResult, Actions
from durably.runtime.activations.activations import Activations
from durably.runtime.commit.committer import Committer
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.lifecycle.pauses import Pauses
from durably.runtime.lifecycle.retries import Retries
from durably.runtime.messaging.completions import Completions
from durably.runtime.observation.logs import RuntimeLogger
from durably.runtime.registry.registry import InvocationRegistry


class RunCommandsOwner(Protocol):
    """The incarnation."""

    dead: bool
    stopping: bool

    def schedule(self) -> None: ...


class RunCommands:
    """Starts actions, and records how they end."""

    def __init__(
        self,
        owner: RunCommandsOwner,
        *,
        actions: Actions,
        committer: Committer,
        completions: Completions,
        registry: InvocationRegistry,
        log: RuntimeLogger,
        pauses: Pauses,
        activations: Activations,
        retries: Retries,
    ) -> None:
        self._owner = owner
        self._actions = actions
        self._settled = actions.settled
        self._committer = committer
        self._completions = completions
        self._registry = registry
        self._log = log
        self._pauses = pauses
        self._activations = activations
        self._retries = retries

    def start(self, which: tuple[InvocationRun, int], /) -> None:
        """Start the action behind a command, or join it, once the command is durable: this is an exit (rule X1)."""
        invocation, number = which
        execution, journal = invocation.execution, invocation.journal
        if execution is None or journal is None or self._owner.stopping:
            return
        action = execution.action(number)
        if action is None or number not in journal.pending:
            return
        self._actions.start((invocation.id, number), action, self._retries.policy(invocation), self)

    def give_up(self, invocation: InvocationRun, number: int) -> None:
        """Nobody wants the result any more (rule C5)."""
        self._actions.cancel((invocation.id, number))

    def action_backs_off(self, key: ActionKey, name: str, fields: dict[str, Any]) -> None:
        """An action has failed, and will be tried again."""
        invocation = self._registry.live.get(key[0])
        if invocation is not None:
            self._log.action_retries(invocation, name, fields)

    def action_issued_at(self, key: ActionKey) -> int | None:
        """When its handler asked for an action; None: its invocation is not in memory any more."""
        id, number = key
        invocation = self._registry.live.get(id)
        return None if invocation is None or invocation.journal is None else invocation.journal.issued_at(number)

    def action_ended(self, key: ActionKey, result: ActionResult) -> None:
        """An action has its result."""
        if self._owner.dead:  # The next incarnation joins it (rule A1).
            return
        id, number = key
        invocation = self._registry.live.get(id)
        if invocation is None or invocation.journal is None or number not in invocation.journal.pending:
            self._actions.settled(key)
            return
        activation = self._activations.by_address[invocation.address]
        if result.exhausted is not None:
            self._actions.settled(key)
            self._pauses.pause(activation, invocation, result.exhausted)
        else:
            self._completions.complete(activation, invocation, number, result.failed, result.value, result.cause)
            self._committer.when_durable(self._settled, key)
        self._owner.schedule()
