"""Decodes and checks large values in slices, so that an event loop can do other things between two of them.

A parser holds the interpreter lock for as long as it runs, so a thread would hold the loop up just the same. Instead,
lists, dicts, sets and plain classes are cut into portions of whole items (`json_portions`), each read by the codec of
its type, and put together. What comes out, and what is refused, is the same as without slices.

One value that is no collection is one slice: a text, and what pydantic reads as a whole (a model, constraints on a
collection).
"""

from __future__ import annotations

import collections.abc
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from sys import getrefcount
from types import UnionType
from typing import Any, Final, Protocol, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import inspect as shapes

from durably.actors.values.certainty import is_plain
from durably.actors.values.constraints import declarations_in
from durably.actors.values.descriptions import MISSING, describe, shortened_bytes
from durably.actors.values.encoding import check_depth
from durably.actors.values.json_portions import JSON_SPACE, member_of, portions
from durably.actors.values.malformed_text import malformed_text
from durably.actors.values.models import is_model
from durably.actors.values.places import below
from durably.actors.values.records import fields_of, is_record
from durably.actors.values.serde import codec_for
from durably.actors.values.type_codec import TypeCodec, codec_of_decode
from durably.actors.values.unknown_keys import UnknownKeys
from durably.errors import DefinitionError, UndecodableError

T = TypeVar("T")
Slices: TypeAlias = Generator[None, None, T]
"""Does its work in slices: it yields between two, and returns the result."""

SLICE_BYTES: Final = 128 * 1024
"""How much is read at once. Reading a megabyte takes 2 to 60 ms, according to the type."""

RELEASED_ITEMS: Final = 20_000
UNSHARED_REFERENCES: Final = 2
"""A variable, and the call that counts."""
CUT_LEVELS: Final = 8
"""How many levels are cut: each costs another look at all that lies in it."""

_LISTS = (list, tuple, set, frozenset, *(getattr(collections.abc, name) for name in (
    "Sequence", "MutableSequence", "Collection", "Iterable", "Set", "MutableSet",
)))  # fmt: skip
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_INDEX = re.compile(r"\$\[(\d+)\]")
_BYTE = re.compile(r" \(byte \d+\)")


def done(slices: Slices[T]) -> T:
    """The result, without pauses."""
    found: list[T] = []

    def finish() -> Generator[None]:
        result = yield from slices
        found.append(result)

    for _ in finish():
        pass
    return found[0]


def decode_in_slices(decode: Callable[[bytes], T], data: bytes, size_bytes: int) -> Slices[T]:
    """What `decode(data)` returns, if it is the `decode` of a codec; of anything else it is one slice.

    Raises:
        UndecodableError: it does not fit the type.
    """
    codec: TypeCodec[T] | None = codec_of_decode(decode)
    if codec is None:
        yield
        return decode(data)
    try:
        value: T = yield from value_in_slices(codec, data, size_bytes, DECODING)
        return value
    except UndecodableError as error:
        raise _restated(error, codec, data) from error


class Reading(Protocol):
    """What becomes of one portion, and of the results of all."""

    def read(self, codec: TypeCodec[Any], data: bytes, levels: int) -> Any:
        """Read what fits into one slice; it lies `levels` deep in the whole value."""
        ...

    def joins(self, codec: TypeCodec[Any], brackets: bytes) -> Joining:
        """Collects the results for a list or dict of this type."""
        ...

    def record(self, record: Record, parts: dict[str, Any], data: bytes) -> Any:
        """Put an instance together from what its fields were read as."""
        ...

    def refuse_unknown(self, codec: TypeCodec[Any], key: str) -> None:
        """A record has a key that no field stands for."""
        ...

    def skips(self, codec: TypeCodec[Any]) -> bool:
        """A value of this type has to be read as a whole."""
        ...

    def compares_keys(self, codec: TypeCodec[Any]) -> bool:
        """A dict of this type has to be read as a whole: its keys are compared with each other."""
        ...


class Joining(Protocol):
    """Collects the results of portions."""

    def add(self, part: Any) -> None: ...
    def add_item(self, key: str | None, item: Any) -> None: ...
    def whole(self, data: bytes) -> Any: ...


class _Decoding:
    """Portions become values."""

    def read(self, codec: TypeCodec[Any], data: bytes, levels: int) -> Any:
        return codec.decode(data)

    def joins(self, codec: TypeCodec[Any], brackets: bytes) -> Joining:
        return _Values(codec.decode(brackets))

    def record(self, record: Record, parts: dict[str, Any], data: bytes) -> Any:
        return record.made(parts)

    def refuse_unknown(self, codec: TypeCodec[Any], key: str) -> None:
        """What is stored may have some."""

    def skips(self, codec: TypeCodec[Any]) -> bool:
        return False

    def compares_keys(self, codec: TypeCodec[Any]) -> bool:
        return False


