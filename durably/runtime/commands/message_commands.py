"""Calls and sends."""

from __future__ import annotations

from durably.actors.protocol.commands import Call, Send
from durably.runtime.commands.command_kind import CommandKind
from durably.runtime.commit.transition import Transition
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.messaging.messages import KeysFound, Messages


class CallCommands(CommandKind[Call]):
    """The callee's outcome is the answer. A call that is given up leaves the callee running (rule C5)."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: Call, found: KeysFound
    ) -> None:
        self._messages.send(transition, invocation, number, command, found, is_awaited=True)

    def issue_unawaited(
        self, transition: Transition, invocation: InvocationRun, number: int, command: Call, found: KeysFound
    ) -> None:
        self._messages.send(transition, invocation, number, command, found, is_awaited=False)


class SendCommands(CommandKind[Send]):
    """A message without an answer. Those of an atomic handler wait for its outcome (rule V6)."""

    is_answered = False

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: Send, found: KeysFound
    ) -> None:
        if invocation.handler.atomic:
            assert invocation.journal is not None
            invocation.journal.held_sends.append((number, command))
        else:
            self.issue_unawaited(transition, invocation, number, command, found)

    def issue_unawaited(
        self, transition: Transition, invocation: InvocationRun, number: int, command: Send, found: KeysFound
    ) -> None:
        self._messages.send(transition, invocation, number, command, found, is_awaited=False)
