"""What the machine tells several callers, it tells in the order in which they asked, in every process.

Found by comparing runs of the simulator to the letter: those who waited stood in a set, by address, so after a failed
commit the order was another one each time.
"""

from __future__ import annotations

import asyncio

from durably import ObjectContext, StoreUnavailableError, VirtualObject, handler
from durably.storage.memory import MemoryStore
from durably.testing import Harness
from durably.testing.stores.wrapped import FailingStore

CALLERS = 30


class Desk(VirtualObject, name="RegressionDesk"):
    """Answers."""

    @handler
    async def ask(self, ctx: ObjectContext) -> None:
        await ctx.sleep(3_600)


async def test_callers_hear_of_a_failure_in_the_order_in_which_they_asked() -> None:
    told: list[int] = []
    store = FailingStore(MemoryStore(), fail_at=1, durable=False)

    async def ask(app: Harness, number: int) -> None:
        try:
            await app.object(Desk, str(number)).ask()
        except StoreUnavailableError:
            told.append(number)

    async with Harness(Desk, store=store) as app:
        asked = [asyncio.create_task(ask(app, number)) for number in range(CALLERS)]
        await asyncio.gather(*asked)
    assert told == [*range(CALLERS)]
