"""What is asked on the reference to a machine: objects by their fields, and transitions."""

# pyright: reportPrivateUsage=false
# A transport's methods are hidden from users, not from references.

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from datetime import timedelta
from types import FunctionType, MethodType
from typing import Any, Final, TypeVar, cast

import msgspec

from durably.actors.actor import StateMachine
from durably.actors.handlers import SERVICE, TRANSPORT, Handler
from durably.actors.machines.info import READER, info_of
from durably.actors.machines.model import Model, prefix_of, state_name, states_of
from durably.actors.machines.queries import condition_of, field_of
from durably.actors.machines.transition import Transition
from durably.actors.machines.type_ids import TRANSITION_PREFIX, has_prefix, moment_of
from durably.actors.protocol.commands import FindObjects, Question, ReadEvents
from durably.actors.protocol.operations import CallSite, frame_above
from durably.actors.transport import Transport
from durably.actors.values.durations import moment, shown_duration
from durably.actors.values.type_checks import is_int
from durably.errors import (
    HandlerMistakeError,
    InvalidKeyError,
    TooManyObjectsError,
    UnknownObjectError,
    UnknownTargetError,
)
from durably.queries import TableQuery, check_query

S = TypeVar("S", bound=Model)
T = TypeVar("T")

MOST_TRANSITIONS = 1_000
MOST_OBJECTS = 1_000
"""In a handler, where the answer is recorded."""
EVERY_OBJECT = 1 << 40
_LEFT_OUT: Final[Any] = object()
"""In the place of an id that a caller has not given: None would be a mistake, and no question for any object."""


