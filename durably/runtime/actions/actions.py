"""`Actions`: the side effects of `ctx.run` that are under way, on the host's event loop or in threads.

They belong to the runtime, keyed by invocation and command, and outlive attempts and incarnations: a new attempt joins
the running action, and its result is kept until the completion is durable (rule A1). An action starts only when its
command is durable, so a result never exists without a record that it was asked for.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from inspect import isawaitable
from threading import get_ident
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from durably.actors.action_context import ActionContext
from durably.actors.protocol.port import Action
from durably.actors.retry import RetryPolicy
from durably.actors.values.error_envelopes import encode_failure, terminal_of_action
from durably.actors.values.user_errors import USER_ERRORS, is_from_signal, let_signals_pass
from durably.errors import TerminalError, find_mistake
from durably.runtime.actions.action_attempt import TimeLimit, given_up_error, retry_delay
from durably.runtime.actions.contained import ExitInTaskError, contained, has_exited, without_containment
from durably.runtime.actions.loop_watch import ActionStep, LoopWatch
from durably.runtime.clock import Cancellable, Clock
from durably.runtime.commit.thread_yielding import ThreadYielding
from durably.runtime.execution.failure_text import describe_failure, failure_fields, text_of_error
from durably.runtime.observation.observer import Observer
from durably.runtime.settings import AroundAttempt

ActionKey: TypeAlias = tuple[str, int]
"""(invocation id, command number)"""


class ActionResult(msgspec.Struct, frozen=True, kw_only=True):
    """How an action ended: with a value, a `TerminalError`, or (`exhausted`) as a failure of the whole invocation."""

    failed: bool
    value: bytes
    exhausted: BaseException | None = None
    cause: BaseException | None = None
    """The error that the last attempt raised, for the traceback where the handler is still in memory."""


class ActionListener(Protocol):
    """The incarnation that asked for an action, or joined it."""

    def action_backs_off(self, key: ActionKey, name: str, fields: dict[str, Any], /) -> None:
        """It has failed, and will be tried again."""
        ...

    def action_issued_at(self, key: ActionKey, /) -> int | None:
        """When the handler asked for it, which may have been in an earlier process: microseconds since 1970 UTC."""
        ...

    def action_ended(self, key: ActionKey, result: ActionResult, /) -> None:
        """It has its result."""
        ...


class _Running:
    """One action: its task, and its result from then on."""

    __slots__ = ("error", "execution", "failures", "key", "listener", "name", "result", "task", "tried_again_at")

    def __init__(self, key: ActionKey, execution: int, name: str, listener: ActionListener) -> None:
        self.key = key
        self.execution = execution
        self.name = name
        self.listener = listener
        self.task: asyncio.Task[None] | None = None
        self.result: ActionResult | None = None
        self.tried_again_at: int | None = None
        """While it backs off: when the next attempt begins, by the monotonic clock."""
        self.failures = 0
        """Attempts that have failed."""
        self.error: str | None = None
        """What the last of them failed with."""


class ActionState(NamedTuple):
    """An action that has not ended, for those who ask what it does."""

    failures: int
    error: str | None
    tried_again_at: int | None
    """While it backs off: when the next attempt begins, by the monotonic clock."""


class Attempted(NamedTuple):
    """An attempt that is under way."""

    key: ActionKey
    name: str
    until: int | None
    """When its time limit ends it, by the monotonic clock; None: it has no limit."""
    is_wanted: bool
    """False: it was cancelled, and goes on all the same."""


class Actions:
    """All actions of a runtime."""

    def __init__(
        self,
        clock: Clock,
        threads: int,
        thread_yielding: ThreadYielding,
        observer: Observer,
        around_attempt: AroundAttempt | None = None,
        thread_wait_us: int = 5_000_000,
        slow_step_us: int = 100_000,
    ) -> None:
        self.loop_watch = LoopWatch(clock, observer, slow_step_us)
        self.on_rest: Callable[[], None] = _nobody_listens
        """Hears when an action has ended, or backs off."""
        self._is_resting = False
        """In the next turn of the loop it is told that nothing is attempted."""
        self._observer = observer
        self._write = self._log
        self._around_attempt = around_attempt
        self._host = asyncio.get_running_loop()
        self._clock = clock
        self._thread_yielding = thread_yielding
        self._running: dict[ActionKey, _Running] = {}
        self._threads = threads
        self._under_way: dict[_Running, TimeLimit | None] = {}
        """What is being attempted right now; what backs off is not among it."""
        self._executor: ThreadPoolExecutor | None = None
        self._cancelled: dict[asyncio.Task[None], str] = {}
        """What a stop has cancelled and has not ended, with its name."""
        self._in_threads: dict[int, str] = {}
        """What runs in threads. A thread may outlive the invocation that waits for it."""
        self._waiting: dict[object, str] = {}
        """What waits for a thread."""
        self._thread_wait_us = thread_wait_us
        self._thread_watch: Cancellable | None = None

    def keys(self) -> set[ActionKey]:
        """The actions under way, and those whose completion is not durable yet."""
        return set(self._running)

    @property
    def busy(self) -> int:
        """Actions that are being attempted right now; those that back off are not counted."""
        return len(self._under_way)

    def under_way(self) -> list[Attempted]:
        """The attempts of this moment, oldest first."""
        return [
            Attempted(
                running.key,
                running.name,
                None if limit is None else limit.until,
                self._running.get(running.key) is running,
            )
            for running, limit in self._under_way.items()
        ]

    def backing_off(self) -> list[tuple[ActionKey, str, int]]:
        """Actions that wait for their next attempt: key, name and when that is, by the monotonic clock."""
        return [
            (running.key, running.name, running.tried_again_at)
            for running in self._running.values()
            if running.tried_again_at is not None
        ]

    def state_of(self, key: ActionKey) -> ActionState | None:
        """How an action stands; None: it is not under way here."""
        running = self._running.get(key)
        if running is None or running.result is not None:
            return None
        return ActionState(running.failures, running.error, running.tried_again_at)

    def tasks(self) -> set[asyncio.Task[None]]:
        """The tasks that they run and wait in."""
        return {running.task for running in self._running.values() if running.task is not None}

    def start(
        self, key: ActionKey, execution: int, action: Action[Any], fallback: RetryPolicy, listener: ActionListener
    ) -> None:
        """Start an action, or join the one that runs; `listener` hears the result once.

        `execution` is the number of the execution that asks: what an earlier one left is dropped (rule W1).
        `fallback` is the policy of the invocation, for an action that has none of its own (rule A3).
        """
        running = self._running.get(key)
        if running is not None and running.execution != execution:
            self.cancel(key)
            running = None
        if running is None:
            running = self._running[key] = _Running(key, execution, action.name, listener)
            running.task = self._host.create_task(self._run(key, running, action, fallback), context=action.context)
        elif running.result is None:
            running.listener = listener
        else:
            self._host.call_soon(self._tell_again, running, listener)

    def _tell_again(self, running: _Running, listener: ActionListener) -> None:
        if self._running.get(running.key) is running and running.result is not None:
            listener.action_ended(running.key, running.result)

    def settled(self, key: ActionKey) -> None:
        """The completion of this action is durable: the result need not be kept."""
        self._running.pop(key, None)

    def cancel(self, key: ActionKey) -> None:
        """Drop an action whose result is no longer wanted (rule C5). A thread runs on; its result is dropped."""
        running = self._running.pop(key, None)
        if running is not None and running.task is not None:
            running.task.cancel()

    def stop(self) -> None:
        """Cancel all actions. A cancellation by shutdown is no result (rule A3); from here on none is reported."""
        for running in self._running.values():
            if running.task is not None and not running.task.done():
                self._cancelled[running.task] = running.name
                running.task.add_done_callback(lambda task: self._cancelled.pop(task, None))
                running.task.cancel()
        self._running.clear()
        if self._thread_watch is not None:
            self._thread_watch.cancel()
            self._thread_watch = None
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None

    async def ended(self, *, real_seconds: float | None = None) -> None:
        """After `stop`: wait for those that do not end at once; not for threads, which cannot be cancelled.

        `real_seconds` bounds the wait by the event loop's time; None waits for all of them.
        """
        if self._cancelled:
            await asyncio.wait(self._cancelled, timeout=real_seconds)

    def left(self) -> list[str]:
        """After `stop`: the names of those that still run, threads included."""
        return [*self._cancelled.values(), *self._in_threads.values()]

    async def _run(self, key: ActionKey, running: _Running, action: Action[Any], fallback: RetryPolicy) -> None:
        policy = fallback if action.retry is None else action.retry
        started = self._clock.monotonic()
        failures = 0
        while running.result is None:
            limit_us = action.timeout_us
            limit = None if limit_us is None else TimeLimit(self._clock, action.name, limit_us)
            context = ActionContext(action.name, failures + 1, action.request, self._write)
            self._begin_attempt(running, limit)
            try:
                running.result = _encoded(action, await self._attempted(action, fallback, limit, context))
            except asyncio.CancelledError:
                raise
            except BaseException as raised:
                if is_from_signal(raised):  # Rule E3: the host's business, which asyncio need not report again.
                    _this_task().add_done_callback(_forget_error)
                    raise
                error = without_containment(raised)
                failures += 1
                elapsed = self._clock.monotonic() - started
                if action.retry is not None:
                    issued_at = running.listener.action_issued_at(key)
                    elapsed = elapsed if issued_at is None else max(elapsed, self._clock.now() - issued_at)
                is_time_limit = limit is not None and error is limit.error
                running.result = _after_failure(action, policy, error, failures, elapsed, is_time_limit)
                failed: BaseException | None = error
            else:
                failed = None
            finally:
                self._end_attempt(running)
            if self._running.get(key) is not running:  # It turned its cancellation into something else.
                return
            if running.result is None and failed is not None:
                delay = retry_delay(policy, failures, failed)
                running.failures, running.error = failures, describe_failure(failed)
                running.listener.action_backs_off(key, action.name, _told(delay, failures, failed))
                running.tried_again_at = self._clock.monotonic() + delay
                await self._clock.sleep(delay)
                running.tried_again_at = None
        running.task = None
        if self._running.get(key) is running:
            running.listener.action_ended(key, running.result)

    def _begin_attempt(self, running: _Running, limit: TimeLimit | None) -> None:
        self._under_way[running] = limit
        id, number = running.key
        self._observer.action_attempt_started(id, number, running.name)

    def _end_attempt(self, running: _Running) -> None:
        del self._under_way[running]
        if not self._under_way and not self._is_resting:
            self._is_resting = True
            self._host.call_soon(self._rest)
        id, number = running.key
        self._observer.action_attempt_ended(id, number, running.name)

    def _rest(self) -> None:
        """Actions that end at once, one after the other in a turn of the loop, are told of together."""
        self._is_resting = False
        self.on_rest()

    def _log(self, context: ActionContext, level: str, event: str, fields: Mapping[str, Any]) -> None:
        self._observer.action_logged(context.request.id, context.name, context.attempt, level, event, fields)

    def _attempted(
        self, action: Action[Any], fallback: RetryPolicy, limit: TimeLimit | None, context: ActionContext
    ) -> Awaitable[Any]:
        if self._around_attempt is None:
            return self._attempt(action, limit, context)

        def attempt(action: Action[Any], number: int) -> Awaitable[Any]:
            its_own = ActionContext(action.name, number, action.request, self._write)
            return self._attempt(action, limit, context if number == context.attempt else its_own)

        return self._around_attempt(action, fallback, context.attempt, attempt)

    async def _attempt(self, action: Action[Any], limit: TimeLimit | None, context: ActionContext) -> Any:
        token = context.enter()
        watch = ActionStep(self.loop_watch, action.request.id, action.name) if action.runs_on_loop else None
        try:
            if limit is None:
                return await contained(self._host, self._called(action), watch)
            with limit:
                return await contained(self._host, self._called(action), watch)
        except asyncio.CancelledError:
            context.given_up.set()
            if _this_task().cancelling():
                raise
            raise RuntimeError("the action was cancelled from within") from None
        except TimeoutError as error:
            if limit is not None and error is limit.error:
                context.given_up.set()
            raise
        finally:
            context.leave(token)

    async def _called(self, action: Action[Any]) -> Any:
        value = action.invoke() if action.runs_on_loop else await self._in_thread(action)
        return await value if isawaitable(value) else value

    async def _in_thread(self, action: Action[Any]) -> Any:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="durably-action")
        waits = object()
        self._waiting[waits] = action.name
        if len(self._waiting) + len(self._in_threads) > self._threads:
            self._watch_threads(self._thread_wait_us)
        self._thread_yielding.begin()
        try:
            context = contextvars.copy_context()
            value, error = await self._host.run_in_executor(
                self._executor, lambda: context.run(self._invoked, action, waits)
            )
            if error is not None:
                raise error
            return value
        finally:
            self._waiting.pop(waits, None)
            self._thread_yielding.end()

    def _watch_threads(self, after_us: int) -> None:
        """See after a while whether something still waits for a thread, and say so: it may do that for ever."""
        if self._thread_watch is None:
            self._thread_watch = self._clock.call_later(after_us, self._look_at_threads, after_us)

    def _look_at_threads(self, after_us: int) -> None:
        self._thread_watch = None
        if self._waiting:
            self._observer.threads_busy([*self._waiting.values()], [*self._in_threads.values()])
            self._watch_threads(2 * after_us)

    def _invoked(self, action: Action[Any], waits: object) -> tuple[Any, BaseException | None]:
        """Call in the thread; an error is returned, because futures cannot carry every kind (StopIteration)."""
        thread = get_ident()
        self._in_threads[thread] = action.name
        self._waiting.pop(waits, None)
        try:
            return action.invoke(), None
        except StopIteration as error:
            return None, RuntimeError(f"the action raised {error!r}")
        except KeyboardInterrupt as error:  # Rule E3: no signal raises it in a thread.
            return None, ExitInTaskError(error)
        except BaseException as error:
            return None, error
        finally:
            del self._in_threads[thread]


def _nobody_listens() -> None:
    return None


def _forget_error(task: asyncio.Task[Any]) -> None:
    task.exception()


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def _after_failure(
    action: Action[Any], policy: RetryPolicy, error: BaseException, failures: int, elapsed_us: int, is_time_limit: bool
) -> ActionResult | None:
    """What the failure of an attempt means: a result, or None to try again."""
    ends = terminal_of_action(error)
    if ends is not None:
        return ActionResult(failed=True, value=encode_failure(ends), cause=error.__cause__)
    if find_mistake(error) is not None:
        return ActionResult(failed=True, value=b"", exhausted=error)
    if not (policy.gives_up_on(error) or has_exited(error)):  # Rule E3: it would exit each time.
        if not policy.exhausted(failures, elapsed_us, retry_delay(policy, failures, error)):
            return None
        if action.retry is None and policy.then == "pause":
            return ActionResult(failed=True, value=b"", exhausted=error)
    failure = given_up_error(action.name, error, failures, is_time_limit=is_time_limit)
    return ActionResult(failed=True, value=encode_failure(failure), cause=error)


def _told(delay_us: int, failures: int, error: BaseException) -> dict[str, Any]:
    """What a log says of an action that will be tried again."""
    told = failure_fields(error, is_first=failures == 1)
    return {"delay_seconds": delay_us / 1_000_000, "failed_attempts": failures, **told}


def _encoded(action: Action[Any], value: Any) -> ActionResult:
    try:
        return ActionResult(failed=False, value=action.encode(value))
    except USER_ERRORS as error:  # Rule V5: what cannot be encoded raises in the handler, named.
        let_signals_pass(error)
        return ActionResult(failed=True, value=encode_failure(TerminalError(text_of_error(error))))
