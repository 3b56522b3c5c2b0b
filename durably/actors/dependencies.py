"""What `Runtime(dependencies=...)` may hold besides values: factories, and what constructors ask for without it.

A constructor of an actor or of middleware, and a factory, get what they ask for by annotation: a value, what a factory
makes, a service by its class or contract, objects and workflows as `Keyed[Cart]`, or a `Caller`.
"""

# pyright: reportPrivateUsage=false
# A transport's methods are hidden from users, not from handles.

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Literal, NewType, TypeAlias, TypeVar, cast, overload

from durably.actors.actor import Actor
from durably.actors.caller import Caller
from durably.actors.context import Context
from durably.actors.definition.definition import ActorKind, definition_of
from durably.actors.event_values import EventClass, Published
from durably.actors.protocol.commands import CompleteAwakeable, Question
from durably.actors.protocol.operations import CallSite
from durably.actors.protocol.port import Port
from durably.actors.reference_classes import reference
from durably.actors.sent_values import Sent
from durably.actors.transport import Delay, Invocation, Outgoing
from durably.actors.values.descriptions import named
from durably.actors.values.serde import SerdeFactory
from durably.errors import DefinitionError, WrongContextError
from durably.ids import InvocationStatus

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")
A_co = TypeVar("A_co", bound=Actor, covariant=True)

DependencyScope: TypeAlias = Literal["runtime", "activation"]
SCOPES: tuple[DependencyScope, ...] = ("runtime", "activation")

ActivationKey = NewType("ActivationKey", str)
"""What a factory of scope "activation" asks for to get the key of its object, or the id of its workflow."""


@dataclass(frozen=True, slots=True)
class Factory(Generic[T_co]):
    """Makes a dependency: see `factory`."""

    make: Callable[..., Any]
    scope: DependencyScope = "runtime"

    def __repr__(self) -> str:
        return f"factory({named(self.make)}, scope={self.scope!r})"


@overload
def factory(make: Callable[..., AsyncIterator[T]], /, *, scope: DependencyScope = "runtime") -> Factory[T]: ...
@overload
def factory(make: Callable[..., Iterator[T]], /, *, scope: DependencyScope = "runtime") -> Factory[T]: ...
@overload
def factory(
    make: Callable[..., AbstractAsyncContextManager[T]], /, *, scope: DependencyScope = "runtime"
) -> Factory[T]: ...
@overload
def factory(make: Callable[..., AbstractContextManager[T]], /, *, scope: DependencyScope = "runtime") -> Factory[T]: ...
@overload
def factory(make: Callable[..., Awaitable[T]], /, *, scope: DependencyScope = "runtime") -> Factory[T]: ...
@overload
def factory(make: Callable[..., T], /, *, scope: DependencyScope = "runtime") -> Factory[T]: ...
def factory(make: Callable[..., Any], /, *, scope: DependencyScope = "runtime") -> Factory[Any]:
    """Let a function or a class make a dependency: `dependencies={Database: factory(open_database)}`.

        async def open_database(settings: Settings) -> AsyncGenerator[Database]:
            database = await connect(settings.url)
            yield database
            await database.close()

    Its parameters are found like those of a constructor. What follows the `yield` tears the dependency down; without
    one, in a plain or an `async` function, nothing does. What is made is made once, when it is first asked for: for
    the runtime, which tears it down when it stops, or with `scope="activation"` for each object while it is in memory.

    Raises:
        DefinitionError: it is no function and no class, or there is no such scope.
    """
    if not callable(make):  # pyright: ignore[reportUnnecessaryComparison]
        raise DefinitionError(f"factory() takes a function or a class that makes a dependency, not {make!r}.")
    if scope not in SCOPES:
        raise DefinitionError(f"factory(scope={scope!r}): a scope is 'runtime' or 'activation'.")
    return Factory(make, scope)


class Keyed(Generic[A_co]):
    """The objects or workflows of a class, for those who get them injected: `self.carts["mary"].add(...)`.

    A constructor asks for them as `carts: Keyed[Cart]`.
    """

    __slots__ = ("_actor", "_caller", "_kind")

    def __init__(self, caller: Caller, actor: type[A_co]) -> None:
        self._caller = caller
        self._actor = actor
        self._kind: ActorKind = definition_of(actor).kind

    def __getitem__(self, key: str) -> A_co:
        """A reference to the one with this key or id."""
        return reference(self._caller, self._actor, self._kind, key)

    def __repr__(self) -> str:
        return f"<references to {named(self._actor)}>"


