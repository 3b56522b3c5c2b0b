"""Everything this library raises on purpose, in one tree.

    DurablyError
    ├── TerminalError                     ends an invocation for good; travels to every caller with its fields
    │   ├── CancelledInvocationError      409
    │   ├── DeadlockError                 508
    │   ├── DeadlineExceededError         504
    │   ├── UnknownTargetError            404
    │   │   └── UnknownObjectError        of a model
    │   ├── InvalidArgumentError          400
    │   │   ├── InvalidKeyError           also a TypeError
    │   │   ├── InvalidHeaderError        also a TypeError
    │   │   └── InvalidDurationError      also a ValueError
    │   ├── AlreadyStartedError           409
    │   ├── InvalidTransitionError        409: the object of a model is in another state
    │   ├── TooManyObjectsError           413: for a handler to read at a time
    │   ├── AlreadyCompletedError         409
    │   ├── EventDeliveryError            400: an event that a subscription cannot take
    │   ├── NotReadyError                 470
    │   ├── InvocationStatusError         409, or 425 where the invocation has not started
    │   └── ActionFailedError             500: an action of `ctx.run` failed for good
    │       └── ActionTimeoutError        408: its last attempt ran into its time limit
    ├── RetryableError                    try again, not before a given time
    ├── HandlerMistakeError               a retry cannot mend it: the invocation pauses at once
    │   ├── NonDeterminismError
    │   ├── BlockingIOInHandlerError
    │   ├── UnrepeatableCallError         raised by durably.testing
    │   ├── ForgottenAwaitError
    │   ├── BareOperationError            also a TypeError
    │   ├── WrongContextError
    │   ├── ProcessExitError
    │   ├── StuckError
    │   ├── AdvanceLimitError
    │   ├── ConsumerFailedError           a consumer raised a TerminalError
    │   ├── CompensationFailedError       a compensation of a saga raised a TerminalError
    │   ├── SharedStateError
    │   ├── UndeclaredStateError          also an AttributeError
    │   ├── UnsetStateError               also an AttributeError
    │   ├── UnencodableError              also a TypeError
    │   └── UndecodableError              also a ValueError
    ├── LoadLimitError                    what is stored is too large to load: the invocation pauses
    ├── UnreadableRecordError             what is stored cannot be read: the invocation pauses
    │   ├── StateVersionError             it is of another version of the state than the code
    │   └── StateMigrationError           its state cannot be brought to the version of the code
    ├── PausedInvocationError             503, to callers outside
    ├── OverloadedError                   429
    ├── RuntimeStoppedError               503
    ├── DefinitionError                   also a TypeError
    ├── ConfigurationError                `durably.toml` or an environment variable makes no sense
    ├── StoreUnavailableError
    │   ├── ServerUnreachableError        raised by durably.client
    │   ├── CodecError                    what was to be stored is tried again, or not accepted
    │   └── StoreLostError
    └── StoreInUseError

The message of an error that is given none is the first line of its docstring, or the name of its class where it has
none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, cast
from weakref import WeakValueDictionary


class DurablyError(Exception):
    """Something that durably raises on purpose."""

    message: str

    def __init__(self, message: str | None = None) -> None:
        super().__init__(*(() if message is None else (message,)))
        if message is not None:
            self.message = message

    if not TYPE_CHECKING:
        # Not a property: a subclass that is a dataclass would take it for the default of its own field `message`.
        def __getattr__(self, name: str) -> object:
            if name == "message":
                return _default_message(self)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __str__(self) -> str:
        return self.message


def _default_message(error: DurablyError) -> str:
    cls = type(error)
    documentation = (cls.__doc__ or "").strip()
    if documentation.startswith(f"{cls.__name__}("):  # What @dataclass writes where the class has no docstring.
        return repr(error)
    return documentation.partition("\n")[0].strip() or cls.__name__


class TerminalError(DurablyError):
    """The invocation failed for good.

    Raise it, or a subclass, in a handler or an action: it is not retried. Annotated attributes of a subclass travel
    with it to every caller, decoded by their annotations; it is restored without calling `__init__`, so any constructor
    works, that of a dataclass too (`@dataclass(eq=False)`). An ExceptionGroup whose leaves are all terminal is
    terminal.

    `code` is an HTTP status; `metadata` is a small map of strings for people and tools.
    """

    code: int = 500
    metadata: Mapping[str, str]

    def __init__(
        self, message: str | None = None, *, code: int | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        if metadata is not None:
            self.metadata = dict(metadata)

    @property
    def class_name(self) -> str:
        """The class that was raised, as `module.Name`: also where the one who reads the error does not have it.

        Then the error is one of the nearest base that is known here. It travels on as what it was.
        """
        travelled: TravelledAs | None = self.__dict__.get(TRAVELLED_AS)
        return travelled.classes[0] if travelled is not None and travelled.classes else error_class_name(type(self))

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _known_classes[error_class_name(cls)] = cls

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            if name == "metadata":
                return {}
            return super().__getattr__(name)


TRAVELLED_AS = "__durably_travelled_as__"
"""Where an error keeps what of it its class here does not say."""


class TravelledAs(NamedTuple):
    """What an error was before it was read by somebody who knows less of it."""

    classes: tuple[str, ...]
    """The classes that are not known here, nearest first."""
    fields: Mapping[str, bytes]
    """Fields that the class here does not declare, as JSON."""


_known_classes: WeakValueDictionary[str, type[TerminalError]] = WeakValueDictionary()


def error_class_name(cls: type[TerminalError]) -> str:
    """The name under which a class of errors travels."""
    return f"{cls.__module__}.{cls.__qualname__}"


def known_error_class(name: str) -> type[TerminalError] | None:
    """The newest class defined under this name, if it still exists."""
    return _known_classes.get(name)


class CancelledInvocationError(TerminalError):
    """The invocation was cancelled."""

    code = 409


class DeadlockError(TerminalError):
    """The call would wait for itself: it closes a cycle of exclusive handlers.

    `cycle` names the handlers, such as `Cart/mary/checkout`. Each waits for the next, and the last one cannot end
    before the first has ended: it is queued behind it, or is the first itself.
    """

    code = 508
    cycle: tuple[str, ...]

    def __init__(self, message: str | None = None, *, cycle: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.cycle = tuple(cycle)


class DeadlineExceededError(TerminalError):
    """The deadline passed before the invocation finished."""

    code = 504


class UnknownTargetError(TerminalError):
    """There is no such service, handler or invocation.

    `known` lists what there is instead.
    """

    code = 404
    known: tuple[str, ...]

    def __init__(self, message: str | None = None, *, known: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.known = tuple(known)


class InvalidArgumentError(TerminalError):
    """The arguments do not fit the handler's parameters.

    `path` says where, as in `$.tickets[0]`; `$` is the whole.
    """

    code = 400
    path: str

    def __init__(self, message: str | None = None, *, path: str = "$") -> None:
        super().__init__(message)
        self.path = path


class InvalidKeyError(InvalidArgumentError, TypeError):
    """A key, an id or a name is empty, or no store can keep it: that of an object, an idempotency key, a signal."""


class InvalidHeaderError(InvalidArgumentError, TypeError):
    """A header is no text in a single line, or no store can keep it."""


class InvalidDurationError(InvalidArgumentError, ValueError):
    """A span of time is negative or longer than a thousand years, or a moment does not say its time zone."""


class AlreadyStartedError(TerminalError):
    """The workflow was started before under this id, and its `run` executes once."""

    code = 409


class InvalidTransitionError(TerminalError):
    """The object is in a state that this transition does not lead from."""

    code = 409


class UnknownObjectError(UnknownTargetError):
    """There is no object of this id, or none in this state."""


class TooManyObjectsError(TerminalError):
    """More objects fit a query than a handler reads at a time."""

    code = 413


class AlreadyCompletedError(TerminalError):
    """The promise was completed before."""

    code = 409


class NotReadyError(TerminalError):
    """The invocation exists and has no outcome yet."""

    code = 470


class InvocationStatusError(TerminalError):
    """What is asked for does not fit where the invocation stands: it has ended, has not ended, or has not started."""

    code = 409


class ActionFailedError(TerminalError):
    """An action of `ctx.run` failed for good: its retry policy allows no further attempt.

    `action` is its name, `attempts` how often it was tried in this process; `error_type` and `last_message` are the
    class and the text of the last error. That error itself is the `__cause__` where the handler has not been replayed
    since, so let no handler depend on it.
    """

    action: str
    attempts: int
    error_type: str
    last_message: str

    def __init__(
        self,
        message: str | None = None,
        *,
        action: str = "",
        attempts: int = 0,
        error_type: str = "",
        last_message: str = "",
        code: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, code=code, metadata=metadata)
        self.action = action
        self.attempts = attempts
        self.error_type = error_type
        self.last_message = last_message


class ActionTimeoutError(ActionFailedError):
    """The last attempt of an action of `ctx.run` took longer than `ctx.run.options(timeout=...)` allows."""

    code = 408


class RetryableError(DurablyError):
    """Not now: try again later.

    `retry_after` is a timedelta or seconds, and None leaves it to the policy. Counts as an attempt like any other
    exception.
    """

    retry_after: timedelta | float | None

    def __init__(self, message: str | None = None, *, retry_after: timedelta | float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class HandlerMistakeError(DurablyError):
    """The handler's code does what no retry can mend; the invocation is paused until somebody has mended the code."""


