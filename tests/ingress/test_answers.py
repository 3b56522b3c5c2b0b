"""What errors over HTTP say to do can be done over HTTP, as it stands there."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import httpx
import pytest

from durably import (
    DurablePromise,
    Limits,
    ObjectContext,
    RetryPolicy,
    Runtime,
    SharedWorkflowContext,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    promise,
    shared,
)  # fmt: skip

Provoke: TypeAlias = "Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]"

ORDER = re.compile(r"(PATCH|POST) (/\S+?)(?: with (\{[^}]*\}))?(?: on the port for operators| lets| does)")
PYTHON = re.compile(r"\bawait |\b(?:runtime|ctx|run|self)\.\w+|\w\(")


class Gate(VirtualObject):
    @handler
    async def hold(self, ctx: ObjectContext) -> None:
        await ctx.signal("go", str)

    @handler
    async def deaf(self, ctx: ObjectContext) -> None:
        await ctx.awakeable(str)

    @handler(retry=RetryPolicy(max_attempts=1))
    async def stumble(self, ctx: ObjectContext) -> None:
        raise RuntimeError("a bug")


class Vote(Workflow):
    result: DurablePromise[str] = promise()

    @handler
    async def run(self, ctx: WorkflowContext) -> str:
        return await self.result

    @shared
    async def close(self, ctx: SharedWorkflowContext, result: str) -> None:
        await self.result.resolve(result)


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    async with Runtime("memory:", [Gate, Vote], limits=Limits(mailbox_messages=2)) as runtime:
        yield runtime


async def stumble(client: httpx.AsyncClient) -> httpx.Response:
    return await client.post("/Gate/a%2Fb/stumble")


async def crowd(client: httpx.AsyncClient) -> httpx.Response:
    return [await client.post("/Gate/a%2Fb/hold/send") for _ in range(4)][-1]


async def send_signals(client: httpx.AsyncClient) -> httpx.Response:
    id = (await client.post("/Gate/a/deaf/send")).json()["invocationId"]
    return [await client.post(f"/restate/invocations/{id}/signals/go", json=1) for _ in range(4)][-1]


@pytest.mark.parametrize(("provoke", "verb"), [(stumble, "cancel"), (crowd, "kill"), (send_signals, "cancel")])
async def test_the_way_out_that_an_error_names_leads_out(runtime: Runtime, provoke: Provoke, verb: str) -> None:
    async with serving(runtime) as client, serving(runtime, admin=True) as admin:
        refused = await provoke(client)
        assert refused.status_code in (429, 503)
        message = refused.json()["message"]
        assert not PYTHON.search(message.replace("(Limits(mailbox_messages=...))", "")), message
        orders = ORDER.findall(message)
        assert orders, message
        method, path, body = orders[0]
        for name in ("resume", verb):
            done = await admin.request(
                method, path.replace("resume", name), content=body, headers={"content-type": "application/json"}
            )
            assert done.status_code in (200, 202), done.text
        assert (await client.post("/Gate/a%2Fb/hold/send")).status_code == 202


async def start_twice(client: httpx.AsyncClient) -> httpx.Response:
    await client.post("/Vote/a/run/send")
    return await client.post("/Vote/a/run")


async def close_twice(client: httpx.AsyncClient) -> httpx.Response:
    return [await client.post("/Vote/a/close", json="yes") for _ in "12"][-1]


async def resolve_nothing(client: httpx.AsyncClient) -> httpx.Response:
    return await client.post("/restate/awakeables/nonsense/resolve", json=1)


async def ask_too_early(client: httpx.AsyncClient) -> httpx.Response:
    await client.post("/Vote/a/run/send")
    return await client.get("/restate/workflow/Vote/a/output")


@pytest.mark.parametrize("provoke", [start_twice, close_twice, resolve_nothing, ask_too_early])
async def test_no_error_over_http_tells_its_reader_to_write_python(runtime: Runtime, provoke: Provoke) -> None:
    async with serving(runtime) as client:
        refused = await provoke(client)
    assert 400 <= refused.status_code < 500
    assert not PYTHON.search(refused.json()["message"])


def serving(runtime: Runtime, *, admin: bool = False) -> httpx.AsyncClient:
    app = runtime.asgi(admin=True) if admin else runtime.asgi()
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://durably")
