"""`Execution`: one attempt of one invocation, and the one pure function at the heart of the machine, `advance`.

    advance(at, deliveries) -> Step

delivers completions in order and runs the handler until nothing is ready. There is no I/O here, no clock and no
storage: given the same deliveries it gives the same step. It knows commands and completions, never where they come
from, so the same code runs live and on replay, and nothing that a handler can see tells which.
"""

from __future__ import annotations

import asyncio
from asyncio import events
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from random import Random
from threading import get_ident
from types import TracebackType
from typing import Any, Never, Protocol, TypeVar, cast

import msgspec

from durably.actors.definition.arguments import Decoded
from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.actors.handlers import CONTEXT
from durably.actors.headers import apart, joined
from durably.actors.protocol.coding import MEASURED_BYTES, CodingMeter
from durably.actors.protocol.commands import (
    Call,
    Command,
    MakeAwakeable,
    Run,
    Send,
    SendSignal,
    Sleep,
)
from durably.actors.protocol.entries import (
    EntryChanges,
    FieldChanges,
    is_of_entries,
    name_of_all,
    name_of_entry,
    name_of_restored,
)
from durably.actors.protocol.operations import CallSite, Operation, told_unreadable
from durably.actors.protocol.popped import PoppedEntry, Pops
from durably.actors.protocol.port import Action, Flush, Sent
from durably.actors.protocol.request import Request
from durably.actors.values.error_envelopes import decode_failure, encode_failure, terminal
from durably.actors.values.slices import Slices, decode_in_slices
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.errors import (
    BareOperationError,
    ForgottenAwaitError,
    HandlerMistakeError,
    InvalidArgumentError,
    NonDeterminismError,
    ProcessExitError,
    SharedStateError,
    StuckError,
    TerminalError,
    UndecodableError,
    find_mistake,
)
from durably.ids import (
    CONTINUED_SEED_BYTES,
    SEED_BYTES,
    Address,
    EntryKey,
    KeyScope,
    UsedSeed,
    awakeable_id,
    derived_invocation_id,
    seeds_of,
)
from durably.runtime.execution.answers import decode_send_answer, from_timestamp
from durably.runtime.execution.continuation import ContinueAsNew, continuation_in
from durably.runtime.execution.failure_text import stack_of_waiting
from durably.runtime.execution.loop import DeterministicLoop, DurableTimer, enter, is_task, leave
from durably.runtime.execution.replay import replay, replay_in_slices
from durably.runtime.execution.step import AttemptFailure, Delivery, Outcome, Step, Undoing
from durably.runtime.settings import Settings, Watch

R = TypeVar("R")

NO_PATCHES: frozenset[str] = frozenset()
_SALT_BYTES = 6
_A_CALLBACK = "A callback of the loop in {} raised an exception that nothing hears of"
_A_FUTURE = "A future of {} was given an exception, and nothing awaited it"
"""What was lost besides the errors of tasks; the braces are for the handler."""


class Observer(Protocol):
    """Who may know that an execution replays: loggers and tests, never handlers (rule S8)."""

    def handler_logged(self, execution: Execution, level: str, event: str, fields: Mapping[str, Any], /) -> None: ...
    def warned(self, execution: Execution, message: str, /) -> None: ...
    def task_failed(self, execution: Execution, task: str, error: BaseException, /) -> None:
        """A task failed, and nothing can ask for its error any more."""
        ...


class Accepted(Protocol):
    """The invocation that an attempt is made for: what its handler may know of it, and its secret seed (rule C4)."""

    @property
    def id(self) -> str: ...
    @property
    def address(self) -> Address: ...
    @property
    def argument(self) -> bytes: ...
    @property
    def headers(self) -> dict[str, str]: ...
    @property
    def scope(self) -> KeyScope | None: ...
    @property
    def deadline(self) -> int | None: ...
    @property
    def seed(self) -> bytes: ...
    @property
    def is_from_outside(self) -> bool:
        """Its argument was found to fit before it was accepted (rule V5)."""
        ...


_init_operation = Operation[Any].__init__


class DurableOperation(Operation[R]):
    """The operation behind a command: cancelling it gives the command up (rule C5)."""

    __slots__ = ("_decode", "_execution", "action", "number")

    def __init__(
        self, execution: Execution, number: int, decode: Callable[[bytes], R], what: object, site: CallSite
    ) -> None:
        self.number = number
        self.action: Action[Any] | None = None
        """The side effect whose result it waits for, if it is one."""
        self._execution = execution
        self._decode = decode
        _init_operation(self, execution.loop, what, site)

    def __hash__(self) -> int:
        return self.number

    def complete(self, delivery: Delivery) -> None:
        self.action = None
        if self.done():
            return
        if delivery.failed:
            self.set_exception(decode_failure(delivery.value, delivery.cause))
            return
        answers = self._execution.answers
        if answers is not None and delivery.command in answers:
            self._set(self._execution.take_prepared(delivery.command))
            return
        coding = self._execution.coding
        began = None if coding is None or len(delivery.value) < MEASURED_BYTES else coding.monotonic()
        try:
            result = self._decode(delivery.value)
        except USER_ERRORS as error:
            let_signals_pass(error)
            self.set_exception(told_unreadable(self.what, delivery.value, error))
        else:
            self.set_result(result)
        if coding is not None and began is not None:
            coding.add(f"the answer to {self.what}", len(delivery.value), began)

    def prepared(self, data: bytes, size_bytes: int) -> Slices[Callable[[], R]]:
        """Decode an answer in slices; what comes of it returns the result, or raises why there is none."""
        try:
            result = yield from decode_in_slices(self._decode, data, size_bytes)
        except GeneratorExit:  # It is dropped.
            raise
        except USER_ERRORS as error:
            let_signals_pass(error)
            return partial(_raised, told_unreadable(self.what, data, error))
        self._execution.keep_large(result)
        return lambda: result

    def _set(self, prepared: Callable[[], R]) -> None:
        try:
            self.set_result(prepared())
        except USER_ERRORS as error:  # It was seen to be none of a signal's when it was decoded.
            self.set_exception(error)

    def cancel(self, msg: Any | None = None) -> bool:
        if not super().cancel(msg):
            return False
        self.action = None
        self._execution.give_up(self.number)
        return True


