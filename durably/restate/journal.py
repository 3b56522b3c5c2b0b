"""`Journal`: the steps of one execution as entries of Restate's journal, on the public API of its SDK.

Restate's core takes notifications out of its journal one at a time, in the order in which it holds them, live and on
replay alike. So the order in which answers are delivered needs no record of our own, as long as each wait is for
everything that is waited for, and all commands of a step have been emitted before.

Three rules keep a replay exact:
- What a step may look at (the time, the state of a shared handler) is durable before an action starts: the time of each
  step is a run of its own, which is waited for, and the state is read before the first of these.
- What is compared on replay (calls, sends, state, names of runs) follows from durable inputs alone. Durations do not:
  Restate does not compare them, and they are what is left by the clock at the moment.
- A step that fails has emitted nothing (rule S2).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, NamedTuple, TypeAlias, cast

import restate
from restate import RestateDurableCallFuture, RestateDurableFuture, RunOptions, wait_completed

from durably.actors.definition.binding import BoundActor
from durably.actors.migrations import recorded_state_version
from durably.actors.promises import PEEKED
from durably.actors.protocol.commands import (
    HELD_BY_ATOMIC,
    Attach,
    Call,
    Cancel,
    Command,
    CompleteAwakeable,
    CompletePromise,
    GetPromise,
    IdentifyCall,
    MakeAwakeable,
    PeekPromise,
    Run,
    Send,
    SendAnswer,
    Sleep,
)
from durably.actors.protocol.port import Action
from durably.actors.values.error_envelopes import decode_failure, encode_failure
from durably.errors import AlreadyCompletedError, DeadlineExceededError, UnknownTargetError
from durably.ids import STATE_VERSION_FIELD, Address
from durably.restate.failures import from_restate, is_typed
from durably.restate.headers import OutgoingHeaders
from durably.restate.refusals import UNKNOWN_ID
from durably.restate.side_effects import BYTES, SideEffects, exhausted, options_of
from durably.runtime.clock import SystemClock
from durably.runtime.execution.answers import encode_send_answer
from durably.runtime.execution.execution import Execution
from durably.runtime.execution.step import Delivery, Step
from durably.runtime.invocations.load_errors import newer_state_error

Context: TypeAlias = restate.ObjectContext | restate.WorkflowContext
"""What the SDK gives a handler: of all kinds, since a service uses nothing of what only objects have."""

AT: Final = "at"
"""The name of the run that records the time of a step."""
DEADLINE: Final = "deadline"
LIMIT: Final = "limit"
"""The name of the timer beside a call that has a limit of its own."""
TOO_LATE: Final = "The deadline passed before the invocation had ended."
US_PER_MS: Final = 1_000
NOT_FOUND: Final = 404
WITH_EFFECT: Final = (Call, Send, CompletePromise, CompleteAwakeable, Cancel)
"""Commands that are told also where nothing waits for an answer."""


_FILTER: Final = restate.RestateLoggingFilter()
_RECORD: Final = logging.makeLogRecord({})


class JournalMismatchError(Exception):
    """Restate's journal has another entry where the code asks for this one; its cause is what the SDK raised."""


@contextmanager
def mismatches_told() -> Generator[None, None, None]:
    """The SDK raises at once where a command differs from the journal."""
    try:
        yield
    except Exception as error:
        raise JournalMismatchError from error


class Waiting(NamedTuple):
    """What is waited for, and what its answer is for the handler."""

    future: RestateDurableFuture[Any]
    answer: Callable[[Any], bytes]
    """Of a success."""
    failure: Callable[[restate.TerminalError], bytes] = from_restate


