"""Binding: a class of actors made ready to run, with its types resolved and its dependencies found.

Everything that can be wrong with a class is found here at the latest, with a sentence, before it gets its first
message. An attempt's `self` is a copy of a prototype: the constructor runs once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from copy import copy
from datetime import timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeAlias, get_args, get_origin

import msgspec

from durably.actors.actor import Actor
from durably.actors.context import Context, make_context
from durably.actors.definition.arguments import Decoded
from durably.actors.definition.definition import ActorDefinition, AnyHandler, definition_of
from durably.actors.definition.dependencies import Asked, Dependencies, constructed
from durably.actors.definition.large_types import LargeType, key_codec, large_type_of
from durably.actors.definition.migrating import migrated
from durably.actors.definition.scope import Scope
from durably.actors.definition.signature import HandlerSignature
from durably.actors.definition.type_bindings import bindings_of
from durably.actors.event_values import EventClass
from durably.actors.handler_info import ActorInfo, HandlerInfo, HandlerOptions
from durably.actors.handlers import Handler, HandlerKind
from durably.actors.large_state import LargeField
from durably.actors.limits import BoundLimit, Limit, name_of_shared
from durably.actors.middleware import Middleware, MiddlewareGiven, Onion
from durably.actors.promises import PROMISE_VIEW, DurablePromise, PromiseField, PromiseView
from durably.actors.protocol.port import Port
from durably.actors.retry import RetryPolicy
from durably.actors.state import STATE_VIEW, BoundField, StateField, StateView
from durably.actors.values.descriptions import MISSING, describe, named
from durably.actors.values.durations import FOREVER, FOREVER_US
from durably.actors.values.parts import parts_of
from durably.actors.values.serde import JSON, SerdeFactory, TypeCodec, codec_of, codec_under
from durably.actors.values.serde_fit import check_fit
from durably.actors.values.slices import Slices
from durably.errors import DefinitionError, HandlerMistakeError, UndecodableError, UnencodableError
from durably.queries import TableLayout

StartHandler: TypeAlias = Callable[[Any, Any, bytes], Coroutine[Any, Any, Any]]
EMPTY_COLLECTIONS: tuple[Callable[[], Any], ...] = (list, dict, set)
EXCLUSIVE_KINDS = ("exclusive", "workflow")
DELETION = "(delete)"
"""The name of the message that deletes an object, in its mailbox: no handler of a class can have it."""
STATE_EDIT = "(edit)"
"""The same of the message that replaces the state of an object."""
BY_MACHINE = frozenset({DELETION, STATE_EDIT})
"""What the machine carries out by itself: there is no code to run, or to replay."""


class BoundActorHandler:
    """One handler of a bound class: what the machine needs to accept, run and answer an invocation."""

    is_by_machine = False
    """The machine carries it out by itself."""
    is_deletion = False
    """It deletes the state of its object."""
    middleware: tuple[Middleware, ...] = ()
    """What stands around it, the outermost first. Most have none, and 31 attributes would make each of them slower."""

    def __init__(
        self,
        definition: ActorDefinition,
        handler: AnyHandler,
        serde: SerdeFactory | None = None,
        middleware: Sequence[Middleware] = (),
        actor_info: ActorInfo | None = None,
    ) -> None:
        """`serde` is the runtime's: what a class without one of its own is written by.

        `middleware` stands around it, the outermost first; `actor_info` is shared by the handlers of the class.
        """
        options = definition.options
        signature = handler.signature.under(serde)
        self.service = definition.name
        self.function = handler.function
        self.name = handler.name
        """The name on the wire."""
        self.kind: HandlerKind = definition.kind_of(handler)
        self.is_exclusive = self.kind in EXCLUSIVE_KINDS
        """It holds its object while it runs, and may change its state."""
        self.schedules = handler.schedules
        self.subscription = handler.subscription
        self.atomic = handler.atomic
        self.private = handler.private or options.private
        self.retry: RetryPolicy | None = handler.retry or options.retry
        self.retention_us = options.retention_us if handler.retention_us is None else handler.retention_us
        self.journal_retention_us = (
            options.journal_retention_us if handler.journal_retention_us is None else handler.journal_retention_us
        )
        self.timeout_us = handler.timeout_us
        self.state_version = definition.state_version
        self.limit: BoundLimit | None = None
        """How many of its invocations run at once, where a runtime binds it."""
        self.suspend_after_us = options.suspend_after_us
        self.forwarding = options.forwarding
        self.documentation = inspect.cleandoc(handler.__doc__ or "")
        self.signature = signature
        self.accepts = signature.accepts
        """The media range of bodies from outside; None where there is nothing to be sent."""
        self.content_type = signature.content_type
        self.content_type_if_empty = signature.content_type_if_empty
        self.admit = signature.types.arguments.admit
        """A body from outside to the journal's form of it; raises InvalidArgumentError."""
        self.check = signature.types.arguments.check
        """Raises InvalidArgumentError if an argument in the journal's form does not fit."""
        self.admit_in_slices = signature.types.arguments.admit_in_slices
        self.decode_in_slices = signature.types.arguments.decode_in_slices
        self.encode_result = signature.types.result.encode
        """Raises UnencodableError."""
        self.decode = signature.types.arguments.decode
        """Raises InvalidArgumentError."""
        self.start: StartHandler = signature.types.arguments.call
        """The handler's coroutine, not begun, on an argument in the journal's form.

        Raises InvalidArgumentError if the argument does not fit the parameters.
        """
        self.start_decoded: Callable[[Any, Any, Decoded], Coroutine[Any, Any, Any]] = (
            signature.types.arguments.call_decoded
        )
        """The same, on arguments that `decode_in_slices` made for this attempt."""
        if middleware:
            self.middleware = tuple(middleware)
            types = signature.types
            onion = Onion(f"{self.service}/{self.name}", middleware, types.parameters, types.arguments)
            self.start, self.start_decoded = onion.start, onion.start_decoded
            self.encode_result = onion.encoding(self.encode_result)
        self.info = _info(
            definition, handler, signature, _actor_info(definition, {}, {}) if actor_info is None else actor_info
        )

    def __repr__(self) -> str:
        return f"<{self.kind} handler {self.service}/{self.name}>"

    def is_malformed(self, argument: bytes) -> bool:
        """An argument in the journal's form is no JSON, and only JSON fits: no caller has given it like that."""
        return self.accepts in (None, JSON) and not _is_json(argument)

    def context(self, instance: Actor, port: Port, key: str) -> Context:
        """The context of an attempt, which shares the state with its `self`."""
        own = instance.__dict__
        return make_context(self.kind, port, self.info, key, own[STATE_VIEW], own.get(PROMISE_VIEW))


