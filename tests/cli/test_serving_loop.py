"""Rule E3 in `durably serve`, whose event loop is its own: only a signal ends it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from durably.cli import serve

LOOPS: dict[str, Callable[[], Any]] = {"uvloop": serve.fastest_loop, "asyncio": lambda: None}


@pytest.fixture(params=list(LOOPS), autouse=True)
def loop_factory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "fastest_loop", LOOPS[request.param])


async def leave() -> None:
    sys.exit(0)


async def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("way_out", [leave, interrupt])
def test_the_loop_goes_on_after_callbacks_and_tasks_that_end_the_process(way_out: Callable[[], Any]) -> None:
    ended: list[str] = []

    def call() -> None:
        try:
            way_out().send(None)
        finally:
            ended.append("callback")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(call)
        loop.call_soon(ended.append, "behind it")
        leaver = asyncio.Task(way_out(), loop=loop)
        await asyncio.wait([leaver])
        assert isinstance(leaver.exception(), SystemExit | KeyboardInterrupt)
        ended.append("main")

    with structlog.testing.capture_logs() as lines:
        serve.run_on_the_fastest_loop(main())
    assert ended == ["callback", "behind it", "main"]
    # uvloop keeps one error of a turn.
    assert {line["event"] for line in lines} == {"user code tried to end the process; the server goes on"}


def test_a_signal_ends_it() -> None:
    async def main() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        serve.run_on_the_fastest_loop(main())


def test_a_program_that_ends_the_process_itself_does() -> None:
    with pytest.raises(SystemExit):
        serve.run_on_the_fastest_loop(leave())
