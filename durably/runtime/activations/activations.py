"""`Residence`: the activations in memory. Who comes in, who may start, who leaves.

Whatever concerns an object goes through its activation, made cold and loaded if need be (rules L1, L2). What leaves
memory is durable and can be brought back by the store alone (rule L4): idle objects after a while, least recently used
first, and at once an object whose invocations all wait for something durable.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.ids import Address
from durably.runtime.activations.activation import Activation, LoadBuffer
from durably.runtime.clock import Cancellable, Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.execution.step import Delivery
from durably.runtime.invocations.invocation import InvocationRun, from_stored, state_load_error
from durably.runtime.registry.batched_lookup import BatchedLookup, BatchedLookupOwner
from durably.runtime.registry.reads import Reads
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.settings import Settings
from durably.storage.records import CallerRecord, InvocationRecord, StoredObject

SWEEPS_PER_PASSIVATION = 8
"""How exactly idling is measured: an object leaves memory up to an eighth of the time too early or too late."""


class ActivationsOwner(BatchedLookupOwner, Protocol):
    """Who runs what is at home here."""

    stopping: bool

    def queue(self, invocation: InvocationRun, /) -> None: ...
    def begin(self, activation: Activation, invocation: InvocationRun, /) -> None:
        """Its turn in the mailbox has come."""
        ...

    def take_up(self, invocation: InvocationRun, /) -> None:
        """A started invocation has come back from the store."""
        ...

    def wake(self, invocation: InvocationRun, /) -> None: ...
    def suspend(self, invocation: InvocationRun, /) -> None:
        """Throw its attempt away, if it waits for something durable."""
        ...


class Activations:
    """The activations of one incarnation."""

    def __init__(
        self,
        owner: ActivationsOwner,
        *,
        actors: Mapping[str, BoundActor],
        clock: Clock,
        committer: Committer,
        registry: InvocationRegistry,
        reads: Reads,
        settings: Settings,
    ) -> None:
        self.by_address: dict[Address, Activation] = {}
        self._actors = actors
        self._committer = committer
        self._registry = registry
        self._clock = clock
        self._settings = settings
        self._owner = owner
        # Rule L2: the log is durable up to the birth of all that is asked for.
        self._load: BatchedLookup[Address, StoredObject] = BatchedLookup(
            owner, reads.load, durable=lambda: committer.durable, gate=committer.when_durable
        )
        self._idle: OrderedDict[Address, int] = OrderedDict()
        self._parked: dict[int, OrderedDict[int, tuple[InvocationRun, int]]] = {}
        self._suspend_timer: Cancellable | None = None
        self._suspends_at = 0
        self._sweep_timer: Cancellable | None = None
        self._sweep_every_us = max(settings.passivate_after_us // SWEEPS_PER_PASSIVATION, settings.sweep_us)
        self._swept_at = clock.monotonic()
        """The time of the last sweep: exact enough to tell what has idled for long, and free."""
        self._dead = False

    @property
    def loading(self) -> int:
        """Objects on their way from the store."""
        return self._load.outstanding

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

    def admit(self, invocation: InvocationRun) -> None:
        """Hand a message to the activation of its object. Part of the transition that accepted it."""
        address = invocation.address
        activation = self.by_address.get(address)
        if activation is None:
            if invocation.handler.kind == "service":  # Nothing of it can be in the store.
                activation = self.by_address[address] = self.detached(address)
            else:
                activation = self.activation(address)
        elif activation.idle_since is not None:
            self._idle.pop(address, None)
            activation.idle_since = None
        activation.changed_at = self._committer.position
        if activation.load_buffer is not None:
            activation.load_buffer.messages.append(invocation)
        else:
            self._dispatch(activation, invocation)
            self.start_next(activation)

    def hosts(self, address: Address) -> bool:
        """This runtime has the class of the object."""
        return address.service in self._actors

    def detached(self, address: Address) -> Activation:
        """An activation that nobody else knows of: for what is new, or ends before it has come to its object."""
        return Activation(address, self._actors[address.service], self._committer.position)

    def start_next(self, activation: Activation) -> None:
        """Start the head of the mailbox, if nothing holds it."""
        if self._owner.stopping:  # Rule T4
            return
        invocation = activation.next_to_start()
        if invocation is not None:
            self._owner.begin(activation, invocation)
        elif activation.stored_tail and activation.current is None and not activation.loading:
            self._begin_load(activation)

    def waiting(self, address: Address) -> int:
        """Messages that wait for this object, as far as anybody has asked for it."""
        activation = self.by_address.get(address)
        if activation is None:
            return 0
        return (
            len(activation.mailbox)
            + activation.stored_tail
            + (0 if activation.load_buffer is None else len(activation.load_buffer.messages))
        )

    def _dispatch(self, activation: Activation, invocation: InvocationRun) -> None:
        if invocation.handler.kind != "exclusive":
            activation.shared[invocation.number] = invocation
            self._owner.queue(invocation)
        elif activation.stored_tail or len(activation.mailbox) >= self._settings.pending_in_memory:
            # Rule C8: the tail stays in the store; it is loaded when the head has been worked off.
            activation.stored_tail += 1
            self._committer.when_durable(self._registry.forget, invocation)
        else:
            activation.mailbox.append(invocation)

    # ------------------------------------------------------------------ rehydration

    def _begin_load(self, activation: Activation) -> None:
        activation.load_buffer = LoadBuffer()
        activation.load_position = self._committer.position
        self._load(activation.address, partial(self._loaded, activation))

    def _loaded(self, activation: Activation, stored: StoredObject) -> None:
        """Take the snapshot and what had not ended, then whatever came meanwhile. Runs no user code."""
        load_buffer, activation.load_buffer = activation.load_buffer, None
        assert load_buffer is not None
        activation.stored_tail = stored.pending_beyond
        came = {invocation.number for invocation in load_buffer.messages}
        if not activation.is_rehydrated:
            activation.is_rehydrated = True
            activation.snapshot = dict(stored.state)
            activation.load_error = state_load_error(activation.address, stored.left_out_bytes)
            for row in stored.started:
                if row.record.number <= activation.load_position and row.record.number not in came:
                    self._take_up(activation, from_stored(row, self._handler_of(activation.actor, row.record)))
        for row in stored.pending:
            # Rule L2: what joined the mailbox at or after the birth has arrived through the activation.
            if (row.record.mailbox_position or 0) <= activation.load_position and row.record.number not in came:
                invocation = from_stored(row, self._handler_of(activation.actor, row.record))
                self._registry.enter(invocation)
                activation.mailbox.append(invocation)
        self._take_arrived(activation, load_buffer)
        for callback in load_buffer.callbacks:
            callback(activation)
        self.start_next(activation)
        self.mark_idle(activation)

    def _take_up(self, activation: Activation, invocation: InvocationRun) -> None:
        self._registry.enter(invocation)
        if invocation.mailbox_position is not None and activation.current is None:
            activation.current = invocation
        else:  # Also what was accepted as shared, and is exclusive in today's code.
            activation.shared[invocation.number] = invocation
        self._owner.take_up(invocation)

    def _take_arrived(self, activation: Activation, load_buffer: LoadBuffer) -> None:
        for number, caller in load_buffer.attachments:
            self._attach(activation, number, caller)
        for number, delivery in load_buffer.answers:
            self._answer(activation, number, delivery)
        for message in load_buffer.messages:
            self._dispatch(activation, message)

    def _attach(self, activation: Activation, number: int, caller: CallerRecord) -> None:
        target = activation.find(number) or activation.find_waiting(number)
        if target is not None and caller not in target.attachments:
            target.attachments += (caller,)

    def _answer(self, activation: Activation, number: int, delivery: Delivery) -> None:
        """An answer that was recorded while its invocation was on its way; that may have ended since (rule C3)."""
        invocation = activation.find(number)
        if invocation is not None and invocation.journal is not None and invocation.journal.answer(delivery):
            invocation.stored = ()  # The row may have been woken since it was read.
            self._owner.wake(invocation)

    def _handler_of(self, actor: BoundActor, record: InvocationRecord) -> BoundActorHandler:
        return actor.handler_or_missing(record.handler, shared=record.mailbox_position is None)

    # ------------------------------------------------------------------ out

    def mark_idle(self, activation: Activation) -> None:
        """If nothing of this object is left to do, let it idle, or let it go."""
        if not activation.is_at_rest():
            return
        address = activation.address
        if activation.actor.definition.kind == "service":
            self.by_address.pop(address, None)
            return
        if self._sweep_timer is None:
            self._arm_sweep()
        activation.idle_since = self._idle[address] = self._swept_at
        if len(self._idle) > self._settings.active_objects:
            self._passivate_when_durable(self._idle.popitem(last=False)[0])

    def park(self, invocation: InvocationRun) -> None:
        """It waits for something durable: its attempt may be thrown away after a while."""
        after = invocation.handler.suspend_after_us
        after = self._settings.suspend_after_us if after is None else after
        if after == 0:
            self._committer.when_durable(self._owner.suspend, invocation)
            return
        parked = self._parked.setdefault(after, OrderedDict())
        invocation.parked_in = parked
        now = self._clock.monotonic()
        parked[invocation.number] = (invocation, now + after)
        parked.move_to_end(invocation.number)
        self._suspend_later(now, now + after)

    def unpark(self, invocation: InvocationRun) -> None:
        """It has ended, or its attempt has."""
        if invocation.parked_in is not None:
            invocation.parked_in.pop(invocation.number, None)
            invocation.parked_in = None

    def passivate(self, address: Address) -> None:
        """Nothing of this object may be running any more: drop it, if the store alone is enough to bring it back."""
        activation = self.by_address.get(address)
        if activation is None or not activation.can_passivate(self._committer.durable):
            return
        del self.by_address[address]
        self._idle.pop(address, None)
        for invocation in (activation.current, *activation.shared.values()):
            if invocation is not None:
                self._registry.forget(invocation)

    def _passivate_when_durable(self, address: Address) -> None:
        """One synchronous decision; a message one tick later makes a new activation (rule L4)."""
        activation = self.by_address.get(address)
        if activation is None or not activation.is_at_rest():
            return
        if activation.changed_at > self._committer.durable:
            self._committer.when_durable(self._passivate_when_durable, address)
        else:
            self.passivate(address)

    def _suspend_later(self, now: int, until: int) -> None:
        """Something waits that may be suspended from then on."""
        until = max(until, now + self._settings.sweep_us)
        if self._dead or (self._suspend_timer is not None and self._suspends_at <= until):
            return
        if self._suspend_timer is not None:
            self._suspend_timer.cancel()
        self._suspends_at = until
        self._suspend_timer = self._clock.call_later(until - now, self._suspend_parked)

    def _suspend_parked(self) -> None:
        """Suspend what has waited long enough, oldest first."""
        self._suspend_timer = None
        now = self._clock.monotonic()
        for parked in self._parked.values():
            while parked:
                number, (invocation, until) = next(iter(parked.items()))
                if until > now:
                    self._suspend_later(now, until)
                    break
                del parked[number]
                self._owner.suspend(invocation)

    def _arm_sweep(self) -> None:
        if self._sweep_timer is None and not self._dead:
            self._swept_at = self._clock.monotonic()
            self._sweep_timer = self._clock.call_later(self._sweep_every_us, self._sweep)

    def _sweep(self) -> None:
        """Passivate what has idled long enough, oldest first."""
        self._sweep_timer = None
        now = self._swept_at = self._clock.monotonic()
        while self._idle:
            address, since = next(iter(self._idle.items()))
            if since + self._settings.passivate_after_us > now:
                break
            del self._idle[address]
            self._passivate_when_durable(address)
        if self._idle:
            self._arm_sweep()

    def passivate_all(self) -> None:
        """Let leave at once what would leave after a while: what idles, and attempts that wait (rule L4)."""
        waiting = [invocation for parked in self._parked.values() for invocation, _ in parked.values()]
        for invocation in waiting:
            self._committer.when_durable(self._owner.suspend, invocation)
        while self._idle:
            self._passivate_when_durable(self._idle.popitem(last=False)[0])

    async def settle(self) -> None:
        """Wait until every load that has been asked for is done."""
        while self._load.outstanding and not self._dead:
            await self._load.next_answer()

    def kill(self) -> None:
        self._dead = True
        self._load.kill()
        for timer in (self._suspend_timer, self._sweep_timer):
            if timer is not None:
                timer.cancel()

    async def finish(self) -> None:
        """Wait until nothing is on its way from the store."""
        await self._load.finish()
