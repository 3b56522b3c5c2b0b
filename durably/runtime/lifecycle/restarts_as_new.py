"""`RestartsAsNew`: what has ended begins once more, as a new invocation (rule W2).

It has the arguments and headers of the old one. From a later step than the first it also has the steps before, with the
answers that they took in; ids, `random` and `uuid` of these steps are those of the old invocation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from durably.actors.definition.binding import DELETION, BoundActorHandler
from durably.errors import DurablyError, InvocationStatusError
from durably.ids import Entropy, InvocationStatus, earliest_time, new_identity, next_seed
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.transition import Transition
from durably.runtime.invocations.invocation import InvocationRun, argument_load_error
from durably.runtime.invocations.journal import Journal, UnreadableStepError, journal_of
from durably.runtime.invocations.load_errors import journal_load_error, unreadable_error
from durably.runtime.lifecycle.continuations import Continuations, cannot_begin_from
from durably.runtime.lifecycle.ended_journals import EndedJournals
from durably.runtime.messaging.acceptance import Acceptance, Message
from durably.runtime.messaging.targets import Targets
from durably.storage.records import InvocationRecord, StoredInvocation

TOO_EARLY = 425
UNSUPPORTED = 422
NOT_STARTED = (InvocationStatus.SCHEDULED, InvocationStatus.PENDING)

WhenRestarted: TypeAlias = Callable[[str | DurablyError], None]
"""Hears the id of the new invocation, or why there is none."""

CheckRoom: TypeAlias = Callable[[str, str | None], None]
"""Raises where no more messages may wait for a service, or for an object with this key."""


class RestartsAsNew:
    """Of one incarnation."""

    def __init__(
        self,
        *,
        acceptance: Acceptance,
        committer: Committer,
        continuations: Continuations,
        ended_journals: EndedJournals,
        entropy: Entropy,
        targets: Targets,
    ) -> None:
        self._acceptance = acceptance
        self._committer = committer
        self._continuations = continuations
        self._ended_journals = ended_journals
        self._entropy = entropy
        self._targets = targets

    def begin(
        self, found: InvocationRun | InvocationRecord, from_step: int, check_room: CheckRoom, then: WhenRestarted
    ) -> None:
        """Begin it once more. At once from its first step; else when its journal has come from the store."""
        try:
            handler = self._restartable(found, check_room)
            if not from_step:
                then(self._accept(self._committer.begin(), found, handler).id)
            elif from_step < 0:
                then(cannot_begin_from(found.id, from_step, "the first step is 0"))
            elif handler.is_exclusive:
                then(
                    cannot_begin_from(
                        found.id, from_step, "its handler is exclusive, and the state that its steps saw has gone"
                    )
                )
            else:
                self._ended_journals.read(found.number, partial(self._go_on, found.id, from_step, check_room, then))
        except DurablyError as error:
            then(error)

    # ------------------------------------------------------------------ inside

    def _restartable(self, found: InvocationRun | InvocationRecord, check_room: CheckRoom) -> BoundActorHandler:
        if found.status in NOT_STARTED:
            raise InvocationStatusError(f"The invocation '{found.id}' has not started.", code=TOO_EARLY)
        if found.status is not InvocationStatus.COMPLETED:
            raise InvocationStatusError(f"The invocation '{found.id}' is not yet completed.")
        error = argument_load_error(found)
        if error is not None:
            raise error
        service, _ = found.address
        name = found.handler.name if isinstance(found, InvocationRun) else found.handler
        if name == DELETION:
            key = found.address.key
            raise InvocationStatusError(
                f"The invocation '{found.id}' is the deletion of {service}/{key}, which has no code to begin anew. "
                f"Delete the object once more: runtime.delete({service}, {key!r}).",
                code=UNSUPPORTED,
            )
        handler = self._targets.find(service, _own_key(found), name)
        if handler.kind == "workflow":
            raise InvocationStatusError(
                f"The invocation '{found.id}' is the run of a workflow, which executes once for each id. Purge it, and "
                "start it again.",
                code=UNSUPPORTED,
            )
        check_room(service, _own_key(found))
        return handler

    def _go_on(
        self, id: str, from_step: int, check_room: CheckRoom, then: WhenRestarted, stored: StoredInvocation | None
    ) -> None:
        """Its journal is here."""
        then(self._begin_behind(stored, id, from_step, check_room))

    def _begin_behind(
        self, stored: StoredInvocation | None, id: str, from_step: int, check_room: CheckRoom
    ) -> str | DurablyError:
        """Begin with the steps before `from_step`."""
        if stored is None:
            return InvocationStatusError(f"The invocation '{id}' is no longer kept, or its journal is on its way out.")
        try:
            handler = self._restartable(stored.record, check_room)
            journal = _journal(stored)
        except DurablyError as error:
            return error
        refusal = self._continuations.refusal(id, handler, journal, from_step)
        if refusal is not None:
            return refusal
        seed = next_seed(
            self._entropy,
            max(journal.not_before, earliest_time(stored.record.seed)),
            steps=from_step,
            earlier=stored.record.seed,
            earlier_id=id,
        )
        transition = self._committer.begin()
        invocation = self._accept(transition, stored.record, handler, seed)
        self._continuations.keep(transition, invocation, journal.cut(from_step))
        return invocation.id

    def _accept(
        self,
        transition: Transition,
        found: InvocationRun | InvocationRecord,
        handler: BoundActorHandler,
        later_seed: bytes | None = None,
    ) -> InvocationRun:
        own_key = _own_key(found)
        id, seed = new_identity(self._entropy, found.address.service, own_key)
        message = Message(
            handler,
            own_key,
            found.argument,
            id,
            seed if later_seed is None else later_seed,
            found.headers,
            None,
            keep_outcome_us=self._targets.retention_us(handler),
        )
        return self._acceptance.accept(transition, message)


def _own_key(found: InvocationRun | InvocationRecord) -> str | None:
    """The key of its object; None: of a service, which keeps each invocation under its own id."""
    key = found.address.key
    return None if key == found.id else key


def _journal(stored: StoredInvocation) -> Journal:
    """What is kept of its journal, but for the step that ended it: there nothing can begin.

    Raises:
        UnreadableRecordError: it cannot be read.
    """
    error = journal_load_error(stored)
    if error is not None:
        raise error
    try:
        journal = journal_of(stored)
    except UnreadableStepError as damaged:
        raise unreadable_error(stored.record, damaged.unreadable) from damaged
    has_last = bool(journal.steps) and journal.steps[-1].is_last
    return journal.cut(len(journal.steps) - has_last)