def find_mistake(error: BaseException) -> HandlerMistakeError | None:
    """The mistake that this error is, or that is in it: a group of errors counts if one of them does."""
    if isinstance(error, HandlerMistakeError):
        return error
    if isinstance(error, BaseExceptionGroup):
        for one in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            found = find_mistake(one)
            if found is not None:
                return found
    return None


class BareOperationError(HandlerMistakeError, TypeError):
    """A handler gave `asyncio.wait` what is no task and no future."""


class NonDeterminismError(HandlerMistakeError):
    """Replay asked for something else than what is recorded."""

    step: int | None = None
    """The index of the step that differs, where it is known."""
    recorded: Sequence[str] = ()
    """What the step holds, a line each."""
    attempted: Sequence[str] = ()
    """What the code did instead."""


class BlockingIOInHandlerError(HandlerMistakeError):
    """Real I/O was awaited outside `ctx.run`."""


class UnrepeatableCallError(HandlerMistakeError):
    """A handler read a clock or took randomness past its context; on replay it would get something else.

    Raised by the kit for tests only: production has no such check.
    """


class ForgottenAwaitError(HandlerMistakeError):
    """A handler returned with a call, send or run that was never awaited."""


class WrongContextError(HandlerMistakeError):
    """A context, a state field or a reference was used where its handler is not running.

    That is: in an action, a thread, another handler, or after the handler has returned.
    """


