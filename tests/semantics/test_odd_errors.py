"""Errors whose own code fails when it is asked: their invocations and actions end all the same (rules E3, V1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from durably import (
    ActionFailedError,
    Context,
    PausedInvocationError,
    RetryableError,
    RetryPolicy,
    Runtime,
    Service,
    TerminalError,
    handler,
)
from durably.ingress import Ingress
from durably.storage.memory import MemoryStore
from durably.testing import Harness


class SeatError(TerminalError):
    seat: int


class UnreadableError(SeatError):
    @property
    def code(self) -> int:  # type: ignore[override]
        raise KeyError("no code")

    @property
    def seat(self) -> int:  # type: ignore[override]
        raise KeyError("no seat")


class UnknownDelayError(RetryableError):
    @property
    def retry_after(self) -> float:
        raise KeyError("no delay")

    @retry_after.setter
    def retry_after(self, value: object) -> None: ...  # pyright: ignore[reportIncompatibleVariableOverride]


class SilentGroup(ExceptionGroup[ValueError]):
    @property
    def message(self) -> str:
        raise KeyError("no message")


class Uncertain(type):
    def __instancecheck__(cls, instance: object) -> bool:
        raise KeyError("not known")


class UncertainError(Exception, metaclass=Uncertain):
    """Nothing is known to be an instance of it."""


POLICY = RetryPolicy(max_attempts=2, give_up_on=(UncertainError,))
RAISED: dict[str, Callable[[], Exception]] = {
    "terminal": lambda: UnreadableError("over"),
    "later": lambda: UnknownDelayError("later"),
    "group": lambda: SilentGroup("several", [ValueError("one")]),
}


class Failing(Service):
    @handler(retry=POLICY)
    async def fail(self, ctx: Context, name: str) -> None:
        raise RAISED[name]()

    @handler
    async def act(self, ctx: Context, name: str) -> None:
        def fail() -> None:
            raise RAISED[name]()

        await ctx.run.options(retry=POLICY)("act", fail)


@pytest.mark.parametrize(
    ("way", "name", "expected"),
    [
        ("fail", "terminal", UnreadableError),
        ("act", "terminal", UnreadableError),
        ("fail", "later", PausedInvocationError),
        ("act", "later", ActionFailedError),
        ("fail", "group", PausedInvocationError),
        ("act", "group", ActionFailedError),
    ],
)
async def test_an_error_whose_own_code_fails_ends_its_invocation(
    way: str, name: str, expected: type[Exception]
) -> None:
    async with Harness(Failing) as app:
        asked: asyncio.Future[Any] = asyncio.ensure_future(getattr(app.service(Failing), way)(name))
        await app.advance(10)
        with pytest.raises(expected, match=r"over|later|several: ValueError: one"):
            async with asyncio.timeout(10):
                await asked


async def test_over_http_it_is_told_as_far_as_it_can_be_read() -> None:
    async with Runtime(MemoryStore(), [Failing]) as runtime:
        transport = httpx.ASGITransport(Ingress(runtime))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.post("/Failing/fail", json="terminal")
    assert answer.status_code == 500
    assert answer.json() == {
        "code": 500, "message": "over", "source": "invocation", "metadata": {"lost_fields": "seat"},
    }  # fmt: skip
