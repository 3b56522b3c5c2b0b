"""The bare limit of streams of events: uvicorn, and a queue in memory for each reader. Nothing is kept."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import msgspec

from benchmarks.subject import EVENT_STREAMS, Served, publication

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Reader: TypeAlias = asyncio.Queue[bytes]

READERS: defaultdict[str, set[Reader]] = defaultdict(set)
"""By key; those of all events under the empty one."""


async def events(scope: Message, receive: Receive, send: Send) -> None:
    """Publish, or read what others publish."""
    if scope["method"] == "POST":
        message = await receive()
        body = message["body"]
        while message.get("more_body", False):
            message = await receive()
            body += message["body"]
        publish(msgspec.json.decode(body))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
    else:
        await read(scope["query_string"].decode().removeprefix("key="), send)


def publish(published: list[dict[str, Any]]) -> None:
    """Each reader gets its part in one piece."""
    parts: dict[str, list[bytes]] = {"": []}
    for number, event in enumerate(published):
        frame = b"id: %d\nevent: %s\ndata: %s\n\n" % (number, event["name"].encode(), msgspec.json.encode(event))
        parts[""].append(frame)
        parts.setdefault(event["key"], []).append(frame)
    for key, frames in parts.items():
        readers = READERS[key]
        if readers:
            piece = b"".join(frames)
            for reader in readers:
                reader.put_nowait(piece)


async def read(key: str, send: Send) -> None:
    """Write what comes."""
    reader: Reader = asyncio.Queue()
    READERS[key].add(reader)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    try:
        await send({"type": "http.response.body", "body": b": \n\n", "more_body": True})
        while True:
            await send({"type": "http.response.body", "body": await reader.get(), "more_body": True})
    finally:
        READERS[key].discard(reader)


def serve() -> None:
    """Serve it as `durably serve` serves a runtime, on a free port."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0), backlog=2_048) as listener:
        config = uvicorn.Config(
            events,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        print(f"Listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run(sockets=[listener])


subject = Served(
    command=lambda folder: [sys.executable, "-m", "benchmarks.subjects.asgi_events"],
    requests=dict.fromkeys(EVENT_STREAMS, publication),
    streams=EVENT_STREAMS,
)

if __name__ == "__main__":
    serve()
