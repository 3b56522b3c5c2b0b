"""Hypothesis strategies for the arguments and the calls of handlers, made from what the handlers declare.

Whatever they give can be carried: each value has been through its codec and back. What else a handler is particular
about is for the user to say, by parameter or by type. Needs the extra `durably[testing]`.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from hypothesis import strategies as st
from hypothesis.vendor.pretty import RepresentationPrinter, pretty

from durably.actors.actor import Actor, Service, VirtualObject, Workflow
from durably.actors.bound_handlers import BoundHandler
from durably.actors.definition.arguments import Parameter
from durably.actors.definition.definition import AnyHandler, definition_of
from durably.actors.handlers import Handler
from durably.actors.transport import Invocation
from durably.actors.values.durations import Duration
from durably.actors.values.serde import TypeCodec, codec_for
from durably.errors import DefinitionError, UnencodableError
from durably.testing.generation.values import NoStrategyError as NoStrategyError
from durably.testing.generation.values import Strategy, Values

ServiceT = TypeVar("ServiceT", bound=Service)
ObjectT = TypeVar("ObjectT", bound=VirtualObject)
WorkflowT = TypeVar("WorkflowT", bound=Workflow)

Overrides: TypeAlias = Mapping[Any, "Strategy | Mapping[str, Strategy]"]
"""What users know better: `{str: ...}` of a type wherever it occurs, `{Cart.add_ticket: {"ticket_id": ...}}` of the
parameters of one handler."""

KEYS = ("a", "b")
"""The keys of objects of which nothing else was said: few, so that calls meet."""


class GivesReferences(Protocol):
    """Every `Caller`: a runtime, a harness, a client, a context; and a `Simulation`."""

    def service(self, actor: type[ServiceT], /) -> ServiceT: ...
    def object(self, actor: type[ObjectT], key: str, /) -> ObjectT: ...
    def workflow(self, actor: type[WorkflowT], id: str, /) -> WorkflowT: ...


@dataclass(frozen=True, slots=True, eq=False)
class ActorCall:
    """A call that somebody could make. Its repr is the code: `Cart('mary').add_ticket(ticket_id='A')`."""

    actor: type[Actor]
    key: str | None
    """None for a service."""
    handler: str
    """As it is called in Python: `add_ticket`."""
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __repr__(self) -> str:
        key = "" if self.key is None else repr(self.key)
        arguments = ", ".join(f"{name}={pretty(value)}" for name, value in self.arguments.items())
        return f"{self.actor.__name__}({key}).{self.handler}({arguments})"

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        """Hypothesis would tell how it was made."""
        printer.text(repr(self))

    def on(self, caller: GivesReferences, /) -> Coroutine[Any, Any, Any]:
        """Make the call, and wait for its result."""
        return self._bound(caller)(**self.arguments)

    def send_on(self, caller: GivesReferences, /, *, after: Duration = 0) -> Coroutine[Any, Any, Invocation[Any]]:
        """Send it as a message instead, to be delivered `after` a while: a timedelta or seconds."""
        bound = self._bound(caller)
        return bound.after(after).send(**self.arguments) if after else bound.send(**self.arguments)

    def _bound(self, caller: GivesReferences) -> BoundHandler[..., Any]:
        reference: Actor
        if self.key is None:
            reference = caller.service(cast("type[Service]", self.actor))
        elif issubclass(self.actor, Workflow):
            reference = caller.workflow(self.actor, self.key)
        else:
            reference = caller.object(cast("type[VirtualObject]", self.actor), self.key)
        bound: BoundHandler[..., Any] = getattr(reference, self.handler)
        return bound


def arguments(
    handler: AnyHandler, types: Mapping[Any, Strategy] | None = None, /, **parameters: Strategy
) -> st.SearchStrategy[dict[str, Any]]:
    """Keyword arguments for a handler: `arguments(Cart.add_ticket, ticket_id=st.sampled_from("ABC"))`.

    Each is made from its annotation unless `parameters` has a strategy for it; `types` has strategies for types,
    wherever they occur: `arguments(Cart.add_ticket, {str: st.text(max_size=5)})`. Those with defaults may be missing.

    Raises:
        NoStrategyError: nothing is known of the values of a type.
        DefinitionError: the handler has no such parameter, or its annotations cannot be resolved.
    """
    by_name = parameter_strategies(handler, {**(types or {}), handler: parameters})
    optional = {one.name for one in handler.signature.types.parameters if not one.required}
    return st.fixed_dictionaries(
        {name: strategy for name, strategy in by_name.items() if name not in optional},
        optional={name: strategy for name, strategy in by_name.items() if name in optional},
    ).map(lambda given: _carried(handler, {name: given[name] for name in by_name if name in given}))


def calls(
    *actors: type[Actor],
    keys: Mapping[type[Actor], Sequence[str]] | None = None,
    overrides: Overrides | None = None,
    leave_out: Collection[AnyHandler] = (),
) -> st.SearchStrategy[ActorCall]:
    """A call of any handler of these classes that is neither private nor left out, on one of a few keys.

        calls(Ticket, Cart, keys={Cart: ["mary", "bob"]}, overrides={Cart.add_ticket: {"ticket_id": st.just("A")}})

    Raises:
        NoStrategyError: nothing is known of the values of a type.
        DefinitionError: one of them is no class of actors, or an override is of no handler or parameter.
    """
    said = overrides or {}
    types = {about: strategy for about, strategy in said.items() if isinstance(strategy, st.SearchStrategy)}
    return st.one_of([
        st.builds(
            ActorCall,
            st.just(actor),
            keys_of(actor, keys or {}),
            st.just(handler.attribute),
            arguments(handler, types, **_parameters_in(said, handler)),
        )
        for actor in actors
        for handler in public_handlers(actor)
        if handler not in leave_out
    ])  # fmt: skip


def public_handlers(actor: type[Actor]) -> list[AnyHandler]:
    """The handlers that somebody outside may call, in order of definition."""
    definition = definition_of(actor)
    if definition.options.private:
        return []
    return [handler for handler in definition.handlers.values() if not handler.private]


def keys_of(actor: type[Actor], keys: Mapping[type[Actor], Sequence[str]]) -> st.SearchStrategy[str | None]:
    """Keys of a class of objects or workflows; None for a service. They are found by the name on the wire."""
    definition = definition_of(actor)
    if definition.kind == "service":
        return st.none()
    by_name = {definition_of(one).name: known for one, known in keys.items()}
    return st.sampled_from(by_name.get(definition.name, KEYS))


def parameter_strategies(handler: AnyHandler, overrides: Overrides) -> dict[str, Strategy]:
    """A strategy for each parameter of a handler, those with defaults too.

    Raises:
        As `arguments` does.
    """
    own = _parameters_in(overrides, handler)
    known = handler.signature.types.parameters
    strange = own.keys() - {one.name for one in known}
    if strange:
        raise DefinitionError(f"{handler} has no parameter {min(strange)!r}, for which a strategy was given.")
    types = {about: strategy for about, strategy in overrides.items() if isinstance(strategy, st.SearchStrategy)}
    values = Values(types)
    return {one.name: own[one.name] if one.name in own else _strategy(handler, one, values) for one in known}


def _parameters_in(overrides: Overrides, handler: AnyHandler) -> Mapping[str, Strategy]:
    for about, said in overrides.items():
        is_handler = _is_handler(about)
        if is_handler == isinstance(said, st.SearchStrategy):
            form = "a mapping of its parameters to strategies" if is_handler else "a strategy"
            what = str(about) if is_handler else f"The type {about!r}"
            raise DefinitionError(f"{what} is given {said!r} in overrides=, where {form} should be.")
    return cast("Mapping[str, Strategy]", overrides.get(handler, {}))


def _is_handler(value: object) -> bool:
    return isinstance(value, Handler)


def _strategy(handler: AnyHandler, parameter: Parameter, values: Values) -> Strategy:
    try:
        strategy = values.of(parameter.annotation)
    except NoStrategyError as error:
        raise NoStrategyError(f"The parameter {parameter.name!r} of {handler}: {error}.") from error
    if handler.signature.has_own_serde:
        return strategy
    codec = codec_for(parameter.annotation)
    return strategy.filter(lambda value: _carries(codec, value))


def _carries(codec: TypeCodec[Any], value: Any) -> bool:
    try:
        codec.encode_exactly(value)
    except UnencodableError:
        return False
    return True


def _carried(handler: AnyHandler, given: dict[str, Any]) -> dict[str, Any]:
    """The same. What the user's own strategies give is refused here, with the codec's words, if it does not fit."""
    signature = handler.signature
    signature.decode_arguments(signature.encode_arguments((), given))
    return given
