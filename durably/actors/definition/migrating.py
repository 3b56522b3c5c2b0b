"""`migrated`: stored state carried from the version in which it was written to the version of its class. Pure.

What a migration is given and gives is plain data, so the functions of a chain see the same, whether an object was
stored in the middle of it or not. What comes out is read with the types of the class before it is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

import msgspec

from durably.actors.definition.definition import ActorDefinition
from durably.actors.migrations import Migration, PlainState
from durably.actors.values.descriptions import MISSING, named, shortened
from durably.actors.values.serde import SerdeFactory, TypeCodec, codec_under
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.errors import DefinitionError, StateMigrationError, UnencodableError
from durably.ids import INTERNAL_FIELDS, is_storable

Codecs = Mapping[str, TypeCodec[Any]]


def migrated(
    definition: ActorDefinition,
    codecs: Codecs,
    serde: SerdeFactory | None,
    stored: Mapping[str, bytes],
    version: int,
    large: Collection[str] = (),
) -> dict[str, bytes]:
    """The encoded state in the version of the class. `large` are the names of fields that are kept apart from it.

    Raises:
        StateMigrationError: it cannot be had; says which migration failed and why.
    """
    untyped = _untyped(serde)
    before = {name: _plain(data, codecs.get(name), untyped) for name, data in stored.items()}
    state = deepcopy(before)
    for one in range(version, definition.state_version):
        state = _migrated_once(definition.migrations[one], state)
    result: dict[str, bytes] = {}
    for name in large:
        if name in state:
            raise StateMigrationError(
                f"The migrated state of {named(definition.actor)} has the field {name!r}, which is kept apart from the "
                "state now, and which migrations do not touch. Let the migration leave it out, or keep what is there "
                "under another name, and let a handler move it."
            )
    for name, value in state.items():
        data = stored[name] if name in before and _is_unchanged(value, before[name]) else None
        result[name] = _stored(definition, name, value, data, codecs.get(name), untyped)
    return result


def _migrated_once(migration: Migration, state: PlainState) -> PlainState:
    try:
        given: Any = migration(state)
    except USER_ERRORS as error:
        let_signals_pass(error)
        raise StateMigrationError(
            f"{_the(migration)} raised {type(error).__name__}{_text(error)}. The state is as it was. Mend the "
            "migration, then resume the invocation."
        ) from error
    if not isinstance(given, Mapping):
        raise StateMigrationError(
            f"{_the(migration)} returned {type(given).__name__}, and not the new state. Return a dict of all fields."
        )
    for name in cast("Mapping[object, Any]", given):
        if not isinstance(name, str) or not name or not is_storable(name) or name in INTERNAL_FIELDS:
            raise StateMigrationError(
                f"{_the(migration)} returned a field named {shortened(name)}, which no state can have."
            )
    return dict(cast("Mapping[str, Any]", given))


def _untyped(serde: SerdeFactory | None) -> TypeCodec[Any] | None:
    """What reads and writes values of no known type; None where there is no such Serde."""
    try:
        return codec_under(serde, MISSING)
    except DefinitionError:
        return None


def _the(migration: Migration) -> str:
    return f"The migration {named(migration.function)} from state version {migration.from_version}"


def _plain(data: bytes, codec: TypeCodec[Any] | None, untyped: TypeCodec[Any] | None) -> Any:
    """A stored value as plain data; the bytes where only its own Serde reads them."""
    try:
        if codec is not None and codec.is_json:
            return msgspec.json.decode(data)
        is_of_own_serde = codec is not None and untyped is not None and untyped.is_json
        return data if untyped is None or is_of_own_serde else untyped.decode(data)
    except USER_ERRORS as error:
        let_signals_pass(error)
        return data


def _stored(
    definition: ActorDefinition,
    name: str,
    value: Any,
    data: bytes | None,
    codec: TypeCodec[Any] | None,
    untyped: TypeCodec[Any] | None,
) -> bytes:
    """A migrated value as it is kept: as it was stored if it has not changed, and read with the type of its field."""
    try:
        if data is None:
            plainly = _JSON if codec is not None and codec.is_json else untyped
            reader = plainly if codec is None else codec
            is_json = reader is not None and reader.is_json
            if isinstance(value, bytes) and not is_json:
                data = value
            elif plainly is None:
                raise TypeError("it has a Serde of its own, so a migration gives it as bytes.")
            else:
                data = plainly.encode_exactly(value)
            if reader is not None and is_json:
                _refuse_lost_bytes(value, reader.decode(data))
            if codec is not None:
                data = codec.encode(codec.decode(data))
        elif codec is not None:
            codec.decode(data)
    except USER_ERRORS as error:
        let_signals_pass(error)
        raise StateMigrationError(
            f"The migrated state of {named(definition.actor)} does not fit: the field {name!r}, {shortened(value)}"
            f"{_text(error)} The state is as it was. Mend the migration, then resume the invocation."
        ) from error
    return data


_JSON: TypeCodec[Any] = codec_under(None, MISSING)


def _refuse_lost_bytes(value: object, read: object) -> None:
    """JSON writes bytes as base64, which is what only a field of bytes is read from.

    Raises:
        UnencodableError: bytes would come back as text.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        if isinstance(read, str):
            raise UnencodableError(f"{shortened(value)} is bytes, and would be read as the text {shortened(read)}.")
    elif isinstance(value, Mapping):
        for name, part in cast("Mapping[object, object]", value).items():
            found = _member(read, name)
            _refuse_lost_bytes(part, found)
    elif isinstance(value, list | tuple) and isinstance(read, list | tuple):
        for part, found in zip(cast("Sequence[object]", value), cast("Sequence[object]", read), strict=False):
            _refuse_lost_bytes(part, found)


def _member(whole: object, name: object) -> object:
    if isinstance(whole, Mapping):
        return cast("Mapping[object, object]", whole).get(name)
    return getattr(whole, str(name), None)


def _text(error: BaseException) -> str:
    """What an error says of itself behind its name, if it can."""
    try:
        text = str(error)
    except USER_ERRORS as broken:
        let_signals_pass(broken)
        return ""
    return f": {text}" if text else ""


def _is_unchanged(value: Any, before: Any) -> bool:
    try:
        return _same(value, before)
    except USER_ERRORS as error:  # Of an `__eq__` of the user's, or too deep.
        let_signals_pass(error)
        return False


def _same(one: Any, other: Any) -> bool:
    """Equal, and of the same type all the way down: 1, 1.0 and True are three values."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        fields = cast("dict[str, Any]", one)
        return [*fields] == [*other] and all(_same(value, other[name]) for name, value in fields.items())
    if isinstance(one, list):
        items = cast("list[object]", one)
        return len(items) == len(other) and all(map(_same, items, other))
    return bool(one == other)
