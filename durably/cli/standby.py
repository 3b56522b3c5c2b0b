"""`Door`: the way in of a server that may not own its store yet, or any more (`durably serve --standby`).

While the door is closed, each request gets 503 with the address of the process that serves instead, if that is known.
Where a token is needed, a sender without one hears no more than the 503.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final

from rich.console import Console
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from durably.bearer_tokens import is_anonymous
from durably.errors import StoreInUseError, StoreUnavailableError
from durably.http_headers import ACCEPTED, NOTHING_ACCEPTED
from durably.runtime.runtime import Runtime

TRY_AGAIN_SECONDS: Final = 0.25
LOOK_SECONDS: Final = 1.0
"""How often an owner makes sure that it still is one, also without requests."""
STARTING: Final = "This server has just started, and does not know yet whose its store is."


class Door:
    """Lets requests in while the store is ours."""

    def __init__(self) -> None:
        self._reason: str | None = STARTING
        self._holder = ""

    @property
    def is_new(self) -> bool:
        """Whether the store has not been seen yet, neither ours nor another's."""
        return self._reason == STARTING

    def open(self) -> None:
        self._reason = None

    def close(self, error: StoreInUseError | StoreUnavailableError) -> bool:
        """Returns whether the reason is news."""
        is_news = self._reason != str(error)
        self._reason = str(error)
        self._holder = error.address if isinstance(error, StoreInUseError) else ""
        return is_news

    def of(self, application: ASGIApp) -> ASGIApp:
        """An application behind this door."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if self._reason is None or scope["type"] != "http":
                await application(scope, receive, send)
            else:
                await self._refusal("" if is_anonymous(scope) else self._reason)(scope, receive, send)

        return guarded

    def _refusal(self, reason: str) -> JSONResponse:
        said = " ".join(filter(None, ("This server stands by.", reason, "Nothing was accepted.")))
        body: dict[str, Any] = {"code": 503, "message": said}
        if reason and self._holder:
            body["metadata"] = {"holder": self._holder}
        return JSONResponse(body, status_code=503, headers={"retry-after": "1", ACCEPTED: NOTHING_ACCEPTED})


async def stand_by(runtime: Runtime, door: Door, stop: asyncio.Future[None], stack: AsyncExitStack) -> bool:
    """Wait until the runtime owns its store and runs, and open the door; False: a signal came first.

    Raises:
        StoreUnavailableError: the store cannot be reached at the very first try, so its URL may be wrong.
    """
    while not stop.done():
        starting = asyncio.create_task(stack.enter_async_context(runtime))
        first: set[asyncio.Future[Any]] = {starting, stop}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
            return False
        try:
            await starting
        except (StoreInUseError, StoreUnavailableError) as error:
            if door.is_new and isinstance(error, StoreUnavailableError):
                raise
            if door.close(error):
                _tell(f"Standing by: {error}")
            await asyncio.wait({stop}, timeout=TRY_AGAIN_SECONDS)
        else:
            door.open()
            _tell(f"This server owns the store {runtime.store}.")
            return True
    return False


async def until_taken_over(runtime: Runtime, door: Door) -> None:
    """Return when somebody else owns the store, with the door closed."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            await runtime.check_store()
        except StoreInUseError as error:
            door.close(error)
            _tell(f"Standing by again: {error}")
            return
        except StoreUnavailableError:
            pass  # The runtime opens it again by itself.


def _tell(sentence: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(sentence)