class OnReferences:
    """A method of what `ctx.machine(...)` gives."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = cast("FunctionType", function)
        self.__doc__ = function.__doc__

    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return self
        if TRANSPORT not in instance.__dict__:
            raise HandlerMistakeError(
                f"self.{self._function.__name__} was used in a handler. Ask through the context: "
                f"`await ctx.machine({owner.__name__}).{self._function.__name__}(...)`."
            )
        return MethodType(self._function, instance)


async def find_one(
    self: StateMachine,
    state: type[S],
    where: Callable[[S], bool] | None = None,
    /,
    *,
    id: Any = _LEFT_OUT,
    **equals: Any,
) -> S | None:
    """An object that fits, the oldest of several."""
    info = info_of(type(self))
    _check_state(info.model, state)
    if id is not _LEFT_OUT and not isinstance(id, str):
        raise TypeError(f"id= is the id of an object, not {id!r}.")
    if id is _LEFT_OUT or where is not None or equals:
        wanted: dict[str, Any] = equals if id is _LEFT_OUT else {**equals, "id": id}
        found = await find_all(self, state, where, limit=1, **wanted)
        return found[0] if found else None
    if not has_prefix(id, prefix_of(info.model)):
        return None
    version = await _reader(type(self)).of(_transport(self), self.__dict__[SERVICE], id)()
    return cast("S", version) if isinstance(version, states_of(state)) else None


async def find_one_or_raise(
    self: StateMachine,
    state: type[S],
    where: Callable[[S], bool] | None = None,
    /,
    *,
    id: Any = _LEFT_OUT,
    **equals: Any,
) -> S:
    """As `find_one`."""
    found = await find_one(self, state, where, id=id, **equals)
    if found is None:
        such = "that fits" if id is _LEFT_OUT else f"with the id {id!r}"
        raise UnknownObjectError(f"There is no {state.__name__} {such}.")
    return found


async def find_all(
    self: StateMachine,
    state: type[S],
    where: Callable[[S], bool] | None = None,
    /,
    *,
    order_by: Callable[[S], Any] | None = None,
    descending: bool = False,
    limit: int | None = None,
    after: str | None = None,
    **equals: Any,
) -> list[S]:
    """All objects that fit."""
    info = info_of(type(self))
    _check_state(info.model, state)
    if limit is not None:
        _check_limit(limit)
    most = EVERY_OBJECT if _transport(self)._name_of_handler() is None else MOST_OBJECTS
    query = TableQuery(
        info.table,
        tuple(state_name(one) for one in states_of(state)),
        condition_of(state, info.fields, where, equals),
        field_of(state, info.fields, order_by),
        descending,
        after,
        most + 1 if limit is None else min(limit, most),
    )
    _check(query)
    if after is not None and not has_prefix(after, prefix_of(info.model)):
        raise InvalidKeyError(
            f"after={after!r} is no id of {info.model.__name__}, whose ids begin with '{prefix_of(info.model)}_'."
        )
    decode = _reader(type(self)).signature.types.result.decode
    found = await _ask(self, FindObjects(query), _decode_parts)
    if limit is None and len(found) > most:
        raise TooManyObjectsError(
            f"More than {most:,} objects fit, and a handler reads at most so many at a time. Give limit=, and after= "
            "with the id of the last one for the next page."
        )
    return [cast("S", decode(bytes(one))) for one in found]


async def count(self: StateMachine, state: type[S], where: Callable[[S], bool] | None = None, /, **equals: Any) -> int:
    """How many objects fit."""
    info = info_of(type(self))
    _check_state(info.model, state)
    states = tuple(state_name(one) for one in states_of(state))
    query = TableQuery(info.table, states, condition_of(state, info.fields, where, equals))
    _check(query)
    return await _ask(self, FindObjects(query, counts=True), int)


async def get_transition(self: StateMachine, id: str, /) -> Transition:
    """A transition by its id."""
    if not isinstance(cast("Any", id), str):
        raise TypeError(f"get_transition() takes the id of a transition, tsn_…, not {id!r}.")
    found = await _ask(self, ReadEvents(info_of(type(self)).service, id=id), _decode_transitions)
    if not found:
        raise UnknownTargetError(_not_found(self, id))
    return found[0]


def _not_found(machine: StateMachine, id: str) -> str:
    name, kept_us = type(machine).__name__, info_of(type(machine)).history_us
    made_at = moment_of(id) if has_prefix(id, TRANSITION_PREFIX) else None
    if kept_us is not None and made_at is not None:
        now, _ = _transport(machine)._moment_and_bits()
        if made_at + kept_us <= now:
            return (
                f"{name} keeps transitions for {shown_duration(timedelta(microseconds=kept_us))} (history=), and "
                f"{id!r} is of {moment(made_at):%Y-%m-%d %H:%M:%S} UTC, so it has been removed. The object is as its "
                "latest transition has left it."
            )
    return f"{name} has no transition {id!r}, or keeps it no longer."


async def get_object_transitions(self: StateMachine, object: Model | str, /, *, limit: int = 100) -> list[Transition]:
    """The transitions of an object, the latest first."""
    model = info_of(type(self)).model
    if not isinstance(cast("Any", object), str | model):
        raise TypeError(f"get_object_transitions() takes a version of {model.__name__} or its id, not {object!r}.")
    _check_limit(limit)
    id = object if isinstance(object, str) else object.id
    question = ReadEvents(info_of(type(self)).service, key=id, limit=min(limit, MOST_TRANSITIONS), is_backward=True)
    return await _ask(self, question, _decode_transitions)


def _ask(machine: StateMachine, question: Question, decode: Callable[[bytes], T]) -> Coroutine[object, object, T]:
    return _transport(machine)._issue_reading(question, decode, CallSite(frame_above(1)))


def _transport(machine: StateMachine) -> Transport:
    found: Transport = machine.__dict__[TRANSPORT]
    return found


def _reader(machine: type) -> Handler[[], Any]:
    """The handler that gives the present version."""
    return cast("Handler[[], Any]", inspect.getattr_static(machine, READER))


def _check(query: TableQuery) -> None:
    try:
        check_query(query)
    except ValueError as error:
        raise TypeError(str(error)) from error


def _check_limit(limit: object) -> None:
    if not is_int(limit) or limit < 0:
        raise TypeError(f"limit= is a whole number from 0 on, not {limit!r}.")


def _check_state(model: type[Model], state: type[Any]) -> None:
    if state is not model and state not in states_of(model):
        raise TypeError(f"{state!r} is no state of {model.__name__}, and not {model.__name__} itself.")


_decode_transitions = msgspec.json.Decoder(list[Transition]).decode
_decode_parts = msgspec.json.Decoder(list[msgspec.Raw]).decode
