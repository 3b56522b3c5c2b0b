"""`Durable`: what the pytest fixture `durable` gives to a test."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from typing import Any, Literal

from durably.actors.actor import Actor
from durably.actors.headers import ForwardHeaders
from durably.actors.retry import RetryPolicy
from durably.actors.values.durations import Duration
from durably.actors.values.serde import SerdeFactory
from durably.runtime.runtime import Limits
from durably.storage.introspection import InspectableStore
from durably.testing.harness.harness import ONE_ATTEMPT, Harness


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

    async def __call__(
        self,
        *actors: type[Actor],
        dependencies: Mapping[Any, Any] | None = None,
        seed: int = 0,
        retry: RetryPolicy = ONE_ATTEMPT,
        suspend_after: Duration | None = None,
        limits: Limits | None = None,
        store: InspectableStore | None = None,
        allow: Collection[str] = (),
        deadlocks: Literal["error", "wait"] = "error",
        forward_headers: ForwardHeaders | None = None,
        serde: SerdeFactory | None = None,
        nothing_resident: bool = False,
        action_patience: Duration = 10.0,
    ) -> Harness:
        """Start one. The parameters are those of `Harness`."""
        harness = Harness(
            *actors,
            dependencies=dependencies,
            seed=seed,
            retry=retry,
            suspend_after=suspend_after,
            limits=limits,
            store=store,
            allow=allow,
            deadlocks=deadlocks,
            forward_headers=forward_headers,
            serde=serde,
            nothing_resident=nothing_resident,
            action_patience=action_patience,
        )
        return await self.started.enter_async_context(harness)
