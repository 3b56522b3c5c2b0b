"""Consumers: virtual objects beside a machine, which get its transitions as messages (rule P5).

Each consumer is a class of its own, with an object, and so a mailbox, for each object of the model: a consumer calls
the object, and would wait for itself in the object's own.
"""

from __future__ import annotations

import types
from typing import Any

from durably.actors.actor import Actor, VirtualObject
from durably.actors.companions import constructor_beside, host_of
from durably.actors.context import ObjectContext
from durably.actors.handlers import Handler
from durably.actors.machines.abstract import members_of
from durably.actors.machines.definitions import ConsumerDefinition
from durably.actors.machines.info import QUESTIONS, info_of
from durably.actors.machines.transition import Transition
from durably.actors.subscriptions import Subscription
from durably.actors.values.descriptions import named
from durably.actors.values.serde import JsonSerde
from durably.errors import ConsumerFailedError, DefinitionError, TerminalError


def consumers_of(machine: type[Any]) -> list[type[Actor]]:
    """The classes of the consumers of a machine.

    Raises:
        DefinitionError: two have one name.
    """
    consumers = list(members_of(machine, ConsumerDefinition))
    names = [one.name for one in consumers]
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(
                f"{named(machine)} has two consumers named {name!r}, which have one place in history."
            )
    for one in consumers:
        if one.name == QUESTIONS:
            raise DefinitionError(f"{named(machine)} has a consumer named {QUESTIONS!r}, which its front is called.")
        for definition in one.on:
            if not any(vars(base).get(definition.attribute) is definition for base in machine.__mro__):
                raise DefinitionError(
                    f"The consumer {one.name} of {named(machine)} hears of {definition!r}, which is another machine's. "
                    "Let that machine have the consumer."
                )
    return [_consumer(machine, one) for one in consumers]


def _consumer(machine: type[Any], one: ConsumerDefinition) -> type[Actor]:
    info = info_of(machine)

    async def consume(self: VirtualObject, ctx: ObjectContext, transition: Transition) -> None:
        host = host_of(self)
        version: Any = await ctx.machine(machine).find_one(info.model, id=transition.object_id)
        if version is not None:  # Else it was deleted meanwhile.
            try:
                await one.function(host, ctx, version, transition)
            except TerminalError as error:  # No caller would hear of it, and the transition would be lost.
                raise ConsumerFailedError(
                    f"The consumer {one.name} failed for good on {transition.name} of {transition.object_id}: "
                    f"{error.message} Mend the cause and resume it, or cancel it to go on without."
                ) from error

    consume.__annotations__ = {"ctx": "ObjectContext", "transition": Transition, "return": None}
    consume.__qualname__ = f"{machine.__qualname__}.{one.attribute}"
    consume.__module__ = machine.__module__
    consume.__doc__ = one.__doc__
    handler: Handler[..., Any] = Handler(consume, shared=False)
    handler.subscription = Subscription(
        stream=info.service, names=frozenset(definition.name for definition in one.on), start=one.start
    )
    namespace: dict[str, Any] = {
        "__module__": machine.__module__,
        "__qualname__": f"{machine.__qualname__}.{one.name}",
        "__doc__": one.__doc__,
        "__init__": constructor_beside(machine),
        "consume": handler,
    }
    options = {"name": f"{info.service}.{one.name}", "private": True, "serde": JsonSerde}
    return types.new_class(one.name, (VirtualObject,), options, lambda body: body.update(namespace))
