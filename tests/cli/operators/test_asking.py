"""Ctrl-C and an end of the input at the question are no yes, and no traceback."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
import typer

from durably.cli.failures import CommandError
from durably.cli.operators import mcp_server
from durably.cli.operators.asking import agreed
from durably.cli.operators.sources import Whom


async def asked() -> None:
    agreed("Kill 1 invocation?", yes=False)


def interrupted(question: str, **_: Any) -> bool:
    signal.raise_signal(signal.SIGINT)
    return True


def ended(question: str, **_: Any) -> bool:
    raise typer.Abort


@pytest.mark.parametrize(("confirm", "status"), [(interrupted, 130), (ended, 1)])
def test_what_is_not_answered_is_not_done(monkeypatch: pytest.MonkeyPatch, confirm: Any, status: int) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", confirm)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(CommandError, match=r"Nothing was touched\.") as refused:
        asyncio.run(asked())  # The loop has a handler of its own for Ctrl-C, which waits for the next `await`.
    assert refused.value.status == status
    assert signal.getsignal(signal.SIGINT) is before


def test_an_assistant_is_served_until_ctrl_c_which_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: list[Any] = []

    class Tools:
        async def run_stdio_async(self) -> None:
            handlers.append(signal.getsignal(signal.SIGINT))

    def tools(_: Whom, *, may_change: bool) -> Tools:
        assert not may_change
        return Tools()

    monkeypatch.setattr(mcp_server, "mcp_server", tools)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    exits: list[int] = []
    monkeypatch.setattr("os._exit", exits.append)
    try:
        mcp_server.serve_mcp(Whom(), may_change=False)
        handlers[0](signal.SIGINT, None)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    assert exits == [130]
