"""What is asked to find out why something waits, and what is answered: the seam between the reasons and where they
are read, in a store (`stored_facts`) or in memory (`live_facts`).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, TypeVar

from durably.actors.protocol.commands import Command
from durably.ids import Address, InvocationStatus, KeyScope
from durably.storage.records import TimerKind

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is known of one invocation."""

    number: int
    id: str
    address: Address
    handler: str
    status: InvocationStatus
    seed: bytes
    mailbox_position: int | None
    due: int | None
    deadline: int | None
    attempts: int
    failure: str
    """What the last attempt failed with, in one line; empty if none has."""
    pending: Mapping[int, Command] = field(default_factory=dict[int, Command])
    """Its commands that have no answer, by number. Empty: it runs, or can run at once."""
    is_waiting: bool = True
    """Whether `pending` is all that it could go on with. False: an answer is there that it has not taken in."""
    load_error: str | None = None
    """Why its journal cannot be read."""

    @property
    def key(self) -> str | None:
        """None for a service."""
        return None if self.address.key == self.id else self.address.key


class ById(NamedTuple):
    """An invocation, by an id that leads to it: `Subject | None`."""

    id: str


class ByScope(NamedTuple):
    """An invocation, by idempotency key or workflow id: `Subject | None`."""

    scope: KeyScope


class MailboxOf(NamedTuple):
    """What a place in a mailbox waits for: `MailboxFact`."""

    address: Address
    before: int


class MailboxFact(NamedTuple):
    """What holds a mailbox, and how many messages start before."""

    is_held: bool
    holder: Subject | None
    """None: nothing holds it, or it is not in memory."""
    ahead: int


class DueOf(NamedTuple):
    """When a timer of an invocation is due: microseconds since 1970 UTC, or None if there is none."""

    number: int
    kind: TimerKind


class ActionOf(NamedTuple):
    """How an action stands: `ActionFact`, or None where that is not known."""

    id: str
    command: int


class ActionFact(NamedTuple):
    """An action as the process that runs it knows it."""

    attempt: int
    next_attempt_at: int | None
    """Microseconds since 1970 UTC, while it backs off."""
    error: str | None


class LimitOf(NamedTuple):
    """The limit that an invocation waits for before it starts: `LimitFact`, or None if that is none (rule C9)."""

    subject: Subject


class LimitFact(NamedTuple):
    """One limit, or what one key has of it, as those see it that wait for it."""

    name: str
    """Of the limit: as the runtime has it (after `named:` if there is a slash in it), or `Service/handler` for one that
    the handler has for itself.
    """
    key: str
    """Which part of it, where it has a `per`; empty where it has none."""
    allows: str | None
    """`10 at once per tenant`; None where only the store is there, which does not keep that."""
    held_by: tuple[str, ...]
    """The ids of those that hold its places, one for each place; empty if a place is free and the rate allows none."""
    next_start_at: int | None
    """When the rate allows the next start, if a place is free: microseconds since 1970 UTC."""
    ahead: int
    """How many wait for it and come first."""


Question: TypeAlias = ById | ByScope | MailboxOf | DueOf | ActionOf | LimitOf
Fact: TypeAlias = Subject | MailboxFact | ActionFact | LimitFact | int | None
"""What one of them is answered with."""
Asking: TypeAlias = Generator[Question, Any, T]
"""Yields questions, is sent their answers, and returns what follows."""
