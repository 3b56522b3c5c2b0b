"""`Guarantees`: what durably promises, checked at every moment of a simulated run.

Each check compares what the machine does, as its log tells it, and what leaves it, as its clients see it, with what is
on the disk. Reports name the numbers:

1. one exclusive invocation per key at a time, in order of acceptance;
2. an acknowledged invocation reaches an outcome, and has one outcome for everybody;
3. an action whose completion is durable is never run again, and none starts before its command is durable;
4. messages are accepted, and invocations end, exactly once, and delayed ones do not begin before their time;
5. nobody outside sees anything that a crash can take back;
6. replay issues the recorded commands;
7. every pending invocation has something that will wake it;
8. a second runtime on the same store fails at start;
9. an owner of the store that was superseded answers nothing, reads included, commits nothing and starts no action;
10. a paused invocation goes on when a person has resumed it, and not before;
11. a cancel or a kill reaches every callee that it is for, and a killed tree is free;
12. an invocation has its outcome at its deadline, and keeps it; nobody waits for one that has an outcome; nothing of
    one that has ended is left behind;
13. nobody waits in a deadlock, and a `DeadlockError` is the answer to the newest call of one;
14. a promise is completed once, and whoever waits for it gets that value; what a workflow leaves goes together, when
    none of its handlers is in flight;
15. what need not be kept any longer goes.

The sixth is checked by the runtime itself, which is set to replay every invocation when it ends, and by the simulation
for what is under way whenever the process dies; the eighth by the simulation, which tries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from durably.actors.definition.binding import BoundActorHandler
from durably.actors.protocol.commands import AwaitSignal, Call, Command, GetPromise, MakeAwakeable, Send
from durably.ids import (
    RUN,
    Address,
    InvocationStatus,
    awakeable_id,
    derived_invocation_id,
    parse_awakeable_id,
    run_scope,
)
from durably.runtime.actions.actions import ActionKey
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.open_batch import OpenBatch
from durably.runtime.execution.step import Outcome, decode_step, decode_stored_step
from durably.runtime.gateway.control import Verb
from durably.runtime.gateway.requests import Effect
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.invocations.journal import journal_of
from durably.runtime.invocations.outcomes import decode_outcome
from durably.storage.memory import StoredRow, holds_mailbox
from durably.storage.records import (
    NO_COMMAND,
    Batch,
    CompletionRecord,
    InvocationRecord,
    PromiseRecord,
    StoredInvocation,
    TimerKind,
)
from durably.testing.simulation.clock import SimulatedClock
from durably.testing.simulation.disk import SimulatedDisk
from durably.testing.simulation.history import History
from durably.testing.simulation.trace import shown, shown_id
from durably.testing.simulation.waiting import Waiting

OVERDUE_US = 5_000_000
"""How long a due timer may go unnoticed by a runtime that has nothing else to do."""
KEPT_TOO_LONG_US = 9_000_000_000
"""How long after its time a kept outcome may still be there: it is looked for once an hour, or more often."""
KEPT_AFTER_JUMPS_US = 90_000_000_000
"""The same where the wall clock was set: no one looks before anything can have expired by a clock that goes on."""
LOADS_ALL_BYTES = 1 << 60


class GuaranteeError(AssertionError):
    """Durably broke a promise of its own. Please report it, with the line that repeats it."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"Guarantee {number} does not hold: {message}")
        self.number = number


class MachineError(AssertionError):
    """The runtime stumbled over a mistake of its own. It recovered, as it should; please report it all the same."""


class End(NamedTuple):
    """How and where in the log an invocation ended."""

    position: int
    outcome: Outcome
    batch: OpenBatch | None
    committer: Committer | None


class Turn(NamedTuple):
    """The place in a mailbox of an invocation that has begun, and where in the log it did."""

    position: int
    address: Address
    mailbox_position: int


