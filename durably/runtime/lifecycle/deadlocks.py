"""`Deadlocks`: invocations that wait for nothing but each other would wait for ever (rules E4, E8).

They are looked for where a circle can close: when a call queues behind a held mailbox or for a limit, when a command
attaches, when a step leaves only calls of earlier steps pending, when an invocation goes on in vain, and once at
recovery. Only what is itself waited for can be in a circle. Nothing is looked for, and nothing is kept, for a call that
starts at once.

A look goes through what is in memory, in one go. Where that is not enough, the rest is brought into memory first, and
the last word is again a look in one go. The newest call of the knot is answered with a `DeadlockError`, and in the same
transition its message leaves the mailbox, unless others wait for it or may count on it.
"""

from __future__ import annotations

import asyncio
from functools import partial

from durably.actors.values.error_envelopes import encode_failure
from durably.errors import DeadlockError
from durably.ids import Address
from durably.runtime.activations.activations import Activations
from durably.runtime.activations.passivation import Passivation
from durably.runtime.commit.committer import Committer
from durably.runtime.incarnation.idleness import Idleness
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import Found, InvocationRun
from durably.runtime.lifecycle.endings import Endings
from durably.runtime.lifecycle.knots import Knot, KnotSearch, is_own_message
from durably.runtime.lifecycle.reach import Reach
from durably.runtime.lifecycle.wait_graph import (
    LEADS_ON,
    NOTHING_BROUGHT,
    Sought,
    WaitGraph,
    Waiting,
    name_of,
)
from durably.runtime.limits.limit_pool import LimitPool
from durably.runtime.limits.named_limits import NamedLimits
from durably.runtime.messaging.completions import Completions
from durably.runtime.observation.observer import Observer
from durably.runtime.registry.waiters import Waiters
from durably.runtime.settings import Settings
from durably.storage.records import CallerRecord, InvocationRecord

NAMES_SHOWN = 12
"""How many of a circle's members its sentence names."""


class Hunt:
    """A look that goes on in the store. It remembers what it has come through, so its cost is linear too."""

    __slots__ = ("awaited", "brought", "held", "message", "seen", "start", "to_visit")

    def __init__(self, start: InvocationRun) -> None:
        self.begin_at(start)
        self.awaited = 0
        """Look-ups under way."""
        self.brought: dict[Sought, Found] = {}
        self.held: list[Activation] = []
        """Objects that must not leave memory before it is decided."""
        self.message: InvocationRun | None = None
        """The one that is to leave the stored part of its mailbox, once it is in hand."""

    def begin_at(self, start: InvocationRun) -> None:
        self.start = start
        self.seen: set[int] = {start.number}
        self.to_visit: list[Waiting] = [start]

    def hold(self, activation: Activation) -> None:
        if not activation.is_held:
            activation.is_held = True
            self.held.append(activation)