_init_durable_operation = DurableOperation[Any].__init__


class TakingOperation(DurableOperation[R]):
    """The operation behind a pop. Cancelled before the handler has its entry, it gives an entry back.

    So it can be cancelled while it has a result that nothing has asked for.
    """

    __slots__ = ("_entry", "_has_given_back", "asked", "pops")

    pops: Pops
    asked: PoppedEntry
    """What it was issued for; it may be given another one."""

    def __init__(
        self, execution: Execution, number: int, decode: Callable[[bytes], R], what: object, site: CallSite
    ) -> None:
        self._entry: PoppedEntry | None = None
        """What it has ended with, until the handler has it."""
        self._has_given_back = False
        _init_durable_operation(self, execution, number, decode, what, site)

    def __await__(self) -> Any:
        """As a future does it, by `result`."""
        self.taken = True
        if not self.done():
            self._asyncio_future_blocking = True
            yield self
        return self.result()

    __iter__ = __await__

    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None, /) -> Any:
        """The task of it was cancelled, perhaps before it ran."""
        self.cancel()
        return super().throw(kind, value, trace)

    def complete(self, delivery: Delivery) -> None:
        self.pops.answered(self.asked, delivery)

    def hand_over(self, entry: PoppedEntry, /) -> None:
        self._entry = entry
        if entry.answer is None:
            self.set_result(entry.result)
            return
        super().complete(cast("Delivery", entry.answer))
        if self.exception() is not None:
            self._let_go()

    def cancel(self, msg: Any | None = None) -> bool:
        if self._execution.loop.dead or self._has_given_back:
            return super().cancel(msg)
        if not self.done():
            command = self.pops.give_up(self, self.asked)
            super(DurableOperation, self).cancel(msg)
            if command is not None:
                self._execution.give_up(command)
            return True
        if self._entry is None:
            return False
        self._has_given_back = True
        self.pops.give_back(self._entry)
        return True

    def cancelled(self) -> bool:
        return self._has_given_back or super().cancelled()

    def exception(self) -> BaseException | None:
        if self._has_given_back:
            raise asyncio.CancelledError
        return super().exception()

    def result(self) -> R:
        if self._has_given_back:
            raise asyncio.CancelledError
        result = super().result()
        self._let_go()
        return result

    def _let_go(self) -> None:
        entry, self._entry = self._entry, None
        if entry is not None:
            self.pops.handed_over(entry)


class CallOperation(DurableOperation[R]):
    """The operation behind a call. A cancel of the whole invocation that reaches it goes on to the callee (rule E1).

    Then the call stays pending until the callee has ended, however it ends, and is cancelled at that moment.
    """

    __slots__ = ("is_cancelled_below",)

    def __init__(
        self, execution: Execution, number: int, decode: Callable[[bytes], R], what: object, site: CallSite
    ) -> None:
        self.is_cancelled_below = False
        """Its callee has been cancelled."""
        _init_durable_operation(self, execution, number, decode, what, site)

    def is_of(self, execution: Execution) -> bool:
        return self._execution is execution

    def complete(self, delivery: Delivery) -> None:
        if self.is_cancelled_below:
            super(DurableOperation, self).cancel()
        else:
            super().complete(delivery)

    def cancel(self, msg: Any | None = None) -> bool:
        if self.is_cancelled_below or not self._execution.cancel_below(self):
            return super().cancel(msg)
        self.is_cancelled_below = True
        return True


class TimerOperation:
    """A timer of the loop, waiting among the operations."""

    __slots__ = ("_timer",)

    action: Action[Any] | None = None

    def __init__(self, timer: DurableTimer) -> None:
        self._timer = timer

    def complete(self, delivery: Delivery) -> None:
        self._timer.due_loop.fire(self._timer)


