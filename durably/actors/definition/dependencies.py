"""Dependencies: what a class's constructor asks for by annotation, found among what the runtime was given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

from durably.actors.actor import Actor
from durably.actors.definition.definition import ActorDefinition, definition_of
from durably.actors.definition.scope import Scope
from durably.actors.values.descriptions import MISSING, describe, named
from durably.errors import DefinitionError


def construct(
    definition: ActorDefinition, dependencies: Mapping[Any, Any], detached: Callable[[type], Any] | None
) -> Actor:
    actor: type[Actor] = definition.actor
    made = object.__new__(actor)
    constructor: Any = getattr(actor, "__init__")  # noqa: B009
    if constructor is not object.__init__:
        constructor(made, **_arguments(definition, constructor, dependencies, detached))
    return made


def _arguments(
    definition: ActorDefinition,
    constructor: Any,
    dependencies: Mapping[Any, Any],
    detached: Callable[[type], Any] | None,
) -> dict[str, Any]:
    """What the constructor is called with: a dependency for each of its parameters."""
    name = named(definition.actor)
    parameters = [
        one
        for one in list(inspect.signature(constructor).parameters.values())[1:]
        if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    written = {one.name: one.annotation for one in parameters if one.annotation is not one.empty}
    annotations = _constructor_scope(definition).resolve(written, f"the constructor of {name}")
    found: dict[str, Any] = {}
    for one in parameters:
        if one.kind is one.POSITIONAL_ONLY:
            raise DefinitionError(
                f"The parameter {one.name!r} of the constructor of {name} is positional-only. Remove the `/`."
            )
        annotation = annotations.get(one.name, MISSING)
        wanted = next((way for way in _ways_to_ask(annotation) if way in dependencies), MISSING)
        if wanted is not MISSING:
            found[one.name] = dependencies[wanted]
        elif one.default is one.empty:
            cls = next((way for way in _ways_to_ask(annotation) if isinstance(way, type)), None)
            if detached is None or cls is None or annotation is MISSING:
                raise DefinitionError(_missing(name, one.name, annotation, dependencies))
            found[one.name] = detached(cls)
    return found


def _constructor_scope(definition: ActorDefinition) -> Scope:
    """The constructor may be inherited, with annotations that are names of its own module."""
    owner = next(base for base in definition.actor.__mro__ if "__init__" in vars(base))
    return definition_of(owner).scope if issubclass(owner, Actor) else definition.scope


def _ways_to_ask(annotation: Any) -> tuple[Any, ...]:
    """An annotation as it is, and `Mail` for `Mail | None`."""
    if get_origin(annotation) not in (Union, UnionType):
        return (annotation,)
    return (annotation, *(part for part in get_args(annotation) if part is not type(None)))


def _missing(actor: str, parameter: str, annotation: Any, dependencies: Mapping[Any, Any]) -> str:
    if annotation is MISSING:
        return (
            f"The parameter {parameter!r} of the constructor of {actor} has no annotation, by which its "
            "value would be found. Annotate it with a class."
        )
    given = ", ".join(describe(one) for one in dependencies) or "nothing"
    wanted = describe(annotation)
    return (
        f"The constructor of {actor} asks for {parameter}: {wanted}, and dependencies= has {given}. "
        f"Write Runtime(..., dependencies={{{wanted}: ...}})."
    )
