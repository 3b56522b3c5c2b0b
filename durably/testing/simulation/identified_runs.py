"""`IdentifiedRuns`: the answers to handlers that ask for the run of a workflow (guarantee 24), watched from outside.

It knows from the machine's log which runs are accepted and who asks when, and from the disk which runs are kept. The
answer is a run that was there at some moment between question and answer; and it is none only if none was there all
that time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from durably.actors.protocol.commands import Command, IdentifyRun
from durably.ids import KeyScope, run_scope
from durably.runtime.execution.answers import decode_send_answer
from durably.runtime.execution.step import Step
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.invocations.journal import Journal
from durably.testing.simulation.disk import SimulatedDisk
from durably.testing.simulation.trace import shown, shown_id

Broken = Callable[[str], None]


class _Question(NamedTuple):
    scope: KeyScope
    there: str | None
    """The run that was there when the question was put."""
    seen: set[str]
    """That one, and those that were accepted since."""


class _NotFound(NamedTuple):
    """Somebody was told that there is no run, and perhaps that is not durable."""

    position: int
    who: str
    question: _Question


class IdentifiedRuns:
    """Watches one run of the simulation. `broken` takes what is wrong, in a sentence."""

    def __init__(self, disk: SimulatedDisk, broken: Broken) -> None:
        self._disk = disk
        self._broken = broken
        self._accepted: dict[KeyScope, tuple[str, int]] = {}
        """The last run of a workflow that this incarnation has accepted, with its number."""
        self._questions: dict[tuple[str, int], _Question] = {}
        """By the invocation that asks, and its command."""
        self._not_found: list[_NotFound] = []

    def incarnation_begins(self) -> None:
        """What was not durable has not happened. A question that is durable is put once more."""
        self._accepted.clear()
        self._not_found.clear()

    def accepted(self, invocation: InvocationRun) -> None:
        """It is in the log."""
        scope = invocation.scope
        if scope is None or not scope.is_workflow_id:
            return
        self._accepted[scope] = invocation.id, invocation.number
        for question in self._questions.values():
            if question.scope == scope:
                question.seen.add(invocation.id)

    def stepped(self, invocation: InvocationRun, position: int) -> None:
        """A step of it is in the log, and not its last."""
        journal = invocation.journal
        assert journal is not None
        step = journal.steps[-1]
        self._answered(invocation, step, position)
        for number, command in enumerate(step.commands, journal.next_command - len(step.commands)):
            if isinstance(command, IdentifyRun):
                scope = run_scope(command.service, command.key)
                there = self._run_of(scope)
                self._questions[invocation.id, number] = _Question(scope, there, {*([] if there is None else [there])})

    def concluded(self, invocation: InvocationRun, last: Step, position: int) -> None:
        """Its last step is about to be in the log."""
        self._answered(invocation, last, position)

    def committed(self, last_position: int) -> None:
        """The disk has everything up to here."""
        for one in [one for one in self._not_found if one.position <= last_position]:
            self._not_found.remove(one)
            number = self._disk.numbers_by_scope.get(one.question.scope)
            if number is not None and self._disk.rows[number].record.id == one.question.there:
                self._broken(f"{one.who} was told that there is no run of {_name(one.question.scope)}, and there is.")

    def _answered(self, invocation: InvocationRun, step: Step, position: int) -> None:
        journal = invocation.journal
        if journal is None:
            return
        for number in step.deliveries:
            question = self._questions.get((invocation.id, number))
            if question is None or not isinstance(_command(journal, number), IdentifyRun):
                continue
            answer = next(one for one in (*journal.deliveries.values(), *journal.undelivered) if one.command == number)
            if answer.failed:
                self._not_found.append(_NotFound(position, shown(invocation), question))
                continue
            id = decode_send_answer(answer.value).id
            if id not in question.seen:
                known = ", ".join(map(shown_id, sorted(question.seen))) or "none"
                self._broken(
                    f"{shown(invocation)} was told that the run of {_name(question.scope)} is {shown_id(id)}; there "
                    f"was {known}."
                )

    def _run_of(self, scope: KeyScope) -> str | None:
        id, accepted_at = self._accepted.get(scope, ("", 0))
        if id and (accepted_at > self._disk.last_position or self._disk.find(id) is not None):
            return id
        number = self._disk.numbers_by_scope.get(scope)
        return None if number is None else self._disk.rows[number].record.id


def _command(journal: Journal, number: int) -> Command:
    return [command for step in journal.steps for command in step.commands][number]


def _name(scope: KeyScope) -> str:
    return f"{scope.service}/{scope.key}"
