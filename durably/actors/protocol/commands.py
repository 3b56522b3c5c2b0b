"""The whole language between a handler and the machine: what a handler may ask for, as plain values.

A command is what the journal records and what replay compares, so it holds bytes and names, never objects. Its number
is its place in the order of issue within one execution, counted from 0; the answer to it, where there is one, refers
to that number. All are answered but a `Send` that cannot join an earlier invocation, a `CompleteAwakeable`, a
`Cancel` and a `Publish`.

`gc=False`, here and elsewhere: plain values are in no cycle, and the garbage collector need not look at them.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from durably.ids import EntryKey, InvocationStatus, KeyScope
from durably.queries import TableQuery


class Call(msgspec.Struct, frozen=True, tag="call", array_like=True, gc=False):
    """Call a handler and wait for its answer. `key` is None for a service; `timeout_us` bounds the whole call."""

    service: str
    key: str | None
    handler: str
    argument: bytes
    headers: dict[str, str]
    idempotency_key: str | None
    timeout_us: int | None
    wire: bool = False
    """The argument is a body as it would come from outside (calls by name and bytes), for the callee's types."""
    has_all_headers: bool = False
    """None of the caller's is added to `headers`: the handler has said which go on."""


class Send(msgspec.Struct, frozen=True, tag="send", array_like=True, gc=False):
    """Send a message. It does not join the mailbox before `due`, microseconds since 1970 UTC by the wall clock.

    One that `may_join` is answered with the id of the invocation that has its idempotency key, or that runs the
    workflow: this one or an earlier one.
    """

    service: str
    key: str | None
    handler: str
    argument: bytes
    headers: dict[str, str]
    idempotency_key: str | None
    timeout_us: int | None
    due: int | None
    wire: bool = False
    may_join: bool = False


class Run(msgspec.Struct, frozen=True, tag="run", array_like=True):
    """Run a side effect of this name; what to run is not journaled, it is found again by replaying the handler."""

    name: str

    def __str__(self) -> str:
        """For sentences: `run "charge"`."""
        return f'run "{self.name}"'


class Sleep(msgspec.Struct, frozen=True, tag="sleep", array_like=True):
    """Be woken at `due`, microseconds since 1970 UTC."""

    due: int


class Attach(msgspec.Struct, frozen=True, tag="attach", array_like=True):
    """Wait for the outcome of an invocation that exists, given by id or by the idempotency key it was started with."""

    invocation_id: str | None
    service: str | None = None
    key: str | None = None
    handler: str | None = None
    idempotency_key: str | None = None


class GetOutput(msgspec.Struct, frozen=True, tag="output", array_like=True):
    """Ask for the outcome of an invocation, given as in `Attach`, as it is now: a recorded input (rule S4)."""

    invocation_id: str | None
    service: str | None = None
    key: str | None = None
    handler: str | None = None
    idempotency_key: str | None = None


class GetPromise(msgspec.Struct, frozen=True, tag="promise", array_like=True):
    """Wait until a promise of the own workflow is completed."""

    name: str


class PeekPromise(msgspec.Struct, frozen=True, tag="peek", array_like=True):
    """Look at a promise of the own workflow; the answer, empty while it is not completed, is recorded (rule S4)."""

    name: str


class CompletePromise(msgspec.Struct, frozen=True, tag="complete", array_like=True):
    """Complete a promise of the own workflow. The answer says whether this was the first completion (rule E5)."""

    name: str
    failed: bool
    value: bytes


class GetStatus(msgspec.Struct, frozen=True, tag="look", array_like=True):
    """Ask for the status of an invocation; the answer is a recorded input (rule S4)."""

    invocation_id: str


class IdentifyCall(msgspec.Struct, frozen=True, tag="identify", array_like=True):
    """Ask which invocation a call of this execution has started or joined; the answer is a recorded input (rule S4)."""

    derived_id: str
    """The id that follows from the number of the call; it leads to what the call has joined, too (rule C7)."""


class IdentifyRun(msgspec.Struct, frozen=True, tag="identify-run", array_like=True):
    """Ask which invocation runs a workflow; the answer is a recorded input (rule S4)."""

    service: str
    key: str


class MakeAwakeable(msgspec.Struct, frozen=True, tag="awakeable", array_like=True):
    """Wait for a value that anybody supplies to an id. The id follows from the execution's seed and the number."""


