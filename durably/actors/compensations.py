"""`Compensations`: what undoes the steps of a handler that fails or is cancelled after some of them are done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from inspect import isawaitable
from types import TracebackType
from typing import Any, ParamSpec, Self

from durably.actors.protocol.port import Port
from durably.actors.values.error_envelopes import terminal
from durably.errors import HandlerMistakeError, NonDeterminismError

P = ParamSpec("P")


class Compensations:
    """`async with ctx.compensations() as undo:` runs what was added, last first, if the block fails for good.

        async with ctx.compensations() as undo:
            undo.add(ctx.object(Flight, trip.flight).release, trip.seat)
            await ctx.object(Flight, trip.flight).reserve(trip.seat)
            undo.add(ctx.run, "refund", self.payments.refund, trip.id)
            await ctx.run("charge", self.payments.charge, trip.id)

    It fails for good with a `TerminalError` (or a timeout, or a group of nothing else) and when the invocation is
    cancelled; the error is raised again afterwards. After any other error the invocation is tried again, and nothing is
    undone. Add the compensation before the step: a call that fails may have been carried out all the same.

    Each runs once to its end: a cancel that comes meanwhile is raised behind the last of them, and one that fails for
    the moment is tried again. A compensation that itself fails for good is logged and noted on the error, and the
    others run.
    """

    __slots__ = ("_added", "_is_noted", "_port")

    def __init__(self, port: Port) -> None:
        self._port = port
        self._added: list[Callable[[], Awaitable[Any]]] = []
        self._is_noted = False
        """The port knows that there is something to undo."""

    def add(self, action: Callable[P, Awaitable[Any]], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Have `action(*args, **kwargs)` awaited if the block fails: a call, a send, `ctx.run`, any coroutine function.

        It is not called before that.

        Raises:
            HandlerMistakeError: it is something that has begun already, or cannot be called.
        """
        self._port.check("undo.add")
        if not callable(action):
            raise HandlerMistakeError(_not_callable(action))
        if not self._is_noted:
            self._is_noted = True
            self._port.has_to_undo(1)
        self._added.append(lambda: _begun(action(*args, **kwargs), action))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if error is None:
            self._is_over()
            return
        if not fails_for_good(self._port, error):
            return  # Another attempt follows, and it has to undo as much.
        was_cancelled = await undisturbed(self._port, self._undo(error))
        self._is_over()
        if was_cancelled or terminal(error) is None:
            raise asyncio.CancelledError from error

    def _is_over(self) -> None:
        if self._is_noted:
            self._is_noted = False
            self._port.has_to_undo(-1)

    async def _undo(self, error: BaseException) -> None:
        while self._added:
            try:
                await self._added.pop()()
            except BaseException as failure:
                if terminal(failure) is None:
                    raise
                self._port.log("error", "a compensation failed", {"error": f"{type(failure).__name__}: {failure}"})
                with suppress(AttributeError):  # A frozen dataclass takes no notes.
                    error.add_note(f"A compensation failed too: {type(failure).__name__}: {failure}")


def _not_callable(action: object) -> str:
    if not isawaitable(action):
        return f"undo.add() takes a function and its arguments, not {action!r}."
    close = getattr(action, "close", None)
    if close is not None:
        close()
    return (
        "undo.add() was given something that has begun already. Give it the function and its arguments, which begin "
        "when the block fails: undo.add(ctx.object(Flight, key).release, seat), undo.add(ctx.run, name, refund, id)."
    )


def _begun(undoing: Awaitable[Any], action: object) -> Awaitable[Any]:
    """What a compensation gave when it was called, if it can be awaited; the others are still to run."""
    if isawaitable(undoing):
        return undoing
    raise HandlerMistakeError(
        f"undo.add() was given {action!r}, which is no coroutine function, so it would run again at each attempt. "
        "Give it a call, a send, a coroutine function, or ctx.run with a name and the function."
    )


def fails_for_good(port: Port, error: BaseException) -> bool:
    """Whether this error ends the block: it is terminal, or the handler is just being told to end (rule E1)."""
    if terminal(error) is not None:
        return True
    return port.takes_cancel and isinstance(error, Exception) and not isinstance(error, NonDeterminismError)


async def undisturbed(port: Port, undoing: Coroutine[Any, Any, None]) -> bool:
    """Run this to its end, even if the handler is cancelled meanwhile. Returns whether it was (rule E1).

    A failure of it fails the attempt, which is then tried again even if it was to take in a cancel.
    """
    port.compensates(1)
    task, was_cancelled = asyncio.ensure_future(undoing), False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            was_cancelled = True
    task.result()
    port.compensates(-1)
    return was_cancelled
