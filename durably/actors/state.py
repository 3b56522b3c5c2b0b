"""Durable fields: `x: T = state(default=...)` in a class, and the view of them that each attempt has.

A view decodes what it reads and encodes what is written, so that no value is shared between attempts (rule V1). A value
that can change in place is encoded again at the end of the step and reported if its bytes differ (rule V2).
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar, overload

from durably.actors.fields import DeclaredField
from durably.actors.large_state import LargeField
from durably.actors.protocol.coding import MEASURED_BYTES
from durably.actors.protocol.port import Port
from durably.actors.values.descriptions import MISSING, named
from durably.actors.values.parts import SMALLEST_BYTES, Parts, Split
from durably.actors.values.serde import Serde, TypeCodec
from durably.errors import (
    DefinitionError,
    HandlerMistakeError,
    SharedStateError,
    UndecodableError,
    UnencodableError,
    UnsetStateError,
)

T = TypeVar("T")

STATE_VIEW = "__durably_state__"
"""Where an attempt's `self` keeps its view; an instance without one is not in a handler."""
REMEMBERED_ENCODINGS = 1_024


class StateField(DeclaredField):
    """What `state(...)` leaves in the class: `Cart.tickets` is the definition, `self.tickets` the value."""

    KIND = "state"

    def __init__(
        self, default: Any, name: str | None, default_factory: Callable[[], Any] | None, serde: Serde[Any] | None
    ) -> None:
        super().__init__(name, serde)
        self.default = default
        """MISSING where there is none."""
        self.default_factory = default_factory

    def __get__(self, instance: object | None, owner: type, /) -> Any:
        if instance is None:
            return self
        view: StateView | None = instance.__dict__.get(STATE_VIEW)
        return (view or self._view(instance, "read")).read(self.attribute)

    def __set__(self, instance: object, value: Any, /) -> None:
        self._view(instance, "assigned").write(self.attribute, value)

    def __delete__(self, instance: object, /) -> None:
        self._view(instance, "deleted").clear(self.attribute)

    if not TYPE_CHECKING:  # Type checkers say so by themselves.

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            raise DefinitionError(
                f"The state field {self.attribute or 'of this class'} was called like a function. If its name is "
                "handler, shared or state, it hides what has that name in the rest of the class. Give the attribute "
                "another name, and state() the old one as name= if there is stored state."
            )

    def _view(self, instance: object, done: str) -> StateView:
        view: StateView | None = instance.__dict__.get(STATE_VIEW)
        if view is None:
            raise HandlerMistakeError(
                f"The state self.{self.attribute} was {done} outside a handler, where no object is loaded (in the "
                "constructor?). Give it its first value with state(default=...), and use it in handlers only."
            )
        return view


@overload
def state(*, default: T, name: str | None = None, serde: Serde[Any] | None = None) -> T: ...
@overload
def state(
    *,
    default_factory: type[Counter[Any]],
    name: str | None = None,
    serde: Serde[Any] | None = None,
) -> Counter[Any]: ...  # Of `T`, both checkers would infer Counter[Unknown], and refuse it for a Counter[str].
@overload
def state(
    *, default_factory: type[OrderedDict[Any, Any]], name: str | None = None, serde: Serde[Any] | None = None
) -> OrderedDict[Any, Any]: ...
@overload
def state(
    *, default_factory: type[list[Any]], name: str | None = None, serde: Serde[Any] | None = None
) -> list[Any]: ...
@overload
def state(
    *, default_factory: type[dict[Any, Any]], name: str | None = None, serde: Serde[Any] | None = None
) -> dict[Any, Any]: ...
@overload
def state(*, default_factory: type[set[Any]], name: str | None = None, serde: Serde[Any] | None = None) -> set[Any]: ...
@overload
def state(
    *, default_factory: type[frozenset[Any]], name: str | None = None, serde: Serde[Any] | None = None
) -> frozenset[Any]: ...
@overload
def state(
    *, default_factory: type[deque[Any]], name: str | None = None, serde: Serde[Any] | None = None
) -> deque[Any]: ...
@overload
def state(*, default_factory: Callable[[], T], name: str | None = None, serde: Serde[Any] | None = None) -> T: ...
@overload
def state(*, name: str | None = None, serde: Serde[Any] | None = None) -> Any: ...
def state(
    *,
    default: Any = MISSING,
    default_factory: Callable[[], Any] | None = None,
    name: str | None = None,
    serde: Serde[Any] | None = None,
) -> Any:
    """A durable field of a virtual object: `tickets: list[str] = state(default=[])`.

    Reads are typed, in-place changes are seen, `del self.field` returns it to its default. The default is copied
    through the serde for each read, so a list is safe; without one, reading before writing raises UnsetStateError.
    `default_factory` is called when a handler first reads the field, and what it gives an exclusive handler is written
    (rule V4): it may be different for each object. It must not look at clocks or chance, as handlers must not. In a
    shared handler its value lasts for that read. `name` is what the field is stored under, the attribute's name if
    left out: give it when you rename the attribute. `serde` writes the values instead of the class's.

    A field annotated `Lazy[...]`, `DurableDict[..., ...]` or `DurableList[...]` is not loaded with its object: each of
    its entries is stored, read and written by itself. It has no default.

    Raises:
        DefinitionError: both a default and a factory are given, or the factory cannot be called without arguments.
    """
    if default_factory is not None:
        _check_factory(default, default_factory)
    return StateField(default, name, default_factory, serde)


