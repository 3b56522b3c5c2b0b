"""`Pump`: keeps the machine going. It advances what is ready, accepts requests, and sees whether a batch can be cut.

It runs in plain callbacks of the host loop, never inside a task (rule S1), and for a bounded time, so that the host's
other callbacks get their turns.
"""

from __future__ import annotations

from durably.actors.protocol.coding import CodingMeter
from durably.actors.values.user_errors import USER_ERRORS, is_from_signal
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.execution.loop import begin_round, end_round
from durably.runtime.incarnation.idleness import Idleness
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.observation.observer import Observer
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.settings import Settings
from durably.runtime.steps.steps import Steps
from durably.storage.store import DiskFullError

ADVANCES_PER_REQUEST = 8
"""Work under way goes first, so that it ends; handlers that keep each other busy for ever must not keep others out."""


class Pump:
    """Takes the turns that `ReadyQueue` schedules."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        clock: Clock,
        coding: CodingMeter,
        committer: Committer,
        idleness: Idleness,
        observer: Observer,
        failure: BaseException | None,
        poisoned: str,
        ready: ReadyQueue,
        registry: InvocationRegistry,
        settings: Settings,
        steps: Steps,
    ) -> None:
        """`poisoned` is the id of an invocation that ended the last incarnations: it is paused when its turn comes.

        `failure` is what the last one ended with.
        """
        self._incarnation = incarnation
        self._clock = clock
        self._coding = coding
        self._committer = committer
        self._idleness = idleness
        self._observer = observer
        self._poisoned = poisoned
        self._failure = failure
        self._advances = 0
        """Since a request was last accepted: also in turns so short that few go into one."""
        self._ready = ready
        self._registry = registry
        self._settings = settings
        self._steps = steps
        ready.turn = self.take_turn
        idleness.add(ready.is_idle)

    def take_turn(self) -> None:
        if self._incarnation.dead:
            return
        self._ready.in_turn = True
        hooks = begin_round()
        try:
            self._work_off()
        except USER_ERRORS as error:
            if is_from_signal(error):
                # Rule E3: the host's business. If that goes on, so do the others, and after a while this one too.
                self._ready.in_turn = False
                self._clock.call_later(self._settings.host_error_pause_us, self._again, self._incarnation.suspect)
                self._ready.schedule()
                raise
            self._incarnation.fail(error)  # A mistake of ours: fail and recover, rather than go on half.
        finally:
            end_round(hooks)
            self._ready.in_turn = False
        self._end_turn()

    def _work_off(self) -> None:
        """Advance and accept for a bounded time, unless too much is ahead of the disk (rule X2)."""
        queue = self._ready
        ready, lanes, requests = queue.invocations, queue.lanes, queue.requests
        committer, incarnation = self._committer, self._incarnation
        monotonic, coding = self._clock.monotonic, self._coding
        began = monotonic()
        until = began + self._settings.pump_budget_us
        advances = self._advances
        while (ready or requests) and not committer.is_behind():
            if requests and (not ready or advances >= ADVANCES_PER_REQUEST):
                advances = 0
                requests.popleft()()
                if not ready:
                    if monotonic() > until or incarnation.dead:
                        break
                    continue
            advances += 1
            invocation = ready.popleft()
            if lanes:
                queue.refill()
            if invocation is not queue.successor:
                queue.succession = 0
            queue.successor = None
            invocation.is_queued = False
            incarnation.advancing_since = began
            incarnation.suspect = invocation.id
            if invocation.id == self._poisoned:
                self._pause_poisoned(invocation)
            else:
                batch = committer.batch
                held = batch.bytes_held
                self._steps.advance(invocation)
                grown = batch.bytes_held - held
                if grown > batch.heaviest_bytes:
                    batch.note_weight(invocation.id, grown)
            incarnation.suspect = ""
            ended = monotonic()
            if ended - began > self._settings.slow_advance_us:  # Rule S7
                sampled_at, place, stack = incarnation.sample
                where = (place, stack) if sampled_at == began else ("", "")
                self._observer.slow(invocation, ended - began, coding, *where)
            if coding.largest_bytes:
                coding.reset()
            began = ended
            if ended > until or incarnation.dead:
                break
        self._advances = advances

    def _pause_poisoned(self, invocation: InvocationRun) -> None:
        """Twice the machine has failed at this one. The others must not suffer for it again (rule L5)."""
        self._poisoned = ""
        error: BaseException
        if isinstance(self._failure, DiskFullError):
            error = DiskFullError(
                "What it was about to store did not fit on the disk, twice, and kept all others from theirs. Free some "
                f"space, then resume it. {self._failure}"
            )
        else:
            error = RuntimeError(
                "the runtime itself failed twice while it advanced this invocation; please report it, with the log"
            )
        self._steps.pause(invocation, error)

    def _end_turn(self) -> None:
        """See whether a batch can go, and whether anything is left."""
        if self._incarnation.dead:
            return
        self._committer.write_if_due()
        if (self._ready.invocations or self._ready.requests) and not self._committer.is_behind():
            self._ready.schedule()
        elif self._idleness.is_awaited:
            self._idleness.changed()

    def _again(self, id: str) -> None:
        invocation = self._registry.live.get(id)
        is_over = self._incarnation.dead or self._incarnation.stopping
        if invocation is not None and not is_over and invocation.execution is None:
            self._ready.push(invocation)
