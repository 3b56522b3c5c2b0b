"""Waiting for a person, asked for by a handler."""

from __future__ import annotations

from durably.actors.protocol.commands import AwaitResume
from durably.runtime.commands.command_kind import CommandKind
from durably.runtime.commit.transition import Transition
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.messaging.messages import KeysFound


class AwaitResumeCommands(CommandKind[AwaitResume]):
    """The step that issues it pauses the invocation in the same transition; the resume is the answer (rule E6)."""

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: AwaitResume, found: KeysFound
    ) -> None:
        assert invocation.journal is not None
        invocation.journal.awaits_resume = number

    def give_up(self, transition: Transition, invocation: InvocationRun, number: int, command: AwaitResume) -> None:
        assert invocation.journal is not None
        invocation.journal.awaits_resume = None
