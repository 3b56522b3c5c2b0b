"""The ingress in front of real actors: what test_app.py says of its part, once more as the whole that a client sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from durably import (
    Context,
    ObjectContext,
    RetryPolicy,
    Runtime,
    Service,
    SharedContext,
    StoreUnavailableError,
    TerminalError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.testing import Harness
from tests.semantics.support import PuppetStore, turns

ONCE = RetryPolicy(max_attempts=1)


class SoldOutError(TerminalError):
    code = 409


class Counter(VirtualObject):
    count: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, by: int = 1) -> int:
        self.count += by
        return self.count

    @handler
    async def move(self, ctx: ObjectContext, up: int, down: int) -> None:
        self.count += up - down

    @shared
    async def peek(self, ctx: SharedContext) -> int:
        return self.count


class Shop(Service):
    @handler
    async def buy(self, ctx: Context) -> None:
        raise SoldOutError("no seats left", metadata={"hall": "2"})

    @handler(retry=ONCE)
    async def stumble(self, ctx: Context) -> None:
        raise RuntimeError("a bug")

    @handler
    async def tenant(self, ctx: Context) -> str | None:
        return ctx.request.headers.get("x-tenant")


def serving(runtime: Runtime) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(runtime.asgi()), base_url="http://durably")


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    """Two actors, in memory."""
    async with Runtime("memory:", [Counter, Shop]) as runtime:
        yield runtime


@pytest.fixture
async def client(runtime: Runtime) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(runtime.asgi())
    async with httpx.AsyncClient(transport=transport, base_url="http://durably") as client:
        yield client


async def test_arguments_are_nothing_a_bare_value_or_an_object_by_name(client: httpx.AsyncClient) -> None:
    assert (await client.post("/Counter/a/add", content=b"5")).json() == 5
    assert (await client.post("/Counter/a/add")).json() == 6
    moved = await client.post("/Counter/a/move", json={"up": 1, "down": 3})
    assert (moved.status_code, moved.content) == (200, b"")
    assert "content-type" not in moved.headers
    assert (await client.get("/Counter/a/peek")).json() == 4


@pytest.mark.parametrize("body", [b'"five"', b"{", b"[1, 2]", b"\xff"])
@pytest.mark.parametrize("path", ["/Counter/a/add", "/Counter/a/add/send"])
async def test_an_argument_that_does_not_fit_is_refused(client: httpx.AsyncClient, path: str, body: bytes) -> None:
    refused = await client.post(path, content=body)
    assert refused.status_code == 400
    assert refused.json()["source"] == "ingress"
    assert (await client.get("/Counter/a/peek")).json() == 0


async def test_a_handlers_own_error_arrives_with_its_code_and_metadata(client: httpx.AsyncClient) -> None:
    failed = await client.post("/Shop/buy")
    assert failed.status_code == 409
    expected = {"code": 409, "message": "no seats left", "source": "invocation", "metadata": {"hall": "2"}}
    assert failed.json() == expected
    assert failed.headers["x-restate-id"].startswith("inv_")


async def test_a_handler_sees_the_headers_of_the_request(client: httpx.AsyncClient) -> None:
    assert (await client.post("/Shop/tenant", headers={"x-tenant": "blue"})).json() == "blue"


async def test_a_repeated_keyed_call_gets_the_first_ones_outcome(client: httpx.AsyncClient) -> None:
    first, second = [
        await client.post("/Counter/a/add", content=by, headers={"idempotency-key": "k"}) for by in (b"5", b"7")
    ]
    assert (first.json(), second.json()) == (5, 5)
    assert first.headers["x-restate-id"] == second.headers["x-restate-id"]
    assert "idempotency-expires" not in first.headers
    expires = datetime.fromisoformat(second.headers["idempotency-expires"])
    assert expires > datetime.now(UTC) + timedelta(hours=23)


async def test_a_failure_that_is_kept_says_until_when(client: httpx.AsyncClient) -> None:
    first, second = [await client.post("/Shop/buy", headers={"idempotency-key": "k"}) for _ in "12"]
    attached = await client.get(f"/restate/attach/{first.headers['x-restate-id']}")
    assert "idempotency-expires" not in first.headers
    for later in (second, attached):
        assert (later.status_code, later.json()) == (409, first.json())
        expires = datetime.fromisoformat(later.headers["idempotency-expires"])
        assert expires > datetime.now(UTC) + timedelta(hours=23)


async def test_a_repeated_keyed_send_was_accepted_before(client: httpx.AsyncClient) -> None:
    first, second = [
        (await client.post("/Counter/a/add/send", content=b"5", headers={"idempotency-key": "k"})).json() for _ in "12"
    ]
    assert (first["status"], second["status"]) == ("Accepted", "PreviouslyAccepted")
    assert first["invocationId"] == second["invocationId"]


async def test_a_delayed_send_says_when_it_will_run_and_waits(client: httpx.AsyncClient) -> None:
    sent = await client.post("/Counter/a/add/send?delay=PT1H")
    due = datetime.fromisoformat(sent.json()["executionTime"])
    assert timedelta(minutes=59) < due - datetime.now(UTC) <= timedelta(hours=1)
    assert (await client.get("/Counter/a/peek")).json() == 0


@pytest.mark.parametrize("suspend_after", [60.0, 0.0])
async def test_a_repeated_delayed_send_repeats_when_it_will_run(suspend_after: float) -> None:
    headers = {"idempotency-key": "k"}
    async with Harness(Counter, suspend_after=suspend_after) as app, serving(app) as client:

        async def send(delay: str) -> dict[str, Any]:
            sending = asyncio.ensure_future(client.post(f"/Counter/a/add/send?delay={delay}", headers=headers))
            await app.settle()
            body: dict[str, Any] = (await sending).json()
            return body

        first = await send("1h")
        await app.advance(minutes=30)
        assert await send("5h") == first | {"status": "PreviouslyAccepted"}
        await app.crash()
        assert (await send("0s"))["executionTime"] == first["executionTime"]
        await app.advance(minutes=31)
        assert await app.object(Counter, "a").peek() == 1
        assert (await send("5h"))["executionTime"] == first["executionTime"]
        at_once = await client.post("/Counter/b/add/send", headers=headers)
        again = await client.post("/Counter/b/add/send?delay=1h", headers=headers)
        assert ["executionTime" in answer.json() for answer in (at_once, again)] == [False, False]


async def test_whoever_calls_a_handler_with_a_bug_hears_that_it_waits_for_a_person(client: httpx.AsyncClient) -> None:
    paused = await client.post("/Shop/stumble")
    assert (paused.status_code, paused.json()["source"]) == (503, "invocation")
    assert "a bug" in paused.json()["message"]
    assert paused.headers["x-restate-id"] in paused.json()["message"]


async def test_calls_on_one_key_come_one_after_the_other(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(client.post("/Counter/a/add") for _ in range(50)))
    assert sorted(answer.json() for answer in answers) == list(range(1, 51))


async def test_a_runtime_that_does_not_run_refuses_and_says_that_repeating_is_safe() -> None:
    transport = httpx.ASGITransport(Runtime("memory:", [Counter]).asgi())
    async with httpx.AsyncClient(transport=transport, base_url="http://durably") as client:
        refused = await client.post("/Counter/a/add")
    assert refused.status_code == 503
    assert "can be safely retried" in refused.json()["message"]


async def test_health_is_an_error_before_the_start_and_from_the_stop_on() -> None:
    runtime = Runtime("memory:", [Counter])
    async with serving(runtime) as client:
        assert (await client.get("/restate/health")).status_code == 503
        async with runtime:
            assert (await client.get("/restate/health")).json() == {"services": ["Counter"]}
        assert (await client.get("/restate/health")).status_code == 503


async def test_while_the_store_is_opened_again_requests_are_refused_and_may_be_repeated() -> None:
    store = PuppetStore()
    runtime = Runtime(store, [Counter])
    async with serving(runtime) as client:
        async with runtime:
            store.hold()
            store.failing_opens.extend(StoreUnavailableError("The disk is full.") for _ in range(100))
            unknown = asyncio.create_task(client.post("/Counter/a/add"))
            await turns()
            await store.fail_one(durable=False)
            refused = await client.post("/Counter/a/add")
            assert refused.status_code == 503
            assert refused.json()["message"] == (
                "The store failed and is being opened again: The disk is full. Nothing was accepted. The request can "
                "be safely retried."
            )
            assert (await client.get("/restate/health")).status_code == 503
        lost = await unknown
        assert lost.status_code == 503
        assert "executing the invocation twice" in lost.json()["message"]
