"""Events as values: classes with a name and a version, what is published, and what a subscriber is given.

An event is an instance of a dataclass, a msgspec Struct or a pydantic model. Its version is a hash of its structure, so
a class that changes has another one, and what was published before can be told apart (rule P4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, TypeVar, cast

import msgspec

from durably.actors.values.descriptions import named, shortened
from durably.actors.values.json_schemas import Schema, json_schemas
from durably.actors.values.names import checked_name
from durably.actors.values.serde import TypeCodec, codec_for
from durably.actors.values.type_checks import is_text
from durably.errors import DefinitionError, InvalidArgumentError, UndecodableError

EventT = TypeVar("EventT")

PUBLISHED_STREAM: Final = "/"
"""What the stream of an event of a user's begins with in a command, and has between its cluster and its name."""
EVENT_PREFIX: Final = "evt_"
GAP: Final = "gap"
"""What readers over HTTP are sent instead of events that were forgotten before they came back."""
_NAME: Final = "__durably_event__"
_VERSION_CHARACTERS: Final = 12
_SAID_ABOUT: Final = ("description", "title")
"""What a schema says for people: it may change without another structure."""


class EventClass:
    """A class whose instances are events.

    What its fields are is looked up when that is needed: where a handler subscribes, a type may not be defined yet.
    """

    def __init__(self, cls: type[Any]) -> None:
        """
        Raises:
            DefinitionError: no event can be called like it.
        """
        self.cls = cls
        own = vars(cls).get(_NAME)
        self.name: str = cls.__name__ if own is None else own
        """What it is called in the store and over HTTP."""
        if not is_event_name(self.name):
            raise DefinitionError(f"No event can be called {self.name!r}: name the class with @event.")

    @cached_property
    def version(self) -> str:
        """Says how it is built."""
        return _version(self.cls)

    @cached_property
    def _codec(self) -> TypeCodec[Any]:
        return codec_for(self.cls)

    def check(self) -> None:
        """
        Raises:
            DefinitionError: its instances cannot be written as JSON and read again.
        """
        _ = self._codec, self.version

    def encode(self, event: object) -> bytes:
        """
        Raises:
            UnencodableError: it has a value that JSON does not have.
        """
        return self._codec.encode_exactly(event)

    def decode(self, version: str, value: bytes) -> Any:
        """An event that was published as `version`, read by the class of today (rule P4).

        Raises:
            InvalidArgumentError: it does not fit.
        """
        try:
            return self._codec.decode(value)
        except UndecodableError as error:
            changed = "" if version == self.version else (
                f" It was published as version {version}, and the class is version {self.version} now: give what is "
                "new a default, or publish an event of another name."
            )  # fmt: skip
            raise InvalidArgumentError(
                f"The event {self.name} does not fit its class: {error.reason} at {error.path}.{changed}",
                path=error.path,
            ) from error


def event(name: str, /) -> Callable[[type[EventT]], type[EventT]]:
    """Name a class of events: `@event("user.created")`. Without it, the class is known by its own name.

    Raises:
        DefinitionError: the name is no text, or empty.
    """
    if not is_text(name) or not is_event_name(name):
        raise DefinitionError(
            f'@event(...) takes the name of the event, as in @event("user.created"), not {name!r}. It is printable, in '
            f"one line, and not {GAP!r}, which is what readers hear when they have missed something."
        )

    def decorate(cls: type[EventT]) -> type[EventT]:
        if not isinstance(cls, type):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError(f"@event({name!r}) stands above a class, and {cls!r} is none.")
        setattr(cls, _NAME, name)
        return cls

    return decorate


def is_event_name(name: str) -> bool:
    """Whether it can stand in one line of a stream of events, and is none of ours."""
    return bool(name) and name.isprintable() and name != GAP


_known: dict[type[Any], EventClass] = {}


def event_class(cls: Any) -> EventClass:
    """A class as one of events.

    Raises:
        DefinitionError: it cannot be one; says why.
    """
    known = _known.get(cls) if isinstance(cls, type) else None
    if known is not None:
        return known
    if not isinstance(cls, type) or not _has_fields(cls):
        raise DefinitionError(
            f"{named(cls) if isinstance(cls, type) else repr(cls)} cannot be an event. An event is an instance of a "
            "class of yours with fields: a dataclass, a msgspec Struct or a pydantic model."
        )
    made = _known[cls] = EventClass(cls)
    return made


def event_classes(classes: Iterable[Any], where: str) -> dict[str, EventClass]:
    """Classes of events by name.

    Raises:
        DefinitionError: one is none, or two have one name.
    """
    found: dict[str, EventClass] = {}
    for cls in classes:
        one = event_class(cls)
        first = found.setdefault(one.name, one)
        if first.cls is not one.cls:
            raise DefinitionError(f"{where} names two classes of events of one name. {_clash(first, one)}")
    return found


