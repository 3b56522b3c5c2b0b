"""What a class says about itself, gathered and checked when it is defined: its shape, not its types.

`definition_of(Cart)` is the one place where the wire name, the handlers, the state fields and the options of a class
are found. Types are resolved later, in `binding`, when every class that they name exists.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from durably.actors.class_bodies import CLASS_BODY, ClassBody
from durably.actors.definition.arguments import in_words
from durably.actors.definition.contexts import check_context
from durably.actors.definition.scope import Scope
from durably.actors.definition.type_bindings import NO_BINDINGS, bindings_of
from durably.actors.handlers import Handler, HandlerKind
from durably.actors.headers import Forwarding
from durably.actors.middleware import MiddlewareGiven
from durably.actors.migrations import FIRST_STATE_VERSION, Migration
from durably.actors.promises import PromiseField
from durably.actors.retry import RetryPolicy
from durably.actors.state import StateField
from durably.actors.values.descriptions import named
from durably.actors.values.serde import SerdeFactory
from durably.actors.values.type_checks import is_int, is_text
from durably.errors import DefinitionError
from durably.ids import INTERNAL_FIELDS, RUN

ActorKind: TypeAlias = Literal["service", "object", "workflow"]
AnyHandler: TypeAlias = Handler[Any, Any]

DEFINITION = "__durably__"
SERVICE_NAME = re.compile(r"([a-zA-Z]|_[a-zA-Z0-9])[a-zA-Z0-9._-]*")
RESERVED_NAMES = ("restate",)
"""Paths beginning with these belong to the HTTP surface."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorOptions:
    """The class keywords, checked. Times are microseconds; None leaves it to the runtime."""

    name: str | None = None
    abstract: bool = False
    private: bool = False
    retry: RetryPolicy | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    retention_us: int | None = None
    journal_retention_us: int | None = None
    ttl_us: int | None = None
    """How long the state of an object outlives its last exclusive invocation; None: for ever."""
    suspend_after_us: int | None = None
    forwarding: Forwarding | None = None
    """Which headers of an invocation its calls carry on."""
    serde: SerdeFactory | None = None
    """Makes the Serdes of arguments, results, state and actions; None: those of its contract, else the runtime's."""
    state_version: int | None = None
    """None: that of the class that it extends, else the first."""
    middleware: tuple[MiddlewareGiven, ...] = ()
    """What the class itself names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorDefinition:
    """A class of actors."""

    actor: type
    name: str
    """The name on the wire."""
    kind: ActorKind
    handlers: Mapping[str, AnyHandler]
    """By name on the wire, in order of definition, inherited ones first."""
    fields: Mapping[str, StateField]
    """By stored name."""
    promises: Mapping[str, PromiseField]
    """By the name that they are kept under."""
    options: ActorOptions
    documentation: str
    scope: Scope
    state_version: int = FIRST_STATE_VERSION
    migrations: Mapping[int, Migration] = field(default_factory=dict[int, Migration])
    """By the version that they migrate from."""

    serde: SerdeFactory | None = None
    """Makes the Serdes of arguments, results, state and actions; None: the runtime's."""
    middleware: tuple[MiddlewareGiven, ...] = ()
    """What stands around all handlers: that of the classes that it extends, then its own."""

    @property
    def is_contract(self) -> bool:
        """Abstract with a name: implementations answer to the name, and callers need not know them."""
        return self.options.abstract and self.options.name is not None

    def kind_of(self, handler: AnyHandler) -> HandlerKind:
        return _kind_of(self.kind, handler)


def _kind_of(kind: ActorKind, handler: AnyHandler) -> HandlerKind:
    if kind == "service":
        return "service"
    if handler.shared:
        return "shared"
    return "workflow" if kind == "workflow" else "exclusive"


def definition_of(actor: type) -> ActorDefinition:
    """The definition of a class of actors.

    Raises:
        DefinitionError: it is none.
    """
    definition = getattr(actor, "__dict__", {}).get(DEFINITION)
    if not isinstance(definition, ActorDefinition):
        raise DefinitionError(
            f"{actor!r} is not a class of actors. Subclass Service, VirtualObject or Workflow, and give the class "
            "itself."
        )
    return definition


