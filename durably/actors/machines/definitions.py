"""`@initial`, `@transition` and `@consumer`: what a machine can do with the objects of its model.

A decorator leaves a definition in the class. `Orders.pay` is that definition; `orders.pay`, on what
`ctx.machine(Orders)` gives, can be called. From which states and to which a transition leads is read from the
annotations.
"""

# pyright: reportPrivateUsage=false
# A transport's methods are hidden from users, not from references.

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    TypeAlias,
    TypeGuard,
    TypeVar,
    cast,
    get_args,
    overload,
)

import msgspec

from durably.actors.bound_handlers import Target
from durably.actors.definition.definition import SERVICE_NAME
from durably.actors.handlers import SERVICE, TRANSPORT, Handler
from durably.actors.machines.model import Model, camel, is_model, model_of, prefix_of, state_name, states_of
from durably.actors.machines.transition import Applied
from durably.actors.machines.type_ids import has_prefix, type_id
from durably.actors.protocol.operations import CallSite, frame_above
from durably.actors.subscriptions import SubscriptionStart
from durably.actors.transport import Transport
from durably.actors.values.descriptions import named
from durably.actors.values.durations import Duration, duration_us
from durably.actors.values.names import checked_name
from durably.actors.values.type_checks import is_text
from durably.errors import DefinitionError, HandlerMistakeError, InvalidKeyError, InvalidTransitionError
from durably.http_headers import TRIGGERED_BY

P = ParamSpec("P")
From = TypeVar("From", bound=Model)
To = TypeVar("To", bound=Model)
ModelT = TypeVar("ModelT", bound=Model)

NOTE = "note"
ConsumerFunction = Callable[[Any, Any, ModelT, Any], Coroutine[Any, Any, None]]


class Definition(Generic[P, To]):
    """A transition, as it stands in the class of a machine."""

    DECORATOR = "@transition"
    OWN_PARAMETERS = 3
    """`self`, the context, and the object."""

    def __init__(self, function: Callable[..., Coroutine[Any, Any, To]], /) -> None:
        self.function = function
        self.attribute = getattr(function, "__name__", "")
        self.owner: type | None = None
        self.sources: tuple[type[Model], ...] = ()
        """The states that it leads from; none for one that makes an object."""
        self.targets: tuple[type[Model], ...] = ()
        self.data: type[msgspec.Struct] | None = None
        """What it takes, as one value: its parameters and a note. None: no class of a model has it yet."""
        self.parameters: tuple[inspect.Parameter, ...] = ()
        self.handler: Handler[Any, Any] | None = None
        """What runs it, in the virtual object behind the machine."""
        self.__doc__ = function.__doc__
        self.__name__ = self.attribute
        self.__wrapped__ = function
        _check_function(function, self.DECORATOR)

    def __set_name__(self, owner: type, attribute: str) -> None:
        self.owner, self.attribute = owner, attribute

    @property
    def name(self) -> str:
        """On the wire."""
        return camel(self.attribute)

    @property
    def is_abstract(self) -> bool:
        """Declared with `@abstractmethod`, for a subclass to implement."""
        return bool(getattr(self.function, "__isabstractmethod__", False))

    def __repr__(self) -> str:
        return f"<transition {named(self.function)}>"

    if not TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            machine = "the machine" if self.owner is None else self.owner.__name__
            raise HandlerMistakeError(
                f"{self.attribute} was called on the class, or on self. A transition is a message to the object: "
                f"`await ctx.machine({machine}).{self.attribute}(...)`."
            )

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], note: str | None) -> msgspec.Struct:
        """What a caller wrote in the parentheses, as one value.

        Raises:
            TypeError: too many, too few or unknown arguments.
        """
        assert self.data is not None, "the class of the machine is defined"
        given = inspect.Signature(list(self.parameters)).bind(*args, **kwargs)
        return self.data(**given.arguments, **({} if note is None else {NOTE: note}))

    def arguments_of(self, data: msgspec.Struct) -> dict[str, Any]:
        return {one.name: getattr(data, one.name) for one in self.parameters}


