"""`Schedule`: in which order a run does what could be done in any order, and whether things take time.

Three things decide. Callbacks of the host loop that are ready together are shuffled, more or less. Objects whose turn
has come inside the runtime are advanced first in, first out, or by priorities that change now and then, in the manner
of PCT (Burckhardt and others, 2010), so that one object may fall far behind the others. And commits, reads and
messages take some time, or none.

Each shuffle depends on the seed and on its own number alone. So a run can be made again with only some of them, which
is how the plainest order is found that still fails: `"fifo"`, or `"fifo but 17, 23"`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from durably.ids import Address
from durably.runtime.invocations.invocation import InvocationRun
from durably.testing.simulation.latencies import Style

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIFO, _BUT = "fifo", " but "
CHANGE_RATE = 0.05
"""How often the object that is advanced falls behind all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How one run is scheduled."""

    shuffle: float = 0.0
    """How often, from 0 to 1, what is ready together runs in another order."""
    only: frozenset[int] | None = None
    """The numbers of the shuffles that are made; None: all that chance wants."""
    by_priority: bool = False
    latencies: Style = "some"

    @classmethod
    def drawn(cls, random: Random) -> Schedule:
        """What a seed chooses."""
        return cls(
            shuffle=random.choice((0.0, 0.1, 0.5, 1.0)),
            by_priority=random.random() < 0.4,
            latencies=random.choice(("some", "some", "some", "none")),
        )

    def ordered(self, order: str) -> Schedule:
        """The same, in an order that the user wants.

        Raises:
            ValueError: it is no order; says what is.
        """
        if order == _FIFO:
            return replace(self, shuffle=0.0, by_priority=False)
        start, but, numbers = order.partition(_BUT)
        listed = [number.strip() for number in numbers.split(",")]
        if start != _FIFO or not but or not all(number.isdecimal() for number in listed):
            raise ValueError(f'An order is "fifo" or "fifo but 17, 23", not {order!r}.')
        return replace(self, shuffle=1.0, only=frozenset(map(int, listed)), by_priority=False)


def order_but(numbers: list[int]) -> str:
    """First in, first out but for these shuffles, as a text."""
    return _FIFO + (_BUT + ", ".join(map(str, numbers)) if numbers else "")


class Shuffles:
    """Shuffles what is ready together, and remembers the numbers of the shuffles that it made."""

    def __init__(self, seed: int, schedule: Schedule) -> None:
        self.made: list[int] = []
        self._schedule = schedule
        self.roll_anew(f"{seed} shuffles")
        self._count = 0

    def roll_anew(self, text: str) -> None:
        """From here on, chance depends on this text."""
        self._base = Random(text).getrandbits(64)

    def __call__(self, batch: MutableSequence[Any]) -> None:
        """Shuffle it, or leave it."""
        schedule = self._schedule
        if not schedule.shuffle:
            return
        self._count += 1
        number = self._count
        if schedule.only is not None and number not in schedule.only:
            return
        bits = _mixed(self._base + number * _GOLDEN)
        if schedule.only is None and (bits >> 11) / (1 << 53) >= schedule.shuffle:
            return
        self.made.append(number)
        for place in range(len(batch) - 1, 0, -1):
            bits = _mixed(bits + _GOLDEN)
            other = bits % (place + 1)
            batch[place], batch[other] = batch[other], batch[place]


def _mixed(number: int) -> int:
    """The bits of a number, stirred (splitmix64)."""
    number &= _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)


class Priorities:
    """The priorities of the objects of a run."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._of: dict[Address, float] = {}
        self._lowest = 0.0

    def first(self, waiting: deque[InvocationRun]) -> int:
        """Which of those that are ready is advanced next, by its place."""
        best = max(range(len(waiting)), key=lambda place: (self._priority(waiting[place].address), -place))
        if self._random.random() < CHANGE_RATE:
            self._lowest -= 1.0
            self._of[waiting[best].address] = self._lowest
        return best

    def _priority(self, address: Address) -> float:
        priority = self._of.get(address)
        if priority is None:
            priority = self._of[address] = self._random.random()
        return priority


class PriorityQueue(deque[InvocationRun]):
    """The invocations that are ready, of which the one with the highest priority is taken first."""

    def __init__(self, priorities: Priorities) -> None:
        super().__init__()
        self._priorities = priorities

    def popleft(self) -> InvocationRun:
        """The next to be advanced."""
        if len(self) < 2:
            return super().popleft()
        place = self._priorities.first(self)
        self.rotate(-place)
        found = super().popleft()
        self.rotate(place)
        return found


class TurnQueue(deque[InvocationRun]):
    """The invocations that are ready, first in, first out: also those that would go on before all others."""

    def appendleft(self, invocation: InvocationRun, /) -> None:
        self.append(invocation)


def ready_queues(schedule: Schedule, random: Random) -> Callable[[], deque[InvocationRun]]:
    """What makes the queues of ready invocations for the engines of a run."""
    if not schedule.by_priority:
        return random.choice((deque, TurnQueue))
    priorities = Priorities(random)
    return lambda: PriorityQueue(priorities)
