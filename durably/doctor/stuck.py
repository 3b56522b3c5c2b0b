"""`find_stuck`: whether everything that is under way has a record that will end its wait, or waits for somebody.

What this checks of each invocation that has not ended:

- delayed: the timer that starts it is there; backing off: the timer of its next attempt; with a deadline: that timer;
- suspended: no answer is there that it has not taken in, and each command that it waits for has what will answer it: a
  sleep its timer, a call its callee, which knows whom to answer, an attach a row at its target; no promise that it
  awaits is completed, and no signal or awakeable that it awaits has come;
- running, or at the head of a mailbox that nothing holds: nothing, because recovery and the running engine go through
  those; queued behind another one: that one is checked itself.

Beside an owner the rows of one invocation come from several reads. So what looks wrong is looked at again, and counts
if the invocation has not moved meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from durably.actors.protocol.commands import (
    HELD_BY_ATOMIC,
    Attach,
    AwaitSignal,
    Call,
    Command,
    GetPromise,
    MakeAwakeable,
    Sleep,
    key_scope,
)
from durably.actors.values.durations import moment
from durably.doctor.findings import REPORT, Finding, note, problem
from durably.errors import DurablyError, UnreadableRecordError
from durably.ids import Address, InvocationStatus, KeyScope, awakeable_id, derived_invocation_id
from durably.runtime.execution.failure_text import known_attempt_failure
from durably.runtime.inspection.stored_limits import Pool, StoredLimits
from durably.runtime.invocations.invocation import known_outcome
from durably.runtime.invocations.journal import (
    ANSWERED_BY_THIS_PROCESS,
    Journal,
    UnreadableStepError,
    journal_of,
)
from durably.runtime.invocations.load_errors import damaged_columns, journal_load_error, unreadable_error
from durably.storage.introspection import InspectableStore
from durably.storage.records import InvocationRecord, StoredInvocation, TimerKind

PAGE: Final = 200
LOOKS: Final = 3
"""How often it has to look the same before it counts."""
BEHIND_EVERYTHING: Final = (1 << 63) - 1
_WAITS_FOR_PEOPLE: Final = (GetPromise, MakeAwakeable, AwaitSignal)
_NEEDED_TIMERS: Final = {InvocationStatus.SCHEDULED: TimerKind.START, InvocationStatus.BACKING_OFF: TimerKind.RETRY}
_TIMER_WORDS: Final = {
    TimerKind.START: ("no-start-timer", "is delayed, and no timer is stored that would start it"),
    TimerKind.RETRY: ("no-retry-timer", "failed and waits for its next attempt, and no timer is stored that brings it"),
    TimerKind.DEADLINE: ("no-deadline-timer", "has a deadline, and no timer is stored that would end it then"),
}


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was read of one invocation that has not ended."""

    stored: StoredInvocation
    journal: Journal | None
    timers: Mapping[tuple[TimerKind, int], int]
    """When each is due."""

    @property
    def record(self) -> InvocationRecord:
        return self.stored.record

    @property
    def version(self) -> tuple[object, ...]:
        """The same as long as it does not move."""
        stored = self.stored
        return (stored.record.number, stored.record.status, len(stored.steps), len(stored.completions))


async def find_stuck(
    store: InspectableStore, progressed: Callable[[int], object] = lambda count: None
) -> AsyncIterator[Finding]:
    """Findings about everything that is stored, by number; `progressed` hears how many invocations were looked at.

    Raises:
        StoreUnavailableError: the store cannot be read.
    """
    after, limits = 0, _LimitWaits(store)
    while page := await store.invocations(after=after, limit=PAGE):
        errors = {record.number: _row_error(record) for record in page}
        for record in page:
            if (error := errors[record.number]) is not None:
                yield problem("unreadable", _name(record), str(error), id=record.id)
        readable = [record for record in page if errors[record.number] is None]
        numbers = [one.number for one in readable if one.status is not InvocationStatus.COMPLETED]
        for finding in await _examined(store, limits, numbers):
            yield finding
        ended = [one.number for one in readable if one.status is InvocationStatus.COMPLETED]
        for row in (await store.fetch_ended(ended)).values() if ended else ():
            for finding in _unreadable(row):
                yield finding
        after = page[-1].number
        progressed(len(page))