AnyDefinition: TypeAlias = Definition[Any, Any]


class TransitionDefinition(Definition[P, To], Generic[From, P, To]):
    """A transition of an object that there is: `Orders.pay`."""

    @overload
    def __get__(self, instance: None, owner: type, /) -> TransitionDefinition[From, P, To]: ...
    @overload
    def __get__(self, instance: object, owner: type, /) -> BoundTransition[From, P, To]: ...
    def __get__(self, instance: object | None, owner: type, /) -> Any:
        transport = _transport_of(instance)
        if transport is None:
            return self
        definition: Any = self
        bound: BoundTransition[Any, Any, Any] = BoundTransition(definition, transport, _service_of(instance))
        return bound


class InitialDefinition(Definition[P, To]):
    """A transition that makes an object: `Orders.create`."""

    DECORATOR = "@initial"
    OWN_PARAMETERS = 2

    @overload
    def __get__(self, instance: None, owner: type, /) -> InitialDefinition[P, To]: ...
    @overload
    def __get__(self, instance: object, owner: type, /) -> BoundInitial[P, To]: ...
    def __get__(self, instance: object | None, owner: type, /) -> Any:
        transport = _transport_of(instance)
        return self if transport is None else BoundInitial(self, transport, _service_of(instance))


class ConsumerDefinition:
    """A consumer, as it stands in the class of a machine."""

    def __init__(
        self,
        function: Callable[..., Coroutine[Any, Any, None]],
        on: tuple[AnyDefinition, ...],
        name: str,
        start: SubscriptionStart,
    ) -> None:
        self.function = function
        self.on = on
        """The transitions that it hears of; none: all."""
        self.name = name
        self.start: SubscriptionStart = start
        self.attribute = getattr(function, "__name__", "")
        self.__doc__ = function.__doc__
        _check_function(function, "@consumer")

    def __set_name__(self, owner: type, attribute: str) -> None:
        self.attribute = attribute

    def __get__(self, instance: object | None, owner: type, /) -> Any:
        return self if instance is None else self.function.__get__(instance, owner)

    def __repr__(self) -> str:
        return f"<consumer {self.name}>"


class _Bound(Generic[P, To]):
    """A transition that can be called, with the options of the next call."""

    __slots__ = ("_definition", "_idempotency_key", "_note", "_service", "_timeout_us", "_transport")

    def __init__(
        self,
        definition: Definition[P, To],
        transport: Transport,
        service: str,
        note: str | None = None,
        idempotency_key: str | None = None,
        timeout_us: int | None = None,
    ) -> None:
        self._definition = definition
        self._transport = transport
        self._service = service
        self._note = note
        self._idempotency_key = idempotency_key
        self._timeout_us = timeout_us

    def __repr__(self) -> str:
        return f"<transition {self._service}/{self._definition.name}>"

    def _options(self, note: str | None, idempotency_key: str | None, timeout: Duration | None) -> tuple[Any, ...]:
        if idempotency_key is not None:
            checked_name(idempotency_key, f"An idempotency key is text without NUL, not {idempotency_key!r}.")
        return (
            self._note if note is None else note,
            self._idempotency_key if idempotency_key is None else idempotency_key,
            self._timeout_us if timeout is None else duration_us(timeout, "options(timeout=...)"),
        )

    def _issue(self, id: str, data: msgspec.Struct, site: CallSite) -> Coroutine[object, object, Applied[To]]:
        definition, transport = self._definition, self._transport
        handler = definition.handler
        assert handler is not None, "the class of the machine is defined"
        serde = transport._serde
        signature = handler.signature if serde is None else handler.signature.under(serde)
        trigger = transport._name_of_handler()
        headers = {} if trigger is None else {TRIGGERED_BY: trigger}
        target: Target[Any] = Target(
            transport, self._service, id, handler.name, signature, headers, self._idempotency_key, self._timeout_us
        )
        outgoing = target.outgoing(signature.types.arguments.encode((data,), {}))
        decode = outgoing.decode

        def applied(answer: bytes) -> Any:
            return Applied(*decode(answer))

        outgoing = msgspec.structs.replace(outgoing, decode=applied)
        return cast("Coroutine[object, object, Applied[To]]", transport._issue_call(outgoing, site))