def define(actor: type, kind: ActorKind, options: ActorOptions, scope: Scope) -> ActorDefinition:
    """Gather and check what a class says about itself.

    Raises:
        DefinitionError: it cannot work; says what to write.
    """
    _check_class_body(actor)
    serde = _serde(actor, options)
    definition = ActorDefinition(
        actor=actor,
        name=_name(actor, options),
        kind=kind,
        handlers=_handlers(actor, kind, scope, serde),
        fields=_fields(actor, kind),
        promises=_promises(actor, kind),
        options=options,
        documentation=inspect.cleandoc(actor.__doc__ or ""),
        scope=scope,
        state_version=_state_version(actor, options),
        migrations=_migrations(actor),
        serde=serde,
        middleware=_middleware(actor, options),
    )
    _check_migrations(definition)
    _check_name(definition)
    _check_run(definition)
    _check_written(definition)
    _check_contracts(definition)
    return definition


def _state_version(actor: type, options: ActorOptions) -> int:
    if options.state_version is not None:
        return options.state_version
    for base in actor.__mro__[1:]:
        inherited = vars(base).get(DEFINITION)
        if isinstance(inherited, ActorDefinition):
            return inherited.state_version
    return FIRST_STATE_VERSION


def _middleware(actor: type, options: ActorOptions) -> tuple[MiddlewareGiven, ...]:
    """The outermost is that of the class that is extended: what refuses there is not left out by a subclass."""
    inherited = [
        definition.options.middleware
        for base in reversed(actor.__mro__[1:])
        if isinstance(definition := vars(base).get(DEFINITION), ActorDefinition)
    ]
    return tuple(one for several in (*inherited, options.middleware) for one in several)


def _migrations(actor: type) -> dict[int, Migration]:
    migrations: dict[int, Migration] = {}
    for attribute, one in _members(actor, Migration).items():
        migration: Migration = one
        if migration.from_version in migrations:
            raise DefinitionError(
                f"{named(actor)}.{attribute} is the second migration from state version {migration.from_version}. "
                "Leave one: each goes to the next version."
            )
        migrations[migration.from_version] = migration
    return migrations


def _check_migrations(definition: ActorDefinition) -> None:
    """See that there is a way from every older version to this one, and that there is state at all."""
    actor, version = named(definition.actor), definition.state_version
    if not is_int(version) or version < FIRST_STATE_VERSION:
        raise DefinitionError(f"{actor} has state_version={version!r}: versions are whole numbers from 1 on.")
    if definition.kind == "service" and (definition.options.state_version is not None or definition.migrations):
        raise DefinitionError(f"{actor} has a state version or a migration, and a Service has no state.")
    needed = {*range(FIRST_STATE_VERSION, version)}
    missing, useless = sorted(needed - {*definition.migrations}), sorted({*definition.migrations} - needed)
    if missing:
        raise DefinitionError(
            f"{actor} has state_version={version} and no migration from version {missing[0]}. Write "
            f"`@migrate(from_version={missing[0]})` above a function of the old state, for what is stored."
        )
    if useless:
        raise DefinitionError(
            f"{actor} has a migration from state version {useless[0]}, and its state has version {version}. Write "
            f"`class ...(state_version={useless[-1] + 1})`."
        )


def _name(actor: type, options: ActorOptions) -> str:
    if options.name is not None:
        return options.name
    for base in actor.__mro__[1:]:
        inherited = vars(base).get(DEFINITION)
        if isinstance(inherited, ActorDefinition) and inherited.is_contract:
            return inherited.name
    return actor.__name__


