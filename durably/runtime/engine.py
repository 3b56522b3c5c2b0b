"""`Engine`: one incarnation of the machine. Advance, append, act.

It takes what is ready (a fresh message, an answer, a retry), advances that invocation, appends the step as a transition to
the open batch, and acts on it at once inside the process: messages go to mailboxes, callees run. Exits go through the
committer's gates. A failed commit ends the incarnation: everything it held is void, and a new one recovers from the store
(rule X3). All of it runs in plain callbacks of the host loop, never inside a task (rule S1).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from durably.actors.binding import BoundActor, BoundActorHandler
from durably.actors.commands import Attach, Call, Command, Look, Run, Send, Sleep
from durably.actors.failures import encode_failure
from durably.actors.request import Request
from durably.actors.retry import RetryPolicy
from durably.errors import (
    DeadlineExceededError,
    NonDeterminismError,
    InvalidArgumentError,
    PausedInvocationError,
    StoreUnavailableError,
    TerminalError,
    UnknownTargetError,
    find_mistake,
)
from durably.ids import SEED_BYTES, Address, Entropy, InvocationStatus, KeyScope, derived_invocation_id, is_storable
from durably.runtime.actions import ActionKey, ActionResult, Actions, retry_delay
from durably.runtime.activation import Activation, apply_changes
from durably.runtime.alarm import Alarm
from durably.runtime.answers import encode_status, from_timestamp
from durably.runtime.clock import Cancellable, Clock
from durably.runtime.committer import Committer
from durably.runtime.directory import Directory, Waiter
from durably.runtime.execution import Execution
from durably.runtime.failures import decode_attempt_failure, describe_failure, encode_attempt_failure
from durably.runtime.giveway import GiveWay
from durably.runtime.invocation import Invocation, Journal, decode_outcome, from_stored
from durably.runtime.journal import AttemptFailure, Delivery, Outcome, Step
from durably.runtime.logs import RuntimeLog
from durably.runtime.lookups import Lookup
from durably.runtime.residence import Residence
from durably.runtime.settings import Settings
from durably.storage.records import (
    DEADLINE_TIMER,
    RETRY_TIMER,
    START_TIMER,
    CallerRecord,
    CompletionRecord,
    InvocationRecord,
    StoredInvocation,
    StoredObject,
    TimerRecord,
)
from durably.storage.store import Store

SLEEP_ANSWER = b"null"
NO_KEYS: Mapping[KeyScope, InvocationRecord | None] = {}


class EngineOwner(Protocol):
    """The runtime, which outlives its engines."""

    def incarnation_failed(self, engine: Engine, error: BaseException, /) -> None: ...
    def invocation_paused(self, invocation: Invocation, error: BaseException, told: bool, /) -> None: ...
    def progressed(self) -> None:
        """A batch is durable."""
        ...


class Engine:
    """The machine on an open store. Made by the supervisor for each incarnation, with everything it depends on."""

    def __init__(
        self,
        *,
        owner: EngineOwner,
        store: Store,
        actors: Mapping[str, BoundActor],
        actions: Actions,
        clock: Clock,
        entropy: Entropy,
        settings: Settings,
        log: RuntimeLog,
        give_way: GiveWay,
        last_position: int,
    ) -> None:
        self._host = asyncio.get_running_loop()
        self.actors = actors
        self.settings = settings
        self.clock = clock
        self.stopping = False
        self.dead = False
        self.committer = committer = Committer(store, clock, settings, self, last_position, give_way)
        self.when_durable = committer.when_durable
        failed, answered = self._store_failed, self._store_answered
        self.directory = Directory(store, self._in_thread, committer.when_durable, failed, answered)
        self.residence = Residence(
            actors, self._ask_load, committer, self.directory, clock, settings, self, failed, answered
        )
        self.alarm = Alarm(store, clock, settings, self)
        self._owner = owner
        self._store = store
        self._actions = actions
        self._entropy = entropy
        self._log = log
        self._give_way = give_way
        self._ready: deque[Invocation] = deque()
        self._pump_scheduled = False
        self._pumping = False
        self._scheduled: dict[int, Invocation] = {}
        """Delayed messages that are due soon."""
        self._fetched: dict[int, list[CallerRecord]] = {}
        """Delayed messages on their way from the store, with who attached meanwhile."""
        self._fetch: Lookup[int, StoredInvocation | None] = Lookup(
            self._ask_fetch, committer.when_durable, failed, answered
        )
        self._expiry_timer: Cancellable | None = None
        self._idle_waiters: list[asyncio.Future[None]] = []
        self._durable_waiters: set[asyncio.Future[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # ================================================================== accepting

    def accept(
        self,
        handler: BoundActorHandler,
        key: str | None,
        argument: bytes,
        id: str,
        headers: dict[str, str],
        scope: KeyScope | None,
        caller: CallerRecord | None,
        sender_id: str | None,
        timeout_us: int | None,
        due: int | None,
        keep_outcome_us: int | None,
    ) -> Invocation:
        """Accept a message into the open batch and its mailbox. Part of the sender's transition, or one of its own."""
        now = self.clock.now()
        committer = self.committer
        number = committer.next_position()
        is_exclusive = handler.kind == "exclusive"
        if timeout_us is None:
            timeout_us = handler.timeout_us
        if due is not None:
            status = InvocationStatus.SCHEDULED
        else:
            status = InvocationStatus.PENDING if is_exclusive else InvocationStatus.RUNNING
        invocation = Invocation(
            number,
            id,
            Address(handler.service, id if key is None else key),
            handler,
            self._entropy.random_bytes(SEED_BYTES),
            argument,
            headers,
            scope,
            caller,
            sender_id,
            None if timeout_us is None else now + timeout_us,
            now,
            keep_outcome_us,
            status,
            number if is_exclusive and due is None else None,
        )
        self.directory.enter(invocation)
        committer.batch.accept(invocation)
        if invocation.deadline is not None:
            self._set_timer(invocation, DEADLINE_TIMER, invocation.deadline)
        if due is None:
            self.residence.admit(invocation, is_new=True)
        elif self._set_timer(invocation, START_TIMER, due):
            self._scheduled[number] = invocation
        else:
            self.when_durable(self.directory.forget, invocation)
        return invocation

    def _join_mailbox(self, invocation: Invocation) -> None:
        """The time of a delayed message has come: it goes behind what is there (rule C6)."""
        position = self.committer.next_position()
        invocation.status = InvocationStatus.PENDING if invocation.is_exclusive else InvocationStatus.RUNNING
        invocation.mailbox_position = position if invocation.is_exclusive else None
        self.committer.batch.clear_timer(invocation.number, START_TIMER)
        self.committer.batch.change(invocation)
        self.directory.enter(invocation)
        self.residence.admit(invocation, is_new=True)

    def target(self, service: str, key: str | None, handler: str) -> BoundActorHandler:
        """The handler that a message is for.

        Raises:
            UnknownTargetError: there is none; says what there is.
        """
        actor = self.actors.get(service)
        if actor is None:
            known = sorted(self.actors)
            raise UnknownTargetError(
                f"There is no service or object {service!r} here. There are: {', '.join(known)}.", known=known
            )
        bound = actor.handlers.get(handler)
        if bound is None:
            known = sorted(actor.handlers)
            raise UnknownTargetError(f"{service} has no handler {handler!r}. It has: {', '.join(known)}.", known=known)
        if key is not None and not is_storable(key):
            raise InvalidArgumentError(f"The key {key!r} of {service} is not Unicode text without NUL, so it cannot be stored.")
        if (key is None) != (bound.kind == "service"):
            need = "is a service and takes no key" if key is not None else "is a virtual object and needs a key"
            raise UnknownTargetError(f"{service} {need}.", known=[service])
        return bound

    def retention_us(self, handler: BoundActorHandler) -> int:
        """How long outcomes of a handler are kept."""
        return self.settings.retention_us if handler.retention_us is None else handler.retention_us

    # ================================================================== the pump

    def queue(self, invocation: Invocation, /) -> None:
        """It is ready to be advanced."""
        if not invocation.is_queued:
            invocation.is_queued = True
            self._ready.append(invocation)
            if not self._pump_scheduled:
                self.poke()

    def poke(self) -> None:
        """Something is ready or was appended: see to it, in a callback of its own."""
        if not self._pump_scheduled and not self._pumping:
            self._pump_scheduled = True
            self._host.call_soon(self._pump)

    def _pump(self) -> None:
        """Work off what is ready, for a bounded time, then see whether a batch can go."""
        self._pump_scheduled = False
        if self.dead:
            return
        self._pumping = True
        ready, monotonic, committer = self._ready, self.clock.monotonic, self.committer
        began = monotonic()
        until = began + self.settings.pump_budget_us
        try:
            while ready and not committer.is_behind():
                invocation = ready.popleft()
                self._run(invocation)
                ended = monotonic()
                if ended - began > self.settings.slow_advance_us:  # Rule S7
                    self._log.slow(invocation, ended - began)
                began = ended
                if ended > until or self.dead:
                    break
        except MemoryError:  # Rule E3: what a handler could not go on with is the host's business; the others go on.
            self._pumping = False
            self.poke()
            raise
        except Exception as error:  # A mistake of ours: fail and recover, rather than go on half.
            self._owner.incarnation_failed(self, error)
        finally:
            self._pumping = False
        if self.dead:
            return
        committer.poke()
        if ready and not committer.is_behind():
            self.poke()
        elif self._idle_waiters:
            self._tell_if_idle()

    def is_quiet(self) -> bool:
        return not self._ready and not self._pumping

    def caught_up(self) -> None:
        if self.committer.commits == 1:
            self._owner.progressed()
        if self._ready:
            self.poke()
        self._tell_if_idle()

    def is_idle(self) -> bool:
        """Nothing can happen here unless time passes or somebody asks."""
        return (
            not self._ready
            and not self._pump_scheduled
            and self.committer.is_settled()
            and not self.committer.writing
            and self._actions.busy == 0
            and not (self.residence.loading or self.directory.outstanding or self._fetch.outstanding)
            and not self._tasks
        )

    async def until_idle(self) -> None:
        """Wait until nothing can happen unless time passes or somebody asks."""
        while not self.is_idle() and not self.dead:
            waiter: asyncio.Future[None] = self._host.create_future()
            self._idle_waiters.append(waiter)
            await waiter

    async def until_durable(self) -> None:
        """Wait until everything that is in the log now is on disk.

        Raises:
            StoreUnavailableError: it never will be, in this incarnation.
        """
        durable: asyncio.Future[None] = self._host.create_future()
        self._durable_waiters.add(durable)
        self.when_durable(_resolve, durable)
        self.poke()
        try:
            await durable
        finally:
            self._durable_waiters.discard(durable)

    def _tell_if_idle(self) -> None:
        if self._idle_waiters and (self.dead or self.is_idle()):
            waiters, self._idle_waiters = self._idle_waiters, []
            for waiter in waiters:
                _resolve(waiter)

    def action_rested(self) -> None:
        """An action has ended or backs off."""
        self._tell_if_idle()

    def _store_answered(self) -> None:
        self.poke()

    # ================================================================== advance, append, act

    def _run(self, invocation: Invocation) -> None:
        """Advance one invocation by what has come for it."""
        invocation.is_queued = False
        if invocation.outcome is not None or invocation.is_held:
            return
        activation = self.residence.activations[invocation.address]
        journal = invocation.journal
        execution = invocation.execution
        if execution is None:
            execution = invocation.execution = self._attempt(activation, invocation)
            if journal is not None and not self._replay(activation, invocation, execution, journal):
                return
        if journal is None:
            at, deliveries = self.clock.now(), ()
        elif not journal.undelivered:
            self._park(invocation, journal)
            return
        else:
            at, deliveries = max(self.clock.now(), journal.not_before), journal.undelivered  # Rule T1
        if invocation.handler.kind == "shared":
            execution.use_snapshot(activation.view())
        taken = len(deliveries)
        try:
            step = execution.advance(at, deliveries, invocation.attempts + 1)
        except BaseException:  # Rule E3: dropped unrecorded; it is the host's.
            self._throw_away(invocation)
            raise
        if isinstance(step, AttemptFailure):
            self._attempt_failed(activation, invocation, step.error)
        elif any(map(_has_key, step.commands)) or (journal is not None and journal.held_sends):
            self._look_keys_up(activation, invocation, step, taken)
        else:
            self._append(activation, invocation, step, taken, NO_KEYS)

    def _attempt(self, activation: Activation, invocation: Invocation) -> Execution:
        scope, deadline = invocation.scope, invocation.deadline
        request = Request(
            id=invocation.id,
            headers=invocation.headers,
            body=invocation.argument,
            idempotency_key=None if scope is None else scope.idempotency_key,
            deadline=None if deadline is None else from_timestamp(deadline),
            attempt=invocation.attempts + 1,
        )
        if self._log.debug:
            self._log.invoked(invocation)
        return Execution(
            activation.actor,
            invocation.handler,
            invocation.address.key,
            request,
            invocation.argument,
            invocation.seed,
            activation.snapshot,
            self._log,
            self.settings,
            self._host,
        )

    def _replay(self, activation: Activation, invocation: Invocation, execution: Execution, journal: Journal) -> bool:
        """Bring a new attempt to the end of the journal; False if its code does not follow the journal any more."""
        try:
            execution.replay(journal.steps, journal.deliveries)
        except NonDeterminismError as error:
            self._pause(activation, invocation, error)
            return False
        if self._log.debug:
            self._log.replayed(invocation, len(journal.steps))
        for number in execution.actions:
            self.when_durable(self._start_action, (invocation, number))
        for number in list(journal.unanswered):
            if number not in execution.actions:
                self._ask_for(invocation, number, journal.pending[number])
        return True

    def _look_keys_up(self, activation: Activation, invocation: Invocation, step: Step, taken: int) -> None:
        """A step that uses idempotency keys is appended when it is known what they stand for (rule L3)."""
        messages: list[Command] = list(step.commands)
        if invocation.handler.atomic:  # Rule V6: its messages are sent at the end, if at all.
            held = [] if invocation.journal is None else [command for _, command in invocation.journal.held_sends]
            messages = (
                [*held, *messages]
                if step.outcome is not None
                else [one for one in messages if not isinstance(one, Send)]
            )
        scopes = [scope for command in messages if (scope := _scope_of(command)) is not None]
        unknown = [scope for scope in scopes if scope not in self.directory.keyed]
        if not unknown:
            self._append(activation, invocation, step, taken, NO_KEYS)
            return
        invocation.is_held = True
        self.directory.pin(unknown, partial(self._keys_known, activation, invocation, step, taken))

    def _keys_known(
        self,
        activation: Activation,
        invocation: Invocation,
        step: Step,
        taken: int,
        found: Mapping[KeyScope, InvocationRecord | None],
    ) -> None:
        invocation.is_held = False
        self._append(activation, invocation, step, taken, found)
        if invocation.journal is not None and invocation.journal.undelivered:
            self.wake(invocation)

    def _append(
        self,
        activation: Activation,
        invocation: Invocation,
        step: Step,
        taken: int,
        found: Mapping[KeyScope, InvocationRecord | None],
    ) -> None:
        """The step becomes part of the log, and everything inside the process may act on it."""
        invocation.position = activation.changed_at = self.committer.next_position()
        if invocation.attempts:
            invocation.attempts, invocation.failing_since, invocation.failure = 0, None, None
        if step.outcome is not None:
            self._finish(activation, invocation, step, step.outcome, found)
            return
        journal = invocation.journal
        if journal is None:
            journal = invocation.journal = Journal()
        first = journal.next_command
        self.committer.batch.step(invocation.number, len(journal.steps), step)
        journal.take(step, taken)
        if self._log.debug:
            self._log.journaled(invocation, step)
        for number in step.abandoned:
            if number < first:
                self._give_up(invocation, journal, number)
        for offset, command in enumerate(step.commands):
            self._issue(invocation, journal, first + offset, command, found, first + offset in step.abandoned)
        self._park(invocation, journal)

    def _issue(
        self,
        invocation: Invocation,
        journal: Journal,
        number: int,
        command: Command,
        found: Mapping[KeyScope, InvocationRecord | None],
        abandoned: bool,
    ) -> None:
        """Act on a command that is part of the log now; of one that was given up in the same step only messages stand."""
        if isinstance(command, Send):
            if invocation.handler.atomic:
                journal.held_sends.append((number, command))
            else:
                self._send(invocation, number, command, None, command.due, found)
            return
        if abandoned:
            if isinstance(command, Call):
                self._send(invocation, number, command, None, None, found)
            return
        journal.pending[number] = command
        match command:
            case Call():
                self._send(
                    invocation,
                    number,
                    command,
                    CallerRecord(invocation.address, invocation.number, number),
                    None,
                    found,
                )
            case Sleep():
                self._set_timer(invocation, number, command.due)
            case Run():
                journal.unanswered.add(number)
                self.when_durable(self._start_action, (invocation, number))
            case Look() | Attach():
                journal.unanswered.add(number)
                self._ask_for(invocation, number, command)

    def _give_up(self, invocation: Invocation, journal: Journal, number: int) -> None:
        """The handler does not want this answer any more (rule C5)."""
        match journal.give_up(number):
            case Sleep():
                self.committer.batch.clear_timer(invocation.number, number)
                self.alarm.clear(invocation.number, number)
            case Run():
                self._actions.cancel((invocation.id, number))
            case _:
                pass

    def _park(self, invocation: Invocation, journal: Journal) -> None:
        """Its step is over and it waits; what it waits for says what it is."""
        if invocation.outcome is not None or invocation.is_held:
            return
        is_running = bool(journal.unanswered or journal.undelivered)
        invocation.status = InvocationStatus.RUNNING if is_running else InvocationStatus.SUSPENDED
        self.committer.batch.change(invocation)
        if journal.undelivered:
            self.queue(invocation)
        elif not is_running:
            self.residence.park(invocation)

    def wake(self, invocation: Invocation, /) -> None:
        """An answer is there."""
        if invocation.status is InvocationStatus.SUSPENDED:
            invocation.status = InvocationStatus.RUNNING
            self.committer.batch.change(invocation)
        if invocation.status is InvocationStatus.RUNNING and not invocation.is_held:
            self.queue(invocation)

    def begin(self, activation: Activation, invocation: Invocation, /) -> None:
        """Its turn in the mailbox has come; if its deadline has passed meanwhile, it never starts."""
        if invocation.deadline is not None and invocation.deadline <= self.clock.now():
            self._host.call_soon(self._never_start, activation, invocation)
        else:
            self.queue(invocation)

    def _never_start(self, activation: Activation, invocation: Invocation) -> None:
        if not self.dead and invocation.outcome is None:
            self._fail(activation, invocation, _deadline_error())
            self.poke()

    def take_up(self, invocation: Invocation, /) -> None:
        """A started invocation has come back from the store: go on, if there is something to go on with (rule T3)."""
        journal = invocation.journal
        if journal is not None:
            for number, command in journal.pending.items():
                if isinstance(command, Run | Look | Attach):
                    journal.unanswered.add(number)
            if invocation.handler.atomic:
                _hold_sends_again(journal)
            if journal.undelivered or journal.unanswered:
                self.wake(invocation)
        if invocation.status is InvocationStatus.RUNNING:
            self.queue(invocation)

    def suspend(self, invocation: Invocation, /) -> None:
        """Throw the attempt away while it waits; it continues from its journal (rule L4)."""
        journal = invocation.journal
        if (
            invocation.execution is None
            or journal is None
            or journal.undelivered
            or journal.unanswered
            or invocation.is_queued
            or invocation.is_held
            or invocation.outcome is not None
            or invocation.position > self.committer.durable
        ):
            return
        self._throw_away(invocation)
        if self._log.debug:
            self._log.suspended(invocation)
        self.residence.let_go(invocation.address)

    def _throw_away(self, invocation: Invocation) -> None:
        execution = invocation.execution
        if execution is not None:
            invocation.execution = None
            execution.close()
            if invocation.parked_in is not None:
                self.residence.unpark(invocation)

    # ================================================================== outcomes

    def _finish(
        self,
        activation: Activation,
        invocation: Invocation,
        last: Step | None,
        outcome: Outcome,
        found: Mapping[KeyScope, InvocationRecord | None],
    ) -> None:
        """An invocation ends: state, answers, messages and the mailbox in one transition."""
        journal = invocation.journal
        if last is not None:
            if self.settings.verify_replay and not self._verify(activation, invocation, last):
                return
            if last.commands or (journal is not None and journal.held_sends):
                self._issue_last(invocation, last, outcome, found)
            self._warn_leftovers(invocation)
        self._throw_away(invocation)
        if invocation.handler.kind == "exclusive":
            self._keep_changes(activation, invocation, last, outcome)
        if journal is not None:
            self._cancel_pending(invocation, journal)
        if invocation.deadline is not None:
            self.alarm.clear(invocation.number, DEADLINE_TIMER)
        invocation.outcome = outcome
        invocation.status = InvocationStatus.COMPLETED
        keep_us = self._keep_outcome_us(invocation)
        if keep_us is not None:
            invocation.expires_at = self.clock.now() + keep_us
        self.committer.batch.end(invocation, keep=keep_us is not None)
        if self._log.debug:
            self._log.ended(invocation)
        self._answer_everybody(invocation, outcome)
        self.directory.note_end(invocation.number)
        if keep_us is None and invocation.scope is None:
            self.directory.forget(invocation)
        else:
            self.when_durable(self.directory.forget, invocation)
        if activation.current is invocation:
            activation.current = None
            self.residence.start_next(activation)
        else:
            activation.beside.pop(invocation.number, None)
        self.residence.rest(activation)

    def _keep_changes(
        self, activation: Activation, invocation: Invocation, last: Step | None, outcome: Outcome
    ) -> None:
        if outcome.failed and invocation.handler.atomic:  # Rule V6
            return
        if invocation.journal is not None:
            self._change_state(activation, invocation.journal.changes)
        if last is not None and last.changes is not None:
            self._change_state(activation, last.changes)

    def _change_state(self, activation: Activation, changes: Mapping[str, bytes | None]) -> None:
        apply_changes(activation.snapshot, changes)
        for name, value in changes.items():
            self.committer.batch.set_state(activation.address, name, value)

    def _issue_last(
        self, invocation: Invocation, last: Step, outcome: Outcome, found: Mapping[KeyScope, InvocationRecord | None]
    ) -> None:
        """Calls and sends of the last step stand; nobody waits for the answers of the calls (rule S6)."""
        journal = invocation.journal
        first = 0 if journal is None else journal.next_command
        messages: list[tuple[int, Command]] = [] if journal is None else journal.held_sends
        messages += [(first + offset, command) for offset, command in enumerate(last.commands)]
        drop_sends = outcome.failed and invocation.handler.atomic  # Rule V6
        for number, command in messages:
            if isinstance(command, Call):
                self._send(invocation, number, command, None, None, found)
            elif isinstance(command, Send) and not drop_sends:
                self._send(invocation, number, command, None, command.due, found)

    def _verify(self, activation: Activation, invocation: Invocation, last: Step) -> bool:
        """Replay the whole invocation, the last step included; a difference pauses it."""
        execution = self._attempt(activation, invocation)
        journal = invocation.journal
        steps = [last] if journal is None else [*journal.steps, last]
        deliveries = {} if journal is None else {delivery.command: delivery for delivery in journal.undelivered}
        if journal is not None:
            deliveries.update(journal.deliveries)
        try:
            execution.replay(steps, deliveries)
        except NonDeterminismError as error:
            self._pause(activation, invocation, error)
            return False
        finally:
            execution.close()
        return True

    def _cancel_pending(self, invocation: Invocation, journal: Journal) -> None:
        for number, command in journal.pending.items():
            if isinstance(command, Sleep):
                self.alarm.clear(invocation.number, number)
            elif isinstance(command, Run):
                self._actions.cancel((invocation.id, number))
        journal.pending.clear()
        journal.unanswered.clear()

    def _keep_outcome_us(self, invocation: Invocation) -> int | None:
        """How long somebody may still come for the outcome (rule X7)."""
        if invocation.keep_outcome_us is not None or invocation.sender_id is None:
            return invocation.keep_outcome_us
        may_ask = self.directory.may_ask(invocation.sender_id, invocation.sender_unfinished)
        return self.retention_us(invocation.handler) if may_ask else None

    def _warn_leftovers(self, invocation: Invocation) -> None:
        execution = invocation.execution
        leftovers = None if execution is None else execution.leftover_tasks()
        if leftovers and execution is not None:  # Rule S6
            self._log.warned(
                execution, f"the handler ended and left tasks behind, which are thrown away: {', '.join(leftovers)}"
            )

    def _answer_everybody(self, invocation: Invocation, outcome: Outcome) -> None:
        if invocation.caller is not None:
            self._answer(invocation.caller, outcome)
        for caller in invocation.attachments:
            self._answer(caller, outcome)
        waiters = self.directory.waiters.pop(invocation.number, None)
        if waiters is not None:
            self.when_durable(_tell_outcome, (waiters, outcome, invocation.expires_at))

    # ================================================================== messages between objects

    def _send(
        self,
        sender: Invocation,
        number: int,
        command: Call | Send,
        caller: CallerRecord | None,
        due: int | None,
        found: Mapping[KeyScope, InvocationRecord | None],
    ) -> None:
        """Accept a message from a handler, in its transition; a refusal is its answer."""
        try:
            handler = self.target(command.service, command.key, command.handler)
            argument = handler.admit(command.argument) if command.wire else command.argument
        except TerminalError as error:
            if caller is not None:
                self._answer(caller, Outcome(True, encode_failure(error)))
            else:
                self._log.undeliverable(sender, command, error)
            return
        id = derived_invocation_id(sender.seed, number)
        scope = None if command.idempotency_key is None else _scope_of(command)
        if scope is not None:
            first = self.directory.keyed.get(scope)
            record = found.get(scope) if first is None else None
            if first is not None or record is not None:
                self._join_first(id, first, record, caller)
                return
        self.accept(
            handler,
            command.key,
            argument,
            id,
            command.headers,
            scope,
            caller,
            sender.id if caller is None else None,
            command.timeout_us,
            due,
            None if scope is None else self.retention_us(handler),
        )

    def _join_first(
        self, id: str, first: Invocation | None, record: InvocationRecord | None, caller: CallerRecord | None
    ) -> None:
        """A duplicate joins the first, in whatever phase that is; the id that the sender was given leads there (rule C7)."""
        joined = first if first is not None else record
        assert joined is not None
        self.committer.batch.alias(id, joined.number)
        if first is not None:
            self.directory.alias(id, first)
        if caller is not None:
            self._attach(caller, first, record)

    def _attach(self, caller: CallerRecord, first: Invocation | None, record: InvocationRecord | None) -> None:
        """Let a waiting command be answered by the outcome of an invocation that exists."""
        outcome = first.outcome if first is not None else None
        if record is not None and first is None and record.outcome is not None:
            outcome = decode_outcome(record.outcome)
        if outcome is not None:
            self._answer(caller, outcome)
            return
        if first is not None:
            if caller not in first.attachments:
                first.attachments += (caller,)
                self.committer.batch.attach(first.number, caller)
        elif record is not None:
            self.committer.batch.attach(record.number, caller)
            activation = self.residence.activations.get(record.address)
            if record.number in self._fetched:
                self._fetched[record.number].append(caller)
            elif activation is not None and activation.arrivals is not None:
                activation.arrivals.attachments.append((record.number, caller))
        self._is_attached(caller)

    def _is_attached(self, caller: CallerRecord) -> None:
        """From now on the target wakes the caller: it need not stay running for that."""
        activation = self.residence.activations.get(caller.address)
        invocation = None if activation is None else activation.find(caller.number)
        if invocation is None or invocation.journal is None:
            return
        if caller.command in invocation.journal.unanswered:
            invocation.journal.unanswered.discard(caller.command)
            if not invocation.is_queued and invocation.status is InvocationStatus.RUNNING:
                self._park(invocation, invocation.journal)

    def _ask_for(self, invocation: Invocation, number: int, command: Command) -> None:
        """Answer a question about another invocation, from memory or the store."""
        caller = CallerRecord(invocation.address, invocation.number, number)
        if isinstance(command, Look):
            self.directory.by_id(command.invocation_id, partial(self._looked, caller, command.invocation_id))
        elif isinstance(command, Attach) and command.invocation_id is not None:
            self.directory.by_id(command.invocation_id, partial(self._found_to_attach, caller, command.invocation_id))
        elif isinstance(command, Attach):
            scope = KeyScope(
                command.service or "", command.key or "", command.handler or "", command.idempotency_key or ""
            )
            name = f"of {scope.service}/{scope.handler} with the idempotency key {scope.idempotency_key!r}"
            self._host.call_soon(
                self.directory.by_key, scope, partial(self._found_to_attach, caller, name)
            )

    def _looked(self, caller: CallerRecord, id: str, known: Invocation | None, record: InvocationRecord | None) -> None:
        self.committer.next_position()
        found = known if known is not None else record
        self._answer(caller, no_such_invocation(id) if found is None else Outcome(False, encode_status(found.status)))

    def _found_to_attach(
        self, caller: CallerRecord, name: str, known: Invocation | None, record: InvocationRecord | None
    ) -> None:
        self.committer.next_position()
        if known is None and record is None:
            self._answer(caller, no_such_invocation(name))
        else:
            self._attach(caller, known, record)

    # ================================================================== answers

    def _answer(self, caller: CallerRecord, outcome: Outcome) -> None:
        """Record the answer to a command, in the same transition as what it follows from (rule C2)."""
        activation = self.residence.activation(caller.address)
        if activation.arrivals is None:
            invocation = activation.find(caller.number)
            if invocation is not None:
                self._complete(activation, invocation, caller.command, outcome.failed, outcome.value)
            return
        position = activation.changed_at = self.committer.next_position()
        self.committer.batch.complete(
            CompletionRecord(caller.number, caller.command, position, outcome.failed, outcome.value)
        )
        self.committer.batch.wake(caller.number)
        activation.arrivals.answers.append((caller.number, Delivery(caller.command, outcome.failed, outcome.value)))

    def _complete(
        self, activation: Activation, invocation: Invocation, command: int, failed: bool, value: bytes
    ) -> None:
        journal = invocation.journal
        if journal is None or not journal.answer(Delivery(command, failed, value)):  # Rule C3
            return
        position = activation.changed_at = self.committer.next_position()
        self.committer.batch.complete(CompletionRecord(invocation.number, command, position, failed, value))
        self.wake(invocation)

    # ================================================================== actions

    def _start_action(self, which: tuple[Invocation, int]) -> None:
        """An exit: the command is durable (rule X1)."""
        invocation, number = which
        execution, journal = invocation.execution, invocation.journal
        if execution is None or journal is None or self.stopping:
            return
        action, command = execution.actions.get(number), journal.pending.get(number)
        if action is None or not isinstance(command, Run):
            return
        report = partial(self._log.action_retries, invocation, command.name)
        self._actions.start(
            (invocation.id, number), command.name, action, self._policy(invocation), self._action_ended, report
        )

    def _action_ended(self, key: ActionKey, result: ActionResult) -> None:
        if self.dead:  # The next incarnation joins it (rule A1).
            return
        id, number = key
        invocation = self.directory.live.get(id)
        if invocation is None or invocation.journal is None or number not in invocation.journal.pending:
            self._actions.settled(key)
            return
        activation = self.residence.activations[invocation.address]
        if result.exhausted is not None:
            self._actions.settled(key)
            self._pause(activation, invocation, result.exhausted)
        else:
            self._complete(activation, invocation, number, result.failed, result.value)
            self.when_durable(self._actions.settled, key)
        self.poke()

    # ================================================================== failures

    def _policy(self, invocation: Invocation) -> RetryPolicy:
        return self.settings.retry if invocation.handler.retry is None else invocation.handler.retry

    def _attempt_failed(self, activation: Activation, invocation: Invocation, error: BaseException) -> None:
        """No step: commands and changes are dropped unacted, answers stay undelivered; the failure is recorded (rule S2)."""
        self._throw_away(invocation)
        if find_mistake(error) is not None:
            self._pause(activation, invocation, error)
            return
        policy = self._policy(invocation)
        now = self.clock.now()
        if invocation.failing_since is None:
            invocation.failing_since = now
        invocation.attempts += 1
        gives_up = policy.gives_up_on(error)
        if gives_up or policy.exhausted(invocation.attempts, now - invocation.failing_since):
            if gives_up or policy.then == "fail":
                self._fail(activation, invocation, TerminalError(describe_failure(error)))
            else:
                self._pause(activation, invocation, error)
            return
        delay = retry_delay(policy, invocation.attempts, error)
        invocation.position = activation.changed_at = self.committer.next_position()
        invocation.failure = encode_attempt_failure(error)
        invocation.status = InvocationStatus.BACKING_OFF
        self.committer.batch.change(invocation)
        self._set_timer(invocation, RETRY_TIMER, now + delay)
        self._log.retries(invocation, error, delay)

    def _fail(self, activation: Activation, invocation: Invocation, error: TerminalError) -> None:
        """End an invocation without its handler."""
        activation.changed_at = self.committer.next_position()
        self._finish(activation, invocation, None, Outcome(True, encode_failure(error)), NO_KEYS)

    def _pause(self, activation: Activation, invocation: Invocation, error: BaseException) -> None:
        """A retry cannot mend it: wait for a person, and tell those outside who wait."""
        self._throw_away(invocation)
        invocation.position = activation.changed_at = self.committer.next_position()
        invocation.failure = encode_attempt_failure(error)
        invocation.status = InvocationStatus.PAUSED
        invocation.paused_error = error
        self.committer.batch.change(invocation)
        self._log.paused(invocation, error)
        news = PauseNews(invocation, error)
        self._tell_paused(news, invocation)
        news.on_their_way -= 1
        self._news_spread(news)

    def _tell_paused(self, news: PauseNews, waiting: Invocation) -> None:
        """Whoever outside waits for it, or for an invocation that waits for it, need not hang; callers may be in the store only."""
        news.reached.add(waiting.number)
        self._tell_waiters(news, waiting.number)
        callers = waiting.attachments if waiting.caller is None else (waiting.caller, *waiting.attachments)
        for caller in callers:
            if caller.number in news.reached or not self.directory.waiters:
                continue
            news.reached.add(caller.number)
            news.on_their_way += 1
            self.residence.with_loaded(caller.address, partial(self._tell_caller, news, caller))

    def _tell_waiters(self, news: PauseNews, number: int) -> None:
        waiters = self.directory.waiters.pop(number, None)
        if waiters is not None:
            news.told = True
            self.when_durable(_refuse_all, (waiters, news.refusal))

    def _tell_caller(self, news: PauseNews, caller: CallerRecord, activation: Activation) -> None:
        waiting = activation.find(caller.number)
        if waiting is not None and waiting.journal is not None and caller.command in waiting.journal.pending:
            self._tell_paused(news, waiting)
        news.on_their_way -= 1
        self._news_spread(news)

    def _news_spread(self, news: PauseNews) -> None:
        if news.on_their_way == 0:
            self.when_durable(self._tell_owner, news)  # Rule X1

    def _tell_owner(self, news: PauseNews) -> None:
        self._owner.invocation_paused(news.invocation, news.error, news.told)

    def tell_stored_pause(self, record: InvocationRecord) -> None:
        """Somebody outside waits for an invocation that is paused, and is in the store only."""
        failure = decode_attempt_failure(record.failure) if record.failure is not None else None
        reason = "nothing is recorded" if failure is None else f"{failure.type}: {failure.message}"
        waiters = self.directory.waiters.pop(record.number, [])
        self.when_durable(_refuse_all, (waiters, PausedInvocationError(record.id, reason)))

    def resume(self, invocation: Invocation) -> None:
        """A person says: try again, from the journal."""
        if invocation.status is not InvocationStatus.PAUSED:
            return
        self.committer.next_position()
        invocation.status = InvocationStatus.RUNNING
        invocation.attempts, invocation.failing_since, invocation.paused_error = 0, None, None
        self.committer.batch.change(invocation)
        self.queue(invocation)

    # ================================================================== time

    def _set_timer(self, invocation: Invocation, command: int, due: int) -> bool:
        """Wake the invocation at `due`; False if that is so late that only the store remembers."""
        timer = TimerRecord(invocation.number, command, due, invocation.address)
        self.committer.batch.set_timer(timer)
        return self.alarm.set(timer)

    def time_has_come(self, timer: TimerRecord, /) -> None:
        if timer.address.service not in self.actors:
            self._log.nobody_home(timer.address)
        elif timer.command == START_TIMER:
            self._start_time_has_come(timer.number)
        elif timer.command == RETRY_TIMER:
            self.residence.with_loaded(timer.address, partial(self._retry, timer.number))
        elif timer.command == DEADLINE_TIMER:
            self._deadline_has_come(timer)
        else:
            self.committer.next_position()
            self.committer.batch.clear_timer(timer.number, timer.command)
            self._answer(CallerRecord(timer.address, timer.number, timer.command), Outcome(False, SLEEP_ANSWER))

    def _start_time_has_come(self, number: int) -> None:
        scheduled = self._scheduled.pop(number, None)
        if scheduled is not None:
            self._join_mailbox(scheduled)
        else:
            self._fetched[number] = []
            self._fetch(number, partial(self._fetched_scheduled, number))

    def _fetched_scheduled(self, number: int, stored: StoredInvocation | None) -> None:
        attached = self._fetched.pop(number, [])
        if stored is None or stored.record.status is not InvocationStatus.SCHEDULED:
            return
        actor = self.actors[stored.record.address.service]
        handler = actor.handler_or_missing(stored.record.handler, shared=False)
        invocation = from_stored(stored, handler)
        invocation.attachments += tuple(caller for caller in attached if caller not in invocation.attachments)
        self._join_mailbox(invocation)

    def _retry(self, number: int, activation: Activation) -> None:
        invocation = activation.find(number)
        self.committer.next_position()
        self.committer.batch.clear_timer(number, RETRY_TIMER)
        if invocation is not None and invocation.status is InvocationStatus.BACKING_OFF:
            invocation.status = InvocationStatus.RUNNING
            self.committer.batch.change(invocation)
            self.queue(invocation)
        self.poke()

    def _deadline_has_come(self, timer: TimerRecord) -> None:
        scheduled = self._scheduled.pop(timer.number, None)
        if scheduled is None:
            self.residence.with_loaded(timer.address, partial(self._deadline_passed, timer.number))
            return
        self.alarm.clear(timer.number, START_TIMER)
        self._fail(self.residence.stand_in(timer.address), scheduled, _deadline_error())

    def _deadline_passed(self, number: int, activation: Activation) -> None:
        """Not started: it never will. Under way: those who wait are told, and it goes on."""
        self.committer.next_position()
        self.committer.batch.clear_timer(number, DEADLINE_TIMER)
        waiting, started = activation.find_waiting(number), activation.find(number)
        if waiting is not None:
            activation.mailbox.remove(waiting)
            self._fail(activation, waiting, _deadline_error())
        elif started is not None:
            self._answer_everybody(started, Outcome(True, encode_failure(_deadline_error())))
        else:  # Far back in a mailbox, or delayed: in the store only.
            self._fetch(number, partial(self._deadline_of_stored, activation))
        self.poke()

    def _deadline_of_stored(self, activation: Activation, stored: StoredInvocation | None) -> None:
        if stored is None or activation.arrivals is not None:  # If it is on its way, it is looked at when it would start.
            return
        record = stored.record
        is_waiting = record.status in (InvocationStatus.PENDING, InvocationStatus.SCHEDULED)
        if not is_waiting or record.number in self._scheduled or activation.find_waiting(record.number) is not None:
            return
        if record.status is InvocationStatus.PENDING and activation.tail:
            activation.tail -= 1
        handler = activation.actor.handler_or_missing(record.handler, shared=record.mailbox_position is None)
        self._fail(self.residence.stand_in(record.address), from_stored(stored, handler), _deadline_error())
        self.poke()

    # ================================================================== recovery and the end

    def start(self) -> None:
        """Recover in the background; requests are served meanwhile, through the same loads (rule T3)."""
        self.alarm.open_window()
        self.spawn(self._recover())
        self.spawn(self._expire())

    async def _recover(self) -> None:
        after, portion = 0, self.settings.recovery_portion
        while not self.dead:
            found = await self._store.recoverable(after, portion)
            for number, address in found:
                after = max(after, number)
                if self.dead:
                    return
                if address.service in self.actors:
                    self.residence.activation(address)
                else:
                    self._log.nobody_home(address)
            await self.residence.settle()
            if len(found) < portion:
                return

    async def _expire(self) -> None:
        """Forget outcomes that nobody may come for any more; again and again."""
        portion = self.settings.expiry_portion
        while not self.dead:
            expired = await self._store.expired(self.clock.now(), portion)
            for record in expired:
                if not self.dead and record.id not in self.directory.live:
                    self.committer.next_position()
                    self.committer.batch.remove(record.number)
                    self.directory.note_end(record.number)
            if not expired:
                break
            await self.until_durable()
        if not self.dead:
            self._expiry_timer = self.clock.call_later(self.settings.expire_every_us, self._expire_again)

    def _expire_again(self) -> None:
        if not self.dead:
            self.spawn(self._expire())

    def spawn(self, coroutine: Coroutine[Any, Any, None], /) -> None:
        """Run something in the background; if it fails, the store has failed."""
        task = self._host.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._background_ended)

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._store_failed(error)
        self._tell_if_idle()

    def commit_failed(self, error: BaseException, /) -> None:
        self._owner.incarnation_failed(self, error)

    def _store_failed(self, error: BaseException) -> None:
        if not self.dead:
            self._owner.incarnation_failed(self, error)

    def kill(self) -> None:
        """End the incarnation: whatever it held is void, and late callbacks find it dead (rule X3)."""
        self.dead = True
        self.committer.kill()
        self.directory.kill()
        self.residence.kill()
        self.alarm.kill()
        self._fetch.kill()
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
        for task in self._tasks:
            task.cancel()
        for invocation in self.directory.live.values():
            self._throw_away(invocation)
        self._ready.clear()
        for waiter in self._durable_waiters:
            if not waiter.done():
                waiter.set_exception(StoreUnavailableError("The store failed before it had answered. Ask again."))
        self._tell_if_idle()

    async def finish(self) -> None:
        """After `kill`: wait until nothing of it touches the store any more."""
        await self.committer.finish()
        await self.directory.finish()
        await self.residence.finish()
        await self._fetch.finish()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # ================================================================== questions to the store

    async def _in_thread(self, question: Coroutine[Any, Any, Any]) -> Any:
        """While the store's threads work, a busy loop gives way to them (rule X8)."""
        self._give_way.begin()
        try:
            return await question
        finally:
            self._give_way.end()

    async def _ask_load(self, addresses: Sequence[Address]) -> Callable[[Address], StoredObject]:
        question = self._store.load(addresses, pending_limit=self.settings.pending_in_memory)
        loaded: list[StoredObject] = await self._in_thread(question)
        return {stored.address: stored for stored in loaded}.__getitem__

    async def _ask_fetch(self, numbers: Sequence[int]) -> Callable[[int], StoredInvocation | None]:
        fetched: Mapping[int, StoredInvocation] = await self._in_thread(self._store.fetch(numbers))
        return fetched.get


