"""`Awakeable`: a value that somebody outside the handler will supply, to an id.

It is a plain value, so that it can be kept in state and sent to others. Only the handler that made it can await it, as
often as it likes and wherever asyncio takes a coroutine; being cancelled ends one wait for it, never the awakeable.
Anybody who has it, or knows its id, can resolve or reject it; the first to do so counts (rule E5).
"""

# pyright: reportPrivateUsage=false
# A task asks what it is given whether it is awaited, by an attribute of asyncio's own.

from __future__ import annotations

import asyncio
from asyncio import events
from collections.abc import Coroutine, Generator
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

import msgspec

from durably.actors.protocol.commands import CompleteAwakeable
from durably.actors.protocol.operations import CallSite, Operation, frame_above
from durably.actors.protocol.port import Port
from durably.actors.sent_values import rejection, resolution
from durably.actors.values.serde import Serde
from durably.errors import WrongContextError

T = TypeVar("T")


class Awakeable(msgspec.Struct, Generic[T], frozen=True):
    """`approval = ctx.awakeable(bool)`: give `approval.id` away, then `await approval`."""

    id: str
    """What to resolve: for other handlers, for `Runtime.resolve_awakeable()`, and for HTTP."""

    def __await__(self) -> Generator[Any, None, T]:
        operation = self._operation()
        while not operation.done():
            yield from _waiter(operation)
        result: T = operation.result()
        return result

    def resolve(self, value: T, *, serde: Serde[T] | None = None) -> Coroutine[object, object, None]:
        """Supply the value, by the Serde with which it is awaited, if it is.

        Only in a handler; elsewhere, `runtime.resolve_awakeable(awakeable.id, value)`.

        Raises:
            UnencodableError: the value cannot be written.
        """
        port = self._port("resolved")
        return issue_completion(port, resolution(self.id, value, serde), CallSite(frame_above(1)))

    def reject(self, reason: str, /, *, code: int = 500) -> Coroutine[object, object, None]:
        """Reject it: the handler that awaits it gets a `TerminalError`. Only in a handler."""
        port = self._port("rejected")
        return issue_completion(port, rejection(self.id, reason, code), CallSite(frame_above(1)))

    # What a task needs of a coroutine. It keeps nothing between the calls, so that several tasks can await it.

    def send(self, value: Any, /) -> Any:
        operation = self._operation()
        if operation.done():
            raise StopIteration(operation.result())
        waiter = _waiter(operation)
        waiter._asyncio_future_blocking = True
        return waiter

    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None, /) -> Any:
        error = value if isinstance(value, BaseException) else kind
        if isinstance(error, type):
            error = error() if value is None else error(value)
        assert isinstance(error, BaseException)
        raise error if trace is None else error.with_traceback(trace)

    def close(self) -> None:
        """Nothing is under way in it."""

    def _operation(self) -> Operation[Any]:
        operation = self._port("awaited").awakeable(self.id)
        if operation is None:
            raise WrongContextError(
                f"The awakeable {self.id} was awaited by another handler than the one that made it, or in a later "
                "execution. Let the maker await it and pass the value on; others can resolve or reject it."
            )
        return operation

    def _port(self, done: str) -> Port:
        port = getattr(events._get_running_loop(), "handler_port", None)
        if port is None:
            raise WrongContextError(
                f"The awakeable {self.id} was {done} outside a handler. Its handler awaits it; from outside, use "
                "`runtime.resolve_awakeable(id, value)` or `runtime.reject_awakeable(id, reason)`."
            )
        found: Port = port
        return found


def _waiter(operation: Operation[Any]) -> asyncio.Future[None]:
    """What one wait waits on. The operation is shared by all of them, and cancelling it would give it up (rule C5)."""
    waiter: asyncio.Future[None] = operation.get_loop().create_future()
    operation.add_done_callback(partial(_end_wait, waiter))
    return waiter


def _end_wait(waiter: asyncio.Future[None], _: asyncio.Future[Any]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def issue_completion(port: Port, command: CompleteAwakeable, site: CallSite) -> Operation[None]:
    """Journal a resolution or a rejection."""
    done = "rejection" if command.failed else "resolution"
    return port.issue_one_way(command, f"{done} of {command.id}", site)