def _row_error(record: InvocationRecord) -> DurablyError | None:
    """What is wrong with its row, in any status."""
    error = damaged_columns(record)
    if error is not None:
        return error
    try:
        known_outcome(record)
    except UnreadableRecordError as unreadable:
        return unreadable
    return None


class _LimitWaits:
    """How many messages wait for places of limits, which is asked for only where a paused invocation has one."""

    def __init__(self, store: InspectableStore) -> None:
        self._store = store
        self._limits = StoredLimits(store)
        self._waiting: Counter[Pool] | None = None

    async def behind(self, number: int) -> list[tuple[Pool, int]]:
        """The limits of which an invocation keeps a place taken, and how many messages wait for each of them."""
        pools = await self._limits.pools()
        kept = [pool for pool, places in pools.items() if any(one.number == number for one in places.values())]
        if kept and self._waiting is None:
            self._waiting = await self._counted()
        return [] if self._waiting is None else [(pool, self._waiting[pool]) for pool in kept]

    async def _counted(self) -> Counter[Pool]:
        """By what the messages say that have their turn."""
        counted: Counter[Pool] = Counter()
        after = 0
        while page := await self._store.recoverable(after, PAGE):
            after = page[-1][0]
            for stored in (await self._store.fetch([number for number, _ in page])).values():
                if stored.record.status is InvocationStatus.PENDING:
                    pool = await self._limits.pool_of(stored.record)
                    counted.update([] if pool is None else [pool])
        return counted


async def _examined(store: InspectableStore, limits: _LimitWaits, numbers: Sequence[int]) -> list[Finding]:
    found: list[Finding] = []
    seen = await _read(store, numbers)
    suspects: dict[int, list[Finding]] = {}
    for one in seen.values():
        problems = [*_own_problems(one), *await _problems_with_others(store, one)]
        if problems:
            suspects[one.record.number] = problems
        else:
            found += await _notes(store, limits, one)
    for _ in range(LOOKS - 1):
        again = await _read(store, list(suspects))
        for number in list(suspects):
            now = again.get(number)
            if now is None or now.version != seen[number].version:
                del suspects[number]  # It goes on.
                continue
            still = {one.code for one in (*_own_problems(now), *await _problems_with_others(store, now))}
            suspects[number] = [one for one in suspects[number] if one.code in still]
    return [*found, *(finding for problems in suspects.values() for finding in problems)]


async def _read(store: InspectableStore, numbers: Sequence[int]) -> dict[int, _Seen]:
    if not numbers:
        return {}
    rows = await store.fetch(numbers)
    timers: dict[int, dict[tuple[TimerKind, int], int]] = {}
    for timer in await store.timers_of(numbers):
        timers.setdefault(timer.number, {})[timer.kind, timer.command] = timer.due
    return {number: _Seen(stored, _journal(stored), timers.get(number, {})) for number, stored in rows.items()}


def _journal(stored: StoredInvocation) -> Journal | None:
    if journal_load_error(stored) is not None:
        return None
    try:
        return journal_of(stored)
    except UnreadableStepError:
        return None