class Execution:
    """One attempt: what is between the handler and `advance`."""

    is_hosted = False
    loop_class = DeterministicLoop

    __slots__ = (
        "_abandoned", "_accepted", "_actor", "_arguments", "_at", "_attempt", "_awakeables", "_cancelled", "_changes",
        "_commands", "_deliveries", "_earlier_changes", "_earlier_seeds", "_entries", "_first_command", "_flush",
        "_free_large", "_host", "_is_shared", "_is_spreading", "_large", "_later_seeds", "_lost_errors", "_main",
        "_observer", "_patched", "_patches", "_pending", "_random", "_reads", "_recorded_patches", "_recorded_reads",
        "_request", "_seed", "_settings", "_sites", "_snapshot", "_steps_begun", "_to_undo", "_unawaited", "_uuids",
        "answers", "coding", "compensating", "failure", "handler", "has_waited", "invocation_id", "key", "loop",
        "next_command", "replaying", "runtime_serde", "serde", "takes_cancel", "was_cancelled",
    )  # fmt: skip

    def __init__(
        self,
        actor: BoundActor,
        handler: BoundActorHandler,
        accepted: Accepted,
        snapshot: Mapping[str, bytes],
        observer: Observer,
        settings: Settings,
        host: asyncio.AbstractEventLoop | None = None,
        coding: CodingMeter | None = None,
        arguments: Decoded | InvalidArgumentError | None = None,
    ) -> None:
        """`snapshot` is the object's state when the invocation began; shared handlers are given another for each step.

        `host` is the loop whose callbacks advance it; None finds out each time, which costs a system call. `coding`
        measures how long encoding and decoding take. `arguments` were decoded for this attempt, or could not be.
        """
        # All that there is to know of an attempt is written once, here. What an instance lacks and its class has would
        # cost less to leave out, and more each time that it is read.
        self.invocation_id = accepted.id
        self.handler = handler
        self.key = accepted.address[1]
        self.serde = actor.serde
        self.runtime_serde = actor.runtime_serde
        seed = accepted.seed
        self._later_seeds: list[UsedSeed] | None = None
        """Seeds that follow the one that it uses (rule W2)."""
        self._earlier_seeds: list[tuple[int, bytes, str]] | None = None
        """Those that it has used, with the first command that was not issued with them, and the id that they are of."""
        self._steps_begun = 0
        """Counted while there are later seeds."""
        if len(seed) > CONTINUED_SEED_BYTES:
            (_, seed, self.invocation_id), *self._later_seeds = seeds_of(seed, accepted.id)
        self._seed = seed if len(seed) == SEED_BYTES else seed[:SEED_BYTES]
        salt = int.from_bytes(seed[:_SALT_BYTES], "big")
        self.loop = self.loop_class(self, salt, settings.advance_limit_callbacks)
        self._actor = actor
        self._accepted = accepted
        self._snapshot = snapshot
        self._is_shared = handler.kind == "shared"
        self._observer = observer
        self._settings = settings
        self._host = host
        self.coding = coding
        self.next_command = 0
        self.compensating = 0
        """So many blocks of it are being undone."""
        self.failure: TerminalError | None = None
        """What its retry policy has failed it with: the outcome, if the cancel with which that came leaves it."""
        self._to_undo = 0
        """So many have something to undo."""
        self.replaying = False
        self.has_waited = False
        """Set where nothing is to be resident: it has come to an await, and another attempt goes on from there."""
        self.was_cancelled = False
        """It has taken in a cancel."""
        self.takes_cancel = False
        """In this step its code hears of a cancel, which the step takes in or the end of a callee carries on."""
        self.answers: dict[int, Callable[[], Any]] | None = None
        """What gives the results that were decoded before their delivery, by command."""
        self._pending: dict[int, DurableOperation[Any] | TimerOperation] | None = None
        self._main: asyncio.Task[Any] | None = None
        self._flush: Flush | None = None
        self._request: Request | None = None
        self._random: Random | None = None
        self._uuids: Random | None = None
        self._unawaited: list[Operation[Any]] | None = None
        self._arguments = arguments
        self._large: list[Any] | None = None
        """What was decoded for it in slices, and takes as long to be freed."""
        self._free_large: Callable[[list[Any]], None] | None = None
        self._lost_errors: list[tuple[str, BaseException]] | None = None
        """Tasks that failed in this step, and whose errors nothing can ask for any more."""
        self._earlier_changes: dict[str, bytes | None] | None = None
        """What the steps before this one have changed."""
        self._entries: EntryChanges | None = None
        """What all steps, this one included, have changed of entries of collections."""
        self._awakeables: dict[str, DurableOperation[Any]] | None = None
        self._patched: dict[str, bool] | None = None
        """What `ctx.patched` has answered: the first answer for a name holds."""
        self._recorded_patches = NO_PATCHES
        self._is_spreading = False
        """A cancel is on its way through the handler's code: calls that it reaches are cancelled below."""

        # Of the step that is under way.
        self._at = 0
        self._attempt = 1
        self._first_command = 0
        self._recorded_reads: Mapping[str, bytes | None] | None = None
        self._deliveries: tuple[int, ...] = ()
        self._commands: list[Command] | None = None
        self._sites: list[CallSite | None] | None = None
        self._changes: dict[str, bytes | None] | None = None
        self._abandoned: list[int] | None = None
        self._reads: dict[str, bytes | None] | None = None
        self._patches: tuple[str, ...] | None = None
        self._cancelled: list[int] | None = None

    # ------------------------------------------------------------------ for the machine

    def advance(
        self,
        at: int,
        deliveries: Sequence[Delivery],
        attempt: int = 1,
        reads: Mapping[str, bytes | None] | None = None,
        /,
    ) -> Step | AttemptFailure:
        """Deliver completions in order, and run what becomes ready after each; return what the handler then did.

        `attempt` is what the handler sees of how often it was tried; `reads` are the recorded reads of a step that is
        replayed. After a failure or an outcome the execution is over.
        """
        self._at = self.loop.at = at
        self._attempt = attempt
        if self._later_seeds:
            self._count_step(self._later_seeds)
        self._recorded_reads = reads
        host = self._host
        if host is None:
            host = events._get_running_loop()
        before = enter(self.loop)
        try:
            watch = self._settings.watch
            end = self._run(deliveries) if watch is None else self._run_watched(watch, deliveries)
        except (SystemExit, KeyboardInterrupt) as error:
            let_signals_pass(error)  # Rule E3: the host's business; nothing is recorded.
            return AttemptFailure(_exit_mistake(error))
        except BaseException as error:
            return AttemptFailure(error)
        finally:
            leave(self.loop, host, before)
        return self._end_step(at, end)

    def replay(self, steps: Sequence[Step], deliveries: Mapping[int, Delivery]) -> None:
        """Bring a fresh execution to where its journal ends.

        Raises:
            NonDeterminismError: the handler asked for something else than recorded.
        """
        with self._along(steps):
            replay(self.advance, steps, deliveries, self.where)

    def replay_in_slices(self, steps: Sequence[Step], deliveries: Mapping[int, Delivery]) -> Slices[None]:
        """The same in slices: of some steps each, with large answers decoded in slices before the steps take them in.

        Raises:
            NonDeterminismError: the handler asked for something else than recorded.
        """
        size_bytes, at_once = self._settings.slice_bytes, self._settings.replayed_at_once
        prepare = partial(self.prepare_answers, size_bytes=size_bytes)
        with self._along(steps):
            yield from replay_in_slices(self.advance, steps, deliveries, self.where, prepare, at_once)

    @contextmanager
    def _along(self, steps: Sequence[Step]) -> Generator[None, None, None]:
        """What the handler does is what these steps say."""
        self.replaying = True
        self._recorded_patches = frozenset(name for step in steps for name in step.patches or ())
        try:
            yield
        finally:
            self.replaying = False

    def prepare_answers(self, deliveries: Sequence[Delivery], size_bytes: int) -> Slices[None]:
        """Decode the large ones among these answers before they are delivered."""
        for delivery in deliveries:
            if len(delivery.value) > size_bytes:
                operation = None if self._pending is None else self._pending.get(delivery.command)
                prepared: Callable[[], Any] = _never_asked_for
                if isinstance(operation, DurableOperation) and not delivery.failed:
                    prepared = yield from operation.prepared(delivery.value, size_bytes)
                if self.answers is None:
                    self.answers = {}
                self.answers[delivery.command] = prepared

    def has_prepared(self, command: int) -> bool:
        """The answer to this command was decoded."""
        return self.answers is not None and command in self.answers

    def take_prepared(self, command: int) -> Callable[[], Any]:
        """What gives the result; the handler alone has it then."""
        assert self.answers is not None
        return self.answers.pop(command)

    def expect_large(self, free: Callable[[list[Any]], None]) -> None:
        """What is decoded for it in slices is to be freed with `free`, when the attempt is over."""
        if self._large is None:
            self._large, self._free_large = [], free

    def keep_large(self, *values: Any) -> None:
        """Note what was decoded for this attempt."""
        if self._large is not None:
            self._large += values

    def use_snapshot(self, snapshot: Mapping[str, bytes]) -> None:
        """What a shared handler sees in its next step (rule V3)."""
        self._snapshot = snapshot

    def where(self, command: int) -> str:
        """The source line that issued a command of the last step."""
        sites, offset = self._sites, command - self._first_command
        site = sites[offset] if sites is not None and 0 <= offset < len(sites) else None
        return "a timer of asyncio" if site is None else str(site)

    def close(self) -> None:
        """Throw the attempt away and ignore what it still does (rule D3)."""
        self.loop.kill()
        self._pending = self._flush = self._main = self.answers = None
        large, free = self._large, self._free_large
        if large is not None and free is not None:
            self._large = self._free_large = None
            free(large)

    @property
    def pending(self) -> Sequence[int]:
        """The numbers of the commands that it waits for."""
        return () if self._pending is None else tuple(self._pending)

    def action(self, command: int) -> Action[Any] | None:
        """The side effect behind a command that it waits for, if there is one."""
        operation = None if self._pending is None else self._pending.get(command)
        return None if operation is None else operation.action

    def open_calls(self) -> Sequence[int]:
        """The calls that it waits for, but for those that are shielded."""
        if self._pending is None:
            return ()
        shielded = {id(future) for future in self.loop.shielded()}
        return [
            number
            for number, operation in self._pending.items()
            if isinstance(operation, CallOperation) and id(operation) not in shielded
        ]

    def leftover_tasks(self) -> list[str]:
        """The tasks that a finished handler left behind."""
        return [f"{task.get_name()} ({_name_of(task.get_coro())})" for task in self.loop.live_tasks()]

    def _run_watched(self, watch: Watch, deliveries: Sequence[Delivery]) -> Outcome | ContinueAsNew | None:
        with watch(f"{self.handler.service}/{self.handler.name}"):
            return self._run(deliveries)

    def _run(self, deliveries: Sequence[Delivery]) -> Outcome | ContinueAsNew | None:
        loop, main = self.loop, self._main
        if main is None:
            main = self._start()
            is_over = loop.run_ready(main)
        else:
            is_over = main.done()
        for delivery in deliveries:
            if is_over:
                break
            if delivery.command < 0:
                self._cancel(delivery, main)
            else:
                self._deliver(delivery)
            is_over = loop.run_ready(main)
            self._is_spreading = False
        if self._flush is not None:
            self._take_changes(self._flush(verify=not self.replaying))
        if is_over:
            if self._entries is not None:
                self._entries.give_back()
            if loop.tasks is not None:
                for task, error in loop.take_lost_errors():
                    self._note_lost(task, error)
                self._report_lost_errors(raises=False)
            end = self._how_it_ended(main)
            if self._lost_errors is not None:
                self._report_lost_errors(raises=True)
            if self._unawaited is not None and not (isinstance(end, Outcome) and end.failed):
                self._check_awaited(self._unawaited)
            return end
        if loop.tasks is not None:
            loop.tidy()
        if self._lost_errors is not None:
            self._report_lost_errors(raises=True)
        if self._unawaited is not None:
            self._unawaited = [operation for operation in self._unawaited if not operation.taken] or None
        if not self._pending:
            raise StuckError(self._describe_stuck())
        return None

    def _start(self) -> asyncio.Task[Any]:
        handler = self.handler
        instance = self._actor.instance(self.key, self, writable=not self._is_shared)
        argument, coding = self._accepted.argument, self.coding
        began = None if coding is None or len(argument) < MEASURED_BYTES else coding.monotonic()
        context = handler.context(instance, self, self.key)
        instance.__dict__[CONTEXT] = context
        try:
            if self._arguments is None:
                coroutine = handler.start(instance, context, argument)
            elif isinstance(self._arguments, InvalidArgumentError):
                raise self._arguments
            else:
                arguments, self._arguments = self._arguments, None
                self.keep_large(*arguments[0], *arguments[1].values())
                coroutine = handler.start_decoded(instance, context, arguments)
        except InvalidArgumentError as error:
            if not self._accepted.is_from_outside and not handler.is_malformed(argument):
                raise  # The caller's mistake.
            raise UndecodableError(
                f"The stored argument of {handler.service}/{handler.name} fitted when it was accepted, and cannot be "
                f"read now: the type has changed since, or the store was damaged. {error.message}"
            ) from error
        if coding is not None and began is not None:
            coding.add("the arguments", len(argument), began)
        self._main = self.loop.start(coroutine)
        return self._main

    def _deliver(self, delivery: Delivery) -> None:
        operation = None if self._pending is None else self._pending.pop(delivery.command, None)
        if operation is None:  # Rule C3
            return
        self._deliveries += (delivery.command,)
        # Not `isinstance`: an operation is a Coroutine, whose metaclass answers that in Python.
        if type(operation) is CallOperation and operation.is_cancelled_below:
            self._is_spreading = self.takes_cancel = True  # The same cancel goes on from here.
        operation.complete(delivery)

    def _cancel(self, cancel: Delivery, main: asyncio.Task[Any]) -> None:
        """Rule E1: once, on the main task. What an earlier one has cancelled below is waited for no longer."""
        self._deliveries += (cancel.command,)
        if cancel.value:
            self.failure = decode_failure(cancel.value)
        self.was_cancelled = self.takes_cancel = self._is_spreading = True
        earlier = [
            operation
            for operation in (self._pending or {}).values()
            if isinstance(operation, CallOperation) and operation.is_cancelled_below
        ]
        main.cancel()
        for operation in earlier:
            operation.cancel()

    def _end_step(self, at: int, end: Outcome | ContinueAsNew | None) -> Step:
        """What the step was; the next one begins with nothing."""
        commands, changes = self._commands, self._changes
        step = Step(
            at,
            self._deliveries,
            () if commands is None else tuple(commands),
            changes,
            () if self._abandoned is None else tuple(self._abandoned),
            self._reads,
            end if isinstance(end, Outcome) else None,
            self._attempt,
            () if self._cancelled is None else tuple(self._cancelled),
            self._patches,
            end.argument if isinstance(end, ContinueAsNew) else None,
        )
        self._first_command = self.next_command - len(step.commands)
        self._deliveries = ()
        self.takes_cancel = False
        self._commands = self._changes = self._reads = self._abandoned = self._cancelled = self._patches = None
        if changes is not None and end is None:
            if self._entries is not None:  # Those of entries are kept by themselves.
                changes = {name: value for name, value in changes.items() if not is_of_entries(name)}
            if self._earlier_changes is None:
                self._earlier_changes = dict(changes)
            else:
                self._earlier_changes.update(changes)
        return step

    def _take_changes(self, changes: Mapping[str, bytes | None]) -> None:
        for name, value in changes.items():
            if self._is_shared:
                raise SharedStateError(
                    f"The shared handler {self.handler.service}/{self.handler.name} changed the field {name!r} in "
                    "place. A shared handler reads; copy the value before you change it, or make the handler exclusive "
                    "(@handler)."
                )
            self._set_field(name, value)

    def _how_it_ended(self, main: asyncio.Task[Any]) -> Outcome | ContinueAsNew:
        error = asyncio.CancelledError() if main.cancelled() else main.exception()
        if error is None:
            return Outcome(False, self._encoded_result(main.result()))
        continuation = None if isinstance(error, Exception) else continuation_in(error)
        if continuation is not None:
            return continuation
        if self.failure is not None and isinstance(error, asyncio.CancelledError):
            return Outcome(True, encode_failure(self.failure))
        failure = terminal(error)
        if failure is None:
            raise _bare_operation(error) if _is_refused_by_wait(error) else error
        return Outcome(True, encode_failure(failure))

    def _encoded_result(self, result: Any) -> bytes:
        coding = self.coding
        if coding is None:
            return self.handler.encode_result(result)
        began = coding.monotonic()
        data = self.handler.encode_result(result)
        if len(data) >= MEASURED_BYTES:
            coding.add("the result", len(data), began)
        return data

    def _check_awaited(self, issued: list[Operation[Any]]) -> None:
        """The handler has returned; one that failed may well have left something unawaited."""
        unawaited = [operation for operation in issued if not operation.taken]
        if not unawaited:
            return
        names = "; ".join(f"{operation.what}, at {operation.site}" for operation in unawaited)
        handler = f"{self.handler.service}/{self.handler.name}"
        message = f"{handler} returned without having awaited: {names}. Write `await` before it."
        if self._settings.forgotten_await == "error":
            raise ForgottenAwaitError(message)
        if not self.replaying:
            self._observer.warned(self, message)

    def _note_lost(self, task: asyncio.Task[Any], error: BaseException) -> None:
        if not self.replaying:
            if self._lost_errors is None:
                self._lost_errors = []
            self._lost_errors.append((f"{task.get_name()} ({_name_of(task.get_coro())})", error))

    def _report_lost_errors(self, *, raises: bool) -> None:
        """Tell of tasks that failed unheard, once. A mistake pauses, and in tests every one of them is a failure.

        With `raises` False those that would raise are left for later: an error of the handler itself comes first.
        """
        for position, (task, error) in enumerate(self._lost_errors or ()):
            mistake = find_mistake(error)
            if mistake is None and self._settings.forgotten_await == "warn":
                self._observer.task_failed(self, task, error)
                continue
            if not raises:
                assert self._lost_errors is not None
                del self._lost_errors[:position]
                return
            if mistake is not None:
                raise error
            handler = f"{self.handler.service}/{self.handler.name}"
            if task in (_A_CALLBACK, _A_FUTURE):
                raise ForgottenAwaitError(f"{task.format(handler)}: {error!r}. Catch it there.") from error
            raise ForgottenAwaitError(
                f"A task of {handler} failed, and its exception was never retrieved: "
                f"{task} raised {error!r}. Await the task, or catch the error in it."
            ) from error
        self._lost_errors = None

    def _describe_stuck(self) -> str:
        stacks = [
            f"{task.get_name()} waits in:\n{stack_of_waiting(task.get_coro())}" for task in self.loop.live_tasks()
        ]
        return (
            f"{self.handler.service}/{self.handler.name} waits for something that nothing will ever supply: no call, "
            f"run or sleep of it is under way.\n{''.join(stacks)}Most likely an Event, Future, Lock or Queue is never "
            "set, released or filled."
        )

    # ------------------------------------------------------------------ for the loop (TimerOwner)

    def start_timer(self, timer: DurableTimer, due: int, /) -> None:
        number = self._record(Sleep(due), None)
        timer.command = number
        self._await_answer(number, TimerOperation(timer))

    def drop_timer(self, timer: DurableTimer, /) -> None:
        self.give_up(timer.command)

    def callback_failed(self, context: dict[str, Any], /) -> None:
        error = context.get("exception")
        task = context.get("future")
        if is_task(task) and error is not None:  # Its last reference has gone.
            self._note_lost(task, error)
            return
        if isinstance(error, HandlerMistakeError):
            raise error
        if self.replaying:
            return
        if error is not None and self._settings.forgotten_await == "error":  # In tests it is a failure, as of a task.
            self._lost_errors = [*(self._lost_errors or ()), (_A_CALLBACK if task is None else _A_FUTURE, error)]
            return
        self._observer.warned(self, f"{context.get('message')}: {error!r}")

    # ------------------------------------------------------------------ for contexts, references and state (Port)

    def check(self, what: object, /) -> None:
        if self.loop.thread != get_ident():
            self.loop.check(what)

    def handler_name(self) -> str:
        return f"{self.handler.service}/{self.handler.name}"

    def request(self) -> Request:
        accepted, request = self._accepted, self._request
        if request is None or request.attempt != self._attempt:
            request = self._request = Request(
                id=self.invocation_id,
                headers=joined(accepted.headers),
                attempt_headers=apart(accepted.headers),
                body=accepted.argument,
                idempotency_key=None if accepted.scope is None else accepted.scope.idempotency_key or None,
                deadline=None if accepted.deadline is None else from_timestamp(accepted.deadline),
                attempt=self._attempt,
            )
        return request

    def headers(self) -> Mapping[str, str]:
        return self._accepted.headers

    def at(self) -> int:
        self.check("The time of the handler")
        return self._at

    def random(self) -> Random:
        self.check("ctx.random()")
        if self._random is None:
            self._random = Random(self._seed + b"random")
        return self._random

    def uuid_bits(self) -> int:
        self.check("ctx.uuid()")
        if self._uuids is None:
            self._uuids = Random(self._seed + b"uuid")
        return self._uuids.getrandbits(128)

    def issue(
        self, command: Command, decode: Callable[[bytes], R], what: object, site: CallSite, /
    ) -> DurableOperation[R]:
        self.check(what)
        operation = (CallOperation if type(command) is Call else DurableOperation)(
            self, self.next_command, decode, what, site
        )
        if not self.loop.dead:
            self._await_answer(self._record(command, site), operation)
            self._note_issued(operation)
        return operation

    def issue_send(self, command: Send, sent: Sent[R], what: object, site: CallSite, /) -> DurableOperation[R]:
        if (command.may_join or self.is_hosted) and not self.handler.atomic:  # Rule C7

            def decode(data: bytes) -> R:
                answer = decode_send_answer(data)
                return sent(answer.id, answer.previously_accepted)

            return self.issue(command, decode, what, site)
        self.check(what)
        id = derived_invocation_id(self.invocation_id, self._seed, self.next_command, command.service, command.key)
        return self._issue_unanswered(command, sent(id), what, site)

    def callee_id(self, call: object, service: str, key: str | None, /) -> str | None:
        if not isinstance(call, CallOperation) or not call.is_of(self):
            return None
        seed, id = self._seed_of(call.number)
        return derived_invocation_id(id, seed, call.number, service, key)

    def issue_signal(self, command: SendSignal, what: object, site: CallSite, /) -> DurableOperation[None]:
        if not self.handler.atomic:
            return self.issue(command, _nothing, what, site)
        self.check(what)
        return self._issue_unanswered(command, None, what, site)

    def issue_awakeable(self, decode: Callable[[bytes], Any], site: CallSite, /) -> str:
        id = self._new_awakeable_id()
        operation = self.issue(MakeAwakeable(), decode, f"awakeable {id}", site)
        operation.taken = True  # Its id is what it is for; who gives that away need not wait.
        operation.add_done_callback(_note_failure)
        if self._awakeables is None:
            self._awakeables = {}
        self._awakeables[id] = operation
        return id

    def _new_awakeable_id(self) -> str:
        return awakeable_id(self.invocation_id, self._seed, self.next_command)

    def awakeable(self, id: str, /) -> DurableOperation[Any] | None:
        self.check("An awakeable")
        return None if self._awakeables is None else self._awakeables.get(id)

    def issue_one_way(self, command: Command, what: object, site: CallSite, /) -> DurableOperation[None]:
        self.check(what)
        return self._issue_unanswered(command, None, what, site)

    def issue_run(
        self, command: Run, action: Action[R], decode: Callable[[bytes], R], site: CallSite, /
    ) -> Operation[R]:
        operation = self.issue(command, decode, command, site)
        operation.action = action
        return operation

    def continue_as_new(self, argument: bytes, /) -> Never:
        self.check("ctx.continue_as_new()")
        raise ContinueAsNew(argument)

    def read_field(self, name: str, /) -> bytes | None:
        if self.loop.thread != get_ident():
            self.loop.check(f"The state field {name!r}")
        if self._is_shared:
            return self._read_shared(name)
        if self._changes is not None and name in self._changes:
            return self._changes[name]
        if self._earlier_changes is not None and name in self._earlier_changes:
            return self._earlier_changes[name]
        return self._snapshot.get(name)

    def field_names(self) -> Sequence[str]:
        self.check("ctx.keys()")
        names = set(self._snapshot)
        if self._is_shared:
            return self._names_shared(names)
        for changes in (self._earlier_changes, self._changes):
            for name, value in (changes or {}).items():
                (names.discard if value is None else names.add)(name)
        return sorted(names)

    def write_field(self, name: str, value: bytes | None, /) -> None:
        if self.loop.thread != get_ident():
            self.loop.check(f"The state field {name!r}")
        if self._is_shared:
            raise SharedStateError(
                f"The shared handler {self.handler.service}/{self.handler.name} changed the field {name!r}. A shared "
                "handler reads; to write, make the handler exclusive (@handler)."
            )
        if not self.loop.dead:
            self._set_field(name, value)

    def own_entries(self, field: str, /) -> FieldChanges:
        if self._is_shared:
            return FieldChanges()
        return self._changed_entries().changed(field)

    def write_entry(self, field: str, key: EntryKey, value: bytes | None, /) -> None:
        self.check(f"The state field {field!r}")
        if not self.loop.dead:
            if self._changes is not None:
                self._changes.pop(name_of_restored(field, key), None)
            self._set_field(name_of_entry(field, key), value)
            self._changed_entries().changed(field).set(key, value)

    def restore_entry(self, field: str, key: EntryKey, /) -> None:
        if not self.loop.dead:
            if self._changes is not None:
                self._changes.pop(name_of_entry(field, key), None)
            self._set_field(name_of_restored(field, key), None)
            self._changed_entries().changed(field).restore(key)

    def clear_entries(self, field: str, /) -> None:
        self.check(f"The state field {field!r}")
        if self.loop.dead:
            return
        changed = self._changed_entries().changed(field)
        if self._changes is not None:
            for name in [name for name in self._changes if name.startswith(name_of_all(field))]:
                del self._changes[name]
        changed.clear()
        self._set_field(name_of_all(field), None)

    def issue_known(self, result: R, what: object, site: CallSite, /) -> DurableOperation[R]:
        operation: DurableOperation[R] = DurableOperation(self, self.next_command, _never_decoded, what, site)
        operation.set_result(result)
        if not self.loop.dead:
            self._note_issued(operation)
        return operation

    def issue_taking(
        self,
        command: Command | None,
        decode: Callable[[bytes], R],
        what: object,
        site: CallSite,
        pops: Pops,
        entry: PoppedEntry,
        /,
    ) -> DurableOperation[R]:
        self.check(what)
        operation: TakingOperation[R] = TakingOperation(self, self.next_command, decode, what, site)
        operation.pops, operation.asked = pops, entry
        if not self.loop.dead:
            if command is not None:
                entry.command = self._record(command, site)
                self._await_answer(entry.command, operation)
            self._note_issued(operation)
            pops.issued(operation, entry)
        return operation

    def has_to_undo(self, change: int, /) -> None:
        self._to_undo += change

    def compensates(self, change: int, /) -> None:
        self.compensating += change

    @property
    def undoing(self) -> Undoing:
        """What is left to undo where it waits."""
        if self.compensating:
            return Undoing.UNDER_WAY
        return Undoing.OPEN if self._to_undo else Undoing.NOTHING

    def watch_fields(self, flush: Flush, /) -> None:
        self._flush = flush

    def patched(self, change: str, /) -> bool:
        self.check(f"ctx.patched({change!r})")
        if self._patched is None:
            self._patched = {}
        answer = self._patched.get(change)
        if answer is None:  # Rule W4
            answer = self._patched[change] = not self.replaying or change in self._recorded_patches
            if not self.replaying:
                self._patches = (*(self._patches or ()), change)
        return answer

    def tell(self, hear: Callable[[R], object], fact: R, /) -> None:
        self.check("A measurement")
        if not self.replaying and not self.loop.dead and self._host is not None:
            self._host.call_soon(self._tell, hear, fact)

    def _tell(self, hear: Callable[[R], object], fact: R) -> None:
        try:
            hear(fact)
        except USER_ERRORS as error:
            let_signals_pass(error)
            self._observer.warned(self, f"{hear!r} could not take {fact!r}: {error!r}")

    def log(self, level: str, event: str, fields: Mapping[str, Any], /) -> None:
        self.check("ctx.log")
        if not self.replaying and not self.loop.dead:
            self._observer.handler_logged(self, level, event, fields)

    def give_up(self, command: int) -> None:
        """The handler does not want the answer to a command any more (rule C5)."""
        if self.loop.dead or self._pending is None or self._pending.pop(command, None) is None:
            return
        if self._abandoned is None:
            self._abandoned = []
        self._abandoned.append(command)

    def cancel_below(self, call: CallOperation[Any]) -> bool:
        """A cancel has reached this call; whether its callee is to be cancelled, and the call to stay (rule E1)."""
        if not self._is_spreading or self.loop.dead or self._pending is None or call.number not in self._pending:
            return False
        if self._cancelled is None:
            self._cancelled = []
        self._cancelled.append(call.number)
        return True

    # ------------------------------------------------------------------ inside

    def _count_step(self, later: list[UsedSeed]) -> None:
        if later[0].first_step == self._steps_begun:
            used = (self.next_command, self._seed, self.invocation_id)
            self._earlier_seeds = [*(self._earlier_seeds or ()), used]
            _, self._seed, self.invocation_id = later.pop(0)
            self._random = self._uuids = self._request = None
        self._steps_begun += 1

    def _seed_of(self, number: int) -> tuple[bytes, str]:
        """The seed with which a command was issued, and the id to which it belongs."""
        used = ((seed, id) for end, seed, id in self._earlier_seeds or () if number < end)
        return next(used, (self._seed, self.invocation_id))

    def _record(self, command: Command, site: CallSite | None) -> int:
        number = self.next_command
        self.next_command = number + 1
        if self._commands is None:
            self._commands, self._sites = [], []
        self._commands.append(command)
        assert self._sites is not None
        self._sites.append(site)
        return number

    def _issue_unanswered(self, command: Command, result: R, what: object, site: CallSite) -> DurableOperation[R]:
        """Journal a command that no answer comes to."""
        operation: DurableOperation[R] = DurableOperation(self, self.next_command, _never_decoded, what, site)
        if not self.loop.dead:
            self._record(command, site)
            operation.set_result(result)
            self._note_issued(operation)
        return operation

    def _await_answer(self, number: int, operation: DurableOperation[Any] | TimerOperation) -> None:
        if self._pending is None:
            self._pending = {}
        self._pending[number] = operation

    def _note_issued(self, operation: Operation[Any]) -> None:
        if self._unawaited is None:
            self._unawaited = []
        self._unawaited.append(operation)

    def _changed_entries(self) -> EntryChanges:
        if self._entries is None:
            self._entries = EntryChanges()
        return self._entries

    def _set_field(self, name: str, value: bytes | None) -> None:
        if self._changes is None:
            self._changes = {}
        self._changes[name] = value

    def _read_shared(self, name: str) -> bytes | None:
        # Rule S4: within a step the first read is recorded; the state cannot change while the step runs.
        if self._reads is None:
            self._reads = {}
        reads, recorded = self._reads, self._recorded_reads
        if name not in reads:
            if not self.replaying:
                reads[name] = self._snapshot.get(name)
            elif recorded is not None and name in recorded:
                reads[name] = recorded[name]
            else:
                raise NonDeterminismError(
                    f"On replay {self.handler.service}/{self.handler.name} read the field {name!r}, which it had not "
                    "read before. Most likely its code changed while this invocation was under way."
                )
        return reads[name]

    def _names_shared(self, names: set[str]) -> Sequence[str]:
        """The names are recorded like a field of their own."""
        if not self.replaying and (self._reads is None or FIELD_LISTING not in self._reads):
            self._reads = {} if self._reads is None else self._reads
            self._reads[FIELD_LISTING] = msgspec.json.encode(sorted(names))
        listing = self._read_shared(FIELD_LISTING)
        return [] if listing is None else msgspec.json.decode(listing, type=list[str])


