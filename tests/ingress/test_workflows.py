"""Workflows over HTTP, and questions about invocations by all that names them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from durably import (
    Context,
    DurablePromise,
    ObjectContext,
    Service,
    SharedContext,
    SharedWorkflowContext,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    promise,
    shared,
    state,
)
from durably.testing import Harness

NOT_READY = "the invocation exists but has not completed yet"
NO_OUTPUT = (
    "cannot get output for the given invocation. You can get output only for invocations created with an idempotency "
    "key, or for workflow methods."
)


class BlockAndWait(Workflow):
    """As the conformance suites have it."""

    my_state: str | None = state(default=None, name="my-state")
    block: DurablePromise[str] = promise()

    @handler
    async def run(self, ctx: WorkflowContext, text: str) -> str:
        self.my_state = text
        output = await self.block
        if await self.block.peek() is None:
            raise TerminalError("the promise should be completed")
        return output

    @shared
    async def unblock(self, ctx: SharedWorkflowContext, output: str) -> None:
        await self.block.resolve(output)

    @shared(name="getState")
    async def get_state(self, ctx: SharedWorkflowContext) -> str | None:
        return self.my_state


class Echo(Service):
    @handler
    async def later(self, ctx: Context, text: str) -> str:
        await ctx.sleep(60)
        return text


class Cart(VirtualObject):
    @handler
    async def add(self, ctx: ObjectContext, seat: str) -> str:
        await ctx.sleep(60)
        return f"{self.key} {seat}"

    @shared
    async def look(self, ctx: SharedContext) -> str:
        return self.key


@pytest.fixture
async def app() -> AsyncIterator[Harness]:
    async with Harness(BlockAndWait, Echo, Cart) as app:
        yield app


@pytest.fixture
async def client(app: Harness) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi()), base_url="http://durably") as client:
        yield client


def body_of(response: httpx.Response) -> Any:
    return response.json()


async def test_a_workflow_is_started_once_and_unblocked(app: Harness, client: httpx.AsyncClient) -> None:
    first = await client.post("/BlockAndWait/a%2Fb/run/send", json="in")
    again = await client.post("/restate/send/BlockAndWait/a%2Fb/run", json="other")
    assert (first.status_code, body_of(first)["status"]) == (202, "Accepted")
    assert (again.status_code, body_of(again)["status"]) == (202, "PreviouslyAccepted")
    assert body_of(first)["invocationId"] == body_of(again)["invocationId"] == first.headers["x-restate-id"]
    for path in ("/BlockAndWait/a%2Fb/run", "/restate/call/BlockAndWait/a%2Fb/run"):
        refused = await client.post(path, json="third")
        assert (refused.status_code, body_of(refused)["code"], body_of(refused)["source"]) == (409, 409, "invocation")
        assert body_of(refused)["message"].startswith("the workflow method was already invoked")
        assert refused.headers["x-restate-error-source"] == "invocation"
        assert refused.headers["x-restate-id"] == first.headers["x-restate-id"]
    assert body_of(await client.get("/BlockAndWait/a%2Fb/getState")) == "in"
    attached = asyncio.create_task(client.get("/restate/workflow/BlockAndWait/a%2Fb/attach"))
    await app.settle()
    assert (await client.post("/BlockAndWait/a%2Fb/unblock", json="out")).status_code == 200
    second = await client.post("/BlockAndWait/a%2Fb/unblock", json="out")
    assert (second.status_code, body_of(second)["message"][:29]) == (409, "promise was already completed")
    outcome = await attached
    assert (outcome.status_code, body_of(outcome), outcome.headers["content-type"]) == (200, "out", "application/json")
    assert outcome.headers["x-restate-id"] == first.headers["x-restate-id"]
    assert outcome.headers["idempotency-expires"] == "2026-01-02T00:00:00Z"


async def test_a_call_of_run_waits_and_who_comes_later_is_told_how_long_its_result_is_kept(
    app: Harness, client: httpx.AsyncClient
) -> None:
    await client.post("/BlockAndWait/a/unblock", json="out")
    answered = await client.post("/BlockAndWait/a/run", json="in")
    assert (answered.status_code, body_of(answered)) == (200, "out")
    assert "idempotency-expires" not in answered.headers
    for verb in ("attach", "output"):
        later = await client.get(f"/restate/workflow/BlockAndWait/a/{verb}")
        assert later.headers["idempotency-expires"] == "2026-01-02T00:00:00Z"


async def test_an_idempotency_key_is_refused_on_run_only(client: httpx.AsyncClient) -> None:
    key = {"idempotency-key": "k"}
    for path in ("/BlockAndWait/a/run", "/BlockAndWait/a/run/send"):
        refused = await client.post(path, json="in", headers=key)
        assert (refused.status_code, body_of(refused)["source"]) == (400, "ingress")
        assert "idempotency key" in body_of(refused)["message"]
    assert (await client.get("/BlockAndWait/a/getState", headers=key)).status_code == 200


async def test_attach_output_and_lookup_by_id_key_and_workflow(app: Harness, client: httpx.AsyncClient) -> None:
    key = {"idempotency-key": "a/b"}
    await client.post("/BlockAndWait/a/unblock", json="out")
    ids = {
        "workflow": (await client.post("/BlockAndWait/a/run/send", json="in")).headers["x-restate-id"],
        "object": (await client.post("/Cart/m%2Fy/add/send", json="A", headers=key)).headers["x-restate-id"],
        "service": (await client.post("/Echo/later/send", json="hi", headers=key)).headers["x-restate-id"],
    }
    keyed = {
        "target": "idempotentInvocation",
        "handler": "add",
        "service": "Cart",
        "key": "m/y",
        "idempotencyKey": "a/b",
    }
    targets: dict[str, dict[str, str]] = {
        "workflow": {"target": "workflow", "workflowName": "BlockAndWait", "workflowKey": "a"},
        "object": keyed,
        "service": {
            "target": "idempotentInvocation", "handler": "later", "service": "Echo", "idempotencyKey": "a/b",
        },
    }  # fmt: skip
    older = {
        "workflow": "/restate/workflow/BlockAndWait/a",
        "object": "/restate/invocation/Cart/m%2Fy/add/a%2Fb",
        "service": "/restate/invocation/Echo/later/a%2Fb",
    }
    results = {"workflow": "out", "object": "m/y A", "service": "hi"}
    for kind in ("object", "service"):
        for early in (
            await client.get(f"/restate/output/{ids[kind]}"),
            await client.post("/restate/output", json=targets[kind]),
            await client.get(f"{older[kind]}/output"),
            await client.get(f"/restate/invocation/{ids[kind]}/output"),
        ):
            assert (early.status_code, early.headers["x-restate-error-source"]) == (470, "ingress")
            assert body_of(early)["message"].startswith(NOT_READY)
    waiting = asyncio.create_task(client.post("/restate/attach", json=keyed))
    await app.advance(60)
    assert body_of(await waiting) == "m/y A"
    for kind, id in ids.items():
        by_id = {"target": "invocation", "invocationId": id}
        for target in (by_id, targets[kind]):
            looked_up = await client.post("/restate/lookup", json=target)
            assert (looked_up.status_code, body_of(looked_up)) == (200, {"invocationId": id})
        for verb in ("attach", "output"):
            for answered in (
                await client.get(f"/restate/{verb}/{id}"),
                await client.get(f"/restate/invocation/{id}/{verb}"),
                await client.get(f"{older[kind]}/{verb}"),
                await client.post(f"/restate/{verb}", json=by_id),
                await client.post(f"/restate/{verb}", json=targets[kind]),
            ):
                assert (answered.status_code, body_of(answered)) == (200, results[kind])
                assert answered.headers["x-restate-id"] == id


async def test_output_is_for_workflows_and_keyed_requests_only(app: Harness, client: httpx.AsyncClient) -> None:
    id = (await client.post("/Echo/later/send", json="hi")).headers["x-restate-id"]
    for _ in range(2):
        refused = await client.get(f"/restate/output/{id}")
        assert (refused.status_code, body_of(refused)["message"]) == (400, NO_OUTPUT)
        await app.advance(60)
    assert body_of(await client.get(f"/restate/attach/{id}")) == "hi"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "/restate/attach/inv_none", "", 404, "invocation not found"),
        ("GET", "/restate/output/inv_none", "", 404, "invocation not found"),
        ("GET", "/restate/workflow/BlockAndWait/none/output", "", 404, "invocation not found"),
        ("POST", "/restate/lookup", '{"target":"workflow","workflowName":"No","workflowKey":"a"}', 404, "not found"),
        ("GET", "/restate/attach/nonsense", "", 400, "bad invocation id 'nonsense'"),
        ("GET", "/restate/attach/inv_%ff", "", 400, "not UTF-8"),
        ("GET", "/restate/attach/inv_%00", "", 404, "invocation not found"),
        ("POST", "/restate/attach", "{", 400, "bad target in the body"),
        ("POST", "/restate/output", '{"target":"invocation"}', 400, "invocationId"),
        ("POST", "/restate/output", '{"target":"nothing"}', 400, "bad target in the body"),
        (
            "POST", "/restate/lookup",
            '{"target":"idempotentInvocation","service":"Echo","handler":"later","idempotencyKey":""}',
            400, "empty",
        ),
        (
            "POST", "/restate/lookup",
            '{"target":"workflow","workflowName":"BlockAndWait","workflowKey":"a","scope":"s"}', 404, "no scopes here",
        ),
        (
            "POST", "/restate/output",
            '{"target":"idempotentInvocation","service":"Echo","handler":"later","idempotencyKey":"k","scope":"s"}',
            404, "no scopes here",
        ),
        ("POST", "/restate/attach/inv_none", "", 405, "use GET"),
        ("GET", "/restate/lookup", "", 405, "use POST"),
        ("PUT", "/restate/attach", "", 405, "method not allowed"),
        ("GET", "/restate/lookup/inv_none", "", 400, "bad path"),
        ("GET", "/restate/invocation/inv_none", "", 400, "bad path"),
        ("GET", "/restate/attach/a/b", "", 400, "bad path"),
        ("GET", "/restate/invocation/inv_none/nothing", "", 404, "not found"),
        ("GET", "/restate/invocation/a/b/c/d/e/attach", "", 404, "not found"),
        ("GET", "/restate/workflow/a/attach", "", 400, "bad path"),
        ("GET", "/restate/workflow/a/b/nothing", "", 404, "not found"),
        ("POST", "/restate/call/Echo/later/send", '"a"', 400, "bad path"),
        ("POST", "/restate/call/Nobody/later", '"a"', 404, "service 'Nobody' not found"),
        ("POST", "/restate/call", '"a"', 400, "bad path"),
    ],
)  # fmt: skip
async def test_a_question_that_cannot_be_answered_is_told_why(
    client: httpx.AsyncClient, method: str, path: str, body: str, status: int, words: str
) -> None:
    response = await client.request(method, path, content=body)
    assert response.status_code == status
    assert words in body_of(response)["message"]
    assert body_of(response)["code"] == status
    assert response.headers["x-restate-error-source"] == "ingress"


async def test_a_client_that_leaves_gives_up_the_answer_and_nothing_else(
    app: Harness, client: httpx.AsyncClient
) -> None:
    id = (await client.post("/BlockAndWait/a/run/send", json="in")).headers["x-restate-id"]
    attached = asyncio.create_task(client.get(f"/restate/attach/{id}"))
    await app.settle()
    attached.cancel()
    await asyncio.gather(attached, return_exceptions=True)
    await client.post("/BlockAndWait/a/unblock", json="out")
    assert body_of(await client.get(f"/restate/attach/{id}")) == "out"
