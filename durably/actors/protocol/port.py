"""`Port`: the one opening between a handler's context and the machine that runs it.

Contexts, references and state only describe what is wanted; all that they do goes through the port of their execution.
So nothing in `durably.actors` knows whether it is live or replayed, and no verb can forget to be replay-safe.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from random import Random
from typing import Any, Generic, Never, Protocol, TypeVar

import msgspec

from durably.actors.protocol.coding import CodingMeter
from durably.actors.protocol.commands import Command, Run, Send, SendSignal
from durably.actors.protocol.entries import FieldChanges
from durably.actors.protocol.operations import CallSite, Operation
from durably.actors.protocol.popped import PoppedEntry, Pops
from durably.actors.protocol.request import Request
from durably.actors.retry import RetryPolicy
from durably.actors.values.serde import SerdeFactory
from durably.errors import TerminalError, UnencodableError
from durably.ids import EntryKey

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Action(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """The side effect behind a `Run` command: never journaled, found again by replaying the handler."""

    name: str
    invoke: Callable[[], R | Awaitable[R]]
    """Calls the user's function with its arguments. If that gives an awaitable, the result is what it ends with."""
    runs_on_loop: bool
    """True: `invoke` is called on the host's event loop; False: in a thread. Awaitables are awaited on the loop."""
    retry: RetryPolicy | None
    timeout_us: int | None
    """Limit of one attempt."""
    request: Request
    """What started the invocation of the handler."""
    context: Context
    """The handler's context variables when it asked (rule D4)."""
    encode_value: Callable[[R], bytes]
    """Raises UnencodableError; `encode` says of which run."""

    def encode(self, result: R) -> bytes:
        """What is journaled of a result.

        Raises:
            UnencodableError: it cannot be written; names the run.
        """
        try:
            return self.encode_value(result)
        except UnencodableError as error:
            raise UnencodableError(f"The result of run {self.name!r} cannot be journaled: {error.message}") from error


class Sent(Protocol[R_co]):
    """What the sender gets for an accepted message."""

    def __call__(self, id: str, previously_accepted: bool = False, /) -> R_co: ...


class Flush(Protocol):
    """`StateView.flush`."""

    def __call__(self, *, verify: bool = True) -> Mapping[str, bytes | None]: ...


