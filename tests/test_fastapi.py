"""`durably.fastapi`: routes find the runtime and answer what its calls raise; other frameworks need nothing of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
from aiohttp.test_utils import TestClient as AiohttpClient
from aiohttp.test_utils import TestServer
from fastapi import Depends, FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from durably import Context as ServiceContext
from durably import (
    ObjectContext,
    OverloadedError,
    PausedInvocationError,
    RuntimeStoppedError,
    Service,
    StoreUnavailableError,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    state,
)
from durably.fastapi import Durably, add_error_handlers, lifespan, object_of, service_of, workflow_of
from durably.testing import Harness
from tests.processes import ROOT


class SoldOutError(TerminalError):
    code = 409

    def __init__(self, seat: str) -> None:
        super().__init__(f"{seat} is sold.", metadata={"seat": seat})


class FastCounter(VirtualObject):
    value: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        self.value += amount
        return self.value

    @handler
    async def sell(self, ctx: ObjectContext) -> None:
        raise SoldOutError(self.key)

    @handler
    async def stumble(self, ctx: ObjectContext) -> None:
        raise ZeroDivisionError

    @handler
    async def add_later(self, ctx: ObjectContext, seconds: int) -> int:
        await ctx.sleep(seconds)
        self.value += 1
        return self.value


class FastGreeter(Service):
    @handler
    async def greet(self, ctx: ServiceContext, name: str) -> str:
        return f"Hello, {name}"


class FastSignup(Workflow):
    @handler
    async def run(self, ctx: WorkflowContext, mail: str) -> str:
        return f"{self.key}: {mail}"


def application(own: Any = None, harness: Harness | None = None) -> FastAPI:
    runtime = harness or Harness(FastCounter, FastGreeter, FastSignup)
    app = FastAPI(lifespan=lifespan(runtime, own))
    add_error_handlers(app)
    app.mount("/durably", runtime.asgi())

    @app.post("/counters/{name}")
    async def add(amount: int, counter: Annotated[FastCounter, Depends(object_of(FastCounter, "name"))]) -> int:
        return await counter.add(amount)

    @app.post("/counters/{name}/sell")
    async def sell(counter: Annotated[FastCounter, Depends(object_of(FastCounter, "name"))]) -> None:
        await counter.sell()

    @app.post("/counters/{name}/later")
    async def add_later(seconds: int, counter: Annotated[FastCounter, Depends(object_of(FastCounter, "name"))]) -> int:
        return await counter.add_later(seconds)

    @app.post("/counters/{name}/stumble")
    async def stumble(name: str, durably: Durably) -> None:
        await durably.object(FastCounter, name).stumble()

    @app.get("/greeting")
    async def greet(name: str, greeter: Annotated[FastGreeter, Depends(service_of(FastGreeter))]) -> str:
        return await greeter.greet(name)

    @app.post("/signups")
    async def sign_up(mail: str, signup: Annotated[FastSignup, Depends(workflow_of(FastSignup, "user"))]) -> str:
        return await signup.run(mail)

    @app.websocket("/live")
    async def live(socket: WebSocket, counter: Annotated[FastCounter, Depends(object_of(FastCounter, "name"))]) -> None:
        await socket.accept()
        await socket.send_json(await counter.add(1))
        await socket.close()

    @app.websocket("/sold")
    async def sold(socket: WebSocket, name: str, accepted: bool, durably: Durably) -> None:
        if accepted:
            await socket.accept()
        await durably.object(FastCounter, name).sell()

    @app.get("/raise/{what}")
    async def fail(what: str) -> None:
        raise RAISED[what][0]

    return app


RAISED: Mapping[str, tuple[Exception, int]] = {
    "terminal": (TerminalError("no", code=418), 418),
    "terminal with no status": (TerminalError("no", code=7), 500),
    "overloaded": (OverloadedError("too much", retry_after=1.2), 429),
    "paused": (PausedInvocationError("inv_1", "waits for a person"), 503),
    "stopped": (RuntimeStoppedError("stopped", id="inv_1"), 503),
    "not running": (RuntimeStoppedError("stopped"), 503),
    "no disk": (StoreUnavailableError("the disk is full"), 503),
}


def test_references_come_from_the_path_or_the_query() -> None:
    with TestClient(application()) as client:
        assert client.post("/counters/a?amount=2").json() == 2
        assert client.post("/counters/a?amount=3").json() == 5
        assert client.get("/greeting?name=Ann").json() == "Hello, Ann"
        assert client.post("/signups?user=ann&mail=a@b").json() == "ann: a@b"
        assert client.post("/signups?mail=a@b").status_code == 422
        with client.websocket_connect("/live?name=a") as socket:
            assert socket.receive_json() == 6
        assert "user" in str(client.get("/openapi.json").json()["paths"]["/signups"])


def test_what_a_handler_raises_is_answered_as_the_ingress_does() -> None:
    with TestClient(application()) as client:
        answer = client.post("/counters/a/sell")
        mounted = client.post("/durably/FastCounter/a/sell")
    assert answer.status_code == mounted.status_code == 409
    assert answer.json() == mounted.json()
    assert answer.json()["metadata"] == {"seat": "a"}
    assert answer.headers["x-restate-error-source"] == mounted.headers["x-restate-error-source"] == "invocation"


def test_a_websocket_is_denied_or_closed_with_what_a_handler_raises() -> None:
    seat = "é" * 100
    with TestClient(application()) as client:
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/sold?name=a&accepted=false"):
            pass
        assert (denied.value.status_code, denied.value.json()["metadata"]) == (409, {"seat": "a"})
        with client.websocket_connect(f"/sold?name={seat}&accepted=true") as socket:
            with pytest.raises(WebSocketDisconnect) as closed:
                socket.receive_json()
            assert (closed.value.code, closed.value.reason) == (4409, "é" * 61)


def test_a_paused_invocation_is_told_with_its_id() -> None:
    with TestClient(application()) as client:
        answer = client.post("/counters/a/stumble")
        assert answer.status_code == 503
        assert answer.headers["x-restate-id"] in answer.json()["message"]


@pytest.mark.parametrize("what", RAISED)
def test_refusals_have_their_status(what: str) -> None:
    with TestClient(application()) as client:
        answer = client.get(f"/raise/{what}")
    assert answer.status_code == RAISED[what][1]
    assert answer.json()["message"]
    assert ("retry-after" in answer.headers) is (what == "overloaded")


def test_a_request_that_waits_is_answered_when_its_time_has_come() -> None:
    harness = Harness(FastCounter, FastGreeter, FastSignup)
    with TestClient(application(harness=harness)) as client, ThreadPoolExecutor(1) as threads:
        assert client.portal is not None
        waiting = threads.submit(client.post, "/counters/a/later?seconds=900")

        async def until_accepted() -> None:
            while not [one async for one in harness.invocations(target="FastCounter")]:
                await asyncio.sleep(0)

        client.portal.call(until_accepted)
        client.portal.call(partial(harness.advance, minutes=14))
        assert not waiting.done()
        client.portal.call(partial(harness.advance, minutes=1))
        assert waiting.result().json() == 1


def test_a_lifespan_of_the_application_runs_within() -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncGenerator[dict[str, str]]:
        seen.append(str(await app.state.durably.object(FastCounter, "a").add(1)))
        yield {"mine": "yes"}
        seen.append(str(await app.state.durably.object(FastCounter, "a").add(1)))

    app = application(own)

    @app.get("/mine")
    async def mine(request: Request) -> str:
        answer: str = request.state.mine
        return answer

    with TestClient(app) as client:
        assert client.get("/mine").json() == "yes"
    assert seen == ["1", "2"]


def test_an_application_without_a_runtime_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"runs no durably runtime.*lifespan\(runtime\)"):
        TestClient(application()).post("/counters/a?amount=2")


def test_a_key_that_can_be_no_parameter_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="'my-key' is none"):
        object_of(FastCounter, "my-key")


def blocks() -> list[str]:
    """The programs of the page: FastAPI, its test, Starlette, aiohttp."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "embedding.md").read_text("utf-8"), re.DOTALL)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the page's first program."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "embedding"}
    exec(blocks()[0], names)
    return names


def test_the_page_on_embedding_reserves_and_releases_a_seat(page: dict[str, Any]) -> None:
    with TestClient(page["app"]) as client:
        assert client.post("/seats/2B?who=ann").json() == "2B"
        refused = client.post("/seats/2B?who=bob")
        assert (refused.status_code, refused.json()["message"]) == (409, "2B is taken.")
        assert client.post("/releases?number=2B").json().startswith("inv_")
        assert client.post("/durably/Seat/2B/reserve", json="bob").json() == "2B"


def test_the_test_of_the_page_on_embedding_passes(page: dict[str, Any]) -> None:
    exec(blocks()[1], page)
    page["test_a_seat_comes_back_after_fifteen_minutes"]()


def test_starlette_runs_a_runtime_in_its_lifespan(page: dict[str, Any]) -> None:
    exec(blocks()[2], page)
    with TestClient(page["app"]) as client:
        assert client.post("/seats/2B").text == "2B"


async def test_aiohttp_runs_a_runtime_in_its_cleanup_context(page: dict[str, Any]) -> None:
    exec(blocks()[3], page)
    async with AiohttpClient(TestServer(page["app"])) as client, client.post("/seats/2B") as answer:
        assert await answer.text() == "2B"
