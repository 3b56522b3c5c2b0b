"""Why something waits, read from a store: of a stopped program, of another one, or of this one.

Each question is a small read of its own, in another connection than the one that commits. What is durable changes only
forwards, so a tree may hold an invocation as it was a moment ago, and its callee as it is now.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from durably.ids import InvocationStatus, is_storable
from durably.runtime.execution.failure_text import known_attempt_failure
from durably.runtime.inspection.facts import (
    ActionFact,
    ActionOf,
    ById,
    ByScope,
    DueOf,
    Fact,
    LimitFact,
    LimitOf,
    MailboxFact,
    MailboxOf,
    Question,
    Subject,
)
from durably.runtime.inspection.reasons import MOST_INVOCATIONS, Walk
from durably.runtime.inspection.stored_limits import StoredLimits
from durably.runtime.inspection.waits import WaitingInvocation
from durably.runtime.invocations.journal import UnreadableStepError, journal_of
from durably.runtime.invocations.load_errors import journal_load_error, unreadable_error
from durably.storage.introspection import InspectableStore
from durably.storage.records import InvocationRecord, StoredInvocation

HAS_STARTED = (InvocationStatus.RUNNING, InvocationStatus.SUSPENDED)

ActionNow = Callable[[str, int], ActionFact | None]


def no_action(id: str, command: int) -> ActionFact | None:
    """What is known of actions where no process runs them."""
    del id, command
    return None


LimitNow = Callable[[int], LimitFact | None]


async def why(
    store: InspectableStore,
    id: str,
    *,
    action_now: ActionNow = no_action,
    limit_now: LimitNow | None = None,
    most_invocations: int = MOST_INVOCATIONS,
) -> WaitingInvocation | None:
    """What an invocation waits for; None if there is none of this id.

    Raises:
        StoreUnavailableError: the store cannot be read.
    """
    facts = StoredFacts(store, action_now, limit_now)
    subject = await facts.answer(ById(id))
    if not isinstance(subject, Subject):
        return None
    asking = Walk(most_invocations).described(subject)
    answer: object = None
    while True:
        try:
            question = asking.send(answer)
        except StopIteration as told:
            found: WaitingInvocation = told.value
            return found
        answer = await facts.answer(question)


class StoredFacts:
    """Answers from a store that is open."""

    def __init__(
        self, store: InspectableStore, action_now: ActionNow = no_action, limit_now: LimitNow | None = None
    ) -> None:
        """`limit_now` is None where no process runs on the store."""
        self._store = store
        self._limit_now = limit_now
        self._action_now = action_now
        self._limits = StoredLimits(store)

    async def answer(self, question: Question) -> Fact:
        match question:
            case ById(id):
                return await self._by_id(id)
            case ByScope(scope):
                record = (await self._store.find_keyed([scope])).get(scope)
                return None if record is None else await self._subject(record)
            case MailboxOf(address, before):
                mailbox = await self._store.mailbox(address, before=before)
                if mailbox.holder_id is None:
                    return MailboxFact(is_held=False, holder=None, ahead=mailbox.ahead)
                return MailboxFact(True, await self._by_id(mailbox.holder_id), mailbox.ahead)
            case DueOf(number, kind):
                timers = await self._store.timers_of([number])
                return next((timer.due for timer in timers if timer.kind is kind), None)
            case ActionOf(id, command):
                return self._action_now(id, command)
            case LimitOf(subject):
                return await self._limit(subject) if self._limit_now is None else self._limit_now(subject.number)

    async def _limit(self, subject: Subject) -> LimitFact | None:
        """The limit that it waits for, as far as the store tells."""
        if subject.mailbox_position is not None:
            mailbox = await self._store.mailbox(subject.address, before=subject.mailbox_position)
            if mailbox.holder_id is not None or mailbox.ahead:
                return None
        record = (await self._store.find([subject.id])).get(subject.id)
        pool = None if record is None else await self._limits.pool_of(record)
        if pool is None:
            return None
        places = (await self._limits.pools())[pool]
        return LimitFact(*pool, None, tuple(place.id for place in places.values()), None, 0)

    async def _by_id(self, id: str) -> Subject | None:
        record = (await self._store.find([id])).get(id) if is_storable(id) else None
        return None if record is None else await self._subject(record)

    async def _subject(self, record: InvocationRecord) -> Subject:
        if record.status not in HAS_STARTED:
            return subject_of(record)
        stored = (await self._store.fetch([record.number])).get(record.number)
        if stored is not None:
            return subject_of(stored.record, stored)
        # It has ended or begun anew since.
        again = (await self._store.find([record.id])).get(record.id, record)
        return subject_of(again)


def subject_of(record: InvocationRecord, stored: StoredInvocation | None = None) -> Subject:
    """What the rows say of an invocation."""
    known = None if record.failure is None else known_attempt_failure(record.failure)
    subject = Subject(
        number=record.number,
        id=record.id,
        address=record.address,
        handler=record.handler,
        status=record.status,
        seed=record.seed,
        mailbox_position=record.mailbox_position,
        due=record.due,
        deadline=record.deadline,
        attempts=record.attempts,
        failure="" if known is None else f"{known.type}: {known.message}",
    )
    return subject if stored is None else _with_journal(subject, stored)


def _with_journal(subject: Subject, stored: StoredInvocation) -> Subject:
    error = journal_load_error(stored)
    if error is not None:
        return replace(subject, load_error=str(error))
    try:
        journal = journal_of(stored)
    except UnreadableStepError as damaged:
        return replace(subject, load_error=str(unreadable_error(stored.record, damaged.unreadable)))
    return replace(subject, pending=journal.pending, is_waiting=not journal.undelivered)
