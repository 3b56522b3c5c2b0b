"""durably inside a FastAPI service: the runtime lives as long as the application; routes call typed references.

    uvicorn examples.fastapi_app:app

The service has its own routes; below `/durably` stands what `durably serve` would offer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException

from durably import Caller, TerminalError
from examples.tickets import Cart, Status, Ticket, make_runtime

runtime = make_runtime("sqlite:///app.db")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    """Run the actors while the application runs."""
    async with runtime:
        yield


def durably() -> Caller:
    """The runtime, as something to call with: routes neither start nor stop it."""
    return runtime


Durably = Annotated[Caller, Depends(durably)]
app = FastAPI(title="Tickets", lifespan=lifespan)
app.mount("/durably", runtime.asgi())


@app.post("/carts/{user}/tickets/{seat}")
async def add(user: str, seat: str, caller: Durably) -> bool:
    """Put a seat into a cart."""
    try:
        return await caller.object(Cart, user).add_ticket(seat)
    except TerminalError as error:
        raise HTTPException(error.code, error.message) from error


@app.post("/carts/{user}/checkout", status_code=202)
async def checkout(user: str, caller: Durably, idempotency_key: Annotated[str, Header()]) -> str:
    """Begin a checkout, once however often the button is pressed; answers with the id of the invocation."""
    sent = await caller.object(Cart, user).checkout.options(idempotency_key=idempotency_key).send()
    return sent.id


@app.get("/seats/{seat}")
async def look(seat: str, caller: Durably) -> Status:
    """Look at a seat."""
    return await caller.object(Ticket, seat).peek()
