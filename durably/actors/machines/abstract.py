"""Abstract machines: a class declares transitions, and a subclass implements all of them as they are declared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from durably.actors.machines.definitions import AnyDefinition, Definition, is_definition
from durably.actors.values.descriptions import named
from durably.errors import DefinitionError

T = TypeVar("T")


def members_of(cls: type, kind: type[T]) -> Iterator[T]:
    """The attributes of a kind that a class has, its bases' first; what a subclass has replaced is gone."""
    names = {
        name: None for base in reversed(cls.__mro__) for name, value in vars(base).items() if isinstance(value, kind)
    }
    for name in names:
        value = inspect.getattr_static(cls, name)
        if isinstance(value, kind):
            yield value


def transitions_of(cls: type) -> Iterator[AnyDefinition]:
    """The transitions of a class, those of its bases first."""
    kind: type[Any] = Definition
    return members_of(cls, kind)


def check_implementations(cls: type, read: Callable[[type, AnyDefinition], AnyDefinition]) -> None:
    """See that a class implements what its abstract bases declare. `read` says what a base's declaration means in this
    class.

    Raises:
        DefinitionError: a transition is missing or differs.
    """
    missing: list[AnyDefinition] = []
    for base in reversed(cls.__mro__[1:]):
        for name, declared in vars(base).items():
            if not is_definition(declared) or not declared.is_abstract:
                continue
            given: object = inspect.getattr_static(cls, name)
            if not is_definition(given):
                raise DefinitionError(
                    f"{named(cls)}.{name} is {type(given).__name__}, and {named(base)} declares the transition {name}. "
                    f"Write {declared.DECORATOR} above it, as there."
                )
            if given.is_abstract:
                missing.append(declared)
            else:
                _check_implementation(cls, base, read(base, declared), given)
    if missing:
        written = "\n".join(f"    {one.DECORATOR}\n    {_header(one)}" for one in missing)
        raise DefinitionError(
            f"{named(cls)} does not implement {', '.join(one.attribute for one in missing)}. Add to the class:\n"
            f"{written}\n"
            "or make it abstract too: class ...(..., abstract=True)."
        )


def _check_implementation(cls: type, base: type, declared: AnyDefinition, given: AnyDefinition) -> None:
    leads_from_fewer = not set(declared.sources) <= set(given.sources)
    leads_elsewhere = not set(given.targets) <= set(declared.targets)
    is_initial = bool(declared.sources) == bool(given.sources)
    takes_others = [_shape(one) for one in declared.parameters] != [_shape(one) for one in given.parameters]
    if leads_from_fewer or leads_elsewhere or takes_others or not is_initial:
        raise DefinitionError(
            f"{named(cls)}.{declared.attribute} is not what {named(base)} declares, which callers rely on. Write\n"
            f"    {declared.DECORATOR}\n    {_header(declared)}"
        )


def _shape(parameter: inspect.Parameter) -> tuple[object, ...]:
    return parameter.name, parameter.kind, parameter.annotation, parameter.default


def _header(one: AnyDefinition) -> str:
    """The first line of a method, with annotations as they stand in the source."""
    signature = inspect.signature(one.function)
    parts = [_written(parameter) for parameter in signature.parameters.values()]
    keyword_only = [
        at for at, one in enumerate(signature.parameters.values()) if one.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    if keyword_only:
        parts.insert(keyword_only[0], "*")
    return f"async def {one.attribute}({', '.join(parts)}) -> {_text(signature.return_annotation)}: ..."


def _written(parameter: inspect.Parameter) -> str:
    annotation = "" if parameter.annotation is parameter.empty else f": {_text(parameter.annotation)}"
    default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
    return f"{parameter.name}{annotation}{default}"


def _text(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
