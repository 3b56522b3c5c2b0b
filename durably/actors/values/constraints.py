"""What an annotation declares beyond what msgspec enforces: constraints and classes of pydantic and annotated-types.

msgspec reads `Annotated[int, Gt(0)]` and a pydantic dataclass as if the rest were not there. So a type is searched
before it gets a codec: what is found is left to pydantic, or refused with a sentence that names it (rule V5).
"""

from __future__ import annotations

import collections.abc
import dataclasses
import typing
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from durably.actors.values.descriptions import describe, named
from durably.actors.values.models import is_model_class, model_fields
from durably.actors.values.type_checks import is_class
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.errors import DefinitionError

_HARMLESS = ("Unit", "DocInfo", "FieldInfo")
"""Says nothing about values; what a `FieldInfo` says is looked at part by part."""
_UNENFORCED = ("Timezone",)
"""Constraints that pydantic accepts and does not enforce."""
_ABSTRACT = (collections.abc.Sequence, collections.abc.Collection)
_FIELD_OPTIONS = ("discriminator", "alias", "validation_alias", "serialization_alias", "exclude")
_CLOCKED = ("FutureDate", "FutureDatetime")
"""Types whose values stop being valid as time goes by."""
_META_LIMITS = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz")
_PURE_FACTORIES = (list, dict, set, frozenset, tuple, str, int, float, bool, bytes, bytearray, type(None))


def declarations_in(annotation: Any) -> Declarations:
    """What an annotation declares, and the classes that it names.

    Raises:
        DefinitionError: a constraint that would not be enforced, by name.
    """
    found = Declarations()
    found.visit(annotation, "", in_model=False)
    if found.foreign is not None and found.limits_of_msgspec is not None:
        raise DefinitionError(
            f"{describe(annotation)} holds {found.limits_of_msgspec}, which only msgspec enforces, and "
            f"{found.foreign}, which only pydantic enforces. Use one of the two for all of it."
        )
    return found


class Declarations:
    """What was found."""

    def __init__(self) -> None:
        self.foreign: str | None = None
        """The first thing that only pydantic enforces, in words."""
        self.struct: type | None = None
        """A msgspec struct, which pydantic does not know."""
        self.draws_defaults = False
        """A field that is left out gets a value that may differ from one reading to the next."""
        self.is_abstract = False
        """Declares a `Sequence` or `Collection`: tuples and sets are given, lists are read."""
        self.limits_of_msgspec: str | None = None
        """The first constraint that only msgspec enforces, in words."""
        self._seen: set[tuple[type, bool]] = set()

    def visit(self, annotation: Any, place: str, *, in_model: bool) -> None:
        """Note what a type declares. `place` ends a sentence about it; `in_model`: pydantic reads it anyway."""
        origin = get_origin(annotation)
        if origin is Annotated:
            base, *metadata = get_args(annotation)
            self._read(metadata, place, in_model=in_model)
            self.visit(base, place, in_model=in_model)
        elif isinstance(annotation, typing.NewType):
            self.visit(annotation.__supertype__, place, in_model=in_model)
        elif hasattr(annotation, "__value__"):  # `type Seats = list[str]`
            self.visit(annotation.__value__, place, in_model=in_model)
        elif origin is not Literal:
            for part in get_args(annotation):
                self.visit(part, place, in_model=in_model)
            cls = annotation if origin is None else origin
            self.is_abstract = self.is_abstract or cls in _ABSTRACT
            if is_class(cls) and (cls, in_model) not in self._seen:
                self._seen.add((cls, in_model))
                self._visit_class(cls, in_model)

    def _read(self, metadata: Iterable[Any], place: str, *, in_model: bool) -> None:
        for one, words in _one_by_one(metadata):
            if type(one).__name__ in _UNENFORCED and _is_of_pydantic(one):
                raise DefinitionError(
                    f"Nothing enforces the constraint {words}{place}. Use pydantic.AwareDatetime, "
                    "pydantic.NaiveDatetime or msgspec.Meta(tz=...)."
                )
            if isinstance(one, msgspec.Meta):
                if any(getattr(one, limit) is not None for limit in _META_LIMITS):
                    if in_model:
                        raise DefinitionError(
                            f"pydantic does not enforce the constraint {words}{place}. Use pydantic.Field(...) there."
                        )
                    self.limits_of_msgspec = self.limits_of_msgspec or f"{words}{place}"
            elif not in_model and _is_of_pydantic(one):
                self.foreign = self.foreign or f"{words}{place}"

    def _visit_class(self, cls: Any, in_model: bool) -> None:
        if cls.__name__ in _CLOCKED and hasattr(cls, "__get_pydantic_core_schema__"):
            raise DefinitionError(
                f"{named(cls)} is valid only until its time has come, and what is stored is read again after that. Use "
                "date or an aware datetime, and compare it with ctx.now() in the handler."
            )
        if is_model_class(cls):
            for name, field in model_fields(cls).items():
                place = f" of {named(cls)}.{name}"
                self._read(field.metadata, place, in_model=True)
                self.visit(field.annotation, place, in_model=True)
                self._note_factory(field.default_factory)
            return
        if not in_model:
            self.foreign = self.foreign or _foreign_class(cls)
        for name, annotation in _fields(cls):
            self.visit(annotation, f" of {named(cls)}.{name}", in_model=in_model)
        if issubclass(cls, msgspec.Struct):
            self.struct = self.struct or cls
            for field in msgspec.structs.fields(cls):
                self._note_factory(field.default_factory)
        elif dataclasses.is_dataclass(cls):
            for one in dataclasses.fields(cls):
                self._note_factory(one.default_factory)
                if not in_model and is_field_info(one.default):
                    self.foreign = self.foreign or f"{one.default!r} of {named(cls)}.{one.name}"

    def _note_factory(self, factory: Any) -> None:
        is_none = factory is None or factory is dataclasses.MISSING or factory is msgspec.NODEFAULT
        if not is_none and (get_origin(factory) or factory) not in _PURE_FACTORIES:
            self.draws_defaults = True


