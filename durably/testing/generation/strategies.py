"""Hypothesis strategies for the arguments and the calls of handlers, made from what the handlers declare.

Every value they give can be carried: it has been through its codec and back. What else a handler is particular
about is for the user to say, by parameter or by type. Needs the extra `durably[testing]`.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from hypothesis import strategies as st
from hypothesis.vendor.pretty import RepresentationPrinter, pretty

from durably.actors.actor import Actor, Service, StateMachine, VirtualObject, Workflow
from durably.actors.bound_handlers import BoundHandler
from durably.actors.definition.arguments import Parameter
from durably.actors.definition.definition import AnyHandler, definition_of
from durably.actors.handlers import Handler
from durably.actors.machines.abstract import transitions_of
from durably.actors.machines.definitions import AnyDefinition, Definition
from durably.actors.transport import Invocation
from durably.actors.values.durations import Duration
from durably.actors.values.serde import TypeCodec, codec_for
from durably.errors import DefinitionError, UnencodableError
from durably.testing.generation.transitions import is_machine, parameters_of
from durably.testing.generation.values import NoStrategyError as NoStrategyError
from durably.testing.generation.values import Strategy, Values

ServiceT = TypeVar("ServiceT", bound=Service)
ObjectT = TypeVar("ObjectT", bound=VirtualObject)
WorkflowT = TypeVar("WorkflowT", bound=Workflow)
MachineT = TypeVar("MachineT", bound=StateMachine)

Callee: TypeAlias = AnyHandler | AnyDefinition
"""What can be called: a handler, or a transition of a machine."""
Overrides: TypeAlias = Mapping[Any, "Strategy | Mapping[str, Strategy]"]
"""What users know better: `{str: ...}` of a type wherever it occurs, `{Cart.add_ticket: {"ticket_id": ...}}` of the
parameters of one handler."""

KEYS = ("a", "b")
"""The keys of objects of which nothing else was said: few, so that calls meet."""


class GivesReferences(Protocol):
    """Every `Caller`: a runtime, a harness, a client, a context; and a `Simulation`."""

    def service(self, actor: type[ServiceT], /) -> ServiceT: ...
    def object(self, actor: type[ObjectT], key: str, /) -> ObjectT: ...
    def machine(self, machine: type[MachineT], /) -> MachineT: ...
    def workflow(self, actor: type[WorkflowT], id: str, /) -> WorkflowT: ...


@dataclass(frozen=True, slots=True, eq=False)
class ActorCall:
    """A call that somebody could make. Its repr is the code: `Cart('mary').add_ticket(ticket_id='A')`."""

    actor: type[Actor]
    key: str | None
    """None for a service, and for a transition that makes an object."""
    handler: str
    """As it is called in Python: `add_ticket`. Of a machine, a transition."""
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __repr__(self) -> str:
        key = "" if self.key is None else repr(self.key)
        arguments = ", ".join(f"{name}={pretty(value)}" for name, value in self.arguments.items())
        return f"{self.actor.__name__}({key}).{self.handler}({arguments})"

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        """Hypothesis would tell how it was made."""
        printer.text(repr(self))

    def on(self, caller: GivesReferences, /) -> Coroutine[object, object, Any]:
        """Make the call, and wait for its result."""
        if is_machine(self.actor):
            transition = getattr(caller.machine(cast("type[StateMachine]", self.actor)), self.handler)
            of = () if self.key is None else (self.key,)
            applied: Coroutine[object, object, Any] = transition(*of, **self.arguments)
            return applied
        return self._bound(caller)(**self.arguments)

    def send_on(self, caller: GivesReferences, /, *, after: Duration = 0) -> Coroutine[object, object, Invocation[Any]]:
        """Send it as a message instead, to be delivered `after` a while: a timedelta or seconds.

        Raises:
            DefinitionError: it is a transition, which is called.
        """
        if is_machine(self.actor):
            raise DefinitionError(f"{self!r} is a transition, which cannot be sent. Call it: `await call.on(caller)`.")
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
    handler: Callee, types: Mapping[Any, Strategy] | None = None, /, **parameters: Strategy
) -> st.SearchStrategy[dict[str, Any]]:
    """Keyword arguments for a handler: `arguments(Cart.add_ticket, ticket_id=st.sampled_from("ABC"))`.

    Each is made from its annotation unless `parameters` has a strategy for it; `types` has strategies for types,
    wherever they occur: `arguments(Cart.add_ticket, {str: st.text(max_size=5)})`. Those with defaults may be missing.

    Raises:
        NoStrategyError: nothing is known of the values of a type.
        DefinitionError: the handler has no such parameter, or its annotations cannot be resolved.
    """
    by_name = parameter_strategies(handler, {**(types or {}), handler: parameters})
    optional = {one.name for one in parameters_taken(handler) if not one.required}
    return st.fixed_dictionaries(
        {name: strategy for name, strategy in by_name.items() if name not in optional},
        optional={name: strategy for name, strategy in by_name.items() if name in optional},
    ).map(lambda given: _carried(handler, {name: given[name] for name in by_name if name in given}))


def calls(
    *actors: type[Actor],
    keys: Mapping[type[Actor], Sequence[str]] | None = None,
    overrides: Overrides | None = None,
    leave_out: Collection[Callee] = (),
) -> st.SearchStrategy[ActorCall]:
    """A call of any handler of these classes that is neither private nor left out, on one of a few keys.

    Those of a machine are its transitions; those of objects that there are need ids as `keys`.

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
            keys_of(actor, keys or {}, handler),
            st.just(handler.attribute),
            arguments(handler, types, **_parameters_in(said, handler)),
        )
        for actor in actors
        for handler in public_handlers(actor)
        if handler not in leave_out and not _lacks_objects(actor, handler, keys or {})
    ])  # fmt: skip


