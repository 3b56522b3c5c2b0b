"""Why an invocation does not go on, as values: a tree of invocations and of what each waits for.

`Runtime.why()`, `durably why` and `StandstillError` tell the same values. Each kind of wait is a class of its own with
what is known of it; `str()` of one is a clause for people, `data_of` makes plain data for JSON.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, ClassVar, cast

from durably.ids import InvocationStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One thing that an invocation waits for. It goes on as soon as one of them happens."""

    kind: ClassVar[str] = "wait"
    command: int | None = None
    """The number of the command of its journal whose answer is awaited; None: the invocation itself cannot go on."""

    @property
    def leads_to(self) -> WaitingInvocation | None:
        """The invocation that this wait is for, where it is for one and that is known."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayWait(Wait):
    """It was sent with a delay."""

    kind: ClassVar[str] = "delay"
    until: datetime | None
    """None: no timer is stored that would end it, which `durably doctor` names."""

    def __str__(self) -> str:
        return f"is delayed until {_moment(self.until)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MailboxWait(Wait):
    """It is queued, and another invocation holds the mailbox of its object."""

    kind: ClassVar[str] = "mailbox"
    behind: WaitingInvocation | None
    """What holds the mailbox; None where it is not in memory, for those who look at memory alone."""
    ahead: int
    """How many messages wait before it, besides."""

    @property
    def leads_to(self) -> WaitingInvocation | None:
        return self.behind

    def __str__(self) -> str:
        others = f" and {_messages(self.ahead)} before it" if self.ahead else ""
        return f"is queued behind {_name(self.behind)}{others}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnWait(Wait):
    """It is queued, and nothing holds the mailbox: it starts when those before it have been."""

    kind: ClassVar[str] = "turn"
    ahead: int

    def __str__(self) -> str:
        return f"waits for its turn, with {_messages(self.ahead)} before it" if self.ahead else "waits for its turn"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitWait(Wait):
    """It has its turn, and a limit lets it start later (rule C9): one wait for each place that has to become free."""

    kind: ClassVar[str] = "limit"
    name: str
    """Of the limit: as the runtime has it (after `named:` if there is a slash in it), or `Service/handler` for one that
    the handler has for itself.
    """
    key: str
    """Which part of it, where it has a `per`; empty where it has none."""
    allows: str | None
    """`10 at once per tenant`; None where only the store is there, which does not keep that."""
    places_taken: int
    """How many places are taken; 0 if one is free, and the rate lets the next one start later."""
    until: datetime | None
    """When the rate allows the next start; None: a place has to become free first."""
    ahead: int
    """How many wait for it and come first."""
    holder: WaitingInvocation | None
    """What keeps this place taken; None for a rate, and where that is not in memory, for those who look there alone."""

    @property
    def leads_to(self) -> WaitingInvocation | None:
        return self.holder

    def __str__(self) -> str:
        limit = f"the limit {self.name!r}" + (f" of {self.key!r}" if self.key else "")
        if self.allows is None:
            return f"has not started under {limit}, of which a place is taken by {_name(self.holder)}"
        told = f"waits for {limit} ({self.allows})"
        others = f", with {self.ahead:,} before it" if self.ahead else ""
        if self.places_taken:
            return f"{told}{others}, of which a place is taken by {_name(self.holder)}"
        return f"{told}{others}, which lets the next one start at {_moment(self.until)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffWait(Wait):
    """It failed, and is tried again."""

    kind: ClassVar[str] = "backoff"
    until: datetime | None
    """When; None: no timer is stored that would end it, which `durably doctor` names."""
    failed_attempts: int
    error: str

    def __str__(self) -> str:
        times = "once" if self.failed_attempts == 1 else f"{self.failed_attempts} times"
        return f"failed {times} in a row ({self.error}) and is tried again at {_moment(self.until)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseWait(Wait):
    """It waits for a person: `resume`, `restart`, `cancel` or `kill`."""

    kind: ClassVar[str] = "pause"
    error: str
    """What it was paused for."""

    def __str__(self) -> str:
        return "is paused"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerWait(Wait):
    """It sleeps."""

    kind: ClassVar[str] = "timer"
    until: datetime

    def __str__(self) -> str:
        return f"waits for a timer until {_moment(self.until)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionWait(Wait):
    """A side effect (`ctx.run`) has not ended."""

    kind: ClassVar[str] = "action"
    name: str
    attempt: int | None
    """Which attempt runs, or comes next; None: known only to the process that runs it."""
    next_attempt_at: datetime | None
    """It backs off until then. None: it runs, or waits to be run."""
    error: str | None
    """What the last attempt failed with."""

    def __str__(self) -> str:
        told = f"waits for the action {self.name!r}"
        if self.attempt is None:
            return told
        if self.next_attempt_at is None:
            return f"{told}, in its attempt {self.attempt}"
        return f"{told}, which failed ({self.error}): attempt {self.attempt} comes at {_moment(self.next_attempt_at)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallWait(Wait):
    """A handler that it called has not ended."""

    kind: ClassVar[str] = "call"
    target: str
    """Which handler was called: `Cart/mary/checkout`."""
    callee: WaitingInvocation | None
    """None: it is not there (any more), or not in memory, for those who look at memory alone."""

    @property
    def leads_to(self) -> WaitingInvocation | None:
        return self.callee

    def __str__(self) -> str:
        return f"waits for {self.target if self.callee is None else self.callee.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachWait(Wait):
    """An invocation that it attached to has not ended."""

    kind: ClassVar[str] = "attach"
    target: str
    """An id, or what an idempotency key stands for."""
    invocation: WaitingInvocation | None

    @property
    def leads_to(self) -> WaitingInvocation | None:
        return self.invocation

    def __str__(self) -> str:
        return f"waits for {self.target if self.invocation is None else self.invocation.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromiseWait(Wait):
    """A promise of its workflow is not completed."""

    kind: ClassVar[str] = "promise"
    name: str

    def __str__(self) -> str:
        return f"waits for the promise {self.name!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AwakeableWait(Wait):
    """Waits for an awakeable that has been neither resolved nor rejected."""

    kind: ClassVar[str] = "awakeable"
    id: str

    def __str__(self) -> str:
        return f"waits for the awakeable {self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalWait(Wait):
    """Waits for a signal of this name, which has not been sent."""

    kind: ClassVar[str] = "signal"
    name: str

    def __str__(self) -> str:
        return f"waits for the signal {self.name!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerWait(Wait):
    """An answer that the runtime itself gives, such as the status of an invocation."""

    kind: ClassVar[str] = "answer"
    to: str
    """What was asked, for people."""

    def __str__(self) -> str:
        return f"waits for an answer of the runtime ({self.to})"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableWait(Wait):
    """It cannot be loaded, so nothing is known of what it waits for. It is paused when it is its turn."""

    kind: ClassVar[str] = "unreadable"
    error: str

    def __str__(self) -> str:
        return f"cannot be read: {self.error}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingInvocation:
    """An invocation with everything that it waits for."""

    id: str
    service: str
    key: str | None
    """None for a service."""
    handler: str
    status: InvocationStatus
    deadline: datetime | None
    """When it fails if it has not ended."""
    waits: tuple[Wait, ...]
    """In the order in which the handler asked. Empty: it runs, can run at once, or has ended; or see `is_repeated`."""
    waits_left_out: int = 0
    """How many further ones there are."""
    is_repeated: bool = False
    """It stands elsewhere in the tree with what it waits for, or was beyond the limit of the question."""
    closes_circle: bool = False
    """It is the one from which this way began, or came by: these wait for each other."""

    @property
    def target(self) -> str:
        """`Cart/mary/checkout`, `Shipping/handle`: what `cancel`, `kill` and the like take."""
        return f"{self.service}/{self.handler}" if self.key is None else f"{self.service}/{self.key}/{self.handler}"

    def __str__(self) -> str:
        """The tree as text, a line for each wait."""
        return "\n".join(_lines(self))

    def everything(self) -> Iterator[WaitingInvocation]:
        """It, and all invocations that it waits for, directly or through others; each once."""
        left = [self]
        while left:
            one = left.pop()
            if not one.is_repeated:
                yield one
            left += [found for wait in reversed(one.waits) if (found := wait.leads_to) is not None]

    def ends(self) -> Iterator[tuple[WaitingInvocation, Wait]]:
        """What has to happen in the end: each wait that is for no other invocation, with the invocation that has it."""
        for one in self.everything():
            for wait in one.waits:
                if wait.leads_to is None:
                    yield one, wait

    def paused(self) -> list[WaitingInvocation]:
        """Those of them that wait for a person (rule E6): nothing behind them goes on before."""
        return [one for one in self.everything() if one.status is InvocationStatus.PAUSED]

    def data(self) -> dict[str, Any]:
        """As plain values for JSON: each wait has its `kind`, times are ISO 8601."""
        return cast("dict[str, Any]", data_of(self))


def way_of(invocation: WaitingInvocation) -> str:
    """One way down, along what was asked for last: `a waits for b, which is queued behind c, which is paused`."""
    links: list[str] = []
    at: WaitingInvocation | None = invocation
    while at is not None and at.waits and len(links) < LINKS_TOLD:
        wait = at.waits[-1]
        at = wait.leads_to
        links.append(f"{wait}{': a circle' if at is not None and at.closes_circle else ''}")
    return f"{invocation.target} {', which '.join(links)}" if links else f"{invocation.target} {_standing(invocation)}"


LINKS_TOLD = 12
"""How much of a way is told."""


def data_of(value: object) -> object:
    """A value of these modules as plain values for JSON."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = {"kind": value.kind} if isinstance(value, Wait) else {}
        return kind | {field.name: data_of(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple | list):
        return [data_of(one) for one in cast("list[object]", value)]
    if isinstance(value, dict):
        return {str(name): data_of(one) for name, one in cast("dict[object, object]", value).items()}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return repr(value)


def _lines(invocation: WaitingInvocation) -> Iterator[str]:
    """Not by recursion: a chain of calls may be long."""
    left: list[tuple[int, str, WaitingInvocation | None]] = [(0, f"{invocation.target} ({invocation.id})", invocation)]
    while left:
        depth, text, one = left.pop()
        indent = "  " * depth
        yield f"{indent}{text}"
        if one is None:
            continue
        if not one.waits:
            if not (one.is_repeated or one.closes_circle):
                yield f"{indent}  {_standing(one)}"
            continue
        if one.deadline is not None:
            yield f"{indent}  fails at {_moment(one.deadline)}, its deadline, if it has not ended"
        if one.waits_left_out:
            left.append((depth + 1, f"and for {one.waits_left_out:,} more", None))
        left += [(depth + 1, _line(wait), wait.leads_to) for wait in reversed(one.waits)]


def _line(wait: Wait) -> str:
    found = wait.leads_to
    if found is None:
        return f"{wait}: {wait.error}" if isinstance(wait, PauseWait) else str(wait)
    if found.closes_circle:
        return f"{wait} ({found.id}): a circle"
    return f"{wait} ({found.id})" + (", as told elsewhere" if found.is_repeated else "")


def _standing(invocation: WaitingInvocation) -> str:
    """How one stands that waits for nothing."""
    return "has ended" if invocation.status is InvocationStatus.COMPLETED else "runs, or is about to"


def _name(invocation: WaitingInvocation | None) -> str:
    return "what is not in memory" if invocation is None else invocation.target


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count:,} messages"


def _moment(when: datetime | None) -> str:
    return "a time that is not stored" if when is None else str(when)