class _Values:
    """Collections of neighbouring items, put together to one of their kind."""

    def __init__(self, empty: Any) -> None:
        self._kind: Any = type(empty)
        self._values: Any = _GATHERED_AS.get(self._kind, self._kind)()
        self._is_list = isinstance(self._values, list)

    def add(self, part: Any) -> None:
        if self._is_list:
            self._values.extend(part)
        else:
            self._values.update(part)

    def add_item(self, key: str | None, item: Any) -> None:
        if key is not None:
            self._values[key] = item
        elif self._is_list:
            self._values.append(item)
        else:
            self._values.add(item)

    def whole(self, data: bytes) -> Any:
        return self._values if isinstance(self._values, self._kind) else self._kind(self._values)


_GATHERED_AS: Final[Mapping[Any, Any]] = {tuple: list, frozenset: set}


class _Admitting:
    """Portions from outside become what is stored of them (rule V5)."""

    def read(self, codec: TypeCodec[Any], data: bytes, levels: int) -> bytes:
        admitted = codec.admit(data)
        if levels and codec.is_deep:
            try:
                check_depth(b"[" * levels + data + b"]" * levels)
            except RecursionError as error:
                raise UndecodableError(str(error), reason=str(error)) from error
        unknown = _unknown_keys(codec)
        if unknown is not None and unknown.are_in(data):
            unknown.refuse(msgspec.json.decode(data), "$")
        return admitted

    def joins(self, codec: TypeCodec[Any], brackets: bytes) -> Joining:
        return _Texts()

    def record(self, record: Record, parts: dict[str, Any], data: bytes) -> bytes:
        return data

    def refuse_unknown(self, codec: TypeCodec[Any], key: str) -> None:
        unknown = _unknown_keys(codec)
        if unknown is not None:
            unknown.refuse({key: None}, "$")

    def skips(self, codec: TypeCodec[Any]) -> bool:
        return codec.draws_defaults

    def compares_keys(self, codec: TypeCodec[Any]) -> bool:
        return codec.spelled_keys


class _Texts:
    """All that is stored is what came, since nothing is skipped that would change it."""

    def add(self, part: Any) -> None: ...
    def add_item(self, key: str | None, item: Any) -> None: ...
    def whole(self, data: bytes) -> bytes:
        return data


DECODING: Final[Reading] = _Decoding()
ADMITTING: Final[Reading] = _Admitting()


def value_in_slices(
    codec: TypeCodec[Any], data: bytes, size_bytes: int, reading: Reading, levels: int = 0
) -> Slices[Any]:
    """Read a value, which may have spaces around it.

    Raises:
        UndecodableError: it does not fit, with the path from the value on.
    """
    yield
    value = data.strip(JSON_SPACE)
    is_cut = len(value) > size_bytes and levels < CUT_LEVELS and not reading.skips(codec)
    plan = _plan(codec) if is_cut else None
    ends = value[:1] + value[-1:]
    if plan is not None and plan.list_cut is not None and ends == b"[]":
        return (yield from _items(codec, plan.list_cut, value, size_bytes, reading, levels))
    if plan is not None and plan.dict_cut is not None and ends == b"{}" and not reading.compares_keys(codec):
        return (yield from _items(codec, plan.dict_cut, value, size_bytes, reading, levels))
    if plan is not None and plan.record is not None and ends == b"{}":
        return (yield from _record(codec, plan.record, value, size_bytes, reading, levels))
    return _explained(reading.read, codec, data, levels)


def members_in_slices(data: bytes, size_bytes: int) -> Slices[dict[str, bytes]]:
    """The values of an object by key, as they were written.

    Raises:
        UndecodableError: it is no well-formed object.
    """
    value = data.strip(JSON_SPACE)
    if value[:1] != b"{" or value[-1:] != b"}":
        raise UndecodableError("Expected an object.", reason="Expected `object`")
    members: dict[str, bytes] = {}
    for portion in portions(value, size_bytes):
        if portion is not None:
            part = value[portion.start : portion.end]
            for key, found in _members(part, is_single=portion.is_single, is_first=not members).items():
                if key in members:  # The last one counts, and the one before has to be well formed.
                    _explained_json(members[key], msgspec.Raw)
                members[key] = found
        yield
    return members


def _members(part: bytes, *, is_single: bool, is_first: bool) -> dict[str, bytes]:
    member = member_of(part) if is_single else None
    if member is not None:
        return {_explained_json(member[0], str): member[1]}
    if not is_first and not part.strip(JSON_SPACE):
        part = b","  # Which is no member, and is refused.
    found: dict[str, msgspec.Raw] = _explained_json(b"{" + part + b"}", dict[str, msgspec.Raw])
    return {key: bytes(raw) for key, raw in found.items()}


