"""References to handlers elsewhere: what `ctx.object(Cart, "mary").add_ticket` is.

A reference describes a message and gives it to its transport; it does nothing itself, so that it is the same in a
handler, in the process that runs the runtime, and over HTTP. Everything that talks is issued when it is called, and
awaited.
"""

# pyright: reportPrivateUsage=false
# A transport's methods are hidden from users, not from references.

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

import msgspec

from durably.actors.definition.signature import HandlerSignature
from durably.actors.headers import ForwardHeaders, Forwarding, forwarding, plain_headers
from durably.actors.protocol.operations import CallSite, frame_above
from durably.actors.transport import Delay, Invocation, Outgoing, Transport
from durably.actors.values.durations import Duration, delay_us, duration_us, moment_us
from durably.actors.values.names import checked_name
from durably.errors import HandlerMistakeError

P = ParamSpec("P")
R = TypeVar("R")


class Target(msgspec.Struct, Generic[R], frozen=True):
    """A handler of one object or service, with the options of the next message."""

    transport: Transport
    service: str
    key: str | None
    handler: str
    signature: HandlerSignature
    headers: dict[str, str]
    idempotency_key: str | None = None
    timeout_us: int | None = None
    forwarding: Forwarding | None = None
    is_run: bool = False
    """The handler is the `run` of a workflow, of which there is one invocation for each id."""

    def __str__(self) -> str:
        key = "" if self.key is None else f"/{self.key}"
        return f"{self.service}{key}/{self.handler}"

    def outgoing(self, argument: bytes) -> Outgoing[R]:
        types = self.signature.types
        return Outgoing(
            self.service, self.key, self.handler, argument, types.result.decode,
            self.headers, self.idempotency_key, self.timeout_us, False, self.forwarding,
            self.is_run or self.idempotency_key is not None, types.arguments,
        )  # fmt: skip


