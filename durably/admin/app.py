"""`Admin`: an ASGI application through which operators act on invocations: cancel, kill, pause, resume, purge,
restart; and on objects: delete.

It answers when what it did is durable. It has no credentials: serve it on the loopback interface, or mount it behind
some. It sends no CORS headers, takes JSON bodies as `application/json` only and refuses what comes from another site
(`durably.admin.guard`), so no page of another site can use it through an operator's browser.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict as vars_of
from functools import partial
from importlib.util import find_spec
from math import ceil
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from durably.actors.transport import Invocation
from durably.admin.bodies import BatchRequest, QueryRequest, StateEditRequest
from durably.admin.catalog import Catalog, CataloguedRuntime, friendly_duration
from durably.admin.guard import refusal
from durably.admin.openapi import admin_document
from durably.admin.query import ARROW_TYPE, JSON_TYPE, as_arrow, as_json, wants_json
from durably.bearer_tokens import is_anonymous
from durably.errors import DurablyError, OverloadedError, TerminalError, UnreadableRecordError
from durably.runtime.gateway.control import Verb
from durably.runtime.gateway.dead_letter_control import DeadLetter
from durably.runtime.gateway.delays import parse_delay
from durably.runtime.gateway.describe import installed_version
from durably.runtime.gateway.openapi import openapi_document
from durably.runtime.gateway.requests import Acceptance, Effect
from durably.runtime.gateway.schedule_control import Schedule
from durably.runtime.gateway.source_control import SourceState
from durably.runtime.gateway.subscription_control import SubscriptionState
from durably.runtime.supervision.contained_codec import contained_codec

if TYPE_CHECKING:
    from durably.inspection import WaitingInvocation
    from durably.runtime.observation.metrics import RuntimeMetrics
    from durably.runtime.queries.queries import QueryAnswer
    from durably.storage.introspection import InspectableStore
    from durably.storage.payload_coding import Codec

T = TypeVar("T")

MIN_ADMIN_API_VERSION: Final = 1
MAX_ADMIN_API_VERSION: Final = 4
BODY_LIMIT_BYTES: Final = 32 * 1024 * 1024
JOURNAL_LIMIT_BYTES: Final = 64 * 1024 * 1024
ENCODED_TYPE: Final = "application/octet-stream"
"""Of a journal that the codec of the runtime has encoded."""
BATCH_LIMIT: Final = 1_000
"""Invocations of one batch operation."""

OK, ACCEPTED, BAD_REQUEST, FORBIDDEN, NOT_FOUND, CONFLICT = 200, 202, 400, 403, 404, 409
NOT_ALLOWED, TOO_LARGE, OVERLOADED, NOT_IMPLEMENTED, UNAVAILABLE = 405, 413, 429, 501, 503

_STATUS: Final[Mapping[tuple[Verb, Effect], int]] = {
    (Verb.CANCEL, Effect.APPENDED): ACCEPTED,
    (Verb.PAUSE, Effect.APPENDED): ACCEPTED,
}
"""What a verb answers if it is not 200."""
_VERBS: Final[Mapping[str, Verb]] = {str(verb): verb for verb in Verb}
RESTART: Final = "restart-as-new"
_OLD_MODES: Final = ("cancel", "kill", "purge")
_VERSIONS: Final = tuple(f"/v{number}" for number in range(MIN_ADMIN_API_VERSION, MAX_ADMIN_API_VERSION + 1))
_MODIFIABLE: Final = frozenset({
    "public", "idempotency_retention", "workflow_completion_retention", "journal_retention", "inactivity_timeout",
    "abort_timeout",
})  # fmt: skip


class AdministeredRuntime(CataloguedRuntime, Protocol):
    """The part of a `Runtime` that operators speak to."""

    @property
    def accepts_requests(self) -> bool: ...
    @property
    def codec(self) -> Codec | None: ...
    def store_to_read(self) -> Awaitable[InspectableStore]: ...
    def refusal(self) -> str | None: ...
    def metrics(self) -> Awaitable[RuntimeMetrics]: ...
    def invocation(self, id: str, /) -> Invocation[Any]: ...
    def why(self, id: str, /) -> Awaitable[WaitingInvocation]: ...
    def request_control(self, verb: Verb, id: str, /) -> Awaitable[Effect]: ...
    def request_restart(self, id: str, from_step: int, /) -> Awaitable[Effect]: ...
    def request_deletion(self, service: str, key: str, /) -> Awaitable[Acceptance]: ...
    def request_state_edit(
        self, service: str, key: str, state: Mapping[str, bytes], /, *, version: str | None = None
    ) -> Awaitable[Acceptance]: ...
    def restart_as_new(self, id: str, /, *, from_step: int = 0) -> Awaitable[Invocation[Any]]: ...
    def cancel(self, what: str, /) -> Awaitable[Sequence[str]]: ...
    def kill(self, what: str, /) -> Awaitable[Sequence[str]]: ...
    def pause(self, what: str, /) -> Awaitable[Sequence[str]]: ...
    def resume(self, what: str, /) -> Awaitable[Sequence[str]]: ...
    def restart(self, what: str, /) -> Awaitable[Sequence[str]]: ...
    def purge(self, what: str, /) -> Awaitable[Sequence[str]]: ...
    def purge_journal(self, what: str, /) -> Awaitable[Sequence[str]]: ...
    def query(self, sql: str, /, *, endpoint: str = ..., deployment_id: str = ...) -> Awaitable[QueryAnswer]: ...
    def schedules(self) -> Awaitable[Sequence[Schedule]]: ...
    def pause_schedule(self, name: str, /) -> Awaitable[bool]: ...
    def resume_schedule(self, name: str, /) -> Awaitable[bool]: ...
    def cancel_schedule(self, name: str, /) -> Awaitable[bool]: ...
    def subscriptions(self) -> Awaitable[Sequence[SubscriptionState]]: ...
    def pause_subscription(self, name: str, /) -> Awaitable[bool]: ...
    def resume_subscription(self, name: str, /, *, pass_over: bool = False) -> Awaitable[bool]: ...
    def sources(self) -> Awaitable[Sequence[SourceState]]: ...
    def pause_source(self, name: str, /) -> Awaitable[bool]: ...
    def resume_source(self, name: str, /, *, pass_over: bool = False) -> Awaitable[bool]: ...
    def dead_letters(self, subscription: str | None = None, /) -> AsyncIterator[DeadLetter]: ...
    def retry_dead_letter(self, id: str, /) -> Awaitable[None]: ...
    def drop_dead_letter(self, id: str, /) -> Awaitable[None]: ...


class Admin:
    """The invocations of one runtime, for operators."""

    def __init__(
        self, runtime: AdministeredRuntime, *, ingress_endpoint: str | None = None, is_own_port: bool = False
    ) -> None:
        """`is_own_port`: it is mounted nowhere, so only requests to an address or to `localhost` are answered."""
        self._runtime = runtime
        self._ingress_endpoint = ingress_endpoint
        self._is_own_port = is_own_port
        self._catalog = Catalog(runtime, ingress_endpoint)
        self._app = Starlette(
            routes=[
                *self._catalog_routes(),
                Route("/health", self._health, methods=["GET"]),
                Route("/ready", self._ready, methods=["GET"]),
                Route("/metrics", self._metrics, methods=["GET"]),
                Route("/version", self._version, methods=["GET"]),
                Route("/openapi", self._openapi, methods=["GET"]),
                *(
                    Route(f"/invocations/{{id}}/{verb}", self._acting(verb), methods=["PATCH"])
                    for verb in (*_VERBS, RESTART)
                ),
                Route("/invocations/{id}", self._delete, methods=["DELETE"]),
                Route("/objects/{service}/{key:path}", self._delete_object, methods=["DELETE"]),
                Route("/schedules", self._schedules, methods=["GET"]),
                Route("/schedules/{verb}", self._turn_schedule, methods=["PATCH"]),
                Route("/invocations/{id}", self._look, methods=["GET"]),
                Route("/invocations/{id}/why", self._why, methods=["GET"]),
                Route("/invocations/{id}/journal", self._journal, methods=["GET"]),
                Route("/internal/invocations_batch_operations/{verb}", self._batch, methods=["POST"]),
            ],
            exception_handlers={HTTPException: _refuse, DurablyError: _fail},
        )
        self._app.router.redirect_slashes = False  # It would lead to the `Host` that was asked for, without a version.

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope (ASGI 3)."""
        reason = refusal(scope["headers"], is_own_port=self._is_own_port) if scope["type"] == "http" else None
        if reason is not None:
            await _error(FORBIDDEN, reason)(scope, receive, send)
            return
        await self._app(without_version(scope), receive, send)

    def _catalog_routes(self) -> list[Route]:
        return [
            Route("/services", self._services, methods=["GET"]),
            Route("/services/{service}", self._service, methods=["GET"]),
            Route("/services/{service}", self._modify_service, methods=["PATCH"]),
            Route("/services/{service}/state", self._edit_state, methods=["POST"]),
            Route("/services/{service}/openapi", self._service_openapi, methods=["GET"]),
            Route("/services/{service}/handlers", self._handlers, methods=["GET"]),
            Route("/services/{service}/handlers/{handler}", self._handler, methods=["GET"]),
            Route("/deployments", self._deployments, methods=["GET"]),
            Route("/deployments", self._register, methods=["POST"]),
            Route("/deployments/{deployment}", self._deployment, methods=["GET"]),
            Route("/deployments/{deployment}", self._update_deployment, methods=["PATCH", "PUT"]),
            Route("/deployments/{deployment}", self._remove_deployment, methods=["DELETE"]),
            Route("/query", self._query, methods=["POST"]),
            Route("/subscriptions", self._subscriptions, methods=["GET"]),
            Route("/subscriptions/{verb}", self._turn_subscription, methods=["PATCH"]),
            Route("/sources", self._sources, methods=["GET"]),
            Route("/sources/{verb}", self._turn_source, methods=["PATCH"]),
            Route("/dead-letters", self._dead_letters, methods=["GET"]),
            Route("/dead-letters/{verb}", self._act_on_letter, methods=["PATCH"]),
            Route("/kafka-clusters", self._none_of("clusters"), methods=["GET"]),
        ]

    # ------------------------------------------------------------------ general

    async def _health(self, _: Request) -> Response:
        if not self._runtime.accepts_requests:
            return _error(UNAVAILABLE, "the runtime accepts no requests: it is stopping, or has lost its store")
        return Response()

    async def _ready(self, request: Request) -> Response:
        """Whether a load balancer sends requests here: not while it would refuse them all."""
        reason = self._runtime.refusal()
        if reason is None:
            return Response()
        return _error(UNAVAILABLE, "the runtime is not ready" if is_anonymous(request.scope) else reason)

    async def _metrics(self, _: Request) -> Response:
        if find_spec("prometheus_client") is None:
            raise HTTPException(NOT_IMPLEMENTED, "metrics need the extra `metrics`: pip install 'durably[metrics]'")
        from durably.admin.prometheus import CONTENT_TYPE, as_prometheus

        return Response(as_prometheus(await self._runtime.metrics()), headers={"content-type": CONTENT_TYPE})

    async def _version(self, _: Request) -> Response:
        return _json({
            "version": installed_version(),
            "min_admin_api_version": MIN_ADMIN_API_VERSION,
            "max_admin_api_version": MAX_ADMIN_API_VERSION,
            "ingress_endpoint": self._ingress_endpoint,
            "features": {},
        })  # fmt: skip

    async def _openapi(self, request: Request) -> Response:
        server = request.scope.get("root_path", "").rstrip("/") or "/"
        return _json(admin_document(version=installed_version(), server=server))

    # ------------------------------------------------------------------ what runs here

    async def _services(self, _: Request) -> Response:
        return _json({"services": self._catalog.services()})

    async def _service(self, request: Request) -> Response:
        return _json(self._service_of(request))

    async def _handlers(self, request: Request) -> Response:
        return _json({"handlers": self._service_of(request)["handlers"]})

    async def _handler(self, request: Request) -> Response:
        service, wanted = self._service_of(request), request.path_params["handler"]
        for handler in service["handlers"]:
            if handler["name"] == wanted:
                return _json(handler)
        raise HTTPException(
            NOT_FOUND, f"The requested handler '{wanted}' on service '{service['name']}' does not exist"
        )

    async def _modify_service(self, request: Request) -> Response:
        """Nothing is changed here: a class says how it is run. What it says already may be said again."""
        service = self._service_of(request)
        asked = await json_object(request)
        for name, value in asked.items():
            if name not in _MODIFIABLE or (name == "workflow_completion_retention" and name not in service):
                raise HTTPException(BAD_REQUEST, f"a {service['ty']} has no '{name}' to be changed")
            if value is not None and _as_told(name, value) != service[name]:
                raise HTTPException(
                    CONFLICT,
                    f"'{name}' of {service['name']} is {service[name]!r}: its class says so, and a change here "
                    "would be lost at the next start. Change the class.",
                )
        return _json(service)

    async def _edit_state(self, request: Request) -> Response:
        """All of the state is replaced, behind what waits for the object already."""
        service = self._service_of(request)
        asked = await json_body(request, StateEditRequest)
        if service["ty"] != "VirtualObject":
            raise HTTPException(BAD_REQUEST, f"Cannot modify state for service type {service['ty']}")
        new_state = {name: bytes(value) for name, value in asked.new_state.items()}
        accepted = await self._runtime.request_state_edit(
            service["name"], asked.object_key, new_state, version=asked.version
        )
        return Response(status_code=ACCEPTED, headers={"x-restate-id": accepted.id})

    async def _service_openapi(self, request: Request) -> Response:
        name = self._service_of(request)["name"]
        described = zip(self._runtime.describe(), self._runtime.describe_schemas(), strict=True)
        chosen = [pair for pair in described if pair[0].name == name]
        server = self._catalog.address
        return _json(openapi_document(chosen, title=name, version=installed_version(), server=server))

    def _service_of(self, request: Request) -> dict[str, Any]:
        name = request.path_params["service"]
        service = self._catalog.service(name)
        if service is None:
            raise HTTPException(NOT_FOUND, f"The requested service '{name}' does not exist")
        return service

    async def _deployments(self, _: Request) -> Response:
        return _json({"deployments": [self._catalog.deployment()]})

    async def _deployment(self, request: Request) -> Response:
        self._check_deployment_id(request)
        return _json(self._catalog.detailed_deployment())

    async def _register(self, request: Request) -> Response:
        self._check_address(await json_object(request))
        answer = _json(self._catalog.registered())
        answer.headers["location"] = f"deployments/{self._catalog.deployment_id}"
        return answer

    async def _update_deployment(self, request: Request) -> Response:
        self._check_deployment_id(request)
        self._check_address(await json_object(request))
        return _json(self._catalog.detailed_deployment())

    async def _remove_deployment(self, request: Request) -> Response:
        self._check_deployment_id(request)
        raise HTTPException(
            NOT_IMPLEMENTED, "the one deployment is this process, so it is removed by stopping it: Ctrl-C or SIGTERM"
        )

    def _check_deployment_id(self, request: Request) -> None:
        asked = request.path_params["deployment"]
        if asked != self._catalog.deployment_id:
            raise HTTPException(NOT_FOUND, f"The requested deployment '{asked}' does not exist")

    def _check_address(self, asked: Mapping[str, Any]) -> None:
        address = asked.get("uri")
        if not self._catalog.is_here(address):
            raise HTTPException(
                BAD_REQUEST,
                f"handlers run in this process, whose address is {self._catalog.address}, and {address!r} is another "
                "one. Give the class to the Runtime of the program instead.",
            )

    async def _query(self, request: Request) -> Response:
        asked = await json_body(request, QueryRequest)
        if find_spec("sqlglot") is None:
            raise HTTPException(NOT_IMPLEMENTED, "SQL needs the extra `sql`: pip install 'durably[sql]'")
        try:
            answer = await self._runtime.query(
                asked.query, endpoint=self._catalog.address, deployment_id=self._catalog.deployment_id
            )
        except ValueError as error:
            raise HTTPException(BAD_REQUEST, str(error)) from error
        is_json = wants_json(request.headers.get("accept", ""))
        encoded = await asyncio.to_thread(as_json if is_json else as_arrow, answer)
        return Response(encoded, media_type=JSON_TYPE if is_json else ARROW_TYPE)

    def _none_of(self, name: str) -> Callable[[Request], Awaitable[Response]]:
        """What durably does not have: the list is empty, and nothing can be added to it."""

        async def answer(_: Request) -> Response:
            return _json({name: list[object]()})

        return answer

    # ------------------------------------------------------------------ one invocation

    async def _look(self, request: Request) -> Response:
        """An addition to Restate's, which has SQL for it."""
        id: str = request.path_params["id"]
        return _json({"id": id, "status": await self._runtime.invocation(id).status()})

    async def _why(self, request: Request) -> Response:
        """What it waits for, as JSON or as text for people. An addition to Restate's."""
        told = await self._runtime.why(request.path_params["id"])
        if request.headers.get("accept", "").startswith("text/plain"):
            return PlainTextResponse(str(told))
        return _json(told.data())

    async def _journal(self, request: Request) -> Response:
        """All that a replay needs, as `durably export-journals` writes it. An addition to Restate's.

        Where values are encoded, the whole is, with the same codec: who has no key cannot read it here either.
        """
        # Tools for tests, which serving alone does not need.
        from durably.testing.replaying.export import journal_with_id
        from durably.testing.replaying.journals import encode_journal

        id = request.path_params["id"]
        try:
            journal = await journal_with_id(await self._runtime.store_to_read(), id)
        except UnreadableRecordError as error:
            raise HTTPException(CONFLICT, str(error)) from error
        if journal is None:
            raise HTTPException(
                NOT_FOUND,
                f"There is no journal of {id}: no such invocation is known, or its journal is no longer kept "
                "(journal_retention)",
            )
        content = await asyncio.to_thread(encode_journal, journal)
        if len(content) > JOURNAL_LIMIT_BYTES:
            raise HTTPException(
                TOO_LARGE,
                f"the journal of {id} has {len(content):,} bytes, and at most {JOURNAL_LIMIT_BYTES:,} are sent",
            )
        codec = self._runtime.codec
        if codec is None:
            return Response(content, media_type="application/json")
        encoded = await asyncio.to_thread(contained_codec(codec).encode, content)
        return Response(encoded, media_type=ENCODED_TYPE)

    def _acting(self, name: str) -> Callable[[Request], Awaitable[Response]]:
        async def act(request: Request) -> Response:
            return await self._act(name, request)

        return act

    async def _act(self, name: str, request: Request) -> Response:
        id = request.path_params["id"]
        _check_deployment(request.query_params.get("deployment"))
        if name == RESTART:
            first = _step(request.query_params.get("from"))
            return _json({"new_invocation_id": (await self._runtime.restart_as_new(id, from_step=first)).id})
        verb = _VERBS[name]
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

    async def _delete_object(self, request: Request) -> Response:
        service, key = request.path_params["service"], request.path_params["key"]
        accepted = await self._runtime.request_deletion(service, key)
        return _json({"invocation_id": accepted.id}, ACCEPTED)

    # ------------------------------------------------------------------ schedules

    async def _schedules(self, _: Request) -> Response:
        return _json({"schedules": await self._runtime.schedules()})

    async def _turn_schedule(self, request: Request) -> Response:
        runtime, name = self._runtime, request.query_params.get("name")
        verbs = {"pause": runtime.pause_schedule, "resume": runtime.resume_schedule, "cancel": runtime.cancel_schedule}
        verb = verbs.get(request.path_params["verb"])
        if verb is None:
            raise HTTPException(404, "not found")
        if name is None:
            raise HTTPException(BAD_REQUEST, "say which schedule: ?name=Report%2Fnightly, as GET /schedules lists them")
        return _json({"changed": await verb(name)})

    # ------------------------------------------------------------------ subscriptions

    async def _subscriptions(self, _: Request) -> Response:
        """As Restate tells them, with what durably knows besides."""
        return _json({"subscriptions": [_subscription(one) for one in await self._runtime.subscriptions()]})

    async def _turn_subscription(self, request: Request) -> Response:
        runtime, name = self._runtime, request.query_params.get("name")
        verbs: Mapping[str, Callable[[str], Awaitable[bool]]] = {
            "pause": runtime.pause_subscription,
            "resume": runtime.resume_subscription,
            "pass-over": partial(runtime.resume_subscription, pass_over=True),
        }
        verb = verbs.get(request.path_params["verb"])
        if verb is None:
            raise HTTPException(404, "not found")
        if name is None:
            raise HTTPException(
                BAD_REQUEST, "say which subscription: ?name=Mailer%2Fwelcome, as GET /subscriptions lists them"
            )
        return _json({"changed": await verb(name)})

    async def _sources(self, _: Request) -> Response:
        return _json({"sources": [vars_of(one) for one in await self._runtime.sources()]})

    async def _turn_source(self, request: Request) -> Response:
        runtime, name = self._runtime, request.query_params.get("name")
        verbs: Mapping[str, Callable[[str], Awaitable[bool]]] = {
            "pause": runtime.pause_source,
            "resume": runtime.resume_source,
            "pass-over": partial(runtime.resume_source, pass_over=True),
        }
        verb = verbs.get(request.path_params["verb"])
        if verb is None:
            raise HTTPException(404, "not found")
        if name is None:
            raise HTTPException(BAD_REQUEST, "say which source: ?name=payments, as GET /sources lists them")
        return _json({"changed": await verb(name)})

    async def _dead_letters(self, request: Request) -> Response:
        letters: list[dict[str, object]] = []
        async for letter in self._runtime.dead_letters(request.query_params.get("subscription")):
            if len(letters) == BATCH_LIMIT:
                break
            letters.append({**vars_of(letter), "value": msgspec.Raw(letter.value)})
        return _json({"dead_letters": letters})

    async def _act_on_letter(self, request: Request) -> Response:
        runtime, id = self._runtime, request.query_params.get("id")
        verb = {"retry": runtime.retry_dead_letter, "drop": runtime.drop_dead_letter}.get(request.path_params["verb"])
        if verb is None:
            raise HTTPException(404, "not found")
        if id is None:
            raise HTTPException(BAD_REQUEST, "say which dead letter: ?id=..., as GET /dead-letters lists them")
        await verb(id)
        return _json({"changed": True})

    # ------------------------------------------------------------------ many

    async def _batch(self, request: Request) -> Response:
        name = request.path_params["verb"]
        if name != RESTART:
            _verb(name)
        asked = await json_body(request, BatchRequest)
        _check_deployment(asked.deployment)
        given = asked.invocation_ids
        if (given is msgspec.UNSET) == (asked.target is None):
            raise HTTPException(BAD_REQUEST, "say what is meant by either invocation_ids or target")
        if asked.target is not None:
            return await self._act_on_target(name, asked.target)
        asked_for = [] if given is msgspec.UNSET else given
        if len(asked_for) > BATCH_LIMIT:
            raise HTTPException(BAD_REQUEST, f"at most {BATCH_LIMIT} invocations at a time, not {len(asked_for)}")
        ids = list(dict.fromkeys(asked_for))
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
            Verb.PURGE_JOURNAL: runtime.purge_journal,
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