def _check_factory(default: Any, factory: Any) -> None:
    if default is not MISSING:
        raise DefinitionError("state() was given default= and default_factory=. Leave one of them.")
    if not callable(factory):
        raise DefinitionError(
            f"state(default_factory={factory!r}) is called for a value, and is no function. Write default=... for a "
            "value."
        )
    if iscoroutinefunction(factory):
        raise DefinitionError(
            f"state(default_factory={named(factory)}) is `async def`, and the field is read without `await`. Make it a "
            "plain function, or assign the field in a handler."
        )


class CanonicalEncodings:
    """The last encodings of one field of which this process knows that what they decode to is encoded to them again.

    Others say a value in other words: older code left out a field that has a default, or an int was given where a float
    is declared. That costs a decoding and an encoding to find out. It is remembered by hashes of 64 bits: for two
    encodings with one hash, a change that is none would be recorded here and not in another process.
    """

    __slots__ = ("_hashes",)

    def __init__(self) -> None:
        self._hashes: dict[int, None] = {}

    def add(self, data: bytes) -> None:
        hashes = self._hashes
        hashes[hash(data)] = None
        if len(hashes) > REMEMBERED_ENCODINGS:
            del hashes[next(iter(hashes))]

    def __contains__(self, data: bytes) -> bool:
        return hash(data) in self._hashes


@dataclass(frozen=True, slots=True)
class BoundField:
    """A field whose type is known."""

    name: str
    """The stored name."""
    attribute: str
    what: str
    """For sentences: `self.tickets`."""
    codec: TypeCodec[Any]
    default: bytes | None
    factory: Callable[[], Any] | None = None
    """Gives the first value, where there is no default."""
    parts: Parts | None = None
    """Set where the type is a collection whose parts can be verified by themselves."""
    canonical: CanonicalEncodings = field(default_factory=CanonicalEncodings)
    large: LargeField | None = None
    """Set where the field is not loaded with its object (rule V7)."""
    has_own_serde: bool = False
    """It was declared with `serde=`."""


class _Value:
    """A value as this attempt holds it."""

    __slots__ = ("data", "encoded", "parts", "value")

    data: bytes
    """What the value was decoded from, or last encoded to."""
    encoded: bytes | None
    """What the unchanged value is encoded to. It differs from `data` where older code wrote the same value in other
    words, such as without a field that has a default. None: not asked for yet."""
    parts: Split | None
    """The parts of `encoded`, where they are known."""
    value: Any


