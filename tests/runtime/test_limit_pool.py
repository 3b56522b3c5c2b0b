"""Places are never more than the limit, free ones go to who came first, and a rate holds in every span of time."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from durably import InvocationStatus, Limit
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.limits.limit_pool import LEFT_IN_ORDER, LimitPool

moves = st.lists(st.tuples(st.sampled_from(("comes", "ends", "gives up", "calls", "time")), st.integers(0, 20)))


def waiting(number: int) -> InvocationRun:
    return cast("InvocationRun", SimpleNamespace(number=number, status=InvocationStatus.PENDING))


@given(moves, st.integers(1, 3), st.none() | st.floats(0.1, 1_000), st.integers(1, 4))
def test_whatever_happens_a_limit_holds(
    happens: list[tuple[str, int]], at_once: int, per_second: float | None, burst: int
) -> None:
    limit = Limit(at_once=at_once, per_second=per_second, burst=1 if per_second is None else burst)
    now = 0
    pool = LimitPool("door", "", limit, now)
    queue: dict[int, int] = {}
    members: dict[int, int] = {}
    starts: list[int] = []
    for position, (what, choice) in enumerate(happens, 1):
        if what == "comes":
            place = position if choice % 3 else -position  # Of an object whose message has waited for longer.
            pool.enqueue(waiting(position), place)
            queue[position] = place
        elif what == "ends" and members:
            number = [*members][choice % len(members)]
            place = members.pop(number)
            assert pool.leave(place, number) == (place not in members.values())
        elif what == "gives up" and queue:
            number = [*queue][choice % len(queue)]
            del queue[number]
            pool.leave_queue(number)
        elif what == "calls" and members:
            place = [*members.values()][choice % len(members)]
            pool.join(place, position, "")
            members[position] = place
        elif what == "time":
            now += 10 ** (choice % 8)
        while pool.waiting and pool.has_room() and not pool.delay_us(now):
            invocation = pool.next()
            assert invocation is not None
            first = min(queue, key=queue.__getitem__)
            assert invocation.number == first
            del queue[first]
            pool.take(first, "", now)
            members[first] = first
            starts.append(now)
        assert len(pool.places) == len(set(members.values())) <= at_once
        assert {holder.number for holder in pool.holders()} <= members.keys()
        assert [pool.ahead_of(number) for number in sorted(queue, key=queue.__getitem__)] == [*range(len(queue))]
    if per_second is not None:
        interval = 1_000_000 / per_second
        for (earlier, begins), (later, ends) in combinations(enumerate([*starts]), 2):
            assert later - earlier + 1 <= limit.burst + (ends - begins) / interval + 1e-3
        for count, start in enumerate(starts, 1):
            assert count <= start / interval + 1e-3, "there is no burst to begin with"


def test_those_who_come_and_go_while_a_place_is_held_leave_nothing_behind() -> None:
    pool = LimitPool("door", "", Limit(at_once=1), 0)
    pool.take(1, "", 0)
    for number in range(2, 5):
        pool.enqueue(waiting(number), number)
    for number in range(5, 10_000):
        pool.enqueue(waiting(number), -number)
        pool.leave_queue(number)
        assert len(pool._order) <= 2 * len(pool.waiting) + LEFT_IN_ORDER + 1
    pool.leave(1, 1)
    assert [one and one.number for one in (pool.next(), pool.next(), pool.next(), pool.next())] == [2, 3, 4, None]


def test_a_pool_that_nobody_uses_and_whose_rate_is_full_is_as_good_as_none() -> None:
    pool = LimitPool("door", "a", Limit(per_second=1, burst=2), 0)
    assert not pool.is_idle(1_999_999)
    assert pool.is_idle(2_000_000)
    pool.take(1, "", 2_000_000)
    pool.leave(1, 1)
    assert not pool.is_idle(2_999_999)
    assert pool.is_idle(3_000_000)