class Guarantees:
    """Watches one run. `fail` is told of the first promise that does not hold."""

    def __init__(
        self, disk: SimulatedDisk, history: History, clock: SimulatedClock, fail: Callable[[BaseException], None]
    ) -> None:
        self.handlers: Mapping[tuple[str, str], BoundActorHandler] = {}
        """What the process of the moment runs, by service and handler."""
        self._disk = disk
        self._history = history
        self._clock = clock
        self._fail = fail
        self._starts: dict[int, int] = {}
        """When delayed messages are due, by invocation number."""
        self._attempted: set[str] = set()
        """Invocations whose code has run in this incarnation."""
        self._current: dict[Address, str] = {}
        """The exclusive invocation that has begun and not ended."""
        self._turns: dict[Address, int] = {}
        """The last place in each mailbox that has begun."""
        self._durable_turns: dict[Address, int] = {}
        self._young_turns: deque[Turn] = deque()
        self._ends: dict[str, End] = {}
        self._young_ends: dict[str, int] = {}
        """Those that may not be durable, with their positions."""
        self._answers: dict[str, Outcome] = {}
        """What was told to somebody outside."""
        self._acknowledged: dict[str, None] = {}
        self._signalled: dict[tuple[str, str], int] = {}
        """How many signals of a name to an invocation were acknowledged."""
        self._withdrawn: dict[str, int] = {}
        """Messages that are to be gone because their call was answered with a `DeadlockError`, by number."""
        self._promises: dict[Address, dict[str, PromiseRecord]] = {}
        """What has been completed, by object and name."""
        self._runs: dict[int, Address] = {}
        """The `run`s of workflows that are on the disk, by number."""
        self._expired: dict[tuple[str, int], int] = {}
        """When something was first seen that need not be kept any longer, by the monotonic clock."""
        self._doomed: dict[str, tuple[int, str]] = {}
        """Callees of killed invocations: where in the log their caller was killed, and which it is."""
        self._told: dict[str, tuple[int, str]] = {}
        """The same of callees that a cancel of their caller goes to."""
        self._seen_at_rest: tuple[int, int, set[ActionKey]] | None = None
        """What the last look at rest was at: it need not look again before something has changed."""
        self._next_overdue_us = 0
        self._renewed: set[str] = set()
        """Invocations that have gone on in a new execution, which knows nothing of the cancels of those before."""
        self._resumed: set[str] = set()
        """Let go on by a person or a cancel since they were paused, whether that is durable or not."""

    # ------------------------------------------------------------------ what the machine does

    def attempted(self, invocation: InvocationRun) -> None:
        """Code of it is about to run."""
        due = self._starts.get(invocation.number)
        if due is not None and due > self._clock.latest:
            self._broken(4, f"{shown(invocation)} begins {(due - self._clock.latest) / 1_000_000:.3f} s too early.")
        if self._withdrawn.get(invocation.id) == invocation.number:
            self._broken(13, f"{shown(invocation)} begins, and its call was answered with a DeadlockError.")
        record = self._disk.find(invocation.id)
        takes_cancel = invocation.journal is not None and invocation.journal.takes_cancel  # Rule E1 (e)
        is_paused = record is not None and record.status is InvocationStatus.PAUSED
        if is_paused and takes_cancel:
            self._resumed.add(invocation.id)
        elif is_paused and invocation.id not in self._resumed:
            self._broken(10, f"{shown(invocation)} runs, and is paused: it was not let go on.")
        self._attempted.add(invocation.id)
        self._history.begins(invocation)

    def stepped(self, invocation: InvocationRun, position: int) -> None:
        """A step of it is in the log."""
        self._check_ended_once(invocation)
        self._check_alone(invocation, position)
        if invocation.is_exclusive:
            self._current[invocation.address] = invocation.id
        self._note_cancelled_calls(invocation, position)

    def ended(self, invocation: InvocationRun, position: int, committer: Committer | None) -> None:
        """Its outcome is in the log."""
        assert invocation.outcome is not None
        self._check_ended_once(invocation)
        if invocation.id in self._attempted:
            self._check_alone(invocation, position)
        if self._current.get(invocation.address) == invocation.id:
            del self._current[invocation.address]
        batch = None if committer is None else committer.batch
        self._ends[invocation.id] = End(position, invocation.outcome, batch, committer)
        self._young_ends[invocation.id] = position
        self._history.ended(invocation)

    def deadlocked(
        self,
        invocation: InvocationRun,
        command: int,
        live: Iterable[InvocationRun],
        is_awaited_outside: Callable[[int], bool],
    ) -> None:
        """A command of it is about to be answered with a `DeadlockError`."""
        waiting = Waiting(self._disk, live, self._ends.__contains__)
        party = waiting.parties.get(invocation.number)
        if party is None or invocation.number not in waiting.blocked:
            self._broken(13, f"{shown(invocation)} is told of a deadlock, and there is none.")
            return
        members = waiting.knot_of(invocation.number)
        target, newest = party.waits[command], waiting.newest_queued_call(members)
        if target not in members or newest not in (None, target):
            self._broken(13, f"{shown(invocation)} is told of a deadlock, and the newest call in it is another one.")
        elif newest is not None and not (is_awaited_outside(target) or waiting.is_wanted(target, party.number)):
            self._withdrawn[waiting.parties[target].id] = target

    def killed(self, invocation: InvocationRun, position: int) -> None:
        """It ends, and so do the callees that it waits for."""
        journal = invocation.journal
        for number, command in () if journal is None else journal.pending.items():
            if isinstance(command, Call):
                self._doomed[_callee_id(invocation, number, command)] = position, shown(invocation)

    def incarnation_begins(self) -> None:
        """What was not durable has not happened; what is on the disk goes on."""
        durable = self._disk.last_position
        self._withdrawn = {id: number for id, number in self._withdrawn.items() if number not in self._disk.rows}
        self._attempted.clear()
        self._resumed.clear()
        for id, position in self._young_ends.items():
            if position > durable:
                del self._ends[id]
                self._history.taken_back(id)
        self._young_ends.clear()
        for ordered in (self._doomed, self._told):
            for id in [id for id, (position, _) in ordered.items() if position > durable]:
                del ordered[id]
        self._note_durable_turns(durable)
        self._young_turns.clear()
        self._turns = dict(self._durable_turns)
        self._current = {
            row.record.address: row.record.id
            for row in self._unfinished()
            if holds_mailbox(row.record) and row.steps and row.record.status is not InvocationStatus.PAUSED
        }

    def committed(self, batch: Batch) -> None:
        """A batch is on the disk."""
        self._note_durable_turns(batch.last_position)
        for id, position in list(self._young_ends.items()):
            if position > batch.last_position:
                break
            del self._young_ends[id]
        self._check_workflows(batch)
        self._starts.update({timer.number: timer.due for timer in batch.timers if timer.kind is TimerKind.START})
        for record in batch.steps:
            self._check_messages(record.number, decode_step(record.content).commands, record.index)

    def action_starts(self, key: ActionKey, name: str) -> None:
        """A side effect is about to begin."""
        id, number = key
        row = self._row(id)
        if row is None or number >= _commands(row) or id in self._ends:
            self._broken(3, f"the action {name!r} of {shown_id(id)} starts, and nothing durable asks for it.")
        elif number in _answered(row):
            self._broken(3, f"the action {name!r} of {shown_id(id)} starts again, and its completion is durable.")

    # ------------------------------------------------------------------ what leaves it

    def answered(self, id: str, outcome: Outcome, *, is_owner: bool = True) -> None:
        """Somebody outside is told an outcome, by the owner of the store or by one that was superseded right then."""
        if is_owner and not self._is_durable_end(id):
            self._broken(5, f"the outcome of {shown_id(id)} was told, and it is not on the disk.")
        known = self._answers.setdefault(id, self._outcome(id) or outcome)
        if known != outcome:
            self._broken(2, f"{shown_id(id)} has the outcome {known}, and somebody was told {outcome}.")
        self._history.told(id, outcome)

    def acknowledged(self, id: str) -> None:
        """Somebody outside is told that a message was accepted."""
        self._acknowledged[id] = None
        if self._disk.find(id) is None and not self._is_durable_end(id):
            self._broken(5, f"{shown_id(id)} was acknowledged, and is not on the disk.")

    def told_status(self, id: str, status: InvocationStatus) -> None:
        """Somebody outside is told where an invocation stands."""
        if status is InvocationStatus.COMPLETED and not self._is_durable_end(id):
            self._broken(5, f"{shown_id(id)} was said to be completed, and that is not on the disk.")

    def told_completed(self, id: str) -> None:
        """Somebody outside is told that an awakeable has what it waits for, or that nobody asks any more (rule E5)."""
        awakeable = parse_awakeable_id(id)
        row = None if awakeable is None else self._row(awakeable.invocation_id)
        if awakeable is None or row is None or row.record.outcome is not None or not awakeable.is_of(row.record.seed):
            return
        is_there = awakeable.command in _answered(row) or any(signal.name == id for signal in row.signals.values())
        if not is_there and awakeable.invocation_id not in self._ends:
            self._broken(
                5, f"an awakeable of {shown_id(awakeable.invocation_id)} was completed, which is not on the disk."
            )

    def told_signalled(self, id: str, name: str) -> None:
        """Somebody outside is told that an invocation has a signal."""
        told = self._signalled[id, name] = self._signalled.get((id, name), 0) + 1
        row = self._row(id)
        if row is None or row.record.outcome is not None or id in self._ends:
            return
        steps = [row.steps[index] for index in sorted(row.steps)]
        commands = [command for step in steps for command in decode_step(step.content).commands]
        answered = _answered(row)
        taken = sum(
            isinstance(command, AwaitSignal) and command.name == name and number in answered
            for number, command in enumerate(commands)
        )
        waiting = sum(signal.name == name for signal in row.signals.values())
        if taken + waiting < told:
            self._broken(
                5, f"{told} signals {name!r} to {shown_id(id)} were acknowledged, {taken + waiting} are there."
            )

    def superseded_owner_answers(self, who: str, what: str) -> None:
        """Something leaves a process that another one has taken the store over from."""
        self._broken(9, f"{who} {what}, and another process had taken its store over.")

    # ------------------------------------------------------------------ pauses

    def paused(self, invocation: InvocationRun) -> None:
        """It waits for a person from now on."""
        self._resumed.discard(invocation.id)

    def is_resumed(self, id: str) -> None:
        """A person lets it go on."""
        self._resumed.add(id)

    # ------------------------------------------------------------------ what is done by hand

    def told_effect(self, verb: Verb, id: str, effect: Effect) -> None:
        """A person is told what came of an order to an invocation."""
        row = self._row(id)
        if row is None or effect is Effect.NOTHING:
            return
        record = row.record
        match verb:
            case Verb.RESUME | Verb.RESTART if record.status is InvocationStatus.PAUSED and id in self._resumed:
                self._broken(5, f"{shown_id(id)} was said to go on, and is paused on the disk.")
            case Verb.KILL if record.outcome is None:
                self._broken(5, f"{shown_id(id)} was said to be killed, and goes on on the disk.")
            case Verb.CANCEL if (
                record.outcome is None and id not in self._renewed and min(_answered(row), default=0) >= 0
            ):
                self._broken(5, f"{shown_id(id)} was said to be cancelled, and is not on the disk.")
            case Verb.PURGE if record.scope is None or not record.scope.is_workflow_id:
                self._broken(5, f"the outcome of {shown_id(id)} was said to be forgotten, and is on the disk.")
            case _:
                pass

    def told_effects(self, verb: Verb, ids: Sequence[str]) -> None:
        """A person is told which invocations an order to many had an effect on."""
        for id in ids:
            self.told_effect(verb, id, Effect.DONE)

    def told_restarted(self, old_id: str, new_id: str) -> None:
        """A person is told that what has ended begins once more."""
        self.acknowledged(new_id)
        old, new = self._disk.find(old_id), self._disk.find(new_id)
        if old is None or new is None:
            return
        same = (new.address.service, new.handler, new.argument, new.headers)
        if same != (old.address.service, old.handler, old.argument, old.headers):
            self._broken(4, f"{_place(new)} was to do again what {_place(old)} did, and is another message.")

    def told_id(self, id: str) -> None:
        """Somebody outside is told that an invocation exists."""
        if self._disk.find(id) is None and not self._is_durable_end(id):
            self._broken(5, f"{shown_id(id)} was said to exist, and is not on the disk.")

    # ------------------------------------------------------------------ when nothing happens

    def at_rest(self, running: set[ActionKey], now_us: int) -> None:
        """The runtime says that nothing can happen unless time passes or somebody asks: see whether that is so."""
        self._check_kept(now_us)
        seen = (self._disk.last_position, len(self.handlers), running)
        if seen == self._seen_at_rest and now_us <= self._next_overdue_us:
            return
        self._seen_at_rest = (*seen[:2], set(running))
        dues = (timer.due for row in self._unfinished() for timer in row.timers.values())
        self._next_overdue_us = min(dues, default=now_us + OVERDUE_US) + OVERDUE_US
        waited_for = self._waited_for()
        known = {service for service, _ in self.handlers}
        for row in self._unfinished():
            if row.record.address.service in known:
                self._check_has_waker(row, running, now_us, waited_for)
        self._check_circles(known)
        self._check_orders(known)
        self._check_answered(known)
        self._check_leftovers(now_us)

    def _check_orders(self, known: AbstractSet[str]) -> None:
        """Guarantee 11."""
        for order in self._disk.orders.values():
            record = self._disk.find(order.id)
            if record is None or record.address.service in known:
                self._broken(11, f"an order to {order.kind} {shown_id(order.id)} is recorded, and not carried out.")
        for id, (_, caller) in self._doomed.items():
            row = self._row(id)
            if row is not None and row.record.status is not InvocationStatus.COMPLETED:
                self._broken(11, f"{_place(row.record)} goes on, and {caller}, which called it, was killed.")
        for id, (_, caller) in self._told.items():
            row = self._row(id)
            if row is None or row.record.scope is not None or row.record.status is InvocationStatus.COMPLETED:
                continue
            if row.record.outcome is None and min(_answered(row), default=0) >= 0:
                self._broken(11, f"{_place(row.record)} was not cancelled, and {caller}, which called it, was.")

    def _check_answered(self, known: AbstractSet[str]) -> None:
        """Guarantee 12: whose callee has an outcome has its answer."""
        for row in self._unfinished():
            if row.record.address.service not in known:
                continue
            answered = _answered(row)
            for number, command in _pending(row).items():
                if not isinstance(command, Call) or number in answered:
                    continue
                callee = self._disk.find(_callee_id(row.record, number, command))
                if callee is not None and callee.outcome is not None:
                    self._broken(12, f"{_place(row.record)} waits for {_place(callee)}, which has an outcome.")

    def _check_leftovers(self, now_us: int) -> None:
        """Guarantee 12."""
        for row in self._disk.rows.values():
            record = row.record
            if record.status is InvocationStatus.COMPLETED:
                if row.timers or row.steps:
                    self._broken(12, f"{_place(record)} has ended, and left timers or steps behind.")
                continue
            for kind, status in _TIMERS_OF.items():
                if record.status is not status and (kind, NO_COMMAND) in row.timers:
                    self._broken(12, f"{_place(record)} is {record.status}, and has a timer of kind {kind}.")
            deadline, has_service = record.deadline, (record.address.service, record.handler) in self.handlers
            if deadline is not None and record.outcome is None and deadline + OVERDUE_US < now_us and has_service:
                self._broken(12, f"the deadline of {_place(record)} has passed, and it has no outcome.")

    def _check_circles(self, known: AbstractSet[str]) -> None:
        """Guarantee 13. Who waits only for each other would wait for ever."""
        rows = {row.record.number: row for row in self._unfinished()}
        waits: dict[int, list[int]] = {number: [] for number in rows}
        for number, row in rows.items():
            callers = [attachment.caller for attachment in row.attachments.values()]
            for caller in callers if row.record.caller is None else (row.record.caller, *callers):
                waits.setdefault(caller.number, []).append(number)
            if row.record.status is InvocationStatus.PENDING:
                waits[number] += self._ahead_of(row.record)
        waked = {number for number, row in rows.items() if self._wakes_by_itself(row, known)}
        while more := {number for number in rows if number not in waked and waked.intersection(waits[number])}:
            waked |= more
        stuck = [number for number in rows if number not in waked]
        if stuck:
            circle = [stuck[0]]
            while (following := next((other for other in waits[circle[-1]] if other in rows), None)) not in circle:
                if following is None:
                    return  # It waits for one that is gone, which is another guarantee.
                circle.append(following)
            assert following is not None
            circle = [*circle[circle.index(following) :], following]
            told = ", which waits for ".join(_place(rows[number].record) for number in circle)
            self._broken(13, f"a deadlock stays: {told}.")

    def _ahead_of(self, record: InvocationRecord) -> list[int]:
        """The invocations of the same object that have to end before it can begin."""
        mine = record.mailbox_position
        numbers = self._disk.unfinished.get(record.address, ())
        others = [self._disk.rows[number].record for number in sorted(numbers) if number != record.number]
        return [
            other.number
            for other in others
            if mine is not None
            and other.mailbox_position is not None
            and (holds_mailbox(other) or other.mailbox_position < mine)
        ]

    def _wakes_by_itself(self, row: StoredRow, known: AbstractSet[str]) -> bool:
        """It needs no other invocation to go on."""
        status = row.record.status
        kinds = {kind for kind, _ in row.timers}
        if row.record.address.service not in known or kinds - {TimerKind.DEADLINE}:
            return True
        if self._awaited_promises(row) or _waits_for_others(row):
            return True
        return status not in (InvocationStatus.SUSPENDED, InvocationStatus.PENDING)

    def at_the_end(self) -> None:
        """The run is over."""
        for id in self._acknowledged:
            if self._disk.find(id) is None and id not in self._ends:
                self._broken(2, f"{shown_id(id)} was acknowledged, and is lost.")

    # ------------------------------------------------------------------ inside

    def _broken(self, number: int, message: str) -> None:
        self._fail(GuaranteeError(number, message))

    def _row(self, id: str) -> StoredRow | None:
        number = self._disk.numbers_by_id.get(id)
        return None if number is None else self._disk.rows[number]

    def _unfinished(self) -> list[StoredRow]:
        return [self._disk.rows[number] for numbers in self._disk.unfinished.values() for number in sorted(numbers)]

    def _note_durable_turns(self, durable: int) -> None:
        while self._young_turns and self._young_turns[0].position <= durable:
            turn = self._young_turns.popleft()
            self._durable_turns[turn.address] = max(self._durable_turns.get(turn.address, 0), turn.mailbox_position)

    def _check_ended_once(self, invocation: InvocationRun) -> None:
        if invocation.id in self._ends:
            self._broken(4, f"{shown(invocation)} has ended, and goes on.")

    def _check_alone(self, invocation: InvocationRun, position: int) -> None:
        """Guarantee 1."""
        place = invocation.mailbox_position
        if not invocation.is_exclusive or place is None:
            return
        address = invocation.address
        other = self._current.get(address)
        if other is not None and other != invocation.id:
            self._broken(1, f"{shown(invocation)} runs while {shown_id(other)} is under way on the same object.")
        last = self._turns.get(address, 0)
        if place < last and other is None:
            self._broken(1, f"{shown(invocation)} runs after one that was accepted later.")
        if place > last:
            self._turns[address] = place
            self._young_turns.append(Turn(position, address, place))

    def _outcome(self, id: str) -> Outcome | None:
        """How it ended, as the machine said, or else as the disk says."""
        end = self._ends.get(id)
        if end is not None:
            return end.outcome
        record = self._disk.find(id)
        return None if record is None or record.outcome is None else decode_outcome(record.outcome)

    def _is_durable_end(self, id: str) -> bool:
        """Guarantee 5: a crash at this moment would leave the outcome, or what it did to the world of the disk."""
        record = self._disk.find(id)
        if record is not None and record.outcome is not None:
            return True
        end = self._ends.get(id)
        if end is None:
            return False
        if end.position <= self._disk.last_position:
            return True
        # A batch in which everything cancelled out is never written, and then there is nothing that could be lost.
        in_flight = self._disk.in_flight
        is_open = end.committer is not None and end.committer.batch is end.batch
        return not is_open and (in_flight is None or in_flight.last_position < end.position)

    def _note_cancelled_calls(self, invocation: InvocationRun, position: int) -> None:
        journal = invocation.journal
        if journal is None or not journal.steps[-1].cancelled:
            return
        commands = [command for step in journal.steps for command in step.commands]
        for number in journal.steps[-1].cancelled:
            command = commands[number]
            if isinstance(command, Call):
                self._told[_callee_id(invocation, number, command)] = position, shown(invocation)

    def _check_messages(self, number: int, commands: Iterable[object], index: int) -> None:
        """Guarantee 4: a step and the messages that it sent are durable together."""
        row = self._disk.rows.get(number)
        if row is None:
            return
        first = sum(len(decode_step(row.steps[earlier].content).commands) for earlier in range(index))
        sender = row.record
        for issued, command in enumerate(commands, first):
            if not isinstance(command, Call | Send) or not self._is_sent_at_once(row, command, issued):
                continue
            id = derived_invocation_id(sender.id, sender.seed, issued, command.service, command.key)
            if self._disk.find(id) is None and id not in self._ends:
                self._broken(4, f"a message of {shown_id(sender.id)} to {command.service} is lost.")

    def _is_sent_at_once(self, row: StoredRow, command: Call | Send, number: int) -> bool:
        """Not one that joins an earlier message, or waits for an outcome (rule V6), or cannot be delivered."""
        if command.idempotency_key is not None or number in _answered(row):
            return False
        receiver = self.handlers.get((command.service, command.handler))
        if receiver is not None and receiver.kind == "workflow":
            return False
        if isinstance(command, Call):
            return True
        sender = self.handlers.get((row.record.address.service, row.record.handler))
        return sender is not None and not sender.atomic and (command.service, command.handler) in self.handlers

    def _check_workflows(self, batch: Batch) -> None:
        """Guarantee 14, of what a batch has done; it is on the disk."""
        accepted = {record.number for record in batch.accepted}
        for execution in batch.renewed:
            row = self._disk.rows.get(execution.number)
            if row is not None:
                self._renewed.add(row.record.id)
            address = self._runs.pop(execution.previous, None)
            if address is not None:
                self._runs[execution.number] = address
        for number in batch.removed:
            self._check_let_go(self._runs.pop(number, None), batch)
        for address in batch.vacated:
            left = {*self._disk.unfinished.get(address, ())} - accepted
            if left or address in self._runs.values():
                self._broken(14, f"the state of {'/'.join(address)} went, and something of it goes on or is kept.")
            self._promises.pop(address, None)
        self._runs.update({
            record.number: record.address
            for record in batch.accepted
            if record.scope is not None and record.scope.is_workflow_id
        })  # fmt: skip
        for promise in batch.promises:
            known = self._promises.setdefault(promise.address, {}).setdefault(promise.name, promise)
            if (known.failed, known.value) != (promise.failed, promise.value):
                self._broken(14, f"the promise {promise.name!r} of {'/'.join(promise.address)} is completed again.")
        for completion in batch.completions:
            self._check_promise_answer(completion)

    def _check_let_go(self, address: Address | None, batch: Batch) -> None:
        if address is not None and address not in batch.vacated and self._promises.get(address):
            self._broken(14, f"the outcome of {'/'.join(address)} went, and its promises stay.")

    def _check_promise_answer(self, completion: CompletionRecord) -> None:
        row = self._disk.rows.get(completion.number)
        promises = None if row is None else self._promises.get(row.record.address)
        if row is None or promises is None:
            return
        command = _command(row, completion.command)
        kept = promises.get(command.name) if isinstance(command, GetPromise) else None
        if kept is None or (kept.failed, kept.value) == (completion.failed, completion.value):
            return
        self._broken(14, f"{_place(row.record)} heard something else of the promise {kept.name!r} than it holds.")

    def _check_kept(self, now_us: int) -> None:
        """Guarantee 14."""
        for row in self._disk.rows.values():
            expires_at = row.record.expires_at
            if row.record.status is InvocationStatus.COMPLETED and expires_at is not None:
                self._check_expiry(_place(row.record), expires_at, now_us)
        for address, promises in self._disk.promises.items():
            if (run_scope(*address)) not in self._disk.numbers_by_scope:
                moments = [promise.expires_at for promise in promises.values()]
                if None not in moments:
                    self._check_expiry("/".join(address), max(filter(None, moments), default=now_us), now_us)

    def _check_expiry(self, what: str, expires_at: int, now_us: int) -> None:
        if expires_at > now_us:
            return
        now = self._clock.monotonic()
        kept_us = now - self._expired.setdefault((what, expires_at), now)
        if kept_us > (KEPT_AFTER_JUMPS_US if self._clock.jumped_at_us else KEPT_TOO_LONG_US):
            self._broken(15, f"what {what} left is kept {kept_us / 1_000_000:.0f} s too long.")

    def _awaited_promises(self, row: StoredRow) -> list[str]:
        """The promises that an invocation waits for."""
        handler = self.handlers.get((row.record.address.service, RUN))
        if handler is None or handler.kind != "workflow":
            return []
        pending = journal_of(self._disk.journal(row, LOADS_ALL_BYTES)).pending.values()
        return [command.name for command in pending if isinstance(command, GetPromise)]

    def _waited_for(self) -> set[int]:
        """The numbers of the invocations that an unfinished one will answer."""
        found: set[int] = set()
        for row in self._unfinished():
            if row.record.caller is not None:
                found.add(row.record.caller.number)
            found.update(attachment.caller.number for attachment in row.attachments.values())
        return found

    def _check_has_waker(self, row: StoredRow, running: set[ActionKey], now_us: int, waited_for: set[int]) -> None:
        """Guarantee 7."""
        record = row.record
        what = _place(record)
        due = min((timer.due for timer in row.timers.values()), default=None)
        if due is not None and due + OVERDUE_US < now_us:
            self._broken(7, f"a timer of {what} was due {(now_us - due) / 1_000_000:.1f} s ago, and nobody noticed.")
        match record.status:
            case InvocationStatus.PENDING if record.mailbox_position is None or self._disk.can_run(record):
                self._broken(7, f"{what} could run, and nobody runs it.")
            case InvocationStatus.RUNNING if not any(id == record.id for id, _ in running):
                self._broken(7, f"{what} is said to run, and nothing is under way for it.")
            case InvocationStatus.BACKING_OFF if (TimerKind.RETRY, NO_COMMAND) not in row.timers:
                self._broken(7, f"{what} is to be tried again, and no timer is set.")
            case InvocationStatus.SCHEDULED if (TimerKind.START, NO_COMMAND) not in row.timers:
                self._broken(7, f"{what} is to begin later, and no timer is set.")
            case InvocationStatus.SUSPENDED:
                promises = self._awaited_promises(row)
                completed = self._disk.promises.get(record.address, {}).keys() & promises
                if completed:
                    self._broken(7, f"{what} waits for the promise {min(completed)!r}, which is completed.")
                elif _has_what_it_waits_for(row):
                    self._broken(7, f"{what} waits for what is there, and nobody gives it to it.")
                elif due is None and record.number not in waited_for and not promises and not _waits_for_others(row):
                    self._broken(7, f"{what} waits, and nothing will ever wake it.")
            case _:
                pass


