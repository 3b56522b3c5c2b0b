"""References: instances of a class of actors that carry messages instead of running handlers.

A reference is an instance, made without the constructor, of a subclass that is made once for each class of actors.
There every attribute that only the running object has (state, plain methods, properties) is replaced by a sentence.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, Never, TypeVar, cast

from durably.actors.actor import REFERENCE_MARK, Actor
from durably.actors.definition.definition import DEFINITION, ActorDefinition, ActorKind, definition_of
from durably.actors.handlers import SERVICE, TRANSPORT, Handler
from durably.actors.promises import PromiseField
from durably.actors.state import StateField
from durably.actors.transport import Transport
from durably.actors.values.type_checks import is_text
from durably.errors import InvalidKeyError
from durably.ids import is_storable

ActorT = TypeVar("ActorT", bound=Actor)

REFERENCE_CLASS = "__durably_reference_class__"


def reference(transport: Transport, actor: type[ActorT], kind: ActorKind, key: str | None) -> ActorT:
    """A reference to a service, or to the object with this key.

    Raises:
        TypeError: the class is of another kind, or is abstract without a name, or the key is no key.
        InvalidKeyError: the key is empty, or no store can keep it.
    """
    cls: type[ActorT] = getattr(actor, "__dict__", {}).get(REFERENCE_CLASS) or _reference_class(actor)
    definition: ActorDefinition = cls.__dict__[DEFINITION]
    if definition.kind != kind:
        raise TypeError(_wrong_kind(definition))
    made = object.__new__(cls)
    own = made.__dict__
    own[TRANSPORT] = transport
    own[SERVICE] = definition.name
    if kind != "service":
        if not key or not is_text(key):
            what = "id" if kind == "workflow" else "key"
            sentence = f"The {what} of {definition.name} is a string that is not empty, not {key!r}."
            # Rule V5: a key may come from a request, so a bad one is an error 400, as one that no store can keep.
            raise InvalidKeyError(sentence) if key == "" else TypeError(sentence)
        if not key.isprintable() and not is_storable(key):
            raise InvalidKeyError(
                f"The key {key!r} of {definition.name} is not Unicode text without NUL, so it cannot be stored."
            )
        own["key"] = key
    return made


def machine_reference(transport: Transport, machine: type[ActorT]) -> ActorT:
    """What transitions of a machine are called on.

    Raises:
        TypeError: it is none.
    """
    if not hasattr(machine, "__durably_machine__"):
        raise TypeError(f"{machine!r} is no machine. Write class ...(Machine[Order]), and give the class itself.")
    cls: type[ActorT] = machine.__dict__.get(REFERENCE_CLASS) or _reference_class(machine)
    made = object.__new__(cls)
    made.__dict__[TRANSPORT] = transport
    made.__dict__[SERVICE] = cls.__dict__[DEFINITION].name
    return made


def _wrong_kind(definition: ActorDefinition) -> str:
    name = definition.actor.__name__
    if definition.kind == "object":
        return f"{name} is a VirtualObject, and each has a key. Write object({name}, key)."
    if definition.kind == "workflow":
        return f"{name} is a Workflow, and each has an id. Write workflow({name}, id)."
    return f"{name} is a Service, and has no key. Write service({name})."


def _reference_class(actor: type[ActorT]) -> type[ActorT]:
    definition = definition_of(actor)
    if definition.options.abstract and not definition.is_contract:
        raise TypeError(
            f"{actor.__name__} is abstract and has no name, so nothing answers to it. "
            "Give the contract a name, class ...(abstract=True, name=...), or use a class that implements it."
        )
    names = [name for name in dir(actor) if not name.startswith("__")]
    shadows = {name: _NotRemote(name) for name in names if not _works_remotely(_static(actor, name))}
    namespace: dict[str, Any] = {**shadows, REFERENCE_MARK: True, DEFINITION: definition, "__doc__": actor.__doc__}
    make = cast("Callable[..., type[ActorT]]", type(actor))
    cls = make(actor.__name__, (_Reference, actor), {**namespace, "__module__": actor.__module__})
    setattr(actor, REFERENCE_CLASS, cls)
    return cls


def _static(cls: type, name: str) -> Any:
    for base in cls.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return None


def _works_remotely(value: Any) -> bool:
    """Handlers, and what belongs to the class and not to an object: constants, class methods, nested classes."""
    local = (StateField, PromiseField, FunctionType, property, functools.cached_property, functools.partialmethod)
    return isinstance(value, Handler) or not isinstance(value, local)


class _Reference:
    """What all references do beside being actors."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Never:
            _refuse(self, name)

        def __setattr__(self, name: str, value: Any) -> Never:
            raise AttributeError(
                f"{name!r} was assigned on {self!r}, which is elsewhere. Let one of its handlers do it."
            )

    def __repr__(self) -> str:
        key = self.__dict__.get("key")
        return f"<reference to {self.__dict__[SERVICE]}{'' if key is None else '/' + key}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reference) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((self.__dict__[SERVICE], self.__dict__.get("key")))


class _NotRemote:
    """Stands in a reference's class for what only the running object has."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is not None:
            _refuse(instance, self._name)
        return getattr(definition_of(owner).actor, self._name)


def _refuse(instance: object, name: str) -> Never:
    definition: ActorDefinition = vars(type(instance))[DEFINITION]
    state = any(field.attribute == name for field in definition.fields.values())
    handlers = ", ".join(one.attribute for one in definition.handlers.values()) or "none"
    if any(one.attribute == name for one in definition.promises.values()):
        what = f"{name!r} is a promise of {instance!r}, for its own handlers only. Let a @shared handler complete it."
    elif state:
        what = f"{name!r} is state of {instance!r}, for its own handlers only. Let a @shared handler return it."
    else:
        what = f"{instance!r} has no handler {name!r}."
    raise AttributeError(f"{what} Its handlers: {handlers}.", name=name, obj=None)
