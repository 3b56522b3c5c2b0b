"""Values as JSON, in one way only: what is equal has equal bytes in every process, so that replay can compare them.

Two ways lead there. Types without sets are written by msgspec as they are. What may hold a set, whose order differs
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from process to process, goes through orjson with its elements sorted; what orjson does not know is written as
msgspec would.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from inspect import isawaitable
from typing import Any

import msgspec
import orjson

from durably.actors.values.descriptions import shortened
from durably.actors.values.messages import HOW_TO_WRITE_ONE, is_message_class
from durably.actors.values.models import has_sets, is_model, model_json, model_parts
from durably.actors.values.places import below
from durably.actors.values.records import fields_of, is_record, parts_of
from durably.actors.values.type_checks import is_mapping, is_sequence, is_set
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
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


DEEPEST_LEVELS = 254
"""How deep lists and dicts may be nested: as deep as orjson writes. Less than can be read, wherever it is read."""
TOO_DEEP = f"it is nested deeper than {DEEPEST_LEVELS} levels"

plain_encoder = msgspec.json.Encoder(enc_hook=_encode_custom)


def encode_plainly(value: Any) -> bytes:
    """For types without sets: their values have one encoding anyway."""
    try:
        return plain_encoder.encode(value)
    except USER_ERRORS as error:  # A user's property or serializer may raise any error: the value is to blame.
        let_signals_pass(error)
        raise unencodable(value, error) from error


_CANONICAL = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS


def encode_canonically(value: Any) -> bytes:
    """For types that may hold sets: their elements are sorted by encoding."""
    try:
        return orjson.dumps(value, _canonical_parts, _CANONICAL)
    except USER_ERRORS as error:  # As above.
        let_signals_pass(error)
        if _only_lacks_big_integers(error):
            return encode_plainly(_without_sets(value))
        raise unencodable(value, error.__cause__ or error) from error


_PLAIN = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def encode_if_plain(value: Any) -> bytes | None:
    """The same for a value that is JSON already, all keys strings; None for any other, and where NaN may be in it."""
    try:
        data = orjson.dumps(value, option=_PLAIN)
    except TypeError:
        return None
    return None if b"null" in data and value is not None else data


def _canonical_parts(value: Any) -> Any:
    """One level of what orjson does not know, in the form in which msgspec writes it."""
    if is_set(value):
        return [orjson.Fragment(part) for part in sorted(encode_canonically(item) for item in value)]
    if is_model(value):
        return model_parts(value)
    if is_record(value):
        return parts_of(value)
    if isinstance(value, Decimal | timedelta | bytes | bytearray | memoryview):
        return orjson.Fragment(msgspec.json.encode(value))
    return orjson.Fragment(plain_encoder.encode(value))


def _only_lacks_big_integers(error: BaseException) -> bool:
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
    if is_record(value):
        return _without_sets(parts_of(value))
    return value


def check_depth(data: bytes) -> None:
    """See that what was written is not nested deeper than can be written again, wherever it is put together anew.

    Raises:
        RecursionError: it is.
    """
    if data.count(b"[") + data.count(b"{") <= DEEPEST_LEVELS:
        return
    try:
        orjson.dumps(orjson.loads(data))  # orjson's own limit, at its speed: values nested deeper raise in `dumps`.
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
        if "recursion" in str(error).lower():
            raise RecursionError(TOO_DEEP) from error


def unencodable(value: Any, error: BaseException) -> UnencodableError:
    too_deep = "recursion" in str(error).lower()
    path, culprit = ("", value) if too_deep else _culprit(value, "")
    if isawaitable(culprit):
        close = getattr(culprit, "close", None)
        if close is not None:
            close()
        reason = "it was never awaited. Put `await` before the call that gave it, or pass the coroutine function itself"
    else:
        reason = TOO_DEEP if too_deep else str(error).rstrip(".")
    return UnencodableError(
        f"{shortened(culprit)} ({type(culprit).__name__}){place_in(path)} cannot be stored and sent as JSON: {reason}.",
        path=f"${path}",
    )


def place_in(path: str) -> str:
    """For a sentence: `$.items[0]`, as msgspec writes it, where `$` is the whole value."""
    return f", at ${path} (where $ is the whole value)," if path else ""


def _culprit(value: Any, path: str) -> tuple[str, Any]:
    """The innermost part of a value that cannot be encoded, and where it is; for a sentence, so it may be slow."""
    for step, part in _parts(value):
        try:
            plain_encoder.encode(part)
        except USER_ERRORS as error:  # What it raises was reported by the first attempt.
            let_signals_pass(error)
            return _culprit(part, path + step)
    return path, value


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    if is_mapping(value):
        yield from ((below("", name), part) for name, part in value.items())
    elif is_sequence(value) or is_set(value):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif is_record(value):
        yield from ((f".{name}", getattr(value, name, None)) for name in fields_of(value))


def _unsupported(value: Any) -> str:
    if is_message_class(value.__class__):
        return f"it is a protobuf message. {HOW_TO_WRITE_ONE}"
    return (
        f"its class, {type(value).__qualname__}, is unknown. Use plain values, dataclasses, msgspec or pydantic classes"
    )
