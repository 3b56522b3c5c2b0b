"""What Restate cannot keep of durably's promises, refused with a sentence.

What a class declares, and the verbs that its handlers use on their context, are seen when the deployment is made. A
verb that hides in a function or behind a variable is refused where it is used: it raises `HandlerMistakeError`.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Final, cast

from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.actors.definition.definition import ActorDefinition
from durably.actors.protocol.commands import (
    Attach,
    AwaitResume,
    AwaitSignal,
    Cancel,
    Command,
    FindObjects,
    GetOutput,
    GetStatus,
    IdentifyRun,
    Publish,
    ReadEntries,
    ReadEvents,
    ReadListRange,
    SendSignal,
)
from durably.actors.retry import RetryPolicy
from durably.errors import DefinitionError, HandlerMistakeError

CONTINUE_AS_NEW: Final = (
    "ctx.continue_as_new() begins a new execution under the same id, which Restate does not have. End the handler, and "
    "send what is to go on as a message."
)
PATCHED: Final = (
    "ctx.patched() is not needed on Restate: an invocation goes on with the deployment that it began with. Serve the "
    "new code at another address, register that, and keep the old one until what it began has ended."
)
SIGNALS: Final = "Signals are not kept there. Use an awakeable, or a promise of a workflow."
EVENTS: Final = "Events are published in durably's own store. Send messages to the handlers that are to hear of it."
_COLLECTIONS: Final = "The entries of durable collections are kept in durably's own store. Use a list or dict as state."
_OUTPUT: Final = (
    "Restate tells a handler no outcome before it is there. Wait for it with `result()`, or ask outside handlers."
)
_STATUS: Final = "Restate tells a handler no status of others. Ask its admin API outside handlers."
MODELS: Final = "Models are queried in durably's own store."

REFUSED_COMMANDS: Final[Mapping[type[Command], str]] = {
    AwaitSignal: f"ctx.signal() was used. {SIGNALS}",
    SendSignal: f"A signal was sent. {SIGNALS}",
    AwaitResume: "A handler waits for a person by durably's own means. Use an awakeable.",
    GetStatus: f"status() was used. {_STATUS}",
    GetOutput: f"output() was used. {_OUTPUT}",
    IdentifyRun: "A handler asked for the id of a run of a workflow, which Restate does not tell.",
    Publish: f"ctx.publish() was used. {EVENTS}",
    ReadEvents: f"The events of a model were read. {MODELS}",
    FindObjects: f"Objects of a model were searched. {MODELS}",
    ReadEntries: f"A durable collection was read. {_COLLECTIONS}",
    ReadListRange: f"A durable collection was read. {_COLLECTIONS}",
}
"""What a handler may ask a runtime for, and not a Restate cluster; with the reason, and what to do instead."""
ATTACH: Final = (
    "attach() was used in a handler. Restate's SDK attaches to an invocation by its id alone: keep the id of the "
    "message (`sent = await ....send(...)`, `sent.id`), and wait with `ctx.invocation(id).result()`."
)

UNKNOWN_ID: Final = "(an id that was not told)"
"""Of a message whose id Restate has not told: an atomic handler's, or one whose await a cancel has ended."""
NOT_TOLD: Final = (
    "an invocation was used whose id is not known: an atomic handler sent it, which Restate hears of when the handler "
    "has ended, or a cancel came while its id was awaited."
)

_REFUSED_VERBS: Final[Mapping[str, str]] = {
    "continue_as_new": CONTINUE_AS_NEW,
    "machine": MODELS,
    "patched": PATCHED,
    "publish": EVENTS,
    "signal": SIGNALS,
}
_LOADS_NAME: Final = ("LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF")
_LOADS_ATTRIBUTE: Final = ("LOAD_ATTR", "LOAD_METHOD")


def refuse_command(command: Command) -> None:
    """
    Raises:
        HandlerMistakeError: Restate has nothing that does it.
    """
    why = REFUSED_COMMANDS.get(type(command))
    if isinstance(command, Attach | Cancel) and command.invocation_id == UNKNOWN_ID:
        why = NOT_TOLD
    if why is None and isinstance(command, Attach) and command.invocation_id is None:
        why = ATTACH
    if why is not None:
        raise HandlerMistakeError(f"On Restate: {why}")


def refuse_class(definition: ActorDefinition) -> None:
    """
    Raises:
        DefinitionError: the class is of a kind, or has an option, that Restate cannot keep.
    """
    name = definition.name
    if hasattr(definition.actor, "__durably_machine__"):
        raise _refused(name, f"is a model. {MODELS} Write a VirtualObject.")
    if definition.options.ttl_us is not None:
        raise _refused(name, "has ttl=, and Restate forgets no state by itself. Leave it out, and clear what is old.")


def refuse_actor(actor: BoundActor) -> None:
    """
    Raises:
        DefinitionError: the class declares, or a handler of it uses, what Restate cannot keep.
    """
    name = actor.definition.name
    if actor.keeps_entries:
        field = next(iter(actor.large_fields()))
        raise _refused(name, f"has the field {field!r}, which is not loaded with its object. {_COLLECTIONS}")
    if actor.asked is not None:
        raise _refused(name, "needs a dependency that is made for each activation, which Restate does not have.")
    for handler_name, handler in actor.handlers.items():
        _refuse_handler(actor.definition, handler_name, handler)


def refuse_policy(retry: RetryPolicy | None, where: str) -> None:
    """
    Raises:
        DefinitionError: Restate cannot follow it.
    """
    if retry is not None and retry.max_duration is not None:
        raise _refused(
            where,
            "has a retry policy with max_duration, and Restate counts the attempts of an invocation, not their time. "
            "Use max_attempts; the policy of a ctx.run may have both.",
        )


def _refuse_handler(definition: ActorDefinition, name: str, handler: BoundActorHandler) -> None:
    where = f"{definition.name}/{name}"
    if handler.subscription is not None:
        raise _refused(where, f"subscribes to events. {EVENTS}")
    if definition.handlers[name].limit is not None:
        raise _refused(where, "has limit=, and Restate does not know durably's limits. Leave it out.")
    refuse_policy(handler.retry, where)
    for verb, line in _verbs_of_context(handler.function.__code__):
        raise _refused(where, f"uses ctx.{verb} in line {line}. {_REFUSED_VERBS[verb]}")


def _verbs_of_context(code: CodeType) -> Iterator[tuple[str, int]]:
    """The refused verbs that the code, and that of functions in it, uses on the handler's second parameter."""
    yield from _verbs_of(code, code.co_varnames[1])


def _verbs_of(code: CodeType, context: str) -> Iterator[tuple[str, int]]:
    loaded: object = None
    for instruction in dis.get_instructions(code):
        is_attribute = instruction.opname in _LOADS_ATTRIBUTE and loaded == context
        if is_attribute and instruction.argval in _REFUSED_VERBS:
            position = instruction.positions
            yield instruction.argval, (position and position.lineno) or code.co_firstlineno
        loaded = _name_loaded(instruction)
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and context not in constant.co_varnames[: constant.co_argcount]:
            yield from _verbs_of(constant, context)


def _name_loaded(instruction: dis.Instruction) -> object:
    """The variable that it leaves on top of the stack; None where it leaves none."""
    if not instruction.opname.startswith(_LOADS_NAME):
        return None
    # Python 3.13 and later load two variables at once.
    loaded: object = instruction.argval
    return cast("tuple[object, ...]", loaded)[-1] if isinstance(loaded, tuple) else loaded


def _refused(where: str, why: str) -> DefinitionError:
    return DefinitionError(f"{where} {why} docs/restate.md lists what a Restate cluster does not do.")