def _check_name(definition: ActorDefinition) -> None:
    name, actor = definition.name, named(definition.actor)
    if not is_text(name) or not SERVICE_NAME.fullmatch(name):
        raise DefinitionError(
            f"{actor} has the name {name!r}, which cannot stand in a path: a name is letters, digits, '.', '_' and "
            "'-', and begins with a letter. Give it another one: class ...(name=...)."
        )
    if name in RESERVED_NAMES:
        raise DefinitionError(
            f"{actor} has the name {name!r}, and paths that begin with it are taken. Give it another one with name=."
        )


def _check_run(definition: ActorDefinition) -> None:
    """A workflow has one handler that is not shared, and that is its `run`."""
    if definition.kind != "workflow":
        return
    actor = named(definition.actor)
    for handler in definition.handlers.values():
        if not handler.shared and handler.name != RUN:
            raise DefinitionError(
                f"{actor}.{handler.attribute} is decorated with @handler, and the only such handler of a Workflow is "
                f"`{RUN}`, which executes once. Use @shared: beside `{RUN}` it reads the state and completes promises."
            )
        if handler.shared and handler.name == RUN:
            raise DefinitionError(
                f"{actor}.{handler.attribute} is @shared and called {RUN!r}, which is what a workflow executes once. "
                "Use @handler, or another name."
            )
    if RUN not in definition.handlers and not definition.options.abstract:
        raise DefinitionError(
            f"{actor} is a Workflow without {RUN!r}. Write `@handler async def {RUN}(self, ctx: WorkflowContext, "
            "...)`, or make the class abstract."
        )


def _check_written(definition: ActorDefinition) -> None:
    """A class that is no more abstract has a body for each handler."""
    if definition.options.abstract:
        return
    for handler in definition.handlers.values():
        if any(getattr(one, "__isabstractmethod__", False) for one in (handler, handler.function)):
            raise DefinitionError(
                f"{named(definition.actor)}.{handler.attribute} is an @abstractmethod. Write the handler in "
                f"{definition.actor.__name__}, or make the class abstract=True."
            )


def _check_class_body(actor: type) -> None:
    """Refuse a class of whose handlers one was made and has not reached it."""
    body = vars(actor).get(CLASS_BODY)
    if not isinstance(body, ClassBody):
        return
    delattr(actor, CLASS_BODY)
    for handler in body.made:
        # One that is defined again is replaced, as everything in Python is.
        if handler.owner is None and not isinstance(vars(actor).get(handler.attribute), Handler):
            raise DefinitionError(
                f"{named(actor)}.{handler.attribute} is decorated as a handler, and something hides that: most likely "
                "a decorator above @handler or @shared, or another attribute of the same name. Put the durably "
                "decorator on top, and give each attribute a name of its own."
            )


def _serde(actor: type, options: ActorOptions) -> SerdeFactory | None:
    """Its own, or that of the nearest class that it extends. Callers of a contract rely on the contract's."""
    for base in actor.__mro__[1:]:
        inherited = vars(base).get(DEFINITION)
        if isinstance(inherited, ActorDefinition) and inherited.serde is not None:
            if options.serde not in (None, inherited.serde) and inherited.is_contract:
                raise DefinitionError(
                    f"{named(actor)} has another serde= than {named(base)}, whose callers rely on that. Leave it out."
                )
            return inherited.serde if options.serde is None else options.serde
    return options.serde


def _handlers(actor: type, kind: ActorKind, scope: Scope, serde: SerdeFactory | None) -> dict[str, AnyHandler]:
    handlers: dict[str, AnyHandler] = {}
    for attribute, one in _members(actor, Handler).items():
        handler: AnyHandler = one
        if attribute in vars(actor):
            handler.signature.scope, handler.signature.serde = scope, serde
            _check_handler(actor, kind, handler, scope)
        else:
            handler = _inherited(actor, attribute, handler, scope, serde)
        twin = handlers.get(handler.name)
        if twin is handler:
            raise DefinitionError(
                f"{named(actor)} has one handler under two names, {_names_of(actor, handler)}. Remove one, or write a "
                "handler for each."
            )
        if twin is not None:
            raise DefinitionError(
                f"{named(actor)} has two handlers named {handler.name!r}: {twin.attribute} and {attribute}. "
                "Change name= of one."
            )
        handlers[handler.name] = handler
    return handlers


