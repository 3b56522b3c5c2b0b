"""`Admin`: an ASGI application through which operators act on invocations: cancel, kill, pause, resume, purge, restart.

It answers when what it did is durable. It has no credentials: serve it on the loopback interface, or mount it behind
some. It sends no CORS headers and takes JSON bodies as `application/json` only, so no page of another site can use it
through an operator's browser.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from durably.actors.transport import Invocation
from durably.errors import DurablyError, TerminalError
from durably.runtime.gateway.control import Verb
from durably.runtime.gateway.describe import installed_version
from durably.runtime.gateway.requests import Effect

MIN_ADMIN_API_VERSION: Final = 1
MAX_ADMIN_API_VERSION: Final = 4
BATCH_LIMIT: Final = 1_000
"""Invocations of one batch operation."""

OK, ACCEPTED, BAD_REQUEST, UNAVAILABLE = 200, 202, 400, 503

_STATUS: Final[Mapping[tuple[Verb, Effect], int]] = {
    (Verb.CANCEL, Effect.APPENDED): ACCEPTED,
    (Verb.PAUSE, Effect.APPENDED): ACCEPTED,
}
"""What a verb answers if it is not 200."""
_VERBS: Final[Mapping[str, Verb]] = {str(verb): verb for verb in Verb}
RESTART: Final = "restart-as-new"
_OLD_MODES: Final = ("cancel", "kill", "purge")


class AdministeredRuntime(Protocol):
    """The part of a `Runtime` that operators speak to."""

    @property
    def accepts_requests(self) -> bool: ...
    def invocation(self, id: str, /) -> Invocation[Any]: ...
    def request_control(self, verb: Verb, id: str, /) -> Awaitable[Effect]: ...
    def request_restart(self, id: str, from_step: int, /) -> Awaitable[Effect]: ...
    def restart_as_new(self, id: str, /) -> Awaitable[Invocation[Any]]: ...
    def cancel(self, what: str, /) -> Awaitable[Sequence[str]]: ...
    def kill(self, what: str, /) -> Awaitable[Sequence[str]]: ...
    def pause(self, what: str, /) -> Awaitable[Sequence[str]]: ...
    def resume(self, what: str, /) -> Awaitable[Sequence[str]]: ...
    def restart(self, what: str, /) -> Awaitable[Sequence[str]]: ...
    def purge(self, what: str, /) -> Awaitable[Sequence[str]]: ...


class BatchRequest(msgspec.Struct):
    """The body of a batch operation: ids, or (an addition to Restate's) a target such as `Cart/mary`."""

    invocation_ids: list[str] = []
    target: str | None = None
    deployment: str | None = None


class Admin:
    """The invocations of one runtime, for operators."""

    def __init__(self, runtime: AdministeredRuntime, *, ingress_endpoint: str | None = None) -> None:
        self._runtime = runtime
        self._ingress_endpoint = ingress_endpoint
        self._app = Starlette(
            routes=[
                Route("/health", self._health, methods=["GET"]),
                Route("/version", self._version, methods=["GET"]),
                Route("/invocations/{id}/{verb}", self._act, methods=["PATCH"]),
                Route("/invocations/{id}", self._delete, methods=["DELETE"]),
                Route("/invocations/{id}", self._look, methods=["GET"]),
                Route("/internal/invocations_batch_operations/{verb}", self._batch, methods=["POST"]),
            ],
            exception_handlers={HTTPException: _refuse, DurablyError: _fail},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope (ASGI 3)."""
        await self._app(scope, receive, send)

    # ------------------------------------------------------------------ general

    async def _health(self, _: Request) -> Response:
        if not self._runtime.accepts_requests:
            return _error(UNAVAILABLE, "the runtime accepts no requests: it is stopping, or has lost its store")
        return Response()

    async def _version(self, _: Request) -> Response:
        return _json({
            "version": installed_version(),
            "min_admin_api_version": MIN_ADMIN_API_VERSION,
            "max_admin_api_version": MAX_ADMIN_API_VERSION,
            "ingress_endpoint": self._ingress_endpoint,
            "features": {},
        })  # fmt: skip

    # ------------------------------------------------------------------ one invocation

    async def _look(self, request: Request) -> Response:
        """An addition to Restate's, which has SQL for it."""
        id: str = request.path_params["id"]
        return _json({"id": id, "status": await self._runtime.invocation(id).status()})

    async def _act(self, request: Request) -> Response:
        id, name = request.path_params["id"], request.path_params["verb"]
        _check_deployment(request.query_params.get("deployment"))
        if name == RESTART:
            _check_from(request.query_params.get("from"))
            return _json({"new_invocation_id": (await self._runtime.restart_as_new(id)).id})
        verb = _verb(name)
        if verb is Verb.RESTART:
            effect = await self._runtime.request_restart(id, _step(request.query_params.get("from")))
        else:
            effect = await self._runtime.request_control(verb, id)
        return Response(status_code=_STATUS.get((verb, effect), OK))

    async def _delete(self, request: Request) -> Response:
        mode = request.query_params.get("mode", "cancel").lower()
        if mode not in _OLD_MODES:
            raise HTTPException(BAD_REQUEST, f"the mode is one of {', '.join(_OLD_MODES)}, not '{mode}'")
        await self._runtime.request_control(_VERBS[mode], request.path_params["id"])
        return Response(status_code=ACCEPTED)

    # ------------------------------------------------------------------ many

    async def _batch(self, request: Request) -> Response:
        name = request.path_params["verb"]
        asked = await _body(request)
        _check_deployment(asked.deployment)
        if asked.target is not None:
            return await self._act_on_target(name, asked.target)
        if len(asked.invocation_ids) > BATCH_LIMIT:
            raise HTTPException(BAD_REQUEST, f"at most {BATCH_LIMIT} invocations at a time")
        ids = list(dict.fromkeys(asked.invocation_ids))
        answers = await asyncio.gather(*(self._try(name, id) for id in ids))
        failed = [{"invocation_id": id, "error": error} for id, (_, error) in zip(ids, answers, strict=True) if error]
        return _json({"succeeded": [done for done, error in answers if error is None], "failed": failed})

    async def _act_on_target(self, name: str, target: str) -> Response:
        runtime = self._runtime
        on_target: Mapping[Verb, Callable[[str], Awaitable[Sequence[str]]]] = {
            Verb.CANCEL: runtime.cancel,
            Verb.KILL: runtime.kill,
            Verb.PAUSE: runtime.pause,
            Verb.RESUME: runtime.resume,
            Verb.RESTART: runtime.restart,
            Verb.PURGE: runtime.purge,
        }
        act = None if name == RESTART else on_target.get(_verb(name))
        if act is None:
            raise HTTPException(BAD_REQUEST, f"{name} takes invocation_ids, no target")
        try:
            succeeded = await act(target)
        except ValueError as error:
            raise HTTPException(BAD_REQUEST, str(error)) from error
        return _json({"succeeded": succeeded, "failed": []})

    async def _try(self, name: str, id: str) -> tuple[object, str | None]:
        """What is told of one of many: that it was done, or why not."""
        try:
            if name == RESTART:
                new_id = (await self._runtime.restart_as_new(id)).id
                return {"old_invocation_id": id, "new_invocation_id": new_id}, None
            await self._runtime.request_control(_verb(name), id)
        except DurablyError as error:
            return id, str(error)
        return id, None


# ---------------------------------------------------------------- what comes in


def _verb(name: str) -> Verb:
    if name not in _VERBS:
        raise HTTPException(404, "not found")
    return _VERBS[name]


def _check_deployment(deployment: str | None) -> None:
    """There is one deployment, the program itself: what goes on goes on with today's code."""
    if deployment not in (None, "latest", "keep"):
        raise HTTPException(BAD_REQUEST, f"there is no deployment '{deployment}'; code is replaced by a restart")


def _step(first: str | None) -> int:
    """Of what is restarted in place: an index into its steps."""
    if first is None:
        return 0
    if not (first.isascii() and first.isdigit()):
        raise HTTPException(BAD_REQUEST, f"'from' is the index of a step, not '{first}'")
    return int(first)


def _check_from(first: str | None) -> None:
    if first is None or first == "0":
        return
    raise HTTPException(
        BAD_REQUEST,
        f"cannot restart from '{first}': the journal of an invocation that has ended is not kept. Restart from 0.",
    )


async def _body(request: Request) -> BatchRequest:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send the body as application/json")
    try:
        return msgspec.json.decode(await request.body(), type=BatchRequest)
    except msgspec.DecodeError as error:
        raise HTTPException(BAD_REQUEST, f"bad body: {error}") from error


# ---------------------------------------------------------------- what goes out


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


def _error(status: int, message: str) -> Response:
    body = msgspec.json.encode({"message": message, "restate_code": None})
    return Response(body, status, media_type="application/json")


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, "not found" if error.status_code == 404 else error.detail)


async def _fail(_: Request, error: Exception) -> Response:
    assert isinstance(error, DurablyError)
    return _error(error.code if isinstance(error, TerminalError) else UNAVAILABLE, str(error))
