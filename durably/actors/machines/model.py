"""Models: objects that are always in one of several states, as immutable values.

A model is a direct subclass of `Model`, and its direct subclasses are its states. A value is one version of one object:
a transition takes one and gives the next. On the wire a version is an object with the name of its state, its id and its
fields, all in camelCase: `{"state": "deliveryBooked", "id": "order_01h4…", "trackingNumber": "123456789"}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from inspect import get_annotations
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast, dataclass_transform, get_type_hints

import msgspec

from durably.actors.machines.type_ids import LONGEST_PREFIX, PREFIX, TRANSITION_PREFIX
from durably.actors.values.descriptions import named
from durably.errors import DefinitionError

ModelT = TypeVar("ModelT", bound="Model")

RESERVED_FIELDS = frozenset({"id", "state", "of"})
_MACHINE = "__durably_machine_name__"
"""Where a model keeps that a machine has been made of it: its states are known by then."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Fields:
    """Fields that several states share: `class Payment(Fields)`, then `class Paid(Payment, Order)`.

    A mixin and no state, so that a version in one of these states does not pass for one in another.
    """


if TYPE_CHECKING:

    @dataclass_transform(kw_only_default=True, frozen_default=True)
    class Model:
        """What every version of an object has. `class Order(Model, prefix="order")` is a model; `class Paid(Order)` is
        one of its states.

        Fields of the model are part of all states, fields of a state of that state only. `prefix` is what ids of its
        objects begin with, the name of the class in lower case if left out; `index` names the fields that queries are
        to find objects by quickly.
        """

        @property
        def id(self) -> str:
            """Which object this is a version of. A version that a transition has just made has none yet: ''."""
            ...

        @property
        def state(self) -> str:
            """The name of its state, as on the wire. Code asks by `isinstance` or `match`."""
            ...

        def __init_subclass__(cls, *, prefix: str | None = None, index: Sequence[str] = ()) -> None: ...

        @classmethod
        def of(cls, version: Model, /, **changes: Any) -> Self:
            """The object in this state: fields that both have are as in `version`, but for the `changes`.

                return Paid.of(order, payment_reference=reference)

            Raises:
                TypeError: a field has no value, or there is none of this name.
            """
            ...

else:

    class _ModelType(type(msgspec.Struct)):
        """Makes a struct of a model or of a state."""

        def __new__(
            mcs,
            name: str,
            bases: tuple[type, ...],
            namespace: dict[str, Any],
            *,
            prefix: str | None = None,
            index: Sequence[str] = (),
        ) -> _ModelType:
            parents = [base for base in bases if isinstance(base, _ModelType)]
            if not parents:
                return super().__new__(
                    mcs, name, bases, namespace, frozen=True, kw_only=True, rename="camel", tag_field="state"
                )
            (parent,) = parents if len(parents) == 1 else (_one_parent(name, parents),)
            _check_parent(name, parent, prefix, index)
            _take_over_fields(bases, namespace)
            tag = name[:1].lower() + name[1:]
            _check_names(name, tag, parent, namespace)
            made = super().__new__(mcs, name, bases, namespace, kw_only=True, tag=tag)
            made.__durably_model__ = made if parent is Model else parent
            if parent is Model:
                made.__durably_states__ = []
                made.__durably_prefix__ = _checked_prefix(made, prefix)
                made.__durably_index__ = tuple(index)
            else:
                parent.__durably_states__.append(made)
            return made

    class Model(msgspec.Struct, metaclass=_ModelType):
        """What every version of an object has."""

        id: str = ""

        @property
        def state(self) -> str:
            return state_name(type(self))

        @classmethod
        def of(cls, version: Model, /, **changes: Any) -> Self:
            own = cls.__struct_fields__
            taken = {name: getattr(version, name) for name in version.__struct_fields__ if name in own}
            return cls(**{**taken, **changes})


def _one_parent(name: str, parents: Sequence[type]) -> type:
    raise DefinitionError(
        f"{name} subclasses {', '.join(parent.__name__ for parent in parents)}. A state belongs to one model. Put "
        "fields that several states share into a class of their own: class ...(Fields)."
    )


def _check_parent(name: str, parent: type[Model], prefix: str | None, index: Sequence[str]) -> None:
    if parent is Model:
        return
    if vars(parent).get("__durably_states__") is None:
        raise DefinitionError(
            f"{name} subclasses {parent.__name__}, which is a state: one in {name} would pass for one in "
            f"{parent.__name__}, where that is expected. Put the fields that both have into class "
            f"{parent.__name__}Fields(Fields), and write class {name}({parent.__name__}Fields, "
            f"{model_of(parent).__name__})."
        )
    if prefix is not None or index:
        raise DefinitionError(
            f"{name} is a state, and prefix= and index= are about the whole model. Give them to {parent.__name__}."
        )
    if machine_of(parent) is not None:
        raise DefinitionError(
            f"{name} is a state of {parent.__name__}, and comes after the class that has its transitions. Define all "
            f"states before {machine_of(parent)}."
        )


