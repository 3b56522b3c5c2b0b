"""`Guarantees`: what durably promises, checked at every moment of a simulated run.

Each check compares what the machine does, as its log tells it, and what leaves it, as its clients see it, with what is
on the disk. Reports name the numbers:

1. one exclusive invocation per key at a time, in order of acceptance;
2. an acknowledged invocation reaches an outcome, and has one outcome for everybody;
3. an action whose completion is durable is never run again, and none starts before its command is durable;
4. messages are accepted, and invocations end, exactly once, and delayed ones do not begin before their time;
5. no client outside sees anything that a crash can take back;
6. replay issues the recorded commands;
7. every pending invocation has something that will wake it;
8. a second runtime on the same store fails at start;
9. an owner of the store that was superseded answers nothing, reads included, commits nothing and starts no action;
10. a paused invocation goes on when a person has resumed it, and not before;
11. a cancel or a kill reaches every callee that it is for, and a killed tree is free;
12. an invocation has its outcome at its deadline, and keeps it; no caller waits for one that has an outcome; nothing of
    one that has ended is left behind;
13. no invocation waits in a deadlock, and a `DeadlockError` is the answer to the newest call of one;
14. a promise is completed once, and all who wait for it get that value; what a workflow leaves goes together, when
    none of its handlers is in flight; what is left of an object of which a part has gone is marked as such;
15. what need not be kept any longer goes, and not before: outcomes, journals, what workflows leave, and the state of an
    object whose ttl is over;
16. under a limit no more run at once than it says, and no more start in a second; who waits is served in order, and
    begins when there is room;
17. a `DurableList` on the disk has an entry at each of its positions, and at no other;
18. each tick of a schedule becomes one invocation, not before its moment, in the transition in which the schedule moves
    on, and none is forgotten;
19. what has failed is tried again when its policy says so, and not before;
20. messages that one step sends to an object are accepted in the order in which it sent them, and a request from
    outside is refused while as many wait for its object as may;
21. no caller outside waits for an invocation that a paused one holds up;
22. what factories make for an activation is there once while the object is in memory, and is torn down when it leaves;
23. a subscription that moves on is given each event in between that it wants, once and in order, in the same batch, and
    no event is forgotten before every subscription is past it;
24. a handler that asks which invocation runs a workflow gets the one that does, or none where there is none;
25. no more messages of a subscription or a feed are under way than it may have, over restarts too, those behind a
    paused one left out, and none that has room stands still with more to come.

The sixth is checked by the runtime itself, which is set to replay every invocation when it ends, and by the simulation
for what is under way whenever the process dies; the eighth by the simulation, which tries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from functools import partial
from typing import NamedTuple, Protocol

import msgspec

from durably.actors.cron import TICK_HEADER, TICK_KEY_PREFIX, datetime_of, shown_tick
from durably.actors.definition.binding import BoundActorHandler
from durably.actors.protocol.commands import AwaitSignal, Call, Command, GetPromise, MakeAwakeable, Send
from durably.actors.protocol.entries import decode_bounds
from durably.actors.retry import RetryPolicy
from durably.ids import (
    GOING_FIELD,
    RUN,
    Address,
    InvocationStatus,
    KeyScope,
    awakeable_id,
    derived_invocation_id,
    parse_awakeable_id,
    run_scope,
    seeds_of,
)
from durably.runtime.actions.action_attempt import retry_delay
from durably.runtime.actions.actions import ActionKey
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.open_batch import OpenBatch
from durably.runtime.dependencies.made_dependencies import ActivationScope
from durably.runtime.execution.step import Outcome, Step, decode_step, decode_stored_step
from durably.runtime.gateway.control import Verb
from durably.runtime.gateway.requests import Effect
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.invocations.journal import journal_of
from durably.runtime.invocations.outcomes import decode_outcome
from durably.runtime.lifecycle.schedules import ScheduleRow, ScheduleStatus, schedule_name
from durably.storage.memory import StoredRow, holds_mailbox
from durably.storage.records import (
    NO_COMMAND,
    SCHEDULES,
    Batch,
    CompletionRecord,
    InvocationRecord,
    PromiseRecord,
    StoredInvocation,
    TimerKind,
)
from durably.testing.simulation.clock import SimulatedClock
from durably.testing.simulation.deliveries import DeliveryWatch
from durably.testing.simulation.disk import SimulatedDisk
from durably.testing.simulation.held_up import held_up
from durably.testing.simulation.history import History
from durably.testing.simulation.identified_runs import IdentifiedRuns
from durably.testing.simulation.in_flight_watch import InFlightWatch
from durably.testing.simulation.limits import LimitWatch
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


class Order(Protocol):
    """Something that somebody wants done."""

    @property
    def id(self) -> str:
        """Of the invocation that does it; empty before it is accepted."""
        ...


class Turn(NamedTuple):
    """The place in a mailbox of an invocation that has begun, and where in the log it did."""

    position: int
    address: Address
    mailbox_position: int


class Guarantees:
    """Watches one run. `fail` is told of the first promise that does not hold."""

    def __init__(
        self, disk: SimulatedDisk, history: History, clock: SimulatedClock, fail: Callable[[BaseException], None],
        *, retry: RetryPolicy, mailbox_messages: int,
    ) -> None:  # fmt: skip
        """`retry` is the policy of handlers that have none of their own."""
        self._keeping_entries: set[str] = set()
        """Classes whose objects may have entries, of which their snapshots say nothing."""
        self.handlers: Mapping[tuple[str, str], BoundActorHandler] = {}
        """What the process of the moment runs, by service and handler."""
        self._retry = retry
        self._mailbox_messages = mailbox_messages
        self._not_before: dict[str, int] = {}
        """When what has failed may be tried again, at the earliest."""
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
        self._kept_journals: dict[int, int] = {}
        """Until when journals of what has ended are to be kept, by number."""
        self._last_ends: dict[Address, int] = {}
        """When an exclusive handler ended last, by object."""
        self._doomed: dict[str, tuple[int, str]] = {}
        """Callees of killed invocations: where in the log their caller was killed, and which it is."""
        self._told: dict[str, tuple[int, str]] = {}
        """The same of callees that a cancel of their caller goes to."""
        self._ticks: set[KeyScope | None] = set()
        """Of schedules, that have been accepted."""
        self._schedules: dict[str, ScheduleRow] = {}
        """Where they stand on the disk."""
        self._seen_at_rest: tuple[int, int, set[ActionKey]] | None = None
        """What the last look at rest was at: it need not look again before something has changed."""
        self._next_overdue_us = 0
        self._renewed: set[str] = set()
        """Invocations that have gone on in a new execution, which knows nothing of the cancels of those before."""
        self.limits = LimitWatch(disk, clock, partial(self._broken, 16))
        self.deliveries = DeliveryWatch(partial(self._broken, 23))
        self.identified_runs = IdentifiedRuns(disk, partial(self._broken, 24))
        self.in_flight = InFlightWatch(disk, partial(self._broken, 25))
        self._resumed: set[str] = set()
        self._deletions: list[Order] = []
        """Orders to delete objects, of those who wait until that is done."""
        self._before_loads: set[int] = set()
        """Messages of this incarnation that were accepted before their objects had been loaded."""
        self._unwanted_journals: set[str] = set()
        """Invocations whose journals somebody has ordered to be forgotten."""
        """Let go on by a person or a cancel since they were paused, whether that is durable or not."""

    # ------------------------------------------------------------------ what the machine does

    def accepted(self, invocation: InvocationRun) -> None:
        """It is in the log of the machine."""
        activation = invocation.activation
        if activation.loading and not activation.is_rehydrated:
            self._before_loads.add(invocation.number)
        self.identified_runs.accepted(invocation)

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
        if takes_cancel:  # Also of one that is paused, which the disk may not know yet.
            self._resumed.add(invocation.id)
        elif is_paused and invocation.id not in self._resumed:
            self._broken(10, f"{shown(invocation)} runs, and is paused: it was not let go on.")
        not_before = self._not_before.pop(invocation.id, 0)
        if not_before > self._clock.latest and not takes_cancel:
            early_us = not_before - self._clock.latest
            self._broken(19, f"{shown(invocation)} is tried again {early_us / 1_000_000:.3f} s too early.")
        self._attempted.add(invocation.id)
        self.limits.attempted(invocation)
        self._history.begins(invocation)

    def stepped(self, invocation: InvocationRun, position: int) -> None:
        """A step of it is in the log."""
        self._check_ended_once(invocation)
        self._check_alone(invocation, position)
        if invocation.is_exclusive:
            self._current[invocation.address] = invocation.id
        self._note_cancelled_calls(invocation, position)
        self.identified_runs.stepped(invocation, position)

    def concluded(self, invocation: InvocationRun, last: Step, position: int) -> None:
        """Its code has returned with this step."""
        self.identified_runs.concluded(invocation, last, position)

    def ended(self, invocation: InvocationRun, position: int, committer: Committer | None) -> None:
        """Its outcome is in the log."""
        assert invocation.outcome is not None
        self.limits.ended(invocation)
        if invocation.activation.actor.large_fields():
            self._keeping_entries.add(invocation.address.service)
        self._check_ended_once(invocation)
        is_carried_out = invocation.handler.is_by_machine and not invocation.outcome.failed
        if invocation.id in self._attempted or is_carried_out:
            self._check_alone(invocation, position)
            self._check_ttl(invocation)
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
        waiting = Waiting(self._disk, live, self._ends.__contains__, self.limits.holders)
        party = waiting.parties.get(invocation.number)
        if party is None or invocation.number not in waiting.blocked:
            self._broken(13, f"{shown(invocation)} is told of a deadlock, and there is none.")
            return
        members = waiting.knot_of(invocation.number)
        target, newest = party.waits[command], waiting.newest_queued_call(members)
        if target not in members or newest not in (None, target):
            self._broken(
                13, f"{shown(invocation)} is told of a deadlock, and the newest call in it is a different one."
            )
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
        self._before_loads.clear()
        self.limits.incarnation_begins()
        self.deliveries.incarnation_begins()
        self.in_flight.incarnation_begins()
        self.identified_runs.incarnation_begins()
        self._resumed.clear()
        self._not_before = {id: due for id, due in self._not_before.items() if self._backs_off_until(id, due)}
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
        self._check_lists(batch)
        self._check_journals(batch)
        self._check_ticks(batch)
        self.deliveries.committed(batch, self.handlers)
        self.in_flight.committed(batch)
        self.identified_runs.committed(batch.last_position)
        self._starts.update({timer.number: timer.due for timer in batch.timers if timer.kind is TimerKind.START})
        for record in batch.steps:
            self._check_messages(record.number, decode_step(record.content).commands, record.index)
        for accepted in batch.accepted:
            self._check_admitted(accepted)

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
        """A client hears that an awakeable has what it waits for, or that no invocation asks any more (rule E5)."""
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

    # ------------------------------------------------------------------ failures and pauses

    def retries(self, invocation: InvocationRun, error: BaseException) -> None:
        """An attempt failed, and another one comes."""
        own = invocation.handler.retry
        policy = self._retry if own is None else own
        delay_us = retry_delay(policy, invocation.attempts, error)
        self._not_before[invocation.id] = self._clock.now() + delay_us

    def _backs_off_until(self, id: str, due: int) -> bool:
        """The failure is on the disk."""
        row = self._row(id)
        timer = None if row is None else row.timers.get((TimerKind.RETRY, NO_COMMAND))
        return timer is not None and timer.due >= due

    def is_ordered(self, id: str) -> None:
        """Somebody does something to it, which may let it go on at once."""
        self._not_before.pop(id, None)

    def paused(self, invocation: InvocationRun) -> None:
        """It waits for a person from now on."""
        self._resumed.discard(invocation.id)
        self.in_flight.paused(invocation)

    def is_resumed(self, id: str) -> None:
        """A person lets it go on."""
        self._resumed.add(id)

    def object_is_unwanted(self, order: Order) -> None:
        """Somebody orders an object to be deleted, and waits until it is."""
        self._deletions.append(order)

    def journal_is_unwanted(self, id: str) -> None:
        """A person wants the journal of what has ended to be forgotten."""
        self._unwanted_journals.add(id)

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
            case Verb.PURGE_JOURNAL if row.steps or row.completions:
                self._broken(5, f"the journal of {shown_id(id)} was said to be forgotten, and is on the disk.")
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

    def at_rest(
        self, running: set[ActionKey], now_us: int, awaited: Iterable[str], waiting_for_room: Iterable[str]
    ) -> None:
        """The runtime says that nothing can happen unless time passes or somebody asks: see whether that is so.

        `awaited`: the ids of invocations that callers outside wait for; `waiting_for_room`: feeds that say so.
        """
        self._check_kept(now_us)
        self.in_flight.at_rest(self._disk.events.values(), self.deliveries.rows, waiting_for_room)
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
        self._check_refused(known, awaited)
        self._check_orders(known)
        self._check_answered(known)
        self._check_leftovers(now_us)
        self._check_places()
        self._check_schedules(now_us)

    def scopes_at_rest(self, opened: AbstractSet[ActivationScope], activations: Iterable[Activation]) -> None:
        """Guarantee 22, of one process at rest: what is set up there, and what is in memory."""
        used = {activation.made: activation for activation in activations if activation.made is not None}
        for scope, activation in used.items():
            if scope not in opened:
                self._broken(22, f"what was made for {activation.address} is torn down, and the object is in memory.")
        if opened - used.keys():
            self._broken(22, f"what was made for {len(opened - used.keys())} objects outlives them in memory.")

    def _check_ticks(self, batch: Batch) -> None:
        """Guarantee 18."""
        moved = {
            change.field: msgspec.json.decode(change.value, type=ScheduleRow)
            for change in batch.state
            if change.address == SCHEDULES and change.value is not None
        }
        for record in batch.accepted:
            key = "" if record.scope is None else record.scope.idempotency_key or record.address.key
            if key.startswith(TICK_KEY_PREFIX):
                self._check_tick(record, key, moved)
        self._schedules.update(moved)

    def _check_tick(self, record: InvocationRecord, key: str, moved: Mapping[str, ScheduleRow]) -> None:
        service, object_key = record.address
        handler = self.handlers[service, record.handler]
        name = schedule_name(service, object_key if handler.kind in ("exclusive", "shared") else None, handler.name)
        row, before = moved.get(name), self._schedules.get(name)
        moment = datetime.fromisoformat(record.headers[TICK_HEADER])
        if moment > datetime_of(record.accepted_at):
            self._broken(18, f"the tick {key} of {_place(record)} was delivered at {datetime_of(record.accepted_at)}.")
        if record.scope in self._ticks:
            self._broken(18, f"the tick {key} of {_place(record)} was delivered twice.")
        if row is None:
            self._broken(18, f"the tick {key} of {_place(record)} was delivered, and its schedule did not move on.")
        elif before is not None and before.status is row.status is not ScheduleStatus.ON:
            self._broken(18, f"the tick {key} of {_place(record)} was delivered, and its schedule is {row.status}.")
        self._ticks.add(record.scope)

    def _check_schedules(self, now_us: int) -> None:
        """Guarantee 18. What a policy drops moves no row."""
        rows = self._disk.state.get(SCHEDULES, {})
        for handler in self.handlers.values():
            for schedule in handler.schedules:
                name = schedule_name(handler.service, schedule.key, handler.name)
                row = None if name not in rows else msgspec.json.decode(rows[name], type=ScheduleRow)
                if row is None or row.status is not ScheduleStatus.ON or schedule.missed == "skip":
                    continue
                next_tick = schedule.next_after(row.position)
                if next_tick is not None and next_tick + OVERDUE_US < now_us:
                    self._broken(18, f"{name} has not delivered the tick of {shown_tick(next_tick)}.")

    def _check_places(self) -> None:
        """Guarantee 12, of limits."""
        for place in self._disk.places.values():
            row = self._disk.rows.get(place.number)
            if row is None or row.record.status is InvocationStatus.COMPLETED:
                self._broken(12, f"{shown_id(place.id)} has ended, and left its place of a limit behind.")

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
                if row.timers or (row.steps and row.kept is None):
                    self._broken(12, f"{_place(record)} has ended, and left timers or steps behind.")
                if record.expires_at is None:
                    self._broken(15, f"{_place(record)} has ended, and it is not said how long it is kept.")
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
                waits[number] += self.limits.holders(row.record.id) or ()
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

    def _check_refused(self, known: AbstractSet[str], awaited: Iterable[str]) -> None:
        """Guarantee 21."""
        rows = {row.record.number: row for row in self._unfinished()}
        is_held_up = any(row.record.status is InvocationStatus.PAUSED for row in rows.values())
        if not is_held_up or not all(row.record.address.service in known for row in rows.values()):
            return
        held = held_up(rows, self.limits, _pending)
        for id in awaited:
            row = self._row(id)
            if row is not None and row.record.number in held:
                self._broken(21, f"somebody waits for {_place(row.record)}, which a paused invocation holds up.")

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
        if self._awaited_promises(row) or _waits_for_others(row) or self.limits.holders(row.record.id) == []:
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
        if index < seeds_of(row.record.seed, row.record.id)[-1].first_step:
            return  # It was made, and looked at, before the invocation began anew behind it (rule W2).
        first = sum(len(decode_step(row.steps[earlier].content).commands) for earlier in range(index))
        sender = row.record
        last: dict[Address, int] = {}
        for issued, command in enumerate(commands, first):
            if not isinstance(command, Call | Send) or not self._is_sent_at_once(row, command, issued):
                continue
            id = derived_invocation_id(sender.id, sender.seed, issued, command.service, command.key)
            if self._disk.find(id) is None and id not in self._ends:
                self._broken(4, f"a message of {shown_id(sender.id)} to {command.service} is lost.")
            self._check_order(sender, last, id, command)

    def _check_order(self, sender: InvocationRecord, last: dict[Address, int], id: str, command: Call | Send) -> None:
        """Guarantee 20: `last` is where the last message of the step is in the mailbox of each object."""
        record = self._disk.find(id)
        place = None if record is None else record.mailbox_position
        if record is None or place is None or record.due is not None:
            return
        if place < last.get(record.address, 0):
            self._broken(20, f"a message of {shown_id(sender.id)} to {command.service} overtook one sent before it.")
        last[record.address] = place

    def _check_admitted(self, record: InvocationRecord) -> None:
        """Guarantee 20.

        A request is accepted without a look at the store (rule L3), so what waits there does not count before the
        object has been loaded: until then as many may come as may wait, besides those in the store.
        """
        handler = self.handlers.get((record.address.service, record.handler))
        place = record.mailbox_position
        key = None if record.scope is None else record.scope.idempotency_key
        if place is None or record.due is not None or not record.is_from_outside or handler is None:
            return
        if handler.is_by_machine or (key or "").startswith(TICK_KEY_PREFIX):
            return
        ahead = self._ahead_of(record)
        waiting = [number for number in ahead if self._disk.rows[number].record.status is InvocationStatus.PENDING]
        if record.number in self._before_loads:
            waiting = [number for number in waiting if number in self._before_loads]
            most = self._mailbox_messages - 1
        else:
            most = self._mailbox_messages  # The first of them may have begun, in memory.
        if len(waiting) > most:
            self._broken(20, f"{_place(record)} was accepted, and {len(waiting)} messages were waiting before it.")

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
        for address in dict.fromkeys(portion.address for portion in batch.entries_trimmed):
            if self._disk.entries.get(address) and GOING_FIELD not in self._disk.state.get(address, {}):
                self._broken(14, f"a part of {'/'.join(address)} went, and the store does not say so of the rest.")
        for address in batch.vacated:
            left = {*self._disk.unfinished.get(address, ())} - accepted
            if (address.service, RUN) not in self.handlers:
                continue  # An object is deleted in its turn, and what waits behind that goes on.
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

    def _check_lists(self, batch: Batch) -> None:
        """Guarantee 17, of the objects that a batch has changed."""
        changed = [one.address for one in batch.entries]
        changed += [one.address for one in batch.state]
        changed += [cleared.address for cleared in batch.entries_cleared]
        for address in dict.fromkeys(changed):
            state = self._disk.state.get(address, {})
            if GOING_FIELD in state:  # A portion at a time.
                continue
            for field, stored in self._disk.entries.get(address, {}).items():
                positions = [key.position for key in stored.keys if not key.name]
                if not positions or (field not in state and positions == [0]):  # A dictionary; a lazy field.
                    continue
                first, end = decode_bounds(state.get(field))
                if positions != [*range(first, end)]:
                    self._broken(
                        17,
                        f"the list {field} of {'/'.join(address)} goes from {first} to {end}, and has entries at "
                        f"{positions}.",
                    )

    def _check_journals(self, batch: Batch) -> None:
        """Guarantee 15: a journal that was to be kept is kept."""
        now = self._clock.now()
        for number in batch.ended:
            until, row = self._kept_journals.pop(number, None), self._disk.rows.get(number)
            is_unwanted = row is not None and row.record.id in self._unwanted_journals
            if until is None or until <= now or self._clock.jumped_at_us:
                continue
            if not is_unwanted:
                self._broken(15, f"the journal of invocation {number} went {until - now} µs too early.")
            elif row is not None:  # Each order excuses one journal.
                self._unwanted_journals.discard(row.record.id)
        for number in batch.removed:
            self._kept_journals.pop(number, None)
        self._kept_journals.update({kept.number: kept.expires_at for kept in batch.kept})

    def _check_ttl(self, invocation: InvocationRun) -> None:
        """Guarantee 15: an object goes by itself when nothing exclusive has ended there for its ttl, and not before."""
        if not invocation.is_exclusive:
            return
        address, now, ttl_us = invocation.address, self._clock.now(), invocation.activation.actor.ttl_us
        goes_by_itself = invocation.handler.is_deletion and invocation.keep_outcome_us is None
        last = self._last_ends.get(address)
        is_early = goes_by_itself and not self._clock.jumped_at_us and now < (last or 0) + (ttl_us or 0)
        if is_early and not any(order.id == invocation.id for order in self._deletions):
            self._broken(15, f"{shown(invocation)} goes, and its ttl is not over.")
        if not invocation.handler.is_deletion:
            self._last_ends[address] = now

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
            if row.kept is not None:
                self._check_expiry(f"{_place(row.record)} as its journal", row.kept.expires_at, now_us)
        known = {service for service, _ in self.handlers}
        for address, expires_at in self._disk.object_expiries.items():
            if address.service in known:
                self._check_expiry(f"{'/'.join(address)} as its state", expires_at, now_us)
            has_something = address in self._disk.state or address in self._disk.unfinished
            if not has_something and address.service not in self._keeping_entries:
                self._broken(15, f"{'/'.join(address)} has no state, and a moment at which that goes.")
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
            self._broken(
                7, f"a timer of {what} was due {(now_us - due) / 1_000_000:.1f} s ago, and the machine has not noticed."
            )
        match record.status:
            case InvocationStatus.PENDING if record.mailbox_position is None or self._disk.can_run(record):
                if not self.limits.may_wait(record.id):
                    self._broken(7, f"{what} could run, and does not.")
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
                    self._broken(7, f"{what} waits for what is there, and does not get it.")
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
    """The command of this number, if it is durable; a cancel answers none, and its number is negative."""
    if number < 0:
        return None
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
