"""The bare limit without a disk: asyncio actors that keep nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.mailboxes import BEHAVIOURS, Mailboxes, NoLog, operation_on
from benchmarks.subject import InProcess, Running


@asynccontextmanager
async def _open(folder: Path, workload: str) -> AsyncGenerator[Running]:
    mailboxes = Mailboxes(NoLog(), BEHAVIOURS[workload])
    try:
        yield Running(operation=operation_on(mailboxes, workload), counts=lambda: None)
    finally:
        await mailboxes.close()


subject = InProcess(open=_open)
