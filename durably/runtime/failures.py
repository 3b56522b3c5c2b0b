"""Failures of attempts as people and the store see them: type, message, and the traceback of the handler's own code."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import cast

import msgspec

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_TRACEBACK_LINES = 50


class AttemptFailureRecord(msgspec.Struct, frozen=True):
    """What is kept of the last failed attempt."""

    type: str
    message: str
    traceback: str


def describe_failure(error: BaseException) -> str:
    """One line; of a group, the errors in it."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return f"{group.message}: " + "; ".join(map(describe_failure, group.exceptions))
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def encode_attempt_failure(error: BaseException) -> bytes:
    """For the store."""
    return msgspec.json.encode(AttemptFailureRecord(type(error).__qualname__, str(error), handler_traceback(error)))


def decode_attempt_failure(content: bytes) -> AttemptFailureRecord:
    return msgspec.json.decode(content, type=AttemptFailureRecord)


def handler_traceback(error: BaseException) -> str:
    """The traceback without the frames of this package, which tell a user nothing."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_PACKAGE)]
    return "".join(traceback.format_list(frames[-_TRACEBACK_LINES:])) + describe_failure(error)