class Journal:
    """The journal of one attempt, as the attempt reads and writes it."""

    def __init__(
        self,
        ctx: Context,
        headers: OutgoingHeaders,
        *,
        clock: SystemClock,
        side_effects: SideEffects,
        is_atomic: bool,
        is_shared: bool,
    ) -> None:
        """`is_shared`: others may change the state that it reads while it runs."""
        self.ctx = ctx
        self.deadline_has_passed = False
        self.is_cancelled = False
        self._headers = headers
        self._clock = clock
        self._side_effects = side_effects
        self._is_atomic = is_atomic
        self._is_shared = is_shared
        self._at = 0
        self._pending: dict[int, Waiting] = {}
        """By the number of the command."""
        self._awakeables: dict[int, Waiting] = {}
        """Made in the step that is under way."""
        self._calls: dict[int, RestateDurableCallFuture[bytes]] = {}
        self._calls_end = 0
        """The number after that of the last call."""
        self._actions: dict[int, asyncio.Task[bytes]] = {}
        """Those that run in this attempt."""
        self._dues: dict[int, int] = {}
        """Of timers."""
        self._queue: deque[Delivery] = deque()
        self._cancels = 0
        self._reached_by_cancel = 0
        """Calls below this number were cancelled by Restate with this invocation."""
        self._deadline: RestateDurableFuture[Any] | None = None
        self._limits: dict[int, RestateDurableFuture[Any]] = {}
        """Timers of calls, by their numbers: a caller hears of a limit when it is over, not when the code has ended."""
        self._to_cancel: list[int] = []
        """Calls that a cancel has reached in the last step."""
        self._to_identify: list[tuple[int, Callable[[], Awaitable[str]]]] = []
        """Commands of the last step that are answered with an id, which Restate tells at once."""
        self._is_free: set[int] = set()
        """Commands whose await takes no time on a runtime: the step that takes in the answer has the time of the last.
        """
        self._held_changes: dict[str, bytes | None] = {}
        """What an atomic handler has changed, which Restate is told when it has ended well (rule V6)."""
        self._held: list[tuple[int, Command]] = []
        self._version_to_tell: int | None = None
        """Of the state, which goes beside it with the next change; None: that is the one that is there."""

    # ------------------------------------------------------------------ what an attempt begins with

    async def read_state(self) -> dict[str, bytes]:
        """The state of the object as the invocation first saw it (rule V4).

        All of it by its names, so that the journal follows from what was stored and not from what a class declares.
        """
        state: dict[str, bytes] = {}
        for name in sorted(await self.ctx.state_keys()):
            value = await self.ctx.get(name, BYTES)
            if value is not None:
                state[name] = bytes(value)
        return state

    def at_version_of(self, actor: BoundActor, address: Address, stored: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Stored state as this class has it. What a migration changes is told at once; of a shared handler, never.

        Migrations follow from the state alone, so a replay comes to the same.

        Raises:
            StateVersionError: newer code has written it.
            StateMigrationError: a migration raised, or gave what does not fit the class.
            JournalMismatchError: the journal says something else.
        """
        recorded, known = recorded_state_version(stored), actor.state_version
        state = {name: value for name, value in stored.items() if name != STATE_VERSION_FIELD}
        self._version_to_tell = None if recorded == known else known
        if not state or recorded == known:
            return state
        newer = newer_state_error(address, recorded, known)
        if newer is not None:
            raise newer
        migrated = actor.migrate_state(state, recorded)
        changes: dict[str, bytes | None] = {name: None for name in state if name not in migrated}
        changes |= {name: value for name, value in migrated.items() if state.get(name) != value}
        if self._is_atomic:
            self._held_changes.update(changes)
        elif not self._is_shared:
            with mismatches_told():
                self._change_state(changes)
        return migrated

    def set_deadline(self, deadline: int) -> None:
        """From now on a timer runs beside the handler: microseconds since 1970 UTC."""
        self._deadline = self.ctx.sleep(self._left_until(deadline), DEADLINE)

    def make_awakeable(self, number: int, /) -> str:
        """The id of a new awakeable. Restate journals nothing of it: the id follows from those before it."""
        id, future = self.ctx.awakeable(BYTES)
        self._awakeables[number] = Waiting(future, _value)
        return id

    def now(self) -> int:
        return self._at

    # ------------------------------------------------------------------ steps

    async def begin_step(self, deliveries: list[Delivery]) -> int:
        """The time of the step that takes these in, microseconds since 1970 UTC, durable (rules T1, X1)."""
        if deliveries and all(one.command in self._is_free for one in deliveries):
            return self._at
        at_least = max([self._at, *(self._dues.pop(one.command, 0) for one in deliveries)])

        def look() -> bytes:
            return b"%d" % max(self._clock.now(), at_least)

        with mismatches_told():
            future = self.ctx.run_typed(AT, look, RunOptions(serde=BYTES))
        while not _is_among(future, await self._first_completed(future)):
            pass
        self._at = int(await future)
        return self._at

    def emit(self, step: Step, execution: Execution, first: int) -> None:
        """Tell Restate what the handler did in a step whose first command has the number `first`.

        Raises:
            JournalMismatchError: the journal says something else.
        """
        with mismatches_told():
            self._emit(step, execution, first)

    async def settle(self) -> None:
        """What has to follow the commands of a step at once, before anything else is waited for."""
        to_cancel, self._to_cancel = self._to_cancel, []
        for number in to_cancel:
            await self._cancel_below(number)
        to_identify, self._to_identify = self._to_identify, []
        for number, identify in to_identify:
            await self._identify(number, identify)

    def is_replaying(self) -> bool:
        """What the handler says in the step that follows was logged before."""
        return not _FILTER.filter(_RECORD)  # type: ignore[no-untyped-call]

    def check(self) -> None:
        """
        Raises:
            BaseException: what has ended the attempt in the middle of a step.
        """

    def end(self) -> None:
        """The attempt is over."""

    def _emit(self, step: Step, execution: Execution, first: int) -> None:
        changes, commands = self._told(step, first)
        self._change_state(changes)
        for number, command in commands:
            is_wanted = step.outcome is None and number not in step.abandoned
            if not (is_wanted or isinstance(command, WITH_EFFECT)):
                continue
            if isinstance(command, Send):
                self._send(number, command, is_answered=is_wanted and not self._is_atomic)
            elif isinstance(command, IdentifyCall):
                self._identify_call(number, int(command.derived_id))
            else:
                waiting = self._issue(number, command, execution)
                if waiting is not None and is_wanted:
                    self._pending[number] = waiting
                    if isinstance(command, Call) and command.timeout_us is not None:
                        self._limits[number] = self.ctx.sleep(self._left_until(self._at + command.timeout_us), LIMIT)
        self._give_up(step.abandoned)
        self._to_cancel = [number for number in step.cancelled if number >= self._reached_by_cancel]

    def _change_state(self, changes: Mapping[str, bytes | None]) -> None:
        for name, value in changes.items():
            if value is None:
                self.ctx.clear(name)
            else:
                self.ctx.set(name, value, BYTES)
        if self._version_to_tell is not None and any(value is not None for value in changes.values()):
            self.ctx.set(STATE_VERSION_FIELD, b"%d" % self._version_to_tell, BYTES)
            self._version_to_tell = None

    def _told(self, step: Step, first: int) -> tuple[Mapping[str, bytes | None], list[tuple[int, Command]]]:
        """What Restate is told with this step: of an atomic handler, some of it with a good outcome only (rule V6)."""
        changes, commands = step.changes or {}, list(enumerate(step.commands, first))
        if not self._is_atomic:
            return changes, commands
        self._held_changes.update(changes)
        self._held += [one for one in commands if isinstance(one[1], HELD_BY_ATOMIC)]
        told = [one for one in commands if not isinstance(one[1], HELD_BY_ATOMIC)]
        for number, command in commands:
            if isinstance(command, CompletePromise) and number not in step.abandoned:
                self._is_free.add(number)
                self._queue.append(Delivery(number, False, b""))
        if step.outcome is None or step.outcome.failed or self.deadline_has_passed:
            return {}, told
        return self._held_changes, told + self._held

    def _issue(self, number: int, command: Command, execution: Execution) -> Waiting | None:
        """Emit a command; what there is to wait for, if it is answered."""
        ctx = self.ctx
        match command:
            case Call():
                self._calls_end = number + 1
                headers = self._headers.of(command, self._at, inherits=self._inherits(execution))
                return Waiting(self._call(number, command, headers), _value)
            case Run():
                return self._run(number, command, execution.action(number))
            case Sleep():
                self._dues[number] = command.due
                return Waiting(ctx.sleep(self._left_until(command.due)), _nothing)
            case Attach():
                assert command.invocation_id is not None, "an attach to anything else is refused"
                return Waiting(ctx.attach_invocation(command.invocation_id, BYTES), _value, _of_attach)
            case GetPromise():
                return Waiting(_workflow(ctx).promise(command.name, BYTES).value(), _value)
            case PeekPromise():
                peeked = _workflow(ctx).promise(command.name, BYTES).peek()
                return Waiting(cast("RestateDurableFuture[Any]", peeked), _peeked)
            case CompletePromise():
                return Waiting(self._complete(_workflow(ctx), command), _nothing, _already_completed)
            case Cancel():
                ctx.cancel_invocation(command.invocation_id)
            case CompleteAwakeable():
                if command.failed:
                    error = decode_failure(command.value)
                    ctx.reject_awakeable(command.id, error.message, error.code)
                else:
                    ctx.resolve_awakeable(command.id, command.value, BYTES)
            case MakeAwakeable():
                return self._awakeables.pop(number)
            case _:
                raise AssertionError(f"{command!r} is refused when it is issued")
        return None

    def _inherits(self, execution: Execution) -> bool:
        """Calls are bound by the deadline, but for those that undo something (rule E7)."""
        return not (self.deadline_has_passed or execution.compensating)

    def _call(self, number: int, command: Call, headers: dict[str, str]) -> RestateDurableFuture[Any]:
        call = self._calls[number] = self.ctx.generic_call(
            command.service, command.handler, command.argument, command.key, command.idempotency_key, headers
        )
        return call

    def _send(self, number: int, command: Send, *, is_answered: bool) -> None:
        handle = self.ctx.generic_send(
            command.service, command.handler, command.argument, command.key, self._delay(command),
            command.idempotency_key, self._headers_of_send(command),
        )  # fmt: skip
        if is_answered:
            self._to_identify.append((number, handle.invocation_id))

    def _identify_call(self, number: int, call: int) -> None:
        self._to_identify.append((number, self._calls[call].invocation_id))

    def _delay(self, command: Send) -> timedelta | None:
        return None if command.due is None else self._left_until(command.due)

    def _headers_of_send(self, command: Send) -> dict[str, str]:
        return self._headers.of(command, self._at if command.due is None else command.due, inherits=False)

    def _run(self, number: int, command: Run, action: Action[Any] | None) -> Waiting:
        issued_at = self._at

        async def act() -> bytes:
            assert action is not None, "a run that is waited for has its action"
            attempt = self._side_effects.attempt(action, number, issued_at)
            task = asyncio.get_running_loop().create_task(attempt, context=action.context.copy())
            self._actions[number] = task
            try:
                return await task
            except asyncio.CancelledError:
                outer = asyncio.current_task()
                if outer is None or outer.cancelling():
                    raise
                raise restate.TerminalError("The handler has given the action up.", 409) from None
            finally:
                self._actions.pop(number, None)

        def failure(error: restate.TerminalError) -> bytes:
            return from_restate(error) if is_typed(error) else exhausted(action, command.name, error.message)

        return Waiting(self.ctx.run_typed(command.name, act, options_of(action)), _value, failure)

    def _complete(
        self, ctx: restate.WorkflowContext | restate.WorkflowSharedContext, command: CompletePromise
    ) -> RestateDurableFuture[Any]:
        promise = ctx.promise(command.name, BYTES)
        if command.failed:
            error = decode_failure(command.value)
            completed = promise.reject(error.message, error.code)
        else:
            completed = promise.resolve(command.value)
        return cast("RestateDurableFuture[Any]", completed)

    def _give_up(self, abandoned: Sequence[int]) -> None:
        """Nothing waits for the answers any more (rule C5): actions under way are cancelled."""
        for number in abandoned:
            self._pending.pop(number, None)
            self._limits.pop(number, None)
            self._awakeables.pop(number, None)
            action = self._actions.get(number)
            if action is not None:
                action.cancel()
        if abandoned:
            self._queue = deque(one for one in self._queue if one.command not in abandoned)

    async def _identify(self, number: int, identify: Callable[[], Awaitable[str]]) -> None:
        """Wait for the id of an invocation, which Restate tells as soon as it has the command."""
        self._is_free.add(number)
        try:
            id = await identify()
        except restate.TerminalError:  # A cancel. The message is sent all the same.
            id = UNKNOWN_ID
            self._note_cancel()
        self._queue.append(Delivery(number, False, identified(id)))

    async def _cancel_below(self, number: int) -> None:
        """Restate cancels what was called before it tells of a cancel; this one was called since."""
        try:
            self.ctx.cancel_invocation(await self._calls[number].invocation_id())
        except restate.TerminalError:
            self._note_cancel()

    # ------------------------------------------------------------------ waiting

    async def next(self) -> Delivery:
        """What is to be delivered next."""
        while not self._queue:
            await self._first_completed()
        return self._queue.popleft()

    async def _first_completed(self, *more: RestateDurableFuture[Any]) -> Sequence[RestateDurableFuture[Any]]:
        """Wait for everything that is waited for, and queue what comes first."""
        deadline = () if self._deadline is None else (self._deadline,)
        try:
            pending = [one.future for one in self._pending.values()]
            done, _ = await wait_completed(*more, *deadline, *pending, *self._limits.values())
        except restate.TerminalError:  # Nothing that is waited for raises here: it is a cancel.
            self._note_cancel()
            return ()
        if self._deadline is not None and _is_among(self._deadline, done):
            self._note_deadline()
        for number, waiting in list(self._pending.items()):
            if _is_among(waiting.future, done):
                del self._pending[number]
                self._limits.pop(number, None)
                await self._queue_answer(number, waiting)
        for number, limit in list(self._limits.items()):
            if _is_among(limit, done):
                self._note_limit(number)
        return done

    async def _queue_answer(self, number: int, waiting: Waiting) -> None:
        try:
            value = await waiting.future
        except restate.TerminalError as error:
            self._queue.append(Delivery(number, True, waiting.failure(error)))
        else:
            self._queue.append(Delivery(number, False, waiting.answer(value)))

    def _note_cancel(self) -> None:
        """Restate has cancelled the invocation, and everything that it has called."""
        self.is_cancelled = True
        self._reached_by_cancel = self._calls_end
        self._queue_cancel()

    def _note_deadline(self) -> None:
        self._deadline = None
        self.deadline_has_passed = True
        self._queue_cancel()

    def _note_limit(self, number: int) -> None:
        """The limit of a call is over. What it called hears that by itself, and its answer is of no interest now."""
        del self._limits[number], self._pending[number]
        self._queue.append(Delivery(number, True, encode_failure(DeadlineExceededError(TOO_LATE))))

    def _queue_cancel(self) -> None:
        self._cancels += 1
        self._queue.append(Delivery(-self._cancels, False, b""))

    def _left_until(self, due: int) -> timedelta:
        """In whole milliseconds, which Restate counts in, and none of them too few."""
        return timedelta(milliseconds=max(0, -((self._clock.now() - due) // US_PER_MS)))


def _is_among(future: RestateDurableFuture[Any], done: Sequence[RestateDurableFuture[Any]]) -> bool:
    return any(one is future for one in done)


def _workflow(ctx: Context) -> restate.WorkflowContext:
    return cast("restate.WorkflowContext", ctx)


def _value(value: bytes | None) -> bytes:
    """The SDK makes None of a value without bytes."""
    return b"" if value is None else bytes(value)


def _nothing(_value: object) -> bytes:
    return b""


def identified(id: str) -> bytes:
    """The answer that tells the id of an invocation. Restate does not say whether it was there before."""
    return encode_send_answer(SendAnswer(id, False))


def _peeked(value: bytes | None) -> bytes:
    return b"" if value is None else PEEKED + value


def _of_attach(error: restate.TerminalError) -> bytes:
    if error.status_code == NOT_FOUND and not is_typed(error):
        return encode_failure(UnknownTargetError(error.message))
    return from_restate(error)


def _already_completed(_error: restate.TerminalError) -> bytes:
    return encode_failure(AlreadyCompletedError())