class MissingHandler(BoundActorHandler):
    """Stands in for a handler that an accepted invocation names and the class does not have (any more)."""

    def __init__(self, definition: ActorDefinition, name: str, *, shared: bool) -> None:
        super().__init__(definition, _stand_in(name, shared, definition.kind == "workflow" and not shared))
        self.decode_in_slices = _nothing_in_slices
        self.start = self._refuse
        self.start_decoded = self._refuse

    def _refuse(self, instance: Actor, ctx: Context, argument: bytes | Decoded) -> Coroutine[Any, Any, Any]:
        raise HandlerMistakeError(
            f"{self.service} has no handler {self.name!r} any more, and the store holds an invocation of it. Bring the "
            "handler back, and resume the invocation."
        )


class DeletionHandler(MissingHandler):
    """Stands for the deletion of an object among its handlers. The machine carries it out, so it has no code to run."""

    is_by_machine = True
    is_deletion = True

    def __init__(self, definition: ActorDefinition) -> None:
        super().__init__(definition, "deletion", shared=False)
        self.name = DELETION


class StateEditHandler(MissingHandler):
    """Stands for an edit of the state from outside, in the same way."""

    is_by_machine = True

    def __init__(self, definition: ActorDefinition) -> None:
        super().__init__(definition, "edit", shared=False)
        self.name = STATE_EDIT


def _nothing_in_slices(argument: bytes, size_bytes: int, /) -> Slices[Decoded]:
    yield
    return (), {}


async def _is_missing(actor: Any, ctx: Any) -> None:
    """Never called."""


@lru_cache(maxsize=256)
def _stand_in(name: str, shared: bool, is_run: bool) -> AnyHandler:
    """A handler without code, for all classes: each binding of a class needs two."""
    handler: AnyHandler = Handler(_is_missing, name=name, shared=shared)
    handler.is_run = is_run
    handler.signature.scope = Scope(Actor, None)
    return handler