def _clash(first: EventClass, second: EventClass) -> str:
    return (
        f"{_place(first.cls)} and {_place(second.cls)} are both called {first.name!r}, so an event of one would be "
        f'read as the other. Use one class, or name one of them: @event("...") above the class.'
    )


def _place(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _has_fields(cls: type[Any]) -> bool:
    return (
        hasattr(cls, "__dataclass_fields__")
        or (issubclass(cls, msgspec.Struct) and cls is not msgspec.Struct)
        or hasattr(cls, "__pydantic_fields__")
    )


def _version(cls: type[Any]) -> str:
    schemas, components = json_schemas({"event": cls}, "")
    structure = _structure([schemas, components])
    return hashlib.sha256(msgspec.json.encode(structure, order="sorted")).hexdigest()[:_VERSION_CHARACTERS]


def _structure(schema: Any, *, is_named: bool = False) -> Any:
    """What a schema says of values; `is_named`: the keys are names of fields, of which one may be `title`."""
    if isinstance(schema, dict):
        members = cast("Schema", schema)
        return {
            key: _structure(value, is_named=key == "properties" and not is_named)
            for key, value in members.items()
            if is_named or key not in _SAID_ABOUT
        }
    return [_structure(one) for one in cast("list[object]", schema)] if isinstance(schema, list) else schema


class Published(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event on its way to be published. Over HTTP it is a JSON object with these members."""

    name: str
    version: str = ""
    value: msgspec.Raw
    key: str = ""
    """What it is about; events of one key are delivered in order."""
    stream: str = ""
    """Empty: the default one of the runtime."""
    sse: bool | None = None
    """Whether readers over HTTP get it; None: as the server says."""


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the store keeps as the value of an event."""

    version: str = ""
    sse: bool | None = None
    value: msgspec.Raw


class Delivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event on its way to a subscriber: the argument of the message."""

    id: str
    name: str
    version: str
    stream: str
    key: str = ""
    at: int
    """When it was published, in microseconds since 1970 UTC."""
    value: msgspec.Raw


def published(
    events: Sequence[Any],
    *,
    key: str | None,
    stream: str | None,
    sse: bool | None,
    where: str,
    known: Mapping[str, EventClass],
) -> tuple[Published, ...]:
    """What a caller wrote in the parentheses of `publish`. `known`: the classes that are subscribed to, by name.

    Raises:
        TypeError: an event is no instance of a class of events, or of another one than subscribers read it by, or an
            option has another type.
        InvalidKeyError: no store can keep the key.
        UnencodableError: an event has a value that JSON does not have.
    """
    if not events:
        raise TypeError(f"{where} takes at least one event.")
    if sse not in (None, True, False):
        raise TypeError(f"{where} takes sse=True, False or None, not {sse!r}.")
    if key is not None:
        checked_name(key, f"The key of an event is Unicode text without NUL, and not empty; {key!r} is not.")
    checked = "" if stream is None else checked_stream(stream)
    return tuple(_published(one, key or "", checked, sse, where, known) for one in events)


def _published(
    given: Any, key: str, stream: str, sse: bool | None, where: str, known: Mapping[str, EventClass]
) -> Published:
    if isinstance(given, type):
        raise TypeError(f"{where} takes events, which are instances: write {given.__name__}(...), with its fields.")
    try:
        one = event_class(type(given))
        one.check()
    except DefinitionError as error:
        raise TypeError(f"{where} was given {shortened(given)}. {error}") from error
    subscribed = known.get(one.name)
    if subscribed is not None and subscribed.cls is not one.cls:
        raise TypeError(
            f"{where} was given an event that subscribers would read by another class. {_clash(subscribed, one)}"
        )
    value = msgspec.Raw(one.encode(given))
    return Published(name=one.name, version=one.version, value=value, key=key, stream=stream, sse=sse)


def checked_stream(stream: str) -> str:
    """The name of a stream.

    Raises:
        InvalidKeyError, TypeError: it is none.
    """
    sentence = f"The name of a stream is Unicode text without NUL and '/', and not empty; {stream!r} is not."
    checked_name(stream, sentence)
    if "/" in stream:
        raise InvalidArgumentError(sentence)
    return stream


_stored_decoder: msgspec.json.Decoder[StoredEvent] = msgspec.json.Decoder(StoredEvent)
_delivery_decoder: msgspec.json.Decoder[Delivery] = msgspec.json.Decoder(Delivery)


def stored_value(given: Published) -> bytes:
    """What the store keeps."""
    return msgspec.json.encode(StoredEvent(version=given.version, sse=given.sse, value=given.value))


def decode_stored(value: bytes) -> StoredEvent:
    """
    Raises:
        msgspec.DecodeError: it is damaged.
    """
    return _stored_decoder.decode(value)


def decode_delivery(argument: bytes) -> Delivery:
    return _delivery_decoder.decode(argument)
