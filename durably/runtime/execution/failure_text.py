"""Failures of attempts as people and the store see them: type, message, and the traceback of the handler's own code."""

from __future__ import annotations

import gc
import os
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import cast

import msgspec

from durably.actors.values.descriptions import text_for_people
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass

TRACEBACK = "stack"
"""The field of a log line that holds a traceback as text. structlog's console prints a `stack` on lines of its own."""
_PACKAGE = Path(__file__).resolve().parents[2]
_OURS = tuple(f"{_PACKAGE / room}{os.sep}" for room in ("actors", "runtime", "storage", Path("testing", "harness")))
"""What a user never wrote. Examples and workloads are in the package too, and are their authors' own code."""
_KIT = f"{_PACKAGE / 'testing'}{os.sep}"
_INSTALLED = tuple(f"{sysconfig.get_path(kind)}{os.sep}" for kind in ("stdlib", "purelib", "platlib"))
"""Where libraries are: an error that one raises began in the line of the user's that called it."""
_TRACEBACK_LINES = 50
_STACK_FRAMES = 300
"""Of a thread that are looked at."""
_CALLERS = (
    str(_PACKAGE / "runtime" / "engine" / "pump.py"),
    str(_PACKAGE / "runtime" / "actions" / "contained.py"),
)
"""Where the machine calls the code of handlers, and of actions on the loop."""
_FRAMES = ("cr_frame", "gi_frame", "ag_frame")
_AWAITED = ("cr_await", "gi_yieldfrom", "ag_await")
_A_FRAME = '\n  File "'
"""A traceback without one says no more than the line above it."""


class AttemptFailureRecord(msgspec.Struct, frozen=True):
    """What is kept of the last failed attempt."""

    type: str
    message: str
    traceback: str
    since: int | None = None
    """When the first of the failures in a row was, microseconds since 1970 UTC."""


def describe_failure(error: BaseException) -> str:
    """One line; of a group, the errors in it. Never fails, even if a user's exception cannot give its text."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return f"{_message_of_group(group)}: " + "; ".join(describe_failure(one) for one in group.exceptions)
    text = text_of_error(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _message_of_group(group: BaseExceptionGroup[BaseException]) -> str:
    """What it was given, past a property of the user's of that name."""
    return _storable(str(BaseExceptionGroup.message.__get__(group)))


def text_of_error(error: BaseException) -> str:
    """What an exception says, as text that any store and terminal can take."""
    try:
        text = str(error)
    except USER_ERRORS as failure:
        let_signals_pass(failure)
        return f"(it has no text: {type(failure).__name__} was raised when it was asked for it)"
    return _storable(text)


def encode_attempt_failure(error: BaseException, since: int | None = None) -> bytes:
    """For the store."""
    return msgspec.json.encode(
        AttemptFailureRecord(type(error).__qualname__, text_of_error(error), handler_traceback(error), since)
    )


def decode_attempt_failure(content: bytes) -> AttemptFailureRecord:
    return msgspec.json.decode(content, type=AttemptFailureRecord)


def known_attempt_failure(content: bytes | None) -> AttemptFailureRecord:
    """The same of a stored failure, which may be missing, or damaged: it is for people, and nothing depends on it."""
    if content is None:
        return AttemptFailureRecord("unknown", "its cause is not recorded, or cannot be read", "")
    try:
        return decode_attempt_failure(content)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return AttemptFailureRecord("unknown", f"the record of its cause is damaged: {error}", "")


def handler_traceback(error: BaseException) -> str:
    """The traceback as Python prints it, with what caused it, and without the frames of this package's insides."""
    told = traceback.TracebackException.from_exception(error, limit=-_TRACEBACK_LINES, compact=True)
    _leave_out_our_frames(told)
    return _storable("".join(told.format()).rstrip())


def handler_place(error: BaseException) -> str:
    """Where in the user's own code an error was raised, in one line; in a library's, if there is none of the user's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
    frames = [frame for frame in frames if not frame.filename.startswith((_KIT, *_INSTALLED))] or frames
    return _place(frames[-1]) if frames else ""


def _place(frame: traceback.FrameSummary) -> str:
    return f"{frame.filename}:{frame.lineno} (in {frame.name})"


def failure_fields(error: BaseException, *, is_first: bool) -> dict[str, str]:
    """What a log says of a failure: all of it the first time, what it was and where when it comes again."""
    told = {"error": describe_failure(error)}
    place = handler_place(error)
    if place:
        told["at"] = place
    trace = handler_traceback(error) if is_first else ""
    return told | {TRACEBACK: trace} if _A_FRAME in trace else told


def code_that_runs(frame: FrameType) -> tuple[str, str]:
    """Where the user's code is in a thread that stands in this frame: the innermost line, and the stack as text.

    Of the frames that the machine has called; both are empty where none of them is the user's.
    """
    frames = traceback.extract_stack(frame, limit=_STACK_FRAMES)
    machine = max((place for place, one in enumerate(frames) if one.filename in _CALLERS), default=-1)
    shown = [one for one in frames[machine + 1 :] if not _is_ours(one.filename)]
    own = [one for one in shown if not one.filename.startswith((_KIT, *_INSTALLED))]
    if not own:
        return "", ""
    stack = "".join(traceback.StackSummary.from_list(shown[-_TRACEBACK_LINES:]).format())
    return _place(own[-1]), f"Stack (most recent call last):\n{_storable(stack.rstrip())}"


def stack_of_waiting(coroutine: object) -> str:
    """Where a coroutine that is not running waits, down to the innermost await, as Python prints stacks."""
    frames: list[traceback.FrameSummary] = []
    at = coroutine
    while at is not None:
        frame = _first(at, _FRAMES)
        if isinstance(frame, FrameType):
            frames.append(traceback.FrameSummary(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
            at = _first(at, _AWAITED)
        else:  # What stands between an `async for` and its generator shows it to the garbage collector alone.
            at = next((inner for inner in gc.get_referents(at) if _first(inner, _FRAMES) is not None), None)
    own = [frame for frame in frames if not _is_ours(frame.filename)] or frames
    return "".join(traceback.StackSummary.from_list(own[-_TRACEBACK_LINES:]).format())


def _first(of: object, names: Sequence[str]) -> object:
    return next((found for name in names if (found := getattr(of, name, None)) is not None), None)


def begin_in_user_code(error: BaseException) -> BaseException:
    """The same error, whose traceback begins in the user's code: how the machine got there tells a user nothing."""
    trace = error.__traceback__
    while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return error if trace is None else error.with_traceback(trace)


def _leave_out_our_frames(told: traceback.TracebackException) -> None:
    told.stack = traceback.StackSummary.from_list([frame for frame in told.stack if not _is_ours(frame.filename)])
    if told.__cause__ is not None and _is_all_ours(told.__cause__):
        told.__cause__ = None
    if told.__context__ is not None and _is_all_ours(told.__context__):
        told.__context__ = None
    for other in (told.__cause__, told.__context__, *(told.exceptions or ())):
        if other is not None:
            _leave_out_our_frames(other)


def _is_all_ours(told: traceback.TracebackException) -> bool:
    """It was raised and caught within this package, as a parser's error that was told in better words."""
    return bool(told.stack) and all(_is_ours(frame.filename) for frame in told.stack)


def _is_ours(filename: str) -> bool:
    return filename.startswith(_OURS)


def _storable(text: str) -> str:
    return text_for_people(text).replace("\0", "\\0")
