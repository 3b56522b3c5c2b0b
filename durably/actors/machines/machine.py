"""`Machine`: the transitions and consumers of one model. Behind it stands a virtual object for each of its objects."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from durably.actors.actor import REFERENCE_MARK, Actor, StateMachine
from durably.actors.definition.definition import definition_of
from durably.actors.definition.scope import Scope
from durably.actors.machines import questions
from durably.actors.machines.consumers import consumers_of
from durably.actors.machines.front import front_of
from durably.actors.machines.info import HISTORY, MACHINE, VERSION_FIELD, MachineInfo, info_of
from durably.actors.machines.model import Model, ModelT, index_of, note_machine, prefix_of
from durably.actors.machines.preparation import Preparation, model_of_machine
from durably.actors.machines.queries import fields_of
from durably.actors.machines.questions import OnReferences
from durably.actors.machines.transition import Transition
from durably.actors.protocol.operations import frame_above
from durably.actors.values.descriptions import named
from durably.actors.values.durations import FOREVER_US, Duration, retention_us
from durably.actors.values.serde import JsonSerde
from durably.errors import DefinitionError
from durably.queries import TableLayout

S = TypeVar("S", bound=Model)

COMPANIONS = "__durably_companions__"
"""Where the class of a machine keeps those that run beside it: its consumers, and its front for those outside."""


if TYPE_CHECKING:
    from abc import ABC

    class _Abstract(ABC):  # noqa: B024 - what it lets type checkers know of are the methods of its subclasses
        """Lets type checkers know of abstract transitions."""

else:

    class _Abstract:
        """What else an `ABC` does would cost each message time; `durably.actors.machines.abstract` does it once."""


class Machine(StateMachine, _Abstract, Generic[ModelT], abstract=True):
    """Transitions and consumers of one model: `class Orders(Machine[Order])`.

    `ctx.machine(Orders)`, and the same of a runtime or client, is what transitions and questions are called on.

    A class with `abstract=True` says what transitions there are, each an `@abstractmethod` below its decorator; a
    subclass implements all of them. With a name as well it is a contract, which callers may use in its place.
    """

    def __init_subclass__(cls, *, history: Duration | None = None, **options: Any) -> None:
        """The class keywords are those of a `VirtualObject`, but for `state_version`, `serde` and `ttl`; and `history`,
        a timedelta or seconds: how long transitions are kept. An older one is removed when every consumer is past it,
        also one that is paused. Objects stay as they are. If left out, that of the class that this one extends, and
        else for ever, as with `FOREVER`.

        Raises:
            DefinitionError: the class cannot work; says what to write.
        """
        if REFERENCE_MARK in vars(cls):
            super().__init_subclass__(**options)
            return
        for name in ("serde", "state_version", "ttl"):
            if name in options:
                raise DefinitionError(f"{cls.__name__} is a machine and takes no {name}=. Leave it out.")
        if history is not None:
            setattr(cls, HISTORY, retention_us(history, f"history= of {named(cls)}"))
        scope = Scope(cls, frame_above(1))
        model = model_of_machine(cls, Machine, scope)
        if model is None:
            options = {"abstract": True, **options}
            super().__init_subclass__(**options)
            return
        is_abstract = bool(options.get("abstract"))
        Preparation(cls, model, scope, taken=dir(Machine)).run(is_abstract=is_abstract)
        options = {"serde": JsonSerde, **options}
        super().__init_subclass__(**options)
        setattr(cls, MACHINE, _info(cls, model))
        if not is_abstract:
            note_machine(model, cls.__name__)
            setattr(cls, COMPANIONS, (*consumers_of(cls), front_of(cls)))

    if TYPE_CHECKING:

        def find_one(
            self, state: type[S], where: Callable[[S], bool] | None = None, /, *, id: str = ..., **equals: Any
        ) -> Coroutine[object, object, S | None]:
            """An object in this state (a model: in any) that fits, the oldest of several; None: there is none."""
            ...

        def find_one_or_raise(
            self, state: type[S], where: Callable[[S], bool] | None = None, /, *, id: str = ..., **equals: Any
        ) -> Coroutine[object, object, S]:
            """As `find_one`.

            Raises:
                UnknownObjectError: there is none.
            """
            ...

        def find_all(
            self,
            state: type[S],
            where: Callable[[S], bool] | None = None,
            /,
            *,
            order_by: Callable[[S], Any] | None = None,
            descending: bool = False,
            limit: int | None = None,
            after: str | None = None,
            **equals: Any,
        ) -> Coroutine[object, object, list[S]]:
            """All objects in this state (a model: in any) that fit: `find_all(Created, lambda order: order.amount >
            10)` or, by equality, `find_all(Created, amount=100)`.

            They come in the order of their making, or of a field; those without a value first. `after` is the id of the
            last object of the page before. In a handler there are at most 1,000, and the answer is recorded.

            Raises:
                TooManyObjectsError: in a handler, without `limit`: there are more.
            """
            ...

        def count(
            self, state: type[S], where: Callable[[S], bool] | None = None, /, **equals: Any
        ) -> Coroutine[object, object, int]:
            """How many objects in this state fit."""
            ...

        def get_transition(self, id: str, /) -> Coroutine[object, object, Transition]:
            """A transition by its id.

            Raises:
                UnknownTargetError: there is none, or it is older than `history=` keeps it; says so.
            """
            ...

        def get_object_transitions(
            self, object: Model | str, /, *, limit: int = 100
        ) -> Coroutine[object, object, list[Transition]]:
            """The transitions of an object that are kept, the latest first: at most `limit`, and 1,000."""
            ...

    else:
        find_one = OnReferences(questions.find_one)
        find_one_or_raise = OnReferences(questions.find_one_or_raise)
        find_all = OnReferences(questions.find_all)
        count = OnReferences(questions.count)
        get_transition = OnReferences(questions.get_transition)
        get_object_transitions = OnReferences(questions.get_object_transitions)


def with_companions(actors: Iterable[type[Actor]]) -> Iterator[type[Actor]]:
    """These classes, each machine with those that run beside it."""
    given = [*actors]
    for actor in given:
        yield actor
        yield from (one for one in getattr(actor, COMPANIONS, ()) if one not in given)


def check_prefixes(actors: Iterable[type[Actor]]) -> None:
    """See that each machine has objects of its own.

    Raises:
        DefinitionError: two machines make ids of one prefix, which names their table, too.
    """
    machines: dict[str, type[Actor]] = {}
    for actor in actors:
        if isinstance(getattr(actor, MACHINE, None), MachineInfo):
            table = info_of(actor).table.name
            other = machines.setdefault(table, actor)
            if other is not actor:
                raise DefinitionError(
                    f"{named(other)} and {named(actor)} share the prefix {table!r}, and with it their ids. "
                    "Give one of the models another: class ...(Model, prefix=...)."
                )


def _info(cls: type[StateMachine], model: type[Model]) -> MachineInfo:
    fields, indexed, service = fields_of(model), index_of(model), definition_of(cls).name
    unknown = [name for name in indexed if name not in fields]
    if unknown:
        known = ", ".join(sorted(fields))
        raise DefinitionError(
            f"{model.__name__} has index={[*indexed]!r}, and no field {unknown[0]!r}. It has {known}."
        )
    columns = tuple(field for name, field in fields.items() if name not in ("id", "state"))
    table = TableLayout(prefix_of(model), service, VERSION_FIELD, columns, tuple(fields[name].name for name in indexed))
    history_us: int = getattr(cls, HISTORY, FOREVER_US)
    return MachineInfo(
        model=model,
        service=service,
        fields=fields,
        table=table,
        history_us=None if history_us == FOREVER_US else history_us,
    )