class BoundActor:
    """A class of actors with everything that it needs to run."""

    def __init__(
        self,
        definition: ActorDefinition,
        handlers: Mapping[str, BoundActorHandler],
        fields: Mapping[str, BoundField],
        promises: Mapping[str, TypeCodec[Any]],
        serde: SerdeFactory | None,
    ) -> None:
        self.definition = definition
        self.state_version = definition.state_version
        self.runtime_serde = serde
        """Makes the Serdes of classes without some of their own."""
        self.serde = definition.serde or serde
        """Makes the Serdes of its state and actions; None: they are JSON."""
        self.handlers = handlers
        """By name on the wire."""
        self.ttl_us = definition.options.ttl_us
        """How long the state of an object outlives its last exclusive invocation."""
        self.deletion = DeletionHandler(definition) if definition.kind == "object" else None
        """The handler of the message that deletes an object."""
        machine = getattr(definition.actor, "__durably_machine__", None)
        self.table: TableLayout | None = None if machine is None else machine.table
        """Where queries find its objects by their fields."""
        self.history_us: int | None = None if machine is None else machine.history_us
        """How long the transitions of a machine are kept; None: for ever."""
        self.state_edit = StateEditHandler(definition) if definition.kind == "object" else None
        """The handler of the message that replaces its state."""
        self.asked: Asked | None = None
        """What each of its activations needs made by factories; None: nothing."""
        self._cls: type[Actor] = definition.actor
        self._attributes: Mapping[str, Any] = {}
        self._fields = fields
        self._large_fields = {field.name: field.large for field in fields.values() if field.large is not None}
        self.keeps_entries = bool(self._large_fields)
        """Some of its fields are not loaded with their objects."""
        self._promises = promises
        self._own_serdes = frozenset(one.name for one in definition.promises.values() if one.serde is not None)
        """The promises that were declared with `serde=`."""
        self._has_key = definition.kind != "service"
        self._has_promises = definition.kind == "workflow"

    def __repr__(self) -> str:
        return f"<bound {self.definition.kind} {self.definition.name}>"

    def furnish(self, prototype: Actor) -> None:
        """From now on `self` begins with the attributes of this instance."""
        self._attributes = dict(prototype.__dict__)

    def furnished(self, made: Mapping[str, Any]) -> BoundActor:
        """The class as one activation has it, with what was made for its constructor's parameters."""
        assert self.asked is not None
        own = copy(self)
        own.furnish(constructed(self.definition, self.asked, made))
        own.asked = None
        return own

    def handler_or_missing(self, name: str, *, shared: bool) -> BoundActorHandler:
        """The handler of this name, or what stands in for one that the store knows and the class does not."""
        if name == DELETION and self.deletion is not None:
            return self.deletion
        if name == STATE_EDIT and self.state_edit is not None:
            return self.state_edit
        return self.handlers.get(name) or MissingHandler(self.definition, name, shared=shared)

    def decode_state(self, name: str, data: bytes) -> Any:
        """A stored value by its stored name: of its annotated type if it is declared, plain JSON if not."""
        codec = next((field.codec for field in self._fields.values() if field.name == name), None)
        return (codec_under(self.serde, MISSING) if codec is None else codec).decode(data)

    def large_fields(self) -> Mapping[str, LargeField]:
        """The fields that are not loaded with their objects, by stored name."""
        return self._large_fields

    def migrate_state(self, stored: Mapping[str, bytes], version: int) -> dict[str, bytes]:
        """Stored state of an older version as it is in the version of this class.

        Raises:
            StateMigrationError: a migration raised, or gave what does not fit the class.
        """
        codecs = {field.name: field.codec for field in self._fields.values() if field.large is None}
        large = self._large_fields
        bounds = {name: data for name, data in stored.items() if name in large and large[name].has_bounds(data)}
        others = {name: data for name, data in stored.items() if name not in bounds}
        return {**migrated(self.definition, codecs, self.serde, others, version, large), **bounds}

    def is_malformed_promise(self, name: str, data: bytes) -> bool:
        """The stored value of a declared promise is no JSON, and nothing else was written."""
        codec = self._promises.get(name)
        return codec is not None and codec.is_json and not _is_json(data)

    def instance(self, key: str, port: Port, *, writable: bool) -> Actor:
        """A fresh `self` for one attempt, with its own view of the state (rule V1)."""
        made = object.__new__(self._cls)
        own = made.__dict__
        own.update(self._attributes)
        if self._has_key:
            own["key"] = key
        own[STATE_VIEW] = StateView(port, self._fields, writable=writable)
        if self._has_promises:
            own[PROMISE_VIEW] = PromiseView(port, self._promises, self._own_serdes)
        return made


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def bind(
    actor: type[Actor],
    dependencies: Mapping[Any, Any] | Dependencies,
    *,
    serde: SerdeFactory | None = None,
    limits: Mapping[str, Limit] | None = None,
    middleware: Sequence[MiddlewareGiven] = (),
    events: Mapping[str, EventClass] | None = None,
) -> BoundActor:
    """Make a class ready to run: resolve its types, find its dependencies, call its constructor once.

    What factories make for the constructor is left open, in `dependencies.unmade` or, for each activation, in
    `BoundActor.asked`. `middleware` stands around all handlers, outside that of the class. `serde` makes the Serdes of
    a class without some of its own; without one, values are JSON. `limits` are those that handlers name; without them,
    nothing is limited. `events` are the classes of events that the runtime subscribes to, by name.

    Raises:
        DefinitionError: it cannot work; says why and what to write.
    """
    definition = definition_of(actor)
    if definition.options.abstract:
        raise DefinitionError(
            f"{named(actor)} is abstract: it says what may be asked. Give the runtime a class that implements it."
        )
    found = dependencies if isinstance(dependencies, Dependencies) else Dependencies(dependencies)
    infos: dict[str, HandlerInfo] = {}
    actor_info = _actor_info(definition, infos, {} if events is None else events)
    handlers: dict[str, BoundActorHandler] = {}
    for name, handler in definition.handlers.items():
        around = [found.middleware(one) for one in (*middleware, *definition.middleware, *handler.middleware)]
        handlers[name] = BoundActorHandler(definition, handler, serde, around, actor_info)
        infos[name] = handlers[name].info
    if limits is not None:
        for name, one in handlers.items():
            one.limit = _bound_limit(definition, definition.handlers[name], limits)
    fields = {field.attribute: _bound_field(definition, field, serde) for field in definition.fields.values()}
    promises = {promise.name: _promise_codec(definition, promise, serde) for promise in definition.promises.values()}
    bound = BoundActor(definition, handlers, fields, promises, serde)
    asked = found.construct(definition, bound.furnish)
    bound.asked = asked if asked.scope == "activation" else None
    definition.scope.close()
    return bound


