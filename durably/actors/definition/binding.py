"""Binding: a class of actors made ready to run, with its types resolved and its dependencies found.

Everything that can be wrong with a class is found here at the latest, with a sentence, before it gets its first
message. An attempt's `self` is a copy of a prototype: the constructor runs once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeAlias, get_args, get_origin

import msgspec

from durably.actors.actor import Actor
from durably.actors.context import Context, HandlerInfo, make_context
from durably.actors.definition.arguments import Decoded
from durably.actors.definition.definition import ActorDefinition, AnyHandler, definition_of
from durably.actors.definition.dependencies import construct
from durably.actors.definition.signature import HandlerSignature
from durably.actors.definition.type_bindings import bindings_of
from durably.actors.handlers import Handler, HandlerKind
from durably.actors.promises import PROMISE_VIEW, DurablePromise, PromiseField, PromiseView
from durably.actors.protocol.port import Port
from durably.actors.retry import RetryPolicy
from durably.actors.state import STATE_VIEW, BoundField, StateField, StateView
from durably.actors.values.descriptions import MISSING, describe, named
from durably.actors.values.parts import parts_of
from durably.actors.values.serde import JSON, SerdeFactory, TypeCodec, codec_of, codec_under
from durably.actors.values.serde_fit import check_fit
from durably.actors.values.slices import Slices
from durably.errors import DefinitionError, HandlerMistakeError, UndecodableError, UnencodableError

StartHandler: TypeAlias = Callable[[Any, Any, bytes], Coroutine[Any, Any, Any]]
EMPTY_COLLECTIONS: tuple[Callable[[], Any], ...] = (list, dict, set)
EXCLUSIVE_KINDS = ("exclusive", "workflow")


class BoundActorHandler:
    """One handler of a bound class: what the machine needs to accept, run and answer an invocation."""

    def __init__(self, definition: ActorDefinition, handler: AnyHandler, serde: SerdeFactory | None = None) -> None:
        """`serde` is the runtime's: what a class without one of its own is written by."""
        options = definition.options
        signature = handler.signature.under(serde)
        self.service = definition.name
        self.name = handler.name
        """The name on the wire."""
        self.kind: HandlerKind = definition.kind_of(handler)
        self.is_exclusive = self.kind in EXCLUSIVE_KINDS
        """It holds its object while it runs, and may change its state."""
        self.atomic = handler.atomic
        self.private = handler.private or options.private
        self.retry: RetryPolicy | None = handler.retry or options.retry
        self.retention_us = options.retention_us if handler.retention_us is None else handler.retention_us
        self.timeout_us = handler.timeout_us
        self.suspend_after_us = options.suspend_after_us
        self.forwarding = options.forwarding
        self.documentation = inspect.cleandoc(handler.__doc__ or "")
        self.signature = signature
        self.accepts = signature.accepts
        """The media range of bodies from outside; None where there is nothing to be sent."""
        self.content_type = signature.content_type
        self.admit = signature.types.arguments.admit
        """A body from outside to the journal's form of it; raises InvalidArgumentError."""
        self.check = signature.types.arguments.check
        """Raises InvalidArgumentError if an argument in the journal's form does not fit."""
        self.admit_in_slices = signature.types.arguments.admit_in_slices
        self.decode_in_slices = signature.types.arguments.decode_in_slices
        self.encode_result = signature.types.result.encode
        """Raises UnencodableError."""
        self.start: StartHandler = signature.types.arguments.call
        """The handler's coroutine, not begun, on an argument in the journal's form.

        Raises InvalidArgumentError if the argument does not fit the parameters.
        """
        self.start_decoded: Callable[[Any, Any, Decoded], Coroutine[Any, Any, Any]] = (
            signature.types.arguments.call_decoded
        )
        """The same, on arguments that `decode_in_slices` made for this attempt."""
        self.info = _info(definition, handler, signature)

    def __repr__(self) -> str:
        return f"<{self.kind} handler {self.service}/{self.name}>"

    def is_malformed(self, argument: bytes) -> bool:
        """An argument in the journal's form is no JSON, and only JSON fits: no caller has given it like that."""
        return self.accepts in (None, JSON) and not _is_json(argument)

    def context(self, instance: Actor, port: Port, key: str) -> Context:
        """The context of an attempt, which shares the state with its `self`."""
        return make_context(self.kind, port, self.info, key, instance.__dict__[STATE_VIEW])


class MissingHandler(BoundActorHandler):
    """Stands in for a handler that an accepted invocation names and the class does not have (any more)."""

    def __init__(self, definition: ActorDefinition, name: str, *, shared: bool) -> None:
        handler: AnyHandler = Handler(_is_missing, name=name, shared=shared)
        handler.is_run = definition.kind == "workflow" and not shared
        handler.signature.scope = definition.scope
        super().__init__(definition, handler)
        self.decode_in_slices = _nothing_in_slices
        self.start = self._refuse
        self.start_decoded = self._refuse

    def _refuse(self, instance: Actor, ctx: Context, argument: bytes | Decoded) -> Coroutine[Any, Any, Any]:
        raise HandlerMistakeError(
            f"{self.service} has no handler {self.name!r} any more, and the store holds an invocation of it. Bring the "
            "handler back, and resume the invocation."
        )


