"""Durable promises: write-once values of a workflow, awaited by any of its handlers and completed by any.

A promise is declared like state (`paid: DurablePromise[str] = promise()`, then `self.paid`) or named at the place of
use (`ctx.promise("paid", str)`). The value is kept with the workflow, so it may be completed before anyone waits, and
waiting holds no memory.
"""

# pyright: reportPrivateUsage=false
# Only durably itself makes views.

from __future__ import annotations

from collections.abc import Coroutine, Generator, Mapping, Set
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from durably.actors.fields import DeclaredField
from durably.actors.protocol.commands import CompletePromise, GetPromise, PeekPromise
from durably.actors.protocol.operations import CallSite, frame_above
from durably.actors.protocol.port import Port
from durably.actors.values.asked_types import can_be
from durably.actors.values.descriptions import MISSING, describe, shortened
from durably.actors.values.error_envelopes import encode_failure
from durably.actors.values.serde import Serde, TypeCodec, is_serde
from durably.errors import HandlerMistakeError, TerminalError, UndecodableError, UnencodableError

T = TypeVar("T")

PEEKED = b"="
"""Begins the answer to a look at a promise that is resolved; its value follows."""

PROMISE_VIEW = "__durably_promises__"
"""Where the `self` of a workflow's attempt keeps its view of the declared promises."""


class DurablePromise(Generic[T]):
    """A write-once value of a workflow: `await` it in any of its handlers, complete it in any other.

    Each `await` of a promise that is rejected raises its `TerminalError`.
    """

    __slots__ = ("_asked", "_codec", "_declared", "_port", "name")

    def __init__(
        self, port: Port, name: str, codec: TypeCodec[T], declared: TypeCodec[Any] | None = None, asked: Any = MISSING
    ) -> None:
        """`declared` reads the declared promise of this name, if there is one and `codec` may be another.

        `asked` is the type, or the Serde, by which a promise was named instead of used as it is declared.
        """
        self._port = port
        self._codec = codec
        self._declared = declared
        self._asked = asked
        self.name = name

    def __repr__(self) -> str:
        return f"<promise {self.name}>"

    def __await__(self) -> Generator[Any, None, T]:
        """Wait until it is completed. A long wait holds no memory.

        Raises:
            TerminalError: it was rejected; or (code 410) the workflow's retention is over and nothing will complete it.
        """
        site = CallSite(frame_above(1))
        decode = self._read_declared if self._declared is self._codec else self._codec.decode
        operation = self._port.issue(GetPromise(self.name), decode, _Read("promise", self), site)
        return operation.__await__()  # type: ignore[no-any-return]

    def peek(self) -> Coroutine[object, object, T | None]:
        """The value as it is now, without waiting; None while it is not completed.

        Raises:
            TerminalError: it was rejected.
        """
        site = CallSite(frame_above(1))
        return self._port.issue(PeekPromise(self.name), self._peeked, _Read("peek of promise", self), site)

    def resolve(self, value: T, /) -> Coroutine[object, object, None]:
        """Complete it with a value.

        Raises:
            AlreadyCompletedError: it was completed before.
            UnencodableError: the value is not of the promise's type, or cannot be written.
        """
        self._port.check(f"promise {self.name!r}")
        try:
            data = self._codec.encode_exactly(value)
            if self._declared is not None and self._declared is not self._codec:
                _see_that_it_is_read(self._declared, data)
        except UnencodableError as error:
            raise UnencodableError(
                f"The promise {self.name!r} cannot be given this value: {error.message}", path=error.path
            ) from error
        return self._complete(CompletePromise(self.name, False, data), CallSite(frame_above(1)))

    def reject(self, reason: str, /, *, code: int = 500) -> Coroutine[object, object, None]:
        """Complete it with a failure: those who await it get a `TerminalError` with this message and code.

        Raises:
            AlreadyCompletedError: it was completed before.
        """
        failure = encode_failure(TerminalError(reason, code=code))
        return self._complete(CompletePromise(self.name, True, failure), CallSite(frame_above(1)))

    def _complete(self, command: CompletePromise, site: CallSite) -> Coroutine[object, object, None]:
        return self._port.issue(command, _nothing, f"completion of promise {self.name!r}", site)

    def _peeked(self, data: bytes) -> T | None:
        if not data.startswith(PEEKED):
            return None
        return self._read_declared(data[1:]) if self._declared is self._codec else self._codec.decode(data[1:])

    def _read_declared(self, data: bytes) -> T:
        """By the Serde of the declaration, which knows nothing of the type that was asked for."""
        value = self._codec.decode(data)
        if not can_be(value, self._asked):
            raise UndecodableError(f"{shortened(value)} ({type(value).__name__}) is none.")
        return value

    def refusal(self, data: bytes, error: UndecodableError) -> UndecodableError:
        """Of its value, which is of another type: it stays that for good, so the code has to follow."""
        asked = "" if self._asked is MISSING else f", and was read as {_named(self._asked)}"
        declared = self._declared
        if declared is None:
            written = _kind_of(data)
            told = f"was completed with {written}{asked}"
            way_out = f"Its first completion counts for good: let the code read it as {written}, then resume."
        else:
            own = describe(declared.annotation)
            told = f"is declared as {own}{asked}"
            way_out = f"Use the attribute of self, or ctx.promise({self.name!r}, {own})."
        return UndecodableError(
            f"The promise {self.name!r} {told}. {error.message} {way_out}", path=error.path, reason=error.reason
        )

    if not TYPE_CHECKING:  # Type checkers say so by themselves.

        def __bool__(self) -> bool:
            raise TypeError(
                f"{self!r} was tested for truth, and a promise is always true. Write `await` before it to wait for "
                "its value, or `await promise.peek()` to look at it."
            )


