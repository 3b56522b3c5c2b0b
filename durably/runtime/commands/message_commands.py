"""Calls and sends."""

from __future__ import annotations

from durably.actors.protocol.commands import Call, Send
from durably.runtime.commands.command_kind import CommandKind
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.answers import encode_send_answer
from durably.runtime.execution.step import Outcome
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.messaging.completions import Completions
from durably.runtime.messaging.messages import KeysFound, Messages
from durably.storage.records import CallerRecord


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
    """A message. Of one that may join an earlier invocation, the answer is the id of that one or its own (rule C7).

    Those of an atomic handler wait for its outcome, and have no answer (rule V6).
    """

    def __init__(self, messages: Messages, completions: Completions) -> None:
        self._messages = messages
        self._completions = completions

    def is_answered(self, invocation: InvocationRun, command: Send) -> bool:
        return command.may_join and not invocation.handler.atomic

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: Send, found: KeysFound
    ) -> None:
        if invocation.handler.atomic:
            assert invocation.journal is not None
            invocation.journal.held.append((number, command))
            return
        answer = self._messages.send(transition, invocation, number, command, found, is_awaited=False)
        if self.is_answered(invocation, command):
            caller = CallerRecord(invocation.address, invocation.number, number)
            self._completions.answer(transition, caller, Outcome(False, encode_send_answer(answer)))

    def issue_unawaited(
        self, transition: Transition, invocation: InvocationRun, number: int, command: Send, found: KeysFound
    ) -> None:
        self._messages.send(transition, invocation, number, command, found, is_awaited=False)
