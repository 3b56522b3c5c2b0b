"""`KnotSearch`: invocations that wait for nothing but each other (rule E4), found in time linear in what is looked at.

A knot is a strongly connected part of the wait-for graph that no edge leaves. An invocation from which something can be
reached that goes on by itself is in none, since an invocation goes on when any one of its answers comes. So a search
ends at the first such thing, and what it has come through needs no second look. Tarjan's algorithm, with a stack of its
own in place of recursion. Pure: it reads the graph and changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Final

from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.lifecycle.wait_graph import LEADS_ON, QUEUED, Brought, Sought, Wait, WaitGraph, Waiting, WaitReason
from durably.storage.records import CallerRecord


class Knot:
    """Its members by number, and what each of them waits for."""

    __slots__ = ("members", "waits")

    def __init__(self, members: dict[int, Waiting], waits: dict[int, list[Wait]]) -> None:
        self.members = members
        self.waits = waits

    def newest_call(self) -> tuple[InvocationRun, Wait]:
        """Who is answered with an error, and the wait that ends by that.

        The newest call whose message is queued. Where there is none, some command of the circle attached to an
        invocation or joined one by key (a call alone leads from older invocations to newer ones): the newest of those.
        It is younger than both ends; the times of steps decide between equals, since a clock may be set back.
        """
        queued: list[tuple[int, InvocationRun, Wait]] = []
        joined: list[tuple[tuple[int, int, int, int], InvocationRun, Wait]] = []
        for waiter, wait in self._edges():
            target, journal = wait.target, waiter.journal
            assert target is not None
            assert journal is not None
            if not is_own_message(waiter, wait):
                older = max(waiter.number, target.number)
                joined.append(((older, journal.issued_at(wait.command), waiter.number, wait.command), waiter, wait))
            elif self.is_queued(target):
                queued.append((target.number, waiter, wait))
        if queued:
            return max(queued, key=lambda one: one[0])[1:]
        return max(joined, key=lambda one: one[0])[1:]

    def circle(self, waiter: InvocationRun, wait: Wait) -> list[Waiting]:
        """The shortest circle through this wait: each waits for the next, the last one for the first.

        The last one is what `waiter` waits for: queued behind the first, or else the first itself.
        """
        assert wait.target is not None
        first = self._holder(wait.target) or wait.target
        came_from: dict[int, int] = {first.number: first.number}
        coming = deque([first.number])
        while waiter.number not in came_from:
            number = coming.popleft()
            for one in self.waits[number]:
                if one.target is not None and one.target.number not in came_from:
                    came_from[one.target.number] = number
                    coming.append(one.target.number)
        path = [waiter.number]
        while path[-1] != first.number:
            path.append(came_from[path[-1]])
        return [*(self.members[number] for number in reversed(path)), wait.target]

    def is_queued(self, member: Waiting) -> bool:
        return self._holder(member) is not None

    def waits_for_limit(self) -> bool:
        """A limit is part of it."""
        return any(waits[0].reason is WaitReason.LIMIT for waits in self.waits.values())

    def _holder(self, member: Waiting) -> Waiting | None:
        """What holds the mailbox, or the limit, that a member is queued for."""
        first = self.waits[member.number][0]
        return first.target if first.reason in QUEUED else None

    def _edges(self) -> Iterator[tuple[InvocationRun, Wait]]:
        """Pending commands. What is queued has none."""
        for number, waits in self.waits.items():
            waiter = self.members[number]
            if isinstance(waiter, InvocationRun):
                for wait in waits:
                    if wait.reason not in QUEUED:
                        yield waiter, wait


def is_own_message(waiter: InvocationRun, wait: Wait) -> bool:
    """The wait is a call, and what it waits for exists because of this very call."""
    assert wait.target is not None
    return wait.target.caller == CallerRecord(waiter.address, waiter.number, wait.command)


class GoesOn(Enum):
    """An end of the way."""

    GOES_ON = "goes on"


GOES_ON: Final = GoesOn.GOES_ON


class _Visit:
    """An invocation on the way down."""

    __slots__ = ("invocation", "is_undecided", "lowest", "place", "taken", "waits")

    def __init__(self, invocation: Waiting, place: int, waits: Iterator[Wait]) -> None:
        self.invocation = invocation
        self.place = self.lowest = place
        self.waits = waits
        self.taken: list[Wait] = []
        self.is_undecided = False


class KnotSearch:
    """One look at the graph, which must not change meanwhile but by answers to the knots that are found."""

    def __init__(self, graph: WaitGraph, brought: Brought) -> None:
        self.sought: dict[Sought, None] = {}
        """Where the graph leads out of memory."""
        self._graph = graph
        self._brought = brought
        self._places: dict[int, int] = {}
        """Every invocation that was come to, in order."""
        self._undecided: set[int] = set()
        """Those from which the way leads out of memory, and to nothing in memory that goes on."""
        self._open: list[_Visit] = []
        """Tarjan's stack: their strongly connected part is not complete."""
        self._is_open: set[int] = set()

    def is_undecided(self, start: InvocationRun) -> bool:
        """After `first_from(start)`: whether it depends on what is not in memory."""
        return start.number in self._undecided

    def first_from(self, start: InvocationRun) -> Knot | None:
        """The first knot that is reached from here. What was come to on the way is in no other, once it is undone."""
        if start.number in self._places:
            return None
        way = [self._visit(start)]
        while way:
            visit = way[-1]
            wait = next(visit.waits, None)
            if wait is not None:
                further = self._follow(visit, wait)
                if further is GOES_ON:
                    self._leave_all()
                    return None
                if further is not None:
                    way.append(self._visit(further))
                continue
            way.pop()
            if way:
                way[-1].lowest = min(way[-1].lowest, visit.lowest)
                way[-1].is_undecided |= visit.is_undecided
            if visit.lowest == visit.place:
                part = self._close(visit)
                if not visit.is_undecided:
                    self._leave_all()
                    members = {one.invocation.number: one.invocation for one in part}
                    return Knot(members, {one.invocation.number: one.taken for one in part})
                self._undecided.update(one.invocation.number for one in part)
        return None

    def _follow(self, visit: _Visit, wait: Wait) -> Waiting | GoesOn | None:
        """What is to be visited next, if anything; or that the way has come to what goes on by itself."""
        if wait.reason not in LEADS_ON:
            return GOES_ON
        visit.taken.append(wait)
        target = wait.target
        if target is None:
            assert wait.sought is not None
            self.sought[wait.sought] = None
            visit.is_undecided = True
        elif target.number not in self._places:
            return target
        elif target.number in self._is_open:
            visit.lowest = min(visit.lowest, self._places[target.number])
        elif target.number in self._undecided:
            visit.is_undecided = True
        else:  # An earlier search of this look came through it, to something that goes on.
            return GOES_ON
        return None

    def _visit(self, invocation: Waiting) -> _Visit:
        visit = _Visit(invocation, len(self._places), self._graph.waits_of(invocation, self._brought))
        self._places[invocation.number] = visit.place
        self._is_open.add(invocation.number)
        self._open.append(visit)
        return visit

    def _close(self, root: _Visit) -> list[_Visit]:
        """Take a complete part off the stack."""
        part: list[_Visit] = []
        while True:
            visit = self._open.pop()
            self._is_open.discard(visit.invocation.number)
            part.append(visit)
            if visit is root:
                return part

    def _leave_all(self) -> None:
        """All that is open leads to the way down, and so to what was found at its end."""
        self._open.clear()
        self._is_open.clear()