def release_in_slices(values: list[Any]) -> Slices[None]:
    """Empty `values`, and each collection in it that nothing else refers to: freeing a large one takes long.

    The number of slices depends on the values alone. Whether garbage in cycles still refers to one depends on when the
    garbage collector looked, and a simulation would not be repeatable.
    """
    shared_records: dict[int, Any] = {}
    while values:
        value = values.pop()
        is_shared = getrefcount(value) > UNSHARED_REFERENCES
        kind = cast("object", type(value))
        if kind is list or kind is dict or kind is set:
            for size in range(len(value), 0, -RELEASED_ITEMS):
                if not is_shared:
                    _remove(value, min(size, RELEASED_ITEMS))
                yield
        elif is_record(value) and not is_model(value) and id(value) not in shared_records:
            if is_shared:  # Perhaps by itself.
                shared_records[id(value)] = value
            values += [getattr(value, name, None) for name in fields_of(value)]


def _remove(collection: Any, count: int) -> None:
    if type(collection) is list:
        del collection[-count:]
    else:
        remove = collection.popitem if type(collection) is dict else collection.pop
        for _ in range(count):
            remove()


# ---------------------------------------------------------------- inside


def _items(codec: TypeCodec[Any], cut: Cut, data: bytes, size_bytes: int, reading: Reading, levels: int) -> Slices[Any]:
    """A list or dict."""
    opens, closes = data[:1], data[-1:]
    joining = reading.joins(codec, opens + closes)
    begun: list[tuple[int, int]] = []
    for portion in portions(data, size_bytes):
        yield
        if portion is None:
            continue
        part = data[portion.start : portion.end]
        key: str | None = None
        item: bytes | None = None
        try:
            key, item = _only_item(cut, part, is_list=opens == b"[") if portion.is_single else (None, None)
            if item is not None:
                value = yield from value_in_slices(cut.item, item, size_bytes, reading, levels + 1)
                joining.add_item(key, value)
            else:
                if begun and not part.strip(JSON_SPACE):
                    part = b","  # Which is no item either, and is refused.
                joining.add(_explained(reading.read, codec, opens + part + closes, levels))
        except UndecodableError as error:
            if opens == b"[":
                count = yield from _count_items(data, begun)
                raise _shifted(error, count, is_item=item is not None) from error
            raise _moved(error, error.path if item is None else f"{below('$', key)}{error.path[1:]}") from error
        begun.append((portion.start, portion.end))
    return joining.whole(data)


def _only_item(cut: Cut, part: bytes, *, is_list: bool) -> tuple[str | None, bytes | None]:
    """The key and the value of a portion that is one item; no value if it has to be read with what is around it."""
    if is_list:
        return None, part
    member = member_of(part) if cut.has_text_keys else None
    return (None, None) if member is None else (_explained_json(member[0], str), member[1])


def _count_items(data: bytes, begun: list[tuple[int, int]]) -> Slices[int]:
    """How many items of a list there are in portions that were read."""
    count = 0
    for start, end in begun:
        items: list[msgspec.Raw] = msgspec.json.decode(b"[" + data[start:end] + b"]", type=list[msgspec.Raw])
        count += len(items)
        yield
    return count


