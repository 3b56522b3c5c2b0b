"""`Compensations`: what undoes the steps of a handler that fails or is cancelled after some of them are done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, ParamSpec, Self

from durably.actors.protocol.port import Port
from durably.actors.values.error_envelopes import terminal

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

    A compensation that itself fails for good is logged and noted on the error, and the others run.
    """

    __slots__ = ("_added", "_port")

    def __init__(self, port: Port) -> None:
        self._port = port
        self._added: list[Callable[[], Awaitable[Any]]] = []

    def add(self, action: Callable[P, Awaitable[Any]], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Have `action(*args, **kwargs)` awaited if the block fails: a call, a send, `ctx.run`, any coroutine function.

        It is not called before that.
        """
        self._port.check("undo.add")
        self._added.append(lambda: action(*args, **kwargs))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if error is None or terminal(error) is None:
            return
        while self._added:
            try:
                await self._added.pop()()
            except BaseException as failure:
                if terminal(failure) is None:
                    raise
                self._port.log("error", "a compensation failed", {"error": f"{type(failure).__name__}: {failure}"})
                with suppress(AttributeError):  # A frozen dataclass takes no notes.
                    error.add_note(f"A compensation failed too: {type(failure).__name__}: {failure}")