def _nothing_in_slices(argument: bytes, size_bytes: int, /) -> Slices[Decoded]:
    yield
    return (), {}


async def _is_missing(actor: Any, ctx: Any) -> None:
    """Never called."""


class BoundActor:
    """A class of actors with everything that it needs to run."""

    def __init__(
        self,
        definition: ActorDefinition,
        prototype: Actor,
        handlers: Mapping[str, BoundActorHandler],
        fields: Mapping[str, BoundField],
        promises: Mapping[str, TypeCodec[Any]],
        serde: SerdeFactory | None,
    ) -> None:
        self.definition = definition
        self.runtime_serde = serde
        """Makes the Serdes of classes without some of their own."""
        self.serde = definition.serde or serde
        """Makes the Serdes of its state and actions; None: they are JSON."""
        self.handlers = handlers
        """By name on the wire."""
        self._cls: type[Actor] = definition.actor
        self._attributes = dict(prototype.__dict__)
        self._fields = fields
        self._promises = promises
        self._has_key = definition.kind != "service"
        self._has_promises = definition.kind == "workflow"

    def __repr__(self) -> str:
        return f"<bound {self.definition.kind} {self.definition.name}>"

    def handler_or_missing(self, name: str, *, shared: bool) -> BoundActorHandler:
        """The handler of this name, or what stands in for one that the store knows and the class does not."""
        return self.handlers.get(name) or MissingHandler(self.definition, name, shared=shared)

    def decode_state(self, name: str, data: bytes) -> Any:
        """A stored value by its stored name: of its annotated type if it is declared, plain JSON if not."""
        codec = next((field.codec for field in self._fields.values() if field.name == name), None)
        return (codec_under(self.serde, MISSING) if codec is None else codec).decode(data)

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
            own[PROMISE_VIEW] = PromiseView(port, self._promises)
        return made


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def bind(
    actor: type[Actor],
    dependencies: Mapping[Any, Any],
    *,
    detached: Callable[[type], Any] | None = None,
    serde: SerdeFactory | None = None,
) -> BoundActor:
    """Make a class ready to run: resolve its types, find its dependencies, call its constructor once.

    `detached` makes a value for a class that the constructor asks for and `dependencies` lacks; without it, that is a
    mistake. `serde` makes the Serdes of a class without some of its own; without one, values are JSON.

    Raises:
        DefinitionError: it cannot work; says why and what to write.
    """
    definition = definition_of(actor)
    if definition.options.abstract:
        raise DefinitionError(
            f"{named(actor)} is abstract: it says what may be asked. Give the runtime a class that implements it."
        )
    handlers = {name: BoundActorHandler(definition, handler, serde) for name, handler in definition.handlers.items()}
    fields = {field.attribute: _bound_field(definition, field, serde) for field in definition.fields.values()}
    promises = {promise.name: _promise_codec(definition, promise, serde) for promise in definition.promises.values()}
    prototype = construct(definition, dependencies, detached)
    definition.scope.close()
    return BoundActor(definition, prototype, handlers, fields, promises, serde)


def _info(definition: ActorDefinition, handler: AnyHandler, signature: HandlerSignature) -> HandlerInfo:
    types = signature.types
    return HandlerInfo(
        service=definition.name,
        name=handler.name,
        actor=definition.actor,
        kind=definition.kind_of(handler),
        parameters={one.name: Any if one.annotation is MISSING else one.annotation for one in types.parameters},
        returns=Any if types.returned is MISSING else types.returned,
        metadata={**definition.options.metadata, **handler.metadata},
    )


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
        serde = definition.serde or runtime_serde
        return codec_under(serde, value) if promise.serde is None else codec_of(promise.serde, value)
    except DefinitionError as error:
        raise DefinitionError(f"The type of the promise {where} does not work: {error.message}") from error


def _bound_field(definition: ActorDefinition, field: StateField, runtime_serde: SerdeFactory | None) -> BoundField:
    where = f"{named(definition.actor)}.{field.attribute}"
    resolved = _annotated(definition, field)
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
    return BoundField(field.name, field.attribute, f"self.{field.attribute}", codec, default, factory, parts)


def _encoded_default(where: str, encode: Callable[[Any], bytes], default: Any) -> bytes:
    try:
        return encode(default)
    except (UnencodableError, UndecodableError) as error:
        raise DefinitionError(f"The default of the state {where} does not fit its type: {error.message}") from error
