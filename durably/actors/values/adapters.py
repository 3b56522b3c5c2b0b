"""Types that only pydantic reads as they are meant, by its `TypeAdapter`: constraints, pydantic dataclasses, unions.

pydantic is imported when the first such type gets a codec, and never otherwise. Values are read strictly, as msgspec
reads them: a string is no number. Models, and classes with a configuration of their own, are read as that says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import UUID

import msgspec

from durably.actors.values.descriptions import describe, shortened_bytes
from durably.actors.values.encoding import unencodable
from durably.actors.values.models import features_of_schema, place_and_reason, sorted_like
from durably.actors.values.type_checks import is_mapping, is_sequence
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.errors import DefinitionError, UndecodableError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_TEXTUAL: Final[Mapping[str, Any]] = {
    "enum": None,  # Its class stands in the schema.
    "uuid": UUID,
    "datetime": datetime,
    "date": date,
    "time": time,
    "timedelta": timedelta,
    "decimal": Decimal,
    "str": str,
}
"""Types that JSON writes as text, by their name in a schema, in the order in which a text is tried: `str` takes all."""


Validate: TypeAlias = Callable[[bytes], tuple[Any]]


def has_pydantic() -> bool:
    return find_spec("pydantic") is not None


class Adapter:
    """Encodes and decodes the values of one annotation by pydantic."""

    def __init__(self, annotation: Any) -> None:
        """
        Raises:
            DefinitionError: pydantic does not know the type.
        """
        self._annotation = annotation
        try:
            self._adapter, self._validate = _adapter(annotation)
            _, self._validate_outside = _adapter(annotation, extra="forbid")
        except USER_ERRORS as error:  # User classes may raise anything.
            let_signals_pass(error)
            raise DefinitionError(
                f"{describe(annotation)} cannot be stored and sent as JSON: {str(error).splitlines()[0]}"
            ) from error
        self.features = features_of_schema(self._adapter.core_schema)

    def encode(self, value: Any) -> bytes:
        try:
            written = self._adapter.dump_json((value,), by_alias=True, round_trip=True, warnings="error")[1:-1]
            if not self.features.has_sets:
                return written
            (parts,) = self._adapter.dump_python((value,), by_alias=True, round_trip=True, warnings=False)
            return msgspec.json.encode(sorted_like(parts, msgspec.json.decode(written)))
        except USER_ERRORS as error:  # A user's serializer may raise any error: the value is to blame.
            let_signals_pass(error)
            raise unencodable(value, _last_line(error)) from error

    def decode(self, data: bytes) -> Any:
        return self._decoded(data, self._validate)

    def decode_outside(self, data: bytes) -> Any:
        """Like `decode`, and refuses keys that no field of a dataclass stands for. What is stored may have some."""
        return self._decoded(data, self._validate_outside)

    def _decoded(self, data: bytes, validate: Validate) -> Any:
        try:
            _well_formed(data)  # pydantic would take NaN and Infinity, which are no JSON.
            return validate(b"[" + data + b"]")[0]
        except USER_ERRORS as error:  # Validators of users' classes may raise anything.
            let_signals_pass(error)
            path, reason = place_and_reason(error, depth=1)  # The tuple is no part of the value.
            raise UndecodableError(
                f"Expected {describe(self._annotation)}, got {shortened_bytes(data)}: "
                f"{reason}{'' if path == '$' else f' at {path}'}.",
                path=path,
                reason=reason,
            ) from error


_well_formed = msgspec.json.Decoder(msgspec.Raw).decode


def _last_line(error: BaseException) -> BaseException:
    return ValueError(str(error).strip().splitlines()[-1].strip()) if str(error).strip() else error


def _adapter(annotation: Any, **more: Any) -> tuple[TypeAdapter[tuple[Any]], Validate]:
    """The adapter of a type, and what reads it from JSON. In a tuple, since pydantic configures no class by itself."""
    pydantic: Any = import_module("pydantic")
    core: Any = import_module("pydantic_core")
    config: dict[str, Any] = {"strict": True, "ser_json_bytes": "base64", "val_json_bytes": "base64"}
    adapter: TypeAdapter[tuple[Any]] = pydantic.TypeAdapter(
        tuple[annotation], config=pydantic.ConfigDict(**config, **more)
    )
    schema: Any = adapter.core_schema
    apart = _texts_apart(schema)
    validator: Any = adapter.validator if apart == schema else core.SchemaValidator(apart, core.CoreConfig(**config))
    return adapter, validator.validate_json


# ---------------------------------------------------------------- unions of what JSON writes as text


def _texts_apart(schema: Any) -> Any:
    """The same schema, in which a union of `str` and dates and the like is decided by what a text can be.

    pydantic takes the first member that a text may be, so `str | datetime` would never be a datetime, and reads a date
    from "123". Here a text is what it is exactly, in the order of `_TEXTUAL`.
    """
    if is_sequence(schema) and not isinstance(schema, tuple):
        return [_texts_apart(part) for part in schema]
    if not is_mapping(schema):
        return schema
    made: dict[str, Any] = {name: _texts_apart(part) for name, part in schema.items()}
    if made.get("type") != "union":
        return made
    choices: list[Any] = made["choices"]
    texts = [one for one in choices if _text_class(one) is not None]
    if texts and any(is_mapping(one) and one.get("type") == "bytes" for one in choices):
        raise TypeError(
            "JSON writes bytes as text, so in a union they cannot stand beside another text. Use two fields"
        )
    if len(texts) < 2:
        return made
    texts.sort(key=lambda one: list(_TEXTUAL).index(one["type"]))
    others = [one for one in choices if one not in texts]
    text = {"type": "function-plain", "function": {"type": "no-info", "function": _Texts(texts)}}
    return {**made, "choices": [*others, text]} if others else text


def _text_class(choice: Any) -> Any:
    """The type that a member of a union stands for, if JSON writes it as text."""
    if not is_mapping(choice):
        return None
    if choice.get("type") != "enum":
        return _TEXTUAL.get(choice.get("type", ""))
    return choice["cls"] if all(isinstance(member.value, str) for member in choice["members"]) else None


class _Texts:
    """Reads a text as the first of several types that it is exactly."""

    def __init__(self, choices: list[Any]) -> None:
        core: Any = import_module("pydantic_core")
        self._choices = [(_text_class(one), core.SchemaValidator(one)) for one in choices]

    def __call__(self, text: Any) -> Any:
        if not isinstance(text, str):
            raise ValueError("Input should be a string")
        for cls, validator in self._choices:
            try:
                return validator.validate_python(msgspec.convert(text, cls))
            except ValueError:
                continue
        raise ValueError(f"Input should be one of {', '.join(cls.__name__ for cls, _ in self._choices)}")
