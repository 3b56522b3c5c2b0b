"""`Service`, `VirtualObject` and `Workflow`: what users subclass.

An instance is the `self` of one attempt: dependencies from the constructor, declared state, and the key. In a handler
nothing else can be assigned, because it would be lost with the attempt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

from durably.actors.definition.definition import DEFINITION, ActorDefinition, ActorKind, ActorOptions, define
from durably.actors.definition.early_types import check_messages
from durably.actors.definition.scope import Scope
from durably.actors.headers import ForwardHeaders, forwarding
from durably.actors.middleware import MiddlewareGiven, checked_middleware
from durably.actors.protocol.operations import frame_above
from durably.actors.retry import RetryPolicy, checked_retry
from durably.actors.state import STATE_VIEW, StateView
from durably.actors.values.descriptions import named
from durably.actors.values.durations import Duration, duration_us, optional_duration_us, optional_retention_us
from durably.actors.values.serde import SerdeFactory, checked_factory
from durably.errors import DefinitionError, UndeclaredStateError

REFERENCE_MARK = "__durably_is_reference__"
"""Stands in the classes that references are instances of: they are no definitions."""


class Actor:
    """Root of what can be called by message. The constructor takes dependencies, found by annotation; it must not do
    I/O.

    In a handler only declared state may be assigned: anything else would be lost with the attempt, and raises at once.
    """

    __durably__: ClassVar[ActorDefinition | None] = None
    __durably_kind__: ClassVar[ActorKind | None] = None

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        abstract: bool = False,
        private: bool = False,
        retry: RetryPolicy | None = None,
        metadata: Mapping[str, str] | None = None,
        retention: Duration | None = None,
        journal_retention: Duration | None = None,
        ttl: Duration | None = None,
        suspend_after: Duration | None = None,
        forward_headers: ForwardHeaders | None = None,
        serde: SerdeFactory | None = None,
        state_version: int | None = None,
        middleware: Sequence[MiddlewareGiven] = (),
    ) -> None:
        """The class keywords. `name` is the name on the wire, the class's own if left out.

        An `abstract` class with a name is a contract: callers use it, an implementation subclasses it and answers to
        its name. `private` refuses requests from outside, `retry` applies to handlers that have none of their own.
        `retention` is how long outcomes are kept, `journal_retention` how long journals are after the end (see
        `handler`), `suspend_after` how long an invocation waits before it leaves memory: timedeltas or seconds, and
        `FOREVER` for the first two. `ttl` of a VirtualObject is how long its state outlives the end of its last
        exclusive invocation; then a message in its mailbox deletes the state. `forward_headers` says which headers of
        an invocation go on with the calls that it makes: all (True), none, or those of these names; never those about
        one message or connection. `serde` makes the Serde of each type that the class takes, gives and keeps, such as
        `MsgpackSerde`; without one, values are as the runtime says, JSON if that says nothing. `state_version` is
        raised when stored state has to be changed for new code, and `@migrate` says how; it is 1 if left out.
        `middleware` stands around all handlers of the class and of classes that extend it: see `Middleware`.

        Raises:
            DefinitionError: the class cannot work; says what to write.
        """
        super().__init_subclass__()
        if REFERENCE_MARK in vars(cls) or "__durably_kind__" in vars(cls):
            return
        if cls.__durably_kind__ is None:
            raise DefinitionError(
                f"{named(cls)} subclasses Actor, which has no handlers yet. Subclass Service or "
                "VirtualObject, or Workflow."
            )
        options = ActorOptions(
            name=name,
            abstract=abstract,
            private=private,
            retry=checked_retry(retry, f"retry= of {named(cls)}"),
            metadata=dict(metadata or {}),
            retention_us=optional_retention_us(retention, f"retention= of {named(cls)}"),
            journal_retention_us=optional_retention_us(journal_retention, f"journal_retention= of {named(cls)}"),
            ttl_us=_ttl_us(ttl, cls.__durably_kind__, named(cls)),
            suspend_after_us=optional_duration_us(suspend_after, f"suspend_after= of {named(cls)}"),
            forwarding=forwarding(forward_headers, f"forward_headers= of {named(cls)}"),
            serde=checked_factory(serde, f"serde= of {named(cls)}"),
            state_version=state_version,
            middleware=checked_middleware(middleware, f"middleware= of {named(cls)}"),
        )
        definition = define(cls, cls.__durably_kind__, options, Scope(cls, _frame_of_class_statement()))
        check_messages(definition)
        setattr(cls, DEFINITION, definition)

    if not TYPE_CHECKING:
        # Hidden from type checkers, which would take every attribute for declared.
        def __setattr__(self, name: str, value: Any) -> None:
            view: StateView | None = self.__dict__.get(STATE_VIEW)
            if view is not None and name in view.fields:  # What assignments in handlers are for, so it comes first.
                view.write(name, value)
            elif view is None or _has_setter(type(self), name):
                object.__setattr__(self, name, value)
            else:
                raise UndeclaredStateError(_undeclared(type(self), name))


class Service(Actor):
    """Handlers without identity: any number at once."""

    __durably_kind__ = "service"


class VirtualObject(Actor):
    """One for each key. Exclusive handlers run one at a time, in the order of acceptance; shared ones beside them."""

    __durably_kind__ = "object"

    key: str


class Workflow(Actor):
    """One for each id. `run`, its only `@handler`, executes exactly once for the id; `@shared` handlers run before,
    during and after it, read its state, and complete its promises.

    What it leaves (the result of `run`, state, promises) is kept for `retention` after `run` has ended, which is a day
    unless the class, its `run` or the runtime says otherwise. Then the id is free.
    """

    __durably_kind__ = "workflow"

    key: str
    """The id."""


def _frame_of_class_statement() -> FrameType | None:
    """The frame in which a class is being defined: behind each `__init_subclass__` of its bases."""
    frame: FrameType | None = frame_above(1)
    while frame is not None and frame.f_code.co_name == "__init_subclass__":
        frame = frame.f_back
    return frame


def _ttl_us(ttl: Duration | None, kind: ActorKind, name: str) -> int | None:
    if ttl is None:
        return None
    if kind != "object":
        instead = "a workflow goes when its retention= is over" if kind == "workflow" else "a service keeps no state"
        raise DefinitionError(f"ttl= of {name} has no meaning: {instead}. Only a VirtualObject has a ttl.")
    span_us = duration_us(ttl, f"ttl= of {name}")
    if not span_us:
        raise DefinitionError(f"ttl= of {name} is 0, so its state would not outlive a single handler. Leave it out.")
    return span_us


def _has_setter(cls: type, name: str) -> bool:
    """A state field, or a property of the user's."""
    return hasattr(getattr(cls, name, None), "__set__")


def _undeclared(cls: type, name: str) -> str:
    if name == "key":
        return "self.key says which object or workflow this is, and cannot be assigned."
    if issubclass(cls, Service):
        return f"self.{name} was assigned in a handler of a Service, which keeps no state. Use a local variable."
    return (
        f"self.{name} was assigned in a handler and is not declared as state, so it would be lost with this attempt. "
        f"Declare it in {named(cls)}, as `{name}: ... = state(default=...)`, or use a local variable."
    )


class StateMachine(VirtualObject, abstract=True):
    """Root of machines: see `durably.models.Machine`."""
