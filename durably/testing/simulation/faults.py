"""`Faults`: what goes wrong in a simulation, as values that can be combined, printed and given again.

    Faults.crash(rate=0.02) | Faults.slow() | Faults.client_retries(rate=0.1)
    Faults.crash(at="before_commit:3")
    Faults.any(without=Faults.clock_jumps())

A rate is a probability at each opportunity: commits for the store's faults and for crashes, messages for the network's,
attempts for those of actions. A point says exactly when. A fault with neither is placed by each run's seed among the
opportunities that the program has, so a program of one call sees as many faults as one of a thousand. `Faults.any()`
lets the seed also choose the kinds, as in "swarm testing" (Groce and others, 2012): runs with few kinds of faults reach
states that runs with all of them do not.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any, Literal, TypeAlias, get_args

from durably.actors.values.durations import Duration, duration_us

Place: TypeAlias = Literal["before_commit", "after_commit", "before_action", "after_action", "read", "message", "reply"]
PLACES: tuple[Place, ...] = get_args(Place)

Kind: TypeAlias = Literal[
    "crash",
    "commit_fails",
    "disk_full",
    "reads_fail",
    "slow",
    "clock_jumps",
    "client_retries",
    "superseded",
    "action_fails_before",
    "action_fails_after",
    "action_hangs",
    "action_slow",
]

LATER_CALLBACKS = 40
"""How many callbacks after its point, at most, a crash comes that does not come at once."""


@dataclass(frozen=True, slots=True)
class Point:
    """A moment of a run: the `number`-th time, counted from 1, that it comes by a place, or some callbacks later."""

    place: Place
    number: int
    later: int = 0

    @classmethod
    def parse(cls, text: str) -> Point:
        """`before_commit:3`, `after_action:1+12` and the like.

        Raises:
            ValueError: it is not of that form; says what is.
        """
        place, _, moment = text.partition(":")
        number, plus, later = moment.partition("+")
        is_number = number.isdecimal() and int(number) > 0 and (later.isdecimal() or not plus)
        if place not in PLACES or not is_number:
            raise ValueError(
                f"{text!r} is not a point of a run. Write one of {', '.join(PLACES)}, a colon and a number from 1, "
                'such as "before_commit:3"; "before_commit:3+10" is ten callbacks later.'
            )
        return cls(next(known for known in PLACES if known == place), int(number), int(later or 0))

    def __str__(self) -> str:
        return f"{self.place}:{self.number}" + (f"+{self.later}" if self.later else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How many opportunities for faults a run had."""

    commits: int = 0
    reads: int = 0
    messages: int = 0
    replies: int = 0
    actions: int = 0

    def at(self, place: Place) -> int:
        """How often the run came by a place."""
        match place:
            case "before_commit" | "after_commit":
                return self.commits
            case "before_action" | "after_action":
                return self.actions
            case "read":
                return self.reads
            case "message":
                return self.messages
            case "reply":
                return self.replies

    @classmethod
    def guessed(cls, random: Random) -> Extent:
        """Of a program that was never run undisturbed: short or long, as the seed says."""
        return cls(**{field.name: random.choice((2, 6, 20, 60)) for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class _Manner:
    """What is common to all faults of a kind."""

    places: tuple[Place, ...]
    usual_rate: float
    """In a program that is long enough."""
    most: float = 0.5
    """With more, nothing would get on."""
    duration: str = ""
    """What its duration is called."""


_MANNERS: dict[Kind, _Manner] = {
    "crash": _Manner(("before_commit", "after_commit", "before_action", "after_action"), 0.03, 0.3, "down"),
    "commit_fails": _Manner(("before_commit",), 0.02, 0.2),
    "disk_full": _Manner(("before_commit",), 0.005, 0.05, "lasts"),
    "reads_fail": _Manner(("read",), 0.01, 0.1),
    "slow": _Manner(("before_commit", "read", "message", "reply"), 0.1, duration="up_to"),
    "clock_jumps": _Manner(("after_commit",), 0.05, duration="up_to"),
    "client_retries": _Manner(("message",), 0.1),
    "superseded": _Manner(("before_commit", "after_commit"), 0.01, 0.1, "lasts"),
    "action_fails_before": _Manner(("before_action",), 0.05),
    "action_fails_after": _Manner(("after_action",), 0.05),
    "action_hangs": _Manner(("before_action",), 0.02, duration="lasts"),
    "action_slow": _Manner(("before_action",), 0.05, duration="up_to"),
}

_OF_ACTIONS: dict[str, Kind] = {
    "fail_before": "action_fails_before",
    "fail_after": "action_fails_after",
    "hang": "action_hangs",
    "slow": "action_slow",
}
_WORD_OF_ACTIONS = {kind: word for word, kind in _OF_ACTIONS.items()}
_ACTION_DURATIONS: dict[Kind, Duration] = {"action_hangs": 3600.0, "action_slow": 60.0}


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of trouble. Made by `Faults`."""

    kind: Kind
    rate: float | None = None
    """None, without a point: the seed of each run says when."""
    at: Point | None = None
    durable: bool | None = None
    for_us: int = 0
    counts: bool = True
    """Of an action: the failure counts for a limited retry policy."""
    is_drawn: bool = False
    """The seed chose its point; the user did not."""

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it may happen."""
        return _MANNERS[self.kind].places

    @property
    def is_open(self) -> bool:
        """Each run's seed has to say when it happens."""
        return self.rate is None and self.at is None

    def __str__(self) -> str:
        if self.kind in _WORD_OF_ACTIONS:
            when = repr(str(self.at)) if self.at is not None else "None" if self.rate is None else f"{self.rate}"
            counts = "" if self.counts else ", counts=False"
            return f"Faults.actions({_WORD_OF_ACTIONS[self.kind]}={when}{counts})".replace("'", '"')
        said = [] if self.at is None else [f'at="{self.at}"']
        if self.rate is not None and self.at is None:
            said.append(f"rate={self.rate}")
        if self.durable is not None:
            said.append(f"durable={self.durable}")
        duration = _MANNERS[self.kind].duration
        if duration:
            said.append(f"{duration}={_seconds(self.for_us)}")
        return f"Faults.{self.kind}({', '.join(said)})"


@dataclass(frozen=True, slots=True, repr=False)
class Faults:
    """A combination of faults; `|` combines two, `-` leaves out the kinds of the second. Immutable."""

    kinds: tuple[Fault, ...] = ()
    is_any: bool = False
    """Each run's seed chooses."""
    left_out: tuple[Kind, ...] = ()
    """What it does not choose."""

    @staticmethod
    def none() -> Faults:
        """Nothing goes wrong; only the order of things differs from seed to seed."""
        return Faults()

    @staticmethod
    def any(*, without: Faults | None = None) -> Faults:
        """The seed of each run chooses which kinds of faults there are, and when they happen.

        It chooses among all kinds but `Faults.actions(hang=...)`, which lets an hour pass.
        `without` are kinds that it never chooses: `Faults.any(without=Faults.clock_jumps() | Faults.disk_full())`.
        """
        faults = Faults(is_any=True)
        return faults if without is None else faults - without

    @staticmethod
    def crash(*, rate: float | None = None, at: str | None = None, down: Duration = 1.0) -> Faults:
        """The process is killed, as by `kill -9`, and started again after up to `down`.

        It happens around commits and actions: right before, right after, in the middle, or a little later.
        """
        return _one(Fault("crash", _rate(rate, at), _point(at), for_us=duration_us(down, "Faults.crash(down=...)")))

    @staticmethod
    def commit_fails(*, rate: float | None = None, at: str | None = None, durable: bool | None = None) -> Faults:
        """A commit reports a failure. `durable` says whether the batch is on the disk all the same; None is either."""
        return _one(Fault("commit_fails", _rate(rate, at), _point(at), durable))

    @staticmethod
    def disk_full(*, rate: float | None = None, at: str | None = None, lasts: Duration = 30.0) -> Faults:
        """From some commit on, every commit fails and the store cannot be opened, for up to `lasts`."""
        lasts_us = duration_us(lasts, "Faults.disk_full(lasts=...)")
        return _one(Fault("disk_full", _rate(rate, at), _point(at), for_us=lasts_us))

    @staticmethod
    def reads_fail(*, rate: float | None = None, at: str | None = None) -> Faults:
        """A question to the store reports a failure; the rate is per question."""
        return _one(Fault("reads_fail", _rate(rate, at), _point(at)))

    @staticmethod
    def slow(*, rate: float | None = 0.1, at: str | None = None, up_to: Duration = 5.0) -> Faults:
        """Commits, reads and messages take up to `up_to`."""
        up_to_us = duration_us(up_to, "Faults.slow(up_to=...)")
        return _one(Fault("slow", _rate(rate, at), _point(at), for_us=up_to_us))

    @staticmethod
    def clock_jumps(*, rate: float | None = None, at: str | None = None, up_to: Duration = 3600.0) -> Faults:
        """Somebody sets the wall clock, forwards or back, by up to `up_to`."""
        up_to_us = duration_us(up_to, "Faults.clock_jumps(up_to=...)")
        return _one(Fault("clock_jumps", _rate(rate, at), _point(at), for_us=up_to_us))

    @staticmethod
    def client_retries(*, rate: float | None = None, at: str | None = None) -> Faults:
        """Requests and replies are lost, late, or come twice, and clients ask again; the rate is per message."""
        return _one(Fault("client_retries", _rate(rate, at), _point(at)))

    @staticmethod
    def superseded(*, rate: float | None = None, at: str | None = None, lasts: Duration = 30.0) -> Faults:
        """Another process takes the store over while this one lives on, because its lock was lost or it stood still.

        For up to `lasts` both are there, and clients reach either. The older one must answer nothing.
        """
        lasts_us = duration_us(lasts, "Faults.superseded(lasts=...)")
        return _one(Fault("superseded", _rate(rate, at), _point(at), for_us=lasts_us))

    @staticmethod
    def actions(
        *,
        fail_before: float | str | None = 0,
        fail_after: float | str | None = 0,
        hang: float | str | None = 0,
        slow: float | str | None = 0,
        counts: bool = True,
    ) -> Faults:
        """Attempts of actions of `ctx.run` fail before they begin, or after they have done everything, or take long.

        Each is a rate per attempt, a point (`fail_after="after_action:1"`), or None: the seed of each run says when.
        Without any, all four are None. `hang` takes up to an hour and then fails, `slow` up to a minute. The retry
        policy of the action, or of the simulation, decides about further attempts. Where there is none, or the failure
        does not count (`counts=False`, as with `Faults.any()`) for one that is limited, the world attempts it again.
        """
        given = {"fail_before": fail_before, "fail_after": fail_after, "hang": hang, "slow": slow}
        if all(when == 0 for when in given.values()):
            given = dict.fromkeys(given)
        made: list[Fault] = []
        for word, when in given.items():
            kind = _OF_ACTIONS[word]
            for_us = duration_us(_ACTION_DURATIONS.get(kind, 0.0), "Faults.actions(...)")
            if isinstance(when, str):
                made.append(Fault(kind, None, _point(when), for_us=for_us, counts=counts))
            elif when != 0:
                made.append(Fault(kind, _rate(when, None), for_us=for_us, counts=counts))
        return Faults(tuple(map(_checked, made)))

    def __or__(self, other: Faults) -> Faults:
        if not isinstance(other, Faults):  # pyright: ignore[reportUnnecessaryIsInstance]
            return NotImplemented
        left_out: list[Kind] = [kind for kind in self.left_out if kind in other.left_out or not other.is_any]
        if not self.is_any:
            left_out += other.left_out
        return Faults(self.kinds + other.kinds, self.is_any or other.is_any, tuple(left_out))

    def __sub__(self, other: Faults) -> Faults:
        if not isinstance(other, Faults):  # pyright: ignore[reportUnnecessaryIsInstance]
            return NotImplemented
        gone: set[Kind] = {fault.kind for fault in other.kinds}
        if other.is_any:
            gone.update(_MANNERS)
        left_out: dict[Kind, None] = dict.fromkeys((*self.left_out, *(kind for kind in _MANNERS if kind in gone)))
        return Faults(
            tuple(fault for fault in self.kinds if fault.kind not in gone),
            self.is_any,
            tuple(left_out) if self.is_any else (),
        )

    def __repr__(self) -> str:
        """The expression that makes it."""
        said = [str(fault) for fault in self.kinds]
        if self.is_any:
            without = Faults(tuple(Fault(kind) for kind in self.left_out))
            said.insert(0, f"Faults.any(without={_briefly(without)})" if self.left_out else "Faults.any()")
        return " | ".join(said) or "Faults.none()"

    @property
    def at_points(self) -> Faults:
        """Those of them that are to happen at a point that the user chose."""
        return Faults(tuple(fault for fault in self.kinds if fault.at is not None and not fault.is_drawn))

    @property
    def is_placed_by_seeds(self) -> bool:
        """Each run's seed has to say when something happens, and so needs to know how long the program is."""
        return self.is_any or any(fault.is_open for fault in self.kinds)

    def of(self, kind: Kind) -> list[Fault]:
        """Its faults of one kind."""
        return [fault for fault in self.kinds if fault.kind == kind]

    def chosen(self, random: Random, extent: Extent | None = None) -> Faults:
        """What one run has: each fault at a rate or at a point, placed among the opportunities that there are."""
        if not self.is_placed_by_seeds:
            return self
        kinds = self.kinds
        if self.is_any:
            some = [fault for fault in _ALL.kinds if random.random() < 0.5]
            kinds += tuple(fault for fault in some if fault.kind not in self.left_out)
        extent = Extent.guessed(random) if extent is None else extent
        return Faults(tuple(placed for fault in kinds for placed in _placed(fault, random, extent)))


def _placed(fault: Fault, random: Random, extent: Extent) -> list[Fault]:
    """A fault that the seed places: at some points, or at a rate with which it happens a few times."""
    if not fault.is_open:
        return [fault]
    counts: dict[Place, int] = {place: count for place in fault.places if (count := extent.at(place))}
    opportunities = sum(counts.values())
    if not opportunities:
        return []
    if random.random() < 0.5:
        times = random.choice((1, 3, 5))
        manner = _MANNERS[fault.kind]
        rate = max(manner.usual_rate * random.choice((0.3, 1.0, 3.0)), times / opportunities)
        return [replace(fault, rate=min(round(rate, 3), manner.most), is_drawn=True)]
    return [
        replace(fault, at=_drawn_point(fault.kind, counts, random), is_drawn=True)
        for _ in range(random.choice((1, 2, 3, 4)))
    ]


def _drawn_point(kind: Kind, counts: dict[Place, int], random: Random) -> Point:
    places: list[Place] = [*counts]
    (place,) = random.choices(places, [*counts.values()])
    later = random.randrange(1, LATER_CALLBACKS) if kind == "crash" and random.random() < 0.5 else 0
    return Point(place, random.randint(1, counts[place]), later)


def _one(fault: Fault) -> Faults:
    return Faults((_checked(fault),))


def _checked(fault: Fault) -> Fault:
    if fault.at is not None and fault.at.place not in fault.places:
        places = " or ".join(f'"{place}:n"' for place in fault.places)
        raise ValueError(f"{fault.kind} happens at {places} only, not at {str(fault.at)!r}.")
    return fault


def _briefly(faults: Faults) -> str:
    """Kinds without their numbers, all of those of actions as one."""
    of_actions = [fault for fault in faults.kinds if fault.kind in _WORD_OF_ACTIONS]
    said = [f"Faults.{fault.kind}()" for fault in faults.kinds if fault not in of_actions]
    if len(of_actions) == len(_OF_ACTIONS):
        said.append("Faults.actions()")
    else:
        said += [str(fault) for fault in of_actions]
    return " | ".join(said)


def _point(at: str | None) -> Point | None:
    return None if at is None else Point.parse(at)


def _rate(rate: Any, at: str | None) -> float | None:
    if rate is None or at is not None:
        return None
    if not isinstance(rate, int | float) or not 0 <= rate <= 1:
        raise ValueError(f"A rate is a probability from 0 to 1, not {rate!r}.")
    return rate


def _seconds(microseconds: int) -> str:
    """Such that reading it gives the same number of microseconds."""
    whole, part = divmod(microseconds, 1_000_000)
    return f"{whole}.{part:06d}".rstrip("0") if part else str(whole)


_ALL = (
    Faults.crash()
    | Faults.commit_fails()
    | Faults.disk_full()
    | Faults.reads_fail()
    | Faults.slow(rate=None)
    | Faults.clock_jumps()
    | Faults.client_retries()
    | Faults.actions(fail_before=None, fail_after=None, slow=None, counts=False)
    | Faults.superseded()
)
