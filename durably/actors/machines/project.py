"""`Project`: what a program is made of, for commands and tests: its classes, what they are given, and its `main`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter, iscoroutinefunction, signature
from typing import Any, TypeAlias, cast

from durably.actors.actor import Actor
from durably.actors.caller import Caller
from durably.actors.middleware import MiddlewareGiven
from durably.errors import DefinitionError

Main: TypeAlias = Callable[[Caller], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Project:
    """A program: `project = Project([Orders], main=main)` in project.py.

    `durably worker` runs the classes, `durably main` calls `main(client)`, where a web server may begin, and `durably
    dev` does both. `durably.testing.models.client(project)` makes a client for a test.

    Raises:
        DefinitionError: `main` is no `async` function of one argument, or `actors` no classes.
    """

    actors: Sequence[type[Actor]]
    """The machines, and other classes that run beside them."""
    main: Main | None = field(default=None, kw_only=True)
    """Gets the client that transitions are called on: over HTTP, or in the same process."""
    dependencies: Mapping[Any, Any] = field(default_factory=dict[Any, Any], kw_only=True)
    """What constructors ask for."""
    middleware: Sequence[MiddlewareGiven] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        actors: Any = self.actors
        if not _are_classes(actors):
            raise DefinitionError(f"Project takes a list of classes, as in Project([Orders]), not {actors!r}.")
        main: Any = self.main
        if main is not None and not (iscoroutinefunction(main) and _takes_one(main)):
            raise DefinitionError(f"Project(main=...) takes `async def main(client: Caller) -> None`, not {main!r}.")


def _are_classes(actors: Sequence[object]) -> bool:
    return isinstance(cast(object, actors), Sequence) and all(isinstance(one, type) for one in actors)


def _takes_one(main: Callable[..., Any]) -> bool:
    parameters = [*signature(main).parameters.values()]
    required = [one for one in parameters if one.default is Parameter.empty and one.kind is not one.VAR_POSITIONAL]
    return bool(parameters) and len(required) <= 1 and parameters[0].kind is not Parameter.KEYWORD_ONLY
