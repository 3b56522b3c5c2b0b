"""`HistoryCall`: one call of one object as its caller saw it; and histories of such calls drawn as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from durably.errors import TerminalError

_TEXT_CHARS = 100
"""How much of one value or message is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryCall:
    """A call of an object: what was asked, when, and what came back.

    `began` and `ended` are moments of one logical clock: a call that ended before another began came before it, and
    calls that overlap may have taken effect in either order. `ended` is None where no caller heard of the end (it was
    killed, or gave up): the call may have taken effect at any moment after it began, or never, and its `result` is not
    looked at. `error` is the `TerminalError` that the call raised. `who` names the caller, or the invocation, for
    people.

    Raises:
        ValueError: it ended before it began.
    """

    handler: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    began: int
    ended: int | None
    result: Any = None
    error: TerminalError | None = None
    who: str = ""

    def __post_init__(self) -> None:
        if self.ended is not None and self.ended < self.began:
            raise ValueError(
                f"{self.asked} ended at {self.ended}, before it began at {self.began}. "
                "Take both times from one clock that only counts up."
            )

    @property
    def asked(self) -> str:
        """What was asked, as code: `reserve('ann')`."""
        values = [shown(value) for value in self.args]
        values += [f"{name}={shown(value)}" for name, value in self.kwargs.items()]
        return f"{self.handler}({', '.join(values)})"

    @property
    def answered(self) -> str:
        """What came back: `-> True`, `raised SoldError: ...`, or that no caller heard of it."""
        return "(no caller heard of its end)" if self.ended is None else answer_text(self.result, self.error)

    def __str__(self) -> str:
        return f"{self.asked} {self.answered}"


def shown(value: object) -> str:
    """The `repr` of a value, cut where it is long."""
    return cut(repr(value))


def cut(text: str) -> str:
    """A text on one line, without its end where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _TEXT_CHARS else f"{line[: _TEXT_CHARS - 1]}…"


def answer_text(result: object, error: TerminalError | None) -> str:
    """How a call ended, as in `reserve('ann') -> True`."""
    return f"-> {shown(result)}" if error is None else f"raised {type(error).__name__}: {cut(str(error))}"


def draw(calls: Sequence[HistoryCall], *, until: int, notes: Mapping[int, str]) -> list[str]:
    """One line for each call, by its beginning; every beginning and end up to `until` is a column.

    What ended later, or is not known to have ended, goes on to the right (`>`). `notes` has a remark for the call at a
    position in `calls`.
    """
    moments = {call.began for call in calls} | {call.ended for call in calls if call.ended is not None}
    columns = {moment: 2 * place for place, moment in enumerate(sorted(m for m in moments if m <= until))}
    width = 2 * len(columns)
    names = max((len(call.who) for call in calls), default=0)
    lines: list[str] = []
    for position in sorted(range(len(calls)), key=lambda position: calls[position].began):
        call = calls[position]
        start = " " * columns[call.began] + "|"
        end = columns.get(call.ended) if call.ended is not None else None
        bar = (start.ljust(width, "-") + ">") if end is None else (start.ljust(end, "-") + "|")
        lines.append(f"{call.who:<{names}}  {bar:<{width + 1}}  {call}{notes.get(position, '')}".strip("\n"))
    return lines
