"""durably inside FastAPI: a lifespan that runs the actors, references as dependencies, and error handlers.

runtime = Runtime("sqlite:///app.db", [Cart, Ticket])
app = FastAPI(lifespan=lifespan(runtime))
add_error_handlers(app)

@app.post("/carts/{user}/tickets/{seat}")
async def add(seat: str, cart: Annotated[Cart, Depends(object_of(Cart, "user"))]) -> bool:
    return await cart.add_ticket(seat)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from inspect import Parameter, Signature
from typing import Annotated, Any, Final, TypeAlias, TypeVar

from fastapi import Depends, FastAPI, Request, Response, WebSocket
from fastapi.requests import HTTPConnection
from fastapi.websockets import WebSocketState

from durably.actors.actor import Service, VirtualObject, Workflow
from durably.actors.caller import Caller
from durably.errors import (
    DurablyError,
    OverloadedError,
    PausedInvocationError,
    RuntimeStoppedError,
    StoreInUseError,
    StoreUnavailableError,
    TerminalError,
)
from durably.ingress.answers import application_answer
from durably.runtime.runtime import Runtime

ServiceT = TypeVar("ServiceT", bound=Service)
ObjectT = TypeVar("ObjectT", bound=VirtualObject)
WorkflowT = TypeVar("WorkflowT", bound=Workflow)

Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]
OwnLifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]
"""As applications have one: with a state, or without."""

STATE: Final = "durably"
"""What the runtime is called in the state of the application and of each request."""

CLOSE_CODES: Final = 4_000
CLOSE_REASON_BYTES: Final = 123
"""What a close frame of a WebSocket has room for."""

ANSWERED: Final = (
    TerminalError, OverloadedError, PausedInvocationError, RuntimeStoppedError, StoreInUseError, StoreUnavailableError
)  # fmt: skip


def lifespan(runtime: Runtime, own: OwnLifespan | None = None) -> Lifespan:
    """Run the actors while the application runs; `own` is a lifespan of yours, which begins later and ends earlier.

    Requests find the runtime as `request.state.durably`. A test gives another runtime, such as a `Harness`.
    """

    @asynccontextmanager
    async def running(app: Any) -> AsyncGenerator[Mapping[str, Any]]:
        async with runtime:
            setattr(app.state, STATE, runtime)  # Clients without a lifespan of their own find it here.
            try:
                if own is None:
                    yield {STATE: runtime}
                else:
                    async with own(app) as state:
                        yield {**(state or {}), STATE: runtime}
            finally:
                delattr(app.state, STATE)

    return running


def caller(connection: HTTPConnection) -> Caller:
    """The runtime of the application, to call with; routes neither start nor stop it. See `Durably`.

    Raises:
        RuntimeError: the application runs none.
    """
    for state in (connection.state, connection.app.state):
        runtime = getattr(state, STATE, None)
        if isinstance(runtime, Runtime):
            return runtime
    raise RuntimeError(
        "This application runs no durably runtime. Make it with `FastAPI(lifespan=lifespan(runtime))`, or "
        "`lifespan(runtime, own)` if it has a lifespan of its own; in a test, let the client run the lifespan: "
        "`with TestClient(app) as client`."
    )


Durably: TypeAlias = Annotated[Caller, Depends(caller)]
"""The type of a parameter of a route that is given the runtime: `async def add(user: str, durably: Durably)`."""


def object_of(actor: type[ObjectT], key: str, /) -> Callable[..., ObjectT]:
    """For `Depends`: the virtual object whose key is the parameter `key` of the route, in its path or query.

    `cart: Annotated[Cart, Depends(object_of(Cart, "user"))]` in a route of `/carts/{user}`.
    """
    return _depending_on(key, lambda runtime, value: runtime.object(actor, value))


def workflow_of(actor: type[WorkflowT], id: str, /) -> Callable[..., WorkflowT]:
    """For `Depends`: the workflow whose id is the parameter `id` of the route, in its path or query."""
    return _depending_on(id, lambda runtime, value: runtime.workflow(actor, value))


def service_of(actor: type[ServiceT], /) -> Callable[[HTTPConnection], ServiceT]:
    """For `Depends`: the service."""

    def reference(connection: HTTPConnection) -> ServiceT:
        return caller(connection).service(actor)

    reference.__annotations__ = {"connection": HTTPConnection}
    return reference


def add_error_handlers(app: FastAPI) -> None:
    """Answer what a call raises in a route as the ingress does: status, JSON body, `Retry-After`.

    A `TerminalError` is answered with its code, an overload with 429, and a runtime that is stopping, has lost its
    store, or paused the invocation with 503. Every other exception is the application's own.

    A WebSocket that has been accepted is closed with the code 4000 + status and the message as the reason.
    """
    for error in ANSWERED:
        app.add_exception_handler(error, _answer)


# ---------------------------------------------------------------- inside

R = TypeVar("R")


def _depending_on(parameter: str, refer: Callable[[Caller, str], R]) -> Callable[..., R]:
    """A dependency that FastAPI gives a parameter of this name."""
    if not parameter.isidentifier():
        raise TypeError(
            f"The name of a parameter of the route is wanted, as in `/carts/{{user}}`; {parameter!r} is none."
        )

    def reference(**given: Any) -> R:
        return refer(caller(given["_connection"]), given[parameter])

    reference.__signature__ = Signature(  # type: ignore[attr-defined]  # FastAPI reads it.
        [
            Parameter("_connection", Parameter.KEYWORD_ONLY, annotation=HTTPConnection),
            Parameter(parameter, Parameter.KEYWORD_ONLY, annotation=str),
        ]
    )
    return reference


async def _answer(connection: Request | WebSocket, error: Exception) -> Any:
    """A response, or None where it is too late for one: Starlette has a type for either, and not for both."""
    assert isinstance(error, DurablyError)
    answer = application_answer(error)
    if isinstance(connection, WebSocket) and connection.application_state is not WebSocketState.CONNECTING:
        await _close(connection, answer.status, error)
        return None
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, answer.status, headers)


async def _close(socket: WebSocket, status: int, error: DurablyError) -> None:
    """There is no response any more. Codes from 4000 on are for applications."""
    if {socket.application_state, socket.client_state} == {WebSocketState.CONNECTED}:
        reason = str(error).encode(errors="replace")[:CLOSE_REASON_BYTES].decode(errors="ignore")
        await socket.close(CLOSE_CODES + status, reason)
