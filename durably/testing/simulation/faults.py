"""`Faults`: what goes wrong in a simulation, as values that can be combined, printed and given again.

    Faults.crash(rate=0.02) | Faults.slow() | Faults.client_retries(rate=0.1)
    Faults.crash(at="before_commit:3")

A rate is a probability at each opportunity: commits for the store's faults and for crashes, messages for the network's.
A point says exactly when. `Faults.any()` lets each run's seed choose some kinds with rates of its own, as in "swarm
testing" (Groce and others, 2012): runs with few kinds of faults reach states that runs with all of them do not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal, TypeAlias, get_args

from durably.actors.values.durations import Duration, duration_us

Place: TypeAlias = Literal["before_commit", "after_commit", "before_action", "after_action"]
PLACES: tuple[str, ...] = get_args(Place)


@dataclass(frozen=True, slots=True)
class Point:
    """A moment of a run: the `number`-th time, counted from 1, that it comes by a place."""

    place: Place
    number: int

    @classmethod
    def parse(cls, text: str) -> Point:
        """`before_commit:3` and the like.

        Raises:
            ValueError: it is not of that form; says what is.
        """
        place, _, number = text.partition(":")
        if place not in PLACES or not number.isdecimal() or int(number) < 1:
            raise ValueError(
                f"{text!r} is not a point of a run. Write one of {', '.join(PLACES)}, a colon and a number from 1, "
                'such as "before_commit:3".'
            )
        return cls(next(known for known in get_args(Place) if known == place), int(number))

    def __str__(self) -> str:
        return f"{self.place}:{self.number}"


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of trouble. Made by `Faults`."""

    kind: Literal["crash", "commit_fails", "disk_full", "reads_fail", "slow", "clock_jumps", "client_retries"]
    rate: float = 0.0
    at: Point | None = None
    durable: bool | None = None
    for_us: int = 0

    def __str__(self) -> str:
        said = [] if self.at is None else [f'at="{self.at}"']
        if self.at is None:
            said.append(f"rate={self.rate}")
        if self.durable is not None:
            said.append(f"durable={self.durable}")
        if self.kind in _DURATION_NAMES:
            said.append(f"{_DURATION_NAMES[self.kind]}={_seconds(self.for_us)}")
        return f"Faults.{self.kind}({', '.join(said)})"


_DURATION_NAMES = {"crash": "down", "disk_full": "lasts", "slow": "up_to", "clock_jumps": "up_to"}


@dataclass(frozen=True, slots=True, repr=False)
class Faults:
    """A combination of faults; `|` combines two. Immutable."""

    kinds: tuple[Fault, ...] = ()
    is_any: bool = False
    """Each run's seed chooses."""

    @staticmethod
    def none() -> Faults:
        """Nothing goes wrong; only the order of things differs from seed to seed."""
        return Faults()

    @staticmethod
    def any() -> Faults:
        """The seed of each run chooses which kinds of faults there are, and how often."""
        return Faults(is_any=True)

    @staticmethod
    def crash(*, rate: float = 0.02, at: str | None = None, down: Duration = 1.0) -> Faults:
        """The process is killed, as by `kill -9`, and started again after up to `down`.

        With a rate, it happens around commits: before one is durable, after, while nobody can tell, or a little later.
        """
        return _one(Fault("crash", _rate(rate, at), _point(at), for_us=duration_us(down, "Faults.crash(down=...)")))

    @staticmethod
    def commit_fails(*, rate: float = 0.02, at: str | None = None, durable: bool | None = None) -> Faults:
        """A commit reports a failure. `durable` says whether the batch is on the disk all the same; None is either."""
        point = _point(at)
        if point is not None and point.place != "before_commit":
            raise ValueError(f'A commit can fail at "before_commit:n" only, not at {at!r}.')
        return _one(Fault("commit_fails", _rate(rate, at), point, durable))

    @staticmethod
    def disk_full(*, rate: float = 0.005, lasts: Duration = 30.0) -> Faults:
        """From some commit on, every commit fails and the store cannot be opened, for up to `lasts`."""
        return _one(Fault("disk_full", _rate(rate, None), for_us=duration_us(lasts, "Faults.disk_full(lasts=...)")))

    @staticmethod
    def reads_fail(*, rate: float = 0.01) -> Faults:
        """A question to the store reports a failure; the rate is per question."""
        return _one(Fault("reads_fail", _rate(rate, None)))

    @staticmethod
    def slow(*, rate: float = 0.1, up_to: Duration = 5.0) -> Faults:
        """Commits, reads and messages take up to `up_to`."""
        return _one(Fault("slow", _rate(rate, None), for_us=duration_us(up_to, "Faults.slow(up_to=...)")))

    @staticmethod
    def clock_jumps(*, rate: float = 0.05, up_to: Duration = 3600.0) -> Faults:
        """Somebody sets the wall clock, forwards or back, by up to `up_to`."""
        return _one(Fault("clock_jumps", _rate(rate, None), for_us=duration_us(up_to, "Faults.clock_jumps(up_to=...)")))

    @staticmethod
    def client_retries(*, rate: float = 0.1) -> Faults:
        """Requests and replies are lost, late, or come twice, and clients ask again; the rate is per message."""
        return _one(Fault("client_retries", _rate(rate, None)))

    def __or__(self, other: Faults) -> Faults:
        if not isinstance(other, Faults):  # pyright: ignore[reportUnnecessaryIsInstance]
            return NotImplemented
        return Faults(self.kinds + other.kinds, self.is_any or other.is_any)

    def __repr__(self) -> str:
        """The expression that makes it."""
        said = [str(fault) for fault in self.kinds]
        if self.is_any:
            said.insert(0, "Faults.any()")
        return " | ".join(said) or "Faults.none()"

    @property
    def at_points(self) -> Faults:
        """Those of them that are to happen at a chosen point."""
        return Faults(tuple(fault for fault in self.kinds if fault.at is not None))

    def of(self, kind: str) -> list[Fault]:
        """Its faults of one kind."""
        return [fault for fault in self.kinds if fault.kind == kind]

    def chosen(self, random: Random) -> Faults:
        """What one run has: with `any`, some kinds at some rates besides those asked for."""
        if not self.is_any:
            return self
        some = [fault for fault in _ALL.kinds if random.random() < 0.5]
        scaled = [_scaled(fault, random.choice((0.3, 1.0, 3.0))) for fault in some]
        return Faults(self.kinds + tuple(scaled))


def _scaled(fault: Fault, by: float) -> Fault:
    return replace(fault, rate=min(round(fault.rate * by, 3), 0.5))


def _one(fault: Fault) -> Faults:
    return Faults((fault,))


def _point(at: str | None) -> Point | None:
    return None if at is None else Point.parse(at)


def _rate(rate: Any, at: str | None) -> float:
    if not isinstance(rate, int | float) or not 0 <= rate <= 1:
        raise ValueError(f"A rate is a probability from 0 to 1, not {rate!r}.")
    return 0.0 if at is not None else rate


def _seconds(microseconds: int) -> str:
    """Such that reading it gives the same number of microseconds."""
    whole, part = divmod(microseconds, 1_000_000)
    return f"{whole}.{part:06d}".rstrip("0") if part else str(whole)


_ALL = (
    Faults.crash(rate=0.03)
    | Faults.commit_fails()
    | Faults.disk_full()
    | Faults.reads_fail()
    | Faults.slow()
    | Faults.clock_jumps()
    | Faults.client_retries()
)