def _own_problems(seen: _Seen) -> list[Finding]:
    """What its own rows say."""
    record, journal = seen.record, seen.journal
    found: list[Finding] = []
    kinds = {kind for kind, _ in seen.timers}
    needed = [_NEEDED_TIMERS[record.status]] if record.status in _NEEDED_TIMERS else []
    if record.deadline is not None and record.outcome is None:
        needed.append(TimerKind.DEADLINE)
    for kind in needed:
        if kind not in kinds:
            code, words = _TIMER_WORDS[kind]
            found.append(_stuck(record, code, words))
    for when, kind in ((record.due, TimerKind.START), (record.deadline, TimerKind.DEADLINE)):
        found += _wrong_timer(record, seen.timers.get((kind, 0)), when)
    if journal is None:
        return [*found, *_unreadable(seen.stored)]
    if record.status is not InvocationStatus.SUSPENDED:
        return found
    if journal.undelivered:
        answer = journal.undelivered[0].command
        what = "a cancel" if answer < 0 else f"the answer to command {answer}"
        found.append(_stuck(record, "not-woken", f"is suspended, and {what} is stored that nothing wakes it for"))
    if not journal.undelivered and not any(_is_awaited(one) for one in journal.pending.values()):
        found.append(_stuck(record, "waits-for-nothing", "is suspended, and its journal names nothing to wait for"))
    signals = {signal.name for signal in seen.stored.signals}
    for number, command in journal.pending.items():
        if isinstance(command, Sleep):
            due = seen.timers.get((TimerKind.SLEEP, number))
            found += _wrong_timer(record, due, command.due)
            if due is None:
                words = f"sleeps (command {number}), and no timer is stored that wakes it"
                found.append(_stuck(record, "no-sleep-timer", words))
        elif isinstance(command, ANSWERED_BY_THIS_PROCESS) and not isinstance(command, Attach):
            found.append(
                _stuck(record, "not-run", f"is suspended, and command {number} waits for the runtime itself to act")
            )
        elif (name := _awaited_name(record, number, command)) is not None and name in signals:
            what = f"what it waits for has come ({name}) and was not delivered"
            found.append(_stuck(record, "not-delivered", f"is suspended, and {what}"))
    return found


def _wrong_timer(record: InvocationRecord, due: int | None, wanted: int | None) -> list[Finding]:
    """A timer that is there is due when it was asked for."""
    if due is None or wanted is None or due == wanted:
        return []
    words = f"waits until {moment(wanted)}, and its timer is due at {moment(due)}"
    return [_stuck(record, "wrong-timer", words)]


def _unreadable(stored: StoredInvocation) -> list[Finding]:
    record = stored.record
    error = journal_load_error(stored)
    if error is None:
        try:
            journal_of(stored)
        except UnreadableStepError as damaged:
            error = unreadable_error(record, damaged.unreadable)
    return [] if error is None else [problem("unreadable", _name(record), str(error), id=record.id)]


async def _problems_with_others(store: InspectableStore, seen: _Seen) -> list[Finding]:
    """Calls, attaches and promises: what the rows of others say."""
    record, journal = seen.record, seen.journal
    if journal is None or record.status is not InvocationStatus.SUSPENDED:
        return []
    found: list[Finding] = []
    others = await _others(store, record, journal)
    awaits_promise = [command for command in journal.pending.values() if isinstance(command, GetPromise)]
    for number, other in others.items():
        command = journal.pending[number]
        kind = "calls" if isinstance(command, Call) else "is attached to"
        target = _target_of(command)
        if other is None:
            words = f"{kind} {target} (command {number}), and there is no such invocation"
            found.append(_stuck(record, "no-callee", words))
        elif not other.knows(record.number, number):
            words = f"{kind} {target} (command {number}), which does not know that it has to answer"
            found.append(_stuck(record, "not-answered", words))
    if awaits_promise:
        (stored,) = await store.objects([record.address])
        completed = {one.name for one in stored.promises}
        for command in awaits_promise:
            if command.name in completed:
                words = f"is suspended, and the promise {command.name!r} that it waits for is completed"
                found.append(_stuck(record, "not-delivered", words))
    return found


@dataclass(frozen=True, slots=True)
class _Other:
    """An invocation that another one waits for."""

    record: InvocationRecord
    stored: StoredInvocation | None

    def knows(self, number: int, command: int) -> bool:
        """When it ends, it answers this command."""
        if self.stored is None:
            return False
        caller = self.stored.record.caller
        callers = [one.caller for one in self.stored.attachments] + ([] if caller is None else [caller])
        return any((one.number, one.command) == (number, command) for one in callers)


