"""`PauseNotices`: callers outside never hang because of a pause (rule E6).

A notice goes up from a paused invocation: to the callers outside who wait for it, to its callers inside and those who
wait for them, to everything that is queued behind any of them in a mailbox, and to what waits for a limit all of
whose places they hold. Callers inside go on waiting, and what is queued stays queued. What comes later is looked after
when it is queued, attached or begins to wait for a limit: `PauseSearch` goes down from it, and a notice goes up if
something paused is found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from durably.errors import PausedInvocationError
from durably.ids import InvocationStatus
from durably.runtime.activations.activations import Activations
from durably.runtime.commit.committer import Committer
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import InvocationRun, known_outcome
from durably.runtime.lifecycle.pause_search import PauseSearch, waits_for_others
from durably.runtime.limits.limit_pool import LimitPool
from durably.runtime.limits.named_limits import NamedLimits
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.registry.waiters import Waiter, Waiters
from durably.storage.records import CallerRecord, InvocationRecord


class Notice:
    """One piece of news on its way up."""

    __slots__ = (
        "_then",
        "_under_way",
        "heard",
        "is_at_work",
        "looked_everywhere",
        "next",
        "pools",
        "reached",
        "refusal",
    )

    def __init__(self, refusal: PausedInvocationError, then: Callable[[bool], None]) -> None:
        """`then` hears, once, whether a caller outside was refused."""
        self.refusal = refusal
        self.heard = False
        self.is_at_work = False
        self.looked_everywhere = False
        self.next: list[InvocationRun] = []
        """Reached, and not told yet."""
        self.reached: set[int] = set()
        """By number: calls may go in circles."""
        self.pools: set[LimitPool] = set()
        """Those reached whose places are all held up."""
        self._then = then
        self._under_way = 1

    def departs(self) -> None:
        """One more way that it goes and that takes a while."""
        self._under_way += 1

    def arrives(self) -> None:
        self._under_way -= 1
        if self._under_way == 0:
            self._then(self.heard)


class PauseNotices:
    """Spreads notices in one incarnation."""

    def __init__(
        self,
        *,
        activations: Activations,
        committer: Committer,
        named_limits: NamedLimits,
        pause_search: PauseSearch,
        registry: InvocationRegistry,
        waiters: Waiters,
    ) -> None:
        self._activations = activations
        self._committer = committer
        self._host = asyncio.get_running_loop()
        self._named_limits = named_limits
        self._registry = registry
        self._search = pause_search
        self._waiters = waiters

    def spread(self, invocation: InvocationRun, refusal: PausedInvocationError, then: Callable[[bool], None]) -> None:
        """Refuse those outside who wait for this invocation, however indirectly."""
        notice = Notice(refusal, then)
        self._go_on(notice, invocation)
        notice.arrives()

    # ------------------------------------------------------------------ what comes later

    def message_queued(self, invocation: InvocationRun, holder: InvocationRun) -> None:
        """A message waits behind `holder`, which may be held up itself. Not at once: it is being accepted."""
        if (
            holder.status is InvocationStatus.PAUSED
            or waits_for_others(holder)
            or holder.number in self._named_limits.waits_in
        ):
            self._host.call_soon(self._look_below, invocation)

    def limit_reached(self, invocation: InvocationRun) -> None:
        """It waits for a limit, which may be shut. Not at once: its caller's step may not be complete."""
        if self._search.may_be_shut(self._named_limits.waits_in[invocation.number]):
            self._host.call_soon(self._look_below, invocation)

    def attached(self, caller: CallerRecord, target: InvocationRun | InvocationRecord) -> None:
        """A command waits for another invocation from now on."""
        if known_outcome(target) is None:
            self._search.begin(target, partial(self._found_below_caller, caller))

    def _look_below(self, invocation: InvocationRun) -> None:
        if invocation.outcome is None and self._waiters:
            self._search.begin(invocation, partial(self._found_below, invocation))

    def _found_below(self, invocation: InvocationRun, refusal: PausedInvocationError) -> None:
        self.spread(invocation, refusal, _not_asked_for)

    def _found_below_caller(self, caller: CallerRecord, refusal: PausedInvocationError) -> None:
        if self._activations.hosts(caller.address):
            notice = Notice(refusal, _not_asked_for)
            self._activations.with_loaded(caller.address, partial(self._reach_caller, notice, caller))

    # ------------------------------------------------------------------ going up

    def _go_on(self, notice: Notice, invocation: InvocationRun) -> None:
        """Tell all that can be reached from here in memory; the rest comes when it is loaded."""
        notice.next.append(invocation)
        if not notice.is_at_work:
            notice.is_at_work = True
            while notice.next:
                self._tell(notice, notice.next.pop())
            notice.is_at_work = False

    def _tell(self, notice: Notice, invocation: InvocationRun) -> None:
        if invocation.number in notice.reached:
            return
        notice.reached.add(invocation.number)
        waiting = self._waiters.take(invocation.number)
        if waiting is not None:
            notice.heard = True
            self._committer.when_answerable(_refuse_all, (waiting, notice.refusal))  # Rule X1
        if not self._waiters:
            return
        callers = invocation.attachments if invocation.caller is None else (invocation.caller, *invocation.attachments)
        for caller in callers:
            if caller.number not in notice.reached and self._activations.hosts(caller.address):
                notice.departs()
                self._activations.with_loaded(caller.address, partial(self._reach_caller, notice, caller))
        activation = invocation.activation
        if activation.current is invocation:
            notice.next += activation.mailbox
            if activation.stored_tail and not notice.looked_everywhere:
                notice.looked_everywhere = True
                self._look_below_all()

        for pool in self._named_limits.awaited_pools(invocation.number):
            self._reach_pool(notice, pool)

    def _reach_pool(self, notice: Notice, pool: LimitPool) -> None:
        """A place of it stays taken. If all do, those who wait for one are reached."""
        if pool in notice.pools:
            return
        held_up = sum(self._is_held_up(notice, members) for members in pool.places.values())
        if pool.is_shut_by(held_up):
            notice.pools.add(pool)
            notice.next += pool.waiting.values()
        elif self._search.may_be_shut(pool):  # Some of those who hold its places are in the store only.
            self._search.begin(next(iter(pool.waiting.values())), partial(self._found_below_pool, pool))

    def _is_held_up(self, notice: Notice, members: Mapping[int, str]) -> bool:
        """One of those who keep a place taken has been reached, or is paused."""
        live = self._registry.live
        return any(
            number in notice.reached or ((one := live.get(id)) is not None and one.status is InvocationStatus.PAUSED)
            for number, id in members.items()
        )

    def _found_below_pool(self, pool: LimitPool, refusal: PausedInvocationError) -> None:
        notice = Notice(refusal, _not_asked_for)
        for waiting in [*pool.waiting.values()]:
            self._go_on(notice, waiting)
        notice.arrives()

    def _reach_caller(self, notice: Notice, caller: CallerRecord, activation: Activation) -> None:
        waiting = activation.find(caller.number)
        if waiting is not None and waiting.journal is not None and caller.command in waiting.journal.pending:
            self._go_on(notice, waiting)
        notice.arrives()

    def _look_below_all(self) -> None:
        """Part of a mailbox is in the store only: search from the other end, from each caller outside."""
        for waiter in self._waiters:
            self._registry.by_id(waiter.id, partial(self._search.begin, tell=waiter.refuse))


def _refuse_all(told: tuple[list[Waiter], BaseException]) -> None:
    waiters, error = told
    for waiter in waiters:
        waiter.refuse(error)


def _not_asked_for(heard: bool) -> None:
    return None