def _names_of(actor: type, handler: AnyHandler) -> str:
    return " and ".join(name for name, value in _members(actor, Handler).items() if value is handler)


def _inherited(
    actor: type, attribute: str, handler: AnyHandler, scope: Scope, serde: SerdeFactory | None
) -> AnyHandler:
    """A handler as it is in a subclass: of a generic class, or one with other Serdes, one of its own."""
    defined = handler.signature.scope
    bindings = NO_BINDINGS if defined is None else bindings_of(actor, defined.owner, scope)
    if not bindings and handler.signature.serde is serde:
        return handler
    bound = handler.bound_by(bindings or handler.signature.bindings)
    bound.signature.serde = serde
    setattr(actor, attribute, bound)
    return bound


def _members(actor: type, kind: type[Any]) -> dict[str, Any]:
    """The attributes of a kind that a class has, bases' first; what a subclass replaced by something else is gone."""
    names = {
        name: None for base in reversed(actor.__mro__) for name, value in vars(base).items() if isinstance(value, kind)
    }
    found = {name: inspect.getattr_static(actor, name) for name in names}
    return {name: value for name, value in found.items() if isinstance(value, kind)}


def _check_handler(actor: type, kind: ActorKind, handler: AnyHandler, scope: Scope) -> None:
    where = f"{named(actor)}.{handler.attribute}"
    handler.is_run = kind == "workflow" and not handler.shared
    if kind != "service" and handler.attribute == "key":
        raise DefinitionError(
            f"{where} is a handler, and self.key is the {_key_in_words(kind)}. Call the method something else and "
            'write @handler(name="key").'
        )
    if handler.attribute in inspect.get_annotations(actor):
        raise DefinitionError(
            f"{where} is declared twice, as a field and as a handler, and the later one replaces the other. Call one "
            "of them something else."
        )
    for base in actor.__mro__[1:]:
        if isinstance(vars(base).get(handler.attribute), StateField):
            raise DefinitionError(
                f"{where} is a handler, and replaces the state {named(base)}.{handler.attribute}, which inherited "
                "handlers use. Call the method something else, with name= if callers know it by that name."
            )
    if kind == "service" and handler.shared:
        raise DefinitionError(
            f"{named(actor)}.{handler.attribute} is @shared, and a Service has no state to share: its handlers "
            "all run at once. Use @handler."
        )
    if kind == "service" and handler.atomic:
        raise DefinitionError(
            f"{named(actor)}.{handler.attribute} is atomic, and a Service has no state. Leave atomic= out."
        )
    _check_schedules(where, kind, handler)
    check_context(actor, kind, _kind_of(kind, handler), handler, scope)


def _check_schedules(where: str, kind: ActorKind, handler: AnyHandler) -> None:
    """See that the clock knows whom to call."""
    keys = [schedule.key for schedule in handler.schedules]
    if not keys:
        return
    if kind == "object" and None in keys:
        raise DefinitionError(
            f'{where} has @cron without key=. Say which object gets the ticks: @cron(..., key="main").'
        )
    if kind != "object" and any(key is not None for key in keys):
        has = "each tick is a workflow of its own" if kind == "workflow" else "a Service has no keys"
        raise DefinitionError(f"{where} has @cron with key=, and {has}. Leave key= out.")
    if kind == "workflow" and handler.shared:
        raise DefinitionError(f"{where} is @shared and has @cron. The clock starts workflows: put @cron on `{RUN}`.")
    if len(set(keys)) < len(keys):
        raise DefinitionError(
            f"{where} has two @cron for the same {'key' if kind == 'object' else 'handler'}. Write one expression, as "
            'in "0 6,18 * * *", or a second handler.'
        )


def _key_in_words(kind: ActorKind) -> str:
    return "workflow's id" if kind == "workflow" else "object's key"


