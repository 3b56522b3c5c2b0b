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
from durably.errors import StoreInUseError, StoreLostError, StoreUnavailableError
from durably.http_headers import ACCEPTED, NOTHING_ACCEPTED
from durably.runtime.runtime import Runtime

TRY_AGAIN_SECONDS: Final = 0.25
LOOK_SECONDS: Final = 1.0
"""How often an owner makes sure that it still is one, also without requests."""
STARTING: Final = "This server has just started, and does not know yet whose its store is."
FAILED: Final = "Its start has failed, and is tried again."
"""What those outside are told of an error that is not about the store."""


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

    def close(self, error: Exception) -> bool:
        """Returns whether the reason is news."""
        reason = str(error) if isinstance(error, StoreInUseError | StoreUnavailableError) else FAILED
        is_news = self._reason != reason
        self._reason = reason
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
        Exception: of a factory of a dependency, at the very first try. Later ones may have met the same restart.
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
        except Exception as error:
            if door.is_new and not isinstance(error, StoreInUseError):
                raise
            if door.close(error):
                is_of_store = isinstance(error, StoreInUseError | StoreUnavailableError)
                _tell(f"Standing by: {error if is_of_store else f'the start has failed with {error!r}.'}")
            await asyncio.wait({stop}, timeout=TRY_AGAIN_SECONDS)
        else:
            door.open()
            _tell(f"This server owns the store {runtime.store}.")
            return True
    return False


async def until_taken_over(runtime: Runtime, door: Door) -> None:
    """Return when somebody else owns the store, with the door closed.

    Raises:
        StoreLostError: the store is lost, and the runtime has stopped for good. A server that is started anew can stand
            by for the one that goes on with what is there.
    """
    try:
        await until_given_up(runtime)
    except StoreInUseError as error:
        door.close(error)
        _tell(f"Standing by again: {error}")


async def until_given_up(runtime: Runtime) -> None:
    """Look every second whether the store is still ours; never return.

    Raises:
        StoreInUseError: another process has taken it over.
        StoreLostError: its file or schema has gone, or is another one.
    """
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            await runtime.check_store()
        except (StoreInUseError, StoreLostError):
            raise
        except StoreUnavailableError:
            pass  # The runtime opens it again by itself.


def _tell(sentence: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(sentence)