class PauseNews:
    """That an invocation is paused, on its way to everybody outside who waits for it."""

    def __init__(self, invocation: Invocation, error: BaseException) -> None:
        self.invocation = invocation
        self.error = error
        self.refusal = paused_error(invocation, error)
        self.told = False
        self.reached: set[int] = set()
        self.on_their_way = 1


def paused_error(invocation: Invocation, error: BaseException) -> PausedInvocationError:
    """What callers outside hear of a paused invocation, with the handler's error as its cause."""
    told = PausedInvocationError(invocation.id, describe_failure(error))
    told.__cause__ = error
    return told


def no_such_invocation(name: str) -> Outcome:
    """The answer to whoever asks for an invocation that is not there."""
    return Outcome(
        True, encode_failure(UnknownTargetError(f"There is no invocation {name}, or its outcome is no longer kept."))
    )


def _deadline_error() -> DeadlineExceededError:
    return DeadlineExceededError("The deadline passed before the invocation had ended.")


def _has_key(command: Command) -> bool:
    return isinstance(command, Call | Send) and command.idempotency_key is not None


def _scope_of(command: Command) -> KeyScope | None:
    if isinstance(command, Call | Send) and command.idempotency_key is not None:
        return KeyScope(command.service, command.key or "", command.handler, command.idempotency_key)
    return None


def _hold_sends_again(journal: Journal) -> None:
    """Messages of an atomic handler are not in the store as such: they are found in its steps (rule V6)."""
    number = 0
    for step in journal.steps:
        for command in step.commands:
            if isinstance(command, Send):
                journal.held_sends.append((number, command))
            number += 1


def _tell_outcome(told: tuple[list[Waiter], Outcome, int | None]) -> None:
    waiters, outcome, expires_at = told
    for waiter in waiters:
        waiter.answer(outcome, expires_at)


def _refuse_all(told: tuple[list[Waiter], BaseException]) -> None:
    waiters, error = told
    for waiter in waiters:
        waiter.refuse(error)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
