"""`Harness(consumers="inline")`: a call of the test ends when the consumers of the transitions that it led to have run.

Time passes as far as they need it. One that fails fails the call of the test; so does one that waits for something that
time does not bring.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from durably.actors.protocol.operations import CallSite
from durably.ids import InvocationStatus
from durably.runtime.gateway.pending_requests import PendingRequests, ResultOperation
from durably.runtime.inspection.listing import ListedInvocation
from durably.runtime.runtime import Runtime
from durably.runtime.supervision.supervisor import Supervisor
from durably.testing.harness.standstill import StandstillError

R = TypeVar("R")

MOST_MOMENTS = 1_000
"""So often something may become due while consumers run; what takes longer waits for something else."""
_HAS_ENDED = (InvocationStatus.COMPLETED, InvocationStatus.PAUSED)


class LetsTimePass(Protocol):
    """A harness, as its consumers need it."""

    async def settle(self) -> None: ...
    async def advance_to_next(self) -> bool:
        """Let time pass until something is due; False: nothing ever is."""
        ...


class InlineConsumers:
    """Runs the consumers of one harness within the calls that they follow from."""

    def __init__(self, runtime: Runtime, time: LetsTimePass) -> None:
        self._runtime = runtime
        self._time = time
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self, supervisor: Supervisor) -> None:
        """Let all that consumers have to do be done.

        Raises:
            StandstillError: one does not end, however much time passes.
            The error that paused one.
        """
        await self._time.settle()
        for _ in range(MOST_MOMENTS):
            waiting = await self._unfinished(supervisor)
            if waiting is None:
                return
            if not await self._time.advance_to_next():
                break
        waiting = await self._unfinished(supervisor)
        if waiting is not None:
            raise StandstillError(
                f"{waiting.description.target} has not ended, and no time that passes ends it. With "
                'Harness(consumers="inline") a call ends when its consumers have. Leave that out where one waits '
                f"for the test, and call settle().\n{await self._runtime.why(waiting.id)}"
            )

    def run_before(
        self, supervisor: Supervisor, go_on: Callable[[], None], fail: Callable[[BaseException], None]
    ) -> None:
        """Go on when consumers have run."""
        task = asyncio.ensure_future(self._run_before(supervisor, go_on, fail))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _run_before(
        self, supervisor: Supervisor, go_on: Callable[[], None], fail: Callable[[BaseException], None]
    ) -> None:
        try:
            await self.run(supervisor)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # The test raises it: it may be one of pytest's.
            fail(error)
        else:
            go_on()

    async def reply(self, supervisor: Supervisor, answering: Awaitable[R]) -> R:
        """For a call over HTTP."""
        reply = await answering
        await self.run(supervisor)
        return reply

    def end(self) -> None:
        for task in self._under_way:
            task.cancel()

    async def _unfinished(self, supervisor: Supervisor) -> ListedInvocation | None:
        """A consumer that has something to do, and is on."""
        for one in supervisor.engine_in_charge().parts.subscriptions.known():
            async for found in self._runtime.invocations(target=one.handler.service):
                if found.description.status not in _HAS_ENDED:
                    return found
        return None


class CallWithConsumers(ResultOperation[R]):
    """A call of the test, which ends when consumers have run."""

    __slots__ = ("_consumers", "_supervisor")

    def __init__(
        self,
        pending: PendingRequests,
        what: object,
        site: CallSite | None,
        decode: Callable[[bytes], R],
        consumers: InlineConsumers,
        supervisor: Supervisor,
    ) -> None:
        super().__init__(pending, what, site, decode)
        self._consumers = consumers
        self._supervisor = supervisor

    def finish(self, result: R) -> None:
        finish: Any = super().finish
        self._consumers.run_before(self._supervisor, partial(finish, result), self.refuse)
