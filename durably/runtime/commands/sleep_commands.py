"""Sleeps: timers that outlive the process."""

from __future__ import annotations

from durably.actors.protocol.commands import Sleep
from durably.runtime.commands.command_kind import CommandKind
from durably.runtime.commit.transition import Transition
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.messaging.messages import KeysFound
from durably.runtime.timers.timer_service import TimerService
from durably.storage.records import TimerKind


class SleepCommands(CommandKind[Sleep]):
    """The timer's ring is the answer."""

    def __init__(self, timers: TimerService) -> None:
        self._timers = timers

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: Sleep, found: KeysFound
    ) -> None:
        not_before = 0 if invocation.journal is None else invocation.journal.not_before
        self._timers.set(transition, invocation, TimerKind.SLEEP, command.due, number, not_before)

    def give_up(self, transition: Transition, invocation: InvocationRun, number: int, command: Sleep) -> None:
        self._timers.drop(transition, invocation.number, TimerKind.SLEEP, number)

    def withdraw(self, invocation: InvocationRun, number: int, command: Sleep) -> None:
        self._timers.forget(invocation.number, TimerKind.SLEEP, number)