class Port(Protocol):
    """What an execution offers to its handler. Outside its own advance every method raises a sentence (rule D1)."""

    invocation_id: str
    is_hosted: bool
    """Another engine carries its messages: it says what their ids are, and takes arguments as bodies from outside."""

    @property
    def coding(self) -> CodingMeter | None:
        """What measures how long encoding and decoding take; None where that is not measured."""
        ...

    @property
    def serde(self) -> SerdeFactory | None:
        """Makes the Serdes of state and actions that have none of their own; None: they are JSON."""
        ...

    @property
    def runtime_serde(self) -> SerdeFactory | None:
        """Makes those of messages to classes that have none of their own."""
        ...

    @property
    def loop(self) -> AbstractEventLoop:
        """The loop that the handler runs on."""
        ...

    def check(self, what: object, /) -> None:
        """Raise unless this execution is being advanced right now, on this thread. `what` names what was tried."""
        ...

    def handler_name(self) -> str:
        """Of the handler that runs: `Service/handler`."""
        ...

    def request(self) -> Request:
        """What started the invocation."""
        ...

    def headers(self) -> Mapping[str, str]:
        """What came with the invocation, as it is stored: see `durably.actors.headers`."""
        ...

    def at(self) -> int:
        """The time of the step: microseconds since 1970 UTC."""
        ...

    def random(self) -> Random:
        """The generator of `ctx.random()`, seeded by the execution."""
        ...

    def uuid_bits(self) -> int:
        """128 deterministic bits, a stream of their own."""
        ...

    def issue(self, command: Command, decode: Callable[[bytes], R], what: object, site: CallSite, /) -> Operation[R]:
        """Journal a command that is answered. The operation ends with `decode(answer)`, or with the failure."""
        ...

    def issue_send(self, command: Send, sent: Sent[R], what: object, site: CallSite, /) -> Operation[R]:
        """Journal a message. The operation ends with `sent(invocation id, whether it was there before)`.

        That is at once, but for one whose id is the recorded answer: it may join an earlier invocation, or another
        engine gives the id. An atomic handler's message is sent with its outcome, so its id is not looked up (rule V6).
        """
        ...

    def issue_one_way(self, command: Command, what: object, site: CallSite, /) -> Operation[None]:
        """Journal a command that is not answered. The operation has ended."""
        ...

    def callee_id(self, call: object, service: str, key: str | None, /) -> str | None:
        """The id that leads to the invocation of a call to this address; None: it is no call of this execution."""
        ...

    def issue_signal(self, command: SendSignal, what: object, site: CallSite, /) -> Operation[None]:
        """Journal a signal to another invocation; it ends when that has it, or with the failure that it cannot.

        An atomic handler's signal is sent with its outcome, so it has no answer (rule V6).
        """
        ...

    def issue_awakeable(self, decode: Callable[[bytes], Any], site: CallSite, /) -> str:
        """Journal an awakeable; its id."""
        ...

    def awakeable(self, id: str, /) -> Operation[Any] | None:
        """What waits for an awakeable of this execution; None: it is none of its own."""
        ...

    def issue_run(
        self, command: Run, action: Action[R], decode: Callable[[bytes], R], site: CallSite, /
    ) -> Operation[R]:
        """Journal a side effect; it starts when the command is durable."""
        ...

    def continue_as_new(self, argument: bytes, /) -> Never:
        """End this execution and begin the next with this argument (rule T5): raises what unwinds the handler."""
        ...

    def read_field(self, name: str, /) -> bytes | None:
        """The encoded value of a state field as this attempt sees it, own changes included; None: it has none."""
        ...

    def field_names(self) -> Sequence[str]:
        """The names that have a value, sorted."""
        ...

    def write_field(self, name: str, value: bytes | None, /) -> None:
        """Set or clear a state field."""
        ...

    @property
    def takes_cancel(self) -> bool:
        """In the step that is under way its code hears of a cancel."""
        ...

    @property
    def failure(self) -> TerminalError | None:
        """What its retry policy has failed it with; it came as a cancel, so that what was done is undone (rule E1)."""
        ...

    def has_to_undo(self, change: int, /) -> None:
        """One more block has something to undo, or one less. Meanwhile no failure ends the invocation (rule E1)."""
        ...

    def compensates(self, change: int, /) -> None:
        """One more block is being undone, or one less. Meanwhile calls inherit no deadline (rule E7)."""
        ...

    def watch_fields(self, flush: Flush, /) -> None:
        """Ask, at the end of each step, for fields whose values were changed in place (rule V2)."""
        ...

    def own_entries(self, field: str, /) -> FieldChanges:
        """What this execution has changed of the entries of a field; of a shared handler, nothing."""
        ...

    def write_entry(self, field: str, key: EntryKey, value: bytes | None, /) -> None:
        """Set or remove an entry."""
        ...

    def restore_entry(self, field: str, key: EntryKey, /) -> None:
        """Take back what this execution has changed of an entry."""
        ...

    def clear_entries(self, field: str, /) -> None:
        """Remove all entries of a field."""
        ...

    def issue_known(self, result: R, what: object, site: CallSite, /) -> Operation[R]:
        """An operation that has ended, since this execution knows the result: nothing is journaled."""
        ...

    def issue_taking(
        self,
        command: Command | None,
        decode: Callable[[bytes], R],
        what: object,
        site: CallSite,
        pops: Pops,
        entry: PoppedEntry,
        /,
    ) -> Operation[R]:
        """As `issue`, for a pop that has taken this entry; None: it is known, and nothing is journaled."""
        ...

    def patched(self, change: str, /) -> bool:
        """Whether the code with this change made the journal from here on, or makes it now (rule W4)."""
        ...

    def tell(self, hear: Callable[[R], object], fact: R, /) -> None:
        """Call this on the host's loop, outside of the handler; not at all while the machine replays."""
        ...

    def log(self, level: str, event: str, fields: Mapping[str, Any], /) -> None:
        """Write a line of the handler's log; silent while the machine replays."""
        ...
