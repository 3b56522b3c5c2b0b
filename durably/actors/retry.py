"""When to try again: a value and three pure functions of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from durably.actors.values.durations import Duration, duration_us, optional_duration_us
from durably.actors.values.type_checks import is_exception_class, is_int, is_iterable, is_number
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.errors import DefinitionError


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to try again, and what happens when that is over.

    The first wait is `initial`, each further one `factor` times the last, none longer than `maximum`. `max_attempts`
    counts the first attempt; `max_duration` counts from the first failure (of an action, from when the handler asked
    for it), also across crashes; None means without end. `then` says what follows: the invocation waits for a
    person, or fails (actions always fail). Errors of the classes in `give_up_on` end it at once, as a `TerminalError`.

    Raises:
        ValueError, TypeError: a field that makes no sense, named.
    """

    initial: Duration = 0.05
    factor: float = 2.0
    maximum: Duration = 60.0
    max_attempts: int | None = None
    max_duration: Duration | None = None
    then: Literal["pause", "fail"] = "pause"
    give_up_on: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        initial_us = duration_us(self.initial, "RetryPolicy(initial=...)")
        maximum_us = duration_us(self.maximum, "RetryPolicy(maximum=...)")
        optional_duration_us(self.max_duration, "RetryPolicy(max_duration=...)")
        if maximum_us < initial_us:
            raise ValueError(
                f"RetryPolicy waits at most {self.maximum!r}, but first {self.initial!r}: raise maximum= or lower "
                "initial=."
            )
        if not is_number(self.factor) or not 1 <= self.factor < math.inf:
            raise ValueError(
                f"RetryPolicy(factor=...) is a number of at least 1, so that waits do not shrink, not {self.factor!r}."
            )
        if self.max_attempts is not None and (not is_int(self.max_attempts) or self.max_attempts < 1):
            raise ValueError(
                "RetryPolicy(max_attempts=...) counts the first attempt, so it is a whole number of at least 1, not "
                f"{self.max_attempts!r}."
            )
        if self.then not in ("pause", "fail"):
            raise ValueError(f"RetryPolicy(then=...) is 'pause' or 'fail', not {self.then!r}.")
        for cls in self.give_up_on if is_iterable(self.give_up_on) else [None]:
            if not is_exception_class(cls):
                raise TypeError(
                    "RetryPolicy(give_up_on=...) takes classes of exceptions, such as (ValueError,), not "
                    f"{self.give_up_on!r}."
                )
        object.__setattr__(self, "give_up_on", tuple(self.give_up_on))  # `isinstance` takes no list.

    def delay_us(self, failed_attempts: int) -> int:
        """Microseconds to wait after the `failed_attempts`-th failure in a row, counted from 1."""
        initial, maximum = duration_us(self.initial), duration_us(self.maximum)
        try:
            return min(maximum, round(initial * float(self.factor) ** (failed_attempts - 1)))
        except OverflowError:
            return maximum if initial else 0

    def exhausted(self, failed_attempts: int, elapsed_us: int, delay_us: int) -> bool:
        """No further attempt is due: there were enough, or the next one, after `delay_us`, would start too late."""
        if self.max_attempts is not None and failed_attempts >= self.max_attempts:
            return True
        return self.max_duration is not None and elapsed_us + delay_us > duration_us(self.max_duration)

    def gives_up_on(self, error: BaseException) -> bool:
        """Errors like this one are not worth another attempt."""
        try:
            return isinstance(error, self.give_up_on)
        except USER_ERRORS as problem:  # Of a metaclass of the user's: another attempt does no harm.
            let_signals_pass(problem)
            return False


def checked_retry(given: RetryPolicy | None, where: str) -> RetryPolicy | None:
    """A policy, or None, as it was given; found wrong when an attempt fails, it would be a mistake of the machine.

    Raises:
        DefinitionError: it is something else.
    """
    if given is not None and not isinstance(given, RetryPolicy):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DefinitionError(f"{where} is a RetryPolicy, such as RetryPolicy(max_attempts=5), not {given!r}.")
    return given
