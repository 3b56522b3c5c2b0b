"""A client sends again what cannot happen twice, through any losses, and nothing else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from durably import (
    Context,
    DurablyError,
    NotReadyError,
    ObjectContext,
    OverloadedError,
    RetryPolicy,
    Runtime,
    ServerUnreachableError,
    Service,
    TerminalError,
    VirtualObject,
    handler,
    state,
)
from durably.actors.bound_handlers import BoundHandler
from durably.client import Client
from tests.processes import serving

AT_ONCE = RetryPolicy(initial=0, maximum=0, max_attempts=20)
NOT_SENT = "it does not arrive"
LOST = "its answer is lost"
BAD_GATEWAY = "a proxy lost the server"
GATEWAY_LATE = "a proxy lost the answer"
OVERLOAD = "the server is overloaded"
FAULTS = (NOT_SENT, LOST, BAD_GATEWAY, GATEWAY_LATE, OVERLOAD)
SAFE = {NOT_SENT, OVERLOAD}
"""With these the request is known to have had no effect."""


class Account(VirtualObject):
    total: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        self.total += amount
        return self.total


class Till(Service):
    @handler
    async def refuse(self, ctx: Context) -> None:
        raise TerminalError("closed", code=503)


@dataclass
class Network(httpx.AsyncBaseTransport):
    """Does one harm to each request in turn, and lets those through for which there is none."""

    inner: httpx.AsyncBaseTransport
    harms: list[str] = field(default_factory=list[str])
    arrived: Counter[str] = field(default_factory=Counter[str])

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        harm = self.harms.pop(0) if self.harms else None
        if harm == NOT_SENT:
            raise httpx.ConnectError("refused", request=request)
        if harm == OVERLOAD:
            body = {"code": 429, "message": "too many", "source": "ingress"}
            return httpx.Response(429, json=body, headers={"x-restate-error-source": "ingress", "retry-after": "0"})
        if harm == BAD_GATEWAY:
            return httpx.Response(502, text="bad gateway")
        self.arrived[request.url.path] += 1
        response = await self.inner.handle_async_request(request)
        if harm == LOST:
            raise httpx.ReadError("reset", request=request)
        return httpx.Response(504, text="timed out") if harm == GATEWAY_LATE else response


def test_a_keyed_request_happens_once_and_another_is_not_repeated_once_it_may_have_arrived() -> None:
    with asyncio.Runner() as runner:
        runtime = Runtime("memory:", [Account, Till])
        runner.run(runtime.__aenter__())
        network = Network(httpx.ASGITransport(runtime.asgi()))
        client = Client("http://app", retry=AT_ONCE, http=httpx.AsyncClient(transport=network))
        accounts = iter(range(1_000_000))

        @given(st.lists(st.sampled_from(FAULTS), max_size=6), st.booleans(), st.booleans())
        @example([LOST], True, False)
        @example([LOST], False, False)
        def law(harms: list[str], is_keyed: bool, is_send: bool) -> None:
            runner.run(check(harms, is_keyed, is_send))

        async def check(harms: list[str], is_keyed: bool, is_send: bool) -> None:
            network.harms = list(harms)
            key = f"a{next(accounts)}"
            account = client.object(Account, key)
            add = account.add.options(idempotency_key="once") if is_keyed else account.add
            unsafe = next((harm for harm in harms if harm not in SAFE), None)
            answer = await answer_of(sent_and_awaited(add) if is_send else add(5))
            if isinstance(answer, ServerUnreachableError):
                assert not is_keyed
                assert unsafe is not None
                assert not answer.nothing_accepted
            else:
                # An answer to a question may be lost too, and is asked for again.
                assert is_keyed or unsafe is None or is_send
                assert answer == 5
            network.harms = []
            assert await client.object(Account, key).add(0) in ((5,) if is_keyed or unsafe is None else (0, 5))

        law()
        runner.run(runtime.__aexit__(None, None, None))


async def test_what_a_handler_answers_stands_and_what_goes_on_for_long_ends() -> None:
    async with Runtime("memory:", [Account, Till]) as runtime:
        network = Network(httpx.ASGITransport(runtime.asgi()))
        async with httpx.AsyncClient(transport=network) as http:
            client = Client("http://app", retry=AT_ONCE, http=http)
            with pytest.raises(TerminalError, match="closed"):
                await client.service(Till).refuse.options(idempotency_key="k")()
            assert network.arrived.total() == 1

            for harm, error in ((NOT_SENT, ServerUnreachableError), (OVERLOAD, OverloadedError)):
                network.harms = [harm] * 30
                with pytest.raises(DurablyError) as ended:
                    await client.object(Account, "a").add(1)
                assert type(ended.value) is error
                assert len(network.harms) == 10


ACTORS = """
from durably import ObjectContext, Runtime, VirtualObject, handler, state


class Account(VirtualObject):
    total: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        self.total += amount
        await ctx.sleep(1)
        return self.total


runtime = Runtime("sqlite:///app.db", [Account])
"""


@pytest.mark.slow
async def test_a_keyed_call_goes_on_through_a_kill_of_its_server(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(ACTORS)
    with serving("app:runtime", cwd=tmp_path) as first:
        port = first.port
        async with Client(first.url) as client:
            add = client.object(Account, "a").add.options(idempotency_key="once")
            asked = asyncio.create_task(add(5))
            while not isinstance(await answer_of(add.output()), NotReadyError):
                await asyncio.sleep(0.01)
            first.kill()
            with serving("app:runtime", cwd=tmp_path, port=port):
                assert await asked == 5


async def sent_and_awaited(add: BoundHandler[[int], int]) -> int:
    return await (await add.send(5)).result()


async def answer_of(awaitable: Awaitable[int]) -> int | DurablyError:
    try:
        return await awaitable
    except DurablyError as error:
        return error
