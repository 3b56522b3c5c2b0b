"""Dependencies: what a constructor asks for by annotation, found among what the runtime was given.

Everything that can be wrong is a sentence when the runtime is made: a missing dependency, factories that need each
other, and one for an activation where there is none. What factories make is left open: `Asked.made` names it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType, UnionType
from typing import Any, TypeGuard, TypeVar, Union, cast, get_args, get_origin

from durably.actors.actor import Actor, Service, StateMachine
from durably.actors.caller import Caller
from durably.actors.definition.definition import ActorDefinition, definition_of
from durably.actors.definition.scope import Scope, resolve_annotations
from durably.actors.dependencies import (
    RUNNING_HANDLER,
    SCOPES,
    ActivationKey,
    DependencyScope,
    Factory,
    Keyed,
)
from durably.actors.middleware import Middleware, MiddlewareGiven, describe_middleware
from durably.actors.values.descriptions import MISSING, describe, named
from durably.actors.values.type_checks import is_mapping
from durably.errors import DefinitionError

T = TypeVar("T")

RUNTIME_SCOPE, ACTIVATION_SCOPE = SCOPES


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the parameters of a constructor or of a factory stand for; those with defaults may be missing."""

    values: Mapping[str, Any]
    made: Mapping[str, Any]
    """Parameters for which something is made, with the annotation that it was given under."""
    scope: DependencyScope
    """The narrowest that it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """Something with parameters, as sentences name it."""

    what: str
    """`The constructor of Cart`."""
    call: Callable[..., Any]
    scope: DependencyScope
    """The widest that its dependencies may have: what it lives for itself."""
    lives_for: str
    """`lives as long as the runtime`, for sentences."""
    resolve: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    """Annotations as they were written to what they mean."""
    skips_self: bool = False


class Unmade:
    """Something that waits for what factories make."""

    def __init__(self, asked: Asked, make: Callable[[Mapping[str, Any]], None]) -> None:
        self.asked = asked
        self.make = make
        """Takes what was made, by parameter."""


class LateMiddleware:
    """Middleware whose dependencies are made when the runtime starts."""

    def __init__(self, given: type[Middleware]) -> None:
        self.given = given
        self.made: Middleware | None = None

    def __call__(self, ctx: Any, call_next: Any, /) -> Any:
        assert self.made is not None, "a runtime makes its middleware before it starts"
        return self.made(ctx, call_next)


@dataclass
class Dependencies:
    """What a runtime was given, checked, and what is still to be made of it."""

    given: Mapping[Any, Any]
    detached: Callable[[type], Any] | None = None
    """Makes a value for a class that is asked for and was not given, or is made by a factory; None: a mistake."""
    factories: dict[Any, Asked] = field(default_factory=dict[Any, Asked], init=False)
    """What each factory asks for, by the annotation that it was given under, each after what it needs."""
    unmade: list[Unmade] = field(default_factory=list[Unmade], init=False)
    """What a start has to make for the runtime, in order."""
    services: dict[str, str] = field(default_factory=dict[str, str], init=False)
    """Names on the wire that something calls through a dependency, with a sentence's beginning about who does."""

    def __post_init__(self) -> None:
        if not is_mapping(self.given):
            raise DefinitionError(
                f"dependencies= takes a mapping from annotations to values and factories, not {self.given!r}. Write "
                "dependencies={Mail: mail}."
            )
        for annotation, value in self.given.items():
            if _is_function_for_instance(annotation, value):
                raise DefinitionError(
                    f"dependencies= gives the function {named(value)} for {describe(annotation)}, and an instance is "
                    "asked for. Call it there, or write factory(...) around it, which calls it when the runtime starts."
                )
            if _is_class_for_instance(annotation, value):
                name = describe(annotation)
                raise DefinitionError(
                    f"dependencies= gives the class {named(value)} for {name}, and an instance is asked for. Write "
                    f"dependencies={{{name}: {value.__name__}(...)}}, or factory({value.__name__}), which makes one."
                )
        self._middleware: dict[Any, Middleware] = {}
        if self.detached is None:
            for annotation, value in self.given.items():
                if isinstance(value, Factory):
                    self._visit(annotation, ())

    # ------------------------------------------------------------------ what is asked for

    def asked_by(self, consumer: Consumer) -> Asked:
        """Find what the parameters stand for.

        Raises:
            DefinitionError: something is missing, or lives too short.
        """
        parameters = [
            one
            for one in [*_parameters_of(consumer)]
            if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        ]  # fmt: skip
        written = {one.name: one.annotation for one in parameters if one.annotation is not one.empty}
        annotations = consumer.resolve(written)
        values: dict[str, Any] = {}
        made: dict[str, Any] = {}
        for one in parameters:
            if one.kind is one.POSITIONAL_ONLY:
                raise DefinitionError(
                    f"The parameter {one.name!r} of {_lower(consumer.what)} is positional-only. Remove the `/`."
                )
            self._find(consumer, one, annotations.get(one.name, MISSING), values, made)
        narrowest = (
            ACTIVATION_SCOPE if any(self._scope_of(key) == ACTIVATION_SCOPE for key in made.values()) else RUNTIME_SCOPE
        )
        return Asked(values=values, made=made, scope=narrowest)

    def _find(
        self,
        consumer: Consumer,
        parameter: inspect.Parameter,
        annotation: Any,
        values: dict[str, Any],
        made: dict[str, Any],
    ) -> None:
        ways = _ways_to_ask(annotation)
        wanted = next((way for way in ways if _is_in(way, self.given)), MISSING)
        is_made = wanted is not MISSING and isinstance(self.given[wanted], Factory)
        if wanted is MISSING and ActivationKey in ways:
            wanted, is_made = ActivationKey, True
        if is_made and self.detached is None:
            if self._scope_of(wanted) == ACTIVATION_SCOPE and consumer.scope == RUNTIME_SCOPE:
                raise DefinitionError(_too_short(consumer, parameter.name, annotation))
            made[parameter.name] = wanted
        elif wanted is not MISSING and not is_made:
            values[parameter.name] = self.given[wanted]
        elif (proxy := self._proxy(consumer, parameter.name, ways)) is not MISSING:
            values[parameter.name] = proxy
        elif parameter.default is parameter.empty:
            cls = next((way for way in ways if isinstance(way, type)), None)
            if self.detached is None or cls is None or annotation is MISSING:
                raise DefinitionError(_missing(consumer.what, parameter.name, annotation, self.given))
            values[parameter.name] = self.detached(cls)

    def _proxy(self, consumer: Consumer, parameter: str, ways: Sequence[Any]) -> Any:
        """What calls for the handler that runs, if that is what is asked for."""
        for way in ways:
            if way is Caller:
                return RUNNING_HANDLER
            if get_origin(way) is Keyed:
                (actor,) = get_args(way)
                self._note_called(consumer, parameter, actor)
                return Keyed(RUNNING_HANDLER, actor)
            if isinstance(way, type) and issubclass(way, Actor):
                if issubclass(way, StateMachine):
                    self._note_called(consumer, parameter, way)
                    return RUNNING_HANDLER.machine(cast("Any", way))
                if not issubclass(way, Service):
                    raise DefinitionError(
                        f"{consumer.what} asks for {parameter}: {describe(way)}, and each of these has a key. Write "
                        f"{parameter}: Keyed[{describe(way)}], and self.{parameter}[key]."
                    )
                self._note_called(consumer, parameter, way)
                return RUNNING_HANDLER.service(way)
        return MISSING

    def _note_called(self, consumer: Consumer, parameter: str, actor: type) -> None:
        name = definition_of(actor).name
        self.services.setdefault(name, f"{consumer.what} asks for {parameter}")

    def _scope_of(self, annotation: Any) -> DependencyScope:
        return ACTIVATION_SCOPE if annotation is ActivationKey else cast("Factory[Any]", self.given[annotation]).scope

    def _visit(self, annotation: Any, above: tuple[Any, ...]) -> None:
        """See that a factory can be called, what it needs first."""
        if annotation in above:
            circle = " -> ".join(describe(one) for one in (*above[above.index(annotation) :], annotation))
            raise DefinitionError(
                f"The factories of dependencies= need each other, so none can be first: {circle}. Let one of them make "
                "its dependency without another."
            )
        if annotation in self.factories:
            return
        made: Factory[Any] = self.given[annotation]
        asked = self.asked_by(self._consumer_of(annotation, made))
        for one in asked.made.values():
            if one is not ActivationKey:
                self._visit(one, (*above, annotation))
        self.factories[annotation] = asked

    def _consumer_of(self, annotation: Any, made: Factory[Any]) -> Consumer:
        return Consumer(
            what=f"The factory of {describe(annotation)}, {named(made.make)},",
            call=made.make,
            scope=made.scope,
            lives_for=f"makes it for the {made.scope}",
            resolve=lambda written: self._resolved(made.make, written, f"the factory {named(made.make)}"),
        )

    def _resolved(self, of: Callable[..., Any], written: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        """The annotations of a function or a constructor; classes of a function are known by what was given."""
        function: Any = inspect.unwrap(of.__init__ if isinstance(of, type) else of)  # type: ignore[misc]
        function = getattr(function, "__func__", function)
        closure: Mapping[str, Any] = inspect.getclosurevars(function).nonlocals if inspect.isfunction(function) else {}
        local_names = {**self._names(), **closure}
        return resolve_annotations(written, getattr(function, "__globals__", {}), local_names, where)

    def _names(self) -> dict[str, Any]:
        """Classes that were given, by name: those of functions are known by nothing else later."""
        return {one.__name__: one for one in self.given if isinstance(one, type)}

    # ------------------------------------------------------------------ what asks

    def construct(self, definition: ActorDefinition, made: Callable[[Actor], None]) -> Asked:
        """Call the constructor of a class of actors, now if nothing has to be made for it; `made` takes what it gives.

        What has to be made for each activation is left to the caller, who sees it by `Asked.scope`.
        """
        actor: type[Actor] = definition.actor
        constructor: Any = getattr(actor, "__init__")  # noqa: B009
        is_service = definition.kind == "service"
        where = f"the constructor of {named(actor)}"
        consumer = Consumer(
            what=f"The constructor of {named(actor)}",
            call=constructor,
            scope=RUNTIME_SCOPE if is_service else ACTIVATION_SCOPE,
            lives_for="is of a Service, which has no objects that come into memory",
            resolve=lambda written: _constructor_scope(definition).resolve(written, where, self._names()),
            skips_self=True,
        )
        has_none = constructor is object.__init__
        asked = Asked(values={}, made={}, scope=RUNTIME_SCOPE) if has_none else self.asked_by(consumer)

        def make(values: Mapping[str, Any]) -> None:
            made(constructed(definition, asked, values))

        if not asked.made:
            make({})
        elif asked.scope == RUNTIME_SCOPE:
            self.unmade.append(Unmade(asked, make))
        return asked

    def middleware(self, given: MiddlewareGiven) -> Middleware:
        """Middleware as it runs; a class of it is made once."""
        if not isinstance(given, type):
            return given
        known = self._middleware.get(given)
        if known is None:
            known = self._middleware[given] = self._made_middleware(given)
        return known

    def _made_middleware(self, cls: type[Middleware]) -> Middleware:
        constructor: Any = getattr(cls, "__init__")  # noqa: B009
        what = f"The constructor of the middleware {describe_middleware(cls)}"
        make: Callable[..., Middleware] = cls
        if not inspect.isfunction(constructor):
            return make()
        consumer = Consumer(
            what=what,
            call=constructor,
            scope=RUNTIME_SCOPE,
            lives_for="is of middleware, which lives as long as the runtime",
            resolve=lambda written: self._resolved(cls, written, _lower(what)),
            skips_self=True,
        )
        asked = self.asked_by(consumer)
        if not asked.made:
            return make(**asked.values)
        late = LateMiddleware(cls)

        def made(values: Mapping[str, Any]) -> None:
            late.made = make(**asked.values, **values)

        self.unmade.append(Unmade(asked, made))
        return late

    def check_called(self, names: Sequence[str]) -> None:
        """See that what is called through dependencies is there.

        Raises:
            DefinitionError: no class answers to a name.
        """
        for name, who in self.services.items():
            if name not in names:
                raise DefinitionError(
                    f"{who}, which is called {name!r} on the wire, and no class of this runtime answers to that name: "
                    f"it has {', '.join(names) or 'none'}. Give the runtime the class, or a stand-in: "
                    "dependencies={...: ...}."
                )


def constructed(definition: ActorDefinition, asked: Asked, made: Mapping[str, Any]) -> Actor:
    """An instance whose attributes an attempt's `self` begins with."""
    actor: type[Actor] = definition.actor
    instance = object.__new__(actor)
    constructor: Any = getattr(actor, "__init__")  # noqa: B009
    if constructor is not object.__init__:
        constructor(instance, **asked.values, **made)
    return instance


def _parameters_of(consumer: Consumer) -> Sequence[inspect.Parameter]:
    try:
        parameters = [*inspect.signature(consumer.call).parameters.values()]
    except (TypeError, ValueError) as error:  # Of a class or a function that is written in C.
        raise DefinitionError(f"{consumer.what} does not say what it takes: {error}. Wrap it in a function.") from error
    return parameters[1:] if consumer.skips_self else parameters


def _constructor_scope(definition: ActorDefinition) -> Scope:
    """The constructor may be inherited, with annotations that are names of its own module."""
    owner = next(base for base in definition.actor.__mro__ if "__init__" in vars(base))
    return definition_of(owner).scope if issubclass(owner, Actor) else definition.scope


def _ways_to_ask(annotation: Any) -> tuple[Any, ...]:
    """An annotation as it is, and `Mail` for `Mail | None`."""
    if get_origin(annotation) not in (Union, UnionType):
        return (annotation,)
    return (annotation, *(part for part in get_args(annotation) if part is not type(None)))


def _is_in(annotation: Any, given: Mapping[Any, Any]) -> bool:
    try:
        return annotation in given
    except TypeError:  # It cannot be hashed, as `Annotated[int, []]`.
        return False


def _missing(what: str, parameter: str, annotation: Any, dependencies: Mapping[Any, Any]) -> str:
    if annotation is MISSING:
        return (
            f"The parameter {parameter!r} of {_lower(what)} has no annotation, by which its "
            "value would be found. Annotate it with a class."
        )
    given = ", ".join(describe(one) for one in dependencies) or "nothing"
    wanted = describe(annotation)
    return (
        f"{what} asks for {parameter}: {wanted}, and dependencies= has {given}. "
        f"Write Runtime(..., dependencies={{{wanted}: ...}})."
    )


def _too_short(consumer: Consumer, parameter: str, annotation: Any) -> str:
    return (
        f"{consumer.what} asks for {parameter}: {describe(annotation)}, which is made for each activation, and "
        f"{consumer.lives_for}. Make it for the runtime, factory(..., scope='runtime'), or ask for it where an object "
        "or a workflow does: in its constructor, or in a factory of scope 'activation'."
    )


def _lower(what: str) -> str:
    return what[0].lower() + what[1:].removesuffix(",")


def _is_function_for_instance(annotation: Any, value: Any) -> TypeGuard[FunctionType]:
    """Whether a function was given for a class whose instances cannot be called: it would make the instance."""
    if not isinstance(value, FunctionType) or not isinstance(annotation, type):
        return False
    return "__call__" not in dir(annotation) and not isinstance(value, annotation)


def _is_class_for_instance(annotation: Any, value: Any) -> TypeGuard[type]:
    """Under a class stands the class itself, or a subclass. What is a protocol to callers may be a class."""
    if not isinstance(value, type) or not isinstance(annotation, type) or getattr(annotation, "_is_protocol", False):
        return False
    return annotation in value.__mro__ and annotation is not object and not isinstance(value, annotation)
