"""What the type variables of a generic class stand for in a subclass: `Item` for `T` in `class Items(Repo[Item])`.

Bindings are followed through every class between the two. A variable that stays free is read as its bound, or as
anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from durably.actors.definition.scope import Scope


class TypeBindings:
    """Type variables of one class, and what they stand for. Resolved when types are, so forward references work."""

    def __init__(self, written: Mapping[Any, Any], scope: Scope | None, then: TypeBindings | None = None) -> None:
        """Bind variables to arguments as `written` in a list of bases, where names mean what they do in `scope`.

        `then` replaces the variables in the arguments.
        """
        self._written = written
        self._scope = scope
        self._then = then

    def __bool__(self) -> bool:
        return bool(self._written)

    def apply(self, annotations: Mapping[str, Any]) -> dict[str, Any]:
        """The annotations with each variable replaced.

        Raises:
            DefinitionError: a name in an argument is unknown.
        """
        if not self._written:
            return dict(annotations)
        arguments = {variable: self._resolved(variable, argument) for variable, argument in self._written.items()}
        return {name: _replaced(annotation, arguments) for name, annotation in annotations.items()}

    def _resolved(self, variable: Any, argument: Any) -> Any:
        annotations = {str(variable): argument}
        if self._scope is not None:
            annotations = self._scope.resolve(annotations, f"the bases of {self._scope.owner.__qualname__}")
        if self._then is not None:
            annotations = self._then.apply(annotations)
        return annotations[str(variable)]


NO_BINDINGS = TypeBindings({}, None)


def bindings_of(cls: type, generic: type, scope: Scope) -> TypeBindings:
    """What the type variables of `generic` stand for in its subclass `cls`. Names are looked up in `scope`."""
    return _bindings_of(cls, generic, scope, None)


def _bindings_of(cls: type, generic: type, scope: Scope, then: TypeBindings | None) -> TypeBindings:
    for base in vars(cls).get("__orig_bases__", cls.__bases__):
        origin = get_origin(base) or base
        if not isinstance(origin, type) or not issubclass(origin, generic):
            continue
        variables: tuple[Any, ...] = getattr(origin, "__parameters__", ())
        arguments = get_args(base)
        written = dict(zip(variables, arguments, strict=True)) if len(variables) == len(arguments) else {}
        here = TypeBindings(written, scope, then)
        found = here if origin is generic else _bindings_of(origin, generic, _scope_of(origin), here)
        if found:
            return found
    return NO_BINDINGS


def _scope_of(cls: type) -> Scope:
    """Of a class of actors, where it was defined; of another one, its module."""
    definition = vars(cls).get("__durably__")
    return Scope(cls, None) if definition is None else definition.scope


def _replaced(annotation: Any, arguments: Mapping[Any, Any]) -> Any:
    if isinstance(annotation, TypeVar):
        return arguments.get(annotation, annotation)
    model: Mapping[str, Any] | None = getattr(annotation, "__pydantic_generic_metadata__", None)
    if model is not None:  # `Packet[T]` is a class, and is `Packet` itself where that is generic in the same `T`.
        parts: tuple[Any, ...] = model["parameters"]
    else:
        parts = get_args(annotation)
    origin = get_origin(annotation)
    replaced = tuple(_replaced(part, arguments) for part in parts)
    if replaced == parts or origin is Literal:
        return annotation
    if origin is UnionType:
        return reduce(_union, replaced)
    generic: Any = Annotated if hasattr(annotation, "__metadata__") else origin or annotation
    return generic[replaced]


def _union(left: Any, right: Any) -> Any:
    return left | right