class StateView:
    """The fields of one object as one attempt sees them."""

    __slots__ = ("_changeable", "_large_names", "_port", "_values", "_writable", "fields")

    def __init__(self, port: Port, fields: Mapping[str, BoundField], *, writable: bool) -> None:
        self._port = port
        self.fields = fields
        self._writable = writable
        self._values: dict[str, _Value] = {}
        self._large_names: frozenset[str] | None = None
        self._changeable: dict[str, _Value] | None = None
        """Those of the values that can change in place: encoded again at the end of each step. None: never any."""

    def read(self, attribute: str) -> Any:
        """The value of a field.

        Raises:
            UnsetStateError: it has none, and no default.
            UndecodableError: what is stored is not of the annotated type.
        """
        held = self._values.get(attribute)
        if held is not None and self._writable:  # Any other change makes this view forget it.
            self._port.check(self.fields[attribute].what)
            return held.value
        field = self.fields[attribute]
        if field.large is not None:
            return field.large.view(self._port, writable=self._writable)
        data = self._port.read_field(field.name)  # Raises outside the handler's advance (rule D1).
        if data is None:
            data = field.default
            if data is None:
                if field.factory is not None:
                    return self._first_value(field, field.factory)
                raise UnsetStateError(
                    f"{field.what} was read before it was written, and it has no default. "
                    f"Declare one, with state(default=...), or assign it first."
                )
        # Equal bytes: what we hold is current. In a shared handler they may have changed since its last step (rule V3).
        if held is not None and held.data == data:
            return held.value
        coding = self._port.coding
        if coding is None or len(data) < MEASURED_BYTES:
            return self._hold(field, data, _decoded(field, data), None)
        began = coding.monotonic()
        value = _decoded(field, data)
        coding.add(field.what, len(data), began)
        return self._hold(field, data, value, None)

    def _first_value(self, field: BoundField, factory: Callable[[], Any]) -> Any:
        """Let the factory give the value, which is a change of this step where the handler may change it (rule V4)."""
        data = _encoded(field, factory())[0]
        held = self._values.get(field.attribute)
        if held is not None and held.data == data:
            return held.value
        if self._writable:
            self._port.write_field(field.name, data)
        return self._hold(field, data, _decoded(field, data), None)  # A copy: the factory may give one object twice.

    def write(self, attribute: str, value: Any) -> None:
        """Set a field.

        Raises:
            UnencodableError: the value is not of the annotated type, or cannot be written at all (rule V5).
            SharedStateError: the handler is shared.
        """
        field = self.fields[attribute]
        if not self._writable:
            self._refuse_if_shared(field)
        if field.large is not None:
            raise HandlerMistakeError(
                f"{field.what} was assigned, and is a {field.large.kind.__name__}, which is changed by its methods. "
                f"`del {field.what}` removes all of it."
            )
        codec, coding = field.codec, self._port.coding
        # Values that cannot change in place are small as a rule, and the most frequent ones: not worth measuring.
        began = None if coding is None or codec.immutable else coding.monotonic()
        data, is_canonical = _encoded(field, value)
        if is_canonical and not codec.immutable:
            field.canonical.add(data)
        if coding is not None and began is not None and len(data) >= MEASURED_BYTES:
            coding.add(field.what, len(data), began)
        self._port.write_field(field.name, data)  # Raises outside the handler's advance (rule D1).
        self._hold(field, data, value, data)

    def clear(self, attribute: str) -> None:
        """Return a field to its default."""
        field = self.fields[attribute]
        self._refuse_if_shared(field)
        if field.large is not None:
            self._port.clear_entries(field.name)
        self._port.write_field(field.name, None)
        self._forget(attribute)

    def codec_of(self, name: str) -> TypeCodec[Any] | None:
        """The codec of the field that is stored under this name; None if none is declared."""
        return next((field.codec for field in self.fields.values() if field.name == name and not field.large), None)

    def own_codec_of(self, name: str) -> TypeCodec[Any] | None:
        """The same where the field was declared with a Serde of its own."""
        return next((field.codec for field in self.fields.values() if field.name == name and field.has_own_serde), None)

    def large_names(self) -> frozenset[str]:
        """The stored names of the fields that are not loaded with the object."""
        if self._large_names is None:
            self._large_names = frozenset(field.name for field in self.fields.values() if field.large is not None)
        return self._large_names

    def settle(self) -> None:
        """Hand in-place changes over now, before the state is used by name."""
        for name, data in self.flush().items():
            self._port.write_field(name, data)

    def forget(self, name: str | None = None) -> None:
        """The field stored under `name`, or every field, was changed by name: what is held of it is void."""
        for attribute in [one for one in self._values if name is None or self.fields[one].name == name]:
            self._forget(attribute)

    def flush(self, *, verify: bool = True) -> dict[str, bytes | None]:
        """Stored name and new bytes of each field whose value was changed in place since it was last looked at.

        An unchanged field costs one encoding. A changed one costs `verify` besides, which only a replay may leave out:
        it compares the bytes with recorded ones, which were verified before they were recorded.
        """
        changed: dict[str, bytes | None] = {}
        coding = self._port.coding
        for attribute, held in (self._changeable or {}).items():
            field = self.fields[attribute]
            began = None if coding is None else coding.monotonic()
            data = _changed(field, held, verify)
            if data is not None:
                changed[field.name] = held.data = held.encoded = data
            if coding is not None and began is not None and len(held.data) >= MEASURED_BYTES:
                coding.add(field.what, len(held.data), began)
        return changed

    def _hold(self, field: BoundField, data: bytes, value: Any, encoded: bytes | None) -> Any:
        held = self._values.get(field.attribute)
        if held is None:
            held = self._values[field.attribute] = _Value()
            if not field.codec.immutable:
                if self._changeable is None:
                    self._changeable = {}
                    self._port.watch_fields(self.flush)
                self._changeable[field.attribute] = held
        held.data, held.value, held.encoded, held.parts = data, value, encoded, None
        return value

    def _forget(self, attribute: str) -> None:
        self._values.pop(attribute, None)
        if self._changeable is not None:
            self._changeable.pop(attribute, None)

    def _refuse_if_shared(self, field: BoundField) -> None:
        if not self._writable:
            raise SharedStateError(
                f"{field.what} was changed in a shared handler, which may only read: others run beside it. "
                "Make the handler exclusive (@handler), or let it call one that is."
            )