class RunningHandler(Caller):
    """Calls and sends for the handler that runs, found by the loop that it runs on.

    One of it serves all handlers and middleware, and everything that they were given (rule M3).
    """

    __slots__ = ()

    def _context(self, what: object) -> Context:
        loop = asyncio._get_running_loop()
        port: Port | None = getattr(loop, "handler_port", None)
        if port is None:
            raise WrongContextError(
                f"{what} was asked for through a dependency where no handler runs. Dependencies call for the handler "
                "that uses them: not in an action of `ctx.run`, a factory or a thread. There, let the handler make the "
                "call; outside of handlers, ask the runtime."
            )
        return Context(port, cast(Any, None))

    @property
    def _serde(self) -> SerdeFactory | None:
        port: Port | None = getattr(asyncio._get_running_loop(), "handler_port", None)
        return None if port is None else port.runtime_serde

    def _issue_call(self, outgoing: Outgoing[R], site: CallSite, /) -> Coroutine[object, object, R]:
        return self._context(outgoing)._issue_call(outgoing, site)

    def _issue_send(
        self, outgoing: Outgoing[R], delay: Delay | None, site: CallSite, /
    ) -> Coroutine[object, object, Invocation[R]]:
        return self._context(f"A send to {outgoing}")._issue_send(outgoing, delay, site)

    def _issue_attach(self, outgoing: Outgoing[R], site: CallSite, /) -> Coroutine[object, object, R]:
        return self._context(f"The result of {outgoing}")._issue_attach(outgoing, site)

    def _issue_output(self, outgoing: Outgoing[R], site: CallSite, /) -> Coroutine[object, object, R]:
        return self._context(f"The output of {outgoing}")._issue_output(outgoing, site)

    def _issue_result(self, id: str, decode: Callable[[bytes], R], site: CallSite, /) -> Coroutine[object, object, R]:
        return self._context(f"The result of {id}")._issue_result(id, decode, site)

    def _issue_output_of(
        self, id: str, decode: Callable[[bytes], R], site: CallSite, /
    ) -> Coroutine[object, object, R]:
        return self._context(f"The output of {id}")._issue_output_of(id, decode, site)

    def _issue_status(self, id: str, site: CallSite, /) -> Coroutine[object, object, InvocationStatus]:
        return self._context(f"The status of {id}")._issue_status(id, site)

    def _issue_identification(self, call: object, site: CallSite, /) -> Coroutine[object, object, Invocation[Any]]:
        return self._context("The invocation of a call")._issue_identification(call, site)

    def _issue_completion(self, command: CompleteAwakeable, site: CallSite, /) -> Coroutine[object, object, None]:
        return self._context("The completion of an awakeable")._issue_completion(command, site)

    def _issue_signal(self, id: str, name: str, sent: Sent, site: CallSite, /) -> Coroutine[object, object, None]:
        return self._context(f"The signal {name!r}")._issue_signal(id, name, sent, site)

    def _issue_cancel(self, id: str, site: CallSite, /) -> Coroutine[object, object, None]:
        return self._context(f"The cancel of {id}")._issue_cancel(id, site)

    def _issue_reading(
        self, question: Question, decode: Callable[[bytes], R], site: CallSite, /
    ) -> Coroutine[object, object, R]:
        return self._context("A question to the store")._issue_reading(question, decode, site)

    def _moment_and_bits(self) -> tuple[int, int]:
        return self._context("A new object")._moment_and_bits()

    def _name_of_handler(self) -> str | None:
        return self._context("A machine")._name_of_handler()

    def _subscribed_events(self) -> Mapping[str, EventClass]:
        return self._context("A publication")._subscribed_events()

    def _issue_publish(
        self, events: Sequence[Published], idempotency_key: str | None, headers: dict[str, str], site: CallSite, /
    ) -> Coroutine[object, object, None]:
        return self._context("A publication")._issue_publish(events, idempotency_key, headers, site)


RUNNING_HANDLER = RunningHandler()
