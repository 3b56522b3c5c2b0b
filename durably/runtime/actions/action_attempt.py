"""One attempt of an action: its time limit, and what its failure means for the handler that waits.

The limit is measured by the runtime's clock, so in a `Harness` it is virtual time like everything else that a handler
asks for. What happens inside an action takes real time.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from durably.actors.retry import RetryPolicy
from durably.actors.values.durations import duration_us
from durably.actors.values.error_envelopes import asked_delays
from durably.errors import ActionFailedError, ActionTimeoutError
from durably.runtime.clock import US_PER_SECOND, Cancellable, Clock
from durably.runtime.execution.failure_text import describe_failure, text_of_error


class TimeLimit:
    """Bounds what its task awaits, as `asyncio.timeout` does, by another clock than the event loop's."""

    def __init__(self, clock: Clock, name: str, limit_us: int) -> None:
        """`name` is that of the action."""
        self.error: TimeoutError | None = None
        """What it raised: the limit was reached."""
        self.until: int | None = None
        """When it will be reached, by the clock's monotonic time."""
        self._clock = clock
        self._name = name
        self._limit_us = limit_us
        self._expired = False
        self._timer: Cancellable | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0

    def __enter__(self) -> Self:
        limit_us = self._limit_us
        task = self._task = asyncio.current_task()
        assert task is not None
        self._cancelling = task.cancelling()
        self.until = self._clock.monotonic() + limit_us
        if limit_us > 0:
            self._timer = self._clock.call_later(limit_us, self._expire)
        else:
            self._timer = task.get_loop().call_soon(self._expire)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._expired or self._task is None:
            return
        is_all_that_cancels = self._task.uncancel() <= self._cancelling
        if is_all_that_cancels and isinstance(error, asyncio.CancelledError):
            limit = f"{self._limit_us / US_PER_SECOND:g} s"
            self.error = TimeoutError(f"the action {self._name!r} took longer than its limit of {limit}")
            raise self.error from error

    def _expire(self) -> None:
        self._expired = True
        assert self._task is not None
        self._task.cancel()


def given_up_error(name: str, error: BaseException, attempts: int, *, is_time_limit: bool) -> ActionFailedError:
    """What the handler gets when there is no further attempt."""
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    last = text_of_error(error) if is_time_limit else describe_failure(error)
    kind = ActionTimeoutError if is_time_limit else ActionFailedError
    return kind(
        f"The action {name!r} failed for good after {times}. The last error: {last}",
        action=name,
        attempts=attempts,
        error_type=type(error).__qualname__,
        last_message=text_of_error(error),
    )


def retry_delay(policy: RetryPolicy, failures: int, error: BaseException) -> int:
    """Microseconds until the next attempt: the policy's, and not before the error, and each of a group, asks for it."""
    delay = policy.delay_us(failures)
    for asked_for in asked_delays(error):
        with suppress(TypeError, ValueError):  # It asks for what is no duration.
            delay = max(delay, duration_us(asked_for))
    return delay
