"""Laws of `WaitingAttempts`: it behaves like a plain list in order of waking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from durably.runtime.invocations.waiting_attempts import WaitingAttempts

MOST, MOST_BYTES = 3, 100


class Add(NamedTuple):
    number: int
    size_bytes: int
    bound_us: int | None


class Remove(NamedTuple):
    number: int


class Pass(NamedTuple):
    us: int


NUMBERS = st.integers(0, 7)
ADDS = st.builds(Add, NUMBERS, st.integers(1, 150), st.sampled_from([None, 5, 20]))
Operation: TypeAlias = Add | Remove | Pass
OPERATIONS: st.SearchStrategy[list[Operation]] = st.lists(
    ADDS | st.builds(Remove, NUMBERS) | st.builds(Pass, st.integers(0, 15)), max_size=40
)


class Model:
    """Those that wait, least recently woken first: number, size, until when."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, int, int | None]] = []

    def remove(self, number: int) -> None:
        self.waiting = [one for one in self.waiting if one[0] != number]

    def excess(self) -> list[int]:
        left: list[int] = []
        while len(self.waiting) > 1 and (
            len(self.waiting) > MOST or sum(size for _, size, _ in self.waiting) > MOST_BYTES
        ):
            left.append(self.waiting.pop(0)[0])
        return left

    def due(self, now: int) -> set[int]:
        due = {number for number, _, until in self.waiting if until is not None and until <= now}
        self.waiting = [one for one in self.waiting if one[0] not in due]
        return due


@given(OPERATIONS)
def test_the_least_recently_woken_leave_first_and_none_stays_longer_than_it_may(
    operations: Sequence[Operation],
) -> None:
    attempts, model, now = WaitingAttempts[int](MOST, MOST_BYTES), Model(), 0
    for operation in operations:
        match operation:
            case Add(number, size_bytes, bound_us):
                model.remove(number)
                model.waiting.append((number, size_bytes, None if bound_us is None else now + bound_us))
                attempts.add(number, number, size_bytes, now=now, bound_us=bound_us)
                assert [*attempts.take_excess()] == model.excess()
            case Remove(number):
                model.remove(number)
                attempts.remove(number)
            case Pass(us):
                now += us
                assert {*attempts.take_due(now)} == model.due(now)
        assert {*attempts} == {number for number, _, _ in model.waiting}
        assert attempts.count == len(model.waiting)
        assert attempts.size_bytes == sum(size for _, size, _ in model.waiting)
        assert attempts.next_due() == min((until for _, _, until in model.waiting if until is not None), default=None)
