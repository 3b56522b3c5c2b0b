"""The bare limit over HTTP: uvicorn with an ASGI function that reads a body and answers."""

from __future__ import annotations

import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from benchmarks.subject import KEYS, Served, http_request

_CALLS = [http_request(f"/Counter/counter-{number}/add", b"1") for number in range(KEYS)]

Message: TypeAlias = MutableMapping[str, Any]


async def hello(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer `1` to everything."""
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"1")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"1"})


def serve() -> None:
    """Serve it as `durably serve` serves a runtime, on a free port."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            hello,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        print(f"Listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run(sockets=[listener])


subject = Served(
    command=lambda folder: [sys.executable, "-m", "benchmarks.subjects.asgi_hello"],
    requests={"call": lambda number: _CALLS[number % KEYS]},
)

if __name__ == "__main__":
    serve()
