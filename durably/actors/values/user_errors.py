"""What code of the user's may raise, and which of it belongs to the host (rule E3).

`SystemExit` and `KeyboardInterrupt` end a process, `CancelledError` ends a task, `GeneratorExit` a coroutine, and a
class of the user's may derive from BaseException too. Raised by user code they are failures like any other: nothing
that a handler, an action, a validator, a Serde, a codec or a hook raises may end the host, or get past the caller that
waits for an answer. Only what a signal raises while user code runs passes through: Ctrl-C, or a SIGTERM handler that
calls `sys.exit()`.
"""

from __future__ import annotations

import dis
import signal
import threading
from types import CodeType, TracebackType
from typing import Any, Final

from durably.errors import DurablyError

USER_ERRORS: Final = BaseException
"""What user code fails with. Code that catches these calls `let_signals_pass` first.

A generator that yields meanwhile lets GeneratorExit pass before: it is being closed.
"""

_RAISED_IN_PYTHON: Final = {dis.opmap["RAISE_VARARGS"], dis.opmap["SEND"]}
"""A `raise`, and an `await` of what has failed. Python looks for signals at no such instruction."""


def let_signals_pass(error: BaseException) -> None:
    """Raise the error again if it is the host's."""
    if not isinstance(error, Exception) and is_from_signal(error):
        raise error


def as_exception(error: BaseException) -> Exception:
    """An error as a caller on the host's loop may be given it: what is no Exception would end or cancel its task."""
    if isinstance(error, Exception):
        return error
    told = RuntimeError(f"User code raised {type(error).__name__} where the caller waited for an answer: {error!r}")
    told.__cause__ = error
    return told


def reason_of(error: BaseException) -> str:
    """Why something failed, for a sentence that ends with it and a full stop; never empty, and never fails.

    What says itself what is wrong, such as a ValueError with a text, is not named.
    """
    try:
        text = str(error).removesuffix(".")
    except USER_ERRORS as failure:
        let_signals_pass(failure)
        return type(error).__name__
    if not text:
        return type(error).__name__
    return text if isinstance(error, ValueError | TypeError | DurablyError) else f"{type(error).__name__}: {text}"


def is_from_signal(error: BaseException) -> bool:
    """Whether a signal raised it: Python's own handler of Ctrl-C, or a handler that the host has installed.

    Python runs handlers of signals in the main thread, between two instructions of the code that runs there. One that
    is written in Python has a frame in the traceback. Python's own has none: the error then seems to come out of an
    instruction that cannot raise it.
    """
    if isinstance(error, Exception):
        return False
    if threading.current_thread() is not threading.main_thread():
        return False
    innermost: TracebackType | None = None
    codes = _codes_of_handlers()
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        innermost, trace = trace, trace.tb_next
    if not isinstance(error, KeyboardInterrupt) or innermost is None:
        return False
    return innermost.tb_frame.f_code.co_code[innermost.tb_lasti] not in _RAISED_IN_PYTHON


def _codes_of_handlers() -> set[CodeType]:
    """The code of the handlers of signals that are installed now, as far as they are written in Python."""
    codes = (_code_of(signal.getsignal(number)) for number in signal.valid_signals())
    return {code for code in codes if code is not None}


def _code_of(handler: Any) -> CodeType | None:
    while hasattr(handler, "func"):  # asyncio.Runner installs a partial.
        handler = handler.func
    if not callable(handler):
        return None
    of_an_object = getattr(handler.__call__, "__func__", handler)
    code = getattr(getattr(handler, "__func__", of_an_object), "__code__", None)
    return code if isinstance(code, CodeType) else None
