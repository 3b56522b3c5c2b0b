"""A journal for people: its steps as frozen values, with arguments, answers and state decoded by the types of today.

What cannot be decoded, because its type has changed or is not known, stands as the bytes that are stored. A handler's
own errors come as what its caller gets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.actors.large_state import LargeField, Lazy
from durably.actors.protocol.commands import (
    Call,
    Command,
    CompleteAwakeable,
    CompletePromise,
    Publish,
    ReadEntries,
    ReadListRange,
    Send,
    SendSignal,
)
from durably.actors.protocol.entries import (
    decode_found,
    field_of,
    in_words,
    is_of_entries,
    is_restored,
    name_of_entry,
)
from durably.actors.values.descriptions import MISSING
from durably.actors.values.durations import moment
from durably.actors.values.error_envelopes import decode_failure
from durably.actors.values.serde import SerdeFactory, codec_under
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.errors import TerminalError
from durably.ids import InvocationStatus
from durably.runtime.execution.step import CodeVersion, Delivery, Outcome, Step, is_cancel
from durably.runtime.invocations.invocation import argument_load_error, known_outcome
from durably.runtime.invocations.journal import UnreadableStepError, deliveries_of, steps_of, version_at, versions_of
from durably.runtime.invocations.load_errors import journal_load_error, unreadable_error
from durably.runtime.observation.logs import describe_command
from durably.storage.records import InvocationRecord, StoredInvocation

STEPS_AT_ONCE = 100
"""So many are decoded in one turn of the event loop."""
NO_VALUES: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalCommand:
    """Something that a handler asked for."""

    number: int
    """Its place in the order of asking within the execution, from 0."""
    kind: str
    """`call`, `send`, `run`, `sleep`, `signal`, …"""
    text: str
    """For people: `call Ticket/2B/reserve`."""
    value: Any = None
    """What it carries: the arguments of a call or send by name, the value of a promise, signal or awakeable."""
    command: Command = field(repr=False)
    """All of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalAnswer:
    """The answer to a command, or a cancel."""

    command: int | None
    """The number of the command that it answers; None: it is a cancel."""
    text: str
    """The command for people; `cancel` for a cancel."""
    value: Any = None
    error: TerminalError | None = None
    """What is raised where the answer is awaited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalStep:
    """What a handler did between two waits: what it took in, and what it gave out."""

    index: int
    at: datetime
    """The time that the handler saw."""
    attempt: int
    answers: tuple[JournalAnswer, ...]
    """What it took in, in this order; what an exclusive handler has read of entries is not kept (rule V7)."""
    commands: tuple[JournalCommand, ...]
    """What it asked for, in this order."""
    changes: Mapping[str, Any]
    """The fields of the state that it changed, by stored name."""
    cleared: tuple[str, ...]
    """The fields that it cleared."""
    abandoned: tuple[int, ...]
    """Commands whose answers it wants no longer."""
    patches: tuple[str, ...]
    """Changes of the code that it asked for (`ctx.patched`)."""
    made_by: str | None = None
    """The version of the code that made it, and of Python; None: it was made before versions were recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationJournal:
    """What an invocation has done so far, as it was when it was read.

    The steps of one that has ended are not kept.
    """

    id: str
    target: str
    """`Cart/mary/checkout`, `Shipping/handle`."""
    status: InvocationStatus
    accepted_at: datetime
    deadline: datetime | None
    arguments: Mapping[str, Any] | bytes
    """By name; the bytes that are stored where they cannot be decoded."""
    headers: Mapping[str, str]
    steps: tuple[JournalStep, ...]
    undelivered: tuple[JournalAnswer, ...]
    """Answers that have come and that no step has taken in yet."""
    result: Any
    """What it returned, if it has ended so."""
    error: TerminalError | None
    """What it failed with, if it has."""

    def __str__(self) -> str:
        """A line for each thing."""
        return "\n".join(_lines(self))


