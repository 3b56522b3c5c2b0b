"""`ActionPatience`: how long virtual time waits for actions, inside which time is real.

Before time passes, an action under way may end: real I/O has to work. But one that never ends must not stop the test,
so each attempt is waited for up to a second of real time. After that time passes without it, which is how the handler's
own time limits end it. If nothing in virtual time can, the action is named.
"""

from __future__ import annotations

import asyncio

from durably.actors.protocol.commands import Sleep
from durably.runtime.actions.actions import ActionKey, Actions, Attempted
from durably.runtime.engine.engine import Engine
from durably.testing.harness.standstill import StandstillError, name_action

PATIENCE_SECONDS = 1.0


class ActionPatience:
    """Waits for the actions of one harness."""

    def __init__(self) -> None:
        self._since: dict[ActionKey, float] = {}
        """When each attempt under way was first waited for, by the event loop's time."""
        self._woken: asyncio.Future[None] | None = None

    async def wait(self, actions: Actions) -> bool:
        """Wait until an attempt ends, or has been waited for long enough; False: there is nothing to wait for."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._since = {attempt.key: self._since.get(attempt.key, now) for attempt in actions.under_way()}
        left = max(self._since.values(), default=0.0) + PATIENCE_SECONDS - now
        if not self._since or left <= 0:
            return False
        self._woken = loop.create_future()
        timer = loop.call_later(left, self._wake)
        try:
            await self._woken
        finally:
            timer.cancel()
            self._woken = None
        return True

    def attempt_ended(self, key: ActionKey) -> None:
        self._since.pop(key, None)
        self._wake()

    def check(self, engine: Engine, actions: Actions) -> None:
        """Name the actions that were waited for in vain.

        Raises:
            StandstillError: there are some, and no time limit of theirs or of their handlers will end them.
        """
        stuck = [
            attempt for attempt in actions.under_way() if attempt.key in self._since and _is_stuck(engine, attempt)
        ]
        if stuck:
            names = " and ".join(name_action(engine, attempt.key, attempt.name) for attempt in stuck)
            raise StandstillError(
                f"{names} did not end within {PATIENCE_SECONDS:g} s of real time, and no time limit ends it. Virtual "
                "time has passed without it, as asked. Inside an action time is real: let the action end before you "
                "call advance(), or give it a limit: ctx.run.options(timeout=...)."
            )

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)


def _is_stuck(engine: Engine, attempt: Attempted) -> bool:
    """No virtual time that passes ends it: it has no limit, and its handler waits for nothing but answers."""
    invocation = engine.parts.registry.live.get(attempt.key[0])
    if attempt.until is not None or not attempt.is_wanted or invocation is None or invocation.journal is None:
        return False
    return not any(isinstance(command, Sleep) for command in invocation.journal.pending.values())