class ProcessExitError(HandlerMistakeError):
    """A handler raised SystemExit (as `sys.exit()` and argparse's `--help` do) or KeyboardInterrupt."""

    def __init__(self, error: SystemExit | KeyboardInterrupt) -> None:
        raised = f"{error!r}, as sys.exit() does" if isinstance(error, SystemExit) else repr(error)
        super().__init__(
            f"A handler raised {raised}. A handler cannot end the process: raise a TerminalError to fail the "
            "invocation, and stop the service from outside."
        )


class StuckError(HandlerMistakeError):
    """A handler waits for something that nothing will ever supply."""


class AdvanceLimitError(HandlerMistakeError):
    """A handler ran an enormous number of callbacks without ever waiting for anything."""


class ConsumerFailedError(HandlerMistakeError):
    """A consumer of a model failed for good: it waits for a person, so that the transition is not lost to it."""


class CompensationFailedError(HandlerMistakeError):
    """A compensation of a saga failed for good: it waits for a person, so that nothing stays half undone."""


class EventDeliveryError(TerminalError):
    """An event cannot be delivered to a subscription: it does not fit its class, or has no key. It is a dead letter."""

    code = 400


class SharedStateError(HandlerMistakeError):
    """A shared handler changed state; only exclusive handlers may."""


class UndeclaredStateError(HandlerMistakeError, AttributeError):
    """An attribute that is no declared state was assigned in a handler."""


class UnsetStateError(HandlerMistakeError, AttributeError):
    """A state field without a default was read before it was written."""


class UnencodableError(HandlerMistakeError, TypeError):
    """A value cannot be turned into bytes, or would not be the same when it is read again.

    `path` says where, as in `$.tickets[0]`; `$` is the whole value.
    """

    path: str

    def __init__(self, message: str | None = None, *, path: str = "$") -> None:
        super().__init__(message)
        self.path = path