class JournalReader:
    """Decodes journals by the classes that run here."""

    def __init__(self, actors: Mapping[str, BoundActor], serde: SerdeFactory | None) -> None:
        self._actors = actors
        self._decode_plainly = codec_under(serde, MISSING).decode

    async def journal(self, record: InvocationRecord, stored: StoredInvocation | None) -> InvocationJournal:
        """`stored` is None for one that has no journal (any more). The loop gets turns while a long one is decoded.

        Raises:
            LoadLimitError, UnreadableRecordError: it cannot be read; names what.
        """
        error = journal_load_error(stored) if stored is not None else argument_load_error(record)
        if error is not None:
            raise error
        service, key = record.address
        bound = self._handler(service, record.handler)
        steps, undelivered = ((), ()) if stored is None else await self._steps(record, stored)
        outcome = known_outcome(record)
        return InvocationJournal(
            id=record.id,
            target=f"{service}/{record.handler}" if key == record.id else f"{service}/{key}/{record.handler}",
            status=record.status,
            accepted_at=moment(record.accepted_at),
            deadline=None if record.deadline is None else moment(record.deadline),
            arguments=self._arguments(bound, record.argument),
            headers=record.headers,
            steps=steps,
            undelivered=undelivered,
            result=None if outcome is None or outcome.failed else self._result(bound, outcome),
            error=decode_failure(outcome.value) if outcome is not None and outcome.failed else None,
        )

    async def _steps(
        self, record: InvocationRecord, stored: StoredInvocation
    ) -> tuple[tuple[JournalStep, ...], tuple[JournalAnswer, ...]]:
        try:
            steps, left, versions = steps_of(stored), deliveries_of(stored), versions_of(stored)
        except UnreadableStepError as damaged:
            raise unreadable_error(record, damaged.unreadable) from damaged
        actor = self._actors.get(record.address.service)
        commands: list[Command] = []
        told: list[JournalStep] = []
        for index, step in enumerate(steps):
            taken = [left.pop(number) for number in step.deliveries if number in left]
            answers = tuple(self._answer(actor, commands, delivery) for delivery in taken)
            told.append(self._step(index, step, answers, len(commands), actor, version_at(versions, index)))
            commands += step.commands
            if index % STEPS_AT_ONCE == STEPS_AT_ONCE - 1:
                await _turn_of_the_loop()
        return tuple(told), tuple(self._answer(actor, commands, delivery) for delivery in left.values())

    def _step(
        self,
        index: int,
        step: Step,
        answers: tuple[JournalAnswer, ...],
        first: int,
        actor: BoundActor | None,
        version: CodeVersion | None,
    ) -> JournalStep:
        changes = {
            name: value for name, value in (step.changes or {}).items() if not _is_internal(actor, name)
        }  # fmt: skip
        return JournalStep(
            index=index,
            at=moment(step.at),
            attempt=step.attempt,
            answers=answers,
            commands=tuple(self._command(number, command) for number, command in enumerate(step.commands, first)),
            changes={
                _words(actor, name): _decoded(self._decoder(actor, name), value)
                for name, value in changes.items()
                if value is not None
            },
            cleared=tuple(_words(actor, name) for name, value in changes.items() if value is None),
            abandoned=tuple(step.abandoned),
            patches=() if step.patches is None else tuple(step.patches),
            made_by=None if version is None else str(version),
        )

    def _decoder(self, actor: BoundActor | None, name: str) -> Callable[[bytes], Any]:
        """Of the value that a step has given to a field or an entry."""
        if actor is None:
            return self._decode_plainly
        large = actor.large_fields().get(field_of(name)) if is_of_entries(name) else None
        return partial(actor.decode_state, name) if large is None else large.decode

    def _command(self, number: int, command: Command) -> JournalCommand:
        return JournalCommand(
            number=number,
            kind=str(type(command).__struct_config__.tag),
            text=describe_command(command),
            value=self._carried(command),
            command=command,
        )

    def _carried(self, command: Command) -> Any:
        match command:
            case Call() | Send():
                if command.wire:
                    return _decoded(self._decode_plainly, command.argument) if command.argument else None
                return self._arguments(self._handler(command.service, command.handler), command.argument)
            case CompletePromise() | CompleteAwakeable() | SendSignal():
                if command.failed:
                    return decode_failure(command.value)
                return _decoded(self._decode_plainly, command.value)
            case Publish():
                return _decoded(self._decode_plainly, command.value)
            case _:
                return None

    def _answer(self, actor: BoundActor | None, commands: Sequence[Command], delivery: Delivery) -> JournalAnswer:
        if is_cancel(delivery):
            return JournalAnswer(command=None, text="cancel")
        command = commands[delivery.command] if delivery.command < len(commands) else None
        text = "" if command is None else describe_command(command)
        if delivery.failed:
            return JournalAnswer(command=delivery.command, text=text, error=decode_failure(delivery.value))
        value = self._answered(actor, command, delivery.value)
        return JournalAnswer(command=delivery.command, text=text, value=value)

    def _answered(self, actor: BoundActor | None, command: Command | None, value: bytes) -> Any:
        if not value:
            return None
        if isinstance(command, ReadEntries | ReadListRange):
            large = None if actor is None else actor.large_fields().get(command.field)
            return _decoded(partial(_found, large, command), value)
        if isinstance(command, Call):
            bound = self._handler(command.service, command.handler)
            if bound is not None:
                return _decoded(bound.signature.decode_result, value)
        return _decoded(self._decode_plainly, value)

    def _result(self, bound: BoundActorHandler | None, outcome: Outcome) -> Any:
        if bound is None:
            return _decoded(self._decode_plainly, outcome.value) if outcome.value else None
        return _decoded(bound.signature.decode_result, outcome.value)

    def _arguments(self, bound: BoundActorHandler | None, argument: bytes) -> Any:
        if bound is None:
            return _decoded(self._decode_plainly, argument) if argument else NO_VALUES

        def decode(data: bytes) -> Mapping[str, Any]:
            types = bound.signature.types
            positional, named = types.arguments.decode(data)
            names = (parameter.name for parameter in types.parameters)
            return {**dict(zip(names, positional, strict=False)), **named}

        return _decoded(decode, argument)

    def _handler(self, service: str, handler: str) -> BoundActorHandler | None:
        actor = self._actors.get(service)
        return None if actor is None else actor.handlers.get(handler)


