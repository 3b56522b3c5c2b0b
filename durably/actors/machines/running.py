"""A transition that runs: an exclusive handler of the virtual object behind a machine (rule P5).

It checks the state, runs the method, and makes what that returns the object's version. The version, the event that
tells of the transition and what the method has sent are one transition of the log; where the method fails, nothing is.
"""

# pyright: reportPrivateUsage=false
# A machine's own parts are hidden from users, not from what runs it.

from __future__ import annotations

import re
from typing import Any, Final, cast

import msgspec

from durably.actors.context import Context, ObjectContext
from durably.actors.machines.definitions import NOTE, AnyDefinition, wrong_state
from durably.actors.machines.info import VERSION, info_of
from durably.actors.machines.model import Model, model_of, prefix_of, state_name
from durably.actors.machines.transition import Transition
from durably.actors.machines.type_ids import TRANSITION_PREFIX, has_prefix, type_id
from durably.actors.protocol.commands import Publish
from durably.actors.protocol.operations import CallSite, frame_above
from durably.actors.values.durations import moment_us
from durably.errors import (
    HandlerMistakeError,
    InvalidArgumentError,
    InvalidKeyError,
    InvalidTransitionError,
    UnknownObjectError,
)
from durably.http_headers import TRIGGERED_BY

_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""In JSON: not behind a backslash that stands for itself."""


class TransitionContext(Context):
    """What a transition may do: everything of `Context`. The object changes by what the transition returns."""

    __slots__ = ()


async def run_transition(self: Any, ctx: ObjectContext, one: AnyDefinition, data: msgspec.Struct) -> Any:
    """The new version, and the transition that has led to it.

    Raises:
        InvalidTransitionError: the object is in another state.
        UnknownObjectError: there is no such object.
        InvalidKeyError: there can be none, since the id has another prefix.
    """
    before: Model | None = getattr(self, VERSION)
    if not one.sources:
        if before is not None:
            raise InvalidTransitionError(f"{ctx.key} is there already, and {one.attribute} makes an object.")
        _check_id(ctx.key, one.targets[0])
    elif before is None:
        _check_id(ctx.key, one.sources[0])
        raise UnknownObjectError(f"There is no object {ctx.key}.")
    elif not isinstance(before, one.sources):
        raise InvalidTransitionError(wrong_state(one, before))
    given = () if before is None else (before,)
    after = await one.function(self, TransitionContext(ctx._port, ctx.handler), *given, **one.arguments_of(data))
    after = msgspec.structs.replace(cast("Any", _checked(one, ctx.key, after)), id=ctx.key)
    if _NUL.search(msgspec.json.encode(after)) is not None:
        raise InvalidArgumentError(f"{one.attribute} of {ctx.key}: a field has a NUL character, which no query finds.")
    made = _transition(ctx, one, before, after, data)
    setattr(self, VERSION, after)
    stream = _stream_of(self)
    event = Publish(stream, ctx.key, made.name, made.id, ctx._port.at(), msgspec.json.encode(made))
    await ctx._port.issue_one_way(event, f"transition {made.name}", CallSite(frame_above(0)))
    return after, made


def _stream_of(machine: object) -> str:
    """Where the transitions of a machine are published."""
    return info_of(type(machine)).service


def _checked(one: AnyDefinition, id: str, after: Any) -> Model:
    """What the method of a transition has returned."""
    if not isinstance(after, one.targets):
        raise HandlerMistakeError(
            f"{one.attribute} returned {after!r}, and its annotation says "
            f"{' or '.join(target.__name__ for target in one.targets)}."
        )
    if after.id not in ("", id):
        raise HandlerMistakeError(f"{one.attribute} of {id} returned a version of {after.id}, another object.")
    return after


def _transition(
    ctx: ObjectContext, one: AnyDefinition, before: Model | None, after: Model, data: msgspec.Struct
) -> Transition:
    arguments: dict[str, Any] = msgspec.to_builtins(data)
    note = arguments.pop(NOTE, None)
    return Transition(
        id=type_id(TRANSITION_PREFIX, moment_us(ctx.now()), ctx.uuid().int),
        name=one.name,
        object_id=after.id,
        source=None if before is None else state_name(type(before)),
        target=state_name(type(after)),
        at=ctx.now(),
        note=note,
        arguments=arguments,
        invocation_id=ctx.request.id,
        triggered_by=ctx.request.headers.get(TRIGGERED_BY, ""),
    )


def _check_id(id: str, state: type[Model]) -> None:
    model = model_of(state)
    prefix = prefix_of(model)
    if not has_prefix(id, prefix):
        raise InvalidKeyError(
            f"{id!r} is no id of {model.__name__}: such an id is '{prefix}_', and behind it what tells one object from "
            "another."
        )
