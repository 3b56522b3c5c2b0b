"""Cancels from handlers."""

from __future__ import annotations

from durably.actors.protocol.commands import Cancel
from durably.runtime.commands.command_kind import CommandKind
from durably.runtime.commit.transition import Transition
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.messaging.messages import KeysFound
from durably.runtime.messaging.orders import Orders
from durably.storage.records import OrderKind


class CancelCommands(CommandKind[Cancel]):
    """One way. Those of an atomic handler wait for its outcome (rule V6)."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    def is_answered(self, invocation: InvocationRun, command: Cancel) -> bool:
        return False

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: Cancel, found: KeysFound
    ) -> None:
        if invocation.handler.atomic:
            assert invocation.journal is not None
            invocation.journal.held.append((number, command))
        else:
            self._orders.give(transition, command.invocation_id, OrderKind.CANCEL)

    def issue_unawaited(
        self, transition: Transition, invocation: InvocationRun, number: int, command: Cancel, found: KeysFound
    ) -> None:
        if command.invocation_id != invocation.id:  # It is ending.
            self._orders.give(transition, command.invocation_id, OrderKind.CANCEL)
