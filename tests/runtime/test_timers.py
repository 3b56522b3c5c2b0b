"""`TimerHeap` against the simplest thing that could do the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from durably.ids import Address
from durably.runtime.timers.timer_heap import TimerHeap
from durably.storage.records import TimerKey, TimerKind, TimerRecord

HERE = Address("Object", "key")
WINDOW = 50

numbers = st.integers(1, 4)
keys = st.tuples(numbers, st.sampled_from(TimerKind), st.integers(0, 2))
dues = st.integers(0, 60)
operations = st.one_of(
    st.tuples(st.just("add"), keys, dues),
    st.tuples(st.just("clear"), keys, st.just(0)),
    st.tuples(st.just("pop"), st.just(None), dues),
    st.tuples(st.just("look"), st.just(None), st.just(0)),
)


def timer(number: int, command: int, due: int) -> TimerRecord:
    return TimerRecord(number, TimerKind.SLEEP, command, due, HERE)


def test_the_next_is_the_earliest_and_equal_times_go_by_number_and_command() -> None:
    deadlines = TimerHeap(WINDOW)
    for number, command, due in ((2, 0, 5), (1, 1, 5), (1, 0, 5), (3, 0, 4)):
        deadlines.add(timer(number, command, due))
    assert deadlines.next_due() == 4
    popped = [deadlines.pop_due(5) for _ in range(5)]
    assert [(one.number, one.command) for one in popped if one is not None] == [(3, 0), (1, 0), (1, 1), (2, 0)]
    assert popped[-1] is None
    assert deadlines.next_due() is None


def test_what_is_due_later_than_the_window_is_not_kept() -> None:
    deadlines = TimerHeap(WINDOW)
    deadlines.add(timer(1, 0, WINDOW))
    deadlines.add(timer(2, 0, WINDOW + 1))
    assert len(deadlines) == 1
    deadlines.window_until = WINDOW + 1
    deadlines.add(timer(2, 0, WINDOW + 1))
    assert len(deadlines) == 2


def test_the_same_timer_again_is_one_timer_and_a_new_time_replaces_the_old() -> None:
    deadlines = TimerHeap(WINDOW)
    deadlines.add(timer(1, 0, 5))
    deadlines.add(timer(1, 0, 5))
    deadlines.add(timer(1, 0, 9))
    assert deadlines.pop_due(8) is None
    assert deadlines.next_due() == 9
    assert deadlines.pop_due(9) == timer(1, 0, 9)
    assert deadlines.pop_due(60) is None


def test_each_kind_is_a_timer_of_its_own() -> None:
    deadlines = TimerHeap(WINDOW)
    for kind in TimerKind:
        deadlines.add(TimerRecord(1, kind, 0, 5, HERE))
    deadlines.clear((1, TimerKind.RETRY, 0))
    popped = [timer.kind for timer in iter(lambda: deadlines.pop_due(5), None)]
    assert popped == [TimerKind.DEADLINE, TimerKind.SLEEP, TimerKind.START]


@given(st.lists(operations, max_size=60))
def test_it_does_what_a_plain_dictionary_would(program: list[tuple[str, TimerKey | None, int]]) -> None:
    deadlines = TimerHeap(WINDOW)
    model: dict[TimerKey, int] = {}
    for operation, key, due in program:
        if operation == "look":
            assert deadlines.next_due() == min(model.values(), default=None)
        elif key is None:
            ready = sorted((when, *known) for known, when in model.items() if when <= due)
            expected = None
            if ready:
                when, number, kind, command = ready[0]
                expected = TimerRecord(number, kind, command, when, HERE)
                del model[expected.key]
            assert deadlines.pop_due(due) == expected
        elif operation == "add":
            deadlines.add(TimerRecord(*key, due, HERE))
            if due <= WINDOW:
                model[key] = due
        else:
            deadlines.clear(key)
            model.pop(key, None)
        assert len(deadlines) == len(model)
    assert deadlines.next_due() == min(model.values(), default=None)
