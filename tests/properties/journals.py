"""Executions driven by hand: journals are made by answering in any order and grouping, and replayed from bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

import msgspec

from durably.actors.actor import Actor
from durably.actors.definition.binding import BoundActor, bind
from durably.actors.protocol.commands import Call, Command, Run, Sleep
from durably.actors.retry import RetryPolicy
from durably.actors.values.error_envelopes import encode_failure
from durably.errors import TerminalError
from durably.ids import Address, InvocationStatus
from durably.runtime.execution.execution import Execution
from durably.runtime.execution.step import AttemptFailure, Delivery, Step, decode_step, encode_step
from durably.runtime.settings import Settings
from durably.storage.records import InvocationRecord

START_US = 1_767_225_600_000_000
LONGEST_STEPS = 400
SETTINGS = Settings(retry=RetryPolicy(), suspend_after_us=0, passivate_after_us=0, retention_us=0, drain_us=0)


class Journal(msgspec.Struct):
    """What a store keeps of one invocation, and what came for it at each advance, wanted or not."""

    handler: str
    seed: bytes
    argument: bytes
    snapshot: dict[str, bytes] = {}
    steps: list[bytes] = []
    deliveries: list[list[Delivery]] = []
    failure: str | None = None
    """How the advance after the last step failed, if it did."""


class Listener:
    """Hears what an execution has to say."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def handler_logged(self, execution: Execution, level: str, event: str, fields: Mapping[str, Any], /) -> None:
        self.warnings.append(event)

    def task_failed(self, execution: Execution, task: str, error: BaseException, /) -> None: ...
    def warned(self, execution: Execution, message: str, /) -> None:
        self.warnings.append(message)


class Driver:
    """Makes executions of one class of actors."""

    def __init__(self, actor: type[Actor]) -> None:
        self.bound: BoundActor = bind(actor, {})
        self.listener = Listener()

    def execution(self, journal: Journal) -> Execution:
        handler = self.bound.handlers[journal.handler]
        accepted = InvocationRecord(
            number=1,
            id="inv_test",
            address=Address(handler.service, "key"),
            handler=handler.name,
            seed=journal.seed,
            argument=journal.argument,
            headers={},
            scope=None,
            caller=None,
            sender_id=None,
            deadline=None,
            accepted_at=START_US,
            keep_outcome_us=None,
            status=InvocationStatus.RUNNING,
            mailbox_position=None,
        )
        return Execution(
            actor=self.bound,
            handler=handler,
            accepted=accepted,
            snapshot=journal.snapshot,
            observer=self.listener,
            settings=SETTINGS,
        )

    def live(self, handler: str, argument: bytes, random: Random) -> Journal:
        """Run an invocation to its end: what it waits for comes in any order, one or several at a time."""
        admitted = self.bound.handlers[handler].admit(argument)
        journal = Journal(handler, random.randbytes(16), admitted)
        execution = self.execution(journal)
        try:
            self._live(execution, journal, random)
        finally:
            execution.close()
        return journal

    def _live(self, execution: Execution, journal: Journal, random: Random) -> None:
        commands: list[Command] = []
        answers: dict[int, Delivery] = {}
        at, deliveries = START_US, list[Delivery]()
        while len(journal.steps) < LONGEST_STEPS:
            step = execution.advance(at, deliveries)
            journal.deliveries.append(deliveries)
            if isinstance(step, AttemptFailure):
                journal.failure = describe(step)
                break
            journal.steps.append(encode_step(step))
            commands.extend(step.commands)
            if step.outcome is not None:
                break
            numbers = some_of([*execution.pending], commands, random)
            if random.random() < 0.1:  # One that nobody waits for, any more or yet: ignored everywhere (rule C3).
                numbers.insert(0, random.randrange(len(commands) + 2))
            for number in numbers:
                if number < len(commands) and number not in answers:
                    answers[number] = answer(number, commands[number], random)
            deliveries = [answers.get(number, Delivery(number, False, b"null")) for number in numbers]
            at = max(at + random.choice((0, 1, 1_000, 3_000_000)), *dues(numbers, commands))

    def replayed(self, journal: Journal, steps: Sequence[Step]) -> Execution:
        """A fresh execution, brought to where these steps end."""
        execution = self.execution(journal)
        answers = {delivery.command: delivery for deliveries in journal.deliveries for delivery in deliveries}
        taken = {number for step in steps for number in step.deliveries}
        try:
            execution.replay(steps, {number: answers[number] for number in taken})
        except BaseException:
            execution.close()
            raise
        return execution

    def check(self, journal: Journal, prefix: int) -> None:
        """Replay the whole, and replay a prefix and go on from there: each step is the recorded one.

        Raises:
            NonDeterminismError, AssertionError: it is not.
        """
        steps = [decode_step(content) for content in journal.steps]
        self.replayed(journal, steps).close()
        execution = self.replayed(journal, steps[:prefix])
        try:
            self._go_on(execution, journal, steps, prefix)
        finally:
            execution.close()
        assert [encode_step(step) for step in steps] == journal.steps, "an attempt that was closed changed its steps"

    def _go_on(self, execution: Execution, journal: Journal, steps: Sequence[Step], prefix: int) -> None:
        for number in range(prefix, len(journal.deliveries)):
            at = steps[number].at if number < len(steps) else steps[-1].at
            step = execution.advance(at, journal.deliveries[number])
            if isinstance(step, AttemptFailure):
                assert number == len(steps), step.error
                assert describe(step) == journal.failure
                break
            assert encode_step(step) == journal.steps[number]


def describe(failure: AttemptFailure) -> str:
    """The class of an error, and its first line: the rest may name places in memory."""
    return f"{type(failure.error).__name__}: {str(failure.error).partition(chr(10))[0]}"


def some_of(pending: list[int], commands: Sequence[Command], random: Random) -> list[int]:
    """What comes next of all that is waited for; timers are mostly late, or every limit would be exceeded."""
    others = [number for number in pending if not isinstance(commands[number], Sleep)]
    if others and random.random() < 0.7:
        pending = others
    count = random.choice((1, 1, 1, 1, 2, 3))
    return random.sample(pending, min(count, len(pending)))


def dues(numbers: Sequence[int], commands: Sequence[Command]) -> Iterator[int]:
    """No step is earlier than the timers that it delivers (rule T1)."""
    yield START_US
    for number in numbers:
        command = commands[number] if number < len(commands) else None
        if isinstance(command, Sleep):
            yield command.due


def answer(number: int, command: Command, random: Random) -> Delivery:
    """What a command is answered: now and then with a failure."""
    if not isinstance(command, Run | Call):
        return Delivery(number, False, b"null")
    if random.random() < 0.06:
        return Delivery(number, True, encode_failure(TerminalError(f"refused {number}")))
    return Delivery(number, False, msgspec.json.encode(f"answer {number}"))
