"""`Deadlines` against the simplest thing that could do the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from durably.ids import Address
from durably.runtime.timers.timer_heap import TimerHeap
from durably.storage.records import TimerRecord

HERE = Address("Object", "key")
WINDOW = 50

numbers = st.integers(1, 4)
commands = st.integers(-3, 2)
dues = st.integers(0, 60)
operations = st.one_of(
    st.tuples(st.just("add"), numbers, commands, dues),
    st.tuples(st.just("clear"), numbers, commands, st.just(0)),
    st.tuples(st.just("pop"), st.just(0), st.just(0), dues),
    st.tuples(st.just("look"), st.just(0), st.just(0), st.just(0)),
)


def timer(number: int, command: int, due: int) -> TimerRecord:
    return TimerRecord(number, command, due, HERE)


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


@given(st.lists(operations, max_size=60))
def test_it_does_what_a_plain_dictionary_would(program: list[tuple[str, int, int, int]]) -> None:
    deadlines = TimerHeap(WINDOW)
    model: dict[tuple[int, int], int] = {}
    for operation, number, command, due in program:
        if operation == "add":
            deadlines.add(timer(number, command, due))
            if due <= WINDOW:
                model[number, command] = due
        elif operation == "clear":
            deadlines.clear(number, command)
            model.pop((number, command), None)
        elif operation == "look":
            assert deadlines.next_due() == min(model.values(), default=None)
        else:
            ready = sorted((when, *key) for key, when in model.items() if when <= due)
            expected = None
            if ready:
                when, ready_number, ready_command = ready[0]
                expected = timer(ready_number, ready_command, when)
                del model[ready_number, ready_command]
            assert deadlines.pop_due(due) == expected
        assert len(deadlines) == len(model)
    assert deadlines.next_due() == min(model.values(), default=None)
