"""`POST /query`: an answer as JSON, or as a stream of Arrow (`application/vnd.apache.arrow.stream`), as Restate's.

JSON is for those who ask for it (`accept: application/json`), Arrow for all others. In JSON, bytes are hexadecimal and
NULLs are left out. Arrow needs the extra `arrow`; without it everybody gets JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import msgspec

from durably.runtime.queries.column_names import unique_names

if TYPE_CHECKING:
    from durably.runtime.queries.queries import QueryAnswer

JSON_TYPE: Final = "application/json"
ARROW_TYPE: Final = "application/vnd.apache.arrow.stream"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
BOOLEAN, BINARY, NUMBERS, TEXTS = "boolean", "binary", "numbers", "texts"


def wants_json(accept: str) -> bool:
    """The client names JSON, or Arrow cannot be had."""
    named = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return JSON_TYPE in named or find_spec("pyarrow") is None


def as_json(answer: QueryAnswer) -> bytes:
    readers = [_JSON.get(type or "", _itself) for _, type in answer.columns]
    names = unique_names(name for name, _ in answer.columns)
    rows = [
        {
            name: read(value)
            for name, read, value in zip(names, readers, row, strict=True)
            if value is not None
        }
        for row in answer.rows
    ]  # fmt: skip
    return msgspec.json.encode({"rows": rows})


def _itself(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


def _boolean(value: object) -> object:
    return bool(value) if isinstance(value, int) else _itself(value)


def _list(value: object) -> object:
    return msgspec.Raw(value.encode()) if isinstance(value, str) else _itself(value)


_JSON: Final[Mapping[str, Callable[[object], object]]] = {BOOLEAN: _boolean, NUMBERS: _list, TEXTS: _list}


# ---------------------------------------------------------------- Arrow


def _pyarrow() -> Any:
    """It has no types, and is imported by the first answer that needs it."""
    return import_module("pyarrow")


def as_arrow(answer: QueryAnswer) -> bytes:
    pa = _pyarrow()
    columns = list(zip(*answer.rows, strict=True)) if answer.rows else [() for _ in answer.columns]
    arrays = [_array(values, type) for (_, type), values in zip(answer.columns, columns, strict=True)]
    names = [name for name, _ in answer.columns]
    schema = pa.schema([pa.field(name, array.type) for name, array in zip(names, arrays, strict=True)])
    batch = pa.record_batch(arrays, schema=schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _array(values: Sequence[Any], type: str | None) -> Any:
    """The values as their column is; where one does not fit, as what they are."""
    pa = _pyarrow()
    if type is not None:
        try:
            return _ARRAYS[type](values)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            pass
    return _as_they_are(values)


def _as_they_are(values: Sequence[Any]) -> Any:
    pa = _pyarrow()
    known = [value for value in values if value is not None]
    if all(isinstance(value, int) for value in known):
        return pa.array(values, pa.int64())
    if all(isinstance(value, int | float) for value in known):
        return pa.array(values, pa.float64())
    if all(isinstance(value, bytes) for value in known):
        return pa.array(values, pa.large_binary())
    return pa.array([_text(value) for value in values], pa.large_string())


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return value.hex() if isinstance(value, bytes) else str(value)


def _typed(make: Callable[[Any], Any], read: Callable[[Any], Any] | None = None) -> Callable[[Sequence[Any]], Any]:
    def array(values: Sequence[Any]) -> Any:
        pa = _pyarrow()
        told = values if read is None else [None if value is None else read(value) for value in values]
        return pa.array(told, make(pa))

    return array


def _moment_ms(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)


def _span_ms(text: str) -> int:
    return round(float(text.removeprefix("PT").removesuffix("S")) * 1000)


_ARRAYS: Final[Mapping[str, Callable[[Sequence[Any]], Any]]] = {
    "text": _typed(lambda pa: pa.large_string()),
    "unsigned": _typed(lambda pa: pa.uint32()),
    "long": _typed(lambda pa: pa.uint64()),
    "integer": _typed(lambda pa: pa.int64()),
    "real": _typed(lambda pa: pa.float64()),
    BOOLEAN: _typed(lambda pa: pa.bool_(), bool),
    "moment": _typed(lambda pa: pa.timestamp("ms", "+00:00"), _moment_ms),
    "duration": _typed(lambda pa: pa.duration("ms"), _span_ms),
    BINARY: _typed(lambda pa: pa.large_binary()),
    NUMBERS: _typed(lambda pa: pa.list_(pa.uint32()), msgspec.json.decode),
    TEXTS: _typed(lambda pa: pa.list_(pa.large_string()), msgspec.json.decode),
}