class BoundTransition(_Bound[P, To], Generic[From, P, To]):
    """`orders.pay`: `order, transition = await orders.pay(order, payment_reference="abc")`."""

    __slots__ = ()

    def __call__(
        self, object: From | str, /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[object, object, Applied[To]]:
        """Let an object make this transition. It is given by id, or as a version, of which the state is checked here
        and the object's own when the transition runs.

        Raises:
            InvalidTransitionError: it is in another state; names the transitions that there are from that one.
            UnknownObjectError: there is no object of this id.
            TerminalError: the transition failed, and nothing has changed.
        """
        data = self._definition.bind(args, kwargs, self._note)
        return self._issue(self._id_of(object), data, CallSite(frame_above(1)))

    def options(
        self, *, note: str | None = None, idempotency_key: str | None = None, timeout: Duration | None = None
    ) -> BoundTransition[From, P, To]:
        """The same transition, with options for the next call. `note` is a text for people, kept with the transition;
        with an `idempotency_key`, repeating the call joins the first one.
        """
        definition = cast("TransitionDefinition[From, P, To]", self._definition)
        return BoundTransition(
            definition, self._transport, self._service, *self._options(note, idempotency_key, timeout)
        )

    def _id_of(self, object: Model | str) -> str:
        definition = self._definition
        model = model_of(definition.sources[0])
        if isinstance(object, str):
            if not has_prefix(object, prefix_of(model)):
                raise InvalidKeyError(
                    f"{object!r} is no id of {model.__name__}, whose ids begin with '{prefix_of(model)}_'."
                )
            return object
        if not isinstance(cast("Any", object), model):
            raise TypeError(f"{definition.attribute}() takes a version of {model.__name__} or its id, not {object!r}.")
        if not isinstance(object, definition.sources):
            raise InvalidTransitionError(wrong_state(definition, object))
        if not object.id:
            raise InvalidKeyError(f"This version of {model.__name__} has no id: no transition has made it yet.")
        return object.id


class BoundInitial(_Bound[P, To]):
    """`orders.create`: `order, transition = await orders.create(amount=100)`."""

    __slots__ = ()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, object, Applied[To]]:
        """Make an object.

        Raises:
            TerminalError: the transition failed, and there is no object.
        """
        data = self._definition.bind(args, kwargs, self._note)
        moment, bits = self._transport._moment_and_bits()
        if self._idempotency_key is not None:
            moment, bits = _of_key(f"{self._service}/{self._definition.name}/{self._idempotency_key}")
        id = type_id(prefix_of(model_of(self._definition.targets[0])), moment, bits)
        return self._issue(id, data, CallSite(frame_above(1)))

    def options(
        self, *, note: str | None = None, idempotency_key: str | None = None, timeout: Duration | None = None
    ) -> BoundInitial[P, To]:
        """The same transition, with options for the next call, as for `BoundTransition`. Of an `idempotency_key` the
        object's id is made, so that it is made once.
        """
        definition = cast("InitialDefinition[P, To]", self._definition)
        return BoundInitial(definition, self._transport, self._service, *self._options(note, idempotency_key, timeout))


def initial(fn: Callable[Concatenate[Any, Any, P], Coroutine[Any, Any, To]], /) -> InitialDefinition[P, To]:
    """A transition that makes an object: `@initial async def create(self, ctx: TransitionContext, amount: int) ->
    Created`. It returns the first version, without an id.

    Raises:
        DefinitionError: the method cannot be one; says what to write.
    """
    return InitialDefinition(fn)


def transition(
    fn: Callable[Concatenate[Any, Any, From, P], Coroutine[Any, Any, To]], /
) -> TransitionDefinition[From, P, To]:
    """A transition from the state of the third parameter to the state that is returned: `@transition async def
    pay(self, ctx: TransitionContext, order: Created, payment_reference: str) -> Paid`. A union names several states.

    It runs once at a time for each object. What it returns becomes the object's version together with everything that
    it has sent; if it fails, nothing has changed.

    Raises:
        DefinitionError: the method cannot be one; says what to write.
    """
    return TransitionDefinition(fn)


