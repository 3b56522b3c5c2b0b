"""An auction whose bids are events: a mailer and a board of leaders subscribe to them, and a page shows them live.

    uvicorn examples.events.app:app --port 3000 --timeout-graceful-shutdown 1

Open http://localhost:3000 in two windows and bid in one. Stop the server, start it again: the pages come back by
themselves and have missed nothing. (Without the time-out uvicorn would wait for their streams to end.) From a terminal:

    curl -N localhost:3000/durably/events
    curl -N "localhost:3000/durably/events?event=BidPlaced&start=beginning"
    curl localhost:3000/durably/Auction/piano/bid --json '{"bidder": "ann", "amount": 5}'
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Mount, Route

from durably import (
    Context,
    ObjectContext,
    Runtime,
    Service,
    SharedContext,
    TerminalError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.events import PubSub, subscribe

PAGE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class BidPlaced:
    """Somebody bids more than all before."""

    item: str
    bidder: str
    amount: int


@dataclass(frozen=True)
class AuctionClosed:
    """The last bid has won."""

    item: str
    winner: str
    amount: int


class Auction(VirtualObject):
    """One item; the key is its name."""

    bidder: str = state(default="")
    amount: int = state(default=0)
    is_closed: bool = state(default=False)

    @handler
    async def bid(self, ctx: ObjectContext, bidder: str, amount: int) -> None:
        """Bid. The event becomes real together with the bid, or not at all."""
        if self.is_closed:
            raise TerminalError(f"{self.key} is sold", code=409)
        if amount <= self.amount:
            raise TerminalError(f"{self.bidder} has bid {self.amount} already", code=409)
        self.bidder, self.amount = bidder, amount
        await ctx.publish(BidPlaced(self.key, bidder, amount), key=self.key)

    @handler
    async def close(self, ctx: ObjectContext) -> None:
        """Sell the item to the last bidder."""
        if self.bidder and not self.is_closed:
            self.is_closed = True
            await ctx.publish(AuctionClosed(self.key, self.bidder, self.amount), key=self.key)


def bidder_of(event: BidPlaced | AuctionClosed) -> str:
    """Whose board gets an event."""
    return event.bidder if isinstance(event, BidPlaced) else event.winner


class Board(VirtualObject):
    """What one bidder has done; each has a board, whose key is their name."""

    bids: int = state(default=0)
    won: list[str] = state(default=[])

    @subscribe(
        BidPlaced, AuctionClosed, key=lambda event: event.bidder if isinstance(event, BidPlaced) else event.winner
    )
    async def note(self, ctx: ObjectContext, event: BidPlaced | AuctionClosed) -> None:
        """Count bids, and list what was won."""
        if isinstance(event, BidPlaced):
            self.bids += 1
        else:
            self.won = [*self.won, event.item]

    @shared
    async def read(self, ctx: SharedContext) -> tuple[int, list[str]]:
        """How many bids there were, and what was won."""
        return self.bids, self.won


class Mailer(Service):
    """Writes to those who have won."""

    @subscribe(AuctionClosed)
    async def congratulate(self, ctx: Context, event: AuctionClosed) -> None:
        """Send one letter for each auction, however often the process crashes."""
        await ctx.run("mail", send_mail, event.winner, f"You have won {event.item} for {event.amount}.")


def send_mail(to: str, text: str) -> None:
    """Stands for a provider of mail."""
    print(f"to {to}: {text}")


def make_app(runtime: Runtime) -> Starlette:
    """The page at the root, and below /durably the way in for calls and readers of events."""

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncGenerator[None]:
        async with runtime:
            yield

    async def page(request: Request) -> FileResponse:
        return FileResponse(PAGE)

    routes = [Route("/", page), Mount("/durably", runtime.asgi())]
    return Starlette(routes=routes, lifespan=running)


ACTORS = (Auction, Board, Mailer)
app = make_app(Runtime("sqlite:///app.db", ACTORS, pubsub=PubSub(sse=True)))
