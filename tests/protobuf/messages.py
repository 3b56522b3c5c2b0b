"""Generated messages: of a class, any that its descriptor allows, and some that cannot be written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf import any_pb2
from google.protobuf.message import Message
from hypothesis import strategies as st

from tests.protobuf.compiled import shop

DEEPEST: Final = 3
"""How far generated messages are nested."""

texts = st.text(max_size=5)
floats = st.floats(width=32) | st.sampled_from([0.0, -0.0, float("nan"), float("inf")])
SCALARS: Final[Mapping[str, st.SearchStrategy[Any]]] = {
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "SFIXED32": st.integers(-(2**31), 2**31 - 1),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "SINT64": st.integers(-(2**63), 2**63 - 1),
    "UINT32": st.integers(0, 2**32 - 1),
    "UINT64": st.integers(0, 2**64 - 1),
    "FIXED64": st.integers(0, 2**64 - 1),
    "BOOL": st.booleans(),
    "FLOAT": floats,
    "DOUBLE": st.floats() | floats,
    "BYTES": st.binary(max_size=5),
    "STRING": texts,
    "ENUM": st.sampled_from([0, 1, -2, 7]),
}
PACKED: Final = [any_pb2.Any(type_url="nowhere/shop.Unknown", value=b"\x01"), any_pb2.Any()]


def messages(cls: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Of a class: each field set or not, unknown fields too."""
    return st.composite(_message)(cls, depth)


def _message(draw: st.DrawFn, cls: Any, depth: int) -> Message:
    made: Message = cls()
    fields = list(cls.DESCRIPTOR.fields)
    for field in draw(st.lists(st.sampled_from(fields), max_size=6)) if fields else ():
        if field.message_type is None or depth < DEEPEST:
            _SETTERS[_kind(field)](draw, made, field, depth)
    if draw(st.integers(0, 9)) == 9:
        made.MergeFromString(shop.OldTicket(seat="x").SerializeToString().replace(b"\x0a", b"\xba\x3e"))  # Field 999.
    return made


def _kind(field: Any) -> str:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return "map"
    return ("repeated " if is_repeated(field) else "") + ("message" if field.message_type is not None else "scalar")


def is_repeated(field: Any) -> bool:
    newer = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED) if newer is None else bool(newer)


def _scalar(draw: st.DrawFn, field: Any) -> Any:
    return draw(SCALARS[_type_name(field)])


def _type_name(field: Any) -> str:
    (name,) = (name for name in dir(field) if name.startswith("TYPE_") and getattr(field, name) == field.type)
    return name.removeprefix("TYPE_")


def _set_scalar(draw: st.DrawFn, made: Any, field: Any, depth: int) -> None:
    setattr(made, field.name, _scalar(draw, field))


def _add_scalars(draw: st.DrawFn, made: Any, field: Any, depth: int) -> None:
    getattr(made, field.name).extend([_scalar(draw, field) for _ in range(draw(st.integers(0, 2)))])


def _set_message(draw: st.DrawFn, made: Any, field: Any, depth: int) -> None:
    getattr(made, field.name).CopyFrom(_part(draw, field, depth))


def _add_messages(draw: st.DrawFn, made: Any, field: Any, depth: int) -> None:
    getattr(made, field.name).extend([_part(draw, field, depth)])


def _part(draw: st.DrawFn, field: Any, depth: int) -> Any:
    if field.message_type.full_name == "google.protobuf.Any" and draw(st.booleans()):
        return draw(st.sampled_from(PACKED))
    return draw(messages(field.message_type._concrete_class, depth + 1))


def _set_map(draw: st.DrawFn, made: Any, field: Any, depth: int) -> None:
    entry = field.message_type.fields_by_name
    for _ in range(draw(st.integers(0, 3))):
        key = _scalar(draw, entry["key"])
        if entry["value"].message_type is None:
            getattr(made, field.name)[key] = _scalar(draw, entry["value"])
        else:
            getattr(made, field.name)[key].CopyFrom(_part(draw, entry["value"], depth))


_SETTERS: Final[Mapping[str, Callable[[st.DrawFn, Any, Any, int], None]]] = {
    "scalar": _set_scalar,
    "repeated scalar": _add_scalars,
    "message": _set_message,
    "repeated message": _add_messages,
    "map": _set_map,
}
