"""What the admin API tells of services and of the one deployment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from msgspec import Struct

from durably import (
    Context,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedContext,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    shared,
)
from durably.admin.catalog import deployment_id, friendly_duration
from durably.testing import Harness


class Ticket(Struct):
    seat: str
    next: Ticket | None = None


class Cart(VirtualObject, retention=3600, retry=RetryPolicy(initial=0.5, maximum=90, max_attempts=7, then="fail")):
    """Holds tickets."""

    @handler
    async def add(self, ctx: ObjectContext, ticket: Ticket) -> bool:
        return True

    @shared(retry=RetryPolicy(initial=1, maximum=60, max_attempts=2), retention=60, journal_retention=7200)
    async def peek(self, ctx: SharedContext) -> list[int]:
        return []


class Mail(Service, private=True):
    @handler
    async def send(self, ctx: Context, to: str) -> None: ...


class Signup(Workflow):
    @handler(retention=3600)
    async def run(self, ctx: WorkflowContext) -> int:
        return 1


@pytest.fixture
async def admin() -> AsyncIterator[httpx.AsyncClient]:
    async with Harness(Cart, Mail, Signup) as app:
        transport = httpx.ASGITransport(app.asgi(admin=True))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
            yield client


async def got(admin: httpx.AsyncClient, path: str) -> Any:
    answered = await admin.get(path)
    assert answered.status_code == 200
    return answered.json()


async def test_services_are_described_as_restates_are(admin: httpx.AsyncClient) -> None:
    services = (await got(admin, "/services"))["services"]
    assert services == (await got(admin, "/v4/services"))["services"]
    cart, mail, signup = services
    assert [(one["name"], one["ty"], one["public"]) for one in services] == [
        ("Cart", "VirtualObject", True), ("Mail", "Service", False), ("Signup", "Workflow", True),
    ]  # fmt: skip
    assert cart["idempotency_retention"] == "1h"
    assert signup["workflow_completion_retention"] == "1d"
    assert cart["documentation"] == "Holds tickets."
    assert cart["retry_policy"] == {
        "initial_interval": "500ms", "exponentiation_factor": 2.0, "max_attempts": 7, "max_interval": "1m 30s",
        "on_max_attempts": "Kill",
    }  # fmt: skip
    add, peek = cart["handlers"]
    assert (add["ty"], peek["ty"], signup["handlers"][0]["ty"]) == ("Exclusive", "Shared", "Workflow")
    assert "ty" not in mail["handlers"][0]
    assert add["retry_policy"] == {"max_attempts": None}
    assert peek["retry_policy"] == {
        "initial_interval": "1s", "exponentiation_factor": 2.0, "max_attempts": 2, "max_interval": "1m",
        "on_max_attempts": "Pause",
    }  # fmt: skip
    own = ("idempotency_retention", "journal_retention")
    assert ([peek[name] for name in own], [name for name in own if name in add]) == (["1m", "2h"], [])
    assert signup["handlers"][0]["workflow_completion_retention"] == "1h"
    assert (peek["input_description"], peek["output_description"]) == ("none", "JSON array")
    named = add["input_json_schema"]["$ref"].removeprefix("#/$defs/")
    assert add["input_json_schema"]["$defs"][named]["properties"].keys() == {"seat", "next"}
    assert await got(admin, "/services/Cart") == cart
    assert (await got(admin, "/services/Cart/handlers"))["handlers"] == [add, peek]
    assert await got(admin, "/services/Cart/handlers/add") == add
    assert "/Cart/{key}/add" in (await got(admin, "/services/Cart/openapi"))["paths"]


async def test_the_one_deployment_is_this_process(admin: httpx.AsyncClient) -> None:
    (told,) = (await got(admin, "/deployments"))["deployments"]
    detailed = await got(admin, f"/deployments/{told['id']}")
    assert {**detailed, "services": told["services"]} == told
    assert detailed["services"] == (await got(admin, "/services"))["services"]
    again = await admin.post("/v3/deployments", json={"uri": told["uri"], "dry_run": True})
    assert (again.status_code, again.json()["id"]) == (200, told["id"])
    assert again.headers["location"] == f"deployments/{told['id']}"
    assert (await admin.patch(f"/deployments/{told['id']}", json={"uri": told["uri"]})).status_code == 200
    for refused in (
        await admin.post("/deployments", json={"uri": "http://elsewhere:9080"}),
        await admin.post("/deployments", json={"arn": "arn:aws:lambda"}),
        await admin.post("/deployments", json={"uri": "http://[no"}),
    ):
        assert refused.status_code == 400
        assert "Runtime" in refused.json()["message"]
    assert (await admin.delete(f"/deployments/{told['id']}?force=true")).status_code == 501
    assert (await admin.get("/deployments/dp_17")).status_code == 404


async def test_what_a_class_says_is_not_changed_from_outside(admin: httpx.AsyncClient) -> None:
    same = await admin.patch("/services/Cart", json={"public": True, "idempotency_retention": "1h"})
    assert (same.status_code, same.json()["name"]) == (200, "Cart")
    other = await admin.patch("/services/Mail", json={"public": True})
    assert other.status_code == 409
    assert "Change the class" in other.json()["message"]


@pytest.mark.parametrize("span", ["1h", "60m", "PT1H", "3600 seconds", "PT60M"])
async def test_a_duration_is_the_same_however_it_is_written(admin: httpx.AsyncClient, span: str) -> None:
    assert (await admin.patch("/services/Cart", json={"idempotency_retention": span})).status_code == 200
    other = await admin.patch("/services/Cart", json={"journal_retention": span})
    assert (other.status_code, "is '1d'" in other.json()["message"]) == (409, True)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"colour": 1}, "colour"),
        ({"workflow_completion_retention": "1d"}, "a VirtualObject has no"),
        ({"public": "yes"}, "true or false"),
        ({"idempotency_retention": "x"}, "neither an ISO-8601"),
        ({"idempotency_retention": 3600}, "a text such as"),
    ],
)
async def test_what_is_no_option_of_a_service_is_refused_as_such(
    admin: httpx.AsyncClient, asked: dict[str, Any], named: str
) -> None:
    refused = await admin.patch("/services/Cart", json=asked)
    assert (refused.status_code, named in refused.json()["message"]) == (400, True)


@pytest.mark.parametrize(
    "path", ["/services/No", "/services/Cart/handlers/no", "/services/No/openapi", "/v4/no", "/v9/services"]
)
async def test_what_is_not_there_is_named(admin: httpx.AsyncClient, path: str) -> None:
    answered = await admin.get(path)
    assert answered.status_code == 404
    assert answered.json()["message"]


@pytest.mark.parametrize(
    ("span_us", "told"),
    [(0, "0s"), (500_000, "500ms"), (86_400_000_000, "1d"), (90_061_000_001, "1d 1h 1m 1s 1us"), (30_000_000, "30s")],
)
def test_durations_are_written_as_restate_does(span_us: int, told: str) -> None:
    assert friendly_duration(span_us) == told


def test_a_deployment_keeps_its_id_over_restarts_and_has_the_form_of_restates() -> None:
    assert deployment_id("sqlite app.db") == deployment_id("sqlite app.db") != deployment_id("sqlite other.db")
    assert len(deployment_id("")) == len("dp_10i0ahi2UA3LVVp60qsxMAh")
