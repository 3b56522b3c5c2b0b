"""`Passivation`: what leaves memory, and when.

What leaves is durable and can be brought back by the store alone (rule L4): objects that have idled for a while, least
recently used first; attempts that wait, where there is no room for more of them or their handler says so, least
recently woken first; and with its last attempt an object whose invocations all wait for something durable.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from durably.ids import Address
from durably.runtime.clock import Cancellable, Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.dependencies.made_dependencies import MadeDependencies
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import InvocationRun, throw_away
from durably.runtime.invocations.waiting_attempts import WaitingAttempts
from durably.runtime.observation.observer import Observer
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.settings import Settings

SWEEPS_PER_PASSIVATION = 8
"""How exactly idling is measured: an object leaves memory up to an eighth of the time too early or too late."""

ACTIVATION_BYTES = 1_500
"""What an idle object takes up besides its state, about."""


class Passivation:
    """Idle objects and waiting attempts of one incarnation."""

    def __init__(
        self,
        by_address: dict[Address, Activation],
        *,
        clock: Clock,
        committer: Committer,
        made: MadeDependencies,
        observer: Observer,
        registry: InvocationRegistry,
        settings: Settings,
    ) -> None:
        """`by_address` are the activations in memory; what leaves is taken out of it."""
        self._by_address = by_address
        self._clock = clock
        self._committer = committer
        self._made = made
        self._observer = observer
        self._registry = registry
        self._settings = settings
        self._idle: OrderedDict[Address, int] = OrderedDict()
        """Objects that have come to rest, and since when; one that is busy again is passed over when its time comes."""
        self._idle_bytes = 0
        """What those take up, about."""
        self._waiting = WaitingAttempts[InvocationRun](settings.waiting_attempts, settings.waiting_bytes)
        self._suspend_timer: Cancellable | None = None
        self._suspends_at = 0
        self._sweep_timer: Cancellable | None = None
        self._sweep_every_us = max(settings.passivate_after_us // SWEEPS_PER_PASSIVATION, settings.sweep_us)
        self._swept_at = clock.monotonic()
        """The time of the last sweep: exact enough to tell what has idled for long, and free."""
        self._dead = False

    @property
    def waiting_attempts(self) -> int:
        """How many attempts wait in memory."""
        return self._waiting.count

    def mark_idle(self, activation: Activation) -> None:
        """If nothing of this object is left to do but what waits for something durable, let it idle, or let it go."""
        is_at_rest = activation.is_at_rest()
        if not is_at_rest and not activation.is_dormant():
            return
        address = activation.address
        if is_at_rest and activation.actor.definition.kind == "service":
            self._idles_no_longer(address)
            self._by_address.pop(address, None)
            return
        if self._settings.nothing_resident:
            if is_at_rest:
                self._passivate_when_durable(address)
            else:  # What has just been loaded is wanted by somebody, who looks into it in the next turn of the loop.
                asyncio.get_running_loop().call_soon(self._passivate_when_durable, address)
            return
        if self._by_address.get(address) is not activation:
            return  # Made for one message that is far back in the stored mailbox, or has left already.
        if self._sweep_timer is None:
            self._arm_sweep()
        self._idle[address] = self._swept_at
        self._idle.move_to_end(address)
        size_bytes = ACTIVATION_BYTES + activation.state_bytes
        if size_bytes != activation.idle_bytes:
            self._idle_bytes += size_bytes - activation.idle_bytes
            activation.idle_bytes = size_bytes
        if len(self._idle) > self._settings.active_objects or self._idle_bytes > self._settings.active_bytes:
            self._make_room(None if is_at_rest else address)

    def _make_room(self, wanted: Address | None) -> None:
        """Let the least recently used go, as many as there are too many.

        One that has just been loaded is `wanted` by somebody, who looks into it in the next turn of the loop.
        """
        idle, settings = self._idle, self._settings
        while idle and (len(idle) > settings.active_objects or self._idle_bytes > settings.active_bytes):
            address = next(iter(idle))
            if address == wanted:
                return
            self._idles_no_longer(address)
            self._passivate_when_durable(address)

    def _idles_no_longer(self, address: Address) -> None:
        if self._idle.pop(address, None) is not None:
            activation = self._by_address[address]
            self._idle_bytes -= activation.idle_bytes
            activation.idle_bytes = 0

    def park(self, invocation: InvocationRun) -> None:
        """It waits for something durable: its attempt may be thrown away."""
        bound_us = invocation.handler.suspend_after_us
        bound_us = self._settings.suspend_after_us if bound_us is None else bound_us
        if bound_us == 0 or self._settings.nothing_resident:
            self._committer.when_durable(self.suspend, invocation)
            return
        invocation.parked_in = self._waiting
        now = self._clock.monotonic()
        self._waiting.add(invocation.number, invocation, invocation.attempt_bytes(), now=now, bound_us=bound_us)
        if bound_us is not None:
            self._suspend_later(now, now + bound_us)
        for excess in self._waiting.take_excess():
            self._committer.when_durable(self.suspend, excess)

    def suspend(self, invocation: InvocationRun) -> None:
        """Throw the attempt away while it waits; it continues from its journal (rule L4)."""
        journal = invocation.journal
        if (
            invocation.execution is None
            or journal is None
            or journal.undelivered
            or journal.unanswered
            or invocation.is_queued
            or invocation.held_step is not None
            or invocation.outcome is not None
        ):
            return
        if invocation.position > self._committer.durable:
            self._committer.when_durable(self.suspend, invocation)
            return
        throw_away(invocation)
        if self._observer.detailed:
            self._observer.suspended(invocation)
        self.passivate(invocation.address)

    def passivate(self, address: Address) -> None:
        """Nothing of this object may be running any more: drop it, if the store alone is enough to bring it back."""
        activation = self._by_address.get(address)
        if activation is None or not activation.can_passivate(self._committer.durable):
            return
        self._idles_no_longer(address)
        del self._by_address[address]
        if activation.made is not None:
            self._made.leave(activation.made)
        for invocation in (activation.current, *activation.shared.values()):
            if invocation is not None:
                self._registry.forget(invocation)
        activation.current = None  # What left memory must not wait for the garbage collector to find a cycle.
        activation.shared.clear()

    def _passivate_when_durable(self, address: Address) -> None:
        """One synchronous decision; a message one tick later makes a new activation (rule L4)."""
        activation = self._by_address.get(address)
        if activation is None or self._dead or not activation.is_dormant():
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
        self._suspend_timer = self._clock.call_later(until - now, self._suspend_due)

    def _suspend_due(self) -> None:
        """Suspend what has waited as long as it may."""
        self._suspend_timer = None
        now = self._clock.monotonic()
        for invocation in self._waiting.take_due(now):
            self.suspend(invocation)
        due = self._waiting.next_due()
        if due is not None:
            self._suspend_later(now, due)

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
            self._idles_no_longer(address)
            self._passivate_when_durable(address)
        if self._idle:
            self._arm_sweep()

    def passivate_all(self) -> None:
        """Let leave at once what would leave after a while: what idles, and attempts that wait (rule L4)."""
        for invocation in self._waiting:
            self._committer.when_durable(self.suspend, invocation)
        while self._idle:
            address = next(iter(self._idle))
            self._idles_no_longer(address)
            self._passivate_when_durable(address)

    def kill(self) -> None:
        self._dead = True
        for timer in (self._suspend_timer, self._sweep_timer):
            if timer is not None:
                timer.cancel()
