"""`VmJournal`: the same journal, on the state machine behind restate-sdk's contexts.

That is not public, and changes from minor to minor. It gives what the public API does not: a step's time is recorded
only where the step looks at the clock, and nothing waits for it unless a side effect starts; the ids of messages are
answers like others. That is about half the attempts and round trips.
"""

# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final, cast

import restate
from restate import RestateDurableFuture
from restate.exceptions import SdkInternalException, SuspendedException
from restate.vm import Failure, FirstCompletedUnresolvedFuture, NotReady, SingleUnresolvedFuture, Suspended

from durably.actors.protocol.commands import Call, Run, Send
from durably.restate.journal import AT, Journal, Waiting, identified, mismatches_told
from durably.runtime.execution.execution import Execution
from durably.runtime.execution.step import Delivery, Step

MILLISECOND: Final = timedelta(milliseconds=1)
_UNKNOWN: Final = -1


class Handle(RestateDurableFuture[Any]):
    """A notification that is waited for."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __await__(self) -> Generator[Any, Any, Any]:
        raise AssertionError("what the state machine notifies of is taken, not awaited")


class VmJournal(Journal):
    """The journal of one attempt, with the SDK's state machine."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._internal = cast("Any", self.ctx)
        self._vm: Any = self._internal.vm
        self._step_at = _UNKNOWN
        self._is_fresh = False
        """The time of the step was read from the clock, and is still to be recorded."""
        self._unacknowledged: int | None = None
        """The newest record of a time that Restate has not confirmed."""
        self._reads_unconfirmed = False
        """State was read since Restate has last confirmed something."""
        self._at_least = 0
        self._has_ended = False
        self._broken: BaseException | None = None
        self._must_confirm = False
        """In the last step the handler has asked for side effects."""
        self._handles_of_ids: dict[int, int] = {}
        """Of calls, by their numbers."""
        self._ids: dict[int, str] = {}

    async def read_state(self) -> dict[str, bytes]:
        self._reads_unconfirmed = self._is_shared
        return await super().read_state()

    async def begin_step(self, deliveries: list[Delivery]) -> int:
        self._at_least = max([self._at, *(self._dues.pop(one.command, 0) for one in deliveries)])
        if not (deliveries and all(one.command in self._is_free for one in deliveries)):
            self._step_at, self._is_fresh = _UNKNOWN, False
        return self._at

    def now(self) -> int:
        """The time of the step, recorded when a step looks at it; in the middle of the handler's code, so at once."""
        if self._step_at == _UNKNOWN and not self._has_ended:
            self._step_at = self._at = self._recorded() if self._vm.is_replaying() else self._read_clock()
        return self._at

    def _read_clock(self) -> int:
        self._is_fresh = True
        return max(self._clock.now(), self._at_least)

    def _recorded(self) -> int:
        """The next entry of the journal is the time that this step was given."""
        try:
            run = self._vm.sys_run(AT)
            if not run.replayed:  # It was not confirmed, so nothing that follows from it has left.
                return self._propose(run.handle, max(self._clock.now(), self._at_least))
            while not self._vm.is_completed(run.handle):
                self._checked(self._vm.do_progress(_first_of([run.handle, *self._handles()])))
                self._take_ready()
            return int(self._checked(self._vm.take_notification(run.handle)))
        except BaseException as error:  # The handler may catch it: the attempt is over all the same.
            self._broken = error
            raise

    def _propose(self, handle: int, at: int) -> int:
        self._vm.propose_run_completion_success(handle, b"%d" % at)
        self._unacknowledged = handle
        return at

    def set_deadline(self, deadline: int) -> None:
        self._tell_time()
        super().set_deadline(deadline)

    def emit(self, step: Step, execution: Execution, first: int) -> None:
        needs_time = any(isinstance(one, Call | Send) and one.timeout_us is not None for one in step.commands)
        starts = step.outcome is None and any(isinstance(one, Run) for one in step.commands)
        if needs_time or (starts and self._reads_unconfirmed):
            with mismatches_told():
                self.now()
        self._tell_time()
        super().emit(step, execution, first)
        self._must_confirm = starts

    def _tell_time(self) -> None:
        if self._is_fresh:
            with mismatches_told():
                self._propose(self._vm.sys_run(AT).handle, self._at)
            self._is_fresh = False

    async def settle(self) -> None:
        await super().settle()
        handle = self._unacknowledged
        if self._must_confirm and handle is not None:
            # What a side effect may follow from has to be durable before it starts (rule X1).
            runs = self._internal.run_coros_to_execute
            while not self._vm.is_completed(handle):
                await self._progress([handle, *(one for one in self._handles() if one not in runs)])
            self._checked(self._vm.take_notification(handle))
            self._unacknowledged, self._reads_unconfirmed = None, False

    def is_replaying(self) -> bool:
        return bool(self._vm.is_replaying())

    def end(self) -> None:
        self._has_ended = True

    def check(self) -> None:
        if self._broken is not None:
            raise self._broken

    # ------------------------------------------------------------------ commands whose ids are answers

    def _call(self, number: int, command: Call, headers: dict[str, str]) -> RestateDurableFuture[Any]:
        call = self._vm.sys_call(
            command.service, command.handler, command.argument, command.key, command.idempotency_key,
            list(headers.items()),
        )  # fmt: skip
        self._handles_of_ids[number] = call.invocation_id_handle
        return Handle(call.result_handle)

    def _send(self, number: int, command: Send, *, is_answered: bool) -> None:
        delay = self._delay(command)
        handle = self._vm.sys_send(
            command.service, command.handler, command.argument, command.key,
            None if not delay else round(delay / MILLISECOND), command.idempotency_key,
            list(self._headers_of_send(command).items()),
        )  # fmt: skip
        if is_answered:
            self._is_free.add(number)
            self._pending[number] = Waiting(Handle(handle), identified)

    def _identify_call(self, number: int, call: int) -> None:
        self._is_free.add(number)
        if call in self._ids:
            self._queue.append(Delivery(number, False, identified(self._ids[call])))
        else:
            self._pending[number] = Waiting(Handle(self._handles_of_ids[call]), partial(self._identified, call))

    def _identified(self, call: int, id: str) -> bytes:
        self._ids[call] = id
        return identified(id)

    async def _cancel_below(self, number: int) -> None:
        if number not in self._ids:
            handle = self._handles_of_ids[number]
            while not self._vm.is_completed(handle):
                await self._progress([handle])
            self._ids[number] = self._checked(self._vm.take_notification(handle))
        self.ctx.cancel_invocation(self._ids[number])

    # ------------------------------------------------------------------ waiting

    async def _first_completed(self, *more: RestateDurableFuture[Any]) -> Sequence[RestateDurableFuture[Any]]:
        await self._progress(self._handles())
        self._take_ready()
        return ()

    async def _progress(self, handles: Sequence[int]) -> None:
        """Wait until one of them has its notification, or a cancel is noted."""
        try:
            await self._internal.create_poll_or_cancel_coroutine(_first_of(handles))
        except restate.TerminalError:
            self._note_cancel()

    def _handles(self) -> list[int]:
        """Of everything that is waited for."""
        waited = [
            *(() if self._deadline is None else (self._deadline,)),
            *(one.future for one in self._pending.values()),
            *self._limits.values(),
        ]
        return [cast("Any", future).handle for future in waited]

    def _take_ready(self) -> None:
        if self._deadline is not None and self._take(self._deadline) is not _NOT_READY:
            self._note_deadline()
        for number, waiting in list(self._pending.items()):
            got = self._take(waiting.future)
            if got is _NOT_READY:
                continue
            del self._pending[number]
            self._limits.pop(number, None)
            if isinstance(got, Failure):
                error = restate.TerminalError(got.message, got.code, metadata=got.metadata)
                self._queue.append(Delivery(number, True, waiting.failure(error)))
            else:
                self._queue.append(Delivery(number, False, waiting.answer(got)))

        for number, limit in list(self._limits.items()):
            if self._take(limit) is not _NOT_READY:
                self._note_limit(number)

    def _take(self, future: RestateDurableFuture[Any]) -> Any:
        handle = cast("Any", future).handle
        return self._checked(self._vm.take_notification(handle)) if self._vm.is_completed(handle) else _NOT_READY

    def _checked(self, told: Any) -> Any:
        """What the state machine told, unless it is why the attempt is over."""
        if isinstance(told, BaseException):
            raise SdkInternalException from told
        if isinstance(told, Suspended):
            raise SuspendedException
        return told


_NOT_READY: Final = NotReady()


def _first_of(handles: Sequence[int]) -> FirstCompletedUnresolvedFuture:
    return FirstCompletedUnresolvedFuture([SingleUnresolvedFuture(one) for one in handles])