def _as_told(name: str, value: object) -> object:
    """The value of an option in the form that descriptions of services have: `60m` is `1h` there."""
    if name == "public":
        if not isinstance(value, bool):
            raise HTTPException(BAD_REQUEST, f"'public' is true or false, not {value!r}")
        return value
    if not isinstance(value, str):
        raise HTTPException(BAD_REQUEST, f"'{name}' is a text such as '1h 5m' or 'PT10S', not {value!r}")
    try:
        return friendly_duration(parse_delay(value))
    except ValueError as error:
        raise HTTPException(BAD_REQUEST, f"'{name}' cannot be {value!r}: {error}") from error


def _step(first: str | None) -> int:
    """Of what is restarted: an index into its steps."""
    if first is None:
        return 0
    if not (first.isascii() and first.isdigit()):
        raise HTTPException(BAD_REQUEST, f"'from' is the index of a step, not '{first}'")
    return int(first)


def without_version(scope: Scope) -> Scope:
    """The same request, without the version of the admin API before its path (`/v4`): one answer fits all of them."""
    if scope["type"] != "http":
        return scope
    mount: str = scope.get("root_path", "")
    path: str = scope["path"]
    below = path.removeprefix(mount)
    for version in _VERSIONS:
        if below.startswith(f"{version}/"):
            return {**scope, "path": mount + below.removeprefix(version)}
    return scope


