"""`ContinueAsNew`: what unwinds a handler that goes on in a new execution (rule T5)."""

from __future__ import annotations


class ContinueAsNew(BaseException):
    """Raised by `ctx.continue_as_new()`. No `Exception`, so that handlers that catch errors let it pass."""

    def __init__(self, argument: bytes) -> None:
        super().__init__("the handler continues as new")
        self.argument = argument
        """Of the next execution, in the journal's form."""


def continuation_in(error: BaseException) -> ContinueAsNew | None:
    """What left the handler, by itself or out of a group of tasks of which nothing else failed."""
    if isinstance(error, ContinueAsNew):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    found = [continuation_in(part) for part in error.exceptions]
    return found[0] if all(found) else None
