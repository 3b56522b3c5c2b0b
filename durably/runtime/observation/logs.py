"""`RuntimeLogger`: the machine's own log lines, and those of handlers, which are silent on replay (rule S8).

Lines go to the logger that the host gives. Without one they go through structlog's processors, where the host has
configured it, and otherwise to the standard library's logger `durably`, which says nothing below a warning. The
machine's lines are at level debug and cost nothing while that is off. A traceback comes with the first failure of an
invocation, and again only when it changes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, cast

import structlog

from durably.actors.protocol.coding import CodingMeter
from durably.actors.protocol.commands import (
    Attach,
    AwaitResume,
    AwaitSignal,
    Call,
    Cancel,
    Command,
    CompleteAwakeable,
    CompletePromise,
    FindObjects,
    GetOutput,
    GetPromise,
    GetStatus,
    IdentifyCall,
    IdentifyRun,
    MakeAwakeable,
    PeekPromise,
    Publish,
    ReadEntries,
    ReadEvents,
    ReadListRange,
    Run,
    Send,
    SendSignal,
    Sleep,
)
from durably.actors.values.durations import moment
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.errors import TerminalError
from durably.ids import Address
from durably.runtime.execution.execution import Execution
from durably.runtime.execution.failure_text import TRACEBACK, describe_failure, failure_fields
from durably.runtime.execution.step import Step
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import InvocationRun, PausedByHandError
from durably.runtime.observation.observer import Observer
from durably.runtime.observation.standard_library import LOGGER_NAME, StandardLibraryLogger, write_somewhere
from durably.storage.records import InvocationRecord

LARGE_STATE = (
    "the state of this object nears its limit (Limits(state_bytes=...)), beyond which invocations that enlarge it are "
    "paused; keep large things elsewhere, or spread them over several objects"
)
LONG_JOURNAL = (
    "its journal is long, and is replayed from the beginning whenever it comes back to memory; "
    "ctx.continue_as_new goes on with an empty one"
)
LARGE_CHANGES = (
    "a large field is written as a whole by each step that changes it, in memory and on the disk; change it once, "
    "after the loop, keep an object for each entry, or call ctx.continue_as_new from time to time"
)
SLOW_HANDLER = "slow handler code holds up the event loop; move what blocks into ctx.run"
SLOW_ACTION = (
    "an async action holds up the event loop; await what it waits for, or make it a plain function, which gets a thread"
)
BLOCKED_ACTION = (
    "an async action holds up the event loop and everything in it right now; await what it waits for, or make it a "
    "plain function, which gets a thread"
)
BLOCKED = "a handler holds up the event loop and everything in it right now; move what blocks into ctx.run"
LONG_MAILBOX = (
    "messages come for an object faster than it works them off; at its limit, requests from outside are refused. "
    "`durably why ID` tells what holds it"
)
SLOW_CODING = (
    "encoding and decoding large values holds up the event loop, not the handler's code; keep less in one field or "
    "message, for example one object for each entry"
)
SLOW_COLLECTION = (
    "Python's garbage collector held up the event loop and all requests that wait; call "
    "durably.tune_garbage_collection() once, when everything is imported"
)

_ACTIONS_SHOWN = 5
_TRACES_REMEMBERED = 256
"""Of so many invocations a traceback is not logged twice in a row."""


class BindableLogger(Protocol):
    """A logger of structlog: `structlog.get_logger()`, with what is bound to it."""

    def bind(self, **fields: Any) -> Any: ...


Logger: TypeAlias = "logging.Logger | BindableLogger"


class StructlogLogger:
    """The host's structlog, with loggers of any class."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def bind(self, **fields: Any) -> StructlogLogger:
        return StructlogLogger(self._logger.bind(**fields))

    def is_enabled_for(self, level: int) -> bool:
        bound = self._logger.bind()
        is_enabled = getattr(bound, "is_enabled_for", None) or getattr(bound, "isEnabledFor", None)
        return True if is_enabled is None else bool(is_enabled(level))

    def write(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        getattr(self._logger, level)(event, **fields)


class QuietOnFailure:
    """A logger whose processors may raise: the line is lost, that is told once, and nothing else happens."""

    _has_told = False

    def __init__(self, logger: StructlogLogger | StandardLibraryLogger) -> None:
        self._logger = logger

    def bind(self, **fields: Any) -> QuietOnFailure:
        return QuietOnFailure(self._logger.bind(**fields))

    def debug(self, event: str, **fields: Any) -> None:
        self.write("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self.write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self.write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self.write("error", event, fields)

    def write(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write a line of any level."""
        try:
            self._logger.write(level, event, fields)
        except USER_ERRORS as error:
            let_signals_pass(error)
            if not QuietOnFailure._has_told:
                QuietOnFailure._has_told = True
                logging.getLogger(LOGGER_NAME).error(
                    "a log line was lost, because logging raised %r", type(error).__name__
                )


class RuntimeLogger(Observer):
    """One per runtime. It is `detailed` where lines of level debug are wanted."""

    def __init__(self, given: Logger | None = None) -> None:
        logger = _host_logger() if given is None else _wrapped(given)
        self._logger = QuietOnFailure(logger)
        self.detailed = logger.is_enabled_for(logging.DEBUG)
        self._last_traces: dict[str, str] = {}
        """By invocation, oldest first: the last traceback in the log."""

    # ------------------------------------------------------------------ the machine's lines

    def started(self, store: str, services: int) -> None:
        self._logger.info("runtime started", store=store, services=services)

    def stopped(self) -> None:
        self._logger.info("runtime stopped")

    def waits_for_actions(self, actions: list[str], drain_us: int, interrupted: bool) -> None:
        shown = ", ".join(actions[:_ACTIONS_SHOWN]) + (", ..." if len(actions) > _ACTIONS_SHOWN else "")
        noun = "1 action" if len(actions) == 1 else f"{len(actions)} actions"
        again = "; Ctrl-C again stops now" if interrupted else ""
        self._logger.warning(f"waits for {noun} {shown}{again}", up_to_seconds=drain_us / 1_000_000)

    def stops_at_once(self) -> None:
        self._logger.warning("stops now, without waiting any longer; what has not ended goes on at the next start")

    def left_behind(self, what: list[str]) -> None:
        self._logger.warning(
            "the runtime stopped without waiting any longer for what would not end; nothing durable is lost", left=what
        )

    def tear_down_failed(self, error: BaseException) -> None:
        self._logger.error("the tear-down of a dependency failed; the others go on", error=describe_failure(error))

    def collected_slowly(self, took_us: int, waiting: int) -> None:
        self._logger.warning(SLOW_COLLECTION, took_ms=took_us // 1_000, waiting=waiting)

    def invoked(self, invocation: InvocationRun) -> None:
        self._of(invocation).debug("invoked", attempt=invocation.attempts + 1)

    def journaled(self, invocation: InvocationRun, step: Step) -> None:
        if step.commands:
            log = self._of(invocation)
            for command in step.commands:
                log.debug("command journaled", command=describe_command(command))

    def concluded(self, invocation: InvocationRun, last: Step) -> None:
        self.journaled(invocation, last)

    def suspended(self, invocation: InvocationRun) -> None:
        self._of(invocation).debug("suspended")

    def replayed(self, invocation: InvocationRun, steps: int) -> None:
        self._of(invocation).debug("resumed", replayed_steps=steps)

    def ended(self, invocation: InvocationRun) -> None:
        assert invocation.outcome is not None
        self._of(invocation).debug("failed" if invocation.outcome.failed else "completed")

    def retries(self, invocation: InvocationRun, error: BaseException, delay_us: int, due: int) -> None:
        self._of(invocation).warning(
            "an attempt failed and will be tried again",
            delay_seconds=delay_us / 1_000_000,
            next_attempt=moment(due).isoformat(),
            failed_attempts=invocation.attempts,
            **self._without_repetition(invocation, failure_fields(error, is_first=invocation.attempts == 1)),
        )

    def action_retries(self, invocation: InvocationRun, action: str, fields: dict[str, Any]) -> None:
        told = self._without_repetition(invocation, fields)
        self._of(invocation).warning("an action failed and will be tried again", action=action, **told)

    def gave_up(self, invocation: InvocationRun, error: BaseException) -> None:
        fields = self._without_repetition(invocation, failure_fields(error, is_first=True))
        self._of(invocation).error("failed for good", **fields)

    def paused(self, invocation: InvocationRun, error: BaseException) -> None:
        if isinstance(error, PausedByHandError):  # Nothing is wrong.
            self._of(invocation).info("paused by hand")
            return
        fields = self._without_repetition(invocation, failure_fields(error, is_first=True))
        self._of(invocation).error("paused", **fields)

    def slow(self, invocation: InvocationRun, took_us: int, coding: CodingMeter, place: str, stack: str) -> None:
        """A step held up the event loop; `coding` tells how much of that was durably's own encoding and decoding."""
        handler_us = took_us - coding.spent_us
        fields: dict[str, object] = {"milliseconds": took_us // 1000, **_where(place, stack)}
        if coding.largest_bytes:
            fields.update(
                handler_milliseconds=handler_us // 1000,
                coding_milliseconds=coding.spent_us // 1000,
                largest=coding.largest,
                largest_bytes=coding.largest_bytes,
            )
        self._of(invocation).warning(SLOW_HANDLER if handler_us >= coding.spent_us else SLOW_CODING, **fields)

    def state_is_large(self, invocation: InvocationRun, size_bytes: int, limit_bytes: int) -> None:
        self._of(invocation).warning(LARGE_STATE, size_bytes=size_bytes, limit_bytes=limit_bytes)

    def blocked(self, invocation: InvocationRun, for_us: int, place: str, stack: str) -> None:
        self._of(invocation).warning(BLOCKED, milliseconds=for_us // 1000, **_where(place, stack))

    def mailbox_is_long(self, activation: Activation, waiting: int, limit: int) -> None:
        service, key = activation.address
        self._logger.warning(
            LONG_MAILBOX,
            object=f"{service}/{key}",
            waiting=waiting,
            limit=limit,
            behind="" if activation.current is None else activation.current.id,
        )

    def journal_is_long(self, invocation: InvocationRun, steps: int) -> None:
        self._of(invocation).warning(LONG_JOURNAL, steps=steps)

    def changes_are_large(self, invocation: InvocationRun, field: str, field_bytes: int, changed_bytes: int) -> None:
        self._of(invocation).warning(LARGE_CHANGES, field=field, field_bytes=field_bytes, written_bytes=changed_bytes)

    def deadlocked(self, invocation: InvocationRun, command: int, cycle: tuple[str, ...]) -> None:
        self._of(invocation).warning(
            "invocations waited for each other; the newest call gets a DeadlockError", cycle=" -> ".join(cycle)
        )

    def undeliverable(self, sender: InvocationRun, command: Command, error: TerminalError) -> None:
        self._of(sender).error(
            "what a handler asked for cannot be done", command=describe_command(command), error=describe_failure(error)
        )

    def subscription_begins(self, subscription: str, start: str) -> None:
        self._logger.info("a subscription begins", subscription=subscription, start=start)

    def subscription_begins_late(self, subscription: str) -> None:
        self._logger.warning(
            "a subscription begins with the oldest event that is kept; older ones have been removed, since their "
            "retention was over",
            subscription=subscription,
        )

    def subscription_gone(self, subscription: str) -> None:
        self._logger.warning(
            "a subscription has been gone from the code for a week, so its place is dropped; if it comes back, it "
            "begins anew",
            subscription=subscription,
        )

    def subscription_unreadable(self, subscription: str, error: BaseException) -> None:
        self._logger.error(
            "the store does not tell where a subscription stood, so it begins anew; events may be missed or come twice",
            subscription=subscription,
            error=describe_failure(error),
        )

    def event_unreadable(self, subscription: str, event: str, reason: str) -> None:
        self._logger.error(
            "a subscription is paused, since the next event cannot be read; restore it, or resume the subscription "
            "once the codec has all of its keys, or pass over the event: resume_subscription(name, pass_over=True)",
            subscription=subscription,
            event_id=event,
            error=reason,
        )

    def source_begins(self, source: str, positions: Mapping[str, int]) -> None:
        self._logger.info("a source is read from here on", source=source, positions=dict(positions))

    def source_failed(self, source: str, error: BaseException, delay_us: int) -> None:
        self._logger.warning(
            "a source failed, and is opened again",
            source=source,
            error=describe_failure(error),
            seconds=delay_us / 1_000_000,
        )

    def source_paused(self, source: str, reason: str) -> None:
        self._logger.error(
            "a source is paused; mend the cause and resume it, or pass over the record: resume_source(name, "
            "pass_over=True)",
            source=source,
            error=reason,
        )

    def source_unreadable(self, source: str, error: BaseException) -> None:
        self._logger.error(
            "a source is paused, since the store does not tell where it was", source=source, error=str(error)
        )

    def schedule_begins(self, schedule: str, next_tick: str | None) -> None:
        self._logger.info("a schedule begins", schedule=schedule, next_tick=next_tick)

    def schedule_gone(self, schedule: str) -> None:
        self._logger.warning(
            "a schedule is gone from the code and ends; if it comes back, it begins anew", schedule=schedule
        )

    def schedule_unreadable(self, schedule: str, error: BaseException) -> None:
        self._logger.error(
            "the store does not tell where a schedule stood, so it begins anew; ticks may have been missed",
            schedule=schedule,
            error=describe_failure(error),
        )

    def ticks_missed(self, schedule: str, after: str | None, before: str | None) -> None:
        self._logger.warning(
            "ticks of a schedule were not delivered in time, and are not delivered any more; missed= says so",
            schedule=schedule,
            after=after,
            before=before,
        )

    def nobody_home(self, address: Address) -> None:
        self._logger.warning(
            "the store holds work of a service that this runtime does not have; it waits", service=address.service
        )

    def waiting_for_people(self, count: int, example: InvocationRecord) -> None:
        self._logger.warning(
            "paused invocations wait for a person; `durably invocations resume ID` lets one go on",
            count=count,
            example=example.id,
            object=f"{example.address.service}/{example.address.key}",
            handler=example.handler,
        )

    def incarnation_failed(self, error: BaseException) -> None:
        self._logger.error("the store failed; recovering from it", error=describe_failure(error))

    def stopped_for_good(self, error: BaseException) -> None:
        self._logger.error(
            "the store is lost to this runtime, which has stopped for good", error=describe_failure(error)
        )

    def reopen_failed(self, error: BaseException, delay_us: int) -> None:
        self._logger.error(
            "the store cannot be opened", error=describe_failure(error), retry_in_seconds=delay_us / 1_000_000
        )

    def recovered(self) -> None:
        self._logger.info("the store is back")

    def hook_failed(self, error: BaseException) -> None:
        self._logger.error("on_paused raised", error=describe_failure(error))

    def subscriber_failed(self, event: str, error: BaseException) -> None:
        self._logger.error(
            "a function that has subscribed to events raised", event_name=event, error=describe_failure(error)
        )

    def subscriber_too_slow(self, events: Sequence[str]) -> None:
        self._logger.warning(
            "a function that has subscribed to events is slower than the retention; it has missed some",
            events=[*events],
        )

    def subscriber_does_not_end(self, function: str) -> None:
        self._logger.error(
            "a function that has subscribed to events does not end when it is cancelled; the runtime stops without it",
            function=function,
        )

    def source_does_not_end(self, source: str) -> None:
        self._logger.error("a source does not end when it is cancelled; the runtime stops without it", source=source)

    def observer_failed(self, event: str, error: BaseException) -> None:
        self._logger.error("an observer raised", observed=event, error=describe_failure(error))

    def _without_repetition(self, invocation: InvocationRun, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields of a failure, without the traceback if the last one of this invocation was the same."""
        trace = fields.get(TRACEBACK)
        if trace is None:
            return fields
        if self._last_traces.pop(invocation.id, None) == trace:
            fields = {name: value for name, value in fields.items() if name != TRACEBACK}
        self._last_traces[invocation.id] = trace
        if len(self._last_traces) > _TRACES_REMEMBERED:
            del self._last_traces[next(iter(self._last_traces))]
        return fields

    def _of(self, invocation: InvocationRun) -> QuietOnFailure:
        return self._logger.bind(
            **_identity(invocation.id, invocation.address.service, invocation.address.key, invocation.handler.name)
        )

    # ------------------------------------------------------------------ the handlers' lines (Observer)

    def handler_logged(self, execution: Execution, level: str, event: str, fields: Mapping[str, Any], /) -> None:
        log = self._logger.bind(
            **_identity(execution.invocation_id, execution.handler.service, execution.key, execution.handler.name)
        )
        log.write(level, event, fields)

    def action_logged(
        self, id: str, action: str, attempt: int, level: str, event: str, fields: Mapping[str, Any], /
    ) -> None:
        self._logger.bind(invocation=id, action=action, attempt=attempt).write(level, event, fields)

    def action_slow(self, id: str, action: str, took_us: int, place: str, stack: str) -> None:
        told = {"milliseconds": took_us // 1000, **_where(place, stack)}
        self._logger.warning(SLOW_ACTION, invocation=id, action=action, **told)

    def action_blocked(self, id: str, action: str, for_us: int, place: str, stack: str) -> None:
        told = {"milliseconds": for_us // 1000, **_where(place, stack)}
        self._logger.warning(BLOCKED_ACTION, invocation=id, action=action, **told)

    def threads_busy(self, waiting: list[str], running: list[str]) -> None:
        self._logger.warning(
            "actions wait for a thread, and none has become free; if those that run wait for a handler that waits for "
            "one of them, that never ends: make them `async def`, or raise Limits(action_threads=...)",
            waiting=len(waiting),
            first=waiting[0],
            running=sorted({*running})[:_ACTIONS_SHOWN],
        )

    def warned(self, execution: Execution, message: str, /) -> None:
        self.handler_logged(execution, "warning", message, {})

    def task_failed(self, execution: Execution, task: str, error: BaseException, /) -> None:
        self.handler_logged(
            execution,
            "error",
            "Task exception was never retrieved",
            {"task": task, **failure_fields(error, is_first=True)},
        )


def _where(place: str, stack: str) -> dict[str, str]:
    return {"at": place, TRACEBACK: stack} if place else {}


def checked_logger(logger: object) -> Logger:
    """What a host has given as its logger.

    Raises:
        TypeError: it is none.
    """
    if isinstance(logger, logging.Logger) or (not isinstance(logger, type) and callable(getattr(logger, "bind", None))):
        return cast("Logger", logger)
    raise TypeError(
        "Runtime(logger=...) takes a logger of the standard library (logging.getLogger('shop')) or of structlog "
        f"(structlog.get_logger('shop')), not {logger!r}."
    )


def _host_logger() -> StructlogLogger | StandardLibraryLogger:
    """Where the host looks for what libraries say."""
    write_somewhere()
    if structlog.is_configured():
        return StructlogLogger(structlog.get_logger(LOGGER_NAME))
    return StandardLibraryLogger()


def _wrapped(logger: Logger) -> StructlogLogger | StandardLibraryLogger:
    return StandardLibraryLogger(logger) if isinstance(logger, logging.Logger) else StructlogLogger(logger)


def _identity(id: str, service: str, key: str, handler: str) -> dict[str, str]:
    if key == id:
        return {"invocation": id, "handler": f"{service}/{handler}"}
    return {"invocation": id, "object": f"{service}/{key}", "handler": handler}


def describe_command(command: Command) -> str:
    """A command as a person would say it."""
    match command:
        case Call() | Send():
            verb = "call" if isinstance(command, Call) else "send"
            key = "" if command.key is None else f"{command.key}/"
            return f"{verb} {command.service}/{key}{command.handler}"
        case Run():
            return f"run {command.name!r}"
        case Sleep():
            return "sleep"
        case Attach():
            return "attach"
        case GetStatus():
            return "look"
        case IdentifyCall():
            return "look at the id of a call"
        case IdentifyRun():
            return "look at the id of a workflow's run"
        case GetOutput():
            return "look at an outcome"
        case GetPromise():
            return f"wait for promise {command.name!r}"
        case PeekPromise():
            return f"look at promise {command.name!r}"
        case CompletePromise():
            return f"{'reject' if command.failed else 'resolve'} promise {command.name!r}"
        case MakeAwakeable():
            return "awakeable"
        case ReadEntries() | ReadListRange():
            return f"read of {command.field!r}"
        case CompleteAwakeable():
            return f"{'reject' if command.failed else 'resolve'} {command.id}"
        case AwaitSignal():
            return f"signal {command.name!r}"
        case SendSignal():
            return f"send signal {command.name!r} to {command.invocation_id}"
        case Publish():
            return f"publish {command.name!r} in {command.stream!r}"
        case FindObjects():
            return f"find objects of {command.query.table.service!r}"
        case ReadEvents():
            return f"read of events in {command.stream!r}"
        case AwaitResume():
            return f"wait for a resume: {command.reason}"
        case Cancel():
            return "cancel"
