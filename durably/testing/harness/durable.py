"""`Durable`: what the pytest fixture `durable` gives to a test."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal

from durably.actors.actor import Actor
from durably.actors.headers import ForwardHeaders
from durably.actors.middleware import MiddlewareGiven
from durably.actors.retry import RetryPolicy
from durably.actors.values.durations import Duration
from durably.actors.values.serde import SerdeFactory
from durably.runtime.runtime import Limits, PubSub
from durably.sources import Feed
from durably.storage.introspection import InspectableStore
from durably.testing.harness.harness import ONE_ATTEMPT, Harness


class Durable:
    """Starts harnesses that are closed after the test, in its event loop.

        async def test_a_seat_is_reserved_once(durable: Durable) -> None:
            app = await durable(Seat, Cart, dependencies={Payments: FakePayments()})

    Closing one raises errors that no caller has seen, such as one in a handler of a message, so that the test fails; if
    it has failed already, its own error stands.
    """

    def __init__(self) -> None:
        self.started = AsyncExitStack()
        """Closes the harnesses, the last one first, when it is left."""

    async def __call__(
        self,
        *actors: type[Actor],
        dependencies: Mapping[Any, Any] | None = None,
        middleware: Sequence[MiddlewareGiven] = (),
        seed: int = 0,
        retry: RetryPolicy = ONE_ATTEMPT,
        suspend_after: Duration | None = None,
        limits: Limits | None = None,
        pubsub: PubSub | None = None,
        sources: Sequence[Feed] = (),
        store: InspectableStore | str | os.PathLike[str] | None = None,
        allow: Collection[str] = (),
        deadlocks: Literal["error", "wait"] = "error",
        forward_headers: ForwardHeaders | None = None,
        serde: SerdeFactory | None = None,
        nothing_resident: bool = False,
        action_patience: Duration = 10.0,
        consumers: Literal["inline"] | None = None,
    ) -> Harness:
        """Start one. The parameters are those of `Harness`."""
        harness = Harness(
            *actors,
            dependencies=dependencies,
            middleware=middleware,
            seed=seed,
            retry=retry,
            suspend_after=suspend_after,
            limits=limits,
            pubsub=pubsub,
            sources=sources,
            store=store,
            allow=allow,
            deadlocks=deadlocks,
            forward_headers=forward_headers,
            serde=serde,
            nothing_resident=nothing_resident,
            action_patience=action_patience,
            consumers=consumers,
        )
        return await self.started.enter_async_context(harness)
