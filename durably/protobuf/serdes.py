"""`ProtobufSerde` and `ProtobufJsonSerde`: messages of one generated class, as protobuf writes them.

What is written is read again and compared, unknown fields included, so that a message which would be read as something
else is refused where it is given (rule V5). The same message always gives the same bytes: maps are sorted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Generic, NoReturn, TypeVar, cast

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict, Parse
from google.protobuf.message import EncodeError, Message
from google.protobuf.text_format import MessageToString

from durably.actors.values.descriptions import LONGEST_QUOTE_CHARACTERS, describe, named, shortened, shortened_bytes
from durably.actors.values.messages import is_message_class
from durably.actors.values.serde import JSON, JsonSerde, Serde
from durably.actors.values.type_checks import is_mapping
from durably.errors import DefinitionError, UndecodableError, UnencodableError

MessageT = TypeVar("MessageT", bound=Message)

PROTOBUF: Final = "application/protobuf"

WITH_JSON_OF_THEIR_OWN: Final = frozenset(
    f"google.protobuf.{name}"
    for name in (
        "Any", "BoolValue", "BytesValue", "DoubleValue", "Duration", "FieldMask", "FloatValue", "Int32Value",
        "Int64Value", "ListValue", "StringValue", "Struct", "Timestamp", "UInt32Value", "UInt64Value", "Value",
    )
)  # fmt: skip
"""Messages that are not an object of their fields in JSON."""


class _MessageSerde(Generic[MessageT]):
    """What the two have in common."""

    content_type: str
    is_exact = True

    def __init__(self, message: type[MessageT]) -> None:
        """
        Raises:
            DefinitionError: it is no generated class of messages.
        """
        if not is_message_class(message):
            raise DefinitionError(
                f"{type(self).__name__} writes messages of a class that protoc generated, and {describe(message)} is "
                "none. Use JsonSerde for other types, or declare a message that holds the value."
            )
        self.message = message
        """The class of what it reads and writes."""

    def _check_class(self, value: object) -> None:
        if type(value) is not self.message:
            raise UnencodableError(
                f"{shortened(value)} is of the class {named(type(value))}, and {type(self).__name__} writes "
                f"{named(self.message)} only."
            )

    def _written(self, value: Message) -> bytes:
        """The binary form, by which messages are compared first."""
        return value.SerializeToString(deterministic=True)

    def _check_complete(self, read: MessageT) -> MessageT:
        if not read.IsInitialized():
            try:
                self._written(read)
            except EncodeError as error:  # It names the fields that are missing.
                self._refuse_data(_reason(error), error)
        return read

    def _check_same(self, value: MessageT, written: bytes, read: MessageT) -> None:
        if self._written(read) != written and _text(read) != _text(value):
            raise UnencodableError(
                f"A message {named(self.message)} would not be the same when it is read from {self.content_type} "
                f"again: {_shown(value)} would be {_shown(read)}."
            )

    def _refuse_value(self, error: Exception) -> NoReturn:
        raise UnencodableError(
            f"A message {named(self.message)} cannot be written as {self.content_type} and read again: {error}."
        ) from error

    def _refuse_data(self, reason: str, error: Exception | None = None, path: str = "$") -> NoReturn:
        place = "" if path == "$" else f" at {path}"
        raise UndecodableError(
            f"Expected a message {named(self.message)} as {self.content_type}: {reason}{place}.",
            path=path,
            reason=reason,
        ) from error


class ProtobufSerde(_MessageSerde[MessageT]):
    """Messages of one class in protobuf's binary form: `ProtobufSerde(HelloRequest)`.

    As the Serde of a class of actors or of a runtime, `serde=ProtobufSerde`, it writes what is annotated with a class
    of messages; other types are JSON. Fields that the class does not know are kept.
    """

    content_type = PROTOBUF
    sets_content_type_if_empty = True  # No bytes are a message, whose fields have their defaults.

    @classmethod
    def for_type(cls, annotation: Any) -> Serde[Any]:
        """The Serde of a type, where this class is the Serde of all."""
        return cls(annotation) if is_message_class(annotation) else JsonSerde(annotation)

    def encode(self, value: MessageT, /) -> bytes:
        """
        Raises:
            UnencodableError: it is of another class, lacks a required field, or cannot be read again.
        """
        self._check_class(value)
        try:
            data = self._written(value)
            read = self.message.FromString(data)
        except Exception as error:  # EncodeError, DecodeError of what is nested too deeply, and what else they raise.
            self._refuse_value(error)
        self._check_same(value, data, read)
        return data

    def decode(self, data: bytes, /) -> MessageT:
        """
        Raises:
            UndecodableError: the bytes are something else.
        """
        try:
            read = self.message.FromString(data)
        except Exception as error:  # As above.
            self._refuse_data(f"{error}, in {shortened_bytes(data)}", error)
        return self._check_complete(read)


class ProtobufJsonSerde(_MessageSerde[MessageT]):
    """Messages of one class in the JSON that protobuf defines: `ProtobufJsonSerde(HelloRequest)`.

    As the Serde of a class of actors or of a runtime, `serde=ProtobufJsonSerde`, it writes what is annotated with a
    class of messages; other types are JSON. Keys that the class does not know are refused from outside, and passed over
    in what is stored and in what other handlers send.
    """

    content_type = JSON

    @classmethod
    def for_type(cls, annotation: Any) -> Serde[Any]:
        """The Serde of a type, where this class is the Serde of all."""
        return cls(annotation) if is_message_class(annotation) else JsonSerde(annotation)

    def encode(self, value: MessageT, /) -> bytes:
        """
        Raises:
            UnencodableError: it is of another class, or the JSON cannot say everything that it holds.
        """
        self._check_class(value)
        try:
            written = self._written(value)  # Says which required fields are missing.
            data = msgspec.json.encode(MessageToDict(value), order="deterministic")
            read = self._parsed(data, ignore_unknown=False)
        except Exception as error:  # Of an Any whose type is unknown, a time out of range, what is nested too deeply.
            self._refuse_value(error)
        self._check_same(value, written, read)
        return data

    def decode(self, data: bytes, /) -> MessageT:
        """
        Raises:
            UndecodableError: the bytes are something else.
        """
        try:
            read = self._parsed(data, ignore_unknown=True)
        except Exception as error:  # As above; RecursionError, UnicodeDecodeError and others too.
            self._refuse_data(_reason(error), error)
        return self._check_complete(read)

    def admit(self, data: bytes, /) -> bytes:
        """What is stored of bytes from outside, whose keys have to be known.

        Raises:
            UndecodableError: the bytes are something else.
        """
        try:
            read = self._parsed(data, ignore_unknown=False)
            misplaced = _misplaced(msgspec.json.decode(data), cast("Descriptor", self.message.DESCRIPTOR), "$")
        except Exception as error:  # As above.
            self._refuse_data(_reason(error), error)
        if misplaced is not None:
            self._refuse_data("a message is an object", path=misplaced)
        self._check_complete(read)
        try:
            self.encode(read)
        except UnencodableError as error:
            self._refuse_data(error.message.rstrip("."), error)
        return data

    def _parsed(self, data: bytes, *, ignore_unknown: bool) -> MessageT:
        return Parse(data.decode(), self.message(), ignore_unknown_fields=ignore_unknown)


def _text(message: Message) -> str:
    """By which messages are compared whose bytes differ: JSON and text have one NaN, and floats have many."""
    return MessageToString(message, print_unknown_fields=True)


def _shown(message: Message) -> str:
    """For a sentence: also the fields that its class does not know."""
    return f"({' '.join(_text(message).split())[:LONGEST_QUOTE_CHARACTERS]})"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _misplaced(value: Any, message: Descriptor, path: str) -> str | None:
    """Where something stands for a message and is no object: protobuf's parser takes `[]` and `""` for empty ones."""
    if message.full_name in WITH_JSON_OF_THEIR_OWN:
        return None
    if not is_mapping(value):
        return path
    fields: dict[str, FieldDescriptor] = {**message.fields_by_name, **message.fields_by_camelcase_name}
    fields |= {field.json_name: field for field in message.fields}
    for name, part in value.items():
        field = fields.get(name)
        if field is not None and field.message_type is not None and part is not None:
            found = _misplaced_in(part, field, field.message_type, f"{path}.{name}")
            if found is not None:
                return found
    return None


def _misplaced_in(part: Any, field: FieldDescriptor, message: Descriptor, path: str) -> str | None:
    """The same in a field: a map, a list or one message."""
    if message.GetOptions().map_entry:
        of_values = message.fields_by_name["value"].message_type
        if of_values is None or not is_mapping(part):
            return None
        items: Iterable[tuple[Any, Any]] = part.items()
    elif _is_repeated(field):
        of_values, items = message, enumerate(cast("list[Any]", part))
    else:
        return _misplaced(part, message, path)
    return next(filter(None, (_misplaced(item, of_values, f"{path}[{at!r}]") for at, item in items)), None)


def _is_repeated(field: Any) -> bool:
    newer: bool | None = getattr(field, "is_repeated", None)  # `label` gives a warning where this exists.
    return bool(field.label == field.LABEL_REPEATED) if newer is None else newer
