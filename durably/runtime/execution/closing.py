"""Closing what a thrown-away attempt leaves behind, however much of it awaits again while it is being closed (rule D3).

The garbage collector would close a coroutine that is left open, in the middle of the code that runs at that moment.
Closing only the outermost would drop an inner one that awaits again, about which Python complains on standard error.
Errors raised during the closing are ignored.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from durably.actors.values.user_errors import let_signals_pass

CLOSINGS = 1000
"""How often a thrown-away coroutine may await again while it is being closed."""


def close_coroutine(coroutine: Any) -> None:
    """Close a coroutine from the inside out."""
    for _ in range(CLOSINGS):
        _ignoring_errors(_innermost(coroutine).close)
        if not _is_open(coroutine):
            return


def close_asyncgen(asyncgen: AsyncGenerator[Any, Any]) -> None:
    """The same for an asynchronous generator; one that waits inside an `__anext__` can only lose what it waits for."""
    for _ in range(CLOSINGS):
        awaited = getattr(asyncgen, "ag_await", None)
        if _is_open(awaited):
            close_coroutine(awaited)
        closing: Any = asyncgen.aclose()
        has_ended = _ignoring_errors(closing.send, None)
        closing.close()
        if has_ended:
            return


def _innermost(coroutine: Any) -> Any:
    """The coroutine that it waits for, however indirectly, or itself."""
    awaited: Any = getattr(coroutine, "cr_await", None)
    while _is_open(awaited):
        coroutine, awaited = awaited, getattr(awaited, "cr_await", None)
    return coroutine


def _is_open(awaited: Any) -> bool:
    """It is a coroutine that has not ended."""
    return getattr(awaited, "cr_frame", None) is not None


def _ignoring_errors(function: Callable[..., Any], *args: Any) -> bool:
    """Call something whose errors are of no interest; tells whether there was one."""
    try:
        function(*args)
    except BaseException as error:
        let_signals_pass(error)
        return True
    return False