def _promises(actor: type, kind: ActorKind) -> dict[str, PromiseField]:
    promises: dict[str, PromiseField] = {}
    for attribute, one in _members(actor, PromiseField).items():
        field_: PromiseField = one
        where = f"{named(actor)}.{attribute}"
        if kind != "workflow":
            raise DefinitionError(
                f"{where} is a promise, and only a Workflow has promises: they go when its retention ends. Use an "
                "awakeable, or make the class a Workflow."
            )
        if attribute == "key":
            raise DefinitionError(f"{where} is the workflow's id and cannot be a promise. Use another attribute.")
        if attribute not in inspect.get_annotations(field_.owner):
            raise DefinitionError(
                f"{where} has no type. Annotate it, so that its value can be stored: `{attribute}: DurablePromise[str] "
                "= promise()`."
            )
        twin = promises.get(field_.name)
        if twin is not None:
            raise DefinitionError(
                f"{named(actor)} keeps the promises {twin.attribute} and {attribute} under one name, {field_.name!r}. "
                "Change name= of one."
            )
        promises[field_.name] = field_
    return promises


def _fields(actor: type, kind: ActorKind) -> dict[str, StateField]:
    fields: dict[str, StateField] = {}
    for attribute, field_ in _members(actor, StateField).items():
        state_field: StateField = field_
        for base in actor.__mro__[1:]:
            if attribute in vars(actor) and isinstance(vars(base).get(attribute), Handler):
                raise DefinitionError(
                    f"{named(actor)}.{attribute} is state, and replaces the handler {named(base)}.{attribute}, which "
                    "callers rely on. Give the field another name."
                )
        if kind == "service":
            raise DefinitionError(
                f"{named(actor)}.{attribute} is state, and a Service has none: it has no key to keep it under. "
                "Use a VirtualObject or a Workflow."
            )
        if attribute not in inspect.get_annotations(state_field.owner):
            raise DefinitionError(
                f"{named(actor)}.{attribute} has no type. Annotate it, so that it can be stored: `{attribute}: "
                "int = state(...)`."
            )
        if state_field.name in INTERNAL_FIELDS:
            raise DefinitionError(
                f"{named(actor)}.{attribute} is stored as {state_field.name!r}, where durably keeps what it knows of "
                "the state. Change its name=."
            )
        twin = fields.get(state_field.name)
        if twin is not None:
            raise DefinitionError(
                f"{named(actor)} stores {twin.attribute} and {attribute} under one name, {state_field.name!r}. "
                "Change name= of one."
            )
        fields[state_field.name] = state_field
    if "key" in {one.attribute for one in fields.values()}:
        raise DefinitionError(
            f"{named(actor)}.key is the {_key_in_words(kind)} and cannot be state. Use another attribute."
        )
    return fields


def _check_contracts(definition: ActorDefinition) -> None:
    """An implementation may add to its contract, and change nothing that callers rely on."""
    for base in definition.actor.__mro__[1:]:
        contract = vars(base).get(DEFINITION)
        if isinstance(contract, ActorDefinition) and contract.options.abstract:
            for name, promised in contract.handlers.items():
                _check_implementation(definition, contract, name, promised)


def _check_implementation(
    definition: ActorDefinition, contract: ActorDefinition, name: str, promised: AnyHandler
) -> None:
    where = f"{named(definition.actor)}.{promised.attribute}"
    given = definition.handlers.get(name)
    if given is None:
        raise DefinitionError(
            f"{where} is not a handler named {name!r} any more, which {named(contract.actor)} promises. "
            "Decorate it like there."
        )
    if given.shared != promised.shared:
        raise DefinitionError(
            f"{where} is {_decorator(given)}, and {named(contract.actor)} promises {_decorator(promised)}. Use "
            "the same decorator."
        )
    if not given.signature.same_shape_as(promised.signature):
        raise DefinitionError(
            f"{where} takes {in_words(given.signature.shape)}, and {named(contract.actor)} promises "
            f"{in_words(promised.signature.shape)}. Callers rely on the latter: take the same parameters."
        )


def _decorator(handler: AnyHandler) -> str:
    return "@shared" if handler.shared else "@handler"
