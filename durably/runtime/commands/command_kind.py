"""`CommandKind`: everything that the machine does with one type of command, from its issue to its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeAlias, TypeVar

from durably.actors.protocol.commands import Command
from durably.runtime.commit.transition import Transition
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.messaging.messages import KeysFound

C = TypeVar("C", bound=Command)


class CommandKind(Generic[C]):
    """Each method is one thing that can happen to a command; what a kind does not override needs nothing."""

    is_answered_by_this_process = False
    """This process itself finds the answer: meanwhile its invocation runs, and is not suspended."""

    def is_answered(self, invocation: InvocationRun, command: C) -> bool:
        """The handler waits for an answer; without one, the command is done when it is issued."""
        return True

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: C, found: KeysFound
    ) -> None:
        """The command is in the log: act on it."""
        raise NotImplementedError

    def issue_unawaited(
        self, transition: Transition, invocation: InvocationRun, number: int, command: C, found: KeysFound
    ) -> None:
        """It is in the log, and its handler has ended or has given it up in the same step (rules C5, S6)."""

    def give_up(self, transition: Transition, invocation: InvocationRun, number: int, command: C) -> None:
        """The handler does not want the answer any longer (rule C5)."""

    def withdraw(self, invocation: InvocationRun, number: int, command: C) -> None:
        """The invocation has ended while this was pending; its rows go with it."""

    def resume(self, invocation: InvocationRun, number: int, command: C) -> None:
        """A new attempt has been replayed and waits for it, and this process has to find the answer."""


CommandTable: TypeAlias = Mapping[type[Command], CommandKind[Any]]
"""One table for all who act on commands: steps, endings, replays."""