def _bound_limit(definition: ActorDefinition, handler: AnyHandler, limits: Mapping[str, Limit]) -> BoundLimit | None:
    given = handler.limit
    if given is None:
        return None
    where = f"{definition.name}/{handler.name}"
    if isinstance(given, str):
        limit = limits.get(given)
        if limit is None:
            known = ", ".join(sorted(limits)) or "none"
            raise DefinitionError(
                f"The handler {where} names the limit {given!r}, which the runtime does not have. Add it: "
                f"Runtime(limits=Limits(named={{{given!r}: Limit(...)}})). It has: {known}."
            )
        name = name_of_shared(given)
    else:
        limit, name = given, where
    parameters = [one.name for one in handler.signature.shape]
    return BoundLimit(name, limit, where, parameters, has_key=definition.kind != "service")


def _actor_info(
    definition: ActorDefinition, infos: Mapping[str, HandlerInfo], events: Mapping[str, EventClass]
) -> ActorInfo:
    """`infos` are filled in as its handlers are bound, `events` as those of all classes are."""
    return ActorInfo(
        name=definition.name,
        kind=definition.kind,
        actor=definition.actor,
        handlers=MappingProxyType(infos),
        middleware=definition.middleware,
        metadata=definition.options.metadata,
        subscribed_events=MappingProxyType(events),
    )


def _info(
    definition: ActorDefinition, handler: AnyHandler, signature: HandlerSignature, actor_info: ActorInfo
) -> HandlerInfo:
    types = signature.types
    return HandlerInfo(
        service=definition.name,
        name=handler.name,
        actor=definition.actor,
        kind=definition.kind_of(handler),
        parameters={one.name: Any if one.annotation is MISSING else one.annotation for one in types.parameters},
        returns=Any if types.returned is MISSING else types.returned,
        metadata={**definition.options.metadata, **handler.metadata},
        options=_options(definition, handler),
        middleware=handler.middleware,
        actor_info=actor_info,
    )