async def _others(store: InspectableStore, record: InvocationRecord, journal: Journal) -> dict[int, _Other | None]:
    """What the calls and attaches of an invocation lead to, by command."""
    by_id: dict[int, str] = {}
    by_scope: dict[int, KeyScope] = {}
    for number, command in journal.pending.items():
        match command:
            case Call(idempotency_key=None, service=service, key=key):
                by_id[number] = derived_invocation_id(record.id, record.seed, number, service, key)
            case Attach(invocation_id=str() as id):
                by_id[number] = id
            case Call() | Attach():
                by_scope[number] = key_scope(command)
            case _:
                pass
    found: Mapping[str, InvocationRecord] = await store.find(list(by_id.values())) if by_id else {}
    for number, id in by_id.items():  # A call of a workflow's `run` joins what has its id.
        command = journal.pending[number]
        if id not in found and isinstance(command, Call):
            by_scope[number] = KeyScope(command.service, command.key or "", command.handler, "")
    keyed: Mapping[KeyScope, InvocationRecord] = await store.find_keyed(list(by_scope.values())) if by_scope else {}
    records = {number: found.get(id) for number, id in by_id.items()}
    records |= {number: keyed.get(scope) for number, scope in by_scope.items()}
    numbers = [one.number for one in records.values() if one is not None]
    rows: Mapping[int, StoredInvocation] = await store.fetch(numbers) if numbers else {}
    return {
        number: None if one is None else _Other(one, rows.get(one.number)) for number, one in records.items()
    }  # fmt: skip


async def _notes(store: InspectableStore, limits: _LimitWaits, seen: _Seen) -> list[Finding]:
    """It is as it should be, and waits for a person."""
    record, journal = seen.record, seen.journal
    if record.status is InvocationStatus.PAUSED:
        behind = 0
        if record.mailbox_position is not None:
            behind = (await store.mailbox(record.address, before=BEHIND_EVERYTHING)).ahead
        known = known_attempt_failure(record.failure)
        waiting = f" {_waiting(behind, ' of its object')} behind it." if behind else ""
        for (name, key), count in await limits.behind(record.number):
            part = f" of {key!r}" if key else ""
            waits = f", for which {_waiting(count)}" if count else ""
            waiting += f" It keeps a place of the limit {name!r}{part} taken{waits}."
        return [
            note(
                "paused",
                _name(record),
                f"It is paused ({known.type}: {known.message}).{waiting}",
                "Mend the cause, then durably invocations resume ID, or restart; or cancel or kill it.",
                id=record.id,
            )
        ]
    if journal is None or record.status is not InvocationStatus.SUSPENDED:
        return []
    pending = journal.pending
    if not pending or not all(isinstance(command, _WAITS_FOR_PEOPLE) for command in pending.values()):
        return []
    if record.deadline is not None:
        return []
    names = ", ".join(_shown(record, number, command) for number, command in pending.items())
    return [
        note(
            "waits-for-somebody",
            _name(record),
            f"It waits for {names}, and for no time.",
            "Nothing to do if somebody will answer.",
            id=record.id,
        )
    ]


def _waiting(count: int, which: str = "") -> str:
    return f"1 message{which} waits" if count == 1 else f"{count:,} messages{which} wait"


def _is_awaited(command: Command) -> bool:
    """Its answer comes from elsewhere; what an atomic handler holds back has none."""
    return not isinstance(command, HELD_BY_ATOMIC)


def _awaited_name(record: InvocationRecord, number: int, command: Command) -> str | None:
    if isinstance(command, AwaitSignal):
        return command.name
    return awakeable_id(record.id, record.seed, number) if isinstance(command, MakeAwakeable) else None


def _shown(record: InvocationRecord, number: int, command: Command) -> str:
    match command:
        case GetPromise(name=name):
            return f"the promise {name!r}"
        case AwaitSignal(name=name):
            return f"the signal {name!r}"
        case _:
            return f"the awakeable {awakeable_id(record.id, record.seed, number)}"


def _target_of(command: Command) -> str:
    match command:
        case Call(service=service, key=key, handler=handler):
            return f"{service}/{handler}" if key is None else f"{service}/{key}/{handler}"
        case Attach(invocation_id=str() as id):
            return id
        case Attach():
            return "/".join(part for part in key_scope(command) if part)
        case _:
            return ""


def _stuck(record: InvocationRecord, code: str, words: str) -> Finding:
    return problem(code, _name(record), f"It {words}.", REPORT, id=record.id)


def _name(record: InvocationRecord) -> str:
    return name_of(record.id, record.address, record.handler)


def name_of(id: str, address: Address, handler: str) -> str:
    """An invocation for people: `Cart/mary/checkout (inv_1…)`."""
    service, key = address
    return f"{service}/{handler} ({id})" if key == id else f"{service}/{key}/{handler} ({id})"
