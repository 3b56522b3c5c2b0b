"""Questions of handlers to the store besides their own object: events of a stream, and objects of a class."""

from __future__ import annotations

from functools import partial

from durably.actors.protocol.commands import Question
from durably.errors import InvalidArgumentError
from durably.ids import InvocationStatus
from durably.runtime.commands.command_kind import CommandKind
from durably.runtime.commands.entry_commands import EntryAnswers
from durably.runtime.commit.transition import Transition
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.messaging.messages import KeysFound
from durably.runtime.registry.store_questions import Answer, StoreQuestions


class StoreQuestionCommands(CommandKind[Question]):
    """What the store has, once all that was in the log when it was asked is durable, is the answer (rule S4)."""

    is_answered_by_this_process = True

    def __init__(self, answers: EntryAnswers, questions: StoreQuestions) -> None:
        self._answers = answers
        self._questions = questions

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: Question, found: KeysFound
    ) -> None:
        self.resume(invocation, number, command)

    def resume(self, invocation: InvocationRun, number: int, command: Question) -> None:
        self._questions.ask(command, partial(self._tell, invocation, invocation.number, number))

    def _tell(self, invocation: InvocationRun, asked_by: int, number: int, found: Answer) -> None:
        if not self._answers.is_wanted(invocation, asked_by, number):
            return
        if isinstance(found, bytes):
            self._answers.record(invocation, number, found)
        elif isinstance(found, InvalidArgumentError):
            self._answers.refuse(invocation, number, found)
        elif invocation.status is InvocationStatus.RUNNING:
            self._answers.on_unreadable(invocation, found)  # Rule L5
