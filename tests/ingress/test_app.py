from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Scope

from durably.bearer_tokens import BearerTokens
from durably.errors import (
    DurablyError,
    InvalidArgumentError,
    OverloadedError,
    PausedInvocationError,
    RuntimeStoppedError,
    StoreUnavailableError,
    TerminalError,
    UnknownTargetError,
)
from durably.ingress import Ingress, app
from durably.ingress.app import BAD_AWAKEABLE_PATH
from durably.ingress.cross_origin import CrossOrigin
from durably.ingress.targets import BAD_EXPLICIT_PATH, BAD_PATH, NO_SCOPES
from durably.runtime.gateway.requests import Acceptance, Reply
from tests.ingress.fake import FakeRuntime

NO_HANDLER = (
    "the service 'CheckoutService' exists, but the handler 'nothing' was not found, "
    "check that the handler exists in the latest registered service version."
)


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
async def client(runtime: FakeRuntime) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(Ingress(runtime)) as client:
        yield client


def client_of(application: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://durably")


def error_of(response: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-restate-error-source"] == body["source"]
    return body


# ---------------------------------------------------------------- calls
async def test_a_call_reaches_the_handler_of_an_object(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    response = await client.post("/CartObject/Mary/addTicket", content=b'"seat2B"')
    assert (response.status_code, response.content) == (200, b"true")
    assert response.headers["x-restate-id"] == "inv_1"
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-length"] == "4"
    assert "idempotency-expires" not in response.headers
    (request,) = runtime.calls
    assert (request.service, request.key, request.handler, request.body) == (
        "CartObject",
        "Mary",
        "addTicket",
        b'"seat2B"',
    )
    assert (request.idempotency_key, request.delay_us) == (None, None)


async def test_a_call_reaches_the_handler_of_a_service(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    await client.post("/CheckoutService/handle", content=b"{}")
    assert [(call.service, call.key, call.handler) for call in runtime.calls] == [("CheckoutService", None, "handle")]


async def test_get_and_post_without_a_body_are_the_same_call(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    for method in ("GET", "POST"):
        assert (await client.request(method, "/CartObject/Mary/checkout")).status_code == 200
    assert [call.body for call in runtime.calls] == [b"", b""]


async def test_nothing_as_a_result_has_no_body_and_no_content_type(
    client: httpx.AsyncClient, runtime: FakeRuntime
) -> None:
    runtime.reply = Reply(id="inv_1", body=b"", content_type=None, failure=None, expires_at=None)
    response = await client.post("/CartObject/Mary/checkout")
    assert (response.status_code, response.content) == (200, b"")
    assert "content-type" not in response.headers
    assert response.headers["content-length"] == "0"


async def test_a_repeated_keyed_call_says_until_when_its_outcome_is_kept(
    client: httpx.AsyncClient, runtime: FakeRuntime
) -> None:
    runtime.reply = Reply(
        id="inv_1", body=b"true", content_type="application/json", failure=None, expires_at=1_000_000_500_000
    )
    response = await client.post("/CheckoutService/handle", headers={"idempotency-key": "abc"})
    assert response.headers["idempotency-expires"] == "1970-01-12T13:46:40.500000Z"
    assert runtime.calls[0].idempotency_key == "abc"
    runtime.reply = Reply(
        id="inv_1", body=b"", content_type=None, failure=TerminalError("no"), expires_at=1_000_000_500_000
    )
    failed = await client.post("/CheckoutService/handle", headers={"idempotency-key": "abc"})
    assert failed.headers["idempotency-expires"] == "1970-01-12T13:46:40.500000Z"


async def test_headers_reach_the_handler_but_those_of_the_connection(
    client: httpx.AsyncClient, runtime: FakeRuntime
) -> None:
    headers = [
        ("X-Tenant", "blue"),
        ("X-Tag", "a"),
        ("X-Tag", "b"),
        ("Idempotency-Expires", "never"),
        ("Idempotency-Key", "k"),
    ]
    await client.post("/CheckoutService/handle", headers=headers, content=b"{}")
    seen = runtime.calls[0].headers
    assert seen["x-tenant"] == "blue"
    assert seen["x-tag"] == "a\nb"
    assert not {"host", "connection", "idempotency-key", "idempotency-expires"} & set(seen)


@pytest.mark.parametrize(
    "path", ["/CheckoutService/handle", "/restate/send/CartObject/M%2Fa%C3%BC/checkout", "/CartObject/x/checkout/send"]
)
@pytest.mark.parametrize("end", ["", "/"])
async def test_a_handler_sees_the_path_by_which_it_was_asked_for_and_nobody_can_forge_it(
    client: httpx.AsyncClient, runtime: FakeRuntime, path: str, end: str
) -> None:
    await client.post(path + end, headers={"X-Restate-Ingress-Path": "/forged"})
    (request,) = [*runtime.calls, *runtime.sends]
    assert request.headers["x-restate-ingress-path"] == path


async def test_a_body_in_pieces_arrives_whole(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b'"se', b"at", b'2B"'):
            yield piece

    await client.post("/CartObject/Mary/addTicket", content=pieces())
    assert runtime.calls[0].body == b'"seat2B"'


@pytest.mark.parametrize("path", ["/CheckoutService/handle", "/CheckoutService/handle/send"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("idempotency-key", "k"), ("Idempotency-Key", "k")], 200),
        ([("idempotency-key", "k"), ("Idempotency-Key", "l")], 400),
        ([("idempotency-key", "k"), ("idempotency-key", "")], 400),
        ([("content-encoding", "identity"), ("content-encoding", "Identity")], 200),
        ([("content-encoding", "gzip")], 415),
        ([("content-encoding", "identity, br")], 415),
        ([("content-encoding", "identity"), ("content-encoding", "x-own")], 415),
    ],
)
async def test_headers_that_contradict_or_are_not_understood_are_refused_before_anything_is_asked(
    client: httpx.AsyncClient, runtime: FakeRuntime, path: str, headers: list[tuple[str, str]], status: int
) -> None:
    response = await client.post(path, headers=headers, content=b"{}")
    assert response.status_code == (202 if status == 200 and path.endswith("/send") else status)
    assert len([*runtime.calls, *runtime.sends]) == (status == 200)
    if status == 415:
        assert response.headers["accept-encoding"] == "identity"
        assert headers[-1][1].split(", ")[-1] in error_of(response)["message"]
    if status == 400:
        assert "idempotency-key" in error_of(response)["message"]


# ---------------------------------------------------------------- sends
async def test_a_send_is_accepted(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    response = await client.post("/CartObject/Mary/addTicket/send", content=b'"seat2B"')
    assert response.status_code == 202
    assert response.headers["x-restate-id"] == "inv_2"
    assert response.json() == {"invocationId": "inv_2", "status": "Accepted"}
    assert [(send.handler, send.delay_us) for send in runtime.sends] == [("addTicket", None)]
    assert runtime.calls == []


async def test_a_delayed_send_says_when_it_will_run(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    runtime.acceptance = Acceptance(id="inv_2", previously_accepted=True, due=1_000_000)
    response = await client.post("/CheckoutService/handle/send?delay=1h+5m")
    assert response.json() == {
        "invocationId": "inv_2",
        "status": "PreviouslyAccepted",
        "executionTime": "1970-01-01T00:00:01Z",
    }
    assert runtime.sends[0].delay_us == 3_900_000_000


@pytest.mark.parametrize(("path", "is_send"), [("/CheckoutService/send", False), ("/CheckoutService/send/send", True)])
async def test_a_handler_may_be_called_send(
    client: httpx.AsyncClient, runtime: FakeRuntime, path: str, is_send: bool
) -> None:
    await client.post(path)
    assert [request.handler for request in (runtime.sends if is_send else runtime.calls)] == ["send"]


async def test_an_object_may_have_the_key_send(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    await client.post("/CartObject/send/send")
    assert [(call.key, call.handler) for call in runtime.calls] == [("send", "send")]


@pytest.mark.parametrize("delay", ["0s", "0", "PT0S"])
async def test_a_delay_of_nothing_is_a_delay(delay: str, client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    """Its answer has an `executionTime`, as each answer to a delayed send."""
    await client.post(f"/CheckoutService/handle/send?delay={delay}")
    assert runtime.sends[0].delay_us == 0


async def test_a_delay_that_cannot_be_read_is_refused(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    response = await client.post("/CheckoutService/handle/send?delay=soon")
    assert response.status_code == 400
    assert error_of(response)["message"].startswith("bad delay query parameter 'soon'")
    assert runtime.sends == []


async def test_two_delays_are_refused(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    response = await client.post("/CheckoutService/handle/send?delay=1s&delay=2s")
    assert response.status_code == 400
    assert error_of(response)["message"] == "there are 2 delay query parameters, '1s' and '2s'; send one of them"
    assert runtime.sends == []


async def test_a_call_cannot_be_delayed(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    response = await client.post("/CheckoutService/handle?delay=10s")
    assert response.status_code == 400
    assert "only a send" in error_of(response)["message"]
    assert runtime.calls == []


@pytest.mark.parametrize("path", ["/CheckoutService/handle", "/CheckoutService/handle/send"])
@pytest.mark.parametrize("query", ["dealy=10s", "delay=10s&x=1", "Delay=10s", "x"])
async def test_an_unknown_query_parameter_is_refused(
    path: str, query: str, client: httpx.AsyncClient, runtime: FakeRuntime
) -> None:
    response = await client.post(f"{path}?{query}")
    assert response.status_code == 400
    name = "x" if "x" in query else query.partition("=")[0]
    says = f"unknown query parameter '{name}', this ingress knows delay and limit-key"
    assert error_of(response)["message"] == says
    assert runtime.calls == runtime.sends == []


@pytest.mark.parametrize("query", ["", "&", "limit-key="])
async def test_query_parameters_of_restate_are_allowed(
    query: str, client: httpx.AsyncClient, runtime: FakeRuntime
) -> None:
    assert (await client.post(f"/CheckoutService/handle/send?{query}")).status_code == 202
    assert (await client.post(f"/CheckoutService/handle?{query}")).status_code == 200


@pytest.mark.parametrize("path", ["/CheckoutService/handle", "/restate/send/CartObject/a/checkout"])
@pytest.mark.parametrize(("query", "headers"), [("?limit-key=mary", {}), ("", {"X-Restate-Limit-Key": "mary"})])
async def test_a_limit_that_would_not_hold_is_refused(
    path: str, query: str, headers: dict[str, str], client: httpx.AsyncClient, runtime: FakeRuntime
) -> None:
    refused = await client.post(path + query, headers=headers)
    assert (refused.status_code, runtime.calls, runtime.sends) == (400, [], [])
    assert error_of(refused)["message"].startswith("limit-key requires a scope to be set")


async def test_a_handler_hears_of_the_query_as_it_came(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    await client.post("/CheckoutService/handle/send?delay=PT1%53")
    assert runtime.sends[0].headers["x-restate-ingress-path"] == "/CheckoutService/handle/send?delay=PT1%53"


# ---------------------------------------------------------------- paths
@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/", 400, BAD_PATH),
        ("/CartObject", 400, BAD_PATH),
        ("/CartObject/Mary", 400, BAD_PATH),
        ("/CartObject//checkout", 400, BAD_PATH),
        ("/CartObject/Mary/checkout/now", 400, BAD_PATH),
        ("/CartObject/Mary/checkout/send/now", 400, BAD_PATH),
        ("/CheckoutService/handle/now", 400, BAD_PATH),
        ("/Nobody/handle", 404, "service 'Nobody' not found, make sure to register the service before calling it."),
        ("/CheckoutService/nothing", 404, NO_HANDLER),
        ("/Hidden/run", 400, "the invoked service is not public"),
        ("/CartObject/Mary/_sweep", 400, "the invoked service is not public"),
        ("/restate", 400, BAD_EXPLICIT_PATH),
        ("/restate/call", 400, BAD_PATH),
        ("/restate/scope", 400, BAD_EXPLICIT_PATH),
        ("/restate/scope/s/call", 400, BAD_EXPLICIT_PATH),
        ("/restate/scope/s/attach/CheckoutService/handle", 400, BAD_EXPLICIT_PATH),
        ("/restate/scope/s/call/CheckoutService/handle", 400, NO_SCOPES),
        ("/restate/scope/s/send/CartObject/Mary/checkout", 400, NO_SCOPES),
        ("/restate/scope/s/call/Hidden/run", 400, "the invoked service is not public"),
        ("/restate/scope/s/call/CheckoutService/nothing", 404, NO_HANDLER),
        ("/restate/awakeables", 400, BAD_AWAKEABLE_PATH),
        ("/restate/a/sign_1x", 400, BAD_AWAKEABLE_PATH),
        ("/restate/a/sign_1x/nothing", 404, "not found"),
        ("/restate/nothing/CheckoutService/handle", 404, "not found"),
        ("/CartObject/%ff/checkout", 400, "bad path, a segment is not UTF-8 once it is URL-decoded: %ff"),
    ],
)  # fmt: skip
async def test_a_path_that_leads_nowhere_is_refused_with_the_reason(
    client: httpx.AsyncClient, runtime: FakeRuntime, path: str, status: int, message: str
) -> None:
    response = await client.post(path)
    assert response.status_code == status
    assert error_of(response) == {"code": status, "message": message, "source": "ingress"}
    assert runtime.calls == []


async def test_trailing_slashes_do_not_matter(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    await client.post("/CartObject/Mary/checkout//")
    assert (await client.get("/restate/health/")).status_code == 200
    assert len(runtime.calls) == 1


@given(key=st.text(min_size=1).filter(lambda key: key not in (".", "..")))
def test_any_key_arrives_as_it_was_meant(key: str) -> None:
    async def call() -> None:
        runtime = FakeRuntime()
        async with client_of(Ingress(runtime)) as client:
            await client.post(f"/CartObject/{quote(key, safe='')}/checkout")
        assert [call.key for call in runtime.calls] == [key]

    asyncio.run(call())


async def test_a_handler_name_may_be_encoded(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    await client.post("/CheckoutService/größe")
    assert runtime.calls[0].handler == "größe"


# ---------------------------------------------------------------- failures and refusals
async def test_a_failure_of_the_handler_is_told_as_the_invocations(
    client: httpx.AsyncClient, runtime: FakeRuntime
) -> None:
    failure = TerminalError("sold out", code=409, metadata={"seat": "2B"})
    runtime.reply = Reply(id="inv_1", body=b"", content_type=None, failure=failure, expires_at=None)
    response = await client.post("/CartObject/Mary/checkout")
    assert response.status_code == 409
    assert response.headers["x-restate-id"] == "inv_1"
    assert error_of(response) == {
        "code": 409,
        "message": "sold out",
        "source": "invocation",
        "metadata": {"seat": "2B"},
    }


@pytest.mark.parametrize("code", [0, 200, 304, 42, 600, 99_999])
async def test_a_code_that_is_no_failure_in_http_is_answered_with_500(
    client: httpx.AsyncClient, runtime: FakeRuntime, code: int
) -> None:
    runtime.reply = Reply(
        id="inv_1", body=b"", content_type=None, failure=TerminalError("odd", code=code), expires_at=None
    )
    response = await client.post("/CheckoutService/handle")
    assert response.status_code == 500
    assert error_of(response)["code"] == code


@pytest.mark.parametrize(
    ("error", "status", "source", "says"),
    [
        (UnknownTargetError("no such thing"), 404, "ingress", "no such thing"),
        (InvalidArgumentError("expected a string", path="$"), 400, "ingress", "expected a string"),
        (OverloadedError("too many messages wait", retry_after=1.2), 429, "ingress", "too many messages wait"),
        (StoreUnavailableError("the disk is full."), 503, "ingress", "If the request has an 'idempotency-key'"),
        (StoreUnavailableError("gone", nothing_accepted=True), 503, "ingress", "gone The request can be safely"),
        (RuntimeStoppedError("The runtime is stopping."), 503, "ingress", "was not accepted, so it can be safely"),
        (RuntimeStoppedError("Stopped.", id="inv_9"), 503, "ingress", "If the request has an 'idempotency-key'"),
        (PausedInvocationError("inv_9", "a bug."), 503, "invocation", "inv_9 is paused"),
        (DurablyError("odd"), 500, "ingress", "odd"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/CheckoutService/handle", "/CheckoutService/handle/send"])
async def test_a_refusal_of_the_runtime_has_its_status_and_says_whether_to_repeat(
    client: httpx.AsyncClient, runtime: FakeRuntime, error: DurablyError, status: int, source: str, says: str, path: str
) -> None:
    runtime.error = error
    response = await client.post(path)
    body = error_of(response)
    assert (response.status_code, body["code"], body["source"]) == (status, status, source)
    assert says in body["message"]
    assert response.headers.get("x-restate-id") == getattr(error, "id", None)
    assert response.headers.get("retry-after") == ("2" if status == 429 else None)


async def test_a_keyed_request_hears_that_its_own_key_makes_repeating_safe(
    client: httpx.AsyncClient, runtime: FakeRuntime
) -> None:
    runtime.error = StoreUnavailableError("the disk is full.")
    response = await client.post("/CheckoutService/handle", headers={"idempotency-key": "k"})
    assert (
        error_of(response)["message"]
        == "the disk is full. The request has an 'idempotency-key', so it can be safely retried."
    )


async def test_a_mistake_of_durably_is_logged_by_the_server_and_told_in_the_same_shape(runtime: FakeRuntime) -> None:
    runtime.error = ZeroDivisionError("secret")
    transport = httpx.ASGITransport(Ingress(runtime), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://durably") as client:
        response = await client.post("/CheckoutService/handle")
    assert response.status_code == 500
    assert "secret" not in error_of(response)["message"]
    async with client_of(Ingress(runtime)) as client:
        with pytest.raises(ZeroDivisionError):
            await client.post("/CheckoutService/handle")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD"])
async def test_other_methods_are_refused(client: httpx.AsyncClient, runtime: FakeRuntime, method: str) -> None:
    response = await client.request(method, "/CheckoutService/handle")
    assert (response.status_code, response.headers["allow"]) == (405, "POST, GET")
    assert runtime.calls == []


@pytest.mark.parametrize("value", [b"", b"\xff\xfe"])
async def test_an_idempotency_key_that_is_none_is_refused(
    client: httpx.AsyncClient, runtime: FakeRuntime, value: bytes
) -> None:
    response = await client.post("/CheckoutService/handle", headers=[(b"idempotency-key", value)])
    assert response.status_code == 400
    assert error_of(response)["message"].startswith("bad idempotency-key header")
    assert runtime.calls == []


async def test_a_body_over_the_limit_is_refused(runtime: FakeRuntime) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x"

    async with client_of(Ingress(runtime, body_limit_bytes=10)) as client:
        for content in (b"x" * 11, pieces()):
            response = await client.post("/CheckoutService/handle", content=content)
            assert response.status_code == 413
            assert error_of(response)["message"] == "the request body is larger than 10 bytes"
        assert (await client.post("/CheckoutService/handle", content=b"x" * 10)).status_code == 200
    assert len(runtime.calls) == 1


# ---------------------------------------------------------------- around the calls
async def test_health_lists_the_services(client: httpx.AsyncClient) -> None:
    response = await client.get("/restate/health")
    assert response.json() == {"services": ["CartObject", "CheckoutService", "Hidden"]}


async def test_health_names_services_to_those_alone_who_have_a_token_where_one_is_needed(runtime: FakeRuntime) -> None:
    guarded = BearerTokens(Ingress(runtime), ["hush"], open_paths={"/restate/health"})
    async with client_of(guarded) as client:
        for authorization, services in ((None, 0), ("Bearer loud", 0), ("Bearer hush", 3)):
            headers = {} if authorization is None else {"authorization": authorization}
            response = await client.get("/restate/health", headers=headers)
            assert (response.status_code, len(response.json()["services"])) == (200, services)


async def test_health_tells_that_requests_are_refused(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    runtime.is_serving = False
    response = await client.get("/restate/health")
    assert response.status_code == 503
    assert "accepts no requests" in error_of(response)["message"]


async def test_other_methods_on_reserved_paths_are_refused_in_the_same_shape(client: httpx.AsyncClient) -> None:
    response = await client.delete("/restate/health")
    assert (response.status_code, error_of(response)["code"]) == (405, 405)


@pytest.mark.parametrize(
    "path", ["/CartObject/Mary/checkout", "/Nobody/handle", "/restate/health", "/restate/attach/inv_1"]
)
async def test_any_page_may_use_an_ingress_with_a_port_of_its_own(runtime: FakeRuntime, path: str) -> None:
    origin = {"origin": "https://shop.example"}
    asked = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "x-tenant"}
    async with client_of(CrossOrigin(Ingress(runtime))) as client:
        preflight = await client.options(path, headers=asked)
        assert (preflight.status_code, preflight.content) == (200, b"")
        assert preflight.headers["access-control-allow-headers"] == "x-tenant"
        assert preflight.headers["access-control-allow-methods"] == "POST"
        assert runtime.calls == []
        response = await client.get(path, headers=origin)
        assert "x-restate-id" in response.headers["access-control-expose-headers"]
        for answered in (preflight, response):
            assert answered.headers["access-control-allow-origin"] == "https://shop.example"
            assert answered.headers["access-control-allow-credentials"] == "true"
            assert "origin" in answered.headers["vary"]
        for headers in ({}, origin, {"access-control-request-method": "PATCH"}):
            told = await client.options(path, headers=headers)
            assert (told.status_code, told.content) == (200, b"")
            assert told.headers.get("access-control-allow-origin") == headers.get("origin")
            assert told.headers.get("access-control-allow-methods") == headers.get("access-control-request-method")
        plain = await client.get(path)
        assert not [name for name in plain.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/CartObject/Mary/checkout", "/restate/health", "/restate/attach/inv_1"])
async def test_what_a_program_mounts_leaves_pages_of_other_sites_to_it(client: httpx.AsyncClient, path: str) -> None:
    asked = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    for answered in (await client.get(path, headers=asked), await client.options(path, headers=asked)):
        assert not [name for name in answered.headers if name.startswith("access-control")]


async def test_it_can_be_mounted_in_another_application(runtime: FakeRuntime) -> None:
    outer = FastAPI()
    outer.mount("/inner/durably", Ingress(runtime))
    async with client_of(outer) as client:
        assert (await client.post("/inner/durably/CartObject/a%2Fb/checkout")).status_code == 200
        assert (await client.get("/inner/durably/restate/health")).status_code == 200
        assert (await client.get("/inner/durably")).status_code in (400, 404, 307)
    assert [(call.service, call.key) for call in runtime.calls] == [("CartObject", "a/b")]


async def test_it_respects_the_root_path_of_its_server(runtime: FakeRuntime) -> None:
    transport = httpx.ASGITransport(Ingress(runtime), root_path="/api")
    async with httpx.AsyncClient(transport=transport, base_url="http://durably") as client:
        assert (await client.post("/api/CheckoutService/handle")).status_code == 200


async def test_lifespan_events_are_answered(runtime: FakeRuntime) -> None:
    sent: list[Message] = []
    asked = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Message:
        return next(asked)

    async def send(message: Message) -> None:
        sent.append(message)

    await Ingress(runtime)({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# ---------------------------------------------------------------- clients that leave
class Connection:
    """One request by hand, so that the client can leave when the test says so."""

    def __init__(self, runtime: FakeRuntime, *headers: tuple[bytes, bytes], application: Ingress | None = None) -> None:
        self.sent: list[Message] = []
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        scope: Scope = {"type": "http", "method": "POST", "path": "/CheckoutService/handle", "query_string": b""}
        scope["headers"] = headers
        self.task = asyncio.create_task((application or Ingress(runtime))(scope, self._incoming.get, self._send))

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    def says(self, *messages: Message) -> None:
        for message in messages:
            self._incoming.put_nowait(message)

    async def is_over(self) -> bool:
        done, _ = await asyncio.wait({self.task}, timeout=5)
        return bool(done)


BODY: Message = {"type": "http.request", "body": b"{}"}
GONE: Message = {"type": "http.disconnect"}


async def let_others_run() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ingress looks at once whether its client is still there."""
    monkeypatch.setattr(app, "PATIENCE_SECONDS", 0.0)


@pytest.mark.usefixtures("no_patience")
async def test_a_client_that_leaves_abandons_the_answer(runtime: FakeRuntime) -> None:
    runtime.gate = asyncio.Event()
    connection = Connection(runtime)
    connection.says(BODY, GONE)
    assert await connection.is_over()
    assert connection.sent == []
    assert connection.task.exception() is None
    assert connection.task.cancelling() == 0
    assert len(runtime.calls) == 1
    assert runtime.was_cancelled


async def test_a_server_that_cancels_the_request_is_obeyed(runtime: FakeRuntime) -> None:
    runtime.gate = asyncio.Event()
    connection = Connection(runtime)
    connection.says(BODY)
    await let_others_run()
    connection.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connection.task
    assert runtime.was_cancelled


async def test_a_client_that_leaves_before_its_body_is_complete_has_asked_nothing(runtime: FakeRuntime) -> None:
    connection = Connection(runtime)
    connection.says({**BODY, "more_body": True}, GONE)
    assert await connection.is_over()
    assert (connection.sent, runtime.calls) == ([], [])


async def test_a_body_that_announces_itself_as_too_large_is_not_waited_for(runtime: FakeRuntime) -> None:
    connection = Connection(runtime, (b"content-length", b"33554433"))
    assert await connection.is_over()
    assert connection.sent[0]["status"] == 413


@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize("is_slow", [True, False])
async def test_once_a_client_has_its_answer_nobody_looks_after_it_any_more(runtime: FakeRuntime, is_slow: bool) -> None:
    if is_slow:
        runtime.gate = asyncio.Event()
    connection = Connection(runtime)
    connection.says(BODY)
    if runtime.gate:
        await let_others_run()
        runtime.gate.set()
    assert await connection.is_over()
    assert [message.get("status") for message in connection.sent] == [200, None]
    await let_others_run()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_all_clients_that_wait_share_one_timer_and_none_has_a_task_before_it_ends(
    runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, timers = asyncio.get_running_loop(), list[float]()
    call_later = loop.call_later

    def counted(delay: float, *details: Any, **options: Any) -> asyncio.TimerHandle:
        timers.append(delay)
        return call_later(delay, *details, **options)

    monkeypatch.setattr(loop, "call_later", counted)
    runtime.gate, application = asyncio.Event(), Ingress(runtime)
    connections = [Connection(runtime, application=application) for _ in range(50)]
    for connection in connections:
        connection.says(BODY)
    await let_others_run()
    assert len(runtime.calls) == 50
    assert timers == [app.PATIENCE_SECONDS / 2]
    assert len(asyncio.all_tasks()) == 51
    runtime.gate.set()
    await asyncio.gather(*(connection.task for connection in connections))


def test_an_ingress_that_goes_to_another_event_loop_looks_after_clients_there(
    runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    application = Ingress(runtime)

    async def answered_at_once() -> None:
        connection = Connection(runtime, application=application)
        connection.says(BODY)
        await connection.task

    async def left() -> None:
        runtime.gate = asyncio.Event()
        connection = Connection(runtime, application=application)
        connection.says(BODY, GONE)
        assert await connection.is_over()

    asyncio.run(answered_at_once())  # Its timer is lost with its loop.
    monkeypatch.setattr(app, "PATIENCE_SECONDS", 0.0)
    asyncio.run(left())
    assert runtime.was_cancelled