async def json_object(request: Request) -> dict[str, Any]:
    return await json_body(request, dict[str, Any])


async def json_body(request: Request, type: type[T]) -> T:
    """The body, which is JSON and says so.

    Raises:
        HTTPException: 400, 413 or 415.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send the body as application/json")
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > BODY_LIMIT_BYTES:
            raise HTTPException(413, f"the request body is larger than {BODY_LIMIT_BYTES} bytes")
    try:
        return msgspec.json.decode(bytes(parts), type=type)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise HTTPException(BAD_REQUEST, f"bad body: {error}") from error


# ---------------------------------------------------------------- what goes out


def _subscription(one: SubscriptionState) -> dict[str, object]:
    return {
        "id": one.name, "source": f"stream://{one.stream}", "sink": f"service://{one.name}", "options": {},
        "name": one.name, "stream": one.stream, "events": one.events, "status": one.status, "behind": one.behind,
        "in_flight": one.in_flight, "reason": one.reason,
    }  # fmt: skip


def _json(content: object, status: int = OK) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def _error(status: int, message: str) -> Response:
    body = msgspec.json.encode({"message": message, "restate_code": None})
    return Response(body, status, media_type="application/json")


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == NOT_ALLOWED:
        methods = _methods_at(request)
        response = _error(NOT_ALLOWED, f"method not allowed, use {' or '.join(methods)}")
        response.headers["allow"] = ", ".join(methods)
        return response
    return _error(error.status_code, "not found" if error.detail == "Not Found" else error.detail)


def _methods_at(request: Request) -> list[str]:
    """Of all routes of this path. Starlette names those of the first one."""
    routes = [one for one in request.app.routes if isinstance(one, Route)]
    return sorted(
        {method for one in routes if one.matches(request.scope)[0] is not Match.NONE for method in one.methods or ()}
    )


async def _fail(_: Request, error: Exception) -> Response:
    assert isinstance(error, DurablyError)
    if isinstance(error, OverloadedError):
        response = _error(OVERLOADED, str(error))
        response.headers["retry-after"] = str(ceil(error.retry_after or 1))
        return response
    return _error(error.code if isinstance(error, TerminalError) else UNAVAILABLE, str(error))