FIELD_LISTING = ""
"""The name under which a shared handler's look at the names of all fields is recorded; no field can be called that."""


def _nothing(_answer: bytes) -> None:
    return None


def _note_failure(operation: asyncio.Future[Any]) -> None:
    """An awakeable that was rejected need not be awaited: asyncio is not to complain of it."""
    if not operation.cancelled():
        operation.exception()


def _never_decoded(_answer: bytes) -> Any:
    raise AssertionError("a one-way command is not answered")


def _name_of(coroutine: object) -> str:
    """The name of a task's coroutine. Its repr contains an address, which differs between processes."""
    name: str = getattr(coroutine, "__qualname__", None) or type(coroutine).__qualname__
    return name


def _exit_mistake(error: SystemExit | KeyboardInterrupt) -> ProcessExitError:
    """A handler cannot end the process: recovered, it would end every process to come (rule E3)."""
    mistake = ProcessExitError(error)
    mistake.__cause__ = error
    return mistake.with_traceback(error.__traceback__)


def _is_refused_by_wait(error: BaseException) -> bool:
    """`asyncio.wait` itself raised it: it was given what it takes for a coroutine, and always will be."""
    if not isinstance(error, TypeError):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code is asyncio.wait.__code__


def _bare_operation(error: BaseException) -> BareOperationError:
    mistake = BareOperationError(
        "asyncio.wait was given a call, run or sleep as it is, or another coroutine, and takes tasks and futures only. "
        "Write `asyncio.wait([asyncio.ensure_future(call), ...])`, or use asyncio.gather or durably.select."
    )
    mistake.__cause__ = error
    return mistake.with_traceback(error.__traceback__)


def _raised(error: BaseException) -> Any:
    raise error


def _never_asked_for() -> Any:
    """Of an answer that has no result, or that nothing waits for any more."""
