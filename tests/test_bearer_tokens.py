from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import httpx
import pytest

from durably.bearer_tokens import BearerTokens, is_anonymous

ANONYMOUS: list[bool] = []
SEEN: list[list[tuple[bytes, bytes]]] = []


async def application(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    SEEN.append(scope["headers"])
    ANONYMOUS.append(is_anonymous(scope))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


async def answer(path: str, *headers: tuple[str, str]) -> httpx.Response:
    guarded = BearerTokens(application, ["new-token", "old-token"], open_paths={"/health"})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://here") as client:
        return await client.get(path, headers=list(headers))


@pytest.mark.parametrize("token", ["new-token", "old-token"])
async def test_each_token_lets_through_and_goes_no_further(token: str) -> None:
    for scheme in ("Bearer", "bearer"):
        told = await answer("/Cart/mary/add", ("authorization", f"{scheme} {token}"), ("x-other", "kept"))
        assert (told.status_code, told.text) == (200, "in")
        names = {name for name, _ in SEEN[-1]}
        assert b"authorization" not in names
        assert b"x-other" in names
        assert (await answer("/health", ("authorization", f"{scheme} {token}"))).status_code == 200
        assert ANONYMOUS[-2:] == [False, False]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "Bearer new-toke")],
        [("authorization", "Bearer new-token2")],
        [("authorization", "Bearer ")],
        [("authorization", "new-token")],
        [("authorization", "Basic new-token")],
        [("authorization", "Bearer new-token"), ("authorization", "Bearer wrong")],
    ],
)
async def test_nobody_else_is_let_through_or_told_anything(headers: list[tuple[str, str]]) -> None:
    before = len(SEEN)
    told = await answer("/Cart/mary/add", *headers)
    assert (told.status_code, told.headers["www-authenticate"], len(SEEN)) == (401, "Bearer", before)
    assert "new-token" not in told.text
    assert (await answer("/health", *headers)).status_code == 200, "is it up? is for all"
    assert ANONYMOUS[-1]
    assert (await answer("/health/../x", *headers)).status_code == 401
