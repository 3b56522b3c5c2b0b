"""durably inside a FastAPI service: the runtime lives as long as the application; routes call typed references.

    uvicorn examples.fastapi_app:app

The service has its own routes; below `/durably` stands what `durably serve` would offer.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header

from durably import Runtime
from durably.fastapi import Durably, add_error_handlers, lifespan, object_of
from examples.tickets import Cart, Status, Ticket, make_runtime

router = APIRouter()


@router.post("/carts/{user}/tickets/{seat}")
async def add(seat: str, cart: Annotated[Cart, Depends(object_of(Cart, "user"))]) -> bool:
    """Put a seat into a cart."""
    return await cart.add_ticket(seat)


@router.post("/carts/{user}/checkout", status_code=202)
async def checkout(user: str, durably: Durably, idempotency_key: Annotated[str, Header()]) -> str:
    """Begin a checkout, once however often the button is pressed; answers with the id of the invocation."""
    sent = await durably.object(Cart, user).checkout.options(idempotency_key=idempotency_key).send()
    return sent.id


@router.get("/seats/{seat}")
async def look(ticket: Annotated[Ticket, Depends(object_of(Ticket, "seat"))]) -> Status:
    """Look at a seat."""
    return await ticket.peek()


def make_app(runtime: Runtime) -> FastAPI:
    """The application on this runtime, such as a `Harness` in a test."""
    app = FastAPI(title="Tickets", lifespan=lifespan(runtime))
    add_error_handlers(app)
    app.include_router(router)
    app.mount("/durably", runtime.asgi())
    return app


app = make_app(make_runtime("sqlite:///app.db"))
