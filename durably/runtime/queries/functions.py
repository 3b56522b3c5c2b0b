"""What the views call: functions that read stored payloads, through the codec of the store (rule V8).

A payload that cannot be read is NULL: one of them never fails a query about all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from durably.actors.values.error_envelopes import code_of, decode_failure, message_of
from durably.errors import UndecodableError
from durably.runtime.execution.failure_text import known_attempt_failure
from durably.runtime.execution.step import Outcome
from durably.runtime.invocations.outcomes import decode_outcome
from durably.storage.encoding import bytes_of
from durably.storage.querying import VALUE_LIMIT_BYTES

Stored: TypeAlias = str | bytes | None
Function: TypeAlias = tuple[int, Callable[..., Any]]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_US: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


class Payloads:
    """Reads what the store keeps. `unwrap` is the codec's, or gives back what it is given."""

    def __init__(self, unwrap: Callable[[bytes], bytes]) -> None:
        self._unwrap = unwrap

    def read(self, stored: Stored) -> bytes | None:
        if stored is None:
            return None
        try:
            return self._unwrap(stored if isinstance(stored, bytes) else bytes_of(stored))
        except (UndecodableError, ValueError):
            return None

    def outcome(self, stored: Stored) -> Outcome | None:
        content = self.read(stored)
        if content is None:
            return None
        try:
            return decode_outcome(content)
        except UndecodableError:
            return None

    def outcome_result(self, stored: Stored) -> str | None:
        found = self.outcome(stored)
        if found is None:
            return None
        return "failure" if found.failed else "success"

    def outcome_failure(self, stored: Stored) -> str | None:
        found = self.outcome(stored)
        return error_text(found.value) if found is not None and found.failed else None

    def failure_text(self, stored: Stored) -> str | None:
        content = self.read(stored)
        if content is None:
            return None
        known = known_attempt_failure(content)
        return _short("\n".join(filter(None, [f"{known.type}: {known.message}", known.traceback])))

    def functions(self) -> Mapping[str, Function]:
        return {
            "payload": (1, self.read),
            "outcome_result": (1, self.outcome_result),
            "outcome_failure": (1, self.outcome_failure),
            "failure_text": (1, self.failure_text),
            "error_text": (1, error_text),
            "utf8": (1, utf8),
            "moment": (1, moment_text),
            "span": (1, span_text),
            "shifted": (2, shifted),
            "value_limit": (0, _value_limit),
        }


def error_text(envelope: bytes | None) -> str | None:
    """What a stored `TerminalError` says, as Restate writes it."""
    if envelope is None:
        return None
    error = decode_failure(envelope)
    return _short(f"[{code_of(error)}] {message_of(error)}")


def utf8(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def moment_text(moment_us: int | None) -> str | None:
    """Microseconds since 1970 UTC as `2026-11-28T10:19:52.493Z`, which sorts as it should."""
    if moment_us is None or not 0 <= moment_us <= _MOST_US:
        return None
    told = _EPOCH + timedelta(microseconds=moment_us)
    return f"{told:%Y-%m-%dT%H:%M:%S}.{told.microsecond // 1000:03}Z"


def span_text(span_us: int | None) -> str | None:
    if span_us is None:
        return None
    seconds, rest_us = divmod(span_us, 1_000_000)
    return f"PT{seconds}S" if not rest_us else f"PT{seconds}.{rest_us // 1000:03}S"


def shifted(moment: str | None, seconds: float) -> str | None:
    """A moment, so many seconds later."""
    if not isinstance(moment, str):
        return None
    try:
        told = datetime.fromisoformat(moment)
        told = told.replace(tzinfo=UTC) if told.tzinfo is None else told
        return moment_text((told + timedelta(seconds=seconds) - _EPOCH) // timedelta(microseconds=1))
    except (ValueError, OverflowError):
        return None


class FirstBy:
    """Of the rows of a group, the value of the one that comes first; of equal ones, of the one that was seen first."""

    def __init__(self) -> None:
        self._order: Any = None
        self._value: Any = None
        self._is_empty = True

    def step(self, value: Any, order: Any) -> None:
        if self._is_empty or _key(order) < _key(self._order):
            self._value, self._order, self._is_empty = value, order, False

    def finalize(self) -> Any:
        return self._value


class LastBy(FirstBy):
    """The same of the one that comes last."""

    def step(self, value: Any, order: Any) -> None:
        if self._is_empty or _key(order) >= _key(self._order):
            self._value, self._order, self._is_empty = value, order, False


AGGREGATES: Final[Mapping[str, tuple[int, Callable[[], Any]]]] = {"first_by": (2, FirstBy), "last_by": (2, LastBy)}


def _key(value: Any) -> tuple[int, Any]:
    """Values of all kinds in one order: numbers, texts, bytes, and NULL last, as in Postgres."""
    match value:
        case None:
            return 3, 0
        case str():
            return 1, value
        case bytes():
            return 2, value
        case _:
            return 0, value


def _short(text: str) -> str:
    return text[: VALUE_LIMIT_BYTES // 8]


def _value_limit() -> int:
    return VALUE_LIMIT_BYTES
