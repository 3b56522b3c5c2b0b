"""`-w -n 1`: the same question again and again, until Ctrl-C."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import typer
from rich.console import Console

from durably.runtime.clock import US_PER_SECOND, SystemClock

Show = Callable[[], Awaitable[None]]


async def repeated(show: Show, every_seconds: float | None) -> None:
    """Show an answer once, or each so many seconds: on a terminal in the place of the one before, else below it."""
    if every_seconds is None:
        await show()
        return
    console, is_first = Console(), True
    while True:
        if console.is_terminal:
            console.clear()
        elif not is_first:
            typer.echo()
        await show()
        is_first = False
        await SystemClock().sleep(round(every_seconds * US_PER_SECOND))


def run_repeatedly(work: Callable[[], Awaitable[None]], every_seconds: float | None) -> None:
    """Run a command. Ctrl-C is its way to end where it repeats itself, and an interruption where it does not."""

    async def main() -> None:
        await work()

    with suppress(*() if every_seconds is None else (KeyboardInterrupt,)):
        asyncio.run(main())
