"""`MsgpackSerde`: values as MessagePack that says of itself what it holds: untyped values come back as such, too.

JSON has no dates, decimals or sets: under `Any` they come back as text and lists. Here each has an extension type, and
so has every class that `register` was given. A declared type is met after that, as JSON meets it, so dataclasses,
Structs and pydantic models need not be registered where an annotation names them.

An extension type is a number that MessagePack leaves to applications; the numbers below are part of the format.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Any, Final, Generic, TypeVar, cast, overload
from uuid import UUID

import msgspec
from msgspec import inspect as shapes

from durably.actors.values.constraints import declarations_in
from durably.actors.values.descriptions import MISSING, describe, named, shortened
from durably.actors.values.durations import MICROSECOND
from durably.actors.values.encoding import DEEPEST_LEVELS, TOO_DEEP, place_in
from durably.actors.values.messages import HOW_TO_WRITE_ONE, is_message_class
from durably.actors.values.models import class_of, dumped, is_model, is_model_class
from durably.actors.values.places import below, located
from durably.actors.values.records import is_record, is_record_class, parts_of
from durably.actors.values.round_trip import (
    ClassDifference,
    Difference,
    IncomparableError,
    compare,
    compare_classes,
    how_to_keep,
)
from durably.actors.values.type_checks import is_class, is_mapping, is_text
from durably.actors.values.type_features import Features
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.errors import DefinitionError, UndecodableError, UnencodableError

T = TypeVar("T")
ClassT = TypeVar("ClassT", bound=type)

MSGPACK: Final = "application/msgpack"

DECIMAL, ID, SET, FROZEN_SET, TUPLE, MOMENT, DAY, CLOCK, SPAN, INTEGER, INSTANCE, MAPPING = range(1, 13)

FOLD: Final = "~"
"""Ends the text of a date or time with `fold=1`."""
LEAST_INTEGER, LARGEST_INTEGER = -(2**63), 2**64 - 1
"""What MessagePack has integers for; others are written as text."""

_NATIVE = (bytes, bytearray, datetime, date, time, timedelta, UUID, Decimal)
"""What is an object of its own before a declared type is met."""


class Registry:
    """Classes whose instances come back as such where no annotation names them."""

    def __init__(self) -> None:
        self._names: dict[type, str] = {}
        self._classes: dict[str, type] = {}

    def add(self, cls: ClassT, name: str) -> ClassT:
        known = self._classes.get(name)
        if known is not None and _identity(known) != _identity(cls):
            raise DefinitionError(
                f"{named(cls)} was registered under the name {name!r}, which {known.__module__}.{named(known)} has. "
                "Give one of them another name: MsgpackSerde.register(cls, name=...)."
            )
        self._names[cls], self._classes[name] = name, cls
        return cls

    def name_of(self, cls: type) -> str | None:
        return self._names.get(cls)

    def class_of(self, name: str) -> type:
        """
        Raises:
            ValueError: nothing was registered under this name.
        """
        cls = self._classes.get(name)
        if cls is None:
            raise ValueError(f"it holds an instance of {name!r}, and no class is registered under this name here")
        return cls


def _identity(cls: type) -> tuple[str, str]:
    """What is the same of a class and of itself when its module is read once more."""
    return cls.__module__, cls.__qualname__


_registry = Registry()


class MsgpackSerde(Generic[T]):
    """MessagePack of one type; without one, of plain values, dates, decimals, UUIDs, sets and registered classes.

    `Runtime(serde=MsgpackSerde)` and `class Cart(VirtualObject, serde=MsgpackSerde)` make one for each type; a handler
    takes an instance: `@handler(accepts=MsgpackSerde(Order))`.

    Raises:
        DefinitionError: values of the type cannot be read again.
    """

    content_type = MSGPACK
    is_exact = True

    @overload
    def __init__(self: MsgpackSerde[Any]) -> None: ...
    @overload
    def __init__(self, returns: type[T]) -> None: ...
    @overload
    def __init__(self: MsgpackSerde[Any], returns: Any) -> None: ...
    def __init__(self, returns: Any = Any) -> None:
        annotation: Any = Any if returns is MISSING else returns
        self._annotation = annotation
        self._convert = _conversion(annotation)

    @staticmethod
    def register(class_: ClassT, *, name: str | None = None) -> ClassT:
        """Let instances of a class come back as such, wherever they are.

        It takes a dataclass, a Struct, an attrs or pydantic class, a NamedTuple, or an enum, and may be used as a
        decorator. `name` is written instead of the module and name of the class; give it when a class moves.

        Raises:
            DefinitionError: instances of the class have no declared fields, or its name is taken or no text.
        """
        if name is not None and not (is_text(name) and name.isprintable() and name):
            raise DefinitionError(f"MsgpackSerde.register(..., name=...) is printable text, not {name!r}.")
        if not _has_parts(class_):
            raise DefinitionError(
                f"{class_!r} cannot be registered: it is no dataclass, Struct, attrs or pydantic class, no NamedTuple, "
                "and no enum."
            )
        return _registry.add(class_, f"{class_.__module__}.{class_.__qualname__}" if name is None else name)

    def encode(self, value: T, /) -> bytes:
        """
        Raises:
            UnencodableError: it cannot be written, or would be read as something else; says where.
        """
        try:
            data = _encoder.encode(_written(value, "", 0))
        except UnencodableError:
            raise
        except USER_ERRORS as error:  # A property or serializer of the user's.
            let_signals_pass(error)
            raise UnencodableError(f"{shortened(value)} cannot be written as MessagePack: {error}.") from error
        self._prove(value, data)
        return data

    def decode(self, data: bytes, /) -> T:
        """
        Raises:
            UndecodableError: the bytes are something else.
        """
        try:
            return self._read(data)
        except USER_ERRORS as error:  # Validators of users' classes may raise anything.
            let_signals_pass(error)
            path, reason = located(error, data, self._read, form=msgspec.msgpack)
            raise UndecodableError(
                f"Expected {describe(self._annotation)} as MessagePack: {reason}{f' at {path}' if path[1:] else ''}.",
                path=path,
                reason=reason,
            ) from error

    def _read(self, data: bytes) -> T:
        return cast("T", self._convert(_decoder.decode(data)))

    def _prove(self, value: T, data: bytes) -> None:
        """See that it is read as it was given (rule V5)."""
        try:
            read = self.decode(data)
            compare(value, read, loose=False)
            compare_classes(value, read)
        except Difference as difference:
            given, read, path = difference.value, difference.read, difference.path
            raise UnencodableError(
                f"{shortened(given)} ({type(given).__name__}){place_in(path)} would be read as {shortened(read)} "
                f"({type(read).__name__}). {_way_out(difference)}",
                path=f"${path}",
            ) from None
        except UndecodableError as error:
            registered = _registered_in(_decoder.decode(data))
            way_out = "" if registered is None else f" {_how_to_annotate(registered)}"
            raise UnencodableError(f"{shortened(value)} could not be read again: {error.message}{way_out}") from error
        except IncomparableError as error:
            raise UnencodableError(
                f"{shortened(value)} cannot be compared with what is read again: {error}."
            ) from error


def _way_out(difference: Difference) -> str:
    given, read = difference.value, difference.read
    way_out = how_to_keep(given)
    if way_out is not None:
        return way_out
    cls = class_of(given)
    if isinstance(difference, ClassDifference) and not _has_parts(cls):
        return f"Give {class_of(read).__name__}(value): MessagePack has no {cls.__name__}."
    if _registry.name_of(cls) is not None:
        return _how_to_annotate(cls)
    return "Annotate its class; or annotate Any, and register its class with MsgpackSerde.register."


def _how_to_annotate(cls: type) -> str:
    return f"{named(cls)} is registered, and comes back where {named(cls)} or Any is annotated, not as another type."


def _registered_in(read: Any) -> type | None:
    """The class of the first instance in what was read by no annotation, which only a registered one can have."""
    if is_mapping(read):
        parts = [*read, *read.values()]
    elif type(read) in (list, tuple, set, frozenset):
        parts = list(read)
    else:
        cls = class_of(read)
        return None if _registry.name_of(cls) is None else cls
    return next((cls for cls in map(_registered_in, parts) if cls is not None), None)


# ---------------------------------------------------------------- writing

_encoder = msgspec.msgpack.Encoder()


def _written(value: Any, path: str, depth: int) -> Any:
    """The value in what MessagePack knows; `path` is where it is in the whole."""
    cls = _class(value)
    if cls in (str, bytes, bool, float, type(None)):
        return value
    if depth > DEEPEST_LEVELS:
        raise UnencodableError(f"It cannot be written as MessagePack: {TOO_DEEP}.")
    name = _registry.name_of(cls)
    if name is not None:
        return _extension(INSTANCE, [name, _parts(value, path, depth + 1)])
    write = _WRITERS.get(cls)
    if write is not None:
        return write(value, path, depth + 1)
    if isinstance(value, Enum):
        return _written(value.value, path, depth)
    if is_record(value):
        return _parts(value, path, depth + 1)
    for base, write in _WRITERS.items():
        if isinstance(value, base):
            return write(value, path, depth + 1)
    reason = (
        f"it is a protobuf message. {HOW_TO_WRITE_ONE}"
        if is_message_class(cls)
        else f"its class, {cls.__qualname__}, is unknown. Use plain values, dataclasses, msgspec or pydantic classes"
    )
    raise UnencodableError(
        f"{shortened(value)} ({cls.__name__}){place_in(path)} cannot be written as MessagePack: {reason}.",
        path=f"${path}",
    )


def _class(value: object) -> type:
    return type(value)


def _parts(value: Any, path: str, depth: int) -> Any:
    """A record, a NamedTuple or an enum, one level down."""
    if isinstance(value, Enum):
        return _written(value.value, path, depth)
    if isinstance(value, tuple):
        return _items(value, path, depth)
    parts = dumped(value) if is_model(value) else parts_of(value)
    return _items(parts, path, depth) if isinstance(parts, list) else _mapping(parts, path, depth)


def _items(value: Any, path: str, depth: int) -> list[Any]:
    return [_written(item, f"{path}[{index}]", depth) for index, item in enumerate(value)]


def _mapping(value: Any, path: str, depth: int) -> Any:
    pairs: list[tuple[Any, Any]] = []
    for name, part in value.items():
        pairs.append((_written(name, path, depth), _written(part, below(path, name), depth)))
    if any(isinstance(name, msgspec.msgpack.Ext) for name, _ in pairs):  # msgspec reads no extension types as keys.
        return _extension(MAPPING, pairs)
    return dict(pairs)


def _integer(value: int, _path: str, _depth: int) -> Any:
    plain = int(value)
    return plain if LEAST_INTEGER <= plain <= LARGEST_INTEGER else _text(INTEGER, str(plain))


def _unordered(code: int) -> Callable[[Any, str, int], Any]:
    def write(value: Any, path: str, depth: int) -> Any:
        return _extension(code, sorted((_written(item, path, depth) for item in value), key=_encoder.encode))

    return write


def _span(value: timedelta, _path: str, _depth: int) -> Any:
    return _text(SPAN, str(value // MICROSECOND))


def _textual(code: int, text: Callable[[Any], str]) -> Callable[[Any, str, int], Any]:
    return lambda value, _path, _depth: _text(code, text(value))


def _text(code: int, text: str) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, text.encode())


def _extension(code: int, content: Any) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, _encoder.encode(content))


def _time_text(value: datetime | time) -> str:
    return value.isoformat() + FOLD * value.fold


_WRITERS: dict[type, Callable[[Any, str, int], Any]] = {
    int: _integer,
    list: _items,
    dict: _mapping,
    tuple: lambda value, path, depth: _extension(TUPLE, _items(value, path, depth)),
    set: _unordered(SET),
    frozenset: _unordered(FROZEN_SET),
    datetime: _textual(MOMENT, _time_text),
    date: _textual(DAY, date.isoformat),
    time: _textual(CLOCK, _time_text),
    timedelta: _span,
    Decimal: _textual(DECIMAL, str),
    UUID: lambda value, _path, _depth: msgspec.msgpack.Ext(ID, value.bytes),
    str: lambda value, _path, _depth: str.__str__(value),
    float: lambda value, _path, _depth: float(value),
    bytes: lambda value, _path, _depth: bytes(value),
    bytearray: lambda value, _path, _depth: bytes(value),
    memoryview: lambda value, _path, _depth: bytes(value),
}
"""By class; of a class that is not here, the first that it is a subclass of."""


# ---------------------------------------------------------------- reading


def _read_extension(code: int, data: memoryview) -> Any:
    read = _READERS.get(code)
    if read is None:
        raise ValueError(f"it holds the extension type {code}, which is none of durably's")
    return read(bytes(data))


def _instance(data: bytes) -> Any:
    name, parts = _decoder.decode(data)
    cls = _registry.class_of(name)
    return cls(parts) if issubclass(cls, Enum) else _conversion(cls)(parts)


def _read_text(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
    return lambda data: read(data.decode())


def _read_time(cls: type[datetime] | type[time], text: str) -> datetime | time:
    value = cls.fromisoformat(text.removesuffix(FOLD))
    return value.replace(fold=1) if text.endswith(FOLD) else value


def _distinct(pairs: list[Any]) -> dict[Any, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError(f"{len(pairs)} keys are read as {len(made)}: {shortened(list(made))}")
    return made


_READERS: dict[int, Callable[[bytes], Any]] = {
    DECIMAL: _read_text(Decimal),
    ID: lambda data: UUID(bytes=data),
    SET: lambda data: set(_decoder.decode(data)),
    FROZEN_SET: lambda data: frozenset(_decoder.decode(data)),
    TUPLE: lambda data: tuple(_decoder.decode(data)),
    MOMENT: _read_text(partial(_read_time, datetime)),
    DAY: _read_text(date.fromisoformat),
    CLOCK: _read_text(partial(_read_time, time)),
    SPAN: _read_text(lambda text: int(text) * MICROSECOND),
    INTEGER: _read_text(int),
    INSTANCE: _instance,
    MAPPING: lambda data: _distinct(_decoder.decode(data)),
}

_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ext_hook=_read_extension, strict=True)


def _conversion(annotation: Any) -> Callable[[Any], Any]:
    """What makes of plain values those of a declared type.

    Raises:
        DefinitionError: nothing does.
    """
    if annotation in (Any, object):
        return lambda value: value
    if isinstance(annotation, type) and is_model_class(annotation):
        validate: Callable[[Any], Any] = cast("Any", annotation).model_validate
        return validate
    if declarations_in(annotation).foreign is not None:
        return _validation(annotation)
    try:
        msgspec.json.Decoder(annotation, dec_hook=_validated)  # Says what cannot be read of this type.
        _Features().visit(shapes.type_info(annotation), describe(annotation))
    except DefinitionError:
        raise
    except USER_ERRORS as error:  # msgspec evaluates user classes here, and anything may come out of them.
        let_signals_pass(error)
        raise DefinitionError(f"{describe(annotation)} cannot be read from MessagePack: {error}") from error
    return partial(_converted, annotation)


class _Features(Features):
    """Refuses classes of which nothing is known; keys and flags are written as what they are."""

    FORMAT = "MessagePack"

    def _refuse_keys(self, key: shapes.Type, name: str) -> None: ...
    def _refuse_flags(self, cls: type[Enum], name: str) -> None: ...


def _converted(annotation: Any, value: Any) -> Any:
    return msgspec.convert(value, annotation, builtin_types=_NATIVE, dec_hook=_validated)


def _validation(annotation: Any) -> Callable[[Any], Any]:
    """Of types whose constraints only pydantic knows."""
    try:
        from pydantic import TypeAdapter
    except ModuleNotFoundError:
        raise DefinitionError(
            f"{describe(annotation)} holds constraints that need pydantic (pip install pydantic)."
        ) from None
    try:
        return cast("Callable[[Any], Any]", TypeAdapter(annotation).validate_python)
    except USER_ERRORS as error:  # pydantic evaluates user classes here, and does not know all that msgspec knows.
        let_signals_pass(error)
        reason = str(error).partition("\n")[0]
        raise DefinitionError(f"{describe(annotation)} cannot be read from MessagePack: {reason}") from error


def _validated(expected: type, value: Any) -> Any:
    """A pydantic model inside another type."""
    return value if isinstance(value, expected) else cast("Any", expected).model_validate(value)


def _has_parts(cls: object) -> bool:
    return is_class(cls) and (
        issubclass(cls, Enum) or is_model_class(cls) or is_record_class(cls) or _is_named_tuple(cls)
    )


def _is_named_tuple(cls: type[Any]) -> bool:
    return hasattr(cls, "_fields") and issubclass(cls, tuple)
