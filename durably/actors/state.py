"""Durable fields: `x: T = state(default=...)` in a class, and the view of them that each attempt has.

A view decodes what it reads and encodes what is written, so that no value is shared between attempts (rule V1). A value
that can change in place is encoded again at the end of the step and reported if its bytes differ (rule V2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from durably.actors.protocol.port import Port
from durably.actors.values.descriptions import MISSING
from durably.actors.values.serde import TypeCodec
from durably.errors import HandlerMistakeError, SharedStateError, UndecodableError, UnencodableError, UnsetStateError

T = TypeVar("T")

STATE_VIEW = "__durably_state__"
"""Where an attempt's `self` keeps its view; an instance without one is not in a handler."""


class StateField:
    """What `state(...)` leaves in the class: `Cart.tickets` is the definition, `self.tickets` the value."""

    def __init__(self, default: Any, name: str | None) -> None:
        self.default = default
        """MISSING where there is none."""
        self._name = name
        self.attribute = ""
        self.owner: type = object

    def __set_name__(self, owner: type, attribute: str) -> None:
        self.attribute = attribute
        self.owner = owner

    @property
    def name(self) -> str:
        """The name under which the field is stored."""
        return self._name or self.attribute

    def __repr__(self) -> str:
        return f"<state {self.owner.__name__}.{self.attribute}>"

    def __get__(self, instance: object | None, owner: type, /) -> Any:
        if instance is None:
            return self
        view: StateView | None = instance.__dict__.get(STATE_VIEW)
        return (view or self._view(instance, "read")).read(self.attribute)

    def __set__(self, instance: object, value: Any, /) -> None:
        self._view(instance, "assigned").write(self.attribute, value)

    def __delete__(self, instance: object, /) -> None:
        self._view(instance, "deleted").clear(self.attribute)

    def _view(self, instance: object, done: str) -> StateView:
        view: StateView | None = instance.__dict__.get(STATE_VIEW)
        if view is None:
            raise HandlerMistakeError(
                f"The state self.{self.attribute} was {done} outside a handler, where no object is loaded (in the "
                "constructor?). Give it its first value with state(default=...), and use it in handlers only."
            )
        return view


@overload
def state(*, default: T, name: str | None = None) -> T: ...
@overload
def state(*, name: str | None = None) -> Any: ...
def state(*, default: Any = MISSING, name: str | None = None) -> Any:
    """A durable field of a virtual object: `tickets: list[str] = state(default=[])`.

    Reads are typed, in-place changes are seen, `del self.field` returns it to its default. The default is copied
    through the serde for each read, so a list is safe; without one, reading before writing raises UnsetStateError.
    `name` is what it is stored under, the attribute's name if left out: give it when you rename the attribute.
    """
    return StateField(default, name)


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


class _Value:
    """A value as this attempt holds it: `data` is what it was decoded from, or last encoded to."""

    __slots__ = ("data", "value")

    def __init__(self, data: bytes, value: Any) -> None:
        self.data = data
        self.value = value


class StateView:
    """The fields of one object as one attempt sees them."""

    __slots__ = ("_changeable", "_fields", "_port", "_values", "_writable")

    def __init__(self, port: Port, fields: Mapping[str, BoundField], *, writable: bool) -> None:
        self._port = port
        self._fields = fields
        self._writable = writable
        self._values: dict[str, _Value] = {}
        self._changeable: dict[str, _Value] | None = None
        """Those of the values that can change in place: encoded again at the end of each step. None: never any."""

    def declares(self, attribute: str) -> bool:
        return attribute in self._fields

    def read(self, attribute: str) -> Any:
        """The value of a field.

        Raises:
            UnsetStateError: it has none, and no default.
            UndecodableError: what is stored is not of the annotated type.
        """
        field = self._fields[attribute]
        data = self._port.read_field(field.name)  # Raises outside the handler's advance (rule D1).
        if data is None:
            data = field.default
            if data is None:
                raise UnsetStateError(
                    f"{field.what} was read before it was written, and it has no default. "
                    f"Declare one, with state(default=...), or assign it first."
                )
        held = self._values.get(attribute)
        # Equal bytes: what we hold is current. In a shared handler they may have changed since its last step (rule V3).
        if held is not None and held.data == data:
            return held.value
        return self._hold(field, data, _decoded(field, data))

    def write(self, attribute: str, value: Any) -> None:
        """Set a field.

        Raises:
            UnencodableError: the value is not of the annotated type, or cannot be written at all (rule V5).
            SharedStateError: the handler is shared.
        """
        field = self._fields[attribute]
        if not self._writable:
            self._refuse_if_shared(field)
        try:
            data = field.codec.encode_exactly(value)
        except UnencodableError as error:
            raise UnencodableError(
                f"{field.what} cannot be given this value: {error.message}", path=error.path
            ) from error
        self._port.write_field(field.name, data)  # Raises outside the handler's advance (rule D1).
        self._hold(field, data, value)

    def clear(self, attribute: str) -> None:
        """Return a field to its default."""
        field = self._fields[attribute]
        self._refuse_if_shared(field)
        self._port.write_field(field.name, None)
        self._forget(attribute)

    def settle(self) -> None:
        """Hand in-place changes over now, before the state is used by name."""
        for name, data in self.flush().items():
            self._port.write_field(name, data)

    def forget(self, name: str | None = None) -> None:
        """The field stored under `name`, or every field, was changed by name: what is held of it is void."""
        for attribute in [one for one in self._values if name is None or self._fields[one].name == name]:
            self._forget(attribute)

    def flush(self) -> dict[str, bytes | None]:
        """Stored name and new bytes of each field whose value was changed in place since it was last looked at."""
        changed: dict[str, bytes | None] = {}
        for attribute, held in (self._changeable or {}).items():
            field = self._fields[attribute]
            data = self._encoded(field, held)
            if data != held.data:
                changed[field.name] = held.data = data
        return changed

    def _encoded(self, field: BoundField, held: _Value) -> bytes:
        try:
            data = field.codec.encode(held.value)
            if data == held.data and field.codec.is_ambiguous(data):
                field.codec.verify(held.value, data)
            if data == held.data or data == field.codec.encode(field.codec.decode(held.data)):
                # The second: older code wrote the same value in other words, such as without a field that has a
                # default.
                return held.data
            return field.codec.encode_exactly(held.value)
        except UnencodableError as error:
            raise UnencodableError(
                f"{field.what} was changed in place to what cannot be stored: {error.message}", path=error.path
            ) from error

    def _hold(self, field: BoundField, data: bytes, value: Any) -> Any:
        held = self._values.get(field.attribute)
        if held is not None:
            held.data, held.value = data, value
            return value
        held = self._values[field.attribute] = _Value(data, value)
        if not field.codec.immutable:
            if self._changeable is None:
                self._changeable = {}
                self._port.watch_fields(self.flush)
            self._changeable[field.attribute] = held
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
