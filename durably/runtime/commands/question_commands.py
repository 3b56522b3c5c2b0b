"""Questions about other invocations: their status, their outcome."""

from __future__ import annotations

from durably.actors.protocol.commands import Attach, GetOutput, GetStatus, IdentifyCall, IdentifyRun
from durably.runtime.commands.command_kind import CommandKind
from durably.runtime.commit.transition import Transition
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.messaging.attachments import Attachments
from durably.runtime.messaging.messages import KeysFound
from durably.storage.records import CallerRecord


class GetStatusCommands(CommandKind[GetStatus]):
    """The status as it is when the question is looked up is the answer (rule S4)."""

    is_answered_by_this_process = True

    def __init__(self, attachments: Attachments) -> None:
        self._attachments = attachments

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: GetStatus, found: KeysFound
    ) -> None:
        self.resume(invocation, number, command)

    def resume(self, invocation: InvocationRun, number: int, command: GetStatus) -> None:
        self._attachments.ask_status(CallerRecord(invocation.address, invocation.number, number), command)


class IdentifyCallCommands(CommandKind[IdentifyCall]):
    """The invocation that the call leads to is the answer (rule S4)."""

    is_answered_by_this_process = True

    def __init__(self, attachments: Attachments) -> None:
        self._attachments = attachments

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: IdentifyCall, found: KeysFound
    ) -> None:
        self.resume(invocation, number, command)

    def resume(self, invocation: InvocationRun, number: int, command: IdentifyCall) -> None:
        self._attachments.ask_identity(CallerRecord(invocation.address, invocation.number, number), command)


class IdentifyRunCommands(CommandKind[IdentifyRun]):
    """The invocation that runs the workflow is the answer (rule S4)."""

    is_answered_by_this_process = True

    def __init__(self, attachments: Attachments) -> None:
        self._attachments = attachments

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: IdentifyRun, found: KeysFound
    ) -> None:
        self.resume(invocation, number, command)

    def resume(self, invocation: InvocationRun, number: int, command: IdentifyRun) -> None:
        self._attachments.ask_run(CallerRecord(invocation.address, invocation.number, number), command)


class GetOutputCommands(CommandKind[GetOutput]):
    """The outcome as it is when the question is looked up is the answer (rule S4)."""

    is_answered_by_this_process = True

    def __init__(self, attachments: Attachments) -> None:
        self._attachments = attachments

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: GetOutput, found: KeysFound
    ) -> None:
        self.resume(invocation, number, command)

    def resume(self, invocation: InvocationRun, number: int, command: GetOutput) -> None:
        self._attachments.ask_output(CallerRecord(invocation.address, invocation.number, number), command)


class AttachCommands(CommandKind[Attach]):
    """This process finds the target; from then on the target's outcome is the answer."""

    is_answered_by_this_process = True

    def __init__(self, attachments: Attachments) -> None:
        self._attachments = attachments

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: Attach, found: KeysFound
    ) -> None:
        self.resume(invocation, number, command)

    def resume(self, invocation: InvocationRun, number: int, command: Attach) -> None:
        self._attachments.ask_outcome(CallerRecord(invocation.address, invocation.number, number), command)
