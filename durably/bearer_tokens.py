"""`BearerTokens`: an ASGI application in front of another, which lets no request through without a token.

A token is compared in constant time, by its digest, so that neither its length nor a good beginning shows in how long
an answer takes. Several may be good at a time, so that one can be replaced without a gap. What lets through takes the
`authorization` header away: handlers do not see it, and no store keeps it. A sender without a token learns
nothing else: what is open to all asks `is_anonymous` before it says more than whether the server is well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, MutableMapping
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final

AUTHORIZATION: Final = b"authorization"
UNAUTHORIZED: Final = 401

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_ANONYMOUS: Final = "durably.is_anonymous"
"""The key of a scope whose sender brought no good token where one is asked for."""
_HEADERS: Final = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]


class BearerTokens:
    """The application for those who have one of the tokens; `open_paths`, such as one about health, are for all."""

    def __init__(self, application: Application, tokens: Iterable[str], *, open_paths: Collection[str] = ()) -> None:
        self._application = application
        self._digests = [_digest(token.encode()) for token in tokens]
        assert self._digests, "without tokens there is nothing to compare with"
        self._open_paths = frozenset(open_paths)

    def __repr__(self) -> str:
        return f"<BearerTokens in front of {self._application!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope (ASGI 3)."""
        if scope["type"] not in ("http", "websocket"):
            await self._application(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == AUTHORIZATION]
        is_good = self._is_good(given)
        if not is_good and scope["path"] not in self._open_paths:
            await _refuse(scope, send, "the token is wrong" if given else "it needs a token")
            return
        headers = [(name, value) for name, value in scope["headers"] if name != AUTHORIZATION]
        await self._application({**scope, "headers": headers, _ANONYMOUS: not is_good}, receive, send)

    def _is_good(self, given: list[bytes]) -> bool:
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        digest = _digest(token.strip())
        # All of them are compared, whichever fits.
        fits = [compare_digest(digest, known) for known in self._digests]
        return scheme.lower() == b"bearer" and any(fits)


def is_anonymous(scope: Mapping[str, Any]) -> bool:
    """Whether a request came through an open path, without a good token."""
    return bool(scope.get(_ANONYMOUS, False))


def _digest(token: bytes) -> bytes:
    return sha256(token).digest()


async def _refuse(scope: Scope, send: Send, reason: str) -> None:
    body = b'{"code":401,"message":"%s: send the header `authorization: Bearer <token>`","source":"ingress"}'
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": UNAUTHORIZED, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": body % reason.encode()})
