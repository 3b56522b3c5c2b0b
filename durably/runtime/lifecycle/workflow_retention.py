"""`WorkflowRetention`: what a workflow leaves goes, all of it in one transition (rule W3).

That is the outcome of its `run`, state and promises. When the time is over, handlers that still wait for a promise hear
that nothing will complete it; the transition follows when no handler of the workflow is in flight. Until then its
outcome is found, and its id is taken. Many entries of collections go before that, a portion at a time; from the first
portion on no one sees what is left, and those who look the workflow up wait until it has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from durably.ids import Address, run_scope
from durably.runtime.activations.activations import Activations
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.transition import Transition
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import Found
from durably.runtime.lifecycle.emptying import Emptying
from durably.runtime.messaging.promises import Promises
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.settings import Settings
from durably.storage.records import InvocationRecord, PromiseRecord


class WorkflowRetention:
    """Lets go of workflows, of one incarnation."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        activations: Activations,
        clock: Clock,
        committer: Committer,
        emptying: Emptying,
        promises: Promises,
        ready: ReadyQueue,
        registry: InvocationRegistry,
        settings: Settings,
    ) -> None:
        self._activations = activations
        self._host = asyncio.get_running_loop()
        self._incarnation = incarnation
        self._ready = ready
        self._clock = clock
        self._committer = committer
        self._emptying = emptying
        self._promises = promises
        self._registry = registry
        self._look_again_us = settings.expire_every_us
        self._expiring: dict[Address, InvocationRecord] = {}
        """The `run` of those that wait for their last handler; they may leave memory meanwhile."""
        self._waiting: dict[int, list[Callable[[], None]]] = {}
        """Who waits until the many entries of a workflow have gone, by the number of its `run`."""
        self.left_alone: set[Address] = set()
        """Ids of classes that this runtime does not have, whose promises have reached their time limit and stay."""

    # ------------------------------------------------------------------ a workflow that has run

    def expire(self, record: InvocationRecord, then: Callable[[], None]) -> None:
        """The retention of the workflow of this `run` is over: let it go if that can be; `then` is called after that.

        Otherwise its row is looked at again later, and it goes when its last handler has ended. That of a class which
        this runtime does not have stays.
        """
        if self._activations.hosts(record.address):
            self._activations.with_loaded(record.address, partial(self._expire_loaded, record, then))
            return
        if not self._registry.has_left(record.number):
            self._look_again(self._committer.begin(), record)
        then()

    def look_at_loaded(self, activation: Activation) -> None:
        """A workflow is back in memory: its last handler may be about to end."""
        run = self._expiring.get(activation.address)
        activation.expiring = None if run is None else run.number

    def handler_has_ended(self, activation: Activation) -> None:
        """One of a workflow whose retention is over: it may have been the last. A transition may still be made now."""
        self._host.call_soon(self._let_go_if_at_rest, activation)

    def _expire_loaded(self, record: InvocationRecord, then: Callable[[], None], activation: Activation) -> None:
        if not self._registry.has_left(record.number):
            activation.expiring = record.number
            self._expiring[activation.address] = record
            self._let_go_if_at_rest(activation)
            if self._emptying.is_under_way(record):
                self._waiting.setdefault(record.number, []).append(then)
                return
            self._stays_if_not_gone(activation, record)
        then()

    def _emptied(self, activation: Activation) -> None:
        """Few entries are left: the workflow goes, unless a handler of it has come meanwhile."""
        run = self._expiring[activation.address]
        self._let_go_if_at_rest(activation)
        waiting = self._waiting.pop(run.number, [])
        if waiting:
            self._stays_if_not_gone(activation, run)
        for then in waiting:
            then()

    def _stays_if_not_gone(self, activation: Activation, record: InvocationRecord) -> None:
        if not self._registry.has_left(record.number):
            transition = self._committer.begin()
            self._look_again(transition, record)
            self._promises.give_up(transition, activation)

    def _look_again(self, transition: Transition, record: InvocationRecord) -> None:
        transition.postpone_expiry(record, self._clock.now() + self._look_again_us)

    def _let_go_if_at_rest(self, activation: Activation) -> None:
        run = self._expiring.get(activation.address)
        if run is None or self._incarnation.dead or not activation.is_at_rest():
            return
        if self._activations.by_address.get(activation.address) is not activation:
            return  # It has left memory; its row is looked at again.
        number = run.number
        if not self._registry.has_left(number) and self._emptying.goes_on_for(activation, run, self._emptied):
            return
        activation.expiring = None
        self._expiring.pop(activation.address, None)
        if not self._registry.has_left(number):
            transition = self._committer.begin()
            transition.vacate(activation)
            self._registry.expire_in(transition, number)
            self._ready.schedule()

    # ------------------------------------------------------------------ an id whose run was never started

    def expire_promises(self, address: Address, then: Callable[[], None]) -> None:
        """The last promise of this id that has a time limit has reached it: let them go if the `run` has not come.

        The `run` is looked for first: while the store is asked for it, the object may leave memory.
        """
        if self._activations.hosts(address):
            self._registry.by_key(run_scope(*address), partial(self._run_looked_for, address, then))
        else:
            self.left_alone.add(address)
            then()

    def _run_looked_for(self, address: Address, then: Callable[[], None], run: Found) -> None:
        self._activations.with_loaded(address, partial(self._expire_promises_loaded, run is not None, then))

    def _expire_promises_loaded(self, has_run: bool, then: Callable[[], None], activation: Activation) -> None:
        if has_run or activation.current is not None or activation.mailbox:
            self._limit_promises(activation, None)  # The end of the `run` decides.
        elif not activation.is_at_rest():
            self._limit_promises(activation, self._clock.now() + self._look_again_us)
            self._promises.give_up(self._committer.begin(), activation)
        elif len(self._expired_promises(activation)) == len(activation.promises):
            self._committer.begin().vacate(activation)
        then()

    def _expired_promises(self, activation: Activation) -> list[PromiseRecord]:
        """Others may have been completed meanwhile."""
        now = self._clock.now()
        return [one for one in activation.promises.values() if one.expires_at is not None and one.expires_at <= now]

    def _limit_promises(self, activation: Activation, expires_at: int | None) -> None:
        transition = self._committer.begin()
        for promise in self._expired_promises(activation):
            transition.keep_promise(
                activation,
                PromiseRecord(promise.address, promise.name, promise.failed, promise.value, expires_at),
            )
