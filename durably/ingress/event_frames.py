"""Server-sent events as bytes: the id of each says what its reader has seen, the frame says what has happened.

An id is a vector: for each store a reader hears of, how far its log has been told, as `3f2a9c01:1742,77b0e4d2:90`. So
it holds behind a fan-out, whichever node is asked next. `EventSource` sends it back as `Last-Event-ID`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from durably.actors.event_values import GAP, decode_stored
from durably.ingress.refusals import RefusedRequestError
from durably.storage.records import EventRecord

RETRY_MS: Final = 1_000
"""After which a browser comes back that has lost its connection."""
STORE_CHARACTERS: Final = 12
_MOST_STORES: Final = 1_000

Places = Mapping[str, int]
"""How far each store has been told, by a short name of it."""


class EventData(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a reader gets as the data of an event."""

    id: str
    event: str
    version: str = ""
    stream: str
    key: str = ""
    at: int
    """When it was published, in microseconds since 1970 UTC."""
    value: msgspec.Raw


class GapData(msgspec.Struct, kw_only=True):
    """The data of the event `gap`: events between these places were forgotten before their reader came back."""

    after: int
    until: int


def store_name(store_id: str) -> str:
    """A short name of a store, which stands in ids."""
    return store_id.replace("-", "")[:STORE_CHARACTERS]


def shown_places(places: Places) -> str:
    return ",".join(f"{store}:{position}" for store, position in sorted(places.items()))


def parse_places(text: str) -> dict[str, int]:
    """
    Raises:
        RefusedRequestError: it is no id of ours.
    """
    places: dict[str, int] = {}
    for part in text.split(",") if text else ():
        store, colon, position = part.strip().partition(":")
        if not (colon and store.isalnum() and position.isascii() and position.isdigit() and len(position) < 20):
            raise RefusedRequestError(
                400, f"bad Last-Event-ID '{text[:100]}': it is the id of an event of this server, or is left out"
            )
        places[store] = int(position)
    if len(places) > _MOST_STORES:
        raise RefusedRequestError(400, "bad Last-Event-ID: it names too many stores")
    return places


def hello(places: Places) -> bytes:
    """The first frame: a reader that loses the connection before its first event knows from where on it was there."""
    return b"retry: %d\nid: %s\n\n" % (RETRY_MS, shown_places(places).encode())


def come_back(why: str) -> bytes:
    """The only frame of a stream that ends at once. A browser that got an error instead would come back no more."""
    return b": %s\nretry: %d\n\n" % (why.encode(), RETRY_MS)


def heartbeat(places: Places) -> bytes:
    """Shows proxies and readers that the connection lives, and moves the reader's id past what it has not asked for."""
    return b": \nid: %s\n\n" % shown_places(places).encode()


def gap(places: Places, after: int, until: int) -> bytes:
    return frame(places, GAP, msgspec.json.encode(GapData(after=after, until=until)))


def frame(places: Places, name: str, data: bytes) -> bytes:
    """An event, its data in one line."""
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (shown_places(places).encode(), name.encode(), data)


def data_of(event: EventRecord, *, sends_all: bool) -> bytes | None:
    """The data of an event, in one line; None: it is not for readers over HTTP. `sends_all`: what says nothing is."""
    stored = decode_stored(event.value)
    if not (sends_all if stored.sse is None else stored.sse):
        return None
    value = bytes(stored.value)
    if b"\n" in value or b"\r" in value:  # As a client wrote it.
        value = msgspec.json.format(value, indent=-1)
    return msgspec.json.encode(
        EventData(
            id=event.id,
            event=event.name,
            version=stored.version,
            stream=event.stream,
            key=event.key,
            at=event.at,
            value=msgspec.Raw(value),
        )
    )


class Received(msgspec.Struct, frozen=True):
    """A frame that another node of ours has sent."""

    places: Mapping[str, int]
    name: str
    data: bytes
    """Empty: only the places have moved."""


def parse_frames(buffer: bytes) -> tuple[list[Received], bytes]:
    """The whole frames in what another node has sent by now, and the rest.

    Raises:
        RefusedRequestError: it is none of ours.
    """
    *whole, rest = buffer.split(b"\n\n")
    return [_received(lines) for lines in whole], rest


def _received(lines: bytes) -> Received:
    parted = (line.partition(b": ") for line in lines.split(b"\n"))
    fields = {name: value for name, _, value in parted}
    places = parse_places(fields.get(b"id", b"").decode("latin-1"))
    return Received(places, fields.get(b"event", b"").decode(), fields.get(b"data", b""))
