"""What a user writes for the contracts of `theatre.proto`.

The tests import it beside the generated modules, and have both checkers look at it there: here those are missing.
"""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty
from theatre_durably import BoxOffice, Hall, HallClient, Season
from theatre_pb2 import Receipt, Seat

from durably import (
    Context,
    ObjectContext,
    SharedContext,
    SharedWorkflowContext,
    WorkflowContext,
    handler,
    shared,
    state,
)


class AcmeHall(Hall):
    times: int = state(default=0)
    last: Seat = state(default=Seat())

    @handler(name="Take")
    async def take(self, ctx: ObjectContext, request: Seat) -> Seat.State:
        self.times += 1
        self.last = request
        return Seat.State(is_taken=True, times=self.times)

    @shared(name="GetState")
    async def get_state(self, ctx: SharedContext, request: Empty) -> Seat.State:
        return Seat.State(is_taken=self.last.number > 0, times=self.times)


class AcmeBoxOffice(BoxOffice):
    @handler(name="SellSeat")
    async def sell_seat(self, ctx: Context, request: Seat) -> Receipt:
        taken = await HallClient(ctx, request.row).take(request)
        price = await ctx.run("price", price_of, request)
        return Receipt(price=price.price * taken.times, seat=request)


async def price_of(seat: Seat) -> Receipt:
    return Receipt(price=2.5 * seat.number)


class AcmeSeason(Season):
    @handler
    async def run(self, ctx: WorkflowContext, request: Seat) -> Receipt:
        return Receipt(price=100, seat=request)

    @shared(name="Key")
    async def key_(self, ctx: SharedWorkflowContext, request: Empty) -> Receipt:
        return Receipt(seat=Seat(row=self.key))
