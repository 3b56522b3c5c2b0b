"""Callbacks: whom to call is data, and a call that takes too long is given up by its id.

    durably serve examples.callbacks:runtime

    curl localhost:8080/Feed/news/subscribe -H 'content-type: application/json' \\
        -d '{"service": "Inbox", "handler": "put", "key": "ann"}'
    curl localhost:8080/Feed/news/publish -d '"It works."'
    curl localhost:8080/Feed/news/under_way

The feed has no class of those that it calls, only their names. What it calls takes one value, as JSON, and answers with
a text. While it waits, anybody can see the ids of its calls, and cancel one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from durably import ObjectContext, Runtime, SharedContext, TerminalError, VirtualObject, handler, select, shared, state

PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Subscriber:
    """A handler, by its names."""

    service: str
    handler: str
    key: str | None = None


class Feed(VirtualObject):
    """Tells its subscribers what is new."""

    subscribers: list[Subscriber] = state(default=[])
    calls: list[str] = state(default=[])

    @handler
    async def subscribe(self, ctx: ObjectContext, subscriber: Subscriber) -> None:
        """Tell this one, too, from now on."""
        if subscriber not in self.subscribers:
            self.subscribers.append(subscriber)

    @handler
    async def publish(self, ctx: ObjectContext, text: str) -> dict[str, str]:
        """Tell all; returns what each answers, or why it did not."""
        answers = await asyncio.gather(*(self._tell(ctx, one, text) for one in self.subscribers))
        self.calls = []
        return {f"{one.service}/{one.key or ''}": answer for one, answer in zip(self.subscribers, answers, strict=True)}

    @shared
    async def under_way(self, ctx: SharedContext) -> list[str]:
        """The ids of the calls that are made now."""
        return self.calls

    async def _tell(self, ctx: ObjectContext, one: Subscriber, text: str) -> str:
        call = ctx.call(one.service, one.handler, key=one.key, argument=text, returns=str)
        try:
            invocation = await ctx.invocation_of(call)
            self.calls.append(invocation.id)
            name, answer = await select(answer=call, late=late(ctx))
            if name == "late":
                await invocation.cancel()
            return answer if name == "answer" else await call
        except TerminalError as error:  # Unknown names, refusals, and what was cancelled.
            return f"failed: {error.message}"


async def late(ctx: ObjectContext) -> str:
    await ctx.sleep(PATIENCE_SECONDS)
    return ""


class Inbox(VirtualObject):
    """Keeps what it is told."""

    texts: list[str] = state(default=[])

    @handler
    async def put(self, ctx: ObjectContext, text: str) -> str:
        return self._keep(text)

    @handler
    async def put_when_asked(self, ctx: ObjectContext, text: str) -> str:
        """Waits for a signal first."""
        await ctx.signal("ask")
        return self._keep(text)

    def _keep(self, text: str) -> str:
        self.texts.append(text)
        return f"{self.key} has {len(self.texts)}"


runtime = Runtime("sqlite:///callbacks.db", [Feed, Inbox])
