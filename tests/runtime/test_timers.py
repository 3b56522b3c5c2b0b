"""`TimerHeap` against the simplest thing that could do the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from durably.ids import Address
from durably.runtime.timers import timer_heap
from durably.runtime.timers.timer_heap import TimerHeap
from durably.storage.records import TimerKey, TimerKind, TimerRecord

HERE = Address("Object", "key")
NEVER = 1_000

numbers = st.integers(1, 4)
keys = st.tuples(numbers, st.sampled_from(TimerKind), st.integers(0, 2))
times = st.integers(0, 60)
operations = st.one_of(
    st.tuples(st.just("add"), keys, times, times),
    st.tuples(st.just("clear"), keys, st.just(0), st.just(0)),
    st.tuples(st.just("pop"), keys, times, times),
    st.tuples(st.just("look"), keys, st.just(0), st.just(0)),
)


def timer(number: int, command: int, due: int) -> TimerRecord:
    return TimerRecord(number, TimerKind.SLEEP, command, due, HERE)


def test_the_next_is_the_earliest_and_equal_times_go_by_number_and_command() -> None:
    heap = TimerHeap()
    for number, command, due in ((2, 0, 5), (1, 1, 5), (1, 0, 5), (3, 0, 4)):
        heap.add(timer(number, command, due), due)
    assert heap.next() == (4, 4)
    popped = [heap.pop_due(5, 5) for _ in range(5)]
    assert [(one.number, one.command) for one in popped if one is not None] == [(3, 0), (1, 0), (1, 1), (2, 0)]
    assert popped[-1] is None
    assert heap.next() is None


def test_a_timer_comes_by_whichever_clock_reaches_it_first() -> None:
    heap = TimerHeap()
    heap.add(timer(1, 0, 50), 3)
    heap.add(timer(2, 0, 4), 70)
    assert heap.next() == (4, 3)
    assert heap.pop_due(3, 2) is None
    assert heap.pop_due(3, 3) == timer(1, 0, 50)
    assert heap.pop_due(4, 3) == timer(2, 0, 4)
    assert heap.pop_due(NEVER, NEVER) is None


def test_the_same_timer_again_is_one_timer_and_a_new_time_replaces_the_old() -> None:
    heap = TimerHeap()
    heap.add(timer(1, 0, 5), 5)
    heap.add(timer(1, 0, 5), 7)
    assert heap.next() == (5, 5)
    heap.add(timer(1, 0, 9), 9)
    assert heap.pop_due(8, 8) is None
    assert heap.next() == (9, 9)
    assert heap.pop_due(9, 0) == timer(1, 0, 9)
    assert heap.pop_due(NEVER, NEVER) is None


def test_a_timer_that_was_set_anew_is_not_replaced_by_what_was_read_before() -> None:
    heap = TimerHeap()
    heap.add(timer(1, 0, 9), 9)
    heap.add_stored(timer(1, 0, 5), 5)
    heap.add_stored(timer(2, 0, 7), 7)
    assert heap.pop_due(8, 8) == timer(2, 0, 7)
    assert heap.next() == (9, 9)


def test_a_late_timer_that_only_the_store_remembers_is_not_replaced_by_what_was_read_before() -> None:
    heap = TimerHeap()
    heap.add(timer(1, 0, 5), 5)
    heap.leave_out(timer(1, 0, 90))
    assert heap.next() is None, "what was known of it is old"
    for _ in range(2):
        heap.read_begins()
    heap.leave_out(timer(1, 0, 95))
    heap.add_stored(timer(1, 0, 5), 5)
    heap.read_ends()
    heap.add_stored(timer(1, 0, 90), 90)
    assert heap.next() is None
    heap.add_stored(timer(1, 0, 95), 95)
    assert heap.next() == (95, 95)
    heap.read_ends()
    heap.clear(timer(1, 0, 95).key)
    heap.add_stored(timer(1, 0, 97), 97)
    assert heap.next() == (97, 97), "it may have been set long before this read began"


def test_cleared_timers_do_not_pile_up() -> None:
    """Every `asyncio.timeout` that is not reached leaves one behind."""
    heap = TimerHeap()
    heap.add(timer(1, 0, NEVER), NEVER)
    for command in range(5 * timer_heap._DEAD_ENTRIES):  # pyright: ignore[reportPrivateUsage]
        heap.add(timer(2, command, NEVER), NEVER)
        heap.clear((2, TimerKind.SLEEP, command))
    entries = len(heap._by_due) + len(heap._by_moment)  # pyright: ignore[reportPrivateUsage]
    assert entries < 3 * timer_heap._DEAD_ENTRIES  # pyright: ignore[reportPrivateUsage]
    assert heap.pop_due(NEVER, 0) == timer(1, 0, NEVER)


@given(st.lists(operations, max_size=60))
def test_it_does_what_a_plain_dictionary_would(program: list[tuple[str, TimerKey, int, int]]) -> None:
    heap = TimerHeap()
    model: dict[TimerKey, tuple[int, int]] = {}
    for operation, key, due, moment in program:
        if operation == "add":
            heap.add(TimerRecord(*key, due, HERE), moment)
            known = model.get(key)
            model[key] = due, moment if known is None or known[0] != due else min(moment, known[1])
        elif operation == "clear":
            heap.clear(key)
            model.pop(key, None)
        elif operation == "look":
            dues, moments = [due for due, _ in model.values()], [moment for _, moment in model.values()]
            assert heap.next() == ((min(dues), min(moments)) if model else None)
        else:
            by_due = sorted((when, key) for key, (when, _) in model.items() if when <= due)
            by_moment = sorted((when, key) for key, (_, when) in model.items() if when <= moment)
            expected = None
            if ready := by_due or by_moment:
                first = ready[0][1]
                expected = TimerRecord(*first, model.pop(first)[0], HERE)
            assert heap.pop_due(due, moment) == expected
        assert len(heap) == len(model)
