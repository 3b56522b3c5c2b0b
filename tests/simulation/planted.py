"""A workload with a bug in it, as a user would write one: two clients who read and write lose an addition."""

from __future__ import annotations

import asyncio

from durably import ObjectContext, SharedContext, VirtualObject, handler, shared, state
from durably.testing import Simulation, Workload


class Page(VirtualObject, name="PlantedPage"):
    """A page that everybody edits."""

    words: list[str] = state(default=[])

    @shared
    async def read(self, ctx: SharedContext) -> list[str]:
        return self.words

    @handler
    async def write(self, ctx: ObjectContext, words: list[str]) -> None:
        self.words = words


async def program(sim: Simulation) -> None:
    async with asyncio.TaskGroup() as group:
        for name in ("ann", "bob"):
            group.create_task(edit(sim, name))
    words = await sim.object(Page, "x").read()
    assert sorted(words) == ["ann", "bob"], f"the page says {words}"


async def edit(sim: Simulation, name: str) -> None:
    page = sim.client(name).object(Page, "x")
    await sim.advance(0.01 * sim.random.random())
    words = await page.read()
    await page.write([*words, name])


workload = Workload(program=program, actors=(Page,))
