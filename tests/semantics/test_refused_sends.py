"""A message of a handler that cannot be delivered: its id leads to an invocation that has failed, and says why."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from durably import (
    Invocation,
    InvocationStatus,
    ObjectContext,
    SharedContext,
    TerminalError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.storage.memory import MemoryStore
from durably.testing import Harness
from tests.semantics.test_awakeables import WAYS

REFUSED: dict[str, tuple[dict[str, Any], str, int]] = {
    "no such service": ({"service": "Nobody", "handler": "hear"}, "There is no service, object or workflow", 404),
    "no such handler": ({"service": "Sender", "handler": "hear", "key": "a"}, "has no handler 'hear'", 404),
    "no key": ({"service": "Sender", "handler": "ask"}, "needs a key", 404),
    "a bad argument": ({"service": "Sender", "handler": "send", "key": "b", "argument": 5}, "a JSON object", 400),
    "delayed": ({"service": "Nobody", "handler": "hear", "key": "a", "after": 5}, "There is no service", 404),
    "with a key that stays free": (
        {"service": "Nobody", "handler": "hear", "idempotency_key": "i"},
        "There is no",
        404,
    ),
}


class Sender(VirtualObject):
    sent: str = state(default="")

    @handler
    async def send(self, ctx: ObjectContext, case: str, seconds: float) -> str:
        """In a first step, or in the last one."""
        send: Any = ctx.send  # Overloads say nothing of options that are a dictionary.
        sent: Invocation[bytes] = await send(**REFUSED[case][0])
        self.sent = sent.id
        if seconds:
            await ctx.sleep(seconds)
            with_reason = await said(sent.result)
            assert "There is no" in with_reason or REFUSED[case][1] in with_reason
        return sent.id

    @shared
    async def ask(self, ctx: SharedContext) -> list[str]:
        handle = ctx.invocation(self.sent)
        return [await handle.status(), await said(handle.result), await said(handle.output)]


async def said(asked: Any) -> str:
    try:
        return str(await asked())
    except TerminalError as error:
        return f"{error.code} {error}"


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seconds", [0, 10])
async def test_the_id_of_a_refused_message_says_why(case: str, way: str, seconds: float) -> None:
    store, (_, words, code) = MemoryStore(), REFUSED[case]
    async with Harness(Sender, store=store, **WAYS[way]) as app:
        sender = app.object(Sender, "a")
        sending = await sender.send.send(case, seconds)
        await app.advance(20)
        id = await sending.result()
        for _ in range(2):
            status, result, output = await sender.ask()
            assert status == await app.invocation(id).status() == InvocationStatus.COMPLETED
            assert result == output == await said(app.invocation(id).result)
            assert result.startswith(f"{code} ")
            assert words in result
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi()), base_url="http://d") as client:
                answer = await client.get(f"/restate/invocation/{id}/attach")
                assert (answer.status_code, words in answer.json()["message"]) == (code, True), answer.text
            await app.crash()
        await app.advance(2 * 86_400)
        assert not store.disk.rows  # It is kept as other outcomes are.
