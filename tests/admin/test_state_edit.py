"""`POST /services/{service}/state`: all of an object's state is replaced, as a message in its mailbox (rule W8)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from durably import DurableDict, ObjectContext, VirtualObject, Workflow, WorkflowContext, handler, state
from durably.errors import InvocationStatusError
from durably.runtime.lifecycle.state_edits import state_version
from durably.testing import Harness


class Cart(VirtualObject):
    tickets: list[str] = state(default=[])
    prices: DurableDict[str, int] = state()

    @handler
    async def add(self, ctx: ObjectContext, ticket: str, seconds: float = 0) -> list[str]:
        self.tickets.append(ticket)
        self.prices[ticket] = 40
        if seconds:
            await ctx.sleep(seconds)
        return self.tickets


class Signup(Workflow):
    @handler
    async def run(self, ctx: WorkflowContext) -> None: ...


@pytest.fixture
async def app() -> AsyncIterator[Harness]:
    async with Harness(Cart, Signup) as app:
        yield app


@pytest.fixture
async def admin(app: Harness) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app.asgi(admin=True))
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        yield client


async def edit(
    admin: httpx.AsyncClient, state: Mapping[str, bytes], *, version: str | None = None, service: str = "Cart"
) -> httpx.Response:
    new_state = {name: list(value) for name, value in state.items()}
    body: dict[str, Any] = {"object_key": "mary", "new_state": new_state}
    return await admin.post(
        f"/v4/services/{service}/state", json=body if version is None else {**body, "version": version}
    )


async def test_an_edit_waits_its_turn_and_replaces_everything(app: Harness, admin: httpx.AsyncClient) -> None:
    cart = app.object(Cart, "mary")
    await cart.add.send("2B", 100)
    answered = await edit(admin, {"tickets": b'["3C"]', "note": b'"by hand"'})
    assert (answered.status_code, answered.content) == (202, b"")
    await app.settle()
    assert await app.state(Cart, "mary") == {}
    after = await cart.add.send("4D")
    await app.advance(100)
    assert await after == ["3C", "4D"]
    assert await app.state(Cart, "mary") == {"tickets": ["3C", "4D"], "note": "by hand"}
    assert (await edit(admin, {})).status_code == 202
    await app.settle()
    assert await app.state(Cart, "mary") == {}
    assert [name for name, _ in await app.entries(Cart, "mary", "prices")] == ["2B", "4D"]


async def test_an_edit_of_another_state_than_it_was_made_for_changes_nothing(
    app: Harness, admin: httpx.AsyncClient
) -> None:
    await app.object(Cart, "mary").add("2B")
    version = state_version({"tickets": b'["2B"]'})
    first = await edit(admin, {"tickets": b'["3C"]'}, version=version)
    second = await edit(admin, {"tickets": b'["4D"]'}, version=version)
    await app.settle()
    assert await app.state(Cart, "mary") == {"tickets": ["3C"]}
    assert await app.invocation(first.headers["x-restate-id"]).status() == "completed"
    with pytest.raises(InvocationStatusError, match="another state"):
        await app.invocation(second.headers["x-restate-id"]).result()


def test_versions_are_those_of_restates_tools() -> None:
    state = {"obj": b'{"a": [1]}', "n": b"7"}
    assert state_version(state) == "tfUUpbp_d1g6e2LDLf4pVYG8AzD58fGCGUemKrF1ToQ"


async def test_what_does_not_fit_is_refused_before_anything_is_accepted(app: Harness, admin: httpx.AsyncClient) -> None:
    for fields, named in (
        ({"tickets": b'"2B"'}, "tickets"), ({"tickets": b"["}, "tickets"), ({"prices": b"{}"}, "prices"),
        ({"durably:state-version": b"7"}, "durably:"), ({"": b"1"}, "''"), ({"a\0": b"1"}, "a"),
    ):  # fmt: skip
        answered = await edit(admin, fields)
        assert (answered.status_code, named in answered.text) == (400, True)
    assert (await edit(admin, {}, service="Signup")).text.count("Cannot modify state for service type Workflow") == 1
    assert (await edit(admin, {}, service="Nothing")).status_code == 404
    bad: list[dict[str, Any]] = [
        {"object_key": "", "new_state": {}},
        {"object_key": "a", "new_state": {"a": [256]}},
        {},
    ]
    for body in bad:
        assert (await admin.post("/services/Cart/state", json=body)).status_code == 400
    assert [one async for one in app.invocations()] == []