class PromiseField(DeclaredField):
    """What `promise()` leaves in the class: `Signup.confirmed` is the definition, `self.confirmed` the promise."""

    KIND = "promise"

    def __get__(self, instance: object | None, owner: type, /) -> Any:
        if instance is None:
            return self
        view: PromiseView | None = instance.__dict__.get(PROMISE_VIEW)
        if view is None:
            raise HandlerMistakeError(
                f"The promise self.{self.attribute} was used outside a handler, where no workflow is loaded (in the "
                "constructor?). Use it in handlers only."
            )
        return view.promise(self)

    def __set__(self, instance: object, value: Any, /) -> None:
        raise HandlerMistakeError(
            f"The promise self.{self.attribute} was assigned. Complete it with `await self.{self.attribute}.resolve("
            "value)`."
        )


def promise(*, name: str | None = None, serde: Serde[Any] | None = None) -> Any:
    """A durable promise of a workflow, declared like state: `paid: DurablePromise[str] = promise()`.

    Then `await self.paid`, `await self.paid.resolve(...)`. `name` is what it is kept under, the attribute's name if
    left out: give it when you rename the attribute. `serde` writes the value instead of the class's.
    """
    return PromiseField(name, serde)


class PromiseView:
    """The declared promises of one workflow as one attempt uses them."""

    __slots__ = ("_codecs", "_own_serdes", "_port")

    def __init__(self, port: Port, codecs: Mapping[str, TypeCodec[Any]], own_serdes: Set[str]) -> None:
        """`codecs` are by the name under which a promise is kept; `own_serdes` were declared with `serde=`."""
        self._port = port
        self._codecs = codecs
        self._own_serdes = own_serdes

    def promise(self, field: PromiseField) -> DurablePromise[Any]:
        return DurablePromise(self._port, field.name, self._codecs[field.name])

    def codec_of(self, name: str) -> TypeCodec[Any] | None:
        """What reads and writes the declared promise that is kept under this name."""
        return self._codecs.get(name)

    def own_codec_of(self, name: str) -> TypeCodec[Any] | None:
        """The same where it was declared with a Serde of its own."""
        return self._codecs[name] if name in self._own_serdes else None


class _Read:
    """A wait for a promise, or a look at it: for messages."""

    __slots__ = ("_promise", "_what")

    def __init__(self, what: str, promise: DurablePromise[Any]) -> None:
        self._what = what
        self._promise = promise

    def __str__(self) -> str:
        return f"{self._what} {self._promise.name!r}"

    def refusal(self, data: bytes, error: UndecodableError, /) -> UndecodableError:
        return self._promise.refusal(data[len(PEEKED) :] if self._what != "promise" else data, error)


def _named(asked: Any) -> str:
    return type(asked).__name__ if is_serde(asked) else describe(asked)


def _kind_of(data: bytes) -> str:
    """What a value is by itself, whatever type it was written as."""
    try:
        return describe(type(msgspec.json.decode(data)))
    except ValueError:
        return "bytes that are no JSON"


def _see_that_it_is_read(codec: TypeCodec[Any], data: bytes) -> None:
    """The first completion counts for good, so those who await it as it is declared have to be able to read it."""
    try:
        codec.decode(data)
    except UndecodableError as error:
        raise UnencodableError(
            f"It is declared with another type, and would not be read. {error.message}", path=error.path
        ) from error


def _nothing(_answer: bytes) -> None:
    return None