def _options(definition: ActorDefinition, handler: AnyHandler) -> HandlerOptions:
    of_class = definition.options
    kept_us, journal_us = handler.retention_us, handler.journal_retention_us
    return HandlerOptions(
        atomic=handler.atomic,
        private=handler.private or of_class.private,
        retry=handler.retry or of_class.retry,
        timeout=_span(handler.timeout_us),
        retention=_span(of_class.retention_us if kept_us is None else kept_us),
        journal_retention=_span(of_class.journal_retention_us if journal_us is None else journal_us),
        limit=handler.limit,
    )


def _span(span_us: int | None) -> timedelta | None:
    if span_us is None:
        return None
    return FOREVER if span_us >= FOREVER_US else timedelta(microseconds=span_us)


def _annotated(definition: ActorDefinition, field: StateField | PromiseField) -> Any:
    """The type in the annotation of a field, resolved."""
    scope = definition_of(field.owner).scope
    annotation = inspect.get_annotations(field.owner)[field.attribute]
    written = scope.resolve({field.attribute: annotation}, named(definition.actor))
    return bindings_of(definition.actor, field.owner, definition.scope).apply(written)[field.attribute]


def _promise_codec(
    definition: ActorDefinition, promise: PromiseField, runtime_serde: SerdeFactory | None
) -> TypeCodec[Any]:
    where = f"{named(definition.actor)}.{promise.attribute}"
    annotation = _annotated(definition, promise)
    if annotation is not DurablePromise and get_origin(annotation) is not DurablePromise:
        raise DefinitionError(
            f"The promise {where} is annotated {describe(annotation)}. Write `{promise.attribute}: DurablePromise[...] "
            "= promise()`, with the type of its value in the brackets."
        )
    value = MISSING if annotation is DurablePromise else get_args(annotation)[0]
    try:
        if promise.serde is None:
            return codec_under(definition.serde or runtime_serde, value)
        check_fit(promise.serde, value, f"the promise {where}")
        return codec_of(promise.serde, value)
    except DefinitionError as error:
        raise DefinitionError(f"The type of the promise {where} does not work: {error.message}") from error


def _bound_field(definition: ActorDefinition, field: StateField, runtime_serde: SerdeFactory | None) -> BoundField:
    where = f"{named(definition.actor)}.{field.attribute}"
    resolved = _annotated(definition, field)
    large = large_type_of(resolved, field, where)
    if large is not None:
        return _bound_large_field(definition, field, large, runtime_serde)
    try:
        serde = definition.serde or runtime_serde
        if field.serde is None:
            codec = codec_under(serde, resolved)
        else:
            check_fit(field.serde, resolved, f"the state {where}")
            codec = codec_of(field.serde, resolved)
    except DefinitionError as error:
        raise DefinitionError(f"The type of the state {where} does not work: {error.message}") from error
    given, factory = field.default, field.default_factory
    if factory is not None and factory in EMPTY_COLLECTIONS:  # They always give the same: it need not be written.
        given, factory = factory(), None
    default = None if given is MISSING else _encoded_default(where, codec.encode_exactly, given)
    parts = None if codec.immutable or not codec.is_json else parts_of(resolved, codec)
    return BoundField(
        field.name, field.attribute, f"self.{field.attribute}", codec, default, factory, parts,
        has_own_serde=field.serde is not None,
    )  # fmt: skip


def _bound_large_field(
    definition: ActorDefinition, field: StateField, large: LargeType, runtime_serde: SerdeFactory | None
) -> BoundField:
    where = f"{named(definition.actor)}.{field.attribute}"
    try:
        if field.serde is None:
            codec = codec_under(definition.serde or runtime_serde, large.value)
        else:
            check_fit(field.serde, large.value, f"the state {where}")
            codec = codec_of(field.serde, large.value)
        keys = None if large.key is None else key_codec(large.key)
    except DefinitionError as error:
        raise DefinitionError(f"The type of the state {where} does not work: {error.message}") from error
    what = f"self.{field.attribute}"
    bound = LargeField(large.kind, field.name, what, codec, keys)
    return BoundField(field.name, field.attribute, what, codec, None, large=bound)


def _encoded_default(where: str, encode: Callable[[Any], bytes], default: Any) -> bytes:
    try:
        return encode(default)
    except (UnencodableError, UndecodableError) as error:
        raise DefinitionError(f"The default of the state {where} does not fit its type: {error.message}") from error
