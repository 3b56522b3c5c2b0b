"""The admin API: every verb with its codes and bodies, over a real runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from durably import InvocationStatus, ObjectContext, RetryPolicy, VirtualObject, cron, handler, state
from durably.testing import Harness


class Job(VirtualObject):
    runs: int = state(default=0)

    @handler
    async def work(self, ctx: ObjectContext, seconds: float = 100) -> int:
        await ctx.sleep(seconds)
        self.runs += 1
        return self.runs

    @handler(retry=RetryPolicy(initial=100.0, maximum=100.0))
    async def fail(self, ctx: ObjectContext) -> None:
        raise RuntimeError("again")


@pytest.fixture
async def app() -> AsyncIterator[Harness]:
    async with Harness(Job) as app:
        yield app
        await app.kill("Job")


@pytest.fixture
async def admin(app: Harness) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app.asgi(admin=True))
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        yield client


async def patch(admin: httpx.AsyncClient, id: str, verb: str, query: str = "") -> tuple[int, Any]:
    answered = await admin.patch(f"/invocations/{id}/{verb}{query}")
    return answered.status_code, answered.json() if answered.content else None


async def test_health_and_version(admin: httpx.AsyncClient) -> None:
    assert (await admin.get("/health")).status_code == 200
    told = (await admin.get("/version")).json()
    assert {"version", "min_admin_api_version", "max_admin_api_version", "ingress_endpoint", "features"} == told.keys()


async def test_a_stopped_runtime_is_not_healthy() -> None:
    app = Harness(Job)
    transport = httpx.ASGITransport(app.asgi(admin=True))
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        assert (await client.get("/health")).status_code == 503
        assert (await client.patch("/invocations/inv_1/cancel")).status_code == 503


async def test_a_wrong_method_is_told_all_right_ones(admin: httpx.AsyncClient) -> None:
    for path, methods in (
        ("/v4/deployments", "GET, HEAD, POST"),
        ("/services/Job", "GET, HEAD, PATCH"),
        ("/invocations/inv_1", "DELETE, GET, HEAD"),
        ("/query", "POST"),
    ):
        refused = await admin.request("TRACE", path)
        assert (refused.status_code, refused.headers["allow"]) == (405, methods)
        assert refused.json()["message"] == f"method not allowed, use {' or '.join(methods.split(', '))}"


async def test_a_cancel_is_done_or_on_its_way(app: Harness, admin: httpx.AsyncClient) -> None:
    first, queued = [await app.object(Job, "j").work.send() for _ in range(2)]
    await app.settle()
    assert await patch(admin, queued.id, "cancel") == (200, None)
    assert await patch(admin, first.id, "cancel") == (202, None)
    await app.settle()
    code, body = await patch(admin, first.id, "cancel")
    assert (code, body) == (
        409,
        {"message": f"The invocation '{first.id}' was already completed.", "restate_code": None},
    )


@pytest.mark.parametrize("verb", ["cancel", "kill", "pause", "resume", "purge", "purge-journal", "restart-as-new"])
async def test_what_is_not_there_is_404(admin: httpx.AsyncClient, verb: str) -> None:
    code, body = await patch(admin, "inv_nobody", verb)
    assert code == 404
    assert "inv_nobody" in body["message"]


async def test_kill_pause_and_resume(app: Harness, admin: httpx.AsyncClient) -> None:
    sent = await app.object(Job, "j").work.send()
    queued = await app.object(Job, "j").work.send()
    await app.settle()
    assert [(await patch(admin, sent.id, "pause"))[0] for _ in range(2)] == [202, 200]
    assert (await patch(admin, queued.id, "pause"))[0] == 409
    assert (await patch(admin, queued.id, "resume"))[0] == 425
    assert (await patch(admin, sent.id, "resume", "?deployment=latest"))[0] == 200
    assert (await patch(admin, sent.id, "resume", "?deployment=dp_17"))[0] == 400
    assert (await patch(admin, sent.id, "purge"))[1]["message"] == f"The invocation '{sent.id}' is not yet completed."
    assert (await patch(admin, sent.id, "kill"))[0] == 200
    assert [(await patch(admin, sent.id, verb))[0] for verb in ("kill", "pause", "resume")] == [409] * 3
    assert (await patch(admin, sent.id, "purge-journal"))[0] == (await patch(admin, sent.id, "purge"))[0] == 200
    assert (await patch(admin, sent.id, "purge"))[0] == 404


async def test_restart_as_new(app: Harness, admin: httpx.AsyncClient) -> None:
    sent = await app.object(Job, "j").work.send(1)
    queued = await app.object(Job, "j").work.send(1)
    await app.settle()
    assert [(await patch(admin, one.id, "restart-as-new"))[0] for one in (sent, queued)] == [409, 425]
    await app.advance(2)
    code, body = await patch(admin, sent.id, "restart-as-new", "?from=0")
    assert code == 200
    await app.advance(1)
    assert await app.invocation(body["new_invocation_id"], int).result() == 3
    assert (await patch(admin, sent.id, "restart-as-new", "?from=3"))[0] == 400


async def test_restart_of_what_is_paused(app: Harness, admin: httpx.AsyncClient) -> None:
    sent = await app.object(Job, "j").work.send(1)
    await app.settle()
    assert (await patch(admin, sent.id, "restart"))[0] == 409
    await patch(admin, sent.id, "pause")
    assert [(await patch(admin, sent.id, "restart", f"?from={step}"))[0] for step in ("x", "1", "7")] == [400] * 3
    assert (await patch(admin, sent.id, "restart", "?from=0"))[0] == 200
    await patch(admin, sent.id, "pause")
    assert (await batch(admin, "restart", target="Job/j"))["succeeded"] == [sent.id]
    await app.advance(2)
    assert (await patch(admin, sent.id, "restart"))[0] == 409
    assert await app.invocation(sent.id, int).result() == 1


@pytest.mark.parametrize(("mode", "code"), [("", 202), ("?mode=kill", 202), ("?mode=purge", 409), ("?mode=no", 400)])
async def test_the_older_way(app: Harness, admin: httpx.AsyncClient, mode: str, code: int) -> None:
    sent = await app.object(Job, "j").work.send()
    await app.settle()
    assert (await admin.delete(f"/invocations/{sent.id}{mode}")).status_code == code


async def batch(admin: httpx.AsyncClient, verb: str, **body: Any) -> Any:
    return (await admin.post(f"/internal/invocations_batch_operations/{verb}", json=body)).json()


async def test_many_at_once_are_told_one_by_one(app: Harness, admin: httpx.AsyncClient) -> None:
    sent = [(await app.object(Job, f"{number}").work.send()).id for number in range(3)]
    await app.settle()
    told = await batch(admin, "kill", invocation_ids=[*sent, "inv_nobody"])
    assert told["succeeded"] == sent
    assert [failure["invocation_id"] for failure in told["failed"]] == ["inv_nobody"]
    again = await batch(admin, "restart-as-new", invocation_ids=sent)
    assert [one["old_invocation_id"] for one in again["succeeded"]] == sent
    assert (await batch(admin, "purge", invocation_ids=sent))["succeeded"] == sent
    assert "at most" in (await batch(admin, "kill", invocation_ids=[f"inv_{n}" for n in range(1001)]))["message"]
    assert "at most" in (await batch(admin, "kill", invocation_ids=["inv_1"] * 1001))["message"]
    assert await batch(admin, "kill", invocation_ids=[]) == {"succeeded": [], "failed": []}
    for neither_or_both in ({}, {"ids": sent}, {"invocation_ids": sent, "target": "Job/1"}):
        assert "invocation_ids or target" in (await batch(admin, "kill", **neither_or_both)).get("message", "")


async def test_a_batch_of_what_is_no_verb_is_not_found_whatever_its_body_is(admin: httpx.AsyncClient) -> None:
    for body in (b"", b'{"invocation_ids": []}'):
        assert (await admin.post("/internal/invocations_batch_operations/sell", content=body)).status_code == 404


@pytest.mark.parametrize("path", ["/health/", "/v4/services/", "/deployments/", "/invocations/inv_1/"])
async def test_no_path_leads_elsewhere(admin: httpx.AsyncClient, path: str) -> None:
    answered = await admin.get(path, headers={"host": "elsewhere.example"})
    assert (answered.status_code, answered.headers.get("location")) == (404, None)


async def test_a_target_stands_for_all_of_it(app: Harness, admin: httpx.AsyncClient) -> None:
    sent = await app.object(Job, "a/b").work.send()
    await app.settle()
    assert await batch(admin, "cancel", target="Job/a%2Fb/work") == {"succeeded": [sent.id], "failed": []}
    assert "names nothing" in (await batch(admin, "cancel", target="Nobody"))["message"]
    await app.settle()
    assert await sent.status() is InvocationStatus.COMPLETED


async def test_what_a_page_of_another_site_can_send_is_refused(admin: httpx.AsyncClient) -> None:
    path = "/internal/invocations_batch_operations/kill"
    answered = await admin.post(path, content=b'{"invocation_ids": []}', headers={"content-type": "text/plain"})
    assert answered.status_code == 415
    preflight = await admin.options(path, headers={"origin": "http://evil", "access-control-request-method": "PATCH"})
    assert preflight.status_code == 403
    assert "access-control-allow-origin" not in preflight.headers


async def test_other_paths_and_methods_are_refused_in_the_same_shape(admin: httpx.AsyncClient) -> None:
    for answered in (
        await admin.get("/nowhere"),
        await admin.patch("/invocations/inv_1/vanish"),
        await admin.post("/internal/invocations_batch_operations/kill", json=[1]),
    ):
        assert answered.status_code in (400, 404)
        assert set(answered.json()) == {"message", "restate_code"}


class Clockwork(VirtualObject):
    ticks: int = state(default=0)

    @cron("*/10 * * * *", key="a b")
    @handler
    async def tick(self, ctx: ObjectContext) -> None:
        self.ticks += 1


async def test_schedules_are_listed_and_turned_on_and_off() -> None:
    async with Harness(Clockwork) as app:
        transport = httpx.ASGITransport(app.asgi(admin=True))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as admin:
            await app.advance(minutes=10)
            (told,) = (await admin.get("/schedules")).json()["schedules"]
            assert told.pop("last_invocation").startswith("inv_")
            assert told == {
                "name": "Clockwork/a b/tick", "expression": "*/10 * * * *", "tz": "UTC", "missed": "once",
                "status": "on", "next_tick": "2026-01-01T00:20:00Z", "last_tick": "2026-01-01T00:10:00Z",
            }  # fmt: skip
            name = {"name": told["name"]}
            assert (await admin.patch("/schedules/pause", params=name)).json() == {"changed": True}
            assert (await admin.patch("/schedules/pause", params=name)).json() == {"changed": False}
            assert (await admin.get("/schedules")).json()["schedules"][0]["status"] == "paused"
            assert (await admin.patch("/schedules/cancel", params=name)).json() == {"changed": True}
            assert (await admin.patch("/schedules/resume", params=name)).json() == {"changed": True}
            refused = await admin.patch("/schedules/pause", params={"name": "Clockwork/tick"})
            assert (refused.status_code, "There are: Clockwork/a b/tick" in refused.json()["message"]) == (404, True)
            assert (await admin.patch("/schedules/pause")).status_code == 400
            assert (await admin.patch("/schedules/wind", params=name)).status_code == 404
