"""`@handler` and `@shared`: how a method runs. What they leave in the class is a `Handler`.

A decorator says how, annotations say with what: nothing here is taken from an annotation.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from durably.actors.actor import Service, VirtualObject, Workflow
from durably.actors.context import Context, ObjectContext, SharedContext, SharedWorkflowContext, WorkflowContext
from durably.actors.handlers import Handler
from durably.actors.retry import RetryPolicy
from durably.actors.values.durations import Duration
from durably.actors.values.serde import Serde
from durably.errors import DefinitionError

P = ParamSpec("P")
R = TypeVar("R")
ServiceT = TypeVar("ServiceT", bound=Service)
ObjectT = TypeVar("ObjectT", bound=VirtualObject)
WorkflowT = TypeVar("WorkflowT", bound=Workflow)


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
    accepts: Serde[Any] | None = None,
    returns: Serde[Any] | None = None,
    metadata: Mapping[str, str] | None = None,
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
    - `retention: timedelta | seconds`: how long an outcome is kept for those who ask again; of the `run` of a workflow,
      how long everything of the workflow is kept after its end.
    - `accepts: Serde`, `returns: Serde`: instead of JSON.
    - `metadata: Mapping[str, str]`: for tools.

    Raises:
        DefinitionError: the method cannot be a handler; says what to write.
    """
    if fn is not None:
        return Handler[Any, Any](fn, shared=False)
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
    accepts: Serde[Any] | None = None,
    returns: Serde[Any] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> _SharedDecorator: ...
def shared(fn: Any = None, /, **options: Any) -> Any:
    """A handler that only reads: any number beside each other and beside the exclusive one, on the state as it is then.

    The options are those of `handler` without `atomic`, since it changes nothing: `name`, `private`, `retry`,
    `timeout`, `retention`, `accepts`, `returns` and `metadata`.

    Raises:
        DefinitionError: the method cannot be a handler; says what to write.
    """
    if fn is not None:
        return Handler[Any, Any](fn, shared=True)
    if "atomic" in options:
        raise DefinitionError(
            "@shared(atomic=...) has no meaning: a shared handler changes nothing that could be dropped."
        )
    return partial(Handler[Any, Any], shared=True, **options)