def _changed(field: BoundField, held: _Value, verify: bool) -> bytes | None:
    """The bytes of a value that was changed in place; None if it was not."""
    codec = field.codec
    try:
        data = codec.encode(held.value)
        if data in (held.data, held.encoded):
            if codec.is_ambiguous(data):
                codec.verify(held.value, data)
            return None
        is_longer = field.parts is not None and field.parts.is_longer(data, held.data)
        if held.encoded is None and not is_longer and held.data not in field.canonical:
            held.encoded = codec.encode(codec.decode(held.data))
            if held.encoded == held.data:
                field.canonical.add(held.data)
            if data == held.encoded:
                return None
        if verify:
            _verify(field, held, data)
        else:
            held.parts = None
    except UnencodableError as error:
        raise UnencodableError(
            f"{field.what} was changed in place to what cannot be stored: {error.message}", path=error.path
        ) from error
    return data


def _verify(field: BoundField, held: _Value, data: bytes) -> None:
    """Verify new bytes of a value, by their parts where it can be."""
    # What older code wrote in other words has never been verified in today's.
    if field.parts is None or len(data) < SMALLEST_BYTES or held.encoded not in (None, held.data):
        held.parts, is_canonical = None, field.codec.verify(held.value, data)
    else:
        before = held.data if held.parts is None else held.parts
        held.parts, is_canonical = field.parts.verify(held.value, data, before)
        is_canonical = is_canonical and held.data in field.canonical
    if is_canonical:
        field.canonical.add(data)


def _encoded(field: BoundField, value: Any) -> tuple[bytes, bool]:
    try:
        codec = field.codec
        return (codec.encode_exactly(value), False) if codec.immutable else codec.encode_to_change(value)
    except UnencodableError as error:
        raise UnencodableError(f"{field.what} cannot be given this value: {error.message}", path=error.path) from error


def _decoded(field: BoundField, data: bytes) -> Any:
    try:
        return field.codec.decode(data)
    except UndecodableError as error:
        raise UndecodableError(
            f"The stored value of {field.what} does not fit its type. {error.message} If its type has changed, give "
            "the new field another name=, or let the type accept the old form too.",
            path=error.path,
            reason=error.reason,
        ) from error
