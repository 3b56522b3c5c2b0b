"""`Committer`: group commit, and the gates that keep everything inside until it is durable.

The guarantee: what was put into the log at position p is on disk before any exit that was made at p or later lets
anything out, and the store was still ours after that exit was made (rule X9). One batch is written at a time and the
next is collected meanwhile, so the size of a batch adapts itself to the disk. A gate that failed stays shut: the
incarnation it belongs to is over (rules X1 to X3).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any, TypeVar

from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.errors import StoreUnavailableError
from durably.runtime.clock import Clock
from durably.runtime.commit.open_batch import OpenBatch
from durably.runtime.commit.thread_yielding import ThreadYielding
from durably.runtime.commit.transition import Transition
from durably.runtime.commit.verification import Verification
from durably.runtime.incarnation.idleness import Idleness
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.observation.observer import Observer
from durably.runtime.settings import Settings
from durably.storage.store import DiskFullError, Store

if TYPE_CHECKING:
    from durably.runtime.invocations.invocation import InvocationRun

A = TypeVar("A")

HEAVY_BYTES = 256 * 1024
"""What holds less is not to blame for a full disk."""


class Committer:
    """The log of one incarnation: what is open, what is being written, what is durable."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        clock: Clock,
        idleness: Idleness,
        last_position: int,
        observer: Observer,
        ready: ReadyQueue,
        settings: Settings,
        store: Store,
        thread_yielding: ThreadYielding,
    ) -> None:
        self.on_expiry: Callable[[int], None] = _no_one_listens
        """Hears when something expires that a transition keeps for a while."""
        self.on_pause_changed: list[Callable[[InvocationRun], None]] = []
        """Hear that an invocation is paused from now on, or is so no longer, however that came."""
        self.batch = OpenBatch()
        self.position = last_position
        self.durable = last_position
        self.writing = False
        self.commits = 0
        self._store = store
        self._host = asyncio.get_running_loop()
        self._clock = clock
        self._settings = settings
        self._idleness = idleness
        self._incarnation = incarnation
        self._observer = observer
        self._ready = ready
        self._thread_yielding = thread_yielding
        self._gates: deque[tuple[int, Callable[[Any], object], Any]] = deque()
        self._is_opening = False
        """Gates that may open do so in the next turn of the loop."""
        self._portion = settings.gates_at_once
        """How many of them do so in each."""
        self._bytes_writing = 0
        self._batch_under_way = (0, 0)
        """Of the batch that is being written: its transitions, and when that began. For observers."""
        self._heaviest = ""
        """The invocation that most of what is being written comes from, if it is much."""
        self._congestion: str | None = None
        self._dead = False
        self._task: asyncio.Task[None] | None = None
        self._durable_waiters: dict[asyncio.Future[None], None] = {}
        self._cut_position = last_position
        """What comes after it is in the open batch."""
        self._verification = Verification(self.failed, clock=clock, every_us=settings.verify_every_us, store=store)
        idleness.add(self._is_idle)

    @property
    def undurable_bytes(self) -> int:
        """What is ahead of the disk, about."""
        return self._bytes_writing + self.batch.bytes_held

    def begin(self) -> Transition:
        """A new transition in the open batch, at a log position of its own."""
        return Transition(self)

    def when_answerable(self, callback: Callable[[A], object], argument: A) -> None:
        """Call back once all that is in the log now is on disk and the store is known to be ours (rules X1 and X9).

        This is every exit. One that follows from no transition in the open batch takes a position there all the same:
        so it waits for a commit, or if there is nothing to write for a check, that begins after this call.
        """
        if self.position == self._cut_position:
            self.begin()
            self._ready.schedule()
        self._gates.append((self.position, callback, argument))

    def when_durable(self, callback: Callable[[A], object], argument: A) -> None:
        """Call back once all that is in the log now is on disk; at once if it is. For what lets nothing out."""
        if self.position <= self.durable and not self._gates:
            callback(argument)
        else:
            self._gates.append((self.position, callback, argument))

    def is_settled(self) -> bool:
        """Everything is on disk and every gate has opened."""
        return self.position <= self.durable and not self._gates

    def is_behind(self) -> bool:
        """Too much is ahead of the disk (rule X2)."""
        return self.undurable_bytes > self._settings.undurable_limit_bytes

    def refusal(self) -> str | None:
        """Why nothing more is wanted from outside for now: memory is full, or the store is congested.

        Congestion begins with a commit, so it is looked for after each; while it lasts, each request looks again.
        """
        ahead = self._bytes_writing + self.batch.bytes_held + self._ready.arrived_bytes
        if ahead > self._settings.undurable_limit_bytes:  # Rule X2
            return "More is waiting to be written than the store keeps up with. Try again later."
        if self._congestion is not None:  # Rule X6
            self._congestion = self._store.congestion()
        return self._congestion

    def write_if_due(self) -> None:
        """Cut and write a batch, if this is a moment for it (rule X2). Never called within a transition."""
        if self.writing or self._dead or self.position == self.durable:
            return
        if self._ready.is_quiet() or self._is_full():
            self._write()
        elif self.batch.opened_at is None:
            self.batch.opened_at = self._clock.monotonic()

    async def until_durable(self) -> None:
        """Wait until everything that has come by now is on disk, and the store is known to be ours (rule X9).

        Raises:
            StoreUnavailableError: it never will be, in this incarnation.
        """
        durable: asyncio.Future[None] = self._host.create_future()
        self._durable_waiters[durable] = None
        self._ready.arrive(partial(self.when_answerable, _resolve, durable))  # Behind the requests that came before.
        try:
            await durable
        finally:
            self._durable_waiters.pop(durable, None)

    def kill(self) -> None:
        """The incarnation is over: no gate opens any more."""
        self._dead = True
        self._gates.clear()
        self._verification.kill()
        for waiter in self._durable_waiters:
            if not waiter.done():
                waiter.set_exception(StoreUnavailableError("The store failed before it had answered. Ask again."))

    async def finish(self) -> None:
        """Wait until nothing is being written any more."""
        if self._task is not None:
            await asyncio.wait([self._task])
        await self._verification.finish()

    def failed(self, error: BaseException) -> None:
        """The incarnation cannot go on: what is not durable never will be."""
        self.kill()
        self._incarnation.fail(error)

    def _is_full(self) -> bool:
        batch, settings = self.batch, self._settings
        return (
            batch.transitions >= settings.batch_limit_transitions
            or batch.bytes_held >= settings.batch_limit_bytes
            or (batch.opened_at is not None and self._clock.monotonic() - batch.opened_at >= settings.batch_limit_us)
        )

    def _write(self) -> None:
        open_batch, position = self.batch, self.position
        self.batch = OpenBatch()
        self._cut_position = position
        try:
            batch = open_batch.cut(position)
        except USER_ERRORS as error:  # What it held is lost, so no gate of it may ever open.
            self.failed(error)
            let_signals_pass(error)
            return
        if batch is None:  # Rule X9: nothing is written that would tell whether the store is still ours.
            self.writing = True
            if self._verification.holds(partial(self._verified, position)):
                self.writing = False
                self._advance_durable(position)
            return
        self.writing = True
        self._bytes_writing = open_batch.bytes_held
        self._heaviest = open_batch.heaviest if _is_mostly_one(open_batch) else ""
        self._thread_yielding.begin()
        self._task = self._host.create_task(self._store.commit(batch))
        self._task.add_done_callback(lambda task: self._written(task, position))
        if self._observer.detailed:
            self._batch_under_way = (open_batch.transitions, self._clock.monotonic())

    def _written(self, task: asyncio.Task[None], position: int) -> None:
        self._task = None
        self._thread_yielding.end()
        self.writing = False
        self._bytes_writing = 0
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if self._dead:  # Rule X3: late news of an older incarnation.
            return
        if error is not None:
            if isinstance(error, DiskFullError):  # Rule L5: without this one, the others may fit.
                self._incarnation.suspect = self._heaviest
            self.failed(error)
            return
        self.commits += 1
        if self._observer.detailed:
            transitions, began_us = self._batch_under_way
            self._observer.batch_written(transitions, self._clock.monotonic() - began_us)
        self._congestion = self._store.congestion()
        self._advance_durable(position)
        self.write_if_due()

    def _verified(self, position: int) -> None:
        """What stands for a commit that would have been empty has ended."""
        self.writing = False
        self._advance_durable(position)
        self.write_if_due()

    def _advance_durable(self, position: int) -> None:
        self.durable = position
        self._portion = max(self._settings.gates_at_once, ceil(len(self._gates) / self._settings.gate_turns))
        if not self._is_opening:
            self._open_gates()

    def _open_gates(self) -> None:
        """Let out what is durable, in order, a portion in each turn of the loop.

        Who is let out comes back with more. What the first portion brings is written while the next one is let out; all
        at once would do everything at once ever after, and leave disk and loop waiting for each other. A portion grows
        with what waits: after a stall turns are long, and small portions would take many of them.
        """
        self._is_opening = False
        gates = self._gates
        left = self._portion
        while gates and gates[0][0] <= self.durable and not self._dead:
            if left == 0:
                self._is_opening = True
                self._host.call_soon(self._open_gates)
                break
            left -= 1
            _, callback, argument = gates.popleft()
            try:
                callback(argument)
            except USER_ERRORS as error:  # A mistake of ours: no caller may wait for what it would have done.
                self.failed(error)
                let_signals_pass(error)
        if not self._dead:
            self._caught_up()

    def _caught_up(self) -> None:
        """Some of what held back the machine is on disk now."""
        if self.commits == 1:
            self._incarnation.progressed()
        if self._observer.detailed:
            self._observer.committed(self.durable)
        if self._ready.invocations or self._ready.requests:
            self._ready.schedule()
        if self._idleness.is_awaited:
            self._idleness.changed()

    def _is_idle(self) -> bool:
        return self.is_settled() and not self.writing


def _is_mostly_one(batch: OpenBatch) -> bool:
    return batch.heaviest_bytes >= HEAVY_BYTES and 2 * batch.heaviest_bytes >= batch.bytes_held


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _no_one_listens(expires_at: int) -> None:
    raise AssertionError("something expires, and the machine was not put together")
