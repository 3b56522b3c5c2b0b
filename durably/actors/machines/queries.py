"""Queries as a program writes them: `find_all(Created, lambda order: order.amount > 10)`.

The lambda is called once, with something in the place of an object whose comparisons say what is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Final, Literal, Never, TypeVar, Union, cast, get_args, get_origin
from uuid import UUID

import msgspec

from durably.actors.machines.model import Model, states_of
from durably.actors.values.descriptions import named
from durably.errors import DefinitionError
from durably.queries import AllOf, AnyOf, Compare, Condition, FieldKind, FieldName, Not, OneOf, Operator

T = TypeVar("T")

ID, STATE = FieldName("id", FieldKind.TEXT), FieldName("state", FieldKind.TEXT)
_KINDS: Final[Mapping[type, FieldKind]] = {
    bool: FieldKind.BOOLEAN,
    int: FieldKind.INTEGER,
    float: FieldKind.NUMBER,
    str: FieldKind.TEXT,
    UUID: FieldKind.TEXT,
    Decimal: FieldKind.DECIMAL,
    datetime: FieldKind.MOMENT,
    date: FieldKind.DAY,
}


def fields_of(model: type[Model]) -> dict[str, FieldName]:
    """The fields of all states of a model by their names in Python.

    Raises:
        DefinitionError: a field has values of several kinds, in different states.
    """
    found: dict[str, FieldName] = {"id": ID, "state": STATE}
    for state in states_of(model):
        try:
            fields = msgspec.structs.fields(cast("Any", state))
        except NameError as error:
            raise DefinitionError(
                f"The fields of {named(state)} cannot be resolved: {error}. Import the name at run time too, and "
                "define models in a module, not in a function."
            ) from error
        for one in fields:
            field = FieldName(one.encode_name, kind_of(one.type))
            if found.setdefault(one.name, field) != field:
                raise DefinitionError(
                    f"The field {one.name!r} of {named(state)} is {field.kind}, and in another state of "
                    f"{model.__name__} it is {found[one.name].kind}. Queries compare it in one way: give one another "
                    "name."
                )
    return found


def kind_of(annotation: Any) -> FieldKind:
    """How values of a type compare, as they are in JSON."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return kind_of(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return _only(kind_of(part) for part in get_args(annotation) if part is not type(None))
    if origin is Literal:
        return _only(kind_of(type(value)) for value in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _only(kind_of(type(one.value)) for one in annotation)
    supertype: Any = getattr(cast("object", annotation), "__supertype__", None)
    if supertype is not None:
        return kind_of(supertype)
    return _KINDS.get(annotation, FieldKind.OTHER) if isinstance(annotation, type) else FieldKind.OTHER


def _only(kinds: Iterable[FieldKind]) -> FieldKind:
    """The kind of all of these."""
    found = {*kinds}
    return found.pop() if len(found) == 1 else FieldKind.OTHER


_HOW_TO_JOIN: Final = (
    "The condition of a query is not evaluated where it is written. Join conditions by & and |, each in parentheses, "
    "and negate by ~: not by `and`, `or`, `not` and `if`. For `in`, write one_of(field, values)."
)


class Where:
    """A condition, in the making."""

    __slots__ = ("condition",)

    def __init__(self, condition: Condition) -> None:
        self.condition = condition

    def __and__(self, other: Any) -> Where:
        return Where(AllOf((self.condition, _condition(other))))

    def __or__(self, other: Any) -> Where:
        return Where(AnyOf((self.condition, _condition(other))))

    def __invert__(self) -> Where:
        return Where(Not(self.condition))

    def __bool__(self) -> Never:
        raise TypeError(_HOW_TO_JOIN)


class FieldRef:
    """A field, in the place of its value. One that is true or false is a condition by itself."""

    __slots__ = ("field",)

    def __init__(self, field: FieldName) -> None:
        self.field = field

    def __repr__(self) -> str:
        return f"the field {self.field.name!r} itself"

    def __and__(self, other: Any) -> Where:
        return Where(AllOf((_condition(self), _condition(other))))

    def __or__(self, other: Any) -> Where:
        return Where(AnyOf((_condition(self), _condition(other))))

    def __invert__(self) -> Where:
        return Where(Not(_condition(self)))

    def __eq__(self, other: object) -> Any:
        return self._compare(Operator.EQUAL, other)

    def __ne__(self, other: object) -> Any:
        return self._compare(Operator.UNEQUAL, other)

    def __lt__(self, other: Any) -> Any:
        return self._compare(Operator.BEFORE, other)

    def __le__(self, other: Any) -> Any:
        return self._compare(Operator.UP_TO, other)

    def __gt__(self, other: Any) -> Any:
        return self._compare(Operator.BEHIND, other)

    def __ge__(self, other: Any) -> Any:
        return self._compare(Operator.FROM, other)

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> Never:
        raise TypeError(_HOW_TO_JOIN if self.field.kind is FieldKind.BOOLEAN else self._no_more())

    def __getattr__(self, name: str) -> Never:
        raise AttributeError(self._no_more())

    def _refuse(self, *_: object) -> Never:
        raise TypeError(self._no_more())

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __neg__ = __pos__ = __abs__ = _refuse
    __len__ = __iter__ = __contains__ = __getitem__ = __int__ = __float__ = __round__ = _refuse

    def _no_more(self) -> str:
        return (
            f"A query compares the field {self.field.name!r} with values, by ==, !=, <, <=, >, >= and one_of(), and "
            "knows no more of it. Look at the rest in what it finds."
        )

    def _compare(self, operator: Operator, other: Any) -> Where:
        if isinstance(other, FieldRef):
            raise TypeError(
                f"The field {self.field.name!r} is compared with another field. Queries compare with values."
            )
        return Where(Compare(self.field, operator, msgspec.to_builtins(other)))


class VersionRef:
    """In the place of an object."""

    __slots__ = ("_fields", "_state")

    def __init__(self, state: type[Model], fields: Mapping[str, FieldName]) -> None:
        self._state = state
        self._fields = fields

    def __getattr__(self, name: str) -> FieldRef:
        own = {"id", "state"}.union(*(one.__struct_fields__ for one in cast("Any", states_of(self._state))))
        if name not in own:
            raise AttributeError(f"{self._state.__name__} has no field {name!r}. It has {', '.join(sorted(own))}.")
        return FieldRef(self._fields[name])


def one_of(field: T, values: Iterable[T], /) -> bool:
    """In a query: whether the field has one of these values."""
    if not isinstance(field, FieldRef):
        raise TypeError(
            "one_of() is for queries: `find_all(Created, lambda order: one_of(order.reference, references))`."
        )
    return cast("bool", Where(OneOf(field.field, tuple(msgspec.to_builtins(value) for value in values))))


def condition_of(
    state: type[Model], fields: Mapping[str, FieldName], where: Callable[[Any], Any] | None, equals: Mapping[str, Any]
) -> Condition | None:
    """What a caller has asked for.

    Raises:
        TypeError: the lambda gave something else.
        AttributeError: the state has no such field.
    """
    if not callable(cast("object", where)) and where is not None:
        raise TypeError(
            f"The condition of a query is a lambda, as in `lambda order: order.amount > 10`, not {where!r}."
        )
    version = VersionRef(state, fields)
    parts = [cast("Where", getattr(version, name) == value).condition for name, value in equals.items()]
    if where is not None:
        parts.append(_condition(where(version)))
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else AllOf(tuple(parts))


def field_of(
    state: type[Model], fields: Mapping[str, FieldName], order_by: Callable[[Any], Any] | None
) -> FieldName | None:
    """By which field an answer is in order.

    Raises:
        TypeError: it is none, or its values are in no order.
    """
    if order_by is None:
        return None
    found: Any = order_by(VersionRef(state, fields)) if callable(cast("object", order_by)) else order_by
    if not isinstance(found, FieldRef) or found.field.kind is FieldKind.OTHER:
        raise TypeError(
            "order_by= gives a field whose values are in an order, as in `order_by=lambda order: order.amount`."
        )
    return found.field


def _condition(given: Any) -> Condition:
    if isinstance(given, FieldRef) and given.field.kind is FieldKind.BOOLEAN:
        return Compare(given.field, Operator.EQUAL, True)
    if not isinstance(given, Where):
        none = " For a field without a value write `== None`, not `is None`." if isinstance(given, bool) else ""
        raise TypeError(
            f"A query asks by comparing fields, as in `lambda order: order.amount > 10`. This one gave {given!r}.{none}"
        )
    return given.condition
