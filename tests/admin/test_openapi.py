"""The admin API describes itself: its document is valid, and what it says is what is served."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from starlette.applications import Starlette
from starlette.routing import Match, Mount, Route

from durably import (
    Context,
    ObjectContext,
    RetryPolicy,
    Service,
    VirtualObject,
    Workflow,
    WorkflowContext,
    cron,
    handler,
    state,
)
from durably.events import subscribe
from durably.sources import Feed
from durably.testing import Harness, Topic, TopicSource


@dataclass
class Sold:
    ticket: str


class Cart(VirtualObject):
    """Holds tickets."""

    tickets: list[str] = state(default=[])

    @handler
    async def add(self, ctx: ObjectContext, ticket: str) -> None:
        self.tickets.append(ticket)


class Report(Service):
    patience: RetryPolicy = RetryPolicy(max_attempts=1, then="fail")

    @subscribe(Sold, retry=patience)
    async def note(self, ctx: Context, event: Sold) -> None:
        raise ValueError("no paper")

    @handler
    async def wait(self, ctx: Context) -> None:
        await ctx.sleep(hours=1)

    @cron("0 3 * * *")
    @handler
    async def nightly(self, ctx: Context) -> None: ...


class Signup(Workflow):
    @handler
    async def run(self, ctx: WorkflowContext, email: str) -> str:
        return email


@pytest.fixture
async def app() -> AsyncIterator[Harness]:
    topic = Topic()
    topic.put(b'"no order"', key="mary")
    async with Harness(Cart, Report, Signup, sources=[Feed(TopicSource(topic), Cart.add)]) as app:
        yield app


@pytest.fixture
async def admin(app: Harness) -> AsyncIterator[httpx.AsyncClient]:
    application = Starlette(routes=[Mount("/operators", app.asgi(admin=True))])
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin/operators") as client:
        yield client


async def test_the_document_is_valid_and_says_where_it_is_mounted(admin: httpx.AsyncClient) -> None:
    document = (await admin.get("/v4/openapi")).json()
    validate(document)
    assert document["servers"] == [{"url": "/operators"}]


async def test_what_is_documented_is_served_and_what_is_served_is_documented(
    app: Harness, admin: httpx.AsyncClient
) -> None:
    document = (await admin.get("/openapi")).json()
    routes: list[Route] = app.asgi(admin=True)._app.routes  # type: ignore[assignment]
    documented = {
        (method.upper(), re.sub(r"\{.*?\}", "x", path))
        for path, methods in document["paths"].items()
        for method in methods
    }
    reached: set[tuple[str, str]] = set()
    for method, path in documented:
        fitting = [
            route
            for route in routes
            if route.matches({"type": "http", "path": path, "method": method})[0] is Match.FULL
        ]
        assert fitting, (method, path)
        reached.add((method, fitting[0].path))
    served = {(method, route.path) for route in routes for method in (route.methods or ()) if method != "HEAD"}
    assert reached == served


async def test_methods_that_are_not_documented_are_refused_with_those_that_are(admin: httpx.AsyncClient) -> None:
    document = (await admin.get("/openapi")).json()
    for path, methods in document["paths"].items():
        documented = {method.upper() for method in methods}
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - documented:
            refused = await admin.request(method, re.sub(r"\{.*?\}", "x", path))
            assert refused.status_code == 405, (method, path)
            assert set(refused.headers["allow"].split(", ")) - {"HEAD"} == documented, path


async def test_answers_fit_the_document(app: Harness, admin: httpx.AsyncClient) -> None:
    document = (await admin.get("/openapi")).json()
    sent = await app.object(Cart, "mary").add.send("2B")
    await sent
    waiting = await app.service(Report).wait.send()
    await app.publish(Sold("2B"))
    await app.advance(1)
    queued = (await admin.get("/deployments")).json()["deployments"][0]["id"]
    given = {"service": "Cart", "handler": "add", "key": "mary", "id": sent.id, "deployment": queued}
    bodies: dict[str, Any] = {
        "StateEditRequest": {"object_key": "mary", "new_state": {"tickets": list(b'["2C"]')}},
        "BatchRequest": {"invocation_ids": [sent.id, "inv_nobody"]},
        "QueryRequest": {"query": "SELECT * FROM sys_invocation"},
        "Address": {"uri": "http://in-process/"},
    }
    answered = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            name = "" if content is None else content["schema"].get("$ref", "").rpartition("/")[2]
            body = None if content is None else bodies.get(name, {})
            url = re.sub(r"\{(.*?)\}", lambda found: given[found[1]], path)
            url = url.replace(sent.id, waiting.id) if path.endswith("/why") else url
            needed = [
                one["name"] for one in operation.get("parameters", ()) if one["in"] == "query" and one["required"]
            ]
            url += "".join(f"?{name}=Report/nightly" for name in needed)
            answer = await admin.request(method, url, json=body, headers={"accept": "application/json"})
            if path in ("/subscriptions", "/dead-letters", "/sources"):
                assert answer.json() not in ({"subscriptions": []}, {"dead_letters": []}, {"sources": []})
            told = operation["responses"].get(str(answer.status_code))
            if told is None:
                assert answer.status_code in (404, 409, 422, 501), (method, path, answer.text)
                told = operation["responses"]["default"]
            else:
                answered += 1
            schema = told.get("content", {}).get("application/json", {}).get("schema")
            if schema is None:
                assert not answer.content or not answer.headers["content-type"].startswith("application/json")
                continue
            validator: Any = Draft202012Validator({**schema, "components": document["components"]})
            assert not [error.message for error in validator.iter_errors(answer.json())], (method, path)
    assert answered >= 30
