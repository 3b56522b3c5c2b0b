"""`Step`: the record of one advance, and what it is made of.

A step says everything that an advance took in (`at`, `deliveries`, `reads`) and everything that it gave out
(`commands`, `changes`, `abandoned`, `outcome`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import msgspec

from durably.actors.protocol.commands import Command


class Delivery(msgspec.Struct, frozen=True):
    """An answer on its way to the handler, or a cancel (rule E1)."""

    command: int
    """The number of the command that it answers. A cancel answers none: the first has the number -1, the next -2."""
    failed: bool
    value: bytes
    cause: BaseException | None = None
    """What a failure follows from, while that is in memory: for tracebacks, never stored."""


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """How an invocation ended: the encoded result, or the encoded `TerminalError`."""

    failed: bool
    value: bytes


class Step(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One advance."""

    at: int
    deliveries: tuple[int, ...] = ()
    commands: tuple[Command, ...] = ()
    changes: dict[str, bytes | None] | None = None
    abandoned: tuple[int, ...] = ()
    reads: dict[str, bytes | None] | None = None
    """Shared handlers only: what they read of a state that others change (rule S4)."""
    outcome: Outcome | None = None
    attempt: int = 1
    """Which attempt made this step, which the handler may look at."""
    cancelled: tuple[int, ...] = ()
    """Calls that a cancel has reached: their callees are cancelled, and they wait for the end of that (rule E1)."""
    patches: tuple[str, ...] | None = None
    """Changes of the code that the handler asked for in this step for the first time (rule W4)."""
    continues_with: bytes | None = None
    """The argument of the execution that follows this one (rule T5); then there is no outcome."""

    @property
    def is_last(self) -> bool:
        """It ends its execution."""
        return self.outcome is not None or self.continues_with is not None


def is_cancel(delivery: Delivery) -> bool:
    """It answers no command: it cancels."""
    return delivery.command < 0


class AttemptFailure(msgspec.Struct):
    """An advance that ended in an error which is not an outcome: no step, nothing happened (rule S2)."""

    error: BaseException


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An answer as its step keeps it."""

    command: int
    failed: bool
    value: bytes


class CodeVersion(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Which code made a step, for people: replay proves whether code follows a journal."""

    code: str
    """A fingerprint of the handler, or what `Runtime(version=...)` said."""
    python: str
    """The minor version, such as `3.12` (rule S5)."""
    state: int = 1
    """The version of the object's state on which it runs."""

    def __str__(self) -> str:
        return f"version {self.code} on Python {self.python}"


class Undoing(IntEnum):
    """What is left to undo where a step ends, by a saga or by `ctx.compensations()` (rule E1)."""

    NOTHING = 0
    OPEN = 1
    """There is something that has to be undone if the handler fails."""
    UNDER_WAY = 2


class _StoredStep(Step, frozen=True, array_like=True, gc=False):
    """A step as the store keeps it: with those of its answers that have no record of their own.

    An answer that is recorded and taken in within one batch need not stand in it twice (rule C2).
    """

    answers: tuple[Answer, ...] = ()
    version: CodeVersion | None = None
    """Of the code that made it, if that is not the code of the step before it."""
    undoing: Undoing = Undoing.NOTHING


class RecordedStep(NamedTuple):
    """A step as it was stored."""

    step: Step
    answers: Sequence[Answer]
    version: CodeVersion | None
    undoing: Undoing


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_StoredStep)


def encode_step(
    step: Step,
    answers: Sequence[Answer] = (),
    version: CodeVersion | None = None,
    undoing: Undoing = Undoing.NOTHING,
) -> bytes:
    """`answers` are those of its deliveries that it is to keep."""
    if answers or version is not None or undoing:
        step = _StoredStep(
            step.at, step.deliveries, step.commands, step.changes, step.abandoned, step.reads, step.outcome,
            step.attempt, step.cancelled, step.patches, step.continues_with, tuple(answers), version,
            undoing,
        )  # fmt: skip
    return _encoder.encode(step)


def decode_step(content: bytes) -> Step:
    """The step alone."""
    return decode_stored_step(content)[0]


def decode_stored_step(content: bytes) -> tuple[Step, Sequence[Answer]]:
    """The step and the answers that it keeps."""
    return decode_recorded_step(content)[:2]


def decode_recorded_step(content: bytes) -> RecordedStep:
    """All of a stored step."""
    *fields, answers, version, undoing = msgspec.structs.astuple(_decoder.decode(content))
    return RecordedStep(Step(*fields), answers, version, undoing)
