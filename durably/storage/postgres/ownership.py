"""One owner at a time, by a lease that the server's clock measures (rule X4).

A newcomer takes a store that was let go, whose lease has run out, or whose owner's session has ended. An owner that
opens again takes it only if there was no other in between; otherwise one that was stopped would take the store back
from its successor, and both would play ping-pong. Safety is in the epoch, which every commit checks in its own
transaction.

The owner renews its lease from a thread of its own, so neither a busy event loop nor a long commit delays it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Thread
from typing import Final, NamedTuple

from psycopg import errors

from durably.errors import StoreInUseError, StoreLostError, StoreUnavailableError
from durably.storage.ownership import held_sentence, taken_over_sentence
from durably.storage.postgres.connection import PgConnection
from durably.storage.postgres.rows import give_up
from durably.storage.postgres.sessions import Sessions
from durably.storage.postgres.statements import STATEMENTS
from durably.storage.records import Owner

PATIENCE: Final = "300ms"
"""So long a take-over waits for a commit of the owner before it ends the owner's session."""
TRIES: Final = 40
RENEWALS_PER_LEASE: Final = 3


class Tenant(NamedTuple):
    """An owner under one epoch."""

    owner: Owner
    epoch: int

    def parameters(self) -> dict[str, object]:
        return {"epoch": self.epoch, **_names(self.owner)}


class Taken(NamedTuple):
    """The store as its new owner finds it."""

    store_id: str
    epoch: int
    last_position: int


@dataclass(slots=True)
class KnownStore:
    """A store that was open and was not closed: what an owner must find again when it opens it anew (rule X3)."""

    store_id: str
    owner: Owner
    epochs: list[int]
    """All that this owner may have taken: whether a take-over became durable may never be known."""
    position: int
    """Everything up to here was acknowledged."""


@dataclass(frozen=True, slots=True)
class TakeOver:
    """One attempt to become the owner, or to become it again."""

    store: str
    owner: Owner
    known: KnownStore | None
    lease_us: int
    advertised: str
    session: int
    """Of the connection that will renew the lease."""

    def run(self, connection: PgConnection, end_writer: Callable[[], None]) -> Taken:
        """
        Raises:
            StoreInUseError: somebody else owns the store, or has owned it in between.
            StoreLostError: it is another store, or older than what was acknowledged.
            StoreUnavailableError: a session that cannot be ended is in the way.
        """
        if self.known is None:
            holder = connection.execute(STATEMENTS["holder"]).fetchone()
            if holder is not None:
                host, process_id, since, advertised = holder
                raise self._in_use(Owner(host=host, process_id=process_id, since=since), advertised)
        connection.execute(STATEMENTS["lock_patience"], (PATIENCE,))
        for _ in range(TRIES):
            try:
                row = connection.execute(STATEMENTS["take_over"], self._parameters()).fetchone()
            except errors.LockNotAvailable:
                give_up(connection)
                end_writer()
            else:
                connection.execute(STATEMENTS["lock_patience"], ("0",))
                assert row is not None
                return self._judged(*row)
        raise StoreUnavailableError(
            f"The store {self.store} cannot be opened: a session has its owner row locked and cannot be ended. Look "
            "into `pg_stat_activity`, and end it with `pg_terminate_backend`."
        )

    def _parameters(self) -> dict[str, object]:
        known, owner = self.known, self.owner
        return {
            "known_store": known and known.store_id,
            "known_epochs": known and known.epochs,
            "known_position": known and known.position,
            "known_host": known and known.owner.host,
            "known_process": known and known.owner.process_id,
            "known_since": known and known.owner.since,
            **_names(owner),
            "lease_us": self.lease_us,
            "advertised": self.advertised,
            "session": self.session,
        }

    def _judged(
        self, verdict: str, store_id: str, epoch: int, position: int, host: str, process_id: int, since: int,
        advertised: str,
    ) -> Taken:  # fmt: skip
        holder = Owner(host=host, process_id=process_id, since=since)
        match verdict:
            case "taken":
                return Taken(store_id, epoch, position)
            case "in use":
                raise self._in_use(holder, advertised)
            case "taken over":
                raise StoreInUseError(taken_over_sentence(self.store, holder))
            case "another":
                raise StoreLostError(
                    f"The store {self.store} is not the one that was open before the failure. Nothing is written to "
                    "it. Restore the right database, and start the runtime again."
                )
            case _:
                raise StoreLostError(
                    f"The store {self.store} is older than it was before the failure: it ends at position {position}, "
                    f"and {self.known and self.known.position} was acknowledged. A backup was restored, or a replica "
                    "was promoted that was behind. Nothing is written to it; see `synchronous_standby_names`."
                )

    def _in_use(self, holder: Owner, advertised: str) -> StoreInUseError:
        at = f" It serves at {advertised}." if advertised else ""
        return StoreInUseError(held_sentence(self.store, holder) + at, address=advertised)


def end_writer(connection: PgConnection, owner: Owner, known_epochs: Sequence[int] | None) -> None:
    """End the session that is in the way: our own from before a failure, or that of an owner who is one no longer."""
    known = None if known_epochs is None else list(known_epochs)
    connection.execute(STATEMENTS["end_writer"], {"known_epochs": known, **_names(owner)})


def let_go(connection: PgConnection, tenant: Tenant) -> None:
    connection.execute(STATEMENTS["let_go"], tenant.parameters())


def _names(owner: Owner) -> dict[str, object]:
    return {"host": owner.host, "process": owner.process_id, "since": owner.since}


class Renewal:
    """Renews the lease until it is stopped, or until another one has it."""

    def __init__(self, sessions: Sessions, tenant: Tenant, lease_seconds: float) -> None:
        self._sessions = sessions
        self._tenant = tenant
        self._period_seconds = lease_seconds / RENEWALS_PER_LEASE
        self._stopped = Event()
        self._is_under_way = False
        """One renewal at a time: what waits while the server is away does not add up."""
        self.is_lost = False
        """Somebody else owns the store by now."""
        Thread(target=self._run, name="durably-postgres-lease", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._period_seconds):
            if not self._is_under_way:
                self._is_under_way = True
                self._sessions.tell(self._renew, ended=self._ended)

    def _renew(self, connection: PgConnection) -> None:
        if self._stopped.is_set():
            return
        if connection.execute(STATEMENTS["renew"], self._tenant.parameters()).fetchone() is None:
            self.is_lost = True
            self.stop()

    def _ended(self) -> None:
        self._is_under_way = False
