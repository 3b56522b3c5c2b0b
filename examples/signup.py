"""Two workflows: a sign-up that waits for a person, and a watch that polls for months.

    durably serve examples.signup:runtime

    curl localhost:8080/Signup/ann/run/send -H 'content-type: application/json' -d '"ann@example.org"'
    curl localhost:8080/Signup/ann/status
    curl localhost:8080/Signup/ann/confirm -H 'content-type: application/json' -d '"the code in the mail"'
    curl localhost:8080/restate/workflow/Signup/ann/attach

A workflow runs once for each id. Its other handlers are called before, during and after the run: here they read how it
stands, and complete the promise that it waits for.
"""

from __future__ import annotations

import asyncio

from durably import (
    DurablePromise,
    Runtime,
    SharedWorkflowContext,
    TerminalError,
    Workflow,
    WorkflowContext,
    handler,
    promise,
    shared,
    state,
)
from examples.providers import Ledger, MailProvider

CONFIRM_WITHIN_SECONDS = 3 * 24 * 3600
POLL_EVERY_SECONDS = 3600
POLLS_PER_EXECUTION = 24
"""The journal of an execution grows with each poll; after a day the next execution begins with an empty one."""


class Signup(Workflow):
    """Somebody signs up; the key is the name that they want."""

    status: str = state(default="unknown")
    confirmed: DurablePromise[str] = promise()

    def __init__(self, mail: MailProvider) -> None:
        self._mail = mail

    @handler
    async def run(self, ctx: WorkflowContext, email: str) -> bool:
        """Send a code, and wait for somebody to bring it back. Returns whether the name is theirs."""
        code = str(ctx.uuid())
        self.status = "waits for the code"
        await ctx.run("mail the code", self._mail.send, email, code)
        try:
            async with asyncio.timeout(CONFIRM_WITHIN_SECONDS):
                brought = await self.confirmed
        except TimeoutError:
            self.status = "has expired"
            return False
        if brought != code:
            raise TerminalError("that is not the code", code=403)
        self.status = "is signed up"
        await ctx.run("mail a welcome", self._mail.send, email, f"Welcome, {self.key}!")
        return True

    @shared
    async def confirm(self, ctx: SharedWorkflowContext, code: str) -> None:
        """Bring the code back. The second time, `AlreadyCompletedError` says that it has been done."""
        await self.confirmed.resolve(code)

    @shared
    async def look(self, ctx: SharedWorkflowContext) -> str:
        """How it stands, at any time."""
        return self.status


class Carrier:
    """Knows where parcels are: delivered after so many polls."""

    def __init__(self, delivered_after: int = 60) -> None:
        self._delivered_after = delivered_after

    def has_delivered(self, parcel: str, polls: int) -> bool:
        return polls > self._delivered_after


class ParcelWatch(Workflow):
    """Polls until a parcel has come, however long that takes; the key is its number."""

    polls: int = state(default=0)

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    @handler
    async def run(self, ctx: WorkflowContext, polls_per_execution: int = POLLS_PER_EXECUTION) -> int:
        """Returns how often it had to ask."""
        for _ in range(polls_per_execution):
            self.polls += 1
            if await ctx.run("ask the carrier", self._carrier.has_delivered, self.key, self.polls):
                return self.polls
            await ctx.sleep(POLL_EVERY_SECONDS)
        return ctx.continue_as_new(ParcelWatch.run, polls_per_execution)


runtime = Runtime(
    "sqlite:///signup.db",
    [Signup, ParcelWatch],
    dependencies={MailProvider: MailProvider(Ledger()), Carrier: Carrier()},
)
