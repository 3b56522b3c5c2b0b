"""Values as JSON, in one way only: what is equal has equal bytes in every process, so that replay can compare them.

Two ways lead there. Types without sets are written by msgspec as they are. What may hold a set, whose order differs
from process to process, goes through orjson with its elements sorted; what orjson does not know is written as
msgspec would.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from inspect import isawaitable
from typing import Any

import msgspec
import orjson

from durably.actors.values.descriptions import shortened
from durably.actors.values.models import has_sets, is_model, model_json, model_parts
from durably.actors.values.type_checks import is_mapping, is_sequence, is_set
from durably.errors import UnencodableError


def _encode_custom(value: Any) -> Any:
    """What msgspec cannot encode itself: pydantic models, and subclasses of the plain types."""
    if is_model(value):
        return msgspec.Raw(encode_canonically(value) if has_sets(value) else model_json(value))
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    raise NotImplementedError(_unsupported(value))


plain_encoder = msgspec.json.Encoder(enc_hook=_encode_custom)


def encode_plainly(value: Any) -> bytes:
    """For types without sets: their values have one encoding anyway."""
    try:
        return plain_encoder.encode(value)
    except Exception as error:  # Whatever a user's property or serializer raises: the value is to blame.
        raise unencodable(value, error) from error


_CANONICAL = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS


def encode_canonically(value: Any) -> bytes:
    """For types that may hold sets: their elements are sorted by encoding."""
    try:
        return orjson.dumps(value, _canonical_parts, _CANONICAL)
    except Exception as error:  # As above.
        if _only_lacks_big_integers(error):
            return encode_plainly(_without_sets(value))
        raise unencodable(value, error.__cause__ or error) from error


def _canonical_parts(value: Any) -> Any:
    """One level of what orjson does not know, in the form in which msgspec writes it."""
    if is_set(value):
        return [orjson.Fragment(part) for part in sorted(encode_canonically(item) for item in value)]
    if isinstance(value, msgspec.Struct):
        return _struct_parts(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: getattr(value, field.name) for field in dataclasses.fields(value) if hasattr(value, field.name)
        }
    if is_model(value):
        return model_parts(value)
    if isinstance(value, Decimal | timedelta | bytes | bytearray | memoryview):
        return orjson.Fragment(msgspec.json.encode(value))
    return orjson.Fragment(plain_encoder.encode(value))


def _struct_parts(value: msgspec.Struct) -> Any:
    cls = type(value)
    config = cls.__struct_config__
    values = [getattr(value, name) for name in cls.__struct_fields__]
    if config.array_like:
        return values if config.tag is None else [config.tag, *values]
    tag = {} if config.tag is None or config.tag_field is None else {config.tag_field: config.tag}
    named = zip(cls.__struct_encode_fields__, values, strict=True)
    return {**tag, **{name: part for name, part in named if part is not msgspec.UNSET}}


def _only_lacks_big_integers(error: Exception) -> bool:
    return "64-bit" in str(error) or "64-bit" in str(error.__cause__)


def _without_sets(value: Any) -> Any:
    """The slow way, for values with integers beyond 64 bits."""
    if is_set(value):
        return [msgspec.Raw(part) for part in sorted(encode_canonically(item) for item in value)]
    if is_mapping(value):
        return {name: _without_sets(part) for name, part in value.items()}
    if is_sequence(value):
        return [_without_sets(part) for part in value]
    if is_model(value):
        return model_parts(value)
    if isinstance(value, msgspec.Struct) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return _without_sets(_canonical_parts(value))
    return value


def unencodable(value: Any, error: BaseException) -> UnencodableError:
    path, culprit = _culprit(value, "")
    if isawaitable(culprit):
        close = getattr(culprit, "close", None)
        if close is not None:
            close()
        reason = "it was never awaited. Put `await` before the call that gave it, or pass the coroutine function itself"
    else:
        reason = str(error).rstrip(".")
    return UnencodableError(
        f"{shortened(culprit)} ({type(culprit).__name__}){_where(path)} cannot be stored and sent as JSON: {reason}."
    )


def _where(path: str) -> str:
    """`$.items[0]`, as msgspec writes it, where `$` is the whole value."""
    return f", at ${path} (where $ is the whole value)," if path else ""


def _culprit(value: Any, path: str) -> tuple[str, Any]:
    """The innermost part of a value that cannot be encoded, and where it is; for a sentence, so it may be slow."""
    for step, part in _parts(value):
        try:
            plain_encoder.encode(part)
        except Exception:  # That it cannot be encoded is what is asked here; why is told by the first attempt.
            return _culprit(part, path + step)
    return path, value


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    if is_mapping(value):
        yield from ((f".{name}", part) for name, part in value.items())
    elif is_sequence(value) or is_set(value):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif isinstance(value, msgspec.Struct):
        yield from ((f".{name}", getattr(value, name)) for name in value.__struct_fields__)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((f".{field.name}", getattr(value, field.name, None)) for field in dataclasses.fields(value))


def _unsupported(value: Any) -> str:
    return (
        f"its class, {type(value).__qualname__}, is unknown. Use plain values, dataclasses, msgspec or pydantic classes"
    )