def public_handlers(actor: type[Actor]) -> list[Callee]:
    """The handlers that somebody outside may call, or the transitions of a machine, in order of definition."""
    definition = definition_of(actor)
    if definition.options.private:
        return []
    if is_machine(actor):
        return list(transitions_of(actor))
    return [handler for handler in definition.handlers.values() if not handler.private]


def keys_of(
    actor: type[Actor], keys: Mapping[type[Actor], Sequence[str]], handler: Callee
) -> st.SearchStrategy[str | None]:
    """Keys of a class of objects or workflows; None for a service, and where an object is made."""
    if definition_of(actor).kind == "service" or (isinstance(handler, Definition) and not handler.sources):
        return st.none()
    return st.sampled_from(_known_keys(actor, keys))


def _known_keys(actor: type[Actor], keys: Mapping[type[Actor], Sequence[str]]) -> Sequence[str]:
    """They are found by the name on the wire."""
    by_name = {definition_of(one).name: known for one, known in keys.items()}
    return by_name.get(definition_of(actor).name, () if is_machine(actor) else KEYS)


def _lacks_objects(actor: type[Actor], handler: Callee, keys: Mapping[type[Actor], Sequence[str]]) -> bool:
    return isinstance(handler, Definition) and bool(handler.sources) and not _known_keys(actor, keys)


def parameters_taken(handler: Callee) -> Sequence[Parameter]:
    """What it is called with, beside the object of a transition."""
    return parameters_of(handler) if isinstance(handler, Definition) else handler.signature.types.parameters


def parameter_strategies(handler: Callee, overrides: Overrides) -> dict[str, Strategy]:
    """A strategy for each parameter of a handler, those with defaults too.

    Raises:
        As `arguments` does.
    """
    own = _parameters_in(overrides, handler)
    known = parameters_taken(handler)
    strange = own.keys() - {one.name for one in known}
    if strange:
        raise DefinitionError(f"{handler} has no parameter {min(strange)!r}, for which a strategy was given.")
    types = {about: strategy for about, strategy in overrides.items() if isinstance(strategy, st.SearchStrategy)}
    values = Values(types)
    return {one.name: own[one.name] if one.name in own else _strategy(handler, one, values) for one in known}


def _parameters_in(overrides: Overrides, handler: Callee) -> Mapping[str, Strategy]:
    for about, said in overrides.items():
        is_handler = _is_handler(about)
        if is_handler == isinstance(said, st.SearchStrategy):
            form = "a mapping of its parameters to strategies" if is_handler else "a strategy"
            what = str(about) if is_handler else f"The type {about!r}"
            raise DefinitionError(f"{what} is given {said!r} in overrides=, where {form} should be.")
    return cast("Mapping[str, Strategy]", overrides.get(handler, {}))


def _is_handler(value: object) -> bool:
    return isinstance(value, Handler | Definition)


def _strategy(handler: Callee, parameter: Parameter, values: Values) -> Strategy:
    try:
        strategy = values.of(parameter.annotation)
    except NoStrategyError as error:
        raise NoStrategyError(f"The parameter {parameter.name!r} of {handler}: {error}.") from error
    if isinstance(handler, Handler) and handler.signature.has_own_serde:
        return strategy
    codec = codec_for(parameter.annotation)
    return strategy.filter(lambda value: _carries(codec, value))


def _carries(codec: TypeCodec[Any], value: Any) -> bool:
    try:
        codec.encode_exactly(value)
    except UnencodableError:
        return False
    return True


def _carried(handler: Callee, given: dict[str, Any]) -> dict[str, Any]:
    """The same. What the user's own strategies give is refused here, with the codec's words, if it does not fit."""
    if isinstance(handler, Definition):
        codec_for(handler.data).encode_exactly(handler.bind((), given, None))
        return given
    signature = handler.signature
    signature.decode_arguments(signature.encode_arguments((), given))
    return given