async def _turn_of_the_loop() -> None:
    loop = asyncio.get_running_loop()
    passed: asyncio.Future[None] = loop.create_future()
    loop.call_soon(passed.set_result, None)
    await passed


def _decoded(decode: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return decode(data)
    except USER_ERRORS as error:  # A Serde or a validator of the user's may raise anything.
        let_signals_pass(error)
        return data


def _is_internal(actor: BoundActor | None, name: str) -> bool:
    """A change that says nothing to people: where a list begins and ends, or that an entry is as it was."""
    return is_restored(name) or (actor is not None and name in actor.large_fields())


def _words(actor: BoundActor | None, name: str) -> str:
    """What people call a field, or an entry of one."""
    large = None if actor is None else actor.large_fields().get(field_of(name))
    return large.name if large is not None and large.kind is Lazy else in_words(name)


def _found(large: LargeField | None, command: ReadEntries | ReadListRange, answer: bytes) -> Any:
    """What a read of entries was answered with."""
    found = decode_found(answer)
    if isinstance(command, ReadEntries):
        if command.counts:
            return found.count
        if command.only_keys:
            return [in_words(name_of_entry(command.field, key)) for key, _ in found.entries]
    return [value if large is None else large.decode(value) for _, value in found.entries]


def _lines(journal: InvocationJournal) -> list[str]:
    lines = [f"{journal.target} ({journal.id}), {journal.status}", f"  arguments: {journal.arguments!r}"]
    made_by = journal.steps[0].made_by if journal.steps else None
    for step in journal.steps:
        lines.append(f"  step {step.index} at {step.at}" + (f", attempt {step.attempt}" if step.attempt > 1 else ""))
        if step.made_by != made_by:
            made_by = step.made_by
            lines.append(f"    made by {made_by}")
        lines += [f"    took in {_answer_line(answer)}" for answer in step.answers]
        lines += [f"    asked for {_command_line(command)}" for command in step.commands]
        lines += [f"    set {name} = {value!r}" for name, value in step.changes.items()]
        lines += [f"    cleared {name}" for name in step.cleared]
        if step.abandoned:
            lines.append(f"    gave up {', '.join(map(str, step.abandoned))}")
        if step.patches:
            lines.append(f"    asked for the patches {', '.join(step.patches)}")
    lines += [f"  has come and was not taken in: {_answer_line(answer)}" for answer in journal.undelivered]
    if journal.error is not None:
        lines.append(f"  failed: {journal.error!r}")
    elif journal.status is InvocationStatus.COMPLETED:
        lines.append(f"  returned {journal.result!r}")
    return lines


def _command_line(command: JournalCommand) -> str:
    return f"#{command.number} {command.text}" + ("" if command.value is None else f" {command.value!r}")


def _answer_line(answer: JournalAnswer) -> str:
    if answer.command is None:
        return answer.text
    told = f"failure {answer.error!r}" if answer.error is not None else f"answer {answer.value!r}"
    return f"{told} to #{answer.command} {answer.text}"
