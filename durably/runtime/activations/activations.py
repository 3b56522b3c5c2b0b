"""`Activations`: the objects in memory. How they come in, and which invocation may start.

Everything that concerns an object goes through its activation, made cold and loaded if need be (rules L1, L2). The
module `passivation` decides what leaves memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

from msgspec import structs

from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.actors.migrations import FIRST_STATE_VERSION
from durably.ids import Address, InvocationStatus
from durably.runtime.activations.attempts import Attempts
from durably.runtime.activations.passivation import Passivation
from durably.runtime.commit.committer import Committer
from durably.runtime.execution.step import Delivery
from durably.runtime.incarnation.idleness import Idleness
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.activation import Activation, LoadBuffer
from durably.runtime.invocations.invocation import InvocationRun, from_stored, take_payloads
from durably.runtime.invocations.journal import version_at
from durably.runtime.invocations.load_errors import LoadError, newer_state_error, state_load_error
from durably.runtime.observation.observer import Observer
from durably.runtime.registry.batched_lookup import BatchedLookup
from durably.runtime.registry.reads import Reads
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.settings import Settings
from durably.storage.records import (
    CallerRecord,
    SignalRecord,
    StoredInvocation,
    StoredObject,
    Unreadable,
    promise_part,
)


class Activations:
    """The activations of one incarnation."""

    def __init__(
        self,
        by_address: dict[Address, Activation],
        incarnation: Incarnation,
        *,
        actors: Mapping[str, BoundActor],
        attempts: Attempts,
        committer: Committer,
        idleness: Idleness,
        observer: Observer,
        passivation: Passivation,
        reads: Reads,
        ready: ReadyQueue,
        registry: InvocationRegistry,
        settings: Settings,
    ) -> None:
        self.by_address = by_address
        # The same; an address is equal to the tuple of its parts, which costs a tenth to make.
        self._by_parts = cast("Mapping[tuple[str, str], Activation]", by_address)
        self.on_queued: list[Callable[[InvocationRun, InvocationRun], None]] = []
        """Hear that a message waits behind the invocation that holds its object, in the transition that brings it."""
        self.on_loaded: list[Callable[[Activation], None]] = []
        """Hear that an object is in memory."""
        self.on_signalled: Callable[[InvocationRun], None] = _no_one_settles
        """Hears that an invocation is in memory for which something came while it was not."""
        self.waiting = 0
        """How many messages wait in mailboxes that are in memory, with what the store keeps of them."""
        self._actors = actors
        self._attempts = attempts
        self._committer = committer
        self._incarnation = incarnation
        self._passivation = passivation
        self._pending_in_memory = settings.pending_in_memory
        self._mailbox_messages = settings.mailbox_messages
        self._long_mailbox = max(1, settings.mailbox_messages * settings.long_mailbox_percent // 100)
        self._observer = observer
        self._ready = ready
        self._registry = registry
        # Rule L2: the log is durable up to the load position of all that is asked for.
        self._load: BatchedLookup[Address, StoredObject] = BatchedLookup(
            incarnation, ready, reads.load, durable=lambda: committer.durable, gate=committer.when_durable
        )
        idleness.add(self._is_idle)

    # ------------------------------------------------------------------ in

    def activation(self, address: Address) -> Activation:
        """The activation of an object, cold and on its way if it is not in memory."""
        activation = self.by_address.get(address)
        if activation is None:
            activation = self.by_address[address] = self.detached(address)
            self._begin_load(activation)
        return activation

    def with_loaded(self, address: Address, then: Callable[[Activation], None]) -> None:
        """Do something once the activation of an object is in memory; at once if it is."""
        activation = self.activation(address)
        if activation.load_buffer is not None:
            activation.load_buffer.callbacks.append(then)
        else:
            then(activation)

    def receiving(self, handler: BoundActorHandler, key: str) -> Activation:
        """The activation that a message for this handler goes through. Nothing of a new service call can be stored."""
        activation = self._by_parts.get((handler.service, key))
        if activation is None:
            address = Address(handler.service, key)
            activation = self.by_address[address] = self.detached(address)
            if handler.kind != "service":
                self._begin_load(activation)
        return activation

    def admit(self, invocation: InvocationRun) -> None:
        """Hand a message to the activation of its object. Part of the transition that accepted it."""
        activation = invocation.activation
        if activation.load_buffer is not None:
            activation.load_buffer.messages.append(invocation)
        else:
            self._dispatch(activation, invocation)

    def hosts(self, address: Address) -> bool:
        """This runtime has the class of the object."""
        return address.service in self._actors

    def detached(self, address: Address) -> Activation:
        """An activation outside the table: for what has not come to its object yet."""
        return Activation(address, self._actors[address.service], self._committer.position)

    def start_next(self, activation: Activation) -> None:
        """Start the head of the mailbox, if nothing holds it."""
        if self._incarnation.stopping:  # Rule T4
            return
        invocation = activation.next_to_start()
        if invocation is not None:
            self.waiting -= 1
            self._ready.push(invocation)
        elif activation.stored_tail and activation.current is None and not activation.loading:
            self._begin_load(activation)

    def _dispatch(self, activation: Activation, invocation: InvocationRun) -> None:
        if not invocation.handler.is_exclusive:
            activation.shared[invocation.number] = invocation
            self._begin(invocation)
        elif activation.stored_tail or len(activation.mailbox) >= self._pending_in_memory:
            # Rule C8: the tail stays in the store; it is loaded when the head has been worked off.
            activation.stored_tail += 1
            activation.deletion_in_tail = invocation if invocation.handler.is_deletion else None
            self.waiting += 1
            self._committer.when_durable(self._registry.forget, invocation)
            self._tell_queued(activation, invocation)
        elif activation.current is None and not activation.mailbox and not self._incarnation.stopping:
            activation.current = invocation
            self._begin(invocation)
        else:
            activation.mailbox.append(invocation)
            self.waiting += 1
            self._tell_queued(activation, invocation)

    def _begin(self, invocation: InvocationRun) -> None:
        if invocation.caller is None:
            self._ready.push(invocation)
        else:
            self._ready.push_next(invocation)

    def take_out(self, invocation: InvocationRun) -> None:
        """One that is queued leaves its mailbox without having started."""
        activation = invocation.activation
        if invocation in activation.mailbox:
            activation.mailbox.remove(invocation)
        elif activation.stored_tail:
            activation.stored_tail -= 1
            activation.deletion_in_tail = None
        else:
            return
        self.waiting -= 1

    def _tell_queued(self, activation: Activation, invocation: InvocationRun) -> None:
        waiting = len(activation.mailbox) + activation.stored_tail
        if waiting >= self._long_mailbox or activation.long_mailbox_told:
            self._look_at_length(activation, waiting)
        if activation.current is not None:
            for hear in self.on_queued:
                hear(invocation, activation.current)

    def _look_at_length(self, activation: Activation, waiting: int) -> None:
        """Warn of a mailbox that passes a share of its limit, and again at each doubling."""
        told = activation.long_mailbox_told
        if waiting < self._long_mailbox // 2:
            activation.long_mailbox_told = 0
        elif waiting >= max(self._long_mailbox, 2 * told):
            activation.long_mailbox_told = waiting
            self._observer.mailbox_is_long(activation, waiting, self._mailbox_messages)

    # ------------------------------------------------------------------ rehydration

    def _begin_load(self, activation: Activation) -> None:
        activation.load_buffer = LoadBuffer()
        activation.load_position = self._committer.position
        self._load(activation.address, partial(self._loaded, activation))

    def _loaded(self, activation: Activation, stored: StoredObject) -> None:
        """Take the snapshot and the unfinished invocations, then what came during the load. Runs no user code."""
        load_buffer, activation.load_buffer = activation.load_buffer, None
        assert load_buffer is not None
        came = {invocation.number for invocation in load_buffer.messages}
        if activation.is_read_again:
            activation.is_read_again = False
            self._take_again(activation, stored)
            stored = structs.replace(stored, pending=[], pending_beyond=activation.stored_tail)
        self.waiting += stored.pending_beyond - activation.stored_tail
        activation.stored_tail = stored.pending_beyond
        if not activation.is_rehydrated:
            activation.is_rehydrated = True
            self._take_snapshot(activation, stored)
            for row in stored.started:
                if row.record.number <= activation.load_position and row.record.number not in came:
                    self._take_up(activation, self._restored(activation, row))
            _note_unsaved_version(activation)
        for row in stored.pending:
            # Rule L2: what joined the mailbox at or after the birth has arrived through the activation.
            if (row.record.mailbox_position or 0) <= activation.load_position and row.record.number not in came:
                invocation = self._restored(activation, row)
                self._registry.enter(invocation)
                activation.mailbox.append(invocation)
                self.waiting += 1
        self._take_arrived(activation, load_buffer)
        if (waiting := len(activation.mailbox) + activation.stored_tail) >= self._long_mailbox:
            self._look_at_length(activation, waiting)
        for callback in load_buffer.callbacks:
            callback(activation)
        for hear in self.on_loaded:
            hear(activation)
        self.start_next(activation)
        self._passivation.mark_idle(activation)

    def _take_snapshot(self, activation: Activation, stored: StoredObject) -> None:
        activation.load_error = state_load_error(stored) or self._malformed_promise(activation, stored)
        is_sound = activation.load_error is None
        if is_sound:
            activation.load_error = _take_state(activation, stored)
        else:
            activation.snapshot = {}
        activation.state_bytes = sum(map(len, activation.snapshot.values()))
        activation.promises = {promise.name: promise for promise in stored.promises} if is_sound else {}

    def _malformed_promise(self, activation: Activation, stored: StoredObject) -> LoadError | None:
        """Seen here, and not when a handler awaits it: by then its bytes would be a record of that handler too."""
        for promise in stored.promises:
            if not promise.failed and activation.actor.is_malformed_promise(promise.name, promise.value):
                damage = Unreadable(promise_part(promise.name), "It is damaged: it is no JSON.")
                return state_load_error(structs.replace(stored, unreadable=damage))
        return None

    def _take_up(self, activation: Activation, invocation: InvocationRun) -> None:
        self._registry.enter(invocation)
        if invocation.mailbox_position is not None and activation.current is None:
            activation.current = invocation
        else:  # Also what was accepted as shared, and is exclusive in today's code.
            activation.shared[invocation.number] = invocation
        if invocation.signals:
            self.on_signalled(invocation)
        self._attempts.take_up(invocation)

    def _take_arrived(self, activation: Activation, load_buffer: LoadBuffer) -> None:
        for number, caller in load_buffer.attachments:
            self._attach(activation, number, caller)
        for number, delivery in load_buffer.answers:
            self._answer(activation, number, delivery)
        for signal in load_buffer.signals:
            self._signal(activation, signal)
        for message in load_buffer.messages:
            self._dispatch(activation, message)

    def _attach(self, activation: Activation, number: int, caller: CallerRecord) -> None:
        target = activation.find(number) or activation.find_waiting(number)
        if target is not None and caller not in target.attachments:
            target.attachments += (caller,)

    def _answer(self, activation: Activation, number: int, delivery: Delivery) -> None:
        """An answer that was recorded while its invocation was on its way; that may have ended since (rule C3)."""
        invocation = activation.find(number)
        if invocation is None or invocation.journal is None:
            return
        invocation.stored = ()  # The row may have been woken since it was read.
        if invocation.journal.answer(delivery):
            self._attempts.take_up(invocation)
        elif invocation.status is InvocationStatus.SUSPENDED:  # Woken in vain: it had that answer, or had given it up.
            self._committer.begin().move(invocation, InvocationStatus.SUSPENDED)

    def _signal(self, activation: Activation, signal: SignalRecord) -> None:
        """It was recorded while its invocation was on its way; that may have ended since, or wait in the store only."""
        invocation = activation.find(signal.number) or activation.find_waiting(signal.number)
        if invocation is not None:
            invocation.stored = ()  # The row may have been woken since it was read.
            invocation.signals += (signal,)
            self.on_signalled(invocation)

    def _restored(self, activation: Activation, row: StoredInvocation) -> InvocationRun:
        is_shared = row.record.mailbox_position is None
        handler = activation.actor.handler_or_missing(row.record.handler, shared=is_shared)
        invocation = from_stored(row, activation, handler)
        self._leave_out_later_signals(activation, invocation)
        return invocation

    def _leave_out_later_signals(self, activation: Activation, invocation: InvocationRun) -> None:
        if invocation.signals:  # Rule L2: later ones come through the activation.
            known = (one for one in invocation.signals if one.position <= activation.load_position)
            invocation.signals = tuple(known)

    # ------------------------------------------------------------------ what could not be read

    def read_again(self, invocation: InvocationRun, then: Callable[[Activation], None]) -> None:
        """Ask the store again for one that is paused because of what it read there: that may be mended (rule L5)."""
        activation = invocation.activation
        if activation.load_buffer is None:
            activation.is_read_again = True
            self._begin_load(activation)
        assert activation.load_buffer is not None
        activation.load_buffer.callbacks.append(then)

    def _take_again(self, activation: Activation, stored: StoredObject) -> None:
        """Nothing has changed the snapshot meanwhile: what holds the object is paused, or nothing of it can go on."""
        current = activation.current
        if activation.load_error is not None or (current is not None and current.status is InvocationStatus.PAUSED):
            self._take_snapshot(activation, stored)
        for row in stored.started:
            invocation = activation.find(row.record.number)
            if invocation is not None and invocation.status is InvocationStatus.PAUSED:
                take_payloads(invocation, row)
                self._leave_out_later_signals(activation, invocation)
        _note_unsaved_version(activation)

    # ------------------------------------------------------------------ its life

    async def settle(self) -> None:
        """Wait until every load that has been asked for is done."""
        while self._load.outstanding and not self._incarnation.dead:
            await self._load.next_answer()

    def kill(self) -> None:
        self._load.kill()

    async def finish(self) -> None:
        """Wait until nothing is on its way from the store."""
        await self._load.finish()

    def _is_idle(self) -> bool:
        return not self._load.outstanding


def _take_state(activation: Activation, stored: StoredObject) -> LoadError | None:
    """Take the snapshot; why nothing of the object can go on, if it cannot."""
    activation.take_state(stored.state)
    known = activation.actor.state_version
    return newer_state_error(activation.address, activation.state_version, known)


def _note_unsaved_version(activation: Activation) -> None:
    """What the steps of an invocation have changed of an object without state is of the version that they say."""
    journal = None if activation.current is None else activation.current.journal
    if activation.snapshot or journal is None or not journal.changes:
        return
    began_with = version_at(journal.versions, 0)
    activation.state_version = FIRST_STATE_VERSION if began_with is None else began_with.state
    if activation.load_error is None:
        known = activation.actor.state_version
        activation.load_error = newer_state_error(activation.address, activation.state_version, known)


def _no_one_settles(invocation: InvocationRun) -> None:
    raise AssertionError("a signal came before the machine was put together")
