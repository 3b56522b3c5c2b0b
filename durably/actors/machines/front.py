"""The front of a machine for those outside: a service that asks the store for them, as `Orders.questions` over HTTP.

What comes from outside is not trusted: it asks for the machine's own objects and transitions, by fields that it has.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import msgspec

from durably.actors.actor import Actor, Service
from durably.actors.context import Context
from durably.actors.definition.definition import definition_of
from durably.actors.handlers import Handler
from durably.actors.machines.info import QUESTIONS, MachineInfo, info_of
from durably.actors.machines.questions import MOST_OBJECTS, MOST_TRANSITIONS
from durably.actors.protocol.commands import FindObjects, Question, ReadEvents
from durably.actors.protocol.operations import CallSite, frame_above
from durably.actors.values.serde import JSON, BytesSerde
from durably.errors import InvalidArgumentError
from durably.queries import AllOf, AnyOf, Compare, Condition, FieldName, Not, OneOf, check_query

ASK = "ask"


def front_name(service: str) -> str:
    """What the front of a machine is called on the wire."""
    return f"{service}.{QUESTIONS}"


def front_of(machine: type[Any]) -> type[Actor]:
    """The service that asks for those outside."""
    info = info_of(machine)

    async def ask(self: Service, ctx: Context, question: bytes) -> bytes:
        """Objects that fit a query, how many they are, or transitions; the client of durably knows how to ask."""
        wanted = _checked(info, question)
        site = CallSite(frame_above(0))
        answer: bytes = await ctx._issue_reading(wanted, bytes, site)  # pyright: ignore[reportPrivateUsage]
        return answer

    ask.__annotations__ = {"ctx": "Context", "question": bytes, "return": bytes}
    ask.__qualname__ = f"{machine.__qualname__}.{QUESTIONS}"
    ask.__module__ = machine.__module__
    serde = BytesSerde(JSON)
    handler: Handler[..., Any] = Handler(ask, shared=False, accepts=serde, returns=serde)
    namespace: dict[str, Any] = {
        "__module__": machine.__module__,
        "__qualname__": f"{machine.__qualname__}.{QUESTIONS}",
        "__doc__": f"Questions about {info.model.__name__} objects and their transitions.",
        ASK: handler,
    }
    return types.new_class(QUESTIONS, (Service,), _like(machine, info), lambda body: body.update(namespace))


def _like(machine: type[Any], info: MachineInfo) -> dict[str, Any]:
    """It lets in whom the machine lets in."""
    options = definition_of(machine).options
    return {"name": front_name(info.service), "private": options.private, "middleware": options.middleware}


_decoder: msgspec.json.Decoder[Question] = msgspec.json.Decoder(ReadEvents | FindObjects)


def _checked(info: MachineInfo, given: bytes) -> Question:
    """A question about this machine and nothing else.

    Raises:
        InvalidArgumentError: it is none.
    """
    try:
        question = _decoder.decode(given)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidArgumentError(f"This is no question: {error}. Ask by durably.client.Client.machine().") from error
    if isinstance(question, ReadEvents):
        limit = max(0, min(question.limit, MOST_TRANSITIONS))
        return msgspec.structs.replace(question, stream=info.service, limit=limit)
    query = question.query
    known = {*info.fields.values()}
    asked = [*_fields_in(query.condition), *(() if query.order is None else (query.order,))]
    for field in asked:
        if field not in known:
            names = ", ".join(sorted(one.name for one in known))
            raise InvalidArgumentError(f"There is no field {field.name!r} of this kind. There are: {names}.")
    limit = max(0, min(query.limit, MOST_OBJECTS))
    try:
        check_query(query)
    except ValueError as error:
        raise InvalidArgumentError(f"This cannot be asked: {error}") from error
    return FindObjects(msgspec.structs.replace(query, table=info.table, limit=limit), question.counts)


def _fields_in(condition: Condition | None) -> Iterator[FieldName]:
    match condition:
        case None:
            return
        case Compare() | OneOf():
            yield condition.field
        case AllOf() | AnyOf():
            for part in condition.parts:
                yield from _fields_in(part)
        case Not():
            yield from _fields_in(condition.part)