def consumer(
    *on: AnyDefinition, name: str, start: SubscriptionStart = "now"
) -> Callable[[ConsumerFunction[ModelT]], ConsumerFunction[ModelT]]:
    """Hear of transitions after they have happened: `@consumer(pay, name="BookDelivery") async def book(self, ctx:
    Context, order: Order, transition: Transition) -> None`. Without transitions it hears of all.

    It runs once for each transition, in their order for each object, is tried again until it succeeds, and gets the
    object as it is then, which may be later than the transition. `name` is what its place is kept under: keep it when
    you rename the method. `start` says where a consumer begins that is new: with what happens from now on, or with the
    oldest transition that is kept.

    Raises:
        DefinitionError: the method cannot be one; says what to write.
    """
    for one in on:
        if not isinstance(cast("Any", one), Definition):
            raise DefinitionError(
                f"@consumer takes transitions and name=, not {one!r}. Write @consumer(pay, name=...), behind the "
                "definition of `pay` in the class."
            )
    if not is_text(name) or not SERVICE_NAME.fullmatch(name):
        raise DefinitionError(
            f"@consumer(name={name!r}): a name is letters, digits, '.', '_' and '-', and begins with a letter."
        )
    if start not in ("now", "beginning"):
        raise DefinitionError(f'@consumer(start={start!r}): a new consumer starts "now" or at the "beginning".')

    def decorate(fn: ConsumerFunction[ModelT], /) -> ConsumerFunction[ModelT]:
        return cast("ConsumerFunction[ModelT]", ConsumerDefinition(fn, on, name, start))

    return decorate


def is_definition(member: object) -> TypeGuard[AnyDefinition]:
    """A member of a class is a transition."""
    return isinstance(member, Definition)


def wrong_state(definition: AnyDefinition, version: Model) -> str:
    """Why an object does not make a transition, and which it can make."""
    wanted = " or ".join(state_name(one) for one in definition.sources)
    allowed = ", ".join(sorted(one.attribute for one in transitions_from(definition, type(version))))
    ways = f"From there it can: {allowed}." if allowed else "No transition leads from there."
    return f"{version.id or 'The object'} is {version.state}, and {definition.attribute} leads from {wanted}. {ways}"


def transitions_from(one: AnyDefinition, state: type[Model]) -> list[AnyDefinition]:
    """The transitions of the same machine that lead from a state."""
    members = {} if one.owner is None else {name: inspect.getattr_static(one.owner, name) for name in dir(one.owner)}
    return [found for found in members.values() if is_definition(found) and state in found.sources]


def _transport_of(instance: object | None) -> Transport | None:
    return None if instance is None else instance.__dict__.get(TRANSPORT)


def _service_of(instance: object | None) -> str:
    return str(instance.__dict__[SERVICE])


def _of_key(key: str) -> tuple[int, int]:
    """A moment and bits that follow from an idempotency key."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:6], "big") * 1_000, int.from_bytes(digest[6:16], "big")


def _check_function(function: Any, decorator: str) -> None:
    if not inspect.iscoroutinefunction(function):
        raise DefinitionError(
            f"{decorator} stands on {named(function) if callable(function) else repr(function)}, which is not `async "
            "def`. Put it directly above `async def name(self, ctx, ...)`."
        )


def states_in(annotation: Any) -> tuple[type[Model], ...] | None:
    """The states that an annotation names; None: it names something else."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return states_of(annotation) if annotation is not Model else None
    parts = [states_in(part) for part in get_args(annotation)]
    if not parts or any(part is None for part in parts):
        return None
    return tuple(dict.fromkeys(state for part in parts if part is not None for state in part))


def is_of_models(annotation: Any) -> bool:
    return is_model(annotation) or states_in(annotation) is not None
