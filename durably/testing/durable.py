"""`Durable`: what the pytest fixture `durable` gives to a test."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from durably.actors.actor import Actor
from durably.testing.harness import Harness


class Durable:
    """Starts harnesses that are closed after the test, in its event loop.

        async def test_a_seat_is_reserved_once(durable: Durable) -> None:
            app = await durable(Seat, Cart, dependencies={Payments: FakePayments()})

    Closing one raises what nobody has heard of, such as an error in a handler of a message, so that the test fails; if
    it has failed already, its own error stands.
    """

    def __init__(self) -> None:
        self.started = AsyncExitStack()
        """Closes the harnesses, the last one first, when it is left."""

    async def __call__(self, *actors: type[Actor], **options: Any) -> Harness:
        """Start one. `options` are the keyword arguments of `Harness`."""
        return await self.started.enter_async_context(Harness(*actors, **options))