def _take_over_fields(bases: Iterable[type], namespace: dict[str, Any]) -> None:
    """Fields of mixins become the state's own."""
    annotations: dict[str, Any] = {}
    for base in bases:
        if issubclass(base, Fields) and not issubclass(base, Model):
            annotations.update(_annotations_of(base))
            names = (name for name in annotations if hasattr(base, name))
            namespace.update({name: getattr(base, name) for name in names if name not in namespace})
    if annotations:
        namespace["__annotations__"] = {**annotations, **namespace.get("__annotations__", {})}


def _annotations_of(mixin: type) -> dict[str, Any]:
    """Resolved where the mixin stands, since the state may stand elsewhere; what cannot be resolved yet, as written."""
    try:
        return get_type_hints(mixin, include_extras=True)
    except NameError:
        return {name: written for base in reversed(mixin.__mro__) for name, written in get_annotations(base).items()}


def _check_names(name: str, tag: str, parent: type[Model], namespace: Mapping[str, Any]) -> None:
    """In JSON, and as columns, no two fields of the model and no two of its states are one."""
    states = () if parent is Model else states_of(parent)
    for state in states:
        if state_name(state) == tag:
            raise DefinitionError(
                f"{name} is a state of {parent.__name__}, and so is {state.__name__}: both are {tag!r} in JSON. Call "
                "one otherwise."
            )
    seen = {_folded(one): one for one in RESERVED_FIELDS}
    for state in (parent, *states):
        seen |= {_folded(one): one for one in cast("Any", state).__struct_fields__}
    for field in namespace.get("__annotations__", {}):
        if _folded(field) in map(_folded, RESERVED_FIELDS):
            raise DefinitionError(
                f"{name}.{field} is a field, and every version has {field.lower()!r} already. Call it something else."
            )
        other = seen.setdefault(_folded(field), field)
        if other != field:
            raise DefinitionError(
                f"{name}.{field} is a field, and there is {other!r} in the model already: in JSON and in a table they "
                "would be one. Call it something else."
            )


def _folded(name: str) -> str:
    """Tables do not tell columns apart by case."""
    return camel(name).lower()


def _checked_prefix(model: type[Model], prefix: str | None) -> str:
    given = model.__name__.lower() if prefix is None else prefix
    if not PREFIX.fullmatch(given) or len(given) > LONGEST_PREFIX:
        raise DefinitionError(
            f"{named(model)} has prefix={given!r}. Ids begin with it, so it is lower case letters, digits and '_', "
            f"begins with a letter, and has at most {LONGEST_PREFIX} of them."
        )
    if given == TRANSITION_PREFIX:
        raise DefinitionError(
            f"{named(model)} has the prefix {given!r}, which ids of transitions begin with. Give it another: class "
            f"{model.__name__}(Model, prefix=...)."
        )
    return given


def camel(name: str) -> str:
    """`delivery_booked` as `deliveryBooked`."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def is_model(cls: object) -> bool:
    return isinstance(cls, type) and issubclass(cls, Model) and vars(cls).get("__durably_model__") is cls


def is_state(cls: object) -> bool:
    return isinstance(cls, type) and issubclass(cls, Model) and cls is not Model and not is_model(cls)


def model_of(cls: type[Model]) -> type[Model]:
    """The model that a state belongs to; of a model, itself."""
    return cast("type[Model]", cast("Any", cls).__durably_model__)


def states_of(cls: type[Model]) -> tuple[type[Model], ...]:
    """The states of a model, in order of definition; of a state, itself."""
    return tuple(cast("Any", cls).__durably_states__) if is_model(cls) else (cls,)


def state_name(state: type[Model]) -> str:
    """As on the wire."""
    return str(cast("Any", state).__struct_config__.tag)


def prefix_of(model: type[Model]) -> str:
    return str(cast("Any", model).__durably_prefix__)


def index_of(model: type[Model]) -> tuple[str, ...]:
    """The fields that queries find objects by quickly."""
    return tuple(cast("Any", model).__durably_index__)


def machine_of(model: type[Model]) -> str | None:
    """The name of the class that has the transitions of a model, once there is one."""
    found = vars(model).get(_MACHINE)
    return None if found is None else str(found)


def note_machine(model: type[Model], name: str) -> None:
    setattr(model, _MACHINE, name)
