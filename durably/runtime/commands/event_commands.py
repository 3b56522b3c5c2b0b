"""Events from handlers."""

from __future__ import annotations

from durably.actors.protocol.commands import Publish
from durably.runtime.commands.command_kind import CommandKind
from durably.runtime.commit.transition import Transition
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.messaging.events import Events
from durably.runtime.messaging.messages import KeysFound


class PublishCommands(CommandKind[Publish]):
    """One way. What an atomic handler publishes waits for its outcome (rule V6)."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def is_answered(self, invocation: InvocationRun, command: Publish) -> bool:
        return False

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: Publish, found: KeysFound
    ) -> None:
        if invocation.handler.atomic:
            assert invocation.journal is not None
            invocation.journal.held_back.append((number, command))
        else:
            self._events.publish(transition, command)

    def issue_unawaited(
        self, transition: Transition, invocation: InvocationRun, number: int, command: Publish, found: KeysFound
    ) -> None:
        self._events.publish(transition, command)