class BoundHandler(Generic[P, R]):
    """One handler of one reference, with the handler's own parameters.

    Options come before the parentheses: `cart.checkout.options(idempotency_key="k").send()`.
    """

    __slots__ = ("_target",)

    def __init__(self, target: Target[R], /) -> None:
        self._target = target

    def __repr__(self) -> str:
        return f"<handler {self._target}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, object, R]:
        """Call, and wait for the result.

        Raises:
            TerminalError: the handler failed; its own class and fields.
            UnknownTargetError: there is no such handler.
            InvalidArgumentError: the arguments do not fit the handler that runs.
        """
        target = self._target
        argument = target.signature.types.arguments.encode(args, kwargs)
        return target.transport._issue_call(target.outgoing(argument), CallSite(frame_above(1)))

    def send(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, object, Invocation[R]]:
        """Send a message and go on. In a handler the await never waits; outside it ends when the message is durable."""
        target = self._target
        argument = target.signature.types.arguments.encode(args, kwargs)
        return target.transport._issue_send(target.outgoing(argument), None, CallSite(frame_above(1)))

    def attach(self) -> Coroutine[object, object, R]:
        """Wait for the workflow, or for the invocation with `options(idempotency_key=...)`, starting none.

        Raises:
            UnknownTargetError: there is none.
        """
        target = self._target
        self._check_names_one("attach", "result")
        return target.transport._issue_attach(target.outgoing(b""), CallSite(frame_above(1)))

    def output(self) -> Coroutine[object, object, R]:
        """The outcome of the invocation that `attach` would wait for, without waiting.

        Raises:
            NotReadyError: there is none yet.
            UnknownTargetError: there is no such invocation.
        """
        target = self._target
        self._check_names_one("output", "output")
        return target.transport._issue_output(target.outgoing(b""), CallSite(frame_above(1)))

    def _check_names_one(self, asked: str, instead: str) -> None:
        target = self._target
        if target.idempotency_key is None and not target.is_run:
            raise TypeError(
                f"{asked}() of {target} does not say of which invocation. Write .options(idempotency_key=...)"
                f".{asked}(), or use caller.invocation(id, type).{instead}()."
            )

    @overload
    def after(self, delay: Duration, /) -> DelayedHandler[P, R]: ...
    @overload
    def after(
        self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> DelayedHandler[P, R]: ...
    def after(
        self, *delay: Duration, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> DelayedHandler[P, R]:
        """The handler a while from now: it can be sent, not called. A bare number is seconds."""
        microseconds = delay_us("after", delay, days, hours, minutes, seconds)
        return DelayedHandler(self._target, Delay(after_us=microseconds))

    def at(self, when: datetime, /) -> DelayedHandler[P, R]:
        """The handler at a moment, given as an aware datetime: it can be sent, not called."""
        return DelayedHandler(self._target, Delay(at_us=moment_us(when)))

    def options(
        self,
        *,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Duration | None = None,
        forward_headers: ForwardHeaders | None = None,
    ) -> BoundHandler[P, R]:
        """The same handler, with options for the next message; what is left out stays as it was.

        With an `idempotency_key`, repeating the message joins the first one. `timeout` bounds the whole invocation,
        from acceptance to outcome: a timedelta or seconds. `forward_headers` says which headers of the invocation that
        sends it go on with this message, and overrides the class and the runtime: all (True), none (False), or those
        of these names. `headers` win over them.
        """
        target = self._target
        if idempotency_key is not None and target.is_run:
            raise TypeError(
                f"{target} runs once for each id of the workflow, so the id is its idempotency key already. Leave "
                "idempotency_key= out."
            )
        return self._with(_with_options(target, idempotency_key, headers, timeout, forward_headers))

    def _with(self, target: Target[R]) -> BoundHandler[P, R]:
        return BoundHandler(target)


class OwnHandler(BoundHandler[P, R]):
    """`self.handler` in a handler: `await self.remind.after(days=1).send()`. It is sent, never called."""

    __slots__ = ("_refusal",)

    def __init__(self, target: Target[R], refusal: str, /) -> None:
        super().__init__(target)
        self._refusal = refusal
        """Why it is not called."""

    if not TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            raise HandlerMistakeError(self._refusal)

    def _with(self, target: Target[R]) -> BoundHandler[P, R]:
        return OwnHandler(target, self._refusal)


class DelayedHandler(Generic[P, R]):
    """`ref.handler.after(...)` or `.at(...)`: it can only be sent."""

    __slots__ = ("_delay", "_target")

    def __init__(self, target: Target[R], delay: Delay, /) -> None:
        self._target = target
        self._delay = delay

    def __repr__(self) -> str:
        return f"<delayed handler {self._target}>"

    if not TYPE_CHECKING:  # Type checkers say so by themselves.

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            raise TypeError(
                f"{self._target} can be sent for later, not called: no caller waits that long for an answer. Put "
                ".send before the arguments, as in `await reference.handler.after(days=3).send(...)`."
            )

    def options(
        self,
        *,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Duration | None = None,
        forward_headers: ForwardHeaders | None = None,
    ) -> DelayedHandler[P, R]:
        """The same, with options for the message, as before the delay: `options(...).after(...)`."""
        target = _with_options(self._target, idempotency_key, headers, timeout, forward_headers)
        return DelayedHandler(target, self._delay)

    def send(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, object, Invocation[R]]:
        """Have the message accepted now; it joins the mailbox when it is due, behind what is there (rule C6)."""
        target = self._target
        argument = target.signature.types.arguments.encode(args, kwargs)
        return target.transport._issue_send(target.outgoing(argument), self._delay, CallSite(frame_above(1)))


def _with_options(
    target: Target[R],
    idempotency_key: str | None,
    headers: Mapping[str, str] | None,
    timeout: Duration | None,
    forward_headers: ForwardHeaders | None,
) -> Target[R]:
    """What is left out stays as it was."""
    return msgspec.structs.replace(
        target,
        idempotency_key=target.idempotency_key if idempotency_key is None else _idempotency_key(idempotency_key),
        headers=target.headers if headers is None else plain_headers(headers),
        timeout_us=target.timeout_us if timeout is None else duration_us(timeout, "options(timeout=...)"),
        forwarding=target.forwarding
        if forward_headers is None
        else forwarding(forward_headers, "options(forward_headers=...)"),
    )


def _idempotency_key(key: str) -> str:
    return checked_name(key, f"An idempotency key is Unicode text without NUL, and not empty; {key!r} is not.")