def _record(
    codec: TypeCodec[Any], record: Record, data: bytes, size_bytes: int, reading: Reading, levels: int
) -> Slices[Any]:
    """An instance of a plain class."""
    members = yield from members_in_slices(data, size_bytes)
    parts: dict[str, Any] = {}
    for key in members.keys() - record.codecs.keys():
        _explained_json(members[key], msgspec.Raw)
        reading.refuse_unknown(codec, key)
    for key, member_codec in record.codecs.items():
        if key in members:
            try:
                parts[key] = yield from value_in_slices(member_codec, members[key], size_bytes, reading, levels + 1)
            except UndecodableError as error:
                raise _moved(error, f"{below('$', key)}{error.path[1:]}") from error
        elif key in record.required:
            reason = f"Object missing required field `{key}`"
            raise UndecodableError(f"{reason}.", reason=reason)
    return reading.record(record, parts, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A class whose instances are the values of their fields and nothing else."""

    cls: Any
    codecs: Mapping[str, TypeCodec[Any]]
    """By the name in JSON."""
    names: Mapping[str, str]
    """The attribute of each."""
    defaults: Mapping[str, Callable[[], Any]]
    required: frozenset[str]

    def made(self, parts: Mapping[str, Any]) -> Any:
        values = {name: parts[key] if key in parts else self.defaults[key]() for key, name in self.names.items()}
        if issubclass(self.cls, msgspec.Struct):
            return self.cls(**values)
        instance = object.__new__(self.cls)
        for name, value in values.items():
            object.__setattr__(instance, name, value)
        return instance


@dataclass(frozen=True, slots=True)
class Cut:
    """How a list or dict is cut."""

    item: TypeCodec[Any]
    has_text_keys: bool = True
    """What is written as a key is the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How values of a type are cut. None: such a value is not."""

    list_cut: Cut | None = None
    dict_cut: Cut | None = None
    record: Record | None = None


def _plan(codec: TypeCodec[Any]) -> Plan | None:
    try:
        return _cached_plan(codec.annotation)
    except TypeError:  # An annotation that cannot be hashed.
        return None


@lru_cache(maxsize=2_048)
def _cached_plan(annotation: Any) -> Plan | None:
    if annotation in (Any, object, MISSING):
        return Plan(list_cut=Cut(codec_for(Any)), dict_cut=Cut(codec_for(Any)))
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        others = [one for one in args if one is not type(None)]
        return _cached_plan(others[0]) if len(others) == 1 else None
    try:
        if annotation in _LISTS or (origin in _LISTS and _has_one_item_type(origin, args)):
            return Plan(list_cut=Cut(codec_for(args[0] if args else Any)))
        if annotation in _DICTS or origin in _DICTS:
            key, value = args or (Any, Any)
            return Plan(dict_cut=Cut(codec_for(value), key in (str, Any)))
        record = _record_of(annotation)
    except (DefinitionError, NameError, TypeError):
        return None
    return None if record is None else Plan(record=record)


def _has_one_item_type(origin: Any, args: tuple[Any, ...]) -> bool:
    return len(args) == 1 or (origin is tuple and len(args) == 2 and args[1] is Ellipsis)


def _record_of(annotation: Any) -> Record | None:
    if not isinstance(annotation, type) or declarations_in(annotation).foreign is not None:
        return None
    shape = shapes.type_info(annotation)
    if not isinstance(shape, shapes.DataclassType | shapes.StructType) or hasattr(annotation, "__pydantic_config__"):
        return None
    if isinstance(shape, shapes.StructType) and (
        shape.tag is not None or shape.array_like or shape.forbid_unknown_fields
    ):
        return None
    if not is_plain(annotation, [one.name for one in shape.fields]):
        return None
    hints = get_type_hints(annotation, include_extras=True)
    return Record(
        cls=annotation,
        codecs={one.encode_name: codec_for(hints[one.name]) for one in shape.fields},
        names={one.encode_name: one.name for one in shape.fields},
        defaults={one.encode_name: _default_of(one) for one in shape.fields if not one.required},
        required=frozenset(one.encode_name for one in shape.fields if one.required),
    )


def _default_of(of: shapes.Field) -> Callable[[], Any]:
    return of.default_factory if of.default_factory is not msgspec.NODEFAULT else lambda: of.default


def _unknown_keys(codec: TypeCodec[Any]) -> UnknownKeys | None:
    if codec.refuses_unknown_keys or codec.annotation is MISSING:
        return None
    try:
        unknown = _cached_unknown_keys(codec.annotation)
    except TypeError:  # It cannot be hashed.
        unknown = UnknownKeys(codec.annotation)
    return unknown if unknown.may_occur else None


@lru_cache(maxsize=2_048)
def _cached_unknown_keys(annotation: Any) -> UnknownKeys:
    return UnknownKeys(annotation)


# ---------------------------------------------------------------- refusals


def _explained(
    read: Callable[[TypeCodec[Any], bytes, int], Any], codec: TypeCodec[Any], data: bytes, levels: int
) -> Any:
    try:
        return read(codec, data, levels)
    except UndecodableError as error:
        malformed = malformed_text(data)
        if malformed is None:
            raise
        raise UndecodableError(malformed, path="$", reason=malformed) from error


def _explained_json(data: bytes, type: Any) -> Any:
    try:
        return msgspec.json.decode(data, type=type)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = malformed_text(data) or _BYTE.sub("", str(error))
        raise UndecodableError(reason, reason=reason) from error


def _shifted(error: UndecodableError, count: int, *, is_item: bool) -> UndecodableError:
    """The same refusal, of a portion or an item behind `count` items of a list, with the path from the list on."""
    if is_item:
        return _moved(error, f"$[{count}]{error.path[1:]}")
    index = _INDEX.match(error.path)
    if index is None:
        return _moved(error, error.path)
    return _moved(error, f"$[{int(index[1]) + count}]{error.path[index.end() :]}")


def _moved(error: UndecodableError, path: str) -> UndecodableError:
    reason = _BYTE.sub("", error.reason)  # It counts from the portion's beginning.
    return UndecodableError(reason, path=path, reason=reason)


def _restated(error: UndecodableError, codec: TypeCodec[Any], data: bytes) -> UndecodableError:
    place = "" if error.path == "$" else f" at {error.path}"
    return UndecodableError(
        f"Expected {describe(codec.annotation)}, got {shortened_bytes(data)}: {error.reason}{place}.",
        path=error.path,
        reason=error.reason,
    )
