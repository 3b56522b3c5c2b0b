"""The service through which events come from outside: a publication is an invocation, so it is durable, and done once.

It checks what it is given by the classes of today, as far as this runtime knows them (rule V5).
"""

# pyright: reportPrivateUsage=false
# A context's own parts are hidden from users, not from what publishes for them.

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from durably.actors.actor import Actor, Service
from durably.actors.context import Context
from durably.actors.decorators import handler
from durably.actors.event_values import GAP, EventClass, Published, checked_stream, is_event_name
from durably.actors.protocol.operations import CallSite, frame_above
from durably.actors.transport import PUBLISH, PUBLISHER
from durably.actors.values.names import checked_name
from durably.actors.values.serde import JSON, BytesSerde
from durably.errors import InvalidArgumentError

_decoder = msgspec.json.Decoder(tuple[Published, ...])


def publisher(known: Mapping[str, EventClass]) -> type[Actor]:
    """The service that publishes for those outside."""

    class Publisher(Service, name=PUBLISHER):
        """Publishes events."""

        @handler(name=PUBLISH, accepts=BytesSerde(JSON))
        async def publish(self, ctx: Context, events: bytes) -> None:
            """Publish a JSON array of events: objects with `name`, `value`, and if need be `key` and `stream`."""
            checked = _checked(events, known)
            if checked:
                await ctx._issue_publish(checked, None, {}, CallSite(frame_above(0)))

    return Publisher


def _checked(given: bytes, known: Mapping[str, EventClass]) -> tuple[Published, ...]:
    try:
        events = _decoder.decode(given)
    except msgspec.DecodeError as error:
        raise InvalidArgumentError(
            f"These are no events: {error}. Send a JSON array of objects with `name` and `value`."
        ) from error
    return tuple(_checked_one(one, known.get(one.name)) for one in events)


def _checked_one(one: Published, cls: EventClass | None) -> Published:
    checked_name(one.name, f"The name of an event is Unicode text without NUL, and not empty; {one.name!r} is not.")
    if not is_event_name(one.name):
        raise InvalidArgumentError(
            f"The name of an event is printable text in one line, and not {GAP!r}; {one.name!r} cannot be one."
        )
    checked_name(one.key, f"The key of an event is Unicode text without NUL; {one.key!r} is not.", may_be_empty=True)
    if one.stream:
        checked_stream(one.stream)
    if cls is None or one.version not in ("", cls.version):
        return one
    cls.decode(cls.version, bytes(one.value))
    return msgspec.structs.replace(one, version=cls.version)
