"""What a suite has: the served services, over HTTP and by path, as a program in any language has them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final
from urllib.parse import quote

import httpx

from durably.runtime.environment import Environment
from durably.runtime.settings import Settings
from tests.conformance_app import make_runtime
from tests.processes import PATIENCE_SECONDS, ServerProcess

INVOCATION_ID: Final = re.compile(r"inv_1[0-9a-zA-Z]{33}")
OPERATORS: Final = re.compile(r"For operators: (http://\S+)")

_numbers = count(1)


def new_number() -> int:
    """One that no other test has had, on servers that many tests share."""
    return next(_numbers)


def new_key() -> str:
    """The same as a key, with characters that a path has to encode."""
    return f"key {new_number()}/ü"


class Suite:
    """A client of the ingress and of the admin port."""

    def __init__(self, ingress: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
        self.ingress = ingress
        self.admin = admin

    async def ask(self, path: str, body: Any = ..., **headers: str) -> httpx.Response:
        """Call a handler; without a body there is none, nor a content type."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with asyncio.timeout(PATIENCE_SECONDS):
            if body is ...:
                return await self.ingress.post(path, headers=named)
            return await self.ingress.post(path, json=body, headers=named)

    async def call(self, path: str, body: Any = ..., **headers: str) -> Any:
        """The result of a call that succeeds; None for an empty one, which has no content type."""
        answer = await self.ask(path, body, **headers)
        assert answer.status_code == 200, answer.text
        assert INVOCATION_ID.fullmatch(answer.headers["x-restate-id"])
        if not answer.content:
            assert "content-type" not in answer.headers
            return None
        assert answer.headers["content-type"] == "application/json"
        return answer.json()

    async def fail(self, path: str, body: Any = ..., **headers: str) -> dict[str, Any]:
        """The error of a call whose handler fails, in the form in which every client gets it."""
        return failure(await self.ask(path, body, **headers))

    async def send(self, path: str, body: Any = ..., **headers: str) -> str:
        """The id of an invocation that was accepted."""
        answer = await self.ask(f"{path}/send", body, **headers)
        assert answer.status_code == 202, answer.text
        id: str = answer.json()["invocationId"]
        assert answer.json()["status"] == "Accepted"
        assert answer.headers["x-restate-id"] == id
        assert INVOCATION_ID.fullmatch(id)
        return id

    async def attach(self, id: str) -> httpx.Response:
        """The outcome of an invocation, when it has one."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.ingress.get(f"/restate/attach/{id}")

    async def eventually(self, path: str, expected: Any, body: Any = ...) -> None:
        """Ask until the answer is this one."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (answer := await self.call(path, body)) != expected:
                await asyncio.sleep(0.005)
        assert answer == expected

    async def act(self, id: str, verb: str) -> int:
        """What an operator does, and the status of the answer."""
        return (await self.admin.patch(f"/invocations/{id}/{verb}")).status_code


def failure(answer: httpx.Response) -> dict[str, Any]:
    """The body of an error, which is a handler's."""
    body: dict[str, Any] = answer.json()
    assert (body["source"], answer.headers["x-restate-error-source"]) == ("invocation", "invocation")
    assert answer.status_code == body["code"]
    return body


def path_of(service: str, key: str, handler: str) -> str:
    """The path of a handler of an object, percent-encoded."""
    return f"/{service}/{quote(key, safe='')}/{handler}"


@asynccontextmanager
async def in_process(*, nothing_resident: bool = False) -> AsyncGenerator[Suite]:
    """A suite of a runtime in this process, in memory. With `nothing_resident` each await replays."""
    environment = Environment(settings=Settings(nothing_resident=nothing_resident))
    async with (
        make_runtime("memory:", environment) as runtime,
        httpx.AsyncClient(transport=httpx.ASGITransport(runtime.asgi()), base_url="http://ingress") as ingress,
        httpx.AsyncClient(transport=httpx.ASGITransport(runtime.asgi(admin=True)), base_url="http://admin") as admin,
    ):
        yield Suite(ingress, admin)


@asynccontextmanager
async def served_by(server: ServerProcess) -> AsyncGenerator[Suite]:
    """A suite of a server in another process."""
    told = OPERATORS.search(server.output)
    assert told is not None, server.output
    async with (
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=PATIENCE_SECONDS) as ingress,
        httpx.AsyncClient(base_url=told[1], trust_env=False, timeout=PATIENCE_SECONDS) as admin,
    ):
        yield Suite(ingress, admin)
