"""Failures of attempts as people and the store see them: type, message, and the traceback of the handler's own code."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import cast

import msgspec

_PACKAGE = str(Path(__file__).resolve().parents[2])
_TRACEBACK_LINES = 50


class AttemptFailureRecord(msgspec.Struct, frozen=True):
    """What is kept of the last failed attempt."""

    type: str
    message: str
    traceback: str
    since: int | None = None
    """When the first of the failures in a row was, microseconds since 1970 UTC."""


def describe_failure(error: BaseException) -> str:
    """One line; of a group, the errors in it. Never fails, whatever a user's exception does when asked for its text."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return f"{group.message}: " + "; ".join(describe_failure(one) for one in group.exceptions)
    text = text_of_error(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def text_of_error(error: BaseException) -> str:
    """What an exception says, as text that any store and terminal can take."""
    try:
        text = str(error)
    except Exception as failure:
        return f"(it has no text: {type(failure).__name__} was raised when it was asked for it)"
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def encode_attempt_failure(error: BaseException, since: int | None = None) -> bytes:
    """For the store."""
    return msgspec.json.encode(
        AttemptFailureRecord(type(error).__qualname__, text_of_error(error), handler_traceback(error), since)
    )


def decode_attempt_failure(content: bytes) -> AttemptFailureRecord:
    return msgspec.json.decode(content, type=AttemptFailureRecord)


def handler_traceback(error: BaseException) -> str:
    """The traceback without the frames of this package, which tell a user nothing."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_PACKAGE)]
    listed = "".join(traceback.format_list(frames[-_TRACEBACK_LINES:])).encode(errors="backslashreplace").decode()
    return listed + describe_failure(error)


def handler_place(error: BaseException) -> str:
    """Where in the handler's own code an error was raised, in one line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_PACKAGE)]
    return f"{frames[-1].filename}:{frames[-1].lineno} (in {frames[-1].name})" if frames else ""