class Deadlocks:
    """Looks for deadlocks in one incarnation, and ends them."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        activations: Activations,
        committer: Committer,
        completions: Completions,
        endings: Endings,
        graph: WaitGraph,
        idleness: Idleness,
        named_limits: NamedLimits,
        observer: Observer,
        passivation: Passivation,
        reach: Reach,
        settings: Settings,
        waiters: Waiters,
    ) -> None:
        self._activations = activations
        self._committer = committer
        self._completions = completions
        self._endings = endings
        self._graph = graph
        self._host = asyncio.get_running_loop()
        self._hunt: Hunt | None = None
        """There is one at a time, so that none takes out of memory what another one has brought."""
        self._idleness = idleness
        self._incarnation = incarnation
        self.is_on = settings.deadlocks == "error"
        self._named_limits = named_limits
        self._observer = observer
        self._passivation = passivation
        self._reach = reach
        self._suspects: dict[int, InvocationRun] = {}
        """From where to look next, by number: what may have become part of a knot."""
        self._undecided: dict[int, InvocationRun] = {}
        """From where to look with the help of the store."""
        self._waiters = waiters
        idleness.add(self._is_idle)

    # ------------------------------------------------------------------ when to look (rule E4)

    def message_queued(self, invocation: InvocationRun, holder: InvocationRun) -> None:
        """A message waits behind `holder`. Not at once: its caller's step is not complete."""
        caller = invocation.caller
        if holder.journal is None and holder.number not in self._named_limits.waits_in:
            return
        if not (caller is not None or invocation.attachments) or not self.is_on:
            return
        waiter = None if caller is None or invocation.attachments else self._in_memory(caller.address, caller.number)
        self._suspect(holder if waiter is None else waiter)

    def step_ended(self, invocation: InvocationRun, first: int) -> None:
        """A step whose first command is number `first` is in the log; part of its transition.

        Calls of this very step are looked after where they are queued; those of earlier ones may be all that is left.
        """
        journal = invocation.journal
        if journal is not None and journal.pending and next(iter(journal.pending)) < first and self.is_on:
            self._suspects[invocation.number] = invocation
        if self._suspects:
            self._look()

    def limit_reached(self, invocation: InvocationRun) -> None:
        """It waits for a limit before it may start. Not at once: its caller's step may not be complete."""
        if self.is_on and self._is_waited_for(invocation):
            self._suspect(invocation)

    def place_left(self, pool: LimitPool, place: int) -> None:
        """Those who wait for the limit wait for another of its holders from now on."""
        if self.is_on:
            for waiter in pool.waiting.values():
                if self._is_waited_for(waiter):
                    self._suspect(waiter)

    def waits_anew(self, invocation: InvocationRun) -> None:
        """It waits, and did not wait as it does now before; no step of it is being made."""
        if self.is_on:
            self._suspects[invocation.number] = invocation
            self._look()

    def attached(self, caller: CallerRecord, target: InvocationRun | InvocationRecord) -> None:
        """A command waits for the outcome of another invocation from now on."""
        waiter = self._in_memory(caller.address, caller.number)
        if waiter is not None:
            self.waits_anew(waiter)

    def object_recovered(self, activation: Activation) -> None:
        """What waits there may have waited in a circle when the process died.

        Other loads change nothing in who waits for whom, and a look causes loads: it must not cause further looks.
        """
        holder = activation.current
        is_waited_for = activation.stored_tail > 0 or any(
            message.caller is not None or message.attachments for message in activation.mailbox
        )
        for started in (holder, *activation.shared.values()):
            if started is not None and (started.attachments or (started is holder and is_waited_for)):
                self._suspect(started)

    def _suspect(self, invocation: InvocationRun) -> None:
        if not self._suspects:
            self._host.call_soon(self._look)
        self._suspects[invocation.number] = invocation

    def _in_memory(self, address: Address, number: int) -> InvocationRun | None:
        activation = self._activations.by_address.get(address)
        return None if activation is None else activation.find(number)

    # ------------------------------------------------------------------ in memory

    def _look(self) -> None:
        suspects, self._suspects = self._suspects, {}
        if not suspects or self._incarnation.dead:
            return
        search = KnotSearch(self._graph, NOTHING_BROUGHT)
        for number, suspect in suspects.items():
            if not self._is_waited_for(suspect):
                continue
            knot = search.first_from(suspect)
            if knot is not None:
                self._undo(knot, None)
            elif search.is_undecided(suspect):
                self._undecided[number] = suspect
        self._hunt_next()
        if self._idleness.is_awaited:
            self._idleness.changed()

    def _is_waited_for(self, invocation: InvocationRun) -> bool:
        """By another invocation, as far as can be told at once. What is not waited for is in no circle."""
        activation = invocation.activation
        holds_up = activation.current is invocation and bool(activation.mailbox or activation.stored_tail)
        is_called = invocation.caller is not None or bool(invocation.attachments)
        return is_called or holds_up or self._named_limits.keeps_others_waiting(invocation.number)

    def _is_idle(self) -> bool:
        return not self._suspects and self._hunt is None and not self._undecided

    # ------------------------------------------------------------------ with the store

    def _hunt_next(self) -> None:
        if self._hunt is None and self._undecided:
            start = self._undecided.pop(next(iter(self._undecided)))
            self._hunt = Hunt(start)
            if self._in_memory(start.address, start.number) is start:
                self._go_on(self._hunt)
            else:  # It has left memory since, and may have come back as another one.
                self._graph.bring(Sought(id=start.id), partial(self._start_again, self._hunt))

    def _start_again(self, hunt: Hunt, found: Found) -> None:
        if isinstance(found, InvocationRun):
            hunt.begin_at(found)
            self._go_on(hunt)
        else:
            self._end_hunt(hunt)

    def _go_on(self, hunt: Hunt) -> None:
        """Follow every way in memory; then bring what is not, or decide."""
        sought: dict[Sought, None] = {}
        while hunt.to_visit:
            visited = hunt.to_visit.pop()
            if isinstance(visited, InvocationRun):
                hunt.hold(visited.activation)
            for wait in self._graph.waits_of(visited, hunt.brought):
                if wait.reason not in LEADS_ON:
                    self._end_hunt(hunt)
                    return
                if wait.target is None:
                    assert wait.sought is not None
                    sought[wait.sought] = None
                elif wait.target.number not in hunt.seen:
                    hunt.seen.add(wait.target.number)
                    hunt.to_visit.append(wait.target)
        if sought:
            self._bring(hunt, sought)
        else:
            self._decide(hunt)

    def _bring(self, hunt: Hunt, sought: dict[Sought, None]) -> None:
        hunt.awaited = len(sought)
        for one in sought:
            self._graph.bring(one, partial(self._brought, hunt, one))

    def _brought(self, hunt: Hunt, sought: Sought, found: Found) -> None:
        if isinstance(found, InvocationRun):
            hunt.hold(found.activation)
        hunt.brought[sought] = found
        if found is not None and found.number not in hunt.seen:
            hunt.seen.add(found.number)
            hunt.to_visit.append(found)
        hunt.awaited -= 1
        if hunt.awaited:
            return
        if None in hunt.brought.values():  # Its answer is on its way, or its class is not here.
            self._end_hunt(hunt)
        else:
            self._go_on(hunt)

    def _decide(self, hunt: Hunt) -> None:
        """All of it is in memory: look at it in one go."""
        search = KnotSearch(self._graph, hunt.brought)
        knot = search.first_from(hunt.start)
        if knot is not None:
            self._undo(knot, hunt)
        elif search.is_undecided(hunt.start):  # What was far back in a stored mailbox has come nearer.
            self._bring(hunt, search.sought)
        else:
            self._end_hunt(hunt)

    def _end_hunt(self, hunt: Hunt) -> None:
        """Not at once: others may wait for the load that ended it, and need the object in memory too."""
        self._host.call_soon(self._let_go, hunt)

    def _let_go(self, hunt: Hunt) -> None:
        if self._incarnation.dead:
            return
        self._hunt = None
        for activation in hunt.held:
            activation.is_held = False
            self._passivation.passivate(activation.address)
        self._hunt_next()
        self._idleness.changed()

    # ------------------------------------------------------------------ undoing a knot

    def _undo(self, knot: Knot, hunt: Hunt | None) -> None:
        """Answer the newest call."""
        waiter, wait = knot.newest_call()
        target = wait.target
        assert target is not None
        leaves = is_own_message(waiter, wait) and knot.is_queued(target) and not self._may_be_wanted(target)
        if leaves and isinstance(target, InvocationRecord):
            assert hunt is not None  # Only the store knows such messages.
            if hunt.message is None or hunt.message.number != target.number:
                self._reach.by_id(target.id, partial(self._reached, hunt))
                return
            target = hunt.message
        circle = tuple(name_of(member) for member in knot.circle(waiter, wait))
        error = DeadlockError(_sentence(circle, with_limit=knot.waits_for_limit()), cycle=circle)
        self._observer.deadlocked(waiter, wait.command, circle)
        transition = self._committer.begin()
        if leaves and isinstance(target, InvocationRun) and not _others_wait(target, waiter):
            self._reach.take_out(target)
            self._endings.fail(transition, target, error)
        else:
            self._completions.complete(transition, waiter, wait.command, True, encode_failure(error))
        if hunt is not None:
            self._end_hunt(hunt)

    def _may_be_wanted(self, target: Waiting) -> bool:
        """Somebody outside waits for it, or may have sent it too: who comes with the same key leaves no trace here."""
        return target.scope is not None or self._waiters.has(target.number)

    def _reached(self, hunt: Hunt, found: Found) -> None:
        """The message that is to leave, with all who wait for it; meanwhile the knot may have come undone."""
        if isinstance(found, InvocationRun) and found.outcome is None:
            hunt.message = found
            self._decide(hunt)
        else:
            self._end_hunt(hunt)


def _others_wait(target: InvocationRun, waiter: InvocationRun) -> bool:
    """Commands of others than the waiter, who may have asked for it more than once."""
    return any(attached.number != waiter.number for attached in target.attachments)


def _sentence(circle: tuple[str, ...], *, with_limit: bool) -> str:
    names = circle
    if len(circle) > NAMES_SHOWN:
        left_out = len(circle) - NAMES_SHOWN
        names = (*circle[: NAMES_SHOWN // 2], f"({left_out} more)", *circle[-NAMES_SHOWN // 2 :])
    if with_limit:
        return (
            f"Deadlock: {' -> '.join(names)}. Each waits for the next, and the last cannot end before the first has "
            "ended; some wait for a place of a limit, all of which are held by others of them. What is called under a "
            "limit does not count again only if each caller in between awaits the next: raise at_once, give the inner "
            "handler a limit of its own, or send a message instead of awaiting its answer."
        )
    return (
        f"Deadlock: {' -> '.join(names)}. Each waits for the next, and the last cannot end before the first has ended, "
        "since an object runs one exclusive handler at a time. Call what is needed of the object as a plain function, "
        "make a handler that only reads @shared, or send a message instead of awaiting its answer."
    )
