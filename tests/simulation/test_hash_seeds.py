"""What depends on the hash of text is found by running in processes with other hash seeds."""

from __future__ import annotations

import pytest

from durably import ObjectContext, VirtualObject, handler, state
from durably.testing import Faults, HashSeedError, Simulation, compare_hash_seeds

NAMES = ("ann", "bob", "eve", "joe", "sue")


class Post(VirtualObject, name="HashSeedPost"):
    """Sends letters to everybody, in an order or in none."""

    got: int = state(default=0)

    @handler
    async def send(self, ctx: ObjectContext, in_order: bool) -> None:
        names = set(NAMES)
        for name in sorted(names) if in_order else names:
            await ctx.object(Post, name).get.send()

    @handler
    async def get(self, ctx: ObjectContext) -> None:
        self.got += 1


async def in_order(sim: Simulation) -> None:
    await sim.object(Post, "start").send(True)


async def in_any_order(sim: Simulation) -> None:
    await sim.object(Post, "start").send(False)


@pytest.mark.slow
def test_an_order_that_depends_on_hashes_is_found() -> None:
    assert compare_hash_seeds(in_order, Post, runs=4) == 4
    with pytest.raises(HashSeedError, match=r"seed 0 depends on the hash of text(.|\n)*HashSeedPost/"):
        compare_hash_seeds(in_any_order, Post, runs=4, faults=Faults.none())


def test_a_program_that_cannot_be_found_by_name_is_refused() -> None:
    async def local(sim: Simulation) -> None:
        """Has no name outside."""

    with pytest.raises(TypeError, match="at the top of a module"):
        compare_hash_seeds(local, Post)
