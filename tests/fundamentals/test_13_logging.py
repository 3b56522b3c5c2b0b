"""`ctx.log` writes each line once, however often the handler is replayed, and says which invocation it is about."""

from __future__ import annotations

import asyncio

import pytest

from durably import ObjectContext, VirtualObject, handler
from durably.testing import Harness


class Baker(VirtualObject):
    @handler
    async def bake(self, ctx: ObjectContext) -> None:
        ctx.log.warning("kneading", flour="rye")
        await ctx.sleep(60)
        ctx.log.warning("baked")


async def test_a_line_is_written_once(caplog: pytest.LogCaptureFixture) -> None:
    async with Harness(Baker, suspend_after=0) as app:
        baking = asyncio.ensure_future(app.object(Baker, "anna").bake())
        await app.settle()
        await app.crash()
        await app.advance(minutes=1)
        await baking
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert all("Baker/anna" in line for line in lines)
    assert "flour='rye'" in lines[0]
