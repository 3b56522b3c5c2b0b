"""Faults of actions: an attempt of `ctx.run` that fails before it begins or when it has done everything, or takes long.

Over a network these cannot be told apart, so an action has to bear being attempted again. The retry policy of the
action or of the simulation decides about further attempts. By default a simulation has none, because a failed attempt
is to end the run as a bug does; then the world attempts the action again by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from durably.actors.protocol.port import Action
from durably.actors.retry import RetryPolicy
from durably.testing.simulation.faults import Kind, Place
from durably.testing.simulation.injection import Injection, Strike

AGAIN_AFTER_SECONDS = 0.05

Attempt = Callable[[Action[Any], int], Awaitable[Any]]
"""Given an action and the number of the attempt."""


class ActionFailedError(ConnectionError):
    """A simulated failure of an attempt of an action."""


class ActionTimedOutError(TimeoutError):
    """The limit of an attempt passed because of a simulated fault."""


class World(Protocol):
    """The simulation, as actions see it."""

    injection: Injection

    def action_begins(self, name: str, /) -> None: ...
    def action_ended(self, name: str, /) -> None: ...
    def action_failed(self, name: str, what: str, /) -> None:
        """An attempt fails because of a fault, in this way."""
        ...


async def attempt_with_faults(
    world: World, action: Action[Any], fallback: RetryPolicy, number: int, attempt: Attempt
) -> Any:
    """One attempt of an action, as the runtime sees it.

    An attempt that the world makes again by itself is a further one to the action, as it would be in production; a
    limited policy never counts further than it allows there.
    """
    faulty = _Attempts(world, action, attempt)
    policy = fallback if action.retry is None else action.retry
    most = None if action.retry is None else policy.max_attempts
    while True:
        try:
            return await faulty.once(number)
        except (ActionFailedError, ActionTimedOutError):
            is_bug_mode = action.retry is None and policy.max_attempts == 1
            is_limited = policy.max_attempts is not None or policy.max_duration is not None
            if not is_bug_mode and (faulty.counts or not is_limited):
                raise
        number = number + 1 if most is None else min(number + 1, max(most, number))
        await asyncio.sleep(AGAIN_AFTER_SECONDS)
        world.action_ended(action.name)
        world.action_begins(action.name)


class _Attempts:
    """The attempts of an action that the runtime takes for one."""

    def __init__(self, world: World, action: Action[Any], attempt: Attempt) -> None:
        self.counts = True
        """The last failure counts for a limited retry policy."""
        self._world = world
        self._action = action
        self._attempt = attempt

    async def once(self, number: int) -> Any:
        """Make one, with this number.

        Raises:
            ActionFailedError, ActionTimedOutError: a fault made it fail.
        """
        name = self._action.name
        try:
            if self._strikes("action_fails_before", "before_action") is not None:
                self._world.action_failed(name, "fails before it does anything")
                raise ActionFailedError(f"The simulated world failed before the action {name!r} did anything.")
            hangs = self._strikes("action_hangs", "before_action")
            if hangs is not None:
                self._world.action_failed(name, "hangs")
                await self._take_long(hangs)
                raise ActionFailedError(f"The simulated action {name!r} hung, and failed.")
            slow = self._strikes("action_slow", "before_action")
            if slow is not None:
                await self._take_long(slow)
            result = await self._attempt(self._action, number)
        finally:
            self._world.injection.passes("after_action")
        if self._strikes("action_fails_after", "after_action") is not None:
            self._world.action_failed(name, "has done everything, and fails: its answer is lost")
            raise ActionFailedError(f"The simulated world lost the answer of the action {name!r}.")
        return result

    def _strikes(self, kind: Kind, place: Place) -> Strike | None:
        strike = self._world.injection.strikes(kind, place)
        if strike is not None:
            self.counts = strike.fault.counts
        return strike

    async def _take_long(self, strike: Strike) -> None:
        """No answer comes for a while, or not before the limit of the attempt has passed."""
        lasts_us, limit_us = strike.lasts_us, self._action.timeout_us
        if limit_us is not None and lasts_us >= limit_us:
            await asyncio.sleep(limit_us / 1_000_000)
            self._world.action_failed(self._action.name, "takes longer than its timeout")
            raise ActionTimedOutError(f"The simulated action {self._action.name!r} took longer than its timeout.")
        await asyncio.sleep(lasts_us / 1_000_000)
