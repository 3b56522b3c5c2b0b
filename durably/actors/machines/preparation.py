"""Makes handlers of the transitions of a class, while that is being defined.

Annotations are resolved at once, unlike those of other handlers: the states that a transition leads from and to say
whether the machine makes sense.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from typing import Any, TypeVar, cast

import msgspec

from durably.actors.context import ObjectContext, SharedContext
from durably.actors.definition.scope import Scope
from durably.actors.definition.type_bindings import bindings_of
from durably.actors.handlers import Handler
from durably.actors.machines.abstract import check_implementations, members_of, transitions_of
from durably.actors.machines.definitions import (
    NOTE,
    AnyDefinition,
    ConsumerDefinition,
    InitialDefinition,
    is_definition,
    states_in,
)
from durably.actors.machines.info import READER, RUNNER, VERSION, VERSION_FIELD
from durably.actors.machines.model import Model, camel, is_model, machine_of, states_of
from durably.actors.machines.running import run_transition
from durably.actors.machines.transition import Transition
from durably.actors.state import StateField
from durably.actors.values.descriptions import describe, named
from durably.errors import DefinitionError

_GET = "get"


class Preparation:
    """One class."""

    def __init__(self, cls: type[Any], model: type[Model], scope: Scope, *, taken: Collection[str]) -> None:
        """`taken`: what every machine answers to."""
        self._cls = cls
        self._taken = {_GET, *(name for name in taken if not name.startswith("_"))}
        self._model = model
        self._scope = scope
        self._where = named(cls)

    def run(self, *, is_abstract: bool) -> None:
        """Resolve what each transition leads from and to, and put what the machine runs on into the class.

        Raises:
            DefinitionError: the class cannot work; says what to write.
        """
        self._check_class()
        own: list[AnyDefinition] = [one for one in vars(self._cls).values() if is_definition(one)]
        for one in own:
            self._resolve(one, self._cls)
        own += [self._take_over(one) for one in transitions_of(self._cls) if one.data is None]
        self._check_names()
        self._check_consumers()
        if not is_abstract:
            check_implementations(self._cls, self._read)
            self._check_reach(list(transitions_of(self._cls)))
            self._check_is_only_one()
        self._add_state()
        for one in own:
            self._add_transition(one)
        self._add_reader()

    def _check_class(self) -> None:
        model = self._model.__name__
        if not states_of(self._model):
            raise DefinitionError(
                f"{self._where} is a machine of {model}, which has no states. Define them before it: class "
                f"Created({model})."
            )
        for name, one in vars(self._cls).items():
            if name in self._taken:
                raise DefinitionError(
                    f"{self._where}.{name} has a name that every machine answers to. Call it otherwise."
                )
            if isinstance(one, Handler | StateField):
                what = "state" if isinstance(one, StateField) else "a handler"
                raise DefinitionError(
                    f"{self._where}.{name} is {what}, and a machine has transitions and consumers. Fields belong to "
                    "the states of its model; put other handlers into a class of their own."
                )

    def _check_is_only_one(self) -> None:
        other = machine_of(self._model)
        if other is not None:
            raise DefinitionError(
                f"{self._where} is a machine of {self._model.__name__}, and {other} is one already. A model has one."
            )

    def _take_over(self, one: AnyDefinition) -> AnyDefinition:
        """A transition of a mixin, or of a generic class, becomes one of this class: in another it means another."""
        attribute, owner = one.attribute, one.owner
        assert owner is not None, "it was found in a class"
        taken = self._read(owner, one)
        setattr(self._cls, attribute, taken)
        taken.owner = self._cls
        return taken

    def _read(self, base: type, one: AnyDefinition) -> AnyDefinition:
        """What a transition of a base means in this class."""
        if one.data is not None:
            return one
        read = type(one)(one.function)
        read.__set_name__(base, one.attribute)
        self._resolve(read, base)
        return read

    def _check_names(self) -> None:
        """On the wire, no two are one."""
        seen: dict[str, str] = {_GET: _GET}
        for one in transitions_of(self._cls):
            other = seen.setdefault(one.name, one.attribute)
            if one.attribute in self._taken:
                raise DefinitionError(
                    f"{self._where}.{one.attribute} has a name that every machine answers to. Call it otherwise."
                )
            if other != one.attribute:
                raise DefinitionError(
                    f"{self._where} has the transitions {other} and {one.attribute}, and both are {one.name!r} on the "
                    "wire. Call one otherwise."
                )

    def _check_consumers(self) -> None:
        for one in members_of(self._cls, ConsumerDefinition):
            self._check_consumer(one)

    def _check_consumer(self, one: ConsumerDefinition) -> None:
        """It gets the object in whichever state it is by then."""
        where, model = f"{self._where}.{one.attribute}", self._model.__name__
        signature = inspect.signature(one.function)
        try:
            given = signature.bind(*(None,) * 4).arguments
        except TypeError as error:
            raise DefinitionError(
                f"{where} does not take what a consumer gets: {error}. Write `async def {one.attribute}(self, ctx: "
                f"Context, order: {model}, transition: Transition) -> None`."
            ) from error
        name = [*given][2]
        owner = next(base for base in self._cls.__mro__ if vars(base).get(one.attribute) is one)
        written = signature.parameters[name].annotation
        if written is inspect.Parameter.empty:
            return
        states = states_in(self._annotations({name: written}, owner, where)[name])
        if states is not None and {*states} != {*states_of(self._model)}:
            raise DefinitionError(
                f"{where} takes {describe(written)}, and a consumer gets the object as it is by then, in any state. "
                f"Annotate {model}, and ask by isinstance()."
            )

    def _annotations(self, written: Mapping[str, Any], owner: type, where: str) -> dict[str, Any]:
        """What annotations in one of the class's bases, or in itself, mean here."""
        if owner is self._cls:
            return self._scope.resolve(written, where)
        resolved = self._scope.of(owner).resolve(written, where, vars(owner))
        return bindings_of(self._cls, owner, self._scope).apply(resolved)

    def _resolve(self, one: AnyDefinition, owner: type) -> None:
        where = f"{named(owner)}.{one.attribute}"
        signature = inspect.signature(one.function)
        parameters = list(signature.parameters.values())
        if len(parameters) < one.OWN_PARAMETERS:
            object_ = "" if isinstance(one, InitialDefinition) else ", order: Created"
            raise DefinitionError(
                f"{where} takes too few parameters. Write `async def {one.attribute}(self, ctx: TransitionContext"
                f"{object_}, ...)`."
            )
        context = parameters[1]
        is_named_so = context.name.strip("_") in ("ctx", "context")
        if not is_named_so and not str(context.annotation).rpartition(".")[2].rstrip("'>").endswith("Context"):
            raise DefinitionError(
                f"{where} has no context: its second parameter is `{context}`. Write `async def {one.attribute}(self, "
                "ctx: TransitionContext, ...)`."
            )
        written = {p.name: p.annotation for p in parameters if p.annotation is not p.empty}
        if signature.return_annotation is not signature.empty:
            written["return"] = signature.return_annotation
        written.pop(parameters[1].name, None)
        resolved = self._annotations(written, owner, where)
        one.targets = self._states(resolved.get("return"), f"{where} returns")
        if not isinstance(one, InitialDefinition):
            one.sources = self._states(resolved.get(parameters[2].name), f"{where} takes")
        own = parameters[one.OWN_PARAMETERS :]
        one.parameters = tuple(p.replace(annotation=resolved.get(p.name, Any)) for p in own)
        for p in one.parameters:
            if p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) or p.name == NOTE:
                raise DefinitionError(
                    f"The parameter {p.name!r} of {where} cannot be one: arguments go by name, and {NOTE!r} is what "
                    "options(note=...) gives."
                )
        one.data = self._data(one, where)

    def _data(self, one: AnyDefinition, where: str) -> type[msgspec.Struct]:
        """What a transition takes, as one value."""
        seen: dict[str, str] = {}
        for p in one.parameters:
            other = seen.setdefault(camel(p.name), p.name)
            if other != p.name:
                raise DefinitionError(
                    f"{where} has the parameters {other!r} and {p.name!r}, and both are {camel(p.name)!r} in JSON. "
                    "Call one otherwise."
                )
        fields: list[Any] = [
            (p.name, p.annotation, *(() if p.default is p.empty else (p.default,))) for p in one.parameters
        ]
        fields.append((NOTE, str | None, None))
        module = self._cls.__module__
        return msgspec.defstruct(one.attribute, fields, kw_only=True, frozen=True, rename="camel", module=module)

    def _states(self, annotation: Any, says: str) -> tuple[type[Model], ...]:
        states = None if annotation is None else states_in(annotation)
        known = states_of(self._model)
        if states is None or any(state not in known for state in states):
            shown = "nothing that is annotated" if annotation is None else describe(annotation)
            raise DefinitionError(
                f"{says} {shown}, and the states of {self._model.__name__} are "
                f"{', '.join(one.__name__ for one in known)}. Annotate the state, or a union of states."
            )
        return states

    def _check_reach(self, definitions: Sequence[AnyDefinition]) -> None:
        """Every state can be reached from a new object."""
        reached = {state for one in definitions if not one.sources for state in one.targets}
        if not reached:
            raise DefinitionError(
                f"{self._where} has no @initial transition, so no object would ever be made. Write `@initial async def "
                "create(self, ctx: TransitionContext, ...) -> ...`."
            )
        while True:
            beyond = {state for one in definitions if reached.intersection(one.sources) for state in one.targets}
            if beyond <= reached:
                break
            reached |= beyond
        missed = [one.__name__ for one in states_of(self._model) if one not in reached]
        if missed:
            raise DefinitionError(
                f"No transition of {self._where} leads to {', '.join(missed)}, from any object that there can be. Add "
                "one, or remove the state."
            )

    def _add_state(self) -> None:
        field = StateField(None, VERSION_FIELD, None, None)
        self._cls.__annotations__ = {**inspect.get_annotations(self._cls), VERSION: self._any_version()}
        setattr(self._cls, VERSION, field)
        field.__set_name__(self._cls, VERSION)

    def _add_transition(self, one: AnyDefinition) -> None:
        assert one.data is not None, "it has been resolved"
        function = one.function  # Part of the code that this runs, also for `fingerprint`.

        async def run(self: Any, ctx: ObjectContext, data: msgspec.Struct) -> Any:
            assert one.function is function
            return await run_transition(self, ctx, one, data)

        answer: Any = tuple
        run.__annotations__ = {
            "ctx": "ObjectContext", "data": one.data, "return": answer[_union(one.targets), Transition],
        }  # fmt: skip
        if all(p.default is not p.empty for p in one.parameters):
            run.__defaults__ = (one.data(),)
        run.__doc__ = one.__doc__
        one.handler = self._add(run, RUNNER.format(one.attribute), camel(one.attribute), is_shared=False)

    def _add_reader(self) -> None:
        async def get(self: Any, ctx: SharedContext) -> Any:
            """The object as it is."""
            return getattr(self, VERSION)

        get.__annotations__ = {"ctx": "SharedContext", "return": self._any_version()}
        self._add(get, READER, _GET, is_shared=True)

    def _any_version(self) -> Any:
        return _union((*states_of(self._model), None))

    def _add(self, function: Any, attribute: str, name: str, *, is_shared: bool) -> Handler[..., Any]:
        cls = self._cls
        function.__name__ = attribute
        function.__qualname__ = f"{cls.__qualname__}.{attribute}"
        function.__module__ = cls.__module__
        handler: Handler[..., Any] = Handler(function, shared=is_shared, name=name, atomic=not is_shared)
        setattr(cls, attribute, handler)
        handler.named_in(cls, attribute)
        return handler


def model_of_machine(cls: type, machine: type, scope: Scope) -> type[Model] | None:
    """The model in `Machine[Order]`, of the class or of a base; None for a generic class that leaves it open.

    Raises:
        DefinitionError: there is none.
    """
    (variable,) = cast("Any", machine).__parameters__
    given = bindings_of(cls, machine, scope).apply({"": variable})[""]
    if isinstance(given, TypeVar):
        bases: tuple[Any, ...] = vars(cls).get("__orig_bases__", ())
        if any(given in getattr(base, "__parameters__", ()) for base in bases):
            return None
        raise DefinitionError(
            f"{named(cls)} does not say of which model it is a machine. Write class ...(Machine[Order])."
        )
    if not is_model(given):
        raise DefinitionError(
            f"{named(cls)} is a machine of {describe(given)}, which is no model. A model is a direct subclass "
            "of Model, and its subclasses are its states: class Order(Model, prefix='order')."
        )
    return cast("type[Model]", given)


def _union(types: Sequence[Any]) -> Any:
    made: Any = reduce(lambda one, other: one | other, types)
    return made
