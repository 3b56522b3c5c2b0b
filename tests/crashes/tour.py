"""What is traced through a kill: `durably serve tests.crashes.tour:runtime`."""

from __future__ import annotations

from durably import Context, ObjectContext, Runtime, Service, VirtualObject, handler, state


class Seat(VirtualObject):
    is_taken: bool = state(default=False)

    @handler
    async def reserve(self, ctx: ObjectContext) -> bool:
        self.is_taken = True
        return True


class Tour(Service):
    @handler
    async def buy(self, ctx: Context, approval: str) -> str:
        """Call, act, wait for a person, and call again."""
        await ctx.object(Seat, "2B").reserve()
        await ctx.run("charge", _charge)
        answer = await ctx.signal(approval, str)
        await ctx.object(Seat, "3C").reserve()
        return answer


async def _charge() -> str:
    return "receipt"


runtime = Runtime("sqlite:///tour.db", [Seat, Tour])
