"""`CrossOrigin`: an application that pages of any site may use, with credentials, as they may use Restate's server.

It belongs around an ingress that has a port of its own. Where an ingress is mounted in a program, that program decides
which pages may use it: CORS headers of ours would be a way around what it protects itself by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ORIGIN: Final = b"origin"
ASKED_METHOD: Final = b"access-control-request-method"
ASKED_HEADERS: Final = b"access-control-request-headers"
READABLE: Final = b"x-restate-id, x-restate-error-source, x-durably-accepted, idempotency-expires, retry-after"
DAY_SECONDS: Final = b"86400"
CREDENTIALS: Final = (b"access-control-allow-credentials", b"true")
VARY: Final = (b"vary", b"origin, access-control-request-method, access-control-request-headers")


class CrossOrigin:
    """Answers what browsers ask before a request of another site, and tells them that its page may read the answer."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope (ASGI 3)."""
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == ORIGIN:
                    await self._answer(value, scope, receive, send)
                    return
            if scope["method"] == "OPTIONS":
                await _tell_what_is_allowed([CREDENTIALS, VARY], dict(scope["headers"]), send)
                return
        await self._application(scope, receive, send)

    async def _answer(self, origin: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        allowed = [(b"access-control-allow-origin", origin), CREDENTIALS, VARY]
        if scope["method"] == "OPTIONS":
            await _tell_what_is_allowed(allowed, dict(scope["headers"]), send)
            return

        async def send_allowed(message: Message) -> None:
            if message["type"] == "http.response.start":
                readable = (b"access-control-expose-headers", READABLE)
                message = {**message, "headers": [*message.get("headers", ()), *allowed, readable]}
            await send(message)

        await self._application(scope, receive, send_allowed)


async def _tell_what_is_allowed(allowed: list[tuple[bytes, bytes]], asked: Mapping[bytes, bytes], send: Send) -> None:
    """What is asked for is allowed: the ingress itself says what it does not take."""
    if ASKED_METHOD in asked:
        allowed += [
            (b"access-control-allow-methods", asked[ASKED_METHOD]),
            (b"access-control-allow-headers", asked.get(ASKED_HEADERS, b"*")),
            (b"access-control-max-age", DAY_SECONDS),
        ]
    await send({"type": "http.response.start", "status": 200, "headers": [*allowed, (b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