def is_field_info(value: object) -> bool:
    """A `pydantic.Field(...)`."""
    return type(value).__name__ == "FieldInfo" and _is_of_pydantic(value)


def _is_of_pydantic(one: object) -> bool:
    """Something that pydantic acts upon where it stands in the metadata of a type."""
    cls = type(one)
    library = cls.__module__.partition(".")[0]
    return (
        library in ("annotated_types", "pydantic")
        or hasattr(one, "__get_pydantic_core_schema__")
        or getattr(one, "__is_annotated_types_grouped_metadata__", False) is True
    )


def _one_by_one(metadata: Iterable[Any]) -> Iterator[tuple[Any, str]]:
    """What stands in the metadata, each with its words; of a `Field(...)`, what it says of values."""
    for one in metadata:
        if is_field_info(one):
            yield from _one_by_one(one.metadata)
            for option in _FIELD_OPTIONS:
                if getattr(one, option, None) not in (None, False):
                    yield one, f"Field({option}={getattr(one, option)!r})"
        elif type(one).__name__ not in _HARMLESS:
            yield one, repr(one)


def _foreign_class(cls: Any) -> str | None:
    """In words, what a class is that only pydantic knows how to read."""
    if dataclasses.is_dataclass(cls) and hasattr(cls, "__pydantic_validator__"):
        return f"the pydantic dataclass {named(cls)}"
    if hasattr(cls, "__get_pydantic_core_schema__"):
        return f"the type {named(cls)} of pydantic"
    if hasattr(cls, "__pydantic_config__"):
        return f"the pydantic configuration of {named(cls)}"
    if any(type(one).__name__ == "PydanticDescriptorProxy" for one in vars(cls).values()):
        return f"the pydantic validators of {named(cls)}"
    return None


def _fields(cls: Any) -> Iterable[tuple[str, Any]]:
    """The fields of a class whose fields msgspec reads; none where their types cannot be found, which it will say."""
    has_fields = (
        dataclasses.is_dataclass(cls)
        or issubclass(cls, msgspec.Struct)
        or typing.is_typeddict(cls)
        or hasattr(cls, "_fields")
        or hasattr(cls, "__attrs_attrs__")
    )
    if not has_fields:
        return ()
    try:
        return typing.get_type_hints(cls, include_extras=True).items()
    except USER_ERRORS as error:  # An annotation is an expression of the user's; it may raise anything.
        let_signals_pass(error)
        return ()
