"""`RefusedRequestError`: what ends a request that the ingress itself refuses."""

from __future__ import annotations

from collections.abc import Iterable


class RefusedRequestError(Exception):
    """A request that the ingress itself refuses; nothing was accepted."""

    def __init__(self, status: int, message: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = tuple(headers)
        self.message = message
