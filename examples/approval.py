"""A human approval: a handler asks a person, waits for days if need be, and holds no memory meanwhile.

    durably serve examples.approval:runtime

    curl localhost:8080/Expense/7/submit/send -H 'content-type: application/json' -d '{"amount": 250, "to": "boss"}'

The letter that is printed has the line that approves it, such as

    curl localhost:8080/restate/awakeables/sign_1.../resolve -d true

and the same can be done by whoever knows the expense only:

    curl localhost:8080/Expense/7/decide -H 'content-type: application/json' -d true
    curl -X POST localhost:8080/Expense/7/outcome
"""

from __future__ import annotations

import asyncio
import sys

from durably import (
    Awakeable,
    ObjectContext,
    Runtime,
    SharedContext,
    TerminalError,
    VirtualObject,
    handler,
    shared,
    state,
)

DAY_SECONDS = 86_400.0


def send_letter(to: str, text: str) -> None:
    """Where a real program would send mail."""
    print(f"To {to}: {text}", file=sys.stderr, flush=True)


class Expense(VirtualObject):
    """One expense. Whoever submits it has the answer when somebody has decided."""

    approval: Awakeable[bool] | None = state(default=None)
    decided: str = state(default="open")

    @handler
    async def submit(self, ctx: ObjectContext, amount: int, to: str) -> str:
        approval = self.approval = ctx.awakeable(bool)
        self.decided = "asked"
        answer = f"curl localhost:8080/restate/awakeables/{approval.id}/resolve -d true"
        await ctx.run("ask", send_letter, to, f"is {amount} all right? {answer}")
        while True:
            try:
                async with asyncio.timeout(DAY_SECONDS):
                    self.decided = "approved" if await approval else "refused"
                    return self.decided
            except TimeoutError:
                await ctx.run("remind", send_letter, to, f"{amount} still waits for you. {answer}")

    @shared
    async def decide(self, ctx: SharedContext, *, yes: bool) -> None:
        """Decide without the id; the first word counts."""
        if self.approval is None:
            raise TerminalError("nobody has asked for an approval", code=404)
        await self.approval.resolve(yes)

    @shared
    async def outcome(self, ctx: SharedContext) -> str:
        """How it stands."""
        return self.decided


def make_runtime(store: str = "sqlite:///approval.db") -> Runtime:
    """The same on another store."""
    return Runtime(store, [Expense])


runtime = make_runtime()
