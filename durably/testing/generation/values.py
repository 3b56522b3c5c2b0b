"""`Values`: a strategy for the values of a type, as far as JSON carries them.

A type that has parts is taken apart here, so that what the user says of a type holds wherever that type occurs; what
has none is left to hypothesis. Floats and decimals are finite; datetimes and times are aware, in UTC, as `ctx.now()`.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeGuard, TypeVar

import msgspec
from hypothesis import errors, reject
from hypothesis import strategies as st
from msgspec import inspect as shapes

from durably.actors.values.constraints import is_field_info
from durably.actors.values.descriptions import MISSING, describe
from durably.actors.values.models import is_model_class

Strategy = st.SearchStrategy[Any]

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON = st.recursive(
    SCALARS, lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(), parts, max_size=3), max_leaves=5
)

_LEAVES: Mapping[Any, Strategy] = {
    None: st.none(),
    Any: JSON,
    object: JSON,
    MISSING: JSON,
    float: st.floats(allow_nan=False, allow_infinity=False),
    decimal.Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    datetime.datetime: st.datetimes(timezones=st.just(datetime.UTC)),
    datetime.time: st.times(timezones=st.just(datetime.UTC)),
}
_LISTS = (list, collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Collection)
_SETS = (set, collections.abc.Set, collections.abc.MutableSet)
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


class NoStrategyError(TypeError):
    """Nothing is known of the values of a type. The message says which, and what to write."""


class Size(NamedTuple):
    """How many characters, bytes or items; `most` is None for any number."""

    least: int = 0
    most: int | None = None


ANY_SIZE = Size()


class Values:
    """Strategies by type; `own` are those of the user, and go before all others."""

    def __init__(self, own: Mapping[Any, Strategy]) -> None:
        self._own = own
        self._made: dict[Any, Strategy] = {}
        """Classes with parts, so that a class may be part of itself."""

    def of(self, annotation: Any, size: Size = ANY_SIZE) -> Strategy:
        """The values of a type.

        Raises:
            NoStrategyError: there is no strategy for the type.
        """
        for known in (self._own, _LEAVES):
            strategy = _found(known, annotation)
            if strategy is not None:
                return strategy
        origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            return self._annotated(annotation, parts[0], parts[1:])
        if origin in (typing.Required, typing.NotRequired):
            return self.of(parts[0])
        if origin in (typing.Union, types.UnionType):
            return st.one_of([self.of(part) for part in parts])
        if isinstance(annotation, typing.NewType):
            return self.of(annotation.__supertype__)
        if hasattr(annotation, "__value__"):  # `type Seats = list[str]`
            return self.of(annotation.__value__)
        cls = annotation if origin is None else origin
        if isinstance(cls, type) and _has_parts(cls):
            return self._class(annotation, cls, parts)
        collection = self._collection(annotation, cls, parts, size)
        return _by_hypothesis(annotation) if collection is None else collection

    def _annotated(self, annotation: Any, base: Any, said: tuple[Any, ...]) -> Strategy:
        given = next(filter(_is_strategy, reversed(said)), None)
        if given is not None:
            return given
        if any(isinstance(one, msgspec.Meta) for one in said):
            return self._bounded(base, shapes.type_info(annotation))
        if any(map(is_field_info, said)):  # What `pydantic.Field(gt=0)` says stands in its metadata.
            said = tuple(part for one in said for part in (one.metadata if is_field_info(one) else (one,)))
            return self.of(typing.Annotated[(base, *said)] if said else base)
        return _by_hypothesis(annotation) if any(map(_is_known_to_hypothesis, said)) else self.of(base)

    def _bounded(self, base: Any, shape: shapes.Type) -> Strategy:
        """What `msgspec.Meta` says of a type."""
        match shape:
            case shapes.Metadata():
                return self._bounded(base, shape.type)
            case shapes.IntType():
                return _integers(shape)
            case shapes.FloatType():
                return _floats(shape)
            case shapes.StrType(pattern=str()):
                assert shape.pattern is not None
                return st.from_regex(shape.pattern)
            case shapes.StrType():
                return st.text(min_size=shape.min_length or 0, max_size=shape.max_length)
            case shapes.BytesType():
                return st.binary(min_size=shape.min_length or 0, max_size=shape.max_length)
            case shapes.DateTimeType(tz=False):
                return st.datetimes().map(_without_fold)
            case shapes.TimeType(tz=False):
                return st.times().map(_without_fold)
            case shapes.CollectionType() | shapes.DictType():
                return self.of(base, Size(shape.min_length or 0, shape.max_length))
            case _:
                return self.of(base)

    def _collection(self, annotation: Any, cls: Any, parts: tuple[Any, ...], size: Size) -> Strategy | None:
        item = parts[0] if parts else Any
        if cls in _LISTS:
            return st.lists(self.of(item), min_size=size.least, max_size=size.most)
        if cls is tuple and (annotation is tuple or parts[1:] == (...,)):
            return st.lists(self.of(item), min_size=size.least, max_size=size.most).map(tuple)
        if cls is tuple:
            return st.tuples(*map(self.of, parts))
        if cls in _SETS:
            return st.sets(self._hashable(item), min_size=size.least, max_size=size.most)
        if cls is frozenset:
            return st.frozensets(self._hashable(item), min_size=size.least, max_size=size.most)
        if cls in _DICTS:
            key, value = parts or (str, Any)
            names = self.of(str if key is Any else key)
            return st.dictionaries(names, self.of(value), min_size=size.least, max_size=size.most)
        return None

    def _hashable(self, item: Any) -> Strategy:
        return SCALARS if item is Any else self.of(item)

    def _class(self, annotation: Any, cls: type, parts: tuple[Any, ...]) -> Strategy:
        """A class that says of what it is made."""
        made = _found(self._made, annotation)
        if made is None:
            made = self._made[annotation] = st.deferred(lambda: self._with_parameters(cls, parts)._instances(cls))
            made.validate()
        return made

    def _with_parameters(self, cls: type, parts: tuple[Any, ...]) -> Values:
        """In `Box[int]`, what `Box` calls `T` is `int`."""
        if not parts:
            return self
        names: tuple[Any, ...] = getattr(cls, "__parameters__", ())
        return Values({**self._own, **{name: self.of(part) for name, part in zip(names, parts, strict=False)}})

    def _instances(self, cls: type) -> Strategy:
        required, optional = _parts_of(cls)
        parts = st.fixed_dictionaries(
            {name: self.of(part) for name, part in required.items()},
            optional={name: self.of(part) for name, part in optional.items()},
        )
        return parts if typing.is_typeddict(cls) else parts.map(_maker(cls))


def _found(strategies: Mapping[Any, Strategy], annotation: Any) -> Strategy | None:
    if annotation is type(None):
        annotation = None
    try:
        return strategies.get(annotation)
    except TypeError:  # It cannot be hashed, such as Annotated[int, []].
        return None


def _is_strategy(value: object) -> TypeGuard[Strategy]:
    return isinstance(value, st.SearchStrategy)


def _has_parts(cls: Any) -> bool:
    return (
        dataclasses.is_dataclass(cls)
        or issubclass(cls, msgspec.Struct)
        or is_model_class(cls)
        or typing.is_typeddict(cls)
        or (hasattr(cls, "_fields") and issubclass(cls, tuple))
    )


def _parts_of(cls: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """The types of what an instance is made of: what it has to be given, and what it may be given."""
    if typing.is_typeddict(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        needed: frozenset[str] = getattr(cls, "__required_keys__")  # noqa: B009
        names = {name: name in needed for name in hints}
    else:
        # What is in the signature of a pydantic model has its constraints, and is no name of a class any more.
        signature = inspect.signature(cls).parameters
        written = {name: one.annotation for name, one in signature.items() if one.kind is not one.VAR_KEYWORD}
        resolved = {} if is_model_class(cls) else typing.get_type_hints(cls, include_extras=True)
        hints = {name: resolved.get(name, annotation) for name, annotation in written.items()}
        names = {name: signature[name].default is inspect.Parameter.empty for name in hints}
    required = {name: hints[name] for name, is_needed in names.items() if is_needed}
    optional = {name: hints[name] for name, is_needed in names.items() if not is_needed}
    return required, optional


def _maker(cls: type) -> Callable[[dict[str, Any]], Any]:
    def make(parts: dict[str, Any]) -> Any:
        try:
            return cls(**parts)
        except ValueError:  # The class has an opinion of its own, such as a pydantic model's validators.
            reject()

    return make


def _by_hypothesis(annotation: Any) -> Strategy:
    if isinstance(annotation, TypeVar | str):
        raise NoStrategyError(_unknown(annotation))
    try:
        strategy = st.from_type(annotation)
        strategy.validate()
    except (errors.InvalidArgument, errors.ResolutionFailed, TypeError) as error:
        raise NoStrategyError(_unknown(annotation)) from error
    return strategy


def _unknown(annotation: Any) -> str:
    name = describe(annotation)
    return f"nothing is known of the values of {name}. Say what they are, by type ({{{name}: ...}}) or by parameter"


def _is_known_to_hypothesis(said: object) -> bool:
    """A constraint such as `annotated_types.Ge(1)`. A program that has one has imported the library."""
    library = sys.modules.get("annotated_types")
    return library is not None and isinstance(said, library.BaseMetadata | library.GroupedMetadata)


def _integers(shape: shapes.IntType) -> Strategy:
    least = shape.ge if shape.gt is None else shape.gt + 1
    most = shape.le if shape.lt is None else shape.lt - 1
    step = shape.multiple_of
    if step is None:
        return st.integers(least, most)
    lowest = None if least is None else math.ceil(least / step)
    highest = None if most is None else math.floor(most / step)
    return st.integers(lowest, highest).map(lambda number: number * step)


def _without_fold(value: Any) -> Any:
    """JSON has no `fold`."""
    return value.replace(fold=0)


def _floats(shape: shapes.FloatType) -> Strategy:
    least = shape.ge if shape.gt is None else shape.gt
    most = shape.le if shape.lt is None else shape.lt
    return st.floats(
        least,
        most,
        exclude_min=shape.gt is not None,
        exclude_max=shape.lt is not None,
        allow_nan=False,
        allow_infinity=False,
    )
