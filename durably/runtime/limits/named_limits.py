"""`NamedLimits`: invocations of a handler with a limit start when the limit has room for them (rule C9).

An invocation takes a place before its code runs for the first time, and keeps it until it has ended: also while it is
suspended, paused or backing off. A place that is taken is a record of the transition that took it, so that those who
held places before a crash hold them afterwards, before anybody else starts. What an invocation calls under the same
limit runs on the place that it has itself. Until it has a place an invocation is pending: it has not started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from msgspec.structs import replace

from durably.actors.definition.arguments import Decoded
from durably.actors.limits import BoundLimit, Limit
from durably.actors.values.slices import Slices
from durably.errors import HandlerMistakeError, InvalidArgumentError
from durably.ids import InvocationStatus
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.transition import Transition
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.incarnation.sliced_work import SlicedWork
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.limits.limit_pool import LimitPool
from durably.runtime.observation.observer import Observer
from durably.runtime.settings import Settings
from durably.storage.records import PlaceRecord

NO_ARGUMENTS: Decoded = ((), {})
NO_PLACES: tuple[PlaceRecord, ...] = ()


class NamedLimits:
    """The limits of one incarnation."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        clock: Clock,
        committer: Committer,
        is_used: bool,
        observer: Observer,
        ready: ReadyQueue,
        settings: Settings,
        sliced_work: SlicedWork,
    ) -> None:
        """`is_used`: some handler has a limit, or had one when something started that has not ended."""
        self.is_used = is_used
        self.under: dict[int, tuple[PlaceRecord, ...]] = {}
        """The places that unfinished invocations run on, by number, wherever these are: empty without limits."""
        self.waits_in: dict[int, LimitPool] = {}
        """What those wait for that may not start yet, by number."""
        self.on_mistake: Callable[[InvocationRun, BaseException], None] = _no_one_listens
        """Hears of an invocation whose limit has no key for it."""
        self.on_waiting: list[Callable[[InvocationRun], None]] = []
        """Hear of each one that begins to wait."""
        self.on_left: Callable[[LimitPool, int], None] = _no_one_looks
        """Hears that a place waits for others than the one that it has waited for."""
        self._incarnation = incarnation
        self._clock = clock
        self._committer = committer
        self._observer = observer
        self._ready = ready
        self._slice_bytes = settings.slice_bytes
        self._sliced_work = sliced_work
        self._since_us = clock.monotonic()
        self._pools: dict[tuple[str, str], LimitPool] = {}
        self._is_open = False
        self._unfit: set[int] = set()
        """Those whose large arguments do not fit their handler any more: they are paused without a place."""
        self._pools_kept = settings.limit_pools_kept
        self._look_at_pools_at = settings.limit_pools_kept

    # ------------------------------------------------------------------ starting

    def admits(self, invocation: InvocationRun) -> bool:
        """Whether an invocation with a limit may start now. If not, it is made ready when it may."""
        bound = invocation.handler.limit
        assert bound is not None
        number = invocation.number
        has_started = invocation.status is not InvocationStatus.PENDING
        if has_started or any(place.counts for place in self.under.get(number, NO_PLACES)):
            return True  # If it has no place, it started before its handler had a limit.
        if number in self.waits_in:
            return False
        if number in self._unfit:
            return True
        argument = invocation.argument
        if not bound.reads_arguments:
            return self._is_given_place(invocation, bound, NO_ARGUMENTS)
        if len(argument) > self._slice_bytes:
            invocation.is_preparing = True
            self._sliced_work.begin(
                self._arguments(invocation),
                partial(self._decoded, invocation),
                partial(self._decoded_badly, invocation),
            )
            return False
        try:
            arguments = invocation.handler.decode(argument)
        except InvalidArgumentError:
            return True  # Its attempt finds the same, and is paused.
        return self._is_given_place(invocation, bound, arguments)

    def _arguments(self, invocation: InvocationRun) -> Slices[Decoded | None]:
        """None: they do not fit. Its attempt finds the same, and is paused."""
        try:
            return (yield from invocation.handler.decode_in_slices(invocation.argument, self._slice_bytes))
        except InvalidArgumentError:
            return None

    def _decoded(self, invocation: InvocationRun, arguments: Decoded | None) -> None:
        """A large argument is decoded: not in vain, unless it has ended meanwhile."""
        invocation.is_preparing = False
        bound = invocation.handler.limit
        if invocation.outcome is not None or bound is None:
            return
        if arguments is None:
            self._unfit.add(invocation.number)
            self._ready.push(invocation)
        elif self._is_given_place(invocation, bound, arguments):
            self._ready.push(invocation)

    def _decoded_badly(self, invocation: InvocationRun, error: BaseException) -> None:
        invocation.is_preparing = False
        if invocation.outcome is None:
            self.on_mistake(invocation, error)
            self._ready.schedule()

    def _is_given_place(self, invocation: InvocationRun, bound: BoundLimit, arguments: Decoded) -> bool:
        try:
            key = bound.key(invocation.address.key, arguments)
        except HandlerMistakeError as error:
            self.on_mistake(invocation, error)
            self._ready.schedule()
            return False
        pool = self._pool(bound.name, key, bound.limit)
        if self._runs_on_place_of_caller(invocation, pool):
            return True
        number = invocation.number
        pool.enqueue(invocation, invocation.mailbox_position or number)
        self.waits_in[number] = pool
        self._serve(pool, None)
        if number in self.waits_in:
            if self._observer.detailed:
                self._observer.waits_for_limit(invocation, pool.describe())
            self._tell_waiting(invocation)
        return False

    def _tell_waiting(self, invocation: InvocationRun) -> None:
        for hear in self.on_waiting:
            hear(invocation)

    def _runs_on_place_of_caller(self, invocation: InvocationRun, pool: LimitPool) -> bool:
        """A call inside the same limit does not count again, as long as the place is taken."""
        number, places = invocation.number, self.under.get(invocation.number, NO_PLACES)
        for place in places:
            if (place.name, place.key) == (pool.name, pool.key) and place.place in pool.places:
                counted = replace(place, counts=True)
                pool.join(place.place, number, invocation.id)
                self.under[number] = tuple(counted if one is place else one for one in places)
                self._committer.begin().run_on_place(invocation.activation, counted)
                return True
        return False

    def _serve(self, pool: LimitPool, transition: Transition | None) -> None:
        """Give free places to those who wait; `transition` is the one that has made a place free."""
        while pool.waiting and self._is_open and not self._incarnation.stopping and pool.has_room():  # Rule T4
            now = self._clock.monotonic()
            delay_us = pool.delay_us(now)
            if delay_us:
                if pool.timer is None:
                    pool.timer = self._clock.call_later(delay_us, self._time_has_come, pool)
                return
            invocation = pool.next()
            if invocation is None:
                return
            number = invocation.number
            del self.waits_in[number]
            pool.take(number, invocation.id, now)
            place = PlaceRecord(number, invocation.id, pool.name, pool.key, number, True)
            self.under[number] = (*self.under.get(number, NO_PLACES), place)
            into = self._committer.begin() if transition is None else transition
            into.run_on_place(invocation.activation, place)
            if self._observer.detailed:
                self._observer.given_place(invocation, pool.describe())
            self._ready.push(invocation)

    def _time_has_come(self, pool: LimitPool) -> None:
        pool.timer = None
        if not self._incarnation.dead:
            self._serve(pool, None)
            self._ready.schedule()

    # ------------------------------------------------------------------ calling and ending

    def inherit(self, transition: Transition, caller: InvocationRun, callee: InvocationRun) -> None:
        """What an invocation calls runs inside the limits that it runs under itself."""
        own = [
            PlaceRecord(callee.number, callee.id, one.name, one.key, one.place, False)
            for one in self.under.get(caller.number, NO_PLACES)
            if self._is_taken(one)
        ]
        if own:
            self.under[callee.number] = tuple(own)
            for place in own:
                transition.run_on_place(callee.activation, place)

    def _is_taken(self, place: PlaceRecord) -> bool:
        pool = self._pools.get((place.name, place.key))
        return pool is not None and place.place in pool.places

    def keeps_others_waiting(self, number: int) -> bool:
        """Somebody waits for a place that this invocation keeps taken."""
        return any(self.awaited_pools(number))

    def awaited_pools(self, number: int) -> Iterator[LimitPool]:
        """The limits of which it keeps places that others wait for."""
        for place in self.under.get(number, NO_PLACES):
            if place.counts and (pool := self._pools[place.name, place.key]).waiting:
                yield pool

    def ended(self, transition: Transition, invocation: InvocationRun, *, was_stored: bool) -> None:
        """However it has ended: its place is free, for the next in the same transition."""
        number = invocation.number
        self._unfit.discard(number)
        waited_in = self.waits_in.pop(number, None)
        if waited_in is not None:
            waited_in.leave_queue(number)
        places = self.under.pop(number, NO_PLACES)
        if not places:
            return
        transition.leave_places(number, is_stored=was_stored)
        for place in places:
            if place.counts:
                pool = self._pools[place.name, place.key]
                if pool.leave(place.place, number):
                    self._serve(pool, transition)
                elif pool.waiting:
                    self.on_left(pool, place.place)

    def renewed(self, transition: Transition, invocation: InvocationRun, previous: int) -> None:
        """It goes on under a new number (rule W1), and keeps its place."""
        places = self.under.pop(previous, NO_PLACES)
        if not places:
            return
        number = invocation.number
        transition.leave_places(previous, is_stored=True)
        self.under[number] = tuple(replace(place, number=number) for place in places)
        for place in self.under[number]:
            if place.counts:
                self._pools[place.name, place.key].renew(place.place, previous, number)
            transition.run_on_place(invocation.activation, place)

    # ------------------------------------------------------------------ recovery

    def restore(self, places: Iterable[PlaceRecord]) -> None:
        """Who ran on places when the last life ended; who took a place before those that joined it."""
        for place in places:
            self.under[place.number] = (*self.under.get(place.number, NO_PLACES), place)
            pool = self._pool(place.name, place.key, None)
            if place.counts:
                pool.join(place.place, place.number, place.id)

    def open(self) -> None:
        """All who held places are known, and all who waited: from now on places are given."""
        self._is_open = True
        for pool in [*self._pools.values()]:
            self._serve(pool, None)
            for invocation in pool.waiting.values():
                self._tell_waiting(invocation)

    # ------------------------------------------------------------------ its life

    def next_due(self) -> int | None:
        """When a rate allows the next start, on the clock that never goes back; None: nothing waits for one."""
        now = self._clock.monotonic()
        due = [now + pool.delay_us(now) for pool in self._pools.values() if pool.timer is not None]
        return min(due, default=None)

    def kill(self) -> None:
        for pool in self._pools.values():
            if pool.timer is not None:
                pool.timer.cancel()

    def _pool(self, name: str, key: str, limit: Limit | None) -> LimitPool:
        pool = self._pools.get((name, key))
        if pool is None:
            if len(self._pools) >= self._look_at_pools_at:
                self._drop_idle_pools()
            pool = self._pools[name, key] = LimitPool(name, key, limit, self._since_us)
        elif pool.limit is None and limit is not None:
            pool.use(limit, self._since_us)
        return pool

    def _drop_idle_pools(self) -> None:
        now = self._clock.monotonic()
        self._pools = {which: pool for which, pool in self._pools.items() if not pool.is_idle(now)}
        self._look_at_pools_at = max(self._pools_kept, 2 * len(self._pools))


def _no_one_listens(invocation: InvocationRun, error: BaseException) -> None:
    raise AssertionError("an invocation waits for a limit before the machine was put together")


def _no_one_looks(pool: LimitPool, place: int) -> None:
    raise AssertionError("an invocation has left a limit before the machine was put together")
