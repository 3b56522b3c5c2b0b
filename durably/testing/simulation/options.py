"""What may be chosen about simulations besides their seed, their faults and their order, and what a campaign knows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

from durably.actors.limits import Limit
from durably.actors.middleware import MiddlewareGiven, checked_middleware
from durably.actors.retry import RetryPolicy
from durably.actors.values.durations import Duration
from durably.actors.values.type_checks import is_int, is_mapping
from durably.sources import Feed
from durably.testing.simulation.faults import Extent
from durably.testing.simulation.process_memory import ProcessMemory

Dependencies: TypeAlias = Mapping[Any, Any] | Callable[[], Mapping[Any, Any]]

Sources: TypeAlias = Callable[[Mapping[Any, Any]], Sequence[Feed]]


class Options(TypedDict, total=False):
    """How simulations are made, besides their seeds."""

    dependencies: Dependencies | None
    """Should be a function that makes them, unless they remember nothing."""
    middleware: Sequence[MiddlewareGiven]
    """The runtime's, around all handlers."""
    sources: Sources | None
    """Makes what each process reads outside, given the dependencies."""
    retry: RetryPolicy
    """Of handlers and actions without a policy of their own. By default each invocation gets one attempt."""
    limits: Mapping[str, Limit]
    """The named limits that handlers refer to: `{"stripe": Limit(at_once=10)}`."""
    mailbox_messages: int
    """How many messages may wait for one object before requests from outside are refused: 10,000."""
    suspend_after: Duration | None
    """How long an attempt waits in memory; None: as the seed says."""
    longest: Duration
    """Virtual time after which a program that has not ended is given up."""
    most_callbacks: int
    """Callbacks of the simulated event loop after which a program that has not ended is given up: 2,000,000."""
    most_polls: int
    """How often a client may ask the same and be answered the same, while the state of no object changes: 1,000."""
    allow: Collection[str]
    """Modules that may read clocks and roll dice in handlers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What earlier runs have shown of a program."""

    extent: Extent | None = None
    """How many opportunities for faults it has; None: faults that the seed places lie where it guesses."""
    memory: ProcessMemory | None = None
    """What the actors' code has in globals; None: it is looked for when the first program runs."""


NOTHING_KNOWN = Known()
MAILBOX_MESSAGES = 10_000
NO_RETRY = RetryPolicy(max_attempts=1)


def check_count(name: str, count: object, least: int = 1) -> None:
    """See that an argument is a whole number that can work.

    Raises:
        TypeError, ValueError: it is none, or too small.
    """
    if not is_int(count):
        raise TypeError(f"{name}= is a whole number, not {count!r} ({type(count).__name__}).")
    if count < least:
        raise ValueError(f"{name}= is a whole number from {least} on, not {count!r}.")


def check_options(options: Mapping[str, object]) -> None:
    """See that there are such options, and that those that are counts can work.

    Raises:
        TypeError, ValueError: one is not known, or cannot work.
    """
    known = [*Options.__annotations__]
    for name, value in options.items():
        if name not in known:
            raise TypeError(f"A simulation has no option {name!r}. It has: {', '.join(known)}.")
        if name.startswith("most_") and value is not None:
            check_count(name, value)
    given = options.get("dependencies")
    if given is not None and not callable(given) and not is_mapping(given):
        raise TypeError(
            f"dependencies= is a function that makes a mapping from types to values, or such a mapping, not {given!r}."
        )
    sources = options.get("sources")
    if sources is not None and not callable(sources):
        raise TypeError(f"sources= is a function from the dependencies to a list of Feeds, not {sources!r}.")
    checked_middleware(options.get("middleware", ()), "middleware= of a simulation")
    if not isinstance(options.get("retry", NO_RETRY), RetryPolicy):
        raise TypeError(f"retry= is a RetryPolicy, not {options['retry']!r}.")
