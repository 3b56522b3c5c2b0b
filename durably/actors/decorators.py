"""`@handler` and `@shared`: how a method runs. What they leave in the class is a `Handler`.

A decorator says how, annotations say with what: nothing here is taken from an annotation.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from durably.actors.actor import Service, VirtualObject, Workflow
from durably.actors.context import Context, ObjectContext, SharedContext, SharedWorkflowContext, WorkflowContext
from durably.actors.cron import MissedTicks, cron_schedule
from durably.actors.handlers import Handler
from durably.actors.limits import Limit
from durably.actors.middleware import MiddlewareGiven
from durably.actors.retry import RetryPolicy
from durably.actors.values.durations import Duration
from durably.actors.values.serde import Serde
from durably.errors import DefinitionError

P = ParamSpec("P")
R = TypeVar("R")
ServiceT = TypeVar("ServiceT", bound=Service)
ObjectT = TypeVar("ObjectT", bound=VirtualObject)
WorkflowT = TypeVar("WorkflowT", bound=Workflow)


_OPTIONS = (
    "name", "atomic", "private", "retry", "timeout", "retention", "journal_retention", "limit", "accepts", "returns",
    "metadata", "middleware",
)  # fmt: skip


class _HandlerDecorator(Protocol):
    @overload
    def __call__(self, fn: Callable[Concatenate[ServiceT, Context, P], Coroutine[Any, Any, R]], /) -> Handler[P, R]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[ObjectT, ObjectContext, P], Coroutine[Any, Any, R]], /
    ) -> Handler[P, R]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[WorkflowT, WorkflowContext, P], Coroutine[Any, Any, R]], /
    ) -> Handler[P, R]: ...


class _SharedDecorator(Protocol):
    @overload
    def __call__(
        self, fn: Callable[Concatenate[ObjectT, SharedContext, P], Coroutine[Any, Any, R]], /
    ) -> Handler[P, R]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[WorkflowT, SharedWorkflowContext, P], Coroutine[Any, Any, R]], /
    ) -> Handler[P, R]: ...


@overload
def handler(fn: Callable[Concatenate[ServiceT, Context, P], Coroutine[Any, Any, R]], /) -> Handler[P, R]: ...
@overload
def handler(fn: Callable[Concatenate[ObjectT, ObjectContext, P], Coroutine[Any, Any, R]], /) -> Handler[P, R]: ...
@overload
def handler(fn: Callable[Concatenate[WorkflowT, WorkflowContext, P], Coroutine[Any, Any, R]], /) -> Handler[P, R]: ...
@overload
def handler(
    *,
    name: str | None = None,
    atomic: bool = False,
    private: bool = False,
    retry: RetryPolicy | None = None,
    timeout: Duration | None = None,
    retention: Duration | None = None,
    journal_retention: Duration | None = None,
    limit: str | Limit | None = None,
    accepts: Serde[Any] | None = None,
    returns: Serde[Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    middleware: Sequence[MiddlewareGiven] = (),
) -> _HandlerDecorator: ...
def handler(fn: Any = None, /, **options: Any) -> Any:
    """Make a method callable by message: alone on its key in a VirtualObject, any number at once in a Service, once for
    each id as the `run` of a Workflow.

    Written as `@handler` or with options, all by name: `@handler(name="addTicket", timeout=60)`.

    - `name: str`: the name on the wire; without it, the method's.
    - `atomic: bool = False`: state changes and unsent messages are dropped if it fails.
    - `private: bool = False`: requests from outside are refused.
    - `retry: RetryPolicy`: when to try again; without it, as the runtime says.
    - `timeout: timedelta | seconds`: bounds an invocation from acceptance to outcome.
    - `retention: timedelta | seconds | FOREVER`: how long an outcome is kept for those who ask again; of the `run` of a
      workflow, how long everything of the workflow is kept after its end.
    - `journal_retention: timedelta | seconds | FOREVER`: how long a journal is kept after the end, for operators and
      for a restart from a later step; also those of plain calls, of which nothing is kept otherwise. Where there is an
      idempotency key or a workflow, at most as long as the outcome. 0: it goes with the end.
    - `limit: Limit | str`: how many of its invocations run at once, or start in a second: `Limit(at_once=10,
      per="tenant")`, or the name of one of `Runtime(limits=Limits(named=...))`, which other handlers may share.
    - `accepts: Serde`, `returns: Serde`: instead of JSON.
    - `metadata: Mapping[str, str]`: for tools.
    - `middleware: Sequence[Middleware]`: what stands around it, inside that of its class: see `Middleware`.

    Raises:
        DefinitionError: the method cannot be a handler; says what to write.
    """
    if fn is not None:
        return Handler[Any, Any](fn, shared=False)
    _refuse_unknown("handler", options)
    return partial(Handler[Any, Any], shared=False, **options)


@overload
def shared(fn: Callable[Concatenate[ObjectT, SharedContext, P], Coroutine[Any, Any, R]], /) -> Handler[P, R]: ...
@overload
def shared(
    fn: Callable[Concatenate[WorkflowT, SharedWorkflowContext, P], Coroutine[Any, Any, R]], /
) -> Handler[P, R]: ...
@overload
def shared(
    *,
    name: str | None = None,
    private: bool = False,
    retry: RetryPolicy | None = None,
    timeout: Duration | None = None,
    retention: Duration | None = None,
    journal_retention: Duration | None = None,
    limit: str | Limit | None = None,
    accepts: Serde[Any] | None = None,
    returns: Serde[Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    middleware: Sequence[MiddlewareGiven] = (),
) -> _SharedDecorator: ...
def shared(fn: Any = None, /, **options: Any) -> Any:
    """A handler that only reads: any number beside each other and beside the exclusive one, on the state as it is then.

    The options are those of `handler` without `atomic`, since it changes nothing: `name`, `private`, `retry`,
    `timeout`, `retention`, `journal_retention`, `limit`, `accepts`, `returns`, `metadata` and
    `middleware`.

    Raises:
        DefinitionError: the method cannot be a handler; says what to write.
    """
    if fn is not None:
        return Handler[Any, Any](fn, shared=True)
    if "atomic" in options:
        raise DefinitionError(
            "@shared(atomic=...) has no meaning: a shared handler changes nothing that could be dropped."
        )
    _refuse_unknown("shared", options)
    return partial(Handler[Any, Any], shared=True, **options)


def _refuse_unknown(decorator: str, options: Mapping[str, Any]) -> None:
    if "shared" in options:
        raise DefinitionError(
            f"@{decorator}(shared=...) is no option. A handler that only reads is made with @shared, in the place of "
            "@handler, and takes the same options but atomic=."
        )
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise DefinitionError(f"@{decorator} has no option {unknown[0]!r}. Its options: {', '.join(_OPTIONS)}.")


class _CronDecorator(Protocol):
    def __call__(self, handler: Handler[[], R], /) -> Handler[[], R]: ...


def cron(
    expression: str, /, *, tz: str = "UTC", key: str | None = None, missed: MissedTicks = "once"
) -> _CronDecorator:
    """Let the clock call a handler without parameters: `@cron("30 2 * * *", tz="Europe/Berlin")` above `@handler`.

    Each tick is a message with the idempotency key `cron:{handler}:{tick}`, where the tick is written in UTC, as in
    `cron:nightly:2026-03-29T01:00:00Z`. It is delivered exactly once, also over crashes and when another process takes
    the store over. Ticks begin when a runtime first runs with the schedule on a store; nothing is delivered for the
    time before. The handler finds the moment of its tick, in ISO 8601, in `ctx.request.headers["cron-tick"]`.

    - `expression`: minute, hour, day of the month, month, day of the week, as in crontab; with a sixth field in front,
      seconds.
    - `tz`: the time zone that it is meant in. docs/schedules.md says what happens when clocks go forward and back.
    - `key`: which object gets the ticks. Several `@cron` with different keys may stand above one handler. A workflow
      needs none: each tick starts one, whose id is the idempotency key.
    - `missed`: what happens to ticks that passed while nothing ran. `"once"` delivers the latest of them, `"all"` the
      newest 1,000, and `"skip"` none that is more than a minute late.

    Raises:
        DefinitionError: it cannot work; says what to write.
    """
    schedule = cron_schedule(expression, tz, key, missed)

    def decorate(handler: Handler[[], R], /) -> Handler[[], R]:
        if not isinstance(handler, Handler):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError(f"@cron({expression!r}) stands above @handler, and here it is on {handler!r}.")
        if len(handler.signature.shape):
            raise DefinitionError(
                f"{handler} has @cron({expression!r}) and takes parameters. The clock has no arguments to give: let a "
                "handler without parameters call it."
            )
        handler.schedules = (*handler.schedules, schedule)
        return handler

    return decorate