def _unanswered(row: StoredRow) -> Mapping[int, Command]:
    """The commands that an invocation waits for, and that have no answer, by number."""
    ordered = [row.steps[index] for index in sorted(row.steps)]
    completions = [row.completions[place] for place in sorted(row.completions)]
    return journal_of(StoredInvocation(row.record, ordered, completions, [], False)).pending


def _waits_for_others(row: StoredRow) -> bool:
    """It waits for a signal or an awakeable: anybody may wake it, at any time."""
    return any(isinstance(command, AwaitSignal | MakeAwakeable) for command in _unanswered(row).values())


def _has_what_it_waits_for(row: StoredRow) -> bool:
    """A signal is there that one of its commands waits for."""
    if not row.signals:
        return False
    record, there = row.record, {signal.name for signal in row.signals.values()}
    waited_for = {
        command.name if isinstance(command, AwaitSignal) else awakeable_id(record.id, record.seed, number)
        for number, command in _unanswered(row).items()
        if isinstance(command, AwaitSignal | MakeAwakeable)
    }
    return bool(there & waited_for)


def _place(record: InvocationRecord) -> str:
    service, key = record.address
    place = service if key == record.id else f"{service}/{key}"
    return f"{place}/{record.handler} ({shown_id(record.id)})"


def _command(row: StoredRow, number: int) -> Command | None:
    """The command of this number, if it is durable."""
    first = 0
    for index in sorted(row.steps):
        commands = decode_step(row.steps[index].content).commands
        if number < first + len(commands):
            return commands[number - first]
        first += len(commands)
    return None


_TIMERS_OF = {
    TimerKind.RETRY: InvocationStatus.BACKING_OFF,
    TimerKind.START: InvocationStatus.SCHEDULED,
}
"""Timers that an invocation has only while it stands so."""


def _callee_id(caller: InvocationRun | InvocationRecord, number: int, call: Call) -> str:
    return derived_invocation_id(caller.id, caller.seed, number, call.service, call.key)


def _pending(row: StoredRow) -> dict[int, Command]:
    """The commands of an unfinished invocation that no step has taken the answer of, or given up."""
    steps = [decode_step(row.steps[index].content) for index in sorted(row.steps)]
    pending = dict(enumerate(command for step in steps for command in step.commands))
    for step in steps:
        for number in (*step.deliveries, *step.abandoned):
            pending.pop(number, None)
    return pending


def _commands(row: StoredRow) -> int:
    """How many commands of an invocation are durable."""
    return sum(len(decode_step(step.content).commands) for step in row.steps.values())


def _answered(row: StoredRow) -> set[int]:
    """The commands of an invocation whose answers are durable, in records of their own or in steps."""
    kept = {one.command for step in row.steps.values() for one in decode_stored_step(step.content)[1]}
    return kept | {command for _, command in row.completions}
