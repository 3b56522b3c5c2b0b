"""`action_context()`: what an action of `ctx.run` may know of itself while it runs, on the loop or in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from typing import Any, TypeAlias

from durably.actors.protocol.request import Request
from durably.errors import WrongContextError

Write: TypeAlias = Callable[["ActionContext", str, str, Mapping[str, Any]], None]
"""Writes a line of an attempt of an action: with a level, an event and fields."""


class GivenUp:
    """Whether anybody still waits for the attempt: it is set when the handler has given it up or has ended, when its
    time limit has passed, or when the runtime stops. An action in a thread has to look, because nothing can end it.
    """

    __slots__ = ("_event", "_is_set", "_waiting")

    def __init__(self) -> None:
        # Each attempt of each action has one, and hardly any waits: what waiting takes is made for those that do.
        self._is_set = False
        self._event: threading.Event | None = None
        self._waiting: tuple[asyncio.Future[None], ...] = ()

    def is_set(self) -> bool:
        return self._is_set

    async def wait(self) -> None:
        """Wait until it is set; on the event loop that the action runs on."""
        if not self._is_set:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting += (waiter,)
            await waiter

    def wait_in_thread(self, seconds: float | None = None) -> bool:
        """Block the thread until it is set, for so long at most; whether it is."""
        with _making_event:
            event = self._event
            if event is None:
                event = self._event = threading.Event()
        # `set` writes `_is_set` first and then looks for the event, so one of the two sees what the other has written.
        return self._is_set or event.wait(seconds)

    def set(self) -> None:
        """Only the runtime does."""
        self._is_set = True
        if self._event is not None:
            self._event.set()
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)


_making_event = threading.Lock()
"""Held for a moment: the threads of one action wait for the same event."""


class ActionLog:
    """Lines with fields, bound to the action. An action is never replayed, so each is written when it is said."""

    __slots__ = ("_context", "_write")

    def __init__(self, context: ActionContext, write: Write) -> None:
        self._context = context
        self._write = write

    def debug(self, event: str, /, **fields: Any) -> None:
        self._write(self._context, "debug", event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        self._write(self._context, "info", event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        self._write(self._context, "warning", event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        self._write(self._context, "error", event, fields)


class ActionContext:
    """One attempt of an action."""

    __slots__ = ("_write", "attempt", "given_up", "name", "request")

    def __init__(self, name: str, attempt: int, request: Request, write: Write) -> None:
        self.name = name
        """What `ctx.run` was told."""
        self.attempt = attempt
        """Counted from 1, in this process."""
        self.request = request
        """What started the invocation; `request.id` with `name` makes an idempotency key for others."""
        self.given_up = GivenUp()
        self._write = write

    @property
    def log(self) -> ActionLog:
        return ActionLog(self, self._write)

    def __repr__(self) -> str:
        return f"<attempt {self.attempt} of the action {self.name!r}>"

    def enter(self) -> Token[ActionContext | None]:
        """From now on it is the one that `action_context()` gives; only the runtime does that."""
        return _current.set(self)

    @staticmethod
    def leave(token: Token[ActionContext | None]) -> None:
        _current.reset(token)


_current: ContextVar[ActionContext | None] = ContextVar("durably_action", default=None)


def action_context() -> ActionContext:
    """The action that runs: its log, its request, the number of this attempt, and whether it has been given up.

    Raises:
        WrongContextError: no action runs here.
    """
    found = _current.get()
    if found is None:
        raise WrongContextError(
            "action_context() was called where no action of `ctx.run` runs. In a handler, use its context: `ctx.log`, "
            "`ctx.request`."
        )
    return found
