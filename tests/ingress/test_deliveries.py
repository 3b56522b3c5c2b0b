"""Awakeables and signals over HTTP: the paths, the bodies, and what reaches an actor."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest
from fastapi import FastAPI

from durably import (
    Awakeable,
    BytesSerde,
    Context,
    InvocationStatusError,
    JsonSerde,
    ObjectContext,
    Service,
    SharedContext,
    TerminalError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.ingress import Ingress
from durably.testing import Harness
from tests.ingress.fake import FakeRuntime
from tests.ingress.test_app import client_of, error_of
from tests.semantics.test_awakeables import WAYS


class Waiter(VirtualObject):
    asked: Awakeable[Any] | None = state(default=None)

    @handler
    async def wait(self, ctx: ObjectContext) -> Any:
        asked = self.asked = ctx.awakeable()
        return await asked

    @handler
    async def listen(self, ctx: ObjectContext, name: str) -> Any:
        return await ctx.signal(name)

    @shared
    async def pending(self, ctx: SharedContext) -> str:
        assert self.asked is not None
        return self.asked.id


@pytest.mark.parametrize("way", [*WAYS])
@pytest.mark.parametrize("prefix", ["/restate/awakeables", "/restate/a"])
async def test_an_awakeable_is_completed_over_http(way: str, prefix: str) -> None:
    async with Harness(Waiter, **WAYS[way]) as app, client_of(Ingress(app)) as client:
        waiter = app.object(Waiter, "a")
        for content, value in ((b'{"a": [1]}', {"a": [1]}), (b"", None), (b'"text"', "text")):
            waiting = await waiter.wait.send()
            await app.settle()
            response = await client.post(f"{prefix}/{await waiter.pending()}/resolve", content=content)
            assert (response.status_code, response.content) == (202, b"")
            assert await waiting.result() == value
        waiting = await waiter.wait.send()
        await app.settle()
        response = await client.post(f"{prefix}/{await waiter.pending()}/reject", content="not töday")
        assert response.status_code == 202
        with pytest.raises(TerminalError, match="not töday") as refused:
            await waiting.result()
        assert refused.value.code == 500
        late = await client.post(f"{prefix}/{await waiter.pending()}/resolve", content=b"1")
        assert late.status_code == 202


class Readers(Service):
    @handler
    async def wait(self, ctx: Context, kind: str) -> str:
        awaited: Awaitable[Any] = (
            ctx.awakeable(serde=BytesSerde()) if kind == "awakeable of bytes"
            else ctx.awakeable(serde=JsonSerde(Any)) if kind == "awakeable of JSON"
            else ctx.signal("id", serde=BytesSerde()) if kind == "signal of bytes"
            else ctx.signal("id", serde=JsonSerde(int | None))
        )  # fmt: skip
        if isinstance(awaited, Awakeable):
            await ctx.run("tell", lambda: IDS.append(awaited.id))
        return repr(await awaited)


IDS: list[str] = []


@pytest.mark.parametrize("way", [*WAYS])
@pytest.mark.parametrize("content_type", [None, "application/json", "image/png"])
async def test_an_empty_body_is_no_bytes_for_who_awaits_bytes_and_null_for_json(
    way: str, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    async with Harness(Readers, **WAYS[way]) as app, client_of(Ingress(app)) as client:
        for kind, read in (
            ("awakeable of bytes", "b''"),
            ("awakeable of JSON", "None"),
            ("signal of bytes", "b''"),
            ("signal of JSON", "None"),
        ):
            IDS.clear()
            waiting = await app.service(Readers).wait.send(kind)
            await app.settle()
            path = f"awakeables/{IDS[-1]}/resolve" if IDS else f"invocations/{waiting.id}/signals/id"
            sent = await client.post(f"/restate/{path}", headers=headers)
            assert sent.status_code == 202
            assert await waiting.result() == read


@pytest.mark.parametrize("way", [*WAYS])
async def test_an_empty_reason_stays_empty(way: str) -> None:
    async with Harness(Waiter, **WAYS[way]) as app, client_of(Ingress(app)) as client:
        waiter = app.object(Waiter, "a")
        waiting = await waiter.wait.send()
        await app.settle()
        await client.post(f"/restate/awakeables/{await waiter.pending()}/reject")
        listening = await waiter.listen.send("go")
        await app.settle()
        await client.post(f"/restate/invocations/{listening.id}/signals/go/reject")
        for refused in (waiting, listening):
            with pytest.raises(TerminalError) as caught:
                await refused.result()
            assert caught.value.message == ""


@pytest.mark.parametrize("way", [*WAYS])
async def test_a_signal_is_sent_over_http(way: str) -> None:
    async with Harness(Waiter, **WAYS[way]) as app, client_of(Ingress(app)) as client:
        waiter = app.object(Waiter, "a")
        for name, path in (("go", "go"), ("a/b reject", "a%2Fb%20reject")):
            listening = await waiter.listen.send(name)
            sent = await client.post(f"/restate/invocations/{listening.id}/signals/{path}", content=b"7")
            assert (sent.status_code, sent.content) == (202, b"")
            assert await listening.result() == 7
            late = await client.post(f"/restate/invocations/{listening.id}/signals/{path}")
            assert (late.status_code, error_of(late)["code"]) == (409, 409)
        unknown = await client.post("/restate/invocations/inv_unknown/signals/go")
        assert (unknown.status_code, error_of(unknown)["code"]) == (404, 404)
        refusing = await waiter.listen.send("go")
        await client.post(f"/restate/invocations/{refusing.id}/signals/go/reject", content=b"no")
        with pytest.raises(TerminalError, match="no"):
            await refusing.result()


async def test_what_is_no_id_or_no_value_is_refused() -> None:
    runtime = FakeRuntime()
    async with client_of(Ingress(runtime)) as client:
        for path, content in (
            ("/restate/awakeables/nonsense/resolve", b"1"),
            ("/restate/a/sign_1abc/reject", b"no"),
            ("/restate/invocations/inv_1/signals/go", b"not json"),
            ("/restate/invocations/inv_1/signals/sign_1abc", b"1"),
            ("/restate/invocations/inv_1/signals/go/reject", b"\xff"),
            ("/restate/invocations/inv_1/signals/%ff", b"1"),
            ("/restate/invocations/inv_%ff/signals/go", b"1"),
            ("/restate/awakeables/%ff/resolve", b"1"),
        ):
            response = await client.post(path, content=content)
            assert (response.status_code, error_of(response)["source"]) == (400, "ingress"), path
        for path in ("/restate/invocations/inv_1/signals/go/further", "/restate/invocations/inv_1/signals/"):
            assert (await client.post(path)).status_code == 404
        refused = await client.get("/restate/awakeables/sign_1/resolve")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
        assert error_of(refused)["message"] == "method not allowed, use POST"
        assert (runtime.completions, runtime.signals) == ([], [])
        runtime.error = InvocationStatusError("it has ended")
        response = await client.post("/restate/invocations/inv_1/signals/go")
        assert (response.status_code, error_of(response)["message"]) == (409, "it has ended")


async def test_a_body_that_is_too_large_is_refused() -> None:
    async with client_of(Ingress(FakeRuntime(), body_limit_bytes=4)) as client:
        response = await client.post("/restate/invocations/inv_1/signals/go", content=b"12345")
        assert response.status_code == 413


async def test_they_work_in_an_application_that_mounts_the_ingress() -> None:
    runtime = FakeRuntime()
    outer = FastAPI()
    outer.mount("/inner", Ingress(runtime))
    async with client_of(outer) as client:
        response = await client.post("/inner/restate/invocations/inv_1/signals/a%2Fb", content=b"1")
        assert response.status_code == 202
    assert [signal.name for signal in runtime.signals] == ["a/b"]
