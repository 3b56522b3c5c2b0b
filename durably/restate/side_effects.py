"""`SideEffects`: the actions of `ctx.run` on Restate, one attempt at a time.

Restate keeps the result, and begins the next attempt by its own clock when one has failed. A retry policy says when
there is none: attempts are counted in this process, as on a `Runtime`, and by Restate too, which outlives the process.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import OrderedDict
from collections.abc import Mapping
from datetime import timedelta
from inspect import isawaitable
from typing import Any, Final

from restate import RunOptions
from restate.exceptions import RetryableError
from restate.serde import BytesSerde

from durably.actors.action_context import ActionContext
from durably.actors.protocol.port import Action
from durably.actors.retry import RetryPolicy
from durably.actors.values.durations import duration_us, optional_duration_us
from durably.actors.values.error_envelopes import asked_delays, encode_failure, terminal_of_action
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.errors import ActionFailedError, TerminalError, find_mistake
from durably.restate.failures import to_restate
from durably.runtime.actions.action_attempt import TimeLimit, given_up_error, retry_delay
from durably.runtime.actions.contained import contained, has_exited, without_containment
from durably.runtime.clock import SystemClock
from durably.runtime.execution.failure_text import describe_failure, text_of_error
from durably.runtime.observation.logs import RuntimeLogger

_REMEMBERED: Final = 100_000
"""Of so many actions it is known how often they have failed in this process."""
BYTES: Final = BytesSerde()


class FailedAttemptError(Exception):
    """An attempt of an action failed, and another one follows. Its representation is what operators read."""

    def __repr__(self) -> str:
        return str(self)


class SideEffects:
    """The actions of a deployment."""

    def __init__(self, clock: SystemClock, logger: RuntimeLogger) -> None:
        self._clock = clock
        self._logger = logger
        self._failures: OrderedDict[tuple[str, int], int] = OrderedDict()
        """By invocation and command."""

    async def attempt(self, action: Action[Any], number: int, issued_at: int) -> bytes:
        """Run it once; the result, encoded.

        Raises:
            restate.TerminalError: it failed for good.
            FailedAttemptError, RetryableError: Restate is to begin it again.
        """
        key = (action.request.id, number)
        failures = self._failures.get(key, 0)
        limit = None if action.timeout_us is None else TimeLimit(self._clock, action.name, action.timeout_us)
        context = ActionContext(action.name, failures + 1, action.request, self._log)
        try:
            value = await self._limited(action, limit, context)
        except asyncio.CancelledError:
            raise
        except BaseException as raised:
            let_signals_pass(raised)
            error = without_containment(raised)
            self._remember(key, failures + 1)
            is_time_limit = limit is not None and error is limit.error
            failure = self._after_failure(action, error, failures + 1, issued_at, is_time_limit=is_time_limit)
            if failure is not None:
                self._failures.pop(key, None)
                raise to_restate(encode_failure(failure)) from error
            raise _next_attempt(action, error, failures + 1) from error
        self._failures.pop(key, None)
        try:
            return action.encode(value)
        except USER_ERRORS as error:  # Rule V5: what cannot be encoded raises in the handler, named.
            let_signals_pass(error)
            raise to_restate(encode_failure(TerminalError(text_of_error(error)))) from error

    def _after_failure(
        self, action: Action[Any], error: BaseException, failures: int, issued_at: int, *, is_time_limit: bool
    ) -> TerminalError | None:
        """The failure for the handler; None: there is another attempt."""
        ends = terminal_of_action(error)
        if ends is not None:
            return ends
        if find_mistake(error) is not None:
            return None
        policy = action.retry or RetryPolicy()
        elapsed_us = self._clock.now() - issued_at
        gives_up = policy.gives_up_on(error) or has_exited(error)
        if not gives_up and not policy.exhausted(failures, elapsed_us, retry_delay(policy, failures, error)):
            return None
        return given_up_error(action.name, error, failures, is_time_limit=is_time_limit)

    async def _limited(self, action: Action[Any], limit: TimeLimit | None, context: ActionContext) -> Any:
        token = context.enter()
        try:
            called = contained(asyncio.get_running_loop(), _called(action))
            if limit is None:
                return await called
            with limit:
                return await called
        except asyncio.CancelledError:
            context.given_up.set()
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise RuntimeError("the action was cancelled from within") from None
        except TimeoutError as error:
            if limit is not None and error is limit.error:
                context.given_up.set()
            raise
        finally:
            context.leave(token)

    def _remember(self, key: tuple[str, int], failures: int) -> None:
        self._failures[key] = failures
        self._failures.move_to_end(key)
        if len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)

    def _log(self, context: ActionContext, level: str, event: str, fields: Mapping[str, Any]) -> None:
        self._logger.action_logged(context.request.id, context.name, context.attempt, level, event, fields)


def options_of(action: Action[Any] | None) -> RunOptions[bytes]:
    """When Restate begins an action again, and how often at most."""
    policy = None if action is None else action.retry
    if policy is None:
        return RunOptions(serde=BYTES)
    longest_us = optional_duration_us(policy.max_duration, "RetryPolicy(max_duration=...)")
    return RunOptions(
        serde=BYTES,
        max_attempts=policy.max_attempts,
        max_duration=None if longest_us is None else timedelta(microseconds=longest_us),
        initial_retry_interval=timedelta(microseconds=duration_us(policy.initial)),
        max_retry_interval=timedelta(microseconds=duration_us(policy.maximum)),
        retry_interval_factor=float(policy.factor),
    )


def exhausted(action: Action[Any] | None, name: str, message: str) -> bytes:
    """The failure of an action that Restate begins no more, after attempts in several processes; `message` is its."""
    attempts = 0 if action is None or action.retry is None else action.retry.max_attempts or 0
    kind, _, text = message.partition(": ")
    told = f"The action {name!r} failed for good. The last error: {message}"
    return encode_failure(ActionFailedError(told, action=name, attempts=attempts, error_type=kind, last_message=text))


def _next_attempt(action: Action[Any], error: BaseException, failures: int) -> Exception:
    told = describe_failure(error)
    if not asked_delays(error):
        return FailedAttemptError(told)
    delay = retry_delay(action.retry or RetryPolicy(), failures, error)
    return RetryableError(told, retry_after=timedelta(microseconds=delay))


async def _called(action: Action[Any]) -> Any:
    value = action.invoke() if action.runs_on_loop else await _in_thread(action)
    return await value if isawaitable(value) else value


async def _in_thread(action: Action[Any]) -> Any:
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    value, error = await loop.run_in_executor(None, lambda: context.run(_invoked, action))
    if error is not None:
        raise error
    return value


def _invoked(action: Action[Any]) -> tuple[Any, BaseException | None]:
    """As a value: `StopIteration` and exits do not pass through a future."""
    try:
        return action.invoke(), None
    except StopIteration as error:
        return None, RuntimeError(f"the action raised {error!r}")
    except KeyboardInterrupt as error:  # No signal raises it in a thread (rule E3).
        return None, RuntimeError(f"the action raised {error!r}")
    except BaseException as error:
        return None, error