class UndecodableError(HandlerMistakeError, ValueError):
    """Stored or received bytes do not fit the type that is expected of them.

    `path` says where, as in `$.tickets[0]`; `$` is the whole. `reason` is why, without what was expected and what came.
    """

    path: str
    reason: str

    def __init__(self, message: str | None = None, *, path: str = "$", reason: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.reason = reason


class LoadLimitError(DurablyError):
    """What is stored of an invocation, or of its object, is too large to be loaded."""


class UnreadableRecordError(DurablyError):
    """What is stored of an invocation, or of its object, cannot be read: it was damaged, or its key is not here."""


class StateVersionError(UnreadableRecordError):
    """The state of an object, or a journal, is of another version than the class: it waits for the code that fits."""


class StateMigrationError(UnreadableRecordError):
    """The state of an object cannot be brought to the version of its class."""


class PausedInvocationError(DurablyError):
    """The invocation waits for a person; it has not failed.

    `id` is the invocation's, `reason` says why. The handler's error, where there is one, is the cause.
    """

    id: str
    reason: str

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(
            f"{reason.rstrip('.')}{paused_as(id)} Mend the cause, then let it go on: await runtime.resume(id). Or end "
            "it: await runtime.cancel(id) lets the handler clean up, await runtime.kill(id) does not. Operators of a "
            f"server do the same with `durably invocations resume {id}`, cancel or kill."
        )
        self.id = id
        self.reason = reason


def paused_as(id: str) -> str:
    """What follows the reason in a sentence about a paused invocation, in this process and over HTTP."""
    return f". For this reason the invocation {id} is paused; it has not failed."


class OverloadedError(DurablyError):
    """A limit is reached; come back later.

    `retry_after` says when, in seconds; None: unknown. `held_up_by` is the id of an invocation, or an object such
    as `Cart/mary`, that lets nothing else through; None: it is no single one. `reason` is the message without what can
    be done about that.
    """

    retry_after: float | None
    held_up_by: str | None
    reason: str

    def __init__(
        self, message: str | None = None, *, retry_after: float | None = None, held_up_by: str | None = None
    ) -> None:
        way_out = (
            ""
            if held_up_by is None
            else f" If what holds it is stuck: await runtime.resume({held_up_by!r}), or `durably invocations resume "
            f"{held_up_by}` for operators of a server, lets it go on; cancel or kill in place of resume ends it."
        )
        super().__init__(message if message is None else f"{message}{way_out}")
        self.retry_after = retry_after
        self.held_up_by = held_up_by
        self.reason = self.message if message is None else message


class RuntimeStoppedError(DurablyError):
    """The runtime stopped before the invocation ended.

    `id` is that of the invocation: it will go on where it stands when a runtime starts on the same store. None: the
    request was not accepted.
    """

    id: str | None

    def __init__(self, message: str | None = None, *, id: str | None = None) -> None:
        super().__init__(message)
        self.id = id


class DefinitionError(DurablyError, TypeError):
    """A class cannot work as it is written."""


class ConfigurationError(DurablyError):
    """`durably.toml` or an environment variable says something that cannot be."""


class StoreUnavailableError(DurablyError):
    """The store did not answer, so the outcome is unknown; with an idempotency key it is safe to repeat the request.

    `nothing_accepted`: the request was refused because the store was gone already, so it is safe to repeat it as it is.
    """

    nothing_accepted: bool

    def __init__(self, message: str | None = None, *, nothing_accepted: bool = False) -> None:
        super().__init__(message)
        self.nothing_accepted = nothing_accepted


class CodecError(StoreUnavailableError):
    """A codec cannot encode a value, so it cannot be stored. What it belongs to is tried again, or not accepted."""


class ServerUnreachableError(StoreUnavailableError):
    """The server cannot be reached, or did not answer; with an idempotency key it is safe to repeat the request.

    `nothing_accepted`: the request has not arrived, or was refused, so it is safe to repeat it as it is.
    """


class StoreLostError(StoreUnavailableError):
    """The store that was open is not at its path any more, or is not the same; the runtime has stopped for good."""


class StoreInUseError(DurablyError):
    """Another runtime owns this store; `address` is where it serves, if the store knows that."""

    address: str

    def __init__(self, message: str | None = None, *, address: str = "") -> None:
        super().__init__(message)
        self.address = address