class CompleteAwakeable(msgspec.Struct, frozen=True, tag="complete-awakeable", array_like=True):
    """Supply the value (or the failure) that an awakeable waits for. The first one counts (rule E5)."""

    id: str
    failed: bool
    value: bytes


class AwaitSignal(msgspec.Struct, frozen=True, tag="signal", array_like=True):
    """Take the next signal of this name, sent or to be sent."""

    name: str


class SendSignal(msgspec.Struct, frozen=True, tag="send-signal", array_like=True):
    """Send a signal to an invocation. The answer is nothing, or the failure that it is unknown or has ended."""

    invocation_id: str
    name: str
    failed: bool
    value: bytes


class AwaitResume(msgspec.Struct, frozen=True, tag="await-resume", array_like=True):
    """Pause, and go on when a person resumes the invocation, which is the answer (rule E6)."""

    reason: str


class Cancel(msgspec.Struct, frozen=True, tag="cancel", array_like=True):
    """Cancel an invocation. One way: whether it is there, and what becomes of it, is not answered (rule E1)."""

    invocation_id: str


class Publish(msgspec.Struct, frozen=True, tag="publish", array_like=True):
    """Publish an event in a stream: it is part of the transition that issues this (rule P1). It is not answered."""

    stream: str
    key: str
    """What it is about, such as the id of an object."""
    name: str
    id: str
    at: int
    value: bytes


class ReadEvents(msgspec.Struct, frozen=True, tag="events", array_like=True):
    """Read events of a stream, once all that is in the log now is durable; the answer is a recorded input (rule S4)."""

    stream: str
    key: str | None = None
    """Only those about this."""
    id: str | None = None
    """Only the one of this id."""
    limit: int = 1
    is_backward: bool = False
    """The last ones first."""


class FindObjects(msgspec.Struct, frozen=True, tag="find", array_like=True):
    """Ask for objects of a class by their fields, once all that is in the log now is durable; a recorded input (S4)."""

    query: TableQuery
    counts: bool = False
    """How many there are is all that is asked."""


class ReadEntries(msgspec.Struct, frozen=True, tag="entries", array_like=True):
    """Read entries of a collection of the own object, as the snapshot has them (rule V7)."""

    field: str
    keys: tuple[EntryKey, ...] = ()
    """Those of these that are there."""
    only_keys: bool = False
    """Whether they are there is all that is asked."""
    limit: int = 0
    """So many at most between `after` and `before`."""
    after: EntryKey | None = None
    before: EntryKey | None = None
    is_backward: bool = False
    counts: bool = False
    """How many entries there are, too."""


class ReadListRange(msgspec.Struct, frozen=True, tag="list-range", array_like=True):
    """Read a slice of a list of the own object, in a shared handler: the list as it is when the answer is made (S4)."""

    field: str
    start: int
    stop: int | None


Command: TypeAlias = (
    Call
    | Send
    | Run
    | Sleep
    | Attach
    | GetOutput
    | GetStatus
    | IdentifyCall
    | IdentifyRun
    | GetPromise
    | PeekPromise
    | CompletePromise
    | MakeAwakeable
    | CompleteAwakeable
    | AwaitSignal
    | SendSignal
    | AwaitResume
    | Cancel
    | Publish
    | ReadEvents
    | FindObjects
    | ReadEntries
    | ReadListRange
)

Question: TypeAlias = ReadEvents | FindObjects
"""What is asked of the store, about more than the own object."""

# Tuples, where `isinstance` is asked often: a union is made anew each time that an expression with one is reached.
MESSAGES = (Call, Send)
READS = (ReadEntries, ReadListRange, ReadEvents, FindObjects)
"""What the store is asked, and may be asked again until the answer is taken in."""
HELD_BY_ATOMIC = (Send, CompletePromise, CompleteAwakeable, SendSignal, Cancel, Publish)
"""What an atomic handler asks for and what is not acted on before its outcome (rule V6)."""


class StatusAnswer(msgspec.Struct, frozen=True):
    """The encoded answer to `GetStatus`."""

    status: InvocationStatus


class SendAnswer(msgspec.Struct, frozen=True, array_like=True):
    """The encoded answer to a `Send` that may join an earlier invocation, to `IdentifyCall`, and to `IdentifyRun`."""

    id: str
    previously_accepted: bool


def key_scope(command: Call | Send | Attach | GetOutput) -> KeyScope:
    """Within what the idempotency key of a command is unique; without one, the run of a workflow (`run_scope`)."""
    return KeyScope(command.service or "", command.key or "", command.handler or "", command.idempotency_key or "")
