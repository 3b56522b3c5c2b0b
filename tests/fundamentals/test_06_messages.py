"""A message is a call that nobody waits for: `send`. It can be delayed, and its handle asks for the result later."""

from __future__ import annotations

from durably import (
    Context,
    InvocationStatus,
    ObjectContext,
    Service,
    SharedContext,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.testing import Harness


class Mailbox(VirtualObject):
    letters: list[str] = state(default=[])

    @handler
    async def put(self, ctx: ObjectContext, letter: str) -> int:
        self.letters.append(letter)
        return len(self.letters)

    @shared
    async def read(self, ctx: SharedContext) -> list[str]:
        return self.letters


class Office(Service):
    @handler
    async def invite(self, ctx: Context, names: list[str]) -> None:
        for name in names:
            await ctx.object(Mailbox, name).put.send("You are invited")
            await ctx.object(Mailbox, name).put.after(minutes=30).send("Do not forget")


async def test_who_sends_does_not_wait() -> None:
    async with Harness(Mailbox) as app:
        sent = await app.object(Mailbox, "mary").put.send("hello")
        assert await sent.result() == 1
        assert await sent.status() is InvocationStatus.COMPLETED


async def test_messages_of_a_handler_arrive_although_it_has_ended() -> None:
    async with Harness(Mailbox, Office) as app:
        await app.service(Office).invite(["mary", "joe"])
        await app.crash()
        await app.settle()
        for name in ("mary", "joe"):
            assert await app.object(Mailbox, name).read() == ["You are invited"]


async def test_a_delayed_message_comes_at_its_time() -> None:
    async with Harness(Mailbox, Office) as app:
        await app.service(Office).invite(["mary"])
        await app.advance(minutes=29)
        assert await app.object(Mailbox, "mary").read() == ["You are invited"]
        await app.advance(minutes=1)
        assert await app.object(Mailbox, "mary").read() == ["You are invited", "Do not forget"]


async def test_a_handle_is_only_an_id_and_can_be_made_again() -> None:
    async with Harness(Mailbox) as app:
        sent = await app.object(Mailbox, "mary").put.send("hello")
        await app.crash()
        assert await app.invocation(sent.id, int).result() == 1
