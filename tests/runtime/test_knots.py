"""The search for knots agrees with a plain reading of the graph, takes each edge once, and goes as deep as need be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from durably.ids import Address, InvocationStatus
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.lifecycle.knots import Knot, KnotSearch
from durably.runtime.lifecycle.wait_graph import Brought, Sought, Wait, WaitGraph, Waiting, WaitReason
from durably.storage.records import InvocationRecord

TIMER, ABSENT = -1, -2
"""Edges that end at something that goes on by itself, or lead out of memory."""

GRAPHS = st.integers(1, 7).flatmap(
    lambda size: st.lists(
        st.lists(st.sampled_from([TIMER, ABSENT, *range(size)] + 3 * [*range(size)]), min_size=1, max_size=3),
        min_size=size, max_size=size,
    )
)  # fmt: skip


class DrawnGraph:
    """A wait-for graph of numbers."""

    def __init__(self, edges: Mapping[int, list[int]]) -> None:
        self.edges = edges
        self.nodes = {number: _node(number) for number in edges}
        self.read = 0

    def waits_of(self, waiter: Waiting, brought: Brought) -> Iterator[Wait]:
        for command, target in enumerate(self.edges[waiter.number]):
            self.read += 1
            if target == TIMER:
                yield Wait(WaitReason.TIMER, command)
            elif target == ABSENT:
                yield Wait(WaitReason.CALL, command, None, Sought(f"{waiter.number} {command}"))
            else:
                yield Wait(WaitReason.CALL, command, self.nodes[target])

    def search(self) -> KnotSearch:
        return KnotSearch(cast(WaitGraph, self), {})

    def start(self, number: int) -> InvocationRun:
        return cast(InvocationRun, self.nodes[number])

    def reached(self, start: int) -> set[int]:
        """What can be reached, with the marks of edges that end."""
        reached, coming = {start}, [start]
        while coming:
            for target in self.edges.get(coming.pop(), []):
                if target not in reached:
                    reached.add(target)
                    coming.append(target)
        return reached


def _node(number: int) -> InvocationRecord:
    return InvocationRecord(
        number=number, id=f"{number}", address=Address("S", f"{number}"), handler="h", seed=b"", argument=b"",
        headers={}, scope=None, caller=None, sender_id=None, deadline=None, accepted_at=0, keep_outcome_us=None,
        status=InvocationStatus.SUSPENDED, mailbox_position=None,
    )  # fmt: skip


@given(GRAPHS)
def test_a_knot_is_found_from_everything_that_reaches_nothing_else(edges: list[list[int]]) -> None:
    for number in range(len(edges)):
        graph = DrawnGraph(dict(enumerate(edges)))
        search = graph.search()
        start, reached = graph.start(number), graph.reached(number)
        knot = search.first_from(start)
        if knot is not None:
            members = set(knot.members)
            assert members == graph.reached(next(iter(members))), "it is closed, and each member reaches all others"
            assert all(graph.reached(member) == members for member in members)
            assert members <= reached
        elif TIMER not in reached:
            assert search.is_undecided(start)
            assert search.sought
        if knot is None and not search.is_undecided(start):
            assert TIMER in reached
        assert graph.read <= sum(map(len, edges))


@given(GRAPHS)
def test_one_look_from_everywhere_finds_every_knot_once(edges: list[list[int]]) -> None:
    graph = DrawnGraph(dict(enumerate(edges)))
    search = graph.search()
    found = [knot for number in graph.edges if (knot := search.first_from(graph.start(number))) is not None]
    closed = {frozenset(reached) for number in graph.edges if _is_knot(graph, reached := graph.reached(number))}
    knots = [frozenset(knot.members) for knot in found]
    assert len(set(knots)) == len(knots)
    assert set(knots) == closed
    assert graph.read <= sum(map(len, edges))


def _is_knot(graph: DrawnGraph, reached: set[int]) -> bool:
    return min(reached) >= 0 and all(graph.reached(member) == reached for member in reached)


def test_a_circle_of_a_hundred_thousand_is_found_without_recursion() -> None:
    size = 100_000
    graph = DrawnGraph({number: [(number + 1) % size] for number in range(size)})
    knot = graph.search().first_from(graph.start(0))
    assert isinstance(knot, Knot)
    assert len(knot.members) == graph.read == size
